/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM that goes on from a snapshot (snapdir.h) instead of booting.
 *
 *   restore_take()   before anything is opened: the snapshot is read, and what it says of the VM
 *                    becomes the configuration's, where the user has not said otherwise
 *   restore_fill()   the VM is made: the device pages get their contents, and what the guest has
 *                    mounted is compared with what it had
 *   restore_start()  insula-pager starts, in its jail, beside all the others
 *   restore_loaded() it serves the memory, or has read all of it: the guest may go on
 *
 * Where /dev/userfaultfd can be opened memory is filled when it is touched (src/pager/serve.h): each
 * process that maps it gives us a descriptor of its faults first (faults.h). When insula-pager dies a
 * new one takes over; who waits for a page waits a little longer.
 *
 * A restored helper is a restarted helper: it starts from its page.
 *
 * Of what a snapshot names on the host nothing is used without its seal, and commands are not run
 * again. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_RESTORE_H
#define SUPERVISOR_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/proto.h>

#include "spec/config.h"

struct child;
struct paths;
struct restore;
struct json_object;
struct vm;

/* Does nothing without c->restore. Sets c->restoring, which restore_free() frees. -EINVAL and
 * others: the user's input, with a line. */
int restore_take(struct vm_config *c, struct err *e);
void restore_free(struct restore *r);

/* Into machine.json: the names of the devices on PCI, for restore_bus(). False: there is none. */
bool restore_name_pci(const struct vm *vm, struct json_object *machine);
/* Which bus the device of this name was on; `said`: what is said of it now. -EINVAL: another
 * one. */
int restore_bus(const struct vm_config *c, const char *name, enum config_bus said, bool *pci,
		struct err *e);
/* The metadata that its VM had, as JSON, unless others are said now; NULL: none. */
const char *restore_metadata(const struct vm_config *c);
/* And were tokens optional? */
bool restore_metadata_open(const struct vm_config *c);
/* boot_stale() of a template. */
int restore_fresh(const struct vm_config *c, const struct paths *p, struct err *e);
int restore_fill(struct vm *vm, struct err *e);
/* The descriptor of what insula-vmm held; borrowed. */
int restore_records(const struct vm *vm);
/* Only with a snapshot. Memory that is read as a whole: vm_start_helpers() follows. */
int restore_start(struct vm *vm, struct err *e);
/* The guest hears, when it can, that time has passed and that somebody else may have its random
 * numbers; its commands wait for that. `name`: INSULA_VM of its hooks; NULL: none. */
int restore_tell(struct vm *vm, const char *name, struct err *e);
/* May the guest go on? Also without a snapshot. */
bool restore_loaded(const struct vm *vm);
/* The guest has stopped: what it asked for is written down, for the next one. True: not yet. Also
 * without a snapshot. */
bool restore_stop(struct vm *vm);
/* Nobody waits for memory any more: the guest has stopped, and its helpers have written out what
 * they had. */
void restore_end(struct vm *vm);

/* ---- memory that is filled when it is touched ---- */

/* A process has mapped a piece (faults_keep()). Also without a snapshot. */
bool restore_faults(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd);
/* Is all of it there, or will be before it is mapped? Also without a snapshot. */
bool restore_is_whole(const struct vm *vm);
/* Fill it; save_memory_is_whole() is called when it is. */
void restore_complete(struct vm *vm);
uint64_t restore_deadline(const struct vm *vm); /* clock_ns(); 0: none */
void restore_overdue(struct vm *vm);

#endif
