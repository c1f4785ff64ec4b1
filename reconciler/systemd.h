/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The service manager's side of a daemon: the journal, and word of when it
 * serves, that it lives and that it ends.  All of it does nothing when no
 * service manager has started this process.
 */
#ifndef SYSTEMD_H
#define SYSTEMD_H

#include "reconcile.h"

/*
 * When standard error is the journal's (JOURNAL_STREAM), what is logged goes
 * there with the fields PRIORITY, XLB_EVENT, XLB_RUN_ID, XLB_REVISION and,
 * where the event is about one, XLB_SERVICE.
 */
void systemd_journal(void);

/* A sign of life twice in each WATCHDOG_USEC, as long as the loop turns. */
void systemd_watchdog(struct reconciler *r);

/*
 * After a pass, and when a file was refused: serving, be it with the last good
 * state, and since when what is; says nothing when nothing has changed.
 */
void systemd_serving(struct reconciler *r);
void systemd_stopping(struct reconciler *r);

#endif
