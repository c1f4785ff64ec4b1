/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both ends of the live bench, and its floor.  `generate` runs on frames of
 * BPF_PROG_TEST_RUN and sends them out; `back` takes those that the program on
 * the other end of the veth sent back; `bounce` is the cheapest such program.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_helpers.h>

#include "live.h"

const volatile __u32 live_ifindex = 0;
const volatile __u32 live_mask = 0; /* flows - 1 */

struct live_state live_state SEC(".data.state");

/* The pages come back with what was written to them, so all is written. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 flow = (__u32)live_state.sent++ * 2654435761u & live_mask;

	if (data + BENCH_BYTES > end)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < LIVE_WORDS; i++)
		((__u64 *)data)[i] = live_state.frame[i];
	*(__u32 *)(data + 26) = flow * 2654435769u;
	return (int)bpf_redirect(live_ifindex, 0);
}

SEC("xdp")
int back(struct xdp_md *ctx)
{
	__u64 count = live_state.back.count++;

	(void)ctx;
	if (!(count & (BENCH_BLOCK - 1)))
		live_state.back.stamp[count / BENCH_BLOCK & (BENCH_STAMPS - 1)] =
			bpf_ktime_get_ns();
	return XDP_DROP;
}

SEC("xdp")
int bounce(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
