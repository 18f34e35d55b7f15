/*
 * Small things that every process uses: descriptors, sealed shared memory, clocks.
 * Implemented in src/base. Return 0 or a negative errno unless stated otherwise.
 */
#ifndef INSULA_BASE_H
#define INSULA_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Close *fd if it is >= 0, set it to -1, keep errno. */
void fd_close(int *fd);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_ns(void);

/* eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); returns the descriptor or a negative errno. */
int event_create(void);
/* Add one. Never blocks (a saturated counter is as good as a signal). */
void event_signal(int fd);
/* Read and reset the counter; 0 if it was not signalled. */
uint64_t event_drain(int fd);

/*
 * A memfd of `size` bytes (multiple of 4096), sealed against shrinking, growing and further seals.
 * Returns the descriptor (the caller owns it) or a negative errno.
 */
int shm_create(const char *name, uint64_t size, struct err *e);

/*
 * Check that `fd` is a memfd of exactly `size` bytes with F_SEAL_SHRINK and F_SEAL_GROW set, then
 * map [off, off + len) shared. A peer may have sent any descriptor: without the seals a mapping
 * could fault later. The caller unmaps. Does not close `fd`.
 */
int shm_map(int fd, uint64_t size, uint64_t off, size_t len, bool writable, void **out,
	    struct err *e);

/* pread/pwrite until done or error; a short file is -ENODATA. */
int read_full(int fd, void *buf, size_t len, uint64_t off);
int write_full(int fd, const void *buf, size_t len);

#endif
