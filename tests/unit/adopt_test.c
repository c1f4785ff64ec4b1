/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which domains fit which pool, and what is read of their XML. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "actual/libvirt_impl.h"
#include "plan/adopt.h"

static char kernel[] = "/boot/vmlinuz", initrd[] = "/boot/initrd";
static char bridge[] = "br0", image[] = "/images/web.qcow2";
static char overlay[] = "/images/one.qcow2", init[] = "/bin/server";
static char other[] = "/elsewhere";

static struct vip_spec vips[2];
static struct template_spec template;
static struct service_spec service;
static struct foreign domain;

static struct ip ip(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

static int set_up(void **state)
{
	(void)state;
	vips[0].address = ip("192.0.2.10");
	vips[1].address = ip("2001:db8::10");
	template = (struct template_spec){ .kernel = kernel,
					   .initrd = initrd,
					   .memory = 96u << 20,
					   .vcpus = 2,
					   .network = { .bridge = bridge } };
	service = (struct service_spec){ .name = "web",
					 .vips = vips,
					 .vip_count = 2,
					 .pool = { .template = &template } };
	domain = (struct foreign){ .type = "kvm",
				   .persistent = true,
				   .memory = 96u << 20,
				   .vcpus = 2,
				   .kernel = kernel,
				   .initrd = initrd,
				   .bridge = bridge,
				   .addresses = { ip("10.77.0.30"),
						  ip("fd00:77::30") } };
	return 0;
}

static void fits(void)
{
	char why[ADOPT_WHY] = "";

	if (!adopt_fits(&domain, domain.addresses, &service, why))
		fail_msg("%s", why);
}

static void fails(const char *because)
{
	char why[ADOPT_WHY] = "";

	assert_false(adopt_fits(&domain, domain.addresses, &service, why));
	if (!strstr(why, because))
		fail_msg("\"%s\" doesn't say \"%s\"", why, because);
	set_up(NULL);
}

static void test_machine(void **state)
{
	(void)state;
	fits();
	domain.memory = 95u << 20;
	fails("95 MiB, not 96 MiB");
	domain.vcpus = 1;
	fails("1 vcpus, not 2");
	domain.kernel = other;
	fails("/elsewhere, not /boot/vmlinuz");
	domain.initrd = NULL;
	fails("none, not /boot/initrd");
	domain.persistent = false;
	fails("transient");
	domain.bridge = NULL;
	domain.network = bridge;
	fails("bridge of its first interface is none, not br0");
	strcpy(domain.type, "lxc");
	fails("container");
}

static void test_image(void **state)
{
	(void)state;
	template.kernel = template.initrd = NULL;
	template.image = image;
	domain.kernel = domain.initrd = NULL;
	domain.disk = overlay;
	domain.image = image;
	fits();
	domain.image = other;
	fails("no overlay of /images/web.qcow2");
	template.kernel = template.initrd = NULL;
	template.image = image;
	domain.kernel = domain.initrd = NULL;
	domain.disk = image;
	fails("the image itself");
}

static void test_container(void **state)
{
	(void)state;
	template.kernel = template.initrd = NULL;
	template.cmdline = "/bin/server -p 80";
	strcpy(domain.type, "lxc");
	domain.kernel = domain.initrd = NULL;
	domain.init = init;
	fits();
	template.cmdline = "/bin/serve -p 80";
	fails("/bin/server, not /bin/serve");
}

static void test_addresses(void **state)
{
	(void)state;
	domain.addresses[1].family = 0;
	fails("IPv6 address isn't known");
	domain.addresses[0].family = 0;
	fails("IPv4 address isn't known");
	/* Only what the VIPs need; and either, where packets go inside. */
	service.vip_count = 1;
	domain.addresses[1].family = 0;
	fits();
	set_up(NULL);
	service.forwarding = FORWARDING_IPIP;
	domain.addresses[0].family = 0;
	fits();
	domain.addresses[1].family = 0;
	service.forwarding = FORWARDING_GUE;
	fails("address isn't known");
}

#define OWNER "0123456789abcdef"

static void test_xml(void **state)
{
	const char *xml =
		"<domain type='qemu'><name>old</name>"
		"<metadata><xlb:vm xmlns:xlb='urn:xlb:1' owner='fedc' "
		"service='web' index='4' adopted='old'><address>10.0.0.9"
		"</address></xlb:vm></metadata><memory unit='KiB'>98304"
		"</memory><vcpu>2</vcpu><os><type>hvm</type><kernel>/k"
		"</kernel></os><devices><disk type='file'><source file='/d'/>"
		"<backingStore type='file'><source file='/i'/></backingStore>"
		"</disk><interface type='bridge'><mac "
		"address='52:54:00:00:00:01'/><source bridge='br9'/><ip "
		"family='ipv6' address='fd00::9' prefix='64'/></interface>"
		"</devices></domain>";
	struct foreign f = { 0 };
	struct vm vm;

	(void)state;
	assert_int_equal(foreign_parse(xml, &f), 0);
	assert_string_equal(f.name, "old");
	assert_string_equal(f.type, "qemu");
	assert_string_equal(f.owner, "fedc");
	assert_int_equal(f.memory, 96u << 20);
	assert_int_equal(f.vcpus, 2);
	assert_string_equal(f.kernel, "/k");
	assert_null(f.initrd);
	assert_string_equal(f.disk, "/d");
	assert_string_equal(f.image, "/i");
	assert_string_equal(f.bridge, "br9");
	assert_int_equal(f.mac[5], 1);
	assert_true(ip_equal(&f.addresses[0], &(struct ip){ 0 }) == false);
	assert_int_equal(f.addresses[0].bytes[3], 9);
	assert_int_equal(f.addresses[1].family, AF_INET6);
	/* Its owner's, under the name that it was adopted with. */
	assert_int_equal(domain_parse(xml, "fedc", &vm), 0);
	assert_true(vm.adopted);
	assert_string_equal(vm.name, "old");
	assert_int_equal(vm.index, 4);
	assert_int_equal(domain_parse(xml, OWNER, &vm), -ENOENT);
	free(f.kernel);
	free(f.disk);
	free(f.image);
	free(f.bridge);
	assert_int_equal(foreign_parse("<pool/>", &f), -EINVAL);
}

/* A copy made by hand has the metadata, and another name. */
static void test_copy(void **state)
{
	const char *xml =
		"<domain type='qemu'><name>copy</name><metadata><xlb:vm "
		"xmlns:xlb='urn:xlb:1' owner='fedc' service='web' index='4' "
		"adopted='old'/></metadata></domain>";
	struct vm vm;

	(void)state;
	assert_int_equal(domain_parse(xml, "fedc", &vm), -ENOENT);
}

static void test_metadata(void **state)
{
	struct vm_order o = { .template = &template,
			      .service = "web",
			      .index = 7,
			      .addresses = { ip("10.77.0.30") } };
	struct buf xml AUTO_BUF = BUF_INIT;

	(void)state;
	strcpy(template.hash, "00ff");
	adopted_xml(&xml, &o, OWNER, "a&b");
	assert_string_equal(buf_str(&xml),
			    "<vm owner='" OWNER "' service='web' index='7' "
			    "template='00ff' adopted='a&amp;b'><address>"
			    "10.77.0.30</address></vm>");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_machine, set_up),
		cmocka_unit_test_setup(test_image, set_up),
		cmocka_unit_test_setup(test_container, set_up),
		cmocka_unit_test_setup(test_addresses, set_up),
		cmocka_unit_test_setup(test_xml, set_up),
		cmocka_unit_test_setup(test_copy, set_up),
		cmocka_unit_test_setup(test_metadata, set_up),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
