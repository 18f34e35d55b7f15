/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * URIs of storage modules (RFC 3986, as far as these need it):
 *
 *   SCHEME://[USER@]HOST[:PORT]/PATH[?KEY=VALUE&...]      over TCP
 *   SCHEME:///PATH?socket=FILE[&KEY=VALUE...]             over a Unix socket
 *
 * Both sides parse the same text with the same function: the supervisor connects, the module takes
 * what is left.
 */
#ifndef INSULA_URI_H
#define INSULA_URI_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>

#ifdef __cplusplus
extern "C" {
#endif

#define URI_MAX 2048       /* characters of the whole */
#define URI_SCHEME_MAX 16  /* characters */
#define URI_HOST_MAX 255   /* characters */
#define URI_SOCKET_MAX 107 /* characters: what a Unix socket's address has room for */

struct uri {
	char scheme[URI_SCHEME_MAX + 1];
	char user[64]; /* decoded; "": none */
	char host[URI_HOST_MAX +
		  1];            /* a name or an address; without the brackets of IPv6; "": none */
	uint16_t port;           /* 0: not said */
	char path[URI_MAX + 1];  /* decoded, without its first slash */
	char query[URI_MAX + 1]; /* as it is written, without the question mark */
	char socket[URI_SOCKET_MAX + 1]; /* socket= of the query, decoded; "": none */
};

/* -EINVAL: a line that says which part is wrong ("scheme", "host", "port", "path", "query",
 * "socket"), what it is and what was expected. A password in a URI is refused ("user"): command lines
 * are everybody's to read, and configurations are shown and logged. A user is a plain name. */
int uri_parse(struct uri *u, const char *text, struct err *e);

/* The value of KEY in the query, decoded into out[size]. False: it is not there, or is too long or
 * wrong. */
bool uri_query(const struct uri *u, const char *key, char *out, unsigned size);

#ifdef __cplusplus
}
#endif

#endif
