/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attachments: XDP by a pinned link an interface, tc by a fixed priority and
 * handle.  What is there and isn't ours is never touched.
 */
#include "actual/bpf_internal.h"

#include <ctype.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"

#define TC_PRIORITY 0x786c /* "xl" */
#define TC_HANDLE 0x62 /* "b" */
#define REPLY_NAME "xlb_reply"
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

enum attach_state datapath_attached(const struct datapath *d,
				    enum datapath_hook hook, const char *ifname,
				    int ifindex)
{
	struct bpf_link_info info;
	int fd = d ? link_get(d, ifname, &info) : -ENOENT;

	(void)hook; /* TODO */
	if (fd >= 0) {
		close(fd);
		if (info.xdp.ifindex == (uint32_t)ifindex)
			return info.prog_id == d->prog_id[PROG_XDP]
				       ? ATTACH_OURS
				       : ATTACH_STALE;
	}
	return xdp_on(ifindex) ? ATTACH_FOREIGN : ATTACH_NONE;
}

static void prog_name_of(uint32_t id, char *ret, size_t size)
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

static void attach_complain(const char *ifname, int ifindex, int err,
			    struct diag_list *diags)
{
	uint32_t id = xdp_on(ifindex);
	char name[64];

	if (err == -EBUSY && id) {
		prog_name_of(id, name, sizeof(name));
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "detach it (ip link set dev IF xdp off, or end the "
			 "program that holds it), or use another interface",
			 "%s has an XDP program already: \"%s\", id %u", ifname,
			 name, id);
	} else if (err == -EOPNOTSUPP) {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "use an interface whose driver has it; a VLAN or "
			 "bridge has not, its parent or port may",
			 "%s: its driver has no native XDP", ifname);
	} else {
		diag_add(diags, SEVERITY_ERROR, NULL,
			 "an MTU over about 3500 or offloads (LRO) keep "
			 "drivers from it; the kernel's log may say more",
			 "can't attach XDP to %s: %s", ifname, strerror(-err));
	}
}

static int attach_new(struct datapath *d, const char *ifname, int ifindex)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	AUTO_FREE char *pin = link_pin(ifname);
	int fd, err;

	/* A pin of an interface that is gone, and came back as another. */
	err = pin_remove(d, pin);
	if (err)
		return err;
	fd = bpf_link_create(d->prog_fd[PROG_XDP], ifindex, BPF_XDP, &opts);
	if (fd < 0)
		return -errno;
	err = pin_put(d, pin, fd);
	close(fd);
	return err;
}

/* The link at hand runs the loaded program, if it doesn't already. */
static int attach_update(const struct datapath *d, int fd, uint32_t running)
{
	if (running == d->prog_id[PROG_XDP])
		return 0;
	return bpf_link_update(fd, d->prog_fd[PROG_XDP], NULL) ? -errno : 0;
}

int datapath_attach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex, struct diag_list *diags)
{
	struct bpf_link_info info;
	int fd = link_get(d, ifname, &info);
	int err;

	(void)hook; /* TODO */
	if (fd >= 0 && info.xdp.ifindex == (uint32_t)ifindex)
		err = attach_update(d, fd, info.prog_id);
	else
		err = attach_new(d, ifname, ifindex);
	if (fd >= 0)
		close(fd);
	if (err)
		attach_complain(ifname, ifindex, err, diags);
	return err;
}

int datapath_detach(struct datapath *d, enum datapath_hook hook,
		    const char *ifname, int ifindex)
{
	AUTO_FREE char *pin = link_pin(ifname);
	int fd = pin_get(d, pin);

	(void)hook, (void)ifindex; /* TODO */
	if (fd == -ENOENT)
		return 0;
	if (fd >= 0) {
		/* At once, whoever else may hold the link. */
		bpf_link_detach(fd);
		close(fd);
	}
	return pin_remove(d, pin);
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

int datapath_links(const struct datapath *d,
		   void (*fn)(void *arg, const char *ifname), void *arg)
{
	struct link_walk walk = { fn, arg };

	return pins_each(d, LINK_PREFIX, link_visit, &walk);
}

/* The filter at our place of the interface's ingress: its program, or 0. */
static uint32_t tc_on(int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = TC_PRIORITY);

	return bpf_tc_query(&hook, &opts) ? 0 : opts.prog_id;
}

enum attach_state datapath_reply_attached(const struct datapath *d, int ifindex)
{
	uint32_t id = tc_on(ifindex);
	char name[64];

	if (!id)
		return ATTACH_NONE;
	if (id == d->prog_id[PROG_REPLY])
		return ATTACH_OURS;
	prog_name_of(id, name, sizeof(name));
	return strcmp(name, REPLY_NAME) == 0 ? ATTACH_STALE : ATTACH_FOREIGN;
}

static int tc_attach(const struct datapath *d, int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = TC_PRIORITY, .flags = BPF_TC_F_REPLACE,
		    .prog_fd = d->prog_fd[PROG_REPLY]);
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	return bpf_tc_attach(&hook, &opts);
}

int datapath_reply_attach(struct datapath *d, int ifindex,
			  struct diag_list *diags)
{
	char ifname[IF_NAMESIZE] = "?";
	char name[64];
	int err;

	if_indextoname((unsigned int)ifindex, ifname);
	switch (datapath_reply_attached(d, ifindex)) {
	case ATTACH_OURS:
		return 0;
	case ATTACH_FOREIGN:
		prog_name_of(tc_on(ifindex), name, sizeof(name));
		diag_add(diags, SEVERITY_ERROR, NULL, "remove that filter",
			 "%s: tc priority %d, handle %#x is taken by \"%s\"",
			 ifname, TC_PRIORITY, TC_HANDLE, name);
		return -EBUSY;
	case ATTACH_NONE:
	case ATTACH_STALE:
		break;
	}
	err = tc_attach(d, ifindex);
	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL, NULL,
			 "can't attach the reply program to %s: %s", ifname,
			 strerror(-err));
	return err;
}

/* The clsact qdisc stays: it does nothing, and others may use it. */
int datapath_reply_detach(struct datapath *d, int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
		    .priority = TC_PRIORITY);
	enum attach_state state = datapath_reply_attached(d, ifindex);

	if (state == ATTACH_NONE || state == ATTACH_FOREIGN)
		return 0;
	return bpf_tc_detach(&hook, &opts);
}

struct swap {
	struct datapath *d;
	struct diag_list *diags;
};

static int swap_link(void *arg, const char *pin)
{
	struct swap *s = arg;
	int fd = pin_get(s->d, pin);
	int err = 0;

	if (fd < 0)
		return fd;
	/* ENOLINK: its interface is gone; the reconciler makes another. */
	if (bpf_link_update(fd, s->d->prog_fd[PROG_XDP], NULL) &&
	    errno != ENOLINK)
		err = -errno;
	close(fd);
	if (err)
		diag_add(s->diags, SEVERITY_ERROR, NULL, NULL,
			 "can't put the new program on %s: %s", pin,
			 strerror(-err));
	return err;
}

/* Calls fn for each interface of this network namespace. */
static int each_interface(int (*fn)(struct datapath *d, int ifindex),
			  struct datapath *d)
{
	struct if_nameindex *all = if_nameindex();
	int err = 0;

	if (!all)
		return -errno;
	for (struct if_nameindex *i = all; !err && i->if_index; i++)
		err = fn(d, (int)i->if_index);
	if_freenameindex(all);
	return err;
}

static int swap_reply(struct datapath *d, int ifindex)
{
	if (datapath_reply_attached(d, ifindex) != ATTACH_STALE)
		return 0;
	return tc_attach(d, ifindex);
}

int attach_swap(struct datapath *d, struct diag_list *diags)
{
	struct swap s = { d, diags };
	int err = pins_each(d, LINK_PREFIX, swap_link, &s);

	if (err)
		return err;
	err = each_interface(swap_reply, d);
	if (err)
		diag_add(diags, SEVERITY_ERROR, NULL, NULL,
			 "can't put the new reply program in place: %s",
			 strerror(-err));
	return err;
}

static int drop_link(void *arg, const char *pin)
{
	struct datapath *d = arg;
	char ifname[64];

	link_ifname(pin, ifname, sizeof(ifname));
	return datapath_detach(d, DATAPATH_XDP, ifname, 0);
}

int attach_none(struct datapath *d)
{
	int err = pins_each(d, LINK_PREFIX, drop_link, d);

	return err ? err : each_interface(datapath_reply_detach, d);
}

bool datapath_native(int ifindex)
{
	(void)ifindex; /* TODO */
	return true;
}
