/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The packets of the benches, with correct checksums, and their arithmetic. */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"
#include "tests/bench/wrapper.h"

#define CLIENT_PORT 40000
#define FRAME_SEQ 1000 /* of a SYN; of what follows it, one more */

enum frame_kind { FRAME_ACK, FRAME_SYN, FRAME_ARP };

struct frame_spec {
	int family; /* 4 or 6 */
	uint8_t proto;
	enum frame_kind kind;
	struct ip to;
	uint32_t client; /* what stands where the source varies; 0: fixed */
};

struct frame {
	uint8_t data[BENCH_BYTES + BENCH_HEAD_MAX];
	size_t len;
	size_t ip_bytes; /* of the IP packet; the rest is padding */
	size_t l4; /* offset of the transport header */
	size_t csum; /* of its checksum */
};

void frame_make(const struct frame_spec *spec, struct frame *ret);

uint16_t sum_fold(uint64_t sum);
uint64_t sum_bytes(const uint8_t *p, size_t len);
/* 0xffff when folded: the transport checksum of an IP packet at `ip` is right. */
uint64_t sum_transport(const uint8_t *ip, int family, uint8_t proto,
		       size_t ip_len, size_t len);

#endif
