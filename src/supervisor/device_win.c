/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Windows. See device_win.h. */
#include "device_win.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/devpage.h>
#include <insula/log.h>

static const struct {
	const char *program;
	enum dev_kind kind;
	const struct stat_names *stats;
} types[] = {
	[DEVICE_UART] = {"insula-console", DEV_UART, &stats_uart},
	[DEVICE_BLK] = {"insula-blk", DEV_VIRTIO_MMIO, &stats_blk},
	[DEVICE_RNG] = {"insula-rng", DEV_VIRTIO_MMIO, &stats_rng},
	[DEVICE_VSOCK] = {"insula-vsock", DEV_VIRTIO_MMIO, &stats_vsock},
};

const struct stat_names *device_stats(const struct device *d)
{
	return types[d->type].stats;
}

static int make_page(struct err *e)
{
	int fd = shm_create("insula-device", DP_SIZE, e), rc;
	struct dp_ctrl *c;
	void *page;

	if (fd < 0)
		return fd;
	rc = shm_map(fd, DP_SIZE, 0, DP_SIZE, true, &page, e);
	if (rc) {
		fd_close(&fd);
		return rc;
	}
	c = (struct dp_ctrl *)(void *)((uint8_t *)page + DP_CTRL_OFF);
	c->magic = DP_MAGIC;
	c->size = DP_SIZE;
	shm_unmap(page, DP_SIZE);
	return fd;
}

static int make_events(struct device *d, struct err *e)
{
	int *event[3 + VIRTIO_MAX_QUEUES] = {&d->call, &d->irq, &d->answer};

	for (unsigned i = 0; i < d->msg.nkicks; i++)
		event[3 + i] = &d->kick[i];
	for (unsigned i = 0; i < 3 + d->msg.nkicks; i++) {
		*event[i] = event_create();
		if (*event[i] < 0)
			return err_sys(e, *event[i], "event");
	}
	return 0;
}

int device_init(struct device *d, enum device_type type, unsigned index, unsigned nth,
		const char *name, unsigned nqueues, struct err *e)
{
	bool mmio = types[type].kind == DEV_VIRTIO_MMIO;

	memset(d, 0, sizeof(*d));
	d->type = type;
	d->msg = (struct msg_device){
		.kind = types[type].kind,
		.index = index,
		.base = mmio ? BOARD_VIRTIO_MMIO + (uint64_t)nth * BOARD_PAGE : BOARD_COM1,
		.gsi = mmio ? BOARD_GSI_VIRTIO + nth : BOARD_GSI_COM1,
		.nkicks = nqueues,
	};
	d->call = d->irq = d->answer = -1;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		d->kick[i] = -1;
	snprintf(d->msg.name, sizeof(d->msg.name), "%s", name);
	child_init(&d->child, types[type].program, name, CONTAIN_HELPER);
	d->page = make_page(e);
	return d->page < 0 ? d->page : make_events(d, e);
}

void device_free(struct device *d)
{
	child_kill(&d->child);
	fd_close(&d->page);
	fd_close(&d->call);
	fd_close(&d->irq);
	fd_close(&d->answer);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		fd_close(&d->kick[i]);
}

unsigned device_vmm_fds(const struct device *d, int ack, int fds[MSG_MAX_FDS])
{
	unsigned n = 0;

	fds[n++] = d->page;
	fds[n++] = d->call;
	fds[n++] = d->irq;
	if (d->msg.kind == DEV_VIRTIO_MMIO)
		fds[n++] = ack;
	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	fds[n++] = d->answer;
	return n;
}

/* ---- start ---- */

/* What the helper inherits is what its message names. */
static int spawn_and_send(struct device *d, enum msg_type type, const void *body, size_t len,
			  const int *fds, unsigned n, struct err *e)
{
	int rc = child_spawn(&d->child, fds, n, e);

	if (rc)
		return rc;
	rc = child_send(&d->child, type, body, len, fds, n);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

static int start_uart(struct device *d, struct err *e)
{
	const struct terminal *t = d->terminal;
	struct msg_start_uart m = {.log_level = log_most(),
				   .limit = t->limit,
				   .flags = (t->in >= 0 ? UART_HAS_INPUT : 0) |
					    (t->escape ? UART_ESCAPE : 0)};
	int fds[6] = {d->page, d->call, d->irq, t->out};
	unsigned n = 4;

	if (t->in >= 0)
		fds[n++] = t->in;
	fds[n++] = d->answer;
	return spawn_and_send(d, MSG_START_UART, &m, sizeof(m), fds, n, e);
}

static int start_virtio(struct device *d, enum msg_type type, const void *body, size_t len, int mem,
			int extra, struct err *e)
{
	int fds[MSG_MAX_FDS] = {mem, d->page, d->call, d->irq};
	unsigned n = 4;

	if (extra >= 0)
		fds[n++] = extra;
	for (unsigned i = 0; i < d->msg.nkicks; i++)
		fds[n++] = d->kick[i];
	fds[n++] = d->answer;
	return spawn_and_send(d, type, body, len, fds, n, e);
}

static int start_blk(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	struct msg_start_blk m = d->disk->start;

	m.mem = *map;
	m.nqueues = d->msg.nkicks;
	m.engine = BLK_ENGINE_THREADS;
	m.log_level = log_most();
	return start_virtio(d, MSG_START_BLK, &m, sizeof(m), mem, d->disk->fd, e);
}

static int start_rng(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	struct msg_start_rng m = {.mem = *map, .rate = d->rate, .log_level = log_most()};

	return start_virtio(d, MSG_START_RNG, &m, sizeof(m), mem, -1, e);
}

static int start_vsock(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	struct msg_start_vsock m = {.mem = *map,
				    .guest_cid = d->vsock->cid,
				    .flags = vsock_has_path(d->vsock) ? VSOCK_REACHES : 0,
				    .max_conns = VSOCK_WIN_CONNS,
				    .log_level = log_most()};

	return start_virtio(d, MSG_START_VSOCK, &m, sizeof(m), mem, -1, e);
}

int device_start(struct device *d, int mem, const struct memmap *map, struct err *e)
{
	switch (d->type) {
	case DEVICE_UART:
		return start_uart(d, e); /* it has no business in guest memory */
	case DEVICE_BLK:
		return start_blk(d, mem, map, e);
	case DEVICE_RNG:
		return start_rng(d, mem, map, e);
	case DEVICE_VSOCK:
		return start_vsock(d, mem, map, e);
	}
	panic("device of type %d", (int)d->type);
}

int device_quiet(const struct device *d)
{
	(void)d; /* an end of a process is the end of its I/O here */
	return 1;
}

int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e)
{
	void *shadow;
	_Atomic uint32_t *word;
	int rc = shm_map(d->page, DP_SIZE, DP_SHADOW_OFF, DP_SHADOW_SIZE, true, &shadow, e);

	if (rc)
		return rc;
	word = (_Atomic uint32_t *)(void *)((uint8_t *)shadow + reg);
	*before = atomic_fetch_or(word, bits);
	shm_unmap(shadow, DP_SHADOW_SIZE);
	return 0;
}
