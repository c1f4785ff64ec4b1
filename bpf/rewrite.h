/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nat: a packet's destination becomes its backend's.  In XDP by plain stores
 * and arithmetic.  In tc by the helpers that know of partial checksums and of
 * sums that hardware made of the whole packet: such a sum changes with the
 * hop limit and the IPv6 address, and by the pseudo header's part with the
 * transport checksum; IPv4's header checksum balances what changes in it.
 */
#ifndef REWRITE_H
#define REWRITE_H

#include "ctx.h"

/* The checksum's change when the hop limit, high byte of a word, falls by 1. */
#define TTL_DELTA ((__u64)bpf_htons(0xfeff))

/* What a packet for a service becomes. */
struct rewrite {
	const __u32 *addr; /* the backend's, 1 or 4 words */
	__u64 delta; /* by how much the sum of the address changes; small */
	struct ports *ports; /* NULL: there are none in this fragment */
	__u16 *csum; /* of the transport header */
	__be16 port;
	__u8 proto;
	bool hop; /* the hop limit falls */
};

#ifdef XLB_TC

/*
 * A port and, with it, the transport checksum, which balances it in a sum of
 * the whole packet; but a UDP checksum of 0 says that there is none.
 */
static __always_inline void rewrite_port(struct context *ctx, __u32 at,
					 __u32 csum, __be16 old, __be16 new,
					 bool udp)
{
	__u16 none = 1;

	if (udp)
		bpf_skb_load_bytes(ctx, csum, &none, sizeof(none));
	bpf_l4_csum_replace(ctx, csum, old, new,
			    (udp ? BPF_F_MARK_MANGLED_0 : 0) | sizeof(old));
	bpf_skb_store_bytes(ctx, at, &new, sizeof(new),
			    none ? 0 : BPF_F_RECOMPUTE_CSUM);
}

/* By offsets, for every helper makes the pointers void. */
static __always_inline void rewrite_ports(struct context *ctx,
					  const struct rewrite *r, __u32 ports,
					  __u32 csum, __be16 old)
{
	__u64 zero = r->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	bpf_l4_csum_replace(ctx, csum, 0, csum_fold(r->delta),
			    BPF_F_PSEUDO_HDR | zero);
	if (old == r->port)
		return;
	rewrite_port(ctx, ports + offsetof(struct ports, dest), csum, old,
		     r->port, zero != 0);
}

static __always_inline void rewrite_transport(struct context *ctx,
					      const struct rewrite *r)
{
	void *data = ctx_data(ctx);

	if (r->ports)
		rewrite_ports(ctx, r, (__u32)distance(data, r->ports),
			      (__u32)distance(data, r->csum), r->ports->dest);
}

/* What changes of an IPv4 header, as it stands there: one store for all. */
struct header_part {
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};
#define HEADER_PART_SOURCE offsetof(struct header_part, daddr)

/* All pointers into the packet are void after it. */
static __always_inline void rewrite_v4(struct context *ctx, struct iphdr *ip,
				       const struct rewrite *r)
{
	__u32 at = (__u32)distance(ctx_data(ctx), ip);
	__u64 delta = r->delta + (r->hop ? TTL_DELTA : 0);
	struct header_part part = {
		.ttl = ip->ttl - r->hop,
		.proto = ip->protocol,
		.check = csum_add(ip->check, delta),
		.saddr = ip->saddr,
		.daddr = (__be32)r->addr[0],
	};

	rewrite_transport(ctx, r);
	bpf_skb_store_bytes(ctx, at + offsetof(struct iphdr, ttl), &part,
			    sizeof(part), 0);
}

static __always_inline void rewrite_v6(struct context *ctx, struct ipv6hdr *ip,
				       const struct rewrite *r)
{
	__u32 at = (__u32)distance(ctx_data(ctx), ip);
	__u8 hop = ip->hop_limit;

	rewrite_transport(ctx, r);
	if (r->hop) {
		hop--;
		bpf_skb_store_bytes(ctx,
				    at + offsetof(struct ipv6hdr, hop_limit),
				    &hop, sizeof(hop), BPF_F_RECOMPUTE_CSUM);
	}
	bpf_skb_store_bytes(ctx, at + offsetof(struct ipv6hdr, daddr), r->addr,
			    sizeof(ip->daddr), BPF_F_RECOMPUTE_CSUM);
}

#else

static __always_inline void rewrite_transport(const struct rewrite *r)
{
	__u64 delta = r->delta;
	__u16 old;

	if (!r->ports)
		return;
	old = *r->csum;
	delta += csum_change16(r->ports->dest, r->port);
	if (r->proto == IPPROTO_TCP) {
		*r->csum = csum_add_small(old, delta);
	} else if (old) {
		__u16 new = csum_add_small(old, delta);

		*r->csum = new ? new : 0xffff;
	}
	r->ports->dest = r->port;
}

static __always_inline void rewrite_v4(struct context *ctx, struct iphdr *ip,
				       const struct rewrite *r)
{
	__u64 delta = r->delta;

	(void)ctx;
	if (likely(r->hop)) {
		delta += TTL_DELTA;
		ip->ttl--;
	}
	ip->check = csum_add_small(ip->check, delta);
	ip->daddr = r->addr[0];
	rewrite_transport(r);
}

static __always_inline void rewrite_v6(struct context *ctx, struct ipv6hdr *ip,
				       const struct rewrite *r)
{
	(void)ctx;
	if (likely(r->hop))
		ip->hop_limit--;
	copy_v6(&ip->daddr, r->addr);
	rewrite_transport(r);
}

#endif

#endif
