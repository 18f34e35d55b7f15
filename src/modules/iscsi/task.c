/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests as SCSI commands: which command a request is, and what the answer makes of it. A read
 * or a write is one command; what is discarded or zeroed is sent in pieces, as long as the target
 * takes. See task.h.
 */
#include <errno.h>
#include <stddef.h>

#include "lane.h"
#include "task.h"

#define PIECE (4u << 20)       /* bytes of one read or write, at most */
#define SAME_PIECE (64u << 20) /* of one WRITE SAME, if the target says nothing: some write zeros */
#define AGAIN_NS 50000000ull   /* a target that is busy */
#define ATTENTIONS 16u         /* in a row, before it is called busy */
#define SENSE_MIN 16           /* bytes, with the two that say how many */

_Static_assert(sizeof(struct scsi_iovec) == sizeof(struct iovec) &&
		       offsetof(struct scsi_iovec, iov_len) == offsetof(struct iovec, iov_len),
	       "one is the other");

/* module_req.own[]: the command; the lane; what became of it; and of those that are sent in pieces
 * how many bytes are done. While such a piece flies, REQ_RESULT is its length. */
enum { REQ_TASK, REQ_LANE, REQ_RESULT, REQ_DONE };

static uint64_t done_of(const struct module_req *r)
{
	return (uint64_t)(uintptr_t)r->own[REQ_DONE];
}

/* ---- answers ---- */

static int sense(struct iscsi_lane *l, const struct module_req *r, const struct scsi_task *t)
{
	/* libiscsi looks at sense data that did not come. */
	if (t->datain.size < SENSE_MIN)
		return -EIO;
	if (session_unit_attention(t)) {
		/* 29h: it was reset. A cache that it had may be gone. */
		if (t->sense.ascq >> 8 == 0x29)
			module_lost(l->l);
		if (t->sense.ascq == SCSI_SENSE_ASCQ_CAPACITY_DATA_HAS_CHANGED)
			session_look(&l->s);
		if (++l->attentions > ATTENTIONS)
			l->again_ns = module_now() + AGAIN_NS;
		return TASK_AGAIN;
	}
	switch (t->sense.key) {
	case SCSI_SENSE_RECOVERED_ERROR:
		return 0;
	case SCSI_SENSE_NOT_READY:
		if (t->sense.ascq != 0x0401 && t->sense.ascq != 0x040a)
			return -EIO;
		l->again_ns = module_now() + AGAIN_NS;
		return TASK_AGAIN;
	case SCSI_SENSE_ILLEGAL_REQUEST:
		if (r->op != MODULE_ZEROES && r->op != MODULE_DISCARD)
			return -EIO;
		l->no_same |= r->op == MODULE_ZEROES;
		return -EOPNOTSUPP;
	case SCSI_SENSE_DATA_PROTECTION:
		return t->sense.ascq == 0x2707 ? -ENOSPC : -EROFS;
	default:
		return -EIO;
	}
}

static int verdict(struct iscsi_lane *l, const struct module_req *r, const struct scsi_task *t,
		   int status)
{
	switch (status) {
	case SCSI_STATUS_GOOD:
		if ((r->op == MODULE_READ || r->op == MODULE_WRITE) && t->residual &&
		    t->residual_status == SCSI_RESIDUAL_UNDERFLOW)
			return -EIO;
		l->attentions = 0;
		return 0;
	case SCSI_STATUS_CHECK_CONDITION:
		return sense(l, r, t);
	case SCSI_STATUS_BUSY:
	case SCSI_STATUS_TASK_SET_FULL:
	case SCSI_STATUS_TASK_ABORTED:
		l->again_ns = module_now() + AGAIN_NS;
		return TASK_AGAIN;
	case SCSI_STATUS_CANCELLED:
	case SCSI_STATUS_ERROR:
		return TASK_ENDED;
	default:
		return -EIO;
	}
}

/* libiscsi is in the middle of something: take it down, and no more. */
static void task_answered(struct iscsi_context *ctx, int status, void *data, void *own)
{
	struct module_req *r = own;
	struct iscsi_lane *l = r->own[REQ_LANE];
	struct scsi_task *t = r->own[REQ_TASK];
	int res = verdict(l, r, t, status);

	(void)data;
	if (res == TASK_ENDED)
		session_dead(&l->s, "%s", iscsi_get_error(ctx));
	scsi_free_scsi_task(t);
	r->own[REQ_TASK] = NULL;
	if (!res && (r->op == MODULE_DISCARD || r->op == MODULE_ZEROES)) {
		r->own[REQ_DONE] = (void *)(uintptr_t)(done_of(r) + (uintptr_t)r->own[REQ_RESULT]);
		res = done_of(r) < r->len ? TASK_REST : 0;
	}
	r->own[REQ_RESULT] = (void *)(intptr_t)res;
	(void)queue_take_out(&l->flying, r);
	queue_put(&l->answered, r);
}

/* ---- commands ---- */

static int send_task(struct iscsi_lane *l, struct module_req *r, struct scsi_task *t)
{
	if (!t)
		return -ENOMEM;
	r->own[REQ_TASK] = t;
	if (!iscsi_scsi_command_async(l->s.ctx, session_lun(&l->s), t, task_answered, NULL, r))
		return 0;
	scsi_free_scsi_task(t);
	r->own[REQ_TASK] = NULL;
	return -ENOMEM;
}

/* libiscsi cuts the first and the last piece for the length of a system call, and puts them back. */
static struct scsi_iovec *pieces(const struct module_req *r)
{
	return (struct scsi_iovec *)(uintptr_t)r->iov;
}

static int send_read(struct iscsi_lane *l, struct module_req *r)
{
	const int block = (int)l->s.lun.logical;
	uint64_t lba = r->off / (unsigned)block;
	uint32_t len = (uint32_t)r->len;
	struct scsi_task *t = lba + len / (unsigned)block > UINT32_MAX
				      ? scsi_cdb_read16(lba, len, block, 0, 0, 0, 0, 0)
				      : scsi_cdb_read10((uint32_t)lba, len, block, 0, 0, 0, 0, 0);

	if (t)
		scsi_task_set_iov_in(t, pieces(r), (int)r->niov);
	return send_task(l, r, t);
}

static int send_write(struct iscsi_lane *l, struct module_req *r)
{
	const int block = (int)l->s.lun.logical;
	uint64_t lba = r->off / (unsigned)block;
	uint32_t len = (uint32_t)r->len;
	struct scsi_task *t =
		lba + len / (unsigned)block > UINT32_MAX
			? scsi_cdb_write16(lba, len, block, 0, 0, r->fua, 0, 0)
			: scsi_cdb_write10((uint32_t)lba, len, block, 0, 0, r->fua, 0, 0);

	if (t)
		scsi_task_set_iov_out(t, pieces(r), (int)r->niov);
	return send_task(l, r, t);
}

static int send_flush(struct iscsi_lane *l, struct module_req *r)
{
	return send_task(l, r, scsi_cdb_synchronizecache10(0, 0, 0, 0));
}

/* The next piece of one that is sent in pieces. */
static uint32_t next_blocks(const struct iscsi_lane *l, struct module_req *r, uint64_t most,
			    uint64_t *lba)
{
	uint64_t n = (r->len - done_of(r)) / l->s.lun.logical;

	*lba = (r->off + done_of(r)) / l->s.lun.logical;
	if (most && n > most)
		n = most;
	if (n > INT32_MAX)
		n = INT32_MAX;
	r->own[REQ_RESULT] = (void *)(uintptr_t)(n * l->s.lun.logical);
	return (uint32_t)n;
}

static int send_same(struct iscsi_lane *l, struct module_req *r, bool unmap)
{
	static unsigned char zeros[4096];
	const struct lun *lun = &l->s.lun;
	uint64_t lba, most = lun->max_same ? lun->max_same : SAME_PIECE / lun->logical;
	uint32_t n = next_blocks(l, r, most, &lba);

	r->own[REQ_TASK] =
		iscsi_writesame16_task(l->s.ctx, session_lun(&l->s), lba, zeros, lun->logical, n, 0,
				       unmap, 0, 0, task_answered, r);
	return r->own[REQ_TASK] ? 0 : -ENOMEM;
}

static int send_unmap(struct iscsi_lane *l, struct module_req *r)
{
	struct unmap_list one;

	one.num = next_blocks(l, r, l->s.lun.max_unmap, &one.lba);
	r->own[REQ_TASK] =
		iscsi_unmap_task(l->s.ctx, session_lun(&l->s), 0, 0, &one, 1, task_answered, r);
	return r->own[REQ_TASK] ? 0 : -ENOMEM;
}

static int send_discard(struct iscsi_lane *l, struct module_req *r)
{
	if (l->s.lun.unmap && l->s.lun.max_unmap)
		return send_unmap(l, r);
	return l->s.lun.same ? send_same(l, r, true) : -EOPNOTSUPP;
}

/* It cannot be made stable by itself: one that must be is written. */
static int send_zeroes(struct iscsi_lane *l, struct module_req *r)
{
	if (r->fua || l->no_same)
		return -EOPNOTSUPP;
	return send_same(l, r, r->unmap && l->s.lun.thin && l->s.lun.same);
}

int task_send(struct iscsi_lane *l, struct module_req *r)
{
	static int (*const sends[])(struct iscsi_lane * l, struct module_req * r) = {
		[MODULE_READ] = send_read,     [MODULE_WRITE] = send_write,
		[MODULE_FLUSH] = send_flush,   [MODULE_DISCARD] = send_discard,
		[MODULE_ZEROES] = send_zeroes,
	};
	const uint64_t most = l->s.lun.max_io * l->s.lun.logical;
	const uint32_t piece = most && most < PIECE ? (uint32_t)most : PIECE;

	if (r->len > piece && (r->op == MODULE_READ || r->op == MODULE_WRITE))
		r->len = piece;
	r->own[REQ_LANE] = l;
	return sends[r->op](l, r);
}

int task_outcome(const struct module_req *r)
{
	return (int)(intptr_t)r->own[REQ_RESULT];
}

void task_drop(struct module_req *r)
{
	scsi_free_scsi_task(r->own[REQ_TASK]);
	r->own[REQ_TASK] = NULL;
}
