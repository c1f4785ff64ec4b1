/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packet whose backend is known: rewritten (nat) or not (dsr), given the
 * next hop's Ethernet header, and sent.  The header stands ready in the
 * backend's line and is stored by two wide writes.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include "count.h"
#include "icmp.h"
#include "packet.h"
#include "rewrite.h"

static __always_inline const struct xlb_backend *backend_line(__u32 id)
{
	const struct xlb_backend *be =
		&tables.backends[MASK(id, XLB_BACKENDS - 1)];

	asm volatile("" : "+r"(be)); /* keep the sum, as for the VIP's line */
	return be;
}

static __always_inline bool is_nat(__u32 forwarding)
{
	return HAS(NAT) && forwarding == XLB_NAT;
}

static __always_inline __be16 backend_port(const struct xlb_backend *be,
					   const struct xlb_vip *vip)
{
	return be->port ? be->port : vip->target_port;
}

/* mtu 0: no limit. */
static __always_inline bool over_mtu(__u32 len, __u16 mtu)
{
	return len - 1 > (__u16)(mtu - 1);
}

/*
 * Out by the next hop of l2, the backend's words of the packet's family.
 * A backend behind the host's stack gets what was rewritten for it that way;
 * dsr can't, because the host owns the address that the packet still has.
 */
static __always_inline int leave(struct context *ctx, void *data,
				 const struct xlb_backend *be,
				 const __u64 l2[2], bool nat)
{
	__u64 low = *(volatile const __u64 *)&l2[0];
	__u64 high = *(volatile const __u64 *)&l2[1];

	if (unlikely(be->flags & XLB_BACKEND_STACK))
		return nat ? VERDICT_PASS : drop(XLB_DROP_NO_NEXT_HOP);
	if (!ctx_ethernet(ctx, data, low, high, be->vlan))
		return drop(XLB_DROP_ENCAP);
	if ((be->flags & XLB_BACKEND_TX) &&
	    (!HAS(UPLINKS) || ctx_ifindex(ctx) == (__u32)(high >> 32)))
		return ctx_return(ctx);
	return ctx_redirect((__u32)(high >> 32));
}

/* Has the backend a way out in this family?  The stack finds its own. */
static __always_inline bool reachable(const struct xlb_backend *be,
				      const __u64 l2[2], bool v6)
{
	if (be->flags & XLB_BACKEND_STACK)
		return v6 ? be->addr6[0] | be->addr6[3] : be->addr4;
	return l2[0] != 0;
}

/* A router's step, but for packets that the host's own stack still routes. */
static __always_inline bool hop_spent(const struct xlb_backend *be, __u8 ttl)
{
	return ttl <= 1 && !(be->flags & XLB_BACKEND_STACK);
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

static __always_inline int forward_v4(struct context *ctx, struct iphdr *ip,
				      const struct packet *p,
				      const struct xlb_vip *vip, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	bool nat = is_nat(vip->forwarding);

	if (unlikely(!reachable(be, be->l2_v4, false)))
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
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(ctx, p->data, be, be->l2_v4, nat);
}

static __always_inline int forward_v6(struct context *ctx, struct ipv6hdr *ip,
				      const struct packet *p,
				      const struct xlb_vip *vip, __u32 id)
{
	const struct xlb_backend *be = backend_line(id);
	bool nat = is_nat(vip->forwarding);

	if (unlikely(!reachable(be, be->l2_v6, true)))
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
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(ctx, p->data, be, be->l2_v6, nat);
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

	if (!reachable(be, be->l2_v4, false))
		return drop(XLB_DROP_NO_NEXT_HOP);
	if (over_mtu(p->len, be->mtu))
		return icmp_too_big_v4(ctx, be->mtu);
	if (nat) {
		struct rewrite r = rewrite_to(be, p, 0);

		if (hop_spent(be, ip->ttl))
			return drop(XLB_DROP_TTL);
		r.addr = &be->addr4;
		r.delta = csum_words(&be->addr4, 1) + (__u32)~ip->daddr;
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
	bool nat = is_nat(forwarding);

	if (!reachable(be, be->l2_v6, true))
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
