/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A collision-free hash table by hash and displace: the high bits of a key's
 * hash name a bucket, and every bucket has a displacement, chosen here, that
 * sends all its keys to free lines.  Full buckets choose first, while there is
 * most room.  A lookup is one hash, two loads and one comparison.
 *
 * Two keys of one bucket that agree in the hash bits that name the line can't
 * be told apart by any displacement; then the whole table is built with
 * another seed (about every fifth full table needs that once).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tables/tables.h"

#define SEEDS 1000 /* tries; the chance of needing 100 is below 1e-60 */

struct builder {
	const struct xlb_vip *vips;
	uint32_t count;
	uint64_t hashes[XLB_VIP_MAX];
	uint16_t order[XLB_VIP_MAX]; /* keys by bucket, fullest bucket first */
	uint16_t first[XLB_VIP_BUCKETS]; /* where a bucket starts in order[] */
	uint16_t sizes[XLB_VIP_BUCKETS];
	uint16_t buckets[XLB_VIP_BUCKETS]; /* by size, descending */
};

static uint64_t hash_key(const uint32_t addr[4], int family, uint16_t port_be,
			 uint8_t proto, uint64_t seed)
{
	uint64_t low = addr[0], high = 0;

	if (family == 6) {
		memcpy(&low, addr, sizeof(low));
		memcpy(&high, addr + 2, sizeof(high));
	}
	return xlb_vip_hash(low, high, port_be, proto, family == 6, seed);
}

static bool same_key(const struct xlb_vip *v, const uint32_t addr[4],
		     int family, uint16_t port_be, uint8_t proto)
{
	size_t size = family == 6 ? 16 : 4;

	return v->proto == proto && v->family == family && v->port == port_be &&
	       !memcmp(v->addr, addr, size);
}

static uint32_t line_of(uint64_t hash, uint32_t displacement)
{
	return ((uint32_t)(hash >> 32) ^ displacement) & (XLB_VIP_LINES - 1);
}

static uint32_t bucket_of(uint64_t hash)
{
	return (uint32_t)(hash >> 52);
}

static uint32_t filter_of(uint64_t hash)
{
	return 1u << (16 + ((hash >> 48) & 15));
}

_Static_assert(XLB_VIP_LINES <= 1 << 16, "a displacement is a half");
_Static_assert(XLB_VIP_BUCKETS == 1 << 12, "bucket_of takes 12 bits");

/* Buckets by size, descending: a counting sort over the sizes. */
static void sort_buckets(struct builder *b)
{
	AUTO_FREE uint16_t *starts = mem_array(b->count + 2, sizeof(*starts));
	uint16_t position = 0;

	for (uint32_t i = 0; i < XLB_VIP_BUCKETS; i++)
		starts[b->sizes[i]]++;
	for (uint32_t size = b->count + 1; size-- > 0;) {
		uint16_t same = starts[size];

		starts[size] = position;
		position = (uint16_t)(position + same);
	}
	for (uint32_t i = 0; i < XLB_VIP_BUCKETS; i++)
		b->buckets[starts[b->sizes[i]]++] = (uint16_t)i;
}

/* Hash all keys and gather them by bucket. */
static void gather(struct builder *b, uint64_t seed)
{
	uint16_t position = 0;

	memset(b->sizes, 0, sizeof(b->sizes));
	for (uint32_t i = 0; i < b->count; i++) {
		const struct xlb_vip *v = &b->vips[i];

		b->hashes[i] =
			hash_key(v->addr, v->family, v->port, v->proto, seed);
		b->sizes[bucket_of(b->hashes[i])]++;
	}
	for (uint32_t i = 0; i < XLB_VIP_BUCKETS; i++) {
		b->first[i] = position;
		position = (uint16_t)(position + b->sizes[i]);
	}
	/* Filling moves each first[] to its end; the sizes move it back. */
	for (uint32_t i = 0; i < b->count; i++)
		b->order[b->first[bucket_of(b->hashes[i])]++] = (uint16_t)i;
	for (uint32_t i = 0; i < XLB_VIP_BUCKETS; i++)
		b->first[i] = (uint16_t)(b->first[i] - b->sizes[i]);
	sort_buckets(b);
}

/* 0, -EEXIST (a triple twice) or -EAGAIN (keys no displacement separates). */
static int check_bucket(const struct builder *b, uint32_t bucket)
{
	const uint16_t *keys = b->order + b->first[bucket];

	for (uint32_t i = 1; i < b->sizes[bucket]; i++) {
		for (uint32_t j = 0; j < i; j++) {
			const struct xlb_vip *x = &b->vips[keys[i]];
			const struct xlb_vip *y = &b->vips[keys[j]];

			if (line_of(b->hashes[keys[i]], 0) !=
			    line_of(b->hashes[keys[j]], 0))
				continue;
			if (same_key(x, y->addr, y->family, y->port, y->proto))
				return -EEXIST;
			return -EAGAIN;
		}
	}
	return 0;
}

static bool fits(const struct builder *b, const struct vip_table *t,
		 uint32_t bucket, uint32_t displacement)
{
	const uint16_t *keys = b->order + b->first[bucket];

	for (uint32_t i = 0; i < b->sizes[bucket]; i++)
		if (t->lines[line_of(b->hashes[keys[i]], displacement)].proto)
			return false;
	return true;
}

static int place_bucket(const struct builder *b, uint32_t bucket,
			struct vip_table *t)
{
	const uint16_t *keys = b->order + b->first[bucket];
	int err = check_bucket(b, bucket);
	uint32_t d = 0;

	if (err)
		return err;
	while (d < XLB_VIP_LINES && !fits(b, t, bucket, d))
		d++;
	if (d == XLB_VIP_LINES)
		return -EAGAIN;
	t->displacement[bucket] = d;
	for (uint32_t i = 0; i < b->sizes[bucket]; i++) {
		uint64_t hash = b->hashes[keys[i]];

		t->displacement[bucket] |= filter_of(hash);
		t->lines[line_of(hash, d)] = b->vips[keys[i]];
	}
	return 0;
}

static int build_with(struct builder *b, uint64_t seed, struct vip_table *t)
{
	memset(t, 0, sizeof(*t));
	t->seed = seed;
	gather(b, seed);
	for (uint32_t i = 0; i < XLB_VIP_BUCKETS; i++) {
		int err;

		if (!b->sizes[b->buckets[i]])
			break;
		err = place_bucket(b, b->buckets[i], t);
		if (err)
			return err;
	}
	return 0;
}

int vip_table_build(const struct xlb_vip *vips, size_t count, uint64_t seed,
		    struct vip_table *ret)
{
	AUTO_FREE struct builder *b = NULL;
	int err = -EAGAIN;

	if (count > XLB_VIP_MAX)
		return -E2BIG;
	b = mem_alloc(sizeof(*b));
	b->vips = vips;
	b->count = (uint32_t)count;
	for (int i = 0; i < SEEDS && err == -EAGAIN; i++) {
		err = build_with(b, seed, ret);
		seed = seed * 0xD1342543DE82EF95ULL + 0x9E3779B97F4A7C15ULL;
	}
	return err;
}

const struct xlb_vip *vip_table_find(const struct vip_table *t,
				     const uint32_t addr[4], int family,
				     uint16_t port_be, uint8_t proto)
{
	uint64_t hash = hash_key(addr, family, port_be, proto, t->seed);
	uint32_t word = t->displacement[bucket_of(hash)];
	const struct xlb_vip *v = &t->lines[line_of(hash, word)];

	return (word & filter_of(hash)) && proto &&
			       same_key(v, addr, family, port_be, proto)
		       ? v
		       : NULL;
}

bool vip_lines_whole(uint64_t seed, const uint32_t *displacement,
		     const struct xlb_vip *lines)
{
	for (uint32_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *v = &lines[i];
		uint64_t hash;
		uint32_t word;

		if (!v->proto)
			continue;
		hash = hash_key(v->addr, v->family, v->port, v->proto, seed);
		word = displacement[bucket_of(hash)];
		if (!(word & filter_of(hash)) || line_of(hash, word) != i)
			return false;
	}
	return true;
}
