/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One balancer program and its tables, loaded from an object file without the
 * reconciler's loader, so that a test can hand in another object.  Everything
 * that can be mapped is.
 */
#ifndef TESTS_LIB_BPF_LAB_H
#define TESTS_LIB_BPF_LAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/xlb.h"
#include "tables/tables.h"

struct bpf_lab_config {
	const char *object; /* file; NULL: that of this build */
	bool tc; /* the program for tc, not for XDP */
	uint32_t features; /* 0: all */
	uint64_t flow_seed;
	uint32_t slots;
	uint8_t flow_log2; /* lines of memories */
};

struct bpf_lab {
	struct bpf_object *object;
	int prog;
	bool tc;
	int ifindex; /* where it is attached, so that runs cost little */
	uint32_t cpus;
	struct xlb_tables *tables;
	uint32_t *slots;
	uint32_t slot_count;
	struct xlb_flow_line *lines;
	uint32_t line_count;
	struct xlb_counter *counters; /* [cpu][XLB_BACKENDS] */
	int drops, events, limits, addresses, fragments, cursors;
};

/* Loads and attaches to the loopback; 0 or -errno, said on stderr. */
int bpf_lab_open(struct bpf_lab *lab, const struct bpf_lab_config *cfg);
void bpf_lab_close(struct bpf_lab *lab);
/* Own network namespace with lo up, and this process on one CPU: its number. */
int bpf_lab_enter(void);

/*
 * Runs the program once.  out has room for PACKET_MAX bytes; *ret_verdict is
 * XDP's number, tc's are translated.
 */
enum lab_verdict {
	LAB_ABORTED,
	LAB_DROP,
	LAB_PASS,
	LAB_TX,
	LAB_REDIRECT,
};
int bpf_lab_run(struct bpf_lab *lab, const void *in, size_t size, void *out,
		size_t *ret_size, enum lab_verdict *ret_verdict);

/* Writes the table into the spare copy and flips. */
void bpf_lab_flip(struct bpf_lab *lab, const struct vip_table *t);
/* Sum of one per-CPU counter map; n of them. */
int bpf_lab_percpu(int fd, uint64_t *ret, uint32_t n);
/* Fills the bucket of half-open memories, or takes all of it. */
int bpf_lab_tokens(struct bpf_lab *lab, bool full);
/* Removes every key of a hash map. */
void bpf_lab_clear(int fd, size_t key_size);

#endif
