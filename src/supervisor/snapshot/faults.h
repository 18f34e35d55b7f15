/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * userfaultfd(2): who touches guest memory waits for insula-pager.
 *
 * Each process of a VM that maps guest memory makes a descriptor of its page faults before its jail
 * is closed, gives it to us (MSG_FAULTS) and keeps nothing of it. Two things are done with them:
 *
 *   fill     a VM that goes on from a snapshot gets its memory when it touches it (restore.h). The
 *            process itself says that from the first moment on: START_FAULTS
 *   freeze   while a snapshot is written, whoever writes to a page that is not in it yet waits until
 *            it is (save.h). insula-pager says that when the time comes: START_WATCH
 *
 * We keep a copy of each descriptor: when insula-pager dies another one goes on, or we let everybody
 * go. Without /dev/userfaultfd, which only root may open, there is nothing of this, and memory is
 * read as a whole, and copied while the guest stands still. Nor with huge pages. A device that cannot
 * be part of a snapshot is not asked.
 *
 * Linux alone. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_FAULTS_H
#define SUPERVISOR_FAULTS_H

#include <stdbool.h>

#include <insula/proto.h>
#include <insula/start.h>

struct child;
struct faults;
struct vm;

/* Before the first process of the VM starts. What cannot be had is said with -v, and is no error. */
void faults_begin(struct vm *vm);
void faults_close(struct vm *vm);
/* The start message's descriptor for who maps guest memory; borrowed. -1: none. */
int faults_device(const struct vm *vm);
/* Whether memory is filled, from now on; the descriptors that are there stay. */
void faults_fill(struct vm *vm, bool fill);
enum start_role faults_role(const struct vm *vm); /* START_FAULTS, or START_WATCH */

/* A process has mapped a piece. Takes `fd` over. False: it is not one, or nobody has asked. */
bool faults_keep(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd);
/* That process has ended. */
void faults_forget(struct vm *vm, const struct child *whose);
/* Can memory be write-protected, and have all that map it given theirs? */
bool faults_complete(const struct vm *vm);
/* All of them to insula-pager (`whose` NULL), or a new one, of this process and piece. A negative
 * errno. */
int faults_give(const struct vm *vm, struct child *pager, const struct child *whose,
		uint64_t offset);
/* Whoever waits goes on, and nobody waits again. */
void faults_let_go(struct vm *vm);

#endif
