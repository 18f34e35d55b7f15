/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-pager. See insula/pager.h for what it talks, ram.h for what it does. Its stages are in
 * devices/program.h: the jail is closed before the first byte of a snapshot is read.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "devices/program.h"
#include "ram.h"

#define SYNC_MAX 4

struct pager {
	struct ram ram;
	uint32_t job;
	bool done;
};

static int pager_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_pager *m = start;

	if (m->job != PAGER_SAVE && m->job != PAGER_LOAD)
		return err_set(e, -EINVAL, "job %u", m->job);
	if (f->n[START_OWN] < 2 || f->n[START_OWN] > 1 + RAM_CHAIN)
		return err_set(e, -EINVAL, "%u descriptors", f->n[START_OWN]);
	return 0;
}

static int pager_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		      const char **step, struct err *e)
{
	const struct msg_start_pager *m = start;
	const int *fds = f->fd[START_OWN];
	struct pager *p = dev;

	(void)h;
	*step = "memory";
	p->job = m->job;
	return ram_open(&p->ram, fds[0], m->size, fds + 1, f->n[START_OWN] - 1, e);
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
	rule_fd(l, SYS_pwrite64, to, "the snapshot, or guest memory");
	rule_fd(l, SYS_lseek, p->ram.mem, "where guest memory has holes");
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

static int pager_go(struct pager *p)
{
	struct err e;
	int rc = p->done                ? err_set(&e, -EPROTO, "once is enough")
		 : p->job == PAGER_SAVE ? ram_save(&p->ram, &e)
					: ram_load(&p->ram, &e);

	p->done = true;
	return rc ? pager_refuse(p, p->job == PAGER_SAVE ? "save" : "restore", &e) : pager_done(p);
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

static int pager_loop(void *dev)
{
	struct pager *p = dev;
	int fds[MSG_MAX_FDS], rc = 0;
	enum msg_type type;
	unsigned nfds;
	char body[16];
	size_t len;

	while (!rc) {
		rc = msg_recv(MSG_CHANNEL_FD, &type, body, sizeof(body), &len, fds, &nfds);
		if (rc)
			return rc == -EPIPE ? 0 : rc;
		if (type == MSG_PAGER_GO && !len && !nfds)
			rc = pager_go(p);
		else if (type == MSG_PAGER_SYNC && !len && nfds >= 1 && nfds <= SYNC_MAX)
			rc = pager_sync(p, fds, nfds);
		else
			rc = -EPROTO;
	}
	return rc;
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
