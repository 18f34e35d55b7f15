/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storage module in less than 100 lines: a disk in memory, which is gone when the VM ends.
 *
 *   cc -o ram ram.c $(pkg-config --cflags --libs insula-module)
 *   install -m 755 ram LIBEXEC/insula/modules
 *   install -m 644 ram.json LIBEXEC/insula/modules
 *   insula-run --disk ram:64M ...
 *
 * docs/modules.md says what all of this means.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <insula/module.h>

struct ram {
	uint64_t size;
	uint8_t *at;
};

/* One queue and its thread: module_done() wants to know which. */
struct ram_lane {
	struct module_lane *l;
	struct ram *ram;
};

/* "64M": before the jail is closed. */
static int ram_open(struct module *m, const struct module_conf *c, void **own, struct err *e)
{
	static struct ram ram;
	char *end;

	(void)m;
	ram.size = strtoull(c->target, &end, 10) << 20;
	if (strcmp(end, "M") != 0 || !ram.size || ram.size > UINT64_C(1) << 30)
		return err_set(e, -EINVAL, "'%s'; expected 1M to 1024M", c->target);
	ram.at = mmap(NULL, ram.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram.at == MAP_FAILED)
		return err_sys(e, -errno, "%s of memory", c->target);
	*own = &ram;
	return 0;
}

/* No flush: what is answered is as stable as it will ever be. */
static int ram_describe(void *own, int fd, struct module_disk *d, struct err *e)
{
	const struct ram *ram = own;

	(void)fd;
	(void)e;
	*d = (struct module_disk){.size = ram->size,
				  .flags = MODULE_DISK_DISCARD | MODULE_DISK_ZEROES};
	return 0;
}

static int ram_lane_open(void *own, struct module_lane *l, unsigned index, void **lane,
			 struct err *e)
{
	static struct ram_lane lanes[MODULE_MAX_QUEUES];

	(void)e;
	lanes[index] = (struct ram_lane){l, own};
	*lane = &lanes[index];
	return 0;
}

/* The library has looked: off and len are within the disk. */
static void ram_submit(void *lane, struct module_req *r)
{
	const struct ram_lane *own = lane;
	uint8_t *at = own->ram->at + r->off;

	for (unsigned i = 0; i < r->niov; at += r->iov[i++].iov_len) {
		if (r->op == MODULE_READ)
			memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
		else
			memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
	}
	if (r->op == MODULE_ZEROES || r->op == MODULE_DISCARD)
		memset(at, 0, r->len);
	module_done(own->l, r, 0);
}

int main(void)
{
	return module_main(&(struct module_ops){.name = "ram",
						.open = ram_open,
						.describe = ram_describe,
						.lane_open = ram_lane_open,
						.submit = ram_submit});
}
