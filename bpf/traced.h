/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets sampled into a ring buffer: what they were when they came, and what
 * became of them.  Around a program's way for a packet, by TRACED().
 */
#ifndef TRACED_H
#define TRACED_H

#ifdef XLB_TRACE

#include "headers.h"
#include "select.h"
#include "service.h"
#include "trace.h"

/* Made when tracing starts, and pinned under its name for as long. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} samples SEC(".maps");

/* ---- before ---- */

/* The type behind the tags that stand in the packet; its place in *ret_at. */
static __always_inline __be16 trace_type(struct context *ctx, __u32 *ret_at)
{
	__u32 at = offsetof(struct ethhdr, h_proto);
	__be16 type = 0;

	for (int i = 0; i <= MAX_TAGS; i++) {
		if (ctx_load_bytes(ctx, at, &type, sizeof(type)))
			return 0;
		at += (__u32)sizeof(type);
		if (!is_tag(type))
			break;
		at += (__u32)sizeof(__be16);
	}
	*ret_at = at;
	return type;
}

/* Step: addresses, protocol.  0: not an IP packet. */
__noinline int trace_headers(struct context *ctx)
{
	struct traced *t = traced();
	__be16 type;
	__u32 at = 0;

	if (!t)
		return 0;
	type = trace_type(ctx, &at);
	if (type == bpf_htons(ETH_P_IP))
		headers_v4(ctx, at, &t->headers);
	else if (type == bpf_htons(ETH_P_IPV6))
		headers_v6(ctx, at, &t->headers);
	else
		return 0;
	copy_addr(t->sample.src, t->headers.key.src);
	copy_addr(t->sample.dst, t->headers.key.dst);
	t->sample.family = (__u8)t->headers.key.family;
	t->sample.proto = t->headers.proto;
	return t->headers.key.family != 0;
}

/* Step: ports and flags. */
__noinline int trace_ports(struct context *ctx)
{
	struct traced *t = traced();
	struct ports ports;
	__u8 flags = 0;

	if (!t || t->headers.later || !proto_has_ports(t->headers.proto) ||
	    ctx_load_bytes(ctx, t->headers.l4, &ports, sizeof(ports)))
		return 0;
	t->sample.sport = ports.source;
	t->sample.dport = ports.dest;
	if (t->headers.proto == IPPROTO_TCP &&
	    !ctx_load_bytes(ctx, t->headers.l4 + 13, &flags, sizeof(flags)))
		t->sample.tcp_flags = flags;
	return 0;
}

static __always_inline struct flow_hash trace_hash(const struct xlb_vip *vip,
						   const struct xlb_sample *s)
{
	__u32 ports = ports_word(s->sport, s->dport);

	if (s->family == FAMILY_V4)
		return flow_hash_v4(vip, s->src[0], ports);
	return flow_hash_v6(vip, s->src[0] | (__u64)s->src[1] << 32,
			    s->src[2] | (__u64)s->src[3] << 32, ports);
}

/* Step: the service and the slot of a packet to a VIP. */
__noinline int trace_slot(void)
{
	struct traced *t = traced();
	const struct xlb_vip *vip;
	struct flow_hash hash;
	__u64 from;

	if (!t || !t->sample.dport)
		return 0;
	vip = service_find(t->sample.dst, t->sample.family, t->sample.dport,
			   t->sample.proto);
	if (!vip)
		return 0;
	hash = trace_hash(vip, &t->sample);
	from = clients_stick(vip) ? hash.client : hash.flow;
	t->sample.service = vip->service;
	t->sample.slot = (__u32)(from >> 32) >> (vip->slot_shift & 31);
	t->sample.word = slot_by(vip, from);
	return 0;
}

/* Step: an answer's service, and its ends as the client sees them. */
__noinline int trace_answer(void)
{
	struct traced *t = traced();
	struct xlb_reply_key key = {};
	const struct xlb_vip *vip;
	struct xlb_reply *r;

	if (!t || !t->sample.sport)
		return 0;
	copy_addr(key.addr, t->sample.src);
	key.port = t->sample.sport;
	key.proto = t->sample.proto;
	key.family = t->sample.family;
	r = bpf_map_lookup_elem(&replies, &key);
	if (r) {
		t->sample.service = r->service;
		copy_addr(t->vip, r->addr);
		t->vip_port = r->port;
		return 0;
	}
	vip = service_find(t->sample.src, key.family, key.port, key.proto);
	if (vip)
		t->sample.service = vip->service;
	return 0;
}

static __always_inline void trace_ends(struct traced *t, bool reply)
{
	copy_addr(t->vip, reply ? t->sample.src : t->sample.dst);
	copy_addr(t->client, reply ? t->sample.dst : t->sample.src);
	t->vip_port = reply ? t->sample.sport : t->sample.dport;
	t->client_port = reply ? t->sample.dport : t->sample.sport;
}

__noinline int trace_begin(struct context *ctx, __u32 hook)
{
	struct traced *t = traced();
	bool is_answer;

	if (!t)
		return 0;
	t->headers = (struct headers){};
	t->sample = (struct xlb_sample){};
	t->sample.slot = XLB_NO_SLOT;
	t->sample.hook = (__u8)hook;
	t->sample.bytes = ctx_length(ctx, ctx_data(ctx), ctx_end(ctx));
	if (!trace_headers(ctx))
		return 0;
	trace_ports(ctx);
	trace_slot();
	/* Unless a backend calls a VIP. */
	is_answer = hook == XLB_HOOK_REPLY && !t->sample.service;
	trace_ends(t, is_answer);
	if (is_answer)
		trace_answer();
	return 0;
}

/* ---- after ---- */

static __always_inline bool same_addr(const __u32 a[4], const __u32 b[4])
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

/*
 * Without an address that is asked for: what has to do with a service.  What
 * backends say to others than its clients, such as probes, is seldom meant.
 */
static __always_inline bool trace_wants(const struct xlb_trace *w,
					const struct traced *t, __u32 became)
{
	const struct xlb_sample *s = &t->sample;

	if (!s->family || (w->proto && w->proto != s->proto) ||
	    (w->service && w->service != s->service))
		return false;
	if (s->hook == XLB_HOOK_REPLY && became == XLB_VERDICT_PASS &&
	    !w->has_client)
		return false;
	if (!w->has_vip && !w->has_client)
		return s->service || s->drop || s->backend;
	if (w->family != s->family)
		return false;
	if (w->has_vip && (!same_addr(w->vip, t->vip) ||
			   (w->vip_port && w->vip_port != t->vip_port)))
		return false;
	return !w->has_client ||
	       (same_addr(w->client, t->client) &&
		(!w->client_port || w->client_port == t->client_port));
}

/* The rate, of all CPUs together; who comes too early only reads. */
static __always_inline bool trace_may(struct xlb_trace *w, __u64 now)
{
	__u64 due = *(volatile __u64 *)&w->next;
	__u64 from = due > now ? due : now;

	if (now >= w->until || due > now + w->burst)
		return false;
	return __sync_val_compare_and_swap(&w->next, due, from + w->interval) ==
	       due;
}

__noinline int trace_end(struct context *ctx, __u32 became)
{
	struct xlb_trace *w = &tables.trace;
	struct traced *t = traced();
	__u64 now;

	if (!t || !trace_wants(w, t, became))
		return 0;
	now = bpf_ktime_get_ns();
	if (!trace_may(w, now))
		return 0;
	t->sample.time = now;
	t->sample.ifindex = ctx_ifindex(ctx);
	t->sample.verdict = (__u8)became;
	if (bpf_ringbuf_output(&samples, &t->sample, sizeof(t->sample), 0))
		__sync_fetch_and_add(&w->lost, 1);
	return 0;
}

static __always_inline __u32 trace_verdict(int verdict)
{
#ifdef XLB_TC
	if (verdict == TC_ACT_UNSPEC || verdict == TC_ACT_OK)
		return XLB_VERDICT_PASS;
	return verdict == TC_ACT_SHOT ? XLB_VERDICT_DROP : XLB_VERDICT_SENT;
#else
	if (verdict == XDP_PASS)
		return XLB_VERDICT_PASS;
	return verdict == XDP_TX || verdict == XDP_REDIRECT ? XLB_VERDICT_SENT
							    : XLB_VERDICT_DROP;
#endif
}

#endif
#endif
