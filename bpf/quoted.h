/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP errors that routers or clients send to a VIP about an answer of one of
 * its backends.  The quoted packet went from the VIP to the client: turned
 * round it is the flow, and the flow's backend gets the error.  With nat both
 * the outer destination and the quoted source become the backend's.
 */
#ifndef QUOTED_H
#define QUOTED_H

#include "forward.h"
#include "select.h"
#include "service.h"

/* Behind the Ethernet header, which would spoil the alignment. */
struct quoted_v4 {
	struct iphdr ip;
	struct icmp_header icmp;
	struct iphdr inner;
	struct ports ports; /* of the quoted packet */
	__u32 rest; /* TCP: sequence number; UDP: length, checksum */
};

struct quoted_v6 {
	struct ipv6hdr ip;
	struct icmp_header icmp;
	struct ipv6hdr inner;
	struct ports ports;
	__u32 rest;
};

/* The backend of the flow whose hash and dest stand in f; 0: not known. */
static __always_inline __u32 quoted_owner(const struct xlb_vip *vip,
					  struct flow *f)
{
	__u32 word = slot_of(vip, f->hash);

	if (slot_decides(vip, word))
		return XLB_SLOT_CUR(word);
	flow_choices(vip, word, f);
	return track_peek(f);
}

/* len: of the packet, as its header says; least: of what is read of it. */
static __always_inline bool quoted_whole(struct context *ctx, void *data,
					 void *end, __u32 len, __u32 least)
{
	return len >= least &&
	       len + (__u32)sizeof(struct ethhdr) <= ctx_length(ctx, data, end);
}

/*
 * The quoted transport header's source becomes `port`, and its checksum, where
 * it is quoted, follows that and the address's change.  Returns by how much
 * the sum over the quoted header changed.
 */
static __always_inline __u64 quoted_transport(struct ports *ports, void *end,
					      __u8 proto, __be16 port,
					      __u64 addr_delta)
{
	__u64 delta = csum_change16(ports->source, port);
	__u16 *csum = (void *)ports + 6;
	__u16 old, new;

	if (proto == IPPROTO_TCP)
		csum = (void *)ports + 16;
	ports->source = port;
	if ((void *)(csum + 1) > end)
		return delta;
	old = *csum;
	if (proto == IPPROTO_UDP && !old)
		return delta;
	new = csum_add(old, addr_delta + delta);
	if (proto == IPPROTO_UDP && !new)
		new = 0xffff; /* 0 would say that there is none */
	*csum = new;
	return delta + csum_change16(old, new);
}

static __always_inline int quoted_forward_v4(struct context *ctx, void *data,
					     void *end,
					     const struct xlb_vip *vip,
					     __u32 id)
{
	struct quoted_v4 *q = data + sizeof(struct ethhdr);
	const struct xlb_backend *be = backend_line(id);
	__u32 bytes = ctx_length(ctx, data, end);
	bool nat = is_nat(vip->forwarding);

	if (!reachable(be, be->l2_v4, false, nat))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (nat) {
		__u64 delta = (__u64)(__u16)~vip->addr_sum + be->sum4;
		__u64 sum;

		if (hop_spent(be, q->ip.ttl))
			return drop(XLB_DROP_TTL);
		/* The quoted header's address and checksum cancel out. */
		q->inner.saddr = be->addr4;
		q->inner.check = csum_add(q->inner.check, delta);
		sum = quoted_transport(&q->ports, end, q->inner.protocol,
				       backend_port(be, vip), delta);
		q->icmp.checksum = csum_add(q->icmp.checksum, sum);
		rewrite_v4(ctx, &q->ip,
			   &(struct rewrite){
				   .addr = &be->addr4,
				   .delta = delta,
				   .hop = !(be->flags & XLB_BACKEND_STACK) });
	}
	count_packet(id, bytes, false);
	return leave(ctx, data, be, be->l2_v4, nat);
}

/* The caller saw an IPv4 header without options, no fragment, ICMP. */
__noinline int quoted_error_v4(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct quoted_v4 *q = data + sizeof(struct ethhdr);
	void *end = (void *)(long)ctx->data_end;
	const struct xlb_vip *vip;
	struct flow f = {};
	__u32 id;

	if ((void *)(q + 1) > end || !icmp_is_error_v4(q->icmp.type) ||
	    *(__u8 *)&q->inner != 0x45 ||
	    (q->inner.frag_off & bpf_htons(IP_OFFSET)) ||
	    !proto_has_ports(q->inner.protocol))
		return VERDICT_PASS;
	vip = service_find_v4(q->inner.saddr, q->ports.source,
			      q->inner.protocol);
	if (!vip || q->ip.daddr != q->inner.saddr)
		return VERDICT_PASS;
	if (!quoted_whole(ctx, data, end, bpf_ntohs(q->ip.tot_len), sizeof(*q)))
		return drop(XLB_DROP_MALFORMED);
	f.hash = flow_hash_v4(vip, q->inner.daddr,
			      ports_word(q->ports.dest, q->ports.source));
	f.dest = flow_dest_v4(q->inner.saddr, q->inner.protocol);
	id = quoted_owner(vip, &f);
	if (!id)
		return drop(XLB_DROP_ICMP);
	return quoted_forward_v4(ctx, data, end, vip, id);
}

static __always_inline int quoted_forward_v6(struct context *ctx, void *data,
					     void *end,
					     const struct xlb_vip *vip,
					     __u32 id)
{
	struct quoted_v6 *q = data + sizeof(struct ethhdr);
	const struct xlb_backend *be = backend_line(id);
	__u32 bytes = ctx_length(ctx, data, end);
	bool nat = is_nat(vip->forwarding);

	if (!reachable(be, be->l2_v6, true, nat))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (nat) {
		__u64 delta = (__u64)(__u16)~vip->addr_sum + be->sum6;
		__u64 sum;

		if (hop_spent(be, q->ip.hop_limit))
			return drop(XLB_DROP_TTL);
		/* Once for the pseudo header, once for the quoted address. */
		sum = 2 * delta;
		copy_v6(&q->inner.saddr, be->addr6);
		sum += quoted_transport(&q->ports, end, q->inner.nexthdr,
					backend_port(be, vip), delta);
		q->icmp.checksum = csum_add(q->icmp.checksum, sum);
		rewrite_v6(ctx, &q->ip,
			   &(struct rewrite){
				   .addr = be->addr6,
				   .hop = !(be->flags & XLB_BACKEND_STACK) });
	}
	count_packet(id, bytes, false);
	return leave(ctx, data, be, be->l2_v6, nat);
}

__noinline int quoted_error_v6(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct quoted_v6 *q = data + sizeof(struct ethhdr);
	void *end = (void *)(long)ctx->data_end;
	const struct xlb_vip *vip;
	const __u64 *to, *vip_addr, *client;
	struct flow f = {};
	__u32 id;

	if ((void *)(q + 1) > end || !icmp_is_error_v6(q->icmp.type) ||
	    !proto_has_ports(q->inner.nexthdr))
		return VERDICT_PASS;
	vip_addr = (const __u64 *)&q->inner.saddr;
	client = (const __u64 *)&q->inner.daddr;
	to = (const __u64 *)&q->ip.daddr;
	vip = service_find_v6(vip_addr[0], vip_addr[1], q->ports.source,
			      q->inner.nexthdr);
	if (!vip || to[0] != vip_addr[0] || to[1] != vip_addr[1])
		return VERDICT_PASS;
	if (!quoted_whole(ctx, data, end,
			  bpf_ntohs(q->ip.payload_len) + (__u32)sizeof(q->ip),
			  sizeof(*q)))
		return drop(XLB_DROP_MALFORMED);
	f.hash = flow_hash_v6(vip, client[0], client[1],
			      ports_word(q->ports.dest, q->ports.source));
	f.dest = flow_dest_v6(vip_addr[0], vip_addr[1], q->inner.nexthdr);
	id = quoted_owner(vip, &f);
	if (!id)
		return drop(XLB_DROP_ICMP);
	return quoted_forward_v6(ctx, data, end, vip, id);
}

#endif
