/* SPDX-License-Identifier: BSD-2-Clause */
/* A PCI function of the host as a device: the start message of insula-vfio. */
#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/log.h>

#include "device.h"
#include "supervisor/backing/vfio.h"

enum { SLOT_PAGE, SLOT_CALL, SLOT_VECTORS };

/* But for what vfio_fill() knows. `nqueues` are its vectors; the last two slots are the descriptors
 * of the device and of its group, or of the device again. */
static void vfio_describe(const struct device_class *class, struct device_desc *d,
			  enum device_bus bus, unsigned nth, unsigned nqueues)
{
	(void)class;
	(void)bus;
	*d = (struct device_desc){.version = DEVICE_VERSION_PCI,
				  .nslots = SLOT_VECTORS + nqueues,
				  .nvectors = nqueues,
				  .page_slot = SLOT_PAGE,
				  .call_slot = SLOT_CALL,
				  .answer_slot = DEVICE_NO_SLOT,
				  .state_size = DP_STATE_SIZE,
				  .probe_at = 0, /* the helper answers, whatever it is */
				  .probe_size = 1,
				  .pci = {.number = 1 + nth}};
	for (unsigned i = 0; i < nqueues; i++)
		d->vector[i] = (struct device_vector){.kind = DEVICE_MSI,
						      .number = i,
						      .slot = SLOT_VECTORS + i,
						      .ack_slot = DEVICE_NO_SLOT};
	d->nslots += 2;
}

static int vfio_device_start(struct device *d, struct device_start *s, struct err *e)
{
	const struct vfio_back *b = d->back.vfio;
	struct msg_start_vfio m = b->start;
	bool maps = b->first && !b->mapped;

	(void)e;
	if (maps)
		m.flags = b->by_node ? VFIO_MAPS | VFIO_IOMMUFD : VFIO_MAPS;
	m.ioas = maps && b->by_node ? b->ioas : 0;
	/* Only who gives the memory to the IOMMU has business with it. */
	s->no_memory = !maps;
	d->child.os.memlock = maps ? b->mem + (64u << 20) : 0;
	device_word(s, &m, sizeof(m));
	device_add(s, b->device);
	if (maps)
		device_add(s, *b->container);
	if (d->restart.total == 0)
		log_info("%s: %s, %04x:%04x, IOMMU group %u, by %s, %u interrupts by %s",
			 d->desc.name, b->conf->address, d->desc.pci.vendor, d->desc.pci.device,
			 b->groupno, b->by_node ? "its node and iommufd" : "its group",
			 d->desc.nvectors, d->desc.pci.msi ? "MSI" : "MSI-X");
	return 0;
}

static void vfio_serves(struct device *d, struct loop *l, bool serves)
{
	(void)l;
	d->back.vfio->mapped |= serves;
}

const struct device_class device_vfio = {
	.program = "insula-vfio",
	.kind = "vfio",
	.tag = VFIO_START,
	.memory = true,
	.assigned = true,
	.threads = 2, /* control */
	.nofile = 32,
	.describe = vfio_describe,
	.start = vfio_device_start,
	.serves = vfio_serves,
	.unsaved = "a device of the host cannot be part of a snapshot",
	.stats = &stats_vfio,
};
