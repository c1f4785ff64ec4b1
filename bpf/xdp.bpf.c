/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The uplink's program: packets from clients to declared services. */
#include "balance.h"

SEC("xdp")
int xlb_xdp(struct context *ctx)
{
	return balance(ctx);
}

char _license[] SEC("license") = "GPL";
