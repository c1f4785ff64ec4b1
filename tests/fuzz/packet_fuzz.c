/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Any frame at all through the balancer's program, by BPF_PROG_TEST_RUN.  What
 * isn't for a VIP must pass as it is; the rest is dropped under one reason, is
 * answered by the VIP (an echo, a packet too big), or goes to a backend of that
 * very service, whole and with its checksums right.  XLB_FUZZ_TC=1: through the
 * program for tc.
 *
 * The program runs in the kernel, out of the fuzzer's sight: it is steered by
 * what the reader of tests/lib/packet_view.h meets, which has the same cases.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/ip.h"
#include "tables/tables.h"
#include "tests/lib/bpf_lab.h"
#include "tests/lib/packet_make.h"
#include "tests/lib/packet_view.h"

#define SERVICES 12
#define ENCAP 6 /* from here on packets go behind other headers */
#define LOG2 4
#define MTU 1400
#define FLOW_LOG2 8

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max,
			       unsigned int seed);

static struct bpf_lab lab;
static struct xlb_vip vips[SERVICES];
static const struct {
	int family;
	uint8_t proto;
	enum xlb_forwarding forwarding;
} shapes[SERVICES] = {
	{ 4, IPPROTO_TCP, XLB_NAT },
	{ 4, IPPROTO_UDP, XLB_NAT },
	{ 6, IPPROTO_TCP, XLB_NAT },
	{ 6, IPPROTO_UDP, XLB_NAT },
	{ 4, IPPROTO_TCP, XLB_DSR },
	{ 6, IPPROTO_UDP, XLB_DSR },
	/* Backends with an address of one family only, see make_backend(). */
	{ 4, IPPROTO_TCP, XLB_IPIP },
	{ 6, IPPROTO_TCP, XLB_IPIP },
	{ 4, IPPROTO_UDP, XLB_GUE },
	{ 6, IPPROTO_UDP, XLB_GUE },
	{ 4, IPPROTO_TCP, XLB_GUE },
	{ 6, IPPROTO_UDP, XLB_IPIP },
};

static const uint8_t source4[4] = { 192, 0, 2, 200 };
static const uint8_t source6[16] = { 0x20, 1, 0x0d, 0xb8, 9 };

/* --- a world that stays as it is --- */

/*
 * Two backends a service; a MAC says whose it is: 02, then the id.  Where
 * packets go behind other headers the first has no IPv6 address, the second no
 * IPv4 one.
 */
static void make_backend(uint32_t id)
{
	struct ip a4 = { .family = AF_INET }, a6 = { .family = AF_INET6 };
	struct xlb_backend be = { .mtu = MTU, .flags = XLB_BACKEND_TX };
	uint8_t mac[16] = { 2, (uint8_t)id, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 1 };

	memcpy(a4.bytes, (uint8_t[]){ 10, 1, 2, (uint8_t)id }, 4);
	a6.bytes[0] = 0xfd;
	a6.bytes[15] = (uint8_t)id;
	be.addr4 = a4.words[0];
	be.sum4 = ip_sum(&a4);
	memcpy(be.addr6, a6.words, 16);
	be.sum6 = ip_sum(&a6);
	memcpy(be.l2_v4, mac, 16);
	memcpy(be.l2_v6, mac, 16);
	be.generation = 1;
	if ((id - 1) / 2 >= ENCAP && id % 2) {
		memset(be.addr6, 0, 16);
		be.sum6 = 0;
	} else if ((id - 1) / 2 >= ENCAP) {
		be.addr4 = 0;
		be.sum4 = 0;
	}
	lab.tables->backends[id] = be;
}

/* Some slots of each state. */
static uint32_t slot_word(uint32_t service, uint32_t i)
{
	uint32_t one = 2 * service + 1, two = one + 1;

	if (shapes[service].proto == IPPROTO_UDP)
		return i % 2 ? XLB_SLOT(one, one, XLB_REST)
			     : XLB_SLOT(two, two, XLB_REST);
	if (i % 3 == 0)
		return XLB_SLOT(one, one, XLB_REST);
	return i % 3 == 1 ? XLB_SLOT(one, two, XLB_MOVING)
			  : XLB_SLOT(two, two, XLB_SETTLED);
}

static int make_service(uint32_t n)
{
	struct ip a = { .family = shapes[n].family == 4 ? AF_INET : AF_INET6 };
	struct xlb_address_key key = { .family = (uint32_t)shapes[n].family };
	struct xlb_vip *v = &vips[n];
	uint32_t one = 1;

	a.bytes[0] = shapes[n].family == 4 ? 192 : 0x20;
	a.bytes[2] = 2;
	a.bytes[shapes[n].family == 4 ? 3 : 15] = (uint8_t)(n + 1);
	*v = (struct xlb_vip){
		.port = htons(80),
		.proto = shapes[n].proto,
		.family = (uint8_t)shapes[n].family,
		.service = (uint16_t)(n + 1),
		.target_port = htons(8080),
		.addr_sum = ip_sum(&a),
		.forwarding = shapes[n].forwarding,
		.slot_shift = 32 - LOG2,
		.slot_base = n << LOG2,
	};
	memcpy(v->addr, a.words, shapes[n].family == 4 ? 4 : 16);
	memcpy(key.addr, v->addr, 16);
	make_backend(2 * n + 1);
	make_backend(2 * n + 2);
	for (uint32_t i = 0; i < 1U << LOG2; i++)
		lab.slots[v->slot_base + i] = slot_word(n, i);
	return bpf_map_update_elem(lab.addresses, &key, &one, BPF_ANY);
}

static bool is_vip_address(int family, const uint8_t addr[16])
{
	for (int i = 0; i < SERVICES; i++)
		if (vips[i].family == family && !memcmp(vips[i].addr, addr, 16))
			return true;
	return false;
}

static int service_at(int family, const uint8_t addr[16], uint16_t port,
		      uint8_t proto)
{
	for (int i = 0; i < SERVICES; i++)
		if (vips[i].family == family && vips[i].proto == proto &&
		    vips[i].port == port && !memcmp(vips[i].addr, addr, 16))
			return i;
	return -1;
}

/* --- what is true of every frame --- */

struct run {
	const uint8_t *in;
	uint8_t out[PACKET_MAX];
	size_t in_size, out_size;
	struct packet_view was, is;
	enum lab_verdict verdict;
	uint64_t dropped; /* so many drops were counted */
};

static void print_frame(const char *name, const uint8_t *frame, size_t size)
{
	fprintf(stderr, "%s %zu: ", name, size);
	for (size_t i = 0; i < size; i++)
		fprintf(stderr, "%02x", frame[i]);
	fputc('\n', stderr);
}

static void demand(const struct run *r, bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "verdict %d: %s\n", r->verdict, what);
	print_frame("in", r->in, r->in_size);
	print_frame("out", r->out, r->out_size);
	abort();
}

/* A packet without fault, for a service: must not reach the host's stack. */
static bool is_plainly_ours(const struct packet_view *v)
{
	size_t header = v->proto == IPPROTO_TCP ? 20 : 8;

	return v->tags <= 2 && v->reach == REACH_PORTS && !v->odd &&
	       v->extensions <= 4 && v->l4 + header <= v->size &&
	       v->l4 + header <= v->l3 + v->ip_len &&
	       v->l3 + v->ip_len <= v->size &&
	       service_at(v->family, v->dst, v->dport, v->proto) >= 0;
}

/* The packet that an ICMP error quotes, behind an Ethernet header in room. */
static bool quoted(const struct packet_view *v, uint8_t *room,
		   struct packet_view *ret)
{
	size_t from = v->l4 + 8;

	if (v->reach != REACH_PROTO || v->size <= from ||
	    (v->proto != IPPROTO_ICMP && v->proto != IPPROTO_ICMPV6))
		return false;
	memset(room, 0, 14);
	memcpy(room + 12, v->family == 4 ? "\x08\x00" : "\x86\xdd", 2);
	memcpy(room + 14, v->frame + from, v->size - from);
	/* Its version needn't be right: the outer one's family counts. */
	room[14] = (uint8_t)((room[14] & 15) | v->family << 4);
	packet_view(room, v->size - from + 14, ret);
	return true;
}

/* The service whose packet this is; pieces and errors say only its address. */
static bool is_for_service(const struct run *r, int service)
{
	const struct xlb_vip *vip = &vips[service];
	const struct packet_view *v = &r->was;
	uint8_t room[PACKET_MAX];
	struct packet_view q;

	if (v->family != vip->family || memcmp(v->dst, vip->addr, 16) != 0)
		return false;
	if (v->part == PART_LATER)
		return true;
	if (v->reach == REACH_PORTS)
		return v->dport == vip->port && v->proto == vip->proto;
	return quoted(v, room, &q) && q.sport == vip->port &&
	       q.proto == vip->proto && !memcmp(q.src, vip->addr, 16);
}

static bool csum_is_good(const struct packet_view *v)
{
	return v->l3 + v->ip_len <= v->size && v->l4 <= v->size &&
	       packet_l4_csum_at(v) + 2 <= v->l3 + v->ip_len &&
	       packet_csums_good(v);
}

static void check_header(const struct run *r, const struct xlb_vip *vip,
			 uint32_t id)
{
	const struct xlb_backend *be = &lab.tables->backends[id];
	const struct packet_view *was = &r->was, *is = &r->is;
	bool nat = vip->forwarding == XLB_NAT;
	const void *dst = !nat		    ? (const void *)vip->addr
			  : is->family == 4 ? (const void *)&be->addr4
					    : be->addr6;

	demand(r, r->out_size == r->in_size - 4 * was->tags, "another size");
	demand(r,
	       is->tags == 0 && is->family == was->family &&
		       is->ip_len == was->ip_len && is->proto == was->proto &&
		       is->l4 - is->l3 == was->l4 - was->l3,
	       "another header");
	demand(r, is->l3 + is->ip_len <= r->out_size, "cut short");
	demand(r, !memcmp(is->dst, dst, is->family == 4 ? 4 : 16),
	       "another destination");
	demand(r, !memcmp(is->src, was->src, 16), "another source");
	demand(r, is->hops == was->hops - nat && (is->hops || !nat), "hops");
}

static size_t outer_bytes(const struct packet_view *outer, bool gue)
{
	return (outer->family == 4 ? 20U : 40U) + (gue ? 8 : 0);
}

static void check_outer_source(const struct run *r, bool gue)
{
	const struct packet_view *o = &r->is;
	uint8_t discard[8] = { 1 };

	if (o->family == 4 && gue)
		demand(r, !memcmp(o->src, source4, 4), "an outer source");
	else if (o->family == 4)
		demand(r, o->src[0] == 172 && o->src[1] == 16,
		       "an outer source");
	else
		demand(r,
		       !memcmp(o->src, gue ? source6 : discard, gue ? 16 : 8),
		       "an outer source");
}

static void check_outer_udp(const struct run *r)
{
	const struct packet_view *o = &r->is;
	const uint8_t *udp = r->out + o->l4;

	demand(r,
	       o->reach == REACH_PORTS && ntohs(o->sport) >= 49152 &&
		       o->dport == htons(XLB_GUE_PORT),
	       "outer ports");
	demand(r,
	       (uint32_t)(udp[4] << 8 | udp[5]) == o->ip_len - o->l3_len &&
		       !udp[6] && !udp[7],
	       "an outer UDP header");
}

/* Behind other headers: the packet as it came. */
static void check_wrapped(const struct run *r, const struct xlb_vip *vip,
			  uint32_t id)
{
	const struct xlb_backend *be = &lab.tables->backends[id];
	const struct packet_view *was = &r->was, *o = &r->is;
	bool gue = vip->forwarding == XLB_GUE;
	uint8_t proto = was->family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6;
	size_t room;

	demand(r, o->tags == 0 && o->family == (be->addr4 ? 4 : 6),
	       "another outer family");
	room = outer_bytes(o, gue);
	demand(r, r->out_size == r->in_size - 4 * was->tags + room,
	       "another size");
	demand(r,
	       o->reach >= REACH_PROTO && !o->options && !o->extensions &&
		       o->part == PART_WHOLE && o->may_not_fragment &&
		       o->proto == (gue ? IPPROTO_UDP : proto) &&
		       o->hops == 64 && o->tos == was->tos &&
		       o->ip_len == was->ip_len + room,
	       "another outer header");
	demand(r, o->ip_len <= MTU && packet_csums_good(o), "an outer header");
	demand(r,
	       !memcmp(o->dst,
		       o->family == 4 ? (const void *)&be->addr4 : be->addr6,
		       o->family == 4 ? 4 : 16),
	       "another destination");
	check_outer_source(r, gue);
	if (gue)
		check_outer_udp(r);
	demand(r,
	       !memcmp(r->out + 14 + room, r->in + was->l3,
		       r->in_size - was->l3),
	       "another packet inside");
}

static void check_rewritten(const struct run *r, const struct xlb_vip *vip,
			    uint32_t id)
{
	check_header(r, vip, id);
	if (csum_is_good(&r->was))
		demand(r, csum_is_good(&r->is), "a wrong checksum");
	if (r->is.reach == REACH_PORTS && vip->forwarding == XLB_NAT)
		demand(r, r->is.dport == vip->target_port, "another port");
	if (r->is.reach == REACH_PORTS)
		demand(r,
		       !memcmp(r->out + r->is.l4 + 20 -
				       12 * (vip->proto == IPPROTO_UDP),
			       r->in + r->was.l4 + 20 -
				       12 * (vip->proto == IPPROTO_UDP),
			       r->out_size - r->is.l4 - 20 +
				       12 * (vip->proto == IPPROTO_UDP)),
		       "another payload");
}

static void check_sent(const struct run *r)
{
	uint32_t id = r->out[1];
	int service = (int)(id - 1) / 2;

	demand(r, r->out[0] == 2 && id >= 1 && id <= 2 * SERVICES,
	       "no backend's address");
	demand(r, is_for_service(r, service), "another service's backend");
	(service >= ENCAP ? check_wrapped : check_rewritten)(r, &vips[service],
							     id);
}

/* Is it an echo request, of which all is there? */
static bool is_echo(const struct packet_view *v)
{
	const uint8_t *icmp = v->frame + v->l4;

	return v->reach == REACH_PROTO && v->part == PART_WHOLE &&
	       v->l4 + 8 <= v->size && v->l3 + v->ip_len <= v->size &&
	       v->proto == (v->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) &&
	       icmp[0] == (v->family == 4 ? 8 : 128) && !icmp[1];
}

/* The VIP's answer to an echo: the request, but for what says so. */
static void check_echo(const struct run *r)
{
	const struct packet_view *was = &r->was, *is = &r->is;

	demand(r, is_echo(was), "an echo that nobody asked for");
	demand(r, !r->dropped, "answered, but counted as dropped");
	demand(r,
	       is->part == PART_WHOLE && is->ip_len == was->ip_len &&
		       is->hops == 64 && r->out[is->l4 + 1] == 0,
	       "an echo's header");
	demand(r,
	       r->out_size - is->l4 == r->in_size - was->l4 &&
		       !memcmp(r->out + is->l4 + 4, r->in + was->l4 + 4,
			       r->out_size - is->l4 - 4),
	       "an echo's data");
	if (csum_is_good(was))
		demand(r, csum_is_good(is), "an echo's checksum");
}

/* The VIP's answer to who sent too much. */
static void check_too_big(const struct run *r)
{
	bool v4 = r->is.family == 4;
	const uint8_t *icmp = r->out + r->is.l4;
	uint32_t mtu;

	demand(r, r->dropped == 1, "too big, but not counted");
	demand(r, packet_csums_good(&r->is), "an answer's checksum");
	memcpy(&mtu, icmp + 4, 4);
	mtu = ntohl(mtu);
	demand(r,
	       icmp[0] == (v4 ? 3 : 2) && icmp[1] == (v4 ? 4 : 0) &&
		       mtu <= MTU && mtu >= MTU - 48 && mtu < r->was.ip_len,
	       "too big for what?");
}

static void check_answer(const struct run *r)
{
	bool v4 = r->is.family == 4;

	demand(r,
	       r->is.reach == REACH_PROTO && r->is.family == r->was.family &&
		       r->is.proto == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) &&
		       r->is.l4 + 8 <= r->out_size,
	       "an answer that is none");
	demand(r,
	       is_vip_address(r->was.family, r->was.dst) &&
		       !memcmp(r->is.src, r->was.dst, 16) &&
		       !memcmp(r->is.dst, r->was.src, 16),
	       "an answer from somebody else");
	if (r->out[r->is.l4] == (v4 ? 0 : 129))
		check_echo(r);
	else
		check_too_big(r);
}

/* Turned round: no backend's line has such a pair of addresses. */
static bool is_answer(const struct run *r)
{
	return r->verdict == LAB_REDIRECT && !memcmp(r->out, r->in + 6, 6) &&
	       !memcmp(r->out + 6, r->in, 6);
}

/* In tc a tag that was given back may stand beside the packet, unseen here. */
static bool is_unchanged(const struct run *r)
{
	if (r->out_size == r->in_size)
		return !memcmp(r->out, r->in, r->in_size);
	return lab.tc && r->was.tags && r->out_size + 4 == r->in_size &&
	       !memcmp(r->out, r->in, 12) &&
	       !memcmp(r->out + 12, r->in + 16, r->out_size - 12);
}

static void check(const struct run *r)
{
	switch (r->verdict) {
	case LAB_PASS:
		demand(r, is_unchanged(r), "passed, but changed");
		demand(r, !is_plainly_ours(&r->was), "ours, but passed");
		demand(r, !r->dropped, "passed, but counted as dropped");
		break;
	case LAB_DROP:
		demand(r, r->dropped == 1, "dropped without one reason");
		demand(r, is_vip_address(r->was.family, r->was.dst),
		       "not ours, but dropped");
		break;
	case LAB_TX:
	case LAB_REDIRECT:
		if (is_answer(r)) {
			check_answer(r);
			break;
		}
		demand(r, !r->dropped, "sent, but counted as dropped");
		check_sent(r);
		break;
	case LAB_ABORTED:
		demand(r, false, "aborted");
	}
}

static uint64_t all_drops(void)
{
	uint64_t drops[XLB_DROP_MAX], sum = 0;

	if (bpf_lab_percpu(lab.drops, drops, XLB_DROP_MAX))
		abort();
	for (int i = 0; i < XLB_DROP_MAX; i++)
		sum += drops[i];
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint64_t drops;
	struct run r = { .in = data, .in_size = size };
	uint64_t before = drops;

	/* What has no Ethernet header the kernel doesn't take from a test. */
	if (size < (lab.tc ? 14 + 40 : 14) || size > PACKET_MAX - 64)
		return -1;
	packet_view(data, size, &r.was);
	if (bpf_lab_run(&lab, data, size, r.out, &r.out_size, &r.verdict)) {
		perror("bpf_lab_run");
		abort();
	}
	packet_view(r.out, r.out_size, &r.is);
	drops = all_drops();
	r.dropped = drops - before;
	check(&r);
	return 0;
}

/* --- frames --- */

static size_t make_error(uint64_t *rng, struct packet_spec *p, uint8_t *frame)
{
	struct packet_spec answer = *p;
	uint8_t inside[PACKET_MAX];
	size_t size;

	answer.tags = 0;
	memcpy(answer.src, p->dst, 16);
	memcpy(answer.dst, p->src, 16);
	answer.sport = p->dport;
	answer.dport = p->sport;
	size = packet_make(&answer, inside) - 14;
	p->proto = p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	p->type = (uint8_t)(1 + random_below(rng, 12));
	if (random_once_in(rng, 4))
		p->type = p->family == 4 ? 8 : 128;
	p->quote = inside + 14;
	p->quote_size = size;
	p->fragment = p->later = false;
	return packet_make(p, frame);
}

/* A good packet for a VIP, or nearly. */
static size_t make_frame(uint64_t *rng, uint8_t *frame)
{
	const struct xlb_vip *v = &vips[random_below(rng, SERVICES)];
	struct packet_spec p = {
		.family = v->family,
		.proto = v->proto,
		.sport = htons((uint16_t)(1 + random_below(rng, 40))),
		.dport = v->port,
		.hops = (uint8_t)random_below(rng, 70),
		.tos = (uint8_t)random_below(rng, 256),
		.df = random_once_in(rng, 2),
		.flags = (uint8_t)random_below(rng, 64),
		.seq = random_below(rng, 8),
		.tcp_options = (uint8_t)(random_once_in(rng, 4) *
					 random_below(rng, 11)),
		.no_csum = random_once_in(rng, 4),
		.payload = random_below(rng, 64),
		.tags = random_once_in(rng, 4) * random_below(rng, 4),
		.ip_options = (uint8_t)(random_once_in(rng, 4) *
					random_below(rng, 11)),
		.extensions = random_once_in(rng, 4) * random_below(rng, 6),
		.fragment = random_once_in(rng, 6),
		.later = random_once_in(rng, 2),
		.fragment_id = random_below(rng, 4),
	};

	if (random_once_in(rng, 40))
		p.payload = MTU - 80 + random_below(rng, 100);
	p.later &= p.fragment;
	p.src[0] = p.family == 4 ? 203 : 0x20;
	p.src[3] = (uint8_t)random_below(rng, 20);
	memcpy(p.dst, v->addr, 16);
	if (random_once_in(rng, 10))
		p.dst[2] ^= 1;
	if (random_once_in(rng, 10))
		p.dport ^= htons(1);
	if (random_once_in(rng, 6))
		return make_error(rng, &p, frame);
	return packet_make(&p, frame);
}

/* Fields whose wrong values lead astray, by their place in the frame. */
static void twist(uint64_t *rng, uint8_t *data, size_t size)
{
	static const uint8_t bytes[] = { 0,    1,    4,	   5,	6,  17,
					 43,   44,   51,   58,	60, 0x40,
					 0x45, 0x60, 0x7f, 0xff };
	struct packet_view v;
	size_t at;

	packet_view(data, size, &v);
	switch (random_below(rng, 4)) {
	case 0: /* of the IP header */
		at = v.l3 + random_below(rng, 10);
		break;
	case 1: /* of the transport's, or an extension's */
		at = v.l4 + random_below(rng, 16);
		break;
	case 2: /* of what an error quotes */
		at = v.l4 + 8 + random_below(rng, 60);
		break;
	default:
		at = random_below(rng, (uint32_t)size);
	}
	if (at < size)
		data[at] = random_once_in(rng, 2)
				   ? bytes[random_below(rng, sizeof(bytes))]
				   : (uint8_t)random_next(rng);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max,
			       unsigned int seed)
{
	uint64_t rng = seed;
	uint8_t frame[PACKET_MAX];

	if (size < 14 || random_once_in(&rng, 4)) {
		size = make_frame(&rng, frame);
		size = size < max ? size : max;
		memcpy(data, frame, size);
	}
	for (uint32_t n = random_below(&rng, 4); n; n--)
		twist(&rng, data, size);
	if (random_once_in(&rng, 8))
		size = 14 + random_below(&rng, (uint32_t)size - 13);
	if (random_once_in(&rng, 4))
		size = LLVMFuzzerMutate(data, size, max);
	return size;
}

/* Every kind of packet, cut at every length. */
static void cut_everywhere(void)
{
	uint8_t frame[PACKET_MAX];
	uint64_t rng = 1;

	for (int i = 0; i < 60; i++) {
		size_t size = make_frame(&rng, frame);

		for (size_t len = size < 400 ? 14 : size - 200; len <= size;
		     len++)
			LLVMFuzzerTestOneInput(frame, len);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static struct vip_table table;
	const char *tc = getenv("XLB_FUZZ_TC");
	const struct bpf_lab_config cfg = { .tc = tc && *tc == '1',
					    .flow_seed = 42,
					    .slots = SERVICES << LOG2,
					    .flow_log2 = FLOW_LOG2 };

	(void)argc, (void)argv;
	if (bpf_lab_enter() < 0 || bpf_lab_open(&lab, &cfg))
		exit(1);
	for (uint32_t n = 0; n < SERVICES; n++)
		if (make_service(n))
			exit(1);
	memcpy(&lab.tables->control.source4, source4, 4);
	memcpy(lab.tables->control.source6, source6, 16);
	if (vip_table_build(vips, SERVICES, 7, &table))
		exit(1);
	bpf_lab_flip(&lab, &table);
	cut_everywhere();
	return 0;
}
