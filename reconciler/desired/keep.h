/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Services whose declaration isn't the file's: they stay as they were declared
 * before.  What they were is kept as a text of its own, a file with that one
 * service and what it names; here it comes into a spec and leaves it.  Pure.
 */
#ifndef DESIRED_KEEP_H
#define DESIRED_KEEP_H

#include "desired/desired.h"

/*
 * The service as a file of its own, in canonical form.  `protect` and `paused`
 * are left out: they say nothing about what it is.
 */
void keep_print(const struct service_spec *service, struct buf *out);

/*
 * Put the service of such a text in the place of the file's, or beside those of
 * the file.  Returns NULL, or why that can't be (in the spec's memory): the
 * spec is as before then.
 */
const char *keep_insert(struct spec *s, const char *name, const char *text,
			enum kept_why why);

/* Take a service out; memory stays, for those who still point to it. */
void keep_remove(struct spec *s, const char *name);

/* The service, to be changed; NULL: not there. */
struct service_spec *keep_find(struct spec *s, const char *name);

/* How many services the file itself declares. */
size_t keep_declared(const struct spec *s);

#endif
