/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The same program while packets are sampled. */
#define XLB_TRACE
#include "reply.bpf.c"
