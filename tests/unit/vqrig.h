/* SPDX-License-Identifier: BSD-2-Clause */
/* One virtqueue in memory that plays the guest's, with a driver for it: for the tests of
 * virtqueue.h. */
#ifndef TESTS_VQRIG_H
#define TESTS_VQRIG_H

#include <check.h>

#include <devices/virtio/virtqueue.h>

#include "fakedrv.h"

#define MEM_SIZE (16u << 20)
#define RINGS 0x10000u
#define DATA 0x100000u
#define NUM 8

static struct guestmem gm;
static struct vq_state st;
static struct virtqueue vq;
static struct drvq drv;
static struct iovec iov[VQ_MAX_NUM];
static struct vq_chain chain;
static int mem_fd = -1;

static void start(uint16_t num, uint64_t features)
{
	struct err e = {0};

	memset(&st, 0, sizeof(st));
	st.num = num;
	st.desc = RINGS;
	st.driver = RINGS + 0x1000;
	st.device = RINGS + 0x2000;
	drvq_init(&drv, &gm, RINGS, num, features & DRV_F(VIRTIO_RING_F_EVENT_IDX), -1);
	ck_assert_msg(vq_start(&vq, &st, &gm, features, false, &e) == 0, "%s", e.text);
	chain.iov = iov;
}

static void setup(void)
{
	mem_fd = drv_memory(&gm, MEM_SIZE);
	start(NUM, DRV_COMMON);
}

static void teardown(void)
{
	gm_unmap(&gm);
	fd_close(&mem_fd);
}

static uint16_t add(unsigned nread, unsigned nwrite)
{
	struct vring_desc d[VQ_MAX_NUM];

	for (unsigned i = 0; i < nread + nwrite; i++)
		d[i] = drv_desc(DATA + i * 0x1000, 100 + i, i >= nread);
	return drvq_add(&drv, d, nread + nwrite, NULL);
}

#endif
