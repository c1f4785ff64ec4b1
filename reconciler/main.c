/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "reconcile.h"

struct verb {
	const char *name;
	int (*run)(const struct options *opt);
	const char *args;
	const char *help;
};

static const struct verb verbs[] = {
	{ "run", cmd_run, "[--once [--timeout D]] [--manual] [--dry-run]",
	  "watch the file and apply it until stopped (the default);\n"
	  "           --manual: apply only on `apply` or `approve`" },
	{ "plan", cmd_plan,
	  "[--json] [--out FILE] [--drift-only] [--detailed-exitcode]",
	  "what would change; changes nothing" },
	{ "diff", cmd_plan, "...", "the same as plan" },
	{ "apply", cmd_apply, "FILE [--timeout D] [--dry-run]",
	  "a plan of `plan --out`, unless file or world moved on" },
	{ "approve", cmd_apply, "PLAN_ID [--timeout D] [--dry-run]",
	  "release what is held back, once" },
	{ "check", cmd_check, "[--print]",
	  "is the file valid; needs neither root nor a hypervisor" },
	{ "status", cmd_status, "[--json] [--check]",
	  "what is; --check ends with 1 unless all is as declared" },
	{ "history", cmd_history, "[SERVICE] [--since D] [--kind K] [--json]",
	  "what happened, and why; K: scaling, change, vm, health, revision" },
	{ "drain", cmd_override, "SERVICE/BACKEND [--for D] [--dry-run]",
	  "no new connections to a backend; those it has go on" },
	{ "undrain", cmd_override, "SERVICE/BACKEND [--dry-run]",
	  "take that back" },
	{ "refresh", cmd_override, "[--dry-run]",
	  "read the file, the kernel and the hypervisors again" },
	{ "pause", cmd_keep, "SERVICE [--dry-run]",
	  "a service stays as it is: VMs, count and declaration" },
	{ "resume", cmd_keep, "SERVICE [--dry-run]", "take that back" },
	{ "unprotect", cmd_keep, "SERVICE [--dry-run]",
	  "let a protected service go that the file no longer declares" },
	{ "trace", cmd_trace,
	  "--vip A:P --from B:Q[-R] [--protocol tcp|udp] [--length N]\n"
	  "           [--ttl N] [--json], or --live [--vip A[:P]] [--from B[:Q]]\n"
	  "           [--protocol P] [--service S] [--rate N] [--count N]\n"
	  "           [--for D] [--json]",
	  "why packets of that client go where they go; --live: as they come" },
	{ "destroy", cmd_destroy, "[--yes] [--dry-run] [--timeout D]",
	  "remove all that xlb made, but for protected services" },
};

/* Verbs of the contract whose feature is still to come. */
static const char *const later[] = { "explain", "top", "adopt" };

static void usage(FILE *out)
{
	fputs("usage: xlb-reconcile [OPTION]... [VERB]\n\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		fprintf(out, "  %-8s %s\n           %s\n", verbs[i].name,
			verbs[i].args, verbs[i].help);
	}
	fputs("\nA verb that changes something takes --dry-run and shows what "
	      "it would do.\n\n"
	      "  -f FILE|DIR         the file, or a folder of *.yaml "
	      "(./services.yaml,\n"
	      "                      else /etc/xlb/services.yaml)\n"
	      "  --state-dir DIR     history, control socket, lock "
	      "(/var/lib/xlb)\n"
	      "  --bpffs DIR         pins of programs and maps "
	      "(/sys/fs/bpf/xlb)\n"
	      "  --interface IF      instead of node.interfaces; more than "
	      "once for several\n"
	      "  --hook HOOK         auto, xdp, xdp_generic or tc\n"
	      "  --libvirt URI       instead of every hypervisor's uri\n"
	      "  -v                  log more\n"
	      "  --help, --version\n\n"
	      "Durations: 500ms, 30s, 10m, 2h, 1d.\n"
	      "Exit codes: 0 done, 1 failed or declined, 2 changes pending "
	      "(with\n"
	      "--detailed-exitcode), 3 invalid file, 4 held back, 5 saved plan\n"
	      "is stale, 64 usage.\n",
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
		/* The log is the daemon's; a verb answers. */
		log_set_level(opt.verbose		? LOG_DEBUG
			      : strcmp(opt.verb, "run") ? LOG_WARN
							: LOG_INFO);
		code = -1;
		for (size_t i = 0; code < 0 && i < ARRAY_SIZE(verbs); i++)
			if (!strcmp(verbs[i].name, opt.verb))
				code = verbs[i].run(&opt);
		if (code < 0)
			code = no_such_verb(opt.verb);
	}
	options_release(&opt);
	/* A thread that hangs in a call of libvirt's would trip over what
	 * exit() takes down. */
	if (!workers_wait(0)) {
		fflush(NULL);
		_exit(code);
	}
	return code;
}
