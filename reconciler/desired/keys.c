/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/keys.h"

#include <string.h>

#include "desired/complain.h"
#include "desired/value.h"

#define TEXT_MAX 255
#define KEYS_MAX 32

const struct key *table_key(const struct key_table *t, const char *name)
{
	for (size_t i = 0; i < t->count; i++)
		if (!strcmp(t->keys[i].name, name))
			return &t->keys[i];
	return NULL;
}

/* Those that work: offering others would lead to the next error. */
static const char *list_keys(struct reader *r, const struct key_table *t)
{
	AUTO_BUF struct buf b = BUF_INIT;

	for (size_t i = 0; i < t->count; i++)
		if (t->keys[i].read)
			buf_addf(&b, "%s%s", b.len ? ", " : "",
				 t->keys[i].name);
	return arena_dup(r->arena, buf_str(&b));
}

static void complain_unknown(struct reader *r, const struct key_table *t,
			     const struct node *key)
{
	struct nearest n = { .word = key->text };
	const char *hint;

	for (size_t i = 0; i < t->count; i++)
		nearest_offer(&n, t->keys[i].name);
	hint = n.best ? arena_printf(r->arena, "did you mean \"%s\"?", n.best)
		      : arena_printf(r->arena, "%s has the keys %s", t->what,
				     list_keys(r, t));
	complain(r->diags, &key->src, hint, "unknown key \"%.64s\" in %s",
		 key->text, t->what);
}

static bool is_null(const struct node *v)
{
	return v->kind == NODE_SCALAR && v->plain &&
	       (!*v->text || !strcmp(v->text, "~") ||
		!strcasecmp(v->text, "null"));
}

/* seen: the node of each key that has been met, by the key's place in t. */
static void read_pair(struct reader *r, const struct key_table *t,
		      const struct node *key, const struct node **seen,
		      void *target)
{
	const struct node *v = key + 1;
	const struct key *k;

	if (key->kind != NODE_SCALAR)
		return;
	k = table_key(t, key->text);
	if (!k) {
		complain_unknown(r, t, key);
		return;
	}
	if (seen[k - t->keys]) {
		complain(r->diags, &key->src, "keep one of them",
			 "duplicate key \"%s\" in %s; it stands at " PLACE_FMT
			 " already",
			 k->name, t->what, PLACE_ARG(&seen[k - t->keys]->src));
		return;
	}
	seen[k - t->keys] = key;
	if (!k->read)
		complain(r->diags, &key->src,
			 k->hint ? k->hint : "remove the key",
			 "\"%s\" is not supported yet", k->name);
	else if (is_null(v))
		complain(r->diags, &key->src, "write a value or remove the key",
			 "\"%s\" has no value", k->name);
	else if (v->kind != NODE_BAD)
		k->read(r, k, v, (char *)target + k->offset);
}

bool read_mapping(struct reader *r, const struct key_table *t,
		  const struct node *n, void *target)
{
	const struct node *seen[KEYS_MAX] = { 0 };

	if (n->kind == NODE_BAD)
		return false;
	if (n->kind != NODE_MAPPING) {
		complain(r->diags, &n->src,
			 arena_printf(
				 r->arena,
				 "write its keys one a line, as \"%s: ...\"",
				 t->keys[0].name),
			 "%s must be a mapping, not %s", t->what,
			 node_kind_name(n));
		return false;
	}
	for (size_t i = 0; i + 1 < n->count && !complain_full(r->diags); i += 2)
		read_pair(r, t, &n->items[i], seen, target);
	for (size_t i = 0; i < t->count; i++)
		if (t->keys[i].required && !seen[i])
			complain(r->diags, &n->src, NULL, "%s needs \"%s\"",
				 t->what, t->keys[i].name);
	return true;
}

bool expect_list(struct reader *r, const char *name, const struct node *v)
{
	if (v->kind == NODE_SEQUENCE)
		return true;
	if (v->kind != NODE_BAD)
		complain(r->diags, &v->src,
			 arena_printf(r->arena, "write \"%s: [...]\"", name),
			 "\"%s\" must be a list, not %s", name,
			 node_kind_name(v));
	return false;
}

bool expect_members(struct reader *r, const char *name, const struct node *v)
{
	if (!expect_list(r, name, v))
		return false;
	if (!v->count)
		complain(r->diags, &v->src, NULL,
			 "\"%s\" needs at least one member", name);
	return v->count > 0;
}

static bool expect_scalar(struct reader *r, const char *name,
			  const struct node *v)
{
	if (v->kind == NODE_SCALAR)
		return true;
	if (v->kind != NODE_BAD)
		complain(r->diags, &v->src, NULL,
			 "\"%s\" must be a single value, not %s", name,
			 node_kind_name(v));
	return false;
}

const char *expect_text(struct reader *r, const char *name,
			const struct node *v)
{
	const char *misread;

	if (!expect_scalar(r, name, v))
		return NULL;
	misread = v->plain ? value_misread(v->text) : NULL;
	if (misread) {
		complain(
			r->diags, &v->src,
			arena_printf(r->arena, "quote it: \"%.64s\"", v->text),
			"\"%s\" must be a text; unquoted, %.64s can be read as %s",
			name, *v->text ? v->text : "nothing", misread);
		return NULL;
	}
	if (!*v->text || !value_is_clean(v->text)) {
		complain(r->diags, &v->src, NULL, "\"%s\" %s", name,
			 *v->text ? "has a control character in it"
				  : "is empty");
		return NULL;
	}
	return v->text;
}

void read_text(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	const char *s = expect_text(r, k->name, v);
	size_t max = k->max ? k->max : TEXT_MAX;

	if (!s)
		return;
	if (strlen(s) > max)
		complain(r->diags, &v->src, NULL,
			 "\"%s\" is longer than %zu bytes", k->name, max);
	else
		*(const char **)field = arena_dup(r->arena, s);
}

void read_name(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._:-";
	const char *s = expect_text(r, k->name, v);

	if (!s)
		return;
	if (strlen(s) > SPEC_MAX_NAME)
		complain(r->diags, &v->src, NULL,
			 "the name is longer than %d characters",
			 SPEC_MAX_NAME);
	else if (s[strspn(s, allowed)])
		complain(
			r->diags, &v->src,
			"use letters, digits and . _ : - only",
			"the name \"%.64s\" has a character that names can't have",
			s);
	else
		*(const char **)field = arena_dup(r->arena, s);
}

void read_path(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	const char *s = expect_text(r, k->name, v);

	if (!s)
		return;
	while (s[0] == '.' && s[1] == '/')
		s += 2 + strspn(s + 2, "/");
	if (strlen(s) > 1024)
		complain(r->diags, &v->src, NULL,
			 "\"%s\" is longer than 1024 bytes", k->name);
	else if (*s == '/')
		*(const char **)field = arena_dup(r->arena, s);
	else
		*(const char **)field =
			arena_printf(r->arena, "%s%s%s", r->dir,
				     strcmp(r->dir, "/") != 0 ? "/" : "", s);
}

void read_bool(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	if (!expect_scalar(r, k->name, v))
		return;
	if (v->plain && !strcmp(v->text, "true"))
		*(bool *)field = true;
	else if (v->plain && !strcmp(v->text, "false"))
		*(bool *)field = false;
	else
		complain(r->diags, &v->src,
			 "write true or false, unquoted and in small letters",
			 "\"%s\" must be true or false, not \"%.64s\"", k->name,
			 v->text);
}

static void complain_form(struct reader *r, const struct key *k,
			  const struct node *v, const char *what,
			  const char *hint)
{
	const char *misread = v->plain ? value_misread(v->text) : NULL;

	if (misread && strcmp(misread, "a number") != 0)
		complain(r->diags, &v->src, hint,
			 "\"%s\" must be %s; %.64s can be read as %s", k->name,
			 what, v->text, misread);
	else
		complain(r->diags, &v->src, hint,
			 "\"%s\" must be %s, not \"%.64s\"", k->name, what,
			 v->text);
}

static void print_plain(struct buf *out, uint64_t v)
{
	buf_addf(out, "%llu", (unsigned long long)v);
}

static bool in_range(struct reader *r, const struct key *k,
		     const struct node *v, uint64_t value,
		     void (*print)(struct buf *, uint64_t))
{
	AUTO_BUF struct buf b = BUF_INIT;

	if (value >= k->min && value <= k->max)
		return true;
	buf_adds(&b, "allowed: ");
	print(&b, k->min);
	buf_adds(&b, " to ");
	print(&b, k->max);
	complain(r->diags, &v->src, buf_str(&b), "\"%s\" is out of range: %s",
		 k->name, v->text);
	return false;
}

void read_duration(struct reader *r, const struct key *k, const struct node *v,
		   void *field)
{
	uint64_t ns;

	if (!expect_scalar(r, k->name, v))
		return;
	if (!value_duration(v->text, &ns))
		complain_form(r, k, v, "a duration",
			      "a number and one of ms s m h d, such as 10s");
	else if (in_range(r, k, v, ns, print_duration))
		*(uint64_t *)field = ns;
}

void read_size(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	uint64_t bytes;

	if (!expect_scalar(r, k->name, v))
		return;
	if (!value_size(v->text, &bytes))
		complain_form(
			r, k, v, "a size",
			"a number and one of KiB MiB GiB, such as 512MiB");
	else if (in_range(r, k, v, bytes, print_size))
		*(uint64_t *)field = bytes;
}

/* A bare number in quotes is a text to every other reader of the file. */
static bool is_quoted_number(const struct node *v)
{
	size_t len = strlen(v->text);

	return !v->plain && len && strchr("0123456789", v->text[len - 1]);
}

bool read_whole(struct reader *r, const struct key *k, const struct node *v,
		uint64_t *ret)
{
	uint64_t n;

	if (!expect_scalar(r, k->name, v))
		return false;
	if (is_quoted_number(v) || !value_count(v->text, &n)) {
		complain_form(
			r, k, v, "a whole number",
			"plain digits without leading zeros, sign or quotes");
		return false;
	}
	if (!in_range(r, k, v, n, print_plain))
		return false;
	*ret = n;
	return true;
}

void read_count(struct reader *r, const struct key *k, const struct node *v,
		void *field)
{
	uint64_t n;

	if (read_whole(r, k, v, &n))
		*(uint32_t *)field = (uint32_t)n;
}

void read_port(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	struct key ranged = *k;
	uint64_t n;

	ranged.min = 1;
	ranged.max = 65535;
	if (read_whole(r, &ranged, v, &n))
		*(uint16_t *)field = (uint16_t)n;
}

void read_percent(struct reader *r, const struct key *k, const struct node *v,
		  void *field)
{
	double percent;

	if (!expect_scalar(r, k->name, v))
		return;
	if (!value_percent(v->text, &percent))
		complain_form(r, k, v, "a percentage",
			      "a number and %, such as 10%");
	else if (percent < (double)k->min || percent > (double)k->max)
		complain(r->diags, &v->src,
			 arena_printf(r->arena, "allowed: %llu%% to %llu%%",
				      (unsigned long long)k->min,
				      (unsigned long long)k->max),
			 "\"%s\" is out of range: %s", k->name, v->text);
	else
		*(double *)field = percent;
}

/* "use a or b", "use a, b or c": those that work. */
static const char *list_choices(struct reader *r, const struct choice *c)
{
	AUTO_BUF struct buf b = BUF_INIT;
	const char *held = NULL; /* until it is known whether it is the last */

	for (; c->name; c++) {
		if (c->value == CHOICE_LATER)
			continue;
		if (held)
			buf_addf(&b, "%s%s", b.len ? ", " : "use ", held);
		held = c->name;
	}
	if (held)
		buf_addf(&b, "%s%s", b.len ? " or " : "use ", held);
	return arena_dup(r->arena, buf_str(&b));
}

static void complain_choice(struct reader *r, const struct key *k,
			    const struct node *v)
{
	struct nearest n = { .word = v->text };
	const char *hint = list_choices(r, k->choices);

	for (const struct choice *c = k->choices; c->name; c++)
		nearest_offer(&n, c->name);
	if (n.best)
		hint = arena_printf(r->arena, "did you mean %s? %s", n.best,
				    hint);
	complain(r->diags, &v->src, hint, "\"%s\" can't be \"%.64s\"", k->name,
		 v->text);
}

void read_choice(struct reader *r, const struct key *k, const struct node *v,
		 void *field)
{
	if (!expect_scalar(r, k->name, v))
		return;
	for (const struct choice *c = k->choices; c->name; c++) {
		if (strcmp(c->name, v->text) != 0)
			continue;
		if (c->value == CHOICE_LATER)
			complain(r->diags, &v->src, list_choices(r, k->choices),
				 "\"%s: %s\" is not supported yet", k->name,
				 c->name);
		else
			*(int *)field = c->value;
		return;
	}
	complain_choice(r, k, v);
}

void read_word(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	int ignored;

	(void)field;
	read_choice(r, k, v, &ignored);
}

void read_keep(struct reader *r, const struct key *k, const struct node *v,
	       void *field)
{
	(void)r;
	(void)k;
	*(const struct node **)field = v;
}

void read_table(struct reader *r, const struct key *k, const struct node *v,
		void *field)
{
	read_mapping(r, k->inner, v, field);
}
