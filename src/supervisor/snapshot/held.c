/* SPDX-License-Identifier: BSD-2-Clause */
/* What back ends hold, while a snapshot is made or goes on. See held.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "devices/vhost/vhost_page.h"
#include "held.h"
#include "supervisor/vm.h"

#define PAGE 4096u

int held_new(struct device *d, uint64_t size, struct err *e)
{
	struct held *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(e, -ENOMEM, "out of memory");
	h->fd = shm_create("insula-held", (size + PAGE - 1) / PAGE * PAGE, e);
	if (h->fd < 0) {
		int rc = h->fd;

		free(h);
		return rc;
	}
	held_free(d);
	d->held = h;
	return 0;
}

void held_free(struct device *d)
{
	if (!d->held)
		return;
	fd_close(&d->held->fd);
	free(d->held);
	d->held = NULL;
}

bool held_is_to_load(const struct device *d)
{
	return d->held && d->held->loads;
}

void held_saved(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (!held_is_to_load(&vm->device[i]))
			held_free(&vm->device[i]);
	}
}

bool held_any(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].held && vm->device[i].held->len)
			return true;
	}
	return false;
}

/* ---- its helper ---- */

bool held_can(const struct device *d)
{
	uint32_t flags = 0;

	return d->class->back_end &&
	       !shm_read(d->slot[d->desc.page_slot], &flags, sizeof(flags),
			 VHOST_STATE_OFF + offsetof(struct vhost_state, flags)) &&
	       flags & VHOST_CAN_SAVE;
}

/* The memory is of one size, so that whoever has taken the helper over cannot fill the host's with
 * it. */
int held_ask(struct device *d, struct err *e)
{
	int rc = held_new(d, VHOST_HELD_MAX, e);

	if (!rc && child_send_new(&d->child, MSG_SAVE, &d->held->fd, 1))
		rc = err_set(e, -EIO, "%s does not take messages", d->child.name);
	return rc;
}

int held_came(struct device *d, const struct msg_saved *m, struct err *e)
{
	char text[sizeof(m->text) + 1];

	snprintf(text, sizeof(text), "%.*s", (int)sizeof(m->text), m->text);
	if (m->error)
		return err_set(e, m->error < 0 && m->error > -4096 ? m->error : -EIO, "%s: %s",
			       d->desc.name, text);
	if (m->len > VHOST_HELD_MAX)
		return err_set(e, -EIO, "%s has written more than there is room for",
			       d->child.name);
	d->held->len = m->len;
	d->held->whole = true;
	return 0;
}
