/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the loop promises about turns. */
#include "loop.h"

#include <setjmp.h>
#include <stdarg.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer_starves_nothing),
		cmocka_unit_test(test_due_timers_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
