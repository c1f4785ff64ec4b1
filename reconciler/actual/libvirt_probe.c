/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does kvm run guests here?  A /dev/kvm alone says nothing: there are hosts
 * whose kvm interprets every instruction (nested without hardware support),
 * slower than plain emulation, and others where it fails.  So a guest with
 * nothing but its firmware is started: where kvm works, the firmware finds
 * no disk and idles after some 50 ms of CPU time.
 */
#include "actual/libvirt_impl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROBE_BUDGET_NS 500000000ULL /* of CPU time until it idles */
#define PROBE_POLL_MS 100
#define PROBE_POLLS 100
#define IDLE_PERCENT 15

static bool offers_kvm(virConnectPtr conn, const char *arch)
{
	char *caps = virConnectGetDomainCapabilities(conn, NULL, arch, NULL,
						     "kvm", 0);
	bool offered = caps != NULL;

	free(caps);
	return offered;
}

static virDomainPtr start_probe(virConnectPtr conn, const char *arch,
				const char *owner)
{
	struct buf xml AUTO_BUF = BUF_INIT;

	buf_addf(&xml,
		 "<domain type='kvm'><name>" PROBE_PREFIX "%s-%d</name>"
		 "<memory unit='MiB'>16</memory><vcpu>1</vcpu>"
		 "<os><type arch='%s'>hvm</type></os>"
		 "<on_poweroff>destroy</on_poweroff>"
		 "<on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>"
		 "<devices><controller type='usb' model='none'/>"
		 "<memballoon model='none'/></devices></domain>",
		 owner, getpid(), arch);
	/* Ends with the connection, should we not get to end it. */
	return virDomainCreateXML(conn, buf_str(&xml),
				  VIR_DOMAIN_START_AUTODESTROY);
}

/* CPU time of the vcpu in ns; false: the guest doesn't run. */
static bool vcpu_time(virDomainPtr dom, uint64_t *ret)
{
	virDomainPtr doms[] = { dom, NULL };
	virDomainStatsRecordPtr *records = NULL;
	unsigned long long ns = 0;
	int state = VIR_DOMAIN_NOSTATE;
	bool ok = false;

	if (virDomainListGetStats(
		    doms, VIR_DOMAIN_STATS_STATE | VIR_DOMAIN_STATS_VCPU,
		    &records, 0) == 1) {
		virTypedParamsGetInt(records[0]->params, records[0]->nparams,
				     "state.state", &state);
		ok = virTypedParamsGetULLong(records[0]->params,
					     records[0]->nparams, "vcpu.0.time",
					     &ns) == 1;
	}
	virDomainStatsRecordListFree(records);
	*ret = ns;
	return ok && state == VIR_DOMAIN_RUNNING;
}

static bool idles_soon(virDomainPtr dom)
{
	uint64_t before = 0, now = 0;
	struct timespec pause = { 0, PROBE_POLL_MS * 1000000L };

	if (!vcpu_time(dom, &before))
		return false;
	for (int i = 0; i < PROBE_POLLS; i++) {
		nanosleep(&pause, NULL);
		if (!vcpu_time(dom, &now) || now > PROBE_BUDGET_NS)
			return false;
		if (now > 0 &&
		    now - before < PROBE_POLL_MS * 10000ULL * IDLE_PERCENT)
			return true;
		before = now;
	}
	return false;
}

enum domain_kind probe_kind(virConnectPtr conn, const char *arch,
			    const char *owner)
{
	const char *type = virConnectGetType(conn);
	virDomainPtr dom;
	bool works;

	if (type && !strcasecmp(type, "LXC"))
		return DOMAIN_LXC;
	if (type && !strcasecmp(type, "Test"))
		return DOMAIN_TEST;
	if (!offers_kvm(conn, arch))
		return DOMAIN_QEMU;
	dom = start_probe(conn, arch, owner);
	if (!dom)
		return DOMAIN_QEMU;
	works = idles_soon(dom);
	virDomainDestroy(dom);
	virDomainFree(dom);
	return works ? DOMAIN_KVM : DOMAIN_QEMU;
}
