/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thin layer between the balancer and its hook: the same code is compiled
 * for XDP and, with XLB_TC, for tc.  `struct context` is what the hook hands
 * over; verdicts and helpers go by one name for both.
 */
#ifndef CTX_H
#define CTX_H

#include "tables.h"

#ifdef XLB_TC
#error "not written yet"
#else
#define context xdp_md
#define VERDICT_PASS XDP_PASS /* the host's stack, or the next program */
#define VERDICT_DROP XDP_DROP
#define ctx_load_bytes bpf_xdp_load_bytes
#define ctx_store_bytes bpf_xdp_store_bytes
#endif

/* Back out by the interface where the packet came in. */
static __always_inline int ctx_return(struct context *ctx)
{
	(void)ctx;
	return XDP_TX;
}

/* Out by another interface. */
static __always_inline int ctx_redirect(__u32 ifindex)
{
	return (int)bpf_redirect(ifindex, 0);
}

#endif
