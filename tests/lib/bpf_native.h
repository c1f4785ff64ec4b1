/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The packet path's own headers, compiled for the machine that the tests run
 * on.  Stands in for libbpf's header of helpers; the tables are plain memory.
 * To be included by one source of a program, once, before anything of bpf/.
 */
#ifndef BPF_NATIVE_H
#define BPF_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#include <linux/types.h>

/* libbpf's own, bpf/bpf_helpers.h, is not to be read any more. */
#define __BPF_HELPERS__

#define SEC(name)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#undef __always_inline
#define __always_inline inline __attribute__((always_inline, unused))
#define __noinline __attribute__((noinline, unused))

/* The value of a map's key, NULL: none.  The test's own. */
static void *bpf_map_lookup_elem(const void *map, const void *key);
static uint32_t bpf_get_smp_processor_id(void);
static uint32_t bpf_get_prandom_u32(void);
static uint64_t bpf_ktime_get_ns(void);

/* Never called by what is tested. */
static inline int bpf_redirect(uint32_t ifindex, uint64_t flags)
{
	return (int)(ifindex + flags);
}

static inline int bpf_xdp_adjust_head(void *ctx, int delta)
{
	return ctx ? delta : -1;
}

static inline int bpf_xdp_adjust_tail(void *ctx, int delta)
{
	return ctx ? delta : -1;
}

/* Written for another compiler, which warns of less. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wint-to-pointer-cast"

#include "bpf/tables.h"

/* As an expression; the original is in the other machine's language. */
#undef MASK
#define MASK(value, mask) ((__u64)(value) & (mask))

#include "bpf/packet.h"

#pragma GCC diagnostic pop

#endif
