/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of flows: lines of eight entries, in the map `flows`.  Which
 * packet asks for what is select.h's.
 *
 * Entries are of classes, so that no flood takes the place of a flow that is
 * known to live.  An established entry is only ever made in place, out of a
 * half-open or a sighted one, and is nobody else's while it is alive.  Half-open
 * and sighted ones have a quota of each line and beyond it replace their own
 * kind, if anybody.  An entry of a backend's other generation is as good as none.
 */
#ifndef TRACK_H
#define TRACK_H

#include "tables.h"

const volatile __u32 flow_shift = 32; /* - log2 of the flows map's lines */

#define MIX_A 0x9E3779B97F4A7C15ULL
#define MIX_B 0xD6E8FEB86659FD93ULL

#define CLASS_QUOTA 3 /* half-open, and sighted, entries of a line */
#define TURNS 8 /* ticks in which each flow may once look for a place */
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
	__u64 flow; /* has its line in the high bits, and mostly its slot */
	__u64 client; /* of the client alone; XLB_VIP_CLIENT only, else flow */
};

/* A packet's flow, as far as its slot doesn't decide alone. */
struct flow {
	struct flow_hash hash;
	__u64 dest; /* of the VIP's address and protocol */
	__u64 segment; /* TCP: see SEGMENT() */
	__u32 fallback; /* asked about only: its backend if not remembered */
	bool made; /* found out: it is remembered from now on */
};

/*
 * Functions that aren't static are verified once, by themselves, and not again
 * for every way that leads to them.  Their arguments are numbers where they
 * can be: what a chain of calls may keep on the stack is little.
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
					 __u32 way)
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
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++) {
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
 * Keep the pointer in a register, which clang would load again from the stack
 * for each way.
 */
#define KEEP(pointer) asm volatile("" : "+r"(pointer))

/* Has no entry any of these two tags?  They may be the same. */
static __always_inline bool memory_without(const struct xlb_flow_line *line,
					   __u32 one, __u32 other)
{
	KEEP(line);
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++) {
		__u32 tag = XLB_FLOW_TAG(memory_read(line, i));

		if (unlikely(tag == one) || unlikely(tag == other))
			return false;
	}
	return true;
}

/* Has nothing in the line this sequence number of the flow? */
static __always_inline bool
memory_without_half(const struct xlb_flow_line *line, __u64 key, __u32 seq)
{
	__u64 any = 0;
	__u32 tag;

	KEEP(line);
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		any |= memory_read(line, i);
	if (!(any & HALF_OR_CLOSING))
		return true;
	tag = memory_seq_tag(key, seq);
	return memory_without(line, tag, tag);
}

/*
 * The backend of this entry, if it is of an established flow and of this tick,
 * and nothing in the line has this packet's sequence number.  0: that isn't so;
 * look closer.
 */
static __always_inline __u32 memory_current(const struct xlb_flow_line *line,
					    __u64 entry, __u64 key, __u32 seq)
{
	__u64 want = XLB_FLOW(memory_tag(key), memory_now(), 0,
			      XLB_FLOW_ESTABLISHED, 0);

	if (((entry ^ want) & ~XLB_FLOW(0, 0, 0xff, 0, 0x7fff)) ||
	    backend_generation(XLB_FLOW_BACKEND(entry)) !=
		    XLB_FLOW_GENERATION(entry) ||
	    !memory_without_half(line, key, seq))
		return 0;
	return XLB_FLOW_BACKEND(entry);
}

/* The same of the entry that stands at home, without a search. */
static __always_inline __u32 memory_at_home(const struct xlb_flow_line *line,
					    __u64 key, __u32 seq)
{
	__u64 entry =
		*(const volatile __u64 *)&line
			 ->entry[MASK(memory_home(key), XLB_FLOW_WAYS - 1)];

	return memory_current(line, entry, key, seq);
}

/* The first entry with this tag; 0: there is none. */
static __always_inline __u64 memory_tagged(const struct xlb_flow_line *line,
					   __u32 tag)
{
	KEEP(line);
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++) {
		__u64 entry = memory_read(line, i);

		if (unlikely(XLB_FLOW_TAG(entry) == tag))
			return entry;
	}
	return 0;
}

static __always_inline void count_events(enum xlb_event event, __u32 count)
{
	__u32 key = event;
	__u64 *n = bpf_map_lookup_elem(&events, &key);

	if (n)
		*n += count;
}

/*
 * 1 or 0 by arithmetic: branches would have the verifier follow every line
 * that there can be.  x, a and b are below 2^63.
 */
static __always_inline __u64 is_zero(__u64 x)
{
	asm volatile("" : "+r"(x));
	return (x - 1) >> 63;
}

static __always_inline __u64 is_less(__u64 a, __u64 b)
{
	asm volatile("" : "+r"(a));
	return (a - b) >> 63;
}

static __always_inline bool memory_full(const struct xlb_flow_line *line)
{
	KEEP(line);
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		if (!memory_read(line, i))
			return false;
	return true;
}

/* The bits of time and class in which any entry isn't established and of now. */
static __always_inline __u64 memory_other(const struct xlb_flow_line *line)
{
	__u64 now = (__u64)memory_now() << TIME_SHIFT, other = 0;

	KEEP(line);
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		other |= memory_read(line, i) ^ now;
	return other & (TIME_BITS | CLASS_BITS);
}

/* Flows seen for the first time in this tick. */
static __always_inline __u64 memory_new(const struct xlb_flow_line *line)
{
	__u64 want = XLB_FLOW(0, memory_now(), 0, XLB_FLOW_SIGHTED, 0);
	__u64 count = 0;

	KEEP(line);
	/* By arithmetic: of which class the next one is can't be foreseen. */
#pragma unroll
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		count += is_zero((memory_read(line, i) ^ want) &
				 (TIME_BITS | CLASS_BITS));
	return count;
}

/* By more of the tag than what says where its home is. */
static __always_inline bool memory_turn(__u32 tag)
{
	__u8 now = memory_now();

	return !(((tag >> (3 + (now >> 4))) + now) & (TURNS - 1));
}

/*
 * Is there nothing to be had for a flow that is seen for the first time?  Where
 * a line is full of flows of this tick, or has its share of new ones, only
 * every eighth flow may take another's place, and others in each tick: all
 * together would do so before anyone is seen again.
 */
static __always_inline bool memory_refuses(const struct xlb_flow_line *line,
					   __u32 tag)
{
	if (memory_full(line)) {
		__u64 other = memory_other(line);

		if ((other & TIME_BITS) || (other && memory_turn(tag)))
			return false;
	} else if (memory_new(line) < CLASS_QUOTA || memory_turn(tag)) {
		return false;
	}
	count_events(XLB_EVENT_NO_ROOM, 1);
	return true;
}

/* Young again, and of this class.  Losing the race is harmless. */
static __always_inline void memory_renew(struct xlb_flow_line *line, __u32 way,
					 __u64 entry, enum xlb_flow_class class)
{
	__u64 young = (entry & ~(TIME_BITS | CLASS_BITS)) |
		      (__u64)memory_now() << TIME_SHIFT |
		      (__u64) class << CLASS_SHIFT;

	if (young != entry)
		__sync_val_compare_and_swap(memory_place(line, way), entry,
					    young);
}

/* Young again, and else the same: a packet follows it that may be forged. */
__noinline int memory_touch(struct xlb_flow_line *line, __u64 key)
{
	__u32 tag = memory_tag(key);
	struct memory m;

	if (!line)
		return 0;
	memory_find(line, tag, tag, &m);
	if (m.known)
		memory_renew(line, m.known_way, m.known,
			     XLB_FLOW_CLASS(m.known));
	return 0;
}

/* The handshake went on: the flow is its backend's, whatever was before. */
static __always_inline void memory_promote(struct xlb_flow_line *line,
					   const struct memory *m, __u32 tag,
					   enum xlb_flow_class class)
{
	__sync_val_compare_and_swap(memory_place(line, m->half_way), m->half,
				    memory_entry(tag, XLB_FLOW_BACKEND(m->half),
						 class));
	if (m->known)
		__sync_val_compare_and_swap(memory_place(line, m->known_way),
					    m->known, 0);
}

/* Nobody's any more, though it may still read as someone's. */
static __always_inline bool memory_outdated(__u64 entry)
{
	__u8 age = memory_age(entry);

	return age > XLB_FLOW_STALE ||
	       (age > CLOSING_TICKS &&
		XLB_FLOW_CLASS(entry) == XLB_FLOW_CLOSING);
}

/* Whose place a new entry may take when there is no other: a backend, or */
#define VICTIM_ANY 0u
#define VICTIM_NONE 0xffffu

/*
 * The ways of a line as a new entry sees them, a bit each: empty ones in the
 * lowest byte, outdated ones in the next, then the living ones of its class,
 * and those of them whose place it may take.
 */
#define WAYS_EMPTY(ways) ((ways)&0xff)
#define WAYS_OUTDATED(ways) ((ways) >> 8 & 0xff)
#define WAYS_OWN(ways) ((ways) >> 16 & 0xff)
#define WAYS_VICTIMS(ways) ((ways) >> 24 & 0xff)

static __always_inline __u64 way_look(__u64 entry, __u32 class, __u32 victim)
{
	__u32 backend = XLB_FLOW_BACKEND(entry);
	__u64 age = memory_age(entry);
	__u64 live = is_zero(backend_generation(backend) ^
			     XLB_FLOW_GENERATION(entry)) &
		     is_less(0, backend);
	__u64 closed = is_zero(XLB_FLOW_CLASS(entry) ^ XLB_FLOW_CLOSING);
	__u64 old = is_less(XLB_FLOW_STALE, age) |
		    (is_less(CLOSING_TICKS, age) & closed);
	__u64 own = is_zero(XLB_FLOW_CLASS(entry) ^ class) & live & ~old;
	__u64 yields = own & (is_zero(victim) | is_zero(victim ^ backend));

	return (live ^ 1) | (live & old) << 8 | own << 16 | yields << 24;
}

static __always_inline __u64 ways_look(const struct xlb_flow_line *line,
				       __u32 class, __u32 victim)
{
	__u64 ways = 0;

	/* Unrolled it would need too much of the stack. */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < XLB_FLOW_WAYS; i++)
		ways |= way_look(memory_read(line, i), class, victim) << i;
	return ways;
}

static __always_inline __u64 ways_count(__u64 ways)
{
	ways = (ways & 0x55) + (ways >> 1 & 0x55);
	ways = (ways & 0x33) + (ways >> 2 & 0x33);
	return (ways & 0x0f) + (ways >> 4);
}

/* The first of these ways from `start` on, round the line. */
static __always_inline __u32 ways_first(__u64 ways, __u32 start)
{
	__u64 turned =
		(ways | ways << XLB_FLOW_WAYS) >> (start & (XLB_FLOW_WAYS - 1));
	__u64 below = ((turned & -turned) - 1) & 0xff;

	return start + (__u32)ways_count(below);
}

/*
 * The way for a new entry.  While its class is below its quota it takes an
 * empty one, at home if it can be, or an outdated one; else a victim's, of
 * which the tag says whose, so that a flood doesn't always hit the same.
 * XLB_FLOW_WAYS: there is none.
 */
static __always_inline __u32 way_for(const struct xlb_flow_line *line,
				     __u64 entry, __u32 home, __u32 victim)
{
	__u64 ways = ways_look(line, XLB_FLOW_CLASS(entry), victim);

	if (ways_count(WAYS_OWN(ways)) < CLASS_QUOTA) {
		if (WAYS_EMPTY(ways))
			return ways_first(WAYS_EMPTY(ways), home) &
			       (XLB_FLOW_WAYS - 1);
		if (WAYS_OUTDATED(ways))
			return ways_first(WAYS_OUTDATED(ways), home) &
			       (XLB_FLOW_WAYS - 1);
	}
	if (!WAYS_VICTIMS(ways))
		return XLB_FLOW_WAYS;
	return ways_first(WAYS_VICTIMS(ways), XLB_FLOW_TAG(entry)) &
	       (XLB_FLOW_WAYS - 1);
}

/* May an entry of this class take a living one's place? */
static __always_inline bool memory_yields(__u64 old, __u32 class, __u32 victim)
{
	return XLB_FLOW_CLASS(old) == class &&
	       (!victim || XLB_FLOW_BACKEND(old) == victim);
}

/* Remember a flow by this entry, half-open or sighted.  0: no way for it. */
__noinline int memory_put(struct xlb_flow_line *line, __u64 entry, __u32 home,
			  __u32 victim)
{
	__u32 class = XLB_FLOW_CLASS(entry);
	__u64 *place, old;
	__u32 way;

	if (!line)
		return 0;
	way = way_for(line, entry, home, victim);
	if (way == XLB_FLOW_WAYS)
		goto full;
	place = memory_place(line, way);
	old = *(volatile __u64 *)place;
	/* Somebody may be established there since we looked. */
	if (memory_live(old) && !memory_outdated(old)) {
		if (!memory_yields(old, class, victim))
			goto full;
		if (class == XLB_FLOW_SIGHTED)
			count_events(XLB_EVENT_NO_ROOM, 1);
	}
	if (__sync_val_compare_and_swap(place, old, entry) == old)
		return 1;
full:
	count_events(XLB_EVENT_NO_ROOM, 1);
	return 0;
}

static __always_inline struct limit *limit_here(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&limits, &key);
}

/*
 * The quick no: the bucket is empty, and neither the clock nor the counter is
 * due.  Who is refused is counted in one go with those before it.
 */
static __always_inline bool tokens_gone(void)
{
	struct limit *l = limit_here();

	if (!l || l->tokens || !l->skipped || l->skipped >= CLOCK_EVERY - 1)
		return false;
	l->skipped++;
	return true;
}

/* An empty bucket is filled as the clock says, which is seldom asked. */
static __always_inline bool tokens_refill(struct limit *l)
{
	__u64 fresh;

	if (l->skipped)
		return false;
	fresh = (bpf_ktime_get_ns() - l->refilled) / TOKEN_NS;
	l->refilled += fresh * TOKEN_NS;
	l->tokens = fresh < TOKENS_MAX ? (__u32)fresh : TOKENS_MAX;
	return fresh;
}

/* May one more half-open entry be made? */
static __always_inline bool token_take(void)
{
	struct limit *l = limit_here();

	if (!l)
		return false;
	if (l->tokens || tokens_refill(l)) {
		l->tokens--;
		return true;
	}
	if (++l->skipped >= CLOCK_EVERY) {
		l->skipped = 0;
		count_events(XLB_EVENT_RATE, CLOCK_EVERY);
	}
	return false;
}

/*
 * Remember that the flow goes to this backend, as half-open under the number
 * that its next packet must carry.  Of data in a SYN the server may take all
 * or nothing, so that there are two such numbers.  0: it can't be remembered.
 */
__noinline int track_half_open(struct xlb_flow_line *line, __u64 key,
			       __u32 backend, __u32 next, __u32 payload)
{
	if (!token_take() ||
	    !memory_put(line,
			memory_entry(memory_seq_tag(key, next), backend,
				     XLB_FLOW_HALF_OPEN),
			memory_home(key), VICTIM_ANY))
		return 0;
	if (payload && token_take())
		memory_put(line,
			   memory_entry(memory_seq_tag(key, next + payload),
					backend, XLB_FLOW_HALF_OPEN),
			   memory_home(key), VICTIM_ANY);
	return 1;
}

/*
 * A flow that was seen for the first time, or a client.  Where it comes from
 * prev of a moving slot it may only take the place of a flow of the same
 * backend, which falls back to the same prev then; others would be lost.
 */
static __always_inline int track_sighted(struct xlb_flow_line *line, __u64 key,
					 __u32 backend, __u32 victim)
{
	return memory_put(
		line, memory_entry(memory_tag(key), backend, XLB_FLOW_SIGHTED),
		memory_home(key), victim);
}

/* The backend of a flow that is remembered; 0: it isn't.  Only looks. */
__noinline __u32 memory_backend(__u64 hash, __u64 dest)
{
	struct xlb_flow_line *line = memory_line(hash);
	__u32 tag = memory_tag(memory_key(hash, dest));
	struct memory m;

	if (!line)
		return 0;
	memory_find(line, tag, tag, &m);
	return m.known ? XLB_FLOW_BACKEND(m.known) : 0;
}

/* For a packet about the flow, such as an ICMP error. */
static __always_inline __u32 track_peek(const struct flow *f)
{
	__u32 id = memory_backend(f->hash.flow, f->dest);

	return id ? id : f->fallback;
}

/*
 * The client's own memory, with which it sticks to a backend across its
 * connections: an entry like a flow's, in the line of the client's hash, that
 * counts for so many ticks after the client was last heard of.
 */
#define AFFINITY 0xA24BAED4963EE407ULL

/* A client isn't tied to who is leaving: that would never end. */
static __always_inline bool backend_leaves(__u32 backend)
{
	return tables.backends[MASK(backend, XLB_BACKENDS - 1)].flags &
	       XLB_BACKEND_LEAVING;
}

/* Where the client's connections go; 0: where the slot says. */
__noinline __u32 affinity_backend(__u64 client, __u64 dest, __u32 ticks)
{
	struct xlb_flow_line *line = memory_line(client);
	__u32 tag = memory_tag(memory_key(client ^ AFFINITY, dest));
	struct memory m;

	if (!line)
		return 0;
	memory_find(line, tag, tag, &m);
	if (!m.known || memory_age(m.known) > ticks ||
	    backend_leaves(XLB_FLOW_BACKEND(m.known)))
		return 0;
	return XLB_FLOW_BACKEND(m.known);
}

/*
 * A packet of the client went to this backend.  A living memory of another
 * one that stays is kept as it is, and grows old if nothing goes there any
 * more.  1: there is no memory yet; see affinity_make().
 */
__noinline int affinity_keep(__u64 client, __u64 dest, __u32 ticks,
			     __u32 backend)
{
	struct xlb_flow_line *line = memory_line(client);
	__u32 tag = memory_tag(memory_key(client ^ AFFINITY, dest));
	struct memory m;

	if (!line)
		return 0;
	memory_find(line, tag, tag, &m);
	if (!m.known)
		return 1;
	if (XLB_FLOW_BACKEND(m.known) == backend)
		memory_renew(line, m.known_way, m.known, XLB_FLOW_ESTABLISHED);
	else if (memory_age(m.known) > ticks ||
		 backend_leaves(XLB_FLOW_BACKEND(m.known)))
		__sync_val_compare_and_swap(
			memory_place(line, m.known_way), m.known,
			memory_entry(tag, backend, XLB_FLOW_SIGHTED));
	return 0;
}

static __always_inline void affinity_make(__u64 client, __u64 dest,
					  __u32 backend)
{
	struct xlb_flow_line *line = memory_line(client);

	if (line)
		track_sighted(line, memory_key(client ^ AFFINITY, dest),
			      backend, VICTIM_NONE);
}

#endif
