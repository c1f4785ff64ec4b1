/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What goes on while nothing changes: the coarse clock, memories that run
 * out, slots that come to rest, ids that leave quarantine, and the loads that
 * least_* algorithms compare.
 *
 * One timer, a tick apart (a second where there are loads to tell): two
 * rounds are always further apart than a grace period, so that none has to
 * be waited for.  The clock counts one tick a round at most: while this
 * process stood still nothing may have aged.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "loads.h"
#include "plan/ticks.h"
#include "reconcile.h"
#include "tables/sweep.h"

#define LOADS_EVERY NS_PER_S
#define ROUNDS_APART (NS_PER_S / 4) /* at least; far over any grace period */

struct sweeper {
	struct reconciler *r;
	struct loop_source *timer;
	uint64_t next_tick;
	uint64_t due; /* of the timer */
	uint64_t last_round;
	struct sweep *sweep;
	struct loads *loads;
	bool busy; /* slots, as the last round left them */
	bool checked; /* this process has had a round */
	uint64_t no_room; /* flows so far that weren't remembered */
	uint32_t no_room_at; /* tick */
	uint32_t tick; /* its seconds then: two lengths can't be compared */
	bool no_room_ever;
	struct sweep_service services[XLB_SERVICES];
	bool unchanged[XLB_SERVICES]; /* a VIP finds old flows as new ones */
	uint16_t service_of[XLB_BACKENDS];
	uint8_t suspects[XLB_BACKENDS]; /* in quarantine, without a trace */
	uint8_t quarantined[XLB_BACKENDS];
	uint8_t named[XLB_BACKENDS];
	size_t owner_count, quarantine_count;
};

/* ---- what there is ---- */

static void add_owner(void *arg, uint32_t id, const struct xlb_owner *owner)
{
	struct sweeper *s = arg;

	if (id >= XLB_BACKENDS)
		return;
	s->owner_count++;
	if (owner->kind == XLB_OWNER_QUARANTINE) {
		s->quarantined[id] = 1;
		s->quarantine_count++;
	} else if (owner->service < XLB_SERVICES) {
		s->service_of[id] = (uint16_t)owner->service;
		loads_add(s->loads, id, owner);
	}
}

static void read_owners(struct sweeper *s)
{
	memset(s->service_of, 0, sizeof(s->service_of));
	memset(s->quarantined, 0, sizeof(s->quarantined));
	s->owner_count = s->quarantine_count = 0;
	loads_begin(s->loads);
	if (datapath_owners(s->r->dp, add_owner, s))
		log_error("sweep", "what=owners result=failed");
}

static const struct service_spec *spec_of(const struct sweeper *s, uint32_t id)
{
	const char *name = datapath_view(s->r->dp)->services[id].name;

	return s->r->spec && name[0] ? spec_find_service(s->r->spec, name)
				     : NULL;
}

/* A service that is gone from the file has the longest times there are. */
static void set_times(struct sweeper *s, uint32_t id, uint32_t tick)
{
	const struct service_spec *spec = spec_of(s, id);
	struct sweep_service *sv = &s->services[id];

	sv->memory_ticks = sv->idle_ticks = sv->held_ticks = XLB_IDLE_TICKS;
	if (!spec)
		return;
	sv->memory_ticks = (uint8_t)ticks_of(service_memory(spec), tick);
	sv->idle_ticks = (uint8_t)ticks_of(spec->idle_timeout, tick);
	sv->held_ticks = (uint8_t)ticks_of(spec->affinity_timeout, tick);
}

static bool vip_changes(const struct xlb_vip *v)
{
	return !(v->flags & XLB_VIP_CLIENT_HASH) !=
	       !(v->flags & XLB_VIP_CLIENT_OLD);
}

/*
 * A service whose VIPs lead elsewhere than its line says, or nowhere, is in
 * the middle of a change: its slots are left alone.
 */
static void see_vip(struct sweeper *s, const struct datapath_view *view,
		    const struct xlb_vip *v)
{
	const struct xlb_service *k = &view->services[v->service];
	struct sweep_service *sv = &s->services[v->service];

	if (v->slot_base != k->slot_base ||
	    32u - v->slot_shift != k->slot_log2) {
		sv->slot_log2 = 0;
		return;
	}
	if (v->flags & XLB_VIP_CLIENT)
		sv->by_client = true;
	if (v->flags & (XLB_VIP_PICKS | XLB_VIP_STICKY))
		sv->rests = false;
	if (vip_changes(v))
		sv->rests = false;
	else
		s->unchanged[v->service] = true;
}

static bool is_inside(const struct datapath_view *view, uint32_t base,
		      uint8_t log2)
{
	return log2 < 28 && base <= view->slot_count &&
	       1u << log2 <= view->slot_count - base;
}

static const struct xlb_vip *live_vips(const struct datapath_view *view)
{
	return view->vips +
	       (size_t)(view->control->vip_copy & 1) * XLB_VIP_LINES;
}

static void read_services(struct sweeper *s)
{
	const struct datapath_view *view = datapath_view(s->r->dp);
	const struct xlb_vip *vips = live_vips(view);
	bool *has_vip = mem_array(XLB_SERVICES, sizeof(*has_vip));

	memset(s->services, 0, sizeof(s->services));
	memset(s->unchanged, 0, sizeof(s->unchanged));
	for (uint32_t i = 0; i < XLB_VIP_LINES; i++)
		has_vip[vips[i].service % XLB_SERVICES] |= vips[i].proto != 0;
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		const struct xlb_service *k = &view->services[id];

		if (!k->name[0] || !has_vip[id] ||
		    !is_inside(view, k->slot_base, k->slot_log2))
			continue;
		s->services[id].slot_base = k->slot_base;
		s->services[id].slot_log2 = k->slot_log2;
		s->services[id].rests = !(k->flags & XLB_SERVICE_TRACKS);
		s->services[id].by_client =
			k->flags &
			(XLB_SERVICE_CLIENT_HASH | XLB_SERVICE_CLIENT_OLD);
		set_times(s, id, view->control->tick);
	}
	free(has_vip);
	for (uint32_t i = 0; i < XLB_VIP_LINES; i++)
		if (vips[i].proto && vips[i].service < XLB_SERVICES &&
		    s->services[vips[i].service].slot_log2)
			see_vip(s, view, &vips[i]);
}

/* ---- one round ---- */

/*
 * A SYN that is past the rate goes to prev unremembered, too, and its first
 * data may take a while.  Whatever came before this process came just now.
 */
static uint32_t since_no_room(struct sweeper *s)
{
	uint32_t now = datapath_view(s->r->dp)->control->now;
	uint32_t tick = datapath_view(s->r->dp)->control->tick;
	uint64_t events[XLB_EVENT_MAX] = { 0 }, count;
	int err = datapath_events(s->r->dp, events);

	count = err ? s->no_room + 1
		    : events[XLB_EVENT_NO_ROOM] + events[XLB_EVENT_RATE];
	if (count != s->no_room || (s->no_room_ever && tick != s->tick)) {
		s->no_room = count;
		s->tick = tick;
		s->no_room_at = now;
		s->no_room_ever = true;
	}
	return s->no_room_ever ? now - s->no_room_at : UINT32_MAX;
}

static void write_words(struct sweeper *s)
{
	const struct datapath_view *view = datapath_view(s->r->dp);
	uint32_t settled = 0;

	s->busy = false;
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		const struct sweep_service *sv = &s->services[id];
		struct slot_write w = { .base = sv->slot_base,
					.count = 1u << sv->slot_log2,
					.from = UINT32_MAX };
		uint32_t *words;
		int changed = 0;
		bool busy;

		if (!sv->slot_log2)
			continue;
		words = mem_array(w.count, sizeof(*words));
		w.words = words;
		if (sweep_words(s->sweep, id, words, &busy))
			changed = datapath_write_slots(s->r->dp, &w);
		if (changed < 0)
			log_error("sweep", "what=slots id=%u err=%d", id,
				  changed);
		else
			settled += (uint32_t)changed;
		busy |= changed < 0;
		s->busy |= busy;
		/* A table that is at rest may become smaller. */
		if (settled && !busy &&
		    view->services[id].slot_log2 >
			    view->services[id].table_log2)
			reconcile_soon(s->r);
		free(words);
	}
	log_debug("sweep", "kept=%zu slots=%u busy=%d", sweep_kept(s->sweep),
		  settled, s->busy);
}

/*
 * A service changes from clients' slots to flows' or back: once every flow of
 * before has spoken or run out, old ones are found as new ones are.  What its
 * VIPs don't say yet hasn't begun.
 */
static void end_change(struct sweeper *s, uint32_t id, uint32_t since)
{
	const struct datapath_view *view = datapath_view(s->r->dp);
	const struct sweep_service *sv = &s->services[id];
	struct xlb_service k = view->services[id];
	uint8_t now = (uint8_t)view->control->now;

	if (!sv->slot_log2 || !service_changes(&k))
		return;
	if (s->unchanged[id]) {
		k.changed = now;
	} else if (sweep_is_over(sv->idle_ticks, (uint8_t)(now - k.changed)) &&
		   sweep_is_over(sv->idle_ticks, since)) {
		k.flags ^= XLB_SERVICE_CLIENT_OLD;
		k.changed = 0;
		reconcile_soon(s->r);
	} else {
		return;
	}
	if (datapath_set_service(s->r->dp, id, &k))
		log_error("sweep", "what=service id=%u result=failed", id);
}

static void name_region(struct sweeper *s, uint32_t base, uint8_t log2)
{
	const struct datapath_view *view = datapath_view(s->r->dp);

	if (!is_inside(view, base, log2))
		return;
	for (uint32_t i = 0; i < 1u << log2; i++) {
		uint32_t word = view->slots[base + i];

		s->named[XLB_SLOT_CUR(word)] = 1;
		s->named[XLB_SLOT_PREV(word)] = 1;
	}
}

/* Whatever a packet may read, now or after the next flip. */
static void name_all(struct sweeper *s)
{
	const struct datapath_view *view = datapath_view(s->r->dp);
	const struct xlb_vip *vips = live_vips(view);

	memset(s->named, 0, sizeof(s->named));
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		const struct xlb_service *k = &view->services[id];

		if (!k->name[0])
			continue;
		name_region(s, k->slot_base, k->slot_log2);
		if (k->schedule_log2)
			name_region(s, k->schedule_base, k->schedule_log2);
	}
	for (uint32_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *v = &vips[i];
		const struct xlb_service *k =
			&view->services[v->service % XLB_SERVICES];

		if (!v->proto)
			continue;
		if (v->slot_base != k->slot_base)
			name_region(s, v->slot_base,
				    (uint8_t)(32 - v->slot_shift));
		if (v->flags & XLB_VIP_SCHEDULE &&
		    v->schedule_base != k->schedule_base)
			name_region(s, v->schedule_base,
				    (uint8_t)(32 - v->schedule_shift));
	}
}

/* Two rounds that found no trace of it: nothing names the id any more. */
static void end_quarantine(struct sweeper *s)
{
	bool full = s->owner_count >= SPEC_MAX_BACKENDS;
	size_t freed = 0;

	if (s->quarantine_count)
		name_all(s);
	for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
		bool trace = s->named[id] || sweep_saw(s->sweep, id);

		if (!s->quarantined[id] || trace) {
			s->suspects[id] = 0;
		} else if (!s->suspects[id]) {
			s->suspects[id] = 1;
		} else if (!datapath_set_owner(s->r->dp, id, NULL)) {
			s->suspects[id] = 0;
			freed++;
		}
	}
	s->quarantine_count -= freed;
	if (freed && full)
		reconcile_soon(s->r);
}

static void one_round(struct sweeper *s)
{
	const struct datapath_view *view = datapath_view(s->r->dp);
	struct sweep_input in = { .services = s->services,
				  .service_of = s->service_of,
				  .backends = view->backends,
				  .slots = view->slots,
				  .slot_count = view->slot_count,
				  .moved = datapath_stamps(s->r->dp),
				  .flow_lines = view->flow_lines,
				  .now = (uint8_t)view->control->now };
	int err;

	in.since_no_room = since_no_room(s);
	sweep_begin(s->sweep, &in);
	err = in.moved ? datapath_sweep(s->r->dp, sweep_keep, s->sweep)
		       : -ENOMEM;
	if (!err)
		write_words(s);
	datapath_stamps_drop(s->r->dp);
	if (err) {
		log_error("sweep", "what=memories err=%d", err);
		return;
	}
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		end_change(s, id, in.since_no_room);
	end_quarantine(s);
	s->checked = true;
}

/* ---- when ---- */

static bool is_needed(const struct sweeper *s)
{
	const struct datapath_view *view = datapath_view(s->r->dp);

	if (!s->checked || s->busy || s->quarantine_count ||
	    sweep_kept(s->sweep))
		return true;
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (view->services[id].name[0] &&
		    view->services[id].flags & XLB_SERVICE_TRACKS)
			return true;
	return false;
}

static void arm(struct sweeper *s, uint64_t now)
{
	uint64_t due = s->next_tick;

	if (loads_wanted(s->r->spec) && due > now + LOADS_EVERY)
		due = now + LOADS_EVERY;
	if (loop_armed(s->timer) && s->due <= due)
		return;
	s->due = due;
	loop_arm(s->timer, due);
}

static void maybe_tick(struct sweeper *s, uint64_t now)
{
	uint32_t tick = datapath_view(s->r->dp)->control->tick;

	if (now < s->next_tick)
		return;
	datapath_tick(s->r->dp);
	s->next_tick = now + (tick ? tick : 1) * NS_PER_S;
}

static void on_timer(void *arg)
{
	struct sweeper *s = arg;
	uint64_t now = clock_ns(), passed = now - s->last_round;
	bool least = loads_wanted(s->r->spec);

	if (!s->r->dp)
		return;
	maybe_tick(s, now);
	if (passed >= ROUNDS_APART && (least || is_needed(s))) {
		read_owners(s);
		read_services(s);
		one_round(s);
		if (least)
			loads_tell(s->loads, s->sweep,
				   (double)passed / (double)NS_PER_S);
		s->last_round = now;
	}
	arm(s, clock_ns());
}

struct sweeper *sweeper_new(struct reconciler *r)
{
	struct sweeper *s = mem_alloc(sizeof(*s));

	s->r = r;
	s->sweep = sweep_new();
	s->loads = loads_new(r);
	s->timer = loop_add_timer(r->loop, on_timer, s);
	return s;
}

void sweeper_free(struct sweeper *s)
{
	if (!s)
		return;
	loop_remove(s->timer);
	sweep_free(s->sweep);
	loads_free(s->loads);
	free(s);
}

void sweep_update(struct reconciler *r)
{
	struct sweeper *s = r->sweeper;
	uint64_t now = clock_ns(), tick;

	if (!s || !r->dp)
		return;
	s->busy = true; /* until the next round has seen */
	tick = datapath_view(r->dp)->control->tick * NS_PER_S;
	if (!s->next_tick || s->next_tick > now + tick)
		s->next_tick = now + tick;
	arm(s, now);
}

void sweep_forget(struct reconciler *r, uint32_t base, uint32_t count)
{
	if (r->sweeper)
		sweep_touch(r->sweeper->sweep, base, count);
}
