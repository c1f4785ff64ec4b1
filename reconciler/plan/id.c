/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <jansson.h>
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

/* What is done to what: not where an edit stands, nor how it is worded. */
static json_t *essence_of(json_t *changes)
{
	json_t *list = json_array(), *c;
	size_t i;

	json_array_foreach(changes, i, c) json_array_append_new(
		list, json_pack("[OOOO]", json_object_get(c, "object"),
				json_object_get(c, "actions"),
				json_object_get(c, "before"),
				json_object_get(c, "after")));
	return list;
}

/* Who holds what: until when goes by without anything being done. */
static json_t *essence_of_guards(json_t *guards)
{
	json_t *list = json_array(), *g;
	size_t i;

	json_array_foreach(guards, i, g) json_array_append_new(
		list, json_pack("[OO]", json_object_get(g, "guard"),
				json_object_get(g, "object")));
	return list;
}

void plan_json_id(const char *sha256, const char *fingerprint, json_t *drift,
		  json_t *changes, json_t *guards, char ret[17])
{
	json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:o}", "config", sha256,
			      "observed", fingerprint, "drift",
			      essence_of(drift), "changes", essence_of(changes),
			      "guards", essence_of_guards(guards));
	char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
	uint8_t bytes[SHA256_DIGEST_SIZE];
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, text ? strlen(text) : 0, (const uint8_t *)text);
	sha256_digest(&ctx, sizeof(bytes), bytes);
	base16_encode_update(ret, 8, bytes);
	ret[16] = '\0';
	free(text);
	json_decref(j);
}
