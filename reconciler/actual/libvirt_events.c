/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvirt's event interface on our loop.  libvirt calls it from any thread
 * (workers make calls while the loop dispatches), and our loop may only be
 * touched on its own.  So every change is noted in the entry under a lock,
 * and one posted function brings the loop up to date for all that changed.
 *
 * A descriptor may be closed by libvirt as soon as it was removed, and its
 * number be used again before the loop hears of it; so the loop watches a
 * duplicate that is ours.
 */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

struct entry {
	LIST_ENTRY(entry) link;
	int id;
	bool is_timer;
	bool dirty; /* differs from what the loop knows */
	bool removed;
	int fd; /* libvirt's number */
	int watched_fd; /* our duplicate */
	int events; /* VIR_EVENT_HANDLE_* */
	int period_ms; /* timers; negative: off */
	virEventHandleCallback on_fd;
	virEventTimeoutCallback on_time;
	void *opaque;
	virFreeCallback free_opaque;
	struct loop_source *source; /* only touched on the loop's thread */
};

static struct {
	pthread_mutex_t lock;
	struct loop *loop;
	LIST_HEAD(, entry) entries;
	int last_id;
	bool posted;
} ev = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Nanoseconds; ms isn't negative. */
static uint64_t from_ms(int ms)
{
	return (unsigned int)ms * NS_PER_MS;
}

static uint32_t to_epoll(int events)
{
	uint32_t e = 0;

	if (events & VIR_EVENT_HANDLE_READABLE)
		e |= EPOLLIN;
	if (events & VIR_EVENT_HANDLE_WRITABLE)
		e |= EPOLLOUT;
	return e;
}

static int from_epoll(uint32_t e)
{
	int events = 0;

	if (e & EPOLLIN)
		events |= VIR_EVENT_HANDLE_READABLE;
	if (e & EPOLLOUT)
		events |= VIR_EVENT_HANDLE_WRITABLE;
	if (e & EPOLLERR)
		events |= VIR_EVENT_HANDLE_ERROR;
	if (e & EPOLLHUP)
		events |= VIR_EVENT_HANDLE_HANGUP;
	return events;
}

static void on_fd(void *arg, int fd, uint32_t events)
{
	struct entry *e = arg;
	int wanted, got = from_epoll(events);
	bool removed;

	(void)fd;
	pthread_mutex_lock(&ev.lock);
	removed = e->removed;
	wanted = e->events;
	pthread_mutex_unlock(&ev.lock);
	got &= wanted | VIR_EVENT_HANDLE_ERROR | VIR_EVENT_HANDLE_HANGUP;
	if (!removed && wanted && got)
		e->on_fd(e->id, e->fd, got, e->opaque);
}

static void on_time(void *arg)
{
	struct entry *e = arg;
	bool removed;
	int period;

	pthread_mutex_lock(&ev.lock);
	removed = e->removed;
	period = e->period_ms;
	pthread_mutex_unlock(&ev.lock);
	if (removed || period < 0)
		return;
	/* Before the call, which may well turn it off. */
	loop_arm_in(e->source, from_ms(period));
	e->on_time(e->id, e->opaque);
}

/* A descriptor without wanted events must not report its hang-up either. */
static void apply_handle(struct entry *e)
{
	uint32_t events = to_epoll(e->events);

	if (!e->events) {
		loop_remove(e->source);
		e->source = NULL;
	} else if (e->source) {
		loop_set_events(e->source, events);
	} else {
		e->source =
			loop_add_fd(ev.loop, e->watched_fd, events, on_fd, e);
	}
}

static void apply_timer(struct entry *e)
{
	if (!e->source)
		e->source = loop_add_timer(ev.loop, on_time, e);
	if (e->period_ms < 0)
		loop_disarm(e->source);
	else
		loop_arm_in(e->source, from_ms(e->period_ms));
}

static void entry_free(struct entry *e)
{
	loop_remove(e->source);
	if (e->watched_fd >= 0)
		close(e->watched_fd);
	if (e->free_opaque)
		e->free_opaque(e->opaque);
	free(e);
}

static struct entry *take_removed(void)
{
	struct entry *e;

	pthread_mutex_lock(&ev.lock);
	LIST_FOREACH(e, &ev.entries, link)
	if (e->removed)
		break;
	if (e)
		LIST_REMOVE(e, link);
	pthread_mutex_unlock(&ev.lock);
	return e;
}

static void apply(void *arg)
{
	struct entry *e;

	(void)arg;
	pthread_mutex_lock(&ev.lock);
	ev.posted = false;
	LIST_FOREACH(e, &ev.entries, link)
	{
		if (!e->dirty || e->removed)
			continue;
		e->dirty = false;
		if (e->is_timer)
			apply_timer(e);
		else
			apply_handle(e);
	}
	pthread_mutex_unlock(&ev.lock);
	/* What is freed may call us again, so the lock isn't held. */
	while ((e = take_removed()))
		entry_free(e);
}

/* Under the lock. */
static void changed(struct entry *e)
{
	e->dirty = true;
	if (ev.posted || !ev.loop)
		return;
	ev.posted = true;
	loop_post(ev.loop, apply, NULL);
}

static int add(struct entry *e)
{
	int id;

	pthread_mutex_lock(&ev.lock);
	id = e->id = ++ev.last_id;
	LIST_INSERT_HEAD(&ev.entries, e, link);
	changed(e);
	pthread_mutex_unlock(&ev.lock);
	return id;
}

static int add_handle(int fd, int events, virEventHandleCallback cb,
		      void *opaque, virFreeCallback ff)
{
	int dup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	struct entry *e;

	if (dup_fd < 0)
		return -1;
	e = mem_alloc(sizeof(*e));
	e->fd = fd;
	e->watched_fd = dup_fd;
	e->events = events;
	e->on_fd = cb;
	e->opaque = opaque;
	e->free_opaque = ff;
	return add(e);
}

static int add_timeout(int period_ms, virEventTimeoutCallback cb, void *opaque,
		       virFreeCallback ff)
{
	struct entry *e = mem_alloc(sizeof(*e));

	e->is_timer = true;
	e->watched_fd = -1;
	e->period_ms = period_ms;
	e->on_time = cb;
	e->opaque = opaque;
	e->free_opaque = ff;
	return add(e);
}

/* Under the lock. */
static struct entry *find(int id)
{
	struct entry *e;

	LIST_FOREACH(e, &ev.entries, link)
	if (e->id == id && !e->removed)
		return e;
	return NULL;
}

static void update_handle(int id, int events)
{
	struct entry *e;

	pthread_mutex_lock(&ev.lock);
	e = find(id);
	if (e && e->events != events) {
		e->events = events;
		changed(e);
	}
	pthread_mutex_unlock(&ev.lock);
}

/* Set again to the same period a timer starts anew. */
static void update_timeout(int id, int period_ms)
{
	struct entry *e;

	pthread_mutex_lock(&ev.lock);
	e = find(id);
	if (e && (period_ms >= 0 || e->period_ms >= 0)) {
		e->period_ms = period_ms;
		changed(e);
	}
	pthread_mutex_unlock(&ev.lock);
}

static int remove_entry(int id)
{
	struct entry *e;

	pthread_mutex_lock(&ev.lock);
	e = find(id);
	if (e) {
		e->removed = true;
		changed(e);
	}
	pthread_mutex_unlock(&ev.lock);
	return e ? 0 : -1;
}

int events_init(struct loop *l)
{
	static bool registered;

	pthread_mutex_lock(&ev.lock);
	ev.loop = l;
	ev.posted = false;
	pthread_mutex_unlock(&ev.lock);
	if (registered)
		return 0;
	registered = true;
	virEventRegisterImpl(add_handle, update_handle, remove_entry,
			     add_timeout, update_timeout, remove_entry);
	return 0;
}

void events_flush(void)
{
	apply(NULL);
}

bool events_post(loop_fn fn, void *arg)
{
	bool there;

	pthread_mutex_lock(&ev.lock);
	there = ev.loop != NULL;
	if (there)
		loop_post(ev.loop, fn, arg);
	pthread_mutex_unlock(&ev.lock);
	return there;
}

void events_end(void)
{
	struct entry *e;

	if (!ev.loop)
		return;
	apply(NULL);
	pthread_mutex_lock(&ev.lock);
	ev.loop = NULL;
	LIST_FOREACH(e, &ev.entries, link)
	{
		loop_remove(e->source);
		e->source = NULL;
	}
	pthread_mutex_unlock(&ev.lock);
}
