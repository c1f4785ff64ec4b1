/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <string.h>

#include "actual/netlink_priv.h"

/* From linux/netdev.h, which the headers of older kernels lack. */
#define NETDEV_CMD_DEV_GET 1
#define NETDEV_A_DEV_IFINDEX 1
#define NETDEV_A_DEV_XDP_FEATURES 3

static int on_group(const struct nlattr *group, void *arg)
{
	struct net_attributes a = net_nested(group);
	const struct nlattr *name = a.by[CTRL_ATTR_MCAST_GRP_NAME];
	const struct nlattr *id = a.by[CTRL_ATTR_MCAST_GRP_ID];

	if (name && id && strcmp(mnl_attr_get_str(name), "mgmt") == 0)
		*(uint32_t *)arg = mnl_attr_get_u32(id);
	return MNL_CB_OK;
}

static int on_family(const struct nlmsghdr *h, void *arg)
{
	struct net_attributes a = net_attributes(h, sizeof(struct genlmsghdr));
	struct netdev *d = arg;

	if (a.by[CTRL_ATTR_FAMILY_ID])
		d->family = mnl_attr_get_u16(a.by[CTRL_ATTR_FAMILY_ID]);
	if (a.by[CTRL_ATTR_MCAST_GROUPS])
		mnl_attr_parse_nested(a.by[CTRL_ATTR_MCAST_GROUPS], on_group,
				      &d->group);
	return MNL_CB_OK;
}

static struct nlmsghdr *start(char *buffer, uint16_t type, uint8_t command)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	struct genlmsghdr *g;

	h->nlmsg_type = type;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->cmd = command;
	g->version = 1;
	return h;
}

void netdev_open(struct netdev *d)
{
	_Alignas(8) char buffer[256];
	struct nlmsghdr *h;

	*d = (struct netdev){ 0 };
	if (netsock_open(&d->ask, NETLINK_GENERIC))
		return;
	h = start(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	mnl_attr_put_strz(h, CTRL_ATTR_FAMILY_NAME, "netdev");
	if (netsock_ask(&d->ask, h, on_family, d))
		netdev_close(d);
}

void netdev_close(struct netdev *d)
{
	netsock_close(&d->ask);
	d->family = 0;
}

struct reading {
	struct netcache *cache;
	bool changed;
};

static int on_device(const struct nlmsghdr *h, void *arg)
{
	struct net_attributes a = net_attributes(h, sizeof(struct genlmsghdr));
	const struct nlattr *ifindex = a.by[NETDEV_A_DEV_IFINDEX];
	const struct nlattr *features = a.by[NETDEV_A_DEV_XDP_FEATURES];
	struct reading *r = arg;

	if (ifindex && features &&
	    netcache_features(r->cache, (int)mnl_attr_get_u32(ifindex),
			      mnl_attr_get_u64(features)))
		r->changed = true;
	return MNL_CB_OK;
}

int netdev_ask(struct netdev *d, struct netcache *c, int ifindex)
{
	_Alignas(8) char buffer[256];
	struct reading r = { c, false };
	struct nlmsghdr *h;

	if (!d->family)
		return 0;
	h = start(buffer, d->family, NETDEV_CMD_DEV_GET);
	if (ifindex)
		mnl_attr_put_u32(h, NETDEV_A_DEV_IFINDEX, (uint32_t)ifindex);
	else
		h->nlmsg_flags |= NLM_F_DUMP;
	return netsock_ask(&d->ask, h, on_device, &r);
}

bool netdev_message(const struct netdev *d, struct netcache *c,
		    const struct nlmsghdr *h)
{
	struct reading r = { c, false };

	/* Notifications of devices (added, changed, deleted) are made as the
	 * answers are; those of anything else have no features in them. */
	if (h->nlmsg_type == d->family)
		on_device(h, &r);
	return r.changed;
}
