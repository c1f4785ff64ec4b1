/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The seam between xlb and everything outside, as the linker finds it: linked
 * with --wrap for each SEAM below, xlb-reconcile calls these instead.
 *
 * XLB_SEAM_AT="NAME:N:HOW,...": at the N-th call of NAME (counted by process)
 *   before, after   the process is killed there
 *   fail            it isn't made, and fails
 *   lie             it is made, and fails all the same
 * XLB_SEAM_LOG=FILE: a line for each call, "NAME", or "NAME HOW" where one of
 * the above happened; and "=NAME" for each change that the product announces.
 *
 * crash_real_test.py holds the list against the functions that the objects use.
 */
#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "actual/bpf.h"
#include "actual/netlink.h"
#include "base/seam.h"

enum how { GOES_ON, BEFORE, AFTER, FAIL, LIE };
static const char *const hows[] = { "", "before", "after", "fail", "lie" };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	const char *name;
	unsigned int calls;
} counts[128];

static unsigned int count_call(const char *name)
{
	size_t i = 0;

	while (counts[i].name && strcmp(counts[i].name, name) != 0)
		i++;
	counts[i].name = name;
	return ++counts[i].calls;
}

static enum how how_at(const char *name, unsigned int call)
{
	const char *at = getenv("XLB_SEAM_AT");
	size_t len = strlen(name);

	while (at && *at) {
		char *end;

		if (!strncmp(at, name, len) && at[len] == ':' &&
		    strtoul(at + len + 1, &end, 10) == call)
			for (int h = BEFORE; h <= LIE; h++)
				if (!strncmp(end + 1, hows[h], strlen(hows[h])))
					return (enum how)h;
		at = strchr(at, ',');
		at += !!at;
	}
	return GOES_ON;
}

/* Not by write(), rename() and the like, which are behind the seam. */
static void note(const char *name, enum how how)
{
	const char *path = getenv("XLB_SEAM_LOG");
	FILE *f = path ? fopen(path, "ae") : NULL;

	if (!f)
		return;
	fprintf(f, "%s%s%s\n", name, how ? " " : "", hows[how]);
	fclose(f);
}

/* What the product itself calls a change (base/seam.h), as "=NAME", once. */
void __real_seam_change(const char *what);
void __wrap_seam_change(const char *what);
void __wrap_seam_change(const char *what)
{
	static const char *told[128];
	char line[64];
	size_t i = 0;

	pthread_mutex_lock(&lock);
	while (told[i] && strcmp(told[i], what) != 0)
		i++;
	snprintf(line, sizeof(line), "=%s", what);
	if (!told[i])
		note(line, GOES_ON);
	told[i] = what;
	pthread_mutex_unlock(&lock);
	__real_seam_change(what);
}

static enum how seam_enter(const char *name)
{
	enum how how;

	pthread_mutex_lock(&lock);
	how = how_at(name, count_call(name));
	note(name, how);
	pthread_mutex_unlock(&lock);
	if (how == BEFORE)
		kill(getpid(), SIGKILL);
	errno = how == FAIL ? EIO : errno;
	return how;
}

/* True: it was made, and is said to have failed. */
static bool seam_leave(enum how how)
{
	if (how == AFTER)
		kill(getpid(), SIGKILL);
	if (how == LIE)
		errno = EIO;
	return how == LIE;
}

#define SEAM(type, name, params, args, failed)         \
	type __real_##name params;                     \
	type __wrap_##name params;                     \
	type __wrap_##name params                      \
	{                                              \
		enum how how = seam_enter(#name);      \
		type ret;                              \
                                                       \
		if (how == FAIL)                       \
			return failed;                 \
		ret = __real_##name args;              \
		return seam_leave(how) ? failed : ret; \
	}

/* Can't fail. */
#define SEAM_VOID(name, params, args)             \
	void __real_##name params;                \
	void __wrap_##name params;                \
	void __wrap_##name params                 \
	{                                         \
		enum how how = seam_enter(#name); \
                                                  \
		__real_##name args;               \
		(void)seam_leave(how);            \
	}

/* libvirt: domains */
SEAM(virDomainPtr, virDomainDefineXML, (virConnectPtr c, const char *x), (c, x),
     NULL)
SEAM(int, virDomainCreate, (virDomainPtr d), (d), -1)
SEAM(virDomainPtr, virDomainCreateXML,
     (virConnectPtr c, const char *x, unsigned int f), (c, x, f), NULL)
SEAM(int, virDomainDestroy, (virDomainPtr d), (d), -1)
SEAM(int, virDomainUndefineFlags, (virDomainPtr d, unsigned int f), (d, f), -1)
SEAM(int, virDomainShutdownFlags, (virDomainPtr d, unsigned int f), (d, f), -1)
SEAM(int, virDomainResume, (virDomainPtr d), (d), -1)
SEAM(int, virDomainRename, (virDomainPtr d, const char *n, unsigned int f),
     (d, n, f), -1)
SEAM(int, virDomainSetMetadata,
     (virDomainPtr d, int t, const char *m, const char *k, const char *u,
      unsigned int f),
     (d, t, m, k, u, f), -1)
/* libvirt: storage and networks */
SEAM(virStoragePoolPtr, virStoragePoolDefineXML,
     (virConnectPtr c, const char *x, unsigned int f), (c, x, f), NULL)
SEAM(int, virStoragePoolBuild, (virStoragePoolPtr p, unsigned int f), (p, f),
     -1)
SEAM(int, virStoragePoolCreate, (virStoragePoolPtr p, unsigned int f), (p, f),
     -1)
SEAM(int, virStoragePoolDestroy, (virStoragePoolPtr p), (p), -1)
SEAM(int, virStoragePoolDelete, (virStoragePoolPtr p, unsigned int f), (p, f),
     -1)
SEAM(int, virStoragePoolUndefine, (virStoragePoolPtr p), (p), -1)
SEAM(virStorageVolPtr, virStorageVolCreateXML,
     (virStoragePoolPtr p, const char *x, unsigned int f), (p, x, f), NULL)
SEAM(int, virStorageVolDelete, (virStorageVolPtr v, unsigned int f), (v, f), -1)
SEAM(int, virStorageVolUpload,
     (virStorageVolPtr v, virStreamPtr s, unsigned long long o,
      unsigned long long l, unsigned int f),
     (v, s, o, l, f), -1)
SEAM(int, virStreamSend, (virStreamPtr s, const char *d, size_t n), (s, d, n),
     -1)
SEAM(int, virStreamFinish, (virStreamPtr s), (s), -1)
SEAM(int, virNetworkUpdate,
     (virNetworkPtr n, unsigned int c, unsigned int s, int i, const char *x,
      unsigned int f),
     (n, c, s, i, x, f), -1)
/* bpf: maps, programs, pins, links, filters */
SEAM(int, bpf_map_create,
     (enum bpf_map_type t, const char *n, __u32 k, __u32 v, __u32 e,
      const struct bpf_map_create_opts *o),
     (t, n, k, v, e, o), -EIO)
SEAM(int, bpf_object__load, (struct bpf_object * o), (o), -EIO)
SEAM(int, bpf_obj_pin, (int fd, const char *p), (fd, p), -EIO)
SEAM(int, rename, (const char *a, const char *b), (a, b), -1)
SEAM(int, unlink, (const char *p), (p), -1)
SEAM(int, mkdir, (const char *p, mode_t m), (p, m), -1)
SEAM(int, rmdir, (const char *p), (p), -1)
SEAM(int, bpf_link_create,
     (int p, int t, enum bpf_attach_type a,
      const struct bpf_link_create_opts *o),
     (p, t, a, o), -EIO)
SEAM(int, bpf_link_update, (int l, int p, const struct bpf_link_update_opts *o),
     (l, p, o), -EIO)
SEAM(int, bpf_link_detach, (int l), (l), -EIO)
SEAM(int, bpf_tc_hook_create, (struct bpf_tc_hook * h), (h), -EIO)
SEAM(int, bpf_tc_attach, (const struct bpf_tc_hook *h, struct bpf_tc_opts *o),
     (h, o), -EIO)
SEAM(int, bpf_tc_detach,
     (const struct bpf_tc_hook *h, const struct bpf_tc_opts *o), (h, o), -EIO)
SEAM(int, bpf_map_update_elem, (int fd, const void *k, const void *v, __u64 f),
     (fd, k, v, f), -EIO)
SEAM(int, bpf_map_delete_elem, (int fd, const void *k), (fd, k), -EIO)
/* tables in memory that the kernel reads */
SEAM(int, datapath_set_service,
     (struct datapath * d, uint32_t i, const struct xlb_service *s), (d, i, s),
     -EIO)
SEAM(int, datapath_set_backend,
     (struct datapath * d, uint32_t i, const struct xlb_backend *b), (d, i, b),
     -EIO)
SEAM(int, datapath_set_vips, (struct datapath * d, const struct vip_table *t),
     (d, t), -EIO)
SEAM(int, datapath_set_tick, (struct datapath * d, uint32_t s), (d, s), -EIO)
SEAM(int, datapath_write_slots,
     (struct datapath * d, const struct slot_write *w), (d, w), -EIO)
SEAM(uint32_t, datapath_forget_flows, (struct datapath * d, uint32_t b), (d, b),
     0)
SEAM_VOID(datapath_set_load,
	  (struct datapath * d, uint32_t b, const struct xlb_load *l),
	  (d, b, l))
SEAM_VOID(datapath_set_sources,
	  (struct datapath * d, const uint32_t *a, const uint32_t b[4]),
	  (d, a, b))
SEAM_VOID(datapath_set_next_backend, (struct datapath * d, uint32_t i), (d, i))
SEAM_VOID(datapath_tick, (struct datapath * d), (d))
/* the host's network */
SEAM(int, net_add_address, (struct net * n, int i, const struct ip *a),
     (n, i, a), -EIO)
SEAM(int, net_del_address, (struct net * n, int i, const struct ip *a),
     (n, i, a), -EIO)
SEAM(int, net_announce, (struct net * n, int i, const struct ip *a), (n, i, a),
     -EIO)
SEAM(int, net_learn, (struct net * n, const struct ip *a, const uint8_t m[6]),
     (n, a, m), -EIO)
SEAM(int, sysctl_write, (const char *n, const char *v), (n, v), -EIO)

/* The store: statements that write. */
int __real_sqlite3_step(sqlite3_stmt *st);
int __wrap_sqlite3_step(sqlite3_stmt *st); /* SEAM(int, sqlite3_step, */
int __wrap_sqlite3_step(sqlite3_stmt *st)
{
	enum how how = GOES_ON;
	int ret;

	if (!sqlite3_stmt_readonly(st))
		how = seam_enter("sqlite3_step");
	if (how == FAIL)
		return SQLITE_IOERR;
	ret = __real_sqlite3_step(st);
	return seam_leave(how) ? SQLITE_IOERR : ret;
}
SEAM(int, sqlite3_exec,
     (sqlite3 * d, const char *s, int (*fn)(void *, int, char **, char **),
      void *a, char **e),
     (d, s, fn, a, e), SQLITE_IOERR)
