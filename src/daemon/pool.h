/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools: VMs that are restored from one snapshot and stand (supervisor/snapshot/standing.h), until
 * vm.run takes one. Each is a VM of the pool's owner, in the list and in the limits as any other,
 * whose record names the pool; that is all that makes it one of the pool's.
 *
 *   pool.c           the list, filling them, what an earlier insulad has left
 *   pool_record.c    what stands on the disk, and the pure parts
 *   pool_methods.c   pool.create and the others
 *   pool_take.c      vm.run with "pool"
 *
 * A pool is filled by its timer alone (pool_tend_soon()): at its creation, when one of its VMs is
 * ready, has ended or was taken. A start that fails, or a VM that ends while it stands, is followed
 * by a rest that gets longer.
 *
 * Before a VM is given away its record gets what the client wants, its name too, and still names
 * the pool. If insulad is killed over it, the next one asks the supervisor: a VM that goes on is
 * the client's, and one that stands, though somebody was to have it, is ended, as if nobody had asked.
 */
#ifndef DAEMON_POOL_H
#define DAEMON_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "record.h"

#define POOL_MAX_COUNT 256
#define POOL_MAX_POOLS 64 /* of a user */
#define POOL_STARTS 4     /* at a time, of one user's pools together */
#define POOL_REST_MS 250
#define POOL_REST_MAX_MS 60000
#define POOL_FORGET_MS 600000 /* after so long without a failure the next one is the first */

struct client;
struct daemon;
struct machine;
struct request;
struct timer;

struct pool {
	struct pool *next;
	struct daemon *d;
	struct record r; /* id, name and owner of the pool; config, cpus and mem of its VMs */
	unsigned count;
	bool removed;              /* it is not there any more; its VMs are ending */
	struct request *remover;   /* answered when they have */
	struct timer *again;       /* pool_tend() */
	uint64_t failed_ns;        /* when something has gone wrong last; 0: never */
	uint64_t rest_ms, next_ns; /* the rest after that, and its end */
	char why[256];             /* what it was; "": the pool has been full since */
	uint64_t taken, missed, failures;
};

/* ---- pool_record.c ---- */

/* The text, the caller's; NULL: no memory. */
char *pool_print(const struct pool *p);
/* A line, and -EINVAL, or -EPROTONOSUPPORT: a newer insulad has written it. On success the caller
 * calls record_free(). */
int pool_parse(struct pool *p, const char *text, size_t len, struct err *e);
/* The rest after something has gone wrong: longer than the last one, unless that has been so long
 * ago (POOL_FORGET_MS). */
uint64_t pool_rest_ms(uint64_t last_ms, uint64_t since_ms);
/* The configuration of a VM of the pool, the caller's: one that stands, or (paused false) one that
 * somebody could not wait for. `timeout`: seconds, 0: as the pool says. NULL: no memory. */
json_object *pool_config(const struct pool *p, bool paused, int64_t timeout);

/* ---- pool.c ---- */

/* Those of an earlier insulad; after machines_load(). */
int pools_load(struct daemon *d, struct err *e);
void pools_close(struct daemon *d);
/* May this client see and touch it? */
bool pool_visible(const struct pool *p, const struct client *c);
/* By id or name, as machine_find(). */
struct pool *pool_find(struct daemon *d, const struct client *c, const char *which, bool *several);
/* The caller's own. NULL: there is none. */
struct pool *pool_own(struct daemon *d, const struct client *c, const char *name);
/* NULL: no memory. Its record is the caller's to fill in. */
struct pool *pool_add(struct daemon *d);
void pool_forget(struct pool *p);
int pool_save(struct pool *p, struct err *e);
/* Its VMs end; then it is freed, and its remover is answered. */
void pool_remove(struct pool *p);
/* Of those that may be taken the one that has stood longest; NULL: there is none. */
struct machine *pool_pick(struct pool *p);
/* The name of the pool that a VM stands in; NULL: it is in none. */
const char *pool_name_of(const struct machine *m);
void pool_tend_soon(struct pool *p);
/* Something has gone wrong: it rests. */
void pool_failed(struct pool *p, const char *why);
json_object *pool_json(const struct pool *p, bool full);

/* What has become of a VM; each does nothing if it is in no pool. One that stands is ended if the
 * pool is not there; one that runs, and was not taken from this insulad, was from an earlier one.
 */
void pool_vm_stands(struct machine *m);
void pool_vm_runs(struct machine *m);
void pool_vm_ended(struct machine *m);
/* It is ended at once. */
void pool_end_vm(struct machine *m);
/* The name and the end of one that nobody has. */
void pool_vm_is_nobodys(struct machine *m);

/* ---- pool_take.c ---- */

/* vm.run with the parameter "pool". */
void pool_run(struct daemon *d, struct request *r);

#endif
