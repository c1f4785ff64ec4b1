/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/packet_view.h"

#include <arpa/inet.h>
#include <string.h>

#define ETH 14

static uint16_t word_at(const struct packet_view *v, size_t at)
{
	return (uint16_t)(v->frame[at] << 8 | v->frame[at + 1]);
}

/* The two bytes as they stand. */
static uint16_t raw_at(const struct packet_view *v, size_t at)
{
	uint16_t raw;

	memcpy(&raw, v->frame + at, 2);
	return raw;
}

static bool has_ports(uint8_t proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

static void view_transport(struct packet_view *v)
{
	v->reach = REACH_PROTO;
	if (!has_ports(v->proto) || v->part == PART_LATER ||
	    v->l4 + 4 > v->size)
		return;
	v->sport = raw_at(v, v->l4);
	v->dport = raw_at(v, v->l4 + 2);
	v->reach = REACH_PORTS;
}

static void view_v4(struct packet_view *v)
{
	uint16_t frag;

	if (v->l3 + 20 > v->size)
		return;
	memcpy(v->src, v->frame + v->l3 + 12, 4);
	memcpy(v->dst, v->frame + v->l3 + 16, 4);
	if (v->frame[v->l3] >> 4 != 4)
		return;
	v->reach = REACH_IP;
	v->l3_len = (v->frame[v->l3] & 15) * 4U;
	v->tos = v->frame[v->l3 + 1];
	v->ip_len = word_at(v, v->l3 + 2);
	memcpy(&v->fragment_id, v->frame + v->l3 + 4, 2);
	frag = word_at(v, v->l3 + 6);
	v->may_not_fragment = frag & 0x4000;
	v->part = frag & 0x1fff	  ? PART_LATER
		  : frag & 0x2000 ? PART_FIRST
				  : PART_WHOLE;
	v->hops = v->frame[v->l3 + 8];
	v->proto = v->fragment_proto = v->frame[v->l3 + 9];
	if (v->l3_len < 20)
		return;
	v->options = v->l3_len > 20;
	v->l4 = v->l3 + v->l3_len;
	view_transport(v);
}

/* Bytes of the extension header at v->l4; 0: it isn't one. */
static size_t extension(const struct packet_view *v, uint8_t type)
{
	size_t units = v->frame[v->l4 + 1];

	switch (type) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
		return (units + 1) * 8;
	case IPPROTO_AH:
		return (units + 2) * 4;
	case IPPROTO_FRAGMENT:
		return 8;
	default:
		return 0;
	}
}

static bool is_extension(uint8_t type)
{
	return type == IPPROTO_HOPOPTS || type == IPPROTO_ROUTING ||
	       type == IPPROTO_DSTOPTS || type == IPPROTO_AH ||
	       type == IPPROTO_FRAGMENT;
}

static void view_fragment(struct packet_view *v)
{
	uint16_t frag = word_at(v, v->l4 + 2);

	v->fragment = v->l4;
	memcpy(&v->fragment_id, v->frame + v->l4 + 4, 4);
	v->fragment_proto = v->frame[v->l4];
	/* One piece that is all of the datagram is whole (RFC 6946). */
	v->part = frag & 0xfff8 ? PART_LATER
		  : frag & 1	? PART_FIRST
				: PART_WHOLE;
}

static void view_v6(struct packet_view *v)
{
	uint8_t type;

	if (v->l3 + 40 > v->size)
		return;
	memcpy(v->src, v->frame + v->l3 + 8, 16);
	memcpy(v->dst, v->frame + v->l3 + 24, 16);
	if (v->frame[v->l3] >> 4 != 6)
		return;
	v->reach = REACH_IP;
	v->l3_len = 40;
	v->tos = (uint8_t)(word_at(v, v->l3) >> 4);
	v->ip_len = word_at(v, v->l3 + 4) + 40U;
	v->hops = v->frame[v->l3 + 7];
	v->may_not_fragment = true;
	type = v->frame[v->l3 + 6];
	for (v->l4 = v->l3 + 40;; v->extensions++) {
		size_t len;

		v->proto = type;
		if (v->part == PART_LATER || !is_extension(type))
			break;
		if (v->l4 + 8 > v->size) {
			v->cut = true;
			return;
		}
		len = extension(v, type);
		if (type == IPPROTO_ROUTING && v->frame[v->l4 + 3])
			v->odd = true; /* it goes on from here */
		if (type == IPPROTO_FRAGMENT) {
			v->odd |= v->fragment != 0;
			view_fragment(v);
		}
		type = v->frame[v->l4];
		v->l4 += len;
	}
	view_transport(v);
}

void packet_view(const uint8_t *frame, size_t size, struct packet_view *v)
{
	uint16_t type;

	*v = (struct packet_view){ .frame = frame, .size = size, .l3 = ETH };
	if (size < ETH)
		return;
	for (type = word_at(v, 12); type == 0x8100 || type == 0x88a8;
	     v->tags++) {
		if (v->l3 + 4 > size)
			return;
		if (v->tags < 2)
			v->tag[v->tags] = word_at(v, v->l3) & 0xfff;
		type = word_at(v, v->l3 + 2);
		v->l3 += 4;
	}
	v->family = type == 0x0800 ? 4 : type == 0x86dd ? 6 : 0;
	if (v->family == 4)
		view_v4(v);
	else if (v->family == 6)
		view_v6(v);
}

uint16_t packet_sum(const void *data, size_t len, uint32_t start)
{
	const uint8_t *p = data;
	uint64_t sum = start;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (len & 1)
		sum += (uint32_t)p[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint16_t finish(uint16_t sum)
{
	return htons((uint16_t)~sum);
}

uint16_t packet_ip_csum(const struct packet_view *v)
{
	uint16_t sum = packet_sum(v->frame + v->l3, 10, 0);

	return finish(packet_sum(v->frame + v->l3 + 12, v->l3_len - 12, sum));
}

size_t packet_l4_csum_at(const struct packet_view *v)
{
	switch (v->proto) {
	case IPPROTO_TCP:
		return v->l4 + 16;
	case IPPROTO_UDP:
		return v->l4 + 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return v->l4 + 2;
	default:
		return 0;
	}
}

uint16_t packet_l4_csum(const struct packet_view *v)
{
	size_t at = packet_l4_csum_at(v), end = v->l3 + v->ip_len;
	size_t len = end - v->l4, addr = v->family == 4 ? 4 : 16;
	uint32_t sum = 0;

	if (v->proto != IPPROTO_ICMP) {
		sum = packet_sum(v->src, addr, 0);
		sum = packet_sum(v->dst, addr, sum);
		sum += v->proto + (uint32_t)len;
	}
	sum = packet_sum(v->frame + v->l4, at - v->l4, sum);
	sum = packet_sum(v->frame + at + 2, end - at - 2, sum);
	if (v->proto == IPPROTO_UDP && (uint16_t)sum == 0xffff)
		return 0xffff;
	return finish((uint16_t)sum);
}

bool packet_csums_good(const struct packet_view *v)
{
	size_t at = packet_l4_csum_at(v);

	if (v->reach < REACH_PROTO || v->l3 + v->ip_len > v->size)
		return false;
	if (v->family == 4 && packet_ip_csum(v) != raw_at(v, v->l3 + 10))
		return false;
	if (v->part != PART_WHOLE || !at)
		return true;
	if (at + 2 > v->l3 + v->ip_len)
		return false;
	if (v->proto == IPPROTO_UDP && !raw_at(v, at))
		return true;
	/* To who receives it a sum of ffff is as good as one of 0. */
	if (v->proto == IPPROTO_ICMP && raw_at(v, at) == 0xffff)
		return packet_l4_csum(v) == 0 || packet_l4_csum(v) == 0xffff;
	return packet_l4_csum(v) == raw_at(v, at);
}
