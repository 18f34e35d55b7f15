/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is told what (event.c). */
#ifndef DAEMON_EVENT_H
#define DAEMON_EVENT_H

#include <json-c/json.h>

struct daemon;
struct machine;

/* Tell the subscribers who may know of `m`. `data` is taken over, may be NULL. */
void event_emit(struct daemon *d, struct machine *m, const char *what, json_object *data);

#endif
