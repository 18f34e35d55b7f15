/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of vsock streams on Windows: named pipes (tests/lab/vsockpeer.c is the one for
 * sockets).
 *
 *   pipepeer echo P_PORT              serve that pipe: give back what comes until its end, then end
 *   pipepeer load P PORT N MAX SEED   N connections at once, each by the client's conversation
 *                                     (CONNECT, OK): sends up to MAX bytes, ends that direction,
 *                                     and must get the same bytes back, then the end
 *   pipepeer line P TEXT              open P, say TEXT (\n is a line's end), print what comes back
 *   pipepeer drop P PORT N            N times: connect, send a little, close without reading
 *
 * An empty message is the end of one direction (src/devices/vsock/vsock_host_win.c).
 */
#include <windows.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 20000u
#define MAX_LOAD 64
#define STALL_MS 60000

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "pipepeer: %s: error %lu\n", what, GetLastError());
	fflush(stderr);
	ExitProcess(1);
}

/* ---- pipes: overlapped, so that both directions of one can be used at once ---- */

/* Bytes, or -1: GetLastError(). */
static int finish(HANDLE pipe, OVERLAPPED *ov, BOOL ok)
{
	DWORD n = 0, error = ok ? 0 : GetLastError();

	if (error == ERROR_IO_PENDING) {
		if (WaitForSingleObject(ov->hEvent, STALL_MS) != WAIT_OBJECT_0)
			die("nothing happens");
		error = 0;
	}
	if (!error && !GetOverlappedResult(pipe, ov, &n, TRUE))
		error = GetLastError();
	else if (error == ERROR_MORE_DATA)
		n = (DWORD)ov->InternalHigh;
	CloseHandle(ov->hEvent);
	SetLastError(error);
	return error && error != ERROR_MORE_DATA ? -1 : (int)n;
}

static OVERLAPPED with_event(void)
{
	return (OVERLAPPED){.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
}

/* 0: the end of this direction, or of both. */
static int take(HANDLE pipe, void *buf, DWORD n)
{
	OVERLAPPED ov = with_event();
	int r = finish(pipe, &ov, ReadFile(pipe, buf, n, NULL, &ov));

	if (r < 0 && GetLastError() != ERROR_BROKEN_PIPE)
		die("read");
	return r < 0 ? 0 : r;
}

static bool give(HANDLE pipe, const void *buf, DWORD n)
{
	OVERLAPPED ov = with_event();

	return finish(pipe, &ov, WriteFile(pipe, buf, n, NULL, &ov)) == (int)n;
}

/* Somebody else may be quicker: the pipe is busy for a moment then. */
static HANDLE connect_to(const char *name)
{
	DWORD mode = PIPE_READMODE_MESSAGE, until = GetTickCount() + STALL_MS;
	HANDLE h;

	for (;;) {
		h = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
				FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS,
				NULL);
		if (h != INVALID_HANDLE_VALUE)
			break;
		if (GetLastError() != ERROR_PIPE_BUSY || GetTickCount() > until)
			die(name);
		WaitNamedPipeA(name, 1000);
	}
	if (!SetNamedPipeHandleState(h, &mode, NULL, NULL))
		die("a pipe that is not one of messages");
	return h;
}

/* "CONNECT <port>", "OK <port>". */
static HANDLE dial(const char *name, unsigned port)
{
	HANDLE h = connect_to(name);
	char line[32] = "";
	int n = snprintf(line, sizeof(line), "CONNECT %u\n", port);

	if (!give(h, line, (DWORD)n))
		die("CONNECT");
	memset(line, 0, sizeof(line));
	for (n = 0; n < (int)sizeof(line) - 1 && !strchr(line, '\n'); n++) {
		if (take(h, line + n, 1) != 1)
			die("no answer to CONNECT");
	}
	if (strncmp(line, "OK ", 3) != 0)
		die("a wrong answer to CONNECT");
	return h;
}

/* ---- echo ---- */

static DWORD WINAPI echo_one(void *arg)
{
	HANDLE h = arg;
	char buf[CHUNK];
	int n;

	while ((n = take(h, buf, sizeof(buf))) > 0 && give(h, buf, (DWORD)n))
		;
	give(h, buf, 0);
	/* Until the other side has read all of it, and has closed. */
	while (n == 0 && take(h, buf, sizeof(buf)) > 0)
		;
	CloseHandle(h);
	return 0;
}

static void echo(const char *name)
{
	for (;;) {
		HANDLE t, h = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
					       PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE |
						       PIPE_REJECT_REMOTE_CLIENTS,
					       PIPE_UNLIMITED_INSTANCES, 65536, 65536, 0, NULL);
		OVERLAPPED ov = with_event();

		if (h == INVALID_HANDLE_VALUE)
			die(name);
		printf("serving\n");
		if (!ConnectNamedPipe(h, &ov) && GetLastError() == ERROR_IO_PENDING)
			WaitForSingleObject(ov.hEvent, INFINITE);
		CloseHandle(ov.hEvent);
		t = CreateThread(NULL, 0, echo_one, h, 0, NULL);
		if (!t)
			die("thread");
		CloseHandle(t);
	}
}

/* ---- load ---- */

struct load {
	const char *name;
	unsigned port;
	HANDLE pipe;
	uint32_t seed, bytes;
};

static uint8_t next_byte(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (uint8_t)(*seed >> 24);
}

static DWORD WINAPI send_main(void *arg)
{
	const struct load *l = arg;
	uint32_t seed = l->seed, left = l->bytes;
	uint8_t buf[CHUNK];

	while (left) {
		uint32_t n = 1 + next_byte(&seed) * 78u;

		n = n < left ? n : left;
		for (uint32_t i = 0; i < n; i++)
			buf[i] = next_byte(&seed);
		if (!give(l->pipe, buf, n))
			die("write");
		left -= n;
	}
	if (!give(l->pipe, buf, 0))
		die("end of a direction");
	return 0;
}

static DWORD WINAPI load_main(void *arg)
{
	struct load *l = arg;
	uint32_t seed = l->seed, left = l->bytes, piece = 0;
	uint8_t buf[CHUNK];
	HANDLE sender;
	int n;

	l->pipe = dial(l->name, l->port);
	sender = CreateThread(NULL, 0, send_main, l, 0, NULL);
	while ((n = take(l->pipe, buf, sizeof(buf))) > 0) {
		for (int i = 0; i < n; i++, piece--, left--) {
			if (!left)
				die("more came back than was sent");
			if (!piece)
				piece = 1 + next_byte(&seed) * 78u;
			if (piece > left)
				piece = left;
			if (buf[i] != next_byte(&seed))
				die("another byte came back than was sent");
		}
	}
	if (left)
		die("not everything came back");
	WaitForSingleObject(sender, INFINITE);
	CloseHandle(sender);
	CloseHandle(l->pipe);
	return 0;
}

static void load(const char *name, unsigned port, unsigned n, uint32_t max, uint32_t seed)
{
	static struct load l[MAX_LOAD];
	HANDLE t[MAX_LOAD];

	if (n > MAX_LOAD)
		die("too many connections");
	for (unsigned i = 0; i < n; i++) {
		l[i] = (struct load){.name = name, .port = port, .seed = seed + i};
		l[i].bytes = n == 1 ? max : max / n * (i + 1);
		t[i] = CreateThread(NULL, 0, load_main, &l[i], 0, NULL);
	}
	WaitForMultipleObjects(n, t, TRUE, INFINITE);
	printf("all came back\n");
}

/* ---- others ---- */

static void line(const char *name, char *text)
{
	HANDLE h = connect_to(name);
	char buf[256];
	int n;

	for (char *p = text; (p = strstr(p, "\\n")); p++) {
		*p = '\n';
		memmove(p + 1, p + 2, strlen(p + 2) + 1);
	}
	if (!give(h, text, (DWORD)strlen(text)))
		die("write");
	while ((n = take(h, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	printf("end\n");
	CloseHandle(h);
}

static void drop(const char *name, unsigned port, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		HANDLE h = dial(name, port);

		if (!give(h, "something", 9))
			die("write");
		CloseHandle(h);
	}
	printf("dropped\n");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc == 3 && !strcmp(argv[1], "echo"))
		echo(argv[2]);
	else if (argc == 7 && !strcmp(argv[1], "load"))
		load(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]),
		     (uint32_t)atoi(argv[5]), (uint32_t)atoi(argv[6]));
	else if (argc == 4 && !strcmp(argv[1], "line"))
		line(argv[2], argv[3]);
	else if (argc == 5 && !strcmp(argv[1], "drop"))
		drop(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	else
		die("usage");
	return 0;
}
