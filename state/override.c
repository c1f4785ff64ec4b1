/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an operator asked for, which outlives the process. */
#include <stdlib.h>

#include "base/mem.h"
#include "state/db.h"

int store_set_override(struct store *s, const struct store_override *o)
{
	sqlite3_stmt *st = db_statement(s, SQL_SET_OVERRIDE);

	if (st) {
		db_text(st, 1, o->kind);
		db_text(st, 2, o->key);
		sqlite3_bind_int64(st, 3, o->since_ms);
		sqlite3_bind_int64(st, 4, o->until_ms);
	}
	return db_write(s, st, true);
}

int store_clear_override(struct store *s, const char *kind, const char *key)
{
	sqlite3_stmt *st = db_statement(s, SQL_CLEAR_OVERRIDE);

	if (st) {
		db_text(st, 1, kind);
		db_text(st, 2, key);
	}
	return db_write(s, st, true);
}

int store_overrides(struct store *s, struct store_override **ret,
		    size_t *ret_count)
{
	sqlite3_stmt *st = db_statement(s, SQL_OVERRIDES);
	struct store_override *items = NULL;
	size_t count = 0;
	int err;

	while ((err = db_step(s, st)) > 0) {
		struct store_override *o = MEM_PUSH(items, count);

		o->kind = mem_dup((const char *)sqlite3_column_text(st, 0));
		o->key = mem_dup((const char *)sqlite3_column_text(st, 1));
		o->since_ms = sqlite3_column_int64(st, 2);
		o->until_ms = sqlite3_column_int64(st, 3);
	}
	if (err) {
		store_overrides_free(items, count);
		return err;
	}
	*ret = items;
	*ret_count = count;
	return 0;
}

void store_overrides_free(struct store_override *o, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(o[i].kind);
		free(o[i].key);
	}
	free(o);
}
