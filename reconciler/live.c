/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's side of `trace --live`: programs that sample packets while
 * somebody looks, and no longer.  It ends when the client goes, however it
 * does, or its time is over; the kernel keeps that time too, should this
 * process die.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/trace.h"

#define LASTS_DEFAULT (30 * NS_PER_S)
#define LASTS_MOST (3600 * NS_PER_S)
#define RATE_DEFAULT 100 /* a second */
#define BURST_PART 2 /* of a second: so much may come at once */

struct live {
	struct reconciler *r;
	struct loop_source *timer;
};

static int complain(struct buf *out, const char *what, const char *value,
		    const char *hint)
{
	buf_addf(out, "error: %s%s%s\n    hint: %s\n", what, value ? ": " : "",
		 value ? value : "", hint);
	return EXIT_FAILED;
}

/* "192.0.2.1", "[2001:db8::1]:80"; ret_port in network order, 0: any. */
static bool parse_end(const char *text, struct xlb_trace *w, uint32_t words[4],
		      uint16_t *ret_port)
{
	struct endpoint e = { 0 };
	uint8_t family;

	if (!ip_parse(text, &e.address) && !endpoint_parse(text, false, &e))
		return false;
	family = e.address.family == AF_INET6 ? 6 : 4;
	if (w->family && w->family != family)
		return false;
	w->family = family;
	memcpy(words, e.address.words, sizeof(e.address.words));
	*ret_port = htons(e.port);
	return true;
}

static bool find_service(const struct reconciler *r, const char *name,
			 uint32_t *ret)
{
	const struct xlb_service *services = datapath_view(r->dp)->services;

	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (!strcmp(services[id].name, name)) {
			*ret = id;
			return true;
		}
	return false;
}

static uint8_t protocol_number(const struct options *opt)
{
	if (!opt->protocol)
		return 0;
	return strcmp(opt->protocol, "tcp") != 0 ? IPPROTO_UDP : IPPROTO_TCP;
}

static int what_is_asked(const struct reconciler *r, const struct options *opt,
			 struct xlb_trace *w, struct buf *out)
{
	uint32_t rate = opt->rate ? opt->rate : RATE_DEFAULT;
	uint64_t lasts = LASTS_DEFAULT;

	*w = (struct xlb_trace){ .interval = NS_PER_S / rate,
				 .burst = NS_PER_S / BURST_PART,
				 .proto = protocol_number(opt),
				 .has_vip = opt->vip != NULL,
				 .has_client = opt->from != NULL };
	if (opt->lasts)
		parse_duration(opt->lasts, &lasts);
	if (lasts > LASTS_MOST)
		return complain(out, "--for is too long", opt->lasts,
				"an hour at most");
	w->until = clock_ns() + lasts;
	if (opt->vip && !parse_end(opt->vip, w, w->vip, &w->vip_port))
		return complain(out, "--vip names no address", opt->vip,
				"an address, or ADDRESS:PORT");
	if (opt->from && !parse_end(opt->from, w, w->client, &w->client_port))
		return complain(out, "--from names no client", opt->from,
				"an address, or ADDRESS:PORT, of the family "
				"of --vip");
	if (opt->service && !find_service(r, opt->service, &w->service))
		return complain(out, "no such service in the kernel",
				opt->service,
				"`xlb-reconcile status` lists them");
	return EXIT_DONE;
}

void live_end(struct reconciler *r)
{
	struct diag_list diags = { 0 };
	struct live *l = r->live;

	if (!l)
		return;
	r->live = NULL;
	if (datapath_trace_stop(r->dp, &diags))
		log_error("trace", "is=on result=not_stopped why=\"%s\"",
			  diags.count ? diags.items[0].message : "?");
	else
		log_info("trace", "is=off");
	diag_list_release(&diags);
	loop_remove(l->timer);
	free(l);
	reconcile_soon(r);
}

static void on_time(void *arg)
{
	struct live *l = arg;
	struct reconciler *r = l->r;

	live_end(r);
	control_dismiss(r->control);
}

int live_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	struct diag_list diags = { 0 };
	struct xlb_trace what;
	struct live *l;
	int code;

	if (r->read_only || !r->dp)
		return complain(out, "nothing of xlb is loaded", NULL,
				"`xlb-reconcile run` loads it");
	if (r->live)
		return complain(out, "somebody traces packets already", NULL,
				"wait for its end");
	code = what_is_asked(r, opt, &what, out);
	if (code)
		return code;
	if (datapath_trace_start(r->dp, &what, &diags)) {
		diag_list_print(&diags, out);
		diag_list_release(&diags);
		return EXIT_FAILED;
	}
	diag_list_release(&diags);
	log_info("trace", "is=on");
	l = mem_alloc(sizeof(*l));
	l->r = r;
	l->timer = loop_add_timer(r->loop, on_time, l);
	loop_arm(l->timer, what.until);
	r->live = l;
	/* Its end is how the client knows it is all. */
	buf_addf(out, "%llu\n", (unsigned long long)what.until);
	return EXIT_DONE;
}
