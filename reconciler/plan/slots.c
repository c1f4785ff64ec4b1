/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a service's table and schedule stand, and their words.
 *
 * The table's size is that of the declared maximum, whatever the service was
 * before: balancers with the same file have the same owners.  The slots that
 * show it may be more, since they can't become fewer while some are under
 * change; each owner then has several in a row.
 *
 * A table grows into a new region: slot i takes over what was in slot i >> k,
 * which is where its flows were, and the VIP table leads packets there by one
 * flip.  Until then the old region is what it was; only then is it free.
 *
 * The hash table is the same for every algorithm, so that changing that moves
 * no slot.  Algorithms that take turns walk a schedule besides; its words
 * don't depend on each other and are written in place.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

/* ---- where ---- */

static bool lies_inside(const struct world_kernel *k, uint32_t base,
			uint8_t log2)
{
	return log2 < 28 && base <= k->slot_count &&
	       1u << log2 <= k->slot_count - base;
}

static bool place(struct compile *c, uint8_t log2, uint32_t *ret)
{
	*ret = take_slots(c->p, log2);
	if (*ret != UINT32_MAX)
		return true;
	diag_add(&c->p->plan->diags, SEVERITY_ERROR, &c->s->spec->src,
		 "declare fewer backends",
		 "the slot tables have no room for service %s (%u slots)",
		 c->s->name, 1u << log2);
	return false;
}

static bool place_table(struct compile *c)
{
	const struct xlb_service *old = c->old;

	if (old && old->slot_log2 >= c->want.table_log2) {
		c->want.slot_log2 = old->slot_log2;
		c->want.slot_base = old->slot_base;
		return true;
	}
	c->want.slot_log2 = c->want.table_log2;
	return place(c, c->want.slot_log2, &c->want.slot_base);
}

static bool has_schedule(const struct service_spec *s)
{
	return s->algorithm == ALGORITHM_ROUND_ROBIN ||
	       s->algorithm == ALGORITHM_WEIGHTED_ROUND_ROBIN;
}

static bool place_schedule(struct compile *c)
{
	const struct xlb_service *old = c->old;

	if (!has_schedule(c->s->spec))
		return true;
	c->want.schedule_log2 = c->want.table_log2;
	if (old && old->schedule_log2 == c->want.schedule_log2) {
		c->want.schedule_base = old->schedule_base;
		return true;
	}
	return place(c, c->want.schedule_log2, &c->want.schedule_base);
}

bool place_slots(struct compile *c)
{
	const struct world_kernel *k = &c->p->world->kernel;

	/* Written by nobody we know: as if it weren't there. */
	if (c->old &&
	    (!lies_inside(k, c->old->slot_base, c->old->slot_log2) ||
	     (c->old->schedule_log2 &&
	      !lies_inside(k, c->old->schedule_base, c->old->schedule_log2))))
		c->old = NULL;
	c->want.table_log2 = table_log2_for(service_max_backends(c->s->spec));
	return place_table(c) && place_schedule(c);
}

/* ---- the table's words ---- */

struct words {
	uint32_t *words;
	uint32_t moved;
	bool differ;
};

enum { MARK_STAYS = 1, MARK_LEAVES = 2, MARK_HAD = 4, MARK_HAS = 8 };

static enum slot_fate fate_of(const void *marks, uint32_t id)
{
	uint8_t mark = ((const uint8_t *)marks)[id];

	return mark & MARK_STAYS    ? SLOT_STAYS
	       : mark & MARK_LEAVES ? SLOT_LEAVES
				    : SLOT_GONE;
}

static void mark_fates(struct compile *c)
{
	uint8_t *marks = c->p->marks;

	memset(marks, 0, XLB_BACKENDS);
	for (size_t i = 0; i < c->s->member_count; i++)
		if (!member_gone(&c->s->members[i]))
			marks[c->ids[i]] =
				c->eligible[i] ? MARK_STAYS : MARK_LEAVES;
	c->rules.fate = fate_of;
	c->rules.arg = marks;
}

static struct table_member *make_members(const struct compile *c, bool weighted,
					 size_t *ret_count)
{
	struct table_member *members = arena_alloc(
		c->p->arena, (c->s->member_count + 1) * sizeof(*members));
	size_t n = 0;

	for (size_t i = 0; i < c->s->member_count; i++)
		if (c->eligible[i])
			members[n++] = (struct table_member){
				c->s->members[i].name, c->ids[i],
				weighted ? c->s->members[i].weight : 1
			};
	*ret_count = n;
	return members;
}

/* What slot i of the table was before; 0 where there was none. */
static uint32_t old_word(const struct compile *c, uint32_t i)
{
	const struct xlb_service *old = c->old;

	if (!old)
		return 0;
	return c->p->world->kernel
		.slots[old->slot_base +
		       (i >> (c->want.slot_log2 - old->slot_log2))];
}

static const char *why_left(const struct world_member *m)
{
	if (m->leaving || m->drained)
		return "drains";
	if (m->sorry)
		return "stands by";
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

static bool is_resized(const struct compile *c)
{
	return c->old && c->old->slot_log2 != c->want.slot_log2;
}

static struct change *add_slots(struct compile *c, const char *what)
{
	struct change *ch = planning_add(
		c->p, CHANGE_SLOTS, ACTION_CHANGE,
		arena_printf(c->p->arena, "service.%s/%s", c->s->name, what));

	ch->service = c->s->name;
	ch->slots.write.from = UINT32_MAX;
	return ch;
}

static void say_slots(struct compile *c, const struct words *t, bool drift)
{
	uint32_t size = 1u << c->want.slot_log2;
	struct change *ch = add_slots(c, "slots");
	struct slot_write *w = &ch->slots.write;
	const char *resized = "";

	w->base = c->want.slot_base;
	w->count = size;
	w->words = t->words;
	w->fresh = !c->old || is_resized(c);
	if (is_resized(c))
		resized = arena_printf(c->p->arena, "table of %u slots -> %u, ",
				       1u << c->old->slot_log2, size);
	if (c->old && c->old->slot_log2 < c->want.slot_log2) {
		w->from = c->old->slot_base;
		w->shift = (uint8_t)(c->want.slot_log2 - c->old->slot_log2);
	}
	ch->hidden = !c->old || (!t->moved && !is_resized(c));
	ch->slots.moved = t->moved;
	ch->detail = arena_printf(c->p->arena, "%s%u of %u slots move", resized,
				  t->moved, size);
	slots_cause(c, ch, drift);
	/* Long after the edit, when no slot is under change any more. */
	if (is_resized(c) && !t->moved && c->p->world->settled) {
		change_from_event(ch, "at rest");
		ch->drift = false;
	}
}

/* Of a service that is new: nobody had a slot. */
static void begin_words(struct compile *c, struct words *t,
			const uint32_t *owner, uint32_t size)
{
	uint32_t empty = slot_next(0, 0, &c->rules);

	for (uint32_t i = 0; i < size; i++)
		t->words[i] = empty | XLB_SLOT(owner[i], owner[i], 0);
	for (size_t i = 0; i < c->s->member_count; i++)
		if (c->eligible[i])
			c->p->marks[c->ids[i]] |= MARK_HAS;
	t->moved = owner[0] ? size : 0; /* all have one, or none has */
}

static void compute_words(struct compile *c, struct words *t)
{
	uint32_t size = 1u << c->want.slot_log2;
	uint8_t spread = (uint8_t)(c->want.slot_log2 - c->want.table_log2);
	AUTO_FREE uint32_t *owner =
		mem_array(1u << c->want.table_log2, sizeof(*owner));
	uint8_t *marks = c->p->marks;
	size_t count;
	const struct table_member *members = make_members(c, true, &count);

	t->words = arena_alloc(c->p->arena, size * sizeof(*t->words));
	table_maglev(members, count, c->want.table_log2, owner);
	mark_fates(c);
	if (!c->old) {
		begin_words(c, t, owner, size);
		return;
	}
	for (uint32_t i = 0; i < size; i++) {
		uint32_t old = old_word(c, i);
		uint32_t word = slot_next(old, owner[i >> spread], &c->rules);

		t->words[i] = word;
		marks[XLB_SLOT_CUR(old)] |= MARK_HAD;
		marks[XLB_SLOT_CUR(word)] |= MARK_HAS;
		t->moved += XLB_SLOT_CUR(word) != XLB_SLOT_CUR(old);
		t->differ |= word != old;
	}
}

static void copy_words(const struct compile *c, struct words *t)
{
	size_t size = sizeof(*t->words) << c->want.slot_log2;

	t->words = arena_alloc(c->p->arena, size);
	memcpy(t->words, c->p->world->kernel.slots + c->want.slot_base, size);
}

/*
 * Smaller, when all slots of each group are alike and none is moving; where
 * there is no other room it stays as it is.
 */
static void shrink(struct compile *c, struct words *t)
{
	uint8_t by = (uint8_t)(c->want.slot_log2 - c->want.table_log2);
	uint32_t size = 1u << c->want.table_log2, base;
	uint32_t *words =
		arena_alloc(c->p->arena, (size_t)size * sizeof(*words));

	for (uint32_t i = 0; i < size; i++)
		if (!slots_merge(t->words + ((size_t)i << by), 1u << by,
				 &words[i]))
			return;
	base = take_slots(c->p, c->want.table_log2);
	if (base == UINT32_MAX)
		return;
	c->want.slot_base = base;
	c->want.slot_log2 = c->want.table_log2;
	t->words = words;
	t->moved >>= by;
}

void plan_slots(struct compile *c, bool compiled)
{
	bool larger = c->want.slot_log2 > c->want.table_log2;
	struct words t = { 0 };

	if (!compiled || is_resized(c) || c->s->verify)
		compute_words(c, &t);
	else if (larger)
		copy_words(c, &t);
	else
		return;
	if (larger)
		shrink(c, &t);
	if (t.differ || !c->old || is_resized(c))
		say_slots(c, &t, compiled && !is_resized(c));
}

/* ---- the schedule's words ---- */

void plan_schedule(struct compile *c, bool compiled)
{
	bool weighted = c->s->spec->algorithm == ALGORITHM_WEIGHTED_ROUND_ROBIN;
	bool fresh = !c->old || !c->old->schedule_log2 ||
		     c->old->schedule_base != c->want.schedule_base;
	uint32_t size = 1u << c->want.schedule_log2;
	size_t count, bytes = size * sizeof(uint32_t);
	struct table_member *members;
	struct change *ch;
	uint32_t *words;

	if (!c->want.schedule_log2 || (compiled && !fresh && !c->s->verify))
		return;
	words = arena_alloc(c->p->arena, bytes);
	members = make_members(c, weighted, &count);
	table_round_robin(members, count, c->want.schedule_log2, words);
	for (uint32_t i = 0; i < size; i++)
		words[i] = XLB_SLOT(words[i], words[i], XLB_REST);
	if (!fresh &&
	    !memcmp(words, c->p->world->kernel.slots + c->want.schedule_base,
		    bytes))
		return;
	ch = add_slots(c, "schedule");
	ch->hidden = true;
	ch->slots.write.base = c->want.schedule_base;
	ch->slots.write.count = size;
	ch->slots.write.words = words;
	ch->slots.write.fresh = fresh;
}
