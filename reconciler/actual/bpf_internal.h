/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files behind actual/bpf.h share; nobody else includes it. */
#ifndef ACTUAL_BPF_INTERNAL_H
#define ACTUAL_BPF_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actual/bpf.h"

/* In the order of map_names[]; each is pinned under its name. */
enum map_index {
	MAP_TABLES,
	MAP_SLOTS,
	MAP_SERVICES,
	MAP_MOVED, /* up to here: mapped into memory as a whole */
	MAP_FLOWS, /* only while it is swept */
	MAP_COUNTERS, /* in windows, see datapath_count() */
	MAP_CURSORS,
	MAP_DROPS,
	MAP_EVENTS,
	MAP_LIMITS,
	MAP_FRAGMENTS,
	MAP_ADDRESSES,
	MAP_REPLIES,
	MAP_DIRECT,
	MAP_OWNERS,
	MAP_COUNT,
	MAP_MAPPED = MAP_FLOWS,
};

enum prog_index { PROG_XDP, PROG_REPLY, PROG_COUNT };

/* What a hash map held when it was last read; key after key, with values. */
struct map_copy {
	bool valid;
	char *entries;
	size_t count;
};

struct datapath {
	struct map_copy owners, replies, direct;
	char *dir;
	bool read_only;
	int map_fd[MAP_COUNT];
	void *mapped[MAP_MAPPED];
	size_t mapped_size[MAP_MAPPED];
	const struct xlb_counter **windows; /* NULL: not mapped yet */
	size_t window_count;
	int prog_fd[PROG_COUNT];
	uint32_t prog_id[PROG_COUNT];
	struct datapath_view view;
	pthread_t grace; /* waits until no packet sees the spare copy */
	bool grace_running;
};

extern const char *const map_names[MAP_COUNT];
extern const char *const prog_pins[PROG_COUNT];

/* bpf_pins.c: the folder and what is pinned there. */
int pins_folder(const char *dir, bool read_only, struct diag_list *diags);
char *pin_path(const struct datapath *d, const char *name);
int pin_get(const struct datapath *d, const char *name); /* fd or -errno */
int pin_put(const struct datapath *d, const char *name, int fd); /* replaces */
int pin_remove(const struct datapath *d, const char *name);
/* Calls fn for each name in the folder that starts with prefix. 0, -errno. */
int pins_each(const struct datapath *d, const char *prefix,
	      int (*fn)(void *arg, const char *name), void *arg);

/* bpf_load.c: maps and programs, from pins or made. */
int load_maps(struct datapath *d, const struct datapath_config *cfg,
	      struct diag_list *diags);
int load_programs(struct datapath *d, struct diag_list *diags);
uint32_t prog_id_of(int fd); /* 0: unknown */

/* bpf_attach.c: let every attachment of ours run the loaded programs. */
int attach_swap(struct datapath *d, struct diag_list *diags);
/* Undo every attachment of ours. */
int attach_none(struct datapath *d);

/* bpf_sync.c: a map's whole contents. */
struct map_set {
	int fd;
	const void *entries; /* count times: key, value */
	size_t count;
	size_t key_size;
	size_t value_size;
};
/*
 * Make the map hold just these entries: what is new or differs is written
 * first, what is too much is deleted then.  With keep, nothing is deleted.
 */
int map_sync(const struct map_set *want, bool keep, size_t *ret_changed);
/* Read the map into the copy, sorted by key, unless that is valid. */
int map_copy_read(struct map_copy *copy, int fd, size_t key_size,
		  size_t value_size);

#endif
