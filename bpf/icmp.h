/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets too big for the way to their backend: the client is told by the
 * VIP, before anything was rewritten, so that the quoted packet is its own.
 * All of this is off the hot path.
 */
#ifndef ICMP_H
#define ICMP_H

#include "count.h"
#include "parse.h"

#define ICMP_QUOTE 128 /* bytes of the packet that an answer quotes */
#define ICMP_V4_NEW (sizeof(struct iphdr) + sizeof(struct icmp_header))
#define ICMP_V6_NEW (sizeof(struct ipv6hdr) + sizeof(struct icmp_header))

/* Behind the Ethernet header, which would spoil the alignment. */
struct icmp_v4_answer {
	struct iphdr ip;
	struct icmp_header icmp;
	__u8 quote[ICMP_QUOTE];
};

struct icmp_v6_answer {
	struct ipv6hdr ip;
	struct icmp_header icmp;
	__u8 quote[ICMP_QUOTE];
};

/* Cut the packet to what is quoted and make room for `room` bytes before it. */
static __always_inline int icmp_reshape(struct context *ctx, __u32 room,
					__be16 proto)
{
	__u32 keep = sizeof(struct ethhdr) + ICMP_QUOTE;
	__u32 len = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));

	if (len < keep || !ctx_trim(ctx, keep))
		return -1;
	if (!ctx_push(ctx, room, proto, ROOM_PLAIN))
		return -1;
	ctx_linear(ctx, keep + room);
	return 0;
}

/* The packet turned round: from whom it was sent to, to whom sent it. */
static __always_inline void icmp_turn_eth(struct ethhdr *to,
					  const struct ethhdr *from)
{
	__builtin_memcpy(to->h_dest, from->h_source, ETH_ALEN);
	__builtin_memcpy(to->h_source, from->h_dest, ETH_ALEN);
	to->h_proto = from->h_proto;
}

static __always_inline void icmp_fill_v4(struct icmp_v4_answer *a,
					 const struct iphdr *old, __u32 mtu)
{
	a->ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(ICMP_V4_NEW + ICMP_QUOTE),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		.saddr = old->daddr,
		.daddr = old->saddr,
	};
	a->icmp = (struct icmp_header){
		.type = ICMP4_UNREACHABLE,
		.code = ICMP4_FRAG_NEEDED,
		.info = bpf_htonl(mtu),
	};
	a->ip.check = (__u16)~csum_fold((__u64)bpf_csum_diff(
		NULL, 0, (__be32 *)&a->ip, sizeof(a->ip), 0));
	a->icmp.checksum = (__u16)~csum_fold((__u64)bpf_csum_diff(
		NULL, 0, (__be32 *)&a->icmp, sizeof(a->icmp) + ICMP_QUOTE, 0));
}

/*
 * Answer "fragmentation needed", where the sender asked not to be fragmented.
 * The packet counts as dropped either way.
 */
__noinline int icmp_too_big_v4(struct context *ctx, __u32 mtu)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct icmp_v4_answer *answer;
	struct ethhdr old_eth;
	struct iphdr old_ip;

	count_drop(XLB_DROP_TOO_BIG);
	if ((void *)(ip + 1) > end || !(ip->frag_off & bpf_htons(IP_DF)))
		return VERDICT_DROP;
	old_eth = *eth;
	old_ip = *ip;
	if (icmp_reshape(ctx, ICMP_V4_NEW, bpf_htons(ETH_P_IP)))
		return VERDICT_DROP;
	eth = (void *)(long)ctx->data;
	answer = (void *)(eth + 1);
	if ((void *)(answer + 1) > (void *)(long)ctx->data_end)
		return VERDICT_DROP;
	icmp_turn_eth(eth, &old_eth);
	icmp_fill_v4(answer, &old_ip, mtu);
	return ctx_return(ctx);
}

static __always_inline void icmp_fill_v6(struct icmp_v6_answer *a,
					 const struct ipv6hdr *old, __u32 mtu)
{
	__u16 len = sizeof(a->icmp) + ICMP_QUOTE;
	__s64 sum;

	a->ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(len),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
		.saddr = old->daddr,
		.daddr = old->saddr,
	};
	a->icmp = (struct icmp_header){ .type = ICMP6_TOO_BIG,
					.info = bpf_htonl(mtu) };
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&a->ip.saddr, 32,
			    bpf_htons(len) + bpf_htons(IPPROTO_ICMPV6));
	a->icmp.checksum = (__u16)~csum_fold((
		__u64)bpf_csum_diff(NULL, 0, (__be32 *)&a->icmp,
				    sizeof(a->icmp) + ICMP_QUOTE, (__wsum)sum));
}

__noinline int icmp_too_big_v6(struct context *ctx, __u32 mtu)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct ipv6hdr *ip = data + sizeof(*eth);
	struct icmp_v6_answer *answer;
	struct ethhdr old_eth;
	struct ipv6hdr old_ip;

	count_drop(XLB_DROP_TOO_BIG);
	if ((void *)(ip + 1) > end)
		return VERDICT_DROP;
	old_eth = *eth;
	old_ip = *ip;
	if (icmp_reshape(ctx, ICMP_V6_NEW, bpf_htons(ETH_P_IPV6)))
		return VERDICT_DROP;
	eth = (void *)(long)ctx->data;
	answer = (void *)(eth + 1);
	if ((void *)(answer + 1) > (void *)(long)ctx->data_end)
		return VERDICT_DROP;
	icmp_turn_eth(eth, &old_eth);
	icmp_fill_v6(answer, &old_ip, mtu);
	return ctx_return(ctx);
}

#endif
