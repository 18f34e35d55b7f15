/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-vfio is told: insula/start.h, and this. Descriptors of its own: the device's, and
 * with VFIO_MAPS the container's, or the iommufd. */
#ifndef DEVICES_VFIO_START_H
#define DEVICES_VFIO_START_H

#include <insula/proto.h>

#define VFIO_START START_TAG('v', 'f', 'i', '2')

/* Where the core says that an access was (device_window.at): the region, six BARs and configuration
 * space, and the offset in it, as the device itself has them. */
#define VFIO_CONFIG 6u
#define VFIO_REGIONS 7u
#define VFIO_AT_BITS 24u
#define VFIO_AT(region, offset) ((uint32_t)(region) << VFIO_AT_BITS | (uint32_t)(offset))

enum vfio_start_flags {
	VFIO_MAPS = 1, /* nobody has given guest memory to the container: it does. Else it gets no
			* guest memory */
	VFIO_IOMMUFD = 2, /* with it: the container is an iommufd */
};

struct msg_start_vfio {
	struct start_head head;
	uint32_t flags; /* enum vfio_start_flags */
	uint32_t ioas;  /* the iommufd's address space; else 0 */
	/* Where these capabilities are in the device's own configuration space; 0: nowhere. */
	uint32_t express, power;
	uint32_t soft_reset; /* from D3 to D0 it is reset (7.5.2.2: not No_Soft_Reset) */
	uint32_t zero;
	struct {
		uint64_t at, size; /* in the device's descriptor; size 0: there is none */
	} region[VFIO_REGIONS];
};

#endif
