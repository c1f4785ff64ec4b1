/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scalars of the file as values, and back.  All parsers take whole strings. */
#ifndef DESIRED_VALUE_H
#define DESIRED_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "desired/model.h"

/*
 * What some YAML reader would take the unquoted scalar for instead of a text
 * ("a number", "a boolean", "a time in base 60", ...), or NULL.
 */
const char *value_misread(const char *s);

/* Printable, and the same after being written and read as YAML. */
bool value_is_clean(const char *s);

/* "10s" to ns; ms s m h d, up to six decimals, whole nanoseconds. */
bool value_duration(const char *s, uint64_t *ret);
/* "512MiB" to bytes; KiB MiB GiB, whole KiB. */
bool value_size(const char *s, uint64_t *ret);
/* "50k" or "12": whole numbers, k M G in powers of ten. */
bool value_count(const char *s, uint64_t *ret);
/* As value_count(), with up to six decimals: "1.5k", "0.25". */
bool value_number(const char *s, double *ret);
/* "60%" to 60.0 */
bool value_percent(const char *s, double *ret);
/* "10.0.0.0/8"; a bare address is a prefix of its full length. */
bool value_prefix(const char *s, struct prefix *ret);
/* "10.0.0.1-10.0.0.9/24"; only the form is checked here. */
bool value_range(const char *s, struct address_range *ret);
bool value_mac(const char *s, uint8_t ret[6]); /* "52:54:00:00:00:05" */

void print_duration(struct buf *out, uint64_t ns);
void print_size(struct buf *out, uint64_t bytes);
void print_number(struct buf *out, double v);
/* A text, quoted when a reader could take it for something else. */
void print_text(struct buf *out, const char *s);

#endif
