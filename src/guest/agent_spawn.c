/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init: one process of the host's. See agent.h. Whatever can take time or go wrong because
 * of what is in the guest (the list of users, the directory, exec itself) happens in the child. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#define TTY_GROUP 5

/* The child's ends. */
struct ends {
	int fd[3], report;
};

static void close_ends(struct ends *c)
{
	for (unsigned i = 0; i < 3; i++)
		if (c->fd[i] >= 0 && (i == 0 || c->fd[i] != c->fd[0]))
			close(c->fd[i]);
	if (c->report >= 0)
		close(c->report);
}

/* A pipe whose end `ours` does not block; the other one is a plain pipe, as a command expects. */
static int make_pipe(int ours, int *mine, int *theirs)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	*mine = p[ours];
	*theirs = p[!ours];
	return fcntl(*mine, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int make_terminal(struct task *t, struct ends *c, const struct gp_start *s)
{
	const struct winsize size = {.ws_row = s->rows, .ws_col = s->cols};
	int unlock = 0, slave;

	t->out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (t->out[0] < 0 || ioctl(t->out[0], TIOCSPTLCK, &unlock) < 0)
		return -errno;
	slave = ioctl(t->out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	c->fd[0] = c->fd[1] = c->fd[2] = slave;
	ioctl(slave, TIOCSWINSZ, &size);
	t->in = fcntl(t->out[0], F_DUPFD_CLOEXEC, 0);
	return t->in < 0 ? -errno : 0;
}

static int make_pipes(struct task *t, struct ends *c, const struct gp_start *s)
{
	int rc = 0;

	if (s->flags & GP_START_STDIN)
		rc = make_pipe(1, &t->in, &c->fd[0]);
	else
		c->fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (!rc && c->fd[0] < 0)
		rc = -errno;
	for (unsigned i = 0; i < 2 && !rc; i++)
		rc = make_pipe(0, &t->out[i], &c->fd[1 + i]);
	return rc;
}

/* ---- the child ---- */

__attribute__((noreturn, format(printf, 3, 4))) static void give_up(int report, int status,
								    const char *fmt, ...)
{
	struct spawn_failure f = {.status = status};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f.text, sizeof f.text, fmt, ap);
	va_end(ap);
	if (write(report, &f, sizeof f) < 0)
		_exit(STATUS_INTERNAL);
	_exit(status);
}

static void standard_streams(const struct ends *c, bool tty)
{
	setsid();
	if (tty)
		ioctl(c->fd[0], TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++) {
		/* All of them are above 2: init has its own console there. */
		if (dup2(c->fd[i], i) < 0)
			give_up(c->report, STATUS_INTERNAL, "standard streams: %s",
				strerror(errno));
	}
}

void spawn_defaults(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	sigset_t none;

	if (fd >= 0) {
		(void)!write(fd, "0", 1);
		close(fd);
	}
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGTTOU, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* "NAME" or "NUMBER", and perhaps ":" and a group, by the root's /etc/passwd and /etc/group. Fills
 * in uid and gid. */
static void look_up(struct gp_start *s, char *user, int report)
{
	char *group = strchr(user, ':'), *end;
	const struct passwd *pw;
	const struct group *gr;

	if (group)
		*group++ = 0;
	s->uid = (uint32_t)strtoul(user, &end, 10);
	pw = *end ? getpwnam(user) : NULL;
	if (*end && !pw)
		give_up(report, STATUS_NOT_EXECUTABLE, "user %.40s: not in the guest's /etc/passwd",
			user);
	if (pw)
		s->uid = pw->pw_uid;
	s->gid = GP_NO_GID;
	if (!group)
		return;
	s->gid = (uint32_t)strtoul(group, &end, 10);
	gr = *end ? getgrnam(group) : NULL;
	if (*end && !gr)
		give_up(report, STATUS_NOT_EXECUTABLE, "group %.40s: not in the guest's /etc/group",
			group);
	if (gr)
		s->gid = gr->gr_gid;
}

/* A user who was named without a group is in all of their groups, as after a login. */
static void become_user(const struct gp_start *s, const struct passwd *pw, int report)
{
	gid_t gid = s->gid != GP_NO_GID ? s->gid : pw ? pw->pw_gid : s->uid;
	bool groups = (s->flags & GP_START_USER) && s->gid == GP_NO_GID && pw;

	if ((s->flags & GP_START_TTY) && fchown(STDIN_FILENO, s->uid, TTY_GROUP) < 0 && s->uid)
		give_up(report, STATUS_INTERNAL, "terminal: %s", strerror(errno));
	if (s->uid == 0 && gid == 0)
		return;
	if ((groups ? initgroups(pw->pw_name, gid) : setgroups(0, NULL)) < 0 || setgid(gid) < 0 ||
	    setuid(s->uid) < 0)
		give_up(report, STATUS_NOT_EXECUTABLE, "user %u:%u: %s", s->uid, gid,
			strerror(errno));
}

static _Noreturn void become_command(struct gp_start s, uint8_t *body, const struct ends *c)
{
	static char *argv[GP_ARGS_MAX + 1], *set[GP_ARGS_MAX + 1];
	char *cwd, *user, number[16], host[65] = "";
	struct env_who who = {.home = "/root", .user = "root", .hostname = host};
	const struct passwd *pw;
	int code;

	standard_streams(c, s.flags & GP_START_TTY);
	spawn_defaults();
	gp_start_strings(body, &cwd, &user, argv, set);
	if (user)
		look_up(&s, user, c->report);
	gethostname(host, sizeof host - 1);
	pw = s.uid ? getpwuid(s.uid) : NULL;
	if (s.uid) {
		snprintf(number, sizeof number, "%u", s.uid);
		who.home = pw ? pw->pw_dir : "/";
		who.user = pw ? pw->pw_name : number;
	}
	environ = env_make(set, &who);
	if (!environ)
		give_up(c->report, STATUS_INTERNAL, "out of memory");
	become_user(&s, pw, c->report);
	if (chdir(cwd) < 0)
		give_up(c->report, STATUS_NOT_EXECUTABLE, "%.100s: %s", cwd, strerror(errno));
	execvp(argv[0], argv);
	code = errno;
	if (code == ENOENT && (!strchr(argv[0], '/') || access(argv[0], F_OK) < 0))
		give_up(c->report, STATUS_NOT_FOUND, "%.100s: command not found", argv[0]);
	give_up(c->report, STATUS_NOT_EXECUTABLE, "%.100s: %s%s", argv[0], strerror(code),
		code == ENOENT ? " (its interpreter or loader)" : "");
}

/* ---- the parent ---- */

int spawn_command(struct task *t, const struct gp_start *s, uint8_t *body)
{
	struct ends c = {.fd = {-1, -1, -1}, .report = -1};
	int rc;

	t->tty = s->flags & GP_START_TTY;
	rc = t->tty ? make_terminal(t, &c, s) : make_pipes(t, &c, s);
	if (!rc)
		rc = make_pipe(0, &t->exec_fd, &c.report);
	if (!rc) {
		t->pid = fork();
		if (t->pid == 0)
			become_command(*s, body, &c);
		if (t->pid < 0) {
			rc = -errno;
			t->pid = 0;
		}
	}
	close_ends(&c);
	return rc;
}

/* ---- GP_RESUMED ---- */

static _Noreturn void become_renewer(void (*renew)(char *const *, char *), uint8_t *body,
				     const char *before, const struct ends *c)
{
	char *strings[GP_RESUMED_NAMES + GP_CARDS_MAX], why[GP_TEXT_LEN];

	setsid();
	spawn_defaults();
	memcpy(why, before, sizeof why);
	gp_resumed_strings(body, strings);
	renew(strings, why);
	if (why[0])
		give_up(c->report, STATUS_INTERNAL, "%s", why);
	_exit(0);
}

int spawn_renew(struct task *t, void (*renew)(char *const *, char *), uint8_t *body,
		const char why[GP_TEXT_LEN])
{
	struct ends c = {.fd = {-1, -1, -1}, .report = -1};
	int rc = make_pipe(0, &t->exec_fd, &c.report);

	if (!rc) {
		t->pid = fork();
		if (t->pid == 0)
			become_renewer(renew, body, why, &c);
		if (t->pid < 0) {
			rc = -errno;
			t->pid = 0;
		}
	}
	close_ends(&c);
	return rc;
}
