/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * YAML as a plain tree, every node with its place.  What the file format
 * doesn't allow (anchors, aliases, tags, merge keys, several documents,
 * depth, size) is refused here, once, so that nothing above sees it.
 */
#ifndef DESIRED_NODE_H
#define DESIRED_NODE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/diag.h"
#include "base/mem.h"
#include "desired/desired.h"

#define NODE_MAX 1000000 /* nodes of one file */

enum node_kind {
	NODE_BAD, /* already complained about: pass over it in silence */
	NODE_SCALAR,
	NODE_SEQUENCE,
	NODE_MAPPING,
};

struct node {
	enum node_kind kind;
	bool plain; /* scalar: not quoted, nor a block */
	bool block; /* sequence: its members begin with "- " */
	struct source src;
	const char *text; /* scalar; never holds a NUL */
	struct node *items; /* members; of a mapping key, value, key, value */
	size_t count; /* of items */
};

/*
 * The text's tree in `arena`; sources name `file`, which must live as long.
 * NULL, with an error in diags, when there is no tree to speak of.
 */
struct node *node_parse(struct arena *arena, const char *file,
			const struct spec_text *text, struct diag_list *diags);

/*
 * The same of a part that begins at the line `line` of its file, two levels
 * deep in it.
 */
struct node *node_parse_at(struct arena *arena, const char *file,
			   const struct spec_text *text, int line,
			   struct diag_list *diags);

/* The value of a mapping's key, or NULL. */
const struct node *node_get(const struct node *mapping, const char *key);

const char *node_kind_name(const struct node *n); /* "a list", "a mapping" */

#endif
