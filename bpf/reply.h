/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way back: what a backend sends, seen where it enters this host.  An
 * answer of a nat service gets the VIP as its source again; an answer of a
 * dsr service has it already, but the host's stack would refuse a packet
 * from an address of its own.  Both leave by the route's interface.
 *
 * Guests' packets carry partial checksums, so sums are only ever changed by
 * the helpers that know.  What isn't an answer isn't touched.
 */
#ifndef REPLY_H
#define REPLY_H

#include "count.h"
#include "headers.h"
#include "rewrite.h"
#include "service.h"

#define SOCKET_V4 2 /* AF_INET, AF_INET6, as bpf_fib_lookup wants them */
#define SOCKET_V6 10

/* What matters of a packet on its way back. */
struct answer {
	struct headers h;
	struct xlb_reply_key from; /* source address, port; protocol, family */
	struct ports ports;
	__u32 l3; /* offset of the IP header; of the next one: h.l4 */
	__u32 len; /* bytes from the IP header on, of one packet on the wire */
	__u8 tags; /* VLAN tags, in the packet or beside it */
	__u8 ttl;
	bool dont_fragment; /* or IPv6 */
	bool opens; /* SYN without ACK */
	/* See answer_route(); here, for the stack has no room. */
	__u32 out; /* interface */
	struct bpf_redir_neigh hop;
};

/* The packet that an ICMP error quotes, as the guest got it from the client. */
struct quoted {
	struct headers h;
	struct xlb_reply_key to; /* destination: the backend or its VIP */
	struct ports ports;
	__u32 l3; /* offset in the frame */
};

/* The packet in hand; the stack is small for all calls. */
struct reply {
	struct answer a;
	struct quoted q;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reply);
} reply_place SEC(".maps");

static __always_inline int answer_drop(enum xlb_drop reason)
{
	count_drop(reason);
	return TC_ACT_SHOT;
}

/*
 * Ports, and what a connection's first packet looks like.  false: the header
 * isn't all there, and of what is only a part could be rewritten.
 */
static __always_inline bool answer_ports(struct __sk_buff *skb,
					 struct answer *a)
{
	bool tcp = a->h.proto == IPPROTO_TCP;
	__u32 header = sizeof(struct udphdr);
	struct tcphdr tcph; /* or as much of it as UDP has */

	if (tcp ? bpf_skb_load_bytes(skb, a->h.l4, &tcph, sizeof(tcph))
		: bpf_skb_load_bytes(skb, a->h.l4, &tcph,
				     sizeof(struct udphdr)))
		return false;
	a->ports = *(struct ports *)&tcph;
	a->from.port = a->ports.source;
	if (tcp) {
		a->opens = (((__u8 *)&tcph)[13] & 0x12) == 0x02;
		header = tcph.doff * 4u;
	}
	if (skb->gso_size)
		a->len = a->h.l4 - a->l3 + header + skb->gso_size;
	return true;
}

static __always_inline bool answer_is_direct(const struct answer *a)
{
	struct xlb_direct_key key = { .prefix_len = 128 };

	if (a->from.family == FAMILY_V4) {
		key.addr[2] = bpf_htonl(0xffff);
		key.addr[3] = a->h.key.dst[0];
	} else {
		copy_addr(key.addr, a->h.key.dst);
	}
	return bpf_map_lookup_elem(&direct, &key) != NULL;
}

/* What the pieces of an answer are known by. */
static __always_inline struct xlb_fragment_key
answer_fragment_key(const struct answer *a)
{
	struct xlb_fragment_key key = a->h.key;

	key.reply = 1;
	return key;
}

/*
 * Where the answer leaves, as bpf_fib_lookup says: its result; the interface
 * and the next hop in *a.  src: the address it leaves with (rules may ask for
 * it).
 */
static __noinline long answer_route(struct __sk_buff *skb, struct answer *a,
				    const __u32 src[4])
{
	/* A subprogram, for its stack is large. */
	struct bpf_fib_lookup fib = {
		.l4_protocol = a->h.proto,
		.tot_len = (__u16)a->len,
		.ifindex = skb->ifindex,
	};
	long result;

	if (!src)
		return BPF_FIB_LKUP_RET_BLACKHOLE;
	if (a->from.family == FAMILY_V4) {
		fib.family = SOCKET_V4;
		fib.ipv4_src = src[0];
		fib.ipv4_dst = a->h.key.dst[0];
	} else {
		fib.family = SOCKET_V6;
		copy_addr(fib.ipv6_src, src);
		copy_addr(fib.ipv6_dst, a->h.key.dst);
	}
	result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	a->out = fib.ifindex;
	a->hop.nh_family = fib.family;
	copy_addr(a->hop.ipv6_nh, fib.ipv6_dst); /* or of IPv4 */
	return result;
}

/* By the hop that was found, so that the kernel doesn't look for it again. */
static __always_inline int answer_leave(struct answer *a)
{
	return (int)bpf_redirect_neigh(a->out, &a->hop, sizeof(a->hop), 0);
}

/*
 * The verdict where there is no way out, or TC_ACT_UNSPEC.  Too big: the
 * guest is told by the host's own stack, to which the answer passes as it
 * is; an answer that is already the VIP's (translated false) can't go there.
 */
static __always_inline int answer_stuck(const struct answer *a, long result,
					bool translated)
{
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return TC_ACT_UNSPEC;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		if (a->dont_fragment && translated)
			return TC_ACT_OK;
		return answer_drop(XLB_DROP_REPLY_TOO_BIG);
	case BPF_FIB_LKUP_RET_NOT_FWDED: /* for this host, or no route */
		return TC_ACT_OK;
	default: /* the kernel's other reasons, whatever they become */
		return answer_drop(XLB_DROP_REPLY_NO_ROUTE);
	}
}

/*
 * Without its tags, which were those of the way here: a tag of the way out is
 * its interface's to put on.  The IP header is then where it always is.
 */
static __always_inline bool answer_untag(struct __sk_buff *skb,
					 struct answer *a)
{
	for (int i = 0; i <= MAX_TAGS; i++)
		if (i < a->tags && bpf_skb_vlan_pop(skb))
			return false;
	a->h.l4 -= a->l3 - (__u32)sizeof(struct ethhdr);
	a->l3 = sizeof(struct ethhdr);
	return true;
}

/* Source address and hop limit of the IPv4 header. */
static __always_inline void answer_header_v4(struct __sk_buff *skb, __be32 old,
					     __be32 new)
{
	__u32 at = sizeof(struct ethhdr) + (__u32)offsetof(struct iphdr, ttl);
	struct header_part part;

	/* Without the destination, which stays. */
	if (bpf_skb_load_bytes(skb, at, &part, HEADER_PART_SOURCE))
		return;
	part.ttl--;
	part.check = csum_add(part.check, TTL_DELTA + (__u64)(__u32)~old + new);
	part.saddr = new;
	bpf_skb_store_bytes(skb, at, &part, HEADER_PART_SOURCE, 0);
}

/*
 * Nothing balances these in a sum that hardware made of the whole packet: it
 * is kept up here.  (BPF_F_PSEUDO_HDR takes the address off that sum, as IPv4
 * needs it, with IPv6 too; so it is put on again here.)
 */
static __always_inline void answer_header_v6(struct __sk_buff *skb, __u8 ttl,
					     const __u32 new[4])
{
	__u32 l3 = sizeof(struct ethhdr);

	ttl--;
	bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, hop_limit), &ttl,
			    sizeof(ttl), BPF_F_RECOMPUTE_CSUM);
	bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, saddr), new, 16,
			    BPF_F_RECOMPUTE_CSUM);
}

static __always_inline void
answer_header(struct __sk_buff *skb, const struct answer *a, const __u32 new[4])
{
	if (a->from.family == FAMILY_V4)
		answer_header_v4(skb, a->from.addr[0], new[0]);
	else
		answer_header_v6(skb, a->ttl, new);
}

/* By how much the sum of the source address changes. */
static __always_inline __u16 address_delta(const __u32 old[4],
					   const __u32 new[4])
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u64)(__u32)~old[i] + new[i];
	return csum_fold(sum);
}

static __always_inline void answer_transport(struct __sk_buff *skb,
					     const struct answer *a,
					     const struct xlb_reply *r)
{
	bool udp = a->h.proto == IPPROTO_UDP;
	__u32 at = a->h.l4 + (udp ? offsetof(struct udphdr, check)
				  : offsetof(struct tcphdr, check));

	bpf_l4_csum_replace(skb, at, 0, address_delta(a->from.addr, r->addr),
			    BPF_F_PSEUDO_HDR |
				    (udp ? BPF_F_MARK_MANGLED_0 : 0));
	if (r->port != a->ports.source)
		rewrite_port(skb, a->h.l4, at, a->ports.source, r->port, udp);
}

/* A later fragment: nothing but addresses, as its first one went. */
static __noinline int answer_later(struct __sk_buff *skb, struct answer *a)
{
	struct xlb_fragment_key key;
	struct xlb_fragment *first;
	int verdict;

	key = answer_fragment_key(a);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first || a->ttl <= 1)
		return TC_ACT_OK;
	verdict = answer_stuck(a, answer_route(skb, a, first->addr), true);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	if (!answer_untag(skb, a))
		return answer_drop(XLB_DROP_ENCAP);
	answer_header(skb, a, first->addr);
	return answer_leave(a);
}

static __always_inline void answer_remember(const struct answer *a,
					    const struct xlb_reply *r)
{
	struct xlb_fragment value = { .backend = r->backend };
	struct xlb_fragment_key key = answer_fragment_key(a);

	copy_addr(value.addr, r->addr);
	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/*
 * An answer of a backend that has the VIP itself (dsr, ipip, gue), or a packet
 * that is none at all.
 */
static __noinline int answer_own(struct __sk_buff *skb, struct answer *a)
{
	const struct xlb_vip *vip = service_find(a->from.addr, a->from.family,
						 a->from.port, a->from.proto);
	int verdict;

	if (!vip || vip->forwarding == XLB_NAT || a->opens)
		return TC_ACT_OK;
	verdict = answer_stuck(a, answer_route(skb, a, a->from.addr), false);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	if (!answer_untag(skb, a))
		return answer_drop(XLB_DROP_ENCAP);
	return answer_leave(a);
}

/* TCP or UDP with its ports. */
static __always_inline int answer(struct __sk_buff *skb, struct answer *a)
{
	struct xlb_reply *r;
	int verdict;

	if (service_find(a->h.key.dst, a->from.family, a->ports.dest,
			 a->from.proto))
		return answer_drop(XLB_DROP_HAIRPIN);
	r = bpf_map_lookup_elem(&replies, &a->from);
	if (!r)
		return answer_own(skb, a);
	trace_backend(r->backend);
	if (a->opens || a->ttl <= 1 || answer_is_direct(a))
		return TC_ACT_OK;
	verdict = answer_stuck(a, answer_route(skb, a, r->addr), true);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	if (a->h.more)
		answer_remember(a, r);
	if (!answer_untag(skb, a))
		return answer_drop(XLB_DROP_ENCAP);
	answer_transport(skb, a, r);
	answer_header(skb, a, r->addr);
	return answer_leave(a);
}

#endif
