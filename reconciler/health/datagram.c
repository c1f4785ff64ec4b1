/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One datagram there, one back: udp with the user's payload, dns, icmp. */
#include <errno.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "health/dns.h"
#include "health/echo.h"
#include "health/probe.h"

/* More than any answer that is worth looking at. */
#define ANSWER_MAX 4096

/* Of dns and icmp: what the answer has to repeat. */
struct datagram_work {
	uint16_t id;
	struct echo echo;
};

static void datagram_drop(struct probe_target *t)
{
	free(t->work);
}

/* Errors that ICMP brings are the socket's only if it asks for them. */
static int open_socket(struct probe_target *t, int type, int protocol)
{
	const int on = 1;
	bool v6 = t->address.family == AF_INET6;
	struct sockaddr_storage to;
	/* A raw socket has no ports. */
	uint16_t port = type == SOCK_RAW ? 0 : probe_port(t);
	socklen_t size = ip_sockaddr(&t->address, port, &to);

	t->fd = socket(t->address.family, type | SOCK_NONBLOCK | SOCK_CLOEXEC,
		       protocol);
	if (t->fd < 0)
		return errno == EPERM ? EPERM : EMFILE;
	if (setsockopt(t->fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
		       v6 ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on)))
		return EMFILE;
	return connect(t->fd, (struct sockaddr *)&to, size) ? errno : 0;
}

static void send_datagram(struct probe_target *t, int error, const void *data,
			  size_t len)
{
	t->phase = PHASE_ANSWERING;
	if (!error && send(t->fd, data, len, MSG_NOSIGNAL) < 0)
		error = errno;
	if (error) {
		probe_fail(t, error);
		return;
	}
	probe_watch(t, EPOLLIN);
	loop_arm(t->timer, probe_first_deadline(t));
}

/*
 * Judges one datagram.  False: it isn't for this probe; else *ret_result is
 * final.
 */
typedef bool (*judge_fn)(const struct probe_target *t, const uint8_t *data,
			 size_t len, enum probe_result *ret_result,
			 struct buf *detail);

static void read_answers(struct probe_target *t, judge_fn judge)
{
	AUTO_BUF struct buf detail = BUF_INIT;
	enum probe_result result;
	uint8_t data[ANSWER_MAX];
	ssize_t n;

	for (;;) {
		n = recv(t->fd, data, sizeof(data), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			probe_fail(t, errno);
			return;
		}
		if (judge(t, data, (size_t)n, &result, &detail))
			break;
	}
	probe_finish(t, result, buf_str(&detail));
}

/* ---- udp ---- */

static bool udp_judge(const struct probe_target *t, const uint8_t *data,
		      size_t len, enum probe_result *ret_result,
		      struct buf *detail)
{
	const struct health_spec *s = t->spec;

	*ret_result = PROBE_PASS;
	for (size_t i = 0; i < s->wanted_count; i++)
		if (memmem(data, len, s->wanted[i].data, s->wanted[i].len))
			return true;
	if (!s->wanted_count)
		return true;
	*ret_result = PROBE_BAD_ANSWER;
	buf_adds(detail, "not what is expected");
	return true;
}

static void udp_start(struct probe_target *t)
{
	send_datagram(t, open_socket(t, SOCK_DGRAM, 0), t->spec->send.data,
		      t->spec->send.len);
}

static void udp_event(struct probe_target *t, uint32_t events)
{
	(void)events;
	read_answers(t, udp_judge);
}

const struct probe_kind probe_udp = { .start = udp_start, .event = udp_event };

/* ---- dns ---- */

static bool judge_dns(const struct probe_target *t, const uint8_t *data,
		      size_t len, enum probe_result *ret_result,
		      struct buf *detail)
{
	const struct datagram_work *w = t->work;

	return dns_judge(t->spec, w->id, data, len, ret_result, detail);
}

static void dns_start(struct probe_target *t)
{
	struct datagram_work *w = mem_alloc(sizeof(*w));
	uint8_t query[DNS_QUERY_MAX];

	t->work = w;
	w->id = (uint16_t)probe_random(t->prober);
	send_datagram(t, open_socket(t, SOCK_DGRAM, 0), query,
		      dns_query(t->spec, w->id, query));
}

static void dns_event(struct probe_target *t, uint32_t events)
{
	(void)events;
	read_answers(t, judge_dns);
}

const struct probe_kind probe_dns = {
	.start = dns_start,
	.event = dns_event,
	.drop = datagram_drop,
};

/* ---- icmp ---- */

static bool judge_echo(const struct probe_target *t, const uint8_t *data,
		       size_t len, enum probe_result *ret_result,
		       struct buf *detail)
{
	const struct datagram_work *w = t->work;

	(void)detail;
	*ret_result = PROBE_PASS;
	return echo_is_reply(&w->echo, t->address.family, data, len);
}

/* Or every ping of this host would be ours to look at. */
static int filter_replies(int fd, int family)
{
	struct icmp_filter v4 = { .data = ~(1u << ICMP_ECHOREPLY) };
	struct icmp6_filter v6;

	if (family == AF_INET)
		return setsockopt(fd, SOL_RAW, ICMP_FILTER, &v4, sizeof(v4))
			       ? errno
			       : 0;
	ICMP6_FILTER_SETBLOCKALL(&v6);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &v6);
	return setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &v6, sizeof(v6))
		       ? errno
		       : 0;
}

static void icmp_start(struct probe_target *t)
{
	struct datagram_work *w = mem_alloc(sizeof(*w));
	int family = t->address.family;
	uint8_t request[ECHO_LEN];
	int error =
		open_socket(t, SOCK_RAW,
			    family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

	t->work = w;
	w->echo = (struct echo){
		.id = (uint16_t)probe_random(t->prober),
		.sequence = 1,
		.cookie = (uint64_t)probe_random(t->prober) << 32 |
			  probe_random(t->prober),
	};
	if (!error)
		error = filter_replies(t->fd, family);
	echo_request(&w->echo, family, request);
	send_datagram(t, error, request, sizeof(request));
}

static void icmp_event(struct probe_target *t, uint32_t events)
{
	(void)events;
	read_answers(t, judge_echo);
}

const struct probe_kind probe_icmp = {
	.start = icmp_start,
	.event = icmp_event,
	.drop = datagram_drop,
};
