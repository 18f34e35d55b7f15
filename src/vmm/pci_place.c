/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions that come and go: the places behind root ports. See pci.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "pci_parts.h"

#define LOOK_MS 1 /* while a vCPU is in an access: it does not take long */

int pci_add_place(struct pci *p, struct remote *dev, unsigned *line, unsigned *slot, struct err *e)
{
	uint64_t at = (uint64_t)dev->desc.pci.number << 15;
	struct line port = {.ops = p->ops, .vm = p->vm, .number = (*line)++, .event = -1};
	struct pci_function *f = &p->fn[p->n];
	struct pci_place *l = &p->place[p->nplaces];

	if (p->n == BOARD_MAX_PCI || p->nplaces == BOARD_MAX_PLACES)
		return err_set(e, -ENOSPC, "%s: more than %d PCI functions or %d places",
			       dev->desc.name, BOARD_MAX_PCI, BOARD_MAX_PLACES);
	memset(l, 0, sizeof(*l));
	memset(f, 0, sizeof(*f));
	l->fn = f;
	l->empty = dev->desc;
	f->place = l;
	f->dev = dev;
	f->config = l->space;
	for (unsigned i = 0; i < DEVICE_MAX_VECTORS; i++) {
		f->entry[i].line = port;
		f->entry[i].line.number = (*line)++;
	}
	for (unsigned i = 0; i < DEVICE_MAX_WINDOWS; i++)
		f->slot[i] = (*slot)++;
	p->n++;
	return pci_port_make(&l->port, p->nplaces++, pci_page(p, at), &port, e);
}

bool pci_place_write(struct pci *p, struct pci_place *l, unsigned off, unsigned size, uint32_t v)
{
	bool up = pci_port_is_up(&l->port);
	struct err e;

	pci_port_write(&l->port, off, size, v);
	if (!up || pci_port_is_up(&l->port))
		return false;
	if (pci_function_new(p, l->fn, &e))
		log_error("%s: PCI: %s", l->fn->dev->desc.name, e.text);
	event_signal(l->fn->dev->wake_event); /* perhaps it was asked for that */
	return true;
}

struct pci_place *pci_place_of(struct pci *p, const struct remote *dev)
{
	for (unsigned i = 0; i < p->nplaces; i++) {
		if (p->place[i].fn->dev == dev)
			return &p->place[i];
	}
	return NULL;
}

void pci_assign(struct hv_vm *vm, const struct remote *d,
		int (*tell)(struct hv_vm *, hv_event, struct err *))
{
	struct err e;

	if (d->desc.pci.host_slot && tell(vm, d->slot[d->desc.pci.host_slot], &e))
		log_warn("%s: the hypervisor does not take notice of it: %s", d->desc.name, e.text);
}

int pci_plug(struct pci *p, struct pci_place *l, const struct device_desc *d, int *fds,
	     unsigned nfds, struct err *e)
{
	struct pci_function *f = l->fn;
	int rc;

	pthread_mutex_lock(&p->lock);
	rc = remote_plug(f->dev, d, fds, nfds, e);
	if (!rc) {
		for (unsigned i = 0; i < d->nvectors; i++)
			f->entry[i].line.event = f->dev->slot[d->vector[i].slot];
		(void)pci_function_new(p, f, e); /* there is nothing that could be kept */
		pci_assign(p->vm, f->dev, hv_vm_assign);
		pci_port_fill(&l->port, true);
		l->asked = false;
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

bool pci_is_up(struct pci *p, const struct pci_place *l)
{
	bool up;

	pthread_mutex_lock(&p->lock);
	up = pci_port_is_up(&l->port);
	pthread_mutex_unlock(&p->lock);
	return up;
}

void pci_press(struct pci *p, struct pci_place *l)
{
	pthread_mutex_lock(&p->lock);
	pci_port_press(&l->port);
	pthread_mutex_unlock(&p->lock);
}

int pci_unplug(struct pci *p, struct pci_place *l, struct err *e)
{
	struct pci_function *f = l->fn;
	int rc;

	if (device_is_place(&f->dev->desc))
		return 0;
	pthread_mutex_lock(&p->lock);
	rc = pci_function_new(p, f, e);
	if (!rc)
		pci_port_fill(&l->port, false);
	pthread_mutex_unlock(&p->lock);
	if (rc)
		return rc;
	/* No access finds it any more. One that has may wait for an answer, or for the lock. */
	while (atomic_load(&l->accesses)) {
		remote_give_up(f->dev);
		(void)events_wait(NULL, 0, -1, LOOK_MS);
	}
	pthread_mutex_lock(&p->lock);
	pci_assign(p->vm, f->dev, hv_vm_unassign);
	remote_unplug(f->dev, &l->empty);
	pthread_mutex_unlock(&p->lock);
	return 0;
}
