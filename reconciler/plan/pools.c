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

/* Replace what failed, start what is off, remove what has drained. */
static void tend(struct pool_plan *pp, const struct world_vm *vm)
{
	struct change *c;

	if (vm->busy)
		return;
	if (vm->phase == PHASE_FAILED && !vm->backoff) {
		c = vm_change(pp, CHANGE_VM_REPLACE, ACTION_REPLACE, vm);
		c->detail = "a new one under the same name";
		change_from_event(c, vm->why ? vm->why : "failed");
	} else if (vm->phase == PHASE_OFF) {
		c = vm_change(pp, CHANGE_VM_START, ACTION_CHANGE, vm);
		c->detail = "start";
		change_from_event(c, "is off");
	} else if (vm->phase == PHASE_DRAINING && vm->drained) {
		c = vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY, vm);
		c->detail = "shutdown, undefine, delete its disk";
		change_from_event(c, "drained");
	}
}

static bool index_used(const struct pool_plan *pp, uint32_t index)
{
	for (size_t i = 0; i < pp->count; i++)
		if (pp->vms[i]->index == index)
			return true;
	for (size_t i = 0; i < pp->p->plan->count; i++) {
		const struct change *c = pp->p->plan->changes[i];

		if (c->kind == CHANGE_VM_CREATE && c->service == pp->s->name &&
		    c->index == index)
			return true;
	}
	return false;
}

static bool address_used(const struct planning *p, const struct ip *a)
{
	int f = a->family == AF_INET6;

	for (size_t i = 0; i < p->world->vm_count; i++)
		if (ip_equal(&p->world->vms[i].addresses[f], a))
			return true;
	for (size_t i = 0; i < p->plan->count; i++)
		if (p->plan->changes[i]->kind == CHANGE_VM_CREATE &&
		    ip_equal(&p->plan->changes[i]->addresses[f], a))
			return true;
	for (size_t i = 0; i < p->world->address_count; i++)
		if (ip_equal(&p->world->addresses[i].address, a))
			return true;
	return false;
}

/* The first free address of every range; false when one has none left. */
static bool take_addresses(struct planning *p, const struct network_spec *net,
			   struct ip ret[2])
{
	for (size_t r = 0; r < net->range_count; r++) {
		const struct address_range *range = &net->ranges[r];
		uint64_t size = ip_distance(&range->first, &range->last) + 1;
		uint64_t i = 0;
		struct ip a = range->first;

		while (i < size && address_used(p, &a))
			a = ip_add(&range->first, ++i);
		if (i == size)
			return false;
		ret[a.family == AF_INET6] = a;
	}
	return true;
}

static void create(struct pool_plan *pp)
{
	const struct service_spec *spec = pp->s->spec;
	struct planning *p = pp->p;
	struct ip addresses[2] = { { 0 } };
	char text[IP_STRLEN];
	uint32_t index = 1;
	struct change *c;

	while (index_used(pp, index))
		index++;
	if (!take_addresses(p, &spec->pool.template->network, addresses)) {
		diag_add(&p->plan->diags, SEVERITY_WARNING,
			 &spec->pool.template->network.src,
			 "widen the template's addresses",
			 "no address is free for another VM of service %s",
			 spec->name);
		return;
	}
	c = planning_add(p, CHANGE_VM_CREATE, ACTION_ADD,
			 arena_printf(p->arena, "service.%s/vm/%s-%u",
				      spec->name, spec->name, index));
	c->service = pp->s->name;
	c->name = arena_printf(p->arena, "%s-%u", spec->name, index);
	c->value = spec->pool.hypervisor->name;
	c->spec = spec;
	c->index = index;
	memcpy(c->addresses, addresses, sizeof(addresses));
	c->detail = arena_printf(
		p->arena, "%s on %s",
		ip_format(&addresses[addresses[0].family ? 0 : 1], text),
		spec->pool.hypervisor->name);
	pool_cause(pp, c);
}

/* A VM that drains but still answers comes back faster than a new one. */
static uint32_t restore(struct pool_plan *pp, uint32_t missing)
{
	uint32_t n = 0;

	for (size_t i = 0; i < pp->count && n < missing; i++) {
		const struct world_vm *vm = pp->vms[i];
		struct change *c;

		if (vm->phase != PHASE_DRAINING || vm->drained || vm->busy)
			continue;
		c = vm_change(pp, CHANGE_RESTORE, ACTION_CHANGE, vm);
		c->detail = "stays: no longer draining";
		pool_cause(pp, c);
		n++;
	}
	return n;
}

/* What is lost least goes first: not serving before serving, then the newest. */
static int removal_order(const void *a, const void *b)
{
	static const int rank[] = {
		[PHASE_FAILED] = 0,   [PHASE_OFF] = 1,	 [PHASE_CREATING] = 2,
		[PHASE_BOOTING] = 2,  [PHASE_READY] = 3, [PHASE_DRAINING] = 4,
		[PHASE_STOPPING] = 4,
	};
	const struct world_vm *x = *(const struct world_vm *const *)a;
	const struct world_vm *y = *(const struct world_vm *const *)b;

	if (rank[x->phase] != rank[y->phase])
		return rank[x->phase] - rank[y->phase];
	return x->index > y->index ? -1 : x->index < y->index;
}

static void retire(struct pool_plan *pp, const struct world_vm *vm)
{
	struct change *c;

	if (vm->busy)
		return;
	if (vm->phase == PHASE_READY) {
		c = vm_change(pp, CHANGE_DRAIN, ACTION_CHANGE, vm);
		c->detail = "drain: no new flows, then remove";
	} else {
		c = vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY, vm);
		c->detail = "undefine, delete its disk";
	}
	if (pp->s && pp->s->spec && pp->s->spec->pool.template)
		pool_cause(pp, c);
	else
		change_from_event(c, "its pool is no longer declared");
}

/* The first `n` of removal order go; the rest are tended. */
static void shrink(struct pool_plan *pp, uint32_t n)
{
	const struct world_vm **order =
		arena_alloc(pp->p->arena,
			    (pp->count + 1) * sizeof(const struct world_vm *));
	size_t count = 0;

	for (size_t i = 0; i < pp->count; i++) {
		if (leaves(pp->vms[i]))
			tend(pp, pp->vms[i]);
		else
			order[count++] = pp->vms[i];
	}
	if (count)
		qsort(order, count, sizeof(const struct world_vm *),
		      removal_order);
	for (size_t i = 0; i < count; i++) {
		if (i < n)
			retire(pp, order[i]);
		else
			tend(pp, order[i]);
	}
}

static bool may_create(const struct pool_plan *pp)
{
	return pp->s->pool.known &&
	       pp->s->pool.backoff_until <= pp->p->world->now;
}

static void size_pool(struct pool_plan *pp)
{
	uint32_t wanted = pp->s->pool.wanted, active = 0, missing, restored;

	for (size_t i = 0; i < pp->count; i++)
		active += !leaves(pp->vms[i]);
	if (active >= wanted) {
		shrink(pp, active - wanted);
		return;
	}
	missing = wanted - active;
	restored = restore(pp, missing);
	for (size_t i = 0; i < pp->count; i++)
		if (pp->vms[i]->phase != PHASE_DRAINING || pp->vms[i]->drained)
			tend(pp, pp->vms[i]);
	for (; restored < missing && may_create(pp); restored++)
		create(pp);
}

/* No pool declares these: those of a service that stays are drained first. */
static void orphan(struct pool_plan *pp)
{
	bool stays = pp->s && pp->s->spec;

	for (size_t i = 0; i < pp->count; i++) {
		struct world_vm vm = *pp->vms[i];

		if (leaves(&vm)) {
			tend(pp, pp->vms[i]);
			continue;
		}
		if (!stays && !vm.busy) {
			struct change *c =
				vm_change(pp, CHANGE_VM_REMOVE, ACTION_DESTROY,
					  pp->vms[i]);

			c->detail = "undefine, delete its disk";
			change_from_event(c,
					  "its service is no longer declared");
		} else {
			retire(pp, pp->vms[i]);
		}
	}
}

static const struct world_service *find_service(const struct world *w,
						const char *name)
{
	for (size_t i = 0; i < w->service_count; i++)
		if (!strcmp(w->services[i].name, name))
			return &w->services[i];
	return NULL;
}

static struct pool_plan pool_of(struct planning *p, const char *service)
{
	struct pool_plan pp = { .p = p, .s = find_service(p->world, service) };
	size_t n = p->world->vm_count;

	pp.vms = arena_alloc(p->arena, (n + 1) * sizeof(*pp.vms));
	for (size_t i = 0; i < n; i++)
		if (!strcmp(p->world->vms[i].service, service))
			pp.vms[pp.count++] = &p->world->vms[i];
	return pp;
}

void plan_pools(struct planning *p)
{
	const char *last = "";

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (s->spec && s->spec->pool.template) {
			struct pool_plan pp = pool_of(p, s->name);

			size_pool(&pp);
		}
	}
	/* VMs of one service stand together: names are <service>-<index>. */
	for (size_t i = 0; i < p->world->vm_count; i++) {
		const char *service = p->world->vms[i].service;
		const struct world_service *s = find_service(p->world, service);

		if (!strcmp(service, last) ||
		    (s && s->spec && s->spec->pool.template))
			continue;
		last = service;
		struct pool_plan pp = pool_of(p, service);

		orphan(&pp);
	}
}
