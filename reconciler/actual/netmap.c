/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "actual/netmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct netmap_key netmap_key(int ifindex, const struct ip *a)
{
	struct netmap_key key = { .ifindex = ifindex };

	if (a) {
		key.family = a->family;
		memcpy(key.bytes, a->bytes, sizeof(key.bytes));
	}
	return key;
}

struct netmap_key netmap_key_mac(int ifindex, const uint8_t mac[6])
{
	struct netmap_key key = { .ifindex = ifindex };

	memcpy(key.bytes, mac, 6);
	return key;
}

/*
 * By words: a multiplication carries upwards only, so the upper half comes
 * down after each.  Keys come from the local network's administrator and the
 * kernel: they are no attack.
 */
static size_t bucket_of(const struct netmap *m, const struct netmap_key *key)
{
	uint64_t words[3], h = 0;

	_Static_assert(sizeof(words) == sizeof(*key), "words of a key");
	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
	}
	return (size_t)h & (m->size - 1);
}

static bool same_key(const struct netmap_key *a, const struct netmap_key *b)
{
	return a->ifindex == b->ifindex && a->family == b->family &&
	       memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* Where the pointer to that key's node is, or would be. */
static struct netmap_node **place_of(const struct netmap *m,
				     const struct netmap_key *key)
{
	struct netmap_node **p = &m->buckets[bucket_of(m, key)];

	while (*p && !same_key(&(*p)->key, key))
		p = &(*p)->next;
	return p;
}

void *netmap_find(const struct netmap *m, const struct netmap_key *key)
{
	return m->size ? *place_of(m, key) : NULL;
}

static void grow(struct netmap *m)
{
	struct netmap bigger = { .size = m->size ? m->size * 2 : 16 };
	struct netmap_node *next;

	bigger.buckets = mem_array(bigger.size, sizeof(void *));
	for (size_t i = 0; i < m->size; i++) {
		for (struct netmap_node *n = m->buckets[i]; n; n = next) {
			size_t b = bucket_of(&bigger, &n->key);

			next = n->next;
			n->next = bigger.buckets[b];
			bigger.buckets[b] = n;
		}
	}
	free(m->buckets);
	m->buckets = bigger.buckets;
	m->size = bigger.size;
}

void *netmap_need(struct netmap *m, const struct netmap_key *key, size_t size)
{
	struct netmap_node *n = netmap_find(m, key);
	size_t b;

	if (n)
		return n;
	if (m->count >= m->size)
		grow(m);
	n = mem_alloc(size);
	n->key = *key;
	b = bucket_of(m, key);
	n->next = m->buckets[b];
	m->buckets[b] = n;
	m->count++;
	return n;
}

static void unlink_node(struct netmap *m, struct netmap_node **p)
{
	struct netmap_node *n = *p;

	*p = n->next;
	m->count--;
	free(n);
}

bool netmap_remove(struct netmap *m, const struct netmap_key *key)
{
	struct netmap_node **p = m->size ? place_of(m, key) : NULL;

	if (!p || !*p)
		return false;
	unlink_node(m, p);
	return true;
}

static bool sweep_bucket(struct netmap *m, struct netmap_node **p,
			 bool (*drop)(void *arg, struct netmap_node *node),
			 void *arg)
{
	bool any = false;

	while (*p) {
		if (drop(arg, *p)) {
			unlink_node(m, p);
			any = true;
		} else {
			p = &(*p)->next;
		}
	}
	return any;
}

bool netmap_remove_if(struct netmap *m,
		      bool (*drop)(void *arg, struct netmap_node *node),
		      void *arg)
{
	bool any = false;

	for (size_t i = 0; i < m->size; i++) {
		if (sweep_bucket(m, &m->buckets[i], drop, arg))
			any = true;
	}
	return any;
}

void *netmap_next(const struct netmap *m, const void *node)
{
	const struct netmap_node *n = node;
	size_t i = 0;

	if (n) {
		if (n->next)
			return n->next;
		i = bucket_of(m, &n->key) + 1;
	}
	for (; i < m->size; i++) {
		if (m->buckets[i])
			return m->buckets[i];
	}
	return NULL;
}

void netmap_release(struct netmap *m)
{
	for (size_t i = 0; i < m->size; i++) {
		while (m->buckets[i])
			unlink_node(m, &m->buckets[i]);
	}
	free(m->buckets);
	*m = (struct netmap){ 0 };
}
