/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP errors from guests about packets that they got from clients: the
 * client knows only the VIP, so the outer source and the quoted destination
 * become the VIP's again.  Quoted bytes are plain data; only the ICMP sum
 * itself is changed by a helper.
 */
#ifndef REPLY_ICMP_H
#define REPLY_ICMP_H

#include "reply.h"

/* The quoted packet, as the guest got it from the client. */
struct quoted {
	struct xlb_reply_key to; /* destination: the backend or a dsr VIP */
	struct ports ports;
	__u32 l3; /* offsets in the frame */
	__u32 l4;
};

/* Change a word of the quotation; returns by how much the sum changed. */
static __always_inline __u64 quoted_store16(struct __sk_buff *skb, __u32 at,
					    __u16 old, __u16 new)
{
	bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
	return csum_change16(old, new);
}

/* The quoted transport checksum follows by `delta`, where it is quoted. */
static __always_inline __u64 quoted_sum(struct __sk_buff *skb, __u32 at,
					bool optional, __u64 delta)
{
	__u16 old;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)) ||
	    (optional && !old))
		return 0;
	return quoted_store16(skb, at, old, csum_add(old, delta));
}

static __always_inline __u64 quoted_restore(struct __sk_buff *skb,
					    const struct quoted *q,
					    const struct xlb_reply *r)
{
	bool udp = q->to.proto == IPPROTO_UDP;
	__u64 addr = address_delta(q->to.addr, r->addr);
	__u64 port = csum_change16(q->ports.dest, r->port);
	__u64 sum = addr;

	if (q->to.family == FAMILY_V4) {
		sum += quoted_sum(skb,
				  q->l3 + (__u32)offsetof(struct iphdr, check),
				  false, addr);
		bpf_skb_store_bytes(
			skb, q->l3 + (__u32)offsetof(struct iphdr, daddr),
			r->addr, 4, 0);
	} else {
		bpf_skb_store_bytes(
			skb, q->l3 + (__u32)offsetof(struct ipv6hdr, daddr),
			r->addr, 16, 0);
	}
	sum += quoted_sum(skb, q->l4 + (udp ? 6 : 16), udp, addr + port);
	return sum + quoted_store16(skb, q->l4 + 2, q->ports.dest, r->port);
}

/* a: the outer packet, with neither ports nor len. */
static __noinline int answer_error(struct __sk_buff *skb, struct answer *a,
				   struct quoted *q)
{
	__u32 at = a->l4 + (__u32)offsetof(struct icmp_header, checksum);
	struct xlb_reply *r;
	__u32 ifindex = 0;
	__u64 sum;
	int verdict;

	if (bpf_skb_load_bytes(skb, q->l4, &q->ports, sizeof(q->ports)))
		return TC_ACT_OK;
	q->to.port = q->ports.dest;
	a->len = skb->len - L3_OFFSET;
	r = bpf_map_lookup_elem(&replies, &q->to);
	if (!r) {
		a->from.port = q->to.port;
		a->from.proto = q->to.proto;
		return answer_dsr(skb, a);
	}
	if (a->ttl <= 1 || answer_is_direct(a))
		return TC_ACT_OK;
	verdict =
		answer_stuck(a, answer_route(skb, a, r->addr, &ifindex), true);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	sum = quoted_restore(skb, q, r);
	if (a->from.family == FAMILY_V6)
		sum += address_delta(a->from.addr, r->addr);
	bpf_l4_csum_replace(skb, at, 0, csum_fold(sum), 0);
	rewrite_header(skb, a, r->addr);
	return (int)bpf_redirect_neigh(ifindex, NULL, 0, 0);
}

static __noinline int answer_icmp_v4(struct __sk_buff *skb, struct answer *a)
{
	struct quoted q = { .l3 = a->l4 + sizeof(struct icmp_header) };
	struct iphdr inner;
	__u8 type;

	if (bpf_skb_load_bytes(skb, a->l4, &type, sizeof(type)) ||
	    !icmp_is_error_v4(type) ||
	    bpf_skb_load_bytes(skb, q.l3, &inner, sizeof(inner)) ||
	    *(__u8 *)&inner != 0x45 ||
	    (inner.frag_off & bpf_htons(IP_OFFSET)) ||
	    !proto_has_ports(inner.protocol))
		return TC_ACT_OK;
	q.to.addr[0] = inner.daddr;
	q.to.proto = inner.protocol;
	q.to.family = FAMILY_V4;
	q.l4 = q.l3 + sizeof(inner);
	return answer_error(skb, a, &q);
}

static __noinline int answer_icmp_v6(struct __sk_buff *skb, struct answer *a)
{
	struct quoted q = { .l3 = a->l4 + sizeof(struct icmp_header) };
	struct ipv6hdr inner;
	__u8 type;

	if (bpf_skb_load_bytes(skb, a->l4, &type, sizeof(type)) ||
	    !icmp_is_error_v6(type) ||
	    bpf_skb_load_bytes(skb, q.l3, &inner, sizeof(inner)) ||
	    !proto_has_ports(inner.nexthdr))
		return TC_ACT_OK;
	copy_addr(q.to.addr, &inner.daddr);
	q.to.proto = inner.nexthdr;
	q.to.family = FAMILY_V6;
	q.l4 = q.l3 + sizeof(inner);
	return answer_error(skb, a, &q);
}

#endif
