/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The executor with real guests: emulated machines and containers. */
#include <dirent.h>
#include <sys/stat.h>

#include "../lib/vmtest.h"

static struct lab lab;
static struct seen qemu, lxc;

static struct address_range ranges[] = {
	{ .prefix = 24 },
	{ .prefix = 64 },
};
static char kernel[PATH_MAX + 32], initrd[PATH_MAX + 32];
static char server[PATH_MAX + 64];

static struct ip ip(const char *text)
{
	struct ip a;

	assert_true(ip_parse(text, &a));
	return a;
}

/* A template of the kind, and an order of web-<index> from it. */
static struct template_spec base_template(const char *name)
{
	ranges[0].first = ip("10.77.0.10");
	ranges[1].first = ip("fd00:77::10");
	return (struct template_spec){
		.name = name,
		.memory = 96u << 20,
		.vcpus = 1,
		.network = { .bridge = "br0",
			     .ranges = ranges,
			     .range_count = 2,
			     .gateways = { ip("10.77.0.1"),
					   ip("fd00:77::1") } },
		.hash = "00112233445566ff",
	};
}

static struct template_spec guest_template(void)
{
	struct template_spec t = base_template("guest");

	snprintf(kernel, sizeof(kernel), "%s/build/guest/vmlinuz", lab.top);
	snprintf(initrd, sizeof(initrd), "%s/build/guest/initrd", lab.top);
	t.kernel = kernel;
	t.initrd = initrd;
	t.cmdline = "quiet console=ttyS0 panic=-1 cryptomgr.notests";
	return t;
}

static struct template_spec container_template(void)
{
	struct template_spec t = base_template("container");

	snprintf(server, sizeof(server), "%s/build/xlb-backend -p 80 -u 9000",
		 lab.top);
	t.cmdline = server;
	return t;
}

static struct vm_order order_of(const struct template_spec *t, uint32_t index)
{
	struct vm_order o = { .template = t, .service = "web", .index = index };
	char text[64];

	snprintf(text, sizeof(text), "10.77.0.%u", 10 + index);
	o.addresses[0] = ip(text);
	snprintf(text, sizeof(text), "fd00:77::%u", 10 + index);
	o.addresses[1] = ip(text);
	vm_mac_from_address(&o.addresses[0], o.mac);
	return o;
}

static int create(struct seen *s, const struct vm_order *o)
{
	vm_create(s->h, o, seen_done, s);
	return seen_wait(s, "create");
}

static int remove_vm(struct seen *s, const char *name)
{
	int err;

	/* As the reconciler does: a lost connection is waited for. */
	for (int i = 0; i < 3; i++) {
		vm_remove(s->h, name, seen_done, s);
		err = seen_wait(s, "remove");
		if (err != -ENOTCONN)
			break;
		lab_until(&lab, is_up, s, "a new connection");
	}
	return err;
}

static size_t domain_count(const char *uri)
{
	virConnectPtr conn = virConnectOpen(uri);
	int n = virConnectListAllDomains(conn, NULL, 0);

	assert_true(n >= 0);
	virConnectClose(conn);
	return (size_t)n;
}

/* The pool's folder, as it stands outside of libvirtd's namespace. */
static bool pool_exists(void)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/lib/xlb/" OWNER, lab.dir);
	return !access(path, F_OK);
}

static void assert_nothing_left(const char *uri)
{
	assert_int_equal(domain_count(uri), 0);
	assert_false(pool_exists());
}

/* Others may run a VM of that name too: ours is in our network namespace. */
static bool is_in_our_netns(const char *pid)
{
	char path[64];
	struct stat own, other;

	snprintf(path, sizeof(path), "/proc/%.20s/ns/net", pid);
	return !stat("/proc/self/ns/net", &own) && !stat(path, &other) &&
	       own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

/* Process of the emulator of a VM, found by what stands on its line; or 0. */
static pid_t emulator_pid(const char *what)
{
	char path[64], line[4096];
	struct dirent *e;
	pid_t found = 0;
	DIR *d = opendir("/proc");
	ssize_t n;
	int fd;

	assert_non_null(d);
	while (!found && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%.20s/cmdline", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : -1;
		if (fd >= 0)
			close(fd);
		for (ssize_t i = 0; i < n; i++)
			line[i] = line[i] ? line[i] : ' ';
		line[n > 0 ? n : 0] = '\0';
		if (strstr(line, "qemu-system") && strstr(line, what) &&
		    is_in_our_netns(e->d_name))
			found = (pid_t)atoi(e->d_name);
	}
	closedir(d);
	return found;
}

struct event_wait {
	struct seen *s;
	enum vm_event a, b;
};

static bool has_event(void *arg)
{
	struct event_wait *w = arg;

	return w->s->event_is[w->a] || w->s->event_is[w->b];
}

static void wait_event(struct seen *s, enum vm_event a, enum vm_event b)
{
	struct event_wait w = { s, a, b };

	lab_until(&lab, has_event, &w, "an event");
}

static void test_guest_serves(void **state)
{
	struct template_spec t = guest_template();
	struct vm_order o = order_of(&t, 1);
	uint64_t start = clock_ns();
	const struct vm *v;
	char uuid[37];

	(void)state;
	assert_int_equal(create(&qemu, &o), 0);
	v = seen_vm(&qemu, "web-1");
	assert_non_null(v);
	assert_int_equal(v->state, VM_RUNNING);
	assert_true(v->port[0]);
	assert_int_equal(sh("ip -o link show dev %s | grep -q 'master br0'",
			    v->port),
			 0);
	snprintf(uuid, sizeof(uuid), "%s", v->uuid);
	http_wait("10.77.0.11", 80, "web-1");
	print_message("# guest: create %.2f s, to its first answer %.2f s\n",
		      (double)qemu.took / 1e9,
		      (double)(clock_ns() - start) / 1e9);
	http_wait("fd00:77::11", 8080, "web-1");

	/* Asked again, it is found as it is. */
	assert_int_equal(create(&qemu, &o), 0);
	assert_string_equal(seen_vm(&qemu, "web-1")->uuid, uuid);
}

static void test_guest_cpu(void **state)
{
	char text[256];
	uint64_t before;

	(void)state;
	hypervisor_stats(qemu.h, seen_stats, &qemu);
	seen_wait(&qemu, "statistics");
	assert_int_equal(qemu.stats_count, 1);
	assert_string_equal(qemu.stats_name[0], "web-1");
	assert_int_equal(qemu.stats[0].vcpus, 1);
	before = qemu.stats[0].cpu_ns;
	assert_true(before > 0);
	assert_true(http_get("10.77.0.11", 80, "/burn/50", text, sizeof(text)) >
		    0);
	hypervisor_stats(qemu.h, seen_stats, &qemu);
	seen_wait(&qemu, "statistics");
	assert_true(qemu.stats[0].cpu_ns > before);
}

static bool is_down(void *arg)
{
	return ((struct seen *)arg)->downs > 0;
}

/* libvirtd is killed and comes back: its guests live on, and we find them. */
static void test_reconnect(void **state)
{
	const struct vm *v = seen_vm(&qemu, "web-1");
	char port[16], uuid[37];

	(void)state;
	assert_non_null(v);
	snprintf(port, sizeof(port), "%s", v->port);
	snprintf(uuid, sizeof(uuid), "%s", v->uuid);
	qemu.downs = 0;
	assert_int_equal(kill(lab.libvirtd, SIGUSR1), 0);
	lab_until(&lab, is_down, &qemu, "the loss of the connection");
	assert_false(hypervisor_is_connected(qemu.h));
	http_wait("10.77.0.11", 80, "web-1");
	lab_until(&lab, is_up, &qemu, "a new connection");
	lab_until(&lab, is_up, &lxc, "a new connection");
	v = seen_vm(&qemu, "web-1");
	assert_non_null(v);
	assert_int_equal(v->state, VM_RUNNING);
	assert_string_equal(v->uuid, uuid);
	assert_string_equal(v->port, port);
}

static void test_guest_killed(void **state)
{
	pid_t pid = emulator_pid("guest=web-1");

	(void)state;
	assert_true(pid > 0);
	memset(qemu.event_is, 0, sizeof(qemu.event_is));
	assert_int_equal(kill(pid, SIGKILL), 0);
	wait_event(&qemu, VM_EVENT_STOPPED, VM_EVENT_CRASHED);
	assert_string_equal(qemu.event_vm, "web-1");
	assert_int_not_equal(seen_vm(&qemu, "web-1")->state, VM_RUNNING);
	assert_string_equal(seen_vm(&qemu, "web-1")->port, "");

	vm_start(qemu.h, "web-1", seen_done, &qemu);
	assert_int_equal(seen_wait(&qemu, "start"), 0);
	http_wait("10.77.0.11", 80, "web-1");
}

static void test_guest_shutdown(void **state)
{
	(void)state;
	memset(qemu.event_is, 0, sizeof(qemu.event_is));
	vm_shutdown(qemu.h, "web-1", seen_done, &qemu);
	assert_int_equal(seen_vm(&qemu, "web-1")->state, VM_STOPPING);
	assert_int_equal(seen_wait(&qemu, "shutdown"), 0);
	wait_event(&qemu, VM_EVENT_STOPPED, VM_EVENT_STOPPED);
	assert_int_equal(seen_vm(&qemu, "web-1")->state, VM_OFF);
	assert_int_equal(remove_vm(&qemu, "web-1"), 0);
	assert_null(seen_vm(&qemu, "web-1"));
	assert_nothing_left(lab.qemu);
}

static void test_foreign(void **state)
{
	static const char xml[] =
		"<domain type='qemu'><name>web-2</name>"
		"<memory unit='MiB'>16</memory><os><type>hvm</type></os>"
		"</domain>";
	struct template_spec t = guest_template();
	struct vm_order o = order_of(&t, 2);
	virConnectPtr conn = virConnectOpen(lab.qemu);
	virDomainPtr dom = virDomainDefineXML(conn, xml);

	(void)state;
	assert_non_null(dom);
	assert_int_equal(virDomainCreate(dom), 0);
	seen_refresh(&qemu);
	assert_null(seen_vm(&qemu, "web-2"));
	assert_int_equal(create(&qemu, &o), -EEXIST);
	assert_string_equal(qemu.why,
			    "a domain named web-2 exists and is not ours");
	assert_int_equal(remove_vm(&qemu, "web-2"), -EEXIST);
	vm_sweep_leftovers(qemu.h, seen_done, &qemu);
	assert_int_equal(seen_wait(&qemu, "sweep"), 0);
	assert_int_equal(virDomainIsActive(dom), 1);
	assert_int_equal(virDomainDestroy(dom), 0);
	assert_int_equal(virDomainUndefine(dom), 0);
	virDomainFree(dom);
	virConnectClose(conn);
	assert_nothing_left(lab.qemu);
}

/* A template with a disk; nothing on it boots, and nothing needs to. */
static struct template_spec disk_template(void)
{
	static char image[96];
	struct template_spec t = base_template("disk");

	snprintf(image, sizeof(image), "%s/base.img", lab.dir);
	assert_int_equal(sh("truncate -s 4M '%s'", image), 0);
	t.image = image;
	t.memory = 32u << 20;
	return t;
}

static void test_disk_goes_too(void **state)
{
	struct template_spec t = disk_template();
	struct vm_order o = order_of(&t, 4);
	char path[200];

	(void)state;
	assert_int_equal(create(&qemu, &o), 0);
	snprintf(path, sizeof(path), "%s/lib/xlb/" OWNER "/web-4" DISK_SUFFIX,
		 lab.dir);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(
		sh("qemu-img info -U '%s' | grep -q 'backing file.*%s'", path,
		   t.image),
		0);
	assert_int_equal(remove_vm(&qemu, "web-4"), 0);
	assert_nothing_left(lab.qemu);
}

/* In a process of its own, as it is going to be killed. */
static pid_t fork_creator(const struct vm_order *o)
{
	struct seen s;
	struct lab own = lab;
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(own.keeper_in);
	/* A new image, as a fork must not go on with libvirt's threads. */
	setenv("XLB_TEST_CREATE", own.qemu, 1);
	setenv("XLB_TEST_IMAGE", o->template->image, 1);
	(void)s;
	execl("/proc/self/exe", "domains_test", (char *)NULL);
	_exit(127);
}

/* What the process made by fork_creator() does. */
__attribute__((noreturn)) static void creator(const char *uri)
{
	struct template_spec t = base_template("disk");
	struct vm_order o;
	struct seen s;

	t.image = getenv("XLB_TEST_IMAGE");
	t.memory = 32u << 20;
	o = order_of(&t, 4);
	loop_new(&lab.loop);
	lab.tick = loop_add_timer(lab.loop, lab_tick, &lab);
	hypervisor_init(lab.loop);
	seen_open(&s, &lab, uri);
	/* Killed while creating or, in the end, while removing. */
	for (;;) {
		create(&s, &o);
		remove_vm(&s, "web-4");
	}
}

/*
 * Killed at any moment of a create or remove: what is left is a domain of
 * ours, which the list has, or disks, which the sweep finds.
 */
static void test_killed_while_creating(void **state)
{
	struct template_spec t = disk_template();
	struct vm_order o = order_of(&t, 4);
	int domains = 0, files = 0;

	(void)state;
	for (int i = 0; i < 12; i++) {
		struct timespec pause = { 0, 20000000L + i * 23000000L };
		pid_t pid = fork_creator(&o);

		nanosleep(&pause, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		/* A call that libvirtd has taken it still carries out. */
		seen_refresh(&qemu);
		domains += seen_vm(&qemu, "web-4") != NULL;
		files += pool_exists();
		vm_sweep_leftovers(qemu.h, seen_done, &qemu);
		assert_int_equal(seen_wait(&qemu, "sweep"), 0);
		if (i % 2) {
			assert_int_equal(create(&qemu, &o), 0);
			assert_int_equal(seen_vm(&qemu, "web-4")->state,
					 VM_RUNNING);
		}
		assert_int_equal(remove_vm(&qemu, "web-4"), 0);
		vm_sweep_leftovers(qemu.h, seen_done, &qemu);
		assert_int_equal(seen_wait(&qemu, "sweep"), 0);
		assert_nothing_left(lab.qemu);
	}
	print_message("# of 12 killed, %d left a domain and %d files\n",
		      domains, files);
}

static void test_container(void **state)
{
	struct template_spec t = container_template();
	struct vm_order o = order_of(&t, 5);
	uint64_t start = clock_ns();
	const struct vm *v;

	(void)state;
	assert_int_equal(create(&lxc, &o), 0);
	v = seen_vm(&lxc, "web-5");
	assert_non_null(v);
	assert_int_equal(v->state, VM_RUNNING);
	assert_int_equal(sh("ip -o link show dev %s | grep -q 'master br0'",
			    v->port),
			 0);
	http_wait("10.77.0.15", 80, "web-5");
	print_message(
		"# container: create %.2f s, to its first answer %.2f s\n",
		(double)lxc.took / 1e9, (double)(clock_ns() - start) / 1e9);
	http_wait("fd00:77::15", 80, "web-5");
	hypervisor_stats(lxc.h, seen_stats, &lxc);
	seen_wait(&lxc, "statistics");
	assert_int_equal(lxc.stats_count, 1);
	assert_true(lxc.stats[0].cpu_ns > 0);

	memset(lxc.event_is, 0, sizeof(lxc.event_is));
	vm_shutdown(lxc.h, "web-5", seen_done, &lxc);
	assert_int_equal(seen_wait(&lxc, "shutdown"), 0);
	wait_event(&lxc, VM_EVENT_STOPPED, VM_EVENT_STOPPED);
	assert_int_equal(remove_vm(&lxc, "web-5"), 0);
	assert_nothing_left(lab.lxc);
}

/* In a network of libvirt's own the address is reserved, and given back. */
static void test_reservation(void **state)
{
	static const char xml[] =
		"<network><name>lab</name><bridge name='labbr'/>"
		"<ip address='10.88.0.1' prefix='24'><dhcp>"
		"<range start='10.88.0.10' end='10.88.0.99'/></dhcp></ip>"
		"</network>";
	static const char host[] = "mac='52:54:0a:58:00:14' name='web-6' "
				   "ip='10.88.0.20'";
	struct template_spec t = guest_template();
	struct vm_order o;
	virConnectPtr conn = virConnectOpen(lab.qemu);
	virNetworkPtr net = virNetworkDefineXML(conn, xml);
	char *desc;

	(void)state;
	assert_non_null(net);
	assert_int_equal(virNetworkCreate(net), 0);
	t.network.bridge = NULL;
	t.network.libvirt = "lab";
	o = order_of(&t, 6);
	o.addresses[0] = ip("10.88.0.20");
	o.addresses[1].family = 0;
	vm_mac_from_address(&o.addresses[0], o.mac);
	assert_int_equal(create(&qemu, &o), 0);
	desc = virNetworkGetXMLDesc(net, 0);
	assert_non_null(strstr(desc, host));
	free(desc);
	http_wait("10.88.0.20", 80, "web-6");
	assert_int_equal(remove_vm(&qemu, "web-6"), 0);
	desc = virNetworkGetXMLDesc(net, 0);
	assert_null(strstr(desc, "<host"));
	free(desc);
	assert_int_equal(virNetworkDestroy(net), 0);
	assert_int_equal(virNetworkUndefine(net), 0);
	virNetworkFree(net);
	virConnectClose(conn);
	assert_nothing_left(lab.qemu);
}

static int start(void **state)
{
	(void)state;
	lab_start(&lab);
	seen_open(&qemu, &lab, lab.qemu);
	seen_open(&lxc, &lab, lab.lxc);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	seen_close(&qemu);
	seen_close(&lxc);
	lab_stop(&lab);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_serves),
		cmocka_unit_test(test_guest_cpu),
		cmocka_unit_test(test_reconnect),
		cmocka_unit_test(test_guest_killed),
		cmocka_unit_test(test_guest_shutdown),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_disk_goes_too),
		cmocka_unit_test(test_killed_while_creating),
		cmocka_unit_test(test_container),
		cmocka_unit_test(test_reservation),
	};
	const char *uri = getenv("XLB_TEST_CREATE");

	if (uri)
		creator(uri);
	if (geteuid()) {
		puts("1..0 # SKIP needs root");
		return 0;
	}
	return cmocka_run_group_tests(tests, start, stop);
}
