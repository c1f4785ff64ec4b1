/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The words of the file for the model's enums: one list for both ways. */
#ifndef DESIRED_NAMES_H
#define DESIRED_NAMES_H

#include "desired/keys.h"

extern const struct choice hook_names[];
extern const struct choice announce_names[];
extern const struct choice vms_names[];
extern const struct choice protocol_names[];
extern const struct choice algorithm_names[];
extern const struct choice forwarding_names[];
extern const struct choice udp_names[];
extern const struct choice state_names[];
extern const struct choice health_names[]; /* HEALTH_RUNNING has no word */
extern const struct choice record_names[];
extern const struct choice rcode_names[];
extern const struct choice panic_names[];
extern const struct choice metric_names[];
extern const struct choice missing_names[];
extern const struct choice predict_names[];

const char *choice_name(const struct choice *names, int value);

#endif
