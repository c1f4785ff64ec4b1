/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A life of services and VMs - made, scaled, replaced, edited, removed - in
 * which the process dies after every single change, before and after time
 * passes, with calls about VMs not made, half done or done; and in which every
 * single change fails, or is made and fails all the same.  It must get to the
 * end that a life without harm gets to, with nothing left.
 *
 * Every kind of change there is (the effects of apply.c) must have been one
 * that it died at, before and after, and one that failed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/plan_steps.h"

/* Ways to die at a point; under a sanitizer each takes ten times as long. */
#ifdef __SANITIZE_ADDRESS__
#define HOWS 1
#else
#define HOWS 6
#endif

#define HEAD                                                              \
	"version: 1\nnode: {interfaces: [eth0]}\n"                        \
	"safety: {allow_empty: true}\n"                                   \
	"hypervisors: [{name: local, uri: \"test:///default\"}]\n"        \
	"templates:\n  - name: t\n    image: /x.img\n    memory: 64MiB\n" \
	"    network: {bridge: br0, addresses: [10.2.0.10-10.2.0.24/8]}\n"
#define TC_HEAD                                                           \
	"version: 1\nnode: {interfaces: [{name: eth0, hook: tc}]}\n"      \
	"safety: {allow_empty: true}\n"                                   \
	"hypervisors: [{name: local, uri: \"test:///default\"}]\n"        \
	"templates:\n  - name: t\n    image: /x.img\n    memory: 64MiB\n" \
	"    network: {bridge: br0, addresses: [10.2.0.10-10.2.0.24/8]}\n"
#define WEB WEB_BY("maglev", "nat", "4")
#define WEB_BY(algorithm, forwarding, max)                                 \
	"  - name: web\n    vips: [192.0.2.10]\n    algorithm: " algorithm \
	"\n    forwarding: " forwarding "\n"                               \
	"    ports: [80, 443]\n"                                           \
	"    backends: [{name: old, address: 10.1.0.1}]\n"                 \
	"    pool: {template: t, min: 1, max: " max "}\n"
#define DNS(weight, first) DNS_BY("round_robin", "stateless", weight, first)
#define DNS_BY(algorithm, udp, weight, first)                           \
	"  - name: dns\n    vips: [192.0.2.53, \"2001:db8::53\"]\n"     \
	"    protocol: udp\n    ports: [53]\n    algorithm: " algorithm \
	"\n    udp: " udp "\n"                                          \
	"    backends:\n"                                               \
	"      - {name: n" first ", addresses: [10.1.1." first          \
	", \"fd00:1::" first "\"], weight: " weight "}\n"               \
	"      - {name: ns, addresses: [10.1.1.99, \"fd00:1::99\"]}\n"

static void want_three(struct fake *f)
{
	fake_want(f, "web", 3);
}

static void want_one(struct fake *f)
{
	fake_want(f, "web", 1);
}

static void vm_dies(struct fake *f)
{
	struct fake_vm *v = fake_vm(f, "web-2");

	assert_non_null(v);
	v->running = false;
}

static void backend_dies(struct fake *f)
{
	struct ip a;

	assert_true(ip_parse("10.1.0.1", &a));
	fake_probe_ends(f, &a, TRUTH_REFUSES);
}

static void pins_go(struct fake *f)
{
	f->unpinned = 3;
	f->verify = true;
}

/* One leaves, and is wanted again before it has left. */
static void wanted_again(struct fake *f)
{
	struct fake_vm *v = fake_vm(f, "web-2");

	assert_non_null(v);
	v->drains = true;
}

static void machine_reboots(struct fake *f)
{
	for (size_t i = 0; i < f->vm_count; i++)
		f->vms[i].running = f->vms[i].was_running = false;
}

/* What the sweeps of a long time would do. */
static void all_rests(struct fake *f)
{
	for (uint32_t i = 0; i < f->slot_count; i++)
		if (XLB_SLOT_STATE(f->slots[i]) != XLB_REST)
			f->slots[i] =
				XLB_SLOT(XLB_SLOT_CUR(f->slots[i]),
					 XLB_SLOT_CUR(f->slots[i]), XLB_REST);
}

static const struct phase {
	const char *name;
	const char *yaml;
	void (*happens)(struct fake *f);
} phases[] = {
	{ "made", HEAD "services:\n" WEB DNS("1", "11"), NULL },
	{ "scaled_up", HEAD "services:\n" WEB DNS("1", "11"), want_three },
	{ "restored", HEAD "services:\n" WEB DNS("1", "11"), wanted_again },
	{ "pins_removed", HEAD "services:\n" WEB DNS("1", "11"), pins_go },
	{ "rebooted", HEAD "services:\n" WEB DNS("1", "11"), machine_reboots },
	{ "vm_replaced", HEAD "services:\n" WEB DNS("1", "11"), vm_dies },
	{ "backend_died", HEAD "services:\n" WEB DNS("1", "11"), backend_dies },
	{ "weight_edited", HEAD "services:\n" WEB DNS("3", "11"), NULL },
	{ "backend_replaced", HEAD "services:\n" WEB DNS("3", "12"), NULL },
	{ "scaled_down", HEAD "services:\n" WEB DNS("3", "12"), want_one },
	{ "table_grown",
	  HEAD "services:\n" WEB_BY("maglev", "nat", "9") DNS("3", "12"),
	  NULL },
	{ "table_shrunk",
	  HEAD "services:\n" WEB_BY("maglev", "nat", "1") DNS("3", "12"),
	  all_rests },
	{ "algorithms_changed",
	  HEAD "services:\n" WEB_BY("weighted_round_robin", "nat", "1")
		  DNS_BY("source_hash", "sticky", "3", "12"),
	  NULL },
	{ "all_at_once",
	  HEAD "services:\n" WEB_BY("least_connections", "ipip", "9")
		  DNS_BY("random", "stateless", "1", "13"),
	  want_three },
	{ "hook_changed",
	  TC_HEAD "services:\n" WEB_BY("source_hash", "gue", "1")
		  DNS_BY("maglev", "sticky", "1", "13"),
	  NULL },
	{ "service_removed", HEAD "services:\n" DNS("3", "12"), NULL },
	{ "all_removed", HEAD "services: []\n", NULL },
};

/* How it ends at a change of a kind. */
enum harm { DIES_BEFORE, DIES_AFTER, FAILS, LIES, HARMS };

static bool harmed[CHANGE_KIND_COUNT][HARMS];

static void note_death(const struct plan *p, size_t n)
{
	if (n)
		harmed[p->changes[n - 1]->kind][DIES_AFTER] = true;
	if (n < p->count)
		harmed[p->changes[n]->kind][DIES_BEFORE] = true;
}

/* False: the phase is over before its n-th change. */
static bool run_to(struct fake *f, const struct spec *spec, size_t n, bool tick)
{
	for (int round = 0; round < 80; round++) {
		struct plan *p = steps_plan(f, spec);
		size_t count = p->count;

		assert_int_equal(p->diags.errors, 0);
		assert_int_equal(steps_apply(f, spec, p, n), 0);
		if (n <= count)
			note_death(p, n);
		plan_free(p);
		if (n <= count) {
			if (tick)
				fake_tick(f, spec);
			return true;
		}
		n -= count;
		if (!fake_tick(f, spec) && !count)
			return false;
	}
	fail_msg("no end");
	return false;
}

/* What the product does with the rest when one fails: see apply(). */
static void apply_failing(struct fake *f, const struct spec *spec,
			  const struct plan *p, size_t at, enum harm how)
{
	const struct change *bad = p->changes[at];

	harmed[bad->kind][how] = true;
	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (i > at && change_needs(c, bad))
			continue;
		if (i != at || how != FAILS)
			assert_int_equal(fake_apply(f, spec, c), 0);
		assert_true(fake_is_sound(f));
		if (i == at && change_is_foundation(c))
			return;
	}
}

/* Its n-th change fails.  False: there is no n-th. */
static bool fail_at(struct fake *f, const struct spec *spec, size_t n,
		    enum harm how)
{
	for (int round = 0; round < 80; round++) {
		struct plan *p = steps_plan(f, spec);
		size_t count = p->count;

		if (n < count)
			apply_failing(f, spec, p, n, how);
		else
			assert_int_equal(steps_apply(f, spec, p, count), 0);
		plan_free(p);
		if (n < count)
			return true;
		n -= count;
		if (!fake_tick(f, spec) && !count)
			return false;
	}
	fail_msg("no end");
	return false;
}

static void compare(const struct fake *f, const char *want, const char *phase,
		    size_t n, uint32_t how)
{
	struct buf text = BUF_INIT;

	fake_describe(f, &text);
	if (strcmp(buf_str(&text), want) != 0)
		print_error("# %s, harmed at change %zu (%u)\n", phase, n, how);
	assert_string_equal(buf_str(&text), want);
	buf_release(&text);
}

static size_t kill_everywhere(const struct fake *start, const struct spec *spec,
			      const char *want, const char *phase)
{
	size_t n = 0, points = 0;
	bool more = true;

	for (; more; n++) {
		for (uint32_t how = 0; how < HOWS; how++) {
			struct fake *f = fake_copy(start);

			more = run_to(f, spec, n, how % 2);
			fake_crash(f, how / 2);
			assert_true(steps_converge(f, spec) > 0);
			assert_true(fake_is_clean(f, spec));
			compare(f, want, phase, n, how);
			fake_free(f);
			points++;
		}
	}
	/* A phase that changes nothing tests nothing. */
	assert_true(n > 1);
	return points;
}

static size_t fail_everywhere(const struct fake *start, const struct spec *spec,
			      const char *want, const char *phase)
{
	size_t points = 0;

	for (enum harm how = FAILS; how <= LIES; how++) {
		bool more = true;

		for (size_t n = 0; more; n++) {
			struct fake *f = fake_copy(start);

			more = fail_at(f, spec, n, how);
			/* As after any failure, everything is looked at. */
			f->verify = true;
			assert_true(steps_converge(f, spec) > 0);
			assert_true(fake_is_clean(f, spec));
			compare(f, want, phase, n, how);
			fake_free(f);
			points++;
		}
	}
	return points;
}

/* Every point of one phase; ends with the world after it. */
static struct fake *one_phase(struct fake *start, const struct phase *phase)
{
	struct spec *spec = steps_parse(phase->yaml);
	struct fake *end;
	struct buf want = BUF_INIT;
	size_t killed, failed;

	start->settled = false;
	if (phase->happens)
		phase->happens(start);
	end = fake_copy(start);
	assert_true(steps_converge(end, spec) > 0);
	assert_true(fake_is_clean(end, spec));
	fake_describe(end, &want);
	killed = kill_everywhere(start, spec, buf_str(&want), phase->name);
	failed = fail_everywhere(start, spec, buf_str(&want), phase->name);
	print_message("# %s: killed at %zu points, failed at %zu\n",
		      phase->name, killed, failed);
	buf_release(&want);
	spec_free(spec);
	fake_free(start);
	return end;
}

/* A new kind of change without a phase that makes it fails here. */
static void check_kinds(void)
{
	for (int kind = 0; kind < CHANGE_KIND_COUNT; kind++)
		for (int how = 0; how < HARMS; how++)
			if (!harmed[kind][how])
				fail_msg("no phase is harmed (%d) at a change "
					 "of kind %d of plan.h",
					 how, kind);
}

static void a_life(void **state)
{
	struct fake *f = fake_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
		f = one_phase(f, &phases[i]);
	assert_int_equal(f->vm_count, 0);
	assert_int_equal(f->reply_count, 0);
	fake_free(f);
	check_kinds();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_life) };

	return cmocka_run_group_tests_name("plan_crash", tests, NULL, NULL);
}
