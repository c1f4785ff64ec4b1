/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells when the desired state was saved.  libinotifytools has no descriptor
 * to wait on, so a helper thread holds it and pokes the loop.
 *
 * Complete saves (close after write, rename over, symlink replaced) are told
 * at once; a bare modify never.  Inside a git work tree it waits while
 * index.lock exists, then tells once.  Otherwise what arrives within 5 ms is
 * merged; that it waits for more is told, too, so that the time can be used.
 */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>

#include "loop.h"

struct watch;

/*
 * PATH: a file (its folder and its symlinks' folders are watched) or a folder.
 * coming: something was saved, and more may be on its way; saved() follows.
 */
int watch_new(struct loop *l, const char *path, loop_fn coming, loop_fn saved,
	      void *arg, struct watch **ret); /* 0 or -errno */
void watch_free(struct watch *w);
/*
 * In coming(): waits until nothing belongs to this save any more, 10 ms at most.
 * True: nothing came but what had come before, and saved() isn't called.
 */
bool watch_take_saved(struct watch *w);

#endif
