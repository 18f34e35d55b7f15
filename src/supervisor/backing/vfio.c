/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions of the host. See vfio.h. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "supervisor/device/device.h"
#include "vfio.h"

/* BARs of functions of the host: above those of the virtio devices, below those of the ports. */
#define VFIO_BARS (BOARD_PCI_MMIO + (1ull << 20))
#define VFIO_BARS_END BOARD_PCI_PORT_MMIO
#define VFIO_LARGE (16ull << 20)

/* ---- the container and the group ---- */

static int open_container(int *container, const char *address, struct err *e)
{
	int fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, -errno, "--vfio %s: /dev/vfio/vfio%s", address,
			       errno == ENOENT ? "; expected it: modprobe vfio-pci" : "");
	if (ioctl(fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    !ioctl(fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU)) {
		close(fd);
		return err_set(e, -EOPNOTSUPP,
			       "--vfio %s: the kernel's VFIO has no type 1 IOMMU; expected it: "
			       "modprobe vfio_iommu_type1",
			       address);
	}
	*container = fd;
	return 0;
}

/* A group is opened once, however many of its functions the VM gets. */
static int same_group(struct vfio_back *b, const struct vfio_back *all)
{
	for (; all != b; all++) {
		if (all->groupno == b->groupno)
			return b->group = fd_copy(all->group);
	}
	return -ENOENT;
}

bool vfio_fd_is(int fd, const char *device)
{
	char is[32];
	struct stat st;

	if (fstat(fd, &st) || !S_ISCHR(st.st_mode))
		return false;
	snprintf(is, sizeof(is), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return !strcmp(is, device);
}

/* A descriptor that somebody else has opened: of this group, or of the function's node. */
static int check_fd(const struct vfio_config *c, unsigned group, struct err *e)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char path[64], device[32];
	struct vfio_node node;

	if (fcntl(c->fd, F_SETFD, FD_CLOEXEC))
		return err_sys(e, -errno, "--vfio %s: fd %d", c->address, c->fd);
	if (vfio_node("/sys", c->address, &node) && vfio_fd_is(c->fd, node.device))
		return 0;
	snprintf(path, sizeof(path), "/sys/class/vfio/%u/dev", group);
	vfio_line(path, device, sizeof(device));
	if (!vfio_fd_is(c->fd, device) || ioctl(c->fd, VFIO_GROUP_GET_STATUS, &status))
		return err_set(e, -EINVAL, "--vfio %s: fd %d; expected /dev/vfio/%u, its group%s%s",
			       c->address, c->fd, group, node.device[0] ? ", or " : "",
			       node.device[0] ? node.path : "");
	return 0;
}

/* It keeps the container of a process that is gone, as long as its device is not open. */
static int free_group_fd(const struct vfio_back *b, const struct vfio_group_status *status,
			 struct err *e)
{
	if (!(status->flags & VFIO_GROUP_FLAGS_CONTAINER_SET) ||
	    !ioctl(b->group, VFIO_GROUP_UNSET_CONTAINER))
		return 0;
	return err_set(e, -EBUSY, "--vfio %s: fd %d: another program uses its group",
		       b->conf->address, b->conf->fd);
}

/* A group has one owner: who has opened it, or a function of it by its node. */
static int no_group(const struct vfio_back *b, const char *path, int rc, struct err *e)
{
	char file[64], device[32], who[VFIO_WHO];

	if (rc == -ENOENT && b->node.device[0])
		return err_sys(e, rc, "--vfio %s: %s; expected by=node: the kernel knows no groups",
			       b->conf->address, path);
	if (rc != -EBUSY)
		return err_sys(e, rc, "--vfio %s: %s", b->conf->address, path);
	snprintf(file, sizeof(file), "/sys/class/vfio/%u/dev", b->groupno);
	vfio_line(file, device, sizeof(device));
	vfio_who(device, who);
	if (who[0] || !b->node.device[0])
		return err_set(e, rc, "--vfio %s: %s: another VM or program has its group%s",
			       b->conf->address, path, who);
	vfio_who_is_beside(b, who);
	return err_set(e, rc,
		       "--vfio %s: %s: another VM or program has its group, or a function of it by "
		       "its node%s%s; expected it ended: a group is one VM's",
		       b->conf->address, path, who[0] ? ": " : "", who);
}

static int open_group(struct vfio_back *b, struct err *e)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	const char *address = b->conf->address;
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%u", b->groupno);
	b->group = b->conf->fd >= 0 ? b->conf->fd : open(path, O_RDWR | O_CLOEXEC);
	if (b->group < 0)
		return no_group(b, path, -errno, e);
	if (ioctl(b->group, VFIO_GROUP_GET_STATUS, &status))
		return err_sys(e, -errno, "--vfio %s: %s", address, path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return err_set(e, -EINVAL,
			       "--vfio %s: its IOMMU group %u is not free: expected all of it on "
			       "vfio-pci or without a driver",
			       address, b->groupno);
	return free_group_fd(b, &status, e);
}

static int join(struct vfio_back *b, struct err *e)
{
	const char *address = b->conf->address;

	if (ioctl(b->group, VFIO_GROUP_SET_CONTAINER, b->container))
		return err_sys(e, -errno, "--vfio %s: its IOMMU group %u", address, b->groupno);
	if (!b->first || !ioctl(*b->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return 0;
	return err_sys(e, -errno, "--vfio %s: the IOMMU%s", address,
		       errno == EPERM ? VFIO_NO_REMAPPING : "");
}

static int open_device(struct vfio_back *b, struct err *e)
{
	const char *address = b->conf->address;

	b->device = ioctl(b->group, VFIO_GROUP_GET_DEVICE_FD, address);
	return b->device < 0 ? err_sys(e, -errno, "--vfio %s: it cannot be opened", address) : 0;
}

/* ---- the limit ---- */

/* All of the guest's memory is locked, by the helper: what it may have is what we may. Root may
 * raise it. */
static int raise_limit(const struct vfio_config *c, uint64_t mem, struct err *e)
{
	struct rlimit l, more = {mem, mem};

	if (getrlimit(RLIMIT_MEMLOCK, &l))
		return err_sys(e, -errno, "RLIMIT_MEMLOCK");
	if (l.rlim_max >= mem || !setrlimit(RLIMIT_MEMLOCK, &more))
		return 0;
	return err_set(e, -EINVAL,
		       "--vfio %s: locked memory is limited to %llu KiB; expected at least %llu, "
		       "for all of the guest's memory: raise RLIMIT_MEMLOCK (ulimit -l, "
		       "LimitMEMLOCK= of a service)",
		       c->address, (unsigned long long)(l.rlim_max >> 10),
		       (unsigned long long)(mem >> 10));
}

/* ---- one function ---- */

static int open_by_group(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	int rc = 0;

	if (*b->container < 0) {
		b->first = true;
		rc = open_container(b->container, b->conf->address, e);
	}
	if (!rc && same_group(b, all) < 0) {
		rc = open_group(b, e);
		if (!rc)
			rc = join(b, e);
	}
	return rc ? rc : open_device(b, e);
}

static int take_opened(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	int rc = vfio_choose(b, all, e);

	if (!rc)
		rc = b->by_node ? vfio_open_node(b, all, e) : open_by_group(b, all, e);
	return rc ? rc : vfio_see(b, e);
}

int vfio_take(struct vfio_back *b, const struct vfio_back *all, struct err *e)
{
	struct vfio_found f = {0};
	int rc = vfio_look("/sys", b->conf, &f, e);

	b->seen = (struct device_desc){0};
	b->start = (struct msg_start_vfio){0};
	b->wide = 0;
	b->groupno = f.group;
	if (!rc && !f.ready)
		rc = vfio_bind(b, &f, e);
	return rc ? rc : take_opened(b, all, e);
}

void vfio_let_go(struct vfio_back *b)
{
	fd_close(&b->device);
	fd_close(&b->group);
	if (b->first)
		fd_close(b->container);
	b->first = false;
	vfio_keeper_end(&b->keeper, b->conf->address);
}

/* ---- for open_linux.c ---- */

int vfio_check(const struct vfio_config *c, uint64_t mem, struct err *e)
{
	struct vfio_found f = {0};
	unsigned now;
	int rc = c->pf ? vfio_look_pf("/sys", c, &now, e) : vfio_look("/sys", c, &f, e);

	if (!rc && c->fd >= 0)
		rc = check_fd(c, f.group, e);
	if (!rc)
		rc = vfio_check_by(c, e);
	return rc ? rc : raise_limit(c, mem + (1u << 20), e);
}

int vfio_open(struct vfio_back *all, unsigned n, const struct vfio_config *c, enum vfio_by by,
	      int *container, uint64_t mem, struct err *e)
{
	struct vfio_back *b = &all[n];
	int rc = vfio_check(c, mem, e);

	*b = (struct vfio_back){.conf = c,
				.group = -1,
				.device = -1,
				.claim = -1,
				.share = -1,
				.by = by,
				.container = container,
				.mem = mem};
	if (rc)
		return rc;
	rc = c->pf ? vfio_take_virtual(b, all, c, e) : vfio_take(b, all, e);
	if (rc)
		vfio_close(b);
	return rc;
}

void vfio_close(struct vfio_back *b)
{
	vfio_let_go(b);
	vfio_end_virtual(b);
}

/* ---- into the description ---- */

void vfio_room_set(struct vfio_room *room, uint64_t end_of_memory)
{
	unsigned a, b, c, d, bits = 36;

	if (__get_cpuid(0x80000008, &a, &b, &c, &d))
		bits = a & 0xff;
	room->low = VFIO_BARS;
	room->high = end_of_memory > BOARD_HIGH_RAM ? end_of_memory : BOARD_HIGH_RAM;
	room->end = 1ull << (bits < 52 ? bits : 52);
}

/* 0: it does not fit. */
static uint64_t find_room(uint64_t *next, uint64_t end, uint64_t size)
{
	uint64_t at = (*next + size - 1) & ~(size - 1);

	if (at < *next || at >= end || size > end - at)
		return 0;
	*next = at + size;
	return at;
}

/* Those of 64 bits are behind the memory if they are large: what is below 4 GiB is for those that
 * can be nowhere else. */
int vfio_place(struct device_pci *f, unsigned wide, const char *address, struct vfio_room *room,
	       struct err *e)
{
	for (unsigned bar = 0; bar < DEVICE_BARS; bar++) {
		uint64_t size = f->bar_size[bar];
		bool can = wide >> bar & 1;

		if (!size)
			continue;
		if (!can || size < VFIO_LARGE)
			f->bar_at[bar] = find_room(&room->low, VFIO_BARS_END, size);
		if (!f->bar_at[bar] && can)
			f->bar_at[bar] = find_room(&room->high, room->end, size);
		if (!f->bar_at[bar])
			return err_set(e, -EINVAL, "--vfio %s: no room for BAR %u of %llu MiB %s",
				       address, bar, (unsigned long long)(size >> 20),
				       can ? "in what the processor can address" : "below 4 GiB");
	}
	return 0;
}

static int bind_interrupts(const struct vfio_back *b, const struct device *d, struct err *e)
{
	_Alignas(8) uint8_t buf[sizeof(struct vfio_irq_set) + DEVICE_MAX_VECTORS * sizeof(int32_t)];
	struct vfio_irq_set *s = (void *)buf;

	*s = (struct vfio_irq_set){
		.argsz = (uint32_t)(sizeof(*s) + d->desc.nvectors * sizeof(int32_t)),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = d->desc.pci.msi ? VFIO_PCI_MSI_IRQ_INDEX : VFIO_PCI_MSIX_IRQ_INDEX,
		.count = d->desc.nvectors};
	for (unsigned i = 0; i < d->desc.nvectors; i++) {
		int32_t event = d->slot[d->desc.vector[i].slot];

		memcpy(s->data + i * sizeof(event), &event, sizeof(event));
	}
	return ioctl(b->device, VFIO_DEVICE_SET_IRQS, s)
		       ? err_sys(e, -errno, "--vfio %s: %u interrupts", b->conf->address,
				 d->desc.nvectors)
		       : 0;
}

int vfio_fill(struct vfio_back *b, struct device *d, struct vfio_room *room, struct err *e)
{
	struct device_desc *m = &d->desc;
	uint32_t number = m->pci.number, slot = m->nslots - 2, group = m->nslots - 1;
	int rc;

	m->nwindows = b->seen.nwindows;
	memcpy(m->window, b->seen.window, sizeof(m->window));
	for (unsigned i = 0; i < m->nwindows; i++) {
		if (m->window[i].serve == DEVICE_DIRECT)
			m->window[i].slot = slot;
	}
	m->pci = b->seen.pci;
	m->pci.number = number;
	m->pci.host_slot = group;
	rc = room ? vfio_place(&m->pci, b->wide, b->conf->address, room, e)
		  : vfio_plug_fits(&m->pci, b->conf->address, e);
	if (rc)
		return rc;
	/* The last two slots were made as events; they are the device, and its group, or once more
	 * the device: by which KVM knows it. */
	fd_close(&d->slot[slot]);
	fd_close(&d->slot[group]);
	d->slot[slot] = fd_copy(b->device);
	d->slot[group] = fd_copy(b->by_node ? b->device : b->group);
	if (d->slot[slot] < 0 || d->slot[group] < 0)
		return err_sys(e, -errno, "--vfio %s", b->conf->address);
	return bind_interrupts(b, d, e);
}
