/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices. See device.h. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/devpage.h>

#include "device.h"

static int make_page(struct err *e)
{
	const struct {
		uint32_t magic, size;
	} head = {DP_MAGIC, DP_SIZE};
	int fd = shm_create("insula-device", DP_SIZE, e);

	if (fd < 0)
		return fd;
	_Static_assert(offsetof(struct dp_ctrl, magic) == 0 && offsetof(struct dp_ctrl, size) == 4,
		       "the head of struct dp_ctrl");
	if (pwrite(fd, &head, sizeof(head), DP_CTRL_OFF) != (ssize_t)sizeof(head)) {
		int rc = -errno;
		close(fd);
		return err_sys(e, rc, "device page");
	}
	return fd;
}

static int make_events(struct device *d, struct err *e)
{
	int *event[2 + VIRTIO_MAX_QUEUES] = {&d->call, &d->irq};

	for (unsigned i = 0; i < d->msg.nkicks; i++)
		event[2 + i] = &d->kick[i];
	for (unsigned i = 0; i < 2 + d->msg.nkicks; i++) {
		*event[i] = event_create();
		if (*event[i] < 0)
			return err_sys(e, *event[i], "eventfd");
	}
	return 0;
}

int device_init(struct device *d, const struct device_class *class, unsigned index, unsigned nth,
		const char *name, unsigned nqueues, const char *libexec, struct err *e)
{
	bool mmio = class->kind == DEV_VIRTIO_MMIO;
	int rc;

	*d = (struct device){
		.class = class,
		.msg = {.kind = class->kind,
			.index = index,
			.base = mmio ? BOARD_VIRTIO_MMIO + (uint64_t)nth * BOARD_PAGE : BOARD_COM1,
			.gsi = mmio ? BOARD_GSI_VIRTIO + nth : BOARD_GSI_COM1,
			.nkicks = nqueues},
		.page = -1,
		.call = -1,
		.irq = -1,
		.child = {.exec_fd = -1,
			  .jail = {.pid = -1, .pidfd = -1, .channel = -1, .log = -1}},
	};
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		d->kick[i] = -1;
	snprintf(d->msg.name, sizeof(d->msg.name), "%s", name);
	d->page = make_page(e);
	rc = d->page < 0 ? d->page : make_events(d, e);
	return rc ? rc
		  : child_init(&d->child, libexec, class->program, d->msg.name,
			       class->threads + (nqueues ? nqueues - 1 : 0) * class->queue_threads,
			       class->nofile, e);
}

void device_disk_name(unsigned nth, char name[DEV_NAME_LEN])
{
	if (nth < 26)
		snprintf(name, DEV_NAME_LEN, "vd%c", (char)('a' + nth));
	else
		snprintf(name, DEV_NAME_LEN, "vda%c", (char)('a' + nth % 26));
}

void device_free(struct device *d)
{
	child_free(&d->child);
	fd_close(&d->page);
	fd_close(&d->call);
	fd_close(&d->irq);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		fd_close(&d->kick[i]);
}

int device_announce(const struct device *d, int vmm_channel, int ack, struct err *e)
{
	int fds[MSG_MAX_FDS] = {d->page, d->call, d->irq};
	unsigned n = 3;
	int rc;

	if (d->msg.kind == DEV_VIRTIO_MMIO)
		fds[n++] = ack;
	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	rc = msg_send(vmm_channel, MSG_DEVICE, &d->msg, sizeof(d->msg), fds, n);
	return rc ? err_sys(e, rc, "insula-vmm: channel") : 0;
}

int device_send_start(struct device *d, enum msg_type t, const void *body, size_t len, int mem,
		      int extra, struct err *e)
{
	int fds[MSG_MAX_FDS] = {mem, d->page, d->call, d->irq};
	unsigned n = 4;
	int rc;

	if (extra >= 0)
		fds[n++] = extra;
	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	rc = msg_send(d->child.jail.channel, t, body, len, fds, n);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

int device_start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	int rc;

	d->child.fsize = d->class->fsize ? d->class->fsize(d) : 0;
	rc = child_spawn(&d->child, e);
	if (rc)
		return rc;
	return d->class->start(d, mem, map, e);
}

int device_quiet(const struct device *d)
{
	return d->class->quiet ? d->class->quiet(d) : 1;
}

int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e)
{
	const off_t at = (off_t)(DP_SHADOW_OFF + reg);
	uint32_t v;

	if (pread(d->page, &v, sizeof(v), at) != (ssize_t)sizeof(v))
		return err_sys(e, -errno, "device page");
	*before = v;
	v |= bits;
	if (pwrite(d->page, &v, sizeof(v), at) != (ssize_t)sizeof(v))
		return err_sys(e, -errno, "device page");
	return 0;
}
