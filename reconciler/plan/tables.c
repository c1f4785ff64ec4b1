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

static const struct xlb_service *kernel_service(const struct world *w,
						uint32_t id)
{
	return id && w->kernel.loaded ? &w->kernel.services[id] : NULL;
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
	case ALGORITHM_SOURCE_HASH:
	case ALGORITHM_WEIGHTED_ROUND_ROBIN:
	case ALGORITHM_RANDOM:
	case ALGORITHM_LEAST_CONNECTIONS:
	case ALGORITHM_LEAST_LOAD:
	case ALGORITHM_COUNT:
		break; /* TODO */
	}
}

static const char *why_left(const struct world_member *m)
{
	if (m->leaving || m->drained)
		return "drains";
	switch (m->health) {
	case HEALTH_DOWN:
		return "fails its probes";
	case HEALTH_DEAD:
		return "is gone";
	case HEALTH_JOINING:
	case HEALTH_UP:
		break;
	}
	return "left";
}

/* "web-3 joined, web-1 drains", from who owned slots and who does now. */
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
				mark & MARK_HAS ? "joined"
						: why_left(&c->s->members[i]));
	}
	if (said > 3)
		text = arena_printf(c->p->arena, "%s and %zu more", text,
				    said - 3);
	return *text ? text : NULL;
}

/* Spoilt by someone else, or because of members, weights or the service. */
static void slots_cause(const struct compile *c, struct change *ch, bool drift)
{
	ch->cause = drift ? NULL : who_moved(c);
	if (ch->cause)
		return;
	change_from_file(c->p, ch,
			 c->reweighted && !drift ? c->reweighted
						 : &c->s->spec->src);
	ch->drift |= drift;
}

static void plan_slots(struct compile *c, bool drift)
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
	ch->hidden = !moved || c->fresh;
	ch->slots.base = c->base;
	ch->slots.count = size;
	ch->slots.moved = moved;
	ch->slots.words = words;
	ch->detail =
		arena_printf(c->p->arena, "%u of %u slots move", moved, size);
	slots_cause(c, ch, drift);
}

static void set_service(struct compile *c, const struct xlb_service *old)
{
	struct xlb_service *desired =
		arena_alloc(c->p->arena, sizeof(*desired));
	struct xlb_service want = { 0 };
	struct change *ch;
	bool compiled;

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
	compiled = old && old->signature == want.signature && !c->need_slots;
	if (!compiled || c->p->world->verify)
		plan_slots(c, compiled);
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
	members_eligible(&p->world->kernel, s, c.eligible);
	if (!size_table(&c, old))
		return;
	if (!c.service_id)
		c.service_id = take_service_id(p);
	if (!c.service_id || !plan_backends(&c))
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
	change_from_file(p, ch, &(struct source){ .file = p->spec->path });
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
	plan_orphan_ids(p);
}
