/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/lib/bpf_lab.h"

#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "tests/lib/packet_make.h"

static int say(enum libbpf_print_level level, const char *fmt, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, args) : 0;
}

static int fail(const char *what, int err)
{
	fprintf(stderr, "bpf_lab: %s: %s\n", what, strerror(abs(err)));
	return err < 0 ? err : -err;
}

/* The internal map of a section: its name begins with the object's. */
static struct bpf_map *section_map(struct bpf_object *o, const char *section)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, o) {
		const char *dot = strrchr(bpf_map__name(map), '.');

		if (bpf_map__is_internal(map) && dot && !strcmp(dot, section))
			return map;
	}
	return NULL;
}

/* Sets a `const volatile` of the object; one that it lacks is left out. */
static void set_constant(struct bpf_object *o, const char *name, uint64_t value)
{
	const struct btf *btf = bpf_object__btf(o);
	int id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	const struct btf_type *section =
		id < 0 ? NULL : btf__type_by_id(btf, (__u32)id);
	struct bpf_map *map = section_map(o, ".rodata");
	uint8_t *data;
	size_t size;

	if (!section || !map)
		return;
	data = (uint8_t *)bpf_map__initial_value(map, &size);
	for (unsigned int i = 0; data && i < btf_vlen(section); i++) {
		const struct btf_var_secinfo *var =
			btf_var_secinfos(section) + i;
		const struct btf_type *t = btf__type_by_id(btf, var->type);

		if (!strcmp(btf__name_by_offset(btf, t->name_off), name))
			memcpy(data + var->offset, &value, var->size);
	}
}

static void set_entries(struct bpf_object *o, const char *name, uint32_t count)
{
	struct bpf_map *map = bpf_object__find_map_by_name(o, name);

	if (map)
		bpf_map__set_max_entries(map, count);
}

static size_t map_bytes(const struct bpf_map *map)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size =
		(size_t)bpf_map__value_size(map) * bpf_map__max_entries(map);

	return (size + page - 1) / page * page;
}

static void *map_memory(const struct bpf_map *map)
{
	void *at = MAP_FAILED;

	if (map)
		at = mmap(NULL, map_bytes(map), PROT_READ | PROT_WRITE,
			  MAP_SHARED, bpf_map__fd(map), 0);
	return at == MAP_FAILED ? NULL : at;
}

static void *named_memory(struct bpf_object *o, const char *name)
{
	return map_memory(bpf_object__find_map_by_name(o, name));
}

static int map_fd(struct bpf_object *o, const char *name)
{
	return bpf_object__find_map_fd_by_name(o, name);
}

static int map_all(struct bpf_lab *lab, const struct bpf_lab_config *cfg)
{
	struct bpf_object *o = lab->object;

	lab->tables = map_memory(section_map(o, ".bss"));
	lab->slots = named_memory(o, "slots");
	lab->slot_count = cfg->slots;
	lab->lines = named_memory(o, "flows");
	lab->line_count = 1U << cfg->flow_log2;
	lab->counters = named_memory(o, "counters");
	lab->drops = map_fd(o, "drops");
	lab->events = map_fd(o, "events");
	lab->limits = map_fd(o, "limits");
	lab->addresses = map_fd(o, "addresses");
	lab->fragments = map_fd(o, "fragments");
	lab->cursors = map_fd(o, "cursors");
	if (!lab->tables || !lab->slots || !lab->lines || !lab->counters)
		return fail("tables", ENOMEM);
	return 0;
}

static int load(struct bpf_lab *lab, const struct bpf_lab_config *cfg)
{
	const char *build = getenv("XLB_BUILD");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/bpf/%s.bpf.o", build ? build : "build",
		 cfg->tc ? "tc" : "xdp");
	lab->object =
		bpf_object__open_file(cfg->object ? cfg->object : path, NULL);
	if (!lab->object)
		return fail(cfg->object ? cfg->object : path, errno);
	set_constant(lab->object, "flow_seed", cfg->flow_seed);
	set_constant(lab->object, "flow_shift", 32U - cfg->flow_log2);
	set_constant(lab->object, "features",
		     cfg->features ? cfg->features : XLB_FEATURE_ALL);
	set_entries(lab->object, "slots", cfg->slots / XLB_LINE_SLOTS + 1);
	set_entries(lab->object, "moved", cfg->slots / XLB_MOVED_LINE + 1);
	set_entries(lab->object, "flows", 1U << cfg->flow_log2);
	set_entries(lab->object, "counters", lab->cpus * XLB_BACKENDS);
	set_entries(lab->object, "cursors", lab->cpus * XLB_SERVICES);
	if (bpf_object__load(lab->object))
		return fail("load", errno);
	return 0;
}

int bpf_lab_open(struct bpf_lab *lab, const struct bpf_lab_config *cfg)
{
	const char *name = cfg->tc ? "xlb_tc" : "xlb_xdp";
	struct bpf_program *prog;
	int err;

	*lab = (struct bpf_lab){ .tc = cfg->tc,
				 .ifindex = (int)if_nametoindex("lo"),
				 .cpus = (uint32_t)libbpf_num_possible_cpus() };
	libbpf_set_print(say);
	err = load(lab, cfg);
	if (!err)
		err = map_all(lab, cfg);
	if (err)
		return err;
	prog = bpf_object__find_program_by_name(lab->object, name);
	if (!prog)
		return fail(name, ENOENT);
	lab->prog = bpf_program__fd(prog);
	/* A program that is attached somewhere runs without the grace period
	 * that each test run of another one costs. */
	if (!cfg->tc &&
	    bpf_xdp_attach(lab->ifindex, lab->prog, XDP_FLAGS_SKB_MODE, NULL))
		return fail("attach", errno);
	return 0;
}

static void unmap(const struct bpf_map *map, void *at)
{
	if (map && at)
		munmap(at, map_bytes(map));
}

void bpf_lab_close(struct bpf_lab *lab)
{
	struct bpf_object *o = lab->object;

	if (!o)
		return;
	unmap(section_map(o, ".bss"), lab->tables);
	unmap(bpf_object__find_map_by_name(o, "slots"), lab->slots);
	unmap(bpf_object__find_map_by_name(o, "flows"), lab->lines);
	unmap(bpf_object__find_map_by_name(o, "counters"), lab->counters);
	bpf_object__close(o);
	lab->object = NULL;
}

static int loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	err = ioctl(fd, SIOCSIFFLAGS, &r) ? -errno : 0;
	close(fd);
	return err;
}

int bpf_lab_enter(void)
{
	int cpu = sched_getcpu();
	cpu_set_t set;

	if (unshare(CLONE_NEWNET))
		return -errno;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) || loopback_up())
		return -errno;
	return cpu;
}

static enum lab_verdict tc_verdict(uint32_t value)
{
	switch ((int)value) {
	case TC_ACT_UNSPEC:
	case TC_ACT_OK:
		return LAB_PASS;
	case TC_ACT_SHOT:
		return LAB_DROP;
	case TC_ACT_REDIRECT:
		return LAB_REDIRECT;
	default:
		return LAB_ABORTED;
	}
}

int bpf_lab_run(struct bpf_lab *lab, const void *in, size_t size, void *out,
		size_t *ret_size, enum lab_verdict *ret_verdict)
{
	struct __sk_buff skb = { .ifindex = (__u32)lab->ifindex };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in, .data_out = out,
		    .data_size_in = (__u32)size, .data_size_out = PACKET_MAX,
		    .repeat = 1);

	if (lab->tc) {
		o.ctx_in = &skb;
		o.ctx_size_in = sizeof(skb);
	}
	if (bpf_prog_test_run_opts(lab->prog, &o))
		return -errno;
	*ret_size = o.data_size_out;
	*ret_verdict =
		lab->tc ? tc_verdict(o.retval) : (enum lab_verdict)o.retval;
	return 0;
}

void bpf_lab_flip(struct bpf_lab *lab, const struct vip_table *t)
{
	struct xlb_tables *tables = lab->tables;
	uint32_t spare = !tables->control.vip_copy;

	memcpy(tables->vips + spare * XLB_VIP_LINES, t->lines,
	       sizeof(t->lines));
	memcpy(tables->displacement + spare * XLB_VIP_BUCKETS, t->displacement,
	       sizeof(t->displacement));
	tables->control.vip_seed[spare] = t->seed;
	__atomic_store_n(&tables->control.vip_copy, spare, __ATOMIC_RELEASE);
}

int bpf_lab_percpu(int fd, uint64_t *ret, uint32_t n)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t values[1024];

	if (cpus < 1 || cpus > 1024)
		return -EINVAL;
	for (uint32_t key = 0; key < n; key++) {
		if (bpf_map_lookup_elem(fd, &key, values))
			return -errno;
		ret[key] = 0;
		for (int i = 0; i < cpus; i++)
			ret[key] += values[i];
	}
	return 0;
}

/* As the programs lay it out. */
struct bucket {
	uint64_t refilled;
	uint32_t tokens;
	uint32_t skipped;
};

int bpf_lab_tokens(struct bpf_lab *lab, bool full)
{
	struct bucket buckets[64];
	struct timespec now;
	uint32_t key = 0;

	if (lab->cpus > 64)
		return -E2BIG;
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (uint32_t i = 0; i < lab->cpus; i++)
		buckets[i] = (struct bucket){
			.refilled = (uint64_t)now.tv_sec * 1000000000 +
				    (uint64_t)now.tv_nsec,
			.tokens = full ? 131072 : 0,
		};
	return bpf_map_update_elem(lab->limits, &key, buckets, BPF_ANY) ? -errno
									: 0;
}

void bpf_lab_clear(int fd, size_t key_size)
{
	uint8_t key[128];

	while (key_size <= sizeof(key) && !bpf_map_get_next_key(fd, NULL, key))
		bpf_map_delete_elem(fd, key);
}
