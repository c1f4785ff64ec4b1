/* SPDX-License-Identifier: GPL-2.0-or-later */
/* String keys to pointers; keys are borrowed from the values' owner. */
#ifndef BASE_STRMAP_H
#define BASE_STRMAP_H

#include <stddef.h>

struct strmap_slot {
	const char *key; /* NULL: never used */
	void *value; /* NULL: removed */
};

struct strmap {
	struct strmap_slot *slots;
	size_t size; /* power of two, or 0 */
	size_t used; /* removed ones included */
	size_t count;
};

void strmap_release(struct strmap *m);
void *strmap_get(const struct strmap *m, const char *key);
/* key must stay valid while it is in the map; replaces an equal key. */
void strmap_put(struct strmap *m, const char *key, void *value);
void strmap_remove(struct strmap *m, const char *key);
/* Iterate: size_t i = 0; while ((v = strmap_next(m, &i))) ... removing is fine. */
void *strmap_next(const struct strmap *m, size_t *i);

#endif
