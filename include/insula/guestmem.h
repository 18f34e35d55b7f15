/*
 * Guest physical memory as a jailed process sees it.
 *
 * A guest address is a gpa_t, never a pointer. gm_ptr() is the one function that turns a range of
 * guest addresses into memory, and it refuses everything that is not wholly inside one RAM region.
 * What lies behind the pointer may change at any time: copy once, check the copy, use the copy.
 *
 * Owner: the process that called gm_map(); after that it is read-only and any thread may use it.
 */
#ifndef INSULA_GUESTMEM_H
#define INSULA_GUESTMEM_H

#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/memmap.h>
#include <insula/start.h>

typedef uint64_t gpa_t; /* guest physical address, bytes */

#define GM_HUGE_PAGE (2ull << 20)
#define GM_ADVICE 25 /* MADV_COLLAPSE, which a C library may lack: for madvise(2) and the jail */

struct gm_region {
	gpa_t gpa;     /* 4 KiB aligned */
	uint64_t size; /* bytes, multiple of 4 KiB */
	uint8_t *host; /* mapping of the same size */
};

struct guestmem {
	unsigned nregions;
	struct gm_region region[MEMMAP_MAX];
};

/*
 * Map the regions of `map`, which memmap_check() passes, from `fds`: sealed memfds that are long
 * enough. -EINVAL, -EPERM (not sealed) or mmap's errno. The descriptors stay the caller's.
 */
int gm_map(struct guestmem *gm, const struct memmap *map, const int *fds, unsigned nfds,
	   struct err *e);
void gm_unmap(struct guestmem *gm);

/* With a START_FAULTS somebody else fills what is missing, with a START_WATCH somebody may guard it
 * later: a descriptor of the faults of each region goes over `channel` (MSG_FAULTS), before
 * anything of it is touched. `map` as in gm_map(). Closes the device; does nothing without one. */
int gm_give_faults(const struct guestmem *gm, const struct memmap *map, const struct start_fds *f,
		   int channel, struct err *e);

/*
 * Make the whole 2 MiB blocks inside [from, to) huge pages, as far as the host will: for a range
 * that is about to be written from end to end. Best effort: Linux 6.1 and newer can (MADV_COLLAPSE,
 * which does not depend on the settings in /sys/kernel/mm/transparent_hugepage). Contents are kept.
 * May block for as long as it takes to find and clear the memory. 0, also when there is no whole
 * block, or a negative errno if a block stayed as it was: -EINVAL (an older kernel), -ENOMEM or
 * -EAGAIN (no such memory is free).
 */
int gm_collapse(const struct guestmem *gm, gpa_t from, gpa_t to);

/* All of it, in bytes. */
uint64_t gm_size(const struct guestmem *gm);

/* The host address of [gpa, gpa + len), or NULL if any byte of it is not RAM. len 0 is NULL. */
void *gm_ptr(const struct guestmem *gm, gpa_t gpa, uint64_t len);

#endif
