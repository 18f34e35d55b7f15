/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM has open on Linux. See open.h. */
#ifndef SUPERVISOR_OPEN_LINUX_H
#define SUPERVISOR_OPEN_LINUX_H

#include "supervisor/control/control_linux.h"
#include "supervisor/device/device.h"
#include "supervisor/backing/disk.h"
#include "supervisor/backing/nic.h"
#include "supervisor/backing/share.h"
#include "supervisor/backing/terminal.h"
#include "supervisor/backing/vfio.h"
#include "supervisor/backing/vhost.h"
#include "supervisor/backing/vsock.h"

struct opened {
	struct disk disk[BOARD_MAX_VIRTIO];
	unsigned ndisks;
	struct nic nic[CONFIG_MAX_NETS];
	unsigned nnics;
	struct vhost_back vhost[CONFIG_MAX_VHOSTS];
	unsigned nvhosts;
	struct vfio_back vfio[CONFIG_MAX_VFIOS];
	unsigned nvfios;
	int vfio_container;                    /* of all of them; the first one's */
	struct share share[CONFIG_MAX_SHARES]; /* live ones */
	unsigned nshares;
	struct disk_config root_disk, share_disk[CONFIG_MAX_SHARES];
	struct disk_config layer_disk[CONFIG_MAX_LAYERS], upper_disk;
	char upper_path[32], seed_path[32];
	struct disk_config seed_disk;
	int seed;                        /* what it is in; owned; -1: there is none */
	int exec_program, pager_program; /* insula-exec, insula-pager; owned */
};

/* A socket, a log and an end of each process; control, signals. */
_Static_assert(3 * (2 + VM_MAX_DEVICES + VM_EXEC_PLACES + CONFIG_MAX_NETS + CONFIG_MAX_SHARES +
		    CONFIG_MAX_HOTPLUG) +
			       CONTROL_WATCHES + 1 <=
		       LOOP_MAX,
	       "one wait for all of them");

#endif
