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

/* The checksum's change when the hop limit, high byte of a word, falls by 1. */
#define TTL_DELTA ((__u64)bpf_htons(0xfeff))

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
static __always_inline int leave(void *data, const struct xlb_backend *be,
				 const __u64 l2[2], bool nat)
{
	__u64 low = *(volatile const __u64 *)&l2[0];
	__u64 high = *(volatile const __u64 *)&l2[1];

	if (unlikely(be->flags & XLB_BACKEND_STACK))
		return nat ? VERDICT_PASS : drop(XLB_DROP_NO_NEXT_HOP);
	*(__u64 *)data = low;
	*(__u32 *)(data + 8) = (__u32)high;
	if (be->flags & XLB_BACKEND_TX)
		return XDP_TX;
	return (int)bpf_redirect((__u32)(high >> 32), 0);
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

/* The transport header's part of nat; delta: of the address. */
static __always_inline void nat_ports(struct ports *ports, __u16 *csum,
				      __u8 proto, __be16 port, __u64 delta)
{
	__u16 old = *csum;

	delta += csum_change16(ports->dest, port);
	if (proto == IPPROTO_TCP) {
		*csum = csum_add(old, delta);
	} else if (old) {
		__u16 new = csum_add(old, delta);

		*csum = new ? new : 0xffff;
	}
	ports->dest = port;
}

/* Destination and hop limit of the IPv4 header; delta: of the address. */
static __always_inline void
nat_header_v4(struct iphdr *ip, const struct xlb_backend *be, __u64 delta)
{
	if (likely(!(be->flags & XLB_BACKEND_STACK))) {
		delta += TTL_DELTA;
		ip->ttl--;
	}
	ip->check = csum_add(ip->check, delta);
	ip->daddr = be->addr4;
}

static __always_inline void nat_header_v6(struct ipv6hdr *ip,
					  const struct xlb_backend *be)
{
	if (likely(!(be->flags & XLB_BACKEND_STACK)))
		ip->hop_limit--;
	copy_v6(&ip->daddr, be->addr6);
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
		__u64 delta = (__u64)(__u16)~vip->addr_sum + be->sum4;

		if (unlikely(hop_spent(be, ip->ttl)))
			return drop(XLB_DROP_TTL);
		nat_header_v4(ip, be, delta);
		nat_ports(p->ports, p->csum, p->proto, backend_port(be, vip),
			  delta);
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(p->data, be, be->l2_v4, nat);
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
		__u64 delta = (__u64)(__u16)~vip->addr_sum + be->sum6;

		if (unlikely(hop_spent(be, ip->hop_limit)))
			return drop(XLB_DROP_TTL);
		nat_header_v6(ip, be);
		nat_ports(p->ports, p->csum, p->proto, backend_port(be, vip),
			  delta);
	}
	count_packet(id, p->bytes, p->new_flow);
	return leave(p->data, be, be->l2_v6, nat);
}

#endif
