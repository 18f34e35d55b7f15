/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where clients come in: a named pipe of bytes, of this machine alone, which nobody else may have
 * instances of. Who a client is says its token, as the system shows it to the pipe's server; that
 * is asked when it has sent something, so until then it is a guest, of which there are few, and for
 * a short while.
 *
 * The daemon and its VMs run as one user, so whoever is let in gets what that user may do: by
 * default that is the user, SYSTEM and administrators.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "client.h"
#include "conf.h"
#include "daemon.h"
#include "dlog.h"
#include "link.h"
#include "listen.h"
#include "notify.h"
#include "record.h"
#include "watch.h"
#include "win.h"

#include <sddl.h>

#define PIPE_BYTES 65536
#define GUESTS 32
#define GUEST_MS 10000
#define AGAIN_MS 1000
#define OWNERS 4096
#define ADMINS "S-1-5-32-544" /* whose the VMs of SYSTEM and of administrators are */
#define SYSTEM "S-1-5-18"
/* Read and write, but no instances of one's own: that is FILE_APPEND_DATA, and in GENERIC_WRITE. */
#define CLIENT_RIGHTS "0x12019b"

struct guest {
	struct guest *next;
	struct daemon *d;
	struct link *link;
	struct timer *timer;
};

struct door {
	wchar_t name[CONF_PATH_MAX];
	PSECURITY_DESCRIPTOR sd;
	int pipe; /* the instance that waits for a client; -1: none */
	OVERLAPPED ov;
	struct watch *watch;
	struct timer *again;
	struct guest *guests;
	unsigned nguests;
	char (*owner)[SID_LEN]; /* number + 1 is their uid */
	unsigned nowners;
};

/* ---- who ---- */

static int number_of(struct door *k, const char *sid, uint32_t *uid)
{
	char(*more)[SID_LEN];

	if (!strcmp(sid, ADMINS) || !strcmp(sid, SYSTEM)) {
		*uid = 0;
		return 0;
	}
	for (unsigned i = 0; i < k->nowners; i++) {
		*uid = i + 1;
		if (!strcmp(k->owner[i], sid))
			return 0;
	}
	more = k->nowners < OWNERS ? realloc(k->owner, (k->nowners + 1) * sizeof(*more)) : NULL;
	if (!more)
		return -ENOMEM;
	k->owner = more;
	snprintf(more[k->nowners], SID_LEN, "%s", sid);
	*uid = ++k->nowners;
	return 0;
}

int owner_found_again(struct daemon *d, struct owner *who, struct err *e)
{
	PSID sid = NULL;

	if (!who->sid[0] || !ConvertStringSidToSidA(who->sid, &sid))
		return err_set(e, -EINVAL, "record: sid: missing or malformed");
	LocalFree(sid);
	return number_of(d->door, who->sid, &who->uid) ? err_set(e, -ENOMEM, "too many users") : 0;
}

/* An enabled member: an administrator who has not elevated is none. */
static bool is_admin(HANDLE token)
{
	char sid[SECURITY_MAX_SID_SIZE];
	DWORD n = sizeof(sid);
	BOOL member = FALSE;

	return CreateWellKnownSid(WinBuiltinAdministratorsSid, NULL, (PSID)sid, &n) &&
	       CheckTokenMembership(token, (PSID)sid, &member) && member;
}

/* The pipe's descriptor keeps those out too. Contained processes have no business here, ours least
 * of all. */
static bool is_contained(HANDLE token)
{
	union {
		TOKEN_MANDATORY_LABEL label;
		char bytes[sizeof(TOKEN_MANDATORY_LABEL) + SECURITY_MAX_SID_SIZE];
	} u;
	DWORD n, in_container = 1;
	PSID sid;

	if (!GetTokenInformation(token, TokenIntegrityLevel, &u, sizeof(u), &n))
		return true;
	sid = u.label.Label.Sid;
	if (*GetSidSubAuthority(sid, (DWORD)(*GetSidSubAuthorityCount(sid) - 1)) <
	    SECURITY_MANDATORY_MEDIUM_RID)
		return true;
	return !GetTokenInformation(token, TokenIsAppContainer, &in_container, sizeof(in_container),
				    &n) ||
	       in_container;
}

static int read_token(struct door *k, HANDLE token, struct owner *who)
{
	union {
		TOKEN_USER user;
		char bytes[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
	} u;
	char *text;
	DWORD n;

	if (is_contained(token) || !GetTokenInformation(token, TokenUser, &u, sizeof(u), &n) ||
	    !ConvertSidToStringSidA(u.user.User.Sid, &text))
		return -EACCES;
	snprintf(who->sid, sizeof(who->sid), "%s", text);
	LocalFree(text);
	if (is_admin(token) || !strcmp(who->sid, SYSTEM))
		strcpy(who->sid, ADMINS);
	return number_of(k, who->sid, &who->uid);
}

static int identify(struct door *k, const struct link *l, struct owner *who)
{
	HANDLE token;
	int rc;

	*who = (struct owner){0};
	if (!ImpersonateNamedPipeClient(link_pipe(l)))
		return -EACCES;
	if (!OpenThreadToken(GetCurrentThread(), TOKEN_QUERY, TRUE, &token))
		token = NULL;
	if (!RevertToSelf())
		panic("RevertToSelf: error %lu", GetLastError());
	rc = token ? read_token(k, token, who) : -EACCES;
	if (token)
		CloseHandle(token);
	return rc;
}

/* ---- guests ---- */

static void forget(struct guest *g)
{
	struct door *k = g->d->door;
	struct guest **at = &k->guests;

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	k->nguests--;
	timer_cancel(g->timer);
	link_free(g->link);
	free(g);
}

static void on_silence(void *ctx)
{
	struct guest *g = ctx;

	g->timer = NULL;
	g->d->n.refused_clients++;
	forget(g);
}

static void on_first(void *ctx, int events)
{
	struct guest *g = ctx;
	struct daemon *d = g->d;
	struct owner who;

	if (events & UV_DISCONNECT || identify(d->door, g->link, &who)) {
		d->n.refused_clients++;
		forget(g);
		return;
	}
	client_take(d, g->link, &who, NULL);
	g->link = NULL;
	forget(g);
}

static void listen_receive(struct daemon *d, int pipe)
{
	struct door *k = d->door;
	struct guest *g = k->nguests < GUESTS ? calloc(1, sizeof(*g)) : NULL;

	if (!g) {
		d->n.refused_clients++;
		fd_close(&pipe);
		return;
	}
	*g = (struct guest){.next = k->guests, .d = d, .link = link_new(&d->loop, pipe, false)};
	k->guests = g;
	k->nguests++;
	g->timer = g->link ? timer_after(&d->loop, GUEST_MS, on_silence, g) : NULL;
	if (!g->timer) {
		forget(g);
		return;
	}
	(void)link_watch(g->link, on_first, g); /* needs no memory here */
	link_set(g->link, UV_READABLE);
}

/* ---- the pipe ---- */

static void wait_again(struct daemon *d);

static int make_instance(struct door *k, bool first, struct err *e)
{
	SECURITY_ATTRIBUTES sa = {sizeof(sa), k->sd, FALSE};
	HANDLE h =
		CreateNamedPipeW(k->name,
				 PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED |
					 (first ? FILE_FLAG_FIRST_PIPE_INSTANCE : 0),
				 PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_REJECT_REMOTE_CLIENTS,
				 PIPE_UNLIMITED_INSTANCES, PIPE_BYTES, PIPE_BYTES, 0, &sa);
	DWORD error = GetLastError();

	if (h == INVALID_HANDLE_VALUE)
		return first && error == ERROR_ACCESS_DENIED
			       ? err_set(e, -EEXIST, "socket: another program has this pipe")
			       : err_set(e, win_errno(error), "socket: error %lu", error);
	k->pipe = handle_fd(h);
	ResetEvent(k->ov.hEvent);
	if (!ConnectNamedPipe(h, &k->ov)) {
		error = GetLastError();
		/* NO_DATA: it was here, and has gone again. The read will say so. */
		if (error == ERROR_PIPE_CONNECTED || error == ERROR_NO_DATA) {
			SetEvent(k->ov.hEvent);
		} else if (error != ERROR_IO_PENDING) {
			fd_close(&k->pipe);
			return err_set(e, win_errno(error), "socket: error %lu", error);
		}
	}
	watch_set(k->watch, UV_READABLE);
	return 0;
}

static void listen_on_again(void *ctx)
{
	struct daemon *d = ctx;

	d->door->again = NULL;
	wait_again(d);
}

static void wait_again(struct daemon *d)
{
	struct err e;

	if (make_instance(d->door, false, &e)) {
		dlog(LOG_LVL_ERROR, NULL, "%s; tried again in a second", e.text);
		d->door->again = timer_after(&d->loop, AGAIN_MS, listen_on_again, d);
	}
}

/* The next instance is there before this one can go, so the name is always ours. */
static void on_connect(void *ctx, int events)
{
	struct daemon *d = ctx;
	int pipe = d->door->pipe;

	(void)events;
	watch_set(d->door->watch, 0);
	d->door->pipe = -1;
	wait_again(d);
	listen_receive(d, pipe);
}

/* An account that is let in besides: as an ACE. */
static int more_ace(const char *account, char *out, size_t size, struct err *e)
{
	char sid[SECURITY_MAX_SID_SIZE], *text = NULL;
	wchar_t wide[128], domain[256];
	DWORD n = sizeof(sid), nd = ARRAY_LEN(domain);
	PSID given = NULL;
	SID_NAME_USE use;
	bool ok;

	out[0] = 0;
	if (!account[0])
		return 0;
	if (ConvertStringSidToSidA(account, &given))
		ok = ConvertSidToStringSidA(given, &text);
	else
		ok = MultiByteToWideChar(CP_UTF8, 0, account, -1, wide, ARRAY_LEN(wide)) &&
		     LookupAccountNameW(NULL, wide, (PSID)sid, &n, domain, &nd, &use) &&
		     ConvertSidToStringSidA((PSID)sid, &text);
	if (ok)
		snprintf(out, size, "(A;;" CLIENT_RIGHTS ";;;%s)", text);
	LocalFree(given);
	LocalFree(text);
	return ok ? 0
		  : err_set(e, -EINVAL,
			    "socket_group: '%s'; expected the name of an account or a SID",
			    account);
}

int clients_check(const struct conf *c, struct err *e)
{
	char ace[SID_LEN + 32];

	return more_ace(c->socket_group, ace, sizeof(ace), e);
}

int clients_listen(struct daemon *d, struct err *e)
{
	struct door *k = calloc(1, sizeof(*k));
	char ace[SID_LEN + 32];
	int rc;

	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	d->door = k;
	k->pipe = -1;
	rc = more_ace(d->conf.socket_group, ace, sizeof(ace), e);
	if (rc)
		return rc;
	k->sd = own_descriptor(false, ace, e);
	if (!k->sd)
		return e->code;
	if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, d->conf.socket, -1, k->name,
				 CONF_PATH_MAX))
		return err_set(e, -EINVAL, "socket: '%s'", d->conf.socket);
	k->ov.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
	if (k->ov.hEvent)
		k->watch = watch_new(&d->loop, handle_fd(k->ov.hEvent), on_connect, d);
	return k->watch ? make_instance(k, true, e) : err_set(e, -ENOMEM, "out of memory");
}

bool clients_full(const struct daemon *d)
{
	(void)d;
	return false;
}

void clients_unlisten(struct daemon *d)
{
	struct door *k = d->door;
	DWORD n;

	if (!k)
		return;
	while (k->guests)
		forget(k->guests);
	timer_cancel(k->again);
	watch_free(k->watch);
	if (k->pipe >= 0 && CancelIoEx(fd_handle(k->pipe), &k->ov))
		GetOverlappedResult(fd_handle(k->pipe), &k->ov, &n, TRUE);
	fd_close(&k->pipe);
	if (k->ov.hEvent)
		CloseHandle(k->ov.hEvent);
	LocalFree(k->sd);
	free(k->owner);
	free(k);
	d->door = NULL;
}

/* Sockets of systemd's. */
int notify_sockets(int *out, unsigned max)
{
	(void)out;
	(void)max;
	return 0;
}
