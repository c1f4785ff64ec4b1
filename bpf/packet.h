/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A packet with ports, for a declared service. */
#ifndef PACKET_H
#define PACKET_H

#include "ctx.h"
#include "select.h"

struct packet {
	void *data;
	struct ports *ports;
	__u16 *csum; /* of the transport header */
	__u32 len; /* bytes from the IP header on, of one packet on the wire */
	__u32 total; /* the same of the packet in hand, which may be several */
	__u32 bytes; /* of the frame */
	struct flow_hash hash;
	__u64 dest; /* of the VIP's address and protocol */
	__u8 proto;
	bool new_flow; /* a SYN, or a flow of datagrams that is remembered */
};

/* len: bytes from the IP header on, as it says. */
static __always_inline struct packet packet_at(const struct context *ctx,
					       void *data, void *end,
					       struct ports *ports, __u32 len,
					       __u8 proto)
{
	return (struct packet){
		.data = data,
		.ports = ports,
		.len = len,
		.total = len,
		.bytes = ctx_length(ctx, data, end),
		.proto = proto,
	};
}

/*
 * A packet that stands for several on the wire: what it says of its length
 * (nothing, where that is too much for the field) doesn't count.
 */
static __always_inline void packet_segment(struct packet *p, void *ip,
					   __u32 header, __u32 segment)
{
	p->total = p->bytes - (__u32)distance(p->data, ip);
	p->len = (__u32)distance(ip, p->ports) + header + segment;
}

/*
 * Is everything there that is read or written from now on, and all that the
 * header promises?  A first fragment's frame is whole like any other.
 */
static __always_inline bool packet_whole(const struct context *ctx,
					 struct packet *p, void *ip, void *end)
{
	__u32 least = (__u32)distance(ip, p->ports);
	__u32 header = sizeof(struct udphdr);

	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)p->ports;

		if ((void *)(tcp + 1) > end)
			return false;
		least += sizeof(*tcp);
		header = tcp->doff * 4u;
		p->csum = &tcp->check;
		p->new_flow = (((__u8 *)tcp)[13] & 0x12) == 0x02;
	} else {
		least += sizeof(struct udphdr);
		p->csum = &((struct udphdr *)p->ports)->check;
	}
	asm volatile("" : "+r"(p->csum));
	if (unlikely(ctx_segment(ctx)))
		packet_segment(p, ip, header, ctx_segment(ctx));
	return p->len >= least &&
	       p->total <= p->bytes - (__u32)distance(p->data, ip);
}

/* Bytes after the TCP header. */
static __always_inline __u32 packet_payload(const struct packet *p,
					    struct tcphdr *tcp)
{
	__u32 before = (__u32)distance(p->data, tcp) -
		       (__u32)sizeof(struct ethhdr) + tcp->doff * 4u;

	return p->len > before ? p->len - before : 0;
}

/* What select_flow() asks for. */
static __always_inline struct flow packet_flow(const struct packet *p,
					       void *end)
{
	struct flow f = { .hash = p->hash, .dest = p->dest };
	struct tcphdr *tcp = (void *)p->ports;

	if (p->proto == IPPROTO_TCP && (void *)(tcp + 1) <= end)
		f.segment = SEGMENT(bpf_ntohl(tcp->seq), packet_payload(p, tcp),
				    ((__u8 *)tcp)[13]);
	return f;
}

/* A packet whose slot is under change, or whose flow is remembered anyway. */
static __always_inline __u32 packet_tracked(struct packet *p,
					    const struct xlb_vip *vip,
					    __u32 word, void *end)
{
	struct xlb_flow_line *line = memory_line(p->hash.flow);
	__u64 key = memory_key(p->hash.flow, p->dest);
	struct tcphdr *tcp = (void *)p->ports;
	struct flow f;
	__u32 id;

	if (!line)
		return 0;
	if (p->proto == IPPROTO_TCP && (void *)(tcp + 1) <= end) {
		id = select_simple(vip, line, key, word, ((__u8 *)tcp)[13],
				   bpf_ntohl(tcp->seq));
		if (likely(id))
			return id;
	}
	f = packet_flow(p, end);
	id = select_in(vip, line, key, word, &f);
	if (p->proto == IPPROTO_UDP)
		p->new_flow = f.made;
	return id;
}

/* The packet's backend; 0: there is none. */
static __always_inline __u32 packet_backend(struct packet *p,
					    const struct xlb_vip *vip,
					    void *end)
{
	__u32 word = slot_of(vip, p->hash);

	if (likely(slot_decides(vip, word)))
		return XLB_SLOT_CUR(word);
	return packet_tracked(p, vip, word, end);
}

#endif
