/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maps and programs, one by one: what is pinned is used again, what isn't is
 * made.  bpf_reload.c says when, and puts them in place.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <nettle/sha2.h>

#include "base/log.h"
#include "base/mem.h"

/* Generated, and not as strict as we are. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include "bpf/reply.skel.h"
#include "bpf/reply_trace.skel.h"
#include "bpf/tc.skel.h"
#include "bpf/tc_trace.skel.h"
#include "bpf/xdp.skel.h"
#include "bpf/xdp_trace.skel.h"
#pragma GCC diagnostic pop

/*
 * 2 MiB, which is in the second-level cache with all else.  With four times as
 * much a remembered flow of 64 thousand costs 65 ns instead of 35, and a
 * million flows that find room take longer than the same that find none.
 */
#define FLOW_LINES_DEFAULT 32768

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
	[PROG_TC] = "prog_tc",
	[PROG_REPLY] = "prog_reply",
};

/* The verifier's log comes as one message of any length; its end says why. */
#define LIBBPF_LINES 30

static const char *last_lines(const char *text, size_t count)
{
	const char *at = text + strlen(text);

	while (at > text && (at[-1] != '\n' || count--))
		at--;
	return at;
}

static int libbpf_say(enum libbpf_print_level level, const char *fmt,
		      va_list args)
{
	AUTO_FREE char *text = NULL;

	if (level == LIBBPF_DEBUG || vasprintf(&text, fmt, args) < 0)
		return 0;
	for (const char *at = last_lines(text, LIBBPF_LINES); *at;) {
		size_t len = strcspn(at, "\n");

		if (len)
			log_debug("libbpf", "message=\"%.*s\"", (int)len, at);
		at += len + !!at[len];
	}
	return 0;
}

static uint32_t prog_id_of(int fd)
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

int map_like(const struct datapath *d, enum map_index i, uint32_t entries)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd;

	if (bpf_obj_get_info_by_fd(d->map_fd[i], &info, &len))
		return -errno;
	opts.map_flags = info.map_flags;
	fd = bpf_map_create((enum bpf_map_type)info.type, map_names[i],
			    info.key_size, info.value_size, entries, &opts);
	return fd < 0 ? -errno : fd;
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

/* Calls fn for each map of the program, until it returns true. */
static bool program_maps(int prog,
			 bool (*fn)(void *arg, int fd,
				    const struct bpf_map_info *info),
			 void *arg)
{
	uint32_t ids[64], len;
	struct bpf_prog_info prog_info = { .nr_map_ids = ARRAY_SIZE(ids),
					   .map_ids = (uintptr_t)ids };
	bool done = false;

	len = sizeof(prog_info);
	if (bpf_obj_get_info_by_fd(prog, &prog_info, &len))
		return false;
	for (uint32_t i = 0;
	     !done && i < prog_info.nr_map_ids && i < ARRAY_SIZE(ids); i++) {
		struct bpf_map_info info = { 0 };
		int fd = bpf_map_get_fd_by_id(ids[i]);

		len = sizeof(info);
		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len))
			done = fn(arg, fd, &info);
		if (fd >= 0)
			close(fd);
	}
	return done;
}

struct rescue {
	const char *name;
	int fd; /* -ENOENT: not found */
};

static bool is_named(void *arg, int fd, const struct bpf_map_info *info)
{
	struct rescue *r = arg;

	if (strcmp(info->name, r->name) != 0)
		return false;
	r->fd = dup(fd);
	return true;
}

/* A map whose pin was removed, while the pinned programs still use it. */
static int map_rescue(const struct datapath *d, int i)
{
	struct rescue r = { map_names[i], -ENOENT };

	for (int k = 0; k < PROG_COUNT && r.fd < 0; k++) {
		int prog = pin_get(d, prog_pins[k]);

		if (prog < 0)
			continue;
		program_maps(prog, is_named, &r);
		close(prog);
	}
	if (r.fd >= 0 && pin_put(d, map_names[i], r.fd)) {
		close(r.fd);
		r.fd = -ENOENT;
	}
	return r.fd;
}

static int map_open(struct datapath *d, int i, struct bpf_map *map,
		    const struct datapath_config *cfg)
{
	int fd, err;

	if (!map)
		return -ENOENT;
	fd = d->read_only ? map_get_read_only(d, i) : pin_get(d, map_names[i]);
	if (fd == -ENOENT && !d->read_only)
		fd = map_rescue(d, i);
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
			 "go back to that version; to change, run that "
			 "version's `xlb-reconcile destroy` first",
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
 * Of the skeletons serve the bytes.
 */
static const struct image {
	const char *object, *program;
	const void *(*bytes)(size_t *ret_size);
} images[PROG_COUNT] = {
	[PROG_XDP] = { "xdp", "xlb_xdp", xdp_bpf__elf_bytes },
	[PROG_TC] = { "tc", "xlb_tc", tc_bpf__elf_bytes },
	[PROG_REPLY] = { "reply", "xlb_reply", reply_bpf__elf_bytes },
};

/* The same that sample packets. */
static const struct image traced_images[PROG_COUNT] = {
	[PROG_XDP] = { "xdp", "xlb_xdp", xdp_trace_bpf__elf_bytes },
	[PROG_TC] = { "tc", "xlb_tc", tc_trace_bpf__elf_bytes },
	[PROG_REPLY] = { "reply", "xlb_reply", reply_trace_bpf__elf_bytes },
};

static const struct image *image_of(enum prog_index i, uint32_t features)
{
	return features & XLB_FEATURE_TRACE ? &traced_images[i] : &images[i];
}

static struct bpf_object *object_open(enum prog_index i, uint32_t features)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts,
		    .object_name = image_of(i, features)->object);
	size_t size;
	const void *bytes = image_of(i, features)->bytes(&size);

	return bpf_object__open_mem(bytes, size, &opts);
}

int load_maps(struct datapath *d, const struct datapath_config *cfg,
	      struct diag_list *diags)
{
	struct bpf_object *obj;
	int err = 0;

	libbpf_set_print(libbpf_say);
	obj = object_open(PROG_XDP, 0);
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

static int reuse_maps(const int map_fd[MAP_COUNT], struct bpf_object *obj)
{
	for (int i = 0; i < MAP_COUNT; i++) {
		struct bpf_map *map = object_map(obj, i);
		int err = map ? bpf_map__reuse_fd(map, map_fd[i]) : -ENOENT;

		if (err)
			return err;
	}
	return 0;
}

static int reuse_samples(struct datapath *d, struct bpf_object *obj)
{
	struct bpf_map *map = bpf_object__find_map_by_name(obj, "samples");
	int err = map ? samples_need(d) : 0;

	return map && !err ? bpf_map__reuse_fd(map, d->samples) : err;
}

static uint32_t flow_shift_of(const struct datapath *d)
{
	return 32 - (uint32_t)__builtin_ctz(d->view.flow_lines);
}

void build_digest(const struct datapath *d, uint32_t features, uint8_t ret[32])
{
	uint64_t constants[] = { d->view.control->flow_seed, flow_shift_of(d),
				 features };
	struct sha256_ctx sha;
	const void *bytes;
	size_t size;

	sha256_init(&sha);
	for (int i = 0; i < PROG_COUNT; i++) {
		bytes = image_of((enum prog_index)i, features)->bytes(&size);
		sha256_update(&sha, size, bytes);
	}
	sha256_update(&sha, sizeof(constants), (const void *)constants);
	sha256_digest(&sha, 32, ret);
}

/* Where the variable is in the section of constants; NULL: it has none. */
static const struct btf_var_secinfo *constant_find(const struct btf *btf,
						   const char *name)
{
	int section = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	const struct btf_type *t = btf__type_by_id(btf, (uint32_t)section);
	const struct btf_var_secinfo *v = t ? btf_var_secinfos(t) : NULL;

	for (int i = 0; v && i < btf_vlen(t); i++) {
		const struct btf_type *var = btf__type_by_id(btf, v[i].type);

		if (!strcmp(btf__name_by_offset(btf, var->name_off), name))
			return &v[i];
	}
	return NULL;
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

/* The reply program asks for no hash, so it has not all of them. */
static int set_constants(const struct datapath *d, enum prog_index i,
			 uint32_t features, struct bpf_object *obj)
{
	const uint64_t seed = d->view.control->flow_seed;
	const uint32_t shift = flow_shift_of(d);
	const struct {
		const char *name;
		const void *value;
		size_t size;
	} constants[] = {
		{ "features", &features, sizeof(features) },
		{ "flow_seed", &seed, sizeof(seed) },
		{ "flow_shift", &shift, sizeof(shift) },
	};
	struct bpf_map *map = constants_map(obj);
	AUTO_FREE char *bytes = NULL;
	const void *initial = NULL;
	size_t size = 0;

	if (map)
		initial = bpf_map__initial_value(map, &size);
	if (!initial)
		return -ENOENT;
	bytes = mem_alloc(size);
	memcpy(bytes, initial, size);
	for (size_t k = 0; k < ARRAY_SIZE(constants); k++) {
		const struct btf_var_secinfo *at =
			constant_find(bpf_object__btf(obj), constants[k].name);

		if (at && at->size == constants[k].size &&
		    at->offset + at->size <= size)
			memcpy(bytes + at->offset, constants[k].value,
			       at->size);
		else if (at || i != PROG_REPLY)
			return -ENOENT;
	}
	return bpf_map__set_initial_value(map, bytes, size);
}

static int take_program(const struct bpf_object *obj, enum prog_index i,
			struct programs *ret)
{
	int fd = dup(bpf_program__fd(
		bpf_object__find_program_by_name(obj, images[i].program)));

	if (fd < 0)
		return -errno;
	ret->fd[i] = fd;
	ret->id[i] = prog_id_of(fd);
	return 0;
}

static const struct programs no_programs = { .fd = { -1, -1, -1 } };
_Static_assert(PROG_COUNT == 3, "as many as above");

void programs_release(struct programs *p)
{
	for (int i = 0; i < PROG_COUNT; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	*p = no_programs;
}

struct programs programs_dup(const struct programs *p)
{
	struct programs ret = no_programs;

	for (int i = 0; i < PROG_COUNT; i++)
		if (p->fd[i] >= 0) {
			ret.fd[i] = dup(p->fd[i]);
			ret.id[i] = p->id[i];
		}
	return ret;
}

struct programs programs_take(struct programs *from)
{
	struct programs ret = *from;

	*from = no_programs;
	return ret;
}

int program_load(struct datapath *d, enum prog_index i,
		 const int map_fd[MAP_COUNT], uint32_t features,
		 struct programs *ret, struct diag_list *diags)
{
	struct bpf_object *obj = object_open(i, features);
	int err = obj ? 0 : -errno;

	if (!err)
		err = set_constants(d, i, features, obj);
	if (!err)
		err = reuse_maps(map_fd, obj);
	if (!err)
		err = reuse_samples(d, obj);
	if (!err)
		err = bpf_object__load(obj);
	if (!err)
		err = take_program(obj, i, ret);
	bpf_object__close(obj);
	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "run with -v for the verifier's words",
			 "the kernel refuses the program %s: %s",
			 images[i].program, strerror(-err));
	return err;
}

int program_need(struct datapath *d, enum prog_index i, struct diag_list *diags)
{
	int err;

	if (d->programs.fd[i] >= 0)
		return 0;
	err = program_load(d, i, d->map_fd, d->view.control->features,
			   &d->programs, diags);
	if (err)
		return err;
	err = pin_put(d, prog_pins[i], d->programs.fd[i]);
	if (!err)
		return 0;
	close(d->programs.fd[i]);
	d->programs.fd[i] = -1;
	d->programs.id[i] = 0;
	diag_add(diags, SEVERITY_ERROR, NULL, NULL, "can't pin %s/%s: %s",
		 d->dir, prog_pins[i], strerror(-err));
	return err;
}

static uint32_t map_id_of(int fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

/* A map that is named as one of ours and isn't it. */
static bool is_other(void *arg, int fd, const struct bpf_map_info *info)
{
	const struct datapath *d = arg;

	(void)fd;
	for (int i = 0; i < MAP_COUNT; i++)
		if (!strcmp(info->name, map_names[i]))
			return info->id != map_id_of(d->map_fd[i]);
	return false;
}

bool program_uses_maps(const struct datapath *d, int fd)
{
	return !program_maps(fd, is_other, (void *)d);
}

bool programs_pinned(const struct datapath *d, struct programs *ret)
{
	struct programs p = no_programs;

	for (int i = 0; i < PROG_COUNT; i++) {
		p.fd[i] = pin_get(d, prog_pins[i]);
		p.id[i] = prog_id_of(p.fd[i]);
		if (p.fd[i] == -ENOENT && i == PROG_TC) {
			p.fd[i] = -1;
			continue;
		}
		if (p.fd[i] >= 0 && !program_maps(p.fd[i], is_other, (void *)d))
			continue;
		programs_release(&p);
		return false;
	}
	*ret = p;
	return true;
}
