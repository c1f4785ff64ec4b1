/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests in one of libvirt's own networks ask its DHCP server: there the
 * address that we chose is reserved for them.  A network without DHCP has no
 * place for that, so a failure is said and the VM is made all the same.
 */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static int update(virNetworkPtr net, unsigned int command, const char *vm,
		  const uint8_t mac[6], const struct ip *a)
{
	struct buf xml AUTO_BUF = BUF_INIT;
	unsigned int flags = VIR_NETWORK_UPDATE_AFFECT_CONFIG;

	if (virNetworkIsActive(net) == 1)
		flags |= VIR_NETWORK_UPDATE_AFFECT_LIVE;
	dhcp_host_xml(&xml, vm, mac, a);
	return virNetworkUpdate(net, command, VIR_NETWORK_SECTION_IP_DHCP_HOST,
				-1, buf_str(&xml), flags);
}

int network_allocate(struct place *p, struct vm_order *o, struct why *w)
{
	const char *name = o->template->network.libvirt;
	virNetworkPtr net = virNetworkLookupByName(p->conn, name);
	char *xml = net ? virNetworkGetXMLDesc(net, 0) : NULL;
	int err = 0;

	if (!xml)
		err = why_libvirt(w, name);
	else if (!network_free_addresses(xml, o->addresses))
		err = why_set(w, -EADDRNOTAVAIL,
			      "network %s has no free address in a DHCP range",
			      name);
	else
		vm_mac_from_address(
			&o->addresses[o->addresses[0].family ? 0 : 1], o->mac);
	free(xml);
	if (net)
		virNetworkFree(net);
	return err;
}

void network_reserve(struct place *p, const struct vm_order *o)
{
	const char *name = o->template->network.libvirt;
	virNetworkPtr net = name ? virNetworkLookupByName(p->conn, name) : NULL;
	struct why w;
	char vm[64];

	if (!net)
		return;
	vm_name(o->service, o->index, vm);
	for (size_t i = 0; i < ARRAY_SIZE(o->addresses); i++) {
		const struct ip *a = &o->addresses[i];

		if (!a->family)
			continue;
		/* One that an interrupted create left would be in the way. */
		(void)update(net, VIR_NETWORK_UPDATE_COMMAND_DELETE, vm, o->mac,
			     a);
		if (update(net, VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, vm, o->mac,
			   a)) {
			why_libvirt(&w, name);
			log_warn("dhcp_reservation", "vm=%s why=\"%s\"", vm,
				 w.text);
		}
	}
	virNetworkFree(net);
}

void network_release(struct place *p, const char *network, const struct vm *vm)
{
	virNetworkPtr net = virNetworkLookupByName(p->conn, network);

	if (!net)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(vm->addresses); i++)
		if (vm->addresses[i].family)
			(void)update(net, VIR_NETWORK_UPDATE_COMMAND_DELETE,
				     vm->name, vm->mac, &vm->addresses[i]);
	virNetworkFree(net);
}
