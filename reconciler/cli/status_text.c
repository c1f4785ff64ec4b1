/* SPDX-License-Identifier: GPL-2.0-or-later */
/* status for people, from the values that --json prints. */
#include "cli/status.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define COLUMNS_MAX 8

/* Cells are collected, so that each column is as wide as it has to be. */
struct table {
	int columns;
	unsigned int right; /* a bit for each column of figures */
	char **cells;
	size_t count;
};

static void cell(struct table *t, const char *text)
{
	*MEM_PUSH(t->cells, t->count) = mem_dup(text);
}

static void cell_number(struct table *t, json_int_t n)
{
	*MEM_PUSH(t->cells, t->count) = mem_printf("%lld", (long long)n);
}

static void table_widths(const struct table *t, int widths[COLUMNS_MAX])
{
	for (size_t i = 0; i < t->count; i++) {
		int *w = &widths[i % (size_t)t->columns];
		int len = (int)strlen(t->cells[i]);

		*w = len > *w ? len : *w;
	}
}

static void trim(struct buf *out)
{
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

static void table_clear(struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
	t->cells = NULL;
	t->count = 0;
}

/* Prints it and empties it. */
static void table_print(struct table *t, struct buf *out)
{
	int widths[COLUMNS_MAX] = { 0 };

	table_widths(t, widths);
	for (size_t i = 0; i < t->count; i++) {
		int column = (int)(i % (size_t)t->columns);
		int width = widths[column];

		buf_addf(out, t->right & 1u << column ? "%*s" : "%-*s", width,
			 t->cells[i]);
		if (column < t->columns - 1) {
			buf_adds(out, "  ");
			continue;
		}
		trim(out);
		buf_adds(out, "\n");
	}
	table_clear(t);
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static json_int_t int_of(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static bool is_true(const json_t *j, const char *key)
{
	return json_is_true(json_object_get(j, key));
}

/* ---- the machine ---- */

static void print_indented(const char *text, struct buf *out)
{
	for (const char *at = text; *at;) {
		size_t len = strcspn(at, "\n");

		buf_adds(out, "              ");
		buf_add(out, at, len);
		buf_adds(out, "\n");
		at += len + (at[len] == '\n');
	}
}

static void print_file(const json_t *j, struct buf *out)
{
	const json_t *file = json_object_get(j, "file");
	json_t *errors = json_object_get(file, "errors"), *e;
	const char *state = text_of(file, "state");
	size_t i;

	buf_addf(out, "file          %s: %s", text_of(file, "path"), state);
	if (int_of(j, "revision"))
		buf_addf(out,
			 strcmp(state, "applied") ? "; revision %lld runs"
						  : ", revision %lld",
			 (long long)int_of(j, "revision"));
	buf_adds(out, "\n");
	json_array_foreach(errors, i, e)
	{
		print_indented(json_string_value(e), out);
	}
}

static void print_interfaces(const json_t *j, struct buf *out)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(j, "interfaces"), i, item)
	{
		buf_addf(out, "%-13s %s: %s %s, replies %s\n",
			 i ? "" : "interfaces", text_of(item, "name"),
			 text_of(item, "hook"), text_of(item, "state"),
			 text_of(item, "replies"));
	}
	json_array_foreach(json_object_get(j, "hypervisors"), i, item)
	{
		buf_addf(out, "%-13s %s: %s %s\n", i ? "" : "hypervisors",
			 text_of(item, "name"), text_of(item, "uri"),
			 is_true(item, "connected") ? "connected"
						    : "does not answer");
	}
}

static void print_events(const json_t *j, struct buf *out)
{
	const json_t *events = json_object_get(j, "events");

	if (int_of(events, "no_room"))
		buf_addf(out,
			 "unremembered  %lld flows found no room in the table "
			 "of memories\n",
			 (long long)int_of(events, "no_room"));
	if (int_of(events, "rate"))
		buf_addf(out,
			 "rate          %lld SYNs were sent on unremembered, "
			 "past the rate\n",
			 (long long)int_of(events, "rate"));
}

static void print_node(const json_t *j, struct buf *out)
{
	const char *failing = text_of(j, "failing");

	buf_addf(out, "daemon        %s%s\n",
		 is_true(j, "running") ? "running" : "not running",
		 !is_true(j, "running")	   ? ""
		 : is_true(j, "converged") ? ", converged"
					   : ", not converged");
	print_file(j, out);
	if (failing[0]) {
		buf_adds(out, "failing\n");
		print_indented(failing, out);
	}
	print_interfaces(j, out);
	print_events(j, out);
}

static void print_held(const json_t *j, struct buf *out)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(j, "held"), i, item)
	{
		const char *until = text_of(item, "until");

		buf_addf(out, "%-13s %s: %s: %s%s%s\n", i ? "" : "held back",
			 text_of(item, "object"), text_of(item, "guard"),
			 text_of(item, "why"), until[0] ? "; until " : "",
			 until);
	}
}

static void print_notes(const json_t *j, struct buf *out)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(j, "notes"), i, item)
	{
		buf_addf(out, "%-13s %s\n", i ? "" : "notes",
			 json_string_value(item));
	}
}

/* ---- services ---- */

/* "2048", or "2048, 310 moving": those that still remember flows. */
static void add_slots(const json_t *slots, struct buf *out)
{
	json_int_t moving = int_of(slots, "moving") + int_of(slots, "held");

	if (!slots) {
		buf_adds(out, "-");
		return;
	}
	buf_addf(out, "%lld", (long long)int_of(slots, "count"));
	if (moving)
		buf_addf(out, ", %lld moving", (long long)moving);
	if (is_true(slots, "tracks"))
		buf_adds(out, ", all tracked");
	else if (int_of(slots, "settled"))
		buf_addf(out, ", %lld settled",
			 (long long)int_of(slots, "settled"));
}

static void add_service(struct table *t, const json_t *s)
{
	const json_t *pool = json_object_get(s, "pool");
	json_t *vips = json_object_get(s, "vips"), *v;
	AUTO_BUF struct buf text = BUF_INIT;
	size_t i;

	cell(t, text_of(s, "name"));
	buf_addf(&text, "%s%s", text_of(s, "state"),
		 is_true(s, "paused") ? ", paused" : "");
	cell(t, buf_str(&text));
	buf_reset(&text);
	buf_addf(&text, "%lld of %lld up", (long long)int_of(s, "up"),
		 (long long)int_of(s, "active"));
	cell(t, buf_str(&text));
	buf_reset(&text);
	if (pool && is_true(pool, "known"))
		buf_addf(&text, "%lld of %lld ready, ",
			 (long long)int_of(pool, "ready"),
			 (long long)int_of(pool, "wanted"));
	else if (pool)
		buf_adds(&text, "not known, ");
	if (pool)
		buf_addf(&text, "%lld to %lld", (long long)int_of(pool, "min"),
			 (long long)int_of(pool, "max"));
	cell(t, pool ? buf_str(&text) : "-");
	buf_reset(&text);
	buf_addf(&text, "%s %s", text_of(s, "algorithm"),
		 text_of(s, "forwarding"));
	cell(t, buf_str(&text));
	buf_reset(&text);
	add_slots(json_object_get(s, "slots"), &text);
	cell(t, buf_str(&text));
	buf_reset(&text);
	json_array_foreach(vips, i, v)
	{
		if (i < 3)
			buf_addf(&text, "%s%s", i ? " " : "",
				 json_string_value(v));
	}
	if (i > 3)
		buf_addf(&text, " and %zu more", i - 3);
	cell(t, buf_str(&text));
}

static void print_services(const json_t *j, struct buf *out)
{
	static const char *const heads[] = { "SERVICE", "STATE",  "BACKENDS",
					     "VMS",	"METHOD", "SLOTS",
					     "VIPS" };
	struct table t = { .columns = ARRAY_SIZE(heads) };
	json_t *list = json_object_get(j, "services"), *s;
	size_t i;

	if (!json_array_size(list)) {
		buf_adds(out, "\nno services\n");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		cell(&t, heads[i]);
	json_array_foreach(list, i, s)
	{
		add_service(&t, s);
	}
	buf_adds(out, "\n");
	table_print(&t, out);
}

static void add_backends(struct table *t, const json_t *service)
{
	json_t *b;
	size_t i;

	json_array_foreach(json_object_get(service, "backends"), i, b)
	{
		AUTO_FREE char *name = mem_printf(
			"%s/%s", text_of(service, "name"), text_of(b, "name"));

		cell(t, name);
		cell(t, text_of(b, "address"));
		cell(t, text_of(b, "state"));
		cell_number(t, int_of(b, "weight"));
		cell_number(t, int_of(b, "packets"));
		cell_number(t, int_of(b, "flows"));
		cell(t, text_of(b, json_object_get(b, "note") ? "note"
							      : "reason"));
	}
}

static void print_backends(const json_t *j, struct buf *out)
{
	static const char *const heads[] = { "BACKEND", "ADDRESS", "STATE",
					     "WEIGHT",	"PACKETS", "FLOWS",
					     "" };
	struct table t = { .columns = ARRAY_SIZE(heads),
			   .right = 1u << 3 | 1u << 4 | 1u << 5 };
	json_t *s;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(heads); i++)
		cell(&t, heads[i]);
	json_array_foreach(json_object_get(j, "services"), i, s)
	{
		add_backends(&t, s);
	}
	if (t.count > ARRAY_SIZE(heads))
		buf_adds(out, "\n");
	else
		table_clear(&t); /* heads alone say nothing */
	table_print(&t, out);
}

static void print_vms(const json_t *j, struct buf *out)
{
	static const char *const heads[] = { "VM", "PHASE", "ADDRESS",
					     "HYPERVISOR", "" };
	struct table t = { .columns = ARRAY_SIZE(heads) };
	json_t *list = json_object_get(j, "vms"), *v;
	size_t i;

	if (!json_array_size(list))
		return;
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		cell(&t, heads[i]);
	json_array_foreach(list, i, v)
	{
		cell(&t, text_of(v, "name"));
		cell(&t, text_of(v, "phase"));
		cell(&t, text_of(v, "address"));
		cell(&t, text_of(v, "hypervisor"));
		cell(&t, text_of(v, "why"));
	}
	buf_adds(out, "\n");
	table_print(&t, out);
}

/* ---- drops ---- */

static const char *drop_meaning(const char *reason)
{
	static const struct {
		const char *reason, *meaning;
	} meanings[] = {
		{ "no_backend", "the service had no backend to take it" },
		{ "no_next_hop", "the way to the backend was not known" },
		{ "malformed", "cut short or contradictory" },
		{ "fragment", "a later fragment whose first was not seen" },
		{ "ttl", "its hop limit was reached" },
		{ "too_big", "over the MTU towards the backend" },
		{ "hairpin", "a backend called a VIP, which is not supported "
			     "yet" },
		{ "reply_too_big",
		  "an answer over the MTU towards the client" },
		{ "reply_no_route", "no route for an answer to the client" },
		{ "icmp", "an ICMP error that can't be translated" },
		{ "headers", "more headers than are looked through" },
		{ "encap", "no room for an outer header" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
		if (!strcmp(meanings[i].reason, reason))
			return meanings[i].meaning;
	return "";
}

static void print_drops(json_t *j, struct buf *out)
{
	struct table t = { .columns = 3, .right = 1 };
	const char *reason;
	json_t *n;

	cell(&t, "DROPPED");
	cell(&t, "REASON");
	cell(&t, "");
	json_object_foreach(j, reason, n)
	{
		if (!json_integer_value(n))
			continue;
		cell_number(&t, json_integer_value(n));
		cell(&t, reason);
		cell(&t, drop_meaning(reason));
	}
	if (t.count > 3)
		buf_adds(out, "\n");
	else
		table_clear(&t);
	table_print(&t, out);
}

void status_text(const json_t *status, struct buf *out)
{
	print_node(status, out);
	print_held(status, out);
	print_notes(status, out);
	print_services(status, out);
	print_backends(status, out);
	print_vms(status, out);
	print_drops(json_object_get(status, "drops"), out);
}
