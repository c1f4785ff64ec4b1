/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How slots under change come to rest: rounds over all memories of flows, each
 * of which forgets what has run out and then says which slots go on.
 *
 *   held       its clients' ties have run out: moving
 *   moving     every flow of prev has spoken or run out: settled
 *   settled    two rounds in a row found no memory of another backend: rest
 *
 * Where slots are the clients', a memory may be of any slot: all of them wait
 * for all memories of the service.
 *
 * Between two rounds has to pass more than a grace period: a packet that was
 * under way when the first one looked may have left a memory behind it.  Pure:
 * the words and memories are given, and what should be written is handed back.
 */
#ifndef TABLES_SWEEP_H
#define TABLES_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/xlb.h"

/* Times are ticks of the coarse clock, as ticks_of() has them. */
struct sweep_service {
	uint32_t slot_base;
	uint8_t slot_log2; /* 0: no such service, or not to be touched */
	bool rests; /* its slots come to rest */
	bool by_client; /* a memory's line doesn't say whose slot it is */
	uint8_t memory_ticks; /* how long a memory lasts */
	uint8_t idle_ticks; /* how long a flow may be silent */
	uint8_t held_ticks; /* how long a client is tied */
};

struct sweep_input {
	const struct sweep_service *services; /* XLB_SERVICES, by id */
	const uint16_t *service_of; /* XLB_BACKENDS, by id; 0: nobody's */
	const struct xlb_backend *backends;
	const uint32_t *slots;
	uint32_t slot_count;
	const uint8_t *moved;
	uint32_t flow_lines; /* a power of two */
	uint8_t now;
	/* Ticks since a flow was last left unremembered; UINT32_MAX: never. */
	uint32_t since_no_room;
};

struct sweep;

/* Stamped within a tick, it is surely over when one more has passed. */
bool sweep_is_over(uint32_t ticks, uint32_t passed);

struct sweep *sweep_new(void);
void sweep_free(struct sweep *s);
/* A round; the input stays until its last word has been asked for. */
void sweep_begin(struct sweep *s, const struct sweep_input *in);
/* Every memory, in any order.  False: it is to be removed. */
bool sweep_keep(void *sweep, uint32_t line, uint64_t entry);
/*
 * Then each service once: words[] gets what its slots should be; returns how
 * many differ from what they are.  *ret_busy: more rounds are needed.
 */
uint32_t sweep_words(struct sweep *s, uint32_t service, uint32_t *words,
		     bool *ret_busy);
/* These slots were written meanwhile: what was found of them doesn't count. */
void sweep_touch(struct sweep *s, uint32_t base, uint32_t count);

/* Of the last round: memories that stay, and of one backend */
size_t sweep_kept(const struct sweep *s);
uint32_t sweep_active(const struct sweep *s,
		      uint32_t backend); /* connections */
bool sweep_saw(const struct sweep *s, uint32_t backend); /* any, kept or not */

#endif
