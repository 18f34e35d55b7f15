/* SPDX-License-Identifier: BSD-2-Clause */
/* What the programs for Windows stand on: events, words, sections, the channel, and the process
 * that is made with a list of handles (src/os/win, src/jail/spawn_win.c). */
#include <windows.h>

#include <errno.h>

#include "check.h"

#include <insula/base.h>

#include "os/win/win.h"
#include "jail/contain.h"

#define MS 1000000ull

/* ---- events and words ---- */

START_TEST(an_event_resets_itself)
{
	int e = event_create();

	ck_assert_int_ge(e, 0);
	ck_assert_uint_eq(event_drain(e), 0);
	event_signal(e);
	event_signal(e);
	ck_assert_uint_eq(event_drain(e), 1);
	ck_assert_uint_eq(event_drain(e), 0);
	fd_close(&e);
	ck_assert_int_eq(e, -1);
}
END_TEST

START_TEST(a_wait_takes_all_that_are_set)
{
	int e[EVENTS_MAX];
	uint64_t start;

	for (unsigned i = 0; i < EVENTS_MAX; i++)
		e[i] = event_create();
	event_signal(e[0]);
	event_signal(e[7]);
	event_signal(e[EVENTS_MAX - 1]);
	ck_assert_uint_eq(events_wait(e, EVENTS_MAX, -1, -1),
			  1u | 1u << 7 | UINT64_C(1) << (EVENTS_MAX - 1));
	ck_assert_uint_eq(events_wait(e, EVENTS_MAX, -1, 0), 0);
	start = clock_ns();
	ck_assert_uint_eq(events_wait(e, 3, -1, 50), 0);
	ck_assert_uint_ge(clock_ns() - start, 40 * MS);
	start = clock_ns();
	ck_assert_uint_eq(events_wait(NULL, 0, -1, 50), 0);
	ck_assert_uint_ge(clock_ns() - start, 40 * MS);
	for (unsigned i = 0; i < EVENTS_MAX; i++)
		fd_close(&e[i]);
}
END_TEST

struct word {
	_Atomic uint32_t value;
	int event; /* -1: within the process */
};

static void *change_word(void *arg)
{
	struct word *w = arg;

	Sleep(50);
	atomic_store(&w->value, 1);
	if (w->event < 0)
		word_wake(&w->value);
	else
		word_wake_shared(&w->value, w->event);
	return NULL;
}

START_TEST(words)
{
	struct word w = {.event = _i ? event_create() : -1};
	uint64_t start = clock_ns();
	pthread_t t;

	if (_i) {
		word_wait_shared(&w.value, 0, w.event, 30 * MS);
		ck_assert_uint_ge(clock_ns() - start, 20 * MS);
	}
	ck_assert_int_eq(pthread_create(&t, NULL, change_word, &w), 0);
	while (!atomic_load(&w.value)) {
		if (_i)
			word_wait_shared(&w.value, 0, w.event, 5000 * MS);
		else
			word_wait(&w.value, 0);
	}
	pthread_join(t, NULL);
	ck_assert_uint_lt(clock_ns() - start, 3000 * MS);
	if (_i) /* what has changed already is not waited for */
		word_wait_shared(&w.value, 0, w.event, 5000 * MS);
	ck_assert_uint_lt(clock_ns() - start, 3000 * MS);
}
END_TEST

/* ---- sections ---- */

START_TEST(sections)
{
	struct err e;
	int fd = shm_create("test", 0x30000, &e);
	uint8_t *all, *part;
	void *p = NULL;

	ck_assert_msg(fd >= 0, "%s", e.text);
	ck_assert_int_eq(shm_map(fd, 0x30000, 0, 0x30000, true, &p, &e), 0);
	all = p;
	for (unsigned i = 0; i < 0x30000; i += 0x1000)
		ck_assert_uint_eq(all[i], 0);
	ck_assert_int_eq(shm_map(fd, 0x30000, 0x10000, 0x20000, false, &p, &e), 0);
	part = p;
	all[0x10005] = 7;
	ck_assert_uint_eq(part[5], 7);
	ck_assert_int_lt(shm_map(fd, 0x30000, 0x20000, 0x20000, true, &p, &e), 0);
	/* Larger than it is. */
	ck_assert_int_lt(shm_map(fd, 0x80000, 0, 0x80000, true, &p, &e), 0);
	/* Who has it cannot make more of it than memory. */
	ck_assert_ptr_null(MapViewOfFile(fd_handle(fd), FILE_MAP_READ | FILE_MAP_EXECUTE, 0, 0, 0));
	shm_unmap(part, 0x20000);
	shm_unmap(all, 0x30000);
	fd_close(&fd);
}
END_TEST

/* ---- the channel ---- */

struct pair {
	HANDLE ours, theirs;
	struct channel c; /* reads what `theirs` says */
};

static void open_pair(struct pair *p)
{
	struct err e;

	ck_assert_msg(!pipe_pair(true, &p->ours, &p->theirs, &e), "%s", e.text);
	ck_assert_int_eq(channel_init(&p->c, p->ours), 0);
}

static void close_pair(struct pair *p)
{
	channel_free(&p->c);
	CloseHandle(p->ours);
	if (p->theirs)
		CloseHandle(p->theirs);
}

static void say(struct pair *p, const void *bytes, DWORD n)
{
	OVERLAPPED ov = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
	DWORD done = 0;

	WriteFile(p->theirs, bytes, n, NULL, &ov);
	ck_assert(GetOverlappedResult(p->theirs, &ov, &done, TRUE));
	ck_assert_uint_eq(done, n);
	CloseHandle(ov.hEvent);
}

START_TEST(messages_keep_their_edges)
{
	static struct pair p;
	uint8_t body[MSG_MAX_BODY], got[MSG_MAX_BODY];
	enum msg_type t;
	size_t len;

	open_pair(&p);
	ck_assert_uint_eq(WaitForSingleObject(channel_event(&p.c), 0), WAIT_TIMEOUT);
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (uint8_t)(i * 7);
	ck_assert_int_eq(msg_send(handle_fd(p.theirs), MSG_READY, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(msg_send(handle_fd(p.theirs), MSG_VM_EXIT, body, sizeof(body), NULL, 0),
			 0);
	ck_assert_uint_eq(WaitForSingleObject(channel_event(&p.c), 1000), WAIT_OBJECT_0);
	ck_assert_int_eq(channel_recv(&p.c, &t, got, sizeof(got), &len), 0);
	ck_assert(t == MSG_READY && len == 0);
	ck_assert_int_eq(channel_recv(&p.c, &t, got, sizeof(got), &len), 0);
	ck_assert(t == MSG_VM_EXIT && len == sizeof(body));
	ck_assert_mem_eq(got, body, sizeof(body));
	CloseHandle(p.theirs);
	p.theirs = NULL;
	ck_assert_uint_eq(WaitForSingleObject(channel_event(&p.c), 1000), WAIT_OBJECT_0);
	ck_assert_int_eq(channel_recv(&p.c, &t, got, sizeof(got), &len), -EPIPE);
	ck_assert_int_eq(channel_recv(&p.c, &t, got, sizeof(got), &len), -EPIPE);
	close_pair(&p);
}
END_TEST

/* Of an enemy: the header, and how many bytes follow it. */
static const struct {
	struct msg_hdr h;
	DWORD bytes;
} bad_messages[] = {
	{{MSG_VERSION + 1, MSG_READY, 0, 0}, 0},
	{{MSG_VERSION, MSG_READY, 1, 0}, 0},   /* shorter than it says */
	{{MSG_VERSION, MSG_READY, 0, 0}, 1},   /* longer */
	{{MSG_VERSION, MSG_READY, 65, 0}, 65}, /* than there is room for */
	{{MSG_VERSION, MSG_READY, UINT32_MAX, 0}, 3},
	{{MSG_VERSION, MSG_READY, 0, UINT32_MAX}, 4},
	{{MSG_VERSION, MSG_READY, 0, 1}, 4}, /* a handle: of ours, it would be */
	{{MSG_VERSION, MSG_READY, 8, MSG_MAX_FDS}, 8 + 4 * MSG_MAX_FDS},
	{{MSG_VERSION, MSG_READY, MSG_MAX_BODY, 0}, 3 * MSG_MAX_BODY}, /* than the buffer */
};

START_TEST(bad_message)
{
	static uint8_t bytes[sizeof(struct msg_hdr) + 3 * MSG_MAX_BODY];
	static struct pair p;
	uint8_t body[64];
	enum msg_type t;
	size_t len;

	open_pair(&p);
	memcpy(bytes, &bad_messages[_i].h, sizeof(struct msg_hdr));
	say(&p, bytes, (DWORD)sizeof(struct msg_hdr) + bad_messages[_i].bytes);
	ck_assert_int_eq(channel_recv(&p.c, &t, body, sizeof(body), &len), -EPROTO);
	close_pair(&p);
}
END_TEST

START_TEST(a_header_that_is_cut)
{
	static struct pair p;
	uint8_t body[64];
	enum msg_type t;
	size_t len;

	open_pair(&p);
	say(&p, "abc", 3);
	ck_assert_int_eq(channel_recv(&p.c, &t, body, sizeof(body), &len), -EPROTO);
	close_pair(&p);
}
END_TEST

START_TEST(who_does_not_read_is_not_waited_for)
{
	static struct pair p;
	static uint8_t body[MSG_MAX_BODY];
	uint64_t start = clock_ns();
	int rc = 0;

	open_pair(&p);
	for (unsigned i = 0; i < 1000 && !rc; i++)
		rc = msg_send(handle_fd(p.ours), MSG_STOP, body, sizeof(body), NULL, 0);
	ck_assert_int_eq(rc, -ETIMEDOUT);
	ck_assert_uint_lt(clock_ns() - start, 15000 * MS);
	close_pair(&p);
}
END_TEST

/* ---- a process ---- */

struct kid {
	struct pair p;
	HANDLE log, log_end;
	struct contained box;
};

static void start_kid(struct kid *k, const int *fds, unsigned n)
{
	struct contain_plan plan = {
		.kind = CONTAIN_HELPER, .program = "contained", .fds = fds, .nfds = n};
	static wchar_t path[1024];
	struct err e;
	wchar_t *name;

	ck_assert_uint_gt(GetModuleFileNameW(NULL, path, 1000), 0);
	name = wcsrchr(path, L'\\');
	wcscpy(name + 1, L"contained.exe");
	open_pair(&k->p);
	ck_assert_msg(!pipe_pair(false, &k->log, &k->log_end, &e), "%s", e.text);
	plan.path = path;
	plan.channel = k->p.theirs;
	plan.log = k->log_end;
	ck_assert_msg(!contain_spawn(&plan, &k->box, &e), "%s", e.text);
	CloseHandle(k->p.theirs);
	k->p.theirs = NULL;
	CloseHandle(k->log_end);
}

static void end_kid(struct kid *k)
{
	close_pair(&k->p);
	CloseHandle(k->log);
	CloseHandle(k->box.process);
	CloseHandle(k->box.job);
}

START_TEST(a_child_has_what_it_is_given)
{
	static struct kid k;
	int fds[3] = {event_create(), event_create(), event_create()};
	struct msg_stats s;
	enum msg_type t;
	DWORD code = 99;
	size_t len;

	/* All can be inherited; the second is not in the list. */
	start_kid(&k, (int[]){fds[0], fds[2]}, 2);
	ck_assert_int_eq(msg_send(handle_fd(k.p.ours), MSG_START, NULL, 0, fds, 3), 0);
	ck_assert_int_eq(channel_recv(&k.p.c, &t, &s, sizeof(s), &len), 0);
	ck_assert(t == MSG_STOPPED && len == sizeof(s));
	ck_assert_uint_eq(s.n[0], 5);
	/* The end of its channel is its end. */
	channel_free(&k.p.c);
	CloseHandle(k.p.ours);
	ck_assert_uint_eq(WaitForSingleObject(k.box.process, 5000), WAIT_OBJECT_0);
	ck_assert(GetExitCodeProcess(k.box.process, &code) && code == 0);
	CloseHandle(k.box.process);
	CloseHandle(k.box.job);
	CloseHandle(k.log);
}
END_TEST

START_TEST(the_job_is_its_life)
{
	static struct kid k;
	HANDLE process;

	start_kid(&k, NULL, 0);
	ck_assert(DuplicateHandle(GetCurrentProcess(), k.box.process, GetCurrentProcess(), &process,
				  0, FALSE, DUPLICATE_SAME_ACCESS));
	ck_assert_uint_eq(WaitForSingleObject(process, 200), WAIT_TIMEOUT);
	CloseHandle(k.box.job);
	ck_assert_uint_eq(WaitForSingleObject(process, 5000), WAIT_OBJECT_0);
	CloseHandle(process);
	k.box.job = NULL;
	end_kid(&k);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("win");
	TCase *t = tcase_create("win");
	SRunner *sr;
	int failed;

	tcase_add_test(t, an_event_resets_itself);
	tcase_add_test(t, a_wait_takes_all_that_are_set);
	tcase_add_loop_test(t, words, 0, 2);
	tcase_add_test(t, sections);
	tcase_add_test(t, messages_keep_their_edges);
	tcase_add_loop_test(t, bad_message, 0, (int)ARRAY_LEN(bad_messages));
	tcase_add_test(t, a_header_that_is_cut);
	tcase_add_test(t, who_does_not_read_is_not_waited_for);
	tcase_add_test(t, a_child_has_what_it_is_given);
	tcase_add_test(t, the_job_is_its_life);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
