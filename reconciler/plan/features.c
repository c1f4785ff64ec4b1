/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the programs have to be made for: features that declared services use,
 * room for their slots, the length of a tick, and outer source addresses.
 */
#include <string.h>

#include "plan/internal.h"
#include "plan/ticks.h"

static uint32_t forwarding_feature(enum forwarding f)
{
	switch (f) {
	case FORWARDING_NAT:
		return XLB_FEATURE_NAT;
	case FORWARDING_DSR:
		return XLB_FEATURE_DSR;
	case FORWARDING_IPIP:
		return XLB_FEATURE_IPIP;
	case FORWARDING_GUE:
		return XLB_FEATURE_GUE;
	}
	return 0;
}

static uint32_t algorithm_feature(enum algorithm a)
{
	switch (a) {
	case ALGORITHM_SOURCE_HASH:
		return XLB_FEATURE_CLIENT_HASH;
	case ALGORITHM_ROUND_ROBIN:
	case ALGORITHM_WEIGHTED_ROUND_ROBIN:
		return XLB_FEATURE_SCHEDULE;
	case ALGORITHM_RANDOM:
		return XLB_FEATURE_RANDOM;
	case ALGORITHM_LEAST_CONNECTIONS:
	case ALGORITHM_LEAST_LOAD:
		return XLB_FEATURE_TWO_CHOICES;
	case ALGORITHM_MAGLEV:
	case ALGORITHM_COUNT:
		break;
	}
	return 0;
}

static uint32_t family_feature(int family)
{
	return family == AF_INET    ? XLB_FEATURE_V4
	       : family == AF_INET6 ? XLB_FEATURE_V6
				    : 0;
}

static uint32_t member_features(const struct service_spec *s,
				const struct world_member *m)
{
	uint32_t features = 0;

	for (int f = 0; f < 2; f++) {
		if (m->paths[f].vlan)
			features |= XLB_FEATURE_VLAN;
		if (service_encapsulates(s))
			features |= family_feature(m->addresses[f].family);
	}
	return features;
}

uint32_t features_needed(const struct spec *spec, const struct world *world)
{
	uint32_t features = 0;

	if (spec->node.interface_count > 1)
		features |= XLB_FEATURE_UPLINKS;
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct service_spec *s = &spec->services[i];

		features |= forwarding_feature(s->forwarding) |
			    algorithm_feature(s->algorithm);
		if (s->protocol == PROTOCOL_UDP && s->udp == UDP_STICKY)
			features |= XLB_FEATURE_STICKY;
		for (size_t k = 0; k < s->vip_count; k++)
			features |= family_feature(s->vips[k].address.family);
	}
	for (size_t i = 0; i < world->service_count; i++) {
		const struct world_service *s = &world->services[i];

		for (size_t k = 0; s->spec && k < s->member_count; k++)
			features |= member_features(s->spec, &s->members[k]);
	}
	return features;
}

const char *features_text(struct arena *a, uint32_t features)
{
	static const char *const names[] = {
		"ipv4",	  "ipv6",	 "nat",		"dsr",	  "ipip",
		"gue",	  "source_hash", "round_robin", "random", "least",
		"sticky", "vlan",	 "uplinks",
	};
	const char *text = "";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (features & 1u << i)
			text = arena_printf(a, "%s%s%s", text,
					    *text ? ", " : "", names[i]);
	if (features & XLB_FEATURE_TRACE)
		text = arena_printf(a, "%s%strace", text, *text ? ", " : "");
	return text;
}

/* ---- changes ---- */

static struct change *add(struct planning *p, enum change_kind kind,
			  enum change_action action, const char *object)
{
	struct change *c = planning_add(p, kind, action, object);

	change_from_file(p, c, &p->spec->node.src);
	return c;
}

static void plan_programs(struct planning *p)
{
	const struct world_kernel *k = &p->world->kernel;
	uint32_t needed = features_needed(p->spec, p->world);
	uint32_t missing = needed & ~k->features;
	bool full = p->slots_needed > k->slot_count;
	struct change *c;

	if (k->loaded && !missing && !full)
		return;
	c = add(p, k->loaded ? CHANGE_RELOAD : CHANGE_LOAD,
		k->loaded ? ACTION_CHANGE : ACTION_ADD, "node/programs");
	c->load.features = needed;
	c->load.slots = p->slots_needed;
	c->load.has_seed = p->spec->node.seed_file != NULL;
	c->load.seed = p->world->seed;
	if (!k->loaded)
		c->detail = "load programs and maps";
	else if (missing)
		c->detail =
			arena_printf(p->arena, "programs gain %s%s",
				     features_text(p->arena, missing),
				     full ? ", maps room for more slots" : "");
	else
		c->detail = "maps gain room for more slots";
	/* Found out from what is, and no repair. */
	if (k->loaded)
		c->drift = false;
}

/* Without them the next process would know nothing of this one's tables. */
static void plan_pins(struct planning *p)
{
	struct change *c;

	if (!p->world->kernel.loaded || !p->world->kernel.unpinned)
		return;
	c = planning_add(p, CHANGE_PINS, ACTION_ADD, "node/pins");
	c->detail = arena_printf(p->arena, "%zu pins of maps and programs",
				 p->world->kernel.unpinned);
	change_from_event(c, "they were removed");
	c->drift = true;
}

static void plan_tick(struct planning *p)
{
	struct change *c;

	if (p->world->kernel.loaded && p->world->kernel.tick == p->tick)
		return;
	c = add(p, CHANGE_TICK, ACTION_CHANGE, "node/tick");
	c->hidden = true;
	c->tick = p->tick;
}

static bool encapsulates(const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (service_encapsulates(&spec->services[i]))
			return true;
	return false;
}

static bool same_source(const struct world_kernel *k, const struct ip a[2])
{
	return k->source4 == a[0].words[0] &&
	       !memcmp(k->source6, a[1].words, sizeof(k->source6));
}

/* Without services that use them they may be what they were. */
static void plan_sources(struct planning *p)
{
	const struct ip *sources = p->sources;
	struct change *c;

	if (!encapsulates(p->spec) || (p->world->kernel.loaded &&
				       same_source(&p->world->kernel, sources)))
		return;
	c = add(p, CHANGE_SOURCES, ACTION_CHANGE, "node/sources");
	c->hidden = true;
	memcpy(c->sources, sources, sizeof(c->sources));
}

/* Every flow would go elsewhere, and no slot would know where it was. */
static void check_seed(struct planning *p)
{
	const struct world *w = p->world;
	const char *path = p->spec->node.seed_file;
	const struct source *src = &p->spec->node.src;
	enum severity severity = w->settled && w->kernel.loaded
					 ? SEVERITY_WARNING
					 : SEVERITY_ERROR;

	if (!path)
		return;
	if (w->seed_why)
		diag_add(&p->plan->diags, severity, src,
			 "put some random bytes into it, the same for all "
			 "balancers",
			 "the seed file %s can't be used: %s", path,
			 w->seed_why);
	else if (w->kernel.loaded && w->seed != w->kernel.flow_seed)
		diag_add(&p->plan->diags, severity, src,
			 "stop xlb, run `xlb-reconcile destroy`, and start it "
			 "again; or put the seed back",
			 "the tables were made with another seed than that in "
			 "%s, and every connection would move",
			 path);
}

void plan_load(struct planning *p)
{
	check_seed(p);
	plan_programs(p);
	plan_pins(p);
	plan_tick(p);
	plan_sources(p);
}
