/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saving as people, editors and tools do it, in a scratch folder. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop.h"
#include "watch.h"

/* Long enough for anything that will come; only its end is waited for. */
#define LIMIT (10 * NS_PER_S)
/* Long enough for what must not come to have come, mostly. */
#define QUIET (60 * NS_PER_MS)

static struct loop *loop;
static struct loop_source *timer;
static struct watch *watch;
static unsigned int told;
static char root[64];

static void on_saved(void *arg)
{
	(void)arg;
	told++;
	loop_stop(loop);
}

static void on_time(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void sh(const char *command)
{
	if (system(command))
		fail_msg("failed: %s", command);
}

static void start(const char *path)
{
	assert_int_equal(watch_new(loop, path, NULL, on_saved, NULL, &watch),
			 0);
}

static void quiet(void)
{
	unsigned int before = told;

	loop_arm_in(timer, QUIET);
	while (loop_armed(timer))
		loop_run(loop);
	assert_int_equal(told, before);
}

/* Told once, and then no more. */
static void told_once(void)
{
	told = 0;
	loop_arm_in(timer, LIMIT);
	loop_run(loop);
	assert_int_equal(told, 1);
	quiet();
	told = 0;
}

/* Told, as often as it takes. */
static void told_some(void)
{
	told = 0;
	loop_arm_in(timer, LIMIT);
	loop_run(loop);
	assert_true(told > 0);
	loop_arm_in(timer, QUIET);
	while (loop_armed(timer))
		loop_run(loop);
	told = 0;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(root, "/tmp/xlb-watch-XXXXXX");
	told = 0;
	watch = NULL;
	if (!mkdtemp(root) || chdir(root) || loop_new(&loop))
		return -1;
	timer = loop_add_timer(loop, on_time, NULL);
	sh("echo one > services.yaml");
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	watch_free(watch);
	loop_remove(timer);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return chdir("/") || system(command);
}

static void test_in_place(void **state)
{
	(void)state;
	start("services.yaml");
	quiet();
	sh("echo two > services.yaml");
	told_once();
	sh("echo three >> services.yaml");
	told_once();
	sh("truncate -s 2 services.yaml");
	told_once();
	sh(": > services.yaml");
	told_once();
}

static void test_bare_modify(void **state)
{
	int fd;

	(void)state;
	start("services.yaml");
	fd = open("services.yaml", O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "half", 4), 4);
	quiet();
	assert_int_equal(write(fd, "half", 4), 4);
	quiet();
	close(fd);
	told_once();
}

static void test_only_the_file_counts(void **state)
{
	(void)state;
	start("services.yaml");
	sh("echo x > other.yaml; mv other.yaml third.yaml; rm third.yaml;"
	   "cat services.yaml >/dev/null; mkdir d; chmod 600 services.yaml");
	quiet();
	sh("mv services.yaml away.yaml");
	told_once();
	sh("mv away.yaml services.yaml");
	told_once();
}

static void test_rename_over(void **state)
{
	(void)state;
	start("services.yaml");
	sh("echo two > .tmp; mv .tmp services.yaml");
	told_once();
	sh("sed -i s/two/three/ services.yaml");
	told_once();
	sh("echo four > .tmp; ln -f .tmp services.yaml");
	told_some();
}

/* Twice, because the second time there is a backup already. */
static void test_editor(void **state)
{
	(void)state;
	start("services.yaml");
	for (int i = 0; i < 2; i++) {
		/* As vim with 'backupcopy=no': away, new one, close. */
		sh("mv services.yaml services.yaml~; echo v > services.yaml");
		told_some();
	}
	if (access("/usr/bin/vim.tiny", X_OK)) {
		print_message("# no vim.tiny: only its system calls\n");
		return;
	}
	sh("printf '%%s/v/w/\\nwq\\n' |"
	   "vim.tiny -u NONE -es services.yaml >/dev/null");
	told_some();
	sh("printf '%%s/w/x/\\nwq\\n' | vim.tiny -u NONE -es "
	   "--cmd 'set backup backupcopy=no' services.yaml >/dev/null");
	told_some();
	sh("grep -q x services.yaml");
}

static void test_links(void **state)
{
	(void)state;
	sh("mkdir a b; echo a > a/f; echo b > b/f; rm services.yaml;"
	   "ln -s a/f services.yaml");
	start("services.yaml");
	sh("echo aa > a/f");
	told_once();
	sh("echo bb > b/f");
	quiet();
	sh("ln -s b/f .new; mv -T .new services.yaml");
	told_once();
	sh("echo aaa > a/f");
	quiet();
	sh("echo bbb > b/f");
	told_once();
	sh("ln -sfn a/f services.yaml");
	told_some();
	sh("echo a4 > a/f");
	told_once();
}

/* As kubelet mounts and updates a config map. */
static void test_config_map(void **state)
{
	(void)state;
	sh("rm services.yaml; mkdir ..1; echo 1 > ..1/services.yaml;"
	   "ln -s ..1 ..data; ln -s ..data/services.yaml services.yaml");
	start("services.yaml");
	for (int i = 2; i < 8; i++) {
		char command[256];

		snprintf(command, sizeof(command),
			 "mkdir ..%d; echo %d > ..%d/services.yaml;"
			 "ln -s ..%d ..data_tmp; mv -T ..data_tmp ..data",
			 i, i, i, i);
		sh(command);
		told_once();
		snprintf(command, sizeof(command), "rm -r ..%d", i - 1);
		sh(command);
		quiet();
	}
	sh("echo more >> ..data/services.yaml");
	told_once();
}

static void test_file_deleted(void **state)
{
	(void)state;
	start("services.yaml");
	sh("rm services.yaml");
	told_once();
	sh("echo back > services.yaml");
	told_once();
}

static void test_folder_deleted(void **state)
{
	(void)state;
	sh("mkdir -p x/y; echo 1 > x/y/f.yaml");
	start("x/y/f.yaml");
	for (int i = 0; i < 3; i++) {
		sh("rm -r x");
		told_some();
		sh("mkdir -p x/y; echo 2 > x/y/f.yaml");
		told_some();
		sh("echo 3 > x/y/f.yaml");
		told_once();
	}
	sh("mv x/y x/z; mkdir x/y; echo 4 > x/y/f.yaml");
	told_some();
	sh("echo 5 > x/z/f.yaml");
	quiet();
	sh("echo 6 > x/y/f.yaml");
	told_once();
}

static void test_not_there_yet(void **state)
{
	(void)state;
	start("later/services.yaml");
	sh("mkdir later");
	told_some();
	sh("echo x > later/services.yaml");
	told_once();
}

static void test_folder(void **state)
{
	(void)state;
	sh("mkdir d e; echo 1 > d/1.yaml; echo 3 > e/3.yaml;"
	   "ln -s ../e/3.yaml d/3.yaml");
	start("d");
	sh("echo a > d/1.yaml & echo b > d/2.yaml & wait");
	told_some();
	sh("echo 2 > d/notes.txt");
	quiet();
	sh("rm d/2.yaml");
	told_once();
	sh("echo c > e/3.yaml");
	told_once();
	sh("ln -s ../services.yaml d/4.yaml");
	told_once();
	sh("echo d > services.yaml");
	told_once();
}

/* ---- what is done while it is waited for more ---- */

static const char *disturbance;
static unsigned int coming, taken;
static struct timespec busy;

static void on_coming(void *arg)
{
	(void)arg;
	coming++;
	if (disturbance)
		sh(disturbance);
	nanosleep(&busy, NULL);
	if (!watch_take_saved(watch))
		return;
	taken++;
	loop_stop(loop);
}

static void start_early(const char *path)
{
	coming = taken = 0;
	busy.tv_nsec = 60 * 1000 * 1000;
	assert_int_equal(
		watch_new(loop, path, on_coming, on_saved, NULL, &watch), 0);
}

static void test_coming(void **state)
{
	(void)state;
	sh("mkdir d; echo 1 > d/1.yaml");
	start_early("d");
	sh("echo 2 > d/.new; mv d/.new d/1.yaml");
	loop_arm_in(timer, LIMIT);
	loop_run(loop);
	assert_int_equal(coming, 1);
	assert_int_equal(taken, 1);
	quiet();
	busy.tv_nsec = 0; /* done before the wait is */
	sh("echo 3 > d/.new; mv d/.new d/1.yaml");
	loop_arm_in(timer, LIMIT);
	loop_run(loop);
	assert_int_equal(coming, 2);
	assert_int_equal(taken, 2);
	quiet();
}

static void test_more_comes(void **state)
{
	(void)state;
	sh("mkdir d; echo 1 > d/1.yaml");
	start_early("d");
	disturbance = "echo 3 > d/2.yaml";
	sh("echo 2 > d/1.yaml");
	told_some();
	disturbance = NULL;
	assert_true(coming > 0);
	assert_int_equal(taken, 0);
}

/* Nothing is read that git is still writing. */
static void test_not_under_a_lock(void **state)
{
	(void)state;
	sh("git init -q . </dev/null; mkdir d; touch .git/index.lock");
	start_early("d");
	sh("echo 2 > d/1.yaml");
	quiet();
	assert_int_equal(coming, 0);
	sh("rm .git/index.lock");
	told_once();
	assert_int_equal(taken, 0);
}

/* A file of its own is whole when it is saved: there is nothing to wait for. */
static void test_nothing_comes(void **state)
{
	(void)state;
	start_early("services.yaml");
	sh("echo 2 > services.yaml");
	told_once();
	assert_int_equal(coming, 0);
}

#define GIT \
	"git -c user.name=t -c user.email=t@example -c commit.gpgsign=false "

static void test_git(void **state)
{
	(void)state;
	sh("{ git init -q -b one . && " GIT "add services.yaml && " GIT
	   "commit -qm 1 && git checkout -q -b two && echo two > services.yaml "
	   "&& " GIT "commit -qam 2; } </dev/null");
	start("services.yaml");
	sh("git checkout -q one");
	told_once();
	sh("git checkout -q two");
	told_once();
	sh("grep -q two services.yaml");
	/* Held back while a command of git is under way, then told once. */
	sh("touch .git/index.lock; echo 3 > services.yaml");
	quiet();
	sh("echo 4 > .tmp; mv .tmp services.yaml");
	quiet();
	sh("rm .git/index.lock");
	told_once();
	/* A linked work tree has its lock elsewhere. */
	watch_free(watch);
	sh("git worktree add -q wt one");
	start("wt/services.yaml");
	sh("touch .git/worktrees/wt/index.lock; echo 5 > wt/services.yaml");
	quiet();
	sh("rm .git/worktrees/wt/index.lock");
	told_once();
	/* The other tree's lock is not this one's. */
	sh("touch .git/index.lock; echo 6 > wt/services.yaml");
	told_once();
}

static void test_freed_while_locked(void **state)
{
	(void)state;
	sh("git init -q . </dev/null; touch .git/index.lock");
	start("services.yaml");
	sh("echo 2 > services.yaml");
	quiet();
}

/* Events that nobody had read don't surprise the next one. */
static void test_again_and_again(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		start("services.yaml");
		sh(i % 2 ? ": > services.yaml" : ": > x; : > y");
		watch_free(watch);
	}
	start("services.yaml");
	quiet();
	sh("echo 1 > services.yaml");
	told_once();
}

static void test_one_at_a_time(void **state)
{
	struct watch *second;

	(void)state;
	start("services.yaml");
	assert_int_equal(watch_new(loop, "x", NULL, on_saved, NULL, &second),
			 -EBUSY);
}

static void test_how_fast(void **state)
{
	uint64_t worst = 0, sum = 0;

	(void)state;
	start("services.yaml");
	for (int i = 0; i < 50; i++) {
		int fd = open("services.yaml", O_WRONLY | O_TRUNC);
		uint64_t took;

		assert_int_equal(write(fd, "x", 1), 1);
		took = clock_ns();
		close(fd);
		loop_arm_in(timer, LIMIT);
		loop_run(loop);
		assert_true(loop_armed(timer));
		took = clock_ns() - took;
		sum += took;
		worst = took > worst ? took : worst;
	}
	print_message("# from close to told: mean %llu us, worst %llu us\n",
		      (unsigned long long)(sum / 50000),
		      (unsigned long long)(worst / 1000));
}

/* A /tmp that goes with this process, even when it is killed. */
static int private_tmp(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNS)) {
		print_message("# not root: scratch folders in the real /tmp\n");
		return 0;
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	       mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_in_place),
		TEST(test_bare_modify),
		TEST(test_only_the_file_counts),
		TEST(test_rename_over),
		TEST(test_editor),
		TEST(test_links),
		TEST(test_config_map),
		TEST(test_file_deleted),
		TEST(test_folder_deleted),
		TEST(test_not_there_yet),
		TEST(test_folder),
		TEST(test_coming),
		TEST(test_more_comes),
		TEST(test_not_under_a_lock),
		TEST(test_nothing_comes),
		TEST(test_git),
		TEST(test_freed_while_locked),
		TEST(test_again_and_again),
		TEST(test_one_at_a_time),
		TEST(test_how_fast),
	};

	return cmocka_run_group_tests(tests, private_tmp, NULL);
}
