/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/guard_watch.h"

#include <stdio.h>
#include <string.h>

static int broken(const struct change *c, const char *guard)
{
	fprintf(stderr, "# %s (%s) is against %s\n", c->object,
		action_name(c->action), guard);
	return -1;
}

static struct watch_service *service(struct guard_watch *g, const char *name)
{
	for (size_t i = 0; name && i < g->service_count; i++)
		if (!strcmp(g->services[i].name, name))
			return &g->services[i];
	return NULL;
}

/* ---- services at once ---- */

static bool runs(const struct world *w, const struct world_service *s)
{
	bool any = s->id != 0;

	for (size_t i = 0; i < w->vm_count; i++)
		any |= !strcmp(w->vms[i].service, s->name);
	return any;
}

static void add_name(struct guard_watch *g, const char *name)
{
	if (g->may_go_count < WATCH_SERVICES)
		snprintf(g->may_go[g->may_go_count++], sizeof(g->may_go[0]),
			 "%s", name);
}

void watch_release(struct guard_watch *g, const char *name)
{
	add_name(g, name);
}

static bool declares_any(const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (!spec->services[i].undeclared)
			return true;
	return false;
}

int watch_file(struct guard_watch *g, const struct spec *spec,
	       const struct world *w)
{
	size_t running = 0, allowed;

	g->may_go_count = 0;
	for (size_t i = 0; i < w->service_count; i++) {
		const char *name = w->services[i].name;

		if (!runs(w, &w->services[i]))
			continue;
		running++;
		if (!spec_find_service(spec, name))
			add_name(g, name);
	}
	g->checked[WATCH_REMOVALS] += g->may_go_count != 0;
	if (g->approved || !g->may_go_count)
		return 0;
	allowed = (size_t)((double)running * spec->safety.max_service_removals /
			   100);
	allowed = allowed ? allowed : 1;
	if (!declares_any(spec))
		allowed = spec->safety.allow_empty ? running : 0;
	if (g->may_go_count <= allowed)
		return 0;
	fprintf(stderr, "# %zu of %zu services go at once, of %zu allowed\n",
		g->may_go_count, running, allowed);
	return -1;
}

static int check_removal(struct guard_watch *g, const struct change *c)
{
	for (size_t i = 0; i < g->may_go_count; i++)
		if (!strcmp(g->may_go[i], c->service))
			return 0;
	return broken(c, "max_service_removals");
}

/* ---- VMs ---- */

static struct watch_deletion *going(struct guard_watch *g, const char *vm)
{
	for (size_t i = 0; i < g->deletion_count; i++)
		if (g->deletions[i].going && !strcmp(g->deletions[i].vm, vm))
			return &g->deletions[i];
	return NULL;
}

static void forget_gone(struct guard_watch *g, const struct world *w)
{
	for (size_t i = 0; i < g->deletion_count; i++) {
		bool there = false;

		for (size_t k = 0; k < w->vm_count; k++)
			there |= !strcmp(w->vms[k].name, g->deletions[i].vm);
		g->deletions[i].going &= there;
	}
}

/* No stretch of time that ends now holds more of them than count. */
static int check_window(struct guard_watch *g, const struct vm_deletes_spec *d,
			const struct change *c, uint64_t now)
{
	size_t n = 0;

	for (size_t i = 0; i < g->deletion_count; i++)
		n += g->deletions[i].when + d->per > now;
	return n > d->count ? broken(c, "max_vm_deletes") : 0;
}

static int note_deletion(struct guard_watch *g, const struct spec *spec,
			 const struct change *c, uint64_t now)
{
	struct watch_deletion *d = going(g, c->name);

	if (d) {
		d->back = false;
		return 0;
	}
	if (g->deletion_count == WATCH_DELETIONS)
		return broken(c, "the room of this account");
	d = &g->deletions[g->deletion_count++];
	*d = (struct watch_deletion){ .when = g->approved ? 0 : now,
				      .going = true };
	snprintf(d->vm, sizeof(d->vm), "%s", c->name);
	g->checked[WATCH_DELETES]++;
	return g->approved
		       ? 0
		       : check_window(g, &spec->safety.max_vm_deletes, c, now);
}

static bool passes_probes(const struct world_service *s, const char *vm)
{
	for (size_t i = 0; i < s->member_count; i++)
		if (s->members[i].vm && !strcmp(s->members[i].name, vm) &&
		    s->members[i].health == HEALTH_UP && !s->members[i].drained)
			return true;
	return false;
}

static bool is_ready(const struct world *w, const char *service, const char *vm)
{
	for (size_t i = 0; i < w->service_count; i++)
		if (!strcmp(w->services[i].name, service))
			return passes_probes(&w->services[i], vm);
	return false;
}

static void add_service(struct guard_watch *g, const struct world *w,
			const struct world_service *s)
{
	struct watch_service *out = &g->services[g->service_count++];
	const struct service_spec *spec = s->spec;
	uint32_t vms = 0;

	*out = (struct watch_service){ 0 };
	snprintf(out->name, sizeof(out->name), "%s", s->name);
	out->id = s->id;
	if (!spec)
		return;
	out->paused = s->paused;
	out->protect = spec->protect;
	out->stays = spec->protect && !spec->pool.template;
	for (size_t i = 0; i < w->vm_count; i++)
		vms += !strcmp(w->vms[i].service, s->name);
	for (size_t i = 0; i < w->vm_count; i++)
		out->ready += w->vms[i].phase == PHASE_READY &&
			      !strcmp(w->vms[i].service, s->name) &&
			      is_ready(w, s->name, w->vms[i].name);
	out->least = spec->pool.template ? spec->pool.min : 0;
	if (out->least > out->ready)
		out->least = out->ready;
	/* What would be done but for the guard: it is put to the test. */
	g->checked[WATCH_PAUSE] += out->paused && vms;
	g->checked[WATCH_PROTECT] += out->protect && spec->undeclared;
	g->checked[WATCH_PROTECT_VMS] += out->stays && vms;
	g->checked[WATCH_MIN] += out->least && vms > spec->pool.min;
}

void watch_begin(struct guard_watch *g, const struct world *w)
{
	forget_gone(g, w);
	g->service_count = 0;
	for (size_t i = 0; i < w->service_count && i < WATCH_SERVICES; i++)
		add_service(g, w, &w->services[i]);
	g->world = w;
}

/* A killed process hasn't seen that it may stay: it goes on going. */
void watch_end(struct guard_watch *g)
{
	for (size_t i = 0; i < g->deletion_count; i++) {
		g->deletions[i].going &= !g->deletions[i].back;
		g->deletions[i].back = false;
	}
}

/* When the plan was made. */
static enum vm_phase phase_of(const struct guard_watch *g,
			      const struct change *c)
{
	for (size_t i = 0; i < g->world->vm_count; i++)
		if (!strcmp(g->world->vms[i].name, c->name))
			return g->world->vms[i].phase;
	return PHASE_CREATING;
}

static bool was_ready(const struct guard_watch *g, const struct change *c)
{
	return phase_of(g, c) == PHASE_READY &&
	       is_ready(g->world, c->service, c->name);
}

static int check_service(struct guard_watch *g, struct watch_service *s,
			 const struct change *c)
{
	bool out = c->kind == CHANGE_DRAIN || c->kind == CHANGE_VM_REMOVE;

	if (s->paused)
		return c->kind == CHANGE_VM_START ? 0 : broken(c, "paused");
	/* One that was let go before its pool went has left already. */
	if (s->stays && out && phase_of(g, c) != PHASE_DRAINING)
		return broken(c, "protect");
	if (c->kind == CHANGE_RESTORE || c->kind == CHANGE_VM_CREATE ||
	    c->kind == CHANGE_VM_START || !was_ready(g, c))
		return 0;
	s->ready--;
	return s->ready < s->least ? broken(c, "min") : 0;
}

static int check_vm(struct guard_watch *g, const struct spec *spec,
		    const struct change *c, uint64_t now)
{
	struct watch_service *s = service(g, c->service);
	struct watch_deletion *d = going(g, c->name);

	if (s && check_service(g, s, c))
		return -1;
	if (c->kind == CHANGE_RESTORE && d)
		d->back = true;
	if (c->kind == CHANGE_DRAIN || c->kind == CHANGE_VM_REMOVE)
		return note_deletion(g, spec, c, now);
	return 0;
}

/* One that is protected keeps its VIPs, if it has some. */
static int check_vips(struct guard_watch *g, const struct change *c)
{
	for (size_t i = 0; i < g->service_count; i++) {
		const struct watch_service *s = &g->services[i];
		bool any = !s->protect || !s->id;

		for (size_t k = 0; !any && k < XLB_VIP_LINES; k++)
			any = c->vips->lines[k].proto &&
			      c->vips->lines[k].service == s->id;
		if (!any)
			return broken(c, "protect");
	}
	return 0;
}

int watch_change(struct guard_watch *g, const struct spec *spec,
		 const struct change *c, uint64_t now)
{
	const struct watch_service *s;

	if (!g->on || c->held)
		return 0;
	if (c->kind == CHANGE_VIPS)
		return check_vips(g, c);
	if (c->kind >= CHANGE_DRAIN && c->kind <= CHANGE_VM_REMOVE)
		return check_vm(g, spec, c, now);
	if (c->kind != CHANGE_SERVICE_CLEAR)
		return 0;
	s = service(g, c->service);
	if (s && s->protect)
		return broken(c, "protect");
	return check_removal(g, c);
}
