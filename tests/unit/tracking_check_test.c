/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every history of a small world, by the real code: what a packet gets is
 * bpf/packet.h's, compiled for this machine; how words follow each other is
 * slot_next()'s and slots_merge()'s.  Breadth first, each world once.
 *
 * The world is one line of memories and a table of one slot that may grow to
 * two, three backends and two flows.  Packets: SYNs, with a token or without,
 * sent again, or forged; the client's others; strangers' with its ports.
 * Changes: the owner, deaths, growth, another algorithm, and what sweeps do:
 * memories that run out, slots that settle and come to rest.
 *
 * What must never happen: a packet of a connection, which its client knows to
 * be established, goes to another backend while its own is alive.
 *
 * Two losses are accepted, and left out where they are marked as such:
 * - A SYN is sent again across a change, goes to another backend than before,
 *   and yet the first one's answer wins.  Both answers are as good, and only
 *   the client knows which one it took.
 * - Three other SYNs take their places in the line of a new connection before
 *   its handshake is over.  That takes a flood, and no established one is
 *   touched.
 *
 * Times are as the sweep has them: a flow that is silent for as long as its
 * memory lasts is a flow that is over, and so is one that didn't speak while
 * its slot moved.  One thing isn't a rule but a bet on time: a handshake whose
 * SYN could not be remembered is over before its slot, which was moving then,
 * settles, and before an old memory with whose backend it went runs out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/bpf_native.h"

#include "base/mem.h"
#include "tables/tables.h"

#define FLOWS 2
#define BACKENDS 3
#define FILLER 4 /* another service's backend, whose flows fill the line */
#define CONNECTIONS 2 /* initial sequence numbers in turn */
#define FORGED 2 /* the third one is nobody's */
#define NUMBERS 3

enum phase { NEW, HALF, ESTABLISHED };

struct connection {
	uint8_t phase;
	uint8_t owner; /* the backend that has it */
	uint8_t number; /* of CONNECTIONS; the next one takes the other */
	uint8_t spoke; /* the client, after its SYN */
	uint8_t found; /* spoke since its slot began to move, */
	uint8_t met; /* or since other slots became its */
	uint8_t loose; /* its SYN found no memory */
};

struct world {
	uint64_t line[XLB_FLOW_WAYS];
	uint32_t words[2];
	struct connection flows[FLOWS];
	uint8_t big; /* two slots */
	uint8_t dead; /* bit by backend */
	uint8_t leaving; /* the same */
	uint8_t tracked; /* as user space writes words */
	uint8_t picks; /* as the VIP says, and: */
	uint8_t client_new; /* new flows have their client's slot */
	uint8_t client_old; /* so have those that aren't remembered */
	uint8_t pad[3]; /* none is left to the compiler: worlds are compared */
};

_Static_assert(sizeof(struct world) == 96, "no padding");

/* Rules that leave something out, which a search must notice. */
enum flaw {
	SOUND,
	SETTLES_EARLY, /* though flows didn't speak yet */
	RESTS_EARLY, /* though memories are left */
	BACK_IS_REST, /* a slot that comes back to its prev rests */
	NEWEST_PREV, /* a slot that moves again takes its cur as prev */
	FORGETS, /* memories of flows that speak run out */
	EVICTS, /* an established memory makes room */
	SYN_REPLACES, /* a SYN takes an established memory with it */
	SYN_TO_OWNER, /* a SYN without a token goes to the owner */
	GROWS_AT_REST, /* a slot that moved rests when it grew */
	PICKS_AT_ONCE, /* slots at rest when the algorithm begins to pick */
	CHANGE_ENDS_EARLY, /* from flows' slots to their client's */
	FLAWS,
};

struct setting {
	const char *name;
	size_t flows;
	size_t fillers; /* ways of the line that are taken for good */
	bool nobody; /* the slot may be left to nobody */
	bool grows;
	bool algorithms;
	bool clients; /* source_hash: both flows are one client's */
	bool rehashes; /* begins to be, and ceases to be, source_hash */
	bool forged;
	uint8_t deaths;
	size_t most; /* worlds; 0: all there are */
	enum flaw flaw;
};

struct node {
	struct world world;
	uint32_t parent;
	char step[28];
};

struct search {
	const struct setting *set;
	struct node *nodes;
	size_t count, room, at;
	uint32_t *index; /* by hash of the world: place in nodes + 1 */
	size_t index_size;
	const char *wrong; /* a step that broke a flow */
	char step[28];
};

/* --- the kernel's side --- */

static struct xlb_slot_line slot_lines[2];
static struct xlb_flow_line flow_line;
static struct limit bucket;
static uint64_t counted[XLB_EVENT_MAX];
static uint32_t cursor;

static void *bpf_map_lookup_elem(const void *map, const void *key)
{
	uint32_t i = *(const uint32_t *)key;

	if (map == &slots)
		return i < ARRAY_SIZE(slot_lines) ? &slot_lines[i] : NULL;
	if (map == &flows)
		return i ? NULL : &flow_line;
	if (map == &limits)
		return &bucket;
	if (map == &events)
		return i < XLB_EVENT_MAX ? &counted[i] : NULL;
	return map == &cursors ? &cursor : NULL;
}

static uint32_t bpf_get_smp_processor_id(void)
{
	return 0;
}

static uint32_t bpf_get_prandom_u32(void)
{
	return 0;
}

static uint64_t bpf_ktime_get_ns(void)
{
	return 0;
}

/* The table has twice the slots, of which the flows are in the first half. */
#define SCHEDULE XLB_LINE_SLOTS

static const uint8_t sizes[] = { 31, 30 };
static uint16_t client_port[FLOWS];
static uint32_t client_address;
static uint64_t keys[FLOWS];

static struct xlb_vip vip_of(const struct world *w)
{
	return (struct xlb_vip){
		.proto = IPPROTO_TCP,
		.family = 4,
		.slot_shift = sizes[w->big],
		.schedule_base = SCHEDULE,
		.schedule_shift = 31,
		.affinity_ticks = 1,
		.flags = (uint16_t)((w->client_new ? XLB_VIP_CLIENT_HASH : 0) |
				    (w->client_old ? XLB_VIP_CLIENT_OLD : 0) |
				    (w->picks ? XLB_VIP_SCHEDULE : 0)),
	};
}

static struct flow_hash hash_of(const struct world *w, size_t flow)
{
	struct xlb_vip vip = vip_of(w);

	return flow_hash_v4(&vip, client_address, client_port[flow]);
}

/*
 * Once there are two slots flow 0 is the first one's and flow 1 the second
 * one's, as is their client.
 */
static void choose_addresses(void)
{
	struct world w = { .client_new = 1 };

	while (hash_of(&w, 0).client >> 62 != 1)
		client_address++;
	for (size_t i = 0; i < FLOWS; i++) {
		client_port[i] = 1;
		while (hash_of(&w, i).flow >> 62 != i)
			client_port[i]++;
		keys[i] = memory_key(hash_of(&w, i).flow, 0);
	}
}

static size_t slot_by_bits(const struct world *w, uint64_t hash)
{
	return hash >> 32 >> sizes[w->big];
}

/* Is it a slot that has a say in where the flow goes? */
static bool is_slot_of(const struct world *w, size_t slot, size_t flow)
{
	struct flow_hash hash = hash_of(w, flow);

	return slot == slot_by_bits(w,
				    w->client_new ? hash.client : hash.flow) ||
	       slot == slot_by_bits(w, w->client_old ? hash.client : hash.flow);
}

static bool lives(const struct world *w, uint32_t id)
{
	return id && !(w->dead >> id & 1);
}

static void enter(const struct world *w)
{
	memcpy(flow_line.entry, w->line, sizeof(w->line));
	for (uint32_t i = 0; i < 2; i++)
		slot_lines[0].slot[i] = w->words[w->big ? i : 0];
	for (uint32_t id = 1; id <= FILLER; id++) {
		tables.backends[id].generation = lives(w, id) ? 1 : 2;
		tables.backends[id].flags =
			w->leaving >> id & 1 ? XLB_BACKEND_LEAVING : 0;
	}
}

static int later_first(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x < *y) - (*x > *y);
}

/*
 * Where in its line a memory stands changes nothing but the time to find it,
 * so that worlds that differ by that alone are one: flow 0's at its home, and
 * the rest by value.
 */
static void leave(struct world *w)
{
	uint32_t home = memory_home(keys[0]);

	memcpy(w->line, flow_line.entry, sizeof(w->line));
	qsort(w->line, XLB_FLOW_WAYS, sizeof(w->line[0]), later_first);
	for (uint32_t i = 0; i < XLB_FLOW_WAYS; i++) {
		uint64_t entry = w->line[i];

		if (!entry || XLB_FLOW_TAG(entry) != memory_tag(keys[0]))
			continue;
		w->line[i] = w->line[home];
		w->line[home] = entry;
		break;
	}
}

static uint32_t sequence(uint8_t number)
{
	return 1000u * (number + 1u);
}

/* --- searching --- */

static size_t index_place(const struct search *s, const struct world *w)
{
	const uint64_t *words = (const uint64_t *)(const void *)w;
	uint64_t hash = 0;

	_Static_assert(sizeof(*w) % sizeof(*words) == 0, "whole words");
	for (size_t i = 0; i < sizeof(*w) / sizeof(*words); i++)
		hash = (hash ^ words[i]) * MIX_A ^ hash >> 29;
	return (hash ^ hash >> 32) & (s->index_size - 1);
}

static uint32_t *index_find(const struct search *s, const struct world *w)
{
	size_t i = index_place(s, w);

	while (s->index[i] &&
	       memcmp(&s->nodes[s->index[i] - 1].world, w, sizeof(*w)) != 0)
		i = (i + 1) & (s->index_size - 1);
	return &s->index[i];
}

static void index_grow(struct search *s)
{
	free(s->index);
	s->index_size = s->index_size ? 2 * s->index_size : 1 << 16;
	s->index = mem_array(s->index_size, sizeof(*s->index));
	for (size_t i = 0; i < s->count; i++)
		*index_find(s, &s->nodes[i].world) = (uint32_t)i + 1;
}

__attribute__((format(printf, 2, 3))) static void
step_name(struct search *s, const char *format, ...)
{
	va_list args;

	if (s->wrong)
		return;
	va_start(args, format);
	vsnprintf(s->step, sizeof(s->step), format, args);
	va_end(args);
}

static void visit(struct search *s, const struct world *w)
{
	uint32_t *place;

	if (s->wrong)
		return;
	if (2 * s->count >= s->index_size)
		index_grow(s);
	place = index_find(s, w);
	if (*place)
		return;
	if (s->count == s->room) {
		s->room = s->room ? 2 * s->room : 1 << 12;
		s->nodes = realloc(s->nodes, s->room * sizeof(*s->nodes));
		assert_non_null(s->nodes);
	}
	s->nodes[s->count] =
		(struct node){ .world = *w, .parent = (uint32_t)s->at };
	memcpy(s->nodes[s->count].step, s->step, sizeof(s->step));
	*place = (uint32_t)++s->count;
}

/* --- packets --- */

struct sent {
	uint32_t to;
	bool no_room;
};

static struct sent send_packet(struct world *w, size_t flow, uint32_t seq,
			       uint8_t flags)
{
	static struct {
		uint8_t ether[14];
		uint8_t ip[20];
		uint8_t tcp[20];
	} __attribute__((packed)) frame;
	struct xlb_vip vip = vip_of(w);
	struct packet p = {
		.data = &frame,
		.ports = (void *)frame.tcp,
		.len = sizeof(frame.ip) + sizeof(frame.tcp),
		.hash = hash_of(w, flow),
		.proto = IPPROTO_TCP,
		.new_flow = is_syn(flags),
	};
	uint64_t before = counted[XLB_EVENT_NO_ROOM];
	struct sent sent;

	seq = bpf_htonl(seq);
	memcpy(frame.tcp + 4, &seq, sizeof(seq));
	frame.tcp[12] = 0x50;
	frame.tcp[13] = flags;
	enter(w);
	sent.to = packet_backend(&p, &vip, &frame + 1);
	sent.no_room = counted[XLB_EVENT_NO_ROOM] != before;
	leave(w);
	return sent;
}

static bool remembered(const struct world *w, uint32_t tag, uint32_t class)
{
	for (size_t i = 0; i < XLB_FLOW_WAYS; i++)
		if (XLB_FLOW_TAG(w->line[i]) == tag &&
		    XLB_FLOW_CLASS(w->line[i]) == class &&
		    lives(w, XLB_FLOW_BACKEND(w->line[i])))
			return true;
	return false;
}

static bool half_open(const struct world *w, size_t flow, uint8_t number)
{
	return remembered(w, memory_seq_tag(keys[flow], sequence(number) + 1),
			  XLB_FLOW_HALF_OPEN);
}

static bool is_pending(const struct connection *c)
{
	return c->phase == HALF || (c->phase == ESTABLISHED && !c->spoke);
}

static void hang_up(struct connection *c)
{
	*c = (struct connection){ .number = c->number };
}

/*
 * After every step: slots wait for a flow once more that was left without a
 * memory; and the second loss that is accepted, see above.
 */
static void after(struct world *w, bool no_room)
{
	for (size_t i = 0; i < FLOWS; i++) {
		struct connection *c = &w->flows[i];

		if (no_room)
			c->found = c->met = 0;
		if (is_pending(c) && !c->loose && !half_open(w, i, c->number))
			hang_up(c);
	}
}

/* What is wrong with the rules, after a packet. */
static void spoil(const struct setting *set, struct world *w, size_t flow,
		  bool syn)
{
	for (size_t i = 0; i < XLB_FLOW_WAYS; i++) {
		uint64_t entry = w->line[i];
		bool own =
			entry && XLB_FLOW_TAG(entry) == memory_tag(keys[flow]);

		if (set->flaw == SYN_REPLACES && syn && own)
			w->line[i] = 0;
		if (set->flaw == EVICTS && syn && entry && !own &&
		    XLB_FLOW_BACKEND(entry) != FILLER)
			w->line[i] = 0;
	}
}

/* tokens 0: none, and the clock isn't asked. */
static struct sent send_syn(const struct setting *set, struct world *w,
			    size_t flow, uint8_t number, uint32_t tokens)
{
	size_t slot = slot_by_bits(w, hash_of(w, flow).flow);
	bool known = half_open(w, flow, number);
	struct sent sent;

	bucket = (struct limit){ .tokens = tokens, .skipped = 1 };
	sent = send_packet(w, flow, sequence(number), TCP_SYN);
	if (set->flaw == SYN_TO_OWNER && !tokens && !known)
		sent.to = XLB_SLOT_CUR(w->words[slot]);
	spoil(set, w, flow, true);
	return sent;
}

static void step_syn(struct search *s, const struct world *from, size_t i,
		     uint32_t tokens)
{
	struct world w = *from;
	struct connection *c = &w.flows[i];
	bool again = c->phase == HALF;
	uint8_t number = (uint8_t)((c->number + !again) % CONNECTIONS);
	struct sent sent = send_syn(s->set, &w, i, number, tokens);

	/*
	 * Sent again and gone elsewhere: here the second answer wins.  That
	 * the first one does is the first of the losses that are accepted.
	 */
	if (lives(&w, sent.to)) {
		*c = (struct connection){ .phase = HALF,
					  .owner = (uint8_t)sent.to,
					  .number = number };
		c->loose = !half_open(&w, i, number);
	}
	after(&w, sent.no_room);
	step_name(s, "%zu: SYN %u%s to %u", i, number,
		  tokens ? "" : " no token", sent.to);
	visit(s, &w);
}

/* Any packet of the connection that isn't a SYN. */
static void step_data(struct search *s, const struct world *from, size_t i)
{
	struct world w = *from;
	struct connection *c = &w.flows[i];
	struct sent sent = send_packet(
		&w, i, sequence(c->number) + (c->spoke ? 500 : 1), TCP_ACK);

	step_name(s, "%zu: data to %u, is %u's", i, sent.to, c->owner);
	c->spoke = c->found = 1;
	c->met = s->set->rehashes;
	c->loose = 0;
	after(&w, sent.no_room);
	/* This very packet found out about the flow, or left it without. */
	if (sent.no_room)
		w.flows[i].found = w.flows[i].met = 0;
	visit(s, &w);
	if (sent.to != from->flows[i].owner && !s->wrong)
		s->wrong = "an established flow went elsewhere";
}

/* Forged, or of a connection that was over long ago. */
static void step_strange(struct search *s, const struct world *from, size_t i)
{
	struct world w = *from;
	struct sent sent;

	for (uint32_t tokens = 0; tokens <= 1; tokens++) {
		w = *from;
		sent = send_syn(s->set, &w, i, FORGED, tokens);
		after(&w, sent.no_room);
		step_name(s, "%zu: forged SYN to %u", i, sent.to);
		visit(s, &w);
	}
	w = *from;
	sent = send_packet(&w, i, 7, TCP_ACK);
	after(&w, sent.no_room);
	step_name(s, "%zu: strange ACK to %u", i, sent.to);
	visit(s, &w);
}

static void steps_of_flow(struct search *s, const struct world *from, size_t i)
{
	struct world w = *from;
	struct connection *c = &w.flows[i];

	if (c->phase != ESTABLISHED) {
		step_syn(s, from, i, 0);
		step_syn(s, from, i, 1);
	} else {
		step_data(s, from, i);
	}
	if (s->set->forged && i == 0)
		step_strange(s, from, i);
	if (c->phase == NEW)
		return;
	hang_up(c);
	step_name(s, "%zu: over", i);
	visit(s, &w);
	w = *from;
	if (c->phase != HALF)
		return;
	c->phase = ESTABLISHED;
	step_name(s, "%zu: answered by %u", i, c->owner);
	visit(s, &w);
}

/* --- user space --- */

struct fates {
	uint8_t dead;
	bool leave; /* whoever lives and isn't wanted */
	uint32_t want;
};

static enum slot_fate fate_of(const void *arg, uint32_t id)
{
	const struct fates *f = arg;

	if (f->dead >> id & 1)
		return SLOT_GONE;
	return f->leave && id != f->want ? SLOT_LEAVES : SLOT_STAYS;
}

static bool is_moving(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

static uint32_t next_word(const struct setting *set, const struct world *w,
			  uint32_t word, uint32_t want, bool leave)
{
	struct fates fates = { .dead = w->dead, .leave = leave, .want = want };
	struct slot_rules rules = {
		.kind = w->tracked ? SLOTS_TRACKED : SLOTS_HASHED,
		.held = w->client_new,
		.fate = fate_of,
		.arg = &fates,
	};
	uint32_t cur = XLB_SLOT_CUR(word);

	if (set->flaw == BACK_IS_REST && is_moving(word) &&
	    want == XLB_SLOT_PREV(word))
		return XLB_SLOT(want, want, XLB_REST);
	if (set->flaw == NEWEST_PREV && is_moving(word) && cur && want != cur)
		return XLB_SLOT(want, cur, XLB_MOVING);
	if (set->flaw == PICKS_AT_ONCE && w->tracked &&
	    XLB_SLOT_STATE(word) == XLB_REST)
		return XLB_SLOT(want, want, XLB_REST);
	return slot_next(word, want, &rules);
}

/* The slot gets this word; who is in it has to speak once more if it moves. */
static void set_word(struct world *w, size_t slot, uint32_t word)
{
	bool began = is_moving(word) && !is_moving(w->words[slot]);

	w->words[slot] = word;
	for (size_t i = 0; began && i < FLOWS; i++)
		if (is_slot_of(w, slot, i))
			w->flows[i].found = 0;
}

static void step_change(struct search *s, const struct world *from, size_t slot)
{
	for (uint32_t want = s->set->nobody ? 0 : 1; want <= BACKENDS; want++) {
		for (int leave = 0; leave <= from->client_new; leave++) {
			struct world w = *from;

			if (want && !lives(from, want))
				continue;
			w.leaving = (uint8_t)(leave ? 0xe & ~(1u << want) : 0);
			set_word(&w, slot,
				 next_word(s->set, &w, w.words[slot], want,
					   leave));
			step_name(s, "slot %zu: %u wanted%s", slot, want,
				  leave ? ", others leave" : "");
			visit(s, &w);
		}
	}
}

static void bury(struct world *w, uint32_t id)
{
	w->dead |= (uint8_t)(1 << id);
	for (size_t i = 0; i < FLOWS; i++)
		if (w->flows[i].phase != NEW && w->flows[i].owner == id)
			hang_up(&w->flows[i]);
	after(w, false);
}

/* A backend dies, and the slots that it has go to others. */
static void step_death(struct search *s, const struct world *from, uint32_t id)
{
	for (uint32_t heir = 1; heir <= BACKENDS; heir++) {
		struct world w = *from;

		bury(&w, id);
		if (!lives(&w, heir))
			continue;
		for (size_t slot = 0; slot < (w.big ? 2 : 1); slot++) {
			uint32_t cur = XLB_SLOT_CUR(w.words[slot]);

			set_word(&w, slot,
				 next_word(s->set, &w, w.words[slot],
					   cur == id ? heir : cur, false));
		}
		step_name(s, "%u dies, heir %u", id, heir);
		visit(s, &w);
	}
}

/* Has every flow of the slot spoken that could be left without a memory? */
static bool all_found(const struct world *w, size_t slot)
{
	for (size_t i = 0; i < FLOWS; i++) {
		const struct connection *c = &w->flows[i];

		if (c->phase != NEW && is_slot_of(w, slot, i) &&
		    (is_pending(c) ? c->loose : !c->found))
			return false;
	}
	return true;
}

static bool memories_of_others(const struct world *w, uint32_t cur)
{
	for (size_t i = 0; i < XLB_FLOW_WAYS; i++) {
		uint32_t id = XLB_FLOW_BACKEND(w->line[i]);

		if (id && id != cur && id != FILLER)
			return true;
	}
	return false;
}

/* What a sweep makes of the slot. */
static void step_sweep(struct search *s, const struct world *from, size_t slot)
{
	uint32_t word = from->words[slot], cur = XLB_SLOT_CUR(word);
	struct world w = *from;

	switch ((enum xlb_slot_state)XLB_SLOT_STATE(word)) {
	case XLB_REST:
		return;
	case XLB_HELD:
		w.words[slot] = XLB_SLOT(cur, XLB_SLOT_PREV(word), XLB_MOVING);
		step_name(s, "slot %zu: held long enough", slot);
		break;
	case XLB_MOVING:
		if (s->set->flaw != SETTLES_EARLY && !all_found(from, slot))
			return;
		w.words[slot] = XLB_SLOT(cur, cur, XLB_SETTLED);
		step_name(s, "slot %zu: settles", slot);
		break;
	case XLB_SETTLED:
		if (w.tracked || w.picks || w.client_new != w.client_old ||
		    (s->set->flaw != RESTS_EARLY &&
		     memories_of_others(from, cur)))
			return;
		w.words[slot] = XLB_SLOT(cur, cur, XLB_REST);
		step_name(s, "slot %zu: rests", slot);
		break;
	}
	visit(s, &w);
}

/* May this memory of a flow run out, or belong to another connection? */
static bool needed(const struct world *w, uint64_t entry)
{
	for (size_t i = 0; i < FLOWS; i++) {
		const struct connection *c = &w->flows[i];
		uint32_t tag = XLB_FLOW_TAG(entry);

		if (c->phase == NEW)
			continue;
		if (XLB_FLOW_CLASS(entry) == XLB_FLOW_HALF_OPEN
			    ? is_pending(c) &&
				      tag == memory_seq_tag(
						     keys[i],
						     sequence(c->number) + 1)
			    : (!is_pending(c) || c->loose) &&
				      tag == memory_tag(keys[i]))
			return true;
	}
	return false;
}

/* Memories that nobody has asked for in their time are gone. */
static void step_expiry(struct search *s, const struct world *from)
{
	for (size_t i = 0; i < XLB_FLOW_WAYS; i++) {
		uint64_t entry = from->line[i];
		struct world w = *from;

		if (!entry || XLB_FLOW_BACKEND(entry) == FILLER ||
		    (s->set->flaw != FORGETS &&
		     lives(from, XLB_FLOW_BACKEND(entry)) &&
		     needed(from, entry)))
			continue;
		enter(from);
		flow_line.entry[i] = 0;
		leave(&w);
		step_name(s, "memory of %u runs out", XLB_FLOW_BACKEND(entry));
		visit(s, &w);
	}
}

static void step_size(struct search *s, const struct world *from)
{
	struct world w = *from;

	if (!s->set->grows)
		return;
	w.big = !from->big;
	w.words[1] = w.big ? w.words[0] : 0;
	if (s->set->flaw == GROWS_AT_REST && w.big)
		for (size_t i = 0; i < 2; i++)
			w.words[i] =
				XLB_SLOT(XLB_SLOT_CUR(w.words[i]),
					 XLB_SLOT_CUR(w.words[i]), XLB_REST);
	if (!w.big && !slots_merge(from->words, 2, &w.words[0]))
		return;
	step_name(s, w.big ? "the table grows" : "the table shrinks");
	visit(s, &w);
}

/*
 * Words are made ready before packets are picked for, or go by their client,
 * and stay so until that is over.
 */
static void step_words(struct search *s, const struct world *from)
{
	struct world w = *from;

	if (w.picks || w.client_new != w.client_old)
		return;
	w.tracked = !w.tracked;
	for (size_t slot = 0; slot < (w.big ? 2 : 1); slot++)
		set_word(&w, slot,
			 next_word(s->set, &w, w.words[slot],
				   XLB_SLOT_CUR(w.words[slot]), false));
	step_name(s, "words are %s", w.tracked ? "tracked" : "hashed");
	visit(s, &w);
}

static void step_picks(struct search *s, const struct world *from)
{
	struct world w = *from;

	if (!w.tracked)
		return;
	w.picks = !w.picks;
	step_name(s, w.picks ? "picks" : "picks no more");
	visit(s, &w);
}

/* From flows' slots to their client's, or back; and when that is over. */
static void step_rehash(struct search *s, const struct world *from)
{
	struct world w = *from;
	bool met = s->set->flaw != CHANGE_ENDS_EARLY;

	if (w.client_new == w.client_old) {
		if (!w.tracked)
			return;
		w.client_new = !w.client_new;
		for (size_t i = 0; i < FLOWS; i++)
			w.flows[i].met = 0;
		step_name(s, "new ones by %s",
			  w.client_new ? "client" : "flow");
		visit(s, &w);
		return;
	}
	for (size_t i = 0; met && i < FLOWS; i++) {
		const struct connection *c = &w.flows[i];

		if (c->phase != NEW && (is_pending(c) ? c->loose : !c->met))
			return;
	}
	w.client_old = w.client_new;
	step_name(s, "all by %s", w.client_new ? "client" : "flow");
	visit(s, &w);
}

static void step_algorithm(struct search *s, const struct world *from)
{
	if (s->set->algorithms || s->set->rehashes)
		step_words(s, from);
	if (s->set->algorithms)
		step_picks(s, from);
	if (s->set->rehashes)
		step_rehash(s, from);
}

static void steps_of_slots(struct search *s, const struct world *from)
{
	uint8_t deaths = (uint8_t)__builtin_popcount(from->dead);

	for (size_t slot = 0; slot < (from->big ? 2 : 1); slot++) {
		step_change(s, from, slot);
		step_sweep(s, from, slot);
	}
	for (uint32_t id = 1; id <= BACKENDS && deaths < s->set->deaths; id++)
		if (lives(from, id))
			step_death(s, from, id);
	step_expiry(s, from);
	step_size(s, from);
	step_algorithm(s, from);
}

/* Whoever lives may be the next one that is picked. */
static void steps_of_flows(struct search *s, const struct world *from)
{
	for (uint32_t id = 1; id <= BACKENDS; id++) {
		if (from->picks && !lives(from, id))
			continue;
		for (uint32_t i = 0; i < 2; i++)
			slot_lines[1].slot[i] = XLB_SLOT(id, id, XLB_REST);
		for (size_t i = 0; i < s->set->flows; i++)
			steps_of_flow(s, from, i);
		if (!from->picks)
			break;
	}
}

static void first_world(const struct setting *set, struct world *w)
{
	*w = (struct world){ .words = { XLB_SLOT(1, 1, XLB_REST) },
			     .client_new = set->clients,
			     .client_old = set->clients };
	/* Slots that flows can be moved between. */
	if (set->rehashes) {
		w->big = 1;
		w->words[1] = XLB_SLOT(2, 2, XLB_REST);
	}
	memset(&flow_line, 0, sizeof(flow_line));
	for (uint32_t i = 0; i < set->fillers; i++)
		flow_line.entry[i] = XLB_FLOW(0x7fffff00u + i, 0, 1,
					      XLB_FLOW_ESTABLISHED, FILLER);
	leave(w);
}

static void search_all(struct search *s, const struct setting *set)
{
	struct world w;

	*s = (struct search){ .set = set };
	choose_addresses();
	first_world(set, &w);
	visit(s, &w);
	while (s->at < s->count && (!set->most || s->count < set->most)) {
		w = s->nodes[s->at].world;
		steps_of_slots(s, &w);
		steps_of_flows(s, &w);
		if (s->wrong)
			return;
		s->at++;
	}
}

static void search_release(struct search *s)
{
	free(s->nodes);
	free(s->index);
}

/* The history that led to what went wrong. */
static void tell(const struct search *s)
{
	size_t way[256], count = 0;

	for (size_t i = s->at; i && count < ARRAY_SIZE(way);
	     i = s->nodes[i].parent)
		way[count++] = i;
	while (count) {
		const struct node *n = &s->nodes[way[--count]];

		print_message("#   %-28s %08x %08x\n", n->step,
			      n->world.words[0], n->world.words[1]);
	}
	print_message("#   %s: %s\n", s->step, s->wrong);
}

static const struct setting settings[] = {
	{ .name = "one flow",
	  .flows = 1,
	  .nobody = true,
	  .forged = true,
	  .deaths = 2 },
	{ .name = "little room", .flows = 2, .fillers = 6, .deaths = 1 },
	{ .name = "no room", .flows = 2, .fillers = 8, .deaths = 1 },
	{ .name = "two slots", .flows = 2, .grows = true, .most = 400000 },
	{ .name = "algorithms",
	  .flows = 1,
	  .algorithms = true,
	  .forged = true,
	  .deaths = 1 },
	{ .name = "one client",
	  .flows = 2,
	  .clients = true,
	  .grows = true,
	  .most = 400000 },
	{ .name = "to and from clients",
	  .flows = 1,
	  .rehashes = true,
	  .forged = true,
	  .most = 400000 },
	{ .name = "a client's deaths",
	  .flows = 1,
	  .clients = true,
	  .forged = true,
	  .deaths = 2,
	  .most = 400000 },
};

static void no_history_breaks_a_flow(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		struct search s;

		search_all(&s, &settings[i]);
		print_message("# %s: %zu worlds%s\n", settings[i].name, s.count,
			      s.at < s.count ? ", not all" : "");
		if (s.wrong)
			tell(&s);
		assert_null(s.wrong);
		search_release(&s);
	}
}

/* Each rule is needed: without it some history breaks a flow. */
static void every_flaw_is_found(void **state)
{
	(void)state;
	for (enum flaw flaw = SOUND + 1; flaw < FLAWS; flaw++) {
		struct setting set = {
			.flows =
				flaw == EVICTS || flaw == GROWS_AT_REST ? 2 : 1,
			.forged = true,
			.grows = flaw == GROWS_AT_REST,
			.algorithms = flaw == PICKS_AT_ONCE,
			.rehashes = flaw == CHANGE_ENDS_EARLY,
			.most = 400000,
			.flaw = flaw,
		};
		struct search s;

		search_all(&s, &set);
		print_message("# flaw %d: %s after %zu worlds\n", flaw,
			      s.wrong ? "found" : "missed", s.count);
		assert_non_null(s.wrong);
		search_release(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_history_breaks_a_flow),
		cmocka_unit_test(every_flaw_is_found),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tracking check", tests, NULL, NULL);
}
