/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reconcile.h"

int cmd_check(const struct options *opt)
{
	struct diag_list diags = { 0 };
	struct buf out = BUF_INIT;
	struct spec *spec = spec_read(opt->file, NULL, &diags, NULL);

	diag_list_print(&diags, &out);
	fputs(buf_str(&out), stderr);
	buf_reset(&out);
	if (spec && opt->print) {
		spec_print(spec, &out);
	} else if (spec) {
		buf_addf(&out, "%s is valid: %zu service%s\n", opt->file,
			 spec->service_count,
			 spec->service_count == 1 ? "" : "s");
		spec_notes(spec, &out);
	}
	fputs(buf_str(&out), stdout);
	buf_release(&out);
	diag_list_release(&diags);
	spec_free(spec);
	return spec ? EXIT_DONE : EXIT_INVALID;
}
