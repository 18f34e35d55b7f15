/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a guest sees a virtio device: the layout of its registers, and its interrupts.
 *
 * The register file is in virtio.c. A front says where each register is: virtio_mmio.c (virtio 1.2,
 * 4.2.2) or virtio_pci.c (4.1; the layout in virtio_pci.h). The start message says which, by the
 * events that came with it: one is a pin, several are MSI-X vectors.
 *
 * The guest reads the shadow page without anybody's help; so every field is stored there as one
 * aligned store of its size. Writes come here by the device page.
 *
 * Vectors. A queue's is in its state, and on PCI the guest chooses it; the one of changes of the
 * configuration is in the shadow page on PCI. On MMIO both are 0. A number that is not one of the
 * helper's events interrupts nobody.
 */
#ifndef DEVICES_VIRTIO_FRONT_H
#define DEVICES_VIRTIO_FRONT_H

#include "devices/helper.h"
#include "virtio.h"

/* Where the device's own configuration begins in the page, on each front. */
#define FRONT_CONFIG 0x100u

struct virtio_front;

struct virtio_layout {
	uint32_t config_end; /* of the device's configuration */
	uint64_t features;   /* that it adds to those of a device of our own */
	struct virtio_fresh_queue fresh;
	void (*begin)(struct virtio_front *f, bool resumed); /* what does not change */
	void (*show)(struct virtio_front *f);                /* what can change */
	/* A register is written, with a size of 1, 2, 4 or 8. */
	void (*write)(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val);
	uint64_t (*read)(struct virtio_front *f, uint32_t off, uint32_t size);
	uint32_t (*config_vector)(const struct virtio_front *f);
};

extern const struct virtio_layout layout_mmio, layout_pci;

struct virtio_front {
	struct virtio v;
	struct helper *h; /* interrupts */
	const struct virtio_layout *layout;
	uint8_t *shadow;
};

/* Before virtio_resume(). Page, state, whether it is resumed, and which front: the helper's. The
 * rest as for virtio_init(). */
void front_init(struct virtio_front *f, struct helper *h, const struct guestmem *gm,
		const struct virtio_model *model, void *dev);

/* What the core asks for: struct dev_ops. */
void front_write(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val);
uint64_t front_read(struct virtio_front *f, uint32_t off, uint32_t size);
/* Show the values of all registers that can change. */
void front_show(struct virtio_front *f);

/* model->config has changed (2.5, 4.1.4.3.1, 4.2.2): a new generation, then what is in it, then, if
 * `tell`, the interrupt. Who has begun to read sees that it changed; who begins in between is told
 * afterwards. */
void front_config_changed(struct virtio_front *f, bool tell);

/* The helper's event of this vector; -1: it interrupts nobody. Any thread. */
int front_event(const struct virtio_front *f, uint32_t vector);
/* The vector of queue i, as a bit; 0: it interrupts nobody. Any thread. */
uint32_t front_vector(const struct virtio_front *f, unsigned i);
/* Signal each of the vectors of all queues that are ready, once. Control thread. */
void front_irq_queues(struct virtio_front *f);

/* For the two fronts: one field, of 1, 2, 4 or 8 bytes, aligned. */
void front_put(struct virtio_front *f, uint32_t off, uint32_t size, uint64_t val);
uint64_t front_get(const struct virtio_front *f, uint32_t off, uint32_t size);

#endif
