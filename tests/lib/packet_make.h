/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames with right checksums, from a description. */
#ifndef TESTS_LIB_PACKET_MAKE_H
#define TESTS_LIB_PACKET_MAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_MAX 2048

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
};

struct packet_spec {
	int family; /* 4 or 6 */
	uint8_t proto; /* of the transport */
	uint8_t src[16], dst[16];
	uint16_t sport, dport; /* network order */
	uint8_t hops;
	uint8_t tos; /* or traffic class */
	bool df;
	/* TCP */
	uint8_t flags;
	uint32_t seq; /* host order */
	uint8_t tcp_options; /* words */
	bool no_csum; /* UDP */
	size_t payload; /* bytes after the transport header */
	uint8_t fill; /* what they are made of */
	/* In front */
	unsigned int tags;
	uint16_t tag[2];
	uint8_t ip_options; /* words, all of them "no operation" */
	unsigned int extensions; /* destination options of 8 bytes each */
	/* A piece of a datagram: first with more to come, or a later one. */
	bool fragment, later;
	uint32_t fragment_id;
	/* ICMP (proto of that family): type, code, and the packet it quotes. */
	uint8_t type, code;
	const uint8_t *quote;
	size_t quote_size;
};

/* Writes at most PACKET_MAX bytes; returns how many. */
size_t packet_make(const struct packet_spec *s, uint8_t *frame);

/* A small generator of random numbers, the same everywhere. */
uint64_t random_next(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t n);
/* True once in n. */
bool random_once_in(uint64_t *state, uint32_t n);

#endif
