/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The difference between what the file declares and what is, as an ordered
 * list of changes.  Pure: the same spec and world give the same plan, and a
 * plan carried out leaves nothing to plan.
 *
 * A change is both what --dry-run prints and what apply executes; `hidden`
 * ones carry out what another, visible one says (a map written for a service
 * that is shown as added).
 */
#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actual/bpf.h"
#include "base/diag.h"
#include "base/mem.h"
#include "desired/model.h"
#include "plan/world.h"
#include "tables/tables.h"

enum change_kind {
	/* In the order in which they are carried out. */
	CHANGE_LOAD, /* programs and maps */
	CHANGE_PINS, /* that somebody removed */
	CHANGE_RELOAD, /* programs with more features, or room for more slots */
	CHANGE_TICK, /* of the coarse clock */
	CHANGE_SOURCES, /* outer addresses of encapsulation */
	CHANGE_SYSCTL, /* text.name = text.value */
	CHANGE_BACKEND_SET, /* owner and line of an id */
	CHANGE_DIRECT, /* the direct map, whole */
	CHANGE_REPLIES, /* the replies map, whole */
	CHANGE_REPLY_ATTACH,
	CHANGE_LINK_ATTACH,
	CHANGE_SLOTS, /* of a table or a schedule */
	CHANGE_SERVICE_SET, /* services map; after the slots, which it signs */
	CHANGE_VIPS, /* the VIP table, whole */
	CHANGE_ADDRESS_ADD,
	CHANGE_DRAIN, /* a VM gets no new flows and will leave */
	CHANGE_RESTORE, /* a draining VM stays after all */
	CHANGE_VM_CREATE,
	CHANGE_VM_START,
	CHANGE_VM_REPLACE, /* remove, then create under the same name */
	CHANGE_VM_REMOVE, /* shutdown, grace, destroy, undefine, disk */
	CHANGE_ADDRESS_DEL,
	CHANGE_BACKEND_CLEAR, /* forget its flows; the id goes to quarantine */
	CHANGE_SERVICE_CLEAR,
	CHANGE_REPLY_DETACH,
	CHANGE_LINK_DETACH,
	CHANGE_SHOW, /* nothing to do: says what hidden changes mean */
	CHANGE_KIND_COUNT,
};

enum change_action {
	ACTION_ADD,
	ACTION_CHANGE,
	ACTION_REPLACE,
	ACTION_DESTROY,
};

/* What a guard holds back, and until when. */
struct held {
	const char *guard; /* the key that sets it: "allow_empty" */
	const char *object; /* service.web; NULL: the whole plan */
	const char *why;
	int64_t until_ms; /* wall clock; 0: until it is approved */
};

struct change {
	enum change_kind kind;
	enum change_action action;
	bool drift;
	bool hidden;
	bool waits; /* shown, but to come by itself later: nothing is done */
	const struct held *held; /* shown, but not carried out; or NULL */
	bool counted; /* of safety.max_vm_deletes */
	/* Drift of the same object, that an edit changes as well: what this
	 * one starts from once that is repaired.  Or NULL. */
	const struct change *base;
	const char *object; /* service.web/vm/web-3 */
	const char *detail; /* what about it, for people */
	const char *cause; /* "services.yaml:32", or the event */
	const char *file; /* of the cause, or NULL */
	int line;

	const char *service; /* name, where it has one */
	uint32_t id; /* of the service or backend */
	int ifindex;
	const char *name; /* of the interface, sysctl, VM or backend */
	const char *value; /* of the sysctl */
	struct ip address;
	const struct service_spec *spec;
	uint32_t index; /* of the VM */
	struct ip addresses[2];
	union {
		struct xlb_service kernel_service;
		struct {
			struct xlb_owner owner;
			struct xlb_backend line;
		} backend;
		struct {
			struct slot_write write;
			uint32_t moved;
		} slots;
		struct {
			uint32_t features; /* XLB_FEATURE_* that are needed */
			uint32_t slots; /* at least so many */
			bool has_seed;
			uint64_t seed; /* of flow hashes */
		} load;
		uint32_t tick; /* seconds */
		struct ip sources[2]; /* IPv4, IPv6; family 0: none */
		struct {
			enum datapath_hook hook;
			/* Of the same kind, and in its way; else
			 * DATAPATH_HOOKS. */
			enum datapath_hook from;
		} link;
		const struct vip_table *vips;
		struct {
			const struct xlb_vip *want, *have;
			size_t want_count, have_count;
		} sets; /* CHANGE_SHOW of a service */
		struct {
			const struct reply_entry *items;
			size_t count;
		} replies;
		struct {
			const struct xlb_direct_key *items;
			size_t count;
		} direct;
	};
};

struct plan {
	struct arena *arena;
	struct arena *world_arena; /* freed with the plan; may be NULL */
	const struct world *world; /* that it was made of */
	struct plan *baseline; /* what change.base points into, or NULL */
	struct change **changes; /* in the order of carrying out */
	size_t count;
	struct diag_list
		diags; /* errors: the file can't be applied to this world */
	struct held **guards; /* all that hold back something */
	size_t guard_count;
	/* All of it is held back by a guard: NULL, or why. */
	const char *held;
	const char *note; /* for people, above the last line of text; or NULL */
	uint32_t next_id; /* where the search for ids goes on next time */
	/* Set by plan_identify(); hex digits. */
	const char **names; /* of backends, by id */
	char fingerprint[65]; /* of what was observed */
	char id[17]; /* of file, fingerprint and changes */
};

struct plan_summary {
	uint32_t drift, add, change, replace, destroy;
};

struct plan *plan_make(const struct spec *spec, const struct world *world);
void plan_free(struct plan *p); /* NULL is fine */
/*
 * Tells drift from what an edit asks for, where the file is not the one last
 * applied (NULL: none was): the plan for that one, in the same world, would
 * make the same change.  Where an edit and drift meet in one object the drift
 * becomes a change of its own, and the other one starts from what it repairs.
 */
void plan_tell_drift(struct plan *p, const struct spec *applied);
/*
 * Fills in id and fingerprint.  The fingerprint covers what a plan depends on,
 * and nothing that changes by itself; the same plan has the same id.
 */
void plan_identify(struct plan *p, const struct spec *spec);
/*
 * Holds back what must not be carried out: p->held, or single changes.  Nothing
 * when world->approved.
 */
void plan_guard(struct plan *p, const struct spec *spec,
		const struct world *world);
/* Another guard of the plan, which change.held may point to; texts are kept. */
struct held *plan_hold(struct plan *p, const char *guard, const char *object,
		       const char *why, int64_t until_ms);
/* Does an approval let go of anything?  Not of what has a verb of its own. */
bool plan_awaits_approval(const struct plan *p);
/* Nothing to carry out: hidden changes count, waiting and held ones don't. */
bool plan_is_empty(const struct plan *p);
bool plan_shows_nothing(const struct plan *p);
struct plan_summary plan_summarize(const struct plan *p);
/* The text that `plan` prints; its last line is the summary. */
void plan_text(const struct plan *p, const struct spec *spec, struct buf *out);
/* Leaves nothing but drift. */
void plan_keep_drift(struct plan *p);
/*
 * The plan as JSON (schemas/plan.schema.json); new reference.  What only the
 * caller can know, of git, is null.  plan_identify() comes first.
 */
struct json_t;
struct json_t *plan_json(const struct plan *p, const struct spec *spec);
/*
 * The visible changes, drift or not, in the order of reading.  Free with
 * free(); count goes to *ret_count.
 */
const struct change **plan_visible(const struct plan *p, bool drift,
				   size_t *ret_count);
/*
 * saved.c: what a plan that was saved as JSON stands for.  data need not end
 * with NUL.  0, or -EBADMSG with a diag about path; then ret is untouched.
 */
struct saved_plan {
	char id[17];
	char sha256[65]; /* of the file */
	char fingerprint[65];
	char *path; /* of the file; saved_plan_release() */
};
int saved_plan_parse(const char *path, const char *data, size_t len,
		     struct saved_plan *ret, struct diag_list *diags);
void saved_plan_release(struct saved_plan *s);
#define SAVED_PLAN_MAX_BYTES (64u << 20)
/* "2026-11-30T14:06:18Z"; wall clock ms, UTC. */
void format_time(int64_t ms, char ret[32]);
/* What the declared services use, XLB_FEATURE_*. */
uint32_t features_needed(const struct spec *spec, const struct world *world);
/* "ipip, source_hash"; for people. */
const char *features_text(struct arena *a, uint32_t features);
bool service_encapsulates(const struct service_spec *s); /* ipip, gue */
/* What later changes stand on: when it fails the rest would do harm. */
bool change_is_foundation(const struct change *c);
/* When that other one has failed, this one must not be carried out. */
bool change_needs(const struct change *c, const struct change *other);
const char *hook_text(enum datapath_hook hook); /* "native XDP" */
const char *action_name(enum change_action a); /* "add", "change"... */

#endif
