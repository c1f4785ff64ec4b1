/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Services that stay as they were: out of a spec as text, and back into one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "desired/keep.h"
#include "tests/lib/plan_steps.h"

#define HEAD "version: 1\nservices:\n"
#define SERVICE(name, vip, address)                                      \
	"  - name: " name "\n    vips: [" vip "]\n    ports: [80]\n    " \
	"backends: [{address: " address "}]\n"
#define POOLED(hypervisor, template)                                                                           \
	"version: 1\nhypervisors: [{name: " hypervisor                                                         \
	", uri: \"test:///default\"}]\n"                                                                       \
	"templates:\n  - name: " template "\n    image: /x.img\n    memory: 64MiB\n"                           \
					  "    network: {bridge: br0, addresses: [10.2.0.10-10.2.0.24/8]}\n"   \
					  "services:\n  - name: web\n    vips: [192.0.2.9]\n    ports: [80]\n" \
					  "    protect: true\n    pool: {template: " template ", min: 2, max: 4}\n"

static char *text_of(const struct spec *s, const char *name)
{
	AUTO_BUF struct buf b = BUF_INIT;

	keep_print(spec_find_service(s, name), &b);
	return mem_dup(buf_str(&b));
}

/* Every service of the full example comes back as it was. */
static void comes_back(void **state)
{
	struct diag_list diags = { 0 };
	struct spec *full =
		spec_read("examples/full/services.yaml", NULL, &diags, NULL);

	(void)state;
	assert_non_null(full);
	assert_true(full->service_count > 3);
	for (size_t i = 0; i < full->service_count; i++) {
		const char *name = full->services[i].name;
		struct spec *other = steps_parse("version: 1\nservices: []\n");
		char *text = text_of(full, name), *again;

		assert_null(keep_insert(other, name, text, KEPT_PROTECTED));
		again = text_of(other, name);
		assert_string_equal(text, again);
		assert_int_equal(other->service_count, 1);
		assert_int_equal(keep_declared(other), 0);
		assert_true(other->services[0].protect);
		assert_true(other->services[0].undeclared);
		free(text);
		free(again);
		spec_free(other);
	}
	spec_free(full);
	diag_list_release(&diags);
}

static void among_others(void **state)
{
	struct spec *old =
		steps_parse(HEAD SERVICE("m", "192.0.2.2", "10.0.0.2"));
	struct spec *s =
		steps_parse(HEAD SERVICE("z", "192.0.2.3", "10.0.0.3")
				    SERVICE("a", "192.0.2.4", "10.0.0.4"));
	char *text = text_of(old, "m");

	(void)state;
	assert_null(keep_insert(s, "m", text, KEPT_PAUSED));
	assert_int_equal(s->service_count, 3);
	assert_string_equal(s->services[0].name, "a");
	assert_string_equal(s->services[1].name, "m");
	assert_string_equal(s->services[2].name, "z");
	assert_int_equal(s->services[1].kept, KEPT_PAUSED);
	assert_false(s->services[1].protect);
	assert_int_equal(keep_declared(s), 2);
	keep_remove(s, "m");
	assert_int_equal(s->service_count, 2);
	assert_null(spec_find_service(s, "m"));
	assert_null(keep_find(s, "m"));
	assert_non_null(keep_find(s, "z"));
	free(text);
	spec_free(old);
	spec_free(s);
}

/* In the place of the file's: what it is is old, what guards it is the file's. */
static void in_place(void **state)
{
	struct spec *old =
		steps_parse(HEAD SERVICE("m", "192.0.2.2", "10.0.0.2"));
	struct spec *s = steps_parse(HEAD SERVICE(
		"m", "192.0.2.7", "10.0.0.7") "    paused: true\n"
					      "    protect: true\n");
	char *text = text_of(old, "m");
	const struct service_spec *m;

	(void)state;
	assert_null(keep_insert(s, "m", text, KEPT_PAUSED));
	m = spec_find_service(s, "m");
	assert_int_equal(s->service_count, 1);
	assert_int_equal(m->vips[0].address.bytes[3], 2);
	assert_false(m->undeclared);
	assert_true(m->paused);
	assert_true(m->protect);
	free(text);
	spec_free(old);
	spec_free(s);
}

static void hypervisors(void **state)
{
	struct spec *old = steps_parse(POOLED("here", "t"));
	struct spec *without = steps_parse("version: 1\nservices: []\n");
	struct spec *with = steps_parse(
		"version: 1\nhypervisors: [{name: here, uri: \"lxc:///\"}]\n"
		"services: []\n");
	char *text = text_of(old, "web");

	(void)state;
	assert_null(keep_insert(without, "web", text, KEPT_LEAVING));
	assert_int_equal(without->hypervisor_count, 1);
	assert_ptr_equal(without->services[0].pool.hypervisor,
			 without->hypervisors);
	assert_int_equal(without->services[0].pool.min, 0);
	assert_string_equal(without->services[0].pool.template->hash,
			    old->services[0].pool.template->hash);
	assert_null(keep_insert(with, "web", text, KEPT_PROTECTED));
	assert_int_equal(with->hypervisor_count, 1);
	assert_string_equal(with->services[0].pool.hypervisor->uri, "lxc:///");
	assert_int_equal(with->services[0].pool.min, 2);
	free(text);
	spec_free(old);
	spec_free(without);
	spec_free(with);
}

/* What doesn't go together leaves the spec as it was. */
static void conflicts(void **state)
{
	struct spec *old =
		steps_parse(HEAD SERVICE("m", "192.0.2.2", "10.0.0.2"));
	struct spec *s =
		steps_parse(HEAD SERVICE("other", "192.0.2.2", "10.0.0.3"));
	char *text = text_of(old, "m");
	const char *why = keep_insert(s, "m", text, KEPT_PROTECTED);

	(void)state;
	assert_non_null(why);
	assert_non_null(strstr(why, "192.0.2.2"));
	assert_int_equal(s->service_count, 1);
	assert_string_equal(s->services[0].name, "other");
	why = keep_insert(s, "m", "version: 99\n", KEPT_PROTECTED);
	assert_non_null(strstr(why, "can't be read"));
	assert_int_equal(s->service_count, 1);
	free(text);
	spec_free(old);
	spec_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back), cmocka_unit_test(among_others),
		cmocka_unit_test(in_place),   cmocka_unit_test(hypervisors),
		cmocka_unit_test(conflicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
