/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "actual/bpf_internal.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/mem.h"

#define STAGED "new_" /* no name of a pin begins so */

static bool on_bpffs(const char *dir)
{
	struct statfs fs;

	return statfs(dir, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

int pins_folder(const char *dir, bool read_only, struct diag_list *diags)
{
	AUTO_FREE char *copy = mem_dup(dir);
	const char *parent;

	if (on_bpffs(dir))
		return 0;
	if (access(dir, F_OK) == 0) {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "mount one: mount -t bpf bpf /sys/fs/bpf",
			 "%s is not on a bpf file system", dir);
		return -EINVAL;
	}
	if (read_only)
		return -ENOENT;
	parent = dirname(copy);
	if (!on_bpffs(parent)) {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "mount one: mount -t bpf bpf /sys/fs/bpf",
			 "%s can't be made: %s is not a bpf file system", dir,
			 parent);
		return -EINVAL;
	}
	if (mkdir(dir, 0700) == 0)
		return 0;
	diag_add(diags, SEVERITY_ERROR, NULL, NULL, "can't make %s: %s", dir,
		 strerror(errno));
	return -errno;
}

char *pin_path(const struct datapath *d, const char *name)
{
	return mem_printf("%s/%s", d->dir, name);
}

int pin_get(const struct datapath *d, const char *name)
{
	AUTO_FREE char *path = pin_path(d, name);
	int fd = bpf_obj_get(path);

	return fd < 0 ? -errno : fd;
}

int pin_stage(const struct datapath *d, const char *name, int fd)
{
	AUTO_FREE char *fresh = mem_printf("%s/" STAGED "%s", d->dir, name);

	unlink(fresh);
	return bpf_obj_pin(fd, fresh) < 0 ? -errno : 0;
}

int pin_commit(const struct datapath *d, const char *name)
{
	AUTO_FREE char *path = pin_path(d, name);
	AUTO_FREE char *fresh = mem_printf("%s/" STAGED "%s", d->dir, name);

	return rename(fresh, path) ? -errno : 0;
}

int pin_put(const struct datapath *d, const char *name, int fd)
{
	int err = pin_stage(d, name, fd);

	return err ? err : pin_commit(d, name);
}

int pin_remove(const struct datapath *d, const char *name)
{
	AUTO_FREE char *path = pin_path(d, name);

	return unlink(path) && errno != ENOENT ? -errno : 0;
}

int pins_each(const struct datapath *d, const char *prefix,
	      int (*fn)(void *arg, const char *name), void *arg)
{
	DIR *dir = opendir(d->dir);
	char **names = NULL;
	size_t count = 0;
	struct dirent *e;
	int err = 0;

	if (!dir)
		return -errno;
	/* Names first: fn may remove pins. */
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' &&
		    strncmp(e->d_name, prefix, strlen(prefix)) == 0)
			*MEM_PUSH(names, count) = mem_dup(e->d_name);
	closedir(dir);
	for (size_t i = 0; i < count; i++) {
		if (!err)
			err = fn(arg, names[i]);
		mem_free_ptr(&names[i]);
	}
	mem_free_ptr(&names);
	return err;
}

static int unstage(void *arg, const char *name)
{
	return pin_remove(arg, name);
}

int pins_unstage(const struct datapath *d)
{
	return pins_each(d, STAGED, unstage, (void *)d);
}
