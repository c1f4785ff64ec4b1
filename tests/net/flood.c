/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A flood of TCP packets from random clients, written straight to an
 * interface: bounded in rate and count.
 *
 *   flood INTERFACE DESTINATION_MAC SYN|ACK|MIXED RATE COUNT SEED ADDRESS:PORT...
 *
 * Sources are 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180), ports and
 * sequence numbers random; MIXED sends each flow a SYN, a right ACK or a wrong
 * one.  An eighth of the flows come twice.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define PLACES 16
#define FRAME                                                   \
	(sizeof(struct ether_header) + sizeof(struct ip6_hdr) + \
	 sizeof(struct tcphdr))

struct target {
	bool v6;
	uint8_t address[16];
	uint16_t port; /* network order */
};

static struct target targets[PLACES];
static size_t target_count;
static uint8_t mac[2][6]; /* destination, source */
static uint64_t state;

static uint64_t random64(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static uint32_t add_words(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *b = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(b[i] << 8 | b[i + 1]);
	return sum;
}

static uint16_t finish_sum(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static size_t network_header(uint8_t *at, const struct target *t, uint64_t r,
			     uint32_t *ret_sum)
{
	struct ip6_hdr v6 = { 0 };
	struct iphdr v4 = { 0 };

	*ret_sum = IPPROTO_TCP + sizeof(struct tcphdr);
	if (t->v6) {
		v6.ip6_flow = htonl(6u << 28);
		v6.ip6_plen = htons(sizeof(struct tcphdr));
		v6.ip6_nxt = IPPROTO_TCP;
		v6.ip6_hlim = 60;
		memcpy(&v6.ip6_src, "\x20\x01\x00\x02\x00\x00\x00\x00", 8);
		memcpy((uint8_t *)&v6.ip6_src + 8, &r, 8);
		memcpy(&v6.ip6_dst, t->address, 16);
		*ret_sum = add_words(*ret_sum, &v6.ip6_src, 32);
		memcpy(at, &v6, sizeof(v6));
		return sizeof(v6);
	}
	v4.version = 4;
	v4.ihl = 5;
	v4.tot_len = htons(sizeof(v4) + sizeof(struct tcphdr));
	v4.ttl = 60;
	v4.protocol = IPPROTO_TCP;
	v4.saddr = htonl(0xc6120000u | (uint32_t)(r & 0x1ffff));
	memcpy(&v4.daddr, t->address, 4);
	v4.check = finish_sum(add_words(0, &v4, sizeof(v4)));
	*ret_sum = add_words(*ret_sum, &v4.saddr, 8);
	memcpy(at, &v4, sizeof(v4));
	return sizeof(v4);
}

static size_t make_frame(uint8_t *frame, bool syn, uint64_t r)
{
	const struct target *t = &targets[(r >> 40) % target_count];
	uint16_t type = htons(t->v6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP);
	struct tcphdr tcp = { 0 };
	uint32_t sum;
	size_t len;

	memcpy(frame, mac, sizeof(mac));
	memcpy(frame + sizeof(mac), &type, sizeof(type));
	len = sizeof(struct ether_header);
	len += network_header(frame + len, t, r, &sum);
	tcp.source = (uint16_t)(r >> 20);
	tcp.dest = t->port;
	tcp.seq = htonl((uint32_t)(r >> 8) + (syn ? 0 : 1));
	tcp.doff = 5;
	tcp.syn = syn;
	tcp.ack = !syn;
	tcp.window = htons(1024);
	tcp.check = finish_sum(add_words(sum, &tcp, sizeof(tcp)));
	memcpy(frame + len, &tcp, sizeof(tcp));
	return len + sizeof(tcp);
}

static void send_batch(int fd, const char *kind, uint64_t *last)
{
	static uint8_t frames[BATCH][FRAME];
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];

	for (int i = 0; i < BATCH; i++) {
		bool syn = *kind == 'S' || (*kind == 'M' && random64() & 1);

		/* Half of what comes again is the next packet of a SYN. */
		if (random64() & 7)
			*last = random64();
		parts[i].iov_base = frames[i];
		parts[i].iov_len = make_frame(frames[i], syn, *last);
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	sendmmsg(fd, messages, BATCH, 0);
}

static void pace(const struct timespec *start, uint64_t sent, double rate)
{
	double due = (double)sent / rate;
	struct timespec until = *start;

	until.tv_sec += (time_t)due;
	until.tv_nsec += (long)((due - (double)(time_t)due) * 1e9);
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void add_target(char *text)
{
	struct target *t = &targets[target_count++ % PLACES];
	char *colon = strrchr(text, ':');

	if (!colon)
		exit(2);
	*colon = '\0';
	t->port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (*text == '[') {
		t->v6 = true;
		colon[-1] = '\0';
		text++;
	}
	if (inet_pton(t->v6 ? AF_INET6 : AF_INET, text, t->address) != 1) {
		fprintf(stderr, "flood: not an address: %s\n", text);
		exit(2);
	}
}

static int open_interface(const char *name)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_ifindex = (int)if_nametoindex(name) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to))) {
		perror("flood");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct timespec start;
	uint64_t count, last = 0;
	double rate;
	int fd;

	if (argc < 8 || sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx",
			       &mac[0][0], &mac[0][1], &mac[0][2], &mac[0][3],
			       &mac[0][4], &mac[0][5]) != 6) {
		fprintf(stderr, "usage: flood INTERFACE MAC SYN|ACK|MIXED RATE "
				"COUNT SEED ADDRESS:PORT...\n");
		return 2;
	}
	rate = strtod(argv[4], NULL);
	count = strtoull(argv[5], NULL, 10);
	state = strtoull(argv[6], NULL, 10) * 2 + 1;
	for (int i = 7; i < argc && i < 7 + PLACES; i++)
		add_target(argv[i]);
	memcpy(mac[1], "\x02\x00\x00\x00\x00\x99", 6);
	fd = open_interface(argv[1]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint64_t sent = 0; sent < count; sent += BATCH) {
		pace(&start, sent, rate);
		send_batch(fd, argv[3], &last);
	}
	close(fd);
	return 0;
}
