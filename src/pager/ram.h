/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files of guest memory (insula/pager.h): written from a memfd, and read back into one. Neither is
 * mapped. A file that is read is another's: nothing of it is believed before it is checked, and all
 * that can be wrong with it is a refusal that says what.
 *
 * Thread: any one. No allocation but in ram_open(), for whose memory the size of the guest is
 * enough to know.
 */
#ifndef PAGER_RAM_H
#define PAGER_RAM_H

#include <stdint.h>

#include <insula/err.h>
#include <insula/pager.h>

struct ram_file {
	int fd;
	struct ram_block *block; /* its table */
};

struct ram {
	int mem; /* the memfd */
	uint64_t size;
	unsigned n; /* of file[] */
	struct ram_file file[RAM_CHAIN];
	uint8_t *buf[2];      /* a block each */
	uint64_t pages;       /* written so far */
	uint64_t asked, data; /* from `asked` on the memory is a hole, up to `data` */
};

/* For `n` files, 1 to RAM_CHAIN. The descriptors stay the caller's. -EINVAL, -ENOMEM. */
int ram_open(struct ram *r, int mem, uint64_t size, const int *files, unsigned n, struct err *e);
/* Blocks of the memory; the last one may be short. */
uint32_t ram_blocks(const struct ram *r);
/* The memory into the last file, as far as it differs from what the others say. The memory must not
 * change meanwhile. */
int ram_save(struct ram *r, struct err *e);
/* The same, block by block, each once, in any order. A block must not change until it is saved. */
int ram_save_begin(struct ram *r, struct err *e);
int ram_save_block(struct ram *r, uint32_t b, struct err *e);
int ram_save_end(struct ram *r, struct err *e);
/* The files into the memory, which is all zeros. -EPROTO: a file is not one, is damaged, or of a VM
 * of another size. */
int ram_load(struct ram *r, struct err *e);
/* Are the files what they should be? As ram_load(), without their pages. */
int ram_check(struct ram *r, struct err *e);
/* Block b, RAM_BLOCK bytes from b * RAM_BLOCK on, into r->buf[0]; *present: its pages that are not
 * zero. */
int ram_compose(struct ram *r, uint32_t b, uint16_t *present, struct err *e);
/* One page of block b to its place in r->buf[0]. Its sum is not checked: that of a block is. */
int ram_page(struct ram *r, uint32_t b, unsigned page, struct err *e);

#endif
