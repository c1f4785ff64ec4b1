/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program of the user's: exit code 0 passes, and of a failure the last line
 * it wrote is kept.  It runs in a process group of its own, which is killed
 * whole when it ends or its time is over; its place among those that may run
 * is free again only when it has been reaped.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "health/probe.h"

#define LINE_KEPT 128
#define ENVIRONMENT 7

struct command_run {
	LIST_ENTRY(command_run) link;
	struct prober *prober;
	struct probe_target *target; /* NULL: nobody waits for it any more */
	struct gate *gate; /* its place */
	pid_t pid;
	int pidfd, output;
	struct loop_source *ended, *readable;
	size_t len; /* of the line that is being written */
	char line[LINE_KEPT];
	char last[LINE_KEPT]; /* the one before, if it wasn't empty */
};

/* ---- what it writes ---- */

/* It goes into logs and terminals. */
static char made_safe(char c)
{
	if (c == '"')
		return '\'';
	if ((unsigned char)c < ' ' || c == 0x7f)
		return ' ';
	return c;
}

static void take_output(struct command_run *run, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n') {
			if (run->len)
				memcpy(run->last, run->line, sizeof(run->last));
			run->len = 0;
			run->line[0] = '\0';
		} else if (run->len < sizeof(run->line) - 1) {
			run->line[run->len++] = made_safe(data[i]);
			run->line[run->len] = '\0';
		}
	}
}

/* One that writes without end must not keep the loop. */
static void read_output(struct command_run *run)
{
	char data[4096];
	ssize_t n = 1;

	for (int i = 0; i < 16 && n > 0; i++) {
		n = read(run->output, data, sizeof(data));
		if (n > 0)
			take_output(run, data, (size_t)n);
	}
	/* Closed by all who had it. */
	if (n == 0) {
		loop_remove(run->readable);
		run->readable = NULL;
	}
}

static void on_output(void *arg, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	read_output(arg);
}

/* ---- how it ends ---- */

static void run_free(struct command_run *run)
{
	LIST_REMOVE(run, link);
	loop_remove(run->ended);
	loop_remove(run->readable);
	if (run->pidfd >= 0)
		close(run->pidfd);
	if (run->output >= 0)
		close(run->output);
	free(run);
}

static void say_status(const siginfo_t *info, char *out, size_t size)
{
	if (info->si_code == CLD_EXITED)
		snprintf(out, size, "exit code %d", info->si_status);
	else
		snprintf(out, size, "killed by signal %d", info->si_status);
}

static void tell(struct probe_target *t, const siginfo_t *info,
		 const char *line)
{
	char status[LINE_KEPT];

	t->work = NULL;
	if (info->si_code == CLD_EXITED && info->si_status == 0) {
		probe_finish(t, PROBE_PASS, line);
		return;
	}
	say_status(info, status, sizeof(status));
	probe_finish(t, PROBE_FAILED, *line ? line : status);
}

static void on_end(void *arg, int fd, uint32_t events)
{
	struct command_run *run = arg;
	struct probe_target *t = run->target;
	struct gate *gate = run->gate;
	siginfo_t info = { 0 };
	char line[LINE_KEPT];

	(void)fd;
	(void)events;
	/* Not reaped yet, so that the group's number is nobody else's. */
	kill(-run->pid, SIGKILL);
	if (waitid(P_PIDFD, (id_t)run->pidfd, &info, WEXITED | WNOHANG) ||
	    !info.si_pid)
		info.si_code = CLD_KILLED;
	read_output(run);
	memcpy(line, run->len ? run->line : run->last, sizeof(line));
	run_free(run);
	gate_leave(gate);
	if (t)
		tell(t, &info, line);
}

/* Nobody wants to know any more. */
static void command_drop(struct probe_target *t)
{
	struct command_run *run = t->work;

	run->target = NULL;
	loop_remove(run->readable);
	run->readable = NULL;
	kill(-run->pid, SIGKILL);
}

void commands_kill(struct prober *p)
{
	struct command_run *next;

	for (struct command_run *run = LIST_FIRST(&p->runs); run; run = next) {
		next = LIST_NEXT(run, link);
		kill(-run->pid, SIGKILL);
		waitpid(run->pid, NULL, WNOHANG);
		run_free(run);
	}
}

/* ---- how it begins ---- */

static void fill_environment(const struct probe_target *t, char **env)
{
	const char *path = getenv("PATH");
	char address[IP_STRLEN];
	size_t n = 0;

	env[n++] = mem_printf("PATH=%s", path ? path
					      : "/usr/sbin:/usr/bin:"
						"/sbin:/bin");
	env[n++] = mem_printf("XLB_SERVICE=%s", t->service);
	env[n++] = mem_printf("XLB_BACKEND=%s", t->backend);
	env[n++] =
		mem_printf("XLB_ADDRESS=%s", ip_format(&t->address, address));
	env[n++] = mem_printf("XLB_PORT=%u", probe_port(t));
	env[n++] = mem_dup("LC_ALL=C");
	env[n] = NULL;
}

/* Signals as at the start of a process: ours are blocked. */
static void fill_attributes(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(attr);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	posix_spawnattr_setpgroup(attr, 0);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP |
					       POSIX_SPAWN_SETSIGMASK |
					       POSIX_SPAWN_SETSIGDEF);
}

static void fill_files(posix_spawn_file_actions_t *files, int output)
{
	posix_spawn_file_actions_init(files);
	posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(files, output, 1);
	posix_spawn_file_actions_adddup2(files, output, 2);
	posix_spawn_file_actions_addclosefrom_np(files, 3);
	posix_spawn_file_actions_addchdir_np(files, "/");
}

static int spawn(const struct probe_target *t, int output, pid_t *ret_pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	char *env[ENVIRONMENT];
	int error;

	fill_environment(t, env);
	fill_attributes(&attr);
	fill_files(&files, output);
	error = posix_spawn(ret_pid, t->spec->command[0], &files, &attr,
			    (char *const *)t->spec->command, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
	return error;
}

static void watch(struct command_run *run, struct probe_target *t)
{
	struct loop *l = t->prober->loop;

	LIST_INSERT_HEAD(&t->prober->runs, run, link);
	run->prober = t->prober;
	run->target = t;
	t->work = run;
	/* The place goes with the process. */
	run->gate = t->held[GATE_COMMAND];
	t->held[GATE_COMMAND] = NULL;
	run->ended = loop_add_fd(l, run->pidfd, EPOLLIN, on_end, run);
	run->readable = loop_add_fd(l, run->output, EPOLLIN, on_output, run);
}

/* 0 or an errno; then nothing is left of it. */
static int run_command(struct probe_target *t)
{
	struct command_run *run;
	int ends[2], pidfd, error;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return errno;
	/* Its own end should block, as programs expect. */
	fcntl(ends[1], F_SETFL, 0);
	error = spawn(t, ends[1], &pid);
	close(ends[1]);
	if (error) {
		close(ends[0]);
		return error;
	}
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0) {
		error = errno;
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(ends[0]);
		return error;
	}
	run = mem_alloc(sizeof(*run));
	run->pid = pid;
	run->pidfd = pidfd;
	run->output = ends[0];
	watch(run, t);
	return 0;
}

static void command_start(struct probe_target *t)
{
	int error = run_command(t);
	char why[LINE_KEPT];

	t->phase = PHASE_ANSWERING;
	if (!error) {
		loop_arm(t->timer, probe_deadline(t));
		return;
	}
	snprintf(why, sizeof(why), "%.64s: %s", t->spec->command[0],
		 strerror(error));
	probe_finish(t, PROBE_LOCAL_ERROR, why);
}

const struct probe_kind probe_command = {
	.start = command_start,
	.drop = command_drop,
};
