/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's configuration: insulad.json, and flags, which win. One table of settings; what is
 * unknown or of the wrong type is refused with one line. See insulad.json(5), insulad(8).
 */
#ifndef DAEMON_CONF_H
#define DAEMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "spec/describe.h"

#define CONF_PATH_MAX 256
#define CONF_MAX_USERS 64
#define CONF_MAX_BYTES (256u << 10)

struct limits {
	unsigned vms, vcpus;
	uint64_t memory; /* bytes */
};

struct conf {
	char socket[CONF_PATH_MAX];
	unsigned socket_mode, metrics_mode;
	char socket_group[64];              /* "": the daemon's own */
	char metrics_socket[CONF_PATH_MAX]; /* "": none */
	char state_dir[CONF_PATH_MAX];
	char supervisor[CONF_PATH_MAX]; /* "": insula-run next to insulad */
	char cgroup[CONF_PATH_MAX];     /* "auto", "off" or a directory */
	char io_max[128];               /* a line for io.max, "": none */
	bool log_json;
	bool verbose;
	unsigned overcommit_percent; /* memory of all running VMs against that of the host */
	unsigned max_vms;            /* records */
	unsigned max_clients, max_clients_per_uid;
	unsigned idle_timeout; /* seconds; 0: none */
	bool socket_rights;    /* the file has socket_mode, socket_group or metrics_mode */
	unsigned max_requests; /* outstanding per client */
	unsigned max_line;     /* bytes of one request */
	unsigned max_queue;    /* bytes that a client has not read */
	unsigned overhead_mib; /* of one VM beside its guest's memory */
	unsigned cpu_percent;  /* of one processor, for each vCPU */
	uint64_t log_max;      /* bytes of each of the two files of a VM's log */
	struct limits limits;  /* of each uid but root */
	struct {
		uint32_t uid;
		struct limits limits;
	} user[CONF_MAX_USERS];
	unsigned nusers;
};

void conf_init(struct conf *c); /* the defaults */
/* conf_*.c: the system's own: where things are, and what it has not got. */
const char *conf_default_file(void);
void conf_init_paths(struct conf *c);
bool conf_is_socket(const char *text);   /* where clients may come in */
extern const char conf_socket_words[];   /* what it must be */
extern const char *const conf_missing[]; /* settings that are refused; NULL behind the last */
/* Apply a JSON object. -EINVAL with a line for people. */
int conf_parse(struct conf *c, const char *text, size_t len, struct err *e);
/* The settings as flags, with their values; CONF_FLAGS entries are room enough. How many there are.
 * conf_flag(): check one, and put it into `flags`, an object, as it would be in the file. */
#define CONF_FLAGS 32
size_t conf_flags(struct flag_words *out);
int conf_flag(json_object *flags, const char *flag, const char *text, struct err *e);
/* Those that are no settings. */
extern const struct flag_words daemon_flags[];
extern const size_t ndaemon_flags;
/* Read a file, and apply `flags` (NULL: none) above it; `must_exist` false: no file is as good as
 * an empty one. */
int conf_load(struct conf *c, const char *path, bool must_exist, json_object *flags, struct err *e);
const struct limits *conf_limits(const struct conf *c, uint32_t uid);
/* What the control group of a VM with so much memory may use, in bytes. */
uint64_t conf_group_memory(const struct conf *c, uint64_t mem);
/* Take over what SIGHUP may change: limits, log settings. The names of other settings that differ
 * are put into `kept`. */
void conf_reload(struct conf *c, const struct conf *from, char *kept, size_t size);

#endif
