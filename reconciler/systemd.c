/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "systemd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/buf.h"
/* Before syslog.h, which comes next, makes macros of two of its names. */
#include "base/log.h"

#include <systemd/sd-daemon.h>
/* Without the place in the source: send_entry() would be it, always. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

/* ---- the journal ---- */

/* The service that the event is about: service=NAME or object=service.NAME/. */
static bool service_of(const char *text, char *ret, size_t size)
{
	static const char *const keys[] = { "service=", "object=service." };
	size_t len;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *at = strstr(text, keys[i]);

		if (!at || (at != text && at[-1] != ' '))
			continue;
		at += strlen(keys[i]);
		len = strcspn(at, i ? "/ " : " ");
		if (!len || len >= size)
			continue;
		memcpy(ret, at, len);
		ret[len] = '\0';
		return true;
	}
	return false;
}

struct fields {
	struct iovec at[8];
	int count;
};

static void add_field(struct fields *f, char *field)
{
	f->at[f->count++] =
		(struct iovec){ .iov_base = field, .iov_len = strlen(field) };
}

static void send_entry(const struct log_entry *e)
{
	/* Of syslog: error, warning, informational, debug. */
	static const int priorities[] = { 3, 4, 6, 7 };
	bool line = strcmp(e->event, "diagnostics") != 0;
	AUTO_FREE char *message =
		mem_printf("MESSAGE=%s%s%s", line ? e->event : "",
			   line ? " " : "", e->text);
	char priority[16], event[64], run[32], revision[48];
	char service[80] = "XLB_SERVICE=";
	size_t name = strlen(service);
	struct fields f = { 0 };

	snprintf(priority, sizeof(priority), "PRIORITY=%d",
		 priorities[e->level]);
	snprintf(event, sizeof(event), "XLB_EVENT=%s", e->event);
	snprintf(run, sizeof(run), "XLB_RUN_ID=%s", e->run_id);
	snprintf(revision, sizeof(revision), "XLB_REVISION=%" PRId64,
		 e->revision);
	add_field(&f, message);
	add_field(&f, priority);
	add_field(&f, event);
	if (e->run_id[0])
		add_field(&f, run);
	if (e->revision)
		add_field(&f, revision);
	if (service_of(e->text, service + name, sizeof(service) - name))
		add_field(&f, service);
	sd_journal_sendv(f.at, f.count);
}

void systemd_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char mine[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st))
		return;
	/* Inherited by those, too, whose errors go elsewhere. */
	snprintf(mine, sizeof(mine), "%ju:%ju", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino);
	if (!strcmp(mine, stream))
		log_set_sink(send_entry);
}

/* ---- the service manager ---- */

static void sign_of_life(void *arg)
{
	struct reconciler *r = arg;

	sd_notify(0, "WATCHDOG=1");
	loop_arm_in(r->watchdog, r->watchdog_every);
}

void systemd_watchdog(struct reconciler *r)
{
	uint64_t usec;

	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	r->watchdog_every = usec * 1000 / 2;
	r->watchdog = loop_add_timer(r->loop, sign_of_life, r);
	sign_of_life(r);
}

void systemd_serving(struct reconciler *r)
{
	char text[sizeof(r->told_status)];
	int n;

	if (r->spec)
		n = snprintf(text, sizeof(text), "revision %lld, %zu services",
			     (long long)r->revision, r->spec->service_count);
	else
		n = snprintf(text, sizeof(text), "no revision yet");
	snprintf(text + n, sizeof(text) - (size_t)n, "%s",
		 r->file_diags.errors ? "; the file as it is now is refused"
		 : r->waiting	      ? "; changes wait for the operator"
		 : r->failing[0]      ? "; not all could be applied"
				      : "");
	if (!strcmp(text, r->told_status))
		return;
	snprintf(r->told_status, sizeof(r->told_status), "%s", text);
	sd_notifyf(0, "READY=1\nSTATUS=%s", text);
}

void systemd_stopping(struct reconciler *r)
{
	loop_remove(r->watchdog);
	r->watchdog = NULL;
	sd_notify(0, "STOPPING=1\nSTATUS=stopping; traffic goes on");
}
