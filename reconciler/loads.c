/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "loads.h"

#include <stdlib.h>

#include "reconcile.h"
#include "tables/sweep.h"

#define LOAD_TOP (1u << 28) /* of a recount; the kernel adds to it */
#define CPU_STEP (XLB_LOAD_UNIT / 16) /* a new flow, as percent of CPU */
#define RATE_UNIT 64u /* one packet a second */
#define RATE_SMOOTH 0.3

struct entry {
	uint32_t id;
	uint16_t service;
	uint16_t weight;
	double load; /* before the weight counts */
};

struct rate {
	uint64_t packets;
	double per_second;
	uint32_t seen; /* round */
};

struct loads {
	struct reconciler *r;
	struct entry *entries; /* sorted by service while they are told */
	size_t count;
	struct rate *rates; /* XLB_BACKENDS, once needed */
	double *cpu; /* XLB_BACKENDS, once needed; < 0: unknown */
	uint32_t round;
};

struct loads *loads_new(struct reconciler *r)
{
	struct loads *l = mem_alloc(sizeof(*l));

	l->r = r;
	return l;
}

void loads_free(struct loads *l)
{
	free(l->entries);
	free(l->rates);
	free(l->cpu);
	free(l);
}

static bool is_least(const struct service_spec *s)
{
	return s->algorithm == ALGORITHM_LEAST_CONNECTIONS ||
	       s->algorithm == ALGORITHM_LEAST_LOAD;
}

bool loads_wanted(const struct spec *spec)
{
	for (size_t i = 0; spec && i < spec->service_count; i++)
		if (is_least(&spec->services[i]))
			return true;
	return false;
}

void loads_begin(struct loads *l)
{
	free(l->entries);
	l->entries = NULL;
	l->count = 0;
}

void loads_add(struct loads *l, uint32_t id, const struct xlb_owner *owner)
{
	*MEM_PUSH(l->entries, l->count) = (struct entry){
		.id = id,
		.service = (uint16_t)owner->service,
		.weight = owner->weight ? owner->weight : 1,
	};
}

static int by_service(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->service != y->service
		       ? (x->service > y->service) - (x->service < y->service)
		       : (x->id > y->id) - (x->id < y->id);
}

/* All backends of a service by one measure, scaled so that it fits. */
static void set_loads(struct loads *l, const struct entry *e, size_t count,
		      double step)
{
	double top = 0, scale = 1;

	for (size_t i = 0; i < count; i++)
		if (e[i].load / e[i].weight > top)
			top = e[i].load / e[i].weight;
	while (top * scale > LOAD_TOP)
		scale /= 2;
	for (size_t i = 0; i < count; i++) {
		double by = scale / e[i].weight;
		struct xlb_load load = { .load = (uint32_t)(e[i].load * by),
					 .step = (uint32_t)(step * by) };

		if (!load.step)
			load.step = 1;
		datapath_set_load(l->r->dp, e[i].id, &load);
	}
}

static double packets_per_second(struct loads *l, uint32_t id, double seconds)
{
	struct rate *rate;
	uint64_t packets = datapath_count(l->r->dp, id).packets;
	double now;

	if (!l->rates)
		l->rates = mem_array(XLB_BACKENDS, sizeof(*l->rates));
	rate = &l->rates[id];
	now = (double)(packets - rate->packets) / seconds;
	/* Of one not seen in the last round nothing is known yet. */
	if (rate->seen + 1 != l->round)
		rate->per_second = 0;
	else
		rate->per_second += (now - rate->per_second) * RATE_SMOOTH;
	rate->packets = packets;
	rate->seen = l->round;
	return rate->per_second;
}

static void read_cpus(struct loads *l)
{
	const struct member_run *m;
	size_t i = 0;

	if (!l->cpu)
		l->cpu = mem_array(XLB_BACKENDS, sizeof(*l->cpu));
	for (uint32_t id = 0; id < XLB_BACKENDS; id++)
		l->cpu[id] = -1;
	while ((m = strmap_next(&l->r->members, &i))) {
		const struct vm_run *v =
			m->vm ? strmap_get(&l->r->vms, m->name) : NULL;

		if (v && v->cpu_when && m->id < XLB_BACKENDS)
			l->cpu[m->id] = v->cpu_percent;
	}
}

/* All by their CPU, or, where one has no figure, all by their packets. */
static void least_load(struct loads *l, struct entry *e, size_t count,
		       double seconds)
{
	bool known = true;

	for (size_t i = 0; i < count; i++) {
		e[i].load = packets_per_second(l, e[i].id, seconds) * RATE_UNIT;
		known &= l->cpu[e[i].id] >= 0;
	}
	for (size_t i = 0; known && i < count; i++)
		e[i].load = l->cpu[e[i].id] * XLB_LOAD_UNIT;
	set_loads(l, e, count, known ? CPU_STEP : RATE_UNIT);
}

static void least_connections(struct loads *l, const struct sweep *sweep,
			      struct entry *e, size_t count)
{
	for (size_t i = 0; i < count; i++)
		e[i].load =
			(double)sweep_active(sweep, e[i].id) * XLB_LOAD_UNIT;
	set_loads(l, e, count, XLB_LOAD_UNIT);
}

static const struct service_spec *spec_of(const struct loads *l, uint16_t id)
{
	const char *name =
		datapath_view(l->r->dp)->services[id % XLB_SERVICES].name;

	return name[0] ? spec_find_service(l->r->spec, name) : NULL;
}

void loads_tell(struct loads *l, const struct sweep *sweep, double seconds)
{
	size_t n;

	l->round++;
	read_cpus(l);
	if (l->count)
		qsort(l->entries, l->count, sizeof(*l->entries), by_service);
	for (size_t i = 0; i < l->count; i += n) {
		struct entry *e = &l->entries[i];
		const struct service_spec *spec = spec_of(l, e->service);

		for (n = 1; i + n < l->count && e[n].service == e->service;)
			n++;
		if (!spec || !is_least(spec))
			continue;
		if (spec->algorithm == ALGORITHM_LEAST_LOAD)
			least_load(l, e, n, seconds);
		else
			least_connections(l, sweep, e, n);
	}
}
