/* SPDX-License-Identifier: GPL-2.0-or-later */
/* drain, undrain, refresh: what an operator overrides for a while. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cli/override.h"
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

void overrides_reload(struct reconciler *r)
{
	store_overrides_free(r->overrides, r->override_count);
	r->overrides = NULL;
	r->override_count = 0;
	store_overrides(r->store, &r->overrides, &r->override_count);
}

static struct store_override *find_drain(const struct reconciler *r,
					 const char *key)
{
	for (size_t i = 0; i < r->override_count; i++)
		if (!strcmp(r->overrides[i].kind, "drain") &&
		    !strcmp(r->overrides[i].key, key))
			return &r->overrides[i];
	return NULL;
}

int overrides_preview(struct reconciler *r, const struct options *opt,
		      const char *kind, const char *key, bool set,
		      struct buf *out)
{
	struct store_override *old = r->overrides, *o;
	size_t count = r->override_count;
	struct options plan = *opt;
	AUTO_FREE char *kind_copy = mem_dup(kind);
	AUTO_FREE char *key_copy = mem_dup(key);
	char none[] = "";
	int code;

	o = mem_array(count + 1, sizeof(*o));
	for (size_t i = 0; i < count; i++) {
		o[i] = old[i];
		if (!set && !strcmp(o[i].kind, kind) && !strcmp(o[i].key, key))
			o[i].kind = none;
	}
	r->overrides = o;
	if (set)
		o[r->override_count++] =
			(struct store_override){ .kind = kind_copy,
						 .key = key_copy };
	plan.verb = "plan";
	plan.file_given = false;
	code = plan_verb(r, &plan, out);
	r->overrides = old;
	r->override_count = count;
	free(o);
	reconcile_soon(r);
	return code;
}

void overrides_record(struct reconciler *r, const char *verb,
		      const char *object)
{
	struct store_change row = { .time_ms = clock_wall_ms(),
				    .revision_id = r->revision,
				    .run_id = r->run_id,
				    .object = object,
				    .action = verb,
				    .cause = "operator",
				    .result = "done" };

	store_add_change(r->store, &row);
}

static void record_override(struct reconciler *r, const struct options *opt)
{
	AUTO_FREE char *service = mem_dup(opt->args[0]);
	char *slash = strchr(service, '/');
	AUTO_FREE char *object = NULL;

	*slash = '\0';
	object = mem_printf("service.%s/backend/%s", service, slash + 1);
	overrides_record(r, opt->verb, object);
}

static void say_override(const struct options *opt, bool drain,
			 int64_t until_ms, struct buf *out)
{
	time_t until = (time_t)(until_ms / 1000);
	char stamp[32];
	struct tm tm;

	if (!drain) {
		buf_addf(out, "%s takes new connections again\n", opt->args[0]);
		return;
	}
	buf_addf(out, "%s drains", opt->args[0]);
	if (until) {
		gmtime_r(&until, &tm);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
		buf_addf(out, " until %s", stamp);
	}
	buf_adds(out, ": it gets no new connections, and keeps those it has\n");
}

static int set_drain(struct reconciler *r, const struct options *opt,
		     bool drain, struct buf *out)
{
	struct store_override o = { .kind = (char[]){ "drain" },
				    .since_ms = clock_wall_ms() };
	AUTO_FREE char *key = mem_dup(opt->args[0]);
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
		return EXIT_FAILED;
	}
	record_override(r, opt);
	overrides_reload(r);
	reconcile_soon(r);
	say_override(opt, drain, o.until_ms, out);
	return EXIT_DONE;
}

static void refresh(struct reconciler *r, struct buf *out)
{
	reconciler_refresh(r);
	buf_adds(out, "everything is read again\n");
}

int override_verb(struct reconciler *r, const struct options *opt,
		  struct buf *out)
{
	bool drain = !strcmp(opt->verb, "drain");
	struct options plan = *opt;

	plan.verb = "plan";
	plan.file_given = false;
	if (!strcmp(opt->verb, "refresh")) {
		if (opt->dry_run && !opt->json)
			buf_adds(out, "would read the file, the kernel and the "
				      "hypervisors again, and then:\n");
		if (!opt->dry_run)
			refresh(r, out);
		return opt->dry_run ? plan_verb(r, &plan, out) : EXIT_DONE;
	}
	if (!r->store) {
		buf_adds(out, "error: without the store an override can't be "
			      "kept\n");
		return EXIT_FAILED;
	}
	if (!find_drain(r, opt->args[0]) && !backend_exists(r, opt->args[0])) {
		buf_addf(out,
			 "error: there is no backend %s\n    hint: "
			 "`xlb-reconcile status` lists them\n",
			 opt->args[0]);
		return EXIT_FAILED;
	}
	if (!drain && !find_drain(r, opt->args[0])) {
		buf_addf(out, "%s was not drained by an operator\n",
			 opt->args[0]);
		return EXIT_DONE;
	}
	if (opt->dry_run)
		return overrides_preview(r, opt, "drain", opt->args[0], drain,
					 out);
	return set_drain(r, opt, drain, out);
}

int cmd_override(const struct options *opt)
{
	struct buf out = BUF_INIT;
	int code = control_ask(opt, &out);

	if (code == -ENOENT) {
		buf_addf(&out,
			 "error: no xlb-reconcile runs with the state dir %s\n"
			 "    hint: start it (xlb-reconcile run), or name its "
			 "--state-dir\n",
			 opt->state_dir);
		code = EXIT_FAILED;
	} else if (code < 0) {
		complain_of_daemon(opt, code, &out);
		code = EXIT_FAILED;
	}
	print_answer(opt, code, false, buf_str(&out));
	buf_release(&out);
	return code;
}
