/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the live bench's programs and their user share. */
#ifndef BENCH_LIVE_H
#define BENCH_LIVE_H

#include "wrapper.h"

#define LIVE_WORDS (BENCH_BYTES / 8)

struct live_state {
	__u64 frame[LIVE_WORDS]; /* that is sent, but for its source */
	__u64 sent;
	/* Apart from what the generator writes. */
	__u64 pad[51];
	struct bench_state back; /* of what came back */
};

#endif
