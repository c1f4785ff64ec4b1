/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>

#include "git.h"
#include "pipeline.h"

void record_revision(struct reconciler *r, const char *result)
{
	struct store_revision rev = { .time_ms = clock_wall_ms(),
				      .path = r->opt->file,
				      .sha256 = r->file_sha256,
				      .result = result };

	if (r->store)
		r->last_revision = store_add_revision(r->store, &rev);
}

struct git_job {
	struct reconciler *r;
	char *path;
	int64_t revision;
	struct git_state state;
	struct git_job *next, **link;
};

static void free_git_job(struct git_job *j)
{
	*j->link = j->next;
	if (j->next)
		j->next->link = j->link;
	free(j->path);
	free(j);
}

static void ask_git(void *arg)
{
	struct git_job *j = arg;

	git_describe(j->path, &j->state);
}

static void git_answered(void *arg)
{
	struct git_job *j = arg;
	const struct git_state *g = &j->state;

	if (j->r->store && (g->revision[0] || g->dirty))
		store_set_revision_git(j->r->store, j->revision,
				       g->revision[0] ? g->revision : NULL,
				       g->dirty);
	free_git_job(j);
}

/* A large work tree takes its time, which the loop hasn't. */
void record_commit(struct reconciler *r)
{
	struct git_job *j;

	if (!r->store || r->last_revision <= 0 || !git_knows(r->opt->file))
		return;
	if (!r->git)
		r->git = worker_new(r->loop, "xlb-git");
	j = mem_alloc(sizeof(*j));
	j->r = r;
	j->path = mem_dup(r->opt->file);
	j->revision = r->last_revision;
	j->link = &r->git_jobs;
	j->next = r->git_jobs;
	if (j->next)
		j->next->link = &j->next;
	r->git_jobs = j;
	worker_submit(r->git, ask_git, git_answered, j);
}

/* What is still unanswered is recorded, too: `run --once` is short. */
void close_git(struct reconciler *r)
{
	worker_free(r->git);
	for (struct git_job *j = r->git_jobs, *next; j; j = next) {
		next = j->next;
		ask_git(j);
		git_answered(j);
	}
}
