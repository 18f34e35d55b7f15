/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The source of random numbers as a correct driver sees it, then as a hostile one uses it. Status
 * 3: there is no such device. Prints "rate held" if the device needed as long as --rng rate=64K
 * allows.
 */
#include "virtio.h"

#define BIG 65536u

static _Alignas(BOARD_PAGE) uint8_t buf[BIG], other[BIG];
static uint64_t dev;
static struct vq q;

static bool start(void)
{
	return vdev_negotiate(dev, VFEATURE(VIRTIO_F_VERSION_1) |
					   VFEATURE(VIRTIO_RING_F_INDIRECT_DESC)) &&
	       vq_start(&q, dev, 0, 16) && (vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK), true);
}

/* One request: bytes written, or -1. */
static long ask(void *p, uint32_t len)
{
	struct vring_used_elem u;

	vq_desc(&q, 0, (uintptr_t)p, len, VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	vq_kick(&q);
	if (!vq_pop(&q, &u, VIRTIO_WAIT_MS) || u.id != 0 || u.len > len)
		return -1;
	return u.len;
}

static unsigned ones(const uint8_t *p, uint32_t len)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < len; i++)
		for (unsigned b = p[i]; b; b &= b - 1)
			n++;
	return n;
}

static void correct(void)
{
	long n = ask(buf, 4096), m = ask(other, 4096);
	unsigned o = ones(buf, 4096);

	check("fills", n == 4096 && m == 4096, "%ld and %ld bytes", n, m);
	/* 16384 of 32768 are expected, with a standard deviation of 91. */
	check("half_of_the_bits", o > 15000 && o < 17800, "%u ones", o);
	check("never_the_same", memcmp(buf, other, 4096) != 0, "twice the same");
	memset(buf, 0, 64);
	n = ask(buf, 1);
	check("one_byte", n == 1 && ones(buf + 1, 63) == 0, "%ld bytes", n);
	memset(buf, 0, BIG);
	n = ask(buf, BIG);
	check("bounded", n > 0 && n <= 4096 && ones(buf + n, BIG - 4096) == 0, "%ld bytes", n);
	check("no_config", vget(dev, VIRTIO_MMIO_CONFIG) == 0, "0x%x",
	      vget(dev, VIRTIO_MMIO_CONFIG));
}

static void rate(void)
{
	uint64_t begin = rdtsc(), second = deadline_ms(1000) - begin;
	long sum = 0;

	while (sum < 48 << 10) {
		long n = ask(buf, 4096);

		if (n <= 0)
			break;
		sum += n;
	}
	check("goes_on", sum >= 48 << 10, "%ld bytes", sum);
	/* 64K a second, a tenth of a second's worth and one request at once. */
	if (rdtsc() - begin > second / 2)
		print("rate held\n");
}

/* The device must ask for a reset and work after it. */
static void mistake(const char *name)
{
	uint64_t end = deadline_ms(VIRTIO_WAIT_MS);

	vq_kick(&q);
	while (!(vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) && rdtsc() < end)
		;
	check(name, vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET, "status 0x%x",
	      vget(dev, VIRTIO_MMIO_STATUS));
	if (!start() || ask(buf, 64) != 64)
		check(name, false, "it does not work after a reset");
}

static void hostile(void)
{
	vq_desc(&q, 0, (uintptr_t)buf, 64, 0, 0); /* readable */
	vq_push(&q, 0);
	mistake("readable");
	vq_desc(&q, 0, (uintptr_t)buf, 0, VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	mistake("empty");
	vq_desc(&q, 0, BOARD_LAPIC, 4096, VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	mistake("not_memory");
	vq_desc(&q, 0, (uintptr_t)buf, 64, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	vq_desc(&q, 1, (uintptr_t)buf, 64, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0);
	vq_push(&q, 0);
	mistake("cycle");
	vq_push(&q, 99);
	mistake("head_outside");
	q.next = (uint16_t)(q.next + 1000);
	vq_push(&q, 0);
	mistake("index_jumps");
}

int main(void)
{
	dev = vdev_find(VIRTIO_ID_RNG);
	if (!dev)
		return 3;
	check("starts", start(), "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	correct();
	rate();
	hostile();
	return finish();
}
