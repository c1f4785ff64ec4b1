/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What happened: one function a kind of record. */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "state/db.h"

/* Holds further apart than this are not one steady time: nobody watched. */
#define STEADY_GAP_MS 300000

/* 0 and errors of store_add_revision() stand for "no revision". */
static void bind_revision(sqlite3_stmt *st, int i, int64_t id)
{
	db_known(st, i, id > 0 ? id : -1);
}

static int64_t new_id(struct store *s, int err)
{
	return err ? err : sqlite3_last_insert_rowid(s->db);
}

int64_t store_add_revision(struct store *s, const struct store_revision *r)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_REVISION);

	if (st) {
		sqlite3_bind_int64(st, 1, r->time_ms);
		db_text(st, 2, r->path);
		db_text(st, 3, r->sha256);
		db_text(st, 4, r->git_revision);
		sqlite3_bind_int(st, 5, r->git_dirty);
		db_text(st, 6, r->result);
	}
	return new_id(s, db_write(s, st, true));
}

static int changed_one(struct store *s, int err)
{
	if (err)
		return err;
	return sqlite3_changes(s->db) ? 0 : -ENOENT;
}

int store_set_revision_result(struct store *s, int64_t id, const char *result)
{
	sqlite3_stmt *st = db_statement(s, SQL_SET_REVISION);

	if (st) {
		sqlite3_bind_int64(st, 1, id);
		db_text(st, 2, result);
	}
	return changed_one(s, db_write(s, st, true));
}

int store_set_revision_git(struct store *s, int64_t id, const char *revision,
			   bool dirty)
{
	sqlite3_stmt *st = db_statement(s, SQL_SET_GIT);

	if (st) {
		sqlite3_bind_int64(st, 1, id);
		db_text(st, 2, revision);
		sqlite3_bind_int(st, 3, dirty);
	}
	return changed_one(s, db_write(s, st, false));
}

int store_last_applied(struct store *s, int64_t *ret_id, char ret_sha256[65])
{
	sqlite3_stmt *st = db_statement(s, SQL_LAST_APPLIED);
	int err = db_step(s, st);
	const char *sha;

	if (err < 0)
		return err;
	*ret_id = 0;
	ret_sha256[0] = '\0';
	if (!err)
		return 0;
	*ret_id = sqlite3_column_int64(st, 0);
	sha = (const char *)sqlite3_column_text(st, 1);
	if (sha) {
		size_t len = strnlen(sha, 64);

		memcpy(ret_sha256, sha, len);
		ret_sha256[len] = '\0';
	}
	sqlite3_reset(st);
	return 0;
}

int store_add_change(struct store *s, const struct store_change *c)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_CHANGE);

	if (st) {
		sqlite3_bind_int64(st, 1, c->time_ms);
		bind_revision(st, 2, c->revision_id);
		db_text(st, 3, c->run_id);
		db_text(st, 4, c->object);
		db_text(st, 5, c->action);
		db_text(st, 6, c->cause);
		db_text(st, 7, c->file);
		db_known(st, 8, c->line > 0 ? c->line : -1);
		db_text(st, 9, c->result);
		db_text(st, 10, c->error);
		db_known(st, 11, c->took_ms);
	}
	return db_write(s, st, true);
}

int store_add_vm_event(struct store *s, const struct store_vm_event *e)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_VM);

	if (st) {
		sqlite3_bind_int64(st, 1, e->time_ms);
		db_text(st, 2, e->service);
		db_text(st, 3, e->vm);
		db_text(st, 4, e->hypervisor);
		db_text(st, 5, e->address);
		db_text(st, 6, e->event);
		db_text(st, 7, e->reason);
		db_known(st, 8, e->took_ms);
	}
	return db_write(s, st, true);
}

int store_add_health(struct store *s, const struct store_health *h)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_HEALTH);

	if (st) {
		sqlite3_bind_int64(st, 1, h->time_ms);
		db_text(st, 2, h->service);
		db_text(st, 3, h->backend);
		db_text(st, 4, h->from_state);
		db_text(st, 5, h->to_state);
		db_text(st, 6, h->reason);
		if (h->probe_ms >= 0)
			sqlite3_bind_double(st, 7, h->probe_ms);
	}
	return db_write(s, st, false);
}

/* Parameters 1 to 9, which both statements have in common. */
static void bind_scaling(sqlite3_stmt *st, const struct store_scaling *d)
{
	const struct scale_decision *n = d->decision;

	sqlite3_bind_int64(st, 1, d->time_ms);
	db_text(st, 2, d->service);
	sqlite3_bind_int64(st, 3, n->from);
	sqlite3_bind_int64(st, 4, n->wanted);
	sqlite3_bind_int64(st, 5, n->to);
	db_text(st, 6, scale_reason_name(n->reason));
	db_text(st, 7, scale_limit_name(n->limited_by));
	db_text(st, 8, d->mode ? d->mode : "live");
	bind_revision(st, 9, d->revision_id);
}

/* Id of the row that a hold went into, 0 when it needs one of its own. */
static int64_t add_steady(struct store *s, const struct store_scaling *d)
{
	sqlite3_stmt *st = db_statement(s, SQL_STEADY);
	int64_t id;
	int err;

	if (st) {
		bind_scaling(st, d);
		sqlite3_bind_int64(st, 10, STEADY_GAP_MS);
	}
	err = db_step(s, st);
	if (err <= 0)
		return err;
	id = sqlite3_column_int64(st, 0);
	while (err > 0)
		err = db_step(s, st);
	return err ? err : id;
}

int64_t store_add_scaling(struct store *s, const struct store_scaling *d)
{
	struct buf message AUTO_BUF = BUF_INIT;
	struct buf signals AUTO_BUF = BUF_INIT;
	sqlite3_stmt *st;
	int64_t id;

	if (d->decision->direction == SCALE_HOLD) {
		id = add_steady(s, d);
		if (id)
			return id;
	}
	st = db_statement(s, SQL_ADD_SCALING);
	scale_message(d->decision, &message);
	scale_signals_json(d->decision, &signals);
	if (st) {
		bind_scaling(st, d);
		db_text(st, 10, scale_direction_name(d->decision->direction));
		db_text(st, 11, buf_str(&message));
		db_text(st, 12, buf_str(&signals));
		db_known(st, 13, d->took_ms > 0 ? d->took_ms : -1);
	}
	return new_id(s, db_write(s, st, d->decision->direction != SCALE_HOLD));
}

int store_set_scaling_took(struct store *s, int64_t id, int64_t took_ms)
{
	sqlite3_stmt *st = db_statement(s, SQL_SET_TOOK);

	if (st) {
		sqlite3_bind_int64(st, 1, id);
		db_known(st, 2, took_ms);
	}
	return changed_one(s, db_write(s, st, false));
}

int store_add_load(struct store *s, const struct store_load *l)
{
	sqlite3_stmt *st = db_statement(s, SQL_ADD_LOAD);

	if (st) {
		sqlite3_bind_int64(st, 1, l->time_ms);
		db_text(st, 2, l->service);
		db_text(st, 3, metric_name(l->metric));
		sqlite3_bind_double(st, 4, l->mean);
		sqlite3_bind_double(st, 5, l->min);
		sqlite3_bind_double(st, 6, l->max);
		sqlite3_bind_int64(st, 7, l->samples);
		sqlite3_bind_int64(st, 8, l->ready_vms);
		sqlite3_bind_int64(st, 9, l->resolution_s);
	}
	return db_write(s, st, false);
}
