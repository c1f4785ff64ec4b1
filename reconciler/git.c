/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "git.h"

#include <git2.h>
#include <stdlib.h>
#include <string.h>
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

/* Is anything at or below it not as committed?  Paths from the top. */
static bool differs(git_repository *repo, char *path)
{
	git_status_options opt;
	git_status_list *list = NULL;
	bool found = false;

	git_status_options_init(&opt, GIT_STATUS_OPTIONS_VERSION);
	opt.flags = GIT_STATUS_OPT_INCLUDE_UNTRACKED |
		    GIT_STATUS_OPT_DISABLE_PATHSPEC_MATCH;
	opt.pathspec.strings = &path;
	opt.pathspec.count = *path ? 1 : 0; /* the whole work tree */
	if (!git_status_list_new(&list, repo, &opt))
		found = git_status_list_entrycount(list) > 0;
	git_status_list_free(list);
	return found;
}

static void read_dirty(git_repository *repo, const char *path,
		       struct git_state *ret)
{
	const char *top = git_repository_workdir(repo);
	AUTO_FREE char *real = realpath(path, NULL);
	size_t len = top ? strlen(top) : 0;

	/* The top comes with a slash at its end. */
	if (real && len && !strncmp(real, top, len))
		ret->dirty = differs(repo, real + len);
	else if (real && len && !strncmp(real, top, len - 1) && !real[len - 1])
		ret->dirty = differs(repo, real + len - 1);
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
