/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio over MMIO, version 2 (virtio 1.2, 4.2.2): offsets, and nothing else.
 *
 * The guest reads the shadow page without anybody's help; so every value is stored there as one
 * aligned 32-bit store. Writes come here by the device page. There is no register that is read with
 * a side effect.
 */
#ifndef DEVICES_VIRTIO_MMIO_H
#define DEVICES_VIRTIO_MMIO_H

#include "devices/helper.h"
#include "virtio.h"

#define VIRTIO_MMIO_VENDOR 0x414c5349u /* "ISLA" */

struct virtio_mmio {
	struct virtio v;
	struct helper *h; /* interrupts */
	volatile uint32_t *shadow;
};

/* Before virtio_resume(). All parameters as for virtio_init(); `h` and the shadow page stay the
 * caller's. */
void vmmio_init(struct virtio_mmio *m, struct helper *h, uint32_t *shadow, struct virtio_state *st,
		bool resumed, const struct guestmem *gm, const struct virtio_model *model,
		void *dev);

void vmmio_write(struct virtio_mmio *m, uint32_t off, uint32_t size, uint64_t val);
uint64_t vmmio_read(const struct virtio_mmio *m, uint32_t off, uint32_t size);
/* model->config has changed (2.5, 4.2.2): a new generation, then what is in it, then, if `tell`,
 * the interrupt. Who has begun to read sees that it changed; who begins in between is told
 * afterwards. */
void vmmio_config_changed(struct virtio_mmio *m, bool tell);
/* Show the values of all registers that can change. */
void vmmio_show(struct virtio_mmio *m);

#endif
