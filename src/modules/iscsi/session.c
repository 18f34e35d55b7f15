/* SPDX-License-Identifier: BSD-2-Clause */
/* Login and probing. See session.h. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "modules/handed.h"
#include "session.h"

#define PROBE_TRIES 32 /* unit attentions, and answers like "busy" */
#define READS 512      /* of one turn: three for a small answer */
#define ANSWER 96      /* bytes of an inquiry page or of mode sense: what is looked at, and more */

/* ---- the end ---- */

void session_dead(struct session *s, const char *fmt, ...)
{
	va_list ap;

	if (s->state == SESSION_DEAD || s->state == SESSION_NONE)
		return;
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	s->state = SESSION_DEAD;
}

void session_end(struct session *s)
{
	if (s->state == SESSION_NONE)
		return;
	s->state = SESSION_DEAD;
	(void)iscsi_destroy_context(s->ctx);
	s->ctx = NULL;
	/* After a logout libiscsi drops commands without a word. */
	if (s->probe)
		scsi_free_scsi_task(s->probe);
	s->probe = NULL;
	s->state = SESSION_NONE;
}

/* ---- probing: one command after the other ---- */

static uint64_t big(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static struct scsi_task *ask_ready(void)
{
	return scsi_cdb_testunitready();
}

static bool take_ready(struct session *s, const uint8_t *d, size_t n)
{
	(void)s;
	(void)d;
	(void)n;
	return true;
}

static struct scsi_task *ask_inquiry(void)
{
	return scsi_cdb_inquiry(0, 0, ANSWER);
}

/* SPC-4, 6.4.2. A target has this answer for numbers of which it has no unit, too. */
static bool take_inquiry(struct session *s, const uint8_t *d, size_t n)
{
	if (n && d[0] == 0x7f)
		session_dead(s, "LUN %u: the target has none of that number", s->target->lun);
	else if (n && (d[0] & 0x1f) != 0)
		session_dead(s, "LUN %u: device type %u; expected a disk (0)", s->target->lun,
			     d[0] & 0x1f);
	return n;
}

static struct scsi_task *ask_limits(void)
{
	return scsi_cdb_inquiry(1, 0xb0, ANSWER);
}

/* SBC-3, 6.5.3 */
static bool take_limits(struct session *s, const uint8_t *d, size_t n)
{
	if (n >= 12 && d[1] == 0xb0)
		s->lun.max_io = big(d + 8, 4);
	if (n >= 28 && d[1] == 0xb0 && big(d + 24, 4))
		s->lun.max_unmap = big(d + 20, 4);
	if (n >= 44 && d[1] == 0xb0)
		s->lun.max_same = big(d + 36, 8);
	return true;
}

static struct scsi_task *ask_provisioning(void)
{
	return scsi_cdb_inquiry(1, 0xb2, ANSWER);
}

/* SBC-3, 6.5.4 */
static bool take_provisioning(struct session *s, const uint8_t *d, size_t n)
{
	if (n >= 6 && d[1] == 0xb2) {
		s->lun.unmap = d[5] & 0x80;
		s->lun.same = d[5] & 0x40;
	}
	return true;
}

static struct scsi_task *ask_capacity(void)
{
	return scsi_cdb_readcapacity16();
}

/* SBC-3, 5.16.2 */
static bool take_capacity(struct session *s, const uint8_t *d, size_t n)
{
	uint64_t blocks, block;

	if (n < 16)
		return false;
	blocks = big(d, 8);
	block = big(d + 8, 4);
	if (block < 512 || block > 4096 || (block & (block - 1)) ||
	    blocks >= INT64_MAX / 4096 - 1) {
		session_dead(s, "LUN %u: %llu blocks of %llu bytes; expected blocks of 512 to 4096",
			     s->target->lun, (unsigned long long)blocks + 1,
			     (unsigned long long)block);
		return true;
	}
	if (s->lun.logical && s->lun.logical != block) {
		session_dead(s, "LUN %u: blocks of %llu bytes; it had %u", s->target->lun,
			     (unsigned long long)block, s->lun.logical);
		return true;
	}
	s->lun.size = (blocks + 1) * block;
	s->lun.logical = (uint32_t)block;
	s->lun.physical = (uint32_t)block << (d[13] & 0x0f);
	s->lun.thin = d[14] & 0x80;
	return true;
}

static struct scsi_task *ask_caching(void)
{
	return scsi_cdb_modesense6(0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CACHING, 0, ANSWER);
}

/* SPC-4, 7.5.4; SBC-3, 6.4.2 and 6.4.5 */
static bool take_caching(struct session *s, const uint8_t *d, size_t n)
{
	size_t page = n >= 4 ? 4 + (size_t)d[3] : n;

	if (n >= 4) {
		s->lun.ro = d[2] & 0x80;
		s->lun.fua = d[2] & 0x10;
	}
	if (n > page + 2 && (d[page] & 0x3f) == SCSI_MODEPAGE_CACHING)
		s->lun.cache = d[page + 2] & 0x04;
	return true;
}

static const struct {
	const char *what;
	struct scsi_task *(*ask)(void);
	/* False: too short. */
	bool (*take)(struct session *s, const uint8_t *d, size_t n);
	bool optional;
} steps[] = {
	{"TEST UNIT READY", ask_ready, take_ready, false},
	{"INQUIRY", ask_inquiry, take_inquiry, false},
	{"INQUIRY of the limits", ask_limits, take_limits, true},
	{"INQUIRY of the provisioning", ask_provisioning, take_provisioning, true},
	{"READ CAPACITY(16)", ask_capacity, take_capacity, false},
	{"MODE SENSE(6)", ask_caching, take_caching, true},
};
#define STEP_CAPACITY 4u
#define NSTEPS (sizeof(steps) / sizeof(steps[0]))

int session_lun(const struct session *s)
{
	return (int)(s->target->lun < 256 ? s->target->lun : 0x4000u | s->target->lun);
}

bool session_unit_attention(const struct scsi_task *task)
{
	return task->status == SCSI_STATUS_CHECK_CONDITION &&
	       task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
}

static void probed(struct iscsi_context *ctx, int status, void *data, void *own);

static void ask(struct session *s)
{
	s->probe = steps[s->step].ask();
	if (s->probe &&
	    !iscsi_scsi_command_async(s->ctx, session_lun(s), s->probe, probed, NULL, s))
		return;
	if (s->probe)
		scsi_free_scsi_task(s->probe);
	s->probe = NULL;
	session_dead(s, "%s: %s", steps[s->step].what, iscsi_get_error(s->ctx));
}

static bool probe_again(const struct scsi_task *task, int status)
{
	return status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL ||
	       status == SCSI_STATUS_TASK_ABORTED || session_unit_attention(task);
}

static void probe_answer(struct session *s, const struct scsi_task *task, int status)
{
	const uint8_t *d = task->datain.data;
	size_t n = d && task->datain.size > 0 ? (size_t)task->datain.size : 0;

	if (probe_again(task, status) && s->tries++ < PROBE_TRIES)
		return;
	if (task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST &&
	    task->sense.ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED)
		session_dead(s, "LUN %u: the target has none of that number", s->target->lun);
	else if (status != SCSI_STATUS_GOOD && !steps[s->step].optional)
		session_dead(s, "LUN %u: %s: %s", s->target->lun, steps[s->step].what,
			     status == SCSI_STATUS_CHECK_CONDITION
				     ? scsi_sense_ascq_str(task->sense.ascq)
				     : "refused");
	else if (status == SCSI_STATUS_GOOD && !steps[s->step].take(s, d, n))
		session_dead(s, "LUN %u: %s: %zu bytes; expected more", s->target->lun,
			     steps[s->step].what, n);
	if (s->state == SESSION_PROBE && ++s->step == NSTEPS)
		s->state = SESSION_UP;
	s->again = false;
}

static void probed(struct iscsi_context *ctx, int status, void *data, void *own)
{
	struct session *s = own;
	struct scsi_task *task = s->probe;

	(void)ctx;
	(void)data;
	s->probe = NULL;
	if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR)
		session_dead(s, "%s", iscsi_get_error(ctx));
	else if (s->state == SESSION_PROBE || s->state == SESSION_UP)
		probe_answer(s, task, status);
	scsi_free_scsi_task(task);
	if (s->state == SESSION_PROBE || (s->state == SESSION_UP && s->again))
		ask(s);
}

void session_look(struct session *s)
{
	if (s->state != SESSION_UP || s->probe)
		return;
	s->again = true;
	s->tries = 0;
	s->step = STEP_CAPACITY;
	ask(s);
}

/* ---- login ---- */

static void logged_in(struct iscsi_context *ctx, int status, void *data, void *own)
{
	struct session *s = own;

	(void)data;
	if (s->state != SESSION_LOGIN)
		return;
	if (status == SCSI_STATUS_REDIRECT) {
		session_dead(s,
			     "login: the target has moved to %.100s; expected it at this address",
			     iscsi_get_target_address(ctx));
		return;
	}
	if (status != SCSI_STATUS_GOOD) {
		session_dead(s, "login: %s", iscsi_get_error(ctx));
		return;
	}
	s->state = SESSION_PROBE;
	ask(s);
}

static void connected(struct iscsi_context *ctx, int status, void *data, void *own)
{
	struct session *s = own;

	(void)data;
	if (s->state != SESSION_CONNECT)
		return;
	s->state = SESSION_LOGIN;
	if (status != SCSI_STATUS_GOOD || iscsi_login_async(ctx, logged_in, s))
		session_dead(s, "connection: %s", iscsi_get_error(ctx));
}

static int set_target(struct session *s, uint32_t isid, uint16_t lane)
{
	const struct target *t = s->target;

	iscsi_set_noautoreconnect(s->ctx, 1);
	if (iscsi_set_isid_random(s->ctx, isid, lane) || iscsi_set_targetname(s->ctx, t->name) ||
	    iscsi_set_session_type(s->ctx, ISCSI_SESSION_NORMAL) ||
	    iscsi_set_header_digest(s->ctx, ISCSI_HEADER_DIGEST_NONE))
		return -1;
	return t->user[0] ? iscsi_set_initiator_username_pwd(s->ctx, t->user, t->password) : 0;
}

void session_begin(struct session *s, const struct target *t, uint32_t isid, uint16_t lane, int fd)
{
	memset(s, 0, offsetof(struct session, filter));
	filter_begin(&s->filter);
	s->target = t;
	s->state = SESSION_CONNECT;
	s->began_ns = module_now();
	s->lun.cache = true;
	s->why[0] = 0;
	s->ctx = iscsi_create_context(t->initiator);
	handed_socket(fd);
	if (!s->ctx || set_target(s, isid, lane) ||
	    iscsi_connect_async(s->ctx, "supervisor", connected, s))
		session_dead(s, "%s", s->ctx ? iscsi_get_error(s->ctx) : "out of memory");
	fd = handed_back();
	if (fd >= 0)
		close(fd);
	if (!s->ctx)
		s->state = SESSION_NONE;
}

/* ---- its socket ---- */

int session_fd(const struct session *s)
{
	return s->state == SESSION_NONE ? -1 : iscsi_get_fd(s->ctx);
}

short session_events(const struct session *s)
{
	return s->state == SESSION_NONE ? 0 : (short)iscsi_which_events(s->ctx);
}

/* Its words come before what libiscsi makes of EPROTO. */
static void session_wrong(struct session *s)
{
	s->state = SESSION_LOGIN;
	session_dead(s, "the target is refused: %s", s->filter.why);
}

void session_serve(struct session *s, short revents)
{
	int rc;

	if (s->state == SESSION_NONE || s->state == SESSION_DEAD)
		return;
	handed_reads(READS);
	handed_watch(filter_bytes, &s->filter);
	filter_turn(&s->filter);
	rc = iscsi_service(s->ctx, revents);
	handed_watch(NULL, NULL);
	/* libiscsi answers all commands, and says that it went well. */
	if (s->filter.why)
		session_wrong(s);
	else if (rc)
		session_dead(s, "%s", iscsi_get_error(s->ctx));
	else if (s->state >= SESSION_PROBE && !iscsi_is_logged_in(s->ctx))
		session_dead(s, "the target has asked for the end of the session");
	else if (s->state == SESSION_PROBE && !iscsi_queue_length(s->ctx))
		session_dead(s, "%s: %s", steps[s->step].what, iscsi_get_error(s->ctx));
}
