/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guards have to remember over restarts, and how what they hold back
 * comes into the log, the history and the next pass.
 *
 * Times are the wall clock's at the start plus what has passed since, so that
 * a clock that is set while this runs lets nothing go before its time.
 */
#include "reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int64_t guards_now(const struct reconciler *r)
{
	return r->wall_ms + (int64_t)(clock_ns() / NS_PER_MS);
}

static void add_stored(void *arg, const struct store_deletion *s)
{
	struct reconciler *r = arg;
	struct deletion d = { .id = s->id,
			      .time_ms = s->time_ms,
			      .approved = s->approved,
			      .open = s->open };

	if (!s->vm[0]) {
		ledger_begin(&r->ledger, s->time_ms, s->time_ms != 0);
		return;
	}
	snprintf(d.vm, sizeof(d.vm), "%s", s->vm);
	ledger_add(&r->ledger, &d, guards_now(r));
}

void guards_open(struct reconciler *r)
{
	r->wall_ms = clock_wall_ms() - (int64_t)(clock_ns() / NS_PER_MS);
	if (r->store && store_deletions(r->store, add_stored, r))
		log_warn("history", "what=vm_deletions result=unreadable");
	/* The clock was set back: "not known since" is now at the latest. */
	if (r->ledger.since_ms > guards_now(r))
		r->ledger.since_ms = guards_now(r);
}

static void forget_told(struct reconciler *r)
{
	for (size_t i = 0; i < r->told_hold_count; i++)
		free(r->told_holds[i]);
	free(r->told_holds);
	r->told_holds = NULL;
	r->told_hold_count = 0;
}

void guards_close(struct reconciler *r)
{
	ledger_release(&r->ledger);
	forget_told(r);
}

static int64_t store(struct reconciler *r, const struct store_deletion *d)
{
	int64_t id = r->store ? store_add_deletion(r->store, d) : 0;

	/* Killed, this process must have counted what it let go. */
	if (id < 0 || (id && store_commit_so_far(r->store)))
		log_warn("history", "what=vm_deletion result=lost");
	return id < 0 ? 0 : id;
}

/* Every VM that there is has been seen. */
static bool vms_known(const struct reconciler *r)
{
	return r->spec && r->hypervisor_count && hypervisors_read(r);
}

/* A store without an entry is new, or was lost. */
static void begin(struct reconciler *r, const struct world *w)
{
	struct store_deletion d = { .vm = "", .approved = true };

	ledger_begin(&r->ledger, guards_now(r), w->vm_count > 0);
	d.time_ms = r->ledger.since_ms;
	store(r, &d);
}

void guards_observe(struct reconciler *r, const struct spec *spec,
		    struct arena *arena, struct world *w, bool looks)
{
	struct ledger l;

	if (!r->ledger.begun && !looks && !r->read_only && vms_known(r))
		begin(r, w);
	l = r->ledger;
	if (!l.begun && vms_known(r))
		ledger_begin(&l, guards_now(r), w->vm_count > 0);
	w->budget = ledger_budget(&l, &spec->safety.max_vm_deletes,
				  guards_now(r), arena);
	for (size_t i = 0; i < w->vm_count; i++)
		w->vms[i].may_go = ledger_may_go(&l, w->vms[i].name);
}

void guards_count(struct reconciler *r, const struct change *c)
{
	struct store_deletion row = { .time_ms = guards_now(r),
				      .vm = c->name,
				      .approved = r->approved,
				      .open = true };
	struct deletion d = { .time_ms = row.time_ms,
			      .approved = r->approved,
			      .open = true };

	snprintf(d.vm, sizeof(d.vm), "%s", c->name);
	d.id = store(r, &row);
	ledger_add(&r->ledger, &d, row.time_ms);
}

static void close_finished(struct reconciler *r, const struct world *w,
			   const struct plan *p)
{
	bool known = hypervisors_read(r);

	for (size_t i = 0; i < r->ledger.count; i++) {
		struct deletion *d = &r->ledger.items[i];

		if (!d->open || !ledger_is_over(d, w, p, known))
			continue;
		d->open = false;
		if (r->store && d->id && store_close_deletion(r->store, d->id))
			log_warn("history", "what=vm_deletion result=lost");
	}
}

/* ---- telling ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *action_of(const struct plan *p, const struct held *h)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->held == h)
			return action_name(p->changes[i]->kind == CHANGE_DRAIN
						   ? ACTION_DESTROY
						   : p->changes[i]->action);
	return "remove";
}

static void tell_hold(struct reconciler *r, const struct plan *p,
		      const struct held *h)
{
	char until[32] = "";
	AUTO_FREE char *why = NULL;
	struct store_change row = { .time_ms = clock_wall_ms(),
				    .revision_id = r->revision,
				    .run_id = r->run_id,
				    .object = h->object ? h->object : "plan",
				    .action = action_of(p, h),
				    .cause = h->guard,
				    .result = "held" };

	if (h->until_ms)
		clock_text(h->until_ms, until);
	why = mem_printf("%s%s%s", h->why, until[0] ? "; until " : "", until);
	row.error = why;
	log_warn("held", "object=%s guard=%s why=\"%s\"", row.object, h->guard,
		 why);
	if (r->store && store_add_change(r->store, &row))
		log_warn("history", "what=change result=lost");
}

static bool was_told(const struct reconciler *r, const char *key)
{
	return r->told_hold_count &&
	       bsearch(&key, r->told_holds, r->told_hold_count,
		       sizeof(*r->told_holds), by_text);
}

/* Each thing that is held back is told once, when that begins. */
static void tell_holds(struct reconciler *r, const struct plan *p)
{
	char **now = mem_array(p->guard_count + 1, sizeof(*now));
	bool group = false;

	for (size_t i = 0; i < p->guard_count; i++) {
		const struct held *h = p->guards[i];

		now[i] = mem_printf("%s %s", h->guard,
				    h->object ? h->object : "");
		if (was_told(r, now[i]))
			continue;
		group = group || (r->store && !store_begin(r->store));
		tell_hold(r, p, h);
	}
	if (group)
		store_commit(r->store);
	forget_told(r);
	if (p->guard_count)
		qsort(now, p->guard_count, sizeof(*now), by_text);
	r->told_holds = now;
	r->told_hold_count = p->guard_count;
}

static void wake_up(struct reconciler *r, const struct plan *p)
{
	int64_t next = 0, now = guards_now(r);

	for (size_t i = 0; i < p->guard_count; i++) {
		int64_t until = p->guards[i]->until_ms;

		if (until && (!next || until < next))
			next = until;
	}
	if (next)
		loop_arm_in(r->thaw,
			    next > now ? (uint64_t)(next - now) * NS_PER_MS
				       : NS_PER_MS);
}

void guards_after_pass(struct reconciler *r, const struct world *w,
		       const struct plan *p)
{
	close_finished(r, w, p);
	tell_holds(r, p);
	wake_up(r, p);
}
