/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs that take the place of others, with more features, with a larger
 * table of slots, or of another build.  The programs are loaded only when the
 * digest of their bytes and constants isn't the one in the control block, so
 * that starting the same binary again changes nothing.
 *
 *   1. Load the programs; with more slots: on new maps, with all that the old
 *      ones hold.  Stage every pin under another name.  So far nothing has
 *      changed, and nothing later needs memory.
 *   2. Clear the digest.
 *   3. Swap the programs at every attachment, each atomically.  Both sets do
 *      the same with the same packet, as both see the same contents.
 *   4. Rename the pins into place: programs, stamps, slots.  (A reader takes
 *      slots before stamps, so it never sees more slots than stamps.)
 *   5. Write features, then the digest.
 *
 * Nobody writes a slot before 5 is done.  So whatever was reached when the
 * process died, either copy of the slots is right; the next start finds no
 * digest, loads programs on the maps that are pinned then, and swaps them in
 * wherever anything of ours is attached.
 */
#include "actual/bpf_internal.h"
#include "base/seam.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const enum map_index grown[] = { MAP_MOVED, MAP_SLOTS };
#define GROWN 2
_Static_assert(sizeof(grown) / sizeof(grown[0]) == GROWN, "all of them");

#define SLOTS_MAX (1u << 28) /* a GiB */

struct successor {
	struct programs programs;
	uint32_t features;
	bool grows;
	int map_fd[MAP_COUNT]; /* ours, or, of those that grow, the new one */
	struct mapping slots;
	uint32_t stamp_count;
};

static struct xlb_control *control_of(const struct datapath *d)
{
	struct xlb_tables *tables = d->mapped[MAP_TABLES].mem;

	return &tables->control;
}

static int complain(const struct datapath *d, int err, const char *what,
		    struct diag_list *diags)
{
	diag_add(diags, SEVERITY_ERROR, NULL,
		 err == -ENOMEM || err == -E2BIG ? "declare a smaller max"
						 : NULL,
		 "can't %s in %s: %s", what, d->dir, strerror(-err));
	return err;
}

static int copy_slots(const struct datapath *d, struct successor *s)
{
	const struct mapping *old = &d->mapped[MAP_SLOTS];
	int err = mapping_make(d, s->map_fd[MAP_SLOTS], &s->slots);

	if (!err)
		memcpy(s->slots.mem, old->mem,
		       old->size < s->slots.size ? old->size : s->slots.size);
	return err;
}

/* There may be fewer slots than stamps, and those grow, too. */
static int copy_stamps(const struct datapath *d, struct successor *s)
{
	uint32_t count = d->stamp_count < s->stamp_count ? d->stamp_count
							 : s->stamp_count;
	struct stamps from = { 0 }, to = { 0 };
	int err = stamps_map(d, d->map_fd[MAP_MOVED], 0, count, &from);

	if (!err)
		err = stamps_map(d, s->map_fd[MAP_MOVED], 0, count, &to);
	if (!err)
		memcpy(to.at, from.at, count);
	stamps_drop(&from);
	stamps_drop(&to);
	return err;
}

/* New maps with the contents of the old. */
static int grow(const struct datapath *d, struct successor *s, uint32_t slots)
{
	const uint32_t per_entry[GROWN] = { XLB_MOVED_LINE, XLB_LINE_SLOTS };
	int err;

	if (slots > SLOTS_MAX)
		return -E2BIG;
	s->grows = true;
	for (int k = 0; k < GROWN; k++) {
		int fd = map_like(d, grown[k], slots / per_entry[k] + 1);

		s->map_fd[grown[k]] = fd;
		if (fd < 0)
			return fd;
	}
	s->stamp_count = (slots / XLB_MOVED_LINE + 1) * XLB_MOVED_LINE;
	err = copy_stamps(d, s);
	return err ? err : copy_slots(d, s);
}

static int stage(const struct datapath *d, const struct successor *s)
{
	int err = 0;

	for (int i = 0; i < PROG_COUNT && !err; i++)
		if (s->programs.fd[i] >= 0)
			err = pin_stage(d, prog_pins[i], s->programs.fd[i]);
	for (int k = 0; k < GROWN && s->grows && !err; k++)
		err = pin_stage(d, map_names[grown[k]], s->map_fd[grown[k]]);
	return err;
}

static int commit(const struct datapath *d, const struct successor *s)
{
	int err = 0;

	for (int i = 0; i < PROG_COUNT && !err; i++)
		err = s->programs.fd[i] >= 0 ? pin_commit(d, prog_pins[i])
					     : pin_remove(d, prog_pins[i]);
	for (int k = 0; k < GROWN && s->grows && !err; k++)
		err = pin_commit(d, map_names[grown[k]]);
	return err;
}

/* What ran before runs again; d itself still stands for that. */
static void restore(struct datapath *d, const struct successor *s,
		    const uint8_t build[32])
{
	struct diag_list ignored = { 0 };
	int err = 0;

	/* At the first start there was nothing. */
	if (d->programs.fd[PROG_XDP] < 0)
		return;
	for (int i = 0; i < PROG_COUNT && !err; i++)
		if (d->programs.fd[i] >= 0)
			err = pin_put(d, prog_pins[i], d->programs.fd[i]);
	for (int k = 0; k < GROWN && s->grows && !err; k++)
		err = pin_put(d, map_names[grown[k]], d->map_fd[grown[k]]);
	if (attach_swap(d, &d->programs, &ignored) == 0 && !err)
		memcpy(control_of(d)->build, build, 32);
	diag_list_release(&ignored);
}

/* Steps 2 to 4. */
static int install(struct datapath *d, const struct successor *s,
		   struct diag_list *diags)
{
	struct xlb_control *control = control_of(d);
	uint8_t build[32];
	int err;

	memcpy(build, control->build, sizeof(build));
	memset(control->build, 0, sizeof(control->build));
	err = attach_swap(d, &s->programs, diags);
	if (!err) {
		err = commit(d, s);
		if (err)
			complain(d, err, "pin the programs", diags);
	}
	if (err)
		restore(d, s, build);
	return err;
}

/* From here on d stands for the successor, which is left empty. */
static void adopt(struct datapath *d, struct successor *s)
{
	struct programs old = d->programs;

	d->programs = s->programs;
	s->programs = old;
	for (int k = 0; k < GROWN && s->grows; k++) {
		int fd = d->map_fd[grown[k]];

		d->map_fd[grown[k]] = s->map_fd[grown[k]];
		s->map_fd[grown[k]] = fd;
	}
	if (s->grows) {
		struct mapping slots = d->mapped[MAP_SLOTS];

		d->mapped[MAP_SLOTS] = s->slots;
		s->slots = slots;
		d->stamp_count = s->stamp_count;
		datapath_stamps_drop(d);
	}
	view_update(d);
	__atomic_store_n(&control_of(d)->features, s->features,
			 __ATOMIC_RELEASE);
	build_digest(d, s->features, control_of(d)->build);
}

static void successor_release(struct datapath *d, struct successor *s)
{
	programs_release(&s->programs);
	mapping_drop(&s->slots);
	for (int k = 0; k < GROWN && s->grows; k++)
		if (s->map_fd[grown[k]] >= 0 &&
		    s->map_fd[grown[k]] != d->map_fd[grown[k]])
			close(s->map_fd[grown[k]]);
	pins_unstage(d);
}

/* The programs that are needed. */
static int load_all(struct datapath *d, struct successor *s,
		    struct diag_list *diags)
{
	int err = 0;

	for (enum prog_index i = 0; i < PROG_COUNT && !err; i++)
		if (i != PROG_TC || filters_any(d))
			err = program_load(d, i, s->map_fd, s->features,
					   &s->programs, diags);
	return err;
}

/* ready: those programs, which are taken over; NULL: load them. */
static int succeed(struct datapath *d, uint32_t features, uint32_t slots,
		   struct programs *ready, struct diag_list *diags)
{
	struct successor s = { .features = features,
			       .programs.fd = { -1, -1, -1 } };
	int err = 0;

	memcpy(s.map_fd, d->map_fd, sizeof(s.map_fd));
	if (slots > d->view.slot_count) {
		err = grow(d, &s, slots);
		if (err)
			complain(d, err, "make room for more slots", diags);
	}
	if (!err && ready)
		s.programs = programs_take(ready);
	else if (!err)
		err = load_all(d, &s, diags);
	if (!err) {
		err = stage(d, &s);
		if (err)
			complain(d, err, "pin the programs", diags);
	}
	if (!err)
		err = install(d, &s, diags);
	if (!err)
		adopt(d, &s);
	successor_release(d, &s);
	return err;
}

int programs_succeed(struct datapath *d, uint32_t features,
		     struct programs *ready, struct diag_list *diags)
{
	int err = succeed(d, features, 0, ready, diags);

	if (!err)
		datapath_grace(d);
	return err;
}

int load_programs(struct datapath *d, const struct datapath_config *cfg,
		  struct diag_list *diags)
{
	/* Who traced before is gone, or would have said that it's over. */
	uint32_t features =
		(cfg->features | control_of(d)->features) & ~XLB_FEATURE_TRACE;
	uint8_t digest[32];
	int err;

	if (d->read_only) {
		programs_pinned(d, &d->programs);
		return 0;
	}
	pins_unstage(d);
	build_digest(d, features, digest);
	if (!programs_pinned(d, &d->programs) ||
	    (d->programs.fd[PROG_TC] < 0 && filters_any(d)) ||
	    memcmp(digest, control_of(d)->build, sizeof(digest)) != 0 ||
	    cfg->slots > d->view.slot_count)
		err = succeed(d, features, cfg->slots, NULL, diags);
	else
		err = attach_swap(d, &d->programs, diags);
	if (!err)
		samples_drop(d);
	return err;
}

/*
 * The grace period is for what the caller does next: packets that are under
 * way in the old programs must not meet what only the new ones know.
 */
int datapath_reload(struct datapath *d, uint32_t features, uint32_t slots,
		    struct diag_list *diags)
{
	int err;

	seam_change("datapath_reload");
	features |= control_of(d)->features;
	if (features == control_of(d)->features && slots <= d->view.slot_count)
		return 0;
	if (d->read_only)
		return -EPERM;
	err = succeed(d, features, slots, NULL, diags);
	if (!err)
		datapath_grace(d);
	return err;
}
