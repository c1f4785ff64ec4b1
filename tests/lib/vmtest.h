/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests with real guests: a network namespace with a bridge, a private
 * libvirtd in it, and a hypervisor connection run by the test's own loop.
 * All of it ends with the process, however that ends.
 */
#ifndef LIB_VMTEST_H
#define LIB_VMTEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "actual/libvirt_impl.h"

#define OWNER "0123456789abcdef"
/* Far beyond what anything takes; reaching it is a failure, not a measure. */
#define PATIENCE (120 * NS_PER_S)

struct lab {
	char dir[64]; /* goes with the libvirtd whose state is in it */
	char qemu[256], lxc[256]; /* URIs */
	pid_t libvirtd; /* its keeper */
	int keeper_in; /* closed, it stops */
	struct loop *loop;
	struct loop_source *tick;
	char top[PATH_MAX]; /* of the repository */
};

/* What the callbacks of one hypervisor saw. */
struct seen {
	struct lab *lab;
	struct hypervisor *h;
	bool up;
	int ups, downs, refreshes;
	int done; /* answers */
	int err;
	char why[512];
	uint64_t took;
	int events;
	char event_vm[64];
	bool event_is[VM_EVENT_RESUMED + 1]; /* which came */
	struct vm_stats stats[16];
	char stats_name[16][64];
	size_t stats_count;
};

__attribute__((format(printf, 1, 2), unused)) static int sh(const char *fmt,
							    ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

static inline void lab_tick(void *arg)
{
	struct lab *lab = arg;

	loop_stop(lab->loop);
}

/* Runs the loop until pred(arg); fails the test when that never comes. */
static inline void lab_until(struct lab *lab, bool (*pred)(void *), void *arg,
			     const char *what)
{
	uint64_t end = clock_ns() + PATIENCE;

	while (!pred(arg)) {
		if (clock_ns() > end)
			fail_msg("waited in vain for: %s", what);
		loop_arm_in(lab->tick, 10 * NS_PER_MS);
		assert_int_equal(loop_run(lab->loop), 0);
	}
	loop_disarm(lab->tick);
}

static inline void seen_refreshed(void *arg, struct hypervisor *h)
{
	struct seen *s = arg;

	(void)h;
	s->refreshes++;
}

static inline void seen_event(void *arg, struct hypervisor *h, const char *vm,
			      enum vm_event event)
{
	struct seen *s = arg;

	(void)h;
	snprintf(s->event_vm, sizeof(s->event_vm), "%s", vm);
	s->event_is[event] = true;
	s->events++;
}

static inline void seen_connected(void *arg, struct hypervisor *h, bool up,
				  const char *why)
{
	struct seen *s = arg;

	(void)h;
	s->up = up;
	if (up)
		s->ups++;
	else
		s->downs++;
	if (!up)
		print_message("# not connected: %s\n", why);
}

static inline void seen_done(void *arg, const char *vm, int err,
			     const char *why, uint64_t took)
{
	struct seen *s = arg;

	(void)vm;
	s->done++;
	s->err = err;
	s->took = took;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

static inline void seen_stats(void *arg, const struct vm_stats *stats,
			      size_t count)
{
	struct seen *s = arg;

	assert_true(count <= ARRAY_SIZE(s->stats));
	memcpy(s->stats, stats, count * sizeof(*stats));
	for (size_t i = 0; i < count; i++)
		snprintf(s->stats_name[i], 64, "%s", stats[i].name);
	s->stats_count = count;
	s->done++;
}

static inline bool is_up(void *arg)
{
	return ((struct seen *)arg)->up;
}

static inline bool is_done(void *arg)
{
	return ((struct seen *)arg)->done > 0;
}

static inline bool has_refreshed(void *arg)
{
	return ((struct seen *)arg)->refreshes > 0;
}

/* Waits for the answer to what was just asked; its error. */
static inline int seen_wait(struct seen *s, const char *what)
{
	s->done = 0;
	lab_until(s->lab, is_done, s, what);
	if (s->err && s->why[0])
		print_message("# %s: %s\n", what, s->why);
	return s->err;
}

static inline void seen_refresh(struct seen *s)
{
	s->refreshes = 0;
	hypervisor_refresh(s->h);
	lab_until(s->lab, has_refreshed, s, "a refresh");
}

static inline const struct vm *seen_vm(struct seen *s, const char *name)
{
	size_t count;
	const struct vm *v = hypervisor_vms(s->h, &count);

	for (size_t i = 0; i < count; i++)
		if (!strcmp(v[i].name, name))
			return &v[i];
	return NULL;
}

static inline void seen_open(struct seen *s, struct lab *lab, const char *uri)
{
	static const struct hypervisor_events ev = {
		.refreshed = seen_refreshed,
		.event = seen_event,
		.connected = seen_connected,
	};
	struct hypervisor_spec spec = { .name = "local", .uri = uri };

	memset(s, 0, sizeof(*s));
	s->lab = lab;
	s->h = hypervisor_new(lab->loop, &spec, OWNER, &ev, s);
	lab_until(lab, is_up, s, "a connection");
}

static inline void seen_close(struct seen *s)
{
	hypervisor_free(s->h);
	s->h = NULL;
}

/* Starts the keeper of a libvirtd; it prints both URIs when that serves. */
static inline void lab_start_libvirtd(struct lab *lab)
{
	char script[PATH_MAX + 32];
	int in[2], out[2];
	FILE *f;

	snprintf(script, sizeof(script), "%s/tests/lib/libvirtd.py", lab->top);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	lab->libvirtd = fork();
	if (!lab->libvirtd) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(script, script, lab->dir, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	lab->keeper_in = in[1];
	f = fdopen(out[0], "r");
	assert_non_null(f);
	if (!fgets(lab->qemu, sizeof(lab->qemu), f) ||
	    !fgets(lab->lxc, sizeof(lab->lxc), f))
		fail_msg("the private libvirtd doesn't start");
	fclose(f);
	lab->qemu[strcspn(lab->qemu, "\n")] = '\0';
	lab->lxc[strcspn(lab->lxc, "\n")] = '\0';
}

/* Bridge br0 is 10.77.0.1/24 and fd00:77::1/64. */
static inline void lab_start(struct lab *lab)
{
	memset(lab, 0, sizeof(*lab));
	assert_non_null(getcwd(lab->top, sizeof(lab->top)));
	strcpy(lab->dir, "/tmp/xlb-vm-XXXXXX");
	assert_non_null(mkdtemp(lab->dir));
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(
		sh("ip link set lo up && ip link add br0 type bridge && "
		   "ip addr add 10.77.0.1/24 dev br0 && "
		   "ip addr add fd00:77::1/64 dev br0 nodad && "
		   "ip link set br0 up"),
		0);
	lab_start_libvirtd(lab);
	assert_int_equal(loop_new(&lab->loop), 0);
	lab->tick = loop_add_timer(lab->loop, lab_tick, lab);
	assert_int_equal(hypervisor_init(lab->loop), 0);
}

static inline void lab_stop(struct lab *lab)
{
	close(lab->keeper_in);
	waitpid(lab->libvirtd, NULL, 0);
	loop_remove(lab->tick);
	loop_free(lab->loop);
}

/* One request; the answer's length, or -1. */
static inline ssize_t http_get(const char *address, uint16_t port,
			       const char *path, char *ret, size_t size)
{
	struct timeval patience = { 1, 0 };
	struct sockaddr_storage ss;
	char request[256];
	struct ip ip;
	size_t len = 0;
	ssize_t n;
	socklen_t ss_len;
	int fd;

	assert_true(ip_parse(address, &ip));
	ss_len = ip_sockaddr(&ip, port, &ss);
	fd = socket(ip.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	snprintf(request, sizeof(request),
		 "GET %s HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
		 path);
	if (connect(fd, (struct sockaddr *)&ss, ss_len) ||
	    send(fd, request, strlen(request), MSG_NOSIGNAL) < 0) {
		close(fd);
		return -1;
	}
	while (len < size - 1 &&
	       (n = recv(fd, ret + len, size - 1 - len, 0)) > 0)
		len += (size_t)n;
	ret[len] = '\0';
	close(fd);
	return strstr(ret, "\r\n\r\n") ? (ssize_t)len : -1;
}

/* Asks until it answers 200 and says its name; ns it took. */
static inline uint64_t http_wait(const char *address, uint16_t port,
				 const char *name)
{
	struct timespec pause = { 0, 20000000 };
	uint64_t start = clock_ns();
	char text[1024], body[80];

	snprintf(body, sizeof(body), "\r\n\r\n%s\n", name);
	while (http_get(address, port, "/", text, sizeof(text)) < 0) {
		if (clock_ns() - start > PATIENCE)
			fail_msg("%s:%u doesn't answer", address, port);
		nanosleep(&pause, NULL);
	}
	assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(text, body));
	return clock_ns() - start;
}

#endif
