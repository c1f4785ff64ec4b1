/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/bench/fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "tables/tables.h"
#include "tests/bench/frames.h"

const struct service services[SERVICES] = {
	[DSR] = { XLB_DSR, IPPROTO_TCP, AT_REST, 0 },
	[NAT] = { XLB_NAT, IPPROTO_TCP, AT_REST, 0 },
	[UDP_DSR] = { XLB_DSR, IPPROTO_UDP, AT_REST, 0 },
	[UDP_NAT] = { XLB_NAT, IPPROTO_UDP, AT_REST, 0 },
	[IPIP] = { XLB_IPIP, IPPROTO_TCP, AT_REST, 0 },
	[GUE] = { XLB_GUE, IPPROTO_TCP, AT_REST, 0 },
	[NAT_MOVING] = { XLB_NAT, IPPROTO_TCP, MOVING, 0 },
	[NAT_TURNS] = { XLB_NAT, IPPROTO_TCP, TRACKED, XLB_VIP_SCHEDULE },
	[NAT_LEAST] = { XLB_NAT, IPPROTO_TCP, TRACKED,
			XLB_VIP_TWO_CHOICES | XLB_VIP_COUNTED },
};

void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

struct ip vip_of(int service, int family)
{
	char text[IP_STRLEN];
	struct ip a = { 0 };

	snprintf(text, sizeof(text), family == 4 ? "10.0.0.%d" : "fc00:1::%d",
		 service + 1);
	ip_parse(text, &a);
	return a;
}

static void fill_vip(struct xlb_vip *v, size_t i)
{
	const struct service *s = &services[i / 2 % SERVICES];
	int family = i & 1 ? 6 : 4;
	struct ip a = vip_of((int)(i / 2), family);

	if (i / 2 >= SERVICES)
		a = ip_add(&a, 256 + i); /* the crowd */
	v->family = (uint8_t)family;
	memcpy(v->addr, a.words, 16);
	v->port = htons(80);
	v->proto = s->proto;
	v->service = (uint16_t)(i / 2 % SERVICES + 1);
	v->target_port = htons(8080);
	v->addr_sum = ip_sum(&a);
	v->port_sum = sum_fold((uint64_t)(uint16_t)~v->port + v->target_port);
	v->forwarding = s->forwarding;
	v->slot_shift = 32 - SLOT_LOG2;
	v->slot_base = (uint32_t)s->table * TABLE_SLOTS;
	v->schedule_base = SCHEDULE * TABLE_SLOTS;
	v->schedule_shift = 32 - SLOT_LOG2;
	v->flags = s->flags;
}

static void fill_vips(struct xlb_tables *t)
{
	AUTO_FREE struct vip_table *built = mem_alloc(sizeof(*built));
	AUTO_FREE struct xlb_vip *vips = mem_array(XLB_VIP_MAX, sizeof(*vips));

	for (size_t i = 0; i < XLB_VIP_MAX; i++)
		fill_vip(&vips[i], i);
	errno = -vip_table_build(vips, XLB_VIP_MAX, 12345, built);
	if (errno)
		die("VIP table");
	memcpy(t->vips, built->lines, sizeof(built->lines));
	memcpy(t->displacement, built->displacement,
	       sizeof(built->displacement));
	t->control.vip_seed[0] = built->seed;
}

static void fill_backend(struct xlb_backend *be, uint32_t id)
{
	uint8_t l2[16] = { 2, 7, 0, 0, (uint8_t)(id >> 8), (uint8_t)id, 2, 1, 0,
			   0, 0, 1, 1 };
	struct ip v4, v6;

	ip_parse("10.100.0.0", &v4);
	ip_parse("fc00:9::", &v6);
	v4 = ip_add(&v4, id);
	v6 = ip_add(&v6, id);
	memcpy(be->l2_v4, l2, 16);
	memcpy(be->l2_v6, l2, 16);
	be->addr4 = v4.words[0];
	memcpy(be->addr6, v6.words, 16);
	be->sum4 = ip_sum(&v4);
	be->sum6 = ip_sum(&v6);
	be->mtu = 1500;
	be->flags = XLB_BACKEND_TX;
}

void fixture_fill(struct xlb_tables *t)
{
	struct ip v4, v6;

	fill_vips(t);
	for (uint32_t id = 1; id <= 2 * BACKENDS; id++) {
		fill_backend(&t->backends[id], id);
		t->loads[id].step = XLB_LOAD_UNIT;
	}
	ip_parse("192.0.2.1", &v4);
	ip_parse("2001:db8::1", &v6);
	t->control.source4 = v4.words[0];
	memcpy(t->control.source6, v6.words, 16);
}

/* Backends 1 to BACKENDS own the slots; BACKENDS more had them before. */
static void fill_words(uint32_t *slots)
{
	AUTO_FREE uint32_t *owner = mem_array(TABLE_SLOTS, sizeof(*owner));
	struct table_member members[BACKENDS];
	char names[BACKENDS][16];

	for (uint32_t i = 0; i < BACKENDS; i++) {
		snprintf(names[i], sizeof(names[i]), "b%u", i);
		members[i] = (struct table_member){ names[i], i + 1, 1 };
	}
	table_maglev(members, BACKENDS, SLOT_LOG2, owner);
	for (uint32_t i = 0; i < TABLE_SLOTS; i++) {
		uint32_t cur = owner[i];

		slots[AT_REST * TABLE_SLOTS + i] = XLB_SLOT(cur, cur, XLB_REST);
		slots[MOVING * TABLE_SLOTS + i] =
			XLB_SLOT(cur, cur + BACKENDS, XLB_MOVING);
		slots[TRACKED * TABLE_SLOTS + i] =
			XLB_SLOT(cur, cur, XLB_SETTLED);
	}
	table_round_robin(members, BACKENDS, SLOT_LOG2, owner);
	for (uint32_t i = 0; i < TABLE_SLOTS; i++)
		slots[SCHEDULE * TABLE_SLOTS + i] =
			XLB_SLOT(owner[i], owner[i], XLB_REST);
}

void fixture_fill_slots(int slots_fd)
{
	size_t size = (size_t)TABLES * TABLE_SLOTS * 4;
	uint32_t *slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			       slots_fd, 0);

	if (slots == MAP_FAILED)
		die("slots");
	fill_words(slots);
	munmap(slots, size);
}
