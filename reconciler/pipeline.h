/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the pipeline share: reconcile.c, file.c, connect.c... */
#ifndef PIPELINE_H
#define PIPELINE_H

#include "reconcile.h"

/* What is, and the difference to what should be. */
struct draft {
	struct arena *arena;
	struct world *world;
	struct plan *plan;
};

/*
 * A pass that looks through slots takes so many services, and the next one the
 * next of them: computing all tables at once would keep probes waiting.
 */
#define VERIFY_AT_ONCE 32

/* reconcile.c */
void draft_plan(const struct reconciler *r, struct draft *d,
		const struct spec *spec);
/* What drift is told from, for a spec that isn't wholly applied. */
const struct spec *baseline_of(const struct reconciler *r);
void draft_release(struct draft *d);
void carry_out(struct reconciler *r, const struct draft *d);
void reconcile_pass(void *arg); /* a reconciler */
void end_once(struct reconciler *r, int code); /* of `run --once` */
/* What is applied, recorded and logged from now on belongs to it. */
void set_revision(struct reconciler *r, int64_t revision);

/* file.c: the file, read, refused or adopted. */
void apply_flags(struct spec *s, const struct options *opt);
void read_again(void *arg); /* a reconciler */

/* connect.c: hypervisors that the file names. */
bool same_hypervisor(const struct hypervisor *h,
		     const struct hypervisor_spec *s);
void connect_hypervisors(struct reconciler *r, const struct spec *spec);
void close_hypervisors(struct reconciler *r);

/* keep.c: the store, opened and looked after. */
void state_open(struct reconciler *r);
void state_keep(struct reconciler *r);

/* revision.c: which file came when, and of which commit it was. */
void record_revision(struct reconciler *r, const char *result);
void record_commit(struct reconciler *r);
void close_git(struct reconciler *r);

#endif
