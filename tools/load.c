/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A load generator: real connections, many of them, from one thread.
 *
 *   xlb-load --to ADDRESS:PORT [--to ...] [options]
 *
 *   --mode new        every request on a connection of its own (default)
 *   --mode keep       --connections N long-lived ones, a request on each
 *                     every --interval seconds
 *   --mode udp        a datagram of --bytes from a new port, echoed (behind
 *                     the server's name, if it tells it)
 *   --mode udp-keep   --connections N sockets, a datagram every --interval
 *   --profile low|mid|high     20, 100 or 500 a second
 *   --rate N          so many a second (new, udp: requests; keep: opened)
 *   --control FILE    holds a profile or a rate; read at start, every second
 *                     and on SIGHUP
 *   --path PATH       default /
 *   --bytes N         ask for /bytes/N and count what comes; size of datagrams
 *   --slow MIN-MAX    ask for /slow/MS, MS drawn from the range
 *   --from FIRST-LAST source addresses, taken in turn; may be repeated
 *   --duration S      seconds, default 60; 0 only with --count
 *   --count N         requests
 *   --timeout S       without progress a request has failed, default 5
 *
 * Prints a JSON object a second and one at the end ("summary": true).  An
 * answer counts for the backend that its Server header names, or else for the
 * first word of its body.  Exit status 0: all answered, 1: some failed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL
#define MAX_TARGETS 16
#define MAX_SOURCES 8
#define MAX_NAMES 256
#define HEAD_MAX 2048
#define EVENTS 256
#define DATAGRAM_MAX 60000
#define MAX_BURST 200 /* requests started at one wake-up */

enum mode { MODE_NEW, MODE_KEEP, MODE_UDP, MODE_UDP_KEEP };

enum failure {
	FAIL_REFUSED,
	FAIL_RESET,
	FAIL_TIMEOUT,
	FAIL_UNREACHABLE,
	FAIL_CLOSED, /* ended before the answer was whole */
	FAIL_STATUS, /* an answer other than 200 */
	FAIL_GARBLED,
	FAIL_LOCAL, /* no socket, no port */
	FAIL_MAX,
};

static const char *const failure_names[FAIL_MAX] = {
	"refused", "reset",  "timeout", "unreachable",
	"closed",  "status", "garbled", "local",
};

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

struct source_range {
	struct address first;
	uint32_t count, next;
};

enum state { CONNECTING, WAITING_HEAD, WAITING_BODY, IDLE };

struct connection {
	int fd;
	enum state state;
	bool keep; /* has more requests to come */
	bool until_close; /* the body ends with the connection */
	uint64_t opened, began; /* ns: connect(), this request */
	uint64_t due; /* ns: gives up, or asks again (IDLE) */
	uint64_t body_left;
	uint32_t number; /* of the datagram */
	size_t head_len;
	char head[HEAD_MAX];
	char name[64];
	TAILQ_ENTRY(connection) link; /* in waiting or idle, by due */
};

TAILQ_HEAD(queue, connection);
static struct queue waiting = TAILQ_HEAD_INITIALIZER(waiting);
static struct queue idle = TAILQ_HEAD_INITIALIZER(idle);

static struct options {
	enum mode mode;
	struct address to[MAX_TARGETS];
	size_t to_count;
	struct source_range from[MAX_SOURCES];
	size_t from_count;
	const char *control;
	char path[512];
	long slow_min, slow_max;
	uint64_t bytes;
	double rate;
	uint32_t connections;
	uint64_t interval, timeout, duration; /* ns */
	uint64_t count;
} opt = {
	.path = "/",
	.slow_max = -1,
	.rate = 20,
	.connections = 10,
	.interval = NS_PER_S,
	.timeout = 5 * NS_PER_S,
	.duration = 60 * NS_PER_S,
};

/* Latencies: 16 steps to each doubling, from 1 us on. */
#define STEPS 16
#define BUCKETS 512UL /* 32 doublings */
struct histogram {
	uint64_t bucket[BUCKETS];
	uint64_t total, max;
};

struct tally {
	uint64_t requests, answers, bytes;
	uint64_t failures[FAIL_MAX];
	uint64_t by_name[MAX_NAMES];
	struct histogram latency;
};
static struct tally all, second; /* whole run, since the last line */

static char names[MAX_NAMES][64];
static size_t name_count;
static uint64_t started, opened_total, broken, held, held_max;
static uint32_t open_now;
static int epoll_fd;
static char scrap[1 << 16];
static volatile sig_atomic_t stop_asked, reread_asked;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static bool is_udp(void)
{
	return opt.mode == MODE_UDP || opt.mode == MODE_UDP_KEEP;
}

static bool is_keep(void)
{
	return opt.mode == MODE_KEEP || opt.mode == MODE_UDP_KEEP;
}

/* ---- counting ---------------------------------------------------------- */

static void histogram_add(struct histogram *h, uint64_t ns)
{
	uint64_t us = ns / 1000 ? ns / 1000 : 1;
	int log = 63 - __builtin_clzll(us);
	uint64_t part = log >= 4 ? (us >> (log - 4)) & (STEPS - 1)
				 : (us << (4 - log)) & (STEPS - 1);
	uint64_t i = (uint64_t)log * STEPS + part;

	h->bucket[i < BUCKETS ? i : BUCKETS - 1]++;
	h->total++;
	if (ns > h->max)
		h->max = ns;
}

/* Milliseconds under which the given share of all lies. */
static double histogram_ms(const struct histogram *h, double share)
{
	uint64_t rank = (uint64_t)((double)h->total * share), seen = 0;

	if (!h->total)
		return 0;
	for (int i = 0; i < (int)BUCKETS; i++) {
		int log = i / STEPS;
		double low = (double)(1ULL << log);

		seen += h->bucket[i];
		if (seen > rank)
			return low * (1 + (i % STEPS + 0.5) / STEPS) / 1000;
	}
	return (double)h->max / 1e6;
}

static size_t name_index(const char *name)
{
	size_t i;

	for (i = 0; i < name_count; i++)
		if (!strcmp(names[i], name))
			return i;
	if (name_count == MAX_NAMES)
		return MAX_NAMES - 1;
	snprintf(names[name_count], sizeof(names[0]), "%s", name);
	return name_count++;
}

static void count_answer(const struct connection *c)
{
	uint64_t took = now_ns() - c->began;
	size_t name = name_index(c->name);
	struct tally *tallies[] = { &all, &second };

	for (int i = 0; i < 2; i++) {
		tallies[i]->answers++;
		tallies[i]->by_name[name]++;
		histogram_add(&tallies[i]->latency, took);
	}
}

static void count_failure(enum failure f)
{
	all.failures[f]++;
	second.failures[f]++;
}

static void count_request(void)
{
	all.requests++;
	second.requests++;
}

static void count_bytes(uint64_t n)
{
	all.bytes += n;
	second.bytes += n;
}

static uint64_t failures(const struct tally *t)
{
	uint64_t sum = 0;

	for (int i = 0; i < FAIL_MAX; i++)
		sum += t->failures[i];
	return sum;
}

static void print_string(const char *s)
{
	putchar('"');
	for (; *s; s++)
		if (*s == '"' || *s == '\\' || (unsigned char)*s < ' ')
			printf("\\u%04x", (unsigned int)(unsigned char)*s);
		else
			putchar(*s);
	putchar('"');
}

static void print_tally(const struct tally *t)
{
	const char *comma = "";

	printf("\"requests\": %" PRIu64 ", \"answers\": %" PRIu64
	       ", \"failed\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"failures\": {",
	       t->requests, t->answers, failures(t), t->bytes);
	for (int i = 0; i < FAIL_MAX; i++) {
		if (!t->failures[i])
			continue;
		printf("%s\"%s\": %" PRIu64, comma, failure_names[i],
		       t->failures[i]);
		comma = ", ";
	}
	printf("}, \"backends\": {");
	comma = "";
	for (size_t i = 0; i < name_count; i++) {
		if (!t->by_name[i])
			continue;
		printf("%s", comma);
		print_string(names[i]);
		printf(": %" PRIu64, t->by_name[i]);
		comma = ", ";
	}
	printf("}, \"latency_ms\": {\"p50\": %.3f, \"p95\": %.3f, "
	       "\"p99\": %.3f, \"max\": %.3f}",
	       histogram_ms(&t->latency, 0.50), histogram_ms(&t->latency, 0.95),
	       histogram_ms(&t->latency, 0.99), (double)t->latency.max / 1e6);
}

static void print_second(void)
{
	printf("{\"seconds\": %.1f, \"rate\": %g, \"open\": %" PRIu32 ", ",
	       (double)(now_ns() - started) / 1e9, opt.rate, open_now);
	print_tally(&second);
	printf("}\n");
	fflush(stdout);
	memset(&second, 0, sizeof(second));
}

static void print_summary(void)
{
	printf("{\"summary\": true, \"seconds\": %.1f, ",
	       (double)(now_ns() - started) / 1e9);
	print_tally(&all);
	printf(", \"connections\": {\"opened\": %" PRIu64
	       ", \"held_max\": %" PRIu64 ", \"broken\": %" PRIu64 "}}\n",
	       opened_total, held_max, broken);
	fflush(stdout);
}

/* ---- one connection ---------------------------------------------------- */

static void enqueue(struct queue *q, struct connection *c, uint64_t due)
{
	c->due = due;
	TAILQ_INSERT_TAIL(q, c, link);
}

static void dequeue(struct connection *c)
{
	TAILQ_REMOVE(c->state == IDLE ? &idle : &waiting, c, link);
}

static void connection_end(struct connection *c)
{
	dequeue(c);
	close(c->fd);
	open_now--;
	free(c);
}

static void connection_fail(struct connection *c, enum failure f)
{
	if (is_keep() && c->state != CONNECTING) {
		broken++;
		held--;
	}
	count_failure(f);
	connection_end(c);
}

static enum failure failure_of(int err)
{
	switch (err) {
	case ECONNREFUSED:
		return FAIL_REFUSED;
	case ECONNRESET:
	case EPIPE:
		return FAIL_RESET;
	case ETIMEDOUT:
		return FAIL_TIMEOUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
		return FAIL_UNREACHABLE;
	default:
		return FAIL_LOCAL;
	}
}

static void request_path(char *ret, size_t size)
{
	long range = opt.slow_max - opt.slow_min + 1;

	if (opt.slow_max >= 0)
		snprintf(ret, size, "/slow/%ld",
			 opt.slow_min + (long)(random() % range));
	else if (opt.bytes)
		snprintf(ret, size, "/bytes/%" PRIu64, opt.bytes);
	else
		snprintf(ret, size, "%s", opt.path);
}

static int send_http(struct connection *c)
{
	char path[512], text[768];
	int len;

	request_path(path, sizeof(path));
	len = snprintf(
		text, sizeof(text),
		"GET %s HTTP/1.1\r\nHost: xlb-load\r\nConnection: %s\r\n\r\n",
		path, c->keep ? "keep-alive" : "close");
	/* A fresh socket's buffer takes so little whole. */
	if (send(c->fd, text, (size_t)len, MSG_NOSIGNAL) != len)
		return -(errno ? errno : EPIPE);
	return 0;
}

static size_t datagram_len(void)
{
	return opt.bytes < sizeof(uint32_t) ? sizeof(uint32_t)
					    : (size_t)opt.bytes;
}

static int send_datagram(struct connection *c)
{
	size_t len = datagram_len();

	c->number++;
	memset(scrap, 'x', len);
	memcpy(scrap, &c->number, sizeof(c->number));
	return send(c->fd, scrap, len, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Asks on an open connection; false: it is gone. */
static bool ask(struct connection *c)
{
	int err = is_udp() ? send_datagram(c) : send_http(c);

	dequeue(c);
	c->state = WAITING_HEAD;
	c->head_len = 0;
	enqueue(&waiting, c, now_ns() + opt.timeout);
	if (err)
		connection_fail(c, failure_of(-err));
	return !err;
}

static void answered(struct connection *c)
{
	count_answer(c);
	if (!c->keep) {
		connection_end(c);
		return;
	}
	dequeue(c);
	c->state = IDLE;
	/* In steps of the interval, so that slow answers don't shift it. */
	enqueue(&idle, c, c->began + opt.interval);
}

static void first_word(const char *text, size_t len, char *ret, size_t size)
{
	size_t n = 0;

	while (n < len && n + 1 < size && (unsigned char)text[n] > ' ')
		n++;
	memcpy(ret, text, n);
	ret[n] = 0;
}

/* Value of a header in a head that ends with NUL, or NULL. */
static const char *header(const char *head, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line;
	     line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, name, len) != 0 ||
		    line[2 + len] != ':')
			continue;
		line += 2 + len + 1;
		return line + strspn(line, " ");
	}
	return NULL;
}

/* The head is whole; body: what came behind it. */
static void read_head(struct connection *c, const char *body, size_t body_len)
{
	const char *length = header(c->head, "Content-Length");
	const char *server = header(c->head, "Server");

	if (strncmp(c->head, "HTTP/1.", 7) != 0) {
		connection_fail(c, FAIL_GARBLED);
		return;
	}
	if (strncmp(c->head + 8, " 200", 4) != 0) {
		connection_fail(c, FAIL_STATUS);
		return;
	}
	c->until_close = !length;
	c->body_left = length ? strtoull(length, NULL, 10) : 0;
	if (server)
		first_word(server, strlen(server), c->name, sizeof(c->name));
	else
		first_word(body, body_len, c->name, sizeof(c->name));
	count_bytes(body_len);
	c->state = WAITING_BODY;
	if (!c->until_close && body_len > c->body_left) {
		connection_fail(c, FAIL_GARBLED);
		return;
	}
	if (!c->until_close) {
		c->body_left -= body_len;
		if (!c->body_left)
			answered(c);
	}
}

static void closed_by_peer(struct connection *c)
{
	if (c->state == WAITING_BODY && c->until_close && !c->keep)
		answered(c);
	else
		connection_fail(c, FAIL_CLOSED);
}

/* Reads once; false: no more to do for this connection now. */
static bool read_into_head(struct connection *c)
{
	ssize_t n = recv(c->fd, c->head + c->head_len,
			 sizeof(c->head) - 1 - c->head_len, 0);
	char *end;

	if (n <= 0) {
		if (n == 0)
			closed_by_peer(c);
		else if (errno != EAGAIN)
			connection_fail(c, failure_of(errno));
		return false;
	}
	c->head_len += (size_t)n;
	c->head[c->head_len] = 0;
	end = strstr(c->head, "\r\n\r\n");
	if (end) {
		end[2] = 0;
		read_head(c, end + 4,
			  (size_t)(c->head + c->head_len - end - 4));
		return false;
	}
	if (c->head_len == sizeof(c->head) - 1) {
		connection_fail(c, FAIL_GARBLED);
		return false;
	}
	return true;
}

static void read_body(struct connection *c)
{
	ssize_t n = recv(c->fd, scrap, sizeof(scrap), 0);

	if (n <= 0) {
		if (n == 0)
			closed_by_peer(c);
		else if (errno != EAGAIN)
			connection_fail(c, failure_of(errno));
		return;
	}
	count_bytes((uint64_t)n);
	dequeue(c); /* progress: the clock starts again */
	enqueue(&waiting, c, now_ns() + opt.timeout);
	if (c->until_close)
		return;
	if ((uint64_t)n > c->body_left) {
		connection_fail(c, FAIL_GARBLED);
		return;
	}
	c->body_left -= (uint64_t)n;
	if (!c->body_left)
		answered(c);
}

/* The answer is what was sent, perhaps behind the name of who sent it back. */
static void read_datagram(struct connection *c)
{
	ssize_t n = recv(c->fd, scrap, sizeof(scrap), 0);
	size_t len = datagram_len();
	uint32_t number;

	if (n < 0) {
		if (errno != EAGAIN)
			connection_fail(c, failure_of(errno));
		return;
	}
	if (c->state != WAITING_HEAD || (size_t)n < len)
		return; /* a late one, its request was given up */
	memcpy(&number, scrap + (size_t)n - len, sizeof(number));
	if (number != c->number)
		return;
	if ((size_t)n > len)
		first_word(scrap, (size_t)n - len, c->name, sizeof(c->name));
	count_bytes((uint64_t)n);
	answered(c);
}

static void connected(struct connection *c)
{
	int err = 0;
	socklen_t len = sizeof(err);
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		connection_fail(c, failure_of(err));
		return;
	}
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
	if (is_keep()) {
		held++;
		if (held > held_max)
			held_max = held;
	}
	ask(c);
}

static void connection_event(struct connection *c)
{
	if (c->state == CONNECTING) {
		connected(c);
	} else if (is_udp()) {
		read_datagram(c);
	} else if (c->state == WAITING_BODY) {
		read_body(c);
	} else if (c->state == IDLE) {
		/* Nothing was asked: it can only be the end. */
		char byte;
		ssize_t n = recv(c->fd, &byte, 1, 0);

		if (n >= 0)
			connection_fail(c, n ? FAIL_GARBLED : FAIL_CLOSED);
		else if (errno != EAGAIN)
			connection_fail(c, failure_of(errno));
	} else {
		while (read_into_head(c))
			;
	}
}

/* ---- opening ----------------------------------------------------------- */

static void address_add(struct address *a, uint32_t n)
{
	if (a->sa.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&a->sa;

		in->sin_addr.s_addr = htonl(ntohl(in->sin_addr.s_addr) + n);
	} else {
		uint32_t *w =
			&((struct sockaddr_in6 *)&a->sa)->sin6_addr.s6_addr32[3];

		*w = htonl(ntohl(*w) + n);
	}
}

/* Binds to the next source address of the target's family, if any is given. */
static int bind_source(int fd, sa_family_t family)
{
	int one = 1;

	for (size_t i = 0; i < opt.from_count; i++) {
		struct source_range *r = &opt.from[i];
		struct address a = r->first;

		if (a.sa.ss_family != family)
			continue;
		address_add(&a, r->next++ % r->count);
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
			   sizeof(one));
		return bind(fd, (struct sockaddr *)&a.sa, a.len) ? -errno : 0;
	}
	return 0;
}

static int open_socket(const struct address *to)
{
	int type = is_udp() ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(to->sa.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0);
	int one = 1, err;

	if (fd < 0)
		return -errno;
	err = bind_source(fd, to->sa.ss_family);
	if (!is_udp())
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!err && connect(fd, (const struct sockaddr *)&to->sa, to->len) &&
	    errno != EINPROGRESS)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static void connection_open(void)
{
	static size_t turn;
	int fd = open_socket(&opt.to[turn++ % opt.to_count]);
	struct epoll_event ev = { .events = EPOLLOUT };
	struct connection *c;

	count_request();
	if (fd < 0) {
		count_failure(failure_of(-fd));
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	c->fd = fd;
	c->keep = is_keep();
	c->opened = c->began = now_ns();
	snprintf(c->name, sizeof(c->name), "-");
	ev.data.ptr = c;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	enqueue(&waiting, c, c->began + opt.timeout);
	opened_total++;
	open_now++;
}

/* ---- the run ----------------------------------------------------------- */

static bool count_reached(void)
{
	return opt.count && all.requests >= opt.count;
}

/*
 * How many are due by now at the present rate; what is owed is remembered as
 * a fraction, and a stall isn't made up for by more than a burst.
 */
static void open_due(uint64_t now)
{
	static uint64_t last;
	static double owed = 1; /* the first one at once */

	owed += last ? (double)(now - last) / 1e9 * opt.rate : 0;
	last = now;
	if (owed > MAX_BURST)
		owed = MAX_BURST;
	while (owed >= 1) {
		if (count_reached() ||
		    (is_keep() && opened_total >= opt.connections))
			return;
		connection_open();
		owed -= 1;
	}
}

static void ask_due(uint64_t now)
{
	struct connection *c;

	while ((c = TAILQ_FIRST(&idle)) != NULL && c->due <= now &&
	       !count_reached()) {
		c->began = now;
		count_request();
		ask(c);
	}
}

static void give_up(struct connection *c, uint64_t now)
{
	if (opt.mode != MODE_UDP_KEEP) {
		connection_fail(c, FAIL_TIMEOUT);
		return;
	}
	count_failure(FAIL_TIMEOUT); /* the flow goes on */
	dequeue(c);
	c->state = IDLE;
	enqueue(&idle, c, now + opt.interval);
}

static void give_up_late(uint64_t now)
{
	struct connection *c, *next;

	for (c = TAILQ_FIRST(&waiting); c && c->due <= now; c = next) {
		next = TAILQ_NEXT(c, link);
		give_up(c, now);
	}
}

static double profile_rate(const char *word)
{
	char *end;
	double rate;

	if (!strcmp(word, "low"))
		return 20;
	if (!strcmp(word, "mid"))
		return 100;
	if (!strcmp(word, "high"))
		return 500;
	rate = strtod(word, &end);
	return end == word || *end || rate < 0 || rate > 1e6 ? -1 : rate;
}

static void read_control(void)
{
	char word[64] = "";
	FILE *f = opt.control ? fopen(opt.control, "re") : NULL;
	double rate;

	reread_asked = 0;
	if (!f)
		return;
	if (fscanf(f, "%63s", word) == 1) {
		rate = profile_rate(word);
		if (rate >= 0)
			opt.rate = rate;
		else
			fprintf(stderr, "xlb-load: %s: not a rate: %s\n",
				opt.control, word);
	}
	fclose(f);
}

static bool over(uint64_t now)
{
	if (stop_asked || (opt.duration && now - started >= opt.duration))
		return true;
	return count_reached() && TAILQ_EMPTY(&waiting);
}

static void wait_events(int timeout_ms)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(epoll_fd, ev, EVENTS, timeout_ms);

	/* Each connection is in one event at most, so none is stale. */
	for (int i = 0; i < n; i++)
		connection_event(ev[i].data.ptr);
}

static void run(void)
{
	uint64_t next_line;

	started = now_ns();
	next_line = started + NS_PER_S;
	for (uint64_t now = started; !over(now); now = now_ns()) {
		if (reread_asked)
			read_control();
		open_due(now);
		ask_due(now);
		give_up_late(now);
		if (now >= next_line) {
			print_second();
			read_control();
			next_line += NS_PER_S;
		}
		wait_events(opt.rate > 200 ? 1 : 5);
	}
	/* What was asked is waited for. */
	while (!TAILQ_EMPTY(&waiting)) {
		wait_events(10);
		give_up_late(now_ns());
	}
}

/* ---- options ----------------------------------------------------------- */

static void usage(const char *what, const char *value)
{
	fprintf(stderr, "xlb-load: %s: %s (--help says how)\n", what, value);
	exit(64);
}

static void parse_address(const char *host, uint16_t port, struct address *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ret->sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->sa;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		ret->len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		ret->len = sizeof(*in6);
	} else {
		usage("not an address", host);
	}
}

static uint64_t number(const char *text, uint64_t max)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n > max)
		usage("not a number in range", text);
	return n;
}

static uint64_t seconds(const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || s < 0 || s > 1e6)
		usage("not a number of seconds", text);
	return (uint64_t)(s * 1e9);
}

static void add_target(const char *text)
{
	char host[128];
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!colon || len >= sizeof(host) || opt.to_count == MAX_TARGETS)
		usage("not ADDRESS:PORT", text);
	memcpy(host, text, len);
	host[len] = 0;
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = 0;
		memmove(host, host + 1, len - 1);
	}
	parse_address(host, (uint16_t)number(colon + 1, UINT16_MAX),
		      &opt.to[opt.to_count++]);
}

static uint32_t last_word(const struct address *a)
{
	if (a->sa.ss_family == AF_INET)
		return ntohl(
			((const struct sockaddr_in *)&a->sa)->sin_addr.s_addr);
	return ntohl(
		((const struct sockaddr_in6 *)&a->sa)->sin6_addr.s6_addr32[3]);
}

static void add_sources(char *text)
{
	char *dash = strchr(text, '-');
	struct source_range *r = &opt.from[opt.from_count++];
	struct address last;

	if (opt.from_count > MAX_SOURCES)
		usage("too many ranges", text);
	if (dash)
		*dash = 0;
	parse_address(text, 0, &r->first);
	parse_address(dash ? dash + 1 : text, 0, &last);
	if (last.sa.ss_family != r->first.sa.ss_family ||
	    last_word(&last) < last_word(&r->first))
		usage("not a range", text);
	r->count = last_word(&last) - last_word(&r->first) + 1;
}

static void parse_slow(char *text)
{
	char *dash = strchr(text, '-');

	if (dash)
		*dash = 0;
	opt.slow_min = (long)number(text, 3600000);
	opt.slow_max = dash ? (long)number(dash + 1, 3600000) : opt.slow_min;
	if (opt.slow_max < opt.slow_min)
		usage("not a range", text);
}

static void parse_mode(const char *word)
{
	static const char *const words[] = { "new", "keep", "udp", "udp-keep" };

	for (int i = 0; i < 4; i++) {
		if (strcmp(word, words[i]) != 0)
			continue;
		opt.mode = (enum mode)i;
		return;
	}
	usage("no such mode", word);
}

static void print_help(void)
{
	puts("usage: xlb-load --to ADDRESS:PORT [--to ...]\n"
	     "  [--mode new|keep|udp|udp-keep] [--profile low|mid|high]\n"
	     "  [--rate N] [--control FILE] [--path PATH] [--bytes N]\n"
	     "  [--slow MIN-MAX] [--from FIRST-LAST] [--connections N]\n"
	     "  [--interval S] [--duration S] [--count N] [--timeout S]\n"
	     "The control file (a profile or a rate) is read again every second.\n"
	     "Prints a JSON object a second, and a summary at the end.");
	exit(0);
}

static const struct option long_options[] = {
	{ "to", required_argument, NULL, 't' },
	{ "mode", required_argument, NULL, 'm' },
	{ "profile", required_argument, NULL, 'r' },
	{ "rate", required_argument, NULL, 'r' },
	{ "control", required_argument, NULL, 'C' },
	{ "path", required_argument, NULL, 'p' },
	{ "bytes", required_argument, NULL, 'b' },
	{ "slow", required_argument, NULL, 's' },
	{ "from", required_argument, NULL, 'f' },
	{ "connections", required_argument, NULL, 'n' },
	{ "interval", required_argument, NULL, 'i' },
	{ "duration", required_argument, NULL, 'd' },
	{ "count", required_argument, NULL, 'c' },
	{ "timeout", required_argument, NULL, 'T' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static void set_rate(const char *word)
{
	opt.rate = profile_rate(word);
	if (opt.rate < 0)
		usage("not a rate or profile", word);
}

static void parse_limits(int c, const char *text)
{
	switch (c) {
	case 'n':
		opt.connections = (uint32_t)number(text, 1000000);
		break;
	case 'i':
		opt.interval = seconds(text);
		break;
	case 'd':
		opt.duration = seconds(text);
		break;
	case 'c':
		opt.count = number(text, UINT64_MAX);
		break;
	case 'T':
		opt.timeout = seconds(text);
		break;
	case 'b':
		opt.bytes = number(text, UINT64_MAX);
		break;
	case 'h':
		print_help();
		break;
	default:
		exit(64); /* getopt has said why */
	}
}

static void parse_options(int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 't')
			add_target(optarg);
		else if (c == 'm')
			parse_mode(optarg);
		else if (c == 'r')
			set_rate(optarg);
		else if (c == 'C')
			opt.control = optarg;
		else if (c == 'p')
			snprintf(opt.path, sizeof(opt.path), "%s", optarg);
		else if (c == 's')
			parse_slow(optarg);
		else if (c == 'f')
			add_sources(optarg);
		else
			parse_limits(c, optarg);
	}
	if (optind < argc)
		usage("what is this", argv[optind]);
	if (!opt.to_count)
		usage("missing", "--to");
	if (!opt.duration && !opt.count)
		usage("needs a bound", "--duration or --count");
	if (is_udp() && opt.bytes > DATAGRAM_MAX)
		usage("too large for a datagram", "--bytes");
}

static void on_signal(int number_of)
{
	if (number_of == SIGHUP)
		reread_asked = 1;
	else
		stop_asked = 1;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct rlimit files;

	parse_options(argc, argv);
	sigaction(SIGHUP, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	srandom((unsigned int)now_ns());
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0) {
		perror("xlb-load: epoll");
		return 1;
	}
	read_control();
	run();
	print_summary();
	return failures(&all) || !all.answers ? 1 : 0;
}
