/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/standalone.h"

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

static const char *member_state(const struct world_member *m)
{
	if (m->leaving)
		return "draining";
	if (m->drained)
		return "drained";
	return health_state_name(m->health);
}

static json_t *member_json(const struct reconciler *r,
			   const struct world_member *m)
{
	const struct ip *a = &m->addresses[m->addresses[0].family ? 0 : 1];
	struct xlb_counter n = { 0 };
	char text[IP_STRLEN];

	if (m->id && r->dp)
		n = datapath_count(r->dp, m->id);
	return json_pack("{s:s, s:s, s:s, s:i, s:b, s:I, s:I, s:I}", "name",
			 m->name, "address", ip_format(a, text), "state",
			 member_state(m), "weight", (int)m->weight, "vm", m->vm,
			 "packets", (json_int_t)n.packets, "bytes",
			 (json_int_t)n.bytes, "flows", (json_int_t)n.flows);
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

static json_t *service_json(struct reconciler *r, const struct world_service *s)
{
	json_t *j = json_pack("{s:s, s:[]}", "name", s->name, "backends");
	json_t *list = json_object_get(j, "backends");
	const struct service_run *run;

	for (size_t i = 0; i < s->member_count; i++)
		json_array_append_new(list, member_json(r, &s->members[i]));
	if (!s->spec)
		return j;
	json_object_set_new(j, "vips", vips_json(s->spec));
	json_object_set_new(j, "algorithm",
			    json_string(algorithm_name(s->spec->algorithm)));
	json_object_set_new(j, "forwarding",
			    json_string(forwarding_name(s->spec->forwarding)));
	if (!s->spec->pool.template)
		return j;
	run = service_run_get(r, s->name);
	json_object_set_new(
		j, "pool",
		json_pack("{s:i, s:i, s:i, s:b, s:f, s:f}", "min",
			  (int)s->spec->pool.min, "max", (int)s->spec->pool.max,
			  "wanted", (int)run->wanted, "known", run->pool_known,
			  "new_connections_per_second",
			  run->metric_mean[METRIC_NEW_CONNECTIONS_PER_SECOND],
			  "cpu", run->metric_mean[METRIC_CPU]));
	return j;
}

static json_t *file_json(const struct reconciler *r)
{
	const char *state = r->held		   ? "held"
			    : r->file_diags.errors ? "stale"
						   : "applied";
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

static json_t *interfaces_json(const struct world *w)
{
	static const char *const states[] = { "none", "ours", "stale",
					      "foreign" };
	json_t *list = json_array();

	for (size_t i = 0; i < w->interface_count; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s}", "name",
					w->interfaces[i].name, "xdp",
					states[w->interfaces[i].xdp], "replies",
					states[w->interfaces[i].reply]));
	return list;
}

static json_t *status_json(struct reconciler *r, const struct world *w)
{
	json_t *j = json_pack("{s:b, s:b, s:I, s:f, s:s, s:o, s:[]}", "running",
			      !r->read_only, "converged", r->converged,
			      "revision", (json_int_t)r->revision, "applied_ms",
			      r->applied_ms, "run_id", r->run_id, "file",
			      file_json(r), "services");
	json_t *services = json_object_get(j, "services");

	for (size_t i = 0; i < w->service_count; i++)
		json_array_append_new(services,
				      service_json(r, &w->services[i]));
	json_object_set_new(j, "vms", vms_json(w));
	json_object_set_new(j, "drops", drops_json(r));
	json_object_set_new(j, "hypervisors", hypervisors_json(r));
	json_object_set_new(j, "interfaces", interfaces_json(w));
	return j;
}

/* ---- text, from the same values ---- */

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static json_int_t int_of(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void print_backends(const json_t *service, struct buf *out)
{
	json_t *list = json_object_get(service, "backends"), *b;
	size_t i;

	json_array_foreach(list, i, b)
	{
		buf_addf(out,
			 "    %-20s %-24s %-9s weight %-3lld packets %-10lld "
			 "flows %lld\n",
			 text_of(b, "name"), text_of(b, "address"),
			 text_of(b, "state"), (long long)int_of(b, "weight"),
			 (long long)int_of(b, "packets"),
			 (long long)int_of(b, "flows"));
	}
}

static void print_service(const json_t *s, struct buf *out)
{
	const json_t *pool = json_object_get(s, "pool");
	json_t *vips = json_object_get(s, "vips"), *v;
	size_t i;

	buf_addf(out, "\nservice %s", text_of(s, "name"));
	json_array_foreach(vips, i, v)
	{
		buf_addf(out, " %s", json_string_value(v));
	}
	buf_addf(out, " %s %s\n", text_of(s, "algorithm"),
		 text_of(s, "forwarding"));
	if (pool)
		buf_addf(out, "  pool: %lld VMs wanted, %lld to %lld allowed\n",
			 (long long)int_of(pool, "wanted"),
			 (long long)int_of(pool, "min"),
			 (long long)int_of(pool, "max"));
	print_backends(s, out);
}

static void print_file(const json_t *j, struct buf *out)
{
	const json_t *file = json_object_get(j, "file");
	json_t *errors = json_object_get(file, "errors"), *e;
	size_t i;

	buf_addf(out, "file      %s: %s\n", text_of(file, "path"),
		 text_of(file, "state"));
	json_array_foreach(errors, i, e)
	{
		buf_addf(out, "          %s", json_string_value(e));
	}
}

static void print_vms_and_drops(const json_t *j, struct buf *out)
{
	json_t *v, *n;
	const char *why;
	size_t i;

	json_array_foreach(json_object_get(j, "vms"), i, v)
	{
		buf_addf(out, "%s  vm %-20s %-24s %-9s on %s\n", i ? "" : "\n",
			 text_of(v, "name"), text_of(v, "address"),
			 text_of(v, "phase"), text_of(v, "hypervisor"));
	}
	json_object_foreach(json_object_get(j, "drops"), why, n)
	{
		if (json_integer_value(n))
			buf_addf(out, "dropped   %lld packets: %s\n",
				 (long long)json_integer_value(n), why);
	}
}

static void print_status(const json_t *j, struct buf *out)
{
	json_t *item;
	size_t i;

	buf_addf(out, "daemon    %s\n",
		 !json_is_true(json_object_get(j, "running")) ? "not running"
		 : json_is_true(json_object_get(j, "converged"))
			 ? "running, converged"
			 : "running, converging");
	print_file(j, out);
	json_array_foreach(json_object_get(j, "interfaces"), i, item)
	{
		buf_addf(out, "interface %s: xdp %s, replies %s\n",
			 text_of(item, "name"), text_of(item, "xdp"),
			 text_of(item, "replies"));
	}
	buf_adds(out,
		 "note      connections from this host itself to a VIP are "
		 "not balanced\n");
	json_array_foreach(json_object_get(j, "services"), i, item)
	{
		print_service(item, out);
	}
	print_vms_and_drops(j, out);
}

static int check_code(const struct reconciler *r, const struct plan *p)
{
	if (r->file_diags.errors || r->held)
		return EXIT_FAILED;
	return p && !plan_is_empty(p) ? EXIT_FAILED : EXIT_DONE;
}

int status_verb(struct reconciler *r, const struct options *opt,
		struct buf *out)
{
	static const struct spec nothing;
	const struct spec *spec = r->spec ? r->spec : &nothing;
	struct arena *arena = arena_new();
	struct world *w = observe_as_if(r, spec, arena);
	struct plan *plan = opt->check ? plan_make(spec, w) : NULL;
	json_t *j = status_json(r, w);
	char *text;
	int code = opt->check ? check_code(r, plan) : EXIT_DONE;

	if (opt->json) {
		text = json_dumps(j, JSON_INDENT(2));
		buf_addf(out, "%s\n", text ? text : "{}");
		free(text);
	} else {
		print_status(j, out);
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
