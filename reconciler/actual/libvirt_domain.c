/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The blocking calls about domains.  Each looks at what is there first, so
 * that it can be interrupted anywhere and called again.  Nothing is done to
 * a domain that isn't ours by its metadata.
 */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int why_set(struct why *w, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->text, sizeof(w->text), fmt, ap);
	va_end(ap);
	return err;
}

static int errno_of(const virError *e)
{
	if (!e)
		return -EIO;
	switch (e->code) {
	case VIR_ERR_NO_DOMAIN:
	case VIR_ERR_NO_STORAGE_VOL:
	case VIR_ERR_NO_STORAGE_POOL:
		return -ENOENT;
	case VIR_ERR_DOM_EXIST:
		return -EEXIST;
	case VIR_ERR_AUTH_FAILED:
	case VIR_ERR_ACCESS_DENIED:
		return -EACCES;
	case VIR_ERR_NO_MEMORY:
		return -ENOMEM;
	default:
		return e->domain == VIR_FROM_RPC ? -ENOTCONN : -EIO;
	}
}

int why_libvirt(struct why *w, const char *what)
{
	const virError *e = virGetLastError();

	return why_set(w, errno_of(e), "%s: %s", what,
		       e && e->message ? e->message : "unknown error");
}

static enum vm_state state_of(virDomainPtr dom)
{
	int state = VIR_DOMAIN_NOSTATE;

	if (virDomainGetState(dom, &state, NULL, 0))
		return VM_OFF;
	switch (state) {
	case VIR_DOMAIN_RUNNING:
	case VIR_DOMAIN_BLOCKED:
		return VM_RUNNING;
	case VIR_DOMAIN_PAUSED:
	case VIR_DOMAIN_PMSUSPENDED:
		return VM_PAUSED;
	case VIR_DOMAIN_SHUTDOWN:
		return VM_STOPPING;
	case VIR_DOMAIN_CRASHED:
		return VM_CRASHED;
	default:
		return VM_OFF;
	}
}

/* 0, -ENOENT when it isn't ours, or another error. */
static int read_vm(struct place *p, virDomainPtr dom, struct vm *ret,
		   struct why *w)
{
	char *xml = virDomainGetXMLDesc(dom, 0);
	int err;

	if (!xml)
		return why_libvirt(w, virDomainGetName(dom));
	err = domain_parse(xml, p->owner, ret);
	free(xml);
	if (err)
		return why_set(w, err,
			       "a domain named %s exists and is not ours",
			       virDomainGetName(dom));
	ret->state = state_of(dom);
	if (ret->state == VM_OFF || ret->state == VM_CRASHED)
		ret->port[0] = '\0';
	xml = virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_INACTIVE);
	if (xml)
		domain_parse_next(xml, ret);
	free(xml);
	return 0;
}

/*
 * The domain of that name: 0 and *ret_dom set if it is ours, 0 and NULL if
 * there is none, -EEXIST if it is somebody else's.
 */
static int find_ours(struct place *p, const char *name, virDomainPtr *ret_dom,
		     struct vm *ret, struct why *w)
{
	virDomainPtr dom;
	int err;

	*ret_dom = NULL;
	if (!p->conn)
		return why_set(w, -ENOTCONN, "not connected");
	dom = virDomainLookupByName(p->conn, name);
	if (!dom)
		return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN
			       ? 0
			       : why_libvirt(w, name);
	err = read_vm(p, dom, ret, w);
	if (err) {
		virDomainFree(dom);
		return err == -ENOENT ? -EEXIST : err;
	}
	*ret_dom = dom;
	return 0;
}

/* Drivers know different flags; what a flag guards isn't there then. */
static int undefine(virDomainPtr dom)
{
	static const unsigned int flags[] = {
		VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
			VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
			VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA |
			VIR_DOMAIN_UNDEFINE_NVRAM,
		VIR_DOMAIN_UNDEFINE_MANAGED_SAVE |
			VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
		0,
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (!virDomainUndefineFlags(dom, flags[i]) ||
		    virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
			return 0;
	return -1;
}

static void release_network(struct place *p, virDomainPtr dom,
			    const struct vm *vm)
{
	char *xml = virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_INACTIVE);
	char network[128];

	if (xml && domain_network(xml, network, sizeof(network)))
		network_release(p, network, vm);
	free(xml);
}

/* A domain of ours, in whatever state, and what belongs to it. */
static int remove_ours(struct place *p, virDomainPtr dom, const struct vm *vm,
		       struct why *w)
{
	release_network(p, dom, vm);
	if (virDomainIsActive(dom) == 1 && virDomainDestroy(dom) &&
	    virDomainIsActive(dom) == 1)
		return why_libvirt(w, vm->name);
	/* A transient one is gone by now. */
	if (virDomainIsPersistent(dom) == 1 && undefine(dom))
		return why_libvirt(w, vm->name);
	return storage_remove(p, vm->name, w);
}

/*
 * One of ours that somebody renamed has that VM's disk and addresses: no other
 * may be made in its place, and nothing of it be removed.
 */
static int check_renamed(struct place *p, const char *name, struct why *w)
{
	virDomainPtr *doms = NULL;
	int err = 0, count = virConnectListAllDomains(p->conn, &doms, 0);

	if (count < 0)
		return why_libvirt(w, "list of domains");
	for (int i = 0; i < count; i++) {
		struct why ignored;
		struct vm vm = { 0 };
		char own[64];

		if (!err && read_vm(p, doms[i], &vm, &ignored) == -ENOENT &&
		    vm.service[0]) {
			vm_name(vm.service, vm.index, own);
			if (!strcmp(own, name))
				err = why_set(w, -EEXIST,
					      "the domain %s is %s under "
					      "another name",
					      vm.name, name);
		}
		virDomainFree(doms[i]);
	}
	free(doms);
	return err;
}

int domain_remove(struct place *p, const char *name, struct why *w)
{
	virDomainPtr dom;
	struct vm vm;
	int err = find_ours(p, name, &dom, &vm, w);

	if (err)
		return err;
	/* No domain: a create may have been cut short before it. */
	if (!dom) {
		err = check_renamed(p, name, w);
		return err ? err : storage_remove(p, name, w);
	}
	err = remove_ours(p, dom, &vm, w);
	virDomainFree(dom);
	return err;
}

/* Is what is there what is ordered? */
static bool fits(const struct vm *vm, const struct vm_order *o)
{
	return !strcmp(vm->template_hash, o->template->hash) &&
	       ip_equal(&vm->addresses[0], &o->addresses[0]) &&
	       ip_equal(&vm->addresses[1], &o->addresses[1]);
}

static int check_order(const struct place *p, const struct vm_order *o,
		       struct why *w)
{
	const struct template_spec *t = o->template;

	if (p->kind == DOMAIN_LXC && (t->kernel || t->image))
		return why_set(w, -EINVAL,
			       "template %s: a container takes neither kernel "
			       "nor image, only a cmdline",
			       t->name);
	if (p->kind == DOMAIN_LXC && (!t->cmdline || t->cmdline[0] != '/'))
		return why_set(w, -EINVAL,
			       "template %s: a container needs as its cmdline "
			       "the path of a program and its arguments",
			       t->name);
	if (p->kind != DOMAIN_LXC && !t->kernel && !t->image)
		return why_set(w, -EINVAL,
			       "template %s: a virtual machine needs an image "
			       "or a kernel",
			       t->name);
	return 0;
}

static int define_and_start(struct place *p, const struct vm_order *o,
			    const char *disk, const char *seed, struct vm *ret,
			    struct why *w)
{
	struct buf xml AUTO_BUF = BUF_INIT;
	virDomainPtr dom;
	char name[64];
	int err = 0;

	vm_name(o->service, o->index, name);
	domain_xml(&xml, o, p, disk, seed);
	dom = virDomainDefineXML(p->conn, buf_str(&xml));
	if (!dom)
		return why_libvirt(w, name);
	network_reserve(p, o);
	if (virDomainCreate(dom))
		err = why_libvirt(w, name);
	else
		err = read_vm(p, dom, ret, w);
	virDomainFree(dom);
	return err;
}

static int make(struct place *p, const struct vm_order *order, struct vm *ret,
		struct why *w)
{
	struct vm_order own = *order;
	const struct vm_order *o = &own;
	char *disk = NULL, *seed = NULL;
	int err = 0;

	if (o->template->network.libvirt && !o->addresses[0].family &&
	    !o->addresses[1].family)
		err = network_allocate(p, &own, w);
	if (!err && o->template->image && p->kind != DOMAIN_LXC) {
		err = storage_make_seed(p, o, &seed, w);
		if (!err)
			err = storage_make_disk(p, o, &disk, w);
	}
	if (!err)
		err = define_and_start(p, o, disk, seed, ret, w);
	free(disk);
	free(seed);
	return err;
}

int domain_create(struct place *p, const struct vm_order *o, struct vm *ret,
		  struct why *w)
{
	virDomainPtr dom;
	struct why ignored;
	char name[64];
	int err;

	vm_name(o->service, o->index, name);
	err = find_ours(p, name, &dom, ret, w);
	if (err)
		return err;
	err = check_order(p, o, w);
	if (!dom && !err)
		err = check_renamed(p, name, w);
	if (dom && !err) {
		if (ret->state == VM_RUNNING && fits(ret, o)) {
			virDomainFree(dom);
			return 0;
		}
		err = remove_ours(p, dom, ret, w);
	}
	if (dom)
		virDomainFree(dom);
	if (err)
		return err;
	err = make(p, o, ret, w);
	if (err)
		(void)domain_remove(p, name, &ignored);
	return err;
}

int domain_start(struct place *p, const char *name, struct vm *ret,
		 struct why *w)
{
	virDomainPtr dom;
	int err = find_ours(p, name, &dom, ret, w);

	if (err)
		return err;
	if (!dom)
		return why_set(w, -ENOENT, "%s: no such domain", name);
	if (ret->state == VM_PAUSED)
		err = virDomainResume(dom);
	else if (ret->state != VM_RUNNING)
		err = virDomainCreate(dom);
	if (err)
		err = why_libvirt(w, name);
	else
		err = read_vm(p, dom, ret, w);
	virDomainFree(dom);
	return err;
}

/*
 * A container shares the host's files, so its init must be asked by signal
 * and never by /run/initctl, which is the host's.
 */
int domain_shutdown(struct place *p, const char *name, struct why *w)
{
	unsigned int flags = p->kind == DOMAIN_LXC
				     ? VIR_DOMAIN_SHUTDOWN_SIGNAL
				     : VIR_DOMAIN_SHUTDOWN_DEFAULT;
	virDomainPtr dom;
	struct vm vm;
	int err = find_ours(p, name, &dom, &vm, w);

	if (err || !dom)
		return err;
	if (virDomainIsActive(dom) == 1 && virDomainShutdownFlags(dom, flags) &&
	    virDomainIsActive(dom) == 1)
		err = why_libvirt(w, name);
	virDomainFree(dom);
	return err;
}

static int by_name(const void *a, const void *b)
{
	const struct vm *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static void add_stray(struct vm_list *l, const struct vm *vm)
{
	struct stray *s = MEM_PUSH(l->strays, l->stray_count);

	*s = (struct stray){ 0 };
	snprintf(s->domain, sizeof(s->domain), "%s", vm->name);
	if (vm->service[0])
		vm_name(vm->service, vm->index, s->vm);
	else
		snprintf(s->vm, sizeof(s->vm), "%s", vm->name);
	memcpy(s->addresses, vm->addresses, sizeof(s->addresses));
	/* One whose metadata was taken away has its MAC yet. */
	if (!vm->service[0] && vm->mac[0] == 0x52 && vm->mac[1] == 0x54) {
		s->addresses[0].family = AF_INET;
		memcpy(s->addresses[0].bytes, vm->mac + 2, 4);
	}
}

int domain_list(struct place *p, struct vm_list *ret, struct why *w)
{
	virDomainPtr *doms = NULL;
	struct why ignored;
	struct vm vm;
	int count;

	if (!p->conn)
		return why_set(w, -ENOTCONN, "not connected");
	count = virConnectListAllDomains(p->conn, &doms, 0);
	if (count < 0)
		return why_libvirt(w, "list of domains");
	for (int i = 0; i < count; i++) {
		int err;

		vm = (struct vm){ 0 };
		err = read_vm(p, doms[i], &vm, &ignored);
		/* One that has just gone is in neither list. */
		if (!err)
			*MEM_PUSH(ret->items, ret->count) = vm;
		else if (err == -ENOENT && vm.name[0])
			add_stray(ret, &vm);
		virDomainFree(doms[i]);
	}
	free(doms);
	if (ret->count)
		qsort(ret->items, ret->count, sizeof(*ret->items), by_name);
	return 0;
}

static struct cpu_reading *add_reading(struct cpu_readings *r, virDomainPtr dom,
				       uint64_t cpu_ns, uint64_t when)
{
	struct cpu_reading *c = MEM_PUSH(r->items, r->count);

	snprintf(c->name, sizeof(c->name), "%s", virDomainGetName(dom));
	c->cpu_ns = cpu_ns;
	c->when = when;
	return c;
}

/* One call a domain, for drivers that can't answer for all. */
static int cpu_one_by_one(struct place *p, struct cpu_readings *ret,
			  struct why *w)
{
	virDomainPtr *doms = NULL;
	virDomainInfo info;
	int count = virConnectListAllDomains(p->conn, &doms,
					     VIR_CONNECT_LIST_DOMAINS_ACTIVE);

	if (count < 0)
		return why_libvirt(w, "list of domains");
	for (int i = 0; i < count; i++) {
		if (!virDomainGetInfo(doms[i], &info))
			add_reading(ret, doms[i], info.cpuTime, clock_ns());
		virDomainFree(doms[i]);
	}
	free(doms);
	return 0;
}

int domain_cpu(struct place *p, struct cpu_readings *ret, struct why *w)
{
	virDomainStatsRecordPtr *records = NULL;
	unsigned long long ns;
	int count;

	if (!p->conn)
		return why_set(w, -ENOTCONN, "not connected");
	if (p->kind == DOMAIN_LXC || p->kind == DOMAIN_TEST)
		return cpu_one_by_one(p, ret, w);
	count = virConnectGetAllDomainStats(
		p->conn, VIR_DOMAIN_STATS_CPU_TOTAL, &records,
		VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE |
			VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
	if (count < 0)
		return why_libvirt(w, "statistics");
	for (int i = 0; i < count; i++)
		if (virTypedParamsGetULLong(records[i]->params,
					    records[i]->nparams, "cpu.time",
					    &ns) == 1)
			add_reading(ret, records[i]->dom, ns, clock_ns());
	virDomainStatsRecordListFree(records);
	return 0;
}
