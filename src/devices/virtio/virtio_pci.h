/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio over PCI (virtio 1.2, 4.1), modern only, MSI-X only: the layout of the function's one BAR.
 *
 *   0x0000  one page that the guest reads in place (DEVICE_SHADOW), as on MMIO:
 *             0x000  the common configuration (4.1.4.3)
 *             0x080  (what the notification area reads as: 0)
 *             0x100  the device's own configuration, up to VPCI_CONFIG_END
 *             0xffc  (what the ISR register reads as)
 *   0x1000  ISR status (4.1.4.5): a read exits and is a call, because it clears
 *   0x2000  notification area: 4 bytes for each queue, a write of any value is its doorbell
 *   0x3000  MSI-X table, 0x3800 pending bits: the core's (insula/device.h)
 *
 * Every field that can be written can be read back, so each write but a notification is a call:
 * the guest never sees an older value than it wrote.
 *
 * Not there: the access through configuration space (VIRTIO_PCI_CAP_PCI_CFG, 4.1.4.9), because
 * configuration space is read without an exit; it is for programs that cannot map a BAR.
 */
#ifndef DEVICES_VIRTIO_PCI_H
#define DEVICES_VIRTIO_PCI_H

#include <insula/devpage.h>

#define VPCI_VENDOR 0x1af4u
#define VPCI_DEVICE(virtio_id) (0x1040u + (virtio_id))
#define VPCI_SUBSYSTEM 0x40u /* 4.1.2.1: 0x40 or higher */
#define VPCI_REVISION 1u

#define VPCI_BAR 0
#define VPCI_BAR_SIZE 0x4000u
#define VPCI_COMMON 0x000u
#define VPCI_COMMON_SIZE 0x40u
#define VPCI_CONFIG 0x100u
#define VPCI_CONFIG_END 0xff0u
#define VPCI_ISR 0x1000u
#define VPCI_ISR_SIZE 4u
#define VPCI_ISR_PLACE 0xffcu /* in the page; also what it is called by */
#define VPCI_NOTIFY 0x2000u
#define VPCI_NOTIFY_PLACE 0x80u
#define VPCI_NOTIFY_EACH 4u /* notify_off_multiplier; the offset of queue i is i */
#define VPCI_MSIX_TABLE 0x3000u
#define VPCI_MSIX_PBA 0x3800u
_Static_assert(VPCI_CONFIG_END <= VPCI_ISR_PLACE && VPCI_ISR_PLACE + 4 <= DP_SHADOW_SIZE, "order");

/* struct virtio_pci_common_cfg */
#define VPCI_DEVICE_FEATURE_SELECT 0x00u
#define VPCI_DEVICE_FEATURE 0x04u
#define VPCI_DRIVER_FEATURE_SELECT 0x08u
#define VPCI_DRIVER_FEATURE 0x0cu
#define VPCI_CONFIG_VECTOR 0x10u /* 16 bits */
#define VPCI_NUM_QUEUES 0x12u    /* 16 */
#define VPCI_STATUS 0x14u        /* 8 */
#define VPCI_GENERATION 0x15u    /* 8 */
#define VPCI_QUEUE_SELECT 0x16u  /* 16 */
#define VPCI_QUEUE_SIZE 0x18u    /* 16 */
#define VPCI_QUEUE_VECTOR 0x1au  /* 16 */
#define VPCI_QUEUE_ENABLE 0x1cu  /* 16 */
#define VPCI_QUEUE_NOTIFY 0x1eu  /* 16: queue_notify_off */
#define VPCI_QUEUE_DESC 0x20u    /* 64, each half by itself too */
#define VPCI_QUEUE_DRIVER 0x28u
#define VPCI_QUEUE_DEVICE 0x30u
#define VPCI_QUEUE_NOTIFY_DATA 0x38u /* 16: not offered */
#define VPCI_QUEUE_RESET 0x3au       /* 16 */

#define VPCI_NO_VECTOR 0xffffu

#endif
