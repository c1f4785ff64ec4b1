/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The declarative half of the parser: one table a kind of mapping says which
 * keys there are, how each is read, into which field, and within which range.
 * Unknown, duplicate, missing, empty and not-yet-supported keys are handled
 * once, in read_mapping().
 */
#ifndef DESIRED_KEYS_H
#define DESIRED_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desired/node.h"

#define NS_MS 1000000ULL
#define NS_SECOND 1000000000ULL
#define NS_MINUTE (60 * NS_SECOND)
#define NS_HOUR (60 * NS_MINUTE)
#define NS_DAY (24 * NS_HOUR)

/* Blocks that may stand in one of a folder's files only; hypervisors in all. */
enum block { BLOCK_NODE, BLOCK_SAFETY, BLOCK_HISTORY, BLOCK_HYPERVISORS };
#define BLOCK_COUNT 4

/* What is known while a file is being read, or files are merged. */
struct reader {
	struct arena *arena; /* the spec's */
	struct spec *spec;
	struct diag_list *diags;
	const char *dir; /* where relative paths start */
	struct source blocks[BLOCK_COUNT]; /* where they stand */
	struct pool_ref *refs; /* names to resolve when all files are read */
	size_t ref_count;
	bool has_services; /* some file has the key */
};

/* What a pool names; line 0 in hypervisor_src: it names none. */
struct pool_ref {
	size_t service; /* index while services are in the files' order */
	const char *template;
	struct source template_src;
	const char *hypervisor;
	struct source hypervisor_src;
};

struct key;
typedef void (*key_fn)(struct reader *r, const struct key *k,
		       const struct node *v, void *field);

/* A word that a key accepts.  value CHOICE_LATER: known, not supported yet. */
struct choice {
	const char *name;
	int value;
};
#define CHOICE_LATER (-1)

/*
 * What a single value looks like, for schemas/services.schema.json.  Those of
 * the readers below are known; a reader that is a key's own needs it said, or
 * has only `choices` or `inner`.
 */
enum key_form {
	FORM_OF_READER,
	FORM_TEXT,
	FORM_NAME,
	FORM_SERVICE_NAME,
	FORM_BOOL,
	FORM_DURATION,
	FORM_SIZE,
	FORM_COUNT,
	FORM_PERCENT,
	FORM_LEVEL, /* of a metric: a percentage, or a number with k M G */
	FORM_PORT,
	FORM_ADDRESS,
	FORM_PREFIX,
	FORM_RANGE, /* of addresses */
	FORM_MAC,
	FORM_URL_PATH,
	FORM_NO_BLANKS,
	FORM_VERSION,
	FORM_VERIFY, /* a boolean or a path */
	FORM_EXPECT, /* a status code, or a text */
};

struct key_table;

/*
 * A value is of its form, or one of `choices`, or a mapping of `inner`; with
 * `list` set, a list of such.
 */
struct key {
	const char *name;
	key_fn read; /* NULL: not supported yet */
	size_t offset; /* of the field in the mapping's struct */
	bool required;
	uint64_t min, max; /* durations ns, sizes bytes, texts: max length */
	const struct choice *choices; /* ends with a NULL name */
	const struct key_table *inner;
	const char *hint; /* with read NULL: what to do instead */
	enum key_form form;
	bool list;
	unsigned int least, most; /* members of the list; 0: any number */
	const char *help; /* one line, for editors */
	const char *fallback; /* what holds without it, as it is written */
};

/* KEY("port", read_port, offsetof(...), .required = true), in a table. */
#define KEY(name_, read_, ...)                                          \
	{                                                               \
		.name = (name_), .read = (read_), .offset = __VA_ARGS__ \
	}
#define KEY_LATER(name_, hint_)                  \
	{                                        \
		.name = (name_), .hint = (hint_) \
	}

struct key_table {
	const char *what; /* "a service" */
	const struct key *keys;
	size_t count;
	/* JSON schema of what keys say about each other, or NULL. */
	const char *rules;
};
#define KEY_TABLE(variable, words, keys_)                            \
	static const struct key_table variable = { (words), (keys_), \
						   ARRAY_SIZE(keys_), NULL }
/* The same with rules, and for use by other files. */
#define KEY_TABLE_RULES(variable, words, keys_, rules_)               \
	static const struct key_table variable = { (words), (keys_),  \
						   ARRAY_SIZE(keys_), \
						   (rules_) }
#define KEY_TABLE_SHARED(variable, words, keys_)              \
	const struct key_table variable = { (words), (keys_), \
					    ARRAY_SIZE(keys_), NULL }

/* The table's key of that name, or NULL. */
const struct key *table_key(const struct key_table *t, const char *name);

/* Reads n, which should be a mapping, into target.  False: it is none. */
bool read_mapping(struct reader *r, const struct key_table *t,
		  const struct node *n, void *target);

/* True for a list; else complains (NODE_BAD: silently). */
bool expect_list(struct reader *r, const char *name, const struct node *v);
/* True for a list with at least one member. */
bool expect_members(struct reader *r, const char *name, const struct node *v);
/* The text of a scalar that every reader takes for one; NULL: complained. */
const char *expect_text(struct reader *r, const char *name,
			const struct node *v);

/* Readers of one field; the comment says its type. */
/* const char *; k->max: longest, 0: 255 */
void read_text(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* const char *; charset of template, hypervisor names */
void read_name(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* const char *, made absolute */
void read_path(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* bool */
void read_bool(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* uint64_t ns */
void read_duration(struct reader *r, const struct key *k, const struct node *v,
		   void *field);
/* uint64_t bytes */
void read_size(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* uint32_t */
void read_count(struct reader *r, const struct key *k, const struct node *v,
		void *field);
/* double */
void read_percent(struct reader *r, const struct key *k, const struct node *v,
		  void *field);
/* uint16_t */
void read_port(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* int-sized enum */
void read_choice(struct reader *r, const struct key *k, const struct node *v,
		 void *field);
/* nothing: one of the choices, which changes nothing */
void read_word(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* const struct node *: what it means is known later */
void read_keep(struct reader *r, const struct key *k, const struct node *v,
	       void *field);
/* the struct of k->inner */
void read_table(struct reader *r, const struct key *k, const struct node *v,
		void *field);

/* read_count() without a field: a whole number within min..max. */
bool read_whole(struct reader *r, const struct key *k, const struct node *v,
		uint64_t *ret);

#endif
