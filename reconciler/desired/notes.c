/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a valid file asks for that its author may not know: neither wrong nor
 * doubtful, so only `check` says it.
 */
#include "desired/complain.h"
#include "desired/desired.h"
#include "desired/parse.h"

static void note(struct buf *out, const struct service_spec *s)
{
	buf_addf(out, PLACE_FMT ": note: ", PLACE_ARG(&s->src));
}

static bool is_datagrams(const struct service_spec *s)
{
	return s->protocol == PROTOCOL_UDP && s->udp == UDP_STATELESS;
}

static void note_tracking(const struct service_spec *s, struct buf *out)
{
	bool sticky = s->protocol == PROTOCOL_UDP && s->udp == UDP_STICKY;

	if (!service_tracks(s))
		return;
	note(out, s);
	if (is_datagrams(s))
		buf_addf(
			out,
			"the service \"%s\" picks a backend for every datagram anew: %s, stateless\n",
			s->name, algorithm_name(s->algorithm));
	else
		buf_addf(out, "the service \"%s\" tracks every flow: %s%s\n",
			 s->name, sticky ? "udp: " : "algorithm: ",
			 sticky ? "sticky" : algorithm_name(s->algorithm));
}

/* A fixed backend has no hypervisor that could tell of its CPU, and what is
 * compared must be of one kind. */
static void note_load(const struct service_spec *s, struct buf *out)
{
	if (s->algorithm != ALGORITHM_LEAST_LOAD || !s->backend_count)
		return;
	note(out, s);
	buf_addf(
		out,
		"least_load of \"%s\" goes by packets a second: only VMs of a pool have a known CPU load\n",
		s->name);
}

static void note_sorry(const struct service_spec *s, struct buf *out)
{
	if (!s->sorry.name || s->health.panic != PANIC_FAIL_OPEN)
		return;
	note(out, s);
	buf_addf(
		out,
		"the sorry backend of \"%s\" waits until not even a failing one is left: panic: fail_open\n",
		s->name);
}

void spec_notes(const struct spec *s, struct buf *out)
{
	for (size_t i = 0; i < s->service_count; i++) {
		note_tracking(&s->services[i], out);
		note_load(&s->services[i], out);
		note_sorry(&s->services[i], out);
	}
}
