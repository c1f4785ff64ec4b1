/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A target goes round: idle, (queued,) connecting, (answering,) idle.  Its one
 * timer tells when the next probe is due, or that this one took too long.
 * Every probe ends in finish(), or in drop() when nobody wants its result.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/mem.h"
#include "health/health.h"
#include "health/http.h"

/* Probes of joining targets under way; the others queue. */
#define JOINING_MAX 100
/*
 * A machine that boots loses the first SYN, and TCP sends the second after a
 * second: too late.  So while joining a connection is given up early and tried
 * again; every so many times it gets all of the timeout, for those far away.
 */
#define JOINING_CONNECT (100 * NS_PER_MS)
#define JOINING_PATIENT 16

enum phase { PHASE_IDLE, PHASE_QUEUED, PHASE_CONNECTING, PHASE_ANSWERING };

struct probe_target {
	size_t index; /* in the prober's targets */
	TAILQ_ENTRY(probe_target) queue;
	struct prober *prober;
	struct health_spec spec; /* a copy, strings and all */
	struct ip address;
	uint16_t port;
	struct health health;
	void *user;
	struct loop_source *timer;
	enum phase phase;
	bool again; /* kicked while a probe was under way */
	bool holds_place; /* one of JOINING_MAX */
	unsigned int tries; /* while joining */
	uint64_t started;
	int fd; /* -1: none */
	struct loop_source *source;
	char *answer; /* HTTP_LINE_MAX bytes while answering */
	size_t answer_len;
};

struct prober {
	struct loop *loop;
	probe_fn fn;
	void *arg;
	uint64_t random;
	unsigned int joining;
	struct probe_target **targets;
	size_t count;
	TAILQ_HEAD(, probe_target) queue;
};

/* xorshift64* (Vigna 2016): spreads probes, guards nothing. */
static uint32_t next_random(struct prober *p)
{
	p->random ^= p->random >> 12;
	p->random ^= p->random << 25;
	p->random ^= p->random >> 27;
	return (uint32_t)(p->random * 0x2545F4914F6CDD1DULL >> 32);
}

static uint16_t port_of(const struct probe_target *t)
{
	return t->spec.port ? t->spec.port : t->port;
}

static void release_spec(struct health_spec *s)
{
	free((void *)s->path);
	free((void *)s->host);
	free(s->expect);
}

/* The desired state it comes from is replaced while probes are under way. */
static void copy_spec(const struct health_spec *from, struct health_spec *ret)
{
	*ret = *from;
	ret->src = (struct source){ 0 };
	ret->path = mem_dup(from->path);
	ret->host = mem_dup(from->host);
	ret->expect = mem_array(from->expect_count, sizeof(*from->expect));
	if (from->expect_count)
		memcpy(ret->expect, from->expect,
		       from->expect_count * sizeof(*from->expect));
}

/* The place goes to the first in the queue, which starts in its own turn. */
static void leave_place(struct probe_target *t)
{
	struct prober *p = t->prober;
	struct probe_target *next = TAILQ_FIRST(&p->queue);

	if (!t->holds_place)
		return;
	t->holds_place = false;
	if (!next) {
		p->joining--;
		return;
	}
	TAILQ_REMOVE(&p->queue, next, queue);
	next->phase = PHASE_IDLE;
	next->holds_place = true;
	loop_arm(next->timer, clock_ns());
}

/* Leaves nothing of a probe under way. */
static void drop(struct probe_target *t)
{
	if (t->phase == PHASE_QUEUED)
		TAILQ_REMOVE(&t->prober->queue, t, queue);
	loop_remove(t->source);
	t->source = NULL;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	free(t->answer);
	t->answer = NULL;
	t->answer_len = 0;
	t->phase = PHASE_IDLE;
	loop_disarm(t->timer);
	leave_place(t);
}

static void schedule(struct probe_target *t, uint64_t now)
{
	uint64_t due = health_next_due(&t->health, &t->spec, t->started,
				       next_random(t->prober));

	/* A probe may have taken longer than the interval. */
	if (t->again || due < now)
		due = now;
	t->again = false;
	loop_arm(t->timer, due);
}

static void finish(struct probe_target *t, enum probe_result result)
{
	struct prober *p = t->prober;
	uint64_t now = clock_ns();
	bool changed;

	drop(t);
	changed = health_feed(&t->health, &t->spec, result);
	schedule(t, now);
	/* Last: the callee may remove the target. */
	p->fn(p->arg, t, &t->health, result, changed, now - t->started);
}

static enum probe_result result_of(int error)
{
	switch (error) {
	case ECONNREFUSED:
		return PROBE_REFUSED;
	case ETIMEDOUT:
		return PROBE_TIMEOUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN:
	case ENONET:
	case EACCES: /* ICMPv6: administratively prohibited */
	case ENOPROTOOPT: /* ICMP: protocol unreachable */
		return PROBE_UNREACHABLE;
	case ECONNRESET:
	case EPIPE:
		return PROBE_BAD_ANSWER;
	default:
		return PROBE_LOCAL_ERROR;
	}
}

static int socket_error(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
		return errno;
	return error;
}

static void ask(struct probe_target *t)
{
	AUTO_BUF struct buf request = BUF_INIT;
	ssize_t n;

	http_request(&t->spec, &t->address, port_of(t), &request);
	/* A fresh socket takes it whole, or there is no memory. */
	n = send(t->fd, request.data, request.len, MSG_NOSIGNAL);
	if (n != (ssize_t)request.len) {
		finish(t, n < 0 ? result_of(errno) : PROBE_LOCAL_ERROR);
		return;
	}
	t->phase = PHASE_ANSWERING;
	t->answer = mem_alloc(HTTP_LINE_MAX);
	loop_arm(t->timer, t->started + t->spec.timeout);
}

/* Edge-triggered: until there is an end, or nothing left to read. */
static void read_answer(struct probe_target *t)
{
	enum probe_result result;
	bool final = false;

	while (!final) {
		ssize_t n = recv(t->fd, t->answer + t->answer_len,
				 HTTP_LINE_MAX - t->answer_len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			result = result_of(errno);
			break;
		}
		t->answer_len += (size_t)n;
		final = http_judge(&t->spec, t->answer, t->answer_len, n == 0,
				   &result);
	}
	finish(t, result);
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct probe_target *t = arg;

	if (t->phase == PHASE_ANSWERING) {
		read_answer(t);
		return;
	}
	if (events & (EPOLLERR | EPOLLHUP)) {
		int error = socket_error(fd);

		finish(t, error ? result_of(error) : PROBE_BAD_ANSWER);
	} else if (!(events & EPOLLOUT)) {
		return;
	} else if (t->spec.type == HEALTH_HTTP) {
		ask(t);
	} else {
		finish(t, PROBE_PASS);
	}
}

static int start_connection(struct probe_target *t)
{
	/* Closing resets: a thousand probes leave no TIME_WAIT behind. */
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	struct sockaddr_storage to;
	socklen_t size = ip_sockaddr(&t->address, port_of(t), &to);

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

static uint64_t connect_deadline(struct probe_target *t)
{
	uint64_t limit = t->spec.timeout;

	if (t->health.state == HEALTH_JOINING && ++t->tries % JOINING_PATIENT &&
	    limit > JOINING_CONNECT)
		limit = JOINING_CONNECT;
	return t->started + limit;
}

static void start(struct probe_target *t)
{
	int error;

	t->started = clock_ns();
	if (t->spec.type == HEALTH_RUNNING) {
		/* A machine that was killed runs again under a new target. */
		if (t->health.state == HEALTH_DEAD)
			schedule(t, t->started);
		else
			finish(t, PROBE_PASS);
		return;
	}
	t->phase = PHASE_CONNECTING;
	error = start_connection(t);
	if (error) {
		finish(t, result_of(error));
		return;
	}
	t->source = loop_add_fd(t->prober->loop, t->fd,
				EPOLLIN | EPOLLOUT | EPOLLET, on_event, t);
	loop_arm(t->timer, connect_deadline(t));
}

static void on_due(struct probe_target *t)
{
	struct prober *p = t->prober;

	if (t->health.state != HEALTH_JOINING || t->holds_place) {
		start(t);
	} else if (p->joining < JOINING_MAX) {
		p->joining++;
		t->holds_place = true;
		start(t);
	} else {
		t->phase = PHASE_QUEUED;
		TAILQ_INSERT_TAIL(&p->queue, t, queue);
	}
}

static void on_timer(void *arg)
{
	struct probe_target *t = arg;

	if (t->phase == PHASE_IDLE)
		on_due(t);
	else
		finish(t, PROBE_TIMEOUT);
}

struct prober *prober_new(struct loop *l, probe_fn fn, void *arg)
{
	struct prober *p = mem_alloc(sizeof(*p));

	p->loop = l;
	p->fn = fn;
	p->arg = arg;
	TAILQ_INIT(&p->queue);
	if (getrandom(&p->random, sizeof(p->random), GRND_NONBLOCK) < 0)
		p->random = clock_ns();
	p->random |= 1; /* xorshift has no way out of 0 */
	return p;
}

void prober_free(struct prober *p)
{
	if (!p)
		return;
	while (p->count)
		probe_target_remove(p->targets[p->count - 1]);
	free(p->targets);
	free(p);
}

struct probe_target *prober_add(struct prober *p,
				const struct health_spec *spec,
				const struct ip *address, uint16_t port,
				enum health_state initial, void *user)
{
	struct probe_target *t = mem_alloc(sizeof(*t));
	uint64_t now = clock_ns();

	t->prober = p;
	copy_spec(spec, &t->spec);
	t->address = *address;
	t->port = port;
	t->user = user;
	t->fd = -1;
	t->timer = loop_add_timer(p->loop, on_timer, t);
	health_init(&t->health, initial);
	t->index = p->count;
	*(struct probe_target **)MEM_PUSH(p->targets, p->count) = t;
	/* Many added at once are spread over the interval from the start. */
	if (initial != HEALTH_JOINING)
		now += spec->interval / UINT16_MAX * (next_random(p) >> 16);
	loop_arm(t->timer, now);
	return t;
}

void probe_target_update(struct probe_target *t, const struct health_spec *spec,
			 const struct ip *address, uint16_t port)
{
	bool other = !ip_equal(&t->address, address) || t->port != port ||
		     t->spec.type != spec->type || t->spec.port != spec->port;
	bool paced = t->spec.interval == spec->interval;

	release_spec(&t->spec);
	copy_spec(spec, &t->spec);
	t->address = *address;
	t->port = port;
	if (other) {
		drop(t);
		loop_arm(t->timer, clock_ns());
	} else if (!paced && t->phase == PHASE_IDLE && !t->holds_place) {
		schedule(t, clock_ns());
	}
}

void probe_target_remove(struct probe_target *t)
{
	struct probe_target *last;
	struct prober *p;

	if (!t)
		return;
	p = t->prober;
	last = p->targets[--p->count];
	drop(t);
	loop_remove(t->timer);
	p->targets[t->index] = last;
	last->index = t->index;
	release_spec(&t->spec);
	free(t);
}

void *probe_target_user(const struct probe_target *t)
{
	return t->user;
}

struct health *probe_target_health(struct probe_target *t)
{
	return &t->health;
}

void probe_target_kick(struct probe_target *t)
{
	if (t->phase == PHASE_IDLE)
		loop_arm(t->timer, clock_ns());
	else
		t->again = true;
}
