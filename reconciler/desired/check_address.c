/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses and ports of the whole file: every packet and every answer must
 * have one meaning, and every VM an address of its own.
 *
 * nat answers are told apart by (backend address, port, protocol).  VMs of a
 * pool get addresses of the template's range one by one, and no fixed backend
 * may lie in a range, so across services only fixed backends can collide;
 * within a service its VIPs and ports can, whatever the backends are.
 */
#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/parse.h"

/* A fixed backend's address. */
struct entry {
	const struct ip *address;
	const struct service_spec *service;
	const struct backend_spec *backend;
};

struct range {
	const struct address_range *range;
	const struct template_spec *template;
};

struct tables {
	const struct spec *spec;
	struct diag_list *diags;
	struct entry *entries; /* by address, protocol, service, port */
	size_t entry_count;
	struct range *ranges; /* by first address */
	size_t range_count;
};

static int order_of(int64_t a, int64_t b)
{
	return a < b ? -1 : a > b;
}

/* Duplicate VIP, port and protocol */

struct triple {
	const struct service_spec *service;
	const struct vip_spec *vip;
	const struct port_spec *port;
};

static int compare_triple_keys(const struct triple *a, const struct triple *b)
{
	int order = ip_compare(&a->vip->address, &b->vip->address);

	if (!order)
		order = order_of(a->port->listen, b->port->listen);
	if (!order)
		order = order_of(a->service->protocol, b->service->protocol);
	return order;
}

static int compare_sources(const struct source *a, const struct source *b)
{
	int order = strcmp(a->file, b->file);

	if (!order)
		order = order_of(a->line, b->line);
	return order ? order : order_of(a->column, b->column);
}

static int compare_triples(const void *pa, const void *pb)
{
	const struct triple *a = pa, *b = pb;
	int order = compare_triple_keys(a, b);

	if (!order)
		order = compare_sources(&a->port->src, &b->port->src);
	return order ? order : compare_sources(&a->vip->src, &b->vip->src);
}

static size_t fill_triples(const struct spec *s, struct triple *t)
{
	size_t n = 0;

	for (size_t i = 0; i < s->service_count; i++) {
		const struct service_spec *v = &s->services[i];

		for (size_t k = 0; k < service_vip_ports(v); k++)
			t[n++] = (struct triple){
				v,
				&v->vips[k / v->port_count],
				&v->ports[k % v->port_count],
			};
	}
	return n;
}

static void complain_triple(const struct triple *old, const struct triple *new,
			    struct diag_list *diags)
{
	char text[IP_STRLEN];
	bool same_port = old->port == new->port;

	ip_format(&new->vip->address, text);
	complain(diags, same_port ? &new->vip->src : &new->port->src,
		 "a VIP, port and protocol belong to one service",
		 "%s port %u/%s is declared at " PLACE_FMT
		 " already (service \"%s\")",
		 text, new->port->listen, protocol_name(new->service->protocol),
		 PLACE_ARG(same_port ? &old->vip->src : &old->port->src),
		 old->service->name);
}

static void check_triples(const struct tables *t)
{
	const struct spec *s = t->spec;
	struct triple *all;
	size_t count = 0;

	for (size_t i = 0; i < s->service_count; i++)
		count += service_vip_ports(&s->services[i]);
	if (count > SPEC_MAX_SERVICE_PORTS)
		return; /* an error already */
	all = mem_array(count, sizeof(*all));
	fill_triples(s, all);
	qsort(all, count, sizeof(*all), compare_triples);
	for (size_t i = 1; i < count; i++)
		if (!compare_triple_keys(&all[i - 1], &all[i]))
			complain_triple(&all[i - 1], &all[i], t->diags);
	free(all);
}

/* Address ranges of templates */

static int compare_ranges(const void *pa, const void *pb)
{
	const struct range *a = pa, *b = pb;
	int order = ip_compare(&a->range->first, &b->range->first);

	return order ? order : compare_sources(&a->range->src, &b->range->src);
}

static void fill_ranges(struct tables *t)
{
	const struct spec *s = t->spec;
	size_t count = 0;

	for (size_t i = 0; i < s->template_count; i++)
		count += s->templates[i].network.range_count;
	t->ranges = mem_array(count, sizeof(*t->ranges));
	for (size_t i = 0; i < s->template_count; i++) {
		const struct template_spec *m = &s->templates[i];

		for (size_t k = 0; k < m->network.range_count; k++)
			t->ranges[t->range_count++] =
				(struct range){ &m->network.ranges[k], m };
	}
	qsort(t->ranges, count, sizeof(*t->ranges), compare_ranges);
}

static void check_overlaps(const struct tables *t)
{
	const struct range *widest = t->ranges;

	for (size_t i = 1; i < t->range_count; i++) {
		const struct range *r = &t->ranges[i];

		if (ip_compare(&r->range->first, &widest->range->last) <= 0)
			complain(
				t->diags, &r->range->src,
				"give every template addresses of its own, or let services share one template",
				"the range overlaps that of template \"%s\" at " PLACE_FMT,
				widest->template->name,
				PLACE_ARG(&widest->range->src));
		if (ip_compare(&r->range->last, &widest->range->last) > 0)
			widest = r;
	}
}

/* The range that holds an address, or NULL; ranges don't overlap. */
static const struct range *find_range(const struct tables *t,
				      const struct ip *a)
{
	size_t low = 0, high = t->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ip_compare(&t->ranges[middle].range->first, a) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || ip_compare(a, &t->ranges[low - 1].range->last) > 0)
		return NULL;
	return &t->ranges[low - 1];
}

static void refuse_in_range(const struct tables *t, const struct source *src,
			    const struct ip *a, const char *what)
{
	const struct range *r = a->family ? find_range(t, a) : NULL;
	char text[IP_STRLEN];

	if (!r)
		return;
	ip_format(a, text);
	complain(t->diags, src,
		 "the range is for VMs of pools: move one of them",
		 "the %s %s lies in the range of template \"%s\" at " PLACE_FMT,
		 what, text, r->template->name, PLACE_ARG(&r->range->src));
}

static const struct address_range *
range_of_family(const struct template_spec *m, int family)
{
	for (size_t i = 0; i < m->network.range_count; i++)
		if (m->network.ranges[i].first.family == family)
			return &m->network.ranges[i];
	return NULL;
}

static void check_gateway(const struct tables *t, const struct template_spec *m,
			  const struct ip *gateway)
{
	const struct address_range *own;
	char text[IP_STRLEN];

	if (!gateway->family)
		return;
	refuse_in_range(t, &m->network.gateway_src, gateway, "gateway");
	own = range_of_family(m, gateway->family);
	if (own && ip_in_prefix(gateway, &own->first, own->prefix))
		return;
	complain(
		t->diags, &m->network.gateway_src,
		"a gateway must be reachable without a gateway",
		"the gateway %s is not in the network of the template's addresses",
		ip_format(gateway, text));
}

static void check_ranges(const struct tables *t)
{
	const struct spec *s = t->spec;

	check_overlaps(t);
	for (size_t i = 0; i < s->template_count; i++)
		for (int family = 0; family < 2; family++)
			check_gateway(
				t, &s->templates[i],
				&s->templates[i].network.gateways[family]);
	for (size_t i = 0; i < s->service_count; i++)
		for (size_t k = 0; k < s->services[i].vip_count; k++)
			refuse_in_range(t, &s->services[i].vips[k].src,
					&s->services[i].vips[k].address, "VIP");
	for (size_t i = 0; i < t->entry_count; i++)
		refuse_in_range(t, &t->entries[i].backend->src,
				t->entries[i].address, "backend");
}

/* Fixed backends */

/* 0: all targets of the service. */
static uint16_t own_port(const struct entry *e)
{
	if (e->backend->port || e->service->port_count != 1)
		return e->backend->port;
	return e->service->ports[0].target;
}

/* The same address, and a protocol: what can be mistaken for one another. */
static int compare_entry_keys(const struct entry *a, const struct entry *b)
{
	int order = ip_compare(a->address, b->address);

	return order ? order
		     : order_of(a->service->protocol, b->service->protocol);
}

static int compare_entries(const void *pa, const void *pb)
{
	const struct entry *a = pa, *b = pb;
	int order = compare_entry_keys(a, b);

	if (!order)
		order = strcmp(a->service->name, b->service->name);
	if (!order)
		order = order_of(own_port(a), own_port(b));
	if (!order)
		order = compare_sources(&a->backend->src, &b->backend->src);
	return order;
}

static void fill_entries(struct tables *t)
{
	const struct spec *s = t->spec;
	size_t count = 0;

	for (size_t i = 0; i < s->service_count; i++)
		count += service_fixed_count(&s->services[i]) * 2;
	t->entries = mem_array(count, sizeof(*t->entries));
	for (size_t i = 0; i < s->service_count; i++) {
		const struct service_spec *v = &s->services[i];

		for (size_t k = 0; k < service_fixed_count(v) * 2; k++) {
			const struct backend_spec *b = service_fixed(v, k / 2);

			if (!b->addresses[k % 2].family)
				continue;
			t->entries[t->entry_count++] =
				(struct entry){ &b->addresses[k % 2], v, b };
		}
	}
	qsort(t->entries, t->entry_count, sizeof(*t->entries), compare_entries);
}

static void check_repeated(const struct tables *t)
{
	for (size_t i = 1; i < t->entry_count; i++) {
		const struct entry *a = &t->entries[i - 1], *b = a + 1;
		char text[IP_STRLEN];

		if (a->service != b->service || compare_entry_keys(a, b) ||
		    own_port(a) != own_port(b))
			continue;
		if (!strcmp(a->backend->name, b->backend->name))
			continue; /* a duplicate name: said already */
		complain(t->diags, &b->backend->src,
			 "keep one; \"weight\" gives it a larger share",
			 "the backend %s stands at " PLACE_FMT " already",
			 ip_format(b->address, text),
			 PLACE_ARG(&a->backend->src));
	}
}

static int compare_entry_address(const void *address, const void *entry)
{
	return ip_compare(address, ((const struct entry *)entry)->address);
}

static void check_vips(const struct tables *t, const struct service_spec *s)
{
	char text[IP_STRLEN];

	for (size_t i = 0; i < s->vip_count; i++) {
		const struct vip_spec *vip = &s->vips[i];
		const struct entry *e =
			bsearch(&vip->address, t->entries, t->entry_count,
				sizeof(*t->entries), compare_entry_address);

		if (e)
			complain(
				t->diags, &vip->src,
				"a VIP belongs to the balancer: give it an address of its own",
				"the VIP %s is a backend's address at " PLACE_FMT,
				ip_format(&vip->address, text),
				PLACE_ARG(&e->backend->src));
	}
}

/* nat: one meaning for every answer */

struct target {
	uint16_t port;
	const struct entry *entry;
	const struct port_spec *declared;
};

static int compare_targets(const void *pa, const void *pb)
{
	const struct target *a = pa, *b = pb;
	int order = order_of(a->port, b->port);

	if (!order && a->entry)
		order = compare_sources(&a->entry->backend->src,
					&b->entry->backend->src);
	return order ? order
		     : compare_sources(&a->declared->src, &b->declared->src);
}

static bool has_vip_of(const struct service_spec *s, int family)
{
	for (size_t i = 0; i < s->vip_count; i++)
		if (s->vips[i].address.family == family)
			return true;
	return false;
}

static void hint_other_port(const struct tables *t, const struct target *new,
			    const struct source *src, const char *message)
{
	uint16_t other = (uint16_t)(new->port < 57000 ? new->port + 8000
						      : new->port - 8000);
	AUTO_BUF struct buf hint = BUF_INIT;

	buf_addf(
		&hint,
		"let one of them use another target port: {listen: %u, target: %u}",
		new->declared->listen, other);
	complain(t->diags, src, buf_str(&hint), "%s", message);
}

static void complain_target(const struct tables *t, const struct target *old,
			    const struct target *new)
{
	AUTO_BUF struct buf b = BUF_INIT;
	char text[IP_STRLEN];

	buf_addf(
		&b,
		"nat can't tell answers apart: %s port %u/%s serves service \"%s\" at " PLACE_FMT
		" already",
		ip_format(new->entry->address, text), new->port,
		protocol_name(new->entry->service->protocol),
		old->entry->service->name,
		PLACE_ARG(&old->entry->backend->src));
	hint_other_port(t, new, &new->entry->backend->src, buf_str(&b));
}

static size_t add_targets(const struct entry *e, struct target *out)
{
	const struct service_spec *s = e->service;
	size_t n = 0;

	if (s->forwarding != FORWARDING_NAT ||
	    !has_vip_of(s, e->address->family))
		return 0;
	for (size_t i = 0; i < s->port_count; i++) {
		uint16_t own = e->backend->port;

		out[n++] = (struct target){ own ? own : s->ports[i].target, e,
					    &s->ports[i] };
	}
	return n;
}

/* Services that share one backend address must differ in target ports. */
static void check_shared(const struct tables *t, const struct entry *e,
			 size_t count)
{
	struct target *targets;
	size_t room = 0, n = 0;

	for (size_t i = 0; i < count; i++)
		room += e[i].service->port_count;
	targets = mem_array(room, sizeof(*targets));
	for (size_t i = 0; i < count; i++)
		n += add_targets(&e[i], targets + n);
	qsort(targets, n, sizeof(*targets), compare_targets);
	for (size_t i = 1; i < n; i++)
		if (targets[i].port == targets[i - 1].port &&
		    targets[i].entry->service != targets[i - 1].entry->service)
			complain_target(t, &targets[i - 1], &targets[i]);
	free(targets);
}

static void check_nat_across(const struct tables *t)
{
	size_t start = 0;

	for (size_t i = 1; i <= t->entry_count; i++) {
		if (i < t->entry_count &&
		    !compare_entry_keys(&t->entries[start], &t->entries[i]))
			continue;
		if (i - start > 1 && !complain_full(t->diags))
			check_shared(t, &t->entries[start], i - start);
		start = i;
	}
}

/* Two VIPs of a family would have the same targets. */
static void check_nat_vips(const struct tables *t, const struct service_spec *s)
{
	const struct vip_spec *first[2] = { NULL, NULL };

	for (size_t i = 0; i < s->vip_count; i++) {
		const struct vip_spec *v = &s->vips[i];
		const struct vip_spec **f = &first[family_index(&v->address)];

		if (!*f)
			*f = v;
		else if (!ip_equal(&v->address, &(*f)->address))
			complain(
				t->diags, &v->src,
				"declare a second service for it, with another target port",
				"nat can't tell answers apart: the service has the VIP at " PLACE_FMT
				" of the same family already",
				PLACE_ARG(&(*f)->src));
	}
}

static void check_nat_ports(const struct tables *t,
			    const struct service_spec *s)
{
	struct target *targets = mem_array(s->port_count, sizeof(*targets));
	AUTO_BUF struct buf b = BUF_INIT;

	for (size_t i = 0; i < s->port_count; i++)
		targets[i] = (struct target){ s->ports[i].target, NULL,
					      &s->ports[i] };
	qsort(targets, s->port_count, sizeof(*targets), compare_targets);
	for (size_t i = 1; i < s->port_count; i++) {
		const struct port_spec *old = targets[i - 1].declared;
		const struct port_spec *new = targets[i].declared;

		if (old->target != new->target || old->listen == new->listen)
			continue;
		buf_reset(&b);
		buf_addf(
			&b,
			"nat can't tell answers apart: the target port %u is that of the port at " PLACE_FMT
			" too",
			new->target, PLACE_ARG(&old->src));
		hint_other_port(t, &targets[i], &new->src, buf_str(&b));
	}
	free(targets);
}

/* Families and room: what must be there, not only not contradict */

static void check_family(const struct tables *t, const struct service_spec *s,
			 const struct vip_spec *vip)
{
	int family = vip->address.family;
	const char *word = family == AF_INET6 ? "IPv6" : "IPv4";
	const struct template_spec *m = s->pool.template;

	for (size_t i = 0; i < service_fixed_count(s); i++) {
		const struct backend_spec *b = service_fixed(s, i);

		if (b->addresses[family == AF_INET6].family)
			continue;
		complain(
			t->diags, &b->src,
			"add one to \"addresses\", or remove the VIP",
			"%s needs an %s address of the backend \"%s\" for the VIP at " PLACE_FMT,
			forwarding_name(s->forwarding), word, b->name,
			PLACE_ARG(&vip->src));
	}
	/* A libvirt network's addresses are known only when a VM has one. */
	if (m && m->network.bridge && !range_of_family(m, family))
		complain(
			t->diags, &m->network.src,
			"add a range to \"addresses\", or remove the VIP",
			"the template \"%s\" has no %s addresses for the VIP at " PLACE_FMT,
			m->name, word, PLACE_ARG(&vip->src));
}

static void check_families(const struct tables *t, const struct service_spec *s)
{
	bool seen[2] = { false, false };

	for (size_t i = 0; i < s->vip_count; i++) {
		bool *done = &seen[family_index(&s->vips[i].address)];

		if (!*done)
			check_family(t, s, &s->vips[i]);
		*done = true;
	}
}

static void check_room(const struct tables *t, const struct service_spec *s)
{
	const struct template_spec *m = s->pool.template;

	if (!m)
		return;
	for (size_t i = 0; i < m->network.range_count; i++) {
		const struct address_range *a = &m->network.ranges[i];
		uint64_t room = ip_distance(&a->first, &a->last);

		if (room == UINT64_MAX || room + 1 >= s->pool.max)
			continue;
		complain(
			t->diags, &a->src,
			"a VM needs an address: widen the range or lower max",
			"%llu addresses for up to %u VMs of service \"%s\" at " PLACE_FMT,
			(unsigned long long)room + 1, s->pool.max, s->name,
			PLACE_ARG(&s->pool.src));
	}
}

static void check_service_addresses(const struct tables *t,
				    const struct service_spec *s, bool complete)
{
	check_vips(t, s);
	if (s->forwarding == FORWARDING_NAT) {
		check_nat_vips(t, s);
		check_nat_ports(t, s);
	}
	if (!complete)
		return;
	if (s->forwarding == FORWARDING_NAT || s->forwarding == FORWARDING_DSR)
		check_families(t, s); /* the others put any in any */
	check_room(t, s);
}

/*
 * What was clean stays so: a sum of all that is looked at here.  What a new
 * check looks at belongs in it.
 */

static uint64_t add_word(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * 0x9e3779b97f4a7c15ULL;
	return sum ^ sum >> 29;
}

static uint64_t add_ip(uint64_t sum, const struct ip *a)
{
	uint64_t words[2] = { 0 };

	memcpy(words, a->bytes, a->family == AF_INET6 ? 16 : 4);
	return add_word(add_word(sum, words[0]) + (uint64_t)a->family,
			words[1]);
}

static uint64_t add_template(uint64_t sum, const struct template_spec *m)
{
	sum = add_word(sum, m->network.range_count);
	sum = add_word(sum, m->network.bridge != NULL);
	for (size_t i = 0; i < ARRAY_SIZE(m->network.gateways); i++)
		sum = add_ip(sum, &m->network.gateways[i]);
	for (size_t i = 0; i < m->network.range_count; i++) {
		const struct address_range *a = &m->network.ranges[i];

		sum = add_ip(add_ip(sum, &a->first), &a->last);
		sum = add_word(sum, (uint64_t)a->prefix);
	}
	return sum;
}

static uint64_t add_service(uint64_t sum, const struct spec *spec,
			    const struct service_spec *s)
{
	size_t template = s->pool.template
				  ? (size_t)(s->pool.template - spec->templates)
				  : SIZE_MAX;

	sum = add_word(sum, s->protocol | (uint64_t)s->forwarding << 32);
	sum = add_word(sum, template ^ (uint64_t)s->pool.max << 32);
	sum = add_word(sum, s->port_count | (uint64_t)s->vip_count << 32);
	for (size_t i = 0; i < s->port_count; i++)
		sum = add_word(sum, s->ports[i].listen |
					    (uint64_t)s->ports[i].target << 32);
	for (size_t i = 0; i < s->vip_count; i++)
		sum = add_ip(sum, &s->vips[i].address);
	sum = add_word(sum, service_fixed_count(s));
	for (size_t i = 0; i < service_fixed_count(s); i++) {
		const struct backend_spec *b = service_fixed(s, i);

		sum = add_ip(add_ip(sum, &b->addresses[0]), &b->addresses[1]);
		sum = add_word(sum, b->port);
	}
	return sum;
}

/* Names aren't in it: they only say who is meant, and are of no two. */
static uint64_t sum_of(const struct spec *s)
{
	uint64_t sum = add_word(s->service_count, s->template_count);

	for (size_t i = 0; i < s->template_count; i++)
		sum = add_template(sum, &s->templates[i]);
	for (size_t i = 0; i < s->service_count; i++)
		sum = add_service(sum, s, &s->services[i]);
	return sum | 1;
}

void check_addresses_again(const struct spec *s, bool complete, uint64_t *clean,
			   struct diag_list *diags)
{
	uint64_t sum = complete ? sum_of(s) : 0;
	size_t before = diags->count;

	if (complete && sum == *clean)
		return;
	check_addresses(s, complete, diags);
	if (complete && diags->count == before)
		*clean = sum;
}

void check_addresses(const struct spec *s, bool complete,
		     struct diag_list *diags)
{
	struct tables t = { .spec = s, .diags = diags };

	fill_ranges(&t);
	fill_entries(&t);
	check_triples(&t);
	check_ranges(&t);
	check_repeated(&t);
	check_nat_across(&t);
	for (size_t i = 0; i < s->service_count; i++)
		check_service_addresses(&t, &s->services[i], complete);
	free(t.entries);
	free(t.ranges);
}
