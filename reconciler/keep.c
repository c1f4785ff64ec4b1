/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The store: opened when it can be, and looked after.  Traffic never depends on
 * it, so one that can't be opened is tried again at each resync, and one that
 * was removed, or replaced by a backup, is followed: what this process knows is
 * newer than what stands in there, and is written to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pipeline.h"

/* Told once a reason.  A damaged one that its owner has to look at stays. */
static void tell_unavailable(struct reconciler *r, int err,
			     const struct diag_list *diags)
{
	const struct diag *d = diags->count ? &diags->items[0] : NULL;

	if (err == r->store_err)
		return;
	r->store_err = err;
	log_warn("history", "result=unavailable why=\"%s\" hint=\"%s\"",
		 d ? d->message : strerror(-err), d && d->hint ? d->hint : "");
}

static int open_store(struct reconciler *r)
{
	struct diag_list diags = { 0 };
	int err =
		store_open(r->opt->state_dir, r->read_only, &r->store, &diags);

	if (err)
		r->store = NULL;
	/* One who only looks may come before there is any. */
	if (err && !(r->read_only && err == -ENOENT))
		tell_unavailable(r, err, &diags);
	if (!err)
		r->store_err = 0;
	diag_list_release(&diags);
	return err;
}

void state_open(struct reconciler *r)
{
	if (open_store(r))
		return;
	store_overrides(r->store, &r->overrides, &r->override_count);
	r->overrides_read = true;
}

static void keep_overrides(struct reconciler *r)
{
	for (size_t i = 0; i < r->override_count; i++)
		if (r->overrides[i].kind[0])
			store_set_override(r->store, &r->overrides[i]);
	if (r->overrides_read)
		return;
	store_overrides_free(r->overrides, r->override_count);
	r->overrides = NULL;
	r->override_count = 0;
	store_overrides(r->store, &r->overrides, &r->override_count);
	guards_open(r);
	keeping_open(r);
	r->overrides_read = true;
}

/* Ids are those of rows, and the rows are others now. */
static void forget_rows(struct reconciler *r)
{
	struct service_run *s;
	struct vm_run *v;
	size_t i = 0;

	while ((s = strmap_next(&r->services, &i)))
		s->action_id = 0;
	i = 0;
	while ((v = strmap_next(&r->vms, &i)))
		v->revision = r->revision;
}

static void store_found(struct reconciler *r)
{
	log_info("history", "result=available");
	keep_overrides(r);
	if (r->spec) {
		record_revision(r, r->settled ? "applied" : "applying");
		set_revision(r, r->last_revision > 0 ? r->last_revision : 0);
		record_commit(r);
	}
	forget_rows(r);
	reconcile_soon(r);
}

void state_keep(struct reconciler *r)
{
	if (r->read_only)
		return;
	if (r->store && !store_in_place(r->store)) {
		log_warn("history", "result=replaced");
		store_close(r->store);
		r->store = NULL;
	}
	if (!r->store && !open_store(r))
		store_found(r);
}
