/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ICMP echo (RFC 792, RFC 4443), as raw sockets see it; pure. */
#ifndef HEALTH_ECHO_H
#define HEALTH_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct echo {
	uint16_t id, sequence;
	uint64_t cookie; /* in the payload */
};
#define ECHO_LEN 16

/* The kernel fills in the checksum of ICMPv6. */
void echo_request(const struct echo *e, int family, uint8_t ret[ECHO_LEN]);
/* Of IPv4 with its IP header. */
bool echo_is_reply(const struct echo *e, int family, const uint8_t *data,
		   size_t len);

#endif
