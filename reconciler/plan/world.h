/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is, as the planner sees it: plain values, gathered by observing, with
 * no handle to anything that could be changed.  Pointers are borrowed for the
 * length of one planning.
 */
#ifndef PLAN_WORLD_H
#define PLAN_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actual/bpf.h"
#include "base/ip.h"
#include "bpf/xlb.h"
#include "desired/model.h"
#include "health/health.h"

/* The tables in the kernel.  All pointers NULL: nothing is loaded. */
struct world_kernel {
	bool loaded;
	const struct xlb_vip *vips; /* XLB_VIP_LINES lines of the live copy */
	const struct xlb_backend *backends;
	const uint32_t *slots;
	uint32_t slot_count;
	const struct xlb_service *services;
	const struct world_owner *owners; /* sorted by id; also quarantined */
	size_t owner_count;
	uint32_t features; /* of the loaded programs */
	/* Only known to a pass that verifies. */
	size_t unpinned; /* maps and programs whose pins are gone */
	bool direct_edited; /* by another than this process */
	bool vips_damaged; /* lookups don't come to the lines there are */
	uint32_t tick; /* seconds */
	uint32_t now; /* coarse time, in ticks */
	uint64_t flow_seed;
	uint32_t source4, source6[4]; /* outer addresses, network order */
};

struct world_owner {
	uint32_t id;
	struct xlb_owner owner;
};

enum attachment {
	ATTACHED_NOT,
	ATTACHED_OURS,
	ATTACHED_STALE, /* ours, of an earlier build */
	ATTACHED_FOREIGN,
};

/* An interface that carries, or should carry, one of our programs. */
struct world_interface {
	const char *name;
	int ifindex; /* 0: does not exist */
	enum attachment hooks[DATAPATH_HOOKS];
	enum attachment reply;
	bool native; /* its driver takes native XDP */
	bool forwards[2]; /* net.ipv4.conf.IF.forwarding, and IPv6 */
};

struct world_address {
	struct ip address;
	int prefix;
	int ifindex;
	bool ours;
};

/* Where packets to a backend's address go now. */
struct world_path {
	bool known;
	bool on_link; /* no gateway between */
	bool stack; /* the port takes no redirected frames */
	int route_ifindex; /* 0: no route */
	int port_ifindex;
	uint8_t dst_mac[6];
	uint8_t src_mac[6];
	uint16_t mtu;
	uint16_t vlan; /* id; 0: no tag */
};

/* One backend of a service: declared, running as a VM, or only remembered. */
struct world_member {
	const char *name;
	const struct backend_spec *fixed; /* NULL: a VM, or gone from the file */
	bool vm; /* of a pool */
	bool twin; /* another id of one that is there as well */
	bool sorry; /* for when no other can serve; not probed, always up */
	struct ip addresses[2];
	struct world_path paths[2];
	uint16_t port;
	uint32_t weight;
	uint32_t id; /* in the kernel; 0: none yet */
	enum health_state health;
	bool fresh; /* joining, and too new to have failed a probe */
	bool drained; /* by an operator or `state: drain`: no new flows */
	bool leaving; /* on its way out */
	bool finished; /* nothing of it needs to be kept any more */
};

enum vm_phase {
	PHASE_CREATING, /* ordered, or defined and being started */
	PHASE_BOOTING, /* runs, has not passed its first probe */
	PHASE_READY,
	PHASE_DRAINING,
	PHASE_STOPPING, /* shutdown or removal under way */
	PHASE_OFF, /* defined, not running, nothing under way */
	PHASE_FAILED, /* died, or never became ready: to be replaced */
};

struct world_vm {
	const char *name;
	const char *service;
	const char *hypervisor;
	uint32_t index;
	const char *template_hash;
	struct ip addresses[2];
	enum vm_phase phase;
	bool busy; /* a call about it is under way: plan nothing for it */
	bool drained; /* PHASE_DRAINING and done with it */
	bool adopted; /* let go rather than removed */
	bool backoff; /* PHASE_FAILED, and its replacement has to wait */
	bool may_go; /* its deletion has been counted, or was approved */
	const char *why; /* of PHASE_FAILED */
};

/* A pool's count as the scaler last decided it. */
struct world_pool {
	bool known; /* the hypervisor has been read */
	uint32_t wanted; /* within bounds of the spec */
	/*
	 * VMs above so many are there against the file: their deletion is no
	 * decision of the scaler's, whose own are between `wanted` and this.
	 */
	uint32_t allowed;
	uint32_t wanted_before; /* within those of what runs */
	const char *view; /* what the scaler said last, in words; or NULL */
	const char *cause; /* of the last change of `wanted` */
	uint64_t backoff_until; /* creates have to wait until then; 0: no */
};

struct world_service {
	const char *name;
	const struct service_spec *spec; /* NULL: gone from the file */
	uint32_t id; /* in the kernel; 0: none */
	bool paused; /* by the file or an operator */
	bool unprotected; /* by an operator, once */
	bool verify; /* hold every slot against its table, not just the changed */
	struct world_member *members; /* sorted by name */
	size_t member_count;
	size_t member_room; /* of the array; for whoever fills it */
	struct world_pool pool;
};

/* What is left of safety.max_vm_deletes. */
struct world_budget {
	uint32_t left;
	const char *why; /* it is no more than that */
	int64_t until_ms; /* then one more may go; 0: never by itself */
};

struct world {
	uint64_t now; /* CLOCK_MONOTONIC ns */
	struct world_budget budget;
	bool settled; /* the file is the one last applied: differences are drift */
	bool accepted; /* the file is in force: what it asks for was let through */
	bool approved; /* by the operator: guards hold nothing back */
	const struct spec *applied; /* the declaration applied last, or NULL */
	bool verify; /* everything was read again, not just what changed */
	bool forwards6_all; /* net.ipv6.conf.all.forwarding */
	uint32_t next_id; /* where the search for a free backend id starts */
	struct world_kernel kernel;
	struct world_interface *interfaces;
	size_t interface_count;
	struct world_address *addresses; /* of this host */
	size_t address_count;
	/* What this host itself sends from, out of the first uplink: IPv4,
	 * IPv6; family 0: not known. */
	struct ip sources[2];
	/* Of node.seed_file, where it is declared; or why it can't be used. */
	uint64_t seed;
	const char *seed_why;
	struct world_service *services; /* sorted by name; of file and kernel */
	size_t service_count;
	struct world_vm *vms; /* sorted by name */
	size_t vm_count;
	/* Names that VMs would get and others have, with what those use. */
	struct world_stray {
		const char *domain, *vm, *hypervisor;
		struct ip addresses[2];
	} * strays;
	size_t stray_count;
	const struct reply_entry *replies; /* in the kernel, sorted by key */
	size_t reply_count;
	const struct xlb_direct_key *directs; /* in the kernel, sorted */
	size_t direct_count;
};

const struct world_interface *world_interface(const struct world *w,
					      int ifindex);

#endif
