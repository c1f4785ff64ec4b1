/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/standalone.h"

int plan_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	struct diag_list diags = { 0 };
	struct spec *spec = NULL;
	struct plan *plan = reconciler_plan(
		r, opt->file_given ? opt->file : r->opt->file, &spec, &diags);
	int code = EXIT_DONE;

	diag_list_print(&diags, out);
	diag_list_release(&diags);
	if (!plan)
		return EXIT_INVALID;
	complain_of_hypervisors(r, "warning", "its VMs are not in this plan",
				out);
	plan_text(plan, spec, out);
	if (plan->held)
		code = EXIT_HELD;
	else if (plan->diags.errors)
		code = EXIT_INVALID;
	else if (opt->detailed_exitcode && !plan_shows_nothing(plan))
		code = EXIT_CHANGES;
	plan_free(plan);
	spec_free(spec);
	return code;
}

int cmd_plan(const struct options *opt)
{
	if (opt->json) {
		fputs("xlb-reconcile: plan --json is not supported yet\n",
		      stderr);
		return EXIT_USAGE;
	}
	return run_verb(opt, plan_verb);
}
