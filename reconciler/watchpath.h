/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which names in which folders decide what a path reads as: the file itself,
 * and every symbolic link on the way to it.
 */
#ifndef WATCHPATH_H
#define WATCHPATH_H

#include <stdbool.h>
#include <stddef.h>

struct watch_name {
	char *folder; /* absolute, free of links */
	char *name; /* NULL: any *.yaml */
	/* What the path names in the end: saved when this is written. */
	bool last;
};

struct watch_names {
	struct watch_name *items;
	size_t count;
	bool is_folder; /* the path names one: `last` entries are its files */
};

/*
 * Everything of `path`, an absolute one.  What doesn't exist ends the walk;
 * its name is among the results, in the deepest folder that does.
 */
void watch_names_of(const char *path, struct watch_names *ret);
void watch_names_release(struct watch_names *n);

/* index.lock exists in the git work tree that `folder` is in, if any. */
bool git_locked(const char *folder);

#endif
