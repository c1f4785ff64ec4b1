/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prints services.schema.json from the parser's own tables of keys, so that
 * editors and the parser can't disagree: `make schema`.  Draft 7, which is
 * what the YAML language server knows best; values as YAML 1.2 reads them.
 *
 * What only the parser can see isn't in it: what two objects say about each
 * other, and the range of values with units (they are in the descriptions).
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/buf.h"
#include "desired/parse.h"
#include "desired/value.h"

#define DECIMAL "(0|[1-9][0-9]*)(\\.[0-9]{1,6})?"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define ADDRESS \
	"((" OCTET "\\.){3}" OCTET "|[0-9a-fA-F]*:[0-9a-fA-F:]*[0-9a-fA-F:.]*)"
#define WORD_MAX 255
#define PATH_LIMIT 1024
#define EXPECT_LIMIT 1028 /* "hex:" and 512 bytes */

static json_t *checked(json_t *j)
{
	if (!j)
		abort();
	return j;
}

static void set(json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, checked(value)))
		abort();
}

static json_t *of_type(const char *type)
{
	json_t *s = checked(json_object());

	set(s, "type", json_string(type));
	return s;
}

static json_t *text(uint64_t longest)
{
	json_t *s = of_type("string");

	set(s, "minLength", json_integer(1));
	set(s, "maxLength", json_integer((json_int_t)longest));
	return s;
}

static json_t *pattern(const char *what)
{
	json_t *s = of_type("string");

	set(s, "pattern", json_string(what));
	return s;
}

static json_t *whole(uint64_t min, uint64_t max)
{
	json_t *s = of_type("integer");

	set(s, "minimum", json_integer((json_int_t)min));
	set(s, "maximum", json_integer((json_int_t)max));
	return s;
}

/* One of two; or the one that there is. */
static json_t *either(json_t *a, json_t *b)
{
	json_t *s;

	if (!a || !b)
		return a ? a : b;
	if (json_object_get(a, "anyOf")) {
		json_array_append_new(json_object_get(a, "anyOf"), b);
		return a;
	}
	s = checked(json_object());
	set(s, "anyOf", json_pack("[o, o]", a, b));
	return s;
}

static json_t *count(uint64_t min, uint64_t max)
{
	json_t *units = max < 1000 ? NULL : pattern("^" DECIMAL "[kMG]$");

	return either(whole(min, max), units);
}

static json_t *level(void)
{
	json_t *number = of_type("number");

	set(number, "minimum", json_integer(0));
	return either(number, pattern("^" DECIMAL "[kMG%]?$"));
}

static const struct {
	key_fn read;
	enum key_form form;
} readers[] = {
	{ read_text, FORM_TEXT },
	{ read_name, FORM_NAME },
	{ read_bool, FORM_BOOL },
	{ read_duration, FORM_DURATION },
	{ read_size, FORM_SIZE },
	{ read_count, FORM_COUNT },
	{ read_percent, FORM_PERCENT },
	{ read_port, FORM_PORT },
	{ read_address_pair, FORM_ADDRESS },
};

static enum key_form form_of(const struct key *k)
{
	for (size_t i = 0; !k->form && i < ARRAY_SIZE(readers); i++)
		if (readers[i].read == k->read)
			return readers[i].form;
	return k->form;
}

static json_t *single(const struct key *k)
{
	switch (form_of(k)) {
	case FORM_OF_READER:
		return k->read == read_path ? text(PATH_LIMIT) : NULL;
	case FORM_TEXT:
		return text(k->max ? k->max : WORD_MAX);
	case FORM_NAME:
		return pattern("^[A-Za-z0-9._:-]{1,48}$");
	case FORM_SERVICE_NAME:
		return pattern("^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$");
	case FORM_BOOL:
		return of_type("boolean");
	case FORM_DURATION:
		return pattern("^" DECIMAL "(ms|s|m|h|d)$");
	case FORM_SIZE:
		return pattern("^" DECIMAL "(KiB|MiB|GiB)$");
	case FORM_COUNT:
		return count(k->min, k->max);
	case FORM_PERCENT:
		return pattern("^" DECIMAL "%$");
	case FORM_LEVEL:
		return level();
	case FORM_PORT:
		return count(1, 65535);
	case FORM_ADDRESS:
		return pattern("^" ADDRESS "$");
	case FORM_PREFIX:
		return pattern("^" ADDRESS "(/[0-9]{1,3})?$");
	case FORM_RANGE:
		return pattern("^" ADDRESS "-" ADDRESS "/[0-9]{1,3}$");
	case FORM_MAC:
		return pattern("^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$");
	case FORM_URL_PATH:
		return pattern("^/[^ ]{0,254}$");
	case FORM_NO_BLANKS:
		return pattern("^[^ ]{1,255}$");
	case FORM_VERIFY:
		return either(of_type("boolean"), text(PATH_LIMIT));
	case FORM_EXPECT:
		return either(whole(100, 599), text(EXPECT_LIMIT));
	case FORM_VERSION:
		return json_pack("{s: [i, s]}", "enum", 1, "1");
	}
	return NULL;
}

static json_t *words(const struct choice *c)
{
	json_t *s, *list = checked(json_array());

	for (; c->name; c++)
		if (c->value != CHOICE_LATER)
			json_array_append_new(list, json_string(c->name));
	s = checked(json_object());
	set(s, "enum", list);
	return s;
}

static json_t *table(const struct key_table *t);

static json_t *listed(const struct key *k, json_t *members)
{
	json_t *s = of_type("array");

	set(s, "items", members);
	if (k->least)
		set(s, "minItems", json_integer((json_int_t)k->least));
	if (k->most)
		set(s, "maxItems", json_integer((json_int_t)k->most));
	return s;
}

/* true, 10 and 10s, as what YAML takes them for. */
static json_t *plain_value(const char *s)
{
	if (!strcmp(s, "true") || !strcmp(s, "false"))
		return json_boolean(s[0] == 't');
	if (!s[strspn(s, "0123456789")])
		return json_integer(strtoll(s, NULL, 10));
	return json_string(s);
}

/* The range that the schema itself can't say. */
static void add_range(struct buf *b, const struct key *k)
{
	void (*print)(struct buf *, uint64_t) = NULL;
	enum key_form form = form_of(k);

	if (form == FORM_DURATION)
		print = print_duration;
	else if (form == FORM_SIZE)
		print = print_size;
	else if (form == FORM_PERCENT)
		buf_addf(b, "; %llu%% to %llu%%", (unsigned long long)k->min,
			 (unsigned long long)k->max);
	if (!print)
		return;
	buf_adds(b, "; ");
	print(b, k->min);
	buf_adds(b, " to ");
	print(b, k->max);
}

static void describe(json_t *s, const struct key *k)
{
	AUTO_BUF struct buf b = BUF_INIT;

	if (!k->help)
		return;
	buf_adds(&b, k->help);
	add_range(&b, k);
	set(s, "description", json_string(buf_str(&b)));
	if (k->fallback)
		set(s, "default", plain_value(k->fallback));
}

static json_t *value_of(const struct key_table *t, const struct key *k)
{
	json_t *s = single(k);

	if (k->choices)
		s = either(s, words(k->choices));
	if (k->inner)
		s = either(s, table(k->inner));
	if (!s) {
		fprintf(stderr,
			"key \"%s\" of %s has a reader of its own: say what it "
			"reads, with .form, .choices or .inner\n",
			k->name, t->what);
		exit(1);
	}
	if (k->list)
		s = listed(k, s);
	describe(s, k);
	return s;
}

static void add_rules(json_t *s, const struct key_table *t)
{
	json_error_t why;
	json_t *rules = json_loads(t->rules, 0, &why);

	if (!rules || json_object_update(s, rules)) {
		fprintf(stderr, "rules of %s: %s\n", t->what, why.text);
		exit(1);
	}
	json_decref(rules);
}

static json_t *table(const struct key_table *t)
{
	json_t *s = of_type("object"), *keys = checked(json_object());
	json_t *required = checked(json_array());

	for (size_t i = 0; i < t->count; i++) {
		const struct key *k = &t->keys[i];

		if (!k->read)
			continue; /* not supported yet: as good as unknown */
		set(keys, k->name, value_of(t, k));
		if (k->required)
			json_array_append_new(required, json_string(k->name));
	}
	set(s, "additionalProperties", json_false());
	set(s, "properties", keys);
	if (json_array_size(required))
		set(s, "required", required);
	else
		json_decref(required);
	if (t->rules)
		add_rules(s, t);
	return s;
}

int main(void)
{
	json_t *s = checked(json_object()), *all = table(&top_table);
	char *out;

	set(s, "$schema",
	    json_string("http://json-schema.org/draft-07/schema#"));
	set(s, "title", json_string("services.yaml of xlb"));
	set(s, "description",
	    json_string("Made from the parser's tables by `make schema`."));
	json_object_update(s, all);
	out = json_dumps(s, JSON_INDENT(1));
	if (!out || puts(out) < 0)
		return 1;
	free(out);
	json_decref(all);
	json_decref(s);
	return 0;
}
