/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices on Windows: the page is mapped for a moment, when no helper is there. See device.h. */
#include "os/win/win.h"

#include <errno.h>

#include <insula/base.h>
#include <insula/devpage.h>

#include "device.h"

int device_page(struct err *e)
{
	int fd = shm_create("insula-device", DP_SIZE, e), rc;
	struct dp_ctrl *c;
	void *page;

	if (fd < 0)
		return fd;
	rc = shm_map(fd, DP_SIZE, 0, DP_SIZE, true, &page, e);
	if (rc) {
		fd_close(&fd);
		return rc;
	}
	c = (struct dp_ctrl *)(void *)((uint8_t *)page + DP_CTRL_OFF);
	c->magic = DP_MAGIC;
	c->size = DP_SIZE;
	shm_unmap(page, DP_SIZE);
	return fd;
}

int device_page_renew(int page, struct err *e)
{
	(void)page;
	return err_set(e, -EOPNOTSUPP, "device page: nothing comes later on Windows");
}

int device_child_init(struct device *d, const char *libexec, struct err *e)
{
	(void)libexec; /* the programs lie beside insula-run.exe */
	(void)e;
	child_init_contained(&d->child, d->class->program, d->desc.name, CONTAIN_HELPER);
	return 0;
}

/* What the helper inherits is what its message names. */
int device_spawn(struct device *d, const struct device_start *s, struct err *e)
{
	int rc = child_spawn(&d->child, s->fds, s->nfds, e);

	if (rc)
		return rc;
	rc = child_send(&d->child, MSG_START, s->body, s->len, s->fds, s->nfds);
	return rc ? err_sys(e, rc, "%s: channel", d->child.name) : 0;
}

int device_set_bits(const struct device *d, unsigned reg, uint32_t bits, uint32_t *before,
		    struct err *e)
{
	void *shadow;
	_Atomic uint32_t *word;
	int rc = shm_map(d->slot[d->desc.page_slot], DP_SIZE, DP_SHADOW_OFF, DP_SHADOW_SIZE, true,
			 &shadow, e);

	if (rc)
		return rc;
	word = (_Atomic uint32_t *)(void *)((uint8_t *)shadow + reg);
	*before = atomic_fetch_or(word, bits);
	shm_unmap(shadow, DP_SHADOW_SIZE);
	return 0;
}
