/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables change by the thousand while packets run on another CPU, through the
 * real program: every packet is counted for its own backend, none for another
 * and none is lost.  The packets are for dsr services, which the program
 * doesn't rewrite, so that one can be run many times in one call.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "actual/bpf.h"
#include "base/ip.h"
#include "base/mem.h"

/* The last: it defines macros over what others declare. */
#include <cmocka.h>

#define BPFFS "/sys/fs/bpf/xlb"
#define SERVICES 32 /* in every table, each with a backend of its own */
#define FILLERS 3000 /* others, of which each table has its own */
#define TABLES 4
#define LOG2 8
#define GROWN (128U << LOG2) /* where the slots of grown tables begin */
#define SCHEDULE (120U << LOG2) /* where the schedule of service 1 begins */
#define REPEAT 500 /* runs of the program in one call */
#define FLIPS 250 /* tables; each waits for a grace period */
#define WRITES 20000 /* slots and next hops */
#define ROUNDS 100 /* of packets, at least */
#define XDP_PASS_VERDICT 2
#define XDP_TX_VERDICT 3

struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	uint8_t payload[22];
} __attribute__((packed));

/* What the packets' thread is told, and tells. */
struct traffic {
	int prog;
	atomic_bool stop;
	uint32_t services; /* packets go to 1..services in turn */
	uint64_t runs[SERVICES + 1]; /* index 0: packets for nobody */
	atomic_uint rounds; /* through all of them */
	uint64_t refused; /* runs with another verdict than is due */
	uint64_t torn; /* Ethernet addresses that never were */
	bool check_mac;
};

static struct datapath *datapath;
static int prog;
static struct vip_table *tables[TABLES];

/* Enough for a soak when asked for: factor over the counts above. */
static uint32_t factor(void)
{
	const char *soak = getenv("XLB_SOAK");

	return soak && *soak && strcmp(soak, "0") != 0 ? 50 : 1;
}

static void on_cpu(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % (size_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/* A datagram for service n; 0: for an address that is in no table. */
static struct packet packet_for(uint32_t n)
{
	struct packet p = {
		.eth = { .h_proto = htons(ETH_P_IP) },
		.ip = { .version = 4,
			.ihl = 5,
			.ttl = 64,
			.protocol = IPPROTO_UDP,
			.tot_len = htons(sizeof(p) - sizeof(p.eth)),
			.saddr = htonl(0xcb007107),
			.daddr = htonl(0xc0000200 + n) },
		.udp = { .source = htons(4000),
			 .dest = htons(53),
			 .len = htons(sizeof(p.udp) + sizeof(p.payload)) },
	};

	return p;
}

/* Each of the backend's addresses is six times the same byte. */
static void check_mac(struct traffic *t, const struct packet *p)
{
	for (int i = 1; i < ETH_ALEN; i++)
		t->torn += p->eth.h_dest[i] != p->eth.h_dest[0];
}

static void run_one(struct traffic *t, uint32_t n)
{
	struct packet in = packet_for(n), out;
	uint32_t verdict = n ? XDP_TX_VERDICT : XDP_PASS_VERDICT;
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = &in,
		    .data_size_in = sizeof(in), .data_out = &out,
		    .data_size_out = sizeof(out),
		    .repeat = t->check_mac ? 1 : REPEAT);

	if (bpf_prog_test_run_opts(t->prog, &o) || o.retval != verdict)
		t->refused++;
	t->runs[n] += (uint64_t)o.repeat;
	if (t->check_mac)
		check_mac(t, &out);
}

static void *run_packets(void *arg)
{
	struct traffic *t = arg;

	on_cpu(1);
	while (!atomic_load(&t->stop)) {
		for (uint32_t n = 0; n <= t->services; n++)
			run_one(t, n);
		atomic_fetch_add(&t->rounds, 1);
	}
	return NULL;
}

static struct xlb_vip dsr_vip(uint32_t addr, uint16_t service)
{
	struct ip a = { .family = AF_INET, .words = { htonl(addr) } };

	return (struct xlb_vip){
		.addr = { htonl(addr) },
		.port = htons(53),
		.proto = IPPROTO_UDP,
		.family = 4,
		.service = service,
		.target_port = htons(53),
		.addr_sum = ip_sum(&a),
		.port_sum = 0xffff,
		.forwarding = XLB_DSR,
		.slot_base = (uint32_t)service << LOG2,
		.slot_shift = 32 - LOG2,
	};
}

/*
 * All services, and fillers (of backend 0: a packet there would be dropped).
 * In every other table the services have grown: twice the slots, elsewhere.
 */
static struct vip_table *make_table(uint32_t n)
{
	AUTO_FREE struct xlb_vip *vips =
		mem_array(SERVICES + FILLERS, sizeof(*vips));
	struct vip_table *t = mem_alloc(sizeof(*t));

	for (uint16_t i = 0; i < SERVICES; i++) {
		vips[i] = dsr_vip(0xc0000201 + i, i + 1);
		if (n % 2) {
			vips[i].slot_base = GROWN + ((i + 1U) << (LOG2 + 1));
			vips[i].slot_shift--;
		}
	}
	for (uint32_t i = 0; i < FILLERS; i++)
		vips[SERVICES + i] = dsr_vip(0x0b000000 + n * 7919 + i, 100);
	assert_int_equal(vip_table_build(vips, SERVICES + FILLERS, n + 1, t),
			 0);
	return t;
}

static int set_backend(uint32_t id, uint8_t mac)
{
	struct xlb_backend line = { .addr4 = htonl(0x0a000000 + id),
				    .mtu = 1500,
				    .flags = XLB_BACKEND_TX };

	memset(line.l2_v4, mac, sizeof(line.l2_v4));
	return datapath_set_backend(datapath, id, &line);
}

static void fill_at(uint32_t base, uint32_t backend)
{
	uint32_t words[1 << LOG2];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = XLB_SLOT(backend, backend, XLB_REST);
	datapath_write_slots(datapath,
			     &(struct slot_write){ .base = base,
						   .count = ARRAY_SIZE(words),
						   .words = words,
						   .from = UINT32_MAX });
}

static int fill(uint32_t service, uint32_t backend)
{
	fill_at(service << LOG2, backend);
	return 0;
}

static uint64_t all_drops(void)
{
	uint64_t drops[XLB_DROP_MAX], sum = 0;

	assert_int_equal(datapath_drops(datapath, drops), 0);
	for (size_t i = 0; i < XLB_DROP_MAX; i++)
		sum += drops[i];
	return sum;
}

/* Packets run while change(i) is called at least so many times. */
static void run_traffic(struct traffic *t, uint32_t changes,
			int (*change)(uint32_t i))
{
	uint32_t failed = 0;
	uint64_t drops = all_drops();
	pthread_t thread;

	t->prog = prog;
	on_cpu(0);
	assert_int_equal(pthread_create(&thread, NULL, run_packets, t), 0);
	for (uint32_t i = 0; i < changes || atomic_load(&t->rounds) < ROUNDS;
	     i++)
		failed += change(i) != 0;
	atomic_store(&t->stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(failed, 0);
	assert_int_equal(t->refused, 0);
	assert_int_equal(all_drops(), drops);
}

static int flip_table(uint32_t i)
{
	return datapath_set_vips(datapath, tables[i % TABLES]);
}

static void vip_tables_flip(void **state)
{
	struct traffic t = { .services = SERVICES };
	uint64_t before[SERVICES + 1], packets = 0;

	(void)state;
	for (uint32_t n = 1; n <= SERVICES; n++)
		before[n] = datapath_count(datapath, n).packets;
	run_traffic(&t, FLIPS * factor(), flip_table);
	for (uint32_t n = 1; n <= SERVICES; n++) {
		assert_int_equal(datapath_count(datapath, n).packets -
					 before[n],
				 t.runs[n]);
		packets += t.runs[n];
	}
	assert_int_equal(datapath_set_vips(datapath, tables[0]), 0);
	print_message("# %u flips, %lu packets\n", FLIPS * factor(),
		      (unsigned long)packets);
	assert_true(packets > 0);
}

static int flip_slots(uint32_t i)
{
	return fill(1, i % 2 ? 1 : SERVICES + 1);
}

static void slots_flip(void **state)
{
	struct traffic t = { .services = 1 };
	uint64_t one = datapath_count(datapath, 1).packets;
	uint64_t other = datapath_count(datapath, SERVICES + 1).packets;

	(void)state;
	run_traffic(&t, WRITES * factor(), flip_slots);
	one = datapath_count(datapath, 1).packets - one;
	other = datapath_count(datapath, SERVICES + 1).packets - other;
	assert_int_equal(one + other, t.runs[1]);
	assert_true(one && other);
	print_message("# %u times 256 slots, %lu and %lu packets\n",
		      WRITES * factor(), (unsigned long)one,
		      (unsigned long)other);
	fill(1, 1);
}

/* Service 1 takes turns, for which no slot may be at rest. */
static int set_schedule(void)
{
	struct xlb_vip vip = dsr_vip(0xc0000201, 1);
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));
	uint32_t words[1 << LOG2];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = XLB_SLOT(1, 1, XLB_SETTLED);
	datapath_write_slots(datapath,
			     &(struct slot_write){ .base = 1U << LOG2,
						   .count = ARRAY_SIZE(words),
						   .words = words,
						   .from = UINT32_MAX });
	vip.flags = XLB_VIP_SCHEDULE;
	vip.schedule_base = SCHEDULE;
	vip.schedule_shift = 32 - LOG2;
	fill_at(SCHEDULE, 1);
	return vip_table_build(&vip, 1, 99, t)
		       ?: datapath_set_vips(datapath, t);
}

static int flip_schedule(uint32_t i)
{
	fill_at(SCHEDULE, i % 2 ? 1 : SERVICES + 1);
	return 0;
}

static void schedules_flip(void **state)
{
	struct traffic t = { .services = 1 };
	uint64_t one, other;

	(void)state;
	assert_int_equal(set_schedule(), 0);
	one = datapath_count(datapath, 1).packets;
	other = datapath_count(datapath, SERVICES + 1).packets;
	run_traffic(&t, WRITES * factor(), flip_schedule);
	one = datapath_count(datapath, 1).packets - one;
	other = datapath_count(datapath, SERVICES + 1).packets - other;
	assert_int_equal(one + other, t.runs[1]);
	assert_true(one && other);
	print_message("# %u schedules, %lu and %lu packets\n",
		      WRITES * factor(), (unsigned long)one,
		      (unsigned long)other);
}

static int flip_next_hop(uint32_t i)
{
	return set_backend(1, i % 2 ? 0x22 : 0x44);
}

static void next_hops_flip(void **state)
{
	struct traffic t = { .services = 1, .check_mac = true };

	(void)state;
	run_traffic(&t, WRITES * factor(), flip_next_hop);
	assert_int_equal(t.torn, 0);
	assert_true(t.runs[1] > 0);
}

static int set_up(void **state)
{
	const struct datapath_config cfg = { .bpffs = BPFFS,
					     .slots = 256U << LOG2,
					     .flow_seed = 1,
					     .features = XLB_FEATURE_ALL &
							 ~XLB_FEATURE_UPLINKS };
	struct diag_list diags = { 0 };
	AUTO_BUF struct buf said = BUF_INIT;

	(void)state;
	/* All of it goes with this process, however that ends. */
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
		return -1;
	if (datapath_open(&cfg, &datapath, &diags)) {
		diag_list_print(&diags, &said);
		print_message("# %s", buf_str(&said));
		return -1;
	}
	diag_list_release(&diags);
	prog = bpf_obj_get(BPFFS "/prog_xdp");
	for (uint32_t n = 1; n <= SERVICES + 1; n++)
		if (set_backend(n, 0x22))
			return -1;
	for (uint32_t n = 1; n <= SERVICES; n++) {
		fill(n, n);
		fill_at(GROWN + (n << (LOG2 + 1)), n);
		fill_at(GROWN + (n << (LOG2 + 1)) + (1U << LOG2), n);
	}
	for (uint32_t n = 0; n < TABLES; n++)
		tables[n] = make_table(n);
	/* A program that is attached somewhere runs without the grace period
	 * that each test run of another one costs. */
	if (prog < 0 || bpf_xdp_attach((int)if_nametoindex("lo"), prog,
				       XDP_FLAGS_SKB_MODE, NULL))
		return -1;
	return datapath_set_vips(datapath, tables[0]);
}

static int tear_down(void **state)
{
	(void)state;
	for (uint32_t n = 0; n < TABLES; n++)
		free(tables[n]);
	close(prog);
	datapath_close(datapath);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vip_tables_flip),
		cmocka_unit_test(slots_flip),
		cmocka_unit_test(next_hops_flip),
		cmocka_unit_test(schedules_flip),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root to load programs");
		return 0;
	}
	return cmocka_run_group_tests_name("table_flip", tests, set_up,
					   tear_down);
}
