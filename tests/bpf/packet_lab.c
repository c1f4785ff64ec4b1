/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets in, packets out: sets up the real tables through actual/bpf.h and
 * runs the real programs with BPF_PROG_TEST_RUN, by commands on standard
 * input.  Every command is answered by one line, "ok ..." or "error ...".
 *
 * It lives in its own network and mount namespaces with its own bpffs, so that
 * nothing is left behind however it ends.  There are two interfaces: up0 with
 * the route to the clients (a permanent neighbour), guest0 with the backends.
 * It stays on one CPU, for round robin goes by CPU.
 *
 *   backend ID [v4=A] [v6=A] [dst=MAC] [src=MAC] [ifindex=N] [port=N] [mtu=N]
 *           [generation=N] [vlan=N] [tx] [stack] [no_hop]
 *   vip ADDRESS PORT tcp|udp service=N [target=N] [base=N] [log2=N]
 *           [dsr|ipip|gue] [rr] [random] [two] [counted] [sticky]
 *           [client=TICKS]      rr: the slots are the schedule too
 *   vips                        the vip lines since the last time are the table
 *   fill BASE COUNT CUR PREV rest|moving|settled|held
 *   maglev|rr BASE LOG2 ID...   a table of these backends, at rest; settled
 *   load ID LOAD STEP
 *   loads ID                    ok LOAD
 *   reply ADDRESS PORT tcp|udp VIP PORT service=N backend=N
 *   replies                     as with vips
 *   direct ADDRESS PREFIX       and directs
 *   sources [v4=A] [v6=A]       outer ones of gue
 *   now N                       ticks until the clock's low byte is N
 *   xdp HEX [ifindex=N]         ok VERDICT HEX, of the balancer
 *   uplink HEX [ifindex=N] [gso=N]  the same, of its program for tc
 *   tc HEX [ifindex=N] [gso=N]  the same, of the reply program
 *           complete: with hardware's sum of the whole packet
 *   count ID                    ok PACKETS BYTES FLOWS
 *   drops                       ok [NAME=N]...
 *   events                      ok NO_ROOM RATE
 *   tokens N                    the buckets of half-open memories hold so many,
 *                               and the clock isn't asked for the next 63
 *   memories                    ok [LINE:CLASS:BACKEND:TIME]...
 *   remembered ID               ok N
 *   forget ID                   ok N
 *   ifindex NAME                ok N MAC
 *   attach NAME                 ok, or error and what the diag says
 *   attach_tc NAME              the same, the balancer in tc
 *   attach_reply NAME           the same
 *   detach NAME                 all of them
 *   outdate                     the next opening loads the programs anew
 *
 * With a folder of a bpffs as its argument it works in the namespaces it was
 * started in, and leaves the pins there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_link.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "actual/bpf.h"
#include "base/ip.h"
#include "base/mem.h"

#define BPFFS "/sys/fs/bpf/xlb"
#define PACKET_MAX 4096
#define WORDS_MAX 1100
#define SLOTS (1U << 16)
/*
 * BPF_F_TEST_SKB_CHECKSUM_COMPLETE: the packet comes with the sum that some
 * hardware makes of it, and the run fails if that isn't kept up.
 */
#define TEST_SUMMED (1U << 2)

struct lab {
	struct datapath *d;
	int xdp, uplink, tc; /* the pinned programs */
	struct xlb_vip *vips;
	size_t vip_count;
	struct reply_entry *replies;
	size_t reply_count;
	struct xlb_direct_key *directs;
	size_t direct_count;
	uint32_t generation; /* what differs between VIP tables: their seed */
};

/* A command, cut into words. */
struct command {
	char *words[WORDS_MAX];
	size_t count;
};

static int fail(const char *what, int err)
{
	printf("error %s: %s\n", what, strerror(err < 0 ? -err : err));
	return err;
}

static int answer(int err)
{
	if (err)
		return fail("command", err);
	puts("ok");
	return 0;
}

/* --- words of a command --- */

static const char *word(const struct command *c, size_t i)
{
	return i < c->count ? c->words[i] : "";
}

/* The value of key=value, NULL without. */
static const char *option(const struct command *c, const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 1; i < c->count; i++)
		if (!strncmp(c->words[i], key, len) && c->words[i][len] == '=')
			return c->words[i] + len + 1;
	return NULL;
}

static uint32_t number(const struct command *c, const char *key, uint32_t none)
{
	const char *value = option(c, key);

	return value ? (uint32_t)strtoul(value, NULL, 0) : none;
}

static bool flag(const struct command *c, const char *name)
{
	for (size_t i = 1; i < c->count; i++)
		if (!strcmp(c->words[i], name))
			return true;
	return false;
}

static uint32_t number_at(const struct command *c, size_t i)
{
	return (uint32_t)strtoul(word(c, i), NULL, 0);
}

static uint8_t proto_at(const struct command *c, size_t i)
{
	return strcmp(word(c, i), "udp") ? IPPROTO_TCP : IPPROTO_UDP;
}

/* Six hexadecimal numbers with a character between each two. */
static void mac(const struct command *c, const char *key, uint8_t ret[6])
{
	const char *value = option(c, key);

	for (int i = 0; value && i < 6; i++) {
		char *end;

		ret[i] = (uint8_t)strtoul(value, &end, 16);
		value = *end ? end + 1 : end;
	}
}

/* --- tables --- */

static void next_hop(const struct command *c, __u64 l2[2])
{
	uint8_t bytes[16] = { 0 };
	uint32_t ifindex = number(c, "ifindex", 1);

	mac(c, "dst", bytes);
	mac(c, "src", bytes + 6);
	memcpy(bytes + 12, &ifindex, 4);
	memcpy(l2, bytes, 16);
}

static int do_backend(struct lab *lab, const struct command *c)
{
	struct xlb_backend line = { 0 };
	const char *v4 = option(c, "v4"), *v6 = option(c, "v6");
	struct ip a;

	if (v4 && ip_parse(v4, &a)) {
		line.addr4 = a.words[0];
		line.sum4 = ip_sum(&a);
		if (!flag(c, "no_hop"))
			next_hop(c, line.l2_v4);
	}
	if (v6 && ip_parse(v6, &a)) {
		memcpy(line.addr6, a.words, 16);
		line.sum6 = ip_sum(&a);
		if (!flag(c, "no_hop"))
			next_hop(c, line.l2_v6);
	}
	line.port = htons((uint16_t)number(c, "port", 0));
	line.mtu = (uint16_t)number(c, "mtu", 1500);
	line.generation = (uint8_t)number(c, "generation", 1);
	line.vlan = (uint16_t)number(c, "vlan", 0);
	line.flags = (uint8_t)((flag(c, "tx") ? XLB_BACKEND_TX : 0) |
			       (flag(c, "stack") ? XLB_BACKEND_STACK : 0) |
			       (flag(c, "leaving") ? XLB_BACKEND_LEAVING : 0));
	return answer(datapath_set_backend(lab->d, number_at(c, 1), &line));
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static uint8_t forwarding_of(const struct command *c)
{
	if (flag(c, "dsr"))
		return XLB_DSR;
	if (flag(c, "ipip"))
		return XLB_IPIP;
	return flag(c, "gue") ? XLB_GUE : XLB_NAT;
}

static uint16_t vip_flags(const struct command *c)
{
	unsigned int flags =
		(flag(c, "rr") ? XLB_VIP_SCHEDULE : 0) |
		(flag(c, "random") ? XLB_VIP_RANDOM : 0) |
		(flag(c, "two") ? XLB_VIP_TWO_CHOICES : 0) |
		(flag(c, "counted") ? XLB_VIP_COUNTED : 0) |
		(flag(c, "sticky") ? XLB_VIP_STICKY : 0) |
		(option(c, "client") ? XLB_VIP_CLIENT : 0) |
		(option(c, "to_client") ? XLB_VIP_CLIENT_HASH : 0) |
		(flag(c, "from_client") ? XLB_VIP_CLIENT_OLD : 0);

	return (uint16_t)flags;
}

static int do_vip(struct lab *lab, const struct command *c)
{
	struct xlb_vip *v = MEM_PUSH(lab->vips, lab->vip_count);
	uint16_t port = (uint16_t)number_at(c, 2);
	struct ip a;

	if (!ip_parse(word(c, 1), &a))
		return answer(-EINVAL);
	v->family = a.family == AF_INET ? 4 : 6;
	memcpy(v->addr, a.words, v->family == 4 ? 4 : 16);
	v->port = htons(port);
	v->proto = proto_at(c, 3);
	v->service = (uint16_t)number(c, "service", 1);
	v->target_port = htons((uint16_t)number(c, "target", port));
	v->addr_sum = ip_sum(&a);
	v->port_sum = fold((uint16_t)~v->port + (uint32_t)v->target_port);
	v->forwarding = forwarding_of(c);
	v->slot_base = number(c, "base", 0);
	v->slot_shift = (uint8_t)(32 - number(c, "log2", 8));
	v->schedule_base = v->slot_base;
	v->schedule_shift = v->slot_shift;
	v->affinity_ticks =
		(uint8_t)number(c, "client", number(c, "to_client", 0));
	v->flags = vip_flags(c);
	return answer(0);
}

static int do_vips(struct lab *lab, const struct command *c)
{
	AUTO_FREE struct vip_table *t = mem_alloc(sizeof(*t));
	int err = vip_table_build(lab->vips, lab->vip_count, ++lab->generation,
				  t);

	(void)c;
	lab->vip_count = 0;
	free(lab->vips);
	lab->vips = NULL;
	return answer(err ? err : datapath_set_vips(lab->d, t));
}

static enum xlb_slot_state state_of(const char *name)
{
	if (!strcmp(name, "moving"))
		return XLB_MOVING;
	if (!strcmp(name, "held"))
		return XLB_HELD;
	return strcmp(name, "settled") ? XLB_REST : XLB_SETTLED;
}

static int do_fill(struct lab *lab, const struct command *c)
{
	uint32_t count = number_at(c, 2);
	uint32_t slot = XLB_SLOT(number_at(c, 3), number_at(c, 4),
				 state_of(word(c, 5)));
	AUTO_FREE uint32_t *words = mem_array(count, sizeof(*words));
	struct slot_write w = { .base = number_at(c, 1),
				.count = count,
				.words = words,
				.from = UINT32_MAX };
	int changed;

	for (uint32_t i = 0; i < count; i++)
		words[i] = slot;
	changed = datapath_write_slots(lab->d, &w);
	if (changed < 0)
		return fail("fill", changed);
	printf("ok %d\n", changed);
	return 0;
}

static int do_table(struct lab *lab, const struct command *c)
{
	uint8_t log2 = (uint8_t)number_at(c, 2);
	size_t count = c->count > 3 ? c->count - 3 : 0;
	AUTO_FREE struct table_member *members =
		mem_array(count, sizeof(*members));
	AUTO_FREE uint32_t *words = mem_array(1U << log2, sizeof(*words));

	for (size_t i = 0; i < count; i++) {
		members[i].name = word(c, i + 3);
		members[i].id = number_at(c, i + 3);
		members[i].weight = 1;
	}
	(strcmp(word(c, 0), "rr") ? table_maglev : table_round_robin)(
		members, count, log2, words);
	for (uint32_t i = 0; i < 1U << log2; i++)
		words[i] = XLB_SLOT(words[i], words[i],
				    strcmp(word(c, 0), "rr") ? XLB_REST
							     : XLB_SETTLED);
	datapath_write_slots(lab->d,
			     &(struct slot_write){ .base = number_at(c, 1),
						   .count = 1U << log2,
						   .words = words,
						   .from = UINT32_MAX });
	return answer(0);
}

static int do_reply(struct lab *lab, const struct command *c)
{
	struct reply_entry *r = MEM_PUSH(lab->replies, lab->reply_count);
	struct ip from, vip;

	if (!ip_parse(word(c, 1), &from) || !ip_parse(word(c, 4), &vip))
		return answer(-EINVAL);
	r->key.family = from.family == AF_INET ? 4 : 6;
	memcpy(r->key.addr, from.words, r->key.family == 4 ? 4 : 16);
	r->key.port = htons((uint16_t)number_at(c, 2));
	r->key.proto = proto_at(c, 3);
	memcpy(r->value.addr, vip.words, r->key.family == 4 ? 4 : 16);
	r->value.port = htons((uint16_t)number_at(c, 5));
	r->value.service = (uint16_t)number(c, "service", 1);
	r->value.backend = number(c, "backend", 1);
	return answer(0);
}

static int do_replies(struct lab *lab, const struct command *c)
{
	size_t changed;
	int err = datapath_set_replies(lab->d, lab->replies, lab->reply_count,
				       &changed);

	(void)c;
	lab->reply_count = 0;
	free(lab->replies);
	lab->replies = NULL;
	return answer(err);
}

static int do_direct(struct lab *lab, const struct command *c)
{
	struct xlb_direct_key *k = MEM_PUSH(lab->directs, lab->direct_count);
	struct ip a;

	if (!ip_parse(word(c, 1), &a))
		return answer(-EINVAL);
	k->prefix_len = number_at(c, 2) + (a.family == AF_INET ? 96 : 0);
	if (a.family == AF_INET) {
		k->addr[2] = htonl(0xffff);
		k->addr[3] = a.words[0];
	} else {
		memcpy(k->addr, a.words, 16);
	}
	return answer(0);
}

static int do_directs(struct lab *lab, const struct command *c)
{
	size_t changed;
	int err = datapath_set_direct(lab->d, lab->directs, lab->direct_count,
				      &changed);

	(void)c;
	lab->direct_count = 0;
	free(lab->directs);
	lab->directs = NULL;
	return answer(err);
}

static int do_sources(struct lab *lab, const struct command *c)
{
	const char *v4 = option(c, "v4"), *v6 = option(c, "v6");
	struct ip a4, a6;

	if ((v4 && !ip_parse(v4, &a4)) || (v6 && !ip_parse(v6, &a6)))
		return answer(-EINVAL);
	datapath_set_sources(lab->d, v4 ? a4.words : NULL,
			     v6 ? a6.words : NULL);
	return answer(0);
}

static int do_now(struct lab *lab, const struct command *c)
{
	uint8_t now = (uint8_t)number_at(c, 1);

	while ((uint8_t)datapath_view(lab->d)->control->now != now)
		datapath_tick(lab->d);
	return answer(0);
}

/* --- packets --- */

/* Returns how many bytes; an odd digit at the end is left out. */
static size_t from_hex(const char *hex, uint8_t *ret, size_t size)
{
	char pair[3] = { 0 };
	size_t n = 0;

	for (; n < size && hex[2 * n] && hex[2 * n + 1]; n++) {
		memcpy(pair, hex + 2 * n, 2);
		ret[n] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return n;
}

static int print_result(const char *verdict, const uint8_t *data, size_t len)
{
	printf("ok %s ", verdict);
	for (size_t i = 0; i < len; i++)
		printf("%02x", data[i]);
	putchar('\n');
	return 0;
}

static int do_xdp(struct lab *lab, const struct command *c)
{
	static const char *const verdicts[] = { "aborted", "drop", "pass", "tx",
						"redirect" };
	uint8_t in[PACKET_MAX], out[PACKET_MAX];
	uint32_t len = (uint32_t)from_hex(word(c, 1), in, sizeof(in));
	struct xdp_md md = { .data_end = len,
			     .ingress_ifindex = number(c, "ifindex", 0) };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out,
		    .data_size_in = len, .data_size_out = sizeof(out),
		    .repeat = 1);

	if (md.ingress_ifindex) {
		o.ctx_in = &md;
		o.ctx_size_in = sizeof(md);
	}
	if (bpf_prog_test_run_opts(lab->xdp, &o))
		return fail("test run", errno);
	return print_result(o.retval < ARRAY_SIZE(verdicts) ? verdicts[o.retval]
							    : "unknown",
			    out, o.data_size_out);
}

static const char *tc_verdict(uint32_t retval)
{
	switch ((int)retval) {
	case -1:
	case 0:
		return "pass";
	case 2:
		return "drop";
	case 7:
		return "redirect";
	default:
		return "unknown";
	}
}

static int run_tc(int prog, const struct command *c, const char *interface)
{
	uint8_t in[PACKET_MAX], out[PACKET_MAX];
	struct __sk_buff skb = { .ifindex = number(c, "ifindex",
						   if_nametoindex(interface)),
				 .gso_size = number(c, "gso", 0) };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out,
		    .data_size_in =
			    (uint32_t)from_hex(word(c, 1), in, sizeof(in)),
		    .data_size_out = sizeof(out), .ctx_in = &skb,
		    .ctx_size_in = sizeof(skb), .repeat = 1,
		    .flags = flag(c, "complete") ? TEST_SUMMED : 0);

	if (skb.gso_size)
		skb.gso_segs = 2;
	if (bpf_prog_test_run_opts(prog, &o))
		return fail("test run", errno);
	return print_result(tc_verdict(o.retval), out, o.data_size_out);
}

static int do_tc(struct lab *lab, const struct command *c)
{
	return run_tc(lab->tc, c, "guest0");
}

static int do_uplink(struct lab *lab, const struct command *c)
{
	return run_tc(lab->uplink, c, "lo");
}

/* --- what is counted --- */

static int do_count(struct lab *lab, const struct command *c)
{
	struct xlb_counter n = datapath_count(lab->d, number_at(c, 1));

	printf("ok %llu %llu %llu\n", n.packets, n.bytes, n.flows);
	return 0;
}

static int do_drops(struct lab *lab, const struct command *c)
{
	uint64_t n[XLB_DROP_MAX];
	int err = datapath_drops(lab->d, n);

	(void)c;
	if (err)
		return answer(err);
	printf("ok");
	for (unsigned int i = 0; i < XLB_DROP_MAX; i++)
		if (n[i])
			printf(" %s=%lu", drop_name(i), (unsigned long)n[i]);
	putchar('\n');
	return 0;
}

static int do_events(struct lab *lab, const struct command *c)
{
	uint64_t n[XLB_EVENT_MAX];
	int err = datapath_events(lab->d, n);

	(void)c;
	if (err)
		return answer(err);
	printf("ok %lu %lu\n", (unsigned long)n[XLB_EVENT_NO_ROOM],
	       (unsigned long)n[XLB_EVENT_RATE]);
	return 0;
}

static int do_tokens(struct lab *lab, const struct command *c)
{
	struct {
		uint64_t refilled;
		uint32_t tokens;
		uint32_t skipped;
	} limits[CPU_SETSIZE] = { 0 };
	int fd = bpf_obj_get(BPFFS "/limits");
	struct timespec now;
	uint32_t key = 0;
	int err;

	(void)lab;
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		limits[i].refilled = (uint64_t)now.tv_sec * 1000000000 +
				     (uint64_t)now.tv_nsec;
		limits[i].tokens = number_at(c, 1);
		limits[i].skipped = 1;
	}
	err = bpf_map_update_elem(fd, &key, limits, BPF_ANY) ? -errno : 0;
	close(fd);
	return answer(err);
}

static bool print_memory(void *arg, uint32_t line, uint64_t entry)
{
	(void)arg;
	printf(" %u:%u:%u:%u", line, XLB_FLOW_CLASS(entry),
	       XLB_FLOW_BACKEND(entry), XLB_FLOW_TIME(entry));
	return true;
}

static int do_memories(struct lab *lab, const struct command *c)
{
	(void)c;
	printf("ok");
	if (datapath_sweep(lab->d, print_memory, NULL))
		printf(" error");
	putchar('\n');
	return 0;
}

static int do_load(struct lab *lab, const struct command *c)
{
	struct xlb_load load = { .load = number_at(c, 2),
				 .step = number_at(c, 3) };

	datapath_set_load(lab->d, number_at(c, 1), &load);
	return answer(0);
}

static int do_loads(struct lab *lab, const struct command *c)
{
	uint32_t id = number_at(c, 1) & (XLB_BACKENDS - 1);

	printf("ok %u\n", datapath_view(lab->d)->loads[id].load);
	return 0;
}

static int do_remembered(struct lab *lab, const struct command *c)
{
	printf("ok %u\n", datapath_remembered(lab->d, number_at(c, 1)));
	return 0;
}

static int do_forget(struct lab *lab, const struct command *c)
{
	printf("ok %u\n", datapath_forget_flows(lab->d, number_at(c, 1)));
	return 0;
}

static int do_ifindex(struct lab *lab, const struct command *c)
{
	struct ifreq r = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const uint8_t *m = (const uint8_t *)r.ifr_hwaddr.sa_data;
	int err;

	(void)lab;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", word(c, 1));
	err = fd < 0 || ioctl(fd, SIOCGIFHWADDR, &r) ? errno : 0;
	close(fd);
	if (err)
		return fail("interface", err);
	printf("ok %u %02x:%02x:%02x:%02x:%02x:%02x\n",
	       if_nametoindex(word(c, 1)), m[0], m[1], m[2], m[3], m[4], m[5]);
	return 0;
}

static int said(int err, struct diag_list *diags)
{
	AUTO_BUF struct buf text = BUF_INIT;

	diag_list_print(diags, &text);
	diag_list_release(diags);
	if (!err)
		return answer(0);
	printf("error %.*s\n", (int)strcspn(buf_str(&text), "\n"),
	       buf_str(&text));
	return err;
}

static int do_attach(struct lab *lab, const struct command *c)
{
	struct diag_list diags = { 0 };
	int ifindex = (int)if_nametoindex(word(c, 1));
	enum datapath_hook hook =
		strcmp(word(c, 0), "attach_tc") ? DATAPATH_XDP : DATAPATH_TC;

	return said(strcmp(word(c, 0), "attach_reply")
			    ? datapath_attach(lab->d, hook, word(c, 1), ifindex,
					      &diags)
			    : datapath_reply_attach(lab->d, ifindex, &diags),
		    &diags);
}

static int do_detach(struct lab *lab, const struct command *c)
{
	int ifindex = (int)if_nametoindex(word(c, 1));
	int err = datapath_detach(lab->d, DATAPATH_XDP, word(c, 1), 0);

	if (!err)
		err = datapath_detach(lab->d, DATAPATH_TC, word(c, 1), ifindex);
	return answer(err ? err : datapath_reply_detach(lab->d, ifindex));
}

static int do_outdate(struct lab *lab, const struct command *c)
{
	const uint8_t *build = datapath_view(lab->d)->control->build;

	(void)c;
	memset((uint8_t *)build, 0, 32);
	return answer(0);
}

static const struct {
	const char *name;
	int (*run)(struct lab *lab, const struct command *c);
} verbs[] = {
	{ "backend", do_backend },
	{ "vip", do_vip },
	{ "vips", do_vips },
	{ "fill", do_fill },
	{ "maglev", do_table },
	{ "rr", do_table },
	{ "reply", do_reply },
	{ "replies", do_replies },
	{ "direct", do_direct },
	{ "directs", do_directs },
	{ "sources", do_sources },
	{ "now", do_now },
	{ "xdp", do_xdp },
	{ "tc", do_tc },
	{ "count", do_count },
	{ "drops", do_drops },
	{ "remembered", do_remembered },
	{ "forget", do_forget },
	{ "ifindex", do_ifindex },
	{ "attach", do_attach },
	{ "attach_tc", do_attach },
	{ "attach_reply", do_attach },
	{ "detach", do_detach },
	{ "outdate", do_outdate },
	{ "uplink", do_uplink },
	{ "events", do_events },
	{ "memories", do_memories },
	{ "load", do_load },
	{ "loads", do_loads },
	{ "tokens", do_tokens },
};

static int run_command(struct lab *lab, char *line)
{
	struct command c = { .count = 0 };

	for (char *save = NULL, *w = strtok_r(line, " \n", &save);
	     w && c.count < WORDS_MAX; w = strtok_r(NULL, " \n", &save))
		c.words[c.count++] = w;
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(word(&c, 0), verbs[i].name))
			return verbs[i].run(lab, &c);
	return fail(word(&c, 0), ENOSYS);
}

/* --- the world around --- */

static int sh(const char *command)
{
	/* NOLINTNEXTLINE(cert-env33-c): fixed strings of this file */
	int status = system(command);

	if (status)
		fprintf(stderr, "packet_lab: failed: %s\n", command);
	return status ? -EIO : 0;
}

/* Everything here goes with the last process of these namespaces. */
static int make_world(void)
{
	int err = 0;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL))
		return -errno;
	err |= sh("sysctl -qw net.ipv4.conf.all.forwarding=1 "
		  "net.ipv6.conf.all.forwarding=1");
	err |= sh("ip link set lo up && ip link add up0 address "
		  "02:00:00:00:00:01 type veth peer name client0 && "
		  "ip link add guest0 address 02:00:00:00:00:02 mtu 9000 type "
		  "veth peer name backend0 && for i in up0 guest0 client0 "
		  "backend0; do ip link set $i up; done");
	err |= sh("ip address add 198.51.100.1/24 dev up0 && "
		  "ip address add 2001:db8:ffff::1/64 dev up0 nodad && "
		  "ip address add 10.0.0.1/24 dev guest0 && "
		  "ip address add fd00::1/64 dev guest0 nodad");
	err |= sh("ip neighbour add 198.51.100.254 lladdr 02:00:00:00:00:fe "
		  "dev up0 nud permanent && "
		  "ip neighbour add 2001:db8:ffff::fe lladdr 02:00:00:00:00:fe "
		  "dev up0 nud permanent && "
		  "ip route add 203.0.113.0/24 via 198.51.100.254 && "
		  "ip route add 2001:db8:c::/48 via 2001:db8:ffff::fe && "
		  "ip route add blackhole 198.18.66.0/24 && "
		  "ip route add blackhole 2001:db8:b::/48");
	return err;
}

static int tables_open(struct lab *lab, const char *folder)
{
	const struct datapath_config cfg = { .bpffs = folder,
					     .slots = SLOTS,
					     .flow_lines = 1024,
					     .features = XLB_FEATURE_ALL,
					     .flow_seed = 0x5eed };
	struct diag_list diags = { 0 };
	AUTO_BUF struct buf text = BUF_INIT;
	int err = datapath_open(&cfg, &lab->d, &diags);

	/* The program for tc is loaded once an interface asks for it. */
	if (!err)
		err = datapath_attach(lab->d, DATAPATH_TC, "lo",
				      (int)if_nametoindex("lo"), &diags);
	diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	diag_list_release(&diags);
	return err;
}

static int lab_open(struct lab *lab)
{
	int err = make_world();

	if (!err)
		err = tables_open(lab, BPFFS);
	if (err)
		return err;
	lab->xdp = bpf_obj_get(BPFFS "/prog_xdp");
	lab->uplink = bpf_obj_get(BPFFS "/prog_tc");
	lab->tc = bpf_obj_get(BPFFS "/prog_reply");
	if (lab->xdp < 0 || lab->uplink < 0 || lab->tc < 0)
		return -errno;
	/* A program that is attached somewhere runs without the grace period
	 * that each test run of another one costs. */
	return bpf_xdp_attach((int)if_nametoindex("lo"), lab->xdp,
			      XDP_FLAGS_SKB_MODE, NULL);
}

static void stay_here(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv)
{
	struct lab lab = { 0 };
	char *line = NULL;
	size_t size = 0;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	stay_here();
	err = argc > 1 ? tables_open(&lab, argv[1]) : lab_open(&lab);
	if (err) {
		fail("start", err);
		return 1;
	}
	puts("ok ready");
	while (getline(&line, &size, stdin) > 0)
		run_command(&lab, line);
	free(line);
	datapath_close(lab.d);
	return 0;
}
