/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that tests set up their world with. */
#ifndef TESTS_SHELL_H
#define TESTS_SHELL_H

#include <stdbool.h>

/* Runs the command; the test fails when it does. */
void sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Is the text in the first 16 KiB that the command prints? */
bool says(const char *command, const char *text);

#endif
