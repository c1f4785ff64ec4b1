/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a pool scales. */
#include "desired/parse.h"

#include <string.h>

#include "desired/complain.h"
#include "desired/names.h"
#include "desired/value.h"

/* struct scale_decision has room for so many: each metric, either way. */
#define SIGNAL_MAX ((size_t)METRIC_COUNT * 2)

/* What a level means depends on the metric, so it is converted last. */
struct signal_reading {
	struct signal_spec s;
	const struct node *metric, *target, *high, *low, *hold;
};

#define FIELD(name) offsetof(struct signal_reading, name)
static const struct key signal_keys[] = {
	KEY("metric", read_keep, FIELD(metric), .required = true,
	    .choices = metric_names,
	    .help = "Mean over the VMs that are ready"),
	KEY("target", read_keep, FIELD(target), .form = FORM_LEVEL,
	    .help = "The level to hold"),
	KEY("high", read_keep, FIELD(high), .form = FORM_LEVEL,
	    .help = "Above it for all of `for`: grow"),
	KEY("low", read_keep, FIELD(low), .form = FORM_LEVEL,
	    .help = "Below it for all of `for`: shrink"),
	KEY("for", read_keep, FIELD(hold), .form = FORM_DURATION,
	    .max = NS_HOUR, .help = "With high and low: for how long",
	    .fallback = "10s"),
};
#undef FIELD
KEY_TABLE_RULES(
	signal_table, "a signal", signal_keys,
	"{\"oneOf\": [{\"required\": [\"target\"], \"not\": {\"required\": [\"for\"]}},"
	" {\"required\": [\"high\", \"low\"]}],"
	" \"dependencies\": {\"high\": [\"low\"], \"low\": [\"high\"]}}");

/* zero: 0 is a fine level. */
static void read_level(struct reader *r, enum metric m, const char *name,
		       const struct node *v, bool zero, double *ret)
{
	bool percent = m == METRIC_CPU;
	double level;

	if (v->kind != NODE_SCALAR ||
	    !(percent ? value_percent(v->text, &level)
		      : value_number(v->text, &level)))
		complain(r->diags, &v->src,
			 percent ? "a percentage such as 60%"
				 : "a number such as 800 or 50k",
			 "\"%s\" is not a level of %s", name, metric_name(m));
	else if ((level <= 0 && !zero) || (percent && level > 100))
		complain(r->diags, &v->src,
			 percent ? "above 0% and up to 100%" : "above 0",
			 "\"%s\" is out of range: %s", name, v->text);
	else
		*ret = level;
}

static void read_levels(struct reader *r, const struct node *n,
			struct signal_reading *g)
{
	struct signal_spec *s = &g->s;

	if (g->target && !g->high && !g->low) {
		s->kind = SIGNAL_TARGET;
		read_level(r, s->metric, "target", g->target, false,
			   &s->target);
		if (g->hold)
			complain(
				r->diags, &g->hold->src,
				"remove it; windows and cooldowns damp a target",
				"\"for\" goes with high and low");
		return;
	}
	if (g->target || !g->high || !g->low) {
		complain(
			r->diags, &n->src,
			"\"target: 60%\", or \"high: 80%, low: 30%, for: 10s\"",
			"a signal needs either target, or high and low");
		return;
	}
	s->kind = SIGNAL_THRESHOLD;
	s->hold = 10 * NS_SECOND;
	read_level(r, s->metric, "high", g->high, false, &s->high);
	read_level(r, s->metric, "low", g->low, true, &s->low);
	if (g->hold)
		read_duration(r, table_key(&signal_table, "for"), g->hold,
			      &s->hold);
	if (s->high > 0 && s->low >= s->high)
		complain(r->diags, &g->low->src,
			 "leave a gap between them, or it will flap",
			 "low must be smaller than high");
}

static bool signal_is_new(struct reader *r, const struct scaling_spec *sc,
			  const struct signal_spec *s)
{
	for (size_t i = 0; i < sc->signal_count; i++) {
		const struct signal_spec *old = &sc->signals[i];

		if (old->metric != s->metric || old->kind != s->kind)
			continue;
		complain(
			r->diags, &s->src, "keep one of them",
			"a second signal of this kind for %s; one stands at " PLACE_FMT
			" already",
			metric_name(s->metric), PLACE_ARG(&old->src));
		return false;
	}
	return true;
}

static void read_signal(struct reader *r, const struct node *n,
			struct scaling_spec *sc)
{
	struct signal_reading g = { .s = { .src = n->src } };
	size_t before = r->diags->errors;
	int metric = -1;

	if (!read_mapping(r, &signal_table, n, &g) || !g.metric)
		return;
	read_choice(r, table_key(&signal_table, "metric"), g.metric, &metric);
	if (metric < 0)
		return;
	g.s.metric = (enum metric)metric;
	read_levels(r, n, &g);
	if (r->diags->errors == before && signal_is_new(r, sc, &g.s) &&
	    sc->signal_count < SIGNAL_MAX)
		*ARENA_PUSH(r->arena, sc->signals, sc->signal_count) = g.s;
}

static void read_signals(struct reader *r, const struct key *k,
			 const struct node *v, void *field)
{
	if (!expect_members(r, k->name, v))
		return;
	for (size_t i = 0; i < v->count && !complain_full(r->diags); i++)
		read_signal(r, &v->items[i], field);
}

#define FIELD(name) offsetof(struct direction_spec, name)
static const struct key direction_keys[] = {
	KEY("window", read_duration, FIELD(window), .max = NS_DAY,
	    .help = "Down: the largest proposal in it counts; up: the smallest"),
	KEY("step", read_count, FIELD(step), .min = 1, .max = 1000,
	    .help = "VMs at most at a time"),
	KEY("cooldown", read_duration, FIELD(cooldown), .max = NS_DAY,
	    .help = "From the end of one action to the next"),
};
#undef FIELD
KEY_TABLE(direction_table, "a scaling direction", direction_keys);

#define FIELD(name) offsetof(struct scaling_spec, name)
static const struct key scaling_keys[] = {
	KEY("interval", read_duration, FIELD(interval), .min = 100 * NS_MS,
	    .max = NS_HOUR, .help = "Between decisions", .fallback = "5s"),
	KEY("signals", read_signals, 0, .required = true, .list = true,
	    .least = 1, .inner = &signal_table,
	    .help = "The largest proposal wins"),
	KEY("tolerance", read_percent, FIELD(tolerance), .max = 99,
	    .help = "No change within so much of a target", .fallback = "10%"),
	KEY("up", read_table, FIELD(up), .inner = &direction_table,
	    .help = "Growing: window 0s, step 4, cooldown 30s"),
	KEY("down", read_table, FIELD(down), .inner = &direction_table,
	    .help = "Shrinking: window 300s, step 1, cooldown 60s"),
	KEY("warmup", read_duration, FIELD(warmup), .max = NS_HOUR,
	    .help = "A new VM's load says nothing for so long",
	    .fallback = "45s"),
	KEY("missing", read_choice, FIELD(missing), .choices = missing_names,
	    .help = "No sample: change nothing (hold), or let other signals raise (up_only)",
	    .fallback = "hold"),
	KEY_LATER("schedule", NULL),
	KEY("predict", read_word, 0, .choices = predict_names,
	    .help = "Only off is supported yet", .fallback = "off"),
};
#undef FIELD
KEY_TABLE_SHARED(scaling_table, "scaling", scaling_keys);

void scaling_read(struct reader *r, const struct node *v,
		  struct scaling_spec *ret)
{
	*ret = (struct scaling_spec){
		.src = v->src,
		.interval = 5 * NS_SECOND,
		.tolerance = 10,
		.up = { .window = 0, .step = 4, .cooldown = 30 * NS_SECOND },
		.down = { .window = 300 * NS_SECOND,
			  .step = 1,
			  .cooldown = 60 * NS_SECOND },
		.warmup = 45 * NS_SECOND,
		.missing = MISSING_HOLD,
	};
	read_mapping(r, &scaling_table, v, ret);
}
