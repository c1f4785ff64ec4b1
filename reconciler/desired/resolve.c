/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names to pointers.  Done when all files are read (a pool may name what
 * stands in a later file) and before services are sorted, because references
 * know services by their place.
 */
#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/parse.h"

static int compare_templates(const void *a, const void *b)
{
	const struct template_spec *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int compare_template_name(const void *name, const void *b)
{
	const struct template_spec *const *t = b;

	return strcmp(name, (*t)->name);
}

static void complain_template(struct reader *r, const struct pool_ref *ref)
{
	struct nearest n = { .word = ref->template };

	for (size_t i = 0; i < r->spec->template_count; i++)
		nearest_offer(&n, r->spec->templates[i].name);
	complain(r->diags, &ref->template_src,
		 n.best ? arena_printf(r->arena, "did you mean \"%s\"?", n.best)
			: "declare it under \"templates\"",
		 "no template is called \"%.64s\"", ref->template);
}

static void complain_hypervisor(struct reader *r, const struct pool_ref *ref,
				const struct source *pool)
{
	struct nearest n = { .word = ref->hypervisor ? ref->hypervisor : "" };

	if (!ref->hypervisor) {
		complain(
			r->diags, pool,
			"hypervisors: [{name: local, uri: \"qemu:///system\"}]",
			"a pool needs a hypervisor, and none is declared");
		return;
	}
	for (size_t i = 0; i < r->spec->hypervisor_count; i++)
		nearest_offer(&n, r->spec->hypervisors[i].name);
	complain(r->diags, &ref->hypervisor_src,
		 n.best ? arena_printf(r->arena, "did you mean \"%s\"?", n.best)
			: "declare it under \"hypervisors\"",
		 "no hypervisor is called \"%.64s\"", ref->hypervisor);
}

/* The first one unless the pool names another; there are only a few. */
static const struct hypervisor_spec *find_hypervisor(const struct spec *s,
						     const struct pool_ref *ref)
{
	if (!ref->hypervisor)
		return s->hypervisor_count ? &s->hypervisors[0] : NULL;
	for (size_t i = 0; i < s->hypervisor_count; i++)
		if (!strcmp(s->hypervisors[i].name, ref->hypervisor))
			return &s->hypervisors[i];
	return NULL;
}

void resolve_pools(struct reader *r)
{
	struct spec *s = r->spec;
	const struct template_spec **sorted =
		mem_array(s->template_count, sizeof(void *));

	for (size_t i = 0; i < s->template_count; i++)
		sorted[i] = &s->templates[i];
	qsort(sorted, s->template_count, sizeof(void *), compare_templates);
	for (size_t i = 0; i < r->ref_count; i++) {
		const struct pool_ref *ref = &r->refs[i];
		struct pool_spec *pool = &s->services[ref->service].pool;
		const struct template_spec **found =
			bsearch(ref->template, sorted, s->template_count,
				sizeof(void *), compare_template_name);

		pool->template = found ? *found : NULL;
		pool->hypervisor = find_hypervisor(s, ref);
		if (!pool->template)
			complain_template(r, ref);
		if (!pool->hypervisor)
			complain_hypervisor(r, ref, &pool->src);
	}
	free(sorted);
}
