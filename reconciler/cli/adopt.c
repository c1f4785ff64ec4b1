/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * adopt: domains that somebody else made, which could serve in a pool, are
 * listed; those that are named, or with --yes all, get our metadata and are
 * the pool's from then on.  --release takes it off again.  Done here and not
 * by the daemon, which is only asked to read its domains again.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "actual/adoption.h"
#include "cli/standalone.h"
#include "pipeline.h"
#include "plan/adopt.h"

/* A domain, and the pool that it fits. */
struct candidate {
	const struct foreign *f;
	const struct hypervisor_spec *hypervisor;
	struct adoption *a;
	struct ip addresses[2];
	const struct service_spec *service; /* NULL: it fits none */
	uint32_t index;
	bool several; /* pools, of which this is the first */
	bool asked; /* by name */
	char why[ADOPT_WHY];
};

struct place_list {
	const struct hypervisor_spec *hypervisor;
	struct adoption *a;
	struct foreign *list;
	size_t count;
};

struct adopting {
	const struct options *opt;
	struct spec *spec;
	char owner[17];
	struct place_list *places;
	size_t place_count;
	struct candidate *items;
	size_t count;
	struct ip given[2]; /* --address */
};

/* ---- what there is ---- */

static int open_places(struct adopting *d)
{
	char why[512];

	for (size_t i = 0; i < d->spec->hypervisor_count; i++) {
		struct place_list *p = MEM_PUSH(d->places, d->place_count);
		int err;

		p->hypervisor = &d->spec->hypervisors[i];
		err = adoption_open(p->hypervisor->uri, &p->a, why);
		if (!err)
			err = adoption_list(p->a, d->owner, &p->list, &p->count,
					    why);
		if (err) {
			fprintf(stderr, "error: hypervisor %s: %s\n",
				p->hypervisor->name, why);
			return EXIT_FAILED;
		}
	}
	return EXIT_DONE;
}

static bool is_asked(const struct options *opt, const char *name)
{
	for (size_t i = 0; i < opt->arg_count; i++)
		if (!strcmp(opt->args[i], name))
			return true;
	return false;
}

/* Another domain, or a fixed backend, has the address. */
static bool address_taken(const struct adopting *d, const struct candidate *c,
			  const struct ip *a)
{
	for (size_t i = 0; i < d->place_count; i++)
		for (size_t k = 0; k < d->places[i].count; k++) {
			const struct foreign *f = &d->places[i].list[k];

			if (f != c->f && (ip_equal(&f->addresses[0], a) ||
					  ip_equal(&f->addresses[1], a)))
				return true;
		}
	for (size_t i = 0; i < d->spec->service_count; i++) {
		const struct service_spec *s = &d->spec->services[i];

		for (size_t k = 0; k < s->backend_count; k++)
			if (ip_equal(&s->backends[k].addresses[0], a) ||
			    ip_equal(&s->backends[k].addresses[1], a))
				return true;
	}
	return false;
}

static bool check_addresses(const struct adopting *d, struct candidate *c)
{
	char text[IP_STRLEN];

	for (int i = 0; i < 2; i++) {
		if (!c->addresses[i].family ||
		    !address_taken(d, c, &c->addresses[i]))
			continue;
		snprintf(c->why, sizeof(c->why),
			 "its address %s is another's as well",
			 ip_format(&c->addresses[i], text));
		return false;
	}
	return true;
}

/* How many the pool has, those that are going to be adopted included. */
static uint32_t pool_count(const struct adopting *d,
			   const struct service_spec *s)
{
	uint32_t n = 0;

	for (size_t i = 0; i < d->place_count; i++)
		for (size_t k = 0; k < d->places[i].count; k++)
			n += d->places[i].list[k].ours &&
			     !strcmp(d->places[i].list[k].service, s->name);
	for (size_t i = 0; i < d->count; i++)
		n += d->items[i].service == s && d->items[i].index;
	return n;
}

/* Neither a VM's, nor in the name of a domain or a fixed backend. */
static bool index_taken(const struct adopting *d, const struct service_spec *s,
			const struct candidate *c, uint32_t index)
{
	AUTO_FREE char *name = mem_printf("%s-%u", s->name, index);

	for (size_t i = 0; i < d->place_count; i++)
		for (size_t k = 0; k < d->places[i].count; k++) {
			const struct foreign *f = &d->places[i].list[k];

			if (f != c->f && !strcmp(f->name, name))
				return true;
			if (f->ours && f->index == index &&
			    !strcmp(f->service, s->name))
				return true;
		}
	for (size_t i = 0; i < s->backend_count; i++)
		if (!strcmp(s->backends[i].name, name))
			return true;
	for (size_t i = 0; i < d->count; i++)
		if (d->items[i].service == s && d->items[i].index == index)
			return true;
	return false;
}

static void find_pool(const struct adopting *d, struct candidate *c)
{
	const struct options *opt = d->opt;

	for (size_t i = 0; i < d->spec->service_count; i++) {
		const struct service_spec *s = &d->spec->services[i];

		if (!s->pool.template || s->pool.hypervisor != c->hypervisor ||
		    (opt->service && strcmp(opt->service, s->name) != 0) ||
		    !adopt_fits(c->f, c->addresses, s, c->why))
			continue;
		c->several = c->service != NULL;
		if (!c->service)
			c->service = s;
	}
	if (c->service)
		c->why[0] = '\0';
	else if (!c->why[0])
		snprintf(c->why, sizeof(c->why),
			 "no pool is declared on its hypervisor");
}

static void add_candidate(struct adopting *d, const struct place_list *p,
			  const struct foreign *f)
{
	struct candidate c = { .f = f,
			       .hypervisor = p->hypervisor,
			       .a = p->a,
			       .asked = is_asked(d->opt, f->name) };

	memcpy(c.addresses, f->addresses, sizeof(c.addresses));
	for (int i = 0; c.asked && i < 2; i++)
		if (d->given[i].family)
			c.addresses[i] = d->given[i];
	find_pool(d, &c);
	if (c.service && !check_addresses(d, &c))
		c.service = NULL;
	*MEM_PUSH(d->items, d->count) = c;
}

static void find_candidates(struct adopting *d)
{
	for (size_t i = 0; i < d->place_count; i++)
		for (size_t k = 0; k < d->places[i].count; k++)
			if (!d->places[i].list[k].ours)
				add_candidate(d, &d->places[i],
					      &d->places[i].list[k]);
}

/* Is it to be taken?  Another xlb's only if it is named, and --yes. */
static bool is_meant(const struct adopting *d, const struct candidate *c)
{
	if (c->f->owner[0])
		return c->asked && d->opt->yes;
	return c->asked || (!d->opt->arg_count && d->opt->yes);
}

static void give_index(struct adopting *d, struct candidate *c)
{
	uint32_t index = 1;

	if (pool_count(d, c->service) >= c->service->pool.max) {
		snprintf(c->why, sizeof(c->why),
			 "the pool of %s has its max of %u already",
			 c->service->name, c->service->pool.max);
		c->service = NULL;
		return;
	}
	while (index_taken(d, c->service, c, index))
		index++;
	c->index = index;
}

/* Those that are named first: there may not be room for all. */
static void give_indexes(struct adopting *d)
{
	for (int asked = 1; asked >= 0; asked--)
		for (size_t i = 0; i < d->count; i++)
			if (d->items[i].service && d->items[i].asked == asked)
				give_index(d, &d->items[i]);
}

/* ---- the list ---- */

static const char *address_text(const struct candidate *c, int i,
				char text[IP_STRLEN])
{
	return c->addresses[i].family ? ip_format(&c->addresses[i], text) : "";
}

static json_t *candidate_json(const struct candidate *c)
{
	char text[2][IP_STRLEN];

	return json_pack(
		"{s:s, s:s, s:s, s:b, s:s, s:i, s:[s, s], s:s, s:s}", "domain",
		c->f->name, "hypervisor", c->hypervisor->name, "state",
		c->f->running ? "running" : "off", "fits", c->service != NULL,
		"service", c->service ? c->service->name : "", "index",
		(int)c->index, "addresses", address_text(c, 0, text[0]),
		address_text(c, 1, text[1]), "owner", c->f->owner, "why",
		c->why);
}

static void print_candidate(const struct candidate *c)
{
	char text[2][IP_STRLEN];

	printf("%s on %s, %s: ", c->f->name, c->hypervisor->name,
	       c->f->running ? "running" : "off");
	if (!c->service) {
		printf("fits no pool: %s\n", c->why);
		return;
	}
	printf("fits %s, as %u, at %s %s\n", c->service->name, c->index,
	       address_text(c, 0, text[0]), address_text(c, 1, text[1]));
	if (c->several)
		puts("    and others: say which by --service");
	if (c->f->owner[0])
		printf("    it is of another xlb (%s): only if named, and "
		       "with --yes\n",
		       c->f->owner);
}

static int list_all(const struct adopting *d)
{
	json_t *list = json_array();
	char *text;

	for (size_t i = 0; i < d->count; i++) {
		if (d->opt->json)
			json_array_append_new(list,
					      candidate_json(&d->items[i]));
		else
			print_candidate(&d->items[i]);
	}
	if (d->opt->json) {
		text = json_dumps(list, JSON_INDENT(2));
		puts(text ? text : "[]");
		free(text);
	} else if (!d->count) {
		puts("There is no domain but this installation's.");
	}
	json_decref(list);
	return EXIT_DONE;
}

/* ---- taking and letting go ---- */

static int refuse(const char *domain, const char *why)
{
	fprintf(stderr, "error: %s: %s\n", domain, why);
	return EXIT_FAILED;
}

/* All that were named can be taken; else none is. */
static int check_asked(const struct adopting *d)
{
	for (size_t i = 0; i < d->opt->arg_count; i++) {
		const struct candidate *found = NULL;

		for (size_t k = 0; k < d->count; k++)
			if (!strcmp(d->items[k].f->name, d->opt->args[i]))
				found = &d->items[k];
		if (!found)
			return refuse(d->opt->args[i],
				      "there is no such domain that isn't "
				      "this installation's already");
		if (!found->service)
			return refuse(d->opt->args[i], found->why);
		if (found->several && !d->opt->service)
			return refuse(d->opt->args[i],
				      "it fits several pools: say which by "
				      "--service");
		if (found->f->owner[0] && !d->opt->yes)
			return refuse(d->opt->args[i],
				      "it is of another xlb: give --yes if "
				      "that is gone");
	}
	return EXIT_DONE;
}

static int take(const struct adopting *d, const struct candidate *c)
{
	struct vm_order o = { .template = c->service->pool.template,
			      .service = c->service->name,
			      .index = c->index };
	char name[64], why[512];

	memcpy(o.addresses, c->addresses, sizeof(o.addresses));
	if (d->opt->dry_run) {
		printf("would take %s over for %s, as %u\n", c->f->name,
		       c->service->name, c->index);
		return EXIT_DONE;
	}
	if (adoption_take(c->a, c->f->name, &o, d->owner, name, why))
		return refuse(c->f->name, why);
	printf("%s is one of %s now, as %u%s%s\n", c->f->name, c->service->name,
	       c->index, strcmp(name, c->f->name) ? ", and called " : "",
	       strcmp(name, c->f->name) ? name : "");
	return EXIT_DONE;
}

static int take_meant(const struct adopting *d)
{
	int code = check_asked(d);

	for (size_t i = 0; i < d->count && !code; i++)
		if (d->items[i].service && is_meant(d, &d->items[i]) &&
		    (!d->items[i].several || d->opt->service))
			code = take(d, &d->items[i]);
	return code;
}

static int release_one(const struct adopting *d, const char *domain)
{
	char why[512] = "";

	for (size_t i = 0; i < d->place_count; i++) {
		const struct place_list *p = &d->places[i];

		for (size_t k = 0; k < p->count; k++) {
			const struct foreign *f = &p->list[k];

			if (!f->ours || strcmp(f->name, domain) != 0)
				continue;
			if (!d->opt->dry_run &&
			    adoption_release(p->a, domain, d->owner, why))
				return refuse(domain,
					      *why ? why
						   : "it was not adopted");
			printf("%s %s, and goes on as it is\n", domain,
			       d->opt->dry_run ? "would be let go"
					       : "is let go");
			return EXIT_DONE;
		}
	}
	return refuse(domain, "there is no such domain of this installation");
}

static int release_named(const struct adopting *d)
{
	int code = EXIT_DONE;

	for (size_t i = 0; i < d->opt->arg_count && !code; i++)
		code = release_one(d, d->opt->args[i]);
	return code;
}

/* A daemon counts what is there now; without one the next will. */
static void tell_daemon(const struct options *opt)
{
	struct options refresh = { .verb = "refresh",
				   .state_dir = opt->state_dir };
	struct buf out AUTO_BUF = BUF_INIT;
	int code = control_ask(&refresh, &out);

	if (code && code != -ENOENT)
		fputs("warning: the daemon was not told: xlb-reconcile "
		      "refresh\n",
		      stderr);
}

/* ---- the verb ---- */

static bool parse_addresses(struct adopting *d)
{
	const struct options *opt = d->opt;

	for (size_t i = 0; i < opt->address_count; i++) {
		struct ip a;

		if (!ip_parse(opt->addresses[i], &a)) {
			fprintf(stderr, "error: --address %s is no address\n",
				opt->addresses[i]);
			return false;
		}
		d->given[a.family == AF_INET6] = a;
	}
	if (!opt->address_count || opt->arg_count == 1)
		return true;
	fputs("error: --address goes with one DOMAIN\n", stderr);
	return false;
}

static int work(struct adopting *d)
{
	const struct options *opt = d->opt;
	bool changes = opt->arg_count || opt->yes;
	int code = open_places(d);

	if (code)
		return code;
	if (opt->release) {
		code = release_named(d);
	} else {
		find_candidates(d);
		give_indexes(d);
		code = changes ? take_meant(d) : list_all(d);
	}
	if (!code && changes && !opt->dry_run)
		tell_daemon(opt);
	return code;
}

static void close_all(struct adopting *d)
{
	for (size_t i = 0; i < d->place_count; i++) {
		foreign_free(d->places[i].list, d->places[i].count);
		adoption_close(d->places[i].a);
	}
	free(d->places);
	free(d->items);
	spec_free(d->spec);
}

int cmd_adopt(const struct options *opt)
{
	struct adopting d = { .opt = opt };
	struct diag_list diags = { 0 };
	struct buf text AUTO_BUF = BUF_INIT;
	char sha256[65], run_id[17];
	int code = EXIT_USAGE;
	uint64_t seed;

	if (opt->release && !opt->arg_count) {
		fputs("error: --release takes the names of domains\n", stderr);
		return EXIT_USAGE;
	}
	identity_read(opt->state_dir, true, d.owner, &seed, run_id);
	if (parse_addresses(&d)) {
		d.spec = spec_read(opt->file, NULL, &diags, sha256);
		diag_list_print(&diags, &text);
		fputs(buf_str(&text), stderr);
		code = EXIT_INVALID;
	}
	if (d.spec) {
		apply_flags(d.spec, opt);
		code = work(&d);
	}
	diag_list_release(&diags);
	close_all(&d);
	return code;
}
