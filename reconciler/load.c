/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From counters to decisions: at the end of each scaling interval a service's
 * load is measured as means per ready VM, the scaler is asked, and what it
 * says is stored with its inputs.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

/* Ms for which the stored count is believed to be lower than what runs. */
#define MEMORY_COUNTS_FOR 600000

struct tally { /* of one service's VMs */
	uint32_t active, ready, warming, ready_any;
	double cpu_sum, cpu_min, cpu_max;
	uint32_t cpu_count;
	double packets, flows; /* a second, all ready VMs together */
	double packets_min, packets_max, flows_min, flows_max;
	uint32_t counted;
};

static void widen(double v, double *min, double *max, bool first)
{
	if (first || v < *min)
		*min = v;
	if (first || v > *max)
		*max = v;
}

static struct member_run *member_of(struct reconciler *r,
				    const struct vm_run *v)
{
	struct member_run *m;
	size_t i = 0;

	while ((m = strmap_next(&r->members, &i)))
		if (m->vm && !strcmp(m->name, v->name) &&
		    !strcmp(m->service, v->service))
			return m;
	return NULL;
}

/* What passed through a backend since the last interval, into the tally. */
static void tally_counters(struct tally *t, struct reconciler *r,
			   struct member_run *m, double seconds, bool sample)
{
	struct xlb_counter now;
	double packets, flows;

	if (!m || !m->id || !r->dp)
		return;
	now = datapath_count(r->dp, m->id);
	if (m->counted_id != m->id) {
		m->counted_id = m->id;
		m->counted = now;
		return;
	}
	packets = (double)(now.packets - m->counted.packets) / seconds;
	flows = (double)(now.flows - m->counted.flows) / seconds;
	m->counted = now;
	if (!sample)
		return;
	widen(packets, &t->packets_min, &t->packets_max, !t->counted);
	widen(flows, &t->flows_min, &t->flows_max, !t->counted);
	t->packets += packets;
	t->flows += flows;
	t->counted++;
}

static void tally_vm(struct tally *t, struct service_run *s, struct vm_run *v,
		     const struct service_spec *spec, uint64_t now)
{
	enum vm_phase phase = vm_run_phase(v);
	bool past_warmup =
		v->ready_since && now - v->ready_since >= spec->scaling.warmup;
	bool sample = phase == PHASE_READY && past_warmup;
	double seconds = (double)(now - s->measured_at) / (double)NS_PER_S;

	if (phase != PHASE_DRAINING && phase != PHASE_STOPPING)
		t->active++;
	t->ready_any += phase == PHASE_READY;
	t->ready += sample;
	t->warming += phase == PHASE_READY && !past_warmup;
	tally_counters(t, s->r, member_of(s->r, v), seconds, sample);
	if (!sample || v->cpu_percent < 0)
		return;
	widen(v->cpu_percent, &t->cpu_min, &t->cpu_max, !t->cpu_count);
	t->cpu_sum += v->cpu_percent;
	t->cpu_count++;
}

static void store_load(struct service_run *s, enum metric metric, double mean,
		       double min, double max, uint32_t ready)
{
	struct store_load l = {
		.time_ms = clock_wall_ms(),
		.service = s->name,
		.metric = metric,
		.mean = mean,
		.min = min,
		.max = max,
		.samples = 1,
		.ready_vms = ready,
		.resolution_s =
			(uint32_t)((s->interval + NS_PER_S - 1) / NS_PER_S),
	};

	s->metric_mean[metric] = mean;
	if (s->r->store && store_add_load(s->r->store, &l))
		log_warn("history", "what=load result=lost");
}

/* A metric counts as measured only when every ready VM was. */
static void fill_samples(struct service_run *s, const struct tally *t,
			 struct scale_sample samples[METRIC_COUNT])
{
	double n = t->ready ? (double)t->ready : 1;

	if (t->ready && t->cpu_count == t->ready) {
		samples[METRIC_CPU] =
			(struct scale_sample){ true, t->cpu_sum / n };
		store_load(s, METRIC_CPU, t->cpu_sum / n, t->cpu_min,
			   t->cpu_max, t->ready);
	}
	if (!t->ready || t->counted != t->ready)
		return;
	samples[METRIC_PACKETS_PER_SECOND] =
		(struct scale_sample){ true, t->packets / n };
	samples[METRIC_NEW_CONNECTIONS_PER_SECOND] =
		(struct scale_sample){ true, t->flows / n };
	store_load(s, METRIC_PACKETS_PER_SECOND, t->packets / n, t->packets_min,
		   t->packets_max, t->ready);
	store_load(s, METRIC_NEW_CONNECTIONS_PER_SECOND, t->flows / n,
		   t->flows_min, t->flows_max, t->ready);
}

void scaling_record(struct reconciler *r, struct service_run *s,
		    const struct scale_decision *d)
{
	struct store_scaling row = {
		.time_ms = clock_wall_ms(),
		.revision_id = r->revision,
		.service = s->name,
		.mode = "live",
		.decision = d,
	};
	struct buf text = BUF_INIT;
	int64_t id = r->store ? store_add_scaling(r->store, &row) : 0;

	if (id < 0)
		log_warn("history", "what=scaling result=lost");
	if (d->direction != SCALE_HOLD) {
		scale_message(d, &text);
		log_info("scale",
			 "service=%s direction=%s from=%u to=%u message=\"%s\"",
			 s->name, scale_direction_name(d->direction), d->from,
			 d->to, buf_str(&text));
		snprintf(s->cause, sizeof(s->cause), "%s", buf_str(&text));
		s->action_open = true;
		s->action_id = id;
		s->action_since = clock_ns();
		buf_release(&text);
	}
}

static uint32_t capacity_of(const struct reconciler *r,
			    const struct service_run *s,
			    const struct service_spec *spec)
{
	uint32_t others = 0;
	struct vm_run *v;
	size_t i = 0;

	if (!spec->pool.hypervisor->max_vms)
		return UINT32_MAX;
	while ((v = strmap_next(&r->vms, &i)))
		others += strcmp(v->service, s->name) != 0 &&
			  !strcmp(hypervisor_name(v->hypervisor),
				  spec->pool.hypervisor->name);
	return others < spec->pool.hypervisor->max_vms
		       ? spec->pool.hypervisor->max_vms - others
		       : 0;
}

static void save_memory(struct service_run *s)
{
	if (s->r->store && store_save_scaler(s->r->store, s->name, &s->memory,
					     clock_ns(), clock_wall_ms()))
		log_warn("history", "what=scaler result=lost");
}

/* For `plan`: what the last interval has come to. */
static void note_view(struct service_run *s, const struct scale_decision *d)
{
	struct buf text = BUF_INIT;

	scale_message(d, &text);
	snprintf(s->view, sizeof(s->view), "%s", buf_str(&text));
	buf_release(&text);
}

/* A pool is no smaller than what was adopted for it, up to its max. */
static struct pool_spec bounds_of(const struct service_run *s,
				  const struct service_spec *spec)
{
	struct pool_spec pool = spec->pool;
	uint32_t adopted = 0;
	struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&s->r->vms, &i)))
		adopted += v->observed && v->seen.adopted && !v->failed &&
			   !strcmp(v->service, s->name);
	if (adopted > pool.min)
		pool.min = adopted < pool.max ? adopted : pool.max;
	return pool;
}

static void decide(struct service_run *s, const struct service_spec *spec)
{
	const struct pool_spec pool = bounds_of(s, spec);
	uint64_t now = clock_ns();
	struct tally t = { 0 };
	struct scale_input in = { .pool = &pool,
				  .scaling = &spec->scaling,
				  .now = now,
				  .current = s->wanted };
	struct scale_decision d = { 0 };
	struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&s->r->vms, &i)))
		if (!strcmp(v->service, s->name))
			tally_vm(&t, s, v, spec, now);
	s->measured_at = now;
	fill_samples(s, &t, in.samples);
	if (!s->pool_known || !spec->scaling.signal_count ||
	    spec->kept == KEPT_LEAVING)
		return;
	in.paused = service_pauses(s->r, spec);
	in.ready = t.ready;
	in.warming = t.warming;
	in.starting = s->wanted > t.ready_any ? s->wanted - t.ready_any : 0;
	in.capacity = capacity_of(s->r, s, spec);
	scale_decide(&in, &s->memory, &d);
	scaling_record(s->r, s, &d);
	note_view(s, &d);
	save_memory(s);
	if (d.to != s->wanted) {
		s->wanted = d.to;
		reconcile_soon(s->r);
	}
}

static const struct service_spec *live_spec(struct service_run *s)
{
	return s->r->spec ? spec_find_service(s->r->spec, s->name) : NULL;
}

static void take_reading(struct vm_run *v, const struct vm_stats *st)
{
	double elapsed = (double)(st->when - v->cpu_when);

	if (v->cpu_when && st->when > v->cpu_when && st->cpu_ns >= v->cpu_ns)
		v->cpu_percent = 100.0 * (double)(st->cpu_ns - v->cpu_ns) /
				 (elapsed * (st->vcpus ? st->vcpus : 1));
	else
		v->cpu_percent = -1;
	v->cpu_ns = st->cpu_ns;
	v->cpu_when = st->when;
}

static void got_stats(void *arg, const struct vm_stats *stats, size_t count)
{
	struct service_run *s = arg;
	const struct service_spec *spec = live_spec(s);

	for (size_t i = 0; i < count; i++) {
		struct vm_run *v = vm_run_get(s->r, stats[i].name);

		if (v && !strcmp(v->service, s->name))
			take_reading(v, &stats[i]);
	}
	s->asked_stats = NULL;
	if (spec && spec->pool.template && !s->decided)
		decide(s, spec);
}

static void forget_cpu(struct service_run *s)
{
	struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&s->r->vms, &i)))
		if (!strcmp(v->service, s->name))
			v->cpu_percent = -1;
}

/* A hypervisor that hasn't answered since the last interval is not waited for. */
static void interval_over(void *arg)
{
	struct service_run *s = arg;
	const struct service_spec *spec = live_spec(s);
	struct hypervisor *h;

	loop_arm_in(s->timer, s->interval);
	if (!spec || !spec->pool.template)
		return;
	h = hypervisor_named(s->r, spec->pool.hypervisor->name);
	s->decided = s->asked_stats || !h || !hypervisor_is_connected(h);
	if (s->decided) {
		forget_cpu(s);
		decide(s, spec);
		return;
	}
	s->asked_stats = h;
	hypervisor_stats(h, got_stats, s);
}

/* Its count isn't the scaler's. */
static bool rests(const struct reconciler *r, const struct service_spec *spec)
{
	return spec->kept == KEPT_LEAVING || service_pauses(r, spec);
}

/*
 * The file moved the bounds: that needs no signal, window or cooldown.  The
 * scaler decides all the same, so that it knows of the action under way.
 */
static void keep_bounds(struct reconciler *r, struct service_run *s,
			const struct service_spec *spec)
{
	const struct pool_spec pool = bounds_of(s, spec);
	struct scale_input in = { .pool = &pool,
				  .scaling = &spec->scaling,
				  .now = clock_ns(),
				  .current = s->wanted,
				  .capacity = capacity_of(r, s, spec) };
	struct scale_decision d = { 0 };
	bool fits = s->wanted >= pool.min && s->wanted <= pool.max;

	/* Without signals the count is the minimum. */
	if (!spec->scaling.signal_count)
		fits = s->wanted == pool.min;
	if (!s->pool_known || fits || rests(r, spec))
		return;
	scale_decide(&in, &s->memory, &d);
	if (d.to == s->wanted)
		return; /* the hypervisor holds no more */
	s->wanted = d.to;
	scaling_record(r, s, &d);
}

/*
 * A store that is old, or came back from a backup, remembers fewer VMs than
 * there may be by now: those that serve aren't taken away for that.
 */
static bool is_recent(struct reconciler *r, const struct service_run *s)
{
	int64_t age = clock_wall_ms() - store_scaler_saved(r->store, s->name);

	return age >= 0 && age < MEMORY_COUNTS_FOR;
}

/*
 * After a start the count is what was last decided, so that a removal or a
 * replacement that was cut short is finished rather than forgotten; what runs
 * counts where nothing is remembered.
 */
static void learn_pool(struct reconciler *r, struct service_run *s,
		       const struct pool_spec *pool)
{
	const struct hypervisor *h =
		hypervisor_named(r, pool->hypervisor->name);
	uint32_t active = 0;
	struct vm_run *v;
	size_t i = 0;

	if (s->pool_known || !h || !hypervisor_is_read(h))
		return;
	while ((v = strmap_next(&r->vms, &i))) {
		enum vm_phase phase = vm_run_phase(v);

		active += !strcmp(v->service, s->name) &&
			  phase != PHASE_STOPPING && phase != PHASE_DRAINING;
	}
	if (r->store)
		store_load_scaler(r->store, s->name, &s->memory, clock_ns(),
				  clock_wall_ms());
	s->pool_known = true;
	s->wanted = active;
	if (active && s->memory.count &&
	    (s->memory.count > active || is_recent(r, s)))
		s->wanted = s->memory.count;
	s->inherited = s->wanted;
}

uint32_t pool_allowed(struct service_run *s, const struct service_spec *spec)
{
	uint32_t most = spec->scaling.signal_count ? spec->pool.max : s->wanted;
	uint32_t staying = 0;
	struct vm_run *v;
	size_t i = 0;

	while (s->inherited < most && (v = strmap_next(&s->r->vms, &i))) {
		enum vm_phase phase = vm_run_phase(v);

		staying += !strcmp(v->service, s->name) &&
			   phase != PHASE_STOPPING && phase != PHASE_DRAINING;
	}
	if (staying <= s->inherited)
		s->inherited = UINT32_MAX;
	return s->inherited < most ? s->inherited : most;
}

/* The answers it owes won't come. */
void scaling_forget(struct reconciler *r, const struct hypervisor *h)
{
	struct service_run *s;
	size_t i = 0;

	while ((s = strmap_next(&r->services, &i)))
		if (s->asked_stats == h)
			s->asked_stats = NULL;
}

static void free_service(struct reconciler *r, struct service_run *s)
{
	strmap_remove(&r->services, s->name);
	loop_remove(s->timer);
	scale_memory_release(&s->memory);
	free(s->name);
	free(s);
}

static void sweep_services(struct reconciler *r)
{
	struct service_run *s;
	size_t i = 0;

	while ((s = strmap_next(&r->services, &i))) {
		if (!s->used && !s->asked_stats)
			free_service(r, s);
		else
			s->used = false;
	}
}

void scaling_update(struct reconciler *r, const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct service_spec *sp = &spec->services[i];
		struct service_run *s = service_run_get(r, sp->name);

		s->used = true;
		if (!sp->pool.template)
			continue;
		learn_pool(r, s, &sp->pool);
		keep_bounds(r, s, sp);
		if (r->read_only)
			continue;
		if (!s->timer) {
			s->timer = loop_add_timer(r->loop, interval_over, s);
			s->measured_at = clock_ns();
		}
		if (s->interval != sp->scaling.interval) {
			s->interval = sp->scaling.interval;
			loop_arm_in(s->timer, s->interval);
		}
	}
	sweep_services(r);
}

/* All VMs of the last action are ready (or have failed): cooldown starts. */
void scaling_check_done(struct reconciler *r, struct service_run *s)
{
	const struct service_spec *spec = s->action_open ? live_spec(s) : NULL;
	uint64_t now = clock_ns();
	uint32_t ready = 0, pending = 0;
	struct vm_run *v;
	size_t i = 0;

	if (!spec || !spec->pool.template)
		return;
	while ((v = strmap_next(&r->vms, &i))) {
		enum vm_phase phase = vm_run_phase(v);

		if (strcmp(v->service, s->name) != 0)
			continue;
		ready += phase == PHASE_READY;
		pending += phase != PHASE_READY && phase != PHASE_FAILED;
	}
	if (pending || (ready != s->wanted && !s->create_failures))
		return;
	s->action_open = false;
	s->cause[0] = '\0';
	scale_action_done(&s->memory, &spec->scaling, now);
	save_memory(s);
	if (r->store && s->action_id > 0)
		store_set_scaling_took(
			r->store, s->action_id,
			(int64_t)((now - s->action_since) / NS_PER_MS));
}

void scaling_preview(struct reconciler *r, const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct pool_spec *pool = &spec->services[i].pool;
		struct service_run *s;

		if (!pool->template)
			continue;
		s = service_run_get(r, spec->services[i].name);
		learn_pool(r, s, pool);
		s->previewed = s->wanted;
		s->previews = true;
		if (rests(r, &spec->services[i]))
			continue;
		if (s->wanted < pool->min)
			s->wanted = pool->min;
		if (s->wanted > pool->max)
			s->wanted = pool->max;
	}
}

void scaling_preview_end(struct reconciler *r, const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (spec->services[i].pool.template) {
			struct service_run *s =
				service_run_get(r, spec->services[i].name);

			s->wanted = s->previewed;
			s->previews = false;
		}
}
