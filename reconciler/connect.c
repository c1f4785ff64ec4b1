/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pipeline.h"

bool same_hypervisor(const struct hypervisor *h,
		     const struct hypervisor_spec *s)
{
	return !strcmp(hypervisor_name(h), s->name) &&
	       !strcmp(hypervisor_uri(h), s->uri);
}

static void on_refreshed(void *arg, struct hypervisor *h)
{
	vms_observe(arg, h);
	reconcile_soon(arg);
}

static void on_vm_event(void *arg, struct hypervisor *h, const char *vm,
			enum vm_event event)
{
	vms_event(arg, h, vm, event);
}

static void swept(void *arg, const char *vm, int err, const char *why,
		  uint64_t took)
{
	(void)arg, (void)vm, (void)took;
	if (err)
		log_warn("sweep", "result=failed why=\"%s\"", why);
}

/* A create that was killed may have left a disk that no domain names. */
static void on_connected(void *arg, struct hypervisor *h, bool up,
			 const char *why)
{
	struct reconciler *r = arg;

	log_info("hypervisor", "name=%s connected=%d why=\"%s\"",
		 hypervisor_name(h), up, why ? why : "");
	if (up && !r->read_only)
		vm_sweep_leftovers(h, swept, r);
	reconcile_soon(r);
}

/* Those that the list still has. */
void close_hypervisors(struct reconciler *r)
{
	for (size_t i = 0; i < r->hypervisor_count; i++) {
		if (!r->hypervisors[i])
			continue;
		vms_forget(r, r->hypervisors[i]);
		scaling_forget(r, r->hypervisors[i]);
		hypervisor_free(r->hypervisors[i]);
	}
	free(r->hypervisors);
	r->hypervisors = NULL;
	r->hypervisor_count = 0;
}

/* Keep the connections that are still declared, open and close the others. */
void connect_hypervisors(struct reconciler *r, const struct spec *spec)
{
	static const struct hypervisor_events events = { on_refreshed,
							 on_vm_event,
							 on_connected };
	struct hypervisor **list =
		mem_array(spec->hypervisor_count, sizeof(struct hypervisor *));

	for (size_t i = 0; i < spec->hypervisor_count; i++) {
		for (size_t k = 0; k < r->hypervisor_count; k++) {
			if (!r->hypervisors[k] ||
			    !same_hypervisor(r->hypervisors[k],
					     &spec->hypervisors[i]))
				continue;
			list[i] = r->hypervisors[k];
			r->hypervisors[k] = NULL;
		}
		if (!list[i])
			list[i] = hypervisor_new(r->loop, &spec->hypervisors[i],
						 r->owner, &events, r);
	}
	close_hypervisors(r);
	r->hypervisors = list;
	r->hypervisor_count = spec->hypervisor_count;
}
