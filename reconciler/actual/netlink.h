/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's network: links, addresses, routes, neighbours, the bridges'
 * forwarding tables, sysctls.  A cache kept fresh by netlink events; lookups
 * never block.
 */
#ifndef ACTUAL_NETLINK_H
#define ACTUAL_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"
#include "desired/model.h"
#include "loop.h"

struct net;

/*
 * Reads everything once and subscribes.  changed(arg) runs on the loop after
 * a batch of events that altered the cache.  l NULL: one snapshot, no events.
 */
int net_open(struct loop *l, loop_fn changed, void *arg, struct net **ret);
void net_close(struct net *n);
int net_refresh(struct net *n); /* dump all again; 0 or -errno */
/* Takes in the events that wait to be read, such as of what was just done. */
void net_catch_up(struct net *n);

struct net_link {
	int ifindex;
	char name[16];
	uint8_t mac[6];
	uint32_t mtu;
	bool up;
	int master; /* ifindex of its bridge, 0: none */
	bool bridge; /* is a bridge itself */
	bool vlan_filtering; /* a bridge whose ports are in VLANs */
	char kind[16]; /* "veth", "tun", "bridge", "vlan", ""... */
	int parent; /* of a VLAN device, 0: in another namespace */
	uint16_t vlan; /* 802.1Q id of a VLAN device; 0: isn't one */
	bool xdp_target; /* takes frames redirected by native XDP */
	bool xdp_native; /* runs native XDP programs, at the MTU it has */
};
/* NULL: none such.  Pointers are good until the loop runs again. */
const struct net_link *net_link(const struct net *n, int ifindex);
const struct net_link *net_link_by_name(const struct net *n, const char *name);

void net_links(const struct net *n,
	       void (*fn)(void *arg, const struct net_link *l), void *arg);

/* Addresses of this host: fn for each. */
struct net_address {
	struct ip address;
	int prefix;
	int ifindex;
	bool ours; /* put there by xlb */
	bool source; /* one that the kernel itself would send from */
};
void net_addresses(const struct net *n,
		   void (*fn)(void *arg, const struct net_address *a),
		   void *arg);
const struct net_address *net_find_address(const struct net *n,
					   const struct ip *a);
/*
 * This host's own address of that family, to send from: of the interface
 * (usually the uplink), else of any other; never a VIP of ours, and of global
 * scope.  false: there is none.
 */
bool net_source(const struct net *n, int ifindex, int family, struct ip *ret);

/* net_link.xdp_native, asked of the kernel now; false also on failure. */
bool net_native(int ifindex);

/*
 * How a packet to `to` leaves this host now: the route's interface, the next
 * hop's MAC, and, behind a bridge, the port.  known == false: not resolved
 * yet; net_resolve() starts that, and changed() tells.
 *
 * XDP can't redirect to a VLAN device, so where the route or the bridge's table
 * names one, the port is its parent (or the port of a bridge that this
 * is), and vlan is the tag to put on the frame.  Tags in tags, 802.1ad and
 * VLAN devices on bridges that filter VLANs aren't looked through: then the
 * port is the VLAN device itself, which is no xdp_target, and vlan is 0.
 */
struct net_path {
	bool known;
	int route_ifindex; /* where the route points: bridge or device */
	int port_ifindex; /* where the frame goes: bridge port, or the same */
	uint16_t vlan; /* the tag it must have; 0: none */
	uint8_t dst_mac[6];
	uint8_t src_mac[6];
	uint16_t mtu;
	bool on_link; /* no gateway between */
	bool stack; /* the port takes no redirected frames */
};
/*
 * 0, also when not known; else -errno: -EADDRNOTAVAIL an address of this very
 * host, -ENETUNREACH no route, -EHOSTUNREACH a route that refuses.
 */
int net_path(const struct net *n, const struct ip *to, struct net_path *ret);
/*
 * Ask the kernel to resolve the neighbour of `to` (no packet of ours waits).
 * Each call asks at once, though an earlier question is still open: pace it.
 * Nothing happens when the path is known.  0 or -errno as of net_path().
 */
int net_resolve(struct net *n, const struct ip *to);
/*
 * To be called now and then (each resync) for every address that packets are
 * sent to.  They bypass the kernel, which therefore takes the next hop for
 * unused: an entry of its neighbour table that has become stale is probed, one
 * that is gone or failed is asked for.  One that is fresh, or being asked for,
 * costs nothing; so does the second address behind the same gateway.  0 or
 * -errno as of net_path().
 */
int net_keep(struct net *n, const struct ip *to);

/*
 * Tell the kernel the MAC behind an address on one of our links, where that is
 * known (a guest's, from libvirt): its first packet then waits for no answer.
 * What the kernel has found out itself stays.  -ENOTUNIQ: not on a link.
 */
int net_learn(struct net *n, const struct ip *to, const uint8_t mac[6]);

/*
 * VIPs on an interface: marked as ours, IPv6 nodad and preferred_lft 0.
 * Adding what is there and ours is fine; somebody else's is -EEXIST.  Deleting
 * what isn't there is -EADDRNOTAVAIL.
 */
int net_add_address(struct net *n, int ifindex, const struct ip *a);
int net_del_address(struct net *n, int ifindex, const struct ip *a);
/* Gratuitous ARP, or unsolicited neighbour advertisement, for a VIP. */
int net_announce(struct net *n, int ifindex, const struct ip *a);

/* /proc/sys access; name as "net/ipv4/ip_forward". 0 or -errno. */
int sysctl_read(const char *name, char *ret, size_t size);
int sysctl_write(const char *name, const char *value);

#endif
