/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VM deletions that an edit or drift has asked for, against
 * safety.max_vm_deletes: so many in any stretch of time of this length.  One
 * that was counted stays let go until it is over, however long its VM drains
 * and whatever restarts come in between.  Pure; the store keeps it.
 */
#ifndef PLAN_LEDGER_H
#define PLAN_LEDGER_H

#include "plan/plan.h"

struct deletion {
	int64_t id; /* in the store; 0: it isn't there */
	int64_t time_ms; /* wall clock */
	char vm[64];
	bool approved; /* by an operator: doesn't count */
	bool open; /* its VM may go, and is still there */
};

struct ledger {
	struct deletion *items; /* by time */
	size_t count;
	bool begun;
	int64_t since_ms; /* deletions before are not known; 0: all are */
};

void ledger_release(struct ledger *l);
/*
 * The first entry, where none was found: with VMs already there (`any_vms`) the
 * store was lost, and so much may have been deleted lately as was allowed.
 */
void ledger_begin(struct ledger *l, int64_t now_ms, bool any_vms);
/* Returned until the next call; time_ms in the future counts as now. */
struct deletion *ledger_add(struct ledger *l, const struct deletion *d,
			    int64_t now_ms);
bool ledger_may_go(const struct ledger *l, const char *vm);
/* What is left now, of what the spec allows; texts in `arena`. */
struct world_budget ledger_budget(const struct ledger *l,
				  const struct vm_deletes_spec *max,
				  int64_t now_ms, struct arena *arena);
/*
 * After a pass: is this one over?  Its VM is gone, or nobody wants it gone any
 * more.  known: the world has every VM.
 */
bool ledger_is_over(const struct deletion *d, const struct world *w,
		    const struct plan *p, bool known);

#endif
