/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trace: what would become of a flow's packets, asked of the tables that are
 * in the kernel now.  The packet path's own code decides (bpf/replay.h); here
 * it is put into words.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/standalone.h"
#include "cli/trace.h"

#define FLOWS_MAX 4096 /* of a range of ports */
#define TTL_DEFAULT 64
#define LENGTH_LEAST 60 /* both headers, of either family and protocol */

/* ---- names ---- */

static bool parse_port(const char **at, uint16_t *ret)
{
	char *end;
	unsigned long n = strtoul(*at, &end, 10);

	if (**at < '0' || **at > '9' || !n || n > 65535)
		return false;
	*ret = (uint16_t)n;
	*at = end;
	return true;
}

static bool parse_ports(const char *at, bool range, struct endpoint *e)
{
	if (!parse_port(&at, &e->port))
		return false;
	e->last_port = e->port;
	if (range && *at == '-') {
		at++;
		if (!parse_port(&at, &e->last_port))
			return false;
	}
	return !*at && e->last_port >= e->port;
}

bool endpoint_parse(const char *text, bool range, struct endpoint *ret)
{
	const char *colon = strrchr(text, ':');
	char address[IP_STRLEN + 2];
	struct endpoint e = { 0 };
	size_t len;

	if (!colon || (size_t)(colon - text) >= sizeof(address))
		return false;
	len = (size_t)(colon - text);
	memcpy(address, text, len);
	address[len] = '\0';
	if (len > 2 && address[0] == '[' && address[len - 1] == ']') {
		address[len - 1] = '\0';
		if (!ip_parse(address + 1, &e.address) ||
		    e.address.family != AF_INET6)
			return false;
	} else if (!ip_parse(address, &e.address) ||
		   e.address.family != AF_INET) {
		return false;
	}
	if (!parse_ports(colon + 1, range, &e))
		return false;
	*ret = e;
	return true;
}

const char *endpoint_text(struct arena *a, const struct ip *address,
			  uint16_t port)
{
	char text[IP_STRLEN];

	return arena_printf(a,
			    address->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
			    ip_format(address, text), port);
}

const char *slot_state_name(uint32_t word)
{
	static const char *const names[] = { "rest", "moving", "settled",
					     "held" };

	return names[XLB_SLOT_STATE(word)];
}

const char *memory_class_name(uint64_t entry)
{
	static const char *const names[] = { "established", "half-open",
					     "seen once", "closing" };

	return names[XLB_FLOW_CLASS(entry)];
}

const struct world_member *
trace_member(const struct world *w, uint32_t id,
	     const struct world_service **ret_service)
{
	for (size_t i = 0; id && i < w->service_count; i++)
		for (size_t k = 0; k < w->services[i].member_count; k++)
			if (w->services[i].members[k].id == id) {
				*ret_service = &w->services[i];
				return &w->services[i].members[k];
			}
	return NULL;
}

const char *trace_name(const struct trace_flow *f, uint32_t id)
{
	const struct world_service *s;
	const struct world_member *m = trace_member(f->w, id, &s);

	if (m)
		return m->name;
	return id ? arena_printf(f->arena, "backend %u, which is gone", id)
		  : "nobody";
}

const char *member_why(const struct world_member *m)
{
	if (m->leaving || m->drained)
		return "drains";
	if (m->health == HEALTH_DOWN)
		return "fails its probes";
	return m->health == HEALTH_DEAD ? "is dead" : NULL;
}

static const char *hook_key(const struct way_in *way)
{
	static const char *const names[DATAPATH_HOOKS] = {
		[DATAPATH_XDP] = "xdp",
		[DATAPATH_XDP_GENERIC] = "xdp_generic",
		[DATAPATH_TC] = "tc",
	};

	if (way->hook >= 0)
		return names[way->hook];
	return way->replies ? "reply" : "none";
}

/* ---- where packets come in ---- */

static int hook_of(const struct world_interface *in)
{
	for (int h = 0; h < DATAPATH_HOOKS; h++)
		if (in->hooks[h] == ATTACHED_OURS ||
		    in->hooks[h] == ATTACHED_STALE)
			return h;
	return -1;
}

static bool is_uplink(const struct reconciler *r, const char *name)
{
	for (size_t i = 0; i < r->spec->node.interface_count; i++)
		if (!strcmp(r->spec->node.interfaces[i].name, name))
			return true;
	return false;
}

static const struct world_interface *interface_named(const struct world *w,
						     const char *name)
{
	for (size_t i = 0; i < w->interface_count; i++)
		if (!strcmp(w->interfaces[i].name, name))
			return &w->interfaces[i];
	return NULL;
}

/* The interface that the route to the client names, or what is below it. */
static const struct world_interface *
interface_towards(const struct trace_flow *f)
{
	struct net_path path = { 0 };
	const struct world_interface *in;
	const struct net_link *l;

	if (net_path(f->r->net, &f->from, &path))
		return NULL;
	in = world_interface(f->w, path.route_ifindex);
	l = net_link(f->r->net, path.route_ifindex);
	if (!in && l && l->parent)
		in = world_interface(f->w, l->parent);
	return in;
}

static struct way_in find_way(const struct trace_flow *f)
{
	const struct node_spec *node = &f->r->spec->node;
	struct way_in way = { .in = interface_towards(f), .hook = -1 };

	if (!way.in && node->interface_count)
		way.in = interface_named(f->w, node->interfaces[0].name);
	if (!way.in)
		return way;
	way.uplink = is_uplink(f->r, way.in->name);
	way.hook = hook_of(way.in);
	way.replies = way.in->reply == ATTACHED_OURS ||
		      way.in->reply == ATTACHED_STALE;
	return way;
}

/* ---- one packet ---- */

static bool read_line(void *arg, uint32_t line, struct xlb_flow_line *ret)
{
	return datapath_flow_line(arg, line, ret) == 0;
}

static void ask(const struct trace_flow *f, enum trace_packet kind,
		struct replay_result *ret)
{
	const struct datapath_view *view = datapath_view(f->r->dp);
	struct replay_tables t = {
		.block = (const struct xlb_tables *)view->control,
		.slots = view->slots,
		.slot_count = view->slot_count,
		.flow_lines = view->flow_lines,
		.line = read_line,
		.arg = f->r->dp,
		.ifindex = f->way.in ? (uint32_t)f->way.in->ifindex : 0,
	};
	struct replay_packet p = {
		.family = f->vip.family == AF_INET6 ? 6 : 4,
		.proto = f->proto,
		.sport = htons(f->from_port),
		.dport = htons(f->port),
		.length = f->length,
		.ttl = f->ttl,
		.tcp_flags = kind == TRACE_NEW ? 0x02 : 0x10, /* SYN, ACK */
	};

	memcpy(p.src, f->from.words, sizeof(p.src));
	memcpy(p.dst, f->vip.words, sizeof(p.dst));
	replay(&t, &p, ret);
}

/* For a VIP, seen by the reply program only. */
static bool is_hairpin(const struct trace_flow *f,
		       const struct replay_result *res)
{
	return f->way.hook < 0 && f->way.replies && res->declared;
}

static const char *verdict_key(const struct trace_flow *f,
			       const struct replay_result *res)
{
	if (is_hairpin(f, res))
		return "drop";
	if (f->way.hook < 0)
		return "pass";
	switch (res->verdict) {
	case REPLAY_PASS:
		return res->declared ? "stack" : "pass";
	case REPLAY_DROP:
		return "drop";
	case REPLAY_SENT:
		return "sent";
	case REPLAY_ANSWERED:
		return "answered";
	}
	return "";
}

static json_t *drop_json(const struct trace_flow *f,
			 const struct replay_result *res)
{
	if (is_hairpin(f, res))
		return json_string(drop_name(XLB_DROP_HAIRPIN));
	if (f->way.hook < 0 || !res->drop)
		return json_null();
	return json_string(drop_name(res->drop));
}

static json_t *backend_json(const struct trace_flow *f, uint32_t id,
			    const struct xlb_vip *vip)
{
	const struct xlb_backend *line = &datapath_view(f->r->dp)->backends[id];
	const struct world_service *s;
	const struct world_member *m = trace_member(f->w, id, &s);
	bool v6 = f->vip.family == AF_INET6;
	struct ip address = { .family = v6 ? AF_INET6 : AF_INET };
	char text[IP_STRLEN];
	json_t *j;

	if (!id)
		return json_null();
	/* Of the other family, where packets go inside others. */
	if (v6 ? !line->sum6 : !line->addr4) {
		v6 = !v6;
		address.family = v6 ? AF_INET6 : AF_INET;
	}
	memcpy(address.bytes, v6 ? (const void *)line->addr6 : &line->addr4,
	       v6 ? 16 : 4);
	j = json_pack("{s:s, s:i, s:s, s:i}", "name", trace_name(f, id), "id",
		      (int)id, "address", ip_format(&address, text), "port",
		      (int)ntohs(line->port ? line->port : vip->target_port));
	if (m && !f->r->read_only)
		json_object_set_new(
			j, "state",
			json_string(m->leaving ? "draining"
				    : m->drained
					    ? "drained"
					    : health_state_name(m->health)));
	return j;
}

/* The next hop: interface, MAC and tag; null: none of ours. */
static json_t *next_hop_json(const struct trace_flow *f,
			     const struct replay_result *res)
{
	const struct xlb_backend *line =
		&datapath_view(f->r->dp)->backends[res->backend];
	const struct net_link *l = net_link(f->r->net, (int)res->ifindex);
	bool v6 = f->vip.family == AF_INET6;
	const uint8_t *mac;
	char text[18];

	if (res->verdict != REPLAY_SENT || f->way.hook < 0)
		return json_null();
	if (res->vip.forwarding >= XLB_IPIP)
		v6 = v6 ? line->sum6 != 0 : !line->addr4;
	mac = (const uint8_t *)(v6 ? line->l2_v6 : line->l2_v4);
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0],
		 mac[1], mac[2], mac[3], mac[4], mac[5]);
	return json_pack("{s:s, s:s, s:i}", "interface", l ? l->name : "?",
			 "mac", text, "vlan", (int)line->vlan);
}

/* Whoever it may be, where it is chosen anew each time. */
static json_t *candidates_json(const struct trace_flow *f,
			       const struct replay_result *res)
{
	const struct datapath_view *view = datapath_view(f->r->dp);
	bool turns = res->vip.flags & XLB_VIP_SCHEDULE;
	uint32_t base = turns ? res->vip.schedule_base : res->vip.slot_base;
	uint32_t shift = turns ? res->vip.schedule_shift : res->vip.slot_shift;
	uint32_t count = shift < 32 ? 1u << (32 - shift) : 0;
	uint8_t *seen = arena_alloc(f->arena, XLB_BACKENDS);
	json_t *list = json_array();

	for (uint32_t i = 0; i < count && base + i < view->slot_count; i++) {
		uint32_t id = XLB_SLOT_CUR(view->slots[base + i]);

		if (id && !seen[id]++)
			json_array_append_new(list,
					      json_string(trace_name(f, id)));
	}
	return list;
}

static json_t *packet_json(const struct trace_flow *f, enum trace_packet kind,
			   const struct replay_result *res)
{
	json_t *j = json_pack("{s:s, s:o}", "verdict", verdict_key(f, res),
			      "drop", drop_json(f, res));

	if (res->declared && f->way.hook >= 0 && res->picked) {
		json_object_set_new(j, "candidates", candidates_json(f, res));
	} else if (res->declared && f->way.hook >= 0) {
		json_object_set_new(j, "backend",
				    backend_json(f, res->backend, &res->vip));
		json_object_set_new(j, "next_hop", next_hop_json(f, res));
	}
	json_object_set_new(j, "why", json_string(trace_why(f, kind, res)));
	return j;
}

/* ---- one flow ---- */

static json_t *memory_json(const struct trace_flow *f, uint64_t entry)
{
	const struct xlb_control *c = datapath_view(f->r->dp)->control;
	uint8_t age = (uint8_t)(c->now - XLB_FLOW_TIME(entry));

	if (!entry)
		return json_null();
	/* Within so many seconds: time goes by ticks. */
	return json_pack("{s:s, s:s, s:i}", "backend",
			 trace_name(f, XLB_FLOW_BACKEND(entry)), "as",
			 memory_class_name(entry), "age_s",
			 (int)((age + 1u) * c->tick));
}

static json_t *slot_json(const struct trace_flow *f,
			 const struct replay_result *res)
{
	json_t *j =
		json_pack("{s:i, s:i, s:s, s:s, s:s}", "index", (int)res->slot,
			  "of", (int)(1u << (32 - res->vip.slot_shift)),
			  "state", slot_state_name(res->word), "cur",
			  trace_name(f, XLB_SLOT_CUR(res->word)), "prev",
			  trace_name(f, XLB_SLOT_PREV(res->word)));

	if (res->old_slot != res->slot)
		json_object_set_new(j, "was",
				    json_integer((json_int_t)res->old_slot));
	return j;
}

static void add_service(const struct trace_flow *f,
			const struct replay_result *res, json_t *j)
{
	const struct xlb_service *k =
		&datapath_view(f->r->dp)->services[res->vip.service];

	json_object_set_new(j, "service", json_string(k->name));
	json_object_set_new(j, "algorithm",
			    json_string(algorithm_name(k->algorithm)));
	json_object_set_new(j, "forwarding",
			    json_string(forwarding_name(k->forwarding)));
	json_object_set_new(j, "slot", slot_json(f, res));
	json_object_set_new(j, "remembered", memory_json(f, res->known));
	if (res->vip.flags & XLB_VIP_CLIENT_HASH)
		json_object_set_new(j, "client_remembered",
				    memory_json(f, res->client));
}

static void add_note(json_t *notes, const char *text)
{
	json_array_append_new(notes, json_string(text));
}

static bool is_direct(const struct trace_flow *f)
{
	const struct node_spec *node = &f->r->spec->node;

	for (size_t i = 0; i < node->direct_client_count; i++)
		if (ip_in_prefix(&f->from, &node->direct_clients[i].address,
				 node->direct_clients[i].length))
			return true;
	return false;
}

static json_t *notes_json(const struct trace_flow *f,
			  const struct replay_result *res)
{
	json_t *notes = json_array();

	if (net_find_address(f->r->net, &f->from))
		add_note(notes, "this host's own packets to a VIP don't come "
				"by the hook: they aren't balanced");
	if (res->declared && res->vip.forwarding == XLB_NAT && is_direct(f))
		add_note(notes, "the client is in direct_clients: answers "
				"don't become the VIP's");
	if (f->way.in && f->way.hook >= 0 &&
	    f->way.in->hooks[f->way.hook] == ATTACHED_STALE)
		add_note(notes, "the program there is of an earlier build");
	return notes;
}

static json_t *flow_json(const struct trace_flow *f)
{
	struct replay_result first = { 0 }, later = { 0 };
	bool tcp = f->proto == IPPROTO_TCP;
	json_t *j, *packets;

	ask(f, tcp ? TRACE_NEW : TRACE_DATAGRAM, &first);
	if (tcp)
		ask(f, TRACE_EXISTING, &later);
	j = json_pack("{s:s, s:s, s:s, s:s, s:s}", "vip",
		      endpoint_text(f->arena, &f->vip, f->port), "from",
		      endpoint_text(f->arena, &f->from, f->from_port),
		      "protocol", tcp ? "tcp" : "udp", "interface",
		      f->way.in ? f->way.in->name : "?", "hook",
		      hook_key(&f->way));
	if (first.declared)
		add_service(f, &first, j);
	packets = json_object();
	json_object_set_new(packets, tcp ? "new" : "datagram",
			    packet_json(f, tcp ? TRACE_NEW : TRACE_DATAGRAM,
					&first));
	if (tcp)
		json_object_set_new(packets, "existing",
				    packet_json(f, TRACE_EXISTING, &later));
	json_object_set_new(j, "packets", packets);
	json_object_set_new(j, "notes", notes_json(f, &first));
	return j;
}

/* ---- for people ---- */

static const char *get(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "";
}

static long long number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void packet_target(const json_t *p, struct buf *out)
{
	const json_t *b = json_object_get(p, "backend");
	const json_t *hop = json_object_get(p, "next_hop");
	const json_t *one;
	size_t i;

	buf_adds(out, get(p, "verdict"));
	if (*get(p, "drop"))
		buf_addf(out, " (%s)", get(p, "drop"));
	if (json_is_object(b)) {
		buf_addf(out, ", %s %s:%lld", get(b, "name"), get(b, "address"),
			 number(b, "port"));
		if (*get(b, "state"))
			buf_addf(out, " (%s)", get(b, "state"));
	}
	json_array_foreach(json_object_get(p, "candidates"), i, one) buf_addf(
		out, "%s%s", i ? ", " : ", one of ", json_string_value(one));
	if (json_is_object(hop)) {
		buf_addf(out, ", out by %s to %s", get(hop, "interface"),
			 get(hop, "mac"));
		if (number(hop, "vlan"))
			buf_addf(out, " in VLAN %lld", number(hop, "vlan"));
	}
	buf_adds(out, "\n");
}

static void packet_text(const json_t *packets, const char *key,
			const char *title, struct buf *out)
{
	const json_t *p = json_object_get(packets, key);

	if (!p)
		return;
	buf_addf(out, "%s: ", title);
	packet_target(p, out);
	buf_addf(out, "    %s\n", get(p, "why"));
}

static void memory_text(const json_t *j, const char *key, const char *title,
			struct buf *out)
{
	const json_t *m = json_object_get(j, key);

	if (!m)
		return;
	buf_addf(out, "%s: ", title);
	if (json_is_object(m))
		buf_addf(out, "at %s (%s, at most %lld s ago)\n",
			 get(m, "backend"), get(m, "as"), number(m, "age_s"));
	else
		buf_adds(out, "no\n");
}

static void flow_text(const json_t *j, struct buf *out)
{
	const json_t *slot = json_object_get(j, "slot");
	const json_t *packets = json_object_get(j, "packets"), *note;
	size_t i;

	buf_addf(out, "%s %s > %s by %s of %s\n", get(j, "protocol"),
		 get(j, "from"), get(j, "vip"), get(j, "hook"),
		 get(j, "interface"));
	if (slot) {
		buf_addf(out, "service: %s (%s, %s)\nslot: %lld of %lld, %s",
			 get(j, "service"), get(j, "algorithm"),
			 get(j, "forwarding"), number(slot, "index"),
			 number(slot, "of"), get(slot, "state"));
		if (!strcmp(get(slot, "cur"), get(slot, "prev")))
			buf_addf(out, ": %s\n", get(slot, "cur"));
		else
			buf_addf(out, ": now %s, before %s\n", get(slot, "cur"),
				 get(slot, "prev"));
	}
	memory_text(j, "remembered", "remembered", out);
	memory_text(j, "client_remembered", "client remembered", out);
	packet_text(packets, "new", "a new connection", out);
	packet_text(packets, "existing", "an existing connection", out);
	packet_text(packets, "datagram", "a datagram", out);
	json_array_foreach(json_object_get(j, "notes"), i, note)
		buf_addf(out, "note: %s\n", json_string_value(note));
}

/* ---- the verb ---- */

static int complain(struct buf *out, int code, const char *what,
		    const char *hint)
{
	buf_addf(out, "error: %s\n    hint: %s\n", what, hint);
	return code;
}

/* Where none is given: as the VIP is declared. */
static uint8_t protocol_of(const struct reconciler *r,
			   const struct endpoint *vip)
{
	const struct datapath_view *view = datapath_view(r->dp);
	const struct xlb_vip *vips =
		view->vips +
		(size_t)(view->control->vip_copy & 1) * XLB_VIP_LINES;
	uint8_t proto = IPPROTO_TCP;

	for (size_t i = 0; i < XLB_VIP_LINES; i++)
		if (vips[i].proto && ntohs(vips[i].port) == vip->port &&
		    !memcmp(vips[i].addr, vip->address.words, 16)) {
			proto = vips[i].proto;
			if (proto == IPPROTO_TCP)
				break;
		}
	return proto;
}

static int trace_flows(struct reconciler *r, const struct options *opt,
		       const struct endpoint *vip, const struct endpoint *from,
		       struct buf *out)
{
	struct arena *arena = arena_new();
	struct trace_flow f = {
		.r = r,
		.arena = arena,
		.w = observe_as_if(r, r->spec, arena),
		.vip = vip->address,
		.port = vip->port,
		.from = from->address,
		.proto = opt->protocol
				 ? (!strcmp(opt->protocol, "udp") ? IPPROTO_UDP
								  : IPPROTO_TCP)
				 : protocol_of(r, vip),
		.length = opt->length ? (uint16_t)opt->length : LENGTH_LEAST,
		.ttl = opt->ttl ? (uint8_t)opt->ttl : TTL_DEFAULT,
	};
	json_t *list = json_array();
	char *text;

	f.way = find_way(&f);
	for (uint32_t port = from->port; port <= from->last_port; port++) {
		f.from_port = (uint16_t)port;
		json_array_append_new(list, flow_json(&f));
	}
	for (size_t i = 0; !opt->json && i < json_array_size(list); i++) {
		buf_adds(out, i ? "\n" : "");
		flow_text(json_array_get(list, i), out);
	}
	if (opt->json) {
		text = json_dumps(from->port == from->last_port
					  ? json_array_get(list, 0)
					  : list,
				  JSON_INDENT(2));
		buf_addf(out, "%s\n", text ? text : "{}");
		free(text);
	}
	json_decref(list);
	arena_free(arena);
	return EXIT_DONE;
}

int trace_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	struct endpoint vip, from;

	if (opt->live)
		return live_verb(r, opt, out);
	if (!opt->vip || !endpoint_parse(opt->vip, false, &vip))
		return complain(out, EXIT_USAGE,
				"--vip names no address and port",
				"--vip 192.0.2.10:80, or "
				"--vip '[2001:db8::10]:80'");
	if (!opt->from || !endpoint_parse(opt->from, true, &from))
		return complain(out, EXIT_USAGE,
				"--from names no client's address and port",
				"--from 192.0.2.100:40000; a range of ports "
				"40000-40099 asks for each");
	if (vip.address.family != from.address.family)
		return complain(out, EXIT_USAGE,
				"--vip and --from are of different families",
				"give two IPv4 or two IPv6 addresses");
	if (from.last_port - from.port >= FLOWS_MAX)
		return complain(out, EXIT_USAGE, "--from names too many ports",
				"ask for 4096 at most");
	if (!r->dp)
		return complain(out, EXIT_FAILED,
				"nothing of xlb is loaded: every packet passes",
				"`xlb-reconcile run` loads it");
	if (!r->spec)
		return complain(out, EXIT_FAILED,
				"the file has never been applied",
				"`xlb-reconcile check` says why");
	return trace_flows(r, opt, &vip, &from, out);
}

int cmd_trace(const struct options *opt)
{
	return opt->live ? cmd_trace_live(opt) : run_verb(opt, trace_verb);
}
