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

/*
 * Whose slots flows have, their own or their clients'.  Connections of before
 * a change are found by what it was then, until those that are alive have all
 * spoken and are remembered; the sweep says when that is.
 */
static void find_clients(struct compile *c)
{
	const struct service_spec *s = c->s->spec;
	struct xlb_service *want = &c->want;
	bool now = s->algorithm == ALGORITHM_SOURCE_HASH, old = now;

	if (c->old && s->protocol == PROTOCOL_TCP &&
	    c->old->proto == IPPROTO_TCP)
		old = c->old->flags & XLB_SERVICE_CLIENT_OLD;
	want->flags |= (now ? XLB_SERVICE_CLIENT_HASH : 0) |
		       (old ? XLB_SERVICE_CLIENT_OLD : 0);
	if (service_changes(want))
		want->changed = c->old && service_changes(c->old)
					? c->old->changed
					: (uint8_t)c->p->world->kernel.now;
}

/* What the slots keep of flows; the algorithm says nothing else about them. */
static void find_rules(struct compile *c)
{
	const struct service_spec *s = c->s->spec;
	bool picks = service_picks(s);

	c->rules.held = s->algorithm == ALGORITHM_SOURCE_HASH;
	if (s->protocol == PROTOCOL_UDP && s->udp == UDP_STATELESS)
		c->rules.kind = picks ? SLOTS_PICKED : SLOTS_FORGETFUL;
	else
		c->rules.kind = service_tracks(s) || service_changes(&c->want)
					? SLOTS_TRACKED
					: SLOTS_HASHED;
}

static uint64_t signature(const struct compile *c)
{
	const struct service_spec *spec = c->s->spec;
	uint64_t h = 0xcbf29ce484222325ULL;

	h = hash_bytes(h, &spec->algorithm, sizeof(spec->algorithm));
	h = hash_bytes(h, &c->rules.kind, sizeof(c->rules.kind));
	h = hash_bytes(h, &c->want.table_log2, sizeof(c->want.table_log2));
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

static void fill_service(struct compile *c)
{
	const struct service_spec *spec = c->s->spec;
	struct xlb_service *want = &c->want;

	strncpy(want->name, c->s->name, XLB_NAME_MAX - 1);
	want->algorithm = (uint8_t)spec->algorithm;
	want->forwarding = (uint8_t)spec->forwarding;
	want->proto =
		spec->protocol == PROTOCOL_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	if (c->rules.kind == SLOTS_TRACKED)
		want->flags |= XLB_SERVICE_TRACKS;
	if (spec->protect)
		want->flags |= XLB_SERVICE_PROTECTED;
	want->signature = signature(c);
}

static void set_service(struct compile *c)
{
	struct xlb_service *desired =
		arena_alloc(c->p->arena, sizeof(*desired));
	struct change *ch;
	bool compiled;

	fill_service(c);
	compiled = c->old && c->old->signature == c->want.signature &&
		   !c->need_slots;
	plan_slots(c, compiled);
	plan_schedule(c, compiled);
	*desired = c->want;
	c->done->kernel = desired;
	if (c->old && !memcmp(c->old, &c->want, sizeof(c->want)))
		return;
	ch = planning_add(c->p, CHANGE_SERVICE_SET, ACTION_CHANGE,
			  arena_printf(c->p->arena, "service.%s/table",
				       c->s->name));
	ch->service = c->s->name;
	ch->hidden = true;
	ch->id = c->service_id;
	ch->kernel_service = c->want;
}

/* What was applied had a line: somebody took it away. */
static void say_lost(struct planning *p, const struct world_service *s)
{
	struct change *ch;

	if (s->id || !p->world->settled || !p->world->kernel.loaded)
		return;
	ch = planning_add(p, CHANGE_SHOW, ACTION_ADD,
			  arena_printf(p->arena, "service.%s", s->name));
	ch->service = s->name;
	ch->detail = "its line was gone";
	change_from_file(p, ch, &s->spec->src);
}

static void compile_service(struct planning *p, const struct world_service *s,
			    struct compiled *done)
{
	struct compile c = { .p = p,
			     .s = s,
			     .service_id = s->id,
			     .old = kernel_service(p->world, s->id),
			     .done = done };

	c.eligible = arena_alloc(p->arena, s->member_count + 1);
	c.ids = arena_alloc(p->arena, (s->member_count + 1) * sizeof(*c.ids));
	members_eligible(&p->world->kernel, s, c.eligible);
	say_lost(p, s);
	if (!place_slots(&c))
		return;
	find_clients(&c);
	find_rules(&c);
	if (!c.service_id)
		c.service_id = take_service_id(p);
	if (!c.service_id || !plan_backends(&c))
		return;
	set_service(&c);
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
