/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "reconcile.h"

#define MOST_ROWS 1000

static void collect(void *arg, const char *time, const char *kind,
		    const char *service, const char *text)
{
	json_array_append_new(arg, json_pack("{s:s, s:s, s:s, s:s}", "time",
					     time, "kind", kind, "service",
					     service ? service : "", "text",
					     text ? text : ""));
}

static const char *text_of(const json_t *row, const char *key)
{
	return json_string_value(json_object_get(row, key));
}

static void print_rows(const json_t *rows)
{
	int width = 0;
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		int len = (int)strlen(text_of(row, "service"));

		width = len > width ? len : width;
	}
	if (json_array_size(rows) == MOST_ROWS)
		printf("(the newest %d; --since, --kind and SERVICE narrow it "
		       "down)\n",
		       MOST_ROWS);
	json_array_foreach(rows, i, row)
	{
		printf("%s  %-8s  %-*s%s%s\n", text_of(row, "time"),
		       text_of(row, "kind"), width, text_of(row, "service"),
		       width ? "  " : "", text_of(row, "text"));
	}
	if (!json_array_size(rows))
		puts("nothing of that is recorded");
}

int cmd_history(const struct options *opt)
{
	json_t *rows = json_array();
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
			MOST_ROWS, collect, rows);
	if (err && !diags.count)
		diag_add(&diags, SEVERITY_ERROR, NULL,
			 "start xlb-reconcile once, or name its --state-dir",
			 "the history in %s can't be read", opt->state_dir);
	diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	if (!err && opt->json) {
		json_dumpf(rows, stdout, JSON_INDENT(2));
		puts("");
	} else if (!err) {
		print_rows(rows);
	}
	json_decref(rows);
	buf_release(&text);
	diag_list_release(&diags);
	store_close(store);
	return err ? EXIT_FAILED : EXIT_DONE;
}
