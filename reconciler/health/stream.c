/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp: a connection is made.  http: and asked for a page. */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "health/http.h"
#include "health/probe.h"

static int connect_socket(struct probe_target *t)
{
	/* Closing resets: a thousand probes leave no TIME_WAIT behind. */
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	struct sockaddr_storage to;
	socklen_t size = ip_sockaddr(&t->address, probe_port(t), &to);

	t->fd = socket(t->address.family,
		       SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->fd < 0 ||
	    setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		return EMFILE; /* whatever it is, it is ours */
	if (connect(t->fd, (struct sockaddr *)&to, size) &&
	    errno != EINPROGRESS)
		return errno;
	return 0;
}

void stream_start(struct probe_target *t)
{
	int error = connect_socket(t);

	t->phase = PHASE_CONNECTING;
	if (error) {
		probe_fail(t, error);
		return;
	}
	probe_watch(t, EPOLLIN | EPOLLOUT);
	loop_arm(t->timer, probe_first_deadline(t));
}

void stream_event(struct probe_target *t, uint32_t events,
		  void (*connected)(struct probe_target *t))
{
	int error;

	if (events & (EPOLLERR | EPOLLHUP)) {
		error = probe_socket_error(t->fd);
		if (error)
			probe_fail(t, error);
		else
			probe_finish(t, PROBE_BAD_ANSWER, "closed at once");
	} else if (events & EPOLLOUT) {
		connected(t);
	}
}

/* ---- tcp ---- */

static void tcp_connected(struct probe_target *t)
{
	probe_finish(t, PROBE_PASS, NULL);
}

static void tcp_event(struct probe_target *t, uint32_t events)
{
	stream_event(t, events, tcp_connected);
}

const struct probe_kind probe_tcp = {
	.start = stream_start,
	.event = tcp_event,
};

/* ---- http ---- */

struct http_work {
	size_t len;
	char line[HTTP_LINE_MAX];
};

static void http_connected(struct probe_target *t)
{
	AUTO_BUF struct buf request = BUF_INIT;
	ssize_t n;

	http_request(t->spec, &t->address, probe_port(t), &request);
	/* A fresh socket takes it whole, or there is no memory. */
	n = send(t->fd, request.data, request.len, MSG_NOSIGNAL);
	if (n != (ssize_t)request.len) {
		probe_fail(t, n < 0 ? errno : ENOBUFS);
		return;
	}
	t->phase = PHASE_ANSWERING;
	t->work = mem_alloc(sizeof(struct http_work));
	loop_arm(t->timer, probe_deadline(t));
}

static void http_finish(struct probe_target *t, enum probe_result result)
{
	const struct http_work *w = t->work;
	char status[4] = "";

	/* "HTTP/1.1 503": what was judged has it there. */
	if (result == PROBE_BAD_STATUS)
		snprintf(status, sizeof(status), "%.3s", w->line + 9);
	probe_finish(t, result, status);
}

/* Edge-triggered: until there is an end, or nothing left to read. */
static void http_read(struct probe_target *t)
{
	struct http_work *w = t->work;
	enum probe_result result;
	bool final = false;

	while (!final) {
		ssize_t n = recv(t->fd, w->line + w->len,
				 HTTP_LINE_MAX - w->len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			probe_fail(t, errno);
			return;
		}
		w->len += (size_t)n;
		final = http_judge(t->spec, w->line, w->len, n == 0, &result);
	}
	http_finish(t, result);
}

static void http_event(struct probe_target *t, uint32_t events)
{
	if (t->phase == PHASE_ANSWERING)
		http_read(t);
	else
		stream_event(t, events, http_connected);
}

static void http_drop(struct probe_target *t)
{
	free(t->work);
}

const struct probe_kind probe_http = {
	.start = stream_start,
	.event = http_event,
	.drop = http_drop,
};
