/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One decision, in this order:
 *
 *   signals    each proposes a count or abstains; the largest proposal wins
 *   missing    a sample that isn't there holds (or leaves only the way up)
 *   floor      no way down that a threshold would at once send back up
 *   window     down: the largest proposal in it; up: the smallest
 *   step       at most so many VMs at once
 *   cooldown   not while the last action is under way, nor soon after
 *   bounds     min and max, which wait for nothing
 *   capacity   what the hypervisors can hold, for growth only
 *
 * A rule that changes the number leaves its name in limited_by.
 */
#include "scale/scale.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums of means come out a little off; a VM more needs more than that. */
#define ROUNDING 1e-9
#define MOST_VMS 1000000u

/* One signal's answer and what it is based on. */
struct opinion {
	struct scale_signal_view view;
	enum scale_reason reason;
	enum scale_limit limit;
};

void scale_memory_release(struct scale_memory *m)
{
	free(m->proposals);
	free(m->above_since);
	free(m->below_since);
	memset(m, 0, sizeof(*m));
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* A step of 0 would be a scaler that never moves. */
static uint32_t step_of(const struct direction_spec *d)
{
	return max_u32(d->step, 1);
}

/* a + b and a - b, kept within [1, MOST_VMS] unless a is outside already. */
static uint32_t raised(uint32_t a, uint32_t b)
{
	return a >= MOST_VMS || b >= MOST_VMS - a ? max_u32(a, MOST_VMS)
						  : a + b;
}

static uint32_t lowered(uint32_t a, uint32_t b)
{
	return a > b ? a - b : min_u32(a, 1);
}

/*
 * How many VMs bring `count` VMs at `mean` each to at most `target` each.  At
 * least one: an empty pool gives no samples, so that nothing would raise it.
 */
static uint32_t vms_for(uint32_t count, double mean, double target)
{
	double n;

	if (!(target > 0))
		return max_u32(count, 1);
	n = count * mean / target;
	if (n >= MOST_VMS)
		return MOST_VMS;
	n = ceil(n - n * ROUNDING);
	return n > 1 ? (uint32_t)n : 1;
}

/*
 * VMs in warm-up give no samples.  On the way up they count as capacity to
 * come (the formula takes ready VMs only), on the way down they count as
 * loaded as the others; and a mean that is above target never scales down
 * just because VMs that are starting make `current` large.
 */
static void ask_target(const struct scale_input *in,
		       const struct signal_spec *sig, struct opinion *o)
{
	double mean = o->view.value;
	double off = fabs(mean - sig->target);
	uint32_t n = vms_for(in->ready, mean, sig->target);
	uint32_t all = vms_for(in->ready + in->warming, mean, sig->target);

	o->view.target = sig->target;
	if (off <= sig->target * (in->scaling->tolerance / 100 + ROUNDING)) {
		o->view.proposal = in->current;
		if (n != in->current)
			o->limit = LIMIT_TOLERANCE;
		return;
	}
	if (n < in->current) {
		uint32_t floor = mean > sig->target ? in->current : all;

		floor = min_u32(floor, in->current);
		if (floor > n) {
			n = floor;
			o->limit = LIMIT_WARMUP;
		}
	}
	o->view.proposal = n;
	if (n > in->current)
		o->reason = REASON_ABOVE_TARGET;
	else if (n < in->current)
		o->reason = REASON_BELOW_TARGET;
}

static bool held_for(uint64_t *since, bool now_true, uint64_t now,
		     uint64_t hold)
{
	if (!now_true) {
		*since = 0;
		return false;
	}
	if (!*since || *since > now)
		*since = now ? now : 1;
	return now > *since ? now - *since >= hold : !hold;
}

/*
 * Above high, but not for long enough yet, it speaks for the present count:
 * it must not let another signal take VMs away.
 */
static void ask_threshold(const struct scale_input *in,
			  const struct signal_spec *sig, struct opinion *o,
			  uint64_t *above, uint64_t *below)
{
	double mean = o->view.value;
	bool high = held_for(above, mean > sig->high, in->now, sig->hold);
	bool low = held_for(below, mean < sig->low, in->now, sig->hold);

	o->view.target = mean < sig->low ? sig->low : sig->high;
	o->view.proposal = in->current;
	if (high) {
		o->view.proposal =
			raised(in->current, step_of(&in->scaling->up));
		o->reason = REASON_THRESHOLD_HIGH;
	} else if (low) {
		o->view.proposal =
			lowered(in->current, step_of(&in->scaling->down));
		o->reason = REASON_THRESHOLD_LOW;
	} else {
		o->view.abstains = mean <= sig->high;
	}
}

static struct opinion ask(const struct scale_input *in, struct scale_memory *m,
			  size_t i)
{
	const struct signal_spec *sig = &in->scaling->signals[i];
	const struct scale_sample *s = &in->samples[sig->metric];
	struct opinion o = {
		.view = { .metric = sig->metric,
			  .present = s->present && in->ready &&
				     isfinite(s->mean) && s->mean >= 0,
			  .proposal = in->current },
	};

	if (!o.view.present) {
		/* "for all of `for`" must have been seen: start again. */
		m->above_since[i] = 0;
		m->below_since[i] = 0;
		o.view.abstains = true;
		o.view.target =
			sig->kind == SIGNAL_TARGET ? sig->target : sig->high;
		return o;
	}
	o.view.value = s->mean;
	if (sig->kind == SIGNAL_TARGET)
		ask_target(in, sig, &o);
	else
		ask_threshold(in, sig, &o, &m->above_since[i],
			      &m->below_since[i]);
	return o;
}

/*
 * The fewest VMs that keep every threshold at or below its high mark, taking
 * the load to spread over fewer VMs; without it a threshold and a lower
 * proposal (its own, or another signal's) would take turns for ever.
 */
static uint32_t threshold_floor(const struct scale_input *in,
				const struct scale_decision *d)
{
	uint32_t floor = 0;
	size_t n = in->scaling->signal_count;

	for (size_t i = 0; i < n && i < d->signal_count; i++) {
		const struct signal_spec *sig = &in->scaling->signals[i];

		if (sig->kind == SIGNAL_THRESHOLD && d->signals[i].present)
			floor = max_u32(floor, vms_for(in->ready + in->warming,
						       d->signals[i].value,
						       sig->high));
	}
	return min_u32(floor, in->current);
}

static void hold_missing(const struct scale_input *in, struct scale_decision *d)
{
	if (in->scaling->missing == MISSING_UP_ONLY && d->wanted > in->current)
		return;
	d->wanted = in->current;
	d->reason = REASON_STEADY;
	d->limited_by = !in->ready && in->warming + in->starting
				? LIMIT_WARMUP
				: LIMIT_MISSING_SAMPLES;
}

/* Sets wanted, reason and the signals' views. */
static void ask_all(const struct scale_input *in, struct scale_memory *m,
		    struct scale_decision *d)
{
	bool any = false, missing = false;

	d->wanted = in->current;
	for (size_t i = 0; i < in->scaling->signal_count; i++) {
		struct opinion o = ask(in, m, i);

		if (d->signal_count < sizeof(d->signals) / sizeof(o.view))
			d->signals[d->signal_count++] = o.view;
		missing |= !o.view.present;
		if (o.view.abstains || (any && o.view.proposal <= d->wanted))
			continue;
		any = true;
		d->wanted = o.view.proposal;
		d->reason = o.reason;
		d->limited_by = o.limit;
	}
	if (missing)
		hold_missing(in, d);
}

static void apply_floor(const struct scale_input *in, struct scale_decision *d)
{
	uint32_t floor;

	if (d->to >= in->current)
		return;
	floor = threshold_floor(in, d);
	if (floor > d->to) {
		d->to = floor;
		d->limited_by = LIMIT_TOLERANCE;
	}
}

static void fit_memory(struct scale_memory *m, const struct scaling_spec *s)
{
	if (m->signal_count == s->signal_count && m->above_since)
		return;
	free(m->above_since);
	free(m->below_since);
	m->above_since = mem_array(s->signal_count, sizeof(uint64_t));
	m->below_since = mem_array(s->signal_count, sizeof(uint64_t));
	m->signal_count = s->signal_count;
}

/* Seen within the window, which is open at its old end. */
static bool in_window(const struct scale_proposal *p, uint64_t now,
		      uint64_t window)
{
	return p->time >= now || now - p->time < window;
}

/* Of equal proposals in a row only the newest matters to a window. */
static void push_proposal(struct scale_memory *m, uint64_t now, uint32_t count)
{
	struct scale_proposal *p;

	if (m->proposal_count &&
	    m->proposals[m->proposal_count - 1].count == count) {
		m->proposals[m->proposal_count - 1].time = now;
		return;
	}
	p = MEM_PUSH(m->proposals, m->proposal_count);
	p->time = now;
	p->count = count;
}

/*
 * With nothing remembered, the present count stands for the time before: a
 * window that just began must not be taken for one that has passed.
 */
static void remember(struct scale_memory *m, const struct scale_input *in,
		     uint32_t wanted)
{
	uint64_t longest = in->scaling->down.window;
	size_t keep = 0;

	if (in->scaling->up.window > longest)
		longest = in->scaling->up.window;
	for (size_t i = 0; i < m->proposal_count; i++)
		if (in_window(&m->proposals[i], in->now, longest))
			m->proposals[keep++] = m->proposals[i];
	m->proposal_count = keep;
	if (!keep)
		push_proposal(m, in->now, in->current);
	push_proposal(m, in->now, wanted);
}

static void apply_window(const struct scale_input *in,
			 const struct scale_memory *m, struct scale_decision *d)
{
	bool up = d->to > in->current;
	uint64_t window =
		up ? in->scaling->up.window : in->scaling->down.window;
	uint32_t n = d->to;

	if (d->to == in->current || !window)
		return;
	for (size_t i = 0; i < m->proposal_count; i++) {
		uint32_t count = m->proposals[i].count;

		if (!in_window(&m->proposals[i], in->now, window))
			continue;
		n = up ? min_u32(n, count) : max_u32(n, count);
	}
	/* A proposal of other times must not turn the direction round. */
	n = up ? max_u32(n, in->current) : min_u32(n, in->current);
	if (n != d->to)
		d->limited_by = LIMIT_WINDOW;
	d->to = n;
}

static void apply_step(const struct scale_input *in, struct scale_decision *d)
{
	uint32_t most = raised(in->current, step_of(&in->scaling->up));
	uint32_t least = lowered(in->current, step_of(&in->scaling->down));
	uint32_t n = min_u32(max_u32(d->to, least), most);

	if (n != d->to)
		d->limited_by = LIMIT_STEP;
	d->to = n;
}

/*
 * Each direction has its own cooldown, so that alternating ones don't disturb
 * each other's; an action under way holds both.
 */
static void apply_cooldown(const struct scale_input *in, struct scale_memory *m,
			   struct scale_decision *d)
{
	bool up = d->to > in->current;
	uint64_t *until = up ? &m->up_cooldown_until : &m->down_cooldown_until;
	uint64_t length =
		up ? in->scaling->up.cooldown : in->scaling->down.cooldown;

	if (d->to == in->current)
		return;
	/* A shortened cooldown, or a clock that went back, ends it earlier. */
	if (*until > in->now && *until - in->now > length)
		*until = in->now + length;
	if (!m->action_pending && *until <= in->now)
		return;
	d->to = in->current;
	d->limited_by = LIMIT_COOLDOWN;
}

/*
 * The file owns the bounds: a count outside them is put right at once, by as
 * many VMs as it takes.
 */
static void apply_bounds(const struct scale_input *in, struct scale_decision *d)
{
	uint32_t least = in->pool->min;
	uint32_t most = max_u32(in->pool->max, least);

	if (d->to < least) {
		d->to = least;
		d->limited_by = LIMIT_MIN;
		if (in->current < least)
			d->reason = REASON_BOUNDS;
	} else if (d->to > most) {
		d->to = most;
		d->limited_by = LIMIT_MAX;
		if (in->current > most)
			d->reason = REASON_BOUNDS;
	}
}

/* Too little room stops growth; it is no reason to remove a VM. */
static void apply_capacity(const struct scale_input *in,
			   struct scale_decision *d)
{
	uint32_t most = max_u32(in->capacity, in->current);

	if (d->to <= most)
		return;
	d->to = most;
	d->limited_by = LIMIT_CAPACITY;
}

static void apply_pause(const struct scale_input *in, struct scale_decision *d)
{
	if (!in->paused)
		return;
	d->to = in->current;
	d->limited_by = LIMIT_PAUSED;
}

/* Without signals the count is min. */
static void decide_fixed(const struct scale_input *in, struct scale_decision *d)
{
	d->wanted = in->pool->min;
	d->to = d->wanted;
	if (in->current != d->wanted) {
		d->reason = REASON_BOUNDS;
		d->limited_by = LIMIT_MIN;
	}
}

static void decide_by_signals(const struct scale_input *in,
			      struct scale_memory *m, struct scale_decision *d)
{
	fit_memory(m, in->scaling);
	/* None is starting any more: its VMs are ready or failed. */
	if (m->action_pending && !in->starting)
		scale_action_done(m, in->scaling, in->now);
	ask_all(in, m, d);
	remember(m, in, d->wanted);
	d->to = d->wanted;
	apply_floor(in, d);
	apply_window(in, m, d);
	apply_step(in, d);
	apply_cooldown(in, m, d);
	apply_bounds(in, d);
}

/*
 * A removal has nothing to wait for, so that its cooldown starts now.  A
 * correction to the bounds is nobody's judgement of the load: no cooldown.
 */
static void note_action(const struct scale_input *in, struct scale_memory *m,
			const struct scale_decision *d)
{
	bool bounds = d->reason == REASON_BOUNDS;

	if (d->direction == SCALE_UP) {
		m->action = bounds ? SCALE_HOLD : SCALE_UP;
		m->action_pending = d->to - d->from;
	} else if (d->direction == SCALE_DOWN && !bounds && in->scaling) {
		m->down_cooldown_until = in->now + in->scaling->down.cooldown;
	}
}

void scale_decide(const struct scale_input *in, struct scale_memory *memory,
		  struct scale_decision *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->from = in->current;
	if (in->scaling && in->scaling->signal_count)
		decide_by_signals(in, memory, ret);
	else
		decide_fixed(in, ret);
	apply_capacity(in, ret);
	apply_pause(in, ret);
	if (ret->to > ret->from)
		ret->direction = SCALE_UP;
	else if (ret->to < ret->from)
		ret->direction = SCALE_DOWN;
	note_action(in, memory, ret);
	memory->count = ret->to;
}

void scale_action_done(struct scale_memory *memory,
		       const struct scaling_spec *scaling, uint64_t now)
{
	if (memory->action_pending && memory->action == SCALE_UP)
		memory->up_cooldown_until = now + scaling->up.cooldown;
	memory->action_pending = 0;
	memory->action = SCALE_HOLD;
}
