/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How backends are probed.  What `expect` means depends on the type, which
 * may stand after it; so the keys are read first and judged afterwards.
 */
#include "desired/parse.h"

#include <ctype.h>
#include <string.h>

#include "desired/complain.h"
#include "desired/names.h"
#include "desired/value.h"

#define EXPECT_MAX 32
#define COMMAND_MAX 64
#define PAYLOAD_MAX 512 /* bytes; fits into any MTU */
#define HEX "hex:"
#define PAYLOAD_TEXT (2 * PAYLOAD_MAX + 4)
#define WORD_MAX 4096 /* bytes of a command's argument */

struct health_reading {
	struct health_spec h;
	const struct node *expect;
};

/* Goes onto the wire in a request line: no blanks, and absolute. */
static void read_url_path(struct reader *r, const struct key *k,
			  const struct node *v, void *field)
{
	const char *s = expect_text(r, k->name, v);

	if (!s)
		return;
	if (*s != '/' || strchr(s, ' '))
		complain(r->diags, &v->src, "such as /healthz",
			 "\"%s\" must begin with / and have no blanks",
			 k->name);
	else
		read_text(r, k, v, field);
}

static void read_host(struct reader *r, const struct key *k,
		      const struct node *v, void *field)
{
	const char *s = expect_text(r, k->name, v);

	if (s && strchr(s, ' '))
		complain(r->diags, &v->src, NULL, "\"%s\" has a blank in it",
			 k->name);
	else if (s)
		read_text(r, k, v, field);
}

static void read_verify(struct reader *r, const struct key *k,
			const struct node *v, void *field)
{
	struct health_spec *h = field;

	if (v->kind == NODE_SCALAR && v->plain && !strcmp(v->text, "true")) {
		h->verify = VERIFY_SYSTEM;
	} else if (v->kind == NODE_SCALAR && v->plain &&
		   !strcmp(v->text, "false")) {
		h->verify = VERIFY_NO;
	} else {
		h->verify = VERIFY_FILE;
		read_path(r, k, v, &h->ca_file);
	}
}

/* Labels of 1 to 63 bytes, 253 in all; "." alone is the root. */
static bool is_domain(const char *s)
{
	size_t len = strlen(s), label = 0;

	if (!strcmp(s, "."))
		return true;
	if (len && s[len - 1] == '.')
		len--;
	if (!len || len > 253)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '.' && !label)
			return false;
		label = s[i] == '.' ? 0 : label + 1;
		if (label > 63 || s[i] == ' ' || (s[i] & 0x80))
			return false;
	}
	return label > 0;
}

static void read_domain(struct reader *r, const struct key *k,
			const struct node *v, void *field)
{
	const char *s = expect_text(r, k->name, v);

	if (s && !is_domain(s))
		complain(r->diags, &v->src, "such as www.example.org",
			 "\"%.64s\" is not a name that DNS can be asked for",
			 s);
	else if (s)
		read_text(r, k, v, field);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "hex:00ff", or a text; false: complained. */
static bool read_bytes(struct reader *r, const char *name, const struct node *v,
		       struct bytes *ret)
{
	const char *s = expect_text(r, name, v);
	bool hex = s && !strncmp(s, HEX, strlen(HEX));
	uint8_t *data;
	size_t len;

	if (!s)
		return false;
	if (hex)
		s += strlen(HEX);
	len = hex ? strlen(s) / 2 : strlen(s);
	if (len > PAYLOAD_MAX) {
		complain(r->diags, &v->src, NULL,
			 "\"%s\" is longer than %d bytes", name, PAYLOAD_MAX);
		return false;
	}
	data = arena_alloc(r->arena, len + 1); /* 0 behind it, for printing */
	if (!hex)
		memcpy(data, s, len);
	for (size_t i = 0; hex && s[i]; i++) {
		if (hex_digit(s[i]) < 0 || strlen(s) % 2) {
			complain(r->diags, &v->src, "such as hex:00ff10",
				 "\"%s\" needs two hex digits a byte", name);
			return false;
		}
		data[i / 2] = (uint8_t)(data[i / 2] << 4 | hex_digit(s[i]));
	}
	*ret = (struct bytes){ data, len };
	return true;
}

static void read_send(struct reader *r, const struct key *k,
		      const struct node *v, void *field)
{
	read_bytes(r, k->name, v, field);
}

/* A bare word would be looked for along PATH, which isn't the user's. */
static void read_command(struct reader *r, const struct key *k,
			 const struct node *v, void *field)
{
	static const struct key program = { .name = "command" };
	struct health_spec *h = field;

	if (!expect_members(r, k->name, v))
		return;
	if (v->count > COMMAND_MAX) {
		complain(r->diags, &v->src, NULL, "more than %d words",
			 COMMAND_MAX);
		return;
	}
	for (size_t i = 0; i < v->count; i++) {
		const char *s = expect_text(r, k->name, &v->items[i]);

		if (!s)
			return;
		if (strlen(s) > WORD_MAX) {
			complain(r->diags, &v->items[i].src, NULL,
				 "\"%s\" is longer than %d bytes", k->name,
				 WORD_MAX);
			return;
		}
		if (!i && !strchr(s, '/')) {
			complain(
				r->diags, &v->items[i].src,
				"such as /usr/local/bin/check, or ./check",
				"a program is named by its path, not \"%.64s\"",
				s);
			return;
		}
		s = arena_dup(r->arena, s);
		if (!i)
			read_path(r, &program, &v->items[i], &s);
		*ARENA_PUSH(r->arena, h->command, h->command_count) = s;
	}
}

#define FIELD(name) offsetof(struct health_reading, h.name)
#define WHOLE offsetof(struct health_reading, h)
static const struct key health_keys[] = {
	KEY("type", read_choice, FIELD(type), .choices = health_names,
	    .help = "tcp where it is left out; for udp services: the VM runs and its neighbour resolves"),
	KEY("path", read_url_path, FIELD(path), .form = FORM_URL_PATH,
	    .help = "http, https: of the request", .fallback = "/"),
	KEY("port", read_port, FIELD(port),
	    .help = "The first port's target where it is left out"),
	KEY("host", read_host, FIELD(host), .form = FORM_NO_BLANKS,
	    .help = "http, https: Host header and name for TLS; the address where it is left out"),
	KEY("verify", read_verify, WHOLE, .form = FORM_VERIFY,
	    .help = "https: the certificate, by the system's authorities (true) or a file's",
	    .fallback = "false"),
	KEY("name", read_domain, FIELD(name), .form = FORM_TEXT, .max = 254,
	    .help = "dns: what is asked for"),
	KEY("record", read_choice, FIELD(record), .choices = record_names,
	    .help = "dns: type of the record", .fallback = "A"),
	KEY("send", read_send, FIELD(send), .form = FORM_TEXT,
	    .max = PAYLOAD_TEXT, .help = "udp: a text, or hex:00ff10"),
	KEY("command", read_command, WHOLE, .list = true, .least = 1,
	    .most = COMMAND_MAX, .form = FORM_TEXT, .max = WORD_MAX,
	    .help = "command: a program, by its path, and its arguments"),
	KEY("interval", read_duration, FIELD(interval), .min = 100 * NS_MS,
	    .max = NS_HOUR, .help = "Between probes", .fallback = "2s"),
	KEY("timeout", read_duration, FIELD(timeout), .min = 10 * NS_MS,
	    .max = NS_MINUTE, .help = "For an answer; at most the interval",
	    .fallback = "1s"),
	KEY("rise", read_count, FIELD(rise), .min = 1, .max = 100,
	    .help = "Passes in a row to come back", .fallback = "2"),
	KEY("fall", read_count, FIELD(fall), .min = 1, .max = 100,
	    .help = "Failures in a row to leave", .fallback = "3"),
	KEY("expect", read_keep, offsetof(struct health_reading, expect),
	    .list = true, .least = 1, .most = EXPECT_MAX, .form = FORM_EXPECT,
	    .help = "http, https: status codes (200); dns: NOERROR and other codes, addresses; udp: what is in the answer, as in send"),
	KEY("panic", read_choice, FIELD(panic), .choices = panic_names,
	    .help = "All fail: use all of them (fail_open) or none (fail_closed); fail_open, and beside a sorry fail_closed, where it is left out"),
};
#undef FIELD
#undef WHOLE
KEY_TABLE_SHARED(health_table, "health", health_keys);

void health_defaults(struct reader *r, enum protocol protocol,
		     struct health_spec *ret)
{
	*ret = (struct health_spec){
		.type = protocol == PROTOCOL_UDP ? HEALTH_RUNNING : HEALTH_TCP,
		.path = "/",
		.interval = 2 * NS_SECOND,
		.timeout = NS_SECOND,
		.rise = 2,
		.fall = 3,
		.expect = arena_alloc(r->arena, sizeof(*ret->expect)),
		.expect_count = 1,
		.record = DNS_A,
		.rcodes = 1,
		.panic = PANIC_FAIL_OPEN,
	};
	ret->expect[0] = 200;
}

/* expect */

static void expect_status(struct reader *r, const struct node *v,
			  struct health_spec *h)
{
	static const struct key code_key = { .name = "expect",
					     .min = 100,
					     .max = 599 };
	uint64_t code;

	h->expect_count = 0;
	h->expect = arena_alloc(r->arena, v->count * sizeof(*h->expect));
	for (size_t i = 0; i < v->count; i++)
		if (read_whole(r, &code_key, &v->items[i], &code))
			h->expect[h->expect_count++] = (uint16_t)code;
}

static bool is_rcode(const char *s, uint16_t *rcodes)
{
	for (const struct choice *c = rcode_names; c->name; c++) {
		if (strcmp(c->name, s) != 0)
			continue;
		*rcodes |= (uint16_t)(1u << c->value);
		return true;
	}
	return false;
}

static void expect_answers(struct reader *r, const struct node *v,
			   struct health_spec *h)
{
	int family = h->record == DNS_A	     ? AF_INET
		     : h->record == DNS_AAAA ? AF_INET6
					     : 0;
	uint16_t rcodes = 0;

	for (size_t i = 0; i < v->count; i++) {
		const struct node *item = &v->items[i];
		const char *s = expect_text(r, "expect", item);
		struct ip a;

		if (!s || is_rcode(s, &rcodes))
			continue;
		if (!ip_parse(s, &a))
			complain(
				r->diags, &item->src,
				"an address, or NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED",
				"\"%.64s\" is not what an answer can be held against",
				s);
		else if (a.family != family)
			complain(r->diags, &item->src,
				 "A has IPv4 addresses, AAAA has IPv6 ones",
				 "%s records don't have the address %s",
				 choice_name(record_names, (int)h->record), s);
		else
			*ARENA_PUSH(r->arena, h->answers, h->answer_count) = a;
	}
	if (rcodes)
		h->rcodes = rcodes;
}

static void expect_bytes(struct reader *r, const struct node *v,
			 struct health_spec *h)
{
	struct bytes b;

	for (size_t i = 0; i < v->count; i++)
		if (read_bytes(r, "expect", &v->items[i], &b))
			*ARENA_PUSH(r->arena, h->wanted, h->wanted_count) = b;
}

static void read_expect(struct reader *r, const struct node *v,
			struct health_spec *h)
{
	if (!v || !expect_members(r, "expect", v))
		return;
	if (v->count > EXPECT_MAX)
		complain(r->diags, &v->src, NULL,
			 "\"expect\" has more than %d members", EXPECT_MAX);
	else if (h->type == HEALTH_DNS)
		expect_answers(r, v, h);
	else if (h->type == HEALTH_UDP)
		expect_bytes(r, v, h);
	else if (h->type == HEALTH_HTTP || h->type == HEALTH_HTTPS)
		expect_status(r, v, h);
}

/* which keys go with which type */

#define ON(type) (1u << HEALTH_##type)
#define ON_WEB (ON(HTTP) | ON(HTTPS))
#define ON_TCP (ON(TCP) | ON_WEB)
#define ON_UDP (ON(DNS) | ON(UDP))

static const struct {
	const char *key;
	unsigned int types; /* that it says something for */
	unsigned int needed; /* by these */
	const char *hint;
} key_uses[] = {
	{ "path", ON_WEB, 0, "remove it, or set \"type: http\"" },
	{ "host", ON_WEB, 0, "remove it, or set \"type: http\"" },
	{ "expect", ON_WEB | ON_UDP, 0, "remove it, or set \"type: http\"" },
	{ "verify", ON(HTTPS), 0, "remove it, or set \"type: https\"" },
	{ "name", ON(DNS), ON(DNS), "remove it, or set \"type: dns\"" },
	{ "record", ON(DNS), 0, "remove it, or set \"type: dns\"" },
	{ "send", ON(UDP), ON(UDP), "remove it, or set \"type: udp\"" },
	{ "command", ON(COMMAND), ON(COMMAND),
	  "remove it, or set \"type: command\"" },
	{ "port", ON_TCP | ON_UDP | ON(COMMAND), 0,
	  "remove it, or set \"type: tcp\"" },
};

static void check_keys(struct reader *r, const struct node *health,
		       enum health_type type)
{
	for (size_t i = 0; i < ARRAY_SIZE(key_uses); i++) {
		const struct node *v = node_get(health, key_uses[i].key);

		if (v && !(key_uses[i].types & 1u << type))
			complain(r->diags, &v->src, key_uses[i].hint,
				 "\"%s\" says nothing for this type of check",
				 key_uses[i].key);
		else if (!v && key_uses[i].needed & 1u << type)
			complain(r->diags, &health->src, NULL,
				 "a %s check needs \"%s\"",
				 choice_name(health_names, (int)type),
				 key_uses[i].key);
	}
}

/* Of a port of the service a probe of the other protocol knows nothing. */
static void check_port(struct reader *r, const struct node *health,
		       enum protocol protocol, const struct health_spec *h)
{
	bool udp = protocol == PROTOCOL_UDP;

	if (h->port || !((udp ? ON_TCP : ON_UDP) & 1u << h->type))
		return;
	complain(r->diags, &health->src,
		 udp ? "name the tcp port that answers it, or remove \"type\""
		     : "name the udp port that answers it",
		 "a %s check of a %s service needs \"port\"",
		 choice_name(health_names, (int)h->type),
		 protocol_name(protocol));
}

/* It becomes part of a URL. */
static bool is_host_name(const char *s)
{
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(".-_", *s))
			return false;
	return true;
}

static void check_host(struct reader *r, const struct node *health,
		       const struct health_spec *h)
{
	const struct node *v = node_get(health, "host");

	if (v && h->type == HEALTH_HTTPS && !is_host_name(h->host))
		complain(r->diags, &v->src, "such as web.example",
			 "\"%.64s\" is not the name of a host", h->host);
}

void health_read(struct reader *r, const struct node *v, enum protocol protocol,
		 struct health_spec *ret)
{
	struct health_reading hr = { .h = *ret };
	size_t before = r->diags->errors;

	if (!read_mapping(r, &health_table, v, &hr))
		return;
	*ret = hr.h;
	ret->src = v->src;
	read_expect(r, hr.expect, ret);
	if (r->diags->errors != before)
		return;
	check_keys(r, v, ret->type);
	if (r->diags->errors == before) {
		check_port(r, v, protocol, ret);
		check_host(r, v, ret);
	}
	if (ret->timeout > ret->interval)
		complain(r->diags, &v->src,
			 "make the timeout shorter or the interval longer",
			 "the check's timeout is longer than its interval");
}
