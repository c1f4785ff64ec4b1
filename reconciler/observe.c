/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is, into the plain values that the planner reads: the kernel's tables,
 * this host's network, the VMs, and the backends of every service.
 *
 * A backend is known from up to three places: the file declares it, a VM
 * runs it, or the kernel's owners map remembers it.  One that only the kernel
 * remembers is on its way out: a fixed one drains, a VM is gone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pipeline.h"

/*
 * An unresolved next hop is asked for so often and no more: with a thousand of
 * them each answer makes a pass, and each pass would ask all the others again.
 */
#define ASK_EVERY (100 * NS_PER_MS)

struct gather {
	struct reconciler *r;
	const struct spec *spec;
	struct arena *arena;
	struct world *w;
	bool looks; /* only: probes and drains stay as they are */
	bool everywhere; /* look for programs left on any interface */
	const struct datapath_view *view; /* NULL: nothing loaded */
	/* Owners by service id, but for those in quarantine: service S's are
	 * by_service[first_owner[S]] up to by_service[first_owner[S + 1] - 1]. */
	struct world_owner **by_service;
	uint32_t *first_owner;
	size_t owner_room;
	bool *owner_used; /* by index in w->kernel.owners */
	int last_added; /* of w->interfaces: most backends are behind one */
	struct strmap names; /* of services, to struct world_service */
	/* The same: the file's as they stand there, sorted, then others. */
	struct world_service **order;
	size_t order_count;
};

/*
 * For `least` items, and for twice as many when there turn out to be more;
 * most often it is known how many there are.
 */
static void *make_room(struct gather *g, const void *items, size_t count,
		       size_t least, size_t size, size_t *room)
{
	size_t more = count * 2 > least ? count * 2 : least;
	void *p = arena_alloc(g->arena, (more + 1) * size);

	if (count)
		memcpy(p, items, count * size);
	*room = more + 1;
	return p;
}

static void add_owner(void *arg, uint32_t id, const struct xlb_owner *owner)
{
	struct gather *g = arg;
	struct world_kernel *k = &g->w->kernel;
	struct world_owner *o;

	if (k->owner_count == g->owner_room)
		k->owners = make_room(g, k->owners, k->owner_count,
				      datapath_owner_count(g->r->dp),
				      sizeof(*o), &g->owner_room);
	o = (struct world_owner *)&k->owners[k->owner_count++];
	o->id = id;
	o->owner = *owner;
	o->owner.name[XLB_NAME_MAX - 1] = '\0';
}

static int by_id(const void *a, const void *b)
{
	const struct world_owner *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static bool counts(const struct world_owner *o)
{
	return o->owner.kind != XLB_OWNER_QUARANTINE &&
	       o->owner.service < XLB_SERVICES;
}

static void group_owners(struct gather *g)
{
	const struct world_kernel *k = &g->w->kernel;
	struct world_owner *owners = (struct world_owner *)k->owners;
	uint32_t *first =
		arena_alloc(g->arena, (XLB_SERVICES + 2) * sizeof(*first));

	g->owner_used = arena_alloc(g->arena, k->owner_count + 1);
	g->by_service = arena_alloc(g->arena, (k->owner_count + 1) *
						      sizeof(*g->by_service));
	for (size_t i = 0; i < k->owner_count; i++)
		if (counts(&owners[i]))
			first[owners[i].owner.service + 2]++;
	for (size_t i = 2; i < XLB_SERVICES + 2; i++)
		first[i] += first[i - 1];
	/* Each moves its start to where the next one's is. */
	for (size_t i = 0; i < k->owner_count; i++)
		if (counts(&owners[i]))
			g->by_service[first[owners[i].owner.service + 1]++] =
				&owners[i];
	g->first_owner = first;
}

/* It follows this host's addresses, so that only we know who wrote it last. */
static void watch_direct(struct gather *g)
{
	uint64_t sum = direct_sum(g->w->directs, g->w->direct_count);

	g->w->kernel.direct_edited =
		g->r->direct_sum && g->r->direct_sum != sum;
	if (!g->looks)
		g->r->direct_sum = sum;
}

static void gather_kernel(struct gather *g)
{
	struct world_kernel *k = &g->w->kernel;
	int err;

	if (!g->r->dp)
		return;
	g->view = datapath_view(g->r->dp);
	k->loaded = true;
	k->vips = g->view->vips +
		  (size_t)(g->view->control->vip_copy & 1) * XLB_VIP_LINES;
	k->backends = g->view->backends;
	k->slots = g->view->slots;
	k->slot_count = g->view->slot_count;
	k->services = g->view->services;
	k->features = g->view->control->features;
	k->tick = g->view->control->tick;
	k->now = g->view->control->now;
	k->flow_seed = g->view->control->flow_seed;
	k->source4 = g->view->control->source4;
	memcpy(k->source6, g->view->control->source6, sizeof(k->source6));
	if (g->view->control->next_backend)
		g->w->next_id = g->view->control->next_backend;
	if (g->r->verify) {
		datapath_reread(g->r->dp);
		k->unpinned = datapath_unpinned(g->r->dp);
		k->vips_damaged = !datapath_vips_whole(g->r->dp);
	}
	err = datapath_owners(g->r->dp, add_owner, g);
	if (err)
		log_error("owners", "err=%d", err);
	group_owners(g);
	err = datapath_sets(g->r->dp, &g->w->replies, &g->w->reply_count,
			    &g->w->directs, &g->w->direct_count);
	if (err)
		log_error("replies", "err=%d", err);
	else
		watch_direct(g);
}

static struct world_service *service_of(struct gather *g, const char *name)
{
	struct world_service *s = strmap_get(&g->names, name);

	if (s)
		return s;
	s = arena_alloc(g->arena, sizeof(*s));
	s->name = arena_dup(g->arena, name);
	strmap_put(&g->names, s->name, s);
	*ARENA_PUSH(g->arena, g->order, g->order_count) = s;
	return s;
}

static void gather_service_names(struct gather *g)
{
	struct vm_run *v;
	size_t i = 0;

	for (size_t k = 0; k < g->spec->service_count; k++)
		service_of(g, g->spec->services[k].name)->spec =
			&g->spec->services[k];
	for (uint32_t id = 1; g->view && id < XLB_SERVICES; id++)
		if (g->view->services[id].name[0])
			service_of(g, g->view->services[id].name)->id = id;
	while ((v = strmap_next(&g->r->vms, &i)))
		service_of(g, v->service);
}

/* ---- paths ---- */

static bool vm_path(const struct gather *g, const struct vm_run *v,
		    struct world_path *ret)
{
	const struct net_link *port, *master;

	if (!v->observed || !v->seen.port[0])
		return false;
	port = net_link_by_name(g->r->net, v->seen.port);
	if (!port || !port->up)
		return false;
	master = port->master ? net_link(g->r->net, port->master) : port;
	if (!master)
		return false;
	ret->known = true;
	ret->on_link = true;
	ret->stack = !port->xdp_target;
	ret->route_ifindex = master->ifindex;
	ret->port_ifindex = port->ifindex;
	memcpy(ret->dst_mac, v->seen.mac, 6);
	memcpy(ret->src_mac, master->mac, 6);
	ret->mtu = (uint16_t)(port->mtu > 65535 ? 65535 : port->mtu);
	return true;
}

static void ask_for(const struct gather *g, const struct ip *a,
		    uint64_t *asked_at)
{
	if (g->looks || g->r->read_only || g->w->now - *asked_at < ASK_EVERY)
		return;
	*asked_at = g->w->now;
	net_resolve(g->r->net, a);
}

/* The file knows better than nobody. */
static void declared_mac(const struct gather *g,
			 const struct backend_spec *fixed,
			 struct net_path *path)
{
	const struct net_link *port;

	if (!path->port_ifindex)
		path->port_ifindex = path->route_ifindex;
	port = net_link(g->r->net, path->port_ifindex);
	if (!port)
		return;
	memcpy(path->dst_mac, fixed->mac, 6);
	path->stack = !port->xdp_target;
	path->known = true;
}

static void host_path(const struct gather *g, const struct ip *a,
		      const struct backend_spec *fixed, uint64_t *asked_at,
		      struct world_path *ret)
{
	struct net_path path;

	if (net_path(g->r->net, a, &path))
		return;
	ret->route_ifindex = path.route_ifindex;
	if (!path.known && fixed && fixed->has_mac)
		declared_mac(g, fixed, &path);
	if (!path.known)
		ask_for(g, a, asked_at);
	if (!path.known)
		return;
	ret->known = true;
	ret->on_link = path.on_link;
	ret->stack = path.stack;
	ret->port_ifindex = path.port_ifindex;
	memcpy(ret->dst_mac, path.dst_mac, 6);
	memcpy(ret->src_mac, path.src_mac, 6);
	ret->mtu = path.mtu;
	ret->vlan = path.vlan;
}

static void gather_paths(struct gather *g, struct world_member *m,
			 struct member_run *run, const struct vm_run *v)
{
	for (int f = 0; f < 2; f++) {
		if (!m->addresses[f].family)
			continue;
		if (g->w->verify && !g->looks)
			net_keep(g->r->net, &m->addresses[f]);
		if (!v || !vm_path(g, v, &m->paths[f]))
			host_path(g, &m->addresses[f], m->fixed,
				  &run->asked_at[f], &m->paths[f]);
	}
}

/* ---- members ---- */

static bool line_is_of(const struct xlb_backend *line, const struct ip a[2])
{
	return line->addr4 == a[0].words[0] &&
	       !memcmp(line->addr6, a[1].bytes, 16);
}

static uint32_t owner_id(struct gather *g, const struct world_service *s,
			 const char *name, const struct ip addresses[2])
{
	if (!s->id || !g->first_owner)
		return 0;
	for (size_t i = g->first_owner[s->id]; i < g->first_owner[s->id + 1];
	     i++) {
		const struct world_owner *o = g->by_service[i];

		/* The cheaper of the two first: most are others. */
		if (!line_is_of(&g->view->backends[o->id], addresses) ||
		    strcmp(o->owner.name, name) != 0)
			continue;
		g->owner_used[o - g->w->kernel.owners] = true;
		return o->id;
	}
	return 0;
}

static bool is_owned(const struct gather *g, uint32_t id)
{
	struct world_owner key = { .id = id };

	return g->w->kernel.owner_count &&
	       bsearch(&key, g->w->kernel.owners, g->w->kernel.owner_count,
		       sizeof(key), by_id);
}

/*
 * Slots that name a line with these addresses, while somebody took away the
 * note of whose it is: with another id its connections would move.
 */
static uint32_t disowned_id(const struct gather *g, uint32_t service,
			    const struct ip addresses[2])
{
	const struct xlb_service *k = &g->view->services[service];
	uint32_t last = 0;

	if (k->slot_log2 > 28 || k->slot_base > g->view->slot_count ||
	    1u << k->slot_log2 > g->view->slot_count - k->slot_base)
		return 0;
	for (uint32_t i = 0; i < 1u << k->slot_log2; i++) {
		uint32_t id = XLB_SLOT_CUR(g->view->slots[k->slot_base + i]);

		if (id == last)
			continue;
		last = id;
		if (id && line_is_of(&g->view->backends[id], addresses) &&
		    !is_owned(g, id))
			return id;
	}
	return 0;
}

static uint32_t member_id(struct gather *g, const struct world_service *s,
			  const struct world_member *m)
{
	uint32_t id = owner_id(g, s, m->name, m->addresses);

	if (!id && s->id && g->view && g->w->verify)
		id = disowned_id(g, s->id, m->addresses);
	return id;
}

static bool operator_drains(const struct reconciler *r, const char *service,
			    const char *name)
{
	size_t len = strlen(service);

	for (size_t i = 0; i < r->override_count; i++) {
		const char *key = r->overrides[i].key;

		if (!strcmp(r->overrides[i].kind, "drain") &&
		    !strncmp(key, service, len) && key[len] == '/' &&
		    !strcmp(key + len + 1, name))
			return true;
	}
	return false;
}

static bool is_run_of(const struct member_run *run,
		      const struct world_service *s,
		      const struct world_member *m)
{
	return !strcmp(run->name, m->name) && !strcmp(run->service, s->name) &&
	       !memcmp(run->addresses, m->addresses, sizeof(run->addresses));
}

static void forget_run(struct reconciler *r, const struct member_run *run)
{
	if (r->run_by_id && r->run_by_id[run->remembered_as] == run)
		r->run_by_id[run->remembered_as] = NULL;
}

/* Where the id leads to is remembered, so that no text needs to be made. */
static void remember_run(struct reconciler *r, struct member_run *run,
			 uint32_t id)
{
	if (!id || id >= XLB_BACKENDS)
		return;
	if (!r->run_by_id)
		r->run_by_id = mem_array(XLB_BACKENDS, sizeof(*r->run_by_id));
	forget_run(r, run);
	r->run_by_id[id] = run;
	run->remembered_as = id;
}

static struct member_run *new_member_run(struct gather *g, char *key,
					 const struct world_service *s,
					 const struct world_member *m)
{
	struct member_run *run = mem_alloc(sizeof(*run));

	run->key = key;
	run->service = mem_dup(s->name);
	run->name = mem_dup(m->name);
	memcpy(run->addresses, m->addresses, sizeof(run->addresses));
	run->r = g->r;
	strmap_put(&g->r->members, run->key, run);
	return run;
}

static struct member_run *member_run_get(struct gather *g,
					 const struct world_service *s,
					 const struct world_member *m)
{
	char a[IP_STRLEN], b[IP_STRLEN];
	struct member_run *run = NULL;
	char *key;

	if (g->r->run_by_id && m->id && m->id < XLB_BACKENDS)
		run = g->r->run_by_id[m->id];
	if (run && is_run_of(run, s, m))
		return run;
	key = mem_printf(m->twin ? "%s/%s/%s/%s#%u" : "%s/%s/%s/%s", s->name,
			 m->name, ip_format(&m->addresses[0], a),
			 ip_format(&m->addresses[1], b), m->id);
	run = strmap_get(&g->r->members, key);
	if (run)
		free(key);
	else
		run = new_member_run(g, key, s, m);
	remember_run(g->r, run, m->id);
	return run;
}

/* Since when it leaves, and whether it has drained. */
static void update_drain(struct gather *g, const struct world_service *s,
			 struct world_member *m, struct member_run *run)
{
	uint64_t now = g->w->now, packets;

	if (g->looks) {
		m->finished = m->leaving && (run->leaving ? run->finished
							  : !m->id || !s->spec);
		return;
	}
	if (!m->leaving) {
		run->leaving = run->finished = false;
		return;
	}
	if (!run->leaving) {
		run->leaving = true;
		run->finished = false;
		run->leaving_since = run->quiet_since = now;
	}
	if (!m->id || !s->spec || now - run->leaving_since >= s->spec->drain) {
		run->finished = true;
	} else if (s->spec->drain_quiet) {
		packets = datapath_count(g->r->dp, m->id).packets;
		if (packets != run->packets)
			run->quiet_since = now;
		run->packets = packets;
		if (now - run->quiet_since >= s->spec->drain_quiet &&
		    !datapath_remembered(g->r->dp, m->id))
			run->finished = true;
	}
	m->finished = run->finished;
}

/* name: as long-lived as the world. */
static struct world_member *
add_member(struct gather *g, struct world_service *s, const char *name)
{
	size_t least = s->spec ? service_fixed_count(s->spec) : 0;
	struct world_member *m;

	if (s->member_count == s->member_room)
		s->members = make_room(g, s->members, s->member_count, least,
				       sizeof(*m), &s->member_room);
	m = &s->members[s->member_count++];
	m->name = name;
	return m;
}

/* The first packet to a new guest need not wait for its ARP or ND answer. */
static void learn_neighbours(const struct gather *g,
			     const struct world_member *m,
			     const struct vm_run *v)
{
	for (int f = 0; f < 2; f++)
		if (m->addresses[f].family && m->paths[f].known)
			net_learn(g->r->net, &m->addresses[f], v->seen.mac);
}

static bool unprobed(const struct world_service *s)
{
	return s->spec && s->spec->health.type == HEALTH_RUNNING;
}

/*
 * No probe tells when a guest without one has booted, but its answer to ARP
 * or ND does.
 */
static bool has_answered(struct gather *g, const struct world_service *s,
			 const struct world_member *m, struct member_run *run)
{
	if (m->id || !unprobed(s))
		return true;
	for (int f = 0; f < 2; f++) {
		struct world_path path = { 0 };

		if (m->addresses[f].family)
			host_path(g, &m->addresses[f], NULL, &run->asked_at[f],
				  &path);
		if (m->addresses[f].family && !path.known)
			return false;
	}
	return true;
}

static void finish_member(struct gather *g, struct world_service *s,
			  struct world_member *m, const struct vm_run *v,
			  bool alive)
{
	struct member_run *run = member_run_get(g, s, m);

	run->used |= !g->looks;
	run->id = m->id;
	run->vm = v != NULL;
	if (alive && (m->fixed || v))
		gather_paths(g, m, run, v);
	if (alive && v && !run->was_alive && !unprobed(s) && !g->looks)
		learn_neighbours(g, m, v);
	if (alive && v && !has_answered(g, s, m, run)) {
		m->health = HEALTH_JOINING;
	} else if (m->sorry) {
		m->health = HEALTH_UP;
	} else {
		if (!g->looks)
			probing_update(run, s->spec, m, alive);
		m->health = alive ? probing_state(run) : HEALTH_DEAD;
	}
	if (!run->seen_since)
		run->seen_since = g->w->now;
	/* Until a probe that began at once could have timed out. */
	m->fresh = m->health == HEALTH_JOINING && s->spec &&
		   g->w->now - run->seen_since < s->spec->health.timeout;
	m->drained |= operator_drains(g->r, s->name, m->name);
	update_drain(g, s, m, run);
}

static void gather_fixed(struct gather *g, struct world_service *s)
{
	for (size_t i = 0; i < service_fixed_count(s->spec); i++) {
		const struct backend_spec *b = service_fixed(s->spec, i);
		struct world_member *m = add_member(g, s, b->name);

		m->fixed = b;
		m->sorry = b == &s->spec->sorry;
		memcpy(m->addresses, b->addresses, sizeof(m->addresses));
		m->port = b->port;
		m->weight = b->weight;
		m->drained = b->state == BACKEND_DRAIN;
		m->id = member_id(g, s, m);
		finish_member(g, s, m, NULL, true);
	}
}

static struct world_vm *add_vm(struct gather *g, struct vm_run *v)
{
	struct world_vm *vm = ARENA_PUSH(g->arena, g->w->vms, g->w->vm_count);

	vm->name = v->name;
	vm->service = v->service;
	vm->hypervisor = hypervisor_name(v->hypervisor);
	vm->index = v->index;
	vm->template_hash = v->seen.template_hash;
	vm->adopted = v->observed && v->seen.adopted;
	memcpy(vm->addresses, v->addresses, sizeof(vm->addresses));
	vm->phase = vm_run_phase(v);
	/* Nothing can be asked of a hypervisor that is away. */
	vm->busy =
		v->op != VM_OP_NONE || !hypervisor_is_connected(v->hypervisor);
	vm->backoff = v->retry_at > g->w->now;
	vm->why = v->why;
	return vm;
}

static void gather_vm(struct gather *g, struct vm_run *v)
{
	struct world_service *s = strmap_get(&g->names, v->service);
	struct world_member *m = add_member(g, s, arena_dup(g->arena, v->name));
	bool alive = v->observed && v->seen.state == VM_RUNNING && !v->failed &&
		     v->op != VM_OP_REMOVE && v->op != VM_OP_SHUTDOWN;
	struct member_run *run;
	struct world_vm *vm;

	memcpy(m->addresses, v->addresses, sizeof(m->addresses));
	m->weight =
		s->spec && s->spec->pool.template ? s->spec->pool.weight : 1;
	m->leaving = v->drains;
	m->id = member_id(g, s, m);
	finish_member(g, s, m, v, alive);
	run = member_run_get(g, s, m);
	if (alive && m->health == HEALTH_UP && !v->ready_since && !g->looks) {
		v->ready_since = g->w->now;
		if (!m->id) /* else it served before this process did */
			vm_run_note(v, "ready", "passed its first probe",
				    g->w->now - (v->op_since
							 ? v->op_since
							 : v->running_since));
	}
	vm = add_vm(g, v);
	m->vm = true;
	vm->drained = v->drains && run->finished;
}

/* The next hop as the kernel has it. */
static void line_path(const struct gather *g, const struct xlb_backend *line,
		      const __u64 words[2], struct world_path *ret)
{
	const uint8_t *b = (const uint8_t *)words;
	const struct net_link *port;
	uint32_t ifindex;

	memcpy(&ifindex, b + 12, 4);
	port = ifindex ? net_link(g->r->net, (int)ifindex) : NULL;
	if (!port)
		return;
	ret->known = true;
	ret->on_link = true;
	ret->stack = line->flags & XLB_BACKEND_STACK;
	ret->port_ifindex = (int)ifindex;
	ret->route_ifindex = port->master ? port->master : port->ifindex;
	memcpy(ret->dst_mac, b, 6);
	memcpy(ret->src_mac, b + 6, 6);
	ret->mtu = line->mtu;
	ret->vlan = line->vlan;
}

/*
 * Another id of the same backend: a process died before its service was whole,
 * twice.  What one of them does says nothing about the other.
 */
static bool has_twin(const struct gather *g, const struct world_owner *o)
{
	const struct xlb_backend *line = &g->view->backends[o->id];

	for (size_t i = g->first_owner[o->owner.service];
	     i < g->first_owner[o->owner.service + 1]; i++) {
		const struct world_owner *other = g->by_service[i];
		const struct xlb_backend *l = &g->view->backends[other->id];

		if (other != o && g->owner_used[other - g->w->kernel.owners] &&
		    !strcmp(other->owner.name, o->owner.name) &&
		    l->addr4 == line->addr4 &&
		    !memcmp(l->addr6, line->addr6, sizeof(l->addr6)))
			return true;
	}
	return false;
}

static void gather_ghost(struct gather *g, struct world_service *s,
			 const struct world_owner *o)
{
	const struct xlb_backend *line = &g->view->backends[o->id];
	bool fixed = o->owner.kind == XLB_OWNER_FIXED;
	bool unknown = !fixed && !hypervisors_read(g->r);
	struct world_member *m =
		add_member(g, s, arena_dup(g->arena, o->owner.name));

	m->id = o->id;
	m->twin = has_twin(g, o);
	m->leaving = !unknown;
	m->weight =
		s->spec && s->spec->pool.template ? s->spec->pool.weight : 1;
	m->addresses[0].family = line->addr4 ? AF_INET : 0;
	memcpy(m->addresses[0].bytes, &line->addr4, 4);
	m->addresses[1].family = line->sum6 ? AF_INET6 : 0;
	memcpy(m->addresses[1].bytes, line->addr6, 16);
	line_path(g, line, line->l2_v4, &m->paths[0]);
	line_path(g, line, line->l2_v6, &m->paths[1]);
	finish_member(g, s, m, NULL, fixed || unknown);
}

/*
 * Owners that nothing else claims: a fixed one is no longer declared and
 * drains, a VM is gone - once the hypervisors have been read; until then
 * what the kernel says of it holds.
 */
static void gather_ghosts(struct gather *g, struct world_service *s)
{
	if (!s->id || !g->first_owner)
		return;
	for (size_t i = g->first_owner[s->id]; i < g->first_owner[s->id + 1];
	     i++)
		if (!g->owner_used[g->by_service[i] - g->w->kernel.owners]) {
			gather_ghost(g, s, g->by_service[i]);
			g->owner_used[g->by_service[i] - g->w->kernel.owners] =
				true;
		}
}

static int by_member_name(const void *a, const void *b)
{
	const struct world_member *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : x->id < y->id ? -1 : x->id > y->id;
}

/* They mostly are in order. */
static void sort_members(struct world_service *s)
{
	for (size_t i = 1; i < s->member_count; i++) {
		if (by_member_name(&s->members[i - 1], &s->members[i]) <= 0)
			continue;
		qsort(s->members, s->member_count, sizeof(*s->members),
		      by_member_name);
		return;
	}
}

static int by_vm_name(const void *a, const void *b)
{
	return strcmp(((const struct world_vm *)a)->name,
		      ((const struct world_vm *)b)->name);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct world_service *)a)->name,
		      ((const struct world_service *)b)->name);
}

static void sort_services(struct world *w)
{
	for (size_t i = 1; i < w->service_count; i++) {
		if (by_name(&w->services[i - 1], &w->services[i]) <= 0)
			continue;
		qsort(w->services, w->service_count, sizeof(*w->services),
		      by_name);
		return;
	}
}

static void gather_services(struct gather *g)
{
	struct world *w = g->w;
	struct vm_run *v;
	size_t i = 0;

	for (size_t k = 0; k < g->order_count; k++) {
		if (g->order[k]->spec)
			gather_fixed(g, g->order[k]);
		if (g->r->prober)
			prober_turn(g->r->prober);
	}
	while ((v = strmap_next(&g->r->vms, &i)))
		gather_vm(g, v);
	w->services = arena_alloc(g->arena,
				  (g->order_count + 1) * sizeof(*w->services));
	for (size_t k = 0; k < g->order_count; k++) {
		gather_ghosts(g, g->order[k]);
		sort_members(g->order[k]);
		w->services[w->service_count++] = *g->order[k];
	}
	sort_services(w);
	if (g->w->vm_count)
		qsort(g->w->vms, g->w->vm_count, sizeof(*g->w->vms),
		      by_vm_name);
}

static void gather_strays(struct gather *g)
{
	for (size_t i = 0; i < g->r->hypervisor_count; i++) {
		const struct hypervisor *h = g->r->hypervisors[i];
		size_t count;
		const struct stray *s = hypervisor_strays(h, &count);

		for (size_t k = 0; k < count; k++) {
			struct world_stray *out = ARENA_PUSH(
				g->arena, g->w->strays, g->w->stray_count);

			out->domain = arena_dup(g->arena, s[k].domain);
			out->vm = arena_dup(g->arena, s[k].vm);
			out->hypervisor = hypervisor_name(h);
			memcpy(out->addresses, s[k].addresses,
			       sizeof(out->addresses));
		}
	}
}

struct service_run *service_run_get(struct reconciler *r, const char *name)
{
	struct service_run *s = strmap_get(&r->services, name);

	if (s)
		return s;
	s = mem_alloc(sizeof(*s));
	s->name = mem_dup(name);
	s->r = r;
	strmap_put(&r->services, s->name, s);
	return s;
}

static void gather_pools(struct gather *g)
{
	for (size_t i = 0; i < g->w->service_count; i++) {
		struct world_service *s = &g->w->services[i];
		const struct hypervisor *h;
		struct service_run *run;

		s->paused = s->spec && service_pauses(g->r, s->spec);
		s->unprotected = find_override(g->r, "unprotect", s->name);
		if (!s->spec || !s->spec->pool.template)
			continue;
		run = service_run_get(g->r, s->name);
		h = hypervisor_named(g->r, s->spec->pool.hypervisor->name);
		/* Another hypervisor may have been declared under its name. */
		s->pool.known = run->pool_known && h && hypervisor_is_read(h);
		s->pool.wanted = run->wanted;
		s->pool.allowed = pool_allowed(run, s->spec);
		s->pool.wanted_before =
			run->previews ? run->previewed : run->wanted;
		s->pool.view = run->view[0] ? run->view : NULL;
		s->pool.cause = run->cause[0] ? run->cause : NULL;
		s->pool.backoff_until =
			s->pool.known && hypervisor_is_connected(h)
				? run->backoff_until
				: UINT64_MAX;
	}
}

/* ---- the node ---- */

static void add_address(void *arg, const struct net_address *a)
{
	struct gather *g = arg;
	struct world_address *out =
		ARENA_PUSH(g->arena, g->w->addresses, g->w->address_count);

	*out = (struct world_address){ a->address, a->prefix, a->ifindex,
				       a->ours };
}

static bool forwards(const char *family, const char *name)
{
	char path[96], value[16];

	snprintf(path, sizeof(path), "net/%s/conf/%s/forwarding", family, name);
	return sysctl_read(path, value, sizeof(value)) == 0 && value[0] == '1';
}

static enum attachment attachment(enum attach_state s)
{
	switch (s) {
	case ATTACH_NONE:
		return ATTACHED_NOT;
	case ATTACH_OURS:
		return ATTACHED_OURS;
	case ATTACH_FOREIGN:
		return ATTACHED_FOREIGN;
	case ATTACH_STALE:
		return ATTACHED_STALE;
	}
	return ATTACHED_NOT;
}

static const struct interface_spec *uplink_spec(const struct gather *g,
						const char *name)
{
	for (size_t i = 0; i < g->spec->node.interface_count; i++)
		if (!strcmp(g->spec->node.interfaces[i].name, name))
			return &g->spec->node.interfaces[i];
	return NULL;
}

/* Elsewhere than on the uplinks a program of ours is a remnant. */
static void gather_hooks(struct gather *g, struct world_interface *in,
			 const struct net_link *l)
{
	const struct interface_spec *uplink = uplink_spec(g, in->name);

	/* At tc it takes a program of ours to be in anybody's way. */
	for (int h = 0; h < DATAPATH_HOOKS; h++)
		if ((uplink || g->everywhere) && (g->r->dp || h != DATAPATH_TC))
			in->hooks[h] = attachment(datapath_attached(
				g->r->dp, (enum datapath_hook)h, in->name,
				in->ifindex));
	in->native = l->xdp_native;
}

static void add_interface(struct gather *g, const char *name)
{
	const struct net_link *l = net_link_by_name(g->r->net, name);
	struct world_interface *in;

	for (size_t i = 0; i < g->w->interface_count; i++)
		if (!strcmp(g->w->interfaces[i].name, name))
			return;
	in = ARENA_PUSH(g->arena, g->w->interfaces, g->w->interface_count);
	in->name = arena_dup(g->arena, name);
	if (!l)
		return;
	in->ifindex = l->ifindex;
	in->forwards[0] = forwards("ipv4", name);
	in->forwards[1] = forwards("ipv6", name);
	gather_hooks(g, in, l);
	if (!g->r->dp)
		return;
	in->reply = attachment(datapath_reply_attached(g->r->dp, l->ifindex));
}

static void add_linked(void *arg, const char *ifname)
{
	add_interface(arg, ifname);
}

static void add_interface_index(struct gather *g, int ifindex)
{
	const struct net_link *l;

	if (!ifindex || ifindex == g->last_added)
		return;
	g->last_added = ifindex;
	l = net_link(g->r->net, ifindex);
	if (l)
		add_interface(g, l->name);
}

static void gather_sources(struct gather *g)
{
	const struct net_link *up =
		g->spec->node.interface_count
			? net_link_by_name(g->r->net,
					   g->spec->node.interfaces[0].name)
			: NULL;

	if (!up)
		return;
	net_source(g->r->net, up->ifindex, AF_INET, &g->w->sources[0]);
	net_source(g->r->net, up->ifindex, AF_INET6, &g->w->sources[1]);
}

static void gather_seed(struct gather *g)
{
	const char *path = g->spec->node.seed_file;
	int err = path ? identity_seed_file(path, &g->w->seed) : 0;

	if (err)
		g->w->seed_why = err == -ENODATA
					 ? "it is empty"
					 : arena_dup(g->arena, strerror(-err));
}

/* On a pass that verifies, every link is asked for programs left on it. */
static void add_any_with_reply(void *arg, const struct net_link *l)
{
	struct gather *g = arg;

	if (datapath_reply_attached(g->r->dp, l->ifindex) == ATTACH_OURS)
		add_interface(g, l->name);
}

static void gather_node(struct gather *g)
{
	net_addresses(g->r->net, add_address, g);
	gather_sources(g);
	gather_seed(g);
	g->w->forwards6_all = forwards("ipv6", "all");
	for (size_t i = 0; i < g->spec->node.interface_count; i++)
		add_interface(g, g->spec->node.interfaces[i].name);
	if (g->r->dp && g->everywhere)
		datapath_links(g->r->dp, add_linked, g);
	if (g->r->dp && g->r->verify)
		net_links(g->r->net, add_any_with_reply, g);
	for (size_t i = 0; i < g->w->service_count; i++) {
		const struct world_service *s = &g->w->services[i];

		for (size_t k = 0; k < s->member_count; k++) {
			add_interface_index(
				g, s->members[k].paths[0].route_ifindex);
			add_interface_index(
				g, s->members[k].paths[1].route_ifindex);
		}
	}
}

static void free_member(struct reconciler *r, struct member_run *m)
{
	strmap_remove(&r->members, m->key);
	forget_run(r, m);
	probing_stop(m);
	free(m->key);
	free(m->service);
	free(m->name);
	free(m);
}

static void sweep_members(struct reconciler *r)
{
	struct member_run *m;
	size_t i = 0;

	while ((m = strmap_next(&r->members, &i))) {
		if (!m->used)
			free_member(r, m);
		else
			m->used = false;
	}
}

static bool same_interfaces(const struct spec *a, const struct spec *b)
{
	if (a->node.interface_count != b->node.interface_count)
		return false;
	for (size_t i = 0; i < a->node.interface_count; i++)
		if (strcmp(a->node.interfaces[i].name,
			   b->node.interfaces[i].name) != 0)
			return false;
	return true;
}

/* All of them for one who only looks. */
static void choose_verified(struct gather *g)
{
	size_t from = g->looks ? 0 : g->r->verify_at;
	size_t most = g->looks ? SIZE_MAX : VERIFY_AT_ONCE;

	if (g->looks && !g->r->verify)
		return;
	for (size_t i = from; i < g->w->service_count && i - from < most; i++)
		g->w->services[i].verify = true;
}

static struct world *gather_all(struct gather *g)
{
	struct reconciler *r = g->r;

	g->everywhere =
		r->verify || !r->spec || !same_interfaces(r->spec, g->spec);

	g->w = arena_alloc(g->arena, sizeof(*g->w));
	g->w->now = clock_ns();
	g->w->settled = r->settled;
	g->w->accepted = g->spec == r->spec && (!r->read_only || r->settled);
	g->w->approved = r->approved;
	g->w->verify = r->verify;
	gather_kernel(g);
	gather_service_names(g);
	gather_services(g);
	gather_pools(g);
	gather_strays(g);
	guards_observe(r, g->spec, g->arena, g->w, g->looks);
	gather_node(g);
	choose_verified(g);
	strmap_release(&g->names);
	return g->w;
}

struct world *observe(struct reconciler *r, const struct spec *spec,
		      struct arena *arena)
{
	struct gather g = { .r = r, .spec = spec, .arena = arena };

	if (r->verify)
		r->verify_at = 0;
	gather_all(&g);
	sweep_members(r);
	return g.w;
}

struct world *look_closely(struct reconciler *r, const struct spec *spec,
			   struct arena *arena, bool closely)
{
	bool verify = r->verify;
	struct world *w;

	r->verify |= closely;
	w = observe_as_if(r, spec, arena);
	r->verify = verify;
	return w;
}

struct world *observe_as_if(struct reconciler *r, const struct spec *spec,
			    struct arena *arena)
{
	struct gather g = {
		.r = r, .spec = spec, .arena = arena, .looks = true
	};

	return gather_all(&g);
}
