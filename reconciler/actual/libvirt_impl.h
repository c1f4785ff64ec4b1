/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files behind libvirt.h share.  In reading order:
 *   libvirt.c          the connection, its worker and the cached list
 *   libvirt_domain.c   the blocking calls about domains, run on the worker
 *   libvirt_probe.c    does kvm really run guests?
 *   libvirt_storage.c  overlays and seeds, by the storage API
 *   libvirt_seed.c     the NoCloud image that tells a guest what it is
 *   libvirt_network.c  DHCP reservations in libvirt's own networks
 *   libvirt_xml.c      XML out and in; pure
 *   libvirt_events.c   libvirt's event loop on ours
 */
#ifndef ACTUAL_LIBVIRT_IMPL_H
#define ACTUAL_LIBVIRT_IMPL_H

#include <libvirt/libvirt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "actual/libvirt.h"
#include "base/buf.h"
#include "base/mem.h"

#define VM_NAMESPACE "urn:xlb:1"
/* Domains with this prefix are short-lived fixtures of libvirt_probe.c. */
#define PROBE_PREFIX "xlb-probe-"
#define DISK_SUFFIX ".xlb.qcow2"
#define SEED_SUFFIX ".xlb.iso"

/* Why a call failed, in words for the user. */
struct why {
	char text[512];
};
/* Fills w with the words and libvirt's last error; returns -errno like it. */
int why_libvirt(struct why *w, const char *what);
int why_set(struct why *w, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

enum domain_kind { DOMAIN_KVM, DOMAIN_QEMU, DOMAIN_LXC, DOMAIN_TEST };
/* As libvirt's XML has it. */
const char *domain_kind_name(enum domain_kind k);

/* A connection as the worker sees it. */
struct place {
	virConnectPtr conn; /* NULL: lost */
	enum domain_kind kind;
	char arch[32]; /* of the host, "x86_64" */
	const char *owner;
};

struct vm_list {
	struct vm *items;
	size_t count;
	struct stray *strays;
	size_t stray_count;
};

/* --- libvirt_xml.c --- */

void vm_name(const char *service, uint32_t index, char ret[64]);
/* Length of the network that a's range is declared in, or that of a host. */
int order_prefix(const struct vm_order *o, const struct ip *a);
void xml_escape(struct buf *out, const char *s);
/* disk and seed: paths, NULL when the VM has none. */
void domain_xml(struct buf *out, const struct vm_order *o,
		const struct place *p, const char *disk, const char *seed);
/*
 * 0: the domain is the owner's, *ret is filled but for its state.  -ENOENT: it
 * isn't, and its name is in ret->name (with service, index and addresses if it
 * was the owner's under another name); -EINVAL: not a domain's XML.
 */
int domain_parse(const char *xml, const char *owner, struct vm *ret);
/* The next_ fields, of the XML that is not the live one. */
void domain_parse_next(const char *xml, struct vm *ret);
/* Name of the libvirt network of the first interface; false: none. */
bool domain_network(const char *xml, char *ret, size_t size);
/*
 * The first address of each DHCP range of a libvirt network that is reserved
 * for nobody, at most one a family; how many were found.
 */
size_t network_free_addresses(const char *xml, struct ip ret[2]);
void pool_xml(struct buf *out, const char *owner);
/* backing NULL: a raw volume of so many bytes; else an overlay on it. */
void volume_xml(struct buf *out, const char *name, uint64_t bytes,
		const char *backing, const char *backing_format);
void dhcp_host_xml(struct buf *out, const char *name, const uint8_t mac[6],
		   const struct ip *a);
void mac_format(const uint8_t mac[6], char ret[18]);

/* --- libvirt_seed.c --- */

/* What cloud-init reads; text of the two files that aren't the user's. */
void seed_meta_data(struct buf *out, const struct vm_order *o);
void seed_network_config(struct buf *out, const struct vm_order *o);
/* The ISO 9660 image with them and the template's user-data. */
int seed_iso(struct buf *out, const struct vm_order *o, struct why *w);

/* --- libvirt_storage.c --- */

/* Both replace what an interrupted create left.  ret_path: free() it. */
int storage_make_disk(struct place *p, const struct vm_order *o,
		      char **ret_path, struct why *w);
int storage_make_seed(struct place *p, const struct vm_order *o,
		      char **ret_path, struct why *w);
/* Disk and seed of that VM, if any; and the pool with its last volume. */
int storage_remove(struct place *p, const char *vm, struct why *w);
/* All volumes of VMs that are not in the list. */
int storage_sweep(struct place *p, const struct vm_list *keep, struct why *w);

/* --- libvirt_network.c: best effort, for templates with a network name --- */

/* Choose the addresses of an order that has none, and its MAC with them. */
int network_allocate(struct place *p, struct vm_order *o, struct why *w);
void network_reserve(struct place *p, const struct vm_order *o);
void network_release(struct place *p, const char *network, const struct vm *vm);

/* --- libvirt_probe.c --- */

enum domain_kind probe_kind(virConnectPtr conn, const char *arch,
			    const char *owner);

/* --- libvirt_domain.c --- */

int domain_create(struct place *p, const struct vm_order *o, struct vm *ret,
		  struct why *w);
int domain_start(struct place *p, const char *name, struct vm *ret,
		 struct why *w);
int domain_shutdown(struct place *p, const char *name, struct why *w);
int domain_remove(struct place *p, const char *name, struct why *w);
/* All of ours, sorted by name. */
int domain_list(struct place *p, struct vm_list *ret, struct why *w);

struct cpu_reading {
	char name[64];
	uint64_t cpu_ns;
	uint64_t when;
};
struct cpu_readings {
	struct cpu_reading *items;
	size_t count;
};
/* Of all running domains, or, where one call can't, of those of ours. */
int domain_cpu(struct place *p, struct cpu_readings *ret, struct why *w);

/* --- libvirt_events.c --- */

int events_init(struct loop *l);
/* Applies what is pending at once; on the loop's thread. */
void events_flush(void);
/* loop_post() from any thread; false: there is no loop any more. */
bool events_post(loop_fn fn, void *arg);
/* The loop goes, while there may be connections yet; on its thread. */
void events_end(void);

#endif
