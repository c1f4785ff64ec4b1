/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thin layer between the balancer and its hook: the same code is compiled
 * for XDP and, with XLB_TC, for tc.  `struct context` is what the hook hands
 * over; verdicts and what is done to a packet go by one name for both.
 *
 * In tc a packet may be larger than its linear part, may stand for several on
 * the wire (GSO), may be shared, and may carry a partial checksum.  So there
 * packets are read directly, but written by helpers only: a single direct
 * write anywhere would have the kernel copy the head of every shared packet,
 * ours or not.
 */
#ifndef CTX_H
#define CTX_H

#include <linux/pkt_cls.h>

#include "parse.h"

/* What ctx_push() makes room for. */
enum ctx_room {
	ROOM_PLAIN, /* any header of a packet that stays one */
	ROOM_IP, /* an outer IP header */
	ROOM_UDP, /* an outer IP header and a UDP one */
};

#ifdef XLB_TC
#define context __sk_buff
#define VERDICT_PASS TC_ACT_UNSPEC /* the next filter, then the host's stack */
#define VERDICT_DROP TC_ACT_SHOT
#define ctx_load_bytes bpf_skb_load_bytes
#define ctx_store_bytes(ctx, at, from, len) \
	bpf_skb_store_bytes(ctx, at, from, len, 0)
#else
#define context xdp_md
#define VERDICT_PASS XDP_PASS /* the host's stack, or the next program */
#define VERDICT_DROP XDP_DROP
#define ctx_load_bytes bpf_xdp_load_bytes
#define ctx_store_bytes bpf_xdp_store_bytes
#endif

/* Not a verdict: the next step's turn. */
#define GO_ON 100

/* A packet's first byte, and the end of what can be read directly. */
static __always_inline void *ctx_data(const struct context *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *ctx_end(const struct context *ctx)
{
	return (void *)(long)ctx->data_end;
}

#ifdef XLB_TC

/* Bytes of the whole frame; data, end: as ctx_data() and ctx_end() say. */
static __always_inline __u32 ctx_length(const struct context *ctx, void *data,
					void *end)
{
	(void)data, (void)end;
	return ctx->len;
}

/* Payload of each packet on the wire that this one stands for; 0: it is one. */
static __always_inline __u32 ctx_segment(const struct context *ctx)
{
	return ctx->gso_size;
}

/*
 * Make the first `bytes` bytes, or all there are, readable directly.  Pointers
 * into the packet are void after it.
 */
static __always_inline void ctx_linear(struct context *ctx, __u32 bytes)
{
	__u32 len = ctx->len;

	if (len > bytes)
		len = bytes;
	if (distance(ctx_data(ctx), ctx_end(ctx)) < len)
		bpf_skb_pull_data(ctx, len);
}

/*
 * All that is read of a plain packet, and not a byte more: the kernel keeps a
 * local sender's payload in pages, and what is pulled out of those costs a copy
 * of the head here, and at the receiver that packets can't be merged.
 */
static __always_inline void ctx_plain_linear(struct context *ctx)
{
	bool v6 = ctx->protocol == bpf_htons(ETH_P_IPV6);
	__u32 l3 = sizeof(struct ethhdr);
	__u32 l4 = l3 + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__u8 *proto;

	ctx_linear(ctx, l4 + sizeof(struct udphdr));
	proto = ctx_data(ctx) + l3 +
		(v6 ? offsetof(struct ipv6hdr, nexthdr)
		    : offsetof(struct iphdr, protocol));
	if ((void *)(proto + 1) <= ctx_end(ctx) && *proto == IPPROTO_TCP)
		ctx_linear(ctx, l4 + sizeof(struct tcphdr));
}

/* Is the outer VLAN tag kept beside the packet? */
static __always_inline bool ctx_tag_aside(const struct context *ctx)
{
	return ctx->vlan_present;
}

static __always_inline __u32 ctx_ifindex(const struct context *ctx)
{
	return ctx->ifindex;
}

/* Back out by the interface where the packet came in. */
static __always_inline int ctx_return(struct context *ctx)
{
	return (int)bpf_redirect(ctx->ifindex, 0);
}

static __always_inline int ctx_answer(struct context *ctx)
{
	return ctx_return(ctx);
}

/*
 * Room for `bytes` bytes between the Ethernet header and the IP header, and
 * the type of what stands there then.  Pointers into the packet are void after
 * it.  The Ethernet addresses are the caller's to write, as ctx_send_to()
 * does.  Returns false, the packet as it was, where there is no room.
 */
static __always_inline bool ctx_push(struct context *ctx, __u32 bytes,
				     __be16 proto, enum ctx_room room)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (room != ROOM_PLAIN)
		flags |= proto == bpf_htons(ETH_P_IP)
				 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
				 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (room == ROOM_UDP)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (bpf_skb_adjust_room(ctx, (__s32)bytes, BPF_ADJ_ROOM_MAC, flags))
		return false;
	return !bpf_skb_store_bytes(ctx, offsetof(struct ethhdr, h_proto),
				    &proto, sizeof(proto), 0);
}

/* Cut the frame to `bytes`, which it has at least.  Pointers are void after. */
static __always_inline bool ctx_trim(struct context *ctx, __u32 bytes)
{
	return !bpf_skb_change_tail(ctx, bytes, 0);
}

/*
 * The next hop's Ethernet addresses, as in struct xlb_backend, and its tag.
 * data is the frame's start.  Pointers are void after.
 */
static __always_inline bool ctx_ethernet(struct context *ctx, void *data,
					 __u64 low, __u64 high, __u16 vlan)
{
	__u64 l2[2] = { low, high };

	(void)data;
	if (bpf_skb_store_bytes(ctx, 0, l2, 2 * ETH_ALEN, 0))
		return false;
	return !vlan || !HAS(VLAN) ||
	       !bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), vlan);
}

#else

static __always_inline __u32 ctx_length(const struct context *ctx, void *data,
					void *end)
{
	(void)ctx;
	return (__u32)distance(data, end);
}

static __always_inline __u32 ctx_segment(const struct context *ctx)
{
	(void)ctx;
	return 0;
}

static __always_inline void ctx_linear(struct context *ctx, __u32 bytes)
{
	(void)ctx, (void)bytes;
}

static __always_inline void ctx_plain_linear(struct context *ctx)
{
	(void)ctx;
}

static __always_inline bool ctx_tag_aside(const struct context *ctx)
{
	(void)ctx;
	return false;
}

static __always_inline __u32 ctx_ifindex(const struct context *ctx)
{
	return ctx->ingress_ifindex;
}

static __always_inline int ctx_return(struct context *ctx)
{
	(void)ctx;
	return XDP_TX;
}

/*
 * The same for what is rare.  On a veth XDP_TX reaches the other end only if
 * there is a program too.
 */
static __always_inline int ctx_answer(struct context *ctx)
{
	return (int)bpf_redirect(ctx->ingress_ifindex, 0);
}

static __always_inline bool ctx_push(struct context *ctx, __u32 bytes,
				     __be16 proto, enum ctx_room room)
{
	void *data;

	(void)room;
	if (bpf_xdp_adjust_head(ctx, -(int)bytes))
		return false;
	data = ctx_data(ctx);
	if (data + sizeof(struct ethhdr) > ctx_end(ctx))
		return false;
	*(__be16 *)(data + offsetof(struct ethhdr, h_proto)) = proto;
	return true;
}

static __always_inline bool ctx_trim(struct context *ctx, __u32 bytes)
{
	__u32 len = (__u32)distance(ctx_data(ctx), ctx_end(ctx));

	return !bpf_xdp_adjust_tail(ctx, (int)(bytes - len));
}

/* The type behind the addresses stays where it is, behind the tag. */
static __noinline int ctx_ethernet_tagged(struct context *ctx, __u64 low,
					  __u64 high, __u32 vlan)
{
	struct vlan_tag *tag;
	void *data;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct vlan_tag)))
		return -1;
	data = ctx_data(ctx);
	tag = data + 2 * ETH_ALEN;
	if ((void *)(tag + 1) > ctx_end(ctx))
		return -1;
	*(__u64 *)data = low;
	*(__u32 *)(data + 8) = (__u32)high;
	*(__u32 *)tag = bpf_htonl(ETH_P_8021Q << 16 | vlan);
	return 0;
}

static __always_inline bool ctx_ethernet(struct context *ctx, void *data,
					 __u64 low, __u64 high, __u16 vlan)
{
	if (unlikely(vlan) && HAS(VLAN))
		return !ctx_ethernet_tagged(ctx, low, high, vlan);
	*(__u64 *)data = low;
	*(__u32 *)(data + 8) = (__u32)high;
	return true;
}

#endif

/* Out by another interface. */
static __always_inline int ctx_redirect(__u32 ifindex)
{
	return (int)bpf_redirect(ifindex, 0);
}

#endif
