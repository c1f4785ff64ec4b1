/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which ids a service's backends have, and what stands in their lines. */
#include <string.h>

#include "plan/internal.h"

static const char *backend_object(const struct compile *c, const char *name)
{
	return arena_printf(c->p->arena, "service.%s/backend/%s", c->s->name,
			    name);
}

static void set_next_hop(__u64 words[2], const struct world_path *path)
{
	uint8_t *b = (uint8_t *)words;
	uint32_t ifindex = (uint32_t)path->port_ifindex;

	memcpy(b, path->dst_mac, 6);
	memcpy(b + 6, path->src_mac, 6);
	memcpy(b + 12, &ifindex, 4);
}

static bool find_uplink(const struct planning *p, int ifindex)
{
	const struct world_interface *in = world_interface(p->world, ifindex);

	for (size_t i = 0; in && i < p->spec->node.interface_count; i++)
		if (!strcmp(in->name, p->spec->node.interfaces[i].name))
			return true;
	return false;
}

/* Most backends are behind the same port. */
static bool is_uplink_index(struct planning *p, int ifindex)
{
	if (!ifindex || ifindex != p->asked_ifindex) {
		p->asked_ifindex = ifindex;
		p->asked_uplink = find_uplink(p, ifindex);
	}
	return p->asked_uplink;
}

/* Who it is; where it is reached is still missing. */
static struct xlb_backend empty_line(const struct world_member *m)
{
	struct xlb_backend line = { 0 };

	line.port = m->port ? htons(m->port) : 0;
	memcpy(&line.addr4, m->addresses[0].bytes, 4);
	memcpy(line.addr6, m->addresses[1].bytes, 16);
	line.sum4 = m->addresses[0].family ? ip_sum(&m->addresses[0]) : 0;
	line.sum6 = m->addresses[1].family ? ip_sum(&m->addresses[1]) : 0;
	return line;
}

/*
 * Whether its port is known to take frames, kernels before 6.3 don't say.  A
 * packet that keeps the VIP can't go by the host's stack, so it is sent back by
 * the interface that it came in by all the same.
 */
static uint8_t way_out(const struct compile *c, const struct world_path *path)
{
	bool uplink = is_uplink_index(c->p, path->port_ifindex);

	if (path->stack &&
	    (!uplink || c->s->spec->forwarding == FORWARDING_NAT))
		return XLB_BACKEND_STACK;
	return uplink ? XLB_BACKEND_TX : 0;
}

/* The line a member should have; next hops that aren't known stay as in old. */
static struct xlb_backend make_line(const struct compile *c, size_t i,
				    const struct xlb_backend *old, bool fresh)
{
	const struct world_member *m = &c->s->members[i];
	struct xlb_backend line = empty_line(m);
	uint16_t mtu = 0;

	line.generation = old ? (uint8_t)(old->generation + fresh) : 1;
	for (int f = 0; f < 2; f++) {
		const struct world_path *path = &m->paths[f];
		__u64 *words = f ? line.l2_v6 : line.l2_v4;

		if (!path->known) {
			if (old && !fresh)
				memcpy(words, f ? old->l2_v6 : old->l2_v4, 16);
			continue;
		}
		set_next_hop(words, path);
		if (!mtu || path->mtu < mtu)
			mtu = path->mtu;
		if (path->vlan)
			line.vlan = path->vlan;
		line.flags |= way_out(c, path);
	}
	line.mtu = mtu;
	if (!mtu && old && !fresh) {
		line.mtu = old->mtu;
		line.flags = old->flags;
		line.vlan = old->vlan;
	}
	line.flags &= (uint8_t)~XLB_BACKEND_LEAVING;
	if (!c->eligible[i])
		line.flags |= XLB_BACKEND_LEAVING;
	return line;
}

/* The slots say who joins and who leaves. */
static bool looks_alike(const struct xlb_backend *a,
			const struct xlb_backend *b)
{
	struct xlb_backend x = *a, y = *b;

	x.flags &= (uint8_t)~XLB_BACKEND_LEAVING;
	y.flags &= (uint8_t)~XLB_BACKEND_LEAVING;
	return !memcmp(&x, &y, sizeof(x));
}

/* What is only remembered stays what it was. */
static struct xlb_owner make_owner(const struct compile *c,
				   const struct world_member *m,
				   const struct world_owner *old)
{
	struct xlb_owner owner = { 0 };

	if (old && !m->fixed && !m->vm)
		return old->owner;
	strncpy(owner.name, m->name, XLB_NAME_MAX - 1);
	owner.service = c->service_id;
	owner.kind = m->fixed ? XLB_OWNER_FIXED : XLB_OWNER_VM;
	owner.weight = (uint16_t)m->weight;
	return owner;
}

static const struct source *member_source(const struct compile *c,
					  const struct world_member *m)
{
	if (m->fixed)
		return &m->fixed->src;
	if (c->s->spec->pool.template)
		return &c->s->spec->pool.src;
	return &c->s->spec->src;
}

static void say_joined(struct compile *c, const struct world_member *m,
		       struct change *ch)
{
	ch->detail = arena_printf(c->p->arena, "weight %u", m->weight);
	if (m->sorry)
		change_from_event(ch, "no other backend can serve");
	else if (m->fixed && !c->p->world->settled)
		change_from_file(c->p, ch, &m->fixed->src);
	else
		change_from_event(ch, m->fixed ? "passes its probes"
					       : "passed its first probe");
}

static void say_changed(struct compile *c, const struct world_member *m,
			const struct xlb_backend *old, uint32_t old_weight,
			struct change *ch)
{
	const struct source *src = member_source(c, m);

	if (ch->backend.owner.weight != old_weight) {
		ch->detail = arena_printf(c->p->arena, "weight %u -> %u",
					  old_weight, m->weight);
		if (!c->reweighted)
			c->reweighted = src;
		change_from_file(c->p, ch, src);
	} else if (ch->backend.line.port != old->port) {
		ch->detail = arena_printf(c->p->arena, "port %u -> %u",
					  ntohs(old->port), m->port);
		change_from_file(c->p, ch, src);
	} else {
		ch->detail = "next hop";
		change_from_event(ch, "next hop changed");
		/* What is in the tables has one. */
		ch->drift = c->p->world->settled && !old->l2_v4[0] &&
			    !old->l2_v6[0];
	}
}

static void set_backend(struct compile *c, size_t i, bool fresh)
{
	const struct world_member *m = &c->s->members[i];
	const struct world_kernel *k = &c->p->world->kernel;
	static const struct xlb_backend empty;
	const struct xlb_backend *old =
		k->loaded ? &k->backends[c->ids[i]] : NULL;
	const struct world_owner *had =
		fresh ? NULL : owner_find(c->p->world, c->ids[i]);
	struct xlb_backend line = make_line(c, i, old, fresh);
	struct xlb_owner owner = make_owner(c, m, had);
	struct change *ch;

	if (old && had && !memcmp(&line, old, sizeof(line)) &&
	    !memcmp(&owner, &had->owner, sizeof(owner)))
		return;
	ch = planning_add(c->p, CHANGE_BACKEND_SET,
			  fresh ? ACTION_ADD : ACTION_CHANGE,
			  backend_object(c, m->name));
	ch->service = c->s->name;
	ch->name = m->name;
	ch->id = c->ids[i];
	ch->backend.owner = owner;
	ch->backend.line = line;
	ch->hidden = old && had && looks_alike(&line, old) &&
		     !memcmp(&owner, &had->owner, sizeof(owner));
	if (fresh)
		say_joined(c, m, ch);
	else
		say_changed(c, m, old ? old : &empty,
			    had ? had->owner.weight : 0, ch);
}

static void clear_backend(struct compile *c, size_t i)
{
	const struct world_member *m = &c->s->members[i];
	struct change *ch =
		planning_add(c->p, CHANGE_BACKEND_CLEAR, ACTION_DESTROY,
			     backend_object(c, m->name));

	ch->service = c->s->name;
	ch->name = m->name;
	ch->id = m->id;
	change_from_event(ch, m->finished ? "drained"
			      : m->fixed  ? "refuses connections"
					  : "gone");
	c->need_slots = true;
}

/* An edit whose effect needs time is said all the same. */
static void say_waiting(struct compile *c, const struct world_member *m)
{
	bool joins = !m->id && m->fixed && m->weight && !m->drained &&
		     !member_gone(m);
	bool leaves = m->id && m->leaving && !m->vm && !member_gone(m);
	struct change *ch;

	if (c->p->world->settled || (!joins && !leaves))
		return;
	ch = planning_add(c->p, CHANGE_SHOW,
			  joins ? ACTION_ADD : ACTION_DESTROY,
			  backend_object(c, m->name));
	ch->service = c->s->name;
	ch->name = m->name;
	ch->waits = true;
	ch->detail = m->sorry ? "stands by"
		     : joins  ? arena_printf(c->p->arena,
					     "weight %u, once a probe passes",
					     m->weight)
			      : "drains first";
	change_from_file(c->p, ch, joins ? &m->fixed->src : &c->s->spec->src);
}

static bool any_quarantined(const struct world_kernel *k)
{
	for (size_t i = 0; i < k->owner_count; i++)
		if (k->owners[i].owner.kind == XLB_OWNER_QUARANTINE)
			return true;
	return false;
}

/* Ids in quarantine will be free soon, and then there is another pass. */
static bool give_id(struct compile *c, size_t i)
{
	c->ids[i] = take_backend_id(c->p);
	if (c->ids[i]) {
		set_backend(c, i, true);
		return true;
	}
	if (any_quarantined(&c->p->world->kernel)) {
		c->eligible[i] = false;
		return true;
	}
	diag_add(&c->p->plan->diags, SEVERITY_ERROR, &c->s->spec->src, NULL,
		 "no backend id is free");
	return false;
}

bool plan_backends(struct compile *c)
{
	for (size_t i = 0; i < c->s->member_count; i++) {
		const struct world_member *m = &c->s->members[i];

		c->ids[i] = m->id;
		if (!m->id && c->eligible[i]) {
			if (!give_id(c, i))
				return false;
			continue;
		}
		if (m->id && member_gone(m))
			clear_backend(c, i);
		else if (m->id)
			set_backend(c, i, false);
		say_waiting(c, m);
	}
	return true;
}

void plan_orphan_ids(struct planning *p)
{
	const struct world_kernel *k = &p->world->kernel;

	for (size_t i = 0; i < k->owner_count; i++) {
		const struct world_owner *o = &k->owners[i];
		struct change *c;

		if (o->owner.kind == XLB_OWNER_QUARANTINE ||
		    (o->owner.service < XLB_SERVICES &&
		     k->services[o->owner.service].name[0]))
			continue;
		c = planning_add(p, CHANGE_BACKEND_CLEAR, ACTION_DESTROY,
				 arena_printf(p->arena, "node/backend/%s",
					      o->owner.name));
		c->service = "";
		c->name = o->owner.name;
		c->id = o->id;
		c->hidden = true;
		change_from_event(c, "its service was never finished");
	}
}
