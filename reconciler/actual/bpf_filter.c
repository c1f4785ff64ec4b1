/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tc programs: ingress filters of fixed priority and handle, the balancer
 * before the reply program.  Ours is what sits there under our program's name.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"
#include "base/seam.h"

#define TC_HANDLE 0x62 /* "b" */

static const struct place {
	uint32_t priority; /* the lower is asked first */
	const char *name; /* of the program */
	const char *what;
} places[PROG_COUNT] = {
	[PROG_TC] = { 0x786b, "xlb_tc", "balancer" },
	[PROG_REPLY] = { 0x786c, "xlb_reply", "reply program" }, /* "xl" */
};

void prog_name_of(uint32_t id, char *ret, size_t size)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	snprintf(ret, size, "?");
	if (fd < 0)
		return;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
		snprintf(ret, size, "%s", info.name);
	close(fd);
}

/* The filter at that place of the interface's ingress: its program, or 0. */
static uint32_t filter_on(enum prog_index i, int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = places[i].priority);

	return bpf_tc_query(&hook, &opts) ? 0 : opts.prog_id;
}

/* The name of its program, or "?". */
static void filter_name(enum prog_index i, int ifindex, uint32_t id, char *ret,
			size_t size)
{
	prog_name_of(id, ret, size);
	if (!strcmp(ret, "?"))
		filter_called(ifindex, places[i].priority, TC_HANDLE, ret,
			      size);
}

enum attach_state filter_state(const struct datapath *d, enum prog_index i,
			       int ifindex)
{
	uint32_t id = filter_on(i, ifindex);
	char name[64];

	if (!id)
		return ATTACH_NONE;
	if (d && id == d->programs.id[i])
		return ATTACH_OURS;
	filter_name(i, ifindex, id, name, sizeof(name));
	return d && !strcmp(name, places[i].name) ? ATTACH_STALE
						  : ATTACH_FOREIGN;
}

int filter_put(const struct datapath *d, enum prog_index i,
	       const struct programs *p, int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = places[i].priority, .flags = BPF_TC_F_REPLACE,
		    .prog_fd = p->fd[i]);
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	/* It may be one more that filters_each() has to name. */
	if (i == PROG_TC)
		d->tc->valid = false;
	return bpf_tc_attach(&hook, &opts);
}

int filter_attach(struct datapath *d, enum prog_index i, int ifindex,
		  struct diag_list *diags)
{
	char ifname[IF_NAMESIZE] = "?";
	char name[64];
	int err;

	if_indextoname((unsigned int)ifindex, ifname);
	switch (filter_state(d, i, ifindex)) {
	case ATTACH_OURS:
		return 0;
	case ATTACH_FOREIGN:
		filter_name(i, ifindex, filter_on(i, ifindex), name,
			    sizeof(name));
		diag_add(diags, SEVERITY_ERROR, NULL, "remove that filter",
			 "%s: tc priority %u, handle %#x is taken by \"%s\"",
			 ifname, places[i].priority, TC_HANDLE, name);
		return -EBUSY;
	case ATTACH_NONE:
	case ATTACH_STALE:
		break;
	}
	err = program_need(d, i, diags);
	if (err)
		return err;
	err = filter_put(d, i, &d->programs, ifindex);
	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL, NULL,
			 "can't attach the %s to tc of %s: %s", places[i].what,
			 ifname, strerror(-err));
	return err;
}

/* The clsact qdisc stays: it does nothing, and others may use it. */
int filter_drop(struct datapath *d, enum prog_index i, int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = places[i].priority);
	enum attach_state state = filter_state(d, i, ifindex);

	if (state == ATTACH_NONE || state == ATTACH_FOREIGN)
		return 0;
	return bpf_tc_detach(&hook, &opts);
}

/* Calls fn for each interface of this network namespace. */
static int each_interface(int (*fn)(void *arg, int ifindex), void *arg)
{
	struct if_nameindex *all = if_nameindex();
	int err = 0;

	if (!all)
		return -errno;
	for (struct if_nameindex *i = all; !err && i->if_index; i++)
		err = fn(arg, (int)i->if_index);
	if_freenameindex(all);
	return err;
}

static bool is_ours(enum attach_state state)
{
	return state == ATTACH_OURS || state == ATTACH_STALE;
}

static int note_filter(void *arg, int ifindex)
{
	const struct datapath *d = arg;

	if (is_ours(filter_state(d, PROG_TC, ifindex)))
		*MEM_PUSH(d->tc->ifindex, d->tc->count) = ifindex;
	return 0;
}

/*
 * To ask each interface takes a while, and only we add any; so those that were
 * seen once are remembered, until datapath_reread().
 */
static int filters_find(const struct datapath *d)
{
	int err;

	if (d->tc->valid)
		return 0;
	mem_free_ptr(&d->tc->ifindex);
	d->tc->ifindex = NULL;
	d->tc->count = 0;
	err = each_interface(note_filter, (void *)d);
	d->tc->valid = !err;
	return err;
}

bool filters_any(struct datapath *d)
{
	d->tc->valid = false;
	/* Better one too many than one too few. */
	return filters_find(d) != 0 || d->tc->count > 0;
}

int filters_each(const struct datapath *d,
		 void (*fn)(void *arg, const char *ifname), void *arg)
{
	int err = filters_find(d);
	size_t kept = 0;

	for (size_t i = 0; !err && i < d->tc->count; i++) {
		int ifindex = d->tc->ifindex[i];
		char ifname[IF_NAMESIZE];

		if (!if_indextoname((unsigned int)ifindex, ifname) ||
		    !is_ours(filter_state(d, PROG_TC, ifindex)))
			continue;
		d->tc->ifindex[kept++] = ifindex;
		fn(arg, ifname);
	}
	if (!err)
		d->tc->count = kept;
	return err;
}

struct swap {
	struct datapath *d;
	const struct programs *programs;
};

static int swap_filters(void *arg, int ifindex)
{
	static const enum prog_index which[] = { PROG_TC, PROG_REPLY };
	const struct swap *s = arg;
	int err = 0;

	for (size_t k = 0; k < ARRAY_SIZE(which) && !err; k++) {
		enum prog_index i = which[k];
		uint32_t id = filter_on(i, ifindex);

		if (id && id != s->programs->id[i] && s->programs->fd[i] >= 0 &&
		    is_ours(filter_state(s->d, i, ifindex)))
			err = filter_put(s->d, i, s->programs, ifindex);
	}
	return err;
}

int filters_swap(struct datapath *d, const struct programs *p,
		 struct diag_list *diags)
{
	struct swap s = { d, p };
	int err = each_interface(swap_filters, &s);

	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL, NULL,
			 "can't put the new tc programs in place: %s",
			 strerror(-err));
	return err;
}

static int drop_filters(void *arg, int ifindex)
{
	int err = filter_drop(arg, PROG_TC, ifindex);

	return err ? err : filter_drop(arg, PROG_REPLY, ifindex);
}

int filters_drop_all(struct datapath *d)
{
	return each_interface(drop_filters, d);
}

enum attach_state datapath_reply_attached(const struct datapath *d, int ifindex)
{
	return filter_state(d, PROG_REPLY, ifindex);
}

int datapath_reply_attach(struct datapath *d, int ifindex,
			  struct diag_list *diags)
{
	seam_change("datapath_reply_attach");
	return filter_attach(d, PROG_REPLY, ifindex, diags);
}

int datapath_reply_detach(struct datapath *d, int ifindex)
{
	seam_change("datapath_reply_detach");
	return filter_drop(d, PROG_REPLY, ifindex);
}
