/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One hypervisor: a libvirt connection, its worker thread, and the domains on
 * it that are ours.  Calls that can block run on the worker; results come back
 * on the loop.  Ownership is by metadata (namespace urn:xlb:1), never by name.
 */
#ifndef ACTUAL_LIBVIRT_H
#define ACTUAL_LIBVIRT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "base/ip.h"
#include "desired/model.h"
#include "loop.h"

enum vm_state {
	VM_OFF, /* defined, not running */
	VM_STARTING, /* create under way */
	VM_RUNNING,
	VM_PAUSED,
	VM_STOPPING, /* shutdown asked for */
	VM_CRASHED,
};

/* A domain of ours, as observed. */
struct vm {
	char name[64]; /* <service>-<index> */
	char service[64];
	uint32_t index;
	char template_hash[17];
	struct ip addresses[2]; /* from the metadata: allocated by us */
	uint8_t mac[6];
	char port[16]; /* host side interface (tap or veth), "": not running */
	enum vm_state state;
	char uuid[37];
	uint32_t vcpus;
	/* As it will be at its next start; 0: couldn't be read. */
	uint64_t next_memory; /* bytes */
	uint32_t next_vcpus;
	uint8_t next_mac[6];
};

/*
 * A domain that isn't ours and has a name that one of ours would get, or that
 * is one of ours which somebody renamed: its disk and addresses are in use.
 */
struct stray {
	char domain[64];
	char vm[64]; /* the name that is taken by it */
	struct ip addresses[2]; /* of one that was renamed */
};

struct vm_stats {
	const char *name;
	uint64_t cpu_ns; /* of all vcpus since it started */
	uint32_t vcpus;
	uint64_t when; /* CLOCK_MONOTONIC ns of the reading */
};

enum vm_event {
	VM_EVENT_DEFINED,
	VM_EVENT_STARTED,
	VM_EVENT_STOPPED,
	VM_EVENT_CRASHED,
	VM_EVENT_SHUTDOWN,
	VM_EVENT_UNDEFINED,
	VM_EVENT_PAUSED,
	VM_EVENT_RESUMED
};

struct hypervisor; /* a connection */

struct hypervisor_events {
	/* The list was read (again); the vms of hypervisor_vms() are fresh. */
	void (*refreshed)(void *arg, struct hypervisor *h);
	/* A life-cycle event of a domain of ours; the cached list is updated. */
	void (*event)(void *arg, struct hypervisor *h, const char *vm,
		      enum vm_event event);
	/*
	 * Connected, or lost (then it is reopened with backoff; told again
	 * only when the reason changes).  The list stays as last known.
	 */
	void (*connected)(void *arg, struct hypervisor *h, bool up,
			  const char *why);
};

/* Registers libvirt's event implementation on the loop; once a process. */
int hypervisor_init(struct loop *l);
/*
 * owner: this installation's id (kept in the state dir, 16 hex digits); only
 * domains whose metadata carries it are ours.  Connects in the background.
 */
struct hypervisor *hypervisor_new(struct loop *l,
				  const struct hypervisor_spec *spec,
				  const char *owner,
				  const struct hypervisor_events *ev,
				  void *arg);
/* Domains go on, and so does a call that is under way; nothing waits. */
void hypervisor_free(struct hypervisor *h);
/*
 * Before the loop goes, all hypervisors being freed.  False: one is still
 * caught in a call after a second, and the process should end by _exit().
 */
bool hypervisor_end(void);
const char *hypervisor_name(const struct hypervisor *h);
const char *hypervisor_uri(const struct hypervisor *h);
bool hypervisor_is_connected(const struct hypervisor *h);
/* Its domains have been read at least once; stays true when it is lost. */
bool hypervisor_is_read(const struct hypervisor *h);
/* Ours, sorted by name; valid until the loop runs again or vm_create(). */
const struct vm *hypervisor_vms(const struct hypervisor *h, size_t *ret_count);
/* Every domain that isn't ours; as long. */
const struct stray *hypervisor_strays(const struct hypervisor *h,
				      size_t *ret_count);
void hypervisor_refresh(struct hypervisor *h); /* full read, in the background */

/* What a new VM is to be. */
struct vm_order {
	const struct template_spec *template;
	const char *service;
	uint32_t index;
	struct ip addresses[2];
	uint8_t mac[6];
	/* dsr: VIPs that the guest puts on lo; told on the kernel command line
	 * (xlb.vips=a,b) or by cloud-init. */
	struct ip *vips;
	size_t vip_count;
};
/* MAC of an address: 52:54 and 4 bytes that are a function of the address. */
void vm_mac_from_address(const struct ip *a, uint8_t ret[6]);

/* err 0 or -errno; why: libvirt's words, "" when fine; took in ns. */
typedef void (*vm_done_fn)(void *arg, const char *vm, int err, const char *why,
			   uint64_t took);
/*
 * All asynchronous; done runs on the loop.  Create is idempotent: leftovers
 * of an interrupted create (overlay, defined domain of ours) are used or
 * replaced.  Strings and the order are copied.
 */
void vm_create(struct hypervisor *h, const struct vm_order *o, vm_done_fn done,
	       void *arg);
void vm_start(struct hypervisor *h, const char *name, vm_done_fn done,
	      void *arg);
void vm_shutdown(struct hypervisor *h, const char *name, vm_done_fn done,
		 void *arg);
/* Destroy if running, undefine with all flags needed, delete its disk. */
void vm_remove(struct hypervisor *h, const char *name, vm_done_fn done,
	       void *arg);
/* Disks and seeds of ours that no domain of ours names: removed. */
void vm_sweep_leftovers(struct hypervisor *h, vm_done_fn done, void *arg);

/* CPU time of all domains of ours in one call; fn on the loop. */
typedef void (*vm_stats_fn)(void *arg, const struct vm_stats *stats,
			    size_t count);
void hypervisor_stats(struct hypervisor *h, vm_stats_fn fn, void *arg);

#endif
