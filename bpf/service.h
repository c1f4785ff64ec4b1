/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which declared service a packet is for: one load of a displacement, one of
 * a line, one comparison.  Two copies of the table exist; control.vip_copy is
 * read once a packet, so that each packet sees one whole table.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include "parse.h"

/* Port, protocol and family, as they stand together in struct xlb_vip. */
static __always_inline __u32 service_word(__be16 port, __u8 proto, __u32 family)
{
	return port | (__u32)proto << 16 | family << 24;
}

static __always_inline const struct xlb_vip *
service_line(__u64 lo, __u64 hi, __u16 port, __u8 proto, bool v6)
{
	__u32 copy = *(volatile __u32 *)&tables.control.vip_copy & 1;
	__u64 hash = xlb_vip_hash(lo, hi, port, proto, v6,
				  tables.control.vip_seed[copy]);
	__u64 bucket = (hash >> 52) | copy * XLB_VIP_BUCKETS;
	__u32 shift =
		tables.displacement[MASK(bucket, 2 * XLB_VIP_BUCKETS - 1)];
	__u64 line = (((__u32)(hash >> 32) ^ shift) & (XLB_VIP_LINES - 1)) |
		     copy * XLB_VIP_LINES;
	const struct xlb_vip *vip;

	if (!(shift >> 16 >> ((hash >> 48) & 15) & 1))
		return NULL;
	vip = &tables.vips[MASK(line, 2 * XLB_VIP_LINES - 1)];
	/* Keep the sum, which clang would compute anew at each use. */
	asm volatile("" : "+r"(vip));
	return vip;
}

static __always_inline const struct xlb_vip *
service_find_v4(__be32 addr, __be16 port, __u8 proto)
{
	const struct xlb_vip *vip = service_line(addr, 0, port, proto, false);

	if (!vip ||
	    *(const __u32 *)&vip->port !=
		    service_word(port, proto, FAMILY_V4) ||
	    vip->addr[0] != addr)
		return NULL;
	return vip;
}

static __always_inline const struct xlb_vip *
service_find_v6(__u64 lo, __u64 hi, __be16 port, __u8 proto)
{
	const struct xlb_vip *vip = service_line(lo, hi, port, proto, true);
	const __u64 *addr;

	if (!vip ||
	    *(const __u32 *)&vip->port != service_word(port, proto, FAMILY_V6))
		return NULL;
	addr = (const __u64 *)vip->addr;
	return addr[0] == lo && addr[1] == hi ? vip : NULL;
}

/* The same for either family, for paths that are not hot. */
static __always_inline const struct xlb_vip *
service_find(const __u32 addr[4], __u8 family, __be16 port, __u8 proto)
{
	if (family == FAMILY_V4)
		return service_find_v4(addr[0], port, proto);
	return service_find_v6(addr[0] | (__u64)addr[1] << 32,
			       addr[2] | (__u64)addr[3] << 32, port, proto);
}

/* Is it the address of any declared VIP?  For packets without ports. */
static __always_inline bool address_is_vip(const __u32 addr[4], __u8 family)
{
	struct xlb_address_key key = {
		.addr = { addr[0], addr[1], addr[2], addr[3] },
		.family = family,
	};

	return bpf_map_lookup_elem(&addresses, &key) != NULL;
}

#endif
