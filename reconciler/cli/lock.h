/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CLI_LOCK_H
#define CLI_LOCK_H

#include "reconcile.h"

/* One writer a state dir; says who holds it. 0 or -errno. */
int state_dir_lock(const char *state_dir, int *ret_fd);

/* run.c: `run` with the lock, which it closes at its end. Exit code. */
int run_locked(const struct options *opt, int lock);

#endif
