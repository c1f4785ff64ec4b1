/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A growing string.  data is always NUL-terminated after the first add. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdio.h>

struct buf {
	char *data; /* NULL while empty */
	size_t len;
	size_t cap;
};

#define BUF_INIT           \
	{                  \
		NULL, 0, 0 \
	}

void buf_release(struct buf *b); /* frees and leaves an empty buf */
void buf_reset(struct buf *b); /* empty, memory kept */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
const char *buf_str(const struct buf *b); /* never NULL */
/* Whole file into b; max bounds its bytes. 0, -EFBIG or -errno. */
int buf_read_file(struct buf *b, const char *path, size_t max);

#define AUTO_BUF __attribute__((cleanup(buf_release)))

#endif
