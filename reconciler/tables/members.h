/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the table builders share: members in an order that is their own. */
#ifndef TABLES_MEMBERS_H
#define TABLES_MEMBERS_H

#include <stddef.h>

#include "tables/tables.h"

/*
 * The members that have weight, sorted by name (then id), so that a table
 * depends on the set and not on the order of a file.  The array is the
 * caller's to free; *ret_count may be 0.
 */
const struct table_member **members_sorted(const struct table_member *members,
					   size_t count, size_t *ret_count);

#endif
