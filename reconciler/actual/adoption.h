/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Domains that aren't ours: what they are, and taking them over.  The calls
 * block: they are for a verb's own process, never the daemon's.
 */
#ifndef ACTUAL_ADOPTION_H
#define ACTUAL_ADOPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"

/* A domain as it was found; texts are NULL where there is none. */
struct foreign {
	char name[64];
	char type[16]; /* "kvm", "qemu", "lxc" */
	char owner[33]; /* of another xlb; "": none */
	bool ours; /* already */
	bool running;
	bool persistent;
	uint64_t memory; /* bytes */
	uint32_t vcpus;
	char *kernel, *initrd;
	char *init; /* of a container */
	char *disk; /* the first one's file, and the image under it */
	char *image;
	char *bridge, *network; /* of the first interface */
	uint8_t mac[6];
	struct ip addresses[2]; /* as far as they are known */
	/* Of ours: */
	char service[64];
	uint32_t index;
};

struct adoption; /* a connection */
struct vm_order;

/* 0 or -errno; why: libvirt's words, of 512 bytes. */
int adoption_open(const char *uri, struct adoption **ret, char why[512]);
void adoption_close(struct adoption *a);
/* Every domain, sorted by name; to be freed by foreign_free(). */
int adoption_list(struct adoption *a, const char *owner, struct foreign **ret,
		  size_t *ret_count, char why[512]);
void foreign_free(struct foreign *list, size_t count);
/*
 * The domain becomes ours, as the order says.  One that is off gets our name
 * where the driver can rename; ret_name: of 64 bytes, what it is called then.
 */
int adoption_take(struct adoption *a, const char *domain,
		  const struct vm_order *o, const char *owner, char *ret_name,
		  char why[512]);
/* -ENOENT: there is none of that name that was adopted by this owner. */
int adoption_release(struct adoption *a, const char *domain, const char *owner,
		     char why[512]);

#endif
