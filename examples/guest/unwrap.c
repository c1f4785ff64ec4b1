/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Has the guest's kernel take off outer headers of every kind, where there is
 * no full-grown `ip`: `ip fou add port 6080 gue` for both families, and `ip
 * tunnel change ip6tnl0 mode any`.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/fou.h>
#include <linux/genetlink.h>
#include <linux/if.h>
#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>
#include <linux/netlink.h>

#define GUE_PORT 6080

struct message {
	struct nlmsghdr nl;
	struct genlmsghdr genl;
	char attrs[256];
};

static void put(struct message *m, uint16_t type, const void *data,
		uint16_t len)
{
	struct nlattr a = { .nla_len = (uint16_t)(NLA_HDRLEN + len),
			    .nla_type = type };
	char *at = (char *)m + NLMSG_ALIGN(m->nl.nlmsg_len);

	memcpy(at, &a, sizeof(a));
	memcpy(at + NLA_HDRLEN, data, len);
	m->nl.nlmsg_len =
		NLMSG_ALIGN(m->nl.nlmsg_len) + (uint32_t)NLA_ALIGN(a.nla_len);
}

static struct message request(uint16_t family, uint8_t command)
{
	return (struct message){
		.nl = { .nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN),
			.nlmsg_type = family,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.genl = { .cmd = command, .version = FOU_GENL_VERSION },
	};
}

/* Sends m, which gets the first answer.  0 or -errno. */
static int ask(int fd, struct message *m)
{
	struct nlmsgerr *e = (struct nlmsgerr *)&m->genl;
	ssize_t n;

	if (send(fd, m, m->nl.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, m, sizeof(*m), 0);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(int)))
		return n < 0 ? -errno : -EPROTO;
	return m->nl.nlmsg_type == NLMSG_ERROR ? e->error : 0;
}

/* The number of the kernel's family "fou", or -errno. */
static int fou_family(int fd)
{
	struct message m = request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	const char *end, *at = m.attrs;
	struct nlattr a;
	uint16_t id;
	int err;

	m.nl.nlmsg_flags = NLM_F_REQUEST;
	put(&m, CTRL_ATTR_FAMILY_NAME, FOU_GENL_NAME, sizeof(FOU_GENL_NAME));
	err = ask(fd, &m);
	if (err)
		return err;
	end = (char *)&m +
	      (m.nl.nlmsg_len < sizeof(m) ? m.nl.nlmsg_len : sizeof(m));
	for (; at + NLA_HDRLEN <= end; at += NLA_ALIGN(a.nla_len)) {
		memcpy(&a, at, sizeof(a));
		if (a.nla_len < NLA_HDRLEN)
			break;
		if (a.nla_type != CTRL_ATTR_FAMILY_ID)
			continue;
		memcpy(&id, at + NLA_HDRLEN, sizeof(id));
		return id;
	}
	return -ENOENT;
}

static int listen_for(int fd, int family, uint8_t af)
{
	struct message m = request((uint16_t)family, FOU_CMD_ADD);
	uint16_t port = htons(GUE_PORT);
	uint8_t type = FOU_ENCAP_GUE;

	put(&m, FOU_ATTR_PORT, &port, sizeof(port));
	put(&m, FOU_ATTR_AF, &af, sizeof(af));
	put(&m, FOU_ATTR_TYPE, &type, sizeof(type));
	return ask(fd, &m);
}

static int gue(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int family = fd < 0 ? -errno : fou_family(fd);
	int err = family < 0 ? family : listen_for(fd, family, AF_INET);

	if (!err)
		err = listen_for(fd, family, AF_INET6);
	if (fd >= 0)
		close(fd);
	return err;
}

/* ip6tnl0 takes IPv6 in IPv6 only, until it is told that any will do. */
static int any_in_ipv6(void)
{
	struct ip6_tnl_parm p = { .name = "ip6tnl0" };
	struct ifreq r = { .ifr_name = "ip6tnl0" };
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err;

	r.ifr_data = (char *)&p;
	err = fd < 0 || ioctl(fd, SIOCCHGTUNNEL, &r) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return err;
}

int main(void)
{
	int err = gue();

	if (!err)
		err = any_in_ipv6();
	if (err)
		fprintf(stderr, "unwrap: %s\n", strerror(-err));
	return err ? 1 : 0;
}
