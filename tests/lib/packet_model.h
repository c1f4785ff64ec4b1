/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What becomes of a packet, written from the design and not from the programs.
 *
 * The model holds the tables as the test wrote them, and remembers flows by
 * what they are, not by hashes of it.  Where the design leaves a choice (which
 * backend is picked, which entry of its own class a new one replaces) the
 * model looks at what the program did, says whether that was allowed, and goes
 * on from there.  Everything else it predicts to the last byte.
 *
 * Taken over from bpf/xlb.h: the layout of words and lines.  Taken over from
 * the programs: the hash functions, without which a flow's slot isn't known.
 */
#ifndef TESTS_LIB_PACKET_MODEL_H
#define TESTS_LIB_PACKET_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/xlb.h"
#include "tests/lib/bpf_lab.h"
#include "tests/lib/packet_make.h"
#include "tests/lib/packet_view.h"

#define MODEL_VIPS 32
#define MODEL_FRAGMENTS 64
#define MODEL_MARKS 128

enum model_key_kind {
	KEY_FLOW, /* a connection */
	KEY_HALF, /* its handshake, by the next sequence number */
	KEY_CLIENT, /* a client of a service that hashes only its address */
};

struct model_key {
	uint8_t kind; /* enum model_key_kind */
	uint8_t family, proto, pad;
	uint8_t vip[16], client[16];
	uint16_t client_port, vip_port; /* network order; KEY_CLIENT: 0 */
	uint32_t seq; /* KEY_HALF */
};

struct model_memory {
	struct model_key key;
	uint32_t tag; /* that the program knows it by */
	enum xlb_flow_class class;
	uint32_t backend; /* 0: nothing here */
	uint8_t generation, time;
};

struct model_line {
	struct model_memory way[XLB_FLOW_WAYS];
};

struct model_fragment {
	bool used;
	struct packet_view of; /* addresses, protocol and id of the first one */
	uint32_t backend;
	enum xlb_forwarding forwarding;
};

/*
 * Where a flow shows outside, behind which headers it ever went.  What stands
 * there is the program's choice, but always the same.
 */
enum model_place {
	PLACE_V4, /* low half of ipip's IPv4 source */
	PLACE_V6, /* low half of ipip's IPv6 source */
	PLACE_PORT, /* gue's source port */
	PLACE_LABEL, /* IPv6's flow label */
	PLACES
};

struct model_mark {
	struct model_key key; /* later fragments: the client only */
	bool known[PLACES];
	uint64_t at[PLACES];
};

struct model {
	uint64_t flow_seed;
	uint8_t flow_log2;
	uint32_t now;
	bool drained; /* no token is left: a half-open memory may be refused */
	struct xlb_vip vips[MODEL_VIPS];
	unsigned int vip_count;
	struct xlb_backend backends[XLB_BACKENDS];
	uint32_t *slots; /* as the test wrote them */
	struct xlb_load loads[XLB_BACKENDS];
	uint32_t cursors[XLB_SERVICES];
	struct model_line *lines;
	struct model_fragment fragments[MODEL_FRAGMENTS];
	unsigned int fragment_next;
	struct model_mark marks[MODEL_MARKS];
	unsigned int mark_next;
	uint32_t source4, source6[4]; /* as in xlb_control */
	bool tc;
	uint32_t ingress; /* interface where packets come in */
	/* What should have been counted. */
	struct xlb_counter counters[XLB_BACKENDS];
	uint64_t drops[XLB_DROP_MAX];
	uint64_t events[XLB_EVENT_MAX];
};

/* What the program did, and what its tables are now. */
struct model_seen {
	enum lab_verdict verdict;
	const uint8_t *frame;
	size_t size;
	const struct xlb_flow_line *lines;
	const struct xlb_load *loads;
	uint32_t backend; /* whose next hop the frame was given; 0: nobody's */
};

/* What it should have done. */
struct model_due {
	enum lab_verdict verdict;
	enum xlb_drop reason; /* of LAB_DROP */
	uint32_t backend; /* LAB_TX, LAB_REDIRECT, LAB_PASS after a rewrite */
	uint8_t frame[PACKET_MAX];
	size_t size;
	bool answer; /* of the VIP itself: its tags are the question's */
	uint32_t mtu; /* an answer "too big" is due, saying so; else 0 */
	uint32_t word; /* of the slot that was looked at */
	uint32_t line[2]; /* lines of memories that were looked at */
	unsigned int lines;
	const char *illegal; /* a choice that the program should not have had */
};

int model_init(struct model *m, uint32_t slots, uint8_t flow_log2,
	       uint64_t flow_seed);
void model_release(struct model *m);
/* Nothing declared, nothing remembered, nothing counted. */
void model_reset(struct model *m);

void model_packet(struct model *m, const uint8_t *frame, size_t size,
		  const struct model_seen *seen, struct model_due *due);

/* The entry as it stands in the map; 0 for none. */
uint64_t model_word(const struct model_memory *e);
uint64_t model_hash(const struct model *m, const struct model_key *key);
uint32_t model_line_of(const struct model *m, uint64_t hash);
/* NULL: for nobody. */
const struct xlb_vip *model_vip(const struct model *m, int family,
				const uint8_t addr[16], uint16_t port,
				uint8_t proto);
bool model_alive(const struct model *m, const struct model_memory *e);
/* Are some flows told apart in each place where they show outside? */
bool model_spread(const struct model *m);

#endif
