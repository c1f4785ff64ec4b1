/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets a second through the balancer on a stick, on one core:
 *
 *   live_bench INTERFACE NETNS PEER [ROUNDS]
 *
 * Sends TCP packets of a million clients out of INTERFACE, a veth whose other
 * end is PEER in the namespace NETNS.  There sits in turn an empty program that
 * sends everything back (the floor), the balancer with its slots at rest, and
 * with all of them moving.  Two figures of how many come back a second:
 *
 * - while they flow: from block to block of those that arrive, by their own
 *   stamps;
 * - by the clock on the wall, as one sees it who starts the generator again and
 *   again: a run of RUN frames ends with two RCU grace periods, in which
 *   nothing is sent.  They dilute what a program costs, so ratios look better.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"
#include "tests/bench/figures.h"
#include "tests/bench/fixture.h"
#include "tests/bench/frames.h"
#include "tests/bench/live.h"

/* Generated, and not as strict as we are. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "bench/live.skel.h"
#include "bpf/xdp.skel.h"
#pragma GCC diagnostic pop

#define FLOWS (1u << 20)
#define MAX_ROUNDS 101
#define RUN (32u * BENCH_BLOCK) /* frames */
#define RUNS 4 /* a round: each flow once */
#define BLOCKS (RUNS * RUN / BENCH_BLOCK)
#define BATCH 64 /* what a driver's poll takes at once */

enum contender { FLOOR, AT_REST_DSR, AT_REST_NAT, MOVING_NAT, CONTENDERS };

static const struct {
	const char *name;
	int service;
	double goal; /* of the floor */
} contenders[CONTENDERS] = {
	[FLOOR] = { "XDP_TX floor", NAT, 0 },
	[AT_REST_DSR] = { "dsr, at rest", DSR, 0.9 },
	[AT_REST_NAT] = { "nat, at rest", NAT, 0.9 },
	[MOVING_NAT] = { "nat, all slots moving", NAT_MOVING, 0.82 },
};

static struct live_bpf *ends;
static struct xdp_bpf *balancer;
static int rounds = 15;
static uint64_t sent[CONTENDERS], came[CONTENDERS];

/* Millions a second, in round after round. */
enum clock { FLOWING, WALL, CLOCKS };
static double mpps[CLOCKS][CONTENDERS][MAX_ROUNDS];

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void load_ends(const char *interface)
{
	ends = live_bpf__open();
	if (!ends)
		die("open");
	ends->rodata->live_ifindex = if_nametoindex(interface);
	ends->rodata->live_mask = FLOWS - 1;
	if (!ends->rodata->live_ifindex)
		die(interface);
	if (live_bpf__load(ends))
		die("load");
}

static void load_balancer(void)
{
	uint32_t cpus = (uint32_t)libbpf_num_possible_cpus();

	balancer = xdp_bpf__open();
	if (!balancer)
		die("open");
	bpf_map__set_max_entries(balancer->maps.slots,
				 TABLES * TABLE_SLOTS / XLB_LINE_SLOTS);
	bpf_map__set_max_entries(balancer->maps.flows, FLOW_LINES);
	bpf_map__set_max_entries(balancer->maps.counters, cpus * XLB_BACKENDS);
	bpf_map__set_max_entries(balancer->maps.cursors, cpus * XLB_SERVICES);
	balancer->rodata->features =
		XLB_FEATURE_V4 | XLB_FEATURE_NAT | XLB_FEATURE_DSR;
	balancer->rodata->flow_seed = FLOW_SEED;
	balancer->rodata->flow_shift = 32 - (uint32_t)__builtin_ctz(FLOW_LINES);
	if (xdp_bpf__load(balancer))
		die("load");
	fixture_fill(&balancer->bss->tables);
	fixture_fill_slots(bpf_map__fd(balancer->maps.slots));
}

/* A link's descriptor; the link goes with this process. */
static int attach(const struct bpf_program *program, const char *interface)
{
	int fd = bpf_link_create(bpf_program__fd(program),
				 (int)if_nametoindex(interface), BPF_XDP, NULL);

	if (fd < 0)
		die(interface);
	return fd;
}

static int attach_in(const char *netns, const struct bpf_program *program,
		     const char *interface)
{
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int other = open(netns, O_RDONLY | O_CLOEXEC);
	int link;

	if (own < 0 || other < 0 || setns(other, CLONE_NEWNET))
		die(netns);
	link = attach(program, interface);
	if (setns(own, CLONE_NEWNET))
		die("back in our namespace");
	close(own);
	close(other);
	return link;
}

static void send_frames(const struct frame *f, uint32_t count)
{
	struct xdp_md md = { .data_end = BENCH_BYTES };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = f->data,
		    .data_size_in = BENCH_BYTES, .ctx_in = &md,
		    .ctx_size_in = sizeof(md), .repeat = (int)count,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);

	if (bpf_prog_test_run_opts(bpf_program__fd(ends->progs.generate), &o))
		die("live frames");
}

static void check_came(enum contender who, uint64_t count)
{
	sent[who] += (uint64_t)RUNS * RUN;
	came[who] += count;
	if (count >= (uint64_t)RUNS * RUN / 2)
		return;
	fprintf(stderr, "live_bench: %s: only %llu of %u came back\n",
		contenders[who].name, (unsigned long long)count, RUNS * RUN);
	exit(1);
}

/* Millions a second that came back; what is lost on the way doesn't count. */
static void send_round(enum contender who, double ret_mpps[CLOCKS])
{
	struct frame_spec spec = { .family = 4,
				   .proto = IPPROTO_TCP,
				   .kind = FRAME_ACK,
				   .to = vip_of(contenders[who].service, 4) };
	volatile struct live_state *state = &ends->data_state->live_state;
	double took[BLOCKS], walls[RUNS];
	struct frame f;
	size_t blocks;

	frame_make(&spec, &f);
	memcpy((void *)state->frame, f.data, BENCH_BYTES);
	state->back.count = 0;
	for (int i = 0; i < RUNS; i++) {
		uint64_t before = state->back.count;
		double began = now_us();

		send_frames(&f, RUN);
		walls[i] = (double)(state->back.count - before) /
			   (now_us() - began);
	}
	check_came(who, state->back.count);
	ret_mpps[WALL] = median(walls, RUNS);
	blocks = state->back.count / BENCH_BLOCK - 1;
	for (size_t i = 0; i < blocks; i++)
		took[i] = (double)(state->back.stamp[i + 1] -
				   state->back.stamp[i]);
	ret_mpps[FLOWING] = BENCH_BLOCK * 1e3 / median(took, blocks);
}

static void measure(int link)
{
	const struct bpf_program *bounce = ends->progs.bounce;
	const struct bpf_program *path = balancer->progs.xlb_xdp;
	double rate[CLOCKS];

	for (int round = -1; round < rounds; round++)
		for (int i = 0; i < CONTENDERS; i++) {
			int fd = bpf_program__fd(i == FLOOR ? bounce : path);

			if (bpf_link_update(link, fd, NULL))
				die("swap");
			send_round((enum contender)i, rate);
			for (int k = 0; k < CLOCKS && round >= 0; k++)
				mpps[k][i][round] = rate[k];
		}
}

static const char *const clock_names[CLOCKS] = {
	[FLOWING] = "while they flow",
	[WALL] = "by the wall clock",
};

static struct figure rate_of(enum contender who, enum clock clock)
{
	double sorted[MAX_ROUNDS];
	struct figure f = { .part = "live", .unit = "Mpps" };

	memcpy(sorted, mpps[clock][who], sizeof(sorted));
	f.value = median(sorted, (size_t)rounds);
	median_interval(sorted, (size_t)rounds, &f.low, &f.high);
	f.what = mem_printf("live, %s, %s", contenders[who].name,
			    clock_names[clock]);
	f.spread =
		mem_printf("%.2f to %.2f; %.2f %% lost", f.low, f.high,
			   100 * (1 - (double)came[who] / (double)sent[who]));
	return f;
}

/* The goals were set by the wall clock. */
static struct figure ratio_of(enum contender who, enum clock clock)
{
	double ratio[MAX_ROUNDS];
	struct figure f = { .part = "live", .unit = "x", .at_least = true };

	for (int i = 0; i < rounds; i++)
		ratio[i] = mpps[clock][who][i] / mpps[clock][FLOOR][i];
	f.value = median(ratio, (size_t)rounds);
	median_interval(ratio, (size_t)rounds, &f.low, &f.high);
	f.goal = clock == WALL ? contenders[who].goal : 0;
	f.what = mem_printf("live, %s over the floor, %s", contenders[who].name,
			    clock_names[clock]);
	f.spread = mem_printf("%.3f to %.3f over %d rounds", f.low, f.high,
			      rounds);
	return f;
}

static void report(void)
{
	struct figure figures[2 * CLOCKS * CONTENDERS];
	size_t count = 0;

	for (int k = 0; k < CLOCKS; k++) {
		for (int i = 0; i < CONTENDERS; i++)
			figures[count++] =
				rate_of((enum contender)i, (enum clock)k);
		for (int i = FLOOR + 1; i < CONTENDERS; i++)
			figures[count++] =
				ratio_of((enum contender)i, (enum clock)k);
	}
	errno = -figures_write(figures, count);
	if (errno)
		die("figures");
}

/* The frames' whole way is taken on the CPU that makes them. */
static void stay_on_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

int main(int argc, char **argv)
{
	int link;

	if (argc < 4 || argc > 5) {
		fprintf(stderr,
			"usage: live_bench INTERFACE NETNS PEER [ROUNDS]\n");
		return 64;
	}
	if (argc == 5)
		rounds = atoi(argv[4]);
	if (rounds < 1 || rounds > MAX_ROUNDS)
		rounds = MAX_ROUNDS;
	stay_on_cpu();
	load_ends(argv[1]);
	load_balancer();
	attach(ends->progs.back, argv[1]);
	link = attach_in(argv[2], ends->progs.bounce, argv[3]);
	measure(link);
	report();
	return 0;
}
