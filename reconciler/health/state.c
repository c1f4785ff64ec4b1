/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "health/health.h"

#define JOINING_INTERVAL (50 * NS_PER_MS)
/* The part of an interval that jitter may take or add: 5 % each way. */
#define JITTER_SHARE 10

const char *probe_result_name(enum probe_result r)
{
	switch (r) {
	case PROBE_PASS:
		return "pass";
	case PROBE_TIMEOUT:
		return "timeout";
	case PROBE_REFUSED:
		return "refused";
	case PROBE_UNREACHABLE:
		return "unreachable";
	case PROBE_BAD_STATUS:
		return "bad_status";
	case PROBE_BAD_ANSWER:
		return "bad_answer";
	case PROBE_BAD_CERTIFICATE:
		return "bad_certificate";
	case PROBE_TLS_ERROR:
		return "tls_error";
	case PROBE_FAILED:
		return "failed";
	case PROBE_LOCAL_ERROR:
		return "local_error";
	case PROBE_RESULTS:
		break;
	}
	return "unknown";
}

const char *health_state_name(enum health_state s)
{
	switch (s) {
	case HEALTH_JOINING:
		return "joining";
	case HEALTH_UP:
		return "up";
	case HEALTH_DOWN:
		return "down";
	case HEALTH_DEAD:
		return "dead";
	}
	return "unknown";
}

void health_init(struct health *h, enum health_state initial)
{
	*h = (struct health){ .state = initial };
}

/* Counts stop at the top instead of starting again. */
static void count(uint32_t *n)
{
	if (*n < UINT32_MAX)
		(*n)++;
}

static bool reached(uint32_t n, uint32_t wanted)
{
	return n >= (wanted ? wanted : 1);
}

static enum health_state after_pass(const struct health *h,
				    const struct health_spec *spec)
{
	switch (h->state) {
	case HEALTH_JOINING:
	case HEALTH_UP:
		return HEALTH_UP;
	case HEALTH_DOWN:
	case HEALTH_DEAD:
		break;
	}
	return reached(h->passes, spec->rise) ? HEALTH_UP : h->state;
}

static enum health_state after_failure(const struct health *h,
				       const struct health_spec *spec)
{
	bool refuses = reached(h->refusals, spec->fall);

	switch (h->state) {
	case HEALTH_UP:
		if (refuses)
			return HEALTH_DEAD;
		return reached(h->failures, spec->fall) ? HEALTH_DOWN
							: HEALTH_UP;
	case HEALTH_DOWN:
		return refuses ? HEALTH_DEAD : HEALTH_DOWN;
	case HEALTH_JOINING:
	case HEALTH_DEAD:
		break;
	}
	return h->state;
}

bool health_feed(struct health *h, const struct health_spec *spec,
		 enum probe_result result)
{
	enum health_state before = h->state;

	if (result == PROBE_LOCAL_ERROR)
		return false;
	if (result == PROBE_PASS) {
		count(&h->passes);
		h->failures = 0;
		h->refusals = 0;
		h->state = after_pass(h, spec);
	} else {
		h->passes = 0;
		count(&h->failures);
		if (result == PROBE_REFUSED)
			count(&h->refusals);
		else
			h->refusals = 0;
		h->state = after_failure(h, spec);
	}
	return h->state != before;
}

bool health_kill(struct health *h)
{
	bool changed = h->state != HEALTH_DEAD;

	health_init(h, HEALTH_DEAD);
	return changed;
}

uint64_t health_next_due(const struct health *h, const struct health_spec *spec,
			 uint64_t last, uint64_t phase, uint32_t random)
{
	uint64_t interval = spec->interval ? spec->interval : 1;
	uint64_t span = interval / JITTER_SHARE;
	/* In units of 1 / 65536, so that long intervals don't overflow. */
	uint64_t jitter = (span >> 16) * (random >> 16) +
			  (((span & 0xffff) * (random >> 16)) >> 16);
	uint64_t least = last + interval / 2;
	/* How far `least` is past the multiple before it. */
	uint64_t rest =
		(least % interval + interval - phase % interval) % interval;

	if (h->state == HEALTH_JOINING)
		return last + JOINING_INTERVAL;
	/* The first that is later; what is added now may be taken off again. */
	return least + (interval - rest) - span / 2 + jitter;
}
