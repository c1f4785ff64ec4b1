/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maps and programs: what is pinned is used again, what isn't is made.  The
 * programs are loaded only when the digest of their bytes and constants isn't
 * the one in the control block, so that starting the same binary again
 * changes nothing.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <nettle/sha2.h>

#include "base/log.h"
#include "base/mem.h"

/* Generated, and not as strict as we are. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "bpf/reply.skel.h"
#include "bpf/xdp.skel.h"
#pragma GCC diagnostic pop

#define FLOW_LINES_DEFAULT 65536

const char *const map_names[MAP_COUNT] = {
	[MAP_TABLES] = "tables",       [MAP_SLOTS] = "slots",
	[MAP_FLOWS] = "flows",	       [MAP_COUNTERS] = "counters",
	[MAP_SERVICES] = "services",   [MAP_CURSORS] = "cursors",
	[MAP_DROPS] = "drops",	       [MAP_FRAGMENTS] = "fragments",
	[MAP_ADDRESSES] = "addresses", [MAP_REPLIES] = "replies",
	[MAP_DIRECT] = "direct",       [MAP_OWNERS] = "owners",
	[MAP_MOVED] = "moved",	       [MAP_EVENTS] = "events",
	[MAP_LIMITS] = "limits",
};

const char *const prog_pins[PROG_COUNT] = {
	[PROG_XDP] = "prog_xdp",
	[PROG_REPLY] = "prog_reply",
};

static int libbpf_say(enum libbpf_print_level level, const char *fmt,
		      va_list args)
{
	char line[512];
	int len = vsnprintf(line, sizeof(line), fmt, args);

	if (level == LIBBPF_DEBUG || len <= 0)
		return 0;
	line[strcspn(line, "\n")] = 0;
	log_debug("libbpf", "message=\"%s\"", line);
	return 0;
}

uint32_t prog_id_of(int fd)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len))
		return 0;
	return info.id;
}

/* The object's map that is pinned as map_names[i], or NULL. */
static struct bpf_map *object_map(struct bpf_object *obj, int i)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj) {
		const char *name = bpf_map__name(map);

		if (bpf_map__is_internal(map)) {
			const char *dot = strrchr(name, '.');

			if (i == MAP_TABLES && dot && strcmp(dot, ".bss") == 0)
				return map;
		} else if (strcmp(name, map_names[i]) == 0) {
			return map;
		}
	}
	return NULL;
}

/* How many entries a map gets when it is made; 0: as the object says. */
static uint32_t map_entries(int i, const struct datapath_config *cfg)
{
	uint32_t cpus = (uint32_t)libbpf_num_possible_cpus();

	switch ((enum map_index)i) {
	case MAP_SLOTS:
		return cfg->slots / XLB_LINE_SLOTS + 1;
	case MAP_MOVED:
		return cfg->slots / XLB_MOVED_LINE + 1;
	case MAP_FLOWS:
		return cfg->flow_lines ? cfg->flow_lines : FLOW_LINES_DEFAULT;
	case MAP_COUNTERS:
		return cpus * XLB_BACKENDS;
	case MAP_CURSORS:
		return cpus * XLB_SERVICES;
	case MAP_TABLES:
	case MAP_SERVICES:
	case MAP_DROPS:
	case MAP_EVENTS:
	case MAP_LIMITS:
	case MAP_FRAGMENTS:
	case MAP_ADDRESSES:
	case MAP_REPLIES:
	case MAP_DIRECT:
	case MAP_OWNERS:
	case MAP_COUNT:
		break;
	}
	return 0;
}

static int map_make(struct datapath *d, int i, struct bpf_map *map,
		    const struct datapath_config *cfg)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts,
		    .map_flags = bpf_map__map_flags(map));
	uint32_t entries = map_entries(i, cfg);
	int fd, err;

	fd = bpf_map_create(bpf_map__type(map), map_names[i],
			    bpf_map__key_size(map), bpf_map__value_size(map),
			    entries ? entries : bpf_map__max_entries(map),
			    &opts);
	if (fd < 0)
		return -errno;
	err = pin_put(d, map_names[i], fd);
	if (!err)
		return fd;
	close(fd);
	return err;
}

/*
 * What is mapped needs a descriptor that could write: the kernel takes a
 * read-only one for a private mapping and refuses.  The mapping is read-only.
 */
static int map_get_read_only(struct datapath *d, int i)
{
	LIBBPF_OPTS(bpf_obj_get_opts, opts,
		    .file_flags = i <= MAP_COUNTERS ? 0 : BPF_F_RDONLY);
	AUTO_FREE char *path = pin_path(d, map_names[i]);
	int fd = bpf_obj_get_opts(path, &opts);

	return fd < 0 ? -errno : fd;
}

/* A pinned map of another shape is another version's. */
static int map_check(int fd, const struct bpf_map *map)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	if (info.type != bpf_map__type(map) ||
	    info.key_size != bpf_map__key_size(map) ||
	    info.value_size != bpf_map__value_size(map))
		return -EPROTO;
	return 0;
}

static int map_open(struct datapath *d, int i, struct bpf_map *map,
		    const struct datapath_config *cfg)
{
	int fd, err;

	if (!map)
		return -ENOENT;
	fd = d->read_only ? map_get_read_only(d, i) : pin_get(d, map_names[i]);
	if (fd == -ENOENT && !d->read_only)
		return map_make(d, i, map, cfg);
	if (fd < 0)
		return fd;
	err = map_check(fd, map);
	if (!err)
		return fd;
	close(fd);
	return err;
}

static void map_complain(const struct datapath *d, int i, int err,
			 struct diag_list *diags)
{
	if (err == -ENOENT && d->read_only)
		return;
	if (err == -EPROTO)
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "use that version, or remove its pins: "
			 "xlb-reconcile destroy",
			 "%s/%s was made by another version of xlb", d->dir,
			 map_names[i]);
	else
		diag_add(diags, SEVERITY_ERROR, NULL,
			 err == -EPERM || err == -EACCES ? "run as root" : NULL,
			 "can't open or make the map %s/%s: %s", d->dir,
			 map_names[i], strerror(-err));
}

/*
 * Not by the skeletons' own functions, which would map every table once more.
 * Of the skeletons serve the bytes and the layout of the constants.
 */
static struct bpf_object *object_open(enum prog_index i)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts,
		    .object_name = i == PROG_XDP ? "xdp" : "reply");
	size_t size;
	const void *bytes = i == PROG_XDP ? xdp_bpf__elf_bytes(&size)
					  : reply_bpf__elf_bytes(&size);

	return bpf_object__open_mem(bytes, size, &opts);
}

int load_maps(struct datapath *d, const struct datapath_config *cfg,
	      struct diag_list *diags)
{
	struct bpf_object *obj;
	int err = 0;

	libbpf_set_print(libbpf_say);
	obj = object_open(PROG_XDP);
	if (!obj)
		return -errno;
	for (int i = 0; i < MAP_COUNT; i++) {
		int fd = map_open(d, i, object_map(obj, i), cfg);

		if (fd < 0) {
			map_complain(d, i, fd, diags);
			err = fd;
			break;
		}
		d->map_fd[i] = fd;
	}
	bpf_object__close(obj);
	return err;
}

static int reuse_maps(struct datapath *d, struct bpf_object *obj)
{
	for (int i = 0; i < MAP_COUNT; i++) {
		struct bpf_map *map = object_map(obj, i);
		int err = map ? bpf_map__reuse_fd(map, d->map_fd[i]) : -ENOENT;

		if (err)
			return err;
	}
	return 0;
}

static uint32_t flow_shift_of(const struct datapath *d)
{
	return 32 - (uint32_t)__builtin_ctz(d->view.flow_lines);
}

static void build_digest(const struct datapath *d, uint8_t ret[32])
{
	uint64_t constants[] = { d->view.control->flow_seed, flow_shift_of(d) };
	struct sha256_ctx sha;
	const void *bytes;
	size_t size;

	sha256_init(&sha);
	bytes = xdp_bpf__elf_bytes(&size);
	sha256_update(&sha, size, bytes);
	bytes = reply_bpf__elf_bytes(&size);
	sha256_update(&sha, size, bytes);
	sha256_update(&sha, sizeof(constants), (const void *)constants);
	sha256_digest(&sha, 32, ret);
}

static int take_program(struct datapath *d, enum prog_index i,
			const struct bpf_object *obj)
{
	static const char *const names[PROG_COUNT] = {
		[PROG_XDP] = "xlb_xdp",
		[PROG_REPLY] = "xlb_reply",
	};
	int fd = dup(bpf_program__fd(
		bpf_object__find_program_by_name(obj, names[i])));

	if (fd < 0)
		return -errno;
	if (d->prog_fd[i] >= 0)
		close(d->prog_fd[i]);
	d->prog_fd[i] = fd;
	d->prog_id[i] = prog_id_of(fd);
	return 0;
}

static struct bpf_map *constants_map(struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj) {
		const char *dot = strrchr(bpf_map__name(map), '.');

		if (dot && strcmp(dot, ".rodata") == 0)
			return map;
	}
	return NULL;
}

/* The section is as long as the struct, but for padding at its end. */
static int set_constants(const struct datapath *d, struct bpf_object *obj)
{
	struct bpf_map *map = constants_map(obj);
	struct xdp_bpf__rodata constants;
	const void *initial;
	size_t size = 0;

	initial = map ? bpf_map__initial_value(map, &size) : NULL;
	if (!initial || size > sizeof(constants))
		return -ENOENT;
	memcpy(&constants, initial, size);
	constants.flow_seed = d->view.control->flow_seed;
	constants.flow_shift = flow_shift_of(d);
	return bpf_map__set_initial_value(map, &constants, size);
}

static int load_program(struct datapath *d, enum prog_index i)
{
	struct bpf_object *obj = object_open(i);
	int err = 0;

	if (!obj)
		return -errno;
	if (i == PROG_XDP)
		err = set_constants(d, obj);
	if (!err)
		err = reuse_maps(d, obj);
	if (!err)
		err = bpf_object__load(obj);
	if (!err)
		err = take_program(d, i, obj);
	bpf_object__close(obj);
	return err;
}

/* Programs of this very build that are pinned already. */
static bool take_pinned(struct datapath *d)
{
	for (int i = 0; i < PROG_COUNT; i++) {
		int fd = pin_get(d, prog_pins[i]);

		if (fd < 0)
			return false;
		d->prog_fd[i] = fd;
		d->prog_id[i] = prog_id_of(fd);
	}
	return true;
}

static void forget_programs(struct datapath *d)
{
	for (int i = 0; i < PROG_COUNT; i++) {
		if (d->prog_fd[i] >= 0)
			close(d->prog_fd[i]);
		d->prog_fd[i] = -1;
		d->prog_id[i] = 0;
	}
}

/*
 * New programs take over before they are pinned and before the digest is
 * written: a crash in between only makes the next start do this again.
 */
static int load_new(struct datapath *d, struct diag_list *diags)
{
	int err = load_program(d, PROG_XDP);

	if (!err)
		err = load_program(d, PROG_REPLY);
	if (err) {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "run with -v for the verifier's words",
			 "the kernel refuses the packet program: %s",
			 strerror(-err));
		return err;
	}
	err = attach_swap(d, diags);
	for (int i = 0; !err && i < PROG_COUNT; i++) {
		err = pin_put(d, prog_pins[i], d->prog_fd[i]);
		if (err)
			diag_add(diags, SEVERITY_ERROR, NULL, NULL,
				 "can't pin %s/%s: %s", d->dir, prog_pins[i],
				 strerror(-err));
	}
	return err;
}

int load_programs(struct datapath *d, struct diag_list *diags)
{
	struct xlb_tables *tables = d->mapped[MAP_TABLES];
	uint8_t digest[32];
	int err;

	if (d->read_only) {
		take_pinned(d);
		return 0;
	}
	build_digest(d, digest);
	if (memcmp(digest, tables->control.build, sizeof(digest)) == 0 &&
	    take_pinned(d))
		return 0;
	forget_programs(d);
	err = load_new(d, diags);
	if (!err)
		memcpy(tables->control.build, digest, sizeof(digest));
	return err;
}
