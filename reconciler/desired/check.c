/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The spec held against itself: names, limits, and what keys of one object
 * say about each other.  Everything about addresses is in check_address.c.
 * Never quadratic: whatever is compared across objects is sorted first.
 */
#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/parse.h"

/* names */

struct named {
	const char *name;
	const struct source *src;
};

static int compare_places(const struct source *a, const struct source *b)
{
	int order = strcmp(a->file, b->file);

	if (!order)
		order = a->line - b->line;
	return order ? order : a->column - b->column;
}

static int compare_named(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : compare_places(x->src, y->src);
}

/* As names mostly stand, and then none is there twice. */
static bool ascend(const struct named *names, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (strcmp(names[i - 1].name, names[i].name) >= 0)
			return false;
	return true;
}

/* Sorts names; every one that repeats another is complained about. */
static void check_names(struct named *names, size_t count, const char *what,
			struct diag_list *diags)
{
	if (ascend(names, count))
		return;
	qsort(names, count, sizeof(*names), compare_named);
	for (size_t i = 1; i < count; i++)
		if (!strcmp(names[i].name, names[i - 1].name))
			complain(
				diags, names[i].src, "rename one of them",
				"duplicate %s \"%s\"; it is declared at " PLACE_FMT
				" already",
				what, names[i].name,
				PLACE_ARG(names[i - 1].src));
}

/* One array of anything that has a name and a src. */
#define CHECK_NAMES(items, count, what, diags)                              \
	do {                                                                \
		struct named *names_ = mem_array((count), sizeof(*names_)); \
		for (size_t i_ = 0; i_ < (count); i_++)                     \
			names_[i_] = (struct named){ (items)[i_].name,      \
						     &(items)[i_].src };    \
		check_names(names_, (count), (what), (diags));              \
		free(names_);                                               \
	} while (0)

static void check_all_names(const struct spec *s, struct diag_list *diags)
{
	CHECK_NAMES(s->node.interfaces, s->node.interface_count, "interface",
		    diags);
	CHECK_NAMES(s->hypervisors, s->hypervisor_count, "hypervisor", diags);
	CHECK_NAMES(s->templates, s->template_count, "template", diags);
	CHECK_NAMES(s->services, s->service_count, "service", diags);
	for (size_t i = 0; i < s->service_count; i++)
		CHECK_NAMES(s->services[i].backends,
			    s->services[i].backend_count, "backend", diags);
}

/* one service */

/* VMs are called <service>-<number>: no fixed backend may look like one. */
static bool looks_like_vm(const struct service_spec *s, const char *name)
{
	size_t len = strlen(s->name);
	const char *digits = name + len + 1;

	return !strncmp(name, s->name, len) && name[len] == '-' && *digits &&
	       digits[strspn(digits, "0123456789")] == '\0';
}

static void check_backend(const struct service_spec *s,
			  const struct backend_spec *b, struct diag_list *diags)
{
	if (b->port && s->forwarding != FORWARDING_NAT)
		complain(diags, &b->src, "remove it, or use nat",
			 "with %s a backend can't have its own port",
			 forwarding_name(s->forwarding));
	else if (b->port && s->port_count != 1)
		complain(
			diags, &b->src,
			"split the service, or use \"target\" of the ports",
			"a backend can have its own port only in a service of one port");
	if (b != &s->sorry && s->sorry.name &&
	    !strcmp(b->name, SPEC_SORRY_NAME))
		complain(diags, &b->src, "give the backend another name",
			 "\"%s\" is the name of the service's sorry backend",
			 b->name);
	if (s->pool.template && looks_like_vm(s, b->name))
		complain(diags, &b->src, "give the backend another name",
			 "\"%s\" is a name for a VM of this service's pool",
			 b->name);
}

/* Only nat rewrites ports: the others' packets arrive as they were sent. */
static void check_kept_ports(const struct service_spec *s,
			     struct diag_list *diags)
{
	for (size_t i = 0; i < s->port_count; i++)
		if (s->ports[i].target != s->ports[i].listen)
			complain(diags, &s->ports[i].src,
				 "use the same port, or \"forwarding: nat\"",
				 "%s can't change the port %u to %u",
				 forwarding_name(s->forwarding),
				 s->ports[i].listen, s->ports[i].target);
}

/* Connections are recounted from what is remembered of them. */
static void check_counted(const struct service_spec *s, struct diag_list *diags)
{
	if (s->algorithm == ALGORITHM_LEAST_CONNECTIONS &&
	    s->protocol == PROTOCOL_UDP && s->udp == UDP_STATELESS)
		complain(
			diags, &s->src,
			"set \"udp: sticky\", or another algorithm",
			"least_connections has nothing to count where datagrams are stateless");
}

static void check_boot(const struct service_spec *s, struct diag_list *diags)
{
	const struct template_spec *t = s->pool.template;
	const struct hypervisor_spec *h = s->pool.hypervisor;

	if (t && h && !t->image && !t->kernel &&
	    strncmp(h->uri, "lxc:", 4) != 0)
		complain(
			diags, &t->src,
			"name an image, or a kernel with its initrd",
			"the template \"%s\" has nothing to boot on hypervisor \"%s\"",
			t->name, h->name);
}

static void check_service(const struct service_spec *s, struct diag_list *diags)
{
	if (s->scaling.src.line && !s->pool.template)
		complain(diags, &s->scaling.src,
			 "declare a pool, or remove \"scaling\"",
			 "scaling without a pool has nothing to scale");
	if (!s->backend_count && !s->pool.template)
		diag_add(
			diags, SEVERITY_WARNING, &s->src,
			"declare \"backends\" or a \"pool\"",
			"the service \"%s\" has no backends: its packets are dropped",
			s->name);
	if (s->forwarding != FORWARDING_NAT)
		check_kept_ports(s, diags);
	check_counted(s, diags);
	for (size_t i = 0; i < service_fixed_count(s); i++)
		check_backend(s, service_fixed(s, i), diags);
	check_boot(s, diags);
}

/* limits */

static void check_limits(const struct spec *s, struct diag_list *diags)
{
	size_t ports = 0, backends = 0;
	const struct source *src = NULL;

	for (size_t i = 0; i < s->service_count; i++) {
		ports += service_vip_ports(&s->services[i]);
		backends += service_max_backends(&s->services[i]) +
			    (s->services[i].sorry.name != NULL);
		src = &s->services[i].src;
	}
	if (s->service_count > SPEC_MAX_SERVICES)
		complain(diags, src, NULL, "%zu services; at most %u can be",
			 s->service_count, SPEC_MAX_SERVICES);
	if (ports > SPEC_MAX_SERVICE_PORTS)
		complain(diags, src, "a VIP with a port counts as one",
			 "%zu service ports; at most %u can be", ports,
			 SPEC_MAX_SERVICE_PORTS);
	if (backends > SPEC_MAX_BACKENDS)
		complain(diags, src, "fixed ones and every pool's max count",
			 "%zu backends; at most %u can be", backends,
			 SPEC_MAX_BACKENDS);
}

/* Pools of one hypervisor together against what it may run. */
static void check_capacity(const struct spec *s,
			   const struct hypervisor_spec *h,
			   struct diag_list *diags)
{
	uint64_t min = 0, max = 0;

	for (size_t i = 0; i < s->service_count; i++) {
		const struct pool_spec *p = &s->services[i].pool;

		if (p->hypervisor != h)
			continue;
		min += p->min;
		max += p->max;
	}
	if (!h->max_vms)
		return;
	if (min > h->max_vms)
		complain(
			diags, &h->src, "raise max_vms or lower a pool's min",
			"the pools need at least %llu VMs; hypervisor \"%s\" may run %u",
			(unsigned long long)min, h->name, h->max_vms);
	else if (max > h->max_vms)
		diag_add(
			diags, SEVERITY_WARNING, &h->src, NULL,
			"the pools may ask for %llu VMs; hypervisor \"%s\" may run %u",
			(unsigned long long)max, h->name, h->max_vms);
}

void check_spec(const struct spec *s, bool complete, struct diag_list *diags)
{
	check_all_names(s, diags);
	check_limits(s, diags);
	if (!complete)
		return;
	for (size_t i = 0; i < s->service_count; i++)
		check_service(&s->services[i], diags);
	for (size_t i = 0; i < s->hypervisor_count; i++)
		check_capacity(s, &s->hypervisors[i], diags);
}
