/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Just enough tracking.  A flow is remembered only where a change is under
 * way (its slot is moving or settled) or where the algorithm isn't a hash.
 *
 * SYN    a half-open memory of the same sequence number: its backend;
 *        else the new owner, remembered as half-open under the sequence
 *        number that the client's next packet must carry.  An established
 *        memory is never touched by a SYN: a spoofed one would cut a flow.
 * other  a half-open memory with this sequence number: it is promoted;
 *        else the established memory; else the fallback, which for a moving
 *        slot is `prev`, remembered at once (waiting for a second sighting
 *        belongs to the classes against floods, which aren't here yet).
 *
 * Memories stand in lines of eight.  No memory takes the place of a living
 * established one: what finds no room goes where the next packet of its flow
 * will go too, unremembered.
 */
#ifndef TRACK_H
#define TRACK_H

#include "tables.h"

const volatile __u32 flow_shift = 32; /* - log2 of the flows map's lines */

#define HALF_OPEN ((__u64)XLB_FLOW_HALF_OPEN << 15)
#define MIX_A 0x9E3779B97F4A7C15ULL
#define MIX_B 0xD6E8FEB86659FD93ULL

/* A flow in a slot that isn't simply at rest, and the choices there are. */
struct flow {
	__u64 hash; /* of the client's side and the seed */
	__u64 dest; /* of the VIP's address and protocol */
	__u32 seq; /* TCP sequence number, host order */
	__u32 payload; /* bytes of data in a SYN (fast open) */
	__u32 owner; /* backend of a new flow */
	__u32 fallback; /* backend of a flow that isn't remembered */
	bool syn;
	bool keep_new; /* remember where a SYN went */
	bool keep_old; /* remember that the fallback was taken */
};

/*
 * The line comes from the flow's hash alone, so that it is on its way from
 * memory while the tags are still being computed.
 */
static __always_inline struct xlb_flow_line *memory_line(const struct flow *f)
{
	__u32 line = (__u32)((f->hash >> 32) >> (flow_shift & 63));

	return bpf_map_lookup_elem(&flows, &line);
}

static __always_inline __u64 memory_key(const struct flow *f)
{
	return (f->hash ^ f->dest * MIX_B) * MIX_A;
}

static __always_inline __u32 memory_tag(__u64 key)
{
	return (__u32)(key >> 33);
}

static __always_inline __u32 memory_seq_tag(__u64 key, __u32 seq)
{
	return (__u32)(((key ^ seq) * MIX_B) >> 33);
}

static __always_inline __u8 backend_generation(__u32 backend)
{
	return tables.backends[MASK(backend, XLB_BACKENDS - 1)].generation;
}

static __always_inline __u64 memory_entry(__u32 tag, __u32 backend,
					  __u64 half_open)
{
	return XLB_FLOW(tag, tables.control.now, backend_generation(backend), 0,
			backend) |
	       half_open;
}

/* A memory counts only while its backend's line is the one it was made for. */
static __always_inline bool memory_live(__u64 entry)
{
	__u32 backend = XLB_FLOW_BACKEND(entry);

	return backend &&
	       backend_generation(backend) == XLB_FLOW_GENERATION(entry);
}

/* What a line knows of a flow: living entries and their ways, 0 for none. */
struct memory {
	__u64 known; /* established */
	__u64 half; /* half-open with the sequence number asked for */
	__u32 known_way;
	__u32 half_way;
};

/* By number, not pointer: clang would select pointers by bit operations. */
static __always_inline __u64 *memory_place(struct xlb_flow_line *line,
					   __u32 way)
{
	return &line->entry[MASK(way, XLB_FLOW_WAYS - 1)];
}

/* The first living entry of this tag and kind, its way in *ret_way; or 0. */
static __always_inline __u64 memory_match(struct xlb_flow_line *line, __u32 tag,
					  __u64 half_open, __u32 *ret_way)
{
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = *(volatile __u64 *)&line->entry[i];

		if (XLB_FLOW_TAG(entry) != tag ||
		    (entry & HALF_OPEN) != half_open ||
		    !memory_live(entry))
			continue;
		*ret_way = i;
		return entry;
	}
	return 0;
}

/* Most lines hold no half-open entry, which one look at all of them tells. */
static __always_inline void memory_find(struct xlb_flow_line *line, __u32 tag,
					__u32 seq_tag, struct memory *ret)
{
	__u64 any = 0;

	*ret = (struct memory){ 0 };
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++)
		any |= *(volatile __u64 *)&line->entry[i];
	ret->known = memory_match(line, tag, 0, &ret->known_way);
	if (any & HALF_OPEN)
		ret->half = memory_match(line, seq_tag, HALF_OPEN,
					 &ret->half_way);
}

/* Young again: its time becomes now.  Losing the race is harmless. */
static __always_inline void memory_touch(__u64 *place, __u64 entry)
{
	__u8 now = (__u8)tables.control.now;

	if (XLB_FLOW_TIME(entry) != now)
		__sync_val_compare_and_swap(place, entry,
					    (entry & ~(0xffULL << 25)) |
						    (__u64)now << 25);
}

static __always_inline bool memory_stale(__u64 entry)
{
	__u8 age = (__u8)tables.control.now - XLB_FLOW_TIME(entry);

	return age > XLB_FLOW_STALE || !memory_live(entry);
}

/* The first way that is empty, or with a filled line -1. */
static __always_inline int memory_empty(struct xlb_flow_line *line)
{
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++)
		if (!*(volatile __u64 *)&line->entry[i])
			return i;
	return -1;
}

/* The first way that half-open, or with `stale` outdated, entries hold. */
static __always_inline int memory_weak(struct xlb_flow_line *line, bool stale)
{
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = *(volatile __u64 *)&line->entry[i];

		if (stale ? memory_stale(entry) : entry & HALF_OPEN)
			return i;
	}
	return -1;
}

/*
 * Where a new entry may stand: an empty way; else a half-open one, of which
 * the tag says the first to try, so that a flood doesn't always hit the same;
 * else one that is stale.  -1: eight living established flows.
 */
static __always_inline int memory_victim(struct xlb_flow_line *line, __u32 tag)
{
	int way = memory_empty(line);

	if (way >= 0)
		return way;
	if (*(volatile __u64 *)memory_place(line, tag) & HALF_OPEN)
		return (int)(tag & (XLB_FLOW_WAYS - 1));
	way = memory_weak(line, false);
	return way >= 0 ? way : memory_weak(line, true);
}

static __noinline bool memory_put(struct xlb_flow_line *line, __u64 entry)
{
	__u64 *place;
	__u64 old;
	int way;

	if (!line)
		return false;
	way = memory_victim(line, XLB_FLOW_TAG(entry));
	if (way < 0)
		return false;
	place = memory_place(line, (__u32)way);
	old = *(volatile __u64 *)place;
	/* Between the choice and here a flow may have been established. */
	if (old && !(old & HALF_OPEN) && !memory_stale(old))
		return false;
	return __sync_val_compare_and_swap(place, old, entry) == old;
}

static __always_inline __u32 track_syn(struct xlb_flow_line *line, __u64 key,
				       const struct flow *f)
{
	__u32 next = f->seq + 1;
	struct memory m;
	__u64 entry;

	memory_find(line, memory_tag(key), memory_seq_tag(key, next), &m);
	if (m.half) {
		memory_touch(memory_place(line, m.half_way), m.half);
		return XLB_FLOW_BACKEND(m.half);
	}
	if ((!f->keep_new && !m.known) || !f->owner)
		return f->owner;
	entry = memory_entry(memory_seq_tag(key, next), f->owner,
			     HALF_OPEN);
	if (!memory_put(line, entry))
		return m.known ? XLB_FLOW_BACKEND(m.known) : f->fallback;
	if (f->payload)
		memory_put(line,
			   memory_entry(memory_seq_tag(key, next + f->payload),
					f->owner, HALF_OPEN));
	return f->owner;
}

/* The handshake went on: the flow is its backend's, whatever was before. */
static __always_inline void track_promote(struct xlb_flow_line *line,
					  const struct memory *m, __u32 tag)
{
	__u64 entry = memory_entry(tag, XLB_FLOW_BACKEND(m->half), 0);

	__sync_val_compare_and_swap(memory_place(line, m->half_way), m->half,
				    entry);
	if (m->known)
		__sync_val_compare_and_swap(memory_place(line, m->known_way),
					    m->known, 0);
}

static __always_inline __u32 track_other(struct xlb_flow_line *line, __u64 key,
					 const struct flow *f)
{
	__u32 tag = memory_tag(key);
	struct memory m;

	memory_find(line, tag, memory_seq_tag(key, f->seq), &m);
	if (unlikely(m.half)) {
		track_promote(line, &m, tag);
		return XLB_FLOW_BACKEND(m.half);
	}
	if (likely(m.known)) {
		memory_touch(memory_place(line, m.known_way), m.known);
		return XLB_FLOW_BACKEND(m.known);
	}
	if (f->keep_old && f->fallback)
		memory_put(line, memory_entry(tag, f->fallback, 0));
	return f->fallback;
}

/* The backend of a TCP packet whose flow may be remembered. */
static __noinline __u32 track_select(const struct flow *f)
{
	struct xlb_flow_line *line = memory_line(f);
	__u64 key = memory_key(f);

	if (!line)
		return f->fallback;
	if (f->syn)
		return track_syn(line, key, f);
	return track_other(line, key, f);
}

/* The same for a packet about the flow, such as an ICMP error: only looks. */
static __always_inline __u32 track_peek(const struct flow *f)
{
	struct xlb_flow_line *line = memory_line(f);
	__u32 tag = memory_tag(memory_key(f));
	struct memory m = { 0 };

	if (line)
		memory_find(line, tag, 0, &m);
	return m.known ? XLB_FLOW_BACKEND(m.known) : f->fallback;
}

#endif
