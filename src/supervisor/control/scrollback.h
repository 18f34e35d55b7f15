/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The last bytes that a console has printed, and where each reader is in them.
 *
 * A ring of opaque bytes. A position counts all bytes ever printed, so that a reader that was too
 * slow can be told apart from one that has seen everything. One thread.
 */
#ifndef SUPERVISOR_SCROLLBACK_H
#define SUPERVISOR_SCROLLBACK_H

#include <stddef.h>
#include <stdint.h>

#define SCROLLBACK_LEN (64u << 10)

struct scrollback {
	uint8_t *ring;  /* SCROLLBACK_LEN bytes, owned */
	uint64_t total; /* bytes ever added */
};

/* -ENOMEM. */
int scrollback_init(struct scrollback *s);
void scrollback_free(struct scrollback *s);
void scrollback_add(struct scrollback *s, const void *buf, size_t len);
/* Where a reader begins that wants the last `want` bytes, or as many as there are. */
uint64_t scrollback_from(const struct scrollback *s, uint64_t want);
/* The bytes at *pos that lie in one piece: their number, 0 when the reader has all. A position that
 * has been overwritten is moved to the oldest byte, and what was lost is added to *lost. */
size_t scrollback_at(const struct scrollback *s, uint64_t *pos, const uint8_t **out,
		     uint64_t *lost);

#endif
