/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A world in memory: it owns what the kernel, this host and libvirt own in a
 * real one, shows it to the planner as observe.c does, and carries out changes
 * as apply.c does.  What it holds may be read and spoilt by tests at will.
 *
 * Time passes only in fake_tick(): calls about VMs come to their end, probes
 * pass or fail, and what leaves has left.
 */
#ifndef FAKE_WORLD_H
#define FAKE_WORLD_H

#include "base/strmap.h"
#include "plan/ledger.h"
#include "plan/plan.h"
#include "tests/lib/guard_watch.h"

#define FAKE_SLOTS (1u << 17)
#define FAKE_MAX 256
#define FAKE_ADDRESSES 2048

enum fake_op { FAKE_IDLE, FAKE_CREATE, FAKE_START, FAKE_REMOVE, FAKE_REPLACE };

struct fake_vm {
	char name[64];
	char service[64];
	char hypervisor[64];
	uint32_t index;
	struct ip addresses[2];
	enum fake_op op; /* under way */
	bool defined;
	bool running;
	bool was_running; /* this process has seen it run */
	bool ready;
	bool drains;
	bool failed;
	const char *why;
};

struct fake_interface {
	char name[16];
	int ifindex; /* 0: gone */
	enum attachment hooks[DATAPATH_HOOKS], reply;
	bool native;
	bool forwards[2];
};

/* What a process remembers of a backend. */
struct fake_run {
	char *key; /* service/name/addresses */
	struct ip address; /* that is probed */
	enum health_state health;
	bool used;
	bool dead; /* a VM that doesn't run */
	bool tried; /* a probe has ended */
	bool leaving, finished;
	uint32_t age; /* ticks since it began to leave */
};

struct fake_wanted {
	char service[64];
	uint32_t count;
};

enum fake_truth { TRUTH_FAILS = 1, TRUTH_REFUSES };

struct fake {
	bool loaded;
	struct xlb_vip vips[XLB_VIP_LINES];
	struct xlb_backend backends[XLB_BACKENDS];
	struct xlb_owner owners[XLB_BACKENDS]; /* name "": free */
	struct xlb_service services[XLB_SERVICES];
	uint32_t *slots;
	uint32_t slot_count;
	uint32_t features, tick;
	size_t unpinned;
	struct ip sources[2];
	struct reply_entry *replies;
	size_t reply_count;
	struct xlb_direct_key *directs;
	size_t direct_count;
	struct world_address addresses[FAKE_ADDRESSES];
	size_t address_count;
	struct fake_interface interfaces[8];
	size_t interface_count;
	struct fake_vm vms[FAKE_MAX];
	size_t vm_count;
	/* How a probe of an address ends; not listed: it passes. */
	struct {
		struct ip address;
		enum fake_truth how;
	} truths[FAKE_MAX];
	size_t truth_count;
	struct ip unresolved[FAKE_MAX]; /* no next hop is known */
	size_t unresolved_count;
	char drains[FAKE_MAX][128]; /* SERVICE/BACKEND, by an operator */
	size_t drain_count;
	char pauses[16][64]; /* services, by an operator */
	size_t pause_count;
	char unprotected[16][64];
	size_t unprotected_count;
	/* In the store. */
	struct ledger ledger;
	bool guarded; /* else any number of VMs may go */
	bool approved;
	struct guard_watch watch; /* of who carries out plans: plan_steps.h */
	/* Gone when the process dies. */
	struct strmap runs;
	struct fake_wanted wanted[64];
	size_t wanted_count;
	uint32_t next_id;
	bool settled, verify;
	uint64_t now;
};

/* eth0 (2, an uplink), br0 (3, where backends are) and their addresses. */
struct fake *fake_new(void);
void fake_free(struct fake *f);
void fake_set_slots(struct fake *f, uint32_t count); /* FAKE_SLOTS at first */
struct fake *fake_copy(const struct fake *f);
/* How many VMs the scaler wants; until told, the pool's minimum. */
void fake_want(struct fake *f, const char *service, uint32_t count);
void fake_probe_ends(struct fake *f, const struct ip *a, int how); /* 0: ok */
struct fake_vm *fake_vm(struct fake *f, const char *name);
struct world *fake_observe(struct fake *f, const struct spec *spec,
			   struct arena *arena);
/* After a pass: what was counted and is over. */
void fake_close_deletions(struct fake *f, const struct world *w,
			  const struct plan *p);
/* 0, or -1 when it breaks a promise (then it has been printed). */
int fake_apply(struct fake *f, const struct spec *spec, const struct change *c);
/* Time passes; false: nothing is under way. */
bool fake_tick(struct fake *f, const struct spec *spec);
/* The process dies; `random` decides what became of calls under way. */
void fake_crash(struct fake *f, uint32_t random);
/*
 * Everything there is, without what depends on history (ids, places, states
 * of slots): two worlds that serve alike have the same text.
 */
void fake_describe(const struct fake *f, struct buf *out);
/*
 * What must hold after every single change, else 0 and a line on stderr: slots
 * of a service with a VIP name only backends that have a line and an owner of
 * that service; no id has two owners; foreign things are untouched.
 */
bool fake_is_sound(const struct fake *f);
/* What must hold once converged: no owner, VM or line that nobody declares. */
bool fake_is_clean(const struct fake *f, const struct spec *spec);
/* Slots of a service that belong to the backend of this name. */
uint32_t fake_slots_of(const struct fake *f, const char *service,
		       const char *backend);

#endif
