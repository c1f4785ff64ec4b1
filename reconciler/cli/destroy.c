/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * destroy: the plan for a file that declares nothing, carried out until it is
 * empty; then the programs, the pins and the sysctls.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/lock.h"
#include "cli/standalone.h"

#define CHECK_EVERY (100 * NS_PER_MS)

struct destroying {
	struct reconciler r;
	struct loop_source *timer;
	uint64_t until;
	bool timed_out;
};

/* The file's node and hypervisors, and none of its services. */
static struct spec *emptied(struct reconciler *r)
{
	struct spec *s = r->spec;

	s->service_count = 0;
	s->node.interface_count = 0;
	s->safety.allow_empty = true;
	return s;
}

static bool one_round(struct reconciler *r)
{
	struct arena *arena = arena_new();
	struct world *w;
	struct plan *p;
	bool empty;

	r->verify = true;
	w = observe(r, r->spec, arena);
	p = plan_make(r->spec, w);
	empty = hypervisors_read(r) && plan_is_empty(p) && !w->vm_count;
	for (size_t i = 0; i < p->count; i++) {
		struct diag_list diags = { 0 };

		if (p->changes[i]->kind != CHANGE_LOAD)
			apply_change(r, p->changes[i], &diags);
		diag_list_release(&diags);
	}
	if (!r->dp && p->count == 1 && p->changes[0]->kind == CHANGE_LOAD)
		empty = hypervisors_read(r) && !w->vm_count;
	plan_free(p);
	arena_free(arena);
	return empty;
}

static void step(void *arg)
{
	struct destroying *d = arg;

	d->timed_out = clock_ns() >= d->until;
	vms_tick(&d->r);
	if (one_round(&d->r) || d->timed_out)
		loop_stop(d->r.loop);
	else
		loop_arm_in(d->timer, CHECK_EVERY);
}

static void restore_sysctls(struct reconciler *r)
{
	for (size_t i = 0; i < r->override_count; i++) {
		struct store_override *o = &r->overrides[i];
		char *name, *value;

		if (strcmp(o->kind, "sysctl") != 0)
			continue;
		name = mem_dup(o->key);
		value = strchr(name, '=');
		if (value) {
			*value++ = '\0';
			if (sysctl_write(name, value))
				log_warn("sysctl", "name=%s result=kept", name);
		}
		store_clear_override(r->store, o->kind, o->key);
		free(name);
	}
}

static bool confirmed(const struct options *opt)
{
	char answer[16] = "";

	if (opt->yes)
		return true;
	if (!isatty(STDIN_FILENO)) {
		fputs("destroy asks before it removes anything; without a "
		      "terminal give --yes\n",
		      stderr);
		return false;
	}
	fputs("Remove every VM, VIP and program of this installation? [yes/no] ",
	      stdout);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n");
}

static int destroy_all(struct destroying *d, struct diag_list *diags)
{
	struct reconciler *r = &d->r;
	int err;

	if (reconciler_look(r, diags))
		return EXIT_INVALID;
	emptied(r);
	/* Nothing but the rounds carries out anything: no pass may load anew. */
	loop_remove(r->pass);
	r->pass = NULL;
	d->until = clock_ns() + r->opt->timeout;
	d->timer = loop_add_timer(r->loop, step, d);
	loop_arm(d->timer, 0);
	loop_run(r->loop);
	loop_remove(d->timer);
	if (d->timed_out)
		fputs("error: not all could be removed in time; "
		      "`xlb-reconcile status` shows what is left\n",
		      stderr);
	restore_sysctls(r);
	if (d->timed_out)
		return EXIT_FAILED;
	err = r->dp ? datapath_destroy(r->dp) : 0;
	if (err)
		fprintf(stderr, "error: %s can't be removed: %s\n",
			r->opt->bpffs, strerror(-err));
	return err ? EXIT_FAILED : EXIT_DONE;
}

int cmd_destroy(const struct options *opt)
{
	struct destroying d = { 0 };
	struct diag_list diags = { 0 };
	struct buf text = BUF_INIT;
	struct loop *loop;
	int lock = -1, code = EXIT_FAILED;

	if (opt->dry_run) {
		puts("would remove every VM, VIP, table and program of this "
		     "installation; `xlb-reconcile status` lists them");
		return EXIT_DONE;
	}
	if (!confirmed(opt))
		return EXIT_FAILED;
	if (state_dir_lock(opt->state_dir, &lock) || loop_new(&loop))
		return EXIT_FAILED;
	if (!reconciler_open(&d.r, opt, loop, false, &diags))
		code = destroy_all(&d, &diags);
	diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	if (code == EXIT_DONE)
		puts("all removed");
	reconciler_close(&d.r);
	loop_free(loop);
	close(lock);
	buf_release(&text);
	diag_list_release(&diags);
	return code;
}
