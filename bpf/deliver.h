/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet whose ports were found: from its service to its verdict.  The hot
 * path and the way by offsets (rare.h) differ only in how they got here.
 */
#ifndef DELIVER_H
#define DELIVER_H

#include "forward.h"
#include "select.h"
#include "service.h"

/* Later fragments will follow this one; key: what they are known by. */
__noinline int fragment_remember(const struct xlb_fragment_key *key,
					__u32 backend, __u32 forwarding)
{
	struct xlb_fragment value = { .backend = backend,
				      .forwarding = forwarding };

	if (key)
		bpf_map_update_elem(&fragments, key, &value, BPF_ANY);
	return 0;
}

/*
 * ports + 8 bytes can be read directly.  key: of a first fragment; NULL: this
 * is all of the datagram.
 */
static __always_inline int deliver_v4(struct context *ctx, struct iphdr *ip,
				      struct ports *ports, __u8 proto,
				      const struct xlb_fragment_key *key)
{
	void *end = ctx_end(ctx);
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	vip = service_find_v4(ip->daddr, ports->dest, proto);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), end, ports,
		      bpf_ntohs(ip->tot_len), proto);
	if (unlikely(!packet_whole(ctx, &p, ip, end)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v4(vip, ip->saddr, *(__u32 *)ports);
	p.dest = flow_dest_v4(ip->daddr, proto);
	id = packet_backend(&p, vip, end);
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	if (key)
		fragment_remember(key, id, vip->forwarding);
	return forward_v4(ctx, ip, &p, vip, id);
}

static __always_inline int deliver_v6(struct context *ctx, struct ipv6hdr *ip,
				      struct ports *ports, __u8 proto,
				      const struct xlb_fragment_key *key)
{
	const __u64 *src = (const __u64 *)&ip->saddr;
	const __u64 *dst = (const __u64 *)&ip->daddr;
	void *end = ctx_end(ctx);
	const struct xlb_vip *vip;
	struct packet p;
	__u32 id;

	vip = service_find_v6(dst[0], dst[1], ports->dest, proto);
	if (!vip)
		return VERDICT_PASS;
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), end, ports,
		      bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip), proto);
	if (unlikely(!packet_whole(ctx, &p, ip, end)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = flow_hash_v6(vip, src[0], src[1], *(__u32 *)ports);
	p.dest = flow_dest_v6(dst[0], dst[1], proto);
	id = packet_backend(&p, vip, end);
	if (unlikely(!id))
		return drop(XLB_DROP_NO_BACKEND);
	if (key)
		fragment_remember(key, id, vip->forwarding);
	return forward_v6(ctx, ip, &p, vip, id);
}

#endif
