/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Statements: prepared once, bound, stepped, and their errors. */
#include "state/db.h"
#include "base/seam.h"

#include <errno.h>
#include <string.h>

/*
 * Rolling up: the group of a row is its minute or hour.  A mean weighs by
 * samples; a row without any counts as one, so that nothing divides by 0.
 */
static const char *const sql_text[SQL_COUNT] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_ADD_REVISION] =
		"INSERT INTO revision (time_ms, path, sha256, git_revision,"
		" git_dirty, result) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[SQL_SET_REVISION] = "UPDATE revision SET result = ?2 WHERE id = ?1",
	[SQL_SET_GIT] = "UPDATE revision SET git_revision = ?2, git_dirty = ?3"
			" WHERE id = ?1",
	[SQL_LAST_APPLIED] =
		"SELECT id, sha256 FROM revision WHERE result = 'applied'"
		" AND id > (SELECT coalesce(max(id), 0) FROM revision"
		" WHERE result = 'destroyed') ORDER BY id DESC LIMIT 1",
	[SQL_ADD_CHANGE] =
		"INSERT INTO change (time_ms, revision_id, run_id, object,"
		" action, cause, file, line, result, error, took_ms)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
	[SQL_ADD_VM] = "INSERT INTO vm_event (time_ms, service, vm, hypervisor,"
		       " address, event, reason, took_ms)"
		       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[SQL_ADD_HEALTH] =
		"INSERT INTO health (time_ms, service, backend, from_state,"
		" to_state, reason, probe_ms)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[SQL_STEADY] =
		"UPDATE scaling SET until_ms = ?1, times = times + 1"
		" WHERE id = (SELECT max(id) FROM scaling WHERE service = ?2)"
		" AND direction = 'hold' AND from_vms = ?3 AND wanted_vms = ?4"
		" AND to_vms = ?5 AND reason = ?6 AND limited_by = ?7"
		" AND mode = ?8 AND revision_id IS ?9"
		" AND ?1 BETWEEN until_ms AND until_ms + ?10 RETURNING id",
	[SQL_ADD_SCALING] =
		"INSERT INTO scaling (time_ms, until_ms, service, from_vms,"
		" wanted_vms, to_vms, reason, limited_by, mode, revision_id,"
		" direction, message, signals, took_ms) VALUES (?1, ?1, ?2, ?3,"
		" ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
	[SQL_SET_TOOK] = "UPDATE scaling SET took_ms = ?2 WHERE id = ?1",
	[SQL_ADD_LOAD] =
		"INSERT OR REPLACE INTO load (level, time_ms, service, metric,"
		" mean, min, max, samples, ready_vms, resolution_s)"
		" VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
	[SQL_SAVE_SCALER] = "INSERT INTO scaler (service, time_ms, memory)"
			    " VALUES (?1, ?2, ?3) ON CONFLICT (service) DO"
			    " UPDATE SET time_ms = ?2, memory = ?3",
	[SQL_LOAD_SCALER] = "SELECT memory FROM scaler WHERE service = ?1",
	[SQL_SCALER_SAVED] = "SELECT time_ms FROM scaler WHERE service = ?1",
	[SQL_SET_OVERRIDE] =
		"INSERT INTO operator_override (kind, key, since_ms, until_ms)"
		" VALUES (?1, ?2, ?3, ?4) ON CONFLICT (kind, key) DO"
		" UPDATE SET since_ms = ?3, until_ms = ?4",
	[SQL_CLEAR_OVERRIDE] =
		"DELETE FROM operator_override WHERE kind = ?1 AND key = ?2",
	[SQL_OVERRIDES] = "SELECT kind, key, since_ms, until_ms"
			  " FROM operator_override ORDER BY kind, key",
	[SQL_OLDEST_LOAD] = "SELECT min(time_ms) FROM load WHERE level = ?1",
	[SQL_ROLL_UP] =
		"INSERT OR REPLACE INTO load (level, time_ms, service, metric,"
		" mean, min, max, samples, ready_vms, resolution_s)"
		" SELECT level + 1, ?2, service, metric,"
		" sum(mean * max(samples, 1)) / sum(max(samples, 1)),"
		" min(min), max(max), sum(samples),"
		" CAST(round(avg(ready_vms)) AS INTEGER),"
		" max(max(resolution_s), (?3 - ?2) / 1000)"
		" FROM load WHERE level = ?1 AND time_ms >= ?2"
		" AND time_ms < ?3 GROUP BY service, metric",
	[SQL_DROP_LOAD] =
		"DELETE FROM load"
		" WHERE level = ?1 AND time_ms >= ?2 AND time_ms < ?3",
	[SQL_OLD_SCALING] =
		"DELETE FROM scaling WHERE id IN (SELECT id FROM scaling"
		" WHERE until_ms < ?1 ORDER BY until_ms LIMIT ?2)",
	[SQL_OLD_CHANGE] = "DELETE FROM change WHERE id IN (SELECT id FROM"
			   " change WHERE time_ms < ?1 ORDER BY time_ms"
			   " LIMIT ?2)",
	[SQL_OLD_VM] = "DELETE FROM vm_event WHERE id IN (SELECT id FROM"
		       " vm_event WHERE time_ms < ?1 ORDER BY time_ms"
		       " LIMIT ?2)",
	[SQL_OLD_HEALTH] = "DELETE FROM health WHERE id IN (SELECT id FROM"
			   " health WHERE time_ms < ?1 ORDER BY time_ms"
			   " LIMIT ?2)",
	[SQL_OLD_REVISION] =
		"DELETE FROM revision WHERE id IN (SELECT id FROM revision r"
		" WHERE time_ms < ?1 AND id IS NOT (SELECT max(id) FROM"
		" revision WHERE result = 'applied')"
		" AND NOT EXISTS (SELECT 1 FROM change WHERE revision_id = r.id)"
		" AND NOT EXISTS (SELECT 1 FROM scaling"
		" WHERE revision_id = r.id) ORDER BY time_ms LIMIT ?2)",
	[SQL_OLD_SCALER] = "DELETE FROM scaler WHERE service IN (SELECT"
			   " service FROM scaler WHERE time_ms < ?1 LIMIT ?2)",
	[SQL_HISTORY] =
		"SELECT time, kind, service, text FROM (SELECT * FROM timeline"
		" WHERE time_ms >= ?3 AND (?1 IS NULL OR service = ?1)"
		" AND (?2 IS NULL OR kind = ?2)"
		" ORDER BY time_ms DESC LIMIT ?4) ORDER BY time_ms",
	[SQL_DECISIONS] =
		"SELECT time, direction, from_vms, wanted_vms, to_vms, reason,"
		" limited_by, message, signals, mode FROM scaling_history"
		" WHERE service = ?1 AND time_ms <= ?2"
		" ORDER BY time_ms DESC LIMIT ?3",
	[SQL_ADD_DELETION] =
		"INSERT INTO vm_deletion (time_ms, vm, approved, open)"
		" VALUES (?1, ?2, ?3, ?4)",
	[SQL_CLOSE_DELETION] = "UPDATE vm_deletion SET open = 0 WHERE id = ?1",
	[SQL_DELETIONS] = "SELECT id, time_ms, vm, approved, open"
			  " FROM vm_deletion ORDER BY time_ms, id",
	[SQL_OLD_DELETION] = "DELETE FROM vm_deletion WHERE id IN (SELECT id"
			     " FROM vm_deletion WHERE time_ms < ?1"
			     " AND open = 0 AND vm <> '' LIMIT ?2)",
	[SQL_KEEP_DECLARATION] =
		"INSERT INTO declaration (service, time_ms, protect, text)"
		" VALUES (?1, ?2, ?3, ?4) ON CONFLICT (service) DO"
		" UPDATE SET time_ms = ?2, protect = ?3, text = ?4",
	[SQL_DROP_DECLARATION] = "DELETE FROM declaration WHERE service = ?1",
	[SQL_DECLARATIONS] = "SELECT service, protect, text FROM declaration"
			     " ORDER BY service",
};

int db_errno(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH:
	case SQLITE_RANGE:
	case SQLITE_TOOBIG:
		return -EINVAL;
	case SQLITE_CANTOPEN:
		return -EACCES;
	default:
		return -EIO;
	}
}

sqlite3_stmt *db_statement(struct store *s, enum statement which)
{
	sqlite3_stmt **st = &s->cache[which];

	if (!*st && sqlite3_prepare_v3(s->db, sql_text[which], -1,
				       SQLITE_PREPARE_PERSISTENT, st,
				       NULL) != SQLITE_OK)
		return NULL;
	sqlite3_reset(*st);
	sqlite3_clear_bindings(*st);
	return *st;
}

void db_text(sqlite3_stmt *st, int i, const char *text)
{
	sqlite3_bind_text(st, i, text, -1, SQLITE_TRANSIENT);
}

void db_known(sqlite3_stmt *st, int i, int64_t value)
{
	if (value < 0)
		sqlite3_bind_null(st, i);
	else
		sqlite3_bind_int64(st, i, value);
}

/*
 * Whoever holds the database for longer is waited for once, not at every
 * write: the loop has probes to send.
 */
static void set_patience(struct store *s, sqlite3_stmt *st, int rc)
{
	bool busy = (rc & 0xff) == SQLITE_BUSY;

	if (busy == s->impatient || (!busy && sqlite3_stmt_readonly(st)))
		return;
	s->impatient = busy;
	sqlite3_busy_timeout(s->db, busy ? 0 : STORE_BUSY_MS);
}

int db_step(struct store *s, sqlite3_stmt *st)
{
	int rc;

	if (!st)
		return db_errno(sqlite3_errcode(s->db)) ?: -EIO;
	rc = sqlite3_step(st);
	set_patience(s, st, rc);
	if (rc == SQLITE_ROW)
		return 1;
	sqlite3_reset(st);
	return db_errno(rc);
}

/*
 * The connection runs with synchronous = NORMAL: a commit isn't waited for.
 * What must be on disk has the log written through after its commit, which is
 * what FULL does; the pragma itself can't be changed within a transaction.
 */
static int sync_log(struct store *s)
{
	sqlite3_file *file = NULL;
	int rc = sqlite3_file_control(s->db, "main",
				      SQLITE_FCNTL_JOURNAL_POINTER, &file);

	s->durable = false;
	if (rc == SQLITE_OK && file && file->pMethods)
		rc = file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
	return db_errno(rc);
}

int db_write(struct store *s, sqlite3_stmt *st, bool durable)
{
	int err;

	seam_change("store_write");
	err = db_step(s, st);
	if (err < 0) {
		if (s->in_group && !s->group_error)
			s->group_error = err;
		return err;
	}
	s->durable |= durable;
	return s->durable && sqlite3_get_autocommit(s->db) ? sync_log(s) : 0;
}

int store_begin(struct store *s)
{
	int err;

	seam_change("store_begin");
	if (s->in_group)
		return -EALREADY;
	s->group_error = 0;
	err = db_step(s, db_statement(s, SQL_BEGIN));
	s->in_group = !err;
	return err;
}

/* Records that failed are lost and reported; the others are committed. */
int store_commit(struct store *s)
{
	int err = 0;

	if (!s->in_group)
		return 0;
	seam_change("store_commit");
	s->in_group = false;
	/* A full disk may have rolled the group back already. */
	if (!sqlite3_get_autocommit(s->db)) {
		err = db_step(s, db_statement(s, SQL_COMMIT));
		if (err && !sqlite3_get_autocommit(s->db))
			db_step(s, db_statement(s, SQL_ROLLBACK));
	}
	if (!err && s->durable)
		err = sync_log(s);
	s->durable = false;
	return err ? err : s->group_error;
}

int store_commit_so_far(struct store *s)
{
	int err;

	if (!s->in_group)
		return 0;
	err = store_commit(s);
	return store_begin(s) ?: err;
}
