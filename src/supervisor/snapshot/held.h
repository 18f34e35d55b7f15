/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the back end of a vhost-user device holds besides its rings, in a snapshot: of a file server
 * the files that the guest knows, and has open. Bytes that nobody of ours looks into.
 *
 * To save: the helper gets memory of one size for it, before it comes to rest, and says how much of
 * it the back end has filled. It goes into the snapshot's file `devices`, behind the device's page:
 * a record with its length, then its pieces. To restore: it is read into memory again, from which
 * the device's first helper gives it to the back end, before the guest runs.
 *
 * Thread: the supervisor's.
 */
#ifndef SUPERVISOR_HELD_H
#define SUPERVISOR_HELD_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/proto.h>

struct device;
struct snapdir;
struct vm;

struct held {
	int fd;       /* owned: shared memory */
	uint64_t len; /* of what is in it */
	bool whole;   /* all that there is has come; or was read */
	bool loads;   /* of a snapshot: the first back end is to get it */
};

/* Records of a file, one after the other. */
struct held_file {
	int fd; /* borrowed */
	uint64_t at, size;
};

/* May its back end be asked? As its page has it. */
bool held_can(const struct device *d);
/* Memory for so many bytes, at least. */
int held_new(struct device *d, uint64_t size, struct err *e);
/* Ask its helper, which is to come to rest next. */
int held_ask(struct device *d, struct err *e);
/* The answer. A negative errno and a line: it has not been saved. */
int held_came(struct device *d, const struct msg_saved *m, struct err *e);
/* What is there is not needed any more. No-op without any. */
void held_free(struct device *d);
/* Of all devices, what was there to be saved. */
void held_saved(struct vm *vm);
/* Has any back end held anything? */
bool held_any(const struct vm *vm);
bool held_is_to_load(const struct device *d);

/* ---- held_file.c ---- */

/* The next record into `to`, with room for `room` bytes: *len of them, 0: there is none.
 * -EPROTO: it does not fit, or ends in the middle. */
int held_record(struct held_file *f, void *to, size_t room, size_t *len, struct err *e);
/* Behind the page of device number `i`. */
int held_write(const struct device *d, unsigned i, struct snapdir *dir, struct err *e);
int held_read(struct device *d, unsigned i, struct held_file *f, struct err *e);

#endif
