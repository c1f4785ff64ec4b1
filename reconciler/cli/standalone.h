/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CLI_STANDALONE_H
#define CLI_STANDALONE_H

#include "reconcile.h"

typedef int (*verb_fn)(struct reconciler *r, const struct options *opt,
		       struct buf *out);

/* Run fn in the daemon, or on a reconciler that only looks. Exit code. */
int run_verb(const struct options *opt, verb_fn fn);

#endif
