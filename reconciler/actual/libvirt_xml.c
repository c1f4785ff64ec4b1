/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML that libvirt is given, and XML that it gives back. */
#include "actual/libvirt_impl.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

void vm_name(const char *service, uint32_t index, char ret[64])
{
	snprintf(ret, 64, "%.52s-%u", service, index);
}

void mac_format(const uint8_t mac[6], char ret[18])
{
	snprintf(ret, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
		 mac[2], mac[3], mac[4], mac[5]);
}

/*
 * An address keeps its MAC, so that no neighbour's table is stale when a new
 * VM gets the address of an old one.  IPv6: FNV-1a over the 16 bytes.
 */
void vm_mac_from_address(const struct ip *a, uint8_t ret[6])
{
	uint32_t h = 2166136261u;

	ret[0] = 0x52;
	ret[1] = 0x54;
	if (a->family == AF_INET) {
		memcpy(ret + 2, a->bytes, 4);
		return;
	}
	for (size_t i = 0; i < 16; i++)
		h = (h ^ a->bytes[i]) * 16777619u;
	ret[2] = (uint8_t)(h >> 24);
	ret[3] = (uint8_t)(h >> 16);
	ret[4] = (uint8_t)(h >> 8);
	ret[5] = (uint8_t)h;
}

int order_prefix(const struct vm_order *o, const struct ip *a)
{
	const struct network_spec *n = &o->template->network;

	for (size_t i = 0; i < n->range_count; i++)
		if (n->ranges[i].first.family == a->family)
			return n->ranges[i].prefix;
	return ip_bits(a);
}

/* Control characters, which XML can't hold in any form, are left out. */
void xml_escape(struct buf *out, const char *s)
{
	for (; s && *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '&')
			buf_adds(out, "&amp;");
		else if (c == '<')
			buf_adds(out, "&lt;");
		else if (c == '>')
			buf_adds(out, "&gt;");
		else if (c == '\'')
			buf_adds(out, "&apos;");
		else if (c == '"')
			buf_adds(out, "&quot;");
		else if (c >= ' ' || c == '\t' || c == '\n')
			buf_add(out, s, 1);
	}
}

/* <tag>text</tag>, escaped; nothing when there is no text. */
static void element(struct buf *out, const char *tag, const char *text)
{
	if (!text)
		return;
	buf_addf(out, "<%s>", tag);
	xml_escape(out, text);
	buf_addf(out, "</%s>\n", tag);
}

static void attribute(struct buf *out, const char *key, const char *value)
{
	buf_addf(out, " %s='", key);
	xml_escape(out, value);
	buf_adds(out, "'");
}

static void metadata_xml(struct buf *out, const struct vm_order *o,
			 const char *owner)
{
	char text[IP_STRLEN];

	buf_adds(out, "<metadata><xlb:vm xmlns:xlb='" VM_NAMESPACE "'");
	attribute(out, "owner", owner);
	attribute(out, "service", o->service);
	buf_addf(out, " index='%u'", o->index);
	attribute(out, "template", o->template->hash);
	buf_adds(out, ">");
	for (size_t i = 0; i < ARRAY_SIZE(o->addresses); i++)
		if (o->addresses[i].family)
			buf_addf(out, "<xlb:address>%s</xlb:address>",
				 ip_format(&o->addresses[i], text));
	buf_adds(out, "</xlb:vm></metadata>\n");
}

/* "key=a,b", from up to two or from many addresses; nothing when none. */
static void argument(struct buf *out, const char *key, const struct ip *a,
		     size_t count)
{
	char text[IP_STRLEN];
	bool first = true;

	for (size_t i = 0; i < count; i++) {
		if (!a[i].family)
			continue;
		buf_addf(out, "%s%s", first ? key : ",",
			 ip_format(&a[i], text));
		first = false;
	}
}

static void address_arguments(struct buf *out, const struct vm_order *o)
{
	const char *separator = " xlb.ip=";
	char text[IP_STRLEN];

	for (size_t i = 0; i < ARRAY_SIZE(o->addresses); i++) {
		if (!o->addresses[i].family)
			continue;
		buf_addf(out, "%s%s/%d", separator,
			 ip_format(&o->addresses[i], text),
			 order_prefix(o, &o->addresses[i]));
		separator = ",";
	}
	argument(out, " xlb.gw=", o->template->network.gateways, 2);
}

/*
 * The template's command line, then what this VM is to be.  In a network of
 * libvirt's own it is told its address by DHCP.
 */
static void command_line(struct buf *out, const struct vm_order *o)
{
	char name[64];

	vm_name(o->service, o->index, name);
	if (o->template->cmdline)
		buf_addf(out, "%s ", o->template->cmdline);
	buf_addf(out, "xlb.name=%s", name);
	if (!o->template->network.libvirt)
		address_arguments(out, o);
	argument(out, " xlb.vips=", o->vips, o->vip_count);
}

const char *domain_kind_name(enum domain_kind k)
{
	switch (k) {
	case DOMAIN_KVM:
		return "kvm";
	case DOMAIN_QEMU:
		return "qemu";
	case DOMAIN_LXC:
		return "lxc";
	case DOMAIN_TEST:
		return "test";
	}
	return "?";
}

static void machine_os_xml(struct buf *out, const struct vm_order *o,
			   const struct place *p)
{
	const struct template_spec *t = o->template;
	struct buf line AUTO_BUF = BUF_INIT;
	const char *machine = "";

	if (p->kind != DOMAIN_TEST && !strcmp(p->arch, "x86_64"))
		machine = " machine='q35'";
	else if (p->kind != DOMAIN_TEST && !strcmp(p->arch, "aarch64"))
		machine = " machine='virt'";
	buf_adds(out, "<os><type");
	if (p->arch[0] && p->kind != DOMAIN_TEST)
		attribute(out, "arch", p->arch);
	buf_addf(out, "%s>hvm</type>\n", machine);
	element(out, "kernel", t->kernel);
	element(out, "initrd", t->initrd);
	if (t->kernel) {
		command_line(&line, o);
		element(out, "cmdline", buf_str(&line));
	}
	buf_adds(out, "</os>\n<features><acpi/></features>\n");
	if (p->kind == DOMAIN_KVM)
		buf_adds(out, "<cpu mode='host-passthrough'/>\n");
}

static void environment(struct buf *out, const char *key, const struct ip *a,
			size_t count)
{
	struct buf list AUTO_BUF = BUF_INIT;

	argument(&list, "", a, count);
	if (list.len)
		buf_addf(out, "<initenv name='%s'>%s</initenv>\n", key,
			 list.data);
}

/* A container's command line is its first process: a path and arguments. */
static void container_os_xml(struct buf *out, const struct vm_order *o)
{
	char *line AUTO_FREE = mem_dup(o->template->cmdline);
	char name[64], *at = NULL;
	const char *tag = "init";

	buf_adds(out, "<os><type>exe</type>\n");
	for (char *word = strtok_r(line, " \t\n", &at); word;
	     word = strtok_r(NULL, " \t\n", &at)) {
		element(out, tag, word);
		tag = "initarg";
	}
	vm_name(o->service, o->index, name);
	buf_addf(out, "<initenv name='XLB_NAME'>%s</initenv>\n", name);
	environment(out, "XLB_ADDRESSES", o->addresses, 2);
	environment(out, "XLB_GATEWAYS", o->template->network.gateways, 2);
	environment(out, "XLB_VIPS", o->vips, o->vip_count);
	buf_adds(out, "</os>\n");
}

static const char *family_name(const struct ip *a)
{
	return a->family == AF_INET6 ? "ipv6" : "ipv4";
}

/* libvirt gives a container its addresses itself. */
static void container_address_xml(struct buf *out, const struct vm_order *o)
{
	const struct ip *gateways = o->template->network.gateways;
	char text[IP_STRLEN];

	for (size_t i = 0; i < 2; i++) {
		const struct ip *a = &o->addresses[i];

		if (a->family)
			buf_addf(out,
				 "<ip family='%s' address='%s' prefix='%d'/>\n",
				 family_name(a), ip_format(a, text),
				 order_prefix(o, a));
	}
	for (size_t i = 0; i < 2; i++) {
		const struct ip *g = &gateways[i];

		if (g->family)
			buf_addf(out,
				 "<route family='%s' address='%s' prefix='0' "
				 "gateway='%s'/>\n",
				 family_name(g),
				 g->family == AF_INET6 ? "::" : "0.0.0.0",
				 ip_format(g, text));
	}
	buf_adds(out, "<guest dev='eth0'/>\n");
}

static void interface_xml(struct buf *out, const struct vm_order *o,
			  const struct place *p)
{
	const struct network_spec *n = &o->template->network;
	char mac[18];

	mac_format(o->mac, mac);
	buf_addf(out, "<interface type='%s'>\n<source",
		 n->bridge ? "bridge" : "network");
	attribute(out, n->bridge ? "bridge" : "network",
		  n->bridge ? n->bridge : n->libvirt);
	buf_addf(out, "/>\n<mac address='%s'/>\n", mac);
	if (p->kind == DOMAIN_LXC)
		container_address_xml(out, o);
	else if (p->kind != DOMAIN_TEST)
		buf_adds(out, "<model type='virtio'/>\n<rom enabled='no'/>\n");
	buf_adds(out, "</interface>\n");
}

/* Virtio for both: small kernels know neither CD-ROMs nor SATA. */
static void disk_xml(struct buf *out, const char *path, const char *format,
		     const char *dev, bool read_only)
{
	buf_addf(out,
		 "<disk type='file' device='disk'>\n"
		 "<driver name='qemu' type='%s'/>\n<source",
		 format);
	attribute(out, "file", path);
	buf_addf(out, "/>\n<target dev='%s' bus='virtio'/>\n%s</disk>\n", dev,
		 read_only ? "<readonly/>\n" : "");
}

static void machine_devices_xml(struct buf *out, const char *disk,
				const char *seed)
{
	if (disk)
		disk_xml(out, disk, "qcow2", "vda", false);
	if (seed)
		disk_xml(out, seed, "raw", "vdb", true);
	buf_adds(out, "<serial type='pty'/>\n"
		      "<controller type='usb' model='none'/>\n"
		      "<memballoon model='none'/>\n");
	if (disk)
		buf_adds(out, "<rng model='virtio'>"
			      "<backend model='random'>/dev/urandom</backend>"
			      "</rng>\n");
}

void domain_xml(struct buf *out, const struct vm_order *o,
		const struct place *p, const char *disk, const char *seed)
{
	const struct template_spec *t = o->template;
	char name[64];

	vm_name(o->service, o->index, name);
	buf_addf(out, "<domain type='%s'>\n<name>%s</name>\n",
		 domain_kind_name(p->kind), name);
	metadata_xml(out, o, p->owner);
	buf_addf(out, "<memory unit='bytes'>%llu</memory>\n<vcpu>%u</vcpu>\n",
		 (unsigned long long)t->memory, t->vcpus);
	if (p->kind == DOMAIN_LXC)
		container_os_xml(out, o);
	else
		machine_os_xml(out, o, p);
	buf_adds(out, "<on_poweroff>destroy</on_poweroff>\n"
		      "<on_reboot>destroy</on_reboot>\n"
		      "<on_crash>destroy</on_crash>\n<devices>\n");
	if (p->kind == DOMAIN_LXC)
		buf_adds(out, "<filesystem type='mount'><source dir='/'/>"
			      "<target dir='/'/><readonly/></filesystem>\n"
			      "<console type='pty'/>\n");
	else if (p->kind != DOMAIN_TEST)
		machine_devices_xml(out, disk, seed);
	interface_xml(out, o, p);
	buf_adds(out, "</devices>\n</domain>\n");
}

void pool_xml(struct buf *out, const char *owner)
{
	buf_addf(out,
		 "<pool type='dir'><name>xlb-%s</name><target>"
		 "<path>/var/lib/libvirt/xlb/%s</path>"
		 "<permissions><mode>0711</mode></permissions>"
		 "</target></pool>",
		 owner, owner);
}

void volume_xml(struct buf *out, const char *name, uint64_t bytes,
		const char *backing, const char *backing_format)
{
	buf_adds(out, "<volume>");
	element(out, "name", name);
	if (!backing) {
		buf_addf(out,
			 "<capacity unit='bytes'>%llu</capacity>"
			 "<target><format type='raw'/></target></volume>",
			 (unsigned long long)bytes);
		return;
	}
	buf_adds(out, "<target><format type='qcow2'/></target><backingStore>");
	element(out, "path", backing);
	buf_addf(out, "<format type='%s'/></backingStore></volume>",
		 backing_format);
}

/* An IPv6 client is known by its name: libvirt has no MAC there. */
void dhcp_host_xml(struct buf *out, const char *name, const uint8_t mac[6],
		   const struct ip *a)
{
	char text[IP_STRLEN], mac_text[18];

	mac_format(mac, mac_text);
	buf_adds(out, "<host");
	if (a->family == AF_INET)
		attribute(out, "mac", mac_text);
	attribute(out, "name", name);
	attribute(out, "ip", ip_format(a, text));
	buf_adds(out, "/>");
}

/* --- reading --- */

static bool is(const xmlNode *n, const char *name)
{
	return n->type == XML_ELEMENT_NODE &&
	       !strcmp((const char *)n->name, name);
}

static xmlNode *child(const xmlNode *parent, const char *name)
{
	for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next)
		if (is(n, name))
			return n;
	return NULL;
}

/* false, and ret untouched, when there is none or it doesn't fit. */
static bool take(xmlChar *value, char *ret, size_t size)
{
	bool fits = value && strlen((char *)value) < size;

	if (fits)
		snprintf(ret, size, "%s", (char *)value);
	xmlFree(value);
	return fits;
}

static bool get_attribute(xmlNode *n, const char *key, char *ret, size_t size)
{
	return n && take(xmlGetProp(n, (const xmlChar *)key), ret, size);
}

static bool get_text(xmlNode *n, char *ret, size_t size)
{
	return n && take(xmlNodeGetContent(n), ret, size);
}

static xmlNode *metadata_node(const xmlNode *domain)
{
	xmlNode *n = child(domain, "metadata");

	for (n = n ? n->children : NULL; n; n = n->next)
		if (is(n, "vm") && n->ns &&
		    !strcmp((const char *)n->ns->href, VM_NAMESPACE))
			return n;
	return NULL;
}

static void parse_addresses(const xmlNode *meta, struct vm *vm)
{
	char text[IP_STRLEN];
	struct ip a;

	for (xmlNode *n = meta->children; n; n = n->next)
		if (is(n, "address") && get_text(n, text, sizeof(text)) &&
		    ip_parse(text, &a))
			vm->addresses[a.family == AF_INET6] = a;
}

/* Six pairs of hexadecimal digits; ret is untouched when it isn't one. */
static void parse_mac(const char *text, uint8_t ret[6])
{
	uint8_t mac[6];
	char *end;

	for (size_t i = 0; i < 6; i++) {
		unsigned long n = strtoul(text, &end, 16);

		if (end == text || n > 255 || *end != (i < 5 ? ':' : '\0'))
			return;
		mac[i] = (uint8_t)n;
		text = end + 1;
	}
	memcpy(ret, mac, sizeof(mac));
}

static void parse_interface(const xmlNode *domain, struct vm *vm)
{
	xmlNode *n = child(child(domain, "devices"), "interface");
	char text[32];

	if (get_attribute(child(n, "mac"), "address", text, sizeof(text)))
		parse_mac(text, vm->mac);
	get_attribute(child(n, "target"), "dev", vm->port, sizeof(vm->port));
}

static bool parse_number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (!*text || *end || n > UINT32_MAX)
		return false;
	*ret = (uint32_t)n;
	return true;
}

/*
 * Ours: the metadata names the owner, and the service and index that the
 * domain's name is made of.  (A copy of a domain of ours, made by hand, has
 * the metadata but another name; it is not ours.)
 */
static int parse_domain(xmlNode *domain, const char *owner, struct vm *vm)
{
	xmlNode *meta = metadata_node(domain);
	char text[64], name[64];

	get_text(child(domain, "name"), vm->name, sizeof(vm->name));
	parse_interface(domain, vm);
	if (!get_attribute(meta, "owner", text, sizeof(text)) ||
	    strcmp(text, owner) != 0 ||
	    !get_attribute(meta, "service", vm->service, sizeof(vm->service)) ||
	    !get_attribute(meta, "index", text, sizeof(text)) ||
	    !parse_number(text, &vm->index))
		return -ENOENT;
	parse_addresses(meta, vm);
	vm_name(vm->service, vm->index, name);
	if (strcmp(name, vm->name) != 0)
		return -ENOENT;
	get_attribute(meta, "template", vm->template_hash,
		      sizeof(vm->template_hash));
	get_text(child(domain, "uuid"), vm->uuid, sizeof(vm->uuid));
	if (get_text(child(domain, "vcpu"), text, sizeof(text)))
		parse_number(text, &vm->vcpus);
	return 0;
}

static xmlDoc *read_xml(const char *xml)
{
	return xmlReadMemory(xml, (int)strlen(xml), "domain.xml", NULL,
			     XML_PARSE_NONET | XML_PARSE_NOERROR |
				     XML_PARSE_NOWARNING);
}

int domain_parse(const char *xml, const char *owner, struct vm *ret)
{
	xmlDoc *doc = read_xml(xml);
	xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	int err = -EINVAL;

	memset(ret, 0, sizeof(*ret));
	if (root && is(root, "domain"))
		err = parse_domain(root, owner, ret);
	xmlFreeDoc(doc);
	return err;
}

/* libvirt gives memory in KiB, whatever it was given in. */
void domain_parse_next(const char *xml, struct vm *ret)
{
	xmlDoc *doc = read_xml(xml);
	xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	struct vm next = { 0 };
	uint32_t kib = 0;
	char text[64];

	if (get_text(child(root, "memory"), text, sizeof(text)))
		parse_number(text, &kib);
	if (get_text(child(root, "vcpu"), text, sizeof(text)))
		parse_number(text, &ret->next_vcpus);
	if (root)
		parse_interface(root, &next);
	ret->next_memory = (uint64_t)kib * 1024;
	memcpy(ret->next_mac, next.mac, sizeof(next.mac));
	xmlFreeDoc(doc);
}

bool domain_network(const char *xml, char *ret, size_t size)
{
	xmlDoc *doc = read_xml(xml);
	xmlNode *n = doc ? xmlDocGetRootElement(doc) : NULL;
	bool found;

	n = child(child(child(n, "devices"), "interface"), "source");
	found = get_attribute(n, "network", ret, size);
	xmlFreeDoc(doc);
	return found;
}

static bool get_ip(xmlNode *n, const char *key, struct ip *ret)
{
	char text[IP_STRLEN];

	return get_attribute(n, key, text, sizeof(text)) && ip_parse(text, ret);
}

static bool is_reserved(const xmlNode *dhcp, const struct ip *a)
{
	struct ip taken;

	for (xmlNode *n = dhcp->children; n; n = n->next)
		if (is(n, "host") && get_ip(n, "ip", &taken) &&
		    ip_equal(&taken, a))
			return true;
	return false;
}

static bool first_free(const xmlNode *dhcp, struct ip *ret)
{
	xmlNode *range = child(dhcp, "range");
	struct ip first, last;
	uint64_t size;

	if (!range || !get_ip(range, "start", &first) ||
	    !get_ip(range, "end", &last))
		return false;
	size = ip_distance(&first, &last);
	for (uint64_t i = 0; size != UINT64_MAX && i <= size; i++) {
		struct ip a = ip_add(&first, i);

		if (is_reserved(dhcp, &a))
			continue;
		*ret = a;
		return true;
	}
	return false;
}

size_t network_free_addresses(const char *xml, struct ip ret[2])
{
	xmlDoc *doc = read_xml(xml);
	xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
	size_t found = 0;

	for (xmlNode *n = root ? root->children : NULL; n; n = n->next) {
		xmlNode *dhcp = is(n, "ip") ? child(n, "dhcp") : NULL;
		struct ip a;

		if (!dhcp || !first_free(dhcp, &a) ||
		    ret[a.family == AF_INET6].family)
			continue;
		ret[a.family == AF_INET6] = a;
		found++;
	}
	xmlFreeDoc(doc);
	return found;
}
