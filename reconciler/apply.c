/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One change to one effect on the outside. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "reconcile.h"

/* Room for what is declared and as much again; at least a million slots. */
#define LEAST_SLOTS (1u << 20)

static int load(struct reconciler *r, struct diag_list *diags)
{
	struct datapath_config cfg = { .bpffs = r->opt->bpffs,
				       .slots = LEAST_SLOTS,
				       .flow_seed = r->flow_seed };
	uint64_t needed = 0;

	for (size_t i = 0; i < r->spec->service_count; i++)
		needed += 2ull << table_log2_for(
				  service_max_backends(&r->spec->services[i]));
	while (cfg.slots < needed && cfg.slots < (1u << 28))
		cfg.slots *= 2;
	return datapath_open(&cfg, &r->dp, diags);
}

static int set_backend(struct reconciler *r, const struct change *c)
{
	int err = datapath_set_backend(r->dp, c->id, &c->backend.line);

	return err ? err : datapath_set_owner(r->dp, c->id, &c->backend.owner);
}

/* The generation stays, so that the id's next owner gets another one. */
static int clear_backend(struct reconciler *r, const struct change *c)
{
	struct xlb_backend line = {
		.generation = datapath_view(r->dp)->backends[c->id].generation
	};
	uint32_t cut = datapath_forget_flows(r->dp, c->id);
	int err = datapath_set_owner(r->dp, c->id, NULL);

	log_info("backend_cleared", "service=%s backend=%s id=%u remembered=%u",
		 c->service, c->name, c->id, cut);
	return err ? err : datapath_set_backend(r->dp, c->id, &line);
}

static int add_address(struct reconciler *r, const struct change *c)
{
	int err = net_add_address(r->net, c->ifindex, &c->address);

	if (err && err != -EEXIST)
		return err;
	if (net_announce(r->net, c->ifindex, &c->address))
		log_warn("announce", "object=%s", c->object);
	return 0;
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
		store_set_override(r->store, &o);
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

static int apply_table(struct reconciler *r, const struct change *c,
		       struct diag_list *diags)
{
	static const struct xlb_service no_service;

	switch (c->kind) {
	case CHANGE_LOAD:
		return load(r, diags);
	case CHANGE_BACKEND_SET:
		return set_backend(r, c);
	case CHANGE_DIRECT:
		return datapath_set_direct(r->dp, c->direct.items,
					   c->direct.count, NULL);
	case CHANGE_REPLIES:
		return datapath_set_replies(r->dp, c->replies.items,
					    c->replies.count, NULL);
	case CHANGE_SLOTS:
		datapath_write_slots(r->dp, c->slots.base, c->slots.words,
				     c->slots.count);
		return 0;
	case CHANGE_SERVICE_SET:
		return datapath_set_service(r->dp, c->id, &c->kernel_service);
	case CHANGE_SERVICE_CLEAR:
		return datapath_set_service(r->dp, c->id, &no_service);
	case CHANGE_VIPS:
		return datapath_set_vips(r->dp, c->vips);
	case CHANGE_BACKEND_CLEAR:
		return clear_backend(r, c);
	default:
		return -EINVAL;
	}
}

static int apply_node(struct reconciler *r, const struct change *c,
		      struct diag_list *diags)
{
	switch (c->kind) {
	case CHANGE_SYSCTL:
		return set_sysctl(r, c);
	case CHANGE_REPLY_ATTACH:
		return datapath_reply_attach(r->dp, c->ifindex, diags);
	case CHANGE_REPLY_DETACH:
		return datapath_reply_detach(r->dp, c->ifindex);
	case CHANGE_LINK_ATTACH:
		return datapath_attach(r->dp, c->name, c->ifindex, diags);
	case CHANGE_LINK_DETACH:
		return datapath_detach(r->dp, c->name);
	case CHANGE_ADDRESS_ADD:
		return add_address(r, c);
	case CHANGE_ADDRESS_DEL:
		return net_del_address(r->net, c->ifindex, &c->address);
	default:
		return -EINVAL;
	}
}

int apply_change(struct reconciler *r, const struct change *c,
		 struct diag_list *diags)
{
	switch (c->kind) {
	case CHANGE_LOAD:
	case CHANGE_BACKEND_SET:
	case CHANGE_DIRECT:
	case CHANGE_REPLIES:
	case CHANGE_SLOTS:
	case CHANGE_SERVICE_SET:
	case CHANGE_SERVICE_CLEAR:
	case CHANGE_VIPS:
	case CHANGE_BACKEND_CLEAR:
		return apply_table(r, c, diags);
	case CHANGE_SYSCTL:
	case CHANGE_REPLY_ATTACH:
	case CHANGE_REPLY_DETACH:
	case CHANGE_LINK_ATTACH:
	case CHANGE_LINK_DETACH:
	case CHANGE_ADDRESS_ADD:
	case CHANGE_ADDRESS_DEL:
		return apply_node(r, c, diags);
	case CHANGE_DRAIN:
		return drain_vm(r, c, true);
	case CHANGE_RESTORE:
		return drain_vm(r, c, false);
	case CHANGE_VM_CREATE:
		vm_order_create(r, c);
		return 0;
	case CHANGE_VM_START:
		vm_order_start(r, c);
		return 0;
	case CHANGE_VM_REPLACE:
		note_scaling(r, c, REASON_REPLACE);
		vm_order_remove(r, c, true);
		return 0;
	case CHANGE_VM_REMOVE:
		vm_order_remove(r, c, false);
		return 0;
	case CHANGE_SHOW:
	case CHANGE_KIND_COUNT:
		return 0;
	}
	return -EINVAL;
}
