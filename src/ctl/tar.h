/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Archives as POSIX.1-2017's pax and GNU tar write them: what is needed of them for insulactl cp.
 *
 * The reader's input is the guest's, who may send anything. It takes regular files, directories,
 * symbolic and hard links and names the others by their letter; long names and large sizes by GNU's
 * L, K and base 256, or by pax's path, linkpath and size. Anything else that does not fit the
 * format is an error: nothing is guessed. It allocates nothing.
 */
#ifndef CTL_TAR_H
#define CTL_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#define TAR_BLOCK 512
#define TAR_NAME_MAX 4096 /* with its NUL */

/* The type flag, as it is in the header. */
enum tar_type { TAR_FILE = '0', TAR_HARD_LINK = '1', TAR_LINK = '2', TAR_DIRECTORY = '5' };

struct tar_entry {
	char type;
	char name[TAR_NAME_MAX], link[TAR_NAME_MAX]; /* never empty where they mean something */
	uint64_t size;                               /* of what follows; 0 unless it is a file */
	unsigned mode;                               /* 12 bits */
	int64_t mtime;                               /* seconds */
};

/* Bytes of the archive: their number, 0: the end, or a negative errno with a line in `e`. */
typedef int64_t tar_read_fn(void *ctx, void *buf, size_t len, struct err *e);

struct tar_reader {
	tar_read_fn *read;
	void *ctx;
	uint64_t left; /* of the entry's bytes */
	unsigned pad;  /* behind them */
};

/* The next one: 1; 0: the archive has ended. What is left of the one before is passed over. */
int tar_next(struct tar_reader *t, struct tar_entry *entry, struct err *e);
/* Bytes of the entry: their number, 0: it has no more; -EPROTO: the archive ends within it. */
int64_t tar_data(struct tar_reader *t, void *buf, size_t len, struct err *e);

/* The header of an entry, in whole blocks, with what stands before it if a name is long: the
 * number of bytes, at most TAR_HEADER_MAX. The bytes of a file follow, filled up to TAR_BLOCK. Two
 * empty blocks end an archive. */
#define TAR_HEADER_MAX (2 * (TAR_BLOCK + TAR_NAME_MAX) + TAR_BLOCK)
size_t tar_header(const struct tar_entry *entry, uint8_t out[TAR_HEADER_MAX]);

#endif
