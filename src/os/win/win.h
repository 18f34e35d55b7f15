/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Windows: handles as descriptors, its errors as errnos, the channel.
 *
 * A channel is a named pipe of whole messages with one instance. A message is struct msg_hdr, the
 * body, and one int32_t per descriptor: the value of a handle that the receiver has already,
 * because it inherited all that it may ever get when it was made. So only a child takes descriptors
 * out of a message, and only from its supervisor.
 */
#ifndef BASE_WIN_H
#define BASE_WIN_H

#include <windows.h>

#include <stdbool.h>

#include <insula/proto.h>

/* Handles have 32 significant bits, so that 32-bit and 64-bit programs can share them. */
static inline HANDLE fd_handle(int fd)
{
	return (HANDLE)(intptr_t)fd;
}

static inline int handle_fd(HANDLE h)
{
	return (int)(intptr_t)h;
}

/* A negative errno for what GetLastError() said. */
int win_errno(DWORD error);

#define WIN_PATH_CHARS 4096
/* CreateFile() with a path in UTF-8; not inherited. A descriptor or a negative errno. */
int win_open(const char *path, DWORD access, DWORD share, DWORD how, DWORD flags);

#define WIN_SID_LEN 187 /* "S-1-" and what a SID can have at most, and a NUL */
/* The user that this process runs as: "S-1-5-..."; `out` has WIN_SID_LEN. */
int own_sid(char *out, struct err *e);
/* A security descriptor: this user, SYSTEM and administrators may do everything, whom `more` (an
 * ACE, or "") names may do that, nobody else anything; and nobody below medium integrity, which
 * insula-vmm is. `inherit`: for what is made below a directory too. LocalFree() it; NULL: `e` says
 * why. */
PSECURITY_DESCRIPTOR own_descriptor(bool inherit, const char *more, struct err *e);

/* \\.\pipe\NAME of this computer, in UTF-8. */
bool pipe_is_name(const char *text);
/* A new pipe. `messages`: of whole messages in both directions, for a channel; else of bytes from
 * them to us, which never stops the writer: what does not fit is lost. Both ends are the caller's.
 * Theirs can be inherited; ours, and for messages both, are open for overlapped I/O. */
int pipe_pair(bool messages, HANDLE *ours, HANDLE *theirs, struct err *e);
/* One of bytes in one direction, in which the writer waits for the reader. Ours is open for
 * overlapped I/O, theirs is not, and can be inherited. */
int pipe_stream(bool to_them, HANDLE *ours, HANDLE *theirs, struct err *e);
#define PIPE_NAME_LEN 96
/* The only instance of a new pipe of bytes, for one client on this computer: `access` is
 * PIPE_ACCESS_DUPLEX or the like, with PIPE_TYPE_MESSAGE for whole messages instead; open for
 * overlapped I/O. `name` gets PIPE_NAME_LEN. A descriptor; not inherited. */
int pipe_offer(DWORD access, PSECURITY_DESCRIPTOR sd, char *name, struct err *e);
/* The end of its client: a pipe of this computer that somebody else has made, who learns who we are
 * and cannot be us. `access` as of CreateFile(); can be inherited. `owner`: whose it must be, NULL:
 * anybody's. A descriptor. */
int pipe_take(const char *name, DWORD access, DWORD flags, const char *owner, struct err *e);

/* The size of the largest message. */
#define CHANNEL_MAX (sizeof(struct msg_hdr) + MSG_MAX_BODY + MSG_MAX_FDS * sizeof(int32_t))

/* The reading end of a channel. One thread. */
struct channel {
	HANDLE pipe;  /* borrowed; open for overlapped I/O, reads whole messages */
	HANDLE event; /* owned: there is something to receive */
	bool reading; /* the system writes into buf */
	OVERLAPPED ov;
	_Alignas(8) uint8_t buf[CHANNEL_MAX];
};

int channel_init(struct channel *c, HANDLE pipe);
/* Ends the read that is under way, closes the event. */
void channel_free(struct channel *c);
/* Wait for this before channel_recv(): it is set while a message or the end is there. */
HANDLE channel_event(struct channel *c);
/* The next message; blocks. As msg_recv(), but a message with descriptors is -EPROTO: what a child
 * names would be a handle of ours. */
int channel_recv(struct channel *c, enum msg_type *type, void *body, size_t size, size_t *len);
/* The channel to the supervisor: standard input, where msg_recv(MSG_CHANNEL_FD) reads. */
struct channel *channel_own(void);

#endif
