/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One change to one effect on the outside. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

/* Room to grow into without another load; 256 KiB. */
#define LEAST_SLOTS (1u << 16)

#define MOST_SLOTS (1u << 28)
/* Several of the largest tables: one that grows needs both its regions. */
#define SPARE_SLOTS (4 * LEAST_SLOTS)

/* Twice what is needed, but among many tables only few grow at a time. */
static uint32_t room_for(uint32_t slots)
{
	uint32_t spare = slots / 4 > SPARE_SLOTS ? slots / 4
			 : slots < SPARE_SLOTS	 ? slots
						 : SPARE_SLOTS;
	uint32_t room = (slots + spare + LEAST_SLOTS - 1) & ~(LEAST_SLOTS - 1);

	if (room > MOST_SLOTS)
		return MOST_SLOTS;
	return room ? room : LEAST_SLOTS;
}

static int load(struct reconciler *r, const struct change *c,
		struct diag_list *diags)
{
	struct datapath_config cfg = { .bpffs = r->opt->bpffs,
				       .slots = room_for(c->load.slots),
				       .features = c->load.features,
				       .flow_seed = c->load.has_seed
							    ? c->load.seed
							    : r->flow_seed };

	return datapath_open(&cfg, &r->dp, diags);
}

static int reload(struct reconciler *r, const struct change *c,
		  struct diag_list *diags)
{
	uint32_t have = datapath_view(r->dp)->slot_count;
	uint32_t slots = c->load.slots > have ? room_for(c->load.slots) : have;

	return datapath_reload(r->dp, c->load.features, slots, diags);
}

static int set_sources(struct reconciler *r, const struct change *c)
{
	const struct ip *a = c->sources;

	datapath_set_sources(r->dp, a[0].family ? a[0].words : NULL,
			     a[1].family ? a[1].words : NULL);
	return 0;
}

static int set_backend(struct reconciler *r, const struct change *c)
{
	const struct xlb_load none = { .step = XLB_LOAD_UNIT };
	int err = datapath_set_backend(r->dp, c->id, &c->backend.line);

	if (c->action == ACTION_ADD)
		datapath_set_load(r->dp, c->id, &none);
	return err ? err : datapath_set_owner(r->dp, c->id, &c->backend.owner);
}

/*
 * Packets under way may still name the id, and remember it: it is nobody's
 * until a sweep has found no trace.  With another generation what they
 * remember counts for nothing meanwhile.
 */
static int clear_backend(struct reconciler *r, const struct change *c)
{
	const struct xlb_backend *old = &datapath_view(r->dp)->backends[c->id];
	struct xlb_backend line = { .generation =
					    (uint8_t)(old->generation + 1) };
	struct xlb_owner owner = { .kind = XLB_OWNER_QUARANTINE };
	uint32_t cut = datapath_forget_flows(r->dp, c->id);
	int err;

	snprintf(owner.name, sizeof(owner.name), "%s", c->name);
	err = datapath_set_owner(r->dp, c->id, &owner);
	log_info("backend_cleared", "service=%s backend=%s id=%u remembered=%u",
		 c->service, c->name, c->id, cut);
	return err ? err : datapath_set_backend(r->dp, c->id, &line);
}

static int add_address(struct reconciler *r, const struct change *c)
{
	int err = net_add_address(r->net, c->ifindex, &c->address);

	if (err)
		return err;
	if (net_announce(r->net, c->ifindex, &c->address))
		log_warn("announce", "object=%s", c->object);
	return 0;
}

static int del_address(struct reconciler *r, const struct change *c)
{
	int err = net_del_address(r->net, c->ifindex, &c->address);

	return err == -EADDRNOTAVAIL ? 0 : err; /* it is gone already */
}

/* What it was is kept, so that `destroy` can put it back. */
static int set_sysctl(struct reconciler *r, const struct change *c)
{
	char old[32] = "", key[160];
	struct store_override o = { .kind = (char[]){ "sysctl" },
				    .key = key,
				    .since_ms = clock_wall_ms() };

	if (!sysctl_read(c->name, old, sizeof(old)) && r->store) {
		old[strcspn(old, "\n")] = '\0';
		snprintf(key, sizeof(key), "%s=%s", c->name, old);
		if (store_set_override(r->store, &o) ||
		    store_commit_so_far(r->store))
			log_warn("sysctl",
				 "name=%s result=\"was %s, which is "
				 "not kept\"",
				 c->name, old);
	}
	return sysctl_write(c->name, c->value);
}

static void note_scaling(struct reconciler *r, const struct change *c,
			 enum scale_reason reason)
{
	struct service_run *s = service_run_get(r, c->service);
	struct scale_decision d = { .from = s->wanted,
				    .wanted = s->wanted,
				    .to = s->wanted,
				    .direction = SCALE_HOLD,
				    .reason = reason };

	scaling_record(r, s, &d);
}

static int drain_vm(struct reconciler *r, const struct change *c, bool drains)
{
	struct vm_run *v = vm_run_get(r, c->name);

	if (!v)
		return -ENOENT;
	v->drains = drains;
	vm_run_note(v, drains ? "draining" : "restored",
		    c->cause ? c->cause : "", 0);
	if (!drains)
		note_scaling(r, c, REASON_RESTORED_DRAIN);
	reconcile_soon(r);
	return 0;
}

/* FNV-1a; never 0. */
uint64_t direct_sum(const struct xlb_direct_key *keys, size_t count)
{
	const unsigned char *b = (const unsigned char *)keys;
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < count * sizeof(*keys); i++)
		h = (h ^ b[i]) * 0x100000001b3ULL;
	return h ? h : 1;
}

static int set_direct(struct reconciler *r, const struct change *c)
{
	r->direct_sum = direct_sum(c->direct.items, c->direct.count);
	return datapath_set_direct(r->dp, c->direct.items, c->direct.count,
				   NULL);
}

static int write_slots(struct reconciler *r, const struct change *c)
{
	int changed = datapath_write_slots(r->dp, &c->slots.write);

	sweep_forget(r, c->slots.write.base, c->slots.write.count);
	return changed < 0 ? changed : 0;
}

/* ---- the effects, each with the signature of the table below ---- */

typedef int (*effect_fn)(struct reconciler *r, const struct change *c,
			 struct diag_list *diags);

#define EFFECT(name, expression)                                      \
	static int name(struct reconciler *r, const struct change *c, \
			struct diag_list *diags)                      \
	{                                                             \
		(void)r, (void)c, (void)diags;                        \
		return expression;                                    \
	}

static const struct xlb_service no_service;

EFFECT(do_load, load(r, c, diags))
EFFECT(do_reload, reload(r, c, diags))
EFFECT(do_pins, datapath_repin(r->dp, diags))
EFFECT(do_tick, datapath_set_tick(r->dp, c->tick))
EFFECT(do_sources, set_sources(r, c))
EFFECT(do_sysctl, set_sysctl(r, c))
EFFECT(do_backend_set, set_backend(r, c))
EFFECT(do_backend_clear, clear_backend(r, c))
EFFECT(do_direct, set_direct(r, c))
EFFECT(do_replies,
       datapath_set_replies(r->dp, c->replies.items, c->replies.count, NULL))
EFFECT(do_reply_attach, datapath_reply_attach(r->dp, c->ifindex, diags))
EFFECT(do_reply_detach, datapath_reply_detach(r->dp, c->ifindex))
EFFECT(do_link_attach,
       datapath_attach(r->dp, c->link.hook, c->name, c->ifindex, diags))
EFFECT(do_link_detach,
       datapath_detach(r->dp, c->link.hook, c->name, c->ifindex))
EFFECT(do_slots, write_slots(r, c))
EFFECT(do_service_set, datapath_set_service(r->dp, c->id, &c->kernel_service))
EFFECT(do_service_clear, datapath_set_service(r->dp, c->id, &no_service))
EFFECT(do_vips, datapath_set_vips(r->dp, c->vips))
EFFECT(do_address_add, add_address(r, c))
EFFECT(do_address_del, del_address(r, c))
EFFECT(do_drain, drain_vm(r, c, true))
EFFECT(do_restore, drain_vm(r, c, false))
EFFECT(do_vm_create, (vm_order_create(r, c), 0))
EFFECT(do_vm_start, (vm_order_start(r, c), 0))
EFFECT(do_vm_replace,
       (note_scaling(r, c, REASON_REPLACE), vm_order_remove(r, c, true), 0))
EFFECT(do_vm_remove, (vm_order_remove(r, c, false), 0))
EFFECT(do_nothing, 0)

static const effect_fn effects[CHANGE_KIND_COUNT] = {
	[CHANGE_LOAD] = do_load,
	[CHANGE_PINS] = do_pins,
	[CHANGE_RELOAD] = do_reload,
	[CHANGE_TICK] = do_tick,
	[CHANGE_SOURCES] = do_sources,
	[CHANGE_SYSCTL] = do_sysctl,
	[CHANGE_BACKEND_SET] = do_backend_set,
	[CHANGE_DIRECT] = do_direct,
	[CHANGE_REPLIES] = do_replies,
	[CHANGE_REPLY_ATTACH] = do_reply_attach,
	[CHANGE_LINK_ATTACH] = do_link_attach,
	[CHANGE_SLOTS] = do_slots,
	[CHANGE_SERVICE_SET] = do_service_set,
	[CHANGE_VIPS] = do_vips,
	[CHANGE_ADDRESS_ADD] = do_address_add,
	[CHANGE_DRAIN] = do_drain,
	[CHANGE_RESTORE] = do_restore,
	[CHANGE_VM_CREATE] = do_vm_create,
	[CHANGE_VM_START] = do_vm_start,
	[CHANGE_VM_REPLACE] = do_vm_replace,
	[CHANGE_VM_REMOVE] = do_vm_remove,
	[CHANGE_ADDRESS_DEL] = do_address_del,
	[CHANGE_BACKEND_CLEAR] = do_backend_clear,
	[CHANGE_SERVICE_CLEAR] = do_service_clear,
	[CHANGE_REPLY_DETACH] = do_reply_detach,
	[CHANGE_LINK_DETACH] = do_link_detach,
	[CHANGE_SHOW] = do_nothing,
};

int apply_change(struct reconciler *r, const struct change *c,
		 struct diag_list *diags)
{
	return effects[c->kind](r, c, diags);
}
