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

const volatile __u32 flow_mask = 0; /* lines of the flows map - 1 */

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

struct memory {
	struct xlb_flow_line *line;
	__u32 tag; /* of the flow */
	__u32 seq_tag; /* of the flow and a sequence number */
};

static __always_inline __u32 memory_seq_tag(__u64 key, __u32 seq)
{
	__u64 mixed = (key ^ seq) * MIX_A;

	return (__u32)((mixed ^ (mixed >> 29)) * MIX_B >> 32);
}

static __always_inline __u64 memory_key(__u64 hash, __u64 dest)
{
	__u64 key = (hash ^ dest * MIX_B) * MIX_A;

	return (key ^ (key >> 32)) * MIX_B;
}

static __always_inline struct xlb_flow_line *memory_line(__u64 key)
{
	__u32 line = (__u32)key & flow_mask;

	return bpf_map_lookup_elem(&flows, &line);
}

static __always_inline __u8 backend_generation(__u32 backend)
{
	return tables.backends[MASK(backend, XLB_BACKENDS - 1)].generation;
}

static __always_inline __u64 memory_entry(__u32 tag, __u32 backend,
					  __u64 half_open)
{
	return (__u64)tag << 32 | (__u64)(tables.control.now & 0xff) << 24 |
	       (__u64)backend_generation(backend) << 16 | half_open | backend;
}

/* A memory counts only while its backend's line is the one it was made for. */
static __always_inline bool memory_live(__u64 entry)
{
	__u32 backend = XLB_FLOW_BACKEND(entry);

	return backend &&
	       backend_generation(backend) == XLB_FLOW_GENERATION(entry);
}

/*
 * The living entry of this tag and kind, 0 if there is none.  Its place is
 * stored in *ret_place.
 */
static __always_inline __u64 memory_find(struct xlb_flow_line *line, __u32 tag,
					 __u64 half_open, __u64 **ret_place)
{
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = *(volatile __u64 *)&line->entry[i];

		if (XLB_FLOW_TAG(entry) != tag ||
		    (entry & XLB_FLOW_HALF_OPEN) != half_open ||
		    !memory_live(entry))
			continue;
		*ret_place = &line->entry[i];
		return entry;
	}
	return 0;
}

/* Young again: its time becomes now.  Losing the race is harmless. */
static __always_inline void memory_touch(__u64 *place, __u64 entry)
{
	__u8 now = (__u8)tables.control.now;

	if (XLB_FLOW_TIME(entry) != now)
		__sync_val_compare_and_swap(place, entry,
					    (entry & ~(0xffULL << 24)) |
						    (__u64)now << 24);
}

static __always_inline bool memory_stale(__u64 entry)
{
	__u8 age = (__u8)tables.control.now - XLB_FLOW_TIME(entry);

	return age > XLB_FLOW_STALE || !memory_live(entry);
}

/*
 * Where a new entry may stand: an empty place, else a half-open one (a
 * different one for different flows, so that a flood doesn't always hit the
 * same), else one that is stale.  NULL: eight living established flows.
 */
static __always_inline __u64 *memory_victim(struct xlb_flow_line *line,
					    __u32 tag, __u64 *ret_entry)
{
	__u64 *victim = NULL;

#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 *place = &line->entry[(i + tag) & (XLB_FLOW_WAYS - 1)];
		__u64 entry = *(volatile __u64 *)place;

		if (!entry) {
			*ret_entry = 0;
			return place;
		}
		if (!victim && (entry & XLB_FLOW_HALF_OPEN)) {
			*ret_entry = entry;
			victim = place;
		}
	}
	if (victim)
		return victim;
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = *(volatile __u64 *)&line->entry[i];

		if (!memory_stale(entry))
			continue;
		*ret_entry = entry;
		return &line->entry[i];
	}
	return NULL;
}

static __noinline bool memory_put(struct xlb_flow_line *line, __u64 entry)
{
	__u64 old = 0;
	__u64 *place;

	if (!line)
		return false;
	place = memory_victim(line, (__u32)(entry >> 32), &old);
	return place && __sync_val_compare_and_swap(place, old, entry) == old;
}

static __always_inline __u32 track_syn(struct xlb_flow_line *line, __u64 key,
				       const struct flow *f)
{
	__u32 tag = memory_seq_tag(key, f->seq + 1);
	__u64 *place = NULL;
	__u64 known = memory_find(line, tag, XLB_FLOW_HALF_OPEN, &place);
	__u64 established;
	bool kept;

	if (known) {
		memory_touch(place, known);
		return XLB_FLOW_BACKEND(known);
	}
	established = memory_find(line, (__u32)(key >> 32), 0, &place);
	if ((!f->keep_new && !established) || !f->owner)
		return f->owner;
	kept = memory_put(line,
			  memory_entry(tag, f->owner, XLB_FLOW_HALF_OPEN));
	if (kept && f->payload)
		memory_put(line, memory_entry(memory_seq_tag(key,
							     f->seq + 1 +
								     f->payload),
					      f->owner, XLB_FLOW_HALF_OPEN));
	if (kept)
		return f->owner;
	return established ? XLB_FLOW_BACKEND(established) : f->fallback;
}

/* The handshake went on: the flow is its backend's, whatever was before. */
static __always_inline void track_promote(__u64 *place, __u64 half,
					  __u64 *old_place, __u64 old,
					  __u32 tag)
{
	__u64 entry = memory_entry(tag, XLB_FLOW_BACKEND(half), 0);

	__sync_val_compare_and_swap(place, half, entry);
	if (old)
		__sync_val_compare_and_swap(old_place, old, 0);
}

static __always_inline __u32 track_other(struct xlb_flow_line *line, __u64 key,
					 const struct flow *f)
{
	__u32 tag = (__u32)(key >> 32);
	__u64 *old_place = NULL;
	__u64 *place = NULL;
	__u64 old = memory_find(line, tag, 0, &old_place);
	__u64 half = memory_find(line, memory_seq_tag(key, f->seq),
				 XLB_FLOW_HALF_OPEN, &place);

	if (half) {
		track_promote(place, half, old_place, old, tag);
		return XLB_FLOW_BACKEND(half);
	}
	if (old) {
		memory_touch(old_place, old);
		return XLB_FLOW_BACKEND(old);
	}
	if (f->keep_old && f->fallback)
		memory_put(line, memory_entry(tag, f->fallback, 0));
	return f->fallback;
}

/* The backend of a TCP packet whose flow may be remembered. */
static __noinline __u32 track_select(const struct flow *f)
{
	__u64 key = memory_key(f->hash, f->dest);
	struct xlb_flow_line *line = memory_line(key);

	if (!line)
		return f->fallback;
	if (f->syn)
		return track_syn(line, key, f);
	return track_other(line, key, f);
}

/* The same for a packet about the flow, such as an ICMP error: only looks. */
static __always_inline __u32 track_peek(const struct flow *f)
{
	__u64 key = memory_key(f->hash, f->dest);
	struct xlb_flow_line *line = memory_line(key);
	__u64 *place = NULL;
	__u64 entry = 0;

	if (line)
		entry = memory_find(line, (__u32)(key >> 32), 0, &place);
	return entry ? XLB_FLOW_BACKEND(entry) : f->fallback;
}

#endif
