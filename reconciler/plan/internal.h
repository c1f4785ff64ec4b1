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
	uint32_t ids_taken; /* given out in this plan */
	uint32_t tick; /* seconds, of the spec */
	uint32_t slots_needed; /* the end of the last region that is taken */
	uint32_t last_service_id; /* given out in this plan */
	struct slot_space {
		uint32_t base, size;
	} * spaces; /* that are taken, sorted by base; made when needed */
	size_t space_count;
	bool spaces_found;
	struct ip sources[2]; /* outer ones; node.c */
	bool *wants_reply; /* by index in world->interfaces */
	int asked_ifindex; /* the last one that was asked about, */
	bool asked_uplink; /* and whether it is an uplink */
	const struct vip_spec **vips; /* all declared addresses, sorted */
	size_t vip_count;
	struct ip *used; /* addresses that no new VM may get, sorted */
	size_t used_count;
	uint32_t deletes_left; /* of the world's budget */
};

/* A new change in the plan, zeroed but for kind, action and object. */
struct change *planning_add(struct planning *p, enum change_kind kind,
			    enum change_action action, const char *object);
/* Its cause is a place in the file, or drift where the file is settled. */
void change_from_file(struct planning *p, struct change *c,
		      const struct source *src);
void change_from_event(struct change *c, const char *cause);

/* Stable, by kind: kinds stand in the order of carrying out. */
void order_changes(struct plan *p);

void plan_node(struct planning *p);
void plan_tables(struct planning *p);
void plan_vips(struct planning *p);
void plan_pools(struct planning *p);

/* One service on its way to tables. */
struct compile {
	struct planning *p;
	const struct world_service *s;
	uint32_t service_id;
	bool *eligible;
	uint32_t *ids; /* by member, after giving out new ones */
	bool need_slots; /* an id that slots may name goes away */
	const struct xlb_service *old; /* in the kernel, or NULL */
	struct xlb_service want;
	struct slot_rules rules;
	struct compiled *done;
	const struct source *reweighted; /* of a member whose weight changed */
};

/* ids.c: what is free, and who has what. */
const struct world_owner *owner_find(const struct world *w, uint32_t id);
uint32_t take_backend_id(struct planning *p); /* 0: none is free */
uint32_t take_service_id(struct planning *p); /* 0: none is free */
/*
 * First fit, aligned to the size; may lie behind the end of the map, which
 * has to grow then.  UINT32_MAX: more than there can be.
 */
uint32_t take_slots(struct planning *p, uint8_t log2);
/*
 * slots.c: where the table and the schedule stand (into c->want), false with
 * a diag; then their words, where they differ.  compiled: from the same
 * members as now, so that a difference is somebody else's doing.  A table may
 * find a smaller place then.
 */
bool place_slots(struct compile *c);
void plan_slots(struct compile *c, bool compiled);
void plan_schedule(struct compile *c, bool compiled);
/*
 * backends.c: ids and lines of a service's members; false with a diag.  One
 * for whom no id is free yet isn't eligible any more.
 */
bool plan_backends(struct compile *c);
/* Forget ids whose service isn't there: their plan was cut short. */
void plan_orphan_ids(struct planning *p);

/* members.c: which members may take new flows. */
bool member_gone(const struct world_member *m); /* its flows can't be kept */
/* Marks the members that shall own slots, by health or the panic policy. */
void members_eligible(const struct world_kernel *k,
		      const struct world_service *s, bool *eligible);
/* members.c: the next hop a family of a member needs for this service. */
bool service_has_family(const struct service_spec *s, int family);
bool service_picks(const struct service_spec *s); /* its slots aren't asked */
/* vips.c: what c asks for beyond the repair of c->base. */
void say_service_again(struct arena *a, struct change *c);
/* fingerprint.c: 64 hex digits of what was observed. */
void world_fingerprint(const struct world *w, char ret[65]);
/* id.c: the id of a plan with these arrays of changes. */
void plan_json_id(const char *sha256, const char *fingerprint,
		  struct json_t *drift, struct json_t *changes,
		  struct json_t *guards, char ret[17]);
/* text.c: a service's pool as it is; false: it has none. */
struct pool_view {
	uint32_t vms, ready;
};
bool pool_view(const struct world *w, const struct world_service *s,
	       struct pool_view *ret);
/* features.c: load, or load again with more. */
void plan_load(struct planning *p);

#endif
