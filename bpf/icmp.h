/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the VIP itself says to a client: that a packet is too big for the way
 * to its backend, before anything was rewritten, so that the quoted packet is
 * the client's own.  All of this is off the hot path.
 */
#ifndef ICMP_H
#define ICMP_H

#include "count.h"
#include "parse.h"

#define ICMP_QUOTE 128 /* bytes of the packet that an answer quotes */
#define ICMP_TTL 64

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

/* The answer in hand; the stack is small for all calls. */
struct icmp_answer {
	union {
		struct icmp_v4_answer v4;
		struct icmp_v6_answer v6;
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct icmp_answer);
} icmp_place SEC(".maps");

static __always_inline struct icmp_answer *icmp_answer(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&icmp_place, &key);
}

/* An address of one host, which may be answered. */
static __always_inline bool is_host_v4(__be32 addr)
{
	__u8 first = (__u8)(bpf_ntohl(addr) >> 24);

	return first && first != 127 && first < 224;
}

static __always_inline bool is_host_v6(const struct in6_addr *addr)
{
	const __u32 *word = addr->in6_u.u6_addr32;

	return addr->in6_u.u6_addr8[0] != 0xff &&
	       (word[0] | word[1] | word[2] | (word[3] & ~bpf_htonl(1))) != 0;
}

/*
 * Bytes into an IP packet.  In tc a sum that hardware made of the whole packet
 * is kept up.
 */
static __always_inline bool icmp_store(struct context *ctx, __u32 at,
				       const void *from, __u32 len)
{
#ifdef XLB_TC
	return !bpf_skb_store_bytes(ctx, at, from, len, BPF_F_RECOMPUTE_CSUM);
#else
	return !bpf_xdp_store_bytes(ctx, at, (void *)from, len);
#endif
}

/* The Ethernet addresses of an answer; false: nobody is to be answered. */
static __always_inline bool icmp_macs(struct context *ctx,
				      __u8 turned[2 * ETH_ALEN])
{
	__u8 mac[2 * ETH_ALEN];

	if (ctx_load_bytes(ctx, 0, mac, sizeof(mac)) ||
	    ((mac[0] | mac[ETH_ALEN]) & 1))
		return false;
	__builtin_memcpy(turned, mac + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(turned + ETH_ALEN, mac, ETH_ALEN);
	return true;
}

/*
 * Cut the packet to what is quoted, and make room for `room` bytes before it.
 * In tc a sum may still be missing from the packet (a local sender leaves it
 * to the hardware), which would be put into the quotation when it is sent: the
 * kernel forgets about it when the place it counts from is cut off.
 */
static __always_inline bool icmp_reshape(struct context *ctx, __u32 room,
					 __be16 proto)
{
	if (!ctx_trim(ctx, sizeof(struct ethhdr) + ICMP_QUOTE))
		return false;
#ifdef XLB_TC
#define FORGET 84 /* the longest IPv4 header and more; some is to be left */
	if (bpf_skb_adjust_room(ctx, -FORGET, BPF_ADJ_ROOM_MAC, 0))
		return false;
	room += FORGET;
#endif
	return ctx_push(ctx, room, proto, ROOM_PLAIN);
}

/* Back to who sent it: len bytes of answer, with the quotation. */
static __always_inline int icmp_send(struct context *ctx, const void *answer,
				     __u32 len, __be16 proto)
{
	__u8 macs[2 * ETH_ALEN];

	if (!icmp_macs(ctx, macs) ||
	    !icmp_reshape(ctx, len - ICMP_QUOTE, proto) ||
	    !icmp_store(ctx, sizeof(struct ethhdr), answer, len) ||
	    ctx_store_bytes(ctx, 0, macs, sizeof(macs)))
		return VERDICT_DROP;
	return ctx_answer(ctx);
}

/* Around a->quote, which is there. */
static __always_inline void icmp_fill_v4(struct icmp_v4_answer *a, __u32 mtu)
{
	const struct iphdr *old = (const struct iphdr *)a->quote;

	a->ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(*a)),
		.ttl = ICMP_TTL,
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

static __always_inline void icmp_fill_v6(struct icmp_v6_answer *a, __u32 mtu)
{
	const struct ipv6hdr *old = (const struct ipv6hdr *)a->quote;
	__u16 len = sizeof(a->icmp) + ICMP_QUOTE;
	__s64 sum;

	a->ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(len),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = ICMP_TTL,
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

/*
 * Answer "fragmentation needed", where the sender asked not to be fragmented
 * and it is the datagram's beginning.  The packet counts as dropped either
 * way.
 */
__noinline int icmp_too_big_v4(struct context *ctx, __u32 mtu)
{
	struct icmp_answer *a = icmp_answer();
	const struct iphdr *ip;

	count_drop(XLB_DROP_TOO_BIG);
	if (!a || ctx_load_bytes(ctx, sizeof(struct ethhdr), a->v4.quote,
				 sizeof(a->v4.quote)))
		return VERDICT_DROP;
	ip = (const struct iphdr *)a->v4.quote;
	if (!(ip->frag_off & bpf_htons(IP_DF)) ||
	    (ip->frag_off & bpf_htons(IP_OFFSET)) || !is_host_v4(ip->saddr))
		return VERDICT_DROP;
	icmp_fill_v4(&a->v4, mtu);
	return icmp_send(ctx, &a->v4, sizeof(a->v4), bpf_htons(ETH_P_IP));
}

__noinline int icmp_too_big_v6(struct context *ctx, __u32 mtu)
{
	struct icmp_answer *a = icmp_answer();
	const struct ipv6hdr *ip;

	count_drop(XLB_DROP_TOO_BIG);
	if (!a || ctx_load_bytes(ctx, sizeof(struct ethhdr), a->v6.quote,
				 sizeof(a->v6.quote)))
		return VERDICT_DROP;
	ip = (const struct ipv6hdr *)a->v6.quote;
	if (!is_host_v6(&ip->saddr))
		return VERDICT_DROP;
	icmp_fill_v6(&a->v6, mtu);
	return icmp_send(ctx, &a->v6, sizeof(a->v6), bpf_htons(ETH_P_IPV6));
}

#endif
