/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * While a thread only looks, what would change the outside ends the process
 * before anything has changed; other threads, and the same one afterwards, are
 * free to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actual/netlink.h"
#include "base/mem.h"
#include "base/seam.h"
#include "state/store.h"

static char *folder;
static struct store *store;

static int set_up(void **state)
{
	const char *top = getenv("XLB_TEST_DIR");
	struct diag_list diags = { 0 };

	(void)state;
	folder = mem_printf("%s/seam.XXXXXX", top ? top : "/tmp");
	return !mkdtemp(folder) || store_open(folder, false, &store, &diags);
}

static int tear_down(void **state)
{
	AUTO_FREE char *remove = mem_printf("rm -rf '%s'", folder);

	(void)state;
	store_close(store);
	free(folder);
	return system(remove);
}

/* Signal that ended a child which did it while looking; 0: it went well. */
static int signal_of(void (*act)(void))
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		dup2(null, STDERR_FILENO);
		seam_look_begin();
		act();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static const struct store_override drain = { (char[]){ "drain" },
					     (char[]){ "web/b1" }, 1, 0 };

static void write_override(void)
{
	store_set_override(store, &drain);
}

static void read_overrides(void)
{
	struct store_override *o = NULL;
	size_t count = 0;

	if (store_overrides(store, &o, &count))
		abort();
	store_overrides_free(o, count);
}

static void begin_group(void)
{
	store_begin(store);
}

static void open_to_write(void)
{
	struct diag_list diags = { 0 };
	struct store *other;

	store_open(folder, false, &other, &diags);
}

static void write_sysctl(void)
{
	sysctl_write("net/ipv4/xlb_has_no_such_knob", "1");
}

static void look_within_a_look(void)
{
	seam_look_begin();
	seam_look_end();
	write_override();
}

static void look_and_end(void)
{
	seam_look_end();
	write_override();
}

static void *write_elsewhere(void *arg)
{
	(void)arg;
	seam_change("anything");
	return NULL;
}

static void another_thread(void)
{
	pthread_t t;

	if (pthread_create(&t, NULL, write_elsewhere, NULL))
		_exit(1);
	pthread_join(t, NULL);
}

static void changes_end_it(void **state)
{
	(void)state;
	assert_int_equal(signal_of(write_override), SIGABRT);
	assert_int_equal(signal_of(begin_group), SIGABRT);
	assert_int_equal(signal_of(open_to_write), SIGABRT);
	assert_int_equal(signal_of(write_sysctl), SIGABRT);
	assert_int_equal(signal_of(look_within_a_look), SIGABRT);
}

static void nothing_was_written(void **state)
{
	struct store_override *o = NULL;
	size_t count = 0;

	(void)state;
	assert_int_equal(store_overrides(store, &o, &count), 0);
	assert_int_equal(count, 0);
	store_overrides_free(o, count);
}

static void looking_goes_on(void **state)
{
	(void)state;
	assert_int_equal(signal_of(read_overrides), 0);
}

static void others_are_free(void **state)
{
	(void)state;
	assert_int_equal(signal_of(another_thread), 0);
}

static void so_is_who_has_looked(void **state)
{
	struct store_override *o = NULL;
	size_t count = 0;

	(void)state;
	assert_int_equal(signal_of(look_and_end), 0);
	assert_int_equal(store_overrides(store, &o, &count), 0);
	assert_int_equal(count, 1);
	store_overrides_free(o, count);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_end_it),
		cmocka_unit_test(nothing_was_written),
		cmocka_unit_test(looking_goes_on),
		cmocka_unit_test(others_are_free),
		cmocka_unit_test(so_is_who_has_looked),
	};

	return cmocka_run_group_tests_name("seam", tests, set_up, tear_down);
}
