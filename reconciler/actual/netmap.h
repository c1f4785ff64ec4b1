/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A hash map from (interface, address) to a node that its user embeds. */
#ifndef ACTUAL_NETMAP_H
#define ACTUAL_NETMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"

/* Made by netmap_key() only, so that no byte of it is left undefined. */
struct netmap_key {
	int32_t ifindex;
	int32_t family; /* 0: the interface alone, or a MAC in bytes */
	uint8_t bytes[16];
};

/* First member of what is stored, which is one malloc'ed block. */
struct netmap_node {
	struct netmap_node *next;
	struct netmap_key key;
};

struct netmap {
	struct netmap_node **buckets;
	size_t size; /* a power of two, or 0 */
	size_t count;
};

struct netmap_key netmap_key(int ifindex, const struct ip *a);
struct netmap_key netmap_key_mac(int ifindex, const uint8_t mac[6]);

void *netmap_find(const struct netmap *m, const struct netmap_key *key);
/* The node of that key; made, `size` zeroed bytes, if there is none. */
void *netmap_need(struct netmap *m, const struct netmap_key *key, size_t size);
/* true when there was one, which is freed. */
bool netmap_remove(struct netmap *m, const struct netmap_key *key);
/* Frees every node for which drop() says so; true when there was one. */
bool netmap_remove_if(struct netmap *m,
		      bool (*drop)(void *arg, struct netmap_node *node),
		      void *arg);
/* All nodes in no order: start with NULL; NULL ends it. */
void *netmap_next(const struct netmap *m, const void *node);
void netmap_release(struct netmap *m); /* frees all, leaves an empty map */

#endif
