/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reconcile.h"

enum long_option {
	OPT_STATE_DIR = 256,
	OPT_BPFFS,
	OPT_INTERFACE,
	OPT_HOOK,
	OPT_LIBVIRT,
	OPT_LISTEN,
	OPT_ONCE,
	OPT_TIMEOUT,
	OPT_JSON,
	OPT_DRY_RUN,
	OPT_DETAILED,
	OPT_YES,
	OPT_SINCE,
	OPT_KIND,
	OPT_FOR,
	OPT_PRINT,
	OPT_MANUAL,
	OPT_OUT,
	OPT_DRIFT_ONLY,
	OPT_CHECK,
	OPT_VIP,
	OPT_FROM,
	OPT_PROTOCOL,
	OPT_LENGTH,
	OPT_TTL,
	OPT_LIVE,
	OPT_SERVICE,
	OPT_RATE,
	OPT_COUNT,
	OPT_HELP,
	OPT_VERSION,
	OPT_LATER,
};

static const struct option longs[] = {
	{ "state-dir", required_argument, NULL, OPT_STATE_DIR },
	{ "bpffs", required_argument, NULL, OPT_BPFFS },
	{ "interface", required_argument, NULL, OPT_INTERFACE },
	{ "hook", required_argument, NULL, OPT_HOOK },
	{ "libvirt", required_argument, NULL, OPT_LIBVIRT },
	{ "listen", required_argument, NULL, OPT_LATER },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
	{ "detailed-exitcode", no_argument, NULL, OPT_DETAILED },
	{ "yes", no_argument, NULL, OPT_YES },
	{ "since", required_argument, NULL, OPT_SINCE },
	{ "kind", required_argument, NULL, OPT_KIND },
	{ "for", required_argument, NULL, OPT_FOR },
	{ "print", no_argument, NULL, OPT_PRINT },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "vip", required_argument, NULL, OPT_VIP },
	{ "from", required_argument, NULL, OPT_FROM },
	{ "protocol", required_argument, NULL, OPT_PROTOCOL },
	{ "length", required_argument, NULL, OPT_LENGTH },
	{ "ttl", required_argument, NULL, OPT_TTL },
	{ "live", no_argument, NULL, OPT_LIVE },
	{ "service", required_argument, NULL, OPT_SERVICE },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "manual", no_argument, NULL, OPT_MANUAL },
	{ "out", required_argument, NULL, OPT_OUT },
	{ "drift-only", no_argument, NULL, OPT_DRIFT_ONLY },
	{ "at", required_argument, NULL, OPT_LATER },
	{ 0 },
};

/* Which options say something to which verb, beside those about the node. */
struct grammar {
	const char *verb;
	uint64_t takes; /* bits of enum long_option, from OPT_STATE_DIR */
	size_t least, most; /* words after the verb */
	const char *words;
};

#define BIT(option) (1ull << ((option)-OPT_STATE_DIR))
#define ANYWHERE                                                    \
	(BIT(OPT_STATE_DIR) | BIT(OPT_BPFFS) | BIT(OPT_INTERFACE) | \
	 BIT(OPT_HOOK) | BIT(OPT_LIBVIRT) | BIT(OPT_HELP) | BIT(OPT_VERSION))

/* Of whatever prints a plan; only a plan of all that is can be saved. */
#define PREVIEWS                                                   \
	(BIT(OPT_JSON) | BIT(OPT_DRIFT_ONLY) | BIT(OPT_DETAILED) | \
	 BIT(OPT_DRY_RUN))
#define PLANS (PREVIEWS | BIT(OPT_OUT))

static const struct grammar grammars[] = {
	{ "run", BIT(OPT_ONCE) | BIT(OPT_TIMEOUT) | BIT(OPT_MANUAL) | PLANS, 0,
	  0, "no words" },
	{ "plan", PLANS, 0, 0, "no words" },
	{ "diff", PLANS, 0, 0, "no words" },
	{ "apply", BIT(OPT_TIMEOUT) | PREVIEWS, 1, 1, "one FILE" },
	{ "approve", BIT(OPT_TIMEOUT) | PREVIEWS, 1, 1, "one PLAN_ID" },
	{ "check", BIT(OPT_PRINT), 0, 0, "no words" },
	{ "status", BIT(OPT_JSON) | BIT(OPT_CHECK), 0, 0, "no words" },
	{ "history", BIT(OPT_JSON) | BIT(OPT_SINCE) | BIT(OPT_KIND), 0, 1,
	  "one SERVICE at most" },
	{ "drain", PREVIEWS | BIT(OPT_FOR), 1, 1, "SERVICE/BACKEND" },
	{ "undrain", PREVIEWS, 1, 1, "SERVICE/BACKEND" },
	{ "refresh", PREVIEWS, 0, 0, "no words" },
	{ "pause", PREVIEWS, 1, 1, "SERVICE" },
	{ "resume", PREVIEWS, 1, 1, "SERVICE" },
	{ "unprotect", PREVIEWS, 1, 1, "SERVICE" },
	{ "trace",
	  BIT(OPT_VIP) | BIT(OPT_FROM) | BIT(OPT_PROTOCOL) | BIT(OPT_LENGTH) |
		  BIT(OPT_TTL) | BIT(OPT_JSON) | BIT(OPT_LIVE) |
		  BIT(OPT_SERVICE) | BIT(OPT_RATE) | BIT(OPT_COUNT) |
		  BIT(OPT_FOR),
	  0, 0, "no words" },
	{ "destroy", BIT(OPT_DRY_RUN) | BIT(OPT_YES) | BIT(OPT_TIMEOUT), 0, 0,
	  "no words" },
};

bool parse_duration(const char *s, uint64_t *ret_ns)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = { { "ms", NS_PER_MS },
		      { "s", NS_PER_S },
		      { "m", 60 * NS_PER_S },
		      { "h", 3600 * NS_PER_S },
		      { "d", 86400 * NS_PER_S } };
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (end == s || n > 1000000000UL)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcmp(end, units[i].unit)) {
			*ret_ns = n * units[i].ns;
			return true;
		}
	return false;
}

static int set_paths(int c, struct options *o)
{
	switch (c) {
	case 'f':
		o->file = optarg;
		o->file_given = true;
		return 0;
	case OPT_STATE_DIR:
		o->state_dir = optarg;
		return 0;
	case OPT_BPFFS:
		o->bpffs = optarg;
		return 0;
	case OPT_INTERFACE:
		*MEM_PUSH(o->interfaces, o->interface_count) = optarg;
		return 0;
	case OPT_LIBVIRT:
		o->libvirt = optarg;
		return 0;
	case OPT_HOOK:
		o->hook = optarg;
		return 0;
	default:
		return -1;
	}
}

static int set_texts(int c, struct options *o)
{
	switch (c) {
	case OPT_SINCE:
		o->since = optarg;
		return 0;
	case OPT_KIND:
		o->kind = optarg;
		return 0;
	case OPT_FOR:
		o->lasts = optarg;
		return 0;
	case OPT_OUT:
		o->out = optarg;
		return 0;
	default:
		return -1;
	}
}

static int set_trace(int c, struct options *o)
{
	const struct {
		int option;
		const char **text;
	} texts[] = { { OPT_VIP, &o->vip },
		      { OPT_FROM, &o->from },
		      { OPT_PROTOCOL, &o->protocol },
		      { OPT_SERVICE, &o->service } };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].option == c)
			return *texts[i].text = optarg, 0;
	if (c == OPT_LIVE)
		return o->live = true, 0;
	return -1;
}

/* Whole numbers with their bounds.  1: it isn't one of these options. */
static int set_number(int c, struct options *o, struct buf *err)
{
	const struct {
		int option;
		const char *name;
		uint32_t *to;
		unsigned long least, most;
	} numbers[] = { { OPT_LENGTH, "length", &o->length, 60, 65535 },
			{ OPT_TTL, "ttl", &o->ttl, 1, 255 },
			{ OPT_RATE, "rate", &o->rate, 1, 100000 },
			{ OPT_COUNT, "count", &o->count, 1, 1000000000 } };
	size_t i = 0;
	unsigned long n;
	char *end;

	while (i < ARRAY_SIZE(numbers) && numbers[i].option != c)
		i++;
	if (i == ARRAY_SIZE(numbers))
		return 1;
	n = strtoul(optarg, &end, 10);
	if (c == OPT_RATE && !strcmp(end, "/s"))
		end += 2;
	if (*end || *optarg < '0' || *optarg > '9' || n < numbers[i].least ||
	    n > numbers[i].most) {
		buf_addf(err, "--%s %s is not a number from %lu to %lu",
			 numbers[i].name, optarg, numbers[i].least,
			 numbers[i].most);
		return EXIT_USAGE;
	}
	*numbers[i].to = (uint32_t)n;
	return 0;
}

static int set_switches(int c, struct options *o)
{
	switch (c) {
	case 'v':
		return o->verbose = true, 0;
	case OPT_ONCE:
		return o->once = true, 0;
	case OPT_JSON:
		return o->json = true, 0;
	case OPT_DRY_RUN:
		return o->dry_run = true, 0;
	case OPT_DETAILED:
		return o->detailed_exitcode = true, 0;
	case OPT_YES:
		return o->yes = true, 0;
	case OPT_PRINT:
		return o->print = true, 0;
	case OPT_MANUAL:
		return o->manual = true, 0;
	case OPT_DRIFT_ONLY:
		return o->drift_only = true, 0;
	case OPT_CHECK:
		return o->check = true, 0;
	case OPT_HELP:
	case 'h':
		return o->help = true, 0;
	case OPT_VERSION:
		return o->version = true, 0;
	default:
		return -1;
	}
}

static bool known_kind(const char *kind)
{
	static const char *const kinds[] = { "scaling", "change", "vm",
					     "health", "revision" };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i], kind))
			return true;
	return false;
}

bool hook_parse(const char *s, enum hook *ret)
{
	static const char *const names[] = {
		[HOOK_AUTO] = "auto",
		[HOOK_XDP] = "xdp",
		[HOOK_XDP_GENERIC] = "xdp_generic",
		[HOOK_TC] = "tc",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], s) != 0)
			continue;
		*ret = (enum hook)i;
		return true;
	}
	return false;
}

static int check_values(const struct options *o, struct buf *err)
{
	uint64_t ns;

	enum hook hook;

	if (o->hook && !hook_parse(o->hook, &hook))
		buf_addf(err,
			 "--hook %s is not one of auto, xdp, xdp_generic, tc",
			 o->hook);
	else if (o->lasts && (!parse_duration(o->lasts, &ns) || !ns))
		buf_addf(err, "--for %s is not a duration such as 10m",
			 o->lasts);
	else if (o->since && !parse_duration(o->since, &ns))
		buf_addf(err, "--since %s is not a duration such as 2h",
			 o->since);
	else if (o->kind && !known_kind(o->kind))
		buf_addf(err,
			 "--kind %s is not one of scaling, change, vm, "
			 "health, revision",
			 o->kind);
	else if (o->protocol && strcmp(o->protocol, "tcp") != 0 &&
		 strcmp(o->protocol, "udp") != 0)
		buf_addf(err, "--protocol %s is not one of tcp, udp",
			 o->protocol);
	return err->len ? EXIT_USAGE : 0;
}

static const char *option_name(uint64_t bit)
{
	for (size_t i = 0; longs[i].name; i++)
		if (longs[i].val >= OPT_STATE_DIR && longs[i].val < OPT_LATER &&
		    BIT(longs[i].val) == bit)
			return longs[i].name;
	return "";
}

static void check_plan_options(const struct options *o, uint64_t given,
			       struct buf *err)
{
	uint64_t plans = given & PLANS & ~BIT(OPT_DRY_RUN);
	static const char *const answers[] = { "plan",	  "diff",    "status",
					       "history", "explain", "trace",
					       "adopt" };
	bool plain = false;

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		plain |= !strcmp(o->verb, answers[i]);
	if (plans && !plain && !o->dry_run)
		buf_addf(err, "--%s goes with plan, or with --dry-run",
			 option_name(plans & -plans));
	else if (o->out && o->drift_only)
		buf_adds(err, "--out saves whole plans, and --drift-only is "
			      "but a part of one");
	else if (o->once && o->manual)
		buf_adds(err, "--manual waits for `apply`, and --once waits "
			      "for nobody");
}

/* What would be ignored is refused: it was meant to do something. */
static int check_grammar(const struct options *o, uint64_t given,
			 struct buf *err)
{
	const struct grammar *g = NULL;
	uint64_t wrong;

	for (size_t i = 0; i < ARRAY_SIZE(grammars); i++)
		if (!strcmp(grammars[i].verb, o->verb))
			g = &grammars[i];
	if (!g || o->help || o->version)
		return 0; /* main says that there is no such verb */
	wrong = given & ~(g->takes | ANYWHERE);
	if (wrong)
		buf_addf(err, "%s has no option --%s; see --help", o->verb,
			 option_name(wrong & -wrong));
	else if (o->arg_count < g->least || o->arg_count > g->most)
		buf_addf(err, "%s takes %s; see --help", o->verb, g->words);
	else if (!strncmp(g->words, "SERVICE/", 8) && !strchr(o->args[0], '/'))
		buf_addf(err, "%s takes SERVICE/BACKEND, and %s has no slash",
			 o->verb, o->args[0]);
	else if ((given & BIT(OPT_TIMEOUT)) && !strcmp(o->verb, "run") &&
		 !o->once)
		buf_adds(err, "--timeout goes with run --once");
	else
		check_plan_options(o, given, err);
	return err->len ? EXIT_USAGE : 0;
}

static const char *default_file(void)
{
	return access("services.yaml", F_OK) == 0 ? "services.yaml"
						  : "/etc/xlb/services.yaml";
}

int options_parse(int argc, char **argv, struct options *o, struct buf *err)
{
	uint64_t given = 0;
	int c, at = 0;

	*o = (struct options){ .state_dir = "/var/lib/xlb",
			       .bpffs = "/sys/fs/bpf/xlb",
			       .timeout = 300 * NS_PER_S,
			       .verb = "run" };
	optind = 0; /* the daemon parses requests of clients, too */
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":f:vh", longs, &at)) != -1) {
		if (c == '?' || c == ':') {
			buf_addf(err, "%s: %s; see --help", argv[optind - 1],
				 c == '?' ? "no such option" : "needs a value");
			return EXIT_USAGE;
		}
		if (c == OPT_LATER) {
			buf_addf(err, "--%s is not supported yet",
				 longs[at].name);
			return EXIT_USAGE;
		}
		if (c == OPT_TIMEOUT && !parse_duration(optarg, &o->timeout)) {
			buf_addf(err,
				 "--timeout %s is not a duration such as 5m",
				 optarg);
			return EXIT_USAGE;
		}
		if (c >= OPT_STATE_DIR)
			given |= BIT(c);
		if (set_number(c, o, err) == EXIT_USAGE)
			return EXIT_USAGE;
		if (set_paths(c, o) && set_texts(c, o) && set_trace(c, o))
			set_switches(c, o);
	}
	o->file_given = o->file != NULL;
	if (!o->file)
		o->file = default_file();
	if (optind < argc)
		o->verb = argv[optind++];
	o->args = (const char **)argv + optind;
	o->arg_count = (size_t)(argc - optind);
	if (check_values(o, err) || check_grammar(o, given, err))
		return EXIT_USAGE;
	return 0;
}

void options_release(struct options *o)
{
	free(o->interfaces);
}
