/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs loaded, attached at each hook, exchanged and grown, while packets
 * go through: from client0 by the veth to up0, where the balancer sends them
 * back.  No packet may be lost, and none go elsewhere than the slots say.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "actual/bpf.h"
#include "actual/netlink.h"
#include "base/ip.h"
#include "base/mem.h"
#include "tests/lib/shell.h"

/* The last: it defines macros over what others declare. */
#include <cmocka.h>

#define BPFFS "/sys/fs/bpf/xlb"
#define SERVICE 1
#define LOG2 8
#define SLOTS 4096
#define FLOW_LINES 65536
#define BATCH 64 /* packets under way at once: no queue drops any */
#define BASE_FEATURES (XLB_FEATURE_V4 | XLB_FEATURE_DSR)
#define ONE 0x22 /* the backends' Ethernet addresses are six times this */
#define OTHER 0x44

static struct datapath *dp;
static int up0, up1;

/* Enough for a soak when asked for: factor over the counts below. */
static unsigned int factor(void)
{
	const char *soak = getenv("XLB_SOAK");

	return soak && *soak && strcmp(soak, "0") != 0 ? 20 : 1;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Bytes that this process has in memory, in KiB. */
static long resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
	fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void on_cpu(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % (size_t)sysconf(_SC_NPROCESSORS_ONLN), &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/* ---- packets ---- */

struct packet {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	uint64_t seq;
	uint8_t payload[14];
} __attribute__((packed));

static void set_checksum(struct packet *p)
{
	uint16_t words[sizeof(p->ip) / 2];
	uint32_t sum = 0;

	p->ip.check = 0;
	memcpy(words, &p->ip, sizeof(words));
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	p->ip.check = (uint16_t) ~(sum + (sum >> 16));
}

static struct packet make_packet(uint64_t seq)
{
	struct packet p = {
		.eth = { .h_dest = { 2, 0, 0, 0, 0, 1 },
			 .h_proto = htons(ETH_P_IP) },
		.ip = { .version = 4,
			.ihl = 5,
			.ttl = 64,
			.protocol = IPPROTO_UDP,
			.tot_len = htons(sizeof(p) - sizeof(p.eth)),
			.saddr = htonl(0xcb007107),
			.daddr = htonl(0xc0000201) },
		.udp = { .source = htons((uint16_t)(4000 + seq % 1000)),
			 .dest = htons(53),
			 .len = htons(sizeof(p) - sizeof(p.eth) -
				      sizeof(p.ip)) },
		.seq = seq,
	};

	set_checksum(&p);
	return p;
}

static int open_socket(const char *ifname)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_IP),
				  .sll_ifindex = (int)if_nametoindex(ifname) };
	struct timeval limit = { .tv_sec = 10 };
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on,
				    sizeof(on)),
			 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit,
				    sizeof(limit)),
			 0);
	return fd;
}

struct traffic {
	const char *from;
	int fd;
	atomic_bool stop;
	atomic_uint batches;
	uint64_t sent;
	uint64_t lost;
	uint64_t wrong; /* came back otherwise than any backend's would */
	uint64_t to_other; /* of the last batch */
};

/* Takes in what comes back; false: nothing did for long. */
static bool take_one(struct traffic *t, int fd, uint64_t first, uint64_t *seen)
{
	struct packet p;
	ssize_t n = recv(fd, &p, sizeof(p), MSG_TRUNC);

	if (n < 0)
		return false;
	if (n != sizeof(p) || p.seq - first >= BATCH ||
	    p.ip.daddr != htonl(0xc0000201))
		return true;
	if (*seen >> (p.seq - first) & 1)
		t->wrong++;
	*seen |= 1ull << (p.seq - first);
	for (int i = 1; i < ETH_ALEN; i++)
		t->wrong += p.eth.h_dest[i] != p.eth.h_dest[0];
	t->wrong += p.eth.h_dest[0] != ONE && p.eth.h_dest[0] != OTHER;
	t->to_other += p.eth.h_dest[0] == OTHER;
	return true;
}

static void run_batch(struct traffic *t, int fd)
{
	uint64_t first = t->sent, seen = 0;

	t->to_other = 0;
	for (int i = 0; i < BATCH; i++) {
		struct packet p = make_packet(t->sent++);

		while (send(fd, &p, sizeof(p), 0) < 0)
			if (errno != ENOBUFS)
				return;
	}
	while (seen != UINT64_MAX)
		if (!take_one(t, fd, first, &seen))
			break;
	t->lost += (uint64_t)__builtin_popcountll(~seen);
	atomic_fetch_add(&t->batches, 1);
}

static void *run_traffic(void *arg)
{
	struct traffic *t = arg;

	on_cpu(1);
	while (!atomic_load(&t->stop) && !t->lost)
		run_batch(t, t->fd);
	return NULL;
}

/* One batch now; how many of it went to the other backend. */
static uint64_t packets_now(const char *from)
{
	struct traffic t = { .from = from };
	int fd = open_socket(from);

	run_batch(&t, fd);
	close(fd);
	assert_int_equal(t.lost, 0);
	assert_int_equal(t.wrong, 0);
	return t.to_other;
}

static pthread_t start_traffic(struct traffic *t)
{
	pthread_t thread;

	on_cpu(0);
	t->fd = open_socket(t->from);
	assert_int_equal(pthread_create(&thread, NULL, run_traffic, t), 0);
	while (atomic_load(&t->batches) < 10)
		sched_yield();
	return thread;
}

static void stop_traffic(struct traffic *t, pthread_t thread, const char *what,
			 unsigned int times)
{
	atomic_store(&t->stop, true);
	pthread_join(thread, NULL);
	close(t->fd);
	print_message("# %s %u times: %lu packets, %lu lost\n", what, times,
		      (unsigned long)t->sent, (unsigned long)t->lost);
	assert_int_equal(t->lost, 0);
	assert_int_equal(t->wrong, 0);
}

/* ---- the balancer ---- */

static void fail_with(const struct diag_list *diags, int err)
{
	AUTO_BUF struct buf said = BUF_INIT;

	diag_list_print(diags, &said);
	fail_msg("%s: %s", strerror(-err), buf_str(&said));
}

static void open_with(uint32_t features, uint32_t slots)
{
	const struct datapath_config cfg = { .bpffs = BPFFS,
					     .features = features,
					     .slots = slots,
					     .flow_lines = FLOW_LINES,
					     .flow_seed = 1 };
	struct diag_list diags = { 0 };
	int err = datapath_open(&cfg, &dp, &diags);

	if (err)
		fail_with(&diags, err);
	diag_list_release(&diags);
}

static void attach(enum datapath_hook hook, const char *ifname)
{
	struct diag_list diags = { 0 };
	int err = datapath_attach(dp, hook, ifname, (int)if_nametoindex(ifname),
				  &diags);

	if (err)
		fail_with(&diags, err);
	diag_list_release(&diags);
}

static void detach(enum datapath_hook hook, const char *ifname)
{
	assert_int_equal(datapath_detach(dp, hook, ifname,
					 (int)if_nametoindex(ifname)),
			 0);
}

static enum attach_state attached(enum datapath_hook hook, const char *ifname)
{
	return datapath_attached(dp, hook, ifname, (int)if_nametoindex(ifname));
}

static void reload(uint32_t features, uint32_t slots)
{
	struct diag_list diags = { 0 };
	int err = datapath_reload(dp, features, slots, &diags);

	if (err)
		fail_with(&diags, err);
	diag_list_release(&diags);
}

/* The service's slots, at its base, all to the backend. */
static void fill(uint32_t base, uint32_t backend, enum xlb_slot_state state)
{
	uint32_t words[1 << LOG2];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = XLB_SLOT(backend, backend, state);
	datapath_write_slots(dp,
			     &(struct slot_write){ .base = base,
						   .count = ARRAY_SIZE(words),
						   .words = words,
						   .from = UINT32_MAX });
}

static void set_vip_of(uint8_t proto, uint32_t slot_base)
{
	struct ip a = { .family = AF_INET, .words = { htonl(0xc0000201) } };
	struct xlb_vip vip = {
		.addr = { a.words[0] },
		.port = htons(53),
		.proto = proto,
		.family = 4,
		.service = SERVICE,
		.target_port = htons(53),
		.addr_sum = ip_sum(&a),
		.port_sum = 0xffff,
		.forwarding = XLB_DSR,
		.slot_base = slot_base,
		.slot_shift = 32 - LOG2,
	};
	struct vip_table *t = mem_alloc(sizeof(*t));

	assert_int_equal(vip_table_build(&vip, 1, 1, t), 0);
	assert_int_equal(datapath_set_vips(dp, t), 0);
	free(t);
}

static void set_vip(uint32_t slot_base)
{
	set_vip_of(IPPROTO_UDP, slot_base);
}

static void set_backends(void)
{
	struct xlb_backend line = { .mtu = 1500, .flags = XLB_BACKEND_TX };

	for (uint32_t id = 1; id <= 2; id++) {
		line.addr4 = htonl(0x0a000000 + id);
		memset(line.l2_v4, id == 1 ? ONE : OTHER, sizeof(line.l2_v4));
		assert_int_equal(datapath_set_backend(dp, id, &line), 0);
	}
}

static void open_service(void)
{
	open_with(BASE_FEATURES, SLOTS);
	set_backends();
	fill(SERVICE << LOG2, 1, XLB_REST);
	set_vip(SERVICE << LOG2);
}

static int close_service(void **state)
{
	(void)state;
	if (!dp)
		return 0;
	assert_int_equal(datapath_destroy(dp), 0);
	datapath_close(dp);
	dp = NULL;
	/* Nothing stays: not a pin, not a program anywhere. */
	assert_int_not_equal(access(BPFFS, F_OK), 0);
	assert_false(says("ip link show up0; ip link show up1", "prog/xdp"));
	assert_false(says("for i in up0 up1; do tc filter show dev $i ingress;"
			  "done",
			  "xlb_"));
	return 0;
}

static uint32_t pinned_id(const char *name)
{
	union {
		struct bpf_prog_info prog;
		struct bpf_map_info map;
	} info = { 0 };
	uint32_t len = sizeof(info);
	char path[128];
	int fd;

	snprintf(path, sizeof(path), BPFFS "/%s", name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return strncmp(name, "prog_", 5) ? info.map.id : info.prog.id;
}

static struct bpf_prog_info program(uint32_t id, uint32_t *maps, uint32_t count)
{
	struct bpf_prog_info info = { .map_ids = (uintptr_t)maps,
				      .nr_map_ids = count };
	uint32_t len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return info;
}

static bool uses_map(const char *prog, uint32_t map)
{
	uint32_t maps[64];
	struct bpf_prog_info info =
		program(pinned_id(prog), maps, ARRAY_SIZE(maps));

	for (uint32_t i = 0; i < info.nr_map_ids; i++)
		if (maps[i] == map)
			return true;
	return false;
}

/* Pins, programs and attachments belong together. */
static void check_whole(void)
{
	uint32_t slots = pinned_id("slots");

	assert_true(uses_map("prog_xdp", slots));
	if (!access(BPFFS "/prog_tc", F_OK))
		assert_true(uses_map("prog_tc", slots));
	assert_true(uses_map("prog_reply", pinned_id("tables")));
	assert_false(says("ls " BPFFS, "new_"));
}

/* ---- the tests ---- */

static int other_program(enum bpf_prog_type type)
{
	struct bpf_insn pass[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 2 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int fd;

	if (type == BPF_PROG_TYPE_SCHED_CLS)
		pass[0].imm = -1;
	fd = bpf_prog_load(type, "another_one", "GPL", pass, ARRAY_SIZE(pass),
			   NULL);
	assert_true(fd >= 0);
	return fd;
}

static void programs_have_what_is_asked_for(void **state)
{
	long before = resident();
	double start = now_ms();
	uint32_t few, many, id;

	(void)state;
	open_with(BASE_FEATURES, 1 << 20);
	print_message("# opened in %.0f ms, %ld KiB more in memory with a "
		      "million slots\n",
		      now_ms() - start, resident() - before);
	assert_int_equal(datapath_view(dp)->control->features, BASE_FEATURES);
	assert_true(datapath_view(dp)->slot_count >= 1 << 20);
	id = pinned_id("prog_xdp");
	few = program(id, NULL, 0).xlated_prog_len;
	/* What is there already is no reason to do anything. */
	reload(XLB_FEATURE_V4, 1000);
	assert_int_equal(pinned_id("prog_xdp"), id);
	start = now_ms();
	reload(XLB_FEATURE_ALL, 0);
	print_message("# all features: loaded and swapped in %.0f ms\n",
		      now_ms() - start);
	assert_int_equal(datapath_view(dp)->control->features, XLB_FEATURE_ALL);
	assert_int_not_equal(pinned_id("prog_xdp"), id);
	many = program(pinned_id("prog_xdp"), NULL, 0).xlated_prog_len;
	print_message("# xlb_xdp: %u bytes for v4 dsr, %u for all\n", few,
		      many);
	assert_true(few < many);
	check_whole();
	/* And the next process finds it so, and changes nothing. */
	id = pinned_id("prog_reply");
	datapath_close(dp);
	start = now_ms();
	open_with(XLB_FEATURE_NAT, 1);
	print_message("# opened again in %.0f ms\n", now_ms() - start);
	assert_int_equal(pinned_id("prog_reply"), id);
	assert_int_equal(datapath_view(dp)->control->features, XLB_FEATURE_ALL);
}

static void opening_asks_for_more(void **state)
{
	(void)state;
	open_service();
	attach(DATAPATH_XDP, "up0");
	assert_int_equal(packets_now("client0"), 0);
	datapath_close(dp);
	open_with(XLB_FEATURE_NAT, 4 * SLOTS);
	assert_int_equal(datapath_view(dp)->control->features,
			 BASE_FEATURES | XLB_FEATURE_NAT);
	assert_true(datapath_view(dp)->slot_count >= 4 * SLOTS);
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_OURS);
	check_whole();
	assert_int_equal(packets_now("client0"), 0);
	fill(SERVICE << LOG2, 2, XLB_REST);
	assert_int_equal(packets_now("client0"), BATCH);
}

/* New words and stamps are seen by packets and readers, the old are kept. */
static void slots_grow(void **state)
{
	const struct datapath_view *v;
	struct datapath *reader;
	const struct datapath_config cfg = { .bpffs = BPFFS,
					     .read_only = true };
	struct diag_list diags = { 0 };
	uint32_t base = SLOTS + 512, old;

	(void)state;
	open_service();
	attach(DATAPATH_XDP, "up0");
	attach(DATAPATH_TC, "up1");
	v = datapath_view(dp);
	fill(2 << LOG2, 2, XLB_MOVING);
	((uint8_t *)datapath_stamps(dp))[2 << LOG2] = 77;
	old = v->slot_count;
	reload(0, SLOTS + 1024);
	assert_true(v->slot_count >= SLOTS + 1024);
	for (uint32_t i = 0; i < v->slot_count; i++) {
		uint32_t word = i >> LOG2 == 1	 ? XLB_SLOT(1, 1, XLB_REST)
				: i >> LOG2 == 2 ? XLB_SLOT(2, 2, XLB_MOVING)
						 : 0;

		assert_int_equal(v->slots[i], word);
	}
	assert_int_equal(datapath_stamps(dp)[2 << LOG2], 77);
	assert_true(base >= old);
	fill(base, 2, XLB_REST);
	set_vip(base);
	assert_int_equal(packets_now("client0"), BATCH);
	assert_int_equal(packets_now("client1"), BATCH);
	check_whole();
	assert_int_equal(datapath_open(&cfg, &reader, &diags), 0);
	assert_int_equal(datapath_view(reader)->slots[base],
			 XLB_SLOT(2, 2, XLB_REST));
	assert_int_equal(datapath_view(reader)->slot_count, v->slot_count);
	assert_int_equal(datapath_attached(reader, DATAPATH_XDP, "up0", up0),
			 ATTACH_OURS);
	datapath_close(reader);
}

static void no_room_for_slots(void **state)
{
	struct diag_list diags = { 0 };
	uint32_t id;

	(void)state;
	open_service();
	attach(DATAPATH_XDP, "up0");
	id = pinned_id("prog_xdp");
	assert_true(datapath_reload(dp, 0, UINT32_MAX, &diags) < 0);
	assert_int_equal(diags.count, 1);
	diag_list_release(&diags);
	assert_int_equal(pinned_id("prog_xdp"), id);
	assert_int_equal(datapath_view(dp)->control->features, BASE_FEATURES);
	fill(SERVICE << LOG2, 2, XLB_REST);
	assert_int_equal(packets_now("client0"), BATCH);
	check_whole();
}

/* Grown each time, and the words written by turns. */
static void reload_under_traffic(enum datapath_hook hook, const char *name,
				 unsigned int times)
{
	static struct traffic t;
	pthread_t thread;
	double start;

	t = (struct traffic){ .from = "client0" };
	open_service();
	attach(hook, "up0");
	thread = start_traffic(&t);
	start = now_ms();
	for (unsigned int i = 0; i < times; i++) {
		reload(i == times / 2 ? XLB_FEATURE_NAT : 0,
		       datapath_view(dp)->slot_count + 1000);
		fill(SERVICE << LOG2, 1 + i % 2, XLB_REST);
	}
	print_message("# %.0f ms each\n", (now_ms() - start) / times);
	stop_traffic(&t, thread, name, times);
	assert_int_equal(attached(hook, "up0"), ATTACH_OURS);
	fill(SERVICE << LOG2, 2, XLB_REST);
	assert_int_equal(packets_now("client0"), BATCH);
	check_whole();
}

static void reload_on_xdp(void **state)
{
	(void)state;
	reload_under_traffic(DATAPATH_XDP, "reloaded on xdp", 30 * factor());
}

static void reload_on_xdp_generic(void **state)
{
	(void)state;
	reload_under_traffic(DATAPATH_XDP_GENERIC, "reloaded on generic xdp",
			     5 * factor());
}

static void reload_on_tc(void **state)
{
	(void)state;
	reload_under_traffic(DATAPATH_TC, "reloaded on tc", 15 * factor());
}

/* As the reconciler does it: the new one before the old one goes. */
static void change_hook(enum datapath_hook *now, enum datapath_hook next)
{
	attach(next, "up0");
	detach(*now, "up0");
	for (enum datapath_hook h = 0; h < DATAPATH_HOOKS; h++)
		assert_int_equal(attached(h, "up0"),
				 h == next ? ATTACH_OURS : ATTACH_NONE);
	*now = next;
}

/*
 * From each hook to each other.  Without GRO a veth frees what waits in its
 * ring when its native program goes (veth_napi_del_range() of the kernel),
 * whoever takes that away and however.
 */
static void hooks_are_changed_under_traffic(void **state)
{
	static const enum datapath_hook order[] = {
		DATAPATH_TC,	      DATAPATH_XDP_GENERIC, DATAPATH_XDP,
		DATAPATH_XDP_GENERIC, DATAPATH_TC,	    DATAPATH_XDP,
	};
	static struct traffic t;
	enum datapath_hook now = DATAPATH_XDP;
	unsigned int times = 5 * factor();
	pthread_t thread;

	(void)state;
	t = (struct traffic){ .from = "client0" };
	sh("ethtool -K up0 gro on");
	open_service();
	attach(now, "up0");
	thread = start_traffic(&t);
	for (unsigned int i = 0; i < times * ARRAY_SIZE(order); i++)
		change_hook(&now, order[i % ARRAY_SIZE(order)]);
	stop_traffic(&t, thread, "hooks changed",
		     times * (unsigned int)ARRAY_SIZE(order));
	sh("ethtool -K up0 gro off");
}

/*
 * The same with packets that wait for the host between the hooks, as they do
 * without GRO; the native program goes when there are none.
 */
static void hooks_are_changed_before_the_backlog(void **state)
{
	static const enum datapath_hook order[] = {
		DATAPATH_XDP_GENERIC, DATAPATH_TC,  DATAPATH_XDP_GENERIC,
		DATAPATH_TC,	      DATAPATH_XDP,
	};
	static struct traffic t;
	enum datapath_hook now = DATAPATH_TC;
	pthread_t thread;

	(void)state;
	open_service();
	attach(now, "up0");
	for (unsigned int i = 0; i < 5 * factor(); i++) {
		t = (struct traffic){ .from = "client0" };
		thread = start_traffic(&t);
		for (size_t k = 0; k < ARRAY_SIZE(order); k++)
			change_hook(&now, order[k]);
		stop_traffic(&t, thread, "hooks changed", ARRAY_SIZE(order));
		change_hook(&now, DATAPATH_TC);
	}
}

/* A TCP segment of a local sender, for several on the wire. */
#define GSO_PAYLOAD 8000 /* over a page, or it is all linear */
#define GSO_SEGMENT 1000
struct gso_packet {
	struct virtio_net_hdr hdr;
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
	uint8_t options[12];
	uint8_t payload[GSO_PAYLOAD];
} __attribute__((packed));
#define GSO_HEADERS \
	(offsetof(struct gso_packet, payload) - sizeof(struct virtio_net_hdr))

static struct gso_packet make_gso_packet(void)
{
	struct packet like = make_packet(0);
	struct gso_packet p = {
		.hdr = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
			 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
			 .hdr_len = GSO_HEADERS,
			 .gso_size = GSO_SEGMENT,
			 .csum_start = sizeof(p.eth) + sizeof(p.ip),
			 .csum_offset = offsetof(struct tcphdr, check) },
		.eth = like.eth,
		.tcp = { .source = htons(4000),
			 .dest = htons(53),
			 .doff = 8,
			 .ack = 1 },
		.options = { 1, 1, 8, 10 },
	};

	like.ip.protocol = IPPROTO_TCP;
	like.ip.tot_len = htons(sizeof(p) - sizeof(p.hdr) - sizeof(p.eth));
	set_checksum(&like);
	p.ip = like.ip;
	return p;
}

static int open_gso_socket(const char *ifname)
{
	int on = 1, fd = open_socket(ifname);

	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on,
				    sizeof(on)),
			 0);
	return fd;
}

/*
 * Of a packet whose payload is in pages nothing of that comes into the linear
 * part, where it would be copied, and keep the receiver from merging packets.
 */
static void payload_stays_in_its_pages(void **state)
{
	struct gso_packet p = make_gso_packet(), back = { 0 };
	int fd;

	(void)state;
	sh("ip link add up2 type veth peer name client2 &&"
	   "ip link set up2 up && ip link set client2 up");
	open_service();
	set_vip_of(IPPROTO_TCP, SERVICE << LOG2);
	attach(DATAPATH_TC, "up2");
	fd = open_gso_socket("client2");
	assert_int_equal(send(fd, &p, sizeof(p), 0), sizeof(p));
	do
		assert_true(recv(fd, &back, sizeof(back), 0) > 0);
	while (back.ip.daddr != p.ip.daddr);
	close(fd);
	assert_int_equal(back.eth.h_dest[0], ONE);
	assert_int_equal(back.hdr.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(back.hdr.gso_size, GSO_SEGMENT);
	/* How much of it is linear. */
	assert_int_equal(back.hdr.hdr_len, GSO_HEADERS);
	assert_memory_equal(back.payload, p.payload, sizeof(p.payload));
	sh("ip link del up2");
}

struct names {
	char text[256];
};

static void add_name(void *arg, const char *ifname)
{
	struct names *n = arg;

	strncat(n->text, ifname, sizeof(n->text) - strlen(n->text) - 1);
	strncat(n->text, " ", sizeof(n->text) - strlen(n->text) - 1);
}

static const char *links(struct names *n)
{
	n->text[0] = '\0';
	assert_int_equal(datapath_links(dp, add_name, n), 0);
	return n->text;
}

static void links_of_every_kind(void **state)
{
	struct names n;

	(void)state;
	open_service();
	assert_string_equal(links(&n), "");
	attach(DATAPATH_TC, "up1");
	assert_string_equal(links(&n), "up1 ");
	attach(DATAPATH_XDP_GENERIC, "up0");
	assert_string_equal(links(&n), "up0 up1 ");
	/* What an earlier process left is found, also without XDP. */
	datapath_close(dp);
	open_with(0, 1);
	assert_string_equal(links(&n), "up0 up1 ");
	detach(DATAPATH_XDP, "up0"); /* that isn't what it has */
	assert_int_equal(attached(DATAPATH_XDP_GENERIC, "up0"), ATTACH_OURS);
	detach(DATAPATH_XDP_GENERIC, "up0");
	detach(DATAPATH_TC, "up1");
	assert_string_equal(links(&n), "");
	/* A filter goes with its interface. */
	sh("ip link add gone0 type bridge");
	attach(DATAPATH_TC, "gone0");
	assert_string_equal(links(&n), "gone0 ");
	sh("ip link del gone0");
	assert_string_equal(links(&n), "");
}

/* Attaching fails with that error, and what is said holds the words. */
static void attach_fails(enum datapath_hook hook, const char *ifname, int want,
			 const char *words, const char *hint)
{
	struct diag_list diags = { 0 };
	AUTO_BUF struct buf said = BUF_INIT;

	assert_int_equal(datapath_attach(dp, hook, ifname,
					 (int)if_nametoindex(ifname), &diags),
			 want);
	diag_list_print(&diags, &said);
	if (!strstr(buf_str(&said), words) || !strstr(buf_str(&said), hint))
		fail_msg("said: %s", buf_str(&said));
	diag_list_release(&diags);
}

static void others_xdp_programs_stay(void **state)
{
	int other = other_program(BPF_PROG_TYPE_XDP);

	(void)state;
	open_service();
	assert_int_equal(bpf_xdp_attach(up0, other, XDP_FLAGS_DRV_MODE, NULL),
			 0);
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_FOREIGN);
	assert_int_equal(attached(DATAPATH_XDP_GENERIC, "up0"), ATTACH_FOREIGN);
	attach_fails(DATAPATH_XDP, "up0", -EBUSY, "\"another_one\"",
		     "hook: tc");
	attach_fails(DATAPATH_XDP_GENERIC, "up0", -EEXIST, "\"another_one\"",
		     "hook: tc");
	detach(DATAPATH_XDP, "up0");
	detach(DATAPATH_XDP_GENERIC, "up0");
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_FOREIGN);
	/* tc goes beside it. */
	attach(DATAPATH_TC, "up0");
	assert_int_equal(attached(DATAPATH_TC, "up0"), ATTACH_OURS);
	assert_int_equal(bpf_xdp_detach(up0, XDP_FLAGS_DRV_MODE, NULL), 0);
	close(other);
	assert_int_equal(packets_now("client0"), 0);
	/* A driver without. */
	sh("ip link add dull0 type bridge");
	attach_fails(DATAPATH_XDP, "dull0", -EOPNOTSUPP, "no native XDP",
		     "hook: tc");
	attach(DATAPATH_XDP_GENERIC, "dull0");
	sh("ip link del dull0");
}

static int add_filter(int ifindex, uint32_t priority, int prog)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x62, .priority = priority,
		    .prog_fd = prog);
	int err = bpf_tc_hook_create(&hook);

	return err && err != -EEXIST ? err : bpf_tc_attach(&hook, &opts);
}

static void others_filters_stay(void **state)
{
	int other = other_program(BPF_PROG_TYPE_SCHED_CLS);
	struct names n;

	(void)state;
	open_service();
	/* At another place it is none of our business. */
	assert_int_equal(add_filter(up0, 1, other), 0);
	assert_int_equal(attached(DATAPATH_TC, "up0"), ATTACH_NONE);
	attach(DATAPATH_TC, "up0");
	assert_int_equal(packets_now("client0"), 0);
	reload(XLB_FEATURE_NAT, 0);
	assert_int_equal(packets_now("client0"), 0);
	detach(DATAPATH_TC, "up0");
	assert_true(says("tc filter show dev up0 ingress", "another_one"));
	sh("tc qdisc del dev up0 clsact");
	/* At ours it is in the way. */
	assert_int_equal(add_filter(up0, 0x786b, other), 0);
	assert_int_equal(attached(DATAPATH_TC, "up0"), ATTACH_FOREIGN);
	attach_fails(DATAPATH_TC, "up0", -EBUSY, "\"another_one\"",
		     "remove that filter");
	detach(DATAPATH_TC, "up0");
	reload(XLB_FEATURE_IPIP, 0);
	assert_string_equal(links(&n), "");
	assert_true(says("tc filter show dev up0 ingress", "another_one"));
	/* Then between the XDP hooks nothing bridges, but they change. */
	attach(DATAPATH_XDP, "up0");
	attach(DATAPATH_XDP_GENERIC, "up0");
	assert_int_equal(attached(DATAPATH_XDP_GENERIC, "up0"), ATTACH_OURS);
	assert_true(says("tc filter show dev up0 ingress", "another_one"));
	sh("tc qdisc del dev up0 clsact");
	close(other);
}

/* The balancer passes on what isn't its own to the reply program. */
static void balancer_and_replies_on_one_interface(void **state)
{
	struct diag_list diags = { 0 };
	uint32_t id;
	uint64_t before;
	int fd, stats = bpf_enable_stats(BPF_STATS_RUN_TIME);

	(void)state;
	assert_true(stats >= 0);
	open_service();
	assert_int_equal(datapath_reply_attach(dp, up0, &diags), 0);
	attach(DATAPATH_TC, "up0");
	id = pinned_id("prog_reply");
	before = program(id, NULL, 0).run_cnt;
	assert_int_equal(packets_now("client0"), 0);
	assert_int_equal(program(id, NULL, 0).run_cnt, before);
	fd = open_socket("client0");
	for (int i = 0; i < 3; i++) {
		struct packet p = make_packet(0);

		p.ip.daddr = htonl(0xc0000299);
		set_checksum(&p);
		assert_int_equal(send(fd, &p, sizeof(p), 0), sizeof(p));
	}
	close(fd);
	/* Behind those three, by the same queue. */
	assert_int_equal(packets_now("client0"), 0);
	assert_int_equal(program(id, NULL, 0).run_cnt, before + 3);
	assert_int_equal(datapath_detach(dp, DATAPATH_TC, "up0", up0), 0);
	assert_int_equal(datapath_reply_attached(dp, up0), ATTACH_OURS);
	assert_int_equal(datapath_reply_detach(dp, up0), 0);
	assert_false(says("tc filter show dev up0 ingress", "xlb_"));
	close(stats);
}

static void older_programs_are_stale(void **state)
{
	struct diag_list diags = { 0 };
	int xdp, tc;

	(void)state;
	open_service();
	attach(DATAPATH_XDP, "up0");
	attach(DATAPATH_TC, "up1");
	assert_int_equal(datapath_reply_attach(dp, up1, &diags), 0);
	xdp = bpf_obj_get(BPFFS "/prog_xdp");
	tc = bpf_obj_get(BPFFS "/prog_tc");
	reload(XLB_FEATURE_NAT, 0);
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_OURS);
	assert_int_equal(attached(DATAPATH_TC, "up1"), ATTACH_OURS);
	assert_int_equal(datapath_reply_attached(dp, up1), ATTACH_OURS);
	/* Somebody puts the old ones back. */
	{
		LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = up1,
			    .attach_point = BPF_TC_INGRESS);
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x62,
			    .priority = 0x786b, .prog_fd = tc,
			    .flags = BPF_TC_F_REPLACE);
		int link = bpf_obj_get(BPFFS "/link_up0");

		assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
		assert_int_equal(bpf_link_update(link, xdp, NULL), 0);
		close(link);
	}
	close(xdp);
	close(tc);
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_STALE);
	assert_int_equal(attached(DATAPATH_TC, "up1"), ATTACH_STALE);
	attach(DATAPATH_XDP, "up0");
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_OURS);
	/* Opening repairs, too. */
	datapath_close(dp);
	open_with(0, 1);
	assert_int_equal(attached(DATAPATH_TC, "up1"), ATTACH_OURS);
}

/* A pin that was removed is made again, of the map that is in use. */
static void lost_pins_are_found(void **state)
{
	uint32_t slots, prog;

	(void)state;
	open_service();
	attach(DATAPATH_XDP, "up0");
	slots = pinned_id("slots");
	prog = pinned_id("prog_xdp");
	datapath_close(dp);
	sh("rm " BPFFS "/slots " BPFFS "/flows");
	open_with(0, 1);
	assert_int_equal(pinned_id("slots"), slots);
	assert_int_equal(pinned_id("prog_xdp"), prog);
	fill(SERVICE << LOG2, 2, XLB_REST);
	assert_int_equal(packets_now("client0"), BATCH);
	/* Another map under the name: the programs get that one. */
	datapath_close(dp);
	{
		LIBBPF_OPTS(bpf_map_create_opts, opts,
			    .map_flags = BPF_F_MMAPABLE);
		int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "slots", 4, 64,
					SLOTS / 16, &opts);

		sh("rm " BPFFS "/slots");
		assert_int_equal(bpf_obj_pin(fd, BPFFS "/slots"), 0);
		close(fd);
	}
	open_with(0, 1);
	assert_int_not_equal(pinned_id("slots"), slots);
	check_whole();
	assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_OURS);
	fill(SERVICE << LOG2, 2, XLB_REST);
	assert_int_equal(packets_now("client0"), BATCH);
}

/* ---- killed at any step ---- */

#define MARK 0x7e57 /* a call that means: from here on */

static bool changes_something(pid_t pid, const struct user_regs_struct *r)
{
	long word;

	switch (r->orig_rax) {
	case SYS_bpf:
		/* All pins are staged before anything else changes. */
		return r->rdi == BPF_LINK_UPDATE ||
		       (r->rdi == BPF_OBJ_PIN && factor() > 1);
	case SYS_rename:
	case SYS_clone: /* the grace period, when all is done */
	case SYS_clone3:
		return true;
	case SYS_sendto:
		word = ptrace(PTRACE_PEEKDATA, pid, r->rsi, NULL);
		return (uint16_t)((uint64_t)word >> 32) == RTM_NEWTFILTER ||
		       (uint16_t)((uint64_t)word >> 32) == RTM_DELTFILTER;
	default:
		return false;
	}
}

/*
 * Lets the child run to its call number `at` of those that change something,
 * and kills it before that is made.  false: it had ended by then.
 */
static bool kill_at(pid_t pid, unsigned int at)
{
	bool marked = false, entry = false;
	unsigned int calls = 0;
	int status;

	waitpid(pid, &status, 0); /* its own SIGSTOP */
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD);
	for (;;) {
		struct user_regs_struct r;

		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
			break;
		if (WSTOPSIG(status) != (SIGTRAP | 0x80))
			continue;
		entry = !entry;
		if (!entry || ptrace(PTRACE_GETREGS, pid, NULL, &r))
			continue;
		if (r.orig_rax == SYS_getpgid && r.rdi == MARK)
			marked = true;
		if (!marked || !changes_something(pid, &r) || calls++ < at)
			continue;
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		return true;
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static pid_t reload_in_child(uint32_t features, uint32_t slots)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	open_with(0, 1);
	syscall(SYS_getpgid, MARK);
	reload(features, slots);
	_exit(0);
}

static uint32_t length_of(const char *pin)
{
	return program(pinned_id(pin), NULL, 0).xlated_prog_len;
}

static void open_for_killing(void)
{
	open_service();
	attach(DATAPATH_XDP, "up0");
	attach(DATAPATH_TC, "up1");
}

/*
 * A process dies before each call that changes something.  Packets go on; the
 * next process has slots, pins and programs that belong together, and what it
 * writes is what packets follow.
 */
static void kill_everywhere(uint32_t features, uint32_t more_slots)
{
	const uint32_t both = BASE_FEATURES | features;
	uint32_t xdp[2], tc[2]; /* how long programs are: before, after */
	unsigned int at = 0;
	bool killed = true;

	for (int i = 0; i < 2; i++) {
		open_for_killing();
		reload(i ? features : 0, 0);
		xdp[i] = length_of("prog_xdp");
		tc[i] = length_of("prog_tc");
		close_service(NULL);
	}
	open_for_killing();
	for (; killed; at++) {
		uint32_t want = at % 2 ? 1 : 2;
		uint32_t slots = datapath_view(dp)->slot_count;
		bool after;

		datapath_close(dp);
		dp = NULL;
		killed = kill_at(reload_in_child(features, slots + more_slots),
				 at);
		assert_int_equal(packets_now("client0"), at % 2 ? BATCH : 0);
		assert_int_equal(packets_now("client1"), at % 2 ? BATCH : 0);
		open_with(0, 1);
		check_whole();
		assert_int_equal(attached(DATAPATH_XDP, "up0"), ATTACH_OURS);
		assert_int_equal(attached(DATAPATH_TC, "up1"), ATTACH_OURS);
		after = datapath_view(dp)->control->features == both;
		assert_true(after || datapath_view(dp)->control->features ==
					     BASE_FEATURES);
		assert_int_equal(length_of("prog_xdp"), xdp[after]);
		assert_int_equal(length_of("prog_tc"), tc[after]);
		fill(SERVICE << LOG2, want, XLB_REST);
		assert_int_equal(packets_now("client0"), want == 2 ? BATCH : 0);
		assert_int_equal(packets_now("client1"), want == 2 ? BATCH : 0);
	}
	assert_int_equal(datapath_view(dp)->control->features, both);
	print_message("# killed before each of %u calls\n", at - 1);
	assert_true(at > 5);
}

static void killed_while_slots_grow(void **state)
{
	(void)state;
	kill_everywhere(0, 512);
}

static void killed_while_features_grow(void **state)
{
	(void)state;
	kill_everywhere(XLB_FEATURE_NAT, 0);
}

/* ---- memories ---- */

static uint64_t *map_flows(void)
{
	int fd = bpf_obj_get(BPFFS "/flows");
	void *mem = mmap(NULL, FLOW_LINES * sizeof(struct xlb_flow_line),
			 PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_true(mem != MAP_FAILED);
	close(fd);
	return mem;
}

#define ENTRIES (FLOW_LINES * XLB_FLOW_WAYS)

static uint64_t entry_of(size_t i)
{
	return i % 2 ? XLB_FLOW(i, i, 3, XLB_FLOW_ESTABLISHED, 1 + i % 7 / 6)
		     : 0;
}

static bool keep_all(void *arg, uint32_t line, uint64_t entry)
{
	(void)line, (void)entry;
	(*(size_t *)arg)++;
	return true;
}

static bool keep_odd_lines(void *arg, uint32_t line, uint64_t entry)
{
	(void)entry;
	(*(size_t *)arg)++;
	return line % 2;
}

/* Half of all entries, found of them the backend's 2. */
static uint64_t *fill_flows(size_t *ret_found)
{
	uint64_t *flows;

	open_service();
	flows = map_flows();
	*ret_found = 0;
	for (size_t i = 0; i < ENTRIES; i++) {
		flows[i] = entry_of(i);
		*ret_found += flows[i] && XLB_FLOW_BACKEND(flows[i]) == 2;
	}
	return flows;
}

static void tick(int times)
{
	for (int i = 0; i < times; i++)
		datapath_tick(dp);
}

static void flows_are_of(const uint64_t *flows, uint32_t now)
{
	for (size_t i = 0; i < ENTRIES; i++) {
		uint64_t was = entry_of(i);
		uint64_t is = was ? XLB_FLOW(XLB_FLOW_TAG(was), now,
					     XLB_FLOW_GENERATION(was),
					     XLB_FLOW_CLASS(was),
					     XLB_FLOW_BACKEND(was))
				  : 0;

		if (flows[i] != is)
			fail_msg("entry %zu", i);
	}
}

static void another_tick(const uint64_t *flows)
{
	double start;

	tick(300);
	fill(3 << LOG2, 2, XLB_MOVING);
	fill(4 << LOG2, 2, XLB_HELD);
	fill(5 << LOG2, 2, XLB_SETTLED);
	tick(10);
	assert_int_equal(datapath_stamps(dp)[3 << LOG2], 300 & 0xff);
	/* The tick that there is changes nothing. */
	assert_int_equal(
		datapath_set_tick(dp, datapath_view(dp)->control->tick), 0);
	assert_int_equal(flows[1], entry_of(1));
	assert_int_equal(datapath_set_tick(dp, 0), -EINVAL);
	start = now_ms();
	assert_int_equal(datapath_set_tick(dp, 23), 0);
	print_message("# another tick, %u memories: %.1f ms\n", ENTRIES / 2,
		      now_ms() - start);
	assert_int_equal(datapath_view(dp)->control->tick, 23);
	flows_are_of(flows, 310);
	assert_int_equal(datapath_stamps(dp)[3 << LOG2], 310 & 0xff);
	assert_int_equal(datapath_stamps(dp)[4 << LOG2], 310 & 0xff);
	assert_int_equal(datapath_stamps(dp)[5 << LOG2], 0);
}

static void sweeps(const uint64_t *flows, size_t found)
{
	size_t seen = 0, left = 0;
	double start = now_ms();

	assert_int_equal(datapath_remembered(dp, 2), found);
	print_message("# counted: %.1f ms\n", now_ms() - start);
	start = now_ms();
	assert_int_equal(datapath_sweep(dp, keep_all, &seen), 0);
	print_message("# swept: %.1f ms\n", now_ms() - start);
	assert_int_equal(seen, ENTRIES / 2);
	start = now_ms();
	assert_int_equal(datapath_forget_flows(dp, 2), found);
	print_message("# forgot %zu: %.1f ms\n", found, now_ms() - start);
	assert_int_equal(datapath_remembered(dp, 2), 0);
	seen = 0;
	assert_int_equal(datapath_sweep(dp, keep_odd_lines, &seen), 0);
	assert_int_equal(seen, ENTRIES / 2 - found);
	for (size_t i = 0; i < ENTRIES; i++) {
		assert_true(!flows[i] || i / XLB_FLOW_WAYS % 2);
		left += flows[i] != 0;
	}
	assert_true(left > ENTRIES / 8);
}

static void ticks_and_sweeps(void **state)
{
	size_t found;
	uint64_t *flows = fill_flows(&found);

	(void)state;
	another_tick(flows);
	sweeps(flows, found);
	munmap(flows, FLOW_LINES * sizeof(struct xlb_flow_line));
}

#define WIDE (2 << LOG2)
#define ACROSS (SLOTS - 100) /* over the end of a page of stamps */

static void write_moving(uint32_t base, uint32_t from)
{
	uint32_t words[WIDE];

	for (size_t i = 0; i < WIDE; i++)
		words[i] = XLB_SLOT(2, 1, XLB_MOVING);
	assert_int_equal(
		datapath_write_slots(dp, &(struct slot_write){ .base = base,
							       .count = WIDE,
							       .words = words,
							       .fresh = true,
							       .from = from,
							       .shift = 1 }),
		WIDE);
}

/* Two slots take over the stamp of one; those beside them stay as they are. */
static void stamps_go_along(void **state)
{
	const uint8_t *stamps;

	(void)state;
	open_service();
	reload(0, 3 * SLOTS);
	stamps = datapath_stamps(dp);
	tick(20);
	fill(5 << LOG2, 2, XLB_MOVING);
	((uint8_t *)stamps)[(5 << LOG2) + 3] = 7;
	tick(20);
	write_moving(ACROSS, 5 << LOG2);
	for (uint32_t i = 0; i < WIDE; i++)
		assert_int_equal(stamps[ACROSS + i], i / 2 == 3 ? 7 : 20);
	assert_int_equal(stamps[ACROSS - 1], 0);
	assert_int_equal(stamps[ACROSS + WIDE], 0);
	assert_int_equal(stamps[(6 << LOG2) - 1], 20);
	write_moving(2 * SLOTS, UINT32_MAX);
	assert_int_equal(stamps[2 * SLOTS], 40);
	assert_int_equal(stamps[2 * SLOTS + WIDE - 1], 40);
	datapath_stamps_drop(dp);
	assert_int_equal(datapath_stamps(dp)[ACROSS], 20);
}

static void note_owner(void *arg, uint32_t id, const struct xlb_owner *owner)
{
	if (id == 9)
		*(struct xlb_owner *)arg = *owner;
}

static void owners_in_quarantine(void **state)
{
	struct xlb_owner owner = { .name = "left",
				   .kind = XLB_OWNER_QUARANTINE };
	struct xlb_owner read = { 0 };
	uint64_t events[XLB_EVENT_MAX] = { 1, 1 };

	(void)state;
	open_service();
	assert_int_equal(datapath_set_owner(dp, 9, &owner), 0);
	datapath_close(dp);
	open_with(0, 1);
	assert_int_equal(datapath_owners(dp, note_owner, &read), 0);
	assert_memory_equal(&read, &owner, sizeof(owner));
	assert_int_equal(datapath_events(dp, events), 0);
	assert_int_equal(events[XLB_EVENT_NO_ROOM], 0);
}

static void native_by_device(void **state)
{
	(void)state;
	assert_true(net_native(up0));
	sh("ip link set up1 mtu 3400");
	assert_false(net_native(up1));
	sh("ip link set up1 mtu 1500");
	assert_true(net_native(up1));
	assert_false(net_native((int)if_nametoindex("lo")));
	sh("ip link add dull0 type bridge");
	assert_false(net_native((int)if_nametoindex("dull0")));
	sh("ip link del dull0");
	assert_false(net_native(9999));
}

static int set_up(void **state)
{
	int pass;

	(void)state;
	/* All of it goes with this process, however that ends. */
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
		return -1;
	for (int i = 0; i < 2; i++)
		sh("ip link add up%d type veth peer name client%d &&"
		   "echo 1 >/proc/sys/net/ipv6/conf/up%d/disable_ipv6 &&"
		   "echo 1 >/proc/sys/net/ipv6/conf/client%d/disable_ipv6 &&"
		   "ip link set up%d up && ip link set client%d up",
		   i, i, i, i, i, i);
	/* A veth sends back to a peer with a program only. */
	pass = other_program(BPF_PROG_TYPE_XDP);
	for (int i = 0; i < 2; i++)
		if (bpf_xdp_attach((int)if_nametoindex(i ? "client1"
							 : "client0"),
				   pass, XDP_FLAGS_DRV_MODE, NULL))
			return -1;
	close(pass);
	up0 = (int)if_nametoindex("up0");
	up1 = (int)if_nametoindex("up1");
	return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, close_service)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(programs_have_what_is_asked_for),
		TEST(opening_asks_for_more),
		TEST(slots_grow),
		TEST(no_room_for_slots),
		TEST(reload_on_xdp),
		TEST(reload_on_xdp_generic),
		TEST(reload_on_tc),
		TEST(hooks_are_changed_under_traffic),
		TEST(hooks_are_changed_before_the_backlog),
		TEST(payload_stays_in_its_pages),
		TEST(links_of_every_kind),
		TEST(others_xdp_programs_stay),
		TEST(others_filters_stay),
		TEST(balancer_and_replies_on_one_interface),
		TEST(older_programs_are_stale),
		TEST(lost_pins_are_found),
		TEST(killed_while_slots_grow),
		TEST(killed_while_features_grow),
		TEST(ticks_and_sweeps),
		TEST(stamps_go_along),
		TEST(owners_in_quarantine),
		TEST(native_by_device),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root to load programs");
		return 0;
	}
	cmocka_set_test_filter(getenv("XLB_ONLY"));
	return cmocka_run_group_tests_name("loader", tests, set_up, NULL);
}
