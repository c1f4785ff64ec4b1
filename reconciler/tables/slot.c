/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How one slot word follows another.
 *
 * A slot at rest keeps no state about flows: whatever comes goes to cur.  When
 * cur changes, the flows that prev has are found out as they speak (moving),
 * and what was found out lasts (settled) until a sweep finds no memory left.
 *
 *   the slot     cur lives, cur != want        cur dead or nobody
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
 *
 * In slots that aren't moving prev is cur; nothing reads it there.
 */
#include "tables/tables.h"

static uint32_t unmoved(uint32_t cur, enum xlb_slot_state state)
{
	return XLB_SLOT(cur, cur, state);
}

static uint32_t moving(uint32_t want, uint32_t prev)
{
	if (want == prev)
		return unmoved(want, XLB_SETTLED);
	return XLB_SLOT(want, prev, XLB_MOVING);
}

uint32_t slot_next(uint32_t old, uint32_t want,
		   bool (*dead)(const void *arg, uint32_t id), const void *arg)
{
	uint32_t cur = XLB_SLOT_CUR(old), prev = XLB_SLOT_PREV(old);
	enum xlb_slot_state state = XLB_SLOT_STATE(old);
	bool cur_lives = cur && !dead(arg, cur);

	if (state == XLB_MOVING && (!prev || dead(arg, prev))) {
		state = XLB_SETTLED;
		old = unmoved(cur, state);
	}
	if (cur == want && (!cur || cur_lives))
		return old;
	if (state == XLB_MOVING)
		return moving(want, prev);
	return cur_lives ? moving(want, cur) : unmoved(want, state);
}

static bool is_same(const void *gone, uint32_t id)
{
	return *(const uint32_t *)gone == id;
}

uint32_t slot_drained(uint32_t old, uint32_t gone)
{
	uint32_t cur = XLB_SLOT_CUR(old);

	return slot_next(old, cur == gone ? 0 : cur, is_same, &gone);
}
