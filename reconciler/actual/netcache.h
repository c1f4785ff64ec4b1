/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What netlink has told about links, addresses, neighbours and forwarding
 * tables.  Dumps and events go through the same functions.
 */
#ifndef ACTUAL_NETCACHE_H
#define ACTUAL_NETCACHE_H

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include "actual/netlink.h"
#include "actual/netmap.h"

/* Marks addresses as ours (IFA_PROTO, Linux 5.18); see also NET_LABEL. */
#define NET_ADDRESS_PROTO 88
#define NET_LABEL ":xlb"

struct netcache_link { /* by (ifindex) */
	struct netmap_node node;
	struct net_link link;
	uint64_t features; /* NETDEV_XDP_ACT_*, as far as is known */
};

/* From linux/netdev.h, which older headers lack. */
#define XDP_ACT_BASIC 1u /* runs programs */
#define XDP_ACT_REDIRECT 2u /* whose frames may go elsewhere */
#define XDP_ACT_NDO_XMIT 4u /* takes such frames */

struct netcache_neigh { /* by (interface, address) */
	struct netmap_node node;
	uint8_t mac[6];
	uint16_t state; /* NUD_*, as last told */
};

struct netcache_fdb { /* by (bridge, MAC) */
	struct netmap_node node;
	int port;
	/*
	 * The kernel forgot it for want of traffic.  The port is still the
	 * best answer as long as it is one of this bridge's.
	 */
	bool aged;
};

struct netcache {
	struct netmap links;
	struct netmap neighs; /* only those with a usable MAC */
	struct netmap fdb;
	struct net_address *addresses;
	size_t address_count;
	uint64_t generation; /* another one: something of it may be different */
};

/*
 * Attributes by their type, after a header of `offset` bytes or inside
 * another attribute.  Types of NET_ATTRIBUTES and more are passed over.
 */
#define NET_ATTRIBUTES 64
struct net_attributes {
	const struct nlattr *by[NET_ATTRIBUTES];
};
struct net_attributes net_attributes(const struct nlmsghdr *h, size_t offset);
struct net_attributes net_nested(const struct nlattr *a);

void netcache_release(struct netcache *c);

/* What a message did; bits. */
#define NETCACHE_CHANGED 1u /* something a reader could notice */
#define NETCACHE_ROUTES 2u /* lookups of routes may come out otherwise */
#define NETCACHE_NEW_LINK 4u /* ask for the XDP features of this one */

unsigned int netcache_message(struct netcache *c, const struct nlmsghdr *h);
/* NETDEV_A_DEV_XDP_FEATURES of one device; false: nothing new. */
bool netcache_features(struct netcache *c, int ifindex, uint64_t features);

const struct netcache_link *netcache_link(const struct netcache *c,
					  int ifindex);

#endif
