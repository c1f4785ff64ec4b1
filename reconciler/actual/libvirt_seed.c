/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NoCloud data source of cloud-init: a small ISO 9660 volume labelled
 * cidata with meta-data, network-config and user-data.
 */
#include "actual/libvirt_impl.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define USER_DATA_MAX (1u << 20)

/*
 * The template's hash is part of the instance id: cloud-init runs once for
 * each id, and a VM made anew is a new instance.
 */
void seed_meta_data(struct buf *out, const struct vm_order *o)
{
	char name[64], text[IP_STRLEN];

	vm_name(o->service, o->index, name);
	buf_addf(out, "instance-id: %s-%s\nlocal-hostname: %s\n", name,
		 o->template->hash, name);
	if (!o->vip_count)
		return;
	/* dsr: user-data can say {{ ds.meta_data.xlb_vips }}. */
	buf_adds(out, "xlb_vips:\n");
	for (size_t i = 0; i < o->vip_count; i++)
		buf_addf(out, "  - \"%s\"\n", ip_format(&o->vips[i], text));
}

/* Version 2; the interface is found by its MAC, whatever its name is. */
void seed_network_config(struct buf *out, const struct vm_order *o)
{
	const struct ip *gateways = o->template->network.gateways;
	char text[IP_STRLEN], mac[18];
	const char *title = "    routes:\n";

	mac_format(o->mac, mac);
	buf_addf(out,
		 "version: 2\nethernets:\n  xlb0:\n    match:\n"
		 "      macaddress: \"%s\"\n",
		 mac);
	/* In a network of libvirt's own the address is reserved there. */
	if (o->template->network.libvirt) {
		buf_addf(out, "    dhcp4: %s\n    dhcp6: %s\n",
			 o->addresses[0].family ? "true" : "false",
			 o->addresses[1].family ? "true" : "false");
		return;
	}
	buf_adds(out, "    dhcp4: false\n    dhcp6: false\n    addresses:\n");
	for (size_t i = 0; i < ARRAY_SIZE(o->addresses); i++)
		if (o->addresses[i].family)
			buf_addf(out, "      - \"%s/%d\"\n",
				 ip_format(&o->addresses[i], text),
				 order_prefix(o, &o->addresses[i]));
	for (size_t i = 0; i < 2; i++) {
		if (!gateways[i].family)
			continue;
		buf_addf(out, "%s      - to: \"%s\"\n        via: \"%s\"\n",
			 title,
			 gateways[i].family == AF_INET6 ? "::/0" : "0.0.0.0/0",
			 ip_format(&gateways[i], text));
		title = "";
	}
}

static la_ssize_t write_to_buf(struct archive *a, void *arg, const void *data,
			       size_t len)
{
	(void)a;
	buf_add(arg, data, len);
	return (la_ssize_t)len;
}

static int add_file(struct archive *a, const char *name, const struct buf *b)
{
	struct archive_entry *e = archive_entry_new();
	int err = 0;

	archive_entry_set_pathname(e, name);
	archive_entry_set_size(e, (la_int64_t)b->len);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0444);
	archive_entry_set_mtime(e, time(NULL), 0);
	if (archive_write_header(a, e) != ARCHIVE_OK ||
	    archive_write_data(a, buf_str(b), b->len) != (la_ssize_t)b->len)
		err = -EIO;
	archive_entry_free(e);
	return err;
}

static int write_iso(struct buf *out, const struct buf *user,
		     const struct vm_order *o)
{
	struct buf meta AUTO_BUF = BUF_INIT, network AUTO_BUF = BUF_INIT;
	struct archive *a = archive_write_new();
	int err = -EIO;

	seed_meta_data(&meta, o);
	seed_network_config(&network, o);
	if (archive_write_set_format_iso9660(a) == ARCHIVE_OK &&
	    archive_write_set_options(a, "iso9660:volume-id=cidata") ==
		    ARCHIVE_OK &&
	    archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
	    archive_write_open(a, out, NULL, write_to_buf, NULL) ==
		    ARCHIVE_OK &&
	    !add_file(a, "meta-data", &meta) &&
	    !add_file(a, "network-config", &network) &&
	    !add_file(a, "user-data", user) &&
	    archive_write_close(a) == ARCHIVE_OK)
		err = 0;
	archive_write_free(a);
	return err;
}

int seed_iso(struct buf *out, const struct vm_order *o, struct why *w)
{
	const char *path = o->template->cloud_init;
	struct buf user AUTO_BUF = BUF_INIT;
	int err = 0;

	if (path)
		err = buf_read_file(&user, path, USER_DATA_MAX);
	else
		buf_adds(&user, "#cloud-config\n{}\n");
	if (err)
		return why_set(w, err, "%s: %s", path, strerror(-err));
	err = write_iso(out, &user, o);
	return err ? why_set(w, err, "the cloud-init seed can't be made") : 0;
}
