/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * services.yaml to the model, top level:
 *
 *   bytes --node.c--> tree --keys.c, by the tables here and in parse_*.c-->
 *   pieces --merge.c, resolve.c--> one model, names become pointers
 *   --check*.c--> a spec, or NULL
 *
 * cache.c keeps pieces, so that only what changed is read again.  All files
 * are read before anything is said to be missing.
 */
#include "desired/desired.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#include "desired/complain.h"
#include "desired/names.h"
#include "desired/parse.h"
#include "desired/piece.h"
#include "desired/value.h"

static void read_version(struct reader *r, const struct key *k,
			 const struct node *v, void *field)
{
	(void)field;
	if (v->kind != NODE_SCALAR || strcmp(v->text, "1") != 0)
		complain(r->diags, &v->src, "write \"version: 1\"",
			 "this \"%s\" of the file format is not known",
			 k->name);
}

/* node */

static const struct key interface_keys[] = {
	KEY("name", read_text, offsetof(struct interface_spec, name),
	    .required = true, .max = 15,
	    .help = "An interface of this machine"),
	KEY("hook", read_choice, offsetof(struct interface_spec, hook),
	    .choices = hook_names,
	    .help = "xdp where the driver has it natively, else tc; xdp_generic only where it is asked for",
	    .fallback = "auto"),
};
KEY_TABLE(interface_table, "an interface", interface_keys);

static void read_interfaces(struct reader *r, const struct key *k,
			    const struct node *v, void *field)
{
	struct node_spec *n = field;

	if (!expect_list(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		const struct node *item = &v->items[i];
		struct interface_spec in = { .src = item->src };

		if (item->kind == NODE_SCALAR)
			read_text(r, &interface_keys[0], item, &in.name);
		else
			read_mapping(r, &interface_table, item, &in);
		if (in.name)
			*ARENA_PUSH(r->arena, n->interfaces,
				    n->interface_count) = in;
	}
}

static void read_prefixes(struct reader *r, const struct key *k,
			  const struct node *v, void *field)
{
	struct node_spec *n = field;

	if (!expect_list(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		const char *s = expect_text(r, k->name, &v->items[i]);
		struct prefix p;

		if (s && value_prefix(s, &p))
			*ARENA_PUSH(r->arena, n->direct_clients,
				    n->direct_client_count) = p;
		else if (s)
			complain(r->diags, &v->items[i].src,
				 "such as 10.77.0.0/24 or \"fd00:77::/64\"",
				 "\"%.64s\" is not a network prefix", s);
	}
}

static const struct key node_keys[] = {
	KEY("interfaces", read_interfaces, 0, .list = true, .form = FORM_TEXT,
	    .max = 15, .inner = &interface_table,
	    .help = "Where the clients' packets arrive"),
	KEY("announce", read_choice, offsetof(struct node_spec, announce),
	    .choices = announce_names,
	    .help = "address: VIPs are put on the first interface; none: somebody else sees to that",
	    .fallback = "address"),
	KEY("vms", read_word, 0, .choices = vms_names,
	    .help = "manage: VMs of pools are created and removed",
	    .fallback = "manage"),
	KEY("direct_clients", read_prefixes, 0, .list = true,
	    .form = FORM_PREFIX,
	    .help = "Networks that may reach nat backends directly, and so not over their VIPs"),
	KEY("seed_file", read_path, offsetof(struct node_spec, seed_file),
	    .help = "Secret shared by balancers that must choose alike; one of its own where it is left out"),
	KEY_LATER("listen", NULL),
	KEY("resync", read_duration, offsetof(struct node_spec, resync),
	    .min = NS_SECOND, .max = NS_HOUR,
	    .help = "How often everything is read again, events or not",
	    .fallback = "10s"),
};
KEY_TABLE(node_table, "node", node_keys);

/* safety, history */

static const struct key deletes_keys[] = {
	KEY("count", read_count, offsetof(struct vm_deletes_spec, count),
	    .required = true, .max = SPEC_MAX_BACKENDS, .help = "So many VMs"),
	KEY("per", read_duration, offsetof(struct vm_deletes_spec, per),
	    .required = true, .min = NS_SECOND, .max = 30 * NS_DAY,
	    .help = "In any stretch of time of this length"),
};
KEY_TABLE(deletes_table, "max_vm_deletes", deletes_keys);

static const struct key safety_keys[] = {
	KEY("max_vm_deletes", read_table,
	    offsetof(struct safety_spec, max_vm_deletes),
	    .inner = &deletes_table,
	    .help = "VMs that an edit or drift may have deleted; the others "
		    "stay until their time has come, or until it is approved",
	    .fallback = "{count: 2, per: 10m}"),
	KEY("max_service_removals", read_percent,
	    offsetof(struct safety_spec, max_service_removals), .max = 100,
	    .help = "Share of the services that run which one edit may remove; "
		    "a single one always may, unless it is 0%",
	    .fallback = "25%"),
	KEY("allow_empty", read_bool, offsetof(struct safety_spec, allow_empty),
	    .help = "A file without services may remove them all",
	    .fallback = "false"),
};
KEY_TABLE(safety_table, "safety", safety_keys);

static const struct key history_keys[] = {
	KEY("retention", read_duration,
	    offsetof(struct spec, history_retention), .min = NS_HOUR,
	    .max = 3650 * NS_DAY, .help = "What history.db keeps",
	    .fallback = "30d"),
};
KEY_TABLE(history_table, "history", history_keys);

static void read_node(struct reader *r, const struct key *k,
		      const struct node *v, void *field)
{
	struct spec *s = field;

	(void)k;
	r->blocks[BLOCK_NODE] = v->src;
	s->node.src = v->src;
	read_mapping(r, &node_table, v, &s->node);
}

static void read_safety(struct reader *r, const struct key *k,
			const struct node *v, void *field)
{
	struct spec *s = field;

	(void)k;
	r->blocks[BLOCK_SAFETY] = v->src;
	read_mapping(r, &safety_table, v, &s->safety);
}

static void read_history(struct reader *r, const struct key *k,
			 const struct node *v, void *field)
{
	(void)k;
	r->blocks[BLOCK_HISTORY] = v->src;
	read_mapping(r, &history_table, v, field);
}

/* hypervisors */

static const struct key hypervisor_keys[] = {
	KEY("name", read_name, offsetof(struct hypervisor_spec, name),
	    .required = true, .help = "What pools call it"),
	KEY("uri", read_text, offsetof(struct hypervisor_spec, uri),
	    .required = true,
	    .help = "Of libvirt, such as qemu:///system or lxc:///system"),
	KEY_LATER("memory", "remove the key; max_vms limits the number of VMs"),
	KEY_LATER("vcpus", "remove the key; max_vms limits the number of VMs"),
	KEY("max_vms", read_count, offsetof(struct hypervisor_spec, max_vms),
	    .min = 1, .max = SPEC_MAX_BACKENDS,
	    .help = "Never more VMs of ours than this; no limit where it is left out"),
	KEY_LATER("lost_after", NULL),
};
KEY_TABLE(hypervisor_table, "a hypervisor", hypervisor_keys);

static void read_hypervisors(struct reader *r, const struct key *k,
			     const struct node *v, void *field)
{
	struct spec *s = field;

	if (!expect_list(r, k->name, v))
		return;
	r->blocks[BLOCK_HYPERVISORS] = v->src;
	for (size_t i = 0; i < v->count; i++) {
		struct hypervisor_spec h = { .src = v->items[i].src };

		read_mapping(r, &hypervisor_table, &v->items[i], &h);
		if (h.name)
			*ARENA_PUSH(r->arena, s->hypervisors,
				    s->hypervisor_count) = h;
	}
}

/* the file */

static const struct key top_keys[] = {
	KEY("version", read_version, 0, .required = true, .form = FORM_VERSION,
	    .help = "Of the file format"),
	KEY("node", read_node, 0, .inner = &node_table, .help = "This machine"),
	KEY("hypervisors", read_hypervisors, 0, .list = true,
	    .most = SPEC_MAX_HYPERVISORS, .inner = &hypervisor_table,
	    .help = "Where VMs run: libvirt connections"),
	KEY("safety", read_safety, 0, .inner = &safety_table,
	    .help = "What an edit may not do by mistake"),
	KEY("history", read_history, 0, .inner = &history_table,
	    .help = "What is remembered, and how long"),
	KEY("templates", read_templates, 0, .list = true,
	    .inner = &template_table,
	    .help = "What the VMs of pools are made of"),
	KEY("services", read_services, 0, .list = true, .inner = &service_table,
	    .help = "What is balanced; [] for nothing at all"),
};
KEY_TABLE_SHARED(top_table, "the file", top_keys);

static const char *folder_of(struct arena *arena, const struct spec_text *t)
{
	const char *slash = strrchr(t->path, '/');

	if (t->dir)
		return arena_dup(arena, t->dir);
	if (!slash)
		return ".";
	if (slash == t->path)
		return "/";
	return arena_printf(arena, "%.*s", (int)(slash - t->path), t->path);
}

void safety_defaults(struct safety_spec *ret)
{
	*ret = (struct safety_spec){
		.max_vm_deletes = { .count = 2, .per = 10 * NS_MINUTE },
		.max_service_removals = 25,
	};
}

static struct piece *new_piece(void)
{
	struct arena *arena = arena_new();
	struct piece *p = arena_alloc(arena, sizeof(*p));

	p->users = 1;
	p->arena = arena;
	p->spec = arena_alloc(arena, sizeof(*p->spec));
	p->spec->node.resync = 10 * NS_SECOND;
	safety_defaults(&p->spec->safety);
	p->spec->history_retention = 30 * NS_DAY;
	return p;
}

struct piece *piece_use(struct piece *p)
{
	p->users++;
	return p;
}

void piece_free(struct piece *p)
{
	if (p && !--p->users)
		arena_free(p->arena);
}

static struct reader reader_of(struct piece *p, const struct spec_text *t,
			       struct diag_list *diags)
{
	return (struct reader){ .arena = p->arena,
				.spec = p->spec,
				.diags = diags,
				.dir = folder_of(p->arena, t) };
}

struct piece *piece_parse(const struct spec_text *text, struct arena *trees,
			  const struct node **layout, struct diag_list *diags)
{
	struct piece *p = new_piece();
	struct reader r = reader_of(p, text, diags);
	const char *file = arena_dup(p->arena, text->path);
	const struct node *root = node_parse(trees, file, text, diags);
	const struct node *services;

	*layout = NULL;
	if (root) {
		services = node_get(root, "services");
		if (services && services == &root->items[root->count - 1])
			*layout = services;
		p->readable = true;
		p->has_services = root->kind != NODE_MAPPING || services;
		read_mapping(&r, &top_table, root, p->spec);
	}
	memcpy(p->blocks, r.blocks, sizeof(p->blocks));
	p->refs = r.refs;
	return p;
}

struct piece *piece_parse_services(const struct spec_text *text, int line,
				   int column, struct arena *trees,
				   const struct node **layout,
				   struct diag_list *diags)
{
	struct piece *p = new_piece();
	struct reader r = reader_of(p, text, diags);
	const char *file = arena_dup(p->arena, text->path);
	struct node *root = node_parse_at(trees, file, text, line, diags);

	if (!root || root->kind != NODE_SEQUENCE || !root->block ||
	    root->src.column != column) {
		piece_free(p);
		return NULL;
	}
	*layout = root;
	read_services(&r, table_key(&top_table, "services"), root, p->spec);
	p->refs = r.refs;
	return p;
}

/* A hash of one file is that of its bytes; of more, of their names, too. */
void texts_sha256(const struct spec_text *texts, size_t count, char ret[65])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	for (size_t i = 0; i < count; i++) {
		const char *slash = strrchr(texts[i].path, '/');
		const char *name = slash ? slash + 1 : texts[i].path;
		uint64_t len = texts[i].len;

		if (count > 1) {
			sha256_update(&ctx, strlen(name) + 1,
				      (const uint8_t *)name);
			sha256_update(&ctx, sizeof(len), (const uint8_t *)&len);
		}
		sha256_update(&ctx, texts[i].len,
			      (const uint8_t *)texts[i].data);
	}
	sha256_digest(&ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(ret + i * 2, 3, "%02x", digest[i]);
}
