/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Blocks double from the first to the largest: many arenas hold little. */
#define ARENA_FIRST 2048
#define ARENA_BLOCK 65536

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	_Alignas(16) char data[];
};

struct arena {
	struct arena_block *head;
};

static void *check(void *p)
{
	if (p)
		return p;
	fputs("level=error msg=\"out of memory\"\n", stderr);
	abort();
}

void *mem_alloc(size_t size)
{
	return check(calloc(1, size ? size : 1));
}

void *mem_array(size_t count, size_t size)
{
	return check(calloc(count ? count : 1, size ? size : 1));
}

void *mem_resize(void *p, size_t count, size_t size)
{
	return check(reallocarray(p, count ? count : 1, size ? size : 1));
}

char *mem_dup(const char *s)
{
	return s ? check(strdup(s)) : NULL;
}

char *mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *out = NULL;

	va_start(ap, fmt);
	if (vasprintf(&out, fmt, ap) < 0)
		out = NULL;
	va_end(ap);
	return check(out);
}

void mem_free_ptr(void *p)
{
	free(*(void **)p);
}

static size_t capacity_of(size_t count)
{
	size_t cap = 4;

	if (!count)
		return 0;
	while (cap < count)
		cap *= 2;
	return cap;
}

void *mem_grow(void *items, size_t count, size_t size)
{
	size_t cap = capacity_of(count);

	if (count == cap)
		items = mem_resize(items, cap ? cap * 2 : 4, size);
	memset((char *)items + count * size, 0, size);
	return items;
}

struct arena *arena_new(void)
{
	return mem_alloc(sizeof(struct arena));
}

void arena_free(struct arena *a)
{
	struct arena_block *next;

	if (!a)
		return;
	for (struct arena_block *b = a->head; b; b = next) {
		next = b->next;
		free(b);
	}
	free(a);
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_block *b = a->head;
	size_t need = (size + 15) & ~(size_t)15;
	void *p;

	if (!b || b->size - b->used < need) {
		size_t room = b ? b->size * 2 : ARENA_FIRST;

		room = room > ARENA_BLOCK ? ARENA_BLOCK : room;
		room = need > room ? need : room;
		b = check(malloc(sizeof(*b) + room));
		b->size = room;
		b->used = 0;
		b->next = a->head;
		a->head = b;
	}
	p = b->data + b->used;
	b->used += need;
	memset(p, 0, size);
	return p;
}

char *arena_dup(struct arena *a, const char *s)
{
	size_t len;
	char *p;

	if (!s)
		return NULL;
	len = strlen(s) + 1;
	p = arena_alloc(a, len);
	memcpy(p, s, len);
	return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;
	char *p;
	int len;

	va_start(ap, fmt);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	p = arena_alloc(a, (size_t)(len < 0 ? 0 : len) + 1);
	vsnprintf(p, (size_t)(len < 0 ? 0 : len) + 1, fmt, again);
	va_end(again);
	return p;
}

void *arena_grow(struct arena *a, void *items, size_t count, size_t size)
{
	size_t cap = capacity_of(count);
	void *p = items;

	if (count == cap) {
		p = arena_alloc(a, (cap ? cap * 2 : 4) * size);
		if (count)
			memcpy(p, items, count * size);
	}
	memset((char *)p + count * size, 0, size);
	return p;
}
