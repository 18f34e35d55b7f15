/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A snapshot on disk: a directory of four files, and perhaps a fifth.
 *
 *   machine.json  what the VM was: its configuration, its size, what it builds on; sums of the next
 *                 two
 *   vmm           what insula-vmm holds (src/vmm/save.h)
 *   devices       the device pages, as records (insula/state.h)
 *   memory        the guest's memory (insula/pager.h)
 *   seal          a keyed sum of machine.json: it was made by this user on this host
 *
 * It is written under another name and renamed when all of it is stable, so a directory with the
 * right name is a whole snapshot. A directory that is read is another's: what it holds is checked,
 * and what machine.json names on the host is used only if the seal is right.
 *
 * The key of the seal is a file of 32 random bytes in the user's cache directory. Where there is
 * none, or it has been lost, a snapshot has no seal that is right, and whoever restores it names
 * disks, cards and shares once more.
 */
#ifndef SUPERVISOR_SNAPDIR_H
#define SUPERVISOR_SNAPDIR_H

#include <stdbool.h>

#include <json-c/json.h>

#include <insula/err.h>
#include <insula/pager.h>

#define SNAPDIR_FORMAT 1
#define SNAPDIR_FORMAT_PCI 2  /* the same, with devices on the PCI bus: machine.json names them */
#define SNAPDIR_FORMAT_HELD 3 /* either, with what back ends held, in `devices` */
#define SNAPDIR_NAME_MAX 255
#define SNAPDIR_ID_LEN 32 /* hexadecimal digits */

enum snapdir_file { SNAPDIR_MACHINE, SNAPDIR_VMM, SNAPDIR_DEVICES, SNAPDIR_MEMORY, SNAPDIR_FILES };

/* ---- one that is made ---- */

struct snapdir {
	int parent, dir; /* owned; -1: none */
	int file[SNAPDIR_FILES];
	char *at; /* Windows: the path of the parent; owned */
	int lock; /* Windows: a file beside it; owned */
	char name[SNAPDIR_NAME_MAX - 7],
		part[SNAPDIR_NAME_MAX + 1]; /* when it is whole, and until then */
};

void snapdir_none(struct snapdir *d);
/* -EEXIST, -EINVAL, or what the system says of `path`. */
int snapdir_make(struct snapdir *d, const char *path, struct err *e);
int snapdir_write(struct snapdir *d, enum snapdir_file f, const void *buf, size_t len,
		  struct err *e);
/* The same, from the beginning of shared memory. */
int snapdir_copy(struct snapdir *d, enum snapdir_file f, int shm, uint64_t len, struct err *e);
/* Of the text that machine.json is; `cache` as in struct paths. Without a key there is no seal, and
 * the snapshot serves all the same. */
int snapdir_seal(struct snapdir *d, const char *text, size_t len, const char *cache, struct err *e);
/* Everything is stable: it gets its name. */
int snapdir_keep(struct snapdir *d, struct err *e);
/* What is to be synced so that the name lasts: how many; 0: it does already. Borrowed. */
#define SNAPDIR_NAMES 2
unsigned snapdir_names_of(const struct snapdir *d, int fd[SNAPDIR_NAMES]);
/* Close; one that was not kept is removed. */
void snapdir_close(struct snapdir *d);

/* One that was made, as far as it is one. */
void snapdir_remove(const char *path);

/* ---- one that is read ---- */

struct snapshot {
	int file[SNAPDIR_FILES]; /* owned; -1: none. Its memory is the last of these: */
	int memory[RAM_CHAIN];   /* owned, the first one that is whole, and what builds on it */
	unsigned nmemory;
	json_object *machine;    /* owned; checked as far as this file knows it */
	bool sealed;             /* by this user, on this host */
	uint64_t mem, mem_max;   /* bytes; that it can be resized to, 0: it cannot */
	unsigned cpus, cpus_max; /* as in struct vm_config */
};

void snapshot_none(struct snapshot *s);
/* -ENOENT and the like of `path`, -EPROTO: it is no snapshot, or one of another version, or
 * damaged; the text names the file. */
int snapshot_open(struct snapshot *s, const char *path, const char *cache, struct err *e);
void snapshot_close(struct snapshot *s);
/* All that it has on the disk has been read; what machine.json says stays. */
void snapshot_close_files(struct snapshot *s);

/* SHA-256 in hexadecimal of a file or of bytes. */
int snapdir_sum(int fd, char out[65], struct err *e);

#endif
