/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that the hot path doesn't take: fragments, ICMP, and what isn't
 * supported in front of a VIP (VLAN tags, options, extension headers).  Only
 * what is for a declared service is dropped; the rest passes.
 */
#ifndef RARE_H
#define RARE_H

#include "forward.h"
#include "quoted.h"
#include "service.h"

/* A packet that can't be balanced: whose it is decides what becomes of it. */
static __always_inline int refuse(const __u32 addr[4], __u8 family,
				  const struct ports *ports, __u8 proto,
				  enum xlb_drop reason)
{
	bool ours =
		ports ? service_find(addr, family, ports->dest, proto) != NULL
		      : address_is_vip(addr, family);

	return ours ? drop(reason) : VERDICT_PASS;
}

/* offset: of the IPv4 header in the frame. */
static __noinline int refuse_v4(struct context *ctx, __u32 offset, __u32 reason)
{
	__u32 addr[4] = {};
	struct ports ports;
	struct iphdr ip;

	if (ctx_load_bytes(ctx, offset, &ip, sizeof(ip)))
		return VERDICT_PASS;
	addr[0] = ip.daddr;
	if (!proto_has_ports(ip.protocol))
		return VERDICT_PASS;
	if ((ip.frag_off & bpf_htons(IP_OFFSET)) ||
	    ctx_load_bytes(ctx, offset + ip.ihl * 4u, &ports, sizeof(ports)))
		return refuse(addr, FAMILY_V4, NULL, 0, reason);
	return refuse(addr, FAMILY_V4, &ports, ip.protocol, reason);
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

/* offset: of the IPv6 header in the frame. */
static __noinline int refuse_v6(struct context *ctx, __u32 offset, __u32 reason)
{
	struct fragment_header next;
	struct ports ports;
	struct ipv6hdr ip;
	__u32 addr[4];
	__u8 type;

	if (ctx_load_bytes(ctx, offset, &ip, sizeof(ip)))
		return VERDICT_PASS;
	copy_v6(addr, &ip.daddr);
	type = ip.nexthdr;
	offset += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u32 len;

		if (ctx_load_bytes(ctx, offset, &next, sizeof(next)))
			return refuse(addr, FAMILY_V6, NULL, 0, reason);
		len = extension_length(type, next.reserved);
		if (!len)
			break;
		if (type == IPPROTO_FRAGMENT &&
		    (next.offset & bpf_htons(IP6_OFFSET)))
			return refuse(addr, FAMILY_V6, NULL, 0, reason);
		type = next.nexthdr;
		offset += len;
	}
	if (proto_has_ports(type) &&
	    !ctx_load_bytes(ctx, offset, &ports, sizeof(ports)))
		return refuse(addr, FAMILY_V6, &ports, type, reason);
	if (extension_length(type, 0) || proto_has_ports(type))
		return refuse(addr, FAMILY_V6, NULL, 0, reason);
	return VERDICT_PASS;
}

static __noinline int rare_tagged(struct context *ctx, __u32 proto)
{
	__u32 offset = sizeof(struct ethhdr);
	struct vlan_tag tag;

	for (int i = 0; i < MAX_TAGS; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) &&
		    proto != bpf_htons(ETH_P_8021AD))
			break;
		if (ctx_load_bytes(ctx, offset, &tag, sizeof(tag)))
			return VERDICT_PASS;
		proto = tag.proto;
		offset += sizeof(tag);
	}
	if (proto == bpf_htons(ETH_P_IP))
		return refuse_v4(ctx, offset, XLB_DROP_HEADERS);
	if (proto == bpf_htons(ETH_P_IPV6))
		return refuse_v6(ctx, offset, XLB_DROP_HEADERS);
	return VERDICT_PASS;
}

static __always_inline void fragment_remember(struct xlb_fragment_key *key,
					      __u32 backend, __u32 forwarding)
{
	struct xlb_fragment value = { .backend = backend,
				      .forwarding = forwarding };

	bpf_map_update_elem(&fragments, key, &value, BPF_ANY);
}

/* A first fragment is balanced as any packet is, and remembered. */
static __noinline int fragment_first_v4(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct ports *ports = (void *)(ip + 1);
	struct xlb_fragment_key key = {};
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	if ((void *)ports + sizeof(struct udphdr) > end)
		return refuse_v4(ctx, sizeof(struct ethhdr),
				 XLB_DROP_MALFORMED);
	vip = service_find_v4(ip->daddr, ports->dest, ip->protocol);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, data, end, ports, bpf_ntohs(ip->tot_len),
		      ip->protocol);
	if (!packet_whole(ctx, &p, ip, end))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v4(vip, ip->saddr, *(__u32 *)ports);
	p.dest = flow_dest_v4(ip->daddr, p.proto);
	id = packet_backend(&p, vip, end);
	if (!id)
		return drop(XLB_DROP_NO_BACKEND);
	key.src[0] = ip->saddr;
	key.dst[0] = ip->daddr;
	key.id = ip->id;
	key.proto = ip->protocol;
	key.family = FAMILY_V4;
	fragment_remember(&key, id, vip->forwarding);
	return forward_v4(ctx, ip, &p, vip, id);
}

/* A later one follows, addresses only. */
static __noinline int fragment_later_v4(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct xlb_fragment_key key = {};
	struct xlb_fragment *first;
	struct packet p;

	if ((void *)(ip + 1) > end)
		return VERDICT_PASS;
	key.src[0] = ip->saddr;
	key.dst[0] = ip->daddr;
	key.id = ip->id;
	key.proto = ip->protocol;
	key.family = FAMILY_V4;
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return refuse(key.dst, FAMILY_V4, NULL, 0, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, data, end, NULL, bpf_ntohs(ip->tot_len),
		      ip->protocol);
	if (p.len < sizeof(*ip) || p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v4(ctx, ip, &p, first->forwarding, first->backend);
}

static __noinline int rare_v4(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return VERDICT_PASS;
	if (*(__u8 *)ip != 0x45)
		return refuse_v4(ctx, sizeof(struct ethhdr), XLB_DROP_HEADERS);
	if (proto_has_ports(ip->protocol)) {
		if (ip->frag_off & bpf_htons(IP_OFFSET))
			return fragment_later_v4(ctx);
		if (ip->frag_off & bpf_htons(IP_MF))
			return fragment_first_v4(ctx);
		return refuse_v4(ctx, sizeof(struct ethhdr),
				 XLB_DROP_MALFORMED);
	}
	if (ip->protocol == IPPROTO_ICMP &&
	    !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)))
		return quoted_error_v4(ctx);
	return VERDICT_PASS;
}

/* Behind the Ethernet header, which would spoil the alignment. */
struct fragment_v6 {
	struct ipv6hdr ip;
	struct fragment_header frag;
};

static __always_inline void fragment_key_v6(struct xlb_fragment_key *key,
					    const struct fragment_v6 *f)
{
	copy_v6(key->src, &f->ip.saddr);
	copy_v6(key->dst, &f->ip.daddr);
	key->id = f->frag.id;
	key->proto = f->frag.nexthdr;
	key->family = FAMILY_V6;
}

static __noinline int fragment_first_v6(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct fragment_v6 *f = data + sizeof(struct ethhdr);
	void *end = (void *)(long)ctx->data_end;
	struct ports *ports = (void *)(f + 1);
	struct xlb_fragment_key key = {};
	const __u64 *src, *dst;
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	if ((void *)ports + sizeof(struct udphdr) > end)
		return refuse_v6(ctx, sizeof(struct ethhdr),
				 XLB_DROP_MALFORMED);
	src = (const __u64 *)&f->ip.saddr;
	dst = (const __u64 *)&f->ip.daddr;
	vip = service_find_v6(dst[0], dst[1], ports->dest, f->frag.nexthdr);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, data, end, ports,
		      bpf_ntohs(f->ip.payload_len) + (__u32)sizeof(f->ip),
		      f->frag.nexthdr);
	if (!packet_whole(ctx, &p, &f->ip, end))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v6(vip, src[0], src[1], *(__u32 *)ports);
	p.dest = flow_dest_v6(dst[0], dst[1], p.proto);
	id = packet_backend(&p, vip, end);
	if (!id)
		return drop(XLB_DROP_NO_BACKEND);
	fragment_key_v6(&key, f);
	fragment_remember(&key, id, vip->forwarding);
	return forward_v6(ctx, &f->ip, &p, vip, id);
}

static __noinline int fragment_later_v6(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct fragment_v6 *f = data + sizeof(struct ethhdr);
	void *end = (void *)(long)ctx->data_end;
	struct xlb_fragment_key key = {};
	struct xlb_fragment *first;
	struct packet p;

	if ((void *)(f + 1) > end)
		return VERDICT_PASS;
	fragment_key_v6(&key, f);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return refuse(key.dst, FAMILY_V6, NULL, 0, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, data, end, NULL,
		      bpf_ntohs(f->ip.payload_len) + (__u32)sizeof(f->ip),
		      f->frag.nexthdr);
	if (p.len < sizeof(*f) || p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v6(ctx, &f->ip, &p, first->forwarding,
				first->backend);
}

static __noinline int rare_v6(struct context *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct fragment_v6 *f = data + sizeof(struct ethhdr);
	void *end = (void *)(long)ctx->data_end;

	if ((void *)&f->frag > end)
		return VERDICT_PASS;
	if (proto_has_ports(f->ip.nexthdr))
		return refuse_v6(ctx, sizeof(struct ethhdr),
				 XLB_DROP_MALFORMED);
	if (f->ip.nexthdr == IPPROTO_ICMPV6)
		return quoted_error_v6(ctx);
	if (f->ip.nexthdr != IPPROTO_FRAGMENT || (void *)(&f->frag + 1) > end ||
	    !proto_has_ports(f->frag.nexthdr))
		return refuse_v6(ctx, sizeof(struct ethhdr), XLB_DROP_HEADERS);
	if (f->frag.offset & bpf_htons(IP6_OFFSET))
		return fragment_later_v6(ctx);
	return fragment_first_v6(ctx);
}

#endif
