/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The scaler: a table of single decisions, stories, and properties. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the above first. */
#include <cmocka.h>

#include "base/mem.h"
#include "scale/scale.h"

#define S 1000000000ULL
#define T0 (1000 * S)

/* A pool, its scaling block and what the scaler remembers. */
struct world {
	struct pool_spec pool;
	struct signal_spec signals[3];
	struct scaling_spec scaling;
	struct scale_memory memory;
	struct scale_input in;
	struct scale_decision d;
};

static const struct scaling_spec plain = {
	.src = { .line = 1 },
	.interval = 5 * S,
	.tolerance = 10,
	.up = { .step = 100 },
	.down = { .step = 100 },
};

static struct world *world_new(uint32_t min, uint32_t max, uint32_t current)
{
	struct world *w = mem_alloc(sizeof(*w));

	w->pool.min = min;
	w->pool.max = max;
	w->scaling = plain;
	w->scaling.signals = w->signals;
	w->in.pool = &w->pool;
	w->in.scaling = &w->scaling;
	w->in.now = T0;
	w->in.capacity = UINT32_MAX;
	w->in.current = current;
	w->in.ready = current;
	return w;
}

static void world_free(struct world *w)
{
	scale_memory_release(&w->memory);
	free(w);
}

static void add_target(struct world *w, enum metric m, double target)
{
	w->signals[w->scaling.signal_count++] = (struct signal_spec){
		.metric = m, .kind = SIGNAL_TARGET, .target = target
	};
}

static void add_threshold(struct world *w, enum metric m, double high,
			  double low, uint64_t hold)
{
	w->signals[w->scaling.signal_count++] =
		(struct signal_spec){ .metric = m,
				      .kind = SIGNAL_THRESHOLD,
				      .high = high,
				      .low = low,
				      .hold = hold };
}

static void sample(struct world *w, enum metric m, double mean)
{
	w->in.samples[m] = (struct scale_sample){ true, mean };
}

static const struct scale_decision *decide(struct world *w)
{
	scale_decide(&w->in, &w->memory, &w->d);
	return &w->d;
}

static const struct scale_decision *decide_after(struct world *w, uint64_t wait)
{
	w->in.now += wait;
	return decide(w);
}

static void expect(const struct scale_decision *d, uint32_t to,
		   enum scale_reason reason, enum scale_limit limit)
{
	if (d->to != to || d->reason != reason || d->limited_by != limit)
		print_error("got to=%u wanted=%u reason=%s limit=%s\n", d->to,
			    d->wanted, scale_reason_name(d->reason),
			    scale_limit_name(d->limited_by));
	assert_int_equal(d->to, to);
	assert_string_equal(scale_reason_name(d->reason),
			    scale_reason_name(reason));
	assert_string_equal(scale_limit_name(d->limited_by),
			    scale_limit_name(limit));
	assert_int_equal(d->direction, d->to > d->from	 ? SCALE_UP
				       : d->to < d->from ? SCALE_DOWN
							 : SCALE_HOLD);
}

/* One target-tracking decision with nothing remembered. */
static const struct {
	const char *name;
	uint32_t min, max, ready, warming, starting, capacity;
	uint32_t up_step, down_step;
	double mean, target;
	uint32_t wanted, to;
	enum scale_reason reason;
	enum scale_limit limit;
} rows[] = {
	{ "at target", 1, 8, 3, 0, 0, 99, 9, 9, 60, 60, 3, 3, REASON_STEADY,
	  LIMIT_NONE },
	{ "upper edge of tolerance", 1, 8, 3, 0, 0, 99, 9, 9, 66, 60, 3, 3,
	  REASON_STEADY, LIMIT_TOLERANCE },
	{ "beyond tolerance", 1, 8, 3, 0, 0, 99, 9, 9, 66.1, 60, 4, 4,
	  REASON_ABOVE_TARGET, LIMIT_NONE },
	{ "lower edge of tolerance", 1, 99, 30, 0, 0, 99, 9, 9, 54, 60, 30, 30,
	  REASON_STEADY, LIMIT_TOLERANCE },
	{ "below tolerance", 1, 99, 30, 0, 0, 99, 9, 9, 53.9, 60, 27, 27,
	  REASON_BELOW_TARGET, LIMIT_NONE },
	{ "rounds up", 1, 8, 1, 0, 0, 99, 9, 9, 121, 60, 3, 3,
	  REASON_ABOVE_TARGET, LIMIT_NONE },
	{ "an exact ratio isn't rounded up", 1, 99, 7, 0, 0, 99, 9, 99,
	  900.0 / 7, 100, 9, 9, REASON_ABOVE_TARGET, LIMIT_NONE },
	{ "max", 1, 8, 4, 0, 0, 99, 99, 9, 600, 60, 40, 8, REASON_ABOVE_TARGET,
	  LIMIT_MAX },
	{ "at max already", 1, 8, 8, 0, 0, 99, 99, 9, 600, 60, 80, 8,
	  REASON_ABOVE_TARGET, LIMIT_MAX },
	{ "step, then max leaves it alone", 1, 8, 4, 0, 0, 99, 2, 9, 600, 60,
	  40, 6, REASON_ABOVE_TARGET, LIMIT_STEP },
	{ "idle goes to min", 2, 8, 4, 0, 0, 99, 9, 9, 0, 60, 1, 2,
	  REASON_BELOW_TARGET, LIMIT_MIN },
	{ "down step", 1, 8, 6, 0, 0, 99, 9, 1, 10, 60, 1, 5,
	  REASON_BELOW_TARGET, LIMIT_STEP },
	{ "signals never empty a pool", 0, 8, 2, 0, 0, 99, 9, 9, 0, 60, 1, 1,
	  REASON_BELOW_TARGET, LIMIT_NONE },
	{ "capacity", 1, 8, 2, 0, 0, 3, 9, 9, 300, 60, 10, 3,
	  REASON_ABOVE_TARGET, LIMIT_CAPACITY },
	{ "capacity that shrank removes nothing", 1, 8, 4, 0, 0, 2, 9, 9, 90,
	  60, 6, 4, REASON_ABOVE_TARGET, LIMIT_CAPACITY },
	{ "starting VMs are capacity", 1, 8, 2, 0, 2, 99, 9, 9, 120, 60, 4, 4,
	  REASON_STEADY, LIMIT_NONE },
	{ "only the rest is added", 1, 8, 2, 0, 2, 99, 9, 9, 150, 60, 5, 5,
	  REASON_ABOVE_TARGET, LIMIT_NONE },
	{ "a high mean removes no starting VM", 1, 8, 2, 0, 2, 99, 9, 9, 70, 60,
	  4, 4, REASON_STEADY, LIMIT_WARMUP },
	{ "VMs in warm-up carry load", 1, 9, 2, 2, 0, 99, 9, 9, 45, 60, 3, 3,
	  REASON_BELOW_TARGET, LIMIT_WARMUP },
	{ "and are not asked to be joined by more", 1, 9, 2, 2, 0, 99, 9, 9,
	  100, 60, 4, 4, REASON_STEADY, LIMIT_NONE },
	{ "below min", 3, 8, 1, 0, 0, 99, 1, 1, 60, 60, 1, 3, REASON_BOUNDS,
	  LIMIT_MIN },
	{ "above max", 1, 3, 7, 0, 0, 99, 1, 1, 60, 60, 7, 3, REASON_BOUNDS,
	  LIMIT_MAX },
	{ "nothing runs yet", 2, 8, 0, 0, 0, 99, 1, 1, 0, 60, 0, 2,
	  REASON_BOUNDS, LIMIT_MIN },
	{ "all are starting", 2, 8, 0, 0, 2, 99, 1, 1, 0, 60, 2, 2,
	  REASON_STEADY, LIMIT_WARMUP },
	{ "an absurd sample is bounded", 1, 8, 8, 0, 0, 99, 99, 9, 1e300, 1e-9,
	  1000000, 8, REASON_ABOVE_TARGET, LIMIT_MAX },
	{ "infinite is missing", 1, 8, 4, 0, 0, 99, 9, 9, INFINITY, 60, 4, 4,
	  REASON_STEADY, LIMIT_MISSING_SAMPLES },
	{ "not a number is missing", 1, 8, 4, 0, 0, 99, 9, 9, NAN, 60, 4, 4,
	  REASON_STEADY, LIMIT_MISSING_SAMPLES },
};

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct world *w = world_new(rows[i].min, rows[i].max, 0);

		add_target(w, METRIC_CPU, rows[i].target);
		w->in.ready = rows[i].ready;
		w->in.warming = rows[i].warming;
		w->in.starting = rows[i].starting;
		w->in.current =
			rows[i].ready + rows[i].warming + rows[i].starting;
		w->in.capacity = rows[i].capacity;
		w->scaling.up.step = rows[i].up_step;
		w->scaling.down.step = rows[i].down_step;
		sample(w, METRIC_CPU, rows[i].mean);
		decide(w);
		if (w->d.to != rows[i].to || w->d.limited_by != rows[i].limit ||
		    w->d.wanted != rows[i].wanted ||
		    w->d.reason != rows[i].reason)
			print_error("row: %s\n", rows[i].name);
		expect(&w->d, rows[i].to, rows[i].reason, rows[i].limit);
		assert_int_equal(w->d.wanted, rows[i].wanted);
		assert_int_equal(w->d.from, w->in.current);
		world_free(w);
	}
}

/* Paused: what it would do is said, and nothing is done, nor left to cool. */
static void test_paused(void **state)
{
	static const struct {
		double mean;
		uint32_t wanted;
	} cases[] = { { 600, 40 }, { 1, 1 }, { 60, 4 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct world *w = world_new(1, 8, 0);

		add_target(w, METRIC_CPU, 60);
		w->in.ready = w->in.current = 4;
		w->in.paused = true;
		sample(w, METRIC_CPU, cases[i].mean);
		decide(w);
		assert_int_equal(w->d.wanted, cases[i].wanted);
		assert_int_equal(w->d.to, 4);
		assert_int_equal(w->d.direction, SCALE_HOLD);
		assert_int_equal(w->d.limited_by, LIMIT_PAUSED);
		assert_string_equal(scale_limit_name(w->d.limited_by),
				    "paused");
		w->in.paused = false;
		decide(w);
		assert_int_equal(w->d.to != 4, cases[i].wanted != 4);
		world_free(w);
	}
}

/* Kubernetes #92111: a Min policy on scale-up that never scaled up. */
static void test_up_with_smallest_of_window(void **state)
{
	struct world *w = world_new(1, 9, 2);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.up.window = 15 * S;
	sample(w, METRIC_CPU, 150);
	expect(decide(w), 2, REASON_ABOVE_TARGET, LIMIT_WINDOW);
	sample(w, METRIC_CPU, 120);
	expect(decide_after(w, 5 * S), 2, REASON_ABOVE_TARGET, LIMIT_WINDOW);
	sample(w, METRIC_CPU, 180);
	expect(decide_after(w, 5 * S), 2, REASON_ABOVE_TARGET, LIMIT_WINDOW);
	/* The window has passed: the smallest proposal in it was 4. */
	expect(decide_after(w, 5 * S), 4, REASON_ABOVE_TARGET, LIMIT_WINDOW);
	world_free(w);
}

/* A dip inside the up window never makes a rise into a fall. */
static void test_up_window_never_scales_down(void **state)
{
	struct world *w = world_new(1, 9, 4);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.up.window = 15 * S;
	w->scaling.down.window = 60 * S;
	sample(w, METRIC_CPU, 10);
	decide(w);
	sample(w, METRIC_CPU, 90);
	expect(decide_after(w, 5 * S), 4, REASON_ABOVE_TARGET, LIMIT_WINDOW);
	world_free(w);
}

/* Kubernetes #98174: a down window's largest above current scaled *up*. */
static void test_down_window_never_scales_up(void **state)
{
	struct world *w = world_new(1, 9, 2);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.down.window = 300 * S;
	w->scaling.up.step = 1;
	w->in.capacity = 3;
	sample(w, METRIC_CPU, 240); /* 8 wanted, 3 possible */
	expect(decide(w), 3, REASON_ABOVE_TARGET, LIMIT_STEP);
	w->in.current = w->in.ready = 3;
	sample(w, METRIC_CPU, 20);
	expect(decide_after(w, 5 * S), 3, REASON_BELOW_TARGET, LIMIT_WINDOW);
	assert_int_equal(w->d.wanted, 1);
	expect(decide_after(w, 294 * S), 3, REASON_BELOW_TARGET, LIMIT_WINDOW);
	/* The 8 is out of the window, and only 1 is in it. */
	expect(decide_after(w, 6 * S), 1, REASON_BELOW_TARGET, LIMIT_NONE);
	world_free(w);
}

/* A window that has just begun isn't one that has passed. */
static void test_fresh_window_holds(void **state)
{
	struct world *w = world_new(1, 9, 4);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.down.window = 20 * S;
	sample(w, METRIC_CPU, 10);
	expect(decide(w), 4, REASON_BELOW_TARGET, LIMIT_WINDOW);
	expect(decide_after(w, 19 * S), 4, REASON_BELOW_TARGET, LIMIT_WINDOW);
	expect(decide_after(w, 1 * S), 1, REASON_BELOW_TARGET, LIMIT_NONE);
	/* So too after a pause longer than the window. */
	w->in.current = w->in.ready = 4;
	expect(decide_after(w, 100 * S), 4, REASON_BELOW_TARGET, LIMIT_WINDOW);
	world_free(w);
}

/* Kubernetes #108354: the period restarted when the direction alternates. */
static void test_alternating_directions(void **state)
{
	struct world *w = world_new(1, 20, 6);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.up =
		(struct direction_spec){ .cooldown = 30 * S, .step = 1 };
	w->scaling.down =
		(struct direction_spec){ .cooldown = 60 * S, .step = 1 };
	sample(w, METRIC_CPU, 20);
	expect(decide(w), 5, REASON_BELOW_TARGET, LIMIT_STEP); /* until 60 */
	w->in.current = w->in.ready = 5;
	sample(w, METRIC_CPU, 200);
	expect(decide_after(w, 10 * S), 6, REASON_ABOVE_TARGET, LIMIT_STEP);
	w->in.current = w->in.ready = 6;
	scale_action_done(&w->memory, &w->scaling, w->in.now); /* until 40 */
	sample(w, METRIC_CPU, 20);
	expect(decide_after(w, 10 * S), 6, REASON_BELOW_TARGET, LIMIT_COOLDOWN);
	sample(w, METRIC_CPU, 200);
	expect(decide_after(w, 19 * S), 6, REASON_ABOVE_TARGET, LIMIT_COOLDOWN);
	expect(decide_after(w, 1 * S), 7, REASON_ABOVE_TARGET, LIMIT_STEP);
	w->in.current = w->in.ready = 7;
	scale_action_done(&w->memory, &w->scaling, w->in.now);
	/* The down cooldown ran on from the first action all the while. */
	sample(w, METRIC_CPU, 20);
	expect(decide_after(w, 20 * S), 6, REASON_BELOW_TARGET, LIMIT_STEP);
	world_free(w);
}

/* Kubernetes #104387: an outage of metrics, read as 0, scaled in. */
static void test_outage_holds(void **state)
{
	struct world *w = world_new(1, 9, 5);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.down.window = 20 * S;
	for (int i = 0; i < 20; i++)
		expect(decide_after(w, 5 * S), 5, REASON_STEADY,
		       LIMIT_MISSING_SAMPLES);
	/* After it, the window has yet to pass. */
	sample(w, METRIC_CPU, 1);
	for (int i = 0; i < 4; i++)
		expect(decide_after(w, i ? 5 * S : 0), 5, REASON_BELOW_TARGET,
		       LIMIT_WINDOW);
	expect(decide_after(w, 5 * S), 1, REASON_BELOW_TARGET, LIMIT_NONE);
	world_free(w);
}

static void test_missing_policies(void **state)
{
	struct world *w = world_new(1, 9, 2);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	add_target(w, METRIC_PACKETS_PER_SECOND, 1000);
	sample(w, METRIC_PACKETS_PER_SECOND, 2000);
	expect(decide(w), 2, REASON_STEADY, LIMIT_MISSING_SAMPLES);
	w->scaling.missing = MISSING_UP_ONLY;
	expect(decide(w), 4, REASON_ABOVE_TARGET, LIMIT_NONE);
	w->memory.action_pending = 0;
	sample(w, METRIC_PACKETS_PER_SECOND, 100);
	expect(decide(w), 2, REASON_STEADY, LIMIT_MISSING_SAMPLES);
	world_free(w);
}

static void test_largest_wins(void **state)
{
	struct world *w = world_new(1, 20, 4);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	add_target(w, METRIC_PACKETS_PER_SECOND, 1000);
	sample(w, METRIC_CPU, 20);
	sample(w, METRIC_PACKETS_PER_SECOND, 2000);
	expect(decide(w), 8, REASON_ABOVE_TARGET, LIMIT_NONE);
	assert_int_equal(w->d.signal_count, 2);
	assert_int_equal(w->d.signals[0].proposal, 2);
	assert_int_equal(w->d.signals[1].proposal, 8);
	world_free(w);
}

static void test_threshold_for(void **state)
{
	struct world *w = world_new(1, 9, 2);

	(void)state;
	add_threshold(w, METRIC_PACKETS_PER_SECOND, 50000, 10000, 10 * S);
	w->scaling.up.step = 4;
	w->scaling.down.step = 1;
	sample(w, METRIC_PACKETS_PER_SECOND, 60000);
	expect(decide(w), 2, REASON_STEADY, LIMIT_NONE);
	expect(decide_after(w, 5 * S), 2, REASON_STEADY, LIMIT_NONE);
	expect(decide_after(w, 5 * S), 6, REASON_THRESHOLD_HIGH, LIMIT_NONE);
	scale_action_done(&w->memory, &w->scaling, w->in.now);
	w->in.current = w->in.ready = 6;
	sample(w, METRIC_PACKETS_PER_SECOND, 5000);
	expect(decide_after(w, 5 * S), 6, REASON_STEADY, LIMIT_NONE);
	/* Once not below, or unseen: `for` starts again. */
	w->in.samples[METRIC_PACKETS_PER_SECOND].present = false;
	expect(decide_after(w, 5 * S), 6, REASON_STEADY, LIMIT_MISSING_SAMPLES);
	sample(w, METRIC_PACKETS_PER_SECOND, 5000);
	expect(decide_after(w, 5 * S), 6, REASON_STEADY, LIMIT_NONE);
	sample(w, METRIC_PACKETS_PER_SECOND, 10000);
	expect(decide_after(w, 5 * S), 6, REASON_STEADY, LIMIT_NONE);
	sample(w, METRIC_PACKETS_PER_SECOND, 9999);
	expect(decide_after(w, 5 * S), 6, REASON_STEADY, LIMIT_NONE);
	expect(decide_after(w, 9 * S), 6, REASON_STEADY, LIMIT_NONE);
	expect(decide_after(w, 1 * S), 5, REASON_THRESHOLD_LOW, LIMIT_NONE);
	world_free(w);
}

/* Neither a mean at the mark nor a missing one counts towards `for`. */
static void test_threshold_interrupted(void **state)
{
	struct world *w = world_new(1, 9, 2);
	enum metric m = METRIC_PACKETS_PER_SECOND;

	(void)state;
	add_threshold(w, m, 50000, 10000, 10 * S);
	w->scaling.up.step = 1;
	for (int i = 0; i < 6; i++) {
		sample(w, m, 60000);
		expect(decide_after(w, 5 * S), 2, REASON_STEADY, LIMIT_NONE);
		if (i % 2)
			sample(w, m, 50000);
		else
			w->in.samples[m].present = false;
		expect(decide_after(w, 5 * S), 2, REASON_STEADY,
		       i % 2 ? LIMIT_NONE : LIMIT_MISSING_SAMPLES);
	}
	sample(w, m, 60000);
	decide_after(w, 5 * S);
	expect(decide_after(w, 10 * S), 3, REASON_THRESHOLD_HIGH, LIMIT_NONE);
	world_free(w);
}

static void test_threshold_abstains(void **state)
{
	struct world *w = world_new(1, 9, 4);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	add_threshold(w, METRIC_PACKETS_PER_SECOND, 50000, 10000, 10 * S);
	sample(w, METRIC_CPU, 20);
	sample(w, METRIC_PACKETS_PER_SECOND, 20000);
	/* In between: cpu alone decides. */
	expect(decide(w), 2, REASON_BELOW_TARGET, LIMIT_NONE);
	assert_true(w->d.signals[1].abstains);
	/* Above high, though not for long: it doesn't let VMs be taken. */
	sample(w, METRIC_PACKETS_PER_SECOND, 60000);
	expect(decide_after(w, 5 * S), 4, REASON_STEADY, LIMIT_NONE);
	/* cpu wants 2, which would bring packets above high: 3. */
	sample(w, METRIC_PACKETS_PER_SECOND, 30000);
	expect(decide_after(w, 5 * S), 3, REASON_BELOW_TARGET, LIMIT_TOLERANCE);
	world_free(w);
}

/* nomad-autoscaler #376, #610: an action in flight counts. */
static void test_no_double_action(void **state)
{
	struct world *w = world_new(1, 20, 2);

	(void)state;
	add_threshold(w, METRIC_CPU, 80, 20, 0);
	w->scaling.up =
		(struct direction_spec){ .cooldown = 30 * S, .step = 2 };
	sample(w, METRIC_CPU, 95);
	expect(decide(w), 4, REASON_THRESHOLD_HIGH, LIMIT_NONE);
	assert_int_equal(w->memory.action_pending, 2);
	w->in.current = 4;
	w->in.starting = 2;
	for (int i = 0; i < 100; i++)
		expect(decide_after(w, 5 * S), 4, REASON_THRESHOLD_HIGH,
		       LIMIT_COOLDOWN);
	scale_action_done(&w->memory, &w->scaling, w->in.now);
	w->in.starting = 0;
	w->in.ready = 4;
	expect(decide_after(w, 29 * S), 4, REASON_THRESHOLD_HIGH,
	       LIMIT_COOLDOWN);
	expect(decide_after(w, 1 * S), 6, REASON_THRESHOLD_HIGH, LIMIT_NONE);
	world_free(w);
}

/* A caller that never says "done" must not stop the scaler for ever. */
static void test_forgotten_action(void **state)
{
	struct world *w = world_new(1, 20, 2);

	(void)state;
	add_threshold(w, METRIC_CPU, 80, 20, 0);
	w->scaling.up =
		(struct direction_spec){ .cooldown = 30 * S, .step = 2 };
	sample(w, METRIC_CPU, 95);
	decide(w);
	expect(decide_after(w, 5 * S), 2, REASON_THRESHOLD_HIGH,
	       LIMIT_COOLDOWN);
	expect(decide_after(w, 30 * S), 4, REASON_THRESHOLD_HIGH, LIMIT_NONE);
	world_free(w);
}

static void test_bounds_wait_for_nothing(void **state)
{
	struct world *w = world_new(5, 8, 2);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.up = (struct direction_spec){ .window = 300 * S,
						 .cooldown = 300 * S,
						 .step = 1 };
	w->scaling.down = w->scaling.up;
	sample(w, METRIC_CPU, 60);
	w->memory.up_cooldown_until = T0 + 100 * S;
	w->memory.down_cooldown_until = T0 + 100 * S;
	expect(decide(w), 5, REASON_BOUNDS, LIMIT_MIN);
	/* It began no cooldown of its own. */
	scale_action_done(&w->memory, &w->scaling, T0 + 90 * S);
	assert_int_equal(w->memory.up_cooldown_until, T0 + 100 * S);
	w->in.current = w->in.ready = 12;
	expect(decide_after(w, 5 * S), 8, REASON_BOUNDS, LIMIT_MAX);
	world_free(w);
}

static void test_fixed_pool(void **state)
{
	struct world *w = world_new(3, 8, 1);

	(void)state;
	expect(decide(w), 3, REASON_BOUNDS, LIMIT_MIN);
	w->in.current = 3;
	expect(decide(w), 3, REASON_STEADY, LIMIT_NONE);
	w->in.current = 6;
	w->in.scaling = NULL;
	expect(decide(w), 3, REASON_BOUNDS, LIMIT_MIN);
	world_free(w);
}

static void test_cooldown_shortened(void **state)
{
	struct world *w = world_new(1, 9, 2);

	(void)state;
	add_target(w, METRIC_CPU, 60);
	w->scaling.up.cooldown = 10 * S;
	w->memory.up_cooldown_until = T0 + 1000000 * S;
	sample(w, METRIC_CPU, 120);
	expect(decide(w), 2, REASON_ABOVE_TARGET, LIMIT_COOLDOWN);
	expect(decide_after(w, 10 * S), 4, REASON_ABOVE_TARGET, LIMIT_NONE);
	world_free(w);
}

static void test_message(void **state)
{
	struct world *w = world_new(1, 9, 2);
	struct buf b = BUF_INIT;

	(void)state;
	add_target(w, METRIC_CPU, 60);
	add_threshold(w, METRIC_PACKETS_PER_SECOND, 50000, 10000, 10 * S);
	sample(w, METRIC_CPU, 81);
	sample(w, METRIC_PACKETS_PER_SECOND, 20000.5);
	decide(w);
	scale_message(&w->d, &b);
	assert_string_equal(buf_str(&b),
			    "cpu 81.0 is above target 60.0: 2 -> 3 VMs");
	buf_reset(&b);
	scale_signals_json(&w->d, &b);
	assert_string_equal(
		buf_str(&b),
		"[{\"metric\":\"cpu\",\"value\":81.0,\"target\":60.0,"
		"\"proposal\":3},{\"metric\":\"packets_per_second\","
		"\"value\":20000.5,\"target\":50000.0,\"proposal\":null}]");
	w->in.samples[METRIC_CPU].present = false;
	decide(w);
	buf_reset(&b);
	scale_message(&w->d, &b);
	assert_string_equal(buf_str(&b), "no sample of cpu: stays at 2 VMs");
	buf_reset(&b);
	sample(w, METRIC_CPU, 6000);
	scale_memory_release(&w->memory);
	decide(w);
	scale_message(&w->d, &b);
	assert_string_equal(buf_str(&b),
			    "cpu 6000.0 is above target 60.0: 2 -> 9 VMs "
			    "(200 wanted, limited by max)");
	buf_release(&b);
	world_free(w);
}

/* Properties: a pool simulated under random specs. */

static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)((rng >> 33) % below);
}

struct sim_vm {
	int ready_in; /* intervals until it serves; 0: serves */
	int warm_in; /* then, intervals until it is past warm-up */
};

struct sim {
	struct world *w;
	struct sim_vm vms[256];
	uint32_t count;
	double load[METRIC_COUNT]; /* of the whole pool */
	int boot, warmup; /* intervals */
	bool outages;
};

static void random_spec(struct world *w)
{
	static const uint64_t seconds[] = { 0, 5, 30, 60, 300 };
	uint32_t n = 1 + rnd(3);

	for (uint32_t i = 0; i < n; i++) {
		if (rnd(2)) {
			add_target(w, (enum metric)i, 10 + rnd(90));
		} else {
			double low = 5 + rnd(50);

			add_threshold(w, (enum metric)i, low + 1 + rnd(100),
				      low, seconds[rnd(4)] * S);
		}
	}
	w->scaling.tolerance = rnd(21);
	w->scaling.up =
		(struct direction_spec){ seconds[rnd(3)] * S,
					 seconds[rnd(4)] * S, 1 + rnd(6) };
	w->scaling.down =
		(struct direction_spec){ seconds[rnd(5)] * S,
					 seconds[rnd(4)] * S, 1 + rnd(6) };
	w->scaling.missing = rnd(2) ? MISSING_HOLD : MISSING_UP_ONLY;
}

static void sim_init(struct sim *s)
{
	uint32_t min = 1 + rnd(4);
	uint32_t max = min + rnd(20);

	memset(s, 0, sizeof(*s));
	s->w = world_new(min, max, 0);
	random_spec(s->w);
	s->boot = (int)rnd(6);
	s->warmup = (int)rnd(6);
	for (int m = 0; m < METRIC_COUNT; m++)
		s->load[m] = rnd(4) ? rnd(1500) : rnd(20);
	s->count = rnd(24);
}

/* What the sampler would see, the load being spread over serving VMs. */
static void sim_observe(struct sim *s)
{
	struct scale_input *in = &s->w->in;

	in->current = s->count;
	in->ready = in->warming = in->starting = 0;
	for (uint32_t i = 0; i < s->count; i++) {
		if (s->vms[i].ready_in)
			in->starting++;
		else if (s->vms[i].warm_in)
			in->warming++;
		else
			in->ready++;
	}
	for (int m = 0; m < METRIC_COUNT; m++) {
		uint32_t serving = in->ready + in->warming;

		in->samples[m].present = in->ready && !(s->outages && !rnd(4));
		in->samples[m].mean =
			in->samples[m].present ? s->load[m] / serving : 0;
	}
}

static void sim_act(struct sim *s, uint32_t to)
{
	uint32_t starting = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		if (s->vms[i].ready_in)
			s->vms[i].ready_in--;
		else if (s->vms[i].warm_in)
			s->vms[i].warm_in--;
	}
	while (s->count > to)
		s->count--;
	while (s->count < to)
		s->vms[s->count++] = (struct sim_vm){ s->boot, s->warmup };
	for (uint32_t i = 0; i < s->count; i++)
		starting += s->vms[i].ready_in != 0;
	if (!starting && s->w->memory.action_pending)
		scale_action_done(&s->w->memory, &s->w->scaling,
				  s->w->in.now + 5 * S);
}

static void sim_step(struct sim *s)
{
	const struct scale_decision *d;
	uint32_t was = s->count, min = s->w->pool.min, max = s->w->pool.max;

	sim_observe(s);
	d = decide_after(s->w, 5 * S);
	assert_true(d->to <= (max > was ? max : was));
	assert_true(d->to >= (min < was ? min : was));
	assert_true(was < min || was > max || (d->to >= min && d->to <= max));
	if (was >= min && was <= max) {
		assert_true(d->to <= was + s->w->scaling.up.step);
		assert_true(d->to + s->w->scaling.down.step >= was);
	}
	if (d->direction == SCALE_UP && d->reason != REASON_BOUNDS)
		assert_true(d->wanted > was);
	if (d->direction == SCALE_DOWN && d->reason != REASON_BOUNDS)
		assert_true(d->wanted < was);
	sim_act(s, d->to);
}

/* Up, then down, then rest: it never turns back up. */
static void test_constant_load_settles(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3000; seed++) {
		struct sim s;
		int changes = 0, late = 0, fell = 0, rose_again = 0;

		rng = seed * 0x9e3779b97f4a7c15ULL;
		sim_init(&s);
		for (int i = 0; i < 3000; i++) {
			uint32_t was = s.count;

			sim_step(&s);
			changes += s.count != was;
			late += i >= 2000 && s.count != was;
			fell += s.count < was && s.w->d.reason != REASON_BOUNDS;
			rose_again += s.count > was && fell;
		}
		if (late > 1 || rose_again)
			print_error("seed %lu: %d changes, %d late, %d again\n",
				    seed, changes, late, rose_again);
		assert_true(late <= 1);
		assert_int_equal(rose_again, 0);
		world_free(s.w);
	}
}

/* With an absolute load and no step in the way one action is enough. */
static void test_target_settles_at_once(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++) {
		struct sim s;
		int changes = 0;

		rng = seed * 0x9e3779b97f4a7c15ULL;
		sim_init(&s);
		s.w->scaling.signal_count = 0;
		add_target(s.w, METRIC_CPU, 60);
		s.w->scaling.up.step = s.w->scaling.down.step = 100;
		s.count = s.w->pool.min;
		for (int i = 0; i < 500; i++) {
			uint32_t was = s.count;

			sim_step(&s);
			changes += s.count != was;
		}
		assert_true(changes <= 1);
		world_free(s.w);
	}
}

/* While the VMs of an action start nothing is added, whatever comes. */
static void step_under_any_load(struct sim *s)
{
	uint32_t was = s->count, pending = s->w->memory.action_pending;

	s->load[rnd(METRIC_COUNT)] = rnd(2500);
	sim_observe(s);
	pending = s->w->in.starting ? pending : 0;
	sim_step(s);
	if (pending)
		assert_int_equal(s->count, was);
}

static void test_random_load_never_double_acts(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++) {
		struct sim s;

		rng = seed * 0x9e3779b97f4a7c15ULL;
		sim_init(&s);
		s.outages = true;
		s.count = s.w->pool.min;
		for (int i = 0; i < 500; i++)
			step_under_any_load(&s);
		world_free(s.w);
	}
}

#define REPLAYED 400

static void record(uint64_t seed, struct scale_decision *out)
{
	struct sim s;

	rng = seed * 0x9e3779b97f4a7c15ULL;
	sim_init(&s);
	s.outages = true;
	for (int i = 0; i < REPLAYED; i++) {
		s.load[rnd(METRIC_COUNT)] = rnd(2500);
		sim_step(&s);
		out[i] = s.w->d;
	}
	world_free(s.w);
}

/* Same input, same output: no clock and no state but the memory. */
static void test_replay(void **state)
{
	static struct scale_decision first[REPLAYED], again[REPLAYED];

	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		record(seed, first);
		record(seed, again);
		assert_memory_equal(first, again, sizeof(first));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_paused),
		cmocka_unit_test(test_up_with_smallest_of_window),
		cmocka_unit_test(test_up_window_never_scales_down),
		cmocka_unit_test(test_down_window_never_scales_up),
		cmocka_unit_test(test_fresh_window_holds),
		cmocka_unit_test(test_alternating_directions),
		cmocka_unit_test(test_outage_holds),
		cmocka_unit_test(test_missing_policies),
		cmocka_unit_test(test_largest_wins),
		cmocka_unit_test(test_threshold_for),
		cmocka_unit_test(test_threshold_interrupted),
		cmocka_unit_test(test_threshold_abstains),
		cmocka_unit_test(test_no_double_action),
		cmocka_unit_test(test_forgotten_action),
		cmocka_unit_test(test_bounds_wait_for_nothing),
		cmocka_unit_test(test_fixed_pool),
		cmocka_unit_test(test_cooldown_shortened),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_constant_load_settles),
		cmocka_unit_test(test_target_settles_at_once),
		cmocka_unit_test(test_random_load_never_double_acts),
		cmocka_unit_test(test_replay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
