/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices that come and go while the VM runs, each in a place.
 *
 * insula-vmm is sealed when the guest begins: it takes no memory of ours any more. So a place is
 * made before, with the device page that whatever comes there will have; to the guest it is a port
 * of PCI Express, a slot into which a card is put. A place is one of the VM's devices, the last
 * ones, of the class device_place while nothing is there.
 *
 *            add                 ready             MSG_PLUGGED
 *   EMPTY -----------> STARTS -----------> COMES --------------> THERE
 *     ^                   |                  |                   |   ^
 *     |                   | helper dies,     | the same          |   | the guest does not
 *     |                   | no answer        v                   v   | give it up in time
 *     |                   |                UNDOES              LEAVES
 *     |    nothing of it  v                  |  MSG_UNPLUGGED    |
 *     +---- QUIETS <--- STOPS <--------------+-------------------+
 *
 * A helper is at work before the guest hears of the device. It is stopped in order when the device
 * is off the bus, also if it was taken away without asking: what it has acknowledged is written,
 * and what is in flight ends. Only then its backing is closed, with its locks. The page is made new
 * when no process has it any more.
 *
 * Between EMPTY and STARTS, CONNECTS is a storage module's disk whose server has not taken the
 * connection yet, or a card whose port Open vSwitch has not made yet; there is no helper to stop if
 * that fails.
 *
 * Nothing here waits: insula-vmm's and the helper's answers come by their channels, and each state
 * but EMPTY and THERE has a deadline, which is a timer of the loop. A helper that dies while the
 * device is THERE or LEAVES is restarted as any other (recover.h).
 *
 * Thread: the supervisor's. Windows has no places (--hotplug is Linux's alone).
 */
#ifndef SUPERVISOR_PLUG_H
#define SUPERVISOR_PLUG_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>
#include <insula/proto.h>

#include "child_state.h"

struct device;
struct plug;
struct vm;

#define PLUG_DEADLINE_MS 30000u /* for the guest to give something up; Linux takes five seconds */
#define PLUG_NAME_LEN 15        /* so that it fits where the others have theirs */

/* What was asked for has happened (0), or not: a negative errno and a line. Once. */
typedef void plug_done(void *ctx, struct vm *vm, unsigned place, int rc, const struct err *e);

/* The places that the configuration wants, as the last devices. */
int plug_open(struct vm *vm, struct err *e);
/* When its devices have been freed. */
void plug_close(struct vm *vm);

/* Add what config_plug() takes; `name`: of the device, NULL: one is made. 0: it is under way, in
 * *place. -EINVAL, -EEXIST, -EBUSY (not now), -EOPNOTSUPP (there are no places), -ENOSPC (all are
 * in use), or what the system says of its backing: nothing has happened. */
int plug_add(struct vm *vm, json_object *device, const char *name, plug_done *done, void *ctx,
	     unsigned *place, struct err *e);
/* Take it away: the guest is asked, and has `ms`; or with `force` it is not. -ENXIO: there is none;
 * -EINVAL: it is there from the start; -EBUSY. */
int plug_remove(struct vm *vm, const char *name, bool force, uint64_t ms, plug_done *done,
		void *ctx, unsigned *place, struct err *e);

/* As the list has what is in it; the caller's. NULL: nothing is. */
json_object *plug_json(const struct vm *vm, unsigned place);
/* All devices of the VM, and how many places are free; the caller's. */
json_object *plug_list(const struct vm *vm);

/* An add is under way. */
bool plug_is_adding(const struct vm *vm);
/* Something is in a place, or on its way to it or from it: its name. NULL: all are empty. */
const char *plug_present(const struct vm *vm);
/* Does the guest have it? */
bool plug_is_there(const struct plug *p);

/* ---- what others hear ---- */

/* Its helper is ready. True: it is the first one. */
bool plug_helper_ready(struct plug *p);
/* It says why it cannot. */
void plug_helper_failed(struct plug *p, const struct msg_failed *f);
/* It has died. False: it is to be restarted. */
bool plug_helper_died(struct plug *p, enum child_state before, const char *how);
/* The program of the host behind it has ended. False: that is to be told. */
bool plug_peer_died(struct plug *p, const char *name, const char *how, const char *last);
/* insula-vmm says so. False: that cannot be. */
bool plug_plugged(struct vm *vm, const struct msg_plugged *m);
bool plug_unplugged(struct vm *vm, const struct msg_plugged *m);

/* When plug_overdue() has something to do, clock_ns(); 0: not by itself. */
uint64_t plug_due(const struct vm *vm);
void plug_overdue(struct vm *vm);

#endif
