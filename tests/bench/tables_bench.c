/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it takes to compile the kernel's tables and to write them: the planner
 * in a world in memory, its result written to real maps.
 *
 *   - one service of 500 backends, 65,536 slots, after one weight changed
 *   - 1,000 services of 10 backends from nothing
 *   - how much memory a table takes for the backends that are declared
 *
 * Works in namespaces and on a bpffs of its own, which end with it.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

#include "actual/bpf.h"
#include "tests/bench/figures.h"
#include "tests/lib/plan_steps.h"

#define BPFFS "/sys/fs/bpf/xlb"
#define RUNS 21
#define MAX_FIGURES 8
#define ROOM (1u << 23) /* slots */

static struct datapath *datapath;
static struct figure figures[MAX_FIGURES];
static size_t figure_count;

__attribute__((noreturn)) static void give_up(const char *what)
{
	fprintf(stderr, "tables_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void open_datapath(void)
{
	const struct datapath_config cfg = { .bpffs = BPFFS,
					     .slots = ROOM,
					     .flow_seed = 1,
					     .features = XLB_FEATURE_ALL };
	struct diag_list diags = { 0 };
	struct buf said = BUF_INIT;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
		give_up("a bpffs of its own");
	if (datapath_open(&cfg, &datapath, &diags)) {
		diag_list_print(&diags, &said);
		fprintf(stderr, "%s", buf_str(&said));
		exit(1);
	}
	diag_list_release(&diags);
}

static char *make_yaml(size_t services, size_t backends, unsigned int weight)
{
	struct buf out = BUF_INIT;
	char *text;

	buf_adds(&out, "version: 1\nnode: {interfaces: [eth0]}\nservices:\n");
	for (size_t i = 0; i < services; i++) {
		buf_addf(&out,
			 "  - name: s%zu\n    vips: [192.0.%zu.%zu]\n"
			 "    ports: [80]\n    backends:\n",
			 i, i / 250, i % 250 + 1);
		for (size_t k = 0; k < backends; k++)
			buf_addf(
				&out,
				"      - {name: b%zu, address: 10.%zu.%zu.%zu, "
				"weight: %u}\n",
				k, i / 250 + 1, (i + k / 250) % 250,
				k % 250 + 1, i == 0 && k == 3 ? weight : 10);
	}
	text = mem_dup(buf_str(&out));
	buf_release(&out);
	return text;
}

static double clock_ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct timer {
	double wall, cpu; /* ms, summed over the laps */
	double wall_began, cpu_began;
};

static void timer_start(struct timer *t)
{
	t->wall_began = clock_ms(CLOCK_MONOTONIC);
	t->cpu_began = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
}

static void timer_stop(struct timer *t)
{
	t->wall += clock_ms(CLOCK_MONOTONIC) - t->wall_began;
	t->cpu += clock_ms(CLOCK_PROCESS_CPUTIME_ID) - t->cpu_began;
}

static struct plan *plan_timed(struct fake *f, const struct spec *spec,
			       struct arena *arena, struct timer *t)
{
	struct world *w = fake_observe(f, spec, arena);
	struct plan *p;

	timer_start(t);
	p = plan_make(spec, w);
	timer_stop(t);
	f->next_id = p->next_id;
	return p;
}

static void carry_out(struct fake *f, const struct spec *spec,
		      const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (fake_apply(f, spec, p->changes[i]))
			exit(1);
	f->settled = true;
	f->verify = false;
}

/* The slots, lines, owners and services of the world in memory. */
static uint32_t write_timed(const struct fake *f, bool fresh, struct timer *t)
{
	uint32_t written = 0;

	timer_start(t);
	for (uint32_t id = 1; fresh && id < XLB_BACKENDS; id++) {
		if (!f->owners[id].name[0])
			continue;
		datapath_set_owner(datapath, id, &f->owners[id]);
		datapath_set_backend(datapath, id, &f->backends[id]);
	}
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		const struct xlb_service *s = &f->services[id];
		struct slot_write w = { .base = s->slot_base,
					.count = 1u << s->slot_log2,
					.words = f->slots + s->slot_base,
					.fresh = fresh,
					.from = UINT32_MAX };
		int changed;

		if (!s->name[0])
			continue;
		changed = datapath_write_slots(datapath, &w);
		errno = changed < 0 ? -changed : 0;
		if (errno)
			give_up("slots");
		written += (uint32_t)changed;
		datapath_set_service(datapath, id, s);
	}
	timer_stop(t);
	return written;
}

static void clear_slots(const struct fake *f)
{
	uint32_t count = 0;
	uint32_t *zero;
	struct slot_write w;

	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (f->services[id].name[0] &&
		    f->services[id].slot_base +
				    (1u << f->services[id].slot_log2) >
			    count)
			count = f->services[id].slot_base +
				(1u << f->services[id].slot_log2);
	zero = mem_array(count + 1, sizeof(*zero));
	w = (struct slot_write){
		.count = count, .words = zero, .fresh = true, .from = UINT32_MAX
	};
	datapath_write_slots(datapath, &w);
	free(zero);
}

/* Takes both arrays' order away. */
static void add_figure(const char *what, double goal, double *wall, double *cpu,
		       const char *more)
{
	struct figure *f = &figures[figure_count++];

	*f = (struct figure){
		.part = "tables",
		.what = what,
		.unit = "ms",
		.goal = goal,
		.value = median(wall, RUNS),
	};
	median_interval(wall, RUNS, &f->low, &f->high);
	f->spread = mem_printf("%.2f to %.2f over %d runs; CPU %.2f%s", f->low,
			       f->high, RUNS, median(cpu, RUNS), more);
}

static void bench_one_change(void)
{
	char *one = make_yaml(1, 500, 10), *two = make_yaml(1, 500, 11);
	struct spec *specs[2] = { steps_parse(one), steps_parse(two) };
	struct fake *f = fake_new();
	double wall[RUNS], cpu[RUNS];
	uint32_t words = 0;

	fake_set_slots(f, ROOM);
	if (steps_converge(f, specs[0]) < 0)
		exit(1);
	f->settled = true;
	write_timed(f, true, &(struct timer){ 0 });
	for (int i = 0; i < RUNS; i++) {
		const struct spec *spec = specs[(i + 1) % 2];
		struct arena *arena = arena_new();
		struct timer t = { 0 };
		struct plan *p = plan_timed(f, spec, arena, &t);

		carry_out(f, spec, p);
		words = write_timed(f, false, &t);
		wall[i] = t.wall;
		cpu[i] = t.cpu;
		plan_free(p);
		arena_free(arena);
	}
	add_figure("500 backends, 64k slots, one weight changed", 2, wall, cpu,
		   mem_printf("; %u slots differ", words));
	fake_free(f);
	spec_free(specs[0]);
	spec_free(specs[1]);
	free(one);
	free(two);
}

static void bench_from_nothing(void)
{
	char *yaml = make_yaml(1000, 10, 10);
	struct spec *spec = steps_parse(yaml);
	double wall[RUNS], cpu[RUNS], planned[RUNS];

	for (int i = 0; i < RUNS; i++) {
		struct fake *f = fake_new();
		struct arena *arena = arena_new();
		struct timer t = { 0 };
		struct plan *p;

		fake_set_slots(f, ROOM);
		fake_tick(f, spec); /* nobody's first probe is waited for */
		p = plan_timed(f, spec, arena, &t);
		planned[i] = t.wall;
		carry_out(f, spec, p);
		write_timed(f, true, &t);
		wall[i] = t.wall;
		cpu[i] = t.cpu;
		clear_slots(f);
		plan_free(p);
		arena_free(arena);
		fake_free(f);
	}
	add_figure("1,000 services of 10 backends from nothing", 100, wall, cpu,
		   mem_printf("; planned in %.1f", median(planned, RUNS)));
	spec_free(spec);
	free(yaml);
}

/*
 * A power of two of slots for so many backends: what a backend takes may
 * differ by that power between one declared maximum and another.
 */
static void bench_memory(void)
{
	double least = 1e9, most = 0;

	/* Below, a table has its least size; above, its greatest. */
	for (size_t max = 1; max <= 160; max++) {
		double bytes =
			(double)(sizeof(uint32_t) << table_log2_for(max)) /
			(double)max;

		least = bytes < least ? bytes : least;
		most = bytes > most ? bytes : most;
	}
	figures[figure_count++] = (struct figure){
		.part = "tables",
		.what = "most over least bytes of slots a declared backend",
		.unit = "x",
		.value = most / least,
		.goal = 2,
		.low = most / least,
		.high = most / least,
		.spread = mem_printf("%.0f to %.0f bytes, max 1 to 160", least,
				     most),
	};
}

int main(void)
{
	open_datapath();
	bench_one_change();
	bench_from_nothing();
	bench_memory();
	datapath_close(datapath);
	errno = -figures_write(figures, figure_count);
	if (errno)
		give_up("figures");
	return 0;
}
