/*
 * Small things that every process uses: descriptors, events, sealed shared memory, waiting, clocks.
 * Return 0 or a negative errno unless stated otherwise.
 *
 * Each function that needs the system exists twice: in src/os/linux and in src/os/win. A
 * descriptor is an int on both: on Windows the value of a HANDLE, which has 32 significant bits
 * there.
 */
#ifndef INSULA_BASE_H
#define INSULA_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <insula/err.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Are these `n` bytes all zeros? */
static inline bool mem_is_zero(const void *p, size_t n)
{
	const unsigned char *b = p;

	return !n || (!b[0] && !memcmp(b, b + 1, n - 1));
}

/* Close *fd if it is >= 0, set it to -1, keep errno. */
void fd_close(int *fd);
/* A directory, with all that is in it, as far as it can be removed. For one in which nobody else
 * can write. Linux alone. */
void tree_remove(int dir, const char *name);
/* Descriptors 0, 1 and 2 are somebody's from here on, or a disk could become standard output.
 * Before anything is opened; Linux alone. */
void fd_occupy_standard(void);

/* Where this program is, `up` names above its file: 1 is its directory. A negative errno with a line:
 * the system does not say. Linux alone. */
int program_above(unsigned up, char *out, size_t size, struct err *e);

/* Another descriptor of the same, not inherited; -1: there is none. */
int fd_copy(int fd);

/* CLOCK_MONOTONIC in nanoseconds. Windows: the performance counter. */
uint64_t clock_ns(void);
/* May this process run on more than one processor? */
bool several_cpus(void);

/* eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), or an event that resets itself; returns the descriptor or
 * a negative errno. */
int event_create(void);
/* Add one. Never blocks (a saturated counter is as good as a signal). */
void event_signal(int fd);
/* Read and reset the counter; 0 if it was not signalled. Windows counts no further than 1. */
uint64_t event_drain(int fd);
/* Is it signalled? It stays so. Does not read: another process that has the event could make that
 * block. */
bool event_pending(int fd);

#define EVENTS_MAX 62u
#define EVENTS_CHANNEL (UINT64_C(1) << 63)
/* Wait until one of `n` (at most EVENTS_MAX) events is signalled, or `channel` (-1: none) has a
 * message or its end, or `timeout_ms` (-1: none) is over. Bit i: event i was signalled, and is
 * drained now; EVENTS_CHANNEL. 0: the timeout, or for no reason. */
uint64_t events_wait(const int *event, unsigned n, int channel, int timeout_ms);

/* Sleep while *word is `seen`; may return for no reason. Wake all that do. Within one process. */
void word_wait(_Atomic uint32_t *word, uint32_t seen);
void word_wake(_Atomic uint32_t *word);
/* The same between processes that share the memory, for `timeout_ns` at most. Where the system only
 * knows words of one process (Windows), `event` carries it; -1 elsewhere. One process wakes. */
void word_wait_shared(_Atomic uint32_t *word, uint32_t seen, int event, uint64_t timeout_ns);
void word_wake_shared(_Atomic uint32_t *word, int event);
/* How many events word_*_shared() needs: 0 or 1. It is the last descriptor of MSG_DEVICE and of the
 * helper's start message. */
unsigned word_events(void);

/* Up to `n` bytes, all of which can be read without blocking ever again, from the system's source
 * of random numbers. It cannot fail. */
size_t random_bytes(void *buf, size_t n);
/* At most 64 hexadecimal digits of them, and a NUL. */
void random_hex(char *out, size_t digits);

/* Standard error: a descriptor; borrowed. */
int stderr_fd(void);
/* One piece of the process's log, to descriptor 2. It may be lost. */
void stderr_write(const char *text, size_t len);
/* All of it, however long that takes; an error loses it. */
void stderr_write_all(const char *text, size_t len);

/*
 * A memfd of `size` bytes (multiple of 4096), sealed against shrinking, growing and further seals;
 * on Windows a section of the paging file, which has one size for good. All zeros.
 * Returns the descriptor (the caller owns it) or a negative errno.
 */
int shm_create(const char *name, uint64_t size, struct err *e);

/*
 * Check that `fd` is a memfd of exactly `size` bytes (0: of as many as hold the range) with
 * F_SEAL_SHRINK and F_SEAL_GROW set, then map [off, off + len) shared. A peer may have
 * sent any descriptor: without the seals a mapping could fault later. The caller unmaps. Does not
 * close `fd`. Windows knows no other sections than
 * such of one size; `off` is a multiple of 64 KiB there.
 */
int shm_map(int fd, uint64_t size, uint64_t off, size_t len, bool writable, void **out,
	    struct err *e);
void shm_unmap(void *at, size_t len);
/* Bytes of it that is not mapped: pread(2), pwrite(2). The range is inside it. Windows: mapped for
 * a moment. */
int shm_read(int fd, void *buf, size_t len, uint64_t off);
int shm_write(int fd, const void *buf, size_t len, uint64_t off);
/* The next byte from `from` on that may be other than zero; `size`, that of the whole, if there is
 * none. */
uint64_t shm_data(int fd, uint64_t from, uint64_t size);
/* The first `len` bytes of each of `n` mappings of shm_map() once more, one behind the other: the
 * same memory. `len` is a multiple of 4096. NULL: this system cannot, or not now. */
void *shm_join(void *const map[], unsigned n, size_t len);
/* Registers of a device of the host, [off, off + len) of what its driver gave out: they stay until
 * the process ends. Linux alone. */
int device_map(int fd, uint64_t off, size_t len, void **out, struct err *e);
/* Address space where nothing is, for such registers of devices that come later: `size` bytes, a
 * power of two, at a multiple of it, and as many behind them that are never used. Stays until the
 * process ends. */
int device_room(size_t size, void **out, struct err *e);
/* As device_map(), in a room; device_unmap(): nothing is there again. A jail may allow these two:
 * each is one system call, with arguments that do not vary but for place, length and descriptor. */
int device_map_at(int fd, uint64_t off, size_t len, void *at, struct err *e);
int device_unmap(void *at, size_t len, struct err *e);
/* A mapping is a guest's memory: keep it out of core dumps, back it with huge pages. Best effort.
 */
void shm_is_guest(void *at, size_t len);
/* Huge pages for whole, aligned 2 MiB blocks, as far as the host will: see gm_collapse(). */
int shm_collapse(void *at, size_t len);

/* A descriptor through which this process's page faults can be caught (userfaultfd(2)); the
 * caller's. `dev`: /dev/userfaultfd, open. None is caught yet. *guards: shared memory can be
 * write-protected, too. Linux alone, like the next two. */
int faults_open(int dev, bool *guards, struct err *e);
/* From now on who touches a missing page of the shared memory at `at`, in this process, waits until
 * it is filled through `fd`. Nothing of it has been touched. */
int faults_catch(int fd, void *at, size_t len, struct err *e);
/* Of a process, by the descriptor that it made: nothing of this is caught any more, nothing is
 * write-protected, and who waits goes on. */
void faults_end(int fd, uint64_t addr, uint64_t len);

/* Memory of the process's own, all zeros, aligned to pages; costs nothing until it is touched, and
 * then a page, never a huge one. It is there until the process ends. Before the jail is closed.
 * NULL: there is none. */
void *reserve_memory(size_t len, bool writable);

/* Size in bytes of a regular file; of anything else -EINVAL. */
int file_size(int fd, uint64_t *size);
/* pread/pwrite until done or error; a short file is -ENODATA. */
int read_full(int fd, void *buf, size_t len, uint64_t off);
int write_full(int fd, const void *buf, size_t len);
/* pwrite until done or error. */
int write_full_at(int fd, const void *buf, size_t len, uint64_t off);
/* Make what was written to it last. */
int file_sync(int fd);

/* Does a path mean the same from every directory? */
bool path_is_absolute(const char *path);
/* Can it follow a directory and a slash? Windows: "C:x" and "\\x" are neither this nor that. */
bool path_is_relative(const char *path);

/* The same path from every directory; the caller's. Linux: without links, and -ENOENT if nothing is
 * there. Windows: by its text alone, so links stay and it need not be there. NULL, with a negative
 * errno in *rc. */
char *path_whole(const char *path, int *rc);

/* A stdio stream that writes to what `fd` stands for, from its position; the descriptor stays the
 * caller's. NULL and errno. */
FILE *fd_stream(int fd);
/* An empty file without a name, to be written, and then nobody's to change: memfile_seal() replaces
 * *fd by one that can be read alone, or closes it and says why not. A memfd; on Windows a temporary
 * file, which is gone when the last handle to it is closed. */
int memfile_create(const char *name);
int memfile_seal(int *fd);

/* The terminal or console window that one of the standard streams is: its size, false: none is, or
 * it does not tell; and what type TERM would call it, NULL: not known. */
bool window_size(uint16_t *rows, uint16_t *cols);
const char *window_type(void);

/* What the user named, by a path in UTF-8. For insula-run and insulad alone: no other process opens
 * paths. */
/* All of what has at most `max` bytes; -EFBIG if it has more. `streams`: "-" is standard input, and
 * what can only be waited for is fine; else -EINVAL for anything but a regular file. *text is the
 * caller's, with a NUL behind it. */
int text_read(const char *path, bool streams, size_t max, char **text, size_t *len);
/* Make or replace a file: `text` and a line end. A pipe that nobody reads is an error
 * after 2 s (-ENXIO, -ETIMEDOUT). */
int text_write(const char *path, const char *text);
/* The last part of what a symbolic link points to, as sysfs has them; "": there is none. Linux
 * alone. */
void link_name(const char *path, char *out, size_t size);

/* Which of these words was meant by one that is none of them? At most a third of its letters are
 * wrong, missing, too many or swapped, or one is the other's beginning; capitals do not count.
 * NULL: none is near. Words without their dashes; NULL and "" in the list are passed over. */
const char *nearest(const char *word, const char *const *list, size_t n);

#endif
