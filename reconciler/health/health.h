/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Health of one backend: a pure state machine fed with probe results
 * (state.c), and the probes themselves, non-blocking on the loop (probe.c,
 * and a file for each family of kinds).
 */
#ifndef HEALTH_HEALTH_H
#define HEALTH_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
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
	PROBE_BAD_STATUS, /* of http, https; rcode of dns */
	PROBE_BAD_ANSWER, /* not the protocol, not what is expected, closed early */
	PROBE_BAD_CERTIFICATE, /* not to be trusted, or of another host */
	PROBE_TLS_ERROR, /* no TLS is spoken there, or none that we speak */
	PROBE_FAILED, /* the command's exit code isn't 0 */
	PROBE_LOCAL_ERROR, /* our own fault (no descriptors): says nothing */
	PROBE_RESULTS,
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
/*
 * When a probe is due that follows one of `last` (ns).  Joining: 50 ms later.
 * Else at the interval's next multiple, shifted by `phase` (any number: its
 * rest by the interval counts), so that each target keeps its own place in the
 * interval whatever happens; with up to 5 % of the interval's jitter either
 * way, out of `random` (0..UINT32_MAX).  Between half an interval and one and a
 * half after `last`.
 */
uint64_t health_next_due(const struct health *h, const struct health_spec *spec,
			 uint64_t last, uint64_t phase, uint32_t random);

/*
 * The prober: schedules and runs probes for any number of targets.  Results
 * are reported through fn on the loop's thread.
 */
struct prober;
struct probe_target; /* one backend being probed */

struct probe_report {
	enum probe_result result;
	const char *detail; /* more about it, one line: "503"; never NULL */
	bool changed; /* the health's state, by this result */
	uint64_t took; /* ns */
};
typedef void (*probe_fn)(void *arg, struct probe_target *t,
			 const struct health *h,
			 const struct probe_report *report);

/* Whose probe it is; strings are copied. */
struct probe_site {
	const char *service;
	const char *backend;
	const char *lane; /* at most 100 joining ones of a lane at a time */
};

struct prober *prober_new(struct loop *l, probe_fn fn, void *arg);
void prober_free(struct prober *p);
/* spec is copied. */
struct probe_target *prober_add(struct prober *p, const struct probe_site *site,
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

/*
 * Starts what is due, in the middle of work that takes long; results come only
 * from the loop, but for those of probes that can't even be started.
 */
void prober_turn(struct prober *p);

/* Lateness: from when a probe was due to when it began; of the last 10 to 20 s. */
struct prober_figures {
	size_t targets;
	size_t queued; /* wait for a place: joining ones, commands */
	uint64_t sent; /* probes since the start */
	uint64_t results[PROBE_RESULTS];
	double late_p99_ms, late_max_ms;
};
void prober_figures(const struct prober *p, struct prober_figures *ret);

#endif
