/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CLI_STANDALONE_H
#define CLI_STANDALONE_H

#include "reconcile.h"

typedef int (*verb_fn)(struct reconciler *r, const struct options *opt,
		       struct buf *out);

/* Run fn in the daemon, or on a reconciler that only looks. Exit code. */
int run_verb(const struct options *opt, verb_fn fn);

/*
 * The same without printing: the answer goes to *out.  *ret_failed: it is no
 * answer, but why there is none.
 */
int ask_verb(const struct options *opt, verb_fn fn, struct buf *out,
	     bool *ret_failed);
/* The answer where such an answer belongs: stdout, or stderr. */
void print_answer(const struct options *opt, int code, bool failed,
		  const char *text);

/* Never in the daemon. */
int run_verb_here(const struct options *opt, verb_fn fn);
int look_here(const struct options *opt, verb_fn fn, struct buf *out,
	      bool *ret_failed);

/*
 * Says which hypervisors have not been read, with what follows from it ("its
 * VMs are not in this plan"); how many.
 */
size_t complain_of_hypervisors(const struct reconciler *r, const char *severity,
			       const char *so, struct buf *out);

/* Why control_ask() gave that error. */
void complain_of_daemon(const struct options *opt, int err, struct buf *out);

#endif
