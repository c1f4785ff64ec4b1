/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of the parser, and what runs after it. */
#ifndef DESIRED_PARSE_H
#define DESIRED_PARSE_H

#include "desired/keys.h"

/* The whole file, and those of its tables that another file's name. */
extern const struct key_table top_table;
extern const struct key_table template_table;
extern const struct key_table service_table;
extern const struct key_table health_table;
extern const struct key_table scaling_table;

/* Readers of the top level's parts. */
void read_templates(struct reader *r, const struct key *k, const struct node *v,
		    void *field);
void read_services(struct reader *r, const struct key *k, const struct node *v,
		   void *field);

/* A service's policies; the defaults depend on the protocol. */
void health_read(struct reader *r, const struct node *v, enum protocol protocol,
		 struct health_spec *ret);
void health_defaults(struct reader *r, enum protocol protocol,
		     struct health_spec *ret);
void safety_defaults(struct safety_spec *ret);
void scaling_read(struct reader *r, const struct node *v,
		  struct scaling_spec *ret);

/* An address that a packet can be sent to; false: complained. */
bool read_address(struct reader *r, const char *name, const struct node *v,
		  struct ip *ret);
/* A list of at most one address a family into ret[IPv4, IPv6]. */
void read_address_pair(struct reader *r, const struct key *k,
		       const struct node *v, void *field);
/* 0 for IPv4, 1 for IPv6: the place in such a pair. */
int family_index(const struct ip *a);

/* 16 hex digits over what defines a template's VMs. */
void template_hash(struct template_spec *t);

/* Names to pointers: pools get their template and hypervisor. */
void resolve_pools(struct reader *r);

/*
 * Hold the spec against itself.  complete: everything could be read, so that
 * what is missing is missing in the file; else only what contradicts itself
 * is looked for.
 */
void check_spec(const struct spec *s, bool complete, struct diag_list *diags);
void check_addresses(const struct spec *s, bool complete,
		     struct diag_list *diags);
/*
 * The same, but not looked through again where nothing that it looks at differs
 * from the last spec that was clean, of which *clean is a sum; at first 0.
 */
void check_addresses_again(const struct spec *s, bool complete, uint64_t *clean,
			   struct diag_list *diags);

/* spec_parse_again() of texts whose hash is known already. */
struct spec *spec_parse_hashed(struct spec_cache *c, const char *path,
			       const struct spec_text *texts, size_t count,
			       const char *sha256, struct diag_list *diags);
/* SHA-256 over the bytes of all texts, in order. */
void texts_sha256(const struct spec_text *texts, size_t count, char ret[65]);

#endif
