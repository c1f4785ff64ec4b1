/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include <jansson.h>

#include "base/buf.h"

/* What `status --json` prints, for people. */
void status_text(const json_t *status, struct buf *out);

#endif
