/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tables/members.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLOTS_PER_BACKEND 400 /* below that, changes move too many slots */
#define LOG2_MIN 8
#define LOG2_MAX 16

uint8_t table_log2_for(size_t max_backends)
{
	uint8_t log2 = LOG2_MIN;

	while (log2 < LOG2_MAX &&
	       ((size_t)1 << log2) / SLOTS_PER_BACKEND < max_backends)
		log2++;
	return log2;
}

static int member_compare(const void *a, const void *b)
{
	const struct table_member *x = *(const struct table_member *const *)a;
	const struct table_member *y = *(const struct table_member *const *)b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->id > y->id) - (x->id < y->id);
}

const struct table_member **members_sorted(const struct table_member *members,
					   size_t count, size_t *ret_count)
{
	const struct table_member **sorted =
		mem_array(count, sizeof(const struct table_member *));
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (members[i].weight)
			sorted[n++] = &members[i];
	qsort(sorted, n, sizeof(const struct table_member *), member_compare);
	*ret_count = n;
	return sorted;
}
