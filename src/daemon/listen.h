/* SPDX-License-Identifier: BSD-2-Clause */
/* Where clients come in, and who they are (listen_*.c); the metrics socket (http_linux.c). */
#ifndef DAEMON_LISTEN_H
#define DAEMON_LISTEN_H

#include <stdbool.h>

#include <insula/err.h>

struct client;
struct conf;
struct daemon;
struct owner;

struct door; /* where clients come in */
/* Is there whom socket_group names? */
int clients_check(const struct conf *c, struct err *e);
int clients_listen(struct daemon *d, struct err *e);
void clients_unlisten(struct daemon *d);
/* The system has no descriptor left but the one that is just being taken. */
bool clients_full(const struct daemon *d);
/* A record was read: what its owner is called in this daemon. Linux: as it says. */
int owner_found_again(struct daemon *d, struct owner *who, struct err *e);
/* http_linux.c */
void http_serve(struct client *c);

#endif
