/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A plan made for a fake world, carried out step by step and checked. */
#ifndef PLAN_STEPS_H
#define PLAN_STEPS_H

#include "tests/lib/fake_world.h"

/* Parse; ends the process with the messages when the text is refused. */
struct spec *steps_parse(const char *yaml);
/* NULL and the messages on stderr (as TAP comments) unless quiet. */
struct spec *steps_try_parse(const char *yaml, bool quiet);
struct plan *steps_plan(struct fake *f, const struct spec *spec);
char *steps_text(const struct plan *p, const struct spec *spec); /* to free */
/*
 * Carry out the first `n` changes, checking after each that the world is sound
 * and that no service lost its last healthy backend.  0, or -1.
 */
int steps_apply(struct fake *f, const struct spec *spec, const struct plan *p,
		size_t n);
/*
 * Plan, carry out, let time pass, until nothing is left to do and a pass that
 * verifies everything finds nothing.  Rounds that it took, or -1.  After every
 * plan that leaves VMs alone, planning again at once must find nothing.
 */
int steps_converge(struct fake *f, const struct spec *spec);

#endif
