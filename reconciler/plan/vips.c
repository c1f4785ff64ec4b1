/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VIP table and the way back: whole sets, compared with what the kernel
 * holds and written only when something differs.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"
#include "plan/ticks.h"

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint8_t forwarding_of(const struct service_spec *s)
{
	switch (s->forwarding) {
	case FORWARDING_NAT:
		return XLB_NAT;
	case FORWARDING_DSR:
		return XLB_DSR;
	case FORWARDING_IPIP:
		return XLB_IPIP;
	case FORWARDING_GUE:
		return XLB_GUE;
	}
	return XLB_NAT;
}

/* Whose slots, new flows' and unknown ones', as tables.c has decided. */
static uint16_t client_flags(const struct xlb_service *k)
{
	return (k->flags & XLB_SERVICE_CLIENT_HASH ? XLB_VIP_CLIENT_HASH : 0) |
	       (k->flags & XLB_SERVICE_CLIENT_OLD ? XLB_VIP_CLIENT_OLD : 0);
}

static uint16_t vip_flags(const struct service_spec *s)
{
	uint16_t flags = 0;

	/* Whatever the algorithm is now: the next one may count. */
	if (s->protocol == PROTOCOL_TCP)
		flags = XLB_VIP_COUNTED;
	else if (s->udp == UDP_STICKY)
		flags = XLB_VIP_STICKY;
	switch (s->algorithm) {
	case ALGORITHM_MAGLEV:
	case ALGORITHM_SOURCE_HASH:
	case ALGORITHM_COUNT:
		break;
	case ALGORITHM_ROUND_ROBIN:
	case ALGORITHM_WEIGHTED_ROUND_ROBIN:
		return flags | XLB_VIP_SCHEDULE;
	case ALGORITHM_RANDOM:
		return flags | XLB_VIP_RANDOM;
	case ALGORITHM_LEAST_CONNECTIONS:
	case ALGORITHM_LEAST_LOAD:
		return flags | XLB_VIP_TWO_CHOICES;
	}
	return flags;
}

static struct xlb_vip make_vip(const struct planning *p,
			       const struct service_spec *s, const struct ip *a,
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
	v.forwarding = forwarding_of(s);
	v.slot_shift = (uint8_t)(32 - k->slot_log2);
	v.slot_base = k->slot_base;
	v.flags = vip_flags(s) | client_flags(k);
	if (v.flags & XLB_VIP_SCHEDULE) {
		v.schedule_base = k->schedule_base;
		v.schedule_shift = (uint8_t)(32 - k->schedule_log2);
	}
	if (v.flags & XLB_VIP_CLIENT_HASH)
		v.affinity_ticks =
			(uint8_t)(ticks_of(s->affinity_timeout, p->tick) + 1);
	return v;
}

struct vip_set {
	struct xlb_vip *items;
	size_t count;
};

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

/* A service that was refused keeps what it has. */
static void keep_vips(struct planning *p, struct vip_set *set,
		      const struct vip_set *have, uint32_t id)
{
	for (size_t i = 0; id && i < have->count; i++)
		if (have->items[i].service == id)
			*ARENA_PUSH(p->arena, set->items, set->count) =
				have->items[i];
}

static void add_service_vips(struct planning *p, struct vip_set *set,
			     size_t index)
{
	const struct world_service *s = &p->world->services[index];
	const struct compiled *k = &p->compiled[index];

	for (size_t i = 0; k->kernel && i < s->spec->vip_count; i++)
		for (size_t n = 0; n < s->spec->port_count; n++)
			*ARENA_PUSH(p->arena, set->items, set->count) =
				make_vip(p, s->spec, &s->spec->vips[i].address,
					 &s->spec->ports[n], k->kernel, k->id);
}

/* ---- what differs, for people ---- */

static int by_service(const void *a, const void *b)
{
	const struct xlb_vip *x = a, *y = b;
	int c = (int)x->service - (int)y->service;

	return c ? c : compare_vip(a, b);
}

/* The VIPs of one service in a set that is sorted by service. */
static struct vip_set vips_of(const struct vip_set *set, uint32_t id)
{
	size_t lo = 0, hi = set->count;
	struct vip_set ret = { 0 };

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (set->items[mid].service < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	ret.items = set->items + lo;
	while (lo + ret.count < set->count &&
	       ret.items[ret.count].service == id)
		ret.count++;
	return ret;
}

static struct vip_set sort_by_service(struct planning *p,
				      const struct vip_set *set)
{
	struct vip_set ret = { .count = set->count };

	ret.items =
		arena_alloc(p->arena, (set->count + 1) * sizeof(*ret.items));
	if (set->count) {
		memcpy(ret.items, set->items, set->count * sizeof(*ret.items));
		qsort(ret.items, ret.count, sizeof(*ret.items), by_service);
	}
	return ret;
}

static bool has_triple(const struct vip_set *set, const struct xlb_vip *v)
{
	for (size_t i = 0; i < set->count; i++)
		if (!memcmp(set->items[i].addr, v->addr, sizeof(v->addr)) &&
		    set->items[i].port == v->port &&
		    set->items[i].proto == v->proto)
			return true;
	return false;
}

static struct ip vip_address(const struct xlb_vip *v)
{
	struct ip a = { .family = v->family == 4 ? AF_INET : AF_INET6 };

	memcpy(a.bytes, v->addr, sizeof(v->addr));
	return a;
}

static const char *describe(struct arena *a, const struct service_spec *s)
{
	char text[IP_STRLEN];

	return arena_printf(a, "%s%s port %u %s, %s, %s",
			    ip_format(&s->vips[0].address, text),
			    s->vip_count > 1 ? " and more" : "",
			    s->ports[0].listen, protocol_name(s->protocol),
			    algorithm_name(s->algorithm),
			    forwarding_name(s->forwarding));
}

/* "+ 192.0.2.11 port 80": those of `a` that `b` hasn't. */
static const char *list_missing(struct arena *arena, const char *text,
				const char *sign, const struct vip_set *a,
				const struct vip_set *b)
{
	size_t said = 0;

	for (size_t i = 0; i < a->count; i++) {
		struct ip ip = vip_address(&a->items[i]);
		char address[IP_STRLEN];

		if (has_triple(b, &a->items[i]) || said++ >= 3)
			continue;
		text = arena_printf(arena, "%s%s%s%s port %u", text,
				    *text ? ", " : "", sign,
				    ip_format(&ip, address),
				    ntohs(a->items[i].port));
	}
	if (said > 3)
		text = arena_printf(arena, "%s and %zu more", text, said - 3);
	return text;
}

/* Where the file says what is new, or else the service. */
static const struct source *vip_source(const struct service_spec *s,
				       const struct vip_set *want,
				       const struct vip_set *have)
{
	for (size_t i = 0; i < want->count; i++) {
		struct ip a = vip_address(&want->items[i]);
		bool known = false;

		if (has_triple(have, &want->items[i]))
			continue;
		for (size_t k = 0; k < have->count; k++)
			known |= !memcmp(have->items[k].addr,
					 want->items[i].addr,
					 sizeof(have->items[k].addr));
		for (size_t k = 0; !known && k < s->vip_count; k++)
			if (ip_equal(&s->vips[k].address, &a))
				return &s->vips[k].src;
		for (size_t k = 0; k < s->port_count; k++)
			if (htons(s->ports[k].listen) == want->items[i].port)
				return &s->ports[k].src;
	}
	return &s->src;
}

static const char *say_difference(struct arena *a, const struct service_spec *s,
				  const struct vip_set *want,
				  const struct vip_set *have)
{
	const char *text = list_missing(a, "", "+ ", want, have);

	text = list_missing(a, text, "- ", have, want);
	return *text ? text : describe(a, s);
}

void say_service_again(struct arena *a, struct change *c)
{
	struct vip_set want = { (struct xlb_vip *)c->sets.want,
				c->sets.want_count };
	struct vip_set base = { (struct xlb_vip *)c->base->sets.want,
				c->base->sets.want_count };

	c->detail = say_difference(a, c->spec, &want, &base);
}

static void say_vips(struct planning *p, const struct world_service *s,
		     const struct vip_set *want, const struct vip_set *have,
		     struct change *c)
{
	c->detail = s->id ? say_difference(p->arena, s->spec, want, have)
			  : describe(p->arena, s->spec);
	change_from_file(
		p, c, s->id ? vip_source(s->spec, want, have) : &s->spec->src);
}

/*
 * Where the slots stand is nobody's concern; their change says it.  Nor is
 * how the flows of before an edit are found.
 */
static bool looks_alike(const struct vip_set *a, const struct vip_set *b)
{
	for (size_t i = 0; a->count == b->count && i < a->count; i++) {
		struct xlb_vip x = a->items[i], y = b->items[i];

		x.slot_base = y.slot_base;
		x.slot_shift = y.slot_shift;
		x.flags &= (uint16_t)~XLB_VIP_CLIENT_OLD;
		y.flags &= (uint16_t)~XLB_VIP_CLIENT_OLD;
		if (x.flags & y.flags & XLB_VIP_SCHEDULE) {
			x.schedule_base = y.schedule_base;
			x.schedule_shift = y.schedule_shift;
		}
		if (compare_vip(&x, &y))
			return false;
	}
	return a->count == b->count;
}

/* One visible line a service whose VIPs differ; the flip itself is hidden. */
static void show_service(struct planning *p, size_t index,
			 const struct vip_set *all_want,
			 const struct vip_set *all_have)
{
	const struct world_service *s = &p->world->services[index];
	uint32_t id = p->compiled[index].id;
	struct vip_set want = vips_of(all_want, id);
	struct vip_set have = vips_of(all_have, id);
	struct change *c;

	if (!id || looks_alike(&want, &have))
		return;
	c = planning_add(p, CHANGE_SHOW, s->id ? ACTION_CHANGE : ACTION_ADD,
			 arena_printf(p->arena, "service.%s", s->name));
	c->service = s->name;
	c->spec = s->spec;
	c->id = s->id;
	c->sets.want = want.items;
	c->sets.want_count = want.count;
	c->sets.have = have.items;
	c->sets.have_count = have.count;
	say_vips(p, s, &want, &have, c);
}

static void show_services(struct planning *p, const struct vip_set *want,
			  const struct vip_set *have)
{
	struct vip_set a = sort_by_service(p, want);
	struct vip_set b = sort_by_service(p, have);

	for (size_t i = 0; i < p->world->service_count; i++)
		show_service(p, i, &a, &b);
}

static void flip_vips(struct planning *p, const struct vip_set *want,
		      const struct vip_set *have)
{
	struct vip_table *t;
	struct change *c;
	int err;

	if (want->count == have->count && !p->world->kernel.vips_damaged &&
	    (!want->count || !memcmp(want->items, have->items,
				     want->count * sizeof(*want->items))))
		return;
	show_services(p, want, have);
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

/* ---- the way back ---- */

struct reply {
	struct reply_entry entry;
	bool leaving;
};

struct reply_set {
	struct reply *items;
	size_t count;
};

static void add_reply(struct planning *p, struct reply_set *set,
		      const struct xlb_vip *v, const struct world_member *m,
		      uint32_t backend)
{
	const struct ip *a = &m->addresses[v->family == 6];
	struct reply_entry *e;
	struct reply *r;

	if (!a->family)
		return;
	r = ARENA_PUSH(p->arena, set->items, set->count);
	r->leaving = m->leaving;
	e = &r->entry;
	memcpy(e->key.addr, a->bytes, sizeof(e->key.addr));
	e->key.port = m->port ? htons(m->port) : v->target_port;
	e->key.proto = v->proto;
	e->key.family = v->family;
	memcpy(e->value.addr, v->addr, sizeof(e->value.addr));
	e->value.port = v->port;
	e->value.service = v->service;
	e->value.backend = backend;
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

/* A service that was refused keeps what it has. */
static void keep_replies(struct planning *p, struct reply_set *set, uint32_t id)
{
	for (size_t i = 0; id && i < p->world->reply_count; i++)
		if (p->world->replies[i].value.service == id)
			ARENA_PUSH(p->arena, set->items, set->count)->entry =
				p->world->replies[i];
}

static int compare_reply(const void *a, const void *b)
{
	const struct reply *x = a, *y = b;
	int c = memcmp(&x->entry.key, &y->entry.key, sizeof(x->entry.key));

	if (!c)
		c = (int)x->leaving - (int)y->leaving;
	return c ? c
		 : memcmp(&x->entry.value, &y->entry.value,
			  sizeof(x->entry.value));
}

/*
 * One entry a key.  Two want it when a backend got another name or went to
 * another service and the old one still drains: the one that stays has it.
 */
static size_t make_unique(struct planning *p, struct reply_set *set,
			  struct reply_entry **ret)
{
	struct reply_entry *out =
		arena_alloc(p->arena, (set->count + 1) * sizeof(*out));
	size_t n = 0;

	if (set->count)
		qsort(set->items, set->count, sizeof(*set->items),
		      compare_reply);
	for (size_t i = 0; i < set->count; i++)
		if (!n || memcmp(&out[n - 1].key, &set->items[i].entry.key,
				 sizeof(out->key)) != 0)
			out[n++] = set->items[i].entry;
	*ret = out;
	return n;
}

static size_t reply_hash(const struct xlb_reply_key *k)
{
	uint64_t sum = k->port | (uint64_t)k->proto << 16;

	for (size_t i = 0; i < ARRAY_SIZE(k->addr); i++)
		sum = (sum ^ k->addr[i]) * 0x9e3779b97f4a7c15ULL;
	return (size_t)(sum >> 32);
}

/* Replies by their keys, in an open hash table. */
struct reply_index {
	const struct reply_entry **items;
	size_t mask; /* places, a power of two and more than replies, less 1 */
};

/* Where it is, or would be: NULL there. */
static const struct reply_entry **reply_place(const struct reply_index *index,
					      const struct xlb_reply_key *key)
{
	size_t i = reply_hash(key) & index->mask;

	while (index->items[i] &&
	       memcmp(&index->items[i]->key, key, sizeof(*key)) != 0)
		i = (i + 1) & index->mask;
	return &index->items[i];
}

/*
 * Is what is wanted, in any order and each once, what is there?  Mostly it is,
 * and sorting would be a quarter of a plan.
 */
static bool same_replies(struct planning *p, const struct reply_set *set)
{
	const struct reply_entry *have = p->world->replies, **place;
	size_t count = p->world->reply_count, room = 16;
	struct reply_index index;

	if (set->count != count)
		return false;
	while (room < 2 * count)
		room *= 2;
	index.mask = room - 1;
	index.items = arena_alloc(p->arena, room * sizeof(*index.items));
	for (size_t i = 0; i < count; i++) {
		place = reply_place(&index, &set->items[i].entry.key);
		if (*place)
			return false; /* two want it */
		*place = &set->items[i].entry;
	}
	for (size_t i = 0; i < count; i++) {
		place = reply_place(&index, &have[i].key);
		if (!*place || memcmp(*place, &have[i], sizeof(have[i])) != 0)
			return false;
	}
	return true;
}

static void plan_replies(struct planning *p)
{
	struct reply_set set = { 0 };
	struct reply_entry *items;
	struct change *c;
	size_t count;

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (s->spec && !p->compiled[i].kernel)
			keep_replies(p, &set, s->id);
		else if (s->spec && s->spec->forwarding == FORWARDING_NAT)
			service_replies(p, &set, i);
	}
	if (same_replies(p, &set))
		return;
	count = make_unique(p, &set, &items);
	if (count == p->world->reply_count &&
	    !memcmp(items, p->world->replies, count * sizeof(*items)))
		return;
	c = planning_add(p, CHANGE_REPLIES, ACTION_CHANGE, "node/replies");
	c->hidden = true;
	c->replies.items = items;
	c->replies.count = count;
}

void plan_vips(struct planning *p)
{
	struct vip_set have = kernel_vips(p), want = { 0 };

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (s->spec && !p->compiled[i].kernel)
			keep_vips(p, &want, &have, s->id);
		else if (s->spec)
			add_service_vips(p, &want, i);
	}
	if (want.count)
		qsort(want.items, want.count, sizeof(*want.items), compare_vip);
	flip_vips(p, &want, &have);
	plan_replies(p);
}
