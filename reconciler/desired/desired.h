/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text to model.  parse.c makes the model, check.c holds it against itself,
 * print.c writes it back in canonical form.  All pure: bytes come in as an
 * argument; read.c, which opens files, is the one exception and calls them.
 */
#ifndef DESIRED_DESIRED_H
#define DESIRED_DESIRED_H

#include "base/buf.h"
#include "base/diag.h"
#include "desired/model.h"

/* One file's bytes. */
struct spec_text {
	const char *path; /* used in messages */
	const char *data;
	size_t len;
	/* Where relative paths in it start; NULL: the folder of path. */
	const char *dir;
};

/*
 * Parse and check `count` files (one, or a folder's) merged into one spec.
 * Returns the spec, or NULL when diags->errors > 0.  Warnings may come with
 * a spec.  Never partially applied, never guessed.
 */
struct spec *spec_parse(const char *path, const struct spec_text *texts,
			size_t count, struct diag_list *diags);

/*
 * What was read before, and with it the same again: files that are the same
 * aren't parsed, and where some services of a file have changed only those
 * are.  What comes out is what spec_parse() gives.  Only what gave a spec is
 * kept.
 */
struct spec_cache;
struct spec_cache *spec_cache_new(void);
void spec_cache_free(struct spec_cache *c); /* NULL is fine */
/* Bytes that had to be parsed for the last spec_parse_again(). */
size_t spec_cache_parsed(const struct spec_cache *c);
/* The last one found a file to be the beginning of what it had been. */
bool spec_cache_shorter(const struct spec_cache *c);
/*
 * A text that looks cut off, when held against what was kept of its file, is
 * refused, whatever it says: one that had a last line "..." and has it no
 * more, and the beginning of the old one up to the middle of a line.
 */
struct spec *spec_parse_again(struct spec_cache *c, const char *path,
			      const struct spec_text *texts, size_t count,
			      struct diag_list *diags);

/*
 * Read PATH (a file, or a folder's *.yaml at its top level in name order) and
 * spec_parse() it.  A missing or unreadable file is a diag, not an errno.
 * ret_sha256 (may be NULL) gets the content hash even when parsing fails; ""
 * when the files can't be read.  cache: may be NULL.
 */
struct spec *spec_read(const char *path, struct spec_cache *cache,
		       struct diag_list *diags, char ret_sha256[65]);
/*
 * The same, but for bytes whose content hash is `known` (NULL: none is), which
 * aren't parsed: NULL without a diag.
 */
struct spec *spec_read_other(const char *path, const char *known,
			     struct spec_cache *cache, struct diag_list *diags,
			     char ret_sha256[65]);

/* Canonical form, with defaults filled in; parses back to the same spec. */
void spec_print(const struct spec *s, struct buf *out);

/*
 * What is neither wrong nor doubtful but good to know, a line each with its
 * place: services that track every flow, and why.
 */
void spec_notes(const struct spec *s, struct buf *out);

#endif
