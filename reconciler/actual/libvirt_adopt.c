/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "actual/adoption.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "actual/libvirt_impl.h"
#include "base/seam.h"

struct adoption {
	virConnectPtr conn;
};

static void be_quiet(void *arg, virErrorPtr error)
{
	(void)arg, (void)error;
}

static int tell(char why[512], const struct why *w, int err)
{
	snprintf(why, 512, "%s", w->text);
	return err;
}

int adoption_open(const char *uri, struct adoption **ret, char why[512])
{
	virConnectPtr conn;
	struct why w;

	virSetErrorFunc(NULL, be_quiet);
	conn = virConnectOpen(uri);
	if (!conn)
		return tell(why, &w, why_libvirt(&w, uri));
	*ret = mem_alloc(sizeof(**ret));
	(*ret)->conn = conn;
	return 0;
}

void adoption_close(struct adoption *a)
{
	if (a)
		virConnectClose(a->conn);
	free(a);
}

/* ---- what there is ---- */

static void foreign_clear(struct foreign *f)
{
	char *texts[] = { f->kernel, f->initrd, f->init,   f->disk,
			  f->image,  f->bridge, f->network };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		free(texts[i]);
}

void foreign_free(struct foreign *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		foreign_clear(&list[i]);
	free(list);
}

/* Of a disk whose domain's XML doesn't say, its pool may know. */
static void find_image(struct adoption *a, struct foreign *f)
{
	virStorageVolPtr vol;
	char *xml;

	if (!f->disk || f->image)
		return;
	vol = virStorageVolLookupByPath(a->conn, f->disk);
	xml = vol ? virStorageVolGetXMLDesc(vol, 0) : NULL;
	if (xml)
		f->image = volume_backing(xml);
	free(xml);
	if (vol)
		virStorageVolFree(vol);
}

static bool is_link_local(const struct ip *a)
{
	return a->family == AF_INET6 && a->bytes[0] == 0xfe &&
	       (a->bytes[1] & 0xc0) == 0x80;
}

/* What a DHCP server of libvirt's has given it. */
static void find_leases(virDomainPtr dom, struct foreign *f)
{
	virDomainInterfacePtr *list = NULL;
	int count =
		f->running
			? virDomainInterfaceAddresses(
				  dom, &list,
				  VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0)
			: 0;

	for (int i = 0; i < count; i++) {
		for (unsigned int k = 0; k < list[i]->naddrs; k++) {
			struct ip a;

			if (!ip_parse(list[i]->addrs[k].addr, &a) ||
			    is_link_local(&a) ||
			    f->addresses[a.family == AF_INET6].family)
				continue;
			f->addresses[a.family == AF_INET6] = a;
		}
		virDomainInterfaceFree(list[i]);
	}
	free(list);
}

static int read_foreign(struct adoption *a, virDomainPtr dom, const char *owner,
			struct foreign *f)
{
	char *xml = virDomainGetXMLDesc(dom, 0);
	struct vm vm;
	int err = xml ? foreign_parse(xml, f) : -ENOENT;

	if (!err && !domain_parse(xml, owner, &vm)) {
		f->ours = true;
		snprintf(f->service, sizeof(f->service), "%s", vm.service);
		f->index = vm.index;
	}
	free(xml);
	if (err)
		return err;
	f->running = virDomainIsActive(dom) == 1;
	f->persistent = virDomainIsPersistent(dom) == 1;
	find_image(a, f);
	find_leases(dom, f);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct foreign *)a)->name,
		      ((const struct foreign *)b)->name);
}

int adoption_list(struct adoption *a, const char *owner, struct foreign **ret,
		  size_t *ret_count, char why[512])
{
	virDomainPtr *doms = NULL;
	int count = virConnectListAllDomains(a->conn, &doms, 0);
	struct foreign *list = NULL;
	size_t found = 0;
	struct why w;

	if (count < 0)
		return tell(why, &w, why_libvirt(&w, "list of domains"));
	for (int i = 0; i < count; i++) {
		struct foreign f = { 0 };

		/* One that has just gone is none. */
		if (!read_foreign(a, doms[i], owner, &f) &&
		    strncmp(f.name, PROBE_PREFIX, strlen(PROBE_PREFIX)) != 0)
			*MEM_PUSH(list, found) = f;
		else
			foreign_clear(&f);
		virDomainFree(doms[i]);
	}
	free(doms);
	if (found)
		qsort(list, found, sizeof(*list), by_name);
	*ret = list;
	*ret_count = found;
	return 0;
}

/* ---- taking over ---- */

static unsigned int affects(virDomainPtr dom)
{
	return VIR_DOMAIN_AFFECT_CONFIG |
	       (virDomainIsActive(dom) == 1 ? VIR_DOMAIN_AFFECT_LIVE : 0);
}

/* Only what is off can be renamed, and not by every driver. */
static void rename_off(virDomainPtr dom, const struct vm_order *o)
{
	char name[64];

	vm_name(o->service, o->index, name);
	if (virDomainIsActive(dom) == 0 &&
	    strcmp(virDomainGetName(dom), name) != 0)
		virDomainRename(dom, name, 0);
}

int adoption_take(struct adoption *a, const char *domain,
		  const struct vm_order *o, const char *owner, char *ret_name,
		  char why[512])
{
	struct buf xml AUTO_BUF = BUF_INIT;
	virDomainPtr dom = virDomainLookupByName(a->conn, domain);
	struct why w;
	int err = 0;

	if (!dom)
		return tell(why, &w, why_libvirt(&w, domain));
	seam_change("adoption_take");
	rename_off(dom, o);
	snprintf(ret_name, 64, "%s", virDomainGetName(dom));
	adopted_xml(&xml, o, owner, ret_name);
	if (virDomainSetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT,
				 buf_str(&xml), "xlb", VM_NAMESPACE,
				 affects(dom)))
		err = tell(why, &w, why_libvirt(&w, domain));
	virDomainFree(dom);
	return err;
}

int adoption_release(struct adoption *a, const char *domain, const char *owner,
		     char why[512])
{
	virDomainPtr dom = virDomainLookupByName(a->conn, domain);
	char *xml = dom ? virDomainGetXMLDesc(dom, 0) : NULL;
	struct why w = { "" };
	struct vm vm;
	int err = -ENOENT;

	if (xml && !domain_parse(xml, owner, &vm) && vm.adopted) {
		seam_change("adoption_release");
		err = domain_release(dom, &w);
	}
	free(xml);
	if (dom)
		virDomainFree(dom);
	return tell(why, &w, err);
}
