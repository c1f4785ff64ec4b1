/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * https: our own connection (as tcp has it), then libcurl speaks TLS and HTTP
 * over it, driven by the loop (curl_multi_socket_action).  What the status is
 * decides; of the rest of an answer nothing is read.
 */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "health/probe.h"

struct web {
	CURLM *multi;
	struct loop *loop;
	struct loop_source *timer;
};

struct web_work {
	CURL *easy;
	struct curl_slist *connect_to;
	int fd; /* until libcurl takes it; then -1 */
	bool judged; /* the head of the answer is whole */
	char error[CURL_ERROR_SIZE];
};

/* ---- libcurl on the loop ---- */

static enum probe_result result_of(CURLcode code)
{
	switch ((int)code) {
	case CURLE_OPERATION_TIMEDOUT:
		return PROBE_TIMEOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
		return PROBE_BAD_CERTIFICATE;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CIPHER:
		return PROBE_TLS_ERROR;
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_OUT_OF_MEMORY:
	case CURLE_FAILED_INIT:
	case CURLE_URL_MALFORMAT:
	case CURLE_NOT_BUILT_IN:
	case CURLE_UNKNOWN_OPTION:
		return PROBE_LOCAL_ERROR;
	default:
		return PROBE_BAD_ANSWER;
	}
}

static bool expected(const struct health_spec *spec, long status)
{
	for (size_t i = 0; i < spec->expect_count; i++)
		if (spec->expect[i] == status)
			return true;
	return false;
}

static void transfer_ended(struct probe_target *t, CURLcode code)
{
	struct web_work *w = t->work;
	char text[CURL_ERROR_SIZE];
	long status = 0;

	curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
	if (w->judged && expected(t->spec, status)) {
		probe_finish(t, PROBE_PASS, NULL);
	} else if (w->judged) {
		snprintf(text, sizeof(text), "%ld", status);
		probe_finish(t, PROBE_BAD_STATUS, text);
	} else {
		/* It goes with the work. */
		snprintf(text, sizeof(text), "%s",
			 w->error[0] ? w->error : curl_easy_strerror(code));
		probe_finish(t, result_of(code), text);
	}
}

/* Each message is void as soon as its handle is removed. */
static void take_messages(struct web *web)
{
	const CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(web->multi, &left))) {
		CURLcode code = m->data.result;
		char *target = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &target);
		transfer_ended((struct probe_target *)(void *)target, code);
	}
}

static void on_socket(void *arg, int fd, uint32_t events)
{
	struct web *web = arg;
	int mask = 0, running;

	if (events & EPOLLIN)
		mask |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		mask |= CURL_CSELECT_ERR;
	curl_multi_socket_action(web->multi, fd, mask, &running);
	take_messages(web);
}

static void on_timer(void *arg)
{
	struct web *web = arg;
	int running;

	curl_multi_socket_action(web->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	take_messages(web);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct web *web = arg;

	(void)multi;
	if (ms < 0)
		loop_disarm(web->timer);
	else
		loop_arm_in(web->timer, (uint64_t)ms * NS_PER_MS);
	return 0;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
		      void *source)
{
	struct web *web = arg;
	uint32_t events = 0;

	(void)easy;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;
	if (what == CURL_POLL_REMOVE) {
		loop_remove(source);
		curl_multi_assign(web->multi, fd, NULL);
	} else if (source) {
		loop_set_events(source, events);
	} else {
		curl_multi_assign(web->multi, fd,
				  loop_add_fd(web->loop, fd, events, on_socket,
					      web));
	}
	return 0;
}

static struct web *web_new(struct loop *l)
{
	struct web *web;
	CURLM *multi;

	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return NULL;
	multi = curl_multi_init();
	if (!multi) {
		curl_global_cleanup();
		return NULL;
	}
	web = mem_alloc(sizeof(*web));
	web->multi = multi;
	web->loop = l;
	web->timer = loop_add_timer(l, on_timer, web);
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, web);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, web);
	/* A probe is about a new connection; none is kept. */
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L);
	return web;
}

void web_free(struct web *web)
{
	if (!web)
		return;
	curl_multi_cleanup(web->multi);
	loop_remove(web->timer);
	free(web);
	curl_global_cleanup();
}

/* ---- one transfer ---- */

static curl_socket_t give_socket(void *arg, curlsocktype purpose,
				 struct curl_sockaddr *address)
{
	struct web_work *w = arg;
	int fd = w->fd;

	(void)purpose;
	(void)address;
	w->fd = -1;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int is_connected(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	(void)arg;
	(void)fd;
	(void)purpose;
	return CURL_SOCKOPT_ALREADY_CONNECTED;
}

/* The head ends with an empty line; that of a 1xx comes before the one. */
static size_t take_head(const char *line, size_t size, size_t count, void *arg)
{
	struct web_work *w = arg;
	size_t len = size * count;
	long status = 0;

	if (len > 2 || !len || line[len - 1] != '\n')
		return len;
	curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200)
		return len;
	w->judged = true;
	return 0; /* enough is known */
}

static size_t take_nothing(const char *data, size_t size, size_t count,
			   void *arg)
{
	(void)data;
	(void)size;
	(void)count;
	(void)arg;
	return 0;
}

static void set_trust(CURL *e, const struct health_spec *spec)
{
	bool verifies = spec->verify != VERIFY_NO;

	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, verifies ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, verifies ? 2L : 0L);
	if (spec->verify == VERIFY_SYSTEM)
		return;
	/* Else it reads all that the system trusts, each time. */
	curl_easy_setopt(e, CURLOPT_CAINFO, spec->ca_file);
	curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
}

/* The URL names who is meant, and so what TLS asks for; where is our own. */
static void set_place(CURL *e, struct probe_target *t)
{
	AUTO_BUF struct buf url = BUF_INIT, to = BUF_INIT;
	const struct health_spec *s = t->spec;
	bool v6 = t->address.family == AF_INET6;
	struct web_work *w = t->work;
	char address[IP_STRLEN];

	ip_format(&t->address, address);
	if (s->host)
		buf_addf(&url, "https://%s:%u/", s->host, probe_port(t));
	else
		buf_addf(&url, v6 ? "https://[%s]:%u/" : "https://%s:%u/",
			 address, probe_port(t));
	buf_addf(&to, v6 ? "::[%s]:%u" : "::%s:%u", address, probe_port(t));
	w->connect_to = curl_slist_append(NULL, buf_str(&to));
	curl_easy_setopt(e, CURLOPT_URL, buf_str(&url));
	curl_easy_setopt(e, CURLOPT_CONNECT_TO, w->connect_to);
	curl_easy_setopt(e, CURLOPT_REQUEST_TARGET, s->path);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
}

static void set_options(CURL *e, struct probe_target *t)
{
	struct web_work *w = t->work;

	set_place(e, t);
	set_trust(e, t->spec);
	curl_easy_setopt(e, CURLOPT_PRIVATE, t);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, w->error);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, give_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, w);
	curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, is_connected);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, take_head);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, w);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_nothing);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(e, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "xlb");
}

static void connected(struct probe_target *t)
{
	struct prober *p = t->prober;
	struct web_work *w = mem_alloc(sizeof(*w));

	/* The timer is ours: one more deadline would only confuse. */
	t->phase = PHASE_ANSWERING;
	loop_arm(t->timer, probe_deadline(t));
	loop_remove(t->source);
	t->source = NULL;
	w->fd = t->fd;
	t->fd = -1;
	t->work = w;
	if (!p->web)
		p->web = web_new(p->loop);
	w->easy = p->web ? curl_easy_init() : NULL;
	if (!w->easy) {
		probe_finish(t, PROBE_LOCAL_ERROR, "libcurl can't start");
		return;
	}
	set_options(w->easy, t);
	curl_multi_add_handle(p->web->multi, w->easy);
}

static void https_event(struct probe_target *t, uint32_t events)
{
	stream_event(t, events, connected);
}

static void https_drop(struct probe_target *t)
{
	struct web_work *w = t->work;

	if (w->easy) {
		curl_multi_remove_handle(t->prober->web->multi, w->easy);
		curl_easy_cleanup(w->easy);
	}
	curl_slist_free_all(w->connect_to);
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}

const struct probe_kind probe_https = {
	.start = stream_start,
	.event = https_event,
	.drop = https_drop,
};
