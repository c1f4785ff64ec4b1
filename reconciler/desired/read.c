/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The impure end of this folder: files to bytes, and do templates' files exist. */
#include "desired/desired.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "desired/parse.h"

struct files {
	struct spec_text *texts;
	struct buf *bytes; /* what texts point into */
	size_t count;
};

static void release_files(struct files *f)
{
	for (size_t i = 0; i < f->count; i++) {
		buf_release(&f->bytes[i]);
		free((char *)f->texts[i].path);
	}
	free(f->bytes);
	free(f->texts);
}

static void complain_read(const char *path, int err, struct diag_list *diags)
{
	struct source src = { path, 0, 0 };

	if (err == -EFBIG)
		diag_add(diags, SEVERITY_ERROR, &src,
			 "split it into a folder of files",
			 "larger than %u MiB", SPEC_MAX_BYTES >> 20);
	else
		diag_add(diags, SEVERITY_ERROR, &src,
			 err == -ENOENT ? "name the file with -f" : NULL,
			 "cannot be read: %s", strerror(-err));
}

/* Takes path. */
static void add_file(struct files *f, char *path, const char *dir,
		     struct diag_list *diags)
{
	size_t n = f->count;
	struct spec_text *t = MEM_PUSH(f->texts, n);
	struct buf *b;
	int err;

	n = f->count;
	b = MEM_PUSH(f->bytes, n);
	f->count = n;
	t->path = path;
	t->dir = dir;
	err = buf_read_file(b, path, SPEC_MAX_BYTES);
	if (err)
		complain_read(path, err, diags);
	t->data = buf_str(b);
	t->len = b->len;
}

/* Links to files count, subfolders and hidden files don't. */
static bool is_wanted(const char *path, const char *name)
{
	size_t len = strlen(name);
	struct stat st;

	return name[0] != '.' && len > 5 && !strcmp(name + len - 5, ".yaml") &&
	       (stat(path, &st) || !S_ISDIR(st.st_mode));
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Paths of the folder's files in name order, or -errno. */
static int list_folder(const char *path, char ***ret, size_t *ret_count)
{
	const char *slash = path[strlen(path) - 1] == '/' ? "" : "/";
	DIR *d = opendir(path);
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		char *file = mem_printf("%s%s%s", path, slash, e->d_name);

		if (is_wanted(file, e->d_name))
			*MEM_PUSH(*ret, *ret_count) = file;
		else
			free(file);
	}
	closedir(d);
	if (*ret_count)
		qsort(*ret, *ret_count, sizeof(**ret), compare_strings);
	return 0;
}

static void add_folder(struct files *f, const char *path, const char *dir,
		       struct diag_list *diags)
{
	struct source src = { path, 0, 0 };
	char **names = NULL;
	size_t count = 0;
	int err = list_folder(path, &names, &count);

	if (err)
		complain_read(path, err, diags);
	else if (!count)
		diag_add(
			diags, SEVERITY_ERROR, &src,
			"to remove all services on purpose, keep a file with \"services: []\"",
			"no *.yaml file in the folder");
	for (size_t i = 0; i < count; i++)
		add_file(f, names[i], dir, diags);
	free(names);
}

/*
 * The absolute folder of a path, without following links, so that a link that
 * is switched to another revision doesn't change every path in the file.
 */
static char *absolute_folder(const char *path, bool is_folder)
{
	size_t len = strlen(path);
	const char *slash;
	char *cwd, *out;

	if (!is_folder) {
		slash = strrchr(path, '/');
		len = slash ? (size_t)(slash - path) : 0;
	}
	while (len > 1 && path[len - 1] == '/')
		len--;
	if (path[0] == '/')
		return mem_printf("%.*s", len ? (int)len : 1, path);
	while (len >= 2 && path[0] == '.' && path[1] == '/') {
		path += 2;
		len -= 2;
	}
	if (len == 1 && path[0] == '.')
		len = 0;
	cwd = getcwd(NULL, 0);
	out = mem_printf("%s%s%.*s", cwd ? cwd : "", len ? "/" : "", (int)len,
			 path);
	free(cwd);
	return out;
}

static void warn_missing(const struct template_spec *t, const char *what,
			 const char *path, struct diag_list *diags)
{
	if (path && access(path, R_OK) < 0)
		diag_add(diags, SEVERITY_WARNING, &t->src, NULL,
			 "the %s %s of template \"%s\" can't be read here: %s",
			 what, path, t->name, strerror(errno));
}

/* Every probe would end in local_error, which nobody may look for. */
static void warn_unusable(const struct service_spec *s, const char *what,
			  const char *path, int how, struct diag_list *diags)
{
	if (path && access(path, how) < 0)
		diag_add(diags, SEVERITY_WARNING, &s->health.src, NULL,
			 "the %s %s of service \"%s\" can't be %s here: %s",
			 what, path, s->name, how == X_OK ? "run" : "read",
			 strerror(errno));
}

static void check_files(const struct spec *s, struct diag_list *diags)
{
	for (size_t i = 0; i < s->template_count; i++) {
		const struct template_spec *t = &s->templates[i];

		warn_missing(t, "image", t->image, diags);
		warn_missing(t, "kernel", t->kernel, diags);
		warn_missing(t, "initrd", t->initrd, diags);
		warn_missing(t, "cloud_init", t->cloud_init, diags);
	}
	for (size_t i = 0; i < s->service_count; i++) {
		const struct health_spec *h = &s->services[i].health;

		warn_unusable(&s->services[i], "verify", h->ca_file, R_OK,
			      diags);
		if (h->command_count)
			warn_unusable(&s->services[i], "command", h->command[0],
				      X_OK, diags);
	}
}

struct spec *spec_read(const char *path, struct spec_cache *cache,
		       struct diag_list *diags, char ret_sha256[65])
{
	char sha256[65];

	return spec_read_other(path, NULL, cache, diags,
			       ret_sha256 ? ret_sha256 : sha256);
}

struct spec *spec_read_other(const char *path, const char *known,
			     struct spec_cache *cache, struct diag_list *diags,
			     char ret_sha256[65])
{
	struct files f = { 0 };
	size_t before = diags->errors;
	struct spec *s = NULL;
	struct stat st;
	bool is_folder = !stat(path, &st) && S_ISDIR(st.st_mode);
	char *dir = absolute_folder(path, is_folder);

	if (is_folder)
		add_folder(&f, path, dir, diags);
	else
		add_file(&f, mem_dup(path), dir, diags);
	ret_sha256[0] = '\0';
	if (diags->errors == before)
		texts_sha256(f.texts, f.count, ret_sha256);
	if (diags->errors == before && !(known && !strcmp(known, ret_sha256)))
		s = spec_parse_hashed(cache, path, f.texts, f.count, ret_sha256,
				      diags);
	if (s)
		check_files(s, diags);
	release_files(&f);
	free(dir);
	return s;
}
