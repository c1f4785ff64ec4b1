/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and closing history.db. */
#include "state/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/seam.h"
#include "state/db.h"

static const char *hint_for(int err)
{
	switch (err) {
	case -EPROTONOSUPPORT:
		return "a newer xlb wrote it: run that one, or move the file "
		       "away to start a new history";
	case -EUCLEAN:
		return "it is damaged or isn't xlb's: move it away to start a "
		       "new history";
	case -EBUSY:
		return "another program holds it locked: end that one";
	case -ENOSPC:
		return "make room on its disk";
	case -ENOENT:
		return "run the reconciler once, or name its folder with "
		       "--state-dir";
	case -ENOTSUP:
		return "run the reconciler once: it brings the file up to date";
	default:
		return "check the folder's owner and permissions";
	}
}

static int say(struct diag_list *diags, const char *path, int err)
{
	const char *what = strerror(-err);

	if (err == -EPROTONOSUPPORT)
		what = "its schema is newer than this program";
	else if (err == -ENOTSUP)
		what = "its schema is older than this program";
	else if (err == -EUCLEAN)
		what = "not a history of xlb";
	if (diags)
		diag_add(diags, SEVERITY_ERROR, NULL, hint_for(err),
			 "can't open %s: %s", path, what);
	return err;
}

static int check_reader(sqlite3 *db)
{
	int version = 0;
	int err = migrate_version(db, &version);

	if (err)
		return err;
	if (version > STORE_VERSION)
		return -EPROTONOSUPPORT;
	if (!version)
		return -EUCLEAN;
	return version < STORE_VERSION ? -ENOTSUP : 0;
}

/* The schema first: a database that is refused isn't changed in any way. */
static int set_up_writer(sqlite3 *db)
{
	int err = migrate_current(db);

	if (err)
		return err;
	return db_errno(sqlite3_exec(db,
				     "PRAGMA journal_mode = WAL;"
				     "PRAGMA synchronous = NORMAL;"
				     "PRAGMA foreign_keys = ON;"
				     "PRAGMA journal_size_limit = 16777216",
				     NULL, NULL, NULL));
}

static int open_db(const char *path, bool read_only, sqlite3 **ret)
{
	int flags = read_only ? SQLITE_OPEN_READONLY
			      : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
	struct stat st;
	int err;

	if (read_only && stat(path, &st))
		return -errno;
	err = db_errno(sqlite3_open_v2(
		path, ret, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
		NULL));
	if (err)
		return err;
	sqlite3_busy_timeout(*ret, STORE_BUSY_MS);
	return read_only ? check_reader(*ret) : set_up_writer(*ret);
}

/* The folder's parents must be there; it is made for root alone. */
static int make_dir(const char *dir)
{
	return mkdir(dir, 0700) && errno != EEXIST ? -errno : 0;
}

static void note_file(struct store *s)
{
	struct stat st = { 0 };

	(void)stat(s->path, &st);
	s->device = st.st_dev;
	s->inode = st.st_ino;
}

int store_open(const char *dir, bool read_only, struct store **ret,
	       struct diag_list *diags)
{
	AUTO_FREE char *path = mem_printf("%s/history.db", dir);
	struct store *s;
	sqlite3 *db = NULL;
	int err;

	if (!read_only)
		seam_change("store_open");
	err = read_only ? 0 : make_dir(dir);

	if (!err)
		err = open_db(path, read_only, &db);
	if (err) {
		sqlite3_close(db);
		return say(diags, path, err);
	}
	s = mem_alloc(sizeof(*s));
	s->db = db;
	s->path = mem_dup(path);
	note_file(s);
	*ret = s;
	return 0;
}

bool store_in_place(const struct store *s)
{
	struct stat st;

	return !stat(s->path, &st) && st.st_dev == s->device &&
	       st.st_ino == s->inode;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	store_commit(s);
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(s->cache[i]);
	sqlite3_close(s->db);
	free(s->path);
	free(s);
}
