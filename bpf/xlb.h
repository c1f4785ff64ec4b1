/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one definition of everything that the kernel programs and user space
 * share.  Every table is an array or a plain hash map that user space fills;
 * the kernel only computes a hash and loads.
 *
 * Byte order: addresses and ports are in network order wherever they are
 * compared with, or stored into, packets.  All else is in host order.
 */
#ifndef XLB_H
#define XLB_H

#include <linux/types.h>

/* Changes whenever a struct below does; a pinned map of another ABI is refused. */
#define XLB_ABI 2

#define XLB_VIP_BUCKETS 4096 /* displacement values a copy */
#define XLB_VIP_LINES 8192 /* lines a copy; at most XLB_VIP_MAX are used */
#define XLB_VIP_MAX 4096 /* (address, port, protocol) triples */
#define XLB_BACKENDS 32768 /* ids are 15 bits; id 0 means "none" */
#define XLB_SERVICES 4096 /* service ids; id 0 is never used */
#define XLB_LINE_SLOTS 16 /* slots in one 64-byte line */
#define XLB_NAME_MAX 64 /* bytes of a name with its NUL */
#define XLB_FLOW_WAYS 8 /* memories in one line */
#define XLB_FLOW_STALE \
	192 /* ticks of xlb_control.now after which a memory may be overwritten */
#define XLB_IDLE_TICKS 160 /* no declared time is more ticks than these */
#define XLB_FRAGMENTS 8192 /* datagrams in pieces that are followed at once */

enum xlb_forwarding {
	XLB_NAT = 0,
	XLB_DSR = 1,
	XLB_IPIP = 2, /* the packet as it is behind an IPv4 or IPv6 header */
	XLB_GUE = 3, /* and a UDP header: GUE variant 1 (RFC draft), no more */
};

#define XLB_GUE_PORT 6080 /* IANA's for GUE */

/* struct xlb_vip.flags */
#define XLB_VIP_CLIENT_HASH 0x0001 /* a new flow's slot: its client's alone */
#define XLB_VIP_SCHEDULE \
	0x0002 /* a new flow: this CPU's next in the schedule */
#define XLB_VIP_RANDOM 0x0004 /* a new flow: any slot of the table */
#define XLB_VIP_TWO_CHOICES 0x0008 /* the less loaded of any two slots */
#define XLB_VIP_PICKS (XLB_VIP_SCHEDULE | XLB_VIP_RANDOM | XLB_VIP_TWO_CHOICES)
#define XLB_VIP_COUNTED 0x0010 /* a client's FIN or RST marks its memory */
#define XLB_VIP_STICKY 0x0020 /* udp: flows are remembered */
/*
 * tcp: the slot of a flow that isn't remembered is its client's.  Other than
 * XLB_VIP_CLIENT_HASH only while a service changes from or to that, and then
 * every flow is remembered and no slot is at rest.
 */
#define XLB_VIP_CLIENT_OLD 0x0040
#define XLB_VIP_CLIENT (XLB_VIP_CLIENT_HASH | XLB_VIP_CLIENT_OLD)

/*
 * What the declared services use; the rest is compiled out of the programs.
 * Bits of xlb_control.features and of the programs' constant.
 */
#define XLB_FEATURE_V4 0x0001
#define XLB_FEATURE_V6 0x0002
#define XLB_FEATURE_NAT 0x0004
#define XLB_FEATURE_DSR 0x0008
#define XLB_FEATURE_IPIP 0x0010
#define XLB_FEATURE_GUE 0x0020
#define XLB_FEATURE_CLIENT_HASH 0x0040
#define XLB_FEATURE_SCHEDULE 0x0080
#define XLB_FEATURE_RANDOM 0x0100
#define XLB_FEATURE_TWO_CHOICES 0x0200
#define XLB_FEATURE_STICKY 0x0400
#define XLB_FEATURE_VLAN 0x0800 /* a next hop is behind a VLAN tag */
#define XLB_FEATURE_UPLINKS 0x1000 /* packets come in by several interfaces */
#define XLB_FEATURE_ALL 0x1fff
/* The programs that sample packets, see struct xlb_sample, while asked for. */
#define XLB_FEATURE_TRACE 0x80000000u

/*
 * One declared (address, port, protocol).  proto 0: an empty line.
 * IPv4 addresses stand in addr[0], the rest is 0.
 */
struct xlb_vip {
	__u32 addr[4];
	__u16 port; /* network order */
	__u8 proto; /* IPPROTO_TCP, IPPROTO_UDP, 0 */
	__u8 family; /* 4 or 6 */
	__u16 service; /* id in the services map */
	__u16 target_port; /* network order */
	__u16 addr_sum; /* folded one's complement sum of addr */
	__u16 port_sum; /* folded sum of ~port and target_port */
	__u8 forwarding; /* enum xlb_forwarding */
	__u8 slot_shift; /* 32 - log2(slots of the service) */
	__u16 flags;
	__u32 slot_base; /* index of the service's first slot */
	__u32 schedule_base; /* XLB_VIP_SCHEDULE: index of its first entry */
	__u8 schedule_shift; /* 32 - log2(entries) */
	__u8 affinity_ticks; /* XLB_VIP_CLIENT_HASH: how long a client sticks */
	__u8 pad[22];
};

/* struct xlb_backend.flags */
#define XLB_BACKEND_TX 0x01 /* leaves where it came in: XDP_TX */
#define XLB_BACKEND_STACK \
	0x02 /* its port takes no XDP frames: rewritten, then
				* given to the host's stack, which routes it */
#define XLB_BACKEND_LEAVING 0x04 /* no client is tied to it any more */

/*
 * One backend.  l2_v4 and l2_v6 are the ready-made Ethernet addresses and the
 * egress interface of the next hop of either family:
 *   word 0: destination MAC (6 bytes), source MAC bytes 0..1
 *   word 1: source MAC bytes 2..5, interface index (32 bits)
 * so that an update of either is one store.  0 in both: no next hop.
 */
struct xlb_backend {
	__u64 l2_v4[2];
	__u64 l2_v6[2];
	__u32 addr6[4];
	__u32 addr4;
	__u16 sum4; /* folded one's complement sums of the addresses */
	__u16 sum6;
	__u16 port; /* network order; 0: the VIP's target port */
	__u16 mtu; /* of the egress interface, bytes of L3 packet */
	__u8 generation;
	__u8 flags;
	__u16 vlan; /* VLAN id of the next hop, host order; 0: no tag */
};

/*
 * A slot: cur 15 bits, prev 15, state 2; written by one aligned store.
 * Only at rest does the word alone decide.  Services that remember every flow
 * (XLB_VIP_PICKS, XLB_VIP_STICKY) have no slot at rest.
 */
enum xlb_slot_state {
	XLB_REST = 0, /* no flow state is read or written */
	XLB_MOVING = 1, /* flows of prev may still be alive, unremembered */
	XLB_SETTLED = 2, /* moved; memories remain */
	XLB_HELD = 3, /* moving, and unknown clients still go to prev */
};
#define XLB_SLOT(cur, prev, state) \
	((__u32)(cur) | (__u32)(prev) << 15 | (__u32)(state) << 30)
#define XLB_SLOT_CUR(word) ((word)&0x7fffu)
#define XLB_SLOT_PREV(word) (((word) >> 15) & 0x7fffu)
#define XLB_SLOT_STATE(word) ((word) >> 30)

struct xlb_slot_line {
	__u32 slot[XLB_LINE_SLOTS];
};

/*
 * Memories of flows, written by the kernel with compare-and-exchange:
 * tag 31 | time 8 | generation 8 | class 2 | backend 15.  0: empty.
 * time is the low byte of xlb_control.now.
 *
 * A flow's line is the high bits of its hash, as its slot is: slot i of a
 * table of 2^s keeps its memories in lines [i << (l - s), (i + 1) << (l - s))
 * of 2^l, or, where l < s, in line i >> (s - l).  Where slots are by the client
 * (XLB_VIP_CLIENT) a flow's line says nothing of its slot.
 */
struct xlb_flow_line {
	__u64 entry[XLB_FLOW_WAYS];
};
enum xlb_flow_class {
	XLB_FLOW_ESTABLISHED = 0, /* never evicted while alive */
	XLB_FLOW_HALF_OPEN = 1, /* by sequence number, until the next packet */
	XLB_FLOW_SIGHTED = 2, /* seen once */
	XLB_FLOW_CLOSING = 3, /* established; the client said FIN or RST */
};
#define XLB_FLOW(tag, time, generation, class, backend)           \
	((__u64)(tag) << 33 | (__u64)(__u8)(time) << 25 |         \
	 (__u64)(__u8)(generation) << 17 | (__u64)(class) << 15 | \
	 (__u64)(backend))
#define XLB_FLOW_BACKEND(e) ((__u32)(e)&0x7fffu)
#define XLB_FLOW_CLASS(e) ((__u32)((e) >> 15) & 3u)
#define XLB_FLOW_GENERATION(e) ((__u8)((e) >> 17))
#define XLB_FLOW_TIME(e) ((__u8)((e) >> 25))
#define XLB_FLOW_TAG(e) ((__u32)((e) >> 33))

/*
 * When each slot began to move: the low byte of xlb_control.now then.  Only
 * user space reads and writes it.
 */
#define XLB_MOVED_LINE 64
struct xlb_moved_line {
	__u8 at[XLB_MOVED_LINE];
};

/* What two-choices algorithms compare; the lower load gets the flow. */
struct xlb_load {
	__u32 load; /* the kernel adds step a new flow; user space corrects */
	__u32 step;
};
#define XLB_LOAD_UNIT 65536u /* one flow at weight 1; one percent of CPU */
/* counters[cpu * XLB_BACKENDS + backend]; user space sums over CPUs. */
struct xlb_counter {
	__u64 packets;
	__u64 bytes;
	__u64 flows; /* new connections: SYNs (tcp), remembered flows (udp) */
	__u64 pad;
};

/* Why a packet was dropped, counted in the drops map (per CPU). */
enum xlb_drop {
	XLB_DROP_NONE = 0,
	XLB_DROP_NO_BACKEND, /* the slot is empty */
	XLB_DROP_NO_NEXT_HOP, /* the backend has none in this family */
	XLB_DROP_MALFORMED, /* for a VIP, but cut short or contradictory */
	XLB_DROP_FRAGMENT, /* a later fragment whose first was not seen */
	XLB_DROP_TTL, /* hop limit reached */
	XLB_DROP_TOO_BIG, /* over the egress MTU; answered where allowed */
	XLB_DROP_HAIRPIN, /* a backend calls a VIP */
	XLB_DROP_REPLY_TOO_BIG, /* an answer over the client side's MTU */
	XLB_DROP_REPLY_NO_ROUTE,
	XLB_DROP_ICMP, /* an ICMP error that can't be translated */
	XLB_DROP_HEADERS, /* more extension headers or tags than are looked through */
	XLB_DROP_ENCAP, /* no room in front of the packet, or no source address */
	XLB_DROP_MAX,
};

/* What happened to the memory of flows, counted in the events map (per CPU). */
enum xlb_event {
	XLB_EVENT_NO_ROOM = 0, /* a flow that should be remembered was not, or
				* was forgotten for another one */
	XLB_EVENT_RATE, /* half-open ones past the rate, sent on unremembered */
	XLB_EVENT_MAX,
};

/*
 * One page of words that both sides read.  vip_copy is read once a packet;
 * which of the two copies of vips[], displacement[] and vip_seed[] it names.
 */
struct xlb_control {
	__u32 abi;
	__u32 vip_copy;
	__u64 vip_seed[2];
	/*
	 * Coarse time of flow memories, in ticks of `tick` seconds.  User space
	 * counts it up while it runs, so that nothing ages while it doesn't.
	 */
	__u32 now;
	__u32 tick;
	__u8 build[32]; /* digest of object and constants that are loaded */
	__u64 flow_seed;
	__u32 features; /* of the loaded programs */
	__u32 next_backend; /* user space: where the search for a free id goes on */
	/* This host's addresses, as outer sources of GUE; 0: none. */
	__u32 source6[4];
	__u32 source4;
	__u32 pad;
};

/*
 * Which packets are sampled (trace --live), and how many.  Written before the
 * programs that read it come; 0: any.
 */
struct xlb_trace {
	__u64 until; /* ns, CLOCK_MONOTONIC: then it is over, whoever forgot */
	__u64 interval; /* ns from one sample to the next, in the mean */
	__u64 burst; /* ns: so far ahead of that they may come */
	__u64 next; /* of the programs: when the next one is due in the mean */
	__u64 lost; /* of the programs: samples that found no room */
	__u32 vip[4]; /* network order, as all of these */
	__u32 client[4];
	__u16 vip_port;
	__u16 client_port;
	__u8 family; /* of vip or client */
	__u8 has_vip;
	__u8 has_client;
	__u8 proto;
	__u32 service; /* id */
	__u32 pad[3];
};

/* Where a packet was seen. */
enum xlb_hook {
	XLB_HOOK_XDP = 0, /* native or generic */
	XLB_HOOK_TC,
	XLB_HOOK_REPLY, /* from a backend */
};

enum xlb_verdict {
	XLB_VERDICT_PASS = 0, /* to the host's stack */
	XLB_VERDICT_DROP,
	XLB_VERDICT_SENT, /* out by an interface; with a reason to drop: an
			   * ICMP answer went back */
};

/* A packet as it came, and what became of it; in the ring buffer `samples`. */
struct xlb_sample {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	__u32 src[4]; /* addresses and ports: network order */
	__u32 dst[4];
	__u16 sport; /* 0 as dport: it has none, or is a later fragment */
	__u16 dport;
	__u8 family; /* 4 or 6 */
	__u8 proto;
	__u8 tcp_flags;
	__u8 hook; /* enum xlb_hook */
	__u8 verdict; /* enum xlb_verdict */
	__u8 drop; /* enum xlb_drop */
	__u16 service; /* id; 0: none is concerned */
	__u32 ifindex; /* where it came in */
	__u32 bytes; /* of the frame */
	__u32 slot; /* XLB_NO_SLOT: it has none */
	__u32 word; /* its slot's, before this packet */
	__u32 backend; /* id; 0: none was chosen */
	__u32 pad[2];
};
#define XLB_NO_SLOT 0xffffffffu

/*
 * Everything of a fixed size, as one block that every program sees as its
 * .bss: addresses in it are constants in the programs, without a lookup.
 */
struct xlb_tables {
	struct xlb_control control;
	__u8 pad[4096 - sizeof(struct xlb_control) - sizeof(struct xlb_trace)];
	struct xlb_trace trace; /* on lines of its own */
	__u32 displacement[2 * XLB_VIP_BUCKETS]; /* see xlb_vip_hash() */
	struct xlb_vip vips[2 * XLB_VIP_LINES];
	struct xlb_backend backends[XLB_BACKENDS];
	struct xlb_load loads[XLB_BACKENDS];
};

/* struct xlb_service.flags */
#define XLB_SERVICE_TRACKS \
	0x01 /* every flow is remembered: no slot comes to rest */
#define XLB_SERVICE_CLIENT_HASH 0x02 /* its VIPs' flags of these names */
#define XLB_SERVICE_CLIENT_OLD 0x04
#define XLB_SERVICE_PROTECTED 0x08 /* for a reconciler without a history */

/* Value of the services map (array by service id); only user space reads it. */
struct xlb_service {
	char name[XLB_NAME_MAX]; /* "": free */
	__u32 slot_base;
	__u32 schedule_base;
	__u8 slot_log2; /* slots there are */
	__u8 table_log2; /* of the table they show; at most slot_log2 */
	__u8 schedule_log2; /* 0: no schedule */
	__u8 algorithm; /* enum algorithm of desired/model.h */
	__u8 forwarding;
	__u8 proto;
	__u8 flags;
	__u8 changed; /* xlb_control.now, its low byte, when CLIENT_OLD began to
		       * differ from CLIENT_HASH; else 0 */
	__u64 signature; /* of what the slots were compiled from */
};

/* Are its connections found in other slots than its new ones? */
static inline int service_changes(const struct xlb_service *s)
{
	return !(s->flags & XLB_SERVICE_CLIENT_HASH) !=
	       !(s->flags & XLB_SERVICE_CLIENT_OLD);
}

/* Value of the owners map (hash by backend id); only user space reads it. */
#define XLB_OWNER_FIXED 0 /* declared in the file */
#define XLB_OWNER_VM 1 /* of a pool */
#define XLB_OWNER_QUARANTINE 2 /* left; a packet in flight may still name it */
struct xlb_owner {
	char name[XLB_NAME_MAX];
	__u32 service;
	__u16 kind;
	__u16 weight; /* that its slots were last compiled with */
};

/*
 * What a guest's answer must become: (backend address, target port, protocol)
 * to (VIP, listen port).  Key and value of the replies map.
 */
struct xlb_reply_key {
	__u32 addr[4];
	__u16 port;
	__u8 proto;
	__u8 family;
};

struct xlb_reply {
	__u32 addr[4];
	__u16 port; /* of the VIP, network order */
	__u16 service;
	__u32 backend;
};

/*
 * A datagram in pieces: only its first fragment carries ports, the later ones
 * follow what was decided for it.  Key and value of the fragments map (LRU).
 */
struct xlb_fragment_key {
	__u32 src[4];
	__u32 dst[4];
	__u32 id;
	__u8 proto;
	__u8 family;
	__u16 reply; /* 0: to a VIP; 1: a guest's answer */
};

struct xlb_fragment {
	__u32 addr[4]; /* replies: the VIP that becomes the source */
	__u32 backend; /* to a VIP: where the first one went */
	__u32 forwarding; /* enum xlb_forwarding */
};

/*
 * The VIPs' addresses, without ports; key of the addresses map.  Asked only
 * about packets whose ports can't be read.
 */
struct xlb_address_key {
	__u32 addr[4];
	__u32 family;
};

/*
 * Destinations to which a backend's packets are not answers through a VIP
 * (this host, the backends' own networks, direct_clients); longest-prefix
 * trie.  IPv4 addresses are written as ::ffff:a.b.c.d, prefix + 96.
 */
struct xlb_direct_key {
	__u32 prefix_len;
	__u32 addr[4];
};

_Static_assert(sizeof(struct xlb_vip) == 64, "one cache line");
_Static_assert(sizeof(struct xlb_backend) == 64, "one cache line");
_Static_assert(sizeof(struct xlb_slot_line) == 64, "one cache line");
_Static_assert(sizeof(struct xlb_flow_line) == 64, "one cache line");
_Static_assert(sizeof(struct xlb_moved_line) == 64, "one cache line");
_Static_assert(sizeof(struct xlb_counter) == 32, "two a cache line");
_Static_assert(sizeof(struct xlb_control) == 104, "shared layout");
_Static_assert(sizeof(struct xlb_trace) % 32 == 0, "shared layout");
_Static_assert(sizeof(struct xlb_sample) == 80, "shared layout");
_Static_assert(sizeof(struct xlb_tables) % 4096 == 0, "whole pages");
_Static_assert(sizeof(struct xlb_service) == 88, "shared layout");
_Static_assert(sizeof(struct xlb_owner) == 72, "shared layout");
_Static_assert(sizeof(struct xlb_reply_key) == 20, "no padding in a key");
_Static_assert(sizeof(struct xlb_fragment_key) == 40, "no padding in a key");
_Static_assert(sizeof(struct xlb_address_key) == 20, "no padding in a key");

/*
 * Hash of a VIP (address words as in struct xlb_vip, port in network order).
 * bucket = h >> 52; line = ((u32)(h >> 32) ^ displacement[bucket]) % LINES.
 * The upper half of a displacement is a filter: bit (h >> 48) % 16 is set for
 * each of the bucket's keys, so that most of what is for nobody never comes to
 * a line.
 */
static inline __attribute__((always_inline)) __u64
xlb_vip_hash(__u64 addr_lo, __u64 addr_hi, __u16 port, __u8 proto, int v6,
	     __u64 seed)
{
	__u64 key = addr_lo ^ (__u64)port << 32 ^ (__u64)proto << 48;
	__u64 hash = (key ^ seed) * 0x9E3779B97F4A7C15ULL;

	if (v6) {
		hash += (addr_hi ^ (hash >> 32)) * 0xD6E8FEB86659FD93ULL;
		/* The end of an address stands in the high bytes of addr_hi,
		 * which reach the bucket only; this takes them to the line. */
		hash ^= hash >> 13;
	}
	return hash;
}

#endif
