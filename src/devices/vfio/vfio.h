/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function of the host that a guest uses as its own: what of it is neither memory nor
 * interrupt.
 *
 * BARs are memory of the guest, interrupts go from the device to the guest, and DMA through the
 * IOMMU: none of it needs this process. It gives the guest's memory to the IOMMU, before the device
 * may master the bus, and then has nothing to do with it any more. What is left are rare: writes to
 * configuration space (bus mastering, resets, the power state), and registers that cannot be
 * mapped.
 *
 * The mappings are the container's, which the supervisor has open, as it has the device: they stay
 * when this process dies. The kernel has pinned the pages by then, and needs no process for them.
 *
 * Linux, Documentation/driver-api/vfio.rst; PCI Express Base 5.0, 7.5.
 */
#ifndef DEVICES_VFIO_H
#define DEVICES_VFIO_H

#include "devices/helper.h"
#include "vfio_start.h"

/* What outlives the process; in the device page. */
struct assigned_state {
	uint32_t command; /* of the guest */
	uint32_t power;   /* D0 to D3: 0 to 3 */
};

struct assigned {
	struct helper *h;
	struct msg_start_vfio conf;
	struct assigned_state *st;
	int fd; /* owned: the device */
	uint64_t resets, accesses, failed;
};

/* Can the message be obeyed? */
int assigned_check_conf(const struct msg_start_vfio *m, struct err *e);
/* Takes the descriptors over. *step: what failed. */
int assigned_open(struct assigned *a, struct helper *h, const struct msg_start_vfio *m,
		  const struct start_fds *f, const char **step, struct err *e);
void assigned_rules(const struct assigned *a, struct rule_list *l);
extern const struct helper_ops assigned_ops;

#endif
