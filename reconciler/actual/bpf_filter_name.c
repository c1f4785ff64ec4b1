/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a tc filter was called when it was attached ("xlb_reply:[35]"): the
 * kernel shows that to anyone, whereas a program is found by its id only with
 * CAP_SYS_ADMIN, which a daemon had better do without.
 */
#include "actual/bpf_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int take_bpf(const struct nlattr *a, void *arg)
{
	const char **name = arg;

	if (mnl_attr_get_type(a) == TCA_BPF_NAME &&
	    mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
		*name = mnl_attr_get_str(a);
	return MNL_CB_OK;
}

static int take_option(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == TCA_OPTIONS)
		mnl_attr_parse_nested(a, take_bpf, arg);
	return MNL_CB_OK;
}

/* The name is inside the message. */
static int take_filter(const struct nlmsghdr *h, void *arg)
{
	if (h->nlmsg_type == RTM_NEWTFILTER)
		mnl_attr_parse(h, sizeof(struct tcmsg), take_option, arg);
	return MNL_CB_STOP;
}

static void request(struct nlmsghdr *h, int ifindex, uint32_t priority,
		    uint32_t handle)
{
	struct tcmsg *t;

	h->nlmsg_type = RTM_GETTFILTER;
	h->nlmsg_flags = NLM_F_REQUEST;
	h->nlmsg_seq = (uint32_t)time(NULL);
	t = mnl_nlmsg_put_extra_header(h, sizeof(*t));
	t->tcm_family = AF_UNSPEC;
	t->tcm_ifindex = ifindex;
	t->tcm_handle = handle;
	t->tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS);
	t->tcm_info = TC_H_MAKE(priority << 16, htons(ETH_P_ALL));
}

bool filter_called(int ifindex, uint32_t priority, uint32_t handle, char *ret,
		   size_t size)
{
	_Alignas(8) char buffer[8192];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buffer);
	struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	const char *name = NULL;
	ssize_t n = -1;

	if (!s)
		return false;
	request(h, ifindex, priority, handle);
	if (!mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) &&
	    mnl_socket_sendto(s, h, h->nlmsg_len) >= 0)
		n = mnl_socket_recvfrom(s, buffer, sizeof(buffer));
	if (n > 0)
		mnl_cb_run(buffer, (size_t)n, 0, 0, take_filter, &name);
	if (name)
		snprintf(ret, size, "%.*s", (int)strcspn(name, ":"), name);
	mnl_socket_close(s);
	return name != NULL;
}
