/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * schemas/history.sql is always the newest schema.  A change of it raises
 * STORE_VERSION and its user_version, and adds here the step that an existing
 * database needs to become the same.
 */
#include <errno.h>

#include "base/mem.h"
#include "state/db.h"

static const struct migration steps_current[] = {
	{ 1, NULL },
	{ 2, "CREATE TABLE vm_deletion (id INTEGER PRIMARY KEY,"
	     " time_ms INTEGER NOT NULL, vm TEXT NOT NULL,"
	     " approved INTEGER NOT NULL, open INTEGER NOT NULL) STRICT;"
	     "CREATE TABLE declaration (service TEXT PRIMARY KEY,"
	     " time_ms INTEGER NOT NULL, protect INTEGER NOT NULL,"
	     " text TEXT NOT NULL) STRICT, WITHOUT ROWID;" },
};

static int read_int(sqlite3 *db, const char *sql, int *ret)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		*ret = sqlite3_column_int(st, 0);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(st);
	return db_errno(rc);
}

int migrate_version(sqlite3 *db, int *ret_version)
{
	return read_int(db, "PRAGMA user_version", ret_version);
}

static int exec(sqlite3 *db, const char *sql)
{
	return db_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static int create(sqlite3 *db, const char *fresh)
{
	int tables = 0;
	int err = read_int(db, "SELECT count(*) FROM sqlite_schema", &tables);

	if (err)
		return err;
	return tables ? -EUCLEAN : exec(db, fresh);
}

static int run_steps(sqlite3 *db, int from, const struct migration *steps,
		     size_t count)
{
	AUTO_FREE char *set = NULL;
	int err = 0, at = from;

	for (size_t i = 0; i < count && !err; i++) {
		if (steps[i].version <= from || !steps[i].sql)
			continue;
		err = exec(db, steps[i].sql);
		at = steps[i].version;
	}
	if (err)
		return err;
	set = mem_printf("PRAGMA user_version = %d", at);
	return exec(db, set);
}

static int migrate_locked(sqlite3 *db, int version, const char *fresh,
			  const struct migration *steps, size_t count)
{
	int at = 0;
	int err = migrate_version(db, &at);

	if (err)
		return err;
	if (at > version)
		return -EPROTONOSUPPORT;
	if (at == version)
		return 0;
	if (at < 0)
		return -EUCLEAN;
	err = at ? run_steps(db, at, steps, count) : create(db, fresh);
	if (!err)
		err = migrate_version(db, &at);
	return err ? err : at == version ? 0 : -EUCLEAN;
}

int migrate(sqlite3 *db, int version, const char *fresh,
	    const struct migration *steps, size_t count)
{
	int err = exec(db, "BEGIN IMMEDIATE");

	if (err)
		return err;
	err = migrate_locked(db, version, fresh, steps, count);
	if (!err)
		err = exec(db, "COMMIT");
	if (err && !sqlite3_get_autocommit(db))
		exec(db, "ROLLBACK");
	return err;
}

int migrate_current(sqlite3 *db)
{
	return migrate(db, STORE_VERSION, history_sql, steps_current,
		       ARRAY_SIZE(steps_current));
}
