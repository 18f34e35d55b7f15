/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks that come and go, as a driver of hot-plug slots sees them: it looks at a port when that has
 * interrupted, and not before, so that an event that is lost is a slot that stands still. What
 * comes gets a BAR, a vector and requests, and is kept under load: each writes a block, reads it
 * back and compares. The answers are looked at when the queue's vector was counted. When the button
 * is pressed the requests are finished, the device is reset and the slot is switched off; when it
 * is gone the slot is switched on for the next one.
 *
 * Prints `slots N` and `ready`; of slot I: `came I`, `done I N` for the first requests and when
 * something is typed, `asked I`, `gone I` (without notice), `out I` (after it was switched off).
 * On its command line: slots=N; deaf=1, as if `d` had been typed. Typed: `?` how much is done; `d`
 * the button means nothing from now on, or something again; `c` each turn makes calls of each
 * device, or none again; `q` the end.
 */
#include "irq.h"
#include "virtio.h"

#define REQUESTS 4u
#define BLOCK 4096u
#define SPAN 24u /* blocks of each request */
#define PORT_VECTOR 0x50u
#define DISK_VECTOR 0x60u
#define WAIT_MS 20000 /* for the requests of one that is given back */
#define EXP 0x40u     /* the capability of PCI Express of a port */
#define EVENTS (PCI_EXP_SLTSTA_ABP | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_DLLSC)
#define CONTROL \
	(PCI_EXP_SLTCTL_ABPE | PCI_EXP_SLTCTL_PDCE | PCI_EXP_SLTCTL_HPIE | PCI_EXP_SLTCTL_DLLSCE)

struct request {
	struct blk_slot blk;
	bool reading, flies;
	uint32_t round, block;
};

static struct slot {
	uint64_t port, fn;
	uint8_t exp, msi; /* capabilities of the port */
	uint32_t port_seen, disk_seen;
	struct vpci *disk; /* NULL: none */
	bool stops, said;
	uint32_t done;
	struct vq q;
	struct request request[REQUESTS];
} slot[BOARD_MAX_PLACES];
static _Alignas(BOARD_PAGE) uint8_t data[BOARD_MAX_PLACES][REQUESTS][BLOCK];
static unsigned nslots;
static bool deaf, calls;
static uint64_t seed = 0x9e3779b97f4a7c15;

/* ---- the disk ---- */

static uint64_t stamp(const struct slot *s, const struct request *r, unsigned sector)
{
	return (uint64_t)r->round << 32 | (uint64_t)(s - slot) << 24 | r->block << 8 | sector;
}
static void send(struct slot *s, unsigned i)
{
	struct request *r = &s->request[i];
	uint8_t *d = data[s - slot][i];
	uint64_t sector = (uint64_t)(i * SPAN + r->block) * (BLOCK / SECTOR);

	for (unsigned k = 0; k < BLOCK / SECTOR; k++)
		*(uint64_t *)(void *)(d + (size_t)k * SECTOR) = r->reading ? 0 : stamp(s, r, k);
	r->flies = true;
	blk_fill(&s->q, (uint16_t)(3 * i), &r->blk, r->reading ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
		 sector, d, BLOCK);
	vq_push(&s->q, (uint16_t)(3 * i));
	vq_kick(&s->q);
}
static void write_next(struct slot *s, unsigned i)
{
	struct request *r = &s->request[i];

	if (s->stops)
		return;
	r->round++;
	r->reading = false;
	r->block = (uint32_t)xorshift(&seed) % SPAN;
	send(s, i);
}
static void take(struct slot *s, unsigned i)
{
	struct request *r = &s->request[i];

	r->flies = false;
	/* Of one that was pulled out, which is heard a moment later, it may end with an error. */
	if (r->blk.status != VIRTIO_BLK_S_OK && pci_bar(s->fn, 0) != s->disk->bar)
		return;
	if (r->blk.status != VIRTIO_BLK_S_OK)
		check("status", false, "%u in slot %u", r->blk.status, (unsigned)(s - slot));
	s->done++;
	if (!r->reading) {
		r->reading = true;
		send(s, i);
		return;
	}
	for (unsigned k = 0; k < BLOCK / SECTOR; k++) {
		if (*(uint64_t *)(void *)(data[s - slot][i] + (size_t)k * SECTOR) != stamp(s, r, k))
			check("data", false, "slot %u, round %u, sector %u", (unsigned)(s - slot),
			      r->round, k);
	}
	write_next(s, i);
}
static void drain(struct slot *s)
{
	uint32_t now = irq_count[DISK_VECTOR + (s - slot)];
	struct vring_used_elem u = {0};

	if (now == s->disk_seen)
		return;
	s->disk_seen = now;
	while (*(volatile uint16_t *)&s->q.used->idx != s->q.seen) {
		if (!vq_pop(&s->q, &u, 1) || u.id % 3 || u.id / 3 >= REQUESTS) {
			check("answers", false, "id %u", u.id);
			return;
		}
		take(s, u.id / 3);
	}
	if (!s->said && s->done >= 4 * REQUESTS) {
		s->said = true;
		print("done %u %u\n", (unsigned)(s - slot), s->done);
	}
}

static bool bring_up(struct slot *s)
{
	uint64_t bar = BOARD_PCI_PORT_MMIO + (uint64_t)(s - slot) * BOARD_PCI_PORT_SIZE;
	struct vpci *p = &vpci_known[BOARD_PORT_NUMBER((unsigned)(s - slot), nslots)];

	if (pci_bar(s->fn, 0) || read16(s->fn + PCI_COMMAND))
		return check("it_is_new", false, "BAR 0x%x, command 0x%x", pci_bar(s->fn, 0),
			     read16(s->fn + PCI_COMMAND));
	pci_set_bar(s->fn, 0, bar);
	pci_command(s->fn, VPCI_SET_UP);
	if (!vpci_look(p, s->fn) || p->id != VIRTIO_ID_BLOCK || p->bar != bar)
		return check("it_is_a_disk", false, "vendor 0x%x", read32(s->fn));
	if (!vdev_negotiate(bar, vdev_offered(bar) & VFEATURE(VIRTIO_F_VERSION_1)))
		return check("negotiated", false, "status 0x%x", vget(bar, VIRTIO_MMIO_STATUS));
	vq_clear(&s->q, bar, (unsigned)(s - slot), 3 * REQUESTS > 16 ? 64 : 16);
	s->q.index = 0;
	s->q.avail->flags = 0;
	write16(vpci_common(p, VIRTIO_PCI_COMMON_Q_SELECT), 0);
	write16(vpci_common(p, VIRTIO_PCI_COMMON_Q_MSIX), 1);
	vq_tell(&s->q, true);
	s->q.doorbell = vpci_doorbell(p, 0);
	msix_aim(p, 1, (uint8_t)(DISK_VECTOR + (s - slot)));
	msix_mask(p, 1, false);
	msix_set_flags(p, true, false);
	vdev_add_status(bar, VIRTIO_CONFIG_S_DRIVER_OK);
	s->disk = p;
	return read64(bar + p->config) >= (uint64_t)REQUESTS * SPAN * (BLOCK / SECTOR) ||
	       check("size", false, "%u", (unsigned)read64(bar + p->config));
}

/* ---- the slot ---- */

static uint16_t status(const struct slot *s)
{
	return read16(s->port + s->exp + PCI_EXP_SLTSTA);
}
static bool link_is_up(const struct slot *s)
{
	return read16(s->port + s->exp + PCI_EXP_LNKSTA) & PCI_EXP_LNKSTA_DLLLA;
}
static void power(const struct slot *s, bool on)
{
	write16(s->port + s->exp + PCI_EXP_SLTCTL,
		(uint16_t)(CONTROL | (on ? PCI_EXP_SLTCTL_PWR_IND_ON
					 : PCI_EXP_SLTCTL_PWR_IND_OFF | PCI_EXP_SLTCTL_PCC)));
}

static void came(struct slot *s)
{
	if (!bring_up(s)) {
		check("came", false, "slot %u", (unsigned)(s - slot));
		return;
	}
	print("came %u\n", (unsigned)(s - slot));
	s->stops = s->said = false;
	s->done = 0;
	s->disk_seen = irq_count[DISK_VECTOR + (s - slot)];
	for (unsigned i = 0; i < REQUESTS; i++)
		write_next(s, i);
}
static void forget(struct slot *s, const char *how)
{
	s->disk->bar = 0;
	s->disk = NULL;
	memset(s->request, 0, sizeof(s->request));
	print("%s %u\n", how, (unsigned)(s - slot));
}
/* Everything comes back, then it is let go. */
static void give_back(struct slot *s)
{
	uint64_t end = deadline_ms(WAIT_MS);
	bool any = true;

	s->stops = true;
	while (any && rdtsc() < end) {
		drain(s);
		any = false;
		for (unsigned i = 0; i < REQUESTS; i++)
			any |= s->request[i].flies;
	}
	check("everything_comes_back", !any, "slot %u", (unsigned)(s - slot));
	print("asked %u\n", (unsigned)(s - slot));
	if (!vdev_reset(s->disk->bar))
		check("reset", false, "slot %u", (unsigned)(s - slot));
	power(s, false);
	check("it_is_off", read32(s->fn) == PCI_ONES && !link_is_up(s), "0x%x", read32(s->fn));
	forget(s, "off");
}
/* The port has interrupted. A device that went and came in between is another one, and has no BAR;
 * one that has is the one whose coming was seen before its event. */
static void look(struct slot *s)
{
	uint16_t now = status(s);

	write16(s->port + s->exp + PCI_EXP_SLTSTA, now & EVENTS);
	if (s->disk && now & PCI_EXP_SLTSTA_PDC && pci_bar(s->fn, 0) != s->disk->bar)
		forget(s, "gone");
	if (s->disk && now & PCI_EXP_SLTSTA_ABP && !deaf)
		give_back(s);
	now = status(s);
	if (!s->disk && !(now & PCI_EXP_SLTSTA_PDS) &&
	    read16(s->port + s->exp + PCI_EXP_SLTCTL) & PCI_EXP_SLTCTL_PCC) {
		power(s, true);
		print("out %u\n", (unsigned)(s - slot));
	}
	if (!s->disk && now & PCI_EXP_SLTSTA_PDS && link_is_up(s))
		came(s);
}
/* More of them may have come while we looked: until there is none. */
static void events(struct slot *s)
{
	uint32_t now = irq_count[PORT_VECTOR + (s - slot)];

	if (now == s->port_seen)
		return;
	s->port_seen = now;
	while (status(s) & EVENTS)
		look(s);
}

static bool start_port(struct slot *s, unsigned i)
{
	uint32_t bus = read32(s->port + PCI_PRIMARY_BUS);

	s->exp = pci_capability(s->port, PCI_CAP_ID_EXP, 0);
	s->msi = pci_capability(s->port, PCI_CAP_ID_MSI, 0);
	if (read32(s->port + PCI_CLASS_REVISION) >> 16 != 0x0604 || !s->exp || !s->msi)
		return check("port", false, "class 0x%x", read32(s->port + PCI_CLASS_REVISION));
	if ((bus >> 8 & 0xff) != i + 1 || (bus >> 16 & 0xff) != i + 1 ||
	    read32(s->port + s->exp + PCI_EXP_SLTCAP) >> 19 != i + 1)
		return check("numbers", false, "buses 0x%x", bus);
	pci_command(s->port, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	write32(s->port + s->msi + PCI_MSI_ADDRESS_LO, MSIX_ADDRESS);
	write32(s->port + s->msi + PCI_MSI_ADDRESS_HI, 0);
	write16(s->port + s->msi + PCI_MSI_DATA_64, (uint16_t)(PORT_VECTOR + i));
	write16(s->port + s->msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
	power(s, true);
	return check("nothing_is_there", read32(s->fn) == PCI_ONES, "0x%x", read32(s->fn));
}

/* Registers whose accesses are calls, of one that may be gone: what is read then is ones. */
static void call(const struct slot *s)
{
	uint64_t common = s->disk->bar + s->disk->common;

	write16(common + VIRTIO_PCI_COMMON_Q_SELECT, 0);
	(void)read8(s->disk->bar + s->disk->isr);
}

static bool typed(void)
{
	if (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
		return true;
	switch (inb(BOARD_COM1 + UART_RX)) {
	case '?':
		for (unsigned i = 0; i < nslots; i++)
			print("done %u %u\n", i, slot[i].done);
		return true;
	case 'd':
		deaf = !deaf;
		print("deaf %u\n", deaf);
		return true;
	case 'c':
		calls = !calls;
		print("calls %u\n", calls);
		return true;
	default:
		return false;
	}
}

int main(void)
{
	nslots = cmdline_number("slots=", 2);
	deaf = cmdline_number("deaf=", 0);
	irq_start();
	print("slots %u\n", nslots);
	for (unsigned i = 0; i < nslots && i < BOARD_MAX_PLACES; i++) {
		slot[i].port = pci_at(BOARD_PORT_NUMBER(i, nslots), 0);
		slot[i].fn = BOARD_PCI_ECAM + (1 + i) * BOARD_PCI_ECAM_SIZE;
		if (!start_port(&slot[i], i))
			return finish();
	}
	check("no_more_ports", read32(pci_at(BOARD_PORT_NUMBER(0, nslots) - 1, 0)) == PCI_ONES,
	      "another one");
	print("ready\n");
	while (typed()) {
		for (unsigned i = 0; i < nslots; i++) {
			events(&slot[i]);
			if (slot[i].disk)
				drain(&slot[i]);
			if (slot[i].disk && calls)
				call(&slot[i]);
		}
	}
	return finish();
}
