/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IP addresses and prefixes, as values. */
#ifndef BASE_IP_H
#define BASE_IP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* family 0: no address.  IPv4 stands in the first 4 bytes, the rest is 0. */
struct ip {
	int family; /* AF_INET, AF_INET6 or 0 */
	union {
		uint8_t bytes[16];
		uint32_t words[4]; /* network order */
	};
};

#define IP_STRLEN INET6_ADDRSTRLEN

bool ip_parse(const char *s, struct ip *ret); /* ret untouched on failure */
const char *ip_format(const struct ip *a, char out[IP_STRLEN]);
int ip_compare(const struct ip *a,
	       const struct ip *b); /* by family, then bytes */
bool ip_equal(const struct ip *a, const struct ip *b);
int ip_bits(const struct ip *a); /* 32 or 128 */
bool ip_in_prefix(const struct ip *a, const struct ip *net, int prefix);
struct ip ip_mask(const struct ip *a, int prefix);
/* a + n, for walking a range; wraps silently at the end of the family. */
struct ip ip_add(const struct ip *a, uint64_t n);
/* b - a when that fits; UINT64_MAX when it doesn't or families differ. */
uint64_t ip_distance(const struct ip *a, const struct ip *b);
socklen_t ip_sockaddr(const struct ip *a, uint16_t port,
		      struct sockaddr_storage *ret); /* port in host order */
bool ip_from_sockaddr(const struct sockaddr *sa, struct ip *ret,
		      uint16_t *ret_port);
/* Folded one's complement sum of the address, as checksums are made of. */
uint16_t ip_sum(const struct ip *a);

#endif
