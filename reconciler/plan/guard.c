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

static struct removals count_removals(const struct world *w)
{
	struct removals r = { 0 };

	for (size_t i = 0; i < w->service_count; i++) {
		if (!is_running(w, &w->services[i]))
			continue;
		r.running++;
		r.removed += !w->services[i].spec;
	}
	return r;
}

/* With few services a share would round to none; one may go unless it is 0%. */
static uint32_t removals_allowed(const struct spec *spec, uint32_t running)
{
	double percent = spec->safety.max_service_removals;
	uint32_t n = (uint32_t)((double)running * percent / 100);

	return !n && percent > 0 ? 1 : n;
}

static void hold_all(struct plan *p, const char *guard, const char *why)
{
	p->held = plan_hold(p, guard, NULL, why, 0)->why;
}

/*
 * Once a file is in force it has been let through: what is left of it to do
 * doesn't count again, with fewer services running.
 */
void plan_guard(struct plan *p, const struct spec *spec,
		const struct world *world)
{
	struct removals r = count_removals(world);
	uint32_t allowed = removals_allowed(spec, r.running);

	if (world->approved || world->accepted || !r.removed)
		return;
	if (!spec->service_count) {
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
