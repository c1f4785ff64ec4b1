/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A plan as JSON, by schemas/plan.schema.json.  What an object is before and
 * after comes from the world and from what the change would write: there is no
 * second notion of either.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

#define FORMAT_VERSION 1

/* What others wrote into the kernel's tables need not be UTF-8. */
static json_t *text_json(const char *s)
{
	json_t *j = json_string(s);
	char *clean;

	if (j)
		return j;
	clean = mem_dup(s);
	for (char *at = clean; *at; at++)
		if (*at & 0x80)
			*at = '?';
	j = json_string(clean);
	free(clean);
	return j;
}

static json_t *text_or_null(const char *s)
{
	return s ? text_json(s) : json_null();
}

static json_t *address_list(const struct ip a[2])
{
	json_t *list = json_array();
	char text[IP_STRLEN];

	for (int f = 0; f < 2; f++)
		if (a[f].family)
			json_array_append_new(
				list, json_string(ip_format(&a[f], text)));
	return list;
}

/* ---- node ---- */

static const char *hook_key(enum datapath_hook hook)
{
	switch (hook) {
	case DATAPATH_XDP:
		return "xdp";
	case DATAPATH_XDP_GENERIC:
		return "xdp_generic";
	case DATAPATH_TC:
		return "tc";
	case DATAPATH_HOOKS:
		break;
	}
	return "none";
}

static json_t *hook_json(enum datapath_hook hook, bool stale)
{
	json_t *j = json_pack("{s:s}", "hook", hook_key(hook));

	if (stale)
		json_object_set_new(j, "program",
				    json_string("of another build"));
	return j;
}

static json_t *link_before(const struct plan *p, const struct change *c)
{
	const struct world_interface *in =
		world_interface(p->world, c->ifindex);

	if (c->kind == CHANGE_LINK_DETACH)
		return hook_json(c->link.hook, false);
	if (c->link.from != DATAPATH_HOOKS)
		return hook_json(c->link.from, false);
	if (in && in->hooks[c->link.hook] == ATTACHED_STALE)
		return hook_json(c->link.hook, true);
	return json_null();
}

static json_t *programs_json(uint32_t features, uint32_t slots)
{
	struct arena *a = arena_new();
	json_t *j =
		json_pack("{s:s, s:I}", "features", features_text(a, features),
			  "slots", (json_int_t)slots);

	arena_free(a);
	return j;
}

static json_t *programs_before(const struct world_kernel *k)
{
	return k->loaded ? programs_json(k->features, k->slot_count)
			 : json_null();
}

static json_t *programs_after(const struct world_kernel *k,
			      const struct change *c)
{
	bool full = !k->loaded || c->load.slots > k->slot_count;

	return programs_json(k->features | c->load.features,
			     full ? c->load.slots : k->slot_count);
}

static json_t *sysctl_json(const struct change *c, const char *value)
{
	return json_pack("{s:s, s:s}", "name", c->name, "value", value);
}

static json_t *interface_json(const struct plan *p, const struct change *c)
{
	const struct world_interface *in =
		world_interface(p->world, c->ifindex);

	return in ? json_pack("{s:s}", "interface", in->name)
		  : json_pack("{s:i}", "ifindex", c->ifindex);
}

/* ---- services ---- */

struct looks { /* of a service, as the kernel has it or shall have it */
	const struct xlb_vip *vips;
	size_t count;
	const char *algorithm, *forwarding, *protocol;
};

static json_t *vip_text(const struct xlb_vip *v)
{
	struct ip a = { .family = v->family == 4 ? AF_INET : AF_INET6 };
	unsigned int listen = ntohs(v->port), target = ntohs(v->target_port);
	char text[IP_STRLEN];

	memcpy(a.bytes, v->addr, sizeof(v->addr));
	ip_format(&a, text);
	if (listen != target)
		return json_sprintf(v->family == 6 ? "[%s]:%u to port %u"
						   : "%s:%u to port %u",
				    text, listen, target);
	return json_sprintf(v->family == 6 ? "[%s]:%u" : "%s:%u", text, listen);
}

static json_t *service_json(const struct looks *s)
{
	json_t *j = json_pack("{s:[], s:s, s:s, s:s}", "vips", "protocol",
			      s->protocol, "algorithm", s->algorithm,
			      "forwarding", s->forwarding);
	json_t *vips = json_object_get(j, "vips");

	for (size_t i = 0; i < s->count; i++)
		json_array_append_new(vips, vip_text(&s->vips[i]));
	return j;
}

static void kernel_looks(const struct plan *p, uint32_t id, struct looks *ret)
{
	const struct xlb_service *k = &p->world->kernel.services[id];

	ret->protocol = protocol_name(k->proto == IPPROTO_UDP ? PROTOCOL_UDP
							      : PROTOCOL_TCP);
	ret->algorithm = k->algorithm < ALGORITHM_COUNT
				 ? algorithm_name((enum algorithm)k->algorithm)
				 : "unknown";
	ret->forwarding =
		k->forwarding <= FORWARDING_GUE
			? forwarding_name((enum forwarding)k->forwarding)
			: "unknown";
}

static json_t *service_before(const struct plan *p, const struct change *c)
{
	struct looks s = { .vips = c->sets.have, .count = c->sets.have_count };

	if (!c->id)
		return json_null();
	kernel_looks(p, c->id, &s);
	return service_json(&s);
}

static json_t *service_after(const struct change *c)
{
	struct looks s = { c->sets.want, c->sets.want_count,
			   algorithm_name(c->spec->algorithm),
			   forwarding_name(c->spec->forwarding),
			   protocol_name(c->spec->protocol) };

	return service_json(&s);
}

/* One that goes: its VIPs are still in the kernel's table. */
static json_t *service_gone(const struct plan *p, const struct change *c)
{
	const struct world_kernel *k = &p->world->kernel;
	struct looks s = { 0 };
	struct xlb_vip *vips = NULL;
	json_t *j;

	for (uint32_t i = 0; i < XLB_VIP_LINES; i++)
		if (k->vips[i].proto && k->vips[i].service == c->id)
			*MEM_PUSH(vips, s.count) = k->vips[i];
	s.vips = vips;
	kernel_looks(p, c->id, &s);
	j = service_json(&s);
	free(vips);
	return j;
}

/* ---- backends ---- */

static void add_next_hop(const struct plan *p, json_t *j,
			 const struct xlb_backend *line)
{
	for (int f = 0; f < 2; f++) {
		const __u64 *words = f ? line->l2_v6 : line->l2_v4;
		const uint8_t *b = (const uint8_t *)words;
		const struct world_interface *in;
		uint32_t ifindex;

		memcpy(&ifindex, b + 12, 4);
		if (!ifindex)
			continue;
		in = world_interface(p->world, (int)ifindex);
		json_object_set_new(
			j, f ? "next_hop6" : "next_hop4",
			json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x by %s%u",
				     b[0], b[1], b[2], b[3], b[4], b[5],
				     in ? in->name : "interface ", ifindex));
	}
}

static json_t *backend_json(const struct plan *p,
			    const struct xlb_backend *line,
			    const struct xlb_owner *owner)
{
	struct ip a[2] = { 0 };
	json_t *j;

	if (line->addr4) {
		a[0].family = AF_INET;
		a[0].words[0] = line->addr4;
	}
	if (line->sum6) {
		a[1].family = AF_INET6;
		memcpy(a[1].bytes, line->addr6, sizeof(line->addr6));
	}
	j = json_pack("{s:o, s:o, s:i}", "addresses", address_list(a), "port",
		      line->port ? json_integer(ntohs(line->port))
				 : json_null(),
		      "weight", (int)owner->weight);
	add_next_hop(p, j, line);
	return j;
}

static json_t *backend_before(const struct plan *p, const struct change *c)
{
	const struct world_owner *o = owner_find(p->world, c->id);

	if (!o || c->action == ACTION_ADD)
		return json_null();
	return backend_json(p, &p->world->kernel.backends[c->id], &o->owner);
}

static const struct world_member *find_member(const struct plan *p,
					      const struct change *c)
{
	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		if (strcmp(s->name, c->service) != 0)
			continue;
		for (size_t k = 0; k < s->member_count; k++)
			if (!strcmp(s->members[k].name, c->name) &&
			    (c->action == ACTION_DESTROY) ==
				    s->members[k].leaving)
				return &s->members[k];
	}
	return NULL;
}

/* One that waits, to join or to leave. */
static json_t *member_json(const struct plan *p, const struct change *c)
{
	const struct world_member *m = find_member(p, c);

	if (!m)
		return json_object();
	return json_pack("{s:o, s:o, s:i}", "addresses",
			 address_list(m->addresses), "port",
			 m->port ? json_integer(m->port) : json_null(),
			 "weight", (int)m->weight);
}

/* ---- slots ---- */

static json_t *owners_json(const struct plan *p, const uint32_t *words,
			   uint32_t count)
{
	uint32_t *slots = mem_array(XLB_BACKENDS, sizeof(*slots));
	json_t *j = json_object();

	for (uint32_t i = 0; i < count; i++)
		slots[XLB_SLOT_CUR(words[i]) % XLB_BACKENDS]++;
	for (uint32_t id = 0; id < XLB_BACKENDS; id++)
		if (slots[id])
			json_object_set_new(j, p->names[id] ? p->names[id] : "",
					    json_integer(slots[id]));
	free(slots);
	return j;
}

static json_t *slots_json(const struct plan *p, const uint32_t *words,
			  uint32_t count)
{
	return json_pack("{s:i, s:o}", "slots", (int)count, "owners",
			 owners_json(p, words, count));
}

static json_t *slots_before(const struct plan *p, const struct change *c)
{
	const struct world_kernel *k = &p->world->kernel;

	for (size_t i = 0; k->loaded && i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];
		const struct xlb_service *old = &k->services[s->id];

		if (!s->id || strcmp(s->name, c->service) != 0 ||
		    old->slot_log2 >= 28 || old->slot_base > k->slot_count ||
		    1u << old->slot_log2 > k->slot_count - old->slot_base)
			continue;
		return slots_json(p, k->slots + old->slot_base,
				  1u << old->slot_log2);
	}
	return json_null();
}

static json_t *slots_after(const struct plan *p, const struct change *c)
{
	json_t *j = slots_json(p, c->slots.write.words, c->slots.write.count);

	json_object_set_new(j, "moved", json_integer(c->slots.moved));
	return j;
}

/* ---- VMs ---- */

static const char *phase_text(const struct plan *p, const struct change *c)
{
	static const char *const names[] = {
		[PHASE_CREATING] = "creating", [PHASE_BOOTING] = "booting",
		[PHASE_READY] = "ready",       [PHASE_DRAINING] = "draining",
		[PHASE_STOPPING] = "stopping", [PHASE_OFF] = "off",
		[PHASE_FAILED] = "failed",
	};

	for (size_t i = 0; i < p->world->vm_count; i++)
		if (!strcmp(p->world->vms[i].name, c->name))
			return names[p->world->vms[i].phase];
	return "absent";
}

static json_t *vm_json(const struct change *c, const char *phase)
{
	json_t *j = json_pack("{s:o, s:s, s:s}", "addresses",
			      address_list(c->addresses), "hypervisor",
			      c->value, "phase", phase);

	if (c->spec && c->spec->pool.template)
		json_object_set_new(j, "template",
				    json_string(c->spec->pool.template->name));
	return j;
}

/* ---- any change ---- */

static bool is_service(const struct change *c)
{
	return c->kind == CHANGE_SHOW && c->sets.want && c->spec;
}

static json_t *after_json(const struct plan *p, const struct change *c)
{
	switch (c->kind) {
	case CHANGE_LOAD:
	case CHANGE_RELOAD:
		return programs_after(&p->world->kernel, c);
	case CHANGE_PINS:
		return json_pack("{s:i}", "pins",
				 (int)p->world->kernel.unpinned);
	case CHANGE_SYSCTL:
		return sysctl_json(c, c->value);
	case CHANGE_LINK_ATTACH:
		return hook_json(c->link.hook, false);
	case CHANGE_REPLY_ATTACH:
		return hook_json(DATAPATH_TC, false);
	case CHANGE_ADDRESS_ADD:
		return interface_json(p, c);
	case CHANGE_BACKEND_SET:
		return backend_json(p, &c->backend.line, &c->backend.owner);
	case CHANGE_SLOTS:
		return slots_after(p, c);
	case CHANGE_DRAIN:
		return vm_json(c, "draining");
	case CHANGE_RESTORE:
		return vm_json(c, "ready");
	case CHANGE_VM_CREATE:
	case CHANGE_VM_START:
	case CHANGE_VM_REPLACE:
		return vm_json(c, "running");
	case CHANGE_SHOW:
		if (is_service(c))
			return service_after(c);
		return c->action == ACTION_ADD ? member_json(p, c)
					       : json_null();
	case CHANGE_TICK:
	case CHANGE_SOURCES:
	case CHANGE_DIRECT:
	case CHANGE_REPLIES:
	case CHANGE_SERVICE_SET:
	case CHANGE_VIPS:
	case CHANGE_VM_REMOVE:
	case CHANGE_ADDRESS_DEL:
	case CHANGE_BACKEND_CLEAR:
	case CHANGE_SERVICE_CLEAR:
	case CHANGE_REPLY_DETACH:
	case CHANGE_LINK_DETACH:
	case CHANGE_KIND_COUNT:
		break;
	}
	return json_null();
}

static json_t *observed_json(const struct plan *p, const struct change *c)
{
	switch (c->kind) {
	case CHANGE_LOAD:
	case CHANGE_RELOAD:
		return programs_before(&p->world->kernel);
	case CHANGE_SYSCTL:
		return sysctl_json(c, "0");
	case CHANGE_LINK_ATTACH:
	case CHANGE_LINK_DETACH:
		return link_before(p, c);
	case CHANGE_REPLY_ATTACH:
		return c->action == ACTION_ADD ? json_null()
					       : hook_json(DATAPATH_TC, true);
	case CHANGE_REPLY_DETACH:
		return hook_json(DATAPATH_TC, false);
	case CHANGE_ADDRESS_DEL:
		return interface_json(p, c);
	case CHANGE_BACKEND_SET:
	case CHANGE_BACKEND_CLEAR:
		return backend_before(p, c);
	case CHANGE_SLOTS:
		return slots_before(p, c);
	case CHANGE_SERVICE_CLEAR:
		return service_gone(p, c);
	case CHANGE_DRAIN:
	case CHANGE_RESTORE:
	case CHANGE_VM_START:
	case CHANGE_VM_REPLACE:
	case CHANGE_VM_REMOVE:
		return vm_json(c, phase_text(p, c));
	case CHANGE_SHOW:
		if (is_service(c))
			return service_before(p, c);
		return c->action == ACTION_DESTROY ? member_json(p, c)
						   : json_null();
	case CHANGE_TICK:
	case CHANGE_SOURCES:
	case CHANGE_DIRECT:
	case CHANGE_REPLIES:
	case CHANGE_SERVICE_SET:
	case CHANGE_VIPS:
	case CHANGE_PINS:
	case CHANGE_ADDRESS_ADD:
	case CHANGE_VM_CREATE:
	case CHANGE_KIND_COUNT:
		break;
	}
	return json_null();
}

/* A repair that an edit goes beyond is shown as what it was planned as. */
static const struct change *meant(const struct change *c)
{
	return c->drift && c->base ? c->base : c;
}

static json_t *before_json(const struct plan *p, const struct change *c)
{
	json_t *j;

	if (c->drift || !c->base)
		return observed_json(p, meant(c));
	j = after_json(p, c->base);
	json_object_del(j, "moved");
	return j;
}

static json_t *actions_json(enum change_action a)
{
	if (a == ACTION_REPLACE)
		return json_pack("[ss]", action_name(ACTION_DESTROY),
				 action_name(ACTION_ADD));
	return json_pack("[s]", action_name(a));
}

static json_t *source_json(const struct change *c)
{
	if (!c->file)
		return json_null();
	return json_pack("{s:o, s:o}", "file", text_json(c->file), "line",
			 c->line ? json_integer(c->line) : json_null());
}

/* What the file says needs no other reason than where; what waits says for what. */
static const char *reason_of(const struct change *c)
{
	const char *cause = c->waits && c->detail ? c->detail : c->cause;

	return cause ? cause : "";
}

static json_t *change_json(const struct plan *p, const struct change *c)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "object",
			 text_json(c->object), "actions",
			 actions_json(c->action), "reason",
			 text_json(reason_of(c)), "before", before_json(p, c),
			 "after", after_json(p, meant(c)), "source",
			 source_json(c));
}

static json_t *changes_json(const struct plan *p, bool drift)
{
	size_t count;
	const struct change **changes = plan_visible(p, drift, &count);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, change_json(p, changes[i]));
	free(changes);
	return list;
}

/* ---- the id ---- */

static json_t *guards_json(const struct plan *p)
{
	json_t *list = json_array();
	char stamp[32];

	for (size_t i = 0; i < p->guard_count; i++) {
		const struct held *h = p->guards[i];

		if (h->until_ms)
			format_time(h->until_ms, stamp);
		json_array_append_new(
			list,
			json_pack("{s:s, s:o, s:o, s:o}", "guard", h->guard,
				  "object", text_or_null(h->object), "reason",
				  text_json(h->why), "until",
				  text_or_null(h->until_ms ? stamp : NULL)));
	}
	return list;
}

/* Who has which id, now or after the plan. */
static void find_names(struct plan *p)
{
	p->names = arena_alloc(p->arena, XLB_BACKENDS * sizeof(const char *));
	for (size_t i = 0; i < p->world->kernel.owner_count; i++) {
		const struct world_owner *o = &p->world->kernel.owners[i];

		if (o->id < XLB_BACKENDS)
			p->names[o->id] = o->owner.name;
	}
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind == CHANGE_BACKEND_SET)
			p->names[p->changes[i]->id] = p->changes[i]->name;
}

void plan_identify(struct plan *p, const struct spec *spec)
{
	json_t *drift, *changes, *guards;

	find_names(p);
	drift = changes_json(p, true);
	changes = changes_json(p, false);
	guards = guards_json(p);

	world_fingerprint(p->world, p->fingerprint);
	plan_json_id(spec->sha256, p->fingerprint, drift, changes, guards,
		     p->id);
	json_decref(drift);
	json_decref(changes);
	json_decref(guards);
}

/* ---- the whole ---- */

static json_t *scaling_json(const struct plan *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];
		struct pool_view v;

		if (!pool_view(p->world, s, &v))
			continue;
		json_array_append_new(
			list,
			json_pack("{s:s, s:i, s:i, s:o, s:i, s:i, s:o}",
				  "service", s->name, "min",
				  (int)s->spec->pool.min, "max",
				  (int)s->spec->pool.max, "wanted",
				  s->pool.known ? json_integer(s->pool.wanted)
						: json_null(),
				  "vms", (int)v.vms, "ready", (int)v.ready,
				  "says", text_or_null(s->pool.view)));
	}
	return list;
}

static json_t *summary_json(const struct plan *p)
{
	struct plan_summary s = plan_summarize(p);
	json_int_t moved = 0;

	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind == CHANGE_SLOTS &&
		    !p->changes[i]->hidden)
			moved += p->changes[i]->slots.moved;
	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:I}", "drift",
			 (int)s.drift, "add", (int)s.add, "change",
			 (int)s.change, "replace", (int)s.replace, "destroy",
			 (int)s.destroy, "slots_moved", moved);
}

static json_t *diagnostics_json(const struct plan *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->diags.count; i++) {
		const struct diag *d = &p->diags.items[i];

		json_array_append_new(
			list,
			json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "severity",
				  d->severity == SEVERITY_ERROR ? "error"
								: "warning",
				  "message", text_json(d->message), "file",
				  text_or_null(d->file), "line",
				  d->line ? json_integer(d->line) : json_null(),
				  "column",
				  d->column ? json_integer(d->column)
					    : json_null(),
				  "hint", text_or_null(d->hint)));
	}
	return list;
}

json_t *plan_json(const struct plan *p, const struct spec *spec)
{
	return json_pack(
		"{s:i, s:s, s:{s:o, s:s, s:n, s:n}, s:{s:s, s:o}, s:o, s:o, "
		"s:o, s:o, s:o}",
		"format_version", FORMAT_VERSION, "plan_id", p->id, "config",
		"path", text_json(spec->path), "sha256", spec->sha256,
		"git_revision", "git_dirty", "observed", "fingerprint",
		p->fingerprint, "scaling", scaling_json(p), "summary",
		summary_json(p), "drift", changes_json(p, true), "changes",
		changes_json(p, false), "guards", guards_json(p), "diagnostics",
		diagnostics_json(p));
}
