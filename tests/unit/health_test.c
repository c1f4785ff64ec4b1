/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <stdlib.h>
#include <string.h>

#include "health/dns.h"
#include "health/echo.h"
#include "health/health.h"
#include "health/http.h"

static const struct health_spec spec = {
	.interval = 2 * NS_PER_S,
	.timeout = NS_PER_S,
	.rise = 2,
	.fall = 3,
};

/* A character a probe: . passes, x times out, r refused, l our own fault. */
static enum probe_result result_of(char c)
{
	switch (c) {
	case '.':
		return PROBE_PASS;
	case 'r':
		return PROBE_REFUSED;
	case 'l':
		return PROBE_LOCAL_ERROR;
	default:
		return PROBE_TIMEOUT;
	}
}

static const char letters[] = "JUDX"; /* a state each */

static void feed_all(const struct health_spec *s, enum health_state initial,
		     const char *results, char *ret_states)
{
	struct health h;

	health_init(&h, initial);
	for (; *results; results++) {
		enum health_state before = h.state;
		bool changed = health_feed(&h, s, result_of(*results));

		assert_int_equal(changed, h.state != before);
		*ret_states++ = letters[h.state];
	}
	*ret_states = '\0';
}

static void test_sequences(void **state)
{
	static const struct {
		enum health_state initial;
		const char *results, *states;
	} cases[] = {
		{ HEALTH_JOINING, "xxxxx.", "JJJJJU" },
		{ HEALTH_JOINING, "rrrrr.", "JJJJJU" },
		{ HEALTH_UP, "xxx", "UUD" },
		{ HEALTH_UP, "xx.xx.xx.", "UUUUUUUUU" },
		{ HEALTH_UP, "rrr", "UUX" },
		{ HEALTH_UP, "xrr", "UUD" },
		{ HEALTH_UP, "xrrr", "UUDX" },
		{ HEALTH_UP, "rrxrrr", "UUDDDX" },
		{ HEALTH_UP, "llllll", "UUUUUU" },
		{ HEALTH_UP, "xlxlx", "UUUUD" },
		{ HEALTH_DOWN, ".x.x..", "DDDDDU" },
		{ HEALTH_DOWN, ".l.", "DDU" },
		{ HEALTH_DEAD, ".r..", "XXXU" },
		{ HEALTH_DEAD, "xxxxx", "XXXXX" },
	};
	char states[32];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		feed_all(&spec, cases[i].initial, cases[i].results, states);
		assert_string_equal(states, cases[i].states);
	}
}

static void test_zero_counts_mean_one(void **state)
{
	struct health_spec s = spec;
	char states[8];

	(void)state;
	s.rise = s.fall = 0;
	feed_all(&s, HEALTH_UP, "x.r.", states);
	assert_string_equal(states, "DUXU");
}

static void test_kill(void **state)
{
	struct health h;

	(void)state;
	health_init(&h, HEALTH_UP);
	health_feed(&h, &spec, PROBE_PASS);
	assert_true(health_kill(&h));
	assert_int_equal(h.state, HEALTH_DEAD);
	assert_int_equal(h.passes, 0);
	assert_false(health_kill(&h));
	/* One pass seen before the kill must not count towards coming back. */
	assert_false(health_feed(&h, &spec, PROBE_PASS));
	assert_true(health_feed(&h, &spec, PROBE_PASS));
	assert_int_equal(h.state, HEALTH_UP);
}

/* What must hold after any sequence, said without looking at the counters. */
static bool tail_is(const char *results, size_t len, const char *allowed,
		    uint32_t wanted)
{
	uint32_t n = 0;

	for (size_t i = len; i-- > 0 && n < wanted;) {
		if (results[i] == 'l')
			continue;
		if (!strchr(allowed, results[i]))
			return false;
		n++;
	}
	return n >= wanted;
}

static void check_step(const struct health_spec *s, const char *results,
		       size_t len, enum health_state before,
		       enum health_state after)
{
	if (before == after)
		return;
	assert_int_not_equal(results[len - 1], 'l');
	assert_int_not_equal(after, HEALTH_JOINING);
	if (after == HEALTH_UP && before == HEALTH_JOINING)
		assert_int_equal(results[len - 1], '.');
	else if (after == HEALTH_UP)
		assert_true(tail_is(results, len, ".", s->rise));
	else if (after == HEALTH_DEAD)
		assert_true(tail_is(results, len, "r", s->fall));
	else
		assert_true(tail_is(results, len, "xr", s->fall));
}

static void check_settled(const struct health_spec *s, const char *results,
			  size_t len, enum health_state now)
{
	if (now != HEALTH_JOINING && tail_is(results, len, ".", s->rise))
		assert_int_equal(now, HEALTH_UP);
	if (now != HEALTH_JOINING && tail_is(results, len, "r", s->fall))
		assert_int_equal(now, HEALTH_DEAD);
	if (tail_is(results, len, "xr", s->fall))
		assert_int_not_equal(now, HEALTH_UP);
}

static void test_any_sequence(void **state)
{
	static const char alphabet[] = ".xr.l";
	char results[40];

	(void)state;
	srandom(20240607);
	for (int round = 0; round < 20000; round++) {
		struct health_spec s = spec;
		struct health h;

		s.rise = 1 + (uint32_t)random() % 4;
		s.fall = 1 + (uint32_t)random() % 4;
		health_init(&h, (enum health_state)(random() % 4));
		for (size_t len = 1; len <= sizeof(results); len++) {
			enum health_state before = h.state;

			results[len - 1] = alphabet[random() % 5];
			health_feed(&h, &s, result_of(results[len - 1]));
			check_step(&s, results, len, before, h.state);
			check_settled(&s, results, len, h.state);
		}
	}
}

static void test_due(void **state)
{
	struct health h;
	uint64_t least = UINT64_MAX, most = 0;

	(void)state;
	health_init(&h, HEALTH_JOINING);
	assert_int_equal(health_next_due(&h, &spec, 1000, 3, 77),
			 1000 + 50 * NS_PER_MS);
	health_init(&h, HEALTH_UP);
	for (uint64_t r = 0; r <= UINT32_MAX; r += 65535) {
		uint64_t due = health_next_due(&h, &spec, 7 * spec.interval + 5,
					       5, (uint32_t)r);

		due -= 7 * spec.interval + 5;
		least = due < least ? due : least;
		most = due > most ? due : most;
	}
	/* All of 10 %, and no more. */
	assert_in_range(least, 1900 * NS_PER_MS, 1901 * NS_PER_MS);
	assert_in_range(most, 2099 * NS_PER_MS, 2100 * NS_PER_MS);
	health_init(&h, HEALTH_DOWN);
	assert_true(health_next_due(&h, &spec, 0, 0, 0) >= 1900 * NS_PER_MS);
}

/* Whenever it was probed last, joining or by hand, it finds its place again,
 * and jitter doesn't add up. */
static void test_place_is_kept(void **state)
{
	const uint64_t slack = spec.interval / 20;
	struct health h;

	(void)state;
	srandom(7);
	health_init(&h, HEALTH_UP);
	for (int round = 0; round < 2000; round++) {
		uint64_t phase = (uint64_t)random() << 32 | (uint64_t)random();
		uint64_t last = (uint64_t)random() * 1000;

		for (int i = 0; i < 20; i++) {
			uint64_t due = health_next_due(&h, &spec, last, phase,
						       (uint32_t)random() * 2);
			uint64_t off = (due + slack + spec.interval -
					phase % spec.interval) %
				       spec.interval;

			assert_in_range(off, 0, 2 * slack);
			assert_in_range(due - last, spec.interval / 2 - slack,
					spec.interval * 3 / 2 + slack);
			if (i)
				assert_in_range(due - last,
						spec.interval - 2 * slack,
						spec.interval + 2 * slack);
			last = due;
		}
	}
}

static enum probe_result judge(const char *text, bool ended, bool *ret_final)
{
	uint16_t expect[] = { 200, 204 };
	struct health_spec s = { .expect = expect, .expect_count = 2 };
	enum probe_result r = PROBE_LOCAL_ERROR;

	*ret_final = http_judge(&s, text, strlen(text), ended, &r);
	return r;
}

static void test_status_line(void **state)
{
	static const struct {
		const char *text;
		enum probe_result result;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nX: y\r\n", PROBE_PASS },
		{ "HTTP/1.0 204\r\n", PROBE_PASS },
		{ "HTTP/1.1 200 \n", PROBE_PASS },
		{ "HTTP/1.1 503 Busy\r\n", PROBE_BAD_STATUS },
		{ "HTTP/1.1 2000\r\n", PROBE_BAD_ANSWER },
		{ "HTTP/1.1 20\r\n", PROBE_BAD_ANSWER },
		{ "HTTP/2.0 200 OK\r\n", PROBE_BAD_ANSWER },
		{ "HTTP/1.1  200 OK\r\n", PROBE_BAD_ANSWER },
		{ "http/1.1 200 OK\r\n", PROBE_BAD_ANSWER },
		{ "220 mail.example ESMTP\r\n", PROBE_BAD_ANSWER },
		{ "SSH", PROBE_BAD_ANSWER },
		{ "\r\n", PROBE_BAD_ANSWER },
	};
	bool final;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(judge(cases[i].text, false, &final),
				 cases[i].result);
		assert_true(final);
	}
}

static void test_status_line_in_pieces(void **state)
{
	static const char line[] = "HTTP/1.1 200 OK\r\n";
	char part[HTTP_LINE_MAX + 1];
	bool final;

	(void)state;
	for (size_t n = 0; n < strlen(line); n++) {
		memcpy(part, line, n);
		part[n] = '\0';
		judge(part, false, &final);
		assert_false(final);
		assert_int_equal(judge(part, true, &final), PROBE_BAD_ANSWER);
		assert_true(final);
	}
	memset(part, 'a', HTTP_LINE_MAX);
	memcpy(part, "HTTP/1.1 200 ", 13);
	part[HTTP_LINE_MAX] = '\0';
	assert_int_equal(judge(part, false, &final), PROBE_BAD_ANSWER);
	assert_true(final);
}

static void test_request(void **state)
{
	struct health_spec s = { .path = "/healthz" };
	struct buf b = BUF_INIT;
	struct ip a;

	(void)state;
	assert_true(ip_parse("fd00::7", &a));
	http_request(&s, &a, 8080, &b);
	assert_non_null(strstr(b.data, "GET /healthz HTTP/1.1\r\n"));
	assert_non_null(strstr(b.data, "\r\nHost: [fd00::7]:8080\r\n"));
	assert_non_null(strstr(b.data, "\r\nConnection: close\r\n"));
	assert_string_equal(b.data + b.len - 4, "\r\n\r\n");
	buf_reset(&b);
	s.host = "web.example";
	http_request(&s, &a, 8080, &b);
	assert_non_null(strstr(b.data, "\r\nHost: web.example\r\n"));
	buf_release(&b);
}

/* ---- dns ---- */

static struct health_spec dns_spec(struct ip *expected)
{
	assert_true(ip_parse("192.0.2.77", expected));
	return (struct health_spec){ .name = "www.Example.org",
				     .record = DNS_A,
				     .rcodes = 1,
				     .answers = expected,
				     .answer_count = 1 };
}

/* A name of another record before the answer, by a pointer and at length. */
static size_t make_answer(const struct health_spec *s, uint16_t id,
			  uint8_t *out)
{
	static const uint8_t records[] = {
		0xc0, 12,  0, 5, 0, 1, 0, 0, 0, 60, 0,	3, 1, 'x', 0, /* CNAME */
		1,    'x', 0, 0, 1, 0, 1, 0, 0, 0,  60, 0, 4, 192, 0, 2, 77,
	};
	uint8_t query[DNS_QUERY_MAX];
	size_t len = dns_query(s, id, query);

	memcpy(out, query, len);
	out[2] |= 0x80;
	out[7] = 2;
	memcpy(out + len, records, sizeof(records));
	return len + sizeof(records);
}

static bool judge_dns(const struct health_spec *s, const uint8_t *data,
		      size_t len, enum probe_result *ret)
{
	/* Its own block, so that a sanitizer sees what is read behind it. */
	uint8_t *copy = malloc(len ? len : 1);
	struct buf detail = BUF_INIT;
	bool final;

	memcpy(copy, data, len);
	final = dns_judge(s, 0x1234, copy, len, ret, &detail);
	assert_true(!final || *ret == PROBE_PASS || detail.len > 0);
	buf_release(&detail);
	free(copy);
	return final;
}

static void test_dns_answer(void **state)
{
	struct ip expected;
	struct health_spec s = dns_spec(&expected);
	enum probe_result r;
	uint8_t answer[512];
	size_t len = make_answer(&s, 0x1234, answer);

	(void)state;
	assert_true(judge_dns(&s, answer, len, &r));
	assert_int_equal(r, PROBE_PASS);
	answer[13] = 'W'; /* letters may change their case */
	assert_true(judge_dns(&s, answer, len, &r));
	assert_int_equal(r, PROBE_PASS);
	answer[len - 1]++;
	assert_true(judge_dns(&s, answer, len, &r));
	assert_int_equal(r, PROBE_BAD_ANSWER);
	answer[3] |= 3;
	assert_true(judge_dns(&s, answer, len, &r));
	assert_int_equal(r, PROBE_BAD_STATUS);
	answer[0] ^= 1;
	assert_false(judge_dns(&s, answer, len, &r));
}

/* Cut anywhere it doesn't pass, and nothing behind the cut is read. */
static void test_dns_cut(void **state)
{
	struct ip expected;
	struct health_spec s = dns_spec(&expected);
	enum probe_result r;
	uint8_t answer[512];
	size_t len = make_answer(&s, 0x1234, answer);

	(void)state;
	for (size_t n = 0; n < len; n++)
		if (judge_dns(&s, answer, n, &r))
			assert_int_equal(r, PROBE_BAD_ANSWER);
		else
			assert_true(n < 2);
}

static void test_dns_garbage(void **state)
{
	struct ip expected;
	struct health_spec s = dns_spec(&expected);
	uint8_t whole[512], spoilt[512];
	size_t len = make_answer(&s, 0x1234, whole);
	enum probe_result r;

	(void)state;
	srandom(53);
	for (int round = 0; round < 200000; round++) {
		memcpy(spoilt, whole, sizeof(spoilt));
		for (long i = random() % 6; i >= 0; i--)
			spoilt[2 + (size_t)random() % (len - 2)] =
				(uint8_t)random();
		assert_true(
			judge_dns(&s, spoilt, len - (size_t)random() % 4, &r));
	}
}

static void test_dns_root(void **state)
{
	struct health_spec s = { .name = ".", .record = DNS_NS, .rcodes = 1 };
	uint8_t query[DNS_QUERY_MAX];
	char longest[254];

	(void)state;
	assert_int_equal(dns_query(&s, 1, query), 12 + 1 + 4);
	memset(longest, 'a', 253);
	for (int i = 63; i < 253; i += 64)
		longest[i] = '.';
	longest[253] = '\0';
	s.name = longest;
	assert_in_range(dns_query(&s, 1, query), 12 + 255 + 4, DNS_QUERY_MAX);
}

/* ---- icmp ---- */

static void test_echo(void **state)
{
	struct echo e = { .id = 7,
			  .sequence = 1,
			  .cookie = 0x1122334455667788 };
	uint8_t packet[20 + ECHO_LEN] = { 0x45 };

	(void)state;
	echo_request(&e, AF_INET, packet + 20);
	assert_false(echo_is_reply(&e, AF_INET, packet, sizeof(packet)));
	packet[20] = 0;
	assert_true(echo_is_reply(&e, AF_INET, packet, sizeof(packet)));
	for (size_t n = 0; n < sizeof(packet); n++)
		assert_false(echo_is_reply(&e, AF_INET, packet, n));
	packet[0] = 0x4f; /* options that aren't there */
	assert_false(echo_is_reply(&e, AF_INET, packet, sizeof(packet)));
	echo_request(&e, AF_INET6, packet);
	packet[0] = 129;
	assert_true(echo_is_reply(&e, AF_INET6, packet, ECHO_LEN));
	packet[5]++; /* another's */
	assert_false(echo_is_reply(&e, AF_INET6, packet, ECHO_LEN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences),
		cmocka_unit_test(test_zero_counts_mean_one),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_any_sequence),
		cmocka_unit_test(test_due),
		cmocka_unit_test(test_place_is_kept),
		cmocka_unit_test(test_status_line),
		cmocka_unit_test(test_status_line_in_pieces),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_dns_answer),
		cmocka_unit_test(test_dns_cut),
		cmocka_unit_test(test_dns_garbage),
		cmocka_unit_test(test_dns_root),
		cmocka_unit_test(test_echo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
