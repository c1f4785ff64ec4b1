/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPU time of planning alone: SERVICES services of 10 fixed backends, from
 * nothing, with nothing to do, and with one weight changed.  Medians, ms.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/plan_steps.h"

#define RUNS 21

static char *make_yaml(size_t services, unsigned int weight)
{
	struct buf out = BUF_INIT;
	char *text;

	buf_adds(&out, "version: 1\nnode: {interfaces: [eth0]}\nservices:\n");
	for (size_t i = 0; i < services; i++) {
		buf_addf(&out,
			 "  - name: s%zu\n    vips: [192.0.%zu.%zu]\n"
			 "    ports: [80]\n    backends:\n",
			 i, i / 250, i % 250 + 1);
		for (size_t k = 0; k < 10; k++)
			buf_addf(
				&out,
				"      - {name: b%zu, address: 10.%zu.%zu.%zu, "
				"weight: %u}\n",
				k, i / 250 + 1, i % 250, k + 1,
				i == 7 && k == 3 ? weight : 1);
	}
	text = mem_dup(buf_str(&out));
	buf_release(&out);
	return text;
}

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure(struct fake *f, const struct spec *spec, const char *what,
		    size_t services)
{
	struct arena *arena = arena_new();
	struct world *w = fake_observe(f, spec, arena);
	double took[RUNS];
	size_t count = 0;

	for (size_t i = 0; i < RUNS; i++) {
		double before = cpu_ms();
		struct plan *p = plan_make(spec, w);

		took[i] = cpu_ms() - before;
		count = p->count;
		plan_free(p);
	}
	qsort(took, RUNS, sizeof(*took), by_value);
	printf("plan services=%zu what=%s changes=%zu cpu_ms=%.3f\n", services,
	       what, count, took[RUNS / 2]);
	arena_free(arena);
}

static void carry_out(struct fake *f, const struct spec *spec)
{
	struct plan *p = steps_plan(f, spec);

	for (size_t i = 0; i < p->count; i++)
		fake_apply(f, spec, p->changes[i]);
	plan_free(p);
	f->settled = true;
	f->verify = false;
}

static void bench(size_t services)
{
	char *one = make_yaml(services, 1), *two = make_yaml(services, 2);
	struct spec *before = steps_parse(one), *after = steps_parse(two);
	struct fake *f = fake_new();

	fake_set_slots(f, 1u << 23);
	measure(f, before, "from_nothing_joining", services);
	fake_tick(f, before);
	measure(f, before, "from_nothing", services);
	carry_out(f, before);
	measure(f, before, "nothing_to_do", services);
	f->settled = false;
	measure(f, after, "one_weight", services);
	f->verify = true;
	measure(f, before, "verify", services);
	fake_free(f);
	spec_free(before);
	spec_free(after);
	free(one);
	free(two);
}

int main(void)
{
	bench(100);
	bench(1000);
	return 0;
}
