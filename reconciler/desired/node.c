/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/node.h"

#include <string.h>
#include <yaml.h>

#include "desired/complain.h"

struct builder {
	yaml_parser_t yaml;
	struct arena *arena;
	const char *file;
	const struct spec_text *text;
	struct diag_list *diags;
	size_t nodes;
	int first_line; /* of the text in its file */
	int first_depth;
	bool stop; /* what follows makes no sense any more */
};

const char *node_kind_name(const struct node *n)
{
	switch (n->kind) {
	case NODE_BAD:
		break;
	case NODE_SCALAR:
		return n->plain ? "a single value" : "a text";
	case NODE_SEQUENCE:
		return "a list";
	case NODE_MAPPING:
		return "a mapping";
	}
	return "nothing";
}

const struct node *node_get(const struct node *mapping, const char *key)
{
	if (mapping->kind != NODE_MAPPING)
		return NULL;
	for (size_t i = 0; i + 1 < mapping->count; i += 2) {
		const struct node *k = &mapping->items[i];

		if (k->kind == NODE_SCALAR && !strcmp(k->text, key))
			return &mapping->items[i + 1];
	}
	return NULL;
}

static struct source place(const struct builder *b, const yaml_mark_t *mark)
{
	return (struct source){ b->file, (int)mark->line + b->first_line,
				(int)mark->column + 1 };
}

/* libyaml gives no line for bytes it can't read, only their offset. */
static struct source place_of_offset(const struct builder *b, size_t offset)
{
	struct source src = { b->file, b->first_line, 1 };

	for (size_t i = 0; i < offset && i < b->text->len; i++) {
		unsigned char c = (unsigned char)b->text->data[i];

		if (c == '\n') {
			src.line++;
			src.column = 1;
		} else if ((c & 0xc0) != 0x80) {
			src.column++;
		}
	}
	return src;
}

static const char *syntax_hint(const struct builder *b)
{
	size_t at = b->yaml.problem_mark.index;

	if (at < b->text->len && b->text->data[at] == '\t')
		return "indent with spaces: YAML doesn't allow tabs there";
	if (at < b->text->len && strchr("@`%", b->text->data[at]))
		return "a value that begins with this character must be quoted";
	return "look at the line and the one above: indentation, quotes, brackets and the space after a colon";
}

static void complain_syntax(struct builder *b)
{
	const yaml_parser_t *y = &b->yaml;
	struct source src = place(b, &y->problem_mark);

	b->stop = true;
	if (y->error == YAML_READER_ERROR) {
		src = place_of_offset(b, y->problem_offset);
		complain(b->diags, &src, "save the file as UTF-8 text",
			 "not readable as text: %s", y->problem);
		return;
	}
	complain(b->diags, &src, syntax_hint(b), "not valid YAML: %s%s%s",
		 y->problem ? y->problem : "parsing stopped",
		 y->context ? " " : "", y->context ? y->context : "");
}

static bool next_event(struct builder *b, yaml_event_t *e)
{
	if (b->stop)
		return false;
	if (yaml_parser_parse(&b->yaml, e))
		return true;
	complain_syntax(b);
	return false;
}

/* Anchors, tags: said once, then the node is read as if they weren't there. */
static void refuse_properties(struct builder *b, const struct source *src,
			      const yaml_char_t *anchor, const yaml_char_t *tag)
{
	if (anchor)
		complain(b->diags, src, "remove it and write the values out",
			 "anchors (&%s) are not allowed", anchor);
	if (tag)
		complain(b->diags, src,
			 "remove it; quote the value if it is a text",
			 "tags (%s) are not allowed", tag);
}

static bool enter(struct builder *b, const struct source *src, int depth)
{
	if (++b->nodes > NODE_MAX) {
		b->stop = true;
		complain(b->diags, src, "split the file into a folder of files",
			 "more than %d values in one file", NODE_MAX);
	} else if (depth > SPEC_MAX_DEPTH) {
		b->stop = true;
		complain(b->diags, src, "nothing here needs to be so deep",
			 "nested more than %d levels deep", SPEC_MAX_DEPTH);
	}
	return !b->stop;
}

static void build_scalar(struct builder *b, const yaml_event_t *e,
			 struct node *n)
{
	const char *text = (const char *)e->data.scalar.value;
	size_t len = e->data.scalar.length;
	char *copy;

	refuse_properties(b, &n->src, e->data.scalar.anchor,
			  e->data.scalar.tag);
	if (memchr(text, 0, len)) {
		complain(b->diags, &n->src, "remove it",
			 "a text holds a NUL byte");
		return;
	}
	copy = arena_alloc(b->arena, len + 1);
	memcpy(copy, text, len);
	n->kind = NODE_SCALAR;
	n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->text = copy;
}

static void build_node(struct builder *b, const yaml_event_t *e, struct node *n,
		       int depth);

static void build_members(struct builder *b, struct node *n,
			  yaml_event_type_t end, int depth)
{
	yaml_event_t e;

	while (next_event(b, &e)) {
		bool done = e.type == end;

		if (!done)
			build_node(b, &e,
				   ARENA_PUSH(b->arena, n->items, n->count),
				   depth + 1);
		yaml_event_delete(&e);
		if (done)
			return;
	}
	n->kind = NODE_BAD;
}

static void refuse_keys(struct builder *b, const struct node *mapping)
{
	for (size_t i = 0; i < mapping->count; i += 2) {
		struct node *k = &mapping->items[i];

		if (k->kind == NODE_SEQUENCE || k->kind == NODE_MAPPING) {
			complain(b->diags, &k->src,
				 "a key is one word, as in \"name: web\"",
				 "%s can't be a key", node_kind_name(k));
			k->kind = NODE_BAD;
		} else if (k->kind == NODE_SCALAR && !strcmp(k->text, "<<")) {
			complain(b->diags, &k->src, "write the values out",
				 "merge keys (<<) are not allowed");
			k->kind = NODE_BAD;
		}
	}
}

/* n is zeroed: NODE_BAD until it is known to be something better. */
static void build_node(struct builder *b, const yaml_event_t *e, struct node *n,
		       int depth)
{
	n->src = place(b, &e->start_mark);
	if (!enter(b, &n->src, depth))
		return;
	if (e->type == YAML_ALIAS_EVENT) {
		complain(b->diags, &n->src, "write the values out",
			 "aliases (*%s) are not allowed", e->data.alias.anchor);
	} else if (e->type == YAML_SCALAR_EVENT) {
		build_scalar(b, e, n);
	} else if (e->type == YAML_SEQUENCE_START_EVENT) {
		refuse_properties(b, &n->src, e->data.sequence_start.anchor,
				  e->data.sequence_start.tag);
		n->kind = NODE_SEQUENCE;
		n->block = e->data.sequence_start.style ==
			   YAML_BLOCK_SEQUENCE_STYLE;
		build_members(b, n, YAML_SEQUENCE_END_EVENT, depth);
	} else if (e->type == YAML_MAPPING_START_EVENT) {
		refuse_properties(b, &n->src, e->data.mapping_start.anchor,
				  e->data.mapping_start.tag);
		n->kind = NODE_MAPPING;
		build_members(b, n, YAML_MAPPING_END_EVENT, depth);
		refuse_keys(b, n);
	}
}

static void refuse_second_document(struct builder *b, const yaml_event_t *e)
{
	struct source src = place(b, &e->start_mark);

	b->stop = true;
	complain(b->diags, &src,
		 "keep one; several files can stand in a folder",
		 "more than one document in the file");
}

static void refuse_directives(struct builder *b, const yaml_event_t *e)
{
	struct source src = place(b, &e->start_mark);

	if (e->data.document_start.version_directive ||
	    e->data.document_start.tag_directives.start !=
		    e->data.document_start.tag_directives.end)
		complain(b->diags, &src, "remove the lines that begin with %",
			 "YAML directives are not allowed");
}

/* Stream start, document start, the root, document end, stream end. */
static struct node *build_stream(struct builder *b)
{
	struct node *root = NULL;
	yaml_event_t e;
	bool end = false;

	while (!end && next_event(b, &e)) {
		end = e.type == YAML_STREAM_END_EVENT;
		if (e.type == YAML_DOCUMENT_START_EVENT && root)
			refuse_second_document(b, &e);
		else if (e.type == YAML_DOCUMENT_START_EVENT)
			refuse_directives(b, &e);
		else if (!end && e.type != YAML_STREAM_START_EVENT &&
			 e.type != YAML_DOCUMENT_END_EVENT) {
			root = arena_alloc(b->arena, sizeof(*root));
			build_node(b, &e, root, b->first_depth);
		}
		yaml_event_delete(&e);
	}
	return b->stop ? NULL : root;
}

static const char *skip_bom(const struct spec_text *t, size_t *ret_len)
{
	bool bom = t->len >= 3 && !memcmp(t->data, "\xef\xbb\xbf", 3);

	*ret_len = bom ? t->len - 3 : t->len;
	return bom ? t->data + 3 : t->data;
}

static struct node *parse_from(struct arena *arena, const char *file,
			       const struct spec_text *text, int line,
			       int depth, struct diag_list *diags)
{
	struct builder b = { .arena = arena,
			     .file = file,
			     .text = text,
			     .diags = diags,
			     .first_line = line,
			     .first_depth = depth };
	struct source top = { file, 1, 1 };
	struct node *root;
	const char *data;
	size_t len;

	if (text->len > SPEC_MAX_BYTES) {
		complain(diags, &top, "split it into a folder of files",
			 "the file is larger than %u MiB",
			 SPEC_MAX_BYTES >> 20);
		return NULL;
	}
	if (!yaml_parser_initialize(&b.yaml)) {
		complain(diags, &top, NULL, "out of memory");
		return NULL;
	}
	data = skip_bom(text, &len);
	yaml_parser_set_encoding(&b.yaml, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.yaml, (const unsigned char *)data, len);
	root = build_stream(&b);
	yaml_parser_delete(&b.yaml);
	if (!root && !b.stop)
		complain(
			diags, &top,
			"to remove all services on purpose, write \"version: 1\" and \"services: []\"",
			"the file is empty");
	return root;
}

struct node *node_parse(struct arena *arena, const char *file,
			const struct spec_text *text, struct diag_list *diags)
{
	return parse_from(arena, file, text, 1, 1, diags);
}

struct node *node_parse_at(struct arena *arena, const char *file,
			   const struct spec_text *text, int line,
			   struct diag_list *diags)
{
	return parse_from(arena, file, text, line, 2, diags);
}
