/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tables/tables.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"

#define SLOTS(log2) (1U << (log2))
#define MEMBERS_MAX 1024

typedef void (*build_fn)(const struct table_member *members, size_t count,
			 uint8_t log2, uint32_t *owner);

static const build_fn builders[] = { table_maglev, table_round_robin };

static struct table_member members[MEMBERS_MAX];
static char names[MEMBERS_MAX][XLB_NAME_MAX];
static uint32_t table[SLOTS(16)], other[SLOTS(16)];
static uint32_t counts[MEMBERS_MAX + 1];

static uint64_t random_state;

/* Repeatable, and the same everywhere: 0..bound-1. */
static uint32_t draw(uint32_t bound)
{
	random_state =
		random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)((random_state >> 32) % bound);
}

/* count members "web-0".."web-N", ids 1.., all of the given weight. */
static void make_members(size_t count, uint32_t weight)
{
	for (size_t i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "web-%zu", i);
		members[i].name = names[i];
		members[i].id = (uint32_t)i + 1;
		members[i].weight = weight;
	}
}

static void count_slots(const uint32_t *owner, uint8_t log2)
{
	memset(counts, 0, sizeof(counts));
	for (uint32_t i = 0; i < SLOTS(log2); i++)
		counts[owner[i]]++;
}

/* Every slot is owned, and every member has its share of them, to 2 % or one. */
static void assert_balanced(const uint32_t *owner, uint8_t log2, size_t count)
{
	double total = 0;

	for (size_t i = 0; i < count; i++)
		total += members[i].weight;
	count_slots(owner, log2);
	assert_int_equal(counts[0], 0);
	for (size_t i = 0; i < count; i++) {
		double share = members[i].weight / total * SLOTS(log2);
		double off = counts[members[i].id] - share;
		double allowed = share * 0.02 > 1 ? share * 0.02 : 1;

		if (off > allowed + 1e-9 || off < -allowed - 1e-9)
			fail_msg("%s has %u of %.2f slots", members[i].name,
				 counts[members[i].id], share);
	}
}

static uint32_t differing(uint8_t log2)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SLOTS(log2); i++)
		n += table[i] != other[i];
	return n;
}

static void sizes(void **state)
{
	static const struct {
		size_t backends;
		int log2;
	} want[] = { { 0, 8 },	 { 1, 9 },    { 2, 10 },     { 3, 11 },
		     { 10, 12 }, { 100, 16 }, { 163, 16 },   { 164, 16 },
		     { 81, 15 }, { 82, 16 },  { 32000, 16 }, { SIZE_MAX, 16 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		assert_int_equal(table_log2_for(want[i].backends),
				 want[i].log2);
}

static void full_and_balanced(void **state)
{
	static const size_t sets[] = { 1, 2, 3, 7, 10, 64, 150, 500, 1024 };

	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++)
		for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
			make_members(sets[i], 1);
			builders[b](members, sets[i], 16, table);
			assert_balanced(table, 16, sets[i]);
		}
}

static void weights_are_shares(void **state)
{
	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++)
		for (uint32_t seed = 1; seed < 30; seed++) {
			size_t count = 2 + seed * 3;

			make_members(count, 1);
			random_state = seed;
			for (size_t i = 0; i < count; i++)
				members[i].weight = draw(101);
			members[0].weight = 50;
			builders[b](members, count, 16, table);
			assert_balanced(table, 16, count);
		}
}

static void extreme_weights(void **state)
{
	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++) {
		make_members(500, UINT32_MAX);
		builders[b](members, 500, 16, table);
		assert_balanced(table, 16, 500);
		make_members(3, 1);
		members[1].weight = UINT32_MAX;
		builders[b](members, 3, 10, table);
		assert_balanced(table, 10, 3);
	}
}

static void nobody(void **state)
{
	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++) {
		memset(table, 0xff, sizeof(table));
		builders[b](NULL, 0, 10, table);
		make_members(5, 0);
		memset(other, 0xff, sizeof(other));
		builders[b](members, 5, 10, other);
		for (uint32_t i = 0; i < SLOTS(10); i++) {
			assert_int_equal(table[i], 0);
			assert_int_equal(other[i], 0);
		}
	}
}

static void more_members_than_slots(void **state)
{
	(void)state;
	make_members(300, 1);
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++) {
		builders[b](members, 300, 8, table);
		count_slots(table, 8);
		assert_int_equal(counts[0], 0);
		for (uint32_t id = 1; id <= 300; id++)
			assert_in_range(counts[id], 0, 1);
	}
}

static void shuffle(size_t count, uint32_t seed)
{
	random_state = seed;
	for (size_t i = count - 1; i > 0; i--) {
		size_t j = draw((uint32_t)i + 1);
		struct table_member m = members[i];

		members[i] = members[j];
		members[j] = m;
	}
}

static void order_does_not_matter(void **state)
{
	(void)state;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++) {
		make_members(60, 1);
		for (size_t i = 0; i < 60; i++)
			members[i].weight = (uint32_t)(i % 7);
		builders[b](members, 60, 12, table);
		for (uint32_t seed = 1; seed < 20; seed++) {
			shuffle(60, seed);
			builders[b](members, 60, 12, other);
			assert_memory_equal(table, other,
					    SLOTS(12) * sizeof(*table));
		}
	}
}

/* A member's slots follow from its name; the id only labels them. */
static void names_are_identity(void **state)
{
	(void)state;
	make_members(20, 1);
	table_maglev(members, 20, 12, table);
	for (size_t i = 0; i < 20; i++)
		members[i].id += 100;
	table_maglev(members, 20, 12, other);
	for (uint32_t i = 0; i < SLOTS(12); i++)
		assert_int_equal(table[i] + 100, other[i]);
	for (size_t i = 0; i < 20; i++) {
		members[i].id -= 100;
		names[i][0] = 'x';
	}
	table_maglev(members, 20, 12, other);
	assert_true(differing(12) > SLOTS(12) / 2);
}

/*
 * Balancers must agree, also across versions and machines: what these tables
 * are is fixed.  A change here resets every flow of every running balancer.
 */
static void tables_never_change(void **state)
{
	uint64_t digest[ARRAY_SIZE(builders)];

	(void)state;
	make_members(10, 3);
	members[4].weight = 5;
	for (size_t b = 0; b < ARRAY_SIZE(builders); b++) {
		builders[b](members, 10, 12, table);
		digest[b] = 0xcbf29ce484222325ULL;
		for (uint32_t i = 0; i < SLOTS(12); i++)
			digest[b] = (digest[b] ^ table[i]) * 0x100000001b3ULL;
	}
	assert_int_equal(digest[0], 0xd0dd55cd404f7febULL);
	assert_int_equal(digest[1], 0x1f90e931af159a25ULL);
}

/*
 * Mean over several removals of one of n members: slots that change owner
 * over slots that must (those of the removed one).
 */
static double disruption(size_t n, uint8_t log2)
{
	double moved = 0, must = 0;

	for (size_t gone = 0; gone < 20; gone++) {
		make_members(n, 1);
		table_maglev(members, n, log2, table);
		count_slots(table, log2);
		must += counts[members[gone].id];
		members[gone].weight = 0;
		table_maglev(members, n, log2, other);
		moved += differing(log2);
	}
	return moved / must;
}

static void changes_move_little(void **state)
{
	double at_409 = disruption(40, 14), at_1638 = disruption(40, 16);

	(void)state;
	print_message("# moved over must move: %.2f at 409 slots, %.2f at "
		      "1638\n",
		      at_409, at_1638);
	assert_true(at_409 <= 1.4);
	assert_true(at_1638 <= 1.25);
	assert_true(at_1638 >= 1);
}

/* A small change of one weight moves few slots. */
static void reweighting_moves_little(void **state)
{
	uint32_t moved;

	(void)state;
	make_members(10, 100);
	table_maglev(members, 10, 12, table);
	members[3].weight = 90;
	table_maglev(members, 10, 12, other);
	moved = differing(12);
	print_message("# one of ten from weight 100 to 90: %u of %u slots\n",
		      moved, SLOTS(12));
	assert_in_range(moved, 30, SLOTS(12) / 20);
}

/* After any number of slots each member has had its share, within one turn. */
static void assert_smooth(size_t n)
{
	double had[MEMBERS_MAX + 1] = { 0 };

	count_slots(table, 12);
	for (uint32_t i = 0; i < SLOTS(12); i++) {
		had[table[i]]++;
		for (uint32_t id = 1; id <= n; id++) {
			double share = (i + 1.0) * counts[id] / SLOTS(12);

			assert_true(had[id] - share < 1);
			assert_true(had[id] - share > -1);
		}
	}
}

static void round_robin_is_smooth(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed < 12; seed++) {
		size_t n = (size_t)seed * seed;

		make_members(n, 1);
		random_state = seed;
		for (size_t i = 0; i < n; i++)
			members[i].weight = 1 + draw(50);
		table_round_robin(members, n, 12, table);
		assert_smooth(n);
	}
}

static void round_robin_takes_turns(void **state)
{
	(void)state;
	make_members(4, 7);
	table_round_robin(members, 4, 8, table);
	for (uint32_t i = 0; i < SLOTS(8); i++)
		assert_int_equal(table[i], i % 4 + 1);
	make_members(3, 1);
	members[0].weight = 2;
	table_round_robin(members, 3, 8, table);
	for (uint32_t i = 0; i + 4 <= SLOTS(8); i += 4) {
		uint32_t seen[4] = { 0 };

		for (uint32_t j = i; j < i + 4; j++)
			seen[table[j]]++;
		assert_int_equal(seen[1], 2);
		assert_int_equal(seen[2], 1);
		assert_int_equal(seen[3], 1);
	}
}

static double milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Printed, not judged: a busy machine is no failure. */
static void speed(void **state)
{
	double best[3] = { 1e9, 1e9, 1e9 };

	(void)state;
	for (int round = 0; round < 9; round++) {
		for (size_t k = 0; k < 3; k++) {
			double start;

			make_members(500, 1);
			for (size_t i = 0; k == 1 && i < 500; i++)
				members[i].weight = 10 + (uint32_t)(i % 90);
			start = milliseconds();
			builders[k == 2](members, 500, 16, table);
			start = milliseconds() - start;
			if (start < best[k])
				best[k] = start;
		}
	}
	print_message("# 64k slots, 500 backends: maglev %.2f ms, weighted "
		      "%.2f ms, round robin %.2f ms\n",
		      best[0], best[1], best[2]);
	assert_balanced(table, 16, 500);
}

/* --- slot words --- */

static enum slot_fate fate_by_set(const void *arg, uint32_t id)
{
	const uint32_t *sets = arg;

	return sets[0] >> id & 1   ? SLOT_GONE
	       : sets[1] >> id & 1 ? SLOT_LEAVES
				   : SLOT_STAYS;
}

static uint32_t next_by(enum slot_kind kind, bool held, uint32_t word,
			uint32_t want, uint32_t dead, uint32_t leaving)
{
	const uint32_t sets[] = { dead, leaving };
	const struct slot_rules rules = { kind, held, fate_by_set, sets };

	return slot_next(word, want, &rules);
}

static uint32_t next(uint32_t word, uint32_t want, uint32_t dead)
{
	return next_by(SLOTS_HASHED, false, word, want, dead, 0);
}

/* Backends, and sets of them by their bits. */
enum { A = 1, B, C, SET_A = 1 << A, SET_B = 1 << B };

static const struct {
	uint32_t old, want, dead, result;
} hashed_rules[] = {
	/* at rest */
	{ 0, 0, 0, 0 },
	{ 0, A, 0, XLB_SLOT(A, A, XLB_REST) },
	{ XLB_SLOT(A, A, XLB_REST), A, 0, XLB_SLOT(A, A, XLB_REST) },
	{ XLB_SLOT(A, A, XLB_REST), B, 0, XLB_SLOT(B, A, XLB_MOVING) },
	{ XLB_SLOT(A, A, XLB_REST), 0, 0, XLB_SLOT(0, A, XLB_MOVING) },
	{ XLB_SLOT(A, A, XLB_REST), B, SET_A, XLB_SLOT(B, B, XLB_REST) },
	{ XLB_SLOT(A, A, XLB_REST), 0, SET_A, 0 },
	/* moving from A to B */
	{ XLB_SLOT(B, A, XLB_MOVING), B, 0, XLB_SLOT(B, A, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), C, 0, XLB_SLOT(C, A, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), A, 0, XLB_SLOT(A, A, XLB_SETTLED) },
	{ XLB_SLOT(B, A, XLB_MOVING), 0, 0, XLB_SLOT(0, A, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), C, SET_B, XLB_SLOT(C, A, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), A, SET_B, XLB_SLOT(A, A, XLB_SETTLED) },
	{ XLB_SLOT(B, A, XLB_MOVING), 0, SET_B, XLB_SLOT(0, A, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), B, SET_A, XLB_SLOT(B, B, XLB_SETTLED) },
	{ XLB_SLOT(B, A, XLB_MOVING), C, SET_A, XLB_SLOT(C, B, XLB_MOVING) },
	{ XLB_SLOT(B, A, XLB_MOVING), C, SET_A | SET_B,
	  XLB_SLOT(C, C, XLB_SETTLED) },
	{ XLB_SLOT(B, A, XLB_MOVING), 0, SET_A | SET_B,
	  XLB_SLOT(0, 0, XLB_SETTLED) },
	/* moving from A to nobody */
	{ XLB_SLOT(0, A, XLB_MOVING), 0, 0, XLB_SLOT(0, A, XLB_MOVING) },
	{ XLB_SLOT(0, A, XLB_MOVING), B, 0, XLB_SLOT(B, A, XLB_MOVING) },
	{ XLB_SLOT(0, A, XLB_MOVING), A, 0, XLB_SLOT(A, A, XLB_SETTLED) },
	{ XLB_SLOT(0, A, XLB_MOVING), 0, SET_A, XLB_SLOT(0, 0, XLB_SETTLED) },
	{ XLB_SLOT(0, A, XLB_MOVING), B, SET_A, XLB_SLOT(B, B, XLB_SETTLED) },
	/* settled */
	{ XLB_SLOT(B, B, XLB_SETTLED), B, 0, XLB_SLOT(B, B, XLB_SETTLED) },
	{ XLB_SLOT(B, B, XLB_SETTLED), C, 0, XLB_SLOT(C, B, XLB_MOVING) },
	{ XLB_SLOT(B, B, XLB_SETTLED), 0, 0, XLB_SLOT(0, B, XLB_MOVING) },
	{ XLB_SLOT(B, B, XLB_SETTLED), C, SET_B, XLB_SLOT(C, C, XLB_SETTLED) },
	{ XLB_SLOT(B, B, XLB_SETTLED), 0, SET_B, XLB_SLOT(0, 0, XLB_SETTLED) },
	{ XLB_SLOT(0, 0, XLB_SETTLED), C, 0, XLB_SLOT(C, C, XLB_SETTLED) },
};

static void slot_rules(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hashed_rules); i++) {
		uint32_t got = next(hashed_rules[i].old, hashed_rules[i].want,
				    hashed_rules[i].dead);

		if (got != hashed_rules[i].result)
			fail_msg("rule %zu: %08x wants %u, dead %x: %08x, not "
				 "%08x",
				 i, hashed_rules[i].old, hashed_rules[i].want,
				 hashed_rules[i].dead, got,
				 hashed_rules[i].result);
		/* Asking again changes nothing. */
		assert_int_equal(next(got, hashed_rules[i].want,
				      hashed_rules[i].dead),
				 got);
	}
}

/* What other kinds do otherwise. */
static const struct {
	enum slot_kind kind;
	bool held;
	uint32_t old, want, dead, leaving, result;
} other_rules[] = {
	/* nothing is remembered: nothing moves */
	{ SLOTS_FORGETFUL, 0, XLB_SLOT(A, A, XLB_REST), B, 0, 0,
	  XLB_SLOT(B, B, XLB_REST) },
	{ SLOTS_FORGETFUL, 0, XLB_SLOT(B, A, XLB_MOVING), B, 0, 0,
	  XLB_SLOT(B, B, XLB_REST) },
	{ SLOTS_FORGETFUL, 0, XLB_SLOT(A, A, XLB_SETTLED), 0, 0, 0, 0 },
	{ SLOTS_PICKED, 0, XLB_SLOT(A, A, XLB_REST), B, 0, 0,
	  XLB_SLOT(B, B, XLB_SETTLED) },
	{ SLOTS_PICKED, 0, XLB_SLOT(B, A, XLB_MOVING), B, 0, 0,
	  XLB_SLOT(B, B, XLB_SETTLED) },
	/* all is remembered: nothing rests */
	{ SLOTS_TRACKED, 0, 0, A, 0, 0, XLB_SLOT(A, A, XLB_SETTLED) },
	{ SLOTS_TRACKED, 0, 0, 0, 0, 0, XLB_SLOT(0, 0, XLB_SETTLED) },
	{ SLOTS_TRACKED, 0, XLB_SLOT(A, A, XLB_REST), A, 0, 0,
	  XLB_SLOT(A, A, XLB_SETTLED) },
	{ SLOTS_TRACKED, 0, XLB_SLOT(A, A, XLB_REST), B, 0, 0,
	  XLB_SLOT(B, A, XLB_MOVING) },
	{ SLOTS_TRACKED, 0, XLB_SLOT(A, A, XLB_REST), B, SET_A, 0,
	  XLB_SLOT(B, B, XLB_SETTLED) },
	{ SLOTS_TRACKED, 0, XLB_SLOT(B, A, XLB_MOVING), A, 0, 0,
	  XLB_SLOT(A, A, XLB_SETTLED) },
	/* back to hashing: the sweep brings it to rest */
	{ SLOTS_HASHED, 0, XLB_SLOT(A, A, XLB_SETTLED), A, 0, 0,
	  XLB_SLOT(A, A, XLB_SETTLED) },
	/* clients stick to what stays */
	{ SLOTS_HASHED, 1, XLB_SLOT(A, A, XLB_REST), B, 0, 0,
	  XLB_SLOT(B, A, XLB_HELD) },
	{ SLOTS_HASHED, 1, XLB_SLOT(A, A, XLB_SETTLED), B, 0, 0,
	  XLB_SLOT(B, A, XLB_HELD) },
	{ SLOTS_HASHED, 1, XLB_SLOT(A, A, XLB_REST), B, 0, SET_A,
	  XLB_SLOT(B, A, XLB_MOVING) },
	{ SLOTS_HASHED, 1, XLB_SLOT(A, A, XLB_REST), B, SET_A, 0,
	  XLB_SLOT(B, B, XLB_REST) },
	{ SLOTS_HASHED, 1, XLB_SLOT(A, A, XLB_REST), 0, 0, 0,
	  XLB_SLOT(0, A, XLB_MOVING) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), B, 0, 0,
	  XLB_SLOT(B, A, XLB_HELD) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), C, 0, 0,
	  XLB_SLOT(C, A, XLB_HELD) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), A, 0, 0,
	  XLB_SLOT(A, A, XLB_SETTLED) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), B, 0, SET_A,
	  XLB_SLOT(B, A, XLB_MOVING) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), B, SET_A, 0,
	  XLB_SLOT(B, B, XLB_SETTLED) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_HELD), C, SET_B, 0,
	  XLB_SLOT(C, A, XLB_HELD) },
	{ SLOTS_HASHED, 1, XLB_SLOT(B, A, XLB_MOVING), C, 0, 0,
	  XLB_SLOT(C, A, XLB_MOVING) },
	/* and with another algorithm they don't */
	{ SLOTS_HASHED, 0, XLB_SLOT(B, A, XLB_HELD), B, 0, 0,
	  XLB_SLOT(B, A, XLB_MOVING) },
	{ SLOTS_TRACKED, 1, XLB_SLOT(A, A, XLB_SETTLED), B, 0, 0,
	  XLB_SLOT(B, A, XLB_HELD) },
};

static void slot_kinds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(other_rules); i++) {
		uint32_t got =
			next_by(other_rules[i].kind, other_rules[i].held,
				other_rules[i].old, other_rules[i].want,
				other_rules[i].dead, other_rules[i].leaving);

		if (got != other_rules[i].result)
			fail_msg("rule %zu: %08x, not %08x", i, got,
				 other_rules[i].result);
		assert_int_equal(
			next_by(other_rules[i].kind, other_rules[i].held, got,
				other_rules[i].want, other_rules[i].dead,
				other_rules[i].leaving),
			got);
	}
}

static void slots_are_merged(void **state)
{
	const uint32_t rest = XLB_SLOT(A, A, XLB_REST),
		       settled = XLB_SLOT(A, A, XLB_SETTLED);
	const uint32_t same[] = { rest, rest }, mixed[] = { rest, settled },
		       apart[] = { rest, XLB_SLOT(B, B, XLB_REST) },
		       moves[] = { XLB_SLOT(A, B, XLB_MOVING),
				   XLB_SLOT(A, B, XLB_MOVING) },
		       held[] = { rest, XLB_SLOT(A, B, XLB_HELD) };
	uint32_t word = 0;

	(void)state;
	assert_true(slots_merge(same, 2, &word));
	assert_int_equal(word, rest);
	assert_true(slots_merge(mixed, 2, &word));
	assert_int_equal(word, settled);
	assert_false(slots_merge(apart, 2, &word));
	assert_false(slots_merge(moves, 2, &word));
	assert_false(slots_merge(held, 2, &word));
}

/*
 * Every history of one slot, three backends and two clients: changes,
 * deaths, flaps, new, closed and spoofed connections, sweeps.  What the kernel
 * does with a packet is modelled here from the table of the design.
 */
#define FLOWS 2
#define BACKENDS 3

enum phase { NEW, HALF, ESTABLISHED };

struct flow {
	uint8_t phase;
	uint8_t owner; /* the backend that holds the connection */
	uint8_t known; /* spoke since the slot began to move */
	uint8_t memory; /* established memory: backend, 0 none */
	uint8_t half; /* half-open memory: backend, 0 none */
	uint8_t half_fits; /* its sequence number is this connection's */
};

struct world {
	uint32_t word;
	uint8_t dead; /* bit by backend */
	struct flow flows[FLOWS];
};

struct search {
	uint64_t *seen; /* bitmap over packed worlds */
	struct world *queue;
	size_t count;
	uint64_t wrong; /* established flows sent elsewhere */
	bool naive; /* leave out what the rules do about deaths and flaps */
	bool spoof;
};

static uint64_t pack(const struct world *w)
{
	uint64_t p = XLB_SLOT_CUR(w->word) | XLB_SLOT_PREV(w->word) << 2 |
		     XLB_SLOT_STATE(w->word) << 4 | (uint32_t)w->dead >> 1 << 6;

	for (int i = 0; i < FLOWS; i++) {
		const struct flow *f = &w->flows[i];
		uint64_t bits = f->phase | f->owner << 2 | f->known << 4 |
				f->memory << 5 | f->half << 7 |
				f->half_fits << 9;

		p |= bits << (9 + 10 * i);
	}
	return p;
}

static void visit(struct search *s, const struct world *w)
{
	uint64_t p = pack(w);

	if (s->seen[p / 64] >> p % 64 & 1)
		return;
	s->seen[p / 64] |= 1ULL << p % 64;
	s->queue = mem_grow(s->queue, s->count, sizeof(*s->queue));
	s->queue[s->count++] = *w;
}

static bool lives(const struct world *w, uint32_t id)
{
	return id && !(w->dead >> id & 1);
}

/* Where a SYN goes; real: the client's own, not one with a forged source. */
static uint32_t route_syn(struct world *w, struct flow *f, bool real)
{
	uint32_t cur = XLB_SLOT_CUR(w->word), state = XLB_SLOT_STATE(w->word);

	if (state == XLB_REST || !cur)
		return cur;
	if (real && (state == XLB_MOVING || lives(w, f->memory))) {
		f->half = (uint8_t)cur;
		f->half_fits = 1;
	}
	return cur;
}

static uint32_t route_data(struct world *w, struct flow *f)
{
	uint32_t state = XLB_SLOT_STATE(w->word);

	if (state == XLB_REST)
		return XLB_SLOT_CUR(w->word);
	if (f->half_fits && lives(w, f->half)) {
		f->memory = f->half;
		f->half = f->half_fits = 0;
	}
	if (lives(w, f->memory))
		return f->memory;
	if (state != XLB_MOVING)
		return XLB_SLOT_CUR(w->word);
	f->memory = (uint8_t)XLB_SLOT_PREV(w->word);
	return f->memory;
}

static void flow_steps(struct search *s, const struct world *from, int i)
{
	struct world w = *from;
	struct flow *f = &w.flows[i];

	if (f->phase == NEW) {
		f->owner = (uint8_t)route_syn(&w, f, true);
		if (!lives(&w, f->owner))
			return;
		f->phase = HALF;
		f->known = 1;
		visit(s, &w);
		w = *from; /* memories of a closed connection run out */
		f->memory = f->half = f->half_fits = 0;
		visit(s, &w);
		return;
	}
	if (f->phase == HALF) {
		/* The handshake's last packet is the first that has data. */
		f->phase = ESTABLISHED;
	}
	if (route_data(&w, f) != f->owner)
		s->wrong++;
	f->known = 1;
	visit(s, &w);
	w = *from;
	f->phase = NEW;
	f->owner = f->known = f->half_fits = 0;
	visit(s, &w);
	if (!s->spoof)
		return;
	w = *from;
	route_syn(&w, f, false);
	visit(s, &w);
}

/* The rules without their care: what the search must be able to catch. */
static uint32_t naive_next(uint32_t old, uint32_t want, uint32_t dead)
{
	uint32_t cur = XLB_SLOT_CUR(old), prev = XLB_SLOT_PREV(old);

	if (XLB_SLOT_STATE(old) == XLB_MOVING && cur != want)
		return want == prev ? XLB_SLOT(want, want, XLB_REST)
				    : XLB_SLOT(want, prev, XLB_MOVING);
	if (cur != want && cur && !(dead >> cur & 1))
		return XLB_SLOT(want, cur, XLB_MOVING);
	return cur == want ? old : XLB_SLOT(want, want, XLB_REST);
}

static void move_slot(struct search *s, const struct world *from, uint8_t dead,
		      uint32_t want)
{
	struct world w = *from;
	bool began;

	w.dead = dead;
	w.word = s->naive ? naive_next(w.word, want, dead)
			  : next(w.word, want, dead);
	began = XLB_SLOT_STATE(w.word) == XLB_MOVING &&
		(XLB_SLOT_STATE(from->word) != XLB_MOVING ||
		 XLB_SLOT_PREV(w.word) != XLB_SLOT_PREV(from->word));
	for (int i = 0; i < FLOWS; i++) {
		struct flow *f = &w.flows[i];

		if (f->phase != NEW && !lives(&w, f->owner)) {
			f->phase = NEW;
			f->owner = f->known = f->half_fits = 0;
		}
		if (began)
			f->known = 0;
	}
	visit(s, &w);
}

static void slot_steps(struct search *s, const struct world *from)
{
	struct world w = *from;
	bool all_known = true, memories = false;

	for (uint32_t set = 0; set < 1 << BACKENDS; set++) {
		uint8_t dead = (uint8_t)(set << 1);

		if ((dead & from->dead) != from->dead)
			continue;
		for (uint32_t want = 0; want <= BACKENDS; want++)
			if (!(dead >> want & 1))
				move_slot(s, from, dead, want);
	}
	for (int i = 0; i < FLOWS; i++) {
		const struct flow *f = &from->flows[i];

		all_known =
			all_known && (f->phase == NEW ||
				      (f->phase == ESTABLISHED && f->known));
		memories = memories || f->memory || f->half;
	}
	if (XLB_SLOT_STATE(w.word) == XLB_MOVING && all_known)
		w.word = XLB_SLOT(XLB_SLOT_CUR(w.word), XLB_SLOT_CUR(w.word),
				  XLB_SETTLED);
	else if (XLB_SLOT_STATE(w.word) == XLB_SETTLED && !memories)
		w.word = XLB_SLOT(XLB_SLOT_CUR(w.word), XLB_SLOT_CUR(w.word),
				  XLB_REST);
	visit(s, &w);
}

static void search_all(struct search *s)
{
	struct world start = { .word = XLB_SLOT(1, 1, XLB_REST) };

	s->seen = mem_array((1ULL << (9 + 10 * FLOWS)) / 64, sizeof(uint64_t));
	visit(s, &start);
	for (size_t i = 0; i < s->count; i++) {
		struct world w = s->queue[i];

		slot_steps(s, &w);
		for (int f = 0; f < FLOWS; f++)
			flow_steps(s, &w, f);
	}
	free(s->seen);
	free(s->queue);
}

static void no_history_breaks_a_flow(void **state)
{
	struct search s = { .spoof = true };

	(void)state;
	search_all(&s);
	print_message("# %zu worlds\n", s.count);
	assert_true(s.count > 10000);
	assert_int_equal(s.wrong, 0);
}

/* The search is worth something: it finds the flaws of simpler rules. */
static void naive_rules_break_flows(void **state)
{
	struct search s = { .naive = true };

	(void)state;
	search_all(&s);
	assert_true(s.wrong > 0);
}

/* --- VIP table --- */

static struct xlb_vip vips[XLB_VIP_MAX + 1];

static void make_vip(struct xlb_vip *v, uint32_t i, bool v6, uint16_t port,
		     uint8_t proto)
{
	memset(v, 0, sizeof(*v));
	v->family = v6 ? 6 : 4;
	v->addr[0] = htonl(v6 ? 0x20010db8 : 0xc0000200 + i);
	v->addr[3] = htonl(v6 ? i : 0);
	v->port = htons(port);
	v->proto = proto;
	v->service = (uint16_t)(i + 1);
}

/* 4096 keys: four ports, two protocols, half of each family. */
static void make_vips(void)
{
	static const uint16_t ports[] = { 53, 80, 443, 8080 };

	for (uint32_t i = 0; i < XLB_VIP_MAX; i++)
		make_vip(&vips[i], i / 16, i & 8, ports[i & 3],
			 i & 4 ? IPPROTO_UDP : IPPROTO_TCP);
}

static void assert_found_all(const struct vip_table *t, size_t count)
{
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		const struct xlb_vip *v =
			vip_table_find(t, vips[i].addr, vips[i].family,
				       vips[i].port, vips[i].proto);

		assert_non_null(v);
		assert_memory_equal(v, &vips[i], sizeof(*v));
	}
	for (size_t i = 0; i < XLB_VIP_LINES; i++)
		used += t->lines[i].proto != 0;
	assert_int_equal(used, count);
}

static void vips_are_found(void **state)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));
	double ms = 1e9;

	(void)state;
	make_vips();
	for (uint64_t seed = 1; seed < 100; seed++) {
		double start = milliseconds();

		assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, seed, t),
				 0);
		start = milliseconds() - start;
		if (start < ms)
			ms = start;
		assert_found_all(t, XLB_VIP_MAX);
	}
	print_message("# 4096 VIPs: %.2f ms\n", ms);
}

/* Keys in rows: one address with all ports, addresses in sequence, zero seed. */
static void regular_vips_are_found(void **state)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));

	(void)state;
	for (int v6 = 0; v6 < 2; v6++) {
		for (uint32_t i = 0; i < XLB_VIP_MAX; i++)
			make_vip(&vips[i], 1, v6, (uint16_t)i, IPPROTO_TCP);
		assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, 0, t), 0);
		assert_found_all(t, XLB_VIP_MAX);
		for (uint32_t i = 0; i < XLB_VIP_MAX; i++)
			make_vip(&vips[i], i / 64, v6, (uint16_t)(i % 32),
				 i & 32 ? IPPROTO_TCP : IPPROTO_UDP);
		assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, 0, t), 0);
		assert_found_all(t, XLB_VIP_MAX);
		for (uint32_t i = 0; i < XLB_VIP_MAX; i++)
			make_vip(&vips[i], i, v6, 80, IPPROTO_TCP);
		assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, 0, t), 0);
		assert_found_all(t, XLB_VIP_MAX);
	}
}

static void absent_vips_are_not_found(void **state)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));
	uint32_t zero[4] = { 0 };

	(void)state;
	make_vips();
	assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, 7, t), 0);
	for (uint32_t i = 0; i < XLB_VIP_MAX; i++) {
		const struct xlb_vip *v = &vips[i];
		uint32_t addr[4];

		memcpy(addr, v->addr, sizeof(addr));
		assert_null(vip_table_find(t, addr, v->family, htons(81),
					   v->proto));
		assert_null(vip_table_find(t, addr, v->family, v->port,
					   IPPROTO_ICMP));
		assert_null(vip_table_find(t, addr, v->family == 4 ? 6 : 4,
					   v->port, v->proto));
		addr[v->family == 6 ? 3 : 0] ^= htonl(0x10000);
		assert_null(
			vip_table_find(t, addr, v->family, v->port, v->proto));
	}
	assert_null(vip_table_find(t, zero, 0, 0, 0));
	assert_null(vip_table_find(t, zero, 4, 0, 0));
}

static void duplicate_vips_are_refused(void **state)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));

	(void)state;
	make_vips();
	assert_int_equal(vip_table_build(vips, XLB_VIP_MAX + 1, 1, t), -E2BIG);
	for (uint32_t i = 1; i < XLB_VIP_MAX; i += 97) {
		struct xlb_vip keep = vips[i];

		vips[i] = vips[i - 1];
		vips[i].service = 99; /* not part of the key */
		assert_int_equal(vip_table_build(vips, XLB_VIP_MAX, i, t),
				 -EEXIST);
		vips[i] = keep;
	}
}

static void no_vips(void **state)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));

	(void)state;
	make_vips();
	memset(t, 0xff, sizeof(*t));
	assert_int_equal(vip_table_build(NULL, 0, 1, t), 0);
	assert_null(vip_table_find(t, vips[0].addr, vips[0].family,
				   vips[0].port, vips[0].proto));
	assert_found_all(t, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(full_and_balanced),
		cmocka_unit_test(weights_are_shares),
		cmocka_unit_test(extreme_weights),
		cmocka_unit_test(nobody),
		cmocka_unit_test(more_members_than_slots),
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(names_are_identity),
		cmocka_unit_test(tables_never_change),
		cmocka_unit_test(changes_move_little),
		cmocka_unit_test(reweighting_moves_little),
		cmocka_unit_test(round_robin_is_smooth),
		cmocka_unit_test(round_robin_takes_turns),
		cmocka_unit_test(speed),
		cmocka_unit_test(slot_rules),
		cmocka_unit_test(slot_kinds),
		cmocka_unit_test(slots_are_merged),
		cmocka_unit_test(no_history_breaks_a_flow),
		cmocka_unit_test(naive_rules_break_flows),
		cmocka_unit_test(vips_are_found),
		cmocka_unit_test(regular_vips_are_found),
		cmocka_unit_test(absent_vips_are_not_found),
		cmocka_unit_test(duplicate_vips_are_refused),
		cmocka_unit_test(no_vips),
	};

	return cmocka_run_group_tests_name("tables", tests, NULL, NULL);
}
