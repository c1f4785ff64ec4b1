/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/keep.h"

#include <stdlib.h>
#include <string.h>

#include "desired/parse.h"

void keep_print(const struct service_spec *service, struct buf *out)
{
	static const struct safety_spec safety = { { 1, NS_SECOND }, 0, false };
	struct service_spec only = *service;
	struct template_spec template = { 0 };
	struct hypervisor_spec hypervisor = { 0 };
	struct spec one = { .node = { .resync = NS_SECOND },
			    .safety = safety,
			    .history_retention = NS_DAY,
			    .services = &only,
			    .service_count = 1 };

	only.protect = only.paused = false;
	if (only.pool.template) {
		template = *only.pool.template;
		hypervisor = *only.pool.hypervisor;
		one.templates = &template;
		one.hypervisors = &hypervisor;
		one.template_count = one.hypervisor_count = 1;
	}
	spec_print(&one, out);
}

static struct spec *read_kept(struct spec *s, const char *name,
			      const char *text, const char **ret_why)
{
	struct spec_text t = { .path = arena_printf(s->arena, "%s, as it was",
						    name),
			       .data = text,
			       .len = strlen(text),
			       .dir = "/" };
	struct diag_list diags = { 0 };
	struct spec *kept = spec_parse(t.path, &t, 1, &diags);

	if (!kept || kept->service_count != 1) {
		*ret_why = arena_printf(
			s->arena, "what was remembered of it can't be read: %s",
			diags.count ? diags.items[0].message : "nothing in it");
		spec_free(kept);
		kept = NULL;
	}
	diag_list_release(&diags);
	return kept;
}

/* The file's hypervisor of this name, or one more. */
static const struct hypervisor_spec *
take_hypervisor(struct spec *s, const struct hypervisor_spec *h)
{
	size_t n = s->hypervisor_count;
	struct hypervisor_spec *list;

	for (size_t i = 0; i < n; i++)
		if (!strcmp(s->hypervisors[i].name, h->name))
			return &s->hypervisors[i];
	/* The file's own list may be shared with other specs. */
	list = arena_alloc(s->arena, (n + 1) * sizeof(*list));
	if (n)
		memcpy(list, s->hypervisors, n * sizeof(*list));
	list[n] = *h;
	s->hypervisors = list;
	s->hypervisor_count = n + 1;
	return &list[n];
}

/* All but `name`, with room for one more; sorted as they were. */
static void copy_without(struct spec *s, const char *name)
{
	struct service_spec *list =
		arena_alloc(s->arena, (s->service_count + 1) * sizeof(*list));
	size_t n = 0;

	for (size_t i = 0; i < s->service_count; i++)
		if (strcmp(s->services[i].name, name) != 0)
			list[n++] = s->services[i];
	s->services = list;
	s->service_count = n;
}

static void insert_sorted(struct spec *s, const struct service_spec *service)
{
	size_t at = s->service_count;

	while (at && strcmp(s->services[at - 1].name, service->name) > 0)
		at--;
	memmove(&s->services[at + 1], &s->services[at],
		(s->service_count - at) * sizeof(*s->services));
	s->services[at] = *service;
	s->service_count++;
}

static const char *find_conflict(const struct spec *s)
{
	struct diag_list diags = { 0 };
	const char *why = NULL;

	check_spec(s, true, &diags);
	check_addresses(s, true, &diags);
	for (size_t i = 0; !why && i < diags.count; i++)
		if (diags.items[i].severity == SEVERITY_ERROR)
			why = arena_dup(s->arena, diags.items[i].message);
	diag_list_release(&diags);
	return why;
}

const char *keep_insert(struct spec *s, const char *name, const char *text,
			enum kept_why why)
{
	const struct service_spec *file = spec_find_service(s, name);
	struct spec before = *s, *kept;
	const char *conflict = NULL;
	struct service_spec service;

	kept = read_kept(s, name, text, &conflict);
	if (!kept)
		return conflict;
	kept->next = s->kept;
	s->kept = kept;
	service = kept->services[0];
	service.kept = why;
	service.undeclared = !file;
	service.protect = file ? file->protect : why == KEPT_PROTECTED;
	service.paused = file && file->paused;
	if (why == KEPT_LEAVING)
		service.pool.min = 0;
	if (service.pool.template)
		service.pool.hypervisor =
			take_hypervisor(s, service.pool.hypervisor);
	copy_without(s, name);
	insert_sorted(s, &service);
	conflict = find_conflict(s);
	if (conflict) {
		before.kept = s->kept;
		*s = before;
	}
	return conflict;
}

void keep_remove(struct spec *s, const char *name)
{
	copy_without(s, name);
}

struct service_spec *keep_find(struct spec *s, const char *name)
{
	for (size_t i = 0; i < s->service_count; i++)
		if (!strcmp(s->services[i].name, name))
			return &s->services[i];
	return NULL;
}

size_t keep_declared(const struct spec *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->service_count; i++)
		n += !s->services[i].undeclared;
	return n;
}
