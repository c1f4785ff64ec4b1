/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pipeline, on one screen (pass()):
 *
 *   desired -> actual -> scale -> plan -> guard -> apply -> record
 *
 * Everything that happens - a save, an event, a timer - only asks for another
 * pass.  A pass reads what is, plans the difference and carries it out, so
 * that it makes no odds what was missed, or where an earlier one was killed.
 */
#include "pipeline.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "systemd.h"

#define HOUSEKEEPING (200 * NS_PER_MS)
#define RETRY_AFTER_FAILURE NS_PER_S
#define RETRY_AT_MOST (32 * NS_PER_S)
/* Passes with something to do, before they are taken for a circle. */
#define RESTLESS_AFTER 32
#define MAINTAIN_EVERY 6 /* resyncs */
#define KEEP_AFTER NS_PER_S

/* ---- record ---- */

static void record_change(struct reconciler *r, const struct change *c, int err,
			  const struct diag_list *diags, uint64_t took)
{
	struct store_change row = {
		.time_ms = clock_wall_ms(),
		.revision_id = r->revision,
		.took_ms = (int64_t)(took / NS_PER_MS),
		.run_id = r->run_id,
		.object = c->object,
		.action = c->drift ? "repair" : action_name(c->action),
		.cause = c->cause ? c->cause : "",
		.file = c->file,
		.line = c->line,
		.result = err ? "failed" : "done",
		.error = !err		? NULL
			 : diags->count ? diags->items[0].message
					: strerror(-err),
	};

	log_line(err ? LOG_ERROR : LOG_INFO, "change",
		 "object=%s action=%s result=%s detail=\"%s\" cause=\"%s\"%s%s",
		 c->object, row.action, row.result, c->detail ? c->detail : "",
		 row.cause, err ? " error=" : "", err ? row.error : "");
	if (r->store && store_add_change(r->store, &row))
		log_warn("history", "what=change result=lost");
}

/* VM changes are recorded when libvirt is done with them. */
static bool records_itself(const struct change *c)
{
	return c->waits || c->held || c->kind == CHANGE_VM_CREATE ||
	       c->kind == CHANGE_VM_START || c->kind == CHANGE_VM_REPLACE ||
	       c->kind == CHANGE_VM_REMOVE;
}

struct outcome {
	int err;
	uint64_t took;
	struct diag_list diags;
};

/* FNV-1a, of what failed and why. */
static uint64_t add_text(uint64_t h, const char *s)
{
	while (s && *s)
		h = (h ^ (unsigned char)*s++) * 0x100000001b3ULL;
	return (h ^ 0xff) * 0x100000001b3ULL;
}

static uint64_t sum_failures(const struct plan *p,
			     const struct outcome *outcomes, size_t done)
{
	uint64_t h = 0;

	for (size_t i = 0; i < done; i++)
		if (outcomes[i].err)
			h = add_text(h, p->changes[i]->object) ^
			    (uint64_t)-outcomes[i].err;
	return h;
}

/* What fails in the same way at every retry is told once. */
static void record_all(struct reconciler *r, const struct plan *p,
		       struct outcome *outcomes, size_t done)
{
	bool batch = r->store && !store_begin(r->store);
	uint64_t failures = sum_failures(p, outcomes, done);
	bool news = failures != r->told_failures;

	r->told_failures = failures;
	for (size_t i = 0; i < done; i++) {
		const struct change *c = p->changes[i];

		if (outcomes[i].err ? news : !c->hidden && !records_itself(c))
			record_change(r, c, outcomes[i].err, &outcomes[i].diags,
				      outcomes[i].took);
		diag_list_release(&outcomes[i].diags);
	}
	if (batch)
		store_commit(r->store);
}

void set_revision(struct reconciler *r, int64_t revision)
{
	r->revision = revision;
	log_set_revision(revision);
}

static void set_result(struct reconciler *r, const char *result)
{
	if (r->store && r->revision > 0)
		store_set_revision_result(r->store, r->revision, result);
}

/* ---- apply ---- */

/* For status, and for `run --once` that gives up. */
static void note_failure(struct reconciler *r, const struct change *c,
			 const struct outcome *o)
{
	const struct diag *d = o->diags.count ? o->diags.items : NULL;

	snprintf(r->failing, sizeof(r->failing), "%s: %s%s%s", c->object,
		 d ? d->message : strerror(-o->err),
		 d && d->hint ? "\n    hint: " : "",
		 d && d->hint ? d->hint : "");
}

static bool is_blocked(const struct plan *p, const struct outcome *outcomes,
		       size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (outcomes[k].err &&
		    change_needs(p->changes[i], p->changes[k]))
			return true;
	return false;
}

static int apply(struct reconciler *r, const struct plan *p)
{
	struct outcome *outcomes = mem_array(p->count, sizeof(*outcomes));
	uint64_t before = clock_ns();
	size_t done = 0;
	int failed = 0;

	r->failing[0] = '\0';
	for (; done < p->count; done++) {
		struct outcome *o = &outcomes[done];
		uint64_t after;

		if (p->changes[done]->held)
			continue;
		if (p->changes[done]->counted)
			guards_count(r, p->changes[done]);
		if (is_blocked(p, outcomes, done))
			o->err = -ENOLINK;
		else
			o->err = apply_change(r, p->changes[done], &o->diags);
		if (r->prober)
			prober_turn(r->prober);
		after = clock_ns();
		o->took = after - before;
		before = after;
		if (o->err && !failed)
			note_failure(r, p->changes[done], o);
		failed = o->err ? o->err : failed;
		if (o->err && change_is_foundation(p->changes[done])) {
			done++;
			break;
		}
	}
	if (r->saved_at && !failed) {
		r->applied_ms = (double)(clock_ns() - r->saved_at) / 1e6;
		log_info("applied", "took_ms=%.3f changes=%zu", r->applied_ms,
			 p->count);
		r->saved_at = 0;
	}
	record_all(r, p, outcomes, done);
	free(outcomes);
	return failed;
}

/* ---- the pass ---- */

static bool members_joining(const struct world *w)
{
	for (size_t i = 0; i < w->service_count; i++) {
		const struct world_service *s = &w->services[i];

		for (size_t k = 0; s->spec && k < s->member_count; k++) {
			const struct world_member *m = &s->members[k];

			if (m->leaving || (m->health == HEALTH_JOINING &&
					   !m->drained && m->weight))
				return true;
		}
	}
	return false;
}

static bool vms_under_way(const struct world *w)
{
	for (size_t i = 0; i < w->vm_count; i++)
		if (w->vms[i].busy || w->vms[i].phase != PHASE_READY)
			return true;
	return false;
}

static bool pools_unknown(const struct world *w)
{
	for (size_t i = 0; i < w->service_count; i++)
		if (w->services[i].spec && w->services[i].spec->pool.template &&
		    !w->services[i].pool.known)
			return true;
	return false;
}

static void record_expiry(struct reconciler *r, const struct store_override *o)
{
	AUTO_FREE char *object = mem_dup(o->key);
	char *slash = strchr(object, '/');
	AUTO_FREE char *full = NULL;
	struct store_change row = { .time_ms = clock_wall_ms(),
				    .revision_id = r->revision,
				    .run_id = r->run_id,
				    .action = "undrain",
				    .cause = "its time is over",
				    .result = "done" };

	if (strcmp(o->kind, "drain") != 0 || !slash)
		return;
	*slash = '\0';
	full = mem_printf("service.%s/backend/%s", object, slash + 1);
	row.object = full;
	store_add_change(r->store, &row);
}

/* Ends those whose time is over, and comes back when the next one's is. */
static void expire_overrides(struct reconciler *r)
{
	int64_t now = clock_wall_ms(), next = 0;

	for (size_t i = 0; i < r->override_count; i++) {
		struct store_override *o = &r->overrides[i];

		if (!o->until_ms || !o->kind[0])
			continue;
		if (o->until_ms > now) {
			next = !next || o->until_ms < next ? o->until_ms : next;
			continue;
		}
		record_expiry(r, o);
		store_clear_override(r->store, o->kind, o->key);
		o->kind[0] = '\0';
	}
	if (next)
		loop_arm_in(r->expiry, (uint64_t)(next - now) * NS_PER_MS);
}

static void on_expiry(void *arg)
{
	reconcile_soon(arg);
}

static void check_actions(struct reconciler *r)
{
	struct service_run *s;
	size_t i = 0;

	while ((s = strmap_next(&r->services, &i)))
		scaling_check_done(r, s);
}

void end_once(struct reconciler *r, int code)
{
	if (!r->opt->once)
		return;
	r->exit_code = code;
	loop_stop(r->loop);
}

static uint64_t retry_delay(unsigned int tries, bool under_way)
{
	uint64_t delay = RETRY_AFTER_FAILURE;

	for (unsigned int i = 1; !under_way && i < tries; i++)
		if (delay < RETRY_AT_MOST)
			delay *= 2;
	return delay;
}

/*
 * A failure is tried again ever later.  Changes ask for another pass at once;
 * when they never come to an end, that must not take the whole processor.
 */
static void pass_again(struct reconciler *r, bool failed, bool changed,
		       bool under_way)
{
	r->restless = failed || changed ? r->restless + 1 : 0;
	if (failed)
		loop_arm_in(r->housekeeping,
			    retry_delay(r->restless, under_way));
	else if (changed && r->restless <= RESTLESS_AFTER)
		reconcile_soon(r);
	else if (changed || under_way)
		loop_arm_in(r->housekeeping, HOUSEKEEPING);
	if (changed && !failed && r->restless == RESTLESS_AFTER + 1)
		log_warn("restless", "passes=%u", r->restless);
}

static void after_pass(struct reconciler *r, const struct world *w,
		       const struct plan *p, int err)
{
	bool under_way =
		members_joining(w) || vms_under_way(w) || pools_unknown(w);
	bool still; /* but for what is held back */

	if (!err && !r->settled && !pools_unknown(w)) {
		r->settled = true;
		spec_free(r->applied);
		r->applied = NULL;
		set_result(r, "applied");
		loop_arm_in(r->keep, KEEP_AFTER);
	} else if (err && !r->settled) {
		set_result(r, "failed");
	}
	still = !err && plan_is_empty(p) && !under_way && !r->file_diags.errors;
	r->converged = still && !r->waiting && !p->guard_count;
	guards_after_pass(r, w, p);
	/* Backends that join may never do so, and need nobody's word. */
	if (!err && plan_is_empty(p) && !vms_under_way(w) && !pools_unknown(w))
		r->approved = r->released = false;
	check_actions(r);
	sweep_update(r);
	systemd_serving(r);
	pass_again(r, err != 0, !plan_is_empty(p), under_way);
	if (still && !r->waiting && r->verify_at == SIZE_MAX)
		end_once(r, p->guard_count ? EXIT_HELD : EXIT_DONE);
}

const struct spec *baseline_of(const struct reconciler *r)
{
	return r->settled ? r->spec : r->applied;
}

void draft_plan(const struct reconciler *r, struct draft *d,
		const struct spec *spec)
{
	d->world->applied = baseline_of(r);
	d->plan = plan_make(spec, d->world);
	if (!d->world->settled)
		plan_tell_drift(d->plan, baseline_of(r));
	plan_guard(d->plan, spec, d->world);
}

void draft_release(struct draft *d)
{
	plan_free(d->plan);
	arena_free(d->arena);
}

/* A file that was fine may become impossible: its interface went, say. */
static void tell_refusal(struct reconciler *r, const struct plan *p)
{
	const char *why = p->held;
	uint64_t sum;

	for (size_t i = 0; !why && i < p->diags.count; i++)
		if (p->diags.items[i].severity == SEVERITY_ERROR)
			why = p->diags.items[i].message;
	sum = add_text(1, why);
	if (sum != r->told_failures)
		log_error("not_applied", "why=\"%s\"", why);
	r->told_failures = sum;
}

/* ---- run --manual ---- */

static const struct held not_asked_for = {
	.guard = "manual", .why = "waits for `apply` or `approve`"
};

static bool is_table(const struct change *c)
{
	return c->kind == CHANGE_BACKEND_SET || c->kind == CHANGE_DIRECT ||
	       c->kind == CHANGE_REPLIES || c->kind == CHANGE_SLOTS ||
	       c->kind == CHANGE_SERVICE_SET || c->kind == CHANGE_VIPS ||
	       c->kind == CHANGE_BACKEND_CLEAR;
}

/*
 * Backends that fail or come back leave and enter the tables all the same: that
 * is what was applied at work.  So do the tables when nobody has spoilt them.
 */
static bool tables_may_follow(const struct plan *p)
{
	bool events = false, others = false;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];
		bool table = is_table(c) || c->kind == CHANGE_SHOW;

		if (c->kind == CHANGE_LOAD || c->kind == CHANGE_RELOAD)
			return false;
		if (c->hidden || c->waits || !table)
			continue;
		events |= !c->drift && !c->file;
		others |= c->drift || c->file;
	}
	return events || !others;
}

static bool needs_word(const struct change *c, bool follow)
{
	return !c->held && !c->waits &&
	       !(follow && (is_table(c) || c->kind == CHANGE_SHOW));
}

/*
 * A sum of what is held back.  What nobody would be shown isn't: it keeps what
 * was applied as it was.
 */
static uint64_t hold_back(const struct plan *p)
{
	bool follow = tables_may_follow(p);
	uint64_t sum = 0;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (!c->hidden && needs_word(c, follow))
			sum = add_text(add_text(sum + 1, c->object), c->detail);
	}
	for (size_t i = 0; sum && i < p->count; i++)
		if (needs_word(p->changes[i], follow))
			p->changes[i]->held = &not_asked_for;
	return sum;
}

/* Without the operator's word nothing is done beyond what was applied. */
static void wait_for_word(struct reconciler *r, const struct plan *p)
{
	struct plan_summary s = plan_summarize(p);
	uint64_t sum = r->opt->manual && !r->released ? hold_back(p) : 0;

	if (sum && sum != r->told_waiting)
		log_info("waiting",
			 "drift=%u add=%u change=%u replace=%u destroy=%u "
			 "for=\"apply or approve\"",
			 s.drift, s.add, s.change, s.replace, s.destroy);
	r->told_waiting = sum;
	r->waiting = sum || r->file_waits;
}

/* The next services' slots, in a pass of their own. */
static void verify_on(struct reconciler *r, const struct world *w)
{
	if (r->verify_at == SIZE_MAX)
		return;
	r->verify_at += VERIFY_AT_ONCE;
	if (r->verify_at < w->service_count)
		reconcile_soon(r);
	else
		r->verify_at = SIZE_MAX;
}

void carry_out(struct reconciler *r, const struct draft *d)
{
	int err = -EPERM;

	wait_for_word(r, d->plan);
	if (!d->plan->diags.errors && !d->plan->held)
		err = apply(r, d->plan);
	else
		tell_refusal(r, d->plan);
	if (r->dp)
		datapath_set_next_backend(r->dp, d->plan->next_id);
	r->verify = false;
	verify_on(r, d->world);
	after_pass(r, d->world, d->plan, err);
}

/*
 * Worlds and plans come and go by the megabyte.  After the last pass of a
 * resync, so that there is nothing left of them until something happens; after
 * any other a moment later, as more may follow.
 */
static void trim(struct reconciler *r)
{
	if (!r->trims && !loop_armed(r->keep))
		loop_arm_in(r->keep, KEEP_AFTER);
	if (!r->trims || r->verify_at != SIZE_MAX)
		return;
	r->trims = false;
	malloc_trim(0);
}

void reconcile_pass(void *arg)
{
	struct reconciler *r = arg;
	struct draft d;

	if (!r->spec)
		return;
	net_catch_up(r->net);
	expire_overrides(r);
	keeping_step(r);
	scaling_update(r, r->spec);
	d.arena = arena_new();
	d.world = observe(r, r->spec, d.arena);
	draft_plan(r, &d, r->spec);
	carry_out(r, &d);
	draft_release(&d);
	trim(r);
}

void reconciler_refresh(struct reconciler *r)
{
	log_info("refresh", "what=\"file, kernel, hypervisors\"");
	r->verify = true;
	net_refresh(r->net);
	for (size_t i = 0; i < r->hypervisor_count; i++)
		hypervisor_refresh(r->hypervisors[i]);
	reconciler_saved(r);
	reconcile_soon(r);
}

void reconcile_soon(struct reconciler *r)
{
	if (r->pass && !loop_armed(r->pass))
		loop_arm(r->pass, 0);
}

static void housekeeping(void *arg)
{
	struct reconciler *r = arg;

	vms_tick(r);
	reconcile_soon(r);
}

static void resync(void *arg)
{
	static const unsigned int minute = MAINTAIN_EVERY;
	struct reconciler *r = arg;

	r->verify = true;
	r->resyncs++;
	for (size_t i = 0; i < r->hypervisor_count; i++)
		hypervisor_refresh(r->hypervisors[i]);
	state_keep(r);
	applied_keep(r);
	if (r->store && r->spec && r->resyncs % minute == 0)
		store_maintain(
			r->store, clock_wall_ms(),
			(int64_t)(r->spec->history_retention / NS_PER_MS));
	vms_tick(r);
	r->trims = true;
	reconcile_soon(r);
	if (r->spec)
		loop_arm_in(r->resync, r->spec->node.resync);
}

/* ---- opening and closing ---- */

int reconciler_look(struct reconciler *r, struct diag_list *diags)
{
	struct spec *spec =
		spec_read(r->opt->file, NULL, diags, r->file_sha256);
	int64_t last = 0;
	char applied[65] = "";

	if (!spec)
		return -EBADMSG;
	apply_flags(spec, r->opt);
	keeping_merge(r, spec);
	r->spec = spec;
	if (r->store)
		store_last_applied(r->store, &last, applied);
	r->settled = last && !strcmp(applied, r->spec->sha256);
	if (!r->settled)
		r->applied = applied_read(r);
	set_revision(r, last);
	connect_hypervisors(r, r->spec);
	return 0;
}

static void on_network(void *arg)
{
	reconcile_soon(arg);
}

static int open_kernel(struct reconciler *r, struct diag_list *diags)
{
	struct datapath_config cfg = { .bpffs = r->opt->bpffs,
				       .read_only = true };
	int err = datapath_open(&cfg, &r->dp, diags);

	if (err == -ENOENT)
		return 0; /* the plan will say so */
	if (err || r->read_only)
		return err;
	datapath_close(r->dp);
	r->dp = NULL;
	cfg.read_only = false;
	cfg.slots = 1;
	return datapath_open(&cfg, &r->dp, diags);
}

static void on_keep(void *arg)
{
	struct reconciler *r = arg;

	applied_keep(r);
	r->trims = true;
	trim(r);
}

static void on_thaw(void *arg)
{
	reconcile_soon(arg);
}

int reconciler_open(struct reconciler *r, const struct options *opt,
		    struct loop *loop, bool read_only, struct diag_list *diags)
{
	int err;

	*r = (struct reconciler){ .opt = opt,
				  .loop = loop,
				  .read_only = read_only,
				  .verify = true,
				  .approved = opt->approved };
	identity_read(opt->state_dir, read_only, r->owner, &r->flow_seed,
		      r->run_id);
	log_set_run(r->run_id);
	state_open(r);
	guards_open(r);
	keeping_open(r);
	err = net_open(loop, on_network, r, &r->net);
	if (!err)
		err = open_kernel(r, diags);
	if (!err)
		err = hypervisor_init(loop);
	if (err)
		return err;
	/* Without it nothing can be carried out, whatever asks for a pass. */
	r->pass = read_only ? NULL : loop_add_timer(loop, reconcile_pass, r);
	r->resync = loop_add_timer(loop, resync, r);
	r->housekeeping = loop_add_timer(loop, housekeeping, r);
	r->retry_read = loop_add_timer(loop, read_again, r);
	r->expiry = loop_add_timer(loop, on_expiry, r);
	r->thaw = loop_add_timer(loop, on_thaw, r);
	r->keep = loop_add_timer(loop, on_keep, r);
	if (!read_only)
		r->prober = prober_new(loop, probing_result, r);
	if (!read_only)
		r->sweeper = sweeper_new(r);
	return 0;
}

static void close_services(struct reconciler *r)
{
	static const struct spec nothing;

	scaling_update(r, &nothing);
	strmap_release(&r->services);
}

static void close_members(struct reconciler *r)
{
	struct member_run *m;
	size_t i = 0;

	while ((m = strmap_next(&r->members, &i))) {
		probing_stop(m);
		free(m->key);
		free(m->service);
		free(m->name);
		free(m);
	}
	strmap_release(&r->members);
	free(r->run_by_id);
}

void reconciler_close(struct reconciler *r)
{
	live_end(r);
	applied_keep(r);
	close_git(r);
	close_hypervisors(r);
	if (!hypervisor_end())
		log_warn("stopping", "hypervisor_calls=under_way");
	strmap_release(&r->vms);
	close_members(r);
	close_services(r);
	if (r->prober)
		prober_free(r->prober);
	sweeper_free(r->sweeper);
	loop_remove(r->pass);
	loop_remove(r->resync);
	loop_remove(r->housekeeping);
	loop_remove(r->retry_read);
	loop_remove(r->deadline);
	loop_remove(r->expiry);
	loop_remove(r->keep);
	loop_remove(r->watchdog);
	loop_remove(r->thaw);
	guards_close(r);
	keeping_close(r);
	if (r->dp)
		datapath_close(r->dp);
	if (r->net)
		net_close(r->net);
	if (r->store)
		store_close(r->store);
	store_overrides_free(r->overrides, r->override_count);
	diag_list_release(&r->file_diags);
	spec_free(r->spec);
	spec_cache_free(r->cache);
	spec_free(r->applied);
}
