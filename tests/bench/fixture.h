/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables that the packet benches run on: one service for each way to be
 * forwarded and chosen, and a crowd of others up to XLB_VIP_MAX.
 */
#ifndef BENCH_FIXTURE_H
#define BENCH_FIXTURE_H

#include <stdint.h>

#include "base/ip.h"
#include "bpf/xlb.h"

#define SLOT_LOG2 16
#define TABLE_SLOTS (1u << SLOT_LOG2)
#define BACKENDS 100 /* in use; as many were before them */
#define FLOW_LINES 32768 /* what the loader makes */
#define FLOW_SEED 0x9d3a0f61c55b28e7ULL

enum table { AT_REST, MOVING, TRACKED, SCHEDULE, TABLES };

enum {
	DSR,
	NAT,
	UDP_DSR,
	UDP_NAT,
	IPIP,
	GUE,
	NAT_MOVING,
	NAT_TURNS, /* round robin */
	NAT_LEAST, /* least connections */
	SERVICES,
	NOT_OURS, /* an address that no service has */
};

struct service {
	uint8_t forwarding;
	uint8_t proto;
	enum table table;
	uint16_t flags; /* XLB_VIP_* */
};
extern const struct service services[SERVICES];

/* Of a service, in a family (4 or 6); port 80. */
struct ip vip_of(int service, int family);

/* All but the slots; ends the process when it can't be. */
void fixture_fill(struct xlb_tables *t);
/* The slots map has TABLES * TABLE_SLOTS words. */
void fixture_fill_slots(int slots_fd);

__attribute__((noreturn)) void die(const char *what);

#endif
