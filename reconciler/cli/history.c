/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <jansson.h>
#include <stdlib.h>

#include "reconcile.h"

#define MOST_ROWS 1000

struct printer {
	bool json;
	json_t *rows;
};

static void print_row(void *arg, const char *time, const char *kind,
		      const char *service, const char *text)
{
	struct printer *p = arg;

	if (p->json)
		json_array_append_new(p->rows,
				      json_pack("{s:s, s:s, s:s, s:s}", "time",
						time, "kind", kind, "service",
						service ? service : "", "text",
						text ? text : ""));
	else
		printf("%s  %-8s %-12s %s\n", time, kind,
		       service ? service : "", text ? text : "");
}

int cmd_history(const struct options *opt)
{
	struct printer p = { .json = opt->json, .rows = json_array() };
	struct diag_list diags = { 0 };
	struct buf text = BUF_INIT;
	struct store *store = NULL;
	uint64_t since = 0;
	int err = store_open(opt->state_dir, true, &store, &diags);

	if (opt->since)
		parse_duration(opt->since, &since);
	if (!err)
		err = store_history(
			store, opt->arg_count ? opt->args[0] : NULL, opt->kind,
			since ? clock_wall_ms() - (int64_t)(since / NS_PER_MS)
			      : 0,
			MOST_ROWS, print_row, &p);
	if (err && !diags.count)
		diag_add(&diags, SEVERITY_ERROR, NULL,
			 "start xlb-reconcile once, or name its --state-dir",
			 "the history in %s can't be read", opt->state_dir);
	diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	if (!err && opt->json)
		json_dumpf(p.rows, stdout, JSON_INDENT(2));
	json_decref(p.rows);
	buf_release(&text);
	diag_list_release(&diags);
	store_close(store);
	return err ? EXIT_FAILED : EXIT_DONE;
}
