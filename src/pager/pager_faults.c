/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-pager does with userfaultfd(2), and its system calls. See pager.h. */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "pager.h"

/* ---- the jail ---- */

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

void pager_rules(const void *dev, struct rule_list *l)
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

/* ---- memory that is filled, or frozen ---- */

int pager_faults_open(struct pager *p, int order, struct err *e)
{
	int rc = p->job == PAGER_SERVE ? serve_open(&p->serve, &p->ram, order, e) : 0;

	return !rc && p->flags & PAGER_LIVE ? live_open(&p->live, &p->ram, e) : rc;
}

int pager_freeze(struct pager *p, struct err *e)
{
	int rc = live_freeze(&p->live, e);

	if (!rc && (rc = msg_send(MSG_CHANNEL_FD, MSG_PAGER_FROZEN, NULL, 0, NULL, 0)))
		err_sys(e, rc, "channel");
	return rc ? rc : ram_save_begin(&p->ram, e);
}

void pager_let_go(struct pager *p)
{
	(void)p;
}

void pager_serve(struct pager *p)
{
	serve_begin(&p->serve);
}

void pager_fill(struct pager *p)
{
	serve_fill(&p->serve);
}

void pager_stop(struct pager *p)
{
	serve_stop(&p->serve);
}

int pager_faults(struct pager *p, const struct msg_faults *m, int fd, struct err *e)
{
	return p->job == PAGER_SERVE ? serve_add(&p->serve, fd, m->offset, m->addr, m->len, e)
				     : live_add(&p->live, fd, m->offset, m->addr, m->len, e);
}

bool pager_has_faults(const struct pager *p)
{
	return p->done && (p->job == PAGER_SERVE || (p->flags & PAGER_LIVE && !p->live.whole));
}

int pager_faults_turn(struct pager *p, bool *heard, bool *whole, struct err *e)
{
	bool serves = p->job == PAGER_SERVE;
	int rc = serves ? serve_turn(&p->serve, MSG_CHANNEL_FD, heard, e)
			: live_turn(&p->live, MSG_CHANNEL_FD, heard, e);

	*whole = serves ? p->serve.whole : p->live.whole;
	p->serve.whole = false;
	return rc;
}

/* ---- the end ---- */

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

void pager_faults_end(const struct pager *p, int rc)
{
	/* We may hold the last descriptors of pages that are missing: if they were closed before
	 * whoever waits for these is dead too, he would go on with zeros. */
	if (rc == -EPIPE && p->job == PAGER_SERVE && p->serve.ranges.n)
		wait_for_the_kill();
	if (p->job == PAGER_SERVE || p->flags & PAGER_LIVE)
		drain();
}
