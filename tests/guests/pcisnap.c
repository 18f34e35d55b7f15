/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For snapshots of a VM with PCI: a disk whose BAR was moved, with MSI-X, and interrupts that are
 * held back: the disk's by a mask of its entry, of the source of random numbers by its function's.
 * Then it prints "armed", and does what is typed:
 *
 *   v  "ok state" if all of configuration space, the table and what is pending is as it was, or
 *      what is not. Then it lets both interrupts go: "ok delivered"; then a request with its
 *      interrupt: "ok works". And arms again: "armed"
 *   i  a request while nothing is held back but what is held already, by the other queue: "ok works"
 *   q  ends
 */
#include "irq.h"
#include "virtio.h"

#define BAR_SIZE 0x4000u
#define PLACE (BOARD_PCI_MMIO_END - 8 * BAR_SIZE)
#define VECTORS_MOST 24u
#define WAIT_MS 30000u
#define VECTOR_BLK 0x40u
#define VECTOR_RNG 0x60u
#define COMMON(p, reg) vpci_common(p, VIRTIO_PCI_COMMON_##reg)

static const struct vpci *blk, *rng;
static struct vq q[2], rq;
static struct blk_slot slot;
static _Alignas(BOARD_PAGE) uint8_t in[BOARD_PAGE], bytes[64];
static uint32_t config[2][64], table[2][4 * VECTORS_MOST];

static void queue_up(struct vq *to, const struct vpci *p, unsigned index, unsigned memory)
{
	vq_clear(to, p->bar, memory, 64);
	to->index = index;
	to->avail->flags = 0;
	write16(COMMON(p, Q_SELECT), (uint16_t)index);
	write16(COMMON(p, Q_MSIX), (uint16_t)(index + 1));
	vq_tell(to, true);
}
static bool device_up(const struct vpci *p, unsigned vector, unsigned queues)
{
	uint64_t offered = vdev_offered(p->bar);

	if (!vdev_negotiate(p->bar,
			    offered & (VFEATURE(VIRTIO_F_VERSION_1) |
				       (p->id == VIRTIO_ID_BLOCK ? VFEATURE(VIRTIO_BLK_F_MQ) : 0))))
		return false;
	for (unsigned i = 0; i < p->vectors; i++) {
		msix_aim(p, i, (uint8_t)(vector + i));
		msix_mask(p, i, false);
	}
	write16(COMMON(p, MSIX), 0);
	msix_set_flags(p, true, false);
	for (unsigned i = 0; i < queues; i++)
		queue_up(p == blk ? &q[i] : &rq, p, i, p == blk ? i : 5);
	vdev_add_status(p->bar, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(p->bar, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

static void ask_disk(struct vq *to)
{
	memset(in, 0, sizeof(in));
	blk_fill(to, 0, &slot, VIRTIO_BLK_T_IN, 8, in, sizeof(in));
	vq_push(to, 0);
	vq_kick(to);
}
static bool disk_answers(struct vq *to)
{
	struct vring_used_elem u;

	return vq_pop(to, &u, WAIT_MS) && u.id == 0 && slot.status == VIRTIO_BLK_S_OK &&
	       memcmp(in, "the second page", 15) == 0;
}
static void ask_rng(void)
{
	vq_desc(&rq, 0, (uintptr_t)bytes, sizeof(bytes), VRING_DESC_F_WRITE, 0);
	vq_push(&rq, 0);
	vq_kick(&rq);
}
static bool rng_answers(void)
{
	struct vring_used_elem u;

	return vq_pop(&rq, &u, WAIT_MS) && u.len > 0;
}
static bool becomes_pending(const struct vpci *p, bool pending)
{
	uint64_t end = deadline_ms(WAIT_MS);

	while (msix_pending(p, 1) != pending && rdtsc() < end)
		__asm__ volatile("pause");
	return msix_pending(p, 1) == pending;
}

static void look(const struct vpci *p, uint32_t c[64], uint32_t *t)
{
	for (unsigned i = 0; i < 64; i++)
		c[i] = read32(p->fn + 4 * i);
	for (unsigned i = 0; i < 4 * p->vectors && i < 4 * VECTORS_MOST; i++)
		t[i] = read32(p->bar + p->table + 4 * i);
}

static bool arm(void)
{
	bool good;

	msix_mask(blk, 1, true);
	msix_set_flags(rng, true, true);
	ask_disk(&q[0]);
	good = disk_answers(&q[0]) && becomes_pending(blk, true);
	ask_rng();
	good = rng_answers() && becomes_pending(rng, true) && good;
	look(blk, config[0], table[0]);
	look(rng, config[1], table[1]);
	print(good ? "armed\n" : "not ok armed\n");
	return good;
}

static void verify(void)
{
	static uint32_t c[2][64], t[2][4 * VECTORS_MOST];
	uint32_t n = irq_count[VECTOR_BLK + 1], m = irq_count[VECTOR_RNG + 1];
	bool pending, delivered;

	look(blk, c[0], t[0]);
	look(rng, c[1], t[1]);
	pending = msix_pending(blk, 1) && msix_pending(rng, 1);
	check("state",
	      memcmp(c, config, sizeof(c)) == 0 && memcmp(t, table, sizeof(t)) == 0 && pending &&
		      pci_bar(blk->fn, 0) == PLACE,
	      "configuration %u %u, tables %u %u, pending %u, BAR 0x%x",
	      memcmp(c[0], config[0], sizeof(c[0])) == 0,
	      memcmp(c[1], config[1], sizeof(c[1])) == 0, memcmp(t[0], table[0], sizeof(t[0])) == 0,
	      memcmp(t[1], table[1], sizeof(t[1])) == 0, pending, pci_bar(blk->fn, 0));
	msix_mask(blk, 1, false);
	delivered = irq_wait(VECTOR_BLK + 1, n + 1, WAIT_MS);
	msix_set_flags(rng, true, false);
	delivered = irq_wait(VECTOR_RNG + 1, m + 1, WAIT_MS) && delivered;
	check("delivered", delivered && becomes_pending(blk, false) && becomes_pending(rng, false),
	      "disk %u, source %u", irq_count[VECTOR_BLK + 1] - n, irq_count[VECTOR_RNG + 1] - m);
}

/* The second queue, whose interrupt nobody holds back. */
static void works(void)
{
	uint32_t n = irq_count[VECTOR_BLK + 2];

	ask_disk(&q[1]);
	check("works", irq_wait(VECTOR_BLK + 2, n + 1, WAIT_MS) && disk_answers(&q[1]),
	      "%u interrupts", irq_count[VECTOR_BLK + 2] - n);
}

static bool bring_up(void)
{
	uint64_t at = vdev_find(VIRTIO_ID_BLOCK), source = vdev_find(VIRTIO_ID_RNG);

	blk = vpci_of(at);
	rng = vpci_of(source);
	if (!blk || !rng || blk->vectors < 3 || blk->vectors > VECTORS_MOST)
		return false;
	pci_command(blk->fn, 0);
	pci_set_bar(blk->fn, 0, PLACE);
	pci_command(blk->fn, VPCI_SET_UP);
	blk = vpci_find((unsigned)(blk->fn - BOARD_PCI_ECAM) >> 15);
	return device_up(blk, VECTOR_BLK, 2) && device_up(rng, VECTOR_RNG, 1);
}

int main(void)
{
	irq_start();
	if (!check("devices", bring_up(), "no disk with two queues, or no source, on PCI"))
		return finish();
	works();
	if (!arm())
		return 1;
	for (;;) {
		uint8_t c;

		while (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
			__asm__ volatile("pause");
		c = inb(BOARD_COM1 + UART_RX);
		if (c == 'q')
			return finish();
		if (c == 'i' || c == 'v') {
			if (c == 'v')
				verify();
			works();
			if (c == 'v' && !arm())
				return 1;
		}
	}
}
