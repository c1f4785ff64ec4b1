/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What guards have to remember: deletions of VMs, and declarations. */
#include <errno.h>

#include "state/db.h"

int64_t store_add_deletion(struct store *s, const struct store_deletion *d)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_DELETION);
	int err;

	if (st) {
		sqlite3_bind_int64(st, 1, d->time_ms);
		db_text(st, 2, d->vm);
		sqlite3_bind_int(st, 3, d->approved);
		sqlite3_bind_int(st, 4, d->open);
	}
	err = db_write(s, st, true);
	return err ? err : sqlite3_last_insert_rowid(s->db);
}

int store_close_deletion(struct store *s, int64_t id)
{
	sqlite3_stmt *st = db_statement(s, SQL_CLOSE_DELETION);

	if (st)
		sqlite3_bind_int64(st, 1, id);
	return db_write(s, st, false);
}

int store_deletions(struct store *s, store_deletion_fn fn, void *arg)
{
	sqlite3_stmt *st = db_statement(s, SQL_DELETIONS);
	int err;

	while ((err = db_step(s, st)) > 0) {
		struct store_deletion d = {
			.id = sqlite3_column_int64(st, 0),
			.time_ms = sqlite3_column_int64(st, 1),
			.vm = (const char *)sqlite3_column_text(st, 2),
			.approved = sqlite3_column_int(st, 3),
			.open = sqlite3_column_int(st, 4),
		};

		fn(arg, &d);
	}
	return err;
}

int store_keep_declaration(struct store *s, const struct store_declaration *d)
{
	sqlite3_stmt *st = db_statement(s, SQL_KEEP_DECLARATION);

	if (st) {
		db_text(st, 1, d->service);
		sqlite3_bind_int64(st, 2, d->time_ms);
		sqlite3_bind_int(st, 3, d->protect);
		db_text(st, 4, d->text);
	}
	return db_write(s, st, true);
}

int store_drop_declaration(struct store *s, const char *service)
{
	sqlite3_stmt *st = db_statement(s, SQL_DROP_DECLARATION);

	if (st)
		db_text(st, 1, service);
	return db_write(s, st, true);
}

int store_declarations(struct store *s, store_declaration_fn fn, void *arg)
{
	sqlite3_stmt *st = db_statement(s, SQL_DECLARATIONS);
	int err;

	while ((err = db_step(s, st)) > 0) {
		struct store_declaration d = {
			.service = (const char *)sqlite3_column_text(st, 0),
			.protect = sqlite3_column_int(st, 1),
			.text = (const char *)sqlite3_column_text(st, 2),
		};

		fn(arg, &d);
	}
	return err;
}
