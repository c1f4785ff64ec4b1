/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

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
	if (c->held)
		buf_addf(out, " held: %s", c->held->guard);
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

const struct change **plan_visible(const struct plan *p, bool drift,
				   size_t *ret_count)
{
	struct line *lines = mem_array(p->count + 1, sizeof(*lines));
	const struct change **changes =
		mem_array(p->count + 1, sizeof(const struct change *));
	size_t n = 0;

	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (!c->hidden && c->drift == drift)
			lines[n++] = (struct line){ c, i, part_of(c) };
	}
	if (n)
		qsort(lines, n, sizeof(*lines), reading_order);
	for (size_t i = 0; i < n; i++)
		changes[i] = lines[i].change;
	free(lines);
	*ret_count = n;
	return changes;
}

static void print_part(const struct plan *p, bool drift, const char *title,
		       struct buf *out)
{
	size_t n;
	const struct change **changes = plan_visible(p, drift, &n);

	if (n)
		buf_addf(out, "%s\n", title);
	for (size_t i = 0; i < n; i++)
		print_change(changes[i], out);
	if (n)
		buf_adds(out, "\n");
	free(changes);
}

/* ---- the scaler's view ---- */

bool pool_view(const struct world *w, const struct world_service *s,
	       struct pool_view *ret)
{
	*ret = (struct pool_view){ 0 };
	if (!s->spec || !s->spec->pool.template)
		return false;
	for (size_t i = 0; i < w->vm_count; i++) {
		if (strcmp(w->vms[i].service, s->name) != 0)
			continue;
		ret->vms++;
		ret->ready += w->vms[i].phase == PHASE_READY;
	}
	return true;
}

static void print_pool(const struct world_service *s, const struct pool_view *v,
		       struct buf *out)
{
	const struct pool_spec *pool = &s->spec->pool;
	AUTO_FREE char *object = mem_printf("service.%s", s->name);

	buf_addf(out, "      %-34s ", object);
	if (s->pool.known)
		buf_addf(out, "%u wanted of %u to %u VMs, %u there, %u ready",
			 s->pool.wanted, pool->min, pool->max, v->vms,
			 v->ready);
	else
		buf_addf(out, "%u to %u VMs; what is there isn't known yet",
			 pool->min, pool->max);
	if (s->pool.view)
		buf_addf(out, "; %s", s->pool.view);
	buf_adds(out, "\n");
}

static void print_scaling(const struct plan *p, struct buf *out)
{
	struct pool_view v;
	size_t n = 0;

	for (size_t i = 0; i < p->world->service_count; i++) {
		if (!pool_view(p->world, &p->world->services[i], &v))
			continue;
		if (!n++)
			buf_adds(out, "Scaling:\n");
		print_pool(&p->world->services[i], &v, out);
	}
	if (n)
		buf_adds(out, "\n");
}

/* ---- guards ---- */

/* Days since 1970 to a date, by years of 400 from the first of March of 0. */
static void civil_date(int64_t days, int64_t *year, int *month, int *day)
{
	int64_t z = days + 719468, era = z / 146097, doe = z % 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	*day = (int)(doy - (153 * mp + 2) / 5 + 1);
	*month = (int)(mp < 10 ? mp + 3 : mp - 9);
	*year = yoe + era * 400 + (*month <= 2);
}

void format_time(int64_t ms, char ret[32])
{
	int64_t s = ms < 0 ? 0 : ms / 1000, year;
	int month, day, of_day = (int)(s % 86400);

	civil_date(s / 86400, &year, &month, &day);
	snprintf(ret, 32, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)(year % 10000),
		 month, day, of_day / 3600, of_day / 60 % 60, of_day % 60);
}

static void print_guards(const struct plan *p, struct buf *out)
{
	char stamp[32];

	for (size_t i = 0; i < p->guard_count; i++) {
		const struct held *h = p->guards[i];

		buf_addf(out, "Held: %s%s%s (%s", h->object ? h->object : "",
			 h->object ? ": " : "", h->why, h->guard);
		if (h->until_ms) {
			format_time(h->until_ms, stamp);
			buf_addf(out, ", until %s", stamp);
		}
		buf_adds(out, ")\n");
	}
	if (plan_awaits_approval(p) && p->id[0])
		buf_addf(out,
			 "    hint: `xlb-reconcile approve %s` releases it "
			 "once\n",
			 p->id);
	if (p->note)
		buf_addf(out, "%s\n", p->note);
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
	print_scaling(p, out);
	print_guards(p, out);
	if (p->diags.errors)
		buf_adds(out, "Refused: what is running stays as it is.\n");
	if (!p->diags.errors && !p->guard_count && plan_shows_nothing(p)) {
		buf_addf(out, "No changes. %s matches what is running.\n",
			 base && base[1] ? base + 1 : spec->path);
		return;
	}
	buf_addf(out,
		 "Plan: %u drift to repair, %u to add, %u to change, "
		 "%u to replace, %u to destroy.\n",
		 s.drift, s.add, s.change, s.replace, s.destroy);
}
