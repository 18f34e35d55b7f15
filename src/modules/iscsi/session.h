/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A session with an iSCSI target, over one connection: login, then what the LUN is.
 *
 *   session_begin()   connecting -> login -> probing: the steps of session.c -> up
 *   session_serve()   what the socket is ready for. It never blocks
 *   session_end()     from any state: every command is answered as cancelled
 *
 * Each lane has its own session, under a name of its own (ISID) that it keeps for the life of the
 * VM, over all processes of the module. If it logs in again, the target ends the session that it
 * had (RFC 7143, 6.3.5): what that one left behind is executed, or is not executed any more.
 *
 * What a target sends is parsed by libiscsi and here, in the jail.
 */
#ifndef MODULES_ISCSI_SESSION_H
#define MODULES_ISCSI_SESSION_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include <insula/module.h>

#include "filter.h"

#define SESSION_WHY 200
#define SESSION_DEADLINE_NS 10000000000ull /* connection, login and probing */
#define LUN_MAX 16383u
#define NAME_MAX_ISCSI 223 /* RFC 7143, 4.2.7.1 */

struct target {
	char name[NAME_MAX_ISCSI + 1], initiator[NAME_MAX_ISCSI + 1];
	char user[256], password[256]; /* CHAP; "": none */
	unsigned lun;
};

/* What the LUN says of itself. */
struct lun {
	uint64_t size; /* bytes */
	uint32_t logical, physical;
	bool ro;
	bool cache; /* writes are stable after a flush only */
	bool fua;
	bool thin; /* space can be given back: by UNMAP (`unmap`) or WRITE SAME (`same`) */
	bool unmap, same;
	uint64_t max_io, max_unmap, max_same; /* blocks of one command; 0: it does not say */
};

enum session_state {
	SESSION_NONE,
	SESSION_CONNECT,
	SESSION_LOGIN,
	SESSION_PROBE,
	SESSION_UP,
	SESSION_DEAD
};

struct session {
	const struct target *target;
	struct iscsi_context *ctx; /* NULL with SESSION_NONE alone */
	enum session_state state;
	unsigned step, tries;
	struct scsi_task *probe; /* under way */
	bool again;              /* in state up: the capacity is being asked for */
	uint64_t began_ns;
	struct lun lun;
	struct filter filter;
	char why[SESSION_WHY]; /* it is dead */
};

/* `fd` is the session's, or is closed. */
void session_begin(struct session *s, const struct target *t, uint32_t isid, uint16_t lane, int fd);
void session_end(struct session *s);
/* `revents` of session_fd(). */
void session_serve(struct session *s, short revents);
int session_fd(const struct session *s);
short session_events(const struct session *s);
/* It has been up: ask for the capacity again. s->lun.size changes when it has. */
void session_look(struct session *s);
void session_dead(struct session *s, const char *fmt, ...) INSULA_PRINTF(2, 3);

/* The number as SAM has it: flat addressing from 256. */
int session_lun(const struct session *s);
bool session_unit_attention(const struct scsi_task *task);

#endif
