/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trace --live: packets as they come, sampled by the programs for as long as
 * this runs.  The daemon switches that on, and off when it sees us go; the
 * samples are read here.
 */
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/standalone.h"
#include "cli/trace.h"

#define FLAGS "FSRPAUEC" /* in the order of their bits */

struct watcher {
	const struct options *opt;
	struct datapath *dp; /* to read names from */
	int64_t wall; /* ns since 1970 at 0 of the samples' clock */
	char owners[XLB_BACKENDS][XLB_NAME_MAX];
	uint32_t count;
	bool done; /* as many as asked for, or nobody reads */
};

static volatile sig_atomic_t stopped;

static void on_stop(int number)
{
	(void)number;
	stopped = 1;
}

/* ---- names ---- */

static void note_owner(void *arg, uint32_t id, const struct xlb_owner *owner)
{
	struct watcher *w = arg;

	if (id < XLB_BACKENDS)
		snprintf(w->owners[id], XLB_NAME_MAX, "%.*s", XLB_NAME_MAX - 1,
			 owner->name);
}

/* Backends come and go meanwhile. */
static const char *backend_name(struct watcher *w, uint32_t id)
{
	if (!id || id >= XLB_BACKENDS)
		return "";
	if (!w->owners[id][0]) {
		datapath_reread(w->dp);
		datapath_owners(w->dp, note_owner, w);
	}
	return w->owners[id][0] ? w->owners[id] : "?";
}

static const char *service_name(const struct watcher *w, uint32_t id)
{
	return datapath_view(w->dp)->services[id % XLB_SERVICES].name;
}

static const char *hook_name(const struct xlb_sample *s)
{
	switch ((enum xlb_hook)s->hook) {
	case XLB_HOOK_XDP:
		return "xdp";
	case XLB_HOOK_TC:
		return "tc";
	case XLB_HOOK_REPLY:
		return "reply";
	}
	return "?";
}

/* Given to the host's stack after it was rewritten, or left alone. */
static const char *verdict_name(const struct xlb_sample *s)
{
	switch ((enum xlb_verdict)s->verdict) {
	case XLB_VERDICT_PASS:
		return s->backend && s->hook != XLB_HOOK_REPLY ? "stack"
							       : "pass";
	case XLB_VERDICT_DROP:
		return "drop";
	case XLB_VERDICT_SENT:
		return s->drop ? "answered" : "sent";
	}
	return "?";
}

static const char *proto_text(const struct xlb_sample *s, char ret[8])
{
	switch (s->proto) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_ICMPV6:
		return "icmp6";
	default: /* any of the others */
		snprintf(ret, 8, "%u", s->proto);
		return ret;
	}
}

static const char *flags_text(uint8_t flags, char ret[sizeof(FLAGS)])
{
	size_t n = 0;

	for (size_t i = 0; i < sizeof(FLAGS) - 1; i++)
		if (flags & 1u << i)
			ret[n++] = FLAGS[i];
	ret[n] = '\0';
	return ret;
}

static const char *time_text(const struct watcher *w,
			     const struct xlb_sample *s, char ret[40])
{
	int64_t ns = w->wall + (int64_t)s->time;
	time_t seconds = (time_t)(ns / (int64_t)NS_PER_S);
	char date[24];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret, 40, "%s.%06dZ", date,
		 (int)(ns % (int64_t)NS_PER_S / 1000));
	return ret;
}

static struct ip address(const struct xlb_sample *s, const uint32_t words[4])
{
	struct ip a = { .family = s->family == 6 ? AF_INET6 : AF_INET };

	memcpy(a.words, words, sizeof(a.words));
	return a;
}

/* ---- one sample ---- */

static json_t *sample_json(struct watcher *w, const struct xlb_sample *s)
{
	struct ip src = address(s, s->src), dst = address(s, s->dst);
	char ifname[IF_NAMESIZE] = "?", proto[8], flags[sizeof(FLAGS)];
	char time[40], text[2][IP_STRLEN];
	json_t *j;

	if_indextoname(s->ifindex, ifname);
	j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:i}", "time",
		      time_text(w, s, time), "interface", ifname, "hook",
		      hook_name(s), "protocol", proto_text(s, proto), "source",
		      ip_format(&src, text[0]), "source_port",
		      (int)ntohs(s->sport), "destination",
		      ip_format(&dst, text[1]), "destination_port",
		      (int)ntohs(s->dport));
	if (s->proto == IPPROTO_TCP)
		json_object_set_new(
			j, "flags",
			json_string(flags_text(s->tcp_flags, flags)));
	json_object_set_new(j, "bytes", json_integer(s->bytes));
	json_object_set_new(j, "service",
			    s->service
				    ? json_string(service_name(w, s->service))
				    : json_null());
	if (s->slot != XLB_NO_SLOT)
		json_object_set_new(
			j, "slot",
			json_pack("{s:i, s:s, s:s, s:s}", "index", (int)s->slot,
				  "state", slot_state_name(s->word), "cur",
				  backend_name(w, XLB_SLOT_CUR(s->word)),
				  "prev",
				  backend_name(w, XLB_SLOT_PREV(s->word))));
	json_object_set_new(j, "backend",
			    s->backend
				    ? json_string(backend_name(w, s->backend))
				    : json_null());
	json_object_set_new(j, "verdict", json_string(verdict_name(s)));
	json_object_set_new(
		j, "drop",
		s->drop ? json_string(drop_name((enum xlb_drop)s->drop))
			: json_null());
	return j;
}

static void end_text(const struct xlb_sample *s, const uint32_t words[4],
		     uint16_t port, struct buf *out)
{
	struct ip a = address(s, words);
	char text[IP_STRLEN];

	ip_format(&a, text);
	if (port)
		buf_addf(out, a.family == AF_INET6 ? "[%s]:%u" : "%s:%u", text,
			 ntohs(port));
	else
		buf_adds(out, text);
}

static void slot_text(struct watcher *w, const struct xlb_sample *s,
		      struct buf *out)
{
	uint32_t cur = XLB_SLOT_CUR(s->word), prev = XLB_SLOT_PREV(s->word);

	if (s->slot == XLB_NO_SLOT)
		return;
	buf_addf(out, " slot %u %s", s->slot, slot_state_name(s->word));
	if (XLB_SLOT_STATE(s->word) != XLB_REST && prev != cur)
		buf_addf(out, " %s>%s", backend_name(w, prev),
			 backend_name(w, cur));
}

static void sample_text(struct watcher *w, const struct xlb_sample *s,
			struct buf *out)
{
	char ifname[IF_NAMESIZE] = "?", proto[8], flags[sizeof(FLAGS)];
	char time[40];

	if_indextoname(s->ifindex, ifname);
	buf_addf(out, "%s %s %s %s ", time_text(w, s, time) + 11, ifname,
		 hook_name(s), proto_text(s, proto));
	end_text(s, s->src, s->sport, out);
	buf_adds(out, " > ");
	end_text(s, s->dst, s->dport, out);
	if (s->proto == IPPROTO_TCP)
		buf_addf(out, " [%s]", flags_text(s->tcp_flags, flags));
	buf_addf(out, " %u bytes", s->bytes);
	if (s->service)
		buf_addf(out, " %s", service_name(w, s->service));
	slot_text(w, s, out);
	buf_addf(out, ": %s", verdict_name(s));
	if (s->drop)
		buf_addf(out, " (%s)", drop_name((enum xlb_drop)s->drop));
	if (s->backend)
		buf_addf(out, " %s %s",
			 s->hook == XLB_HOOK_REPLY ? "from" : "to",
			 backend_name(w, s->backend));
	buf_adds(out, "\n");
}

static void on_sample(void *arg, const struct xlb_sample *s)
{
	struct watcher *w = arg;
	struct buf line AUTO_BUF = BUF_INIT;
	json_t *j;
	char *text;

	if (w->done)
		return;
	if (w->opt->json) {
		j = sample_json(w, s);
		text = json_dumps(j, JSON_COMPACT);
		buf_addf(&line, "%s\n", text ? text : "{}");
		free(text);
		json_decref(j);
	} else {
		sample_text(w, s, &line);
	}
	w->count++;
	if (fputs(buf_str(&line), stdout) < 0 || fflush(stdout) ||
	    (w->opt->count && w->count >= w->opt->count))
		w->done = true;
}

/* ---- the verb ---- */

/* Until it is enough, the daemon says so, or somebody here does. */
static void watch(struct watcher *w, struct sampler *sampler, int session)
{
	struct pollfd fds[] = { { .fd = sampler_fd(sampler), .events = POLLIN },
				{ .fd = session, .events = POLLIN } };

	while (!w->done && !stopped) {
		int n = poll(fds, ARRAY_SIZE(fds), 1000);

		if (n < 0 && errno != EINTR)
			return;
		sampler_take(sampler);
		if (n > 0 && fds[1].revents)
			return;
	}
}

static int64_t wall_offset(void)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	return (int64_t)wall.tv_sec * (int64_t)NS_PER_S + wall.tv_nsec -
	       (int64_t)clock_ns();
}

static int complain(const char *what, int err)
{
	fprintf(stderr, "error: %s: %s\n", what, strerror(-err));
	return EXIT_FAILED;
}

static int read_samples(const struct options *opt, int session)
{
	struct datapath_config cfg = { .bpffs = opt->bpffs, .read_only = true };
	struct watcher *w = mem_alloc(sizeof(*w));
	struct diag_list diags = { 0 };
	struct sampler *sampler = NULL;
	int code = EXIT_DONE, err;

	w->opt = opt;
	w->wall = wall_offset();
	err = datapath_open(&cfg, &w->dp, &diags);
	if (!err)
		err = sampler_open(opt->bpffs, on_sample, w, &sampler);
	if (!err) {
		fputs("packets are sampled; Ctrl-C ends it\n", stderr);
		watch(w, sampler, session);
		if (!opt->json)
			fprintf(stderr, "%u packets\n", w->count);
	} else {
		code = complain(opt->bpffs, err);
	}
	sampler_close(sampler);
	datapath_close(w->dp);
	diag_list_release(&diags);
	free(w);
	return code;
}

int cmd_trace_live(const struct options *opt)
{
	const struct sigaction stop = { .sa_handler = on_stop };
	struct buf out AUTO_BUF = BUF_INIT;
	int session = -1, code;

	code = control_hold(opt, &out, &session);
	if (code == -ENOENT) {
		fprintf(stderr,
			"error: no xlb-reconcile runs with the state dir %s, "
			"and it is what switches sampling on\n"
			"    hint: start it (xlb-reconcile run), or name its "
			"--state-dir\n",
			opt->state_dir);
		return EXIT_FAILED;
	}
	if (code < 0)
		complain_of_daemon(opt, code, &out);
	if (code) {
		fputs(buf_str(&out), stderr);
		return code < 0 ? EXIT_FAILED : code;
	}
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	code = read_samples(opt, session);
	close(session);
	return code;
}
