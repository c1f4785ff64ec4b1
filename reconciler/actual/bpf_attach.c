/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attachments: XDP, native or generic, by a pinned link an interface; the tc
 * programs by bpf_filter.c.  What is there and isn't ours is never touched.
 */
#include "actual/bpf_internal.h"

#include <ctype.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "actual/netlink.h"
#include "base/mem.h"
#include "base/seam.h"

#define LINK_PREFIX "link_"

/* bpffs refuses dots, and a name may hold nearly anything. */
static char *link_pin(const char *ifname)
{
	AUTO_FREE char *name =
		mem_alloc(sizeof(LINK_PREFIX) + 3 * strlen(ifname));
	char *at = name + sprintf(name, LINK_PREFIX);

	for (const char *c = ifname; *c; c++)
		if (isalnum((unsigned char)*c) || *c == '_' || *c == '-')
			*at++ = *c;
		else
			at += sprintf(at, "%%%02X", (unsigned char)*c);
	return mem_dup(name);
}

static void link_ifname(const char *pin, char *ret, size_t size)
{
	const char *c = pin + strlen(LINK_PREFIX);
	size_t len = 0;

	while (*c && len + 1 < size) {
		char hex[3] = { 0 };

		if (*c == '%' && c[1] && c[2]) {
			memcpy(hex, c + 1, 2);
			ret[len++] = (char)strtol(hex, NULL, 16);
			c += 3;
		} else {
			ret[len++] = *c++;
		}
	}
	ret[len] = 0;
}

/* The pinned link's fd and what it is attached to; -errno without one. */
static int link_get(const struct datapath *d, const char *ifname,
		    struct bpf_link_info *ret_info)
{
	AUTO_FREE char *pin = link_pin(ifname);
	uint32_t len = sizeof(*ret_info);
	int fd = pin_get(d, pin);
	int err;

	memset(ret_info, 0, sizeof(*ret_info));
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, ret_info, &len) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Id of whatever XDP program is on the interface; 0: none. */
static uint32_t xdp_on(int ifindex)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	if (bpf_xdp_query(ifindex, 0, &opts))
		return 0;
	if (opts.prog_id)
		return opts.prog_id;
	return opts.drv_prog_id ? opts.drv_prog_id : opts.skb_prog_id;
}

/* Native or generic: a device can't have programs in both. */
static enum datapath_hook xdp_hook(int ifindex, uint32_t prog)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	if (bpf_xdp_query(ifindex, 0, &opts) == 0 && opts.skb_prog_id == prog)
		return DATAPATH_XDP_GENERIC;
	return DATAPATH_XDP;
}

static enum attach_state xdp_attached(const struct datapath *d,
				      enum datapath_hook hook,
				      const char *ifname, int ifindex)
{
	struct bpf_link_info info;
	int fd = d ? link_get(d, ifname, &info) : -ENOENT;

	if (fd >= 0)
		close(fd);
	if (fd < 0 || info.xdp.ifindex != (uint32_t)ifindex)
		return xdp_on(ifindex) ? ATTACH_FOREIGN : ATTACH_NONE;
	if (xdp_hook(ifindex, info.prog_id) != hook)
		return ATTACH_NONE;
	return info.prog_id == d->programs.id[PROG_XDP] ? ATTACH_OURS
							: ATTACH_STALE;
}

enum attach_state datapath_attached(const struct datapath *d,
				    enum datapath_hook hook, const char *ifname,
				    int ifindex)
{
	switch (hook) {
	case DATAPATH_XDP:
	case DATAPATH_XDP_GENERIC:
		return xdp_attached(d, hook, ifname, ifindex);
	case DATAPATH_TC:
		return filter_state(d, PROG_TC, ifindex);
	case DATAPATH_HOOKS:
		break;
	}
	return ATTACH_NONE;
}

static void attach_complain(const char *ifname, int ifindex, int err,
			    struct diag_list *diags)
{
	uint32_t id = xdp_on(ifindex);
	char name[64];

	/* EEXIST: it is native and ours generic, or the other way round. */
	if ((err == -EBUSY || err == -EEXIST) && id) {
		prog_name_of(id, name, sizeof(name));
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "detach it (ip link set dev IF xdp off, or end the "
			 "program that holds it), use hook: tc, or another "
			 "interface",
			 "%s has an XDP program already: \"%s\", id %u", ifname,
			 name, id);
	} else if (err == -EOPNOTSUPP) {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "use hook: tc (or xdp_generic); of a VLAN or bridge, "
			 "the parent or port may have it",
			 "%s: its driver has no native XDP", ifname);
	} else {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "an MTU over about 3500 or offloads (LRO) keep "
			 "drivers from it: change those, or use hook: tc; the "
			 "kernel's log may say more",
			 "can't attach XDP to %s: %s", ifname, strerror(-err));
	}
}

/* The link's fd, if it holds this program there; -ENOENT if not. */
static int link_if(uint32_t id, uint32_t prog, int ifindex)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_link_get_fd_by_id(id);

	if (fd < 0)
		return -ENOENT;
	if (!bpf_obj_get_info_by_fd(fd, &info, &len) &&
	    info.type == BPF_LINK_TYPE_XDP && info.prog_id == prog &&
	    info.xdp.ifindex == (uint32_t)ifindex)
		return fd;
	close(fd);
	return -ENOENT;
}

/*
 * A link that was made though the call failed is nobody's: no pin names it,
 * and its program keeps every later one out for as long as this process lives.
 */
static int link_made(const struct datapath *d, int ifindex, int err)
{
	uint32_t prog = d->programs.id[PROG_XDP], id = 0;

	if (xdp_on(ifindex) != prog)
		return err;
	while (!bpf_link_get_next_id(id, &id)) {
		int fd = link_if(id, prog, ifindex);

		if (fd >= 0)
			return fd;
	}
	return err;
}

static int link_make(struct datapath *d, enum datapath_hook hook,
		     const char *ifname, int ifindex)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	AUTO_FREE char *pin = link_pin(ifname);
	int fd, err;

	if (hook == DATAPATH_XDP_GENERIC)
		opts.flags = XDP_FLAGS_SKB_MODE;
	/* A pin of an interface that is gone, and came back as another. */
	err = pin_remove(d, pin);
	if (err)
		return err;
	fd = bpf_link_create(d->programs.fd[PROG_XDP], ifindex, BPF_XDP, &opts);
	if (fd < 0)
		fd = link_made(d, ifindex, -errno);
	if (fd < 0)
		return fd;
	err = pin_put(d, pin, fd);
	close(fd);
	return err;
}

/*
 * At once, whoever else may hold the link.  The pin goes first: killed in
 * between, this process takes the link along; the other way round the pin of
 * a link that is attached to nothing would stay.
 */
static int link_drop(struct datapath *d, const char *ifname)
{
	AUTO_FREE char *pin = link_pin(ifname);
	int fd = pin_get(d, pin);
	int err = pin_remove(d, pin);

	if (fd >= 0) {
		if (!err)
			bpf_link_detach(fd);
		close(fd);
	}
	return err;
}

#define BACKLOG_COLUMN 11 /* of softnet_stat, since 5.10 */
#define BACKLOG_TRIES 100 /* a millisecond each */

/* Waits on some CPU a packet that came by the driver for the host's stack? */
static bool backlog_waits(void)
{
	FILE *f = fopen("/proc/net/softnet_stat", "re");
	char line[512];
	bool waits = false;

	while (f && fgets(line, sizeof(line), f)) {
		const char *at = line;

		for (int i = 0; i < BACKLOG_COLUMN && at; i++) {
			at = strchr(at, ' ');
			at += !!at;
		}
		waits |= at && strtoul(at, NULL, 16);
	}
	if (f)
		fclose(f);
	return waits;
}

/*
 * A packet that passed the place of the XDP program before there was one may
 * not have come to tc yet, where the old program must take it.
 */
static void packets_pass(struct datapath *d)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	datapath_grace(d);
	for (int i = 0; i < BACKLOG_TRIES && backlog_waits(); i++)
		nanosleep(&ms, NULL);
	/* The last was taken out of there, and is under way. */
	datapath_grace(d);
}

/*
 * The kernel has no native program beside a generic one, and doesn't change
 * a link's kind.  So the tc program, which sees what XDP lets pass, takes the
 * packets in between; where its place is taken, those are lost.
 */
static int link_change(struct datapath *d, enum datapath_hook hook,
		       const char *ifname, int ifindex)
{
	struct diag_list ignored = { 0 };
	bool bridged = filter_state(d, PROG_TC, ifindex) == ATTACH_NONE &&
		       filter_attach(d, PROG_TC, ifindex, &ignored) == 0;
	int err = link_drop(d, ifname);

	if (!err)
		err = link_make(d, hook, ifname, ifindex);
	if (err)
		link_make(d,
			  hook == DATAPATH_XDP ? DATAPATH_XDP_GENERIC
					       : DATAPATH_XDP,
			  ifname, ifindex);
	if (bridged) {
		packets_pass(d);
		filter_drop(d, PROG_TC, ifindex);
	}
	diag_list_release(&ignored);
	return err;
}

/* The link runs this program, if it doesn't already. */
static int link_update(int fd, uint32_t running, const struct programs *p)
{
	if (running == p->id[PROG_XDP])
		return 0;
	return bpf_link_update(fd, p->fd[PROG_XDP], NULL) ? -errno : 0;
}

static int xdp_attach(struct datapath *d, enum datapath_hook hook,
		      const char *ifname, int ifindex, struct diag_list *diags)
{
	struct bpf_link_info info;
	int fd = link_get(d, ifname, &info);
	int err;

	if (fd < 0 || info.xdp.ifindex != (uint32_t)ifindex)
		err = link_make(d, hook, ifname, ifindex);
	else if (xdp_hook(ifindex, info.prog_id) == hook)
		err = link_update(fd, info.prog_id, &d->programs);
	else
		err = link_change(d, hook, ifname, ifindex);
	if (fd >= 0)
		close(fd);
	if (err)
		attach_complain(ifname, ifindex, err, diags);
	return err;
}

int datapath_attach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex, struct diag_list *diags)
{
	seam_change("datapath_attach");
	switch (hook) {
	case DATAPATH_XDP:
	case DATAPATH_XDP_GENERIC:
		return xdp_attach(d, hook, ifname, ifindex, diags);
	case DATAPATH_TC:
		return filter_attach(d, PROG_TC, ifindex, diags);
	case DATAPATH_HOOKS:
		break;
	}
	return -EINVAL;
}

/* The link is of that kind; or its interface is gone, or not said. */
static bool link_is(const struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex)
{
	struct bpf_link_info info;
	int fd = link_get(d, ifname, &info);

	if (fd < 0)
		return fd != -ENOENT;
	close(fd);
	return !ifindex || info.xdp.ifindex != (uint32_t)ifindex ||
	       xdp_hook(ifindex, info.prog_id) == hook;
}

/* Only tc comes after another hook, which has its packets then. */
static int tc_detach(struct datapath *d, const char *ifname, int ifindex)
{
	struct bpf_link_info info;
	int fd = link_get(d, ifname, &info);

	if (fd >= 0)
		close(fd);
	if (fd >= 0 && info.xdp.ifindex == (uint32_t)ifindex &&
	    filter_state(d, PROG_TC, ifindex) != ATTACH_NONE)
		packets_pass(d);
	return filter_drop(d, PROG_TC, ifindex);
}

int datapath_detach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex)
{
	seam_change("datapath_detach");
	switch (hook) {
	case DATAPATH_XDP:
	case DATAPATH_XDP_GENERIC:
		return link_is(d, hook, ifname, ifindex) ? link_drop(d, ifname)
							 : 0;
	case DATAPATH_TC:
		return tc_detach(d, ifname, ifindex);
	case DATAPATH_HOOKS:
		break;
	}
	return -EINVAL;
}

struct link_walk {
	void (*fn)(void *arg, const char *ifname);
	void *arg;
};

static int link_visit(void *arg, const char *pin)
{
	const struct link_walk *walk = arg;
	char ifname[64];

	link_ifname(pin, ifname, sizeof(ifname));
	walk->fn(walk->arg, ifname);
	return 0;
}

/* An interface may be named twice, when both have something of ours. */
int datapath_links(const struct datapath *d,
		   void (*fn)(void *arg, const char *ifname), void *arg)
{
	struct link_walk walk = { fn, arg };
	int err = pins_each(d, LINK_PREFIX, link_visit, &walk);

	return err ? err : filters_each(d, fn, arg);
}

struct swap {
	struct datapath *d;
	const struct programs *programs;
	struct diag_list *diags;
};

static int swap_link(void *arg, const char *pin)
{
	struct swap *s = arg;
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = pin_get(s->d, pin);
	int err = 0;

	if (fd < 0)
		return fd;
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		err = -errno;
	/* No interface: it is gone; the reconciler makes another link. */
	else if (info.xdp.ifindex)
		err = link_update(fd, info.prog_id, s->programs);
	close(fd);
	if (!err || err == -ENOLINK)
		return 0;
	diag_add(s->diags, SEVERITY_ERROR, NULL, NULL,
		 "can't put the new program on %s: %s", pin, strerror(-err));
	return err;
}

int attach_swap(struct datapath *d, const struct programs *p,
		struct diag_list *diags)
{
	struct swap s = { d, p, diags };
	int err = pins_each(d, LINK_PREFIX, swap_link, &s);

	return err ? err : filters_swap(d, p, diags);
}

static int drop_link(void *arg, const char *pin)
{
	char ifname[64];

	link_ifname(pin, ifname, sizeof(ifname));
	return link_drop(arg, ifname);
}

int attach_none(struct datapath *d)
{
	int err = pins_each(d, LINK_PREFIX, drop_link, d);

	return err ? err : filters_drop_all(d);
}
