/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DIR/applied.yaml: the file that was last applied, in canonical form, below a
 * line with its hash.  Without it, or with that of another file, an edit and
 * drift that were found together after a restart can't be told apart.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/seam.h"
#include "reconcile.h"

#define MARK "# applied: "

static char *path_of(const struct reconciler *r)
{
	return mem_printf("%s/applied.yaml", r->opt->state_dir);
}

static struct spec *parse(const char *path, const struct buf *b,
			  const char *sha256)
{
	struct spec_text text = { path, b->data, b->len, NULL };
	struct diag_list diags = { 0 };
	struct spec *spec = spec_parse(path, &text, 1, &diags);

	diag_list_release(&diags);
	if (spec)
		snprintf(spec->sha256, sizeof(spec->sha256), "%s", sha256);
	return spec;
}

struct spec *applied_read(const struct reconciler *r)
{
	AUTO_FREE char *path = path_of(r);
	struct buf b = BUF_INIT;
	struct spec *spec = NULL;
	char sha256[65] = "";
	int64_t last = 0;

	if (r->store)
		store_last_applied(r->store, &last, sha256);
	if (last && !buf_read_file(&b, path, SPEC_MAX_BYTES) &&
	    !strncmp(buf_str(&b), MARK, strlen(MARK)) &&
	    !strncmp(buf_str(&b) + strlen(MARK), sha256, strlen(sha256)))
		spec = parse(path, &b, sha256);
	buf_release(&b);
	return spec;
}

static int write_new(const char *path, const struct buf *text)
{
	AUTO_FREE char *fresh = mem_printf("%s.new", path);
	FILE *f = fopen(fresh, "we");
	int err = f ? 0 : -errno;

	if (f && fwrite(text->data, 1, text->len, f) != text->len)
		err = -EIO;
	if (f && fclose(f))
		err = -errno;
	if (!err && rename(fresh, path))
		err = -errno;
	if (err)
		unlink(fresh);
	return err;
}

void applied_keep(void *arg)
{
	struct reconciler *r = arg;
	AUTO_FREE char *path = NULL;
	struct buf text = BUF_INIT;
	int err;

	if (r->read_only || !r->settled || !r->spec ||
	    !strcmp(r->kept_sha256, r->spec->sha256))
		return;
	seam_change("applied_keep");
	path = path_of(r);
	buf_addf(&text, MARK "%s\n", r->spec->sha256);
	spec_print(r->spec, &text);
	err = write_new(path, &text);
	if (err)
		log_warn("applied", "path=%s result=\"not kept: %s\"", path,
			 strerror(-err));
	else
		memcpy(r->kept_sha256, r->spec->sha256, sizeof(r->kept_sha256));
	buf_release(&text);
}

void applied_forget(const struct reconciler *r)
{
	AUTO_FREE char *path = path_of(r);

	seam_change("applied_forget");
	unlink(path);
}
