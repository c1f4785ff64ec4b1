/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backends and their probes.  A backend is probed in every family in which
 * its service has VIPs, since one slot table serves both: it is up when all
 * pass, dead only when all are.  Behind tunnels that is every family it has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

#define REASON_MAX 160

static enum health_state target_state(const struct member_run *run, int f)
{
	return probe_target_health(run->targets[f])->state;
}

static enum health_state worse(enum health_state a, enum health_state b)
{
	if (a == b)
		return a;
	if (a == HEALTH_JOINING || b == HEALTH_JOINING)
		return HEALTH_JOINING;
	return HEALTH_DOWN; /* also where one family is dead and one is not */
}

enum health_state probing_state(const struct member_run *run)
{
	if (run->targets[0] && run->targets[1])
		return worse(target_state(run, 0), target_state(run, 1));
	if (run->targets[0] || run->targets[1])
		return target_state(run, run->targets[0] ? 0 : 1);
	return run->id ? HEALTH_UP : HEALTH_JOINING;
}

static void record(struct member_run *run, enum health_state to,
		   const char *reason, uint64_t took)
{
	struct reconciler *r = run->r;
	struct store_health row = { .time_ms = clock_wall_ms(),
				    .probe_ms = (double)took / 1e6,
				    .service = run->service,
				    .backend = run->name,
				    .from_state = health_state_name(run->state),
				    .to_state = health_state_name(to),
				    .reason = reason };

	if (run->state == to)
		return;
	run->state = to;
	if (r->read_only)
		return;
	log_info("health",
		 "service=%s backend=%s from=%s to=%s reason=\"%s\" ms=%.1f",
		 run->service, run->name, row.from_state, row.to_state, reason,
		 row.probe_ms);
	if (r->store && store_add_health(r->store, &row))
		log_warn("history", "what=health result=lost");
}

/* "timeout", or of what says more by itself than its kind does, that too. */
static void say_reason(const struct probe_report *report, char *out,
		       size_t size)
{
	bool more = report->result == PROBE_FAILED && *report->detail;

	snprintf(out, size, "%s%s%s", probe_result_name(report->result),
		 more ? ": " : "", more ? report->detail : "");
}

static void forget_reason(struct member_run *run, int f)
{
	free(run->reason[f]);
	run->reason[f] = NULL;
}

/* Why it isn't up, for status. */
static void keep_reason(struct member_run *run, int f,
			const struct probe_report *report)
{
	char said[REASON_MAX];

	if (report->result == PROBE_PASS) {
		forget_reason(run, f);
		return;
	}
	snprintf(said, sizeof(said), "%s%s%s",
		 probe_result_name(report->result), *report->detail ? ": " : "",
		 report->detail);
	/* It says nothing of the backend, so nothing else would tell. */
	if (run->reason[f] && !strcmp(run->reason[f], said))
		return;
	if (report->result == PROBE_LOCAL_ERROR)
		log_warn("probe", "service=%s backend=%s reason=\"%s\"",
			 run->service, run->name, said);
	forget_reason(run, f);
	run->reason[f] = mem_dup(said);
}

void probing_result(void *arg, struct probe_target *t, const struct health *h,
		    const struct probe_report *report)
{
	struct member_run *run = probe_target_user(t);
	char reason[REASON_MAX];

	(void)h;
	keep_reason(run, t == run->targets[1], report);
	if (!report->changed)
		return;
	say_reason(report, reason, sizeof(reason));
	record(run, probing_state(run), reason, report->took);
	reconcile_soon(arg);
}

void probing_stop(struct member_run *run)
{
	for (int f = 0; f < 2; f++) {
		probe_target_remove(run->targets[f]);
		run->targets[f] = NULL;
		forget_reason(run, f);
	}
}

static bool probes_family(const struct service_spec *s,
			  const struct world_member *m, int f)
{
	int family = f ? AF_INET6 : AF_INET;

	if (m->addresses[f].family != family)
		return false;
	if (service_encapsulates(s))
		return true; /* either may be the outer one */
	for (size_t i = 0; i < s->vip_count; i++)
		if (s->vips[i].address.family == family)
			return true;
	return false;
}

void probing_update(struct member_run *run, const struct service_spec *s,
		    const struct world_member *m, bool alive)
{
	enum health_state initial = m->id ? HEALTH_UP : HEALTH_JOINING;
	struct prober *p = run->r->prober;
	struct probe_site site = { run->service, run->name, NULL };
	uint16_t port;

	if (!s || !alive || !p) {
		probing_stop(run);
		if (p && !alive && run->was_alive)
			record(run, HEALTH_DEAD, "gone", 0);
		run->was_alive = alive;
		return;
	}
	if (!run->was_alive)
		run->state = initial;
	run->was_alive = true;
	/* One hypervisor's silent VMs don't keep others' from joining. */
	if (run->vm && s->pool.hypervisor)
		site.lane = s->pool.hypervisor->name;
	port = s->health.port ? s->health.port
	       : m->port      ? m->port
			      : s->ports[0].target;
	for (int f = 0; f < 2; f++) {
		const struct ip *a = &m->addresses[f];

		if (!probes_family(s, m, f)) {
			probe_target_remove(run->targets[f]);
			run->targets[f] = NULL;
		} else if (run->targets[f]) {
			probe_target_update(run->targets[f], &s->health, a,
					    port);
		} else {
			run->targets[f] = prober_add(p, &site, &s->health, a,
						     port, initial, run);
		}
	}
}
