/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What somebody else may have done to pins and tables while we held them:
 * found by asking, and put right.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/mem.h"
#include "base/seam.h"

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	return fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

static uint32_t prog_id(int fd)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);

	return fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

/* The pin is there, and stands for what we hold. */
static bool map_pinned(const struct datapath *d, int i)
{
	int fd = pin_get(d, map_names[i]);
	bool same = fd >= 0 && map_id(fd) == map_id(d->map_fd[i]);

	if (fd >= 0)
		close(fd);
	return same;
}

/* One that only looks holds no programs when their pins aren't whole. */
static bool prog_pinned(const struct datapath *d, int i)
{
	int fd = pin_get(d, prog_pins[i]);
	uint32_t id = prog_id(fd);

	if (fd >= 0)
		close(fd);
	if (d->programs.fd[i] < 0)
		return i == PROG_TC || fd >= 0;
	return id == d->programs.id[i];
}

size_t datapath_unpinned(const struct datapath *d)
{
	size_t n = 0;

	for (int i = 0; i < MAP_COUNT; i++)
		n += !map_pinned(d, i);
	for (int i = 0; i < PROG_COUNT; i++)
		n += !prog_pinned(d, i);
	return n;
}

int datapath_repin(struct datapath *d, struct diag_list *diags)
{
	int err, pinned;

	seam_change("datapath_repin");
	err = pins_folder(d->dir, false, diags);
	if (err)
		return err;
	for (int i = 0; i < MAP_COUNT && !err; i++)
		if (!map_pinned(d, i))
			err = pin_put(d, map_names[i], d->map_fd[i]);
	for (int i = 0; i < PROG_COUNT && !err; i++) {
		pinned = d->programs.fd[i] < 0 || prog_pinned(d, i);
		if (!pinned)
			err = pin_put(d, prog_pins[i], d->programs.fd[i]);
	}
	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL, NULL,
			 "can't pin again what was removed from %s: %s", d->dir,
			 strerror(-err));
	return err;
}

/* Its addresses are there, and no others. */
static bool addresses_whole(const struct datapath *d,
			    const struct xlb_vip *lines)
{
	struct xlb_address_key key, *last = NULL;
	size_t found = 0, want = 0;
	uint32_t value;

	while (!bpf_map_get_next_key(d->map_fd[MAP_ADDRESSES], last, &key)) {
		last = &key;
		found++;
	}
	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		struct xlb_address_key k = { 0 };

		if (!lines[i].proto)
			continue;
		memcpy(k.addr, lines[i].addr, sizeof(lines[i].addr));
		k.family = lines[i].family;
		if (bpf_map_lookup_elem(d->map_fd[MAP_ADDRESSES], &k, &value))
			return false;
		want++;
	}
	/* Ports of one address share its entry. */
	return found <= want;
}

bool datapath_vips_whole(const struct datapath *d)
{
	const struct xlb_control *control = d->view.control;
	size_t copy = control->vip_copy & 1;
	const struct xlb_vip *lines = d->view.vips + copy * XLB_VIP_LINES;

	return vip_lines_whole(control->vip_seed[copy],
			       d->view.displacement + copy * XLB_VIP_BUCKETS,
			       lines) &&
	       addresses_whole(d, lines);
}
