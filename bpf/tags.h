/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VLAN tags in front of a packet: read, taken off, and put back as they were.
 * In tc the kernel may keep the outer one beside the packet.
 */
#ifndef TAGS_H
#define TAGS_H

#include "ctx.h"

struct tags {
	struct vlan_tag tag[MAX_TAGS]; /* outer first: type and control */
	__u32 count;
	__u32 inside; /* so many of them stand in the packet */
	__be16 type; /* what follows */
};

/* Two bytes in front of the first type, so that types and tags line up. */
#define TAGS_AT ((__u32)offsetof(struct ethhdr, h_proto))

#ifdef XLB_TC

static __always_inline void tags_aside(struct context *ctx, struct tags *t)
{
	if (!ctx->vlan_present)
		return;
	t->tag[0].type = (__be16)ctx->vlan_proto;
	t->tag[0].tci = bpf_htons((__u16)ctx->vlan_tci);
	t->count = 1;
}

/* The outer tag goes first; the next one is then the outer one. */
static __always_inline bool tags_strip(struct context *ctx,
				       const struct tags *t)
{
	for (__u32 i = 0; i < MAX_TAGS; i++)
		if (i < t->count && bpf_skb_vlan_pop(ctx))
			return false;
	return true;
}

static __always_inline bool tags_push(struct context *ctx,
				      const struct vlan_tag *tag)
{
	return !bpf_skb_vlan_push(ctx, tag->type, bpf_ntohs(tag->tci));
}

static __always_inline bool tags_restore(struct context *ctx, struct tags *t)
{
	if (t->count > 1 && !tags_push(ctx, &t->tag[1]))
		return false;
	return tags_push(ctx, &t->tag[0]);
}

#else

static __always_inline void tags_aside(struct context *ctx, struct tags *t)
{
	(void)ctx, (void)t;
}

struct mac_addresses {
	__u32 word[3];
};

static __always_inline bool tags_strip(struct context *ctx,
				       const struct tags *t)
{
	struct mac_addresses mac;

	return !ctx_load_bytes(ctx, 0, &mac, sizeof(mac)) &&
	       !bpf_xdp_adjust_head(ctx, (int)(t->count * sizeof(t->tag[0]))) &&
	       !ctx_store_bytes(ctx, 0, &mac, sizeof(mac));
}

static __always_inline bool tags_restore(struct context *ctx, struct tags *t)
{
	struct mac_addresses mac;

	if (ctx_load_bytes(ctx, 0, &mac, sizeof(mac)) ||
	    bpf_xdp_adjust_head(ctx, -(int)(t->count * sizeof(t->tag[0]))) ||
	    ctx_store_bytes(ctx, 0, &mac, sizeof(mac)) ||
	    ctx_store_bytes(ctx, TAGS_AT, &t->tag[0], sizeof(t->tag[0])))
		return false;
	return t->count < 2 ||
	       !ctx_store_bytes(ctx, TAGS_AT + sizeof(t->tag[0]), &t->tag[1],
				sizeof(t->tag[1]));
}

#endif

/* false: cut short, or more tags than are looked through. */
static __always_inline bool tags_read(struct context *ctx, struct tags *t)
{
	struct vlan_tag next;

	tags_aside(ctx, t);
	for (int i = 0; i <= MAX_TAGS; i++) {
		if (ctx_load_bytes(ctx, TAGS_AT + i * (__u32)sizeof(next),
				   &next, sizeof(next)))
			return false;
		t->type = next.type;
		if (!is_tag(next.type))
			return true;
		if (t->count >= MAX_TAGS)
			return false;
		/* Not one store to either place, whose pointer clang would
		 * make by bit operations. */
		if (t->count) {
			t->tag[1] = next;
			asm volatile("" : : : "memory");
		} else {
			t->tag[0] = next;
		}
		t->count++;
		t->inside++;
	}
	return false;
}

#endif
