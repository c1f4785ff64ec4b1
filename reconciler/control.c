/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket.  A request is an argument vector, NUL-separated, ended
 * by shutting the sending side; the answer is the exit code as one byte, then
 * text.  Requests are read and answers written without ever blocking the loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/seam.h"
#include "reconcile.h"

#define REQUEST_MAX 65536
#define ANSWER_TIMEOUT_S 30
#define LOCKED_WAIT (3 * NS_PER_S)

struct control {
	struct reconciler *r;
	int fd;
	struct loop_source *source;
	char *path;
	struct client *clients;
};

struct client {
	struct control *control;
	int fd;
	struct loop_source *source;
	struct buf in, out;
	size_t sent;
	bool answering;
	bool stays; /* after its answer, for what it asked for goes on */
	struct client *next, **link;
};

static int socket_address(const char *state_dir, struct sockaddr_un *ret)
{
	int n = snprintf(ret->sun_path, sizeof(ret->sun_path),
			 "%s/control.sock", state_dir);

	ret->sun_family = AF_UNIX;
	return n < 0 || (size_t)n >= sizeof(ret->sun_path) ? -ENAMETOOLONG : 0;
}

static void free_client(struct client *c)
{
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	loop_remove(c->source);
	close(c->fd);
	buf_release(&c->in);
	buf_release(&c->out);
	free(c);
}

int verb_on_reconciler(struct reconciler *r, const struct options *opt,
		       struct buf *out)
{
	static const struct {
		const char *name;
		int (*fn)(struct reconciler *, const struct options *,
			  struct buf *);
		bool looks; /* and never changes anything */
	} verbs[] = {
		{ "plan", plan_verb, true },
		{ "diff", plan_verb, true },
		{ "apply", apply_verb, false },
		{ "approve", apply_verb, false },
		{ "status", status_verb, true },
		{ "drain", override_verb, false },
		{ "undrain", override_verb, false },
		{ "refresh", override_verb, false },
		{ "pause", keep_verb, false },
		{ "resume", keep_verb, false },
		{ "unprotect", keep_verb, false },
		{ "trace", trace_verb, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		int code;

		if (strcmp(verbs[i].name, opt->verb) != 0)
			continue;
		if ((!verbs[i].looks || opt->live) && !opt->dry_run)
			return verbs[i].fn(r, opt, out);
		seam_look_begin();
		code = verbs[i].fn(r, opt, out);
		seam_look_end();
		return code;
	}
	buf_addf(out, "the daemon has no verb %s\n", opt->verb);
	return EXIT_USAGE;
}

static void answer(struct client *c)
{
	char *words[REQUEST_WORDS];
	struct buf err = BUF_INIT;
	struct options opt;
	unsigned char code;

	buf_add(&c->out, "", 1); /* room for the code */
	code = (unsigned char)request_parse(&c->in, words, &opt, &err);
	buf_adds(&c->out, buf_str(&err));
	buf_release(&err);
	if (!code)
		code = (unsigned char)verb_on_reconciler(c->control->r, &opt,
							 &c->out);
	c->stays = opt.live && !code;
	options_release(&opt);
	c->out.data[0] = (char)code;
	c->answering = true;
	loop_set_events(c->source, EPOLLOUT);
}

static void receive(struct client *c)
{
	char chunk[4096];
	ssize_t n = recv(c->fd, chunk, sizeof(chunk), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 || c->in.len + (size_t)n > REQUEST_MAX) {
		free_client(c);
	} else if (n == 0) {
		answer(c);
	} else {
		buf_add(&c->in, chunk, (size_t)n);
	}
}

/* However it went: what it asked for ends with it. */
static void lose_client(struct client *c)
{
	struct reconciler *r = c->control->r;
	bool stays = c->stays;

	free_client(c);
	if (stays)
		live_end(r);
}

void control_dismiss(struct control *c)
{
	for (struct client *k = c ? c->clients : NULL, *next; k; k = next) {
		next = k->next;
		if (k->stays)
			free_client(k);
	}
}

static void transmit(struct client *c)
{
	ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent,
			 MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		c->sent += (size_t)n;
	if (n < 0)
		lose_client(c);
	else if (c->sent < c->out.len)
		return;
	else if (c->stays)
		loop_set_events(c->source, 0); /* its end is told anyway */
	else
		free_client(c);
}

static void on_client(void *arg, int fd, uint32_t events)
{
	struct client *c = arg;

	(void)fd;
	if (c->stays && (events & (EPOLLHUP | EPOLLERR)))
		lose_client(c);
	else if (c->answering)
		transmit(c);
	else
		receive(c);
}

static void on_connection(void *arg, int fd, uint32_t events)
{
	struct control *ctl = arg;
	struct client *c;
	int s = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (s < 0)
		return;
	c = mem_alloc(sizeof(*c));
	c->control = ctl;
	c->fd = s;
	c->link = &ctl->clients;
	c->next = ctl->clients;
	if (c->next)
		c->next->link = &c->next;
	ctl->clients = c;
	c->source = loop_add_fd(ctl->r->loop, s, EPOLLIN, on_client, c);
}

int control_open(struct reconciler *r, struct control **ret)
{
	struct sockaddr_un addr = { 0 };
	struct control *c;
	int err = socket_address(r->opt->state_dir, &addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	mode_t mask = umask(0177);

	unlink(addr.sun_path); /* ours: the lock is held */
	if (!err &&
	    (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	     listen(fd, 16)))
		err = -errno;
	umask(mask);
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	c = mem_alloc(sizeof(*c));
	c->r = r;
	c->fd = fd;
	c->path = mem_dup(addr.sun_path);
	c->source = loop_add_fd(r->loop, fd, EPOLLIN, on_connection, c);
	*ret = c;
	return 0;
}

void control_close(struct control *c)
{
	if (!c)
		return;
	for (struct client *k = c->clients, *next; k; k = next) {
		next = k->next;
		free_client(k);
	}
	loop_remove(c->source);
	close(c->fd);
	unlink(c->path);
	free(c->path);
	free(c);
}

/* ---- the asking side ---- */

static void add_word(struct buf *b, const char *word)
{
	buf_add(b, word, strlen(word) + 1);
}

static void add_option(struct buf *b, const char *name, const char *value)
{
	if (!value)
		return;
	add_word(b, name);
	add_word(b, value);
}

static void add_number(struct buf *b, const char *name, uint32_t value)
{
	AUTO_FREE char *text = value ? mem_printf("%u", value) : NULL;

	add_option(b, name, text);
}

/* A file is named as from the root: the daemon works elsewhere. */
static char *absolute(const char *path)
{
	AUTO_FREE char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);

	return here ? mem_printf("%s/%s", here, path) : mem_dup(path);
}

static void request(const struct options *opt, struct buf *b)
{
	AUTO_FREE char *file = opt->file_given ? absolute(opt->file) : NULL;
	struct {
		bool set;
		const char *text;
	} switches[] = { { opt->json, "--json" },
			 { opt->dry_run, "--dry-run" },
			 { opt->detailed_exitcode, "--detailed-exitcode" },
			 { opt->live, "--live" },
			 { opt->drift_only, "--drift-only" },
			 { opt->check, "--check" } };

	for (size_t i = 0; i < ARRAY_SIZE(switches); i++)
		if (switches[i].set)
			add_word(b, switches[i].text);
	add_option(b, "--for", opt->lasts);
	add_option(b, "--vip", opt->vip);
	add_option(b, "--from", opt->from);
	add_option(b, "--protocol", opt->protocol);
	add_option(b, "--service", opt->service);
	add_number(b, "--length", opt->length);
	add_number(b, "--ttl", opt->ttl);
	add_number(b, "--rate", opt->rate);
	/* The daemon writes no file for others: it answers with what to save. */
	add_option(b, "--out", opt->out ? "-" : NULL);
	add_option(b, "-f", file);
	add_word(b, opt->verb);
	for (size_t i = 0; i < opt->arg_count; i++)
		add_word(b, opt->args[i]);
}

/* To its end, or of what is held: its line. */
static int receive_answer(int fd, bool held, struct buf *out)
{
	char chunk[4096];
	ssize_t n = recv(fd, chunk, 1, MSG_WAITALL);
	int code = n == 1 ? (unsigned char)chunk[0] : -ECONNRESET;

	if (n < 0)
		return -errno;
	held = held && !code;
	while ((n = recv(fd, chunk, sizeof(chunk), 0)) > 0) {
		buf_add(out, chunk, (size_t)n);
		if (held && chunk[n - 1] == '\n')
			return code;
	}
	return n < 0 ? -errno : held ? -ECONNRESET : code;
}

static int ask_once(const struct options *opt, bool held, struct buf *out,
		    int *ret_fd)
{
	struct timeval limit = { .tv_sec = ANSWER_TIMEOUT_S };
	struct sockaddr_un addr = { 0 };
	struct buf b = BUF_INIT;
	int code = socket_address(opt->state_dir, &addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!code && connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		code = errno == ECONNREFUSED ? -ENOENT : -errno;
	request(opt, &b);
	if (!code && send(fd, b.data, b.len, MSG_NOSIGNAL) != (ssize_t)b.len)
		code = -EIO;
	if (!code) {
		shutdown(fd, SHUT_WR);
		code = receive_answer(fd, held, out);
	}
	buf_release(&b);
	if (held && !code)
		*ret_fd = fd;
	else
		close(fd);
	return code;
}

/* Does anybody hold the lock of the state dir? */
static bool is_locked(const char *state_dir)
{
	AUTO_FREE char *path = mem_printf("%s/lock", state_dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool locked =
		fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return locked;
}

/* A daemon that has just started doesn't answer yet, one that ends no longer. */
static int ask(const struct options *opt, bool held, struct buf *out,
	       int *ret_fd)
{
	const struct timespec pause = { .tv_nsec = 10 * (long)NS_PER_MS };
	uint64_t until = clock_ns() + LOCKED_WAIT;
	int code = ask_once(opt, held, out, ret_fd);

	while (code == -ENOENT && is_locked(opt->state_dir) &&
	       clock_ns() < until) {
		nanosleep(&pause, NULL);
		code = ask_once(opt, held, out, ret_fd);
	}
	return code;
}

int control_ask(const struct options *opt, struct buf *out)
{
	return ask(opt, false, out, NULL);
}

int control_hold(const struct options *opt, struct buf *out, int *ret_fd)
{
	return ask(opt, true, out, ret_fd);
}
