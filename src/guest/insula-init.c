/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: PID 1 inside the microVM.
 *
 * Stages: tell the board; mount the kernel's file systems; read what to do; load the modules that
 * this takes; enter the root disk if there is one; then one of
 *
 *     agent            serve the host's commands over vsock until the host ends the machine
 *     a command        run it alone on the console, write its status to the exit register
 *     a root disk      become its init
 *     none of these    a shell on the console, and power off when it ends
 *
 * In the last two a process of its own may serve the host's commands beside. A template
 * (template.c) leaves its network cards and live shares alone until the host says that it goes on.
 * Whatever fails before that is one line on the console and status 125. As long as it is PID 1
 * itself, it ends the machine for whoever sends the signals of poweroff, reboot and halt.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <insula/container.h>

#include "guest.h"

#define APPLETS "/insula/applets"

/* The network stack may be missing from the kernel; then nobody misses the loopback either. */
static void loopback_up(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		die_errno("bring up lo");
	close(fd);
}

/* The links to busybox, one path per line. Made here and not stored in the initrd, because a root
 * disk needs none. */
static void install_applets(void)
{
	char line[64];
	FILE *f = fopen(APPLETS, "re");

	if (!f)
		die_errno(APPLETS);
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		symlink("/bin/busybox", line); /* EEXIST: busybox itself */
	}
	fclose(f);
}

static const char *const inits[] = {"/sbin/init", "/lib/systemd/systemd",
				    "/usr/lib/systemd/systemd", "/init"};

static bool root_has_init(void)
{
	struct stat st;

	for (size_t i = 0; i < sizeof inits / sizeof inits[0]; i++)
		if (stat(inits[i], &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & S_IXUSR)
			return true;
	return false;
}

static _Noreturn void become_init(const struct config *c)
{
	for (size_t i = 0; i < sizeof inits / sizeof inits[0]; i++)
		execle(inits[i], inits[i], (char *)NULL, c->env);
	execle("/bin/sh", "/bin/sh", (char *)NULL, c->env);
	die("the root holds no init: none of /sbin/init, /lib/systemd/systemd, /init, /bin/sh "
	    "runs");
}

static _Noreturn void run_command(const struct config *c)
{
	int status;

	tty_setup(false);
	status = task_run(c->argv, c);
	mounts_finish();
	if (status < 0)
		board_leave(-status);
	board_exit(status);
}

static _Noreturn void run_shell(const struct config *c)
{
	char *const argv[] = {"/bin/sh", "-l", NULL};
	int status;

	tty_setup(true);
	dprintf(STDOUT_FILENO, NAME ": a shell; exit or poweroff ends the machine\n");
	status = task_run(argv, c);
	mounts_finish();
	tcdrain(STDOUT_FILENO);
	if (status < 0)
		board_leave(-status);
	board_poweroff();
}

/* ---- serve the host ---- */

/* Each init has a program of this name that knows how to talk to it. */
static pid_t ask_init(void)
{
	static char *const argv[] = {"poweroff", NULL};
	static char *env[] = {"PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", NULL};
	pid_t pid = fork();

	if (pid)
		return pid;
	spawn_defaults();
	environ = env;
	execvp(argv[0], argv);
	_exit(STATUS_NOT_FOUND);
}

static void kill_all(void)
{
	kill(-1, SIGKILL);
}

static void end_machine(const struct gp_poweroff *how)
{
	if (how->how == GP_END_STATUS)
		board_exit((int)how->status);
	board_poweroff();
}

static int listen_vsock(void)
{
	const struct vsock_addr a = {.family = AF_VSOCK, .port = GP_PORT, .cid = VSOCK_ANY};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (bind(fd, (const struct sockaddr *)&a, sizeof a) < 0 || listen(fd, AGENT_TASKS) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static _Noreturn void serve_host(int listener, bool own_init)
{
#define OF_ALL                                                                                     \
	.kill_all = kill_all, .finish = mounts_finish, .end = end_machine, .resumed = resumed_now, \
	.renew = resumed_rest
	static const struct agent_ops alone = {OF_ALL, .leave = board_leave};
	static const struct agent_ops shell = {OF_ALL};
	static const struct agent_ops init = {OF_ALL, .ask_init = ask_init};
	const struct agent_ops *ops = getpid() == 1 ? &alone : own_init ? &init : &shell;
	static struct agent agent;

	if (agent_init(&agent, listener, ops) < 0)
		die_errno("the server for the host");
	board_agent_ready();
	for (;;)
		agent_step(&agent, -1);
}

#define NO_VSOCK "vsock (has this kernel vmw_vsock_virtio_transport?)"

static _Noreturn void serve_alone(void)
{
	int listener = listen_vsock();

	if (listener < 0)
		die_errno(NO_VSOCK);
	serve_host(listener, false);
}

/* The host must be able to ask a guest to end even if that guest has no memory left. */
static void outlive_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "-1000", 5) < 0)
		dprintf(STDERR_FILENO, NAME ": /proc/self/oom_score_adj: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* The guest's own task is not the host's commands: a kernel that cannot do these runs it all the
 * same. */
static void serve_beside(bool own_init)
{
	int listener = listen_vsock();
	pid_t pid = listener < 0 ? -1 : fork();

	if (pid == 0) {
		setsid();
		outlive_oom();
		serve_host(listener, own_init);
	}
	if (pid < 0)
		dprintf(STDERR_FILENO, NAME ": no commands of the host: " NO_VSOCK ": %s\n",
			strerror(errno));
	if (listener >= 0)
		close(listener);
}

/* The directory that the host and insula-container share is what makes it a machine for containers.
 */
static bool serves_containers(const struct config *c)
{
	static const char live[] = "," CT_SHARE; /* the end of "rw,TAG,DIR" */

	for (char **s = c->share; *s; s++)
		if (strcmp(*s, CT_SHARE) == 0)
			return true;
	for (char **f = c->fs; *f; f++) {
		size_t n = strlen(*f);

		if (n >= sizeof live && strcmp(*f + n - (sizeof live - 1), live) == 0)
			return true;
	}
	return false;
}

int main(void)
{
	struct config c;

	if (getpid() != 1) { /* before anything touches a port */
		dprintf(STDERR_FILENO, NAME ": runs as PID 1 of a microVM only\n");
		return STATUS_INTERNAL;
	}
	board_started();
	umask(022);
	config_read(&c);
	mounts_early(c.root == ROOT_INITRD);
	modules_load_for("QEMU0001", "panic");
	modules_load_for("AMZNC10C", "clock");
	modules_load_for("LNRO0005", "virtio"); /* virtio over MMIO */
	modules_load_pci();
	modules_load_virtio(c.template);
	modules_load_later();
	modules_load("seed");
	modules_load("assigned"); /* last: cards of the machine's own have their names by now */
	tty_late();
	if (sethostname(c.hostname, strlen(c.hostname)) < 0)
		die_errno("host name \"%s\"", c.hostname);
	loopback_up();
	if (!c.template)
		net_up(&c);
	if (c.share[0])
		mounts_prepare_shares();
	if (c.root == ROOT_INITRD)
		install_applets();
	else
		mounts_switch_root(&c);
	if (c.root == ROOT_INITRD && serves_containers(&c))
		mounts_leave_initramfs();
	net_resolv(&c);
	mounts_shares(c.share);
	if (c.template) {
		template_waits(&c);
	} else {
		fs_mount(c.fs);
		fs_watch(c.fs);
	}
	cpus_watch();
	if (c.agent == AGENT_ALONE)
		serve_alone();
	if (c.agent == AGENT_BESIDE)
		serve_beside(c.root != ROOT_INITRD && !c.argv[0] && root_has_init());
	if (c.argv[0])
		run_command(&c);
	if (c.root == ROOT_INITRD)
		run_shell(&c);
	become_init(&c);
}
