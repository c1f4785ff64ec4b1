/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Probes against real listeners, in a network namespace of the test's own. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "health/health.h"

#define TARGETS_MAX 1200

/* What a listener does with a connection. */
enum manner { ACCEPT, ANSWER, ANSWER_503, GARBAGE, CLOSE, MUTE, PIECES };

struct listener {
	enum manner manner;
	int fd;
	uint16_t port;
	struct loop_source *source;
};

struct client { /* an accepted connection */
	enum manner manner;
	struct loop_source *source, *timer;
	int fd;
	size_t sent;
};

struct seen { /* of one target */
	unsigned int results[PROBE_RESULTS];
	char detail[200]; /* of the last one */
	unsigned int total;
	enum health_state state;
	uint64_t first_at;
	uint64_t longest_gap, last_at;
};

struct world {
	struct loop *loop;
	struct prober *prober;
	struct loop_source *stop;
	struct seen seen[TARGETS_MAX];
	bool until_pass; /* or as soon as one passes */
	unsigned int wanted; /* stop once all targets have so many results */
	size_t targets;
	unsigned int accepted;
	unsigned int clients;
};

static struct world world;

static void hang_up(struct client *c)
{
	loop_remove(c->source);
	loop_remove(c->timer);
	close(c->fd);
	free(c);
	world.clients--;
}

static const char slow_answer[] = "HTTP/1.1 200 OK\r\n";

static void next_piece(void *arg)
{
	struct client *c = arg;

	if (c->sent == strlen(slow_answer))
		return;
	if (send(c->fd, slow_answer + c->sent++, 1, MSG_NOSIGNAL) < 0)
		return;
	loop_arm_in(c->timer, 3 * NS_PER_MS);
}

static void reply(struct client *c)
{
	const char *text = NULL;

	switch (c->manner) {
	case ANSWER:
		text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
		break;
	case ANSWER_503:
		text = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
		break;
	case GARBAGE:
		text = "220 mail.example ESMTP\r\n";
		break;
	case CLOSE:
		shutdown(c->fd, SHUT_WR);
		return;
	case PIECES:
		next_piece(c);
		return;
	case ACCEPT:
	case MUTE:
		return;
	}
	assert_true(send(c->fd, text, strlen(text), MSG_NOSIGNAL) > 0);
}

static void on_client(void *arg, int fd, uint32_t events)
{
	struct client *c = arg;
	char buffer[2048];
	ssize_t n = recv(fd, buffer, sizeof(buffer) - 1, 0);

	(void)events;
	if (n <= 0) {
		hang_up(c);
		return;
	}
	buffer[n] = '\0';
	assert_non_null(strstr(buffer, "GET /healthz HTTP/1.1\r\n"));
	reply(c);
}

static void on_listener(void *arg, int fd, uint32_t events)
{
	struct client *c;
	int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (client < 0)
		return;
	world.accepted++;
	world.clients++;
	c = mem_alloc(sizeof(*c));
	c->manner = ((struct listener *)arg)->manner;
	c->fd = client;
	c->source = loop_add_fd(world.loop, client, EPOLLIN, on_client, c);
	c->timer = loop_add_timer(world.loop, next_piece, c);
}

static struct ip address(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

static void listen_on(struct listener *l, const char *at, enum manner manner)
{
	struct sockaddr_storage sa;
	struct ip a = address(at);
	socklen_t size = ip_sockaddr(&a, 0, &sa);
	struct ip ignored;

	l->manner = manner;
	l->fd = socket(a.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* The address may come later. */
	assert_int_equal(setsockopt(l->fd, IPPROTO_IP, IP_FREEBIND, &(int){ 1 },
				    sizeof(int)),
			 0);
	assert_int_equal(bind(l->fd, (struct sockaddr *)&sa, size), 0);
	assert_int_equal(listen(l->fd, 4096), 0);
	assert_int_equal(getsockname(l->fd, (struct sockaddr *)&sa, &size), 0);
	ip_from_sockaddr((struct sockaddr *)&sa, &ignored, &l->port);
	l->source = loop_add_fd(world.loop, l->fd, EPOLLIN, on_listener, l);
}

static void listener_close(struct listener *l)
{
	loop_remove(l->source);
	close(l->fd);
}

static void on_result(void *arg, struct probe_target *t, const struct health *h,
		      const struct probe_report *report)
{
	struct seen *s = probe_target_user(t);
	uint64_t now = clock_ns();

	(void)arg;
	assert_true(report->changed || s->state == h->state || !s->total);
	s->state = h->state;
	s->results[report->result]++;
	snprintf(s->detail, sizeof(s->detail), "%s", report->detail);
	if (!s->total++)
		s->first_at = now;
	else if (now - s->last_at > s->longest_gap)
		s->longest_gap = now - s->last_at;
	s->last_at = now;
	/* Only one that just got there can have been the last. */
	if (s->total != world.wanted && !world.until_pass)
		return;
	for (size_t i = 0; i < world.targets && !world.until_pass; i++) {
		if (world.seen[i].total < world.wanted)
			return;
	}
	if (!world.until_pass || report->result == PROBE_PASS)
		loop_stop(world.loop);
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

/* Until every target has `results`, or, results 0, for `limit`. */
static void run(unsigned int results, uint64_t limit)
{
	world.wanted = results ? results : UINT32_MAX;
	loop_arm_in(world.stop, limit);
	assert_int_equal(loop_run(world.loop), 0);
	if (results)
		assert_true(loop_armed(world.stop));
}

static const struct probe_site site = { "web", "b1", NULL };

static struct probe_target *add(const struct health_spec *spec, const char *to,
				uint16_t port, enum health_state initial)
{
	struct ip a = address(to);

	return prober_add(world.prober, &site, spec, &a, port, initial,
			  &world.seen[world.targets++]);
}

static uint16_t ok_status[] = { 200 };

static struct health_spec spec_of(enum health_type type, uint64_t interval_ms,
				  uint64_t timeout_ms)
{
	return (struct health_spec){ .type = type,
				     .path = "/healthz",
				     .interval = interval_ms * NS_PER_MS,
				     .timeout = timeout_ms * NS_PER_MS,
				     .rise = 2,
				     .fall = 2,
				     .expect = ok_status,
				     .expect_count = 1 };
}

static int set_up(void **state)
{
	(void)state;
	world = (struct world){ 0 };
	if (loop_new(&world.loop))
		return -1;
	world.prober = prober_new(world.loop, on_result, NULL);
	world.stop = loop_add_timer(world.loop, stop_loop, world.loop);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	prober_free(world.prober);
	/* Connections that the probes reset are noticed and closed. */
	while (world.clients) {
		loop_arm_in(world.stop, 5 * NS_PER_MS);
		loop_run(world.loop);
	}
	loop_remove(world.stop);
	loop_free(world.loop);
	return 0;
}

static void check_only(size_t i, enum probe_result expected)
{
	const struct seen *s = &world.seen[i];

	if (s->results[expected] != s->total || !s->total)
		fail_msg("target %zu: %u results, of which %u %s", i, s->total,
			 s->results[expected], probe_result_name(expected));
}

static void test_tcp(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 20, 15);
	struct listener v4, v6, gone;

	(void)state;
	listen_on(&v4, "127.0.0.1", ACCEPT);
	listen_on(&v6, "::1", ACCEPT);
	listen_on(&gone, "127.0.0.1", ACCEPT);
	listener_close(&gone);
	add(&spec, "127.0.0.1", v4.port, HEALTH_JOINING);
	add(&spec, "::1", v6.port, HEALTH_JOINING);
	add(&spec, "127.0.0.1", gone.port, HEALTH_UP);
	add(&spec, "10.9.0.77", 80, HEALTH_UP); /* nobody answers ARP */
	add(&spec, "10.66.0.1", 80, HEALTH_UP); /* a route that refuses */
	add(&spec, "fd66::1", 80, HEALTH_UP);
	run(4, 20 * NS_PER_S);
	check_only(0, PROBE_PASS);
	check_only(1, PROBE_PASS);
	check_only(2, PROBE_REFUSED);
	check_only(3, PROBE_TIMEOUT);
	check_only(4, PROBE_UNREACHABLE);
	check_only(5, PROBE_UNREACHABLE);
	assert_int_equal(world.seen[0].state, HEALTH_UP);
	assert_int_equal(world.seen[1].state, HEALTH_UP);
	assert_int_equal(world.seen[2].state, HEALTH_DEAD);
	assert_int_equal(world.seen[3].state, HEALTH_DOWN);
	assert_int_equal(world.seen[4].state, HEALTH_DOWN);
	listener_close(&v4);
	listener_close(&v6);
}

static void test_http(void **state)
{
	static const struct {
		const char *at;
		enum manner manner;
		enum probe_result result;
	} cases[] = {
		{ "127.0.0.1", ANSWER, PROBE_PASS },
		{ "::1", ANSWER, PROBE_PASS },
		{ "127.0.0.1", PIECES, PROBE_PASS },
		{ "127.0.0.1", ANSWER_503, PROBE_BAD_STATUS },
		{ "127.0.0.1", GARBAGE, PROBE_BAD_ANSWER },
		{ "127.0.0.1", CLOSE, PROBE_BAD_ANSWER },
		{ "127.0.0.1", MUTE, PROBE_TIMEOUT },
	};
	struct health_spec spec = spec_of(HEALTH_HTTP, 300, 400);
	struct listener l[ARRAY_SIZE(cases)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		listen_on(&l[i], cases[i].at, cases[i].manner);
		add(&spec, cases[i].at, l[i].port, HEALTH_JOINING);
	}
	run(3, 20 * NS_PER_S);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check_only(i, cases[i].result);
		assert_int_equal(world.seen[i].state,
				 cases[i].result == PROBE_PASS
					 ? HEALTH_UP
					 : HEALTH_JOINING);
		listener_close(&l[i]);
	}
}

static void test_slow_http_times_out(void **state)
{
	struct health_spec spec = spec_of(HEALTH_HTTP, 100, 20);
	struct listener l; /* takes 51 ms over its first line */

	(void)state;
	listen_on(&l, "127.0.0.1", PIECES);
	add(&spec, "127.0.0.1", l.port, HEALTH_UP);
	run(3, 20 * NS_PER_S);
	check_only(0, PROBE_TIMEOUT);
	assert_int_equal(world.seen[0].state, HEALTH_DOWN);
	listener_close(&l);
}

/* ---- datagrams ---- */

/* What a responder does with a datagram. */
enum reply {
	ECHO_BACK,
	SHOUT,
	MUTTER,
	BLACK_HOLE,
	DNS_OK,
	DNS_OTHER_ID,
	DNS_SERVFAIL,
	DNS_GARBAGE,
	DNS_OTHER_NAME
};

struct responder {
	enum reply reply;
	int fd;
	uint16_t port;
	struct loop_source *source;
};

static size_t answer_dns(enum reply reply, uint8_t *d, size_t len)
{
	static const uint8_t record[] = { 0xc0, 12, 0, 1, 0,   1, 0, 0,
					  0,	60, 0, 4, 192, 0, 2, 77 };

	d[2] |= 0x80;
	if (reply == DNS_OTHER_ID)
		d[0] ^= 1;
	if (reply == DNS_SERVFAIL)
		d[3] |= 2;
	if (reply == DNS_OTHER_NAME)
		d[13] ^= 1;
	if (reply == DNS_GARBAGE)
		return 5;
	d[7] = 1;
	memcpy(d + len, record, sizeof(record));
	return len + sizeof(record);
}

static void on_datagram(void *arg, int fd, uint32_t events)
{
	struct responder *r = arg;
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	uint8_t d[1024] = { 0 };
	ssize_t n = recvfrom(fd, d, 512, 0, (struct sockaddr *)&from, &size);

	(void)events;
	if (n < 0 || r->reply == BLACK_HOLE)
		return;
	if (r->reply == SHOUT)
		n = (ssize_t)strlen(strcpy((char *)d, "hello: PONG!"));
	else if (r->reply == MUTTER)
		n = (ssize_t)strlen(strcpy((char *)d, "hm"));
	else if (r->reply != ECHO_BACK)
		n = (ssize_t)answer_dns(r->reply, d, (size_t)n);
	assert_int_equal(
		sendto(fd, d, (size_t)n, 0, (struct sockaddr *)&from, size), n);
}

static void respond_on(struct responder *r, const char *at, enum reply reply)
{
	struct sockaddr_storage sa;
	struct ip a = address(at), ignored;
	socklen_t size = ip_sockaddr(&a, 0, &sa);

	r->reply = reply;
	r->fd = socket(a.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(r->fd, (struct sockaddr *)&sa, size), 0);
	assert_int_equal(getsockname(r->fd, (struct sockaddr *)&sa, &size), 0);
	ip_from_sockaddr((struct sockaddr *)&sa, &ignored, &r->port);
	r->source = loop_add_fd(world.loop, r->fd, EPOLLIN, on_datagram, r);
}

static void responder_close(struct responder *r)
{
	loop_remove(r->source);
	close(r->fd);
}

struct datagram_case {
	const char *at;
	enum reply reply;
	enum probe_result result;
	const char *detail;
};

static void check_datagrams(const struct health_spec *spec,
			    const struct datagram_case *cases, size_t count)
{
	struct responder r[8];

	assert_in_range(count, 1, ARRAY_SIZE(r));
	for (size_t i = 0; i < count; i++) {
		respond_on(&r[i], cases[i].at, cases[i].reply);
		add(spec, cases[i].at, r[i].port, HEALTH_UP);
	}
	run(3, 20 * NS_PER_S);
	for (size_t i = 0; i < count; i++) {
		check_only(i, cases[i].result);
		if (cases[i].detail)
			assert_string_equal(world.seen[i].detail,
					    cases[i].detail);
		responder_close(&r[i]);
	}
}

static void test_udp(void **state)
{
	static const struct datagram_case cases[] = {
		{ "127.0.0.1", ECHO_BACK, PROBE_PASS, "" },
		{ "::1", SHOUT, PROBE_PASS, "" },
		{ "127.0.0.1", MUTTER, PROBE_BAD_ANSWER,
		  "not what is expected" },
		{ "127.0.0.1", BLACK_HOLE, PROBE_TIMEOUT, NULL },
	};
	struct bytes wanted[] = { { (const uint8_t *)"\x00ping", 5 },
				  { (const uint8_t *)"PONG", 4 } };
	struct health_spec spec = spec_of(HEALTH_UDP, 300, 250);

	(void)state;
	spec.send = (struct bytes){ (const uint8_t *)"\x00ping", 5 };
	spec.wanted = wanted;
	spec.wanted_count = ARRAY_SIZE(wanted);
	check_datagrams(&spec, cases, ARRAY_SIZE(cases));
}

static void test_udp_errors(void **state)
{
	struct health_spec spec = spec_of(HEALTH_UDP, 300, 250);
	struct responder gone;

	(void)state;
	spec.send = (struct bytes){ (const uint8_t *)"x", 1 };
	respond_on(&gone, "127.0.0.1", ECHO_BACK);
	responder_close(&gone);
	add(&spec, "127.0.0.1", gone.port, HEALTH_UP);
	add(&spec, "10.66.0.1", 80, HEALTH_UP);
	add(&spec, "fd66::1", 80, HEALTH_UP);
	add(&spec, "10.8.0.5", 80, HEALTH_UP);
	run(3, 20 * NS_PER_S);
	check_only(0, PROBE_REFUSED);
	check_only(1, PROBE_UNREACHABLE);
	check_only(2, PROBE_UNREACHABLE);
	check_only(3, PROBE_TIMEOUT);
	assert_int_equal(world.seen[0].state, HEALTH_DEAD);
	assert_int_equal(world.seen[1].state, HEALTH_DOWN);
}

static void test_dns(void **state)
{
	static const struct datagram_case cases[] = {
		{ "127.0.0.1", DNS_OK, PROBE_PASS, "" },
		{ "::1", DNS_OK, PROBE_PASS, "" },
		{ "127.0.0.1", DNS_OTHER_ID, PROBE_TIMEOUT, NULL },
		{ "127.0.0.1", DNS_SERVFAIL, PROBE_BAD_STATUS, "SERVFAIL" },
		{ "127.0.0.1", DNS_GARBAGE, PROBE_BAD_ANSWER, "not an answer" },
		{ "127.0.0.1", DNS_OTHER_NAME, PROBE_BAD_ANSWER,
		  "the answer to another question" },
		{ "127.0.0.1", BLACK_HOLE, PROBE_TIMEOUT, NULL },
	};
	struct ip expected = address("192.0.2.77");
	struct health_spec spec = spec_of(HEALTH_DNS, 300, 250);

	(void)state;
	spec.name = "www.example.org";
	spec.record = DNS_A;
	spec.rcodes = 1;
	spec.answers = &expected;
	spec.answer_count = 1;
	check_datagrams(&spec, cases, ARRAY_SIZE(cases));
}

static void test_dns_unexpected(void **state)
{
	static const struct datagram_case cases[] = {
		{ "127.0.0.1", DNS_OK, PROBE_BAD_ANSWER,
		  "none of the expected answers" },
	};
	struct ip expected = address("192.0.2.78");
	struct health_spec spec = spec_of(HEALTH_DNS, 300, 250);

	(void)state;
	spec.name = "www.example.org";
	spec.record = DNS_A;
	spec.rcodes = 1;
	spec.answers = &expected;
	spec.answer_count = 1;
	check_datagrams(&spec, cases, ARRAY_SIZE(cases));
}

static void test_icmp(void **state)
{
	struct health_spec spec = spec_of(HEALTH_ICMP, 300, 250);

	(void)state;
	add(&spec, "127.0.0.1", 0, HEALTH_JOINING);
	add(&spec, "::1", 0, HEALTH_JOINING);
	add(&spec, "10.8.0.5", 0, HEALTH_UP);
	add(&spec, "10.66.0.1", 0, HEALTH_UP);
	add(&spec, "fd66::1", 0, HEALTH_UP);
	run(3, 20 * NS_PER_S);
	check_only(0, PROBE_PASS);
	check_only(1, PROBE_PASS);
	check_only(2, PROBE_TIMEOUT);
	check_only(3, PROBE_UNREACHABLE);
	check_only(4, PROBE_UNREACHABLE);
}

/* Many at once: each raw socket sees all answers, and takes its own. */
static void test_icmp_many(void **state)
{
	struct health_spec spec = spec_of(HEALTH_ICMP, 200, 190);
	char to[32];

	(void)state;
	for (int i = 0; i < 500; i++) {
		snprintf(to, sizeof(to), "127.0.%d.%d", i / 250, 1 + i % 250);
		add(&spec, to, 0, HEALTH_JOINING);
	}
	run(2, 30 * NS_PER_S);
	for (size_t i = 0; i < 500; i++)
		assert_true(world.seen[i].results[PROBE_PASS]);
}

/* ---- commands ---- */

static struct probe_target *add_script(struct health_spec *spec,
				       const char *script,
				       enum health_state initial)
{
	static const char *words[16][3];
	static size_t used;
	const char **argv = words[used++ % ARRAY_SIZE(words)];

	argv[0] = "/bin/sh";
	argv[1] = "-c";
	argv[2] = script;
	spec->command = argv;
	spec->command_count = 3;
	return add(spec, "127.0.0.1", 8080, initial);
}

static void test_command(void **state)
{
	struct health_spec spec = spec_of(HEALTH_COMMAND, 1000, 900);
	const char *missing = "/nowhere/at/all";
	const char *plain[2] = { "/bin/echo", "well" };

	(void)state;
	add_script(&spec, "exit 0", HEALTH_JOINING);
	add_script(&spec, "echo one; printf 'two\\n\\n'; exit 3", HEALTH_UP);
	add_script(&spec, "printf 'a \"quoted\"\\033 end' >&2; exit 1",
		   HEALTH_UP);
	add_script(&spec, "kill -9 $$", HEALTH_UP);
	add_script(&spec, "exit 4", HEALTH_UP);
	add_script(&spec,
		   "echo $XLB_SERVICE $XLB_BACKEND $XLB_ADDRESS $XLB_PORT $0 "
		   "$(pwd) $(ls /proc/self/fd | wc -w); exit 1",
		   HEALTH_UP);
	add_script(&spec, "yes | head -c 300000; exit 1", HEALTH_UP);
	spec.command = plain;
	spec.command_count = 2;
	add(&spec, "127.0.0.1", 1, HEALTH_UP);
	spec.command = &missing;
	spec.command_count = 1;
	add(&spec, "127.0.0.1", 1, HEALTH_UP);
	run(2, 60 * NS_PER_S);
	check_only(0, PROBE_PASS);
	for (size_t i = 1; i <= 6; i++)
		assert_true(world.seen[i].results[PROBE_FAILED]);
	assert_string_equal(world.seen[1].detail, "two");
	assert_string_equal(world.seen[2].detail, "a 'quoted'  end");
	assert_string_equal(world.seen[3].detail, "killed by signal 9");
	assert_string_equal(world.seen[4].detail, "exit code 4");
	/* Nothing of ours is open in it: 0, 1, 2, and the folder's own. */
	assert_string_equal(world.seen[5].detail,
			    "web b1 127.0.0.1 8080 /bin/sh / 4");
	assert_string_equal(world.seen[6].detail, "y");
	check_only(7, PROBE_PASS);
	assert_string_equal(world.seen[7].detail, "well");
	check_only(8, PROBE_LOCAL_ERROR);
	assert_non_null(strstr(world.seen[8].detail, "/nowhere/at/all"));
	assert_int_equal(world.seen[8].state, HEALTH_UP);
}

static unsigned int count_sleepers(const char *seconds)
{
	char command[64], text[16] = "";
	FILE *f;

	snprintf(command, sizeof(command), "pgrep -c -f '^sleep %s'", seconds);
	f = popen(command, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	pclose(f);
	return (unsigned int)atoi(text);
}

/* The whole group goes: what it started in the background as well. */
static void test_command_timeout(void **state)
{
	struct health_spec spec = spec_of(HEALTH_COMMAND, 200, 100);
	uint64_t began;

	(void)state;
	add_script(&spec, "sleep 7001 & sleep 7001", HEALTH_UP);
	add_script(&spec, "sleep 7002 & exit 0", HEALTH_UP);
	run(3, 60 * NS_PER_S);
	check_only(0, PROBE_TIMEOUT);
	assert_true(world.seen[1].results[PROBE_PASS] ||
		    world.seen[1].results[PROBE_TIMEOUT]);
	prober_free(world.prober);
	world.prober = prober_new(world.loop, on_result, NULL);
	began = clock_ns();
	while (count_sleepers("700[12]") && clock_ns() - began < 20 * NS_PER_S)
		usleep(20000);
	assert_int_equal(count_sleepers("700[12]"), 0);
}

/* 200 at once: 32 processes at a time, each in its turn. */
static void test_command_places(void **state)
{
	struct health_spec spec = spec_of(HEALTH_COMMAND, 20000, 15000);
	struct prober_figures n = { 0 };
	struct probe_target *t;
	unsigned int most = 0;

	(void)state;
	for (int i = 0; i < 200; i++) {
		t = add_script(&spec, "sleep 0.05", HEALTH_UP);
		probe_target_kick(t);
	}
	for (int i = 0; i < 400 && n.results[PROBE_PASS] < 200; i++) {
		unsigned int now;

		run(0, 20 * NS_PER_MS);
		now = count_sleepers("0.05");
		most = now > most ? now : most;
		prober_figures(world.prober, &n);
	}
	assert_int_equal(n.results[PROBE_PASS], 200);
	assert_int_equal(n.queued, 0);
	assert_in_range(most, 1, 32);
}

static void test_running(void **state)
{
	struct health_spec spec = spec_of(HEALTH_RUNNING, 5, 5);
	struct probe_target *t;
	unsigned int before;

	(void)state;
	t = add(&spec, "10.9.0.77", 0, HEALTH_JOINING);
	run(3, 5 * NS_PER_S);
	check_only(0, PROBE_PASS);
	assert_int_equal(world.seen[0].state, HEALTH_UP);
	health_kill(probe_target_health(t));
	before = world.seen[0].total;
	run(0, 100 * NS_PER_MS);
	assert_int_equal(world.seen[0].total, before);
	assert_int_equal(probe_target_health(t)->state, HEALTH_DEAD);
}

/* Joining, its address silent at first, then there: found soon. */
static void test_joining_finds_a_late_listener(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 60000, 1000);
	struct listener l;
	uint64_t at;

	(void)state;
	listen_on(&l, "10.8.0.5", ACCEPT);
	/* For now the address is behind a device that swallows everything. */
	add(&spec, "10.8.0.5", l.port, HEALTH_JOINING);
	run(5, 10 * NS_PER_S);
	check_only(0, PROBE_TIMEOUT);
	assert_int_equal(system("ip address add 10.8.0.5/32 dev lo"), 0);
	at = clock_ns();
	world.until_pass = true;
	run(UINT32_MAX, 20 * NS_PER_S);
	assert_int_equal(world.seen[0].results[PROBE_PASS], 1);
	assert_int_equal(world.seen[0].state, HEALTH_UP);
	print_message(
		"# admitted %llu ms after the address came up\n",
		(unsigned long long)((world.seen[0].last_at - at) / NS_PER_MS));
	listener_close(&l);
}

static void test_update_kick_and_remove(void **state)
{
	struct health_spec slow = spec_of(HEALTH_TCP, 3600000, 5000);
	struct health_spec other = spec_of(HEALTH_TCP, 3600000, 5000);
	struct listener l;
	struct probe_target *t, *silent;
	struct ip a = address("127.0.0.1");

	(void)state;
	listen_on(&l, "127.0.0.1", ACCEPT);
	t = add(&slow, "127.0.0.1", l.port, HEALTH_UP);
	/* An hour's interval: without the kick nothing would come. */
	probe_target_kick(t);
	run(1, 10 * NS_PER_S);
	probe_target_kick(t);
	run(2, 10 * NS_PER_S);
	check_only(0, PROBE_PASS);
	/* Under way to where nobody answers; dropped with no result. */
	silent = add(&slow, "10.8.0.6", 80, HEALTH_UP);
	probe_target_kick(silent);
	run(0, 50 * NS_PER_MS);
	probe_target_remove(silent);
	/* Another address is probed at once. */
	silent = add(&slow, "10.8.0.7", 80, HEALTH_UP);
	probe_target_kick(silent);
	run(0, 50 * NS_PER_MS);
	probe_target_update(silent, &other, &a, l.port);
	/* Copied: what the file said may go. */
	memset(&other, 0xff, sizeof(other));
	memset(&slow, 0xff, sizeof(slow));
	probe_target_remove(NULL);
	world.targets = 1;
	run(0, 50 * NS_PER_MS);
	assert_int_equal(world.seen[1].total, 0);
	assert_int_equal(world.seen[2].total, 1);
	assert_int_equal(world.seen[2].results[PROBE_PASS], 1);
	listener_close(&l);
}

static void remove_others(void *arg, struct probe_target *t,
			  const struct health *h,
			  const struct probe_report *report)
{
	(void)arg;
	(void)h;
	(void)report;
	probe_target_remove(t);
	if (!--world.wanted)
		loop_stop(world.loop);
}

static void test_remove_inside_the_report(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 10, 100);
	struct listener l;

	(void)state;
	prober_free(world.prober);
	world.prober = prober_new(world.loop, remove_others, NULL);
	listen_on(&l, "127.0.0.1", ACCEPT);
	for (int i = 0; i < 300; i++)
		add(&spec, "127.0.0.1", i % 2 ? l.port : 1, HEALTH_JOINING);
	run(300, 20 * NS_PER_S);
	assert_int_equal(world.wanted, 0);
	listener_close(&l);
}

/* More joining than places: all get their turn, and hold no place too long. */
static void test_joining_queue(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 60000, 200);
	struct listener l;

	(void)state;
	listen_on(&l, "127.0.0.1", ACCEPT);
	for (int i = 0; i < 250; i++)
		add(&spec, "10.8.0.9", 80, HEALTH_JOINING);
	add(&spec, "127.0.0.1", l.port, HEALTH_JOINING);
	run(0, 20 * NS_PER_MS);
	/* The first hundred are all silent ones. */
	assert_int_equal(world.seen[250].total, 0);
	world.targets = 251;
	world.wanted = 1;
	run(1, 20 * NS_PER_S);
	check_only(250, PROBE_PASS);
	check_only(0, PROBE_TIMEOUT);
	listener_close(&l);
}

static void test_out_of_descriptors(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 20, 10);
	struct rlimit old, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3;
	add(&spec, "127.0.0.1", 1, HEALTH_UP);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	run(5, 10 * NS_PER_S);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	check_only(0, PROBE_LOCAL_ERROR);
	assert_int_equal(world.seen[0].state, HEALTH_UP);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* A child that only accepts, so that its time isn't counted as ours. */
static pid_t accept_in_child(int fd)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client >= 0)
			close(client);
		else if (errno != ECONNABORTED)
			_exit(0);
	}
}

/* Connections of ours in TIME_WAIT or nearly there. */
static unsigned int time_waits(void)
{
	unsigned int n = 0;
	char line[512];
	FILE *f = popen("ss -Htan state time-wait", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		n++;
	assert_int_equal(pclose(f), 0);
	return n;
}

static void test_thousand_half_silent(void **state)
{
	struct health_spec spec = spec_of(HEALTH_TCP, 2000, 500);
	struct sockaddr_storage sa;
	struct ip a = address("127.0.0.1"), ignored;
	socklen_t size = ip_sockaddr(&a, 0, &sa);
	uint16_t port;
	double cpu;
	pid_t child;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char to[32];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, size), 0);
	assert_int_equal(listen(fd, 4096), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &size), 0);
	ip_from_sockaddr((struct sockaddr *)&sa, &ignored, &port);
	child = accept_in_child(fd);
	for (int i = 0; i < 1000; i++) {
		/* 10.8.0.0/16 is a device that swallows everything. */
		snprintf(to, sizeof(to), i % 2 ? "10.8.%d.1" : "127.0.0.1",
			 1 + i % 200);
		add(&spec, to, port, HEALTH_UP);
	}
	cpu = cpu_seconds();
	run(0, 8 * NS_PER_S);
	cpu = cpu_seconds() - cpu;
	print_message("# 1000 targets every 2 s: %.2f %% of one core\n",
		      cpu / 8 * 100);
	for (size_t i = 0; i < 1000; i++) {
		check_only(i, i % 2 ? PROBE_TIMEOUT : PROBE_PASS);
		assert_in_range(world.seen[i].total, 3, 5);
		assert_int_equal(world.seen[i].state,
				 i % 2 ? HEALTH_DOWN : HEALTH_UP);
	}
	assert_int_equal(time_waits(), 0);
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	close(fd);
}

static int enter_namespace(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET)) {
		print_message("# needs root\n");
		return -1;
	}
	return system(
		"ip link set lo up && ip link add name sink type veth peer name drain && "
		"ip link set drain up && "
		"ip address add 10.8.255.254/16 dev sink && "
		"ip link set sink arp off up && "
		"ip link add name near type veth peer name far && "
		"ip address add 10.9.0.1/24 dev near && "
		"ip link set near up && ip link set far up && "
		"ip route add unreachable 10.66.0.0/16 && "
		"ip route add unreachable fd66::/16");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_tcp),
		TEST(test_http),
		TEST(test_slow_http_times_out),
		TEST(test_udp),
		TEST(test_udp_errors),
		TEST(test_dns),
		TEST(test_dns_unexpected),
		TEST(test_icmp),
		TEST(test_icmp_many),
		TEST(test_command),
		TEST(test_command_timeout),
		TEST(test_command_places),
		TEST(test_running),
		TEST(test_joining_finds_a_late_listener),
		TEST(test_update_kick_and_remove),
		TEST(test_remove_inside_the_report),
		TEST(test_joining_queue),
		TEST(test_out_of_descriptors),
		TEST(test_thousand_half_silent),
	};

	return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
