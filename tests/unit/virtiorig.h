/* SPDX-License-Identifier: BSD-2-Clause */
/* A virtio device of a model that only counts, in this process, behind a fake core: on MMIO, or on
 * PCI if that has vectors (fc_vectors()). */
#ifndef TESTS_VIRTIORIG_H
#define TESTS_VIRTIORIG_H

#include <check.h>

#include <devices/virtio/front.h>

#include "fakedrv.h"

#define MEM_SIZE (16u << 20)
#define TAG 0x4f495456u
#define NQUEUES 2
#define MODEL_FEATURES (DRV_F(5) | DRV_F(9))
#define Q(i) (0x10000u + (i)*DRV_QUEUE_BYTES)

static struct fakecore core;
static struct guestmem gm;
static int mem_fd;
static struct drvq drv[NQUEUES];

static struct vdev {
	struct helper h;
	struct virtio_front m;
	struct virtio_model model;
	unsigned starts, stops;
	unsigned queues, resumed; /* at the last start */
	uint32_t isr_at_start;    /* what the guest could see when the queues began to run */
} * dev;
static uint8_t config[12] = "config space";

static inline void model_start(void *arg)
{
	struct vdev *d = arg;

	d->starts++;
	d->queues = d->resumed = 0;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		d->queues += d->m.v.vq[i].num != 0;
		d->resumed += vq_resumed(&d->m.v.vq[i]);
	}
	d->isr_at_start = fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS);
}

static inline void model_stop(void *arg)
{
	((struct vdev *)arg)->stops++;
}

static inline void reg_write(void *arg, uint32_t off, uint32_t size, uint64_t val)
{
	front_write(&((struct vdev *)arg)->m, off, size, val);
}

static inline uint64_t reg_read(void *arg, uint32_t off, uint32_t size)
{
	return front_read(&((struct vdev *)arg)->m, off, size);
}

static inline void settle(void *arg)
{
	front_show(&((struct vdev *)arg)->m);
}

static inline void lost(void *arg)
{
	virtio_fail(&((struct vdev *)arg)->m.v, "accesses were lost");
}

static inline void resume(void *arg)
{
	virtio_resume(&((struct vdev *)arg)->m.v);
}

static const struct helper_ops ops = {.regs = {reg_write, reg_read, settle, lost},
				      .resume = resume};

static inline void pump(void *arg)
{
	(void)arg;
	ck_assert_int_ge(port_run(&dev->h.port), 0);
}

static inline void start_features(uint64_t features)
{
	struct err e = {0};

	dev = calloc(1, sizeof(*dev));
	ck_assert_ptr_nonnull(dev);
	dev->model = (struct virtio_model){.device_id = 2,
					   .features = features,
					   .nqueues = NQUEUES,
					   .config = config,
					   .config_len = sizeof(config),
					   .start = model_start,
					   .stop = model_stop};
	ck_assert_msg(fc_helper_open(&core, &dev->h, TAG, &e) == 0, "%s", e.text);
	front_init(&dev->m, &dev->h, &gm, &dev->model, dev);
	ck_assert_int_eq(helper_attach(&dev->h, &ops, dev, &e), 0);
}

/* As after a kill: nothing of the process is left but the page. */
static inline void die(void)
{
	helper_close(&dev->h);
	free(dev);
}

static inline void restart(void)
{
	die();
	start_features(MODEL_FEATURES);
}

static inline void setup_core(void)
{
	fc_open(&core);
	core.pump = pump;
}

static inline void setup_rest(void)
{
	mem_fd = drv_memory(&gm, MEM_SIZE);
	start_features(MODEL_FEATURES);
	for (unsigned i = 0; i < NQUEUES; i++)
		drvq_init(&drv[i], &gm, Q(i), 16, true, -1);
}

static inline void setup(void)
{
	setup_core();
	setup_rest();
}

static inline void teardown(void)
{
	die();
	gm_unmap(&gm);
	fd_close(&mem_fd);
	fc_close(&core);
}

#endif
