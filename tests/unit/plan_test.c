/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every plan promises, on random files and random histories: edits,
 * failing backends, dying VMs, things changed behind the back, crashes in the
 * middle.  XLB_SEED says with which one to begin; each prints its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "desired/keep.h"
#include "plan/internal.h"
#include "tests/lib/plan_steps.h"

#define SERVICES 6
#define BACKENDS 6
#ifdef __SANITIZE_ADDRESS__
#define HISTORIES 1 /* each takes ten times as long */
#else
#define HISTORIES 10
#endif
#define STEPS 40

/* "s0" and "s0-1": names of their VMs interleave. */
static const char *const names[SERVICES] = { "s0", "s1", "s2",
					     "s3", "s4", "s0-1" };

struct model_backend {
	bool present, drain, ported;
	unsigned int weight;
};

struct model_service {
	bool present, pool, second_port, v6, sticky, protect, paused;
	unsigned int vips; /* bit mask */
	unsigned int min, max;
	unsigned int algorithm, forwarding; /* indexes of names below */
	struct model_backend backends[BACKENDS];
};

static const char *const algorithms[] = {
	"maglev", "round_robin",       "source_hash", "weighted_round_robin",
	"random", "least_connections", "least_load",
};
static const char *const forwardings[] = { "nat", "dsr", "ipip", "gue" };
static const char *const hooks[] = { "auto", "xdp", "xdp_generic", "tc" };

struct model {
	unsigned int hook;
	bool second_uplink, allow_empty;
	struct model_service services[SERVICES];
};

static uint32_t seed, random_state;

static uint32_t pick(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state % n;
}

/* Ports stay what they are. */
static bool is_direct(const struct model_service *s)
{
	return s->forwarding != 0;
}

/* Of tables of several sizes; a service without a pool has the smallest. */
static unsigned int pick_max(void)
{
	static const unsigned int sizes[] = { 4, 9, 20 };

	return sizes[pick(ARRAY_SIZE(sizes))];
}

static const size_t pooled[] = { 0, 3, 5 };

static bool may_pool(size_t i)
{
	return i == 0 || i == 5 || i == 3;
}

static void random_service(size_t i, struct model_service *s)
{
	s->present = pick(4) != 0;
	s->vips = 1 + pick(3);
	s->second_port = pick(2);
	s->v6 = pick(2);
	s->pool = may_pool(i) && pick(3);
	s->min = 1 + pick(2);
	s->max = pick_max();
	s->sticky = pick(2);
	s->protect = pick(5) == 0;
	s->paused = pick(8) == 0;
	s->algorithm = pick(ARRAY_SIZE(algorithms));
	s->forwarding = pick(3) ? 0 : pick(ARRAY_SIZE(forwardings));
	for (size_t k = 0; k < BACKENDS; k++)
		s->backends[k] = (struct model_backend){
			.present = pick(2),
			.drain = pick(8) == 0,
			.ported = pick(4) == 0,
			.weight = pick(8) ? 1 + pick(3) : 0,
		};
}

static void print_backends(const struct model_service *s, size_t i,
			   struct buf *out)
{
	bool ported = !s->second_port && !is_direct(s);

	for (size_t k = 0; k < BACKENDS; k++) {
		const struct model_backend *b = &s->backends[k];

		if (!b->present)
			continue;
		buf_addf(out, "      - {name: b%zu, addresses: [10.1.%zu.%zu",
			 k, i, k + 10);
		if (s->v6)
			buf_addf(out, ", \"fd00:1::%zu:%zu\"", i, k + 10);
		buf_addf(out, "], weight: %u, state: %s", b->weight,
			 b->drain ? "drain" : "active");
		if (ported && b->ported)
			buf_addf(out, ", port: %zu", 8080 + k);
		buf_adds(out, "}\n");
	}
}

static void print_service(const struct model_service *s, size_t i,
			  struct buf *out)
{
	bool any = false;

	for (size_t k = 0; k < BACKENDS; k++)
		any |= s->backends[k].present;
	buf_addf(out, "  - name: %s\n    vips: [", names[i]);
	if (is_direct(s))
		for (unsigned int k = 0; k < 2; k++)
			if (s->vips & (1u << k))
				buf_addf(out, "192.0.2.%zu, ", i * 4 + k);
	if (!is_direct(s))
		buf_addf(out, "192.0.2.%zu, ", i * 4 + (s->vips & 1));
	if (s->v6)
		buf_addf(out, "\"2001:db8::%zu\"", i + 1);
	buf_addf(out, "]\n    algorithm: %s\n    forwarding: %s\n",
		 algorithms[s->algorithm], forwardings[s->forwarding]);
	buf_addf(out, "    protocol: %s\n", i == 3 ? "udp" : "tcp");
	if (i == 3)
		buf_addf(out, "    udp: %s\n",
			 s->sticky ? "sticky" : "stateless");
	buf_addf(out, "    protect: %s\n    paused: %s\n",
		 s->protect ? "true" : "false", s->paused ? "true" : "false");
	buf_addf(out, "    ports: [80%s]\n",
		 !s->second_port ? ""
		 : is_direct(s)	 ? ", 443"
				 : ", {listen: 443, target: 8443}");
	if (any) {
		buf_adds(out, "    backends:\n");
		print_backends(s, i, out);
	}
	if (s->pool)
		buf_addf(out, "    pool: {template: t, min: %u, max: %u}\n",
			 s->min, s->max);
}

/* To be freed; the buffer is empty then. */
static char *text_of(struct buf *b)
{
	char *text = mem_dup(buf_str(b));

	buf_release(b);
	return text;
}

static char *model_text(const struct model *m)
{
	struct buf out = BUF_INIT;
	bool any = false;

	buf_addf(
		&out,
		"version: 1\nnode:\n  interfaces: [{name: eth0, hook: %s}%s]\n",
		hooks[m->hook], m->second_uplink ? ", eth1" : "");
	buf_addf(&out,
		 "hypervisors: [{name: local, uri: \"test:///default\"}]\n"
		 "safety: {max_vm_deletes: {count: 2, per: 5s}, "
		 "max_service_removals: 25%%, allow_empty: %s}\n",
		 m->allow_empty ? "true" : "false");
	buf_adds(&out, "templates:\n  - name: t\n    image: /x.img\n"
		       "    memory: 64MiB\n    network:\n      bridge: br0\n"
		       "      addresses: [10.2.0.10-10.2.0.30/8, "
		       "\"fd00:2::10-fd00:2::30/16\"]\n");
	for (size_t i = 0; i < SERVICES; i++)
		any |= m->services[i].present;
	buf_adds(&out, any ? "services:\n" : "services: []\n");
	for (size_t i = 0; i < SERVICES; i++)
		if (m->services[i].present)
			print_service(&m->services[i], i, &out);
	return text_of(&out);
}

/* ---- files come into force: see file.c and keeping.c ---- */

/* What a service was when its file came into force. */
struct remembered {
	char *text; /* NULL: it wasn't */
	bool protect;
};

struct history {
	struct fake *f;
	struct model m, good; /* to be saved; in force */
	char *in_force; /* the file's text, or NULL */
	struct remembered services[SERVICES];
};

static bool is_named(const char (*list)[64], size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

static bool operator_pauses(const struct fake *f, const char *name)
{
	return is_named(f->pauses, f->pause_count, name);
}

static enum kept_why stays_without_block(const struct history *h, size_t i)
{
	const struct fake *f = h->f;

	if (operator_pauses(f, names[i]))
		return KEPT_PAUSED;
	return h->services[i].protect &&
			       !is_named(f->unprotected, f->unprotected_count,
					 names[i])
		       ? KEPT_PROTECTED
		       : KEPT_NOT;
}

static bool says_the_same(const struct service_spec *s, const char *text)
{
	AUTO_BUF struct buf now = BUF_INIT;

	keep_print(s, &now);
	return !strcmp(buf_str(&now), text);
}

static void keep(struct spec *spec, const char *name, const char *text,
		 enum kept_why why)
{
	const char *conflict = keep_insert(spec, name, text, why);
	struct conflict *c;

	if (!conflict)
		return;
	c = ARENA_PUSH(spec->arena, spec->conflicts, spec->conflict_count);
	*c = (struct conflict){ .service = name, .kept = why, .why = conflict };
}

static void merge_kept(const struct history *h, struct spec *spec)
{
	for (size_t i = 0; i < SERVICES; i++) {
		const struct service_spec *s =
			spec_find_service(spec, names[i]);
		const char *text = h->services[i].text;
		enum kept_why why = KEPT_NOT;

		if (!text)
			continue;
		if (!s)
			why = stays_without_block(h, i);
		else if ((s->paused || operator_pauses(h->f, names[i])) &&
			 !says_the_same(s, text))
			why = KEPT_PAUSED;
		if (why != KEPT_NOT)
			keep(spec, names[i], text, why);
	}
}

static void remember(struct history *h, const struct spec *spec)
{
	for (size_t i = 0; i < SERVICES; i++) {
		const struct service_spec *s =
			spec_find_service(spec, names[i]);
		struct remembered *r = &h->services[i];
		struct buf text = BUF_INIT;

		if (s && s->kept != KEPT_NOT)
			continue;
		free(r->text);
		*r = (struct remembered){ 0 };
		if (!s)
			continue;
		keep_print(s, &text);
		r->text = text_of(&text);
		r->protect = s->protect;
	}
}

/* Nothing, or a guard or an error that keeps it from coming into force. */
static bool is_held(struct history *h, const struct spec *spec, bool accepted)
{
	struct arena *arena = arena_new();
	struct world *w = fake_observe(h->f, spec, arena);
	struct plan *p;
	bool held;

	w->accepted = accepted;
	p = plan_make(spec, w);
	p->world_arena = arena;
	plan_guard(p, spec, w);
	held = p->diags.errors || p->held;
	plan_free(p);
	return held;
}

static void approve(struct history *h, bool approved)
{
	h->f->approved = h->f->watch.approved = approved;
}

/* One that is new may be approved by an operator, now and then. */
static bool may_come(struct history *h, const struct spec *spec, bool is_new)
{
	if (is_new)
		approve(h, false);
	if (!is_held(h, spec, !is_new))
		return true;
	if (!is_new || pick(4))
		return false;
	approve(h, true);
	if (!is_held(h, spec, false))
		return true;
	approve(h, false);
	return false;
}

static void comes_into_force(struct history *h, const struct spec *spec,
			     char *text)
{
	struct arena *arena = arena_new();

	assert_int_equal(watch_file(&h->f->watch, spec,
				    fake_observe(h->f, spec, arena)),
			 0);
	arena_free(arena);
	free(h->in_force);
	h->in_force = text;
}

/* The file, with what stays beside it; NULL: refused, the old one goes on. */
static struct spec *read_file(struct history *h)
{
	char *text = model_text(&h->m);
	struct spec *spec = steps_try_parse(text, true);
	bool is_new = !h->in_force || strcmp(text, h->in_force) != 0;

	if (spec)
		merge_kept(h, spec);
	if (!spec || !may_come(h, spec, is_new)) {
		spec_free(spec);
		free(text);
		h->m = h->good;
		return NULL;
	}
	if (is_new)
		comes_into_force(h, spec, text);
	else
		free(text);
	h->good = h->m;
	remember(h, spec);
	return spec;
}

/* ---- what happens ---- */

static void edit_node(struct model *m)
{
	switch (pick(3)) {
	case 0:
		m->allow_empty = !m->allow_empty;
		break;
	case 1:
		m->second_uplink = !m->second_uplink;
		break;
	default:
		m->hook = pick(ARRAY_SIZE(hooks));
		break;
	}
}

static void edit_service(struct model *m)
{
	size_t i = pick(SERVICES);
	struct model_service *s = &m->services[i];
	struct model_backend *b = &s->backends[pick(BACKENDS)];

	switch (pick(15)) {
	case 14:
		s->protect = !s->protect;
		break;
	case 13:
		s->paused = !s->paused;
		break;
	case 12:
		s->sticky = !s->sticky;
		break;
	case 11:
		s->forwarding = pick(ARRAY_SIZE(forwardings));
		break;
	case 10:
		s->max = pick_max();
		break;
	case 9:
		s->algorithm = pick(ARRAY_SIZE(algorithms));
		break;
	case 8:
		s->v6 = !s->v6;
		break;
	case 0:
		random_service(i, s);
		break;
	case 1:
		s->present = !s->present;
		break;
	case 2:
		s->vips = 1 + pick(3);
		break;
	case 3:
		s->second_port = !s->second_port;
		break;
	case 4:
		s->pool = may_pool(i) && !s->pool;
		s->min = 1 + pick(4);
		s->protect |= pick(2);
		break;
	case 5:
		b->drain = !b->drain;
		break;
	case 6:
		b->present = !b->present;
		break;
	default:
		b->weight = pick(4);
		break;
	}
}

static void edit(struct model *m)
{
	if (pick(6))
		edit_service(m);
	else
		edit_node(m);
}

static struct ip backend_address(size_t service, size_t backend)
{
	struct ip a = { .family = AF_INET };

	a.bytes[0] = 10;
	a.bytes[1] = 1;
	a.bytes[2] = (uint8_t)service;
	a.bytes[3] = (uint8_t)(backend + 10);
	return a;
}

static void trouble_vm(struct fake *f)
{
	struct fake_vm *v =
		f->vm_count ? &f->vms[pick((uint32_t)f->vm_count)] : NULL;

	if (!v || v->op != FAKE_IDLE)
		return;
	switch (pick(4)) {
	case 0:
		v->running = false; /* died: to be replaced */
		break;
	case 1:
		v->running = v->was_running = false; /* found off */
		break;
	case 2:
		v->failed = true;
		v->why = "never became ready";
		break;
	default:
		fake_probe_ends(f, &v->addresses[0], (int)pick(3));
		break;
	}
}

static void trouble_backend(struct fake *f)
{
	struct ip a = backend_address(pick(SERVICES), pick(BACKENDS));

	if (pick(4)) {
		fake_probe_ends(f, &a, (int)pick(3));
	} else if (f->unresolved_count < 4) {
		f->unresolved[f->unresolved_count++] = a;
	} else {
		f->unresolved_count = 0;
	}
}

static void drift_tables(struct fake *f)
{
	size_t i = pick(XLB_VIP_LINES);

	if (pick(2)) {
		for (size_t n = 0; n < XLB_VIP_LINES; n++) {
			struct xlb_vip *v = &f->vips[(i + n) % XLB_VIP_LINES];

			if (!v->proto)
				continue;
			*v = (struct xlb_vip){ 0 };
			return;
		}
	}
	for (uint32_t id = 1; id < SERVICES; id++) {
		const struct xlb_service *s = &f->services[id];

		if (s->name[0])
			f->slots[s->slot_base + pick(1u << s->slot_log2)] = 0;
	}
}

static void drift(struct fake *f)
{
	struct world_address *a =
		&f->addresses[pick((uint32_t)f->address_count)];

	f->verify = true;
	switch (pick(6)) {
	case 5:
		f->unpinned = 1 + pick(5);
		break;
	case 0:
		if (a->ours)
			*a = f->addresses[--f->address_count];
		break;
	case 1:
		f->interfaces[0].hooks[DATAPATH_XDP] =
			pick(2) ? ATTACHED_NOT : ATTACHED_STALE;
		break;
	case 2:
		f->interfaces[1].reply =
			pick(2) ? ATTACHED_NOT : ATTACHED_STALE;
		f->interfaces[1].forwards[0] = false;
		break;
	case 3:
		if (f->reply_count)
			f->reply_count--;
		break;
	default:
		drift_tables(f);
		break;
	}
}

static void drains(struct fake *f)
{
	if (f->drain_count && pick(2)) {
		f->drain_count--;
		return;
	}
	if (f->drain_count < 3)
		snprintf(f->drains[f->drain_count++], sizeof(f->drains[0]),
			 "%s/b%u", names[pick(SERVICES)], pick(BACKENDS));
}

/* Resumed, what the file says of it comes through. */
static void pauses(struct history *h)
{
	struct fake *f = h->f;
	size_t i = pick(SERVICES);

	if (f->pause_count && pick(3)) {
		watch_release(&f->watch, f->pauses[--f->pause_count]);
		return;
	}
	if (f->pause_count < 2 && !operator_pauses(f, names[i]))
		snprintf(f->pauses[f->pause_count++], sizeof(f->pauses[0]),
			 "%s", names[i]);
}

/* Of one that stays for nothing else. */
static void unprotects(struct history *h)
{
	struct fake *f = h->f;
	size_t i = pick(SERVICES);

	if (!h->services[i].protect || h->good.services[i].present ||
	    f->unprotected_count == ARRAY_SIZE(f->unprotected))
		return;
	h->services[i].protect = false;
	snprintf(f->unprotected[f->unprotected_count++],
		 sizeof(f->unprotected[0]), "%s", names[i]);
	watch_release(&f->watch, names[i]);
}

/* It is over with the service, or with its return. */
static void forget_unprotected(struct history *h, const struct spec *spec)
{
	struct fake *f = h->f;
	size_t kept = 0;

	for (size_t i = 0; i < f->unprotected_count; i++) {
		const char *name = f->unprotected[i];
		bool runs = false;

		for (uint32_t id = 1; id < XLB_SERVICES; id++)
			runs |= !strcmp(f->services[id].name, name);
		if (runs && !spec_find_service(spec, name))
			memmove(f->unprotected[kept++], name,
				sizeof(f->unprotected[0]));
	}
	f->unprotected_count = kept;
}

static void operator_acts(struct history *h)
{
	switch (pick(4)) {
	case 0:
		pauses(h);
		break;
	case 1:
		unprotects(h);
		break;
	default:
		drains(h->f);
		break;
	}
}

/* Every flow of before has spoken: old ones are found as new ones are. */
static void end_changes(struct fake *f)
{
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		if (!service_changes(&f->services[id]))
			continue;
		f->services[id].flags ^= XLB_SERVICE_CLIENT_OLD;
		f->services[id].changed = 0;
	}
}

/* Suspended for a while, or a clock that is set. */
static void clock_jumps(struct fake *f)
{
	f->now += (uint64_t)(1 + pick(100000)) * 1000000000;
}

static void something_happens(struct history *h)
{
	struct fake *f = h->f;

	switch (pick(14)) {
	case 13:
		clock_jumps(f);
		break;
	case 10:
	case 11:
	case 12:
	case 7:
		fake_want(f, names[pooled[pick(3)]], 1 + pick(8));
		break;
	case 0:
	case 1:
	case 2:
		edit(&h->m);
		f->settled = false;
		break;
	case 3:
		trouble_backend(f);
		break;
	case 4:
		trouble_vm(f);
		break;
	case 5:
		drift(f);
		break;
	case 6:
		operator_acts(h);
		break;
	case 8:
		end_changes(f);
		break;
	default:
		fake_crash(f, pick(1000));
		break;
	}
}

/* ---- what must hold ---- */

static void check_same_plan(struct fake *f, const struct spec *spec)
{
	struct fake *twin = fake_copy(f);
	struct plan *a = steps_plan(f, spec), *b = steps_plan(twin, spec);
	char *x = steps_text(a, spec), *y = steps_text(b, spec);

	assert_string_equal(x, y);
	assert_int_equal(a->count, b->count);
	free(x);
	free(y);
	plan_free(a);
	plan_free(b);
	fake_free(twin);
}

static void check_foreign(const struct fake *f)
{
	static const char *const foreign[] = { "198.51.100.2", "10.0.0.1",
					       "fd00::1" };
	size_t found = 0;

	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		struct ip a;

		assert_true(ip_parse(foreign[i], &a));
		for (size_t k = 0; k < f->address_count; k++)
			found += !f->addresses[k].ours &&
				 ip_equal(&f->addresses[k].address, &a);
	}
	assert_int_equal(found, ARRAY_SIZE(foreign));
}

#define VM_ADDRESSES 21 /* 10.2.0.10 to 10.2.0.30 */

static void check_pools(const struct fake *f, const struct spec *spec)
{
	struct ip first[2], last[2];

	assert_true(ip_parse("10.2.0.10", &first[0]));
	assert_true(ip_parse("10.2.0.30", &last[0]));
	assert_true(ip_parse("fd00:2::10", &first[1]));
	assert_true(ip_parse("fd00:2::30", &last[1]));
	for (size_t i = 0; i < f->vm_count; i++) {
		const struct fake_vm *v = &f->vms[i];

		for (int k = 0; k < 2; k++) {
			assert_true(ip_compare(&v->addresses[k], &first[k]) >=
				    0);
			assert_true(ip_compare(&v->addresses[k], &last[k]) <=
				    0);
		}
	}
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct service_spec *s = &spec->services[i];
		uint32_t count = 0, wanted = s->pool.min;

		if (s->paused || operator_pauses(f, s->name) ||
		    (s->protect && !s->pool.template))
			continue; /* they stay as they were */
		for (size_t k = 0; k < f->vm_count; k++)
			count += !strcmp(f->vms[k].service, s->name);
		for (size_t k = 0; k < f->wanted_count; k++)
			if (!strcmp(f->wanted[k].service, s->name) &&
			    f->wanted[k].count > wanted)
				wanted = f->wanted[k].count;
		if (wanted > s->pool.max)
			wanted = s->pool.max;
		/* Of all pools together there may be wanted more. */
		if (f->vm_count == VM_ADDRESSES && count < wanted)
			continue;
		assert_int_equal(count, s->pool.template ? wanted : 0);
	}
}

/* When more may be done; 0: now, UINT64_MAX: nothing is left. */
static uint64_t next_at(struct fake *f, const struct spec *spec)
{
	struct plan *p = steps_plan(f, spec);
	uint64_t at = plan_is_empty(p) ? UINT64_MAX : 0;

	for (size_t i = 0; at && i < p->guard_count; i++)
		if (!strcmp(p->guards[i]->guard, "max_vm_deletes"))
			at = (uint64_t)p->guards[i]->until_ms * 1000000;
	plan_free(p);
	return at;
}

/* Until nothing is left to do, also of what may go only later. */
static void settle(struct fake *f, const struct spec *spec)
{
	uint64_t at;

	for (int i = 0; i < 40; i++) {
		assert_true(steps_converge(f, spec) > 0);
		at = next_at(f, spec);
		if (at == UINT64_MAX)
			return;
		assert_true(!at || at > f->now);
		f->now = at ? at : f->now;
	}
	fail_msg("held back for ever");
}

/* Killed after n changes, a new process gets to the same end. */
static void check_crash(const struct fake *before, const struct spec *spec,
			const struct fake *after)
{
	struct fake *f = fake_copy(before);
	struct plan *p = steps_plan(f, spec);
	struct buf x = BUF_INIT, y = BUF_INIT;
	size_t n = pick((uint32_t)p->count + 1);

	assert_int_equal(steps_apply(f, spec, p, n), 0);
	plan_free(p);
	fake_crash(f, pick(1000));
	settle(f, spec);
	assert_true(fake_is_clean(f, spec));
	/* Which VMs stay, and under which addresses, may depend on when. */
	if (!after->vm_count && !before->vm_count && !after->truth_count &&
	    !after->unresolved_count) {
		fake_describe(f, &x);
		fake_describe(after, &y);
		assert_string_equal(buf_str(&x), buf_str(&y));
	}
	buf_release(&x);
	buf_release(&y);
	fake_free(f);
}

/*
 * Things happen while others are under way: some of a plan is carried out,
 * time may pass, the process may die.  What must hold after every change is
 * checked by steps_apply(); to look at a refused file changes nothing.
 */
static void storm(struct history *h)
{
	for (uint32_t i = 1 + pick(6); i; i--) {
		struct spec *spec;
		struct plan *p;

		something_happens(h);
		spec = read_file(h);
		if (!spec)
			continue;
		p = steps_plan(h->f, spec);
		assert_int_equal(steps_apply(h->f, spec, p,
					     pick((uint32_t)p->count + 2)),
				 0);
		plan_free(p);
		if (pick(2))
			fake_tick(h->f, spec);
		forget_unprotected(h, spec);
		spec_free(spec);
	}
	/* Events that a resync would have made up for. */
	h->f->verify = true;
}

static void one_step(struct history *h, const struct spec *spec)
{
	struct fake *f = h->f, *before;

	check_same_plan(f, spec);
	before = fake_copy(f);
	settle(f, spec);
	assert_true(fake_is_clean(f, spec));
	check_foreign(f);
	check_pools(f, spec);
	check_crash(before, spec, f);
	fake_free(before);
	forget_unprotected(h, spec);
}

static uint32_t checked[WATCH_PROMISES];

static void end_history(struct history *h)
{
	for (size_t i = 0; i < WATCH_PROMISES; i++)
		checked[i] += h->f->watch.checked[i];
	for (size_t i = 0; i < SERVICES; i++)
		free(h->services[i].text);
	free(h->in_force);
	fake_free(h->f);
}

/* What else comes too seldom: pools go that are protected, services at once. */
static void ask_guards(struct model *m, int step)
{
	struct model_service *s =
		&m->services[pooled[pick(ARRAY_SIZE(pooled))]];

	m->allow_empty &= step != STEPS - 3;
	if (step == STEPS / 3)
		s->present = s->pool = true;
	else if (step == STEPS / 2)
		s->protect = true;
	if (step == STEPS / 2)
		s->pool = false;
	for (int i = 0; step == STEPS * 3 / 4 && i < 3; i++)
		m->services[pick(SERVICES)].present = false;
	for (int i = 0; step == STEPS - 3 && i < SERVICES; i++)
		m->services[i].present = m->services[i].protect = false;
}

static void one_history(uint32_t number)
{
	struct history h = { .f = fake_new(), .m = { .allow_empty = true } };
	int parsed = 0;

	random_state = (seed + number) * 2654435761u | 1;
	print_message("# history %u: XLB_SEED=%u\n", number, seed + number);
	h.f->guarded = h.f->watch.on = true;
	for (size_t i = 0; i < SERVICES; i++)
		random_service(i, &h.m.services[i]);
	for (int step = 0; step < STEPS; step++) {
		struct spec *spec = read_file(&h);

		if (spec) {
			one_step(&h, spec);
			parsed++;
		}
		spec_free(spec);
		ask_guards(&h.m, step);
		if (pick(3))
			something_happens(&h);
		else
			storm(&h);
	}
	/* A history of refused files proves nothing. */
	assert_true(parsed > STEPS / 3);
	end_history(&h);
}

static bool all_checked(void)
{
	for (size_t i = 0; i < WATCH_PROMISES; i++)
		if (!checked[i])
			return false;
	return true;
}

static void histories(void **state)
{
	uint32_t count = HISTORIES * (getenv("XLB_SOAK") ? 50 : 1);

	(void)state;
	for (uint32_t i = 0;
	     i < count || (HISTORIES > 1 && !all_checked() && i < 4 * count);
	     i++)
		one_history(i);
	for (size_t i = 0; i < WATCH_PROMISES; i++)
		print_message("# guards: promise %zu was put to the test %u "
			      "times\n",
			      i, checked[i]);
	assert_true(HISTORIES == 1 || all_checked());
}

/* ---- single promises ---- */

#define NODE                                                              \
	"version: 1\nnode: {interfaces: [eth0]}\n"                        \
	"hypervisors: [{name: local, uri: \"test:///default\"}]\n"        \
	"templates:\n  - name: t\n    image: /x.img\n    memory: 64MiB\n" \
	"    network: {bridge: br0, addresses: [10.2.0.10-10.2.0.14/8]}\n"
#define TWO(first, second)                                              \
	NODE "services:\n  - name: web\n    vips: [192.0.2.10]\n"       \
	     "    ports: [80]\n    backends:\n"                         \
	     "      - {name: " first ", address: 10.1.0.1, port: 81}\n" \
	     "      - {name: " second ", address: 10.1.0.2}\n"
#define POOL(name, vip)                             \
	"  - name: " name "\n    vips: [" vip "]\n" \
	"    ports: [80]\n    pool: {template: t, min: 1, max: 2}\n"

static struct fake *converged(const char *yaml)
{
	struct spec *spec = steps_parse(yaml);
	struct fake *f = fake_new();

	assert_true(steps_converge(f, spec) > 0);
	spec_free(spec);
	return f;
}

static size_t count_kind(const struct plan *p, enum change_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < p->count; i++)
		n += p->changes[i]->kind == kind;
	return n;
}

static const struct xlb_service *service(const struct fake *f, const char *name)
{
	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (!strcmp(f->services[id].name, name))
			return &f->services[id];
	fail_msg("no service %s", name);
	return NULL;
}

static const struct xlb_vip *any_vip(const struct fake *f)
{
	for (size_t i = 0; i < XLB_VIP_LINES; i++)
		if (f->vips[i].proto)
			return &f->vips[i];
	fail_msg("no VIP");
	return NULL;
}

static uint32_t *slots_of(struct fake *f, const char *name, uint32_t *ret_count)
{
	const struct xlb_service *s = service(f, name);

	*ret_count = 1u << s->slot_log2;
	return f->slots + s->slot_base;
}

/* As sweeps would leave them in the end. */
static void rest_all(struct fake *f, const char *name)
{
	uint32_t count, *slots = slots_of(f, name, &count);

	for (uint32_t i = 0; i < count; i++)
		slots[i] = XLB_SLOT(XLB_SLOT_CUR(slots[i]),
				    XLB_SLOT_CUR(slots[i]), XLB_REST);
}

/* Service web: keys of its own, and backends n0, n1... of weights 1 to 3. */
static struct spec *web(const char *keys, unsigned int backends)
{
	struct buf text = BUF_INIT;
	struct spec *spec;

	buf_addf(&text, NODE "services:\n  - name: web\n%s    backends:\n",
		 keys);
	for (unsigned int i = 0; i < backends; i++)
		buf_addf(&text,
			 "      - {name: n%u, address: 10.1.%u.%u, weight: %u}"
			 "\n",
			 i, i / 200, i % 200 + 1, 1 + i % 3);
	spec = steps_parse(buf_str(&text));
	buf_release(&text);
	return spec;
}

static void converge_to(struct fake *f, struct spec *spec)
{
	f->settled = false;
	assert_true(steps_converge(f, spec) > 0);
	spec_free(spec);
}

#define PLAIN "    vips: [192.0.2.10]\n    ports: [80]\n"

/* The hash table is the same for all of them. */
static void algorithms_move_nothing(void **state)
{
	struct fake *f = fake_new();
	uint32_t count, *slots, *was;

	(void)state;
	converge_to(f, web(PLAIN, 3));
	slots = slots_of(f, "web", &count);
	was = mem_array(count, sizeof(*was));
	memcpy(was, slots, count * sizeof(*was));
	for (size_t i = 0; i < ARRAY_SIZE(algorithms) * 3; i++) {
		const char *name = algorithms[i * 5 % ARRAY_SIZE(algorithms)];
		char *keys = mem_printf(PLAIN "    algorithm: %s\n", name);
		bool hashes =
			!strcmp(name, "maglev") || !strcmp(name, "source_hash");

		converge_to(f, web(keys, 3));
		assert_ptr_equal(slots, slots_of(f, "web", &count));
		for (uint32_t k = 0; k < count; k++)
			assert_int_equal(XLB_SLOT_CUR(slots[k]),
					 XLB_SLOT_CUR(was[k]));
		assert_int_equal(!(any_vip(f)->flags & XLB_VIP_PICKS), hashes);
		assert_int_equal(service(f, "web")->schedule_log2 != 0,
				 strstr(name, "round") != NULL);
		if (hashes)
			rest_all(f, "web");
		free(keys);
	}
	free(was);
	fake_free(f);
}

static void assert_hashed(struct fake *f, uint16_t flags, bool tracks)
{
	uint32_t count, *slots = slots_of(f, "web", &count);
	const struct xlb_service *s = service(f, "web");

	assert_int_equal(any_vip(f)->flags & XLB_VIP_CLIENT, flags);
	assert_int_equal(!!(s->flags & XLB_SERVICE_TRACKS), tracks);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(XLB_SLOT_STATE(slots[i]), XLB_SETTLED);
}

/* Flows' slots become clients' and back; the old ones count for a while. */
static void what_is_hashed_changes(void **state)
{
	struct fake *f = fake_new();

	(void)state;
	converge_to(f, web(PLAIN, 3));
	rest_all(f, "web");
	converge_to(f, web(PLAIN "    algorithm: source_hash\n", 3));
	assert_hashed(f, XLB_VIP_CLIENT_HASH, true);
	/* Back at once: nothing was found otherwise yet. */
	converge_to(f, web(PLAIN, 3));
	assert_hashed(f, 0, false);
	converge_to(f, web(PLAIN "    algorithm: source_hash\n", 3));
	end_changes(f);
	converge_to(f, web(PLAIN "    algorithm: source_hash\n", 3));
	assert_hashed(f, XLB_VIP_CLIENT, false);
	converge_to(f, web(PLAIN "    algorithm: random\n", 3));
	assert_hashed(f, XLB_VIP_CLIENT_OLD, true);
	converge_to(f, web(PLAIN, 3));
	assert_hashed(f, XLB_VIP_CLIENT_OLD, true);
	end_changes(f);
	converge_to(f, web(PLAIN, 3));
	assert_hashed(f, 0, false);
	fake_free(f);
}

static void schedules_give_turns(void **state)
{
	(void)state;
	for (int weighted = 0; weighted < 2; weighted++) {
		struct fake *f = fake_new();
		const struct xlb_service *s;
		uint32_t turns[XLB_BACKENDS] = { 0 }, count;

		converge_to(f, web(weighted ? PLAIN "    algorithm: "
						    "weighted_round_robin\n"
					    : PLAIN "    algorithm: "
						    "round_robin\n",
				   6));
		s = service(f, "web");
		count = 1u << s->schedule_log2;
		for (uint32_t i = 0; i < count; i++)
			turns[XLB_SLOT_CUR(f->slots[s->schedule_base + i])]++;
		for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
			uint32_t weight = f->owners[id].weight;
			double want =
				weighted ? count * weight / 12.0 : count / 6.0;

			if (f->owners[id].name[0])
				assert_true(turns[id] > want - 1 &&
					    turns[id] < want + 1);
		}
		assert_int_equal(any_vip(f)->schedule_base, s->schedule_base);
		assert_int_equal(any_vip(f)->schedule_shift,
				 32 - s->schedule_log2);
		fake_free(f);
	}
}

/* Each new slot knows whose flows were in the old one. */
static void assert_grown(const uint32_t *old, uint32_t old_count,
			 const uint32_t *now, uint32_t count)
{
	uint32_t moving = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t was = old[(uint64_t)i * old_count / count];
		uint32_t cur = XLB_SLOT_CUR(was);
		uint32_t prev = XLB_SLOT_STATE(was) == XLB_MOVING
					? XLB_SLOT_PREV(was)
					: cur;

		if (XLB_SLOT_STATE(now[i]) == XLB_MOVING) {
			assert_int_equal(XLB_SLOT_PREV(now[i]), prev);
			moving++;
			continue;
		}
		assert_int_equal(XLB_SLOT_CUR(now[i]), prev);
		/* What is at rest was it before. */
		if (XLB_SLOT_STATE(now[i]) == XLB_REST)
			assert_int_equal(XLB_SLOT_STATE(was), XLB_REST);
	}
	assert_true(moving > 0);
}

/* As the file says, whatever the table was before. */
static void assert_owners(struct fake *f, uint8_t table_log2)
{
	uint32_t count, *slots = slots_of(f, "web", &count);
	uint32_t *owner = mem_array(1u << table_log2, sizeof(*owner));
	struct table_member members[64];
	size_t n = 0;

	for (uint32_t id = 1; id < XLB_BACKENDS; id++)
		if (f->owners[id].name[0] &&
		    f->owners[id].kind == XLB_OWNER_FIXED)
			members[n++] =
				(struct table_member){ f->owners[id].name, id,
						       f->owners[id].weight };
	table_maglev(members, n, table_log2, owner);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(XLB_SLOT_CUR(slots[i]),
				 owner[((uint64_t)i << table_log2) / count]);
	free(owner);
}

static void tables_grow_and_shrink(void **state)
{
	struct fake *f = fake_new();
	uint32_t small, large, *slots;
	uint32_t *was;
	struct spec *spec;
	struct plan *p;

	(void)state;
	converge_to(f, web(PLAIN, 3));
	rest_all(f, "web");
	converge_to(f, web(PLAIN, 2)); /* some are settled */
	converge_to(f, web(PLAIN, 3)); /* some are moving */
	slots = slots_of(f, "web", &small);
	was = mem_array(small, sizeof(*was));
	memcpy(was, slots, small * sizeof(*was));
	converge_to(f,
		    web(PLAIN "    pool: {template: t, min: 1, max: 5}\n", 3));
	slots = slots_of(f, "web", &large);
	assert_int_equal(large, 1u << table_log2_for(8));
	assert_true(large > small);
	assert_int_equal(any_vip(f)->slot_base, service(f, "web")->slot_base);
	/* Back: the slots stay many while some are moving... */
	spec = web(PLAIN, 3);
	converge_to(f, spec);
	slots = slots_of(f, "web", &large);
	assert_true(large > small);
	assert_owners(f, table_log2_for(3));
	/* ... and not any longer. */
	rest_all(f, "web");
	converge_to(f, web(PLAIN, 3));
	slots = slots_of(f, "web", &large);
	assert_int_equal(large, small);
	assert_owners(f, table_log2_for(3));
	/* Words, once more, without anything else in between. */
	memcpy(was, slots, small * sizeof(*was));
	spec = web(PLAIN, 40);
	f->settled = false;
	fake_observe(f, spec, (void *)spec->arena);
	fake_tick(f, spec);
	p = steps_plan(f, spec);
	for (size_t i = 0; i < p->count; i++) {
		const struct slot_write *w = &p->changes[i]->slots.write;

		if (p->changes[i]->kind != CHANGE_SLOTS)
			continue;
		assert_true(w->fresh);
		assert_int_equal(w->from, service(f, "web")->slot_base);
		assert_int_equal(small << w->shift, w->count);
		assert_grown(was, small, w->words, w->count);
	}
	assert_int_equal(count_kind(p, CHANGE_SLOTS), 1);
	plan_free(p);
	spec_free(spec);
	free(was);
	fake_free(f);
}

/* Maps that are too small grow before anything is written into them. */
static void maps_grow(void **state)
{
	struct fake *f = fake_new();
	struct spec *spec = web(PLAIN, 30);
	struct plan *p;

	(void)state;
	fake_set_slots(f, 1u << 12);
	converge_to(f, web(PLAIN, 3));
	assert_int_equal(f->slot_count, 1u << 12);
	fake_observe(f, spec, (void *)spec->arena);
	fake_tick(f, spec);
	f->settled = false;
	p = steps_plan(f, spec);
	assert_int_equal(p->diags.errors, 0);
	assert_int_equal(p->changes[0]->kind, CHANGE_RELOAD);
	assert_true(p->changes[0]->load.slots > 1u << 12);
	plan_free(p);
	converge_to(f, spec);
	assert_true(f->slot_count > 1u << 12);
	fake_free(f);
}

/* The share of each within 2 % of its weight, or one slot. */
static void assert_spread(struct fake *f)
{
	uint32_t count, *slots = slots_of(f, "web", &count), total = 0;
	static uint32_t have[XLB_BACKENDS];

	memset(have, 0, sizeof(have));
	for (uint32_t i = 0; i < count; i++)
		have[XLB_SLOT_CUR(slots[i])]++;
	for (uint32_t id = 1; id < XLB_BACKENDS; id++)
		total += have[id] ? f->owners[id].weight : 0;
	for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
		double want = (double)count * f->owners[id].weight / total;
		double off =
			have[id] > want ? have[id] - want : want - have[id];

		if (have[id])
			assert_true(off <= 1 || off <= want * 0.02);
	}
}

/* Beside those of the one that joins or leaves, at most 4 % of the table. */
static void changes_move_little(void **state)
{
	(void)state;
	for (unsigned int n = 2; n < 40; n += 5) {
		struct fake *f = fake_new();
		struct spec *spec = web(PLAIN, n + 1);
		uint32_t count, *slots, must = 0, moved = 0, *was;

		/* The same declared maximum with one less. */
		converge_to(f, web(PLAIN, n + 1));
		assert_spread(f);
		slots = slots_of(f, "web", &count);
		was = mem_array(count, sizeof(*was));
		memcpy(was, slots, count * sizeof(*was));
		snprintf(f->drains[f->drain_count++], sizeof(f->drains[0]),
			 "web/n0");
		converge_to(f, spec);
		assert_spread(f);
		assert_ptr_equal(slots, slots_of(f, "web", &count));
		for (uint32_t i = 0; i < count; i++) {
			uint32_t id = XLB_SLOT_CUR(was[i]);

			must += !strcmp(f->owners[id].name, "n0");
			moved += XLB_SLOT_CUR(slots[i]) != id;
		}
		assert_true(moved >= must);
		assert_true((moved - must) * 100 <= 4 * count);
		free(was);
		fake_free(f);
	}
}

static void hooks_overlap(void **state)
{
	static const char *const order[] = { "tc",   "xdp_generic", "xdp", "tc",
					     "auto", "xdp_generic", "tc" };
	struct fake *f = fake_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		char *yaml = mem_printf(
			"version: 1\nnode:\n  interfaces: [{name: eth0, hook: "
			"%s}]\nservices:\n  - {name: web, vips: [192.0.2.10], "
			"ports: [80], backends: [{address: 10.1.0.1}]}\n",
			order[i]);
		struct spec *spec = steps_parse(yaml);
		struct plan *p = steps_plan(f, spec);
		bool attached = false;

		for (size_t k = 0; k < p->count; k++) {
			attached |= p->changes[k]->kind == CHANGE_LINK_ATTACH;
			if (p->changes[k]->kind == CHANGE_LINK_DETACH)
				assert_true(attached);
		}
		assert_true(attached);
		plan_free(p);
		converge_to(f, spec);
		for (int h = 0, ours = 0; h < DATAPATH_HOOKS; h++) {
			ours += f->interfaces[0].hooks[h] == ATTACHED_OURS;
			assert_true(h + 1 < DATAPATH_HOOKS || ours == 1);
		}
		free(yaml);
	}
	/* auto, where the driver has no native XDP */
	f->interfaces[0].native = false;
	f->interfaces[0].hooks[DATAPATH_TC] = ATTACHED_NOT;
	converge_to(f, web(PLAIN, 1));
	assert_int_equal(f->interfaces[0].hooks[DATAPATH_TC], ATTACHED_OURS);
	assert_int_equal(f->interfaces[0].hooks[DATAPATH_XDP], ATTACHED_NOT);
	fake_free(f);
}

/* An id is nobody's until the sweep lets it go. */
static void quarantine_keeps_ids(void **state)
{
	struct fake *f = fake_new();
	uint32_t old = 0;

	(void)state;
	converge_to(f, web(PLAIN, 2));
	for (uint32_t id = 1; id < 16; id++)
		if (!strcmp(f->owners[id].name, "n1"))
			old = id;
	converge_to(f, web(PLAIN, 1));
	assert_int_equal(f->owners[old].kind, XLB_OWNER_QUARANTINE);
	f->next_id = old;
	converge_to(f, web(PLAIN, 3));
	assert_int_equal(f->owners[old].kind, XLB_OWNER_QUARANTINE);
	/* All are in use or in quarantine: who comes waits, nothing breaks. */
	for (uint32_t id = 1; id < XLB_BACKENDS; id++)
		if (!f->owners[id].name[0]) {
			f->owners[id].kind = XLB_OWNER_QUARANTINE;
			snprintf(f->owners[id].name, 8, "gone");
		}
	converge_to(f, web(PLAIN, 4));
	assert_int_equal(fake_slots_of(f, "web", "n3"), 0);
	assert_true(fake_slots_of(f, "web", "n2") > 0);
	for (uint32_t id = 1; id < XLB_BACKENDS; id++)
		if (f->owners[id].kind == XLB_OWNER_QUARANTINE)
			f->owners[id] = (struct xlb_owner){ 0 };
	converge_to(f, web(PLAIN, 4));
	assert_true(fake_slots_of(f, "web", "n3") > 0);
	fake_free(f);
}

/* A new seed would move every connection. */
static void seeds_stay(void **state)
{
	struct fake *f = fake_new();
	struct spec *spec = web(PLAIN, 2);
	struct arena *arena = arena_new();
	struct world *w;
	struct plan *p;

	(void)state;
	converge_to(f, web(PLAIN, 2));
	spec->node.seed_file = "/etc/xlb/seed";
	f->settled = false;
	for (int how = 0; how < 3; how++) {
		w = fake_observe(f, spec, arena);
		w->kernel.flow_seed = 7;
		w->seed = how == 1 ? 8 : 7;
		w->seed_why = how == 2 ? "it is empty" : NULL;
		p = plan_make(spec, w);
		assert_int_equal(p->diags.errors, how != 0);
		plan_free(p);
		/* What runs goes on, though the file was changed since. */
		w->settled = true;
		p = plan_make(spec, w);
		assert_int_equal(p->diags.errors, 0);
		assert_int_equal(p->diags.count, how != 0);
		plan_free(p);
	}
	w->kernel.loaded = false;
	w->seed_why = NULL;
	p = plan_make(spec, w);
	assert_int_equal(p->changes[0]->kind, CHANGE_LOAD);
	assert_true(p->changes[0]->load.has_seed);
	assert_int_equal(p->changes[0]->load.seed, 7);
	plan_free(p);
	arena_free(arena);
	spec_free(spec);
	fake_free(f);
}

#define CROSSED(way)                                                     \
	NODE "services:\n  - name: web\n    vips: [192.0.2.10]\n"        \
	     "    ports: [80]\n    forwarding: " way "\n    backends:\n" \
	     "      - {name: a, addresses: [10.1.0.1, \"fd00:1::1\"]}\n" \
	     "      - {name: b, address: \"fd00:1::2\"}\n"

/* The outer header may be of either family, and needs a source of ours. */
static void tunnels_cross_families(void **state)
{
	struct fake *f = fake_new();
	struct ip a;

	(void)state;
	assert_true(ip_parse("10.1.0.1", &f->unresolved[0]));
	f->unresolved_count = 1;
	converge_to(f, steps_parse(CROSSED("gue")));
	assert_true(fake_slots_of(f, "web", "a") > 0);
	assert_true(fake_slots_of(f, "web", "b") > 0);
	assert_int_equal(any_vip(f)->forwarding, XLB_GUE);
	assert_int_equal(f->reply_count, 0);
	assert_true(ip_parse("198.51.100.2", &a));
	assert_true(ip_equal(&f->sources[0], &a));
	assert_int_equal(f->features & (XLB_FEATURE_V4 | XLB_FEATURE_V6),
			 XLB_FEATURE_V4 | XLB_FEATURE_V6);
	converge_to(f, steps_parse(CROSSED("ipip")));
	assert_int_equal(any_vip(f)->forwarding, XLB_IPIP);
	fake_free(f);
}

static void guard_holds_empty(void **state)
{
	struct fake *f = converged(TWO("a", "b"));
	struct arena *arena = arena_new();
	struct spec *none = steps_parse(NODE "services: []\n");
	struct spec *allowed =
		steps_parse(NODE "services: []\nsafety: {allow_empty: true}\n");
	struct plan *p;
	struct world *w;

	(void)state;
	w = fake_observe(f, none, arena);
	p = plan_make(none, w);
	plan_guard(p, none, w);
	assert_non_null(p->held);
	plan_free(p);
	p = plan_make(allowed, w);
	plan_guard(p, allowed, w);
	assert_null(p->held);
	plan_free(p);
	arena_free(arena);
	spec_free(none);
	spec_free(allowed);
	fake_free(f);
}

static void drift_is_apart(void **state)
{
	struct spec *spec = steps_parse(TWO("a", "b"));
	struct fake *f = converged(TWO("a", "b"));
	struct plan_summary s;
	struct plan *p;

	(void)state;
	f->interfaces[0].hooks[DATAPATH_XDP] = ATTACHED_NOT;
	p = steps_plan(f, spec);
	s = plan_summarize(p);
	assert_int_equal(s.drift, 1);
	assert_int_equal(s.add + s.change + s.replace + s.destroy, 0);
	plan_free(p);
	f->settled = false;
	p = steps_plan(f, spec);
	s = plan_summarize(p);
	assert_int_equal(s.drift, 0);
	assert_int_equal(s.add, 1);
	plan_free(p);
	spec_free(spec);
	fake_free(f);
}

static void restores_before_creating(void **state)
{
	struct spec *spec =
		steps_parse(NODE "services:\n" POOL("web", "192.0.2.1"));
	struct fake *f = fake_new();
	struct plan *p;

	(void)state;
	fake_want(f, "web", 2);
	assert_true(steps_converge(f, spec) > 0);
	fake_want(f, "web", 1);
	p = steps_plan(f, spec);
	assert_int_equal(p->count, 1);
	assert_int_equal(p->changes[0]->kind, CHANGE_DRAIN);
	assert_string_equal(p->changes[0]->name, "web-2");
	assert_int_equal(steps_apply(f, spec, p, 1), 0);
	plan_free(p);
	fake_want(f, "web", 2);
	p = steps_plan(f, spec);
	assert_int_equal(count_kind(p, CHANGE_RESTORE), 1);
	assert_int_equal(count_kind(p, CHANGE_VM_CREATE), 0);
	plan_free(p);
	/* Also in the place of one that fails meanwhile. */
	fake_want(f, "web", 1);
	fake_vm(f, "web-1")->running = false;
	p = steps_plan(f, spec);
	assert_int_equal(count_kind(p, CHANGE_RESTORE), 1);
	assert_int_equal(count_kind(p, CHANGE_VM_REPLACE), 0);
	plan_free(p);
	spec_free(spec);
	fake_free(f);
}

/* Down, of two ready VMs the one that fails its probes goes. */
static void keeps_the_healthy_vm(void **state)
{
	struct spec *spec =
		steps_parse(NODE "services:\n" POOL("web", "192.0.2.1"));
	struct fake *f = fake_new();
	struct plan *p;

	(void)state;
	fake_want(f, "web", 2);
	assert_true(steps_converge(f, spec) > 0);
	fake_probe_ends(f, &fake_vm(f, "web-1")->addresses[0], TRUTH_FAILS);
	assert_true(steps_converge(f, spec) > 0);
	fake_want(f, "web", 1);
	p = steps_plan(f, spec);
	assert_int_equal(count_kind(p, CHANGE_DRAIN), 1);
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind == CHANGE_DRAIN)
			assert_string_equal(p->changes[i]->name, "web-1");
	plan_free(p);
	spec_free(spec);
	fake_free(f);
}

/* Every backend is replaced at once: the old ones serve until a new one can. */
static void replacing_all_leaves_no_gap(void **state)
{
	struct spec *spec = steps_parse(TWO("c", "d"));
	struct fake *f = converged(TWO("a", "b"));
	struct plan *p;

	(void)state;
	f->settled = false;
	p = steps_plan(f, spec);
	assert_int_equal(steps_apply(f, spec, p, p->count), 0);
	plan_free(p);
	assert_true(fake_slots_of(f, "web", "a") > 0);
	assert_true(fake_slots_of(f, "web", "b") > 0);
	assert_true(steps_converge(f, spec) > 0);
	assert_int_equal(fake_slots_of(f, "web", "a"), 0);
	assert_true(fake_slots_of(f, "web", "c") > 0);
	assert_true(fake_is_clean(f, spec));
	spec_free(spec);
	fake_free(f);
}

/* While it drains, a removed backend keeps its port and what it is. */
static void leaving_keeps_its_line(void **state)
{
	struct spec *spec = steps_parse(
		NODE "services:\n  - name: web\n    vips: [192.0.2.10]\n"
		     "    ports: [80]\n    backends:\n"
		     "      - {name: b, address: 10.1.0.2}\n");
	struct fake *f = converged(TWO("a", "b"));
	struct plan *p;
	size_t seen = 0;

	(void)state;
	f->settled = false;
	p = steps_plan(f, spec);
	/* But for its clients' ties, of which its slots tell. */
	assert_int_equal(count_kind(p, CHANGE_BACKEND_SET), 1);
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind == CHANGE_BACKEND_SET)
			assert_true(p->changes[i]->hidden);
	assert_int_equal(steps_apply(f, spec, p, p->count), 0);
	plan_free(p);
	for (uint32_t id = 1; id < 16; id++) {
		if (strcmp(f->owners[id].name, "a") != 0)
			continue;
		seen++;
		assert_int_equal(f->backends[id].flags, XLB_BACKEND_LEAVING);
		assert_int_equal(ntohs(f->backends[id].port), 81);
		assert_int_equal(f->owners[id].kind, XLB_OWNER_FIXED);
	}
	assert_int_equal(seen, 1);
	spec_free(spec);
	fake_free(f);
}

/* Neighbour entries expire while nobody probes; restarting must not care. */
static void restart_without_next_hops(void **state)
{
	struct spec *spec = steps_parse(TWO("a", "b"));
	struct fake *f = converged(TWO("a", "b"));
	struct plan *p;

	(void)state;
	assert_true(ip_parse("10.1.0.1", &f->unresolved[0]));
	assert_true(ip_parse("10.1.0.2", &f->unresolved[1]));
	f->unresolved_count = 2;
	fake_crash(f, 0);
	f->settled = true;
	p = steps_plan(f, spec);
	assert_true(plan_is_empty(p));
	plan_free(p);
	spec_free(spec);
	fake_free(f);
}

/* VMs web-1 (of web), web-1-1 (of web-1), web-2 (of web), by name. */
static void names_may_interleave(void **state)
{
	struct spec *spec =
		steps_parse(NODE "services:\n" POOL("web", "192.0.2.1")
				    POOL("web-1", "192.0.2.2"));
	struct spec *none =
		steps_parse(NODE "services: []\nsafety: {allow_empty: true}\n");
	struct fake *f = fake_new();
	struct plan *p;

	(void)state;
	fake_want(f, "web", 2);
	assert_true(steps_converge(f, spec) > 0);
	assert_int_equal(f->vm_count, 3);
	p = steps_plan(f, none);
	assert_int_equal(count_kind(p, CHANGE_VM_REMOVE), 3);
	assert_int_equal(steps_apply(f, none, p, p->count), 0);
	plan_free(p);
	assert_true(steps_converge(f, none) > 0);
	assert_int_equal(f->vm_count, 0);
	spec_free(spec);
	spec_free(none);
	fake_free(f);
}

/* The lowest free index and address, and no fixed backend's name. */
/* With and without gaps: as one by one would find them. */
static void owners_are_found(void **state)
{
	static struct world_owner owners[300];
	struct world w = { .kernel = { .owners = owners } };

	(void)state;
	for (int round = 0; round < 200; round++) {
		uint32_t id = 0, gap = pick(4), count = pick(300);
		const struct world_owner *by_id[2000] = { NULL };

		for (uint32_t i = 0; i < count; i++) {
			id += 1 + (pick(10) ? 0 : pick(gap + 1));
			owners[i].id = id;
			by_id[id] = &owners[i];
		}
		w.kernel.owner_count = count;
		for (id = 0; id < ARRAY_SIZE(by_id); id++)
			assert_ptr_equal(owner_find(&w, id), by_id[id]);
	}
}

static void takes_the_lowest(void **state)
{
	struct spec *spec =
		steps_parse(NODE "services:\n" POOL("web", "192.0.2.1"));
	struct fake *f = fake_new();
	struct ip lowest;

	(void)state;
	fake_want(f, "web", 2);
	assert_true(steps_converge(f, spec) > 0);
	f->vms[0] = f->vms[--f->vm_count]; /* web-1 was undefined by hand */
	assert_true(steps_converge(f, spec) > 0);
	assert_int_equal(f->vm_count, 2);
	assert_true(ip_parse("10.2.0.10", &lowest));
	assert_non_null(fake_vm(f, "web-1"));
	assert_true(ip_equal(&fake_vm(f, "web-1")->addresses[0], &lowest));
	spec_free(spec);
	fake_free(f);
}

/* An address of ours on another interface than the first is moved there. */
static void addresses_move(void **state)
{
	struct spec *spec = steps_parse(TWO("a", "b"));
	struct fake *f = converged(TWO("a", "b"));
	size_t ours = 0;

	(void)state;
	for (size_t i = 0; i < f->address_count; i++)
		if (f->addresses[i].ours)
			f->addresses[i].ifindex = 3;
	assert_true(steps_converge(f, spec) > 0);
	for (size_t i = 0; i < f->address_count; i++) {
		ours += f->addresses[i].ours;
		assert_true(!f->addresses[i].ours ||
			    f->addresses[i].ifindex == 2);
	}
	assert_int_equal(ours, 1);
	check_foreign(f);
	spec_free(spec);
	fake_free(f);
}

/* Killed before its service was written, and then it isn't wanted any more. */
static void unfinished_ids_are_cleared(void **state)
{
	struct spec *spec = steps_parse(TWO("a", "b"));
	struct spec *none =
		steps_parse(NODE "services: []\nsafety: {allow_empty: true}\n");
	size_t count;

	(void)state;
	for (size_t n = 1; n; n = n < count ? n + 1 : 0) {
		struct fake *f = fake_new();
		struct arena *arena = arena_new();
		struct plan *p;

		fake_observe(f, spec, arena);
		fake_tick(f, spec);
		p = steps_plan(f, spec);
		count = p->count;
		assert_int_equal(count_kind(p, CHANGE_BACKEND_SET), 2);
		assert_int_equal(steps_apply(f, spec, p, n), 0);
		fake_crash(f, 0);
		assert_true(steps_converge(f, none) > 0);
		assert_true(fake_is_clean(f, none));
		plan_free(p);
		arena_free(arena);
		fake_free(f);
	}
	spec_free(spec);
	spec_free(none);
}

int main(void)
{
	const char *given = getenv("XLB_SEED");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(algorithms_move_nothing),
		cmocka_unit_test(what_is_hashed_changes),
		cmocka_unit_test(schedules_give_turns),
		cmocka_unit_test(tables_grow_and_shrink),
		cmocka_unit_test(maps_grow),
		cmocka_unit_test(changes_move_little),
		cmocka_unit_test(hooks_overlap),
		cmocka_unit_test(quarantine_keeps_ids),
		cmocka_unit_test(tunnels_cross_families),
		cmocka_unit_test(seeds_stay),
		cmocka_unit_test(guard_holds_empty),
		cmocka_unit_test(drift_is_apart),
		cmocka_unit_test(restores_before_creating),
		cmocka_unit_test(keeps_the_healthy_vm),
		cmocka_unit_test(replacing_all_leaves_no_gap),
		cmocka_unit_test(leaving_keeps_its_line),
		cmocka_unit_test(restart_without_next_hops),
		cmocka_unit_test(names_may_interleave),
		cmocka_unit_test(owners_are_found),
		cmocka_unit_test(takes_the_lowest),
		cmocka_unit_test(addresses_move),
		cmocka_unit_test(unfinished_ids_are_cleared),
		cmocka_unit_test(histories),
	};

	seed = given ? (uint32_t)strtoul(given, NULL, 10)
		     : (uint32_t)time(NULL) % 1000000;
	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
