/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/model.h"

#include <stdlib.h>
#include <string.h>

#include "desired/names.h"
#include "desired/piece.h"

void spec_free(struct spec *s)
{
	if (!s)
		return;
	while (s->kept) {
		struct spec *kept = s->kept;

		s->kept = kept->next;
		spec_free(kept);
	}
	for (size_t i = 0; i < s->piece_count; i++)
		piece_free(s->pieces[i]);
	arena_free(s->arena);
}

size_t service_vip_ports(const struct service_spec *s)
{
	return s->vip_count * s->port_count;
}

size_t service_max_backends(const struct service_spec *s)
{
	return s->backend_count + s->pool.max;
}

size_t service_fixed_count(const struct service_spec *s)
{
	return s->backend_count + (s->sorry.name != NULL);
}

const struct backend_spec *service_fixed(const struct service_spec *s, size_t i)
{
	return i < s->backend_count ? &s->backends[i] : &s->sorry;
}

static int compare_name(const void *name, const void *service)
{
	return strcmp(name, ((const struct service_spec *)service)->name);
}

const struct service_spec *spec_find_service(const struct spec *s,
					     const char *name)
{
	if (!s->service_count)
		return NULL;
	return bsearch(name, s->services, s->service_count,
		       sizeof(*s->services), compare_name);
}

const char *algorithm_name(enum algorithm a)
{
	return choice_name(algorithm_names, (int)a);
}

const char *forwarding_name(enum forwarding f)
{
	return choice_name(forwarding_names, (int)f);
}

const char *protocol_name(enum protocol p)
{
	return choice_name(protocol_names, (int)p);
}

const char *metric_name(enum metric m)
{
	return choice_name(metric_names, (int)m);
}

bool service_tracks(const struct service_spec *s)
{
	switch (s->algorithm) {
	case ALGORITHM_MAGLEV:
	case ALGORITHM_SOURCE_HASH:
		return s->protocol == PROTOCOL_UDP && s->udp == UDP_STICKY;
	case ALGORITHM_ROUND_ROBIN:
	case ALGORITHM_WEIGHTED_ROUND_ROBIN:
	case ALGORITHM_RANDOM:
	case ALGORITHM_LEAST_CONNECTIONS:
	case ALGORITHM_LEAST_LOAD:
	case ALGORITHM_COUNT:
		break;
	}
	return true;
}
