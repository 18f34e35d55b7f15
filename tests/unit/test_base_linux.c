/* SPDX-License-Identifier: BSD-2-Clause */
/* What every process stands on, as Linux has it: messages with descriptors, sealed memory,
 * descriptors, counting events, lines on standard error. What both systems have: test_base.c. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/guestmem.h>
#include <insula/log.h>
#include <insula/proto.h>

#include "boardmem.h"
#include "devices/describe.h"

#define BODY 64

static int pair[2];
static int fds[MSG_MAX_FDS];
static unsigned nfds;
static uint8_t body[MSG_MAX_BODY];
static enum msg_type type;
static size_t len;
static struct err e;

static void setup(void)
{
	memset(&e, 0, sizeof(e));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void teardown(void)
{
	fd_close(&pair[0]);
	fd_close(&pair[1]);
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int receive(size_t size)
{
	return msg_recv(pair[1], &type, body, size, &len, fds, &nfds);
}

/* What a peer can send when it does not use msg_send(): any bytes, any number of descriptors. */
static void send_raw(const void *bytes, size_t n, unsigned descriptors)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * 64)];
	} ctl = {0};
	struct iovec iov = {(void *)(uintptr_t)bytes, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (descriptors) {
		m.msg_control = ctl.buf;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
		for (unsigned i = 0; i < descriptors; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &pair[0], sizeof(int));
	}
	ck_assert_int_eq(sendmsg(pair[0], &m, 0), (ssize_t)n);
}

struct raw {
	struct msg_hdr h;
	uint8_t body[BODY];
};

static struct raw good_raw(void)
{
	return (struct raw){.h = {MSG_VERSION, MSG_READY, BODY, 0}};
}

START_TEST(roundtrip)
{
	static const size_t sizes[] = {0, 1, BODY, MSG_MAX_BODY};
	static const unsigned counts[] = {0, 1, MSG_MAX_FDS};
	uint8_t sent[MSG_MAX_BODY];
	int send_fds[MSG_MAX_FDS];
	unsigned before = open_fds();

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < MSG_MAX_FDS; i++)
		send_fds[i] = pair[0];
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
		for (unsigned k = 0; k < ARRAY_LEN(counts); k++) {
			ck_assert_int_eq(
				msg_send(pair[0], MSG_DEVICE, sent, sizes[i], send_fds, counts[k]),
				0);
			ck_assert_int_eq(receive(sizeof(body)), 0);
			ck_assert_int_eq(type, MSG_DEVICE);
			ck_assert_uint_eq(len, sizes[i]);
			ck_assert_uint_eq(nfds, counts[k]);
			ck_assert_int_eq(memcmp(body, sent, len), 0);
			for (unsigned j = 0; j < nfds; j++) {
				ck_assert_int_eq(fcntl(fds[j], F_GETFD), FD_CLOEXEC);
				close(fds[j]);
			}
		}
	}
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

/* insula-vmm may be slow to read: all devices of a large VM wait for it in a buffer that is small,
 * and what starts it behind them. */
START_TEST(devices_wait)
{
	static const struct msg_start_vmm start;
	/* Of which the kernel makes twice as much; by itself it takes 208 KiB. */
	const int small = (_i ? 64 : 32) << 10;
	struct device_desc d;
	int slots[DEVICE_MAX_SLOTS];

	for (unsigned i = 0; i < DEVICE_MAX_SLOTS; i++)
		slots[i] = pair[1];
	ck_assert_int_eq(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	ck_assert_int_eq(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; i < 43; i++) {
		if (_i && i < BOARD_MAX_PCI) /* those on PCI, which say more */
			describe_virtio_pci(&d, 1 + i, BOARD_PCI_MMIO, 2, BLK_MAX_QUEUES);
		else
			describe_virtio_mmio(&d, 0xd0000000, 5, BLK_MAX_QUEUES);
		len = device_pack(&d, body);
		ck_assert_msg(!msg_send(pair[0], MSG_DEVICE, body, len, slots, d.nslots),
			      "device %u", i);
	}
	ck_assert_int_eq(msg_send(pair[0], MSG_START_VMM, &start, sizeof(start), slots, 4), 0);
}
END_TEST

START_TEST(sender_limits)
{
	int many[MSG_MAX_FDS + 1] = {0};

	ck_assert_int_eq(msg_send(pair[0], MSG_GO, body, MSG_MAX_BODY + 1, NULL, 0), -EMSGSIZE);
	ck_assert_int_eq(msg_send(pair[0], MSG_GO, NULL, 0, many, MSG_MAX_FDS + 1), -EMSGSIZE);
	many[0] = -1;
	ck_assert_int_eq(msg_send(pair[0], MSG_GO, NULL, 0, many, 1), -EBADF);
	fd_close(&pair[1]);
	ck_assert_int_eq(msg_send(pair[0], MSG_GO, NULL, 0, NULL, 0), -EPIPE);
}
END_TEST

/* Each deviation alone, with and without descriptors: refused, and nothing stays open. */
START_TEST(malformed)
{
	struct raw r = good_raw();
	unsigned before = open_fds();

	for (unsigned n = 0; n < 3; n++) {
		r = good_raw();
		r.h.nfds = n;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), 0); /* the frame that the others deviate from */
		ck_assert_uint_eq(nfds, n);
		for (unsigned i = 0; i < n; i++)
			close(fds[i]);

		r.h.version = MSG_VERSION + 1;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.version = 0;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.version = MSG_VERSION;
		r.h.len = BODY - 1;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.len = BODY + 1;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.len = UINT32_MAX;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.len = BODY;
		r.h.nfds = n + 1;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.nfds = n - 1;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.nfds = n;
		send_raw(&r, sizeof(r), n); /* longer than there is room for */
		ck_assert_int_eq(receive(BODY - 1), -EPROTO);
		for (size_t cut = 1; cut < sizeof(r.h); cut++) { /* not even a header */
			send_raw(&r, cut, n);
			ck_assert_int_eq(receive(BODY), -EPROTO);
		}
	}
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(too_many_descriptors)
{
	struct raw r = good_raw();
	unsigned before = open_fds();

	for (unsigned n = MSG_MAX_FDS + 1; n <= 64; n += 13) {
		r.h.nfds = n;
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
		r.h.nfds = MSG_MAX_FDS; /* as many as fit: the rest was cut off */
		send_raw(&r, sizeof(r), n);
		ck_assert_int_eq(receive(BODY), -EPROTO);
	}
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

/* An empty packet reads like the end of the channel, unless it brings descriptors. */
START_TEST(empty_packet)
{
	unsigned before = open_fds();

	send_raw("", 0, 0);
	ck_assert_int_eq(receive(BODY), -EPIPE);
	send_raw("", 0, 2);
	ck_assert_int_eq(receive(BODY), -EPROTO);
	ck_assert_uint_eq(open_fds(), before);
}
END_TEST

START_TEST(end_of_channel)
{
	ck_assert_int_eq(msg_send(pair[0], MSG_READY, NULL, 0, NULL, 0), 0);
	fd_close(&pair[0]);
	ck_assert_int_eq(receive(BODY), 0);
	ck_assert_int_eq(receive(BODY), -EPIPE);
	ck_assert_int_eq(receive(BODY), -EPIPE);
}
END_TEST

/* The peer dies with our message unread: its last words still arrive. */
START_TEST(reset_by_peer)
{
	ck_assert_int_eq(msg_send(pair[1], MSG_GO, NULL, 0, NULL, 0), 0);
	msg_fail(pair[0], "step", -EIO, "last words", 0);
	fd_close(&pair[0]);
	ck_assert_int_eq(receive(sizeof(body)), 0);
	ck_assert_int_eq(type, MSG_FAILED);
	ck_assert_int_eq(receive(sizeof(body)), -EPIPE);
}
END_TEST

START_TEST(no_message_yet)
{
	ck_assert_int_eq(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_eq(receive(BODY), -EAGAIN);
}
END_TEST

START_TEST(expect)
{
	unsigned before = open_fds();
	uint32_t value = 5, got = 0;
	int fd = -1;

	ck_assert_int_eq(msg_send(pair[0], MSG_DEV_UP, &value, sizeof(value), &pair[0], 1), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_DEV_UP, &got, sizeof(got), &fd, 1, &e), 0);
	ck_assert_uint_eq(got, 5);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	fd_close(&fd);
	/* another type, another length, another number of descriptors */
	ck_assert_int_eq(msg_send(pair[0], MSG_GO, &value, sizeof(value), &pair[0], 1), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_DEV_UP, &got, sizeof(got), &fd, 1, &e), -EPROTO);
	ck_assert_int_eq(msg_send(pair[0], MSG_DEV_UP, &value, 3, &pair[0], 1), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_DEV_UP, &got, sizeof(got), &fd, 1, &e), -EPROTO);
	ck_assert_int_eq(msg_send(pair[0], MSG_DEV_UP, &value, sizeof(value), pair, 2), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_DEV_UP, &got, sizeof(got), &fd, 1, &e), -EPROTO);
	ck_assert_str_eq(
		e.text, "channel: message 7 of 4 bytes with 2 descriptors, expected 7 of 4 with 1");
	ck_assert_int_eq(fd, -1);
	ck_assert_uint_eq(open_fds(), before);
	fd_close(&pair[0]);
	ck_assert_int_eq(msg_expect(pair[1], MSG_DEV_UP, &got, sizeof(got), &fd, 1, &e), -EPIPE);
}
END_TEST

START_TEST(expect_failed)
{
	struct msg_failed f = {.code = 5};

	msg_fail(pair[0], "seccomp", -EACCES, "no filter", 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_READY, NULL, 0, NULL, 0, &e), -EACCES);
	ck_assert_str_eq(e.text, "seccomp: no filter");
	/* A hostile one: no errno, no terminators, an escape sequence. */
	memset(f.step, 'x', sizeof(f.step));
	memset(f.text, 0x1b, sizeof(f.text));
	ck_assert_int_eq(msg_send(pair[0], MSG_FAILED, &f, sizeof(f), NULL, 0), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_READY, NULL, 0, NULL, 0, &e), -EPROTO);
	ck_assert_ptr_null(strchr(e.text, 0x1b));
	f.code = INT32_MIN;
	ck_assert_int_eq(msg_send(pair[0], MSG_FAILED, &f, sizeof(f), NULL, 0), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_READY, NULL, 0, NULL, 0, &e), -EPROTO);
	/* Of another size it is no MSG_FAILED. */
	ck_assert_int_eq(msg_send(pair[0], MSG_FAILED, &f, sizeof(f) - 1, NULL, 0), 0);
	ck_assert_int_eq(msg_expect(pair[1], MSG_READY, NULL, 0, NULL, 0, &e), -EPROTO);
	ck_assert_int_eq(strncmp(e.text, "channel: message 65", 19), 0);
}
END_TEST

/* ---- shared memory ---- */

static int memfd_with(uint64_t size, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	if (seals)
		ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int try_map(int fd, uint64_t size, uint64_t off, size_t n)
{
	void *p = NULL;
	int rc = shm_map(fd, size, off, n, true, &p, &e);

	if (rc)
		ck_assert(e.code == rc && e.text[0]);
	else
		ck_assert_int_eq(munmap(p, n), 0);
	return rc;
}

START_TEST(shm_created)
{
	int fd = shm_create("test", 3 * BOARD_PAGE, &e);
	uint8_t *w;
	const uint8_t *r;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	ck_assert_int_ne(ftruncate(fd, BOARD_PAGE), 0);
	ck_assert_int_ne(ftruncate(fd, 4 * BOARD_PAGE), 0);
	ck_assert_int_ne(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	ck_assert_int_eq(shm_map(fd, 3 * BOARD_PAGE, 0, 3 * BOARD_PAGE, true, (void **)&w, &e), 0);
	ck_assert_int_eq(
		shm_map(fd, 3 * BOARD_PAGE, BOARD_PAGE, BOARD_PAGE, false, (void **)&r, &e), 0);
	w[BOARD_PAGE + 5] = 77; /* one object behind both */
	ck_assert_uint_eq(r[5], 77);
	munmap(w, 3 * BOARD_PAGE);
	munmap((void *)(uintptr_t)r, BOARD_PAGE);
	close(fd);
}
END_TEST

/* One mapping of several: the same memory, in their order, and nothing of them is gone. */
START_TEST(shm_joined)
{
	uint8_t *map[3], *all;

	for (unsigned i = 0; i < 3; i++) {
		int fd = shm_create("insula-test", 2 * BOARD_PAGE, &e);

		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(shm_map(fd, 0, 0, 2 * BOARD_PAGE, true, (void **)&map[i], &e), 0);
		close(fd);
	}
	all = shm_join((void **)map, 3, BOARD_PAGE);
	ck_assert_ptr_nonnull(all);
	for (unsigned i = 0; i < 3; i++) {
		map[i][5] = (uint8_t)(10 + i);
		ck_assert_uint_eq(all[i * BOARD_PAGE + 5], 10 + i);
		all[(i + 1) * BOARD_PAGE - 1] = (uint8_t)(20 + i);
		ck_assert_uint_eq(map[i][BOARD_PAGE - 1], 20 + i);
		map[i][BOARD_PAGE] = 7; /* the second page is no part of it */
		shm_unmap(map[i], 2 * BOARD_PAGE);
		ck_assert_uint_eq(all[i * BOARD_PAGE + 5], 10 + i);
	}
	shm_unmap(all, 3 * BOARD_PAGE);
	map[0] = (uint8_t *)1; /* no mapping */
	ck_assert_ptr_null(shm_join((void **)map, 1, BOARD_PAGE));
}
END_TEST

START_TEST(shm_refused)
{
	const uint64_t size = 4 * BOARD_PAGE;
	const int both = F_SEAL_SHRINK | F_SEAL_GROW;
	int fd = memfd_with(size, both), sock = pair[0],
	    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int bad[] = {memfd_with(size, 0), memfd_with(size, F_SEAL_SHRINK),
		     memfd_with(size, F_SEAL_GROW), file, sock};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_int_eq(try_map(bad[i], size, 0, BOARD_PAGE), -EPERM);
	ck_assert_int_eq(try_map(fd, size, 0, size), 0);
	ck_assert_int_eq(try_map(fd, size, size - BOARD_PAGE, BOARD_PAGE), 0);
	ck_assert_int_eq(try_map(fd, size - BOARD_PAGE, 0, BOARD_PAGE), -EINVAL);
	ck_assert_int_eq(try_map(fd, size + BOARD_PAGE, 0, BOARD_PAGE), -EINVAL);
	ck_assert_int_eq(try_map(fd, size, 0, size + 1), -EINVAL);
	ck_assert_int_eq(try_map(fd, size, size, 1), -EINVAL);
	ck_assert_int_eq(try_map(fd, size, size - BOARD_PAGE, BOARD_PAGE + 1), -EINVAL);
	ck_assert_int_eq(try_map(fd, size, UINT64_MAX - BOARD_PAGE + 1, BOARD_PAGE), -EINVAL);
	ck_assert_int_eq(try_map(fd, size, BOARD_PAGE, SIZE_MAX), -EINVAL);
	ck_assert_int_eq(try_map(-1, size, 0, BOARD_PAGE), -EPERM);
	for (unsigned i = 0; i + 1 < ARRAY_LEN(bad); i++) /* the socket is the fixture's */
		close(bad[i]);
	close(fd);
}
END_TEST

/* ---- guest memory ---- */

START_TEST(gm_map_unsealed)
{
	const uint64_t size = BOARD_MIN_MEM;
	int open_ended = memfd_with(size, F_SEAL_SHRINK);
	struct guestmem gm;

	ck_assert_int_eq(board_gm_map(&gm, open_ended, size, &e), -EPERM);
	ck_assert_uint_eq(gm.nregions, 0);
	close(open_ended);
}
END_TEST

/* Contents stay, whether the host collapses or not, and nothing outside of whole blocks is made. */
START_TEST(gm_collapsed)
{
	const uint64_t mib = 1 << 20, size = 16 * mib,
		       marks[] = {0, mib, 2 * mib, 5 * mib + 77, 9 * mib};
	int fd = shm_create("guest", size, &e);
	struct guestmem gm;
	struct stat st;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(board_gm_map(&gm, fd, size, &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(marks); i++)
		*(uint8_t *)gm_ptr(&gm, marks[i], 1) = (uint8_t)(i + 1);
	ck_assert_int_eq(gm_collapse(&gm, 0, 2 * mib - 1), 0);
	ck_assert_int_eq(gm_collapse(&gm, 15 * mib, 17 * mib), 0);
	ck_assert_int_eq(gm_collapse(&gm, 8 * mib, 4 * mib), 0);
	ck_assert_int_eq(gm_collapse(&gm, UINT64_MAX - 10, UINT64_MAX), 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_le((int64_t)st.st_blocks * 512, (int64_t)(ARRAY_LEN(marks) * BOARD_PAGE));
	(void)gm_collapse(&gm, mib + 1, 9 * mib);
	for (unsigned i = 0; i < ARRAY_LEN(marks); i++)
		ck_assert_uint_eq(*(uint8_t *)gm_ptr(&gm, marks[i], 1), i + 1);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_le((int64_t)st.st_blocks * 512, (int64_t)(6 * mib + 3 * BOARD_PAGE));
	gm_unmap(&gm);
	close(fd);
}
END_TEST

/* ---- descriptors, events, files ---- */

/* Of the mapping that `at` is in, as the kernel says it in /proc/self/smaps. */
static void vm_flags(const void *at, char *to, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long want = (unsigned long)at, from = 0, end = 0, a, b;
	char line[512];

	ck_assert_ptr_nonnull(f);
	*to = '\0';
	while (!*to && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &a, &b) == 2) {
			from = a;
			end = b;
		} else if (want >= from && want < end && !strncmp(line, "VmFlags:", 8)) {
			snprintf(to, size, "%s", line);
		}
	}
	fclose(f);
}

/* With transparent_hugepage/enabled = always a byte would take 2 MiB. */
START_TEST(reserved_by_the_page)
{
	uint8_t *p = reserve_memory(8 << 20, true);
	char flags[512];

	ck_assert_ptr_nonnull(p);
	p[4 << 20] = 1;
	ck_assert_uint_eq(p[0], 0);
	if (access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK))
		return;
	vm_flags(p, flags, sizeof(flags));
	ck_assert_msg(strstr(flags, " nh"), "%s", flags);
}
END_TEST

START_TEST(descriptors)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), was = fd;

	errno = EXDEV;
	fd_close(&fd);
	fd_close(&fd); /* a second time does nothing */
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(errno, EXDEV);
	ck_assert_int_eq(fcntl(was, F_GETFD), -1);
}
END_TEST

START_TEST(events_count)
{
	int fd = event_create();
	uint64_t full = UINT64_MAX - 1;

	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(event_drain(fd), 0);
	event_signal(fd);
	event_signal(fd);
	ck_assert_uint_eq(event_drain(fd), 2);
	ck_assert_uint_eq(event_drain(fd), 0);
	ck_assert_int_eq(write(fd, &full, sizeof(full)), sizeof(full));
	event_signal(fd); /* saturated: does not block */
	ck_assert_uint_eq(event_drain(fd), full);
	close(fd);
}
END_TEST

/* ---- standard error ---- */

/* Standard error of `fn`, run in a child; its exit status is returned. */
static int captured(void (*fn)(void), char *out, size_t size)
{
	int p[2], status;
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	ck_assert_int_eq(pipe(p), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		dup2(p[1], STDERR_FILENO);
		fn();
		_exit(0);
	}
	close(p[1]);
	while ((r = read(p[0], out + n, size - 1 - n)) > 0)
		n += (size_t)r;
	out[n] = 0;
	close(p[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void say_things(void)
{
	char big[2000];

	memset(big, 'z', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_setup("prog", LOG_LVL_WARN);
	errno = EXDEV;
	log_info("not shown");
	log_error("%s", "a\nb\x1b[2J");
	log_warn("w\xc2\x9b");
	log_setup("", LOG_LVL_DEBUG);
	log_debug("%s", big);
	if (errno != EXDEV)
		_exit(1);
}

/* Reads the pipe to its end: how many lines there are, how many were lost by what they say. */
static void count_lines(int fd, unsigned *whole, unsigned *lost, unsigned *other)
{
	static char text[1u << 20];
	size_t have = 0;
	ssize_t r;
	unsigned n;

	while ((r = read(fd, text + have, sizeof(text) - 1 - have)) > 0)
		have += (size_t)r;
	*whole = *lost = *other = 0;
	for (char *l = strtok(text, "\n"); l; l = strtok(NULL, "\n")) {
		if (sscanf(l, "prog: line %u of many", &n) == 1)
			++*whole;
		else if (sscanf(l, "insula: %u log lines lost: nobody reads standard error", &n) ==
			 1)
			*lost += n;
		else
			++*other;
	}
}

#define MANY 20000u

/* A child fills a pipe that nobody reads, and goes on: only then is it read. */
START_TEST(log_that_nobody_reads)
{
	unsigned whole, lost, other;
	int out[2], said[2], status;
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(out), 0);
	ck_assert_int_eq(pipe(said), 0);
	pid = fork();
	if (pid == 0) {
		dup2(out[1], STDERR_FILENO);
		close(out[0]);
		close(out[1]);
		log_setup("prog", LOG_LVL_INFO);
		if (log_queue_start(NULL))
			_exit(2);
		for (unsigned i = 0; i < MANY; i++)
			log_info("line %u of many", i);
		if (write(said[1], "", 1) != 1)
			_exit(3);
		/* Only what is read can end this. */
		for (int i = 0; i < 60; i++)
			log_queue_finish();
		_exit(0);
	}
	close(out[1]);
	ck_assert_int_eq(read(said[0], &byte, 1), 1); /* with a log that blocks: never */
	count_lines(out[0], &whole, &lost, &other);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_gt(lost, 0);
	ck_assert_uint_gt(whole, 1000);
	ck_assert_uint_eq(whole + lost, MANY);
	ck_assert_uint_eq(other, 0);
}
END_TEST

START_TEST(log_lines)
{
	char out[2048];
	size_t head;

	ck_assert_int_eq(captured(say_things, out, sizeof(out)), 0);
	head = strlen("prog: error: a?b?[2J\nprog: warning: w??\n");
	ck_assert_int_eq(strncmp(out, "prog: error: a?b?[2J\nprog: warning: w??\n", head), 0);
	ck_assert_uint_le(strlen(out + head), 512); /* one line, cut, with its end */
	ck_assert_uint_eq(strspn(out + head, "z"), strlen(out + head) - 1);
	ck_assert_int_eq(out[strlen(out) - 1], '\n');
}
END_TEST

static void give_up(void)
{
	panic("it is %s", "over\x1b");
}

START_TEST(panics)
{
	char out[256];

	ck_assert_int_eq(captured(give_up, out, sizeof(out)), 70);
	ck_assert_str_eq(out, "panic: it is over?\n");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("base_linux");
	TCase *msg = tcase_create("messages"), *mem = tcase_create("memory"),
	      *rest = tcase_create("rest");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(msg, setup, teardown);
	tcase_add_test(msg, roundtrip);
	tcase_add_loop_test(msg, devices_wait, 0, 2);
	tcase_add_test(msg, sender_limits);
	tcase_add_test(msg, malformed);
	tcase_add_test(msg, too_many_descriptors);
	tcase_add_test(msg, empty_packet);
	tcase_add_test(msg, end_of_channel);
	tcase_add_test(msg, reset_by_peer);
	tcase_add_test(msg, no_message_yet);
	tcase_add_test(msg, expect);
	tcase_add_test(msg, expect_failed);
	tcase_add_checked_fixture(mem, setup, teardown);
	tcase_add_test(mem, shm_created);
	tcase_add_test(mem, shm_joined);
	tcase_add_test(mem, shm_refused);
	tcase_add_test(mem, gm_collapsed);
	tcase_add_test(mem, gm_map_unsealed);
	tcase_add_test(mem, reserved_by_the_page);
	tcase_add_test(rest, descriptors);
	tcase_add_test(rest, events_count);
	tcase_add_test(rest, log_lines);
	tcase_add_test(rest, log_that_nobody_reads);
	tcase_add_test(rest, panics);
	suite_add_tcase(s, msg);
	suite_add_tcase(s, mem);
	suite_add_tcase(s, rest);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
