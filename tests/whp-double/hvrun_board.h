/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The board of hvrun, as its guest (tests/guests/exits.c) sees it: COM1 (output, polled),
 * BOARD_REG_EXIT, and a device that remembers. It is a page of bytes at HVRUN_DEVICE and a port;
 * each access, whatever its exit looked like, goes into a checksum that the guest reads at
 * HVRUN_PORT_SUM: two hypervisors that do the same have the same. A read-only page with a pattern
 * is at HVRUN_ROM; writes to it go into the checksum as well.
 */
#ifndef INSULA_HVRUN_BOARD_H
#define INSULA_HVRUN_BOARD_H

#define HVRUN_DEVICE 0xd0000000ull
#define HVRUN_ROM 0xd0010000ull
#define HVRUN_PORT 0x620     /* in: a pattern; out: remembered */
#define HVRUN_PORT_SUM 0x628 /* 32 bit, in */

#endif
