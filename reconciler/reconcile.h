/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reconciler's run-time state: handles to the outside, and the little
 * about services, backends and VMs that only time can tell (since when a VM
 * drains, how long it has been booting).  Everything else is read from what
 * is, each time.
 */
#ifndef RECONCILE_H
#define RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "actual/bpf.h"
#include "actual/libvirt.h"
#include "actual/netlink.h"
#include "base/strmap.h"
#include "desired/desired.h"
#include "health/health.h"
#include "loop.h"
#include "plan/ledger.h"
#include "plan/plan.h"
#include "scale/scale.h"
#include "state/store.h"
#include "watch.h"

struct options {
	const char *file; /* -f */
	bool file_given; /* rather than the default */
	const char *state_dir; /* --state-dir */
	const char *bpffs; /* --bpffs */
	const char **interfaces; /* --interface, replaces node.interfaces */
	size_t interface_count;
	const char *hook; /* --hook, or NULL */
	const char *libvirt; /* --libvirt: replaces every hypervisor's uri */
	bool verbose;
	bool once;
	uint64_t timeout; /* of --once, ns */
	bool json;
	bool dry_run;
	bool detailed_exitcode;
	bool yes;
	bool print;
	bool manual; /* run: nothing is applied but on `apply` or `approve` */
	bool approved; /* what guards hold back is released, once */
	bool drift_only;
	const char *out; /* --out: the plan is saved there */
	const char
		*only_sha256; /* of the one file that may be applied, or NULL */
	bool check;
	bool help;
	bool version;
	const char *since;
	const char *kind;
	const char *lasts; /* --for */
	const char *at; /* --at */
	const char *vip; /* --vip, --from, --protocol: of trace */
	const char *from;
	const char *protocol;
	uint32_t length; /* --length, bytes of an IP packet; 0: not given */
	uint32_t ttl; /* --ttl; 0: not given */
	bool live;
	bool release;
	const char **addresses; /* --address */
	size_t address_count;
	const char *service; /* --service */
	uint32_t rate; /* --rate, a second; 0: not given */
	uint32_t count; /* --count; 0: no end */
	const char *verb;
	const char **args; /* borrowed from argv */
	size_t arg_count;
};

/* Exit codes of the contract. */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_CHANGES = 2,
	EXIT_INVALID = 3,
	EXIT_HELD = 4,
	EXIT_STALE = 5,
	EXIT_USAGE = 64,
};

enum vm_op {
	VM_OP_NONE,
	VM_OP_CREATE,
	VM_OP_START,
	VM_OP_SHUTDOWN,
	VM_OP_REMOVE
};

struct vm_run {
	struct reconciler *r;
	char name[64];
	char service[64];
	uint32_t index;
	struct hypervisor *hypervisor;
	struct ip addresses[2];
	bool observed; /* seen in the last full read */
	struct vm seen; /* valid while observed */
	enum vm_op op;
	uint64_t op_since;
	bool create_after; /* VM_OP_REMOVE of a replacement */
	bool drift; /* the op under way is a repair */
	bool was_running; /* this process has seen it run */
	bool drains;
	bool failed;
	char why[96];
	uint64_t running_since;
	uint64_t ready_since; /* 0: not yet */
	uint64_t retry_at;
	uint64_t cpu_ns, cpu_when; /* last reading; when 0: none */
	double cpu_percent; /* over the last interval; < 0: unknown */
	int64_t revision;
	const char *cause; /* of the op under way; in cause_text */
	char cause_text[160];
};

struct member_run {
	char *key; /* service/name/address */
	char *service;
	char *name;
	struct ip addresses[2];
	struct reconciler *r;
	struct probe_target *targets[2]; /* IPv4, IPv6 */
	bool was_alive;
	uint64_t seen_since; /* by this process */
	uint32_t id; /* in the kernel at the last pass */
	uint32_t remembered_as; /* its place in run_by_id */
	uint64_t asked_at[2]; /* its next hop, by family */
	bool vm;
	bool used; /* mark and sweep */
	enum health_state state; /* as last recorded */
	char *reason[2]; /* of the last probe that failed; NULL: it passed */
	bool leaving;
	bool finished;
	uint64_t leaving_since;
	uint64_t packets, quiet_since;
	struct xlb_counter counted; /* at the last scaling interval */
	uint64_t counted_id;
};

struct service_run {
	char *name;
	struct reconciler *r;
	bool used;
	struct loop_source *timer; /* scaling interval */
	uint64_t interval;
	bool pool_known;
	uint32_t wanted;
	/*
	 * `wanted` at the start, while more than that are there: what the
	 * scaler remembered may be old, so that those aren't its decision.
	 */
	uint32_t inherited; /* UINT32_MAX: no more of that */
	uint32_t previewed; /* what `wanted` was before a preview */
	bool previews;
	char view[256]; /* the last decision, in words; "" none */
	char cause[256]; /* of `wanted`, until it is reached; "" none */
	struct scale_memory memory;
	struct hypervisor *asked_stats; /* it owes an answer; NULL: none does */
	bool decided; /* this interval, without that answer */
	uint64_t measured_at;
	double metric_mean[METRIC_COUNT];
	bool action_open;
	int64_t action_id;
	uint64_t action_since;
	uint32_t create_failures;
	uint64_t failed_at; /* the last of them */
	uint64_t backoff_until;
};

struct reconciler {
	const struct options *opt;
	struct loop *loop;
	bool read_only; /* plan and status without a daemon */
	struct spec *spec; /* last good one; NULL: none yet */
	struct spec_cache *cache; /* of the file; NULL until it is watched */
	/* The one before it, while this one isn't wholly applied; or NULL. */
	struct spec *applied;
	char kept_sha256[65]; /* of what is kept as last applied */
	bool released; /* run --manual: until all is as declared */
	bool waiting; /* run --manual: for `apply` or `approve` */
	bool file_waits; /* the file does, too */
	const char *adopt_sha256; /* of the file that may be adopted, or NULL */
	uint64_t told_waiting; /* sum of what was last said to wait */
	char file_sha256[65]; /* of what is in the file now */
	struct diag_list file_diags; /* why the file isn't what runs */
	bool held;
	/* What guards hold back was approved: until all is as declared. */
	bool approved;
	int64_t revision;
	char run_id[17];
	char owner[17];
	uint64_t flow_seed;
	uint64_t direct_sum; /* of the direct map as last seen or written */
	bool settled;
	bool verify; /* the next pass reads everything again */
	size_t verify_at; /* whose slots a pass looks through next */
	bool trims; /* give memory back when nothing is verified any more */
	char failing[320]; /* the first change that failed in the last pass */
	bool converged; /* the last plan was empty and nothing is under way */
	double applied_ms; /* from the save to its tables, last revision */
	uint64_t saved_at;
	unsigned int restless; /* passes in a row that had something to do */
	uint64_t told_failures; /* of the last pass, as told and recorded */
	int exit_code;

	struct datapath *dp;
	struct net *net;
	struct hypervisor **hypervisors;
	size_t hypervisor_count;
	struct prober *prober;
	struct store *store;
	struct watch *watch;
	struct control *control;
	struct sweeper *sweeper;
	struct live *live; /* packets are sampled; NULL: they aren't */

	struct strmap vms; /* struct vm_run by name */
	struct strmap members; /* struct member_run by key */
	struct member_run **run_by_id; /* as last seen, or NULL */
	struct strmap services; /* struct service_run by name */
	struct store_override *overrides;
	size_t override_count;
	bool overrides_read; /* from a store, since the start */
	int store_err; /* why there is none, as told */
	struct ledger ledger;
	int64_t wall_ms; /* at clock_ns() 0, for all times of guards */
	struct strmap declarations; /* keeping.c */
	bool reread; /* the file counts anew, though it is the same */
	char **told_holds; /* "GUARD OBJECT" of the last pass, sorted */
	size_t told_hold_count;

	struct loop_source *pass; /* the next pass */
	struct loop_source *resync;
	struct loop_source *housekeeping;
	struct loop_source *retry_read;
	struct loop_source *deadline; /* of --once */
	struct loop_source *expiry; /* of the next override that ends */
	struct loop_source *thaw; /* when a guard may let go */
	struct loop_source *keep; /* the applied file, when there is time */
	struct loop_source *watchdog; /* systemd.c; NULL: nobody asks */
	uint64_t watchdog_every; /* ns */
	char told_status[96]; /* what the service manager was told last */
	unsigned int read_tries;
	bool maybe_half; /* so it looked when it was read while more might come */
	unsigned int resyncs;
	int64_t last_revision; /* recorded, applied or not */
	struct worker *git; /* asks for commits; NULL until first needed */
	struct git_job *git_jobs;
};

/* reconcile.c: the pipeline. */
int reconciler_open(struct reconciler *r, const struct options *opt,
		    struct loop *loop, bool read_only, struct diag_list *diags);
void reconciler_close(struct reconciler *r);
/* Read the file and connect to what it names, to look only. -EBADMSG: bad file. */
int reconciler_look(struct reconciler *r, struct diag_list *diags);
void reconcile_soon(struct reconciler *r);
/* The plan for `file` as it is now (for `plan`), or NULL with diags. */
struct plan *reconciler_plan(struct reconciler *r, const char *file,
			     struct spec **ret_spec, struct diag_list *diags);
void reconciler_saved(void *arg); /* the file was saved */
void reconciler_coming(void *arg); /* it was, and more may be on its way */
/*
 * What waits for the operator is carried out, from now on until all is as
 * declared: the file, if that is still what it holds, and what guards hold back
 * if `approved`.
 */
void reconciler_release(struct reconciler *r, const char *sha256,
			bool approved);

/*
 * applied.c: the file that was last applied, kept in the state dir, so that
 * drift is told from edits also after a restart.  NULL: it isn't known.
 */
struct spec *applied_read(const struct reconciler *r);
void applied_keep(void *arg); /* a reconciler's spec */
void applied_forget(const struct reconciler *r);
/* Read the file, the kernel and the hypervisors again. */
void reconciler_refresh(struct reconciler *r);

/*
 * identity.c: who this installation is.  owner depends on the machine and the
 * state dir alone, so that a lost store leaves its VMs ours.
 */
void identity_read(const char *state_dir, bool read_only, char owner[17],
		   uint64_t *ret_seed, char run_id[17]);

/* The seed that node.seed_file stands for; 0 or -errno (-ENODATA: empty). */
int identity_seed_file(const char *path, uint64_t *ret_seed);

/*
 * observe.c: what is, into plain values.  observe() also makes probes and
 * drains follow spec, which must then stay until another one is observed;
 * observe_as_if() leaves them alone: a backend that isn't probed yet is joining.
 */
struct world *observe(struct reconciler *r, const struct spec *spec,
		      struct arena *arena);
struct world *observe_as_if(struct reconciler *r, const struct spec *spec,
			    struct arena *arena);
/* The same, and asking for what a pass finds only when it verifies. */
struct world *look_closely(struct reconciler *r, const struct spec *spec,
			   struct arena *arena, bool closely);
struct service_run *service_run_get(struct reconciler *r, const char *name);

/* probing.c: backends and their probes. */
void probing_update(struct member_run *run, const struct service_spec *s,
		    const struct world_member *m, bool alive);
enum health_state probing_state(const struct member_run *run);
void probing_stop(struct member_run *run);
void probing_result(void *arg, struct probe_target *t, const struct health *h,
		    const struct probe_report *report);

/* vms.c: the life of VMs. */
struct vm_run *vm_run_get(struct reconciler *r, const char *name);
struct hypervisor *hypervisor_named(const struct reconciler *r,
				    const char *name); /* or NULL */
bool hypervisors_read(const struct reconciler *r); /* all of them */
void vms_observe(struct reconciler *r, struct hypervisor *h);
void vms_event(struct reconciler *r, struct hypervisor *h, const char *name,
	       enum vm_event event);
enum vm_phase vm_run_phase(const struct vm_run *v);
void vm_run_note(struct vm_run *v, const char *event, const char *reason,
		 uint64_t took);
void vms_tick(struct reconciler *r); /* graces and deadlines */
void vms_forget(struct reconciler *r, struct hypervisor *h); /* NULL is fine */
void vm_order_create(struct reconciler *r, const struct change *c);
void vm_order_start(struct reconciler *r, const struct change *c);
void vm_order_remove(struct reconciler *r, const struct change *c,
		     bool replace);

/* guards.c: what guards remember, and telling what they hold back. */
void guards_open(struct reconciler *r);
void guards_close(struct reconciler *r);
int64_t guards_now(const struct reconciler *r); /* wall clock ms, no jumps */
/* How many VMs may go, and which. */
void guards_observe(struct reconciler *r, const struct spec *spec,
		    struct arena *arena, struct world *w, bool looks);
/* Before a change with `counted`: on disk before its VM is touched. */
void guards_count(struct reconciler *r, const struct change *c);
void guards_after_pass(struct reconciler *r, const struct world *w,
		       const struct plan *p);

/* keeping.c: services that stay as they were declared before. */
void keeping_open(struct reconciler *r);
void keeping_close(struct reconciler *r);
/* r->spec is in force: what its services are is kept, others are forgotten. */
void keeping_remember(struct reconciler *r);
/* Services that stay come back into a file that was read. */
void keeping_merge(struct reconciler *r, struct spec *spec);
/* Before a pass: those that need not stay any more go out of r->spec. */
void keeping_step(struct reconciler *r);
/* No longer protected: out of r->spec as soon as its VMs may go. */
void keeping_release(struct reconciler *r, const char *name);
/* Protected, though nothing but the kernel knows of it any more. */
bool kept_by_kernel(const struct reconciler *r, const char *name);
bool service_pauses(const struct reconciler *r, const struct service_spec *s);
const struct store_override *find_override(const struct reconciler *r,
					   const char *kind, const char *key);

/* load.c: samples to decisions. */
void scaling_forget(struct reconciler *r, const struct hypervisor *h);
void scaling_update(struct reconciler *r, const struct spec *spec);
/* `plan`: what the pool counts would be under spec, nothing recorded. */
void scaling_preview(struct reconciler *r, const struct spec *spec);
void scaling_preview_end(struct reconciler *r, const struct spec *spec);
/* VMs above so many are there against the file: see struct world_pool. */
uint32_t pool_allowed(struct service_run *s, const struct service_spec *spec);
void scaling_check_done(struct reconciler *r, struct service_run *s);
void scaling_record(struct reconciler *r, struct service_run *s,
		    const struct scale_decision *d);

/* apply.c: one change to one effect. */
uint64_t direct_sum(const struct xlb_direct_key *keys, size_t count);
int apply_change(struct reconciler *r, const struct change *c,
		 struct diag_list *diags);

/*
 * sweep.c: the coarse clock, memories that have run out, slots that come to
 * rest, ids that leave quarantine, loads of least_*.
 */
struct sweeper;
struct sweeper *sweeper_new(struct reconciler *r);
void sweeper_free(struct sweeper *s); /* NULL is fine */
/* After each pass: what there is to do may have changed. */
void sweep_update(struct reconciler *r);
/* These slots were written: what was found out of them holds no more. */
void sweep_forget(struct reconciler *r, uint32_t base, uint32_t count);

/* control.c */
struct control;
int control_open(struct reconciler *r, struct control **ret);
void control_close(struct control *c);
/* Ask a running daemon; -ENOENT when there is none. Exit code, or -errno. */
int control_ask(const struct options *opt, struct buf *out);
/*
 * The same for what goes on after its answer, one line, until the descriptor
 * is closed by either side.  Only where the answer is 0 there is one.
 */
int control_hold(const struct options *opt, struct buf *out, int *ret_fd);
/* Clients whose request went on until now: it is over. */
void control_dismiss(struct control *c);

/* live.c: packets sampled for a client. */
int live_verb(struct reconciler *r, const struct options *opt, struct buf *out);
void live_end(struct reconciler *r); /* if there is one */

/* cli/: one verb a file.  r is the daemon's, or one opened for the verb. */
int verb_on_reconciler(struct reconciler *r, const struct options *opt,
		       struct buf *out);
int options_parse(int argc, char **argv, struct options *o, struct buf *err);
void options_release(struct options *o);
/*
 * A client's request: words, each ended by NUL (the last one may do without).
 * words and what opt points to borrow from *in.  0, or EXIT_USAGE with *err.
 */
#define REQUEST_WORDS 64
int request_parse(struct buf *in, char *words[REQUEST_WORDS],
		  struct options *opt, struct buf *err);
int cmd_run(const struct options *opt);
int cmd_plan(const struct options *opt);
int cmd_check(const struct options *opt);
int cmd_status(const struct options *opt);
int cmd_history(const struct options *opt);
int cmd_override(const struct options *opt);
int cmd_keep(const struct options *opt);
int cmd_destroy(const struct options *opt);
int cmd_trace(const struct options *opt);
int cmd_explain(const struct options *opt);
int cmd_adopt(const struct options *opt);
int cmd_apply(const struct options *opt);
int plan_verb(struct reconciler *r, const struct options *opt, struct buf *out);
int apply_verb(struct reconciler *r, const struct options *opt,
	       struct buf *out);
int status_verb(struct reconciler *r, const struct options *opt,
		struct buf *out);
int override_verb(struct reconciler *r, const struct options *opt,
		  struct buf *out);
int keep_verb(struct reconciler *r, const struct options *opt, struct buf *out);
int trace_verb(struct reconciler *r, const struct options *opt,
	       struct buf *out);
bool parse_duration(const char *s, uint64_t *ret_ns);
bool hook_parse(const char *s, enum hook *ret);

#endif
