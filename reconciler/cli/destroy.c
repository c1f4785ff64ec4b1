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
	uint64_t patience; /* then it is said what is waited for */
	bool timed_out;
	bool found; /* anything to remove */
};

/*
 * The file's node and hypervisors, and of its services those that are
 * protected; with any of these the node's programs stay, too.
 */
static struct spec *emptied(struct reconciler *r)
{
	struct spec *s = r->spec;
	size_t kept = 0;

	r->settled = false;
	for (size_t i = 0; i < s->service_count; i++)
		if (s->services[i].protect)
			s->services[kept++] = s->services[i];
	s->service_count = kept;
	if (!kept)
		s->node.interface_count = 0;
	s->safety.allow_empty = true;
	return s;
}

static bool is_protected(const struct reconciler *r, const char *service)
{
	return service && spec_find_service(r->spec, service);
}

/* Without programs in the kernel only these are left to be done. */
static bool outside_kernel(const struct change *c)
{
	return c->kind == CHANGE_VM_REMOVE || c->kind == CHANGE_DRAIN ||
	       c->kind == CHANGE_ADDRESS_DEL;
}

/* VMs of protected services stay as they are, and none is made. */
static bool leaves_alone(const struct reconciler *r, const struct change *c)
{
	return c->kind >= CHANGE_DRAIN && c->kind <= CHANGE_VM_REMOVE &&
	       is_protected(r, c->service);
}

static size_t count_vms(const struct reconciler *r, const struct world *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->vm_count; i++)
		n += !is_protected(r, w->vms[i].service);
	return n;
}

/* The plan for a file that declares nothing, and loads nothing first. */
static struct plan *make_plan(struct reconciler *r, struct arena *arena,
			      size_t *ret_vms)
{
	struct world *w;
	struct plan *p;
	size_t kept = 0;

	r->verify = true;
	w = r->read_only ? observe_as_if(r, r->spec, arena)
			 : observe(r, r->spec, arena);
	w->settled = false;
	w->budget.left = UINT32_MAX; /* it was asked for in so many words */
	p = plan_make(r->spec, w);
	for (size_t i = 0; i < p->count; i++)
		if ((r->dp || outside_kernel(p->changes[i])) &&
		    !leaves_alone(r, p->changes[i]))
			p->changes[kept++] = p->changes[i];
	p->count = kept;
	p->guard_count = 0;
	*ret_vms = count_vms(r, w);
	return p;
}

static void record(struct reconciler *r, const struct change *c, int err,
		   const struct diag_list *diags)
{
	struct store_change row = {
		.time_ms = clock_wall_ms(),
		.revision_id = r->revision,
		.run_id = r->run_id,
		.object = c->object,
		.action = action_name(c->action),
		.cause = "destroy",
		.result = err ? "failed" : "done",
		.error = !err		? NULL
			 : diags->count ? diags->items[0].message
					: strerror(-err),
	};

	if (err)
		log_warn("change", "object=%s result=failed error=\"%s\"",
			 c->object, row.error);
	if (r->store && (err || (!c->hidden && !c->waits)))
		store_add_change(r->store, &row);
}

/* True when nothing is left. */
static bool one_round(struct destroying *d)
{
	struct reconciler *r = &d->r;
	struct arena *arena = arena_new();
	size_t vms;
	struct plan *p = make_plan(r, arena, &vms);
	bool empty = hypervisors_read(r) && plan_is_empty(p) && !vms;

	d->found |= p->count || vms;
	for (size_t i = 0; i < p->count; i++) {
		struct diag_list diags = { 0 };
		int err = apply_change(r, p->changes[i], &diags);

		record(r, p->changes[i], err, &diags);
		diag_list_release(&diags);
	}
	plan_free(p);
	arena_free(arena);
	return empty;
}

static void say_what_is_waited_for(struct destroying *d)
{
	struct buf text = BUF_INIT;

	if (!d->patience || clock_ns() < d->patience)
		return;
	d->patience = 0;
	complain_of_hypervisors(&d->r, "waiting", NULL, &text);
	fputs(buf_str(&text), stderr);
	buf_release(&text);
}

static void step(void *arg)
{
	struct destroying *d = arg;

	say_what_is_waited_for(d);
	d->timed_out = clock_ns() >= d->until;
	vms_tick(&d->r);
	if (one_round(d)) {
		d->timed_out = false;
		loop_stop(d->r.loop);
	} else if (d->timed_out) {
		loop_stop(d->r.loop);
	} else {
		loop_arm_in(d->timer, CHECK_EVERY);
	}
}

/*
 * What no plan holds, after it: sysctls get the values they had, programs and
 * maps go.  `out`: only say so.
 */
static void restore_sysctls(struct reconciler *r, struct buf *out)
{
	for (size_t i = 0; i < r->override_count; i++) {
		struct store_override *o = &r->overrides[i];
		AUTO_FREE char *name = mem_dup(o->key);
		char *value = strchr(name, '=');

		if (strcmp(o->kind, "sysctl") != 0)
			continue;
		if (value)
			*value++ = '\0';
		if (out) {
			buf_addf(out, "    ~ %s back to %s\n", name,
				 value ? value : "?");
			continue;
		}
		if (value && sysctl_write(name, value))
			log_warn("sysctl", "name=%s result=kept", name);
		store_clear_override(r->store, o->kind, o->key);
	}
}

/* Nothing but the kernel knows of them any more; they can't be left out. */
static bool complain_of_lost(const struct reconciler *r, struct buf *out)
{
	struct arena *arena = arena_new();
	struct world *w = observe_as_if((struct reconciler *)r, r->spec, arena);
	bool any = false;

	for (size_t i = 0; i < w->service_count; i++) {
		const struct world_service *s = &w->services[i];

		if (s->spec || s->unprotected || !kept_by_kernel(r, s->name))
			continue;
		any = true;
		buf_addf(out,
			 "error: service %s is protected, and neither the file "
			 "nor the history knows any more what it is\n    hint: "
			 "put its block back, or run `xlb-reconcile unprotect "
			 "%s`\n",
			 s->name, s->name);
	}
	arena_free(arena);
	return any;
}

static void say_protected(const struct reconciler *r, struct buf *out)
{
	for (size_t i = 0; i < r->spec->service_count; i++)
		buf_addf(out, "Kept: service %s is protected.\n",
			 r->spec->services[i].name);
}

static void forget_file(struct reconciler *r)
{
	struct store_revision rev = { .time_ms = clock_wall_ms(),
				      .path = r->opt->file,
				      .sha256 = r->file_sha256,
				      .result = "destroyed" };

	if (r->store)
		store_add_revision(r->store, &rev);
	applied_forget(r);
}

static void print_plan(struct reconciler *r, struct buf *out)
{
	struct arena *arena = arena_new();
	struct buf rest = BUF_INIT;
	size_t vms;
	struct plan *p = make_plan(r, arena, &vms);

	if (!r->spec->service_count)
		restore_sysctls(r, &rest);
	if (r->dp && !r->spec->service_count)
		buf_addf(&rest, "    - programs and maps in %s\n",
			 r->opt->bpffs);
	say_protected(r, out);
	if (rest.len)
		buf_addf(out, "At the end:\n%s\n", buf_str(&rest));
	else if (plan_shows_nothing(p))
		buf_adds(out, "Nothing of this installation is there.\n");
	if (!plan_shows_nothing(p))
		plan_text(p, r->spec, out);
	buf_release(&rest);
	plan_free(p);
	arena_free(arena);
}

/* run_verb() has waited until the hypervisors were read. */
static int dry_run_verb(struct reconciler *r, const struct options *opt,
			struct buf *out)
{
	(void)opt;
	if (complain_of_hypervisors(r, "error", "its VMs are not known", out))
		return EXIT_FAILED;
	if (complain_of_lost(r, out))
		return EXIT_HELD;
	emptied(r);
	print_plan(r, out);
	return EXIT_DONE;
}

static bool confirmed(const struct options *opt)
{
	char answer[16] = "";

	if (opt->yes)
		return true;
	if (!isatty(STDIN_FILENO)) {
		fputs("error: destroy asks before it removes anything, and "
		      "there is no terminal to ask on\n"
		      "    hint: give --yes; --dry-run shows what would go\n",
		      stderr);
		return false;
	}
	fputs("Remove every VM, VIP and program of this installation? [yes/no] ",
	      stdout);
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) && !strcmp(answer, "yes\n");
}

static void complain_of_rest(struct reconciler *r)
{
	struct buf text = BUF_INIT;

	fputs("error: not all could be removed in time; run destroy again "
	      "(--timeout allows more)\n",
	      stderr);
	complain_of_hypervisors(r, "error", NULL, &text);
	print_plan(r, &text);
	fputs(buf_str(&text), stderr);
	buf_release(&text);
}

static int destroy_all(struct destroying *d, struct diag_list *diags)
{
	struct reconciler *r = &d->r;
	AUTO_BUF struct buf text = BUF_INIT;
	int err = 0;

	if (reconciler_look(r, diags))
		return EXIT_INVALID;
	if (complain_of_lost(r, &text)) {
		fputs(buf_str(&text), stderr);
		return EXIT_HELD;
	}
	emptied(r);
	/* Nothing but the rounds carries out anything: no pass may load anew. */
	loop_remove(r->pass);
	r->pass = NULL;
	d->until = clock_ns() + r->opt->timeout;
	d->patience = clock_ns() + 2 * NS_PER_S;
	d->timer = loop_add_timer(r->loop, step, d);
	loop_arm(d->timer, 0);
	loop_run(r->loop);
	loop_remove(d->timer);
	if (d->timed_out) {
		complain_of_rest(r);
		return EXIT_FAILED;
	}
	keeping_remember(r);
	if (r->spec->service_count) {
		say_protected(r, &text);
		fputs(buf_str(&text), stdout);
	} else {
		restore_sysctls(r, NULL);
		d->found |= r->dp != NULL;
		err = r->dp ? datapath_destroy(r->dp) : 0;
	}
	if (err)
		fprintf(stderr, "error: %s can't be removed: %s\n",
			r->opt->bpffs, strerror(-err));
	if (d->found)
		forget_file(r);
	return err ? EXIT_FAILED : EXIT_DONE;
}

int cmd_destroy(const struct options *opt)
{
	struct destroying d = { 0 };
	struct diag_list diags = { 0 };
	struct buf text = BUF_INIT;
	struct loop *loop;
	int lock = -1, code = EXIT_FAILED;

	if (opt->dry_run)
		return run_verb_here(opt, dry_run_verb);
	if (!confirmed(opt)) {
		fputs("nothing was removed\n", stderr);
		return EXIT_FAILED;
	}
	if (state_dir_lock(opt->state_dir, &lock) || loop_new(&loop))
		return EXIT_FAILED;
	if (!reconciler_open(&d.r, opt, loop, false, &diags))
		code = destroy_all(&d, &diags);
	if (code != EXIT_DONE)
		diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	if (code == EXIT_DONE)
		puts(d.r.spec->service_count
			     ? "Removed all else of this installation."
		     : d.found ? "Removed all of this installation."
			       : "Nothing of this installation was there.");
	reconciler_close(&d.r);
	loop_free(loop);
	close(lock);
	buf_release(&text);
	diag_list_release(&diags);
	return code;
}
