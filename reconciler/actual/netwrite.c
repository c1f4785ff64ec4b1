/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is changed through rtnetlink: neighbours asked for, VIPs. */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <string.h>

#include "actual/netlink_priv.h"
#include "base/seam.h"

/* "IF:xlb" where that fits, else as much of IF as does. */
#define LABEL_MAX 15

static int neigh_request(struct net *n, uint16_t type, uint16_t flags,
			 const struct netroute *r, const struct ndmsg *what,
			 const uint8_t *mac)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	struct ndmsg *m;

	h->nlmsg_type = type;
	h->nlmsg_flags = flags;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	*m = *what;
	m->ndm_family = (unsigned char)r->next.family;
	m->ndm_ifindex = r->ifindex;
	mnl_attr_put(h, NDA_DST, r->next.family == AF_INET6 ? 16 : 4,
		     r->next.bytes);
	if (mac)
		mnl_attr_put(h, NDA_LLADDR, 6, mac);
	return netsock_ask(&n->ask, h, NULL, NULL);
}

/*
 * The kernel asks once a second.  A machine that boots would wait for that
 * up to a second, so an entry that has no answer yet is thrown away and asked
 * for anew: each call sends a request at once.
 */
static int ask_neighbour(struct net *n, const struct netroute *r)
{
	const struct ndmsg none = { .ndm_state = NUD_NONE };
	const struct ndmsg use = { .ndm_state = NUD_NONE,
				   .ndm_flags = NTF_USE };
	int error = neigh_request(n, RTM_DELNEIGH, 0, r, &none, NULL);

	if (error && error != -ENOENT)
		return error;
	return neigh_request(n, RTM_NEWNEIGH, NLM_F_CREATE, r, &use, NULL);
}

int net_resolve(struct net *n, const struct ip *to)
{
	const struct ndmsg probe = { .ndm_state = NUD_PROBE };
	const struct netroute *r = netroute_find(n->routes, to);
	struct netmap_key key;
	struct net_path path;
	int error;

	seam_change("net_resolve");
	if (r->error)
		return r->error;
	error = net_path(n, to, &path);
	if (error || path.known)
		return error;
	/* Its MAC is known, its port isn't: an answer makes the bridge learn. */
	key = netmap_key(r->ifindex, &r->next);
	error = -ENOENT;
	if (netmap_find(&n->cache.neighs, &key))
		error = neigh_request(n, RTM_NEWNEIGH, NLM_F_REPLACE, r, &probe,
				      NULL);
	/* Or it is gone, and that event is on its way. */
	return error == -ENOENT ? ask_neighbour(n, r) : error;
}

int net_keep(struct net *n, const struct ip *to)
{
	const struct ndmsg probe = { .ndm_state = NUD_PROBE };
	const struct ndmsg use = { .ndm_state = NUD_NONE,
				   .ndm_flags = NTF_USE };
	const struct netroute *r = netroute_find(n->routes, to);
	struct netcache_neigh *next;
	struct netmap_key key;
	struct net_path path;
	int error;

	seam_change("net_keep");
	if (r->error)
		return r->error;
	key = netmap_key(r->ifindex, &r->next);
	next = netmap_find(&n->cache.neighs, &key);
	/* To use what the kernel is asking for already changes nothing. */
	if (!next)
		return neigh_request(n, RTM_NEWNEIGH, NLM_F_CREATE, r, &use,
				     NULL);
	if (next->state & NUD_STALE) {
		/* As the event will say, unless an answer comes before it. */
		next->state = NUD_PROBE;
		error = neigh_request(n, RTM_NEWNEIGH, NLM_F_REPLACE, r, &probe,
				      NULL);
		/* Gone, and that event is on its way. */
		return error == -ENOENT ? 0 : error;
	}
	/* The MAC is known, but where the bridge has it may be not. */
	error = net_path(n, to, &path);
	return error || path.known ? error : net_resolve(n, to);
}

int net_learn(struct net *n, const struct ip *to, const uint8_t mac[6])
{
	const struct ndmsg stale = { .ndm_state = NUD_STALE };
	const struct netroute *r = netroute_find(n->routes, to);
	struct netmap_key key;

	seam_change("net_learn");
	if (r->error)
		return r->error;
	if (!ip_equal(&r->next, to))
		return -ENOTUNIQ;
	key = netmap_key(r->ifindex, to);
	if (netmap_find(&n->cache.neighs, &key))
		return 0;
	return neigh_request(n, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, r,
			     &stale, mac);
}

/* VIPs */

static struct nlmsghdr *start_address(char *buffer, uint16_t type,
				      uint16_t flags, int ifindex,
				      const struct ip *a)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	size_t size = a->family == AF_INET6 ? 16 : 4;
	struct ifaddrmsg *m;

	h->nlmsg_type = type;
	h->nlmsg_flags = flags;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifa_family = (unsigned char)a->family;
	m->ifa_prefixlen = (unsigned char)ip_bits(a);
	m->ifa_index = (unsigned int)ifindex;
	mnl_attr_put(h, IFA_LOCAL, size, a->bytes);
	mnl_attr_put(h, IFA_ADDRESS, size, a->bytes);
	return h;
}

static void mark_v4(struct nlmsghdr *h, const char *interface)
{
	char label[LABEL_MAX + 1];

	snprintf(label, sizeof(label), "%.*s%s",
		 (int)(LABEL_MAX - strlen(NET_LABEL)), interface, NET_LABEL);
	mnl_attr_put_strz(h, IFA_LABEL, label);
}

/* Deprecated from the start, so that it is never chosen as a source. */
static void mark_v6(struct nlmsghdr *h)
{
	const struct ifa_cacheinfo life = { .ifa_prefered = 0,
					    .ifa_valid = UINT32_MAX };

	mnl_attr_put(h, IFA_CACHEINFO, sizeof(life), &life);
	mnl_attr_put_u32(h, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
}

static bool is_ours_at(const struct net *n, int ifindex, const struct ip *a)
{
	for (size_t i = 0; i < n->cache.address_count; i++) {
		const struct net_address *x = &n->cache.addresses[i];

		if (x->ours && x->ifindex == ifindex &&
		    ip_equal(&x->address, a))
			return true;
	}
	return false;
}

int net_add_address(struct net *n, int ifindex, const struct ip *a)
{
	_Alignas(8) char buffer[256];
	const struct net_link *l = net_link(n, ifindex);
	struct nlmsghdr *h;
	int error;

	seam_change("net_add_address");
	if (!l)
		return -ENODEV;
	h = start_address(buffer, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
			  ifindex, a);
	mnl_attr_put_u8(h, IFA_PROTO, NET_ADDRESS_PROTO);
	if (a->family == AF_INET6)
		mark_v6(h);
	else
		mark_v4(h, l->name);
	error = netsock_ask(&n->ask, h, NULL, NULL);
	if (error != -EEXIST)
		return error;
	/* Ours, and the event (IPv6 sends it late) is on its way? */
	net_catch_up(n);
	if (!is_ours_at(n, ifindex, a))
		(void)net_refresh(n);
	return is_ours_at(n, ifindex, a) ? 0 : error;
}

int net_del_address(struct net *n, int ifindex, const struct ip *a)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h = start_address(buffer, RTM_DELADDR, 0, ifindex, a);

	seam_change("net_del_address");
	return netsock_ask(&n->ask, h, NULL, NULL);
}
