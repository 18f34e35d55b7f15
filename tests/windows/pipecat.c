/* SPDX-License-Identifier: BSD-2-Clause */
/* A client of a named pipe, for tests/windows/daemon: pipecat NAME connects standard input to it
 * and it to standard output. Status 1: it is not there or does not let us in; 0: it has ended. */
#include <windows.h>

#include <stdio.h>

static DWORD do_one(HANDLE h, BOOL write, void *buf, DWORD len)
{
	OVERLAPPED ov = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	DWORD n = 0;
	BOOL ok = write ? WriteFile(h, buf, len, NULL, &ov) : ReadFile(h, buf, len, NULL, &ov);

	if (!ok && GetLastError() != ERROR_IO_PENDING)
		n = 0;
	else if (!GetOverlappedResult(h, &ov, &n, TRUE))
		n = 0;
	CloseHandle(ov.hEvent);
	return n;
}

static DWORD WINAPI upwards(void *arg)
{
	static char buf[65536];
	DWORD n, done;

	while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), buf, sizeof(buf), &n, NULL) && n) {
		for (DWORD at = 0; at < n; at += done) {
			done = do_one(arg, TRUE, buf + at, n - at);
			if (!done)
				return 0;
		}
	}
	ExitProcess(0); /* whoever uses it has enough */
}

int main(int argc, char **argv)
{
	static char buf[65536];
	HANDLE h = argc == 2 ? CreateFileA(argv[1], GENERIC_READ | GENERIC_WRITE, 0, NULL,
					   OPEN_EXISTING, FILE_FLAG_OVERLAPPED, NULL)
			     : INVALID_HANDLE_VALUE;
	DWORD n, done;

	if (h == INVALID_HANDLE_VALUE) {
		fprintf(stderr, "pipecat: error %lu\n", GetLastError());
		return 1;
	}
	CreateThread(NULL, 0, upwards, h, 0, NULL);
	while ((n = do_one(h, FALSE, buf, sizeof(buf))))
		WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), buf, n, &done, NULL);
	return 0;
}
