/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guards promise at every single step, whatever comes in between:
 * never more VMs deleted in any stretch of time than safety.max_vm_deletes
 * allows, never fewer ready ones than min because of us.  On a fake world,
 * with the real planner and ledger.  XLB_SEED repeats a run; it is printed.
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
#include "tests/lib/plan_steps.h"

#define HISTORIES 12
#define STEPS 120
#define PER 20 /* seconds, which are ticks */
#define COUNT 2

#define HEAD                                                               \
	"version: 1\nnode: {interfaces: [eth0]}\n"                         \
	"safety: {max_vm_deletes: {count: 2, per: 20s}, allow_empty: "     \
	"true}\n"                                                          \
	"hypervisors: [{name: local, uri: \"test:///default\"}]\n"         \
	"templates:\n  - name: t\n    image: /x.img\n    memory: 64MiB\n"  \
	"    network: {bridge: br0, addresses: [10.2.0.10-10.2.0.90/8]}\n" \
	"services:\n"
#define OTHER                                                  \
	"  - name: other\n    vips: [192.0.2.20]\n    ports: " \
	"[80]\n    backends: [{address: 10.1.0.1}]\n"
#define POOL(min, max)                                                        \
	HEAD OTHER "  - name: web\n    vips: [192.0.2.10]\n    ports: [80]\n" \
		   "    pool: {template: t, min: " min ", max: " max "}\n"
#define SCALED(min, max)                                 \
	POOL(min, max)                                   \
	"    scaling: {signals: [{metric: cpu, target: " \
	"60%}]}\n"
#define NO_POOL                                                               \
	HEAD OTHER "  - name: web\n    vips: [192.0.2.10]\n    ports: [80]\n" \
		   "    backends: [{address: 10.1.0.2}]\n"
#define GONE HEAD OTHER

/* ---- an account of its own ---- */

struct started {
	uint64_t when;
	char vm[64];
	bool going;
};

static struct {
	struct started items[4096];
	size_t count;
} account;

static struct started *going(const char *vm)
{
	for (size_t i = 0; i < account.count; i++)
		if (account.items[i].going && !strcmp(account.items[i].vm, vm))
			return &account.items[i];
	return NULL;
}

static void note_start(uint64_t now, const char *vm)
{
	struct started *s = &account.items[account.count++];

	assert_true(account.count < ARRAY_SIZE(account.items));
	s->when = now;
	s->going = true;
	snprintf(s->vm, sizeof(s->vm), "%s", vm);
}

/* No window that ends with the newest one holds more than count. */
static void check_window(uint64_t now)
{
	size_t n = 0;

	for (size_t i = 0; i < account.count; i++)
		n += account.items[i].when + PER * 1000000000ull > now;
	if (n > COUNT)
		for (size_t i = 0; i < account.count; i++)
			fprintf(stderr, "# %s at %llu\n", account.items[i].vm,
				(unsigned long long)(account.items[i].when /
						     1000000000));
	assert_true(n <= COUNT);
}

static void note_change(const struct fake *f, const struct change *c)
{
	struct started *s;

	if (c->held || !c->name)
		return;
	s = going(c->name);
	if (c->kind == CHANGE_RESTORE && s)
		s->going = false;
	if ((c->kind != CHANGE_DRAIN && c->kind != CHANGE_VM_REMOVE) || s)
		return;
	note_start(f->now, c->name);
	check_window(f->now);
}

static void forget_gone(struct fake *f)
{
	for (size_t i = 0; i < account.count; i++)
		if (!fake_vm(f, account.items[i].vm))
			account.items[i].going = false;
}

/* ---- a pass ---- */

static uint32_t serving(const struct world *w)
{
	uint32_t n = 0;

	for (size_t i = 0; i < w->vm_count; i++)
		n += w->vms[i].phase == PHASE_READY;
	return n;
}

static struct plan *pass_only(struct fake *f, const struct spec *spec,
			      struct world **ret_world)
{
	struct arena *arena = arena_new();
	struct plan *p;

	*ret_world = fake_observe(f, spec, arena);
	p = plan_make(spec, *ret_world);
	p->world_arena = arena;
	f->next_id = p->next_id;
	assert_int_equal(p->diags.errors, 0);
	return p;
}

/* How many of the plan's VM deletions are held back. */
static size_t one_pass(struct fake *f, const struct spec *spec, bool tracked)
{
	struct world *w;
	struct plan *p = pass_only(f, spec, &w);
	const struct service_spec *web = spec_find_service(spec, "web");
	uint32_t min = web ? web->pool.min : 0, before = serving(w),
		 drained = 0;
	size_t held = 0;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		held += c->held != NULL;
		drained += c->kind == CHANGE_DRAIN && !c->held;
		if (tracked)
			note_change(f, c);
		assert_int_equal(fake_apply(f, spec, c), 0);
		assert_true(fake_is_sound(f));
	}
	assert_true(before - drained >= (before < min ? before : min));
	fake_close_deletions(f, w, p);
	plan_free(p);
	forget_gone(f);
	return held;
}

/* Passes and time until nothing moves but the clock; held ones at the end. */
static size_t settle(struct fake *f, const struct spec *spec, int seconds)
{
	size_t held = 0;

	for (int i = 0; i < seconds; i++) {
		held = one_pass(f, spec, true);
		fake_tick(f, spec);
	}
	return held;
}

static size_t vms_of(const struct fake *f)
{
	return f->vm_count;
}

static struct fake *ten_vms(struct spec **ret_spec)
{
	struct fake *f = fake_new();

	account.count = 0;
	*ret_spec = steps_parse(POOL("10", "10"));
	f->guarded = true;
	assert_int_equal(settle(f, *ret_spec, 6), 0);
	assert_int_equal(vms_of(f), 10);
	return f;
}

/* ---- what must hold in turn ---- */

static void two_at_a_time(void **state)
{
	struct spec *ten, *two = steps_parse(POOL("2", "2"));
	struct fake *f = ten_vms(&ten);

	(void)state;
	assert_int_equal(one_pass(f, two, true), 6);
	assert_int_equal(settle(f, two, PER - 2), 6);
	assert_int_equal(vms_of(f), 8);
	assert_int_equal(settle(f, two, PER), 4);
	assert_int_equal(vms_of(f), 6);
	assert_int_equal(settle(f, two, PER * 3), 0);
	assert_int_equal(vms_of(f), 2);
	fake_free(f);
	spec_free(ten);
	spec_free(two);
}

/* The edit taken back: all stay, and what was counted has been. */
static void taken_back(void **state)
{
	struct spec *ten, *two = steps_parse(POOL("2", "2"));
	struct fake *f = ten_vms(&ten);

	(void)state;
	assert_int_equal(one_pass(f, two, true), 6);
	assert_int_equal(settle(f, ten, 4), 0);
	assert_int_equal(vms_of(f), 10);
	assert_int_equal(one_pass(f, two, true), 8);
	settle(f, two, 4);
	assert_int_equal(vms_of(f), 10);
	fake_free(f);
	spec_free(ten);
	spec_free(two);
}

static void approved(void **state)
{
	struct spec *ten, *two = steps_parse(POOL("2", "2"));
	struct fake *f = ten_vms(&ten);

	(void)state;
	assert_int_equal(one_pass(f, two, true), 6);
	f->approved = true;
	assert_int_equal(one_pass(f, two, false), 0);
	f->approved = false;
	/* Let go once, they go, though a restart forgot that they drain. */
	fake_crash(f, 1);
	for (int i = 0; i < 6; i++) {
		one_pass(f, two, false);
		fake_tick(f, two);
	}
	assert_int_equal(vms_of(f), 2);
	/* And that doesn't count. */
	assert_int_equal(f->ledger.count, 8);
	fake_free(f);
	spec_free(ten);
	spec_free(two);
}

static void lost_store(void **state)
{
	struct spec *ten, *two = steps_parse(POOL("2", "2"));
	struct fake *f = ten_vms(&ten);

	(void)state;
	settle(f, two, 5);
	assert_int_equal(vms_of(f), 8);
	fake_crash(f, 1);
	ledger_release(&f->ledger);
	assert_int_equal(settle(f, two, PER - 1), 6);
	assert_int_equal(vms_of(f), 8);
	settle(f, two, 5);
	assert_int_equal(vms_of(f), 6);
	fake_free(f);
	spec_free(ten);
	spec_free(two);
}

/* The scaler's own decisions have bounds of their own. */
static void scaler_is_free(void **state)
{
	struct spec *spec = steps_parse(SCALED("1", "10"));
	struct spec *four = steps_parse(SCALED("1", "4"));
	struct fake *f = fake_new();

	(void)state;
	account.count = 0;
	f->guarded = true;
	fake_want(f, "web", 10);
	settle(f, spec, 6);
	fake_want(f, "web", 6);
	assert_int_equal(one_pass(f, spec, false), 0);
	for (int i = 0; i < 6; i++) {
		one_pass(f, spec, false);
		fake_tick(f, spec);
	}
	assert_int_equal(vms_of(f), 6);
	assert_int_equal(f->ledger.count, 0);
	/* Two are above the new max; one more is the scaler's. */
	fake_want(f, "web", 3);
	assert_int_equal(one_pass(f, four, false), 0);
	assert_int_equal(f->ledger.count, 2);
	fake_free(f);
	spec_free(spec);
	spec_free(four);
}

static void pool_or_service_gone(void **state)
{
	static const char *const edits[] = { NO_POOL, GONE };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct spec *ten, *after = steps_parse(edits[i]);
		struct fake *f = ten_vms(&ten);

		assert_int_equal(settle(f, after, PER - 1), 8);
		assert_int_equal(vms_of(f), 8);
		settle(f, after, PER * 4 + 5);
		assert_int_equal(vms_of(f), 0);
		fake_free(f);
		spec_free(ten);
		spec_free(after);
	}
}

/* A service without a block that stays for its VMs: two go at a time. */
static void disbands(void **state)
{
	struct spec *ten, *gone = steps_parse(GONE);
	struct fake *f = ten_vms(&ten);
	AUTO_BUF struct buf text = BUF_INIT;

	(void)state;
	keep_print(spec_find_service(ten, "web"), &text);
	assert_null(keep_insert(gone, "web", buf_str(&text), KEPT_LEAVING));
	assert_int_equal(one_pass(f, gone, true), 8);
	assert_int_equal(settle(f, gone, PER - 2), 8);
	assert_int_equal(vms_of(f), 8);
	assert_true(fake_slots_of(f, "web", "web-1") > 0);
	/* One that dies is no less held, and is replaced. */
	fake_vm(f, "web-1")->running = false;
	settle(f, gone, 1);
	assert_int_equal(settle(f, gone, PER), 6);
	assert_int_equal(vms_of(f), 6);
	assert_int_equal(settle(f, gone, PER * 3), 0);
	assert_int_equal(vms_of(f), 0);
	fake_free(f);
	spec_free(ten);
	spec_free(gone);
}

/* Nothing about a paused service but its tables, and what was found off. */
static void paused(void **state)
{
	struct spec *ten,
		*two = steps_parse(POOL("2", "2") "    paused: true\n");
	struct fake *f = ten_vms(&ten);

	(void)state;
	fake_vm(f, "web-3")->running = false;
	settle(f, two, PER * 2);
	assert_int_equal(vms_of(f), 10);
	assert_int_equal(account.count, 0);
	assert_int_equal(fake_slots_of(f, "web", "web-3"), 0);
	assert_true(fake_slots_of(f, "web", "web-4") > 0);
	/* The host was rebooted. */
	for (size_t i = 0; i < f->vm_count; i++)
		f->vms[i].running = false;
	fake_crash(f, 0);
	settle(f, two, 6);
	assert_true(fake_vm(f, "web-3")->running);
	assert_int_equal(vms_of(f), 10);
	fake_free(f);
	spec_free(ten);
	spec_free(two);
}

/* Its pool went before it was paused: who was not let go yet stays. */
static void paused_without_pool(void **state)
{
	struct spec *ten,
		*gone = steps_parse(NO_POOL),
		*paused_too = steps_parse(NO_POOL "    paused: true\n");
	struct fake *f = ten_vms(&ten);

	(void)state;
	assert_int_equal(one_pass(f, gone, true), 8);
	fake_tick(f, gone);
	settle(f, paused_too, PER * 3);
	assert_int_equal(vms_of(f), 10);
	assert_int_equal(account.count, 2);
	settle(f, gone, PER * 5);
	assert_int_equal(vms_of(f), 0);
	fake_free(f);
	spec_free(ten);
	spec_free(gone);
	spec_free(paused_too);
}

/* Whoever asks for fewer than min doesn't get them. */
static void min_stays(void **state)
{
	struct spec *spec = steps_parse(SCALED("3", "10"));
	struct fake *f = fake_new();
	struct world *w;
	struct plan *p;
	size_t held = 0, drains = 0;
	struct arena *arena = arena_new();

	(void)state;
	fake_want(f, "web", 5);
	f->guarded = true;
	settle(f, spec, 6);
	w = fake_observe(f, spec, arena);
	for (size_t i = 0; i < w->service_count; i++)
		w->services[i].pool.wanted = 1;
	p = plan_make(spec, w);
	for (size_t i = 0; i < p->count; i++) {
		if (p->changes[i]->held)
			assert_string_equal(p->changes[i]->held->guard, "min");
		held += p->changes[i]->held != NULL;
		drains += p->changes[i]->kind == CHANGE_DRAIN;
	}
	assert_int_equal(held, 2);
	assert_int_equal(drains, 4);
	plan_free(p);
	arena_free(arena);
	fake_free(f);
	spec_free(spec);
}

static void no_deletions_at_all(void **state)
{
	struct vm_deletes_spec none = { .count = 0, .per = 1000000000 };
	struct vm_deletes_spec some = { .count = 3, .per = 10000000000 };
	struct ledger l = { 0 };
	struct arena *arena = arena_new();
	struct deletion d = { .time_ms = 5000 };

	(void)state;
	assert_int_equal(ledger_budget(&l, &some, 5000, arena).left, 0);
	ledger_begin(&l, 5000, false);
	assert_int_equal(ledger_budget(&l, &none, 5000, arena).left, 0);
	assert_int_equal(ledger_budget(&l, &none, 5000, arena).until_ms, 0);
	assert_int_equal(ledger_budget(&l, &some, 5000, arena).left, 3);
	for (int i = 0; i < 3; i++) {
		d.time_ms = 5000 + i * 1000;
		ledger_add(&l, &d, 5000 + i * 1000);
	}
	assert_int_equal(ledger_budget(&l, &some, 8000, arena).left, 0);
	assert_int_equal(ledger_budget(&l, &some, 8000, arena).until_ms, 15000);
	assert_int_equal(ledger_budget(&l, &some, 14999, arena).left, 0);
	assert_int_equal(ledger_budget(&l, &some, 15000, arena).left, 1);
	/* A limit that was lowered is over later. */
	some.count = 1;
	assert_int_equal(ledger_budget(&l, &some, 15000, arena).until_ms,
			 17000);
	/* A clock that was set back makes no deletion of the future. */
	d.time_ms = 1000000;
	assert_int_equal(ledger_add(&l, &d, 20000)->time_ms, 20000);
	ledger_release(&l);
	arena_free(arena);
}

/* ---- services at once ---- */

/* A file of `count` services with this limit; ret must have room. */
static struct spec *services(unsigned int count, const char *limit)
{
	AUTO_BUF struct buf b = BUF_INIT;

	buf_addf(&b,
		 "version: 1\nnode: {interfaces: [eth0]}\n"
		 "safety: {max_service_removals: %s}\nservices:%s\n",
		 limit, count ? "" : " []");
	for (unsigned int i = 0; i < count; i++)
		buf_addf(&b,
			 "  - name: s%u\n    vips: [192.0.2.%u]\n    ports: "
			 "[80]\n    backends: [{address: 10.1.0.%u}]\n",
			 i, i + 1, i + 1);
	return steps_parse(buf_str(&b));
}

static void removals(void **state)
{
	static const struct {
		unsigned int before, after;
		const char *limit, *guard;
	} cases[] = {
		{ 8, 6, "25%", NULL },
		{ 8, 5, "25%", "max_service_removals" },
		{ 8, 5, "37.5%", NULL },
		{ 2, 1, "25%", NULL }, /* a share that rounds to none */
		{ 2, 1, "0%", "max_service_removals" },
		{ 3, 1, "25%", "max_service_removals" },
		{ 3, 1, "100%", NULL },
		{ 1, 0, "100%", "allow_empty" },
		{ 8, 8, "0%", NULL },
		{ 0, 8, "0%", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake *f = fake_new();
		struct spec *before = services(cases[i].before, "0%");
		struct spec *after = services(cases[i].after, cases[i].limit);
		struct world *w;
		struct plan *p;

		settle(f, before, 3);
		p = pass_only(f, after, &w);
		plan_guard(p, after, w);
		assert_int_equal(p->held != NULL, cases[i].guard != NULL);
		assert_int_equal(p->guard_count, p->held != NULL);
		if (p->held)
			assert_string_equal(p->guards[0]->guard,
					    cases[i].guard);
		plan_free(p);
		/* Approved, or in force already: it goes through. */
		p = pass_only(f, after, &w);
		w->approved = i % 2;
		w->accepted = !w->approved;
		plan_guard(p, after, w);
		assert_null(p->held);
		plan_free(p);
		fake_free(f);
		spec_free(before);
		spec_free(after);
	}
}

/* After a reboot nothing runs; what was applied last counts all the same. */
static void removals_after_reboot(void **state)
{
	static const struct {
		unsigned int before, after;
		const char *guard;
	} cases[] = {
		{ 8, 6, NULL },		 { 8, 5, "max_service_removals" },
		{ 1, 0, "allow_empty" }, { 8, 0, "allow_empty" },
		{ 8, 9, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake *f = fake_new();
		struct spec *before = services(cases[i].before, "25%");
		struct spec *after = services(cases[i].after, "25%");
		struct world *w;
		struct plan *p;

		p = pass_only(f, after, &w);
		plan_guard(p, after, w);
		assert_null(p->held);
		w->applied = before;
		plan_guard(p, after, w);
		assert_int_equal(p->held != NULL, cases[i].guard != NULL);
		if (p->held)
			assert_string_equal(p->guards[0]->guard,
					    cases[i].guard);
		plan_free(p);
		fake_free(f);
		spec_free(before);
		spec_free(after);
	}
}

/* ---- whatever comes ---- */

static uint32_t random_state;

static uint32_t pick(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	random_state ^= random_state << 5;
	return random_state % n;
}

static void vanish(struct fake *f, size_t i)
{
	if (f->vms[i].op != FAKE_IDLE)
		return;
	f->vm_count--;
	memmove(&f->vms[i], &f->vms[i + 1],
		(f->vm_count - i) * sizeof(f->vms[i]));
}

static void trouble(struct fake *f)
{
	struct fake_vm *v;

	if (!f->vm_count)
		return;
	v = &f->vms[pick((uint32_t)f->vm_count)];
	switch (pick(4)) {
	case 0:
		v->running = false;
		break;
	case 1:
		vanish(f, (size_t)(v - f->vms));
		break;
	default:
		fake_probe_ends(f, &v->addresses[0], (int)pick(3));
		break;
	}
}

static size_t event(struct fake *f, size_t file, size_t files)
{
	switch (pick(12)) {
	case 0:
		return pick((uint32_t)files);
	case 1:
		fake_crash(f, pick(1000));
		break;
	case 2:
		/* The store is lost: nothing tells what is on its way out. */
		if (pick(4))
			break;
		fake_crash(f, pick(1000));
		ledger_release(&f->ledger);
		for (size_t i = 0; i < account.count; i++)
			account.items[i].going = false;
		break;
	case 3:
	case 4:
		trouble(f);
		break;
	case 5:
		f->now += (uint64_t)pick(PER * 2) * 1000000000;
		break;
	default:
		break;
	}
	return file;
}

static void one_history(struct spec **files, size_t count)
{
	struct fake *f = fake_new();
	size_t file = 0;

	account.count = 0;
	f->guarded = true;
	settle(f, files[0], 5);
	for (int step = 0; step < STEPS; step++) {
		file = event(f, file, count);
		one_pass(f, files[file], true);
		fake_tick(f, files[file]);
	}
	/* After quiet all that was asked for has gone. */
	for (size_t i = 0; i < f->truth_count; i++)
		f->truths[i].how = (enum fake_truth)0;
	assert_int_equal(settle(f, files[1], PER * 16), 0);
	assert_int_equal(vms_of(f), 2);
	assert_true(fake_is_clean(f, files[1]));
	fake_free(f);
}

static void random_histories(void **state)
{
	static const char *const texts[] = { POOL("10", "10"), POOL("2", "2"),
					     POOL("5", "5"),   POOL("1", "1"),
					     NO_POOL,	       GONE };
	struct spec *files[ARRAY_SIZE(texts)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		files[i] = steps_parse(texts[i]);
	for (int i = 0; i < HISTORIES; i++)
		one_history(files, ARRAY_SIZE(files));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		spec_free(files[i]);
}

int main(void)
{
	const char *given = getenv("XLB_SEED");
	uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 10)
			      : (uint32_t)time(NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_deletions_at_all),
		cmocka_unit_test(two_at_a_time),
		cmocka_unit_test(taken_back),
		cmocka_unit_test(approved),
		cmocka_unit_test(lost_store),
		cmocka_unit_test(scaler_is_free),
		cmocka_unit_test(pool_or_service_gone),
		cmocka_unit_test(disbands),
		cmocka_unit_test(paused),
		cmocka_unit_test(paused_without_pool),
		cmocka_unit_test(min_stays),
		cmocka_unit_test(removals),
		cmocka_unit_test(removals_after_reboot),
		cmocka_unit_test(random_histories),
	};

	random_state = seed | 1;
	printf("# XLB_SEED=%u\n", seed);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
