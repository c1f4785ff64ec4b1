/* SPDX-License-Identifier: GPL-2.0-or-later */
/* base/: addresses, text, memory, diagnostics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/diag.h"
#include "base/ip.h"
#include "base/log.h"
#include "base/mem.h"

static struct ip ip(const char *s)
{
	struct ip a;

	if (!ip_parse(s, &a))
		fail_msg("%s is not an address", s);
	return a;
}

static void assert_ip(const struct ip *a, const char *want)
{
	char text[IP_STRLEN];

	assert_string_equal(ip_format(a, text), want);
}

/* ip */

static void ip_texts(void **state)
{
	static const char *const bad[] = {
		"",	     "1.2.3",	 "1.2.3.256", "1.2.3.4/24", " 1.2.3.4",
		"fd00::1::", "fd00::g1", "01.2.3.4",  "eth0"
	};
	struct ip a = ip("10.0.0.1");
	struct ip none = { 0 };

	(void)state;
	assert_ip(&a, "10.0.0.1");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (ip_parse(bad[i], &a))
			fail_msg("\"%s\" is taken for an address", bad[i]);
	assert_ip(&a, "10.0.0.1"); /* untouched by failures */
	a = ip("FD00:0:0::0010");
	assert_ip(&a, "fd00::10");
	assert_ip(&none, "-");
	assert_int_equal(ip_bits(&a), 128);
	a = ip("0.0.0.0");
	assert_int_equal(ip_bits(&a), 32);
}

static void ip_order(void **state)
{
	/* By family, then by number. */
	static const char *const sorted[] = { "0.0.0.0",   "9.255.255.255",
					      "10.0.0.1",  "10.0.0.200",
					      "200.0.0.0", "::1",
					      "fd00::1",   "fd00::1:0" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sorted); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(sorted); k++) {
			struct ip a = ip(sorted[i]), b = ip(sorted[k]);
			int order = ip_compare(&a, &b);

			assert_int_equal((order > 0) - (order < 0),
					 (i > k) - (i < k));
			assert_int_equal(ip_equal(&a, &b), i == k);
		}
	}
}

static void ip_prefixes(void **state)
{
	struct ip a = ip("10.77.129.5"), m;

	(void)state;
	m = ip_mask(&a, 17);
	assert_ip(&m, "10.77.128.0");
	m = ip_mask(&a, 0);
	assert_ip(&m, "0.0.0.0");
	m = ip_mask(&a, 32);
	assert_ip(&m, "10.77.129.5");
	a = ip("fd00:77::ff01");
	m = ip_mask(&a, 121);
	assert_ip(&m, "fd00:77::ff00");
	m = ip("fd00:77::1");
	assert_true(ip_in_prefix(&a, &m, 64));
	assert_false(ip_in_prefix(&a, &m, 113));
	m = ip("10.0.0.0");
	assert_false(ip_in_prefix(&a, &m, 0)); /* another family */
}

static void ip_walks(void **state)
{
	struct ip a = ip("10.0.0.250"), b = ip_add(&a, 10), six;

	(void)state;
	assert_ip(&b, "10.0.1.4");
	assert_int_equal(ip_distance(&a, &b), 10);
	assert_true(ip_distance(&b, &a) == UINT64_MAX);
	b = ip_add(&a, 0);
	assert_true(ip_equal(&a, &b));
	b = ip("255.255.255.255");
	b = ip_add(&b, 1);
	assert_ip(&b, "0.0.0.0");
	a = ip("fd00::ffff:ffff:ffff:ffff");
	six = ip_add(&a, 2);
	assert_ip(&six, "fd00:0:0:1::1");
	assert_int_equal(ip_distance(&a, &six), 2);
	a = ip("fd00::");
	b = ip("fd01::");
	assert_true(ip_distance(&a, &b) == UINT64_MAX);
	b = ip("10.0.0.1");
	assert_true(ip_distance(&b, &a) == UINT64_MAX);
}

static void ip_sockets(void **state)
{
	static const char *const texts[] = { "192.0.2.1", "2001:db8::1" };
	struct sockaddr un = { .sa_family = AF_UNIX };
	struct ip back;
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct ip a = ip(texts[i]);
		struct sockaddr_storage ss;
		socklen_t len = ip_sockaddr(&a, 8080, &ss);

		assert_int_equal(len, i ? sizeof(struct sockaddr_in6)
					: sizeof(struct sockaddr_in));
		assert_true(
			ip_from_sockaddr((struct sockaddr *)&ss, &back, &port));
		assert_true(ip_equal(&a, &back));
		assert_int_equal(port, 8080);
	}
	assert_false(ip_from_sockaddr(&un, &back, NULL));
}

static void ip_sums(void **state)
{
	struct ip a = ip("10.1.2.3"), six = ip("fd00::ffff:1");

	(void)state;
	assert_int_equal(ntohs(ip_sum(&a)), 0x0a01 + 0x0203);
	/* fd00 + ffff + 0001 carries once: fd00 + 0 + 1 */
	assert_int_equal(ntohs(ip_sum(&six)), 0xfd01);
}

/* buf */

static void buf_grows(void **state)
{
	struct buf b = BUF_INIT;
	size_t want = 0;

	(void)state;
	assert_string_equal(buf_str(&b), "");
	for (int i = 0; i < 3000; i++) {
		buf_addf(&b, "%d,", i);
		want += (size_t)snprintf(NULL, 0, "%d,", i);
		assert_int_equal(b.len, want);
		assert_int_equal(strlen(b.data), want);
	}
	assert_memory_equal(b.data, "0,1,2,", 6);
	assert_string_equal(b.data + b.len - 5, "2999,");
	buf_reset(&b);
	assert_string_equal(buf_str(&b), "");
	buf_add(&b, "a\0b", 3);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.data, "a\0b", 4);
	buf_addf(&b, "%s", "");
	assert_int_equal(b.len, 3);
	buf_release(&b);
	assert_null(b.data);
	buf_release(&b);
}

static void buf_reads(void **state)
{
	const char *scratch = getenv("XLB_TEST_DIR"); /* removed for us */
	AUTO_FREE char *path =
		mem_printf("%s/base.XXXXXX", scratch ? scratch : "/tmp");
	char block[1000];
	struct buf b = BUF_INIT;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 40; i++)
		assert_int_equal(write(fd, block, sizeof(block)),
				 sizeof(block));
	close(fd);
	assert_int_equal(buf_read_file(&b, path, 40000), 0);
	assert_int_equal(b.len, 40000);
	assert_int_equal(strlen(b.data), 40000);
	buf_reset(&b);
	assert_int_equal(buf_read_file(&b, path, 39999), -EFBIG);
	buf_reset(&b);
	unlink(path);
	assert_int_equal(buf_read_file(&b, path, 40000), -ENOENT);
	assert_int_equal(buf_read_file(&b, "/", 40000), -EISDIR);
	buf_release(&b);
}

/* mem */

static void arrays_grow(void **state)
{
	struct arena *a = arena_new();
	int *heap = NULL, *kept = NULL;
	size_t n = 0, k = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		int *p = MEM_PUSH(heap, n), *q = ARENA_PUSH(a, kept, k);

		assert_int_equal(*p, 0);
		assert_int_equal(*q, 0);
		*p = *q = i;
	}
	assert_int_equal(n, 1000);
	assert_int_equal(k, 1000);
	for (int i = 0; i < 1000; i++)
		assert_true(heap[i] == i && kept[i] == i);
	free(heap);
	arena_free(a);
	arena_free(NULL);
}

static void arena_holds(void **state)
{
	struct arena *a = arena_new();
	char *big = arena_alloc(a, 200000), *s, *t, *odd;

	(void)state;
	memset(big, 1, 200000);
	s = arena_dup(a, "one");
	odd = arena_alloc(a, 3);
	t = arena_printf(a, "%s-%d", s, 2);
	assert_string_equal(s, "one");
	assert_string_equal(t, "one-2");
	assert_int_equal((uintptr_t)odd % 16, 0);
	assert_int_equal(odd[0] | odd[1] | odd[2], 0);
	assert_null(arena_dup(a, NULL));
	for (int i = 0; i < 5000; i++)
		assert_int_equal(*(char *)arena_alloc(a, 100), 0);
	assert_string_equal(t, "one-2");
	arena_free(a);
}

static void heap_texts(void **state)
{
	AUTO_FREE char *s = mem_printf("%03d", 7);
	AUTO_FREE char *t = mem_dup(s);

	(void)state;
	assert_string_equal(t, "007");
	assert_null(mem_dup(NULL));
}

/* diag */

static void diags_print(void **state)
{
	struct diag_list l = { 0 };
	struct buf b = BUF_INIT;
	char file[] = "a.yaml";
	struct source src = { file, 3, 7 }, whole = { file, 0, 0 };

	(void)state;
	diag_add(&l, SEVERITY_ERROR, &src, "try this", "bad %s", "thing");
	diag_add(&l, SEVERITY_WARNING, &whole, NULL, "odd");
	diag_add(&l, SEVERITY_ERROR, NULL, NULL, "nowhere");
	file[0] = 'b'; /* copied, so it doesn't show */
	assert_int_equal(l.count, 3);
	assert_int_equal(l.errors, 2);
	diag_list_print(&l, &b);
	assert_string_equal(buf_str(&b), "a.yaml:3:7: error: bad thing\n"
					 "    hint: try this\n"
					 "a.yaml: warning: odd\n"
					 "error: nowhere\n");
	diag_list_release(&l);
	assert_int_equal(l.count, 0);
	assert_int_equal(l.errors, 0);
	buf_release(&b);
}

/* log */

/* What fn() writes to standard error. */
static void catch_stderr(void (*fn)(void), struct buf *ret)
{
	char path[] = "/tmp/xlb-log-XXXXXX";
	int to = mkstemp(path), before = dup(STDERR_FILENO);

	assert_true(to >= 0 && before >= 0);
	unlink(path);
	dup2(to, STDERR_FILENO);
	fn();
	dup2(before, STDERR_FILENO);
	close(before);
	*ret = (struct buf)BUF_INIT;
	lseek(to, 0, SEEK_SET);
	for (char chunk[256];;) {
		ssize_t n = read(to, chunk, sizeof(chunk));

		if (n <= 0)
			break;
		buf_add(ret, chunk, (size_t)n);
	}
	close(to);
}

static void log_some(void)
{
	log_info("first", "vm=%s", "web-1");
	log_set_run("0123456789abcdef");
	log_set_revision(7);
	log_warn("second", "why=\"%s\"", "two\nlines");
	log_debug("third", "not=%s", "shown");
	log_text(LOG_ERROR, "diagnostics",
		 "a.yaml:1: error: no\n    hint: yes\n");
	log_text(LOG_ERROR, "diagnostics", "");
}

static void log_lines(void **state)
{
	static const char *const want[] = {
		" level=info event=first vm=web-1\n",
		" level=warn event=second why=\"two lines\" run=0123456789abcdef revision=7\n",
		"a.yaml:1: error: no\n    hint: yes\n"
	};
	struct buf b;
	const char *at;

	(void)state;
	catch_stderr(log_some, &b);
	at = buf_str(&b);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		if (i < 2) {
			assert_memory_equal(at, "time=", 5);
			at = strchr(at, ' ');
			assert_non_null(at);
		}
		assert_memory_equal(at, want[i], strlen(want[i]));
		at += strlen(want[i]);
	}
	assert_string_equal(at, "");
	buf_release(&b);
}

static struct log_entry caught;

static void take_entry(const struct log_entry *e)
{
	caught = *e;
}

static void log_to_sink(void)
{
	log_set_sink(take_entry);
	log_error("gone", "%s", "elsewhere");
	log_set_sink(NULL);
}

static void log_sinks(void **state)
{
	struct buf b;

	(void)state;
	log_set_revision(9);
	catch_stderr(log_to_sink, &b);
	assert_int_equal(b.len, 0);
	assert_int_equal(caught.level, LOG_ERROR);
	assert_string_equal(caught.event, "gone");
	assert_int_equal(caught.revision, 9);
	assert_string_equal(caught.run_id, "0123456789abcdef");
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ip_texts),    cmocka_unit_test(ip_order),
		cmocka_unit_test(ip_prefixes), cmocka_unit_test(ip_walks),
		cmocka_unit_test(ip_sockets),  cmocka_unit_test(ip_sums),
		cmocka_unit_test(buf_grows),   cmocka_unit_test(buf_reads),
		cmocka_unit_test(arrays_grow), cmocka_unit_test(arena_holds),
		cmocka_unit_test(heap_texts),  cmocka_unit_test(diags_print),
		cmocka_unit_test(log_lines),   cmocka_unit_test(log_sinks),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
