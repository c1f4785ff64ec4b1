/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * explain: why a service has as many VMs as it has, now or at a time, out of
 * what was recorded of the scaler's decisions; and what the next step takes.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reconcile.h"

#define DECISIONS 10

static void collect(void *arg, const struct store_decision *d)
{
	json_t *signals = json_loads(d->signals, 0, NULL);

	json_array_append_new(
		arg,
		json_pack("{s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:s, s:s, "
			  "s:o}",
			  "time", d->time, "direction", d->direction, "from",
			  d->from_vms, "wanted", d->wanted_vms, "to", d->to_vms,
			  "reason", d->reason, "limited_by", d->limited_by,
			  "message", d->message, "mode", d->mode, "signals",
			  signals ? signals : json_array()));
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "";
}

static int number_of(const json_t *j, const char *key)
{
	return (int)json_integer_value(json_object_get(j, key));
}

/* What lifts the rule that held the last decision; NULL: none did. */
static const char *lifts(const char *limit)
{
	static const struct {
		const char *limit, *text;
	} all[] = {
		{ "max", "more than max is never made: raise pool.max" },
		{ "min", "fewer than min are never left: lower pool.min" },
		{ "step", "the rest follows at the next decisions, a step "
			  "each" },
		{ "cooldown", "it goes on when the cooldown after the last "
			      "step is over" },
		{ "window", "the whole window has to ask for as much" },
		{ "tolerance", "a mean has to leave the tolerance around its "
			       "target" },
		{ "warmup", "VMs that have just started are waited for" },
		{ "missing_samples", "signals without a sample have to have "
				     "one again" },
		{ "capacity", "the hypervisor has no room: raise its max_vms" },
		{ "paused", "the service is paused: xlb-reconcile resume" },
		{ "guard", "a guard holds it: xlb-reconcile plan says which" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(all[i].limit, limit))
			return all[i].text;
	return NULL;
}

static void add_text(json_t *list, const struct buf *text)
{
	json_array_append_new(list, json_string(buf_str(text)));
}

/*
 * ceil(vms * mean / target) is one more when the mean a VM is over the target,
 * and one fewer when all of it fits into one VM less.
 */
static void signal_step(const json_t *s, int vms, json_t *list)
{
	struct buf text AUTO_BUF = BUF_INIT;
	const json_t *value = json_object_get(s, "value");
	double target = json_number_value(json_object_get(s, "target"));

	buf_addf(&text, "%s is ", text_of(s, "metric"));
	if (json_is_number(value))
		buf_addf(&text, "%.4g a VM", json_number_value(value));
	else
		buf_adds(&text, "missing");
	if (target > 0) {
		buf_addf(&text,
			 ", its target %.4g: one more VM when it is "
			 "over that",
			 target);
		if (vms > 1)
			buf_addf(&text, ", one fewer below %.4g",
				 target * (vms - 1) / vms);
	}
	add_text(list, &text);
}

static json_t *next_steps(const json_t *last)
{
	json_t *list = json_array();
	const char *lift = lifts(text_of(last, "limited_by"));
	const json_t *s;
	size_t i;

	if (lift)
		json_array_append_new(list, json_string(lift));
	json_array_foreach(json_object_get(last, "signals"), i, s)
		signal_step(s, number_of(last, "to"), list);
	if (!json_array_size(list))
		json_array_append_new(
			list,
			json_string("no signal moves it: the file does, by "
				    "pool.min and pool.max"));
	return list;
}

static void print_explained(const json_t *j)
{
	const json_t *list = json_object_get(j, "decisions"), *d;
	const json_t *last = json_array_get(list, 0);
	size_t i;

	printf("%s: %d VMs since %s\n    %s\n", text_of(j, "service"),
	       number_of(last, "to"), text_of(j, "since"),
	       text_of(last, "message"));
	puts("next:");
	json_array_foreach(json_object_get(j, "next"), i, d)
		printf("    %s\n", json_string_value(d));
	puts("before:");
	json_array_foreach(list, i, d)
		printf("    %s  %-4s  %d -> %d  %s%s\n", text_of(d, "time"),
		       text_of(d, "direction"), number_of(d, "from"),
		       number_of(d, "to"), text_of(d, "message"),
		       strcmp(text_of(d, "mode"), "observe")
			       ? ""
			       : " (only observed)");
}

/* Since when it is what it is: the oldest row in a row with this count. */
static const char *since(const json_t *list)
{
	const json_t *last = json_array_get(list, 0), *d;
	const char *time = text_of(last, "time");
	size_t i;

	json_array_foreach(list, i, d)
	{
		if (number_of(d, "to") != number_of(last, "to"))
			break;
		time = text_of(d, "time");
	}
	return time;
}

/* "10m": so long ago; or a time as the history has it, UTC. */
static bool parse_at(const char *s, int64_t *ret_ms)
{
	struct tm tm = { 0 };
	const char *end;
	uint64_t ns;

	if (parse_duration(s, &ns)) {
		*ret_ms = clock_wall_ms() - (int64_t)(ns / NS_PER_MS);
		return true;
	}
	end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!end)
		return false;
	/* The whole of that second counts, whatever its fraction. */
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	*ret_ms = (int64_t)timegm(&tm) * 1000 + 999;
	return !strcmp(end, "Z") || !*end;
}

static int explain(const struct options *opt, const json_t *list)
{
	json_t *j;

	if (!json_array_size(list)) {
		fprintf(stderr,
			"error: no decision about %s is recorded%s\n    hint: "
			"only services with a pool have any; `xlb-reconcile "
			"history` shows what there is\n",
			opt->args[0], opt->at ? " until then" : "");
		return EXIT_FAILED;
	}
	j = json_pack("{s:s, s:i, s:s, s:o, s:O}", "service", opt->args[0],
		      "vms", number_of(json_array_get(list, 0), "to"), "since",
		      since(list), "next", next_steps(json_array_get(list, 0)),
		      "decisions", list);
	if (opt->json) {
		json_dumpf(j, stdout, JSON_INDENT(2));
		puts("");
	} else {
		print_explained(j);
	}
	json_decref(j);
	return EXIT_DONE;
}

int cmd_explain(const struct options *opt)
{
	json_t *list = json_array();
	struct diag_list diags = { 0 };
	struct buf text AUTO_BUF = BUF_INIT;
	struct store *store = NULL;
	int64_t until = INT64_MAX;
	int err, code = EXIT_FAILED;

	if (opt->at && !parse_at(opt->at, &until)) {
		fprintf(stderr,
			"xlb-reconcile: --at %s is neither a time such as "
			"2026-01-31T12:00:00Z nor a duration ago such as "
			"10m\n",
			opt->at);
		json_decref(list);
		return EXIT_USAGE;
	}
	err = store_open(opt->state_dir, true, &store, &diags);
	if (!err)
		err = store_decisions(store, opt->args[0], until, DECISIONS,
				      collect, list);
	if (err && !diags.count)
		diag_add(&diags, SEVERITY_ERROR, NULL,
			 "start xlb-reconcile once, or name its --state-dir",
			 "the history in %s can't be read", opt->state_dir);
	diag_list_print(&diags, &text);
	fputs(buf_str(&text), stderr);
	if (!err)
		code = explain(opt, list);
	json_decref(list);
	diag_list_release(&diags);
	store_close(store);
	return code;
}
