/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sources are never freed while callbacks run: loop_remove() marks a source
 * dead and it is reclaimed after the batch, so that an event already fetched
 * for it is skipped rather than delivered to freed memory.
 */
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#define NOT_ARMED SIZE_MAX
#define EVENT_BATCH 64

enum source_kind { SOURCE_FD, SOURCE_TIMER };

struct loop_source {
	struct loop *loop;
	enum source_kind kind;
	bool dead;
	void *arg;
	int fd;
	loop_fd_fn fd_fn;
	loop_fn timer_fn;
	uint64_t due;
	size_t heap_index; /* NOT_ARMED: not in the heap */
	struct loop_source *next_dead;
};

struct post {
	struct post *next;
	loop_fn fn;
	void *arg;
};

struct loop {
	int epoll_fd;
	int timer_fd;
	int event_fd;
	bool stop;
	uint64_t programmed; /* what timer_fd is set to; 0: nothing */
	uint64_t round; /* when the timers of this round were looked at */
	struct loop_source **heap; /* earliest first */
	size_t heap_count;
	struct loop_source *dead;
	pthread_mutex_t lock; /* of the two below */
	struct post *posts;
	struct post **posts_tail;
};

uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

int64_t clock_wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void clock_text(int64_t wall_ms, char ret[32])
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm = { 0 };

	gmtime_r(&t, &tm);
	strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static int add_to_epoll(struct loop *l, int fd, uint32_t events, void *ptr)
{
	struct epoll_event ev = { .events = events, .data.ptr = ptr };

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

int loop_new(struct loop **ret)
{
	struct loop *l = mem_alloc(sizeof(*l));
	int err;

	l->posts_tail = &l->posts;
	pthread_mutex_init(&l->lock, NULL);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	l->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (l->epoll_fd < 0 || l->timer_fd < 0 || l->event_fd < 0)
		err = -errno;
	else if (!(err = add_to_epoll(l, l->timer_fd, EPOLLIN, &l->timer_fd)))
		err = add_to_epoll(l, l->event_fd, EPOLLIN, &l->event_fd);
	if (err) {
		loop_free(l);
		return err;
	}
	*ret = l;
	return 0;
}

static void reclaim(struct loop *l)
{
	while (l->dead) {
		struct loop_source *s = l->dead;

		l->dead = s->next_dead;
		free(s);
	}
}

static void heap_place(struct loop *l, size_t i, struct loop_source *s)
{
	l->heap[i] = s;
	s->heap_index = i;
}

static void heap_up(struct loop *l, size_t i)
{
	struct loop_source *s = l->heap[i];

	while (i && l->heap[(i - 1) / 2]->due > s->due) {
		heap_place(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_place(l, i, s);
}

static void heap_down(struct loop *l, size_t i)
{
	struct loop_source *s = l->heap[i];

	for (;;) {
		size_t child = i * 2 + 1;

		if (child >= l->heap_count)
			break;
		if (child + 1 < l->heap_count &&
		    l->heap[child + 1]->due < l->heap[child]->due)
			child++;
		if (l->heap[child]->due >= s->due)
			break;
		heap_place(l, i, l->heap[child]);
		i = child;
	}
	heap_place(l, i, s);
}

static void heap_remove(struct loop_source *s)
{
	struct loop *l = s->loop;
	size_t i = s->heap_index;
	struct loop_source *last;

	if (i == NOT_ARMED)
		return;
	s->heap_index = NOT_ARMED;
	last = l->heap[--l->heap_count];
	if (last == s)
		return;
	heap_place(l, i, last);
	heap_up(l, i);
	heap_down(l, last->heap_index);
}

struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events,
				loop_fd_fn fn, void *arg)
{
	struct loop_source *s = mem_alloc(sizeof(*s));
	int err;

	*s = (struct loop_source){ .loop = l,
				   .kind = SOURCE_FD,
				   .arg = arg,
				   .fd = fd,
				   .fd_fn = fn,
				   .heap_index = NOT_ARMED };
	err = add_to_epoll(l, fd, events, s);
	if (err)
		log_error("loop_add", "fd=%d err=%d", fd, err);
	return s;
}

void loop_set_events(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };

	if (epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev))
		log_error("loop_set_events", "fd=%d err=%d", s->fd, -errno);
}

struct loop_source *loop_add_timer(struct loop *l, loop_fn fn, void *arg)
{
	struct loop_source *s = mem_alloc(sizeof(*s));

	*s = (struct loop_source){ .loop = l,
				   .kind = SOURCE_TIMER,
				   .arg = arg,
				   .fd = -1,
				   .timer_fn = fn,
				   .heap_index = NOT_ARMED };
	return s;
}

/*
 * What a timer arms, be it for a time long past, waits for the next round: in
 * between descriptors have their turn, so that nothing can starve them.
 */
void loop_arm(struct loop_source *s, uint64_t due)
{
	struct loop *l = s->loop;

	heap_remove(s);
	s->due = due > l->round ? due : l->round + 1;
	l->heap = mem_grow(l->heap, l->heap_count, sizeof(*l->heap));
	l->heap[l->heap_count] = s;
	heap_up(l, l->heap_count++);
}

void loop_arm_in(struct loop_source *s, uint64_t delay)
{
	loop_arm(s, clock_ns() + delay);
}

void loop_disarm(struct loop_source *s)
{
	heap_remove(s);
}

bool loop_armed(const struct loop_source *s)
{
	return s->heap_index != NOT_ARMED;
}

/* What is below one that isn't due is due later still. */
static void see_due(const struct loop *l, size_t i, loop_fn fn, uint64_t now,
		    void (*see)(void *with, void *arg), void *with)
{
	if (i >= l->heap_count || l->heap[i]->due > now)
		return;
	if (l->heap[i]->timer_fn == fn)
		see(with, l->heap[i]->arg);
	see_due(l, i * 2 + 1, fn, now, see, with);
	see_due(l, i * 2 + 2, fn, now, see, with);
}

void loop_each_due(const struct loop *l, loop_fn fn, uint64_t now,
		   void (*see)(void *with, void *arg), void *with)
{
	see_due(l, 0, fn, now, see, with);
}

void loop_remove(struct loop_source *s)
{
	if (!s || s->dead)
		return;
	heap_remove(s);
	if (s->kind == SOURCE_FD)
		epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->dead = true;
	s->next_dead = s->loop->dead;
	s->loop->dead = s;
}

void loop_post(struct loop *l, loop_fn fn, void *arg)
{
	struct post *p = mem_alloc(sizeof(*p));
	uint64_t one = 1;

	p->fn = fn;
	p->arg = arg;
	pthread_mutex_lock(&l->lock);
	*l->posts_tail = p;
	l->posts_tail = &p->next;
	pthread_mutex_unlock(&l->lock);
	/* Fails only when the counter is full, and then it wakes anyway. */
	if (write(l->event_fd, &one, sizeof(one)) < 0)
		return;
}

static void run_posts(struct loop *l)
{
	struct post *p, *next;
	uint64_t count;

	if (read(l->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("loop_eventfd", "err=%d", -errno);
	pthread_mutex_lock(&l->lock);
	p = l->posts;
	l->posts = NULL;
	l->posts_tail = &l->posts;
	pthread_mutex_unlock(&l->lock);
	for (; p; p = next) {
		next = p->next;
		p->fn(p->arg);
		free(p);
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	/* Once more, so that what was on its way back is released. */
	if (l->event_fd >= 0)
		run_posts(l);
	reclaim(l);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	if (l->timer_fd >= 0)
		close(l->timer_fd);
	if (l->event_fd >= 0)
		close(l->event_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->heap);
	free(l);
}

static void run_timers(struct loop *l)
{
	l->round = clock_ns();
	while (l->heap_count && l->heap[0]->due <= l->round) {
		struct loop_source *s = l->heap[0];

		heap_remove(s);
		s->timer_fn(s->arg);
	}
}

/* Absolute time, so that a wake-up late once isn't late for ever. */
static void program_timer(struct loop *l)
{
	struct itimerspec its = { 0 };
	uint64_t due = l->heap_count ? l->heap[0]->due : 0;

	if (due == l->programmed)
		return;
	l->programmed = due;
	if (l->heap_count) {
		if (!due)
			due = 1;
		its.it_value.tv_sec = (time_t)(due / NS_PER_S);
		its.it_value.tv_nsec = (long)(due % NS_PER_S);
	}
	timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void drain_timer_fd(struct loop *l)
{
	uint64_t count;

	l->programmed = 0;
	if (read(l->timer_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("loop_timerfd", "err=%d", -errno);
}

static void dispatch(struct loop *l, const struct epoll_event *ev)
{
	struct loop_source *s;

	if (ev->data.ptr == &l->timer_fd) {
		drain_timer_fd(l);
	} else if (ev->data.ptr == &l->event_fd) {
		run_posts(l);
	} else {
		s = ev->data.ptr;
		if (!s->dead)
			s->fd_fn(s->arg, s->fd, ev->events);
	}
}

int loop_run(struct loop *l)
{
	struct epoll_event events[EVENT_BATCH];
	int n;

	l->stop = false;
	while (!l->stop) {
		program_timer(l);
		n = epoll_wait(l->epoll_fd, events, EVENT_BATCH, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n && !l->stop; i++)
			dispatch(l, &events[i]);
		if (!l->stop)
			run_timers(l);
		reclaim(l);
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}
