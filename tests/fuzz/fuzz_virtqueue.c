/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue whose rings, descriptors and saved state are the input: whatever they say,
 * chains stay inside of memory and of the limits, no head is handed out twice, and every wake-up
 * ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <insula/base.h>

#include <devices/virtio/virtqueue.h>

#include "../unit/boardmem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (16u << 20)
#define RINGS 0x1000u
#define RING_BYTES 0x4000u

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static struct guestmem gm;
static struct vq_state st;
static struct virtqueue q;

struct head {
	uint8_t num_log2, features, resume, plan;
	uint16_t used_idx, last_batch;
	uint32_t desc, driver, device; /* beyond RINGS */
	uint16_t nstate;               /* bytes of the input that are slots of the state */
};

static void init_once(void)
{
	struct err e;
	int fd;

	if (gm.nregions)
		return;
	fd = shm_create("fuzz", MEM_SIZE, &e);
	must(fd >= 0 && board_gm_map(&gm, fd, MEM_SIZE, &e) == 0, "guest memory");
}

static void check_chain(const struct vq_chain *c)
{
	uint64_t len = 0;

	must(c->nread + c->nwrite >= 1 && c->nread + c->nwrite <= (q.indirect ? VQ_MAX_NUM : q.num),
	     "number of segments");
	for (unsigned i = 0; i < (unsigned)c->nread + c->nwrite; i++) {
		const uint8_t *p = c->iov[i].iov_base, *host = gm.region[0].host;

		must(p >= host && c->iov[i].iov_len >= 1 && c->iov[i].iov_len <= MEM_SIZE &&
			     (uint64_t)(p - host) <= MEM_SIZE - c->iov[i].iov_len,
		     "a segment outside of memory");
		len += c->iov[i].iov_len;
	}
	must(len == c->read_len + c->write_len, "total length");
}

static void serve(uint8_t plan)
{
	static struct iovec iov[VQ_MAX_NUM];
	struct vq_chain c = {.iov = iov};
	bool flying[VQ_MAX_NUM] = {false};
	unsigned n = 0;

	while (n++ < 3 * VQ_MAX_NUM && vq_next(&q, &c) == 1) {
		check_chain(&c);
		must(c.head < q.num && !flying[c.head], "a head that is in flight");
		flying[c.head] = true;
		if (plan & 1 << n % 8)
			continue;
		vq_push(&q, c.head, n);
		flying[c.head] = false;
		if (n % 3 == 0)
			(void)vq_publish(&q);
	}
	must(n < 3 * VQ_MAX_NUM, "chains without an end");
	(void)vq_publish(&q);
	(void)vq_arm(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct head h;
	uint8_t *mem;
	size_t n;

	init_once();
	if (size < sizeof(h))
		return 0;
	memcpy(&h, data, sizeof(h));
	data += sizeof(h);
	size -= sizeof(h);
	must(madvise(gm.region[0].host, MEM_SIZE, MADV_REMOVE) == 0, "MADV_REMOVE");
	memset(&st, 0, sizeof(st));
	st.num = h.num_log2 & 0x80 ? h.num_log2 : 1u << h.num_log2 % 10;
	st.desc = RINGS + h.desc % 0x2000000;
	st.driver = RINGS + h.driver % 0x2000000;
	st.device = RINGS + h.device % 0x2000000;
	st.used_idx = h.used_idx;
	st.last_batch = h.last_batch;
	n = h.nstate < size ? h.nstate : size;
	n = n < sizeof(st.slot) ? n : sizeof(st.slot);
	memcpy((void *)st.slot, data, n);
	data += n;
	size -= n;
	mem = gm.region[0].host + RINGS;
	memcpy(mem, data, size < RING_BYTES ? size : RING_BYTES);
	if (vq_start(&q, &st, &gm, (uint64_t)h.features << 24, h.resume & 1, NULL) == 0) {
		serve(h.plan);
		/* And the next process, from what is left. */
		if (vq_start(&q, &st, &gm, (uint64_t)h.features << 24, true, NULL) == 0)
			serve(0);
	}
	return 0;
}
