/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ipip and gue: the client's packet goes as it is behind an IP header (gue:
 * and a UDP one) to a backend that unpacks it and, having the VIP itself,
 * answers the client directly.  All four pairs of families: the outer one is
 * the packet's own where the backend has an address of it.
 *
 * What a flow's packets have in common shows outside: in the low bits of
 * ipip's source, gue's source port, IPv6's flow label.  So a backend's network
 * card spreads flows over its queues, and routers over their paths.
 */
#ifndef ENCAP_H
#define ENCAP_H

#include "hop.h"
#include "icmp.h"

#define OUTER_TTL 64
#define OUTER_V4_SOURCE 0xac100000 /* 172.16.0.0/16, the flow's 16 bits */
#define OUTER_V6_SOURCE (0x0100ULL << 48) /* 100::/64, discard (RFC 6666) */
#define GUE_SOURCE_PORT 49152 /* the first dynamic one */
#define IP_LENGTH_MAX 65535

/*
 * How a packet is sent, in one word, for a program's function takes but five
 * arguments: enum xlb_forwarding, and this if it is a new flow's first.
 */
#define ENCAP_NEW_FLOW 0x100

/* What the headers in front say of the packet behind them. */
struct inner {
	__u32 mark; /* of the flow: what its packets have in common */
	__u32 len; /* of the packet, its IP header and what follows */
	__u8 tos; /* or traffic class */
	__u8 proto; /* IPPROTO_IPIP or IPPROTO_IPV6 */
	bool gue;
};

struct outer_v4 {
	__u32 ip[5];
	__u32 udp[2];
};

struct outer_v6 {
	__u64 ip[5];
	__u32 udp[2];
};

static __always_inline bool is_encap(__u32 forwarding)
{
	return (HAS(IPIP) && forwarding == XLB_IPIP) ||
	       (HAS(GUE) && forwarding == XLB_GUE);
}

static __always_inline bool has_v6(const struct xlb_backend *be)
{
	const __u64 *addr = (const __u64 *)be->addr6;

	return (addr[0] | addr[1]) != 0;
}

static __always_inline __u32 encap_bytes(bool v6, bool gue)
{
	return (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) +
	       (gue ? sizeof(struct udphdr) : 0);
}

static __always_inline bool has_source(bool v6, bool gue)
{
	const __u64 *source6 = (const __u64 *)tables.control.source6;

	if (!gue)
		return true;
	return v6 ? (source6[0] | source6[1]) != 0
		  : tables.control.source4 != 0;
}

/* No checksum: the packet behind has its own (RFC 6935 for IPv6). */
static __always_inline void outer_udp(__u32 udp[2], const struct inner *in)
{
	__u32 port = GUE_SOURCE_PORT | (__u16)(in->mark >> 16);

	udp[0] = bpf_htonl(port << 16 | XLB_GUE_PORT);
	udp[1] = bpf_htonl((in->len + (__u32)sizeof(struct udphdr)) << 16);
}

static __always_inline void outer_fill_v4(struct outer_v4 *o,
					  const struct xlb_backend *be,
					  const struct inner *in)
{
	__u32 len = in->len + encap_bytes(false, in->gue);
	__u8 proto = in->gue ? IPPROTO_UDP : in->proto;
	__u32 word[5];
	__u16 check;

	word[0] = bpf_htonl(0x45000000 | (__u32)in->tos << 16 | len);
	word[1] = bpf_htonl(IP_DF);
	word[2] = bpf_htonl(OUTER_TTL << 24 | (__u32)proto << 16);
	word[3] =
		in->gue ? tables.control.source4
			: bpf_htonl(OUTER_V4_SOURCE | (__u16)(in->mark >> 16));
	word[4] = be->addr4;
	check = (__u16)~csum_fold(csum_words(word, 5));
	o->ip[0] = word[0];
	o->ip[1] = word[1];
	o->ip[2] = word[2] | (__u32)check << 16;
	o->ip[3] = word[3];
	o->ip[4] = word[4];
	if (in->gue)
		outer_udp(o->udp, in);
}

static __always_inline void outer_fill_v6(struct outer_v6 *o,
					  const struct xlb_backend *be,
					  const struct inner *in)
{
	__u32 len = in->len + (in->gue ? sizeof(struct udphdr) : 0);
	__u8 proto = in->gue ? IPPROTO_UDP : in->proto;
	__u64 label = in->mark >> 12;

	o->ip[0] = bpf_cpu_to_be64(6ULL << 60 | (__u64)in->tos << 52 |
				   label << 32 | len << 16 | (__u32)proto << 8 |
				   OUTER_TTL);
	if (in->gue) {
		copy_v6(&o->ip[1], tables.control.source6);
		outer_udp(o->udp, in);
	} else {
		o->ip[1] = bpf_cpu_to_be64(OUTER_V6_SOURCE);
		o->ip[2] = bpf_cpu_to_be64(in->mark);
	}
	copy_v6(&o->ip[3], be->addr6);
}

/*
 * The outer header into the room that ctx_push() made.  Returns the frame's
 * start, or NULL.  In tc by the helper that keeps up a sum which hardware made
 * of the whole packet.
 */
static __always_inline void *outer_put(struct context *ctx,
				       const struct xlb_backend *be,
				       const struct inner *in, bool v6)
{
#ifdef XLB_TC
	union {
		struct outer_v4 v4;
		struct outer_v6 v6;
	} o;

	if (v6)
		outer_fill_v6(&o.v6, be, in);
	else
		outer_fill_v4(&o.v4, be, in);
	if (bpf_skb_store_bytes(ctx, sizeof(struct ethhdr), &o,
				encap_bytes(v6, in->gue), BPF_F_RECOMPUTE_CSUM))
		return NULL;
	return ctx_data(ctx);
#else
	void *data = ctx_data(ctx);
	void *o = data + sizeof(struct ethhdr);

	/* With what is behind it, so much is there in any case. */
	if (o + (v6 ? sizeof(struct outer_v6) : sizeof(struct outer_v4)) >
	    ctx_end(ctx))
		return NULL;
	if (v6)
		outer_fill_v6(o, be, in);
	else
		outer_fill_v4(o, be, in);
	return data;
#endif
}

/* v6: the outer family. */
static __always_inline int encap_send(struct context *ctx, __u32 id,
				      const struct xlb_backend *be,
				      const struct inner *in, bool v6,
				      bool new_flow)
{
	const __u64 *l2 = v6 ? be->l2_v6 : be->l2_v4;
	__be16 proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__u32 bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	__u32 room = encap_bytes(v6, in->gue);
	void *data;

	if (unlikely(!l2[0] || (be->flags & XLB_BACKEND_STACK)))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (unlikely(in->len + room > IP_LENGTH_MAX ||
		     !has_source(v6, in->gue)))
		return drop(XLB_DROP_ENCAP);
	if (!ctx_push(ctx, room, proto, in->gue ? ROOM_UDP : ROOM_IP))
		return drop(XLB_DROP_ENCAP);
	data = outer_put(ctx, be, in, v6);
	if (!data)
		return drop(XLB_DROP_ENCAP);
	count_packet(id, bytes, new_flow);
	return leave(ctx, data, be, l2, false);
}

static __always_inline bool is_gue(__u32 how)
{
	if (!HAS(IPIP))
		return true;
	return HAS(GUE) && (how & 0xff) == XLB_GUE;
}

/* All of the hash's bits, the best mixed ones (those of the slot) on top. */
static __always_inline __u32 flow_mark(__u64 hash)
{
	return (__u32)(hash >> 32) ^ (__u32)hash;
}

/* Bytes that come in front of a packet of this family (v6) to the backend. */
static __always_inline __u32 encap_room(const struct xlb_backend *be, __u32 how,
					bool v6)
{
	return encap_bytes(v6 ? has_v6(be) : !be->addr4, is_gue(how));
}

/*
 * A client's IPv4 packet to backend id.  len: from its IP header on; it fits.
 * how: see ENCAP_NEW_FLOW.
 */
static __noinline int encap_v4(struct context *ctx, __u32 id, __u64 hash,
			       __u32 len, __u32 how)
{
	const struct xlb_backend *be = backend_line(id);
	struct iphdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct inner in = { .mark = flow_mark(hash),
			    .len = len,
			    .proto = IPPROTO_IPIP,
			    .gue = is_gue(how) };

	if ((void *)(ip + 1) > ctx_end(ctx))
		return drop(XLB_DROP_MALFORMED);
	in.tos = ip->tos;
	if (unlikely(!be->addr4))
		return encap_send(ctx, id, be, &in, true, how & ENCAP_NEW_FLOW);
	return encap_send(ctx, id, be, &in, false, how & ENCAP_NEW_FLOW);
}

static __noinline int encap_v6(struct context *ctx, __u32 id, __u64 hash,
			       __u32 len, __u32 how)
{
	const struct xlb_backend *be = backend_line(id);
	struct ipv6hdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct inner in = { .mark = flow_mark(hash),
			    .len = len,
			    .proto = IPPROTO_IPV6,
			    .gue = is_gue(how) };

	if ((void *)(ip + 1) > ctx_end(ctx))
		return drop(XLB_DROP_MALFORMED);
	in.tos = (__u8)(bpf_ntohl(*(__be32 *)ip) >> 20);
	if (likely(has_v6(be)))
		return encap_send(ctx, id, be, &in, true, how & ENCAP_NEW_FLOW);
	return encap_send(ctx, id, be, &in, false, how & ENCAP_NEW_FLOW);
}

#endif
