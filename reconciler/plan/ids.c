/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

static int owner_by_id(const void *key, const void *item)
{
	uint32_t id = *(const uint32_t *)key;
	uint32_t other = ((const struct world_owner *)item)->id;

	return id < other ? -1 : id > other;
}

const struct world_owner *owner_find(const struct world *w, uint32_t id)
{
	const struct world_owner *owners = w->kernel.owners;
	size_t guess;

	if (!w->kernel.owner_count)
		return NULL;
	/* Mostly ids follow one another without a gap. */
	guess = id - owners[0].id;
	if (guess < w->kernel.owner_count && owners[guess].id == id)
		return &owners[guess];
	return bsearch(&id, owners, w->kernel.owner_count, sizeof(*owners),
		       owner_by_id);
}

/*
 * The search goes round, so that a freed id is given out again as late as
 * possible.  Ids of one plan ascend, so one plan can't give out the same id
 * twice before it has tried all.
 */
uint32_t take_backend_id(struct planning *p)
{
	if (p->world->kernel.owner_count + p->ids_taken >= SPEC_MAX_BACKENDS)
		return 0;
	while (p->ids_tried++ < XLB_BACKENDS) {
		uint32_t id = p->next_id;

		p->next_id = id + 1 < XLB_BACKENDS ? id + 1 : 1;
		if (owner_find(p->world, id))
			continue;
		p->ids_taken++;
		return id;
	}
	return 0;
}

uint32_t take_service_id(struct planning *p)
{
	while (++p->last_service_id < XLB_SERVICES)
		if (!p->world->kernel.loaded ||
		    !p->world->kernel.services[p->last_service_id].name[0])
			return p->last_service_id;
	return 0;
}

static int by_base(const void *a, const void *b)
{
	const struct slot_space *x = a, *y = b;

	return x->base < y->base ? -1 : x->base > y->base;
}

static void add_space(struct planning *p, uint32_t base, uint32_t size)
{
	*ARENA_PUSH(p->arena, p->spaces, p->space_count) =
		(struct slot_space){ base, size };
}

static void add_vip_spaces(struct planning *p, const struct xlb_vip *v)
{
	const struct xlb_service *s =
		&p->world->kernel.services[v->service % XLB_SERVICES];
	uint32_t log2 = 32u - v->slot_shift;

	if (s->slot_base != v->slot_base || s->slot_log2 != log2)
		add_space(p, v->slot_base, 1u << (log2 & 31));
	log2 = 32u - v->schedule_shift;
	if (v->flags & XLB_VIP_SCHEDULE && v->schedule_shift &&
	    (s->schedule_base != v->schedule_base || s->schedule_log2 != log2))
		add_space(p, v->schedule_base, 1u << (log2 & 31));
}

/*
 * A region is taken while its service is said to have it, and while a VIP
 * still leads packets there: between the two writes of a move both are.
 */
static void find_spaces(struct planning *p)
{
	const struct world_kernel *k = &p->world->kernel;

	if (p->spaces_found)
		return;
	p->spaces_found = true;
	for (uint32_t i = 1; k->loaded && i < XLB_SERVICES; i++) {
		const struct xlb_service *s = &k->services[i];

		if (!s->name[0])
			continue;
		add_space(p, s->slot_base, 1u << (s->slot_log2 & 31));
		if (s->schedule_log2)
			add_space(p, s->schedule_base,
				  1u << (s->schedule_log2 & 31));
	}
	for (uint32_t i = 0; k->loaded && i < XLB_VIP_LINES; i++)
		if (k->vips[i].proto)
			add_vip_spaces(p, &k->vips[i]);
	if (p->space_count)
		qsort(p->spaces, p->space_count, sizeof(*p->spaces), by_base);
}

#define SLOTS_MAX (1u << 28)

uint32_t take_slots(struct planning *p, uint8_t log2)
{
	uint32_t size = 1u << log2, base = 0;
	size_t i = 0;

	find_spaces(p);
	for (; i < p->space_count; i++) {
		const struct slot_space *s = &p->spaces[i];

		if (base + size <= s->base)
			break;
		if (base < s->base + s->size)
			base = (s->base + s->size + size - 1) & ~(size - 1);
	}
	if (base > SLOTS_MAX - size)
		return UINT32_MAX;
	ARENA_PUSH(p->arena, p->spaces, p->space_count);
	memmove(p->spaces + i + 1, p->spaces + i,
		(p->space_count - 1 - i) * sizeof(*p->spaces));
	p->spaces[i] = (struct slot_space){ base, size };
	if (base + size > p->slots_needed)
		p->slots_needed = base + size;
	return base;
}
