/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/diag.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/mem.h"

void diag_list_release(struct diag_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].file);
		free(l->items[i].message);
		free(l->items[i].hint);
	}
	free(l->items);
	*l = (struct diag_list){ 0 };
}

void diag_list_move(struct diag_list *to, struct diag_list *from)
{
	for (size_t i = 0; i < from->count; i++)
		*MEM_PUSH(to->items, to->count) = from->items[i];
	to->errors += from->errors;
	free(from->items);
	*from = (struct diag_list){ 0 };
}

void diag_add(struct diag_list *l, enum severity severity,
	      const struct source *src, const char *hint, const char *fmt, ...)
{
	struct diag *d = MEM_PUSH(l->items, l->count);
	va_list ap;

	d->severity = severity;
	if (src) {
		d->file = mem_dup(src->file);
		d->line = src->line;
		d->column = src->column;
	}
	d->hint = mem_dup(hint);
	va_start(ap, fmt);
	if (vasprintf(&d->message, fmt, ap) < 0)
		abort();
	va_end(ap);
	if (severity == SEVERITY_ERROR)
		l->errors++;
}

void diag_print(const struct diag *d, struct buf *out)
{
	if (d->file) {
		buf_adds(out, d->file);
		if (d->line)
			buf_addf(out, ":%d:%d", d->line, d->column);
		buf_adds(out, ": ");
	}
	buf_addf(out, "%s: %s\n",
		 d->severity == SEVERITY_ERROR ? "error" : "warning",
		 d->message);
	if (d->hint)
		buf_addf(out, "    hint: %s\n", d->hint);
}

void diag_list_print(const struct diag_list *l, struct buf *out)
{
	for (size_t i = 0; i < l->count; i++)
		diag_print(&l->items[i], out);
}
