/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/figures.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

double median(double *samples, size_t count)
{
	if (!count)
		return NAN;
	qsort(samples, count, sizeof(*samples), compare);
	return (samples[(count - 1) / 2] + samples[count / 2]) / 2;
}

/*
 * The median lies between the k-th smallest and the k-th largest of n samples
 * with probability 1 - 2 P(Bin(n, 1/2) < k).
 */
void median_interval(const double *sorted, size_t count, double *ret_low,
		     double *ret_high)
{
	double chance = pow(0.5, (double)count), below = chance;
	size_t k = 0;

	while (below <= 0.025 && k + 1 < count / 2) {
		chance *= (double)(count - k) / (double)(k + 1);
		below += chance;
		k++;
	}
	k = k ? k - 1 : 0;
	*ret_low = count ? sorted[k] : NAN;
	*ret_high = count ? sorted[count - 1 - k] : NAN;
}

bool figure_met(const struct figure *f)
{
	return f->at_least ? f->value >= f->goal : f->value <= f->goal;
}

static void write_json(FILE *out, const struct figure *f)
{
	fprintf(out,
		" {\"part\": \"%s\", \"what\": \"%s\", \"value\": %.4f, "
		"\"unit\": \"%s\", \"low\": %.4f, \"high\": %.4f, ",
		f->part, f->what, f->value, f->unit, f->low, f->high);
	if (f->goal > 0)
		fprintf(out, "\"goal\": %g, \"at_least\": %s, \"met\": %s, ",
			f->goal, f->at_least ? "true" : "false",
			figure_met(f) ? "true" : "false");
	else
		fprintf(out, "\"goal\": null, \"met\": null, ");
	fprintf(out, "\"spread\": \"%s\"}", f->spread ? f->spread : "");
}

static void write_line(const struct figure *f)
{
	printf("%-44s %9.2f %-6s", f->what, f->value, f->unit);
	if (f->goal > 0)
		printf(" %s %-5g %-7s", f->at_least ? ">=" : "<=", f->goal,
		       figure_met(f) ? "met" : "MISSED");
	else
		printf("%17s", "");
	printf(" %.2f..%.2f %s\n", f->low, f->high, f->spread ? f->spread : "");
}

int figures_write(const struct figure *figures, size_t count)
{
	const char *path = getenv("XLB_BENCH_JSON");
	FILE *out;

	if (!path) {
		for (size_t i = 0; i < count; i++)
			write_line(&figures[i]);
		return 0;
	}
	out = fopen(path, "w");
	if (!out)
		return -errno;
	fprintf(out, "[\n");
	for (size_t i = 0; i < count; i++) {
		write_json(out, &figures[i]);
		fprintf(out, i + 1 < count ? ",\n" : "\n");
	}
	fprintf(out, "]\n");
	return fclose(out) ? -errno : 0;
}
