/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory: heap helpers that never return NULL (the reconciler is crash-only:
 * out of memory ends it, and the next start reads everything again), and an
 * arena for things that are freed whole.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
	((type *)((char *)(ptr)-offsetof(type, member)))

void *mem_alloc(size_t size); /* zeroed */
void *mem_array(size_t count, size_t size); /* zeroed; overflow checked */
void *mem_resize(void *p, size_t count, size_t size);
char *mem_dup(const char *s); /* NULL stays NULL */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free_ptr(
	void *p); /* for cleanup attributes: p is a pointer's address */

#define AUTO_FREE __attribute__((cleanup(mem_free_ptr)))

/*
 * Make room for one more in a growing array and return its zeroed place:
 *   struct foo *f = MEM_PUSH(list->items, list->count);
 * Capacity grows by doubling at powers of two of the count.
 */
#define MEM_PUSH(items, count)                                   \
	((items) = mem_grow((items), (count), sizeof(*(items))), \
	 &(items)[(count)++])
void *mem_grow(void *items, size_t count, size_t size);

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *a); /* NULL is fine */
void *arena_alloc(struct arena *a, size_t size); /* zeroed, 16-byte aligned */
char *arena_dup(struct arena *a, const char *s); /* NULL stays NULL */
char *arena_printf(struct arena *a, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* MEM_PUSH whose old blocks are freed with the arena. */
#define ARENA_PUSH(a, items, count)                                     \
	((items) = arena_grow((a), (items), (count), sizeof(*(items))), \
	 &(items)[(count)++])
void *arena_grow(struct arena *a, void *items, size_t count, size_t size);

#endif
