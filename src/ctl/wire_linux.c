/* SPDX-License-Identifier: BSD-2-Clause */
/* The connection to insulad: a Unix socket. See ctl.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/scm.h>

#include "ctl.h"

const char wire_default[] = "/run/insula/insulad.sock";

int wire_open(const char *path, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, -ENAMETOOLONG, "--socket: %.80s: expected at most %zu bytes",
			       path, sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	rc = -errno;
	fd_close(&fd);
	if (rc == -EACCES)
		return err_set(e, rc,
			       "%s: you may not use it: expected root, or a member of the group "
			       "that insulad's setting socket_group names (insulad.json(5))",
			       path);
	return err_sys(e, rc, "%s (is insulad running?)", path);
}

int wire_send(int fd, const char *text, size_t len, const int *fds, unsigned nfds)
{
	union scm_buf ctl;

	while (len) {
		struct iovec iov = {(void *)(uintptr_t)text, len};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		scm_attach(&m, &ctl, fds, nfds);
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		nfds = 0; /* they went with the first bytes */
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The last one that comes counts. */
static void take_fd(int *got, struct msghdr *m)
{
	unsigned n = 0;
	int fd;

	(void)scm_take(m, &fd, &n, 1);
	if (n) {
		fd_close(got);
		*got = fd;
	}
}

int wire_recv(int fd, void *buf, size_t size, int *got)
{
	union scm_buf ctl;
	struct iovec iov = {buf, size};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do {
		scm_expect(&m, &ctl, 1);
		n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fd(got, &m);
	return (int)n;
}

char **wire_arguments(int *argc, char **argv)
{
	(void)argc;
	return argv;
}

int wire_look(const char *path)
{
	return access(path, R_OK) ? -errno : 0;
}

void wire_directory(char *out, size_t size)
{
	if (!getcwd(out, size))
		out[0] = 0;
}
