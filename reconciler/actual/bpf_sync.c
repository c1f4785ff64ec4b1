/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A map's contents against what they should be: both sides sorted by key,
 * walked once.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/mem.h"

struct key_list {
	char *keys;
	size_t count;
	size_t size; /* of one key */
};

static int compare_bytes(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

static int keys_read(int fd, size_t size, struct key_list *ret)
{
	size_t room = 64;

	ret->keys = mem_array(room, size);
	ret->count = 0;
	ret->size = size;
	for (;;) {
		const char *last =
			ret->count ? ret->keys + (ret->count - 1) * size : NULL;

		if (ret->count + 1 >= room) {
			room *= 2;
			ret->keys = mem_resize(ret->keys, room, size);
			last = ret->keys + (ret->count - 1) * size;
		}
		if (bpf_map_get_next_key(fd, last,
					 ret->keys + ret->count * size))
			break;
		ret->count++;
	}
	if (errno != ENOENT)
		return -errno;
	if (ret->count)
		qsort_r(ret->keys, ret->count, size, compare_bytes, &size);
	return 0;
}

/* 1: written, 0: it was there already. */
static int entry_write(const struct map_set *want, const char *entry,
		       bool exists, void *scratch)
{
	const char *value = entry + want->key_size;

	if (exists && bpf_map_lookup_elem(want->fd, entry, scratch) == 0 &&
	    memcmp(scratch, value, want->value_size) == 0)
		return 0;
	if (bpf_map_update_elem(want->fd, entry, value, BPF_ANY))
		return -errno;
	return 1;
}

/*
 * Write what is wanted and mark, by moving them to the front, the present
 * keys that aren't; their number in *ret_surplus.
 */
static int entries_write(const struct map_set *want, const char *sorted,
			 struct key_list *present, size_t *ret_surplus,
			 size_t *changed)
{
	size_t stride = want->key_size + want->value_size;
	AUTO_FREE char *scratch = mem_alloc(want->value_size);
	size_t surplus = 0;
	size_t at = 0;

	for (size_t i = 0; i <= want->count; i++) {
		const char *entry = sorted + i * stride;
		bool exists = false;
		int err;

		if (i && i < want->count &&
		    memcmp(entry - stride, entry, want->key_size) == 0)
			continue;
		while (at < present->count) {
			char *key = present->keys + at * present->size;
			int order = i == want->count ? -1
						     : memcmp(key, entry,
							      want->key_size);

			if (order > 0)
				break;
			at++;
			exists = order == 0;
			if (exists)
				break;
			memmove(present->keys + surplus++ * present->size, key,
				present->size);
		}
		if (i == want->count)
			break;
		err = entry_write(want, entry, exists, scratch);
		if (err < 0)
			return err;
		*changed += (size_t)err;
	}
	*ret_surplus = surplus;
	return 0;
}

int map_sync(const struct map_set *want, bool keep, size_t *ret_changed)
{
	size_t stride = want->key_size + want->value_size;
	AUTO_FREE char *sorted = mem_array(want->count + 1, stride);
	struct key_list present = { 0 };
	size_t key_size = want->key_size;
	size_t surplus = 0;
	size_t changed = 0;
	int err;

	if (want->count) {
		memcpy(sorted, want->entries, want->count * stride);
		qsort_r(sorted, want->count, stride, compare_bytes, &key_size);
	}
	err = keys_read(want->fd, want->key_size, &present);
	if (!err)
		err = entries_write(want, sorted, &present, &surplus, &changed);
	for (size_t i = 0; !err && !keep && i < surplus; i++) {
		if (bpf_map_delete_elem(want->fd,
					present.keys + i * present.size) &&
		    errno != ENOENT)
			err = -errno;
		changed++;
	}
	mem_free_ptr(&present.keys);
	if (ret_changed)
		*ret_changed = changed;
	return err;
}

#define BATCH 4096u /* entries a system call */

/*
 * Thousands of entries with a few system calls.  0 or -errno; a hash map's
 * last batch ends with -ENOENT, and kernels before 5.6 know no batches.
 */
static int read_batches(struct map_copy *copy, int fd, size_t key_size,
			size_t value_size)
{
	size_t stride = key_size + value_size, room = 0;
	AUTO_FREE char *keys = mem_array(BATCH, key_size);
	AUTO_FREE char *values = mem_array(BATCH, value_size);
	char token[64] = "";
	bool more = true;

	copy->count = 0;
	for (int n = 0; more; n++) {
		uint32_t count = BATCH;

		if (bpf_map_lookup_batch(fd, n ? token : NULL, token, keys,
					 values, &count, NULL)) {
			if (errno != ENOENT)
				return -errno;
			more = false;
		}
		if (copy->count + count >= room) {
			room = (copy->count + count + 1) * 2;
			copy->entries = mem_resize(copy->entries, room, stride);
		}
		for (uint32_t i = 0; i < count; i++, copy->count++) {
			char *entry = copy->entries + copy->count * stride;

			memcpy(entry, keys + i * key_size, key_size);
			memcpy(entry + key_size, values + i * value_size,
			       value_size);
		}
	}
	copy->entries = mem_resize(copy->entries, copy->count + 1, stride);
	if (copy->count)
		qsort_r(copy->entries, copy->count, stride, compare_bytes,
			&key_size);
	return 0;
}

static int read_singly(struct map_copy *copy, int fd, size_t key_size,
		       size_t value_size)
{
	struct key_list keys = { 0 };
	size_t stride = key_size + value_size;
	int err = keys_read(fd, key_size, &keys);

	copy->entries = mem_resize(copy->entries, keys.count + 1, stride);
	copy->count = 0;
	for (size_t i = 0; !err && i < keys.count; i++) {
		char *entry = copy->entries + copy->count * stride;

		memcpy(entry, keys.keys + i * key_size, key_size);
		if (!bpf_map_lookup_elem(fd, entry, entry + key_size))
			copy->count++;
	}
	mem_free_ptr(&keys.keys);
	return err;
}

int map_copy_read(struct map_copy *copy, int fd, size_t key_size,
		  size_t value_size)
{
	int err;

	if (copy->valid)
		return 0;
	err = key_size > 64 ? -EINVAL
			    : read_batches(copy, fd, key_size, value_size);
	if (err)
		err = read_singly(copy, fd, key_size, value_size);
	copy->valid = !err;
	return err;
}
