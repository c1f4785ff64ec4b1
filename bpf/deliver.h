/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet whose ports were found: from its service to its verdict.  The hot
 * path does it in one go; rare.h in two steps of the same parts.
 */
#ifndef DELIVER_H
#define DELIVER_H

#include "forward.h"
#include "select.h"
#include "service.h"

/* The packet and its flow; ports + 8 bytes can be read directly. */
static __always_inline struct packet packet_v4(const struct context *ctx,
					       const struct xlb_vip *vip,
					       struct iphdr *ip,
					       struct ports *ports, __u8 proto)
{
	struct packet p =
		packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
			  ports, bpf_ntohs(ip->tot_len), proto);

	p.hash = flow_hash_v4(vip, ip->saddr, *(__u32 *)ports);
	p.dest = flow_dest_v4(ip->daddr, proto);
	return p;
}

static __always_inline struct packet packet_v6(const struct context *ctx,
					       const struct xlb_vip *vip,
					       struct ipv6hdr *ip,
					       struct ports *ports, __u8 proto)
{
	const __u64 *src = (const __u64 *)&ip->saddr;
	const __u64 *dst = (const __u64 *)&ip->daddr;
	struct packet p = packet_at(
		ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx), ports,
		bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip), proto);

	p.hash = flow_hash_v6(vip, src[0], src[1], *(__u32 *)ports);
	p.dest = flow_dest_v6(dst[0], dst[1], proto);
	return p;
}

static __always_inline const struct xlb_vip *
packet_service_v6(struct ipv6hdr *ip, struct ports *ports, __u8 proto)
{
	const __u64 *dst = (const __u64 *)&ip->daddr;

	return service_find_v6(dst[0], dst[1], ports->dest, proto);
}

static __always_inline int deliver_v4(struct context *ctx, struct iphdr *ip,
				      struct ports *ports, __u8 proto)
{
	const struct xlb_vip *vip =
		service_find_v4(ip->daddr, ports->dest, proto);
	struct packet p;
	__u32 id;

	if (!vip)
		return VERDICT_PASS;
	p = packet_v4(ctx, vip, ip, ports, proto);
	if (unlikely(!packet_whole(ctx, &p, ip, ctx_end(ctx))))
		return drop(XLB_DROP_MALFORMED);
	id = packet_backend(&p, vip, ctx_end(ctx));
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	return forward_v4(ctx, ip, &p, vip, id);
}

static __always_inline int deliver_v6(struct context *ctx, struct ipv6hdr *ip,
				      struct ports *ports, __u8 proto)
{
	const struct xlb_vip *vip = packet_service_v6(ip, ports, proto);
	struct packet p;
	__u32 id;

	if (!vip)
		return VERDICT_PASS;
	p = packet_v6(ctx, vip, ip, ports, proto);
	if (unlikely(!packet_whole(ctx, &p, ip, ctx_end(ctx))))
		return drop(XLB_DROP_MALFORMED);
	id = packet_backend(&p, vip, ctx_end(ctx));
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	return forward_v6(ctx, ip, &p, vip, id);
}

#endif
