/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What packets look like, and one's complement arithmetic.  Sums are kept
 * wide and folded once, where they are stored.
 */
#ifndef PARSE_H
#define PARSE_H

#include <stddef.h>

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "tables.h"

#define FAMILY_V4 4
#define FAMILY_V6 6

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6_MF 0x0001
#define IP6_OFFSET 0xfff8

#define MAX_EXTENSIONS 4 /* IPv6 extension headers that are looked through */
#define MAX_TAGS 2 /* VLAN tags that are looked through */

/*
 * ICMP of both families; linux/icmp.h would pull in the C library, which
 * isn't there for this target.
 */
struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 info; /* of "too big": the MTU */
};

enum icmp_type {
	ICMP4_ECHO_REPLY = 0,
	ICMP4_UNREACHABLE = 3,
	ICMP4_SOURCE_QUENCH = 4,
	ICMP4_ECHO = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_TOO_BIG = 2,
	ICMP6_PARAMETER = 4,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
};
#define ICMP4_FRAG_NEEDED 4 /* code of ICMP4_UNREACHABLE */

static __always_inline bool icmp_is_error_v4(__u8 type)
{
	return type == ICMP4_UNREACHABLE || type == ICMP4_SOURCE_QUENCH ||
	       type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER;
}

static __always_inline bool icmp_is_error_v6(__u8 type)
{
	return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
}

struct ports {
	__be16 source;
	__be16 dest;
};

struct vlan_tag {
	__be16 type;
	__be16 tci;
};

static __always_inline bool is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) ||
	       type == bpf_htons(ETH_P_8021AD);
}

struct fragment_header {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* Both ports as they stand in the packet, as one word to hash. */
static __always_inline __u32 ports_word(__be16 source, __be16 dest)
{
	return source | (__u32)dest << 16;
}

static __always_inline bool proto_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

/*
 * Bytes between two packet pointers, in 64 bits: the verifier takes no 32-bit
 * arithmetic on pointers, which clang would make of it.
 */
static __always_inline __u64 distance(void *from, void *to)
{
	__u64 bytes = (__u64)(to - from);

	asm volatile("" : "+r"(bytes));
	return bytes;
}

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* What a checksum of value `old` becomes when `delta` is added to its data. */
static __always_inline __u16 csum_add(__u16 old, __u64 delta)
{
	return (__u16)~csum_fold((__u16)~old + delta);
}

/* The same, cheaper, for a delta that is a sum of few 16-bit numbers. */
static __always_inline __u16 csum_add_small(__u16 old, __u64 delta)
{
	__u64 sum = (__u16)~old + delta;

	sum = (sum & 0xffff) + (sum >> 16);
	sum += sum >> 16;
	return (__u16)~sum;
}

static __always_inline __u64 csum_change16(__u16 old, __u16 new)
{
	return (__u64)(__u16)~old + new;
}

static __always_inline __u64 csum_words(const __u32 *words, int count)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < count; i++)
		sum += words[i];
	return sum;
}

/* Any address between places that are only aligned to 4 (the stack's). */
static __always_inline void copy_addr(void *to, const void *from)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		((__u32 *)to)[i] = ((const __u32 *)from)[i];
}

/* An IPv6 address to or from a packet. */
static __always_inline void copy_v6(void *to, const void *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

#endif
