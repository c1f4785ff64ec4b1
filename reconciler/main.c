/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

struct verb {
	const char *name;
	int (*run)(const struct options *opt);
	const char *args;
	const char *help;
};

static const struct verb verbs[] = {
	{ "run", cmd_run, "[--once [--timeout D]]",
	  "watch the file and apply it until stopped (the default)" },
	{ "plan", cmd_plan, "[--detailed-exitcode]",
	  "what would change; changes nothing" },
	{ "diff", cmd_plan, "", "the same as plan" },
	{ "check", cmd_check, "[--print]", "is the file valid; needs no root" },
	{ "status", cmd_status, "[--json] [--check]", "what is" },
	{ "history", cmd_history, "[SERVICE] [--since D] [--kind K] [--json]",
	  "what happened, and why" },
	{ "drain", cmd_override, "SERVICE/BACKEND [--for D]",
	  "no new flows to a backend" },
	{ "undrain", cmd_override, "SERVICE/BACKEND", "take that back" },
	{ "refresh", cmd_override, "", "read everything again" },
	{ "destroy", cmd_destroy, "[--yes]",
	  "remove all that xlb made: VMs, VIPs, programs" },
};

/* Verbs of the contract whose feature is still to come. */
static const char *const later[] = { "apply",  "approve", "explain",
				     "trace",  "top",	  "pause",
				     "resume", "adopt",	  "unprotect" };

static void usage(FILE *out)
{
	fputs("usage: xlb-reconcile [-f FILE|DIR] [--state-dir DIR] [--bpffs DIR]\n"
	      "                     [--interface IF]... [--hook HOOK] [--libvirt URI]\n"
	      "                     [-v] [VERB]\n\n",
	      out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-8s %-42s %s\n", verbs[i].name, verbs[i].args,
			verbs[i].help);
	fputs("\n--dry-run shows what a verb that changes something would do.\n"
	      "Exit codes: 0 done, 1 failed, 2 changes pending (with\n"
	      "--detailed-exitcode), 3 invalid file, 4 held back, 64 usage.\n",
	      out);
}

static int no_such_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		if (strcmp(later[i], name) != 0)
			continue;
		fprintf(stderr, "xlb-reconcile: %s is not supported yet\n",
			name);
		return EXIT_USAGE;
	}
	fprintf(stderr, "xlb-reconcile: there is no verb %s; see --help\n",
		name);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	struct options opt;
	struct buf err = BUF_INIT;
	int code = options_parse(argc, argv, &opt, &err);

	if (err.len)
		fprintf(stderr, "xlb-reconcile: %s\n", buf_str(&err));
	buf_release(&err);
	if (code)
		return code;
	if (opt.help) {
		usage(stdout);
		code = EXIT_DONE;
	} else if (opt.version) {
		printf("xlb-reconcile %s\n", XLB_VERSION);
	} else {
		log_set_level(opt.verbose ? LOG_DEBUG : LOG_INFO);
		code = -1;
		for (size_t i = 0; code < 0 && i < ARRAY_SIZE(verbs); i++)
			if (!strcmp(verbs[i].name, opt.verb))
				code = verbs[i].run(&opt);
		if (code < 0)
			code = no_such_verb(opt.verb);
	}
	options_release(&opt);
	return code;
}
