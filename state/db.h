/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of state/ share; nobody else includes it, but for tests. */
#ifndef STATE_DB_H
#define STATE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/diag.h"
#include "state/store.h"

#define STORE_VERSION 2 /* of schemas/history.sql */
#define STORE_BUSY_MS 250 /* how long a write waits for another writer */

extern const char history_sql[]; /* made from schemas/history.sql */

enum statement {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_ADD_REVISION,
	SQL_SET_REVISION,
	SQL_SET_GIT,
	SQL_LAST_APPLIED,
	SQL_ADD_CHANGE,
	SQL_ADD_VM,
	SQL_ADD_HEALTH,
	SQL_STEADY,
	SQL_ADD_SCALING,
	SQL_SET_TOOK,
	SQL_ADD_LOAD,
	SQL_SAVE_SCALER,
	SQL_LOAD_SCALER,
	SQL_SCALER_SAVED,
	SQL_SET_OVERRIDE,
	SQL_CLEAR_OVERRIDE,
	SQL_OVERRIDES,
	SQL_OLDEST_LOAD,
	SQL_ROLL_UP,
	SQL_DROP_LOAD,
	SQL_OLD_SCALING,
	SQL_OLD_CHANGE,
	SQL_OLD_VM,
	SQL_OLD_HEALTH,
	SQL_OLD_REVISION,
	SQL_OLD_SCALER,
	SQL_HISTORY,
	SQL_ADD_DELETION,
	SQL_CLOSE_DELETION,
	SQL_DELETIONS,
	SQL_OLD_DELETION,
	SQL_KEEP_DECLARATION,
	SQL_DROP_DECLARATION,
	SQL_DECLARATIONS,
	SQL_COUNT,
};

struct store {
	sqlite3 *db;
	char *path;
	dev_t device; /* of the file, when it was opened */
	ino_t inode;
	sqlite3_stmt *cache[SQL_COUNT];
	bool in_group;
	bool impatient; /* someone else held it at the last write */
	bool durable; /* what is written must be on disk at the commit */
	int group_error; /* the first one of the group */
};

/* A prepared statement, reset and without bindings; NULL on failure. */
sqlite3_stmt *db_statement(struct store *s, enum statement which);
/* NULL binds NULL; took and other numbers below 0 (unknown) bind NULL. */
void db_text(sqlite3_stmt *st, int i, const char *text);
void db_known(sqlite3_stmt *st, int i, int64_t value);
/* 1: a row; 0: done; -errno.  Resets the statement unless it is a row. */
int db_step(struct store *s, sqlite3_stmt *st);
/* Runs a statement without rows.  durable: on disk at the commit. */
int db_write(struct store *s, sqlite3_stmt *st, bool durable);
int db_errno(int rc); /* -errno of an sqlite result */

/* A step brings the schema from version - 1 to version. */
struct migration {
	int version;
	const char *sql;
};
/*
 * Creates the schema (from the text `fresh`, which sets user_version) in an
 * empty database, or runs the steps an older one lacks; all or nothing.
 * -EPROTONOSUPPORT: newer than `version`; -EUCLEAN: not a database of ours.
 */
int migrate(sqlite3 *db, int version, const char *fresh,
	    const struct migration *steps, size_t count);
/* The same with this program's schema and steps. */
int migrate_current(sqlite3 *db);
int migrate_version(sqlite3 *db, int *ret_version); /* 0 or -errno */

#endif
