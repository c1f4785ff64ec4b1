/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/standalone.h"
#include "cli/status.h"

static const char *phase_name(enum vm_phase p)
{
	switch (p) {
	case PHASE_CREATING:
		return "creating";
	case PHASE_BOOTING:
		return "booting";
	case PHASE_READY:
		return "ready";
	case PHASE_DRAINING:
		return "draining";
	case PHASE_STOPPING:
		return "stopping";
	case PHASE_OFF:
		return "off";
	case PHASE_FAILED:
		return "failed";
	}
	return "";
}

/* Of the sorry backend: does it serve, or wait until it has to? */
static bool is_needed(const struct world *w, const struct world_member *m)
{
	return m->id && w->kernel.loaded &&
	       !(w->kernel.backends[m->id].flags & XLB_BACKEND_LEAVING);
}

static const char *member_state(const struct world *w,
				const struct world_member *m)
{
	if (m->sorry && !m->drained)
		return is_needed(w, m) ? "serving" : "standby";
	if (m->leaving)
		return "draining";
	if (m->drained)
		return "drained";
	return health_state_name(m->health);
}

/* Of one drained by an operator: until when. */
static void add_override(const struct reconciler *r, const char *service,
			 const struct world_member *m, json_t *j)
{
	AUTO_FREE char *key = mem_printf("%s/%s", service, m->name);

	for (size_t i = 0; i < r->override_count; i++) {
		const struct store_override *o = &r->overrides[i];
		time_t until = (time_t)(o->until_ms / 1000);
		char stamp[64] = "by the operator";
		struct tm tm;

		if (strcmp(o->kind, "drain") != 0 || strcmp(o->key, key) != 0)
			continue;
		gmtime_r(&until, &tm);
		if (until)
			strftime(stamp, sizeof(stamp),
				 "by the operator until %Y-%m-%dT%H:%M:%SZ",
				 &tm);
		json_object_set_new(j, "note", json_string(stamp));
	}
}

static const struct member_run *run_of(const struct reconciler *r,
				       const char *service,
				       const struct world_member *m)
{
	char a[IP_STRLEN], b[IP_STRLEN];
	AUTO_FREE char *key = mem_printf("%s/%s/%s/%s", service, m->name,
					 ip_format(&m->addresses[0], a),
					 ip_format(&m->addresses[1], b));

	return strmap_get(&r->members, key);
}

/* Why one that isn't up isn't, as its last probe had it. */
static void add_reason(const struct reconciler *r, const char *service,
		       const struct world_member *m, json_t *j)
{
	const struct member_run *run = run_of(r, service, m);

	if (m->health == HEALTH_UP || !run)
		return;
	for (int f = 0; f < 2; f++)
		if (run->reason[f])
			json_object_set_new(j, "reason",
					    json_string(run->reason[f]));
}

static json_t *member_json(const struct reconciler *r, const struct world *w,
			   const char *service, const struct world_member *m)
{
	const struct ip *a = &m->addresses[m->addresses[0].family ? 0 : 1];
	struct xlb_counter n = { 0 };
	char text[IP_STRLEN];
	json_t *j;

	if (m->id && r->dp)
		n = datapath_count(r->dp, m->id);
	j = json_pack("{s:s, s:s, s:s, s:i, s:b, s:I, s:I, s:I}", "name",
		      m->name, "address", ip_format(a, text), "state",
		      member_state(w, m), "weight", (int)m->weight, "vm", m->vm,
		      "packets", (json_int_t)n.packets, "bytes",
		      (json_int_t)n.bytes, "flows", (json_int_t)n.flows);
	if (m->drained)
		add_override(r, service, m, j);
	add_reason(r, service, m, j);
	return j;
}

struct tally {
	int active, up, joining;
};

/* Those that are meant to take new flows. */
static struct tally tally_members(const struct world_service *s)
{
	struct tally t = { 0 };

	for (size_t i = 0; i < s->member_count; i++) {
		const struct world_member *m = &s->members[i];

		if (m->leaving || m->drained || !m->weight || m->sorry)
			continue;
		t.active++;
		t.up += m->health == HEALTH_UP;
		t.joining += m->health == HEALTH_JOINING;
	}
	return t;
}

static const char *service_state(const struct world_service *s,
				 const struct tally *t)
{
	if (!s->spec)
		return "leaving";
	if (!t->active)
		return "no backends";
	if (t->up == t->active)
		return "ok";
	if (t->up + t->joining == t->active)
		return "joining";
	return t->up ? "degraded" : "down";
}

static int ready_vms(const struct world *w, const char *service)
{
	int n = 0;

	for (size_t i = 0; i < w->vm_count; i++)
		n += w->vms[i].phase == PHASE_READY &&
		     !strcmp(w->vms[i].service, service);
	return n;
}

static json_t *vips_json(const struct service_spec *spec)
{
	json_t *list = json_array();
	char text[IP_STRLEN];

	for (size_t i = 0; i < spec->vip_count; i++)
		for (size_t k = 0; k < spec->port_count; k++)
			json_array_append_new(
				list,
				json_sprintf(
					spec->vips[i].address.family == AF_INET6
						? "[%s]:%u"
						: "%s:%u",
					ip_format(&spec->vips[i].address, text),
					spec->ports[k].listen));
	return list;
}

/* Where a change is still under way, and how long it will take to be over. */
static json_t *slots_json(const struct world *w, const struct world_service *s)
{
	static const char *const states[] = { "rest", "moving", "settled",
					      "held" };
	const struct xlb_service *k = &w->kernel.services[s->id];
	uint32_t counts[ARRAY_SIZE(states)] = { 0 };
	json_t *j = json_object();

	if (k->slot_log2 > 28 || k->slot_base > w->kernel.slot_count ||
	    1u << k->slot_log2 > w->kernel.slot_count - k->slot_base)
		return j;
	for (uint32_t i = 0; i < 1u << k->slot_log2; i++)
		counts[XLB_SLOT_STATE(w->kernel.slots[k->slot_base + i])]++;
	json_object_set_new(j, "count", json_integer(1 << k->slot_log2));
	json_object_set_new(j, "table", json_integer(1 << k->table_log2));
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		json_object_set_new(j, states[i], json_integer(counts[i]));
	json_object_set_new(j, "tracks",
			    json_boolean(k->flags & XLB_SERVICE_TRACKS));
	return j;
}

static json_t *service_json(struct reconciler *r, const struct world *w,
			    const struct world_service *s)
{
	struct tally t = tally_members(s);
	json_t *j = json_pack("{s:s, s:s, s:i, s:i, s:[]}", "name", s->name,
			      "state", service_state(s, &t), "up", t.up,
			      "active", t.active, "backends");
	json_t *list = json_object_get(j, "backends");
	const struct service_run *run;

	for (size_t i = 0; i < s->member_count; i++)
		json_array_append_new(list, member_json(r, w, s->name,
							&s->members[i]));
	if (!s->spec)
		return j;
	json_object_set_new(j, "vips", vips_json(s->spec));
	json_object_set_new(j, "paused", json_boolean(s->paused));
	json_object_set_new(j, "protected", json_boolean(s->spec->protect));
	json_object_set_new(j, "declared", json_boolean(!s->spec->undeclared));
	json_object_set_new(j, "algorithm",
			    json_string(algorithm_name(s->spec->algorithm)));
	json_object_set_new(j, "forwarding",
			    json_string(forwarding_name(s->spec->forwarding)));
	if (w->kernel.loaded && s->id)
		json_object_set_new(j, "slots", slots_json(w, s));
	if (!s->spec->pool.template)
		return j;
	run = service_run_get(r, s->name);
	json_object_set_new(
		j, "pool",
		json_pack("{s:i, s:i, s:i, s:i, s:b, s:f, s:f}", "min",
			  (int)s->spec->pool.min, "max", (int)s->spec->pool.max,
			  "wanted", (int)run->wanted, "ready",
			  ready_vms(w, s->name), "known", run->pool_known,
			  "new_connections_per_second",
			  run->metric_mean[METRIC_NEW_CONNECTIONS_PER_SECOND],
			  "cpu", run->metric_mean[METRIC_CPU]));
	return j;
}

static json_t *file_json(const struct reconciler *r)
{
	const char *state = r->held		       ? "held"
			    : r->file_waits	       ? "waits"
			    : r->file_diags.errors     ? "stale"
			    : r->settled	       ? "applied"
			    : r->read_only || !r->spec ? "not applied"
						       : "being applied";
	json_t *j = json_pack("{s:s, s:s, s:s, s:[]}", "path", r->opt->file,
			      "sha256", r->spec ? r->spec->sha256 : "", "state",
			      state, "errors");
	json_t *errors = json_object_get(j, "errors");

	for (size_t i = 0; i < r->file_diags.count; i++) {
		struct buf text = BUF_INIT;

		diag_print(&r->file_diags.items[i], &text);
		json_array_append_new(errors, json_string(buf_str(&text)));
		buf_release(&text);
	}
	return j;
}

static json_t *drops_json(const struct reconciler *r)
{
	uint64_t drops[XLB_DROP_MAX] = { 0 };
	json_t *j = json_object();

	if (r->dp && datapath_drops(r->dp, drops) == 0)
		for (int i = 1; i < XLB_DROP_MAX; i++)
			json_object_set_new(j, drop_name((enum xlb_drop)i),
					    json_integer((json_int_t)drops[i]));
	return j;
}

static json_t *vms_json(const struct world *w)
{
	json_t *list = json_array();
	char text[IP_STRLEN];

	for (size_t i = 0; i < w->vm_count; i++) {
		const struct world_vm *v = &w->vms[i];
		const struct ip *a =
			&v->addresses[v->addresses[0].family ? 0 : 1];

		json_array_append_new(
			list,
			json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name",
				  v->name, "service", v->service, "phase",
				  phase_name(v->phase), "address",
				  ip_format(a, text), "hypervisor",
				  v->hypervisor, "why", v->why ? v->why : ""));
	}
	return list;
}

static json_t *hypervisors_json(const struct reconciler *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->hypervisor_count; i++)
		json_array_append_new(
			list,
			json_pack("{s:s, s:s, s:b}", "name",
				  hypervisor_name(r->hypervisors[i]), "uri",
				  hypervisor_uri(r->hypervisors[i]),
				  "connected",
				  hypervisor_is_connected(r->hypervisors[i])));
	return list;
}

/* Where packets are taken; where nowhere, what is in the way there. */
static int shown_hook(const struct world_interface *in)
{
	for (int h = 0; h < DATAPATH_HOOKS; h++)
		if (in->hooks[h] == ATTACHED_OURS ||
		    in->hooks[h] == ATTACHED_STALE)
			return h;
	for (int h = 0; h < DATAPATH_HOOKS; h++)
		if (in->hooks[h] == ATTACHED_FOREIGN)
			return h;
	return DATAPATH_XDP;
}

static json_t *interfaces_json(const struct world *w)
{
	static const char *const states[] = { "none", "ours", "stale",
					      "foreign" };
	static const char *const names[DATAPATH_HOOKS] = {
		[DATAPATH_XDP] = "xdp",
		[DATAPATH_XDP_GENERIC] = "xdp_generic",
		[DATAPATH_TC] = "tc",
	};
	json_t *list = json_array();

	for (size_t i = 0; i < w->interface_count; i++) {
		const struct world_interface *in = &w->interfaces[i];
		int hook = shown_hook(in);

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:s}", "name",
					in->name, "hook", names[hook], "state",
					states[in->hooks[hook]], "replies",
					states[in->reply]));
	}
	return list;
}

static json_t *events_json(const struct reconciler *r)
{
	uint64_t events[XLB_EVENT_MAX] = { 0 };

	if (r->dp)
		datapath_events(r->dp, events);
	return json_pack("{s:I, s:I}", "no_room",
			 (json_int_t)events[XLB_EVENT_NO_ROOM], "rate",
			 (json_int_t)events[XLB_EVENT_RATE]);
}

static json_t *probes_json(const struct reconciler *r)
{
	struct prober_figures n;
	json_t *j, *results = json_object();

	if (!r->prober) {
		json_decref(results);
		return json_null();
	}
	prober_figures(r->prober, &n);
	for (int i = 0; i < PROBE_RESULTS; i++)
		json_object_set_new(results,
				    probe_result_name((enum probe_result)i),
				    json_integer((json_int_t)n.results[i]));
	j = json_pack("{s:I, s:I, s:I, s:f, s:f, s:o}", "targets",
		      (json_int_t)n.targets, "queued", (json_int_t)n.queued,
		      "sent", (json_int_t)n.sent, "late_p99_ms", n.late_p99_ms,
		      "late_max_ms", n.late_max_ms, "results", results);
	return j;
}

static json_t *features_json(const struct world *w)
{
	struct arena *a = arena_new();
	json_t *j = json_string(features_text(a, w->kernel.features));

	arena_free(a);
	return j;
}

static json_t *held_json(const struct plan *p)
{
	json_t *list = json_array();
	char until[32];

	for (size_t i = 0; i < p->guard_count; i++) {
		const struct held *h = p->guards[i];
		json_t *j = json_pack("{s:s, s:s, s:s}", "guard", h->guard,
				      "object", h->object ? h->object : "plan",
				      "why", h->why);

		if (h->until_ms) {
			clock_text(h->until_ms, until);
			json_object_set_new(j, "until", json_string(until));
		}
		json_array_append_new(list, j);
	}
	return list;
}

static json_t *status_json(struct reconciler *r, const struct spec *spec,
			   const struct world *w, const struct plan *p)
{
	json_t *j = json_pack("{s:b, s:b, s:I, s:f, s:s, s:o, s:[]}", "running",
			      !r->read_only, "converged", r->converged,
			      "revision", (json_int_t)r->revision, "applied_ms",
			      r->applied_ms, "run_id", r->run_id, "file",
			      file_json(r), "services");
	json_t *services = json_object_get(j, "services");

	for (size_t i = 0; i < w->service_count; i++)
		json_array_append_new(services,
				      service_json(r, w, &w->services[i]));
	json_object_set_new(j, "vms", vms_json(w));
	json_object_set_new(j, "drops", drops_json(r));
	json_object_set_new(j, "events", events_json(r));
	json_object_set_new(j, "probes", probes_json(r));
	json_object_set_new(j, "features", features_json(w));
	json_object_set_new(j, "hypervisors", hypervisors_json(r));
	json_object_set_new(j, "interfaces", interfaces_json(w));
	json_object_set_new(j, "failing", json_string(r->failing));
	json_object_set_new(j, "held", held_json(p));
	json_object_set_new(j, "notes", status_notes(r, spec, w));
	json_object_set_new(j, "manual", json_boolean(r->opt->manual));
	json_object_set_new(j, "waiting", json_boolean(r->waiting));
	return j;
}

static bool services_degraded(const struct world *w)
{
	for (size_t i = 0; i < w->service_count; i++) {
		struct tally t = tally_members(&w->services[i]);

		if (w->services[i].spec && t.up < t.active)
			return true;
	}
	return false;
}

static bool hypervisors_gone(const struct reconciler *r)
{
	for (size_t i = 0; i < r->hypervisor_count; i++)
		if (!hypervisor_is_read(r->hypervisors[i]) ||
		    !hypervisor_is_connected(r->hypervisors[i]))
			return true;
	return false;
}

static int check_code(const struct reconciler *r, const struct world *w,
		      const struct plan *p)
{
	if (r->file_diags.errors || r->held || r->waiting || r->failing[0] ||
	    services_degraded(w) || hypervisors_gone(r))
		return EXIT_FAILED;
	return !plan_is_empty(p) || p->guard_count ? EXIT_FAILED : EXIT_DONE;
}

int status_verb(struct reconciler *r, const struct options *opt,
		struct buf *out)
{
	static const struct spec nothing;
	const struct spec *spec = r->spec ? r->spec : &nothing;
	struct arena *arena = arena_new();
	struct world *w = look_closely(r, spec, arena, opt->check);
	struct plan *plan = plan_make(spec, w);
	json_t *j;
	char *text;
	int code = opt->check ? check_code(r, w, plan) : EXIT_DONE;

	plan_guard(plan, spec, w);
	j = status_json(r, spec, w, plan);
	if (opt->json) {
		text = json_dumps(j, JSON_INDENT(2));
		buf_addf(out, "%s\n", text ? text : "{}");
		free(text);
	} else {
		status_text(j, out);
	}
	json_decref(j);
	plan_free(plan);
	arena_free(arena);
	return code;
}

int cmd_status(const struct options *opt)
{
	return run_verb(opt, status_verb);
}
