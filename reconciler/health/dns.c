/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "health/dns.h"

#include <ctype.h>
#include <string.h>

#include "desired/names.h"

#define HEADER 12
#define CLASS_IN 1
#define FLAG_ANSWER 0x80
#define FLAG_TRUNCATED 0x02
#define FLAG_RECURSE 0x01

/* A datagram being read; every step checks that it is there. */
struct cursor {
	const uint8_t *data;
	size_t len, at;
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

/* The file's checks say that each label is 1 to 63 bytes, and 253 in all. */
static uint8_t *put_name(uint8_t *p, const char *name)
{
	while (*name && strcmp(name, ".") != 0) {
		size_t len = strcspn(name, ".");

		*p++ = (uint8_t)len;
		memcpy(p, name, len);
		p += len;
		name += len + (name[len] == '.');
	}
	*p++ = 0;
	return p;
}

size_t dns_query(const struct health_spec *spec, uint16_t id,
		 uint8_t ret[DNS_QUERY_MAX])
{
	uint8_t *p = ret;

	memset(ret, 0, HEADER);
	put16(p, id);
	p[2] = FLAG_RECURSE;
	p[5] = 1; /* question */
	p = put_name(p + HEADER, spec->name);
	p = put16(p, (uint16_t)spec->record);
	p = put16(p, CLASS_IN);
	return (size_t)(p - ret);
}

/* Whatever the name is: a pointer ends it. */
static bool skip_name(struct cursor *c)
{
	while (c->at < c->len) {
		uint8_t n = c->data[c->at];

		if ((n & 0xc0) == 0xc0) {
			c->at += 2;
			return c->at <= c->len;
		}
		if (n & 0xc0)
			return false;
		c->at += 1u + n;
		if (!n)
			return c->at <= c->len;
	}
	return false;
}

/* The question as it was asked; servers may change the case of letters. */
static bool same_question(struct cursor *c, const struct health_spec *spec)
{
	uint8_t query[DNS_QUERY_MAX];
	size_t len = dns_query(spec, 0, query) - HEADER;

	if (c->len - c->at < len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (tolower(c->data[c->at + i]) != tolower(query[HEADER + i]))
			return false;
	c->at += len;
	return true;
}

static bool is_expected(const struct health_spec *spec, const uint8_t *data,
			size_t len)
{
	for (size_t i = 0; i < spec->answer_count; i++)
		if (len == (size_t)ip_bits(&spec->answers[i]) / 8 &&
		    !memcmp(spec->answers[i].bytes, data, len))
			return true;
	return false;
}

/* Is one of those that are expected among the answers? */
static enum probe_result judge_answers(const struct health_spec *spec,
				       struct cursor *c, unsigned int count,
				       struct buf *detail)
{
	for (; count; count--) {
		const uint8_t *r;
		size_t len;

		if (!skip_name(c) || c->len - c->at < 10)
			goto broken;
		r = c->data + c->at;
		len = get16(r + 8);
		c->at += 10;
		if (c->len - c->at < len)
			goto broken;
		if (get16(r) == spec->record && get16(r + 2) == CLASS_IN &&
		    is_expected(spec, r + 10, len))
			return PROBE_PASS;
		c->at += len;
	}
	buf_adds(detail, "none of the expected answers");
	return PROBE_BAD_ANSWER;
broken:
	buf_adds(detail, "records cut short");
	return PROBE_BAD_ANSWER;
}

static enum probe_result judge_code(const struct health_spec *spec,
				    unsigned int code, struct buf *detail)
{
	const char *name = choice_name(rcode_names, (int)code);

	if (spec->rcodes & 1u << code)
		return PROBE_PASS;
	if (*name)
		buf_adds(detail, name);
	else
		buf_addf(detail, "rcode %u", code);
	return PROBE_BAD_STATUS;
}

bool dns_judge(const struct health_spec *spec, uint16_t id, const uint8_t *data,
	       size_t len, enum probe_result *ret_result, struct buf *detail)
{
	struct cursor c = { data, len, HEADER };

	if (len < 2 || get16(data) != id)
		return false;
	*ret_result = PROBE_BAD_ANSWER;
	if (len < HEADER || !(data[2] & FLAG_ANSWER)) {
		buf_adds(detail, "not an answer");
		return true;
	}
	/* Of an error some repeat the question and some don't. */
	*ret_result = judge_code(spec, data[3] & 0x0f, detail);
	if (*ret_result != PROBE_PASS)
		return true;
	if (get16(data + 4) ? !same_question(&c, spec) : !(data[3] & 0x0f)) {
		*ret_result = PROBE_BAD_ANSWER;
		buf_adds(detail, "the answer to another question");
	} else if (spec->answer_count && !(data[2] & FLAG_TRUNCATED)) {
		*ret_result = judge_answers(spec, &c, get16(data + 6), detail);
	}
	return true;
}
