/* SPDX-License-Identifier: GPL-2.0-or-later */
/* desired/: what golden files don't show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "desired/complain.h"
#include "desired/desired.h"
#include "desired/value.h"

#define SECOND 1000000000ULL

/* values */

static void durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns; /* 0: refused */
	} cases[] = {
		{ "1ms", 1000000 },
		{ "10s", 10 * SECOND },
		{ "1.5s", 1500000000 },
		{ "15m", 900 * SECOND },
		{ "2h", 7200 * SECOND },
		{ "30d", 2592000 * SECOND },
		{ "0.000001ms", 1 },
		{ "10", 0 },
		{ "s", 0 },
		{ "", 0 },
		{ "1 s", 0 },
		{ "01s", 0 },
		{ "+1s", 0 },
		{ "-1s", 0 },
		{ "1e3s", 0 },
		{ "1.s", 0 },
		{ ".5s", 0 },
		{ "1S", 0 },
		{ "1us", 0 },
		{ "1.0000001s", 0 },
		{ "999999999999999d", 0 }, /* overflows */
		{ "9999999999999999s", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t ns = 0;
		bool ok = value_duration(cases[i].text, &ns);

		if (ok != (cases[i].ns != 0) || ns != cases[i].ns)
			fail_msg("%s: %d %llu", cases[i].text, ok,
				 (unsigned long long)ns);
	}
}

static void numbers(void **state)
{
	uint64_t n;
	double d;

	(void)state;
	assert_true(value_size("512MiB", &n) && n == 512u << 20);
	assert_true(value_size("1.5GiB", &n) && n == 1536u << 20);
	assert_false(value_size("0.5KiB", &n));
	assert_false(value_size("512MB", &n));
	assert_false(value_size("512", &n));
	assert_true(value_count("50k", &n) && n == 50000);
	assert_true(value_count("1.5M", &n) && n == 1500000);
	assert_true(value_count("0", &n) && n == 0);
	assert_false(value_count("1.5", &n));
	assert_false(value_count("50K", &n));
	assert_false(value_count("1_000", &n));
	assert_true(value_number("0.25", &d) && d == 0.25);
	assert_true(value_number("2G", &d) && d == 2e9);
	assert_true(value_percent("60%", &d) && d == 60);
	assert_true(value_percent("12.5%", &d) && d == 12.5);
	assert_false(value_percent("60", &d));
	assert_false(value_percent("60 %", &d));
}

static void addresses(void **state)
{
	struct address_range r = { 0 };
	struct prefix p;
	uint8_t mac[6];
	char text[IP_STRLEN];

	(void)state;
	assert_true(value_range("10.0.0.1-10.0.0.9/24", &r));
	assert_string_equal(ip_format(&r.last, text), "10.0.0.9");
	assert_int_equal(r.prefix, 24);
	assert_true(value_range("fd00::1-fd00::9/64", &r));
	assert_false(value_range("10.0.0.1-10.0.0.9", &r));
	assert_false(value_range("10.0.0.1/24-10.0.0.9", &r));
	assert_false(value_range("10.0.0.1-10.0.0.9/", &r));
	assert_false(value_range("10.0.0.1-10.0.0.9/024", &r));
	assert_false(value_range("-/", &r));
	assert_true(value_prefix("fd00::/8", &p) && p.length == 8);
	assert_true(value_prefix("10.0.0.1", &p) && p.length == 32);
	assert_false(value_prefix("10.0.0.0/33", &p));
	assert_false(value_prefix("10.0.0.0/8/8", &p));
	assert_true(value_mac("52:54:00:AA:bb:05", mac));
	assert_int_equal(mac[3], 0xaa);
	assert_false(value_mac("52:54:00:aa:bb:5", mac));
	assert_false(value_mac("52-54-00-aa-bb-05", mac));
	assert_false(value_mac("52:54:00:aa:bb:0g", mac));
}

static void misreadings(void **state)
{
	static const char *const texts[] = {
		"web",	     "10.77.0.5",    "web-1",  "fd00::1",
		"1.2.3",     "10.77.0.0/24", "/etc/x", "12px",
		"nope",	     "yesterday",    "0755x",  "e3",
		"qemu:///x", "2024-1",	     "::1",    "512MiB"
	};
	static const char *const others[] = {
		"yes",	 "No",	  "ON",		"off",		 "true",
		"False", "y",	  "~",		"null",		 "",
		"0755",	 "0x1F",  "0o17",	"0b11",		 "1_000",
		"12",	 "1.5",	  ".5",		"1e3",		 "1.5e-3",
		"+1",	 "-2",	  ".inf",	"-.INF",	 ".nan",
		"22:22", "1:2:3", "2024-01-02", "2024-1-2 10:00"
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (value_misread(texts[i]))
			fail_msg("%s: %s", texts[i], value_misread(texts[i]));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (!value_misread(others[i]))
			fail_msg("%s is taken for a text", others[i]);
}

static void distances(void **state)
{
	(void)state;
	assert_int_equal(edit_distance("vips", "vips"), 0);
	assert_int_equal(edit_distance("vip", "vips"), 1);
	assert_int_equal(edit_distance("adress", "address"), 1);
	assert_int_equal(edit_distance("wbe", "web"), 1); /* a swap */
	assert_int_equal(edit_distance("", "abc"), 3);
	assert_int_equal(edit_distance("kitten", "sitting"), 3);
	assert_int_equal(edit_distance("abcdefghijkl", "mnopqrstuvwx"), 9);
}

/* whole files */

static struct spec *parse(const char *text, struct diag_list *diags)
{
	struct spec_text t = { "services.yaml", text, strlen(text),
			       "/etc/xlb" };

	return spec_parse("services.yaml", &t, 1, diags);
}

static struct spec *parse_fine(const char *text)
{
	struct diag_list diags = { 0 };
	struct spec *s = parse(text, &diags);

	if (!s)
		fail_msg("%s in %s", diags.items[0].message, text);
	diag_list_release(&diags);
	return s;
}

static bool mentions(const struct diag_list *l, const char *words)
{
	for (size_t i = 0; i < l->count; i++)
		if (strstr(l->items[i].message, words))
			return true;
	return false;
}

static void defaults(void **state)
{
	struct spec *s = parse_fine("version: 1\n"
				    "services:\n"
				    "  - name: web\n"
				    "    vips: [192.0.2.10]\n"
				    "    ports: [80]\n"
				    "    backends: [{address: 10.0.0.1}]\n"
				    "  - name: dns\n"
				    "    vips: [192.0.2.53]\n"
				    "    protocol: udp\n"
				    "    ports: [53]\n"
				    "    backends: [{address: 10.0.0.1}]\n");
	const struct service_spec *web = spec_find_service(s, "web");
	const struct service_spec *dns = spec_find_service(s, "dns");

	(void)state;
	assert_ptr_equal(dns, &s->services[0]); /* sorted by name */
	assert_null(spec_find_service(s, "none"));
	assert_int_equal(s->node.resync, 10 * SECOND);
	assert_int_equal(s->history_retention, 30 * 86400 * SECOND);
	assert_false(s->safety.allow_empty);
	assert_int_equal(s->safety.max_vm_deletes.count, 2);
	assert_int_equal(s->safety.max_vm_deletes.per, 600 * SECOND);
	assert_true(s->safety.max_service_removals == 25);
	assert_int_equal(web->src.line, 3);
	assert_int_equal(web->src.column, 5);
	assert_int_equal(web->idle_timeout, 900 * SECOND);
	assert_int_equal(dns->idle_timeout, 60 * SECOND);
	assert_int_equal(web->drain, 60 * SECOND);
	assert_int_equal(web->drain_quiet, 5 * SECOND);
	assert_int_equal(web->algorithm, ALGORITHM_MAGLEV);
	assert_int_equal(web->forwarding, FORWARDING_NAT);
	assert_int_equal(web->affinity_timeout, 300 * SECOND);
	assert_int_equal(dns->udp, UDP_STATELESS);
	assert_null(s->node.seed_file);
	assert_false(service_tracks(web));
	assert_false(service_tracks(dns));
	assert_int_equal(web->health.type, HEALTH_TCP);
	assert_int_equal(dns->health.type, HEALTH_RUNNING);
	assert_int_equal(web->health.interval, 2 * SECOND);
	assert_int_equal(web->health.expect[0], 200);
	assert_int_equal(web->backends[0].weight, 1);
	assert_string_equal(web->backends[0].name, "10.0.0.1");
	assert_int_equal(web->scaling.src.line, 0);
	assert_null(web->pool.template);
	assert_int_equal(service_max_backends(web), 1);
	assert_int_equal(service_vip_ports(web), 1);
	assert_int_equal(strlen(s->sha256), 64);
	spec_free(s);
}

/* What a service remembers follows from three of its keys. */
static void tracking(void **state)
{
	static const struct {
		const char *protocol, *keys;
		bool tracks;
	} cases[] = {
		{ "tcp", "algorithm: maglev", false },
		{ "tcp", "algorithm: source_hash", false },
		{ "tcp", "algorithm: round_robin", true },
		{ "tcp", "algorithm: weighted_round_robin", true },
		{ "tcp", "algorithm: random", true },
		{ "tcp", "algorithm: least_connections", true },
		{ "tcp", "algorithm: least_load", true },
		{ "udp", "udp: stateless", false },
		{ "udp", "udp: sticky", true },
		{ "udp", "algorithm: source_hash, udp: sticky", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = mem_printf(
			"version: 1\nservices:\n  - {name: web, vips: [192.0.2.10],"
			" ports: [80], protocol: %s, %s,"
			" backends: [{address: 10.0.0.1}]}\n",
			cases[i].protocol, cases[i].keys);
		struct spec *s = parse_fine(text);
		AUTO_BUF struct buf notes = BUF_INIT;

		spec_notes(s, &notes);
		if (service_tracks(&s->services[0]) != cases[i].tracks ||
		    !strstr(buf_str(&notes), "tracks every flow") !=
			    !cases[i].tracks)
			fail_msg("%s: %s", text, buf_str(&notes));
		spec_free(s);
		free(text);
	}
}

/* Relative to the file's folder, as other paths are. */
static void seed_files(void **state)
{
	struct spec *s = parse_fine("version: 1\nservices: []\n"
				    "node: {seed_file: ./keys/seed}\n");

	(void)state;
	assert_string_equal(s->node.seed_file, "/etc/xlb/keys/seed");
	spec_free(s);
	s = parse_fine("version: 1\nservices: []\n"
		       "node: {seed_file: /run/seed}\n");
	assert_string_equal(s->node.seed_file, "/run/seed");
	spec_free(s);
}

/* A template with one line changed or added; returns its hash. */
static void hash_of(const char *name, const char *line, char ret[17])
{
	char *text = mem_printf(
		"version: 1\nservices: []\ntemplates:\n"
		"  - name: other\n    image: o\n    network: other\n"
		"  - name: %s\n    image: a.qcow2\n%s"
		"    network: {bridge: br0, addresses: [10.0.0.10-10.0.0.99/24]}\n",
		name, line);
	struct spec *s = parse_fine(text);

	memcpy(ret, s->templates[1].hash, 17);
	spec_free(s);
	free(text);
}

static void template_hashes(void **state)
{
	char base[17], again[17], renamed[17], memory[17], vcpus[17], seed[17];

	(void)state;
	hash_of("web", "", base);
	hash_of("web", "    memory: 0.5GiB\n    vcpus: 1\n", again);
	hash_of("api", "", renamed);
	hash_of("web", "    memory: 256MiB\n", memory);
	hash_of("web", "    vcpus: 2\n", vcpus);
	hash_of("web", "    cloud_init: x\n", seed);
	/* Stored in VMs' metadata: another value would replace every VM. */
	assert_string_equal(base, "e2717a31aac8a660");
	assert_string_equal(base, again);
	assert_string_equal(base, renamed);
	assert_string_not_equal(base, memory);
	assert_string_not_equal(base, vcpus);
	assert_string_not_equal(base, seed);
}

static void several_files(void **state)
{
	static const char a[] =
		"version: 1\nnode: {interfaces: [eth0]}\n"
		"services:\n  - {name: web, vips: [192.0.2.1], ports: [80],"
		" pool: {template: t, min: 1, max: 2}}\n";
	static const char b[] =
		"version: 1\nhypervisors: [{name: l, uri: \"qemu:///system\"}]\n"
		"templates: [{name: t, image: i.qcow2, network: default}]\n";
	struct spec_text texts[] = {
		{ "f/a.yaml", a, sizeof(a) - 1, NULL },
		{ "f/b.yaml", b, sizeof(b) - 1, NULL },
	};
	struct diag_list diags = { 0 };
	struct spec *s = spec_parse("f", texts, 2, &diags);

	(void)state;
	assert_non_null(s);
	assert_string_equal(s->services[0].pool.template->image, "f/i.qcow2");
	assert_string_equal(s->services[0].src.file, "f/a.yaml");
	assert_string_equal(s->templates[0].src.file, "f/b.yaml");
	spec_free(s);

	texts[1].data = a;
	texts[1].len = sizeof(a) - 1;
	assert_null(spec_parse("f", texts, 2, &diags));
	assert_true(mentions(&diags, "\"node\" stands at f/a.yaml:2:7"));
	assert_true(mentions(&diags, "duplicate service \"web\""));
	diag_list_release(&diags);
}

static void caps(void **state)
{
	struct buf b = BUF_INIT;
	struct diag_list diags = { 0 };
	struct spec_text t = { .path = "big.yaml" };

	(void)state;
	for (size_t i = 0; i <= SPEC_MAX_BYTES; i += 64)
		buf_addf(&b, "#%63s", "\n");
	t.data = b.data;
	t.len = b.len;
	assert_null(spec_parse("big.yaml", &t, 1, &diags));
	assert_true(mentions(&diags, "larger than 16 MiB"));
	diag_list_release(&diags);

	buf_reset(&b);
	buf_adds(&b, "version: 1\nservices: [\n");
	for (int i = 0; i < 1000000; i++)
		buf_adds(&b, "0,\n");
	buf_adds(&b, "]\n");
	t.data = b.data;
	t.len = b.len;
	assert_null(spec_parse("big.yaml", &t, 1, &diags));
	assert_true(mentions(&diags, "more than 1000000 values"));
	diag_list_release(&diags);
	buf_release(&b);
}

/* reading */

static void put(const char *dir, const char *name, const char *text)
{
	char *path = mem_printf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static int make_folder(void **state)
{
	const char *scratch = getenv("XLB_TEST_DIR"); /* removed for us */
	char *dir = mem_printf("%s/desired.XXXXXX", scratch ? scratch : "/tmp");

	*state = mkdtemp(dir);
	return !*state;
}

static int remove_folder(void **state)
{
	static const char *const names[] = { "a.yaml", "b.yaml", "c.yml",
					     ".d.yaml", "here.qcow2" };
	char *dir = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path = mem_printf("%s/%s", dir, names[i]);

		unlink(path);
		free(path);
	}
	rmdir(dir);
	free(dir);
	return 0;
}

static void read_folder(void **state)
{
	const char *dir = *state;
	struct diag_list diags = { 0 };
	char sha[65], *image;
	struct spec *s;

	assert_null(spec_read(dir, NULL, &diags, sha));
	assert_true(mentions(&diags, "no *.yaml file"));
	diag_list_release(&diags);

	put(dir, "b.yaml",
	    "version: 1\ntemplates:\n"
	    "  - {name: a, image: here.qcow2, network: default}\n"
	    "  - {name: b, image: gone.qcow2, network: default}\n");
	put(dir, "a.yaml", "version: 1\nservices: []\n");
	put(dir, "c.yml", "not: ours\n");
	put(dir, ".d.yaml", "not: ours\n");
	put(dir, "here.qcow2", "");
	s = spec_read(dir, NULL, &diags, sha);
	assert_non_null(s);
	assert_string_equal(s->path, dir);
	assert_string_equal(s->sha256, sha);
	image = mem_printf("%s/here.qcow2", dir);
	assert_string_equal(s->templates[0].image, image);
	free(image);
	assert_int_equal(diags.count, 1);
	assert_int_equal(diags.items[0].severity, SEVERITY_WARNING);
	assert_non_null(strstr(diags.items[0].message, "gone.qcow2"));
	spec_free(s);
	diag_list_release(&diags);
}

static void read_file(void **state)
{
	struct diag_list diags = { 0 };
	char *path = mem_printf("%s/a.yaml", (char *)*state), sha[65];
	struct spec *s;

	assert_null(spec_read(path, NULL, &diags, sha));
	assert_true(mentions(&diags, "No such file"));
	assert_string_equal(sha, "");
	diag_list_release(&diags);

	put(*state, "a.yaml", "abc");
	assert_null(spec_read(path, NULL, &diags, sha));
	/* FIPS 180-2, appendix B.1 */
	assert_string_equal(
		sha,
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	diag_list_release(&diags);

	put(*state, "a.yaml",
	    "version: 1\nservices: []\n"
	    "templates: [{name: a, image: x, network: default}]\n");
	assert_int_equal(chdir(*state), 0);
	s = spec_read("./a.yaml", NULL, &diags, NULL);
	assert_non_null(s);
	assert_int_equal(s->templates[0].image[0], '/');
	assert_null(strstr(s->templates[0].image, "./"));
	assert_string_equal(s->templates[0].src.file, "./a.yaml");
	spec_free(s);
	diag_list_release(&diags);
	free(path);
	assert_int_equal(chdir("/"), 0);
}

static void read_what_is_known(void **state)
{
	struct diag_list diags = { 0 };
	char *path = mem_printf("%s/a.yaml", (char *)*state), sha[65];
	char known[65];
	struct spec *s;

	put(*state, "a.yaml", "version: 1\nservices: []\n");
	s = spec_read(path, NULL, &diags, known);
	assert_non_null(s);
	spec_free(s);
	assert_null(spec_read_other(path, known, NULL, &diags, sha));
	assert_string_equal(sha, known);
	assert_int_equal(diags.count, 0);

	put(*state, "a.yaml", "version: 1\nservices: []\n# more\n");
	s = spec_read_other(path, known, NULL, &diags, sha);
	assert_non_null(s);
	assert_string_equal(s->sha256, sha);
	assert_string_not_equal(sha, known);
	spec_free(s);

	assert_int_equal(unlink(path), 0);
	assert_null(spec_read_other(path, known, NULL, &diags, sha));
	assert_true(mentions(&diags, "No such file"));
	assert_string_equal(sha, "");
	diag_list_release(&diags);
	free(path);
}

/* properties */

static uint32_t rng;

static uint32_t random_below(uint32_t n)
{
	rng = rng * 1664525 + 1013904223;
	return (rng >> 8) % n;
}

static const char *pick(const char *const *words, size_t count)
{
	return words[random_below((uint32_t)count)];
}
#define PICK(...)                                  \
	pick((const char *const[]){ __VA_ARGS__ }, \
	     sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static void random_scaling(struct buf *b)
{
	buf_addf(b, "    scaling:\n      interval: %us\n      signals:\n",
		 random_below(60) + 1);
	buf_addf(b, "        - {metric: cpu, target: %u.%u%%}\n",
		 random_below(99), random_below(999999) + 1);
	if (random_below(2))
		buf_addf(
			b,
			"        - {metric: packets_per_second, high: %u%s, low: 0.%u}\n",
			random_below(1000) + 1, PICK("", "k", "M", ".5G"),
			random_below(999999));
	buf_addf(b, "      down: {window: %u.%us, step: %u}\n",
		 random_below(1000), random_below(1000), random_below(9) + 1);
}

/* flows: something is remembered of some. */
static void random_algorithm(struct buf *b, bool flows)
{
	const char *name =
		PICK("maglev", "round_robin", "weighted_round_robin", "random",
		     "least_load", "source_hash", "least_connections");

	if (!flows && !strcmp(name, "least_connections"))
		return;
	buf_addf(b, "    algorithm: %s\n", name);
	if (flows && !strcmp(name, "source_hash") && random_below(2))
		buf_addf(b, "    affinity: {timeout: %u.%us}\n",
			 random_below(3000) + 1, random_below(1000));
}

/* Service n of a file: addresses follow from n, so that nothing collides. */
static void random_service(struct buf *b, uint32_t n)
{
	const char *protocol = PICK("tcp", "udp");
	const char *forwarding = PICK("nat", "dsr", "ipip", "gue");
	const char *udp = PICK("", "    udp: stateless\n", "    udp: sticky\n");
	uint32_t listen = random_below(9000) + 10000;
	bool is_nat = !strcmp(forwarding, "nat");

	buf_addf(
		b,
		"  - name: s%u\n    vips: [192.0.%u.%u, \"2001:db8::%x\"]\n"
		"    protocol: %s\n    ports: [%u, {listen: %u, target: %u}]\n",
		n, 2 + n / 200, 1 + n % 200, n + 1, protocol,
		random_below(9000) + 1, listen,
		is_nat ? random_below(9000) + 30000 : listen);
	buf_addf(b,
		 "    forwarding: %s\n    drain: %u%s\n    drain_quiet: %s\n",
		 forwarding, random_below(20) + 1,
		 PICK("ms", "s", "m", "h", ".25s"), PICK("off", "5s", "750ms"));
	if (!strcmp(protocol, "udp"))
		buf_adds(b, udp);
	random_algorithm(b, !strcmp(protocol, "tcp") || strstr(udp, "sticky"));
	buf_adds(b, "    backends:\n");
	for (uint32_t i = 0; i < random_below(4); i++)
		buf_addf(
			b,
			"      - {addresses: [10.%u.%u.%u, \"fd00::%x:%x\"], weight: %u, state: %s}\n",
			1 + n / 200, n % 200, 1 + i, n, i + 1,
			random_below(1001), PICK("active", "drain"));
	buf_addf(
		b,
		"      - {name: \"%s\", addresses: [10.%u.%u.200, \"fd00::%x:ffff\"]}\n",
		PICK("a", "12", "yes", "x.y:z", "1e3"), 1 + n / 200, n % 200,
		n);
	if (random_below(2)) {
		buf_addf(b, "    pool: {template: t, min: %u, max: %u}\n",
			 random_below(3), random_below(5) + 3);
		random_scaling(b);
	}
	if (!strcmp(protocol, "tcp"))
		buf_addf(
			b,
			"    health: {type: http, path: \"/%s\", timeout: %ums, expect: [200, 30%u]}\n",
			PICK("", "a'b", "a\\\"b", "ä", "#x:y"),
			random_below(900) + 100, random_below(10));
}

#define RANDOM_SERVICES 8

static void random_file(struct buf *b, bool reversed)
{
	struct buf services[RANDOM_SERVICES] = { 0 };

	for (uint32_t i = 0; i < RANDOM_SERVICES; i++)
		random_service(&services[i], i);
	buf_adds(
		b,
		"version: 1\n"
		"hypervisors: [{name: local, uri: \"qemu:///system\"}]\n"
		"templates:\n"
		"  - name: t\n    image: \"%\"\n    network:\n      bridge: br0\n"
		"      addresses: [\"fd00:1::1-fd00:1::ff/64\", 10.250.0.1-10.250.0.99/24]\n"
		"services:\n");
	for (uint32_t i = 0; i < RANDOM_SERVICES; i++) {
		uint32_t k = reversed ? RANDOM_SERVICES - 1 - i : i;

		buf_adds(b, services[k].data);
		buf_release(&services[k]);
	}
}

static void print_of(const char *text, struct buf *out)
{
	struct spec *s = parse_fine(text);

	spec_print(s, out);
	spec_free(s);
}

/* What is printed parses to what was printed; files' order says nothing. */
static void print_is_stable(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 300; seed++) {
		struct buf in = BUF_INIT, reversed = BUF_INIT;
		struct buf once = BUF_INIT, twice = BUF_INIT, other = BUF_INIT;

		rng = seed;
		random_file(&in, false);
		rng = seed;
		random_file(&reversed, true);
		print_of(in.data, &once);
		print_of(once.data, &twice);
		print_of(reversed.data, &other);
		assert_string_equal(once.data, twice.data);
		assert_string_equal(once.data, other.data);
		buf_release(&in);
		buf_release(&reversed);
		buf_release(&once);
		buf_release(&twice);
		buf_release(&other);
	}
}

/* A file damaged anywhere gives a spec or an error, never neither or both. */
static void damage_is_answered(void **state)
{
	struct buf good = BUF_INIT;

	(void)state;
	rng = 7;
	random_file(&good, false);
	for (int i = 0; i < 1500; i++) {
		struct buf bad = BUF_INIT;
		struct diag_list diags = { 0 };
		struct spec_text t = { .path = "bad.yaml" };
		struct spec *s;

		buf_add(&bad, good.data, good.len);
		for (uint32_t k = 0; k <= random_below(3); k++)
			bad.data[random_below((uint32_t)bad.len)] =
				(char)random_below(256);
		t.data = bad.data;
		t.len = random_below(4) ? bad.len
					: random_below((uint32_t)bad.len);
		s = spec_parse("bad.yaml", &t, 1, &diags);
		assert_true(!s == (diags.errors > 0));
		spec_free(s);
		diag_list_release(&diags);
		buf_release(&bad);
	}
	buf_release(&good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations),
		cmocka_unit_test(numbers),
		cmocka_unit_test(addresses),
		cmocka_unit_test(misreadings),
		cmocka_unit_test(distances),
		cmocka_unit_test(defaults),
		cmocka_unit_test(tracking),
		cmocka_unit_test(seed_files),
		cmocka_unit_test(template_hashes),
		cmocka_unit_test(several_files),
		cmocka_unit_test(caps),
		cmocka_unit_test_setup_teardown(read_folder, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(read_what_is_known, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(read_file, make_folder,
						remove_folder),
		cmocka_unit_test(print_is_stable),
		cmocka_unit_test(damage_is_answered),
	};

	return cmocka_run_group_tests_name("desired", tests, NULL, NULL);
}
