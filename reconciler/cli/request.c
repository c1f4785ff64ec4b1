/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes in by the control socket: anything at all, until it is parsed. */
#include <string.h>

#include "reconcile.h"

int request_parse(struct buf *in, char *words[REQUEST_WORDS],
		  struct options *opt, struct buf *err)
{
	static char name[] = "xlb-reconcile";
	int count = 1;

	words[0] = name;
	*opt = (struct options){ 0 };
	/* One place stays free for the NULL at the end. */
	for (size_t at = 0; at < in->len; at += strlen(in->data + at) + 1) {
		if (count == REQUEST_WORDS - 1) {
			buf_adds(err, "the request has too many words");
			return EXIT_USAGE;
		}
		words[count++] = in->data + at;
	}
	words[count] = NULL;
	return options_parse(count, words, opt, err);
}
