/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PCI bus as a driver sees it: configuration space, BARs that are sized and moved, MSI-X; and
 * virtio over it, with the data of a disk compared and each interrupt counted. What an operating
 * system never does is in evilpci.c.
 *
 * It wants functions 00:01.0 on, without a gap: a writable disk, and a source of random numbers, a
 * second disk where there is one. Command line: `devices=N`: so many functions; `many`: only what
 * holds for all of them, a request to each disk included: the nth has 2048 + n sectors. Virtio 1.2,
 * 4.1; PCI Express Base 5.0, 7.5 and 7.7.2; PCI Local Bus 3.0, 6.2.5.1 (sizes of BARs) and 6.8.2
 * (MSI-X).
 */
#include "irq.h"
#include "virtio.h"

#define BAR_SIZE 0x4000u
#define DATA 4096u
#define WAIT_MS 20000u /* whatever the machine does besides */
#define SETTLE_MS 20u
#define VECTOR_BLK 0x40u /* entry i of the disk's table: + i */
#define VECTOR_RNG 0x60u
#define VECTOR_OTHER 0x70u
#define ODDITIES 8u
#define COMMON(p, reg) vpci_common(p, VIRTIO_PCI_COMMON_##reg)

/* Bit `n` of what is wrong. */
static inline unsigned wrong_if(bool it_is, unsigned n)
{
	return it_is ? 1u << n : 0;
}

static const struct vpci *blk, *rng;
static unsigned devices, disk_queues;
static struct vq q[VQ_COUNT], rq; /* of the disk; of the source */
static struct blk_slot slot;
static _Alignas(BOARD_PAGE) uint8_t out[DATA], in[DATA];
static uint64_t seed = 0x5eed;

/* ---- configuration space ---- */

static void enumeration(void)
{
	unsigned there = 0, misplaced = 0, answers = 0;

	for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
		uint64_t fn = pci_at(f / 8, f % 8);
		bool expected = devices && f % 8 == 0 && f / 8 <= devices;

		if (pci_is_there(fn)) {
			there++;
			misplaced += !expected;
			continue;
		}
		misplaced += expected;
		write32(fn + PCI_COMMAND, 7);
		write8(fn, 0);
		answers += read32(fn + PCI_COMMAND) != PCI_ONES || read8(fn) != 0xff ||
			   read16(fn + PCI_HEADER_TYPE) != 0xffff || read64(fn + 0xff8) != ~0ull ||
			   read64(fn + 0x3c) != ~0ull;
	}
	/* With the host bridge. */
	check("functions", there == (devices ? devices + 1 : 0) && misplaced == 0,
	      "%u, %u where there should be none or the other way round", there, misplaced);
	write32(pci_at(0, 0), 0);
	write32(pci_at(0, 0) + PCI_COMMAND, 0);
	check("host_bridge",
	      !devices || (read32(pci_at(0, 0) + PCI_CLASS_REVISION) == 0x06000000 &&
			   read8(pci_at(0, 0) + PCI_HEADER_TYPE) == PCI_HEADER_TYPE_NORMAL &&
			   read16(pci_at(0, 0)) == 0x8086),
	      "class 0x%x", read32(pci_at(0, 0) + PCI_CLASS_REVISION));
	check("absent_functions_are_ones", answers == 0, "%u are not", answers);
	check("ecam_ends", read32(BOARD_PCI_ECAM + BOARD_PCI_ECAM_SIZE) == PCI_ONES, "0x%x",
	      read32(BOARD_PCI_ECAM + BOARD_PCI_ECAM_SIZE));
}

static unsigned odd_header(uint64_t fn)
{
	uint16_t id = read16(fn + PCI_DEVICE_ID);

	return (read16(fn + PCI_VENDOR_ID) != VPCI_VENDOR_ID) | (id <= VPCI_MODERN) << 1 |
	       (read8(fn + PCI_HEADER_TYPE) != PCI_HEADER_TYPE_NORMAL) << 2 |
	       (read8(fn + PCI_INTERRUPT_PIN) != 0) << 3 | (read8(fn + PCI_REVISION_ID) < 1) << 4 |
	       !(read16(fn + PCI_STATUS) & PCI_STATUS_CAP_LIST) << 5 |
	       (read32(fn + PCI_ROM_ADDRESS) != 0) << 6 |
	       (read32(fn) != (read16(fn) | (uint32_t)id << 16)) << 7 |
	       (read64(fn) != (read32(fn) | (uint64_t)read32(fn + 4) << 32)) << 8 |
	       (read8(fn + 3) != id >> 8) << 9;
}
/* What of the header can be written: three bits of the command, and the BARs. */
static unsigned written_header(uint64_t fn)
{
	uint32_t before[16];
	unsigned wrong = 0;

	for (unsigned i = 0; i < 16; i++)
		before[i] = read32(fn + 4 * i);
	write16(fn + PCI_COMMAND, 0xffff);
	wrong |= read16(fn + PCI_COMMAND) != VPCI_SET_UP;
	write16(fn + PCI_COMMAND, 0);
	wrong |= wrong_if(read16(fn + PCI_COMMAND) != 0, 1);
	write8(fn + PCI_COMMAND, PCI_COMMAND_MEMORY);
	wrong |= wrong_if(read16(fn + PCI_COMMAND) != PCI_COMMAND_MEMORY, 2);
	write8(fn + PCI_COMMAND + 1, PCI_COMMAND_INTX_DISABLE >> 8);
	wrong |= wrong_if(
		read16(fn + PCI_COMMAND) != (PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE), 3);
	/* Command and status at once: the status stays. */
	write32(fn + PCI_COMMAND, 0xffff0000u | (before[1] & 0xffff));
	for (unsigned i = 0; i < 16; i++) {
		/* The cache line's size and the interrupt's line are software's. */
		if (i == 1 || (i >= 4 && i < 10))
			continue;
		write32(fn + 4 * i, ~before[i]);
		write16(fn + 4 * i, (uint16_t)~before[i]);
		write8(fn + 4 * i + 3, (uint8_t) ~(before[i] >> 24));
		if (i == 3)
			wrong |= ((read32(fn + 4 * i) ^ before[i]) & 0xffffff00) != 0 ? 1u << 4 : 0;
		else if (i == 15)
			wrong |= ((read32(fn + 4 * i) ^ before[i]) & 0xff00) != 0 ? 1u << 5 : 0;
		else
			wrong |= read32(fn + 4 * i) != before[i] ? 1u << (i + 6) : 0;
		write32(fn + 4 * i, before[i]);
	}
	wrong |= read32(fn + PCI_COMMAND) != before[1] ? 1u << 31 : 0;
	return wrong;
}

/* Every capability in the space, aligned, each once, none over another, and the chain ends. */
static unsigned odd_chain(uint64_t fn)
{
	uint64_t taken = 0; /* a bit for each four bytes */
	unsigned n = 0, msix = 0;
	uint8_t at = read8(fn + PCI_CAPABILITY_LIST);

	for (; at && n < PCI_CAPS_MOST; at = read8(fn + at + 1), n++) {
		uint8_t kind = read8(fn + at);
		unsigned len = kind == PCI_CAP_ID_VNDR ? read8(fn + at + VIRTIO_PCI_CAP_LEN) : 12;

		if (at < PCI_CAP_FIRST || at & 3 || at + len > 256)
			return 1;
		if (kind != PCI_CAP_ID_VNDR && kind != PCI_CAP_ID_MSIX)
			return 2;
		msix += kind == PCI_CAP_ID_MSIX;
		for (unsigned i = at; i < at + len; i += 4) {
			if (taken >> (i / 4) & 1)
				return 3;
			taken |= 1ull << (i / 4);
		}
	}
	return at ? 4 : msix != 1 ? 5 : 0;
}
/* Where the parts are: in the BAR, none over another, the notifications of all queues in theirs. */
static unsigned odd_parts(const struct vpci *p)
{
	const struct {
		uint32_t at, len;
	} part[] = {{p->common, p->common_len},
		    {p->notify, p->notify_len},
		    {p->isr, 1},
		    {p->config, p->config_len},
		    {p->table, p->vectors * PCI_MSIX_ENTRY_SIZE},
		    {p->pba, (p->vectors + 63) / 64 * 8}};
	unsigned queues = read16(COMMON(p, NUMQ));

	for (unsigned i = 0; i < 6; i++) {
		if (part[i].at % 4 || part[i].at + part[i].len > BAR_SIZE)
			return 1 + i;
		for (unsigned k = 0; k < i; k++) {
			if (part[k].len && part[i].len && part[i].at < part[k].at + part[k].len &&
			    part[k].at < part[i].at + part[i].len)
				return 16 + 8 * i + k;
		}
	}
	if (p->common_len < VIRTIO_PCI_COMMON_Q_RESET + 2 || queues == 0)
		return 7;
	if (p->vectors != queues + 1)
		return 8;
	for (unsigned i = 0; i < queues; i++) {
		uint64_t at = vpci_doorbell(p, i) - p->bar - p->notify;

		if (at + 2 > p->notify_len || at != (uint64_t)i * p->notify_each)
			return 9;
	}
	if (read32(p->fn + p->msix + PCI_MSIX_TABLE) & 7 ||
	    read32(p->fn + p->msix + PCI_MSIX_PBA) & 7)
		return 10;
	return 0;
}

/* Behind 256 bytes there is nothing, and nothing can be put there. */
static unsigned behind(uint64_t fn)
{
	unsigned odd = 0;

	for (unsigned at = 256; at < 4096; at += 4) {
		uint32_t v = read32(fn + at);

		odd += v != 0 && v != PCI_ONES;
	}
	for (unsigned k = 0; k < 3; k++) {
		static const unsigned where[] = {256, 2048, 4088};
		uint64_t at = fn + where[k];
		uint64_t before = read64(at);

		write64(at, 0x1122334455667788);
		write32(at, 0x12345678);
		write8(at + 1, 0x55);
		odd += read64(at) != before;
	}
	return odd + (read64(fn + 4092) != ~0ull && (uint32_t)read64(fn + 4092) != 0);
}

static uint32_t size_mask(uint64_t fn, unsigned i)
{
	uint32_t was = read32(fn + PCI_BASE_ADDRESS_0 + 4 * i), mask;

	write32(fn + PCI_BASE_ADDRESS_0 + 4 * i, PCI_ONES);
	mask = read32(fn + PCI_BASE_ADDRESS_0 + 4 * i);
	write32(fn + PCI_BASE_ADDRESS_0 + 4 * i, was);
	return read32(fn + PCI_BASE_ADDRESS_0 + 4 * i) == was ? mask : 0xbad;
}
static unsigned odd_bars(uint64_t fn)
{
	uint16_t command = read16(fn + PCI_COMMAND);
	unsigned odd = 0;

	for (unsigned k = 0; k < 2; k++) { /* as one should, and while it decodes */
		pci_command(fn, k ? VPCI_SET_UP : 0);
		odd |= wrong_if(size_mask(fn, 0) != 0xffffffff - BAR_SIZE + 1, 8 * k);
		for (unsigned i = 1; i < 6; i++)
			odd |= wrong_if(size_mask(fn, i) != 0, i + 8 * k);
		write32(fn + PCI_ROM_ADDRESS, PCI_ONES);
		odd |= wrong_if(read32(fn + PCI_ROM_ADDRESS) != 0, 6 + 8 * k);
	}
	write8(fn + PCI_BASE_ADDRESS_0, 0x0f); /* below the size nothing can be set */
	odd |= (read32(fn + PCI_BASE_ADDRESS_0) & (BAR_SIZE - 1)) != 0 ? 1u << 16 : 0;
	pci_command(fn, command);
	return odd;
}

/* What holds for each function, with the first device that it does not hold for. */
static void all_functions(void)
{
	static const char *const name[] = {"header",           "header_is_read_only",
					   "capabilities",     "parts_of_the_bar",
					   "behind_256_bytes", "sizes",
					   "bars_apart",       "msix_at_reset"};
	unsigned what[ODDITIES] = {0}, who[ODDITIES] = {0};

	for (unsigned d = 1; d <= devices; d++) {
		uint64_t fn = pci_at(d, 0);
		const struct vpci *p;
		unsigned r[ODDITIES] = {odd_header(fn), written_header(fn), odd_chain(fn)};

		p = vpci_find(d);
		r[3] = p ? odd_parts(p) : 99;
		r[4] = behind(fn);
		r[5] = odd_bars(fn);
		for (unsigned k = 1; k < d; k++)
			r[6] |= pci_bar(pci_at(k, 0), 0) == pci_bar(fn, 0);
		r[6] |= wrong_if(pci_bar(fn, 0) < BOARD_PCI_MMIO ||
					 pci_bar(fn, 0) + BAR_SIZE > BOARD_PCI_MMIO_END,
				 1);
		r[7] = p ? msix_flags(p) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) : 99;
		for (unsigned i = 0; p && i < p->vectors; i++) {
			r[7] |= !(read32(msix_entry(p, i) + PCI_MSIX_ENTRY_VECTOR_CTRL) &
				  PCI_MSIX_ENTRY_CTRL_MASKBIT);
			r[7] |= wrong_if(msix_pending(p, i), 1);
		}
		for (unsigned i = 0; i < ODDITIES; i++) {
			if (r[i] && !who[i]) {
				who[i] = d;
				what[i] = r[i];
			}
		}
	}
	for (unsigned i = 0; i < ODDITIES; i++)
		check(name[i], who[i] == 0, "device %u: 0x%x", who[i], what[i]);
}

/* ---- the common configuration ---- */

static void registers(void)
{
	uint64_t wide = read64(blk->bar + blk->config);
	unsigned wrong = 0;

	vdev_reset(blk->bar);
	for (unsigned i = 0; i < 8; i++)
		wrong += read8(blk->bar + blk->config + i) != (uint8_t)(wide >> (8 * i));
	for (unsigned i = 0; i < 4; i++)
		wrong += read16(blk->bar + blk->config + 2 * i) != (uint16_t)(wide >> (16 * i));
	wrong += read32(blk->bar + blk->config) != (uint32_t)wide;
	wrong += read32(blk->bar + blk->config + 4) != (uint32_t)(wide >> 32);
	check("device_configuration_in_parts", wrong == 0, "%u parts differ", wrong);
	write8(COMMON(blk, STATUS), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	write16(COMMON(blk, Q_SELECT), 1);
	check("common_configuration_in_parts",
	      read32(COMMON(blk, STATUS)) ==
			      (read8(COMMON(blk, STATUS)) |
			       (uint32_t)read8(COMMON(blk, CFGGENERATION)) << 8 | 1u << 16) &&
		      read16(COMMON(blk, STATUS)) ==
			      read8(COMMON(blk, STATUS)) + (read8(COMMON(blk, CFGGENERATION)) << 8),
	      "0x%x", read32(COMMON(blk, STATUS)));
	check("queue_select", read16(COMMON(blk, Q_SELECT)) == 1, "%u",
	      read16(COMMON(blk, Q_SELECT)));
	write16(COMMON(blk, Q_SELECT), 0);
	write64(COMMON(blk, Q_DESCLO), 0x123456789abcdef0);
	check("address_in_one",
	      read64(COMMON(blk, Q_DESCLO)) == 0x123456789abcdef0 &&
		      read32(COMMON(blk, Q_DESCHI)) == 0x12345678,
	      "0x%lx", read64(COMMON(blk, Q_DESCLO)));
	write32(COMMON(blk, Q_AVAILHI), 0x11223344);
	write32(COMMON(blk, Q_AVAILLO), 0x55667788);
	check("address_in_halves", read64(COMMON(blk, Q_AVAILLO)) == 0x1122334455667788, "0x%lx",
	      read64(COMMON(blk, Q_AVAILLO)));
	write32(COMMON(blk, Q_USEDLO), 0x1000);
	write32(COMMON(blk, Q_USEDHI), 0);
	check("address_is_its_own",
	      read64(COMMON(blk, Q_USEDLO)) == 0x1000 &&
		      read64(COMMON(blk, Q_AVAILLO)) == 0x1122334455667788,
	      "0x%lx", read64(COMMON(blk, Q_USEDLO)));
	write16(COMMON(blk, Q_SELECT), 1);
	check("queues_have_their_own", read64(COMMON(blk, Q_DESCLO)) == 0, "0x%lx",
	      read64(COMMON(blk, Q_DESCLO)));
	write16(COMMON(blk, Q_SELECT), 0); /* there may be one only */
	write16(COMMON(blk, Q_SIZE), 16);
	check("queue_size", read16(COMMON(blk, Q_SIZE)) == 16, "%u", read16(COMMON(blk, Q_SIZE)));
	write32(COMMON(blk, GFSELECT), 1);
	write32(COMMON(blk, GF), 1);
	write32(COMMON(blk, GFSELECT), 0);
	write32(COMMON(blk, GF), 0x40);
	write32(COMMON(blk, GFSELECT), 1);
	check("driver_features_read_back",
	      read32(COMMON(blk, GF)) == 1 && read32(COMMON(blk, GFSELECT)) == 1, "0x%x",
	      read32(COMMON(blk, GF)));
	vdev_reset(blk->bar);
	write16(COMMON(blk, Q_SELECT), 0);
	check("reset_forgets",
	      read64(COMMON(blk, Q_DESCLO)) == 0 && read64(COMMON(blk, Q_AVAILLO)) == 0 &&
		      read16(COMMON(blk, Q_ENABLE)) == 0 && read8(COMMON(blk, STATUS)) == 0,
	      "0x%lx", read64(COMMON(blk, Q_DESCLO)));
	write32(COMMON(blk, DF), 0);
	write16(COMMON(blk, NUMQ), 77);
	write8(COMMON(blk, CFGGENERATION), 99);
	write16(COMMON(blk, Q_NOFF), 5);
	check("what_is_read_only",
	      read32(COMMON(blk, DF)) != 0 && read16(COMMON(blk, NUMQ)) == blk->vectors - 1 &&
		      read8(COMMON(blk, CFGGENERATION)) != 99 && read16(COMMON(blk, Q_NOFF)) == 0,
	      "changed");
	write16(COMMON(blk, Q_SELECT), 500);
	check("queue_500_is_not",
	      read16(COMMON(blk, Q_SIZE)) == 0 && read16(COMMON(blk, Q_ENABLE)) == 0, "size %u",
	      read16(COMMON(blk, Q_SIZE)));
	write16(COMMON(blk, Q_SELECT), 0);
	/* Sizes that no register has. */
	write64(COMMON(blk, DFSELECT), 0);
	write32(COMMON(blk, MSIX), 0xffffffff);
	write64(COMMON(blk, STATUS), 0);
	write16(COMMON(blk, DF) + 1, 0xffff);
	write8(COMMON(blk, Q_DESCLO) + 7, 0xff);
	check("odd_sizes_hurt_nobody", vdev_reset(blk->bar), "no reset");
}

/* ---- virtio with interrupts ---- */

/* Queue `index`, with memory of its own, and its vector: interrupts are wanted. */
static void queue_up(struct vq *to, const struct vpci *p, unsigned index, unsigned memory,
		     uint16_t vector)
{
	vq_clear(to, p->bar, memory, 64);
	to->index = index;
	to->avail->flags = 0;
	write16(COMMON(p, Q_SELECT), (uint16_t)index);
	write16(COMMON(p, Q_MSIX), vector);
	vq_tell(to, true);
}

static bool disk_up(uint64_t features)
{
	uint64_t offered = vdev_offered(blk->bar);

	if (!vdev_negotiate(blk->bar, offered & (features | VFEATURE(VIRTIO_F_VERSION_1) |
						 VFEATURE(VIRTIO_BLK_F_MQ))))
		return false;
	write16(COMMON(blk, MSIX), 0);
	disk_queues = blk->vectors - 1 < 4 ? blk->vectors - 1 : 4;
	for (unsigned i = 0; i < disk_queues; i++)
		queue_up(&q[i], blk, i, i, (uint16_t)(i + 1));
	vdev_add_status(blk->bar, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(blk->bar, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}
static void vectors_up(const struct vpci *p, unsigned first)
{
	for (unsigned i = 0; i < p->vectors; i++) {
		msix_aim(p, i, (uint8_t)(first + i));
		msix_mask(p, i, false);
	}
	msix_set_flags(p, true, false);
}
static bool rng_up(void)
{
	if (!vdev_negotiate(rng->bar, VFEATURE(VIRTIO_F_VERSION_1)))
		return false;
	queue_up(&rq, rng, 0, 5, 1);
	vdev_add_status(rng->bar, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(rng->bar, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

static void ask(struct vq *to, uint32_t type, uint64_t sector, void *data)
{
	blk_fill(to, 0, &slot, type, sector, data, DATA);
	vq_push(to, 0);
	vq_kick(to);
}
static bool answered(struct vq *to)
{
	struct vring_used_elem u;

	return vq_pop(to, &u, WAIT_MS) && u.id == 0 && slot.status == VIRTIO_BLK_S_OK;
}
/* A request with its interrupt, from start to end. */
static bool request(unsigned i, uint32_t type, uint64_t sector, void *data)
{
	uint32_t n = irq_count[VECTOR_BLK + 1 + i];

	ask(&q[i], type, sector, data);
	return irq_wait(VECTOR_BLK + 1 + i, n + 1, WAIT_MS) && answered(&q[i]);
}
/* Written, read back and compared, by queue `i`. */
static bool disk_works(unsigned i)
{
	uint64_t sector = 8 * (1 + i + xorshift(&seed) % 100);

	fill_pattern(out, DATA, xorshift(&seed));
	memset(in, 0, DATA);
	return request(i, VIRTIO_BLK_T_OUT, sector, out) &&
	       request(i, VIRTIO_BLK_T_IN, sector, in) && memcmp(in, out, DATA) == 0;
}
static bool rng_works(void)
{
	static _Alignas(8) uint8_t bytes[64];
	uint32_t n = irq_count[VECTOR_RNG + 1];
	struct vring_used_elem u;

	vq_desc(&rq, 0, (uintptr_t)bytes, sizeof(bytes), VRING_DESC_F_WRITE, 0);
	vq_push(&rq, 0);
	vq_kick(&rq);
	return irq_wait(VECTOR_RNG + 1, n + 1, WAIT_MS) && vq_pop(&rq, &u, WAIT_MS) && u.len > 0;
}
static bool becomes_pending(const struct vpci *p, unsigned entry, bool pending)
{
	uint64_t end = deadline_ms(WAIT_MS);

	while (msix_pending(p, entry) != pending) {
		if (rdtsc() > end)
			return false;
		__asm__ volatile("pause");
	}
	return true;
}

static void table(void)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < blk->vectors; i++) {
		uint64_t at = msix_entry(blk, i);

		write32(at, MSIX_ADDRESS | 0xff000u);
		write32(at + 4, 0x5);
		write32(at + 8, 0x4000 + i);
		write32(at + 12, 0xffffffff);
		wrong |= read32(at) != (MSIX_ADDRESS | 0xff000u);
		wrong |= wrong_if(read32(at + 4) != 0x5, 1);
		wrong |= wrong_if(read32(at + 8) != 0x4000 + i, 2);
		wrong |= wrong_if(!(read32(at + 12) & PCI_MSIX_ENTRY_CTRL_MASKBIT), 3);
		write64(at, MSIX_ADDRESS);
		write64(at + 8, (uint64_t)PCI_MSIX_ENTRY_CTRL_MASKBIT << 32 | 0x33);
		wrong |= wrong_if(read64(at) != MSIX_ADDRESS, 4);
		wrong |= wrong_if((read64(at + 8) & 0x1ffffffff) !=
					  ((uint64_t)PCI_MSIX_ENTRY_CTRL_MASKBIT << 32 | 0x33),
				  5);
	}
	check("table_reads_back", wrong == 0, "0x%x", wrong);
	write64(blk->bar + blk->pba, ~0ull);
	check("pending_bits_are_read_only", read64(blk->bar + blk->pba) == 0, "0x%lx",
	      read64(blk->bar + blk->pba));
	/* Behind the last entry. */
	write64(msix_entry(blk, blk->vectors), ~0ull);
	write32(blk->bar + BAR_SIZE - 4, PCI_ONES);
	write16(blk->fn + blk->msix + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_QSIZE);
	check("table_size_is_read_only",
	      (read16(blk->fn + blk->msix + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u ==
		      blk->vectors,
	      "0x%x", msix_flags(blk));
	write16(COMMON(blk, MSIX), 0);
	wrong = read16(COMMON(blk, MSIX)) != 0;
	write16(COMMON(blk, MSIX), (uint16_t)blk->vectors);
	wrong |= wrong_if(read16(COMMON(blk, MSIX)) != VPCI_NONE, 1);
	write16(COMMON(blk, MSIX), VPCI_NONE);
	wrong |= wrong_if(read16(COMMON(blk, MSIX)) != VPCI_NONE, 2);
	write16(COMMON(blk, Q_SELECT), 0);
	wrong |= wrong_if(read16(COMMON(blk, Q_MSIX)) != VPCI_NONE, 3);
	write16(COMMON(blk, Q_MSIX), 1);
	wrong |= wrong_if(read16(COMMON(blk, Q_MSIX)) != 1, 4);
	write16(COMMON(blk, Q_MSIX), 0x7fff);
	wrong |= wrong_if(read16(COMMON(blk, Q_MSIX)) != VPCI_NONE, 5);
	check("vectors_read_back", wrong == 0, "0x%x", wrong);
}

static void queues(void)
{
	unsigned good = 0;
	uint32_t n[4];

	vectors_up(blk, VECTOR_BLK);
	if (!check("disk_starts", disk_up(0), "status 0x%x", vget(blk->bar, VIRTIO_MMIO_STATUS)))
		return;
	for (unsigned i = 0; i < disk_queues; i++) {
		for (unsigned k = 0; k < 4; k++)
			n[k] = irq_count[VECTOR_BLK + 1 + k];
		good += disk_works(i);
		for (unsigned k = 0; k < disk_queues; k++)
			if (k != i && irq_count[VECTOR_BLK + 1 + k] != n[k])
				check("a_vector_of_its_own", false, "queue %u interrupts with %u's",
				      i, k);
	}
	check("queues", good == disk_queues && irq_count[VECTOR_BLK] == 0,
	      "%u of %u work; %u interrupts of the configuration", good, disk_queues,
	      irq_count[VECTOR_BLK]);
	wait_ms(SETTLE_MS);
	check("an_interrupt_for_each_request", irq_count[VECTOR_BLK + 1] == 2, "%u of 2",
	      irq_count[VECTOR_BLK + 1]);
	/* The driver changes its mind while the queue runs: none, then the other queue's. */
	write16(COMMON(blk, Q_SELECT), 0);
	write16(COMMON(blk, Q_MSIX), VPCI_NONE);
	n[0] = irq_count[VECTOR_BLK + 1];
	ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
	good = answered(&q[0]);
	wait_ms(SETTLE_MS);
	check("no_vector_no_interrupt",
	      good && irq_count[VECTOR_BLK + 1] == n[0] && !msix_pending(blk, 1), "%u",
	      irq_count[VECTOR_BLK + 1] - n[0]);
	if (disk_queues > 1) {
		write16(COMMON(blk, Q_MSIX), 2);
		n[1] = irq_count[VECTOR_BLK + 2];
		ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
		check("two_queues_share_a_vector",
		      irq_wait(VECTOR_BLK + 2, n[1] + 1, WAIT_MS) && answered(&q[0]) &&
			      irq_count[VECTOR_BLK + 1] == n[0],
		      "no interrupt");
	}
	write16(COMMON(blk, Q_MSIX), 1);
	check("and_back", disk_works(0), "no");
	n[0] = irq_count[VECTOR_BLK + 1];
	q[0].avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
	good = answered(&q[0]);
	wait_ms(SETTLE_MS);
	q[0].avail->flags = 0;
	check("no_interrupt_that_is_not_wanted", good && irq_count[VECTOR_BLK + 1] == n[0], "%u",
	      irq_count[VECTOR_BLK + 1] - n[0]);
}

/* ---- what holds an interrupt back ---- */

static void entry_mask(bool hold)
{
	msix_mask(blk, 1, hold);
}
static void function_mask(bool hold)
{
	msix_set_flags(blk, true, hold);
}
static void not_enabled(bool hold)
{
	msix_set_flags(blk, !hold, false);
}
static void no_bus_master(bool hold)
{
	pci_command(blk->fn, VPCI_SET_UP & ~(hold ? PCI_COMMAND_MASTER : 0));
}
/* The request was sent before. */
static void all_at_once(bool hold)
{
	if (hold) {
		entry_mask(true);
		msix_set_flags(blk, false, true);
		no_bus_master(true);
	} else {
		no_bus_master(false);
		entry_mask(false);
		msix_set_flags(blk, true, true);
		msix_set_flags(blk, true, false);
	}
}

static void held(const char *name, void (*hold)(bool hold), unsigned requests)
{
	uint32_t n = irq_count[VECTOR_BLK + 1];
	bool done = true, pending, clear, delivered;
	uint32_t early, late;

	hold(true);
	for (unsigned i = 0; i < requests; i++) {
		memset(in, 0, DATA);
		ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
		done = answered(&q[0]) && done;
	}
	/* Used first, then the interrupt: the bit tells that it came. */
	pending = becomes_pending(blk, 1, true);
	early = irq_count[VECTOR_BLK + 1] - n;
	hold(false);
	delivered = irq_wait(VECTOR_BLK + 1, n + 1, WAIT_MS);
	clear = becomes_pending(blk, 1, false);
	wait_ms(SETTLE_MS);
	late = irq_count[VECTOR_BLK + 1] - n;
	check(name,
	      done && pending && early == 0 && delivered && clear && late == 1 && disk_works(0),
	      "done %u, pending %u, %u interrupts before, delivered %u, clear %u, %u in the end",
	      done, pending, early, delivered, clear, late);
}

static void aimed_elsewhere(void)
{
	uint32_t n = irq_count[VECTOR_BLK + 1], other = irq_count[VECTOR_OTHER];
	bool good;

	msix_mask(blk, 1, true);
	ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
	good = answered(&q[0]) && becomes_pending(blk, 1, true);
	msix_aim(blk, 1, VECTOR_OTHER);
	msix_mask(blk, 1, false);
	good = irq_wait(VECTOR_OTHER, other + 1, WAIT_MS) && good;
	wait_ms(SETTLE_MS);
	check("what_is_written_while_masked_counts",
	      good && irq_count[VECTOR_BLK + 1] == n && irq_count[VECTOR_OTHER] == other + 1,
	      "%u at the old place, %u at the new", irq_count[VECTOR_BLK + 1] - n,
	      irq_count[VECTOR_OTHER] - other);
	ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
	check("and_from_then_on",
	      irq_wait(VECTOR_OTHER, other + 2, WAIT_MS) && answered(&q[0]) &&
		      irq_count[VECTOR_BLK + 1] == n,
	      "%u at the old place", irq_count[VECTOR_BLK + 1] - n);
	msix_mask(blk, 1, true);
	msix_aim(blk, 1, VECTOR_BLK + 1);
	msix_mask(blk, 1, false);
	check("and_back_again", disk_works(0), "no");
}

/* One entry is masked, the other goes on. */
static void masked_alone(void)
{
	uint32_t n = irq_count[VECTOR_BLK + 1];
	bool good;

	if (disk_queues < 2) {
		skip("a_mask_is_of_one_entry", "one queue");
		return;
	}
	msix_mask(blk, 1, true);
	good = disk_works(1);
	check("a_mask_is_of_one_entry", good && irq_count[VECTOR_BLK + 1] == n, "works %u", good);
	msix_mask(blk, 1, false);
}

static void message_signalled(void)
{
	held("masked_entry", entry_mask, 1);
	held("masked_entry_three_requests", entry_mask, 3);
	held("masked_function", function_mask, 1);
	held("masked_function_three_requests", function_mask, 3);
	held("not_enabled", not_enabled, 1);
	held("no_bus_master", no_bus_master, 1);
	held("held_in_every_way", all_at_once, 2);
	aimed_elsewhere();
	masked_alone();
}

/* Decoding off: what is under way goes on, and interrupts. */
static void decoding_off(void)
{
	uint32_t n = irq_count[VECTOR_BLK + 1];
	bool good;

	ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
	pci_command(blk->fn, PCI_COMMAND_MASTER);
	good = irq_wait(VECTOR_BLK + 1, n + 1, WAIT_MS) && answered(&q[0]);
	vq_kick(&q[0]); /* to nobody */
	pci_command(blk->fn, VPCI_SET_UP);
	check("interrupts_while_it_does_not_decode", good && disk_works(0), "no");
}

/* ---- moved ---- */

static bool is_at(const struct vpci *p, uint64_t at)
{
	return read16(at + p->common + VIRTIO_PCI_COMMON_NUMQ) == p->vectors - 1 &&
	       read32(at + p->table) == MSIX_ADDRESS &&
	       read8(at + p->common + VIRTIO_PCI_COMMON_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}
static bool is_gone(uint64_t at)
{
	return read32(at) == PCI_ONES && read32(at + 0x1000) == PCI_ONES &&
	       read32(at + 0x2000) == PCI_ONES && read32(at + 0x3000) == PCI_ONES;
}
/* Our own idea of where it is. */
static void follow(const struct vpci **p)
{
	unsigned d = (unsigned)((*p)->fn - BOARD_PCI_ECAM) >> 15;

	*p = vpci_find(d);
	if (*p == blk)
		for (unsigned i = 0; i < disk_queues; i++)
			q[i].dev = blk->bar;
	else
		rq.dev = rng->bar;
}
static void move(const struct vpci *p, uint64_t to, bool decoding)
{
	if (!decoding)
		pci_command(p->fn, VPCI_SET_UP & ~PCI_COMMAND_MEMORY);
	pci_set_bar(p->fn, 0, to);
	if (!decoding)
		pci_command(p->fn, VPCI_SET_UP);
}

static void moved(const char *name, uint64_t to, bool decoding)
{
	uint64_t from = blk->bar;
	bool here, gone, works, back;

	move(blk, to, decoding);
	here = is_at(blk, to) && pci_bar(blk->fn, 0) == to;
	gone = is_gone(from);
	follow(&blk);
	works = disk_works(0) && disk_works(disk_queues - 1);
	move(blk, from, decoding);
	back = is_at(blk, from) && is_gone(to);
	follow(&blk);
	check(name, here && gone && works && back && disk_works(0),
	      "there %u, gone from where it was %u, works %u, back %u", here, gone, works, back);
}

/* While it does not decode it is not where it is put (where it was, it may answer: see
 * src/vmm/pci.h); then it is there at once. */
static void moved_in_steps(void)
{
	uint64_t from = blk->bar, to = BOARD_PCI_MMIO_END - 4 * BAR_SIZE;
	bool nowhere, here;

	pci_command(blk->fn, PCI_COMMAND_MASTER);
	write16(blk->fn + PCI_BASE_ADDRESS_0, (uint16_t)to);
	nowhere = is_gone(to);
	write16(blk->fn + PCI_BASE_ADDRESS_0 + 2, (uint16_t)(to >> 16));
	nowhere = is_gone(to) && nowhere;
	write8(blk->fn + PCI_COMMAND, VPCI_SET_UP & 0xff);
	here = is_at(blk, to) && is_gone(from);
	follow(&blk);
	check("moved_while_it_does_not_decode", nowhere && here && disk_works(0),
	      "not there too early %u, there then %u", nowhere, here);
	move(blk, from, false);
	follow(&blk);
}

static void swapped(const char *name, bool decoding)
{
	uint64_t a = blk->bar, b = rng->bar;
	bool good;

	if (!decoding) {
		pci_command(blk->fn, 0);
		pci_command(rng->fn, 0);
	}
	pci_set_bar(blk->fn, 0, b);
	pci_set_bar(rng->fn, 0, a);
	pci_command(blk->fn, VPCI_SET_UP);
	pci_command(rng->fn, VPCI_SET_UP);
	good = is_at(blk, b) && is_at(rng, a);
	follow(&blk);
	follow(&rng);
	good = disk_works(0) && rng_works() && good;
	pci_command(blk->fn, 0);
	pci_command(rng->fn, 0);
	pci_set_bar(rng->fn, 0, b);
	pci_set_bar(blk->fn, 0, a);
	pci_command(rng->fn, VPCI_SET_UP);
	pci_command(blk->fn, VPCI_SET_UP);
	follow(&blk);
	follow(&rng);
	check(name, good && disk_works(0) && rng_works(), "in each other's place %u", good);
}

/* Two at one place: whoever answers, both are well when they are apart again. */
static void on_another(bool decoding)
{
	uint64_t home = rng->bar;

	move(rng, blk->bar, decoding);
	(void)read32(blk->bar);
	write32(blk->bar + blk->notify, 0);
	(void)read32(blk->bar + blk->table);
	move(rng, home, decoding);
	follow(&rng);
	check(decoding ? "onto_another_while_it_decodes" : "onto_another",
	      disk_works(0) && rng_works(), "one of them does not work");
}

static void outside(void)
{
	static const uint64_t place[] = {
		0,
		0x1000000, /* memory */
		BOARD_LOW_RAM_END,
		BOARD_VIRTIO_MMIO,
		BOARD_PCI_MMIO - BAR_SIZE,
		BOARD_PCI_MMIO_END,
		BOARD_PCI_ECAM + 0x8000, /* its own configuration space */
		BOARD_IOAPIC,
		BOARD_LAPIC,
		0xffffc000,
	};
	uint64_t home = blk->bar;
	uint32_t lapic = read32(LAPIC_VERSION), ioapic, first = read32(pci_at(1, 0));
	volatile uint64_t *memory = (volatile uint64_t *)(uintptr_t)place[1];
	unsigned harmed = 0, answers = 0;

	write32(BOARD_IOAPIC, 1);
	ioapic = read32(BOARD_IOAPIC + 0x10);
	for (unsigned i = 0; i < sizeof(place) / sizeof(place[0]); i++) {
		memory[0] = 0x1234 + i;
		memory[0x600] = 0x4321 + i;
		move(blk, place[i], i & 1);
		answers += is_at(blk, place[i]);
		harmed |= (memory[0] != 0x1234 + i || memory[0x600] != 0x4321 + i);
		harmed |= wrong_if(read32(LAPIC_VERSION) != lapic, 1);
		write32(BOARD_IOAPIC, 1);
		harmed |= wrong_if(read32(BOARD_IOAPIC + 0x10) != ioapic, 2);
		harmed |= wrong_if(read32(pci_at(1, 0)) != first, 3);
		harmed |= wrong_if(!is_gone(home), 4);
		move(blk, home, false);
		harmed |= wrong_if(!disk_works(0), 5);
	}
	check("outside_of_the_window", harmed == 0 && answers == 0,
	      "harmed 0x%x, and it answers at %u places", harmed, answers);
}

static void places(void)
{
	moved("moved", BOARD_PCI_MMIO_END - BAR_SIZE, false);
	moved("moved_while_it_decodes", BOARD_PCI_MMIO + 0x3000000, true);
	moved("moved_to_the_next_place", BOARD_PCI_MMIO + 40 * BAR_SIZE, true);
	moved_in_steps();
	if (!rng) {
		skip("swapped", "no second function");
		return;
	}
	vectors_up(rng, VECTOR_RNG);
	if (!check("source_starts", rng_up() && rng_works(), "status 0x%x",
		   vget(rng->bar, VIRTIO_MMIO_STATUS)))
		return;
	swapped("swapped", false);
	swapped("swapped_while_they_decode", true);
	on_another(false);
	on_another(true);
	outside();
}

/* ---- the device is reset ---- */

static void queue_reset(void)
{
	uint64_t end = deadline_ms(WAIT_MS);
	bool off;

	if (!(vdev_offered(blk->bar) & VFEATURE(VIRTIO_F_RING_RESET))) {
		skip("queue_reset", "not offered");
		return;
	}
	if (!check("queue_reset_is_taken", disk_up(VFEATURE(VIRTIO_F_RING_RESET)), "no"))
		return;
	check("queue_before_its_reset", disk_works(0), "does not work");
	write16(COMMON(blk, Q_SELECT), 0);
	write16(COMMON(blk, Q_RESET), 1);
	while (read16(COMMON(blk, Q_RESET)) != 0 && rdtsc() < end)
		;
	off = read16(COMMON(blk, Q_ENABLE)) == 0 && read16(COMMON(blk, Q_MSIX)) == VPCI_NONE;
	check("queue_is_reset", off, "enable %u, vector 0x%x", read16(COMMON(blk, Q_ENABLE)),
	      read16(COMMON(blk, Q_MSIX)));
	if (disk_queues > 1)
		check("the_others_go_on", disk_works(1), "no");
	queue_up(&q[0], blk, 0, 6, 1); /* elsewhere in memory */
	check("queue_again", disk_works(0) && disk_works(disk_queues - 1), "does not work");
}

static void device_reset(void)
{
	uint64_t data;

	vdev_reset(blk->bar);
	write16(COMMON(blk, Q_SELECT), 0);
	check("reset_unmaps_vectors",
	      read16(COMMON(blk, MSIX)) == VPCI_NONE && read16(COMMON(blk, Q_MSIX)) == VPCI_NONE &&
		      read16(COMMON(blk, Q_ENABLE)) == 0,
	      "0x%x 0x%x", read16(COMMON(blk, MSIX)), read16(COMMON(blk, Q_MSIX)));
	data = read64(msix_entry(blk, 1) + PCI_MSIX_ENTRY_DATA);
	check("reset_leaves_the_bus_alone",
	      read64(msix_entry(blk, 1)) == MSIX_ADDRESS && data == VECTOR_BLK + 1 &&
		      msix_flags(blk) & PCI_MSIX_FLAGS_ENABLE &&
		      read16(blk->fn + PCI_COMMAND) == VPCI_SET_UP,
	      "data 0x%lx", data);
	for (unsigned i = 0; i < 5; i++)
		check("again", disk_up(0) && disk_works(0) && disk_works(disk_queues - 1),
		      "status 0x%x", vget(blk->bar, VIRTIO_MMIO_STATUS));
}

/* The device asks for a reset: by the vector of its configuration, and its status register. */
static void configuration_change(void)
{
	uint32_t n = irq_count[VECTOR_BLK], isr;

	(void)read8(blk->bar + blk->isr);
	vq_push(&q[0], 999);
	vq_kick(&q[0]);
	check("configuration_interrupt", irq_wait(VECTOR_BLK, n + 1, WAIT_MS), "none");
	check("needs_reset", vget(blk->bar, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET,
	      "status 0x%x", vget(blk->bar, VIRTIO_MMIO_STATUS));
	isr = read8(blk->bar + blk->isr);
	check("isr", isr & VIRTIO_PCI_ISR_CONFIG, "0x%x", isr);
	isr = read8(blk->bar + blk->isr);
	check("isr_is_cleared_by_reading", !(isr & VIRTIO_PCI_ISR_CONFIG), "0x%x", isr);
	check("works_after_it", disk_up(0) && disk_works(0), "no");
}

/* ---- many ---- */

static void many(void)
{
	unsigned disks = 0, good = 0;

	for (unsigned d = 1; d <= devices; d++) {
		const struct vpci *p = vpci_find(d);
		uint32_t n = irq_count[VECTOR_OTHER + d];
		struct vring_used_elem u;

		if (!p || p->id != VIRTIO_ID_BLOCK)
			continue;
		msix_aim(p, 1, (uint8_t)(VECTOR_OTHER + d));
		msix_mask(p, 1, false);
		msix_set_flags(p, true, false);
		if (!vdev_negotiate(p->bar, VFEATURE(VIRTIO_F_VERSION_1)))
			continue;
		queue_up(&q[0], p, 0, 0, 1);
		vdev_add_status(p->bar, VIRTIO_CONFIG_S_DRIVER_OK);
		ask(&q[0], VIRTIO_BLK_T_IN, 8, in);
		good += irq_wait(VECTOR_OTHER + d, n + 1, WAIT_MS) && vq_pop(&q[0], &u, WAIT_MS) &&
			slot.status == VIRTIO_BLK_S_OK &&
			read64(p->bar + p->config) == 2048 + disks;
		disks++;
		vdev_reset(p->bar);
	}
	check("each_disk", disks >= 2 && good == disks, "%u of %u", good, disks);
	print("disks %u\n", disks);
}

int main(void)
{
	devices = cmdline_number("devices=", 2);
	irq_start();
	enumeration();
	all_functions();
	if (cmdline_word("many")) {
		many();
		return finish();
	}
	for (unsigned d = devices; d; d--) {
		const struct vpci *p = vpci_find(d);

		if (p && p->id == VIRTIO_ID_BLOCK)
			blk = p;
		else if (p && p->id == VIRTIO_ID_RNG)
			rng = p;
	}
	if (!check("disk", blk != NULL, "none"))
		return finish();
	registers();
	table();
	queues();
	message_signalled();
	decoding_off();
	places();
	queue_reset();
	device_reset();
	configuration_change();
	return finish();
}
