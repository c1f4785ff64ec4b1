/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was read at one time: a whole file, or some services of one that
 * changed since.  Pieces are never altered; specs and the cache share them.
 */
#ifndef DESIRED_PIECE_H
#define DESIRED_PIECE_H

#include "desired/keys.h"
#include "desired/node.h"

struct piece {
	unsigned int users; /* freed with the last one */
	struct arena *arena; /* of all that is in it */
	struct spec *spec; /* as far as the text goes; nothing is resolved */
	struct pool_ref *refs; /* by service; template NULL: it has no pool */
	struct source blocks[BLOCK_COUNT];
	bool has_services; /* the key is there */
	bool readable; /* the text has a tree */
};

/* One service of a file: which of a piece's, and how far it has moved. */
struct item {
	struct piece *piece;
	size_t service;
	int shift; /* lines further down than when it was read */
};

/* A file as its pieces say it: all but its services, and those. */
struct file_model {
	struct piece *top;
	struct item *items;
	size_t count;
};

struct piece *piece_use(struct piece *p);
void piece_free(struct piece *p); /* once for each user; NULL is fine */

/*
 * Reads a text; `layout` gets the value of "services", which lives as long as
 * `trees`, when that is the last key, else NULL.  The piece has one user.
 */
struct piece *piece_parse(const struct spec_text *text, struct arena *trees,
			  const struct node **layout, struct diag_list *diags);
/*
 * Reads members of a list of services: `text` begins at `line` of its file
 * with one of them, and they begin at `column`.  NULL: not in that form.
 */
struct piece *piece_parse_services(const struct spec_text *text, int line,
				   int column, struct arena *trees,
				   const struct node **layout,
				   struct diag_list *diags);

/*
 * One spec of several files, checked; NULL when diags->errors > `before`,
 * which errors while they were read count for, too.  clean: see
 * check_addresses_again().
 */
struct spec *merge_files(const char *path, const struct file_model *files,
			 size_t count, size_t before, uint64_t *clean,
			 struct diag_list *diags);

#endif
