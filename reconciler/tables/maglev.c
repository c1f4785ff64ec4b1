/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4).
 *
 * Every member owns a permutation of the slots, offset + j * skip, made from
 * its name alone; the members take turns, each claiming the first slot of its
 * permutation that is still free.  The paper takes a prime number of slots so
 * that any skip gives a permutation; here it is a power of two (a table can
 * then grow by doubling) and skips are odd, which does the same.
 *
 * Weights as in katran's second method: each round every member earns its
 * weight, and whoever has earned the largest weight takes a turn for it.
 *
 * Walking the permutations costs about slots/free steps a turn, so that the
 * last slots cost more than all the others.  An odd skip has an inverse modulo
 * a power of two: once few slots are free, each one's rank in a permutation is
 * computed directly, and the smallest rank is where the walk would have ended.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tables/members.h"

#define FEW_FREE 256 /* sqrt of the largest table: where both ways cost alike */

struct claimant {
	uint64_t credit; /* earned and not spent yet */
	uint32_t weight;
	uint32_t id;
	uint32_t position; /* next slot to try; all before it are taken */
	uint32_t skip; /* odd */
	uint32_t inverse; /* skip * inverse == 1 modulo 2^32 */
};

struct claims {
	uint32_t mask; /* slots - 1 */
	uint32_t left; /* free slots */
	uint64_t *taken; /* one bit a slot */
	uint32_t few[FEW_FREE]; /* the free slots, once no more are left */
};

/* Multiply to 128 bits and fold: every input bit reaches every output bit. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/*
 * Part of what balancers must agree on: never change it, or every table in
 * every kernel changes with the next version.
 */
static uint64_t name_hash(const char *name)
{
	uint64_t hash = 0x243F6A8885A308D3ULL, word = 0;
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++) {
		word |= (uint64_t)(unsigned char)name[i] << (i % 8 * 8);
		if (i % 8 != 7 && i + 1 != len)
			continue;
		hash = mix(hash ^ word, 0x9E3779B97F4A7C15ULL);
		word = 0;
	}
	return mix(hash ^ len, 0xD6E8FEB86659FD93ULL);
}

/* Newton's iteration; x is right to 3 bits, each step doubles them. */
static uint32_t odd_inverse(uint32_t odd)
{
	uint32_t x = odd;

	for (int i = 0; i < 4; i++)
		x *= 2 - odd * x;
	return x;
}

static void claimant_init(struct claimant *c, const struct table_member *m,
			  uint32_t mask)
{
	uint64_t hash = name_hash(m->name);

	c->weight = m->weight;
	c->id = m->id;
	c->position = (uint32_t)(hash >> 32) & mask;
	c->skip = ((uint32_t)hash & mask) | 1;
	c->inverse = odd_inverse(c->skip);
}

static void list_free_slots(struct claims *s)
{
	uint32_t n = 0;

	for (uint32_t slot = 0; slot <= s->mask; slot++)
		if (!(s->taken[slot / 64] >> slot % 64 & 1))
			s->few[n++] = slot;
}

static uint32_t claim_of_few(struct claims *s, const struct claimant *c)
{
	uint32_t best = 0, best_rank = UINT32_MAX, slot;

	for (uint32_t i = 0; i < s->left; i++) {
		uint32_t rank =
			((s->few[i] - c->position) * c->inverse) & s->mask;

		if (rank < best_rank) {
			best_rank = rank;
			best = i;
		}
	}
	slot = s->few[best];
	s->few[best] = s->few[s->left - 1];
	return slot;
}

static uint32_t claim_by_walking(struct claims *s, struct claimant *c)
{
	uint32_t slot = c->position;

	while (s->taken[slot / 64] >> slot % 64 & 1)
		slot = (slot + c->skip) & s->mask;
	s->taken[slot / 64] |= 1ULL << slot % 64;
	c->position = (slot + c->skip) & s->mask;
	return slot;
}

static uint32_t claim(struct claims *s, struct claimant *c)
{
	uint32_t slot;

	if (s->left > FEW_FREE) {
		slot = claim_by_walking(s, c);
		if (s->left - 1 == FEW_FREE)
			list_free_slots(s);
	} else {
		slot = claim_of_few(s, c);
	}
	s->left--;
	return slot;
}

static void take_turns(struct claims *s, struct claimant *claimants,
		       size_t count, uint32_t *owner)
{
	uint32_t heaviest = 0;

	for (size_t i = 0; i < count; i++)
		if (claimants[i].weight > heaviest)
			heaviest = claimants[i].weight;
	while (s->left) {
		for (size_t i = 0; i < count && s->left; i++) {
			struct claimant *c = &claimants[i];

			c->credit += c->weight;
			if (c->credit < heaviest)
				continue;
			c->credit -= heaviest;
			owner[claim(s, c)] = c->id;
		}
	}
}

void table_maglev(const struct table_member *members, size_t count,
		  uint8_t log2, uint32_t *owner)
{
	uint32_t slots = 1U << log2;
	AUTO_FREE const struct table_member **sorted =
		members_sorted(members, count, &count);
	AUTO_FREE struct claimant *claimants =
		mem_array(count, sizeof(*claimants));
	AUTO_FREE uint64_t *taken = mem_array(slots / 64 + 1, sizeof(*taken));
	struct claims s = { .mask = slots - 1, .left = slots, .taken = taken };

	memset(owner, 0, slots * sizeof(*owner));
	if (!count)
		return;
	for (size_t i = 0; i < count; i++)
		claimant_init(&claimants[i], sorted[i], s.mask);
	if (s.left <= FEW_FREE)
		list_free_slots(&s);
	take_turns(&s, claimants, count, owner);
}
