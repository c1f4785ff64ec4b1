/* SPDX-License-Identifier: GPL-2.0-or-later */
/* drain, undrain, refresh: what an operator overrides for a while. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/standalone.h"

static bool backend_exists(const struct reconciler *r, const char *key)
{
	struct member_run *m;
	size_t i = 0;

	while ((m = strmap_next(&r->members, &i))) {
		size_t len = strlen(m->service);

		if (!strncmp(key, m->service, len) && key[len] == '/' &&
		    !strcmp(key + len + 1, m->name))
			return true;
	}
	return false;
}

static void reload_overrides(struct reconciler *r)
{
	store_overrides_free(r->overrides, r->override_count);
	r->overrides = NULL;
	r->override_count = 0;
	store_overrides(r->store, &r->overrides, &r->override_count);
}

static int set_drain(struct reconciler *r, const struct options *opt,
		     bool drain, struct buf *out)
{
	struct store_override o = { .kind = (char[]){ "drain" },
				    .since_ms = clock_wall_ms() };
	char *key = mem_dup(opt->args[0]);
	uint64_t lasts = 0;
	int err;

	o.key = key;
	if (opt->lasts && parse_duration(opt->lasts, &lasts))
		o.until_ms = o.since_ms + (int64_t)(lasts / NS_PER_MS);
	err = drain ? store_set_override(r->store, &o)
		    : store_clear_override(r->store, "drain", key);
	if (err) {
		buf_addf(out, "error: the store refused it: %s\n",
			 strerror(-err));
	} else {
		struct store_change row = { .time_ms = o.since_ms,
					    .revision_id = r->revision,
					    .run_id = r->run_id,
					    .object = key,
					    .action = opt->verb,
					    .cause = "operator",
					    .result = "done" };

		store_add_change(r->store, &row);
		reload_overrides(r);
		reconcile_soon(r);
		buf_addf(out, "%s %s\n", key,
			 drain ? "drains: it gets no new flows"
			       : "takes new flows again");
	}
	free(key);
	return err ? EXIT_FAILED : EXIT_DONE;
}

static void refresh(struct reconciler *r, struct buf *out)
{
	r->verify = true;
	net_refresh(r->net);
	for (size_t i = 0; i < r->hypervisor_count; i++)
		hypervisor_refresh(r->hypervisors[i]);
	reconciler_saved(r);
	reconcile_soon(r);
	buf_adds(out, "everything is read again\n");
}

int override_verb(struct reconciler *r, const struct options *opt,
		  struct buf *out)
{
	bool drain = !strcmp(opt->verb, "drain");

	if (!strcmp(opt->verb, "refresh")) {
		if (opt->dry_run)
			buf_adds(out, "would read everything again\n");
		else
			refresh(r, out);
		return EXIT_DONE;
	}
	if (opt->arg_count != 1) {
		buf_addf(out, "usage: xlb-reconcile %s SERVICE/BACKEND\n",
			 opt->verb);
		return EXIT_USAGE;
	}
	if (!r->store) {
		buf_adds(out, "error: without the store an override can't be "
			      "kept\n");
		return EXIT_FAILED;
	}
	if (drain && !backend_exists(r, opt->args[0])) {
		buf_addf(out,
			 "error: there is no backend %s\n    hint: "
			 "`xlb-reconcile status` lists them\n",
			 opt->args[0]);
		return EXIT_FAILED;
	}
	if (opt->dry_run) {
		buf_addf(out, "would %s %s\n", opt->verb, opt->args[0]);
		return EXIT_DONE;
	}
	return set_drain(r, opt, drain, out);
}

int cmd_override(const struct options *opt)
{
	struct buf out = BUF_INIT;
	int code = control_ask(opt, &out);

	if (code == -ENOENT) {
		buf_addf(&out, "error: no daemon runs with state dir %s\n",
			 opt->state_dir);
		code = EXIT_FAILED;
	} else if (code < 0) {
		buf_addf(&out, "error: the daemon does not answer: %s\n",
			 strerror(-code));
		code = EXIT_FAILED;
	}
	fputs(buf_str(&out), code ? stderr : stdout);
	buf_release(&out);
	return code;
}
