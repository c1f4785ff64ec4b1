/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * apply FILE: a saved plan; approve PLAN_ID: what is held back.  Either is
 * planned again first, and only the very same plan is carried out.
 *
 * The asking side reads the saved plan and asks for "ID:SHA256:FINGERPRINT".
 * Without a daemon it looks, under the lock, whether that is still the plan,
 * and then goes on as `run --once` does, with that file and no other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/lock.h"
#include "cli/standalone.h"

static bool is_approval(const struct options *opt)
{
	return !strcmp(opt->verb, "approve");
}

/* ---- is it still the plan? ---- */

static int stale(struct buf *out, const char *what)
{
	buf_addf(out,
		 "error: %s since the plan was made\n    hint: look again: "
		 "xlb-reconcile plan --out FILE\n",
		 what);
	return EXIT_STALE;
}

static bool same_file(const char *a, const char *b)
{
	AUTO_FREE char *x = realpath(a, NULL), *y = realpath(b, NULL);

	return !strcmp(x ? x : a, y ? y : b);
}

static int check_saved(const struct reconciler *r, const struct options *opt,
		       const struct plan *plan, const struct spec *spec,
		       struct buf *out)
{
	AUTO_FREE char *words = mem_dup(opt->args[0]);
	char *sha256 = strchr(words, ':');
	char *fingerprint = sha256 ? strchr(sha256 + 1, ':') : NULL;

	if (!fingerprint) {
		buf_addf(out, "error: %s is no plan\n", opt->args[0]);
		return EXIT_FAILED;
	}
	*sha256++ = *fingerprint++ = '\0';
	if (opt->file_given && !same_file(opt->file, r->opt->file)) {
		buf_addf(out,
			 "error: the plan is for %s, and the daemon applies "
			 "%s\n",
			 opt->file, r->opt->file);
		return EXIT_FAILED;
	}
	if (strcmp(sha256, spec->sha256) != 0)
		return stale(out, "the file has changed");
	if (strcmp(fingerprint, plan->fingerprint) != 0)
		return stale(out, "what is running has changed");
	if (strcmp(words, plan->id) != 0)
		return stale(out, "what there is to do has changed");
	if (!plan->held)
		return EXIT_DONE; /* but for single changes that are */
	plan_text(plan, spec, out);
	return EXIT_HELD;
}

static int check_held(const struct reconciler *r, const struct options *opt,
		      const struct plan *plan, struct buf *out)
{
	bool held = plan_awaits_approval(plan) ||
		    (r->opt->manual && !plan_shows_nothing(plan));

	if (!held) {
		buf_adds(out, "error: nothing is held back\n");
		return EXIT_FAILED;
	}
	if (!strcmp(opt->args[0], plan->id))
		return EXIT_DONE;
	buf_addf(out,
		 "error: the plan that is held back is %s, not %s\n    hint: "
		 "`xlb-reconcile plan` shows it\n",
		 plan->id, opt->args[0]);
	return EXIT_STALE;
}

static int check(struct reconciler *r, const struct options *opt,
		 struct plan *plan, const struct spec *spec, struct buf *out)
{
	plan_identify(plan, spec);
	if (plan->diags.errors) {
		diag_list_print(&plan->diags, out);
		return EXIT_INVALID;
	}
	if (complain_of_hypervisors(r, "error", "its VMs are not known", out))
		return EXIT_FAILED;
	return is_approval(opt) ? check_held(r, opt, plan, out)
				: check_saved(r, opt, plan, spec, out);
}

/* ---- carrying it out ---- */

static void say_done(const struct plan *plan, struct buf *out)
{
	struct plan_summary s = plan_summarize(plan);

	if (plan_shows_nothing(plan))
		buf_adds(out, "There was nothing to do.\n");
	else
		buf_addf(out,
			 "Plan %s is under way: %u drift to repair, %u to add, "
			 "%u to change, %u to replace, %u to destroy.\n",
			 plan->id, s.drift, s.add, s.change, s.replace,
			 s.destroy);
}

static int release(struct reconciler *r, const struct options *opt,
		   const struct plan *plan, const struct spec *spec,
		   struct buf *out)
{
	reconciler_release(r, spec->sha256, is_approval(opt));
	if (r->file_diags.errors) {
		diag_list_print(&r->file_diags, out);
		return EXIT_FAILED;
	}
	if (r->failing[0]) {
		buf_addf(out, "error: %s\n", r->failing);
		return EXIT_FAILED;
	}
	say_done(plan, out);
	return EXIT_DONE;
}

int apply_verb(struct reconciler *r, const struct options *opt, struct buf *out)
{
	struct diag_list diags = { 0 };
	struct spec *spec = NULL;
	struct options preview = *opt;
	struct plan *plan = reconciler_plan(r, r->opt->file, &spec, &diags);
	int code = EXIT_INVALID;

	if (!plan)
		diag_list_print(&diags, out);
	else
		code = check(r, opt, plan, spec, out);
	preview.verb = "plan";
	preview.file_given = false;
	if (!code && opt->dry_run)
		code = plan_verb(r, &preview, out);
	else if (!code && r->read_only)
		buf_adds(out, spec->sha256);
	else if (!code)
		code = release(r, opt, plan, spec, out);
	diag_list_release(&diags);
	plan_free(plan);
	spec_free(spec);
	return code;
}

/* ---- the asking side ---- */

/* The plan's words, and its file into *ret_file. */
static char *read_saved(const char *path, char **ret_file)
{
	struct saved_plan saved;
	struct diag_list diags = { 0 };
	struct buf text = BUF_INIT, said = BUF_INIT;
	int err = buf_read_file(&text, path, SAVED_PLAN_MAX_BYTES);
	char *words = NULL;

	if (err) {
		fprintf(stderr, "error: the plan %s can't be read: %s\n", path,
			strerror(-err));
	} else if (saved_plan_parse(path, text.data, text.len, &saved,
				    &diags)) {
		diag_list_print(&diags, &said);
		fputs(buf_str(&said), stderr);
	} else {
		words = mem_printf("%s:%s:%s", saved.id, saved.sha256,
				   saved.fingerprint);
		*ret_file = mem_dup(saved.path);
		saved_plan_release(&saved);
	}
	diag_list_release(&diags);
	buf_release(&text);
	buf_release(&said);
	return words;
}

static int apply_alone(const struct options *opt)
{
	struct options run = *opt;
	struct buf out = BUF_INIT;
	bool failed;
	int lock, code;

	if (state_dir_lock(opt->state_dir, &lock))
		return EXIT_FAILED;
	code = look_here(opt, apply_verb, &out, &failed);
	if (code) {
		print_answer(opt, code, failed, buf_str(&out));
		buf_release(&out);
		close(lock);
		return code;
	}
	run.approved = is_approval(opt);
	run.only_sha256 = buf_str(&out);
	run.verb = "run";
	run.once = true;
	code = run_locked(&run, lock);
	if (!code)
		puts("Applied: what runs is what the file declares.");
	buf_release(&out);
	return code;
}

static int ask(const struct options *opt)
{
	struct buf out = BUF_INIT;
	int code = control_ask(opt, &out);

	if (code == -ENOENT)
		return opt->dry_run ? run_verb_here(opt, apply_verb)
				    : apply_alone(opt);
	if (code < 0)
		complain_of_daemon(opt, code, &out);
	print_answer(opt, code < 0 ? EXIT_FAILED : code, code < 0,
		     buf_str(&out));
	buf_release(&out);
	return code < 0 ? EXIT_FAILED : code;
}

int cmd_apply(const struct options *opt)
{
	struct options with = *opt;
	AUTO_FREE char *file = NULL;
	AUTO_FREE char *words = NULL;
	const char *args[1];

	if (is_approval(opt))
		return ask(opt);
	words = read_saved(opt->args[0], &file);
	if (!words)
		return EXIT_FAILED;
	args[0] = words;
	with.args = args;
	with.file = file;
	with.file_given = true;
	return ask(&with);
}
