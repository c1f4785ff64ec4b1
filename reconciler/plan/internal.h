/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The planner's parts, each adding its changes to one plan. */
#ifndef PLAN_INTERNAL_H
#define PLAN_INTERNAL_H

#include "plan/plan.h"

/* What tables.c decided of a service, for the VIP table and the way back. */
struct compiled {
	uint32_t id;
	const struct xlb_service *kernel; /* NULL: it could not be compiled */
	const uint32_t *ids; /* by member: its backend id after the plan, or 0 */
};

struct planning {
	struct compiled *compiled; /* by index in world->services */
	struct plan *plan;
	struct arena *arena;
	const struct spec *spec;
	const struct world *world;
	uint32_t next_id;
	uint8_t *marks; /* one byte a backend id, for compiling slots */
	uint32_t ids_tried;
	uint32_t last_service_id; /* given out in this plan */
	struct slot_space {
		uint32_t base, size;
	} * spaces; /* of services made in this plan */
	size_t space_count;
};

/* A new change in the plan, zeroed but for kind, action and object. */
struct change *planning_add(struct planning *p, enum change_kind kind,
			    enum change_action action, const char *object);
/* Its cause is a place in the file, or drift where the file is settled. */
void change_from_file(struct planning *p, struct change *c,
		      const struct source *src);
void change_from_event(struct change *c, const char *cause);

void plan_node(struct planning *p);
void plan_tables(struct planning *p);
void plan_vips(struct planning *p);
void plan_pools(struct planning *p);

/* members.c: which members may take new flows. */
bool member_gone(const struct world_member *m); /* its flows can't be kept */
/* Marks the members that shall own slots, by health or the panic policy. */
void members_eligible(const struct world_service *s, bool *eligible);
/* service.c: the next hop a family of a member needs for this service. */
bool service_has_family(const struct service_spec *s, int family);

#endif
