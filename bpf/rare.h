/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that the hot path doesn't take: options, extension headers,
 * fragments, VLAN tags, ICMP.  Their headers are found by offsets, within
 * bounds; from the ports on they are delivered as any other.  What can't be
 * is dropped under a name if its address is a VIP's, else it passes.
 */
#ifndef RARE_H
#define RARE_H

#include "deliver.h"
#include "quoted.h"
#include "tags.h"

/* Bounds of `l4` below, for the verifier; more than any l4 there is. */
#define L4_MAX_V4 0x7f
#define L4_MAX_V6 0x3fff

/* A packet as its headers say. */
struct headers {
	/* What all fragments of the datagram share: addresses, protocol (the
	 * one that the fragment header names), number. */
	struct xlb_fragment_key key;
	__u32 l4; /* offset in the frame of what `proto` names */
	__u8 proto;
	bool pieces; /* a fragment, */
	bool later; /* but not the first */
	bool more; /* nor the last */
};

/* A tagged packet: its tags, and for whom it is. */
struct tagged {
	struct tags tags;
	__u32 dst[4];
	__u8 family;
};

/* Of the packet in hand; not on the stack, which is small for all calls. */
struct scratch {
	struct headers headers;
	struct tagged tagged;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_place(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&scratch, &key);
}

/* What can't be balanced: its address decides what becomes of it. */
static __always_inline int refuse(const struct headers *h, enum xlb_drop reason)
{
	return address_is_vip(h->key.dst, h->key.family) ? drop(reason)
							 : VERDICT_PASS;
}

/*
 * Fills in *h as far as it can be read (no address, if not that: nobody's
 * packet).  Returns 0, or why the packet can't be balanced.
 */
static __noinline int headers_v4(struct context *ctx, struct headers *h)
{
	struct iphdr ip;

	if (!h || ctx_load_bytes(ctx, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return XLB_DROP_MALFORMED;
	h->key.src[0] = ip.saddr;
	h->key.dst[0] = ip.daddr;
	h->key.id = ip.id;
	h->key.proto = h->proto = ip.protocol;
	h->key.family = FAMILY_V4;
	h->l4 = sizeof(struct ethhdr) + ip.ihl * 4u;
	h->later = ip.frag_off & bpf_htons(IP_OFFSET);
	h->more = ip.frag_off & bpf_htons(IP_MF);
	h->pieces = h->later || h->more;
	return ip.version == 4 && ip.ihl >= 5 ? 0 : XLB_DROP_MALFORMED;
}

/* Bytes of an extension header of this type; 0: it isn't one. */
static __always_inline __u32 extension_length(__u8 type, __u8 units)
{
	switch (type) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return (units + 1) * 8u;
	case IPPROTO_AH:
		return (units + 2) * 4u;
	case IPPROTO_FRAGMENT:
		return sizeof(struct fragment_header);
	default: /* any of the other protocols */
		return 0;
	}
}

/* May ports follow a header of this type? */
static __always_inline bool leads_to_ports(__u8 type)
{
	return proto_has_ports(type) || extension_length(type, 0);
}

/* The first eight bytes of any extension header. */
union extension {
	struct fragment_header frag;
	struct {
		__u8 nexthdr;
		__u8 units;
		__u8 type;
		__u8 segments_left; /* of a routing header */
	};
};

/* One extension header of type h->proto.  0, or why not. */
static __always_inline int extension_pass(struct headers *h,
					  const union extension *e)
{
	if (h->proto == IPPROTO_ROUTING && e->segments_left)
		return XLB_DROP_HEADERS; /* it goes on from here */
	if (h->proto == IPPROTO_FRAGMENT) {
		if (h->pieces)
			return XLB_DROP_MALFORMED;
		h->key.id = e->frag.id;
		h->key.proto = e->frag.nexthdr;
		h->later = e->frag.offset & bpf_htons(IP6_OFFSET);
		h->more = e->frag.offset & bpf_htons(IP6_MF);
		h->pieces = true;
	}
	h->l4 += extension_length(h->proto, e->units);
	h->proto = e->nexthdr;
	return 0;
}

static __noinline int headers_v6(struct context *ctx, struct headers *h)
{
	union extension e;
	struct ipv6hdr ip;

	if (!h || ctx_load_bytes(ctx, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return XLB_DROP_MALFORMED;
	copy_addr(h->key.src, &ip.saddr);
	copy_addr(h->key.dst, &ip.daddr);
	h->key.family = FAMILY_V6;
	h->key.proto = h->proto = ip.nexthdr;
	h->l4 = sizeof(struct ethhdr) + sizeof(ip);
	if (ip.version != 6)
		return XLB_DROP_MALFORMED;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		int reason;

		if (h->later || !extension_length(h->proto, 0))
			return 0;
		if (ctx_load_bytes(ctx, h->l4, &e, sizeof(e)))
			return XLB_DROP_MALFORMED;
		reason = extension_pass(h, &e);
		if (reason)
			return reason;
	}
	return !h->later && extension_length(h->proto, 0) ? XLB_DROP_HEADERS
							  : 0;
}

/* A later fragment follows its first one, addresses only. */
__noinline int later_v4(struct context *ctx, const struct headers *h)
{
	struct iphdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct xlb_fragment *first;
	struct packet p;

	if (!h || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_PASS;
	first = bpf_map_lookup_elem(&fragments, &h->key);
	if (!first)
		return refuse(h, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      NULL, bpf_ntohs(ip->tot_len), h->proto);
	if (p.len < h->l4 - sizeof(struct ethhdr) ||
	    p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v4(ctx, ip, &p, first->forwarding, first->backend);
}

__noinline int later_v6(struct context *ctx, const struct headers *h)
{
	struct ipv6hdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct xlb_fragment *first;
	struct packet p;

	if (!h || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_PASS;
	first = bpf_map_lookup_elem(&fragments, &h->key);
	if (!first)
		return refuse(h, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      NULL, bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip),
		      h->proto);
	if (p.len < h->l4 - sizeof(struct ethhdr) ||
	    p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v6(ctx, ip, &p, first->forwarding, first->backend);
}

/* All that is read directly from here on, transport header included. */
static __always_inline void headers_linear(struct context *ctx,
					   const struct headers *h)
{
	ctx_linear(ctx, h->l4 + (__u32)sizeof(struct tcphdr));
}

__noinline int ports_v4(struct context *ctx, const struct headers *h)
{
	struct iphdr *ip;
	struct ports *ports;

	if (!h)
		return VERDICT_PASS;
	headers_linear(ctx, h);
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	ports = ctx_data(ctx) + MASK(h->l4, L4_MAX_V4);
	if ((void *)(ip + 1) > ctx_end(ctx) ||
	    (void *)ports + sizeof(struct udphdr) > ctx_end(ctx))
		return refuse(h, XLB_DROP_MALFORMED);
	return deliver_v4(ctx, ip, ports, h->proto, h->more ? &h->key : NULL);
}

__noinline int ports_v6(struct context *ctx, const struct headers *h)
{
	struct ipv6hdr *ip;
	struct ports *ports;

	if (!h)
		return VERDICT_PASS;
	headers_linear(ctx, h);
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	ports = ctx_data(ctx) + MASK(h->l4, L4_MAX_V6);
	if ((void *)(ip + 1) > ctx_end(ctx) ||
	    (void *)ports + sizeof(struct udphdr) > ctx_end(ctx))
		return refuse(h, XLB_DROP_MALFORMED);
	return deliver_v6(ctx, ip, ports, h->proto, h->more ? &h->key : NULL);
}

__noinline int rare_v4(struct context *ctx)
{
	struct scratch *place = scratch_place();
	struct headers *h = &place->headers;
	int reason;

	if (!place)
		return VERDICT_DROP;
	*h = (struct headers){};
	reason = headers_v4(ctx, h);
	if (proto_has_ports(h->proto)) {
		if (reason)
			return refuse(h, reason);
		return h->later ? later_v4(ctx, h) : ports_v4(ctx, h);
	}
	if (h->proto == IPPROTO_ICMP && !reason && !h->pieces &&
	    h->l4 == sizeof(struct ethhdr) + sizeof(struct iphdr))
		return quoted_error_v4(ctx);
	return VERDICT_PASS;
}

__noinline int rare_v6(struct context *ctx)
{
	struct scratch *place = scratch_place();
	struct headers *h = &place->headers;
	int reason;

	if (!place)
		return VERDICT_DROP;
	*h = (struct headers){};
	reason = headers_v6(ctx, h);
	if (leads_to_ports(h->proto)) {
		if (reason)
			return refuse(h, reason);
		return h->later ? later_v6(ctx, h) : ports_v6(ctx, h);
	}
	if (h->proto == IPPROTO_ICMPV6 && !reason && !h->pieces &&
	    h->l4 == sizeof(struct ethhdr) + sizeof(struct ipv6hdr))
		return quoted_error_v6(ctx);
	return VERDICT_PASS;
}

static __always_inline bool tagged_address(struct context *ctx, __u32 at,
					   __u8 family, __u32 addr[4])
{
	if (family == FAMILY_V4)
		return !ctx_load_bytes(ctx, at, addr, 4);
	return !ctx_load_bytes(ctx, at, addr, 16);
}

/* Fills in *t.  false: not for a VIP, as far as can be seen. */
static __noinline bool tagged_read(struct context *ctx, struct tagged *t)
{
	__u32 at = sizeof(struct ethhdr);

	if (!tags_read(ctx, &t->tags))
		return false;
	at += t->tags.inside * (__u32)sizeof(t->tags.tag[0]);
	if (HAS(V4) && t->tags.type == bpf_htons(ETH_P_IP)) {
		t->family = FAMILY_V4;
		at += offsetof(struct iphdr, daddr);
	} else if (HAS(V6) && t->tags.type == bpf_htons(ETH_P_IPV6)) {
		t->family = FAMILY_V6;
		at += offsetof(struct ipv6hdr, daddr);
	} else {
		return false;
	}
	return tagged_address(ctx, at, t->family, t->dst) &&
	       address_is_vip(t->dst, t->family);
}

/* An answer from the VIP itself (ICMP), not a packet sent on? */
static __noinline bool tagged_answered(struct context *ctx,
				       const struct tagged *t)
{
	__u32 at = sizeof(struct ethhdr) + offsetof(struct iphdr, saddr);
	__u32 src[4] = {};
	__be16 type;

	if (t->family == FAMILY_V6)
		at = sizeof(struct ethhdr) + offsetof(struct ipv6hdr, saddr);
	if (ctx_load_bytes(ctx, TAGS_AT, &type, sizeof(type)) ||
	    type != t->tags.type || !tagged_address(ctx, at, t->family, src))
		return false;
	return !((src[0] ^ t->dst[0]) | (src[1] ^ t->dst[1]) |
		 (src[2] ^ t->dst[2]) | (src[3] ^ t->dst[3]));
}

/*
 * Without its tags a packet for a VIP is like any other.  They come back on
 * what this host's stack gets and on the VIP's own answers.
 */
__noinline int rare_tagged(struct context *ctx)
{
	struct scratch *place = scratch_place();
	struct tagged *t = &place->tagged;
	int verdict;

	if (!place)
		return VERDICT_DROP;
	*t = (struct tagged){};
	if (!tagged_read(ctx, t))
		return VERDICT_PASS;
	if (!tags_strip(ctx, &t->tags))
		return drop(XLB_DROP_ENCAP);
	verdict = t->family == FAMILY_V4 ? rare_v4(ctx) : rare_v6(ctx);
	if (verdict == VERDICT_PASS ||
	    (verdict == VERDICT_SENT && tagged_answered(ctx, t)))
		return tags_restore(ctx, &t->tags) ? verdict
						   : drop(XLB_DROP_ENCAP);
	return verdict;
}

#endif
