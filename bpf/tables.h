/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every table that the kernel programs and user space share.  The loader
 * makes and pins them once and hands the same ones to each program, so that
 * programs come and go while the tables stay.
 *
 * What has a fixed size is a global: its address is a constant in the program,
 * no lookup and no check for NULL.  What is sized when it is made is a map.
 */
#ifndef TABLES_H
#define TABLES_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "xlb.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/*
 * A bound the verifier sees: clang would otherwise drop a mask that it proved
 * needless, or apply it to a copy of the register.
 */
#define MASK(value, mask)                                            \
	({                                                           \
		__u64 masked = (value);                              \
		asm volatile("%0 &= %1" : "+r"(masked) : "i"(mask)); \
		masked;                                              \
	})

/*
 * What the declared services use, set when the program is loaded: the
 * verifier takes out the code of what isn't, but not the load that it took to
 * ask.  So on the hot path the packet's own data are asked first.
 */
const volatile __u32 features = XLB_FEATURE_ALL;
#define HAS(feature) (features & XLB_FEATURE_##feature)

/* The only variable of this section, so that all programs lay it out alike. */
struct xlb_tables tables SEC(".bss");

/* Sized by the loader: lines of 16 slots, so no map-value limit applies. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlb_slot_line);
} slots SEC(".maps");

/* Sized by the loader, one byte a slot; the programs never read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlb_moved_line);
} moved SEC(".maps");

/* Sized by the loader: a power of two of lines. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlb_flow_line);
} flows SEC(".maps");

/* Sized by the loader: CPUs * XLB_BACKENDS. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xlb_counter);
} counters SEC(".maps");

/* Sized by the loader: CPUs * XLB_SERVICES.  Where round robin stands. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XLB_DROP_MAX);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XLB_EVENT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} events SEC(".maps");

/* Tokens for half-open memories, one bucket a CPU; only the programs use it. */
struct limit {
	__u64 refilled; /* ns, CLOCK_MONOTONIC */
	__u32 tokens;
	__u32 skipped; /* since the clock was last asked */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit);
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, XLB_FRAGMENTS);
	__type(key, struct xlb_fragment_key);
	__type(value, struct xlb_fragment);
} fragments SEC(".maps");

/* While one table of VIPs replaces another, the addresses of both are here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * XLB_VIP_MAX);
	__type(key, struct xlb_address_key);
	__type(value, __u32);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * XLB_BACKENDS);
	__type(key, struct xlb_reply_key);
	__type(value, struct xlb_reply);
} replies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct xlb_direct_key);
	__type(value, __u32);
} direct SEC(".maps");

/* The programs never read these two. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, XLB_SERVICES);
	__type(key, __u32);
	__type(value, struct xlb_service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, XLB_BACKENDS);
	__type(key, __u32);
	__type(value, struct xlb_owner);
} owners SEC(".maps");

#endif
