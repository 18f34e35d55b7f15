/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device of the host that the VM has (--vfio), as a driver would use it: QEMU's edu, which has
 * registers, DMA and one interrupt by MSI. QEMU, docs/specs/edu.rst; PCI Local Bus 3.0, 6.8.1 (MSI).
 *
 * It wants it as function 00:01.0. Not in the suites of tests/guests, which have no such device.
 */
#include "irq.h"
#include "vpci.h"

#define EDU_ID 0x11e81234u
#define VECTOR 0x40u
#define OTHER 0x50u
#define WAIT_MS 30000u /* whatever the machine does besides */
#define SETTLE_MS 20u
#define ROOM 2048u /* of 4096 that it can keep, the last byte of which it refuses by mistake */

enum {
	REG_IDENTITY = 0x00,
	REG_LIVENESS = 0x04,
	REG_FACTORIAL = 0x08,
	REG_STATUS = 0x20,
	REG_PENDING = 0x24,
	REG_RAISE = 0x60,
	REG_ACKNOWLEDGE = 0x64,
	REG_SOURCE = 0x80,
	REG_TARGET = 0x88,
	REG_COUNT = 0x90,
	REG_DMA = 0x98,
};
#define STATUS_COMPUTES 0x01u
#define STATUS_INTERRUPTS 0x80u
#define DMA_RUN 1u
#define DMA_TO_MEMORY 2u
#define DMA_INTERRUPTS 4u
#define COMPUTED 0x001u /* in REG_PENDING */
#define DMA_DONE 0x100u
#define EDU_BUFFER 0x40000u

static uint64_t fn, bar;
static uint8_t msi;
static _Alignas(ROOM) uint8_t out[ROOM], in[ROOM];

static void acknowledge(void)
{
	write32(bar + REG_ACKNOWLEDGE, read32(bar + REG_PENDING));
}

/* One interrupt has come since there were `n`, with these bits, and no more. */
static bool interrupted(uint32_t n, uint32_t bits)
{
	bool good = irq_wait(VECTOR, n + 1, WAIT_MS) && read32(bar + REG_PENDING) == bits;

	acknowledge();
	wait_ms(SETTLE_MS);
	return good && irq_count[VECTOR] == n + 1;
}

static void configuration(void)
{
	uint32_t size;

	write32(fn + PCI_BASE_ADDRESS_0, PCI_ONES);
	size = ~(read32(fn + PCI_BASE_ADDRESS_0) & 0xfffffff0) + 1;
	write32(fn + PCI_BASE_ADDRESS_0, (uint32_t)bar);
	check("bar", size == 1 << 20 && bar % size == 0, "%u bytes at 0x%x", size, (uint32_t)bar);
	check("msi", msi && read16(fn + msi + PCI_MSI_FLAGS) == 0, "at 0x%x, flags 0x%x", msi,
	      read16(fn + msi + PCI_MSI_FLAGS));
	check("nothing_else",
	      !pci_capability(fn, PCI_CAP_ID_MSIX, 0) && read8(fn + PCI_INTERRUPT_PIN) == 0,
	      "pin %u", read8(fn + PCI_INTERRUPT_PIN));
}

static void registers(void)
{
	uint32_t id = read32(bar + REG_IDENTITY);

	check("identity", (id & 0xffff) == 0x00ed, "0x%x", id);
	write32(bar + REG_LIVENESS, 0x12345678);
	check("liveness", read32(bar + REG_LIVENESS) == ~0x12345678u, "0x%x",
	      read32(bar + REG_LIVENESS));
}

/* Off: none comes. On: each that is asked for, at the vector that was said. */
static void messages(void)
{
	uint32_t n;

	write32(fn + msi + PCI_MSI_ADDRESS_LO, MSIX_ADDRESS);
	write16(fn + msi + PCI_MSI_DATA_32, VECTOR);
	write16(fn + msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
	for (n = 0; n < 10; n++) {
		write32(bar + REG_RAISE, n + 1);
		if (!interrupted(n, n + 1))
			break;
	}
	check("interrupts", n == 10, "%u of 10", n);
	write16(fn + msi + PCI_MSI_DATA_32, OTHER);
	write32(bar + REG_RAISE, 1);
	check("another_vector", irq_wait(OTHER, 1, WAIT_MS) && irq_count[VECTOR] == n, "%u, %u",
	      irq_count[OTHER], irq_count[VECTOR] - n);
	acknowledge();
	write16(fn + msi + PCI_MSI_DATA_32, VECTOR);
	write16(fn + msi + PCI_MSI_FLAGS, 0);
	write32(bar + REG_RAISE, 2);
	wait_ms(SETTLE_MS);
	check("off", irq_count[VECTOR] == n, "%u too many", irq_count[VECTOR] - n);
	write16(fn + msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
	check("on_again", interrupted(n, 2), "%u", irq_count[VECTOR] - n);
}

static void computing(void)
{
	uint32_t n = irq_count[VECTOR];
	bool good;

	write32(bar + REG_STATUS, STATUS_INTERRUPTS);
	write32(bar + REG_FACTORIAL, 10);
	good = interrupted(n, COMPUTED) && !(read32(bar + REG_STATUS) & STATUS_COMPUTES);
	check("factorial", good && read32(bar + REG_FACTORIAL) == 3628800, "%u",
	      read32(bar + REG_FACTORIAL));
	write32(bar + REG_STATUS, 0);
}

static bool transfer(uint64_t from, uint64_t to, uint32_t how)
{
	uint32_t n = irq_count[VECTOR];

	write64(bar + REG_SOURCE, from);
	write64(bar + REG_TARGET, to);
	write64(bar + REG_COUNT, ROOM);
	write64(bar + REG_DMA, how | DMA_RUN | DMA_INTERRUPTS);
	return interrupted(n, DMA_DONE) && !(read64(bar + REG_DMA) & DMA_RUN);
}

/* To the device and back. Without bus mastering nothing arrives. */
static void memory(void)
{
	bool good;

	for (unsigned i = 0; i < ROOM; i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	good = transfer((uintptr_t)out, EDU_BUFFER, 0) &&
	       transfer(EDU_BUFFER, (uintptr_t)in, DMA_TO_MEMORY);
	check("dma", good && !memcmp(out, in, ROOM), "%s", good ? "other data" : "no end");
	memset(in, 0, ROOM);
	pci_command(fn, PCI_COMMAND_MEMORY);
	write64(bar + REG_DMA, DMA_TO_MEMORY | DMA_RUN | DMA_INTERRUPTS);
	for (uint64_t end = deadline_ms(WAIT_MS); read64(bar + REG_DMA) & DMA_RUN && rdtsc() < end;)
		__asm__ volatile("pause");
	good = !(read64(bar + REG_DMA) & DMA_RUN);
	check("no_dma_unless_master", good && in[1] == 0 && in[ROOM - 1] == 0, "0x%x", in[1]);
	acknowledge();
	pci_command(fn, VPCI_SET_UP);
}

int main(void)
{
	fn = pci_at(1, 0);
	if (read32(fn + PCI_VENDOR_ID) != EDU_ID) {
		check("edu", false, "0x%x is there", read32(fn + PCI_VENDOR_ID));
		return finish();
	}
	bar = pci_bar(fn, 0);
	msi = pci_capability(fn, PCI_CAP_ID_MSI, 0);
	irq_start();
	pci_command(fn, VPCI_SET_UP);
	configuration();
	registers();
	messages();
	computing();
	memory();
	return finish();
}
