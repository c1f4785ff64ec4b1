/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file: read when it was saved, planned for, and refused or adopted.  What
 * can't be read or carried out changes nothing: the last good one goes on.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "pipeline.h"
#include "systemd.h"

void apply_flags(struct spec *s, const struct options *opt)
{
	if (opt->interface_count) {
		s->node.interfaces = arena_alloc(
			s->arena,
			opt->interface_count * sizeof(*s->node.interfaces));
		s->node.interface_count = opt->interface_count;
		for (size_t i = 0; i < opt->interface_count; i++)
			s->node.interfaces[i].name =
				arena_dup(s->arena, opt->interfaces[i]);
	}
	for (size_t i = 0; opt->hook && i < s->node.interface_count; i++)
		hook_parse(opt->hook, &s->node.interfaces[i].hook);
	for (size_t i = 0; opt->libvirt && i < s->hypervisor_count; i++)
		s->hypervisors[i].uri = arena_dup(s->arena, opt->libvirt);
}

/* After a start: what was applied last goes on meanwhile. */
static bool go_on_with_applied(struct reconciler *r)
{
	char sha256[65];
	int64_t last = 0;

	if (!r->spec && !r->applied)
		r->applied = applied_read(r);
	if (r->spec || !r->applied)
		return false;
	store_last_applied(r->store, &last, sha256);
	r->spec = r->applied;
	r->applied = NULL;
	r->settled = true;
	set_revision(r, last);
	connect_hypervisors(r, r->spec);
	loop_arm_in(r->resync, r->spec->node.resync);
	return true;
}

static void refuse(struct reconciler *r, struct diag_list *diags,
		   const char *result, int code)
{
	struct buf text = BUF_INIT;

	if (!r->opt->once && go_on_with_applied(r))
		reconcile_soon(r);
	diag_list_release(&r->file_diags);
	r->file_diags = *diags;
	*diags = (struct diag_list){ 0 };
	diag_list_print(&r->file_diags, &text);
	log_error("file_refused", "path=%s result=%s running=%s", r->opt->file,
		  result, r->spec ? "last good revision" : "nothing");
	log_text(LOG_ERROR, "diagnostics", buf_str(&text));
	buf_release(&text);
	record_revision(r, result);
	record_commit(r);
	r->saved_at = 0;
	systemd_serving(r);
	end_once(r, code);
}

/* Would it be carried out?  Nothing is changed by finding out. */
static bool acceptable(struct reconciler *r, const struct spec *spec,
		       struct plan *plan)
{
	bool ok;

	if (plan->held)
		diag_add(&plan->diags, SEVERITY_ERROR,
			 &(struct source){ .file = spec->path },
			 "`xlb-reconcile plan` shows it, and what `approve` "
			 "would release",
			 "%s", plan->held);
	ok = !plan->diags.errors;
	r->held = plan->held != NULL;
	if (!ok)
		refuse(r, &plan->diags, r->held ? "held" : "refused",
		       r->held ? EXIT_HELD : EXIT_INVALID);
	return ok;
}

/* The revision under which this file was applied before, or 0. */
static int64_t applied_before(struct reconciler *r)
{
	int64_t last = 0;
	char sha[65] = "";

	if (r->spec && r->reread && !strcmp(r->spec->sha256, r->file_sha256))
		return r->revision;
	if (r->spec || !r->store)
		return 0;
	store_last_applied(r->store, &last, sha);
	return strcmp(sha, r->file_sha256) ? 0 : last;
}

/*
 * A plan stays true when the spec is adopted, unless that alters what was
 * looked at: other hypervisors, or pools with other bounds.
 */
static bool stays_true(const struct reconciler *r, const struct spec *spec)
{
	if (r->hypervisor_count != spec->hypervisor_count)
		return false;
	for (size_t i = 0; i < spec->hypervisor_count; i++)
		if (!same_hypervisor(r->hypervisors[i], &spec->hypervisors[i]))
			return false;
	for (size_t i = 0; i < spec->service_count; i++)
		if (spec->services[i].pool.template)
			return false;
	return true;
}

/*
 * One group of records, so that the disk is waited for once, and only when
 * the kernel has been given everything.
 */
static void adopt_spec(struct reconciler *r, struct spec *spec,
		       int64_t revision, const struct draft *draft)
{
	bool use_draft = stays_true(r, spec);
	bool group = r->store && !store_begin(r->store);
	struct spec *old = r->spec;

	/* Drift is told from what was wholly applied. */
	if (old && r->settled && !revision) {
		spec_free(r->applied);
		r->applied = old;
		old = NULL;
	}
	r->file_waits = false;
	r->settled = revision != 0 && !r->reread;
	r->reread = false;
	set_revision(r, revision);
	r->restless = 0;
	r->told_failures = 0;
	diag_list_release(&r->file_diags);
	connect_hypervisors(r, spec);
	r->spec = spec;
	if (!revision) {
		record_revision(r, "applying");
		set_revision(r, r->last_revision);
	}
	loop_arm_in(r->resync, spec->node.resync);
	if (use_draft) {
		carry_out(r, draft);
		/* Where probes and drains go over to the new spec. */
		reconcile_soon(r);
	} else {
		reconcile_pass(r);
	}
	keeping_remember(r);
	if (!revision)
		record_commit(r);
	if (group && store_commit(r->store))
		log_warn("history", "what=revision result=lost");
	spec_free(old);
}

static void take(struct reconciler *r, struct spec *spec, int64_t revision,
		 const struct draft *draft)
{
	if (r->opt->only_sha256 &&
	    strcmp(r->opt->only_sha256, r->file_sha256) != 0) {
		fprintf(stderr,
			"error: %s has changed since the plan was made\n",
			r->opt->file);
		spec_free(spec);
		end_once(r, EXIT_STALE);
	} else if (acceptable(r, spec, draft->plan)) {
		adopt_spec(r, spec, revision, draft);
	} else {
		spec_free(spec);
	}
}

/* ---- run --manual ---- */

static bool may_adopt(const struct reconciler *r, const char *sha256)
{
	return !r->opt->manual ||
	       (r->adopt_sha256 && !strcmp(r->adopt_sha256, sha256));
}

static void wait_with_file(struct reconciler *r, struct spec *spec,
			   const struct plan *plan)
{
	struct plan_summary s = plan_summarize(plan);

	log_info("file_waits",
		 "path=%s drift=%u add=%u change=%u replace=%u destroy=%u "
		 "for=\"apply or approve\"",
		 r->opt->file, s.drift, s.add, s.change, s.replace, s.destroy);
	diag_list_release(&r->file_diags);
	r->held = false;
	r->file_waits = r->waiting = true;
	r->converged = false;
	r->saved_at = 0;
	record_revision(r, "waiting");
	record_commit(r);
	/* With nothing to go on with a plan still needs to see its VMs. */
	if (!go_on_with_applied(r) && !r->spec)
		connect_hypervisors(r, spec);
	spec_free(spec);
	systemd_serving(r);
	reconcile_soon(r);
}

static void back_to_what_runs(struct reconciler *r)
{
	diag_list_release(&r->file_diags);
	r->held = r->file_waits = false;
	r->saved_at = 0;
	reconcile_soon(r);
}

/* The file as it was read, and what would be done for it. */
struct reading {
	struct spec *spec; /* NULL: wrong, as diags say, or what runs */
	struct diag_list diags;
	char sha256[65];
	bool runs; /* it is what runs already */
	int64_t before; /* revision under which it was applied */
	struct draft draft; /* arena NULL: none yet */
};

static void read_file(struct reconciler *r, struct reading *ret)
{
	const char *runs = r->spec && !r->reread ? r->spec->sha256 : NULL;

	*ret = (struct reading){ 0 };
	ret->spec = spec_read_other(r->opt->file, runs, r->cache, &ret->diags,
				    ret->sha256);
	ret->runs = runs && !strcmp(ret->sha256, runs);
}

static void reading_release(struct reading *f)
{
	if (f->draft.arena)
		draft_release(&f->draft);
	diag_list_release(&f->diags);
}

/* More of the file may be on its way. */
static bool may_be_half(const struct reconciler *r, const struct reading *f)
{
	return !f->runs &&
	       (!f->spec || (r->cache && spec_cache_shorter(r->cache)));
}

static void note_sha256(struct reconciler *r, const char *sha256)
{
	if (strcmp(sha256, r->file_sha256) != 0)
		r->approved = r->opt->approved;
	snprintf(r->file_sha256, sizeof(r->file_sha256), "%s", sha256);
}

static void draft_for(struct reconciler *r, struct reading *f)
{
	apply_flags(f->spec, r->opt);
	keeping_merge(r, f->spec);
	f->before = applied_before(r);
	if (!r->spec && !f->before && !r->applied)
		r->applied = applied_read(r);
	f->draft.arena = arena_new();
	f->draft.world = observe_as_if(r, f->spec, f->draft.arena);
	f->draft.world->settled = f->draft.world->accepted = f->before != 0;
	draft_plan(r, &f->draft, f->spec);
}

static void decide(struct reconciler *r, struct reading *f)
{
	if (f->before || may_adopt(r, f->sha256) || f->draft.plan->diags.errors)
		take(r, f->spec, f->before, &f->draft);
	else
		wait_with_file(r, f->spec, f->draft.plan);
}

void read_again(void *arg)
{
	static const uint64_t delays[] = { 20, 50, 100 };
	struct reconciler *r = arg;
	struct reading f;
	bool half;

	read_file(r, &f);
	half = may_be_half(r, &f) || (r->maybe_half && !f.runs);
	r->maybe_half = false;
	if (f.runs) {
		back_to_what_runs(r);
	} else if (half && r->read_tries < ARRAY_SIZE(delays)) {
		/* Look again before it is said, or done. */
		spec_free(f.spec);
		loop_arm_in(r->retry_read, delays[r->read_tries++] * NS_PER_MS);
	} else if (f.spec) {
		note_sha256(r, f.sha256);
		draft_for(r, &f);
		decide(r, &f);
	} else if (strcmp(f.sha256, r->file_sha256) != 0 ||
		   !r->file_diags.errors) { /* else it was said already */
		note_sha256(r, f.sha256);
		refuse(r, &f.diags, "invalid", EXIT_INVALID);
	}
	reading_release(&f);
}

void reconciler_saved(void *arg)
{
	struct reconciler *r = arg;

	if (!r->cache)
		r->cache = spec_cache_new();
	r->read_tries = 0;
	r->saved_at = clock_ns();
	loop_disarm(r->retry_read);
	read_again(r);
}

/* Is this a save like most: of a file that is as it should be, and runs? */
static bool goes_on(const struct reconciler *r)
{
	return r->spec && r->cache && !r->reread && !r->opt->manual &&
	       !r->held && !r->file_diags.errors && !loop_armed(r->retry_read);
}

/*
 * While it is waited for more, what is there is read and planned for, and, if
 * nothing more came, carried out.  Else all of it is forgotten: the file will
 * be read again.
 */
void reconciler_coming(void *arg)
{
	struct reconciler *r = arg;
	uint64_t began = clock_ns();
	bool approved = r->approved;
	char sha256[65];
	struct reading f;

	if (!goes_on(r))
		return;
	memcpy(sha256, r->file_sha256, sizeof(sha256));
	read_file(r, &f);
	r->maybe_half = may_be_half(r, &f);
	if (r->maybe_half || f.runs) {
		spec_free(f.spec);
		reading_release(&f);
		return;
	}
	note_sha256(r, f.sha256);
	draft_for(r, &f);
	if (watch_take_saved(r->watch)) {
		log_debug("planned_ahead", "path=%s", r->opt->file);
		r->read_tries = 0;
		r->saved_at = began;
		decide(r, &f);
	} else {
		memcpy(r->file_sha256, sha256, sizeof(sha256));
		r->approved = approved;
		spec_free(f.spec);
	}
	reading_release(&f);
}

void reconciler_release(struct reconciler *r, const char *sha256, bool approved)
{
	bool runs = r->spec && !strcmp(r->spec->sha256, sha256);

	r->approved |= approved;
	r->released = true;
	r->adopt_sha256 = sha256;
	/* It is whole: it has just been planned. */
	r->read_tries = UINT_MAX;
	r->saved_at = clock_ns();
	loop_disarm(r->retry_read);
	read_again(r);
	r->adopt_sha256 = NULL;
	if (runs)
		reconcile_pass(r);
}

struct plan *reconciler_plan(struct reconciler *r, const char *file,
			     struct spec **ret_spec, struct diag_list *diags)
{
	struct arena *arena;
	struct world *world;
	struct plan *plan;
	struct spec *spec = spec_read(file, NULL, diags, NULL);

	if (!spec)
		return NULL;
	apply_flags(spec, r->opt);
	keeping_merge(r, spec);
	arena = arena_new();
	scaling_preview(r, spec);
	world = look_closely(r, spec, arena, true);
	/* What an edit asks for isn't drift. */
	world->settled =
		r->settled && r->spec && !strcmp(r->spec->sha256, spec->sha256);
	world->accepted = r->spec && (!r->read_only || r->settled) &&
			  !strcmp(r->spec->sha256, spec->sha256);
	world->applied = baseline_of(r);
	plan = plan_make(spec, world);
	if (!world->settled)
		plan_tell_drift(plan, baseline_of(r));
	plan_guard(plan, spec, world);
	plan->world_arena = arena;
	scaling_preview_end(r, spec);
	*ret_spec = spec;
	return plan;
}
