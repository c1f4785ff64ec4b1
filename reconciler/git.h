/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which commit a file is at.  Read from .git, no program is run. */
#ifndef GIT_H
#define GIT_H

#include <stdbool.h>

struct git_state {
	char revision[41]; /* "": not in a work tree, or nothing committed */
	bool dirty; /* the file isn't what the index says it is */
};

/* Costs milliseconds inside a work tree: never on the way to the kernel. */
void git_describe(const char *path, struct git_state *ret);

#endif
