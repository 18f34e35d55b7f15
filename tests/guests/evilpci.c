/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two processors that write and read at random all over the PCI bus: configuration space, BARs
 * wherever they are put, MSI-X tables, registers of the devices, doorbells. In between one of them
 * brings devices up as a driver would, so that what is hit runs. The VM must not end, and in the end
 * each device works again.
 *
 * What a guest may do to itself is left out: the queues that a device is given lie in memory that
 * nobody needs (its low byte and bits of the address are set for it), and no message is an NMI, an
 * INIT or an SMI.
 *
 * Command line: `seed=N`; `accesses=N` of each processor (default 40000). Memory: 64 MiB.
 */
#include "irq.h"
#include "smp.h"
#include "virtio.h"

#define ARENA 0x2000000u /* its first 64 KiB; and the first 64 KiB of memory */
#define BAR_SIZE 0x4000u
#define WAIT_MS 20000u
#define BRING_UP_EVERY 400u

static uint64_t home[PCI_FUNCTIONS / 8]; /* of the BARs; 0: no function */
static uint32_t id[PCI_FUNCTIONS / 8];
static uint16_t vectors[PCI_FUNCTIONS / 8];
static unsigned devices, accesses;
static uint64_t first_seed;
static volatile bool ap_is_up, go, ap_is_done;
static struct blk_slot *const slot = (struct blk_slot *)(uintptr_t)(ARENA + 0x8000);
static uint8_t *const buffer = (uint8_t *)(uintptr_t)(ARENA + 0xa000);

/* What a byte of a write to this address may be. */
static uint8_t harmless(uint64_t addr, uint8_t v)
{
	unsigned reg = addr % BAR_SIZE;

	if (addr < BOARD_PCI_MMIO || addr >= BOARD_PCI_MMIO_END)
		return v;
	/* The delivery mode of a message, wherever a table may be. */
	if (addr % PCI_MSIX_ENTRY_SIZE == PCI_MSIX_ENTRY_DATA + 1)
		return v & 0xf8;
	/* Bytes 2, 3 and 4 to 7 of the three addresses of a queue. */
	if (reg >= VIRTIO_PCI_COMMON_Q_DESCLO && reg < VIRTIO_PCI_COMMON_Q_NDATA)
		return reg % 8 < 2 ? v : reg % 8 == 3 ? ARENA >> 24 : 0;
	return v;
}
static uint64_t harmless_value(uint64_t addr, unsigned size, uint64_t v)
{
	uint64_t out = 0;

	for (unsigned i = 0; i < size; i++)
		out |= (uint64_t)harmless(addr + i, (uint8_t)(v >> (8 * i))) << (8 * i);
	return out;
}

static void access(uint64_t addr, unsigned shift, bool write, uint64_t v)
{
	v = harmless_value(addr, 1u << shift, v);
	if (write)
		shift == 0   ? write8(addr, (uint8_t)v)
		: shift == 1 ? write16(addr, (uint16_t)v)
		: shift == 2 ? write32(addr, (uint32_t)v)
			     : write64(addr, v);
	else
		shift == 0   ? (void)read8(addr)
		: shift == 1 ? (void)read16(addr)
		: shift == 2 ? (void)read32(addr)
			     : (void)read64(addr);
}

/* Mostly where something is, with values that mean something. */
static uint64_t random_place(uint64_t *s)
{
	uint64_t r = xorshift(s);
	unsigned d = 1 + (unsigned)(r >> 8) % devices;

	switch (r % 8) {
	case 0:
		return BOARD_PCI_ECAM + (r >> 16) % (BOARD_PCI_ECAM_SIZE - 8);
	case 1:
	case 2:
		return pci_at(d, 0) + (r >> 16) % 256;
	case 3:
		return BOARD_PCI_MMIO + (r >> 16) % (BOARD_PCI_MMIO_END - BOARD_PCI_MMIO - 8);
	case 4:
		return home[d] + (r >> 16) % BAR_SIZE;
	case 5:
		return home[d] + 0x2000 + (r >> 16) % 0x1000;
	case 6:
		return home[d] + 0x3000 + (r >> 16) % (vectors[d] * PCI_MSIX_ENTRY_SIZE + 8u);
	default:
		return home[d] + (r >> 16) % 0x48;
	}
}
static uint64_t random_value(uint64_t *s)
{
	uint64_t r = xorshift(s), v = xorshift(s);

	switch (r % 6) {
	case 0:
		return v;
	case 1:
		return v & 0x1f;
	case 2:
		return MSIX_ADDRESS | (v & 0xff000);
	case 3:
		return home[1 + (v >> 8) % devices];
	case 4:
		return BOARD_PCI_MMIO + (v % 64) * BAR_SIZE;
	default:
		return v & 1 ? ~0ull : 0;
	}
}
static void attack(uint64_t *s)
{
	uint64_t at = random_place(s), r = xorshift(s);
	unsigned shift = r & 3;

	if (r >> 8 & 3) /* three of four: aligned */
		at &= ~(uint64_t)((1u << shift) - 1);
	access(at, shift, r >> 16 & 3, random_value(s));
}

/* The other processor is at work: whatever this reads may be wrong, and nothing is looked at. */
static void bring_up(uint64_t *s)
{
	unsigned d = 1 + (unsigned)(xorshift(s) % devices);
	uint64_t fn = pci_at(d, 0), dev = home[d];
	struct vpci p;
	struct vq q = {.dev = dev, .size = 64};

	pci_command(fn, 0);
	pci_set_bar(fn, 0, dev);
	pci_command(fn, VPCI_SET_UP);
	if (!vpci_look(&p, fn) || p.bar != dev)
		return;
	for (unsigned i = 0; i < p.vectors; i++) {
		msix_aim(&p, i, (uint8_t)(0x40 + i));
		msix_mask(&p, i, false);
	}
	msix_set_flags(&p, true, false);
	write8(vpci_common(&p, VIRTIO_PCI_COMMON_STATUS), 0);
	write8(vpci_common(&p, VIRTIO_PCI_COMMON_STATUS), 3);
	write32(vpci_common(&p, VIRTIO_PCI_COMMON_GFSELECT), 1);
	write32(vpci_common(&p, VIRTIO_PCI_COMMON_GF), 1);
	write8(vpci_common(&p, VIRTIO_PCI_COMMON_STATUS), 11);
	q.desc = (struct vring_desc *)(uintptr_t)ARENA;
	q.avail = (struct vring_avail *)(uintptr_t)(ARENA + 0x1000);
	q.used = (struct vring_used *)(uintptr_t)(ARENA + 0x2000);
	memset(q.desc, 0, 0x3000);
	blk_fill(&q, 0, slot, VIRTIO_BLK_T_IN, 0, buffer, SECTOR);
	write16(vpci_common(&p, VIRTIO_PCI_COMMON_Q_SELECT), 0);
	write16(vpci_common(&p, VIRTIO_PCI_COMMON_Q_MSIX), 1);
	write16(vpci_common(&p, VIRTIO_PCI_COMMON_Q_SIZE), q.size);
	write64(vpci_common(&p, VIRTIO_PCI_COMMON_Q_DESCLO), (uintptr_t)q.desc);
	write64(vpci_common(&p, VIRTIO_PCI_COMMON_Q_AVAILLO), (uintptr_t)q.avail);
	write64(vpci_common(&p, VIRTIO_PCI_COMMON_Q_USEDLO), (uintptr_t)q.used);
	write16(vpci_common(&p, VIRTIO_PCI_COMMON_Q_ENABLE), 1);
	write8(vpci_common(&p, VIRTIO_PCI_COMMON_STATUS), 15);
	for (unsigned i = 0; i < 8; i++) {
		vq_push(&q, 0);
		write16(dev + p.notify, 0);
	}
}

_Noreturn void ap_main(void)
{
	uint64_t s = first_seed * 3 + 1;

	irq_start();
	ap_is_up = true;
	while (!go)
		__asm__ volatile("pause");
	for (unsigned i = 0; i < accesses; i++)
		attack(&s);
	ap_is_done = true;
	for (;;)
		__asm__ volatile("hlt");
}

/* From whatever state, as a kernel finds it: "" if it works. */
static const char *works(unsigned d)
{
	static struct blk b;
	static struct vq q;
	static uint8_t bytes[64];
	uint64_t fn = pci_at(d, 0);
	struct vring_used_elem u;
	const struct vpci *p;

	pci_command(fn, 0);
	pci_set_bar(fn, 0, home[d]);
	p = vpci_find(d);
	if (!p || p->id != id[d] || p->bar != home[d])
		return "its configuration space has changed";
	msix_set_flags(p, true, true);
	if (!vdev_reset(p->bar))
		return "no reset";
	if (p->id == VIRTIO_ID_BLOCK) {
		b = (struct blk){.dev = p->bar};
		return !blk_start(&b, 0, 16)                                 ? "does not start"
		       : blk_io(&b, VIRTIO_BLK_T_IN, 0, buffer, SECTOR) != 0 ? "does not read"
									     : "";
	}
	if (p->id != VIRTIO_ID_RNG)
		return "";
	if (!vdev_negotiate(p->bar, VFEATURE(VIRTIO_F_VERSION_1)) || !vq_start(&q, p->bar, 0, 16))
		return "does not start";
	vdev_add_status(p->bar, VIRTIO_CONFIG_S_DRIVER_OK);
	vq_desc(&q, 0, (uintptr_t)bytes, sizeof(bytes), VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	vq_kick(&q);
	return vq_pop(&q, &u, WAIT_MS) ? "" : "does not answer";
}

static bool prepare(void)
{
	for (unsigned d = 1; d < PCI_FUNCTIONS / 8; d++) {
		const struct vpci *p = vpci_find(d);

		if (!p)
			break;
		devices = d;
		home[d] = p->bar;
		id[d] = p->id;
		vectors[d] = (uint16_t)p->vectors;
	}
	/* What the devices may take for their queues, other than ours. */
	memset((void *)(uintptr_t)0x1000, 0, 0xf000);
	memset((void *)(uintptr_t)ARENA, 0, 0x20000);
	return devices > 0;
}

int main(void)
{
	uint64_t s, end;

	first_seed = cmdline_number("seed=", 1);
	accesses = cmdline_number("accesses=", 40000);
	s = first_seed * 2654435761u + 99;
	if (!check("functions", prepare(), "none"))
		return finish();
	irq_start();
	if (!check("processor", smp_start(&ap_is_up), "the second one does not start"))
		return finish();
	go = true;
	for (unsigned i = 0; i < accesses; i++) {
		attack(&s);
		if (i % BRING_UP_EVERY == 0)
			bring_up(&s);
	}
	end = deadline_ms(WAIT_MS * 3);
	while (!ap_is_done && rdtsc() < end)
		__asm__ volatile("pause");
	check("both_come_through", ap_is_done, "the other one hangs");
	/* None is in another's place when it is put in its own. */
	for (unsigned d = 1; d <= devices; d++) {
		pci_command(pci_at(d, 0), 0);
		pci_set_bar(pci_at(d, 0), 0, home[d]);
	}
	for (unsigned d = 1; d <= devices; d++) {
		const char *why = works(d);

		if (*why)
			check("works_in_the_end", false, "device %u, %u: %s", d, id[d], why);
	}
	check("all_work_in_the_end", payload_failures == 0, "no");
	return finish();
}
