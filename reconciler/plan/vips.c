/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIP table and the way back: whole sets, compared with what the kernel
 * holds and written only when something differs.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static struct xlb_vip make_vip(const struct service_spec *s, const struct ip *a,
			       const struct port_spec *port,
			       const struct xlb_service *k, uint32_t id)
{
	struct xlb_vip v = { 0 };

	memcpy(v.addr, a->bytes, sizeof(v.addr));
	v.port = htons(port->listen);
	v.target_port = htons(port->target);
	v.proto = s->protocol == PROTOCOL_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	v.family = a->family == AF_INET ? 4 : 6;
	v.service = (uint16_t)id;
	v.addr_sum = ip_sum(a);
	v.port_sum = fold((uint16_t)~v.port + (uint32_t)v.target_port);
	v.forwarding = s->forwarding == FORWARDING_NAT ? XLB_NAT : XLB_DSR;
	v.slot_shift = (uint8_t)(32 - k->slot_log2);
	v.slot_base = k->slot_base;
	if (s->algorithm == ALGORITHM_ROUND_ROBIN)
		v.flags |= XLB_VIP_ROUND_ROBIN;
	return v;
}

struct vip_set {
	struct xlb_vip *items;
	size_t count;
};

static void add_service_vips(struct planning *p, struct vip_set *set,
			     size_t index)
{
	const struct world_service *s = &p->world->services[index];
	const struct compiled *k = &p->compiled[index];

	if (!k->kernel)
		return;
	for (size_t i = 0; i < s->spec->vip_count; i++)
		for (size_t n = 0; n < s->spec->port_count; n++)
			*ARENA_PUSH(p->arena, set->items, set->count) =
				make_vip(s->spec, &s->spec->vips[i].address,
					 &s->spec->ports[n], k->kernel, k->id);
}

static int compare_vip(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct xlb_vip));
}

static struct vip_set kernel_vips(struct planning *p)
{
	struct vip_set set = { 0 };

	for (uint32_t i = 0; p->world->kernel.loaded && i < XLB_VIP_LINES; i++)
		if (p->world->kernel.vips[i].proto)
			*ARENA_PUSH(p->arena, set.items, set.count) =
				p->world->kernel.vips[i];
	if (set.count)
		qsort(set.items, set.count, sizeof(*set.items), compare_vip);
	return set;
}

static size_t vips_of(const struct vip_set *set, uint32_t id)
{
	size_t n = 0;

	for (size_t i = 0; i < set->count; i++)
		n += set->items[i].service == id;
	return n;
}

static bool same_vips(const struct vip_set *a, const struct vip_set *b,
		      uint32_t id)
{
	size_t i = 0, k = 0;

	for (;; i++, k++) {
		while (i < a->count && a->items[i].service != id)
			i++;
		while (k < b->count && b->items[k].service != id)
			k++;
		if (i == a->count || k == b->count)
			return i == a->count && k == b->count;
		if (compare_vip(&a->items[i], &b->items[k]))
			return false;
	}
}

static const char *describe(struct planning *p, const struct service_spec *s)
{
	char text[IP_STRLEN];

	return arena_printf(p->arena, "%s%s port %u %s, %s, %s",
			    ip_format(&s->vips[0].address, text),
			    s->vip_count > 1 ? " and more" : "",
			    s->ports[0].listen, protocol_name(s->protocol),
			    algorithm_name(s->algorithm),
			    forwarding_name(s->forwarding));
}

/* One visible line a service whose VIPs differ; the flip itself is hidden. */
static void show_service(struct planning *p, size_t index,
			 const struct vip_set *want, const struct vip_set *have)
{
	const struct world_service *s = &p->world->services[index];
	uint32_t id = p->compiled[index].id;
	struct change *c;

	if (!id || same_vips(want, have, id))
		return;
	c = planning_add(p, CHANGE_SHOW,
			 vips_of(have, id) ? ACTION_CHANGE : ACTION_ADD,
			 arena_printf(p->arena, "service.%s", s->name));
	c->service = s->name;
	c->detail = describe(p, s->spec);
	change_from_file(p, c, &s->spec->src);
}

static void flip_vips(struct planning *p, const struct vip_set *want,
		      const struct vip_set *have)
{
	struct vip_table *t;
	struct change *c;
	int err;

	if (want->count == have->count &&
	    (!want->count || !memcmp(want->items, have->items,
				     want->count * sizeof(*want->items))))
		return;
	for (size_t i = 0; i < p->world->service_count; i++)
		show_service(p, i, want, have);
	t = arena_alloc(p->arena, sizeof(*t));
	err = vip_table_build(want->items, want->count,
			      0x9e3779b97f4a7c15ULL + want->count, t);
	if (err) {
		diag_add(&p->plan->diags, SEVERITY_ERROR, NULL, NULL,
			 "the VIP table can't be built (%d)", err);
		return;
	}
	c = planning_add(p, CHANGE_VIPS, ACTION_CHANGE, "node/vips");
	c->hidden = true;
	c->vips = t;
}

struct reply_set {
	struct reply_entry *items;
	size_t count;
};

static void add_reply(struct planning *p, struct reply_set *set,
		      const struct xlb_vip *v, const struct world_member *m,
		      uint32_t backend)
{
	const struct ip *a = &m->addresses[v->family == 6];
	struct reply_entry *e;

	if (!a->family)
		return;
	e = ARENA_PUSH(p->arena, set->items, set->count);
	memcpy(e->key.addr, a->bytes, sizeof(e->key.addr));
	e->key.port = m->port ? htons(m->port) : v->target_port;
	e->key.proto = v->proto;
	e->key.family = v->family;
	memcpy(e->value.addr, v->addr, sizeof(e->value.addr));
	e->value.port = v->port;
	e->value.service = v->service;
	e->value.backend = backend;
}

static int compare_reply(const void *a, const void *b)
{
	const struct reply_entry *x = a, *y = b;
	int c = memcmp(&x->key, &y->key, sizeof(x->key));

	return c ? c : memcmp(&x->value, &y->value, sizeof(x->value));
}

static void service_replies(struct planning *p, struct reply_set *set,
			    size_t index)
{
	const struct world_service *s = &p->world->services[index];
	struct vip_set vips = { 0 };

	add_service_vips(p, &vips, index);
	for (size_t i = 0; vips.count && i < s->member_count; i++) {
		uint32_t id = p->compiled[index].ids[i];

		for (size_t v = 0; id && v < vips.count; v++)
			add_reply(p, set, &vips.items[v], &s->members[i], id);
	}
}

static void plan_replies(struct planning *p)
{
	struct reply_set set = { 0 };
	struct change *c;

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (s->spec && s->spec->forwarding == FORWARDING_NAT)
			service_replies(p, &set, i);
	}
	if (set.count)
		qsort(set.items, set.count, sizeof(*set.items), compare_reply);
	if (set.count == p->world->reply_count &&
	    (!set.count || !memcmp(set.items, p->world->replies,
				   set.count * sizeof(*set.items))))
		return;
	c = planning_add(p, CHANGE_REPLIES, ACTION_CHANGE, "node/replies");
	c->hidden = true;
	c->replies.items = set.items;
	c->replies.count = set.count;
}

void plan_vips(struct planning *p)
{
	struct vip_set have = kernel_vips(p), want = { 0 };

	for (size_t i = 0; i < p->world->service_count; i++)
		add_service_vips(p, &want, i);
	if (want.count)
		qsort(want.items, want.count, sizeof(*want.items), compare_vip);
	flip_vips(p, &want, &have);
	plan_replies(p);
}
