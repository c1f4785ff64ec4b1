/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The compiler's back end: backend sets to slot tables, VIPs to a
 * collision-free hash table, and the rules by which one slot word follows
 * another.  Pure: no I/O, no clock, no static state.
 */
#ifndef TABLES_TABLES_H
#define TABLES_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/xlb.h"

/* A candidate for slots.  weight 0 takes none. */
struct table_member {
	const char *name; /* identity: the same name gets the same slots */
	uint32_t id; /* backend id, 1..XLB_BACKENDS-1 */
	uint32_t weight;
};

/* Slots for a declared maximum of backends: power of two, 256..65536. */
uint8_t table_log2_for(size_t max_backends);

/*
 * Maglev (Eisenbud et al., NSDI 2016, section 3.4) over 1 << log2 slots with
 * odd skips and katran's weights: owner[i] = backend id, 0 everywhere when no
 * member has weight.  Depends only on the set of (name, id, weight), not on
 * its order.  Members beyond the number of slots get none.
 */
void table_maglev(const struct table_member *members, size_t count,
		  uint8_t log2, uint32_t *owner);

/* Smooth weighted round robin laid out over 1 << log2 slots, same contract. */
void table_round_robin(const struct table_member *members, size_t count,
		       uint8_t log2, uint32_t *owner);

/* What a service's slots keep of flows: of its algorithm, protocol and mode. */
enum slot_kind {
	SLOTS_HASHED, /* what a change needs, and nothing at rest */
	SLOTS_TRACKED, /* every flow: no slot is at rest */
	SLOTS_FORGETFUL, /* nothing: always at rest */
	SLOTS_PICKED, /* nothing, and packets don't ask the slot: settled */
};

/* What becomes of a backend. */
enum slot_fate {
	SLOT_STAYS, /* takes new flows */
	SLOT_LEAVES, /* takes none, but those that it has go on */
	SLOT_GONE, /* its flows can't be kept */
};

struct slot_rules {
	enum slot_kind kind;
	bool held; /* clients stick to a backend that stays (source_hash) */
	enum slot_fate (*fate)(const void *arg, uint32_t id); /* id isn't 0 */
	const void *arg;
};

/*
 * The word that follows `old` when the slot should belong to `want` (0: to
 * nobody), by the rules of just-enough tracking.  A slot that is empty or
 * whose owner is gone changes in place; a slot at rest that changes becomes
 * moving; see slot.c for the whole table.
 */
uint32_t slot_next(uint32_t old, uint32_t want, const struct slot_rules *r);

/*
 * The word of one slot that takes the place of several; false: they differ,
 * or something is moving.
 */
bool slots_merge(const uint32_t *words, uint32_t count, uint32_t *ret);

/* One built copy of the VIP table, ready to be copied into the spare (528 KiB). */
struct vip_table {
	uint64_t seed;
	uint32_t displacement[XLB_VIP_BUCKETS];
	struct xlb_vip lines[XLB_VIP_LINES];
};

/*
 * Hash and displace: place all `count` VIPs without collision.
 * 0, -E2BIG over XLB_VIP_MAX, -EEXIST when two are the same triple, -EAGAIN
 * when no seed was found (not to be expected).  ret->seed is the one that was
 * used, which need not be the one given.  ret is undefined on failure.
 */
int vip_table_build(const struct xlb_vip *vips, size_t count, uint64_t seed,
		    struct vip_table *ret);
/* Every used line is where a lookup of its key comes to. */
bool vip_lines_whole(uint64_t seed, const uint32_t *displacement,
		     const struct xlb_vip *lines);
const struct xlb_vip *vip_table_find(const struct vip_table *t,
				     const uint32_t addr[4], int family,
				     uint16_t port_be, uint8_t proto);

#endif
