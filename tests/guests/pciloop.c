/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk on PCI under load, driven by its interrupts alone: what is answered is looked at when the
 * queue's vector has been counted, and not before, so that an interrupt that is lost is a queue that
 * stands still. Meanwhile the vectors are masked and unmasked in every way that there is. Each slot
 * writes a block of its own, reads it back and compares.
 *
 * Command line: `rounds=N`: requests (default 3000); 0: until somebody types. `quiet`: nothing is
 * masked. Prints `looping` when the first is through, at the end `rounds N of N queues`, `masked N`.
 */
#include "irq.h"
#include "virtio.h"

#define SLOTS 16u
#define BLOCK 4096u
#define SPAN 24u      /* blocks of each slot */
#define WAIT_MS 20000 /* longer than a restart takes, whatever the machine does besides */
#define VECTOR 0x50u  /* of queue 0 */
#define QUEUES_MOST 4u

static const struct vpci *disk;
static struct vq q[QUEUES_MOST];
static uint32_t looked[QUEUES_MOST]; /* interrupts that were counted when we looked */
static unsigned nqueues, masked;
static uint32_t done;
static uint64_t seed = 0x1ce4e5b9;
static struct slot {
	struct blk_slot blk;
	bool reading;
	uint32_t round;
	uint32_t block;
} slot[SLOTS];
static _Alignas(BOARD_PAGE) uint8_t data[SLOTS][BLOCK];

static uint64_t stamp(unsigned i, unsigned sector)
{
	return (uint64_t)slot[i].round << 32 | i << 16 | slot[i].block << 4 | sector;
}
static void send(unsigned i)
{
	struct slot *s = &slot[i];
	uint64_t sector = (uint64_t)(i * SPAN + s->block) * (BLOCK / SECTOR);

	for (unsigned k = 0; k < BLOCK / SECTOR; k++)
		*(uint64_t *)(void *)(data[i] + (size_t)k * SECTOR) = s->reading ? 0 : stamp(i, k);
	blk_fill(&q[i % nqueues], (uint16_t)(3 * i), &s->blk,
		 s->reading ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, sector, data[i], BLOCK);
	vq_push(&q[i % nqueues], (uint16_t)(3 * i));
	vq_kick(&q[i % nqueues]);
}
static void write_next(unsigned i)
{
	slot[i].round++;
	slot[i].reading = false;
	slot[i].block = (uint32_t)xorshift(&seed) % SPAN;
	send(i);
}
/* What this slot was answered. */
static bool take(unsigned i)
{
	struct slot *s = &slot[i];

	if (s->blk.status != VIRTIO_BLK_S_OK)
		return check("status", false, "%u of slot %u", s->blk.status, i);
	done++;
	if (!s->reading) {
		s->reading = true;
		send(i);
		return true;
	}
	for (unsigned k = 0; k < BLOCK / SECTOR; k++)
		if (*(uint64_t *)(void *)(data[i] + (size_t)k * SECTOR) != stamp(i, k))
			return check("data", false, "slot %u, round %u, sector %u", i, s->round, k);
	write_next(i);
	return true;
}

/* All that there is, of a queue that has interrupted. */
static bool drain(unsigned n)
{
	while (*(volatile uint16_t *)&q[n].used->idx != q[n].seen) {
		struct vring_used_elem u = {0};

		if (!vq_pop(&q[n], &u, 1) || u.id % 3 || u.id / 3 >= SLOTS ||
		    u.id / 3 % nqueues != n)
			return check("answers", false, "id %u of queue %u", u.id, n);
		if (!take(u.id / 3))
			return false;
	}
	return true;
}

static void rest(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		__asm__ volatile("pause");
}
/* Held back for a moment, in one of the ways; the moment may be none. */
static void toggle(void)
{
	uint64_t r = xorshift(&seed);
	unsigned entry = 1 + (unsigned)(r >> 8) % nqueues, long_ = (unsigned)(r >> 16) % 2000;

	masked++;
	switch (r % 6) {
	case 0:
	case 1:
		msix_mask(disk, entry, true);
		rest(long_);
		msix_mask(disk, entry, false);
		break;
	case 2:
		msix_set_flags(disk, true, true);
		rest(long_);
		msix_set_flags(disk, true, false);
		break;
	case 3:
		msix_set_flags(disk, false, false);
		rest(long_);
		msix_set_flags(disk, true, false);
		break;
	case 4:
		pci_command(disk->fn, VPCI_SET_UP & ~PCI_COMMAND_MASTER);
		rest(long_);
		pci_command(disk->fn, VPCI_SET_UP);
		break;
	default:
		msix_mask(disk, entry, true);
		msix_aim(disk, entry, (uint8_t)(VECTOR + 0x40 + entry));
		msix_aim(disk, entry, (uint8_t)(VECTOR + entry - 1));
		msix_mask(disk, entry, false);
	}
}

/* Until a queue has interrupted: looks at it. False: none did, or what it had was wrong. */
static bool turn(bool toggles)
{
	uint64_t end = deadline_ms(WAIT_MS);

	for (;;) {
		bool any = false;

		for (unsigned n = 0; n < nqueues; n++) {
			uint32_t now = irq_count[VECTOR + n];

			if (now == looked[n])
				continue;
			looked[n] = now;
			any = true;
			if (!drain(n))
				return false;
		}
		if (any)
			return true;
		if (rdtsc() > end)
			return check("interrupts", false,
				     "none, and %u answers wait; pending %u, flags 0x%x",
				     (uint16_t)(q[0].used->idx - q[0].seen), msix_pending(disk, 1),
				     msix_flags(disk));
		if (toggles && (xorshift(&seed) & 7) == 0)
			toggle();
	}
}

static bool bring_up(void)
{
	uint64_t offered = vdev_offered(disk->bar);

	if (!vdev_negotiate(disk->bar,
			    offered & (VFEATURE(VIRTIO_F_VERSION_1) | VFEATURE(VIRTIO_BLK_F_MQ))))
		return false;
	nqueues = disk->vectors - 1 < QUEUES_MOST ? disk->vectors - 1 : QUEUES_MOST;
	for (unsigned i = 0; i < nqueues; i++) {
		vq_clear(&q[i], disk->bar, i, 64);
		q[i].avail->flags = 0;
		write16(vpci_common(disk, VIRTIO_PCI_COMMON_Q_SELECT), (uint16_t)i);
		write16(vpci_common(disk, VIRTIO_PCI_COMMON_Q_MSIX), (uint16_t)(i + 1));
		vq_tell(&q[i], true);
		msix_aim(disk, i + 1, (uint8_t)(VECTOR + i));
		msix_mask(disk, i + 1, false);
	}
	msix_set_flags(disk, true, false);
	vdev_add_status(disk->bar, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(disk->bar, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK &&
	       read64(disk->bar + disk->config) >= (uint64_t)SLOTS * SPAN * (BLOCK / SECTOR);
}

int main(void)
{
	uint32_t rounds = cmdline_number("rounds=", 3000);
	bool good, toggles = !cmdline_word("quiet"), said = false;
	uint64_t at = vdev_find(VIRTIO_ID_BLOCK);

	disk = vpci_of(at);
	irq_start();
	if (!check("disk", disk && bring_up(), "none on PCI that can be written, of 2 MiB"))
		return finish();
	for (unsigned i = 0; i < SLOTS; i++)
		write_next(i);
	do {
		good = turn(toggles);
		if (done >= SLOTS && !said) {
			said = true;
			print("looping\n");
		}
	} while (good && (rounds ? done < rounds || (toggles && masked < 10)
				 : !(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR)));
	check("no_interrupt_is_lost", good, "no");
	check("masked_often", !toggles || masked >= 10, "%u times", masked);
	print("rounds %u of %u queues\nmasked %u\n", done, nqueues, masked);
	return finish();
}
