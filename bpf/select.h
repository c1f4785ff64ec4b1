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
 *        No other memory is ever changed by a SYN, which may be forged; one
 *        is touched only by a SYN that follows it.
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

/* Does the client alone index the table, for some of its packets at least? */
static __always_inline bool by_client(const struct xlb_vip *vip)
{
	return HAS(CLIENT_HASH) && vip && (vip->flags & XLB_VIP_CLIENT);
}

/* Do a client's new flows go together, as far as can be? */
static __always_inline bool clients_stick(const struct xlb_vip *vip)
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
 * Seeded hash of a flow, whose high 32 bits index the lines of memories and,
 * where the client's don't, the service's table.  A client's flows may share a
 * slot but never a line, and what is remembered is found by any algorithm.
 */
static __always_inline struct flow_hash flow_hash_v4(const struct xlb_vip *vip,
						     __be32 client, __u32 ports)
{
	__u64 flow = mix_v4(client, ports);

	if (by_client(vip))
		return (struct flow_hash){ flow, mix_v4(client, 0) };
	return (struct flow_hash){ .flow = flow, .client = flow };
}

static __always_inline struct flow_hash
flow_hash_v6(const struct xlb_vip *vip, __u64 lo, __u64 hi, __u32 ports)
{
	__u64 flow = mix_v6(lo, hi, ports);

	if (by_client(vip))
		return (struct flow_hash){ flow, mix_v6(lo, hi, 0) };
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

static __always_inline __u32 slot_by(const struct xlb_vip *vip, __u64 hash)
{
	return slot_read(vip->slot_base +
			 ((__u32)(hash >> 32) >> (vip->slot_shift & 31)));
}

/* The slot of a new flow, and of any other except in slot_word(). */
static __always_inline __u32 slot_of(const struct xlb_vip *vip,
				     struct flow_hash hash)
{
	return slot_by(vip, clients_stick(vip) ? hash.client : hash.flow);
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

/* What a word says of the flows of its slot. */
struct choices {
	__u32 owner; /* backend of a new one */
	__u32 fallback; /* of one that isn't remembered */
	bool moving; /* the fallback is to be remembered */
};

static __always_inline struct choices choices_of(__u64 word)
{
	__u32 cur = XLB_SLOT_CUR(word), prev = XLB_SLOT_PREV(word);
	__u32 state = XLB_SLOT_STATE((__u32)word);
	bool moving = prev && (state == XLB_MOVING || state == XLB_HELD);

	return (struct choices){
		.owner = moving && state == XLB_HELD ? prev : cur,
		.fallback = moving ? prev : cur,
		.moving = moving,
	};
}

/*
 * What stands for the slot of a flow while the service changes from clients'
 * slots to flows' or back: the flow moves from where packets of old flows go
 * to where new ones do.  word: its slot_of(), which is any other time's answer.
 */
static __always_inline __u32 slot_word(const struct xlb_vip *vip, __u32 word,
				       const struct flow_hash *hash)
{
	__u32 flags = vip->flags & XLB_VIP_CLIENT, old;

	if (!HAS(CLIENT_HASH) || !flags || flags == XLB_VIP_CLIENT)
		return word;
	old = slot_by(vip,
		      flags == XLB_VIP_CLIENT_OLD ? hash->client : hash->flow);
	return XLB_SLOT(choices_of(word).owner, choices_of(old).fallback,
			XLB_MOVING);
}

/*
 * The same for a flow that is only asked about: of datagrams that aren't
 * remembered nobody knows where they went.
 */
static __always_inline void flow_choices(const struct xlb_vip *vip, __u32 word,
					 struct flow *f)
{
	bool unknown = vip->proto == IPPROTO_UDP && !sticks(vip);

	f->fallback =
		unknown ? 0
			: choices_of(slot_word(vip, word, &f->hash)).fallback;
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
	return XLB_SLOT_CUR(
		slot_read(vip->slot_base + (random >> (vip->slot_shift & 31))));
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
			       *(volatile __u32 *)&load_of(one)->load
		       ? two
		       : one;
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

/*
 * A word and, above it in the same argument, the backend that the flow's
 * client sticks to.
 */
#define WORD_AND_STUCK(word, stuck) ((word) | (__u64)(stuck) << 32)
#define WORD_STUCK(w) ((__u32)((w) >> 32))

/* What of a TCP segment matters, as one argument. */
#define SEGMENT(seq, payload, flags) \
	((__u64)(seq) << 32 | (__u64)(flags) << 16 | (__u64)(__u16)(payload))
#define SEGMENT_SEQ(s) ((__u32)((s) >> 32))
#define SEGMENT_PAYLOAD(s) ((__u32)(__u16)(s))
#define SEGMENT_FLAGS(s) ((__u8)((s) >> 16))

/*
 * What is to be done with a packet: it goes to `target`, once that is
 * remembered in this class (established: nothing is to be); if it can't be,
 * to `instead`.
 */
#define ANSWER(target, instead, class) \
	((__u64)(class) << 32 | (__u64)(instead) << 16 | (target))
#define ANSWER_TARGET(a) ((__u32)(a)&0x7fffu)
#define ANSWER_INSTEAD(a) ((__u32)(a) >> 16 & 0x7fffu)
#define ANSWER_KNOWN 0x8000u /* in `instead`: the flow is remembered there */
#define ANSWER_CLASS(a) ((__u32)((a) >> 32))

static __always_inline bool is_syn(__u8 flags)
{
	return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline __u32 flow_target(const struct xlb_vip *vip, __u64 word,
					 __u32 owner)
{
	__u32 id = picks(vip) ? pick(vip) : WORD_STUCK(word);

	return id ? id : owner;
}

static __always_inline __u64 select_syn(const struct xlb_vip *vip,
					struct xlb_flow_line *line, __u64 key,
					__u64 word, __u64 segment)
{
	struct choices c = choices_of(word);
	__u32 id, known;
	struct memory m;

	memory_find(line, memory_tag(key),
		    memory_seq_tag(key, SEGMENT_SEQ(segment) + 1), &m);
	if (m.half) {
		memory_renew(line, m.half_way, m.half, XLB_FLOW_HALF_OPEN);
		return XLB_FLOW_BACKEND(m.half);
	}
	known = XLB_FLOW_BACKEND(m.known);
	id = flow_target(vip, word, c.owner);
	if (!id || (id == c.fallback && !known && !picks(vip) &&
		    XLB_SLOT_STATE((__u32)word) != XLB_MOVING))
		return id;
	return ANSWER(id, known ? known | ANSWER_KNOWN : c.fallback,
		      XLB_FLOW_HALF_OPEN);
}

/* The class of a memory after this segment; not half-open. */
static __always_inline enum xlb_flow_class
class_after(const struct xlb_vip *vip, __u64 segment, __u64 known)
{
	if (!(vip->flags & XLB_VIP_COUNTED))
		return XLB_FLOW_ESTABLISHED;
	if (SEGMENT_FLAGS(segment) & (TCP_FIN | TCP_RST))
		return XLB_FLOW_CLOSING;
	if (XLB_FLOW_CLASS(known) == XLB_FLOW_CLOSING &&
	    !SEGMENT_PAYLOAD(segment))
		return XLB_FLOW_CLOSING;
	return XLB_FLOW_ESTABLISHED;
}

static __always_inline __u64 select_other(const struct xlb_vip *vip,
					  struct xlb_flow_line *line, __u64 key,
					  __u64 word, __u64 segment)
{
	struct choices c = choices_of(word);
	__u32 tag = memory_tag(key);
	struct memory m;

	memory_find(line, tag, memory_seq_tag(key, SEGMENT_SEQ(segment)), &m);
	if (m.half) {
		memory_promote(line, &m, tag, class_after(vip, segment, 0));
		return XLB_FLOW_BACKEND(m.half);
	}
	if (m.known) {
		memory_renew(line, m.known_way, m.known,
			     class_after(vip, segment, m.known));
		return XLB_FLOW_BACKEND(m.known);
	}
	if (!c.moving || memory_refuses(line, tag))
		return c.fallback;
	return ANSWER(c.fallback, c.fallback, XLB_FLOW_SIGHTED);
}

static __always_inline __u64 select_datagram(const struct xlb_vip *vip,
					     struct xlb_flow_line *line,
					     __u64 key, __u64 word)
{
	struct choices c = choices_of(word);
	__u32 tag = memory_tag(key), id;
	struct memory m;

	memory_find(line, tag, tag, &m);
	if (m.known) {
		memory_renew(line, m.known_way, m.known, XLB_FLOW_ESTABLISHED);
		return XLB_FLOW_BACKEND(m.known);
	}
	id = flow_target(vip, word, c.owner);
	return id ? ANSWER(id, c.fallback, XLB_FLOW_SIGHTED) : 0;
}

/* Datagrams whose flows aren't remembered: each is a flow of its own. */
static __always_inline __u64 select_stateless(const struct xlb_vip *vip,
					      __u64 word)
{
	__u32 id = pick(vip);

	if (!id)
		return XLB_SLOT_CUR(word);
	load_add(vip, id);
	return id;
}

/*
 * What to do with a packet whose slot doesn't decide alone (0: nobody takes
 * it), see ANSWER().  line and key: of the flow; word: with the client's
 * backend; segment: TCP only.
 */
__noinline __u64 select_tracked(const struct xlb_vip *vip,
				struct xlb_flow_line *line, __u64 key,
				__u64 word, __u64 segment)
{
	if (!vip || !line)
		return 0;
	if (vip->proto == IPPROTO_UDP)
		return sticks(vip) ? select_datagram(vip, line, key, word)
				   : select_stateless(vip, word);
	if (is_syn(SEGMENT_FLAGS(segment)))
		return select_syn(vip, line, key, word, segment);
	return select_other(vip, line, key, word, segment);
}

/*
 * The backend of a packet of an established flow, or of one that nobody knows
 * and that can't be remembered now.  0: look closer.
 */
static __always_inline __u32 select_passing(const struct xlb_flow_line *line,
					    __u64 key, __u32 word, __u32 seq)
{
	__u32 id = memory_at_home(line, key, seq);
	struct choices c = choices_of(word);
	__u64 entry;

	if (likely(id))
		return id;
	entry = memory_tagged(line, memory_tag(key));
	if (entry)
		return memory_current(line, entry, key, seq);
	if (!memory_without_half(line, key, seq) ||
	    (c.moving && !memory_refuses(line, memory_tag(key))))
		return 0;
	return c.fallback;
}

/*
 * What most TCP packets of a slot under change get, without a call.  0: not
 * so simple; ask select_tracked().  Under a flood of SYNs that is past the
 * rate a SYN of nobody that is known costs no more than this.
 */
static __always_inline __u32 select_simple(const struct xlb_vip *vip,
					   const struct xlb_flow_line *line,
					   __u64 key, __u32 word, __u8 flags,
					   __u32 seq)
{
	if (by_client(vip))
		return 0;
	if (likely(!(flags & (TCP_SYN | TCP_FIN | TCP_RST))))
		return select_passing(line, key, word, seq);
	if (!is_syn(flags) || !memory_without(line, memory_tag(key),
					      memory_seq_tag(key, seq + 1)))
		return 0;
	if ((picks(vip) || XLB_SLOT_STATE(word) == XLB_MOVING) &&
	    !tokens_gone())
		return 0;
	return choices_of(word).fallback;
}

/* The target is remembered; or it can't be: false. */
static __always_inline bool remember(const struct xlb_vip *vip,
				     struct xlb_flow_line *line, __u64 key,
				     __u64 answer, __u64 segment)
{
	__u32 id = ANSWER_TARGET(answer);

	if (ANSWER_CLASS(answer) == XLB_FLOW_HALF_OPEN) {
		if (!track_half_open(line, key, id, SEGMENT_SEQ(segment) + 1,
				     SEGMENT_PAYLOAD(segment)))
			return false;
		load_add(vip, id);
		return true;
	}
	if (vip->proto == IPPROTO_TCP)
		return track_sighted(line, key, id, id);
	if (!track_sighted(line, key, id, VICTIM_ANY))
		return false;
	load_add(vip, id);
	return true;
}

/*
 * A packet of a client that sticks went to this backend.  A SYN may be
 * forged, so that only one that is remembered counts.  The owner of a settled
 * slot needs no memory, as in one at rest: should the slot move, clients that
 * nobody knows are that backend's.
 */
static __always_inline void flow_stuck(const struct xlb_vip *vip, __u32 word,
				       const struct flow *f, __u32 id)
{
	if (!f->made && is_syn(SEGMENT_FLAGS(f->segment)))
		return;
	if ((XLB_SLOT_STATE(word) == XLB_SETTLED && id == XLB_SLOT_CUR(word)) ||
	    backend_leaves(id))
		return;
	if (affinity_keep(f->hash.client, f->dest, vip->affinity_ticks, id))
		affinity_make(f->hash.client, f->dest, id);
}

/* The same as select_flow(), where line and key are known. */
static __always_inline __u32 select_in(const struct xlb_vip *vip,
				       struct xlb_flow_line *line, __u64 key,
				       __u64 word, struct flow *f)
{
	__u64 answer;
	__u32 id;

	f->made = false;
	word = slot_word(vip, (__u32)word, &f->hash);
	if (clients_stick(vip))
		word = WORD_AND_STUCK(word,
				      affinity_backend(f->hash.client, f->dest,
						       vip->affinity_ticks));
	answer = select_tracked(vip, line, key, word, f->segment);
	id = ANSWER_TARGET(answer);
	if (ANSWER_CLASS(answer)) {
		f->made = remember(vip, line, key, answer, f->segment);
		if (!f->made) {
			id = ANSWER_INSTEAD(answer);
			if (answer & (ANSWER_KNOWN << 16))
				memory_touch(line, key);
		}
	}
	if (clients_stick(vip) && id)
		flow_stuck(vip, (__u32)word, f, id);
	return id;
}

/*
 * The backend of a packet whose slot doesn't decide alone; 0: nobody takes it.
 * f carries hash, dest and segment, and gets `made`.
 */
static __always_inline __u32 select_flow(const struct xlb_vip *vip, __u32 word,
					 struct flow *f)
{
	struct xlb_flow_line *line = memory_line(f->hash.flow);

	if (!line)
		return 0;
	return select_in(vip, line, memory_key(f->hash.flow, f->dest), word, f);
}

#endif
