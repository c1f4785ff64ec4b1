/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tables/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* An older SYN was never answered: nobody's connection. */
#define HALF_OPEN_TICKS 2

/* Slots of which the last round found no such memory: few ever are. */
#define CLEAN_SLOTS 4096
struct clean {
	uint32_t count;
	uint16_t next[CLEAN_SLOTS]; /* cur + 1, or 0 */
};

struct sweep {
	struct sweep_input in;
	uint8_t flow_log2;
	uint8_t *dirty; /* a bit a slot: a memory of another backend than cur */
	struct clean **clean; /* CLEAN_SLOTS each; NULL: none of them */
	uint32_t slot_count;
	size_t kept;
	uint32_t active[XLB_BACKENDS];
	uint8_t saw[XLB_BACKENDS];
	struct {
		uint16_t one, more; /* backends with memories: two of them */
	} found[XLB_SERVICES];
};

struct sweep *sweep_new(void)
{
	return mem_alloc(sizeof(struct sweep));
}

static uint32_t clean_blocks(uint32_t slots)
{
	return (slots + CLEAN_SLOTS - 1) / CLEAN_SLOTS;
}

void sweep_free(struct sweep *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; i < clean_blocks(s->slot_count); i++)
		free(s->clean[i]);
	free(s->dirty);
	free(s->clean);
	free(s);
}

static size_t dirty_bytes(uint32_t slots)
{
	return (size_t)slots / 8 + 1;
}

void sweep_begin(struct sweep *s, const struct sweep_input *in)
{
	s->in = *in;
	s->flow_log2 = (uint8_t)__builtin_ctz(in->flow_lines);
	if (s->slot_count < in->slot_count) {
		struct clean **clean = mem_array(clean_blocks(in->slot_count),
						 sizeof(struct clean *));

		if (s->slot_count)
			memcpy(clean, s->clean,
			       clean_blocks(s->slot_count) *
				       sizeof(struct clean *));
		free(s->clean);
		free(s->dirty);
		s->clean = clean;
		s->dirty = mem_alloc(dirty_bytes(in->slot_count));
		s->slot_count = in->slot_count;
	}
	memset(s->dirty, 0, dirty_bytes(s->slot_count));
	memset(s->active, 0, sizeof(s->active));
	memset(s->saw, 0, sizeof(s->saw));
	memset(s->found, 0, sizeof(s->found));
	s->kept = 0;
}

static uint8_t age(const struct sweep *s, uint8_t since)
{
	return (uint8_t)(s->in.now - since);
}

bool sweep_is_over(uint32_t ticks, uint32_t passed)
{
	return passed > ticks + 1;
}

static void mark_slot(struct sweep *s, uint32_t slot, uint32_t backend)
{
	uint32_t word = s->in.slots[slot];

	if (XLB_SLOT_STATE(word) == XLB_SETTLED &&
	    XLB_SLOT_CUR(word) != backend)
		s->dirty[slot / 8] |= (uint8_t)(1u << slot % 8);
}

/* The slots whose flows may be remembered in this line. */
static void mark_line(struct sweep *s, const struct sweep_service *sv,
		      uint32_t line, uint32_t backend)
{
	uint32_t first, count = 1;

	if (s->flow_log2 >= sv->slot_log2) {
		first = line >> (s->flow_log2 - sv->slot_log2);
	} else {
		count = 1u << (sv->slot_log2 - s->flow_log2);
		first = line * count;
	}
	for (uint32_t i = 0; i < count; i++)
		mark_slot(s, sv->slot_base + first + i, backend);
}

static void mark_service(struct sweep *s, uint16_t service, uint32_t backend)
{
	if (!s->found[service].one)
		s->found[service].one = (uint16_t)backend;
	else if (s->found[service].one != backend)
		s->found[service].more = (uint16_t)backend;
}

static void count_active(struct sweep *s, uint64_t entry, uint32_t backend)
{
	enum xlb_flow_class class = (enum xlb_flow_class)XLB_FLOW_CLASS(entry);
	bool young = age(s, XLB_FLOW_TIME(entry)) <= HALF_OPEN_TICKS;

	s->active[backend] += class == XLB_FLOW_ESTABLISHED ||
			      (class == XLB_FLOW_HALF_OPEN && young);
}

/*
 * What is removed counts as found all the same: a packet that comes just now
 * may keep it.
 */
bool sweep_keep(void *sweep, uint32_t line, uint64_t entry)
{
	struct sweep *s = sweep;
	uint32_t backend = XLB_FLOW_BACKEND(entry);
	uint16_t service = s->in.service_of[backend];
	const struct sweep_service *sv = &s->in.services[service];

	s->saw[backend] = 1;
	if (!service)
		return false;
	if (!sv->slot_log2) {
		s->kept++;
		return true;
	}
	mark_service(s, service, backend);
	mark_line(s, sv, line, backend);
	if (XLB_FLOW_GENERATION(entry) != s->in.backends[backend].generation ||
	    sweep_is_over(sv->memory_ticks, age(s, XLB_FLOW_TIME(entry))))
		return false;
	count_active(s, entry, backend);
	s->kept++;
	return true;
}

/* May somebody whose slot it is be remembered at another backend than cur? */
static bool is_dirty(const struct sweep *s, const struct sweep_service *sv,
		     uint32_t slot)
{
	uint32_t one = s->found[sv - s->in.services].one;

	if (!sv->by_client)
		return s->dirty[slot / 8] & 1u << slot % 8;
	return s->found[sv - s->in.services].more ||
	       (one && one != XLB_SLOT_CUR(s->in.slots[slot]));
}

static bool is_clean(const struct sweep *s, uint32_t slot, uint32_t cur)
{
	const struct clean *c = s->clean[slot / CLEAN_SLOTS];

	return c && c->next[slot % CLEAN_SLOTS] == cur + 1;
}

static void set_clean(struct sweep *s, uint32_t slot, uint32_t cur)
{
	struct clean **c = &s->clean[slot / CLEAN_SLOTS];
	uint16_t *next;

	if (!*c)
		*c = mem_alloc(sizeof(**c));
	next = &(*c)->next[slot % CLEAN_SLOTS];
	(*c)->count += !*next;
	*next = (uint16_t)(cur + 1);
}

static void not_clean(struct sweep *s, uint32_t slot)
{
	struct clean **c = &s->clean[slot / CLEAN_SLOTS];

	if (!*c || !(*c)->next[slot % CLEAN_SLOTS])
		return;
	(*c)->next[slot % CLEAN_SLOTS] = 0;
	if (--(*c)->count)
		return;
	free(*c);
	*c = NULL;
}

static uint32_t next_settled(struct sweep *s, const struct sweep_service *sv,
			     uint32_t slot, uint32_t word)
{
	uint32_t cur = XLB_SLOT_CUR(word);

	if (!sv->rests || is_dirty(s, sv, slot)) {
		not_clean(s, slot);
		return word;
	}
	if (is_clean(s, slot, cur)) {
		not_clean(s, slot);
		return XLB_SLOT(cur, cur, XLB_REST);
	}
	set_clean(s, slot, cur);
	return word;
}

static uint32_t next_word(struct sweep *s, const struct sweep_service *sv,
			  uint32_t slot)
{
	uint32_t word = s->in.slots[slot], cur = XLB_SLOT_CUR(word);
	uint8_t moved = age(s, s->in.moved[slot]);

	switch ((enum xlb_slot_state)XLB_SLOT_STATE(word)) {
	case XLB_REST:
		break;
	case XLB_HELD:
		if (sweep_is_over(sv->held_ticks, moved))
			word = XLB_SLOT(cur, XLB_SLOT_PREV(word), XLB_MOVING);
		break;
	case XLB_MOVING:
		/* Who found no room is unremembered, and prev's. */
		if (sweep_is_over(sv->idle_ticks, moved) &&
		    sweep_is_over(sv->idle_ticks, s->in.since_no_room))
			word = XLB_SLOT(cur, cur, XLB_SETTLED);
		break;
	case XLB_SETTLED:
		return next_settled(s, sv, slot, word);
	}
	not_clean(s, slot);
	return word;
}

static bool is_busy(const struct sweep_service *sv, uint32_t word)
{
	uint32_t state = XLB_SLOT_STATE(word);

	return state == XLB_HELD || state == XLB_MOVING ||
	       (state == XLB_SETTLED && sv->rests);
}

uint32_t sweep_words(struct sweep *s, uint32_t service, uint32_t *words,
		     bool *ret_busy)
{
	const struct sweep_service *sv = &s->in.services[service];
	uint32_t differ = 0;

	*ret_busy = false;
	for (uint32_t i = 0; sv->slot_log2 && i < 1u << sv->slot_log2; i++) {
		uint32_t slot = sv->slot_base + i;

		words[i] = next_word(s, sv, slot);
		differ += words[i] != s->in.slots[slot];
		*ret_busy |= is_busy(sv, words[i]);
	}
	return differ;
}

void sweep_touch(struct sweep *s, uint32_t base, uint32_t count)
{
	for (uint32_t i = 0; i < count && base + i < s->slot_count; i++)
		not_clean(s, base + i);
}

size_t sweep_kept(const struct sweep *s)
{
	return s->kept;
}

uint32_t sweep_active(const struct sweep *s, uint32_t backend)
{
	return s->active[backend];
}

bool sweep_saw(const struct sweep *s, uint32_t backend)
{
	return s->saw[backend];
}
