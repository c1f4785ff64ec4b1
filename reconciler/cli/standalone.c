/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A verb goes to the daemon when one runs; else it opens a reconciler of its
 * own that only looks, waits until the hypervisors have been read, and asks
 * that one.
 */
#include <errno.h>
#include <string.h>

#include "base/seam.h"
#include "cli/standalone.h"

#define LOOK_AT_MOST (5 * NS_PER_S)
#define LOOK_EVERY (20 * NS_PER_MS)

struct look {
	struct reconciler r;
	struct loop_source *timer;
	uint64_t until;
	const struct spec *spec;
};

static void look(void *arg)
{
	struct look *l = arg;

	if (hypervisors_read(&l->r) || clock_ns() >= l->until)
		loop_stop(l->r.loop);
	else
		loop_arm_in(l->timer, LOOK_EVERY);
}

/* Until it is closed again nothing may be changed. */
static int look_and_ask(const struct options *opt, verb_fn fn, struct buf *out,
			bool *ret_failed)
{
	struct look l = { 0 };
	struct diag_list diags = { 0 };
	struct loop *loop;
	int code = loop_new(&loop);

	*ret_failed = true;
	if (code)
		return EXIT_FAILED;
	code = reconciler_open(&l.r, opt, loop, true, &diags);
	if (!code)
		code = reconciler_look(&l.r, &diags);
	if (!code && l.r.hypervisor_count) {
		l.until = clock_ns() + LOOK_AT_MOST;
		l.timer = loop_add_timer(loop, look, &l);
		loop_arm_in(l.timer, LOOK_EVERY);
		loop_run(loop);
		loop_remove(l.timer);
	}
	if (code)
		diag_list_print(&diags, out); /* else fn warns */
	*ret_failed = code != 0;
	if (code)
		code = code == -EBADMSG ? EXIT_INVALID : EXIT_FAILED;
	else
		code = fn(&l.r, opt, out);
	reconciler_close(&l.r);
	loop_free(loop);
	diag_list_release(&diags);
	return code;
}

int look_here(const struct options *opt, verb_fn fn, struct buf *out,
	      bool *ret_failed)
{
	int code;

	seam_look_begin();
	code = look_and_ask(opt, fn, out, ret_failed);
	seam_look_end();
	return code;
}

size_t complain_of_hypervisors(const struct reconciler *r, const char *severity,
			       const char *so, struct buf *out)
{
	size_t n = 0;

	for (size_t i = 0; i < r->hypervisor_count; i++) {
		const struct hypervisor *h = r->hypervisors[i];

		if (hypervisor_is_read(h))
			continue;
		n++;
		buf_addf(out, "%s: hypervisor %s (%s) does not answer%s%s\n",
			 severity, hypervisor_name(h), hypervisor_uri(h),
			 so ? ": " : "", so ? so : "");
	}
	return n;
}

void complain_of_daemon(const struct options *opt, int err, struct buf *out)
{
	buf_addf(out, "error: the daemon of %s does not answer: %s\n",
		 opt->state_dir, strerror(-err));
	if (err == -EACCES || err == -EPERM)
		buf_adds(out, "    hint: run as root\n");
}

/* A report is what was asked for, also when it ends with a bad sign. */
static FILE *stream_for(const struct options *opt, int code)
{
	bool report = code == EXIT_DONE || code == EXIT_CHANGES ||
		      code == EXIT_HELD || (code == EXIT_FAILED && opt->check);

	return report ? stdout : stderr;
}

void print_answer(const struct options *opt, int code, bool failed,
		  const char *text)
{
	fputs(text, failed ? stderr : stream_for(opt, code));
}

int run_verb_here(const struct options *opt, verb_fn fn)
{
	struct buf out = BUF_INIT;
	bool failed;
	int code = look_here(opt, fn, &out, &failed);

	print_answer(opt, code, failed, buf_str(&out));
	buf_release(&out);
	return code;
}

int ask_verb(const struct options *opt, verb_fn fn, struct buf *out,
	     bool *ret_failed)
{
	int code = control_ask(opt, out);

	if (code == -ENOENT)
		return look_here(opt, fn, out, ret_failed);
	*ret_failed = code < 0;
	if (code < 0)
		complain_of_daemon(opt, code, out);
	return code < 0 ? EXIT_FAILED : code;
}

int run_verb(const struct options *opt, verb_fn fn)
{
	struct buf out = BUF_INIT;
	bool failed;
	int code = ask_verb(opt, fn, &out, &failed);

	print_answer(opt, code, failed, buf_str(&out));
	buf_release(&out);
	return code;
}
