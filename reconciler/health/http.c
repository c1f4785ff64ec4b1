/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RFC 9112; pure. */
#include "health/http.h"

#include <ctype.h>
#include <string.h>

/* Where a character of the status line may be anything: matched strictly. */
static const char pattern[] = "HTTP/1.# ###";

static void add_host(const struct ip *address, uint16_t port, struct buf *out)
{
	char text[IP_STRLEN];

	ip_format(address, text);
	buf_addf(out, address->family == AF_INET6 ? "[%s]" : "%s", text);
	if (port != 80)
		buf_addf(out, ":%u", port);
}

void http_request(const struct health_spec *spec, const struct ip *address,
		  uint16_t port, struct buf *out)
{
	buf_addf(out,
		 "GET %s HTTP/1.1\r\nHost: ", spec->path ? spec->path : "/");
	if (spec->host)
		buf_adds(out, spec->host);
	else
		add_host(address, port, out);
	buf_adds(out, "\r\nUser-Agent: xlb\r\nAccept: */*\r\n"
		      "Connection: close\r\n\r\n");
}

static bool fits(const char *data, size_t len)
{
	for (size_t i = 0; i < len && pattern[i]; i++) {
		if (pattern[i] == '#' ? !isdigit((unsigned char)data[i])
				      : data[i] != pattern[i])
			return false;
	}
	return true;
}

static bool expected(const struct health_spec *spec, unsigned int status)
{
	for (size_t i = 0; i < spec->expect_count; i++) {
		if (spec->expect[i] == status)
			return true;
	}
	return spec->expect_count == 0 && status == 200;
}

/* `len` bytes up to the line feed. */
static enum probe_result judge_line(const struct health_spec *spec,
				    const char *line, size_t len)
{
	size_t least = strlen(pattern);
	unsigned int status = 0;

	if (len && line[len - 1] == '\r')
		len--;
	if (len < least || (len > least && line[least] != ' '))
		return PROBE_BAD_ANSWER;
	for (size_t i = least - 3; i < least; i++)
		status = status * 10 + (unsigned int)(line[i] - '0');
	return expected(spec, status) ? PROBE_PASS : PROBE_BAD_STATUS;
}

bool http_judge(const struct health_spec *spec, const char *data, size_t len,
		bool ended, enum probe_result *ret_result)
{
	const char *end = len ? memchr(data, '\n', len) : NULL;

	if (!fits(data, len) || (!end && (ended || len >= HTTP_LINE_MAX))) {
		*ret_result = PROBE_BAD_ANSWER;
		return true;
	}
	if (!end)
		return false;
	*ret_result = judge_line(spec, data, (size_t)(end - data));
	return true;
}
