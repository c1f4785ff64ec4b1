/* SPDX-License-Identifier: GPL-2.0-or-later */
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
		buf_addf(out, " %s", c->detail);
	if (c->cause)
		buf_addf(out, "  (%s)", c->cause);
	buf_adds(out, "\n");
}

static void print_part(const struct plan *p, bool drift, const char *title,
		       struct buf *out)
{
	bool any = false;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (c->hidden || c->drift != drift)
			continue;
		if (!any)
			buf_addf(out, "%s\n", title);
		any = true;
		print_change(c, out);
	}
	if (any)
		buf_adds(out, "\n");
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
	if (plan_shows_nothing(p)) {
		buf_addf(out, "No changes. %s matches what is running.\n",
			 base && base[1] ? base + 1 : spec->path);
		return;
	}
	buf_addf(out,
		 "Plan: %u drift to repair, %u to add, %u to change, "
		 "%u to replace, %u to destroy.\n",
		 s.drift, s.add, s.change, s.replace, s.destroy);
}
