/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is said to a user about something the user wrote. */
#ifndef BASE_DIAG_H
#define BASE_DIAG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Where in the files something stands.  line and column start at 1; 0: none. */
struct source {
	const char *file; /* owned by whoever owns the thing described */
	int line;
	int column;
};

enum severity {
	SEVERITY_ERROR,
	SEVERITY_WARNING, /* said, but changes nothing */
};

struct diag {
	enum severity severity;
	char *file; /* NULL: about no file */
	int line;
	int column;
	char *message; /* one sentence: what is wrong */
	char *hint; /* what to do, or NULL */
};

struct diag_list {
	struct diag *items;
	size_t count;
	size_t errors; /* how many of them are SEVERITY_ERROR */
};

void diag_list_release(struct diag_list *l);
/* All of `from` to the end of `to`; leaves from empty. */
void diag_list_move(struct diag_list *to, struct diag_list *from);

/* src may be NULL, hint may be NULL; both and the message are copied. */
void diag_add(struct diag_list *l, enum severity severity,
	      const struct source *src, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* "file:line:column: error: message" and, below it, "    hint: ...". */
void diag_print(const struct diag *d, struct buf *out);
void diag_list_print(const struct diag_list *l, struct buf *out);

#endif
