/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A target goes round: idle, (queued,) connecting, (answering,) idle.  Its one
 * timer tells when the next probe is due, or that this one took too long.
 * Every probe ends in probe_finish(), or in drop() when nobody wants its
 * result.
 */
#include "health/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/mem.h"

/* Probes of joining targets under way, in a lane. */
#define JOINING_MAX 100
/* TCP sends the second SYN after a second: too late for one that boots. */
#define JOINING_WAIT (100 * NS_PER_MS)
#define JOINING_PATIENT 16
/* Programs of the user's under way: each is a process. */
#define COMMANDS_MAX 32
#define TURN_EVERY (2 * NS_PER_MS)
#define LATENESS_SPAN (10 * NS_PER_S)
#define LATENESS_STEP (NS_PER_MS / 10)

static void running_start(struct probe_target *t)
{
	probe_finish(t, PROBE_PASS, NULL);
}
static const struct probe_kind probe_running = { .start = running_start };

static const struct probe_kind *const kinds[] = {
	[HEALTH_TCP] = &probe_tcp,	   [HEALTH_HTTP] = &probe_http,
	[HEALTH_HTTPS] = &probe_https,	   [HEALTH_DNS] = &probe_dns,
	[HEALTH_UDP] = &probe_udp,	   [HEALTH_ICMP] = &probe_icmp,
	[HEALTH_COMMAND] = &probe_command, [HEALTH_RUNNING] = &probe_running,
};

/* xorshift64* (Vigna 2016): spreads probes, guards nothing. */
uint32_t probe_random(struct prober *p)
{
	p->random ^= p->random >> 12;
	p->random ^= p->random << 25;
	p->random ^= p->random >> 27;
	return (uint32_t)(p->random * 0x2545F4914F6CDD1DULL >> 32);
}

uint16_t probe_port(const struct probe_target *t)
{
	return t->spec->port ? t->spec->port : t->port;
}

/* ---- specs ---- */

static void leave_spec(struct shared_spec *s)
{
	if (s && !--s->users)
		free(s);
}

static void join_spec(struct probe_target *t, const struct health_spec *spec)
{
	struct prober *p = t->prober;

	if (!p->last || !shared_spec_is(p->last, spec)) {
		leave_spec(p->last);
		p->last = shared_spec_new(spec);
	}
	leave_spec(t->shared);
	t->shared = p->last;
	t->shared->users++;
	t->spec = &t->shared->spec;
	t->kind = kinds[t->spec->type];
}

/* ---- gates ---- */

static void gate_init(struct gate *g, unsigned int most)
{
	g->most = most;
	TAILQ_INIT(&g->queue);
}

void gate_leave(struct gate *g)
{
	struct probe_target *next = TAILQ_FIRST(&g->queue);
	enum gate_kind kind;

	if (!next) {
		g->used--;
		return;
	}
	kind = g == &next->prober->commands ? GATE_COMMAND : GATE_JOINING;
	TAILQ_REMOVE(&g->queue, next, queue);
	next->phase = PHASE_IDLE;
	next->waits_for = NULL;
	next->held[kind] = g;
	loop_arm(next->timer, clock_ns());
}

static struct gate *gate_of(struct probe_target *t, enum gate_kind kind)
{
	switch (kind) {
	case GATE_JOINING:
		return t->health.state == HEALTH_JOINING ? t->lane : NULL;
	case GATE_COMMAND:
		return t->spec->type == HEALTH_COMMAND ? &t->prober->commands
						       : NULL;
	case GATE_KINDS:
		break;
	}
	return NULL;
}

static void wait_at(struct probe_target *t, struct gate *g)
{
	t->phase = PHASE_QUEUED;
	t->waits_for = g;
	TAILQ_INSERT_TAIL(&g->queue, t, queue);
}

/* False: it waits in a queue. */
static bool pass_gates(struct probe_target *t)
{
	for (int k = 0; k < GATE_KINDS; k++) {
		struct gate *g = gate_of(t, (enum gate_kind)k);

		if (!g || t->held[k])
			continue;
		if (g->used >= g->most) {
			wait_at(t, g);
			return false;
		}
		g->used++;
		t->held[k] = g;
	}
	return true;
}

static void leave_gates(struct probe_target *t)
{
	for (int k = 0; k < GATE_KINDS; k++) {
		struct gate *g = t->held[k];

		t->held[k] = NULL;
		if (g)
			gate_leave(g);
	}
}

static struct gate *lane_get(struct prober *p, const char *name)
{
	struct lane *l;

	for (l = p->lanes; l; l = l->next)
		if (!strcmp(l->name, name))
			return &l->gate;
	l = mem_alloc(sizeof(*l));
	l->name = mem_dup(name);
	gate_init(&l->gate, JOINING_MAX);
	l->next = p->lanes;
	p->lanes = l;
	return &l->gate;
}

/* ---- lateness ---- */

static void note_lateness(struct prober *p, uint64_t now, uint64_t due)
{
	uint64_t late = now > due ? now - due : 0;
	uint64_t step = late / LATENESS_STEP;
	struct lateness *l = &p->late[0];

	if (now - l->since > LATENESS_SPAN) {
		p->late[1] = *l;
		*l = (struct lateness){ .since = now };
	}
	l->count++;
	if (late > l->most)
		l->most = late;
	l->steps[step < ARRAY_SIZE(l->steps) ? step
					     : ARRAY_SIZE(l->steps) - 1]++;
}

/* Upper end of the step that has it; of the last step the largest of all. */
static double lateness_p99(const struct prober *p, uint64_t most)
{
	uint64_t count = p->late[0].count + p->late[1].count, seen = 0;

	for (size_t i = 0; i + 1 < ARRAY_SIZE(p->late[0].steps); i++) {
		uint64_t end = (i + 1) * LATENESS_STEP;

		seen += p->late[0].steps[i] + p->late[1].steps[i];
		if (seen * 100 >= count * 99)
			return (double)(end < most ? end : most) / 1e6;
	}
	return (double)most / 1e6;
}

static size_t queue_length(const struct gate *g)
{
	const struct probe_target *t;
	size_t n = 0;

	TAILQ_FOREACH(t, &g->queue, queue)
	n++;
	return n;
}

void prober_figures(const struct prober *p, struct prober_figures *ret)
{
	uint64_t most = p->late[0].most > p->late[1].most ? p->late[0].most
							  : p->late[1].most;

	*ret = (struct prober_figures){
		.targets = p->count,
		.queued = queue_length(&p->commands),
		.sent = p->sent,
		.late_p99_ms = lateness_p99(p, most),
		.late_max_ms = (double)most / 1e6,
	};
	memcpy(ret->results, p->results, sizeof(ret->results));
	for (const struct lane *l = p->lanes; l; l = l->next)
		ret->queued += queue_length(&l->gate);
}

/* ---- one probe ---- */

static void arm(struct probe_target *t, uint64_t due)
{
	t->due = due;
	loop_arm(t->timer, due);
}

/* Leaves nothing of a probe under way. */
static void drop(struct probe_target *t)
{
	if (t->phase == PHASE_QUEUED)
		TAILQ_REMOVE(&t->waits_for->queue, t, queue);
	t->waits_for = NULL;
	loop_remove(t->source);
	t->source = NULL;
	if (t->work && t->kind->drop)
		t->kind->drop(t);
	t->work = NULL;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	t->phase = PHASE_IDLE;
	loop_disarm(t->timer);
	leave_gates(t);
}

static void schedule(struct probe_target *t, uint64_t now)
{
	uint64_t due = health_next_due(&t->health, t->spec, t->started,
				       t->place, probe_random(t->prober));

	/* A probe may have taken longer than the interval. */
	if (t->again || due < now)
		due = now;
	t->again = false;
	arm(t, due);
}

void probe_finish(struct probe_target *t, enum probe_result result,
		  const char *detail)
{
	struct prober *p = t->prober;
	uint64_t now = clock_ns();
	struct probe_report report = {
		.result = result,
		.detail = detail ? detail : "",
		.took = now - t->started,
	};

	drop(t);
	p->results[result]++;
	report.changed = health_feed(&t->health, t->spec, result);
	schedule(t, now);
	/* Last: the callee may remove the target. */
	p->fn(p->arg, t, &t->health, &report);
}

enum probe_result probe_result_of(int error)
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

void probe_fail(struct probe_target *t, int error)
{
	probe_finish(t, probe_result_of(error), strerror(error));
}

int probe_socket_error(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
		return errno;
	return error;
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct probe_target *t = arg;

	(void)fd;
	t->kind->event(t, events);
}

void probe_watch(struct probe_target *t, uint32_t events)
{
	t->source = loop_add_fd(t->prober->loop, t->fd, events | EPOLLET,
				on_event, t);
}

uint64_t probe_deadline(const struct probe_target *t)
{
	return t->started + t->spec->timeout;
}

uint64_t probe_first_deadline(struct probe_target *t)
{
	uint64_t limit = t->spec->timeout;

	if (t->health.state == HEALTH_JOINING && ++t->tries % JOINING_PATIENT &&
	    limit > JOINING_WAIT)
		limit = JOINING_WAIT;
	return t->started + limit;
}

static void start(struct probe_target *t)
{
	t->started = clock_ns();
	/* A machine that was killed runs again under a new target. */
	if (t->spec->type == HEALTH_RUNNING && t->health.state == HEALTH_DEAD) {
		schedule(t, t->started);
		return;
	}
	t->prober->sent++;
	t->kind->start(t);
}

static void on_timer(void *arg)
{
	struct probe_target *t = arg;

	if (t->phase != PHASE_IDLE) {
		probe_finish(t, PROBE_TIMEOUT, NULL);
		return;
	}
	/* One that has waited in a queue was on time before. */
	if (t->due)
		note_lateness(t->prober, clock_ns(), t->due);
	t->due = 0;
	if (pass_gates(t))
		start(t);
}

static void add_due(void *with, void *arg)
{
	struct probe_target *t = arg;
	struct prober *p = with;

	/* What is under way may have been answered: the loop knows. */
	if (t->prober == p && t->phase == PHASE_IDLE && t->due)
		*MEM_PUSH(p->due, p->due_count) =
			(struct due_target){ t, t->index };
}

/* By where it was: a target may have gone with the start of another. */
static bool is_still_due(const struct prober *p, const struct due_target *d)
{
	return d->index < p->count && p->targets[d->index] == d->target &&
	       d->target->phase == PHASE_IDLE && d->target->due;
}

void prober_turn(struct prober *p)
{
	uint64_t now = clock_ns();

	if (now - p->turned < TURN_EVERY)
		return;
	p->turned = now;
	p->due_count = 0;
	loop_each_due(p->loop, on_timer, now, add_due, p);
	for (size_t i = 0; i < p->due_count; i++) {
		struct probe_target *t = p->due[i].target;

		if (!is_still_due(p, &p->due[i]))
			continue;
		loop_disarm(t->timer);
		on_timer(t);
	}
}

/* ---- targets ---- */

struct prober *prober_new(struct loop *l, probe_fn fn, void *arg)
{
	struct prober *p = mem_alloc(sizeof(*p));

	p->loop = l;
	p->fn = fn;
	p->arg = arg;
	p->late[0].since = clock_ns();
	gate_init(&p->commands, COMMANDS_MAX);
	LIST_INIT(&p->runs);
	if (getrandom(&p->random, sizeof(p->random), GRND_NONBLOCK) < 0)
		p->random = clock_ns();
	p->random |= 1; /* xorshift has no way out of 0 */
	return p;
}

void prober_free(struct prober *p)
{
	struct lane *next;

	if (!p)
		return;
	while (p->count)
		probe_target_remove(p->targets[p->count - 1]);
	commands_kill(p);
	web_free(p->web);
	for (struct lane *l = p->lanes; l; l = next) {
		next = l->next;
		free(l->name);
		free(l);
	}
	leave_spec(p->last);
	free(p->targets);
	free(p->due);
	free(p);
}

/* FNV-1a of the backend's address and port: its place in any interval. */
static uint64_t place_of(const struct ip *address, uint16_t port)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < sizeof(address->bytes); i++)
		h = (h ^ address->bytes[i]) * 0x100000001b3ULL;
	h = (h ^ (port & 0xff)) * 0x100000001b3ULL;
	h = (h ^ (port >> 8)) * 0x100000001b3ULL;
	return h ^ h >> 32;
}

static void set_place(struct probe_target *t, const struct ip *address,
		      uint16_t port)
{
	t->address = *address;
	t->port = port;
	t->place = place_of(address, port);
}

struct probe_target *prober_add(struct prober *p, const struct probe_site *site,
				const struct health_spec *spec,
				const struct ip *address, uint16_t port,
				enum health_state initial, void *user)
{
	struct probe_target *t = mem_alloc(sizeof(*t));
	uint64_t now = clock_ns();

	t->prober = p;
	t->service = mem_dup(site->service);
	t->backend = mem_dup(site->backend);
	t->lane = lane_get(p, site->lane ? site->lane : "");
	join_spec(t, spec);
	set_place(t, address, port);
	t->user = user;
	t->fd = -1;
	t->timer = loop_add_timer(p->loop, on_timer, t);
	health_init(&t->health, initial);
	t->index = p->count;
	*(struct probe_target **)MEM_PUSH(p->targets, p->count) = t;
	/* Half an interval ago, as it were: the next is within one. */
	t->started = now - spec->interval / 2;
	if (initial == HEALTH_JOINING)
		arm(t, now);
	else
		schedule(t, now);
	return t;
}

void probe_target_update(struct probe_target *t, const struct health_spec *spec,
			 const struct ip *address, uint16_t port)
{
	bool moved = !ip_equal(&t->address, address) || t->port != port;
	bool other = !shared_spec_is(t->shared, spec);
	bool elsewhere = moved || t->spec->type != spec->type ||
			 t->spec->port != spec->port;
	bool paced = t->spec->interval == spec->interval;

	if (!moved && !other)
		return;
	/* By the kind and with the spec that it was started with. */
	if (elsewhere || (other && t->phase != PHASE_IDLE))
		drop(t);
	join_spec(t, spec);
	set_place(t, address, port);
	if (elsewhere || !loop_armed(t->timer))
		arm(t, clock_ns());
	else if (!paced && !t->held[GATE_JOINING])
		schedule(t, clock_ns());
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
	leave_spec(t->shared);
	free(t->service);
	free(t->backend);
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
		arm(t, clock_ns());
	else
		t->again = true;
}
