/* SPDX-License-Identifier: BSD-2-Clause */
/* A PCI function of the host. See vfio.h. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/guestmem.h>
#include <insula/stats.h>

#include "vfio.h"
#include "vfio_uapi.h"

/* ---- the device's own registers ---- */

/* NULL: it has none there. */
static uint64_t *assigned_place(const struct assigned *a, uint32_t off, uint32_t size,
				uint64_t *place)
{
	uint32_t region = off >> VFIO_AT_BITS, at = off & ((1u << VFIO_AT_BITS) - 1);

	if (region >= VFIO_REGIONS || size > a->conf.region[region].size ||
	    at > a->conf.region[region].size - size)
		return NULL;
	*place = a->conf.region[region].at + at;
	return place;
}

static uint64_t assigned_get(struct assigned *a, uint32_t off, uint32_t size)
{
	uint64_t at, v = 0;

	a->accesses++;
	if (assigned_place(a, off, size, &at) && pread(a->fd, &v, size, (off_t)at) == (ssize_t)size)
		return v;
	a->failed++;
	return UINT64_MAX;
}

static void assigned_put(struct assigned *a, uint32_t off, uint32_t size, uint64_t v)
{
	uint64_t at;

	a->accesses++;
	if (!assigned_place(a, off, size, &at) ||
	    pwrite(a->fd, &v, size, (off_t)at) != (ssize_t)size)
		a->failed++;
}

/* ---- configuration space ---- */

/* The core moves the BARs, so the device decodes its own always; it has no pin; what is left is who
 * may master the bus. */
static void assigned_command(struct assigned *a)
{
	uint16_t v = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE;

	assigned_put(a, VFIO_AT(VFIO_CONFIG, PCI_COMMAND), 2,
		     v | (a->st->command & PCI_COMMAND_MASTER));
}

/* The kernel saves and restores what the host has set up, interrupts too. */
static void assigned_reset(struct assigned *a)
{
	a->resets++;
	if (ioctl(a->fd, VFIO_DEVICE_RESET))
		log_warn("the device cannot be reset: %s", strerror(errno));
	assigned_command(a);
}

static void assigned_set_power(struct assigned *a, uint32_t state)
{
	bool wakes = a->st->power == 3 && state == 0;

	a->st->power = state;
	if (wakes && a->conf.soft_reset)
		assigned_reset(a);
}

/* Two bytes of the register at `reg` are written, of a write of `size` bytes at `off`; the others
 * stay. */
static bool assigned_hit(uint32_t off, uint32_t size, uint64_t val, uint32_t reg, uint16_t *v)
{
	bool hit = false;

	for (uint32_t i = 0; i < size; i++, val >>= 8) {
		if (off + i - reg > 1)
			continue;
		*v = (uint16_t)((*v & ~(0xffu << 8 * (off + i - reg))) |
				(val & 0xff) << 8 * (off + i - reg));
		hit = true;
	}
	return hit;
}

static void assigned_config(struct assigned *a, uint32_t off, uint32_t size, uint64_t val)
{
	const struct msg_start_vfio *m = &a->conf;
	uint16_t v = (uint16_t)a->st->command;

	if (assigned_hit(off, size, val, PCI_COMMAND, &v)) {
		a->st->command = v;
		assigned_command(a);
	}
	v = 0;
	if (m->express && assigned_hit(off, size, val, m->express + PCI_EXP_DEVCTL, &v) &&
	    (v & PCI_EXP_DEVCTL_BCR_FLR))
		assigned_reset(a);
	v = (uint16_t)a->st->power;
	if (m->power && assigned_hit(off, size, val, m->power + PCI_PM_CTRL, &v))
		assigned_set_power(a, v & PCI_PM_CTRL_STATE_MASK);
}

/* ---- for the control thread ---- */

static void assigned_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct assigned *a = dev;

	if (off >> VFIO_AT_BITS == VFIO_CONFIG)
		assigned_config(a, off & ((1u << VFIO_AT_BITS) - 1), size, val);
	else
		assigned_put(a, off, size, val);
}

static uint64_t assigned_read(void *dev, uint32_t off, uint32_t size)
{
	return off >> VFIO_AT_BITS == VFIO_CONFIG ? UINT64_MAX : assigned_get(dev, off, size);
}

static void assigned_settle(void *dev)
{
	(void)dev;
}

/* Of registers that could not be mapped: the driver has read all ones. Nothing here can mend it. */
static void assigned_lost(void *dev)
{
	(void)dev;
	log_warn("accesses to registers of the device were lost");
}

static void assigned_event(void *dev)
{
	(void)dev;
}

static void assigned_count(void *dev, struct msg_stats *s)
{
	const struct assigned *a = dev;

	s->n[STAT_VFIO_ACCESSES] = a->accesses;
	s->n[STAT_VFIO_FAILED] = a->failed;
	s->n[STAT_VFIO_RESETS] = a->resets;
}

const struct helper_ops assigned_ops = {
	.regs = {.write = assigned_write,
		 .read = assigned_read,
		 .settle = assigned_settle,
		 .lost = assigned_lost},
	.event = assigned_event,
	.stop = assigned_count,
	.count = assigned_count,
};

/* ---- start ---- */

int assigned_check_conf(const struct msg_start_vfio *m, struct err *e)
{
	if (m->flags & ~(uint32_t)(VFIO_MAPS | VFIO_IOMMUFD) || m->flags == VFIO_IOMMUFD)
		return err_set(e, -EINVAL, "flags 0x%x", m->flags);
	if (m->ioas && !(m->flags & VFIO_IOMMUFD))
		return err_set(e, -EINVAL, "address space %u without an iommufd", m->ioas);
	if (m->express > 255 || m->power > 255 || m->soft_reset > 1)
		return err_set(e, -EINVAL, "capabilities at 0x%x and 0x%x; expected below 256",
			       m->express, m->power);
	for (unsigned i = 0; i < VFIO_REGIONS; i++) {
		if (m->region[i].at > INT64_MAX || m->region[i].size > INT64_MAX - m->region[i].at)
			return err_set(e, -EINVAL, "region %u at 0x%llx", i,
				       (unsigned long long)m->region[i].at);
	}
	return 0;
}

static int type1_unmap(int container, const struct gm_region *r)
{
	struct vfio_iommu_type1_dma_unmap u = {.argsz = sizeof(u), .iova = r->gpa, .size = r->size};

	return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &u);
}

static int type1_map(int container, const struct gm_region *r)
{
	struct vfio_iommu_type1_dma_map m = {
		.argsz = sizeof(m),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)r->host,
		.iova = r->gpa,
		.size = r->size,
	};

	return ioctl(container, VFIO_IOMMU_MAP_DMA, &m);
}

static int iommufd_unmap(int fd, uint32_t ioas, const struct gm_region *r)
{
	struct iofd_ioas_unmap u = {
		.size = sizeof(u), .ioas = ioas, .iova = r->gpa, .len = r->size};
	int rc = ioctl(fd, IOFD_IOAS_UNMAP, &u);

	return rc && errno == ENOENT ? 0 : rc; /* unlike type 1's, it says if there was nothing */
}

static int iommufd_map(int fd, uint32_t ioas, const struct gm_region *r)
{
	struct iofd_ioas_map m = {
		.size = sizeof(m),
		.flags = IOFD_MAP_FIXED | IOFD_MAP_WRITE | IOFD_MAP_READ,
		.ioas = ioas,
		.va = (uintptr_t)r->host,
		.len = r->size,
		.iova = r->gpa,
	};

	return ioctl(fd, IOFD_IOAS_MAP, &m);
}

/* An earlier process may have died in the middle of it. */
static int assigned_map_one(const struct msg_start_vfio *m, int fd, const struct gm_region *r,
			    struct err *e)
{
	bool iommufd = m->flags & VFIO_IOMMUFD;

	if (iommufd ? iommufd_unmap(fd, m->ioas, r) : type1_unmap(fd, r))
		return err_sys(e, -errno, "the IOMMU's mapping of an earlier process");
	if (!(iommufd ? iommufd_map(fd, m->ioas, r) : type1_map(fd, r)))
		return 0;
	return err_sys(e, -errno, "%llu MiB of guest memory for the device%s",
		       (unsigned long long)(r->size >> 20),
		       errno == ENOMEM ? ": expected a higher limit of locked memory "
					 "(RLIMIT_MEMLOCK)"
				       : "");
}

static int assigned_map(const struct msg_start_vfio *m, const struct start_fds *f, struct err *e)
{
	struct guestmem gm;
	int rc = gm_map(&gm, &m->head.mem, f->fd[START_MEMORY], f->n[START_MEMORY], e);

	for (unsigned i = 0; i < gm.nregions && !rc; i++)
		rc = assigned_map_one(m, f->fd[START_OWN][1], &gm.region[i], e);
	/* The kernel has the pages: nobody here needs them any more. */
	gm_unmap(&gm);
	close(f->fd[START_OWN][1]);
	for (unsigned i = 0; i < f->n[START_MEMORY]; i++)
		close(f->fd[START_MEMORY][i]);
	return rc;
}

int assigned_open(struct assigned *a, struct helper *h, const struct msg_start_vfio *m,
		  const struct start_fds *f, const char **step, struct err *e)
{
	int rc = helper_open(h, f, VFIO_START, e);

	if (rc)
		return rc;
	a->h = h;
	a->conf = *m;
	a->fd = f->fd[START_OWN][0];
	a->st = h->port.dev_state;
	if (!h->port.resumed)
		*a->st = (struct assigned_state){0};
	a->st->power &= 3;
	*step = "memory";
	return m->flags & VFIO_MAPS ? assigned_map(m, f, e) : 0;
}

void assigned_rules(const struct assigned *a, struct rule_list *l)
{
	rule_fd(l, SYS_pread64, a->fd, "registers of the device that cannot be mapped");
	rule_fd(l, SYS_pwrite64, a->fd, "the same, and its configuration space");
	rule_ioctl(l, a->fd, VFIO_DEVICE_RESET, "the guest resets the device");
}
