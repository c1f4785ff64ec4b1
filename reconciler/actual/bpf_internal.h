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
	MAP_SERVICES, /* up to here: mapped into memory as a whole */
	MAP_MOVED, /* only what is read or written, see stamps_map() */
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
	MAP_MAPPED = MAP_MOVED,
};

enum prog_index { PROG_XDP, PROG_TC, PROG_REPLY, PROG_COUNT };

/*
 * From one build, with the same constants and maps.  PROG_TC, which takes as
 * long to load as PROG_XDP, only while an interface has it.
 */
struct programs {
	int fd[PROG_COUNT]; /* -1: none */
	uint32_t id[PROG_COUNT];
};

/* A map's memory. */
struct mapping {
	void *mem; /* NULL: not mapped */
	size_t size; /* bytes, whole pages */
	uint32_t entries;
};

/* When slots began to move, of so many of them, in memory for a while. */
struct stamps {
	uint8_t *at; /* of the first; NULL: not mapped */
	void *mem;
	size_t size; /* bytes, whole pages */
};

/* Interfaces with our balancer in tc; apart so that const readers may find them. */
struct tc_seen {
	bool valid;
	int *ifindex;
	size_t count;
};

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
	struct mapping mapped[MAP_MAPPED];
	uint32_t stamp_count; /* entries of MAP_MOVED * XLB_MOVED_LINE */
	struct stamps all_stamps; /* from datapath_stamps() until _drop() */
	const struct xlb_counter **windows; /* NULL: not mapped yet */
	size_t window_count;
	int samples; /* ring buffer of programs that trace; -1: none */
	struct programs before; /* they did; they come back if they still do */
	uint32_t before_features;
	struct programs programs;
	struct tc_seen *tc;
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
/* The same in two steps: what can fail, and what hardly can. 0 or -errno. */
int pin_stage(const struct datapath *d, const char *name, int fd);
int pin_commit(const struct datapath *d, const char *name);
int pins_unstage(const struct datapath *d); /* what was never committed */
int pin_remove(const struct datapath *d, const char *name);
/* Calls fn for each name in the folder that starts with prefix. 0, -errno. */
int pins_each(const struct datapath *d, const char *prefix,
	      int (*fn)(void *arg, const char *name), void *arg);

/* bpf.c: map and unmap memory; the view of what d->mapped holds. */
int mapping_make(const struct datapath *d, int fd, struct mapping *ret);
void mapping_drop(struct mapping *m);
int map_length(int fd, uint32_t *ret); /* 0 or -errno */
/* The stamps of slots first to first + count - 1 in the map fd. 0 or -errno. */
int stamps_map(const struct datapath *d, int fd, uint32_t first, uint32_t count,
	       struct stamps *ret);
void stamps_drop(struct stamps *s);
void view_update(struct datapath *d);

/* bpf_load.c: maps and programs, from pins or made. */
int load_maps(struct datapath *d, const struct datapath_config *cfg,
	      struct diag_list *diags);
/* An unpinned map like that one of ours, with so many entries. fd or -errno. */
int map_like(const struct datapath *d, enum map_index i, uint32_t entries);
/* On the maps in map_fd, with those constants.  0 or -errno with a diag. */
int program_load(struct datapath *d, enum prog_index i,
		 const int map_fd[MAP_COUNT], uint32_t features,
		 struct programs *ret, struct diag_list *diags);
/* Those that are pinned, if all that must be are, and use our maps. */
bool programs_pinned(const struct datapath *d, struct programs *ret);
void programs_release(struct programs *p);
struct programs programs_dup(const struct programs *p);
struct programs programs_take(struct programs *from); /* leaves none there */
bool program_uses_maps(const struct datapath *d, int fd); /* ours, all */
/* Have the program, which nothing needed so far.  0 or -errno with a diag. */
int program_need(struct datapath *d, enum prog_index i,
		 struct diag_list *diags);
/* What the programs of this build and these constants are known by. */
void build_digest(const struct datapath *d, uint32_t features, uint8_t ret[32]);

/* bpf_reload.c: have the programs that cfg asks for, everywhere. */
int load_programs(struct datapath *d, const struct datapath_config *cfg,
		  struct diag_list *diags);

/*
 * The programs with just these features, everywhere; ready, if not NULL: these
 * ones, which have them, and are left empty.  0 or -errno with a diag.
 */
int programs_succeed(struct datapath *d, uint32_t features,
		     struct programs *ready, struct diag_list *diags);

/* bpf_trace.c: the ring buffer, which is there while packets are sampled. */
int samples_need(struct datapath *d); /* 0 or -errno */
void samples_drop(struct datapath *d);

/* bpf_attach.c: let every attachment of ours run these programs. */
int attach_swap(struct datapath *d, const struct programs *p,
		struct diag_list *diags);
/* Undo every attachment of ours. */
int attach_none(struct datapath *d);

/*
 * bpf_filter.c: the tc programs (PROG_TC, PROG_REPLY) on interfaces' ingress.
 * d NULL: nothing is ours.  0 or -errno.
 */
enum attach_state filter_state(const struct datapath *d, enum prog_index i,
			       int ifindex);
int filter_attach(struct datapath *d, enum prog_index i, int ifindex,
		  struct diag_list *diags);
/* Puts it there or replaces what is there, at once, without asking whose. */
int filter_put(const struct datapath *d, enum prog_index i,
	       const struct programs *p, int ifindex);
int filter_drop(struct datapath *d, enum prog_index i, int ifindex);
/* Calls fn for each interface that has our balancer in tc. */
int filters_each(const struct datapath *d,
		 void (*fn)(void *arg, const char *ifname), void *arg);
int filters_swap(struct datapath *d, const struct programs *p,
		 struct diag_list *diags);
/* Has any interface our balancer in tc?  Asks them all. */
bool filters_any(struct datapath *d);
int filters_drop_all(struct datapath *d);
void prog_name_of(uint32_t id, char *ret, size_t size); /* "?": unknown */
/* bpf_filter_name.c: what the tc filter there was called; false: unknown. */
bool filter_called(int ifindex, uint32_t priority, uint32_t handle, char *ret,
		   size_t size);

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
