/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMs: as many as wanted, those that failed replaced, those that left removed.
 *
 * The scaler says how many; here it is decided which.  A VM that takes
 * connections is drained before it goes; one that never took any goes at once.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

struct pool_plan {
	struct planning *p;
	const struct world_service *s;
	const struct world_vm **vms; /* of this service, by index */
	size_t count;
	uint32_t last_index; /* given out in this plan */
	size_t cursor; /* in vms, of the search for a free index */
};

static bool leaves(const struct world_vm *vm)
{
	return vm->phase == PHASE_DRAINING || vm->phase == PHASE_STOPPING;
}

static struct change *vm_change(struct pool_plan *pp, enum change_kind kind,
				enum change_action action,
				const struct world_vm *vm)
{
	struct change *c =
		planning_add(pp->p, kind, action,
			     arena_printf(pp->p->arena, "service.%s/vm/%s",
					  vm->service, vm->name));

	c->service = vm->service;
	c->name = vm->name;
	c->value = vm->hypervisor;
	c->index = vm->index;
	c->spec = pp->s ? pp->s->spec : NULL;
	c->addresses[0] = vm->addresses[0];
	c->addresses[1] = vm->addresses[1];
	return c;
}

static void pool_cause(struct pool_plan *pp, struct change *c)
{
	if (pp->s->pool.cause)
		change_from_event(c, pp->s->pool.cause);
	else
		change_from_file(pp->p, c, &pp->s->spec->pool.src);
}

static const char *removal_text(const struct world_vm *vm, const char *ours)
{
	return vm->adopted ? "let go: it was adopted, and goes on without xlb"
			   : ours;
}

/* Replace what failed, start what is off, remove what has drained. */
static void tend(struct pool_plan *pp, const struct world_vm *vm)
{
	struct change *c;

	if (vm->busy)
		return;
	if (vm->phase == PHASE_FAILED && !vm->backoff) {
		c = vm_change(pp, CHANGE_VM_REPLACE, ACTION_REPLACE, vm);
		c->detail = vm->adopted ? "let go as it is, then a new one"
					: "a new one under the same name";
		change_from_event(c, vm->why ? vm->why : "failed");
	} else if (vm->phase == PHASE_OFF) {
		c = vm_change(pp, CHANGE_VM_START, ACTION_CHANGE, vm);
		c->detail = "start";
		change_from_event(c, "is off");
	} else if (vm->phase == PHASE_DRAINING && vm->drained) {
		c = vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY, vm);
		c->detail = removal_text(vm, "shutdown, undefine, delete its "
					     "disk");
		change_from_event(c, "drained");
	}
}

static bool is_fixed_name(const struct service_spec *s, const char *name)
{
	for (size_t i = 0; i < s->backend_count; i++)
		if (!strcmp(s->backends[i].name, name))
			return true;
	return false;
}

static bool is_taken(const struct world *w, const char *name)
{
	for (size_t i = 0; i < w->stray_count; i++)
		if (!strcmp(w->strays[i].vm, name))
			return true;
	return false;
}

/*
 * The lowest index above the last one that no VM, no fixed backend and no
 * domain of somebody else's has.
 */
static uint32_t take_index(struct pool_plan *pp, const char **ret_name)
{
	const struct service_spec *spec = pp->s->spec;
	uint32_t index;

	do {
		index = ++pp->last_index;
		while (pp->cursor < pp->count &&
		       pp->vms[pp->cursor]->index < index)
			pp->cursor++;
		*ret_name =
			arena_printf(pp->p->arena, "%s-%u", spec->name, index);
	} while ((pp->cursor < pp->count &&
		  pp->vms[pp->cursor]->index == index) ||
		 is_fixed_name(spec, *ret_name) ||
		 is_taken(pp->p->world, *ret_name));
	return index;
}

static int by_address(const void *a, const void *b)
{
	return ip_compare(a, b);
}

static void use_address(struct planning *p, const struct ip *a)
{
	if (a->family)
		*ARENA_PUSH(p->arena, p->used, p->used_count) = *a;
}

/*
 * Of a VM whose metadata was taken away only one address is known; those of
 * the other ranges were given out beside it.
 */
static void use_stray(struct planning *p, const struct world_stray *s)
{
	const struct ip *a = &s->addresses[0];

	for (int f = 0; f < 2; f++)
		use_address(p, &s->addresses[f]);
	for (size_t t = 0; !s->addresses[1].family && a->family &&
			   t < p->spec->template_count;
	     t++) {
		const struct network_spec *n = &p->spec->templates[t].network;
		uint64_t at = UINT64_MAX;

		for (size_t i = 0; i < n->range_count; i++)
			if (n->ranges[i].first.family == a->family)
				at = ip_distance(&n->ranges[i].first, a);
		for (size_t i = 0; at < UINT32_MAX && i < n->range_count; i++) {
			struct ip beside = ip_add(&n->ranges[i].first, at);

			use_address(p, &beside);
		}
	}
}

/* Addresses that no new VM may get: of VMs, this host and fixed backends. */
static void find_used(struct planning *p)
{
	if (p->used)
		return;
	for (size_t i = 0; i < p->world->vm_count; i++)
		for (int f = 0; f < 2; f++)
			use_address(p, &p->world->vms[i].addresses[f]);
	for (size_t i = 0; i < p->world->stray_count; i++)
		use_stray(p, &p->world->strays[i]);
	for (size_t i = 0; i < p->world->address_count; i++)
		use_address(p, &p->world->addresses[i].address);
	for (size_t i = 0; i < p->spec->service_count; i++) {
		const struct service_spec *s = &p->spec->services[i];

		for (size_t k = 0; k < s->backend_count; k++)
			for (int f = 0; f < 2; f++)
				use_address(p, &s->backends[k].addresses[f]);
	}
	if (p->used)
		qsort(p->used, p->used_count, sizeof(*p->used), by_address);
}

/* The first place in p->used that isn't below `a`. */
static size_t find_place(const struct planning *p, const struct ip *a)
{
	size_t lo = 0, hi = p->used_count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (ip_compare(&p->used[mid], a) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool take_address(struct planning *p, const struct address_range *range,
			 struct ip *ret)
{
	struct ip a = range->first;
	size_t place;

	find_used(p);
	place = find_place(p, &a);
	while (place < p->used_count && !ip_compare(&p->used[place], &a)) {
		if (ip_equal(&a, &range->last))
			return false;
		while (place < p->used_count &&
		       !ip_compare(&p->used[place], &a))
			place++;
		a = ip_add(&a, 1);
	}
	ARENA_PUSH(p->arena, p->used, p->used_count);
	memmove(p->used + place + 1, p->used + place,
		(p->used_count - 1 - place) * sizeof(*p->used));
	p->used[place] = a;
	*ret = a;
	return true;
}

/* The first free address of every range; false when one has none left. */
static bool take_addresses(struct planning *p, const struct network_spec *net,
			   struct ip ret[2])
{
	for (size_t r = 0; r < net->range_count; r++) {
		const struct address_range *range = &net->ranges[r];

		if (!take_address(p, range,
				  &ret[range->first.family == AF_INET6]))
			return false;
	}
	return true;
}

static bool create(struct pool_plan *pp)
{
	const struct service_spec *spec = pp->s->spec;
	struct planning *p = pp->p;
	struct ip addresses[2] = { { 0 } };
	char text[IP_STRLEN];
	const char *name;
	struct change *c;

	if (!take_addresses(p, &spec->pool.template->network, addresses)) {
		diag_add(&p->plan->diags, SEVERITY_WARNING,
			 &spec->pool.template->network.src,
			 "widen the template's addresses",
			 "no address is free for another VM of service %s",
			 spec->name);
		return false;
	}
	c = planning_add(p, CHANGE_VM_CREATE, ACTION_ADD, NULL);
	c->index = take_index(pp, &name);
	c->name = name;
	c->object =
		arena_printf(p->arena, "service.%s/vm/%s", spec->name, name);
	c->service = pp->s->name;
	c->value = spec->pool.hypervisor->name;
	c->spec = spec;
	memcpy(c->addresses, addresses, sizeof(addresses));
	c->detail = arena_printf(
		p->arena, "%s on %s",
		ip_format(&addresses[addresses[0].family ? 0 : 1], text),
		spec->pool.hypervisor->name);
	pool_cause(pp, c);
	return true;
}

static int by_member_name(const void *name, const void *item)
{
	return strcmp(name, ((const struct world_member *)item)->name);
}

/* Passes its probes.  Members of one name stand together. */
static bool serves(const struct world_service *s, const struct world_vm *vm)
{
	const struct world_member *m, *end;

	if (!s || !s->member_count)
		return false;
	end = s->members + s->member_count;
	m = bsearch(vm->name, s->members, s->member_count, sizeof(*m),
		    by_member_name);
	while (m && m > s->members && !strcmp(m[-1].name, vm->name))
		m--;
	for (; m && m < end && !strcmp(m->name, vm->name); m++)
		if (m->vm && m->health == HEALTH_UP && !m->drained)
			return true;
	return false;
}

/* A VM that drains but still answers comes back faster than a new one. */
static uint32_t restore(struct pool_plan *pp, uint32_t missing)
{
	uint32_t n = 0;

	for (size_t i = 0; i < pp->count && n < missing; i++) {
		const struct world_vm *vm = pp->vms[i];
		struct change *c;

		if (vm->phase != PHASE_DRAINING || vm->drained || vm->busy ||
		    !serves(pp->s, vm))
			continue;
		c = vm_change(pp, CHANGE_RESTORE, ACTION_CHANGE, vm);
		c->detail = "stays: no longer draining";
		pool_cause(pp, c);
		n++;
	}
	return n;
}

struct candidate {
	const struct world_vm *vm;
	int rank;
};

/*
 * One that was let go before goes on going, whatever a restart has forgotten.
 * Then what is lost least: not serving before serving.
 */
static int removal_rank(const struct pool_plan *pp, const struct world_vm *vm)
{
	if (vm->may_go)
		return -1;
	switch (vm->phase) {
	case PHASE_FAILED:
		return 0;
	case PHASE_OFF:
		return 1;
	case PHASE_CREATING:
	case PHASE_BOOTING:
		return 2;
	case PHASE_READY:
		return serves(pp->s, vm) ? 4 : 3;
	case PHASE_DRAINING:
	case PHASE_STOPPING:
		break;
	}
	return 5;
}

/* Then the newest; what was adopted last, unless it failed. */
static int removal_order(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	bool stays[2] = { x->rank && x->vm->adopted,
			  y->rank && y->vm->adopted };

	if (stays[0] != stays[1])
		return stays[0] ? 1 : -1;
	if (x->rank != y->rank)
		return x->rank - y->rank;
	return x->vm->index > y->vm->index ? -1 : x->vm->index < y->vm->index;
}

static struct change *retire(struct pool_plan *pp, const struct world_vm *vm)
{
	struct change *c;

	if (vm->phase == PHASE_READY) {
		c = vm_change(pp, CHANGE_DRAIN, ACTION_CHANGE, vm);
		c->detail = "drain: no new flows, then remove";
	} else {
		c = vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY, vm);
		c->detail = removal_text(vm, "undefine, delete its disk");
	}
	if (pp->s && pp->s->spec && pp->s->spec->kept == KEPT_LEAVING)
		change_from_event(c, "its service is no longer declared");
	else if (pp->s && pp->s->spec && pp->s->spec->pool.template)
		pool_cause(pp, c);
	else
		change_from_event(c, "its pool is no longer declared");
	return c;
}

static void hold(struct pool_plan *pp, struct change *c, const char *guard,
		 const char *why, int64_t until_ms)
{
	c->held = plan_hold(pp->p->plan, guard, c->object, why, until_ms);
}

/*
 * A deletion that the file or drift asks for.  False: it is held back, and the
 * VM stays as it is.
 */
static bool delete_counted(struct pool_plan *pp, const struct world_vm *vm,
			   struct change *c)
{
	const struct world_budget *b = &pp->p->world->budget;

	if (vm->may_go)
		return true;
	if (!pp->p->world->approved && !pp->p->deletes_left) {
		hold(pp, c, "max_vm_deletes", b->why, b->until_ms);
		return false;
	}
	if (pp->p->deletes_left)
		pp->p->deletes_left--;
	c->counted = true;
	return true;
}

static uint32_t count_serving(const struct pool_plan *pp)
{
	uint32_t n = 0;

	for (size_t i = 0; i < pp->count; i++)
		n += pp->vms[i]->phase == PHASE_READY &&
		     serves(pp->s, pp->vms[i]);
	return n;
}

/*
 * How VMs leave a pool.  `free` of them are the scaler's own decision, which
 * has its own bounds; the others count.
 */
struct exodus {
	uint32_t leave, free;
	uint32_t serving, min;
};

/* Nobody takes away those that serve while there are no more than min. */
static bool is_needed(const struct pool_plan *pp, const struct exodus *e,
		      const struct world_vm *vm)
{
	return vm->phase == PHASE_READY && serves(pp->s, vm) && e->min &&
	       e->serving <= e->min;
}

static bool leave(struct pool_plan *pp, struct exodus *e,
		  const struct world_vm *vm)
{
	struct change *c;

	if (vm->busy)
		return true;
	c = retire(pp, vm);
	if (is_needed(pp, e, vm)) {
		hold(pp, c, "min", "no more VMs are ready than the pool's min",
		     0);
		return false;
	}
	if (!vm->may_go && e->free)
		e->free--;
	else if (!delete_counted(pp, vm, c))
		return false;
	e->serving -= vm->phase == PHASE_READY && serves(pp->s, vm);
	return true;
}

/* The first of removal order go; the rest, and those held back, are tended. */
static void shrink(struct pool_plan *pp, struct exodus e)
{
	struct candidate *order =
		arena_alloc(pp->p->arena, (pp->count + 1) * sizeof(*order));
	size_t count = 0;

	for (size_t i = 0; i < pp->count; i++) {
		if (leaves(pp->vms[i]))
			tend(pp, pp->vms[i]);
		else
			order[count++] = (struct candidate){
				pp->vms[i], removal_rank(pp, pp->vms[i])
			};
	}
	if (count)
		qsort(order, count, sizeof(*order), removal_order);
	for (size_t i = 0; i < count; i++)
		if (i >= e.leave || !leave(pp, &e, order[i].vm))
			tend(pp, order[i].vm);
}

static bool may_create(const struct pool_plan *pp)
{
	return pp->s->pool.backoff_until <= pp->p->world->now;
}

struct census {
	uint32_t staying, failed, ready;
	uint32_t coming; /* adopted, and not ready yet */
};

static struct census count_vms(const struct pool_plan *pp)
{
	struct census c = { 0 };

	for (size_t i = 0; i < pp->count; i++) {
		c.staying += !leaves(pp->vms[i]);
		c.failed += pp->vms[i]->phase == PHASE_FAILED;
		c.ready += pp->vms[i]->phase == PHASE_READY;
		c.coming += pp->vms[i]->adopted && !leaves(pp->vms[i]) &&
			    pp->vms[i]->phase != PHASE_READY &&
			    pp->vms[i]->phase != PHASE_FAILED;
	}
	return c;
}

/*
 * A draining VM is worth more than one that has failed or still boots: it
 * comes back in their place, and the next pass, which counts it, lets them go.
 */
static uint32_t worth_restoring(const struct pool_plan *pp,
				const struct census *c)
{
	uint32_t wanted = pp->s->pool.wanted;
	uint32_t able = c->staying - c->failed;

	if (able < wanted)
		return wanted - able;
	return wanted && !c->ready;
}

static struct exodus find_exodus(const struct pool_plan *pp, uint32_t staying)
{
	const struct world_pool *pool = &pp->s->pool;
	uint32_t against =
		staying > pool->allowed ? staying - pool->allowed : 0;
	struct exodus e = { .leave = staying - pool->wanted,
			    .serving = count_serving(pp),
			    .min = pp->s->spec->pool.min };

	e.free = against < e.leave ? e.leave - against : 0;
	return e;
}

static void size_pool(struct pool_plan *pp)
{
	struct census c = count_vms(pp);
	uint32_t wanted = pp->s->pool.wanted, restored, coming;

	if (!pp->s->pool.known)
		return; /* neither what there is nor what is wanted */
	restored = restore(pp, worth_restoring(pp, &c));
	if (!restored && c.staying >= wanted) {
		/* One of ours goes for an adopted one when that is ready. */
		coming = c.coming < c.staying - wanted ? c.coming
						       : c.staying - wanted;
		shrink(pp, find_exodus(pp, c.staying - coming));
		return;
	}
	for (size_t i = 0; i < pp->count; i++)
		if (!restored || (pp->vms[i]->phase != PHASE_FAILED &&
				  (pp->vms[i]->phase != PHASE_DRAINING ||
				   pp->vms[i]->drained)))
			tend(pp, pp->vms[i]);
	for (uint32_t n = c.staying + restored; n < wanted && may_create(pp);
	     n++)
		if (!create(pp))
			return;
}

static struct change *remove_at_once(struct pool_plan *pp,
				     const struct world_vm *vm)
{
	struct change *c = vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY, vm);

	c->detail = removal_text(vm, "undefine, delete its disk");
	change_from_event(c, "its service is no longer declared");
	return c;
}

/* No pool declares these: those of a service that stays are drained first. */
static void orphan(struct pool_plan *pp)
{
	bool stays = pp->s && pp->s->spec;

	for (size_t i = 0; i < pp->count; i++) {
		const struct world_vm *vm = pp->vms[i];
		struct change *c;

		if (leaves(vm)) {
			tend(pp, vm);
			continue;
		}
		if (vm->busy)
			continue;
		c = stays ? retire(pp, vm) : remove_at_once(pp, vm);
		if (stays && pp->s->spec->protect)
			hold(pp, c, "protect",
			     "its service is protected: unprotect it, or "
			     "declare its pool again",
			     0);
		else
			delete_counted(pp, vm, c);
	}
}

static int by_service_index(const void *a, const void *b)
{
	const struct world_vm *x = *(const struct world_vm *const *)a;
	const struct world_vm *y = *(const struct world_vm *const *)b;
	int c = strcmp(x->service, y->service);

	return c ? c : x->index < y->index ? -1 : x->index > y->index;
}

static const struct world_vm **sort_vms(const struct planning *p)
{
	size_t n = p->world->vm_count;
	const struct world_vm **vms = arena_alloc(
		p->arena, (n + 1) * sizeof(const struct world_vm *));

	for (size_t i = 0; i < n; i++)
		vms[i] = &p->world->vms[i];
	if (n)
		qsort(vms, n, sizeof(const struct world_vm *),
		      by_service_index);
	return vms;
}

/* No block declares it any more: its VMs go as the budget lets them. */
static void disband(struct pool_plan *pp)
{
	struct exodus e = { .leave = count_vms(pp).staying,
			    .serving = count_serving(pp) };

	if (pp->s->pool.known)
		shrink(pp, e);
}

/*
 * A paused service keeps its VMs, also of a pool that went.  One that was found
 * off after a reboot is started all the same: it is one of them.
 */
static void freeze(struct pool_plan *pp)
{
	struct plan *plan = pp->p->plan;
	size_t from = plan->count, guards = plan->guard_count;
	uint32_t left = pp->p->deletes_left;

	if (!pp->s->spec->pool.template)
		orphan(pp);
	else if (pp->s->spec->kept == KEPT_LEAVING)
		disband(pp);
	else
		size_pool(pp);
	plan->guard_count = guards;
	pp->p->deletes_left = left;
	for (size_t i = from; i < plan->count; i++) {
		struct change *c = plan->changes[i];

		c->counted = false;
		if (c->kind != CHANGE_VM_START)
			hold(pp, c, "paused", "its service is paused", 0);
	}
}

/*
 * Every service with a spec, a place in the kernel or VMs is in the world, in
 * order of name, so both lists are walked side by side.
 */
void plan_pools(struct planning *p)
{
	const struct world_vm **vms = sort_vms(p);
	size_t at = 0;

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];
		struct pool_plan pp = { .p = p, .s = s, .vms = vms + at };

		while (at < p->world->vm_count &&
		       !strcmp(vms[at]->service, s->name))
			at++, pp.count++;
		if (s->spec && s->paused)
			freeze(&pp);
		else if (s->spec && s->spec->kept == KEPT_LEAVING &&
			 s->spec->pool.template)
			disband(&pp);
		else if (s->spec && s->spec->pool.template)
			size_pool(&pp);
		else
			orphan(&pp);
	}
}
