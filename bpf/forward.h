/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet whose backend is known: rewritten (nat), put behind other headers
 * (ipip, gue) or left as it is (dsr), and sent to the next hop.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include "encap.h"
#include "hop.h"
#include "icmp.h"
#include "packet.h"
#include "rewrite.h"

/* Not asked of the features: the answer would cost as much as it saves. */
static __always_inline bool is_nat(__u32 forwarding)
{
	return forwarding == XLB_NAT;
}

static __always_inline __be16 backend_port(const struct xlb_backend *be,
					   const struct xlb_vip *vip)
{
	return be->port ? be->port : vip->target_port;
}

/*
 * Has the backend a way out in this family?  The stack finds its own, but only
 * with the backend's address: the VIP is the host's.
 */
static __always_inline bool reachable(const struct xlb_backend *be,
				      const __u64 l2[2], bool v6, bool nat)
{
	if (be->flags & XLB_BACKEND_STACK)
		return nat && (v6 ? be->addr6[0] | be->addr6[3] : be->addr4);
	return l2[0] != 0;
}

/* A router's step, but for packets that the host's own stack still routes. */
static __always_inline bool hop_spent(const struct xlb_backend *be, __u8 ttl)
{
	return ttl <= 1 && !(be->flags & XLB_BACKEND_STACK);
}

/*
 * A backend calls a VIP, and its own turn it is.  It would take the packet for
 * a forged one, having sent it itself.
 */
static __always_inline bool is_own_v4(const struct xlb_backend *be,
				      const struct iphdr *ip)
{
	return unlikely(ip->saddr == be->addr4);
}

static __always_inline bool is_own_v6(const struct xlb_backend *be,
				      const struct ipv6hdr *ip)
{
	const __u64 *own = (const __u64 *)be->addr6;
	const __u64 *src = (const __u64 *)&ip->saddr;

	return unlikely(src[1] == own[1]) && src[0] == own[0];
}

/*
 * Towards backend be; ports and csum NULL: a later fragment, addresses only.
 * port: of the backend.
 */
static __always_inline struct rewrite
rewrite_to(const struct xlb_backend *be, const struct packet *p, __be16 port)
{
	return (struct rewrite){
		.ports = p->ports,
		.csum = p->csum,
		.port = port,
		.proto = p->proto,
		.hop = !(be->flags & XLB_BACKEND_STACK),
	};
}

static __always_inline __u32 class_v6(const struct ipv6hdr *ip)
{
	return (bpf_ntohl(*(const __be32 *)ip) >> 20) & 0xff;
}

/*
 * Behind other headers; hash: what says which packets stay together.  The
 * commonest, ipip of IPv4 in IPv4, without a call.
 */
static __always_inline int wrap_v4(struct context *ctx, const struct packet *p,
				   __u32 forwarding, __u32 id, __u64 hash,
				   __u32 tos)
{
	const struct shape plain = SHAPE(false, false, IPPROTO_IPIP);
	const struct xlb_backend *be = backend_line(id);
	__u32 how = ENCAP_HOW(forwarding, p->new_flow, tos);
	bool is_plain = !is_gue(forwarding) && be->addr4;
	__u32 room = is_plain ? encap_bytes(false, false)
			      : encap_room(be, forwarding, false);

	if (unlikely(over_mtu(p->len + room, be->mtu)))
		return icmp_too_big_v4(ctx, be->mtu - room);
	if (likely(is_plain))
		return encap_send(ctx, plain, id, p->bytes, flow_mark(hash),
				  p->total, how);
	return encap_v4(ctx, id, hash, p->total, how);
}

static __always_inline int wrap_v6(struct context *ctx, const struct packet *p,
				   __u32 forwarding, __u32 id, __u64 hash,
				   __u32 tos)
{
	const struct xlb_backend *be = backend_line(id);
	__u32 room = encap_room(be, forwarding, true);

	if (unlikely(over_mtu(p->len + room, be->mtu)))
		return icmp_too_big_v6(ctx, be->mtu - room);
	return encap_v6(ctx, id, hash, p->total,
			ENCAP_HOW(forwarding, p->new_flow, tos));
}

static __always_inline int forward_v4(struct context *ctx, struct iphdr *ip,
				      const struct packet *p,
				      const struct xlb_vip *vip, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	bool nat = is_nat(vip->forwarding);

	trace_backend(id);
	if (is_own_v4(be, ip))
		return drop(XLB_DROP_HAIRPIN);
	if (is_encap(vip->forwarding))
		return wrap_v4(ctx, p, vip->forwarding, id, p->hash.flow,
			       ip->tos);
	if (unlikely(!reachable(be, be->l2_v4, false, nat)))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (unlikely(over_mtu(p->len, be->mtu)))
		return icmp_too_big_v4(ctx, be->mtu);
	if (nat) {
		struct rewrite r = rewrite_to(be, p, backend_port(be, vip));

		if (unlikely(hop_spent(be, ip->ttl)))
			return drop(XLB_DROP_TTL);
		r.addr = &be->addr4;
		r.delta = (__u64)(__u16)~vip->addr_sum + be->sum4;
		rewrite_v4(ctx, ip, &r);
		count_packet(id, p->bytes, p->new_flow);
		return leave(ctx, p->data, be, be->l2_v4, true);
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(ctx, p->data, be, be->l2_v4, false);
}

static __always_inline int forward_v6(struct context *ctx, struct ipv6hdr *ip,
				      const struct packet *p,
				      const struct xlb_vip *vip, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	bool nat = is_nat(vip->forwarding);

	trace_backend(id);
	if (is_own_v6(be, ip))
		return drop(XLB_DROP_HAIRPIN);
	if (is_encap(vip->forwarding))
		return wrap_v6(ctx, p, vip->forwarding, id, p->hash.flow,
			       class_v6(ip));
	if (unlikely(!reachable(be, be->l2_v6, true, nat)))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (unlikely(over_mtu(p->len, be->mtu)))
		return icmp_too_big_v6(ctx, be->mtu);
	if (nat) {
		struct rewrite r = rewrite_to(be, p, backend_port(be, vip));

		if (unlikely(hop_spent(be, ip->hop_limit)))
			return drop(XLB_DROP_TTL);
		r.addr = be->addr6;
		r.delta = (__u64)(__u16)~vip->addr_sum + be->sum6;
		rewrite_v6(ctx, ip, &r);
		count_packet(id, p->bytes, p->new_flow);
		return leave(ctx, p->data, be, be->l2_v6, true);
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(ctx, p->data, be, be->l2_v6, false);
}

/*
 * A later fragment, which goes where its first one went: p has neither ports
 * nor csum.  forwarding: of the service.
 */
static __always_inline int forward_later_v4(struct context *ctx,
					    struct iphdr *ip,
					    const struct packet *p,
					    __u32 forwarding, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	bool nat = is_nat(forwarding);

	trace_backend(id);
	if (is_encap(forwarding))
		return wrap_v4(ctx, p, forwarding, id, ip->saddr * MIX_A,
			       ip->tos);
	if (!reachable(be, be->l2_v4, false, nat))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (over_mtu(p->len, be->mtu))
		return icmp_too_big_v4(ctx, be->mtu);
	if (nat) {
		struct rewrite r = rewrite_to(be, p, 0);

		if (hop_spent(be, ip->ttl))
			return drop(XLB_DROP_TTL);
		r.addr = &be->addr4;
		r.delta = csum_fold(csum_words(&be->addr4, 1) +
				    (__u32)~ip->daddr);
		rewrite_v4(ctx, ip, &r);
	}
	count_packet(id, p->bytes, false);
	return leave(ctx, p->data, be, be->l2_v4, nat);
}

static __always_inline int forward_later_v6(struct context *ctx,
					    struct ipv6hdr *ip,
					    const struct packet *p,
					    __u32 forwarding, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	const __u64 *src = (const __u64 *)&ip->saddr;
	bool nat = is_nat(forwarding);

	trace_backend(id);
	if (is_encap(forwarding))
		return wrap_v6(ctx, p, forwarding, id,
			       (src[0] ^ src[1]) * MIX_A, class_v6(ip));
	if (!reachable(be, be->l2_v6, true, nat))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (over_mtu(p->len, be->mtu))
		return icmp_too_big_v6(ctx, be->mtu);
	if (nat) {
		struct rewrite r = rewrite_to(be, p, 0);

		if (hop_spent(be, ip->hop_limit))
			return drop(XLB_DROP_TTL);
		r.addr = be->addr6;
		rewrite_v6(ctx, ip, &r);
	}
	count_packet(id, p->bytes, false);
	return leave(ctx, p->data, be, be->l2_v6, nat);
}

#endif
