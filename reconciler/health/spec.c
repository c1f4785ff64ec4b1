/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The desired state that a probe comes from is replaced while it is under way,
 * so targets have a copy of theirs; those of one service share it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "health/probe.h"

/* Copies into one block; with `at` NULL only its size is found. */
struct packer {
	char *at;
	size_t used;
};

static void *pack(struct packer *p, const void *data, size_t len)
{
	char *to = p->at ? p->at + p->used : NULL;

	if (to && len)
		memcpy(to, data, len);
	p->used += (len + 15) & ~(size_t)15;
	return to;
}

static const char *pack_text(struct packer *p, const char *s)
{
	return s ? pack(p, s, strlen(s) + 1) : NULL;
}

static struct bytes pack_bytes(struct packer *p, const struct bytes *b)
{
	return (struct bytes){ pack(p, b->data, b->len), b->len };
}

static void pack_spec(struct packer *p, const struct health_spec *from,
		      struct health_spec *to)
{
	*to = *from;
	to->src = (struct source){ 0 };
	to->path = pack_text(p, from->path);
	to->host = pack_text(p, from->host);
	to->ca_file = pack_text(p, from->ca_file);
	to->name = pack_text(p, from->name);
	to->expect = pack(p, from->expect,
			  from->expect_count * sizeof(*from->expect));
	to->answers = pack(p, from->answers,
			   from->answer_count * sizeof(*from->answers));
	to->send = pack_bytes(p, &from->send);
	to->wanted = pack(p, from->wanted,
			  from->wanted_count * sizeof(*from->wanted));
	for (size_t i = 0; i < from->wanted_count; i++) {
		struct bytes b = pack_bytes(p, &from->wanted[i]);

		if (to->wanted)
			to->wanted[i] = b;
	}
	/* NULL behind them: it is an argv. */
	to->command = pack(p, from->command,
			   from->command_count * sizeof(*from->command));
	p->used += 16;
	for (size_t i = 0; i < from->command_count; i++) {
		const char *s = pack_text(p, from->command[i]);

		if (to->command)
			to->command[i] = s;
	}
}

struct shared_spec *shared_spec_new(const struct health_spec *from)
{
	size_t head = (sizeof(struct shared_spec) + 15) & ~(size_t)15;
	struct packer p = { 0 };
	struct health_spec size;
	struct shared_spec *s;

	pack_spec(&p, from, &size);
	s = mem_alloc(head + p.used);
	p = (struct packer){ .at = (char *)s + head };
	pack_spec(&p, from, &s->spec);
	s->users = 1;
	return s;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool same_array(const void *a, size_t na, const void *b, size_t nb,
		       size_t size)
{
	return na == nb && (!na || !memcmp(a, b, na * size));
}

static bool same_bytes(const struct bytes *a, const struct bytes *b)
{
	return same_array(a->data, a->len, b->data, b->len, 1);
}

static bool same_wanted(const struct health_spec *a,
			const struct health_spec *b)
{
	if (a->wanted_count != b->wanted_count)
		return false;
	for (size_t i = 0; i < a->wanted_count; i++)
		if (!same_bytes(&a->wanted[i], &b->wanted[i]))
			return false;
	return true;
}

static bool same_command(const struct health_spec *a,
			 const struct health_spec *b)
{
	if (a->command_count != b->command_count)
		return false;
	for (size_t i = 0; i < a->command_count; i++)
		if (!same_text(a->command[i], b->command[i]))
			return false;
	return true;
}

static bool same_numbers(const struct health_spec *a,
			 const struct health_spec *b)
{
	return a->type == b->type && a->port == b->port &&
	       a->interval == b->interval && a->timeout == b->timeout &&
	       a->rise == b->rise && a->fall == b->fall &&
	       a->verify == b->verify && a->record == b->record &&
	       a->rcodes == b->rcodes && a->panic == b->panic;
}

bool shared_spec_is(const struct shared_spec *s, const struct health_spec *b)
{
	const struct health_spec *a = &s->spec;

	return same_numbers(a, b) && same_text(a->path, b->path) &&
	       same_text(a->host, b->host) &&
	       same_text(a->ca_file, b->ca_file) &&
	       same_text(a->name, b->name) &&
	       same_array(a->expect, a->expect_count, b->expect,
			  b->expect_count, sizeof(*a->expect)) &&
	       same_array(a->answers, a->answer_count, b->answers,
			  b->answer_count, sizeof(*a->answers)) &&
	       same_bytes(&a->send, &b->send) && same_wanted(a, b) &&
	       same_command(a, b);
}
