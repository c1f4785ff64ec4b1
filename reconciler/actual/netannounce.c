/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole frames through a packet socket: IPv6 too, because the stack may have
 * no link-local source to send from yet, and would choose it, not the VIP.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/ip6.h>
#include <stdio.h>
#include <string.h>

#include "actual/netlink_priv.h"
#include "base/seam.h"

struct arp_frame {
	struct ether_header eth;
	struct ether_arp arp;
} __attribute__((packed));

struct na_frame {
	struct ether_header eth;
	struct ip6_hdr ip;
	struct nd_neighbor_advert na;
	uint8_t option_type;
	uint8_t option_units; /* of 8 bytes */
	uint8_t option_mac[6];
} __attribute__((packed));

/* RFC 5227 section 3: a request, sender and target the same, to everybody. */
static struct arp_frame make_arp(const uint8_t mac[6], const struct ip *a)
{
	struct arp_frame f = { 0 };

	memset(f.eth.ether_dhost, 0xff, 6);
	memcpy(f.eth.ether_shost, mac, 6);
	f.eth.ether_type = htons(ETHERTYPE_ARP);
	f.arp.ea_hdr.ar_hrd = htons(ARPHRD_ETHER);
	f.arp.ea_hdr.ar_pro = htons(ETHERTYPE_IP);
	f.arp.ea_hdr.ar_hln = 6;
	f.arp.ea_hdr.ar_pln = 4;
	f.arp.ea_hdr.ar_op = htons(ARPOP_REQUEST);
	memcpy(f.arp.arp_sha, mac, 6);
	memcpy(f.arp.arp_spa, a->bytes, 4);
	memcpy(f.arp.arp_tpa, a->bytes, 4);
	return f;
}

static uint32_t add_words(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	return sum;
}

static uint16_t icmp6_checksum(const struct na_frame *f)
{
	size_t len = sizeof(*f) - offsetof(struct na_frame, na);
	uint32_t sum = IPPROTO_ICMPV6 + (uint32_t)len;

	sum = add_words(sum, &f->ip.ip6_src, 32);
	sum = add_words(sum, &f->na, len);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* RFC 4861 section 7.2.6.  A router that stops saying so loses its routes. */
static struct na_frame make_na(const uint8_t mac[6], const struct ip *a,
			       bool router)
{
	struct na_frame f = { 0 };

	memcpy(f.eth.ether_dhost, "\x33\x33\0\0\0\1", 6);
	memcpy(f.eth.ether_shost, mac, 6);
	f.eth.ether_type = htons(ETHERTYPE_IPV6);
	f.ip.ip6_flow = htonl(6u << 28);
	f.ip.ip6_plen = htons(sizeof(f) - offsetof(struct na_frame, na));
	f.ip.ip6_nxt = IPPROTO_ICMPV6;
	f.ip.ip6_hlim = 255;
	memcpy(&f.ip.ip6_src, a->bytes, 16);
	memcpy(&f.ip.ip6_dst, "\xff\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
	f.na.nd_na_type = ND_NEIGHBOR_ADVERT;
	f.na.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
	if (router)
		f.na.nd_na_flags_reserved |= ND_NA_FLAG_ROUTER;
	memcpy(&f.na.nd_na_target, a->bytes, 16);
	f.option_type = ND_OPT_TARGET_LINKADDR;
	f.option_units = 1;
	memcpy(f.option_mac, mac, 6);
	f.na.nd_na_cksum = icmp6_checksum(&f);
	return f;
}

static bool is_router(const char *interface)
{
	char name[64], value[8];

	snprintf(name, sizeof(name), "net/ipv6/conf/%s/forwarding", interface);
	return !sysctl_read(name, value, sizeof(value)) && value[0] != '0';
}

/* One socket for all: closing a packet socket costs 8 to 20 ms. */
static int send_frame(struct net *n, int ifindex, const void *frame, size_t len)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_ifindex = ifindex,
				  .sll_halen = 6 };

	if (n->packet_fd < 0)
		n->packet_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (n->packet_fd < 0)
		return -errno;
	if (sendto(n->packet_fd, frame, len, 0, (struct sockaddr *)&to,
		   sizeof(to)) < 0)
		return -errno;
	return 0;
}

int net_announce(struct net *n, int ifindex, const struct ip *a)
{
	const struct net_link *l = net_link(n, ifindex);

	seam_change("net_announce");
	if (!l)
		return -ENODEV;
	if (a->family == AF_INET6) {
		struct na_frame f = make_na(l->mac, a, is_router(l->name));

		return send_frame(n, ifindex, &f, sizeof(f));
	}
	struct arp_frame f = make_arp(l->mac, a);

	return send_frame(n, ifindex, &f, sizeof(f));
}
