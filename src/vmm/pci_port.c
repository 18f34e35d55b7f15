/* SPDX-License-Identifier: BSD-2-Clause */
/* A root port with a hot-plug slot. See pci_port.h. */
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "pci_parts.h"
#include "pci_port.h"

/* Header of a bridge: 7.5.1.3. */
#define CFG_BUSES 0x18u  /* primary, secondary, subordinate */
#define CFG_MEMORY 0x20u /* the window: bits 20 on of the first and of the last byte */
#define CFG_BRIDGE 0x3cu /* bridge control in the upper half */

#define PORT_ID 0x000c1b36u /* QEMU's root port: drivers know it as one without anything special */
#define PORT_CLASS 0x06040000u
#define HEADER_BRIDGE 0x00010000u
#define BRIDGE_PARITY 0x00010000u
#define BRIDGE_SERR 0x00020000u
#define BRIDGE_RESET 0x00400000u

/* The capability of PCI Express: 7.5.3. */
#define EXP CFG_FIRST_CAP
#define EXP_SIZE 0x3cu
#define EXP_DEVICE (EXP + 0x04)
#define EXP_DEVICE_CTL (EXP + 0x08)
#define EXP_LINK (EXP + 0x0c)
#define EXP_LINK_CTL (EXP + 0x10) /* and status in the upper half */
#define EXP_SLOT (EXP + 0x14)
#define EXP_SLOT_CTL (EXP + 0x18) /* and status in the upper half */
#define EXP_LINK2 (EXP + 0x2c)
#define EXP_LINK2_CTL (EXP + 0x30)

#define EXP_ID (0x10u | 2u << 16 | 4u << 20 | 1u << 24) /* version 2, a root port, with a slot */
#define DEVICE_ROLE_BASED 0x00008000u
#define DEVICE_ERRORS 0x0000000fu   /* which of them are reported: none happens */
#define LINK_WIDTH_SPEED 0x0011u    /* one lane, 2.5 GT/s */
#define LINK_SAYS_ACTIVE (1u << 20) /* Data Link Layer Link Active Reporting Capable */
#define LINK_ACTIVE (1u << 29)      /* of the status */
#define LINK2_SPEEDS 0x0002u        /* 2.5 GT/s */
#define SLOT_BUTTON 0x0001u
#define SLOT_POWER 0x0002u
#define SLOT_POWER_LIGHT 0x0010u
#define SLOT_SURPRISE 0x0020u
#define SLOT_HOTPLUG 0x0040u
#define SLOT_NO_COMPLETED (1u << 18)
#define SLOT_NUMBER(n) ((n) << 19)

/* Slot control, and the enables in it, each at the place of its event in the status. */
#define CTL_BUTTON 0x0001u
#define CTL_PRESENCE 0x0008u
#define CTL_INTERRUPT 0x0020u
#define CTL_LIGHT 0x0300u
#define CTL_LIGHT_OFF 0x0300u
#define CTL_POWER_OFF 0x0400u
#define CTL_LINK 0x1000u
#define EVENT_BUTTON 0x0001u
#define EVENT_PRESENCE 0x0008u
#define EVENT_LINK 0x0100u
#define EVENTS (EVENT_BUTTON | EVENT_PRESENCE | EVENT_LINK)
#define IS_THERE 0x0040u /* of the status */
_Static_assert(CTL_LINK >> 4 == EVENT_LINK && CTL_BUTTON == EVENT_BUTTON &&
		       CTL_PRESENCE == EVENT_PRESENCE,
	       "enabled() moves the link's alone");

/* MSI with an address of 64 bits: 7.7.1. */
#define MSI (EXP + EXP_SIZE + 4)
#define MSI_ADDR (MSI + 0x04)
#define MSI_ADDR_HIGH (MSI + 0x08)
#define MSI_DATA (MSI + 0x0c)
#define MSI_ID (0x05u | 0x80u << 16)
#define MSI_ON 0x00010000u
_Static_assert(MSI % 8 == 0 && MSI_DATA / 4 + 1 == PCI_PORT_WORDS, "where it ends");

static const uint32_t writable[PCI_PORT_WORDS] = {
	[CFG_COMMAND / 4] = CMD_MEMORY | CMD_MASTER | CMD_NO_INTX,
	[CFG_BUSES / 4] = 0x00ffffff,
	[CFG_MEMORY / 4] = 0xfff0fff0,
	[CFG_BRIDGE / 4] = BRIDGE_PARITY | BRIDGE_SERR | BRIDGE_RESET,
	[EXP_DEVICE_CTL / 4] = DEVICE_ERRORS,
	[EXP_SLOT_CTL / 4] =
		CTL_BUTTON | CTL_PRESENCE | CTL_INTERRUPT | CTL_LIGHT | CTL_POWER_OFF | CTL_LINK,
	[MSI / 4] = MSI_ON,
	[MSI_ADDR / 4] = ~3u,
	[MSI_ADDR_HIGH / 4] = ~0u,
	[MSI_DATA / 4] = 0x0000ffff,
};

int pci_port_make(struct pci_port *p, unsigned i, uint32_t *config, const struct line *line,
		  struct err *e)
{
	uint32_t window = (uint32_t)(BOARD_PCI_PORT_MMIO + i * BOARD_PCI_PORT_SIZE);
	int event = event_create();

	if (event < 0)
		return err_sys(e, event, "eventfd");
	*p = (struct pci_port){.config = config, .line = *line};
	p->line.event = event;
	memset(config, 0, PCI_PORT_WORDS * sizeof(*config));
	config[CFG_ID / 4] = PORT_ID;
	config[CFG_COMMAND / 4] = STATUS_CAPS;
	config[CFG_CLASS / 4] = PORT_CLASS;
	config[CFG_HEADER / 4] = HEADER_BRIDGE;
	config[CFG_BUSES / 4] = (1 + i) << 8 | (1 + i) << 16;
	config[CFG_MEMORY / 4] =
		window >> 16 | ((window + (uint32_t)BOARD_PCI_PORT_SIZE - 1) & 0xfff00000);
	config[CFG_CAPS / 4] = EXP;
	config[EXP / 4] = EXP_ID | MSI << 8;
	config[EXP_DEVICE / 4] = DEVICE_ROLE_BASED;
	config[EXP_LINK / 4] = LINK_WIDTH_SPEED | LINK_SAYS_ACTIVE | (1 + i) << 24;
	config[EXP_LINK_CTL / 4] = LINK_WIDTH_SPEED << 16;
	config[EXP_SLOT / 4] = SLOT_BUTTON | SLOT_POWER | SLOT_POWER_LIGHT | SLOT_SURPRISE |
			       SLOT_HOTPLUG | SLOT_NO_COMPLETED | SLOT_NUMBER(1 + i);
	config[EXP_SLOT_CTL / 4] = CTL_LIGHT_OFF | CTL_POWER_OFF;
	config[EXP_LINK2 / 4] = LINK2_SPEEDS;
	config[EXP_LINK2_CTL / 4] = 1; /* 2.5 GT/s */
	config[MSI / 4] = MSI_ID;
	return 0;
}

bool pci_port_is_up(const struct pci_port *p)
{
	uint32_t slot = pci_word(p->config, EXP_SLOT_CTL);

	return slot >> 16 & IS_THERE && !(slot & CTL_POWER_OFF) &&
	       !(pci_word(p->config, CFG_BRIDGE) & BRIDGE_RESET);
}

static void raise_events(struct pci_port *p, uint32_t events)
{
	pci_store(p->config, EXP_SLOT_CTL, pci_word(p->config, EXP_SLOT_CTL) | events << 16);
}

static void update_link(struct pci_port *p)
{
	uint32_t link = pci_word(p->config, EXP_LINK_CTL);
	uint32_t now = pci_port_is_up(p) ? link | LINK_ACTIVE : link & ~LINK_ACTIVE;

	if (now == link)
		return;
	pci_store(p->config, EXP_LINK_CTL, now);
	raise_events(p, EVENT_LINK);
}

static void update_line(struct pci_port *p)
{
	uint64_t addr =
		(uint64_t)pci_word(p->config, MSI_ADDR_HIGH) << 32 | pci_word(p->config, MSI_ADDR);
	bool delivers = pci_word(p->config, MSI) & MSI_ON &&
			pci_word(p->config, CFG_COMMAND) & CMD_MASTER && pci_interrupts(addr);
	struct err e = {0};
	int rc = delivers ? line_deliver(&p->line, addr, pci_word(p->config, MSI_DATA), &e)
			  : line_hold(&p->line, &e);

	if (rc)
		log_error("PCI port: interrupt: %s", e.text);
}

static uint32_t enabled(uint32_t control)
{
	if (!(control & CTL_INTERRUPT))
		return 0;
	return (control & (CTL_BUTTON | CTL_PRESENCE)) | (control & CTL_LINK) >> 4;
}

/* Make link, line and events what the registers say. What the guest is told of is there before. */
static void port_update(struct pci_port *p)
{
	uint32_t slot, now;

	update_link(p);
	update_line(p);
	slot = pci_word(p->config, EXP_SLOT_CTL);
	now = slot >> 16 & enabled(slot);
	if (now & ~p->told)
		event_signal((int)p->line.event);
	p->told = now;
}

/* A card in a slot without power. No link comes up there, but a change of the link is what Linux,
 * where there is a button, looks at once for: it does not listen to presence alone. (Not the
 * button: when Linux has seen the card for itself, a press asks for it back.) */
static void tell_unpowered(struct pci_port *p)
{
	uint32_t slot = pci_word(p->config, EXP_SLOT_CTL);

	raise_events(p, EVENT_PRESENCE | EVENT_LINK);
	p->tell_again = (slot & CTL_LIGHT) != CTL_LIGHT_OFF;
}

void pci_port_write(struct pci_port *p, unsigned off, unsigned size, uint32_t v)
{
	uint32_t at = off & ~3u, ones, word;

	if (at / 4 >= PCI_PORT_WORDS)
		return;
	word = pci_written(pci_word(p->config, at), writable[at / 4], off, size, v, &ones);
	if (at == EXP_SLOT_CTL)
		word &= ~(ones & EVENTS << 16);
	pci_store(p->config, at, word);
	word = pci_word(p->config, EXP_SLOT_CTL);
	p->tell_again = p->tell_again && word & CTL_POWER_OFF;
	if (p->tell_again && (word & CTL_LIGHT) == CTL_LIGHT_OFF)
		tell_unpowered(p);
	port_update(p);
}

void pci_port_fill(struct pci_port *p, bool there)
{
	uint32_t slot = pci_word(p->config, EXP_SLOT_CTL) & ~(IS_THERE << 16);

	pci_store(p->config, EXP_SLOT_CTL, slot | (there ? IS_THERE << 16 : 0));
	p->tell_again = false;
	if (there && slot & CTL_POWER_OFF)
		tell_unpowered(p);
	else
		raise_events(p, EVENT_PRESENCE);
	port_update(p);
}

void pci_port_press(struct pci_port *p)
{
	raise_events(p, EVENT_BUTTON);
	port_update(p);
}

void pci_port_get(const struct pci_port *p, struct pci_port_state *s)
{
	for (unsigned i = 0; i < PCI_PORT_WORDS; i++)
		s->word[i] = pci_word(p->config, i * 4);
}

void pci_port_set(struct pci_port *p, const struct pci_port_state *s)
{
	for (unsigned i = 0; i < PCI_PORT_WORDS; i++) {
		uint32_t can = writable[i] | (i == EXP_SLOT_CTL / 4 ? EVENTS << 16 : 0);

		pci_store(p->config, i * 4,
			  (pci_word(p->config, i * 4) & ~can) | (s->word[i] & can));
	}
	p->told = 0;
	port_update(p);
}
