/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The balancer's program and a model of it written from the design get the
 * same random packets through the same random changes, and must agree on
 * every verdict, byte, memory and counter.
 *
 *   differential_test [--object FILE] [--seconds N] [--seed N]
 *                     [--history N] [--only NAME] [--slow] [--first]
 *
 * Each history is a little world of its own: services, backends, flows, and
 * some thousand packets between changes.  It depends on the seed and its own
 * number only, so that --seed and --history run a failed one again; --slow
 * then looks at all counters after each packet.  --first ends with the first
 * kind of history that fails.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/ip.h"
#include "tables/tables.h"
#include "tests/lib/bpf_lab.h"
#include "tests/lib/packet_make.h"
#include "tests/lib/packet_model.h"

#define SERVICES 4
#define MEMBERS 5 /* backends of a service */
#define FLOWS 24
#define STEPS 3000 /* of a history */
#define REGION 1024 /* slots that a service can grow to */
#define SCHEDULES (SERVICES * REGION) /* where the schedules begin */
#define SCHEDULE_LOG2 5
#define SLOTS (2 * SERVICES * REGION)
#define IDLE 12 /* ticks after which a silent flow may be forgotten */
#define CHECK_EVERY 256 /* packets between looks at the slow counters */

enum style {
	STYLE_MAGLEV,
	STYLE_SOURCE_HASH,
	STYLE_SCHEDULE,
	STYLE_RANDOM,
	STYLE_TWO_CHOICES,
	STYLES
};

struct service {
	struct xlb_vip vip;
	enum style style;
	uint32_t members[MEMBERS];
	uint8_t log2;
	uint8_t families; /* of its backends' addresses */
	uint8_t rehashed; /* low byte of now when it began to hash otherwise */
};

/* A client's side of a connection. */
struct flow {
	unsigned int service;
	uint8_t client[16];
	uint16_t port;
	uint32_t seq; /* of its next segment */
	uint32_t syn_seq;
	uint8_t syn_data;
	uint32_t fragment_id;
	/* What its servers know, in histories that obey the rules. */
	enum {
		FLOW_IDLE,
		FLOW_SYN_SENT,
		FLOW_LOST, /* two backends have answered; see the design */
		FLOW_OPEN,
	} state;
	uint32_t owner;
	uint32_t heard; /* control.now when it last spoke */
};

/* What histories of one kind are made of. */
struct kind {
	const char *name;
	uint8_t flow_log2; /* few lines: flows meet in them */
	bool lawful; /* changes are those that the reconciler would make */
	bool drained; /* half-open memories are past their rate, often */
	uint32_t share; /* of the time, in parts */
	bool tc; /* through the program for tc */
};

static const struct kind kinds[] = {
	{ "any word, any change", 10, false, false, 4, false },
	{ "crowded lines of memory", 2, false, false, 3, false },
	{ "past the rate of half-open memories", 10, false, true, 1, false },
	{ "lawful changes: no connection moves", 10, true, false, 3, false },
	{ "tc: any word, any change", 10, false, false, 2, true },
	{ "tc: lawful changes: no connection moves", 10, true, false, 1, true },
};

struct world {
	const struct kind *kind;
	struct bpf_lab lab;
	struct model model;
	uint32_t cpu;
	uint64_t rng;
	struct service services[SERVICES];
	unsigned int service_count;
	struct flow flows[FLOWS];
	uint8_t moved[SLOTS]; /* low byte of now when the slot began to move */
	uint64_t history;
	uint64_t steps;
	uint8_t frame[PACKET_MAX], out[PACKET_MAX];
	struct model_due due;
	/* Of all histories. */
	uint64_t packets, changes, opened, rehashed;
	uint64_t drops[XLB_DROP_MAX], events[XLB_EVENT_MAX];
};

struct options {
	const char *object, *only;
	bool slow, first;
	double seconds;
	uint64_t seed;
	int64_t history;
};

static struct options options = { .seconds = 40, .history = -1 };
static int cpu; /* that all of it runs on */

static uint32_t below(struct world *w, uint32_t n)
{
	return random_below(&w->rng, n);
}

static bool once_in(struct world *w, uint32_t n)
{
	return random_once_in(&w->rng, n);
}

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- the tables of both --- */

static void set_word(struct world *w, uint32_t slot, uint32_t word)
{
	w->model.slots[slot] = word;
	w->lab.slots[slot] = word;
}

static void set_backend(struct world *w, uint32_t id,
			const struct xlb_backend *be)
{
	w->model.backends[id] = *be;
	w->lab.tables->backends[id] = *be;
}

static void set_now(struct world *w, uint32_t now)
{
	w->model.now = now;
	w->lab.tables->control.now = now;
}

/* Everything under one seed of its own, as the other copy. */
static int flip(struct world *w)
{
	static struct vip_table table;
	int err;

	for (unsigned int i = 0; i < w->service_count; i++)
		w->model.vips[i] = w->services[i].vip;
	w->model.vip_count = w->service_count;
	err = vip_table_build(w->model.vips, w->model.vip_count,
			      random_next(&w->rng), &table);
	if (!err)
		bpf_lab_flip(&w->lab, &table);
	return err;
}

static int declare_addresses(struct world *w)
{
	bpf_lab_clear(w->lab.addresses, sizeof(struct xlb_address_key));
	for (unsigned int i = 0; i < w->service_count; i++) {
		const struct xlb_vip *v = &w->services[i].vip;
		struct xlb_address_key key = { .family = v->family };
		uint32_t one = 1;

		memcpy(key.addr, v->addr, sizeof(key.addr));
		if (bpf_map_update_elem(w->lab.addresses, &key, &one, BPF_ANY))
			return -errno;
	}
	return 0;
}

/* This host's addresses, as outer sources of gue; 0: none. */
static void set_sources(struct world *w, bool v4, bool v6)
{
	static const uint8_t source6[16] = { 0x20, 1, 0x0d, 0xb8, [15] = 9 };
	struct xlb_control *control = &w->lab.tables->control;

	w->model.source4 = v4 ? htonl(0xc0000201) : 0;
	memset(w->model.source6, 0, sizeof(w->model.source6));
	if (v6)
		memcpy(w->model.source6, source6, sizeof(source6));
	control->source4 = w->model.source4;
	memcpy(control->source6, w->model.source6, sizeof(control->source6));
}

/* --- random worlds --- */

/* A MAC that says whose it is: seen_backend() reads it. */
static void make_hop(struct world *w, uint32_t id, uint8_t family, __u64 l2[2])
{
	uint8_t b[16] = { 2,
			  (uint8_t)below(w, 256),
			  (uint8_t)(id >> 8),
			  (uint8_t)id,
			  family,
			  7 };
	uint32_t ifindex =
		once_in(w, 2) ? (uint32_t)w->lab.ifindex : 2 + below(w, 9);

	memcpy(b + 6, "\2\1\2\3\4\5", 6);
	memcpy(b + 12, &ifindex, 4);
	memcpy(l2, b, 16);
}

/* families: bit 0: it has an IPv4 address, bit 1: an IPv6 one. */
static void make_backend(struct world *w, uint32_t id, uint8_t generation,
			 bool plain, uint8_t families)
{
	struct xlb_backend be = { .mtu = 1500, .generation = generation };
	struct ip a4 = { .family = AF_INET }, a6 = { .family = AF_INET6 };

	for (int i = 0; i < 16; i++)
		a6.bytes[i] = (uint8_t)below(w, 256);
	a6.bytes[14] = (uint8_t)(id >> 8);
	a6.bytes[15] = (uint8_t)id;
	memcpy(a4.bytes,
	       (uint8_t[]){ 10, a6.bytes[0], a6.bytes[14], a6.bytes[15] }, 4);
	be.addr4 = a4.words[0];
	be.sum4 = ip_sum(&a4);
	memcpy(be.addr6, a6.words, 16);
	be.sum6 = ip_sum(&a6);
	if (!(families & 1)) {
		be.addr4 = 0;
		be.sum4 = 0;
	}
	if (!(families & 2)) {
		memset(be.addr6, 0, 16);
		be.sum6 = 0;
	}
	be.port = once_in(w, 3) ? htons((uint16_t)(1 + below(w, 65535))) : 0;
	make_hop(w, id, 4, be.l2_v4);
	make_hop(w, id, 6, be.l2_v6);
	be.flags = below(w, 2) ? XLB_BACKEND_TX : 0;
	if (!w->kind->lawful && once_in(w, 6))
		be.flags |= XLB_BACKEND_LEAVING;
	if (!plain && once_in(w, 8))
		be.flags |= XLB_BACKEND_STACK;
	if (!plain && once_in(w, 16))
		memset(be.l2_v4, 0, 16);
	if (!plain && once_in(w, 16))
		memset(be.l2_v6, 0, 16);
	if (!plain && once_in(w, 8))
		be.mtu = once_in(w, 2) ? 0 : (uint16_t)(68 + below(w, 600));
	set_backend(w, id, &be);
	w->model.loads[id] =
		(struct xlb_load){ below(w, 1000), 1 + below(w, 100) };
	w->lab.tables->loads[id] = w->model.loads[id];
}

/* From clients' slots to flows' or back: the old flows are found otherwise. */
static bool rehashes(const struct service *s)
{
	uint16_t clients = s->vip.flags & XLB_VIP_CLIENT;

	return clients && clients != XLB_VIP_CLIENT;
}

static bool tracks_all(const struct service *s)
{
	return s->vip.flags & (XLB_VIP_STICKY | XLB_VIP_PICKS) || rehashes(s);
}

static uint32_t any_member(struct world *w, const struct service *s)
{
	return s->members[below(w, MEMBERS)];
}

static uint32_t hand_word(struct world *w, const struct service *s)
{
	uint32_t cur = any_member(w, s), prev = any_member(w, s);
	uint32_t state = below(w, 4);

	if (once_in(w, 24) &&
	    !(s->vip.flags & (XLB_VIP_RANDOM | XLB_VIP_TWO_CHOICES)))
		cur = 0;
	if (once_in(w, 24))
		prev = 0;
	if (state == XLB_REST && tracks_all(s))
		state = XLB_SETTLED;
	if (s->vip.proto == IPPROTO_UDP && !(s->vip.flags & XLB_VIP_STICKY))
		state = tracks_all(s) ? XLB_SETTLED : XLB_REST;
	if (state == XLB_REST || state == XLB_SETTLED)
		prev = cur;
	return XLB_SLOT(cur, prev, state);
}

static void lawful_word(struct world *w, const struct service *s, uint32_t slot)
{
	uint32_t id = any_member(w, s);

	set_word(w, slot,
		 XLB_SLOT(id, id, tracks_all(s) ? XLB_SETTLED : XLB_REST));
}

static void fill_slots(struct world *w, const struct service *s)
{
	for (uint32_t i = 0; i < 1U << s->log2; i++) {
		if (w->kind->lawful)
			lawful_word(w, s, s->vip.slot_base + i);
		else
			set_word(w, s->vip.slot_base + i, hand_word(w, s));
	}
	for (uint32_t i = 0; i < 1U << SCHEDULE_LOG2; i++) {
		uint32_t id = !w->kind->lawful && once_in(w, 16)
				      ? 0
				      : any_member(w, s);

		set_word(w, s->vip.schedule_base + i,
			 XLB_SLOT(id, id, XLB_REST));
	}
}

static uint16_t style_flags(const struct service *s)
{
	static const uint16_t flags[STYLES] = {
		[STYLE_SOURCE_HASH] = XLB_VIP_CLIENT,
		[STYLE_SCHEDULE] = XLB_VIP_SCHEDULE,
		[STYLE_RANDOM] = XLB_VIP_RANDOM,
		[STYLE_TWO_CHOICES] = XLB_VIP_TWO_CHOICES | XLB_VIP_COUNTED,
	};

	return flags[s->style] |
	       (s->vip.proto == IPPROTO_UDP ? s->vip.flags & XLB_VIP_STICKY
					    : 0);
}

static void make_vip(struct world *w, struct service *s, unsigned int n)
{
	struct ip a = { .family = once_in(w, 2) ? AF_INET : AF_INET6 };
	size_t len = a.family == AF_INET ? 4 : 16;

	for (size_t i = 0; i < len; i++)
		a.bytes[i] = (uint8_t)below(w, 256);
	a.bytes[0] = a.family == AF_INET ? 198 : 0x20;
	s->vip = (struct xlb_vip){
		.port = htons((uint16_t)(1 + below(w, 65535))),
		.proto = once_in(w, 3) ? IPPROTO_UDP : IPPROTO_TCP,
		.family = a.family == AF_INET ? 4 : 6,
		.service = (uint16_t)(n + 1 + below(w, 200) * SERVICES),
		.target_port = htons((uint16_t)(1 + below(w, 65535))),
		.addr_sum = ip_sum(&a),
		.forwarding = (uint8_t)(below(w, 2) ? XLB_NAT : below(w, 4)),
		.slot_base = n * REGION,
		.slot_shift = (uint8_t)(32 - s->log2),
		.schedule_base = SCHEDULES + n * REGION,
		.schedule_shift = 32 - SCHEDULE_LOG2,
		.affinity_ticks = (uint8_t)(1 + below(w, 20)),
	};
	s->families = 3;
	if (s->vip.forwarding == XLB_IPIP || s->vip.forwarding == XLB_GUE)
		s->families = (uint8_t)(1 + below(w, 3));
	memcpy(s->vip.addr, a.words, len);
	s->vip.port_sum = packet_sum((uint16_t[]){ (uint16_t)~s->vip.port,
						   s->vip.target_port },
				     4, 0);
	if (s->vip.proto == IPPROTO_UDP && once_in(w, 2))
		s->vip.flags |= XLB_VIP_STICKY;
	s->vip.flags |= style_flags(s);
	/* As while the algorithm is changed from or to hashing the client. */
	if (!w->kind->lawful && s->vip.proto == IPPROTO_TCP && once_in(w, 4))
		s->vip.flags ^= XLB_VIP_CLIENT_OLD;
}

/* Past the rate a SYN may or may not take its turn, which can't be seen. */
static enum style any_pick(struct world *w)
{
	return w->kind->drained ? STYLE_RANDOM + below(w, 2)
				: STYLE_SCHEDULE + below(w, 3);
}

static void make_service(struct world *w, unsigned int n)
{
	struct service *s = &w->services[n];

	s->log2 = (uint8_t)(2 + below(w, 5));
	s->style = below(w, 3) ? below(w, 2) : any_pick(w);
	/* A client's memory is to have another line than its flows'. */
	if (s->style == STYLE_SOURCE_HASH && w->kind->flow_log2 <= s->log2)
		s->log2 = 1;
	make_vip(w, s, n);
	for (unsigned int i = 0; i < MEMBERS; i++) {
		/* Ids from everywhere, but no two services share one. */
		s->members[i] = 1 + (n * MEMBERS + i) +
				below(w, 1500) * SERVICES * MEMBERS;
		/* What is picked must not be known by where it goes. */
		make_backend(w, s->members[i], (uint8_t)below(w, 256),
			     w->kind->lawful || w->kind->drained ||
				     tracks_all(s),
			     s->families);
	}
	fill_slots(w, s);
}

static struct model_key flow_key(const struct world *w, const struct flow *f)
{
	const struct xlb_vip *v = &w->services[f->service].vip;
	struct model_key key = { .kind = KEY_FLOW,
				 .family = v->family,
				 .proto = v->proto,
				 .client_port = f->port,
				 .vip_port = v->port };

	memcpy(key.client, f->client, 16);
	memcpy(key.vip, v->addr, 16);
	return key;
}

/* Where nothing is crowded, each flow and each client has its own line. */
static bool line_is_taken(const struct world *w, const struct flow *f,
			  uint8_t *taken)
{
	struct model_key key = flow_key(w, f), client = key;
	uint32_t line = model_line_of(&w->model, model_hash(&w->model, &key));
	uint32_t other;

	client.kind = KEY_CLIENT;
	client.client_port = client.vip_port = 0;
	other = model_line_of(&w->model, model_hash(&w->model, &client));
	if (line == other)
		return true;
	if (w->kind->flow_log2 < 10)
		return false;
	if (taken[line] || taken[other])
		return true;
	taken[line] = taken[other] = 1;
	return false;
}

static void make_flow(struct world *w, struct flow *f, uint8_t *taken)
{
	do {
		*f = (struct flow){ .service = below(w, w->service_count) };
		for (int i = 0;
		     i < (w->services[f->service].vip.family == 4 ? 4 : 16);
		     i++)
			f->client[i] = (uint8_t)below(w, 256);
		f->port = (uint16_t)below(w, 65536);
		f->syn_seq = f->seq = (uint32_t)random_next(&w->rng);
	} while (line_is_taken(w, f, taken));
}

/* Without one gue drops, which hides what was picked. */
static void choose_sources(struct world *w)
{
	bool needed = w->kind->lawful || w->kind->drained;

	for (unsigned int i = 0; i < w->service_count; i++)
		needed |= tracks_all(&w->services[i]);
	set_sources(w, needed || !once_in(w, 4), needed || !once_in(w, 4));
}

static int make_world(struct world *w, uint64_t seed, uint64_t history)
{
	uint8_t taken[1 << 10] = { 0 };
	int err;

	w->history = history;
	w->rng = seed ^ history * 0xd1342543de82ef95;
	memset(w->lab.lines, 0, sizeof(*w->lab.lines) * w->lab.line_count);
	memset(w->moved, 0, sizeof(w->moved));
	bpf_lab_clear(w->lab.fragments, sizeof(struct xlb_fragment_key));
	model_reset(&w->model);
	set_now(w, below(w, 1000));
	w->service_count = 1 + below(w, SERVICES);
	for (unsigned int i = 0; i < w->service_count; i++)
		make_service(w, i);
	for (unsigned int i = 0; i < FLOWS; i++)
		make_flow(w, &w->flows[i], taken);
	choose_sources(w);
	err = declare_addresses(w);
	if (!err)
		err = flip(w);
	w->model.drained = w->kind->drained;
	return err;
}

/* --- changes --- */

static enum slot_fate fate(const void *arg, uint32_t id)
{
	return id == *(const uint32_t *)arg ? SLOT_GONE : SLOT_STAYS;
}

static enum slot_kind slot_kind(const struct service *s)
{
	if (s->vip.proto == IPPROTO_TCP || s->vip.flags & XLB_VIP_STICKY)
		return tracks_all(s) ? SLOTS_TRACKED : SLOTS_HASHED;
	return tracks_all(s) ? SLOTS_PICKED : SLOTS_FORGETFUL;
}

static bool word_moves(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

/* By the rules of the reconciler; gone: a backend that died, or 0. */
static void plan_word(struct world *w, const struct service *s, uint32_t slot,
		      uint32_t want, uint32_t gone)
{
	const struct slot_rules rules = {
		.kind = slot_kind(s),
		.held = s->style == STYLE_SOURCE_HASH,
		.fate = fate,
		.arg = &gone,
	};
	uint32_t old = w->model.slots[slot];
	uint32_t word = slot_next(old, want, &rules);

	/* While it is held new flows at prev aren't remembered. */
	if (word_moves(word) && XLB_SLOT_STATE(word) != XLB_SLOT_STATE(old))
		w->moved[slot] = (uint8_t)w->model.now;
	set_word(w, slot, word);
}

static struct service *any_service(struct world *w)
{
	return &w->services[below(w, w->service_count)];
}

/* Some slots get other owners, as when a table is compiled anew. */
static int change_plan(struct world *w)
{
	const struct service *s = any_service(w);
	uint32_t part = 1 + below(w, 4);

	for (uint32_t i = 0; i < 1U << s->log2; i++)
		if (once_in(w, part))
			plan_word(w, s, s->vip.slot_base + i, any_member(w, s),
				  0);
	return 0;
}

static int change_words(struct world *w)
{
	const struct service *s = any_service(w);

	if (w->kind->lawful)
		return change_plan(w);
	for (uint32_t i = 0; i < 1U << s->log2; i++)
		if (once_in(w, 4))
			set_word(w, s->vip.slot_base + i, hand_word(w, s));
	return 0;
}

/* Also without a death: what is remembered of the id counts no more. */
static void bump(struct world *w, uint32_t id)
{
	struct xlb_backend be = w->model.backends[id];

	be.generation++;
	set_backend(w, id, &be);
	for (unsigned int i = 0; i < FLOWS; i++)
		if (w->flows[i].owner == id)
			w->flows[i].state = FLOW_IDLE;
}

static int change_death(struct world *w)
{
	const struct service *s = any_service(w);
	uint32_t gone = any_member(w, s);

	bump(w, gone);
	for (uint32_t i = 0; i < 1U << s->log2; i++) {
		uint32_t slot = s->vip.slot_base + i, want;
		uint32_t word = w->model.slots[slot];

		if (XLB_SLOT_CUR(word) != gone && XLB_SLOT_PREV(word) != gone)
			continue;
		do
			want = XLB_SLOT_CUR(word) == gone ? any_member(w, s)
							  : XLB_SLOT_CUR(word);
		while (want == gone);
		plan_word(w, s, slot, want, gone);
	}
	return 0;
}

static void forget(struct world *w, uint32_t line, int way)
{
	memset(&w->model.lines[line].way[way], 0, sizeof(struct model_memory));
	w->lab.lines[line].entry[way] = 0;
}

/* How long a memory of the service lasts, in ticks. */
static uint32_t lifetime(const struct service *s)
{
	uint32_t ticks = s->vip.affinity_ticks;

	return s->style == STYLE_SOURCE_HASH && ticks > IDLE ? ticks : IDLE;
}

static const struct service *service_of(const struct world *w,
					const struct model_key *key)
{
	unsigned int n = 0;

	while (n + 1 < w->service_count &&
	       memcmp(w->services[n].vip.addr, key->vip, 16) != 0)
		n++;
	return &w->services[n];
}

/* Which memories a sweep takes away. */
static bool sweep_takes(struct world *w, const struct model_memory *e)
{
	if (!w->kind->lawful && once_in(w, 16))
		return true;
	return !model_alive(&w->model, e) ||
	       (uint8_t)(w->model.now - e->time) >
		       lifetime(service_of(w, &e->key)) + 1;
}

static void sweep_memories(struct world *w)
{
	for (uint32_t line = 0; line < w->lab.line_count; line++)
		for (int way = 0; way < XLB_FLOW_WAYS; way++) {
			const struct model_memory *e =
				&w->model.lines[line].way[way];

			if (e->backend && sweep_takes(w, e))
				forget(w, line, way);
		}
}

/*
 * Is a flow of another backend than cur remembered in the slot's lines?  In
 * any line of the service, where the slot is the client's.
 */
static bool slot_is_remembered(const struct world *w, const struct service *s,
			       uint32_t i)
{
	uint32_t cur = XLB_SLOT_CUR(w->model.slots[s->vip.slot_base + i]);
	bool any = s->vip.flags & XLB_VIP_CLIENT;
	uint32_t n = 1U << (w->kind->flow_log2 - (any ? 0 : s->log2));

	i = any ? 0 : i;
	for (uint32_t line = i * n; line < (i + 1) * n; line++)
		for (int way = 0; way < XLB_FLOW_WAYS; way++) {
			const struct model_memory *e =
				&w->model.lines[line].way[way];

			if (e->backend && e->backend != cur &&
			    (!any || service_of(w, &e->key) == s))
				return true;
		}
	return false;
}

static void sweep_slot(struct world *w, const struct service *s, uint32_t i)
{
	uint32_t slot = s->vip.slot_base + i, word = w->model.slots[slot];
	uint32_t cur = XLB_SLOT_CUR(word);
	uint8_t since = (uint8_t)(w->model.now - w->moved[slot]);

	if (XLB_SLOT_STATE(word) == XLB_HELD && since > s->vip.affinity_ticks) {
		/* Until now flows began at prev without being remembered. */
		set_word(w, slot,
			 XLB_SLOT(cur, XLB_SLOT_PREV(word), XLB_MOVING));
		w->moved[slot] = (uint8_t)w->model.now;
	} else if (XLB_SLOT_STATE(word) == XLB_MOVING && since > lifetime(s))
		set_word(w, slot, XLB_SLOT(cur, cur, XLB_SETTLED));
	else if (XLB_SLOT_STATE(word) == XLB_SETTLED && !tracks_all(s) &&
		 !slot_is_remembered(w, s, i))
		set_word(w, slot, XLB_SLOT(cur, cur, XLB_REST));
}

/* Every flow of before has spoken, and is remembered, or has run out. */
static int end_rehash(struct world *w, struct service *s)
{
	if (!rehashes(s) || (uint8_t)(w->model.now - s->rehashed) <= IDLE + 1)
		return 0;
	s->vip.flags ^= XLB_VIP_CLIENT_OLD;
	w->rehashed++;
	return flip(w);
}

static int change_sweep(struct world *w)
{
	for (unsigned int n = 0; w->kind->lawful && n < w->service_count; n++)
		if (end_rehash(w, &w->services[n]))
			return -1;
	sweep_memories(w);
	for (unsigned int n = 0; w->kind->lawful && n < w->service_count; n++)
		for (uint32_t i = 0; i < 1U << w->services[n].log2; i++)
			sweep_slot(w, &w->services[n], i);
	return 0;
}

static int change_time(struct world *w)
{
	bool far = !w->kind->lawful && once_in(w, 6);

	set_now(w, w->model.now + 1 + (far ? below(w, 250) : below(w, 2)));
	for (unsigned int i = 0; i < FLOWS; i++)
		if (w->model.now - w->flows[i].heard > IDLE)
			w->flows[i].state = FLOW_IDLE;
	/* The lawful clock is watched by a sweep at every tick. */
	return w->kind->lawful ? change_sweep(w) : 0;
}

static int change_flip(struct world *w)
{
	struct service *s = any_service(w);
	struct xlb_vip vip = s->vip;
	int err;

	if (w->kind->lawful || !once_in(w, 3))
		return flip(w);
	/* For a while the port is nobody's, or another's. */
	s->vip.port ^= htons(1);
	err = flip(w);
	if (s->style != STYLE_SOURCE_HASH && once_in(w, 2))
		return err;
	s->vip = vip;
	return err ? err : flip(w);
}

/* Twice the slots in another region, each where its half was. */
static int change_growth(struct world *w)
{
	struct service *s = any_service(w);
	uint32_t from = s->vip.slot_base, to = from ^ (REGION / 2);

	if (s->log2 >= 8 ||
	    (s->vip.flags & XLB_VIP_CLIENT && w->kind->lawful) ||
	    (s->style == STYLE_SOURCE_HASH &&
	     w->kind->flow_log2 <= s->log2 + 1))
		return 0;
	for (uint32_t i = 0; i < 2U << s->log2; i++) {
		set_word(w, to + i, w->model.slots[from + (i >> 1)]);
		w->moved[to + i] = w->moved[from + (i >> 1)];
	}
	s->log2++;
	s->vip.slot_base = to;
	s->vip.slot_shift--;
	return flip(w);
}

static int change_backend(struct world *w)
{
	const struct service *s = any_service(w);
	uint32_t id = any_member(w, s);
	struct xlb_backend be = w->model.backends[id];

	if (be.l2_v4[0])
		make_hop(w, id, 4, be.l2_v4);
	if (be.l2_v6[0])
		make_hop(w, id, 6, be.l2_v6);
	be.flags ^= once_in(w, 2) ? XLB_BACKEND_TX : 0;
	be.flags ^= once_in(w, 3) ? XLB_BACKEND_LEAVING : 0;
	set_backend(w, id, &be);
	return 0;
}

static uint8_t generation(const struct world *w, uint32_t id)
{
	return w->model.backends[id].generation;
}

/* From hashing to an algorithm that remembers everything, and back. */
static int change_style(struct world *w)
{
	struct service *s = any_service(w);

	if (s->style == STYLE_SOURCE_HASH || s->vip.proto == IPPROTO_UDP ||
	    (w->kind->lawful && rehashes(s)))
		return 0;
	s->style = s->style == STYLE_MAGLEV ? any_pick(w) : STYLE_MAGLEV;
	for (uint32_t i = 0; s->style != STYLE_MAGLEV && i < 1U << s->log2;
	     i++) {
		uint32_t word = w->model.slots[s->vip.slot_base + i];

		if (XLB_SLOT_STATE(word) == XLB_REST)
			set_word(w, s->vip.slot_base + i,
				 word | (uint32_t)XLB_SETTLED << 30);
	}
	s->vip.flags = style_flags(s);
	for (unsigned int i = 0; !w->kind->lawful && i < MEMBERS; i++)
		make_backend(w, s->members[i], generation(w, s->members[i]) + 1,
			     true, s->families);
	if (!w->kind->lawful)
		fill_slots(w, s);
	choose_sources(w);
	return flip(w);
}

/*
 * From maglev to source_hash or back, also before the last such change is
 * over: first the words are made ready, then new flows go by the other hash.
 */
static int change_hash(struct world *w)
{
	struct service *s = any_service(w);

	if (!w->kind->lawful || s->vip.proto == IPPROTO_UDP ||
	    s->style > STYLE_SOURCE_HASH)
		return 0;
	s->style = s->style == STYLE_MAGLEV ? STYLE_SOURCE_HASH : STYLE_MAGLEV;
	s->vip.flags ^= XLB_VIP_CLIENT_HASH;
	s->rehashed = (uint8_t)w->model.now;
	for (uint32_t i = 0; i < 1U << s->log2; i++) {
		uint32_t slot = s->vip.slot_base + i;

		plan_word(w, s, slot, XLB_SLOT_CUR(w->model.slots[slot]), 0);
	}
	return flip(w);
}

static int change_load(struct world *w)
{
	uint32_t id = any_member(w, any_service(w));

	w->model.loads[id].load = below(w, 2000);
	w->lab.tables->loads[id] = w->model.loads[id];
	return 0;
}

static int change_sources(struct world *w)
{
	choose_sources(w);
	return 0;
}

static int change_any(struct world *w)
{
	static int (*const changes[])(struct world *) = {
		change_plan,  change_plan,    change_words, change_words,
		change_death, change_sweep,   change_time,  change_time,
		change_time,  change_backend, change_load,  change_load,
		change_flip,  change_growth,  change_style, change_sources,
		change_hash,
	};

	w->changes++;
	return changes[below(w, sizeof(changes) / sizeof(changes[0]))](w);
}

/* --- packets --- */

static struct packet_spec spec_of(struct world *w, const struct flow *f)
{
	const struct xlb_vip *v = &w->services[f->service].vip;
	struct packet_spec p = {
		.family = v->family,
		.proto = v->proto,
		.sport = f->port,
		.dport = v->port,
		.hops = (uint8_t)(2 + below(w, 254)),
		.tos = (uint8_t)below(w, 256),
		.seq = f->seq,
		.flags = TCP_ACK,
		.df = once_in(w, 2),
		.fill = (uint8_t)below(w, 256),
	};

	memcpy(p.src, f->client, 16);
	memcpy(p.dst, v->addr, 16);
	return p;
}

static void any_oddity(struct world *w, struct packet_spec *p)
{
	/* Of a dropped SYN that has two memories too little can be seen, as of
	 * one past the rate. */
	bool syn = p->proto == IPPROTO_TCP && p->flags & TCP_SYN;

	if (once_in(w, 30) && !(syn && (p->payload || w->kind->drained)))
		p->hops = (uint8_t)below(w, 2);
	if (once_in(w, 30))
		p->tcp_options = (uint8_t)below(w, 11);
	if (once_in(w, 60) && !syn)
		p->payload = 1300 + below(w, 160);
	if (once_in(w, 16)) {
		p->tags = below(w, 4);
		p->tag[0] = (uint16_t)below(w, 65536);
		p->tag[1] = (uint16_t)below(w, 65536);
	}
	if (once_in(w, 16))
		p->ip_options = (uint8_t)below(w, 11);
	if (once_in(w, 16))
		p->extensions = below(w, 6);
	if (once_in(w, 100))
		p->dport ^= htons(2); /* nobody's */
	if (once_in(w, 100))
		p->dst[1] ^= 0x40;
	p->no_csum = p->family == 4 && once_in(w, 4);
}

/* A segment of a connection as a client sends it. */
static void any_segment(struct world *w, struct flow *f, struct packet_spec *p)
{
	switch (below(w, 12)) {
	case 0:
	case 1: /* a new connection */
		f->syn_seq = (uint32_t)random_next(&w->rng);
		f->syn_data = !w->kind->drained && once_in(w, 4)
				      ? (uint8_t)below(w, 64)
				      : 0;
		f->seq = f->syn_seq + 1;
		/* fall through */
	case 2: /* or the same again */
		p->flags = TCP_SYN;
		p->seq = f->syn_seq;
		p->payload = f->syn_data;
		break;
	case 3: /* the server took the data */
		p->seq = f->syn_seq + 1 + f->syn_data;
		break;
	case 4: /* forged */
		p->seq = (uint32_t)random_next(&w->rng);
		p->flags = once_in(w, 2) ? TCP_SYN : TCP_ACK;
		break;
	case 5:
		p->flags =
			(uint8_t)(once_in(w, 2) ? TCP_RST : TCP_FIN | TCP_ACK);
		break;
	case 6: /* any flags at all */
		p->flags = (uint8_t)below(w, 256);
		break;
	default:
		p->payload = below(w, 2) ? below(w, 200) : 0;
		f->seq += (uint32_t)p->payload;
		break;
	}
}

static void error_oddity(struct world *w, struct packet_spec *p)
{
	if (once_in(w, 10))
		p->code = (uint8_t)below(w, 3);
	if (once_in(w, 12))
		p->ip_options = (uint8_t)below(w, 11);
	if (once_in(w, 12))
		p->extensions = below(w, 6);
	if (once_in(w, 12))
		p->hops = (uint8_t)below(w, 2);
	if (once_in(w, 30))
		p->dst[1] ^= 0x40;
	if (once_in(w, 12)) {
		p->tags = below(w, 4);
		p->tag[0] = (uint16_t)below(w, 65536);
		p->tag[1] = (uint16_t)below(w, 65536);
	}
}

/* An error of some router about an answer of this flow. */
static size_t make_error(struct world *w, const struct flow *f, uint8_t *frame)
{
	static const uint8_t types4[] = { 3, 4, 11, 12, 0, 8 };
	static const uint8_t types6[] = { 1, 2, 3, 4, 128, 135 };
	struct packet_spec answer = spec_of(w, f), p = answer;
	uint8_t quoted[PACKET_MAX];
	uint32_t kind = below(w, 6);
	size_t size, least = 14 + 40;

	memcpy(answer.src, p.dst, 16);
	memcpy(answer.dst, p.src, 16);
	answer.sport = p.dport;
	answer.dport = p.sport;
	answer.payload = below(w, 80);
	answer.no_csum = p.family == 4 && once_in(w, 4);
	size = packet_make(&answer, quoted) - 14;
	if (once_in(w, 2))
		size = (p.family == 4 ? 28 : 48) + below(w, 16);
	if (size > answer.payload + 60)
		size = (p.family == 4 ? 28 : 48);
	p.proto = p.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	p.type = p.family == 4 ? types4[kind] : types6[kind];
	p.quote = quoted + 14;
	p.quote_size = size;
	p.src[3] ^= 0x55;
	error_oddity(w, &p);
	size = packet_make(&p, frame);
	return once_in(w, 16) ? least + below(w, (uint32_t)(size - least))
			      : size;
}

static size_t make_fragment(struct world *w, struct flow *f, uint8_t *frame)
{
	struct packet_spec p = spec_of(w, f);

	if (once_in(w, 2))
		f->fragment_id = below(w, 0x10000);
	p.fragment = true;
	p.fragment_id = f->fragment_id;
	p.later = once_in(w, 2);
	p.payload = 8 + 8 * below(w, 40);
	return packet_make(&p, frame);
}

static size_t make_any(struct world *w, struct flow *f, uint8_t *frame)
{
	struct packet_spec p = spec_of(w, f);
	struct packet_view v;
	size_t size, least;

	if (once_in(w, 24))
		return make_error(w, f, frame);
	if (once_in(w, 24))
		return make_fragment(w, f, frame);
	if (p.proto == IPPROTO_TCP)
		any_segment(w, f, &p);
	else
		p.payload = below(w, 300);
	any_oddity(w, &p);
	size = packet_make(&p, frame);
	/* The kernel tests no program for tc with less than an IP header. */
	least = w->kind->tc ? 14 + 40 : 14;
	if (once_in(w, 60) && size > least)
		size = least + below(w, (uint32_t)(size - least));
	packet_view(frame, size, &v);
	/* Not in the ports: that would be another flow, of any line. */
	if (once_in(w, 60) && v.reach == REACH_PORTS && size > v.l4 + 4)
		frame[v.l4 + 4 + below(w, (uint32_t)(size - v.l4 - 4))] ^=
			(uint8_t)(1 + below(w, 255));
	return size;
}

/* Only what a peer, or a forger who can't see its numbers, would send. */
static size_t make_lawful(struct world *w, struct flow *f, uint8_t *frame)
{
	struct packet_spec p = spec_of(w, f);

	p.payload = below(w, 2) ? below(w, 100) : 0;
	if (f->state == FLOW_IDLE) {
		f->syn_seq = (uint32_t)random_next(&w->rng);
		f->seq = f->syn_seq + 1;
	}
	if (f->state == FLOW_IDLE ||
	    (f->state == FLOW_SYN_SENT && once_in(w, 3))) {
		p.flags = TCP_SYN;
		p.seq = f->syn_seq;
		p.payload = 0;
	} else if (f->state == FLOW_OPEN && once_in(w, 8)) {
		p.seq = (uint32_t)random_next(&w->rng);
		p.flags = once_in(w, 2) ? TCP_SYN : TCP_ACK;
	} else {
		f->seq += (uint32_t)p.payload;
	}
	return packet_make(&p, frame);
}

/* --- the comparison --- */

static bool complain(const struct world *w, const char *what)
{
	printf("# history %llu, packet %llu: %s\n",
	       (unsigned long long)w->history, (unsigned long long)w->steps,
	       what);
	return false;
}

static void print_frame(const char *name, const uint8_t *frame, size_t size)
{
	printf("# %s %zu:", name, size);
	for (size_t i = 0; i < size && i < 160; i++)
		printf("%s%02x", i % 4 == 2 ? " " : "", frame[i]);
	puts("");
}

static void print_lines(const struct world *w)
{
	for (unsigned int n = 0; n < w->due.lines; n++) {
		uint32_t line = w->due.line[n];

		for (int i = 0; i < XLB_FLOW_WAYS; i++)
			printf("# line %u way %d: %016llx, the model %016llx\n",
			       line, i,
			       (unsigned long long)w->lab.lines[line].entry[i],
			       (unsigned long long)model_word(
				       &w->model.lines[line].way[i]));
	}
}

static uint32_t seen_backend(const struct world *w, enum lab_verdict verdict,
			     const uint8_t *frame, size_t size)
{
	struct packet_view v;

	if (verdict == LAB_TX || verdict == LAB_REDIRECT)
		return frame[0] == 2 ? (uint32_t)(frame[2] << 8 | frame[3]) : 0;
	packet_view(frame, size, &v);
	if (verdict != LAB_PASS || !memcmp(frame, w->frame, size) ||
	    v.reach < REACH_IP)
		return 0;
	return v.family == 4 ? (uint32_t)(v.dst[2] << 8 | v.dst[3])
			     : (uint32_t)(v.dst[14] << 8 | v.dst[15]);
}

/* The answer "too big" quotes what came, and says the right size. */
static const char *check_too_big(const struct world *w, size_t in_size,
				 size_t size)
{
	struct packet_view was, is;
	uint32_t mtu;
	size_t quote;

	packet_view(w->frame, in_size, &was);
	packet_view(w->out, size, &is);
	quote = is.l4 + 8;
	if (is.reach != REACH_PROTO || is.family != was.family ||
	    is.proto != (was.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) ||
	    !packet_csums_good(&is) || quote + 48 > size)
		return "the answer 'too big' is none";
	if (memcmp(is.src, was.dst, 16) != 0 ||
	    memcmp(is.dst, was.src, 16) != 0 ||
	    memcmp(w->out, w->frame + 6, 6) != 0 ||
	    memcmp(w->out + 6, w->frame, 6) != 0)
		return "the answer 'too big' goes astray";
	memcpy(&mtu, w->out + is.l4 + 4, 4);
	if (w->out[is.l4] != (was.family == 4 ? 3 : 2) ||
	    ntohl(mtu) != w->due.mtu)
		return "the answer 'too big' says another size";
	if (memcmp(w->out + quote, w->frame + was.l3, size - quote) != 0)
		return "the answer 'too big' quotes something else";
	return NULL;
}

static bool compare_lines(const struct world *w)
{
	for (unsigned int n = 0; n < w->due.lines; n++) {
		uint32_t line = w->due.line[n];

		for (int i = 0; i < XLB_FLOW_WAYS; i++)
			if (w->lab.lines[line].entry[i] !=
			    model_word(&w->model.lines[line].way[i]))
				return false;
	}
	return true;
}

/*
 * A tag that a program for tc gives back stands beside the packet then, where
 * a test doesn't see it.
 */
static bool is_due(const struct world *w, enum lab_verdict verdict, size_t size)
{
	const struct model_due *due = &w->due;

	if (size == due->size)
		return !memcmp(w->out, due->frame, size);
	return w->kind->tc && (verdict == LAB_PASS || due->answer) &&
	       size + 4 == due->size && !memcmp(w->out, due->frame, 12) &&
	       !memcmp(w->out + 12, due->frame + 16, size - 12);
}

static const char *compare(const struct world *w, size_t in_size,
			   enum lab_verdict verdict, size_t size)
{
	const struct model_due *due = &w->due;
	const struct xlb_counter *is =
		&w->lab.counters[w->cpu * XLB_BACKENDS + due->backend];
	const struct xlb_counter *should = &w->model.counters[due->backend];

	if (due->illegal)
		return due->illegal;
	if (verdict != due->verdict)
		return "another verdict";
	if (due->mtu)
		return check_too_big(w, in_size, size);
	if (verdict != LAB_DROP && !is_due(w, verdict, size))
		return "another packet";
	if (!compare_lines(w))
		return "another memory";
	if (is->packets != should->packets || is->bytes != should->bytes ||
	    is->flows != should->flows)
		return "counted otherwise";
	return NULL;
}

static bool explain(const struct world *w, const char *why, size_t in_size,
		    enum lab_verdict verdict, size_t size)
{
	complain(w, why);
	printf("# verdict %d backend %u, the model %d backend %u reason %d\n",
	       verdict, seen_backend(w, verdict, w->out, size), w->due.verdict,
	       w->due.backend, w->due.reason);
	for (unsigned int n = 0; n < w->service_count; n++) {
		const struct service *s = &w->services[n];

		printf("# service %u: style %d, flags %04x, %u slots\n", n,
		       s->style, s->vip.flags, 1U << s->log2);
	}
	printf("# now %02x, slot word %08x\n", w->model.now & 0xff,
	       w->due.word);
	print_frame("in", w->frame, in_size);
	print_frame("out", w->out, size);
	print_frame("due", w->due.frame, w->due.size);
	print_lines(w);
	return false;
}

/* What is counted by CPU is looked at now and then: each look is a call. */
static bool compare_slow(struct world *w)
{
	uint64_t drops[XLB_DROP_MAX], events[XLB_EVENT_MAX];

	if (bpf_lab_percpu(w->lab.drops, drops, XLB_DROP_MAX) ||
	    bpf_lab_percpu(w->lab.events, events, XLB_EVENT_MAX))
		return complain(w, "counters can't be read");
	for (uint32_t i = 0; i < XLB_DROP_MAX; i++)
		if (drops[i] - w->drops[i] != w->model.drops[i]) {
			printf("# drops of reason %u: %llu, the model %llu\n",
			       i, (unsigned long long)(drops[i] - w->drops[i]),
			       (unsigned long long)w->model.drops[i]);
			return complain(w, "dropped for another reason");
		}
	/* Who is past the rate is counted by the score. */
	for (uint32_t i = 0; i < XLB_EVENT_MAX; i++)
		if (!w->kind->drained &&
		    events[i] - w->events[i] != w->model.events[i]) {
			printf("# events %u: %llu, the model %llu\n", i,
			       (unsigned long long)(events[i] - w->events[i]),
			       (unsigned long long)w->model.events[i]);
			return complain(w, "events counted otherwise");
		}
	return true;
}

static bool compare_loads(struct world *w)
{
	for (unsigned int n = 0; n < w->service_count; n++)
		for (unsigned int i = 0; i < MEMBERS; i++) {
			uint32_t id = w->services[n].members[i];

			if (w->lab.tables->loads[id].load !=
			    w->model.loads[id].load)
				return complain(w, "another load");
		}
	return true;
}

/* --- histories --- */

/* A connection's packets all reach the backend that has it. */
static bool follow_flow(struct world *w, struct flow *f)
{
	struct packet_view v;
	uint32_t id = w->due.backend;
	bool syn;

	packet_view(w->frame, PACKET_MAX, &v);
	syn = w->frame[v.l4 + 13] & TCP_SYN;
	if (f->state == FLOW_OPEN && (syn || w->frame[v.l4 + 13] != TCP_ACK))
		return true; /* forged */
	if (f->state == FLOW_OPEN || (f->state == FLOW_SYN_SENT && !syn)) {
		if (id != f->owner) {
			printf("# backend %u has it, %u got it\n", f->owner,
			       id);
			return complain(w, "a connection moved");
		}
		w->opened += f->state != FLOW_OPEN;
		f->state = FLOW_OPEN;
	} else if (f->state == FLOW_IDLE) {
		f->state = id ? FLOW_SYN_SENT : FLOW_IDLE;
		f->owner = id;
	} else if (f->state == FLOW_SYN_SENT && id != f->owner) {
		f->state = FLOW_LOST;
	} else if (f->state == FLOW_LOST && once_in(w, 8)) {
		f->state = FLOW_IDLE;
	}
	f->heard = w->model.now;
	return true;
}

static bool step_packet(struct world *w)
{
	struct flow *f = &w->flows[below(w, FLOWS)];
	bool lawful = w->kind->lawful &&
		      w->services[f->service].vip.proto == IPPROTO_TCP;
	size_t in_size = (lawful ? make_lawful : make_any)(w, f, w->frame);
	size_t size = 0;
	struct model_seen seen = { .frame = w->out,
				   .lines = w->lab.lines,
				   .loads = w->lab.tables->loads };
	const char *why;

	if (bpf_lab_run(&w->lab, w->frame, in_size, w->out, &size,
			&seen.verdict))
		return complain(w, "the program can't be run");
	seen.size = size;
	seen.backend = seen_backend(w, seen.verdict, w->out, size);
	model_packet(&w->model, w->frame, in_size, &seen, &w->due);
	w->packets++;
	why = compare(w, in_size, seen.verdict, size);
	if (why)
		return explain(w, why, in_size, seen.verdict, size);
	return lawful ? follow_flow(w, f) : true;
}

static bool refill(struct world *w)
{
	bool full = !w->kind->drained || once_in(w, 2);

	return !bpf_lab_tokens(&w->lab, full);
}

/* Counters go on from history to history; the model's begin with each. */
static bool begin(struct world *w)
{
	if (bpf_lab_percpu(w->lab.drops, w->drops, XLB_DROP_MAX) ||
	    bpf_lab_percpu(w->lab.events, w->events, XLB_EVENT_MAX))
		return complain(w, "tables can't be cleared");
	for (unsigned int n = 0; n < w->service_count; n++) {
		uint32_t service = w->services[n].vip.service;

		uint32_t key = w->cpu * XLB_SERVICES + service, zero = 0;

		w->model.cursors[service] = 0;
		if (bpf_map_update_elem(w->lab.cursors, &key, &zero, BPF_ANY))
			return complain(w, "no cursor");
	}
	memset(w->lab.counters + w->cpu * XLB_BACKENDS, 0,
	       sizeof(*w->lab.counters) * XLB_BACKENDS);
	return true;
}

static bool explain_slow(const struct world *w)
{
	if (options.slow)
		print_frame("in", w->frame, sizeof(w->frame));
	return false;
}

static bool run_history(struct world *w, uint64_t number)
{
	if (make_world(w, options.seed, number))
		return complain(w, "no world");
	if (!begin(w))
		return false;
	for (w->steps = 0; w->steps < STEPS; w->steps++) {
		if (w->steps % CHECK_EVERY == 0 && !refill(w))
			return complain(w, "no tokens");
		if ((options.slow || w->steps % CHECK_EVERY == 0) &&
		    (!compare_slow(w) || !compare_loads(w)))
			return explain_slow(w);
		if (once_in(w, 24) && change_any(w))
			return complain(w, "no change");
		if (!step_packet(w))
			return false;
	}
	if (!model_spread(&w->model))
		return complain(w, "all flows look the same outside");
	return compare_slow(w) && compare_loads(w);
}

static bool run_kind(const struct kind *kind, double seconds)
{
	const struct bpf_lab_config cfg = { .object = options.object,
					    .tc = kind->tc,
					    .flow_seed = 0x5eed5eed5eedULL,
					    .slots = SLOTS,
					    .flow_log2 = kind->flow_log2 };
	static struct world w;
	bool good = true;
	double end;
	uint64_t n = 0;

	memset(&w, 0, sizeof(w));
	w.kind = kind;
	w.cpu = (uint32_t)cpu;
	if (bpf_lab_open(&w.lab, &cfg) ||
	    model_init(&w.model, SLOTS, kind->flow_log2, cfg.flow_seed))
		return complain(&w, "the program can't be loaded");
	end = now_seconds() + seconds;
	w.model.tc = kind->tc;
	w.model.ingress = (uint32_t)w.lab.ifindex;
	if (options.history >= 0)
		good = run_history(&w, (uint64_t)options.history);
	else /* one at least, however slow the machine */
		do
			good = run_history(&w, n++);
		while (good && now_seconds() < end);
	printf("# %s: %llu packets, %llu changes, %llu histories", kind->name,
	       (unsigned long long)w.packets, (unsigned long long)w.changes,
	       (unsigned long long)n);
	if (kind->lawful)
		printf(", %llu connections, hashed otherwise %llu times",
		       (unsigned long long)w.opened,
		       (unsigned long long)w.rehashed);
	puts("");
	model_release(&w.model);
	bpf_lab_close(&w.lab);
	return good;
}

static int read_options(int argc, char **argv)
{
	static const struct option all[] = {
		{ "object", required_argument, NULL, 'o' },
		{ "only", required_argument, NULL, 'k' },
		{ "slow", no_argument, NULL, 'l' },
		{ "first", no_argument, NULL, 'f' },
		{ "seconds", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "history", required_argument, NULL, 'h' },
		{ 0 },
	};
	const char *seed = getenv("XLB_SEED"), *soak = getenv("XLB_SOAK");

	options.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	if (soak && *soak && strcmp(soak, "0") != 0)
		options.seconds *= 15;
	for (int c; (c = getopt_long(argc, argv, "", all, NULL)) != -1;) {
		if (c == 'o')
			options.object = optarg;
		else if (c == 'k')
			options.only = optarg;
		else if (c == 'l')
			options.slow = true;
		else if (c == 'f')
			options.first = true;
		else if (c == 'n')
			options.seconds = strtod(optarg, NULL);
		else if (c == 's')
			options.seed = strtoull(optarg, NULL, 0);
		else if (c == 'h')
			options.history = strtoll(optarg, NULL, 0);
		else
			return -1;
	}
	return 0;
}

static bool is_wanted(const struct kind *kind)
{
	/* An object that is given is XDP's. */
	if (options.object && kind->tc)
		return false;
	return !options.only || strstr(kind->name, options.only);
}

int main(int argc, char **argv)
{
	const unsigned int count = sizeof(kinds) / sizeof(kinds[0]);
	uint32_t shares = 0, failed = 0, n = 0;

	if (read_options(argc, argv))
		return 2;
	if (geteuid()) {
		puts("1..0 # SKIP needs root to load programs");
		return 0;
	}
	cpu = bpf_lab_enter();
	if (cpu < 0) {
		puts("Bail out! no network namespace");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned int i = 0; i < count; i++) {
		shares += is_wanted(&kinds[i]) ? kinds[i].share : 0;
		n += is_wanted(&kinds[i]);
	}
	printf("# seed %llu\n1..%u\n", (unsigned long long)options.seed, n);
	n = 0;
	for (unsigned int i = 0; i < count; i++) {
		bool good;

		if (!is_wanted(&kinds[i]) || (options.first && failed))
			continue;
		good = run_kind(&kinds[i],
				options.seconds * kinds[i].share / shares);
		printf("%s %u - %s\n", good ? "ok" : "not ok", ++n,
		       kinds[i].name);
		failed += !good;
	}
	return failed != 0;
}
