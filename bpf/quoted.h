/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ICMP errors that routers or clients send to a VIP about an answer of one of
 * its backends.  The quoted packet went from the VIP to the client: turned
 * round it is the flow, and the flow's backend gets the error, in the way that
 * it gets the flow's packets.  With nat both the outer destination and the
 * quoted source become the backend's.
 */
#ifndef QUOTED_H
#define QUOTED_H

#include "forward.h"
#include "headers.h"
#include "select.h"
#include "service.h"

/* An error about a flow of a declared service; beside the stack, as in rare.h. */
struct quoted {
	struct headers headers; /* of the quoted packet: from VIP to client */
	struct xlb_vip vip; /* a copy: the table may change meanwhile */
	struct flow flow;
	struct ports ports; /* of the quoted packet */
	__u32 icmp; /* offset of the ICMP header */
	__u32 id; /* the flow's backend */
	__u32 to[4]; /* the error's own header: destination, */
	__u32 len; /* bytes from it on, */
	__u8 tos;
	__u8 ttl;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct quoted);
} quoted_place SEC(".maps");

static __always_inline struct flow_hash quoted_hash(const struct quoted *q)
{
	const __u32 *client = q->headers.key.dst;
	__u32 ports = ports_word(q->ports.dest, q->ports.source);

	if (q->headers.key.family == FAMILY_V4)
		return flow_hash_v4(&q->vip, client[0], ports);
	return flow_hash_v6(&q->vip, client[0] | (__u64)client[1] << 32,
			    client[2] | (__u64)client[3] << 32, ports);
}

static __always_inline __u64 quoted_dest(const struct quoted *q)
{
	const __u32 *vip = q->headers.key.src;

	if (q->headers.key.family == FAMILY_V4)
		return flow_dest_v4(vip[0], q->headers.proto);
	return flow_dest_v6(vip[0] | (__u64)vip[1] << 32,
			    vip[2] | (__u64)vip[3] << 32, q->headers.proto);
}

/* The backend of the quoted flow; 0: not known. */
static __always_inline __u32 quoted_owner(struct quoted *q)
{
	__u32 word;

	q->flow =
		(struct flow){ .hash = quoted_hash(q), .dest = quoted_dest(q) };
	word = slot_of(&q->vip, q->flow.hash);
	if (slot_decides(&q->vip, word))
		return XLB_SLOT_CUR(word);
	flow_choices(&q->vip, word, &q->flow);
	return track_peek(&q->flow);
}

static __always_inline bool quoted_is_to(const struct quoted *q)
{
	const __u32 *vip = q->headers.key.src;

	return !((q->to[0] ^ vip[0]) | (q->to[1] ^ vip[1]) |
		 (q->to[2] ^ vip[2]) | (q->to[3] ^ vip[3]));
}

/*
 * Whose flow the quoted packet is of.  GO_ON: q->vip and q->id say it;
 * else the verdict.
 */
__noinline int quoted_find(struct context *ctx, struct quoted *q)
{
	const struct xlb_vip *vip;
	struct headers *h;
	__u64 transport; /* so much of it is always quoted */
	__u32 at;
	int reason;

	if (!q)
		return VERDICT_DROP;
	h = &q->headers;
	at = q->icmp + (__u32)sizeof(struct icmp_header);
	reason = h->key.family == FAMILY_V4 ? headers_v4(ctx, at, h)
					    : headers_v6(ctx, at, h);
	if (reason || h->later || !proto_has_ports(h->proto) ||
	    !quoted_is_to(q) ||
	    ctx_load_bytes(ctx, h->l4, &transport, sizeof(transport)))
		return VERDICT_PASS;
	q->ports = (struct ports){ .source = (__be16)transport,
				   .dest = (__be16)(transport >> 16) };
	vip = service_find(h->key.src, (__u8)h->key.family, q->ports.source,
			   h->proto);
	if (!vip)
		return VERDICT_PASS;
	/* Of what is read of it, and of the frame. */
	if (q->len + sizeof(struct ethhdr) < h->l4 + sizeof(transport) ||
	    q->len + sizeof(struct ethhdr) >
		    ctx_length(ctx, ctx_data(ctx), ctx_end(ctx)))
		return drop(XLB_DROP_MALFORMED);
	q->vip = *vip;
	q->id = quoted_owner(q);
	return q->id ? GO_ON : drop(XLB_DROP_ICMP);
}

/*
 * The error's checksum follows: by `sum` what changed in its data, by `pseudo`
 * what will change in its pseudo header.
 */
static __always_inline void quoted_checksum(struct context *ctx,
					    const struct quoted *q, __u64 sum,
					    __u64 pseudo)
{
	__u32 at = q->icmp + (__u32)offsetof(struct icmp_header, checksum);
#ifdef XLB_TC
	bpf_l4_csum_replace(ctx, at, 0, csum_fold(sum), 0);
	bpf_l4_csum_replace(ctx, at, 0, csum_fold(pseudo), BPF_F_PSEUDO_HDR);
#else
	__u16 check;

	if (ctx_load_bytes(ctx, at, &check, sizeof(check)))
		return;
	check = csum_add(check, sum + pseudo);
	ctx_store_bytes(ctx, at, &check, sizeof(check));
#endif
}

static __always_inline __u64 quoted_store16(struct context *ctx, __u32 at,
					    __u16 old, __u16 new)
{
	ctx_store_bytes(ctx, at, &new, sizeof(new));
	return csum_change16(old, new);
}

/*
 * The quoted transport header's source becomes the backend's port, and its
 * checksum, where it is quoted, follows that and the address's change (addr).
 * Returns by how much the sum over the quoted header changed.
 */
static __always_inline __u64 quoted_transport(struct context *ctx,
					      const struct quoted *q,
					      __be16 port, __u64 addr)
{
	bool tcp = q->headers.proto == IPPROTO_TCP;
	__u32 at = q->headers.l4 + (tcp ? offsetof(struct tcphdr, check)
					: offsetof(struct udphdr, check));
	__u64 delta = quoted_store16(ctx, q->headers.l4, q->ports.source, port);
	__u16 check, new;

	if (ctx_load_bytes(ctx, at, &check, sizeof(check)) || (!tcp && !check))
		return delta;
	new = csum_add(check, addr + delta);
	if (!tcp && !new)
		new = 0xffff; /* 0 would say that there is none */
	return delta + quoted_store16(ctx, at, check, new);
}

/*
 * The quoted packet as the backend sent it.  The IPv4 header's checksum
 * balances the address that changes in it.
 */
static __always_inline void quoted_nat(struct context *ctx,
				       const struct quoted *q,
				       const struct xlb_backend *be)
{
	bool v4 = q->headers.key.family == FAMILY_V4;
	__u32 inner = q->icmp + (__u32)sizeof(struct icmp_header);
	__u64 addr =
		(__u64)(__u16)~q->vip.addr_sum + (v4 ? be->sum4 : be->sum6);
	__u64 sum = quoted_transport(ctx, q, backend_port(be, &q->vip), addr);
	__u32 at = inner + (__u32)offsetof(struct iphdr, check);
	__u16 check;

	if (!v4) {
		ctx_store_bytes(ctx,
				inner + (__u32)offsetof(struct ipv6hdr, saddr),
				(void *)be->addr6, sizeof(be->addr6));
		quoted_checksum(ctx, q, sum + addr, addr);
		return;
	}
	if (ctx_load_bytes(ctx, at, &check, sizeof(check)))
		return;
	check = csum_add(check, addr);
	ctx_store_bytes(ctx, at, &check, sizeof(check));
	ctx_store_bytes(ctx, inner + (__u32)offsetof(struct iphdr, saddr),
			(void *)&be->addr4, sizeof(be->addr4));
	quoted_checksum(ctx, q, sum, 0);
}

static __always_inline struct rewrite
quoted_rewrite(const struct quoted *q, const struct xlb_backend *be, bool v6)
{
	return (struct rewrite){
		.addr = v6 ? be->addr6 : &be->addr4,
		.delta = (__u64)(__u16)~q->vip.addr_sum +
			 (v6 ? be->sum6 : be->sum4),
		.hop = !(be->flags & XLB_BACKEND_STACK),
	};
}

/*
 * nat and dsr.  GO_ON: it may go, and the quotation is what it has to
 * be; else the verdict.
 */
static __always_inline int quoted_ready(struct context *ctx, struct quoted *q,
					const struct xlb_backend *be, bool v6)
{
	const __u64 *l2 = v6 ? be->l2_v6 : be->l2_v4;

	if (!reachable(be, l2, v6, is_nat(q->vip.forwarding)))
		return drop(XLB_DROP_NO_NEXT_HOP);
	/* There are no errors about errors. */
	if (over_mtu(q->len, be->mtu))
		return drop(XLB_DROP_TOO_BIG);
	if (!is_nat(q->vip.forwarding))
		return GO_ON;
	if (hop_spent(be, q->ttl))
		return drop(XLB_DROP_TTL);
	quoted_nat(ctx, q, be);
	return GO_ON;
}

__noinline int quoted_send_v4(struct context *ctx, struct quoted *q)
{
	const struct xlb_backend *be;
	struct iphdr *ip;
	__u32 bytes;
	int verdict;

	if (!q)
		return VERDICT_DROP;
	be = backend_line(q->id);
	bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	verdict = quoted_ready(ctx, q, be, false);
	if (verdict != GO_ON)
		return verdict;
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	if (is_nat(q->vip.forwarding)) {
		struct rewrite r = quoted_rewrite(q, be, false);

		rewrite_v4(ctx, ip, &r);
	}
	count_packet(q->id, bytes, false);
	return leave(ctx, (void *)ip - sizeof(struct ethhdr), be, be->l2_v4,
		     is_nat(q->vip.forwarding));
}

__noinline int quoted_send_v6(struct context *ctx, struct quoted *q)
{
	const struct xlb_backend *be;
	struct ipv6hdr *ip;
	__u32 bytes;
	int verdict;

	if (!q)
		return VERDICT_DROP;
	be = backend_line(q->id);
	bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	verdict = quoted_ready(ctx, q, be, true);
	if (verdict != GO_ON)
		return verdict;
	ip = ctx_data(ctx) + sizeof(struct ethhdr);
	if ((void *)(ip + 1) > ctx_end(ctx))
		return VERDICT_DROP;
	if (is_nat(q->vip.forwarding)) {
		struct rewrite r = quoted_rewrite(q, be, true);

		rewrite_v6(ctx, ip, &r);
	}
	count_packet(q->id, bytes, false);
	return leave(ctx, (void *)ip - sizeof(struct ethhdr), be, be->l2_v6,
		     is_nat(q->vip.forwarding));
}

/* Behind other headers. */
static __always_inline int quoted_wrap(struct context *ctx, struct quoted *q,
				       bool v6)
{
	__u32 forwarding = q->vip.forwarding;
	const struct xlb_backend *be = backend_line(q->id);
	__u32 how = ENCAP_HOW(forwarding, 0, q->tos);

	if (over_mtu(q->len + encap_room(be, forwarding, v6), be->mtu))
		return drop(XLB_DROP_TOO_BIG);
	return v6 ? encap_v6(ctx, q->id, q->flow.hash.flow, q->len, how)
		  : encap_v4(ctx, q->id, q->flow.hash.flow, q->len, how);
}

static __always_inline int quoted_error(struct context *ctx, struct quoted *q,
					bool v6)
{
	int verdict = quoted_find(ctx, q);

	if (verdict != GO_ON)
		return verdict;
	if (is_encap(q->vip.forwarding))
		return quoted_wrap(ctx, q, v6);
	return v6 ? quoted_send_v6(ctx, q) : quoted_send_v4(ctx, q);
}

static __always_inline struct quoted *quoted_new(__u32 icmp, __u8 family)
{
	__u32 key = 0;
	struct quoted *q = bpf_map_lookup_elem(&quoted_place, &key);

	if (!q)
		return NULL;
	*q = (struct quoted){ .icmp = icmp };
	q->headers.key.family = family;
	return q;
}

/* An ICMP error, no fragment, whose ICMP header is at offset `icmp`. */
__noinline int quoted_error_v4(struct context *ctx, __u32 icmp)
{
	struct quoted *q = quoted_new(icmp, FAMILY_V4);
	struct iphdr ip;

	if (!q || ctx_load_bytes(ctx, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return VERDICT_PASS;
	q->to[0] = ip.daddr;
	q->len = bpf_ntohs(ip.tot_len);
	q->tos = ip.tos;
	q->ttl = ip.ttl;
	return quoted_error(ctx, q, false);
}

__noinline int quoted_error_v6(struct context *ctx, __u32 icmp)
{
	struct quoted *q = quoted_new(icmp, FAMILY_V6);
	struct ipv6hdr ip;

	if (!q || ctx_load_bytes(ctx, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return VERDICT_PASS;
	copy_addr(q->to, &ip.daddr);
	q->len = bpf_ntohs(ip.payload_len) + (__u32)sizeof(ip);
	q->tos = (__u8)class_v6(&ip);
	q->ttl = ip.hop_limit;
	return quoted_error(ctx, q, true);
}

#endif
