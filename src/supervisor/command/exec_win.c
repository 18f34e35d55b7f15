/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-exec and its streams on Windows: pipes of messages. See exec_os.h. */
#include "os/win/win.h"

#include <errno.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestproto.h>

#include "exec_os.h"
#include "supervisor/vm.h"

#define PAGE 4096u

/* A section, which is memory and never a file's: a command's environment may hold secrets. */
int exec_os_seal(const void *body, size_t len, struct err *e)
{
	int fd = shm_create("insula-command", (len + PAGE - 1) / PAGE * PAGE, e);
	void *at;

	if (fd < 0)
		return fd;
	if (shm_map(fd, len, 0, len, true, &at, e)) {
		fd_close(&fd);
		return -ENOMEM;
	}
	memcpy(at, body, len);
	shm_unmap(at, len);
	return fd;
}

int exec_os_null(void)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), NULL, TRUE};
	HANDLE h = CreateFileW(L"NUL", GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, &sa,
			       OPEN_EXISTING, 0, NULL);

	return h == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : handle_fd(h);
}

/* ---- streams ---- */

/* *theirs, for insula-exec, can be inherited; p->stream is insula-vsock's. */
static int make_stream(struct exec_proc *p, HANDLE *theirs, struct err *e)
{
	HANDLE ours;
	int rc = pipe_pair(true, &ours, theirs, e);

	if (!rc)
		p->stream = handle_fd(ours);
	return rc;
}

int exec_os_another(struct exec_proc *p)
{
	HANDLE theirs;
	struct err e;
	int fd, rc = make_stream(p, &theirs, &e);

	if (rc)
		return rc;
	fd = child_give(p->child, theirs, VSOCK_STREAM_ACCESS);
	if (fd < 0 || child_send(p->child, MSG_EXEC_STREAM, NULL, 0, &fd, 1))
		fd_close(&p->stream);
	return 0;
}

void exec_os_connect(struct vm *vm, struct exec_proc *p)
{
	vsock_stream(&vm_vsock(vm)->child, GP_PORT, fd_handle(p->stream));
	p->stream = -1;
}

/* ---- the process ---- */

int exec_os_launch(struct vm *vm, struct exec_proc *p, const struct exec_order *o, struct err *e)
{
	int fds[] = {-1, o->spec, o->out, o->err, o->in};
	unsigned n = o->msg.flags & EXEC_STDIN ? 5 : 4;
	HANDLE theirs;
	int rc = make_stream(p, &theirs, e);

	(void)vm;
	if (rc)
		return rc;
	fds[0] = handle_fd(theirs);
	child_init_contained(p->child, "insula-exec", "", CONTAIN_HELPER);
	rc = child_spawn(p->child, fds, n, e);
	if (!rc) {
		rc = child_send(p->child, MSG_START_EXEC, &o->msg, sizeof(o->msg), fds, n);
		if (rc)
			err_sys(e, rc, "%s: channel", p->child->name);
	}
	CloseHandle(theirs);
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
