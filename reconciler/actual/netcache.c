/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "actual/netcache.h"

#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/*
 * The largest MTU with which every driver takes a program that wants each
 * packet in one piece: Intel's have buffers of 3 KiB, others of a page.
 */
#define XDP_MTU_MAX 3046
#define NUD_USABLE                                                           \
	(NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | \
	 NUD_NOARP)

void netcache_release(struct netcache *c)
{
	netmap_release(&c->links);
	netmap_release(&c->neighs);
	netmap_release(&c->fdb);
	free(c->addresses);
	*c = (struct netcache){ 0 };
}

const struct netcache_link *netcache_link(const struct netcache *c, int ifindex)
{
	struct netmap_key key = netmap_key(ifindex, NULL);

	return netmap_find(&c->links, &key);
}

static int collect(const struct nlattr *a, void *data)
{
	struct net_attributes *ret = data;

	if (mnl_attr_get_type(a) < NET_ATTRIBUTES)
		ret->by[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

struct net_attributes net_attributes(const struct nlmsghdr *h, size_t offset)
{
	struct net_attributes ret = { 0 };

	mnl_attr_parse(h, (unsigned int)offset, collect, &ret);
	return ret;
}

struct net_attributes net_nested(const struct nlattr *a)
{
	struct net_attributes ret = { 0 };

	mnl_attr_parse_nested(a, collect, &ret);
	return ret;
}

static bool get_mac(const struct nlattr *a, uint8_t ret[6])
{
	if (!a || mnl_attr_get_payload_len(a) != 6)
		return false;
	memcpy(ret, mnl_attr_get_payload(a), 6);
	return true;
}

static bool get_ip(const struct nlattr *a, int family, struct ip *ret)
{
	size_t size = family == AF_INET6 ? 16 : 4;

	if (!a || mnl_attr_get_payload_len(a) != size)
		return false;
	*ret = (struct ip){ .family = family };
	memcpy(ret->bytes, mnl_attr_get_payload(a), size);
	return true;
}

/* Strings of attributes may or may not end with a NUL. */
static void get_string(const struct nlattr *a, char *ret, size_t size)
{
	size_t len = a ? mnl_attr_get_payload_len(a) : 0;

	if (len >= size)
		len = size - 1;
	memset(ret, 0, size);
	if (len)
		memcpy(ret, mnl_attr_get_payload(a), len);
}

/* links */

static void get_vlan(const struct net_attributes *info, struct net_link *ret)
{
	const struct nlattr *proto = info->by[IFLA_VLAN_PROTOCOL];
	const struct nlattr *id = info->by[IFLA_VLAN_ID];

	if (id && (!proto || mnl_attr_get_u16(proto) == htons(ETH_P_8021Q)))
		ret->vlan = mnl_attr_get_u16(id);
}

static void get_kind(const struct net_attributes *link, struct net_link *ret)
{
	struct net_attributes info, data = { 0 };

	if (!link->by[IFLA_LINKINFO])
		return;
	info = net_nested(link->by[IFLA_LINKINFO]);
	get_string(info.by[IFLA_INFO_KIND], ret->kind, sizeof(ret->kind));
	if (info.by[IFLA_INFO_DATA])
		data = net_nested(info.by[IFLA_INFO_DATA]);
	ret->bridge = strcmp(ret->kind, "bridge") == 0;
	if (ret->bridge && data.by[IFLA_BR_VLAN_FILTERING])
		ret->vlan_filtering =
			mnl_attr_get_u8(data.by[IFLA_BR_VLAN_FILTERING]);
	if (strcmp(ret->kind, "vlan") != 0)
		return;
	get_vlan(&data, ret);
	if (link->by[IFLA_LINK] && !link->by[IFLA_LINK_NETNSID])
		ret->parent = (int)mnl_attr_get_u32(link->by[IFLA_LINK]);
}

static struct net_link parse_link(const struct nlmsghdr *h)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct net_attributes a = net_attributes(h, sizeof(*m));
	struct net_link l = { .ifindex = m->ifi_index };

	get_string(a.by[IFLA_IFNAME], l.name, sizeof(l.name));
	get_mac(a.by[IFLA_ADDRESS], l.mac);
	get_kind(&a, &l);
	if (a.by[IFLA_MTU])
		l.mtu = mnl_attr_get_u32(a.by[IFLA_MTU]);
	if (a.by[IFLA_MASTER])
		l.master = (int)mnl_attr_get_u32(a.by[IFLA_MASTER]);
	l.up = (m->ifi_flags & IFF_UP) && (m->ifi_flags & IFF_RUNNING);
	return l;
}

static bool same_link(const struct net_link *a, const struct net_link *b)
{
	return strcmp(a->name, b->name) == 0 &&
	       memcmp(a->mac, b->mac, 6) == 0 && a->mtu == b->mtu &&
	       a->up == b->up && a->master == b->master &&
	       a->parent == b->parent && a->vlan == b->vlan &&
	       a->vlan_filtering == b->vlan_filtering &&
	       strcmp(a->kind, b->kind) == 0;
}

static void apply_features(struct netcache_link *l)
{
	const uint64_t native = XDP_ACT_BASIC | XDP_ACT_REDIRECT;

	l->link.xdp_target = l->features & XDP_ACT_NDO_XMIT;
	l->link.xdp_native =
		(l->features & native) == native && l->link.mtu <= XDP_MTU_MAX;
}

static bool fdb_of_port(void *arg, struct netmap_node *node)
{
	return ((struct netcache_fdb *)node)->port == *(int *)arg;
}

static bool neigh_of_link(void *arg, struct netmap_node *node)
{
	return node->key.ifindex == *(int *)arg;
}

static unsigned int link_gone(struct netcache *c, int ifindex)
{
	struct netmap_key key = netmap_key(ifindex, NULL);

	netmap_remove_if(&c->fdb, fdb_of_port, &ifindex);
	netmap_remove_if(&c->fdb, neigh_of_link, &ifindex);
	netmap_remove_if(&c->neighs, neigh_of_link, &ifindex);
	return netmap_remove(&c->links, &key)
		       ? NETCACHE_CHANGED | NETCACHE_ROUTES
		       : 0;
}

static unsigned int link_message(struct netcache *c, const struct nlmsghdr *h)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct netmap_key key = netmap_key(m->ifi_index, NULL);
	struct net_link fresh;
	struct netcache_link *l;

	/* A bridge tells of its ports in a family of its own, "deleted" when a
	 * port leaves; the message of no family says the same and more. */
	if (m->ifi_family != AF_UNSPEC)
		return 0;
	if (h->nlmsg_type == RTM_DELLINK)
		return link_gone(c, m->ifi_index);
	fresh = parse_link(h);
	l = netmap_find(&c->links, &key);
	if (l && same_link(&l->link, &fresh))
		return 0;
	if (l) {
		if (l->link.master != fresh.master)
			netmap_remove_if(&c->fdb, fdb_of_port, &fresh.ifindex);
		l->link = fresh;
		apply_features(l);
		return NETCACHE_CHANGED | NETCACHE_ROUTES;
	}
	l = netmap_need(&c->links, &key, sizeof(*l));
	l->link = fresh;
	return NETCACHE_CHANGED | NETCACHE_ROUTES | NETCACHE_NEW_LINK;
}

bool netcache_features(struct netcache *c, int ifindex, uint64_t features)
{
	struct netmap_key key = netmap_key(ifindex, NULL);
	struct netcache_link *l = netmap_find(&c->links, &key);
	struct net_link before;

	if (!l)
		return false;
	before = l->link;
	l->features = features;
	apply_features(l);
	c->generation++;
	return before.xdp_target != l->link.xdp_target ||
	       before.xdp_native != l->link.xdp_native;
}

/* addresses */

static bool is_ours(const struct net_attributes *a)
{
	char label[IFNAMSIZ];
	size_t len;

	if (a->by[IFA_PROTO] &&
	    mnl_attr_get_u8(a->by[IFA_PROTO]) == NET_ADDRESS_PROTO)
		return true;
	get_string(a->by[IFA_LABEL], label, sizeof(label));
	len = strlen(label);
	return len >= strlen(NET_LABEL) &&
	       strcmp(label + len - strlen(NET_LABEL), NET_LABEL) == 0;
}

/* IFA_F_SECONDARY is a temporary address where it is IPv6. */
static bool is_source(const struct ifaddrmsg *m, const struct net_attributes *a)
{
	uint32_t flags = a->by[IFA_FLAGS] ? mnl_attr_get_u32(a->by[IFA_FLAGS])
					  : m->ifa_flags;

	return m->ifa_scope < RT_SCOPE_LINK &&
	       !(flags & (IFA_F_SECONDARY | IFA_F_TENTATIVE | IFA_F_DADFAILED |
			  IFA_F_DEPRECATED));
}

static struct net_address *find_address(const struct netcache *c,
					const struct net_address *x)
{
	for (size_t i = 0; i < c->address_count; i++) {
		struct net_address *a = &c->addresses[i];

		if (a->ifindex == x->ifindex && a->prefix == x->prefix &&
		    ip_equal(&a->address, &x->address))
			return a;
	}
	return NULL;
}

static unsigned int address_message(struct netcache *c,
				    const struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct net_attributes a = net_attributes(h, sizeof(*m));
	struct net_address x = { .prefix = m->ifa_prefixlen,
				 .ifindex = (int)m->ifa_index };
	struct net_address *old;

	/* IFA_ADDRESS is the other end where there is one. */
	if (!get_ip(a.by[IFA_LOCAL], m->ifa_family, &x.address) &&
	    !get_ip(a.by[IFA_ADDRESS], m->ifa_family, &x.address))
		return 0;
	x.ours = is_ours(&a);
	x.source = !x.ours && is_source(m, &a);
	old = find_address(c, &x);
	if (h->nlmsg_type == RTM_DELADDR) {
		if (!old)
			return 0;
		*old = c->addresses[--c->address_count];
	} else if (!old) {
		*(struct net_address *)MEM_PUSH(c->addresses,
						c->address_count) = x;
	} else if (old->ours != x.ours || old->source != x.source) {
		*old = x;
	} else {
		return 0;
	}
	return NETCACHE_CHANGED | NETCACHE_ROUTES;
}

/* neighbours, and the bridges' forwarding tables, which are told alike */

static unsigned int fdb_message(struct netcache *c, const struct nlmsghdr *h,
				const struct net_attributes *a)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct netmap_key key;
	struct netcache_fdb *f;
	uint8_t mac[6];
	bool same;

	/* Without a master it is the device's own filter, no bridge's table. */
	if (!a->by[NDA_MASTER] || !get_mac(a->by[NDA_LLADDR], mac))
		return 0;
	key = netmap_key_mac((int)mnl_attr_get_u32(a->by[NDA_MASTER]), mac);
	f = netmap_find(&c->fdb, &key);
	if (h->nlmsg_type == RTM_DELNEIGH) {
		if (f && f->port == m->ndm_ifindex)
			f->aged = true;
		return 0;
	}
	same = f && f->port == m->ndm_ifindex;
	f = netmap_need(&c->fdb, &key, sizeof(*f));
	f->port = m->ndm_ifindex;
	f->aged = false;
	return same ? 0 : NETCACHE_CHANGED;
}

static unsigned int neigh_message(struct netcache *c, const struct nlmsghdr *h)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct net_attributes a = net_attributes(h, sizeof(*m));
	struct netcache_neigh *n;
	struct netmap_key key;
	uint8_t mac[6];
	struct ip to;
	bool same;

	if (m->ndm_family == AF_BRIDGE)
		return fdb_message(c, h, &a);
	if ((m->ndm_flags & NTF_PROXY) ||
	    (m->ndm_family != AF_INET && m->ndm_family != AF_INET6) ||
	    !get_ip(a.by[NDA_DST], m->ndm_family, &to))
		return 0;
	key = netmap_key(m->ndm_ifindex, &to);
	if (h->nlmsg_type == RTM_DELNEIGH || !(m->ndm_state & NUD_USABLE) ||
	    !get_mac(a.by[NDA_LLADDR], mac))
		return netmap_remove(&c->neighs, &key) ? NETCACHE_CHANGED : 0;
	n = netmap_find(&c->neighs, &key);
	same = n && memcmp(n->mac, mac, 6) == 0;
	n = netmap_need(&c->neighs, &key, sizeof(*n));
	memcpy(n->mac, mac, 6);
	n->state = m->ndm_state;
	return same ? 0 : NETCACHE_CHANGED;
}

/* What may have been a filter of ours; qdiscs that send are nobody's concern. */
static unsigned int ingress_message(const struct nlmsghdr *h)
{
	const struct tcmsg *m = mnl_nlmsg_get_payload(h);

	return TC_H_MAJ(m->tcm_parent) == TC_H_MAJ(TC_H_CLSACT) &&
			       m->tcm_parent != TC_H_ROOT
		       ? NETCACHE_CHANGED
		       : 0;
}

static unsigned int take_message(struct netcache *c, const struct nlmsghdr *h)
{
	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return link_message(c, h);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return address_message(c, h);
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		return neigh_message(c, h);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
	case RTM_NEWRULE:
	case RTM_DELRULE:
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		return NETCACHE_ROUTES;
	case RTM_NEWNETCONF: /* forwarding, say; what it is is read anew */
		return NETCACHE_CHANGED;
	case RTM_DELTFILTER:
	case RTM_DELQDISC:
		return ingress_message(h);
	default:
		return 0;
	}
}

unsigned int netcache_message(struct netcache *c, const struct nlmsghdr *h)
{
	unsigned int did = take_message(c, h);

	/* A link that is gone takes more with it than itself. */
	if (did || h->nlmsg_type == RTM_DELLINK)
		c->generation++;
	return did;
}
