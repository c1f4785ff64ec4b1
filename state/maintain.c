/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeping the file small: load is kept as measured for two hours, by the
 * minute for two days and by the hour until the retention ends; everything
 * else is deleted at the retention.  A call does a bounded piece of it, in one
 * commit, so that the thread that forwards events isn't held up.
 */
#include "state/db.h"

#define MINUTE_MS 60000LL
#define HOUR_MS (60 * MINUTE_MS)
#define KEEP_RAW_MS (2 * HOUR_MS)
#define KEEP_MINUTES_MS (48 * HOUR_MS)
#define KEEP_DELETIONS_MS \
	(31LL * 24 * HOUR_MS) /* more than max_vm_deletes.per */
#define MAX_ROLLED 8000 /* rows read a call, plus what is left of one bucket */
#define MAX_BUCKETS 32
#define MAX_DELETED 500 /* rows a table and call */

/* -errno, 0: none, 1: *ret is the time of the oldest row. */
static int oldest_load(struct store *s, int level, int64_t *ret)
{
	sqlite3_stmt *st = db_statement(s, SQL_OLDEST_LOAD);
	int err;

	if (st)
		sqlite3_bind_int(st, 1, level);
	err = db_step(s, st);
	if (err <= 0)
		return err;
	if (sqlite3_column_type(st, 0) == SQLITE_NULL)
		err = 0;
	*ret = sqlite3_column_int64(st, 0);
	sqlite3_reset(st);
	return err;
}

static int run_bucket(struct store *s, enum statement which, int level,
		      int64_t from, int64_t to)
{
	sqlite3_stmt *st = db_statement(s, which);

	if (st) {
		sqlite3_bind_int(st, 1, level);
		sqlite3_bind_int64(st, 2, from);
		sqlite3_bind_int64(st, 3, to);
	}
	return db_write(s, st, false);
}

/* Rolls up, or (size 0 of the next level) just deletes, whole buckets. */
static int shrink_level(struct store *s, int level, int64_t size,
			int64_t before)
{
	int64_t oldest = 0, from;
	int rows = 0, err;

	for (int n = 0; n < MAX_BUCKETS && rows < MAX_ROLLED; n++) {
		err = oldest_load(s, level, &oldest);
		if (err <= 0)
			return err;
		from = oldest - oldest % size;
		if (from + size > before)
			return 0;
		err = level < 2 ? run_bucket(s, SQL_ROLL_UP, level, from,
					     from + size)
				: 0;
		if (!err)
			err = run_bucket(s, SQL_DROP_LOAD, level, from,
					 from + size);
		if (err)
			return err;
		rows += sqlite3_changes(s->db);
	}
	return 0;
}

static int delete_old(struct store *s, int64_t before)
{
	/* Revisions last: only those that nothing names any more go. */
	static const enum statement order[] = {
		SQL_OLD_SCALING, SQL_OLD_CHANGE, SQL_OLD_VM,
		SQL_OLD_HEALTH,	 SQL_OLD_SCALER, SQL_OLD_REVISION
	};
	int err = 0;

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && !err; i++) {
		sqlite3_stmt *st = db_statement(s, order[i]);

		if (st) {
			sqlite3_bind_int64(st, 1, before);
			sqlite3_bind_int(st, 2, MAX_DELETED);
		}
		err = db_write(s, st, false);
	}
	return err;
}

/* They count for longer than history may be kept. */
static int delete_deletions(struct store *s, int64_t now_ms)
{
	sqlite3_stmt *st = db_statement(s, SQL_OLD_DELETION);

	if (st) {
		sqlite3_bind_int64(st, 1, now_ms - KEEP_DELETIONS_MS);
		sqlite3_bind_int(st, 2, MAX_DELETED);
	}
	return db_write(s, st, false);
}

static int maintain(struct store *s, int64_t now_ms, int64_t retention_ms)
{
	int64_t before = now_ms - retention_ms;
	int err = shrink_level(s, 0, MINUTE_MS, now_ms - KEEP_RAW_MS);

	if (!err)
		err = shrink_level(s, 1, HOUR_MS, now_ms - KEEP_MINUTES_MS);
	if (!err)
		err = shrink_level(s, 2, HOUR_MS, before);
	if (!err)
		err = delete_old(s, before);
	return err ? err : delete_deletions(s, now_ms);
}

int store_maintain(struct store *s, int64_t now_ms, int64_t retention_ms)
{
	int err = store_begin(s);
	int end;

	if (err)
		return err;
	err = maintain(s, now_ms, retention_ms);
	end = store_commit(s);
	return err ? err : end;
}
