/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache and lookups against the kernel, in namespaces of the test's own:
 * this process is the balancer, two children hold the other ends.
 *   up0 -- eth0 (peer, a router)      br0: p1 -- vm0 (guest), tap0
 */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actual/netlink.h"
#include "actual/netlink_priv.h"
#include "base/buf.h"
#include "tests/lib/shell.h"

#define LIMIT (10 * NS_PER_S)

static struct loop *loop;
static struct loop_source *timer;
static struct net *net;
static unsigned int changes;
static pid_t peer, guest;

static struct ip ip(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

static int ifindex(const char *name)
{
	const struct net_link *l = net_link_by_name(net, name);

	return l ? l->ifindex : 0;
}

static void on_changed(void *arg)
{
	(void)arg;
	changes++;
	loop_stop(loop);
}

static void on_time(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

/* Events until `is` says so; fails when none comes that makes it so. */
static void await(bool (*is)(const void *arg), const void *arg)
{
	loop_arm_in(timer, LIMIT);
	while (!is(arg)) {
		loop_run(loop);
		if (!loop_armed(timer))
			fail_msg("no event made it so");
	}
}

/* What a path should be; port NULL: not known. */
struct expected {
	const char *to, *route, *port, *dst, *src;
	uint16_t mtu;
	bool on_link;
};

static bool mac_is(const uint8_t mac[6], const char *text)
{
	char have[18];

	snprintf(have, sizeof(have), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0],
		 mac[1], mac[2], mac[3], mac[4], mac[5]);
	return strcmp(have, text) == 0;
}

/* What is remembered is what would be found. */
static int same_path(const struct ip *to, struct net_path *ret)
{
	struct net_path again;
	int error = net_path(net, to, ret);

	net->cache.generation++;
	assert_int_equal(net_path(net, to, &again), error);
	assert_memory_equal(&again, ret, sizeof(again));
	return error;
}

static bool path_matches(const struct expected *e, uint16_t vlan)
{
	struct ip to = ip(e->to);
	struct net_path p;

	if (same_path(&to, &p))
		return false;
	if (!e->port)
		return !p.known && p.route_ifindex == ifindex(e->route);
	return p.known && p.route_ifindex == ifindex(e->route) &&
	       p.port_ifindex == ifindex(e->port) &&
	       mac_is(p.dst_mac, e->dst) && mac_is(p.src_mac, e->src) &&
	       p.mtu == e->mtu && p.on_link == e->on_link && p.vlan == vlan;
}

static bool path_is(const void *arg)
{
	return path_matches(arg, 0);
}

static void resolve(const char *to)
{
	struct ip a = ip(to);

	assert_int_equal(net_resolve(net, &a), 0);
}

static int path_error(const char *to)
{
	struct ip a = ip(to);
	struct net_path p;

	return same_path(&a, &p);
}

static pid_t namespace_of_its_own(void)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void in(pid_t who, const char *command)
{
	sh("nsenter --net=/proc/%d/ns/net sh -c '%s'", who, command);
}

static void plug_guest(const char *port)
{
	sh("ip link add %s type veth peer name vm0 netns %d", port, guest);
	sh("ip link set %s master br0 up", port);
	in(guest, "ip link set vm0 address 02:00:00:00:00:22;"
		  "echo 0 > /proc/sys/net/ipv6/conf/vm0/accept_dad;"
		  "ip link set vm0 up; ip address add 10.2.0.2/24 dev vm0;"
		  "ip address add fd02::2/64 dev vm0 nodad");
}

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET)) {
		print_message("# needs root\n");
		return -1;
	}
	peer = namespace_of_its_own();
	guest = namespace_of_its_own();
	sh("ip link set lo up;"
	   "ip link add up0 type veth peer name eth0 netns %d;"
	   "ip link set up0 address 02:00:00:00:00:01;"
	   "ip link add br0 address 02:00:00:00:00:21 type bridge;"
	   "ip link set up0 up; ip link set br0 up",
	   peer);
	sh("ip address add 10.1.0.1/24 dev up0;"
	   "ip address add fd01::1/64 dev up0 nodad;"
	   "ip address add 10.2.0.1/24 dev br0;"
	   "ip address add fd02::1/64 dev br0 nodad");
	in(peer, "ip link set eth0 address 02:00:00:00:00:02;"
		 "ip link set eth0 up; ip address add 10.1.0.2/24 dev eth0;"
		 "ip address add fd01::2/64 dev eth0 nodad");
	sh("ip route add 10.50.0.0/16 via 10.1.0.2 mtu 1400;"
	   "ip route add fd50::/16 via fd01::2;"
	   "ip route add 10.7.0.0/16 dev up0;"
	   "ip route add unreachable 10.66.0.0/16");
	plug_guest("p1");
	if (loop_new(&loop) || net_open(loop, on_changed, NULL, &net))
		return -1;
	timer = loop_add_timer(loop, on_time, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	net_close(net);
	loop_remove(timer);
	loop_free(loop);
	kill(peer, SIGKILL);
	kill(guest, SIGKILL);
	waitpid(peer, NULL, 0);
	waitpid(guest, NULL, 0);
	return 0;
}

#define PEER "02:00:00:00:00:02"
#define UP0 "02:00:00:00:00:01"
#define GUEST "02:00:00:00:00:22"
#define BR0 "02:00:00:00:00:21"

static void test_links(void **state)
{
	const struct net_link *l;

	(void)state;
	l = net_link_by_name(net, "up0");
	assert_non_null(l);
	assert_ptr_equal(net_link(net, l->ifindex), l);
	assert_string_equal(l->kind, "veth");
	assert_true(mac_is(l->mac, UP0));
	assert_int_equal(l->mtu, 1500);
	assert_true(l->up);
	l = net_link_by_name(net, "br0");
	assert_true(l->bridge);
	assert_false(l->xdp_target);
	assert_int_equal(net_link_by_name(net, "p1")->master, l->ifindex);
	assert_null(net_link_by_name(net, "nothing"));
}

static void test_path_direct(void **state)
{
	static const struct expected v4 = { "10.1.0.2", "up0", "up0", PEER,
					    UP0,	1500,  true };
	static const struct expected v6 = { "fd01::2", "up0", "up0", PEER,
					    UP0,       1500,  true };
	static const struct expected none = { .to = "10.1.0.2",
					      .route = "up0" };

	(void)state;
	assert_true(path_is(&none));
	resolve("10.1.0.2");
	await(path_is, &v4);
	resolve("fd01::2");
	await(path_is, &v6);
	resolve("10.1.0.2"); /* known already: nothing to do */
}

static void test_path_through_gateway(void **state)
{
	static const struct expected v4 = { "10.50.3.4", "up0", "up0", PEER,
					    UP0,	 1400,	false };
	static const struct expected v6 = { "fd50::9", "up0", "up0", PEER,
					    UP0,       1500,  false };

	(void)state;
	sh("ip neigh flush dev up0");
	resolve("10.50.3.4");
	await(path_is, &v4);
	resolve("fd50::9");
	await(path_is, &v6);
}

static void test_path_to_bridge_port(void **state)
{
	static const struct expected v4 = { "10.2.0.2", "br0", "p1", GUEST,
					    BR0,	1500,  true };
	static const struct expected v6 = { "fd02::2", "br0", "p1", GUEST,
					    BR0,       1500,  true };
	static const struct expected low = { "10.2.0.2", "br0", "p1", GUEST,
					     BR0,	 1300,	true };

	(void)state;
	resolve("10.2.0.2");
	await(path_is, &v4);
	resolve("fd02::2");
	await(path_is, &v6);
	sh("ip link set p1 mtu 1300");
	await(path_is, &low);
	sh("ip link set p1 mtu 1500");
	await(path_is, &v4);
}

/* A guest that is silent for minutes is still where it was. */
static void test_forwarding_entry_ages(void **state)
{
	static const struct expected at = { "10.2.0.2", "br0", "p1", GUEST,
					    BR0,	1500,  true };
	static const struct expected moved = { "10.2.0.2", "br0", "tap0", GUEST,
					       BR0,	   1500,  true };
	static const struct expected none = { .to = "10.2.0.2",
					      .route = "br0" };

	(void)state;
	sh("ip tuntap add tap0 mode tap; ip link set tap0 master br0 up");
	sh("bridge fdb del " GUEST " dev p1 master");
	sh("ip link set lo down; ip link set lo up"); /* a later event */
	changes = 0;
	await(path_is, &at);
	while (!changes)
		loop_run(loop);
	assert_true(path_is(&at));
	sh("bridge fdb add " GUEST " dev tap0 master");
	await(path_is, &moved);
	assert_true(net_link_by_name(net, "tap0")->xdp_target);
	/* With the port goes what was behind it. */
	sh("ip link del tap0");
	await(path_is, &none);
	assert_null(net_link_by_name(net, "tap0"));
	/* Its MAC is known, so asking means probing: an answer is learned. */
	resolve("10.2.0.2");
	await(path_is, &at);
}

static void test_errors(void **state)
{
	(void)state;
	assert_int_equal(path_error("10.1.0.1"), -EADDRNOTAVAIL);
	assert_int_equal(path_error("fd02::1"), -EADDRNOTAVAIL);
	assert_int_equal(path_error("10.66.1.1"), -EHOSTUNREACH);
	assert_int_equal(path_error("192.0.2.1"), -ENETUNREACH);
	assert_int_equal(path_error("2001:db8::1"), -ENETUNREACH);
}

static void test_neighbour_changes(void **state)
{
	static const struct expected other = {
		"10.1.0.2", "up0", "up0", "02:00:00:00:00:99", UP0, 1500, true
	};
	static const struct expected none = { .to = "10.1.0.2",
					      .route = "up0" };

	(void)state;
	sh("ip neigh replace 10.1.0.2 lladdr 02:00:00:00:00:99 dev up0");
	await(path_is, &other);
	sh("ip neigh del 10.1.0.2 dev up0");
	await(path_is, &none);
}

/* Routes are remembered, but no longer than they are true. */
static void test_route_changes(void **state)
{
	static const struct expected before = { .to = "10.50.3.4",
						.route = "up0" };
	static const struct expected after = { "10.50.3.4", "br0", "p1", GUEST,
					       BR0,	    1500,  false };

	(void)state;
	assert_true(path_is(&before));
	sh("ip route add 10.50.3.0/24 via 10.2.0.2");
	await(path_is, &after);
	sh("ip route del 10.50.3.0/24");
	await(path_is, &before);
	sh("ip rule add to 10.50.3.4 blackhole");
	loop_arm_in(timer, LIMIT);
	while (path_error("10.50.3.4") == 0 && loop_armed(timer))
		loop_run(loop);
	assert_true(path_error("10.50.3.4") < 0);
	sh("ip rule del to 10.50.3.4 blackhole");
	await(path_is, &before);
}

/* Asking again asks at once, also while an earlier question is open. */
static void test_resolve_a_late_machine(void **state)
{
	static const struct expected late = { "10.2.0.9", "br0", "p1", GUEST,
					      BR0,	  1500,	 true };

	(void)state;
	/* The kernel on its own would ask again in an hour. */
	assert_int_equal(sysctl_write("net/ipv4/neigh/br0/retrans_time_ms",
				      "3600000"),
			 0);
	resolve("10.2.0.9");
	loop_arm_in(timer, 30 * NS_PER_MS);
	while (loop_armed(timer))
		loop_run(loop);
	in(guest, "ip address add 10.2.0.9/24 dev vm0");
	resolve("10.2.0.9");
	await(path_is, &late);
	assert_int_equal(
		sysctl_write("net/ipv4/neigh/br0/retrans_time_ms", "1000"), 0);
}

/* A guest whose MAC is known before it runs: asked for nothing. */
static void test_learn(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 0x22 };
	static const uint8_t wrong[6] = { 2, 0, 0, 0, 0, 0x23 };
	static const struct expected v4 = { "10.2.0.33", "br0", "p1", GUEST,
					    BR0,	 1500,	true };
	static const struct expected v6 = { "fd02::33", "br0", "p1", GUEST,
					    BR0,	1500,  true };
	struct ip a = ip("10.2.0.33"), b = ip("fd02::33");
	struct ip far = ip("10.50.3.4"), own = ip("10.1.0.1");

	(void)state;
	/* Also while the kernel is asking in vain. */
	resolve("10.2.0.33");
	assert_int_equal(net_learn(net, &a, mac), 0);
	assert_int_equal(net_learn(net, &b, mac), 0);
	await(path_is, &v4);
	await(path_is, &v6);
	assert_int_equal(net_learn(net, &a, wrong), 0);
	assert_true(says("ip neigh show 10.2.0.33", GUEST));
	assert_int_equal(net_learn(net, &far, mac), -ENOTUNIQ);
	assert_int_equal(net_learn(net, &own, mac), -EADDRNOTAVAIL);
}

static void test_port_is_replaced(void **state)
{
	static const struct expected none = { .to = "10.2.0.2",
					      .route = "br0" };
	static const struct expected after = { "10.2.0.2", "br0", "p2", GUEST,
					       BR0,	   1500,  true };

	(void)state;
	sh("ip link del p1");
	await(path_is, &none);
	plug_guest("p2");
	resolve("10.2.0.2");
	await(path_is, &after);
}

static bool has_ours(const void *arg)
{
	struct ip a = ip(arg);
	const struct net_address *x = net_find_address(net, &a);

	return x && x->ours && x->prefix == ip_bits(&a);
}

static bool has_not(const void *arg)
{
	struct ip a = ip(arg);

	return !net_find_address(net, &a);
}

static void test_vips(void **state)
{
	struct ip v4 = ip("192.0.2.10"), v6 = ip("2001:db8::10");
	struct ip mine = ip("10.1.0.1");
	int up0 = ifindex("up0");

	(void)state;
	assert_false(net_find_address(net, &mine)->ours);
	assert_int_equal(net_add_address(net, up0, &v4), 0);
	assert_int_equal(net_add_address(net, up0, &v6), 0);
	await(has_ours, "192.0.2.10");
	await(has_ours, "2001:db8::10");
	assert_int_equal(net_add_address(net, up0, &v4), 0);
	assert_int_equal(net_add_address(net, up0, &v6), 0);
	assert_true(says("ip -4 address show dev up0", "192.0.2.10/32"));
	assert_true(says("ip -4 address show dev up0", "up0:xlb"));
	/* Deprecated at once, for ever, and without duplicate detection. */
	assert_true(says("ip -6 address show dev up0 deprecated",
			 "2001:db8::10/128 scope global nodad deprecated "
			 "noprefixroute"));
	assert_true(says("ip -6 address show dev up0 deprecated",
			 "valid_lft forever preferred_lft 0sec"));
	assert_true(says("ip route get fd01::2", "src fd01::1"));
	assert_int_equal(net_del_address(net, up0, &v4), 0);
	assert_int_equal(net_del_address(net, up0, &v6), 0);
	await(has_not, "192.0.2.10");
	await(has_not, "2001:db8::10");
	assert_int_equal(net_del_address(net, up0, &v4), -EADDRNOTAVAIL);
	/* Somebody else's is neither taken over nor taken for ours. */
	sh("ip address add 192.0.2.10/32 dev up0");
	assert_int_equal(net_add_address(net, up0, &v4), -EEXIST);
	sh("ip address del 192.0.2.10/32 dev up0");
}

static bool link_exists(const void *arg)
{
	return net_link_by_name(net, arg);
}

static void test_long_interface_name(void **state)
{
	struct ip v4 = ip("192.0.2.11");

	(void)state;
	sh("ip link add averylongname01 type bridge");
	await(link_exists, "averylongname01");
	assert_int_equal(net_add_address(net, ifindex("averylongname01"), &v4),
			 0);
	await(has_ours, "192.0.2.11");
	sh("ip link del averylongname01");
	await(has_not, "192.0.2.11");
}

static bool kernel_is_before(long major, long minor)
{
	struct utsname u;
	char *end;
	long have;

	assert_int_equal(uname(&u), 0);
	have = strtol(u.release, &end, 10);
	return have < major ||
	       (have == major && strtol(end + 1, NULL, 10) < minor);
}

static bool takes_xdp(const void *arg)
{
	return net_link_by_name(net, "up0")->xdp_target == *(const bool *)arg;
}

static void test_xdp_target_follows_the_peer(void **state)
{
	const bool yes = true, no = false;

	(void)state;
	if (kernel_is_before(6, 3)) {
		print_message("# the kernel doesn't tell before 6.3\n");
		skip();
	}
	in(peer, "ethtool -K eth0 gro on");
	await(takes_xdp, &yes);
	in(peer, "ethtool -K eth0 gro off");
	await(takes_xdp, &no);
	in(peer, "ethtool -K eth0 gro on");
	await(takes_xdp, &yes);
	in(peer, "ethtool -K eth0 gro off");
	await(takes_xdp, &no);
}

/* What link_says() tells: as the kernel would of such a device. */
struct told {
	const char *name, *kind;
	const char *parent; /* NULL: in another namespace */
	uint16_t vlan, proto;
	bool filters; /* a bridge */
	const char *master;
};

/* A message of the kernel's, made by hand: it may have no such devices. */
static void link_says(const struct told *t)
{
	_Alignas(8) char buffer[512];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	const struct net_link *l = net_link_by_name(net, t->name);
	struct nlattr *info, *data;
	struct ifinfomsg *m;

	assert_non_null(l);
	h->nlmsg_type = RTM_NEWLINK;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifi_index = l->ifindex;
	m->ifi_flags = IFF_UP | IFF_RUNNING;
	mnl_attr_put_strz(h, IFLA_IFNAME, t->name);
	mnl_attr_put(h, IFLA_ADDRESS, 6, l->mac);
	mnl_attr_put_u32(h, IFLA_MTU, l->mtu);
	if (t->master)
		mnl_attr_put_u32(h, IFLA_MASTER, (uint32_t)ifindex(t->master));
	mnl_attr_put_u32(h, IFLA_LINK,
			 t->parent ? (uint32_t)ifindex(t->parent) : 1);
	if (!t->parent)
		mnl_attr_put_u32(h, IFLA_LINK_NETNSID, 0);
	info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, t->kind);
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	if (t->vlan) {
		mnl_attr_put_u16(h, IFLA_VLAN_ID, t->vlan);
		mnl_attr_put_u16(h, IFLA_VLAN_PROTOCOL, htons(t->proto));
	} else {
		mnl_attr_put_u8(h, IFLA_BR_VLAN_FILTERING, t->filters);
	}
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	assert_int_equal(netcache_message(&net->cache, h),
			 NETCACHE_CHANGED | NETCACHE_ROUTES);
}

static bool path_is_tagged(const void *arg)
{
	return path_matches(arg, 7);
}

static void test_path_by_vlan(void **state)
{
	struct told told = { .name = "up0",
			     .kind = "vlan",
			     .parent = "wire0",
			     .vlan = 7,
			     .proto = 0x8100 };
	struct expected direct = { "10.1.0.2", "up0", "wire0", PEER,
				   UP0,	       1400,  true };
	struct expected gateway = { "10.50.3.4", "up0", "wire0", PEER,
				    UP0,	 1400,	false };
	/* The device itself: the host's stack has to send it. */
	struct expected by_stack = { "10.1.0.2", "up0", "up0", PEER,
				     UP0,	 1500,	true };

	(void)state;
	sh("ip link add wire0 mtu 1400 type veth peer name wire1");
	assert_int_equal(net_refresh(net), 0);
	resolve("10.1.0.2");
	await(path_is, &(struct expected){ "10.1.0.2", "up0", "up0", PEER, UP0,
					   1500, true });
	link_says(&told);
	assert_int_equal(net_link_by_name(net, "up0")->vlan, 7);
	assert_int_equal(net_link_by_name(net, "up0")->parent,
			 ifindex("wire0"));
	assert_true(path_matches(&direct, 7));
	assert_true(path_matches(&gateway, 7));
	told.proto = 0x88a8;
	link_says(&told);
	assert_true(path_is(&by_stack));
	told.proto = 0x8100;
	told.parent = NULL;
	link_says(&told);
	assert_true(path_is(&by_stack));
	/* A tag in a tag. */
	told.parent = "wire0";
	link_says(&told);
	assert_true(path_matches(&direct, 7));
	link_says(&(struct told){ .name = "wire0",
				  .kind = "vlan",
				  .parent = "p2",
				  .vlan = 8,
				  .proto = 0x8100 });
	assert_true(path_is(&by_stack));
	sh("ip link del wire0");
	assert_int_equal(net_refresh(net), 0);
}

/* A VLAN device on a bridge, and one that is a bridge's port. */
static void test_path_by_vlan_and_bridge(void **state)
{
	struct told told = { .name = "up0",
			     .kind = "vlan",
			     .parent = "br0",
			     .vlan = 7,
			     .proto = 0x8100 };
	static const struct expected on_bridge = { "10.1.0.2", "up0", "p2",
						   PEER,       UP0,   1500,
						   true };
	static const struct expected by_stack = { "10.1.0.2", "up0", "up0",
						  PEER,	      UP0,   1500,
						  true };
	static const struct expected none = { .to = "10.1.0.2",
					      .route = "up0" };
	static const struct expected port = { "10.2.0.2", "br0", "up0", GUEST,
					      BR0,	  1500,	 true };

	(void)state;
	resolve("10.1.0.2");
	await(path_is, &by_stack);
	resolve("10.2.0.2");
	link_says(&told);
	assert_true(path_is(&none));
	sh("bridge fdb add " PEER " dev p2 master");
	await(path_is_tagged, &on_bridge);
	link_says(&(struct told){ .name = "br0",
				  .kind = "bridge",
				  .parent = "br0",
				  .filters = true });
	assert_true(path_is(&by_stack));
	sh("bridge fdb del " PEER " dev p2 master");
	assert_int_equal(net_refresh(net), 0);
	await(path_is, &(struct expected){ "10.2.0.2", "br0", "p2", GUEST, BR0,
					   1500, true });
	told = (struct told){ .name = "p2",
			      .kind = "vlan",
			      .parent = "up0",
			      .vlan = 7,
			      .proto = 0x8100,
			      .master = "br0" };
	link_says(&told);
	assert_true(path_matches(&port, 7));
	assert_int_equal(net_refresh(net), 0);
}

/* The same with the kernel's own messages, where it has such devices. */
static void test_vlan_device(void **state)
{
	const struct net_link *l;

	(void)state;
	if (system("ip link add v7 link up0 type vlan id 7 2>/dev/null")) {
		print_message("# this kernel has no VLAN devices\n");
		skip();
	}
	assert_int_equal(net_refresh(net), 0);
	l = net_link_by_name(net, "v7");
	assert_non_null(l);
	assert_int_equal(l->vlan, 7);
	assert_int_equal(l->parent, ifindex("up0"));
	assert_false(l->xdp_native);
	sh("ip link del v7");
	assert_int_equal(net_refresh(net), 0);
}

static bool neighbour_is(const void *arg)
{
	struct ip a = ip("10.1.0.2");
	struct netmap_key key = netmap_key(ifindex("up0"), &a);
	const struct netcache_neigh *n = netmap_find(&net->cache.neighs, &key);

	return n && n->state == *(const uint16_t *)arg;
}

static bool path_unknown(const void *arg)
{
	struct ip to = ip(arg);
	struct net_path p;

	return same_path(&to, &p) == 0 && !p.known;
}

static void keep(const char *to)
{
	struct ip a = ip(to);

	assert_int_equal(net_keep(net, &a), 0);
}

/* Requests for the peer's address that came out of up0. */
static unsigned int requests(int fd)
{
	unsigned char frame[128];
	unsigned int count = 0;
	ssize_t n;

	while ((n = recv(fd, frame, sizeof(frame), MSG_DONTWAIT)) > 0)
		count += n >= 42 && frame[21] == 1 &&
			 !memcmp(frame + 38, "\12\1\0\2", 4);
	return count;
}

static int listen_for_arp(void)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = ifindex("up0") };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static void test_keep(void **state)
{
	static const struct expected at = { "10.1.0.2", "up0", "up0", PEER,
					    UP0,	1500,  true };
	static const struct expected far = { "10.50.3.4", "up0", "up0", PEER,
					     UP0,	  1400,	 false };
	const uint16_t reachable = NUD_REACHABLE, stale = NUD_STALE;
	struct ip own = ip("10.1.0.1");
	int fd = listen_for_arp();

	(void)state;
	/* The kernel on its own would ask again in an hour. */
	assert_int_equal(sysctl_write("net/ipv4/neigh/up0/retrans_time_ms",
				      "3600000"),
			 0);
	/* Gone: asked for, by a backend behind it or by itself. */
	sh("ip neigh flush dev up0");
	await(path_unknown, "10.50.3.4");
	keep("10.50.3.4");
	await(path_is, &far);
	await(path_is, &at);
	await(neighbour_is, &reachable);
	assert_int_equal(requests(fd), 1);
	/* Fresh: nothing is asked, however often it is called. */
	for (int i = 0; i < 10; i++)
		keep("10.1.0.2");
	/* Stale: asked once for all that are behind it; it stays known. */
	sh("ip neigh replace 10.1.0.2 lladdr " PEER " dev up0 nud stale");
	await(neighbour_is, &stale);
	assert_int_equal(requests(fd), 0);
	for (int i = 0; i < 10; i++) {
		keep("10.1.0.2");
		keep("10.50.3.4");
	}
	assert_true(path_is(&at));
	await(neighbour_is, &reachable);
	assert_int_equal(requests(fd), 1);
	/* Nobody there: asked for, and not once more while that goes on. */
	sh("ip neigh del 10.1.0.2 dev up0");
	in(peer, "ip link set eth0 arp off");
	await(path_unknown, "10.1.0.2");
	for (int i = 0; i < 10; i++)
		keep("10.1.0.2");
	assert_int_equal(requests(fd), 1);
	in(peer, "ip link set eth0 arp on");
	assert_int_equal(net_keep(net, &own), -EADDRNOTAVAIL);
	close(fd);
	assert_int_equal(
		sysctl_write("net/ipv4/neigh/up0/retrans_time_ms", "1000"), 0);
	sh("ip neigh flush dev up0");
	keep("10.1.0.2");
	await(path_is, &at);
}

static bool source_is(const void *arg)
{
	const char *const *want = arg; /* interface, address */
	struct ip a = ip(want[1]), got;

	return net_source(net, ifindex(want[0]), a.family, &got) &&
	       ip_equal(&got, &a);
}

static void test_source(void **state)
{
	struct ip vip = ip("192.0.2.10"), vip6 = ip("2001:db8::10");
	struct ip got;
	int up0 = ifindex("up0");

	(void)state;
	assert_int_equal(net_add_address(net, up0, &vip), 0);
	assert_int_equal(net_add_address(net, up0, &vip6), 0);
	await(has_ours, "2001:db8::10");
	assert_true(source_is((const char *[]){ "up0", "10.1.0.1" }));
	assert_true(source_is((const char *[]){ "up0", "fd01::1" }));
	assert_true(source_is((const char *[]){ "br0", "fd02::1" }));
	/* A second one isn't; when the first goes, it is. */
	sh("ip address add 10.1.0.9/24 dev up0");
	await(link_exists, "up0");
	assert_true(source_is((const char *[]){ "up0", "10.1.0.1" }));
	sh("ip address change fd01::1/64 dev up0 preferred_lft 0;"
	   "ip address add fd01::8/64 dev up0 nodad");
	await(source_is, (const char *[]){ "up0", "fd01::8" });
	/* An interface without any: another's. */
	sh("ip address del fd01::1/64 dev up0;"
	   "ip address del fd01::8/64 dev up0");
	await(source_is, (const char *[]){ "up0", "fd02::1" });
	sh("ip address del fd02::1/64 dev br0");
	loop_arm_in(timer, LIMIT);
	while (net_source(net, up0, AF_INET6, &got) && loop_armed(timer))
		loop_run(loop);
	assert_false(net_source(net, up0, AF_INET6, &got));
	sh("ip address add fd01::1/64 dev up0 nodad;"
	   "ip address add fd02::1/64 dev br0 nodad;"
	   "ip address del 10.1.0.9/24 dev up0;"
	   "ip route replace fd50::/16 via fd01::2");
	await(source_is, (const char *[]){ "up0", "fd01::1" });
	assert_int_equal(net_del_address(net, up0, &vip), 0);
	assert_int_equal(net_del_address(net, up0, &vip6), 0);
	await(has_not, "2001:db8::10");
}

static bool is_native(const void *arg)
{
	return net_link_by_name(net, "up0")->xdp_native == *(const bool *)arg;
}

/* What drivers' names tell is what the kernel itself says, where it does. */
static void test_native(void **state)
{
	static const uint64_t runs = XDP_ACT_BASIC | XDP_ACT_REDIRECT;
	static const char *const names[] = { "lo", "up0", "br0", "tun0" };
	static const bool natives[] = { false, true, false, true };
	const bool yes = true, no = false;

	(void)state;
	sh("ip tuntap add tun0 mode tap");
	assert_int_equal(net_refresh(net), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct net_link *l = net_link_by_name(net, names[i]);

		if (l->mtu <= 1500)
			assert_int_equal(l->xdp_native, natives[i]);
		assert_int_equal(net_native(l->ifindex), natives[i]);
		assert_int_equal((netdev_guess(l) & runs) == runs, natives[i]);
	}
	assert_true(netdev_guess(net_link_by_name(net, "tun0")) &
		    XDP_ACT_NDO_XMIT);
	sh("ip link del tun0");
	sh("ip link set up0 mtu 9000");
	await(is_native, &no);
	assert_false(net_native(ifindex("up0")));
	sh("ip link set up0 mtu 1500");
	await(is_native, &yes);
}

static void test_announce(void **state)
{
	struct ip v4 = ip("10.1.0.77"), v6 = ip("fd01::77");
	char shows[128];

	(void)state;
	in(peer, "ip neigh replace 10.1.0.77 lladdr 02:00:00:00:00:77 "
		 "nud stale dev eth0;"
		 "ip neigh replace fd01::77 lladdr 02:00:00:00:00:77 "
		 "nud stale dev eth0");
	assert_int_equal(net_announce(net, ifindex("up0"), &v4), 0);
	assert_int_equal(net_announce(net, ifindex("up0"), &v6), 0);
	snprintf(shows, sizeof(shows),
		 "nsenter --net=/proc/%d/ns/net ip neigh show", peer);
	assert_true(says(shows, "10.1.0.77 dev eth0 lladdr " UP0));
	assert_true(says(shows, "fd01::77 dev eth0 lladdr " UP0));
	assert_false(says(shows, "fd01::77 dev eth0 lladdr " UP0 " router"));
	assert_int_equal(sysctl_write("net/ipv6/conf/up0/forwarding", "1"), 0);
	assert_int_equal(net_announce(net, ifindex("up0"), &v6), 0);
	assert_true(says(shows, "fd01::77 dev eth0 lladdr " UP0 " router"));
	assert_int_equal(net_announce(net, 9999, &v4), -ENODEV);
}

static void test_sysctl(void **state)
{
	char value[16], tiny[1];

	(void)state;
	assert_int_equal(sysctl_write("net/ipv4/ip_forward", "1"), 0);
	assert_int_equal(sysctl_read("net/ipv4/ip_forward", value, 16), 0);
	assert_string_equal(value, "1");
	assert_int_equal(sysctl_write("net/ipv4/ip_forward", "0"), 0);
	assert_int_equal(sysctl_read("net/ipv4/ip_forward", value, 16), 0);
	assert_string_equal(value, "0");
	assert_int_equal(sysctl_read("net/ipv4/ip_forward", tiny, 1), -ENOSPC);
	assert_int_equal(sysctl_read("net/ipv4/nothing", value, 16), -ENOENT);
	assert_int_equal(sysctl_read("../version", value, 16), -EINVAL);
}

/*
 * More events than the socket holds: everything is read again.  Routes make
 * them, because room for neighbours is shared by all of the machine.
 */
static void test_overflow(void **state)
{
	static const struct expected none = { .to = "10.7.0.1",
					      .route = "up0" };
	static const struct expected last = {
		"10.7.0.1", "up0", "up0", "02:00:00:00:00:77", UP0, 1500, true
	};

	(void)state;
	assert_true(path_is(&none));
	sh("for i in $(seq 0 29999); do echo route add "
	   "10.8.$((i/256)).$((i%%256)) dev up0; done | ip -batch -");
	/* The kernel is dropping events by now, this one with them. */
	sh("ip neigh replace 10.7.0.1 lladdr 02:00:00:00:00:77 dev up0");
	assert_true(says("awk 'NR > 1 && $9 > 0 { print \"lost\" }' "
			 "/proc/net/netlink",
			 "lost"));
	await(path_is, &last);
	/* And it listens again. */
	sh("ip link del up0");
	loop_arm_in(timer, LIMIT);
	while (net_link_by_name(net, "up0") && loop_armed(timer))
		loop_run(loop);
	assert_null(net_link_by_name(net, "up0"));
	assert_int_equal(path_error("10.7.0.1"), -ENETUNREACH);
}

/* Addresses come and go until it is killed. */
static void make_turmoil(void)
{
	struct ip first = ip("10.90.0.0");
	struct net *own;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (net_open(NULL, NULL, NULL, &own))
		_exit(1);
	for (uint64_t i = 0;; i++) {
		struct ip a = ip_add(&first, i % 200);

		if (i / 200 % 2)
			net_del_address(own, ifindex("br0"), &a);
		else
			net_add_address(own, ifindex("br0"), &a);
	}
}

/* Dumps that are changed underneath come out whole all the same. */
static void test_refresh_in_turmoil(void **state)
{
	struct net *snap;
	pid_t child = fork();
	int tries = 50, opened = -EINTR;

	(void)state;
	if (!child)
		make_turmoil();
	sh("for i in $(seq 1 250); do echo address add 10.91.0.$i/32 dev br0;"
	   "done | ip -batch -");
	/* Without a quiet moment there is nothing from before to go on with. */
	while (opened == -EINTR && tries--)
		opened = net_open(NULL, NULL, NULL, &snap);
	assert_int_equal(opened, 0);
	for (int i = 0; i < 200; i++) {
		struct ip a = ip("10.91.0.250");
		int error = net_refresh(snap);

		/* Never but for want of a quiet moment; then it is said. */
		assert_true(error == 0 || error == -EINTR);
		assert_non_null(net_find_address(snap, &a));
	}
	net_close(snap);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void test_snapshot(void **state)
{
	struct net *snap;
	struct ip a = ip("10.2.0.1");

	(void)state;
	assert_int_equal(net_open(NULL, NULL, NULL, &snap), 0);
	assert_non_null(net_link_by_name(snap, "br0"));
	assert_non_null(net_find_address(snap, &a));
	sh("ip link set br0 down");
	assert_true(net_link_by_name(snap, "br0")->up);
	assert_int_equal(net_refresh(snap), 0);
	assert_false(net_link_by_name(snap, "br0")->up);
	net_close(snap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_path_direct),
		cmocka_unit_test(test_path_through_gateway),
		cmocka_unit_test(test_path_to_bridge_port),
		cmocka_unit_test(test_forwarding_entry_ages),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_neighbour_changes),
		cmocka_unit_test(test_route_changes),
		cmocka_unit_test(test_resolve_a_late_machine),
		cmocka_unit_test(test_learn),
		cmocka_unit_test(test_port_is_replaced),
		cmocka_unit_test(test_vips),
		cmocka_unit_test(test_long_interface_name),
		cmocka_unit_test(test_xdp_target_follows_the_peer),
		cmocka_unit_test(test_path_by_vlan),
		cmocka_unit_test(test_path_by_vlan_and_bridge),
		cmocka_unit_test(test_vlan_device),
		cmocka_unit_test(test_keep),
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_native),
		cmocka_unit_test(test_announce),
		cmocka_unit_test(test_sysctl),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_refresh_in_turmoil),
		cmocka_unit_test(test_snapshot),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
