/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/ticks.h"

#include "bpf/xlb.h"

#define SECOND 1000000000ULL

uint64_t service_memory(const struct service_spec *s)
{
	if (s->algorithm == ALGORITHM_SOURCE_HASH &&
	    s->affinity_timeout > s->idle_timeout)
		return s->affinity_timeout;
	return s->idle_timeout;
}

uint32_t spec_tick(const struct spec *s)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < s->service_count; i++) {
		uint64_t t = service_memory(&s->services[i]);

		longest = t > longest ? t : longest;
	}
	longest = (longest + XLB_IDLE_TICKS * SECOND - 1) /
		  (XLB_IDLE_TICKS * SECOND);
	return longest ? (uint32_t)longest : 1;
}

uint32_t ticks_of(uint64_t duration, uint32_t tick)
{
	uint64_t each = (tick ? tick : 1) * SECOND;
	uint64_t ticks = (duration + each - 1) / each;

	/* The kernel may still have the ticks of an earlier file. */
	return ticks < XLB_IDLE_TICKS ? (uint32_t)ticks : XLB_IDLE_TICKS;
}
