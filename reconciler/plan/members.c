/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/internal.h"

bool service_has_family(const struct service_spec *s, int family)
{
	for (size_t i = 0; i < s->vip_count; i++)
		if (s->vips[i].address.family == family)
			return true;
	return false;
}

bool service_encapsulates(const struct service_spec *s)
{
	return s->forwarding == FORWARDING_IPIP ||
	       s->forwarding == FORWARDING_GUE;
}

bool service_picks(const struct service_spec *s)
{
	return s->algorithm != ALGORITHM_MAGLEV &&
	       s->algorithm != ALGORITHM_SOURCE_HASH;
}

bool member_gone(const struct world_member *m)
{
	return m->finished || m->health == HEALTH_DEAD;
}

/* A next hop that was known once is good until probes say otherwise. */
static bool has_next_hop(const struct world_kernel *k,
			 const struct world_member *m, int family)
{
	const struct xlb_backend *line;

	if (m->paths[family == AF_INET6].known)
		return true;
	if (!k->loaded || !m->id)
		return false;
	line = &k->backends[m->id];
	return family == AF_INET6 ? line->l2_v6[0] || line->l2_v6[1]
				  : line->l2_v4[0] || line->l2_v4[1];
}

/*
 * What is leaving may lack a family that the service has only now.  An outer
 * header may be of either family, whatever the inner one is.
 */
static bool reachable(const struct world_kernel *k,
		      const struct world_service *s,
		      const struct world_member *m)
{
	static const int families[] = { AF_INET, AF_INET6 };
	bool outer = service_encapsulates(s->spec);
	size_t needed = 0, known = 0;

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		if (!outer && !service_has_family(s->spec, families[i]))
			continue;
		needed++;
		known += has_next_hop(k, m, families[i]);
	}
	return m->leaving || outer ? known > 0 : known == needed;
}

/* Could take new flows, were its probes to pass. */
static bool usable(const struct world_kernel *k, const struct world_service *s,
		   const struct world_member *m)
{
	return m->weight && !m->drained && !member_gone(m) &&
	       reachable(k, s, m);
}

static size_t choose(const struct world_kernel *k,
		     const struct world_service *s, enum health_state health,
		     bool leaving, bool *eligible)
{
	size_t n = 0;

	for (size_t i = 0; i < s->member_count; i++) {
		const struct world_member *m = &s->members[i];

		eligible[i] = !m->sorry && m->health == health &&
			      m->leaving == leaving && (m->id || !leaving) &&
			      usable(k, s, m);
		n += eligible[i];
	}
	return n;
}

static bool serves(const struct world_kernel *k, const struct world_member *m)
{
	return k->loaded && m->id &&
	       !(k->backends[m->id].flags & XLB_BACKEND_LEAVING);
}

/*
 * Not for the moment that a new backend takes to pass its first probe: a
 * client's second SYN finds that one.  But what serves stays.
 */
static bool may_wait(const struct world_kernel *k,
		     const struct world_service *s)
{
	bool fresh = false;

	for (size_t i = 0; i < s->member_count; i++) {
		const struct world_member *m = &s->members[i];

		if (m->sorry && serves(k, m))
			return false;
		fresh |= m->fresh && !m->sorry && !m->drained && m->weight;
	}
	return fresh;
}

static void choose_sorry(const struct world_kernel *k,
			 const struct world_service *s, bool *eligible)
{
	if (may_wait(k, s))
		return;
	for (size_t i = 0; i < s->member_count; i++)
		eligible[i] =
			s->members[i].sorry && usable(k, s, &s->members[i]);
}

/*
 * Members that pass their probes share the slots.  When none does, those that
 * are leaving go on until another has come: an edit that replaces every
 * backend must not leave a gap.  When they fail too, fail_open keeps those
 * that have passed before and are not known to be gone: a probe that fails
 * everywhere says more about the probe than about the backends.  The sorry
 * backend comes last of all, and leaves as any other does when it isn't
 * needed any more.
 */
void members_eligible(const struct world_kernel *k,
		      const struct world_service *s, bool *eligible)
{
	if (choose(k, s, HEALTH_UP, false, eligible) ||
	    choose(k, s, HEALTH_UP, true, eligible))
		return;
	if (s->spec->health.panic == PANIC_FAIL_OPEN &&
	    choose(k, s, HEALTH_DOWN, false, eligible))
		return;
	choose_sorry(k, s, eligible);
}
