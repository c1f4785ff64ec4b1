/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that the hot path doesn't take: options, extension headers,
 * fragments, VLAN tags, ICMP.  Their headers are found by offsets, within
 * bounds; from the ports on they are delivered as any other.  What can't be
 * is dropped under a name if its address is a VIP's, else it passes.
 *
 * One step after the other, each a function that is verified by itself, and
 * what they hand on beside the stack: the stack is small, and all functions
 * that call each other share it.
 */
#ifndef RARE_H
#define RARE_H

#include "deliver.h"
#include "headers.h"
#include "icmp_in.h"
#include "tags.h"

/* Bounds of `l4` below, for the verifier; more than any l4 there is. */
#define L4_MAX_V4 0x7f
#define L4_MAX_V6 0x3fff

/* What was decided about a packet. */
struct choice {
	struct xlb_vip vip; /* a copy: the table may change meanwhile */
	struct flow flow;
	__u32 backend;
	bool new_flow;
};

/* The packet in hand. */
struct rare {
	struct headers headers;
	struct tags tags;
	struct choice choice;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rare);
} rare_place SEC(".maps");

/* What can't be balanced: its address decides what becomes of it. */
static __always_inline int refuse(const struct headers *h, enum xlb_drop reason)
{
	return address_is_vip(h->key.dst, h->key.family) ? drop(reason)
							 : VERDICT_PASS;
}

/* Step: what the headers say, as far as this way goes on from there. */
__noinline int rare_headers(struct context *ctx, struct rare *r)
{
	struct headers *h = &r->headers;
	int reason;

	if (!r)
		return VERDICT_DROP;
	if (h->key.family == FAMILY_V4)
		reason = headers_v4(ctx, sizeof(struct ethhdr), h);
	else
		reason = headers_v6(ctx, sizeof(struct ethhdr), h);
	if (leads_to_ports(h->proto, h->key.family))
		return reason ? refuse(h, reason) : GO_ON;
	return reason || h->pieces ? VERDICT_PASS : GO_ON;
}

/* What was decided for the first fragment, or NULL.  6.1 takes no such key
 * but from the stack. */
static __always_inline struct xlb_fragment *fragment_first(struct rare *r)
{
	struct xlb_fragment_key key = r->headers.key;

	return bpf_map_lookup_elem(&fragments, &key);
}

/* Later fragments will follow this one. */
__noinline int fragment_remember(struct rare *r)
{
	struct xlb_fragment_key key;
	struct xlb_fragment value = {};

	if (!r)
		return 0;
	key = r->headers.key;
	value.backend = r->choice.backend;
	value.forwarding = r->choice.vip.forwarding;
	return (int)bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* A later fragment follows its first one, addresses only. */
__noinline int later_v4(struct context *ctx, struct rare *r)
{
	struct iphdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct xlb_fragment *first;
	struct packet p;

	if (!r || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_PASS;
	first = fragment_first(r);
	if (!first)
		return refuse(&r->headers, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      NULL, bpf_ntohs(ip->tot_len), r->headers.proto);
	if (p.len < r->headers.l4 - sizeof(struct ethhdr) ||
	    p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v4(ctx, ip, &p, first->forwarding, first->backend);
}

__noinline int later_v6(struct context *ctx, struct rare *r)
{
	struct ipv6hdr *ip = ctx_data(ctx) + sizeof(struct ethhdr);
	struct xlb_fragment *first;
	struct packet p;

	if (!r || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_PASS;
	first = fragment_first(r);
	if (!first)
		return refuse(&r->headers, XLB_DROP_FRAGMENT);
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      NULL, bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip),
		      r->headers.proto);
	if (p.len < r->headers.l4 - sizeof(struct ethhdr) ||
	    p.len > p.bytes - sizeof(struct ethhdr))
		return drop(XLB_DROP_MALFORMED);
	return forward_later_v6(ctx, ip, &p, first->forwarding, first->backend);
}

/* The ports, if they and the IP header can be read directly; or NULL. */
static __always_inline struct ports *ports_at(struct context *ctx,
					      const struct headers *h,
					      __u64 bound, __u32 ip_size)
{
	void *data = ctx_data(ctx), *end = ctx_end(ctx);
	struct ports *ports = data + MASK(h->l4, bound);

	if (data + sizeof(struct ethhdr) + ip_size > end ||
	    (void *)ports + sizeof(struct udphdr) > end)
		return NULL;
	return ports;
}

static __always_inline int chosen(struct rare *r, const struct xlb_vip *vip,
				  const struct packet *p, void *end)
{
	r->choice.vip = *vip;
	r->choice.new_flow = p->new_flow;
	r->choice.flow = packet_flow(p, end);
	return GO_ON;
}

/* Step: the service and the flow. */
__noinline int choose_v4(struct context *ctx, struct rare *r)
{
	const struct xlb_vip *vip;
	struct ports *ports;
	struct iphdr *ip;
	struct packet p;

	if (!r)
		return VERDICT_DROP;
	ports = ports_at(ctx, &r->headers, L4_MAX_V4, sizeof(*ip));
	if (!ports)
		return refuse(&r->headers, XLB_DROP_MALFORMED);
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	vip = service_find_v4(ip->daddr, ports->dest, r->headers.proto);
	if (!vip)
		return VERDICT_PASS;
	p = packet_v4(ctx, vip, ip, ports, r->headers.proto);
	if (!packet_whole(ctx, &p, ip, ctx_end(ctx)))
		return drop(XLB_DROP_MALFORMED);
	return chosen(r, vip, &p, ctx_end(ctx));
}

__noinline int choose_v6(struct context *ctx, struct rare *r)
{
	const struct xlb_vip *vip;
	struct ports *ports;
	struct ipv6hdr *ip;
	struct packet p;

	if (!r)
		return VERDICT_DROP;
	ports = ports_at(ctx, &r->headers, L4_MAX_V6, sizeof(*ip));
	if (!ports)
		return refuse(&r->headers, XLB_DROP_MALFORMED);
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	vip = packet_service_v6(ip, ports, r->headers.proto);
	if (!vip)
		return VERDICT_PASS;
	p = packet_v6(ctx, vip, ip, ports, r->headers.proto);
	if (!packet_whole(ctx, &p, ip, ctx_end(ctx)))
		return drop(XLB_DROP_MALFORMED);
	return chosen(r, vip, &p, ctx_end(ctx));
}

/* Step: the backend, as packet_backend() says; later fragments follow. */
__noinline int decide(struct rare *r)
{
	struct choice *c = &r->choice;
	__u32 word;

	if (!r)
		return VERDICT_DROP;
	word = slot_of(&c->vip, c->flow.hash);
	if (slot_decides(&c->vip, word)) {
		c->backend = XLB_SLOT_CUR(word);
	} else {
		c->backend = select_flow(&c->vip, word, &c->flow);
		if (c->vip.proto == IPPROTO_UDP)
			c->new_flow = c->flow.made;
	}
	if (!c->backend)
		return drop(XLB_DROP_NO_BACKEND);
	if (r->headers.more)
		fragment_remember(r);
	return GO_ON;
}

/* Step: off to the backend.  All was checked; the verifier wants to see it. */
__noinline int send_v4(struct context *ctx, struct rare *r)
{
	struct ports *ports;
	struct iphdr *ip;
	struct packet p;

	if (!r)
		return VERDICT_DROP;
	ports = ports_at(ctx, &r->headers, L4_MAX_V4, sizeof(*ip));
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if (!ports || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      ports, bpf_ntohs(ip->tot_len), r->headers.proto);
	if (!packet_whole(ctx, &p, ip, ctx_end(ctx)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = r->choice.flow.hash;
	p.new_flow = r->choice.new_flow;
	return forward_v4(ctx, ip, &p, &r->choice.vip, r->choice.backend);
}

__noinline int send_v6(struct context *ctx, struct rare *r)
{
	struct ports *ports;
	struct ipv6hdr *ip;
	struct packet p;

	if (!r)
		return VERDICT_DROP;
	ports = ports_at(ctx, &r->headers, L4_MAX_V6, sizeof(*ip));
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if (!ports || (void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	p = packet_at(ctx, (void *)ip - sizeof(struct ethhdr), ctx_end(ctx),
		      ports, bpf_ntohs(ip->payload_len) + (__u32)sizeof(*ip),
		      r->headers.proto);
	if (!packet_whole(ctx, &p, ip, ctx_end(ctx)))
		return drop(XLB_DROP_MALFORMED);
	p.hash = r->choice.flow.hash;
	p.new_flow = r->choice.new_flow;
	return forward_v6(ctx, ip, &p, &r->choice.vip, r->choice.backend);
}

/* What has no ports isn't ours, but for ICMP. */
static __always_inline int rare_portless(struct context *ctx,
					 const struct headers *h)
{
	if (h->proto == IPPROTO_ICMP && h->key.family == FAMILY_V4)
		return icmp_in_v4(ctx, h->l4);
	if (h->proto == IPPROTO_ICMPV6 && h->key.family == FAMILY_V6)
		return icmp_in_v6(ctx, h->l4);
	return VERDICT_PASS;
}

/* A packet without tags, of the family that its Ethernet type says. */
static __always_inline int rare_untagged(struct context *ctx, struct rare *r)
{
	bool v4 = r->headers.key.family == FAMILY_V4;
	int verdict = rare_headers(ctx, r);

	if (verdict != GO_ON)
		return verdict;
	if (!leads_to_ports(r->headers.proto, r->headers.key.family))
		return rare_portless(ctx, &r->headers);
	if (r->headers.later)
		return v4 ? later_v4(ctx, r) : later_v6(ctx, r);
	/* All that is read directly from here on. */
	ctx_linear(ctx, r->headers.l4 + (__u32)sizeof(struct tcphdr));
	verdict = v4 ? choose_v4(ctx, r) : choose_v6(ctx, r);
	if (verdict == GO_ON)
		verdict = decide(r);
	if (verdict != GO_ON)
		return verdict;
	return v4 ? send_v4(ctx, r) : send_v6(ctx, r);
}

/* An address at an offset, its family's first word's or all four. */
static __always_inline bool address_load(struct context *ctx, __u32 at,
					 __u8 family, __u32 addr[4])
{
	if (family == FAMILY_V4)
		return !ctx_load_bytes(ctx, at, addr, 4);
	return !ctx_load_bytes(ctx, at, addr, 16);
}

/* Step: the tags of a packet for a VIP, taken off it. */
__noinline int rare_tags(struct context *ctx, struct rare *r)
{
	__u32 at = sizeof(struct ethhdr);

	if (!r || !tags_read(ctx, &r->tags))
		return VERDICT_PASS;
	at += r->tags.inside * (__u32)sizeof(r->tags.tag[0]);
	if (HAS(V4) && r->tags.type == bpf_htons(ETH_P_IP)) {
		r->headers.key.family = FAMILY_V4;
		at += offsetof(struct iphdr, daddr);
	} else if (HAS(V6) && r->tags.type == bpf_htons(ETH_P_IPV6)) {
		r->headers.key.family = FAMILY_V6;
		at += offsetof(struct ipv6hdr, daddr);
	} else {
		return VERDICT_PASS;
	}
	if (!r->tags.count)
		return GO_ON;
	if (!address_load(ctx, at, r->headers.key.family, r->headers.key.dst) ||
	    !address_is_vip(r->headers.key.dst, r->headers.key.family))
		return VERDICT_PASS;
	return tags_strip(ctx, &r->tags) ? GO_ON : drop(XLB_DROP_ENCAP);
}

/* An answer from the VIP itself (ICMP), not a packet sent on? */
static __always_inline bool rare_answered(struct context *ctx, struct rare *r)
{
	__u32 at = sizeof(struct ethhdr) + offsetof(struct iphdr, saddr);
	const __u32 *vip = r->headers.key.dst;
	__u32 src[4] = {};
	__be16 type;

	if (r->headers.key.family == FAMILY_V6)
		at = sizeof(struct ethhdr) + offsetof(struct ipv6hdr, saddr);
	if (ctx_load_bytes(ctx, TAGS_AT, &type, sizeof(type)) ||
	    type != r->tags.type ||
	    !address_load(ctx, at, r->headers.key.family, src))
		return false;
	return !((src[0] ^ vip[0]) | (src[1] ^ vip[1]) | (src[2] ^ vip[2]) |
		 (src[3] ^ vip[3]));
}

/*
 * Step: the tags come back on what this host's stack gets and on the VIP's
 * own answers.  Returns the verdict.
 */
__noinline int rare_tags_back(struct context *ctx, struct rare *r, int verdict)
{
	if (!r)
		return VERDICT_DROP;
	if (verdict == VERDICT_DROP ||
	    (verdict != VERDICT_PASS && !rare_answered(ctx, r)))
		return verdict;
	return tags_restore(ctx, &r->tags) ? verdict : drop(XLB_DROP_ENCAP);
}

/* Whatever isn't plain. */
__noinline int rare(struct context *ctx)
{
	__u32 key = 0;
	struct rare *r = bpf_map_lookup_elem(&rare_place, &key);
	int verdict;

	if (!r)
		return VERDICT_DROP;
	r->headers = (struct headers){};
	r->tags = (struct tags){};
	verdict = rare_tags(ctx, r);
	if (verdict != GO_ON)
		return verdict;
	verdict = rare_untagged(ctx, r);
	return r->tags.count ? rare_tags_back(ctx, r, verdict) : verdict;
}

#endif
