/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel side of what is: programs, links and maps in the bpffs folder.
 * Opening attaches to what an earlier process left there; nothing is lost or
 * stopped when this process goes.
 */
#ifndef ACTUAL_BPF_H
#define ACTUAL_BPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "bpf/xlb.h"
#include "tables/tables.h"

struct datapath;

struct datapath_config {
	const char *bpffs; /* folder for the pins, made if absent */
	bool read_only; /* open what is there; never load or write */
	uint32_t slots; /* at least so many, when maps are made */
	uint32_t flow_lines; /* power of two; 0: 32768 */
	uint32_t features; /* XLB_FEATURE_*; what is loaded is kept besides */
	uint64_t flow_seed; /* used when maps are made; else the pinned one stays */
};

/*
 * Open the pinned maps and programs, or (unless read_only) create, load and
 * pin them.  read_only and nothing there: -ENOENT.  Pins of another ABI:
 * -EPROTO.  A diag says what and what to do for every other failure.
 */
int datapath_open(const struct datapath_config *cfg, struct datapath **ret,
		  struct diag_list *diags);
void datapath_close(struct datapath *d); /* pins stay */
/*
 * Make the programs have these features too, and room for at least so many
 * slots: loads them anew and swaps them in everywhere, no packet lost.
 * Nothing to do: 0 at once.  Else it takes some 100 ms, and when it returns
 * no packet is under way in the old programs.  With more slots, the view's
 * slots are elsewhere afterwards.  0 or -errno with a diag; what ran goes on.
 */
int datapath_reload(struct datapath *d, uint32_t features, uint32_t slots,
		    struct diag_list *diags);

/*
 * Mapped tables.  Read freely; write by the calls below.  The struct is valid
 * until close; so is what it points to, but for slots, which
 * datapath_reload() may replace.
 */
struct datapath_view {
	const struct xlb_control *control;
	const struct xlb_vip *vips; /* 2 * XLB_VIP_LINES */
	const uint32_t *displacement; /* 2 * XLB_VIP_BUCKETS */
	const struct xlb_backend *backends; /* XLB_BACKENDS */
	const uint32_t *slots; /* slot_count words */
	uint32_t slot_count;
	const struct xlb_service *services; /* XLB_SERVICES */
	const struct xlb_load *loads; /* XLB_BACKENDS */
	uint32_t flow_lines;
	uint32_t cpus;
};
const struct datapath_view *datapath_view(const struct datapath *d);
/*
 * When each slot began to move (control.now, as a byte), of slot_count slots:
 * mapped until datapath_stamps_drop() or datapath_reload().  NULL: no memory.
 */
const uint8_t *datapath_stamps(struct datapath *d);
void datapath_stamps_drop(struct datapath *d);

/* Sum of a backend's counters over all CPUs. */
struct xlb_counter datapath_count(struct datapath *d, uint32_t backend);
int datapath_drops(const struct datapath *d, uint64_t ret[XLB_DROP_MAX]);
int datapath_events(const struct datapath *d, uint64_t ret[XLB_EVENT_MAX]);
const char *drop_name(enum xlb_drop reason); /* "no_backend"; stable names */

/* Owners: which backend id is whose. Calls fn for each; 0 or -errno. */
int datapath_owners(struct datapath *d,
		    void (*fn)(void *arg, uint32_t id,
			       const struct xlb_owner *owner),
		    void *arg);
size_t datapath_owner_count(const struct datapath *d); /* as last read */
int datapath_set_owner(struct datapath *d, uint32_t id,
		       const struct xlb_owner *owner); /* NULL: remove */

/* Writes; each is visible to the next packet, each is whole for a packet. */
int datapath_set_service(struct datapath *d, uint32_t id,
			 const struct xlb_service *service);
/* Next-hop words are stored one by one; the rest only while unused. */
int datapath_set_backend(struct datapath *d, uint32_t id,
			 const struct xlb_backend *line);
/*
 * words[i] -> slot base + i, where they differ; returns how many differed, or
 * -errno: there was no memory to stamp the next one, the rest is as it was.
 * A slot that begins to move is stamped with control.now.  A region that no
 * packet reads yet (fresh) is written as a whole, after the grace period of
 * the last flip; from: where its slots were before, or UINT32_MAX: slot i
 * takes over the stamp of from + (i >> shift).
 */
struct slot_write {
	uint32_t base;
	uint32_t count;
	const uint32_t *words;
	bool fresh;
	uint32_t from;
	uint8_t shift;
};
int datapath_write_slots(struct datapath *d, const struct slot_write *w);
/*
 * Copy into the spare and flip.  Waits for the grace period of the flip
 * before this one where it has not passed yet. 0 or -errno.
 */
int datapath_set_vips(struct datapath *d, const struct vip_table *t);
/* Remove memories that name the backend; how many there were. */
uint32_t datapath_forget_flows(struct datapath *d, uint32_t backend);
/* One line of memories as it is now.  0 or -errno. */
int datapath_flow_line(const struct datapath *d, uint32_t line,
		       struct xlb_flow_line *ret);
uint32_t datapath_remembered(const struct datapath *d, uint32_t backend);
/*
 * Every memory there is, once; one for which keep() says false is removed
 * (unless a packet changed it meanwhile).  The flows map is mapped only for
 * so long.  0 or -errno.
 */
int datapath_sweep(struct datapath *d,
		   bool (*keep)(void *arg, uint32_t line, uint64_t entry),
		   void *arg);
/* The coarse clock goes on by one tick. */
void datapath_tick(struct datapath *d);
/*
 * Seconds a tick.  When it changes, every memory becomes young again, and so
 * does every slot that moves.  0 or -errno; then it stays as it was.
 */
int datapath_set_tick(struct datapath *d, uint32_t seconds);
void datapath_set_load(struct datapath *d, uint32_t backend,
		       const struct xlb_load *load);
/* Outer sources of GUE, network order; NULL: none of that family. */
void datapath_set_sources(struct datapath *d, const uint32_t *v4,
			  const uint32_t v6[4]);
void datapath_set_next_backend(struct datapath *d, uint32_t id);
/* Waits until every packet that is under way now has been finished. */
void datapath_grace(struct datapath *d);

/* The replies and direct maps, as whole sets: writes only what differs. */
struct reply_entry {
	struct xlb_reply_key key;
	struct xlb_reply value;
};
int datapath_set_replies(struct datapath *d, const struct reply_entry *entries,
			 size_t count, size_t *ret_changed);
/*
 * What the two maps hold, sorted by key; valid until the next call that sets.
 * Owners and these sets are read once and then remembered, as nobody else
 * should write them; datapath_reread() finds out whether somebody did.
 */
void datapath_reread(struct datapath *d);
int datapath_sets(struct datapath *d, const struct reply_entry **ret_replies,
		  size_t *ret_reply_count,
		  const struct xlb_direct_key **ret_directs,
		  size_t *ret_direct_count);
int datapath_set_direct(struct datapath *d, const struct xlb_direct_key *keys,
			size_t count, size_t *ret_changed);

/* Where the balancer sits on an interface. */
enum datapath_hook {
	DATAPATH_XDP, /* native */
	DATAPATH_XDP_GENERIC,
	DATAPATH_TC, /* ingress, before the reply program */
	DATAPATH_HOOKS,
};

/*
 * Attachments; EBUSY is explained (whose program it is).  tc and XDP may be
 * attached at once, then XDP has the packets: attach the new before the old is
 * detached, which then waits for what is between them.  Where a driver drops
 * what it holds when its native program goes (veth does, without GRO), those
 * packets are lost.  From one XDP hook to the other datapath_attach() changes by
 * itself, with tc in between.
 */
enum attach_state {
	ATTACH_NONE, /* nothing, or ours in the other XDP hook */
	ATTACH_OURS, /* our program, by our pinned link or at our place of tc */
	ATTACH_FOREIGN, /* another program is in the way */
	ATTACH_STALE, /* ours, but not the program that is loaded now */
};
/* d NULL: nothing of ours is loaded, so any program is another's. */
enum attach_state datapath_attached(const struct datapath *d,
				    enum datapath_hook hook, const char *ifname,
				    int ifindex);
int datapath_attach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex, struct diag_list *diags);
/* Nothing of ours there: 0.  ifindex 0: it is gone, or (XDP) either kind. */
int datapath_detach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex);
/*
 * Interfaces that have our balancer: a pinned link (XDP, either kind, also of
 * an interface that is gone) or a filter of tc.  One with both is named twice.
 */
int datapath_links(const struct datapath *d,
		   void (*fn)(void *arg, const char *ifname), void *arg);

/* The reply program: tc ingress of an interface, fixed priority and handle. */
enum attach_state datapath_reply_attached(const struct datapath *d,
					  int ifindex);
int datapath_reply_attach(struct datapath *d, int ifindex,
			  struct diag_list *diags);
int datapath_reply_detach(struct datapath *d, int ifindex);

/*
 * Sampling packets: the programs are swapped for ones that do, no packet lost,
 * and back; the first takes some 100 ms.  `until` bounds it even if nobody stops.
 * Starting again changes what is sampled.  0 or -errno with a diag.
 */
int datapath_trace_start(struct datapath *d, const struct xlb_trace *what,
			 struct diag_list *diags);
int datapath_trace_stop(struct datapath *d, struct diag_list *diags);
bool datapath_traces(const struct datapath *d);

/* The samples, for another process of root's: in the folder of pins. */
struct sampler;
typedef void (*sample_fn)(void *arg, const struct xlb_sample *s);
/* -ENOENT: nothing is sampled there. */
int sampler_open(const char *bpffs, sample_fn fn, void *arg,
		 struct sampler **ret);
int sampler_fd(const struct sampler *s); /* readable: there are some */
int sampler_take(struct sampler *s); /* those there are; 0 or -errno */
void sampler_close(struct sampler *s);

/*
 * What somebody else did: pins of maps and programs that are gone or stand for
 * others; and whether the VIP table leads to each of its lines, with their
 * addresses known.  Both ask the kernel: for passes that verify.
 */
size_t datapath_unpinned(const struct datapath *d);
bool datapath_vips_whole(const struct datapath *d);
/* Pin again what lacks its pin, in the folder made again.  0 or -errno. */
int datapath_repin(struct datapath *d, struct diag_list *diags);

/* Remove all pins and the folder; programs go with their last reference. */
int datapath_destroy(struct datapath *d);

#endif
