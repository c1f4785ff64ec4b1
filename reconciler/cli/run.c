/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/lock.h"
#include "cli/standalone.h"
#include "systemd.h"

static void complain_of_lock(const char *state_dir, const char *path, int err,
			     int fd)
{
	char pid[32] = "";

	if (err != -EWOULDBLOCK) {
		fprintf(stderr, "error: %s can't be locked: %s\n%s", path,
			strerror(-err),
			err == -EACCES ? "    hint: run as root\n" : "");
		return;
	}
	if (read(fd, pid, sizeof(pid) - 1) > 0)
		pid[strcspn(pid, "\n")] = '\0';
	fprintf(stderr,
		"error: process %s runs with the state dir %s already\n"
		"    hint: stop it, or give another --state-dir and --bpffs\n",
		pid[0] ? pid : "?", state_dir);
}

/* Verbs that ask whether it is held hold it themselves, for a moment. */
static int take_lock(int fd)
{
	const struct timespec pause = { .tv_nsec = 10 * (long)NS_PER_MS };
	int tries = 5;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || !--tries)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

int state_dir_lock(const char *state_dir, int *ret_fd)
{
	AUTO_FREE char *path = mem_printf("%s/lock", state_dir);
	int fd, err = 0;

	if (mkdir(state_dir, 0700) && errno != EEXIST) {
		err = -errno;
		fprintf(stderr, "error: the state dir %s can't be made: %s\n%s",
			state_dir, strerror(-err),
			err == -EACCES ? "    hint: run as root\n" : "");
		return err;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	err = fd < 0 ? -errno : take_lock(fd);
	if (err) {
		complain_of_lock(state_dir, path, err, fd);
		if (fd >= 0)
			close(fd);
		return err;
	}
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", getpid()) < 0)
		log_warn("lock", "path=%s result=no_pid", path);
	*ret_fd = fd;
	return 0;
}

static void on_signal(void *arg, int fd, uint32_t events)
{
	struct reconciler *r = arg;
	struct signalfd_siginfo info;

	(void)events;
	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) {
		reconciler_refresh(r);
		return;
	}
	log_info("stopping", "signal=%u traffic=goes_on", info.ssi_signo);
	systemd_stopping(r);
	r->exit_code = EXIT_DONE;
	loop_stop(r->loop);
}

static int signal_descriptor(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static void on_deadline(void *arg)
{
	struct reconciler *r = arg;

	struct buf text = BUF_INIT;

	log_error("once", "result=timeout");
	if (complain_of_hypervisors(r, "error", NULL, &text))
		fputs(buf_str(&text), stderr);
	else if (r->failing[0])
		fprintf(stderr, "error: gave up: %s\n", r->failing);
	else
		fputs("error: gave up: what runs is not what the file "
		      "declares yet\n"
		      "    hint: `xlb-reconcile status` shows what is missing; "
		      "--timeout allows more time\n",
		      stderr);
	buf_release(&text);
	r->exit_code = EXIT_FAILED;
	loop_stop(r->loop);
}

static int serve(struct reconciler *r, const struct options *opt)
{
	int err = control_open(r, &r->control);

	if (!err && !opt->once)
		err = watch_new(r->loop, opt->file, reconciler_coming,
				reconciler_saved, r, &r->watch);
	if (err) {
		fprintf(stderr, "error: %s can't be watched or %s served: %s\n",
			opt->file, opt->state_dir, strerror(-err));
		control_close(r->control);
		return EXIT_FAILED;
	}
	if (opt->once) {
		r->deadline = loop_add_timer(r->loop, on_deadline, r);
		loop_arm_in(r->deadline, opt->timeout);
	}
	systemd_watchdog(r);
	reconciler_saved(r);
	err = r->exit_code < 0 ? loop_run(r->loop) : 0;
	watch_free(r->watch);
	control_close(r->control);
	return err ? EXIT_FAILED : r->exit_code < 0 ? EXIT_DONE : r->exit_code;
}

int run_locked(const struct options *opt, int lock)
{
	struct diag_list diags = { 0 };
	struct buf text = BUF_INIT;
	struct reconciler r;
	struct loop *loop;
	struct loop_source *signals;
	int fd, err, code = EXIT_FAILED;

	fd = signal_descriptor();
	if (fd < 0 || loop_new(&loop))
		return EXIT_FAILED;
	signals = loop_add_fd(loop, fd, EPOLLIN, on_signal, &r);
	err = reconciler_open(&r, opt, loop, false, &diags);
	diag_list_print(&diags, &text);
	log_text(err ? LOG_ERROR : LOG_WARN, "diagnostics", buf_str(&text));
	if (!err) {
		r.exit_code = -1;
		code = serve(&r, opt);
	}
	reconciler_close(&r);
	loop_remove(signals);
	loop_free(loop);
	close(fd);
	close(lock);
	buf_release(&text);
	diag_list_release(&diags);
	return code;
}

/*
 * Worlds and plans come and go by the megabyte, in an arena's blocks: those go
 * back to the system at once instead of leaving holes.
 */
#define LARGE 65536

int cmd_run(const struct options *opt)
{
	struct options plan = *opt;
	int lock = -1;

	if (opt->dry_run) {
		plan.verb = "plan";
		return cmd_plan(&plan);
	}
	mallopt(M_MMAP_THRESHOLD, LARGE);
	systemd_journal();
	if (state_dir_lock(opt->state_dir, &lock))
		return EXIT_FAILED;
	return run_locked(opt, lock);
}
