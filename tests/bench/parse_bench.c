/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From text to a checked model: 4,000 services anew, and 1,000 services of 10
 * backends again, after one weight changed, in one file and in 20.  CPU
 * time (one thread, no I/O), medians with intervals.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "desired/desired.h"
#include "tests/bench/figures.h"

#define RUNS 41
#define FILES_MAX 20
#define MAX_FIGURES 8

static struct figure figures[MAX_FIGURES];
static size_t figure_count;

/* Services first..first+count-1; `heavy` has one weight that is another. */
static void make_yaml(struct buf *out, size_t first, size_t count,
		      size_t backends, size_t heavy, unsigned int weight)
{
	buf_reset(out);
	buf_adds(out, "version: 1\n");
	if (!first)
		buf_adds(out, "node: {interfaces: [eth0]}\n");
	buf_adds(out, "services:\n");
	for (size_t i = first; i < first + count; i++) {
		buf_addf(out,
			 "  - name: s%zu\n    vips: [198.18.%zu.%zu]\n"
			 "    ports: [{listen: 80, target: %zu}]\n"
			 "    health: {type: tcp, interval: 10s}\n"
			 "    backends:\n",
			 i, i / 250, i % 250 + 1, 8000 + i % 16);
		for (size_t k = 0; k < backends; k++)
			buf_addf(
				out,
				"      - {name: s%zu-b%zu, addresses: [10.77.%zu.%zu], weight: %u}\n",
				i, k, 1 + i / 16, k + 1,
				i == heavy && k == 3 ? weight : 10);
	}
}

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct folder {
	struct buf bytes[FILES_MAX];
	struct spec_text texts[FILES_MAX];
	char names[FILES_MAX][16];
	size_t count, services, backends;
};

static void fill(struct folder *f, size_t heavy, unsigned int weight)
{
	size_t each = f->services / f->count;

	for (size_t i = 0; i < f->count; i++) {
		make_yaml(&f->bytes[i], i * each, each, f->backends, heavy,
			  weight);
		snprintf(f->names[i], sizeof(f->names[i]), "%02zu.yaml", i);
		f->texts[i] = (struct spec_text){ f->names[i], f->bytes[i].data,
						  f->bytes[i].len, "/etc/xlb" };
	}
}

static struct spec *parse(struct folder *f, struct spec_cache *c)
{
	struct diag_list diags = { 0 };
	struct spec *s =
		spec_parse_again(c, "folder", f->texts, f->count, &diags);

	if (!s || diags.count) {
		fprintf(stderr, "parse_bench: the text is refused\n");
		exit(1);
	}
	return s;
}

/* again: with what was read before, and one weight changed each time. */
static void measure(const char *what, size_t services, size_t backends,
		    size_t files, bool again, double goal)
{
	struct folder f = { .count = files,
			    .services = services,
			    .backends = backends };
	struct spec_cache *c = again ? spec_cache_new() : NULL;
	struct figure *out = &figures[figure_count++];
	struct spec *s, *old = NULL;
	double took[RUNS];

	fill(&f, 0, 10);
	if (again)
		old = parse(&f, c);
	for (size_t i = 0; i < RUNS; i++) {
		double before;

		fill(&f, again ? i * 23 % services : 0, 11);
		before = cpu_ms();
		s = parse(&f, c);
		took[i] = cpu_ms() - before;
		spec_free(old);
		old = s;
	}
	spec_free(old);
	spec_cache_free(c);
	*out = (struct figure){
		.part = "parse", .what = what, .unit = "ms", .goal = goal
	};
	out->value = median(took, RUNS);
	median_interval(took, RUNS, &out->low, &out->high);
	for (size_t i = 0; i < files; i++)
		buf_release(&f.bytes[i]);
}

int main(void)
{
	measure("4,000 services of 8 backends, parsed and checked", 4000, 8, 1,
		false, 150);
	measure("1,000 services of 10 backends, parsed and checked", 1000, 10,
		1, false, 0);
	measure("  again, two weights changed, one file", 1000, 10, 1, true, 0);
	measure("  again, two weights changed, 20 files", 1000, 10, 20, true,
		0);
	return figures_write(figures, figure_count) != 0;
}
