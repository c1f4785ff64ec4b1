/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A backend's line, and the way out to it.  The next hop's Ethernet header
 * stands ready in the line and is stored by two wide writes.
 */
#ifndef HOP_H
#define HOP_H

#include "count.h"

static __always_inline const struct xlb_backend *backend_line(__u32 id)
{
	const struct xlb_backend *be =
		&tables.backends[MASK(id, XLB_BACKENDS - 1)];

	asm volatile("" : "+r"(be)); /* keep the sum, as for the VIP's line */
	return be;
}

/* mtu 0: no limit. */
static __always_inline bool over_mtu(__u32 len, __u16 mtu)
{
	return len - 1 > (__u16)(mtu - 1);
}

/* Of generation, flags and VLAN id, which leave() reads as one word. */
#define REST_TX (XLB_BACKEND_TX << 8)
#define REST_STACK (XLB_BACKEND_STACK << 8)
#define REST_VLAN 0xffff0000u
_Static_assert(offsetof(struct xlb_backend, flags) ==
			       offsetof(struct xlb_backend, generation) + 1 &&
		       offsetof(struct xlb_backend, vlan) ==
			       offsetof(struct xlb_backend, generation) + 2,
	       "one word");

/* By which interface: where it came in, or another.  rest: as above. */
static __always_inline int hop_verdict(struct context *ctx, __u32 rest,
				       __u64 high)
{
	if ((rest & REST_TX) &&
	    (!HAS(UPLINKS) || ctx_ifindex(ctx) == (__u32)(high >> 32)))
		return ctx_return(ctx);
	return ctx_redirect((__u32)(high >> 32));
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
	__u32 rest = *(volatile const __u32 *)&be->generation;

	if (likely(!(rest & (REST_VLAN | REST_STACK)))) {
		ctx_ethernet(ctx, data, low, high, 0);
	} else {
		if (rest & REST_STACK)
			return nat ? VERDICT_PASS : drop(XLB_DROP_NO_NEXT_HOP);
		if (!ctx_ethernet(ctx, data, low, high, (__u16)(rest >> 16)))
			return drop(XLB_DROP_ENCAP);
	}
	return hop_verdict(ctx, rest, high);
}

/* The same for one that is known not to be behind the stack. */
static __always_inline int hop_out(struct context *ctx, void *data,
				   const struct xlb_backend *be,
				   const __u64 l2[2])
{
	__u64 low = *(volatile const __u64 *)&l2[0];
	__u64 high = *(volatile const __u64 *)&l2[1];
	__u32 rest = *(volatile const __u32 *)&be->generation;

	if (!ctx_ethernet(ctx, data, low, high, (__u16)(rest >> 16)))
		return drop(XLB_DROP_ENCAP);
	return hop_verdict(ctx, rest, high);
}

#endif
