/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A function of the host that comes while the VM runs, and goes. See vfio.h.
 *
 * It has a container of its own, so nothing of it depends on another function, and when it goes the
 * guest's memory is unpinned. A function of a group that this VM has open cannot come: a group has
 * one container.
 *
 * It goes in steps, none of which waits: insula-vmm and the helper have let it go (which is seen
 * from its group: as long as somebody has the device open or mapped, the group stays in its
 * container; or, by its node, from its address space, which cannot be destroyed until then); a
 * process of its own closes the device, because the kernel resets it then; its keeper gives it
 * back.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "supervisor/device/device.h"
#include "supervisor/snapshot/faults.h"
#include "supervisor/vm.h"
#include "vfio.h"

/* What cannot be beside it. */
static int vfio_plug_may(const struct vm *vm, const char *address, struct err *e)
{
	if (vm->conf->balloon.on)
		return err_set(e, -EINVAL,
			       "vfio %s: this VM has a balloon; expected one without: a device of "
			       "the host may write to all of the guest's memory",
			       address);
	if (vm->conf->mem_max)
		return err_set(e, -EINVAL,
			       "vfio %s: this VM may get more memory (max of mem); expected one "
			       "that may not: a device of the host reaches the memory of the "
			       "beginning alone",
			       address);
	if (faults_device(vm) >= 0 && faults_role(vm) == START_FAULTS)
		return err_set(e, -EINVAL,
			       "vfio %s: this VM reads its memory from a snapshot when it is "
			       "touched; expected one that has all of it",
			       address);
	return 0;
}

/* The device of this VM that is of the group; NULL: none. */
static const char *vfio_plug_peer(const struct vm *vm, const struct vfio_later *v)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];

		if (d->class == &device_vfio && d->back.vfio->groupno == v->back.groupno)
			return d->desc.name;
	}
	return NULL;
}

int vfio_plug_open(struct vfio_later *v, const struct vm *vm, const struct vfio_config *c,
		   struct err *e)
{
	enum vfio_by by;
	const char *peer;
	int rc = vfio_plug_may(vm, c->address, e);

	*v = (struct vfio_later){.container = -1, .closes = {.fd = -1}};
	if (!rc)
		rc = vfio_way("/sys", c, 1, &by, e);
	if (rc)
		return rc;
	rc = vfio_open(&v->back, 0, c, by, &v->container, vm->conf->mem, e);
	peer = rc == -EBUSY && !c->pf ? vfio_plug_peer(vm, v) : NULL;
	return peer ? err_set(e, rc,
			      "vfio %s: %s of this VM is of the same IOMMU group, %u; expected "
			      "another group, or both from the start",
			      c->address, peer, v->back.groupno)
		    : rc;
}

int vfio_plug_fits(const struct device_pci *f, const char *address, struct err *e)
{
	uint64_t sum = 0;

	for (unsigned bar = 0; bar < DEVICE_BARS; bar++)
		sum += f->bar_size[bar] < BOARD_PCI_PORT_SIZE ? f->bar_size[bar]
							      : BOARD_PCI_PORT_SIZE + 1;
	return sum <= BOARD_PCI_PORT_SIZE
		       ? 0
		       : err_set(e, -EINVAL,
				 "vfio %s: its BARs do not fit into the %llu MiB of a place; "
				 "expected it from the start (--vfio)",
				 address, BOARD_PCI_PORT_SIZE >> 20);
}

void vfio_plug_stop(const struct vfio_later *v)
{
	const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE;
	const off_t at = (off_t)(v->back.start.region[VFIO_CONFIG].at + PCI_COMMAND);

	if (v->back.device >= 0 &&
	    pwrite(v->back.device, &command, sizeof(command), at) != (ssize_t)sizeof(command))
		log_warn("%s: it cannot be kept from the guest's memory before it goes",
			 v->back.conf->address);
}

static int nothing(const void *arg)
{
	(void)arg;
	return 0;
}

/* The kernel resets it when the last one closes it, which may take a second. */
static void vfio_plug_close_device(struct vfio_later *v, struct device *d)
{
	struct err e;

	vfio_plug_stop(v);                      /* there is nobody any more who would undo it */
	fd_close(&d->slot[d->desc.nslots - 2]); /* as vfio_fill() has it: the device, its group */
	fd_close(&d->slot[d->desc.nslots - 1]);
	if (keeper_start_with(&v->closes, v->back.device, nothing, NULL, v->back.conf->address, &e))
		log_warn("%s", e.text); /* then it takes that long here */
	fd_close(&v->back.device);
}

static bool keeper_is_done(struct keeper *k)
{
	return !k->pid || keeper_let(k);
}

/* Nobody has the device any more. */
static bool is_let_go(const struct vfio_back *b)
{
	if (b->by_node)
		return vfio_node_is_let_go(b);
	return b->group < 0 || !ioctl(b->group, VFIO_GROUP_UNSET_CONTAINER) || errno != EBUSY;
}

bool vfio_plug_quiet(struct vfio_later *v, struct device *d)
{
	struct vfio_back *b = &v->back;

	if (b->device >= 0)
		vfio_plug_close_device(v, d);
	if (!keeper_is_done(&v->closes))
		return false;
	keeper_dismiss(&v->closes);
	if (v->container >= 0 && !is_let_go(b))
		return false;
	fd_close(&b->group);
	fd_close(&v->container);
	if (!keeper_is_done(&b->keeper.process))
		return false;
	fd_close(&b->claim);
	return keeper_is_done(&b->maker.process);
}

void vfio_plug_close(struct vfio_later *v)
{
	keeper_dismiss(&v->closes);
	vfio_close(&v->back);
}
