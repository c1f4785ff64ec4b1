/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An account of its own of what guards promise, held against every change that
 * is carried out in a fake world: it reads what was done, not what was planned.
 */
#ifndef GUARD_WATCH_H
#define GUARD_WATCH_H

#include "plan/plan.h"

#define WATCH_DELETIONS 1024
#define WATCH_SERVICES 16

enum {
	WATCH_DELETES,
	WATCH_MIN,
	WATCH_PAUSE,
	WATCH_PROTECT,
	WATCH_PROTECT_VMS,
	WATCH_REMOVALS,
	WATCH_PROMISES,
};

struct watch_deletion {
	uint64_t when; /* ns */
	char vm[64];
	bool going; /* its VM is there, and on its way out */
	bool back; /* it was restored in a pass that isn't over */
};

struct watch_service {
	char name[64];
	uint32_t id; /* in the kernel */
	uint32_t least; /* VMs that must stay ready */
	uint32_t ready;
	bool paused, protect;
	bool stays; /* its VMs may not go: no pool declares them, but protect */
};

struct guard_watch {
	bool on;
	bool approved; /* by an operator: nothing is counted */
	struct watch_deletion deletions[WATCH_DELETIONS];
	size_t deletion_count;
	/* Services that the file in force, or an operator, lets go. */
	char may_go[WATCH_SERVICES][64];
	size_t may_go_count;
	struct watch_service services[WATCH_SERVICES];
	size_t service_count;
	const struct world *world; /* that the plan under way was made for */
	/* How often each promise was put to the test. */
	uint32_t checked[WATCH_PROMISES];
};

/*
 * A file comes into force: what of the world's services it lets go must be no
 * more than its safety.max_service_removals.  0, or -1 and a line on stderr.
 */
int watch_file(struct guard_watch *g, const struct spec *spec,
	       const struct world *w);
void watch_release(struct guard_watch *g, const char *name);
/* Before a plan for this world is carried out, and after it was: as a whole. */
void watch_begin(struct guard_watch *g, const struct world *w);
void watch_end(struct guard_watch *g);
/* After a change.  0, or -1 and a line on stderr. */
int watch_change(struct guard_watch *g, const struct spec *spec,
		 const struct change *c, uint64_t now);

#endif
