/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/strmap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void strmap_release(struct strmap *m)
{
	free(m->slots);
	*m = (struct strmap){ 0 };
}

static size_t hash_key(const char *key)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	while (*key)
		h = (h ^ (unsigned char)*key++) * 0x100000001b3ULL;
	return (size_t)(h ^ h >> 32);
}

/* The key's slot, or the first one never used on its way. */
static struct strmap_slot *probe(const struct strmap *m, const char *key)
{
	size_t i = hash_key(key);

	for (;; i++) {
		struct strmap_slot *s = &m->slots[i & (m->size - 1)];

		if (!s->key || (s->value && !strcmp(s->key, key)))
			return s;
	}
}

void *strmap_get(const struct strmap *m, const char *key)
{
	return m->size ? probe(m, key)->value : NULL;
}

static void grow(struct strmap *m)
{
	struct strmap old = *m;

	m->size = 16;
	while (m->size < old.count * 4)
		m->size *= 2;
	m->slots = mem_array(m->size, sizeof(*m->slots));
	m->used = m->count = 0;
	for (size_t i = 0; i < old.size; i++)
		if (old.slots[i].value)
			strmap_put(m, old.slots[i].key, old.slots[i].value);
	free(old.slots);
}

void strmap_put(struct strmap *m, const char *key, void *value)
{
	struct strmap_slot *s;

	if (m->used * 2 >= m->size)
		grow(m);
	s = probe(m, key);
	if (!s->key) {
		m->used++;
		m->count++;
	}
	s->key = key;
	s->value = value;
}

/* The slot keeps a key that compares to nothing, so that chains stay whole. */
void strmap_remove(struct strmap *m, const char *key)
{
	struct strmap_slot *s = m->size ? probe(m, key) : NULL;

	if (!s || !s->value)
		return;
	s->key = "";
	s->value = NULL;
	m->count--;
}

void *strmap_next(const struct strmap *m, size_t *i)
{
	while (*i < m->size) {
		void *v = m->slots[(*i)++].value;

		if (v)
			return v;
	}
	return NULL;
}
