/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets sampled live: the programs that do it, and their ring buffer, which
 * is made and pinned for as long.
 */
#include "actual/bpf_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/mem.h"
#include "base/seam.h"

#define SAMPLES "samples" /* the pin, and the map's name in the programs */
#define SAMPLES_BYTES (1u << 18)

static struct xlb_tables *tables_of(const struct datapath *d)
{
	return d->mapped[MAP_TABLES].mem;
}

int samples_need(struct datapath *d)
{
	int fd, err;

	if (d->samples >= 0)
		return 0;
	fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, SAMPLES, 0, 0, SAMPLES_BYTES,
			    NULL);
	if (fd < 0)
		return -errno;
	err = pin_put(d, SAMPLES, fd);
	if (err)
		close(fd);
	else
		d->samples = fd;
	return err;
}

void samples_drop(struct datapath *d)
{
	if (d->samples >= 0)
		close(d->samples);
	d->samples = -1;
	pin_remove(d, SAMPLES);
}

bool datapath_traces(const struct datapath *d)
{
	return d->view.control->features & XLB_FEATURE_TRACE;
}

int datapath_trace_start(struct datapath *d, const struct xlb_trace *what,
			 struct diag_list *diags)
{
	uint32_t features = d->view.control->features;
	struct programs before;
	int err;

	if (d->read_only)
		return -EPERM;
	seam_change("datapath_trace_start");
	tables_of(d)->trace = *what;
	if (datapath_traces(d))
		return 0;
	before = programs_dup(&d->programs);
	err = programs_succeed(d, features | XLB_FEATURE_TRACE, NULL, diags);
	if (err) {
		programs_release(&before);
		samples_drop(d);
		return err;
	}
	d->before = before;
	d->before_features = features;
	return 0;
}

/* Do the programs from before serve still?  Else they are loaded anew. */
static bool before_serves(const struct datapath *d, uint32_t features)
{
	for (int i = 0; i < PROG_COUNT; i++)
		if (d->programs.fd[i] >= 0 && d->before.fd[i] < 0)
			return false;
	return d->before_features == features && d->before.fd[PROG_XDP] >= 0 &&
	       program_uses_maps(d, d->before.fd[PROG_XDP]);
}

int datapath_trace_stop(struct datapath *d, struct diag_list *diags)
{
	uint32_t features = d->view.control->features & ~XLB_FEATURE_TRACE;
	int err = 0;

	if (d->read_only)
		return -EPERM;
	seam_change("datapath_trace_stop");
	tables_of(d)->trace.until = 0;
	if (datapath_traces(d))
		err = programs_succeed(
			d, features,
			before_serves(d, features) ? &d->before : NULL, diags);
	programs_release(&d->before);
	if (!err)
		samples_drop(d);
	return err;
}

/* ---- the reading side ---- */

struct sampler {
	struct ring_buffer *ring;
	int fd;
	sample_fn fn;
	void *arg;
};

static int on_sample(void *arg, void *data, size_t size)
{
	struct sampler *s = arg;

	if (size >= sizeof(struct xlb_sample))
		s->fn(s->arg, data);
	return 0;
}

int sampler_open(const char *bpffs, sample_fn fn, void *arg,
		 struct sampler **ret)
{
	AUTO_FREE char *path = mem_printf("%s/" SAMPLES, bpffs);
	int fd = bpf_obj_get(path), err;
	struct sampler *s;

	if (fd < 0)
		return -errno;
	s = mem_alloc(sizeof(*s));
	s->fn = fn;
	s->arg = arg;
	s->fd = fd;
	s->ring = ring_buffer__new(fd, on_sample, s, NULL);
	if (!s->ring) {
		err = -errno;
		close(fd);
		mem_free_ptr(&s);
		return err;
	}
	*ret = s;
	return 0;
}

int sampler_fd(const struct sampler *s)
{
	return ring_buffer__epoll_fd(s->ring);
}

int sampler_take(struct sampler *s)
{
	int err = ring_buffer__consume(s->ring);

	return err < 0 ? err : 0;
}

void sampler_close(struct sampler *s)
{
	if (!s)
		return;
	ring_buffer__free(s->ring);
	close(s->fd);
	mem_free_ptr(&s);
}
