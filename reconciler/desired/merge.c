/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pieces of files to one spec: what is shared stays where it is, and what has
 * moved to other lines is copied with its new places.
 */
#include <stdlib.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/parse.h"
#include "desired/piece.h"

/*
 * move_service() must know every struct source in a service.  For a new field
 * that holds none the new size here is enough.
 */
#define KNOWN_SIZE(type, size)                 \
	_Static_assert(sizeof(type) == (size), \
		       "does the new field of " #type " hold a source?")
KNOWN_SIZE(struct service_spec, 584);
KNOWN_SIZE(struct vip_spec, 40);
KNOWN_SIZE(struct port_spec, 24);
KNOWN_SIZE(struct backend_spec, 88);
KNOWN_SIZE(struct signal_spec, 56);

static void *copy(struct arena *a, const void *items, size_t count, size_t size)
{
	void *p;

	if (!count)
		return NULL;
	p = arena_alloc(a, count * size);
	memcpy(p, items, count * size);
	return p;
}
#define COPY(arena, items, count) \
	((items) = copy((arena), (items), (count), sizeof(*(items))))

static void move(struct source *src, int shift)
{
	if (src->line)
		src->line += shift;
}

static void move_service(struct arena *a, struct service_spec *s, int shift)
{
	move(&s->src, shift);
	move(&s->pool.src, shift);
	move(&s->sorry.src, shift);
	move(&s->health.src, shift);
	move(&s->scaling.src, shift);
	COPY(a, s->vips, s->vip_count);
	for (size_t i = 0; i < s->vip_count; i++)
		move(&s->vips[i].src, shift);
	COPY(a, s->ports, s->port_count);
	for (size_t i = 0; i < s->port_count; i++)
		move(&s->ports[i].src, shift);
	COPY(a, s->backends, s->backend_count);
	for (size_t i = 0; i < s->backend_count; i++)
		move(&s->backends[i].src, shift);
	COPY(a, s->scaling.signals, s->scaling.signal_count);
	for (size_t i = 0; i < s->scaling.signal_count; i++)
		move(&s->scaling.signals[i].src, shift);
}

static void add_service(struct reader *r, const struct item *item)
{
	struct spec *s = r->spec;
	struct service_spec *to = &s->services[s->service_count];
	struct pool_ref ref = item->piece->refs[item->service];

	*to = item->piece->spec->services[item->service];
	if (item->shift)
		move_service(r->arena, to, item->shift);
	if (ref.template) {
		move(&ref.template_src, item->shift);
		move(&ref.hypervisor_src, item->shift);
		ref.service = s->service_count;
		*ARENA_PUSH(r->arena, r->refs, r->ref_count) = ref;
	}
	s->service_count++;
}

/* A block that may stand in one of a folder's files only. */
static bool first_block(struct reader *r, const struct piece *p,
			enum block which, const char *name)
{
	if (!p->blocks[which].line)
		return false;
	if (r->blocks[which].line) {
		complain(r->diags, &p->blocks[which], "keep one of them",
			 "\"%s\" stands at " PLACE_FMT " already", name,
			 PLACE_ARG(&r->blocks[which]));
		return false;
	}
	r->blocks[which] = p->blocks[which];
	return true;
}

static void add_blocks(struct reader *r, const struct piece *p)
{
	struct spec *s = r->spec;
	const struct spec *from = p->spec;

	if (first_block(r, p, BLOCK_NODE, "node")) {
		s->node = from->node;
		/* Flags may alter them. */
		COPY(r->arena, s->node.interfaces, s->node.interface_count);
	}
	if (first_block(r, p, BLOCK_SAFETY, "safety"))
		s->safety = from->safety;
	if (first_block(r, p, BLOCK_HISTORY, "history"))
		s->history_retention = from->history_retention;
}

static void add_lists(struct reader *r, const struct piece *p)
{
	struct spec *s = r->spec;
	const struct spec *from = p->spec;

	if (s->hypervisor_count + from->hypervisor_count >
	    SPEC_MAX_HYPERVISORS) {
		complain(r->diags, &p->blocks[BLOCK_HYPERVISORS], NULL,
			 "more than %d hypervisors", SPEC_MAX_HYPERVISORS);
		return;
	}
	for (size_t i = 0; i < from->hypervisor_count; i++)
		*ARENA_PUSH(r->arena, s->hypervisors, s->hypervisor_count) =
			from->hypervisors[i];
	for (size_t i = 0; i < from->template_count; i++)
		*ARENA_PUSH(r->arena, s->templates, s->template_count) =
			from->templates[i];
}

static int compare_services(const void *a, const void *b)
{
	const struct service_spec *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : x->src.line - y->src.line;
}

static bool in_order(const struct spec *s)
{
	for (size_t i = 1; i < s->service_count; i++)
		if (compare_services(&s->services[i - 1], &s->services[i]) > 0)
			return false;
	return true;
}

static void require_services(struct reader *r)
{
	struct source src = { r->spec->path, 0, 0 };

	if (!r->has_services)
		complain(r->diags, &src,
			 "write \"services: []\" if none are wanted",
			 "no \"services\"");
}

static void finish(struct reader *r, size_t before, uint64_t *clean)
{
	struct spec *s = r->spec;

	require_services(r);
	resolve_pools(r);
	if (!in_order(s))
		qsort(s->services, s->service_count, sizeof(*s->services),
		      compare_services);
	check_spec(s, r->diags->errors == before, r->diags);
	check_addresses_again(s, r->diags->errors == before, clean, r->diags);
	for (size_t i = 0; i < s->template_count; i++)
		template_hash(&s->templates[i]);
}

static void share(struct spec *s, struct piece *p)
{
	/* Services of one piece mostly stand together. */
	if (s->piece_count && s->pieces[s->piece_count - 1] == p)
		return;
	*ARENA_PUSH(s->arena, s->pieces, s->piece_count) = piece_use(p);
}

static struct spec *new_spec(const char *path, const struct file_model *files,
			     size_t count)
{
	struct arena *arena = arena_new();
	struct spec *s = arena_alloc(arena, sizeof(*s));
	size_t services = 0;

	for (size_t i = 0; i < count; i++)
		services += files[i].count;
	s->arena = arena;
	s->path = arena_dup(arena, path);
	s->node = (struct node_spec){ .resync = 10 * NS_SECOND };
	s->history_retention = 30 * NS_DAY;
	safety_defaults(&s->safety);
	s->services = arena_alloc(arena, (services + 1) * sizeof(*s->services));
	return s;
}

struct spec *merge_files(const char *path, const struct file_model *files,
			 size_t count, size_t before, uint64_t *clean,
			 struct diag_list *diags)
{
	struct spec *s = new_spec(path, files, count);
	struct reader r = { .arena = s->arena, .spec = s, .diags = diags };

	for (size_t i = 0; i < count; i++) {
		const struct file_model *f = &files[i];

		r.has_services |= f->top->has_services;
		share(s, f->top);
		add_blocks(&r, f->top);
		add_lists(&r, f->top);
		for (size_t k = 0; k < f->count; k++) {
			share(s, f->items[k].piece);
			add_service(&r, &f->items[k]);
		}
	}
	finish(&r, before, clean);
	if (diags->errors == before)
		return s;
	spec_free(s);
	return NULL;
}
