/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet from a client, from its first byte to its verdict.  The hot path
 * is a plain TCP or UDP packet; whatever else there is takes rare.h's way.
 */
#ifndef BALANCE_H
#define BALANCE_H

#include "forward.h"
#include "rare.h"
#include "select.h"
#include "service.h"

/* All that the hot path reads, of either family. */
#define HOT_BYTES \
	(sizeof(struct ethhdr) + sizeof(struct ipv6hdr) + sizeof(struct tcphdr))

static __always_inline bool plain_v4(const struct iphdr *ip)
{
	return *(const __u8 *)ip == 0x45 &&
	       !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)) &&
	       proto_has_ports(ip->protocol);
}

static __always_inline bool plain_v6(const struct ipv6hdr *ip)
{
	return (*(const __u8 *)ip & 0xf0) == 0x60 &&
	       proto_has_ports(ip->nexthdr);
}

static __always_inline int balance_v4(struct context *ctx, void *data,
				      void *end)
{
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct ports *ports = (void *)(ip + 1);
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	if ((void *)ports + sizeof(struct udphdr) > end || !plain_v4(ip))
		return rare_v4(ctx);
	vip = service_find_v4(ip->daddr, ports->dest, ip->protocol);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, data, end, ports, bpf_ntohs(ip->tot_len),
		      ip->protocol);
	if (unlikely(!packet_whole(ctx, &p, ip, end)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v4(vip, ip->saddr, *(__u32 *)ports);
	p.dest = flow_dest_v4(ip->daddr, p.proto);
	id = packet_backend(&p, vip, end);
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	return forward_v4(ctx, ip, &p, vip, id);
}

static __always_inline int balance_v6(struct context *ctx, void *data,
				      void *end)
{
	struct ipv6hdr *ip = data + sizeof(struct ethhdr);
	struct ports *ports = (void *)(ip + 1);
	const __u64 *src = (const __u64 *)&ip->saddr;
	const __u64 *dst = (const __u64 *)&ip->daddr;
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	if ((void *)ports + sizeof(struct udphdr) > end || !plain_v6(ip))
		return rare_v6(ctx);
	vip = service_find_v6(dst[0], dst[1], ports->dest, ip->nexthdr);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, data, end, ports,
		      bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip),
		      ip->nexthdr);
	if (unlikely(!packet_whole(ctx, &p, ip, end)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v6(vip, src[0], src[1], *(__u32 *)ports);
	p.dest = flow_dest_v6(dst[0], dst[1], p.proto);
	id = packet_backend(&p, vip, end);
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	return forward_v6(ctx, ip, &p, vip, id);
}

static __always_inline int balance(struct context *ctx)
{
	void *data, *end;
	__be16 proto;

	ctx_linear(ctx, HOT_BYTES);
	data = ctx_data(ctx);
	end = ctx_end(ctx);
	if (data + sizeof(struct ethhdr) > end)
		return VERDICT_PASS;
	/* Not by struct ethhdr, which is packed: clang loads its bytes. */
	proto = *(__be16 *)(data + offsetof(struct ethhdr, h_proto));
	if (HAS(V4) && proto == bpf_htons(ETH_P_IP))
		return balance_v4(ctx, data, end);
	if (HAS(V6) && proto == bpf_htons(ETH_P_IPV6))
		return balance_v6(ctx, data, end);
	if (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD))
		return rare_tagged(ctx, proto);
	return VERDICT_PASS;
}

#endif
