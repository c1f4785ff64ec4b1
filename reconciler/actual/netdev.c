/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "actual/netlink_priv.h"
#include "base/mem.h"

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

/*
 * What kernels before 6.3 don't say.  A driver whose support depends on more
 * (bonds: on their ports) is left out; tc serves there, too.
 */
static const char *const native_drivers[] = {
	"bnxt_en",    "cpsw",	 "ena",	    "fsl_dpaa2_eth", "fsl_enetc",
	"hv_netvsc",  "i40e",	 "ice",	    "igb",	     "igc",
	"ixgbe",      "ixgbevf", "mlx4_en", "mlx5_core",     "mvneta",
	"mvpp2",      "nfp",	 "nicvf",   "qede",	     "sfc",
	"st_gmac",    "stmmac",	 "tun",	    "veth",	     "vif",
	"virtio_net",
};

static bool is_native_driver(const char *ifname)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq request = { .ifr_data = (char *)&info };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool found = false;

	if (fd < 0)
		return false;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCETHTOOL, &request) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(native_drivers); i++)
			found |= !strcmp(info.driver, native_drivers[i]);
	close(fd);
	return found;
}

/* Frames go into a tap at any time, into a veth only while its peer has GRO
 * or a program: so that isn't counted on. */
uint64_t netdev_guess(const struct net_link *l)
{
	uint64_t features = 0;

	if (is_native_driver(l->name))
		features |= XDP_ACT_BASIC | XDP_ACT_REDIRECT;
	if (strcmp(l->kind, "tun") == 0)
		features |= XDP_ACT_NDO_XMIT;
	return features;
}

static void guess(struct netcache *c, int ifindex)
{
	const struct netcache_link *l = NULL;

	while ((l = netmap_next(&c->links, l)))
		if (!ifindex || l->link.ifindex == ifindex)
			netcache_features(c, l->link.ifindex,
					  netdev_guess(&l->link));
}

int netdev_ask(struct netdev *d, struct netcache *c, int ifindex)
{
	_Alignas(8) char buffer[256];
	struct reading r = { c, false };
	struct nlmsghdr *h;

	if (!d->family) {
		guess(c, ifindex);
		return 0;
	}
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
