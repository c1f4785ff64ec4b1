/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /proc/sys/net is that of the network namespace of whoever looks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "actual/netlink.h"
#include "base/seam.h"

static int sysctl_open(const char *name, int flags)
{
	char path[256];
	int fd;

	if (name[0] == '/' || strstr(name, ".."))
		return -EINVAL;
	if (snprintf(path, sizeof(path), "/proc/sys/%s", name) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int sysctl_read(const char *name, char *ret, size_t size)
{
	int fd = sysctl_open(name, O_RDONLY);
	ssize_t len;
	int error;

	if (fd < 0)
		return fd;
	len = read(fd, ret, size);
	error = len < 0 ? -errno : 0;
	close(fd);
	if (error)
		return error;
	if ((size_t)len == size)
		return -ENOSPC;
	while (len && ret[len - 1] == '\n')
		len--;
	ret[len] = '\0';
	return 0;
}

int sysctl_write(const char *name, const char *value)
{
	int fd = sysctl_open(name, O_WRONLY);
	size_t len = strlen(value);
	ssize_t done;
	int error;

	seam_change("sysctl_write");
	if (fd < 0)
		return fd;
	done = write(fd, value, len);
	error = done < 0 ? -errno : (size_t)done == len ? 0 : -EIO;
	close(fd);
	return error;
}
