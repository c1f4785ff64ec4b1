/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/plan.h"

#include <string.h>

struct held *plan_hold(struct plan *p, const char *guard, const char *object,
		       const char *why, int64_t until_ms)
{
	struct held *h = arena_alloc(p->arena, sizeof(*h));

	*h = (struct held){ guard, arena_dup(p->arena, object),
			    arena_dup(p->arena, why), until_ms };
	*ARENA_PUSH(p->arena, p->guards, p->guard_count) = h;
	return h;
}

static bool is_approvable(const struct held *h)
{
	static const char *const others[] = { "protect", "paused", "min" };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (!strcmp(h->guard, others[i]))
			return false;
	return true;
}

bool plan_awaits_approval(const struct plan *p)
{
	for (size_t i = 0; i < p->guard_count; i++)
		if (is_approvable(p->guards[i]))
			return true;
	return false;
}

static bool is_running(const struct world *w, const struct world_service *s)
{
	if (s->id)
		return true;
	for (size_t i = 0; i < w->vm_count; i++)
		if (!strcmp(w->vms[i].service, s->name))
			return true;
	return false;
}

struct removals {
	uint32_t running, removed;
};

static const struct world_service *find_service(const struct world *w,
						const char *name)
{
	size_t from = 0, to = w->service_count;

	while (from < to) {
		size_t i = from + (to - from) / 2;
		int sign = strcmp(name, w->services[i].name);

		if (!sign)
			return &w->services[i];
		*(sign < 0 ? &to : &from) = sign < 0 ? i : i + 1;
	}
	return NULL;
}

/* Those that a reboot took out of the kernel: declared, and to be made again. */
static void count_gone(const struct world *w, const struct spec *spec,
		       struct removals *r)
{
	for (size_t i = 0; i < w->applied->service_count; i++) {
		const char *name = w->applied->services[i].name;
		const struct world_service *s = find_service(w, name);

		if (s && is_running(w, s))
			continue; /* counted */
		r->running++;
		r->removed += !spec_find_service(spec, name);
	}
}

static struct removals count_removals(const struct world *w,
				      const struct spec *spec)
{
	struct removals r = { 0 };

	for (size_t i = 0; i < w->service_count; i++) {
		if (!is_running(w, &w->services[i]))
			continue;
		r.running++;
		r.removed += !w->services[i].spec ||
			     w->services[i].spec->kept == KEPT_LEAVING;
	}
	if (w->applied)
		count_gone(w, spec, &r);
	return r;
}

/* With few services a share would round to none; one may go unless it is 0%. */
static uint32_t removals_allowed(const struct spec *spec, uint32_t running)
{
	double percent = spec->safety.max_service_removals;
	uint32_t n = (uint32_t)((double)running * percent / 100);

	return !n && percent > 0 ? 1 : n;
}

static bool declares_any(const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (!spec->services[i].undeclared)
			return true;
	return false;
}

static void hold_all(struct plan *p, const char *guard, const char *why)
{
	p->held = plan_hold(p, guard, NULL, why, 0)->why;
}

static void hold_service(struct plan *p, const struct service_spec *s,
			 const struct world *w)
{
	const char *object = arena_printf(p->arena, "service.%s", s->name);

	switch (s->kept) {
	case KEPT_NOT:
		break;
	case KEPT_PROTECTED:
		plan_hold(p, "protect", object,
			  arena_printf(p->arena,
				       "it is no longer declared, but it is "
				       "protected: `xlb-reconcile unprotect "
				       "%s` lets it go",
				       s->name),
			  0);
		break;
	case KEPT_PAUSED:
		plan_hold(p, "paused", object,
			  s->undeclared
				  ? "it is no longer declared, but it is "
				    "paused: it goes when it is resumed"
				  : "it is paused: what the file changes of "
				    "it waits until it is resumed",
			  0);
		break;
	case KEPT_LEAVING:
		plan_hold(p, "max_vm_deletes", object,
			  "it is no longer declared, and stays until the last "
			  "of its VMs may go",
			  w->budget.until_ms);
		break;
	}
}

/* One that has to stay, and is in the way of what the file declares. */
static void hold_conflict(struct plan *p, const struct conflict *c)
{
	bool protected = c->kept == KEPT_PROTECTED;

	p->held = plan_hold(p, protected ? "protect" : "paused",
			    arena_printf(p->arena, "service.%s", c->service),
			    arena_printf(p->arena,
					 "service %s stays as it was, because "
					 "it is %s, and that doesn't go with "
					 "this file: %s",
					 c->service,
					 protected ? "protected" : "paused",
					 c->why),
			    0)
			  ->why;
}

/* The kernel alone remembers that it is protected; what it was is lost. */
static void hold_lost(struct plan *p, const struct world *w)
{
	for (size_t i = 0; i < w->service_count; i++) {
		const struct world_service *s = &w->services[i];

		if (s->spec || !s->id || s->unprotected || !w->kernel.loaded ||
		    !(w->kernel.services[s->id].flags & XLB_SERVICE_PROTECTED))
			continue;
		p->held =
			plan_hold(
				p, "protect",
				arena_printf(p->arena, "service.%s", s->name),
				arena_printf(
					p->arena,
					"service %s is protected, and the "
					"history that knew its declaration is "
					"lost: put its block back, or run "
					"`xlb-reconcile unprotect %s`",
					s->name, s->name),
				0)
				->why;
	}
}

/*
 * Once a file is in force it has been let through: what is left of it to do
 * doesn't count again, with fewer services running.
 */
void plan_guard(struct plan *p, const struct spec *spec,
		const struct world *world)
{
	struct removals r;
	uint32_t allowed;

	for (size_t i = 0; i < spec->service_count; i++)
		hold_service(p, &spec->services[i], world);
	for (size_t i = 0; i < spec->conflict_count; i++)
		hold_conflict(p, &spec->conflicts[i]);
	if (!world->accepted)
		hold_lost(p, world);
	if (world->approved || world->accepted)
		return;
	r = count_removals(world, spec);
	allowed = removals_allowed(spec, r.running);
	if (!r.removed)
		return;
	if (!declares_any(spec)) {
		if (!spec->safety.allow_empty)
			hold_all(p, "allow_empty",
				 "the file declares no service while services "
				 "are running; set safety.allow_empty to "
				 "remove them all");
		return;
	}
	if (r.removed > allowed)
		hold_all(p, "max_service_removals",
			 arena_printf(p->arena,
				      "%u of the %u services that run are no "
				      "longer declared, and "
				      "safety.max_service_removals (%g%%) "
				      "allows %u at once",
				      r.removed, r.running,
				      spec->safety.max_service_removals,
				      allowed));
}
