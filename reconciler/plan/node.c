/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What belongs to the node: programs on interfaces, forwarding, VIP addresses,
 * and the destinations that are none of the balancer's business.
 */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

static const struct interface_spec *uplink_spec(const struct spec *spec,
						const struct world_interface *i)
{
	for (size_t k = 0; k < spec->node.interface_count; k++)
		if (!strcmp(spec->node.interfaces[k].name, i->name))
			return &spec->node.interfaces[k];
	return NULL;
}

static bool is_uplink(const struct spec *spec, const struct world_interface *i)
{
	return uplink_spec(spec, i) != NULL;
}

static bool spec_has_family(const struct spec *spec, int family)
{
	for (size_t i = 0; i < spec->service_count; i++)
		if (service_has_family(&spec->services[i], family))
			return true;
	return false;
}

static void want_reply(struct planning *p, const struct world_path *path,
		       bool direct)
{
	const struct world_interface *in =
		path->route_ifindex
			? world_interface(p->world, path->route_ifindex)
			: NULL;

	if (in && !(direct && is_uplink(p->spec, in)))
		p->wants_reply[in - p->world->interfaces] = true;
}

/*
 * Answers of a backend come in where packets to it go out.  Those that need no
 * rewriting and go out by the uplink itself need no help.
 */
static void find_replies(struct planning *p)
{
	p->wants_reply = arena_alloc(p->arena, p->world->interface_count + 1);
	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];
		bool direct = s->spec && s->spec->forwarding != FORWARDING_NAT;

		for (size_t m = 0; s->spec && m < s->member_count; m++) {
			want_reply(p, &s->members[m].paths[0], direct);
			want_reply(p, &s->members[m].paths[1], direct);
		}
	}
}

static bool wants_reply(const struct planning *p,
			const struct world_interface *in)
{
	return p->wants_reply[in - p->world->interfaces];
}

static void set_forwarding(struct planning *p, const char *family,
			   const char *interface)
{
	struct change *c = planning_add(
		p, CHANGE_SYSCTL, ACTION_CHANGE,
		arena_printf(p->arena, "node/sysctl/%s/%s", family, interface));

	c->name = arena_printf(p->arena, "net/%s/conf/%s/forwarding", family,
			       interface);
	c->value = "1";
	c->detail = "forwarding 0 -> 1";
	change_from_file(p, c, &p->spec->node.src);
}

/*
 * The host's stack forwards IPv6 only when all.forwarding is on, whatever the
 * interfaces say.  It is asked for only where a backend is reached that way.
 */
static void plan_forwarding_all(struct planning *p)
{
	for (size_t i = 0; i < p->world->service_count; i++) {
		const struct world_service *s = &p->world->services[i];

		for (size_t m = 0; m < s->member_count; m++) {
			if (p->world->forwards6_all ||
			    !s->members[m].paths[1].stack)
				continue;
			set_forwarding(p, "ipv6", "all");
			return;
		}
	}
}

static void plan_forwarding(struct planning *p,
			    const struct world_interface *in)
{
	if (!in->forwards[0] && spec_has_family(p->spec, AF_INET))
		set_forwarding(p, "ipv4", in->name);
	if (!in->forwards[1] && spec_has_family(p->spec, AF_INET6))
		set_forwarding(p, "ipv6", in->name);
}

const char *hook_text(enum datapath_hook hook)
{
	switch (hook) {
	case DATAPATH_XDP:
		return "native XDP";
	case DATAPATH_XDP_GENERIC:
		return "generic XDP";
	case DATAPATH_TC:
		return "tc ingress";
	case DATAPATH_HOOKS:
		break;
	}
	return "";
}

static bool has_ours(const struct world_interface *in, enum datapath_hook hook)
{
	return in->hooks[hook] == ATTACHED_OURS ||
	       in->hooks[hook] == ATTACHED_STALE;
}

/* auto: what is attached natively stays, whatever its driver says by now. */
static enum datapath_hook wanted_hook(const struct interface_spec *spec,
				      const struct world_interface *in)
{
	if (!spec)
		return DATAPATH_HOOKS;
	switch (spec->hook) {
	case HOOK_AUTO:
		return in->native || has_ours(in, DATAPATH_XDP) ? DATAPATH_XDP
								: DATAPATH_TC;
	case HOOK_XDP:
		return DATAPATH_XDP;
	case HOOK_XDP_GENERIC:
		return DATAPATH_XDP_GENERIC;
	case HOOK_TC:
		return DATAPATH_TC;
	}
	return DATAPATH_HOOKS;
}

/* An interface has one place for XDP programs, be they native or generic. */
static enum datapath_hook in_the_way(const struct world_interface *in,
				     enum datapath_hook wanted)
{
	enum datapath_hook other =
		wanted == DATAPATH_XDP ? DATAPATH_XDP_GENERIC : DATAPATH_XDP;

	return wanted != DATAPATH_TC && wanted != DATAPATH_HOOKS &&
			       has_ours(in, other)
		       ? other
		       : DATAPATH_HOOKS;
}

static struct change *add_link(struct planning *p,
			       const struct world_interface *in,
			       enum change_kind kind, enum change_action action,
			       enum datapath_hook hook)
{
	struct change *c =
		planning_add(p, kind, action,
			     arena_printf(p->arena, "node/link/%s", in->name));

	c->name = in->name;
	c->ifindex = in->ifindex;
	c->link.hook = hook;
	c->link.from = DATAPATH_HOOKS;
	c->detail = hook_text(hook);
	change_from_file(p, c, &p->spec->node.src);
	return c;
}

static void attach_link(struct planning *p, const struct world_interface *in,
			enum datapath_hook wanted)
{
	enum datapath_hook from = in_the_way(in, wanted);
	bool replaces =
		in->hooks[wanted] == ATTACHED_STALE || from != DATAPATH_HOOKS;
	struct change *c;

	if (in->hooks[wanted] == ATTACHED_OURS)
		return;
	c = add_link(p, in, CHANGE_LINK_ATTACH,
		     replaces ? ACTION_CHANGE : ACTION_ADD, wanted);
	c->link.from = from;
	if (in->hooks[wanted] == ATTACHED_FOREIGN)
		c->detail = arena_printf(p->arena,
					 "%s, once another's program is off",
					 c->detail);
}

/* The new hook takes over before the old one lets go. */
static void plan_link(struct planning *p, const struct world_interface *in)
{
	enum datapath_hook wanted = wanted_hook(uplink_spec(p->spec, in), in);

	if (wanted != DATAPATH_HOOKS)
		attach_link(p, in, wanted);
	for (int h = 0; h < DATAPATH_HOOKS; h++) {
		enum datapath_hook hook = (enum datapath_hook)h;

		if (hook != wanted && hook != in_the_way(in, wanted) &&
		    has_ours(in, hook))
			add_link(p, in, CHANGE_LINK_DETACH, ACTION_DESTROY,
				 hook);
	}
}

/* Backends in the tables are reached there: it was attached once. */
static bool reached_before(const struct planning *p, int ifindex)
{
	for (size_t i = 0; p->world->settled && i < p->world->service_count;
	     i++) {
		const struct world_service *s = &p->world->services[i];

		for (size_t m = 0; m < s->member_count; m++)
			if (s->members[m].id &&
			    (s->members[m].paths[0].route_ifindex == ifindex ||
			     s->members[m].paths[1].route_ifindex == ifindex))
				return true;
	}
	return false;
}

static void plan_reply(struct planning *p, const struct world_interface *in,
		       bool wanted)
{
	struct change *c;

	if (wanted && in->reply != ATTACHED_OURS) {
		c = planning_add(p, CHANGE_REPLY_ATTACH,
				 in->reply == ATTACHED_STALE ? ACTION_CHANGE
							     : ACTION_ADD,
				 arena_printf(p->arena, "node/replies/%s",
					      in->name));
		c->detail = "tc ingress, the way back";
	} else if (!wanted && (in->reply == ATTACHED_OURS ||
			       in->reply == ATTACHED_STALE)) {
		c = planning_add(p, CHANGE_REPLY_DETACH, ACTION_DESTROY,
				 arena_printf(p->arena, "node/replies/%s",
					      in->name));
	} else {
		return;
	}
	c->name = in->name;
	c->ifindex = in->ifindex;
	change_from_event(c, "where backends are reached");
	c->drift = wanted && reached_before(p, in->ifindex);
}

/* ---- addresses: both sides sorted, so that each is looked up quickly ---- */

static int by_vip(const void *a, const void *b)
{
	const struct vip_spec *x = *(const struct vip_spec *const *)a;
	const struct vip_spec *y = *(const struct vip_spec *const *)b;
	int c = ip_compare(&x->address, &y->address);

	return c ? c : x->src.line - y->src.line;
}

static void find_vips(struct planning *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->spec->service_count; i++)
		for (size_t k = 0; k < p->spec->services[i].vip_count; k++)
			*ARENA_PUSH(p->arena, p->vips, p->vip_count) =
				&p->spec->services[i].vips[k];
	if (p->vip_count)
		qsort(p->vips, p->vip_count, sizeof(const struct vip_spec *),
		      by_vip);
	for (size_t i = 0; i < p->vip_count; i++)
		if (!n ||
		    !ip_equal(&p->vips[n - 1]->address, &p->vips[i]->address))
			p->vips[n++] = p->vips[i];
	p->vip_count = n;
}

static int vip_by_address(const void *key, const void *item)
{
	return ip_compare(key,
			  &(*(const struct vip_spec *const *)item)->address);
}

static bool declared_vip(const struct planning *p, const struct ip *a)
{
	return p->vip_count &&
	       bsearch(a, p->vips, p->vip_count,
		       sizeof(const struct vip_spec *), vip_by_address);
}

static int by_address(const void *a, const void *b)
{
	return ip_compare(&((const struct world_address *)a)->address,
			  &((const struct world_address *)b)->address);
}

static const char *address_object(struct planning *p, const struct ip *a)
{
	char text[IP_STRLEN];

	return arena_printf(p->arena, "node/address/%s", ip_format(a, text));
}

static const struct world_interface *first_uplink(const struct planning *p)
{
	for (size_t i = 0; i < p->world->interface_count; i++)
		if (p->spec->node.interface_count &&
		    !strcmp(p->world->interfaces[i].name,
			    p->spec->node.interfaces[0].name))
			return &p->world->interfaces[i];
	return NULL;
}

static void add_vip_address(struct planning *p, const struct vip_spec *v,
			    const struct world_interface *up)
{
	struct change *c = planning_add(p, CHANGE_ADDRESS_ADD, ACTION_ADD,
					address_object(p, &v->address));

	c->address = v->address;
	c->ifindex = up->ifindex;
	c->name = up->name;
	c->detail = arena_printf(p->arena, "on %s", up->name);
	change_from_file(p, c, &v->src);
}

static void del_vip_address(struct planning *p, const struct world_address *a)
{
	const struct world_interface *in =
		world_interface(p->world, a->ifindex);
	struct change *c = planning_add(p, CHANGE_ADDRESS_DEL, ACTION_DESTROY,
					address_object(p, &a->address));

	c->address = a->address;
	c->ifindex = a->ifindex;
	if (in)
		c->detail = arena_printf(p->arena, "on %s", in->name);
	change_from_file(p, c, &(struct source){ .file = p->spec->path });
}

/* Ours on another interface than the first doesn't count: it moves. */
static void plan_addresses(struct planning *p)
{
	const struct world_interface *up = first_uplink(p);
	bool announce = p->spec->node.announce == ANNOUNCE_ADDRESS;
	size_t n = p->world->address_count, kept = 0;
	struct world_address *have =
		arena_alloc(p->arena, (n + 1) * sizeof(*have));

	for (size_t i = 0; i < n; i++) {
		const struct world_address *a = &p->world->addresses[i];

		if (a->ours &&
		    (!announce || !declared_vip(p, &a->address) ||
		     (up && up->ifindex && a->ifindex != up->ifindex)))
			del_vip_address(p, a);
		else
			have[kept++] = *a;
	}
	if (kept)
		qsort(have, kept, sizeof(*have), by_address);
	for (size_t i = 0; announce && up && up->ifindex && i < p->vip_count;
	     i++) {
		struct world_address key = { .address = p->vips[i]->address };

		if (!kept ||
		    !bsearch(&key, have, kept, sizeof(*have), by_address))
			add_vip_address(p, p->vips[i], up);
	}
}

/* ---- outer sources ---- */

static bool may_be_source(const struct planning *p,
			  const struct world_address *a, int ifindex)
{
	bool local = a->address.family == AF_INET6 &&
		     a->address.bytes[0] == 0xfe &&
		     (a->address.bytes[1] & 0xc0) == 0x80;

	return a->ifindex == ifindex && !a->ours && !local &&
	       !declared_vip(p, &a->address);
}

static bool is_source(const struct planning *p, const struct ip *a)
{
	const struct world_kernel *k = &p->world->kernel;

	return a->family == AF_INET
		       ? k->source4 == a->words[0]
		       : !memcmp(k->source6, a->words, sizeof(k->source6));
}

/* What is used already stays while it may. */
static void find_sources(struct planning *p)
{
	const struct world_interface *up = first_uplink(p);

	for (int f = 0; f < 2; f++)
		p->sources[f] = p->world->sources[f];
	for (size_t i = 0; up && up->ifindex && i < p->world->address_count;
	     i++) {
		const struct world_address *a = &p->world->addresses[i];
		int f = a->address.family == AF_INET6;

		if (p->world->sources[f].family ||
		    !may_be_source(p, a, up->ifindex))
			continue;
		if (!p->sources[f].family || is_source(p, &a->address))
			p->sources[f] = a->address;
	}
}

/* ---- destinations that are none of the balancer's business ---- */

static struct xlb_direct_key direct_key(const struct ip *a, int prefix)
{
	struct xlb_direct_key k = { 0 };
	struct ip net = ip_mask(a, prefix);

	if (a->family == AF_INET) {
		k.prefix_len = (uint32_t)prefix + 96;
		memcpy((char *)k.addr + 12, net.bytes, 4);
		memset((char *)k.addr + 10, 0xff, 2);
	} else {
		k.prefix_len = (uint32_t)prefix;
		memcpy(k.addr, net.bytes, 16);
	}
	return k;
}

static int compare_direct(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct xlb_direct_key));
}

/*
 * This host's own addresses (a VIP is not one of them: a guest that calls it
 * is a client), the networks in which backends are, and direct_clients.
 */
static struct xlb_direct_key *direct_keys(struct planning *p, size_t *ret_count)
{
	struct xlb_direct_key *keys = NULL;
	size_t n = 0, out = 0;

	for (size_t i = 0; i < p->world->address_count; i++) {
		const struct world_address *a = &p->world->addresses[i];
		const struct world_interface *in =
			world_interface(p->world, a->ifindex);

		if (a->ours || declared_vip(p, &a->address))
			continue;
		*ARENA_PUSH(p->arena, keys, n) =
			direct_key(&a->address, ip_bits(&a->address));
		if (in && !is_uplink(p->spec, in) && wants_reply(p, in))
			*ARENA_PUSH(p->arena, keys, n) =
				direct_key(&a->address, a->prefix);
	}
	for (size_t i = 0; i < p->spec->node.direct_client_count; i++) {
		const struct prefix *d = &p->spec->node.direct_clients[i];

		*ARENA_PUSH(p->arena, keys, n) =
			direct_key(&d->address, d->length);
	}
	if (n)
		qsort(keys, n, sizeof(*keys), compare_direct);
	for (size_t i = 0; i < n; i++)
		if (!i || compare_direct(&keys[i], &keys[out - 1]))
			keys[out++] = keys[i];
	*ret_count = out;
	return keys;
}

static void plan_direct(struct planning *p)
{
	size_t count;
	struct xlb_direct_key *keys = direct_keys(p, &count);
	struct change *c;

	if (count == p->world->direct_count &&
	    (!count || !memcmp(keys, p->world->directs, count * sizeof(*keys))))
		return;
	c = planning_add(p, CHANGE_DIRECT, ACTION_CHANGE, "node/direct");
	c->hidden = true;
	c->direct.items = keys;
	c->direct.count = count;
}

void plan_node(struct planning *p)
{
	find_replies(p);
	find_vips(p);
	for (size_t i = 0; i < p->world->interface_count; i++) {
		const struct world_interface *in = &p->world->interfaces[i];
		bool uplink = is_uplink(p->spec, in);
		bool reply = wants_reply(p, in);

		if (!in->ifindex) {
			if (uplink)
				diag_add(&p->plan->diags,
					 p->world->settled ? SEVERITY_WARNING
							   : SEVERITY_ERROR,
					 &p->spec->node.src,
					 "name an interface that exists",
					 "there is no interface %s", in->name);
			continue;
		}
		if (uplink || reply)
			plan_forwarding(p, in);
		plan_link(p, in);
		plan_reply(p, in, reply);
	}
	plan_forwarding_all(p);
	plan_addresses(p);
	find_sources(p);
	plan_direct(p);
}
