/* SPDX-License-Identifier: BSD-2-Clause */
/* Scopes of systemd. See cgsystemd.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "cgsystemd.h"
#include "proc.h"

#define MOUNT "/sys/fs/cgroup"
#define BUS_NS 10000000000ull
#define STEP_MS 5
#define SAID_MAX 200u

/* ---- names ---- */

/* Letters of a unit's name (systemd.unit(5)); no '/', no way out of a directory. */
static bool is_unit_text(const char *s, size_t n)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@+";

	return n && strspn(s, letters) >= n && s[0] != '.';
}

bool cgsystemd_slice_path(const char *slice, char *out, size_t size)
{
	static const char end[] = ".slice";
	size_t n = strlen(slice), at = 0;

	if (!strcmp(slice, "-.slice")) {
		out[0] = 0;
		return true;
	}
	if (n <= strlen(end) || strcmp(slice + n - strlen(end), end) != 0 ||
	    !is_unit_text(slice, n) || slice[0] == '-')
		return false;
	n -= strlen(end);
	/* Each dash is a level, and none is empty. */
	for (size_t i = 1; i <= n; i++) {
		if (i < n && slice[i] != '-')
			continue;
		if (slice[i - 1] == '-' || at + i + strlen(end) + 2 > size)
			return false;
		at += (size_t)snprintf(out + at, size - at, "/%.*s%s", (int)i, slice, end);
	}
	return true;
}

static int bad_name(const char *text, struct err *e)
{
	return err_set(e, -EINVAL,
		       "linux.cgroupsPath: %.100s; expected SLICE:PREFIX:NAME such as "
		       "system.slice:insula:ID, for --systemd-cgroup",
		       text);
}

int cgsystemd_name(const char *cgroups_path, const char *id, char *unit, size_t unit_size,
		   char *path, size_t path_size, struct err *e)
{
	char text[512], slices[1024], *slice = text, *prefix, *name;
	const char *given = cgroups_path && cgroups_path[0] ? cgroups_path : NULL;

	if (given && strlen(given) >= sizeof(text))
		return bad_name(given, e);
	if (given)
		strcpy(text, given);
	else
		snprintf(text, sizeof(text), "system.slice:insula:%s", id);
	prefix = strchr(text, ':');
	name = prefix ? strchr(prefix + 1, ':') : NULL;
	if (!name || strchr(name + 1, ':'))
		return bad_name(text, e);
	*prefix++ = 0;
	*name++ = 0;
	if (!slice[0])
		slice = (char *)(uintptr_t) "system.slice";
	if (!cgsystemd_slice_path(slice, slices, sizeof(slices)) ||
	    !is_unit_text(name, strlen(name)) ||
	    (prefix[0] && !is_unit_text(prefix, strlen(prefix))))
		return bad_name(given ? given : id, e);
	if (snprintf(unit, unit_size, "%s%s%s.scope", prefix, prefix[0] ? "-" : "", name) >=
		    (int)unit_size ||
	    snprintf(path, path_size, MOUNT "%s/%s", slices, unit) >= (int)path_size)
		return bad_name(given ? given : id, e);
	return 0;
}

/* ---- the bus ---- */

/* What busctl says, and its end; it gets no descriptor of ours. */
static int spawn_busctl(char *const argv[], pid_t *child, int *said)
{
	static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	char *env[] = {path, NULL};
	posix_spawn_file_actions_t fa;
	int pipes[2], rc;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, pipes[1], 2);
	rc = -posix_spawnp(child, argv[0], &fa, NULL, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	close(pipes[1]);
	if (rc)
		close(pipes[0]);
	else
		*said = pipes[0];
	return rc;
}

/* All that it says within its time; false: it is late. */
static bool hear(int fd, char *out, size_t size, uint64_t until)
{
	size_t n = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got;
		char c;
		int rc = poll(&p, 1, ms_until(until));

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 1) {
			out[n] = 0;
			return false;
		}
		got = read(fd, &c, 1);
		if (got <= 0)
			break;
		if (n < size - 1)
			out[n++] = c;
	}
	out[n] = 0;
	out[strcspn(out, "\n")] = 0;
	return true;
}

static int ask(char *const argv[], const char *unit, char said[SAID_MAX], struct err *e)
{
	int fd = -1, status = 0, rc;
	pid_t child = -1;
	bool heard;

	said[0] = 0;
	rc = spawn_busctl(argv, &child, &fd);
	if (rc)
		return err_sys(e, rc, "--systemd-cgroup: busctl");
	heard = hear(fd, said, SAID_MAX, clock_ns() + BUS_NS);
	close(fd);
	if (!heard)
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!heard)
		return err_set(e, -ETIMEDOUT, "--systemd-cgroup: %.80s: systemd does not answer",
			       unit);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	err_clean(said);
	return err_set(e, -EIO, "--systemd-cgroup: %.80s: %s", unit,
		       said[0] ? said : "busctl failed");
}

#define TEXT(s) ((char *)(uintptr_t)(s))
#define MANAGER                                                                      \
	TEXT("busctl"), TEXT("--system"), TEXT("--timeout=9"), TEXT("call"),         \
		TEXT("org.freedesktop.systemd1"), TEXT("/org/freedesktop/systemd1"), \
		TEXT("org.freedesktop.systemd1.Manager")

/* The last slice of MOUNT/a.slice/a-b.slice/UNIT. */
static void slice_of(const char *path, char *out, size_t size)
{
	const char *end = strrchr(path, '/'), *at = end;

	while (at > path && at[-1] != '/')
		at--;
	if (at < path + strlen(MOUNT))
		snprintf(out, size, "-.slice");
	else
		snprintf(out, size, "%.*s", (int)(end - at), at);
}

/* "0::/a.slice/x.scope" of the process. */
static bool is_in(pid_t pid, const char *unit, char *path, size_t size)
{
	char file[40], line[PATH_MAX];
	size_t want = strlen(unit);
	bool in = false;
	FILE *f;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", (int)pid);
	f = fopen(file, "re");
	while (f && !in && fgets(line, sizeof(line), f)) {
		size_t n = strcspn(line, "\n");

		line[n] = 0;
		in = !strncmp(line, "0::/", 4) && n > want + 4 && !strcmp(line + n - want, unit) &&
		     line[n - want - 1] == '/' &&
		     snprintf(path, size, MOUNT "%s", line + 3) < (int)size;
	}
	if (f)
		fclose(f);
	return in;
}

int cgsystemd_start(const char *unit, pid_t pid, char *path, size_t size, struct err *e)
{
	char number[16], slice[300], said[SAID_MAX];
	struct timespec step = {.tv_nsec = STEP_MS * 1000000};
	char *argv[] = {MANAGER,
			TEXT("StartTransientUnit"),
			TEXT("ssa(sv)a(sa(sv))"),
			TEXT(unit),
			TEXT("fail"),
			TEXT("5"),
			TEXT("Description"),
			TEXT("s"),
			TEXT("container of insula-oci"),
			TEXT("Slice"),
			TEXT("s"),
			slice,
			TEXT("PIDs"),
			TEXT("au"),
			TEXT("1"),
			number,
			TEXT("Delegate"),
			TEXT("b"),
			TEXT("true"),
			TEXT("DefaultDependencies"),
			TEXT("b"),
			TEXT("false"),
			TEXT("0"),
			NULL};
	uint64_t until = clock_ns() + BUS_NS;
	int rc;

	snprintf(number, sizeof(number), "%d", (int)pid);
	slice_of(path, slice, sizeof(slice));
	rc = ask(argv, unit, said, e);
	if (rc)
		return rc;
	/* The answer comes when the job is queued. */
	while (!is_in(pid, unit, path, size)) {
		if (clock_ns() > until)
			return err_set(e, -ETIMEDOUT,
				       "--systemd-cgroup: %.80s: systemd does not start it", unit);
		nanosleep(&step, NULL);
	}
	return 0;
}

/* ---- limits (systemd.resource-control(5)) ---- */

#define LIMITS_MAX 8u

struct limits {
	char value[LIMITS_MAX][24];
	char *argv[12 + 3 * LIMITS_MAX + 1]; /* up to their count; each; NULL */
	unsigned argc, n;
};

/* "max" is its largest number. */
static void add_limit(struct limits *t, const char *property, const char *value)
{
	char *text;

	if (t->n == LIMITS_MAX)
		return;
	text = t->value[t->n];
	snprintf(text, sizeof(t->value[0]), "%.22s",
		 strcmp(value, "max") ? value : "18446744073709551615");
	t->n++;
	t->argv[t->argc++] = TEXT(property);
	t->argv[t->argc++] = TEXT("t");
	t->argv[t->argc++] = text;
}

/* "QUOTA PERIOD": microseconds of processor time in each second, and the period. */
static void add_processor_limit(struct limits *t, const char *value)
{
	unsigned long long period = 0, quota;
	char *end, text[24];

	quota = strtoull(value, &end, 10);
	if (end == value)
		quota = ULLONG_MAX; /* max */
	end = strchr(value, ' ');
	if (end)
		period = strtoull(end + 1, NULL, 10);
	if (!period)
		return;
	if (quota != ULLONG_MAX)
		quota = (unsigned long long)((double)quota * 1000000.0 / (double)period + 0.5);
	snprintf(text, sizeof(text), "%llu", quota);
	add_limit(t, "CPUQuotaPerSecUSec", text);
	snprintf(text, sizeof(text), "%llu", period);
	add_limit(t, "CPUQuotaPeriodUSec", text);
}

static void add_line_of(struct limits *t, const struct cgline *line)
{
	static const char *const same[][2] = {
		{"memory.max", "MemoryMax"}, {"memory.swap.max", "MemorySwapMax"},
		{"memory.low", "MemoryLow"}, {"pids.max", "TasksMax"},
		{"cpu.weight", "CPUWeight"},
	};

	if (!strcmp(line->file, "cpu.max"))
		add_processor_limit(t, line->value);
	if (!strcmp(line->file, "io.weight") && !strncmp(line->value, "default ", 8))
		add_limit(t, "IOWeight", line->value + 8);
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		if (!strcmp(line->file, same[i][0]))
			add_limit(t, same[i][1], line->value);
	}
}

int cgsystemd_limit(const char *unit, const struct cglines *l, struct err *e)
{
	char *const call[] = {MANAGER, TEXT("SetUnitProperties"), TEXT("sba(sv)"), TEXT(unit),
			      TEXT("true")};
	struct limits t = {.argc = ARRAY_LEN(call) + 1};
	char said[SAID_MAX], count[8];

	memcpy(t.argv, call, sizeof(call));
	t.argv[ARRAY_LEN(call)] = count;
	for (unsigned i = 0; i < l->n; i++)
		add_line_of(&t, &l->line[i]);
	snprintf(count, sizeof(count), "%u", t.n);
	return t.n ? ask(t.argv, unit, said, e) : 0;
}

int cgsystemd_stop(const char *unit, struct err *e)
{
	char said[SAID_MAX];
	char *argv[] = {MANAGER, TEXT("StopUnit"), TEXT("ss"), TEXT(unit), TEXT("replace"), NULL};
	int rc = ask(argv, unit, said, e);

	return rc == -EIO && strstr(said, "not loaded") ? 0 : rc;
}
