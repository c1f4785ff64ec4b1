/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/ip.h"

#include <arpa/inet.h>
#include <string.h>

bool ip_parse(const char *s, struct ip *ret)
{
	struct ip a = { 0 };

	if (inet_pton(AF_INET, s, a.bytes) == 1)
		a.family = AF_INET;
	else if (inet_pton(AF_INET6, s, a.bytes) == 1)
		a.family = AF_INET6;
	else
		return false;
	*ret = a;
	return true;
}

const char *ip_format(const struct ip *a, char out[IP_STRLEN])
{
	if (!a->family || !inet_ntop(a->family, a->bytes, out, IP_STRLEN))
		memcpy(out, "-", 2);
	return out;
}

int ip_compare(const struct ip *a, const struct ip *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
	return ip_compare(a, b) == 0;
}

int ip_bits(const struct ip *a)
{
	return a->family == AF_INET6 ? 128 : 32;
}

struct ip ip_mask(const struct ip *a, int prefix)
{
	struct ip m = *a;

	for (int i = 0; i < 16; i++) {
		int keep = prefix - i * 8;

		if (keep <= 0)
			m.bytes[i] = 0;
		else if (keep < 8)
			m.bytes[i] &= (uint8_t)(0xff << (8 - keep));
	}
	return m;
}

bool ip_in_prefix(const struct ip *a, const struct ip *net, int prefix)
{
	struct ip x = ip_mask(a, prefix), y = ip_mask(net, prefix);

	return ip_equal(&x, &y);
}

struct ip ip_add(const struct ip *a, uint64_t n)
{
	struct ip r = *a;
	int last = a->family == AF_INET6 ? 15 : 3;

	for (int i = last; i >= 0 && n; i--) {
		n += r.bytes[i];
		r.bytes[i] = (uint8_t)n;
		n >>= 8;
	}
	return r;
}

uint64_t ip_distance(const struct ip *a, const struct ip *b)
{
	int size = a->family == AF_INET6 ? 16 : 4;
	uint64_t high = 0, low = 0;
	int borrow = 0;

	if (a->family != b->family || memcmp(b->bytes, a->bytes, 16) < 0)
		return UINT64_MAX;
	for (int i = size - 1; i >= 0; i--) {
		int d = b->bytes[i] - a->bytes[i] - borrow;

		borrow = d < 0;
		if (size - 1 - i < 8)
			low |= (uint64_t)(d & 0xff) << (8 * (size - 1 - i));
		else
			high |= (uint64_t)(d & 0xff);
	}
	return high ? UINT64_MAX : low;
}

socklen_t ip_sockaddr(const struct ip *a, uint16_t port,
		      struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (a->family == AF_INET6) {
		struct sockaddr_in6 *s = (struct sockaddr_in6 *)ret;

		s->sin6_family = AF_INET6;
		s->sin6_port = htons(port);
		memcpy(&s->sin6_addr, a->bytes, 16);
		return sizeof(*s);
	}
	struct sockaddr_in *s = (struct sockaddr_in *)ret;

	s->sin_family = AF_INET;
	s->sin_port = htons(port);
	memcpy(&s->sin_addr, a->bytes, 4);
	return sizeof(*s);
}

bool ip_from_sockaddr(const struct sockaddr *sa, struct ip *ret,
		      uint16_t *ret_port)
{
	struct ip a = { .family = sa->sa_family };

	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *s = (const struct sockaddr_in *)sa;

		memcpy(a.bytes, &s->sin_addr, 4);
		if (ret_port)
			*ret_port = ntohs(s->sin_port);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *s = (const struct sockaddr_in6 *)sa;

		memcpy(a.bytes, &s->sin6_addr, 16);
		if (ret_port)
			*ret_port = ntohs(s->sin6_port);
	} else {
		return false;
	}
	*ret = a;
	return true;
}

uint16_t ip_sum(const struct ip *a)
{
	int words = a->family == AF_INET6 ? 8 : 2;
	uint32_t sum = 0;

	for (int i = 0; i < words; i++) {
		uint16_t w;

		memcpy(&w, a->bytes + (size_t)i * 2, 2);
		sum += w;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}
