/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clones of a VM that runs (vm.clone): a snapshot that nobody else sees, and VMs that go on from it.
 * The snapshot is the source's supervisor's to remove: it is told to when all clones have begun, and
 * does it at its own end too. Only if that supervisor is killed within this time it is left behind.
 */
#ifndef DAEMON_CLONE_H
#define DAEMON_CLONE_H

struct machine;

/* It runs, or has ended before it did: its part of the snapshot is not needed any more. */
void clone_has_begun(struct machine *m);

#endif
