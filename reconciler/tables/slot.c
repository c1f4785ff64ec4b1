/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How one slot word follows another.
 *
 * A slot at rest keeps no state about flows: whatever comes goes to cur.  When
 * cur changes, the flows that prev has are found out as they speak (moving),
 * and what was found out lasts (settled) until a sweep finds no memory left.
 *
 *   the slot     cur lives, cur != want        cur gone or nobody
 *   rest         want, prev = cur, moving      want, rest
 *   moving       want, same prev, moving;      the same
 *                want == prev: settled
 *   settled      want, prev = cur, moving      want, settled
 *
 * - A slot that moves again keeps its oldest prev: flows of those between were
 *   all remembered when they began.
 * - Back at prev it is settled and not at rest: flows that began meanwhile are
 *   remembered, and theirs are other backends.
 * - When prev dies while moving, nothing is left to find out: settled.
 * - When cur dies nothing is lost that could be kept, so cur alone changes.  It
 *   must not come to rest, or the next change would ignore the memories.
 * - want 0: new flows find nobody, the flows of prev go on.
 * - Where clients stick, a slot is held instead of moving while its prev stays
 *   in service: unknown clients may be prev's, who were silent for a while.
 * - Where every flow is remembered no slot is at rest: settled stands for it.
 * - Where none is, nothing ever moves.
 *
 * In slots that aren't moving prev is cur; nothing reads it there.
 */
#include "tables/tables.h"

static uint32_t unmoved(uint32_t cur, enum xlb_slot_state state)
{
	return XLB_SLOT(cur, cur, state);
}

static bool is_moving(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

static bool stays(const struct slot_rules *r, uint32_t id)
{
	return id && r->fate(r->arg, id) == SLOT_STAYS;
}

static bool lives(const struct slot_rules *r, uint32_t id)
{
	return id && r->fate(r->arg, id) != SLOT_GONE;
}

/* The same slot by these rules, before anything is wanted of it. */
static uint32_t adapt(uint32_t word, const struct slot_rules *r)
{
	uint32_t cur = XLB_SLOT_CUR(word), prev = XLB_SLOT_PREV(word);

	if (is_moving(word) && !lives(r, prev))
		return unmoved(cur, XLB_SETTLED);
	if (XLB_SLOT_STATE(word) == XLB_HELD && !(r->held && stays(r, prev)))
		return XLB_SLOT(cur, prev, XLB_MOVING);
	if (XLB_SLOT_STATE(word) == XLB_REST && r->kind == SLOTS_TRACKED)
		return unmoved(cur, XLB_SETTLED);
	return word;
}

/* From prev, which lives, to want. */
static uint32_t moved(uint32_t want, uint32_t prev, enum xlb_slot_state state)
{
	if (want == prev)
		return unmoved(want, XLB_SETTLED);
	return XLB_SLOT(want, prev, state);
}

uint32_t slot_next(uint32_t old, uint32_t want, const struct slot_rules *r)
{
	uint32_t word, cur;

	switch (r->kind) {
	case SLOTS_FORGETFUL:
		return unmoved(want, XLB_REST);
	case SLOTS_PICKED:
		return unmoved(want, XLB_SETTLED);
	case SLOTS_HASHED:
	case SLOTS_TRACKED:
		break;
	}
	word = adapt(old, r);
	cur = XLB_SLOT_CUR(word);
	if (cur == want && (!cur || lives(r, cur)))
		return word;
	if (is_moving(word))
		return moved(want, XLB_SLOT_PREV(word),
			     (enum xlb_slot_state)XLB_SLOT_STATE(word));
	if (!lives(r, cur))
		return unmoved(want, (enum xlb_slot_state)XLB_SLOT_STATE(word));
	return moved(want, cur,
		     r->held && want && stays(r, cur) ? XLB_HELD : XLB_MOVING);
}

bool slots_merge(const uint32_t *words, uint32_t count, uint32_t *ret)
{
	enum xlb_slot_state state = XLB_REST;

	for (uint32_t i = 0; i < count; i++) {
		if (is_moving(words[i]) ||
		    XLB_SLOT_CUR(words[i]) != XLB_SLOT_CUR(words[0]))
			return false;
		if (XLB_SLOT_STATE(words[i]) == XLB_SETTLED)
			state = XLB_SETTLED;
	}
	*ret = unmoved(XLB_SLOT_CUR(words[0]), state);
	return true;
}
