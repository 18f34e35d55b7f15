/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl: friendly words over insulad's socket.
 *
 * conn.c speaks JSON-RPC, print.c makes tables, config.c turns the flags of insula-run into a
 * configuration, verbs.c has one function per verb. In pairs for Linux and Windows: wire_*.c is the
 * connection, stream_*.c copies consoles, exec_*.c runs commands. One thread; on Windows a second
 * one that reads what is typed.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#define CTL_PATH_MAX 4096

/* An error code that is no errno: insulad has refused. */
#define CONN_REFUSED 10000

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
/* The answer to the request of this id: as conn_call(). */
json_object *conn_wait(struct conn *c, int64_t id, struct err *e);
/* Send, and wait for the answer: the result, the caller's. NULL: a line in `e`; e->code is
 * -CONN_REFUSED if the daemon refused. */
json_object *conn_call(struct conn *c, const char *method, json_object *params, struct err *e);
/* The result of an answer, the caller's; NULL: its error as a line. */
json_object *conn_result(json_object *answer, struct err *e);

/* print.c */
bool print_is_table(bool json); /* standard output is a terminal, and nobody wants JSON */
void print_json(json_object *o);
void print_vms(json_object *list);
void print_members(json_object *o); /* "key  value" lines */
/* A line for a person, on standard error: "insulactl: " and the text, which a VM may have worded:
 * without control characters. */
void print_message(const char *before, const char *text);
void print_event(json_object *params);

/* stream_*.c: consoles. Each has an end that is ours, a descriptor; the other goes to insulad. */
/* Make one whose other end goes with a request: *peer is for conn_send(), the caller's (-1: it goes
 * by name, in `params`). Our end, or a negative errno. Once in a process. */
int stream_offer(struct conn *c, json_object *params, int *peer, struct err *e);
/* Call vm.console, whose answer is only about that. Takes `params` over. Our end, or a negative
 * errno as conn_call() has it. */
int stream_attach(struct conn *c, json_object *params, struct err *e);
/* Copy between the standard streams and it until it ends (0), the user types the escape, Ctrl-]
 * (1), or a signal comes (its number, negative). The terminal is as it was. One that was offered
 * and is refused by an answer on `c` ends too. */
int stream_console(struct conn *c, int fd);

/* config.c: flags as insula-run has them, up to the command; optind-like: *used says how many. */
struct run_options {
	const char *name;
	bool detach;
	json_object *config; /* owned */
};
int config_flags(struct run_options *o, int argc, char **argv, struct err *e);

/* wire_*.c: the connection. These block; negative errnos. */
extern const char wire_default[]; /* where insulad listens */
int wire_open(const char *path, struct err *e);
/* All of it; descriptors go with the first byte. */
int wire_send(int fd, const char *text, size_t len, const int *fds, unsigned nfds);
/* The number of bytes, 0: the end. A descriptor that came along replaces *got. */
int wire_recv(int fd, void *buf, size_t size, int *got);
/* What the user typed, in UTF-8. */
char **wire_arguments(int *argc, char **argv);
/* The current directory, "": it has no such path. */
void wire_directory(char *out, size_t size);

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
/* exec_*.c: 0 and the command's status; or a negative errno, as conn_result() has it. */
int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e);
extern const struct verb verbs[];
extern const size_t nverbs;

#endif
