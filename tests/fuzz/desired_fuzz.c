/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target of the parser.  Beyond not crashing: a spec or errors,
 * never both; and what is printed parses back to what was printed.
 *   clang -fsanitize=fuzzer,address,undefined ... with tests/fuzz/corpus/desired
 *   and -dict=tests/fuzz/desired.dict
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "desired/desired.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct spec *parse(const char *data, size_t size)
{
	struct spec_text t = { "fuzz.yaml", data, size, "/etc/xlb" };
	struct diag_list diags = { 0 };
	struct spec *s = spec_parse("fuzz.yaml", &t, 1, &diags);
	struct buf said = BUF_INIT;

	if (!s == !diags.errors)
		abort();
	diag_list_print(&diags, &said);
	buf_release(&said);
	diag_list_release(&diags);
	return s;
}

static void check_print(const struct spec *s)
{
	struct buf once = BUF_INIT, twice = BUF_INIT;
	struct spec *again;

	spec_notes(s, &once);
	buf_reset(&once);
	spec_print(s, &once);
	again = parse(once.data, once.len);
	if (!again)
		abort();
	spec_print(again, &twice);
	if (strcmp(once.data, twice.data) != 0)
		abort();
	spec_free(again);
	buf_release(&once);
	buf_release(&twice);
}

/* A NUL byte parts two texts: the second one is read again after the first. */
static void check_again(const char *data, size_t size)
{
	const char *end = memchr(data, 0, size);
	size_t len = end ? (size_t)(end - data) : size;
	struct spec_text one = { "fuzz.yaml", data, len, "/etc/xlb" };
	struct buf anew = BUF_INIT, again = BUF_INIT;
	struct diag_list diags = { 0 };
	struct spec_cache *cache;
	struct spec_text two = one;
	struct spec *s;

	if (!end)
		return;
	two.data = end + 1;
	two.len = size - len - 1;
	cache = spec_cache_new();
	spec_free(spec_parse_again(cache, "fuzz.yaml", &one, 1, &diags));
	diag_list_release(&diags);
	s = spec_parse_again(cache, "fuzz.yaml", &two, 1, &diags);
	diag_list_print(&diags, &again);
	if (s)
		spec_print(s, &again);
	spec_free(s);
	diag_list_release(&diags);
	s = spec_parse("fuzz.yaml", &two, 1, &diags);
	diag_list_print(&diags, &anew);
	if (s)
		spec_print(s, &anew);
	if (!strstr(buf_str(&again), "looks cut off") &&
	    strcmp(buf_str(&anew), buf_str(&again)) != 0)
		abort();
	spec_free(s);
	diag_list_release(&diags);
	buf_release(&anew);
	buf_release(&again);
	spec_cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spec *s = parse((const char *)data, size);

	check_again((const char *)data, size);

	if (s)
		check_print(s);
	spec_free(s);
	return 0;
}
