/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The packet path's own code, compiled for user space: what the programs would
 * do with a packet, found out of the real tables, and without a trace.  What
 * the path writes (memories, counters) it writes to copies here.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/xlb.h"

/* The tables that the packet meets. */
struct replay_tables {
	const struct xlb_tables *block;
	const uint32_t *slots;
	uint32_t slot_count;
	uint32_t flow_lines; /* a power of two */
	/* A line of memories as it is now; false: it can't be read. */
	bool (*line)(void *arg, uint32_t line, struct xlb_flow_line *ret);
	void *arg;
	uint32_t ifindex; /* where packets come in */
};

struct replay_packet {
	uint8_t family; /* 4 or 6 */
	uint8_t proto; /* IPPROTO_TCP, IPPROTO_UDP */
	uint32_t src[4], dst[4]; /* network order; IPv4: the first word */
	uint16_t sport, dport; /* network order */
	uint16_t length; /* bytes from the IP header on */
	uint8_t ttl;
	uint8_t tcp_flags;
};

enum replay_verdict {
	REPLAY_PASS, /* to this host's stack */
	REPLAY_DROP,
	REPLAY_SENT, /* out by `ifindex` */
	REPLAY_ANSWERED, /* by ICMP: `drop` says why */
};

struct replay_result {
	enum replay_verdict verdict;
	enum xlb_drop drop; /* XLB_DROP_NONE: wasn't */
	uint32_t ifindex; /* where it leaves */
	bool declared; /* it is for a service, and what follows is filled in */
	struct xlb_vip vip;
	uint32_t slot,
		word; /* of a new flow: index in the table; as it stands */
	uint32_t old_slot, old_word; /* of one that isn't remembered */
	bool decides; /* the slot does alone: no memory was asked */
	uint64_t known; /* the memory of the flow, 0: none */
	uint64_t client; /* that of its client (source_hash), 0: none */
	bool picked; /* a turn or a random number chose: another time differs */
	bool remembers; /* this packet would be remembered */
	uint32_t backend; /* 0: none */
};

/*
 * Runs the packet.  0; -EINVAL: no packet of that length can be made, or not
 * of this family and protocol.  Not to be called by two threads at once.
 */
int replay(const struct replay_tables *t, const struct replay_packet *p,
	   struct replay_result *ret);

#endif
