/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of flows: lines of eight entries, in the map `flows`.  Which
 * packet asks for what is select.h's.
 *
 * Entries are of classes, so that no flood takes the place of a flow that is
 * known to live.  An established entry is only ever made in place, out of a
 * half-open or a sighted one, and is nobody else's while it is alive.  Half-open
 * and sighted ones have a quota of each line and beyond it replace their own
 * kind.  An entry of a backend's other generation is as good as none.
 */
#ifndef TRACK_H
#define TRACK_H

#include "tables.h"

const volatile __u32 flow_shift = 32; /* - log2 of the flows map's lines */

#define MIX_A 0x9E3779B97F4A7C15ULL
#define MIX_B 0xD6E8FEB86659FD93ULL

#define CLASS_QUOTA 3 /* half-open, and sighted, entries of a line */
#define CLOSING_TICKS 8 /* then a flow that was closed makes room */
#define TOKENS_MAX 131072 /* half-open entries in one burst, a CPU */
#define TOKEN_NS 15259 /* 65,536 a second */
#define CLOCK_EVERY 64 /* asking the clock costs more than forwarding */

#define TIME_SHIFT 25
#define CLASS_SHIFT 15
#define TIME_BITS (0xffULL << TIME_SHIFT)
#define CLASS_BITS (3ULL << CLASS_SHIFT)
#define HALF_OR_CLOSING (1ULL << CLASS_SHIFT)

/* What a flow is known by; see flow_hash_v4(). */
struct flow_hash {
	__u64 flow; /* has its slot and its line in the high bits */
	__u64 client; /* of the client alone; XLB_VIP_CLIENT_HASH only */
};

/* A flow in a slot that isn't at rest, and the choices there are. */
struct flow {
	struct flow_hash hash;
	__u64 dest; /* of the VIP's address and protocol */
	__u64 key; /* of both, see memory_key(); packets' only */
	__u32 seq; /* TCP sequence number, host order */
	__u32 payload; /* TCP: bytes of data */
	__u32 owner; /* backend of a new flow, where the slot says it */
	__u32 fallback; /* backend of a flow that isn't remembered */
	__u8 state; /* enum xlb_slot_state */
	__u8 flags; /* TCP header's */
	bool keep_old; /* remember that the fallback was taken */
	bool remembered; /* found out: udp, a flow that wasn't known before */
	__u32 pad; /* none is left to the compiler: the verifier looks */
};

/*
 * Functions that aren't static are verified once, by themselves, and not again
 * for every way that leads to them.
 */

/*
 * The line comes from the flow's hash alone, so that it is on its way from
 * memory while the tags are still being computed.
 */
static __always_inline struct xlb_flow_line *memory_line(__u64 hash)
{
	__u32 line = (__u32)((hash >> 32) >> (flow_shift & 63));

	return bpf_map_lookup_elem(&flows, &line);
}

static __always_inline __u64 memory_key(__u64 hash, __u64 dest)
{
	return (hash ^ dest * MIX_B) * MIX_A;
}

static __always_inline __u32 memory_tag(__u64 key)
{
	return (__u32)(key >> 33);
}

static __always_inline __u32 memory_seq_tag(__u64 key, __u32 seq)
{
	return (__u32)(((key ^ seq) * MIX_B) >> 33);
}

/* Where an entry is looked for first, and put while nobody stands there. */
static __always_inline __u32 memory_home(__u64 key)
{
	return (__u32)(key >> 33) & (XLB_FLOW_WAYS - 1);
}

static __always_inline __u8 backend_generation(__u32 backend)
{
	return tables.backends[MASK(backend, XLB_BACKENDS - 1)].generation;
}

static __always_inline __u8 memory_now(void)
{
	return (__u8) * (volatile __u32 *)&tables.control.now;
}

static __always_inline __u64 memory_entry(__u32 tag, __u32 backend,
					  enum xlb_flow_class class)
{
	return XLB_FLOW(tag, memory_now(), backend_generation(backend), class,
			backend);
}

/* A memory counts only while its backend's line is the one it was made for. */
static __always_inline bool memory_live(__u64 entry)
{
	__u32 backend = XLB_FLOW_BACKEND(entry);

	return backend &&
	       backend_generation(backend) == XLB_FLOW_GENERATION(entry);
}

static __always_inline __u8 memory_age(__u64 entry)
{
	return memory_now() - XLB_FLOW_TIME(entry);
}

/* By number, not pointer: clang would select pointers by bit operations. */
static __always_inline __u64 *memory_place(struct xlb_flow_line *line,
					   __u32 way)
{
	return &line->entry[MASK(way, XLB_FLOW_WAYS - 1)];
}

static __always_inline __u64 memory_read(const struct xlb_flow_line *line,
					 int way)
{
	return *(const volatile __u64 *)&line->entry[way];
}

/* What a line knows of a flow: living entries and their ways, 0 for none. */
struct memory {
	__u64 known; /* of any class but half-open */
	__u64 half; /* half-open with the sequence number asked for */
	__u32 known_way;
	__u32 half_way;
};

static __always_inline void memory_find(const struct xlb_flow_line *line,
					__u32 tag, __u32 seq_tag,
					struct memory *ret)
{
	*ret = (struct memory){ 0 };
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = memory_read(line, i);
		__u32 class = XLB_FLOW_CLASS(entry);

		if (unlikely(XLB_FLOW_TAG(entry) == tag) &&
		    class != XLB_FLOW_HALF_OPEN && memory_live(entry)) {
			ret->known = entry;
			ret->known_way = i;
		}
		if (unlikely(XLB_FLOW_TAG(entry) == seq_tag) &&
		    class == XLB_FLOW_HALF_OPEN && memory_live(entry)) {
			ret->half = entry;
			ret->half_way = i;
		}
	}
}

/*
 * The backend of an established flow, in one look: its entry stands at home
 * and is of this tick, and nothing in the line has this packet's sequence
 * number.  0: that isn't so; look closer.
 */
static __always_inline __u32 memory_at_home(struct xlb_flow_line *line,
					    __u64 key, __u32 seq)
{
	__u64 entry = *(volatile __u64 *)memory_place(line, memory_home(key));
	__u32 seq_tag = memory_seq_tag(key, seq);

	if ((entry ^ XLB_FLOW(memory_tag(key), memory_now(), 0, 0, 0)) >>
		    TIME_SHIFT ||
	    XLB_FLOW_CLASS(entry) != XLB_FLOW_ESTABLISHED ||
	    !memory_live(entry))
		return 0;
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++)
		if (unlikely(XLB_FLOW_TAG(memory_read(line, i)) == seq_tag))
			return 0;
	return XLB_FLOW_BACKEND(entry);
}

/* Young again, and of this class.  Losing the race is harmless. */
static __always_inline void memory_renew(struct xlb_flow_line *line, __u32 way,
					 __u64 entry, enum xlb_flow_class class)
{
	__u64 young = (entry & ~(TIME_BITS | CLASS_BITS)) |
		      (__u64)memory_now() << TIME_SHIFT |
		      (__u64)class << CLASS_SHIFT;

	if (young != entry)
		__sync_val_compare_and_swap(memory_place(line, way), entry,
					    young);
}

/* The handshake went on: the flow is its backend's, whatever was before. */
static __always_inline void memory_promote(struct xlb_flow_line *line,
					   const struct memory *m, __u32 tag,
					   enum xlb_flow_class class)
{
	__sync_val_compare_and_swap(
		memory_place(line, m->half_way), m->half,
		memory_entry(tag, XLB_FLOW_BACKEND(m->half), class));
	if (m->known)
		__sync_val_compare_and_swap(memory_place(line, m->known_way),
					    m->known, 0);
}

static __always_inline void count_event(enum xlb_event event)
{
	__u32 key = event;
	__u64 *n = bpf_map_lookup_elem(&events, &key);

	if (n)
		++*n;
}

/* Nobody's any more, though it may still read as someone's. */
static __always_inline bool memory_outdated(__u64 entry)
{
	__u8 age = memory_age(entry);

	return age > XLB_FLOW_STALE ||
	       (age > CLOSING_TICKS &&
		XLB_FLOW_CLASS(entry) == XLB_FLOW_CLOSING);
}

/* The ways of a line, a bit each, as a new entry of some class sees them. */
struct ways {
	__u32 empty;
	__u32 outdated;
	__u32 own; /* living entries of that class */
	__u32 count; /* of own */
};

static __always_inline void ways_look(const struct xlb_flow_line *line,
				      __u32 class, struct ways *ret)
{
	*ret = (struct ways){ 0 };
#pragma unroll
	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = memory_read(line, i);

		if (!memory_live(entry)) {
			ret->empty |= 1U << i;
		} else if (memory_outdated(entry)) {
			ret->outdated |= 1U << i;
		} else if (XLB_FLOW_CLASS(entry) == class) {
			ret->own |= 1U << i;
			ret->count++;
		}
	}
}

/* The first of these ways from `start` on, round the line; none: start. */
static __always_inline __u32 ways_first(__u32 ways, __u32 start)
{
	__u32 turned = (ways | ways << XLB_FLOW_WAYS) >>
		       (start & (XLB_FLOW_WAYS - 1));

#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		if (turned & 1U << i)
			return start + i;
	return start;
}

/*
 * Remember a flow by this entry, half-open or sighted.  While its class is
 * below its quota it takes an empty way, at home if it can be, or an outdated
 * one; else it takes the way of another of its class, of which the tag says
 * whose, so that a flood doesn't always hit the same.  0: nothing of that
 * could be had.
 */
__noinline int memory_put(struct xlb_flow_line *line, __u64 entry,
				  __u32 home)
{
	__u32 class = XLB_FLOW_CLASS(entry), way;
	struct ways ways;
	__u64 old;

	if (!line)
		return 0;
	ways_look(line, class, &ways);
	if (ways.count < CLASS_QUOTA && ways.empty)
		way = ways_first(ways.empty, home);
	else if (ways.count < CLASS_QUOTA && ways.outdated)
		way = ways_first(ways.outdated, home);
	else
		way = ways_first(ways.own, XLB_FLOW_TAG(entry));
	old = *(volatile __u64 *)memory_place(line, way);
	/* No way at all; or somebody established a flow there meanwhile. */
	if (memory_live(old) && !memory_outdated(old)) {
		if (XLB_FLOW_CLASS(old) != class) {
			count_event(XLB_EVENT_NO_ROOM);
			return 0;
		}
		if (class == XLB_FLOW_SIGHTED)
			count_event(XLB_EVENT_NO_ROOM);
	}
	if (__sync_val_compare_and_swap(memory_place(line, way), old, entry) ==
	    old)
		return 1;
	count_event(XLB_EVENT_NO_ROOM);
	return 0;
}

/* Empty buckets are filled as the clock says, which is seldom asked. */
static __always_inline bool tokens_refill(struct limit *l)
{
	__u64 now, fresh;

	if (l->skipped++ % CLOCK_EVERY)
		return false;
	now = bpf_ktime_get_ns();
	fresh = (now - l->refilled) / TOKEN_NS;
	if (!fresh)
		return false;
	l->refilled += fresh * TOKEN_NS;
	l->tokens = fresh < TOKENS_MAX ? (__u32)fresh : TOKENS_MAX;
	l->skipped = 0;
	return true;
}

/* May one more half-open entry be made? */
static __always_inline bool token_take(void)
{
	__u32 key = 0;
	struct limit *l = bpf_map_lookup_elem(&limits, &key);

	if (!l)
		return false;
	if (!l->tokens && !tokens_refill(l)) {
		count_event(XLB_EVENT_RATE);
		return false;
	}
	l->tokens--;
	return true;
}

static __always_inline bool half_open_put(struct xlb_flow_line *line, __u64 key,
					  __u32 next, __u32 backend)
{
	return token_take() &&
	       memory_put(line,
			  memory_entry(memory_seq_tag(key, next), backend,
				       XLB_FLOW_HALF_OPEN),
			  memory_home(key));
}

/*
 * Remember where a SYN went, under the sequence number that the next packet
 * must carry.  Of data in a SYN the server may take all or nothing.
 */
static __always_inline bool track_half_open(struct xlb_flow_line *line,
					    __u64 key, const struct flow *f,
					    __u32 backend)
{
	__u32 next = f->seq + 1;

	if (!half_open_put(line, key, next, backend))
		return false;
	if (f->payload)
		half_open_put(line, key, next + f->payload, backend);
	return true;
}

static __always_inline bool track_sighted(struct xlb_flow_line *line, __u64 key,
					  __u32 backend)
{
	return memory_put(line,
			  memory_entry(memory_tag(key), backend,
				       XLB_FLOW_SIGHTED),
			  memory_home(key));
}

/* For a packet about the flow, such as an ICMP error: only looks. */
__noinline __u32 track_peek(const struct flow *f)
{
	struct xlb_flow_line *line;
	struct memory m = { 0 };
	__u32 tag;

	if (!f)
		return 0;
	line = memory_line(f->hash.flow);
	tag = memory_tag(memory_key(f->hash.flow, f->dest));
	if (line)
		memory_find(line, tag, tag, &m);
	return m.known ? XLB_FLOW_BACKEND(m.known) : f->fallback;
}

/*
 * The client's own memory, with which it sticks to a backend across its
 * connections: an entry like a flow's, in the line of the client's hash, that
 * counts for so many ticks after the client was last heard of.
 */
#define AFFINITY 0xA24BAED4963EE407ULL

struct affinity {
	struct xlb_flow_line *line;
	__u64 key;
	__u64 entry; /* 0: there is none */
	__u32 way;
};

static __always_inline void affinity_find(const struct flow *f,
					  struct affinity *ret)
{
	struct memory m = { 0 };
	__u32 tag;

	ret->line = memory_line(f->hash.client);
	ret->key = memory_key(f->hash.client ^ AFFINITY, f->dest);
	tag = memory_tag(ret->key);
	if (ret->line)
		memory_find(ret->line, tag, tag, &m);
	ret->entry = m.known;
	ret->way = m.known_way;
}

/* Where the client's connections go; 0: where the slot says. */
__noinline __u32 affinity_backend(const struct flow *f, __u32 ticks)
{
	struct affinity a;

	if (!f)
		return 0;
	affinity_find(f, &a);
	if (!a.entry || memory_age(a.entry) > ticks)
		return 0;
	return XLB_FLOW_BACKEND(a.entry);
}

/*
 * A packet of the client went to this backend.  A living memory of another
 * one stays as it is, and grows old if nothing goes there any more.
 */
__noinline int affinity_keep(const struct flow *f, __u32 ticks,
				    __u32 backend)
{
	struct affinity a;

	if (!f)
		return 0;
	affinity_find(f, &a);
	if (!a.line)
		return 0;
	if (!a.entry)
		track_sighted(a.line, a.key, backend);
	else if (XLB_FLOW_BACKEND(a.entry) == backend)
		memory_renew(a.line, a.way, a.entry, XLB_FLOW_ESTABLISHED);
	else if (memory_age(a.entry) > ticks)
		__sync_val_compare_and_swap(memory_place(a.line, a.way),
					    a.entry,
					    memory_entry(memory_tag(a.key),
							 backend,
							 XLB_FLOW_SIGHTED));
	return 0;
}

#endif
