/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The executor against libvirt's mock driver, and the XML it writes and
 * reads.  What the mock can't do is tested with real guests in tests/vm.
 */
#include <errno.h>
#include <libvirt/libvirt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "actual/libvirt_impl.h"

#define OWNER "0123456789abcdef"

static struct address_range ranges[] = {
	{ .prefix = 24 },
	{ .prefix = 64 },
};
static struct template_spec template;
static struct vm_order order;

static struct ip ip(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

static int set_order(void **state)
{
	(void)state;
	ranges[0].first = ip("10.77.0.10");
	ranges[1].first = ip("fd00:77::10");
	template = (struct template_spec){
		.name = "web",
		.kernel = "/boot/vmlinuz",
		.initrd = "/boot/initrd",
		.cmdline = "quiet \"a&b\" <c>",
		.memory = 96u << 20,
		.vcpus = 1,
		.network = { .bridge = "br0",
			     .ranges = ranges,
			     .range_count = 2,
			     .gateways = { ip("10.77.0.1"),
					   ip("fd00:77::1") } },
		.hash = "00112233445566ff",
	};
	order = (struct vm_order){ .template = &template,
				   .service = "web",
				   .index = 3,
				   .addresses = { ip("10.77.0.12"),
						  ip("fd00:77::12") } };
	vm_mac_from_address(&order.addresses[0], order.mac);
	return 0;
}

static const struct place qemu = { .kind = DOMAIN_QEMU,
				   .arch = "x86_64",
				   .owner = OWNER };
static const struct place lxc = { .kind = DOMAIN_LXC,
				  .arch = "x86_64",
				  .owner = OWNER };

static void assert_has(const struct buf *b, const char *part)
{
	if (!strstr(buf_str(b), part))
		fail_msg("no \"%s\" in\n%s", part, buf_str(b));
}

static void assert_lacks(const struct buf *b, const char *part)
{
	if (strstr(buf_str(b), part))
		fail_msg("\"%s\" in\n%s", part, buf_str(b));
}

static void test_mac(void **state)
{
	struct ip v4 = ip("10.77.0.12"), v6 = ip("fd00:77::12"),
		  other = ip("fd00:77::13");
	uint8_t a[6], b[6], c[6];

	(void)state;
	vm_mac_from_address(&v4, a);
	assert_memory_equal(a, "\x52\x54\x0a\x4d\x00\x0c", 6);
	vm_mac_from_address(&v6, b);
	vm_mac_from_address(&other, c);
	assert_memory_equal(b, "\x52\x54", 2);
	assert_memory_not_equal(b, c, 6);
	vm_mac_from_address(&v6, c);
	assert_memory_equal(b, c, 6);
}

static void test_kernel_xml(void **state)
{
	struct ip vips[] = { ip("192.0.2.10"), ip("2001:db8::10") };
	struct buf b AUTO_BUF = BUF_INIT;

	(void)state;
	order.vips = vips;
	order.vip_count = 2;
	domain_xml(&b, &order, &qemu, NULL, NULL);
	assert_has(&b, "<domain type='qemu'>");
	assert_has(&b, "<name>web-3</name>");
	assert_has(&b, "<kernel>/boot/vmlinuz</kernel>");
	assert_has(&b, "quiet &quot;a&amp;b&quot; &lt;c&gt; xlb.name=web-3 "
		       "xlb.ip=10.77.0.12/24,fd00:77::12/64 "
		       "xlb.gw=10.77.0.1,fd00:77::1 "
		       "xlb.vips=192.0.2.10,2001:db8::10</cmdline>");
	assert_has(&b, "<source bridge='br0'/>");
	assert_has(&b, "<mac address='52:54:0a:4d:00:0c'/>");
	assert_has(&b, "<on_crash>destroy</on_crash>");
	assert_lacks(&b, "<disk");
}

static void test_image_xml(void **state)
{
	struct buf b AUTO_BUF = BUF_INIT;

	(void)state;
	template.kernel = template.initrd = template.cmdline = NULL;
	template.image = "/images/web.qcow2";
	template.network.bridge = NULL;
	template.network.libvirt = "it's";
	domain_xml(&b, &order, &qemu, "/pool/web-3.xlb.qcow2",
		   "/pool/web-3.xlb.iso");
	assert_has(&b, "<source file='/pool/web-3.xlb.qcow2'/>");
	assert_has(&b, "<source file='/pool/web-3.xlb.iso'/>");
	assert_has(&b, "<readonly/>");
	assert_has(&b, "<source network='it&apos;s'/>");
	assert_lacks(&b, "<kernel>");
}

static void test_container_xml(void **state)
{
	struct buf b AUTO_BUF = BUF_INIT;

	(void)state;
	template.kernel = template.initrd = NULL;
	template.cmdline = "/usr/bin/server -p  80";
	domain_xml(&b, &order, &lxc, NULL, NULL);
	assert_has(&b, "<init>/usr/bin/server</init>\n"
		       "<initarg>-p</initarg>\n<initarg>80</initarg>");
	assert_has(&b, "<initenv name='XLB_NAME'>web-3</initenv>");
	assert_has(&b, "<ip family='ipv4' address='10.77.0.12' prefix='24'/>");
	assert_has(&b, "<ip family='ipv6' address='fd00:77::12' prefix='64'/>");
	assert_has(&b, "<route family='ipv4' address='0.0.0.0' prefix='0' "
		       "gateway='10.77.0.1'/>");
	assert_has(&b, "<readonly/>");
}

/* What we write about a VM is what we read. */
static void test_round_trip(void **state)
{
	struct buf b AUTO_BUF = BUF_INIT;
	struct vm vm;

	(void)state;
	domain_xml(&b, &order, &qemu, NULL, NULL);
	assert_int_equal(domain_parse(buf_str(&b), OWNER, &vm), 0);
	assert_string_equal(vm.name, "web-3");
	assert_string_equal(vm.service, "web");
	assert_int_equal(vm.index, 3);
	assert_string_equal(vm.template_hash, template.hash);
	assert_true(ip_equal(&vm.addresses[0], &order.addresses[0]));
	assert_true(ip_equal(&vm.addresses[1], &order.addresses[1]));
	assert_memory_equal(vm.mac, order.mac, 6);
	assert_int_equal(vm.vcpus, 1);
}

static void test_not_ours(void **state)
{
	static const char *const foreign[] = {
		/* no metadata; another owner; another namespace; a copy of one
		 * of ours under another name; no index */
		"<domain><name>web-3</name></domain>",
		"<domain><name>web-3</name><metadata><x:vm xmlns:x='urn:xlb:1' "
		"owner='fedcba9876543210' service='web' index='3'/></metadata>"
		"</domain>",
		"<domain><name>web-3</name><metadata><x:vm xmlns:x='urn:xlb:2' "
		"owner='" OWNER "' service='web' index='3'/></metadata>"
		"</domain>",
		"<domain><name>copy</name><metadata><x:vm xmlns:x='urn:xlb:1' "
		"owner='" OWNER "' service='web' index='3'/></metadata>"
		"</domain>",
		"<domain><name>web-3</name><metadata><x:vm xmlns:x='urn:xlb:1' "
		"owner='" OWNER "' service='web'/></metadata></domain>",
	};
	struct vm vm;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		assert_int_equal(domain_parse(foreign[i], OWNER, &vm), -ENOENT);
	assert_int_equal(domain_parse("<domain", OWNER, &vm), -EINVAL);
	assert_int_equal(domain_parse("<pool/>", OWNER, &vm), -EINVAL);
}

static void test_live_port(void **state)
{
	static const char xml[] =
		"<domain><name>web-3</name><uuid>u</uuid><vcpu>2</vcpu>"
		"<metadata><x:vm xmlns:x='urn:xlb:1' owner='" OWNER "' "
		"service='web' index='3'/></metadata><devices>"
		"<interface type='network'><mac address='52:54:0a:4d:00:0c'/>"
		"<source network='default' bridge='virbr0'/>"
		"<target dev='vnet7'/></interface></devices></domain>";
	char network[32];
	struct vm vm;

	(void)state;
	assert_int_equal(domain_parse(xml, OWNER, &vm), 0);
	assert_string_equal(vm.port, "vnet7");
	assert_int_equal(vm.vcpus, 2);
	assert_true(domain_network(xml, network, sizeof(network)));
	assert_string_equal(network, "default");
}

static void test_small_xml(void **state)
{
	struct buf b AUTO_BUF = BUF_INIT;

	(void)state;
	dhcp_host_xml(&b, "web-3", order.mac, &order.addresses[0]);
	assert_string_equal(b.data, "<host mac='52:54:0a:4d:00:0c' "
				    "name='web-3' ip='10.77.0.12'/>");
	buf_reset(&b);
	dhcp_host_xml(&b, "web-3", order.mac, &order.addresses[1]);
	assert_string_equal(b.data, "<host name='web-3' ip='fd00:77::12'/>");
	buf_reset(&b);
	volume_xml(&b, "web-3" DISK_SUFFIX, 0, "/a&b", "qcow2");
	assert_has(&b, "<path>/a&amp;b</path>");
	buf_reset(&b);
	xml_escape(&b, "a\x01"
		       "b\tc");
	assert_string_equal(b.data, "ab\tc");
}

/* Reserved addresses are passed over; a range that is full gives none. */
static void test_free_addresses(void **state)
{
	static const char xml[] =
		"<network><name>n</name>"
		"<ip address='10.1.0.1' prefix='24'><dhcp>"
		"<range start='10.1.0.5' end='10.1.0.7'/>"
		"<host mac='52:54:00:00:00:01' ip='10.1.0.5'/>"
		"<host mac='52:54:00:00:00:02' ip='10.1.0.6'/>"
		"</dhcp></ip>"
		"<ip family='ipv6' address='fd00::1' prefix='64'><dhcp>"
		"<range start='fd00::5' end='fd00::5'/>"
		"<host name='web-1' ip='fd00::5'/></dhcp></ip></network>";
	struct ip got[2] = { { 0 } }, want;

	(void)state;
	assert_int_equal(network_free_addresses(xml, got), 1);
	assert_true(ip_parse("10.1.0.7", &want));
	assert_true(ip_equal(&got[0], &want));
	assert_int_equal(got[1].family, 0);
	assert_int_equal(network_free_addresses("<network/>", got), 0);
	assert_int_equal(network_free_addresses("no xml", got), 0);
}

static void test_seed(void **state)
{
	struct buf b AUTO_BUF = BUF_INIT;
	struct why w;

	(void)state;
	seed_network_config(&b, &order);
	assert_string_equal(b.data,
			    "version: 2\nethernets:\n  xlb0:\n    match:\n"
			    "      macaddress: \"52:54:0a:4d:00:0c\"\n"
			    "    dhcp4: false\n    dhcp6: false\n"
			    "    addresses:\n      - \"10.77.0.12/24\"\n"
			    "      - \"fd00:77::12/64\"\n    routes:\n"
			    "      - to: \"0.0.0.0/0\"\n"
			    "        via: \"10.77.0.1\"\n"
			    "      - to: \"::/0\"\n"
			    "        via: \"fd00:77::1\"\n");
	buf_reset(&b);
	assert_int_equal(seed_iso(&b, &order, &w), 0);
	/* The primary volume descriptor and, at its byte 40, the label. */
	assert_true(b.len > 34816);
	assert_memory_equal(b.data + 32769, "CD001", 5);
	assert_memory_equal(b.data + 32768 + 40, "CIDATA", 6);
	template.cloud_init = "/nowhere/user-data";
	assert_int_equal(seed_iso(&b, &order, &w), -ENOENT);
	assert_non_null(strstr(w.text, "/nowhere/user-data"));
}

/* --- with the mock driver --- */

struct fixture {
	struct loop *loop;
	struct hypervisor *h;
	virConnectPtr conn; /* the same mock, seen from beside */
	int refreshed;
	int err;
	char why[512];
	bool done;
	char event_vm[64];
	enum vm_event event;
	int events;
	size_t stats;
};

static void on_refreshed(void *arg, struct hypervisor *h)
{
	struct fixture *f = arg;

	(void)h;
	f->refreshed++;
	loop_stop(f->loop);
}

static void on_event(void *arg, struct hypervisor *h, const char *vm,
		     enum vm_event event)
{
	struct fixture *f = arg;

	(void)h;
	snprintf(f->event_vm, sizeof(f->event_vm), "%s", vm);
	f->event = event;
	f->events++;
	loop_stop(f->loop);
}

static void on_done(void *arg, const char *vm, int err, const char *why,
		    uint64_t took)
{
	struct fixture *f = arg;

	(void)vm;
	assert_true(took > 0);
	f->err = err;
	snprintf(f->why, sizeof(f->why), "%s", why);
	f->done = true;
	loop_stop(f->loop);
}

static void on_stats(void *arg, const struct vm_stats *stats, size_t count)
{
	struct fixture *f = arg;

	f->stats = count;
	if (count) {
		assert_string_equal(stats[0].name, "web-3");
		assert_int_equal(stats[0].vcpus, 1);
	}
	f->done = true;
	loop_stop(f->loop);
}

static int connect_mock(void **state)
{
	static const struct hypervisor_events ev = { .refreshed = on_refreshed,
						     .event = on_event };
	struct hypervisor_spec spec = { .name = "mock",
					.uri = "test:///default" };
	struct fixture *f = mem_alloc(sizeof(*f));

	set_order(state);
	assert_int_equal(loop_new(&f->loop), 0);
	assert_int_equal(hypervisor_init(f->loop), 0);
	f->h = hypervisor_new(f->loop, &spec, OWNER, &ev, f);
	while (!f->refreshed)
		assert_int_equal(loop_run(f->loop), 0);
	f->conn = virConnectOpen("test:///default");
	assert_non_null(f->conn);
	*state = f;
	return 0;
}

static void stop(void *arg)
{
	loop_stop(arg);
}

static int disconnect_mock(void **state)
{
	struct fixture *f = *state;

	virConnectClose(f->conn);
	hypervisor_free(f->h);
	assert_true(hypervisor_end());
	/* What its worker had posted comes in and finds it gone. */
	loop_post(f->loop, stop, f->loop);
	assert_int_equal(loop_run(f->loop), 0);
	loop_free(f->loop);
	free(f);
	return 0;
}

static int finish(struct fixture *f)
{
	f->done = false;
	while (!f->done)
		assert_int_equal(loop_run(f->loop), 0);
	return f->err;
}

static size_t listed(struct fixture *f)
{
	size_t count;

	(void)hypervisor_vms(f->h, &count);
	return count;
}

static void test_mock_life(void **state)
{
	struct fixture *f = *state;
	char uuid[37];
	const struct vm *v;
	size_t count;

	/* The mock comes with a domain of its own, which isn't ours. */
	assert_int_equal(virConnectNumOfDomains(f->conn), 1);
	assert_int_equal(listed(f), 0);

	vm_create(f->h, &order, on_done, f);
	v = hypervisor_vms(f->h, &count);
	assert_int_equal(count, 1);
	assert_int_equal(v->state, VM_STARTING);
	assert_int_equal(finish(f), 0);
	v = hypervisor_vms(f->h, &count);
	assert_int_equal(count, 1);
	assert_int_equal(v->state, VM_RUNNING);
	assert_string_equal(v->name, "web-3");
	snprintf(uuid, sizeof(uuid), "%s", v->uuid);

	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), 0);
	v = hypervisor_vms(f->h, &count);
	assert_int_equal(count, 1);
	assert_string_equal(v->uuid, uuid);

	hypervisor_stats(f->h, on_stats, f);
	finish(f);
	assert_int_equal(f->stats, 1);

	/* Another template: what is there is replaced. */
	strcpy(template.hash, "ffffffffffffffff");
	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), 0);
	v = hypervisor_vms(f->h, &count);
	assert_int_equal(count, 1);
	assert_string_not_equal(v->uuid, uuid);

	vm_remove(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), 0);
	assert_int_equal(listed(f), 0);
	assert_null(virDomainLookupByName(f->conn, "web-3"));
	vm_remove(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), 0);
	assert_int_equal(virConnectNumOfDomains(f->conn), 1);
}

static void test_mock_foreign(void **state)
{
	static const char xml[] =
		"<domain type='test'><name>web-3</name><memory>1024</memory>"
		"<os><type>hvm</type></os></domain>";
	struct fixture *f = *state;
	virDomainPtr dom = virDomainDefineXML(f->conn, xml);

	assert_non_null(dom);
	hypervisor_refresh(f->h);
	f->refreshed = 0;
	while (!f->refreshed)
		assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(listed(f), 0);

	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), -EEXIST);
	assert_string_equal(f->why,
			    "a domain named web-3 exists and is not ours");
	assert_int_equal(listed(f), 0);
	vm_remove(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), -EEXIST);
	vm_start(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), -EEXIST);
	vm_shutdown(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), -EEXIST);
	assert_int_equal(virDomainIsActive(dom), 0);
	assert_int_equal(virDomainUndefine(dom), 0);
	virDomainFree(dom);
}

/* Somebody destroys it: told at once, and in the list already. */
static void test_mock_event(void **state)
{
	struct fixture *f = *state;
	const struct vm *v;
	virDomainPtr dom;
	size_t count;

	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), 0);
	dom = virDomainLookupByName(f->conn, "web-3");
	assert_non_null(dom);
	f->events = 0;
	assert_int_equal(virDomainDestroy(dom), 0);
	while (!f->events)
		assert_int_equal(loop_run(f->loop), 0);
	assert_string_equal(f->event_vm, "web-3");
	assert_int_equal(f->event, VM_EVENT_STOPPED);
	v = hypervisor_vms(f->h, &count);
	assert_int_equal(count, 1);
	assert_int_equal(v->state, VM_OFF);

	vm_start(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), 0);
	assert_int_equal(virDomainIsActive(dom), 1);
	virDomainFree(dom);
	vm_remove(f->h, "web-3", on_done, f);
	assert_int_equal(finish(f), 0);
}

static void test_mock_bad_orders(void **state)
{
	struct fixture *f = *state;

	template.kernel = NULL;
	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), -EINVAL);
	assert_non_null(strstr(f->why, "needs an image or a kernel"));
	assert_int_equal(listed(f), 0);
	template.image = "/images/none.qcow2";
	template.cloud_init = "/nowhere/user-data";
	vm_create(f->h, &order, on_done, f);
	assert_int_equal(finish(f), -ENOENT);
	assert_int_equal(listed(f), 0);
	/*
	 * The mock can't take an upload: the volume that was made before is
	 * gone, with its pool.
	 */
	template.cloud_init = NULL;
	vm_create(f->h, &order, on_done, f);
	assert_int_not_equal(finish(f), 0);
	assert_non_null(strstr(f->why, "upload"));
	assert_int_equal(listed(f), 0);
	assert_null(virStoragePoolLookupByName(f->conn, "xlb-" OWNER));
}

static void test_mock_sweep(void **state)
{
	struct buf xml AUTO_BUF = BUF_INIT;
	struct fixture *f = *state;
	virStoragePoolPtr pool;
	virStorageVolPtr vol;

	pool_xml(&xml, OWNER);
	pool = virStoragePoolDefineXML(f->conn, xml.data, 0);
	assert_non_null(pool);
	assert_int_equal(virStoragePoolCreate(pool, 0), 0);
	buf_reset(&xml);
	volume_xml(&xml, "web-9" DISK_SUFFIX, 1024, NULL, NULL);
	vol = virStorageVolCreateXML(pool, xml.data, 0);
	assert_non_null(vol);
	virStorageVolFree(vol);
	virStoragePoolFree(pool);
	vm_sweep_leftovers(f->h, on_done, f);
	assert_int_equal(finish(f), 0);
	assert_null(virStoragePoolLookupByName(f->conn, "xlb-" OWNER));
}

/* Freed with requests and an event under way: nothing is called after. */
static void test_mock_free_busy(void **state)
{
	struct fixture *f = *state;

	vm_create(f->h, &order, on_done, f);
	vm_remove(f->h, "web-3", on_done, f);
	hypervisor_refresh(f->h);
	f->done = false;
	hypervisor_free(f->h);
	f->h = NULL;
	assert_false(f->done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mac),
		cmocka_unit_test_setup(test_kernel_xml, set_order),
		cmocka_unit_test_setup(test_image_xml, set_order),
		cmocka_unit_test_setup(test_container_xml, set_order),
		cmocka_unit_test_setup(test_round_trip, set_order),
		cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_live_port),
		cmocka_unit_test_setup(test_small_xml, set_order),
		cmocka_unit_test(test_free_addresses),
		cmocka_unit_test_setup(test_seed, set_order),
		cmocka_unit_test_setup_teardown(test_mock_life, connect_mock,
						disconnect_mock),
		cmocka_unit_test_setup_teardown(test_mock_foreign, connect_mock,
						disconnect_mock),
		cmocka_unit_test_setup_teardown(test_mock_event, connect_mock,
						disconnect_mock),
		cmocka_unit_test_setup_teardown(test_mock_bad_orders,
						connect_mock, disconnect_mock),
		cmocka_unit_test_setup_teardown(test_mock_sweep, connect_mock,
						disconnect_mock),
		cmocka_unit_test_setup_teardown(test_mock_free_busy,
						connect_mock, disconnect_mock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
