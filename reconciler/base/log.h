/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One line an event on standard error, key=value:
 *   log_info("vm_created", "service=%s vm=%s took_ms=%d", ...)
 * prints  time=... level=info event=vm_created service=web vm=web-1 took_ms=41
 * and behind that, once they are known, the run's id and the revision that
 * runs; or hands the same to a sink (the journal: systemd.h).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_entry {
	enum log_level level;
	const char *event;
	const char *text; /* key=value ..., or what is meant for people */
	const char *run_id; /* "": none */
	int64_t revision; /* 0: none */
};

void log_set_level(enum log_level level); /* default LOG_INFO */
void log_set_run(const char *run_id); /* copied, 16 characters at most */
void log_set_revision(int64_t id); /* of what is applied from now on */
/* From any thread that logs. NULL: lines on standard error, as it begins. */
void log_set_sink(void (*sink)(const struct log_entry *e));

void log_line(enum log_level level, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A text for people, as it stands; whatever the level is. */
void log_text(enum log_level level, const char *event, const char *text);

#define log_error(event, ...) log_line(LOG_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...) log_line(LOG_WARN, event, __VA_ARGS__)
#define log_info(event, ...) log_line(LOG_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_line(LOG_DEBUG, event, __VA_ARGS__)

#endif
