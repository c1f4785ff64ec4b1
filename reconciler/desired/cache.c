/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading again what is mostly the same.  A file whose bytes are the same
 * isn't parsed; of one in which some services changed, only those are: the
 * parser's state at the first byte of "  - name: web" follows from the bytes
 * before it, which are the same, and what follows the changed members begins
 * where a member begins, so that they read alone as they read among the
 * others.  Whatever is not plainly so is read whole, and so is everything
 * about which there is something to say.
 */
#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/parse.h"
#include "desired/piece.h"

/* So many bytes can't hold more nodes than a file may have. */
#define PARTIAL_MAX NODE_MAX

/* Where a service begins: at the "-" of its line. */
struct mark {
	size_t offset; /* of its line's first byte */
	int line;
};

struct kept {
	char *path, *dir;
	char *data;
	size_t len;
	struct file_model model;
	/* One for each service and the end of the last one; NULL: can't be
	 * read in part. */
	struct mark *marks;
	int column;
	bool used; /* by the last spec */
};

struct spec_cache {
	struct kept *files;
	size_t count;
	size_t parsed; /* bytes, by the last reading */
	uint64_t clean; /* see check_addresses_again() */
	bool shorter; /* a file was the beginning of what it had been */
};

static void release_model(struct file_model *m)
{
	piece_free(m->top);
	for (size_t i = 0; i < m->count; i++)
		piece_free(m->items[i].piece);
	free(m->items);
	*m = (struct file_model){ 0 };
}

static void release_kept(struct kept *k)
{
	release_model(&k->model);
	free(k->marks);
	free(k->path);
	free(k->dir);
	free(k->data);
	*k = (struct kept){ 0 };
}

struct spec_cache *spec_cache_new(void)
{
	return mem_alloc(sizeof(struct spec_cache));
}

void spec_cache_free(struct spec_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		release_kept(&c->files[i]);
	free(c->files);
	free(c);
}

/* layout: where services stand in a text */

/* Breaks that YAML counts as lines, other than '\n'. */
static bool has_odd_breaks(const char *s, size_t len)
{
	return memchr(s, '\r', len) || memmem(s, len, "\xc2\x85", 2) ||
	       memmem(s, len, "\xe2\x80\xa8", 3) ||
	       memmem(s, len, "\xe2\x80\xa9", 3);
}

/* The first byte of the line that is `lines` further down. */
static size_t skip_lines(const char *s, size_t len, size_t at, int lines)
{
	while (lines-- > 0) {
		const char *end = memchr(s + at, '\n', len - at);

		if (!end)
			return len;
		at = (size_t)(end - s) + 1;
	}
	return at;
}

/* Nothing but blanks, and then "-" in that column. */
static bool begins_member(const char *s, size_t len, size_t at, int column)
{
	size_t dash = at + (size_t)column - 1;

	if (dash + 1 >= len || s[dash] != '-' || s[dash + 1] != ' ')
		return false;
	for (size_t i = at; i < dash; i++)
		if (s[i] != ' ')
			return false;
	return true;
}

/* Where the members of a list begin, or NULL.  line: of the text's first. */
static struct mark *mark_members(const struct node *list, const char *s,
				 size_t len, int line)
{
	struct mark *marks = mem_array(list->count + 1, sizeof(*marks));
	size_t at = 0;

	for (size_t i = 0; i < list->count; i++) {
		int to = list->items[i].src.line;

		at = skip_lines(s, len, at, to - line);
		line = to;
		if (!begins_member(s, len, at, list->src.column) ||
		    (i && marks[i - 1].line >= to)) {
			free(marks);
			return NULL;
		}
		marks[i] = (struct mark){ at, to };
	}
	return marks;
}

/* The line after the text's last one. */
static int line_after(const char *s, size_t len, size_t at, int line)
{
	while (at < len) {
		at = skip_lines(s, len, at, 1);
		line++;
	}
	return line;
}

/*
 * Only where services are what the file ends with, one below the other, each
 * read without complaint.
 */
static void find_layout(struct kept *k, const struct node *list)
{
	const struct mark *last;

	if (!list || list->kind != NODE_SEQUENCE || !list->block ||
	    !list->count || list->count != k->model.count ||
	    has_odd_breaks(k->data, k->len))
		return;
	k->marks = mark_members(list, k->data, k->len, 1);
	if (!k->marks)
		return;
	last = &k->marks[list->count - 1];
	k->column = list->src.column;
	k->marks[list->count] =
		(struct mark){ k->len, line_after(k->data, k->len, last->offset,
						  last->line) };
}

/* a whole file */

static void keep_text(struct kept *k, const struct spec_text *t)
{
	k->path = mem_dup(t->path);
	k->dir = mem_dup(t->dir);
	k->data = mem_array(t->len + 1, 1);
	memcpy(k->data, t->data, t->len);
	k->len = t->len;
}

static struct file_model model_of(struct piece *p)
{
	size_t count = p->spec->service_count;
	struct file_model m = { p, mem_array(count, sizeof(*m.items)), count };

	for (size_t i = 0; i < count; i++)
		m.items[i] = (struct item){ piece_use(p), i, 0 };
	return m;
}

/* keep: remember the bytes, to compare them next time. */
static void read_whole_file(struct kept *ret, const struct spec_text *t,
			    bool keep, struct diag_list *diags)
{
	struct arena *trees = arena_new();
	size_t before = diags->count;
	const struct node *list;
	struct piece *p = piece_parse(t, trees, &list, diags);

	ret->model = model_of(p);
	if (keep && diags->count == before) {
		keep_text(ret, t);
		find_layout(ret, list);
	}
	arena_free(trees);
}

/* a part of a file */

struct change_of_text {
	size_t first, last; /* services of the old text, last excluded */
	size_t begin, end; /* bytes of the new text in their place */
};

static size_t common_head(const char *a, size_t la, const char *b, size_t lb)
{
	size_t n = la < lb ? la : lb, i = 0;

	while (i + 64 <= n && !memcmp(a + i, b + i, 64))
		i += 64;
	while (i < n && a[i] == b[i])
		i++;
	return i;
}

/* Of what is left after `head` bytes. */
static size_t common_tail(const char *a, size_t la, const char *b, size_t lb,
			  size_t head)
{
	size_t n = (la < lb ? la : lb) - head, i = 0;

	while (i + 64 <= n && !memcmp(a + la - i - 64, b + lb - i - 64, 64))
		i += 64;
	while (i < n && a[la - i - 1] == b[lb - i - 1])
		i++;
	return i;
}

/* The service in whose bytes `at` lies; count: behind all of them. */
static size_t member_at(const struct kept *k, size_t at)
{
	size_t lo = 0, hi = k->model.count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (k->marks[mid + 1].offset <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * The services whose bytes differ.  What is put in right before one may
 * belong to the one before it, which is read again, too.
 */
static bool find_change(const struct kept *k, const struct spec_text *t,
			struct change_of_text *ret)
{
	size_t head = common_head(k->data, k->len, t->data, t->len);
	size_t tail = common_tail(k->data, k->len, t->data, t->len, head);
	size_t old_end = k->len - tail;

	if (head <= k->marks[0].offset)
		return false;
	ret->first = member_at(k, head - 1);
	ret->last = old_end ? member_at(k, old_end - 1) + 1 : 1;
	if (ret->last <= ret->first)
		ret->last = ret->first + 1;
	if (ret->last > k->model.count)
		ret->last = k->model.count;
	ret->begin = k->marks[ret->first].offset;
	ret->end = t->len - (k->len - k->marks[ret->last].offset);
	if (ret->end <= ret->begin || ret->end > t->len)
		return false;
	/* What follows must begin a line in the new text, too. */
	return ret->last == k->model.count || t->data[ret->end - 1] == '\n';
}

/* Lines that end a document wherever they stand. */
static bool ends_document(const char *s, size_t len)
{
	return !strncmp(s, "---", len < 3 ? len : 3) ||
	       !strncmp(s, "...", len < 3 ? len : 3) ||
	       memmem(s, len, "\n---", 4) || memmem(s, len, "\n...", 4);
}

static bool may_be_read_in_part(const struct kept *k, const struct spec_text *t)
{
	return k->marks && t->len <= PARTIAL_MAX && t->data &&
	       (k->dir ? t->dir && !strcmp(k->dir, t->dir) : !t->dir);
}

/* The old file with the services of `c` replaced by those of `p`. */
static void splice(struct kept *ret, const struct kept *old,
		   const struct change_of_text *c, struct piece *p,
		   const struct mark *marks, int lines, size_t len)
{
	size_t more = p->spec->service_count, rest = old->model.count - c->last;
	size_t count = c->first + more + rest;
	struct item *items = mem_array(count, sizeof(*items));
	struct mark *all = mem_array(count + 1, sizeof(*all));
	int shift =
		old->marks[c->first].line + lines - old->marks[c->last].line;
	size_t n = 0;

	for (; n < c->first; n++) {
		items[n] = old->model.items[n];
		all[n] = old->marks[n];
	}
	for (size_t i = 0; i < more; i++, n++) {
		items[n] = (struct item){ p, i, 0 };
		all[n] = marks[i];
		all[n].offset += c->begin;
	}
	for (size_t i = c->last; i < old->model.count; i++, n++) {
		items[n] = old->model.items[i];
		items[n].shift += shift;
		all[n] = old->marks[i];
		all[n].line += shift;
		all[n].offset = all[n].offset + len - old->len;
	}
	all[n] =
		(struct mark){ len, old->marks[old->model.count].line + shift };
	for (size_t i = 0; i < count; i++)
		piece_use(items[i].piece);
	ret->model =
		(struct file_model){ piece_use(old->model.top), items, count };
	ret->marks = all;
	ret->column = old->column;
}

/* The bytes that were parsed; 0: read it whole. */
static size_t read_part(struct kept *ret, const struct kept *old,
			const struct spec_text *t)
{
	struct diag_list ignored = { 0 };
	struct change_of_text c;
	struct spec_text part = *t;
	struct arena *trees;
	const struct node *list = NULL;
	struct mark *marks = NULL;
	struct piece *p;

	if (!may_be_read_in_part(old, t) || !find_change(old, t, &c))
		return 0;
	part.data += c.begin;
	part.len = c.end - c.begin;
	if (has_odd_breaks(part.data, part.len) ||
	    ends_document(part.data, part.len))
		return 0;
	trees = arena_new();
	p = piece_parse_services(&part, old->marks[c.first].line, old->column,
				 trees, &list, &ignored);
	if (p && !ignored.count && list->count == p->spec->service_count)
		marks = mark_members(list, part.data, part.len,
				     old->marks[c.first].line);
	if (marks) {
		splice(ret, old, &c, p, marks,
		       line_after(part.data, part.len, 0, 0), t->len);
		keep_text(ret, t);
	}
	free(marks);
	piece_free(p);
	arena_free(trees);
	diag_list_release(&ignored);
	return ret->marks ? part.len : 0;
}

/* all files */

static struct kept *find_kept(const struct spec_cache *c, const char *path)
{
	for (size_t i = 0; c && i < c->count; i++)
		if (!strcmp(c->files[i].path, path))
			return &c->files[i];
	return NULL;
}

static bool same_text(const struct kept *k, const struct spec_text *t)
{
	return k->len == t->len && !memcmp(k->data, t->data, t->len) &&
	       (k->dir ? t->dir && !strcmp(k->dir, t->dir) : !t->dir);
}

/* cut off? */

/* Its last line is "...", with which YAML ends a document. */
static bool has_end(const char *s, size_t len)
{
	while (len && strchr(" \n\r", s[len - 1]))
		len--;
	return len >= 3 && !memcmp(s + len - 3, "...", 3) &&
	       (len == 3 || s[len - 4] == '\n');
}

static bool is_head_of(const struct spec_text *t, const struct kept *old)
{
	return t->len < old->len && !memcmp(t->data, old->data, t->len);
}

/* In the middle of a line that isn't the last one. */
static bool ends_in_line(const struct spec_text *t, const struct kept *old)
{
	return t->len && t->data[t->len - 1] != '\n' &&
	       old->data[t->len] != '\n' &&
	       memchr(old->data + t->len, '\n', old->len - t->len);
}

/*
 * What a full disk or a killed writer leaves may be a valid file of less.
 * There is no telling where it ends after a line, unless the file says so.
 */
static void complain_cut(const struct kept *old, const struct spec_text *t,
			 struct diag_list *diags)
{
	struct source src = { t->path, line_after(t->data, t->len, 0, 0), 1 };

	if (has_end(old->data, old->len) && !has_end(t->data, t->len))
		complain(
			diags, &src, "end it with a line \"...\" again",
			"the file ended with \"...\" and doesn't any more: it looks cut off");
	else if (is_head_of(t, old) && ends_in_line(t, old))
		complain(
			diags, &src,
			"save all of it; or end the line, if that is meant",
			"the file ends in the middle of a line that went on: it looks cut off");
}

/* A text, and where it is from: read now, or kept. */
struct reading {
	struct kept fresh; /* zeroed: the kept one is the same */
	struct kept *same;
	size_t part; /* bytes of it that were parsed; 0: all */
};

static size_t parsed_of(const struct reading *r, const struct spec_text *t)
{
	return r->same ? 0 : r->part ? r->part : t->len;
}

static struct reading read_text_again(struct spec_cache *c,
				      const struct spec_text *t,
				      struct diag_list *diags)
{
	struct reading r = { .same = find_kept(c, t->path) };
	const struct kept *old = r.same;

	if (old && same_text(old, t))
		return r;
	r.same = NULL;
	if (old) {
		c->shorter |= is_head_of(t, old);
		complain_cut(old, t, diags);
	}
	if (old)
		r.part = read_part(&r.fresh, old, t);
	if (!r.part)
		read_whole_file(&r.fresh, t, c != NULL, diags);
	return r;
}

/* What was read anew takes the place of what was kept; the rest goes. */
static void keep_files(struct spec_cache *c, struct reading *readings,
		       size_t count)
{
	for (size_t i = 0; i < c->count; i++)
		c->files[i].used = false;
	for (size_t i = 0; i < count; i++)
		if (readings[i].same)
			readings[i].same->used = true;
	for (size_t i = 0; i < c->count;) {
		if (c->files[i].used) {
			i++;
			continue;
		}
		release_kept(&c->files[i]);
		c->files[i] = c->files[--c->count];
	}
	for (size_t i = 0; i < count; i++) {
		if (readings[i].same)
			continue;
		*MEM_PUSH(c->files, c->count) = readings[i].fresh;
		readings[i].fresh = (struct kept){ 0 };
	}
}

struct spec *spec_parse_again(struct spec_cache *c, const char *path,
			      const struct spec_text *texts, size_t count,
			      struct diag_list *diags)
{
	char sha256[65];

	texts_sha256(texts, count, sha256);
	return spec_parse_hashed(c, path, texts, count, sha256, diags);
}

struct spec *spec_parse_hashed(struct spec_cache *c, const char *path,
			       const struct spec_text *texts, size_t count,
			       const char *sha256, struct diag_list *diags)
{
	struct reading *readings = mem_array(count, sizeof(*readings));
	struct file_model *models = mem_array(count, sizeof(*models));
	size_t before = diags->errors, first = diags->count;
	uint64_t once = 0;
	bool readable = true;
	struct spec *s = NULL;

	if (c)
		c->shorter = false;
	for (size_t i = 0; i < count; i++) {
		readings[i] = read_text_again(c, &texts[i], diags);
		models[i] = readings[i].same ? readings[i].same->model
					     : readings[i].fresh.model;
		readable &= models[i].top->readable;
		if (c)
			c->parsed = (i ? c->parsed : 0) +
				    parsed_of(&readings[i], &texts[i]);
	}
	if (readable)
		s = merge_files(path, models, count, before,
				c ? &c->clean : &once, diags);
	if (s)
		memcpy(s->sha256, sha256, sizeof(s->sha256));
	if (s && c)
		keep_files(c, readings, count);
	for (size_t i = 0; i < count; i++)
		release_kept(&readings[i].fresh);
	free(readings);
	free(models);
	complain_sort(diags, first);
	return s;
}

bool spec_cache_shorter(const struct spec_cache *c)
{
	return c->shorter;
}

size_t spec_cache_parsed(const struct spec_cache *c)
{
	return c->parsed;
}

struct spec *spec_parse(const char *path, const struct spec_text *texts,
			size_t count, struct diag_list *diags)
{
	return spec_parse_again(NULL, path, texts, count, diags);
}
