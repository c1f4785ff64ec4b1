/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "loop.h"

struct job {
	struct job *next;
	struct worker *worker;
	loop_fn run;
	loop_fn done;
	void *arg;
};

struct worker {
	struct loop *loop;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job *head;
	struct job **tail;
	bool quit;
	unsigned int pending; /* only touched on the loop's thread */
	/* Jobs whose done() is posted but not run yet hold a reference. */
	unsigned int posted;
	bool freed;
	bool retired;
	bool ended; /* retired, and the thread is through */
	loop_fn last;
	void *last_arg;
};

/* Retired threads that haven't ended. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned int count;
} retired = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };

static void release(struct worker *w)
{
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct worker *w = j->worker;
	bool last;

	w->pending--;
	if (j->done && !w->freed)
		j->done(j->arg);
	free(j);
	pthread_mutex_lock(&w->lock);
	last = --w->posted == 0 && w->freed && (!w->retired || w->ended);
	pthread_mutex_unlock(&w->lock);
	if (last)
		release(w);
}

/* Under the lock, so that the loop is there while it is told. */
static void hand_back(struct worker *w, struct job *j)
{
	if (!w->retired) {
		loop_post(w->loop, job_done, j);
		return;
	}
	w->posted--;
	free(j);
}

static void end_retired(struct worker *w)
{
	bool last;

	w->last(w->last_arg);
	pthread_mutex_lock(&w->lock);
	w->ended = true;
	last = w->posted == 0;
	pthread_mutex_unlock(&w->lock);
	if (last)
		release(w);
	pthread_mutex_lock(&retired.lock);
	retired.count--;
	pthread_cond_signal(&retired.wake);
	pthread_mutex_unlock(&retired.lock);
}

static void *serve(void *arg)
{
	struct worker *w = arg;
	struct job *j;
	bool goes;

	pthread_mutex_lock(&w->lock);
	while (!w->quit) {
		j = w->head;
		if (!j) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		w->head = j->next;
		if (!w->head)
			w->tail = &w->head;
		w->posted++;
		pthread_mutex_unlock(&w->lock);
		j->run(j->arg);
		pthread_mutex_lock(&w->lock);
		hand_back(w, j);
	}
	goes = w->retired;
	pthread_mutex_unlock(&w->lock);
	if (goes)
		end_retired(w);
	return NULL;
}

struct worker *worker_new(struct loop *l, const char *name)
{
	struct worker *w = mem_alloc(sizeof(*w));

	w->loop = l;
	w->tail = &w->head;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	if (pthread_create(&w->thread, NULL, serve, w))
		abort();
	pthread_setname_np(w->thread, name);
	return w;
}

void worker_submit(struct worker *w, loop_fn run, loop_fn done, void *arg)
{
	struct job *j = mem_alloc(sizeof(*j));

	*j = (struct job){ .worker = w, .run = run, .done = done, .arg = arg };
	w->pending++;
	pthread_mutex_lock(&w->lock);
	*w->tail = j;
	w->tail = &j->next;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

unsigned int worker_pending(const struct worker *w)
{
	return w->pending;
}

/* Under the lock, or with nobody left to take any. */
static void forget_queue(struct worker *w)
{
	struct job *j;

	while ((j = w->head)) {
		w->head = j->next;
		free(j);
	}
}

void worker_retire(struct worker *w, loop_fn last, void *arg)
{
	pthread_mutex_lock(&retired.lock);
	retired.count++;
	pthread_mutex_unlock(&retired.lock);
	pthread_detach(w->thread);
	pthread_mutex_lock(&w->lock);
	w->quit = w->freed = w->retired = true;
	w->last = last;
	w->last_arg = arg;
	forget_queue(w);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

bool workers_wait(uint64_t limit)
{
	struct timespec until;
	uint64_t end;
	int err = 0;
	bool none;

	clock_gettime(CLOCK_REALTIME, &until); /* as the condition has it */
	end = (uint64_t)until.tv_nsec + limit;
	until.tv_sec += (time_t)(end / NS_PER_S);
	until.tv_nsec = (long)(end % NS_PER_S);
	pthread_mutex_lock(&retired.lock);
	while (retired.count && err != ETIMEDOUT)
		err = pthread_cond_timedwait(&retired.wake, &retired.lock,
					     &until);
	none = retired.count == 0;
	pthread_mutex_unlock(&retired.lock);
	return none;
}

void worker_free(struct worker *w)
{
	bool last;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	w->freed = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	forget_queue(w);
	pthread_mutex_lock(&w->lock);
	last = w->posted == 0;
	pthread_mutex_unlock(&w->lock);
	if (last)
		release(w);
}
