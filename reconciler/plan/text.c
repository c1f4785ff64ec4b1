/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

const char *action_name(enum change_action a)
{
	switch (a) {
	case ACTION_ADD:
		return "add";
	case ACTION_CHANGE:
		return "change";
	case ACTION_REPLACE:
		return "replace";
	case ACTION_DESTROY:
		return "destroy";
	}
	return "";
}

static const char *symbol(enum change_action a)
{
	switch (a) {
	case ACTION_ADD:
		return "+";
	case ACTION_CHANGE:
		return "~";
	case ACTION_REPLACE:
		return "-/+";
	case ACTION_DESTROY:
		return "-";
	}
	return "";
}

static void print_change(const struct change *c, struct buf *out)
{
	buf_addf(out, "  %3s %-34s", symbol(c->action), c->object);
	if (c->detail)
		buf_addf(out, " %s ", c->detail);
	if (c->cause)
		buf_addf(out, " (%s)", c->cause);
	buf_adds(out, "\n");
}

/* ---- in the order of reading: node, then service after service ---- */

struct line {
	const struct change *change;
	size_t place; /* in the order of carrying out */
	int part; /* of a service: itself, backends, slots, VMs */
};

static int part_of(const struct change *c)
{
	const char *slash = strchr(c->object, '/');

	if (!slash)
		return 0;
	if (!strncmp(slash, "/backend/", 9))
		return 1;
	return strncmp(slash, "/vm/", 4) ? 2 : 3;
}

static int reading_order(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	const char *s = x->change->service, *t = y->change->service;
	int c = s && t ? strcmp(s, t) : (s != NULL) - (t != NULL);

	if (!c && s)
		c = x->part - y->part;
	return c ? c : x->place < y->place ? -1 : 1;
}

static void print_part(const struct plan *p, bool drift, const char *title,
		       struct buf *out)
{
	struct line *lines = mem_array(p->count + 1, sizeof(*lines));
	size_t n = 0;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (!c->hidden && c->drift == drift)
			lines[n++] = (struct line){ c, i, part_of(c) };
	}
	if (n) {
		qsort(lines, n, sizeof(*lines), reading_order);
		buf_addf(out, "%s\n", title);
		for (size_t i = 0; i < n; i++)
			print_change(lines[i].change, out);
		buf_adds(out, "\n");
	}
	free(lines);
}

bool plan_shows_nothing(const struct plan *p)
{
	struct plan_summary s = plan_summarize(p);

	return !(s.drift + s.add + s.change + s.replace + s.destroy);
}

void plan_text(const struct plan *p, const struct spec *spec, struct buf *out)
{
	struct plan_summary s = plan_summarize(p);
	const char *base = strrchr(spec->path, '/');

	diag_list_print(&p->diags, out);
	print_part(p, true, "Drift:", out);
	print_part(p, false, "Changes:", out);
	if (p->held)
		buf_addf(out, "Held: %s\n", p->held);
	if (p->diags.errors)
		buf_adds(out, "Refused: what is running stays as it is.\n");
	if (!p->diags.errors && plan_shows_nothing(p)) {
		buf_addf(out, "No changes. %s matches what is running.\n",
			 base && base[1] ? base + 1 : spec->path);
		return;
	}
	buf_addf(out,
		 "Plan: %u drift to repair, %u to add, %u to change, "
		 "%u to replace, %u to destroy.\n",
		 s.drift, s.add, s.change, s.replace, s.destroy);
}
