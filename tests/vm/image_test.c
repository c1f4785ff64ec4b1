/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A real disk image: it boots by itself from a copy-on-write overlay, learns
 * from the seed what it is, serves, and goes with its disk; the image stays
 * as it was.
 */
#include "../lib/vmtest.h"

static struct lab lab;
static struct seen qemu;
static char image[PATH_MAX + 64];

static struct ip ip(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

static void sha256(char ret[65])
{
	char command[PATH_MAX + 96];
	FILE *f;

	snprintf(command, sizeof(command), "sha256sum '%s'", image);
	f = popen(command, "r");
	assert_non_null(f);
	assert_int_equal(fread(ret, 1, 64, f), 64);
	ret[64] = '\0';
	pclose(f);
}

static void test_image(void **state)
{
	struct address_range ranges[] = {
		{ .first = ip("10.77.0.10"), .prefix = 24 },
		{ .first = ip("fd00:77::10"), .prefix = 64 },
	};
	char user_data[96], before[65], after[65], overlay[200], seed[200];
	struct template_spec t = {
		.name = "image",
		.image = image,
		.cloud_init = user_data,
		.memory = 160u << 20,
		.vcpus = 1,
		.network = { .bridge = "br0",
			     .ranges = ranges,
			     .range_count = 2,
			     .gateways = { ip("10.77.0.1"),
					   ip("fd00:77::1") } },
		.hash = "0011223344556677",
	};
	struct vm_order o = { .template = &t,
			      .service = "shop",
			      .index = 7,
			      .addresses = { ip("10.77.0.17"),
					     ip("fd00:77::17") } };
	uint64_t start;

	(void)state;
	vm_mac_from_address(&o.addresses[0], o.mac);
	snprintf(user_data, sizeof(user_data), "%s/user-data", lab.dir);
	assert_int_equal(sh("printf '#!/bin/sh\\nxlb-backend -p 80 &\\n' >'%s'",
			    user_data),
			 0);
	snprintf(overlay, sizeof(overlay),
		 "%s/lib/xlb/" OWNER "/shop-7" DISK_SUFFIX, lab.dir);
	snprintf(seed, sizeof(seed), "%s/lib/xlb/" OWNER "/shop-7" SEED_SUFFIX,
		 lab.dir);
	sha256(before);

	start = clock_ns();
	vm_create(qemu.h, &o, seen_done, &qemu);
	assert_int_equal(seen_wait(&qemu, "create"), 0);
	assert_int_equal(access(overlay, F_OK), 0);
	assert_int_equal(access(seed, F_OK), 0);
	http_wait("10.77.0.17", 80, "shop-7");
	print_message("# image: create %.2f s, to its first answer %.2f s\n",
		      (double)qemu.took / 1e9,
		      (double)(clock_ns() - start) / 1e9);
	http_wait("fd00:77::17", 80, "shop-7");
	/* The guest wrote to its disk, and only there: compare says 1. */
	assert_int_equal(WEXITSTATUS(sh("qemu-img compare -q -U '%s' '%s'",
					image, overlay)),
			 1);

	vm_remove(qemu.h, "shop-7", seen_done, &qemu);
	assert_int_equal(seen_wait(&qemu, "remove"), 0);
	assert_int_not_equal(access(overlay, F_OK), 0);
	assert_int_not_equal(access(seed, F_OK), 0);
	sha256(after);
	assert_string_equal(before, after);
}

static int start(void **state)
{
	(void)state;
	lab_start(&lab);
	snprintf(image, sizeof(image), "%s/build/tests/image/web.qcow2",
		 lab.top);
	assert_int_equal(sh("'%s/tests/lib/image.sh' '%s' '%s/build/guest' >&2",
			    lab.top, image, lab.top),
			 0);
	seen_open(&qemu, &lab, lab.qemu);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	seen_close(&qemu);
	lab_stop(&lab);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_image),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root");
		return 0;
	}
	return cmocka_run_group_tests(tests, start, stop);
}
