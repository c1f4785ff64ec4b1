/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "git.h"

#include <git2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static void read_head(git_repository *repo, struct git_state *ret)
{
	git_reference *head = NULL;

	if (!git_repository_head(&head, repo) && git_reference_target(head))
		git_oid_tostr(ret->revision, sizeof(ret->revision),
			      git_reference_target(head));
	git_reference_free(head);
}

/* Is it the file, or one of those that are read of the folder? */
static bool is_ours(const char *changed, const char *path, bool folder)
{
	size_t len = strlen(path), all = strlen(changed);

	if (!folder)
		return !strcmp(changed, path);
	if (len && (strncmp(changed, path, len) != 0 || changed[len] != '/'))
		return false;
	changed += len ? len + 1 : 0;
	return !strchr(changed, '/') && all > 5 &&
	       !strcmp(changed + strlen(changed) - 5, ".yaml");
}

static bool any_changed(git_status_list *list, const char *path, bool folder)
{
	for (size_t i = 0; i < git_status_list_entrycount(list); i++) {
		const git_status_entry *e = git_status_byindex(list, i);
		const git_diff_delta *d = e->index_to_workdir
						  ? e->index_to_workdir
						  : e->head_to_index;

		if (d && (is_ours(d->old_file.path, path, folder) ||
			  is_ours(d->new_file.path, path, folder)))
			return true;
	}
	return false;
}

/* path: below the work tree's top, "" for that. */
static bool is_dirty(git_repository *repo, char *path, bool folder)
{
	git_status_options options;
	git_status_list *list = NULL;
	bool dirty = false;

	git_status_options_init(&options, GIT_STATUS_OPTIONS_VERSION);
	options.flags = GIT_STATUS_OPT_INCLUDE_UNTRACKED |
			GIT_STATUS_OPT_RECURSE_UNTRACKED_DIRS |
			GIT_STATUS_OPT_INCLUDE_IGNORED |
			GIT_STATUS_OPT_DISABLE_PATHSPEC_MATCH;
	options.pathspec = (git_strarray){ &path, *path != '\0' };
	if (!git_status_list_new(&list, repo, &options))
		dirty = any_changed(list, path, folder);
	git_status_list_free(list);
	return dirty;
}

/* Of the file, or of the folder's files: not what is committed, or not yet. */
static void read_dirty(git_repository *repo, const char *path,
		       struct git_state *ret)
{
	AUTO_FREE char *top = NULL;
	AUTO_FREE char *real = realpath(path, NULL);
	struct stat st;
	size_t len;

	if (git_repository_workdir(repo))
		top = realpath(git_repository_workdir(repo), NULL);
	if (!real || !top || stat(real, &st))
		return;
	len = strlen(top);
	if (strncmp(real, top, len) != 0 || (real[len] && real[len] != '/'))
		return;
	ret->dirty = is_dirty(repo, real + len + (real[len] == '/'),
			      S_ISDIR(st.st_mode));
}

/* The library reads all the certificates of the system to begin with. */
bool git_knows(const char *path)
{
	AUTO_FREE char *at = realpath(path, NULL);
	char *slash = at;
	bool found = false;

	while (slash && !found) {
		AUTO_FREE char *git = mem_printf("%s/.git", at);

		found = access(git, F_OK) == 0;
		slash = strrchr(at, '/');
		if (slash)
			*slash = '\0';
	}
	return found;
}

void git_describe(const char *path, struct git_state *ret)
{
	git_repository *repo = NULL;

	*ret = (struct git_state){ 0 };
	git_libgit2_init();
	if (!git_repository_open_ext(&repo, path, 0, NULL)) {
		read_head(repo, ret);
		read_dirty(repo, path, ret);
	}
	git_repository_free(repo);
	git_libgit2_shutdown();
}
