/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "health/echo.h"

#include <string.h>
#include <sys/socket.h>

#define REQUEST4 8
#define REPLY4 0
#define REQUEST6 128
#define REPLY6 129

/* RFC 1071; of an even number of bytes. */
static uint16_t checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void echo_request(const struct echo *e, int family, uint8_t ret[ECHO_LEN])
{
	memset(ret, 0, ECHO_LEN);
	ret[0] = family == AF_INET6 ? REQUEST6 : REQUEST4;
	put16(ret + 4, e->id);
	put16(ret + 6, e->sequence);
	memcpy(ret + 8, &e->cookie, sizeof(e->cookie));
	if (family == AF_INET)
		put16(ret + 2, checksum(ret, ECHO_LEN));
}

bool echo_is_reply(const struct echo *e, int family, const uint8_t *data,
		   size_t len)
{
	uint8_t want[ECHO_LEN];
	size_t head = 0;

	if (family == AF_INET && len)
		head = (size_t)(data[0] & 0x0f) * 4;
	if (len < head + ECHO_LEN || (family == AF_INET && head < 20))
		return false;
	data += head;
	echo_request(e, family, want);
	return data[0] == (family == AF_INET6 ? REPLY6 : REPLY4) &&
	       data[1] == 0 && !memcmp(data + 4, want + 4, ECHO_LEN - 4);
}
