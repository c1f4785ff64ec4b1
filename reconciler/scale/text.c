/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A decision in words and as JSON, and the names history.db uses. */
#include "scale/scale.h"

#include <jansson.h>
#include <stdlib.h>

const char *scale_direction_name(enum scale_direction d)
{
	switch (d) {
	case SCALE_HOLD:
		return "hold";
	case SCALE_UP:
		return "up";
	case SCALE_DOWN:
		return "down";
	}
	return "";
}

const char *scale_reason_name(enum scale_reason r)
{
	switch (r) {
	case REASON_STEADY:
		return "steady";
	case REASON_ABOVE_TARGET:
		return "above_target";
	case REASON_BELOW_TARGET:
		return "below_target";
	case REASON_THRESHOLD_HIGH:
		return "threshold_high";
	case REASON_THRESHOLD_LOW:
		return "threshold_low";
	case REASON_BOUNDS:
		return "bounds";
	case REASON_REPLACE:
		return "replace";
	case REASON_RESTORED_DRAIN:
		return "restored_drain";
	}
	return "";
}

const char *scale_limit_name(enum scale_limit l)
{
	switch (l) {
	case LIMIT_NONE:
		return "";
	case LIMIT_MAX:
		return "max";
	case LIMIT_MIN:
		return "min";
	case LIMIT_STEP:
		return "step";
	case LIMIT_COOLDOWN:
		return "cooldown";
	case LIMIT_WINDOW:
		return "window";
	case LIMIT_TOLERANCE:
		return "tolerance";
	case LIMIT_WARMUP:
		return "warmup";
	case LIMIT_MISSING_SAMPLES:
		return "missing_samples";
	case LIMIT_CAPACITY:
		return "capacity";
	case LIMIT_PAUSED:
		return "paused";
	}
	return "";
}

/* The signal whose proposal won, or else one that spoke, or the first. */
static const struct scale_signal_view *leader(const struct scale_decision *d)
{
	const struct scale_signal_view *best = NULL;

	for (size_t i = 0; i < d->signal_count; i++) {
		const struct scale_signal_view *s = &d->signals[i];

		if (s->present && !s->abstains && s->proposal == d->wanted)
			return s;
		if (s->present && !best)
			best = s;
	}
	return best;
}

static void add_missing(const struct scale_decision *d, struct buf *out)
{
	const char *sep = "no sample of ";

	for (size_t i = 0; i < d->signal_count; i++) {
		if (d->signals[i].present)
			continue;
		buf_addf(out, "%s%s", sep, metric_name(d->signals[i].metric));
		sep = ", ";
	}
	if (*sep == 'n')
		buf_adds(out, "samples missing");
}

static void add_signal(const struct scale_decision *d, const char *relation,
		       struct buf *out)
{
	const struct scale_signal_view *s = leader(d);

	if (s)
		buf_addf(out, "%s %.1f is %s %.1f", metric_name(s->metric),
			 s->value, relation, s->target);
	else
		buf_adds(out, "no signal");
}

static void add_steady(const struct scale_decision *d, struct buf *out)
{
	const struct scale_signal_view *s = leader(d);

	if (d->limited_by == LIMIT_WARMUP && !s)
		buf_adds(out, "no VM is ready and past its warm-up");
	else if (d->limited_by == LIMIT_MISSING_SAMPLES || !s)
		d->signal_count ? add_missing(d, out)
				: buf_adds(out, "the pool has a fixed size");
	else
		buf_addf(out, "%s %.1f calls for no change (%.1f)",
			 metric_name(s->metric), s->value, s->target);
}

static void add_cause(const struct scale_decision *d, struct buf *out)
{
	switch (d->reason) {
	case REASON_STEADY:
		add_steady(d, out);
		break;
	case REASON_ABOVE_TARGET:
		add_signal(d, "above target", out);
		break;
	case REASON_BELOW_TARGET:
		add_signal(d, "below target", out);
		break;
	case REASON_THRESHOLD_HIGH:
		add_signal(d, "above high", out);
		break;
	case REASON_THRESHOLD_LOW:
		add_signal(d, "below low", out);
		break;
	case REASON_BOUNDS:
		buf_addf(out, "%u VMs are %s", d->from,
			 d->to > d->from ? "fewer than the minimum"
					 : "more than the pool may have");
		break;
	case REASON_REPLACE:
		buf_adds(out, "a VM is being replaced");
		break;
	case REASON_RESTORED_DRAIN:
		buf_adds(out, "a draining VM was taken back");
		break;
	}
}

void scale_message(const struct scale_decision *d, struct buf *out)
{
	add_cause(d, out);
	if (d->to == d->from)
		buf_addf(out, ": stays at %u %s", d->to,
			 d->to == 1 ? "VM" : "VMs");
	else
		buf_addf(out, ": %u -> %u %s", d->from, d->to,
			 d->to == 1 ? "VM" : "VMs");
	if (d->wanted != d->to && d->limited_by != LIMIT_NONE)
		buf_addf(out, " (%u wanted, limited by %s)", d->wanted,
			 scale_limit_name(d->limited_by));
}

/* {"metric", "value": null when missing, "target", "proposal": null when it
 * abstains}, in this order. */
static json_t *signal_json(const struct scale_signal_view *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "metric", json_string(metric_name(s->metric)));
	json_object_set_new(o, "value",
			    s->present ? json_real(s->value) : json_null());
	json_object_set_new(o, "target", json_real(s->target));
	json_object_set_new(o, "proposal",
			    s->abstains ? json_null()
					: json_integer(s->proposal));
	return o;
}

void scale_signals_json(const struct scale_decision *d, struct buf *out)
{
	json_t *array = json_array();
	char *text;

	for (size_t i = 0; i < d->signal_count; i++)
		json_array_append_new(array, signal_json(&d->signals[i]));
	text = json_dumps(array, JSON_COMPACT | JSON_REAL_PRECISION(8));
	buf_adds(out, text ? text : "[]");
	free(text);
	json_decref(array);
}
