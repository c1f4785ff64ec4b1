/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * plan: what would change, for people, for programs, and to be applied later.
 * What only the asking side knows or may do is done there: which commit the
 * file is of, and writing the plan to a file.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/standalone.h"
#include "git.h"

static void add_json(const struct plan *plan, const struct spec *spec,
		     struct buf *out)
{
	AUTO_FREE char *path = realpath(spec->path, NULL);
	json_t *j = plan_json(plan, spec);
	char *text;

	if (path)
		json_object_set_new(json_object_get(j, "config"), "path",
				    json_string(path));
	text = json_dumps(j, JSON_INDENT(2));
	buf_addf(out, "%s\n", text ? text : "{}");
	free(text);
	json_decref(j);
}

/* With --out the JSON comes once more, behind a NUL. */
static void add_plan(struct reconciler *r, const struct options *opt,
		     struct plan *plan, const struct spec *spec,
		     struct buf *out)
{
	bool waits = r->opt->manual && !plan_shows_nothing(plan);

	if (opt->json || opt->out || plan->guard_count || waits)
		plan_identify(plan, spec);
	if (waits && !plan->guard_count)
		plan->note = arena_printf(plan->arena,
					  "Waits: `xlb-reconcile approve %s` "
					  "applies it.",
					  plan->id);
	if (opt->drift_only)
		plan_keep_drift(plan);
	if (opt->json)
		add_json(plan, spec, out);
	else
		plan_text(plan, spec, out);
	if (opt->out) {
		buf_add(out, "", 1);
		add_json(plan, spec, out);
	}
}

static int plan_code(const struct options *opt, const struct plan *plan)
{
	if (plan->guard_count)
		return EXIT_HELD;
	if (plan->diags.errors)
		return EXIT_INVALID;
	if (opt->detailed_exitcode && !plan_shows_nothing(plan))
		return EXIT_CHANGES;
	return EXIT_DONE;
}

static void add_hypervisors(const struct reconciler *r, struct diag_list *diags)
{
	for (size_t i = 0; i < r->hypervisor_count; i++) {
		const struct hypervisor *h = r->hypervisors[i];

		if (!hypervisor_is_read(h))
			diag_add(diags, SEVERITY_WARNING, NULL, NULL,
				 "hypervisor %s (%s) does not answer: its VMs "
				 "are not in this plan",
				 hypervisor_name(h), hypervisor_uri(h));
	}
}

int plan_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	struct diag_list diags = { 0 };
	struct spec *spec = NULL;
	struct plan *plan = reconciler_plan(
		r, opt->file_given ? opt->file : r->opt->file, &spec, &diags);
	int code;

	if (!plan) {
		diag_list_print(&diags, out);
		diag_list_release(&diags);
		return EXIT_INVALID;
	}
	add_hypervisors(r, &diags);
	diag_list_move(&diags, &plan->diags);
	plan->diags = diags;
	add_plan(r, opt, plan, spec, out);
	code = plan_code(opt, plan);
	plan_free(plan);
	spec_free(spec);
	return code;
}

/* ---- the asking side ---- */

static void add_git(json_t *j)
{
	json_t *config = json_object_get(j, "config");
	const char *path = json_string_value(json_object_get(config, "path"));
	struct git_state git;

	if (!path || !git_knows(path))
		return;
	git_describe(path, &git);
	if (git.revision[0])
		json_object_set_new(config, "git_revision",
				    json_string(git.revision));
	json_object_set_new(config, "git_dirty", json_boolean(git.dirty));
}

/* NULL: it is no JSON, but says why there is no plan. */
static char *with_git(const char *text)
{
	json_t *j = json_loads(text, 0, NULL);
	char *dumped, *ret;

	if (!j)
		return NULL;
	add_git(j);
	dumped = json_dumps(j, JSON_INDENT(2));
	ret = mem_printf("%s\n", dumped ? dumped : "{}");
	free(dumped);
	json_decref(j);
	return ret;
}

static int save(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");
	int err = f ? 0 : -errno;

	if (f && fputs(text, f) == EOF)
		err = -EIO;
	if (f && fclose(f) && !err)
		err = -errno;
	if (err)
		fprintf(stderr, "error: the plan can't be saved as %s: %s\n",
			path, strerror(-err));
	return err ? EXIT_FAILED : EXIT_DONE;
}

int cmd_plan(const struct options *opt)
{
	struct buf out = BUF_INIT;
	bool failed;
	int code = ask_verb(opt, plan_verb, &out, &failed), saved = EXIT_DONE;
	const char *text = buf_str(&out);
	size_t len = strlen(text);
	AUTO_FREE char *json = opt->json ? with_git(text) : NULL;
	AUTO_FREE char *file = len < out.len ? with_git(text + len + 1) : NULL;

	if (opt->out && file)
		saved = save(opt->out, file);
	/* Programs look for it in one place, also when it tells of errors. */
	if (json)
		fputs(json, stdout);
	else
		print_answer(opt, code, failed, text);
	buf_release(&out);
	return saved ? saved : code;
}
