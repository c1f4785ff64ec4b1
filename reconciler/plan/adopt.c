/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domain fits a template when a VM made of that would be the same but for
 * its name: memory, vcpus, what it boots, its network; and when its addresses
 * are known in every family that the service's packets need.
 */
#include "plan/adopt.h"

#include <string.h>

#include "plan/plan.h"

#define MIB (1024.0 * 1024.0)

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static const char *name_or_none(const char *s)
{
	return s ? s : "none";
}

static bool fits_size(const struct foreign *f, const struct template_spec *t,
		      char why[ADOPT_WHY])
{
	if (f->memory / 1024 != t->memory / 1024)
		snprintf(why, ADOPT_WHY, "its memory is %.4g MiB, not %.4g MiB",
			 (double)f->memory / MIB, (double)t->memory / MIB);
	else if (f->vcpus != t->vcpus)
		snprintf(why, ADOPT_WHY, "it has %u vcpus, not %u", f->vcpus,
			 t->vcpus);
	else
		return true;
	return false;
}

/* The first word of a container's command line is its program. */
static bool fits_container(const struct foreign *f,
			   const struct template_spec *t, char why[ADOPT_WHY])
{
	const char *line = t->cmdline ? t->cmdline : "";
	size_t len = strcspn(line, " \t\n");

	if (strcmp(f->type, "lxc") != 0)
		snprintf(why, ADOPT_WHY, "it is no container");
	else if (!f->init || strlen(f->init) != len ||
		 strncmp(f->init, line, len) != 0)
		snprintf(why, ADOPT_WHY, "its program is %s, not %.*s",
			 name_or_none(f->init), (int)len, line);
	else
		return true;
	return false;
}

static bool fits_machine(const struct foreign *f, const struct template_spec *t,
			 char why[ADOPT_WHY])
{
	if (!strcmp(f->type, "lxc"))
		snprintf(why, ADOPT_WHY, "it is a container");
	else if (!same(f->kernel, t->kernel))
		snprintf(why, ADOPT_WHY, "its kernel is %s, not %s",
			 name_or_none(f->kernel), name_or_none(t->kernel));
	else if (!same(f->initrd, t->initrd))
		snprintf(why, ADOPT_WHY, "its initrd is %s, not %s",
			 name_or_none(f->initrd), name_or_none(t->initrd));
	else if (t->image && same(f->disk, t->image))
		snprintf(why, ADOPT_WHY,
			 "its disk is the image itself, which others are "
			 "overlays of");
	else if (t->image && !same(f->image, t->image))
		snprintf(why, ADOPT_WHY, "its disk is no overlay of %s",
			 t->image);
	else
		return true;
	return false;
}

static bool fits_network(const struct foreign *f, const struct network_spec *n,
			 char why[ADOPT_WHY])
{
	const char *what = n->bridge ? "bridge" : "network";
	const char *wanted = n->bridge ? n->bridge : n->libvirt;
	const char *has = n->bridge ? f->bridge : f->network;

	if (same(has, wanted))
		return true;
	snprintf(why, ADOPT_WHY, "the %s of its first interface is %s, not %s",
		 what, name_or_none(has), name_or_none(wanted));
	return false;
}

static bool needs_family(const struct service_spec *s, int family)
{
	for (size_t i = 0; i < s->vip_count; i++)
		if (s->vips[i].address.family == family)
			return true;
	return false;
}

/* Packets inside others may go to either family. */
static bool fits_addresses(const struct ip a[2], const struct service_spec *s,
			   char why[ADOPT_WHY])
{
	static const int families[2] = { AF_INET, AF_INET6 };

	if (service_encapsulates(s)) {
		if (a[0].family || a[1].family)
			return true;
		snprintf(why, ADOPT_WHY,
			 "its address isn't known: give --address");
		return false;
	}
	for (int i = 0; i < 2; i++) {
		if (!needs_family(s, families[i]) || a[i].family)
			continue;
		snprintf(why, ADOPT_WHY,
			 "its IPv%d address isn't known: give --address",
			 i ? 6 : 4);
		return false;
	}
	return true;
}

bool adopt_fits(const struct foreign *f, const struct ip addresses[2],
		const struct service_spec *s, char ret_why[ADOPT_WHY])
{
	const struct template_spec *t = s->pool.template;
	bool container = !t->kernel && !t->image;

	if (!f->persistent) {
		snprintf(ret_why, ADOPT_WHY,
			 "it is transient: it would be gone when it stops");
		return false;
	}
	return fits_size(f, t, ret_why) &&
	       (container ? fits_container(f, t, ret_why)
			  : fits_machine(f, t, ret_why)) &&
	       fits_network(f, &t->network, ret_why) &&
	       fits_addresses(addresses, s, ret_why);
}
