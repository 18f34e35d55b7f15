/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one access costs the guest, in TSC cycles: `tsc_khz N`, then `bench NAME CYCLES` (median of
 * SAMPLES).
 *
 *   empty         two rdtsc alone: what measuring costs
 *   bare_read     board register: a KVM exit that the core answers itself
 *   bare_write    the same, written
 *   shadow_port   UART LSR: a KVM exit answered from the device page
 *   posted_port   UART divisor latch: a write that goes into the posted ring
 *   sync_port     UART scratch register: a call that the helper answers
 *   shadow_mmio   virtio magic value, on PCI device_feature: a read-only memory slot, no exit to user
 *                 space
 *   posted_mmio   virtio QueueDescLow: posted; on PCI a call
 *   sync_mmio     virtio DeviceFeaturesSel: a call
 *   doorbell      virtio QueueNotify of a running queue with nothing in it
 */
#include "virtio.h"

#define SAMPLES 2001
#define DRAIN_EVERY 100 /* less than half a posted ring: a full one is another measurement */

static uint64_t sample[SAMPLES];
static uint64_t dev, at;

static void sort(uint64_t *a, unsigned n)
{
	for (unsigned gap = n / 2; gap; gap /= 2)
		for (unsigned i = gap; i < n; i++)
			for (unsigned k = i; k >= gap && a[k - gap] > a[k]; k -= gap) {
				uint64_t t = a[k];

				a[k] = a[k - gap];
				a[k - gap] = t;
			}
}

static void report(const char *name)
{
	sort(sample, SAMPLES);
	print("bench %s %lu\n", name, sample[SAMPLES / 2]);
}

/* `between` runs unmeasured after each DRAIN_EVERY samples: a call, which empties the posted ring.
 */
#define MEASURE(name, access, between)                           \
	do {                                                     \
		for (unsigned i_ = 0; i_ < SAMPLES; i_++) {      \
			uint64_t from_ = rdtsc();                \
			access;                                  \
			sample[i_] = rdtsc() - from_;            \
			if (i_ % DRAIN_EVERY == DRAIN_EVERY - 1) \
				between;                         \
		}                                                \
		report(name);                                    \
	} while (0)

static void board(void)
{
	MEASURE("empty", (void)0, (void)0);
	MEASURE("bare_read", inb(BOARD_REG_SLEEP_STS), (void)0);
	MEASURE("bare_write", outb(BOARD_REG_SLEEP_STS, 0), (void)0);
}

/* Nothing is printed while the divisor latch is selected. */
static void uart(void)
{
	const uint16_t lcr = BOARD_COM1 + UART_LCR, scr = BOARD_COM1 + UART_SCR;

	MEASURE("shadow_port", inb(BOARD_COM1 + UART_LSR), (void)0);
	MEASURE("sync_port", outb(scr, 0), (void)0);
	outb(lcr, UART_LCR_DLAB | UART_LCR_WLEN8);
	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t from = rdtsc();

		outb(BOARD_COM1 + UART_DLL, 1);
		sample[i] = rdtsc() - from;
		if (i % DRAIN_EVERY == DRAIN_EVERY - 1)
			outb(scr, 0);
	}
	outb(lcr, UART_LCR_WLEN8);
	report("posted_port");
}

/* Where a register is: these guests may run a few million instructions a second, so nothing is
 * computed while it is measured. */
static void place(unsigned mmio, unsigned pci)
{
	at = vpci_of(dev) ? vpci_common(vpci_of(dev), pci) : dev + mmio;
}

static void virtio(void)
{
	static struct blk b;
	uint64_t call;

	if (!blk_find(&b)) {
		skip("bench_mmio", "no block device");
		return;
	}
	dev = b.dev;
	vdev_reset(dev);
	place(VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_PCI_COMMON_DF);
	MEASURE("shadow_mmio", read32(at), (void)0);
	place(VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_PCI_COMMON_DFSELECT);
	call = at;
	MEASURE("sync_mmio", write32(at, 0), (void)0);
	place(VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_PCI_COMMON_Q_DESCLO);
	MEASURE("posted_mmio", write32(at, 0), write32(call, 0));
	if (!check("bench_start", blk_start(&b, 0, 16), "the device does not start"))
		return;
	at = vpci_of(dev) ? vpci_doorbell(vpci_of(dev), 0) : dev + VIRTIO_MMIO_QUEUE_NOTIFY;
	if (vpci_of(dev)) {
		MEASURE("doorbell", write16(at, 0), (void)0);
	} else {
		MEASURE("doorbell", write32(at, 0), (void)0);
	}
}

int main(void)
{
	print("tsc_khz %u\n", tsc_khz());
	board();
	uart();
	virtio();
	return finish();
}
