/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files that implement netlink.h share. */
#ifndef ACTUAL_NETLINK_PRIV_H
#define ACTUAL_NETLINK_PRIV_H

#include "actual/netcache.h"

#define NET_BUFFER 32768 /* bytes: the kernel's own limit of a dump's piece */

/* A socket for questions, answered before netsock_ask() returns. */
struct netsock {
	struct mnl_socket *nl;
	uint32_t seq;
};

int netsock_open(struct netsock *s, int protocol); /* 0 or -errno */
void netsock_close(struct netsock *s);
/* Send `request` and give each answer to fn (may be NULL). 0 or -errno. */
int netsock_ask(struct netsock *s, struct nlmsghdr *request, mnl_cb_t fn,
		void *arg);
/* The descriptor of a non-blocking subscriber of `groups`. 0 or -errno. */
int netsock_subscribe(int protocol, const uint32_t *groups, size_t count,
		      struct mnl_socket **ret);

/*
 * The netdev family of generic netlink (Linux 6.3) says which devices run XDP
 * programs and take frames from them.  Where it doesn't exist, drivers are
 * known by name, and there are no notifications.
 */
struct netdev {
	struct netsock ask;
	uint16_t family; /* 0: this kernel has none */
	uint32_t group; /* of its notifications */
};

void netdev_open(struct netdev *d);
void netdev_close(struct netdev *d);
/* Ask about one device, or, ifindex 0, about all. 0 or -errno. */
int netdev_ask(struct netdev *d, struct netcache *c, int ifindex);
/* XDP_ACT_* as they are told where the kernel doesn't say. */
uint64_t netdev_guess(const struct net_link *l);
/* A notification; true when the cache changed. */
bool netdev_message(const struct netdev *d, struct netcache *c,
		    const struct nlmsghdr *h);

/* Where the kernel routes an address, remembered until something changes. */
struct netroute {
	struct netmap_node node; /* by (0, address) */
	int error; /* 0, or -errno of this lookup */
	int ifindex;
	struct ip next; /* gateway, or the address itself */
	uint32_t mtu; /* of the route; 0: the interface's */
	/* What net_path() found with the cache of that generation. */
	uint64_t generation;
	int path_error;
	struct net_path path;
};

/* Everything that is remembered, apart so that const readers may add to it. */
struct netroutes {
	struct netsock ask;
	struct netmap map;
};

struct netroute *netroute_find(struct netroutes *r, const struct ip *to);

struct net {
	struct loop *loop;
	loop_fn changed;
	void *arg;
	struct netsock ask;
	struct netdev netdev;
	struct netroutes *routes;
	struct netcache cache;
	struct mnl_socket *events; /* rtnetlink; NULL: a snapshot */
	struct mnl_socket *netdev_events;
	struct loop_source *sources[2];
	struct loop_source *retry; /* of a refresh that failed */
	int packet_fd; /* announcements leave through it; -1: not open */
};

#endif
