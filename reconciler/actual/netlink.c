/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Order is what keeps the cache right: subscribe first, then dump.  Events
 * queued before the dump repeat what it said or are repeated by later ones, so
 * the state after the last event is the kernel's.  When events are lost
 * (ENOBUFS) everything is dumped again.
 */
#include "actual/netlink.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actual/netlink_priv.h"
#include "base/log.h"
#include "base/mem.h"

#define RETRY NS_PER_S
/*
 * Datagrams in one go, so that a flood of events can't starve the loop; but
 * as many as a save of hundreds of VIPs makes, since a pass that looks before
 * they are all read takes its own changes for missing.
 */
#define BATCH 4096

static const uint32_t rtnetlink_groups[] = {
	RTNLGRP_LINK,	     RTNLGRP_NEIGH,	   RTNLGRP_IPV4_IFADDR,
	RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,   RTNLGRP_IPV6_ROUTE,
	RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,	   RTNLGRP_NEXTHOP,
	RTNLGRP_TC,	     RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF,
};

static int on_dumped(const struct nlmsghdr *h, void *arg)
{
	netcache_message(arg, h);
	return MNL_CB_OK;
}

static int dump(struct net *n, struct netcache *c, uint16_t type, int family)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_DUMP;
	if (type == RTM_GETLINK) {
		struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

		m->ifi_family = (unsigned char)family;
		mnl_attr_put_u32(h, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	} else if (type == RTM_GETADDR) {
		struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

		m->ifa_family = (unsigned char)family;
	} else {
		struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

		m->ndm_family = (unsigned char)family;
	}
	return netsock_ask(&n->ask, h, on_dumped, c);
}

bool net_native(int ifindex)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	const struct netcache_link *l;
	struct netcache c = { 0 };
	struct netdev netdev;
	struct netsock ask;
	struct ifinfomsg *m;
	bool native = false;

	if (netsock_open(&ask, NETLINK_ROUTE))
		return false;
	netdev_open(&netdev);
	h->nlmsg_type = RTM_GETLINK;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifi_index = ifindex;
	if (!netsock_ask(&ask, h, on_dumped, &c) &&
	    !netdev_ask(&netdev, &c, ifindex)) {
		l = netcache_link(&c, ifindex);
		native = l && l->link.xdp_native;
	}
	netdev_close(&netdev);
	netsock_close(&ask);
	netcache_release(&c);
	return native;
}

static int read_all(struct net *n, struct netcache *c)
{
	static const struct {
		uint16_t type;
		int family;
	} dumps[] = {
		{ RTM_GETLINK, AF_UNSPEC },
		{ RTM_GETADDR, AF_UNSPEC },
		{ RTM_GETNEIGH, AF_UNSPEC },
		{ RTM_GETNEIGH, AF_BRIDGE },
	};
	int error = 0;

	for (size_t i = 0; i < ARRAY_SIZE(dumps) && !error; i++)
		error = dump(n, c, dumps[i].type, dumps[i].family);
	return error ? error : netdev_ask(&n->netdev, c, 0);
}

int net_refresh(struct net *n)
{
	struct netcache fresh = { 0 };
	int error = read_all(n, &fresh);

	if (error) {
		netcache_release(&fresh);
		return error;
	}
	fresh.generation += n->cache.generation + 1;
	netcache_release(&n->cache);
	n->cache = fresh;
	netmap_release(&n->routes->map);
	return 0;
}

/* events */

struct batch {
	struct net *net;
	unsigned int did; /* NETCACHE_* */
	bool lost;
};

static int on_event(const struct nlmsghdr *h, void *arg)
{
	struct batch *b = arg;
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	unsigned int did = netcache_message(&b->net->cache, h);

	if (did & NETCACHE_NEW_LINK)
		/* It may be gone already; then its deletion is queued. */
		(void)netdev_ask(&b->net->netdev, &b->net->cache, m->ifi_index);
	b->did |= did;
	return MNL_CB_OK;
}

static int on_netdev_event(const struct nlmsghdr *h, void *arg)
{
	struct batch *b = arg;

	if (netdev_message(&b->net->netdev, &b->net->cache, h))
		b->did |= NETCACHE_CHANGED;
	return MNL_CB_OK;
}

/*
 * Once it has dropped an event the kernel drops all until the queue is empty,
 * and says so only once: so empty it before anything is read anew.
 */
static void read_events(struct batch *b, struct mnl_socket *nl, mnl_cb_t fn)
{
	_Alignas(8) char buffer[NET_BUFFER];

	for (int i = 0; i < BATCH || b->lost; i++) {
		ssize_t len = mnl_socket_recvfrom(nl, buffer, sizeof(buffer));

		if (len < 0 && errno == EAGAIN)
			return;
		if (len < 0 && errno != EINTR)
			b->lost = true;
		if (len < 0 && errno != EINTR && errno != ENOBUFS)
			return;
		if (len > 0 && !b->lost &&
		    mnl_cb_run(buffer, (size_t)len, 0, 0, fn, b) < 0)
			b->lost = true;
	}
}

static void refresh_or_retry(void *arg)
{
	struct net *n = arg;
	int error = net_refresh(n);

	if (error) {
		log_warn("net_refresh", "error=%s retry_s=1", strerror(-error));
		loop_arm_in(n->retry, RETRY);
		return;
	}
	n->changed(n->arg);
}

static void on_readable(void *arg, int fd, uint32_t events)
{
	struct net *n = arg;
	struct batch b = { .net = n };

	(void)events;
	if (fd == mnl_socket_get_fd(n->events))
		read_events(&b, n->events, on_event);
	else
		read_events(&b, n->netdev_events, on_netdev_event);
	if (b.lost) {
		refresh_or_retry(n);
		return;
	}
	if ((b.did & NETCACHE_ROUTES) && n->routes->map.count) {
		netmap_release(&n->routes->map);
		b.did |= NETCACHE_CHANGED;
	}
	if (b.did & NETCACHE_CHANGED)
		n->changed(n->arg);
}

void net_catch_up(struct net *n)
{
	if (n->events)
		on_readable(n, mnl_socket_get_fd(n->events), 0);
}

static int subscribe(struct net *n)
{
	int error = netsock_subscribe(NETLINK_ROUTE, rtnetlink_groups,
				      ARRAY_SIZE(rtnetlink_groups), &n->events);

	if (error)
		return error;
	n->sources[0] = loop_add_fd(n->loop, mnl_socket_get_fd(n->events),
				    EPOLLIN, on_readable, n);
	n->retry = loop_add_timer(n->loop, refresh_or_retry, n);
	if (!n->netdev.group)
		return 0;
	error = netsock_subscribe(NETLINK_GENERIC, &n->netdev.group, 1,
				  &n->netdev_events);
	if (error)
		return error;
	n->sources[1] =
		loop_add_fd(n->loop, mnl_socket_get_fd(n->netdev_events),
			    EPOLLIN, on_readable, n);
	return 0;
}

int net_open(struct loop *l, loop_fn changed, void *arg, struct net **ret)
{
	struct net *n = mem_alloc(sizeof(*n));
	int error;

	n->loop = l;
	n->packet_fd = -1;
	n->changed = changed;
	n->arg = arg;
	n->routes = mem_alloc(sizeof(*n->routes));
	netdev_open(&n->netdev);
	error = netsock_open(&n->ask, NETLINK_ROUTE);
	if (!error)
		error = netsock_open(&n->routes->ask, NETLINK_ROUTE);
	if (!error && l)
		error = subscribe(n);
	if (!error)
		error = net_refresh(n);
	if (error) {
		net_close(n);
		return error;
	}
	*ret = n;
	return 0;
}

void net_close(struct net *n)
{
	if (!n)
		return;
	loop_remove(n->sources[0]);
	loop_remove(n->sources[1]);
	loop_remove(n->retry);
	if (n->events)
		mnl_socket_close(n->events);
	if (n->netdev_events)
		mnl_socket_close(n->netdev_events);
	if (n->packet_fd >= 0)
		close(n->packet_fd);
	netdev_close(&n->netdev);
	netsock_close(&n->ask);
	netsock_close(&n->routes->ask);
	netmap_release(&n->routes->map);
	netcache_release(&n->cache);
	free(n->routes);
	free(n);
}

/* lookups */

const struct net_link *net_link(const struct net *n, int ifindex)
{
	const struct netcache_link *l = netcache_link(&n->cache, ifindex);

	return l ? &l->link : NULL;
}

const struct net_link *net_link_by_name(const struct net *n, const char *name)
{
	const struct netcache_link *l = NULL;

	while ((l = netmap_next(&n->cache.links, l))) {
		if (strcmp(l->link.name, name) == 0)
			return &l->link;
	}
	return NULL;
}

void net_links(const struct net *n,
	       void (*fn)(void *arg, const struct net_link *l), void *arg)
{
	const struct netcache_link *l = NULL;

	while ((l = netmap_next(&n->cache.links, l)))
		fn(arg, &l->link);
}

void net_addresses(const struct net *n,
		   void (*fn)(void *arg, const struct net_address *a),
		   void *arg)
{
	for (size_t i = 0; i < n->cache.address_count; i++)
		fn(arg, &n->cache.addresses[i]);
}

const struct net_address *net_find_address(const struct net *n,
					   const struct ip *a)
{
	for (size_t i = 0; i < n->cache.address_count; i++) {
		if (ip_equal(&n->cache.addresses[i].address, a))
			return &n->cache.addresses[i];
	}
	return NULL;
}

bool net_source(const struct net *n, int ifindex, int family, struct ip *ret)
{
	const struct net_address *found = NULL;

	for (size_t i = 0; i < n->cache.address_count; i++) {
		const struct net_address *a = &n->cache.addresses[i];

		if (!a->source || a->address.family != family)
			continue;
		if (!found ||
		    (a->ifindex == ifindex && found->ifindex != ifindex))
			found = a;
	}
	if (found)
		*ret = found->address;
	return found;
}

/* The port behind which a bridge has seen that MAC; NULL: not seen. */
static const struct net_link *bridge_port(const struct net *n, int bridge,
					  const uint8_t mac[6])
{
	struct netmap_key key = netmap_key_mac(bridge, mac);
	const struct netcache_fdb *f = netmap_find(&n->cache.fdb, &key);
	const struct net_link *port = f ? net_link(n, f->port) : NULL;

	return port && port->master == bridge ? port : NULL;
}

/*
 * Where a frame for that MAC must be put, when the route points to `out`, and
 * the tag that it needs there.  NULL: the bridge hasn't seen the MAC.
 */
static const struct net_link *frame_port(const struct net *n,
					 const struct net_link *out,
					 const uint8_t mac[6],
					 uint16_t *ret_vlan)
{
	const struct net_link *port = out, *parent;

	*ret_vlan = 0;
	if (out->bridge)
		port = bridge_port(n, out->ifindex, mac);
	parent = port && port->vlan ? net_link(n, port->parent) : NULL;
	if (!parent || parent->vlan_filtering ||
	    strcmp(parent->kind, "vlan") == 0)
		return port;
	*ret_vlan = port->vlan;
	return parent->bridge ? bridge_port(n, parent->ifindex, mac) : parent;
}

static uint16_t smallest_mtu(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t least = UINT16_MAX;

	if (a && a < least)
		least = a;
	if (b && b < least)
		least = b;
	if (c && c < least)
		least = c;
	return (uint16_t)least;
}

static int find_path(const struct net *n, const struct ip *to,
		     const struct netroute *r, struct net_path *ret)
{
	const struct net_link *out, *port;
	const struct netcache_neigh *next;
	struct netmap_key key;

	*ret = (struct net_path){ 0 };
	if (r->error)
		return r->error;
	out = net_link(n, r->ifindex);
	if (!out)
		return -ENODEV;
	ret->route_ifindex = r->ifindex;
	ret->on_link = ip_equal(&r->next, to);
	memcpy(ret->src_mac, out->mac, 6);
	ret->mtu = smallest_mtu(r->mtu, out->mtu, 0);
	key = netmap_key(r->ifindex, &r->next);
	next = netmap_find(&n->cache.neighs, &key);
	if (!next)
		return 0;
	memcpy(ret->dst_mac, next->mac, 6);
	port = frame_port(n, out, next->mac, &ret->vlan);
	if (!port)
		return 0;
	ret->port_ifindex = port->ifindex;
	ret->mtu = smallest_mtu(r->mtu, out->mtu, port->mtu);
	ret->stack = !port->xdp_target;
	ret->known = true;
	return 0;
}

/* A route is forgotten with all that was found by it. */
int net_path(const struct net *n, const struct ip *to, struct net_path *ret)
{
	struct netroute *r = netroute_find(n->routes, to);

	if (r->generation != n->cache.generation) {
		r->path_error = find_path(n, to, r, &r->path);
		r->generation = n->cache.generation;
	}
	*ret = r->path;
	return r->path_error;
}
