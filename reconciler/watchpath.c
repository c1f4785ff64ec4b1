/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watchpath.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define LINKS_MAX 40 /* what the kernel follows before ELOOP */
#define GIT_FILE_MAX 8192

static void add(struct watch_names *n, const char *folder, const char *name,
		bool last)
{
	struct watch_name *w;

	for (size_t i = 0; i < n->count; i++) {
		w = &n->items[i];
		if (strcmp(w->folder, folder) == 0 && w->name && name &&
		    strcmp(w->name, name) == 0) {
			w->last |= last;
			return;
		}
	}
	w = MEM_PUSH(n->items, n->count);
	w->folder = mem_dup(folder);
	w->name = mem_dup(name);
	w->last = last;
}

void watch_names_release(struct watch_names *n)
{
	for (size_t i = 0; i < n->count; i++) {
		free(n->items[i].folder);
		free(n->items[i].name);
	}
	free(n->items);
	*n = (struct watch_names){ 0 };
}

/* A walk: `at` is where it stands, free of links; `rest` is still to go. */
struct walk {
	char at[PATH_MAX];
	char rest[PATH_MAX];
	int links;
};

/* false: nothing to go, or too long. */
static bool take_component(struct walk *w, char name[NAME_MAX + 1])
{
	size_t skip = strspn(w->rest, "/");
	size_t len = strcspn(w->rest + skip, "/");

	if (!len || len > NAME_MAX)
		return false;
	memcpy(name, w->rest + skip, len);
	name[len] = '\0';
	memmove(w->rest, w->rest + skip + len,
		strlen(w->rest + skip + len) + 1);
	return true;
}

static void go_up(struct walk *w)
{
	char *slash = strrchr(w->at, '/');

	if (slash)
		*slash = '\0';
}

static bool follow(struct walk *w, const char *link)
{
	char target[PATH_MAX], rest[PATH_MAX];
	ssize_t len = readlink(link, target, sizeof(target) - 1);
	int n;

	if (len <= 0 || ++w->links > LINKS_MAX)
		return false;
	target[len] = '\0';
	memcpy(rest, w->rest, sizeof(rest));
	n = snprintf(w->rest, sizeof(w->rest), "%s/%s", target, rest);
	if (n >= (int)sizeof(w->rest))
		return false;
	if (target[0] == '/')
		w->at[0] = '\0';
	return true;
}

static bool nothing_left(const struct walk *w)
{
	return !w->rest[strspn(w->rest, "/")];
}

/* One component further; false: that was the last. */
static bool step(struct walk *w, const char *name, struct watch_names *ret)
{
	const char *folder = w->at[0] ? w->at : "/";
	char full[PATH_MAX];
	struct stat st;

	if (strcmp(name, ".") == 0)
		return true;
	if (strcmp(name, "..") == 0) {
		go_up(w);
		return true;
	}
	if (snprintf(full, sizeof(full), "%s/%s", w->at, name) >=
	    (int)sizeof(full))
		return false;
	if (lstat(full, &st)) {
		add(ret, folder, name, nothing_left(w));
		return false;
	}
	if (S_ISLNK(st.st_mode)) {
		add(ret, folder, name, nothing_left(w));
		return follow(w, full);
	}
	if (!S_ISDIR(st.st_mode)) {
		add(ret, folder, name, true);
		return false;
	}
	memcpy(w->at, full, sizeof(full));
	return true;
}

/* true: the walk ended in a folder, which is w->at. */
static bool walk_path(struct walk *w, const char *path, struct watch_names *ret)
{
	char name[NAME_MAX + 1];

	w->at[0] = '\0';
	w->links = 0;
	if (snprintf(w->rest, sizeof(w->rest), "%s", path) >=
	    (int)sizeof(w->rest))
		return false;
	while (take_component(w, name)) {
		if (!step(w, name, ret))
			return false;
	}
	return true;
}

/* Files of a folder may be links themselves. */
static void walk_files(const char *folder, struct watch_names *ret)
{
	struct walk w;
	struct dirent *e;
	DIR *d = opendir(folder);

	while (d && (e = readdir(d))) {
		if (fnmatch("*.yaml", e->d_name, 0) == 0 &&
		    (e->d_type == DT_LNK || e->d_type == DT_UNKNOWN)) {
			char *path = mem_printf("%s/%s", folder, e->d_name);

			walk_path(&w, path, ret);
			free(path);
		}
	}
	if (d)
		closedir(d);
}

void watch_names_of(const char *path, struct watch_names *ret)
{
	struct walk w;

	*ret = (struct watch_names){ 0 };
	ret->is_folder = walk_path(&w, path, ret);
	if (ret->is_folder) {
		const char *folder = w.at[0] ? w.at : "/";

		add(ret, folder, NULL, true);
		walk_files(folder, ret);
	}
}

/* ".git" is a folder, or, in linked work trees, a file "gitdir: PATH". */
static bool lock_in(const char *git, const char *parent)
{
	AUTO_BUF struct buf text = BUF_INIT;
	AUTO_FREE char *lock = NULL;
	char *target;
	struct stat st;

	if (stat(git, &st) == 0 && S_ISDIR(st.st_mode)) {
		lock = mem_printf("%s/index.lock", git);
		return access(lock, F_OK) == 0;
	}
	if (buf_read_file(&text, git, GIT_FILE_MAX) ||
	    strncmp(buf_str(&text), "gitdir: ", 8) != 0)
		return false;
	target = text.data + 8;
	target[strcspn(target, "\n")] = '\0';
	if (target[0] == '/')
		lock = mem_printf("%s/index.lock", target);
	else
		lock = mem_printf("%s/%s/index.lock", parent, target);
	return access(lock, F_OK) == 0;
}

bool git_locked(const char *folder)
{
	AUTO_FREE char *at = mem_dup(folder);
	bool locked = false, found = false;

	while (!found) {
		char *git = mem_printf("%s/.git", at);
		char *slash = strrchr(at, '/');

		found = access(git, F_OK) == 0;
		if (found)
			locked = lock_in(git, at);
		free(git);
		if (!slash)
			break;
		*slash = '\0';
	}
	return locked;
}
