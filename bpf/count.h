/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting: one counter a forwarded packet, one named reason a dropped one.
 * A CPU writes only its own counters, so plain additions do.
 */
#ifndef COUNT_H
#define COUNT_H

#include "ctx.h"
#include "trace.h"

static __always_inline void count_packet(__u32 backend, __u64 bytes,
					 bool new_flow)
{
	__u32 key = bpf_get_smp_processor_id() * XLB_BACKENDS + backend;
	struct xlb_counter *c = bpf_map_lookup_elem(&counters, &key);

	if (!c)
		return;
	c->packets++;
	c->bytes += bytes;
	if (new_flow)
		c->flows++;
}

__noinline int count_drop(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &reason);

	trace_drop(reason);
	if (n)
		++*n;
	return 0;
}

static __always_inline int drop(enum xlb_drop reason)
{
	count_drop(reason);
	return VERDICT_DROP;
}

#endif
