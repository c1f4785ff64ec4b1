/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which backend: the flow's hash indexes the service's table of slots.  At
 * rest that is all; a slot under change, and round robin, ask track.h.
 */
#ifndef SELECT_H
#define SELECT_H

#include "parse.h"
#include "track.h"

const volatile __u64 flow_seed = 0;

/*
 * Seeded hash of a flow.  Its high 32 bits index the service's table and the
 * lines of memories.
 */
static __always_inline __u64 flow_hash_v4(const struct xlb_vip *vip,
					  __be32 client, __u32 ports)
{
	__u64 hash = (((__u64)client << 32 | ports) ^ flow_seed) * MIX_A;

	(void)vip;
	return (hash ^ (hash >> 32)) * MIX_B;
}

static __always_inline __u64 flow_hash_v6(const struct xlb_vip *vip, __u64 lo,
					  __u64 hi, __u32 ports)
{
	__u64 hash =
		(lo ^ flow_seed) * MIX_A + (hi ^ (flow_seed >> 32)) * MIX_B;

	(void)vip;
	hash = (hash ^ (hash >> 32) ^ (__u64)ports << 16) * MIX_A;
	return (hash ^ (hash >> 32)) * MIX_B;
}

static __always_inline __u64 flow_dest_v4(__be32 vip, __u8 proto)
{
	return vip | (__u64)proto << 32;
}

static __always_inline __u64 flow_dest_v6(__u64 lo, __u64 hi, __u8 proto)
{
	return (lo ^ hi * MIX_A) + proto;
}

static __always_inline __u32 slot_read(__u32 index)
{
	__u32 key = index / XLB_LINE_SLOTS;
	struct xlb_slot_line *line = bpf_map_lookup_elem(&slots, &key);

	if (!line)
		return 0;
	return *(volatile __u32 *)&line->slot[MASK(index, XLB_LINE_SLOTS - 1)];
}

static __always_inline __u32 slot_of(const struct xlb_vip *vip, __u64 hash)
{
	return slot_read(vip->slot_base +
			 ((__u32)(hash >> 32) >> (vip->slot_shift & 31)));
}

/* Is the slot's word all there is to know? */
static __always_inline bool slot_decides(const struct xlb_vip *vip, __u32 word)
{
	if (HAS(SCHEDULE) && (vip->flags & XLB_VIP_SCHEDULE))
		return false;
	return XLB_SLOT_STATE(word) == XLB_REST || vip->proto == IPPROTO_UDP;
}

/* This CPU's next slot of the service; each CPU walks the table by itself. */
static __noinline __u32 round_robin_next(const struct xlb_vip *vip)
{
	__u32 key = bpf_get_smp_processor_id() * XLB_SERVICES +
		    (vip->service & (XLB_SERVICES - 1));
	__u32 *cursor = bpf_map_lookup_elem(&cursors, &key);
	__u32 shift = vip->slot_shift & 31;

	if (!cursor)
		return 0;
	return XLB_SLOT_CUR(
		slot_read(vip->slot_base + ((*cursor)++ << shift >> shift)));
}

/* The choices that a flow has, from the word of the slot it hashes to. */
static __always_inline void flow_choices(const struct xlb_vip *vip, __u32 word,
					 struct flow *f)
{
	__u32 state = XLB_SLOT_STATE(word);

	f->owner = f->fallback = XLB_SLOT_CUR(word);
	if (HAS(SCHEDULE) && (vip->flags & XLB_VIP_SCHEDULE)) {
		f->keep_new = true;
		return;
	}
	if (state != XLB_MOVING)
		return;
	f->keep_new = f->keep_old = true;
	if (XLB_SLOT_PREV(word))
		f->fallback = XLB_SLOT_PREV(word);
}

/*
 * The backend of a packet whose slot doesn't decide alone.  f carries hash,
 * dest, seq, payload and syn.
 */
static __always_inline __u32 select_tracked(const struct xlb_vip *vip,
					    __u32 word, struct flow *f)
{
	bool turns = HAS(SCHEDULE) && (vip->flags & XLB_VIP_SCHEDULE);

	flow_choices(vip, word, f);
	if (turns && (f->syn || vip->proto == IPPROTO_UDP))
		f->owner = round_robin_next(vip) ?: f->owner;
	if (vip->proto == IPPROTO_UDP)
		return f->owner;
	return track_select(f);
}

#endif
