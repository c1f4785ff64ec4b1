/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the packet path costs over an empty program, in nanoseconds a packet.
 *
 * BPF_PROG_TEST_RUN of the path in a wrapper (wrapper.bpf.c) that restores the
 * packet, against the same wrapper around a function that only returns the
 * same verdict.  Rounds of all cases are interleaved, medians reported, and
 * before any figure counts the bytes that come out are checked.
 */
#include <arpa/inet.h>
#include <errno.h>
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

#include "base/ip.h"
#include "base/mem.h"
#include "bpf/xlb.h"
#include "tables/tables.h"
#include "tests/bench/wrapper.h"

/* Generated, and not as strict as we are. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "bench/wrapper.skel.h"
#pragma GCC diagnostic pop

#define SLOT_LOG2 16
#define TABLE_SLOTS (1u << SLOT_LOG2)
#define FLOW_LINES 16384
#define ROUNDS 9
#define REPEAT 1000000
#define BACKENDS 100
#define CLIENT_PORT 40000
#define SEQ 1000

#define VERDICT_PASS 2
#define VERDICT_TX 3

enum table { AT_REST, MOVING, TURNS, TABLES };

/* Services, at the front of the VIP table. */
struct service {
	uint8_t forwarding;
	uint8_t proto;
	enum table table;
};

static const struct service services[] = {
	{ XLB_DSR, IPPROTO_TCP, AT_REST }, { XLB_NAT, IPPROTO_TCP, AT_REST },
	{ XLB_NAT, IPPROTO_UDP, AT_REST }, { XLB_NAT, IPPROTO_TCP, MOVING },
	{ XLB_NAT, IPPROTO_TCP, TURNS },
};
enum { DSR, NAT, NAT_UDP, NAT_MOVING, NAT_TURNS, SERVICES, NOT_OURS };

struct frame {
	uint8_t data[BENCH_BYTES];
	size_t l4; /* offset of the transport header */
	size_t csum; /* of its checksum */
};

struct bench_case {
	const char *name;
	int service;
	int family; /* 4 or 6 */
	uint32_t flows;
	unsigned int goal; /* ns over the floor; 0: none */
	bool syn;
	bool known; /* memories are made beforehand */
	/* found out */
	uint32_t verdict; /* of a floor; 0 otherwise */
	struct wrapper_bpf *skel;
	struct bench_case *floor;
	uint32_t ns[ROUNDS];
	uint32_t median;
};

static struct bench_case cases[] = {
	{ .name = "v4 tcp dsr, 1 flow",
	  .service = DSR,
	  .family = 4,
	  .flows = 1,
	  .goal = 18 },
	{ .name = "v4 tcp dsr, 1M flows",
	  .service = DSR,
	  .family = 4,
	  .flows = 1 << 20,
	  .goal = 18 },
	{ .name = "v4 tcp nat, 1 flow",
	  .service = NAT,
	  .family = 4,
	  .flows = 1,
	  .goal = 22 },
	{ .name = "v4 tcp nat, 1M flows",
	  .service = NAT,
	  .family = 4,
	  .flows = 1 << 20,
	  .goal = 22 },
	{ .name = "v6 tcp dsr, 1 flow",
	  .service = DSR,
	  .family = 6,
	  .flows = 1 },
	{ .name = "v6 tcp dsr, 1M flows",
	  .service = DSR,
	  .family = 6,
	  .flows = 1 << 20 },
	{ .name = "v6 tcp nat, 1 flow",
	  .service = NAT,
	  .family = 6,
	  .flows = 1 },
	{ .name = "v6 tcp nat, 1M flows",
	  .service = NAT,
	  .family = 6,
	  .flows = 1 << 20 },
	{ .name = "v4 udp nat, 1 flow",
	  .service = NAT_UDP,
	  .family = 4,
	  .flows = 1 },
	{ .name = "v4 udp nat, 1M flows",
	  .service = NAT_UDP,
	  .family = 4,
	  .flows = 1 << 20 },
	{ .name = "v4 not ours",
	  .service = NOT_OURS,
	  .family = 4,
	  .flows = 1,
	  .goal = 8 },
	{ .name = "v6 not ours",
	  .service = NOT_OURS,
	  .family = 6,
	  .flows = 1,
	  .goal = 8 },
	{ .name = "v4 moving, 8k remembered",
	  .service = NAT_MOVING,
	  .family = 4,
	  .flows = 8192,
	  .known = true,
	  .goal = 40 },
	{ .name = "v6 moving, 8k remembered",
	  .service = NAT_MOVING,
	  .family = 6,
	  .flows = 8192,
	  .known = true },
	{ .name = "v4 16M SYNs, at rest",
	  .service = NAT,
	  .family = 4,
	  .flows = 1 << 24,
	  .syn = true },
	{ .name = "v4 16M SYNs, moving",
	  .service = NAT_MOVING,
	  .family = 4,
	  .flows = 1 << 24,
	  .syn = true },
	{ .name = "v4 round robin, 1 known",
	  .service = NAT_TURNS,
	  .family = 4,
	  .flows = 1,
	  .known = true },
	{ .name = "v4 round robin, 8k known",
	  .service = NAT_TURNS,
	  .family = 4,
	  .flows = 8192,
	  .known = true },
};
#define CASES ARRAY_SIZE(cases)

/* One a verdict, family, protocol and number of flows that a case has. */
static struct bench_case floors[CASES];
static size_t floor_count;
static const char *only = ""; /* cases whose name contains it */

/* The next case that is asked for, after c; from NULL the first one. */
static struct bench_case *case_after(struct bench_case *c)
{
	for (c = c ? c + 1 : cases; c < cases + CASES; c++)
		if (strstr(c->name, only))
			return c;
	return NULL;
}

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "packet_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- packets --- */

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint64_t sum_bytes(const uint8_t *p, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += (uint64_t)p[i] << (i & 1 ? 8 : 0);
	return sum;
}

static uint64_t transport_sum(const uint8_t *data, int family, uint8_t proto,
			      size_t l4)
{
	size_t addrs = family == 4 ? 26 : 22;

	return sum_bytes(data + addrs, l4 - addrs) + htons(proto) +
	       htons((uint16_t)(BENCH_BYTES - l4)) +
	       sum_bytes(data + l4, BENCH_BYTES - l4);
}

static void put16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static struct ip vip_of(int service, int family)
{
	char text[IP_STRLEN];
	struct ip a = { 0 };

	snprintf(text, sizeof(text), family == 4 ? "10.0.0.%d" : "fc00:1::%d",
		 service + 1);
	ip_parse(text, &a);
	return a;
}

static uint8_t proto_of(const struct bench_case *c)
{
	return c->service < SERVICES ? services[c->service].proto : IPPROTO_TCP;
}

static void fill_v4(uint8_t *data, const struct bench_case *c)
{
	struct ip vip = vip_of(c->service, 4);

	put16(data + 12, htons(0x0800));
	data[14] = 0x45;
	put16(data + 16, htons(BENCH_BYTES - 14));
	data[22] = 64;
	data[23] = proto_of(c);
	memcpy(data + 26, (uint8_t[]){ 10, 9, 0, 9 }, 4);
	memcpy(data + 30, vip.bytes, 4);
	put16(data + 24, (uint16_t)~fold(sum_bytes(data + 14, 20)));
}

static void fill_v6(uint8_t *data, const struct bench_case *c)
{
	struct ip vip = vip_of(c->service, 6);

	put16(data + 12, htons(0x86dd));
	data[14] = 0x60;
	put16(data + 18, htons(BENCH_BYTES - 54));
	data[20] = proto_of(c);
	data[21] = 64;
	memcpy(data + 22, (uint8_t[]){ 0xfc, 0, 0, 2 }, 4);
	data[37] = 1;
	memcpy(data + 38, vip.bytes, 16);
}

/* client: the varied source, 0 for the fixed one. */
static struct frame frame_of(const struct bench_case *c, uint32_t client,
			     bool syn)
{
	struct frame f = { .data = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 } };
	uint8_t *l4;

	(c->family == 4 ? fill_v4 : fill_v6)(f.data, c);
	if (client && c->family == 4)
		memcpy(f.data + 26, &client, 4);
	if (client && c->family == 6)
		memcpy(f.data + 30, (uint64_t[]){ client }, 8);
	if (client && c->family == 4) {
		put16(f.data + 24, 0);
		put16(f.data + 24, (uint16_t)~fold(sum_bytes(f.data + 14, 20)));
	}
	f.l4 = c->family == 4 ? 34 : 54;
	f.csum = f.l4 + (proto_of(c) == IPPROTO_TCP ? 16 : 6);
	l4 = f.data + f.l4;
	put16(l4, htons(CLIENT_PORT));
	put16(l4 + 2, htons(80));
	if (proto_of(c) == IPPROTO_TCP) {
		uint32_t seq = htonl(syn ? SEQ : SEQ + 1);

		memcpy(l4 + 4, &seq, 4);
		l4[12] = 0x50;
		l4[13] = syn ? 0x02 : 0x10;
	} else {
		put16(l4 + 4, htons((uint16_t)(BENCH_BYTES - f.l4)));
	}
	put16(f.data + f.csum, (uint16_t)~fold(transport_sum(
				       f.data, c->family, proto_of(c), f.l4)));
	return f;
}

/* --- tables, shared by all cases --- */

static void fill_vip(struct xlb_vip *v, size_t i)
{
	const struct service *s = &services[i / 2 % SERVICES];
	int family = i & 1 ? 6 : 4;
	struct ip a = vip_of((int)(i / 2), family);

	if (i / 2 >= SERVICES)
		a = ip_add(&a, 256 + i); /* the crowd */
	v->family = (uint8_t)family;
	memcpy(v->addr, a.words, 16);
	v->port = htons(80);
	v->proto = s->proto;
	v->service = (uint16_t)(i / 2 % SERVICES + 1);
	v->target_port = htons(8080);
	v->addr_sum = ip_sum(&a);
	v->port_sum = fold((uint64_t)(uint16_t)~v->port + v->target_port);
	v->forwarding = s->forwarding;
	v->slot_shift = 32 - SLOT_LOG2;
	v->slot_base = (uint32_t)s->table * TABLE_SLOTS;
	v->flags = s->table == TURNS ? XLB_VIP_SCHEDULE : 0;
}

static void fill_vips(struct xlb_tables *t)
{
	AUTO_FREE struct vip_table *built = mem_alloc(sizeof(*built));
	AUTO_FREE struct xlb_vip *vips = mem_array(XLB_VIP_MAX, sizeof(*vips));

	for (size_t i = 0; i < XLB_VIP_MAX; i++)
		fill_vip(&vips[i], i);
	errno = -vip_table_build(vips, XLB_VIP_MAX, 12345, built);
	if (errno)
		die("VIP table");
	memcpy(t->vips, built->lines, sizeof(built->lines));
	memcpy(t->displacement, built->displacement,
	       sizeof(built->displacement));
	t->control.vip_seed[0] = built->seed;
}

static void fill_backends(struct xlb_tables *t)
{
	for (uint32_t id = 1; id <= 2 * BACKENDS; id++) {
		struct xlb_backend *be = &t->backends[id];
		struct ip v4, v6;
		uint8_t l2[16] = { 2,		7, 0, 0, (uint8_t)(id >> 8),
				   (uint8_t)id, 2, 1, 0, 0,
				   0,		1, 1 };

		ip_parse("10.100.0.0", &v4);
		ip_parse("fc00:9::", &v6);
		v4 = ip_add(&v4, id);
		v6 = ip_add(&v6, id);
		memcpy(be->l2_v4, l2, 16);
		memcpy(be->l2_v6, l2, 16);
		be->addr4 = v4.words[0];
		memcpy(be->addr6, v6.words, 16);
		be->sum4 = ip_sum(&v4);
		be->sum6 = ip_sum(&v6);
		be->mtu = 1500;
		be->flags = XLB_BACKEND_TX;
	}
}

static void fill_slots(int fd)
{
	size_t size = (size_t)TABLES * TABLE_SLOTS * 4;
	AUTO_FREE uint32_t *owner = mem_array(TABLE_SLOTS, sizeof(*owner));
	struct table_member members[BACKENDS];
	char names[BACKENDS][16];
	uint32_t *slots =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (slots == MAP_FAILED)
		die("slots");
	for (uint32_t i = 0; i < BACKENDS; i++) {
		snprintf(names[i], sizeof(names[i]), "b%u", i);
		members[i] = (struct table_member){ names[i], i + 1, 1 };
	}
	table_maglev(members, BACKENDS, SLOT_LOG2, owner);
	for (uint32_t i = 0; i < TABLE_SLOTS; i++) {
		uint32_t cur = owner[i];

		slots[i] = XLB_SLOT(cur, cur, XLB_REST);
		slots[TABLE_SLOTS + i] =
			XLB_SLOT(cur, cur + BACKENDS, XLB_MOVING);
	}
	table_round_robin(members, BACKENDS, SLOT_LOG2, owner);
	for (uint32_t i = 0; i < TABLE_SLOTS; i++)
		slots[2 * TABLE_SLOTS + i] =
			XLB_SLOT(owner[i], owner[i], XLB_REST);
	munmap(slots, size);
}

/* --- programs --- */

static struct wrapper_bpf *first; /* whose tables all others use */

static void size_maps(struct wrapper_bpf *s)
{
	uint32_t cpus = (uint32_t)libbpf_num_possible_cpus();

	bpf_map__set_max_entries(s->maps.slots,
				 TABLES * TABLE_SLOTS / XLB_LINE_SLOTS);
	bpf_map__set_max_entries(s->maps.flows, FLOW_LINES);
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
		/* Constants, the counter of flows and memories: its own. */
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

static void case_load(struct bench_case *c)
{
	struct frame f = frame_of(c, 0, c->syn);
	struct bench_words words = words_of(&f);

	c->skel = wrapper_bpf__open();
	if (!c->skel)
		die("open");
	size_maps(c->skel);
	if (first)
		share_maps(c->skel);
	c->skel->rodata->flow_seed = 0x9d3a0f61c55b28e7;
	c->skel->rodata->flow_shift = 32 - (uint32_t)__builtin_ctz(FLOW_LINES);
	c->skel->rodata->bench_verdict = c->verdict;
	c->skel->rodata->bench_family = (uint32_t)c->family;
	c->skel->rodata->bench_csum = (uint32_t)f.csum;
	c->skel->rodata->bench_mask = c->flows - 1;
	memcpy((void *)&c->skel->rodata->bench_words, &words, sizeof(words));
	if (wrapper_bpf__load(c->skel))
		die("load");
	if (first)
		return;
	first = c->skel;
	fill_vips(&first->bss->tables);
	fill_backends(&first->bss->tables);
	fill_slots(bpf_map__fd(first->maps.slots));
}

/* --- running --- */

static uint32_t run(const struct bpf_program *prog, const struct frame *f,
		    uint32_t repeat, struct frame *out, uint32_t *ret_verdict)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = f->data,
		    .data_size_in = BENCH_BYTES, .repeat = (int)repeat);

	if (out) {
		*out = *f;
		o.data_out = out->data;
		o.data_size_out = BENCH_BYTES;
	}
	if (bpf_prog_test_run_opts(bpf_program__fd(prog), &o))
		die("test run");
	if (ret_verdict)
		*ret_verdict = o.retval;
	return o.duration;
}

/* Give each flow of the case a memory: a SYN and the packet after it. */
static void case_remember(const struct bench_case *c)
{
	for (uint32_t i = 0; i < c->flows; i++) {
		uint32_t client = c->flows > 1 ? i * 2654435769u : 0;
		struct frame syn = frame_of(c, client, true);
		struct frame ack = frame_of(c, client, false);

		run(c->skel->progs.once, &syn, 1, NULL, NULL);
		run(c->skel->progs.once, &ack, 1, NULL, NULL);
	}
}

static void expect(const struct bench_case *c, bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "packet_bench: %s: wrong %s\n", c->name, what);
	exit(1);
}

/* The bytes that come out, before anything is timed. */
static void case_check(const struct bench_case *c)
{
	struct frame in = frame_of(c, 0, c->syn), out;
	const struct service *s;
	uint32_t verdict;

	run(c->skel->progs.once, &in, 1, &out, &verdict);
	if (c->service == NOT_OURS) {
		expect(c, verdict == VERDICT_PASS, "verdict");
		expect(c, !memcmp(in.data, out.data, BENCH_BYTES), "bytes");
		return;
	}
	s = &services[c->service];
	expect(c, verdict == VERDICT_TX, "verdict");
	expect(c, out.data[0] == 2 && out.data[1] == 7, "next hop");
	expect(c,
	       fold(transport_sum(out.data, c->family, s->proto, in.l4)) ==
		       0xffff,
	       "transport checksum");
	if (c->family == 4)
		expect(c, fold(sum_bytes(out.data + 14, 20)) == 0xffff,
		       "header checksum");
	expect(c,
	       !memcmp(in.data + 30, out.data + 30, 4) ==
		       (s->forwarding == XLB_DSR || c->family == 6),
	       "destination");
	expect(c, out.data[in.l4 + 3] == (s->forwarding == XLB_DSR ? 80 : 0x90),
	       "port");
}

static struct bench_case *floor_for(const struct bench_case *c)
{
	uint32_t verdict = c->service == NOT_OURS ? VERDICT_PASS : VERDICT_TX;
	struct bench_case *f;

	for (size_t i = 0; i < floor_count; i++) {
		f = &floors[i];
		if (f->verdict == verdict && f->family == c->family &&
		    proto_of(f) == proto_of(c) && f->flows == c->flows)
			return f;
	}
	f = &floors[floor_count++];
	*f = (struct bench_case){ .name = "floor",
				  .service = c->service,
				  .family = c->family,
				  .flows = c->flows,
				  .verdict = verdict };
	case_load(f);
	return f;
}

static void case_round(struct bench_case *c, int round)
{
	struct frame f = frame_of(c, 0, c->syn);
	uint32_t want = c->service == NOT_OURS ? VERDICT_PASS : VERDICT_TX;
	uint32_t verdict;
	uint32_t ns = run(c->skel->progs.bench, &f,
			  round < 0 ? REPEAT / 2 : REPEAT, NULL, &verdict);

	expect(c, verdict == want, "verdict in the wrapper");
	if (round >= 0)
		c->ns[round] = ns;
}

static int compare_u32(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void case_median(struct bench_case *c)
{
	qsort(c->ns, ROUNDS, sizeof(c->ns[0]), compare_u32);
	c->median = c->ns[ROUNDS / 2];
}

static void measure(void)
{
	for (int round = -1; round < ROUNDS; round++) {
		for (size_t i = 0; i < floor_count; i++)
			case_round(&floors[i], round);
		for (struct bench_case *c = case_after(NULL); c;
		     c = case_after(c))
			case_round(c, round);
	}
	for (size_t i = 0; i < floor_count; i++)
		case_median(&floors[i]);
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c))
		case_median(c);
}

static int net_of(const struct bench_case *c)
{
	return (int)c->median - (int)c->floor->median;
}

static void report(void)
{
	printf("%-28s %6s %7s %5s %5s  ns a packet, medians of %d rounds\n",
	       "case", "floor", "median", "net", "goal", ROUNDS);
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c)) {
		printf("%-28s %6u %7u %5d", c->name, c->floor->median,
		       c->median, net_of(c));
		if (c->goal)
			printf(" %5u%s", c->goal,
			       net_of(c) > (int)c->goal ? "  MISSED" : "");
		putchar('\n');
	}
}

static void report_json(const char *path)
{
	FILE *out = fopen(path, "w");
	const char *comma = "";

	if (!out)
		die(path);
	fprintf(out, "[");
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c)) {
		fprintf(out,
			"%s\n {\"case\": \"%s\", \"floor_ns\": %u, "
			"\"median_ns\": %u, \"net_ns\": %d, \"goal_ns\": %u}",
			comma, c->name, c->floor->median, c->median, net_of(c),
			c->goal);
		comma = ",";
	}
	fprintf(out, "\n]\n");
	if (fclose(out))
		die(path);
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

int main(int argc, char **argv)
{
	const char *json = NULL;

	for (int i = 1; i < argc; i += 2) {
		if (i + 1 < argc && !strcmp(argv[i], "--json")) {
			json = argv[i + 1];
		} else if (i + 1 < argc && !strcmp(argv[i], "--only")) {
			only = argv[i + 1];
		} else {
			fprintf(stderr, "usage: packet_bench [--json FILE] "
					"[--only TEXT]\n");
			return 64;
		}
	}
	libbpf_set_print(quiet);
	stay_on_cpu();
	for (struct bench_case *c = case_after(NULL); c; c = case_after(c)) {
		case_load(c);
		c->floor = floor_for(c);
		if (c->known)
			case_remember(c);
		case_check(c);
	}
	measure();
	report();
	if (json)
		report_json(json);
	return 0;
}
