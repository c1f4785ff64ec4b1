/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target of the parser of requests on the control socket.  Beyond not
 * crashing: options or a reason, never both; words that point into the request;
 * and the same request means the same, however often it is parsed.
 *   clang -fsanitize=fuzzer,address,undefined ... with tests/fuzz/corpus/control
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "reconcile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct parsed {
	struct buf in, err;
	char *words[REQUEST_WORDS];
	struct options opt;
	int code;
};

static void parse(struct parsed *p, const uint8_t *data, size_t size)
{
	*p = (struct parsed){ 0 };
	buf_add(&p->in, data, size);
	p->code = request_parse(&p->in, p->words, &p->opt, &p->err);
	if (p->code && p->code != EXIT_USAGE)
		abort();
	if (!p->code == (p->err.len != 0))
		abort();
}

static void release(struct parsed *p)
{
	options_release(&p->opt);
	buf_release(&p->in);
	buf_release(&p->err);
}

/* Every word is whole and inside of the request. */
static void check_words(const struct parsed *p)
{
	for (size_t i = 0; i < p->opt.arg_count; i++) {
		const char *word = p->opt.args[i];

		if (word < p->in.data ||
		    word + strlen(word) > p->in.data + p->in.len)
			abort();
	}
	if (!p->opt.verb || !p->opt.state_dir || !p->opt.bpffs || !p->opt.file)
		abort();
	(void)strlen(p->opt.verb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct parsed one, two;

	parse(&one, data, size);
	parse(&two, data, size);
	if (one.code != two.code || one.opt.arg_count != two.opt.arg_count ||
	    strcmp(buf_str(&one.err), buf_str(&two.err)) != 0)
		abort();
	if (!one.code)
		check_words(&one);
	release(&one);
	release(&two);
	return 0;
}
