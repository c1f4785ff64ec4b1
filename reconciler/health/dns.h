/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The little of DNS (RFC 1035) that a probe speaks: one question; pure. */
#ifndef HEALTH_DNS_H
#define HEALTH_DNS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "health/health.h"

#define DNS_QUERY_MAX 272 /* header, the longest name, type and class */

/* A query for spec->name; its length in bytes. */
size_t dns_query(const struct health_spec *spec, uint16_t id,
		 uint8_t ret[DNS_QUERY_MAX]);
/*
 * False: the datagram doesn't answer this query, wait on.  Else *ret_result is
 * final, and `detail` says more about a failure.
 */
bool dns_judge(const struct health_spec *spec, uint16_t id, const uint8_t *data,
	       size_t len, enum probe_result *ret_result, struct buf *detail);

#endif
