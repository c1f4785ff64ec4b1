/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP that comes in for a VIP.  Errors go to the backend whose flow they are
 * about; echo requests are answered here, so that a VIP can be pinged wherever
 * it is announced; all else, neighbour discovery above all, is the host's.
 */
#ifndef ICMP_IN_H
#define ICMP_IN_H

#include "icmp.h"
#include "quoted.h"

struct echo_v4 {
	struct iphdr ip;
	struct icmp_header icmp;
};

struct echo_v6 {
	struct ipv6hdr ip;
	struct icmp_header icmp;
};

/*
 * The request turned round; its data stays.  Only where it stands right behind
 * the IP header, and is all there; else the host may look after it.
 */
__noinline int echo_answer_v4(struct context *ctx)
{
	__u32 bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	__u32 vip[4] = {};
	__u8 macs[2 * ETH_ALEN];
	struct echo_v4 e;
	__u16 hops;

	if (ctx_load_bytes(ctx, sizeof(struct ethhdr), &e, sizeof(e)) ||
	    e.ip.ihl != 5 || bpf_ntohs(e.ip.tot_len) < sizeof(e) ||
	    bpf_ntohs(e.ip.tot_len) > bytes - sizeof(struct ethhdr))
		return VERDICT_PASS;
	vip[0] = e.ip.daddr;
	if (!is_host_v4(e.ip.saddr) || e.ip.saddr == e.ip.daddr ||
	    !address_is_vip(vip, FAMILY_V4) || !icmp_macs(ctx, macs))
		return VERDICT_PASS;
	hops = *(__u16 *)&e.ip.ttl;
	e.ip.ttl = ICMP_TTL;
	e.ip.check =
		csum_add(e.ip.check, csum_change16(hops, *(__u16 *)&e.ip.ttl));
	e.ip.daddr = e.ip.saddr;
	e.ip.saddr = vip[0];
	e.icmp.type = ICMP4_ECHO_REPLY;
	e.icmp.checksum = csum_add(e.icmp.checksum,
				   csum_change16(ICMP4_ECHO, ICMP4_ECHO_REPLY));
	/* Of a request without any bit but its type's: see RFC 1624, 3. */
	if (!e.icmp.checksum)
		e.icmp.checksum = 0xffff;
	if (!icmp_store(ctx, sizeof(struct ethhdr), &e, sizeof(e)) ||
	    ctx_store_bytes(ctx, 0, macs, sizeof(macs)))
		return VERDICT_DROP;
	return ctx_answer(ctx);
}

__noinline int echo_answer_v6(struct context *ctx)
{
	__u32 bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	__u8 macs[2 * ETH_ALEN];
	struct echo_v6 e;
	__u32 vip[4];

	if (ctx_load_bytes(ctx, sizeof(struct ethhdr), &e, sizeof(e)) ||
	    e.ip.nexthdr != IPPROTO_ICMPV6 ||
	    bpf_ntohs(e.ip.payload_len) < sizeof(e.icmp) ||
	    bpf_ntohs(e.ip.payload_len) + sizeof(e.ip) >
		    bytes - sizeof(struct ethhdr))
		return VERDICT_PASS;
	copy_addr(vip, &e.ip.daddr);
	if (!is_host_v6(&e.ip.saddr) || !address_is_vip(vip, FAMILY_V6) ||
	    !icmp_macs(ctx, macs))
		return VERDICT_PASS;
	copy_addr(&e.ip.daddr, &e.ip.saddr);
	copy_addr(&e.ip.saddr, vip);
	e.ip.hop_limit = ICMP_TTL;
	e.icmp.type = ICMP6_ECHO_REPLY;
	e.icmp.checksum = csum_add(e.icmp.checksum,
				   csum_change16(ICMP6_ECHO, ICMP6_ECHO_REPLY));
	if (!icmp_store(ctx, sizeof(struct ethhdr), &e, sizeof(e)) ||
	    ctx_store_bytes(ctx, 0, macs, sizeof(macs)))
		return VERDICT_DROP;
	return ctx_answer(ctx);
}

/* at: offset of the ICMP header.  Not a fragment. */
static __always_inline int icmp_in_v4(struct context *ctx, __u32 at)
{
	__u8 type[2]; /* and code */

	if (ctx_load_bytes(ctx, at, type, sizeof(type)))
		return VERDICT_PASS;
	if (type[0] == ICMP4_ECHO && !type[1])
		return echo_answer_v4(ctx);
	return icmp_is_error_v4(type[0]) ? quoted_error_v4(ctx, at)
					 : VERDICT_PASS;
}

static __always_inline int icmp_in_v6(struct context *ctx, __u32 at)
{
	__u8 type[2];

	if (ctx_load_bytes(ctx, at, type, sizeof(type)))
		return VERDICT_PASS;
	if (type[0] == ICMP6_ECHO && !type[1])
		return echo_answer_v6(ctx);
	return icmp_is_error_v6(type[0]) ? quoted_error_v6(ctx, at)
					 : VERDICT_PASS;
}

#endif
