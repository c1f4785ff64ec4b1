/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kinds of probes share.  probe.c schedules and keeps time; a kind
 * starts a probe, is told of events on its descriptor, and says how it ended.
 *   stream.c   tcp and http, and the connection of https
 *   web.c      https: libcurl on the loop
 *   datagram.c udp, dns and icmp
 *   command.c  a program of the user's
 */
#ifndef HEALTH_PROBE_H
#define HEALTH_PROBE_H

#include <sys/queue.h>

#include "health/health.h"

enum phase { PHASE_IDLE, PHASE_QUEUED, PHASE_CONNECTING, PHASE_ANSWERING };

/* Of what only so many may be under way; the others queue. */
struct gate {
	unsigned int used, most;
	TAILQ_HEAD(, probe_target) queue;
};
/* A target passes those that it needs in this order. */
enum gate_kind { GATE_JOINING, GATE_COMMAND, GATE_KINDS };

struct probe_kind {
	/* Ends in probe_finish(), now or later. */
	void (*start)(struct probe_target *t);
	/* On t->fd, while t->source watches it. */
	void (*event)(struct probe_target *t, uint32_t events);
	/* Leaves nothing of t->work; NULL: there is none. */
	void (*drop)(struct probe_target *t);
};
extern const struct probe_kind probe_tcp, probe_http, probe_https, probe_dns,
	probe_udp, probe_icmp, probe_command;

/* A health_spec that targets share, strings and all. */
struct shared_spec {
	unsigned int users;
	struct health_spec spec;
	/* what its pointers point to */
};
struct shared_spec *shared_spec_new(const struct health_spec *from);
bool shared_spec_is(const struct shared_spec *s,
		    const struct health_spec *other);

struct probe_target {
	size_t index; /* in the prober's targets */
	TAILQ_ENTRY(probe_target) queue;
	struct prober *prober;
	char *service, *backend;
	struct shared_spec *shared;
	const struct health_spec *spec; /* in shared */
	const struct probe_kind *kind;
	struct ip address;
	uint16_t port;
	struct health health;
	void *user;
	struct loop_source *timer;
	enum phase phase;
	bool again; /* kicked while a probe was under way */
	struct gate *lane;
	struct gate *held[GATE_KINDS]; /* NULL: no place of it */
	struct gate *waits_for; /* PHASE_QUEUED */
	unsigned int tries; /* while joining */
	uint64_t place; /* in the interval */
	uint64_t due, started;
	int fd; /* -1: none */
	struct loop_source *source;
	void *work; /* the kind's own, while a probe is under way */
};

struct lane {
	struct lane *next;
	char *name;
	struct gate gate;
};

struct lateness {
	uint64_t since;
	uint64_t count, most; /* ns */
	uint32_t steps[1001]; /* of 0.1 ms; the last one: all that are later */
};

struct web;
struct command_run;
struct prober {
	struct loop *loop;
	probe_fn fn;
	void *arg;
	uint64_t random;
	struct lane *lanes;
	struct gate commands;
	struct probe_target **targets;
	size_t count;
	struct shared_spec *last; /* most targets have that of the one before */
	struct web *web; /* web.c; NULL until first needed */
	LIST_HEAD(, command_run) runs; /* command.c */
	uint64_t turned; /* when prober_turn() last looked, */
	struct due_target {
		struct probe_target *target;
		size_t index;
	} * due; /* and what it found */
	size_t due_count;
	uint64_t sent, results[PROBE_RESULTS];
	struct lateness late[2]; /* of the span under way, and of the last */
};

uint32_t probe_random(struct prober *p);
uint16_t probe_port(const struct probe_target *t);
/* detail may be NULL. */
void probe_finish(struct probe_target *t, enum probe_result result,
		  const char *detail);
/* The same, out of an errno (positive). */
void probe_fail(struct probe_target *t, int error);
/* Watch t->fd, edge-triggered. */
void probe_watch(struct probe_target *t, uint32_t events);
int probe_socket_error(int fd); /* positive errno, or 0 */
enum probe_result probe_result_of(int error);
/* Gives the place to the first in the queue, which starts in its own turn. */
void gate_leave(struct gate *g);
/*
 * When it has had its time.  A machine that boots loses the first packet, so
 * while joining one that isn't answered is given up early and sent again;
 * every so many times it gets all of the timeout, for those far away.
 */
uint64_t probe_first_deadline(struct probe_target *t);
uint64_t probe_deadline(const struct probe_target *t);

/* stream.c, for web.c: connects; `connected` when it is. */
void stream_start(struct probe_target *t);
void stream_event(struct probe_target *t, uint32_t events,
		  void (*connected)(struct probe_target *t));

void web_free(struct web *w); /* NULL is fine */
void commands_kill(struct prober *p); /* all that run */

#endif
