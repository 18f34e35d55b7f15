/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the supervisor and insula-vfio say to iommufd and to a function's own node
 * (/dev/vfio/devices/vfioN). Headers older than Linux 6.6 lack it. Linux,
 * include/uapi/linux/iommufd.h and vfio.h. Their names are not used: newer headers have them.
 */
#ifndef DEVICES_VFIO_UAPI_H
#define DEVICES_VFIO_UAPI_H

#include <linux/ioctl.h>
#include <stdint.h>

/* ---- /dev/iommu ---- */

#define IOFD_DESTROY _IO(';', 0x80)
#define IOFD_IOAS_ALLOC _IO(';', 0x81)
#define IOFD_IOAS_MAP _IO(';', 0x85)
#define IOFD_IOAS_UNMAP _IO(';', 0x86)

#define IOFD_OPTION _IO(';', 0x87)

/* Of an iommufd in which there is nothing yet: whose limit locked pages count for. */
enum { IOFD_RLIMIT_MODE, IOFD_OPTION_SET = 0 };

struct iofd_option {
	uint32_t size, option;
	uint16_t op, reserved;
	uint32_t object;
	uint64_t value; /* 0: of the user, over all processes; 1: of the process that maps them */
};

/* -EBUSY: another object needs this one. */
struct iofd_destroy {
	uint32_t size, object;
};

/* An address space of devices. */
struct iofd_ioas_alloc {
	uint32_t size, flags;
	uint32_t ioas; /* the kernel's answer */
};

enum { IOFD_MAP_FIXED = 1, IOFD_MAP_WRITE = 2, IOFD_MAP_READ = 4 };

struct iofd_ioas_map {
	uint32_t size, flags, ioas, reserved;
	uint64_t va, len, iova;
};

/* All that was mapped in there. -ENOENT: nothing. */
struct iofd_ioas_unmap {
	uint32_t size, ioas;
	uint64_t iova, len;
};

/* ---- the function's node ---- */

#define VFIO_NODE_BIND _IO(';', 118)
#define VFIO_NODE_ATTACH _IO(';', 119)

struct vfio_node_bind {
	uint32_t argsz, flags;
	int32_t iommufd;
	uint32_t devid; /* the kernel's answer */
};

struct vfio_node_attach {
	uint32_t argsz, flags, ioas;
};

#endif
