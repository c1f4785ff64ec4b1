/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The uplink's program: packets from clients to declared services. */
#include "balance.h"
#include "traced.h"

SEC("xdp")
int xlb_xdp(struct context *ctx)
{
	return TRACED(XLB_HOOK_XDP, ctx, balance(ctx));
}

char _license[] SEC("license") = "GPL";
