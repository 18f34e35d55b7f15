/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor as a service: `insula-run --control`, started by insulad and by nobody else, with
 * inherited descriptors (control_linux.h) or handles (control_win.h): where it listens; the set-up,
 * a JSON object {id, token, config, console, log_max, alone}, of which config is what insula-run
 * --json takes, and alone says that the guest does nothing but what is asked of it; the result
 * file, into which goes one JSON line at the end, from its beginning on, with one write.
 *
 * Each packet is one JSON object: {id, op, params} to the supervisor, {id, result} or
 * {id, error: {reason, text}} back, {event, data} at any time to everybody who has said hello. On
 * Linux a descriptor travels with the packet that speaks of it, on Windows the name of a pipe. See
 * docs/protocol.md.
 *
 * One thread, the supervisor's; nothing here waits. All of these do nothing without a control
 * (NULL): insula-run on its own.
 */
#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "spec/handover.h"

struct control;
struct vm;

/* Register with the VM's loop, before its first turn. */
void control_begin(struct control *k, struct vm *vm);
/* When control_turn() wants to be called at the latest (clock_ns()), 0: not at all. */
uint64_t control_deadline(const struct control *k, const struct vm *vm);
/* In each turn of the loop: what is overdue, and the log. */
void control_turn(struct control *k, struct vm *vm);
/* Tell everybody: "running", "helper-died" ... `name` and `text` may be NULL. */
void control_event(struct control *k, const char *event, const char *name, const char *text);
/* insula-vmm says MSG_PAUSED. */
void control_paused(struct control *k, struct vm *vm, bool paused);
/* The guest has told its statistics: balloon_ask(). */
void control_balloon(struct control *k, struct vm *vm);
/* What the guest has of what can be resized is not what it was. control_memory(): of its memory,
 * which is told if it matters to whoever counts what the VM may use. */
void control_memory(struct control *k, struct vm *vm);
void control_resized(struct control *k, struct vm *vm);
/* The policy of a card is in force; `why`: it is not. */
void control_policy(struct control *k, const char *device, const char *why);
bool control_is_paused(const struct control *k);
/* The VM has ended, or could not begin: write the result, say so, close everything, free. */
void control_finish(struct control *k, const struct vm *vm);

#endif
