/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: processors that come while the machine runs. Linux registers a new one and leaves it
 * to user space to use it; distributions do that by a rule of udev, and this does it here.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest.h"

#define CPUS "/sys/devices/system/cpu"

/* linux/netlink.h, which is not musl's */
#define UEVENT 15
#define KERNEL_EVENTS 1 /* the group of those that the kernel itself sends */
struct netlink_addr {
	uint16_t family, pad;
	uint32_t port, groups;
};

/* The second one can be given back (_EJ0): so it is with all but the first, or with none. Which are
 * there does not say it: some may have come already. */
#define CAN_GO "/sys/bus/acpi/devices/ACPI0007:01/eject"

/* One that has gone meanwhile, or is used already, needs nothing. */
static void cpu_use(int dir, unsigned n)
{
	char path[32];
	int fd;

	snprintf(path, sizeof path, "cpu%u/online", n);
	fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		dprintf(STDERR_FILENO, NAME ": processor %u: %s\n", n, strerror(errno));
	close(fd);
}

/* "add@/devices/system/cpu/cpu3", and variables behind that. */
static void cpu_event(int dir, const char *text)
{
	static const char head[] = "add@/devices/system/cpu/cpu";
	const char *at = text + sizeof head - 1;
	unsigned n = 0;

	if (strncmp(text, head, sizeof head - 1) != 0 || !*at)
		return;
	for (; isdigit((unsigned char)*at) && n < 10000; at++)
		n = n * 10 + (unsigned)(*at - '0');
	if (!*at)
		cpu_use(dir, n);
}

static _Noreturn void cpus_serve(int dir, int fd)
{
	char buf[2048];
	ssize_t n;

	for (unsigned i = 1; i < 64; i++) /* before anybody listened */
		cpu_use(dir, i);
	for (;;) {
		struct netlink_addr from = {0};
		socklen_t len = sizeof from;

		n = recvfrom(fd, buf, sizeof buf - 1, 0, (struct sockaddr *)&from, &len);
		if (n > 0 && from.port == 0) {
			buf[n] = 0;
			cpu_event(dir, buf);
		} else if (n < 0 && errno != EINTR && errno != ENOBUFS) {
			_exit(STATUS_INTERNAL);
		}
	}
}

void cpus_watch(void)
{
	const struct netlink_addr a = {.family = AF_NETLINK, .groups = KERNEL_EVENTS};
	int dir, fd;
	pid_t pid;

	if (access(CAN_GO, F_OK) < 0)
		return;
	dir = open(CPUS, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, UEVENT);
	if (dir < 0 || fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof a) < 0)
		die_errno("events of processors that come");
	pid = fork();
	if (pid < 0)
		die_errno("a process for processors that come");
	if (!pid) {
		setsid();
		prctl(PR_SET_NAME, "insula-cpus");
		cpus_serve(dir, fd);
	}
	close(dir);
	close(fd);
}
