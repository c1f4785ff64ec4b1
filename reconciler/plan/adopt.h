/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which domains of others could serve in which pool.  Pure. */
#ifndef PLAN_ADOPT_H
#define PLAN_ADOPT_H

#include <stdbool.h>

#include "actual/adoption.h"
#include "desired/model.h"

#define ADOPT_WHY 256

/*
 * Could the domain be one of the service's pool, with these addresses (family
 * 0: not known)?  Else why not, in words.
 */
bool adopt_fits(const struct foreign *f, const struct ip addresses[2],
		const struct service_spec *s, char ret_why[ADOPT_WHY]);

#endif
