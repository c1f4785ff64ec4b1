/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pause, resume, unprotect: services that stay as they are.  Without a daemon
 * they take its lock and leave what they say in the store, for the next one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/lock.h"
#include "cli/override.h"
#include "cli/standalone.h"

static const struct service_spec *find_service(const struct reconciler *r,
					       const char *name)
{
	return r->spec ? spec_find_service(r->spec, name) : NULL;
}

static int no_such_service(const char *name, struct buf *out)
{
	buf_addf(out,
		 "error: there is no service %s\n    hint: `xlb-reconcile "
		 "status` lists them\n",
		 name);
	return EXIT_FAILED;
}

static bool is_daemon(const struct reconciler *r)
{
	return r->control != NULL;
}

static void when_it_runs(const struct reconciler *r, struct buf *out)
{
	if (!is_daemon(r))
		buf_adds(out, "no daemon runs: this holds when it starts\n");
}

/* 0, or an exit code with its message. */
static int set(struct reconciler *r, const char *kind, const char *name,
	       bool on, struct buf *out)
{
	AUTO_FREE char *kind_copy = mem_dup(kind);
	AUTO_FREE char *key = mem_dup(name);
	struct store_override o = { .kind = kind_copy,
				    .key = key,
				    .since_ms = clock_wall_ms() };
	int err = on ? store_set_override(r->store, &o)
		     : store_clear_override(r->store, kind, name);

	if (err) {
		buf_addf(out, "error: the store refused it: %s\n",
			 strerror(-err));
		return EXIT_FAILED;
	}
	overrides_reload(r);
	return 0;
}

static void record(struct reconciler *r, const struct options *opt)
{
	AUTO_FREE char *object = mem_printf("service.%s", opt->args[0]);

	overrides_record(r, opt->verb, object);
}

static int pause_service(struct reconciler *r, const struct options *opt,
			 struct buf *out)
{
	const char *name = opt->args[0];
	const struct service_spec *s = find_service(r, name);
	int code;

	if (!s)
		return no_such_service(name, out);
	if (find_override(r, "pause", name)) {
		buf_addf(out, "%s is paused already\n", name);
		return EXIT_DONE;
	}
	if (opt->dry_run)
		return overrides_preview(r, opt, "pause", name, true, out);
	code = set(r, "pause", name, true, out);
	if (code)
		return code;
	/* What is to be kept is what is in force, not what the file may say. */
	if (is_daemon(r) || r->settled)
		keeping_remember(r);
	record(r, opt);
	reconcile_soon(r);
	buf_addf(out, "%s is paused: it stays as it is until `resume %s`\n",
		 name, name);
	when_it_runs(r, out);
	return EXIT_DONE;
}

static int still_paused(const struct service_spec *s, struct buf *out)
{
	buf_addf(out,
		 "error: %s is paused by the file: %s:%d\n    hint: remove "
		 "\"paused: true\" there\n",
		 s->name, s->src.file, s->src.line);
	return EXIT_FAILED;
}

static int resume_service(struct reconciler *r, const struct options *opt,
			  struct buf *out)
{
	const char *name = opt->args[0];
	const struct service_spec *s = find_service(r, name);
	bool by_operator = find_override(r, "pause", name) != NULL;
	bool by_file = s && s->paused;
	int code = 0;

	if (!s && !by_operator)
		return no_such_service(name, out);
	if (!by_operator && !by_file) {
		buf_addf(out, "%s is not paused\n", name);
		return EXIT_DONE;
	}
	if (by_operator && opt->dry_run)
		return overrides_preview(r, opt, "pause", name, false, out);
	if (by_operator)
		code = set(r, "pause", name, false, out);
	if (code)
		return code;
	if (by_operator)
		record(r, opt);
	if (by_file)
		return still_paused(s, out);
	buf_addf(out, "%s goes on\n", name);
	when_it_runs(r, out);
	/* Changes of it in the file have waited for this. */
	if (is_daemon(r)) {
		r->reread = true;
		reconciler_saved(r);
	}
	return EXIT_DONE;
}

static int unprotect(struct reconciler *r, const struct options *opt,
		     struct buf *out)
{
	const char *name = opt->args[0];
	const struct service_spec *s = find_service(r, name);
	bool lost = !s && kept_by_kernel(r, name);
	int code;

	if (!s && !lost)
		return no_such_service(name, out);
	if (s && !s->undeclared && s->protect) {
		buf_addf(out,
			 "error: %s is protected by the file: %s:%d\n    "
			 "hint: remove \"protect: true\" there\n",
			 name, s->src.file, s->src.line);
		return EXIT_FAILED;
	}
	if (s && !s->protect) {
		buf_addf(out, "%s is not protected\n", name);
		return EXIT_DONE;
	}
	if (opt->dry_run)
		return overrides_preview(r, opt, "unprotect", name, true, out);
	code = set(r, "unprotect", name, true, out);
	if (code)
		return code;
	keeping_release(r, name);
	record(r, opt);
	buf_addf(out,
		 "%s is protected no longer: it goes as soon as its VMs may\n",
		 name);
	when_it_runs(r, out);
	if (lost && is_daemon(r))
		reconciler_saved(r);
	reconcile_soon(r);
	return EXIT_DONE;
}

int keep_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	if (!r->store) {
		buf_addf(out, "error: without the store %s can't be kept\n",
			 opt->verb);
		return EXIT_FAILED;
	}
	if (!strcmp(opt->verb, "pause"))
		return pause_service(r, opt, out);
	if (!strcmp(opt->verb, "resume"))
		return resume_service(r, opt, out);
	return unprotect(r, opt, out);
}

/* The daemon's place is taken for as long as it takes. */
static int keep_here(const struct options *opt, struct buf *out)
{
	struct diag_list diags = { 0 };
	struct reconciler r;
	struct loop *loop;
	int lock = -1, code = EXIT_FAILED;

	if (state_dir_lock(opt->state_dir, &lock))
		return EXIT_FAILED;
	if (loop_new(&loop)) {
		close(lock);
		return EXIT_FAILED;
	}
	if (!reconciler_open(&r, opt, loop, false, &diags)) {
		/* Nothing is carried out. */
		loop_remove(r.pass);
		r.pass = NULL;
		code = reconciler_look(&r, &diags) ? EXIT_INVALID
						   : keep_verb(&r, opt, out);
	}
	diag_list_print(&diags, out);
	reconciler_close(&r);
	loop_free(loop);
	close(lock);
	diag_list_release(&diags);
	return code;
}

int cmd_keep(const struct options *opt)
{
	struct buf out = BUF_INIT;
	int code = control_ask(opt, &out);

	if (code == -ENOENT && opt->dry_run) {
		buf_release(&out);
		return run_verb_here(opt, keep_verb);
	}
	if (code == -ENOENT) {
		code = keep_here(opt, &out);
	} else if (code < 0) {
		complain_of_daemon(opt, code, &out);
		code = EXIT_FAILED;
	}
	fputs(buf_str(&out),
	      code == EXIT_DONE || code == EXIT_HELD ? stdout : stderr);
	buf_release(&out);
	return code;
}
