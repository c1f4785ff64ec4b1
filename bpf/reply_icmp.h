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
	__u16 old, new;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)) ||
	    (optional && !old))
		return 0;
	new = csum_add(old, delta);
	if (optional && !new)
		new = 0xffff; /* 0 would say that there is none */
	return quoted_store16(skb, at, old, new);
}

/* The quoted packet as the client sent it; by how much its sum changed. */
static __always_inline __u64 quoted_restore(struct __sk_buff *skb,
					    const struct quoted *q,
					    const struct xlb_reply *r)
{
	bool udp = q->h.proto == IPPROTO_UDP;
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
	sum += quoted_sum(skb, q->h.l4 + (udp ? 6 : 16), udp, addr + port);
	return sum + quoted_store16(skb, q->h.l4 + 2, q->ports.dest, r->port);
}

/* From the guest's error to the VIP's. */
static __always_inline void quoted_answer(struct __sk_buff *skb,
					  const struct answer *a,
					  const struct quoted *q,
					  const struct xlb_reply *r)
{
	__u32 at = a->h.l4 + (__u32)offsetof(struct icmp_header, checksum);

	bpf_l4_csum_replace(skb, at, 0, csum_fold(quoted_restore(skb, q, r)),
			    0);
	if (a->from.family == FAMILY_V6)
		bpf_l4_csum_replace(skb, at, 0,
				    address_delta(a->from.addr, r->addr),
				    BPF_F_PSEUDO_HDR);
	answer_header(skb, a, r->addr);
}

/* a: the outer packet. */
static __noinline int answer_error(struct __sk_buff *skb, struct answer *a,
				   struct quoted *q)
{
	struct xlb_reply *r;
	__u32 moved;
	int verdict;

	r = bpf_map_lookup_elem(&replies, &q->to);
	if (!r) {
		a->from.port = q->to.port;
		a->from.proto = q->to.proto;
		return answer_own(skb, a);
	}
	if (a->ttl <= 1 || answer_is_direct(a))
		return TC_ACT_OK;
	verdict = answer_stuck(a, answer_route(skb, a, r->addr), true);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	moved = a->l3 - (__u32)sizeof(struct ethhdr);
	if (!answer_untag(skb, a))
		return answer_drop(XLB_DROP_ENCAP);
	q->l3 -= moved;
	q->h.l4 -= moved;
	quoted_answer(skb, a, q, r);
	return answer_leave(a);
}

/* An error about a packet with ports?  Else it is left alone. */
static __noinline int answer_icmp(struct __sk_buff *skb, struct answer *a,
				  struct quoted *q)
{
	bool v4 = a->from.family == FAMILY_V4;
	__u8 type;

	*q = (struct quoted){ .l3 = a->h.l4 +
				    (__u32)sizeof(struct icmp_header) };
	if (a->h.pieces || bpf_skb_load_bytes(skb, a->h.l4, &type, 1) ||
	    !(v4 ? icmp_is_error_v4(type) : icmp_is_error_v6(type)) ||
	    (v4 ? headers_v4(skb, q->l3, &q->h)
		: headers_v6(skb, q->l3, &q->h)) ||
	    q->h.later || !proto_has_ports(q->h.proto) ||
	    bpf_skb_load_bytes(skb, q->h.l4, &q->ports, sizeof(q->ports)))
		return TC_ACT_OK;
	copy_addr(q->to.addr, q->h.key.dst);
	q->to.port = q->ports.dest;
	q->to.proto = q->h.proto;
	q->to.family = a->from.family;
	return answer_error(skb, a, q);
}

#endif
