/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

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
};

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
	last = --w->posted == 0 && w->freed;
	pthread_mutex_unlock(&w->lock);
	if (last)
		release(w);
}

static void *serve(void *arg)
{
	struct worker *w = arg;
	struct job *j;

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
		loop_post(w->loop, job_done, j);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
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

void worker_free(struct worker *w)
{
	struct job *j;
	bool last;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	w->freed = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	while ((j = w->head)) {
		w->head = j->next;
		free(j);
	}
	pthread_mutex_lock(&w->lock);
	last = w->posted == 0;
	pthread_mutex_unlock(&w->lock);
	if (last)
		release(w);
}
