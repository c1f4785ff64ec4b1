/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "base/buf.h"

#define TEXT_MAX 1024

static enum log_level threshold = LOG_INFO;
static char run[17];
static _Atomic int64_t revision;
static void (*send_to)(const struct log_entry *e);

void log_set_level(enum log_level level)
{
	threshold = level;
}

void log_set_run(const char *run_id)
{
	snprintf(run, sizeof(run), "%s", run_id);
}

void log_set_revision(int64_t id)
{
	revision = id;
}

void log_set_sink(void (*sink)(const struct log_entry *e))
{
	send_to = sink;
}

static void print_line(const struct log_entry *e)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	struct timespec ts;
	char stamp[32], ids[64] = "";
	struct tm tm;
	int n = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	if (e->run_id[0])
		n = snprintf(ids, sizeof(ids), " run=%s", e->run_id);
	if (e->revision)
		snprintf(ids + n, sizeof(ids) - (size_t)n, " revision=%lld",
			 (long long)e->revision);
	/* One call, so that lines of several threads don't mix. */
	fprintf(stderr, "time=%s.%03ldZ level=%s event=%s %s%s\n", stamp,
		ts.tv_nsec / 1000000, names[e->level], e->event, e->text, ids);
}

static struct log_entry entry(enum log_level level, const char *event,
			      const char *text)
{
	return (struct log_entry){ .level = level,
				   .event = event,
				   .text = text,
				   .run_id = run,
				   .revision = revision };
}

/* An entry is a line, whatever a library's message has in it. */
static void join_lines(char *text)
{
	for (; *text; text++)
		if (*text == '\n' || *text == '\r')
			*text = ' ';
}

void log_line(enum log_level level, const char *event, const char *fmt, ...)
{
	struct log_entry e;
	char text[TEXT_MAX];
	va_list ap;

	if (level > threshold)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	join_lines(text);
	e = entry(level, event, text);
	if (send_to)
		send_to(&e);
	else
		print_line(&e);
}

void log_text(enum log_level level, const char *event, const char *text)
{
	struct log_entry e = entry(level, event, text);

	if (!*text)
		return;
	if (send_to)
		send_to(&e);
	else
		fputs(text, stderr);
}
