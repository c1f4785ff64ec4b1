/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tests/golden/desired/NAME.yaml must give NAME.err (what is said about it)
 * when that exists, and NAME.out (the canonical form) when that exists; a
 * file with errors has no canonical form; NAME.notes is what `check` adds.  Run from the top of the
 * repository.  GOLDEN_UPDATE=1 writes the expected files instead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "desired/desired.h"

#define FOLDER "tests/golden/desired/"

static char *with_suffix(const char *path, const char *suffix)
{
	return mem_printf("%.*s%s", (int)(strlen(path) - strlen(".yaml")), path,
			  suffix);
}

static void write_file(const char *path, const struct buf *b)
{
	FILE *f;

	unlink(path);
	if (!b->len)
		return;
	f = fopen(path, "w");
	assert_non_null(f);
	fwrite(b->data, 1, b->len, f);
	fclose(f);
}

/* An expected file that isn't there expects nothing. */
static void compare(const char *path, const struct buf *got)
{
	struct buf want = BUF_INIT;

	if (getenv("GOLDEN_UPDATE"))
		write_file(path, got);
	if (!access(path, F_OK))
		assert_int_equal(buf_read_file(&want, path, 1 << 20), 0);
	assert_string_equal(buf_str(got), buf_str(&want));
	buf_release(&want);
}

static struct spec *parse(const char *name, const struct buf *b,
			  struct diag_list *diags)
{
	struct spec_text t = { name, b->data, b->len, "/etc/xlb" };

	return spec_parse(name, &t, 1, diags);
}

/* What is printed must parse without a word and print the same. */
static void check_stable(const struct buf *printed)
{
	struct diag_list diags = { 0 };
	struct buf again = BUF_INIT, said = BUF_INIT;
	struct spec *s = parse("canonical", printed, &diags);

	diag_list_print(&diags, &said);
	if (!s)
		fail_msg("the canonical form is refused: %s", buf_str(&said));
	spec_print(s, &again);
	assert_string_equal(buf_str(&again), buf_str(printed));
	spec_free(s);
	diag_list_release(&diags);
	buf_release(&again);
	buf_release(&said);
}

static void golden(void **state)
{
	const char *path = *state, *name = path + strlen(FOLDER);
	char *err = with_suffix(path, ".err"), *out = with_suffix(path, ".out");
	char *notes = with_suffix(path, ".notes");
	struct buf in = BUF_INIT, said = BUF_INIT, printed = BUF_INIT;
	struct buf noted = BUF_INIT;
	struct diag_list diags = { 0 };
	struct spec *s;

	assert_int_equal(buf_read_file(&in, path, 1 << 20), 0);
	s = parse(name, &in, &diags);
	assert_true(!s == (diags.errors > 0));
	diag_list_print(&diags, &said);
	compare(err, &said);
	if (s) {
		spec_print(s, &printed);
		check_stable(&printed);
		spec_notes(s, &noted);
	}
	compare(notes, &noted);
	/* Cases about what is said needn't repeat the canonical form. */
	if (!s || !said.len)
		compare(out, &printed);
	spec_free(s);
	diag_list_release(&diags);
	buf_release(&in);
	buf_release(&said);
	buf_release(&printed);
	buf_release(&noted);
	free(err);
	free(out);
	free(notes);
}

int main(void)
{
	struct CMUnitTest *tests;
	glob_t g;
	int failed;

	if (glob(FOLDER "*.yaml", 0, NULL, &g) || !g.gl_pathc) {
		fprintf(stderr, "no files in %s: run from the top\n", FOLDER);
		return 1;
	}
	tests = mem_array(g.gl_pathc, sizeof(*tests));
	for (size_t i = 0; i < g.gl_pathc; i++)
		tests[i] = (struct CMUnitTest){
			.name = g.gl_pathv[i] + strlen(FOLDER),
			.test_func = golden,
			.initial_state = g.gl_pathv[i],
		};
	failed = _cmocka_run_group_tests("desired_golden", tests, g.gl_pathc,
					 NULL, NULL);
	free(tests);
	globfree(&g);
	return failed;
}
