/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that come and go. See plug.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "plug.h"
#include "vmm.h"

int plug_make_room(struct vmm *vm, struct err *e)
{
	void *room;
	int rc = device_room(VMM_ROOM, &room, e);

	if (rc)
		return rc == -EOPNOTSUPP ? 0 : rc; /* not on this system */
	vm->room = room;
	if (hv_vm_assigns(vm->hv, e))
		log_warn("devices of the host: the hypervisor will not take notice: %s", e->text);
	return 0;
}

static void plug_answer(enum msg_type type, uint32_t index, int rc, const struct err *e)
{
	struct msg_plugged m = {.index = index, .error = rc};

	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1, rc ? e->text : "");
	(void)msg_send(MSG_CHANNEL_FD, type, &m, sizeof(m), NULL, 0);
}

/* NULL: there is no place with this index. */
static struct pci_place *place_of(struct vmm *vm, uint32_t index)
{
	return index < vm->ndevices ? pci_place_of(&vm->pci, &vm->dev[index]) : NULL;
}

static void plug(struct vmm *vm, const void *body, size_t len, int *fds, unsigned nfds)
{
	struct device_desc d;
	struct err e = {0};
	int rc = device_unpack(&d, body, len);
	struct pci_place *l = rc ? NULL : place_of(vm, d.index);

	if (l)
		rc = pci_plug(&vm->pci, l, &d, fds, nfds, &e);
	else
		rc = err_set(&e, -EPROTO, "a device that does not fit, or for no place");
	for (unsigned i = 0; i < nfds && !l; i++)
		fd_close(&fds[i]);
	plug_answer(MSG_PLUGGED, d.index, rc, &e);
}

static void take_out(struct vmm *vm, struct pci_place *l, uint32_t index)
{
	struct err e = {0};
	int rc = pci_unplug(&vm->pci, l, &e);

	l->asked = false;
	plug_answer(MSG_UNPLUGGED, index, rc, &e);
}

/* What has no power the guest has let go already. */
static void unplug(struct vmm *vm, const struct msg_unplug *m)
{
	struct pci_place *l = place_of(vm, m->index);

	if (!l)
		plug_answer(MSG_UNPLUGGED, m->index, -EPROTO, &(struct err){.text = "no place"});
	else if (m->now || !pci_is_up(&vm->pci, l))
		take_out(vm, l, m->index);
	else {
		l->asked = true;
		pci_press(&vm->pci, l);
	}
}

bool plug_message(struct vmm *vm, enum msg_type type, const void *body, size_t len, int *fds,
		  unsigned nfds)
{
	struct msg_unplug m;

	if (type == MSG_PLUG) {
		plug(vm, body, len, fds, nfds);
		return true;
	}
	if (type != MSG_UNPLUG || len != sizeof(m) || nfds)
		return false;
	memcpy(&m, body, sizeof(m));
	unplug(vm, &m);
	return true;
}

void plug_report(struct vmm *vm)
{
	for (uint32_t i = 0; i < vm->ndevices; i++) {
		struct pci_place *l = place_of(vm, i);

		if (l && l->asked && !pci_is_up(&vm->pci, l))
			take_out(vm, l, i);
	}
}
