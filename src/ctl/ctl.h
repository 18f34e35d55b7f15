/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl: friendly words over insulad's socket.
 *
 * conn.c speaks JSON-RPC, print.c makes tables, stream.c copies consoles, config.c turns the flags
 * of insula-run into a configuration, exec.c runs commands, verbs.c has one function per verb. One
 * thread.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#define CTL_DEFAULT_SOCKET "/run/insula/insulad.sock"
#define CTL_FDS 3

enum ctl_status { CTL_FAILED = 125, CTL_BAD_INPUT = 2, CTL_REFUSED = 1 };

struct conn {
	int fd;
	char *in;
	size_t nin, size;
	int64_t id;
	int got; /* a descriptor that came with the last line; -1: none; the caller takes it */
};

int conn_open(struct conn *c, const char *path, struct err *e);
void conn_close(struct conn *c);
/* Send a request; its id, or a negative errno. Takes `params` over; `fds` stay the caller's. */
int64_t conn_send(struct conn *c, const char *method, json_object *params, const int *fds,
		  unsigned nfds, struct err *e);
/* The next object, the caller's. NULL: error in `e`. Blocks. */
json_object *conn_next(struct conn *c, struct err *e);
/* Is there one already, without asking the kernel? */
bool conn_has_line(const struct conn *c);
/* Send, and wait for the answer: the result, the caller's. NULL: a line in `e`; e->code is
 * -EREMOTEIO if the daemon refused. */
json_object *conn_call(struct conn *c, const char *method, json_object *params, struct err *e);
/* The result of an answer, the caller's; NULL: its error as a line. */
json_object *conn_result(json_object *answer, struct err *e);

/* print.c */
bool print_is_table(bool json); /* standard output is a terminal, and nobody wants JSON */
void print_json(json_object *o);
void print_vms(json_object *list);
void print_members(json_object *o); /* "key  value" lines */
void print_event(json_object *params);

/* stream.c: copy between the standard streams and a console until it ends (0), or the user types
 * the escape, Ctrl-] (1). With `conn`, what arrives there ends it too, once the stream is empty. */
int stream_console(int fd, bool input, struct err *e);

/* config.c: flags as insula-run has them, up to the command; optind-like: *used says how many. */
struct run_options {
	const char *name;
	bool detach;
	json_object *config; /* owned */
};
int config_flags(struct run_options *o, int argc, char **argv, struct err *e);

/* verbs.c */
struct ctl {
	struct conn conn;
	const char *path; /* of the socket */
	bool json;
};
struct verb {
	const char *name, *args, *summary;
	int (*run)(struct ctl *c, int argc, char **argv); /* exit status */
	int min, max;                                     /* arguments; max < 0: any */
};
/* exec.c: 0 and the command's status; or a negative errno, as conn_result() has it. */
int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e);
extern const struct verb verbs[];
extern const size_t nverbs;

#endif
