/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM has open on Windows. See open.h. Networks and shares are not there yet: host_config()
 * refuses them. */
#ifndef SUPERVISOR_OPEN_WIN_H
#define SUPERVISOR_OPEN_WIN_H

#include "supervisor/control/control_win.h"
#include "supervisor/device/device.h"
#include "supervisor/backing/vsock_win.h"
#include "supervisor/command/exec.h"

struct opened {
	struct disk disk[CONFIG_MAX_DISKS + 1]; /* 1: the root */
	unsigned ndisks;
	struct disk_config root_disk;
};

#define OPEN_DEVICES (CONFIG_MAX_DISKS + 1 + 3) /* console, random numbers, vsock */
/* One handle of each child, insulad's door, the user's interrupt, the next client of vsock. */
_Static_assert(1 + OPEN_DEVICES + VM_EXEC_PLACES + CONTROL_WATCHES + 2 <= LOOP_MAX,
	       "one wait for all of them");
/* insula-vmm inherits the page, call and answer of each, its kicks, and a vector for each queue and
 * one more; on MMIO it is an interrupt and an acknowledge for all queues. */
_Static_assert(OPEN_DEVICES *(4 + 2 * BLK_MAX_QUEUES) + 8 <= CONTAIN_MAX_HANDLES,
	       "one list for all");

#endif
