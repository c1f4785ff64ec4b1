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

/* The file's own status, or, for a folder, that of anything in it. */
static void read_dirty(git_repository *repo, const char *path,
		       struct git_state *ret)
{
	const char *top = git_repository_workdir(repo);
	char *real = realpath(path, NULL);
	size_t len = top ? strlen(top) : 0;
	unsigned int flags = 0;

	if (real && top && !strncmp(real, top, len) &&
	    !git_status_file(&flags, repo, real + len))
		ret->dirty = flags != GIT_STATUS_CURRENT;
	free(real);
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
