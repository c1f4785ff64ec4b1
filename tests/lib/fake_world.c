/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/fake_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAP_BASE 100

/* ---- making, copying ---- */

static void add_address(struct fake *f, const char *text, int prefix,
			int ifindex, bool ours)
{
	struct world_address *a = &f->addresses[f->address_count++];

	*a = (struct world_address){ .prefix = prefix,
				     .ifindex = ifindex,
				     .ours = ours };
	ip_parse(text, &a->address);
}

void fake_set_slots(struct fake *f, uint32_t count)
{
	free(f->slots);
	f->slots = mem_array(count, sizeof(*f->slots));
	f->slot_count = count;
}

struct fake *fake_new(void)
{
	struct fake *f = mem_alloc(sizeof(*f));

	fake_set_slots(f, FAKE_SLOTS);
	f->now = 1000000000;
	f->next_id = 1;
	f->verify = true;
	f->interface_count = 2;
	f->interfaces[0] = (struct fake_interface){ .name = "eth0",
						    .ifindex = 2,
						    .native = true };
	f->interfaces[1] =
		(struct fake_interface){ .name = "br0", .ifindex = 3 };
	add_address(f, "198.51.100.2", 24, 2, false);
	add_address(f, "10.0.0.1", 8, 3, false);
	add_address(f, "fd00::1", 16, 3, false);
	return f;
}

static struct fake_run *run_copy(const struct fake_run *run)
{
	struct fake_run *copy = mem_alloc(sizeof(*copy));

	*copy = *run;
	copy->key = mem_dup(run->key);
	return copy;
}

static void *copy_of(const void *data, size_t size)
{
	void *copy = mem_alloc(size + 1);

	if (size)
		memcpy(copy, data, size);
	return copy;
}

struct fake *fake_copy(const struct fake *f)
{
	struct fake *copy = copy_of(f, sizeof(*f));
	struct fake_run *run;
	size_t i = 0;

	copy->slots = copy_of(f->slots, f->slot_count * sizeof(*f->slots));
	copy->replies =
		copy_of(f->replies, f->reply_count * sizeof(*f->replies));
	copy->directs =
		copy_of(f->directs, f->direct_count * sizeof(*f->directs));
	copy->ledger.items = NULL;
	copy->ledger.count = 0;
	for (size_t k = 0; k < f->ledger.count; k++)
		ledger_add(&copy->ledger, &f->ledger.items[k], INT64_MAX);
	copy->runs = (struct strmap){ 0 };
	while ((run = strmap_next(&f->runs, &i))) {
		run = run_copy(run);
		strmap_put(&copy->runs, run->key, run);
	}
	return copy;
}

static void forget_run(struct fake *f, struct fake_run *run)
{
	strmap_remove(&f->runs, run->key);
	free(run->key);
	free(run);
}

static void forget_runs(struct fake *f)
{
	struct fake_run *run;
	size_t i = 0;

	while ((run = strmap_next(&f->runs, &i)))
		forget_run(f, run);
	strmap_release(&f->runs);
}

void fake_free(struct fake *f)
{
	forget_runs(f);
	ledger_release(&f->ledger);
	free(f->slots);
	free(f->replies);
	free(f->directs);
	free(f);
}

/* ---- what tests say ---- */

void fake_want(struct fake *f, const char *service, uint32_t count)
{
	size_t i = 0;

	while (i < f->wanted_count &&
	       strcmp(f->wanted[i].service, service) != 0)
		i++;
	if (i == f->wanted_count)
		f->wanted_count++;
	snprintf(f->wanted[i].service, sizeof(f->wanted[i].service), "%s",
		 service);
	f->wanted[i].count = count;
}

static int truth_of(const struct fake *f, const struct ip *a)
{
	for (size_t i = 0; i < f->truth_count; i++)
		if (ip_equal(&f->truths[i].address, a))
			return (int)f->truths[i].how;
	return 0;
}

void fake_probe_ends(struct fake *f, const struct ip *a, int how)
{
	size_t i = 0;

	while (i < f->truth_count && !ip_equal(&f->truths[i].address, a))
		i++;
	if (i == f->truth_count)
		f->truths[f->truth_count++].address = *a;
	f->truths[i].how = (enum fake_truth)how;
}

struct fake_vm *fake_vm(struct fake *f, const char *name)
{
	for (size_t i = 0; i < f->vm_count; i++)
		if (!strcmp(f->vms[i].name, name))
			return &f->vms[i];
	return NULL;
}

/* ---- observing: see observe.c ---- */

struct gather {
	struct fake *f;
	const struct spec *spec;
	struct arena *arena;
	struct world *w;
	bool used[XLB_BACKENDS]; /* an owner that something claims */
};

static struct world_service *service_of(struct gather *g, const char *name)
{
	struct world_service *s;

	for (size_t i = 0; i < g->w->service_count; i++)
		if (!strcmp(g->w->services[i].name, name))
			return &g->w->services[i];
	s = ARENA_PUSH(g->arena, g->w->services, g->w->service_count);
	s->name = arena_dup(g->arena, name);
	return s;
}

static void gather_kernel(struct gather *g)
{
	struct world_kernel *k = &g->w->kernel;
	struct world_owner *owners = NULL;

	if (!g->f->loaded)
		return;
	k->loaded = true;
	k->vips = g->f->vips;
	k->backends = g->f->backends;
	k->slots = g->f->slots;
	k->slot_count = g->f->slot_count;
	k->services = g->f->services;
	k->features = g->f->features;
	k->unpinned = g->f->verify ? g->f->unpinned : 0;
	k->tick = g->f->tick;
	k->source4 = g->f->sources[0].words[0];
	memcpy(k->source6, g->f->sources[1].words, sizeof(k->source6));
	for (uint32_t id = 0; id < XLB_BACKENDS; id++)
		if (g->f->owners[id].name[0])
			*ARENA_PUSH(g->arena, owners, k->owner_count) =
				(struct world_owner){ id, g->f->owners[id] };
	k->owners = owners;
	g->w->replies = g->f->replies;
	g->w->reply_count = g->f->reply_count;
	g->w->directs = g->f->directs;
	g->w->direct_count = g->f->direct_count;
}

static void gather_names(struct gather *g)
{
	for (size_t i = 0; i < g->spec->service_count; i++)
		service_of(g, g->spec->services[i].name);
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (g->f->services[id].name[0])
			service_of(g, g->f->services[id].name)->id = id;
	for (size_t i = 0; i < g->f->vm_count; i++)
		service_of(g, g->f->vms[i].service);
	for (size_t i = 0; i < g->w->service_count; i++)
		g->w->services[i].spec =
			spec_find_service(g->spec, g->w->services[i].name);
}

static bool unresolved(const struct fake *f, const struct ip *a)
{
	for (size_t i = 0; i < f->unresolved_count; i++)
		if (ip_equal(&f->unresolved[i], a))
			return true;
	return false;
}

static void gather_path(struct gather *g, const struct ip *a,
			struct world_path *path)
{
	uint8_t last = a->bytes[a->family == AF_INET ? 3 : 15];

	path->route_ifindex = 3;
	if (unresolved(g->f, a))
		return;
	path->known = path->on_link = true;
	path->port_ifindex = TAP_BASE + last;
	memcpy(path->dst_mac, "\x52\x54\x00\x00\x00", 5);
	path->dst_mac[5] = last;
	memcpy(path->src_mac, "\x02\x00\x00\x00\x00\x03", 6);
	path->mtu = 1500;
}

/* What is in quarantine is nobody's. */
static bool is_owned(const struct xlb_owner *o)
{
	return o->name[0] && o->kind != XLB_OWNER_QUARANTINE;
}

static uint32_t claim_owner(struct gather *g, const struct world_service *s,
			    const struct world_member *m)
{
	for (uint32_t id = 1; s->id && id < XLB_BACKENDS; id++) {
		const struct xlb_owner *o = &g->f->owners[id];
		const struct xlb_backend *line = &g->f->backends[id];

		if (!is_owned(o) || o->service != s->id || g->used[id] ||
		    strcmp(o->name, m->name) != 0 ||
		    memcmp(&line->addr4, m->addresses[0].bytes, 4) != 0 ||
		    memcmp(line->addr6, m->addresses[1].bytes, 16) != 0)
			continue;
		g->used[id] = true;
		return id;
	}
	return 0;
}

/* See disowned_id() in observe.c. */
static uint32_t disowned_id(const struct gather *g,
			    const struct world_service *s,
			    const struct world_member *m)
{
	const struct xlb_service *k = &g->f->services[s->id];

	for (uint32_t i = 0; g->f->verify && s->id && i < 1u << k->slot_log2;
	     i++) {
		uint32_t id = XLB_SLOT_CUR(g->f->slots[k->slot_base + i]);
		const struct xlb_backend *line = &g->f->backends[id];

		if (id && !g->f->owners[id].name[0] &&
		    !memcmp(&line->addr4, m->addresses[0].bytes, 4) &&
		    !memcmp(line->addr6, m->addresses[1].bytes, 16))
			return id;
	}
	return 0;
}

static struct fake_run *run_of(struct fake *f, const struct world_service *s,
			       const struct world_member *m)
{
	char a[IP_STRLEN], b[IP_STRLEN];
	char *key =
		mem_printf("%s/%s/%s/%s#%u", s->name, m->name,
			   ip_format(&m->addresses[0], a),
			   ip_format(&m->addresses[1], b), m->twin ? m->id : 0);
	struct fake_run *run = strmap_get(&f->runs, key);

	if (run) {
		free(key);
		return run;
	}
	run = mem_alloc(sizeof(*run));
	run->key = key;
	run->address = m->addresses[m->addresses[0].family ? 0 : 1];
	run->health = m->id ? HEALTH_UP : HEALTH_JOINING;
	strmap_put(&f->runs, run->key, run);
	return run;
}

static bool operator_drains(const struct fake *f, const char *service,
			    const char *name)
{
	char key[160];

	snprintf(key, sizeof(key), "%s/%s", service, name);
	for (size_t i = 0; i < f->drain_count; i++)
		if (!strcmp(f->drains[i], key))
			return true;
	return false;
}

static struct fake_run *finish_member(struct gather *g, struct world_service *s,
				      struct world_member *m, bool alive)
{
	struct fake_run *run = run_of(g->f, s, m);

	run->used = true;
	run->dead = !alive;
	if (!alive)
		run->health = HEALTH_JOINING;
	for (int i = 0; alive && i < 2; i++)
		if (m->addresses[i].family)
			gather_path(g, &m->addresses[i], &m->paths[i]);
	m->health = m->sorry ? HEALTH_UP : alive ? run->health : HEALTH_DEAD;
	m->fresh = m->health == HEALTH_JOINING && !run->tried;
	m->drained |= operator_drains(g->f, s->name, m->name);
	if (!m->leaving)
		run->leaving = run->finished = false;
	else if (!run->leaving)
		run->age = 0;
	run->leaving = m->leaving;
	if (m->leaving && (!m->id || !s->spec))
		run->finished = true;
	m->finished = run->finished;
	return run;
}

static void gather_fixed(struct gather *g, struct world_service *s)
{
	for (size_t i = 0; s->spec && i < service_fixed_count(s->spec); i++) {
		const struct backend_spec *b = service_fixed(s->spec, i);
		struct world_member *m =
			ARENA_PUSH(g->arena, s->members, s->member_count);

		m->name = b->name;
		m->fixed = b;
		m->sorry = b == &s->spec->sorry;
		memcpy(m->addresses, b->addresses, sizeof(m->addresses));
		m->port = b->port;
		m->weight = b->weight;
		m->drained = b->state == BACKEND_DRAIN;
		m->id = claim_owner(g, s, m);
		if (!m->id)
			m->id = disowned_id(g, s, m);
		finish_member(g, s, m, true);
	}
}

static enum vm_phase phase_of(const struct fake_vm *v)
{
	if (v->op == FAKE_REMOVE)
		return PHASE_STOPPING;
	if (v->op != FAKE_IDLE)
		return PHASE_CREATING;
	if (v->failed)
		return PHASE_FAILED;
	if (!v->running)
		return v->was_running ? PHASE_FAILED : PHASE_OFF;
	if (v->drains)
		return PHASE_DRAINING;
	return v->ready ? PHASE_READY : PHASE_BOOTING;
}

static void gather_vm(struct gather *g, struct fake_vm *v)
{
	struct world_service *s = service_of(g, v->service);
	struct world_member *m =
		ARENA_PUSH(g->arena, s->members, s->member_count);
	bool alive = v->defined && v->running && !v->failed &&
		     v->op != FAKE_REMOVE && v->op != FAKE_REPLACE;
	struct fake_run *run;
	struct world_vm *vm;

	m->name = arena_dup(g->arena, v->name);
	m->vm = true;
	memcpy(m->addresses, v->addresses, sizeof(m->addresses));
	m->weight =
		s->spec && s->spec->pool.template ? s->spec->pool.weight : 1;
	m->leaving = v->drains;
	m->id = claim_owner(g, s, m);
	if (!m->id)
		m->id = disowned_id(g, s, m);
	run = finish_member(g, s, m, alive);
	if (alive && m->health == HEALTH_UP)
		v->ready = true;
	vm = ARENA_PUSH(g->arena, g->w->vms, g->w->vm_count);
	vm->name = m->name;
	vm->service = s->name;
	vm->hypervisor = arena_dup(g->arena, v->hypervisor);
	vm->index = v->index;
	vm->template_hash = "";
	memcpy(vm->addresses, v->addresses, sizeof(vm->addresses));
	vm->phase = phase_of(v);
	vm->busy = v->op != FAKE_IDLE;
	vm->why = v->why;
	vm->drained = v->drains && run->finished;
	vm->may_go = ledger_may_go(&g->f->ledger, v->name);
}

static bool has_twin(const struct gather *g, uint32_t id)
{
	const struct xlb_owner *o = &g->f->owners[id];
	const struct xlb_backend *line = &g->f->backends[id];

	for (uint32_t other = 1; other < XLB_BACKENDS; other++)
		if (other != id && g->used[other] &&
		    g->f->owners[other].service == o->service &&
		    !strcmp(g->f->owners[other].name, o->name) &&
		    g->f->backends[other].addr4 == line->addr4 &&
		    !memcmp(g->f->backends[other].addr6, line->addr6, 16))
			return true;
	return false;
}

static void gather_ghosts(struct gather *g, struct world_service *s)
{
	for (uint32_t id = 1; s->id && id < XLB_BACKENDS; id++) {
		const struct xlb_owner *o = &g->f->owners[id];
		const struct xlb_backend *line = &g->f->backends[id];
		struct world_member *m;

		if (!is_owned(o) || o->service != s->id || g->used[id])
			continue;
		m = ARENA_PUSH(g->arena, s->members, s->member_count);
		m->name = arena_dup(g->arena, o->name);
		m->id = id;
		m->twin = has_twin(g, id);
		g->used[id] = true;
		m->leaving = true;
		m->weight = o->weight;
		m->port = ntohs(line->port);
		m->addresses[0].family = line->addr4 ? AF_INET : 0;
		memcpy(m->addresses[0].bytes, &line->addr4, 4);
		m->addresses[1].family = line->sum6 ? AF_INET6 : 0;
		memcpy(m->addresses[1].bytes, line->addr6, 16);
		finish_member(g, s, m, o->kind == XLB_OWNER_FIXED);
	}
}

static int by_member(const void *a, const void *b)
{
	const struct world_member *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : x->id < y->id ? -1 : x->id > y->id;
}

static int by_vm(const void *a, const void *b)
{
	return strcmp(((const struct world_vm *)a)->name,
		      ((const struct world_vm *)b)->name);
}

static int by_service(const void *a, const void *b)
{
	return strcmp(((const struct world_service *)a)->name,
		      ((const struct world_service *)b)->name);
}

static void gather_services(struct gather *g)
{
	struct world *w = g->w;

	gather_names(g);
	if (w->service_count)
		qsort(w->services, w->service_count, sizeof(*w->services),
		      by_service);
	for (size_t i = 0; i < w->service_count; i++)
		gather_fixed(g, &w->services[i]);
	for (size_t i = 0; i < g->f->vm_count; i++)
		gather_vm(g, &g->f->vms[i]);
	for (size_t i = 0; i < w->service_count; i++) {
		struct world_service *s = &w->services[i];

		gather_ghosts(g, s);
		if (s->member_count)
			qsort(s->members, s->member_count, sizeof(*s->members),
			      by_member);
	}
	if (w->vm_count)
		qsort(w->vms, w->vm_count, sizeof(*w->vms), by_vm);
}

static bool is_listed(const char (*list)[64], size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

static bool pauses(const struct fake *f, const struct service_spec *s)
{
	return s->paused || is_listed(f->pauses, f->pause_count, s->name);
}

static void gather_pools(struct gather *g)
{
	const struct fake *f = g->f;

	for (size_t i = 0; i < g->w->service_count; i++) {
		struct world_service *s = &g->w->services[i];

		s->paused = s->spec && pauses(f, s->spec);
		s->unprotected = is_listed(f->unprotected, f->unprotected_count,
					   s->name);
		if (!s->spec || !s->spec->pool.template)
			continue;
		s->pool.known = true;
		for (size_t k = 0; k < g->f->vm_count; k++)
			s->pool.wanted_before +=
				!strcmp(g->f->vms[k].service, s->name);
		s->pool.wanted = s->spec->pool.min;
		for (size_t k = 0; k < g->f->wanted_count; k++)
			if (!strcmp(g->f->wanted[k].service, s->name)) {
				s->pool.wanted = g->f->wanted[k].count;
				s->pool.cause = "cpu 85% over its target 60%";
			}
		if (s->pool.wanted < s->spec->pool.min)
			s->pool.wanted = s->spec->pool.min;
		if (s->pool.wanted > s->spec->pool.max)
			s->pool.wanted = s->spec->pool.max;
		s->pool.allowed = s->spec->scaling.signal_count
					  ? s->spec->pool.max
					  : s->pool.wanted;
	}
}

static void gather_node(struct gather *g)
{
	struct world *w = g->w;
	struct fake *f = g->f;

	for (size_t i = 0; i < f->interface_count; i++) {
		const struct fake_interface *in = &f->interfaces[i];
		struct world_interface *out =
			ARENA_PUSH(g->arena, w->interfaces, w->interface_count);

		out->name = in->name;
		out->ifindex = in->ifindex;
		if (!in->ifindex)
			continue;
		out->forwards[0] = in->forwards[0];
		out->forwards[1] = in->forwards[1];
		memcpy(out->hooks, in->hooks, sizeof(out->hooks));
		out->native = in->native;
		out->reply = in->reply;
	}
	w->addresses = f->addresses;
	w->address_count = f->address_count;
}

static void sweep_runs(struct fake *f)
{
	struct fake_run *run;
	size_t i = 0;

	while ((run = strmap_next(&f->runs, &i))) {
		if (!run->used)
			forget_run(f, run);
		else
			run->used = false;
	}
}

static int64_t wall_ms(const struct fake *f)
{
	return (int64_t)(f->now / 1000000);
}

static void gather_budget(struct gather *g)
{
	struct fake *f = g->f;

	if (!f->guarded) {
		g->w->budget.left = UINT32_MAX;
		return;
	}
	if (!f->ledger.begun)
		ledger_begin(&f->ledger, wall_ms(f), f->vm_count > 0);
	g->w->approved = f->approved;
	g->w->budget =
		ledger_budget(&f->ledger, &g->spec->safety.max_vm_deletes,
			      wall_ms(f), g->arena);
}

void fake_close_deletions(struct fake *f, const struct world *w,
			  const struct plan *p)
{
	for (size_t i = 0; i < f->ledger.count; i++)
		if (f->ledger.items[i].open &&
		    ledger_is_over(&f->ledger.items[i], w, p, true))
			f->ledger.items[i].open = false;
}

static void count_deletion(struct fake *f, const struct change *c)
{
	struct deletion d = { .time_ms = wall_ms(f),
			      .approved = f->approved,
			      .open = true };

	snprintf(d.vm, sizeof(d.vm), "%s", c->name);
	ledger_add(&f->ledger, &d, d.time_ms);
}

struct world *fake_observe(struct fake *f, const struct spec *spec,
			   struct arena *arena)
{
	struct gather *g = mem_alloc(sizeof(*g));
	struct world *w = arena_alloc(arena, sizeof(*w));

	g->f = f;
	g->spec = spec;
	g->arena = arena;
	g->w = w;
	w->now = f->now;
	w->settled = f->settled;
	w->forwards6_all = true;
	w->verify = f->verify;
	w->next_id = f->next_id;
	gather_kernel(g);
	gather_services(g);
	gather_pools(g);
	gather_budget(g);
	gather_node(g);
	for (size_t i = 0; i < w->service_count; i++)
		w->services[i].verify = f->verify;
	sweep_runs(f);
	free(g);
	return w;
}

/* ---- applying: see apply.c ---- */

static int broken(const struct change *c, const char *what)
{
	fprintf(stderr, "# %s (%s): %s\n", c->object, action_name(c->action),
		what);
	return -1;
}

static struct fake_interface *interface(struct fake *f, int ifindex)
{
	for (size_t i = 0; i < f->interface_count; i++)
		if (f->interfaces[i].ifindex == ifindex)
			return &f->interfaces[i];
	return NULL;
}

static int set_sysctl(struct fake *f, const struct change *c)
{
	for (size_t i = 0; i < f->interface_count; i++) {
		struct fake_interface *in = &f->interfaces[i];

		for (int k = 0; k < 2; k++) {
			char name[64];

			snprintf(name, sizeof(name),
				 "net/%s/conf/%s/forwarding",
				 k ? "ipv6" : "ipv4", in->name);
			if (strcmp(name, c->name) != 0 ||
			    strcmp(c->value, "1") != 0)
				continue;
			in->forwards[k] = true;
			return 0;
		}
	}
	return broken(c, "no such sysctl");
}

static int set_backend(struct fake *f, const struct change *c)
{
	struct xlb_owner *o = &f->owners[c->id];

	if (!c->id || c->id >= XLB_BACKENDS)
		return broken(c, "no backend id");
	if (o->name[0] && (strcmp(o->name, c->backend.owner.name) != 0 ||
			   o->service != c->backend.owner.service))
		return broken(c, "the id is another's");
	f->backends[c->id] = c->backend.line;
	*o = c->backend.owner;
	return 0;
}

static int clear_backend(struct fake *f, const struct change *c)
{
	struct xlb_backend line = { .generation =
					    f->backends[c->id].generation };

	if (!is_owned(&f->owners[c->id]))
		return broken(c, "cleared twice");
	f->owners[c->id] = (struct xlb_owner){ .kind = XLB_OWNER_QUARANTINE };
	snprintf(f->owners[c->id].name, sizeof(f->owners[c->id].name), "%s",
		 c->name);
	f->backends[c->id] = line;
	return 0;
}

/* A map keeps one entry a key: the first one wins, as in map_sync(). */
static void set_replies(struct fake *f, const struct change *c)
{
	free(f->replies);
	f->replies = mem_array(c->replies.count + 1, sizeof(*f->replies));
	f->reply_count = 0;
	for (size_t i = 0; i < c->replies.count; i++) {
		const struct reply_entry *e = &c->replies.items[i];

		if (!f->reply_count ||
		    memcmp(&f->replies[f->reply_count - 1].key, &e->key,
			   sizeof(e->key)) != 0)
			f->replies[f->reply_count++] = *e;
	}
}

static int add_vip_address(struct fake *f, const struct change *c)
{
	for (size_t i = 0; i < f->address_count; i++)
		if (ip_equal(&f->addresses[i].address, &c->address) &&
		    f->addresses[i].ifindex == c->ifindex)
			return 0; /* EEXIST */
	if (!interface(f, c->ifindex))
		return broken(c, "no such interface");
	f->addresses[f->address_count++] =
		(struct world_address){ c->address, ip_bits(&c->address),
					c->ifindex, true };
	return 0;
}

static int del_vip_address(struct fake *f, const struct change *c)
{
	for (size_t i = 0; i < f->address_count; i++) {
		struct world_address *a = &f->addresses[i];

		if (!ip_equal(&a->address, &c->address) ||
		    a->ifindex != c->ifindex)
			continue;
		if (!a->ours)
			return broken(c, "a foreign address is deleted");
		f->address_count--;
		memmove(a, a + 1,
			(f->address_count - (size_t)(a - f->addresses)) *
				sizeof(*a));
		return 0;
	}
	return broken(c, "no such address");
}

static int create_vm(struct fake *f, const struct change *c)
{
	struct fake_vm *v = &f->vms[f->vm_count];

	if (fake_vm(f, c->name))
		return broken(c, "created twice");
	for (size_t i = 0; i < f->vm_count; i++)
		for (int k = 0; k < 2; k++)
			if (c->addresses[k].family &&
			    ip_equal(&f->vms[i].addresses[k], &c->addresses[k]))
				return broken(c, "two VMs with one address");
	*v = (struct fake_vm){ .index = c->index, .op = FAKE_CREATE };
	snprintf(v->name, sizeof(v->name), "%s", c->name);
	snprintf(v->service, sizeof(v->service), "%s", c->service);
	snprintf(v->hypervisor, sizeof(v->hypervisor), "%s", c->value);
	memcpy(v->addresses, c->addresses, sizeof(v->addresses));
	f->vm_count++;
	return 0;
}

static int order_vm(struct fake *f, const struct change *c, enum fake_op op)
{
	struct fake_vm *v = fake_vm(f, c->name);

	if (!v)
		return broken(c, "no such VM");
	if (v->op != FAKE_IDLE)
		return broken(c, "a call about it is under way");
	v->op = op;
	return 0;
}

static int drain_vm(struct fake *f, const struct change *c, bool drains)
{
	struct fake_vm *v = fake_vm(f, c->name);

	if (!v)
		return broken(c, "no such VM");
	v->drains = drains;
	return 0;
}

/* XDP has one place an interface. */
static int attach_hook(struct fake_interface *in, const struct change *c)
{
	enum datapath_hook other = c->link.hook == DATAPATH_XDP
					   ? DATAPATH_XDP_GENERIC
					   : DATAPATH_XDP;

	if (in->hooks[c->link.hook] == ATTACHED_FOREIGN)
		return broken(c, "another's program");
	if (c->link.from != DATAPATH_HOOKS)
		in->hooks[c->link.from] = ATTACHED_NOT;
	if (c->link.hook != DATAPATH_TC && in->hooks[other] != ATTACHED_NOT)
		return broken(c, "the other kind of XDP is in the way");
	in->hooks[c->link.hook] = ATTACHED_OURS;
	return 0;
}

static int attach(struct fake *f, const struct change *c)
{
	struct fake_interface *in = interface(f, c->ifindex);

	if (!in)
		return broken(c, "no such interface");
	if (!f->loaded)
		return broken(c, "programs aren't loaded");
	if (c->kind == CHANGE_LINK_ATTACH)
		return attach_hook(in, c);
	if (c->kind == CHANGE_LINK_DETACH)
		in->hooks[c->link.hook] = ATTACHED_NOT;
	else
		in->reply = c->kind == CHANGE_REPLY_ATTACH ? ATTACHED_OURS
							   : ATTACHED_NOT;
	return 0;
}

/* A region that packets read is never written as a fresh one. */
static bool is_read(const struct fake *f, const struct slot_write *w)
{
	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *v = &f->vips[i];

		if (v->proto && v->slot_base < w->base + w->count &&
		    w->base < v->slot_base + (1u << (32 - v->slot_shift)))
			return true;
		if (v->proto && v->flags & XLB_VIP_SCHEDULE &&
		    v->schedule_base < w->base + w->count &&
		    w->base <
			    v->schedule_base + (1u << (32 - v->schedule_shift)))
			return true;
	}
	return false;
}

static int write_slots(struct fake *f, const struct change *c)
{
	const struct slot_write *w = &c->slots.write;

	if (w->base + w->count > f->slot_count)
		return broken(c, "slots beyond the end");
	if (w->fresh && is_read(f, w))
		return broken(c, "slots that packets read");
	memcpy(f->slots + w->base, w->words, w->count * sizeof(*f->slots));
	return 0;
}

/* What is there keeps its place. */
static void grow_slots(struct fake *f, uint32_t count)
{
	uint32_t *slots;

	if (count <= f->slot_count)
		return;
	slots = mem_array(count, sizeof(*slots));
	memcpy(slots, f->slots, f->slot_count * sizeof(*slots));
	free(f->slots);
	f->slots = slots;
	f->slot_count = count;
}

static void load(struct fake *f, const struct change *c)
{
	f->loaded = true;
	f->features |= c->load.features;
	grow_slots(f, c->load.slots);
}

static int set_direct(struct fake *f, const struct change *c)
{
	free(f->directs);
	f->directs =
		copy_of(c->direct.items, c->direct.count * sizeof(*f->directs));
	f->direct_count = c->direct.count;
	return 0;
}

static int apply_node(struct fake *f, const struct change *c)
{
	if (c->kind == CHANGE_LOAD || c->kind == CHANGE_RELOAD)
		load(f, c);
	else if (c->kind == CHANGE_PINS)
		f->unpinned = 0;
	else if (c->kind == CHANGE_TICK)
		f->tick = c->tick;
	else if (c->kind == CHANGE_SOURCES)
		memcpy(f->sources, c->sources, sizeof(f->sources));
	else if (c->kind == CHANGE_SYSCTL)
		return set_sysctl(f, c);
	else if (c->kind == CHANGE_ADDRESS_ADD)
		return add_vip_address(f, c);
	else if (c->kind == CHANGE_ADDRESS_DEL)
		return del_vip_address(f, c);
	return 0;
}

static int set_service(struct fake *f, const struct change *c)
{
	static const struct xlb_service none;

	f->services[c->id] =
		c->kind == CHANGE_SERVICE_SET ? c->kernel_service : none;
	return 0;
}

int fake_apply(struct fake *f, const struct spec *spec, const struct change *c)
{
	(void)spec;
	if (c->held)
		return 0;
	if (c->counted && f->guarded)
		count_deletion(f, c);
	switch (c->kind) {
	case CHANGE_LOAD:
	case CHANGE_RELOAD:
	case CHANGE_PINS:
	case CHANGE_TICK:
	case CHANGE_SOURCES:
	case CHANGE_SYSCTL:
	case CHANGE_ADDRESS_ADD:
	case CHANGE_ADDRESS_DEL:
		return apply_node(f, c);
	case CHANGE_BACKEND_SET:
		return set_backend(f, c);
	case CHANGE_BACKEND_CLEAR:
		return clear_backend(f, c);
	case CHANGE_DIRECT:
		return set_direct(f, c);
	case CHANGE_REPLIES:
		set_replies(f, c);
		return 0;
	case CHANGE_REPLY_ATTACH:
	case CHANGE_REPLY_DETACH:
	case CHANGE_LINK_ATTACH:
	case CHANGE_LINK_DETACH:
		return attach(f, c);
	case CHANGE_SLOTS:
		return write_slots(f, c);
	case CHANGE_SERVICE_SET:
	case CHANGE_SERVICE_CLEAR:
		return set_service(f, c);
	case CHANGE_VIPS:
		memcpy(f->vips, c->vips->lines, sizeof(f->vips));
		return 0;
	case CHANGE_DRAIN:
	case CHANGE_RESTORE:
		return drain_vm(f, c, c->kind == CHANGE_DRAIN);
	case CHANGE_VM_CREATE:
		return create_vm(f, c);
	case CHANGE_VM_START:
		return order_vm(f, c, FAKE_START);
	case CHANGE_VM_REPLACE:
		return order_vm(f, c, FAKE_REPLACE);
	case CHANGE_VM_REMOVE:
		return order_vm(f, c, FAKE_REMOVE);
	case CHANGE_SHOW:
	case CHANGE_KIND_COUNT:
		return 0;
	}
	return 0;
}

/* ---- time ---- */

static void drop_vm(struct fake *f, struct fake_vm *v)
{
	f->vm_count--;
	memmove(v, v + 1, (f->vm_count - (size_t)(v - f->vms)) * sizeof(*v));
}

static bool still_declared(const struct spec *spec, const struct fake_vm *v)
{
	const struct service_spec *s = spec_find_service(spec, v->service);

	return s && s->pool.template;
}

/* Without a pool, VMs of a protected or paused service stay all the same. */
static bool may_have_vms(const struct fake *f, const struct service_spec *s)
{
	return s && (s->pool.template || s->protect || pauses(f, s));
}

/* A call about a VM ends well. */
static void end_op(struct fake *f, const struct spec *spec, struct fake_vm *v)
{
	enum fake_op op = v->op;

	v->op = FAKE_IDLE;
	if (op == FAKE_REMOVE ||
	    (op == FAKE_REPLACE && !still_declared(spec, v))) {
		drop_vm(f, v);
		return;
	}
	v->defined = v->running = v->was_running = true;
	v->failed = v->drains = v->ready = false;
	v->why = NULL;
}

static enum health_state next_health(enum health_state state, int how)
{
	if (!how)
		return HEALTH_UP;
	if (state == HEALTH_JOINING || state == HEALTH_DEAD)
		return state;
	return how == TRUTH_REFUSES ? HEALTH_DEAD : HEALTH_DOWN;
}

static bool tick_run(struct fake *f, struct fake_run *run)
{
	enum health_state health =
		next_health(run->health, truth_of(f, &run->address));
	bool busy = false;

	if (run->dead)
		return false;
	busy |= health != run->health || !run->tried;
	run->health = health;
	run->tried = true;
	if (run->leaving && !run->finished) {
		busy = true;
		run->finished = ++run->age >= 2;
	}
	return busy;
}

bool fake_tick(struct fake *f, const struct spec *spec)
{
	struct fake_run *run;
	bool busy = false;
	size_t i = f->vm_count;

	f->now += 1000000000;
	while (i--) {
		if (f->vms[i].op == FAKE_IDLE)
			continue;
		busy = true;
		end_op(f, spec, &f->vms[i]);
	}
	i = 0;
	while ((run = strmap_next(&f->runs, &i)))
		busy |= tick_run(f, run);
	return busy;
}

/* A call may not have been made, have been half done, or have ended. */
static void crash_vm(struct fake *f, struct fake_vm *v, uint32_t how)
{
	enum fake_op op = v->op;

	v->op = FAKE_IDLE;
	v->was_running = v->drains = v->failed = v->ready = false;
	v->why = NULL;
	if (op == FAKE_IDLE || how == 0) {
		if (!v->defined)
			drop_vm(f, v);
		return;
	}
	if (op == FAKE_CREATE || op == FAKE_START)
		v->defined = true;
	v->running = (op == FAKE_CREATE || op == FAKE_START) && how == 2;
	if (op == FAKE_REMOVE && how == 2)
		drop_vm(f, v);
}

void fake_crash(struct fake *f, uint32_t random)
{
	size_t i = f->vm_count;

	while (i--) {
		crash_vm(f, &f->vms[i], random % 3);
		random = random * 1103515245 + 12345;
	}
	for (i = 0; i < f->vm_count; i++)
		f->vms[i].was_running = f->vms[i].running;
	forget_runs(f);
	f->verify = true;
	f->settled = false;
}

/* ---- what is ---- */

static const char *vip_text(const struct xlb_vip *v, char text[IP_STRLEN])
{
	struct ip a = { .family = v->family == 4 ? AF_INET : AF_INET6 };

	memcpy(a.bytes, v->addr, sizeof(v->addr));
	return ip_format(&a, text);
}

static int by_line(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct lines {
	char **items;
	size_t count;
};

#define SAY(lines, ...) \
	(*MEM_PUSH((lines)->items, (lines)->count) = mem_printf(__VA_ARGS__))

static void say_tables(const struct fake *f, struct lines *l)
{
	char text[IP_STRLEN];

	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *v = &f->vips[i];

		if (v->proto)
			SAY(l, "vip %s port %u proto %u of %s to %u by %u/%x",
			    vip_text(v, text), ntohs(v->port), v->proto,
			    f->services[v->service].name, ntohs(v->target_port),
			    v->forwarding, v->flags);
	}
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (f->services[id].name[0])
			SAY(l, "service %s algorithm %u 2^%u",
			    f->services[id].name, f->services[id].algorithm,
			    f->services[id].table_log2);
	for (size_t i = 0; i < f->reply_count; i++) {
		const struct reply_entry *e = &f->replies[i];

		SAY(l, "reply %08x %08x port %u to %08x %08x port %u of %s",
		    ntohl(e->key.addr[0]), ntohl(e->key.addr[3]),
		    ntohs(e->key.port), ntohl(e->value.addr[0]),
		    ntohl(e->value.addr[3]), ntohs(e->value.port),
		    f->owners[e->value.backend].name);
	}
}

static void say_backends(const struct fake *f, struct lines *l)
{
	for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
		const struct xlb_owner *o = &f->owners[id];
		const struct xlb_backend *b = &f->backends[id];

		if (is_owned(o))
			SAY(l,
			    "backend %s/%s weight %u at %08x %08x port %u "
			    "slots %u",
			    f->services[o->service].name, o->name, o->weight,
			    ntohl(b->addr4), ntohl(b->addr6[3]), ntohs(b->port),
			    fake_slots_of(f, f->services[o->service].name,
					  o->name));
	}
}

static void say_node(const struct fake *f, struct lines *l)
{
	char text[IP_STRLEN];

	for (size_t i = 0; i < f->vm_count; i++)
		SAY(l, "vm %s at %s on %s phase %d", f->vms[i].name,
		    ip_format(&f->vms[i].addresses[0], text),
		    f->vms[i].hypervisor, (int)phase_of(&f->vms[i]));
	for (size_t i = 0; i < f->address_count; i++)
		SAY(l, "address %s on %d ours %d",
		    ip_format(&f->addresses[i].address, text),
		    f->addresses[i].ifindex, f->addresses[i].ours);
	for (size_t i = 0; i < f->interface_count; i++)
		SAY(l, "interface %s %d xdp %d %d tc %d reply %d",
		    f->interfaces[i].name, f->interfaces[i].ifindex,
		    (int)f->interfaces[i].hooks[DATAPATH_XDP],
		    (int)f->interfaces[i].hooks[DATAPATH_XDP_GENERIC],
		    (int)f->interfaces[i].hooks[DATAPATH_TC],
		    (int)f->interfaces[i].reply);
	for (size_t i = 0; i < f->direct_count; i++)
		SAY(l, "direct %08x %08x/%u", ntohl(f->directs[i].addr[0]),
		    ntohl(f->directs[i].addr[3]), f->directs[i].prefix_len);
}

void fake_describe(const struct fake *f, struct buf *out)
{
	struct lines l = { 0 };

	say_tables(f, &l);
	say_backends(f, &l);
	say_node(f, &l);
	if (l.count)
		qsort(l.items, l.count, sizeof(*l.items), by_line);
	for (size_t i = 0; i < l.count; i++) {
		buf_addf(out, "%s\n", l.items[i]);
		free(l.items[i]);
	}
	free(l.items);
}

static bool unsound(const char *service, const char *what, uint32_t id)
{
	fprintf(stderr, "# service %s: %s (%u)\n", service, what, id);
	return false;
}

static bool id_is_sound(const struct fake *f, uint32_t service, uint32_t id)
{
	const char *name = f->services[service].name;

	if (!id)
		return true;
	if (!is_owned(&f->owners[id]))
		return unsound(name, "a slot names an id of nobody", id);
	if (f->owners[id].service != service)
		return unsound(name, "a slot names another's backend", id);
	if (!f->backends[id].addr4 && !f->backends[id].sum6)
		return unsound(name, "a slot names an empty line", id);
	if (!f->backends[id].l2_v4[0] && !f->backends[id].l2_v6[0])
		return unsound(name, "a slot names a line without next hop",
			       id);
	return true;
}

static bool is_moving(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

static bool region_is_sound(const struct fake *f, uint32_t service,
			    uint32_t base, uint32_t shift)
{
	const uint32_t *slots = f->slots + base;
	bool ok = true;

	if (base > f->slot_count || 1ull << (32 - shift) > f->slot_count - base)
		return unsound(f->services[service].name,
			       "a VIP has slots beyond the end", base);
	for (uint32_t i = 0; ok && i < 1u << (32 - shift); i++) {
		if (i && slots[i] == slots[i - 1])
			continue;
		ok = id_is_sound(f, service, XLB_SLOT_CUR(slots[i])) &&
		     (!is_moving(slots[i]) ||
		      id_is_sound(f, service, XLB_SLOT_PREV(slots[i])));
	}
	return ok;
}

static uint32_t feature_of_flags(uint16_t flags)
{
	return (flags & XLB_VIP_CLIENT ? XLB_FEATURE_CLIENT_HASH : 0) |
	       (flags & XLB_VIP_SCHEDULE ? XLB_FEATURE_SCHEDULE : 0) |
	       (flags & XLB_VIP_RANDOM ? XLB_FEATURE_RANDOM : 0) |
	       (flags & XLB_VIP_TWO_CHOICES ? XLB_FEATURE_TWO_CHOICES : 0) |
	       (flags & XLB_VIP_STICKY ? XLB_FEATURE_STICKY : 0);
}

/* Are its connections found in other slots than its new ones? */
static bool vip_changes(const struct xlb_vip *v)
{
	return !(v->flags & XLB_VIP_CLIENT_HASH) !=
	       !(v->flags & XLB_VIP_CLIENT_OLD);
}

/* What packets to this VIP would read, whatever the service's line says. */
static bool slots_are_sound(const struct fake *f, const struct xlb_vip *v)
{
	const struct xlb_service *s = &f->services[v->service];
	uint32_t features = feature_of_flags(v->flags) |
			    XLB_FEATURE_NAT << v->forwarding |
			    (v->family == 4 ? XLB_FEATURE_V4 : XLB_FEATURE_V6);

	if (!s->name[0])
		return unsound("?", "a VIP points at no service", v->service);
	if (features & ~f->features)
		return unsound(s->name, "a VIP needs what isn't loaded",
			       features & ~f->features);
	if (v->flags & XLB_VIP_SCHEDULE &&
	    !region_is_sound(f, v->service, v->schedule_base,
			     v->schedule_shift))
		return false;
	if (!region_is_sound(f, v->service, v->slot_base, v->slot_shift))
		return false;
	/* Datagrams that become stateless go to the slot's cur at once. */
	for (uint32_t i = 0; v->proto == IPPROTO_TCP &&
			     (v->flags & XLB_VIP_PICKS ||
			      (service_changes(s) && vip_changes(v))) &&
			     i < 1u << (32 - v->slot_shift);
	     i++) {
		uint32_t word = f->slots[v->slot_base + i];

		/* 0: spoilt by a test */
		if (word && XLB_SLOT_STATE(word) == XLB_REST)
			return unsound(s->name, "a tracked slot is at rest", i);
	}
	return true;
}

bool fake_is_sound(const struct fake *f)
{
	uint32_t seen[XLB_SERVICES] = { 0 };

	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *v = &f->vips[i];
		uint32_t key = (v->slot_base | 1) + v->forwarding + v->flags;

		/* Lines of one service are alike. */
		if (!v->proto || seen[v->service] == key)
			continue;
		seen[v->service] = key;
		if (!slots_are_sound(f, v))
			return false;
	}
	return true;
}

static bool backend_declared(const struct fake *f, const struct spec *spec,
			     const struct xlb_owner *o)
{
	const struct service_spec *s =
		spec_find_service(spec, f->services[o->service].name);

	for (size_t i = 0; s && i < service_fixed_count(s); i++)
		if (!strcmp(service_fixed(s, i)->name, o->name))
			return true;
	return may_have_vms(f, s) && fake_vm((struct fake *)f, o->name);
}

bool fake_is_clean(const struct fake *f, const struct spec *spec)
{
	for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
		if (!is_owned(&f->owners[id])) {
			if (f->backends[id].addr4 || f->backends[id].sum6)
				return unsound("?", "a line of nobody", id);
		} else if (!backend_declared(f, spec, &f->owners[id])) {
			return unsound(f->owners[id].name,
				       "an owner that nobody declares", id);
		}
	}
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (f->services[id].name[0] &&
		    !spec_find_service(spec, f->services[id].name))
			return unsound(f->services[id].name, "not declared",
				       id);
	for (size_t i = 0; i < f->vm_count; i++)
		if (!may_have_vms(f,
				  spec_find_service(spec, f->vms[i].service)))
			return unsound(f->vms[i].name, "a VM too many", 0);
	return true;
}

uint32_t fake_slots_of(const struct fake *f, const char *service,
		       const char *backend)
{
	uint32_t n = 0;

	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		const struct xlb_service *s = &f->services[id];

		if (strcmp(s->name, service) != 0)
			continue;
		for (uint32_t i = 0; i < 1u << s->slot_log2; i++) {
			uint32_t b = XLB_SLOT_CUR(f->slots[s->slot_base + i]);

			n += !strcmp(f->owners[b].name, backend);
		}
	}
	return n;
}
