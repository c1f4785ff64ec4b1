/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/packet_model.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIX_A 0x9E3779B97F4A7C15ULL
#define MIX_B 0xD6E8FEB86659FD93ULL
#define CLIENT_MIX 0xA24BAED4963EE407ULL
#define MAX_TAGS 2 /* VLAN tags that are looked through */
#define MAX_EXTENSIONS 4
#define QUOTA 3 /* half-open, and sighted, entries of a line */
#define CLOSING_TICKS 8

/* A TCP segment's part that tracking looks at. */
struct segment {
	bool syn; /* opens a connection */
	bool ends; /* FIN or RST */
	uint32_t seq;
	uint32_t payload;
};

/* A packet of a flow, on its way through the tables. */
struct step {
	struct model *m;
	const struct model_seen *seen;
	struct model_due *due;
	const struct xlb_vip *vip;
	struct model_key key; /* KEY_FLOW */
	uint64_t hash;
	uint32_t word;
	struct segment tcp;
	bool looks_only; /* a packet about the flow: changes nothing */
	bool new_flow;
	bool binds; /* the client's address to its backend */
};

/* --- tables --- */

int model_init(struct model *m, uint32_t slots, uint8_t flow_log2,
	       uint64_t flow_seed)
{
	memset(m, 0, sizeof(*m));
	m->slots = calloc(slots, sizeof(*m->slots));
	m->lines = calloc(1U << flow_log2, sizeof(*m->lines));
	m->flow_log2 = flow_log2;
	m->flow_seed = flow_seed;
	return m->slots && m->lines ? 0 : -ENOMEM;
}

void model_release(struct model *m)
{
	free(m->slots);
	free(m->lines);
}

void model_reset(struct model *m)
{
	memset(m->lines, 0, sizeof(*m->lines) << m->flow_log2);
	memset(m->vips, 0, sizeof(m->vips));
	memset(m->fragments, 0, sizeof(m->fragments));
	memset(m->marks, 0, sizeof(m->marks));
	memset(m->counters, 0, sizeof(m->counters));
	memset(m->drops, 0, sizeof(m->drops));
	memset(m->events, 0, sizeof(m->events));
	m->vip_count = 0;
	m->drained = false;
}

const struct xlb_vip *model_vip(const struct model *m, int family,
				const uint8_t addr[16], uint16_t port,
				uint8_t proto)
{
	for (unsigned int i = 0; i < m->vip_count; i++) {
		const struct xlb_vip *v = &m->vips[i];

		if (v->family == family && v->port == port &&
		    v->proto == proto && !memcmp(v->addr, addr, 16))
			return v;
	}
	return NULL;
}

static bool is_vip_address(const struct model *m, int family,
			   const uint8_t addr[16])
{
	for (unsigned int i = 0; i < m->vip_count; i++)
		if (m->vips[i].family == family &&
		    !memcmp(m->vips[i].addr, addr, 16))
			return true;
	return false;
}

/* --- hashes --- */

static uint64_t hash_of(uint64_t seed, const struct model_key *key,
			uint32_t ports)
{
	uint64_t lo = 0, hi = 0, h;

	memcpy(&lo, key->client, key->family == 4 ? 4 : 8);
	if (key->family == 4) {
		h = ((lo << 32 | ports) ^ seed) * MIX_A;
		return (h ^ h >> 32) * MIX_B;
	}
	memcpy(&hi, key->client + 8, 8);
	h = (lo ^ seed) * MIX_A + (hi ^ seed >> 32) * MIX_B;
	h = (h ^ h >> 32 ^ (uint64_t)ports << 16) * MIX_A;
	return (h ^ h >> 32) * MIX_B;
}

/* Of a line and a tag; a client's own have no ports. */
uint64_t model_hash(const struct model *m, const struct model_key *key)
{
	uint32_t ports = key->client_port | (uint32_t)key->vip_port << 16;

	return hash_of(m->flow_seed, key, ports);
}

/* One client's flows share a slot, where only its address is hashed. */
static uint32_t slot_word(const struct model *m, const struct xlb_vip *vip,
			  const struct model_key *key, bool by_client)
{
	uint64_t hash =
		by_client ? hash_of(m->flow_seed, key, 0) : model_hash(m, key);

	return m->slots[vip->slot_base +
			(uint32_t)(hash >> 32 >> vip->slot_shift)];
}

uint32_t model_line_of(const struct model *m, uint64_t hash)
{
	return (uint32_t)(hash >> 32 >> (32 - m->flow_log2));
}

static uint64_t dest_of(const struct model_key *key)
{
	uint64_t lo = 0, hi;

	memcpy(&lo, key->vip, key->family == 4 ? 4 : 8);
	if (key->family == 4)
		return lo | (uint64_t)key->proto << 32;
	memcpy(&hi, key->vip + 8, 8);
	return (lo ^ hi * MIX_A) + key->proto;
}

static uint32_t tag_of(const struct model *m, const struct model_key *key)
{
	uint64_t hash = model_hash(m, key), k;

	if (key->kind == KEY_CLIENT)
		hash ^= CLIENT_MIX;
	k = (hash ^ dest_of(key) * MIX_B) * MIX_A;
	if (key->kind == KEY_HALF)
		k = (k ^ key->seq) * MIX_B;
	return (uint32_t)(k >> 33);
}

/* --- memories --- */

uint64_t model_word(const struct model_memory *e)
{
	return e->backend ? XLB_FLOW(e->tag, e->time, e->generation, e->class,
				     e->backend)
			  : 0;
}

bool model_alive(const struct model *m, const struct model_memory *e)
{
	return e->backend &&
	       m->backends[e->backend].generation == e->generation;
}

static uint8_t age(const struct model *m, const struct model_memory *e)
{
	return (uint8_t)(m->now - e->time);
}

/* May anybody take its place? */
static bool is_free(const struct model *m, const struct model_memory *e)
{
	return !model_alive(m, e) || age(m, e) > XLB_FLOW_STALE ||
	       (e->class == XLB_FLOW_CLOSING && age(m, e) > CLOSING_TICKS);
}

static struct model_line *line_at(struct step *s, uint64_t hash)
{
	uint32_t n = model_line_of(s->m, hash);
	struct model_due *due = s->due;

	if (!due->lines || due->line[0] != n) {
		due->line[due->lines ? 1 : 0] = n;
		due->lines += due->lines < 2;
	}
	return &s->m->lines[n];
}

static bool is_of(const struct step *s, const struct model_memory *e,
		  const struct model_key *key, unsigned int classes)
{
	return classes & 1U << e->class && model_alive(s->m, e) &&
	       !memcmp(&e->key, key, sizeof(*key));
}

/*
 * The living memory of that key and any of these classes (bits); or NULL.  Of
 * two of one handshake (its data's number was remembered already, when its
 * first number was forgotten) the program may take either.
 */
static struct model_memory *find(struct step *s, struct model_line *line,
				 const struct model_key *key,
				 unsigned int classes)
{
	const __u64 *seen = s->seen->lines[line - s->m->lines].entry;
	struct model_memory *found = NULL;
	int best = -1;

	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		struct model_memory *e = &line->way[i];
		int fits = 4 * (e->backend == s->seen->backend) +
			   2 * (seen[i] != model_word(e)) +
			   (e->time == (uint8_t)s->m->now);

		if (!is_of(s, e, key, classes) || fits <= best)
			continue;
		best = fits;
		found = e;
	}
	return found;
}

#define HALF (1U << XLB_FLOW_HALF_OPEN)
#define KNOWN                                                  \
	(1U << XLB_FLOW_ESTABLISHED | 1U << XLB_FLOW_CLOSING | \
	 1U << XLB_FLOW_SIGHTED)

static void touch(struct step *s, struct model_memory *e)
{
	if (!s->looks_only)
		e->time = (uint8_t)s->m->now;
}

/* Ways of a line as a new entry of a class finds them. */
struct census {
	unsigned int own; /* of its class, that are somebody's */
	unsigned int yield; /* of them, whose place it may take */
	unsigned int empty, outdated;
};

/*
 * Whose place a new entry may take, of its own class: anybody's, nobody's, or
 * that of a flow of this backend, which finds its way unremembered as well.
 */
#define OF_ANY 0U
#define OF_NONE UINT32_MAX

static bool yields(const struct model_memory *e, uint32_t victim)
{
	return victim == OF_ANY || e->backend == victim;
}

static struct census count_line(const struct model *m,
				const struct model_line *line,
				enum xlb_flow_class class, uint32_t victim)
{
	struct census n = { 0 };

	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		const struct model_memory *e = &line->way[i];

		if (!model_alive(m, e))
			n.empty++;
		else if (is_free(m, e))
			n.outdated++;
		else if (e->class == class) {
			n.own++;
			n.yield += yields(e, victim);
		}
	}
	return n;
}

/* Might a new entry of the class have taken the place of `old`? */
static bool place_is_due(const struct model *m, const struct model_line *line,
			 const struct model_memory *old,
			 enum xlb_flow_class class, uint32_t victim)
{
	struct census n = count_line(m, line, class, victim);

	if (n.own < QUOTA && n.empty)
		return !model_alive(m, old);
	if (n.own < QUOTA && n.outdated)
		return is_free(m, old);
	return old->class == class && !is_free(m, old) && yields(old, victim);
}

static bool holds(const struct model_line *line, uint64_t word)
{
	for (int i = 0; i < XLB_FLOW_WAYS; i++)
		if (model_word(&line->way[i]) == word)
			return true;
	return false;
}

/* As far as can be seen: a dropped packet doesn't say whose it was. */
static bool goes_to(const struct step *s, uint32_t backend)
{
	return !s->seen->backend || s->seen->backend == backend;
}

/* The way where the program wrote this, which the model doesn't have; or -1. */
static int way_seen(const struct step *s, const struct model_line *line,
		    uint64_t word)
{
	const __u64 *seen = s->seen->lines[line - s->m->lines].entry;

	for (int i = 0; i < XLB_FLOW_WAYS; i++)
		if (seen[i] == word && model_word(&line->way[i]) != word)
			return i;
	return -1;
}

/* Could there be no room for one of its class? */
static bool full(const struct model *m, const struct model_line *line,
		 enum xlb_flow_class class, uint32_t victim)
{
	struct census n = count_line(m, line, class, victim);

	return !n.yield && (n.own >= QUOTA || (!n.empty && !n.outdated));
}

static bool refused(struct step *s, const struct model_line *line,
		    enum xlb_flow_class class, uint32_t victim)
{
	if (class == XLB_FLOW_HALF_OPEN && s->m->drained)
		s->m->events[XLB_EVENT_RATE]++;
	else if (full(s->m, line, class, victim))
		s->m->events[XLB_EVENT_NO_ROOM]++;
	else
		s->due->illegal = "not remembered, although there is room";
	return false;
}

/* Ticks in which a flow may once look for a place where it is crowded. */
#define TURNS 8

static bool has_turn(const struct step *s)
{
	unsigned int now = (uint8_t)s->m->now;

	return ((tag_of(s->m, &s->key) >> (3 + now / 16)) + now) % TURNS == 0;
}

/*
 * May a flow that was seen for the first time look for a place?  Only in its
 * turn where all are taken in this tick, whatever became of their backends, or
 * as many as may be by flows that were first seen in it; and not at all where
 * all are of established flows.
 */
static bool may_look(const struct step *s, const struct model_line *line)
{
	unsigned int spoke = 0, new = 0, taken = 0, known = 0;

	for (int i = 0; i < XLB_FLOW_WAYS; i++) {
		const struct model_memory *e = &line->way[i];
		bool now = e->backend && e->time == (uint8_t)s->m->now;

		taken += e->backend != 0;
		spoke += now;
		known += now && e->class == XLB_FLOW_ESTABLISHED;
		new += now && e->class == XLB_FLOW_SIGHTED;
	}
	if (spoke == XLB_FLOW_WAYS)
		return known < spoke && has_turn(s);
	return taken == XLB_FLOW_WAYS || new < QUOTA || has_turn(s);
}

static struct model_key half_key(const struct step *s, uint32_t seq)
{
	struct model_key key = s->key;

	key.kind = KEY_HALF;
	key.seq = seq;
	return key;
}

static struct model_memory make_memory(const struct step *s,
				       const struct model_key *key,
				       enum xlb_flow_class class,
				       uint32_t backend)
{
	return (struct model_memory){
		.key = *key,
		.tag = tag_of(s->m, key),
		.class = class,
		.backend = backend,
		.generation = s->m->backends[backend].generation,
		.time = (uint8_t)s->m->now,
	};
}

/* Is it remembered?  Then the model has it where the program put it. */
static bool remember(struct step *s, struct model_line *line,
		     const struct model_key *key, enum xlb_flow_class class,
		     uint32_t backend, uint32_t victim)
{
	struct model_memory e = make_memory(s, key, class, backend);
	int way = way_seen(s, line, model_word(&e));
	struct model_memory *old = &line->way[way < 0 ? 0 : way];

	if (way < 0 && goes_to(s, backend) && holds(line, model_word(&e)))
		return true; /* in its own place again */
	if (way < 0)
		return refused(s, line, class, victim);
	if (!place_is_due(s->m, line, old, class, victim))
		s->due->illegal = "remembered in another's place";
	if (!is_free(s->m, old) && class == XLB_FLOW_SIGHTED)
		s->m->events[XLB_EVENT_NO_ROOM]++;
	*old = e;
	return true;
}

/* --- which backend --- */

/* A backend for a flow that isn't remembered. */
static uint32_t by_slot(const struct step *s)
{
	enum xlb_slot_state state = XLB_SLOT_STATE(s->word);

	if ((state == XLB_MOVING || state == XLB_HELD) &&
	    XLB_SLOT_PREV(s->word))
		return XLB_SLOT_PREV(s->word);
	return XLB_SLOT_CUR(s->word);
}

static uint32_t slots_of(const struct xlb_vip *vip)
{
	return 1U << (32 - vip->slot_shift);
}

static bool is_candidate(const struct step *s, uint32_t id)
{
	for (uint32_t i = 0; i < slots_of(s->vip); i++)
		if (XLB_SLOT_CUR(s->m->slots[s->vip->slot_base + i]) == id)
			return true;
	return false;
}

static uint32_t first_candidate(const struct step *s)
{
	return XLB_SLOT_CUR(s->m->slots[s->vip->slot_base]);
}

/* Two choices leave a trace: the load of the chosen one. */
static uint32_t pick_by_load(struct step *s)
{
	for (uint32_t i = 0; i < slots_of(s->vip); i++) {
		uint32_t id = XLB_SLOT_CUR(s->m->slots[s->vip->slot_base + i]);
		struct xlb_load *load = &s->m->loads[id];

		if (!id || s->seen->loads[id].load == load->load)
			continue;
		load->load += load->step;
		return id;
	}
	return 0;
}

/* The half-open or sighted memory that the program made of this packet. */
static uint32_t pick_by_memory(struct step *s, const struct model_key *key,
			       uint32_t base, uint32_t count)
{
	struct model_line *line = line_at(s, s->hash);
	enum xlb_flow_class class =
		key->kind == KEY_HALF ? XLB_FLOW_HALF_OPEN : XLB_FLOW_SIGHTED;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t id = XLB_SLOT_CUR(s->m->slots[base + i]);
		struct model_memory e = make_memory(s, key, class, id);

		if (id &&
		    (way_seen(s, line, model_word(&e)) >= 0 ||
		     (id == s->seen->backend && holds(line, model_word(&e)))))
			return id;
	}
	return 0;
}

/* Of these words; 0: nothing says so. */
static uint32_t pick_seen(struct step *s, uint32_t base, uint32_t count)
{
	struct model_key key =
		s->tcp.syn ? half_key(s, s->tcp.seq + 1) : s->key;
	uint32_t id = pick_by_memory(s, &key, base, count);

	key.seq += s->tcp.payload;
	if (!id && s->tcp.syn)
		id = pick_by_memory(s, &key, base, count);
	return id;
}

/* Each CPU walks the schedule by itself. */
static uint32_t pick_schedule(struct step *s)
{
	uint32_t count = 1U << (32 - s->vip->schedule_shift);
	uint32_t at = s->m->cursors[s->vip->service]++ & (count - 1);

	return XLB_SLOT_CUR(s->m->slots[s->vip->schedule_base + at]);
}

static uint32_t pick_any(struct step *s)
{
	uint32_t id = pick_seen(s, s->vip->slot_base, slots_of(s->vip));

	if (!id)
		id = s->seen->backend;
	/* Seen was perhaps where a flow goes that could not be remembered. */
	return is_candidate(s, id) ? id : first_candidate(s);
}

/* Of a flow that neither the algorithm nor a memory places. */
static uint32_t by_owner(const struct step *s)
{
	return XLB_SLOT_STATE(s->word) == XLB_HELD ? by_slot(s)
						   : XLB_SLOT_CUR(s->word);
}

static bool picks(const struct step *s)
{
	return s->vip->flags & XLB_VIP_PICKS;
}

static bool is_moving(const struct step *s)
{
	enum xlb_slot_state state = XLB_SLOT_STATE(s->word);

	return state == XLB_MOVING || state == XLB_HELD;
}

static uint32_t pick(struct step *s)
{
	uint32_t id;

	if (s->vip->flags & XLB_VIP_SCHEDULE)
		id = pick_schedule(s);
	else if (s->vip->flags & XLB_VIP_TWO_CHOICES)
		id = pick_by_load(s);
	else
		id = pick_any(s);
	return id ? id : by_owner(s);
}

static struct model_key client_key(const struct step *s)
{
	struct model_key key = s->key;

	key.kind = KEY_CLIENT;
	key.client_port = key.vip_port = 0;
	return key;
}

static bool leaves(const struct step *s, uint32_t backend)
{
	return s->m->backends[backend].flags & XLB_BACKEND_LEAVING;
}

/* The client's memory while it binds; with `any`, one that is too old, too. */
static struct model_memory *client_memory(struct step *s, bool any)
{
	struct model_key key = client_key(s);
	struct model_line *line = line_at(s, model_hash(s->m, &key));
	struct model_memory *e = find(s, line, &key, KNOWN);

	if (e && !any &&
	    (age(s->m, e) > s->vip->affinity_ticks || leaves(s, e->backend)))
		return NULL;
	return e;
}

/* Where a SYN goes that nothing is remembered of. */
static uint32_t new_owner(struct step *s)
{
	struct model_memory *client = NULL;

	if (picks(s))
		return pick(s);
	if (s->vip->flags & XLB_VIP_CLIENT_HASH)
		client = client_memory(s, false);
	return client ? client->backend : by_owner(s);
}

/* Did the second of a SYN's two memories take the place of the first? */
static bool second_took_first(struct step *s, struct model_line *line,
			      const struct model_key *second, uint32_t backend)
{
	struct model_memory e =
		make_memory(s, second, XLB_FLOW_HALF_OPEN, backend);
	struct census n = count_line(s->m, line, XLB_FLOW_HALF_OPEN, OF_ANY);

	return s->tcp.payload &&
	       (way_seen(s, line, model_word(&e)) >= 0 ||
		(goes_to(s, backend) && holds(line, model_word(&e)))) &&
	       (n.own + 1 >= QUOTA || n.empty + n.outdated < 2);
}

/* The memory of a SYN's handshake; false: it could not be made. */
static bool remember_half(struct step *s, struct model_line *line,
			  uint32_t backend)
{
	struct model_key key = half_key(s, s->tcp.seq + 1);
	struct model_key second = half_key(s, key.seq + s->tcp.payload);
	struct model_memory e =
		make_memory(s, &key, XLB_FLOW_HALF_OPEN, backend);

	if (way_seen(s, line, model_word(&e)) < 0 &&
	    second_took_first(s, line, &second, backend))
		return remember(s, line, &second, XLB_FLOW_HALF_OPEN, backend,
				OF_ANY);
	if (!remember(s, line, &key, XLB_FLOW_HALF_OPEN, backend, OF_ANY))
		return false;
	if (s->tcp.payload)
		remember(s, line, &second, XLB_FLOW_HALF_OPEN, backend, OF_ANY);
	return true;
}

/*
 * A SYN is remembered where the packets after it would otherwise go elsewhere,
 * or where they may later.
 */
static bool must_remember(const struct step *s, uint32_t target,
			  const struct model_memory *known)
{
	return known || picks(s) || XLB_SLOT_STATE(s->word) == XLB_MOVING ||
	       target != by_slot(s);
}

static uint32_t tcp_syn(struct step *s, struct model_line *line)
{
	struct model_key key = half_key(s, s->tcp.seq + 1);
	struct model_memory *half = find(s, line, &key, HALF), *known;
	uint32_t target;

	if (half) {
		touch(s, half);
		return half->backend;
	}
	known = find(s, line, &s->key, KNOWN);
	target = new_owner(s);
	/* Past the rate nobody asks whether there is an owner. */
	if (!target && s->m->drained && known && picks(s) &&
	    s->seen->backend == known->backend) {
		touch(s, known);
		return known->backend;
	}
	if (!target && s->m->drained && s->seen->backend == by_slot(s))
		return by_slot(s);
	if (!target || !must_remember(s, target, known))
		return target;
	s->binds = remember_half(s, line, target);
	if (s->binds)
		return target;
	if (!known)
		return by_slot(s);
	touch(s, known);
	return known->backend;
}

/* FIN and RST end what is counted, and data brings it back. */
static enum xlb_flow_class class_after(const struct step *s,
				       const struct model_memory *e)
{
	if (!(s->vip->flags & XLB_VIP_COUNTED))
		return XLB_FLOW_ESTABLISHED;
	if (s->tcp.ends || (e->class == XLB_FLOW_CLOSING && !s->tcp.payload))
		return XLB_FLOW_CLOSING;
	return XLB_FLOW_ESTABLISHED;
}

/* The flow spoke: what was half-open or sighted is established now. */
static uint32_t heard(struct step *s, struct model_memory *e)
{
	if (s->looks_only)
		return e->backend;
	e->class = class_after(s, e);
	e->key = s->key;
	e->tag = tag_of(s->m, &s->key);
	touch(s, e);
	return e->backend;
}

static uint32_t tcp_other(struct step *s, struct model_line *line)
{
	struct model_key key = half_key(s, s->tcp.seq);
	struct model_memory *half = find(s, line, &key, HALF);
	struct model_memory *known = find(s, line, &s->key, KNOWN);

	s->binds = true;
	if (half && !s->looks_only) {
		if (known)
			*known = (struct model_memory){ 0 };
		return heard(s, half);
	}
	if (known)
		return heard(s, known);
	if (s->looks_only || !is_moving(s) || !XLB_SLOT_PREV(s->word))
		return by_slot(s);
	if (may_look(s, line))
		remember(s, line, &s->key, XLB_FLOW_SIGHTED, by_slot(s),
			 by_slot(s));
	else
		s->m->events[XLB_EVENT_NO_ROOM]++;
	return by_slot(s);
}

static uint32_t udp_sticky(struct step *s, struct model_line *line)
{
	struct model_memory *known = find(s, line, &s->key, KNOWN);
	uint32_t id;

	s->binds = true;
	if (known)
		return heard(s, known);
	if (s->looks_only)
		return by_slot(s);
	id = new_owner(s);
	if (!id) {
		s->binds = false;
		return 0;
	}
	s->new_flow = remember(s, line, &s->key, XLB_FLOW_SIGHTED, id, OF_ANY);
	return s->new_flow ? id : by_slot(s);
}

/* What the client's address is bound to follows what its packets got. */
static void bind_client(struct step *s, uint32_t backend)
{
	struct model_key key = client_key(s);
	struct model_memory *e;

	if (!backend || s->looks_only || !s->binds ||
	    !(s->vip->flags & XLB_VIP_CLIENT_HASH))
		return;
	/* The owner of a slot that is settled needs no tie. */
	if (leaves(s, backend) || (XLB_SLOT_STATE(s->word) == XLB_SETTLED &&
				   XLB_SLOT_CUR(s->word) == backend))
		return;
	e = client_memory(s, true);
	if (!e) {
		remember(s, line_at(s, model_hash(s->m, &key)), &key,
			 XLB_FLOW_SIGHTED, backend, OF_NONE);
		return;
	}
	if (e->backend != backend) {
		if (age(s->m, e) <= s->vip->affinity_ticks &&
		    !leaves(s, e->backend))
			return;
		e->class = XLB_FLOW_SIGHTED;
		e->backend = backend;
		e->generation = s->m->backends[backend].generation;
	} else {
		e->class = XLB_FLOW_ESTABLISHED;
	}
	touch(s, e);
}

static uint32_t tcp_backend(struct step *s)
{
	struct model_line *line = line_at(s, s->hash);
	uint32_t id;

	s->new_flow = s->tcp.syn;
	if (!picks(s) && XLB_SLOT_STATE(s->word) == XLB_REST)
		return XLB_SLOT_CUR(s->word);
	id = s->tcp.syn ? tcp_syn(s, line) : tcp_other(s, line);
	bind_client(s, id);
	return id;
}

static uint32_t udp_backend(struct step *s)
{
	uint32_t id;

	if (s->vip->flags & XLB_VIP_STICKY) {
		id = udp_sticky(s, line_at(s, s->hash));
		bind_client(s, id);
		return id;
	}
	if (picks(s) && !s->looks_only)
		return pick(s);
	/* Nobody knows where a datagram that was picked for went. */
	if (s->looks_only && XLB_SLOT_STATE(s->word) != XLB_REST)
		return 0;
	return XLB_SLOT_CUR(s->word);
}

static bool changes(const struct xlb_vip *vip)
{
	uint16_t flags = vip->flags & XLB_VIP_CLIENT;

	return flags && flags != XLB_VIP_CLIENT;
}

/* New flows go to their own slot's owner, unknown ones where theirs led. */
static uint32_t between(struct step *s)
{
	uint32_t owner = by_owner(s);

	s->word = slot_word(s->m, s->vip, &s->key,
			    s->vip->flags & XLB_VIP_CLIENT_OLD);
	return XLB_SLOT(owner, by_slot(s), XLB_MOVING);
}

static uint32_t backend_of(struct step *s)
{
	s->hash = model_hash(s->m, &s->key);
	s->word = slot_word(s->m, s->vip, &s->key,
			    s->vip->flags & XLB_VIP_CLIENT_HASH);
	s->due->word = s->word;
	if (changes(s->vip))
		s->word = between(s);
	return s->vip->proto == IPPROTO_TCP ? tcp_backend(s) : udp_backend(s);
}

/* --- what is sent --- */

static void drop(struct step *s, enum xlb_drop reason)
{
	s->due->verdict = LAB_DROP;
	s->due->reason = reason;
	s->m->drops[reason]++;
}

static const __u64 *next_hop(const struct xlb_backend *be, int family)
{
	return family == 4 ? be->l2_v4 : be->l2_v6;
}

/* A backend without an address of the family can't be routed to either. */
static bool reachable(const struct xlb_backend *be, int family)
{
	static const uint32_t none[4];

	if (!(be->flags & XLB_BACKEND_STACK))
		return next_hop(be, family)[0] != 0;
	return family == 4 ? be->addr4 != 0
			   : memcmp(be->addr6, none, sizeof(none)) != 0;
}

static uint16_t target_port(const struct step *s, const struct xlb_backend *be)
{
	return be->port ? be->port : s->vip->target_port;
}

static void count(struct step *s, uint32_t id, size_t bytes)
{
	struct xlb_counter *c = &s->m->counters[id];

	c->packets++;
	c->bytes += bytes;
	c->flows += s->new_flow;
}

/* A checksum after `from` became `to`, RFC 1624 equation 3. */
static void csum_follow(uint8_t *csum, const void *from, const void *to,
			size_t len)
{
	const uint8_t *a = from;
	uint16_t old, sum;
	uint8_t inverse[16];

	for (size_t i = 0; i < len; i++)
		inverse[i] = (uint8_t)~a[i];
	memcpy(&old, csum, 2);
	sum = packet_sum(inverse, len, (uint16_t)~ntohs(old));
	sum = packet_sum(to, len, sum);
	old = htons((uint16_t)~sum);
	memcpy(csum, &old, 2);
}

/* The transport's checksum follows; absent and zero have their own rules. */
static void l4_csum_follow(uint8_t *csum, uint8_t proto, const void *from,
			   const void *to, size_t len)
{
	if (proto == IPPROTO_UDP && !csum[0] && !csum[1])
		return;
	csum_follow(csum, from, to, len);
	if (proto == IPPROTO_UDP && !csum[0] && !csum[1])
		csum[0] = csum[1] = 0xff;
}

static const void *backend_addr(const struct xlb_backend *be, int family)
{
	return family == 4 ? (const void *)&be->addr4 : be->addr6;
}

/* Destination address and hop limit, and the IPv4 header's checksum. */
static void rewrite_ip(struct step *s, const struct packet_view *v,
		       const struct xlb_backend *be)
{
	size_t len = v->family == 4 ? 4 : 16;
	uint8_t *ip = s->due->frame + v->l3;
	uint8_t old[20];

	memcpy(old, ip, 20);
	memcpy(ip + (v->family == 4 ? 16 : 24), backend_addr(be, v->family),
	       len);
	if (!(be->flags & XLB_BACKEND_STACK))
		ip[v->family == 4 ? 8 : 7]--;
	if (v->family == 4) {
		csum_follow(ip + 10, old + 8, ip + 8, 2);
		csum_follow(ip + 10, old + 16, ip + 16, 4);
	}
}

static void rewrite_ports(struct step *s, const struct packet_view *v,
			  const struct xlb_backend *be)
{
	uint8_t *l4 = s->due->frame + v->l4;
	uint8_t *csum = s->due->frame + packet_l4_csum_at(v);
	uint16_t port = target_port(s, be);

	l4_csum_follow(csum, v->proto, v->dst, backend_addr(be, v->family),
		       v->family == 4 ? 4 : 16);
	l4_csum_follow(csum, v->proto, l4 + 2, &port, 2);
	memcpy(l4 + 2, &port, 2);
}

/* What was right is to be right: said by sums from nothing. */
static void check_sums(struct step *s, const struct packet_view *was)
{
	struct packet_view is;

	packet_view(s->due->frame, s->due->size, &is);
	if (packet_csums_good(was) && !packet_csums_good(&is))
		s->due->illegal = "the model's own checksum is wrong";
}

/* Does it go back by the interface where it came in?  tc only redirects. */
static bool returns(const struct step *s, const struct xlb_backend *be,
		    uint32_t ifindex)
{
	return !s->m->tc && be->flags & XLB_BACKEND_TX &&
	       ifindex == s->m->ingress;
}

static void leave(struct step *s, const struct xlb_backend *be, int family)
{
	const __u64 *hop = next_hop(be, family);

	s->due->verdict = be->flags & XLB_BACKEND_STACK ? LAB_PASS
			  : returns(s, be, (uint32_t)(hop[1] >> 32))
				  ? LAB_TX
				  : LAB_REDIRECT;
	if (!(be->flags & XLB_BACKEND_STACK))
		memcpy(s->due->frame, hop, 12);
}

/* An address of one host, which may be answered. */
static bool is_host(int family, const uint8_t addr[16])
{
	static const uint8_t none[15];

	if (family == 4)
		return addr[0] && addr[0] != 127 && addr[0] < 224;
	return addr[0] != 0xff &&
	       (memcmp(addr, none, sizeof(none)) != 0 || addr[15] > 1);
}

/* An answer to its sender. */
static void answer(struct step *s)
{
	s->due->verdict = LAB_REDIRECT;
	s->due->answer = true;
}

/* room: bytes that would come in front; there are no errors about errors. */
static bool is_too_big(struct step *s, const struct packet_view *v,
		       const struct xlb_backend *be, size_t room)
{
	if (!be->mtu || v->ip_len + room <= be->mtu)
		return false;
	drop(s, XLB_DROP_TOO_BIG);
	if (s->looks_only || !v->may_not_fragment || v->size < 14 + 128 ||
	    !is_host(v->family, v->src))
		return true;
	answer(s);
	s->due->mtu = be->mtu - (uint32_t)room;
	return true;
}

/* --- behind other headers --- */

static bool is_wrapped(enum xlb_forwarding forwarding)
{
	return forwarding == XLB_IPIP || forwarding == XLB_GUE;
}

/* Of the headers in front: the packet's own, if the backend has it. */
static int outer_family(const struct xlb_backend *be, int family)
{
	static const uint32_t none[4];

	if (family == 4)
		return be->addr4 ? 4 : 6;
	return memcmp(be->addr6, none, sizeof(none)) != 0 ? 6 : 4;
}

static size_t outer_bytes(int family, enum xlb_forwarding forwarding)
{
	return (family == 4 ? 20U : 40U) + (forwarding == XLB_GUE ? 8U : 0U);
}

static bool has_source(const struct model *m, int family)
{
	static const uint32_t none[4];

	return family == 4 ? m->source4 != 0
			   : memcmp(m->source6, none, sizeof(none)) != 0;
}

static bool may_wrap(struct step *s, const struct packet_view *v,
		     const struct xlb_backend *be,
		     enum xlb_forwarding forwarding)
{
	int family = outer_family(be, v->family);
	size_t room = outer_bytes(family, forwarding);

	if (is_too_big(s, v, be, room))
		return false;
	if (be->flags & XLB_BACKEND_STACK || !next_hop(be, family)[0])
		drop(s, XLB_DROP_NO_NEXT_HOP);
	else if (v->ip_len + room > 65535 ||
		 (forwarding == XLB_GUE && !has_source(s->m, family)))
		drop(s, XLB_DROP_ENCAP);
	else
		return true;
	return false;
}

static struct model_mark *mark_of(struct model *m, const struct model_key *key)
{
	struct model_mark *mark;

	for (int i = 0; i < MODEL_MARKS; i++)
		if (!memcmp(&m->marks[i].key, key, sizeof(*key)))
			return &m->marks[i];
	mark = &m->marks[m->mark_next++ % MODEL_MARKS];
	*mark = (struct model_mark){ .key = *key };
	return mark;
}

static bool place_is_spread(const struct model *m, enum model_place place)
{
	uint64_t first = 0;
	int n = 0;

	for (int i = 0; i < MODEL_MARKS; i++) {
		const struct model_mark *mark = &m->marks[i];

		if (!mark->known[place] || mark->key.kind != KEY_FLOW)
			continue;
		if (n++ && mark->at[place] != first)
			return true;
		first = mark->at[place];
	}
	return n < 5;
}

bool model_spread(const struct model *m)
{
	for (int i = 0; i < PLACES; i++)
		if (!place_is_spread(m, (enum model_place)i))
			return false;
	return true;
}

/* What the program wrote into these bits of the packet is right so far. */
static void take_mark(struct step *s, const struct model_key *key,
		      enum model_place place, size_t at, size_t len,
		      uint64_t mask)
{
	struct model_mark *mark = mark_of(s->m, key);
	uint8_t *due = s->due->frame + at;
	uint64_t value = 0;

	if (s->seen->size < at + len)
		return;
	for (size_t i = 0; i < len; i++)
		value = value << 8 | s->seen->frame[at + i];
	value &= mask;
	if (mark->known[place] && mark->at[place] != value)
		s->due->illegal = "a flow's outer headers change";
	mark->known[place] = true;
	mark->at[place] = value;
	for (size_t i = len; i--; value >>= 8)
		due[i] |= (uint8_t)value;
}

static void put16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void outer_v4(struct step *s, const struct packet_view *v,
		     const struct xlb_backend *be, bool gue,
		     const struct model_key *key)
{
	uint8_t *ip = s->due->frame + 14;
	uint16_t csum;

	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[1] = v->tos;
	put16(ip + 2, outer_bytes(4, gue ? XLB_GUE : XLB_IPIP) + v->ip_len);
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = gue		 ? IPPROTO_UDP
		: v->family == 4 ? IPPROTO_IPIP
				 : IPPROTO_IPV6;
	if (gue) {
		memcpy(ip + 12, &s->m->source4, 4);
	} else {
		ip[12] = 172;
		ip[13] = 16;
		take_mark(s, key, PLACE_V4, 14 + 14, 2, 0xffff);
	}
	memcpy(ip + 16, &be->addr4, 4);
	csum = (uint16_t)~packet_sum(ip, 20, 0);
	put16(ip + 10, csum);
}

static void outer_v6(struct step *s, const struct packet_view *v,
		     const struct xlb_backend *be, bool gue,
		     const struct model_key *key)
{
	uint8_t *ip = s->due->frame + 14;

	memset(ip, 0, 40);
	ip[0] = (uint8_t)(0x60 | v->tos >> 4);
	ip[1] = (uint8_t)(v->tos << 4);
	take_mark(s, key, PLACE_LABEL, 14 + 1, 3, 0xfffff);
	put16(ip + 4, v->ip_len + (gue ? 8 : 0));
	ip[6] = gue		 ? IPPROTO_UDP
		: v->family == 4 ? IPPROTO_IPIP
				 : IPPROTO_IPV6;
	ip[7] = 64;
	if (gue) {
		memcpy(ip + 8, s->m->source6, 16);
	} else {
		ip[8] = 1;
		take_mark(s, key, PLACE_V6, 14 + 16, 8, UINT64_MAX);
	}
	memcpy(ip + 24, be->addr6, 16);
}

static void outer_udp(struct step *s, const struct packet_view *v, size_t at,
		      const struct model_key *key)
{
	uint8_t *udp = s->due->frame + at;

	memset(udp, 0, 8);
	take_mark(s, key, PLACE_PORT, at, 2, 0xffff);
	if (udp[0] < 49152 / 256)
		s->due->illegal = "the outer source port is a server's";
	put16(udp + 2, XLB_GUE_PORT);
	put16(udp + 4, 8 + v->ip_len);
}

/* key: what says which packets stay together. */
static void wrap(struct step *s, const struct packet_view *v,
		 const struct xlb_backend *be, enum xlb_forwarding forwarding,
		 const struct model_key *key)
{
	int family = outer_family(be, v->family);
	size_t room = outer_bytes(family, forwarding);
	bool gue = forwarding == XLB_GUE;
	uint8_t *frame = s->due->frame;

	memmove(frame + 14 + room, frame + 14, s->due->size - 14);
	s->due->size += room;
	put16(frame + 12, family == 4 ? 0x0800 : 0x86dd);
	(family == 4 ? outer_v4 : outer_v6)(s, v, be, gue, key);
	if (gue)
		outer_udp(s, v, 14 + room - 8, key);
	leave(s, be, family);
}

/* --- to the backend --- */

/* Can the packet go to this backend?  If not, what is due instead is. */
static bool may_go(struct step *s, const struct packet_view *v,
		   const struct xlb_backend *be, bool nat)
{
	/* The host's stack owns the address that the packet would still have. */
	if (!reachable(be, v->family) ||
	    (!nat && be->flags & XLB_BACKEND_STACK)) {
		drop(s, XLB_DROP_NO_NEXT_HOP);
		return false;
	}
	if (is_too_big(s, v, be, 0))
		return false;
	if (nat && v->hops <= 1 && !(be->flags & XLB_BACKEND_STACK)) {
		drop(s, XLB_DROP_TTL);
		return false;
	}
	return true;
}

static void forward(struct step *s, const struct packet_view *v, uint32_t id,
		    enum xlb_forwarding forwarding, const struct model_key *key)
{
	const struct xlb_backend *be = &s->m->backends[id];
	bool nat = forwarding == XLB_NAT;

	if (is_wrapped(forwarding) ? !may_wrap(s, v, be, forwarding)
				   : !may_go(s, v, be, nat))
		return;
	s->due->backend = id;
	count(s, id, v->size);
	if (is_wrapped(forwarding)) {
		wrap(s, v, be, forwarding, key);
		return;
	}
	if (nat) {
		if (v->part != PART_LATER)
			rewrite_ports(s, v, be);
		rewrite_ip(s, v, be);
		check_sums(s, v);
	}
	leave(s, be, v->family);
}

/* --- fragments --- */

static bool same_datagram(const struct packet_view *a,
			  const struct packet_view *b)
{
	return a->family == b->family &&
	       a->fragment_proto == b->fragment_proto &&
	       a->fragment_id == b->fragment_id &&
	       !memcmp(a->src, b->src, 16) && !memcmp(a->dst, b->dst, 16);
}

static struct model_fragment *fragment_find(struct model *m,
					    const struct packet_view *v)
{
	for (int i = 0; i < MODEL_FRAGMENTS; i++)
		if (m->fragments[i].used &&
		    same_datagram(&m->fragments[i].of, v))
			return &m->fragments[i];
	return NULL;
}

static void fragment_remember(struct step *s, const struct packet_view *v,
			      uint32_t id)
{
	struct model_fragment *f = fragment_find(s->m, v);

	if (!f)
		f = &s->m->fragments[s->m->fragment_next++ % MODEL_FRAGMENTS];
	*f = (struct model_fragment){ .used = true,
				      .of = *v,
				      .backend = id,
				      .forwarding = s->vip->forwarding };
}

static void fragment_later(struct step *s, const struct packet_view *v)
{
	const struct model_fragment *f = fragment_find(s->m, v);
	struct model_key key = { .kind = KEY_CLIENT,
				 .family = (uint8_t)v->family };

	if (!f) {
		if (is_vip_address(s->m, v->family, v->dst))
			drop(s, XLB_DROP_FRAGMENT);
		return;
	}
	if (v->l3 + v->ip_len > v->size || v->l3 + v->ip_len < v->l4) {
		drop(s, XLB_DROP_MALFORMED);
		return;
	}
	memcpy(key.client, v->src, 16);
	forward(s, v, f->backend, f->forwarding, &key);
}

/* --- errors about a flow --- */

static bool is_error(const struct packet_view *v)
{
	uint8_t type = v->frame[v->l4];

	if (v->family == 4)
		return type == 3 || type == 4 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/*
 * The packet that an ICMP error quotes, seen as a packet of its own.  Its
 * bytes are copied behind an Ethernet header into `room`.
 */
static bool view_quoted(const struct packet_view *v, uint8_t *room,
			struct packet_view *ret)
{
	size_t from = v->l4 + 8, size = v->size - from;

	if (v->size < from || size > PACKET_MAX - 14)
		return false;
	memset(room, 0, 14);
	room[12] = v->family == 4 ? 0x08 : 0x86;
	room[13] = v->family == 4 ? 0x00 : 0xdd;
	memcpy(room + 14, v->frame + from, size);
	packet_view(room, size + 14, ret);
	/* Eight bytes of the transport header are always quoted. */
	return ret->reach == REACH_PORTS && ret->l4 + 8 <= ret->size &&
	       !ret->odd && ret->extensions <= MAX_EXTENSIONS;
}

/* The ICMP checksum follows all that changed behind it, and the address. */
static void quoted_csum(struct step *s, const struct packet_view *v,
			const void *addr)
{
	uint8_t *frame = s->due->frame, *csum = frame + v->l4 + 2;

	for (size_t at = v->l4 + 4; at + 2 <= v->size; at += 2)
		if (memcmp(v->frame + at, frame + at, 2) != 0)
			csum_follow(csum, v->frame + at, frame + at, 2);
	if (v->family == 6)
		csum_follow(csum, v->dst, addr, 16);
}

static void rewrite_quoted(struct step *s, const struct packet_view *v,
			   const struct packet_view *q,
			   const struct xlb_backend *be)
{
	size_t shift = v->l4 + 8 - 14, len = v->family == 4 ? 4 : 16;
	uint8_t *frame = s->due->frame, *ip = frame + q->l3 + shift;
	const void *addr = backend_addr(be, v->family);
	uint16_t port = target_port(s, be);
	size_t csum_at = packet_l4_csum_at(q);
	uint8_t *l4 = frame + q->l4 + shift, *csum = frame + csum_at + shift;

	memcpy(ip + (v->family == 4 ? 12 : 8), addr, len);
	if (v->family == 4)
		csum_follow(ip + 10, q->src, addr, 4);
	if (csum_at + 2 <= q->size &&
	    (q->proto == IPPROTO_TCP || csum[0] || csum[1])) {
		csum_follow(csum, q->src, addr, len);
		csum_follow(csum, &q->sport, &port, 2);
		/* 0 would say that a datagram has none. */
		if (q->proto == IPPROTO_UDP && !csum[0] && !csum[1])
			csum[0] = csum[1] = 0xff;
	}
	memcpy(l4, &port, 2);
	quoted_csum(s, v, addr);
	rewrite_ip(s, v, be);
	check_sums(s, v);
}

static void step_key(struct step *s, const uint8_t client[16], uint16_t port)
{
	s->key = (struct model_key){ .kind = KEY_FLOW,
				     .family = s->vip->family,
				     .proto = s->vip->proto,
				     .client_port = port,
				     .vip_port = s->vip->port };
	memcpy(s->key.vip, s->vip->addr, 16);
	memcpy(s->key.client, client, 16);
}

static void send_error(struct step *s, const struct packet_view *v,
		       const struct packet_view *q, uint32_t id)
{
	const struct xlb_backend *be = &s->m->backends[id];
	enum xlb_forwarding forwarding = s->vip->forwarding;

	if (is_wrapped(forwarding) ? !may_wrap(s, v, be, forwarding)
				   : !may_go(s, v, be, forwarding == XLB_NAT))
		return;
	s->due->backend = id;
	count(s, id, v->size);
	if (is_wrapped(forwarding)) {
		wrap(s, v, be, forwarding, &s->key);
		return;
	}
	if (forwarding == XLB_NAT)
		rewrite_quoted(s, v, q, be);
	leave(s, be, v->family);
}

static void icmp_error(struct step *s, const struct packet_view *v)
{
	uint8_t room[PACKET_MAX];
	struct packet_view q;
	uint32_t id;

	if (!view_quoted(v, room, &q))
		return;
	s->vip = model_vip(s->m, q.family, q.src, q.sport, q.proto);
	if (!s->vip || memcmp(v->dst, q.src, 16) != 0)
		return;
	if (v->l3 + v->ip_len > v->size) {
		drop(s, XLB_DROP_MALFORMED);
		return;
	}
	step_key(s, q.dst, q.dport);
	s->looks_only = true;
	id = backend_of(s);
	s->new_flow = false;
	if (id)
		send_error(s, v, &q, id);
	else
		drop(s, XLB_DROP_ICMP);
}

/* --- what a VIP says itself --- */

static bool is_echo_request(const struct packet_view *v)
{
	return v->l4 == v->l3 + (v->family == 4 ? 20 : 40) &&
	       v->ip_len >= v->l3_len + 8 && v->l3 + v->ip_len <= v->size &&
	       v->frame[v->l4] == (v->family == 4 ? 8 : 128) &&
	       !v->frame[v->l4 + 1];
}

static void swap(uint8_t *a, uint8_t *b, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t x = a[i];

		a[i] = b[i];
		b[i] = x;
	}
}

static void echo(struct step *s, const struct packet_view *v)
{
	uint8_t *frame = s->due->frame, *ip = frame + v->l3;
	uint8_t *l4 = frame + v->l4;
	bool v4 = v->family == 4;

	if (!is_vip_address(s->m, v->family, v->dst) ||
	    !is_host(v->family, v->src))
		return;
	swap(frame, frame + 6, 6);
	swap(ip + (v4 ? 12 : 8), ip + (v4 ? 16 : 24), v4 ? 4 : 16);
	ip[v4 ? 8 : 7] = 64;
	if (v4)
		csum_follow(ip + 10, v->frame + v->l3 + 8, ip + 8, 2);
	l4[0] = v4 ? 0 : 129;
	csum_follow(l4 + 2, v->frame + v->l4, l4, 2);
	/* By its change alone a sum of zeros isn't told from one of ones. */
	if (v4 && !l4[2] && !l4[3])
		memset(l4 + 2, 0xff, 2);
	check_sums(s, v);
	answer(s);
}

static void icmp(struct step *s, const struct packet_view *v)
{
	/* Also the one piece that is all of its datagram. */
	if (v->proto != (v->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) ||
	    v->reach < REACH_PROTO || v->part != PART_WHOLE || v->fragment ||
	    v->l4 + 8 > v->size)
		return;
	if (is_echo_request(v))
		echo(s, v);
	else if (is_error(v))
		icmp_error(s, v);
}

/* --- packets --- */

static void read_tcp(struct step *s, const struct packet_view *v)
{
	const uint8_t *tcp = v->frame + v->l4;
	uint8_t flags = tcp[13];
	uint32_t seq;
	size_t before = v->l4 - v->l3 + (tcp[12] >> 4) * 4U;

	memcpy(&seq, tcp + 4, 4);
	s->tcp = (struct segment){
		.syn = (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN,
		.ends = flags & (TCP_FIN | TCP_RST),
		.seq = ntohl(seq),
		.payload =
			v->ip_len > before ? v->ip_len - (uint32_t)before : 0,
	};
}

/* Everything there that the header promises, and the whole transport header? */
static bool is_whole(const struct packet_view *v)
{
	size_t end = v->l3 + v->ip_len;
	size_t header = v->proto == IPPROTO_TCP ? 20 : 8;

	return v->l4 + header <= end && end <= v->size;
}

static void for_service(struct step *s, const struct packet_view *v)
{
	uint32_t id;

	if (!is_whole(v)) {
		drop(s, XLB_DROP_MALFORMED);
		return;
	}
	if (v->proto == IPPROTO_TCP)
		read_tcp(s, v);
	step_key(s, v->src, v->sport);
	id = backend_of(s);
	if (!id) {
		drop(s, XLB_DROP_NO_BACKEND);
		return;
	}
	if (v->part == PART_FIRST)
		fragment_remember(s, v, id);
	forward(s, v, id, s->vip->forwarding, &s->key);
}

/* It can't be balanced: its address alone says whether it is ours. */
static void refuse(struct step *s, const struct packet_view *v,
		   enum xlb_drop reason)
{
	if (is_vip_address(s->m, v->family, v->dst))
		drop(s, reason);
}

static void with_ports(struct step *s, const struct packet_view *v)
{
	if (v->reach < REACH_PORTS || v->l4 + 8 > v->size) {
		refuse(s, v, XLB_DROP_MALFORMED);
		return;
	}
	s->vip = model_vip(s->m, v->family, v->dst, v->dport, v->proto);
	if (s->vip)
		for_service(s, v);
}

static void untagged_packet(struct step *s, const struct packet_view *v)
{
	if (v->reach < REACH_IP)
		return;
	if (v->cut)
		refuse(s, v,
		       v->extensions < MAX_EXTENSIONS ? XLB_DROP_MALFORMED
						      : XLB_DROP_HEADERS);
	else if (v->odd || v->extensions > MAX_EXTENSIONS)
		refuse(s, v, XLB_DROP_HEADERS);
	else if (v->proto == IPPROTO_ICMP || v->proto == IPPROTO_ICMPV6)
		icmp(s, v);
	else if (v->proto != IPPROTO_TCP && v->proto != IPPROTO_UDP)
		return;
	else if (v->part == PART_LATER)
		fragment_later(s, v);
	else
		with_ports(s, v);
}

/* A packet for a VIP loses its tags; what isn't sent on gets them back. */
static void tagged_packet(struct step *s, const struct packet_view *v)
{
	struct model_due *due = s->due;
	size_t len = 4 * v->tags;
	uint8_t tags[4 * MAX_TAGS], plain[PACKET_MAX];
	struct packet_view inner;

	if (v->tags > MAX_TAGS || v->reach < REACH_IP ||
	    !is_vip_address(s->m, v->family, v->dst))
		return;
	memcpy(tags, v->frame + 12, len);
	memcpy(plain, v->frame, 12);
	memcpy(plain + 12, v->frame + 12 + len, v->size - 12 - len);
	due->size = v->size - len;
	memcpy(due->frame, plain, due->size);
	packet_view(plain, due->size, &inner);
	untagged_packet(s, &inner);
	if (due->verdict != LAB_PASS && !due->answer)
		return;
	memmove(due->frame + 12 + len, due->frame + 12, due->size - 12);
	memcpy(due->frame + 12, tags, len);
	due->size += len;
}

void model_packet(struct model *m, const uint8_t *frame, size_t size,
		  const struct model_seen *seen, struct model_due *due)
{
	struct step s = { .m = m, .seen = seen, .due = due };
	struct packet_view v;

	due->verdict = LAB_PASS;
	due->reason = XLB_DROP_NONE;
	due->backend = due->mtu = due->lines = 0;
	due->illegal = NULL;
	due->answer = false;
	memcpy(due->frame, frame, size);
	due->size = size;
	packet_view(frame, size, &v);
	(v.tags ? tagged_packet : untagged_packet)(&s, &v);
}
