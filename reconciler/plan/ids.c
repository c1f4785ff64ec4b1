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
uint32_t take_backend_id(struct planning *p)
{
	while (p->ids_tried++ < XLB_BACKENDS) {
		uint32_t id = p->next_id;

		p->next_id = id + 1 < XLB_BACKENDS ? id + 1 : 1;
		if (!owner_find(p->world, id))
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

static void find_spaces(struct planning *p)
{
	const struct world_kernel *k = &p->world->kernel;

	if (p->spaces_found)
		return;
	p->spaces_found = true;
	for (uint32_t i = 1; k->loaded && i < XLB_SERVICES; i++)
		if (k->services[i].name[0])
			*ARENA_PUSH(p->arena, p->spaces, p->space_count) =
				(struct slot_space){
					k->services[i].slot_base,
					1u << k->services[i].slot_log2
				};
	if (p->space_count)
		qsort(p->spaces, p->space_count, sizeof(*p->spaces), by_base);
}

uint32_t take_slots(struct planning *p, uint8_t log2)
{
	uint32_t size = 1u << log2, base = 0;
	uint32_t limit = p->world->kernel.loaded ? p->world->kernel.slot_count
						 : UINT32_MAX / 2;
	size_t i = 0;

	find_spaces(p);
	for (; i < p->space_count; i++) {
		const struct slot_space *s = &p->spaces[i];

		if (base + size <= s->base)
			break;
		if (base < s->base + s->size)
			base = (s->base + s->size + size - 1) & ~(size - 1);
	}
	if (base > limit || size > limit - base)
		return UINT32_MAX;
	ARENA_PUSH(p->arena, p->spaces, p->space_count);
	memmove(p->spaces + i + 1, p->spaces + i,
		(p->space_count - 1 - i) * sizeof(*p->spaces));
	p->spaces[i] = (struct slot_space){ base, size };
	return base;
}
