/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the wrapper restores: words of the packet, by their offset in it. */
#ifndef BENCH_WRAPPER_H
#define BENCH_WRAPPER_H

#include <linux/types.h>

#define BENCH_BYTES 96 /* every packet has so many */

struct bench_words {
	__u64 at0;
	__u64 at22;
	__u64 at38;
	__u64 at46;
	__u32 at8;
	__u32 at30;
	__u32 at34;
	__u32 at54;
	__u16 at20;
	__u16 csum;
};

#endif
