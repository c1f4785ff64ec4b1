/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saves services.yaml and looks, in the kernel's own tables, when the slots
 * of a service change.  The daemon is not asked.
 *
 *   save_bench BPFFS SERVICE FILE NEW rename|write
 *
 * FILE becomes what NEW holds: NEW is renamed over it, or written into it.
 * The clock starts right before the call that completes the save (rename or
 * close).  Prints when the first and when the last slot changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/mem.h"
#include "bpf/xlb.h"
#include "loop.h"

#define PATIENCE (10 * NS_PER_S)
#define QUIET (30 * NS_PER_MS) /* without a change: that was all */

struct table {
	const volatile uint32_t *words;
	uint32_t count;
};

static void die(const char *what)
{
	fprintf(stderr, "save_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const void *map_of(const char *bpffs, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", bpffs, name);
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_obj_get(path);
	size_t page = 4096, size;
	void *mem;

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len))
		die(path);
	size = (size_t)info.max_entries * info.value_size;
	size = (size + page - 1) / page * page;
	mem = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		die(path);
	close(fd);
	return mem;
}

static struct table find_table(const char *bpffs, const char *service)
{
	const struct xlb_service *services = map_of(bpffs, "services");
	const uint32_t *slots = map_of(bpffs, "slots");

	for (uint32_t id = 1; id < XLB_SERVICES; id++)
		if (!strcmp(services[id].name, service))
			return (struct table){ slots + services[id].slot_base,
					       1u << services[id].slot_log2 };
	errno = ENOENT;
	die(service);
	return (struct table){ 0 };
}

/* When the save was complete. */
static uint64_t save_by_rename(const char *to, const char *from)
{
	uint64_t at = clock_ns();

	if (rename(from, to))
		die(to);
	return at;
}

static uint64_t save_by_write(const char *file, const char *new)
{
	int in = open(new, O_RDONLY | O_CLOEXEC);
	int out = open(file, O_WRONLY | O_TRUNC | O_CLOEXEC);
	char text[65536];
	uint64_t at;
	ssize_t n;

	if (in < 0 || out < 0)
		die(file);
	while ((n = read(in, text, sizeof(text))) > 0)
		if (write(out, text, (size_t)n) != n)
			die(file);
	close(in);
	at = clock_ns();
	if (close(out))
		die(file);
	return at;
}

/* Takes over what changed; how much that was. */
static uint32_t look(const struct table *t, uint32_t *seen)
{
	uint32_t changed = 0;

	for (uint32_t i = 0; i < t->count; i++) {
		uint32_t word = t->words[i];

		changed += seen[i] != word;
		seen[i] = word;
	}
	return changed;
}

static int watch(const struct table *t, uint32_t *seen, uint64_t saved)
{
	uint64_t first = 0, last = 0, now;
	uint32_t changed = 0;

	do {
		uint32_t more = look(t, seen);

		now = clock_ns();
		changed += more;
		if (more)
			last = now;
		if (more && !first)
			first = now;
	} while (now < (last ? last + QUIET : saved + PATIENCE));
	if (!first) {
		fprintf(stderr, "save_bench: no slot changed\n");
		return 1;
	}
	printf("{\"first_ms\": %.4f, \"last_ms\": %.4f, \"changed\": %u, "
	       "\"slots\": %u}\n",
	       (double)(first - saved) / 1e6, (double)(last - saved) / 1e6,
	       changed, t->count);
	return 0;
}

int main(int argc, char **argv)
{
	struct table t;
	uint32_t *seen;

	if (argc != 6) {
		fprintf(stderr, "usage: save_bench BPFFS SERVICE FILE NEW "
				"rename|write\n");
		return 64;
	}
	t = find_table(argv[1], argv[2]);
	seen = mem_array(t.count, sizeof(*seen));
	look(&t, seen);
	return watch(&t, seen,
		     !strcmp(argv[5], "rename")
			     ? save_by_rename(argv[3], argv[4])
			     : save_by_write(argv[3], argv[4]));
}
