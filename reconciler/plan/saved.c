/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A saved plan, read back.  It comes from a file that anybody may have written
 * or cut short, so nothing of it is believed: the id must be that of what it
 * shows, and whether the world is still so is asked of the world.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

static int complain(struct diag_list *diags, const char *path, int line,
		    int column, const char *hint, const char *what)
{
	diag_add(diags, SEVERITY_ERROR,
		 &(struct source){
			 .file = path, .line = line, .column = column },
		 hint, "%s", what);
	return -EBADMSG;
}

static bool is_hex(const char *s, size_t len)
{
	return s && strlen(s) == len && strspn(s, "0123456789abcdef") == len;
}

static bool is_change(const json_t *c)
{
	return json_is_string(json_object_get(c, "object")) &&
	       json_is_array(json_object_get(c, "actions")) &&
	       json_object_get(c, "before") && json_object_get(c, "after");
}

static bool are_changes(json_t *list)
{
	json_t *c;
	size_t i;

	if (!json_is_array(list))
		return false;
	json_array_foreach(list, i, c) if (!is_change(c)) return false;
	return true;
}

static bool are_guards(json_t *list)
{
	json_t *g;
	size_t i;

	if (!json_is_array(list))
		return false;
	json_array_foreach(
		list, i, g) if (!json_is_string(json_object_get(g, "guard")) ||
				!json_object_get(g, "object")) return false;
	return true;
}

static const char *string_at(const json_t *j, const char *object,
			     const char *key)
{
	return json_string_value(
		json_object_get(object ? json_object_get(j, object) : j, key));
}

static const char again[] = "make it again: xlb-reconcile plan --out FILE";

static int take(const json_t *j, const char *path, struct saved_plan *ret,
		struct diag_list *diags)
{
	const char *id = string_at(j, NULL, "plan_id");
	const char *file = string_at(j, "config", "path");
	const char *sha256 = string_at(j, "config", "sha256");
	const char *fingerprint = string_at(j, "observed", "fingerprint");
	json_t *drift = json_object_get(j, "drift");
	json_t *changes = json_object_get(j, "changes");
	json_t *guards = json_object_get(j, "guards");
	char real[17];

	if (json_integer_value(json_object_get(j, "format_version")) != 1)
		return complain(diags, path, 0, 0, again,
				"it is no plan that this version of "
				"xlb-reconcile can read");
	if (!is_hex(id, 16) || !is_hex(sha256, 64) ||
	    !is_hex(fingerprint, 64) || !file || file[0] != '/' ||
	    !are_changes(drift) || !are_changes(changes) || !are_guards(guards))
		return complain(diags, path, 0, 0, again,
				"it is no whole plan of xlb-reconcile");
	plan_json_id(sha256, fingerprint, drift, changes, guards, real);
	if (strcmp(real, id) != 0)
		return complain(diags, path, 0, 0, again,
				"it was altered after it was made");
	memcpy(ret->id, id, sizeof(ret->id));
	memcpy(ret->sha256, sha256, sizeof(ret->sha256));
	memcpy(ret->fingerprint, fingerprint, sizeof(ret->fingerprint));
	ret->path = mem_dup(file);
	return 0;
}

int saved_plan_parse(const char *path, const char *data, size_t len,
		     struct saved_plan *ret, struct diag_list *diags)
{
	json_error_t error;
	AUTO_FREE char *what = NULL;
	json_t *j = json_loadb(data, len, JSON_REJECT_DUPLICATES, &error);
	int err;

	if (!j) {
		what = mem_printf("it is no plan, or not all of it: %s",
				  error.text);
		return complain(diags, path, error.line > 0 ? error.line : 0,
				error.column > 0 ? error.column : 0, again,
				what);
	}
	err = take(j, path, ret, diags);
	json_decref(j);
	return err;
}

void saved_plan_release(struct saved_plan *s)
{
	free(s->path);
	s->path = NULL;
}
