/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel is asked for each address rather than its tables being read:
 * rules, metrics, multipath and exceptions are then its own business.
 */
#include <errno.h>
#include <string.h>

#include "actual/netlink_priv.h"

static void take_next(struct netroute *r, int family, const void *bytes)
{
	r->next = (struct ip){ .family = family };
	memcpy(r->next.bytes, bytes, family == AF_INET6 ? 16 : 4);
}

/* An IPv4 route through an IPv6 gateway says so in an attribute of its own. */
static void take_via(struct netroute *r, const struct nlattr *a)
{
	const struct rtvia *via = mnl_attr_get_payload(a);
	size_t len = mnl_attr_get_payload_len(a);

	if (len == sizeof(*via) + 16 && via->rtvia_family == AF_INET6)
		take_next(r, AF_INET6, via->rtvia_addr);
}

static int error_of_type(unsigned char type)
{
	switch (type) {
	case RTN_UNICAST:
		return 0;
	case RTN_LOCAL:
		return -EADDRNOTAVAIL;
	default:
		return -ENETUNREACH;
	}
}

static int on_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct net_attributes a = net_attributes(h, sizeof(*m));
	const struct nlattr *mtu = NULL;
	struct netroute *r = arg;

	if (h->nlmsg_type != RTM_NEWROUTE)
		return MNL_CB_OK;
	r->error = error_of_type(m->rtm_type);
	if (a.by[RTA_OIF])
		r->ifindex = (int)mnl_attr_get_u32(a.by[RTA_OIF]);
	if (a.by[RTA_GATEWAY])
		take_next(r, m->rtm_family,
			  mnl_attr_get_payload(a.by[RTA_GATEWAY]));
	if (a.by[RTA_VIA])
		take_via(r, a.by[RTA_VIA]);
	if (a.by[RTA_METRICS])
		mtu = net_nested(a.by[RTA_METRICS]).by[RTAX_MTU];
	if (mtu)
		r->mtu = mnl_attr_get_u32(mtu);
	return MNL_CB_OK;
}

static void look_up(struct netroutes *routes, const struct ip *to,
		    struct netroute *r)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	size_t size = to->family == AF_INET6 ? 16 : 4;
	struct rtmsg *m;
	int error;

	h->nlmsg_type = RTM_GETROUTE;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->rtm_family = (unsigned char)to->family;
	m->rtm_dst_len = (unsigned char)ip_bits(to);
	mnl_attr_put(h, RTA_DST, size, to->bytes);
	r->next = *to;
	error = netsock_ask(&routes->ask, h, on_route, r);
	if (error)
		r->error = error;
	else if (!r->error && !r->ifindex)
		r->error = -ENETUNREACH;
}

struct netroute *netroute_find(struct netroutes *routes, const struct ip *to)
{
	struct netmap_key key = netmap_key(0, to);
	struct netroute *r = netmap_find(&routes->map, &key);

	if (r)
		return r;
	r = netmap_need(&routes->map, &key, sizeof(*r));
	look_up(routes, to, r);
	return r;
}
