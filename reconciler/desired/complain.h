/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors about a file: bounded in number, with the nearest valid word. */
#ifndef DESIRED_COMPLAIN_H
#define DESIRED_COMPLAIN_H

#include <stddef.h>

#include "base/diag.h"

/* One mistake can have hundreds of consequences; nobody reads those. */
#define COMPLAIN_MAX 50

/* diag_add() of an error; after COMPLAIN_MAX errors it says so and is mute. */
void complain(struct diag_list *l, const struct source *src, const char *hint,
	      const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Enough has been said: stop looking for more. */
bool complain_full(const struct diag_list *l);

/* "file:line:column", for messages that cite a second place. */
#define PLACE_FMT "%s:%d:%d"
#define PLACE_ARG(src) (src)->file, (src)->line, (src)->column

/* Number of edits (insert, delete, replace, swap) from a to b, at most 9. */
int edit_distance(const char *a, const char *b);

/* Remembers the candidate that is nearest to a word, if any is near. */
struct nearest {
	const char *word;
	const char *best; /* NULL: none is near enough to be meant */
	int distance;
};
void nearest_offer(struct nearest *n, const char *candidate);

/* Puts the diags from `first` on in the order of the files' lines. */
void complain_sort(struct diag_list *l, size_t first);

#endif
