/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Why a packet goes where it goes, in a sentence. */
#include <string.h>

#include "cli/trace.h"

#define SAY(f, ...) arena_printf((f)->arena, __VA_ARGS__)

/* "since web-2 drains"; what is known of why a slot changed hands. */
static const char *why_moved(const struct trace_flow *f, uint32_t word)
{
	uint32_t cur = XLB_SLOT_CUR(word), prev = XLB_SLOT_PREV(word);
	const struct world_service *s;
	const struct world_member *m = trace_member(f->w, prev, &s);
	const char *why = m && !f->r->read_only ? member_why(m) : NULL;

	if (!prev || prev == cur)
		return "";
	if (!m)
		return SAY(f, ", since %s", trace_name(f, prev));
	if (why)
		return SAY(f, ", since %s %s", m->name, why);
	return SAY(f, ", since %s joined or weights changed",
		   trace_name(f, cur));
}

static const char *slot_words(const struct trace_flow *f, uint32_t slot,
			      uint32_t word)
{
	uint32_t cur = XLB_SLOT_CUR(word), prev = XLB_SLOT_PREV(word);

	switch ((enum xlb_slot_state)XLB_SLOT_STATE(word)) {
	case XLB_REST:
		return SAY(f, "slot %u is at rest and %s's", slot,
			   trace_name(f, cur));
	case XLB_MOVING:
		if (cur == prev)
			return SAY(f,
				   "slot %u is %s's, and its flows are still "
				   "being found out",
				   slot, trace_name(f, cur));
		return SAY(f, "slot %u is moving from %s to %s%s", slot,
			   trace_name(f, prev), trace_name(f, cur),
			   why_moved(f, word));
	case XLB_SETTLED:
		return SAY(f, "slot %u is %s's; it moved, and memories remain",
			   slot, trace_name(f, cur));
	case XLB_HELD:
		return SAY(f,
			   "slot %u is moving from %s to %s, and new clients "
			   "still go to the former%s",
			   slot, trace_name(f, prev), trace_name(f, cur),
			   why_moved(f, word));
	}
	return "";
}

/* ---- where it isn't for a service, or nobody looks ---- */

static const char *undeclared(const struct trace_flow *f)
{
	const struct datapath_view *view = datapath_view(f->r->dp);
	const struct xlb_vip *vips =
		view->vips +
		(size_t)(view->control->vip_copy & 1) * XLB_VIP_LINES;
	const char *proto = f->proto == IPPROTO_TCP ? "tcp" : "udp";
	const char *others = "";

	for (size_t i = 0; i < XLB_VIP_LINES; i++)
		if (vips[i].proto && !memcmp(vips[i].addr, f->vip.words, 16))
			others = SAY(
				f, "%s%s%s/%u", others, *others ? ", " : "",
				vips[i].proto == IPPROTO_TCP ? "tcp" : "udp",
				ntohs(vips[i].port));
	if (*others)
		return SAY(f,
			   "not a declared service: passed to this host; at "
			   "that address there are %s",
			   others);
	return SAY(f, "%s to %s is not a declared service: passed to this host",
		   proto, endpoint_text(f->arena, &f->vip, f->port));
}

static const char *unhooked(const struct trace_flow *f)
{
	if (!f->way.in)
		return "no interface leads to that client: what comes from it "
		       "isn't seen";
	if (f->way.uplink)
		return SAY(f,
			   "no program of xlb is attached to %s: every packet "
			   "passes",
			   f->way.in->name);
	return SAY(f,
		   "packets of that client come in by %s, which is no uplink "
		   "of services.yaml: they aren't balanced",
		   f->way.in->name);
}

/* ---- dropped ---- */

static const char *nobody_up(const struct trace_flow *f,
			     const struct replay_result *res)
{
	const struct xlb_service *k =
		&datapath_view(f->r->dp)->services[res->vip.service];
	const struct world_service *s = NULL;
	size_t up = 0;

	for (size_t i = 0; i < f->w->service_count; i++)
		if (!strcmp(f->w->services[i].name, k->name))
			s = &f->w->services[i];
	for (size_t i = 0; s && i < s->member_count; i++)
		up += s->members[i].health == HEALTH_UP;
	if (s && !s->member_count)
		return SAY(f, "dropped: %s has no backends", k->name);
	if (!up)
		return SAY(f, "dropped: no backend of %s is up", k->name);
	return SAY(f, "dropped: slot %u is nobody's", res->slot);
}

static const char *backend_name(const struct trace_flow *f,
				const struct replay_result *res)
{
	return trace_name(f, res->backend);
}

static const char *too_big(const struct trace_flow *f,
			   const struct replay_result *res)
{
	const struct xlb_backend *line =
		&datapath_view(f->r->dp)->backends[res->backend];
	bool inside = res->vip.forwarding >= XLB_IPIP;

	return SAY(f, "%u bytes%s are over the MTU of %u on the way to %s: %s",
		   f->length, inside ? " and the outer headers" : "", line->mtu,
		   backend_name(f, res),
		   res->verdict == REPLAY_ANSWERED
			   ? "the client is told by ICMP"
			   : "dropped");
}

static const char *dropped(const struct trace_flow *f,
			   const struct replay_result *res)
{
	const char *name = backend_name(f, res);

	switch (res->drop) {
	case XLB_DROP_NO_BACKEND:
		return nobody_up(f, res);
	case XLB_DROP_NO_NEXT_HOP:
		return SAY(f,
			   "dropped: the way to %s isn't known, its neighbour "
			   "hasn't answered in this family",
			   name);
	case XLB_DROP_TTL:
		return "dropped: its hop limit ends here";
	case XLB_DROP_TOO_BIG:
		return too_big(f, res);
	case XLB_DROP_HAIRPIN:
		return SAY(f,
			   "dropped: it comes from %s itself, whose own turn "
			   "it is",
			   name);
	case XLB_DROP_ENCAP:
		return SAY(
			f,
			"dropped: there is no room for the outer headers, or "
			"this host has no address to send them to %s from",
			name);
	case XLB_DROP_MALFORMED:
	case XLB_DROP_FRAGMENT:
	case XLB_DROP_REPLY_TOO_BIG:
	case XLB_DROP_REPLY_NO_ROUTE:
	case XLB_DROP_ICMP:
	case XLB_DROP_HEADERS:
	case XLB_DROP_NONE:
	case XLB_DROP_MAX:
		break;
	}
	return SAY(f, "dropped: %s", drop_name(res->drop));
}

/* ---- chosen ---- */

static const char *picked(const struct trace_flow *f,
			  const struct replay_result *res)
{
	if (res->vip.flags & XLB_VIP_SCHEDULE)
		return "it goes to the next in turn of the CPU that gets it, "
		       "which nobody can foretell";
	if (res->vip.flags & XLB_VIP_TWO_CHOICES)
		return "it goes to the less loaded of two at random";
	return SAY(f, "it goes to anyone at random (%s)",
		   slot_words(f, res->slot, res->word));
}

static const char *remembered(const struct trace_flow *f,
			      const struct replay_result *res)
{
	const char *slot = res->vip.flags & XLB_VIP_PICKS
				   ? "every flow is remembered"
				   : slot_words(f, res->slot, res->word);

	return SAY(f, "%s; this flow is remembered at %s", slot,
		   trace_name(f, XLB_FLOW_BACKEND(res->known)));
}

/* A flow that isn't remembered, and isn't new. */
static const char *unknown(const struct trace_flow *f,
			   const struct replay_result *res)
{
	const char *slot = slot_words(f, res->old_slot, res->old_word);
	uint32_t prev = XLB_SLOT_PREV(res->old_word);
	bool moving = XLB_SLOT_STATE(res->old_word) == XLB_MOVING ||
		      XLB_SLOT_STATE(res->old_word) == XLB_HELD;

	if (moving && prev && res->backend == prev &&
	    prev != XLB_SLOT_CUR(res->old_word))
		return SAY(f,
			   "%s; this flow isn't remembered, so it was there "
			   "before: it goes to %s%s",
			   slot, trace_name(f, prev),
			   res->remembers ? ", and is remembered then" : "");
	return SAY(f, "%s; this flow isn't remembered%s", slot,
		   res->remembers ? ", and will be then" : "");
}

static const char *new_one(const struct trace_flow *f,
			   const struct replay_result *res)
{
	const char *slot = slot_words(f, res->slot, res->word);

	if (res->client && XLB_FLOW_BACKEND(res->client) == res->backend)
		return SAY(f, "%s; this client sticks to %s", slot,
			   backend_name(f, res));
	if (res->backend == XLB_SLOT_CUR(res->word))
		return SAY(f, "%s; new flows go to %s", slot,
			   backend_name(f, res));
	return SAY(f, "%s; this one goes to %s", slot, backend_name(f, res));
}

/*
 * A memory leads datagrams and what isn't a SYN.  (A SYN never changes a
 * memory, nor is it led by one.)
 */
static const char *chosen(const struct trace_flow *f, enum trace_packet kind,
			  const struct replay_result *res)
{
	if (res->picked)
		return picked(f, res);
	if (res->decides)
		return SAY(f, "%s, and that alone decides",
			   slot_words(f, res->slot, res->word));
	if (kind != TRACE_NEW && res->known &&
	    XLB_FLOW_BACKEND(res->known) == res->backend)
		return remembered(f, res);
	return kind == TRACE_EXISTING ? unknown(f, res) : new_one(f, res);
}

const char *trace_why(const struct trace_flow *f, enum trace_packet kind,
		      const struct replay_result *res)
{
	const char *why;

	if (f->way.hook < 0 && f->way.replies && res->declared)
		return SAY(f,
			   "dropped: packets of that client come in by %s, "
			   "where backends are, and a VIP isn't reached from "
			   "there",
			   f->way.in->name);
	if (f->way.hook < 0)
		return unhooked(f);
	if (!res->declared)
		return undeclared(f);
	if (res->drop)
		return dropped(f, res);
	why = chosen(f, kind, res);
	if (res->verdict == REPLAY_PASS)
		return SAY(f,
			   "%s; it is given to this host's stack, which "
			   "routes it there",
			   why);
	return why;
}
