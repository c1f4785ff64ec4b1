/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The packet path in a wrapper that can be run a million times.  A test run
 * gives back neither packet nor context between repeats, so the wrapper
 * restores what the path rewrote and takes off what it put in front; the floor
 * is the same wrapper around a function that only returns the verdict (and,
 * where the case encapsulates, makes the same room).  Stores are as wide as
 * the path's loads: narrower ones would stall them and be counted as its time.
 *
 * The kernel tells the time of a whole run in full nanoseconds a packet, with
 * every interrupt in it.  So the wrapper looks at the clock itself, once in
 * BENCH_BLOCK packets, and user space takes the median block.
 */
#include "balance.h"

#include "wrapper.h"

const volatile __u32 bench_verdict = 0; /* 0: balance; else the floor's */
const volatile __u32 bench_family = FAMILY_V4;
const volatile __u32 bench_csum = 0; /* offset of the transport checksum */
const volatile __u32 bench_mask = 0; /* flows - 1 */
const volatile __u32 bench_vary = BENCH_FIXED;
const volatile __s32 bench_head = 0; /* bytes that the path puts in front */
const volatile struct bench_words bench_words = {};

struct bench_state bench_state SEC(".data.state");

static __always_inline void restore_v4(void *data)
{
	*(__u64 *)(data + 22) = bench_words.at22;
	*(__u32 *)(data + 30) = bench_words.at30;
	*(__u32 *)(data + 34) = bench_words.at34;
}

static __always_inline void restore_v6(void *data)
{
	*(__u16 *)(data + 20) = bench_words.at20;
	*(__u64 *)(data + 38) = bench_words.at38;
	*(__u64 *)(data + 46) = bench_words.at46;
	*(__u32 *)(data + 54) = bench_words.at54;
}

static __always_inline void restore(void *data)
{
	*(__u64 *)data = bench_words.at0;
	*(__u32 *)(data + 8) = bench_words.at8;
	if (bench_head) /* the outer header's end stood here */
		*(__u16 *)(data + 12) = bench_words.at12;
	if (bench_family == FAMILY_V4)
		restore_v4(data);
	else
		restore_v6(data);
	if (bench_csum == 50)
		*(__u16 *)(data + 50) = bench_words.csum;
	else if (bench_csum == 40)
		*(__u16 *)(data + 40) = bench_words.csum;
	else if (bench_csum == 70)
		*(__u16 *)(data + 70) = bench_words.csum;
	else if (bench_csum == 60)
		*(__u16 *)(data + 60) = bench_words.csum;
}

/* Another address each time, the same ones again after bench_mask + 1. */
static __always_inline void vary(void *data, __u64 count)
{
	__u32 flow = (__u32)count * 2654435761u & bench_mask;
	__u32 address = flow * 2654435769u;

	if (bench_vary == BENCH_DESTINATION)
		*(__u32 *)(data + 30) = address;
	else if (bench_family == FAMILY_V4)
		*(__u32 *)(data + 26) = address;
	else
		*(__u64 *)(data + 30) = address;
}

static __always_inline __u64 count_and_stamp(void)
{
	__u64 count = bench_state.count++;

	if (!(count & (BENCH_BLOCK - 1)))
		bench_state.stamp[count / BENCH_BLOCK & (BENCH_STAMPS - 1)] =
			bpf_ktime_get_ns();
	return count;
}

/* Called, not inlined, as the floor is. */
__noinline int bench_balance(struct xdp_md *ctx)
{
	return balance(ctx);
}

__noinline int bench_floor(struct xdp_md *ctx)
{
	if (bench_head && bpf_xdp_adjust_head(ctx, -bench_head))
		return XDP_ABORTED;
	asm volatile("" : : "r"(ctx));
	return (int)bench_verdict;
}

/* Takes off what the packet before was given in front. */
static __always_inline bool undo_head(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	return distance(data, end) == BENCH_BYTES ||
	       !bpf_xdp_adjust_head(ctx, bench_head);
}

/*
 * Nothing is left to do when the path returns, so that this takes no more than
 * the least stack frame: the path needs nearly all there is.
 */
SEC("xdp")
int bench(struct xdp_md *ctx)
{
	__u64 count = count_and_stamp();
	void *data, *end;

	if (bench_head && !undo_head(ctx))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + BENCH_BYTES > end)
		return XDP_ABORTED;
	restore(data);
	if (bench_vary)
		vary(data, count);
	if (bench_verdict)
		return bench_floor(ctx);
	return bench_balance(ctx);
}

/* One packet as it is, for filling memories and looking at the outcome. */
SEC("xdp")
int once(struct xdp_md *ctx)
{
	return balance(ctx);
}

char _license[] SEC("license") = "GPL";
