/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-exec against insula-init's server, both with their real code, on this machine: the server
 * listens on an AF_UNIX socket in a process of its own, the other side is exec_loop() in another
 * one, without a jail, and the test is the supervisor and the user. Then a server that lies.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <insula/base.h>

#include "exec/exec.h"
#include "guest/agent.h"

#define PATIENCE_MS 10000
#define RESUME_MS 3000 /* instead of AGENT_RESUME_MS */

/* A hello of 32 bytes, of the command with the number 1. */
#define HELLO 24, GP_HELLO, GP_MAGIC, 1, 1, 0, 0, 0

static int listener; /* of the server */
static pid_t server;
static int finished[2]; /* a byte for every agent_ops.finish() */
static int answer[2];   /* the status of the program that asks the root's own init */

/* ---- the server ---- */

/* Not kill(-1): this is not PID 1 of a guest. The children of this process, orphans included. */
static void kill_children(void)
{
	char path[64], line[4096] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f))
		for (char *save = NULL, *p = strtok_r(line, " ", &save); p;
		     p = strtok_r(NULL, " ", &save))
			kill((pid_t)atoi(p), SIGKILL);
	if (f)
		fclose(f);
}

static pid_t ask_init(void)
{
	pid_t pid = fork();
	char status = 99;

	if (pid == 0) {
		signal(SIGTERM, SIG_DFL);
		(void)!write(finished[1], "a", 1);
		(void)!read(answer[0], &status, 1);
		_exit(status);
	}
	return pid;
}

static void finish(void)
{
	(void)!write(finished[1], "f", 1);
}

static void end_machine(const struct gp_poweroff *how)
{
	(void)!write(finished[1], how->how == GP_END_STATUS ? "s" : "p", 1);
}

/* It says what the frame was: "t" a clock that is right, "s" the seed. */
static void resumed(const struct gp_resumed *r, char why[GP_TEXT_LEN])
{
	struct timespec t;
	int64_t late;
	uint8_t seed[GP_SEED_LEN];

	clock_gettime(CLOCK_REALTIME, &t);
	late = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - (int64_t)r->clock_ns;
	if ((r->flags & GP_RESUMED_CLOCK) && late >= 0 && late < 5000000000)
		(void)!write(finished[1], "t", 1);
	memset(seed, 's', sizeof(seed));
	if (!memcmp(r->seed, seed, sizeof(seed)))
		(void)!write(finished[1], "s", 1);
	if (r->ncards == 2)
		note(why, "clock: no");
}

/* In a process of its own: it may take its time, and the server goes on meanwhile. */
static void renew(char *const *strings, char why[GP_TEXT_LEN])
{
	const char *vm = strings[GP_NAME_VM];

	if (!strcmp(vm, "slow"))
		sleep(1);
	if (!strcmp(vm, "dies"))
		raise(SIGKILL);
	for (unsigned i = GP_RESUMED_NAMES; i < GP_RESUMED_NAMES + GP_CARDS_MAX && strings[i]; i++)
		note(why, "%s: no", strings[i]);
	(void)!write(finished[1], strings[GP_NAME_HOST], strlen(strings[GP_NAME_HOST]));
}

/* The machine is gone, and with it the streams. */
static void leave(int signo)
{
	(void)!write(finished[1],
		     signo == SIGTERM   ? "R"
		     : signo == SIGUSR2 ? "P"
		     : signo == SIGUSR1 ? "H"
					: "?",
		     1);
	_exit(0);
}

static void serve(void)
{
	static const struct agent_ops ops = {ask_init, kill_children, finish, end_machine,
					     leave,    resumed,       renew};
	static struct agent a;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (agent_init(&a, listener, &ops))
		_exit(1);
	a.resume_ms = RESUME_MS;
	for (;;)
		agent_step(&a, -1);
}

static void setup(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe2(finished, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(answer, O_CLOEXEC), 0);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(listener, 0);
	/* Without a name: the kernel chooses an abstract one. */
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, sizeof(sa_family_t)), 0);
	ck_assert_int_eq(listen(listener, 64), 0);
	server = fork();
	if (server == 0)
		serve();
}

static void teardown(void)
{
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	close(listener);
	fd_close(&finished[0]);
	fd_close(&finished[1]);
	fd_close(&answer[0]);
	fd_close(&answer[1]);
}

static int connect_server(void)
{
	struct sockaddr_un un;
	socklen_t len = sizeof(un);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&un, &len), 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, len), 0);
	return fd;
}

/* ---- a command ---- */

struct run {
	pid_t pid;
	int channel, in, out, err; /* our ends; -1 */
};

struct how {
	unsigned flags;
	const char *cwd;
	char *const *env;
	uint32_t uid;
	int out, err; /* the user's descriptors instead of pipes; 0: a pipe */
	int stream;   /* instead of the server; 0 */
	uint32_t id;  /* 0: one that no other has */
	bool escape;
	const char *const *resumed; /* instead of a command: GP_RESUMED with these strings ... */
	uint32_t ncards;            /* ... and so many cards */
};

static int resumed_fd(const struct how *h, uint32_t *len)
{
	struct gp_resumed r = {.flags = GP_RESUMED_CLOCK, .ncards = h->ncards};
	uint8_t body[GP_RESUMED_MAX];
	int fd = memfd_create("spec", MFD_CLOEXEC), n;

	memset(r.seed, 's', sizeof(r.seed));
	n = gp_resumed_build(body, sizeof(body), &r, h->resumed);
	ck_assert_int_gt(n, 0);
	*len = (uint32_t)n;
	ck_assert_int_eq(write(fd, body, (size_t)n), n);
	return fd;
}

static int spec_fd(const struct how *h, char *const *argv, uint32_t *len)
{
	static uint8_t body[GP_START_MAX];
	struct gp_start s = {
		.flags = h->flags, .uid = h->uid, .gid = GP_NO_GID, .rows = 33, .cols = 77};
	int fd = memfd_create("spec", MFD_CLOEXEC);
	int n = gp_start_build(body, sizeof(body), &s, h->cwd ? h->cwd : "/", NULL, argv, h->env);

	ck_assert_int_gt(n, 0);
	*len = (uint32_t)n;
	ck_assert_int_eq(write(fd, body, (size_t)n), n);
	return fd;
}

static void child(const struct how *h, int channel, int stream, int spec, uint32_t len, int out,
		  int err, int in)
{
	const struct msg_start_exec m = {.flags = h->escape    ? EXEC_ESCAPE
						  : h->resumed ? EXEC_RESUMED
							       : 0,
					 .start_len = len,
					 .id = h->id ? h->id : (uint32_t)getpid()};
	static struct exec x;
	struct err e;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	helper_signals();
	if (exec_open(&x, &m, channel, stream, spec, out, err, in, &e) || exec_threads(&x, &e))
		_exit(1);
	_exit(exec_loop(&x) ? 1 : 0);
}

static void start(struct run *r, const struct how *h, char *const *argv)
{
	int ch[2], in[2] = {-1, -1}, out[2] = {-1, h->out}, err[2] = {-1, h->err};
	uint32_t len;
	/* The stream first: its place must be the lowest that is free once it is closed. */
	int stream = h->stream ? h->stream : connect_server();
	int spec = h->resumed ? resumed_fd(h, &len) : spec_fd(h, argv, &len);

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ch), 0);
	if (h->flags & GP_START_STDIN)
		ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
	if (!h->out)
		ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	if (!h->err)
		ck_assert_int_eq(pipe2(err, O_CLOEXEC), 0);
	r->pid = fork();
	if (r->pid == 0) {
		fd_close(&ch[0]);
		fd_close(&in[1]);
		fd_close(&out[0]);
		fd_close(&err[0]);
		child(h, ch[1], stream, spec, len, out[1], err[1], in[0]);
	}
	close(ch[1]);
	close(stream);
	close(spec);
	fd_close(&in[0]);
	if (!h->out)
		close(out[1]);
	if (!h->err)
		close(err[1]);
	*r = (struct run){
		.pid = r->pid, .channel = ch[0], .in = in[1], .out = out[0], .err = err[0]};
}

#define SH(text) ((char *const[]){"sh", "-c", text, NULL})

static bool ready(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, ms) == 1;
}

/* The next stream; -1: there is none. */
static int give_stream(struct run *r, int fd)
{
	return msg_send(r->channel, MSG_EXEC_STREAM, NULL, 0, &fd, fd >= 0);
}

/* The next message of this type, others skipped; a stream that has ended has no successor. */
static void message(struct run *r, enum msg_type want, void *body, size_t size)
{
	int fds[MSG_MAX_FDS];
	enum msg_type type = MSG_GO;
	unsigned nfds;
	size_t len;

	while (type != want) {
		ck_assert_msg(ready(r->channel, PATIENCE_MS), "no message %d", (int)want);
		ck_assert_int_eq(msg_recv(r->channel, &type, body, size, &len, fds, &nfds), 0);
		if (type == MSG_EXEC_BROKEN && want != MSG_EXEC_BROKEN)
			ck_assert_int_eq(give_stream(r, -1), 0);
	}
}

static struct msg_exec_exit wait_exit(struct run *r)
{
	struct msg_exec_exit x = {0};

	message(r, MSG_EXEC_EXIT, &x, sizeof(x));
	return x;
}

/* Its own descriptors too, but for one that somebody still reads (NULL: all). */
static void stop_keeping(struct run *r, int *keep)
{
	int status;

	ck_assert_int_eq(msg_send(r->channel, MSG_STOP, NULL, 0, NULL, 0), 0);
	ck_assert_int_eq(waitpid(r->pid, &status, 0), r->pid);
	ck_assert_int_eq(status, 0);
	fd_close(&r->channel);
	fd_close(&r->in);
	if (keep != &r->out)
		fd_close(&r->out);
	fd_close(&r->err);
}

static void stop(struct run *r)
{
	stop_keeping(r, NULL);
}

/* All `n` bytes, or -1. */
static int read_full_stream(int fd, uint8_t *buf, size_t n)
{
	for (ssize_t r; n; buf += r, n -= (size_t)r) {
		r = ready(fd, PATIENCE_MS) ? read(fd, buf, n) : -1;
		if (r <= 0)
			return -1;
	}
	return 0;
}

/* Everything until the end of the pipe, at most size - 1 bytes. */
static size_t slurp(int fd, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t r = 1;

	while (r > 0 && n < size - 1 && ready(fd, PATIENCE_MS)) {
		r = read(fd, buf + n, size - 1 - n);
		n += r > 0 ? (size_t)r : 0;
	}
	buf[n] = 0;
	return n;
}

/* Run to the end; what it printed is in the buffers. */
static struct msg_exec_exit run(const struct how *h, char *const *argv, char *out, char *err,
				size_t size)
{
	struct run r;
	struct msg_exec_exit x;

	start(&r, h, argv);
	fd_close(&r.in);
	x = wait_exit(&r);
	ck_assert_int_eq(msg_send(r.channel, MSG_STOP, NULL, 0, NULL, 0), 0);
	if (out)
		slurp(r.out, out, size);
	if (err)
		slurp(r.err, err, size);
	waitpid(r.pid, NULL, 0);
	fd_close(&r.channel);
	fd_close(&r.out);
	fd_close(&r.err);
	return x;
}

static void ck_exit(struct msg_exec_exit x, uint32_t end, uint32_t value)
{
	ck_assert_msg(x.end == end && x.value == value, "%u %u '%s'", x.end, x.value, x.text);
}

START_TEST(streams_and_status)
{
	char out[256], err[256];
	struct msg_exec_exit x = run(&(struct how){0}, SH("echo to out; echo to err >&2; exit 3"),
				     out, err, sizeof(out));

	ck_exit(x, EXEC_CODE, 3);
	ck_assert_str_eq(out, "to out\n");
	ck_assert_str_eq(err, "to err\n");
}
END_TEST

START_TEST(signal_status)
{
	ck_exit(run(&(struct how){0}, SH("kill -9 $$"), NULL, NULL, 0), EXEC_SIGNALED, 9);
	ck_exit(run(&(struct how){0}, SH("kill -TERM $$"), NULL, NULL, 0), EXEC_SIGNALED, 15);
}
END_TEST

START_TEST(refused)
{
	char *const missing[] = {"/no/such/program", NULL}, *const name[] = {"no-such-program",
									     NULL};
	char *const file[] = {"/etc", NULL};
	struct msg_exec_exit x = run(&(struct how){0}, missing, NULL, NULL, 0);

	ck_exit(x, EXEC_REFUSED, 127);
	ck_assert_str_eq(x.text, "/no/such/program: command not found");
	x = run(&(struct how){0}, name, NULL, NULL, 0);
	ck_exit(x, EXEC_REFUSED, 127);
	x = run(&(struct how){0}, file, NULL, NULL, 0);
	ck_exit(x, EXEC_REFUSED, 126);
	x = run(&(struct how){.cwd = "/nowhere"}, SH("true"), NULL, NULL, 0);
	ck_exit(x, EXEC_REFUSED, 126);
	ck_assert_str_eq(x.text, "/nowhere: No such file or directory");
}
END_TEST

START_TEST(environment)
{
	char *const env[] = {"A=two words", "HOME=/x", "A=b", "TERM=vt100", NULL};
	char out[512];

	run(&(struct how){.env = env, .cwd = "/tmp"},
	    SH("echo $A $HOME $USER $TERM $PWD; cat; echo end"), out, NULL, sizeof(out));
	ck_assert_str_eq(out, "b /x root vt100 /tmp\nend\n");
}
END_TEST

START_TEST(user)
{
	char out[512];
	struct msg_exec_exit x;

	if (geteuid())
		return;
	x = run(&(struct how){.uid = 54321}, SH("id -u; id -g; echo $HOME $USER; id -G"), out, NULL,
		sizeof(out));
	ck_exit(x, EXEC_CODE, 0);
	ck_assert_str_eq(out, "54321\n54321\n/ 54321\n54321\n");
}
END_TEST

/* ---- amounts ---- */

struct pour {
	int fd;
	size_t n;
};

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

static void *pour(void *arg)
{
	struct pour *p = arg;
	uint8_t buf[5000];

	for (size_t at = 0; at < p->n;) {
		size_t n = p->n - at < sizeof(buf) ? p->n - at : sizeof(buf);
		ssize_t w;

		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		w = write(p->fd, buf, n);
		if (w <= 0)
			break;
		at += (size_t)w;
	}
	close(p->fd);
	return NULL;
}

/* Through the command and back, byte for byte. */
START_TEST(amount)
{
	const size_t n = 30u << 20;
	struct run r;
	struct pour p;
	pthread_t t;
	static uint8_t buf[65536];
	size_t at = 0;
	ssize_t got;

	start(&r, &(struct how){.flags = GP_START_STDIN}, SH("cat; exit 4"));
	p = (struct pour){r.in, n};
	r.in = -1;
	ck_assert_int_eq(pthread_create(&t, NULL, pour, &p), 0);
	while (at < n && (got = read(r.out, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < got; i++, at++)
			if (buf[i] != pattern(at))
				ck_abort_msg("byte %zu differs", at);
	ck_assert_uint_eq(at, n);
	pthread_join(t, NULL);
	ck_exit(wait_exit(&r), EXEC_CODE, 4);
	stop(&r);
}
END_TEST

/* In, and not a byte out. */
START_TEST(amount_in)
{
	struct run r;
	struct pour p;
	pthread_t t;
	char out[32];

	start(&r, &(struct how){.flags = GP_START_STDIN}, SH("wc -c"));
	p = (struct pour){r.in, 8u << 20};
	r.in = -1;
	ck_assert_int_eq(pthread_create(&t, NULL, pour, &p), 0);
	ck_exit(wait_exit(&r), EXEC_CODE, 0);
	ck_assert_int_gt(read(r.out, out, sizeof(out)), 0);
	ck_assert_int_eq(atoi(out), 8 << 20);
	pthread_join(t, NULL);
	stop(&r);
}
END_TEST

/* What is in the ring goes out to its last byte, also when it lies around the ring's end and no
 * thread wakes the main one any more. */
START_TEST(input_around_the_end)
{
	const uint32_t hello[] = {HELLO};
	static struct exec x;
	struct msg_start_exec m = {.id = 1};
	int ch[2], sv[2];
	int spec = spec_fd(&(struct how){.flags = GP_START_STDIN}, SH("cat"), &m.start_len);
	char buf[4096];
	size_t n = 0, want;
	struct err e;
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ch), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	ck_assert_int_eq(exec_open(&x, &m, ch[1], sv[1], spec, 1, 2, 0, &e), 0);
	x.in.head = GP_WINDOW_IN + 100;
	x.in.tail = GP_WINDOW_IN - 100;
	x.in_eof = true;
	want = sizeof(hello) + GP_HDR_LEN + m.start_len + 2 * (GP_HDR_LEN + 100) + GP_HDR_LEN;
	pid = fork();
	if (pid == 0)
		_exit(exec_loop(&x) ? 1 : 0);
	ck_assert_int_eq(write(sv[0], hello, sizeof(hello)), sizeof(hello));
	while (n < want && ready(sv[0], 2000))
		n += (size_t)read(sv[0], buf + n, sizeof(buf) - n);
	ck_assert_uint_eq(n, want);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
END_TEST

/* The end of a lot of output must not be lost when the command ends at once. */
START_TEST(last_bytes)
{
	static char out[1 << 20];
	struct msg_exec_exit x;
	struct run r;

	start(&r, &(struct how){0},
	      SH("head -c 300000 /dev/zero; head -c 100 /dev/zero | tr '\\0' e"));
	usleep(100000); /* it is stuck in its pipe now, or ended */
	ck_assert_uint_eq(slurp(r.out, out, 300101), 300100);
	ck_assert_int_eq(out[300099], 'e');
	x = wait_exit(&r);
	ck_exit(x, EXEC_CODE, 0);
	stop(&r);
}
END_TEST

START_TEST(reader_gone)
{
	struct run r;
	struct msg_exec_exit x;
	char buf[16];

	start(&r, &(struct how){0}, SH("exec yes"));
	ck_assert_int_gt(read(r.out, buf, sizeof(buf)), 0);
	fd_close(&r.out);
	x = wait_exit(&r);
	ck_exit(x, EXEC_SIGNALED, SIGPIPE);
	ck_assert_uint_eq(x.flags, 0);
	stop(&r);
}
END_TEST

START_TEST(disk_full)
{
	struct run r;
	struct msg_exec_exit x;

	start(&r, &(struct how){.out = open("/dev/full", O_WRONLY | O_CLOEXEC)}, SH("exec yes"));
	x = wait_exit(&r);
	ck_exit(x, EXEC_SIGNALED, SIGPIPE);
	ck_assert_uint_eq(x.flags, EXEC_OUTPUT_LOST);
	ck_assert_str_eq(x.text, "standard output: No space left on device");
	stop(&r);
}
END_TEST

/* A stream that nobody reads stops neither the other one, nor a signal, nor another command. */
START_TEST(one_stream_blocks)
{
	struct msg_exec_signal s = {SIGUSR1};
	struct run r;
	char buf[64] = "";

	start(&r, &(struct how){0},
	      SH("trap 'echo signaled >&2' USR1; (trap '' USR1; exec yes) & echo errors >&2; wait; "
		 "wait"));
	ck_assert(ready(r.err, PATIENCE_MS));
	ck_assert_int_gt(read(r.err, buf, sizeof(buf) - 1), 0);
	ck_assert_str_eq(buf, "errors\n");
	usleep(200000); /* the output is full up to the last buffer */
	ck_exit(run(&(struct how){0}, SH("exit 5"), NULL, NULL, 0), EXEC_CODE, 5);
	ck_assert_int_eq(msg_send(r.channel, MSG_EXEC_SIGNAL, &s, sizeof(s), NULL, 0), 0);
	message(&r, MSG_EXEC_SIGNALED, buf, sizeof(buf));
	ck_assert(ready(r.err, PATIENCE_MS));
	memset(buf, 0, sizeof(buf));
	ck_assert_int_gt(read(r.err, buf, sizeof(buf) - 1), 0);
	ck_assert_ptr_nonnull(strstr(buf, "signaled"));
	/* First the signal, or the command could end by itself because nobody reads any more. */
	s.signo = SIGKILL;
	ck_assert_int_eq(msg_send(r.channel, MSG_EXEC_SIGNAL, &s, sizeof(s), NULL, 0), 0);
	message(&r, MSG_EXEC_SIGNALED, buf, sizeof(buf));
	fd_close(&r.out);
	ck_exit(wait_exit(&r), EXEC_SIGNALED, SIGKILL);
	stop(&r);
}
END_TEST

/* The command reads nothing, or closes its input: whoever writes is stopped, or told. */
START_TEST(input_unread)
{
	struct run r;
	struct pour p;
	pthread_t t;

	start(&r, &(struct how){.flags = GP_START_STDIN},
	      SH("exec 0<&-; echo closed; sleep 0.3; exit 6"));
	p = (struct pour){r.in, 8u << 20};
	r.in = -1;
	ck_assert_int_eq(pthread_create(&t, NULL, pour, &p), 0);
	ck_exit(wait_exit(&r), EXEC_CODE, 6);
	stop(&r);
	pthread_join(t, NULL);
}
END_TEST

/* ---- ends ---- */

static bool ends_soon(pid_t pid, int ms)
{
	while (ms > 0 && kill(pid, 0) == 0) {
		usleep(20000);
		ms -= 20;
	}
	return ms > 0;
}

START_TEST(background_child)
{
	uint64_t before = clock_ns();
	char out[64];
	struct msg_exec_exit x =
		run(&(struct how){0}, SH("sleep 100 & echo $!; exit 2"), out, NULL, sizeof(out));

	ck_exit(x, EXEC_CODE, 2);
	ck_assert_uint_lt(clock_ns() - before, 3000000000ull);
	/* It may go on: that is what "&" means. */
	ck_assert_int_eq(kill((pid_t)atoi(out), SIGKILL), 0);
}
END_TEST

/* Read and throw away until the command has ended. */
static struct msg_exec_exit drain_until_exit(struct run *r)
{
	static char buf[65536];
	uint64_t before = clock_ns();
	struct msg_exec_exit x = {0};
	enum msg_type type = MSG_GO;

	while (type != MSG_EXEC_EXIT) {
		struct pollfd p[] = {{r->channel, POLLIN, 0}, {r->out, POLLIN, 0}};
		int fds[MSG_MAX_FDS];
		unsigned nfds;
		size_t len;

		ck_assert(poll(p, 2, PATIENCE_MS) > 0 && clock_ns() - before < 8000000000ull);
		if (p[1].revents)
			(void)!read(r->out, buf, sizeof(buf));
		if (p[0].revents)
			ck_assert_int_eq(
				msg_recv(r->channel, &type, &x, sizeof(x), &len, fds, &nfds), 0);
	}
	return x;
}

START_TEST(background_flood)
{
	struct run r;
	char pid[16] = "";

	start(&r, &(struct how){0}, SH("yes & echo $! >&2; exit 2"));
	ck_assert(ready(r.err, PATIENCE_MS));
	ck_assert_int_gt(read(r.err, pid, sizeof(pid) - 1), 0);
	ck_exit(drain_until_exit(&r), EXEC_CODE, 2);
	stop(&r);
	/* Nobody reads what it writes any more. */
	ck_assert(ends_soon((pid_t)atoi(pid), 3000));
}
END_TEST

START_TEST(only_task)
{
	uint64_t before = clock_ns();
	char out[64];
	struct msg_exec_exit x = run(&(struct how){.flags = GP_START_ONLY},
				     SH("sleep 100 & echo $!; exit 2"), out, NULL, sizeof(out));
	char byte;

	ck_exit(x, EXEC_CODE, 2);
	ck_assert_uint_lt(clock_ns() - before, 3000000000ull);
	ck_assert_int_eq(kill((pid_t)atoi(out), 0), -1); /* killed */
	ck_assert(ready(finished[0], 0));                /* before the exit was said */
	ck_assert_int_eq(read(finished[0], &byte, 1), 1);
	ck_assert_int_eq(byte, 'f');
}
END_TEST

/* insula-exec is killed: the command's processes go, the server stays. */
START_TEST(stream_dies)
{
	struct run r;
	char buf[32] = "";

	start(&r, &(struct how){0}, SH("trap '' HUP; echo $$; sleep 100"));
	ck_assert(ready(r.out, PATIENCE_MS));
	ck_assert_int_gt(read(r.out, buf, sizeof(buf) - 1), 0);
	kill(r.pid, SIGKILL);
	waitpid(r.pid, NULL, 0);
	ck_assert(ends_soon((pid_t)atoi(buf), RESUME_MS + AGENT_KILL_MS + 2000));
	ck_exit(run(&(struct how){0}, SH("exit 5"), NULL, NULL, 0), EXEC_CODE, 5);
	fd_close(&r.channel);
}
END_TEST

/* The supervisor gives it up: at once, although another stream could come. */
START_TEST(given_up)
{
	struct run r;
	char buf[32] = "";

	start(&r, &(struct how){0}, SH("echo $$; sleep 100"));
	ck_assert(ready(r.out, PATIENCE_MS));
	ck_assert_int_gt(read(r.out, buf, sizeof(buf) - 1), 0);
	stop(&r);
	ck_assert(ends_soon((pid_t)atoi(buf), RESUME_MS / 2));
}
END_TEST

/* ---- insula-vsock dies: the stream ends, and another one follows ---- */

/* Copy from one to the other, at most *left bytes; what is beyond is taken and lost. */
static bool copy(int from, int to, size_t *left)
{
	char buf[3000];
	ssize_t n = read(from, buf, sizeof(buf));
	size_t want = n > 0 ? (size_t)n : 0;

	want = want < *left ? want : *left;
	for (size_t at = 0; at < want;) {
		ssize_t w = write(to, buf + at, want - at);

		if (w <= 0)
			return false;
		at += (size_t)w;
	}
	*left -= want;
	return n > 0 && *left;
}

static void carry(int a, int b, size_t left)
{
	struct pollfd p[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
	bool going = true;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Not the ends of the command's pipes. */
	for (int i = 3; i < 200; i++)
		if (i != a && i != b)
			close(i);
	while (going && poll(p, 2, -1) > 0)
		going = (!p[0].revents || copy(a, b, &left)) &&
			(!p[1].revents || copy(b, a, &left));
	_exit(0);
}

/* A stream to the server that ends when so many bytes have gone through it, both ways together. */
static int mortal(size_t bytes)
{
	int sv[2], to;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	to = connect_server();
	if (fork() == 0) {
		close(sv[0]);
		carry(sv[1], to, bytes);
	}
	close(sv[1]);
	close(to);
	fcntl(sv[0], F_SETFL, O_NONBLOCK);
	return sv[0];
}

struct check {
	int fd;
	size_t n, wrong;
};

static void *check(void *arg)
{
	struct check *c = arg;
	uint8_t buf[8000];
	ssize_t got;

	while ((got = read(c->fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < got; i++, c->n++)
			c->wrong += buf[i] != pattern(c->n);
	return NULL;
}

/* Every message until the end; a stream that has ended is followed by one that lives longer. */
static struct msg_exec_exit survive(struct run *r, size_t bytes, unsigned *broken)
{
	struct msg_exec_exit x = {0};
	enum msg_type type = MSG_GO;
	int fds[MSG_MAX_FDS], fd;
	unsigned nfds;
	size_t len;

	for (*broken = 0; type != MSG_EXEC_EXIT; *broken += type == MSG_EXEC_BROKEN) {
		ck_assert(ready(r->channel, PATIENCE_MS));
		ck_assert_int_eq(msg_recv(r->channel, &type, &x, sizeof(x), &len, fds, &nfds), 0);
		if (type != MSG_EXEC_BROKEN)
			continue;
		bytes = bytes < 100000 ? bytes + bytes / 4 + 1 : bytes + 30000;
		fd = mortal(bytes);
		ck_assert_int_eq(give_stream(r, fd), 0);
		close(fd);
	}
	return x;
}

static const size_t first_life[] = {0, 1, 40, 70, 150, 5000, 70000};

/* Through the command and back, byte for byte, with the connection ending anywhere. */
START_TEST(streams_go_on)
{
	const size_t n = 3u << 20;
	struct run r;
	struct pour p;
	struct check c = {.n = 0};
	struct msg_exec_exit x;
	pthread_t in, out;
	unsigned broken;

	start(&r, &(struct how){.flags = GP_START_STDIN, .stream = mortal(first_life[_i])},
	      SH("cat; exit 4"));
	p = (struct pour){r.in, n};
	c.fd = r.out;
	r.in = -1;
	ck_assert_int_eq(pthread_create(&in, NULL, pour, &p), 0);
	ck_assert_int_eq(pthread_create(&out, NULL, check, &c), 0);
	x = survive(&r, first_life[_i], &broken);
	ck_exit(x, EXEC_CODE, 4);
	stop_keeping(&r, &r.out);
	pthread_join(in, NULL);
	pthread_join(out, NULL);
	ck_assert_uint_eq(c.n, n);
	ck_assert_uint_eq(c.wrong, 0);
	ck_assert_uint_gt(broken, 5);
}
END_TEST

/* The command is started once, whenever the first streams end. */
START_TEST(started_once)
{
	char name[] = "/tmp/test_exec.XXXXXX", text[128];
	int fd = mkstemp(name);
	struct stat st;

	ck_assert_int_ge(fd, 0);
	snprintf(text, sizeof(text), "echo x >>%s; exit 5", name);
	for (size_t bytes = 0; bytes < 220; bytes += 3) {
		unsigned broken;
		struct run r;

		start(&r, &(struct how){.stream = mortal(bytes)}, SH(text));
		ck_exit(survive(&r, 1 << 20, &broken), EXEC_CODE, 5);
		stop(&r);
		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_int_eq(st.st_size, 2);
		ck_assert_int_eq(ftruncate(fd, 0), 0);
	}
	close(fd);
	unlink(name);
}
END_TEST

/* A host that does not come back in time finds nothing, and is told so. */
START_TEST(too_late)
{
	struct msg_exec_exit x = {0};
	struct run r;
	char buf[32] = "";
	int fd;

	/* So much that the first line has come, even if frames of the other stream overtook it. */
	start(&r, &(struct how){.stream = mortal(100000)}, SH("echo $$; exec yes >&2"));
	message(&r, MSG_EXEC_BROKEN, &x, sizeof(x));
	fd_close(&r.err); /* or it would wait until what came is written */
	ck_assert_int_gt(read(r.out, buf, sizeof(buf) - 1), 0);
	ck_assert(ends_soon((pid_t)atoi(buf), RESUME_MS + AGENT_KILL_MS + 2000));
	fd = mortal(1 << 20);
	ck_assert_int_eq(give_stream(&r, fd), 0);
	close(fd);
	x = wait_exit(&r);
	ck_exit(x, EXEC_LOST, 0);
	ck_assert_str_eq(x.text, "the guest has given the command up");
	stop(&r);
}
END_TEST

START_TEST(server_dies)
{
	struct run r;
	struct msg_exec_exit x;
	char buf[32];

	start(&r, &(struct how){0}, SH("echo here; exec sleep 5"));
	ck_assert(ready(r.out, PATIENCE_MS));
	kill(server, SIGKILL);
	x = wait_exit(&r);
	ck_exit(x, EXEC_LOST, 0);
	ck_assert_str_eq(x.text, "the stream ended");
	ck_assert_int_eq(read(r.out, buf, sizeof(buf)), 5);
	stop(&r);
}
END_TEST

START_TEST(many_at_once)
{
	struct run r[20];
	char buf[16];

	for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
		snprintf(buf, sizeof(buf), "exit %u", i);
		start(&r[i], &(struct how){0}, SH(buf));
	}
	for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
		ck_exit(wait_exit(&r[i]), EXEC_CODE, i);
		stop(&r[i]);
	}
}
END_TEST

/* ---- terminal ---- */

static void expect(int fd, const char *want)
{
	char buf[4096] = "";
	size_t n = 0;

	while (!strstr(buf, want)) {
		ssize_t r;

		ck_assert_msg(ready(fd, PATIENCE_MS) && n < sizeof(buf) - 1, "no '%s' in '%s'",
			      want, buf);
		r = read(fd, buf + n, sizeof(buf) - 1 - n);
		ck_assert_msg(r > 0, "no '%s' in '%s'", want, buf);
		n += (size_t)r;
		buf[n] = 0;
	}
}

static void type(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

START_TEST(terminal)
{
	struct msg_exec_size size = {.rows = 50, .cols = 100};
	struct run r;

	start(&r, &(struct how){.flags = GP_START_TTY | GP_START_STDIN},
	      SH("stty size; trap 'stty size; echo INT' INT; echo ready; read a; read a; echo got "
		 "$a; exit 7"));
	expect(r.out, "33 77\r\nready\r\n");
	ck_assert_int_eq(msg_send(r.channel, MSG_EXEC_RESIZE, &size, sizeof(size), NULL, 0), 0);
	usleep(100000);
	type(r.in, "\003");
	expect(r.out, "50 100\r\nINT");
	type(r.in, "word\n\nmore\n");
	expect(r.out, "got");
	ck_exit(wait_exit(&r), EXEC_CODE, 7);
	stop(&r);
}
END_TEST

START_TEST(terminal_end_of_input)
{
	struct run r;

	start(&r, &(struct how){.flags = GP_START_TTY | GP_START_STDIN}, SH("cat; echo end"));
	type(r.in, "line\n");
	fd_close(&r.in);
	expect(r.out, "end\r\n");
	ck_exit(wait_exit(&r), EXEC_CODE, 0);
	stop(&r);
}
END_TEST

/* The first end-of-file character of a terminal only ends an unfinished line. */
START_TEST(terminal_end_of_input_in_a_line)
{
	struct run r;

	start(&r, &(struct how){.flags = GP_START_TTY | GP_START_STDIN}, SH("cat; echo end"));
	type(r.in, "line");
	fd_close(&r.in);
	expect(r.out, "end\r\n");
	ck_exit(wait_exit(&r), EXEC_CODE, 0);
	stop(&r);
}
END_TEST

#define PTY_ROOM 13824 /* what Linux 6.1 takes while nobody reads */

/* A terminal that is full when the input ends has the end later. */
START_TEST(terminal_end_of_input_when_it_is_full)
{
	static char text[PTY_ROOM];
	struct run r;

	memset(text, 'x', sizeof(text));
	start(&r, &(struct how){.flags = GP_START_TTY | GP_START_STDIN},
	      SH("stty raw -echo; echo ready; sleep 1; head -c 13826 | tail -c 2 | od -An -tx1"));
	expect(r.out, "ready");
	ck_assert_int_eq(write_full(r.in, text, sizeof(text)), 0);
	fd_close(&r.in);
	expect(r.out, "04 04");
	ck_exit(wait_exit(&r), EXEC_CODE, 0);
	stop(&r);
}
END_TEST

START_TEST(escape)
{
	struct run r;
	char buf[16];

	start(&r, &(struct how){.flags = GP_START_STDIN, .escape = true}, SH("exec sleep 100"));
	type(r.in, "\035\035x\035\035");
	usleep(50000);
	/* A full input must not hide it either. */
	for (int i = 0; i < 40; i++)
		type(r.in, (char[4001]){[0 ... 3999] = 'x'});
	type(r.in, "\035\035\035");
	message(&r, MSG_QUIT, buf, sizeof(buf));
	stop(&r);
}
END_TEST

/* ---- who is served ---- */

START_TEST(served_alone_is_the_host)
{
	struct vsock_addr peer = {.family = AF_VSOCK, .cid = VSOCK_HOST};

	ck_assert(agent_serves(&peer));
	peer.cid = 1; /* vsock_loopback */
	ck_assert(!agent_serves(&peer));
	peer.cid = 3; /* the guest itself, by its own address */
	ck_assert(!agent_serves(&peer));
}
END_TEST

/* Streams that say nothing hold their places for a while, not for ever. */
START_TEST(silent_streams)
{
	int fd[AGENT_TASKS];
	struct run r;

	for (uint32_t i = 0; i < AGENT_TASKS; i++) {
		const uint32_t hello[] = {24, GP_HELLO, GP_MAGIC, 1, i + 100, 0, 0, 0};

		fd[i] = connect_server();
		if (i % 2)
			ck_assert_int_eq(write_full(fd[i], hello, sizeof(hello)), 0);
	}
	start(&r, &(struct how){0}, SH("exit 3"));
	ck_exit(wait_exit(&r), EXEC_CODE, 3);
	stop(&r);
	for (unsigned i = 0; i < AGENT_TASKS; i++)
		close(fd[i]);
}
END_TEST

/* ---- a host that breaks the rules: the server drops it and goes on ---- */

static const struct {
	const char *name;
	uint32_t words[32];
	unsigned n;
} bad_host[] = {
	{"no hello", {0, GP_PING}, 2},
	{"other magic", {24, GP_HELLO, 1, 1, 1, 0, 0, 0}, 8},
	{"no number", {24, GP_HELLO, GP_MAGIC, 1, 0, 0, 0, 0}, 8},
	{"a guest's flag", {24, GP_HELLO, GP_MAGIC, 1, 1, GP_HELLO_GONE, 0, 0}, 8},
	{"of nobody here", {24, GP_HELLO, GP_MAGIC, 1, 99, 0, 8, 0}, 8},
	{"second hello", {HELLO, HELLO}, 16},
	{"signal without a command", {HELLO, 4, GP_SIGNAL, 9}, 11},
	{"a guest's frame", {HELLO, 0, GP_PONG}, 10},
	{"endless", {HELLO, 0xffffffff, GP_START}, 10},
	{"power-off of another kind", {HELLO, 8, GP_POWEROFF, 9, 0}, 12},
	{"resumed with a flag that there is not", {HELLO, 84, GP_RESUMED, 2}, 31},
	{"resumed with too many cards", {HELLO, 84, GP_RESUMED, 0, GP_CARDS_MAX + 1}, 31},
	{"resumed with something behind it", {HELLO, 84, GP_RESUMED}, 31},
	{"acknowledged, but never sent", {HELLO, 8, GP_ACK, 1, 0}, 12},
};

START_TEST(bad_hosts)
{
	int fd = connect_server();
	char buf[256];
	ssize_t n;

	ck_assert_int_eq(write(fd, bad_host[_i].words, bad_host[_i].n * 4), bad_host[_i].n * 4);
	do {
		ck_assert_msg(ready(fd, PATIENCE_MS), "%s: not dropped", bad_host[_i].name);
		n = read(fd, buf, sizeof(buf));
	} while (n > 0);
	close(fd);
	ck_exit(run(&(struct how){0}, SH("exit 5"), NULL, NULL, 0), EXEC_CODE, 5);
}
END_TEST

START_TEST(too_much_credit)
{
	const uint32_t words[] = {HELLO};
	struct gp_credit m = {.stream = GP_STREAM_OUT, .bytes = 1};
	static struct gp_out o;
	static uint8_t body[4096];
	struct gp_start s = {.gid = GP_NO_GID};
	int fd = connect_server(), n = gp_start_build(body, sizeof(body), &s, "/", NULL,
						      SH("trap '' HUP; sleep 100"), NULL);
	char buf[256];
	ssize_t r;

	ck_assert_int_eq(write(fd, words, sizeof(words)), sizeof(words));
	gp_out_init(&o, 0);
	ck_assert_int_eq(gp_put(&o, GP_START, body, (uint32_t)n), 0);
	ck_assert_int_eq(gp_put(&o, GP_CREDIT, &m, sizeof(m)), 0);
	ck_assert_int_eq(write(fd, o.ring, o.head), (ssize_t)o.head);
	do {
		ck_assert(ready(fd, PATIENCE_MS));
		r = read(fd, buf, sizeof(buf));
	} while (r > 0);
	close(fd);
}
END_TEST

START_TEST(power_off)
{
	const uint32_t words[] = {HELLO, 8, GP_POWEROFF, GP_END_STATUS, 7};
	int fd = connect_server();
	char buf[2];

	ck_assert_int_eq(write(fd, words, sizeof(words)), sizeof(words));
	ck_assert(ready(finished[0], PATIENCE_MS));
	usleep(20000);
	ck_assert_int_eq(read(finished[0], buf, 2), 2);
	ck_assert_mem_eq(buf, "fs", 2); /* disks first */
	close(fd);
}
END_TEST

/* What the server has done, one letter each, once there are `n`. */
static void ck_done(const char *want, int ms)
{
	char got[8] = "";
	size_t n = strlen(want);

	for (size_t i = 0; i < n; i++) {
		ck_assert_msg(ready(finished[0], ms), "%s, not %s, after %d ms", got, want, ms);
		ck_assert_int_eq(read(finished[0], got + i, 1), 1);
	}
	ck_assert_str_eq(got, want);
}

static int ask_to_end(uint32_t init_ms)
{
	static uint32_t id = 100;
	const uint32_t words[] = {24, GP_HELLO,    GP_MAGIC,        1, ++id,   0, 0, 0,
				  12, GP_POWEROFF, GP_END_POWEROFF, 0, init_ms};
	int fd = connect_server();

	ck_assert_int_eq(write(fd, words, sizeof(words)), sizeof(words));
	return fd;
}

/* ---- the machine goes on ---- */

#define OLD_MAC "52:54:00:00:00:01"
#define NEW_MAC "52:54:00:00:00:02"
#define RESUMED(...) (&(struct how){.resumed = (const char *const[]){__VA_ARGS__}})

START_TEST(goes_on)
{
	ck_exit(run(RESUMED("vm", "host", ""), NULL, NULL, NULL, 0), EXEC_CODE, 0);
	ck_done("tshost", PATIENCE_MS);
}
END_TEST

/* What fails is told, and the rest is done. */
START_TEST(goes_on_in_part)
{
	static const char *const strings[] = {"vm", "host", "", OLD_MAC "," NEW_MAC,
					      NEW_MAC "," OLD_MAC};
	struct msg_exec_exit x =
		run(&(struct how){.resumed = strings, .ncards = 2}, NULL, NULL, NULL, 0);

	ck_exit(x, EXEC_REFUSED, STATUS_INTERNAL);
	ck_assert_str_eq(x.text,
			 "clock: no; " OLD_MAC "," NEW_MAC ": no; " NEW_MAC "," OLD_MAC ": no");
	ck_done("tshost", PATIENCE_MS);
}
END_TEST

START_TEST(goes_on_and_dies)
{
	ck_exit(run(RESUMED("dies", "", ""), NULL, NULL, NULL, 0), EXEC_SIGNALED, SIGKILL);
}
END_TEST

/* Commands are served meanwhile; and the time is that of the answer, although insula-exec was there
 * long before the stream was connected. */
START_TEST(goes_on_beside_commands)
{
	struct run r;

	start(&r, RESUMED("slow", "x", ""), NULL);
	ck_done("ts", PATIENCE_MS);
	ck_exit(run(&(struct how){0}, SH("exit 4"), NULL, NULL, 0), EXEC_CODE, 4);
	ck_assert(!ready(finished[0], 0));
	ck_exit(wait_exit(&r), EXEC_CODE, 0);
	ck_done("x", 0);
	stop(&r);
}
END_TEST

/* Until the guest has answered, the frame is kept back: its clock must not wait with it. */
START_TEST(clock_waits_for_the_guest)
{
	const struct gp_hello hello = {.magic = GP_MAGIC, .version = GP_VERSION, .id = 9};
	const struct gp_hdr h = {.len = sizeof(hello), .type = GP_HELLO};
	struct how how = *RESUMED("vm", "", "");
	int pair[2];
	struct run r;
	struct timespec t;
	uint8_t buf[256];
	uint64_t said;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	how.stream = pair[1];
	how.id = 9;
	start(&r, &how, NULL);
	ck_assert(ready(pair[0], PATIENCE_MS));
	ck_assert_int_eq(read_full_stream(pair[0], buf, GP_HDR_LEN + sizeof(hello)), 0);
	ck_assert(!ready(pair[0], 300));
	clock_gettime(CLOCK_REALTIME, &t);
	ck_assert_int_eq(write(pair[0], &h, sizeof(h)), sizeof(h));
	ck_assert_int_eq(write(pair[0], &hello, sizeof(hello)), sizeof(hello));
	ck_assert_int_eq(read_full_stream(pair[0], buf, GP_HDR_LEN + sizeof(struct gp_resumed)), 0);
	memcpy(&said, buf + GP_HDR_LEN + offsetof(struct gp_resumed, clock_ns), sizeof(said));
	ck_assert_uint_ge(said, (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec);
	shutdown(pair[0], SHUT_RDWR); /* the other process has it too */
	close(pair[0]);
	ck_exit(wait_exit(&r), EXEC_LOST, 0);
	stop(&r);
}
END_TEST

/* ---- hooks ---- */

static void make_hook(const char *dir, const char *name, mode_t mode, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	ck_assert_int_eq(chmod(path, mode), 0);
}

START_TEST(hooks)
{
	char dir[] = "/tmp/insula-hooks-XXXXXX", path[128], text[1024], why[GP_TEXT_LEN] = "", *got;
	char vm[] = "INSULA_VM=a clone", *set[] = {vm, NULL};
	FILE *f;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	make_hook(dir, "30-says", 0755,
		  "#!/bin/sh\necho \"three $1 $# $INSULA_VM $PWD $HOME\" >>\"${0%/*}/log.txt\"\n"
		  "read x; echo \"input $?\" >>\"${0%/*}/log.txt\"\n");
	make_hook(dir, "10-fails", 0755, "#!/bin/sh\necho one >>\"${0%/*}/log.txt\"\nexit 3\n");
	make_hook(dir, "20-hangs", 0755,
		  "#!/bin/sh\ntrap '' TERM HUP\necho two >>\"${0%/*}/log.txt\"\nsleep 1000\n"
		  "echo never >>\"${0%/*}/log.txt\"\n");
	make_hook(dir, "25-killed", 0755, "#!/bin/sh\nkill -9 $$\n");
	make_hook(dir, "40-no-program", 0755, "#!/no/such/shell\n");
	make_hook(dir, "50-not-executable", 0644, "#!/bin/sh\necho no >>\"${0%/*}/log.txt\"\n");
	make_hook(dir, "60-old~", 0755, "#!/bin/sh\necho no >>\"${0%/*}/log.txt\"\n");
	make_hook(dir, "60.dpkg-old", 0755, "#!/bin/sh\necho no >>\"${0%/*}/log.txt\"\n");
	snprintf(path, sizeof(path), "%s/70-directory", dir);
	ck_assert_int_eq(mkdir(path, 0755), 0);
	hooks_run(dir, "resumed", set, 1000, why);
	ck_assert_str_eq(why,
			 "10-fails: status 3; 20-hangs: killed after 1 s; 25-killed: signal 9; "
			 "40-no-program: status 127");
	snprintf(path, sizeof(path), "%s/log.txt", dir);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	got = strstr(text, "one\ntwo\nthree resumed 1 a clone / /root\ninput 1\n");
	ck_assert_msg(got == text && strlen(text) == strlen("one\ntwo\nthree resumed 1 a clone / "
							    "/root\ninput 1\n"),
		      "%s", text);
	snprintf(text, sizeof(text), "rm -r %s", dir);
	ck_assert_int_eq(system(text), 0);
	why[0] = 0;
	hooks_run(dir, "resumed", NULL, 1000, why); /* there is no such directory */
	ck_assert_str_eq(why, "");
}
END_TEST

/* Only what is new has a variable, and the longest request has room. */
START_TEST(hooks_environments)
{
	static struct hook_env some, all, most;
	static char vm[] = "vm", none[] = "", host[] = "h", id[] = "i", a[] = "A,B",
		    b[] = "C,D,ip=1", long_one[GP_RESUMED_MAX - sizeof(struct gp_resumed) - 20];
	char *strings[GP_RESUMED_NAMES + GP_CARDS_MAX] = {vm, none, none};

	hooks_environment(&some, strings);
	ck_assert_str_eq(some.set[0], "INSULA_VM=vm");
	ck_assert_ptr_null(some.set[1]);
	strings[GP_NAME_HOST] = host;
	strings[GP_NAME_MACHINE_ID] = id;
	strings[GP_RESUMED_NAMES] = a;
	strings[GP_RESUMED_NAMES + 1] = b;
	hooks_environment(&all, strings);
	ck_assert_str_eq(all.set[1], "INSULA_HOSTNAME=h");
	ck_assert_str_eq(all.set[2], "INSULA_MACHINE_ID=i");
	ck_assert_str_eq(all.set[3], "INSULA_CARDS=A,B C,D,ip=1");
	ck_assert_ptr_null(all.set[4]);
	memset(long_one, 'v', sizeof(long_one) - 1);
	strings[GP_NAME_VM] = long_one;
	for (unsigned i = 0; i < GP_CARDS_MAX; i++)
		strings[GP_RESUMED_NAMES + i] = none;
	hooks_environment(&most, strings);
	ck_assert_str_eq(most.set[0] + strlen("INSULA_VM="), long_one);
	ck_assert_str_eq(most.set[3], "INSULA_CARDS=       ");
	ck_assert_uint_le(most.len, sizeof(most.text));
}
END_TEST

/* What does not fit is left out. */
START_TEST(notes_end)
{
	char why[GP_TEXT_LEN] = "";

	for (unsigned i = 0; i < 100; i++)
		note(why, "failure %u", i);
	ck_assert_uint_eq(strlen(why), GP_TEXT_LEN - 1);
	ck_assert_mem_eq(why, "failure 0; failure 1; ", 22);
}
END_TEST

static const struct {
	int signo;
	const char *done;
} asked[] = {{SIGUSR2, "fP"}, {SIGTERM, "fR"}, {SIGUSR1, "fH"}};

/* As busybox's poweroff does it, which then ends with 0 at once: that is nobody's status. What was
 * written before arrives. */
START_TEST(asked_from_within)
{
	char text[128], out[70000];
	struct run r;
	struct msg_exec_exit x;
	size_t n;

	snprintf(text, sizeof(text), "head -c 60000 /dev/zero; kill -%d %d; exit 0",
		 asked[_i].signo, (int)server);
	start(&r, &(struct how){0}, SH(text));
	x = wait_exit(&r);
	ck_assert_msg(x.end == EXEC_LOST, "%u %u '%s'", x.end, x.value, x.text);
	n = slurp(r.out, out, sizeof(out));
	ck_assert_uint_eq(n, 60000);
	ck_done(asked[_i].done, PATIENCE_MS);
	stop(&r);
}
END_TEST

/* It is asked, and until its time is over nothing else happens: commands still run. */
START_TEST(own_init_is_asked)
{
	int fd = ask_to_end(5000);

	ck_done("a", PATIENCE_MS);
	ck_assert_int_eq(write(answer[1], "", 1), 1);
	ck_exit(run(&(struct how){0}, SH("exit 5"), NULL, NULL, 0), EXEC_CODE, 5);
	ck_assert(!ready(finished[0], 300));
	ck_done("fp", PATIENCE_MS); /* it did not do it */
	close(fd);
}
END_TEST

START_TEST(own_init_cannot_be_asked)
{
	int fd = ask_to_end(60000);

	ck_done("a", PATIENCE_MS);
	ck_assert_int_eq(write(answer[1], "\001", 1), 1);
	ck_done("fp", PATIENCE_MS);
	close(fd);
}
END_TEST

/* Neither twice, nor at all without time for it. */
START_TEST(own_init_is_not_asked)
{
	int fd = ask_to_end(0), second;

	ck_done("fp", PATIENCE_MS);
	close(fd);
	fd = ask_to_end(60000);
	ck_done("a", PATIENCE_MS);
	second = ask_to_end(60000);
	ck_done("fp", PATIENCE_MS);
	close(fd);
	close(second);
}
END_TEST

/* ---- a guest that breaks the rules ---- */

static const struct {
	const char *text; /* of MSG_EXEC_EXIT */
	uint32_t words[16];
	unsigned n;
} bad_guest[] = {
	{"nobody answered", {0}, 0},
	{"the guest broke the protocol", {0, GP_PONG}, 2},
	{"the guest broke the protocol", {24, GP_HELLO, 1, 1, 1, 0, 0, 0}, 8},
	{"the guest speaks version 9 of the protocol, not 1",
	 {24, GP_HELLO, GP_MAGIC, 9, 1, 0, 0, 0},
	 8},
	{"the guest broke the protocol", {24, GP_HELLO, GP_MAGIC, 1, 2, 0, 0, 0}, 8},
	{"the guest broke the protocol", {24, GP_HELLO, GP_MAGIC, 1, 1, 0, 1, 0}, 8},
	{"the guest has given the command up",
	 {24, GP_HELLO, GP_MAGIC, 1, 1, GP_HELLO_GONE, 0, 0},
	 8},
	{"the stream ended", {HELLO}, 8},
	{"the guest broke the protocol", {HELLO, 0, GP_STDIN_END}, 10},
	{"the guest broke the protocol", {HELLO, 0xffffffff, GP_STDOUT}, 10},
	{"the guest broke the protocol", {HELLO, 8, GP_CREDIT, 0, 1}, 12},
	{"the guest broke the protocol", {HELLO, 8, GP_CREDIT, 1, 1}, 12},
	{"the guest broke the protocol", {HELLO, 4, GP_CLOSE, 1}, 11},
	{"the guest broke the protocol", {HELLO, 8, GP_ACK, 7, 0}, 12},
	{"the guest broke the protocol", {HELLO, 8, GP_ACK, 0xffffff, 0}, 12},
	{"the guest broke the protocol", {HELLO, HELLO}, 16},
};

START_TEST(bad_guests)
{
	struct run r;
	struct msg_exec_exit x;
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	start(&r, &(struct how){.stream = sv[1], .id = 1}, SH("true"));
	ck_assert_int_eq(write(sv[0], bad_guest[_i].words, bad_guest[_i].n * 4),
			 bad_guest[_i].n * 4);
	shutdown(sv[0], SHUT_WR);
	x = wait_exit(&r);
	ck_exit(x, EXEC_LOST, 0);
	ck_assert_str_eq(x.text, bad_guest[_i].text);
	stop(&r);
	close(sv[0]);
}
END_TEST

/* It has read what it will: for a second nothing of what was sent has gone. */
static void until_it_rests(int stream)
{
	int before = -1, now = 0;

	for (unsigned same = 0; same < 20; before = now) {
		usleep(50000);
		ck_assert_int_eq(ioctl(stream, SIOCOUTQ, &now), 0);
		same = now == before ? same + 1 : 0;
	}
}

/* More output than there is credit for, to a user who does not read. */
START_TEST(guest_ignores_credit)
{
	const uint32_t hello[] = {HELLO};
	static uint8_t frame[GP_HDR_LEN + GP_DATA_MAX];
	const struct gp_hdr h = {.len = GP_DATA_MAX, .type = GP_STDOUT};
	struct run r;
	struct msg_exec_exit x = {0};
	int sv[2];

	memcpy(frame, &h, sizeof(h));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	start(&r, &(struct how){.stream = sv[1], .id = 1}, SH("true"));
	ck_assert_int_eq(write(sv[0], hello, sizeof(hello)), sizeof(hello));
	for (unsigned i = 0; i < GP_WINDOW_OUT / GP_DATA_MAX + 8; i++)
		(void)!send(sv[0], frame, sizeof(frame), MSG_NOSIGNAL);
	until_it_rests(sv[0]); /* output that nobody wants gives credit */
	close(sv[0]);
	fd_close(&r.out); /* or it would wait until what came is written */
	x = wait_exit(&r);
	ck_exit(x, EXEC_LOST, 0);
	ck_assert_str_eq(x.text, "the guest broke the protocol");
	stop(&r);
}
END_TEST

static const struct gp_exit bad_exit[] = {
	{.kind = 0},
	{.kind = 4},
	{.kind = GP_EXIT_CODE, .value = 256},
	{.kind = GP_EXIT_SIGNAL, .value = 0},
	{.kind = GP_EXIT_SIGNAL, .value = 65},
	{.kind = GP_EXIT_REFUSED, .value = 127, .text = {[0 ... GP_TEXT_LEN - 1] = 'x'}},
};

START_TEST(bad_exits)
{
	struct exec *x = calloc(1, sizeof(*x));

	ck_assert_ptr_nonnull(x);
	x->hello = true;
	memcpy(x->body, &bad_exit[_i], sizeof(bad_exit[_i]));
	x->rx.hdr = (struct gp_hdr){.len = sizeof(struct gp_exit), .type = GP_EXIT};
	ck_assert_int_eq(exec_frame(x), -EPROTO);
	ck_assert(!x->done);
	free(x);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return t;
}

int main(void)
{
	Suite *s = suite_create("exec");
	SRunner *r;
	TCase *t;
	int failed;

	t = add_case(s, "commands");
	tcase_add_test(t, streams_and_status);
	tcase_add_test(t, signal_status);
	tcase_add_test(t, refused);
	tcase_add_test(t, environment);
	tcase_add_test(t, user);
	t = add_case(s, "amounts");
	tcase_add_test(t, amount);
	tcase_add_test(t, amount_in);
	tcase_add_test(t, input_around_the_end);
	tcase_add_test(t, last_bytes);
	tcase_add_test(t, reader_gone);
	tcase_add_test(t, disk_full);
	tcase_add_test(t, one_stream_blocks);
	tcase_add_test(t, input_unread);
	t = add_case(s, "ends");
	tcase_add_test(t, background_child);
	tcase_add_test(t, background_flood);
	tcase_add_test(t, only_task);
	tcase_add_test(t, stream_dies);
	tcase_add_test(t, given_up);
	tcase_add_test(t, server_dies);
	tcase_add_test(t, many_at_once);
	t = add_case(s, "another stream");
	tcase_add_loop_test(t, streams_go_on, 0, (int)ARRAY_LEN(first_life));
	tcase_add_test(t, started_once);
	tcase_add_test(t, too_late);
	t = add_case(s, "terminal");
	tcase_add_test(t, terminal);
	tcase_add_test(t, terminal_end_of_input);
	tcase_add_test(t, terminal_end_of_input_in_a_line);
	tcase_add_test(t, terminal_end_of_input_when_it_is_full);
	tcase_add_test(t, escape);
	t = add_case(s, "who is served");
	tcase_add_test(t, served_alone_is_the_host);
	tcase_add_test(t, silent_streams);
	t = add_case(s, "hostile");
	tcase_add_loop_test(t, bad_hosts, 0, (int)ARRAY_LEN(bad_host));
	tcase_add_test(t, too_much_credit);
	tcase_add_test(t, power_off);
	tcase_add_test(t, goes_on);
	tcase_add_test(t, goes_on_in_part);
	tcase_add_test(t, goes_on_and_dies);
	tcase_add_test(t, goes_on_beside_commands);
	tcase_add_test(t, clock_waits_for_the_guest);
	tcase_add_test(t, hooks);
	tcase_add_test(t, hooks_environments);
	tcase_add_test(t, notes_end);
	tcase_add_loop_test(t, asked_from_within, 0, (int)ARRAY_LEN(asked));
	tcase_add_test(t, own_init_is_asked);
	tcase_add_test(t, own_init_cannot_be_asked);
	tcase_add_test(t, own_init_is_not_asked);
	tcase_add_loop_test(t, bad_guests, 0, (int)ARRAY_LEN(bad_guest));
	tcase_add_test(t, guest_ignores_credit);
	tcase_add_loop_test(t, bad_exits, 0, (int)ARRAY_LEN(bad_exit));
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
