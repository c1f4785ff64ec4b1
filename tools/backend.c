/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A server that says who it is: the workload of the guest image, of the demo
 * and of the tests.  HTTP/1.1 with keep-alive and pipelining, and UDP echo
 * that answers from the address it was asked at.  One thread, one epoll set.
 *
 *   xlb-backend [-n NAME] [-a ADDRESS]... [-p PORT]... [-u PORT]... [-f FILE]
 *
 * Without -a it listens on all addresses of both families, without -p and -u
 * on tcp port 8080.  Without -n its name is $XLB_NAME, or the host's.
 *
 *   /            its name
 *   /healthz     200, or 503 while FILE exists
 *   /bytes/N     N bytes
 *   /slow/MS     its name after MS milliseconds
 *   /burn/MS     its name after MS milliseconds of CPU time
 *   /echo        its name, the client's address and its own
 *
 * A request's body is read and thrown away.
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
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PLACES 16 /* addresses, tcp ports or udp ports on the line */
#define REQUEST_MAX 4096
#define EVENTS 256
#define DATAGRAM_MAX 65536
#define BURN_SLICE_NS 2000000ULL /* others get their turn in between */
#define NS_PER_MS 1000000ULL

enum kind { KIND_LISTENER, KIND_CONNECTION, KIND_UDP };

struct endpoint { /* what epoll's data points to */
	enum kind kind;
	int fd;
};

struct connection {
	struct endpoint ep;
	char in[REQUEST_MAX];
	size_t in_len;
	char out[640]; /* the head, and a body that we know */
	size_t out_len, out_done;
	uint64_t fill_left; /* bytes of body made up while sending */
	uint64_t body_left; /* bytes of the request's body still to come */
	uint64_t burn_left; /* ns of CPU to use before answering */
	uint64_t due; /* CLOCK_MONOTONIC ns of a delayed answer; 0: none */
	bool close_after;
	bool dead; /* freed after this round of events */
	TAILQ_ENTRY(connection) link; /* in one of the three lists */
};

TAILQ_HEAD(connection_list, connection);
static struct connection_list active = TAILQ_HEAD_INITIALIZER(active);
static struct connection_list delayed = TAILQ_HEAD_INITIALIZER(delayed);
static struct connection_list dead_list = TAILQ_HEAD_INITIALIZER(dead_list);

static struct endpoint endpoints[2 * MAX_PLACES * MAX_PLACES];
static int endpoint_count;
static int epoll_fd;
static char name[128];
static const char *fail_file;
static char fill[65536];

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void watch(struct endpoint *ep, int op, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = ep };

	if (epoll_ctl(epoll_fd, op, ep->fd, &e))
		perror("xlb-backend: epoll_ctl");
}

/* Events of this round may still point to it, so it is freed afterwards. */
static void connection_end(struct connection *c)
{
	if (c->dead)
		return;
	if (c->due)
		TAILQ_REMOVE(&delayed, c, link);
	else
		TAILQ_REMOVE(&active, c, link);
	close(c->ep.fd);
	c->dead = true;
	TAILQ_INSERT_TAIL(&dead_list, c, link);
}

static void free_dead(void)
{
	struct connection *c;

	while ((c = TAILQ_FIRST(&dead_list))) {
		TAILQ_REMOVE(&dead_list, c, link);
		free(c);
	}
}

/* Most delays are alike, so the place is found at once from the tail. */
static void delay_until(struct connection *c, uint64_t due)
{
	struct connection *at;

	TAILQ_REMOVE(&active, c, link);
	c->due = due;
	TAILQ_FOREACH_REVERSE(at, &delayed, connection_list, link)
	if (at->due <= due)
		break;
	if (at)
		TAILQ_INSERT_AFTER(&delayed, at, c, link);
	else
		TAILQ_INSERT_HEAD(&delayed, c, link);
}

/* "address port" of one end of a socket. */
static const char *end_name(int fd, bool peer, char out[80])
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	char host[INET6_ADDRSTRLEN] = "?";
	uint16_t port = 0;

	if (peer)
		(void)getpeername(fd, (struct sockaddr *)&ss, &len);
	else
		(void)getsockname(fd, (struct sockaddr *)&ss, &len);
	if (ss.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		port = ntohs(in->sin_port);
	} else if (ss.ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		port = ntohs(in6->sin6_port);
	}
	snprintf(out, 80, "%s %u", host, port);
	return out;
}

/* text NULL: a body of `bytes` made-up bytes. */
static void answer(struct connection *c, const char *status, const char *text,
		   uint64_t bytes)
{
	int n;

	if (text)
		bytes = strlen(text);
	n = snprintf(c->out, sizeof(c->out),
		     "HTTP/1.1 %s\r\nServer: %s\r\nContent-Type: text/plain\r\n"
		     "Content-Length: %llu\r\n%s\r\n%s",
		     status, name, (unsigned long long)bytes,
		     c->close_after ? "Connection: close\r\n" : "",
		     text ? text : "");
	c->out_len = n < (int)sizeof(c->out) ? (size_t)n : sizeof(c->out) - 1;
	c->out_done = 0;
	c->fill_left = text ? 0 : bytes;
}

static void answer_name(struct connection *c)
{
	char text[sizeof(name) + 1];

	snprintf(text, sizeof(text), "%s\n", name);
	answer(c, "200 OK", text, 0);
}

static void answer_echo(struct connection *c)
{
	char text[320], peer[80], local[80];

	snprintf(text, sizeof(text), "%s client %s server %s\n", name,
		 end_name(c->ep.fd, true, peer),
		 end_name(c->ep.fd, false, local));
	answer(c, "200 OK", text, 0);
}

static void answer_health(struct connection *c)
{
	bool failing = fail_file && !access(fail_file, F_OK);

	answer(c, failing ? "503 Service Unavailable" : "200 OK",
	       failing ? "failing\n" : "ok\n", 0);
}

/* The number after the prefix, at most max; -1 when the path is another. */
static int64_t path_number(const char *path, const char *prefix, int64_t max)
{
	size_t len = strlen(prefix);
	char *end;
	long long n;

	if (strncmp(path, prefix, len) != 0 || path[len] < '0' ||
	    path[len] > '9')
		return -1;
	n = strtoll(path + len, &end, 10);
	if (*end && *end != '?')
		return -1;
	return n < max ? n : max;
}

static void route(struct connection *c, const char *path)
{
	int64_t n;

	if (!strcmp(path, "/") || path[1] == '?') {
		answer_name(c);
	} else if (!strcmp(path, "/healthz")) {
		answer_health(c);
	} else if (!strcmp(path, "/echo")) {
		answer_echo(c);
	} else if ((n = path_number(path, "/bytes/", 1LL << 40)) >= 0) {
		answer(c, "200 OK", NULL, (uint64_t)n);
	} else if ((n = path_number(path, "/slow/", 3600000)) >= 0) {
		delay_until(c,
			    now_ns(CLOCK_MONOTONIC) + (uint64_t)n * NS_PER_MS);
	} else if ((n = path_number(path, "/burn/", 60000)) >= 0) {
		c->burn_left = (uint64_t)n * NS_PER_MS;
		delay_until(c, now_ns(CLOCK_MONOTONIC));
	} else {
		answer(c, "404 Not Found", "no such path\n", 0);
	}
}

struct head { /* of a request, cut into strings */
	char *path;
	char *version;
	char *headers; /* lines that end with \r\n */
};

/* Value of a header, up to the end of all of them, or NULL. */
static const char *header(const struct head *h, const char *key)
{
	const char *line = h->headers;
	size_t len = strlen(key);

	while (*line) {
		if (!strncasecmp(line, key, len) && line[len] == ':')
			return line + len + 1 + strspn(line + len + 1, " \t");
		line = strstr(line, "\r\n");
		if (!line)
			return NULL;
		line += 2;
	}
	return NULL;
}

/* "GET /path HTTP/1.1\r\n" and the headers. */
static bool split_head(char *text, struct head *ret)
{
	char *end = strstr(text, "\r\n");
	char *path = strchr(text, ' ');
	char *version = path ? strchr(path + 1, ' ') : NULL;

	if (!end || !version || version > end || path[1] != '/')
		return false;
	*path = *version = *end = '\0';
	*ret = (struct head){ path + 1, version + 1, end + 2 };
	return true;
}

/* One whole request at the start of c->in, its head `len` bytes long. */
static void request(struct connection *c, size_t len)
{
	struct head h;
	const char *v;

	c->in[len - 2] = '\0'; /* the empty line isn't one of the headers */
	if (!split_head(c->in, &h)) {
		c->close_after = true;
		answer(c, "400 Bad Request", "bad request\n", 0);
	} else {
		v = header(&h, "Connection");
		c->close_after = !strcmp(h.version, "HTTP/1.0") ||
				 (v && !strncasecmp(v, "close", 5));
		v = header(&h, "Content-Length");
		c->body_left = v ? strtoull(v, NULL, 10) : 0;
		route(c, h.path);
	}
	c->in_len -= len;
	memmove(c->in, c->in + len, c->in_len);
}

static void drop_body(struct connection *c)
{
	size_t n = c->body_left < c->in_len ? (size_t)c->body_left : c->in_len;

	c->body_left -= n;
	c->in_len -= n;
	memmove(c->in, c->in + n, c->in_len);
}

/* Sends what is there; 1 when all is sent, 0 when it blocks, -1 on error. */
static int send_some(struct connection *c)
{
	while (c->out_done < c->out_len || c->fill_left) {
		bool head = c->out_done < c->out_len;
		size_t want = head ? c->out_len - c->out_done
			      : c->fill_left < sizeof(fill)
				      ? (size_t)c->fill_left
				      : sizeof(fill);
		ssize_t n = send(c->ep.fd, head ? c->out + c->out_done : fill,
				 want, c->fill_left ? MSG_MORE : 0);

		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		if (head)
			c->out_done += (size_t)n;
		else
			c->fill_left -= (uint64_t)n;
	}
	c->out_len = c->out_done = 0;
	return 1;
}

/*
 * Runs a connection as far as it goes: sends what is ready, drops a body,
 * takes the next request.  Requests that came together are answered in order.
 */
static void advance(struct connection *c)
{
	char *end;
	int sent;

	while (!c->due) {
		sent = send_some(c);
		if (sent < 0 || (sent && c->close_after && !c->body_left)) {
			connection_end(c);
			return;
		}
		drop_body(c);
		watch(&c->ep, EPOLL_CTL_MOD, sent ? EPOLLIN : EPOLLOUT);
		if (!sent || c->body_left)
			return;
		c->in[c->in_len] = '\0';
		end = strstr(c->in, "\r\n\r\n");
		if (!end && c->in_len == REQUEST_MAX - 1)
			connection_end(c);
		if (!end)
			return;
		request(c, (size_t)(end - c->in) + 4);
	}
	/* While it waits only an end of the connection is of interest. */
	watch(&c->ep, EPOLL_CTL_MOD, EPOLLRDHUP);
}

static void connection_event(struct connection *c, uint32_t events)
{
	ssize_t n;

	if (c->dead)
		return;
	if (events & (EPOLLERR | EPOLLHUP) || (c->due && events & EPOLLRDHUP)) {
		connection_end(c);
		return;
	}
	if (events & EPOLLIN) {
		n = recv(c->ep.fd, c->in + c->in_len,
			 REQUEST_MAX - 1 - c->in_len, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			connection_end(c);
			return;
		}
		c->in_len += n > 0 ? (size_t)n : 0;
	}
	advance(c);
}

static void accept_all(struct endpoint *listener)
{
	struct connection *c;
	int fd, on = 1;

	while ((fd = accept4(listener->fd, NULL, NULL,
			     SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		c = calloc(1, sizeof(*c));
		if (!c) {
			close(fd);
			return;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		c->ep = (struct endpoint){ KIND_CONNECTION, fd };
		TAILQ_INSERT_TAIL(&active, c, link);
		watch(&c->ep, EPOLL_CTL_ADD, EPOLLIN);
	}
}

/*
 * The source of the answer is the address that was asked.  The interface is
 * left to the route, except for link-local addresses, which need it.
 */
static void answer_from(struct cmsghdr *c)
{
	struct in6_pktinfo *six = (struct in6_pktinfo *)CMSG_DATA(c);
	struct in_pktinfo *four = (struct in_pktinfo *)CMSG_DATA(c);

	if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
		four->ipi_spec_dst = four->ipi_addr;
		four->ipi_ifindex = 0;
	} else if (c->cmsg_level == IPPROTO_IPV6 &&
		   c->cmsg_type == IPV6_PKTINFO &&
		   !IN6_IS_ADDR_LINKLOCAL(&six->ipi6_addr)) {
		six->ipi6_ifindex = 0;
	}
}

static void udp_event(int fd)
{
	static char data[DATAGRAM_MAX];
	char prefix[sizeof(name) + 1];
	int prefix_len = snprintf(prefix, sizeof(prefix), "%s ", name);
	union { /* room and alignment for one control message */
		char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
		struct cmsghdr align;
	} control;
	struct sockaddr_storage peer;
	struct cmsghdr *c;
	ssize_t n;

	for (;;) {
		struct iovec iov[2] = { { data, sizeof(data) } };
		struct msghdr m = { .msg_name = &peer,
				    .msg_namelen = sizeof(peer),
				    .msg_iov = iov,
				    .msg_iovlen = 1,
				    .msg_control = &control,
				    .msg_controllen = sizeof(control) };

		n = recvmsg(fd, &m, 0);
		if (n < 0)
			return;
		c = CMSG_FIRSTHDR(&m);
		if (c)
			answer_from(c);
		iov[0] = (struct iovec){ prefix, (size_t)prefix_len };
		iov[1] = (struct iovec){ data, (size_t)n };
		m.msg_iovlen = 2;
		m.msg_flags = 0;
		(void)sendmsg(fd, &m, 0); /* as lossy as UDP is */
	}
}

/* Burners get a slice each, oldest first; the rest waits for its time. */
static void run_delayed(void)
{
	uint64_t now = now_ns(CLOCK_MONOTONIC), start, used;
	struct connection *c, *next;

	for (c = TAILQ_FIRST(&delayed); c && c->due <= now; c = next) {
		next = TAILQ_NEXT(c, link);
		start = now_ns(CLOCK_THREAD_CPUTIME_ID);
		do {
			used = now_ns(CLOCK_THREAD_CPUTIME_ID) - start;
		} while (used < c->burn_left && used < BURN_SLICE_NS);
		if (used < c->burn_left) {
			c->burn_left -= used;
			continue;
		}
		c->burn_left = 0;
		TAILQ_REMOVE(&delayed, c, link);
		TAILQ_INSERT_TAIL(&active, c, link);
		c->due = 0;
		answer_name(c);
		advance(c);
	}
}

/* Milliseconds until the next delayed answer, rounded up; -1: none. */
static int next_timeout(void)
{
	struct connection *c = TAILQ_FIRST(&delayed);
	uint64_t now = now_ns(CLOCK_MONOTONIC);

	if (!c)
		return -1;
	return c->due <= now
		       ? 0
		       : (int)((c->due - now + NS_PER_MS - 1) / NS_PER_MS);
}

static void dispatch(struct endpoint *ep, uint32_t events)
{
	switch (ep->kind) {
	case KIND_LISTENER:
		accept_all(ep);
		break;
	case KIND_UDP:
		udp_event(ep->fd);
		break;
	case KIND_CONNECTION:
		connection_event((struct connection *)ep, events);
		break;
	}
}

static void serve(void)
{
	struct epoll_event events[EVENTS];
	int n;

	for (;;) {
		n = epoll_wait(epoll_fd, events, EVENTS, next_timeout());
		for (int i = 0; i < n; i++)
			dispatch(events[i].data.ptr, events[i].events);
		run_delayed();
		free_dead();
	}
}

static socklen_t make_address(const char *address, uint16_t port,
			      struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return sizeof(*in);
	}
	if (inet_pton(AF_INET6, address, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		return sizeof(*in6);
	}
	fprintf(stderr, "xlb-backend: %s: not an address\n", address);
	exit(64);
}

/* Exits when it can't, unless the address is a wildcard of an absent family. */
static void listen_at(const char *address, uint16_t port, int type)
{
	struct sockaddr_storage ss;
	socklen_t len = make_address(address, port, &ss);
	int fd = socket(ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct endpoint *ep = &endpoints[endpoint_count++];
	int on = 1;

	if (fd < 0 && errno == EAFNOSUPPORT && !strcmp(address, "::"))
		return;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* The address may still be tentative, or come later. */
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
	if (ss.ss_family == AF_INET6) {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	} else {
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&ss, len) ||
	    (type == SOCK_STREAM && listen(fd, 4096))) {
		fprintf(stderr, "xlb-backend: %s port %u: %s\n", address, port,
			strerror(errno));
		exit(1);
	}
	*ep = (struct endpoint){ type == SOCK_STREAM ? KIND_LISTENER : KIND_UDP,
				 fd };
	watch(ep, EPOLL_CTL_ADD, EPOLLIN);
}

struct options {
	const char *addresses[MAX_PLACES];
	uint16_t tcp[MAX_PLACES];
	uint16_t udp[MAX_PLACES];
	int address_count, tcp_count, udp_count;
};

static void usage(void)
{
	fputs("usage: xlb-backend [-n NAME] [-a ADDRESS]... [-p TCP_PORT]... "
	      "[-u UDP_PORT]... [-f FAIL_FILE]\n",
	      stderr);
	exit(64);
}

static void add_port(const char *s, uint16_t *ports, int *count)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (*end || !n || n > 65535 || *count == MAX_PLACES)
		usage();
	ports[(*count)++] = (uint16_t)n;
}

static void parse_options(int argc, char **argv, struct options *o)
{
	int opt;

	while ((opt = getopt(argc, argv, "n:a:p:u:f:")) != -1) {
		if (opt == 'n')
			snprintf(name, sizeof(name), "%s", optarg);
		else if (opt == 'p')
			add_port(optarg, o->tcp, &o->tcp_count);
		else if (opt == 'u')
			add_port(optarg, o->udp, &o->udp_count);
		else if (opt == 'f')
			fail_file = optarg;
		else if (opt == 'a' && o->address_count < MAX_PLACES)
			o->addresses[o->address_count++] = optarg;
		else
			usage();
	}
	if (optind != argc)
		usage();
	if (!o->tcp_count && !o->udp_count)
		o->tcp[o->tcp_count++] = 8080;
	if (!o->address_count) {
		o->addresses[o->address_count++] = "0.0.0.0";
		o->addresses[o->address_count++] = "::";
	}
}

static void set_name(void)
{
	const char *env = getenv("XLB_NAME");

	if (!name[0] && env)
		snprintf(name, sizeof(name), "%s", env);
	if (!name[0] && gethostname(name, sizeof(name) - 1))
		snprintf(name, sizeof(name), "nobody");
}

/* As a container's first process nothing but a handler ends it. */
static void on_term(int sig)
{
	(void)sig;
	_exit(0);
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct rlimit files;

	parse_options(argc, argv, &o);
	set_name();
	memset(fill, 'x', sizeof(fill));
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_term);
	signal(SIGINT, on_term);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (int a = 0; a < o.address_count; a++) {
		for (int i = 0; i < o.tcp_count; i++)
			listen_at(o.addresses[a], o.tcp[i], SOCK_STREAM);
		for (int i = 0; i < o.udp_count; i++)
			listen_at(o.addresses[a], o.udp[i], SOCK_DGRAM);
	}
	serve();
}
