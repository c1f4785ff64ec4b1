/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a packet's headers say, wherever in the frame they begin: its own, or
 * those of a packet that an ICMP error quotes.  Read by offsets, within bounds.
 */
#ifndef HEADERS_H
#define HEADERS_H

#include "ctx.h"

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

/*
 * The IP header at this offset.  Fills in *h, which was zero, as far as it can
 * be read (no address, if not that: nobody's packet).  Returns 0, or why the
 * packet can't be balanced.
 */
static __always_inline int headers_v4(struct context *ctx, __u32 at,
				      struct headers *h)
{
	struct iphdr ip;

	if (ctx_load_bytes(ctx, at, &ip, sizeof(ip)))
		return XLB_DROP_MALFORMED;
	h->key.src[0] = ip.saddr;
	h->key.dst[0] = ip.daddr;
	h->key.id = ip.id;
	h->key.proto = h->proto = ip.protocol;
	h->key.family = FAMILY_V4;
	h->l4 = at + ip.ihl * 4u;
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
static __always_inline bool leads_to_ports(__u8 type, __u8 family)
{
	return proto_has_ports(type) ||
	       (family == FAMILY_V6 && extension_length(type, 0));
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

/* The same; h->l4 is behind the extension headers, a bounded number. */
static __always_inline int headers_v6(struct context *ctx, __u32 at,
				      struct headers *h)
{
	union extension e;
	struct ipv6hdr ip;

	if (ctx_load_bytes(ctx, at, &ip, sizeof(ip)))
		return XLB_DROP_MALFORMED;
	copy_addr(h->key.src, &ip.saddr);
	copy_addr(h->key.dst, &ip.daddr);
	h->key.family = FAMILY_V6;
	h->key.proto = h->proto = ip.nexthdr;
	h->l4 = at + (__u32)sizeof(ip);
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

#endif
