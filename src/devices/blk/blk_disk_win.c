/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests to the disk with ReadFile, WriteFile and FlushFileBuffers. See blk_disk.h.
 *
 * The handle is open for overlapped I/O, or the system would do one request at a time. A thread
 * waits for its own request, and each segment is a request of its own: the scatter and gather calls
 * want whole pages.
 */
#include "os/win/win.h"

#include <errno.h>
#include <limits.h>
#include <winioctl.h>

#include <insula/base.h>

#include "blk_disk.h"
#include "blk_start.h"

int blk_disk_event(void)
{
	int fd = event_create();

	if (fd < 0)
		panic("an event for a disk thread: %d", fd);
	return fd;
}

static OVERLAPPED place(uint64_t off, int event)
{
	return (OVERLAPPED){
		.Offset = (DWORD)off, .OffsetHigh = (DWORD)(off >> 32), .hEvent = fd_handle(event)};
}

/* Bytes moved, or a negative errno. 0 at the end of the file. */
static int blk_disk_finish(HANDLE disk, OVERLAPPED *ov, BOOL done)
{
	DWORD n = 0, error;

	if (done || GetLastError() == ERROR_IO_PENDING)
		done = GetOverlappedResult(disk, ov, &n, TRUE);
	if (done)
		return (int)n;
	error = GetLastError();
	return error == ERROR_HANDLE_EOF ? 0 : win_errno(error);
}

static int move(HANDLE disk, const struct blk_io *io, int event)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < io->niov && done < INT_MAX - io->iov[i].iov_len; i++) {
		const struct iovec *v = &io->iov[i];
		OVERLAPPED ov = place(io->off + done, event);
		BOOL ok = io->op == BLK_OP_READ
				  ? ReadFile(disk, v->iov_base, (DWORD)v->iov_len, NULL, &ov)
				  : WriteFile(disk, v->iov_base, (DWORD)v->iov_len, NULL, &ov);
		int n = blk_disk_finish(disk, &ov, ok);

		if (n < 0)
			return done ? (int)done : n;
		done += (unsigned)n;
		if ((size_t)n < v->iov_len)
			break;
	}
	return (int)done;
}

/* For a sparse file the space is given back; any other is filled with zeros by the system. */
static int zero(HANDLE disk, const struct blk_io *io, int event)
{
	FILE_ZERO_DATA_INFORMATION z = {
		.FileOffset.QuadPart = (LONGLONG)io->off,
		.BeyondFinalZero.QuadPart = (LONGLONG)(io->off + io->len),
	};
	OVERLAPPED ov = place(0, event);
	BOOL ok = DeviceIoControl(disk, FSCTL_SET_ZERO_DATA, &z, sizeof(z), NULL, 0, NULL, &ov);

	return blk_disk_finish(disk, &ov, ok);
}

int blk_disk_execute(int disk_fd, const struct blk_io *io, int event)
{
	HANDLE disk = fd_handle(disk_fd); /* there are no overlays, so io->base is false */

	switch (io->op) {
	case BLK_OP_READ:
	case BLK_OP_WRITE:
		return move(disk, io, event);
	case BLK_OP_SYNC:
		return FlushFileBuffers(disk) ? 0 : win_errno(GetLastError());
	case BLK_OP_PUNCH:
	case BLK_OP_ZERO:
		return zero(disk, io, event);
	case BLK_OP_SYNC_OTHER: /* BLK_OTHER and BLK_DEVICE are Linux's */
	case BLK_OP_DISCARD:
		break;
	}
	return -EINVAL;
}

const struct blk_engine_ops *blk_engine_find(uint32_t kind)
{
	return kind == BLK_ENGINE_THREADS ? &blk_threads : NULL;
}
