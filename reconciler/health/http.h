/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The little HTTP/1.1 a probe speaks: one GET, and the answer's first line. */
#ifndef HEALTH_HTTP_H
#define HEALTH_HTTP_H

#include "base/buf.h"
#include "health/health.h"

/* A first line is shorter than this or isn't one. */
#define HTTP_LINE_MAX 512

void http_request(const struct health_spec *spec, const struct ip *address,
		  uint16_t port, struct buf *out);

/*
 * Judge what has arrived so far.  true: *ret_result is final.  false: the
 * line isn't whole yet.  ended: nothing more will come.
 */
bool http_judge(const struct health_spec *spec, const char *data, size_t len,
		bool ended, enum probe_result *ret_result);

#endif
