/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A digest of what a plan depends on: the kernel's tables, VMs, backends and
 * their health, addresses, attachments, overrides.  What goes on by itself is
 * left out: counters, clocks, whether a slot still moves, ids in quarantine,
 * where in the maps a table stands.
 */
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "plan/internal.h"

struct digest {
	struct sha256_ctx ctx;
};

static void add_bytes(struct digest *d, const void *data, size_t len)
{
	sha256_update(&d->ctx, len, data);
}

static void add_text(struct digest *d, const char *s)
{
	add_bytes(d, s ? s : "", s ? strlen(s) + 1 : 1);
}

static void add_number(struct digest *d, uint64_t n)
{
	add_bytes(d, &n, sizeof(n));
}

static void add_ip(struct digest *d, const struct ip *a)
{
	add_number(d, (uint64_t)a->family);
	add_bytes(d, a->bytes, sizeof(a->bytes));
}

/* ---- the kernel ---- */

static int compare_vip(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct xlb_vip));
}

/* In no order but their own: where they stand depends on the table's seed. */
static void add_vips(struct digest *d, const struct world_kernel *k)
{
	struct xlb_vip *vips = mem_array(XLB_VIP_LINES, sizeof(*vips));
	size_t n = 0;

	for (uint32_t i = 0; i < XLB_VIP_LINES; i++) {
		struct xlb_vip v = k->vips[i];

		if (!v.proto)
			continue;
		v.slot_base = v.schedule_base = 0;
		v.flags &= (uint16_t)~XLB_VIP_CLIENT_OLD;
		vips[n++] = v;
	}
	if (n)
		qsort(vips, n, sizeof(*vips), compare_vip);
	add_number(d, n);
	add_bytes(d, vips, n * sizeof(*vips));
	free(vips);
}

/* Whose each slot is.  Many words, so by something faster than SHA. */
static void add_slots(struct digest *d, const struct world_kernel *k,
		      uint32_t base, uint8_t log2)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	if (log2 >= 28 || base > k->slot_count ||
	    1u << log2 > k->slot_count - base)
		return;
	for (uint32_t i = 0; i < 1u << log2; i++) {
		h = (h ^ XLB_SLOT_CUR(k->slots[base + i])) *
		    0x9e3779b97f4a7c15ULL;
		h ^= h >> 29;
	}
	add_number(d, h);
}

static void add_services(struct digest *d, const struct world_kernel *k)
{
	for (uint32_t id = 1; id < XLB_SERVICES; id++) {
		struct xlb_service s = k->services[id];

		if (!s.name[0])
			continue;
		add_slots(d, k, s.slot_base, s.slot_log2);
		if (s.schedule_log2)
			add_slots(d, k, s.schedule_base, s.schedule_log2);
		s.slot_base = s.schedule_base = 0;
		s.changed = 0;
		s.flags &= (uint8_t)~XLB_SERVICE_CLIENT_OLD;
		add_number(d, id);
		add_bytes(d, &s, sizeof(s));
	}
}

static void add_backends(struct digest *d, const struct world_kernel *k)
{
	for (size_t i = 0; i < k->owner_count; i++) {
		const struct world_owner *o = &k->owners[i];

		if (o->owner.kind == XLB_OWNER_QUARANTINE)
			continue;
		add_number(d, o->id);
		add_bytes(d, &o->owner, sizeof(o->owner));
		add_bytes(d, &k->backends[o->id], sizeof(*k->backends));
	}
}

static void add_kernel(struct digest *d, const struct world *w)
{
	const struct world_kernel *k = &w->kernel;

	add_number(d, k->loaded);
	if (!k->loaded)
		return;
	add_number(d, k->features);
	add_number(d, k->unpinned);
	add_number(d, k->direct_edited + 2u * k->vips_damaged);
	add_number(d, k->tick);
	add_number(d, k->flow_seed);
	add_number(d, k->source4);
	add_bytes(d, k->source6, sizeof(k->source6));
	add_vips(d, k);
	add_services(d, k);
	add_backends(d, k);
	for (size_t i = 0; i < w->reply_count; i++)
		add_bytes(d, &w->replies[i], sizeof(w->replies[i]));
	for (size_t i = 0; i < w->direct_count; i++)
		add_bytes(d, &w->directs[i], sizeof(w->directs[i]));
}

/* ---- the rest ---- */

static void add_node(struct digest *d, const struct world *w)
{
	add_number(d, w->forwards6_all);
	add_number(d, w->seed);
	add_text(d, w->seed_why);
	for (size_t i = 0; i < w->interface_count; i++) {
		const struct world_interface *in = &w->interfaces[i];

		add_text(d, in->name);
		add_number(d, (uint64_t)in->ifindex);
		for (int h = 0; h < DATAPATH_HOOKS; h++)
			add_number(d, in->hooks[h]);
		add_number(d, in->reply);
		add_number(d, in->forwards[0] + 2u * in->forwards[1]);
	}
	for (size_t i = 0; i < w->address_count; i++) {
		const struct world_address *a = &w->addresses[i];

		add_ip(d, &a->address);
		add_number(d, (uint64_t)a->prefix);
		add_number(d, (uint64_t)a->ifindex);
		add_number(d, a->ours);
	}
}

static void add_members(struct digest *d, const struct world *w)
{
	for (size_t i = 0; i < w->service_count; i++) {
		const struct world_service *s = &w->services[i];

		add_text(d, s->name);
		add_number(d, s->pool.known ? s->pool.wanted : UINT32_MAX);
		for (size_t k = 0; k < s->member_count; k++) {
			const struct world_member *m = &s->members[k];

			add_text(d, m->name);
			add_ip(d, &m->addresses[0]);
			add_ip(d, &m->addresses[1]);
			add_number(d, m->health);
			add_number(d, m->drained + 2u * m->leaving);
		}
	}
}

static void add_vms(struct digest *d, const struct world *w)
{
	for (size_t i = 0; i < w->vm_count; i++) {
		const struct world_vm *v = &w->vms[i];

		add_text(d, v->name);
		add_text(d, v->service);
		add_text(d, v->hypervisor);
		add_text(d, v->template_hash);
		add_ip(d, &v->addresses[0]);
		add_ip(d, &v->addresses[1]);
		add_number(d, v->phase);
	}
}

void world_fingerprint(const struct world *w, char ret[65])
{
	struct digest d;
	uint8_t bytes[SHA256_DIGEST_SIZE];

	sha256_init(&d.ctx);
	add_kernel(&d, w);
	add_node(&d, w);
	add_members(&d, w);
	add_vms(&d, w);
	sha256_digest(&d.ctx, sizeof(bytes), bytes);
	base16_encode_update(ret, sizeof(bytes), bytes);
	ret[64] = '\0';
}
