/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every plan promises, on random files and random histories: edits,
 * failing backends, dying VMs, things changed behind the back, crashes in the
 * middle.  XLB_SEED repeats one run; the seed is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/plan_steps.h"

#define SERVICES 6
#define BACKENDS 6
#define HISTORIES 12
#define STEPS 40

/* "s0" and "s0-1": names of their VMs interleave. */
static const char *const names[SERVICES] = { "s0", "s1", "s2",
					     "s3", "s4", "s0-1" };

struct model_backend {
	bool present, drain, ported;
	unsigned int weight;
};

struct model_service {
	bool present, pool, second_port, v6;
	unsigned int vips; /* bit mask */
	unsigned int min;
	struct model_backend backends[BACKENDS];
};

struct model {
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

static bool is_dsr(size_t i)
{
	return i == 2;
}

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
	bool ported = !s->second_port && !is_dsr(i);

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
	if (is_dsr(i))
		for (unsigned int k = 0; k < 2; k++)
			if (s->vips & (1u << k))
				buf_addf(out, "192.0.2.%zu, ", i * 4 + k);
	if (!is_dsr(i))
		buf_addf(out, "192.0.2.%zu, ", i * 4 + (s->vips & 1));
	if (s->v6)
		buf_addf(out, "\"2001:db8::%zu\"", i + 1);
	buf_addf(out, "]\n    algorithm: %s\n    forwarding: %s\n",
		 i % 3 == 1 ? "round_robin" : "maglev",
		 is_dsr(i) ? "dsr" : "nat");
	buf_addf(out, "    protocol: %s\n", i == 3 ? "udp" : "tcp");
	buf_addf(out, "    ports: [80%s]\n",
		 !s->second_port ? ""
		 : is_dsr(i)	 ? ", 443"
				 : ", {listen: 443, target: 8443}");
	if (any) {
		buf_adds(out, "    backends:\n");
		print_backends(s, i, out);
	}
	if (s->pool)
		buf_addf(out, "    pool: {template: t, min: %u, max: 4}\n",
			 s->min);
}

static struct spec *model_spec(const struct model *m)
{
	struct buf out = BUF_INIT;
	struct spec *spec;
	bool any = false;

	buf_adds(&out,
		 "version: 1\nnode: {interfaces: [eth0]}\n"
		 "hypervisors: [{name: local, uri: \"test:///default\"}]\n"
		 "safety: {allow_empty: true}\n"
		 "templates:\n  - name: t\n    image: /x.img\n"
		 "    memory: 64MiB\n    network:\n      bridge: br0\n"
		 "      addresses: [10.2.0.10-10.2.0.30/8, "
		 "\"fd00:2::10-fd00:2::30/16\"]\n");
	for (size_t i = 0; i < SERVICES; i++)
		any |= m->services[i].present;
	buf_adds(&out, any ? "services:\n" : "services: []\n");
	for (size_t i = 0; i < SERVICES; i++)
		if (m->services[i].present)
			print_service(&m->services[i], i, &out);
	spec = steps_try_parse(buf_str(&out), true);
	buf_release(&out);
	return spec;
}

/* ---- what happens ---- */

static void edit(struct model *m)
{
	size_t i = pick(SERVICES);
	struct model_service *s = &m->services[i];
	struct model_backend *b = &s->backends[pick(BACKENDS)];

	switch (pick(9)) {
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
	switch (pick(5)) {
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

static void operator_acts(struct fake *f)
{
	if (f->drain_count && pick(2)) {
		f->drain_count--;
		return;
	}
	if (f->drain_count < 3)
		snprintf(f->drains[f->drain_count++], sizeof(f->drains[0]),
			 "%s/b%u", names[pick(SERVICES)], pick(BACKENDS));
}

static void something_happens(struct fake *f, struct model *m)
{
	switch (pick(9)) {
	case 0:
	case 1:
	case 2:
		edit(m);
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
		operator_acts(f);
		break;
	case 7:
		fake_want(f, names[pick(2) ? 0 : 5], 1 + pick(4));
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

		for (size_t k = 0; k < f->vm_count; k++)
			count += !strcmp(f->vms[k].service, s->name);
		for (size_t k = 0; k < f->wanted_count; k++)
			if (!strcmp(f->wanted[k].service, s->name) &&
			    f->wanted[k].count > wanted)
				wanted = f->wanted[k].count;
		assert_int_equal(count, s->pool.template ? wanted : 0);
	}
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
	assert_true(steps_converge(f, spec) > 0);
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

static void one_step(struct fake *f, const struct spec *spec)
{
	struct fake *before;

	check_same_plan(f, spec);
	before = fake_copy(f);
	assert_true(steps_converge(f, spec) > 0);
	assert_true(fake_is_clean(f, spec));
	check_foreign(f);
	check_pools(f, spec);
	check_crash(before, spec, f);
	fake_free(before);
}

static bool is_refused(struct fake *f, const struct spec *spec)
{
	struct plan *p = steps_plan(f, spec);
	bool refused = p->diags.errors > 0;

	plan_free(p);
	return refused;
}

static void one_history(uint32_t number)
{
	struct model m = { 0 }, good = { 0 };
	struct fake *f = fake_new();
	int parsed = 0;

	random_state = (seed + number) * 2654435761u | 1;
	print_message("# history %u: XLB_SEED=%u\n", number, seed + number);
	for (size_t i = 0; i < SERVICES; i++)
		random_service(i, &m.services[i]);
	for (int step = 0; step < STEPS; step++) {
		struct spec *spec = model_spec(&m);

		if (spec && !is_refused(f, spec)) {
			one_step(f, spec);
			good = m;
			parsed++;
		} else {
			m = good; /* as the reconciler does: it goes on */
		}
		spec_free(spec);
		something_happens(f, &m);
	}
	/* A history of refused files proves nothing. */
	assert_true(parsed > STEPS / 3);
	fake_free(f);
}

static void histories(void **state)
{
	uint32_t count = getenv("XLB_SEED") ? 1 : HISTORIES;

	(void)state;
	for (uint32_t i = 0; i < count; i++)
		one_history(i);
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

/* Carried out all the same, a refused plan would change nothing. */
static void refused_is_harmless(void **state)
{
	static const char *const edits[] = {
		"    algorithm: round_robin\n",
		"    pool: {template: t, min: 1, max: 5}\n",
	};
	struct buf before = BUF_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct fake *f = converged(TWO("a", "b"));
		char *yaml = mem_printf("%s%s", TWO("a", "b"), edits[i]);
		struct spec *spec = steps_parse(yaml);
		struct plan *p;
		struct buf after = BUF_INIT;

		/* A table for two can't hold so many. */
		for (uint32_t id = 1; i == 1 && id < 4; id++)
			if (f->services[id].name[0])
				f->services[id].slot_log2 = 8;
		fake_describe(f, &before);
		f->settled = false;
		p = steps_plan(f, spec);
		assert_int_equal(p->diags.errors, 1);
		for (size_t k = 0; k < p->count; k++)
			if (p->changes[k]->kind < CHANGE_VM_CREATE)
				fake_apply(f, spec, p->changes[k]);
		fake_describe(f, &after);
		assert_string_equal(buf_str(&after), buf_str(&before));
		buf_reset(&before);
		buf_release(&after);
		plan_free(p);
		spec_free(spec);
		free(yaml);
		fake_free(f);
	}
	buf_release(&before);
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
	assert_int_equal(count_kind(p, CHANGE_BACKEND_SET), 0);
	assert_int_equal(steps_apply(f, spec, p, p->count), 0);
	plan_free(p);
	for (uint32_t id = 1; id < 16; id++) {
		if (strcmp(f->owners[id].name, "a") != 0)
			continue;
		seen++;
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
		cmocka_unit_test(refused_is_harmless),
		cmocka_unit_test(guard_holds_empty),
		cmocka_unit_test(drift_is_apart),
		cmocka_unit_test(restores_before_creating),
		cmocka_unit_test(keeps_the_healthy_vm),
		cmocka_unit_test(replacing_all_leaves_no_gap),
		cmocka_unit_test(leaving_keeps_its_line),
		cmocka_unit_test(restart_without_next_hops),
		cmocka_unit_test(names_may_interleave),
		cmocka_unit_test(takes_the_lowest),
		cmocka_unit_test(addresses_move),
		cmocka_unit_test(unfinished_ids_are_cleared),
		cmocka_unit_test(histories),
	};

	seed = given ? (uint32_t)strtoul(given, NULL, 10)
		     : (uint32_t)time(NULL) % 1000000;
	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
