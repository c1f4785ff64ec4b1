/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parser says of many texts: they come on stdin, each ended by a NUL
 * byte, and for each go out the messages about it, one a line and without
 * hints, ended by a NUL byte; warnings begin with "warning: ".
 */
#include <stdio.h>
#include <stdlib.h>

#include "desired/desired.h"

static void judge(const char *text, size_t len)
{
	struct spec_text t = { "file", text, len, "/etc/xlb" };
	struct diag_list diags = { 0 };
	struct spec *s = spec_parse("file", &t, 1, &diags);

	for (size_t i = 0; i < diags.count; i++)
		printf("%s%s\n",
		       diags.items[i].severity == SEVERITY_ERROR ? ""
								 : "warning: ",
		       diags.items[i].message);
	putchar('\0');
	spec_free(s);
	diag_list_release(&diags);
}

int main(void)
{
	char *text = NULL;
	size_t room = 0;
	ssize_t len;

	while ((len = getdelim(&text, &room, '\0', stdin)) > 0)
		judge(text, (size_t)len - 1);
	free(text);
	return 0;
}
