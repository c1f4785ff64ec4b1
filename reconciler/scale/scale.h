/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many VMs, and why: a pure function of spec, samples, history and time.
 */
#ifndef SCALE_SCALE_H
#define SCALE_SCALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "desired/model.h"

enum scale_direction { SCALE_HOLD, SCALE_UP, SCALE_DOWN };
enum scale_reason {
	REASON_STEADY,
	REASON_ABOVE_TARGET,
	REASON_BELOW_TARGET,
	REASON_THRESHOLD_HIGH,
	REASON_THRESHOLD_LOW,
	REASON_BOUNDS,
	REASON_REPLACE,
	REASON_RESTORED_DRAIN,
};
enum scale_limit {
	LIMIT_NONE,
	LIMIT_MAX,
	LIMIT_MIN,
	LIMIT_STEP,
	LIMIT_COOLDOWN,
	LIMIT_WINDOW,
	LIMIT_TOLERANCE,
	LIMIT_WARMUP,
	LIMIT_MISSING_SAMPLES,
	LIMIT_CAPACITY,
	LIMIT_PAUSED,
};
/* Names as history.db has them ("above_target", "missing_samples", ""). */
const char *scale_direction_name(enum scale_direction d);
const char *scale_reason_name(enum scale_reason r);
const char *scale_limit_name(enum scale_limit l);

/* Mean per ready VM of one metric over the last interval. */
struct scale_sample {
	bool present;
	double mean;
};

/* One proposal that a window remembers. */
struct scale_proposal {
	uint64_t time; /* CLOCK_MONOTONIC ns */
	uint32_t count;
};

/*
 * What the scaler remembers of a service.  Plain data, so that the store can
 * keep it; empty is a fine start.
 */
struct scale_memory {
	struct scale_proposal
		*proposals; /* oldest first, within the longest window */
	size_t proposal_count;
	uint64_t *above_since; /* by signal: since when above high, 0: not */
	uint64_t *below_since;
	size_t signal_count;
	uint64_t up_cooldown_until;
	uint64_t down_cooldown_until;
	uint32_t action_pending; /* VMs of the last action not yet ready or failed */
	enum scale_direction action;
	uint32_t count; /* as last decided; 0: never */
};
void scale_memory_release(struct scale_memory *m);

struct scale_input {
	const struct pool_spec *pool;
	const struct scaling_spec *scaling;
	uint64_t now;
	uint32_t current; /* ready + starting VMs that are not leaving */
	uint32_t ready; /* of those: ready and past warm-up */
	uint32_t warming; /* of those: ready, still in warm-up */
	uint32_t starting; /* of those: not ready yet */
	bool paused; /* nothing is done about it */
	uint32_t capacity; /* most VMs the hypervisors can hold; UINT32_MAX: no limit */
	struct scale_sample samples[METRIC_COUNT];
};

struct scale_signal_view { /* one signal's part, for history and explain */
	enum metric metric;
	bool present;
	bool abstains;
	double value;
	double target; /* target, or the threshold that was crossed */
	uint32_t proposal;
};

struct scale_decision {
	uint32_t from; /* = current */
	uint32_t wanted; /* before window, step, cooldown and bounds */
	uint32_t to; /* what is to be */
	enum scale_direction direction;
	enum scale_reason reason;
	enum scale_limit limited_by; /* the last rule that changed the number */
	struct scale_signal_view signals[METRIC_COUNT * 2];
	size_t signal_count;
};

/*
 * Decide once, at the end of an interval.  Follows the design's order:
 * proposals, largest wins, window, step, cooldown, bounds.  Updates *memory.
 * VMs that are being created count as starting from the decision on.  Without
 * signals (or scaling NULL) the count is min.  A count outside min and max is
 * put right at once, whatever window, step and cooldown say.
 */
void scale_decide(const struct scale_input *in, struct scale_memory *memory,
		  struct scale_decision *ret);
/*
 * The action's VMs all became ready (or failed): the cooldown starts at `now`.
 * Harmless when none is pending.  A scaler that isn't told finds out at the
 * next decision with no VM starting; removals have nothing to wait for.
 */
void scale_action_done(struct scale_memory *memory,
		       const struct scaling_spec *scaling, uint64_t now);
/* One sentence for people: "cpu 81.0 is above target 60.0: 2 -> 3 VMs". */
void scale_message(const struct scale_decision *d, struct buf *out);
/* JSON array as the contract's `signals` column. */
void scale_signals_json(const struct scale_decision *d, struct buf *out);

#endif
