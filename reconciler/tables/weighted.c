/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Weighted round robin laid out ahead over a table, as smooth as can be.
 *
 * 1. Slots are shared out by weight, largest remainders first: counts[i].
 * 2. The k-th turn of member i must lie in slots
 *    [floor(k * slots / counts[i]), ceil((k + 1) * slots / counts[i])).
 *    Filling each slot with the open turn whose window closes first meets all
 *    windows (a proportionate-fair schedule of one processor exists and
 *    earliest deadline first finds it; Baruah et al., Algorithmica 15, 1996),
 *    so that after any number of slots every member has had its exact share,
 *    give or take less than one.  Equal weights give plain a b c a b c.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tables/members.h"

struct quota {
	uint64_t remainder;
	uint32_t member; /* index in the sorted members */
};

/*
 * Turns that are open stand in lists by the slot before which they close, and
 * a bit for each list that isn't empty makes the first one quick to find.
 * A member is in one list at a time.
 */
struct schedule {
	uint32_t slots;
	uint32_t *opens_at; /* by slot: first member whose turn opens there + 1 */
	uint32_t *closes_at; /* by slot, up to slots: the same of open turns */
	uint32_t *next; /* by member: the next one of the same list + 1 */
	uint32_t *counts; /* by member: turns in all */
	uint32_t *done; /* by member: turns taken */
	uint64_t *closing; /* bit: closes_at has members */
	uint64_t *closing_words; /* bit: closing has a bit in this word */
};

static int quota_compare(const void *a, const void *b)
{
	const struct quota *x = a, *y = b;

	if (x->remainder != y->remainder)
		return x->remainder < y->remainder ? 1 : -1;
	return (x->member > y->member) - (x->member < y->member);
}

/* counts[i] = slots of member i; their sum is `slots`. */
static void share_out(const struct table_member *const *members, size_t count,
		      uint32_t slots, uint32_t *counts)
{
	AUTO_FREE struct quota *quotas = mem_array(count, sizeof(*quotas));
	uint64_t total = 0;
	uint32_t left = slots;

	for (size_t i = 0; i < count; i++)
		total += members[i]->weight;
	for (size_t i = 0; i < count; i++) {
		uint64_t share = (uint64_t)slots * members[i]->weight;

		counts[i] = (uint32_t)(share / total);
		quotas[i].remainder = share % total;
		quotas[i].member = (uint32_t)i;
		left -= counts[i];
	}
	qsort(quotas, count, sizeof(*quotas), quota_compare);
	for (size_t i = 0; left; i++, left--)
		counts[quotas[i].member]++;
}

static void push(uint32_t *list, uint32_t *next, uint32_t member)
{
	next[member] = *list;
	*list = member + 1;
}

/* File the member's next turn under the slot in which it opens. */
static void plan_turn(struct schedule *s, uint32_t member, uint32_t earliest)
{
	uint32_t opens = (uint32_t)((uint64_t)s->done[member] * s->slots /
				    s->counts[member]);

	if (opens < earliest)
		opens = earliest;
	push(&s->opens_at[opens], s->next, member);
}

static void open_turns(struct schedule *s, uint32_t slot)
{
	uint32_t after;

	for (uint32_t m = s->opens_at[slot]; m; m = after) {
		uint64_t n = s->counts[m - 1];
		uint32_t closes =
			(uint32_t)(((s->done[m - 1] + 1ULL) * s->slots + n -
				    1) /
				   n);

		after = s->next[m - 1];
		push(&s->closes_at[closes], s->next, m - 1);
		s->closing[closes / 64] |= 1ULL << closes % 64;
		s->closing_words[closes / 4096] |= 1ULL << closes / 64 % 64;
	}
}

/* Take the open turn that closes first; the windows ensure that one is. */
static uint32_t take_turn(struct schedule *s)
{
	uint32_t i = 0, word, closes, member;

	while (!s->closing_words[i])
		i++;
	word = i * 64 + (uint32_t)__builtin_ctzll(s->closing_words[i]);
	closes = word * 64 + (uint32_t)__builtin_ctzll(s->closing[word]);
	member = s->closes_at[closes] - 1;
	s->closes_at[closes] = s->next[member];
	if (!s->closes_at[closes]) {
		s->closing[word] &= s->closing[word] - 1;
		if (!s->closing[word])
			s->closing_words[i] &= s->closing_words[i] - 1;
	}
	return member;
}

static void fill(struct schedule *s, const struct table_member *const *members,
		 uint32_t *owner)
{
	for (uint32_t slot = 0; slot < s->slots; slot++) {
		uint32_t member;

		open_turns(s, slot);
		member = take_turn(s);
		owner[slot] = members[member]->id;
		if (++s->done[member] < s->counts[member])
			plan_turn(s, member, slot + 1);
	}
}

void table_round_robin(const struct table_member *members, size_t count,
		       uint8_t log2, uint32_t *owner)
{
	uint32_t slots = 1U << log2;
	size_t bits = slots / 64 + 1;
	AUTO_FREE const struct table_member **sorted =
		members_sorted(members, count, &count);
	AUTO_FREE uint32_t *words =
		mem_array(2 * (size_t)slots + 1 + 3 * count, sizeof(*words));
	AUTO_FREE uint64_t *closing =
		mem_array(bits + bits / 64 + 1, sizeof(*closing));
	struct schedule s = { .slots = slots,
			      .opens_at = words,
			      .closes_at = words + slots,
			      .next = words + 2 * (size_t)slots + 1,
			      .closing = closing,
			      .closing_words = closing + bits };

	s.counts = s.next + count;
	s.done = s.counts + count;
	memset(owner, 0, slots * sizeof(*owner));
	if (!count)
		return;
	share_out(sorted, count, slots, s.counts);
	for (uint32_t i = 0; i < count; i++)
		if (s.counts[i])
			plan_turn(&s, i, 0);
	fill(&s, sorted, owner);
}
