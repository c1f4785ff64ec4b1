/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What least_connections and least_load compare: recounted every second, so
 * that what the kernel adds in between can't drift.
 */
#ifndef LOADS_H
#define LOADS_H

#include <stdbool.h>
#include <stdint.h>

#include "bpf/xlb.h"
#include "desired/model.h"

struct loads;
struct reconciler;
struct sweep;

struct loads *loads_new(struct reconciler *r);
void loads_free(struct loads *l);
bool loads_wanted(const struct spec *spec); /* NULL is fine */
/* The backends that there are: begin, then each. */
void loads_begin(struct loads *l);
void loads_add(struct loads *l, uint32_t id, const struct xlb_owner *owner);
/* After a round over the memories; so many seconds after the last one. */
void loads_tell(struct loads *l, const struct sweep *sweep, double seconds);

#endif
