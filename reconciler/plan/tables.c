/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Services and backends to ids, lines and slots.
 *
 * A service's slots are compiled only when what they are compiled from (its
 * signature) differs from what the kernel's were, or when a backend that may
 * still stand in them has to go.  Execution order makes it crash-safe: lines
 * before the slots that name them, slots before the signature that says they
 * are done, ids cleared last.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

/* A table keeps its size while it grows to so few slots a backend. */
#define MIN_SLOTS_A_BACKEND 64

struct compile {
	struct planning *p;
	const struct world_service *s;
	uint32_t service_id;
	bool *eligible;
	uint32_t *ids; /* by member, after giving out new ones */
	bool need_slots; /* an id that slots may name goes away */
	uint8_t log2;
	uint32_t base;
	bool fresh; /* no slots in the kernel yet */
	struct compiled *done;
};

static const struct xlb_service *kernel_service(const struct world *w,
						uint32_t id)
{
	return id && w->kernel.loaded ? &w->kernel.services[id] : NULL;
}

static int owner_by_id(const void *key, const void *item)
{
	uint32_t id = *(const uint32_t *)key;
	uint32_t other = ((const struct world_owner *)item)->id;

	return id < other ? -1 : id > other;
}

static const struct world_owner *find_owner(const struct world *w, uint32_t id)
{
	if (!w->kernel.owner_count)
		return NULL;
	return bsearch(&id, w->kernel.owners, w->kernel.owner_count,
		       sizeof(*w->kernel.owners), owner_by_id);
}

/*
 * The search goes round, so that a freed id is given out again as late as
 * possible: packets and memories that still name it have long gone by then.
 * Ids of one plan ascend, so one plan can't give out the same id twice before
 * it has tried all.
 */
static uint32_t take_backend_id(struct planning *p)
{
	while (p->ids_tried++ < XLB_BACKENDS) {
		uint32_t id = p->next_id;

		p->next_id = id + 1 < XLB_BACKENDS ? id + 1 : 1;
		if (!find_owner(p->world, id))
			return id;
	}
	return 0;
}

static uint32_t take_service_id(struct planning *p)
{
	while (++p->last_service_id < XLB_SERVICES)
		if (!p->world->kernel.loaded ||
		    !p->world->kernel.services[p->last_service_id].name[0])
			return p->last_service_id;
	return 0;
}

static bool overlaps(uint32_t base, uint32_t size, uint32_t other,
		     uint32_t other_size)
{
	return base < other + other_size && other < base + size;
}

/* The first slot behind whatever [base, base + size) collides with, or base. */
static uint32_t after_collision(const struct planning *p, uint32_t base,
				uint32_t size)
{
	const struct world_kernel *k = &p->world->kernel;

	for (uint32_t i = 1; k->loaded && i < XLB_SERVICES; i++) {
		uint32_t n = 1u << k->services[i].slot_log2;

		if (k->services[i].name[0] &&
		    overlaps(base, size, k->services[i].slot_base, n))
			return k->services[i].slot_base + n;
	}
	for (size_t i = 0; i < p->space_count; i++)
		if (overlaps(base, size, p->spaces[i].base, p->spaces[i].size))
			return p->spaces[i].base + p->spaces[i].size;
	return base;
}

/* First fit, aligned to the size; UINT32_MAX when there is no room. */
static uint32_t take_slots(struct planning *p, uint8_t log2)
{
	uint32_t size = 1u << log2, base = 0, next;
	uint32_t limit = p->world->kernel.loaded ? p->world->kernel.slot_count
						 : UINT32_MAX / 2;
	struct slot_space *space;

	while (base + size <= limit) {
		next = after_collision(p, base, size);
		if (next == base)
			break;
		base = (next + size - 1) & ~(size - 1);
	}
	if (base + size > limit)
		return UINT32_MAX;
	space = ARENA_PUSH(p->arena, p->spaces, p->space_count);
	space->base = base;
	space->size = size;
	return base;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t len)
{
	const unsigned char *b = data;

	/* FNV-1a, 64 bits. */
	for (size_t i = 0; i < len; i++)
		h = (h ^ b[i]) * 0x100000001b3ULL;
	return h;
}

static uint64_t signature(const struct compile *c)
{
	const struct service_spec *spec = c->s->spec;
	uint64_t h = 0xcbf29ce484222325ULL;

	h = hash_bytes(h, &spec->algorithm, sizeof(spec->algorithm));
	h = hash_bytes(h, &c->log2, sizeof(c->log2));
	for (size_t i = 0; i < c->s->member_count; i++) {
		const struct world_member *m = &c->s->members[i];

		if (!c->eligible[i])
			continue;
		h = hash_bytes(h, m->name, strlen(m->name) + 1);
		h = hash_bytes(h, &c->ids[i], sizeof(c->ids[i]));
		h = hash_bytes(h, &m->weight, sizeof(m->weight));
	}
	return h;
}

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

static bool is_uplink_index(const struct planning *p, int ifindex)
{
	const struct world_interface *in = world_interface(p->world, ifindex);

	return in && p->spec->node.interface_count == 1 &&
	       !strcmp(in->name, p->spec->node.interfaces[0].name);
}

/* The line a member should have; next hops that aren't known stay as in old. */
static struct xlb_backend make_line(const struct compile *c,
				    const struct world_member *m,
				    const struct xlb_backend *old, bool fresh)
{
	struct xlb_backend line = { 0 };
	uint16_t mtu = 0;

	line.generation = old ? (uint8_t)(old->generation + fresh) : 1;
	line.port = m->port ? htons(m->port) : 0;
	memcpy(&line.addr4, m->addresses[0].bytes, 4);
	memcpy(line.addr6, m->addresses[1].bytes, 16);
	line.sum4 = m->addresses[0].family ? ip_sum(&m->addresses[0]) : 0;
	line.sum6 = m->addresses[1].family ? ip_sum(&m->addresses[1]) : 0;
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
		if (path->stack)
			line.flags |= XLB_BACKEND_STACK;
		else if (is_uplink_index(c->p, path->port_ifindex))
			line.flags |= XLB_BACKEND_TX;
	}
	line.mtu = mtu;
	if (!mtu && old && !fresh) {
		line.mtu = old->mtu;
		line.flags = old->flags;
	}
	return line;
}

static void set_backend(struct compile *c, size_t i, bool fresh)
{
	const struct world_member *m = &c->s->members[i];
	const struct world_kernel *k = &c->p->world->kernel;
	const struct xlb_backend *old =
		k->loaded ? &k->backends[c->ids[i]] : NULL;
	struct xlb_backend line = make_line(c, m, old, fresh);
	struct change *ch;

	if (!fresh && !memcmp(&line, old, sizeof(line)))
		return;
	ch = planning_add(c->p, CHANGE_BACKEND_SET,
			  fresh ? ACTION_ADD : ACTION_CHANGE,
			  backend_object(c, m->name));
	ch->service = c->s->name;
	ch->name = m->name;
	ch->id = c->ids[i];
	strncpy(ch->backend.owner.name, m->name, XLB_NAME_MAX - 1);
	ch->backend.owner.service = c->service_id;
	ch->backend.owner.kind = m->fixed ? XLB_OWNER_FIXED : XLB_OWNER_VM;
	ch->backend.line = line;
	ch->detail = fresh ? arena_printf(c->p->arena, "weight %u", m->weight)
			   : "next hop";
	if (m->fixed)
		change_from_file(c->p, ch, &m->fixed->src);
	else
		change_from_event(ch, fresh ? "passed its first probe"
					    : "next hop changed");
	if (fresh)
		ch->drift = false;
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
	change_from_event(ch, m->finished ? "drained" : "gone");
	c->need_slots = true;
}

static bool give_ids(struct compile *c)
{
	for (size_t i = 0; i < c->s->member_count; i++) {
		const struct world_member *m = &c->s->members[i];

		c->ids[i] = m->id;
		if (m->id && member_gone(m)) {
			clear_backend(c, i);
		} else if (m->id) {
			set_backend(c, i, false);
		} else if (c->eligible[i]) {
			c->ids[i] = take_backend_id(c->p);
			if (!c->ids[i]) {
				diag_add(&c->p->plan->diags, SEVERITY_ERROR,
					 &c->s->spec->src, NULL,
					 "no backend id is free");
				return false;
			}
			set_backend(c, i, true);
		}
	}
	return true;
}

/* What is known of an id while one service's slots are compiled. */
enum mark { MARK_ALIVE = 1, MARK_HAD = 2, MARK_HAS = 4 };

/* For slot_next(): nothing of this id can be kept. */
static bool id_gone(const void *marks, uint32_t id)
{
	return !(((const uint8_t *)marks)[id] & MARK_ALIVE);
}

static void mark_alive(const struct compile *c)
{
	memset(c->p->marks, 0, XLB_BACKENDS);
	for (size_t i = 0; i < c->s->member_count; i++)
		if (!member_gone(&c->s->members[i]))
			c->p->marks[c->ids[i]] = MARK_ALIVE;
}

static void compile_owners(const struct compile *c, uint32_t *owner)
{
	struct table_member *members = arena_alloc(
		c->p->arena, (c->s->member_count + 1) * sizeof(*members));
	size_t n = 0;

	for (size_t i = 0; i < c->s->member_count; i++)
		if (c->eligible[i])
			members[n++] = (struct table_member){
				c->s->members[i].name, c->ids[i],
				c->s->members[i].weight
			};
	switch (c->s->spec->algorithm) {
	case ALGORITHM_MAGLEV:
		table_maglev(members, n, c->log2, owner);
		break;
	case ALGORITHM_ROUND_ROBIN:
		table_round_robin(members, n, c->log2, owner);
		break;
	}
}

/* "web-3 joined, web-1 left", from who owned slots and who does now. */
static const char *who_moved(const struct compile *c)
{
	const char *text = "";
	size_t said = 0;

	for (size_t i = 0; i < c->s->member_count; i++) {
		uint8_t mark = c->ids[i] ? c->p->marks[c->ids[i]] : 0;

		if (!(mark & MARK_HAD) == !(mark & MARK_HAS))
			continue;
		if (said++ < 3)
			text = arena_printf(
				c->p->arena, "%s%s%s %s", text,
				*text ? ", " : "", c->s->members[i].name,
				mark & MARK_HAS ? "joined" : "left");
	}
	if (said > 3)
		text = arena_printf(c->p->arena, "%s and %zu more", text,
				    said - 3);
	return *text ? text : NULL;
}

static void plan_slots(struct compile *c)
{
	uint32_t size = 1u << c->log2, moved = 0, differ = 0;
	uint32_t *owner = mem_array(size, sizeof(*owner));
	uint32_t *words = arena_alloc(c->p->arena, size * sizeof(*words));
	uint8_t *marks = c->p->marks;
	struct change *ch;

	compile_owners(c, owner);
	mark_alive(c);
	for (uint32_t i = 0; i < size; i++) {
		uint32_t old =
			c->fresh ? 0 : c->p->world->kernel.slots[c->base + i];

		words[i] = slot_next(old, owner[i], id_gone, marks);
		marks[XLB_SLOT_CUR(old)] |= MARK_HAD;
		marks[XLB_SLOT_CUR(words[i])] |= MARK_HAS;
		moved += XLB_SLOT_CUR(words[i]) != XLB_SLOT_CUR(old);
		differ += words[i] != old;
	}
	free(owner);
	if (!differ && !c->fresh)
		return;
	ch = planning_add(c->p, CHANGE_SLOTS, ACTION_CHANGE,
			  arena_printf(c->p->arena, "service.%s/slots",
				       c->s->name));
	ch->service = c->s->name;
	ch->hidden = !moved;
	ch->slots.base = c->base;
	ch->slots.count = size;
	ch->slots.moved = moved;
	ch->slots.words = words;
	ch->detail =
		arena_printf(c->p->arena, "%u of %u slots move", moved, size);
	ch->cause = who_moved(c);
	if (!ch->cause)
		change_from_file(c->p, ch, &c->s->spec->src);
}

static void set_service(struct compile *c, const struct xlb_service *old)
{
	struct xlb_service *desired =
		arena_alloc(c->p->arena, sizeof(*desired));
	struct xlb_service want = { 0 };
	struct change *ch;

	strncpy(want.name, c->s->name, XLB_NAME_MAX - 1);
	want.slot_base = c->base;
	want.slot_log2 = c->log2;
	want.algorithm = (uint8_t)c->s->spec->algorithm;
	want.forwarding = (uint8_t)c->s->spec->forwarding;
	want.proto = c->s->spec->protocol == PROTOCOL_TCP ? IPPROTO_TCP
							  : IPPROTO_UDP;
	want.signature = signature(c);
	*desired = want;
	c->done->kernel = desired;
	if (c->fresh || c->need_slots || c->p->world->verify ||
	    old->signature != want.signature)
		plan_slots(c);
	if (old && !memcmp(old, &want, sizeof(want)))
		return;
	ch = planning_add(c->p, CHANGE_SERVICE_SET, ACTION_CHANGE,
			  arena_printf(c->p->arena, "service.%s/table",
				       c->s->name));
	ch->service = c->s->name;
	ch->hidden = true;
	ch->id = c->service_id;
	ch->kernel_service = want;
}

/* Size of the table: by the declared maximum, or as it is while it suffices. */
static bool size_table(struct compile *c, const struct xlb_service *old)
{
	size_t max = service_max_backends(c->s->spec);
	struct planning *p = c->p;

	c->log2 = table_log2_for(max);
	if (old && old->algorithm != (uint8_t)c->s->spec->algorithm) {
		diag_add(&p->plan->diags, SEVERITY_ERROR, &c->s->spec->src,
			 "give the service another name, or remove it first",
			 "changing the algorithm of service %s while it is "
			 "live is not supported yet",
			 c->s->name);
		return false;
	}
	if (old && old->slot_log2 < c->log2 &&
	    ((size_t)1 << old->slot_log2) < max * MIN_SLOTS_A_BACKEND) {
		diag_add(&p->plan->diags, SEVERITY_ERROR, &c->s->spec->src,
			 "declare fewer backends, or give the service another "
			 "name",
			 "growing the table of service %s (%u slots for %zu "
			 "backends) while it is live is not supported yet",
			 c->s->name, 1u << old->slot_log2, max);
		return false;
	}
	if (old) {
		c->log2 = old->slot_log2;
		c->base = old->slot_base;
		return true;
	}
	c->fresh = true;
	c->base = take_slots(p, c->log2);
	if (c->base != UINT32_MAX)
		return true;
	diag_add(&p->plan->diags, SEVERITY_ERROR, &c->s->spec->src,
		 "restart xlb-reconcile after `destroy`, so that larger tables "
		 "are made",
		 "the slot tables have no room for service %s (%u slots)",
		 c->s->name, 1u << c->log2);
	return false;
}

static void compile_service(struct planning *p, const struct world_service *s,
			    struct compiled *done)
{
	const struct xlb_service *old = kernel_service(p->world, s->id);
	struct compile c = { .p = p, .s = s, .service_id = s->id, .done = done };

	c.eligible = arena_alloc(p->arena, s->member_count + 1);
	c.ids = arena_alloc(p->arena, (s->member_count + 1) * sizeof(*c.ids));
	members_eligible(s, c.eligible);
	if (!size_table(&c, old))
		return;
	if (!c.service_id)
		c.service_id = take_service_id(p);
	if (!c.service_id || !give_ids(&c))
		return;
	set_service(&c, old);
	for (size_t i = 0; i < s->member_count; i++)
		if (member_gone(&s->members[i]))
			c.ids[i] = 0;
	done->id = c.service_id;
	done->ids = c.ids;
}

static void remove_service(struct planning *p, const struct world_service *s)
{
	struct change *ch;

	for (size_t i = 0; i < s->member_count; i++) {
		if (!s->members[i].id)
			continue;
		ch = planning_add(p, CHANGE_BACKEND_CLEAR, ACTION_DESTROY,
				  arena_printf(p->arena,
					       "service.%s/backend/%s", s->name,
					       s->members[i].name));
		ch->service = s->name;
		ch->name = s->members[i].name;
		ch->id = s->members[i].id;
		ch->hidden = true;
	}
	if (!s->id)
		return;
	ch = planning_add(p, CHANGE_SERVICE_CLEAR, ACTION_DESTROY,
			  arena_printf(p->arena, "service.%s", s->name));
	ch->service = s->name;
	ch->id = s->id;
	ch->detail = "no longer declared";
	change_from_file(p, ch,
			 &(struct source){ .file = p->spec->path, .line = 1 });
	ch->drift = false;
}

void plan_tables(struct planning *p)
{
	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (s->spec)
			compile_service(p, s, &p->compiled[i]);
		else
			remove_service(p, s);
	}
}
