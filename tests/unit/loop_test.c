/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the loop promises about turns. */
#include "loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS 1000

struct turns {
	struct loop *loop;
	struct loop_source *timer;
	unsigned int timers;
	unsigned int reads;
};

static void arm_again(void *arg)
{
	struct turns *t = arg;

	if (++t->timers < TURNS)
		loop_arm(t->timer, 0);
	else
		loop_stop(t->loop);
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct turns *t = arg;

	(void)fd;
	assert_int_equal(events, EPOLLIN);
	t->reads++;
}

/* The descriptor stays readable: it has its turn between any two timers. */
static void test_timer_starves_nothing(void **state)
{
	struct turns t = { 0 };
	int fd = eventfd(1, EFD_CLOEXEC);
	struct loop_source *source;

	(void)state;
	assert_int_equal(loop_new(&t.loop), 0);
	source = loop_add_fd(t.loop, fd, EPOLLIN, on_event, &t);
	t.timer = loop_add_timer(t.loop, arm_again, &t);
	loop_arm(t.timer, 0);
	assert_int_equal(loop_run(t.loop), 0);
	assert_int_equal(t.timers, TURNS);
	assert_true(t.reads >= TURNS - 1);
	loop_remove(source);
	loop_remove(t.timer);
	loop_free(t.loop);
	close(fd);
}

static void note(void *arg)
{
	struct turns *t = arg;

	t->timers++;
	loop_arm(t->timer, 0);
}

static void note_and_stop(void *arg)
{
	struct turns *t = arg;

	t->reads = t->timers;
	loop_stop(t->loop);
}

/* A timer that is due is not overtaken for ever by one that arms itself. */
static void test_due_timers_run(void **state)
{
	struct turns t = { 0 };
	struct loop_source *late;

	(void)state;
	assert_int_equal(loop_new(&t.loop), 0);
	t.timer = loop_add_timer(t.loop, note, &t);
	late = loop_add_timer(t.loop, note_and_stop, &t);
	loop_arm(t.timer, 0);
	loop_arm_in(late, 2 * NS_PER_MS);
	assert_int_equal(loop_run(t.loop), 0);
	assert_true(t.reads >= 1);
	loop_remove(t.timer);
	loop_remove(late);
	loop_free(t.loop);
}

/* ---- workers ---- */

struct work {
	struct loop *loop;
	int gate[2]; /* a byte lets the job go on */
	atomic_int began, ran, last;
	int done;
};

static void hang(void *arg)
{
	struct work *w = arg;
	char c;

	w->began++;
	assert_int_equal(read(w->gate[0], &c, 1), 1);
	w->ran++;
}

static void done(void *arg)
{
	struct work *w = arg;

	w->done++;
	loop_stop(w->loop);
}

static void say_last(void *arg)
{
	struct work *w = arg;

	w->last++;
}

static void work_begin(struct work *w)
{
	*w = (struct work){ 0 };
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(pipe(w->gate), 0);
}

static void work_end(struct work *w)
{
	close(w->gate[0]);
	close(w->gate[1]);
}

static void let_go(struct work *w)
{
	assert_int_equal(write(w->gate[1], "x", 1), 1);
}

static void test_worker_in_order(void **state)
{
	struct worker *worker;
	struct work w;

	(void)state;
	work_begin(&w);
	worker = worker_new(w.loop, "test");
	for (int i = 0; i < 3; i++) {
		worker_submit(worker, hang, done, &w);
		let_go(&w);
	}
	while (w.done < 3)
		assert_int_equal(loop_run(w.loop), 0);
	assert_int_equal(w.ran, 3);
	assert_int_equal(worker_pending(worker), 0);
	worker_free(worker);
	loop_free(w.loop);
	work_end(&w);
}

/* One that hangs keeps nobody waiting, and outlives the loop. */
static void test_worker_retires(void **state)
{
	struct worker *worker;
	struct work w;

	(void)state;
	work_begin(&w);
	worker = worker_new(w.loop, "test");
	for (int i = 0; i < 3; i++)
		worker_submit(worker, hang, done, &w);
	while (!w.began)
		usleep(1000);
	worker_retire(worker, say_last, &w);
	loop_free(w.loop);
	assert_false(workers_wait(10 * NS_PER_MS));
	let_go(&w);
	assert_true(workers_wait(60 * NS_PER_S));
	/* The one under way, none of those that waited. */
	assert_int_equal(w.ran, 1);
	assert_int_equal(w.last, 1);
	assert_int_equal(w.done, 0);
	work_end(&w);
}

/* Its answer is on the way back when it is retired. */
static void test_worker_retires_with_an_answer_posted(void **state)
{
	struct worker *worker;
	struct work w;

	(void)state;
	work_begin(&w);
	worker = worker_new(w.loop, "test");
	worker_submit(worker, hang, done, &w);
	let_go(&w);
	while (!w.ran)
		usleep(1000);
	worker_retire(worker, say_last, &w);
	assert_true(workers_wait(60 * NS_PER_S));
	loop_free(w.loop);
	assert_int_equal(w.last, 1);
	assert_int_equal(w.done, 0);
	work_end(&w);
}

#define TIMERS 200

struct seen {
	unsigned int count[TIMERS];
};

static void never(void *arg)
{
	(void)arg;
	fail();
}

static void other(void *arg)
{
	(void)arg;
	fail_msg("not asked for either");
}

static void see(void *with, void *arg)
{
	struct seen *s = with;

	s->count[(size_t)arg]++;
}

/* Those of one function that are due, each once, whatever the heap is like. */
static void test_each_due(void **state)
{
	struct loop_source *timers[TIMERS];
	uint64_t due[TIMERS];
	uint32_t random = 1;
	struct loop *l;

	(void)state;
	assert_int_equal(loop_new(&l), 0);
	for (size_t i = 0; i < TIMERS; i++)
		timers[i] = loop_add_timer(l, i % 3 ? never : other, (void *)i);
	for (int round = 0; round < 50; round++) {
		struct seen s = { 0 };

		for (size_t i = 0; i < TIMERS; i++) {
			random = random * 1664525 + 1013904223;
			due[i] = random >> 16 & 7 ? 1 + (random >> 20) : 0;
			loop_disarm(timers[i]);
			if (due[i])
				loop_arm(timers[i], due[i]);
		}
		loop_each_due(l, never, 2048, see, &s);
		for (size_t i = 0; i < TIMERS; i++)
			assert_int_equal(s.count[i],
					 i % 3 && due[i] && due[i] <= 2048);
	}
	for (size_t i = 0; i < TIMERS; i++)
		loop_remove(timers[i]);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer_starves_nothing),
		cmocka_unit_test(test_each_due),
		cmocka_unit_test(test_due_timers_run),
		cmocka_unit_test(test_worker_in_order),
		cmocka_unit_test(test_worker_retires),
		cmocka_unit_test(test_worker_retires_with_an_answer_posted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
