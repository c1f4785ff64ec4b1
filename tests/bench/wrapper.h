/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the wrapper and its user share. */
#ifndef BENCH_WRAPPER_H
#define BENCH_WRAPPER_H

#include <linux/types.h>

#define BENCH_BYTES 96 /* every packet has so many */
#define BENCH_HEAD_MAX 48 /* and at most so many more when it is encapsulated */

/* Packets between two looks at the clock, and how many looks are kept. */
#define BENCH_BLOCK 8192
#define BENCH_STAMPS 1024

enum bench_vary {
	BENCH_FIXED,
	BENCH_SOURCE, /* another client each time */
	BENCH_DESTINATION, /* another address that isn't a VIP */
};

/* What the wrapper restores: words of the packet, by their offset in it. */
struct bench_words {
	__u64 at0;
	__u64 at22;
	__u64 at38;
	__u64 at46;
	__u32 at8;
	__u32 at30;
	__u32 at34;
	__u32 at54;
	__u16 at12;
	__u16 at20;
	__u16 csum;
};

struct bench_state {
	__u64 count; /* packets so far */
	__u64 stamp[BENCH_STAMPS]; /* ns; at every BENCH_BLOCK-th packet */
};

#endif
