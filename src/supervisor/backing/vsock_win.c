/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's part of a vsock device on Windows. See vsock_win.h. */
#include "vsock_win.h"

#include <aclapi.h>
#include <errno.h>
#include <sddl.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/device/device.h"
#include "vsock_os.h"

#define PREFIX L"\\\\.\\pipe\\"
#define PREFIX_LEN (ARRAY_LEN(PREFIX) - 1)
#define PORT_DIGITS 10
#define PIPE_BYTES 65536
#define RETRY_NS 10000000ull /* nothing tells when a pipe of the host's is free again */

bool vsock_has_path(const struct vsock *v)
{
	return v->name[0];
}

/* ---- the pipe ---- */

/* \\.\pipe\NAME of this computer, with room for the port. */
static int take_name(struct vsock *v, const char *path, struct err *e)
{
	int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, v->name,
				    (int)ARRAY_LEN(v->name) - PORT_DIGITS - 1);

	if (n > (int)PREFIX_LEN + 1 && !_wcsnicmp(v->name, PREFIX, PREFIX_LEN) &&
	    !wcspbrk(v->name + PREFIX_LEN, L"\\/"))
		return 0;
	v->name[0] = 0;
	return err_set(e, -EINVAL,
		       "--vsock: path %.100s; expected the name of a pipe, such as "
		       "\\\\.\\pipe\\NAME",
		       path);
}

static int make_instance(struct vsock *v, bool first, HANDLE *out)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), v->ours, FALSE};

	*out = CreateNamedPipeW(v->name,
				PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED |
					(first ? FILE_FLAG_FIRST_PIPE_INSTANCE : 0),
				PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE |
					PIPE_REJECT_REMOTE_CLIENTS,
				PIPE_UNLIMITED_INSTANCES, PIPE_BYTES, PIPE_BYTES, 0, &sa);
	return *out == INVALID_HANDLE_VALUE ? win_errno(GetLastError()) : 0;
}

/* Wait for somebody who opens it. */
static void listen(struct vsock *v, HANDLE instance)
{
	v->instance = instance;
	ResetEvent(v->ov.hEvent);
	v->ov = (OVERLAPPED){.hEvent = v->ov.hEvent};
	/* Somebody is there already, or has come and gone: both are seen by whoever reads. */
	if (!ConnectNamedPipe(instance, &v->ov) && GetLastError() != ERROR_IO_PENDING)
		SetEvent(v->ov.hEvent);
}

/* Also where no instance is free. */
static bool exists(const struct vsock *v)
{
	return WaitNamedPipeW(v->name, 1) || GetLastError() != ERROR_FILE_NOT_FOUND;
}

static int make_pipe(struct vsock *v, const char *path, struct err *e)
{
	HANDLE first;
	int rc;

	v->ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (!v->ov.hEvent ||
	    !ConvertStringSecurityDescriptorToSecurityDescriptorW(
		    L"D:P(A;;GA;;;OW)S:(ML;;NRNW;;;ME)", SDDL_REVISION_1, &v->ours, NULL))
		return err_set(e, -EIO, "--vsock: error %lu", GetLastError());
	rc = make_instance(v, true, &first);
	if (rc)
		return err_sys(e, rc, "--vsock: %.200s", path);
	listen(v, first);
	return 0;
}

int vsock_open(struct vsock *v, const struct vsock_config *c, bool check_only, struct err *e)
{
	int rc;

	memset(v, 0, sizeof(*v));
	v->cid = c->cid;
	if (!c->path)
		return 0;
	rc = take_name(v, c->path, e);
	if (!rc && exists(v))
		rc = err_set(e, -EADDRINUSE,
			     "--vsock: %.150s: a pipe is in use there; expected a name that "
			     "nobody uses",
			     c->path);
	return rc || check_only ? rc : make_pipe(v, c->path, e);
}

static void drop_instance(struct vsock *v)
{
	DWORD n;

	if (!v->instance)
		return;
	if (CancelIoEx(v->instance, &v->ov))
		GetOverlappedResult(v->instance, &v->ov, &n, TRUE);
	CloseHandle(v->instance);
	v->instance = NULL;
}

void vsock_close(struct vsock *v)
{
	watch_off(&v->client);
	drop_instance(v);
	if (v->ov.hEvent)
		CloseHandle(v->ov.hEvent);
	if (v->ours)
		LocalFree(v->ours);
	v->ov.hEvent = NULL;
	v->ours = NULL;
}

/* ---- clients ---- */

/* One that has died does not read it. One that lives and does not, holds up the whole VM. */
static void vsock_tell(struct child *helper, enum msg_type type, const void *body, size_t len,
		       const int *fds, unsigned nfds)
{
	if (child_send(helper, type, body, len, fds, nfds))
		child_shoot(helper);
}

static void vsock_on_client(void *ctx, unsigned events)
{
	struct vsock *v = ctx;
	HANDLE next, client = v->instance;
	int fd;

	(void)events;
	/* Before the other one goes: the name is never free. */
	if (make_instance(v, false, &next)) {
		log_warn("--vsock: a client is sent away: error %lu", GetLastError());
		DisconnectNamedPipe(client);
		listen(v, client);
		return;
	}
	listen(v, next);
	fd = child_give(v->helper, client, VSOCK_STREAM_ACCESS);
	if (fd >= 0)
		vsock_tell(v->helper, MSG_VSOCK_CLIENT, NULL, 0, &fd, 1);
}

void vsock_stream(struct child *helper, uint32_t port, HANDLE stream)
{
	const struct msg_vsock_stream m = {.port = port};
	int fd = child_give(helper, stream, VSOCK_STREAM_ACCESS);

	if (fd >= 0)
		vsock_tell(helper, MSG_VSOCK_STREAM, &m, sizeof(m), &fd, 1);
}

/* ---- what the guest reaches ---- */

/* Names belong to whoever comes first, and anybody can come: whoever made the pipe must be us, or
 * somebody who can do anything here. */
static bool may_own(PSID owner)
{
	union {
		TOKEN_USER user;
		uint8_t room[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
	} me;
	HANDLE token;
	DWORD n;
	bool known;

	if (IsWellKnownSid(owner, WinBuiltinAdministratorsSid) ||
	    IsWellKnownSid(owner, WinLocalSystemSid))
		return true;
	if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token))
		return false;
	known = GetTokenInformation(token, TokenUser, &me, sizeof(me), &n);
	CloseHandle(token);
	return known && EqualSid(owner, me.user.User.Sid);
}

/* Below medium integrity, as insula-vmm is: it has our user, and is not us. No label means medium.
 */
static bool is_low(PACL sacl)
{
	for (DWORD i = 0; sacl && i < sacl->AceCount; i++) {
		SYSTEM_MANDATORY_LABEL_ACE *ace;
		PSID sid;

		if (!GetAce(sacl, i, (void **)&ace))
			return true;
		sid = &ace->SidStart;
		if (ace->Header.AceType == SYSTEM_MANDATORY_LABEL_ACE_TYPE &&
		    *GetSidSubAuthority(sid, (DWORD)(*GetSidSubAuthorityCount(sid) - 1)) <
			    SECURITY_MANDATORY_MEDIUM_RID)
			return true;
	}
	return false;
}

static bool is_ours(HANDLE pipe)
{
	PSECURITY_DESCRIPTOR sd = NULL;
	PSID owner = NULL;
	PACL label = NULL;
	struct err e;
	bool ours;

	if (GetSecurityInfo(pipe, SE_KERNEL_OBJECT,
			    OWNER_SECURITY_INFORMATION | LABEL_SECURITY_INFORMATION, &owner, NULL,
			    NULL, &label, &sd))
		return false;
	/* Wine knows no owners of pipes. */
	ours = owner ? may_own(owner) && !is_low(label)
		     : !contain_missing(&e, "a pipe", "it has no owner");
	LocalFree(sd);
	return ours;
}

/* The server learns nothing of us (anonymous), and reads what we write by messages if it has made
 * its pipe so. */
static int connect_to(const struct vsock *v, uint32_t port, HANDLE *out)
{
	wchar_t name[ARRAY_LEN(v->name) + PORT_DIGITS + 1];
	DWORD mode = PIPE_READMODE_MESSAGE;

	swprintf(name, ARRAY_LEN(name), L"%ls_%u", v->name, port);
	*out = CreateFileW(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
			   FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS, NULL);
	if (*out == INVALID_HANDLE_VALUE)
		return GetLastError() == ERROR_PIPE_BUSY ? -EAGAIN : win_errno(GetLastError());
	if (!is_ours(*out)) {
		CloseHandle(*out);
		return -EPERM;
	}
	SetNamedPipeHandleState(*out, &mode, NULL, NULL); /* fails for a pipe of bytes */
	return 0;
}

/* An honest helper closes as many as it gets. */
static bool has_too_many(struct child *helper)
{
	DWORD n;

	return GetProcessHandleCount(helper->os.box.process, &n) && n > VSOCK_WIN_CONNS + 512;
}

/* False: all instances of that pipe are in use. */
static bool vsock_answer(struct vsock *v, struct child *helper, const struct vsock_asked *k)
{
	struct msg_vsock_connected a = {.id = k->q.id};
	HANDLE pipe;
	int fd = -ENETUNREACH;

	if (vsock_has_path(v))
		fd = connect_to(v, k->q.port, &pipe);
	if (fd == -EAGAIN && clock_ns() < k->limit_ns)
		return false;
	if (fd == 0 && has_too_many(helper)) {
		CloseHandle(pipe);
		fd = -EMFILE;
	}
	if (fd == 0)
		fd = child_give(helper, pipe, VSOCK_STREAM_ACCESS);
	if (fd < 0) {
		log_debug("%s: port %u: %s", helper->name, k->q.port, strerror(-fd));
		a.error = fd;
	}
	vsock_tell(helper, MSG_VSOCK_CONNECTED, &a, sizeof(a), &fd, fd >= 0);
	return true;
}

bool vsock_asked(struct vsock *v, struct child *helper, const struct msg_vsock_connect *q)
{
	const struct vsock_asked k = {*q, clock_ns() + VSOCK_BUSY_NS};

	if (v->nasked == VSOCK_MAX_ASKED)
		return false;
	if (vsock_answer(v, helper, &k))
		return true;
	v->asked[v->nasked++] = k;
	v->retry_ns = clock_ns() + RETRY_NS;
	return true;
}

/* ---- for dev_vsock.c ---- */

int vsock_reach(struct vsock *v, int *own, int *once, struct err *e)
{
	(void)own;
	(void)once;
	(void)e;
	return vsock_has_path(v) ? VSOCK_REACHES : 0;
}

uint32_t vsock_conns(const struct device *d)
{
	(void)d;
	return VSOCK_WIN_CONNS;
}

bool vsock_wanted(struct device *d, const struct msg_vsock_connect *q)
{
	return vsock_asked(d->back.vsock, &d->child, q);
}

void vsock_serves(struct device *d, struct loop *l, bool serves)
{
	struct vsock *v = d->back.vsock;

	watch_off(&v->client);
	v->helper = serves ? &d->child : NULL;
	v->nasked = 0; /* the questions of a helper that has gone are nobody's */
	v->retry_ns = 0;
	if (serves && v->instance)
		watch_on(l, &v->client, handle_fd(v->ov.hEvent), WATCH_IN, vsock_on_client, v);
}

uint64_t vsock_due(const struct device *d)
{
	return d->child.state == CHILD_READY ? d->back.vsock->retry_ns : 0;
}

void vsock_tend(struct device *d)
{
	struct vsock *v = d->back.vsock;
	unsigned left = 0;

	for (unsigned i = 0; i < v->nasked; i++) {
		if (!vsock_answer(v, &d->child, &v->asked[i]))
			v->asked[left++] = v->asked[i];
	}
	v->nasked = left;
	v->retry_ns = left ? clock_ns() + RETRY_NS : 0;
}
