/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection: requests go to its worker, answers and events come back on
 * the loop, and the list of our domains is kept here in between.
 *
 * Who owns what: `place` (the connection itself) is the worker's while it
 * lives; everything else is only touched on the loop's thread.
 */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "base/seam.h"

#define KEEPALIVE_SECONDS 5
#define KEEPALIVE_COUNT 3
#define BACKOFF_FIRST (100 * NS_PER_MS)
#define BACKOFF_MAX (10 * NS_PER_S)

enum op {
	OP_CONNECT,
	OP_LIST,
	OP_CREATE,
	OP_START,
	OP_SHUTDOWN,
	OP_REMOVE,
	OP_SWEEP,
	OP_CPU,
};

/* What the worker is asked, and what it answers. */
struct request {
	LIST_ENTRY(request) link;
	struct hypervisor *h;
	enum op op;
	char name[64]; /* the VM it is about, or "" */
	struct arena *arena; /* of the order */
	struct vm_order order;
	vm_done_fn done;
	vm_stats_fn stats_done;
	void *arg;
	uint64_t submitted;
	uint64_t generation; /* OP_CONNECT: of the connection to make */

	int err;
	struct why why;
	struct vm vm;
	bool vm_known; /* vm was read */
	struct vm_list list;
	struct cpu_readings cpu;
	uint64_t took;

	/* Came while a create was under way, to be told after it. */
	bool has_event;
	enum vm_event event;
};

/* A connection that was lost, on its way to the loop's thread. */
struct loss {
	struct hypervisor *h; /* may be freed by now: live_hypervisors knows */
	uint64_t generation;
	const char *why;
};

struct hypervisor {
	LIST_ENTRY(hypervisor) live;
	struct loop *loop;
	struct worker *worker;
	struct loop_source *retry;
	uint64_t backoff;
	char *name;
	char *uri;
	char *owner;
	struct hypervisor_events ev;
	void *arg;
	LIST_HEAD(, request) requests;
	struct vm_list vms;
	char told[512]; /* why it isn't connected, as last told */
	bool connected;
	bool read; /* since it was made; never taken back */
	bool connecting;
	bool lost_meanwhile; /* while connecting */
	uint64_t generation; /* of the connection; counts attempts */
	bool reading; /* an OP_LIST is under way */
	bool retired; /* nobody listens any more */
	bool read_again; /* something happened since it was asked */

	struct place place; /* the worker's */
	bool probed; /* the worker's */
	int event_id; /* the worker's */
	struct loss on_loss; /* the worker's; unchanged while it is connected */
};

static LIST_HEAD(, hypervisor) live_hypervisors;

/* --- the cached list --- */

static struct vm *find_vm(const struct vm_list *l, const char *name)
{
	for (size_t i = 0; i < l->count; i++)
		if (!strcmp(l->items[i].name, name))
			return &l->items[i];
	return NULL;
}

static struct vm *find_uuid(const struct vm_list *l, const char *uuid)
{
	for (size_t i = 0; i < l->count; i++)
		if (!strcmp(l->items[i].uuid, uuid))
			return &l->items[i];
	return NULL;
}

static void forget_vm(struct vm_list *l, struct vm *v)
{
	size_t i = (size_t)(v - l->items);

	memmove(v, v + 1, (l->count - i - 1) * sizeof(*v));
	l->count--;
}

/* Replaces the one of that name, or goes to its place in the order. */
static struct vm *put_vm(struct vm_list *l, const struct vm *vm)
{
	struct vm *v = find_vm(l, vm->name);
	size_t i = 0;

	if (!v) {
		(void)MEM_PUSH(l->items, l->count);
		while (i < l->count - 1 &&
		       strcmp(l->items[i].name, vm->name) < 0)
			i++;
		v = &l->items[i];
		memmove(v + 1, v, (l->count - i - 1) * sizeof(*v));
	}
	*v = *vm;
	return v;
}

/* A VM that is being made is in the list before the hypervisor has it. */
static void put_starting(struct hypervisor *h, const struct request *r)
{
	struct vm vm = { .index = r->order.index, .state = VM_STARTING };

	snprintf(vm.name, sizeof(vm.name), "%s", r->name);
	snprintf(vm.service, sizeof(vm.service), "%s", r->order.service);
	snprintf(vm.template_hash, sizeof(vm.template_hash), "%s",
		 r->order.template->hash);
	memcpy(vm.addresses, r->order.addresses, sizeof(vm.addresses));
	memcpy(vm.mac, r->order.mac, sizeof(vm.mac));
	vm.vcpus = r->order.template->vcpus;
	put_vm(&h->vms, &vm);
}

/* What was read replaces what we had, but for what is under way. */
static void take_list(struct hypervisor *h, struct vm_list *fresh)
{
	struct vm_list old = h->vms;
	struct request *r;

	h->vms = *fresh;
	*fresh = (struct vm_list){ 0 };
	for (size_t i = 0; i < old.count; i++) {
		struct vm *v = find_uuid(&h->vms, old.items[i].uuid);

		if (v && old.items[i].state == VM_STOPPING &&
		    v->state == VM_RUNNING)
			v->state = VM_STOPPING;
	}
	free(old.items);
	free(old.strays);
	LIST_FOREACH(r, &h->requests, link)
	if (r->op == OP_CREATE)
		put_starting(h, r);
}

/* --- events --- */

static bool to_vm_event(int event, int detail, enum vm_event *ret)
{
	switch (event) {
	case VIR_DOMAIN_EVENT_DEFINED:
		*ret = VM_EVENT_DEFINED;
		return true;
	case VIR_DOMAIN_EVENT_UNDEFINED:
		*ret = VM_EVENT_UNDEFINED;
		return true;
	case VIR_DOMAIN_EVENT_STARTED:
		*ret = VM_EVENT_STARTED;
		return true;
	case VIR_DOMAIN_EVENT_SUSPENDED:
	case VIR_DOMAIN_EVENT_PMSUSPENDED:
		*ret = VM_EVENT_PAUSED;
		return true;
	case VIR_DOMAIN_EVENT_RESUMED:
		*ret = VM_EVENT_RESUMED;
		return true;
	case VIR_DOMAIN_EVENT_SHUTDOWN:
		*ret = VM_EVENT_SHUTDOWN;
		return true;
	case VIR_DOMAIN_EVENT_STOPPED:
		*ret = detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED ||
				       detail == VIR_DOMAIN_EVENT_STOPPED_FAILED
			       ? VM_EVENT_CRASHED
			       : VM_EVENT_STOPPED;
		return true;
	case VIR_DOMAIN_EVENT_CRASHED:
		*ret = VM_EVENT_CRASHED;
		return true;
	default:
		return false;
	}
}

static void apply_event(struct hypervisor *h, struct vm *v, enum vm_event e)
{
	switch (e) {
	case VM_EVENT_DEFINED:
		break;
	case VM_EVENT_STARTED:
	case VM_EVENT_RESUMED:
		v->state = VM_RUNNING;
		break;
	case VM_EVENT_PAUSED:
		v->state = VM_PAUSED;
		break;
	case VM_EVENT_SHUTDOWN:
		v->state = VM_STOPPING;
		break;
	case VM_EVENT_STOPPED:
	case VM_EVENT_CRASHED:
		v->state = e == VM_EVENT_CRASHED ? VM_CRASHED : VM_OFF;
		v->port[0] = '\0';
		break;
	case VM_EVENT_UNDEFINED:
		forget_vm(&h->vms, v);
		break;
	}
}

/* In the list first, then told. */
static void tell_event(struct hypervisor *h, struct vm *v, enum vm_event e)
{
	char name[64];

	snprintf(name, sizeof(name), "%s", v->name);
	apply_event(h, v, e);
	if (h->reading)
		h->read_again = true;
	/* The interface of a VM that starts is in its live XML only. */
	if (e == VM_EVENT_STARTED)
		hypervisor_refresh(h);
	if (h->ev.event)
		h->ev.event(h->arg, h, name, e);
}

static struct request *creating(struct hypervisor *h, const char *name)
{
	struct request *r;

	LIST_FOREACH(r, &h->requests, link)
	if (r->op == OP_CREATE && !strcmp(r->name, name))
		return r;
	return NULL;
}

static int on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event,
			int detail, void *arg)
{
	struct hypervisor *h = arg;
	const char *name = virDomainGetName(dom);
	char uuid[VIR_UUID_STRING_BUFLEN] = "";
	struct request *r;
	enum vm_event e;
	struct vm *v;

	(void)conn;
	if (h->retired)
		return 0;
	if (!strncmp(name, PROBE_PREFIX, strlen(PROBE_PREFIX)) ||
	    !to_vm_event(event, detail, &e))
		return 0;
	r = creating(h, name);
	if (r) {
		r->has_event = true;
		r->event = e;
		return 0;
	}
	(void)virDomainGetUUIDString(dom, uuid);
	v = find_uuid(&h->vms, uuid);
	if (v)
		tell_event(h, v, e);
	else if (e == VM_EVENT_DEFINED || e == VM_EVENT_STARTED)
		hypervisor_refresh(h); /* is it ours? its metadata says */
	return 0;
}

static void retry_later(struct hypervisor *h)
{
	loop_arm_in(h->retry, h->backoff);
	h->backoff =
		h->backoff * 2 < BACKOFF_MAX ? h->backoff * 2 : BACKOFF_MAX;
}

static bool is_live(const struct hypervisor *h)
{
	const struct hypervisor *other;

	LIST_FOREACH(other, &live_hypervisors, live)
	if (other == h)
		return true;
	return false;
}

/* Told once for each reason, however many attempts fail with it. */
static void tell_down(struct hypervisor *h, const char *why)
{
	if (!strcmp(h->told, why))
		return;
	snprintf(h->told, sizeof(h->told), "%s", why);
	if (h->ev.connected)
		h->ev.connected(h->arg, h, false, why);
}

static void lost(void *arg)
{
	struct loss *loss = arg;
	struct hypervisor *h = loss->h;
	const char *why = loss->why;
	bool ours = is_live(h) && loss->generation == h->generation;

	free(loss);
	if (!ours)
		return;
	if (h->connecting)
		h->lost_meanwhile = true;
	if (!h->connected)
		return;
	h->connected = false;
	retry_later(h);
	tell_down(h, why);
}

/*
 * Called on whichever thread found out: on the loop's, or on the worker in
 * the middle of a call.
 */
static void on_close(virConnectPtr conn, int reason, void *arg)
{
	const struct loss *what = arg;
	struct loss *loss = mem_alloc(sizeof(*loss));

	(void)conn;
	*loss = *what;
	loss->why = reason == VIR_CONNECT_CLOSE_REASON_EOF
			    ? "libvirtd went away"
		    : reason == VIR_CONNECT_CLOSE_REASON_KEEPALIVE
			    ? "libvirtd doesn't answer"
			    : "connection lost";
	if (!events_post(lost, loss))
		free(loss);
}

static void register_close(struct hypervisor *h, uint64_t generation)
{
	h->on_loss = (struct loss){ .h = h, .generation = generation };
	/* Drivers inside this process have no such thing. */
	(void)virConnectRegisterCloseCallback(h->place.conn, on_close,
					      &h->on_loss, NULL);
}

/* --- on the worker --- */

static void disconnect(struct hypervisor *h)
{
	virConnectPtr conn = h->place.conn;

	if (!conn)
		return;
	if (h->event_id >= 0)
		virConnectDomainEventDeregisterAny(conn, h->event_id);
	virConnectUnregisterCloseCallback(conn, on_close);
	virConnectClose(conn);
	h->place.conn = NULL;
	h->event_id = -1;
}

static int connect_place(struct hypervisor *h, uint64_t generation,
			 struct why *w)
{
	struct place *p = &h->place;
	virNodeInfo node;

	p->conn = virConnectOpen(h->uri);
	if (!p->conn)
		return why_libvirt(w, h->uri);
	/* Drivers inside this process have none. */
	(void)virConnectSetKeepAlive(p->conn, KEEPALIVE_SECONDS,
				     KEEPALIVE_COUNT);
	register_close(h, generation);
	h->event_id = virConnectDomainEventRegisterAny(
		p->conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
		VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), h, NULL);
	if (h->event_id < 0)
		return why_libvirt(w, h->uri);
	if (!h->probed) {
		if (virNodeGetInfo(p->conn, &node))
			return why_libvirt(w, h->uri);
		snprintf(p->arch, sizeof(p->arch), "%.31s", node.model);
		p->kind = probe_kind(p->conn, p->arch, p->owner);
		h->probed = true;
	}
	return 0;
}

static void run_connect(struct hypervisor *h, struct request *r)
{
	disconnect(h);
	r->err = connect_place(h, r->generation, &r->why);
	if (!r->err)
		r->err = domain_list(&h->place, &r->list, &r->why);
	if (r->err)
		disconnect(h);
}

static void run_sweep(struct hypervisor *h, struct request *r)
{
	r->err = domain_list(&h->place, &r->list, &r->why);
	if (!r->err)
		r->err = storage_sweep(&h->place, &r->list, &r->why);
}

static void run(void *arg)
{
	struct request *r = arg;
	struct hypervisor *h = r->h;
	struct place *p = &h->place;

	switch (r->op) {
	case OP_CONNECT:
		run_connect(h, r);
		break;
	case OP_LIST:
		r->err = domain_list(p, &r->list, &r->why);
		break;
	case OP_CREATE:
		r->err = domain_create(p, &r->order, &r->vm, &r->why);
		r->vm_known = !r->err;
		break;
	case OP_START:
		r->err = domain_start(p, r->name, &r->vm, &r->why);
		r->vm_known = !r->err;
		break;
	case OP_SHUTDOWN:
		r->err = domain_shutdown(p, r->name, &r->why);
		break;
	case OP_REMOVE:
		r->err = domain_remove(p, r->name, &r->why);
		break;
	case OP_SWEEP:
		run_sweep(h, r);
		break;
	case OP_CPU:
		r->err = domain_cpu(p, &r->cpu, &r->why);
		break;
	}
	r->took = clock_ns() - r->submitted;
}

/* --- back on the loop --- */

static void request_free(struct request *r)
{
	free(r->list.items);
	free(r->list.strays);
	free(r->cpu.items);
	arena_free(r->arena);
	free(r);
}

static void connect_done(struct hypervisor *h, struct request *r)
{
	h->connecting = false;
	if (!r->err && h->lost_meanwhile)
		r->err = why_set(&r->why, -ENOTCONN, "%s: connection lost",
				 h->uri);
	if (r->err) {
		log_debug("hypervisor_connect", "hypervisor=%s why=\"%s\"",
			  h->name, r->why.text);
		retry_later(h);
		tell_down(h, r->why.text);
		return;
	}
	h->connected = h->read = true;
	h->told[0] = '\0';
	h->backoff = BACKOFF_FIRST;
	log_info("hypervisor_connected", "hypervisor=%s uri=%s guests=%s",
		 h->name, h->uri, domain_kind_name(h->place.kind));
	take_list(h, &r->list);
	if (h->ev.connected)
		h->ev.connected(h->arg, h, true, "");
	if (h->ev.refreshed)
		h->ev.refreshed(h->arg, h);
}

static void list_done(struct hypervisor *h, struct request *r)
{
	h->reading = false;
	if (h->read_again && !r->err)
		hypervisor_refresh(h);
	h->read_again = false;
	if (r->err)
		return;
	take_list(h, &r->list);
	if (h->ev.refreshed)
		h->ev.refreshed(h->arg, h);
}

/* What the answer says about the VM, before the asker hears of it. */
static void update_list(struct hypervisor *h, struct request *r)
{
	struct vm *v = find_vm(&h->vms, r->name);

	if (h->reading)
		h->read_again = true;
	if (r->vm_known) {
		put_vm(&h->vms, &r->vm);
		return;
	}
	if (v && ((r->op == OP_REMOVE && !r->err) ||
		  (r->op == OP_CREATE && v->state == VM_STARTING)))
		forget_vm(&h->vms, v);
	/* Whatever is there now is read. */
	if (r->err)
		hypervisor_refresh(h);
}

static void vm_request_done(struct hypervisor *h, struct request *r)
{
	vm_done_fn done = r->done;
	enum vm_event event = r->event;
	bool ended = r->has_event && r->vm_known &&
		     (event == VM_EVENT_STOPPED || event == VM_EVENT_CRASHED);
	struct vm *v;

	if (done)
		done(r->arg, r->name, r->err, r->err ? r->why.text : "",
		     r->took);
	v = ended ? find_vm(&h->vms, r->name) : NULL;
	if (v)
		tell_event(h, v, event);
}

static void stats_done(struct hypervisor *h, struct request *r)
{
	struct vm_stats *stats = mem_array(r->cpu.count + 1, sizeof(*stats));
	size_t count = 0;

	for (size_t i = 0; i < r->cpu.count; i++) {
		const struct cpu_reading *c = &r->cpu.items[i];
		const struct vm *v = find_vm(&h->vms, c->name);

		if (v && v->state != VM_STARTING)
			stats[count++] = (struct vm_stats){ v->name, c->cpu_ns,
							    v->vcpus, c->when };
	}
	r->stats_done(r->arg, stats, count);
	free(stats);
}

static void answered(void *arg)
{
	struct request *r = arg;
	struct hypervisor *h = r->h;

	/* Not pending any more, so that the list isn't told it is. */
	LIST_REMOVE(r, link);
	switch (r->op) {
	case OP_CONNECT:
		connect_done(h, r);
		break;
	case OP_LIST:
		list_done(h, r);
		break;
	case OP_CREATE:
	case OP_START:
	case OP_SHUTDOWN:
	case OP_REMOVE:
		update_list(h, r);
		vm_request_done(h, r);
		break;
	case OP_SWEEP:
		vm_request_done(h, r);
		break;
	case OP_CPU:
		stats_done(h, r);
		break;
	}
	request_free(r);
}

static struct request *request_new(struct hypervisor *h, enum op op,
				   const char *name)
{
	struct request *r = mem_alloc(sizeof(*r));

	r->h = h;
	r->op = op;
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->submitted = clock_ns();
	LIST_INSERT_HEAD(&h->requests, r, link);
	return r;
}

static void submit(struct request *r)
{
	worker_submit(r->h->worker, run, answered, r);
}

static void submit_vm(struct hypervisor *h, enum op op, const char *name,
		      vm_done_fn done, void *arg)
{
	struct request *r = request_new(h, op, name);

	r->done = done;
	r->arg = arg;
	submit(r);
}

/* --- what others call --- */

static void connect_now(void *arg)
{
	struct hypervisor *h = arg;
	struct request *r = request_new(h, OP_CONNECT, "");

	h->connecting = true;
	h->lost_meanwhile = false;
	r->generation = ++h->generation;
	submit(r);
}

static void be_silent(void *arg, virErrorPtr e)
{
	(void)arg;
	(void)e;
}

int hypervisor_init(struct loop *l)
{
	/* Errors are told by those who get them, not by the library. */
	virSetErrorFunc(NULL, be_silent);
	return events_init(l);
}

struct hypervisor *hypervisor_new(struct loop *l,
				  const struct hypervisor_spec *spec,
				  const char *owner,
				  const struct hypervisor_events *ev, void *arg)
{
	struct hypervisor *h = mem_alloc(sizeof(*h));

	h->loop = l;
	h->name = mem_dup(spec->name);
	h->uri = mem_dup(spec->uri);
	h->owner = mem_dup(owner);
	h->ev = *ev;
	h->arg = arg;
	h->backoff = BACKOFF_FIRST;
	h->place.owner = h->owner;
	h->event_id = -1;
	LIST_INIT(&h->requests);
	LIST_INSERT_HEAD(&live_hypervisors, h, live);
	h->worker = worker_new(l, "xlb-libvirt");
	h->retry = loop_add_timer(l, connect_now, h);
	connect_now(h);
	return h;
}

static void release(void *arg)
{
	struct hypervisor *h = arg;
	struct request *r, *next;

	for (r = LIST_FIRST(&h->requests); r; r = next) {
		next = LIST_NEXT(r, link);
		request_free(r);
	}
	free(h->vms.items);
	free(h->vms.strays);
	free(h->name);
	free(h->uri);
	free(h->owner);
	free(h);
}

/*
 * The worker's last job.  An event of this connection may be on its way on the
 * loop's thread, so what it would find is released there, if there is a loop.
 */
static void leave(void *arg)
{
	disconnect(arg);
	if (!events_post(release, arg))
		release(arg);
}

void hypervisor_free(struct hypervisor *h)
{
	if (!h)
		return;
	LIST_REMOVE(h, live);
	loop_remove(h->retry);
	h->retired = true;
	worker_retire(h->worker, leave, h);
}

bool hypervisor_end(void)
{
	bool all = workers_wait(NS_PER_S);

	events_end();
	return all;
}

const char *hypervisor_name(const struct hypervisor *h)
{
	return h->name;
}

const char *hypervisor_uri(const struct hypervisor *h)
{
	return h->uri;
}

bool hypervisor_is_read(const struct hypervisor *h)
{
	return h->read;
}

bool hypervisor_is_connected(const struct hypervisor *h)
{
	return h->connected;
}

const struct vm *hypervisor_vms(const struct hypervisor *h, size_t *ret_count)
{
	*ret_count = h->vms.count;
	return h->vms.items;
}

void hypervisor_refresh(struct hypervisor *h)
{
	if (!h->connected)
		return; /* connecting reads everything */
	if (h->reading) {
		h->read_again = true;
		return;
	}
	h->reading = true;
	submit(request_new(h, OP_LIST, ""));
}

const struct stray *hypervisor_strays(const struct hypervisor *h,
				      size_t *ret_count)
{
	*ret_count = h->vms.stray_count;
	return h->vms.strays;
}

static struct template_spec *copy_template(struct arena *a,
					   const struct template_spec *t)
{
	struct template_spec *c = arena_alloc(a, sizeof(*c));
	size_t size = t->network.range_count * sizeof(*t->network.ranges);

	*c = *t;
	c->src = (struct source){ 0 };
	c->name = arena_dup(a, t->name);
	c->image = arena_dup(a, t->image);
	c->kernel = arena_dup(a, t->kernel);
	c->initrd = arena_dup(a, t->initrd);
	c->cmdline = arena_dup(a, t->cmdline);
	c->cloud_init = arena_dup(a, t->cloud_init);
	c->network.bridge = arena_dup(a, t->network.bridge);
	c->network.libvirt = arena_dup(a, t->network.libvirt);
	c->network.ranges = NULL;
	if (size) {
		c->network.ranges = arena_alloc(a, size);
		memcpy(c->network.ranges, t->network.ranges, size);
	}
	return c;
}

static void copy_order(struct request *r, const struct vm_order *o)
{
	struct arena *a = r->arena = arena_new();
	size_t size = o->vip_count * sizeof(*o->vips);

	r->order = *o;
	r->order.template = copy_template(a, o->template);
	r->order.service = arena_dup(a, o->service);
	r->order.vips = NULL;
	if (size) {
		r->order.vips = arena_alloc(a, size);
		memcpy(r->order.vips, o->vips, size);
	}
}

void vm_create(struct hypervisor *h, const struct vm_order *o, vm_done_fn done,
	       void *arg)
{
	struct request *r;
	char name[64];

	seam_change("vm_create");
	vm_name(o->service, o->index, name);
	r = request_new(h, OP_CREATE, name);
	r->done = done;
	r->arg = arg;
	copy_order(r, o);
	put_starting(h, r);
	submit(r);
}

void vm_start(struct hypervisor *h, const char *name, vm_done_fn done,
	      void *arg)
{
	seam_change("vm_start");
	submit_vm(h, OP_START, name, done, arg);
}

void vm_shutdown(struct hypervisor *h, const char *name, vm_done_fn done,
		 void *arg)
{
	struct vm *v = find_vm(&h->vms, name);

	seam_change("vm_shutdown");
	if (v && v->state == VM_RUNNING)
		v->state = VM_STOPPING;
	submit_vm(h, OP_SHUTDOWN, name, done, arg);
}

void vm_remove(struct hypervisor *h, const char *name, vm_done_fn done,
	       void *arg)
{
	seam_change("vm_remove");
	submit_vm(h, OP_REMOVE, name, done, arg);
}

void vm_sweep_leftovers(struct hypervisor *h, vm_done_fn done, void *arg)
{
	seam_change("vm_sweep_leftovers");
	submit_vm(h, OP_SWEEP, "", done, arg);
}

void hypervisor_stats(struct hypervisor *h, vm_stats_fn fn, void *arg)
{
	struct request *r = request_new(h, OP_CPU, "");

	r->stats_done = fn;
	r->arg = arg;
	submit(r);
}
