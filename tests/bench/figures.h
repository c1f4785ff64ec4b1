/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Medians, and the rows that the benches in C hand to run.py. */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include <stdbool.h>
#include <stddef.h>

struct figure {
	const char *part; /* which bench */
	const char *what;
	const char *unit;
	double value;
	double goal; /* 0: none */
	bool at_least; /* the goal is a lower bound */
	double low, high; /* of the spread that `spread` describes */
	const char *spread;
};

double median(double *samples, size_t count); /* sorts them */
/*
 * A 95 % interval (or the next wider one) of the median of sorted samples: by
 * order statistics, so without any assumption about their distribution.  With
 * less than six samples it is the range.
 */
void median_interval(const double *sorted, size_t count, double *ret_low,
		     double *ret_high);

bool figure_met(const struct figure *f);
/*
 * As a JSON array to the file that XLB_BENCH_JSON names; without it, as lines
 * to the terminal.  0 or -errno.
 */
int figures_write(const struct figure *figures, size_t count);

#endif
