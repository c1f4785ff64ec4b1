/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a frame says, read byte by byte and independent of the programs under
 * test, and its checksums computed from nothing.
 */
#ifndef TESTS_LIB_PACKET_VIEW_H
#define TESTS_LIB_PACKET_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum packet_part {
	PART_WHOLE, /* not a fragment */
	PART_FIRST,
	PART_LATER,
};

/* How far a frame could be read. */
enum packet_reach {
	REACH_NOT_IP, /* another ethertype, or no IP header of that version */
	REACH_IP, /* addresses, but no transport header to be found */
	REACH_PROTO, /* the transport protocol, its ports cut off or elsewhere */
	REACH_PORTS, /* and the ports */
};

struct packet_view {
	const uint8_t *frame;
	size_t size;
	enum packet_reach reach;
	unsigned int tags; /* VLAN tags in front */
	uint16_t tag[2]; /* TCI of each, outer first, host order */
	int family; /* 4 or 6 */
	size_t l3; /* offset of the IP header */
	size_t l3_len; /* of it, with options; 40 for IPv6 */
	unsigned int extensions; /* IPv6 extension headers, fragment's included */
	size_t fragment; /* offset of the IPv6 fragment header, or 0 */
	bool odd; /* extension headers that can't be walked through */
	bool cut; /* the frame ends before an extension header does */
	size_t l4; /* offset of the transport header */
	uint32_t ip_len; /* bytes from l3 on, as the header says */
	uint8_t proto; /* of the transport, where reach >= REACH_PROTO */
	uint8_t src[16], dst[16]; /* IPv4: the first four bytes, the rest 0 */
	uint16_t sport, dport; /* network order */
	uint8_t hops; /* TTL or hop limit */
	uint8_t tos; /* or traffic class */
	enum packet_part part;
	uint32_t fragment_id; /* network order */
	uint8_t fragment_proto; /* that all pieces of a datagram name */
	bool may_not_fragment; /* IPv6 always */
	bool options; /* IPv4 */
};

void packet_view(const uint8_t *frame, size_t size, struct packet_view *ret);

/* Sum of 16-bit words in network order, folded; an odd byte is padded. */
uint16_t packet_sum(const void *data, size_t len, uint32_t start);
/*
 * What the checksum of the IPv4 header, and of the transport (TCP, UDP, ICMP
 * of either family) over l4 .. ip_len, should be; network order as it stands
 * in the packet.
 */
uint16_t packet_ip_csum(const struct packet_view *v);
uint16_t packet_l4_csum(const struct packet_view *v);
/* Where the transport's checksum stands in the frame; 0: it has none. */
size_t packet_l4_csum_at(const struct packet_view *v);
/* Are both what they should be?  UDP over IPv4 may have none. */
bool packet_csums_good(const struct packet_view *v);

#endif
