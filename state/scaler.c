/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The scaler's memory as JSON.  Its times are monotonic; in the store they are
 * wall-clock ms, so that they mean something after a restart or a reboot.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/mem.h"
#include "state/db.h"

#define NS_PER_MS 1000000

/* The two clocks at one moment. */
struct clocks {
	uint64_t ns;
	int64_t wall_ms;
};

/* 0 means "not" and stays 0. */
static json_t *to_wall(uint64_t t, const struct clocks *c)
{
	int64_t age = ((int64_t)c->ns - (int64_t)t) / NS_PER_MS;

	return json_integer(t ? c->wall_ms - age : 0);
}

/* A time before this boot becomes its first moment: windows hold longer. */
static uint64_t from_wall(const json_t *v, const struct clocks *c)
{
	int64_t wall = json_integer_value(v);
	int64_t limit = INT64_MAX / NS_PER_MS / 4;
	int64_t age = c->wall_ms - wall;
	int64_t t;

	if (!wall)
		return 0;
	if (wall < 0 || age > limit || age < -limit)
		return age > 0 ? 1 : c->ns;
	t = (int64_t)c->ns - age * NS_PER_MS;
	return t > 0 ? (uint64_t)t : 1;
}

static json_t *times_json(const uint64_t *times, size_t count,
			  const struct clocks *c)
{
	json_t *a = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(a, to_wall(times[i], c));
	return a;
}

static json_t *memory_json(const struct scale_memory *m, const struct clocks *c)
{
	json_t *o = json_object();
	json_t *proposals = json_array();

	for (size_t i = 0; i < m->proposal_count; i++)
		json_array_append_new(
			proposals,
			json_pack("[o,I]", to_wall(m->proposals[i].time, c),
				  (json_int_t)m->proposals[i].count));
	json_object_set_new(o, "proposals", proposals);
	json_object_set_new(o, "above_since",
			    times_json(m->above_since, m->signal_count, c));
	json_object_set_new(o, "below_since",
			    times_json(m->below_since, m->signal_count, c));
	json_object_set_new(o, "up_cooldown_until",
			    to_wall(m->up_cooldown_until, c));
	json_object_set_new(o, "down_cooldown_until",
			    to_wall(m->down_cooldown_until, c));
	json_object_set_new(o, "action",
			    json_string(scale_direction_name(m->action)));
	json_object_set_new(o, "action_pending",
			    json_integer(m->action_pending));
	json_object_set_new(o, "count", json_integer(m->count));
	return o;
}

int store_save_scaler(struct store *s, const char *service,
		      const struct scale_memory *m, uint64_t now_ns,
		      int64_t wall_ms)
{
	struct clocks c = { now_ns, wall_ms };
	json_t *o = memory_json(m, &c);
	AUTO_FREE char *text = json_dumps(o, JSON_COMPACT);
	sqlite3_stmt *st = db_statement(s, SQL_SAVE_SCALER);

	json_decref(o);
	if (st) {
		db_text(st, 1, service);
		sqlite3_bind_int64(st, 2, wall_ms);
		db_text(st, 3, text);
	}
	return db_write(s, st, false);
}

static uint32_t count_of(const json_t *v)
{
	json_int_t n = json_integer_value(v);

	return n < 0 || n > UINT32_MAX ? 0 : (uint32_t)n;
}

static uint64_t *times_of(const json_t *a, size_t count, const struct clocks *c)
{
	uint64_t *times = mem_array(count, sizeof(*times));

	for (size_t i = 0; i < count; i++)
		times[i] = from_wall(json_array_get(a, i), c);
	return times;
}

/* Proposals in a future that a clock step made up count as seen now. */
static void read_proposals(const json_t *a, const struct clocks *c,
			   struct scale_memory *m)
{
	size_t i;
	json_t *pair;

	json_array_foreach(a, i, pair)
	{
		struct scale_proposal *p =
			MEM_PUSH(m->proposals, m->proposal_count);

		p->time = from_wall(json_array_get(pair, 0), c);
		if (p->time > c->ns)
			p->time = c->ns;
		p->count = count_of(json_array_get(pair, 1));
	}
}

static void read_memory(const json_t *o, const struct clocks *c,
			struct scale_memory *m)
{
	const json_t *above = json_object_get(o, "above_since");
	const char *action = json_string_value(json_object_get(o, "action"));

	read_proposals(json_object_get(o, "proposals"), c, m);
	m->signal_count = json_array_size(above);
	m->above_since = times_of(above, m->signal_count, c);
	m->below_since =
		times_of(json_object_get(o, "below_since"), m->signal_count, c);
	m->up_cooldown_until =
		from_wall(json_object_get(o, "up_cooldown_until"), c);
	m->down_cooldown_until =
		from_wall(json_object_get(o, "down_cooldown_until"), c);
	m->action_pending = count_of(json_object_get(o, "action_pending"));
	m->action = action && action[0] == 'u' ? SCALE_UP : SCALE_HOLD;
	m->count = count_of(json_object_get(o, "count"));
}

/* Nothing stored: *ret is empty, 0. */
int store_load_scaler(struct store *s, const char *service,
		      struct scale_memory *ret, uint64_t now_ns,
		      int64_t wall_ms)
{
	struct clocks c = { now_ns, wall_ms };
	sqlite3_stmt *st = db_statement(s, SQL_LOAD_SCALER);
	struct scale_memory m = { 0 };
	json_t *o;
	int err;

	if (st)
		db_text(st, 1, service);
	err = db_step(s, st);
	if (err < 0)
		return err;
	if (err) {
		o = json_loads((const char *)sqlite3_column_text(st, 0), 0,
			       NULL);
		sqlite3_reset(st);
		if (!json_is_object(o)) {
			json_decref(o);
			return -EUCLEAN;
		}
		read_memory(o, &c, &m);
		json_decref(o);
	}
	*ret = m;
	return 0;
}

int64_t store_scaler_saved(struct store *s, const char *service)
{
	sqlite3_stmt *st = db_statement(s, SQL_SCALER_SAVED);
	int64_t saved;
	int err;

	if (st)
		db_text(st, 1, service);
	err = db_step(s, st);
	if (err <= 0)
		return err;
	saved = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return saved;
}
