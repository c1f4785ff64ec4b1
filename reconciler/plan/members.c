/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/internal.h"

bool service_has_family(const struct service_spec *s, int family)
{
	for (size_t i = 0; i < s->vip_count; i++)
		if (s->vips[i].address.family == family)
			return true;
	return false;
}

bool member_gone(const struct world_member *m)
{
	return m->finished || m->health == HEALTH_DEAD;
}

static bool reachable(const struct world_service *s,
		      const struct world_member *m)
{
	return (m->paths[0].known || !service_has_family(s->spec, AF_INET)) &&
	       (m->paths[1].known || !service_has_family(s->spec, AF_INET6));
}

/* Could take new flows, were its probes to pass. */
static bool usable(const struct world_service *s, const struct world_member *m)
{
	return m->weight && !m->drained && !m->leaving && !member_gone(m) &&
	       reachable(s, m);
}

/*
 * Members that pass their probes share the slots.  When none does, fail_open
 * keeps those that have passed before and are not known to be gone: a probe
 * that fails everywhere says more about the probe than about the backends.
 */
void members_eligible(const struct world_service *s, bool *eligible)
{
	size_t up = 0;

	for (size_t i = 0; i < s->member_count; i++) {
		const struct world_member *m = &s->members[i];

		eligible[i] = m->health == HEALTH_UP && usable(s, m);
		up += eligible[i];
	}
	if (up || s->spec->health.panic != PANIC_FAIL_OPEN)
		return;
	for (size_t i = 0; i < s->member_count; i++) {
		const struct world_member *m = &s->members[i];

		eligible[i] = m->health == HEALTH_DOWN && usable(s, m);
	}
}
