/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/plan.h"

struct held *plan_hold(struct plan *p, const char *guard, const char *object,
		       const char *why, int64_t until_ms)
{
	struct held *h = arena_alloc(p->arena, sizeof(*h));

	*h = (struct held){ guard, arena_dup(p->arena, object),
			    arena_dup(p->arena, why), until_ms };
	*ARENA_PUSH(p->arena, p->guards, p->guard_count) = h;
	return h;
}

void plan_guard(struct plan *p, const struct spec *spec,
		const struct world *world)
{
	bool running = false;

	for (size_t i = 0; i < world->service_count; i++)
		running |= world->services[i].id != 0;
	if (world->approved || !running || spec->service_count ||
	    spec->safety.allow_empty)
		return;
	p->held = plan_hold(p, "allow_empty", NULL,
			    "the file declares no service while services are "
			    "running; set safety.allow_empty to remove them "
			    "all",
			    0)
			  ->why;
}
