/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading the history back, merged by time. */
#include "state/db.h"

static const char *column(sqlite3_stmt *st, int i)
{
	const char *text = (const char *)sqlite3_column_text(st, i);

	return text ? text : "";
}

/* The newest `limit` rows (0: all) that match, oldest first. */
int store_history(struct store *s, const char *service, const char *kind,
		  int64_t since_ms, unsigned int limit, store_row_fn fn,
		  void *arg)
{
	sqlite3_stmt *st = db_statement(s, SQL_HISTORY);
	int err;

	if (st) {
		db_text(st, 1, service);
		db_text(st, 2, kind);
		sqlite3_bind_int64(st, 3, since_ms);
		sqlite3_bind_int64(st, 4, limit ? (int64_t)limit : -1);
	}
	while ((err = db_step(s, st)) > 0)
		fn(arg, column(st, 0), column(st, 1), column(st, 2),
		   column(st, 3));
	return err;
}

int store_decisions(struct store *s, const char *service, int64_t until_ms,
		    unsigned int limit,
		    void (*fn)(void *arg, const struct store_decision *d),
		    void *arg)
{
	sqlite3_stmt *st = db_statement(s, SQL_DECISIONS);
	int err;

	if (st) {
		db_text(st, 1, service);
		sqlite3_bind_int64(st, 2, until_ms);
		sqlite3_bind_int64(st, 3, limit);
	}
	while ((err = db_step(s, st)) > 0) {
		const struct store_decision d = {
			.time = column(st, 0),
			.direction = column(st, 1),
			.from_vms = sqlite3_column_int(st, 2),
			.wanted_vms = sqlite3_column_int(st, 3),
			.to_vms = sqlite3_column_int(st, 4),
			.reason = column(st, 5),
			.limited_by = column(st, 6),
			.message = column(st, 7),
			.signals = column(st, 8),
			.mode = column(st, 9),
		};

		fn(arg, &d);
	}
	return err;
}
