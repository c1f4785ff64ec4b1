/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which backend.  The flow's hash indexes the service's table of slots, and
 * at rest the word found there is all there is to know.
 *
 * Else the flow may be remembered, and the memory comes before the slot:
 *
 * SYN    a half-open memory of the same sequence number: its backend.  Else a
 *        new flow: to the owner of the slot, to the backend its client sticks
 *        to, or to the one that the algorithm picks.  Where the packets after
 *        it would go elsewhere it is remembered as half-open, under the number
 *        that the next one must carry; if it can't be, it goes where they go.
 *        No other memory is ever touched by a SYN, which may be forged.
 * other  a half-open memory with this sequence number becomes established;
 *        else the memory of the flow; else the slot: while it moves, prev,
 *        which is remembered, at first as seen once.
 * UDP    the same without the handshake, where flows stick; else nothing is
 *        remembered.
 */
#ifndef SELECT_H
#define SELECT_H

#include "parse.h"
#include "track.h"

const volatile __u64 flow_seed = 0;

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/*
 * The high bits of the flow's hash are its client's where clients stick, as
 * many as index the service's table: so a client's flows share a slot but not
 * a line of memories.
 */
static __always_inline struct flow_hash
flow_hash_of(const struct xlb_vip *vip, __u64 flow, __u64 client)
{
	__u64 low = (1ULL << 32 << (vip->slot_shift & 31)) - 1;

	return (struct flow_hash){ .flow = (client & ~low) | (flow & low),
				   .client = client };
}

static __always_inline bool by_client(const struct xlb_vip *vip)
{
	return HAS(CLIENT_HASH) && (vip->flags & XLB_VIP_CLIENT_HASH);
}

static __always_inline __u64 mix_v4(__be32 client, __u32 ports)
{
	__u64 hash = (((__u64)client << 32 | ports) ^ flow_seed) * MIX_A;

	return (hash ^ (hash >> 32)) * MIX_B;
}

static __always_inline __u64 mix_v6(__u64 lo, __u64 hi, __u32 ports)
{
	__u64 hash =
		(lo ^ flow_seed) * MIX_A + (hi ^ (flow_seed >> 32)) * MIX_B;

	hash = (hash ^ (hash >> 32) ^ (__u64)ports << 16) * MIX_A;
	return (hash ^ (hash >> 32)) * MIX_B;
}

/*
 * Seeded hash of a flow.  Its high 32 bits index the service's table and the
 * lines of memories.
 */
static __always_inline struct flow_hash
flow_hash_v4(const struct xlb_vip *vip, __be32 client, __u32 ports)
{
	__u64 flow = mix_v4(client, ports);

	if (by_client(vip))
		return flow_hash_of(vip, flow, mix_v4(client, 0));
	return (struct flow_hash){ .flow = flow, .client = flow };
}

static __always_inline struct flow_hash
flow_hash_v6(const struct xlb_vip *vip, __u64 lo, __u64 hi, __u32 ports)
{
	__u64 flow = mix_v6(lo, hi, ports);

	if (by_client(vip))
		return flow_hash_of(vip, flow, mix_v6(lo, hi, 0));
	return (struct flow_hash){ .flow = flow, .client = flow };
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

static __always_inline __u32 slot_of(const struct xlb_vip *vip,
				     struct flow_hash hash)
{
	return slot_read(vip->slot_base +
			 ((__u32)(hash.flow >> 32) >> (vip->slot_shift & 31)));
}

/* Is the slot's word all there is to know? */
static __always_inline bool slot_decides(const struct xlb_vip *vip, __u32 word)
{
	(void)vip;
	return XLB_SLOT_STATE(word) == XLB_REST;
}

static __always_inline bool sticks(const struct xlb_vip *vip)
{
	return HAS(STICKY) && (vip->flags & XLB_VIP_STICKY);
}

static __always_inline bool picks(const struct xlb_vip *vip)
{
	return (HAS(SCHEDULE) || HAS(RANDOM) || HAS(TWO_CHOICES)) &&
	       (vip->flags & XLB_VIP_PICKS);
}

/*
 * The choices that a flow has, from the word of the slot it hashes to.
 * Stateless UDP whose words aren't at rest has none: only a pick.
 */
static __always_inline void flow_choices(const struct xlb_vip *vip, __u32 word,
					 struct flow *f)
{
	__u32 cur = XLB_SLOT_CUR(word), prev = XLB_SLOT_PREV(word);

	f->state = (__u8)XLB_SLOT_STATE(word);
	f->owner = f->fallback = cur;
	if (vip->proto == IPPROTO_UDP && !sticks(vip)) {
		f->fallback = 0;
		return;
	}
	if (!prev || (f->state != XLB_MOVING && f->state != XLB_HELD))
		return;
	f->keep_old = true;
	f->fallback = prev;
	if (f->state == XLB_HELD)
		f->owner = prev;
}

/* This CPU's next of the schedule; each CPU walks it by itself. */
static __always_inline __u32 pick_turn(const struct xlb_vip *vip)
{
	__u32 key = bpf_get_smp_processor_id() * XLB_SERVICES +
		    (vip->service & (XLB_SERVICES - 1));
	__u32 *cursor = bpf_map_lookup_elem(&cursors, &key);
	__u32 shift = vip->schedule_shift & 31;

	if (!cursor)
		return 0;
	return XLB_SLOT_CUR(slot_read(vip->schedule_base +
				      ((*cursor)++ << shift >> shift)));
}

/* The owner of the slot that the high bits of a random number name. */
static __always_inline __u32 pick_any(const struct xlb_vip *vip, __u32 random)
{
	return XLB_SLOT_CUR(slot_read(vip->slot_base +
				      (random >> (vip->slot_shift & 31))));
}

static __always_inline struct xlb_load *load_of(__u32 backend)
{
	return &tables.loads[MASK(backend, XLB_BACKENDS - 1)];
}

/* No table has more than 2^16 slots: one random number is two slots. */
static __always_inline __u32 pick_lesser(const struct xlb_vip *vip)
{
	__u32 random = bpf_get_prandom_u32();
	__u32 one = pick_any(vip, random);
	__u32 two = pick_any(vip, random << 16);

	if (!one || !two)
		return one ? one : two;
	return *(volatile __u32 *)&load_of(two)->load <
			       *(volatile __u32 *)&load_of(one)->load ?
		       two :
		       one;
}

/* The backend of a new flow as the algorithm has it; 0: the slot has it. */
__noinline __u32 pick(const struct xlb_vip *vip)
{
	if (!vip)
		return 0;
	if (HAS(SCHEDULE) && (vip->flags & XLB_VIP_SCHEDULE))
		return pick_turn(vip);
	if (HAS(TWO_CHOICES) && (vip->flags & XLB_VIP_TWO_CHOICES))
		return pick_lesser(vip);
	if (HAS(RANDOM) && (vip->flags & XLB_VIP_RANDOM))
		return pick_any(vip, bpf_get_prandom_u32());
	return 0;
}

/* A new flow went there. */
static __always_inline void load_add(const struct xlb_vip *vip, __u32 backend)
{
	struct xlb_load *l = load_of(backend);

	if (HAS(TWO_CHOICES) && (vip->flags & XLB_VIP_TWO_CHOICES))
		__sync_fetch_and_add(&l->load, l->step);
}

static __always_inline __u32 flow_target(const struct xlb_vip *vip,
					 const struct flow *f)
{
	__u32 id = 0;

	if (picks(vip))
		id = pick(vip);
	else if (by_client(vip))
		id = affinity_backend(f, vip->affinity_ticks);
	return id ? id : f->owner;
}

static __always_inline void flow_sent(const struct xlb_vip *vip,
				      const struct flow *f, __u32 backend)
{
	if (by_client(vip) && backend)
		affinity_keep(f, vip->affinity_ticks, backend);
}

static __always_inline __u32 select_syn(const struct xlb_vip *vip,
					struct xlb_flow_line *line, __u64 key,
					const struct flow *f)
{
	struct memory m;
	__u32 id;

	memory_find(line, memory_tag(key), memory_seq_tag(key, f->seq + 1), &m);
	if (m.half) {
		memory_renew(line, m.half_way, m.half, XLB_FLOW_HALF_OPEN);
		return XLB_FLOW_BACKEND(m.half);
	}
	id = flow_target(vip, f);
	if (!id || (id == f->fallback && !m.known && !picks(vip) &&
		    f->state != XLB_MOVING))
		return id;
	if (!track_half_open(line, key, f, id))
		return m.known ? XLB_FLOW_BACKEND(m.known) : f->fallback;
	load_add(vip, id);
	flow_sent(vip, f, id);
	return id;
}

/* The class of a memory after this packet; not half-open. */
static __always_inline enum xlb_flow_class
class_after(const struct xlb_vip *vip, const struct flow *f, __u64 known)
{
	if (!(vip->flags & XLB_VIP_COUNTED))
		return XLB_FLOW_ESTABLISHED;
	if (f->flags & (TCP_FIN | TCP_RST))
		return XLB_FLOW_CLOSING;
	if (XLB_FLOW_CLASS(known) == XLB_FLOW_CLOSING && !f->payload)
		return XLB_FLOW_CLOSING;
	return XLB_FLOW_ESTABLISHED;
}

static __always_inline __u32 select_other(const struct xlb_vip *vip,
					  struct xlb_flow_line *line, __u64 key,
					  const struct flow *f)
{
	__u32 tag = memory_tag(key), id;
	struct memory m;

	memory_find(line, tag, memory_seq_tag(key, f->seq), &m);
	if (m.half) {
		memory_promote(line, &m, tag, class_after(vip, f, 0));
		id = XLB_FLOW_BACKEND(m.half);
	} else if (m.known) {
		memory_renew(line, m.known_way, m.known,
			     class_after(vip, f, m.known));
		id = XLB_FLOW_BACKEND(m.known);
	} else {
		id = f->fallback;
		if (f->keep_old)
			track_sighted(line, key, id);
	}
	flow_sent(vip, f, id);
	return id;
}

static __always_inline __u32 select_datagram(const struct xlb_vip *vip,
					     struct xlb_flow_line *line,
					     __u64 key, struct flow *f)
{
	__u32 tag = memory_tag(key), id;
	struct memory m;

	memory_find(line, tag, tag, &m);
	if (m.known) {
		memory_renew(line, m.known_way, m.known, XLB_FLOW_ESTABLISHED);
		id = XLB_FLOW_BACKEND(m.known);
	} else {
		id = flow_target(vip, f);
		if (!id)
			return 0;
		f->remembered = track_sighted(line, key, id);
		if (f->remembered)
			load_add(vip, id);
		else
			id = f->fallback;
	}
	flow_sent(vip, f, id);
	return id;
}

/* Datagrams whose flows aren't remembered: each is a flow of its own. */
static __always_inline __u32 select_stateless(const struct xlb_vip *vip,
					      const struct flow *f)
{
	__u32 id = pick(vip);

	if (!id)
		return f->owner;
	load_add(vip, id);
	return id;
}

/*
 * The backend of a packet whose slot doesn't decide alone; 0: nobody.  f
 * carries hash, dest, key, and with TCP seq, payload and flags.
 */
__noinline __u32 select_tracked(const struct xlb_vip *vip, __u32 word,
				struct flow *f, struct xlb_flow_line *line)
{
	__u64 key;

	if (!vip || !f || !line)
		return 0;
	key = f->key;
	flow_choices(vip, word, f);
	if (vip->proto == IPPROTO_UDP)
		return sticks(vip) ? select_datagram(vip, line, key, f)
				   : select_stateless(vip, f);
	if ((f->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return select_syn(vip, line, key, f);
	return select_other(vip, line, key, f);
}

#endif
