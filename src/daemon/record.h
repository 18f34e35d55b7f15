/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What insulad knows about one VM, as it stands in the state directory: STATE/vm/ID/record.json.
 *
 * The text is written and read here and nowhere else. A file is read as if an enemy had written it.
 */
#ifndef DAEMON_RECORD_H
#define DAEMON_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#define ID_LEN 16
#define NAME_MAX_LEN 63
#define TOKEN_LEN 64
#define GROUP_LEN (3 + ID_LEN + 1 + 8 + 1) /* vm-ID-N and a NUL */
#define CONFIG_MAX (1u << 20)
#define RESULT_MAX (64u << 10)
#define RECORD_MAX (CONFIG_MAX + (256u << 10)) /* with both, and the rest */
#define MAX_GROUPS 64

enum vm_state {
	VM_CREATED,  /* a record, no process */
	VM_STARTING, /* a supervisor that has not said that the guest runs */
	VM_RUNNING,
	VM_PAUSED,
	VM_STOPPING,
	VM_ENDED,
	VM_BROKEN, /* a record that cannot be read: never in one */
	VM_STATES
};
extern const char *const vm_state_names[VM_STATES];

/* Whose a VM is, and who a client is. `uid` is what is compared; 0 may see and touch everything.
 * Windows: a number that this daemon has given the SID; 0 are SYSTEM and elevated administrators.
 */
#define SID_LEN 187 /* "S-1-" and what a SID can have at most, and a NUL */
struct owner {
	uint32_t uid, gid;
	uint32_t groups[MAX_GROUPS];
	unsigned ngroups;
	char sid[SID_LEN]; /* Windows; else "" */
};

struct record {
	char id[ID_LEN + 1];
	char name[NAME_MAX_LEN + 1];
	struct owner owner;
	enum vm_state state;
	bool transient;                           /* vm.run: goes when it ends */
	int64_t created_ms, started_ms, ended_ms; /* since 1970 */
	char *config;                             /* JSON object, one line; owned */
	unsigned cpus, cpus_max;                  /* as in struct vm_config */
	/* Bytes: its share of insulad's memory now, and when it starts; what its guest begins with;
	 * what that can be resized to, 0: it cannot. */
	uint64_t mem, mem_start, mem_boot, mem_max;
	/* The supervisor, while there is one. */
	int pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat; Windows: a FILETIME */
	char boot_id[37];
	char group[GROUP_LEN]; /* its control group's name, of this start alone; "": none */
	char token[TOKEN_LEN + 1];
	char pool[ID_LEN + 1]; /* that it stands in; "": none */
	char *result;          /* how it ended: JSON object, one line; NULL: not ended; owned */
};

bool name_is_valid(const char *name);
bool id_is_valid(const char *id);
/* The text, the caller's; NULL: no memory. */
char *record_print(const struct record *r);
/* A line, and -EINVAL, or -EPROTONOSUPPORT: a newer insulad has written it. On success the caller
 * calls record_free(). */
int record_parse(struct record *r, const char *text, size_t len, struct err *e);
void record_free(struct record *r);
/* The configuration becomes this one, which is taken over. -ENOMEM, of NULL too: it stays. */
int record_config(struct record *r, json_object *config);

/* A result file: complete with its line end, an object with the strings "reason" and "token" ==
 * `token`. Its text without the token, the caller's, which a record can hold; NULL: not complete,
 * not this VM's, or more or deeper than a record can hold. */
char *result_parse(const char *text, size_t len, const char *token);

#endif
