/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/frames.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

uint16_t sum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint64_t sum_bytes(const uint8_t *p, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += (uint64_t)p[i] << (i & 1 ? 8 : 0);
	return sum;
}

uint64_t sum_transport(const uint8_t *ip, int family, uint8_t proto,
		       size_t ip_len, size_t len)
{
	size_t addrs = family == 4 ? 12 : 8;

	return sum_bytes(ip + addrs, ip_len - addrs) + htons(proto) +
	       htons((uint16_t)(len - ip_len)) +
	       sum_bytes(ip + ip_len, len - ip_len);
}

static void put16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

/*
 * From the IP header on, as it says.  A SYN carries no data (that would be a
 * fast open one, which is remembered twice): the rest of its frame is padding.
 */
static size_t ip_bytes(const struct frame_spec *spec)
{
	if (spec->kind != FRAME_SYN)
		return BENCH_BYTES - 14;
	return spec->family == 4 ? 40 : 60;
}

static void fill_v4(uint8_t *data, const struct frame_spec *spec)
{
	put16(data + 12, htons(0x0800));
	data[14] = 0x45;
	put16(data + 16, htons((uint16_t)ip_bytes(spec)));
	data[22] = 64;
	data[23] = spec->proto;
	memcpy(data + 26, (uint8_t[]){ 10, 9, 0, 9 }, 4);
	if (spec->client)
		memcpy(data + 26, &spec->client, 4);
	memcpy(data + 30, spec->to.bytes, 4);
	put16(data + 24, (uint16_t)~sum_fold(sum_bytes(data + 14, 20)));
}

static void fill_v6(uint8_t *data, const struct frame_spec *spec)
{
	put16(data + 12, htons(0x86dd));
	data[14] = 0x60;
	put16(data + 18, htons((uint16_t)(ip_bytes(spec) - 40)));
	data[20] = spec->proto;
	data[21] = 64;
	memcpy(data + 22, (uint8_t[]){ 0xfc, 0, 0, 2 }, 4);
	data[37] = 1;
	if (spec->client)
		memcpy(data + 30, (uint64_t[]){ spec->client }, 8);
	memcpy(data + 38, spec->to.bytes, 16);
}

static void fill_l4(struct frame *f, const struct frame_spec *spec)
{
	uint8_t *l4 = f->data + f->l4;
	uint32_t seq =
		htonl(spec->kind == FRAME_SYN ? FRAME_SEQ : FRAME_SEQ + 1);

	put16(l4, htons(CLIENT_PORT));
	put16(l4 + 2, htons(80));
	if (spec->proto == IPPROTO_TCP) {
		memcpy(l4 + 4, &seq, 4);
		l4[12] = 0x50;
		l4[13] = spec->kind == FRAME_SYN ? 0x02 : 0x10;
	} else {
		put16(l4 + 4, htons((uint16_t)(BENCH_BYTES - f->l4)));
	}
	put16(f->data + f->csum,
	      (uint16_t)~sum_fold(sum_transport(f->data + 14, spec->family,
						spec->proto, f->l4 - 14,
						f->ip_bytes)));
}

/* "Who has `to`?", as far as anybody looks. */
static void fill_arp(uint8_t *data, const struct frame_spec *spec)
{
	memset(data, 0xff, 6);
	put16(data + 12, htons(0x0806));
	memcpy(data + 14, (uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(data + 38, spec->to.bytes, 4);
}

void frame_make(const struct frame_spec *spec, struct frame *ret)
{
	*ret = (struct frame){ .data = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 },
			       .len = BENCH_BYTES };
	ret->l4 = spec->family == 4 ? 34 : 54;
	ret->csum = ret->l4 + (spec->proto == IPPROTO_TCP ? 16 : 6);
	if (spec->kind == FRAME_ARP) {
		fill_arp(ret->data, spec);
		return;
	}
	ret->ip_bytes = ip_bytes(spec);
	(spec->family == 4 ? fill_v4 : fill_v6)(ret->data, spec);
	fill_l4(ret, spec);
}
