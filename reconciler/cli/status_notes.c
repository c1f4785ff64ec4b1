/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a user has to know besides: limits, and what is somebody else's. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/status.h"

static void add_note(json_t *notes, struct buf *text)
{
	json_array_append_new(notes, json_string(buf_str(text)));
	buf_release(text);
}

static void note_direct_clients(const struct spec *spec, json_t *notes)
{
	struct buf text = BUF_INIT;
	char ip[IP_STRLEN];
	bool nat = false;

	for (size_t i = 0; i < spec->service_count; i++)
		nat |= spec->services[i].forwarding == FORWARDING_NAT;
	if (!nat || !spec->node.direct_client_count)
		return;
	buf_adds(&text, "direct_clients (");
	for (size_t i = 0; i < spec->node.direct_client_count; i++) {
		const struct prefix *p = &spec->node.direct_clients[i];

		buf_addf(&text, "%s%s/%d", i ? ", " : "",
			 ip_format(&p->address, ip), p->length);
	}
	buf_adds(&text, ") can't use the VIPs of nat services");
	add_note(notes, &text);
}

static size_t declared_backends(const struct spec *spec, bool v6)
{
	size_t n = 0;

	for (size_t i = 0; i < spec->service_count; i++) {
		const struct service_spec *s = &spec->services[i];

		for (size_t k = 0; k < s->backend_count; k++)
			n += s->backends[k].addresses[v6].family != 0;
		n += s->pool.template ? s->pool.max : 0;
	}
	return n;
}

/*
 * Every backend on a link is one neighbour; over the limit some can't be
 * reached at random.  One table for the machine, seen only in its first
 * network namespace.
 */
static void note_neighbours(const struct spec *spec, json_t *notes)
{
	static const char *const paths[] = {
		"net/ipv4/neigh/default/gc_thresh3",
		"net/ipv6/neigh/default/gc_thresh3"
	};
	struct buf text = BUF_INIT;
	char value[32];

	for (int v6 = 0; v6 < 2; v6++) {
		size_t n = declared_backends(spec, v6);
		unsigned long limit;

		if (sysctl_read(paths[v6], value, sizeof(value)))
			continue;
		limit = strtoul(value, NULL, 10);
		if (n * 10 <= limit * 8)
			continue;
		buf_addf(&text,
			 "%zu IPv%d backends are declared, and this machine's "
			 "neighbour table takes %lu: set "
			 "net.ipv%d.neigh.default.gc_thresh3 to %zu or more "
			 "(sysctl)",
			 n, v6 ? 6 : 4, limit, v6 ? 6 : 4, n * 2);
		add_note(notes, &text);
	}
}

static bool is_vip(const struct spec *spec, const struct ip *a)
{
	for (size_t i = 0; i < spec->service_count; i++)
		for (size_t k = 0; k < spec->services[i].vip_count; k++)
			if (ip_equal(&spec->services[i].vips[k].address, a))
				return true;
	return false;
}

/* Somebody else put it there, and it is theirs to remove. */
static void note_foreign_vips(const struct spec *spec, const struct world *w,
			      json_t *notes)
{
	char ip[IP_STRLEN];

	for (size_t i = 0; i < w->address_count; i++) {
		const struct world_address *a = &w->addresses[i];
		const struct world_interface *in =
			world_interface(w, a->ifindex);

		if (a->ours || !is_vip(spec, &a->address))
			continue;
		json_array_append_new(
			notes, json_sprintf("the VIP %s on %s was put there by "
					    "somebody else: it stays when its "
					    "service goes",
					    ip_format(&a->address, ip),
					    in ? in->name : "an interface"));
	}
}

static bool is_pool_name(const struct spec *spec, const char *name)
{
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct service_spec *s = &spec->services[i];
		size_t len = strlen(s->name);

		if (s->pool.template && !strncmp(name, s->name, len) &&
		    name[len] == '-' && name[len + 1] &&
		    !name[len + 1 + strspn(name + len + 1, "0123456789")])
			return true;
	}
	return false;
}

/* Domains that keep VMs from their names. */
static void note_strays(const struct spec *spec, const struct world *w,
			json_t *notes)
{
	for (size_t i = 0; i < w->stray_count; i++) {
		const struct world_stray *s = &w->strays[i];
		bool renamed = strcmp(s->domain, s->vm) != 0;

		if (!renamed && !is_pool_name(spec, s->vm))
			continue;
		json_array_append_new(
			notes,
			renamed ? json_sprintf(
					  "the domain %s on %s is the VM %s "
					  "under another name, and is left "
					  "alone: undefine it, or rename it "
					  "back",
					  s->domain, s->hypervisor, s->vm)
				: json_sprintf(
					  "the domain %s on %s isn't xlb's: "
					  "no VM gets its name",
					  s->domain, s->hypervisor));
	}
}

/* What somebody changed about a domain, and what it was ordered as. */
static void note_edited(const struct vm_run *v, const struct template_spec *t,
			json_t *notes)
{
	const struct ip *a = &v->addresses[v->addresses[0].family ? 0 : 1];
	struct buf text = BUF_INIT;
	uint8_t mac[6];

	if (!v->observed || strcmp(v->seen.template_hash, t->hash) != 0)
		return;
	vm_mac_from_address(a, mac);
	if (v->seen.next_memory &&
	    v->seen.next_memory / 1024 != t->memory / 1024)
		buf_addf(&text, ", memory %llu KiB instead of %llu",
			 (unsigned long long)v->seen.next_memory / 1024,
			 (unsigned long long)t->memory / 1024);
	if (v->seen.next_vcpus && v->seen.next_vcpus != t->vcpus)
		buf_addf(&text, ", %u vcpus instead of %u", v->seen.next_vcpus,
			 t->vcpus);
	if (v->seen.next_memory && memcmp(v->seen.next_mac, mac, 6) != 0)
		buf_adds(&text, ", another MAC than its address stands for");
	if (text.len)
		json_array_append_new(
			notes,
			json_sprintf("the domain of %s was edited: %s at its "
				     "next start; a new one in its place is as "
				     "declared",
				     v->name, buf_str(&text) + 2));
	buf_release(&text);
}

static void note_edits(const struct reconciler *r, const struct spec *spec,
		       json_t *notes)
{
	const struct vm_run *v;
	size_t i = 0;

	while ((v = strmap_next(&r->vms, &i))) {
		const struct service_spec *s =
			spec_find_service(spec, v->service);

		if (s && s->pool.template)
			note_edited(v, s->pool.template, notes);
	}
}

json_t *status_notes(const struct reconciler *r, const struct spec *spec,
		     const struct world *w)
{
	json_t *notes = json_array();
	struct buf text = BUF_INIT;

	if (r->waiting)
		json_array_append_new(
			notes,
			json_string("changes wait for the operator: "
				    "`xlb-reconcile plan` shows them, and how "
				    "to apply them"));
	if (!spec->service_count)
		return notes;
	buf_adds(&text, "connections from this host itself to a VIP are not "
			"balanced: try from another one");
	add_note(notes, &text);
	note_direct_clients(spec, notes);
	note_neighbours(spec, notes);
	note_foreign_vips(spec, w, notes);
	note_strays(spec, w, notes);
	note_edits(r, spec, notes);
	return notes;
}
