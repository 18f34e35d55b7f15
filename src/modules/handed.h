/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For libraries that make their own sockets and open their own files: what a module was given,
 * under the names of the C library.
 *
 * A module can make no socket and open no file, and gets both from the supervisor. libiscsi has no
 * function that takes a socket, libnbd reads keys by path only. So handed.c, which is linked into
 * the module, defines the few functions of the C library that they call for that; the program's own
 * definitions come first when the loader binds a library. socket() gives the descriptor that was
 * handed in, connect() says that it is under way, fopen() and access() know the files of the
 * settings. If a library calls another function than these, it meets the list of system calls, and
 * the process ends: nothing opens by mistake.
 */
#ifndef MODULES_HANDED_H
#define MODULES_HANDED_H

#include <stdbool.h>
#include <stddef.h>

#define HANDED_DIR "/insula" /* where the files seem to be */

/* The next socket() of this thread gives `fd`, which is the library's then. */
void handed_socket(int fd);
/* If no socket() has taken it, it is the caller's again: it, or -1. */
int handed_back(void);
/* How many times recv() and readv() of this thread may still give something, before they say EAGAIN:
 * against a server that never stops, and a library that reads until it does. */
void handed_reads(unsigned most);
/* `see` is shown what recv() of this thread has got, and of readv() how much (p is NULL). If it says
 * false, they say EPROTO. NULL: nobody looks. */
void handed_watch(bool (*see)(void *own, const void *p, size_t n), void *own);

/* recv(), send() and sendmsg() of this thread for the socket of `s` go through it; NULL: for none.
 * handed_reads() and handed_watch() have no say there. */
struct stream;
void handed_stream(struct stream *s);

/* A file HANDED_DIR/NAME. Borrowed, for ever. Before the lanes' threads run. At most 8. */
void handed_file(const char *name, const char *text, size_t len);

#endif
