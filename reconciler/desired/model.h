/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * services.yaml as a model: what the file declares, with defaults filled in
 * and every object's place in the file.  A spec owns its memory (one arena)
 * and is freed whole.  Nothing here is run-time state.
 *
 * Units: durations are nanoseconds, sizes are bytes, percentages are numbers
 * (60% is 60.0), counts are plain numbers, ports are in host order.
 */
#ifndef DESIRED_MODEL_H
#define DESIRED_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "base/ip.h"
#include "base/mem.h"

enum protocol { PROTOCOL_TCP, PROTOCOL_UDP };
enum algorithm {
	ALGORITHM_MAGLEV,
	ALGORITHM_ROUND_ROBIN,
	ALGORITHM_SOURCE_HASH,
	ALGORITHM_WEIGHTED_ROUND_ROBIN,
	ALGORITHM_RANDOM,
	ALGORITHM_LEAST_CONNECTIONS,
	ALGORITHM_LEAST_LOAD,
	ALGORITHM_COUNT,
};
enum forwarding {
	FORWARDING_NAT,
	FORWARDING_DSR,
	FORWARDING_IPIP,
	FORWARDING_GUE,
};
enum udp_mode { UDP_STATELESS, UDP_STICKY };
enum hook { HOOK_AUTO, HOOK_XDP, HOOK_XDP_GENERIC, HOOK_TC };
enum announce { ANNOUNCE_ADDRESS, ANNOUNCE_NONE };
enum backend_state { BACKEND_ACTIVE, BACKEND_DRAIN };
enum health_type {
	HEALTH_TCP,
	HEALTH_HTTP,
	HEALTH_HTTPS,
	HEALTH_DNS,
	HEALTH_UDP,
	HEALTH_ICMP,
	HEALTH_COMMAND,
	HEALTH_RUNNING, /* no probe: it runs and its neighbour resolves */
};
enum verify { VERIFY_NO, VERIFY_SYSTEM, VERIFY_FILE }; /* certificates */
/* Types of DNS records, by their numbers on the wire. */
enum dns_record {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_CNAME = 5,
	DNS_SOA = 6,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_SRV = 33,
};
enum panic_policy { PANIC_FAIL_OPEN, PANIC_FAIL_CLOSED };
enum metric {
	METRIC_CPU, /* percent of what the VM may use */
	METRIC_PACKETS_PER_SECOND,
	METRIC_NEW_CONNECTIONS_PER_SECOND,
	METRIC_COUNT,
};
enum signal_kind { SIGNAL_TARGET, SIGNAL_THRESHOLD };
enum missing_policy { MISSING_HOLD, MISSING_UP_ONLY };

struct interface_spec {
	struct source src;
	const char *name;
	enum hook hook;
};

struct prefix {
	struct ip address; /* as written, host bits kept */
	int length;
};

struct node_spec {
	struct source src;
	struct interface_spec *interfaces;
	size_t interface_count;
	enum announce announce;
	const char *seed_file; /* absolute path, or NULL */
	struct prefix *direct_clients;
	size_t direct_client_count;
	uint64_t resync;
};

struct hypervisor_spec {
	struct source src;
	const char *name;
	const char *uri;
	uint32_t max_vms; /* 0: no limit */
};

struct vm_deletes_spec { /* that an edit or drift may ask for */
	uint32_t count;
	uint64_t per;
};

struct safety_spec {
	struct vm_deletes_spec max_vm_deletes;
	double max_service_removals; /* percent of the services that run */
	bool allow_empty;
};

struct address_range { /* both ends included; one family */
	struct source src;
	struct ip first;
	struct ip last;
	int prefix; /* length of the network they are in */
};

struct network_spec {
	struct source src;
	struct source gateway_src;
	const char *bridge; /* NULL: `libvirt` is set */
	const char *libvirt; /* name of a libvirt network */
	struct address_range *ranges; /* at most one a family */
	size_t range_count;
	struct ip gateways[2]; /* IPv4, IPv6; family 0: none */
};

struct template_spec {
	struct source src;
	const char *name;
	const char *image; /* absolute path, or NULL */
	const char *
		kernel; /* absolute paths, or NULL (lxc: kernel and image NULL) */
	const char *initrd;
	const char *cmdline;
	const char *cloud_init; /* absolute path of user-data, or NULL */
	uint64_t memory;
	uint32_t vcpus;
	struct network_spec network;
	/*
	 * 16 hex digits over everything above but the name (renaming a template
	 * changes no VM); the VM's metadata carries it.  Of files it covers the
	 * path, not what is in them.
	 */
	char hash[17];
};

struct port_spec {
	struct source src;
	uint16_t listen;
	uint16_t target;
};

struct vip_spec {
	struct source src;
	struct ip address;
};

struct backend_spec {
	struct source src;
	const char *name; /* as written, or the first address */
	struct ip addresses[2]; /* IPv4, IPv6; family 0: none */
	uint16_t port; /* 0: the port's target */
	uint32_t weight; /* 0: takes no new flows; 1 is the default */
	enum backend_state state;
	bool has_mac;
	uint8_t mac[6];
};

struct pool_spec {
	struct source src;
	const struct template_spec *template; /* NULL: the service has no pool */
	const struct hypervisor_spec *hypervisor;
	uint32_t min;
	uint32_t max;
	uint32_t weight;
};

struct bytes {
	const uint8_t *data;
	size_t len;
};

struct health_spec {
	struct source src;
	enum health_type type;
	const char *path; /* http, https; default "/" */
	const char *host; /* Host header, name for TLS; NULL: the address */
	uint16_t port; /* 0: the backend's port for the first declared port */
	uint64_t interval;
	uint64_t timeout;
	uint32_t rise;
	uint32_t fall;
	uint16_t *expect; /* status codes of http, https; default {200} */
	size_t expect_count;
	enum verify verify; /* https */
	const char *ca_file; /* VERIFY_FILE: absolute path */
	const char *name; /* dns: what is asked for */
	enum dns_record record;
	uint16_t rcodes; /* dns: bit n: code n passes; default 1: no error */
	struct ip *answers; /* dns: one of them must be there; none: any */
	size_t answer_count;
	struct bytes send; /* udp */
	struct bytes *wanted; /* udp: one of them must be in the answer */
	size_t wanted_count;
	const char **command; /* argv; the first is an absolute path */
	size_t command_count;
	enum panic_policy panic; /* default: fail_closed beside a sorry */
};

struct signal_spec {
	struct source src;
	enum metric metric;
	enum signal_kind kind;
	double target;
	double high;
	double low;
	uint64_t hold; /* `for` */
};

struct direction_spec { /* scaling up, or scaling down */
	uint64_t window;
	uint64_t cooldown;
	uint32_t step;
};

struct scaling_spec {
	struct source src; /* line 0: no scaling block, count stays at min */
	uint64_t interval;
	struct signal_spec *signals;
	size_t signal_count;
	double tolerance; /* percent */
	struct direction_spec up;
	struct direction_spec down;
	uint64_t warmup;
	enum missing_policy missing;
};

/* Why a service isn't what the file says of it, but what it was before. */
enum kept_why {
	KEPT_NOT, /* it is */
	KEPT_PROTECTED, /* its block is gone */
	KEPT_PAUSED,
	KEPT_LEAVING, /* its block is gone, and not all its VMs may go yet */
};

struct service_spec {
	struct source src;
	const char *name;
	struct vip_spec *vips;
	size_t vip_count;
	enum protocol protocol;
	struct port_spec *ports;
	size_t port_count;
	enum algorithm algorithm;
	enum forwarding forwarding;
	enum udp_mode udp; /* protocol udp */
	uint64_t affinity_timeout; /* source_hash */
	uint64_t idle_timeout;
	uint64_t drain;
	uint64_t drain_quiet; /* 0: off */
	bool protect; /* not removed with its block */
	bool paused; /* stays exactly as it is */
	enum kept_why kept;
	bool undeclared; /* it has no block in the file */
	struct backend_spec *backends;
	size_t backend_count;
	/* Serves while no other can; not probed.  name NULL: there is none. */
	struct backend_spec sorry;
	struct pool_spec pool;
	struct health_spec health;
	struct scaling_spec scaling;
};

/* A service that has to stay and can't, beside what the file declares. */
struct conflict {
	const char *service;
	enum kept_why kept;
	const char *why;
};

struct spec {
	struct arena *arena;
	const char *path; /* as given with -f */
	char sha256[65]; /* of the bytes of all files, in name order */
	struct node_spec node;
	struct hypervisor_spec *hypervisors;
	size_t hypervisor_count;
	struct safety_spec safety;
	uint64_t history_retention;
	struct template_spec *templates;
	size_t template_count;
	struct service_spec *services; /* sorted by name */
	size_t service_count;
	/* Of keep.h: what kept services point into; freed with this. */
	struct spec *kept, *next;
	struct conflict *conflicts;
	size_t conflict_count;
	/* What it shares with others that were read from the same files. */
	struct piece **pieces;
	size_t piece_count;
};

/* What the checks allow; also what `check` says when it is exceeded. */
#define SPEC_MAX_BYTES (16u << 20)
#define SPEC_MAX_DEPTH 32
#define SPEC_MAX_SERVICES 4095 /* ids are 12 bits, and 0 is "none" */
#define SPEC_MAX_HYPERVISORS 64
#define SPEC_MAX_SERVICE_PORTS 4096
#define SPEC_MAX_BACKENDS 32000
/* Service names: [a-z0-9]([a-z0-9-]*[a-z0-9])?, so that "<name>-<index>" fits. */
#define SPEC_MAX_NAME 48
#define SPEC_SORRY_NAME "sorry"

void spec_free(struct spec *s); /* NULL is fine */

/* Number of VIP x port triples of a service. */
size_t service_vip_ports(const struct service_spec *s);
/* Declared maximum of backends: fixed ones plus pool.max. */
size_t service_max_backends(const struct service_spec *s);
/* Fixed backends and the sorry: 0 to service_fixed_count() - 1. */
size_t service_fixed_count(const struct service_spec *s);
const struct backend_spec *service_fixed(const struct service_spec *s,
					 size_t i);
const struct service_spec *spec_find_service(const struct spec *s,
					     const char *name);
/* Has every flow to be remembered, so that no slot comes to rest? */
bool service_tracks(const struct service_spec *s);
const char *algorithm_name(enum algorithm a);
const char *forwarding_name(enum forwarding f);
const char *protocol_name(enum protocol p);
const char *metric_name(enum metric m); /* as in the file */

#endif
