/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Templates, their networks, and addresses as they are written anywhere. */
#include "desired/parse.h"

#include <stdio.h>
#include <string.h>

#include <nettle/sha2.h>

#include "desired/complain.h"
#include "desired/value.h"

int family_index(const struct ip *a)
{
	return a->family == AF_INET6;
}

static bool is_unicast(const struct ip *a)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	static const uint8_t zeros[15] = { 0 };

	if (a->family == AF_INET)
		return a->bytes[0] != 0 && a->bytes[0] != 127 &&
		       a->bytes[0] < 224;
	return a->bytes[0] != 0xff &&
	       memcmp(a->bytes, mapped, sizeof(mapped)) != 0 &&
	       (memcmp(a->bytes, zeros, sizeof(zeros)) != 0 ||
		a->bytes[15] > 1);
}

bool read_address(struct reader *r, const char *name, const struct node *v,
		  struct ip *ret)
{
	const char *s = expect_text(r, name, v);
	struct ip a;

	if (!s)
		return false;
	if (!ip_parse(s, &a)) {
		complain(r->diags, &v->src,
			 strchr(s, '/')
				 ? "without a /prefix"
				 : "such as 192.0.2.10 or \"2001:db8::10\"",
			 "\"%.64s\" is not an IP address", s);
		return false;
	}
	if (!is_unicast(&a)) {
		complain(
			r->diags, &v->src,
			"loopback, multicast and unspecified addresses can't be used",
			"%s is not an address of one machine", s);
		return false;
	}
	*ret = a;
	return true;
}

void read_address_pair(struct reader *r, const struct key *k,
		       const struct node *v, void *field)
{
	struct ip *pair = field;

	if (!expect_members(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		struct ip a;

		if (!read_address(r, k->name, &v->items[i], &a))
			continue;
		if (pair[family_index(&a)].family)
			complain(r->diags, &v->items[i].src,
				 "one IPv4 and one IPv6 address at most",
				 "\"%s\" has two %s addresses", k->name,
				 a.family == AF_INET6 ? "IPv6" : "IPv4");
		else
			pair[family_index(&a)] = a;
	}
}

/* The form of one range; how ranges fit together is check_address.c's. */
static bool range_is_sound(struct reader *r, const char *s,
			   const struct address_range *a)
{
	if (a->first.family != a->last.family)
		complain(r->diags, &a->src,
			 "write one range for IPv4 and one for IPv6",
			 "the range %.100s mixes IPv4 and IPv6", s);
	else if (ip_compare(&a->first, &a->last) > 0)
		complain(r->diags, &a->src, "write the lower address first",
			 "the range %.100s is in reversed order", s);
	else if (!ip_in_prefix(&a->last, &a->first, a->prefix))
		complain(r->diags, &a->src,
			 "both ends must lie in the network that /prefix gives",
			 "the range %.100s reaches outside its prefix", s);
	else
		return true;
	return false;
}

static bool range_is_usable(struct reader *r, const char *s,
			    const struct address_range *a)
{
	struct ip net = ip_mask(&a->first, a->prefix);
	struct ip next = ip_add(&a->last, 1);

	if (!is_unicast(&a->first) || !is_unicast(&a->last)) {
		complain(r->diags, &a->src, NULL,
			 "the range %.100s has addresses that no VM can have",
			 s);
		return false;
	}
	if (a->first.family == AF_INET && a->prefix < 31 &&
	    (ip_equal(&a->first, &net) ||
	     !ip_in_prefix(&next, &net, a->prefix))) {
		complain(
			r->diags, &a->src,
			"leave out the first and the last address of the network",
			"the range %.100s holds the network or broadcast address",
			s);
		return false;
	}
	return true;
}

static void read_range(struct reader *r, const struct key *k,
		       const struct node *v, struct network_spec *n)
{
	const char *s = expect_text(r, k->name, v);
	struct address_range a = { .src = v->src };

	if (!s)
		return;
	if (!value_range(s, &a)) {
		complain(r->diags, &v->src,
			 "first-last/prefix, such as 10.77.0.10-10.77.0.99/24",
			 "\"%.100s\" is not an address range", s);
		return;
	}
	if (!range_is_sound(r, s, &a) || !range_is_usable(r, s, &a))
		return;
	for (size_t i = 0; i < n->range_count; i++) {
		if (n->ranges[i].first.family != a.first.family)
			continue;
		complain(r->diags, &v->src, "one range a family",
			 "a second %s range",
			 a.first.family == AF_INET6 ? "IPv6" : "IPv4");
		return;
	}
	*ARENA_PUSH(r->arena, n->ranges, n->range_count) = a;
}

static void read_ranges(struct reader *r, const struct key *k,
			const struct node *v, void *field)
{
	if (!expect_members(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++)
		read_range(r, k, &v->items[i], field);
}

static void read_gateways(struct reader *r, const struct key *k,
			  const struct node *v, void *field)
{
	struct network_spec *n = field;

	n->gateway_src = v->src;
	read_address_pair(r, k, v, n->gateways);
}

static const struct key network_keys[] = {
	KEY("bridge", read_text, offsetof(struct network_spec, bridge),
	    .required = true, .max = 15,
	    .help = "Of this machine; VMs are plugged into it"),
	KEY("addresses", read_ranges, 0, .required = true, .list = true,
	    .least = 1, .most = 2, .form = FORM_RANGE,
	    .help = "One range a family, such as 10.77.0.10-10.77.0.99/24; each VM gets its own"),
	KEY("gateway", read_gateways, 0, .list = true, .least = 1, .most = 2,
	    .form = FORM_ADDRESS,
	    .help = "One a family; with nat this machine"),
};
KEY_TABLE(network_table, "a template's network", network_keys);

/* A bridge with its addresses, or the name of a libvirt network. */
static void read_network(struct reader *r, const struct key *k,
			 const struct node *v, void *field)
{
	struct network_spec *n = field;

	n->src = v->src;
	if (v->kind == NODE_SCALAR)
		read_text(r, k, v, &n->libvirt);
	else
		read_mapping(r, &network_table, v, n);
}

static const struct key template_keys[] = {
	KEY("name", read_name, offsetof(struct template_spec, name),
	    .required = true, .help = "What pools call it"),
	KEY("image", read_path, offsetof(struct template_spec, image),
	    .help = "Disk; each VM gets a copy-on-write overlay of it"),
	KEY("kernel", read_path, offsetof(struct template_spec, kernel),
	    .help = "Booted without a disk"),
	KEY("initrd", read_path, offsetof(struct template_spec, initrd),
	    .help = "Of the kernel"),
	KEY("cmdline", read_text, offsetof(struct template_spec, cmdline),
	    .max = 2048, .help = "Of the kernel"),
	KEY_LATER("clone", "name the disk with \"image\" instead"),
	KEY_LATER("xml", "use image, or kernel and initrd, instead"),
	KEY("memory", read_size, offsetof(struct template_spec, memory),
	    .min = 16 << 20, .max = 1ULL << 40, .help = "Of each VM",
	    .fallback = "512MiB"),
	KEY("vcpus", read_count, offsetof(struct template_spec, vcpus),
	    .min = 1, .max = 255, .help = "Of each VM", .fallback = "1"),
	KEY_LATER("cpu_limit", NULL),
	KEY("network", read_network, offsetof(struct template_spec, network),
	    .required = true, .form = FORM_TEXT, .inner = &network_table,
	    .help = "A bridge with addresses, or the name of a libvirt network"),
	KEY("cloud_init", read_path, offsetof(struct template_spec, cloud_init),
	    .help = "File with user-data"),
};
const struct key_table template_table = {
	"a template", template_keys, ARRAY_SIZE(template_keys),
	"{\"dependencies\": {\"initrd\": [\"kernel\"]},"
	" \"allOf\": [{\"not\": {\"required\": [\"image\", \"kernel\"]}},"
	" {\"not\": {\"required\": [\"image\", \"cmdline\"]}}]}"
};

static void complain_pair(struct reader *r, const struct node *n,
			  const char *key, const char *message)
{
	const struct node *v = node_get(n, key);

	complain(r->diags, v ? &v->src : &n->src, NULL, "%s", message);
}

static void check_boot(struct reader *r, const struct node *n,
		       const struct template_spec *t)
{
	if (t->image && t->kernel)
		complain_pair(r, n, "kernel",
			      "a template has an image or a kernel, not both");
	if (t->initrd && !t->kernel)
		complain_pair(r, n, "initrd", "an initrd needs a kernel");
	/* Without either it is what an lxc container runs; check.c sees to that. */
	if (t->cmdline && t->image)
		complain_pair(r, n, "cmdline",
			      "a cmdline goes with a kernel, not an image");
}

void read_templates(struct reader *r, const struct key *k, const struct node *v,
		    void *field)
{
	struct spec *s = field;

	if (!expect_list(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count; i++) {
		struct template_spec t = {
			.src = v->items[i].src,
			.memory = 512ULL << 20,
			.vcpus = 1,
		};

		if (!read_mapping(r, &template_table, &v->items[i], &t))
			continue;
		check_boot(r, &v->items[i], &t);
		if (t.name)
			*ARENA_PUSH(r->arena, s->templates, s->template_count) =
				t;
	}
}

/* Length first, so that two lists of texts never look the same. */
static void hash_text(struct sha256_ctx *ctx, const char *s)
{
	uint8_t len[4] = { 0xff, 0xff, 0xff, 0xff };
	size_t n = s ? strlen(s) : 0;

	for (size_t i = 0; s && i < sizeof(len); i++)
		len[i] = (uint8_t)(n >> (8 * i));
	sha256_update(ctx, sizeof(len), len);
	sha256_update(ctx, n, (const uint8_t *)(s ? s : ""));
}

static void hash_number(struct sha256_ctx *ctx, uint64_t v)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	sha256_update(ctx, sizeof(bytes), bytes);
}

static void hash_address(struct sha256_ctx *ctx, const struct ip *a)
{
	hash_number(ctx, (uint64_t)(a->family ? ip_bits(a) : 0));
	sha256_update(ctx, sizeof(a->bytes), a->bytes);
}

/*
 * The first 64 bits of a SHA-256.  Ranges are hashed in the order of their
 * families, so that the order of the list changes nothing.
 */
void template_hash(struct template_spec *t)
{
	const struct network_spec *n = &t->network;
	struct sha256_ctx ctx;
	uint8_t digest[8];

	sha256_init(&ctx);
	hash_text(&ctx, t->image);
	hash_text(&ctx, t->kernel);
	hash_text(&ctx, t->initrd);
	hash_text(&ctx, t->cmdline);
	hash_text(&ctx, t->cloud_init);
	hash_number(&ctx, t->memory);
	hash_number(&ctx, t->vcpus);
	hash_text(&ctx, n->bridge);
	hash_text(&ctx, n->libvirt);
	for (int family = 0; family < 2; family++) {
		hash_address(&ctx, &n->gateways[family]);
		for (size_t i = 0; i < n->range_count; i++) {
			const struct address_range *a = &n->ranges[i];

			if (family_index(&a->first) != family)
				continue;
			hash_address(&ctx, &a->first);
			hash_address(&ctx, &a->last);
			hash_number(&ctx, (uint64_t)a->prefix);
		}
	}
	sha256_digest(&ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(t->hash + i * 2, 3, "%02x", digest[i]);
}
