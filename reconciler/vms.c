/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of VMs: what libvirt says of them, what has been asked of it, and
 * the times in between.  A VM that stops by itself has failed and is replaced;
 * one that was found off (the host was rebooted) is started.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

/* How long a guest may take from its start to its first passed probe. */
#define BOOT_DEADLINE (120 * NS_PER_S)
/* From asking a guest to shut down to taking its power. */
#define SHUTDOWN_GRACE (10 * NS_PER_S)
#define BACKOFF_FIRST NS_PER_S
#define BACKOFF_MOST (300 * NS_PER_S)
/* Longer than the longest wait and the boot after it, so that it holds. */
#define FAILURES_FORGIVEN (2 * BACKOFF_MOST)

struct vm_run *vm_run_get(struct reconciler *r, const char *name)
{
	return strmap_get(&r->vms, name);
}

struct hypervisor *hypervisor_named(const struct reconciler *r,
				    const char *name)
{
	for (size_t i = 0; i < r->hypervisor_count; i++)
		if (!strcmp(hypervisor_name(r->hypervisors[i]), name))
			return r->hypervisors[i];
	return NULL;
}

bool hypervisors_read(const struct reconciler *r)
{
	for (size_t i = 0; i < r->hypervisor_count; i++)
		if (!hypervisor_is_read(r->hypervisors[i]))
			return false;
	return true;
}

static struct vm_run *add_run(struct reconciler *r, struct hypervisor *h,
			      const char *name, const char *service,
			      uint32_t index)
{
	struct vm_run *v = mem_alloc(sizeof(*v));

	v->r = r;
	v->hypervisor = h;
	v->index = index;
	v->cpu_percent = -1;
	snprintf(v->name, sizeof(v->name), "%s", name);
	snprintf(v->service, sizeof(v->service), "%s", service);
	strmap_put(&r->vms, v->name, v);
	return v;
}

static void drop_run(struct vm_run *v)
{
	strmap_remove(&v->r->vms, v->name);
	free(v);
}

void vm_run_note(struct vm_run *v, const char *event, const char *reason,
		 uint64_t took)
{
	char text[IP_STRLEN];
	const struct ip *a = &v->addresses[v->addresses[0].family ? 0 : 1];
	struct store_vm_event e = {
		.time_ms = clock_wall_ms(),
		.took_ms = (int64_t)(took / NS_PER_MS),
		.service = v->service,
		.vm = v->name,
		.hypervisor = hypervisor_name(v->hypervisor),
		.address = ip_format(a, text),
		.event = event,
		.reason = reason,
	};

	if (v->r->read_only)
		return;
	log_info("vm", "service=%s vm=%s is=%s reason=\"%s\" took_ms=%lld",
		 v->service, v->name, event, reason, (long long)e.took_ms);
	if (v->r->store && store_add_vm_event(v->r->store, &e))
		log_warn("history", "what=vm_event result=lost");
}

/* How long to wait before another try, doubling with every failure. */
static uint64_t count_failure(struct service_run *s)
{
	uint64_t delay = BACKOFF_FIRST;

	for (uint32_t i = 0; i < s->create_failures && delay < BACKOFF_MOST;
	     i++)
		delay *= 2;
	s->create_failures++;
	s->failed_at = clock_ns();
	return delay < BACKOFF_MOST ? delay : BACKOFF_MOST;
}

static void fail(struct vm_run *v, const char *why)
{
	struct service_run *s = service_run_get(v->r, v->service);
	uint64_t delay;

	if (v->failed)
		return;
	delay = count_failure(s);
	v->failed = true;
	snprintf(v->why, sizeof(v->why), "%s", why);
	/* The first replacement is immediate; only repeated ones wait. */
	v->retry_at = s->create_failures > 1 ? clock_ns() + delay : 0;
	vm_run_note(v, "failed", why, 0);
	reconcile_soon(v->r);
}

enum vm_phase vm_run_phase(const struct vm_run *v)
{
	switch (v->op) {
	case VM_OP_CREATE:
	case VM_OP_START:
		return PHASE_CREATING;
	case VM_OP_SHUTDOWN:
	case VM_OP_REMOVE:
		return v->create_after ? PHASE_CREATING : PHASE_STOPPING;
	case VM_OP_NONE:
		break;
	}
	if (v->failed)
		return PHASE_FAILED;
	if (v->seen.state == VM_PAUSED && v->was_running)
		return v->drains ? PHASE_DRAINING : PHASE_BOOTING;
	if (v->seen.state != VM_RUNNING)
		return v->was_running ? PHASE_FAILED : PHASE_OFF;
	if (v->drains)
		return PHASE_DRAINING;
	return v->ready_since ? PHASE_READY : PHASE_BOOTING;
}

/* ---- what libvirt says ---- */

/*
 * One that somebody pauses is out of the tables, and has as long to come back
 * as a boot may take; it isn't taken for dead.
 */
static void see_pause(struct vm_run *v, bool paused)
{
	v->ready_since = 0;
	v->running_since = clock_ns();
	vm_run_note(v, paused ? "paused" : "resumed", "", 0);
}

static void see(struct vm_run *v, const struct vm *vm)
{
	bool runs = vm->state == VM_RUNNING;
	bool paused = vm->state == VM_PAUSED;
	bool was_paused = v->seen.state == VM_PAUSED;

	if (v->was_running && paused != was_paused && (paused || runs))
		see_pause(v, paused);
	v->observed = true;
	v->seen = *vm;
	memcpy(v->addresses, vm->addresses, sizeof(v->addresses));
	if (runs && !v->was_running) {
		v->was_running = true;
		v->running_since = clock_ns();
	}
	if (v->was_running && !runs && !paused && vm->state != VM_STARTING &&
	    v->op == VM_OP_NONE)
		fail(v, vm->state == VM_CRASHED ? "crashed" : "stopped");
}

static void vanish(struct vm_run *v)
{
	v->observed = false;
	if (v->op != VM_OP_NONE)
		return;
	vm_run_note(v, "gone", "undefined by someone else", 0);
	drop_run(v);
}

void vms_observe(struct reconciler *r, struct hypervisor *h)
{
	size_t count, i = 0;
	const struct vm *vms = hypervisor_vms(h, &count);
	struct vm_run *v;

	while ((v = strmap_next(&r->vms, &i)))
		if (v->hypervisor == h)
			v->observed = false;
	for (size_t k = 0; k < count; k++) {
		v = vm_run_get(r, vms[k].name);
		if (!v) {
			v = add_run(r, h, vms[k].name, vms[k].service,
				    vms[k].index);
			memcpy(v->addresses, vms[k].addresses,
			       sizeof(v->addresses));
			if (vms[k].adopted &&
			    service_run_get(r, v->service)->pool_known)
				vm_run_note(v, "adopted", "by the operator", 0);
		}
		see(v, &vms[k]);
	}
	i = 0;
	while ((v = strmap_next(&r->vms, &i)))
		if (v->hypervisor == h && !v->observed)
			vanish(v);
}

void vms_forget(struct reconciler *r, struct hypervisor *h)
{
	struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&r->vms, &i)))
		if (v->hypervisor == h)
			drop_run(v);
}

void vms_event(struct reconciler *r, struct hypervisor *h, const char *name,
	       enum vm_event event)
{
	struct vm_run *v;

	vms_observe(r, h);
	v = vm_run_get(r, name);
	if (v && v->op == VM_OP_SHUTDOWN &&
	    (event == VM_EVENT_STOPPED || event == VM_EVENT_CRASHED))
		vms_tick(r);
	reconcile_soon(r);
}

/* ---- what is asked of libvirt ---- */

static void note_change(struct vm_run *v, const char *action, int err,
			const char *why, uint64_t took)
{
	char object[160];
	struct store_change c = {
		.time_ms = clock_wall_ms(),
		.revision_id = v->revision,
		.took_ms = (int64_t)(took / NS_PER_MS),
		.run_id = v->r->run_id,
		.object = object,
		.action = v->drift ? "repair" : action,
		.cause = v->cause_text,
		.result = err ? "failed" : "done",
		.error = err ? why : NULL,
	};

	snprintf(object, sizeof(object), "service.%s/vm/%s", v->service,
		 v->name);
	if (v->r->store && store_add_change(v->r->store, &c))
		log_warn("history", "what=change result=lost");
}

static void finish_op(struct vm_run *v, const char *action, int err,
		      const char *why)
{
	note_change(v, action, err, why, clock_ns() - v->op_since);
	v->op = VM_OP_NONE;
	reconcile_soon(v->r);
}

/* A name that is taken says nothing about the next one. */
static void create_failed(struct vm_run *v, int err, const char *why)
{
	struct service_run *s = service_run_get(v->r, v->service);

	s->backoff_until = clock_ns() +
			   (err == -EEXIST ? BACKOFF_FIRST : count_failure(s));
	vm_run_note(v, "create_failed", why, clock_ns() - v->op_since);
	/* Whatever is left of it is read again and comes back as found. */
	drop_run(v);
}

static void created(void *arg, const char *name, int err, const char *why,
		    uint64_t took)
{
	struct reconciler *r = arg;
	struct vm_run *v = vm_run_get(r, name);

	if (!v)
		return;
	finish_op(v, "create", err, why);
	if (err) {
		create_failed(v, err, why);
		return;
	}
	v->was_running = true;
	v->running_since = clock_ns();
	vm_run_note(v, "started", v->cause_text, took);
	vms_observe(r, v->hypervisor);
}

static void started(void *arg, const char *name, int err, const char *why,
		    uint64_t took)
{
	struct reconciler *r = arg;
	struct vm_run *v = vm_run_get(r, name);

	if (!v)
		return;
	finish_op(v, "start", err, why);
	if (err) {
		fail(v, "could not be started");
		return;
	}
	v->was_running = true;
	v->running_since = clock_ns();
	vm_run_note(v, "started", "was off", took);
	vms_observe(r, v->hypervisor);
}

static void submit_create(struct vm_run *v);

static void removed(void *arg, const char *name, int err, const char *why,
		    uint64_t took)
{
	struct reconciler *r = arg;
	struct vm_run *v = vm_run_get(r, name);
	bool again;

	if (!v)
		return;
	again = v->create_after;
	finish_op(v, again ? "replace" : "remove", err, why);
	if (err) {
		log_error("vm_remove", "vm=%s error=\"%s\"", name, why);
		v->create_after = false;
		v->failed = true;
		v->retry_at = clock_ns() + 5 * NS_PER_S;
		return;
	}
	vm_run_note(v, "removed", v->cause_text, took);
	v->observed = false;
	if (again)
		submit_create(v);
	else
		drop_run(v);
}

static void begin(struct vm_run *v, enum vm_op op, const struct change *c)
{
	v->op = op;
	v->op_since = clock_ns();
	v->revision = v->r->revision;
	if (c)
		v->drift = c->drift;
	if (c)
		snprintf(v->cause_text, sizeof(v->cause_text), "%s",
			 c->cause ? c->cause : "");
}

static const struct service_spec *spec_of(struct vm_run *v)
{
	return v->r->spec ? spec_find_service(v->r->spec, v->service) : NULL;
}

/* Fresh start under the run's name, index and addresses. */
static void submit_create(struct vm_run *v)
{
	const struct service_spec *s = spec_of(v);
	struct vm_order o = { .service = v->service, .index = v->index };

	v->create_after = v->failed = v->drains = v->was_running = false;
	v->ready_since = v->retry_at = v->cpu_when = 0;
	v->cpu_percent = -1;
	if (!s || !s->pool.template) {
		drop_run(v);
		return;
	}
	begin(v, VM_OP_CREATE, NULL);
	o.template = s->pool.template;
	memcpy(o.addresses, v->addresses, sizeof(o.addresses));
	vm_mac_from_address(&o.addresses[o.addresses[0].family ? 0 : 1], o.mac);
	if (s->forwarding != FORWARDING_NAT) {
		o.vips = mem_array(s->vip_count, sizeof(*o.vips));
		o.vip_count = s->vip_count;
		for (size_t i = 0; i < s->vip_count; i++)
			o.vips[i] = s->vips[i].address;
	}
	vm_create(v->hypervisor, &o, created, v->r);
	free(o.vips);
}

void vm_order_create(struct reconciler *r, const struct change *c)
{
	struct hypervisor *h = hypervisor_named(r, c->value);
	struct vm_run *v;

	if (!h || vm_run_get(r, c->name))
		return;
	v = add_run(r, h, c->name, c->service, c->index);
	memcpy(v->addresses, c->addresses, sizeof(v->addresses));
	begin(v, VM_OP_CREATE, c);
	vm_run_note(v, "ordered", v->cause_text, 0);
	submit_create(v);
}

void vm_order_start(struct reconciler *r, const struct change *c)
{
	struct vm_run *v = vm_run_get(r, c->name);

	if (!v)
		return;
	begin(v, VM_OP_START, c);
	vm_start(v->hypervisor, v->name, started, r);
}

static void asked_shutdown(void *arg, const char *name, int err,
			   const char *why, uint64_t took)
{
	(void)took;
	if (err)
		log_info("vm_shutdown", "vm=%s error=\"%s\"", name, why);
	reconcile_soon(arg);
}

/* Only a guest that has served is asked to shut down by itself. */
void vm_order_remove(struct reconciler *r, const struct change *c, bool replace)
{
	struct vm_run *v = vm_run_get(r, c->name);

	if (!v)
		return;
	/* An adopted one is let go as it is; a new one gets a name of ours. */
	v->create_after = replace && !v->seen.adopted;
	if (v->drains && !v->seen.adopted && v->observed &&
	    v->seen.state == VM_RUNNING) {
		begin(v, VM_OP_SHUTDOWN, c);
		vm_run_note(v, "stopping", v->cause_text, 0);
		vm_shutdown(v->hypervisor, v->name, asked_shutdown, r);
	} else {
		begin(v, VM_OP_REMOVE, c);
		vm_remove(v->hypervisor, v->name, removed, r);
	}
}

/* ---- time ---- */

static void tick(struct vm_run *v, uint64_t now)
{
	struct service_run *s;

	if (v->op == VM_OP_SHUTDOWN &&
	    (now - v->op_since >= SHUTDOWN_GRACE || !v->observed ||
	     v->seen.state != VM_RUNNING)) {
		v->op = VM_OP_REMOVE;
		vm_remove(v->hypervisor, v->name, removed, v->r);
	}
	if (vm_run_phase(v) == PHASE_BOOTING &&
	    now - v->running_since >= BOOT_DEADLINE)
		fail(v, v->seen.state == VM_PAUSED ? "stayed paused"
						   : "never became ready");
	if (vm_run_phase(v) == PHASE_READY) {
		s = service_run_get(v->r, v->service);
		if (now - s->failed_at >= FAILURES_FORGIVEN)
			s->create_failures = 0;
	}
}

void vms_tick(struct reconciler *r)
{
	uint64_t now = clock_ns();
	struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&r->vms, &i)))
		tick(v, now);
}
