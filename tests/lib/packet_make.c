/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/packet_make.h"

#include <arpa/inet.h>
#include <string.h>

#include "tests/lib/packet_view.h"

/* splitmix64 (Steele, Lea, Flood: OOPSLA 2014, figure 16) */
uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

uint32_t random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)((random_next(state) >> 32) * n >> 32);
}

bool random_once_in(uint64_t *state, uint32_t n)
{
	return !random_below(state, n);
}

static void put16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

/* Ethernet header and tags; returns where the IP header begins. */
static size_t make_link(const struct packet_spec *s, uint8_t *frame)
{
	size_t at = 12;

	memset(frame, 0x0a, 6);
	memset(frame + 6, 0x0c, 6);
	for (unsigned int i = 0; i < s->tags; i++, at += 4) {
		put16(frame + at, i + 1 < s->tags ? 0x88a8 : 0x8100);
		put16(frame + at + 2, s->tag[i % 2]);
	}
	put16(frame + at, s->family == 4 ? 0x0800 : 0x86dd);
	return at + 2;
}

static size_t l4_size(const struct packet_spec *s)
{
	if (s->later)
		return s->payload;
	if (s->proto == IPPROTO_TCP)
		return 20 + 4U * s->tcp_options + s->payload;
	if (s->proto == IPPROTO_UDP)
		return 8 + s->payload;
	return 8 + s->quote_size;
}

static size_t make_v4(const struct packet_spec *s, uint8_t *ip)
{
	size_t header = 20 + 4U * s->ip_options;
	uint16_t frag = s->df ? 0x4000 : 0;

	memset(ip, 0, header);
	ip[0] = (uint8_t)(0x40 | header / 4);
	ip[1] = s->tos;
	put16(ip + 2, header + l4_size(s));
	memcpy(ip + 4, &s->fragment_id, 2);
	if (s->fragment)
		frag = s->later ? 185 : 0x2000;
	put16(ip + 6, frag);
	ip[8] = s->hops;
	ip[9] = s->proto;
	memcpy(ip + 12, s->src, 4);
	memcpy(ip + 16, s->dst, 4);
	memset(ip + 20, 1, header - 20);
	return header;
}

static size_t make_v6(const struct packet_spec *s, uint8_t *ip)
{
	size_t at = 40;
	uint8_t *type = ip + 6;

	memset(ip, 0, 40);
	ip[0] = (uint8_t)(0x60 | s->tos >> 4);
	ip[1] = (uint8_t)(s->tos << 4);
	ip[7] = s->hops;
	memcpy(ip + 8, s->src, 16);
	memcpy(ip + 24, s->dst, 16);
	for (unsigned int i = 0; i < s->extensions; i++, at += 8) {
		*type = IPPROTO_DSTOPTS;
		memcpy(ip + at, "\0\0\1\4\0\0\0\0", 8);
		type = ip + at;
	}
	if (s->fragment) {
		*type = IPPROTO_FRAGMENT;
		type = ip + at;
		put16(ip + at, 0);
		put16(ip + at + 2, s->later ? 185 << 3 : 1);
		memcpy(ip + at + 4, &s->fragment_id, 4);
		at += 8;
	}
	*type = s->proto;
	put16(ip + 4, at - 40 + l4_size(s));
	return at;
}

static void make_tcp(const struct packet_spec *s, uint8_t *l4)
{
	size_t header = 20 + 4U * s->tcp_options;

	memset(l4, 0, 20);
	memcpy(l4, &s->sport, 2);
	memcpy(l4 + 2, &s->dport, 2);
	put32(l4 + 4, s->seq);
	l4[12] = (uint8_t)(header / 4 << 4);
	l4[13] = s->flags;
	put16(l4 + 14, 8192);
	memset(l4 + 20, 1, header - 20);
	memset(l4 + header, s->fill, s->payload);
}

static void make_udp(const struct packet_spec *s, uint8_t *l4)
{
	memset(l4, 0, 8);
	memcpy(l4, &s->sport, 2);
	memcpy(l4 + 2, &s->dport, 2);
	put16(l4 + 4, 8 + s->payload);
	memset(l4 + 8, s->fill, s->payload);
}

static void make_l4(const struct packet_spec *s, uint8_t *l4)
{
	if (s->later) {
		memset(l4, s->fill, s->payload);
	} else if (s->proto == IPPROTO_TCP) {
		make_tcp(s, l4);
	} else if (s->proto == IPPROTO_UDP) {
		make_udp(s, l4);
	} else {
		memset(l4, 0, 8);
		l4[0] = s->type;
		l4[1] = s->code;
		if (s->quote)
			memcpy(l4 + 8, s->quote, s->quote_size);
	}
}

size_t packet_make(const struct packet_spec *s, uint8_t *frame)
{
	size_t l3 = make_link(s, frame), l4, end, at;
	struct packet_view v;
	uint16_t csum;

	l4 = l3 + (s->family == 4 ? make_v4 : make_v6)(s, frame + l3);
	end = l4 + l4_size(s);
	make_l4(s, frame + l4);
	packet_view(frame, end, &v);
	if (s->family == 4) {
		csum = packet_ip_csum(&v);
		memcpy(frame + l3 + 10, &csum, 2);
	}
	at = packet_l4_csum_at(&v);
	if (s->later || !at || (s->proto == IPPROTO_UDP && s->no_csum))
		return end;
	csum = packet_l4_csum(&v);
	memcpy(frame + at, &csum, 2);
	return end;
}
