/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one epoll set: file descriptors, monotonic timers, signals, and jobs
 * that come back from worker threads.  All callbacks run on the thread that
 * calls loop_run(); only loop_post() may be called from another one.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;
struct loop_source; /* a descriptor, or a timer */

typedef void (*loop_fd_fn)(void *arg, int fd, uint32_t events); /* EPOLLIN.. */
typedef void (*loop_fn)(void *arg);

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* CLOCK_MONOTONIC, and wall-clock milliseconds since 1970. */
uint64_t clock_ns(void);
int64_t clock_wall_ms(void);
void clock_text(int64_t wall_ms, char ret[32]); /* 2026-07-01T10:00:00Z */

int loop_new(struct loop **ret); /* 0 or -errno */
void loop_free(struct loop *l);
int loop_run(struct loop *l); /* until loop_stop(); 0 or -errno */
void loop_stop(struct loop *l);

/* The descriptor stays the caller's: remove the source, then close it. */
struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events,
				loop_fd_fn fn, void *arg);
void loop_set_events(struct loop_source *s, uint32_t events);

/* A timer that is not armed until loop_arm(). */
struct loop_source *loop_add_timer(struct loop *l, loop_fn fn, void *arg);
/* Fires once at clock_ns() >= due; arming again moves it. */
void loop_arm(struct loop_source *s, uint64_t due);
void loop_arm_in(struct loop_source *s, uint64_t delay);
void loop_disarm(struct loop_source *s);
bool loop_armed(const struct loop_source *s);
/* Armed timers of fn that are due at `now`, in no order; must change none. */
void loop_each_due(const struct loop *l, loop_fn fn, uint64_t now,
		   void (*see)(void *with, void *arg), void *with);

/* Safe inside its own callback and inside others'. NULL is fine. */
void loop_remove(struct loop_source *s);

/* From any thread: run fn(arg) on the loop's thread, in order. */
void loop_post(struct loop *l, loop_fn fn, void *arg);

/*
 * A worker: one thread that runs jobs in order.  run(arg) happens on the
 * thread, then done(arg) on the loop's.  worker_free() waits for the job
 * under way (not for queued ones, whose done() is never called).
 */
struct worker;
struct worker *worker_new(struct loop *l, const char *name);
void worker_submit(struct worker *w, loop_fn run, loop_fn done, void *arg);
unsigned int worker_pending(const struct worker *w); /* submitted, not done */
void worker_free(struct worker *w);
/*
 * Without waiting: the thread ends the job under way, however long that takes,
 * then runs last(arg), and that was all of it.  No done() is called any more,
 * and the loop may go.
 */
void worker_retire(struct worker *w, loop_fn last, void *arg);
/* Until all retired ones have ended; false: `limit` ns were not enough. */
bool workers_wait(uint64_t limit);

#endif
