/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "desired/names.h"

#define LATER(name)                \
	{                          \
		name, CHOICE_LATER \
	}
#define END             \
	{               \
		NULL, 0 \
	}

const struct choice hook_names[] = {
	{ "auto", HOOK_AUTO },
	{ "xdp", HOOK_XDP },
	LATER("xdp_generic"),
	LATER("tc"),
	END,
};
const struct choice announce_names[] = {
	{ "address", ANNOUNCE_ADDRESS },
	{ "none", ANNOUNCE_NONE },
	LATER("bgp"),
	END,
};
const struct choice vms_names[] = { { "manage", 0 }, LATER("follow"), END };
const struct choice protocol_names[] = {
	{ "tcp", PROTOCOL_TCP },
	{ "udp", PROTOCOL_UDP },
	END,
};
const struct choice algorithm_names[] = {
	{ "maglev", ALGORITHM_MAGLEV },
	{ "round_robin", ALGORITHM_ROUND_ROBIN },
	LATER("source_hash"),
	LATER("weighted_round_robin"),
	LATER("random"),
	LATER("least_connections"),
	LATER("least_load"),
	LATER("free_slots"),
	END,
};
const struct choice forwarding_names[] = {
	{ "nat", FORWARDING_NAT },
	{ "dsr", FORWARDING_DSR },
	LATER("ipip"),
	LATER("gue"),
	END,
};
const struct choice udp_names[] = { { "stateless", 0 }, LATER("sticky"), END };
const struct choice state_names[] = {
	{ "active", BACKEND_ACTIVE },
	{ "drain", BACKEND_DRAIN },
	END,
};
const struct choice health_names[] = {
	{ "tcp", HEALTH_TCP }, { "http", HEALTH_HTTP },
	LATER("https"),	       LATER("dns"),
	LATER("udp"),	       LATER("icmp"),
	LATER("command"),      END,
};
const struct choice panic_names[] = {
	{ "fail_open", PANIC_FAIL_OPEN },
	{ "fail_closed", PANIC_FAIL_CLOSED },
	END,
};
const struct choice metric_names[] = {
	{ "cpu", METRIC_CPU },
	{ "packets_per_second", METRIC_PACKETS_PER_SECOND },
	{ "new_connections_per_second", METRIC_NEW_CONNECTIONS_PER_SECOND },
	LATER("memory"),
	LATER("bits_per_second"),
	LATER("active_connections"),
	LATER("latency"),
	LATER("queue"),
	LATER("reported"),
	END,
};
const struct choice missing_names[] = {
	{ "hold", MISSING_HOLD },
	{ "up_only", MISSING_UP_ONLY },
	END,
};
const struct choice predict_names[] = {
	{ "off", 0 },
	LATER("observe"),
	LATER("act"),
	END,
};

const char *choice_name(const struct choice *names, int value)
{
	for (; names->name; names++)
		if (names->value == value)
			return names->name;
	return "";
}
