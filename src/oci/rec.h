/* SPDX-License-Identifier: BSD-2-Clause */
/* A file of records (insula/container.h) while it is made. The first error sticks and is told by
 * rec_write(). */
#ifndef OCI_REC_H
#define OCI_REC_H

#include <stddef.h>

#include <insula/err.h>

struct rec {
	char *at; /* owned */
	size_t len, room;
	int error; /* a negative errno: -ENOMEM, -E2BIG (CT_FILE_MAX) */
};

/* With version= as the first record. */
void rec_init(struct rec *r);
void rec_free(struct rec *r);
/* `key` as container.h names it, ".flags" with its dot. */
void rec_add(struct rec *r, const char *key, const char *value);
void rec_addf(struct rec *r, const char *key, const char *fmt, ...) INSULA_PRINTF(3, 4);
/* A new file (O_EXCL, 0600) `name` in the directory `at`. */
int rec_write(const struct rec *r, int at, const char *name, struct err *e);

#endif
