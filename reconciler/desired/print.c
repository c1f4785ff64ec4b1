/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The canonical form: every key that has a meaning, in the contract's order,
 * defaults filled in, paths absolute, services by name.
 */
#include "desired/desired.h"

#include <string.h>

#include "desired/names.h"
#include "desired/parse.h"
#include "desired/value.h"

static void print_ip(struct buf *out, const struct ip *a)
{
	char text[IP_STRLEN];

	buf_addf(out, a->family == AF_INET6 ? "\"%s\"" : "%s",
		 ip_format(a, text));
}

/* "[a, b]" of those of the two that are there. */
static void print_pair(struct buf *out, const struct ip *pair)
{
	const char *sep = "";

	buf_adds(out, "[");
	for (int i = 0; i < 2; i++) {
		if (!pair[i].family)
			continue;
		buf_adds(out, sep);
		print_ip(out, &pair[i]);
		sep = ", ";
	}
	buf_adds(out, "]");
}

static void print_key_text(struct buf *out, const char *key, const char *s)
{
	if (!s)
		return;
	buf_adds(out, key);
	print_text(out, s);
	buf_adds(out, "\n");
}

static void print_key_duration(struct buf *out, const char *key, uint64_t ns)
{
	buf_adds(out, key);
	print_duration(out, ns);
	buf_adds(out, "\n");
}

static void print_prefix(struct buf *out, const struct prefix *p)
{
	const char *quote = p->address.family == AF_INET6 ? "\"" : "";
	char text[IP_STRLEN];

	buf_addf(out, "%s%s/%d%s", quote, ip_format(&p->address, text),
		 p->length, quote);
}

static void print_node(struct buf *out, const struct node_spec *n)
{
	buf_adds(out, "node:\n  interfaces: [");
	for (size_t i = 0; i < n->interface_count; i++) {
		buf_adds(out, i ? ", {name: " : "{name: ");
		print_text(out, n->interfaces[i].name);
		buf_addf(out, ", hook: %s}",
			 choice_name(hook_names, (int)n->interfaces[i].hook));
	}
	buf_addf(out, "]\n  announce: %s\n  vms: manage\n  direct_clients: [",
		 choice_name(announce_names, (int)n->announce));
	for (size_t i = 0; i < n->direct_client_count; i++) {
		buf_adds(out, i ? ", " : "");
		print_prefix(out, &n->direct_clients[i]);
	}
	buf_adds(out, "]\n");
	print_key_text(out, "  seed_file: ", n->seed_file);
	print_key_duration(out, "  resync: ", n->resync);
}

static void print_hypervisors(struct buf *out, const struct spec *s)
{
	buf_adds(out,
		 s->hypervisor_count ? "hypervisors:\n" : "hypervisors: []\n");
	for (size_t i = 0; i < s->hypervisor_count; i++) {
		const struct hypervisor_spec *h = &s->hypervisors[i];

		print_key_text(out, "  - name: ", h->name);
		print_key_text(out, "    uri: ", h->uri);
		if (h->max_vms)
			buf_addf(out, "    max_vms: %u\n", h->max_vms);
	}
}

static void print_range(struct buf *out, const struct address_range *a)
{
	const char *quote = a->first.family == AF_INET6 ? "\"" : "";
	char first[IP_STRLEN], last[IP_STRLEN];

	buf_addf(out, "%s%s-%s/%d%s", quote, ip_format(&a->first, first),
		 ip_format(&a->last, last), a->prefix, quote);
}

static void print_network(struct buf *out, const struct network_spec *n)
{
	const char *sep = "";

	if (n->libvirt) {
		print_key_text(out, "    network: ", n->libvirt);
		return;
	}
	buf_adds(out, "    network:\n");
	print_key_text(out, "      bridge: ", n->bridge);
	buf_adds(out, "      addresses: [");
	for (int family = 0; family < 2; family++) {
		for (size_t i = 0; i < n->range_count; i++) {
			if (family_index(&n->ranges[i].first) != family)
				continue;
			buf_adds(out, sep);
			print_range(out, &n->ranges[i]);
			sep = ", ";
		}
	}
	buf_adds(out, "]\n");
	if (!n->gateways[0].family && !n->gateways[1].family)
		return;
	buf_adds(out, "      gateway: ");
	print_pair(out, n->gateways);
	buf_adds(out, "\n");
}

static void print_templates(struct buf *out, const struct spec *s)
{
	buf_adds(out, s->template_count ? "templates:\n" : "templates: []\n");
	for (size_t i = 0; i < s->template_count; i++) {
		const struct template_spec *t = &s->templates[i];

		print_key_text(out, "  - name: ", t->name);
		print_key_text(out, "    image: ", t->image);
		print_key_text(out, "    kernel: ", t->kernel);
		print_key_text(out, "    initrd: ", t->initrd);
		print_key_text(out, "    cmdline: ", t->cmdline);
		buf_adds(out, "    memory: ");
		print_size(out, t->memory);
		buf_addf(out, "\n    vcpus: %u\n", t->vcpus);
		print_network(out, &t->network);
		print_key_text(out, "    cloud_init: ", t->cloud_init);
	}
}

static void print_mac(struct buf *out, const struct backend_spec *b)
{
	if (b->has_mac)
		buf_addf(out, ", mac: \"%02x:%02x:%02x:%02x:%02x:%02x\"",
			 b->mac[0], b->mac[1], b->mac[2], b->mac[3], b->mac[4],
			 b->mac[5]);
}

static void print_place(struct buf *out, const struct backend_spec *b)
{
	buf_adds(out, "addresses: ");
	print_pair(out, b->addresses);
	if (b->port)
		buf_addf(out, ", port: %u", b->port);
}

static void print_backend(struct buf *out, const struct backend_spec *b)
{
	buf_adds(out, "      - {name: ");
	print_text(out, b->name);
	buf_adds(out, ", ");
	print_place(out, b);
	buf_addf(out, ", weight: %u, state: %s", b->weight,
		 choice_name(state_names, (int)b->state));
	print_mac(out, b);
	buf_adds(out, "}\n");
}

static void print_sorry(struct buf *out, const struct backend_spec *b)
{
	if (!b->name)
		return;
	buf_adds(out, "    sorry: {");
	print_place(out, b);
	print_mac(out, b);
	buf_adds(out, "}\n");
}

static void print_pool(struct buf *out, const struct pool_spec *p)
{
	buf_adds(out, "    pool: {template: ");
	print_text(out, p->template->name);
	buf_addf(out, ", min: %u, max: %u, hypervisors: [", p->min, p->max);
	print_text(out, p->hypervisor->name);
	buf_addf(out, "], weight: %u}\n", p->weight);
}

/* As a text where it is one, else in hex. */
static void print_bytes(struct buf *out, const struct bytes *b)
{
	const char *s = (const char *)b->data;
	AUTO_BUF struct buf hex = BUF_INIT;

	if (b->len && strlen(s) == b->len && value_is_clean(s) &&
	    strncmp(s, "hex:", 4) != 0) {
		print_text(out, s);
		return;
	}
	buf_adds(&hex, "hex:");
	for (size_t i = 0; i < b->len; i++)
		buf_addf(&hex, "%02x", b->data[i]);
	print_text(out, buf_str(&hex));
}

static void print_health_request(struct buf *out, const struct health_spec *h)
{
	print_key_text(out, "      path: ", h->path);
	print_key_text(out, "      host: ", h->host);
	if (h->type == HEALTH_HTTPS && h->verify == VERIFY_FILE)
		print_key_text(out, "      verify: ", h->ca_file);
	else if (h->type == HEALTH_HTTPS)
		buf_addf(out, "      verify: %s\n",
			 h->verify == VERIFY_SYSTEM ? "true" : "false");
	buf_adds(out, "      expect: [");
	for (size_t i = 0; i < h->expect_count; i++)
		buf_addf(out, "%s%u", i ? ", " : "", h->expect[i]);
	buf_adds(out, "]\n");
}

static void print_health_query(struct buf *out, const struct health_spec *h)
{
	const char *sep = "";

	print_key_text(out, "      name: ", h->name);
	buf_addf(out, "      record: %s\n      expect: [",
		 choice_name(record_names, (int)h->record));
	for (const struct choice *c = rcode_names; c->name; c++) {
		if (!(h->rcodes & 1u << c->value))
			continue;
		buf_addf(out, "%s%s", sep, c->name);
		sep = ", ";
	}
	for (size_t i = 0; i < h->answer_count; i++) {
		buf_adds(out, ", ");
		print_ip(out, &h->answers[i]);
	}
	buf_adds(out, "]\n");
}

static void print_health_payload(struct buf *out, const struct health_spec *h)
{
	buf_adds(out, "      send: ");
	print_bytes(out, &h->send);
	buf_adds(out, "\n");
	if (!h->wanted_count)
		return;
	buf_adds(out, "      expect: [");
	for (size_t i = 0; i < h->wanted_count; i++) {
		buf_adds(out, i ? ", " : "");
		print_bytes(out, &h->wanted[i]);
	}
	buf_adds(out, "]\n");
}

static void print_health_command(struct buf *out, const struct health_spec *h)
{
	buf_adds(out, "      command: [");
	for (size_t i = 0; i < h->command_count; i++) {
		buf_adds(out, i ? ", " : "");
		print_text(out, h->command[i]);
	}
	buf_adds(out, "]\n");
}

/* HEALTH_RUNNING is said by saying nothing. */
static void print_health_type(struct buf *out, const struct health_spec *h)
{
	if (h->type != HEALTH_RUNNING)
		buf_addf(out, "      type: %s\n",
			 choice_name(health_names, (int)h->type));
	if (h->port)
		buf_addf(out, "      port: %u\n", h->port);
	switch (h->type) {
	case HEALTH_HTTP:
	case HEALTH_HTTPS:
		print_health_request(out, h);
		break;
	case HEALTH_DNS:
		print_health_query(out, h);
		break;
	case HEALTH_UDP:
		print_health_payload(out, h);
		break;
	case HEALTH_COMMAND:
		print_health_command(out, h);
		break;
	case HEALTH_TCP:
	case HEALTH_ICMP:
	case HEALTH_RUNNING:
		break;
	}
}

static void print_health(struct buf *out, const struct health_spec *h)
{
	buf_adds(out, "    health:\n");
	print_health_type(out, h);
	print_key_duration(out, "      interval: ", h->interval);
	print_key_duration(out, "      timeout: ", h->timeout);
	buf_addf(out, "      rise: %u\n      fall: %u\n      panic: %s\n",
		 h->rise, h->fall, choice_name(panic_names, (int)h->panic));
}

static void print_level(struct buf *out, const char *key, enum metric m,
			double v)
{
	buf_adds(out, key);
	print_number(out, v);
	if (m == METRIC_CPU)
		buf_adds(out, "%");
}

static void print_signal(struct buf *out, const struct signal_spec *s)
{
	buf_addf(out, "        - {metric: %s", metric_name(s->metric));
	if (s->kind == SIGNAL_TARGET) {
		print_level(out, ", target: ", s->metric, s->target);
	} else {
		print_level(out, ", high: ", s->metric, s->high);
		print_level(out, ", low: ", s->metric, s->low);
		buf_adds(out, ", for: ");
		print_duration(out, s->hold);
	}
	buf_adds(out, "}\n");
}

static void print_direction(struct buf *out, const char *key,
			    const struct direction_spec *d)
{
	buf_addf(out, "%s{window: ", key);
	print_duration(out, d->window);
	buf_addf(out, ", step: %u, cooldown: ", d->step);
	print_duration(out, d->cooldown);
	buf_adds(out, "}\n");
}

static void print_scaling(struct buf *out, const struct scaling_spec *s)
{
	print_key_duration(out, "    scaling:\n      interval: ", s->interval);
	buf_adds(out, "      signals:\n");
	for (size_t i = 0; i < s->signal_count; i++)
		print_signal(out, &s->signals[i]);
	buf_adds(out, "      tolerance: ");
	print_number(out, s->tolerance);
	buf_adds(out, "%\n");
	print_direction(out, "      up: ", &s->up);
	print_direction(out, "      down: ", &s->down);
	print_key_duration(out, "      warmup: ", s->warmup);
	buf_addf(out, "      missing: %s\n      predict: off\n",
		 choice_name(missing_names, (int)s->missing));
}

static void print_listen(struct buf *out, const struct service_spec *s)
{
	buf_adds(out, "    vips: [");
	for (size_t i = 0; i < s->vip_count; i++) {
		buf_adds(out, i ? ", " : "");
		print_ip(out, &s->vips[i].address);
	}
	buf_addf(out, "]\n    protocol: %s\n    ports: [",
		 protocol_name(s->protocol));
	for (size_t i = 0; i < s->port_count; i++)
		buf_addf(out, "%s{listen: %u, target: %u}", i ? ", " : "",
			 s->ports[i].listen, s->ports[i].target);
	buf_adds(out, "]\n");
}

/* What is remembered of flows and clients, where that can be said. */
static void print_memory(struct buf *out, const struct service_spec *s)
{
	bool udp = s->protocol == PROTOCOL_UDP;

	if (udp)
		buf_addf(out, "    udp: %s\n",
			 choice_name(udp_names, (int)s->udp));
	if (s->algorithm != ALGORITHM_SOURCE_HASH ||
	    (udp && s->udp == UDP_STATELESS))
		return;
	buf_adds(out, "    affinity: {timeout: ");
	print_duration(out, s->affinity_timeout);
	buf_adds(out, "}\n");
}

static void print_service(struct buf *out, const struct service_spec *s)
{
	print_key_text(out, "  - name: ", s->name);
	print_listen(out, s);
	buf_addf(out, "    algorithm: %s\n    forwarding: %s\n",
		 algorithm_name(s->algorithm), forwarding_name(s->forwarding));
	print_memory(out, s);
	print_key_duration(out, "    idle_timeout: ", s->idle_timeout);
	print_key_duration(out, "    drain: ", s->drain);
	if (s->drain_quiet)
		print_key_duration(out, "    drain_quiet: ", s->drain_quiet);
	else
		buf_adds(out, "    drain_quiet: off\n");
	buf_addf(out, "    protect: %s\n    paused: %s\n",
		 s->protect ? "true" : "false", s->paused ? "true" : "false");
	buf_adds(out,
		 s->backend_count ? "    backends:\n" : "    backends: []\n");
	for (size_t i = 0; i < s->backend_count; i++)
		print_backend(out, &s->backends[i]);
	print_sorry(out, &s->sorry);
	if (s->pool.template)
		print_pool(out, &s->pool);
	print_health(out, &s->health);
	if (s->scaling.src.line)
		print_scaling(out, &s->scaling);
}

static void print_safety(struct buf *out, const struct safety_spec *s)
{
	buf_addf(out, "safety:\n  max_vm_deletes: {count: %u, per: ",
		 s->max_vm_deletes.count);
	print_duration(out, s->max_vm_deletes.per);
	buf_adds(out, "}\n  max_service_removals: ");
	print_number(out, s->max_service_removals);
	buf_addf(out, "%%\n  allow_empty: %s\n",
		 s->allow_empty ? "true" : "false");
}

void spec_print(const struct spec *s, struct buf *out)
{
	buf_adds(out, "version: 1\n");
	print_node(out, &s->node);
	print_hypervisors(out, s);
	print_safety(out, &s->safety);
	print_key_duration(out,
			   "history:\n  retention: ", s->history_retention);
	print_templates(out, s);
	buf_adds(out, s->service_count ? "services:\n" : "services: []\n");
	for (size_t i = 0; i < s->service_count; i++)
		print_service(out, &s->services[i]);
}
