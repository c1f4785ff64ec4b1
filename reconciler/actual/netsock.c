/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "actual/netlink_priv.h"

/* Room for the events of a few thousand neighbours at once. */
#define EVENT_BYTES (4 << 20)
/* A dump that something changed underneath is asked for again so often. */
#define DUMP_TRIES 5

int netsock_open(struct netsock *s, int protocol)
{
	int error;

	s->seq = 0;
	s->nl = mnl_socket_open2(protocol, SOCK_CLOEXEC);
	if (!s->nl)
		return -errno;
	if (mnl_socket_bind(s->nl, 0, MNL_SOCKET_AUTOPID) == 0)
		return 0;
	error = -errno;
	netsock_close(s);
	return error;
}

void netsock_close(struct netsock *s)
{
	if (s->nl)
		mnl_socket_close(s->nl);
	s->nl = NULL;
}

/*
 * What is left of an answer that was given up halfway, such as a dump that
 * something changed underneath.  Reading is also what lets the dump end.
 */
static void drain(struct netsock *s, char *buffer, size_t size)
{
	int fd = mnl_socket_get_fd(s->nl);

	while (recv(fd, buffer, size, MSG_DONTWAIT) >= 0)
		;
}

static int ask_once(struct netsock *s, struct nlmsghdr *request, mnl_cb_t fn,
		    void *arg)
{
	_Alignas(8) char buffer[NET_BUFFER];
	unsigned int port = mnl_socket_get_portid(s->nl);
	int more = MNL_CB_OK;
	int error;

	request->nlmsg_seq = ++s->seq;
	if (mnl_socket_sendto(s->nl, request, request->nlmsg_len) < 0)
		return -errno;
	while (more == MNL_CB_OK) {
		ssize_t n = mnl_socket_recvfrom(s->nl, buffer, sizeof(buffer));

		if (n < 0)
			return -errno;
		more = mnl_cb_run(buffer, (size_t)n, s->seq, port, fn, arg);
	}
	if (more >= 0)
		return 0;
	error = -errno;
	drain(s, buffer, sizeof(buffer));
	return error;
}

int netsock_ask(struct netsock *s, struct nlmsghdr *request, mnl_cb_t fn,
		void *arg)
{
	int error = -EINTR;

	/* What isn't a dump has its one answer closed by an acknowledgement. */
	request->nlmsg_flags |= NLM_F_REQUEST;
	if ((request->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		request->nlmsg_flags |= NLM_F_ACK;
	for (int i = 0; i < DUMP_TRIES && error == -EINTR; i++)
		error = ask_once(s, request, fn, arg);
	return error;
}

int netsock_subscribe(int protocol, const uint32_t *groups, size_t count,
		      struct mnl_socket **ret)
{
	struct mnl_socket *nl;
	int bytes = EVENT_BYTES;
	int error;

	nl = mnl_socket_open2(protocol, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!nl)
		return -errno;
	/* Without it, an overflow and a full refresh come sooner; no more. */
	(void)setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVBUFFORCE,
			 &bytes, sizeof(bytes));
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		goto fail;
	for (size_t i = 0; i < count; i++) {
		uint32_t group = groups[i];

		if (mnl_socket_setsockopt(nl, NETLINK_ADD_MEMBERSHIP, &group,
					  sizeof(group)) < 0)
			goto fail;
	}
	*ret = nl;
	return 0;
fail:
	error = -errno;
	mnl_socket_close(nl);
	return error;
}
