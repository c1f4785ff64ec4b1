/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Services: VIPs, ports, backends, pool. */
#include "desired/parse.h"

#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/names.h"
#include "desired/value.h"

/*
 * A service while it is read: its pool still has names, not pointers, and
 * what depends on the protocol waits until that is known.
 */
struct service_reading {
	struct service_spec s;
	struct pool_ref ref;
	const struct node *health, *scaling, *udp, *affinity;
};

static void read_service_name(struct reader *r, const struct key *k,
			      const struct node *v, void *field)
{
	const char *s = expect_text(r, k->name, v);
	size_t len;

	if (!s)
		return;
	len = strlen(s);
	if (len > SPEC_MAX_NAME)
		complain(r->diags, &v->src, NULL,
			 "the name is longer than %d characters",
			 SPEC_MAX_NAME);
	else if (s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")] ||
		 s[0] == '-' || s[len - 1] == '-')
		complain(
			r->diags, &v->src,
			"small letters, digits and -, not - at either end: VMs are called <service>-<number>",
			"\"%.64s\" can't be a service's name", s);
	else
		*(const char **)field = arena_dup(r->arena, s);
}

static void read_vips(struct reader *r, const struct key *k,
		      const struct node *v, void *field)
{
	struct service_spec *s = field;

	if (!expect_members(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		struct vip_spec vip = { .src = v->items[i].src };

		if (read_address(r, k->name, &v->items[i], &vip.address))
			*ARENA_PUSH(r->arena, s->vips, s->vip_count) = vip;
	}
}

static const struct key port_keys[] = {
	KEY("listen", read_port, offsetof(struct port_spec, listen),
	    .required = true, .help = "Where clients connect"),
	KEY("target", read_port, offsetof(struct port_spec, target),
	    .help = "Where backends listen; the same where it is left out"),
};
KEY_TABLE(port_table, "a port", port_keys);

static void read_ports(struct reader *r, const struct key *k,
		       const struct node *v, void *field)
{
	struct service_spec *s = field;

	if (!expect_members(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		const struct node *item = &v->items[i];
		struct port_spec p = { .src = item->src };

		if (item->kind == NODE_SCALAR)
			read_port(r, k, item, &p.listen);
		else
			read_mapping(r, &port_table, item, &p);
		if (!p.target)
			p.target = p.listen;
		if (p.listen)
			*ARENA_PUSH(r->arena, s->ports, s->port_count) = p;
	}
}

static const struct choice off_names[] = { { "off", 0 }, { NULL, 0 } };

static void read_drain_quiet(struct reader *r, const struct key *k,
			     const struct node *v, void *field)
{
	if (v->kind == NODE_SCALAR && !strcmp(v->text, "off"))
		*(uint64_t *)field = 0;
	else
		read_duration(r, k, v, field);
}

/* backends */

static void read_one_address(struct reader *r, const struct key *k,
			     const struct node *v, void *field)
{
	struct ip *pair = field, a;

	if (read_address(r, k->name, v, &a))
		pair[family_index(&a)] = a;
}

static void read_mac(struct reader *r, const struct key *k,
		     const struct node *v, void *field)
{
	struct backend_spec *b = field;
	const char *s = expect_text(r, k->name, v);

	if (!s)
		return;
	if (value_mac(s, b->mac) && !(b->mac[0] & 1))
		b->has_mac = true;
	else
		complain(r->diags, &v->src, "such as \"52:54:00:00:00:05\"",
			 "\"%.64s\" is not the hardware address of a machine",
			 s);
}

static const struct key backend_keys[] = {
	KEY("name", read_name, offsetof(struct backend_spec, name),
	    .help = "Its address where it is left out"),
	KEY("address", read_one_address,
	    offsetof(struct backend_spec, addresses), .form = FORM_ADDRESS,
	    .help = "The one it has"),
	KEY("addresses", read_address_pair,
	    offsetof(struct backend_spec, addresses), .list = true, .least = 1,
	    .most = 2, .form = FORM_ADDRESS,
	    .help = "One IPv4 and one IPv6 address at most"),
	KEY("port", read_port, offsetof(struct backend_spec, port),
	    .help = "Its own target port, in a service of one port"),
	KEY("weight", read_count, offsetof(struct backend_spec, weight),
	    .min = 0, .max = 1000,
	    .help = "Its share of new connections; 0: none", .fallback = "1"),
	KEY("state", read_choice, offsetof(struct backend_spec, state),
	    .choices = state_names, .help = "drain: no new connections",
	    .fallback = "active"),
	KEY("mac", read_mac, 0, .form = FORM_MAC,
	    .help = "Hardware address; found by itself where it is left out"),
	KEY_LATER("max_connections", NULL),
};
KEY_TABLE_RULES(
	backend_table, "a backend", backend_keys,
	"{\"oneOf\": [{\"required\": [\"address\"]}, {\"required\": [\"addresses\"]}]}");

static const struct key sorry_keys[] = {
	KEY("address", read_one_address,
	    offsetof(struct backend_spec, addresses), .form = FORM_ADDRESS,
	    .help = "The one it has"),
	KEY("addresses", read_address_pair,
	    offsetof(struct backend_spec, addresses), .list = true, .least = 1,
	    .most = 2, .form = FORM_ADDRESS,
	    .help = "One IPv4 and one IPv6 address at most"),
	KEY("port", read_port, offsetof(struct backend_spec, port),
	    .help = "Its own target port, in a service of one port"),
	KEY("mac", read_mac, 0, .form = FORM_MAC,
	    .help = "Hardware address; found by itself where it is left out"),
};
KEY_TABLE_RULES(
	sorry_table, "sorry", sorry_keys,
	"{\"oneOf\": [{\"required\": [\"address\"]}, {\"required\": [\"addresses\"]}]}");

static bool read_backend(struct reader *r, const struct key_table *table,
			 const struct node *n, struct backend_spec *b)
{
	char text[IP_STRLEN];
	bool one = node_get(n, "address"), list = node_get(n, "addresses");

	b->src = n->src;
	b->weight = 1;
	if (!read_mapping(r, table, n, b))
		return false;
	if (one == list)
		complain(
			r->diags, &n->src,
			"address: 10.77.0.5, or addresses: [10.77.0.5, \"fd00:77::5\"]",
			"%s needs either \"address\" or \"addresses\"",
			table->what);
	if (!b->addresses[0].family && !b->addresses[1].family)
		return false;
	if (!b->name) {
		ip_format(&b->addresses[!b->addresses[0].family], text);
		b->name = arena_dup(r->arena, text);
	}
	return true;
}

static void read_backends(struct reader *r, const struct key *k,
			  const struct node *v, void *field)
{
	struct service_spec *s = field;

	if (!expect_list(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count && !complain_full(r->diags); i++) {
		struct backend_spec b = { 0 };

		if (read_backend(r, &backend_table, &v->items[i], &b))
			*ARENA_PUSH(r->arena, s->backends, s->backend_count) =
				b;
	}
}

static void read_sorry(struct reader *r, const struct key *k,
		       const struct node *v, void *field)
{
	struct backend_spec b = { .name = SPEC_SORRY_NAME };

	(void)k;
	if (read_backend(r, &sorry_table, v, &b))
		*(struct backend_spec *)field = b;
}

/* pool */

static void read_template_ref(struct reader *r, const struct key *k,
			      const struct node *v, void *field)
{
	struct service_reading *sr = field;

	read_text(r, k, v, &sr->ref.template);
	sr->ref.template_src = v->src;
}

static void read_hypervisor_ref(struct reader *r, const struct key *k,
				const struct node *v, void *field)
{
	struct service_reading *sr = field;

	if (!expect_members(r, k->name, v))
		return;
	if (v->count > 1)
		complain(
			r->diags, &v->items[1].src, "name one hypervisor",
			"more than one hypervisor a pool is not supported yet");
	read_text(r, k, &v->items[0], &sr->ref.hypervisor);
	sr->ref.hypervisor_src = v->items[0].src;
}

static const struct key pool_keys[] = {
	KEY("template", read_template_ref, 0, .required = true,
	    .form = FORM_TEXT,
	    .help = "Name of the template that its VMs are made from"),
	KEY("min", read_count, offsetof(struct service_reading, s.pool.min),
	    .required = true, .max = SPEC_MAX_BACKENDS,
	    .help = "VMs at least; fixed backends don't count"),
	KEY("max", read_count, offsetof(struct service_reading, s.pool.max),
	    .required = true, .min = 1, .max = SPEC_MAX_BACKENDS,
	    .help = "VMs at most"),
	KEY_LATER("warm", NULL),
	KEY("hypervisors", read_hypervisor_ref, 0, .list = true, .least = 1,
	    .most = 1, .form = FORM_TEXT,
	    .help = "Name of the hypervisor that runs them; the first one declared where it is left out"),
	KEY("weight", read_count,
	    offsetof(struct service_reading, s.pool.weight), .min = 0,
	    .max = 1000, .help = "Of each VM", .fallback = "1"),
};
KEY_TABLE(pool_table, "a pool", pool_keys);

static void read_pool(struct reader *r, const struct key *k,
		      const struct node *v, void *field)
{
	struct service_reading *sr = field;

	(void)k;
	sr->s.pool.src = v->src;
	sr->s.pool.weight = 1;
	if (read_mapping(r, &pool_table, v, sr) &&
	    sr->s.pool.min > sr->s.pool.max && sr->s.pool.max)
		complain(r->diags, &v->src, NULL,
			 "the pool's min (%u) is larger than its max (%u)",
			 sr->s.pool.min, sr->s.pool.max);
}

/* services */

static const struct key affinity_keys[] = {
	KEY("timeout", read_duration,
	    offsetof(struct service_spec, affinity_timeout), .min = NS_SECOND,
	    .max = NS_DAY, .help = "If it comes back within so long",
	    .fallback = "300s"),
};
KEY_TABLE(affinity_table, "affinity", affinity_keys);

#define FIELD(name) offsetof(struct service_reading, s.name)
static const struct key service_keys[] = {
	KEY("name", read_service_name, FIELD(name), .required = true,
	    .form = FORM_SERVICE_NAME,
	    .help = "Small letters, digits and -; its VMs are called NAME-1, NAME-2..."),
	KEY("vips", read_vips, 0, .required = true, .list = true, .least = 1,
	    .form = FORM_ADDRESS, .help = "Addresses that clients connect to"),
	KEY("protocol", read_choice, FIELD(protocol), .choices = protocol_names,
	    .help = "Of its packets", .fallback = "tcp"),
	KEY("ports", read_ports, 0, .required = true, .list = true, .least = 1,
	    .form = FORM_PORT, .inner = &port_table,
	    .help = "A port, or {listen: 443, target: 8443}"),
	KEY("algorithm", read_choice, FIELD(algorithm),
	    .choices = algorithm_names,
	    .help = "Who gets a new connection; may be changed live",
	    .fallback = "maglev"),
	KEY("forwarding", read_choice, FIELD(forwarding),
	    .choices = forwarding_names,
	    .help = "nat: backends answer through this machine; dsr, ipip, gue: straight to the client",
	    .fallback = "nat"),
	KEY("udp", read_keep, offsetof(struct service_reading, udp),
	    .choices = udp_names,
	    .help = "stateless: every datagram on its own; sticky: a flow stays until it is silent for idle_timeout",
	    .fallback = "stateless"),
	KEY("affinity", read_keep, offsetof(struct service_reading, affinity),
	    .inner = &affinity_table,
	    .help = "With source_hash: a client keeps its backend across changes"),
	KEY("idle_timeout", read_duration, FIELD(idle_timeout),
	    .min = NS_SECOND, .max = NS_DAY,
	    .help = "A connection may be silent so long; tcp 15m, udp 60s where it is left out"),
	KEY("drain", read_duration, FIELD(drain), .max = NS_DAY,
	    .help = "What a leaving backend's connections have left",
	    .fallback = "60s"),
	KEY("drain_quiet", read_drain_quiet, FIELD(drain_quiet),
	    .min = 100 * NS_MS, .max = NS_HOUR, .form = FORM_DURATION,
	    .choices = off_names,
	    .help = "A leaving backend that is silent so long is done",
	    .fallback = "5s"),
	KEY_LATER("slow_start", NULL),
	KEY("protect", read_bool, FIELD(protect),
	    .help = "Without its block, too, it stays as it is, until "
		    "`unprotect`",
	    .fallback = "false"),
	KEY("paused", read_bool, FIELD(paused),
	    .help = "It stays as it is: changes of it wait; health goes on",
	    .fallback = "false"),
	KEY("backends", read_backends, 0, .list = true, .inner = &backend_table,
	    .help = "Fixed ones, beside a pool or instead of one"),
	KEY("sorry", read_sorry, FIELD(sorry), .inner = &sorry_table,
	    .help = "Gets the traffic while no other backend can serve; not probed"),
	KEY("pool", read_pool, 0, .inner = &pool_table,
	    .help = "VMs of ours, made from a template"),
	KEY("health", read_keep, offsetof(struct service_reading, health),
	    .inner = &health_table,
	    .help = "How backends are probed; a tcp connection every 2 s where it is left out"),
	KEY_LATER("weights", NULL),
	KEY("scaling", read_keep, offsetof(struct service_reading, scaling),
	    .inner = &scaling_table,
	    .help = "When the pool grows and shrinks; it stays at min where it is left out"),
	KEY_LATER("update", NULL),
};
KEY_TABLE_SHARED(service_table, "a service", service_keys);

static void read_udp(struct reader *r, struct service_reading *sr)
{
	int mode = UDP_STATELESS;

	if (!sr->udp)
		return;
	if (sr->s.protocol != PROTOCOL_UDP)
		complain(r->diags, &sr->udp->src,
			 "remove it, or set \"protocol: udp\"",
			 "\"udp\" is for udp services");
	else
		read_choice(r, table_key(&service_table, "udp"), sr->udp,
			    &mode);
	sr->s.udp = (enum udp_mode)mode;
}

/* Refused where it would say nothing, if what says so could be read. */
static void read_affinity(struct reader *r, struct service_reading *sr,
			  size_t before)
{
	struct service_spec *s = &sr->s;

	read_mapping(r, &affinity_table, sr->affinity, s);
	if (r->diags->errors != before)
		return;
	if (s->algorithm != ALGORITHM_SOURCE_HASH)
		complain(r->diags, &sr->affinity->src,
			 "remove it, or set \"algorithm: source_hash\"",
			 "%s knows no clients: \"affinity\" is for source_hash",
			 algorithm_name(s->algorithm));
	else if (s->protocol == PROTOCOL_UDP && s->udp == UDP_STATELESS)
		complain(
			r->diags, &sr->affinity->src,
			"remove it, or set \"udp: sticky\"",
			"where datagrams are stateless nothing is remembered of a client");
}

/* before: errors there were when the service began. */
static void read_policies(struct reader *r, struct service_reading *sr,
			  size_t before)
{
	struct service_spec *s = &sr->s;

	if (!s->idle_timeout)
		s->idle_timeout = s->protocol == PROTOCOL_UDP ? NS_MINUTE
							      : 15 * NS_MINUTE;
	health_defaults(r, s->protocol, &s->health);
	if (s->sorry.name)
		s->health.panic = PANIC_FAIL_CLOSED;
	if (sr->health)
		health_read(r, sr->health, s->protocol, &s->health);
	if (sr->scaling)
		scaling_read(r, sr->scaling, &s->scaling);
	read_udp(r, sr);
	if (sr->affinity)
		read_affinity(r, sr, before);
}

static void read_service(struct reader *r, const struct node *n, struct spec *s)
{
	struct service_reading sr = {
		.s = { .src = n->src,
		       .affinity_timeout = 5 * NS_MINUTE,
		       .drain = NS_MINUTE,
		       .drain_quiet = 5 * NS_SECOND },
	};
	size_t before = r->diags->errors;

	if (!read_mapping(r, &service_table, n, &sr))
		return;
	read_policies(r, &sr, before);
	if (!sr.s.name)
		return;
	*ARENA_PUSH(r->arena, s->services, s->service_count) = sr.s;
	*ARENA_PUSH(r->arena, r->refs, r->ref_count) = sr.ref;
}

void read_services(struct reader *r, const struct key *k, const struct node *v,
		   void *field)
{
	if (!expect_list(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count && !complain_full(r->diags); i++)
		read_service(r, &v->items[i], field);
}
