/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading again gives what reading anew gives: the model, every place in it
 * and every message, over thousands of random edits; and it parses what has
 * changed, not the rest.  XLB_SEED repeats a run.  Run from the top.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "desired/desired.h"
#include "desired/keys.h"

#define EDITS 8000
#define FILES_MAX 6

static uint64_t random_state;

static uint32_t any(uint32_t below)
{
	random_state =
		random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(random_state >> 33) % below;
}

/* everything that is known of a spec, as text */

static void add_source(struct buf *b, const char *what, const struct source *s)
{
	buf_addf(b, "%s %s:%d:%d\n", what, s->file ? s->file : "-", s->line,
		 s->column);
}

static void add_service(struct buf *b, const struct service_spec *s)
{
	buf_addf(b, "service %s\n", s->name);
	add_source(b, "at", &s->src);
	add_source(b, "pool", &s->pool.src);
	add_source(b, "sorry", &s->sorry.src);
	add_source(b, "health", &s->health.src);
	add_source(b, "scaling", &s->scaling.src);
	for (size_t i = 0; i < s->vip_count; i++)
		add_source(b, "vip", &s->vips[i].src);
	for (size_t i = 0; i < s->port_count; i++)
		add_source(b, "port", &s->ports[i].src);
	for (size_t i = 0; i < s->backend_count; i++)
		add_source(b, "backend", &s->backends[i].src);
	for (size_t i = 0; i < s->scaling.signal_count; i++)
		add_source(b, "signal", &s->scaling.signals[i].src);
}

static void describe(const struct spec *s, const struct diag_list *diags,
		     struct buf *b)
{
	diag_list_print(diags, b);
	if (!s)
		return;
	buf_addf(b, "%s %s\n", s->path, s->sha256);
	add_source(b, "node", &s->node.src);
	for (size_t i = 0; i < s->node.interface_count; i++)
		add_source(b, "interface", &s->node.interfaces[i].src);
	for (size_t i = 0; i < s->hypervisor_count; i++)
		add_source(b, "hypervisor", &s->hypervisors[i].src);
	for (size_t i = 0; i < s->template_count; i++)
		add_source(b, "template", &s->templates[i].src);
	for (size_t i = 0; i < s->service_count; i++)
		add_service(b, &s->services[i]);
	spec_print(s, b);
}

/* Both readings of the same texts; true: they give a spec. */
static bool read_both(struct spec_cache *c, const struct spec_text *texts,
		      size_t count)
{
	struct diag_list diags = { 0 }, diags_again = { 0 };
	struct buf anew = BUF_INIT, again = BUF_INIT;
	struct spec *a = spec_parse("f", texts, count, &diags);
	struct spec *b = spec_parse_again(c, "f", texts, count, &diags_again);
	bool good = a && b;
	bool cut;

	describe(a, &diags, &anew);
	describe(b, &diags_again, &again);
	/* Only who knows what was there before can say so. */
	cut = strstr(buf_str(&again), "looks cut off");
	if (cut)
		buf_reset(&anew);
	if (cut)
		buf_adds(&anew, buf_str(&again));
	if (strcmp(buf_str(&anew), buf_str(&again)) != 0)
		print_message("the text:\n%s\n", texts[0].data);
	assert_string_equal(buf_str(&anew), buf_str(&again));
	spec_free(a);
	spec_free(b);
	diag_list_release(&diags);
	diag_list_release(&diags_again);
	buf_release(&anew);
	buf_release(&again);
	return good;
}

/* edits */

static const char *const snippets[] = {
	"---\n",
	"...\n",
	"# a comment\n",
	"\n",
	"  - name: more\n    vips: [203.0.113.1]\n    ports: [80]\n",
	"    drain: 5s\n",
	"    drain: 7s\n",
	"  ",
	"    ",
	"-",
	"\"",
	"'",
	"{",
	"]",
	"|\n",
	">\n",
	": ",
	"&a ",
	"*a",
	"\r\n",
	"\xc2\x85",
	"\t",
	"%YAML 1.1\n",
	"hypervisors: []\n",
	"- {name: x, vips: [203.0.113.2], ports: [1]}\n",
	"  - {name: y, vips: [203.0.113.3], ports: [1]}\n",
	"      - {address: 10.0.9.9}\n",
	"x\xc3\xa4",
};

static size_t line_at(const struct buf *b, size_t at)
{
	while (at && b->data[at - 1] != '\n')
		at--;
	return at;
}

static size_t line_end(const struct buf *b, size_t at)
{
	while (at < b->len && b->data[at] != '\n')
		at++;
	return at < b->len ? at + 1 : at;
}

static void replace(struct buf *b, size_t from, size_t to, const char *with,
		    size_t len)
{
	struct buf out = BUF_INIT;

	buf_add(&out, b->data, from);
	buf_add(&out, with, len);
	buf_add(&out, b->data + to, b->len - to);
	buf_release(b);
	*b = out;
}

static void edit(struct buf *b)
{
	size_t at = any((uint32_t)b->len), from = line_at(b, at);
	size_t to = line_end(b, at);
	const char *with = snippets[any(ARRAY_SIZE(snippets))];
	char *line = mem_printf("%.*s", (int)(to - from), b->data + from);
	char c = "0123456789abz -:#{}[]\n\"'"[any(24)];

	switch (any(9)) {
	case 0: /* a line goes */
		replace(b, from, to, "", 0);
		break;
	case 1: /* a line twice */
		replace(b, from, from, line, strlen(line));
		break;
	case 2: /* a line elsewhere */
		replace(b, from, to, "", 0);
		if (b->len) {
			at = line_at(b, any((uint32_t)b->len));
			replace(b, at, at, line, strlen(line));
		}
		break;
	case 3: /* cut off */
		replace(b, any(4) ? from : at, b->len, "", 0);
		break;
	case 4:
		replace(b, from, from, with, strlen(with));
		break;
	case 5:
		replace(b, at, at, with, strlen(with));
		break;
	case 6: /* several lines go */
		for (uint32_t i = any(8); i; i--)
			to = line_end(b, to);
		replace(b, from, to, "", 0);
		break;
	default:
		replace(b, at, at + 1, &c, 1);
	}
	free(line);
	if (!b->len)
		buf_adds(b, "\n");
}

static void copy_buf(struct buf *to, const struct buf *from)
{
	buf_reset(to);
	buf_add(to, from->data, from->len);
}

static void edit_all(const struct buf *base, size_t count)
{
	struct buf now[FILES_MAX] = { 0 }, good[FILES_MAX] = { 0 };
	struct spec_text texts[FILES_MAX];
	struct spec_cache *cache = spec_cache_new();
	size_t in_part = 0, valid = 0, bytes;

	for (size_t i = 0; i < count; i++) {
		copy_buf(&now[i], &base[i]);
		copy_buf(&good[i], &base[i]);
	}
	for (int n = 0; n < EDITS; n++) {
		bytes = 0;
		for (size_t i = 0; i < count; i++) {
			static const char *const names[] = { "a", "b", "c",
							     "d", "e", "f" };

			texts[i] = (struct spec_text){ names[i], now[i].data,
						       now[i].len, "/etc/xlb" };
			bytes += now[i].len;
		}
		if (read_both(cache, texts, count)) {
			valid++;
			in_part += spec_cache_parsed(cache) < bytes / 2;
			for (size_t i = 0; i < count; i++)
				copy_buf(&good[i], &now[i]);
		} else if (any(8)) {
			for (size_t i = 0; i < count; i++)
				copy_buf(&now[i], &good[i]);
		}
		if (!any(100))
			for (size_t i = 0; i < count; i++)
				copy_buf(&now[i], &base[i]);
		edit(&now[any((uint32_t)count)]);
	}
	print_message("%zu of %d texts valid, %zu of them read in part\n",
		      valid, EDITS, in_part);
	assert_true(valid > EDITS / 20);
	assert_true(in_part > 100);
	for (size_t i = 0; i < count; i++) {
		buf_release(&now[i]);
		buf_release(&good[i]);
	}
	spec_cache_free(cache);
}

static void make(struct buf *b, int first, int count, int indent, bool top)
{
	buf_adds(b, "version: 1\n");
	if (top)
		buf_adds(
			b,
			"node: {interfaces: [eth0]}\n"
			"hypervisors: [{name: h, uri: \"test:///default\"}]\n"
			"templates:\n"
			"  - {name: t, image: a, network: {bridge: br0, addresses: [10.9.0.1-10.9.90.1/16]}}\n");
	buf_adds(b, "services:\n");
	for (int i = first; i < first + count; i++) {
		buf_addf(b, "%*s- name: s%d\n%*s  vips: [198.51.100.%d]\n",
			 indent, "", i, indent, "", i + 1);
		buf_addf(b, "%*s  ports: [80]  # s%d\n%*s  backends:\n", indent,
			 "", i, indent, "");
		for (int k = 0; k < 3; k++)
			buf_addf(b,
				 "%*s    - {name: b%d, address: 10.0.%d.%d}\n",
				 indent, "", k, i, k + 1);
		if (i % 3 == 0)
			buf_addf(
				b,
				"%*s  pool: {template: t, min: 1, max: 2}\n"
				"%*s  scaling:\n"
				"%*s    signals: [{metric: cpu, target: 50%%}]\n",
				indent, "", indent, "", indent, "");
	}
}

static void edits_of_one_file(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	make(&b, 0, 12, 2, true);
	edit_all(&b, 1);
	buf_reset(&b);
	make(&b, 0, 12, 0, true);
	edit_all(&b, 1);
	buf_release(&b);
}

static void edits_of_the_example(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	assert_int_equal(
		buf_read_file(&b, "examples/full/services.yaml", 1 << 20), 0);
	edit_all(&b, 1);
	buf_release(&b);
}

static void edits_of_a_folder(void **state)
{
	struct buf b[4] = { 0 };

	(void)state;
	for (int i = 0; i < 4; i++)
		make(&b[i], i * 4, 4, 2, i == 0);
	edit_all(b, 4);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

#define SHARED_ADDRESS                                             \
	"  - name: x1\n    vips: [203.0.113.1]\n"                  \
	"    ports: [{listen: 80, target: 7000}]\n"                \
	"    backends: [{name: a, address: 10.0.8.1}]\n"           \
	"  - name: y1\n    vips: [203.0.113.2]\n"                  \
	"    ports: [{listen: 80, target: 7001}]\n"                \
	"    backends: [{name: a, address: 10.0.8.1}]\n"           \
	"  - name: z1\n    vips: [203.0.113.3]\n    ports: [80]\n" \
	"    backends: [{name: a, address: 10.0.8.1, port: 7003}]\n"

/* Each makes the file contradict itself, and alone so: nothing else changes. */
static const struct {
	const char *from, *to;
} contradictions[] = {
	{ "198.51.100.2]", "198.51.100.1]" },
	{ "198.51.100.3]", "10.0.1.1]" },
	{ "198.51.100.3]", "10.9.0.7]" },
	{ "address: 10.0.1.1}", "address: 10.9.0.7}" },
	{ "address: 10.0.1.1}", "address: 10.0.1.2}" },
	{ "address: 10.0.1.1}", "address: 10.0.2.1}" },
	{ "address: 10.0.1.1}", "address: 10.0.3.1, port: 80}" },
	{ "198.51.100.2]", "198.51.100.2, 203.0.113.9]" },
	{ "198.51.100.2]", "198.51.100.2, \"2001:db8::9\"]" },
	{ "ports: [80]  # s1", "ports: [80, {listen: 81, target: 80}]" },
	{ "10.9.0.1-10.9.90.1/16", "10.9.0.1-10.9.0.1/16" },
	{ "10.9.0.1-10.9.90.1/16", "10.0.0.1-10.9.200.1/8" },
	{ "bridge: br0,", "bridge: br0, gateway: [10.10.0.1]," },
	{ "max: 2}", "max: 31000}" },
	{ "target: 7001", "target: 7000" },
	{ "port: 7003", "port: 7000" },
	{ "target: 7001}", "target: 7001}, {listen: 81, target: 7000}" },
};

static void contradictions_of_what_was_clean(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(contradictions); i++) {
		struct spec_cache *c = spec_cache_new();
		struct spec_text text = { "a", NULL, 0, "/etc/xlb" };
		struct buf b = BUF_INIT;
		const char *at;

		make(&b, 0, 6, 2, true);
		buf_adds(&b, SHARED_ADDRESS);
		text.data = b.data;
		text.len = b.len;
		assert_true(read_both(c, &text, 1));
		at = strstr(buf_str(&b), contradictions[i].from);
		assert_non_null(at);
		replace(&b, (size_t)(at - b.data),
			(size_t)(at - b.data) + strlen(contradictions[i].from),
			contradictions[i].to, strlen(contradictions[i].to));
		text.data = b.data;
		text.len = b.len;
		if (read_both(c, &text, 1))
			fail_msg("%s is taken", contradictions[i].to);
		buf_release(&b);
		spec_cache_free(c);
	}
}

/* what is parsed */

static struct spec *parse_again(struct spec_cache *c, const struct buf *b,
				size_t count, size_t *ret_parsed)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	struct spec_text texts[4];
	struct diag_list diags = { 0 };
	struct spec *s;

	for (size_t i = 0; i < count; i++)
		texts[i] = (struct spec_text){ names[i], b[i].data, b[i].len,
					       "/etc/xlb" };
	s = spec_parse_again(c, "f", texts, count, &diags);
	assert_int_equal(diags.count, 0);
	assert_non_null(s);
	*ret_parsed = spec_cache_parsed(c);
	diag_list_release(&diags);
	return s;
}

static void unchanged_files_are_not_parsed(void **state)
{
	struct spec_cache *c = spec_cache_new();
	struct buf b[4] = { 0 };
	struct spec *one, *two;
	size_t parsed, all = 0;

	(void)state;
	for (int i = 0; i < 4; i++) {
		make(&b[i], i * 4, 4, 2, i == 0);
		all += b[i].len;
	}
	one = parse_again(c, b, 4, &parsed);
	assert_int_equal(parsed, all);
	two = parse_again(c, b, 4, &parsed);
	assert_int_equal(parsed, 0);
	/* Models are shared, and outlive one another. */
	assert_ptr_equal(one->services[3].backends, two->services[3].backends);
	spec_free(one);
	buf_adds(&b[2], "    drain: 9s\n");
	one = parse_again(c, b, 4, &parsed);
	assert_in_range(parsed, 1, 400);
	assert_ptr_equal(one->services[0].backends, two->services[0].backends);
	/* A file that goes and comes back is read again. */
	spec_free(two);
	two = parse_again(c, b, 3, &parsed);
	assert_int_equal(parsed, 0);
	spec_free(two);
	two = parse_again(c, b, 4, &parsed);
	assert_int_equal(parsed, b[3].len);
	spec_free(one);
	spec_free(two);
	spec_cache_free(c);
	for (int i = 0; i < 4; i++)
		buf_release(&b[i]);
}

/* cut off */

static struct spec *read_one(struct spec_cache *c, const char *data, size_t len,
			     struct diag_list *diags)
{
	struct spec_text t = { "services.yaml", data, len, "/etc/xlb" };

	return spec_parse_again(c, "services.yaml", &t, 1, diags);
}

static char *printed(const struct spec *s)
{
	struct buf b = BUF_INIT;

	spec_print(s, &b);
	return b.data;
}

/*
 * After the whole text each beginning of it: refused, or the same in every
 * word.  Returns how many were the same.
 */
static size_t read_beginnings(const char *data, size_t len)
{
	struct spec_cache *c = spec_cache_new();
	struct diag_list diags = { 0 };
	struct spec *s = read_one(c, data, len, &diags);
	AUTO_FREE char *whole = NULL;
	size_t same = 0;

	assert_non_null(s);
	diag_list_release(&diags);
	whole = printed(s);
	spec_free(s);
	for (size_t n = 0; n < len; n++) {
		s = read_one(c, data, n, &diags);
		if (s) {
			AUTO_FREE char *now = printed(s);

			if (strcmp(now, whole) != 0)
				fail_msg("cut to %zu bytes it says less", n);
			same++;
			/* Nor is what is the same a step to the next cut. */
			spec_free(s);
			s = read_one(c, data, len, &diags);
			assert_non_null(s);
		}
		spec_free(s);
		diag_list_release(&diags);
	}
	spec_cache_free(c);
	return same;
}

static void no_beginning_of_an_example(void **state)
{
	glob_t g;
	size_t files = 0;

	(void)state;
	assert_int_equal(glob("examples/*/services.yaml", 0, NULL, &g), 0);
	for (size_t i = 0; i < g.gl_pathc; i++, files++) {
		struct buf b = BUF_INIT;

		assert_int_equal(buf_read_file(&b, g.gl_pathv[i], 1 << 20), 0);
		/* The last newline may go. */
		assert_int_equal(read_beginnings(b.data, b.len), 1);
		buf_release(&b);
	}
	globfree(&g);
	assert_true(files >= 3);
}

#define WHOLE                         \
	"version: 1\n"                \
	"services:\n"                 \
	"  - name: a\n"               \
	"    vips: [192.0.2.1]\n"     \
	"    ports: [80]\n"           \
	"    backends:\n"             \
	"      - address: 10.0.0.1\n" \
	"      - address: 10.0.0.2\n"

/* after: what is said about `text` where `before` had been read; "" nothing. */
static void expect(const char *before, const char *text, const char *message)
{
	struct spec_cache *c = spec_cache_new();
	struct diag_list diags = { 0 };
	struct buf said = BUF_INIT;
	struct spec *s = read_one(c, before, strlen(before), &diags);

	assert_non_null(s);
	spec_free(s);
	diag_list_release(&diags);
	s = read_one(c, text, strlen(text), &diags);
	diag_list_print(&diags, &said);
	if (*message)
		assert_non_null(strstr(buf_str(&said), message));
	else
		assert_string_equal(buf_str(&said), "");
	assert_true(!s == (*message != '\0'));
	spec_free(s);
	diag_list_release(&diags);
	buf_release(&said);
	spec_cache_free(c);
}

static void cut_files(void **state)
{
	static const char shorter[] =
		"version: 1\nservices:\n  - name: a\n    vips: [192.0.2.1]\n"
		"    ports: [80]\n    backends:\n      - address: 10.0.0.1\n";
	char middle[sizeof(WHOLE)];

	(void)state;
	/* The last backend taken out: as anybody would. */
	expect(WHOLE, shorter, "");
	/* The end that the file itself tells of. */
	expect(WHOLE "...\n", shorter, "looks cut off");
	expect(WHOLE "...\n", WHOLE, "looks cut off");
	expect(WHOLE "...\n", WHOLE "...", "");
	expect(WHOLE "...\n", WHOLE "... \n\n", "");
	expect(WHOLE, WHOLE "...\n", "");
	/* Another file that lost its end. */
	expect(WHOLE "...\n", "version: 1\nservices: []\n", "looks cut off");
	/* In the middle of a line: 10.0.0.1 of 10.0.0.12. */
	snprintf(middle, sizeof(middle), "%.*s", (int)strlen(shorter) - 1,
		 shorter);
	expect(shorter, middle, ""); /* only the newline */
	expect("version: 1\nservices:\n  - name: a\n    vips: [192.0.2.1]\n"
	       "    ports: [80]\n    backends:\n      - address: 10.0.0.12\n",
	       middle, "middle of a line");
	/* The last line of a file without a last newline may get shorter. */
	expect("version: 1\nservices:\n  - name: a\n    vips: [192.0.2.1]\n"
	       "    ports: [80]\n    backends:\n      - address: 10.0.0.12",
	       middle, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edits_of_one_file),
		cmocka_unit_test(edits_of_the_example),
		cmocka_unit_test(edits_of_a_folder),
		cmocka_unit_test(contradictions_of_what_was_clean),
		cmocka_unit_test(unchanged_files_are_not_parsed),
		cmocka_unit_test(no_beginning_of_an_example),
		cmocka_unit_test(cut_files),
	};
	const char *seed = getenv("XLB_SEED");

	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)random_state);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
