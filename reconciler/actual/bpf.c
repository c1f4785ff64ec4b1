/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mapped tables and their rules of writing.  The kernel reads them while
 * we write: single words by one store, the VIP table by its spare copy.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"
#include "base/seam.h"

/*
 * Backends of one CPU whose counters are mapped at once (32 KiB): the kernel
 * maps all pages of a map at once, and there are a MiB of counters a CPU, of
 * which few ids are used.
 */
#define WINDOW 1024
#define TICK_DEFAULT 8 /* seconds */

static struct xlb_tables *tables_of(const struct datapath *d)
{
	return d->mapped[MAP_TABLES].mem;
}

int mapping_make(const struct datapath *d, int fd, struct mapping *ret)
{
	int prot = d->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct mapping m = { 0 };

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	m.entries = info.max_entries;
	m.size = (size_t)info.max_entries * ((info.value_size + 7) & ~7u);
	m.size = (m.size + page - 1) / page * page;
	m.mem = mmap(NULL, m.size, prot, MAP_SHARED, fd, 0);
	if (m.mem == MAP_FAILED)
		return -errno;
	*ret = m;
	return 0;
}

void mapping_drop(struct mapping *m)
{
	if (m->mem)
		munmap(m->mem, m->size);
	*m = (struct mapping){ 0 };
}

int stamps_map(const struct datapath *d, int fd, uint32_t first, uint32_t count,
	       struct stamps *ret)
{
	int prot = d->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE), skip = first % page;
	size_t size = ((size_t)skip + count + page - 1) / page * page;
	void *mem = mmap(NULL, size, prot, MAP_SHARED, fd, first - skip);

	if (mem == MAP_FAILED)
		return -errno;
	*ret = (struct stamps){ .at = (uint8_t *)mem + skip,
				.mem = mem,
				.size = size };
	return 0;
}

void stamps_drop(struct stamps *s)
{
	if (s->mem)
		munmap(s->mem, s->size);
	*s = (struct stamps){ 0 };
}

const uint8_t *datapath_stamps(struct datapath *d)
{
	if (!d->all_stamps.at && stamps_map(d, d->map_fd[MAP_MOVED], 0,
					    d->view.slot_count, &d->all_stamps))
		return NULL;
	return d->all_stamps.at;
}

void datapath_stamps_drop(struct datapath *d)
{
	stamps_drop(&d->all_stamps);
}

/* The entries of the flows map, mapped for a moment; NULL with errno. */
static uint64_t *map_flows(const struct datapath *d, size_t *ret_size)
{
	int prot = d->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	void *mem;

	*ret_size = (size_t)d->view.flow_lines * sizeof(struct xlb_flow_line);
	mem = mmap(NULL, *ret_size, prot, MAP_SHARED, d->map_fd[MAP_FLOWS], 0);
	return mem == MAP_FAILED ? NULL : mem;
}

int map_length(int fd, uint32_t *ret)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	*ret = info.max_entries;
	return 0;
}

static int find_cpus(struct datapath *d)
{
	uint32_t entries = 0;
	int err = map_length(d->map_fd[MAP_COUNTERS], &entries);

	if (err)
		return err;
	d->view.cpus = entries / XLB_BACKENDS;
	d->window_count = entries / WINDOW;
	d->windows = mem_array(d->window_count, sizeof(*d->windows));
	return 0;
}

/* Slots and their stamps may be replaced one before the other. */
static uint32_t slots_there_are(const struct datapath *d)
{
	uint32_t slots = d->mapped[MAP_SLOTS].entries * XLB_LINE_SLOTS;

	return slots < d->stamp_count ? slots : d->stamp_count;
}

void view_update(struct datapath *d)
{
	struct xlb_tables *t = tables_of(d);

	d->view.control = &t->control;
	d->view.vips = t->vips;
	d->view.displacement = t->displacement;
	d->view.backends = t->backends;
	d->view.loads = t->loads;
	d->view.slots = d->mapped[MAP_SLOTS].mem;
	d->view.slot_count = slots_there_are(d);
	d->view.services = d->mapped[MAP_SERVICES].mem;
}

static int map_all(struct datapath *d)
{
	uint32_t lines = 0;
	int err;

	for (int i = 0; i < MAP_MAPPED; i++) {
		err = mapping_make(d, d->map_fd[i], &d->mapped[i]);

		if (err)
			return err;
	}
	err = map_length(d->map_fd[MAP_MOVED], &lines);
	if (err)
		return err;
	d->stamp_count = lines * XLB_MOVED_LINE;
	view_update(d);
	err = map_length(d->map_fd[MAP_FLOWS], &d->view.flow_lines);
	return err ? err : find_cpus(d);
}

/* A fresh block becomes ours; one of another layout is refused. */
static int check_abi(struct datapath *d, const struct datapath_config *cfg,
		     struct diag_list *diags)
{
	struct xlb_control *control = &tables_of(d)->control;

	if (control->abi == 0 && !d->read_only) {
		control->flow_seed = cfg->flow_seed;
		control->tick = TICK_DEFAULT;
		control->abi = XLB_ABI;
	}
	if (control->abi == XLB_ABI)
		return 0;
	diag_add(diags, SEVERITY_ERROR, NULL,
		 "go back to that version; to change, run that "
		 "version's `xlb-reconcile destroy` first",
		 "%s was made by another version of xlb (layout %u, ours %u)",
		 d->dir, control->abi, XLB_ABI);
	return -EPROTO;
}

/*
 * Waits until every packet that began before has been finished: membarrier
 * is an RCU grace period, and programs run inside RCU.  Where it isn't
 * offered (nohz_full), the update of a map of maps waits for the same.
 */
static int grace_by_map(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	int inner =
		bpf_map_create(BPF_MAP_TYPE_ARRAY, "grace_in", 4, 4, 1, NULL);
	int outer = -1;
	uint32_t key = 0;
	int err = 0;

	opts.inner_map_fd = (uint32_t)inner;
	if (inner >= 0)
		outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "grace", 4,
				       4, 1, &opts);
	if (outer < 0 || bpf_map_update_elem(outer, &key, &inner, BPF_ANY))
		err = -errno;
	if (outer >= 0)
		close(outer);
	if (inner >= 0)
		close(inner);
	return err;
}

static void *grace_wait(void *arg)
{
	(void)arg;
	while (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) &&
	       grace_by_map())
		usleep(10000);
	return NULL;
}

/* On a thread, so that it is usually over when the next rewrite comes. */
static int grace_start(struct datapath *d)
{
	int err = pthread_create(&d->grace, NULL, grace_wait, NULL);

	d->grace_running = !err;
	return -err;
}

static void grace_finish(struct datapath *d)
{
	if (d->grace_running)
		pthread_join(d->grace, NULL);
	d->grace_running = false;
}

static struct datapath *datapath_new(const struct datapath_config *cfg)
{
	struct datapath *d = mem_alloc(sizeof(*d));

	d->dir = mem_dup(cfg->bpffs);
	d->read_only = cfg->read_only;
	d->samples = -1;
	for (int i = 0; i < MAP_COUNT; i++)
		d->map_fd[i] = -1;
	for (int i = 0; i < PROG_COUNT; i++)
		d->programs.fd[i] = d->before.fd[i] = -1;
	d->tc = mem_alloc(sizeof(*d->tc));
	return d;
}

int datapath_open(const struct datapath_config *cfg, struct datapath **ret,
		  struct diag_list *diags)
{
	struct datapath *d;
	int err;

	if (!cfg->read_only)
		seam_change("datapath_open");
	err = pins_folder(cfg->bpffs, cfg->read_only, diags);
	if (err)
		return err;
	d = datapath_new(cfg);
	err = load_maps(d, cfg, diags);
	if (!err)
		err = map_all(d);
	if (!err)
		err = check_abi(d, cfg, diags);
	if (!err)
		err = load_programs(d, cfg, diags);
	/* A process before us may have flipped a moment ago. */
	if (!err && !d->read_only)
		err = grace_start(d);
	if (err) {
		datapath_close(d);
		return err;
	}
	*ret = d;
	return 0;
}

static const struct xlb_counter *counter_of(struct datapath *d, size_t index)
{
	size_t bytes = WINDOW * sizeof(struct xlb_counter);
	size_t at = index / WINDOW;
	void *mem;

	if (!d->windows[at]) {
		mem = mmap(NULL, bytes, PROT_READ, MAP_SHARED,
			   d->map_fd[MAP_COUNTERS], (off_t)(at * bytes));
		if (mem == MAP_FAILED)
			return NULL;
		d->windows[at] = mem;
	}
	return &d->windows[at][index % WINDOW];
}

static void unmap_windows(struct datapath *d)
{
	for (size_t i = 0; i < d->window_count; i++)
		if (d->windows[i])
			munmap((void *)d->windows[i],
			       WINDOW * sizeof(struct xlb_counter));
	mem_free_ptr(&d->windows);
}

void datapath_close(struct datapath *d)
{
	if (!d)
		return;
	grace_finish(d);
	for (int i = 0; i < MAP_MAPPED; i++)
		mapping_drop(&d->mapped[i]);
	datapath_stamps_drop(d);
	unmap_windows(d);
	for (int i = 0; i < MAP_COUNT; i++)
		if (d->map_fd[i] >= 0)
			close(d->map_fd[i]);
	if (d->samples >= 0)
		close(d->samples);
	programs_release(&d->programs);
	programs_release(&d->before);
	mem_free_ptr(&d->owners.entries);
	mem_free_ptr(&d->replies.entries);
	mem_free_ptr(&d->direct.entries);
	mem_free_ptr(&d->tc->ifindex);
	mem_free_ptr(&d->tc);
	mem_free_ptr(&d->dir);
	mem_free_ptr(&d);
}

const struct datapath_view *datapath_view(const struct datapath *d)
{
	return &d->view;
}

struct xlb_counter datapath_count(struct datapath *d, uint32_t backend)
{
	struct xlb_counter sum = { 0 };

	for (uint32_t cpu = 0; cpu < d->view.cpus; cpu++) {
		const struct xlb_counter *c =
			counter_of(d, (size_t)cpu * XLB_BACKENDS + backend);

		if (!c)
			continue;
		sum.packets += c->packets;
		sum.bytes += c->bytes;
		sum.flows += c->flows;
	}
	return sum;
}

/* A per-CPU array's values, each summed over the CPUs. */
static int sum_array(int fd, uint32_t count, uint64_t *ret)
{
	int cpus = libbpf_num_possible_cpus();
	AUTO_FREE uint64_t *each = NULL;

	if (cpus < 0)
		return cpus;
	each = mem_array((size_t)cpus, sizeof(*each));
	for (uint32_t i = 0; i < count; i++) {
		if (bpf_map_lookup_elem(fd, &i, each))
			return -errno;
		ret[i] = 0;
		for (int cpu = 0; cpu < cpus; cpu++)
			ret[i] += each[cpu];
	}
	return 0;
}

int datapath_drops(const struct datapath *d, uint64_t ret[XLB_DROP_MAX])
{
	return sum_array(d->map_fd[MAP_DROPS], XLB_DROP_MAX, ret);
}

int datapath_events(const struct datapath *d, uint64_t ret[XLB_EVENT_MAX])
{
	return sum_array(d->map_fd[MAP_EVENTS], XLB_EVENT_MAX, ret);
}

const char *drop_name(enum xlb_drop reason)
{
	static const char *const names[XLB_DROP_MAX] = {
		[XLB_DROP_NONE] = "none",
		[XLB_DROP_NO_BACKEND] = "no_backend",
		[XLB_DROP_NO_NEXT_HOP] = "no_next_hop",
		[XLB_DROP_MALFORMED] = "malformed",
		[XLB_DROP_FRAGMENT] = "fragment",
		[XLB_DROP_TTL] = "ttl",
		[XLB_DROP_TOO_BIG] = "too_big",
		[XLB_DROP_HAIRPIN] = "hairpin",
		[XLB_DROP_REPLY_TOO_BIG] = "reply_too_big",
		[XLB_DROP_REPLY_NO_ROUTE] = "reply_no_route",
		[XLB_DROP_ICMP] = "icmp",
		[XLB_DROP_HEADERS] = "headers",
		[XLB_DROP_ENCAP] = "encap",
	};

	return (unsigned int)reason < XLB_DROP_MAX ? names[reason] : "unknown";
}

struct owner_entry {
	uint32_t id;
	struct xlb_owner owner;
};

static int by_id(const void *a, const void *b)
{
	const struct owner_entry *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* What was written is known without reading all of them again. */
static bool note_owner(struct datapath *d, uint32_t id,
		       const struct xlb_owner *owner)
{
	struct owner_entry key = { .id = id }, *found = NULL;

	if (d->owners.valid && d->owners.count)
		found = bsearch(&key, d->owners.entries, d->owners.count,
				sizeof(key), by_id);
	if (found)
		found->owner = *owner;
	return found;
}

size_t datapath_owner_count(const struct datapath *d)
{
	return d->owners.count;
}

int datapath_owners(struct datapath *d,
		    void (*fn)(void *arg, uint32_t id,
			       const struct xlb_owner *owner),
		    void *arg)
{
	bool fresh = !d->owners.valid;
	struct owner_entry *entries;
	int err = map_copy_read(&d->owners, d->map_fd[MAP_OWNERS],
				sizeof(uint32_t), sizeof(struct xlb_owner));

	entries = (struct owner_entry *)d->owners.entries;
	if (fresh && !err && d->owners.count)
		qsort(entries, d->owners.count, sizeof(*entries), by_id);
	for (size_t i = 0; !err && i < d->owners.count; i++)
		fn(arg, entries[i].id, &entries[i].owner);
	return err;
}

int datapath_set_owner(struct datapath *d, uint32_t id,
		       const struct xlb_owner *owner)
{
	int fd = d->map_fd[MAP_OWNERS];

	seam_change("datapath_set_owner");
	if (owner && bpf_map_update_elem(fd, &id, owner, BPF_ANY)) {
		d->owners.valid = false;
		return -errno;
	}
	d->owners.valid = owner && note_owner(d, id, owner);
	if (owner)
		return 0;
	return bpf_map_delete_elem(fd, &id) && errno != ENOENT ? -errno : 0;
}

void datapath_reread(struct datapath *d)
{
	d->owners.valid = d->replies.valid = d->direct.valid = false;
	d->tc->valid = false;
}

int datapath_set_service(struct datapath *d, uint32_t id,
			 const struct xlb_service *service)
{
	struct xlb_service *services = d->mapped[MAP_SERVICES].mem;

	seam_change("datapath_set_service");
	if (id == 0 || id >= XLB_SERVICES)
		return -ERANGE;
	services[id] = *service;
	return 0;
}

/* Each word by one store, after all that was written before. */
static void store_words(volatile __u64 to[2], const __u64 from[2])
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
	to[0] = from[0];
	to[1] = from[1];
}

int datapath_set_backend(struct datapath *d, uint32_t id,
			 const struct xlb_backend *line)
{
	size_t rest = offsetof(struct xlb_backend, addr6);
	struct xlb_backend *to;

	seam_change("datapath_set_backend");
	if (id == 0 || id >= XLB_BACKENDS)
		return -ERANGE;
	to = &tables_of(d)->backends[id];
	if (memcmp((char *)to + rest, (const char *)line + rest,
		   sizeof(*line) - rest) != 0)
		memcpy((char *)to + rest, (const char *)line + rest,
		       sizeof(*line) - rest);
	store_words(to->l2_v4, line->l2_v4);
	store_words(to->l2_v6, line->l2_v6);
	return 0;
}

/* In these states flows of prev are still being found out. */
static bool slot_moves(uint32_t word)
{
	return XLB_SLOT_STATE(word) == XLB_MOVING ||
	       XLB_SLOT_STATE(word) == XLB_HELD;
}

/*
 * The time of a slot that goes on moving goes on; one that was held has
 * flows of prev that began until now.
 */
static bool keeps_stamp(uint32_t old, uint32_t word)
{
	return slot_moves(old) && (XLB_SLOT_STATE(old) != XLB_HELD ||
				   XLB_SLOT_STATE(word) == XLB_HELD);
}

/* Few writes need stamps: each region's are mapped by the first slot that does. */
struct stamping {
	const struct slot_write *w;
	uint32_t count; /* of w's, those that there are */
	struct stamps to, from;
};

static uint8_t *stamps_need(const struct datapath *d, uint32_t first,
			    uint32_t count, struct stamps *s)
{
	if (!s->at && stamps_map(d, d->map_fd[MAP_MOVED], first, count, s))
		return NULL;
	return s->at;
}

static int stamp_slot(const struct datapath *d, struct stamping *s, uint32_t i)
{
	const struct slot_write *w = s->w;
	const uint32_t *slots = d->mapped[MAP_SLOTS].mem;
	bool apart = w->from != UINT32_MAX, keeps;
	uint32_t from = apart ? w->from + (i >> w->shift) : w->base + i;
	uint8_t *to_at, *from_at = NULL;

	keeps = (apart || !w->fresh) && keeps_stamp(slots[from], w->words[i]);
	if (!slot_moves(w->words[i]) || (keeps && !apart))
		return 0;
	to_at = stamps_need(d, w->base, s->count, &s->to);
	if (keeps)
		from_at = stamps_need(
			d, w->from, ((s->count - 1) >> w->shift) + 1, &s->from);
	if (!to_at || (keeps && !from_at))
		return -ENOMEM;
	to_at[i] = from_at ? from_at[i >> w->shift]
			   : (uint8_t)d->view.control->now;
	return 0;
}

static uint32_t slots_within(const struct datapath *d,
			     const struct slot_write *w)
{
	uint32_t room =
		w->base < d->view.slot_count ? d->view.slot_count - w->base : 0;

	return w->count < room ? w->count : room;
}

int datapath_write_slots(struct datapath *d, const struct slot_write *w)
{
	struct stamping s = { .w = w, .count = slots_within(d, w) };
	uint32_t *slots = d->mapped[MAP_SLOTS].mem;
	int changed = 0, err = 0;

	seam_change("datapath_write_slots");
	if (w->fresh)
		grace_finish(d);
	for (uint32_t i = 0; i < s.count; i++) {
		uint32_t *slot = &slots[w->base + i];

		if (!w->fresh && *slot == w->words[i])
			continue;
		err = stamp_slot(d, &s, i);
		if (err)
			break;
		changed += *slot != w->words[i];
		__atomic_store_n(slot, w->words[i], __ATOMIC_RELEASE);
	}
	stamps_drop(&s.to);
	stamps_drop(&s.from);
	return err ? err : changed;
}

struct address_entry {
	struct xlb_address_key key;
	uint32_t value;
};

/* The addresses of the lines that are used; map_sync() skips repeated ones. */
static int sync_addresses(struct datapath *d, const struct vip_table *t,
			  bool keep)
{
	AUTO_FREE struct address_entry *entries =
		mem_array(XLB_VIP_LINES, sizeof(*entries));
	struct map_set set = { .fd = d->map_fd[MAP_ADDRESSES],
			       .entries = entries,
			       .key_size = sizeof(struct xlb_address_key),
			       .value_size = sizeof(uint32_t) };

	for (size_t i = 0; i < XLB_VIP_LINES; i++) {
		const struct xlb_vip *vip = &t->lines[i];
		struct address_entry *e = &entries[set.count];

		if (!vip->proto)
			continue;
		memcpy(e->key.addr, vip->addr, sizeof(vip->addr));
		e->key.family = vip->family;
		e->value = 1;
		set.count++;
	}
	return map_sync(&set, keep, NULL);
}

int datapath_set_vips(struct datapath *d, const struct vip_table *t)
{
	struct xlb_tables *tables = tables_of(d);
	uint32_t spare = !(tables->control.vip_copy & 1);
	int err;

	seam_change("datapath_set_vips");
	err = sync_addresses(d, t, true);
	if (err)
		return err;
	grace_finish(d);
	memcpy(&tables->vips[(size_t)spare * XLB_VIP_LINES], t->lines,
	       sizeof(t->lines));
	memcpy(&tables->displacement[(size_t)spare * XLB_VIP_BUCKETS],
	       t->displacement, sizeof(t->displacement));
	tables->control.vip_seed[spare] = t->seed;
	__atomic_store_n(&tables->control.vip_copy, spare, __ATOMIC_RELEASE);
	err = grace_start(d);
	return err ? err : sync_addresses(d, t, false);
}

static bool flow_is_of(uint64_t entry, uint32_t backend)
{
	return entry && XLB_FLOW_BACKEND(entry) == backend;
}

int datapath_flow_line(const struct datapath *d, uint32_t line,
		       struct xlb_flow_line *ret)
{
	return bpf_map_lookup_elem(d->map_fd[MAP_FLOWS], &line, ret) ? -errno
								     : 0;
}

uint32_t datapath_remembered(const struct datapath *d, uint32_t backend)
{
	size_t size, found = 0;
	uint64_t *entries = map_flows(d, &size);

	for (size_t i = 0; entries && i < size / sizeof(*entries); i++)
		found += flow_is_of(entries[i], backend);
	if (entries)
		munmap(entries, size);
	return (uint32_t)found;
}

int datapath_sweep(struct datapath *d,
		   bool (*keep)(void *arg, uint32_t line, uint64_t entry),
		   void *arg)
{
	size_t size;
	uint64_t *entries = map_flows(d, &size);

	seam_change("datapath_sweep");
	if (!entries)
		return -errno;
	for (size_t i = 0; i < size / sizeof(*entries); i++) {
		uint64_t old = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);

		if (old && !keep(arg, (uint32_t)(i / XLB_FLOW_WAYS), old))
			__atomic_compare_exchange_n(&entries[i], &old, 0, false,
						    __ATOMIC_ACQ_REL,
						    __ATOMIC_RELAXED);
	}
	munmap(entries, size);
	return 0;
}

uint32_t datapath_forget_flows(struct datapath *d, uint32_t backend)
{
	size_t size, found = 0;
	uint64_t *entries = map_flows(d, &size);

	seam_change("datapath_forget_flows");
	for (size_t i = 0; entries && i < size / sizeof(*entries); i++) {
		uint64_t old = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);

		/* Also one that a packet changes meanwhile. */
		while (flow_is_of(old, backend) &&
		       !__atomic_compare_exchange_n(&entries[i], &old, 0, false,
						    __ATOMIC_ACQ_REL,
						    __ATOMIC_RELAXED))
			;
		found += flow_is_of(old, backend);
	}
	if (entries)
		munmap(entries, size);
	return (uint32_t)found;
}

void datapath_tick(struct datapath *d)
{
	struct xlb_control *control = &tables_of(d)->control;

	seam_change("datapath_tick");
	__atomic_store_n(&control->now, control->now + 1, __ATOMIC_RELAXED);
}

void datapath_set_load(struct datapath *d, uint32_t backend,
		       const struct xlb_load *load)
{
	struct xlb_load *to = &tables_of(d)->loads[backend % XLB_BACKENDS];

	seam_change("datapath_set_load");
	__atomic_store_n(&to->step, load->step, __ATOMIC_RELAXED);
	__atomic_store_n(&to->load, load->load, __ATOMIC_RELAXED);
}

void datapath_set_sources(struct datapath *d, const uint32_t *v4,
			  const uint32_t v6[4])
{
	struct xlb_control *control = &tables_of(d)->control;

	seam_change("datapath_set_sources");
	control->source4 = v4 ? *v4 : 0;
	for (int i = 0; i < 4; i++)
		control->source6[i] = v6 ? v6[i] : 0;
}

void datapath_set_next_backend(struct datapath *d, uint32_t id)
{
	seam_change("datapath_set_next_backend");
	tables_of(d)->control.next_backend = id;
}

void datapath_grace(struct datapath *d)
{
	grace_finish(d);
	if (!grace_start(d))
		grace_finish(d);
}

int datapath_set_replies(struct datapath *d, const struct reply_entry *entries,
			 size_t count, size_t *ret_changed)
{
	struct map_set set = { .fd = d->map_fd[MAP_REPLIES],
			       .entries = entries,
			       .count = count,
			       .key_size = sizeof(entries->key),
			       .value_size = sizeof(entries->value) };

	seam_change("datapath_set_replies");
	d->replies.valid = false;
	return map_sync(&set, false, ret_changed);
}

struct direct_entry {
	struct xlb_direct_key key;
	uint32_t value;
};

int datapath_set_direct(struct datapath *d, const struct xlb_direct_key *keys,
			size_t count, size_t *ret_changed)
{
	AUTO_FREE struct direct_entry *entries =
		mem_array(count + 1, sizeof(*entries));
	struct map_set set = { .fd = d->map_fd[MAP_DIRECT],
			       .entries = entries,
			       .count = count,
			       .key_size = sizeof(*keys),
			       .value_size = sizeof(uint32_t) };

	seam_change("datapath_set_direct");
	for (size_t i = 0; i < count; i++)
		entries[i] = (struct direct_entry){ keys[i], 1 };
	d->direct.valid = false;
	return map_sync(&set, false, ret_changed);
}

int datapath_sets(struct datapath *d, const struct reply_entry **ret_replies,
		  size_t *ret_reply_count,
		  const struct xlb_direct_key **ret_directs,
		  size_t *ret_direct_count)
{
	bool fresh = d->direct.valid;
	struct xlb_direct_key *keys;
	const struct direct_entry *entries;
	int err = map_copy_read(&d->replies, d->map_fd[MAP_REPLIES],
				sizeof(struct xlb_reply_key),
				sizeof(struct xlb_reply));

	if (!err)
		err = map_copy_read(&d->direct, d->map_fd[MAP_DIRECT],
				    sizeof(struct xlb_direct_key),
				    sizeof(uint32_t));
	/* Only the keys mean something: pack them. */
	entries = (const struct direct_entry *)d->direct.entries;
	keys = (struct xlb_direct_key *)d->direct.entries;
	for (size_t i = 0; !err && !fresh && i < d->direct.count; i++)
		memmove(&keys[i], &entries[i].key, sizeof(*keys));
	*ret_replies = (const struct reply_entry *)d->replies.entries;
	*ret_reply_count = d->replies.count;
	*ret_directs = keys;
	*ret_direct_count = d->direct.count;
	return err;
}

static int remove_pin(void *arg, const char *name)
{
	return pin_remove(arg, name);
}

int datapath_destroy(struct datapath *d)
{
	int err;

	seam_change("datapath_destroy");
	err = attach_none(d);
	if (!err)
		err = pins_each(d, "", remove_pin, d);
	if (!err && rmdir(d->dir))
		err = -errno;
	return err;
}

/* The entry as it would be had it been written just now. */
static uint64_t flow_renewed(uint64_t entry, uint8_t now)
{
	return (entry & ~((uint64_t)0xff << 25)) | (uint64_t)now << 25;
}

static int renew_flows(struct datapath *d)
{
	uint8_t now = (uint8_t)d->view.control->now;
	size_t size;
	uint64_t *entries = map_flows(d, &size);

	if (!entries)
		return -errno;
	for (size_t i = 0; i < size / sizeof(*entries); i++) {
		uint64_t old = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);

		/* One that a packet changed meanwhile has its time from it. */
		while (old && XLB_FLOW_TIME(old) != now &&
		       !__atomic_compare_exchange_n(
			       &entries[i], &old, flow_renewed(old, now), false,
			       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			;
	}
	munmap(entries, size);
	return 0;
}

/* Of slots that move, and of services whose way of hashing changes. */
static int renew_stamps(struct datapath *d)
{
	struct xlb_service *services = d->mapped[MAP_SERVICES].mem;
	struct stamps all = { 0 };
	int err = stamps_map(d, d->map_fd[MAP_MOVED], 0, d->view.slot_count,
			     &all);

	if (err)
		return err;

	for (uint32_t i = 0; i < XLB_SERVICES; i++)
		if (services[i].name[0] && service_changes(&services[i]))
			services[i].changed = (uint8_t)d->view.control->now;
	for (uint32_t i = 0; i < d->view.slot_count; i++)
		if (slot_moves(d->view.slots[i]))
			all.at[i] = (uint8_t)d->view.control->now;
	stamps_drop(&all);
	return 0;
}

/* The longer tick must not be in force while anything has its old age. */
int datapath_set_tick(struct datapath *d, uint32_t seconds)
{
	struct xlb_control *control = &tables_of(d)->control;
	int err;

	seam_change("datapath_set_tick");
	if (!seconds)
		return -EINVAL;
	if (control->tick == seconds)
		return 0;
	err = renew_flows(d);
	if (!err)
		err = renew_stamps(d);
	if (err)
		return err;
	__atomic_store_n(&control->tick, seconds, __ATOMIC_RELEASE);
	return 0;
}
