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
	{ "xdp_generic", HOOK_XDP_GENERIC },
	{ "tc", HOOK_TC },
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
	{ "source_hash", ALGORITHM_SOURCE_HASH },
	{ "round_robin", ALGORITHM_ROUND_ROBIN },
	{ "weighted_round_robin", ALGORITHM_WEIGHTED_ROUND_ROBIN },
	{ "random", ALGORITHM_RANDOM },
	{ "least_connections", ALGORITHM_LEAST_CONNECTIONS },
	{ "least_load", ALGORITHM_LEAST_LOAD },
	LATER("free_slots"),
	END,
};
const struct choice forwarding_names[] = {
	{ "nat", FORWARDING_NAT },
	{ "dsr", FORWARDING_DSR },
	{ "ipip", FORWARDING_IPIP },
	{ "gue", FORWARDING_GUE },
	END,
};
const struct choice udp_names[] = {
	{ "stateless", UDP_STATELESS },
	{ "sticky", UDP_STICKY },
	END,
};
const struct choice state_names[] = {
	{ "active", BACKEND_ACTIVE },
	{ "drain", BACKEND_DRAIN },
	END,
};
const struct choice health_names[] = {
	{ "tcp", HEALTH_TCP },	       { "http", HEALTH_HTTP },
	{ "https", HEALTH_HTTPS },     { "dns", HEALTH_DNS },
	{ "udp", HEALTH_UDP },	       { "icmp", HEALTH_ICMP },
	{ "command", HEALTH_COMMAND }, END,
};
const struct choice record_names[] = {
	{ "A", DNS_A },		{ "AAAA", DNS_AAAA },
	{ "CNAME", DNS_CNAME }, { "MX", DNS_MX },
	{ "NS", DNS_NS },	{ "PTR", DNS_PTR },
	{ "SOA", DNS_SOA },	{ "SRV", DNS_SRV },
	{ "TXT", DNS_TXT },	END,
};
/* RFC 1035, RFC 2136: as tools print them. */
const struct choice rcode_names[] = {
	{ "NOERROR", 0 },
	{ "FORMERR", 1 },
	{ "SERVFAIL", 2 },
	{ "NXDOMAIN", 3 },
	{ "NOTIMP", 4 },
	{ "REFUSED", 5 },
	END,
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
