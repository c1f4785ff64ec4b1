/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Services that stay as they were declared before (desired/keep.h): which ones,
 * and for how long.
 *
 * What a service was is remembered when its file comes into force, of those
 * that may have to stay: protected ones, ones that pause, ones with VMs.  A
 * file that is read later has them put back into it, so that everything after
 * that knows of declared services only.
 */
#include "pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "desired/keep.h"

struct declaration {
	char *service;
	char *text;
	bool protect;
	bool stored; /* as it is here */
};

static void put(struct reconciler *r, const char *service, const char *text,
		bool protect)
{
	struct declaration *d = strmap_get(&r->declarations, service);

	if (d && d->protect == protect && !strcmp(d->text, text))
		return;
	if (!d) {
		d = mem_alloc(sizeof(*d));
		d->service = mem_dup(service);
		strmap_put(&r->declarations, d->service, d);
	}
	free(d->text);
	d->text = mem_dup(text);
	d->protect = protect;
	d->stored = false;
}

static void save(struct reconciler *r, struct declaration *d)
{
	struct store_declaration row = { .service = d->service,
					 .time_ms = clock_wall_ms(),
					 .protect = d->protect,
					 .text = d->text };

	if (d->stored || !r->store || r->read_only)
		return;
	d->stored = !store_keep_declaration(r->store, &row);
	if (!d->stored)
		log_warn("history", "what=declaration service=%s result=lost",
			 d->service);
}

static void forget(struct reconciler *r, struct declaration *d)
{
	if (r->store && !r->read_only &&
	    store_drop_declaration(r->store, d->service))
		log_warn("history", "what=declaration service=%s result=kept",
			 d->service);
	strmap_remove(&r->declarations, d->service);
	free(d->service);
	free(d->text);
	free(d);
}

static void add_stored(void *arg, const struct store_declaration *s)
{
	struct reconciler *r = arg;

	put(r, s->service, s->text, s->protect);
	((struct declaration *)strmap_get(&r->declarations, s->service))
		->stored = true;
}

void keeping_open(struct reconciler *r)
{
	if (r->store && store_declarations(r->store, add_stored, r))
		log_warn("history", "what=declarations result=unreadable");
}

void keeping_close(struct reconciler *r)
{
	struct declaration *d;
	size_t i = 0;

	while ((d = strmap_next(&r->declarations, &i))) {
		free(d->service);
		free(d->text);
		free(d);
	}
	strmap_release(&r->declarations);
}

const struct store_override *find_override(const struct reconciler *r,
					   const char *kind, const char *key)
{
	for (size_t i = 0; i < r->override_count; i++)
		if (!strcmp(r->overrides[i].kind, kind) &&
		    !strcmp(r->overrides[i].key, key))
			return &r->overrides[i];
	return NULL;
}

bool service_pauses(const struct reconciler *r, const struct service_spec *s)
{
	return s->paused || find_override(r, "pause", s->name);
}

static uint32_t id_in_kernel(const struct reconciler *r, const char *name)
{
	const struct datapath_view *view = r->dp ? datapath_view(r->dp) : NULL;

	for (uint32_t id = 1; view && id < XLB_SERVICES; id++)
		if (!strcmp(view->services[id].name, name))
			return id;
	return 0;
}

bool kept_by_kernel(const struct reconciler *r, const char *name)
{
	uint32_t id = id_in_kernel(r, name);

	return id &&
	       datapath_view(r->dp)->services[id].flags & XLB_SERVICE_PROTECTED;
}

/* ---- remembering ---- */

static void remember(struct reconciler *r, const struct service_spec *s)
{
	AUTO_BUF struct buf text = BUF_INIT;

	keep_print(s, &text);
	put(r, s->name, buf_str(&text), s->protect);
}

static bool may_have_to_stay(const struct reconciler *r,
			     const struct service_spec *s)
{
	return s->protect || s->pool.template || service_pauses(r, s);
}

/* What was asked for once is over with the service, or with its return. */
static void forget_unprotect(struct reconciler *r)
{
	for (size_t i = 0; i < r->override_count; i++) {
		struct store_override *o = &r->overrides[i];
		const struct service_spec *s =
			spec_find_service(r->spec, o->key);

		if (strcmp(o->kind, "unprotect") != 0 ||
		    (s ? s->undeclared : id_in_kernel(r, o->key) != 0))
			continue;
		store_clear_override(r->store, o->kind, o->key);
		o->kind[0] = '\0';
	}
}

void keeping_remember(struct reconciler *r)
{
	struct declaration *d;
	size_t i = 0;

	for (size_t k = 0; k < r->spec->service_count; k++) {
		const struct service_spec *s = &r->spec->services[k];

		if (s->kept == KEPT_NOT && may_have_to_stay(r, s))
			remember(r, s);
	}
	while ((d = strmap_next(&r->declarations, &i))) {
		const struct service_spec *s =
			spec_find_service(r->spec, d->service);

		if (s && (s->kept != KEPT_NOT || may_have_to_stay(r, s)))
			save(r, d);
		else
			forget(r, d);
	}
	forget_unprotect(r);
}

/* ---- which stay ---- */

/* VMs whose deletion would still count. */
static uint32_t count_vms(const struct reconciler *r, const char *service)
{
	struct vm_run *v;
	uint32_t n = 0;
	size_t i = 0;

	while ((v = strmap_next(&r->vms, &i))) {
		enum vm_phase phase = vm_run_phase(v);

		n += !strcmp(v->service, service) && phase != PHASE_STOPPING &&
		     phase != PHASE_DRAINING &&
		     !ledger_may_go(&r->ledger, v->name);
	}
	return n;
}

/* Until all VMs are known (before the first file none is), none may go. */
static bool all_may_go(const struct reconciler *r, const char *service,
		       uint32_t *left)
{
	uint32_t n;

	if (r->approved)
		return true;
	if (!r->spec || !hypervisors_read(r))
		return false;
	n = count_vms(r, service);
	if (n > *left)
		return false;
	*left -= n;
	return true;
}

static uint32_t deletions_left(const struct reconciler *r,
			       const struct spec *spec)
{
	struct arena *arena = arena_new();
	uint32_t left = ledger_budget(&r->ledger, &spec->safety.max_vm_deletes,
				      guards_now(r), arena)
				.left;

	arena_free(arena);
	return left;
}

static bool has_pool(const struct declaration *d)
{
	return strstr(d->text, "\n    pool:") != NULL;
}

static void see_vm_owner(void *arg, uint32_t id, const struct xlb_owner *owner)
{
	uint32_t *service = arg;

	(void)id;
	if (owner->service == *service && owner->kind == XLB_OWNER_VM)
		*service = UINT32_MAX;
}

/* Traffic may go to VMs of it. */
static bool serves_by_vms(const struct reconciler *r, const char *name)
{
	uint32_t id = id_in_kernel(r, name);

	if (id)
		datapath_owners(r->dp, see_vm_owner, &id);
	return id == UINT32_MAX;
}

/* What VMs it has isn't known: then the kernel's word counts. */
static bool has_vms_that_stay(const struct reconciler *r, const char *service,
			      uint32_t *left)
{
	if (all_may_go(r, service, left))
		return false;
	return count_vms(r, service) || serves_by_vms(r, service);
}

static enum kept_why stays_without_block(const struct reconciler *r,
					 const struct declaration *d,
					 uint32_t *left)
{
	if (find_override(r, "pause", d->service))
		return KEPT_PAUSED;
	if (d->protect && !find_override(r, "unprotect", d->service))
		return KEPT_PROTECTED;
	/* What asks for all to go waits for no guard. */
	if (!strcmp(r->opt->verb, "destroy"))
		return KEPT_NOT;
	return has_pool(d) && has_vms_that_stay(r, d->service, left)
		       ? KEPT_LEAVING
		       : KEPT_NOT;
}

static bool says_the_same(const struct service_spec *s, const char *text)
{
	AUTO_BUF struct buf now = BUF_INIT;

	keep_print(s, &now);
	return !strcmp(buf_str(&now), text);
}

/* What a service without a row of its own was under the file in force. */
static char *text_in_force(const struct reconciler *r, const char *name)
{
	const struct declaration *d = strmap_get(&r->declarations, name);
	const struct service_spec *s =
		r->spec && !r->read_only ? spec_find_service(r->spec, name)
					 : NULL;
	AUTO_BUF struct buf text = BUF_INIT;

	if (d)
		return mem_dup(d->text);
	if (!s)
		return NULL;
	keep_print(s, &text);
	return mem_dup(buf_str(&text));
}

static void keep(struct spec *spec, const char *name, const char *text,
		 enum kept_why why)
{
	const char *conflict = keep_insert(spec, name, text, why);
	struct conflict *c;

	/* Their VMs are held back by themselves. */
	if (!conflict || why == KEPT_LEAVING)
		return;
	c = ARENA_PUSH(spec->arena, spec->conflicts, spec->conflict_count);
	c->service = arena_dup(spec->arena, name);
	c->kept = why;
	c->why = conflict;
}

/* Declared and paused: the file's changes of it wait. */
static void keep_paused(struct reconciler *r, struct spec *spec)
{
	size_t i = 0;

	while (i < spec->service_count) {
		const struct service_spec *s = &spec->services[i++];
		AUTO_FREE char *text =
			service_pauses(r, s) ? text_in_force(r, s->name) : NULL;

		if (text && !says_the_same(s, text))
			keep(spec, s->name, text, KEPT_PAUSED);
	}
}

void keeping_merge(struct reconciler *r, struct spec *spec)
{
	uint32_t left = deletions_left(r, spec);
	struct declaration *d;
	size_t i = 0;

	keep_paused(r, spec);
	while ((d = strmap_next(&r->declarations, &i))) {
		enum kept_why why = KEPT_NOT;

		if (!spec_find_service(spec, d->service))
			why = stays_without_block(r, d, &left);
		if (why != KEPT_NOT)
			keep(spec, d->service, d->text, why);
	}
}

/* ---- which stay no longer ---- */

static void let_go(struct reconciler *r, const char *name)
{
	struct declaration *d = strmap_get(&r->declarations, name);

	log_info("let_go", "service=%s", name);
	if (d)
		forget(r, d);
	keep_remove(r->spec, name);
}

void keeping_step(struct reconciler *r)
{
	bool any = false;
	uint32_t left;
	size_t i = 0;

	for (size_t k = 0; k < r->spec->service_count; k++)
		any |= r->spec->services[k].kept == KEPT_LEAVING;
	left = any ? deletions_left(r, r->spec) : 0;
	while (any && i < r->spec->service_count) {
		const struct service_spec *s = &r->spec->services[i];

		if (s->kept == KEPT_LEAVING && all_may_go(r, s->name, &left))
			let_go(r, s->name);
		else
			i++;
	}
	forget_unprotect(r);
}

/* Back to what the file says of it, or, without a block, on its way out. */
void keeping_release(struct reconciler *r, const char *name)
{
	struct service_spec *s = keep_find(r->spec, name);
	struct declaration *d = strmap_get(&r->declarations, name);

	if (d) {
		d->protect = false;
		d->stored = false;
		save(r, d);
	}
	if (!s || !s->undeclared)
		return;
	s->protect = false;
	s->kept = KEPT_LEAVING;
	if (s->pool.template)
		s->pool.min = 0;
}
