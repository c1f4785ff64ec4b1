/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include <jansson.h>

#include "reconcile.h"

/* What `status --json` prints, for people. */
void status_text(const json_t *status, struct buf *out);

/* Sentences about limits, and about what is somebody else's: an array. */
json_t *status_notes(const struct reconciler *r, const struct spec *spec,
		     const struct world *w);

#endif
