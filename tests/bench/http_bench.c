/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of http_bench.py: as many requests as go through, on real
 * connections, from one thread.  Reads commands, one a line:
 *
 *   keep|new|bulk|upload MILLISECONDS CONNECTIONS ADDRESS:PORT...
 *
 *   keep   the next request when the answer to the last one is there
 *   new    each on a connection of its own, which the server closes
 *   bulk   one answer without an end on each connection
 *   upload one request without an end on each connection
 *
 * and answers each with the seconds measured, answers, bytes moved, failures
 * and how many connections came about.  All but new connect before the time begins.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 512
#define MAX_TARGETS 16
#define ANSWER_MAX 2048
#define CHUNK (1u << 20)

enum mode { KEEP, NEW, BULK, UPLOAD, MODES };

static const struct {
	const char *name;
	const char *request;
} modes[MODES] = {
	[KEEP] = { "keep", "GET / HTTP/1.1\r\nHost: bench\r\n\r\n" },
	[NEW] = { "new", "GET / HTTP/1.0\r\nHost: bench\r\n\r\n" },
	[BULK] = { "bulk",
		   "GET /bytes/1000000000000 HTTP/1.1\r\nHost: bench\r\n\r\n" },
	[UPLOAD] = { "upload", "POST / HTTP/1.1\r\nHost: bench\r\n"
			       "Content-Length: 1000000000000\r\n\r\n" },
};

struct connection {
	int fd; /* -1: none */
	bool asked;
	size_t len; /* of the answer, so far */
	char answer[ANSWER_MAX];
};

static struct run {
	enum mode mode;
	uint64_t duration; /* ns */
	size_t count; /* of connections */
	struct sockaddr_in to[MAX_TARGETS];
	size_t to_count, next;
	int epoll;
	bool timed; /* what happens counts */
	size_t connected;
	uint64_t answers, bytes, failures;
} run;

static struct connection connections[MAX_CONNECTIONS];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void drop(struct connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void begin(struct connection *c)
{
	struct sockaddr_in *to = &run.to[run.next++ % run.to_count];
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET,
				 .data.ptr = c };
	int one = 1;

	*c = (struct connection){
		.fd = socket(AF_INET,
			     SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
	};
	if (c->fd < 0)
		return;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if ((connect(c->fd, (struct sockaddr *)to, sizeof(*to)) &&
	     errno != EINPROGRESS) ||
	    epoll_ctl(run.epoll, EPOLL_CTL_ADD, c->fd, &e))
		drop(c);
}

static void fail(struct connection *c)
{
	run.failures++;
	drop(c);
}

static void ask(struct connection *c)
{
	const char *request = modes[run.mode].request;
	size_t len = strlen(request);

	c->len = 0;
	if (send(c->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
		fail(c);
}

/* Is a whole answer there?  Its length is always told. */
static bool is_whole(struct connection *c)
{
	const char *end, *length;

	c->answer[c->len] = 0;
	end = strstr(c->answer, "\r\n\r\n");
	length = strcasestr(c->answer, "\r\ncontent-length:");
	if (!end || !length)
		return false;
	return c->len >=
	       (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10);
}

static void answered(struct connection *c)
{
	if (strncmp(c->answer + 8, " 200", 4) != 0) {
		fail(c);
		return;
	}
	if (run.timed) {
		run.answers++;
		run.bytes += c->len;
	}
}

/* What a read brought: 0 is the end of the connection. */
static void took(struct connection *c, size_t got)
{
	if (run.mode == UPLOAD)
		return; /* the server's opinion, ahead of the end */
	if (run.mode == BULK) {
		if (run.timed)
			run.bytes += got;
		return;
	}
	c->len += got;
	if (c->len >= ANSWER_MAX - 1) {
		fail(c);
	} else if (run.mode == KEEP && is_whole(c)) {
		answered(c);
		if (c->fd >= 0)
			ask(c);
	}
}

/* The end of a connection, which is that of an answer or a failure. */
static void ended(struct connection *c)
{
	if (run.mode == NEW && is_whole(c)) {
		answered(c);
		drop(c);
	} else {
		fail(c);
	}
	begin(c);
}

/* Bulk isn't copied: what costs is its way, not its use. */
static ssize_t take(struct connection *c)
{
	if (run.mode == BULK)
		return recv(c->fd, NULL, CHUNK, MSG_TRUNC);
	return recv(c->fd, c->answer + c->len, ANSWER_MAX - 1 - c->len, 0);
}

/* As much as goes into the socket; what isn't acknowledged yet is little. */
static void give(struct connection *c)
{
	static const char body[1 << 16];
	ssize_t sent;

	while ((sent = send(c->fd, body, sizeof(body), MSG_NOSIGNAL)) > 0)
		if (run.timed)
			run.bytes += (uint64_t)sent;
	if (errno != EAGAIN)
		fail(c);
}

static void on_event(struct connection *c, uint32_t events)
{
	ssize_t got;

	if (!c->asked && (events & EPOLLOUT) && !(events & EPOLLERR)) {
		c->asked = true;
		run.connected++;
		ask(c);
	}
	if (run.mode == UPLOAD && c->fd >= 0 && (events & EPOLLOUT))
		give(c);
	while (c->fd >= 0) {
		got = take(c);
		if (got > 0) {
			took(c, (size_t)got);
		} else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
			return;
		} else {
			break;
		}
	}
	if (c->fd >= 0 && got == 0) {
		ended(c);
		return;
	}
	if (c->fd >= 0)
		fail(c);
	begin(c);
}

static void go_on_until(uint64_t end)
{
	struct epoll_event events[64];
	uint64_t now = now_ns();

	while (now < end && (run.timed || run.connected < run.count)) {
		int n = epoll_wait(run.epoll, events, 64,
				   (int)((end - now) / 1000000 + 1));

		for (int i = 0; i < n; i++)
			on_event(events[i].data.ptr, events[i].events);
		now = now_ns();
	}
}

/* "address:port"; false when it isn't. */
static bool parse_target(char *text, struct sockaddr_in *ret)
{
	char *colon = strchr(text, ':');

	if (!colon)
		return false;
	*colon = 0;
	*ret = (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port =
					     htons((uint16_t)atoi(colon + 1)) };
	return inet_pton(AF_INET, text, &ret->sin_addr) == 1;
}

static bool parse(char *line)
{
	char *save, *word = strtok_r(line, " \n", &save);

	run = (struct run){ .mode = MODES };
	for (int i = 0; word && i < MODES; i++)
		if (strcmp(word, modes[i].name) == 0)
			run.mode = (enum mode)i;
	word = strtok_r(NULL, " \n", &save);
	run.duration = word ? strtoull(word, NULL, 10) * 1000000 : 0;
	word = strtok_r(NULL, " \n", &save);
	run.count = word ? strtoul(word, NULL, 10) : 0;
	while ((word = strtok_r(NULL, " \n", &save)) &&
	       run.to_count < MAX_TARGETS)
		if (!parse_target(word, &run.to[run.to_count++]))
			return false;
	return run.mode != MODES && run.duration && run.count &&
	       run.count <= MAX_CONNECTIONS && run.to_count;
}

static void measure(void)
{
	uint64_t began;

	run.epoll = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < run.count; i++)
		begin(&connections[i]);
	if (run.mode != NEW)
		go_on_until(now_ns() + 2000000000);
	began = now_ns();
	run.timed = true;
	go_on_until(began + run.duration);
	printf("%.6f %llu %llu %llu %zu\n", (double)(now_ns() - began) / 1e9,
	       (unsigned long long)run.answers, (unsigned long long)run.bytes,
	       (unsigned long long)run.failures, run.connected);
	fflush(stdout);
	for (size_t i = 0; i < run.count; i++)
		drop(&connections[i]);
	close(run.epoll);
}

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		if (!parse(line)) {
			fprintf(stderr, "http_bench: not understood\n");
			return 64;
		}
		measure();
	}
	return 0;
}
