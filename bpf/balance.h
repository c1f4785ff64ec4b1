/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet from a client, from its first byte to its verdict.  The hot path
 * is a plain TCP or UDP packet; whatever else there is takes rare.h's way.
 */
#ifndef BALANCE_H
#define BALANCE_H

#include "deliver.h"
#include "rare.h"

static __always_inline bool plain_v4(struct context *ctx)
{
	struct iphdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);

	return (void *)(ip + 1) + sizeof(struct udphdr) <= ctx_end(ctx) &&
	       *(const __u8 *)ip == 0x45 &&
	       !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)) &&
	       proto_has_ports(ip->protocol);
}

static __always_inline bool plain_v6(struct context *ctx)
{
	struct ipv6hdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);

	return (void *)(ip + 1) + sizeof(struct udphdr) <= ctx_end(ctx) &&
	       (*(const __u8 *)ip & 0xf0) == 0x60 &&
	       proto_has_ports(ip->nexthdr);
}

/*
 * The hot path of a family; the caller saw that it is plain.  In tc, where a
 * call more doesn't count, a function of its own: what it keeps on the stack
 * isn't there then on the way of rare packets, which need the room.
 */
#ifdef XLB_TC
#define HOT_PATH __noinline
#else
#define HOT_PATH static __always_inline
#endif

HOT_PATH int hot_v4(struct context *ctx)
{
	struct iphdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct ports *ports = (void *)(ip + 1);

	if ((void *)ports + sizeof(struct udphdr) > ctx_end(ctx))
		return VERDICT_DROP;
	return deliver_v4(ctx, ip, ports, ip->protocol);
}

HOT_PATH int hot_v6(struct context *ctx)
{
	struct ipv6hdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct ports *ports = (void *)(ip + 1);

	if ((void *)ports + sizeof(struct udphdr) > ctx_end(ctx))
		return VERDICT_DROP;
	return deliver_v6(ctx, ip, ports, ip->nexthdr);
}

static __always_inline int balance(struct context *ctx)
{
	void *data;
	__be16 type;

	if (ctx_tag_aside(ctx))
		return rare(ctx);
	ctx_plain_linear(ctx);
	data = ctx_data(ctx);
	if (data + sizeof(struct ethhdr) > ctx_end(ctx))
		return VERDICT_PASS;
	/* Not by struct ethhdr, which is packed: clang loads its bytes. */
	type = *(__be16 *)(data + offsetof(struct ethhdr, h_proto));
	if (type == bpf_htons(ETH_P_IP) && HAS(V4))
		return likely(plain_v4(ctx)) ? hot_v4(ctx) : rare(ctx);
	if (type == bpf_htons(ETH_P_IPV6) && HAS(V6))
		return likely(plain_v6(ctx)) ? hot_v6(ctx) : rare(ctx);
	if (is_tag(type))
		return rare(ctx);
	return VERDICT_PASS;
}

#endif
