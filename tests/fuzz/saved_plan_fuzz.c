/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target of the reader of saved plans.  Beyond not crashing: a plan
 * or one error with a hint, never both; and a plan that is taken has an id that
 * is its own, hex digits and an absolute path, whatever else the file holds.
 *   clang -fsanitize=fuzzer,address,undefined ... with
 *   tests/fuzz/corpus/saved_plan
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_hex(const char *s, size_t len)
{
	if (strlen(s) != len || strspn(s, "0123456789abcdef") != len)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct saved_plan saved = { .path = NULL };
	struct diag_list diags = { 0 };
	struct buf said = BUF_INIT;
	int err = saved_plan_parse("plan.json", (const char *)data, size,
				   &saved, &diags);

	if (!err == (diags.errors != 0) || diags.errors > 1)
		abort();
	if (err && (saved.path || !diags.items[0].hint))
		abort();
	if (!err) {
		check_hex(saved.id, 16);
		check_hex(saved.sha256, 64);
		check_hex(saved.fingerprint, 64);
		if (saved.path[0] != '/')
			abort();
	}
	diag_list_print(&diags, &said);
	buf_release(&said);
	diag_list_release(&diags);
	saved_plan_release(&saved);
	return 0;
}
