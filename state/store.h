/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * history.db: what happened and why, and the little that must survive a
 * restart.  Traffic never depends on it: every call may fail, the caller logs
 * and goes on.  One writer; readers use plain sqlite3 at any time (WAL).
 */
#ifndef STATE_STORE_H
#define STATE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "scale/scale.h"

struct store;

/* Opens, creates or migrates DIR/history.db; a newer schema is refused. */
int store_open(const char *dir, bool read_only, struct store **ret,
	       struct diag_list *diags);
void store_close(struct store *s);
/* Its path still leads to the file that is open. */
bool store_in_place(const struct store *s);

/* Group several records into one commit; nesting is not allowed. */
int store_begin(struct store *s);
int store_commit(struct store *s);
/*
 * What was recorded so far is not lost with this process, though a group goes
 * on: before something is done that only the record knows to undo or to count.
 */
int store_commit_so_far(struct store *s);

/* A revision of the file: applied, failed, invalid, held. Id or -errno. */
struct store_revision {
	int64_t time_ms;
	const char *path, *sha256, *git_revision, *result;
	bool git_dirty;
};
int64_t store_add_revision(struct store *s, const struct store_revision *r);
int store_set_revision_result(struct store *s, int64_t id, const char *result);
/* Which commit it was; found out when there is time for it. */
int store_set_revision_git(struct store *s, int64_t id, const char *revision,
			   bool dirty);
/* Latest revision with result 'applied'; 0 and id 0 when there is none. */
int store_last_applied(struct store *s, int64_t *ret_id, char ret_sha256[65]);

struct store_change {
	int64_t time_ms, revision_id, took_ms;
	const char *run_id, *object, *action, *cause, *file, *result, *error;
	int line;
};
int store_add_change(struct store *s, const struct store_change *c);

struct store_vm_event {
	int64_t time_ms, took_ms;
	const char *service, *vm, *hypervisor, *address, *event, *reason;
};
int store_add_vm_event(struct store *s, const struct store_vm_event *e);

struct store_health {
	int64_t time_ms;
	double probe_ms;
	const char *service, *backend, *from_state, *to_state, *reason;
};
int store_add_health(struct store *s, const struct store_health *h);

/*
 * A scaling decision.  Steady ones (direction hold, same reason, limit and
 * counts as the one before) are rolled up into one row that says until when
 * and how often; every other one is a row of its own.
 */
struct store_scaling {
	int64_t time_ms, revision_id, took_ms;
	const char *service, *mode;
	const struct scale_decision *decision;
};
int64_t store_add_scaling(struct store *s, const struct store_scaling *d);
/* The action of a decision was finished after so long. */
int store_set_scaling_took(struct store *s, int64_t id, int64_t took_ms);

/* Load of one interval; rolled up to minutes and hours by store_maintain(). */
struct store_load {
	int64_t time_ms;
	const char *service;
	enum metric metric;
	double mean, min, max;
	uint32_t samples, ready_vms, resolution_s;
};
int store_add_load(struct store *s, const struct store_load *l);

/* Scaler windows over a restart: times are stored as wall-clock ms. */
int store_save_scaler(struct store *s, const char *service,
		      const struct scale_memory *m, uint64_t now_ns,
		      int64_t wall_ms);
int store_load_scaler(struct store *s, const char *service,
		      struct scale_memory *ret, uint64_t now_ns,
		      int64_t wall_ms);
/* When it was saved, wall-clock ms; 0: nothing is stored, or -errno. */
int64_t store_scaler_saved(struct store *s, const char *service);

/* Operator overrides: key "service/backend", kind "drain". */
struct store_override {
	char *kind, *key;
	int64_t since_ms, until_ms; /* until 0: for ever */
};
int store_set_override(struct store *s, const struct store_override *o);
int store_clear_override(struct store *s, const char *kind, const char *key);
int store_overrides(struct store *s, struct store_override **ret,
		    size_t *ret_count); /* store_overrides_free() */
void store_overrides_free(struct store_override *o, size_t count);

/* VM deletions that count; store_deletions() gives them by time. */
struct store_deletion {
	int64_t id, time_ms;
	const char *vm; /* "": since when they are known */
	bool approved, open;
};
typedef void (*store_deletion_fn)(void *arg, const struct store_deletion *d);
int64_t store_add_deletion(struct store *s, const struct store_deletion *d);
int store_close_deletion(struct store *s, int64_t id);
int store_deletions(struct store *s, store_deletion_fn fn, void *arg);

/* Services as they were declared last, by name. */
struct store_declaration {
	const char *service;
	int64_t time_ms; /* of store_keep_declaration() */
	bool protect;
	const char *text; /* a file of its own, in canonical form */
};
typedef void (*store_declaration_fn)(void *arg,
				     const struct store_declaration *d);
int store_keep_declaration(struct store *s, const struct store_declaration *d);
int store_drop_declaration(struct store *s, const char *service);
int store_declarations(struct store *s, store_declaration_fn fn, void *arg);

/* Roll up and delete what is older than retention_ms; bounded work a call. */
int store_maintain(struct store *s, int64_t now_ms, int64_t retention_ms);

/* Rows for `history`, oldest first; kind NULL: all; since_ms 0: all. */
typedef void (*store_row_fn)(void *arg, const char *time, const char *kind,
			     const char *service, const char *text);
int store_history(struct store *s, const char *service, const char *kind,
		  int64_t since_ms, unsigned int limit, store_row_fn fn,
		  void *arg);

/* A scaler's decision as it was recorded; texts are good for the call. */
struct store_decision {
	const char *time, *direction, *reason, *limited_by, *message, *mode;
	const char *signals; /* JSON, as in the view */
	int from_vms, wanted_vms, to_vms;
};
/* The last `limit` of a service up to that time, the newest first. */
int store_decisions(struct store *s, const char *service, int64_t until_ms,
		    unsigned int limit,
		    void (*fn)(void *arg, const struct store_decision *d),
		    void *arg);

#endif
