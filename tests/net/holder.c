/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds many TCP connections and says of each which server it speaks to, and
 * when that changes or ends.  One process, one thread; a test starts several,
 * because of the limit of open files.
 *
 *   holder --to ADDRESS:PORT... --from ADDRESS... [--connections N]
 *          [--rate OPENED_A_SECOND] [--churn REOPENED_A_SECOND]
 *          [--window SECONDS] [--seed N]
 *
 * A request is "GET /" of HTTP/1.1, the body of the answer the server's name
 * (xlb-backend).  A connection asks again after a pause that is its own: most
 * a few seconds, a third of them up to 0.85 of the window.
 *
 * Output, a JSON object a line, "at" in seconds of CLOCK_MONOTONIC:
 *   {"at", "held", "opened", "answers", "failed"}       each second
 *   {"at", "event": "wrong", "server", "was", "to"}     another one answered
 *   {"at", "event": "lost", "server", "to", "why"}      reset, ended, no answer
 * On SIGTERM every connection asks once more, and when all have answered:
 *   {"at", "summary": true, "held", "answered", "opened", "answers", "failed"}
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PLACES 64
#define NAME 32
#define EVENTS 512
#define PATIENCE 20.0 /* seconds for an answer */
#define LAST_PATIENCE 25.0 /* for all of the last ones */
#define CONNECT_PATIENCE 10.0

static const char request[] = "GET / HTTP/1.1\r\nHost: held\r\n\r\n";

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

enum phase { CLOSED, CONNECTING, WAITING, RESTING };

struct connection {
	enum phase phase;
	int fd;
	double due; /* when it asks, or runs out of patience */
	double pause;
	char server[NAME]; /* "": has not answered yet */
	int to;
	char in[512];
	size_t in_len;
	bool last_answered;
};

static union address to[PLACES], from[PLACES];
static const char *to_text[PLACES];
static int to_count, from_count;
static size_t count = 1000;
static double rate = 1000, churn, window = 20;
static uint64_t state = 1;

static struct connection *held;
static int epoll_fd;
static uint64_t opened, answers, failed;
static size_t next_closed;
static double last_tick;
static volatile sig_atomic_t ending;

static double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* xorshift64* (Vigna 2016), in [0, 1). */
static double chance(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (double)((state * 0x2545f4914f6cdd1dULL) >> 11) / 0x1p53;
}

static void on_term(int signo)
{
	(void)signo;
	ending = 1;
}

static void parse_address(const char *text, union address *ret, bool port)
{
	char host[64];
	const char *colon = port ? strrchr(text, ':') : NULL;
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	uint16_t number =
		htons((uint16_t)(colon ? strtoul(colon + 1, NULL, 10) : 0));

	if (*text == '[') {
		text++;
		len -= 2;
	}
	if (len < sizeof(host)) {
		memcpy(host, text, len);
		host[len] = '\0';
		memset(ret, 0, sizeof(*ret));
		if (inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1) {
			ret->v4.sin_family = AF_INET;
			ret->v4.sin_port = number;
			return;
		}
		if (inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1) {
			ret->v6.sin6_family = AF_INET6;
			ret->v6.sin6_port = number;
			return;
		}
	}
	fprintf(stderr, "holder: not an address: %s\n", text);
	exit(2);
}

static void say_event(const struct connection *c, double now, const char *event,
		      const char *key, const char *value)
{
	printf("{\"at\": %.3f, \"event\": \"%s\", \"server\": \"%s\", "
	       "\"to\": \"%s\", \"%s\": \"%s\"}\n",
	       now, event, c->server, to_text[c->to], key, value);
}

static void drop(struct connection *c)
{
	if (c->phase == CLOSED)
		return;
	close(c->fd);
	c->phase = CLOSED;
	c->server[0] = '\0';
	c->in_len = 0;
}

/* Before its first answer a connection is an attempt, not a loss. */
static void lose(struct connection *c, double now, const char *why)
{
	if (c->server[0])
		say_event(c, now, "lost", "why", why);
	else
		failed++;
	drop(c);
}

static void watch(struct connection *c, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = c };

	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void open_one(struct connection *c, double now)
{
	struct epoll_event e = { .events = EPOLLOUT, .data.ptr = c };
	const union address *a;
	int start = (int)(chance() * from_count), one = 1;

	c->to = (int)(chance() * to_count);
	a = &to[c->to];
	c->fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (c->fd < 0) {
		failed++;
		return;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
		   sizeof(one));
	for (int i = 0; i < from_count; i++) {
		const union address *f = &from[(start + i) % from_count];

		if (f->any.sa_family != a->any.sa_family)
			continue;
		if (!bind(c->fd, &f->any, sizeof(*f)))
			break;
	}
	c->phase = CONNECTING;
	c->due = now + CONNECT_PATIENCE;
	c->pause = chance() < 0.66 ? 1.5 + chance() * 3.5
				   : window * (0.3 + chance() * 0.55);
	opened++;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
	if (connect(c->fd, &a->any, sizeof(*a)) && errno != EINPROGRESS)
		lose(c, now, strerror(errno));
}

static void ask(struct connection *c, double now)
{
	c->in_len = 0;
	if (send(c->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0) {
		lose(c, now, strerror(errno));
		return;
	}
	c->phase = WAITING;
	c->due = now + PATIENCE;
	watch(c, EPOLLIN);
}

/* The body of a whole answer, or NULL. */
static const char *body_of(struct connection *c)
{
	char *body, *length;

	c->in[c->in_len] = '\0';
	body = strstr(c->in, "\r\n\r\n");
	length = strcasestr(c->in, "content-length:");
	if (!body || !length ||
	    strlen(body + 4) < strtoul(length + 15, NULL, 10))
		return NULL;
	body += 4;
	body[strcspn(body, "\r\n")] = '\0';
	return body;
}

static void answered(struct connection *c, double now, const char *server)
{
	answers++;
	if (c->server[0] && strcmp(c->server, server) != 0)
		say_event(c, now, "wrong", "was", server);
	snprintf(c->server, sizeof(c->server), "%s", server);
	c->phase = RESTING;
	c->last_answered = ending;
	c->due = now + c->pause;
}

static void readable(struct connection *c, double now)
{
	ssize_t n = recv(c->fd, c->in + c->in_len,
			 sizeof(c->in) - 1 - c->in_len, 0);
	const char *body;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		lose(c, now, n ? strerror(errno) : "ended");
		return;
	}
	c->in_len += (size_t)n;
	body = body_of(c);
	if (body)
		answered(c, now, body);
}

static void ready(struct connection *c, uint32_t events, double now)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (c->phase != CONNECTING) {
		if (events)
			readable(c, now);
		return;
	}
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err)
		lose(c, now, strerror(err));
	else
		ask(c, now);
}

/* Those whose time has come; what is closed opens again, at the rate. */
static void timers(double now)
{
	double budget = (now - last_tick) * rate,
	       reopen = (now - last_tick) * churn;

	last_tick = now;
	while (reopen > chance() && !ending) {
		drop(&held[(size_t)(chance() * (double)count)]);
		reopen -= 1;
	}
	for (size_t i = 0; i < count; i++) {
		struct connection *c = &held[(next_closed + i) % count];

		if (c->phase == CLOSED && budget > 0 && !ending) {
			budget -= 1;
			open_one(c, now);
		} else if (c->phase == RESTING &&
			   (now >= c->due || (ending && !c->last_answered))) {
			ask(c, now);
		} else if ((c->phase == WAITING || c->phase == CONNECTING) &&
			   now >= c->due) {
			lose(c, now, "no answer");
		}
	}
	next_closed = (next_closed + 1) % count;
}

static size_t held_now(bool last)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += held[i].server[0] && (!last || held[i].last_answered);
	return n;
}

static void say_second(double now, const char *more)
{
	printf("{\"at\": %.3f, %s\"held\": %zu, \"answered\": %zu, "
	       "\"opened\": %llu, \"answers\": %llu, \"failed\": %llu}\n",
	       now, more, held_now(false), held_now(true),
	       (unsigned long long)opened, (unsigned long long)answers,
	       (unsigned long long)failed);
	fflush(stdout);
}

static void turn(int timeout)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(epoll_fd, events, EVENTS, timeout);
	double now = now_seconds();

	for (int i = 0; i < n; i++)
		ready(events[i].data.ptr, events[i].events, now);
}

static void run(void)
{
	double said = now_seconds(), until = 0;

	last_tick = said;
	for (;;) {
		double now;

		turn(10);
		now = now_seconds();
		if (now - last_tick >= 0.02)
			timers(now);
		if (now - said >= 1) {
			said = now;
			say_second(now, "");
		}
		if (ending && until == 0)
			until = now + LAST_PATIENCE;
		if (until != 0 &&
		    (now >= until || held_now(true) == held_now(false)))
			break;
	}
	say_second(now_seconds(), "\"summary\": true, ");
}

static const char *value(int argc, char **argv, int *i)
{
	if (*i + 1 < argc)
		return argv[++*i];
	fprintf(stderr, "holder: %s needs a value\n", argv[*i]);
	exit(2);
}

static void add_place(const char *text, bool target)
{
	if ((target ? to_count : from_count) == PLACES) {
		fprintf(stderr, "holder: at most %d addresses\n", PLACES);
		exit(2);
	}
	if (target)
		to_text[to_count] = text;
	parse_address(text, target ? &to[to_count++] : &from[from_count++],
		      target);
}

static void options(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *v = value(argc, argv, &i);

		if (!strcmp(name, "--to"))
			add_place(v, true);
		else if (!strcmp(name, "--from"))
			add_place(v, false);
		else if (!strcmp(name, "--connections"))
			count = strtoul(v, NULL, 10);
		else if (!strcmp(name, "--rate"))
			rate = strtod(v, NULL);
		else if (!strcmp(name, "--churn"))
			churn = strtod(v, NULL);
		else if (!strcmp(name, "--window"))
			window = strtod(v, NULL);
		else if (!strcmp(name, "--seed"))
			state = strtoull(v, NULL, 10) * 2 + 1;
		else {
			fprintf(stderr, "holder: unknown option %s\n", name);
			exit(2);
		}
	}
	if (!to_count || !from_count || !count) {
		fprintf(stderr, "holder: --to and --from are needed\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct sigaction term = { .sa_handler = on_term };

	options(argc, argv);
	sigaction(SIGTERM, &term, NULL);
	held = calloc(count, sizeof(*held));
	epoll_fd = epoll_create1(0);
	if (!held || epoll_fd < 0) {
		perror("holder");
		return 1;
	}
	run();
	return 0;
}
