/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs that keep an override in the store have in common. */
#ifndef CLI_OVERRIDE_H
#define CLI_OVERRIDE_H

#include "reconcile.h"

void overrides_reload(struct reconciler *r); /* from the store */
/* The plan as it would be with this one set, or cleared. Exit code. */
int overrides_preview(struct reconciler *r, const struct options *opt,
		      const char *kind, const char *key, bool set,
		      struct buf *out);
/* In change_history: what the operator did. */
void overrides_record(struct reconciler *r, const char *verb,
		      const char *object);

#endif
