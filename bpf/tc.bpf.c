/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The uplink's program where XDP doesn't serve: tc, ingress, before the reply
 * program, which gets what this one passes.
 */
#define XLB_TC
#include "balance.h"
#include "traced.h"

SEC("tc")
int xlb_tc(struct context *ctx)
{
	return TRACED(XLB_HOOK_TC, ctx, balance(ctx));
}

char _license[] SEC("license") = "GPL";
