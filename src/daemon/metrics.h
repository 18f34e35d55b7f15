/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters (metrics.c). */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "record.h"

struct daemon;

json_object *metrics_json(struct daemon *d);
#define METRICS 12
/* One of the counters. */
uint64_t metric(const struct daemon *d, size_t i, const char **name, const char **help);
void metrics_states(const struct daemon *d, unsigned n[VM_STATES]);

#endif
