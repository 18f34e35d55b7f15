/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-pager. See insula/pager.h for what it talks, ram.h for what it does. Its stages are in
 * devices/program.h: the jail is closed before the first byte of a snapshot is read.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "devices/program.h"
#include "live.h"
#include "ram.h"
#include "serve.h"

#define SYNC_MAX 4

struct pager {
	struct ram ram;
	struct serve serve; /* PAGER_SERVE */
	struct live live;   /* PAGER_SAVE and PAGER_LIVE */
	uint32_t job, flags;
	bool done;
};

static int pager_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_pager *m = start;

	unsigned order = m->flags & PAGER_ORDER ? 1 : 0;

	if (m->job < PAGER_SAVE || m->job > PAGER_SERVE)
		return err_set(e, -EINVAL, "job %u", m->job);
	if ((m->flags & ~(uint32_t)(PAGER_ORDER | PAGER_LIVE)) ||
	    (order && m->job != PAGER_SERVE) || (m->flags & PAGER_LIVE && m->job != PAGER_SAVE))
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	if (f->n[START_OWN] < 2 + order || f->n[START_OWN] > 1 + RAM_CHAIN + order)
		return err_set(e, -EINVAL, "%u descriptors", f->n[START_OWN]);
	return 0;
}

static int pager_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		      const char **step, struct err *e)
{
	const struct msg_start_pager *m = start;
	const int *fds = f->fd[START_OWN];
	bool order = m->flags & PAGER_ORDER;
	unsigned n = f->n[START_OWN];
	struct pager *p = dev;
	int rc;

	(void)h;
	*step = "memory";
	p->job = m->job;
	p->flags = m->flags;
	rc = ram_open(&p->ram, fds[0], m->size, fds + 1, n - 1 - order, e);
	if (!rc && p->job == PAGER_SERVE)
		rc = serve_open(&p->serve, &p->ram, order ? fds[n - 1] : -1, e);
	if (!rc && p->flags & PAGER_LIVE)
		rc = live_open(&p->live, &p->ram, e);
	return rc;
}

static void rule_request(struct rule_list *l, unsigned long request, const char *why)
{
	rule_arg(l, SYS_ioctl, (struct jail_arg){.index = 1, .cmp = JAIL_EQ, .value = request},
		 (struct jail_arg){0}, why);
}

/* It gets descriptors of userfaultfd, and has no other one on which these mean anything. */
static void pager_serve_rules(const struct pager *p, struct rule_list *l)
{
	rule_any(l, SYS_read, "which page somebody waits for");
	rule_any(l, SYS_poll, "wait for that, or for the channel");
	rule_any(l, SYS_ppoll, "the same, as some C libraries call it");
	rule_request(l, UFFDIO_COPY, "put a page there");
	rule_request(l, UFFDIO_ZEROPAGE, "put zeros there");
	rule_request(l, UFFDIO_WAKE, "it is there already");
	rule_request(l, UFFDIO_UNREGISTER, "the kernel has to put zeros there from now on");
	if (p->serve.order >= 0)
		rule_fd(l, SYS_pwrite64, p->serve.order, "the working set");
}

static void pager_live_rules(struct rule_list *l)
{
	rule_any(l, SYS_read, "which page somebody wants to write to");
	rule_any(l, SYS_poll, "wait for that, or for the channel");
	rule_any(l, SYS_ppoll, "the same, as some C libraries call it");
	rule_request(l, UFFDIO_REGISTER, "whose writes it may stop");
	rule_request(l, UFFDIO_WRITEPROTECT, "stop them, and let them go");
}

static void pager_rules(const void *dev, struct rule_list *l)
{
	const struct pager *p = dev;
	int to = p->job == PAGER_SAVE ? p->ram.file[p->ram.n - 1].fd : p->ram.mem;

	rule_any(l, SYS_pread64, "guest memory and the files of a snapshot");
	rule_any(l, SYS_fstat, "the length of a file");
	rule_any(l, SYS_newfstatat, "the same, as newer C libraries call it; the root is empty");
	rule_any(l, SYS_close, "what was synced");
	rule_any(l, SYS_fsync, "make what was written last");
	if (p->job == PAGER_SERVE) {
		pager_serve_rules(p, l);
		return;
	}
	rule_fd(l, SYS_pwrite64, to, "the snapshot, or guest memory");
	rule_fd(l, SYS_lseek, p->ram.mem, "where guest memory has holes");
	if (p->flags & PAGER_LIVE)
		pager_live_rules(l);
}

static int pager_done(const struct pager *p)
{
	struct msg_pager_done m = {p->ram.pages};

	return msg_send(MSG_CHANNEL_FD, MSG_PAGER_DONE, &m, sizeof(m), NULL, 0);
}

/* Of a snapshot that is read the files are to blame; one that is written is this host's. */
static int pager_refuse(const struct pager *p, const char *step, const struct err *e)
{
	msg_fail(MSG_CHANNEL_FD, step, e->code, e->text,
		 p->job == PAGER_LOAD || e->code == -EPROTO);
	return e->code;
}

static const char *const step_of[] = {
	[PAGER_SAVE] = "save", [PAGER_LOAD] = "restore", [PAGER_SERVE] = "restore"};

static int pager_work(struct pager *p, struct err *e)
{
	return p->job == PAGER_SAVE   ? ram_save(&p->ram, e)
	       : p->job == PAGER_LOAD ? ram_load(&p->ram, e)
				      : ram_check(&p->ram, e);
}

/* The VM may go on; what follows is pager_turn(). */
static int pager_freeze(struct pager *p, struct err *e)
{
	int rc = live_freeze(&p->live, e);

	if (!rc && (rc = msg_send(MSG_CHANNEL_FD, MSG_PAGER_FROZEN, NULL, 0, NULL, 0)))
		err_sys(e, rc, "channel");
	return rc ? rc : ram_save_begin(&p->ram, e);
}

static int pager_go(struct pager *p)
{
	struct err e;
	bool live = p->flags & PAGER_LIVE;
	int rc = p->done ? err_set(&e, -EPROTO, "once is enough")
		 : live  ? pager_freeze(p, &e)
			 : pager_work(p, &e);

	p->done = true;
	if (!rc && p->job == PAGER_SERVE)
		serve_begin(&p->serve);
	return rc ? pager_refuse(p, step_of[p->job], &e) : live ? 0 : pager_done(p);
}

static int pager_sync(struct pager *p, const int *fds, unsigned n)
{
	struct err e;
	int rc = 0;

	for (unsigned i = 0; i < n; i++) {
		if (!rc && fsync(fds[i]))
			rc = err_sys(&e, -errno, "what was written cannot be made to last");
		close(fds[i]);
	}
	return rc ? pager_refuse(p, "sync", &e) : pager_done(p);
}

static int pager_faults(struct pager *p, const struct msg_faults *m, int fd)
{
	struct err e;
	int rc = p->job == PAGER_SERVE ? serve_add(&p->serve, fd, m->offset, m->addr, m->len, &e)
				       : live_add(&p->live, fd, m->offset, m->addr, m->len, &e);

	return rc ? pager_refuse(p, "faults", &e) : 0;
}

/* 0; or it is over, in order if the channel has ended. */
static int pager_hear(struct pager *p)
{
	union {
		struct msg_faults faults;
		char bytes[32];
	} b;
	int fds[MSG_MAX_FDS], rc;
	bool serves = p->job == PAGER_SERVE && p->done;
	bool adds = serves || (p->flags & PAGER_LIVE && !p->done);
	enum msg_type type;
	unsigned nfds;
	size_t len;

	rc = msg_recv(MSG_CHANNEL_FD, &type, &b, sizeof(b), &len, fds, &nfds);
	if (rc)
		return rc;
	if (type == MSG_PAGER_GO && !len && !nfds)
		return pager_go(p);
	if (type == MSG_PAGER_SYNC && !len && nfds >= 1 && nfds <= SYNC_MAX)
		return pager_sync(p, fds, nfds);
	if (type == MSG_PAGER_FAULTS && len == sizeof(b.faults) && nfds == 1 && adds)
		return pager_faults(p, &b.faults, fds[0]);
	if (type == MSG_PAGER_FILL && !len && !nfds && serves)
		return serve_fill(&p->serve), 0;
	if (type == MSG_STOP && !len && !nfds && serves) {
		serve_stop(&p->serve);
		return msg_send(MSG_CHANNEL_FD, MSG_STOPPED, NULL, 0, NULL, 0);
	}
	return -EPROTO;
}

/* Somebody's page, or something to do ahead; then the channel. */
static int pager_turn(struct pager *p)
{
	bool serves = p->job == PAGER_SERVE, heard = false;
	bool *whole = serves ? &p->serve.whole : &p->live.whole;
	struct err e;
	int rc;

	if (!p->done || (!serves && (!(p->flags & PAGER_LIVE) || p->live.whole)))
		return pager_hear(p);
	rc = serves ? serve_turn(&p->serve, MSG_CHANNEL_FD, &heard, &e)
		    : live_turn(&p->live, MSG_CHANNEL_FD, &heard, &e);
	if (rc)
		return pager_refuse(p, serves ? "serve" : "save", &e);
	if (*whole)
		rc = pager_done(p);
	p->serve.whole = false;
	return rc ? rc : heard ? pager_hear(p) : 0;
}

static _Noreturn void wait_for_the_kill(void)
{
	static _Atomic uint32_t never;

	for (;;)
		word_wait(&never, 0);
}

/* If we ended with messages that were not read, the kernel would throw away what we said last. Who
 * hears it ends us, or sends nothing more. */
static void drain(void)
{
	struct pollfd p = {.fd = MSG_CHANNEL_FD, .events = POLLIN};
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	char body[64];
	unsigned nfds;
	size_t len;

	while (poll(&p, 1, 1000) == 1 &&
	       !msg_recv(MSG_CHANNEL_FD, &type, body, sizeof(body), &len, fds, &nfds)) {
		while (nfds)
			close(fds[--nfds]);
	}
}

static int pager_loop(void *dev)
{
	struct pager *p = dev;
	int rc = 0;

	while (!rc)
		rc = pager_turn(p);
	/* We may hold the last descriptors of pages that are missing: if they were closed before
	 * whoever waits for these is dead too, he would go on with zeros. */
	if (rc == -EPIPE && p->job == PAGER_SERVE && p->serve.ranges.n)
		wait_for_the_kill();
	if (p->job == PAGER_SERVE || p->flags & PAGER_LIVE)
		drain();
	return rc == -EPIPE ? 0 : rc;
}

int main(void)
{
	static struct pager pager;

	helper_main(&(struct helper_program){
		.start = MSG_START_PAGER,
		.start_size = sizeof(struct msg_start_pager),
		.log_level = offsetof(struct msg_start_pager, log_level),
		.dev = &pager,
		.check = pager_check,
		.open = pager_open,
		.rules = pager_rules,
		.loop = pager_loop,
	});
}
