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
#define HISTORIES 24
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
		f->interfaces[0].xdp = pick(2) ? ATTACHED_NOT : ATTACHED_STALE;
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

static void one_history(uint32_t number)
{
	struct model m = { 0 };
	struct fake *f = fake_new();
	int parsed = 0;

	random_state = (seed + number) * 2654435761u | 1;
	print_message("# history %u: XLB_SEED=%u\n", number, seed + number);
	for (size_t i = 0; i < SERVICES; i++)
		random_service(i, &m.services[i]);
	for (int step = 0; step < STEPS; step++) {
		struct spec *spec = model_spec(&m);

		parsed += spec != NULL;
		if (spec)
			one_step(f, spec);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(histories),
	};

	seed = getenv("XLB_SEED") ? (uint32_t)atoi(getenv("XLB_SEED"))
				  : (uint32_t)time(NULL) % 1000000;
	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
