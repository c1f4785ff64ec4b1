/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/complain.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define WORD_MAX 40 /* longer words are nobody's typing mistake */
#define DISTANCE_MAX 9

bool complain_full(const struct diag_list *l)
{
	return l->errors > COMPLAIN_MAX;
}

void complain(struct diag_list *l, const struct source *src, const char *hint,
	      const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	if (complain_full(l))
		return;
	if (l->errors == COMPLAIN_MAX) {
		diag_add(l, SEVERITY_ERROR, NULL,
			 "correct these first, then check again",
			 "more than %d errors; the rest is not listed",
			 COMPLAIN_MAX);
		return;
	}
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	diag_add(l, SEVERITY_ERROR, src, hint, "%s", text);
	free(text);
}

static int min3(int a, int b, int c)
{
	int m = a < b ? a : b;

	return m < c ? m : c;
}

/*
 * Optimal string alignment distance, row by row: two[], one[] and now[] are
 * the rows of the prefixes of `a` that end at i - 2, i - 1 and i.
 */
int edit_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	int two[WORD_MAX + 1] = { 0 }, one[WORD_MAX + 1], now[WORD_MAX + 1];

	if (la > WORD_MAX || lb > WORD_MAX)
		return DISTANCE_MAX;
	for (size_t j = 0; j <= lb; j++)
		one[j] = (int)j;
	for (size_t i = 1; i <= la; i++) {
		now[0] = (int)i;
		for (size_t j = 1; j <= lb; j++) {
			int replace = one[j - 1] + (a[i - 1] != b[j - 1]);

			now[j] = min3(one[j] + 1, now[j - 1] + 1, replace);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && two[j - 2] + 1 < now[j])
				now[j] = two[j - 2] + 1;
		}
		memcpy(two, one, sizeof(two));
		memcpy(one, now, sizeof(one));
	}
	return one[lb] < DISTANCE_MAX ? one[lb] : DISTANCE_MAX;
}

void nearest_offer(struct nearest *n, const char *candidate)
{
	int len = (int)strlen(n->word);
	int limit = len <= 3 ? 1 : len <= 6 ? 2 : 3;
	int d = edit_distance(n->word, candidate);

	if (d > limit || (n->best && d >= n->distance))
		return;
	n->best = candidate;
	n->distance = d;
}

struct placed {
	struct diag diag;
	size_t index; /* keeps the sort stable */
};

static int compare_placed(const void *pa, const void *pb)
{
	const struct placed *a = pa, *b = pb;
	int order;

	if (!a->diag.file != !b->diag.file)
		return a->diag.file ? -1 : 1;
	order = a->diag.file ? strcmp(a->diag.file, b->diag.file) : 0;
	if (!order)
		order = a->diag.line - b->diag.line;
	if (!order)
		order = a->diag.column - b->diag.column;
	if (!order)
		order = a->index < b->index ? -1 : 1;
	return order;
}

void complain_sort(struct diag_list *l, size_t first)
{
	size_t n = l->count - first;
	struct placed *p;

	if (n < 2)
		return;
	p = mem_array(n, sizeof(*p));
	for (size_t i = 0; i < n; i++)
		p[i] = (struct placed){ l->items[first + i], i };
	qsort(p, n, sizeof(*p), compare_placed);
	for (size_t i = 0; i < n; i++)
		l->items[first + i] = p[i].diag;
	free(p);
}
