/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a plan looks like.  tests/golden/plan/NAME.in has three parts: a file
 * that is put to work in a world in memory (none: an empty world), what
 * happens to that world, and the file that is then planned ("=": the same, so
 * that differences are drift).  NAME.ok is the text, NAME.json, where there
 * is one, the same as JSON; id and fingerprint, which depend on the layout of
 * the kernel's tables, are put as words there.  Run from the top of the
 * repository.  UPDATE_GOLDEN=1 writes the expected files instead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/plan_steps.h"

#define FOLDER "tests/golden/plan/"

/* ---- what can happen to a world ---- */

static void unvip(struct fake *f, const char *arg)
{
	struct ip a = { 0 };
	size_t found = 0;

	assert_true(ip_parse(arg, &a));
	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		if (!f->vips[i].proto ||
		    memcmp(f->vips[i].addr, a.bytes, 16) != 0)
			continue;
		f->vips[i] = (struct xlb_vip){ 0 };
		found++;
	}
	assert_true(found);
}

static void unaddress(struct fake *f, const char *arg)
{
	struct ip a;
	size_t i = 0;

	assert_true(ip_parse(arg, &a));
	while (i < f->address_count && !ip_equal(&f->addresses[i].address, &a))
		i++;
	assert_true(i < f->address_count);
	f->addresses[i] = f->addresses[--f->address_count];
}

static void spoil(struct fake *f, const char *arg)
{
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		if (strcmp(f->services[id].name, arg) != 0)
			continue;
		f->slots[f->services[id].slot_base + 5] = 0;
		f->verify = true;
		return;
	}
	fail_msg("no service %s", arg);
}

static void detach(struct fake *f, const char *arg)
{
	for (size_t i = 0; i < f->interface_count; i++)
		if (!strcmp(f->interfaces[i].name, arg))
			f->interfaces[i].hooks[DATAPATH_XDP] = ATTACHED_NOT;
}

static void vm_dies(struct fake *f, const char *arg)
{
	struct fake_vm *v = fake_vm(f, arg);

	assert_non_null(v);
	v->running = false;
	v->failed = true;
	v->why = "crashed";
}

static void probe(struct fake *f, const char *arg, int how)
{
	struct ip a;

	assert_true(ip_parse(arg, &a));
	fake_probe_ends(f, &a, how);
}

static void want(struct fake *f, const char *arg)
{
	const char *space = strchr(arg, ' ');
	char name[64];

	assert_non_null(space);
	snprintf(name, sizeof(name), "%.*s", (int)(space - arg), arg);
	fake_want(f, name, (uint32_t)strtoul(space + 1, NULL, 10));
}

static void reweigh(struct fake *f, const char *arg)
{
	const char *space = strchr(arg, ' ');
	size_t found = 0;

	assert_non_null(space);
	for (uint32_t id = 1; id < XLB_BACKENDS; id++) {
		struct xlb_owner *o = &f->owners[id];

		if (strlen(o->name) != (size_t)(space - arg) ||
		    strncmp(o->name, arg, strlen(o->name)) != 0)
			continue;
		o->weight = (uint16_t)strtoul(space + 1, NULL, 10);
		found++;
	}
	assert_true(found);
}

static void drain(struct fake *f, const char *arg)
{
	snprintf(f->drains[f->drain_count++], sizeof(f->drains[0]), "%s", arg);
}

static void guarded(struct fake *f, const char *arg)
{
	(void)arg;
	f->guarded = true;
	ledger_begin(&f->ledger, 0, false);
}

static void fails(struct fake *f, const char *arg)
{
	probe(f, arg, TRUTH_FAILS);
}

static void refuses(struct fake *f, const char *arg)
{
	probe(f, arg, TRUTH_REFUSES);
}

static void passes(struct fake *f, const char *arg)
{
	probe(f, arg, 0);
}

static void unresolved(struct fake *f, const char *arg)
{
	assert_true(ip_parse(arg, &f->unresolved[f->unresolved_count++]));
}

static const struct event {
	const char *name;
	void (*happen)(struct fake *f, const char *arg);
} events[] = {
	{ "unvip", unvip },	      { "unaddress", unaddress },
	{ "spoil", spoil },	      { "detach", detach },
	{ "vm-dies", vm_dies },	      { "want", want },
	{ "drain", drain },	      { "fails", fails },
	{ "refuses", refuses },	      { "passes", passes },
	{ "unresolved", unresolved }, { "reweigh", reweigh },
	{ "guarded", guarded },
};

static void happen(struct fake *f, const struct spec *spec, char *line)
{
	char *space = strchr(line, ' ');

	if (!strcmp(line, "tick")) {
		struct arena *arena = arena_new();

		fake_observe(f, spec, arena);
		arena_free(arena);
		fake_tick(f, spec);
		return;
	}
	if (!strcmp(line, "apply")) {
		assert_true(steps_converge(f, spec) > 0);
		return;
	}
	assert_non_null(space);
	*space = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (!strcmp(events[i].name, line)) {
			events[i].happen(f, space + 1);
			return;
		}
	fail_msg("unknown event %s", line);
}

/* ---- one file ---- */

static char *cut(char *text, const char *mark)
{
	char *at = strstr(text, mark);

	assert_non_null(at);
	*at = '\0';
	return at + strlen(mark);
}

/* All of `what` in text becomes `by`, which is no longer. */
static void mask(char *text, const char *what, const char *by)
{
	size_t len = strlen(what), short_len = strlen(by);
	char *at = text;

	while ((at = strstr(at, what))) {
		memcpy(at, by, short_len);
		memmove(at + short_len, at + len, strlen(at + len) + 1);
		at += short_len;
	}
}

static void compare(const char *in, const char *suffix, const char *got)
{
	char *path = mem_printf("%.*s%s", (int)(strlen(in) - strlen(".in")), in,
				suffix);
	struct buf want_text = BUF_INIT;
	FILE *f = getenv("UPDATE_GOLDEN") ? fopen(path, "w") : NULL;

	if (f) {
		fputs(got, f);
		fclose(f);
	}
	assert_int_equal(buf_read_file(&want_text, path, 1 << 20), 0);
	assert_string_equal(got, buf_str(&want_text));
	buf_release(&want_text);
	free(path);
}

static bool has_json(const char *in)
{
	AUTO_FREE char *path =
		mem_printf("%.*s.json", (int)(strlen(in) - strlen(".in")), in);

	return access(path, F_OK) == 0;
}

static char *json_text(const struct plan *p, const struct spec *spec)
{
	struct json_t *j = plan_json(p, spec);
	char *dumped = json_dumps(j, JSON_INDENT(2));
	char *text = mem_printf("%s\n", dumped);

	free(dumped);
	json_decref(j);
	return text;
}

/* For the test that holds all of them against the schema. */
static void keep_json(const char *in, const char *text)
{
	const char *folder = getenv("XLB_PLAN_JSON");
	AUTO_FREE char *path = NULL;
	FILE *f;

	if (!folder)
		return;
	path = mem_printf("%s/%s.json", folder, in + strlen(FOLDER));
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void golden(void **state)
{
	struct buf in = BUF_INIT;
	char *what, *file, *text, *line, *save = NULL;
	struct spec *before = NULL, *after;
	struct fake *f = fake_new();
	struct arena *arena;
	struct world *w;
	struct plan *p;
	bool same;

	assert_int_equal(buf_read_file(&in, *state, 1 << 20), 0);
	what = cut(in.data, "--- then\n");
	file = cut(what, "--- plan\n");
	if (in.data[0]) {
		before = steps_parse(in.data);
		assert_true(steps_converge(f, before) > 0);
	}
	for (line = strtok_r(what, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		happen(f, before, line);
	same = file[0] == '=';
	after = same ? before : steps_parse(file);
	f->settled = same;
	arena = arena_new();
	w = fake_observe(f, after, arena);
	p = plan_make(after, w);
	if (!same)
		plan_tell_drift(p, before);
	plan_guard(p, after, w);
	plan_identify(p, after);
	text = steps_text(p, after);
	mask(text, p->id, "ID");
	compare(*state, ".ok", text);
	free(text);
	text = json_text(p, after);
	keep_json(*state, text);
	mask(text, p->id, "ID");
	mask(text, p->fingerprint, "FINGERPRINT");
	if (has_json(*state))
		compare(*state, ".json", text);
	free(text);
	plan_free(p);
	arena_free(arena);
	if (!same)
		spec_free(after);
	spec_free(before);
	fake_free(f);
	buf_release(&in);
}

int main(void)
{
	struct CMUnitTest *tests;
	glob_t g;
	int failed;

	if (glob(FOLDER "*.in", 0, NULL, &g) || !g.gl_pathc) {
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
	failed = _cmocka_run_group_tests("plan_golden", tests, g.gl_pathc, NULL,
					 NULL);
	free(tests);
	globfree(&g);
	return failed;
}
