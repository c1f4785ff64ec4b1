/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the packet path costs over an empty program, in nanoseconds a packet.
 *
 *   packet_bench [--only TEXT] [--placements N] [--rounds N]
 *
 * BPF_PROG_TEST_RUN of the path in a wrapper (wrapper.bpf.c) that restores the
 * packet, against the same wrapper around a function that only returns the
 * same verdict.  A program has the features that its case needs and no others.
 * Rounds of all cases are interleaved, and before any figure counts the bytes
 * that come out are checked.
 *
 * Others' work is what disturbs most: a round in a few dozen costs twice as much
 * when the host gives the other half of the core to somebody else (42 ns
 * instead of 18, in every block of the round).  Where the kernel happens to put
 * programs and tables makes less than 1 ns of difference, seen over twelve
 * placements.  So the rounds are spread in time and over a few placements, for
 * each of which all is loaded anew while the memory of the one before is kept
 * from being used again.  A case's figure is the median of all its rounds.
 */
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"
#include "bpf/xlb.h"
#include "tests/bench/figures.h"
#include "tests/bench/fixture.h"
#include "tests/bench/frames.h"

/* Generated, and not as strict as we are. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "bench/wrapper.skel.h"
#pragma GCC diagnostic pop

#define MAX_PLACEMENTS 15
#define MAX_ROUNDS 31 /* of one placement */
#define MAX_SAMPLES (MAX_PLACEMENTS * MAX_ROUNDS)
#define REPEAT (64u * BENCH_BLOCK)

#define VERDICT_PASS 2
#define VERDICT_TX 3

struct bench_case {
	const char *name;
	int service;
	int family; /* 4 or 6 */
	uint32_t flows;
	double goal; /* ns over the floor; 0: none */
	enum frame_kind kind;
	bool known; /* memories are made beforehand */
	bool strangers; /* the destination varies, not the source */
	/* found out */
	uint32_t verdict; /* of a floor; 0 otherwise */
	struct wrapper_bpf *skel; /* of this placement */
	struct bench_case *floor;
	const char *failed; /* why there is no figure */
	uint32_t remembered;
	double ns[MAX_SAMPLES]; /* a packet, in round after round */
	double placed[MAX_PLACEMENTS]; /* medians over the floor */
};

#define MILLION (1u << 20)
#define SIXTEEN_MILLION (1u << 24)

static struct bench_case cases[] = {
	{ "v4 tcp dsr, 1 flow", DSR, 4, 1, .goal = 15 },
	{ "v4 tcp dsr, 1M flows", DSR, 4, MILLION, .goal = 18 },
	{ "v4 tcp nat, 1 flow", NAT, 4, 1, .goal = 18 },
	{ "v4 tcp nat, 1M flows", NAT, 4, MILLION, .goal = 21 },
	{ "v6 tcp dsr, 1 flow", DSR, 6, 1, .goal = 18 },
	{ "v6 tcp dsr, 1M flows", DSR, 6, MILLION, .goal = 20 },
	{ "v6 tcp nat, 1 flow", NAT, 6, 1, .goal = 20 },
	{ "v6 tcp nat, 1M flows", NAT, 6, MILLION, .goal = 23 },
	{ "v4 udp stateless dsr", UDP_DSR, 4, 1, .goal = 15 },
	{ "v4 udp stateless nat", UDP_NAT, 4, 1, .goal = 20 },
	{ "v4 udp stateless dsr, 1M flows", UDP_DSR, 4, MILLION,
	  .kind = FRAME_ACK },
	{ "v4 udp stateless nat, 1M flows", UDP_NAT, 4, MILLION,
	  .kind = FRAME_ACK },
	{ "v4 ipip", IPIP, 4, 1, .goal = 18 },
	{ "v4 ipip, 1M flows", IPIP, 4, MILLION, .kind = FRAME_ACK },
	{ "v4 gue", GUE, 4, 1, .goal = 40 },
	{ "v4 gue, 1M flows", GUE, 4, MILLION, .kind = FRAME_ACK },
	{ "v4 moving, 8k flows known", NAT_MOVING, 4, 8192, .goal = 28,
	  .known = true },
	{ "v4 moving, 64k flows known", NAT_MOVING, 4, 65536, .goal = 45,
	  .known = true },
	{ "v6 moving, 8k flows known", NAT_MOVING, 6, 8192, .known = true },
	{ "v4 16M ACKs, at rest", NAT, 4, SIXTEEN_MILLION, .kind = FRAME_ACK },
	{ "v4 16M SYNs, at rest", NAT, 4, SIXTEEN_MILLION, .kind = FRAME_SYN },
	{ "v4 16M SYNs, moving", NAT_MOVING, 4, SIXTEEN_MILLION, .goal = 40,
	  .kind = FRAME_SYN },
	{ "v4 round_robin, 8k flows known", NAT_TURNS, 4, 8192, .goal = 35,
	  .known = true },
	{ "v4 least_connections, 8k flows known", NAT_LEAST, 4, 8192,
	  .goal = 40, .known = true },
	{ "not ours: v4, another address", NOT_OURS, 4, 1, .goal = 5 },
	{ "not ours: v4, a million random ones", NOT_OURS, 4, MILLION,
	  .goal = 7, .strangers = true },
	{ "not ours: v6", NOT_OURS, 6, 1, .goal = 7 },
	{ "not ours: arp", NOT_OURS, 4, 1, .goal = 3, .kind = FRAME_ARP },
};
#define CASES ARRAY_SIZE(cases)

#define SYN_OVER_ACK 1.1 /* goal of 16M new SYNs at rest */

/* One a verdict, family, protocol and number of flows that a case has. */
static struct bench_case floors[CASES];
static size_t floor_count;
static const char *only = ""; /* cases whose name contains it */
static int placements = 3, rounds = 7;
static int placement; /* that is measured now */
static int samples; /* taken so far, of each case */

/* The next case that is asked for, after c; from NULL the first one. */
static struct bench_case *case_after(struct bench_case *c)
{
	for (c = c ? c + 1 : cases; c < cases + CASES; c++)
		if (strstr(c->name, only))
			return c;
	return NULL;
}

/* --- what a case is --- */

static uint8_t proto_of(const struct bench_case *c)
{
	return c->service < SERVICES ? services[c->service].proto : IPPROTO_TCP;
}

static uint8_t forwarding_of(const struct bench_case *c)
{
	return c->service < SERVICES ? services[c->service].forwarding
				     : XLB_NAT;
}

/* Bytes that come in front of the packet. */
static int head_of(const struct bench_case *c)
{
	if (c->service == IPIP)
		return 20;
	return c->service == GUE ? 28 : 0;
}

static enum bench_vary vary_of(const struct bench_case *c)
{
	if (c->flows == 1)
		return BENCH_FIXED;
	return c->strangers ? BENCH_DESTINATION : BENCH_SOURCE;
}

static uint32_t verdict_of(const struct bench_case *c)
{
	return c->service == NOT_OURS ? VERDICT_PASS : VERDICT_TX;
}

static uint32_t features_of(const struct bench_case *c)
{
	static const uint32_t by_forwarding[] = {
		[XLB_NAT] = XLB_FEATURE_NAT,
		[XLB_DSR] = XLB_FEATURE_DSR,
		[XLB_IPIP] = XLB_FEATURE_IPIP,
		[XLB_GUE] = XLB_FEATURE_GUE,
	};
	uint32_t features = by_forwarding[forwarding_of(c)];

	if (c->service == NOT_OURS)
		return features | XLB_FEATURE_V4 | XLB_FEATURE_V6;
	features |= c->family == 4 ? XLB_FEATURE_V4 : XLB_FEATURE_V6;
	if (services[c->service].flags & XLB_VIP_SCHEDULE)
		features |= XLB_FEATURE_SCHEDULE;
	if (services[c->service].flags & XLB_VIP_TWO_CHOICES)
		features |= XLB_FEATURE_TWO_CHOICES;
	return features;
}

static bool remembers(const struct bench_case *c)
{
	return c->service < SERVICES && services[c->service].table != AT_REST;
}

static struct frame frame_of(const struct bench_case *c, uint32_t client,
			     enum frame_kind kind)
{
	struct frame_spec spec = { .family = c->family,
				   .proto = proto_of(c),
				   .kind = kind,
				   .to = vip_of(c->service, c->family),
				   .client = client };
	struct frame f;

	frame_make(&spec, &f);
	return f;
}

/* --- programs --- */

static struct wrapper_bpf *first; /* whose tables all others use */

static void size_maps(struct wrapper_bpf *s, const struct bench_case *c)
{
	uint32_t cpus = (uint32_t)libbpf_num_possible_cpus();

	bpf_map__set_max_entries(s->maps.slots,
				 TABLES * TABLE_SLOTS / XLB_LINE_SLOTS);
	bpf_map__set_max_entries(s->maps.flows, remembers(c) ? FLOW_LINES : 1);
	bpf_map__set_max_entries(s->maps.counters, cpus * XLB_BACKENDS);
	bpf_map__set_max_entries(s->maps.cursors, cpus * XLB_SERVICES);
}

static void share_maps(struct wrapper_bpf *s)
{
	struct bpf_map *from = NULL, *to = NULL;

	for (;;) {
		from = bpf_object__next_map(first->obj, from);
		to = bpf_object__next_map(s->obj, to);
		if (!from || !to)
			break;
		/* Constants, the state of the wrapper and memories: its own. */
		if (to == s->maps.rodata || to == s->maps.flows ||
		    strstr(bpf_map__name(to), ".data"))
			continue;
		if (bpf_map__reuse_fd(to, bpf_map__fd(from)))
			die("shared map");
	}
}

static struct bench_words words_of(const struct frame *f)
{
	struct bench_words w;

	memcpy(&w.at0, f->data, 8);
	memcpy(&w.at8, f->data + 8, 4);
	memcpy(&w.at12, f->data + 12, 2);
	memcpy(&w.at20, f->data + 20, 2);
	memcpy(&w.at22, f->data + 22, 8);
	memcpy(&w.at30, f->data + 30, 4);
	memcpy(&w.at34, f->data + 34, 4);
	memcpy(&w.at38, f->data + 38, 8);
	memcpy(&w.at46, f->data + 46, 8);
	memcpy(&w.at54, f->data + 54, 4);
	memcpy(&w.csum, f->data + f->csum, 2);
	return w;
}

static void set_constants(struct wrapper_bpf *s, const struct bench_case *c)
{
	struct frame f = frame_of(c, 0, c->kind);
	struct bench_words words = words_of(&f);

	s->rodata->features = c->verdict ? 0 : features_of(c);
	s->rodata->flow_seed = FLOW_SEED;
	s->rodata->flow_shift =
		32 - (remembers(c) ? (uint32_t)__builtin_ctz(FLOW_LINES) : 0);
	s->rodata->bench_verdict = c->verdict;
	s->rodata->bench_family = (uint32_t)c->family;
	s->rodata->bench_csum = c->kind == FRAME_ARP ? 0 : (uint32_t)f.csum;
	s->rodata->bench_mask = c->flows - 1;
	s->rodata->bench_vary = vary_of(c);
	s->rodata->bench_head = head_of(c);
	memcpy((void *)&s->rodata->bench_words, &words, sizeof(words));
}

static void case_load(struct bench_case *c)
{
	c->skel = wrapper_bpf__open();
	if (!c->skel)
		die("open");
	size_maps(c->skel, c);
	if (first)
		share_maps(c->skel);
	set_constants(c->skel, c);
	/* Not needed for timing alone, and it takes a while to verify. */
	bpf_program__set_autoload(c->skel->progs.once,
				  !c->verdict && (!placement || c->known));
	if (wrapper_bpf__load(c->skel))
		die("load");
	if (first)
		return;
	first = c->skel;
	fixture_fill(&first->bss->tables);
	fixture_fill_slots(bpf_map__fd(first->maps.slots));
}

/*
 * The programs and what is their own go.  The memories are kept by a
 * descriptor of ours: the next placement shall not get the same pages.
 */
static void case_unload(struct bench_case *c)
{
	if (remembers(c) && dup(bpf_map__fd(c->skel->maps.flows)) < 0)
		die("dup");
	if (c->skel != first)
		wrapper_bpf__destroy(c->skel);
	c->skel = NULL;
}

/* --- running --- */

static uint32_t run(const struct bpf_program *prog, const struct frame *f,
		    uint32_t repeat, struct frame *out)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = f->data,
		    .data_size_in = BENCH_BYTES, .repeat = (int)repeat);

	if (out) {
		*out = *f;
		o.data_out = out->data;
		o.data_size_out = sizeof(out->data);
	}
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &o))
		die("test run");
	if (out)
		out->len = o.data_size_out;
	return o.retval;
}

static uint32_t count_remembered(const struct bench_case *c)
{
	size_t size = FLOW_LINES * sizeof(struct xlb_flow_line);
	struct xlb_flow_line *lines = mmap(NULL, size, PROT_READ, MAP_SHARED,
					   bpf_map__fd(c->skel->maps.flows), 0);
	uint32_t count = 0;

	if (lines == MAP_FAILED)
		die("flows");
	for (size_t i = 0; i < (size_t)FLOW_LINES * XLB_FLOW_WAYS; i++) {
		uint64_t entry =
			lines[i / XLB_FLOW_WAYS].entry[i % XLB_FLOW_WAYS];

		count += entry && XLB_FLOW_CLASS(entry) == XLB_FLOW_ESTABLISHED;
	}
	munmap(lines, size);
	return count;
}

/*
 * Give each flow of the case a memory: a SYN and the packets after it.  Where
 * the SYN was one too many a second, the flow is remembered all the same, by
 * what its slot had before.
 */
static void case_remember(struct bench_case *c)
{
	for (uint32_t i = 0; i < c->flows; i++) {
		uint32_t client = c->flows > 1 ? i * 2654435769u : 0;
		struct frame syn = frame_of(c, client, FRAME_SYN);
		struct frame ack = frame_of(c, client, FRAME_ACK);

		run(c->skel->progs.once, &syn, 1, NULL);
		run(c->skel->progs.once, &ack, 1, NULL);
		run(c->skel->progs.once, &ack, 1, NULL);
	}
	c->remembered = count_remembered(c);
	if (c->remembered < c->flows / 100 * 99)
		c->failed = "flows weren't remembered";
}

static bool wrong(struct bench_case *c, bool ok, const char *what)
{
	if (!ok && !c->failed)
		c->failed = what;
	return !ok;
}

/* The IP packet at `ip` is `in` as it was sent, but for the hop limit. */
static bool same_inside(const struct frame *in, const uint8_t *ip)
{
	return !memcmp(ip, in->data + 14, 8) &&
	       sum_fold(sum_bytes(ip, 20)) == 0xffff &&
	       !memcmp(ip + 12, in->data + 26, BENCH_BYTES - 26);
}

static void check_encapsulated(struct bench_case *c, const struct frame *in,
			       const struct frame *out)
{
	size_t head = (size_t)head_of(c);
	const uint8_t *ip = out->data + 14;
	bool gue = c->service == GUE;

	wrong(c, out->len == in->len + head, "wrong length");
	wrong(c, ip[0] == 0x45 && ip[9] == (gue ? IPPROTO_UDP : IPPROTO_IPIP),
	      "wrong outer header");
	wrong(c, sum_fold(sum_bytes(ip, 20)) == 0xffff,
	      "wrong outer header checksum");
	wrong(c, ip[2] << 8 == 0 && ip[3] == BENCH_BYTES - 14 + head,
	      "wrong outer length");
	wrong(c, ip[16] == 10 && ip[17] == 100, "wrong outer destination");
	if (gue)
		wrong(c,
		      ip[22] == XLB_GUE_PORT >> 8 &&
			      ip[23] == (XLB_GUE_PORT & 255) &&
			      ip[25] == BENCH_BYTES - 14 + 8,
		      "wrong UDP header");
	wrong(c, same_inside(in, ip + head), "wrong inner packet");
}

static void check_rewritten(struct bench_case *c, const struct frame *in,
			    const struct frame *out)
{
	bool nat = forwarding_of(c) == XLB_NAT;
	const uint8_t *to = out->data + (c->family == 4 ? 30 : 38);
	const struct ip vip = vip_of(c->service, c->family);

	wrong(c, out->len == in->len, "wrong length");
	wrong(c,
	      sum_fold(sum_transport(out->data + 14, c->family, proto_of(c),
				     in->l4 - 14, in->ip_bytes)) == 0xffff,
	      "wrong transport checksum");
	if (c->family == 4)
		wrong(c, sum_fold(sum_bytes(out->data + 14, 20)) == 0xffff,
		      "wrong header checksum");
	wrong(c, !memcmp(to, vip.bytes, c->family == 4 ? 4 : 16) != nat,
	      "wrong destination");
	wrong(c, out->data[in->l4 + 3] == (nat ? 0x90 : 80), "wrong port");
}

/* The bytes that come out, before anything is timed. */
static void case_check(struct bench_case *c)
{
	struct frame in = frame_of(c, 0, c->kind), out;
	uint32_t verdict = run(c->skel->progs.once, &in, 1, &out);

	if (wrong(c, verdict == verdict_of(c), "wrong verdict"))
		return;
	if (c->service == NOT_OURS) {
		wrong(c, !memcmp(in.data, out.data, BENCH_BYTES),
		      "wrong bytes");
		return;
	}
	wrong(c, out.data[0] == 2 && out.data[1] == 7, "wrong next hop");
	if (head_of(c))
		check_encapsulated(c, &in, &out);
	else
		check_rewritten(c, &in, &out);
}

static struct bench_case *floor_for(const struct bench_case *c)
{
	struct bench_case *f;

	for (size_t i = 0; i < floor_count; i++) {
		f = &floors[i];
		if (f->verdict == verdict_of(c) && f->family == c->family &&
		    f->kind == c->kind && vary_of(f) == vary_of(c) &&
		    proto_of(f) == proto_of(c) && f->flows == c->flows &&
		    head_of(f) == head_of(c))
			return f;
	}
	f = &floors[floor_count++];
	*f = *c;
	f->name = "floor";
	f->verdict = verdict_of(c);
	f->goal = 0;
	f->known = false;
	f->floor = NULL;
	return f;
}

/*
 * The kernel tells no more than full nanoseconds, and with every interruption
 * in them: the median block, from the wrapper's own stamps.
 */
static void case_round(struct bench_case *c, int round)
{
	struct frame f = frame_of(c, 0, c->kind);
	const struct bench_state *state = &c->skel->data_state->bench_state;
	uint64_t from = state->count / BENCH_BLOCK;
	uint32_t blocks = REPEAT / BENCH_BLOCK / (round < 0 ? 4u : 1u);
	double took[REPEAT / BENCH_BLOCK];

	if (c->failed)
		return;
	if (run(c->skel->progs.bench, &f, blocks * BENCH_BLOCK, NULL) !=
	    verdict_of(c))
		c->failed = "wrong verdict in the wrapper";
	if (round < 0)
		return;
	for (uint32_t i = 0; i + 1 < blocks; i++)
		took[i] = (double)(state->stamp[(from + i + 1) % BENCH_STAMPS] -
				   state->stamp[(from + i) % BENCH_STAMPS]) /
			  BENCH_BLOCK;
	c->ns[samples] = median(took, blocks - 1);
}

/* What each of `count` rounds from `from` on cost over the floor's. */
static double case_net(const struct bench_case *c, int from, int count,
		       double *ret_sorted)
{
	for (int i = 0; i < count; i++)
		ret_sorted[i] = c->ns[from + i] - c->floor->ns[from + i];
	return median(ret_sorted, (size_t)count);
}

static void prepare(struct bench_case *c)
{
	case_load(c);
	if (!placement)
		case_check(c);
	if (c->known && !c->failed)
		case_remember(c);
}

static void run_rounds(void)
{
	for (int round = -1; round < rounds; round++) {
		for (size_t i = 0; i < floor_count; i++)
			case_round(&floors[i], round);
		for (struct bench_case *c = case_after(NULL); c;
		     c = case_after(c))
			case_round(c, round);
		samples += round >= 0;
	}
}

static void measure(void)
{
	struct bench_case *c;
	double net[MAX_ROUNDS];

	first = NULL;
	for (size_t i = 0; i < floor_count; i++)
		case_load(&floors[i]);
	for (c = case_after(NULL); c; c = case_after(c))
		prepare(c);
	run_rounds();
	for (c = case_after(NULL); c; c = case_after(c)) {
		c->placed[placement] =
			case_net(c, samples - rounds, rounds, net);
		case_unload(c);
	}
	for (size_t i = 0; i < floor_count; i++)
		case_unload(&floors[i]);
}

/* --- what came of it --- */

static struct figure figures[CASES + 1];
static size_t figure_count;

/* Of the samples, which are sorted; the placements say how far it may be off. */
static struct figure figure_of(const char *what, const char *unit,
			       double *sorted)
{
	struct figure f = { .part = "packet", .what = what, .unit = unit };

	f.value = median(sorted, (size_t)samples);
	median_interval(sorted, (size_t)samples, &f.low, &f.high);
	return f;
}

static void add_case(const struct bench_case *c)
{
	double net[MAX_SAMPLES], of_case[MAX_SAMPLES], of_floor[MAX_SAMPLES];
	double placed[MAX_PLACEMENTS];
	struct figure f;

	case_net(c, 0, samples, net);
	f = figure_of(c->name, "ns", net);
	memcpy(of_case, c->ns, sizeof(of_case));
	memcpy(of_floor, c->floor->ns, sizeof(of_floor));
	memcpy(placed, c->placed, sizeof(placed));
	median(placed, (size_t)placements);
	f.goal = c->goal;
	f.spread =
		mem_printf("%.1f to %.1f; placements %.1f to %.1f; %.1f less "
			   "the floor's %.1f",
			   f.low, f.high, placed[0], placed[placements - 1],
			   median(of_case, (size_t)samples),
			   median(of_floor, (size_t)samples));
	figures[figure_count++] = f;
}

static const struct bench_case *case_named(const char *name)
{
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c))
		if (strcmp(c->name, name) == 0 && !c->failed)
			return c;
	return NULL;
}

/* Of what they cost over the floor, round by round. */
static void add_ratio(void)
{
	const struct bench_case *syn = case_named("v4 16M SYNs, at rest");
	const struct bench_case *ack = case_named("v4 16M ACKs, at rest");
	double ratio[MAX_SAMPLES];
	struct figure f;

	if (!syn || !ack)
		return;
	for (int i = 0; i < samples; i++)
		ratio[i] = (syn->ns[i] - syn->floor->ns[i]) /
			   (ack->ns[i] - ack->floor->ns[i]);
	f = figure_of("v4 16M SYNs over ACKs, at rest", "x", ratio);
	f.goal = SYN_OVER_ACK;
	f.spread = mem_printf("%.2f to %.2f", f.low, f.high);
	figures[figure_count++] = f;
}

/* How many cases have no figure. */
static int report(void)
{
	int failed = 0;

	for (struct bench_case *c = case_after(NULL); c; c = case_after(c)) {
		if (!c->failed) {
			add_case(c);
			continue;
		}
		fprintf(stderr, "packet_bench: %s: %s\n", c->name, c->failed);
		failed++;
	}
	add_ratio();
	errno = -figures_write(figures, figure_count);
	if (errno)
		die("figures");
	return failed;
}

static int quiet(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, args) : 0;
}

/* One CPU, so that its caches and counters are the same ones each round. */
static void stay_on_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static int number(const char *text, int most)
{
	int n = atoi(text);

	return n >= 1 && n <= most ? n : most;
}

static bool read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			return false;
		if (!strcmp(argv[i], "--only"))
			only = argv[i + 1];
		else if (!strcmp(argv[i], "--placements"))
			placements = number(argv[i + 1], MAX_PLACEMENTS);
		else if (!strcmp(argv[i], "--rounds"))
			rounds = number(argv[i + 1], MAX_ROUNDS);
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	if (!read_options(argc, argv)) {
		fprintf(stderr, "usage: packet_bench [--only TEXT] "
				"[--placements N] [--rounds N]\n");
		return 64;
	}
	libbpf_set_print(quiet);
	stay_on_cpu();
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c))
		c->floor = floor_for(c);
	for (placement = 0; placement < placements; placement++)
		measure();
	return report() ? 1 : 0;
}
