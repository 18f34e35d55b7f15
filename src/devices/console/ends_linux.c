/* SPDX-License-Identifier: BSD-2-Clause */
/* The console's two descriptors, which may be anything: a terminal, a pty, a pipe, a file. See
 * ends.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>

#include "ends.h"

static bool is_pty_master(int fd)
{
	unsigned n;

	return fd >= 0 && ioctl(fd, TIOCGPTN, &n) == 0;
}

int ends_look(struct ends *c, uint64_t limit, struct err *e)
{
	(void)limit;
	c->out_pty = is_pty_master(c->out_fd);
	c->in_pty = is_pty_master(c->in_fd);
	/* Ours alone; a terminal's flags would be the user's shell's too. */
	if (c->out_pty && fcntl(c->out_fd, F_SETFL, O_RDWR | O_NONBLOCK))
		return err_sys(e, -errno, "pty");
	return 0;
}

static void wait_readable(int fd, int timeout)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	(void)poll(&p, 1, timeout);
}

/* The output is full. The number of bytes to give up. */
static uint32_t wait_writable(struct ends *c, uint32_t n)
{
	struct pollfd p = {.fd = c->out_fd, .events = POLLOUT};
	int timeout = !c->out_pty ? -1 : c->out_deaf ? 0 : CONSOLE_DEAF_MS;

	if (poll(&p, 1, timeout) != 0)
		return 0;
	c->out_deaf = true;
	ends_lose(c, n, -EAGAIN);
	return n;
}

/* A pty that nobody has open may be opened again, so each piece is tried. */
uint32_t ends_write(struct ends *c, const uint8_t *buf, uint32_t n)
{
	ssize_t r = write(c->out_fd, buf, n);

	if (r > 0) {
		c->out_bytes += (uint64_t)r;
		c->out_writes++;
		c->out_deaf = false;
		return (uint32_t)r;
	}
	if (r < 0 && errno == EINTR)
		return 0;
	if (r < 0 && errno == EAGAIN)
		return wait_writable(c, n);
	ends_lose(c, n, r < 0 ? -errno : -EIO);
	return n;
}

int ends_read(struct ends *c, void *buf, size_t n)
{
	for (;;) {
		ssize_t r = read(c->in_fd, buf, n);

		if (r >= 0)
			return (int)r;
		if (errno == EAGAIN)
			wait_readable(c->in_fd, -1);
		else if (errno == EIO && c->in_pty)
			(void)poll(NULL, 0, CONSOLE_RETRY_MS);
		else if (errno != EINTR)
			return -errno;
	}
}

void ends_rules(const struct ends *c, struct rule_list *l)
{
	rule_fd(l, SYS_write, c->out_fd, "what the guest prints");
	rule_fd(l, SYS_read, c->out_event, "output thread: wake-up");
	rule_fd(l, SYS_write, c->out_event, "wake the output thread");
	if (c->in_fd < 0)
		return;
	rule_fd(l, SYS_read, c->in_fd, "what the user types");
	rule_fd(l, SYS_read, c->in_event, "input thread: wake-up");
	rule_fd(l, SYS_write, c->in_event, "wake the input thread");
}
