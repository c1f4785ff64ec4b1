/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the verb `trace` share. */
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include <jansson.h>

#include "bpf/replay.h"
#include "reconcile.h"

/* "192.0.2.1:80", "[2001:db8::1]:80", and, of `from`, ports "4000-4010". */
struct endpoint {
	struct ip address;
	uint16_t port, last_port; /* host order; last_port: of a range */
};

/* ret untouched on failure.  ports: one must be named; range: it may be. */
bool endpoint_parse(const char *text, bool range, struct endpoint *ret);
/* As it is written; good until the arena goes. */
const char *endpoint_text(struct arena *a, const struct ip *address,
			  uint16_t port);
const char *slot_state_name(uint32_t word); /* "moving" */
const char *memory_class_name(uint64_t entry); /* "established" */

/* Where packets of a client come in. */
struct way_in {
	const struct world_interface *in; /* NULL: by none that is known */
	bool uplink; /* has, or should have, the balancer */
	bool replies; /* has the reply program, for backends' packets */
	int hook; /* enum datapath_hook that takes them; -1: none */
};

/* One flow that is asked about. */
struct trace_flow {
	struct reconciler *r;
	const struct world *w;
	struct arena *arena;
	struct way_in way;
	struct ip vip, from;
	uint16_t port, from_port; /* host order */
	uint8_t proto;
	uint16_t length;
	uint8_t ttl;
};

/* A packet of it, and what becomes of it. */
enum trace_packet {
	TRACE_NEW, /* SYN */
	TRACE_EXISTING, /* any later one */
	TRACE_DATAGRAM,
};

/* The backend of that id, or NULL; its service in *ret_service. */
const struct world_member *
trace_member(const struct world *w, uint32_t id,
	     const struct world_service **ret_service);
const char *trace_name(const struct trace_flow *f, uint32_t id); /* "nobody" */
const char *member_why(const struct world_member *m); /* "drains"; or NULL */

/* trace_words.c: why, in a sentence. */
const char *trace_why(const struct trace_flow *f, enum trace_packet kind,
		      const struct replay_result *res);

/* trace_live.c: packets as they come.  Exit code. */
int cmd_trace_live(const struct options *opt);

#endif
