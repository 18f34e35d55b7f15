/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests: JSON-RPC 2.0, a line becomes requests, answers become lines (rpc.c). A request belongs
 * to its client until it is answered; a client that goes leaves it to whoever keeps it.
 */
#ifndef DAEMON_REQUEST_H
#define DAEMON_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

struct client;
struct daemon;
struct machine;
struct method;
struct timer;

#define REQUEST_FDS 3
#define RPC_DEPTH 24
#define RPC_BATCH 64

/* Codes of JSON-RPC 2.0, 5.1, and ours; each reason has one of them. */
enum rpc_code {
	RPC_PARSE = -32700,
	RPC_INVALID = -32600,
	RPC_NO_METHOD = -32601,
	RPC_BAD_PARAMS = -32602,
	RPC_INTERNAL = -32603,
	RPC_NOT_FOUND = -32001,
	RPC_EXISTS = -32002,
	RPC_STATE = -32003,
	RPC_LIMIT = -32004,
	RPC_FAILED = -32005,
	RPC_TIMEOUT = -32006,
	RPC_BUSY = -32007,
	RPC_UNSUPPORTED = -32008,
	RPC_DENIED = -32009,
};

struct refusal {
	enum rpc_code code;
	const char *reason;                          /* stable, a static string */
	const char *field, *value, *expected, *text; /* NULL: nothing to say */
};

struct batch;
struct request {
	struct request *next;  /* of the same client */
	struct client *client; /* NULL: it has gone; answering is still right */
	struct batch *batch;
	json_object *id; /* owned; may be JSON's null */
	bool notification;
	bool running, over; /* its method runs; and has answered it already */
	const struct method *method;
	json_object *params; /* an object; owned */
	struct daemon *d;
	uint32_t uid;        /* of the client, whose these are: */
	int fd[REQUEST_FDS]; /* owned; -1: none */
	unsigned nfds;
	unsigned tries; /* VMs of a pool that it could not have */
	bool more_fds;  /* than a request may have */
	uint32_t exec;  /* of a held request that waits for a command, not for the VM's end; 0 */
	/* While a machine keeps it: machine_hold(). */
	struct machine *machine;
	struct request *next_held;
	struct timer *timer;
};

/* One line of a client, without its end. */
void rpc_line(struct daemon *d, struct client *c, const char *text, size_t len);
/* A request whose client is gone and that nobody keeps. */
void request_free(struct request *r);
/* Its descriptors, before its end. */
void request_close_fds(struct request *r);
/* Each request is answered once, by one of these, now or later; it is freed then, or when the
 * method that was called for it returns, whichever is later. `result` is taken over; `fd` goes with
 * it (-1: none) and stays the caller's. */
void request_answer(struct request *r, json_object *result);
void request_answer_fd(struct request *r, json_object *result, int fd);
void request_refuse(struct request *r, const struct refusal *why);
/* A refusal outside any request: the line cannot be understood. */
void rpc_refuse_line(struct client *c, const struct refusal *why);

#endif
