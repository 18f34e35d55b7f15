/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-exec and its streams on Linux: socket pairs. See exec_os.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/guestproto.h>
#include <insula/log.h>

#include "exec_os.h"
#include "supervisor/vm.h"

#define EXEC_THREADS 4 /* main, two writers, reader */
#define EXEC_NOFILE 32

/* A sealed memfd: insula-exec sends it as it is. */
int exec_os_seal(const void *body, size_t len, struct err *e)
{
	int fd = memfile_create("insula-command");
	int rc = fd < 0 ? fd : write_full(fd, body, len);

	if (!rc)
		rc = memfile_seal(&fd);
	if (rc) {
		fd_close(&fd);
		return err_sys(e, rc, "command");
	}
	return fd;
}

int exec_os_null(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* ---- streams ---- */

/* [0] for insula-exec, [1] for insula-vsock. */
static int make_stream(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ? -errno
											: 0;
}

int exec_os_another(struct exec_proc *p)
{
	int pair[2], rc = make_stream(pair);

	if (rc)
		return rc;
	p->stream = pair[1];
	if (child_send(p->child, MSG_EXEC_STREAM, NULL, 0, &pair[0], 1))
		fd_close(&p->stream);
	close(pair[0]);
	return 0;
}

void exec_os_connect(struct vm *vm, struct exec_proc *p)
{
	struct err e;

	if (vsock_stream(vm_vsock(vm), GP_PORT, p->stream, &e))
		log_debug("%s: %s", p->child->name, e.text);
}

/* ---- the process ---- */

static int send_order(struct exec_proc *p, const struct exec_order *o, int stream, struct err *e)
{
	int fds[] = {stream, o->spec, o->out, o->err, o->in};
	unsigned n = o->msg.flags & EXEC_STDIN ? 5 : 4;
	int rc = child_send(p->child, MSG_START_EXEC, &o->msg, sizeof(o->msg), fds, n);

	return rc ? err_sys(e, rc, "%s: channel", p->child->name) : 0;
}

int exec_os_launch(struct vm *vm, struct exec_proc *p, const struct exec_order *o, struct err *e)
{
	int pair[2], rc = make_stream(pair);

	if (rc)
		return err_sys(e, rc, "socketpair");
	p->stream = pair[1];
	rc = child_init_open(p->child, vm->opened.exec_program, "insula-exec", "", EXEC_THREADS,
			     EXEC_NOFILE, e);
	/* The command's output is the user's, who may have it in a file. */
	p->child->os.fsize = JAIL_FSIZE_ANY;
	if (!rc)
		rc = child_spawn(p->child, NULL, 0, e);
	if (!rc)
		rc = send_order(p, o, pair[0], e);
	close(pair[0]);
	return rc;
}

int exec_os_send(struct exec_proc *p, enum msg_type t, const void *body, size_t len)
{
	return child_send(p->child, t, body, len, NULL, 0);
}

void exec_os_kill(struct exec_proc *p)
{
	child_shoot(p->child);
}

void exec_os_free(struct exec_proc *p)
{
	child_free(p->child);
}
