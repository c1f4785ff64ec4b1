/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Health of one backend: a pure state machine fed with probe results
 * (state.c), and the probes themselves, non-blocking on the loop (probe.c).
 */
#ifndef HEALTH_HEALTH_H
#define HEALTH_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ip.h"
#include "desired/model.h"
#include "loop.h"

enum health_state {
	HEALTH_JOINING, /* has never passed: takes no traffic, probed every 50 ms */
	HEALTH_UP,
	HEALTH_DOWN, /* fails probes: drains, comes back after `rise` */
	HEALTH_DEAD, /* gone or its port refuses: its flows move at once */
};

enum probe_result {
	PROBE_PASS,
	PROBE_TIMEOUT,
	PROBE_REFUSED, /* RST or port unreachable */
	PROBE_UNREACHABLE, /* no route, host unreachable */
	PROBE_BAD_STATUS,
	PROBE_BAD_ANSWER, /* not the protocol, closed early */
	PROBE_LOCAL_ERROR, /* our own fault (no descriptors): says nothing */
};
const char *probe_result_name(enum probe_result r); /* "pass", "timeout"... */
const char *health_state_name(enum health_state s);

/* Consecutive counts only (a pass clears failures and the reverse). */
struct health {
	enum health_state state;
	uint32_t passes;
	uint32_t failures;
	uint32_t refusals; /* consecutive */
};

/* A backend that was up before a restart starts as HEALTH_UP. */
void health_init(struct health *h, enum health_state initial);
/*
 * Feed one result; true when the state changed.  JOINING: one pass admits.
 * UP: `fall` consecutive failures make DOWN, `fall` consecutive refusals make
 * DEAD.  DOWN and DEAD: `rise` consecutive passes make UP; DOWN becomes DEAD
 * after `fall` refusals.  PROBE_LOCAL_ERROR changes nothing.
 */
bool health_feed(struct health *h, const struct health_spec *spec,
		 enum probe_result result);
/* The VM is gone, whatever probes say; true when the state changed. */
bool health_kill(struct health *h);
/* When the next probe is due: 50 ms while joining, else interval with up to
 * 10 % jitter taken from `random` (0..UINT32_MAX). */
uint64_t health_next_due(const struct health *h, const struct health_spec *spec,
			 uint64_t now, uint32_t random);

/*
 * The prober: schedules and runs probes for any number of targets.  Results
 * are reported through fn on the loop's thread.
 */
struct prober;
struct probe_target; /* one backend being probed */

/* state has changed already when `changed` is true; took in ns. */
typedef void (*probe_fn)(void *arg, struct probe_target *t,
			 const struct health *h, enum probe_result result,
			 bool changed, uint64_t took);

struct prober *prober_new(struct loop *l, probe_fn fn, void *arg);
void prober_free(struct prober *p);
/* spec is copied. */
struct probe_target *prober_add(struct prober *p,
				const struct health_spec *spec,
				const struct ip *address, uint16_t port,
				enum health_state initial, void *user);
/*
 * Cheap when nothing is new, so always worth calling.  Where to probe: the old
 * probe is dropped, the new one starts at once.
 */
void probe_target_update(struct probe_target *t, const struct health_spec *spec,
			 const struct ip *address, uint16_t port);
/* A probe under way is dropped; NULL is fine. */
void probe_target_remove(struct probe_target *t);
void *probe_target_user(const struct probe_target *t);
struct health *probe_target_health(struct probe_target *t);
/* Probe now instead of waiting for the interval. */
void probe_target_kick(struct probe_target *t);

#endif
