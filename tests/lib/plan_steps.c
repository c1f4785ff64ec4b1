/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/plan_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "desired/desired.h"

#define MOST_ROUNDS 80

struct spec *steps_try_parse(const char *yaml, bool quiet)
{
	struct spec_text t = { "services.yaml", yaml, strlen(yaml), "/etc" };
	struct diag_list diags = { 0 };
	struct spec *spec = spec_parse("services.yaml", &t, 1, &diags);
	struct buf text = BUF_INIT;

	if (!spec && !quiet) {
		diag_list_print(&diags, &text);
		fprintf(stderr, "%s\n%s\n", yaml, buf_str(&text));
	}
	buf_release(&text);
	diag_list_release(&diags);
	return spec;
}

struct spec *steps_parse(const char *yaml)
{
	struct spec *spec = steps_try_parse(yaml, false);

	if (!spec)
		exit(1);
	return spec;
}

struct plan *steps_plan(struct fake *f, const struct spec *spec)
{
	struct arena *arena = arena_new();
	struct plan *p = plan_make(spec, fake_observe(f, spec, arena));

	p->world_arena = arena;
	f->next_id = p->next_id;
	return p;
}

char *steps_text(const struct plan *p, const struct spec *spec)
{
	struct buf text = BUF_INIT;
	char *copy;

	plan_text(p, spec, &text);
	copy = mem_dup(buf_str(&text));
	buf_release(&text);
	return copy;
}

/* ---- the last healthy backend ---- */

enum { GOOD = 1, HAD = 2 };

/* Backends that could serve when the plan was made, or that it adds. */
static void mark_good(const struct world *w, const struct plan *p,
		      uint8_t *marks)
{
	for (size_t i = 0; i < w->service_count; i++) {
		const struct world_service *s = &w->services[i];

		for (size_t k = 0; s->spec && k < s->member_count; k++) {
			const struct world_member *m = &s->members[k];

			if (m->id && m->health == HEALTH_UP && !m->drained &&
			    !m->finished && m->weight)
				marks[m->id] = GOOD;
		}
	}
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind == CHANGE_BACKEND_SET &&
		    p->changes[i]->action == ACTION_ADD)
			marks[p->changes[i]->id] = GOOD;
}

static bool is_good(struct fake *f, const uint8_t *marks, uint32_t id)
{
	const struct fake_vm *v;

	if (!id || !(marks[id] & GOOD) || !f->owners[id].name[0])
		return false;
	v = f->owners[id].kind == XLB_OWNER_VM ? fake_vm(f, f->owners[id].name)
					       : NULL;
	return !v || (v->op != FAKE_REMOVE && v->op != FAKE_REPLACE);
}

static bool service_serves(struct fake *f, const uint8_t *marks,
			   const char *service)
{
	for (uint32_t id = 1; id < 64; id++) {
		const struct xlb_service *s = &f->services[id];
		uint32_t last = 0;

		if (strcmp(s->name, service) != 0)
			continue;
		for (uint32_t i = 0; i < 1u << s->slot_log2; i++) {
			uint32_t b = XLB_SLOT_CUR(f->slots[s->slot_base + i]);

			if (b != last && is_good(f, marks, b))
				return true;
			last = b;
		}
	}
	return false;
}

int steps_apply(struct fake *f, const struct spec *spec, const struct plan *p,
		size_t n)
{
	static uint8_t marks[XLB_BACKENDS];
	struct arena *arena = arena_new();
	struct world *w = fake_observe(f, spec, arena);
	bool *served = mem_array(spec->service_count + 1, sizeof(*served));
	/* Somebody may have spoilt it already. */
	bool sound = fake_is_sound(f);
	int err = 0;

	watch_begin(&f->watch, w);
	memset(marks, 0, sizeof(marks));
	mark_good(w, p, marks);
	for (size_t k = 0; k < spec->service_count; k++)
		served[k] = service_serves(f, marks, spec->services[k].name);
	for (size_t i = 0; !err && i < n && i < p->count; i++) {
		err = fake_apply(f, spec, p->changes[i]);
		if (!err)
			err = watch_change(&f->watch, spec, p->changes[i],
					   f->now);
		if (!err && sound && !fake_is_sound(f))
			err = -1;
		for (size_t k = 0; !err && k < spec->service_count; k++) {
			if (!served[k] ||
			    service_serves(f, marks, spec->services[k].name))
				continue;
			fprintf(stderr,
				"# service %s lost its last healthy "
				"backend\n",
				spec->services[k].name);
			err = -1;
		}
		if (err)
			fprintf(stderr, "# after change %zu of %zu: %s\n",
				i + 1, p->count, p->changes[i]->object);
	}
	if (n >= p->count) {
		fake_close_deletions(f, w, p);
		watch_end(&f->watch);
	}
	f->watch.world = NULL;
	free(served);
	arena_free(arena);
	return err;
}

/* ---- to the end ---- */

static bool touches_vms(const struct plan *p)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->changes[i]->kind >= CHANGE_DRAIN &&
		    p->changes[i]->kind <= CHANGE_VM_REMOVE)
			return true;
	return false;
}

static int complain(const struct plan *p, const struct spec *spec,
		    const char *what)
{
	char *text = steps_text(p, spec);

	fprintf(stderr, "# %s: %zu changes\n%s", what, p->count, text);
	for (size_t i = 0; i < p->count; i++)
		fprintf(stderr, "#   kind %d %s %s\n", (int)p->changes[i]->kind,
			p->changes[i]->object,
			p->changes[i]->hidden ? "(hidden)" : "");
	free(text);
	return -1;
}

/* 1: there was something to do. */
static int one_round(struct fake *f, const struct spec *spec)
{
	struct plan *p = steps_plan(f, spec), *again;
	bool any = !plan_is_empty(p), vms = touches_vms(p);
	int err = 0;

	if (p->diags.errors)
		err = complain(p, spec, "errors");
	if (!err)
		err = steps_apply(f, spec, p, p->count);
	if (!err && any && !vms) {
		again = steps_plan(f, spec);
		/* A VM that is out of the tables may have drained by that. */
		if (!plan_is_empty(again) && !touches_vms(again)) {
			complain(p, spec, "this was carried out");
			err = complain(again, spec, "and this was left");
		}
		plan_free(again);
	}
	if (err)
		complain(p, spec, "failed");
	plan_free(p);
	return err ? err : any;
}

int steps_converge(struct fake *f, const struct spec *spec)
{
	struct plan *p;

	for (int round = 1; round < MOST_ROUNDS; round++) {
		int any = one_round(f, spec);
		bool busy;

		if (any < 0)
			return -1;
		busy = fake_tick(f, spec);
		f->verify = !any && !busy && !f->verify;
		if (any || busy)
			continue;
		if (!f->verify) {
			f->settled = true;
			return round;
		}
	}
	p = steps_plan(f, spec);
	fprintf(stderr, "# no end after %d rounds\n", MOST_ROUNDS);
	complain(p, spec, "what is left to do");
	plan_free(p);
	return -1;
}
