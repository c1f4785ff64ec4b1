/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which commit a file is at.  Read from .git, no program is run. */
#ifndef GIT_H
#define GIT_H

#include <stdbool.h>

struct git_state {
	char revision[41]; /* "": not in a work tree, or nothing committed */
	bool dirty; /* the file isn't what the index says it is */
};

bool git_knows(const char *path); /* is it in a work tree? */
/* In a work tree; takes milliseconds, or seconds in a large one. */
void git_describe(const char *path, struct git_state *ret);

#endif
