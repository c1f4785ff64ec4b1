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
 * arguments: enum xlb_forwarding, whether it begins a flow, its traffic class.
 */
#define ENCAP_HOW(forwarding, new_flow, tos) \
	((__u32)(forwarding) | (__u32)(new_flow) << 8 | (__u32)(tos) << 16)
#define ENCAP_FORWARDING(how) ((how)&0xff)
#define ENCAP_NEW_FLOW(how) (((how) >> 8) & 1)
#define ENCAP_TOS(how) ((how) >> 16)

/*
 * The outer headers' shape.  Always a constant where it is used, so that each
 * of them is code of its own without a branch.
 */
struct shape {
	bool v6; /* the outer family */
	bool gue;
	__u8 proto; /* of the packet behind: IPPROTO_IPIP or IPPROTO_IPV6 */
};

#define SHAPE(v6, gue, proto) ((struct shape){ (v6), (gue), (proto) })

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
	if (likely(forwarding < XLB_IPIP))
		return false;
	return (HAS(IPIP) && forwarding == XLB_IPIP) ||
	       (HAS(GUE) && forwarding == XLB_GUE);
}

static __always_inline bool is_gue(__u32 forwarding)
{
	if (!HAS(IPIP))
		return true;
	return HAS(GUE) && forwarding == XLB_GUE;
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

/* Bytes that come in front of a packet of this family (v6) to the backend. */
static __always_inline __u32 encap_room(const struct xlb_backend *be,
					__u32 forwarding, bool v6)
{
	return encap_bytes(v6 ? has_v6(be) : !be->addr4, is_gue(forwarding));
}

static __always_inline bool has_source(bool v6)
{
	const __u64 *source6 = (const __u64 *)tables.control.source6;

	return v6 ? (source6[0] | source6[1]) != 0
		  : tables.control.source4 != 0;
}

/*
 * What a flow's packets have in common: all of the hash's bits, the best mixed
 * ones, those that chose the slot, on top.
 */
static __always_inline __u32 flow_mark(__u64 hash)
{
	return (__u32)(hash >> 32) ^ (__u32)hash;
}

/* No checksum: the packet behind has its own (RFC 6935 for IPv6). */
static __always_inline void outer_udp(__u32 udp[2], __u32 mark, __u32 len)
{
	udp[0] = bpf_htonl(GUE_SOURCE_PORT << 16 | (mark & 0xffff0000) |
			   XLB_GUE_PORT);
	udp[1] = bpf_htonl((len + (__u32)sizeof(struct udphdr)) << 16);
}

static __always_inline __u32 csum_halves(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}

/* len: of the packet behind; mark: as flow_mark() says. */
static __always_inline void outer_fill_v4(struct outer_v4 *o, struct shape s,
					  const struct xlb_backend *be,
					  __u32 mark, __u32 len, __u32 tos)
{
	__u32 first = bpf_htonl(0x45000000 | tos << 16 |
				(len + encap_bytes(false, s.gue)));
	__u32 hops = bpf_htonl(OUTER_TTL << 24 | (s.gue ? IPPROTO_UDP : s.proto)
							 << 16);
	__u32 source = s.gue ? tables.control.source4
			     : bpf_htonl(OUTER_V4_SOURCE | mark >> 16);
	__u32 sum = csum_halves(first) + csum_halves(bpf_htonl(IP_DF)) +
		    csum_halves(hops) + csum_halves(source) + be->sum4;

	/* Sums of halves are small: two steps fold them. */
	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	o->ip[0] = first;
	o->ip[1] = bpf_htonl(IP_DF);
	o->ip[2] = hops | ~sum << 16;
	o->ip[3] = source;
	o->ip[4] = be->addr4;
	if (s.gue)
		outer_udp(o->udp, mark, len);
}

static __always_inline void outer_fill_v6(struct outer_v6 *o, struct shape s,
					  const __u32 addr[4], __u32 mark,
					  __u32 len, __u32 tos)
{
	__u32 payload = len + (s.gue ? sizeof(struct udphdr) : 0);

	o->ip[0] = bpf_cpu_to_be64(6ULL << 60 | (__u64)tos << 52 |
				   (__u64)(mark >> 12) << 32 | payload << 16 |
				   (__u32)(s.gue ? IPPROTO_UDP : s.proto) << 8 |
				   OUTER_TTL);
	if (s.gue) {
		copy_v6(&o->ip[1], tables.control.source6);
		outer_udp(o->udp, mark, len);
	} else {
		o->ip[1] = bpf_cpu_to_be64(OUTER_V6_SOURCE);
		o->ip[2] = bpf_cpu_to_be64(mark);
	}
	copy_v6(&o->ip[3], addr);
}

/*
 * The outer headers, into the room that ctx_push() made.  Returns the frame's
 * start, or NULL.  In tc by the helper that keeps up a sum which hardware made
 * of the whole packet.
 */
static __always_inline void *outer_put(struct context *ctx, struct shape s,
				       const struct xlb_backend *be, __u32 mark,
				       __u32 len, __u32 tos)
{
#ifdef XLB_TC
	union {
		struct outer_v4 v4;
		struct outer_v6 v6;
	} o;

	if (s.v6)
		outer_fill_v6(&o.v6, s, be->addr6, mark, len, tos);
	else
		outer_fill_v4(&o.v4, s, be, mark, len, tos);
	if (bpf_skb_store_bytes(ctx, sizeof(struct ethhdr), &o,
				encap_bytes(s.v6, s.gue), BPF_F_RECOMPUTE_CSUM))
		return NULL;
	return ctx_data(ctx);
#else
	void *data = ctx_data(ctx);
	void *o = data + sizeof(struct ethhdr);

	/* With what is behind them, so much is there in any case. */
	if (o + (s.v6 ? sizeof(struct outer_v6) : sizeof(struct outer_v4)) >
	    ctx_end(ctx))
		return NULL;
	if (s.v6)
		outer_fill_v6(o, s, be->addr6, mark, len, tos);
	else
		outer_fill_v4(o, s, be, mark, len, tos);
	return data;
#endif
}

/* bytes: of the frame, as it came. */
static __always_inline int encap_send(struct context *ctx, struct shape s,
				      __u32 id, __u32 bytes, __u32 mark,
				      __u32 len, __u32 how)
{
	const struct xlb_backend *be = backend_line(id);
	const __u64 *l2 = s.v6 ? be->l2_v6 : be->l2_v4;
	__u32 room = encap_bytes(s.v6, s.gue);
	void *data;

	if (unlikely(!l2[0] || (be->flags & XLB_BACKEND_STACK)))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (unlikely(len > IP_LENGTH_MAX - room ||
		     (s.gue && !has_source(s.v6))))
		return drop(XLB_DROP_ENCAP);
	if (unlikely(!ctx_push(ctx, room,
			       s.v6 ? bpf_htons(ETH_P_IPV6)
				    : bpf_htons(ETH_P_IP),
			       s.gue ? ROOM_UDP : ROOM_IP)))
		return drop(XLB_DROP_ENCAP);
	data = outer_put(ctx, s, be, mark, len, ENCAP_TOS(how));
	if (unlikely(!data))
		return drop(XLB_DROP_ENCAP);
	count_packet(id, bytes, ENCAP_NEW_FLOW(how));
	return hop_out(ctx, data, be, l2);
}

/*
 * A client's IPv4 packet to backend id.  len: from its IP header on; it fits.
 * how: see ENCAP_HOW.
 */
static __noinline int encap_v4(struct context *ctx, __u32 id, __u64 hash,
			       __u32 len, __u32 how)
{
	bool v6 = !backend_line(id)->addr4;
	__u32 bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	__u32 mark = flow_mark(hash);

	if (is_gue(ENCAP_FORWARDING(how))) {
		if (unlikely(v6))
			return encap_send(ctx, SHAPE(true, true, IPPROTO_IPIP),
					  id, bytes, mark, len, how);
		return encap_send(ctx, SHAPE(false, true, IPPROTO_IPIP), id,
				  bytes, mark, len, how);
	}
	if (unlikely(v6))
		return encap_send(ctx, SHAPE(true, false, IPPROTO_IPIP), id,
				  bytes, mark, len, how);
	return encap_send(ctx, SHAPE(false, false, IPPROTO_IPIP), id, bytes,
			  mark, len, how);
}

static __noinline int encap_v6(struct context *ctx, __u32 id, __u64 hash,
			       __u32 len, __u32 how)
{
	bool v6 = has_v6(backend_line(id));
	__u32 bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	__u32 mark = flow_mark(hash);

	if (is_gue(ENCAP_FORWARDING(how))) {
		if (likely(v6))
			return encap_send(ctx, SHAPE(true, true, IPPROTO_IPV6),
					  id, bytes, mark, len, how);
		return encap_send(ctx, SHAPE(false, true, IPPROTO_IPV6), id,
				  bytes, mark, len, how);
	}
	if (likely(v6))
		return encap_send(ctx, SHAPE(true, false, IPPROTO_IPV6), id,
				  bytes, mark, len, how);
	return encap_send(ctx, SHAPE(false, false, IPPROTO_IPV6), id, bytes,
			  mark, len, how);
}

#endif
