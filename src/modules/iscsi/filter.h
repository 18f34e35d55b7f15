/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a target may not send, looked at before libiscsi does.
 *
 * libiscsi believes a target that wants data (R2T): it makes as many pieces as the target says, of
 * the size that the target says, and looks for the place of each in a list from its beginning. With
 * 4 GiB in pieces of nothing a lane would be busy for ever, and no deadline could help. So the
 * lengths of an R2T, their number and the sizes of the login are held to what the standard and
 * libiscsi's own offers allow. All else is libiscsi's to judge.
 */
#ifndef MODULES_ISCSI_FILTER_H
#define MODULES_ISCSI_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILTER_HEADER 48     /* RFC 7143, 11.2.1: no digests are offered */
#define FILTER_TEXT 8192     /* bytes of a login answer: MaxRecvDataSegmentLength during login */
#define FILTER_BURST 262144u /* MaxBurstLength that libiscsi offers */
#define FILTER_SEGMENT 4096  /* the smallest MaxRecvDataSegmentLength that is taken */
#define FILTER_ASKS 128u     /* R2T in one turn */

struct filter {
	uint8_t header[FILTER_HEADER];
	size_t have;     /* bytes of the header */
	uint32_t data;   /* bytes that follow it and have not come */
	uint32_t len;    /* of the text, so far */
	unsigned asks;   /* R2T since filter_turn() */
	const char *why; /* what was wrong */
	char text[FILTER_TEXT + 1];
};

void filter_begin(struct filter *f);
void filter_turn(struct filter *f);
/* The next bytes; p is NULL of those that went into the guest's memory. False: no more of this. */
bool filter_bytes(void *filter, const void *p, size_t n);

#endif
