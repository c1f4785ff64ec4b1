/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bpf/replay.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <linux/bpf.h>
#include <linux/types.h>

static __u64 seed_of(const struct xlb_tables *block)
{
	return block->control.flow_seed;
}

/*
 * The headers of the path expect libbpf's, which are for the other machine.
 * A context's pointers have 32 bits there; maps are only named here, see
 * bpf_map_lookup_elem().
 */
#define __BPF_HELPERS__
#define SEC(name)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#undef __always_inline
#define __always_inline inline __attribute__((always_inline, unused))
#define __noinline __attribute__((noinline, unused))

struct replay_context {
	void *data;
	void *data_end;
	uint32_t ingress_ifindex;
};
#define xdp_md replay_context

/* The block of tables is another process's memory: a pointer here. */
#define tables (*path_tables)
#define flow_seed (*path_seed)
#define flow_shift (*path_shift)

/* A flow more where it went: that isn't to be. */
#define __sync_fetch_and_add(place, value) ((void)(place), (void)(value))

static void *bpf_map_lookup_elem(const void *map, const void *key);
static uint32_t bpf_get_smp_processor_id(void);
static uint32_t bpf_get_prandom_u32(void);
static uint64_t bpf_ktime_get_ns(void);
static long bpf_redirect(uint32_t ifindex, uint64_t flags);
static long bpf_xdp_adjust_head(struct replay_context *ctx, int delta);
static long bpf_xdp_adjust_tail(struct replay_context *ctx, int delta);
static long bpf_xdp_load_bytes(struct replay_context *ctx, uint32_t at,
			       void *to, uint32_t len);
static long bpf_xdp_store_bytes(struct replay_context *ctx, uint32_t at,
				void *from, uint32_t len);
static int64_t bpf_csum_diff(const uint32_t *from, uint32_t from_size,
			     const uint32_t *to, uint32_t to_size,
			     uint32_t seed);

/* Written for another compiler, which warns of less. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wint-conversion"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wint-to-pointer-cast"
#pragma GCC diagnostic ignored "-Wnull-dereference"

#include "bpf/tables.h"

/* As an expression; the original is in the other machine's language. */
#undef MASK
#define MASK(value, mask) ((__u64)(value) & (mask))

#include "bpf/deliver.h"

#pragma GCC diagnostic pop

#define HEADROOM 256 /* as the kernel gives a program */
#define LINES 4 /* of memories that one packet asks for, and more */
#define LENGTH_MAX 65535

/* One packet's run: what it met, and the copies that it wrote to. */
static struct {
	const struct replay_tables *t;
	struct {
		uint32_t line;
		bool used;
		struct xlb_flow_line copy;
	} lines[LINES];
	uint64_t counter[4]; /* what is counted goes here */
	struct limit limit;
	struct icmp_answer icmp;
	enum xlb_drop drop;
	uint32_t redirect;
	bool picked;
	/* An IP header lies as the kernel would have it. */
	uint8_t frame[HEADROOM + 16 + LENGTH_MAX] __attribute__((aligned(16)));
} run;

static void *line_copy(uint32_t line)
{
	for (size_t i = 0; i < LINES; i++) {
		if (run.lines[i].used && run.lines[i].line == line)
			return &run.lines[i].copy;
		if (run.lines[i].used)
			continue;
		if (line >= run.t->flow_lines ||
		    !run.t->line(run.t->arg, line, &run.lines[i].copy))
			return NULL;
		run.lines[i].used = true;
		run.lines[i].line = line;
		return &run.lines[i].copy;
	}
	return NULL;
}

static void *bpf_map_lookup_elem(const void *map, const void *key)
{
	uint32_t i = *(const uint32_t *)key;

	if (map == &slots)
		return i < run.t->slot_count / XLB_LINE_SLOTS
			       ? (void *)&run.t->slots[i * XLB_LINE_SLOTS]
			       : NULL;
	if (map == &flows)
		return line_copy(i);
	if (map == &limits)
		return &run.limit;
	if (map == &icmp_place)
		return &run.icmp;
	if (map == &drops)
		run.drop = (enum xlb_drop)i;
	if (map == &cursors)
		run.picked = true;
	return map == &drops || map == &cursors || map == &counters ||
			       map == &events
		       ? run.counter
		       : NULL;
}

static uint32_t bpf_get_smp_processor_id(void)
{
	return 0;
}

static uint32_t bpf_get_prandom_u32(void)
{
	run.picked = true;
	return 0;
}

static uint64_t bpf_ktime_get_ns(void)
{
	return 0;
}

static long bpf_redirect(uint32_t ifindex, uint64_t flags)
{
	(void)flags;
	run.redirect = ifindex;
	return XDP_REDIRECT;
}

static long bpf_xdp_adjust_head(struct replay_context *ctx, int delta)
{
	uint8_t *to = (uint8_t *)ctx->data + delta;

	if (to < run.frame || to > (uint8_t *)ctx->data_end)
		return -1;
	ctx->data = to;
	return 0;
}

static long bpf_xdp_adjust_tail(struct replay_context *ctx, int delta)
{
	uint8_t *to = (uint8_t *)ctx->data_end + delta;

	if (to < (uint8_t *)ctx->data || to > run.frame + sizeof(run.frame))
		return -1;
	ctx->data_end = to;
	return 0;
}

static bool is_inside(const struct replay_context *ctx, uint32_t at,
		      uint32_t len)
{
	return (uint8_t *)ctx->data + at + len <= (uint8_t *)ctx->data_end;
}

static long bpf_xdp_load_bytes(struct replay_context *ctx, uint32_t at,
			       void *to, uint32_t len)
{
	if (!is_inside(ctx, at, len))
		return -1;
	memcpy(to, (uint8_t *)ctx->data + at, len);
	return 0;
}

static long bpf_xdp_store_bytes(struct replay_context *ctx, uint32_t at,
				void *from, uint32_t len)
{
	if (!is_inside(ctx, at, len))
		return -1;
	memcpy((uint8_t *)ctx->data + at, from, len);
	return 0;
}

static int64_t bpf_csum_diff(const uint32_t *from, uint32_t from_size,
			     const uint32_t *to, uint32_t to_size,
			     uint32_t seed)
{
	uint64_t sum = seed;

	for (uint32_t i = 0; i < from_size / 4; i++)
		sum += (uint32_t)~from[i];
	for (uint32_t i = 0; i < to_size / 4; i++)
		sum += to[i];
	while (sum >> 32)
		sum = (sum & 0xffffffff) + (sum >> 32);
	return (int64_t)sum;
}

/* ---- the packet ---- */

static void put_transport(const struct replay_packet *p, uint8_t *at,
			  uint16_t length)
{
	struct tcphdr tcp = { .source = p->sport,
			      .dest = p->dport,
			      .doff = sizeof(tcp) / 4 };
	struct udphdr udp = { .source = p->sport,
			      .dest = p->dport,
			      .len = (__be16)bpf_htons(length) };

	if (p->proto == IPPROTO_UDP) {
		memcpy(at, &udp, sizeof(udp));
		return;
	}
	memcpy(at, &tcp, sizeof(tcp));
	at[13] = p->tcp_flags;
}

static void put_v4(const struct replay_packet *p, uint8_t *at)
{
	struct iphdr ip = { .version = 4,
			    .ihl = 5,
			    .tot_len = (__be16)bpf_htons(p->length),
			    .frag_off = bpf_htons(IP_DF),
			    .ttl = p->ttl,
			    .protocol = p->proto,
			    .saddr = p->src[0],
			    .daddr = p->dst[0] };

	memcpy(at, &ip, sizeof(ip));
	put_transport(p, at + sizeof(ip), (uint16_t)(p->length - sizeof(ip)));
}

static void put_v6(const struct replay_packet *p, uint8_t *at)
{
	uint16_t length = (uint16_t)(p->length - sizeof(struct ipv6hdr));
	struct ipv6hdr ip = { .version = 6,
			      .payload_len = (__be16)bpf_htons(length),
			      .nexthdr = p->proto,
			      .hop_limit = p->ttl };

	memcpy(&ip.saddr, p->src, sizeof(ip.saddr));
	memcpy(&ip.daddr, p->dst, sizeof(ip.daddr));
	memcpy(at, &ip, sizeof(ip));
	put_transport(p, at + sizeof(ip), length);
}

/* From and to some Ethernet addresses that may be answered. */
static struct replay_context put_frame(const struct replay_packet *p)
{
	bool v4 = p->family == FAMILY_V4;
	struct ethhdr eth = {
		.h_dest = { 2, 0, 0, 0, 0, 1 },
		.h_source = { 2, 0, 0, 0, 0, 2 },
		.h_proto = v4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6),
	};
	uint8_t *at = run.frame + HEADROOM + 2;

	memset(run.frame, 0, sizeof(run.frame));
	memcpy(at, &eth, sizeof(eth));
	if (v4)
		put_v4(p, at + sizeof(eth));
	else
		put_v6(p, at + sizeof(eth));
	return (struct replay_context){
		.data = at,
		.data_end = at + sizeof(eth) + p->length,
		.ingress_ifindex = run.t->ifindex,
	};
}

static bool is_possible(const struct replay_packet *p)
{
	size_t least = p->family == FAMILY_V4 ? sizeof(struct iphdr)
					      : sizeof(struct ipv6hdr);

	least += p->proto == IPPROTO_TCP ? sizeof(struct tcphdr)
					 : sizeof(struct udphdr);
	return (p->family == FAMILY_V4 || p->family == FAMILY_V6) &&
	       proto_has_ports(p->proto) && p->length >= least;
}

static void begin(const struct replay_tables *t)
{
	run.t = t;
	memset(run.lines, 0, sizeof(run.lines));
	run.limit = (struct limit){ .tokens = TOKENS_MAX };
	run.drop = XLB_DROP_NONE;
	run.redirect = 0;
	run.picked = false;
}

/* ---- what the tables say of it ---- */

static struct packet parts(const struct replay_packet *p,
			   const struct xlb_vip *vip,
			   struct replay_context *ctx)
{
	uint8_t *ip = (uint8_t *)ctx->data + sizeof(struct ethhdr);
	bool v4 = p->family == FAMILY_V4;
	struct packet ret;

	if (v4)
		ret = packet_v4(ctx, vip, (struct iphdr *)ip,
				(void *)(ip + sizeof(struct iphdr)), p->proto);
	else
		ret = packet_v6(ctx, vip, (struct ipv6hdr *)ip,
				(void *)(ip + sizeof(struct ipv6hdr)),
				p->proto);
	packet_whole(ctx, &ret, ip, ctx->data_end);
	return ret;
}

static uint64_t find_memory(uint64_t hash, uint64_t key)
{
	struct xlb_flow_line *line = memory_line(hash);
	uint32_t tag = memory_tag(key);
	struct memory m = { 0 };

	if (line)
		memory_find(line, tag, tag, &m);
	return m.known;
}

static uint32_t slot_index(const struct xlb_vip *vip, uint64_t hash)
{
	return (uint32_t)(hash >> 32) >> (vip->slot_shift & 31);
}

/* The slots and memories that the path is going to ask. */
static void look(const struct xlb_vip *vip, const struct packet *pk,
		 struct replay_result *ret)
{
	bool sticks_now = clients_stick(vip);
	bool stuck_before = vip->flags & XLB_VIP_CLIENT_OLD;

	ret->slot =
		slot_index(vip, sticks_now ? pk->hash.client : pk->hash.flow);
	ret->word = slot_read(vip->slot_base + ret->slot);
	ret->old_slot = ret->slot;
	if (sticks_now != stuck_before)
		ret->old_slot = slot_index(vip, stuck_before ? pk->hash.client
							     : pk->hash.flow);
	ret->old_word = slot_read(vip->slot_base + ret->old_slot);
	ret->decides = slot_decides(vip, ret->word);
	if (ret->decides)
		return;
	ret->known =
		find_memory(pk->hash.flow, memory_key(pk->hash.flow, pk->dest));
	if (sticks_now &&
	    affinity_backend(pk->hash.client, pk->dest, vip->affinity_ticks))
		ret->client = find_memory(pk->hash.client,
					  memory_key(pk->hash.client ^ AFFINITY,
						     pk->dest));
}

/* Was a copy of a line written to? */
static bool lines_changed(void)
{
	for (size_t i = 0; i < LINES; i++) {
		struct xlb_flow_line now;

		if (run.lines[i].used &&
		    run.t->line(run.t->arg, run.lines[i].line, &now) &&
		    memcmp(&now, &run.lines[i].copy, sizeof(now)) != 0)
			return true;
	}
	return false;
}

static const struct xlb_vip *find_service(const struct replay_packet *p)
{
	return service_find(p->dst, p->family, p->dport, p->proto);
}

static int deliver(const struct replay_packet *p)
{
	struct replay_context ctx = put_frame(p);
	uint8_t *ip = (uint8_t *)ctx.data + sizeof(struct ethhdr);

	if (p->family == FAMILY_V4)
		return deliver_v4(&ctx, (struct iphdr *)ip,
				  (void *)(ip + sizeof(struct iphdr)),
				  p->proto);
	return deliver_v6(&ctx, (struct ipv6hdr *)ip,
			  (void *)(ip + sizeof(struct ipv6hdr)), p->proto);
}

static void judge(int action, struct replay_result *ret)
{
	ret->drop = run.drop;
	ret->ifindex = action == XDP_TX ? run.t->ifindex : run.redirect;
	if (action == XDP_PASS)
		ret->verdict = REPLAY_PASS;
	else if (action != XDP_TX && action != XDP_REDIRECT)
		ret->verdict = REPLAY_DROP;
	else
		ret->verdict = run.drop ? REPLAY_ANSWERED : REPLAY_SENT;
}

int replay(const struct replay_tables *t, const struct replay_packet *p,
	   struct replay_result *ret)
{
	const __u64 seed = seed_of(t->block);
	const __u32 shift = 32 - (uint32_t)__builtin_ctz(t->flow_lines);
	struct replay_context ctx;
	const struct xlb_vip *vip;
	struct packet pk;

	*ret = (struct replay_result){ .verdict = REPLAY_PASS };
	if (!is_possible(p))
		return -EINVAL;
	path_tables = (struct xlb_tables *)t->block;
	path_seed = &seed;
	path_shift = &shift;
	begin(t);
	vip = find_service(p);
	if (!vip)
		return 0;
	ret->declared = true;
	ret->vip = *vip;
	ctx = put_frame(p);
	pk = parts(p, &ret->vip, &ctx);
	look(&ret->vip, &pk, ret);
	/* The backend, and once more with all that follows. */
	ret->backend = packet_backend(&pk, &ret->vip, ctx.data_end);
	ret->picked = run.picked;
	ret->remembers = lines_changed();
	begin(t);
	judge(deliver(p), ret);
	return 0;
}
