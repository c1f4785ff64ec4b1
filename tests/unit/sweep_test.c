/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Slots come to rest, and no connection pays for it.  Random lives of flows,
 * owners and backends, with what the kernel does to a packet modelled from
 * the rules (not from its code), packets that are overtaken by a sweep, and
 * memories that find no room.  XLB_SEED repeats a run; the seed is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "tables/sweep.h"
#include "tables/tables.h"

#define SLOT_LOG2 3
#define SLOTS (1u << SLOT_LOG2)
#define BASE 16 /* of the region */
#define FLOWS 48
#define BACKENDS 4 /* ids 1 to 4 */
#define PER_TICK 4 /* moments */
#define IDLE 3 /* ticks that a flow may be silent */
#define HELD 5
#define SERVICE 7

struct memory {
	uint8_t backend; /* 0: none */
	uint8_t class;
	uint8_t time;
	uint8_t generation;
};

struct flow {
	uint32_t hash, client; /* of its line, of its client */
	bool open, established; /* it has sent more than its SYN */
	uint8_t owner;
	uint32_t last; /* moment of its last packet */
	struct memory known, half;
};

/* What is left out on purpose, to see that the search would find it. */
enum fault { SOUND, HASTY, IMPATIENT, DEAF, RASH, LINEWISE, FAULTS };

struct life {
	struct flow flows[FLOWS];
	struct xlb_backend backends[XLB_BACKENDS];
	uint16_t service_of[XLB_BACKENDS];
	struct sweep_service services[XLB_SERVICES];
	uint32_t slots[BASE + SLOTS];
	uint8_t moved[BASE + SLOTS];
	uint32_t flow_lines;
	struct slot_rules rules;
	uint32_t dead; /* bit by backend */
	bool by_client, by_client_old; /* slots of new flows, of unknown ones */
	uint8_t changed; /* tick, when these began to differ */
	uint32_t moment, tick;
	uint32_t no_room_at;
	bool no_room_ever, roomy;
	bool rehashes; /* its algorithm changes now and then */
	enum fault fault;
	struct sweep *sweep;
	uint32_t wrong, rests, settles;
};

static uint32_t seed, state_of_random;

static uint32_t pick(uint32_t n)
{
	state_of_random ^= state_of_random << 13;
	state_of_random ^= state_of_random >> 17;
	state_of_random ^= state_of_random << 5;
	return state_of_random % n;
}

static enum slot_fate fate(const void *arg, uint32_t id)
{
	const struct life *l = arg;

	return l->dead >> id & 1 ? SLOT_GONE : SLOT_STAYS;
}

/* ---- the kernel, as the rules have it ---- */

static bool alive(const struct life *l, const struct memory *m)
{
	return m->backend &&
	       m->generation == l->backends[m->backend].generation;
}

static bool moves(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

static uint32_t slot_by(const struct life *l, const struct flow *f, bool client)
{
	uint32_t hash = client ? f->client : f->hash;

	return l->slots[BASE + (hash >> (32 - SLOT_LOG2))];
}

/* While what is hashed changes: from the old slot's to the new one's. */
static uint32_t word_of(const struct life *l, const struct flow *f)
{
	uint32_t word = slot_by(l, f, l->by_client);
	uint32_t old = slot_by(l, f, l->by_client_old);
	bool held = XLB_SLOT_STATE(word) == XLB_HELD;

	if (l->by_client == l->by_client_old)
		return word;
	return XLB_SLOT(held ? XLB_SLOT_PREV(word) : XLB_SLOT_CUR(word),
			moves(old) && XLB_SLOT_PREV(old) ? XLB_SLOT_PREV(old)
							 : XLB_SLOT_CUR(old),
			XLB_MOVING);
}

static bool remember(struct life *l, struct memory *m, uint32_t backend,
		     enum xlb_flow_class class)
{
	if (!l->roomy && pick(40) == 0) {
		l->no_room_at = l->tick;
		l->no_room_ever = true;
		return false;
	}
	*m = (struct memory){ .backend = (uint8_t)backend,
			      .class = (uint8_t) class,
			      .time = (uint8_t)l->tick,
			      .generation = l->backends[backend].generation };
	return true;
}

static uint32_t syn(struct life *l, struct flow *f, uint32_t word)
{
	uint32_t state = XLB_SLOT_STATE(word), cur = XLB_SLOT_CUR(word);
	uint32_t target = state == XLB_HELD ? XLB_SLOT_PREV(word) : cur;
	bool known = alive(l, &f->known);

	if (state == XLB_REST || !target || (state == XLB_SETTLED && !known) ||
	    (state == XLB_HELD && !known))
		return target;
	if (remember(l, &f->half, target, XLB_FLOW_HALF_OPEN))
		return target;
	/* Its next packet will go where it is known, if it is. */
	if (!known)
		return XLB_SLOT_PREV(word);
	f->known.time = (uint8_t)l->tick;
	return f->known.backend;
}

static uint32_t data(struct life *l, struct flow *f, uint32_t word)
{
	if (XLB_SLOT_STATE(word) == XLB_REST)
		return XLB_SLOT_CUR(word);
	if (alive(l, &f->half) && !f->established) {
		f->known = f->half;
		f->known.class = XLB_FLOW_ESTABLISHED;
		f->half.backend = 0;
	}
	if (alive(l, &f->known)) {
		f->known.class = XLB_FLOW_ESTABLISHED;
		f->known.time = (uint8_t)l->tick;
		return f->known.backend;
	}
	if (!moves(word) || !XLB_SLOT_PREV(word))
		return XLB_SLOT_CUR(word);
	remember(l, &f->known, XLB_SLOT_PREV(word), XLB_FLOW_SIGHTED);
	return XLB_SLOT_PREV(word);
}

/* ---- clients ---- */

static void close_flow(struct flow *f)
{
	f->open = false;
	f->half.backend = 0; /* its sequence number won't come again */
}

static void send(struct life *l, struct flow *f, uint32_t word)
{
	uint32_t to;

	f->last = l->moment;
	if (!f->open) {
		f->owner = (uint8_t)syn(l, f, word);
		f->open = f->owner && !(l->dead >> f->owner & 1);
		f->established = false;
		if (!f->open)
			f->half.backend = 0;
		return;
	}
	to = data(l, f, word);
	f->established = true;
	l->wrong += to != f->owner;
	if (to != f->owner)
		close_flow(f);
}

/* Nobody who lives is silent for longer than declared. */
static void clients(struct life *l)
{
	for (size_t i = 0; i < FLOWS; i++) {
		struct flow *f = &l->flows[i];
		bool due = f->open && l->moment - f->last >= IDLE * PER_TICK;

		if (due && pick(2))
			close_flow(f);
		else if (due || pick(16) == 0)
			send(l, f, word_of(l, f));
		else if (f->open && pick(200) == 0)
			close_flow(f);
	}
}

/* ---- the planner ---- */

static void stamp(struct life *l, uint32_t i, uint32_t word)
{
	uint32_t old = l->slots[i];
	bool keeps = moves(old) && (XLB_SLOT_STATE(old) != XLB_HELD ||
				    XLB_SLOT_STATE(word) == XLB_HELD);

	if (moves(word) && !keeps)
		l->moved[i] = (uint8_t)l->tick;
	l->slots[i] = word;
}

static void reassign(struct life *l)
{
	for (uint32_t i = BASE; i < BASE + SLOTS; i++) {
		uint32_t want = XLB_SLOT_CUR(l->slots[i]);

		if (pick(3) == 0 || !want || l->dead >> want & 1)
			want = 1 + pick(BACKENDS);
		if (l->dead >> want & 1)
			want = 0;
		stamp(l, i, slot_next(l->slots[i], want, &l->rules));
	}
	sweep_touch(l->sweep, BASE, SLOTS);
}

/* What follows from whose slots flows have. */
static void find_rules(struct life *l)
{
	bool changes = l->by_client != l->by_client_old;
	struct sweep_service *sv = &l->services[SERVICE];

	l->rules.kind = changes ? SLOTS_TRACKED : SLOTS_HASHED;
	sv->rests = !changes;
	sv->by_client =
		(l->by_client || l->by_client_old) && l->fault != LINEWISE;
}

/* Slots become the clients', or the flows' again. */
static void change_algorithm(struct life *l)
{
	if (l->by_client == l->by_client_old)
		l->changed = (uint8_t)l->tick;
	l->by_client = !l->by_client;
	find_rules(l);
	for (uint32_t i = BASE; i < BASE + SLOTS; i++)
		stamp(l, i,
		      slot_next(l->slots[i], XLB_SLOT_CUR(l->slots[i]),
				&l->rules));
	sweep_touch(l->sweep, BASE, SLOTS);
}

/* Every flow of before has spoken since, and was remembered. */
static void maybe_end_change(struct life *l, uint32_t since_no_room)
{
	uint32_t passed = (uint8_t)(l->tick - l->changed);

	if (l->by_client == l->by_client_old ||
	    (l->fault != RASH && (!sweep_is_over(IDLE, passed) ||
				  !sweep_is_over(IDLE, since_no_room))))
		return;
	l->by_client_old = l->by_client;
	find_rules(l);
}

static void somebody_dies(struct life *l)
{
	uint32_t id = 1 + pick(BACKENDS);

	if (l->dead >> id & 1) {
		l->dead &= ~(1u << id);
		return;
	}
	l->dead |= 1u << id;
	reassign(l);
	l->backends[id].generation++;
	for (size_t i = 0; i < FLOWS; i++)
		if (l->flows[i].owner == id)
			close_flow(&l->flows[i]);
}

/* ---- a sweep ---- */

static void keep(struct life *l, struct flow *f, struct memory *m)
{
	uint32_t line = (uint32_t)(((uint64_t)f->hash * l->flow_lines) >> 32);

	if (m->backend && !sweep_keep(l->sweep, line,
				      XLB_FLOW(1, m->time, m->generation,
					       m->class, m->backend)))
		m->backend = 0;
}

static bool one_round(struct life *l)
{
	struct sweep_input in = { .services = l->services,
				  .service_of = l->service_of,
				  .backends = l->backends,
				  .slots = l->slots,
				  .slot_count = BASE + SLOTS,
				  .moved = l->moved,
				  .flow_lines = l->flow_lines,
				  .now = (uint8_t)l->tick,
				  .since_no_room = UINT32_MAX };
	uint32_t words[SLOTS];
	bool busy;

	if (l->no_room_ever && l->fault != DEAF)
		in.since_no_room = l->tick - l->no_room_at;
	sweep_begin(l->sweep, &in);
	for (size_t i = 0; i < FLOWS; i++) {
		struct flow *f = &l->flows[i];

		keep(l, f, &f->known);
		/* Its memory goes where the sweep has just been. */
		if (f->open && f->half.backend && pick(2))
			send(l, f, word_of(l, f));
		keep(l, f, &f->half);
	}
	sweep_words(l->sweep, SERVICE, words, &busy);
	if (l->fault == HASTY)
		sweep_words(l->sweep, SERVICE, words, &busy);
	for (uint32_t i = 0; i < SLOTS; i++) {
		uint32_t was = XLB_SLOT_STATE(l->slots[BASE + i]);

		l->rests +=
			XLB_SLOT_STATE(words[i]) == XLB_REST && was != XLB_REST;
		l->settles += XLB_SLOT_STATE(words[i]) == XLB_SETTLED &&
			      was != XLB_SETTLED;
		stamp(l, BASE + i, words[i]);
	}
	maybe_end_change(l, in.since_no_room);
	return busy || l->by_client != l->by_client_old;
}

/* Some packets have read their slot before the sweep and act after it. */
static void sweep_among_packets(struct life *l)
{
	uint32_t words[4];
	struct flow *late[4];

	for (size_t i = 0; i < ARRAY_SIZE(late); i++) {
		late[i] = &l->flows[pick(FLOWS)];
		words[i] = word_of(l, late[i]);
	}
	one_round(l);
	/*
	 * One that finds no room at this very moment, for the first time in
	 * long, would be lost: the price of not stopping the traffic.
	 */
	l->roomy = true;
	for (size_t i = 0; i < ARRAY_SIZE(late); i++)
		send(l, late[i], words[i]);
	l->roomy = false;
}

/* ---- lives ---- */

static void pass_moment(struct life *l, bool change)
{
	l->tick += ++l->moment % PER_TICK == 0;
	clients(l);
	if (change && pick(60) == 0)
		reassign(l);
	if (change && pick(300) == 0)
		somebody_dies(l);
	if (change && l->rehashes && pick(100) == 0)
		change_algorithm(l);
	if (pick(PER_TICK) == 0)
		sweep_among_packets(l);
}

/* When nothing changes and nobody speaks, all comes to rest. */
static void assert_all_rests(struct life *l)
{
	bool busy = true;
	int ticks = 0;

	for (size_t i = 0; i < FLOWS; i++)
		close_flow(&l->flows[i]);
	for (; busy && ticks < 8 * (IDLE + HELD); ticks++) {
		l->tick++;
		busy = one_round(l);
	}
	assert_false(busy);
	one_round(l);
	for (uint32_t i = BASE; i < BASE + SLOTS; i++)
		assert_int_equal(XLB_SLOT_STATE(l->slots[i]),
				 l->services[SERVICE].rests ? XLB_REST
							    : XLB_SETTLED);
}

static struct life *life_new(uint32_t number, enum fault fault)
{
	struct life *l = mem_alloc(sizeof(*l));
	struct sweep_service *sv = &l->services[SERVICE];

	/* What has to be found is looked for in the same lives each time. */
	number += fault == SOUND ? seed : 1000;
	state_of_random = number * 2654435761u | 1;
	l->fault = fault;
	l->sweep = sweep_new();
	l->rules.fate = fate;
	l->rules.arg = l;
	l->rules.held = number % 3 == 2;
	l->tick = 240; /* its low byte comes round */
	l->flow_lines = number % 2 ? SLOTS * 4 : SLOTS / 4;
	*sv = (struct sweep_service){ .slot_base = BASE,
				      .slot_log2 = SLOT_LOG2,
				      .rests = true,
				      .memory_ticks = IDLE,
				      .idle_ticks = IDLE,
				      .held_ticks = HELD };
	if (fault == IMPATIENT)
		sv->idle_ticks = sv->memory_ticks = 0;
	for (uint32_t id = 1; id <= BACKENDS; id++)
		l->service_of[id] = SERVICE;
	for (uint32_t i = BASE; i < BASE + SLOTS; i++)
		l->slots[i] = XLB_SLOT(1, 1, XLB_REST);
	for (size_t i = 0; i < FLOWS; i++) {
		l->flows[i].hash = pick(UINT32_MAX);
		l->flows[i].client = pick(UINT32_MAX);
	}
	l->rehashes = number % 5 < 2;
	l->by_client = l->by_client_old = number % 5 == 1 || number % 5 == 2;
	l->services[SERVICE].by_client = l->by_client && fault != LINEWISE;
	return l;
}

static uint32_t live(uint32_t number, enum fault fault, uint32_t *rests)
{
	struct life *l = life_new(number, fault);
	uint32_t wrong;

	for (int i = 0; i < 3000; i++)
		pass_moment(l, i % 1000 < 700);
	wrong = l->wrong;
	l->roomy = true;
	if (fault == SOUND)
		assert_all_rests(l);
	*rests += l->rests;
	sweep_free(l->sweep);
	free(l);
	return wrong;
}

static void no_flow_is_broken(void **state)
{
	uint32_t count = getenv("XLB_SEED") ? 1 : 150, rests = 0;

	(void)state;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t wrong = live(i, SOUND, &rests);

		if (wrong)
			fail_msg("XLB_SEED=%u: %u packets went wrong", seed + i,
				 wrong);
	}
	print_message("# XLB_SEED=%u: %u slots came to rest\n", seed, rests);
	assert_true(rests > count * 10);
}

/*
 * One round for two, times too short, memories refused and not heeded, old
 * flows given up at once, and slots that rest by lines that aren't theirs.
 */
static void faults_are_found(void **state)
{
	(void)state;
	for (int fault = HASTY; fault < FAULTS; fault++) {
		uint32_t wrong = 0, rests = 0;

		for (uint32_t i = 0; i < 150; i++)
			wrong += live(i, (enum fault)fault, &rests);
		print_message("# fault %d: %u packets went wrong\n", fault,
			      wrong);
		assert_true(wrong > 0);
	}
}

/* ---- single promises ---- */

static uint64_t entry(uint32_t backend, uint8_t time, uint8_t generation,
		      enum xlb_flow_class class)
{
	return XLB_FLOW(1, time, generation, class, backend);
}

static void memories_run_out(void **state)
{
	struct life *l = life_new(0, SOUND);
	struct sweep_input in = { .services = l->services,
				  .service_of = l->service_of,
				  .backends = l->backends,
				  .slots = l->slots,
				  .slot_count = BASE + SLOTS,
				  .moved = l->moved,
				  .flow_lines = 32,
				  .now = 3 };
	const uint8_t last = (uint8_t)(3 - IDLE - 1);

	(void)state;
	l->backends[2].generation = 9;
	l->service_of[9] = 0;
	sweep_begin(l->sweep, &in);
	assert_true(
		sweep_keep(l->sweep, 0, entry(1, 3, 0, XLB_FLOW_ESTABLISHED)));
	assert_true(
		sweep_keep(l->sweep, 0, entry(1, last, 0, XLB_FLOW_CLOSING)));
	assert_false(sweep_keep(l->sweep, 0,
				entry(1, (uint8_t)(last - 1), 0,
				      XLB_FLOW_ESTABLISHED)));
	assert_false(
		sweep_keep(l->sweep, 0, entry(2, 3, 8, XLB_FLOW_ESTABLISHED)));
	assert_false(
		sweep_keep(l->sweep, 0, entry(9, 3, 0, XLB_FLOW_ESTABLISHED)));
	assert_int_equal(sweep_kept(l->sweep), 2);
	assert_true(sweep_saw(l->sweep, 9));
	assert_false(sweep_saw(l->sweep, 3));
	sweep_free(l->sweep);
	free(l);
}

static void connections_are_counted(void **state)
{
	struct life *l = life_new(0, SOUND);
	struct sweep_input in = { .services = l->services,
				  .service_of = l->service_of,
				  .backends = l->backends,
				  .slots = l->slots,
				  .slot_count = BASE + SLOTS,
				  .moved = l->moved,
				  .flow_lines = 32,
				  .now = 100 };

	(void)state;
	sweep_begin(l->sweep, &in);
	sweep_keep(l->sweep, 0, entry(1, 100, 0, XLB_FLOW_ESTABLISHED));
	sweep_keep(l->sweep, 0, entry(1, 97, 0, XLB_FLOW_ESTABLISHED));
	sweep_keep(l->sweep, 0, entry(1, 100, 0, XLB_FLOW_HALF_OPEN));
	sweep_keep(l->sweep, 0, entry(1, 97, 0, XLB_FLOW_HALF_OPEN));
	sweep_keep(l->sweep, 0, entry(1, 100, 0, XLB_FLOW_SIGHTED));
	sweep_keep(l->sweep, 0, entry(1, 100, 0, XLB_FLOW_CLOSING));
	sweep_keep(l->sweep, 0, entry(2, 100, 0, XLB_FLOW_ESTABLISHED));
	assert_int_equal(sweep_active(l->sweep, 1), 3);
	assert_int_equal(sweep_active(l->sweep, 2), 1);
	sweep_begin(l->sweep, &in);
	assert_int_equal(sweep_active(l->sweep, 1), 0);
	sweep_free(l->sweep);
	free(l);
}

static void tracked_slots_never_rest(void **state)
{
	struct life *l = life_new(1, SOUND);

	(void)state;
	l->services[SERVICE].rests = false;
	l->rules.kind = SLOTS_TRACKED;
	reassign(l);
	assert_all_rests(l);
	sweep_free(l->sweep);
	free(l);
}

int main(void)
{
	const char *given = getenv("XLB_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memories_run_out),
		cmocka_unit_test(connections_are_counted),
		cmocka_unit_test(tracked_slots_never_rest),
		cmocka_unit_test(no_flow_is_broken),
		cmocka_unit_test(faults_are_found),
	};

	seed = given ? (uint32_t)strtoul(given, NULL, 10)
		     : (uint32_t)time(NULL) % 1000000;
	return cmocka_run_group_tests_name("sweep", tests, NULL, NULL);
}
