/* SPDX-License-Identifier: BSD-2-Clause */
/* MSI-X of the PCI functions: 7.7.2; and MSI: 7.7.1. See pci.h. */
#include <insula/base.h>
#include <insula/log.h>

#include "pci_parts.h"

#define ENTRY_SIZE 16u

static bool entry_delivers(const struct pci_function *f, const struct pci_entry *n)
{
	uint32_t control = pci_word(f->config, CFG_FIRST_CAP);
	bool on = f->dev->desc.pci.msi ? control & MSI_ON
				       : (control & (MSIX_ON | MSIX_MASKED)) == MSIX_ON;

	return on && (pci_word(f->config, CFG_COMMAND) & CMD_MASTER) &&
	       !(n->control & ENTRY_MASKED) && pci_interrupts(n->addr);
}

void pci_msix_update(const struct pci_function *f, struct pci_entry *n)
{
	struct err e = {0};
	int rc;

	if (f->dev->desc.pci.msi) /* the message is in configuration space */
		*n = (struct pci_entry){.addr = pci_word(f->config, CFG_MSI + 4),
					.data = pci_word(f->config, CFG_MSI + 8),
					.line = n->line};
	rc = entry_delivers(f, n) ? line_deliver(&n->line, n->addr, n->data, &e)
				  : line_hold(&n->line, &e);

	if (rc)
		log_error("%s: interrupt %u: %s", f->dev->desc.name, (unsigned)(n - f->entry),
			  e.text);
}

static bool entry_pending(const struct pci_entry *n)
{
	return !n->line.bound && event_pending((int)n->line.event);
}

static uint32_t table_word(const struct pci_function *f, uint32_t off)
{
	const struct pci_entry *n = &f->entry[off / ENTRY_SIZE];
	const uint32_t word[] = {(uint32_t)n->addr, (uint32_t)(n->addr >> 32), n->data, n->control};

	return word[off % ENTRY_SIZE / 4];
}

static void table_write(struct pci_function *f, uint32_t off, uint32_t v)
{
	struct pci_entry *n = &f->entry[off / ENTRY_SIZE];

	switch (off % ENTRY_SIZE / 4) {
	case 0:
		n->addr = (n->addr & ~0xffffffffull) | (v & ~3u);
		break;
	case 1:
		n->addr = (n->addr & 0xffffffffull) | (uint64_t)v << 32;
		break;
	case 2:
		n->data = v;
		break;
	default:
		n->control = v & ENTRY_MASKED;
	}
	pci_msix_update(f, n);
}

static uint32_t pending_word(const struct pci_function *f, uint32_t off)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 32 && off * 8 + i < f->dev->desc.nvectors; i++)
		v |= (uint32_t)entry_pending(&f->entry[off * 8 + i]) << i;
	return v;
}

/* The word at `off` of the BAR. */
static uint32_t msix_word(const struct pci_function *f, uint32_t off)
{
	const struct device_pci *m = &f->dev->desc.pci;

	if (off - m->msix_table < f->dev->desc.nvectors * ENTRY_SIZE)
		return table_word(f, off - m->msix_table);
	if (off - m->msix_pba < 8)
		return pending_word(f, off - m->msix_pba);
	return 0;
}

uint64_t pci_msix_read(struct pci *p, const struct pci_function *f, uint32_t off, unsigned size)
{
	uint32_t first = off & ~3u;
	uint64_t v[2] = {0};

	pthread_mutex_lock(&p->lock);
	for (unsigned at = first; at < off + size; at += 4)
		v[(at - first) / 8] |= (uint64_t)msix_word(f, at) << (at - first) % 8 * 8;
	pthread_mutex_unlock(&p->lock);
	return off == first ? v[0] : v[0] >> 8 * (off - first) | v[1] << (64 - 8 * (off - first));
}

void pci_msix_write(struct pci *p, struct pci_function *f, uint32_t off, unsigned size, uint64_t v)
{
	uint32_t at = off - f->dev->desc.pci.msix_table, table = f->dev->desc.nvectors * ENTRY_SIZE;

	if (size < 4 || at % size || at >= table)
		return;
	pthread_mutex_lock(&p->lock);
	for (; size; size -= 4, at += 4, v >>= 32)
		table_write(f, at, (uint32_t)v);
	pthread_mutex_unlock(&p->lock);
}
