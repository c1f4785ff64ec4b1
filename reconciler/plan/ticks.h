/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The coarse time of flow memories.  A tick is as long as the longest
 * declared time asks for, so that every time is at most XLB_IDLE_TICKS.
 */
#ifndef PLAN_TICKS_H
#define PLAN_TICKS_H

#include <stdint.h>

#include "desired/model.h"

/* Seconds a tick, at least 1. */
uint32_t spec_tick(const struct spec *s);
/*
 * How many ticks of so many seconds cover a duration (ns).  What was stamped
 * within tick n has surely seen the whole duration when tick n + ticks + 1
 * begins.
 */
uint32_t ticks_of(uint64_t duration, uint32_t tick);
/* How long a memory of the service lasts, and a client's tie; ns. */
uint64_t service_memory(const struct service_spec *s);

#endif
