/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/plan.h"

void plan_guard(struct plan *p, const struct spec *spec,
		const struct world *world)
{
	bool running = false;

	for (size_t i = 0; i < world->service_count; i++)
		running |= world->services[i].id != 0;
	if (running && !spec->service_count && !spec->safety.allow_empty)
		p->held = "the file declares no service while services are "
			  "running; set safety.allow_empty to remove them all";
}
