/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the path notes about the packet in hand while packets are sampled; see
 * traced.h.  In the programs that run otherwise none of this is compiled: they
 * are the same, instruction by instruction, as if it weren't here.
 */
#ifndef TRACE_H
#define TRACE_H

#include "parse.h"

#ifdef XLB_TRACE

#include "headers.h"

/* The packet in hand. */
struct traced {
	struct headers headers;
	struct xlb_sample sample;
	/* Who talks: the packet's two ends, or an answer's as its client sees
	 * them. */
	__u32 vip[4];
	__u32 client[4];
	__be16 vip_port;
	__be16 client_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traced);
} trace_place SEC(".maps");

static __always_inline struct traced *traced(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&trace_place, &key);
}

/* It is dropped for this reason; of two the first one counts. */
static __always_inline void trace_drop(__u32 reason)
{
	struct traced *t = traced();

	if (t && !t->sample.drop)
		t->sample.drop = (__u8)reason;
}

/* It is this backend's. */
static __always_inline void trace_backend(__u32 id)
{
	struct traced *t = traced();

	if (t)
		t->sample.backend = id;
}

/* What became of the packet goes on as it is. */
#define TRACED(hook, ctx, path)                         \
	({                                              \
		int taken;                              \
                                                        \
		trace_begin((ctx), (hook));             \
		taken = (path);                         \
		trace_end((ctx), trace_verdict(taken)); \
		taken;                                  \
	})

#else

static __always_inline void trace_drop(__u32 reason)
{
	(void)reason;
}

static __always_inline void trace_backend(__u32 id)
{
	(void)id;
}

/* A program's way for a packet, sampled while that is asked for. */
#define TRACED(hook, ctx, path) (path)

#endif
#endif
