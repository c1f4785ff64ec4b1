/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"
#include "plan/ticks.h"

struct change *planning_add(struct planning *p, enum change_kind kind,
			    enum change_action action, const char *object)
{
	struct change *c = arena_alloc(p->arena, sizeof(*c));

	c->kind = kind;
	c->action = action;
	c->object = object;
	*ARENA_PUSH(p->arena, p->plan->changes, p->plan->count) = c;
	return c;
}

void change_from_file(struct planning *p, struct change *c,
		      const struct source *src)
{
	const char *base = src->file ? strrchr(src->file, '/') : NULL;

	c->drift = p->world->settled;
	c->file = src->file;
	c->line = src->line;
	base = base && base[1] ? base + 1 : src->file;
	if (src->file && src->line)
		c->cause = arena_printf(p->arena, "%s:%d", base, src->line);
	else
		c->cause = base;
}

void change_from_event(struct change *c, const char *cause)
{
	c->cause = cause;
}

const struct world_interface *world_interface(const struct world *w,
					      int ifindex)
{
	for (size_t i = 0; i < w->interface_count; i++)
		if (w->interfaces[i].ifindex == ifindex)
			return &w->interfaces[i];
	return NULL;
}

void order_changes(struct plan *p)
{
	struct change **sorted =
		arena_alloc(p->arena, (p->count + 1) * sizeof(*sorted));
	size_t n = 0;

	for (int kind = 0; kind < CHANGE_KIND_COUNT; kind++)
		for (size_t i = 0; i < p->count; i++)
			if ((int)p->changes[i]->kind == kind)
				sorted[n++] = p->changes[i];
	p->changes = sorted;
}

/* What a change of backends or services brings with it explains the rest. */
static bool explains(const struct change *c)
{
	return !c->hidden || c->kind == CHANGE_BACKEND_SET ||
	       c->kind == CHANGE_BACKEND_CLEAR || c->kind == CHANGE_LOAD ||
	       c->kind == CHANGE_RELOAD;
}

/*
 * Hidden changes that no visible one explains: the tables aren't what was
 * written.  A service's line that is written with its slots is a new table.
 */
static void show_drift(struct planning *p)
{
	struct plan *plan = p->plan;
	bool slots = false, service = false;

	for (size_t i = 0; i < plan->count; i++) {
		if (explains(plan->changes[i]))
			return;
		slots |= plan->changes[i]->kind == CHANGE_SLOTS;
		service |= plan->changes[i]->kind == CHANGE_SERVICE_SET;
	}
	for (size_t i = 0; i < plan->count && !(slots && service); i++) {
		struct change *c = plan->changes[i];

		if (c->kind == CHANGE_DIRECT && !p->world->kernel.direct_edited)
			continue; /* this host's addresses changed */
		c->hidden = false;
		c->drift = true;
		c->detail = "as it was written";
		change_from_event(c, "somebody wrote it");
	}
}

struct plan *plan_make(const struct spec *spec, const struct world *world)
{
	struct plan *plan = mem_alloc(sizeof(*plan));
	struct planning p = { .plan = plan, .spec = spec, .world = world };

	plan->arena = p.arena = arena_new();
	plan->world = world;
	p.next_id = world->next_id && world->next_id < XLB_BACKENDS
			    ? world->next_id
			    : 1;
	p.marks = arena_alloc(p.arena, XLB_BACKENDS);
	p.compiled = arena_alloc(p.arena, (world->service_count + 1) *
						  sizeof(*p.compiled));
	p.tick = spec_tick(spec);
	p.deletes_left = world->budget.left;
	plan_node(&p);
	plan_tables(&p);
	plan_vips(&p);
	plan_pools(&p);
	plan_load(&p);
	if (world->settled)
		show_drift(&p);
	order_changes(plan);
	plan->next_id = p.next_id;
	return plan;
}

void plan_free(struct plan *p)
{
	if (!p)
		return;
	plan_free(p->baseline);
	diag_list_release(&p->diags);
	arena_free(p->arena);
	arena_free(p->world_arena);
	free(p);
}

void plan_keep_drift(struct plan *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->drift)
			p->changes[kept++] = p->changes[i];
	p->count = kept;
}

bool plan_is_empty(const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (!p->changes[i]->waits && !p->changes[i]->held)
			return false;
	return true;
}

bool change_is_foundation(const struct change *c)
{
	return c->kind == CHANGE_LOAD || c->kind == CHANGE_RELOAD ||
	       c->kind == CHANGE_BACKEND_SET || c->kind == CHANGE_SLOTS ||
	       c->kind == CHANGE_SERVICE_SET || c->kind == CHANGE_VIPS;
}

/*
 * Without its program the host itself would answer at a VIP put there, and
 * the one at another hook has to go on.
 */
bool change_needs(const struct change *c, const struct change *other)
{
	return (c->kind == CHANGE_ADDRESS_ADD ||
		c->kind == CHANGE_LINK_DETACH) &&
	       other->kind == CHANGE_LINK_ATTACH &&
	       c->ifindex == other->ifindex;
}

struct plan_summary plan_summarize(const struct plan *p)
{
	struct plan_summary s = { 0 };

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (c->hidden)
			continue;
		if (c->drift) {
			s.drift++;
			continue;
		}
		switch (c->action) {
		case ACTION_ADD:
			s.add++;
			break;
		case ACTION_CHANGE:
			s.change++;
			break;
		case ACTION_REPLACE:
			s.replace++;
			break;
		case ACTION_DESTROY:
			s.destroy++;
			break;
		}
	}
	return s;
}
