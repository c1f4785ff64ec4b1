/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drift and edits apart, also when both come at once.
 *
 * The plan for the file that was last applied, in the world as it is, holds
 * all that differs from what that file asked for.  What of it the new file's
 * plan does as well is drift; the rest of the new plan is what the edit asks
 * for.  Only the services that the new plan changes are planned again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/strmap.h"
#include "plan/internal.h"

static bool is_edit(const struct change *c)
{
	return !c->hidden && !c->drift && c->file;
}

/* What an event calls for may turn out to be drift, too. */
static bool is_open(const struct change *c)
{
	return !c->hidden && !c->drift;
}

/* ---- the world as the applied file would have it seen ---- */

static const struct backend_spec *find_backend(const struct service_spec *s,
					       const struct world_member *m)
{
	for (size_t i = 0; i < s->backend_count; i++) {
		const struct backend_spec *b = &s->backends[i];

		if (!strcmp(b->name, m->name) &&
		    ip_equal(&b->addresses[0], &m->addresses[0]) &&
		    ip_equal(&b->addresses[1], &m->addresses[1]))
			return b;
	}
	return NULL;
}

static void declare(struct world_member *m, const struct backend_spec *b)
{
	bool by_file = m->fixed && m->fixed->state == BACKEND_DRAIN;

	m->drained = b->state == BACKEND_DRAIN || (m->drained && !by_file);
	m->fixed = b;
	m->port = b->port;
	m->weight = b->weight;
	m->leaving = m->finished = false;
}

/* Those that the edit brings aren't there yet. */
static void rewind_members(struct arena *a, struct world_service *s)
{
	struct world_member *members =
		arena_alloc(a, (s->member_count + 1) * sizeof(*members));
	size_t n = 0;

	for (size_t i = 0; i < s->member_count; i++) {
		struct world_member m = s->members[i];
		const struct backend_spec *b =
			m.vm ? NULL : find_backend(s->spec, &m);

		if (b)
			declare(&m, b);
		else if (m.fixed && !m.id)
			continue;
		else if (m.fixed)
			m.fixed = NULL, m.leaving = true;
		if (m.vm && s->spec->pool.template)
			m.weight = s->spec->pool.weight;
		members[n++] = m;
	}
	s->members = members;
	s->member_count = n;
}

static void rewind_vms(struct arena *a, struct world *w)
{
	struct world_vm *vms = arena_alloc(a, (w->vm_count + 1) * sizeof(*vms));
	size_t n = 0;

	for (size_t i = 0; i < w->vm_count; i++)
		for (size_t k = 0; k < w->service_count; k++)
			if (!strcmp(w->vms[i].service, w->services[k].name)) {
				vms[n++] = w->vms[i];
				break;
			}
	w->vms = vms;
	w->vm_count = n;
}

static int by_name(const void *name, const void *item)
{
	return strcmp(name, ((const struct world_service *)item)->name);
}

/*
 * By index in the world: which services the plan changes; all of them, where
 * events change the node, as those come from any of them.
 */
static bool *find_touched(const struct plan *p)
{
	const struct world *w = p->world;
	bool *touched = arena_alloc(p->arena, w->service_count + 1);

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];
		const struct world_service *s = NULL;

		if (!is_open(c))
			continue;
		if (!c->service && !c->file)
			memset(touched, true, w->service_count);
		if (c->service && w->service_count)
			s = bsearch(c->service, w->services, w->service_count,
				    sizeof(*s), by_name);
		if (s)
			touched[s - w->services] = true;
	}
	return touched;
}

static struct world *rewind_world(struct plan *p, const struct spec *applied,
				  struct spec *ret_spec)
{
	const bool *touched = find_touched(p);
	struct world *w = arena_alloc(p->arena, sizeof(*w));
	struct service_spec *specs = NULL;

	*w = *p->world;
	*ret_spec = *applied;
	ret_spec->service_count = 0;
	w->settled = true;
	w->services = NULL;
	w->service_count = 0;
	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *now = &p->world->services[i];
		const struct service_spec *spec =
			touched[i] ? spec_find_service(applied, now->name)
				   : NULL;
		struct world_service *s;

		if (!spec)
			continue;
		s = ARENA_PUSH(p->arena, w->services, w->service_count);
		*s = *now;
		s->spec = spec;
		s->pool.wanted = s->pool.wanted_before;
		s->pool.cause = NULL;
		rewind_members(p->arena, s);
		*ARENA_PUSH(p->arena, specs, ret_spec->service_count) = *spec;
	}
	ret_spec->services = specs;
	rewind_vms(p->arena, w);
	return w;
}

/* ---- what both plans do ---- */

struct entry { /* a visible change of the new plan, and those of its object */
	struct change *change;
	struct entry *next;
};

static void index_changes(struct plan *p, struct strmap *objects)
{
	for (size_t i = 0; i < p->count; i++) {
		struct change *c = p->changes[i];
		struct entry *e;

		if (c->hidden)
			continue;
		e = arena_alloc(p->arena, sizeof(*e));
		e->change = c;
		e->next = strmap_get(objects, c->object);
		strmap_put(objects, c->object, e);
	}
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/* A new VM may get another address: which one it is counts. */
static bool is_same(const struct change *a, const struct change *b)
{
	return a->kind == b->kind && a->action == b->action &&
	       (a->kind == CHANGE_VM_CREATE || same_text(a->detail, b->detail));
}

/* Both in one object: the repair is shown apart, the edit starts from it. */
static void split(struct plan *p, struct change *edit, const struct change *b)
{
	struct change *repair = arena_alloc(p->arena, sizeof(*repair));

	*repair = *b;
	repair->kind = CHANGE_SHOW;
	repair->base = b;
	repair->cause = edit->cause;
	repair->file = edit->file;
	repair->line = edit->line;
	*ARENA_PUSH(p->arena, p->changes, p->count) = repair;
	edit->base = b;
	if (edit->kind == CHANGE_SHOW && edit->sets.want && b->sets.want)
		say_service_again(p->arena, edit);
	if (edit->kind == CHANGE_BACKEND_SET &&
	    edit->backend.owner.weight != b->backend.owner.weight)
		edit->detail = arena_printf(p->arena, "weight %u -> %u",
					    b->backend.owner.weight,
					    edit->backend.owner.weight);
}

static void tell(struct plan *p, const struct strmap *objects,
		 const struct change *b)
{
	struct change *edit = NULL;

	for (const struct entry *e = strmap_get(objects, b->object); e;
	     e = e->next) {
		struct change *c = e->change;

		if (is_same(c, b)) {
			c->drift = true;
			return;
		}
		if (is_edit(c) && c->kind == b->kind &&
		    (c->action != ACTION_DESTROY ||
		     b->action == ACTION_DESTROY))
			edit = c;
	}
	/* None: the edit does without it, so nothing has to be repaired. */
	if (edit)
		split(p, edit, b);
}

void plan_tell_drift(struct plan *p, const struct spec *applied)
{
	struct strmap objects = { 0 };
	struct spec spec;
	struct world *w;
	bool open = false;

	for (size_t i = 0; i < p->count && !open; i++)
		open = is_open(p->changes[i]);
	if (!applied || !open)
		return;
	w = rewind_world(p, applied, &spec);
	p->baseline = plan_make(&spec, w);
	index_changes(p, &objects);
	for (size_t i = 0; i < p->baseline->count; i++) {
		const struct change *b = p->baseline->changes[i];

		if (b->drift && !b->hidden)
			tell(p, &objects, b);
	}
	strmap_release(&objects);
	order_changes(p);
}
