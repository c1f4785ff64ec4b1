/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plan/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "desired/value.h"

#define NS_PER_MS_64 1000000ull

void ledger_release(struct ledger *l)
{
	free(l->items);
	*l = (struct ledger){ 0 };
}

void ledger_begin(struct ledger *l, int64_t now_ms, bool any_vms)
{
	l->begun = true;
	l->since_ms = any_vms ? now_ms : 0;
}

struct deletion *ledger_add(struct ledger *l, const struct deletion *d,
			    int64_t now_ms)
{
	struct deletion *item = MEM_PUSH(l->items, l->count);

	*item = *d;
	if (item->time_ms > now_ms)
		item->time_ms = now_ms;
	return item;
}

bool ledger_may_go(const struct ledger *l, const char *vm)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->items[i].open && !strcmp(l->items[i].vm, vm))
			return true;
	return false;
}

static int by_time(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* When those that count were, oldest first. */
static int64_t *find_counted(const struct ledger *l, int64_t after_ms,
			     struct arena *arena, size_t *ret)
{
	int64_t *times = arena_alloc(arena, (l->count + 1) * sizeof(*times));

	*ret = 0;
	for (size_t i = 0; i < l->count; i++)
		if (!l->items[i].approved && l->items[i].time_ms > after_ms)
			times[(*ret)++] = l->items[i].time_ms;
	if (*ret)
		qsort(times, *ret, sizeof(*times), by_time);
	return times;
}

static const char *used_up(const struct vm_deletes_spec *max,
			   struct arena *arena)
{
	AUTO_BUF struct buf b = BUF_INIT;

	if (!max->count)
		return "safety.max_vm_deletes allows none";
	buf_addf(&b, "the %u that safety.max_vm_deletes allows per ",
		 max->count);
	print_duration(&b, max->per);
	buf_adds(&b, " are used up");
	return arena_dup(arena, buf_str(&b));
}

struct world_budget ledger_budget(const struct ledger *l,
				  const struct vm_deletes_spec *max,
				  int64_t now_ms, struct arena *arena)
{
	struct world_budget b = { .why = used_up(max, arena) };
	int64_t per = (int64_t)(max->per / NS_PER_MS_64);
	int64_t *times;
	size_t n;

	if (!max->count)
		return b;
	if (!l->begun) {
		b.why = "not every hypervisor has been read yet";
		return b;
	}
	if (l->since_ms && now_ms < l->since_ms + per) {
		b.why = "the history is new, so that it isn't known how many "
			"were deleted lately";
		b.until_ms = l->since_ms + per;
		return b;
	}
	times = find_counted(l, now_ms - per, arena, &n);
	b.left = n < max->count ? max->count - (uint32_t)n : 0;
	/*
	 * Beyond that the next may go when the oldest is out of sight that
	 * keeps count - 1 in it, or one of those that go now.
	 */
	b.until_ms = per + (!n		     ? now_ms
			    : n < max->count ? times[0]
					     : times[n - max->count]);
	return b;
}

static const struct world_vm *find_vm(const struct world *w, const char *name)
{
	for (size_t i = 0; i < w->vm_count; i++)
		if (!strcmp(w->vms[i].name, name))
			return &w->vms[i];
	return NULL;
}

static bool is_leaving(const struct world_vm *vm)
{
	return vm->phase == PHASE_DRAINING || vm->phase == PHASE_STOPPING;
}

bool ledger_is_over(const struct deletion *d, const struct world *w,
		    const struct plan *p, bool known)
{
	const struct world_vm *vm = find_vm(w, d->vm);
	bool restored = false;

	if (!vm)
		return known;
	for (size_t i = 0; i < p->count; i++) {
		const struct change *c = p->changes[i];

		if (!c->name || strcmp(c->name, d->vm) != 0 || c->held)
			continue;
		if (c->kind == CHANGE_DRAIN || c->kind == CHANGE_VM_REMOVE)
			return false;
		restored |= c->kind == CHANGE_RESTORE;
	}
	return restored || (!vm->busy && !is_leaving(vm));
}
