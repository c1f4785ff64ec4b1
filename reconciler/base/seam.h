/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the reconciler touches the outside.  Everything that changes kernel,
 * network, libvirt or files says so first, by its name.
 */
#ifndef BASE_SEAM_H
#define BASE_SEAM_H

/*
 * This thread is about to change something.  While it only looks, for a plan
 * or a dry run, that is a defect: the process ends before harm is done.
 */
void seam_change(const char *what);

/* Until the end of the looking, which may nest, this thread changes nothing. */
void seam_look_begin(void);
void seam_look_end(void);

#endif
