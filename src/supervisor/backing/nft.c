/* SPDX-License-Identifier: BSD-2-Clause */
/* nft, the program: transactions. See nft.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "nft.h"

#ifndef TUNGETDEVNETNS /* Linux 5.2 */
#define TUNGETDEVNETNS _IO('T', 227)
#endif

void nft_none(struct nft *n)
{
	*n = (struct nft){.netns = -1, .keeper = {.fd = -1}, .mark = "of_"};
	random_hex(n->mark + 3, NFT_MARK - 4);
	child_none(&n->child);
}

static int nft_find(struct nft *n, struct err *e)
{
	static const char *const dirs[] = {"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"};

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		snprintf(n->path, sizeof(n->path), "%s/nft", dirs[i]);
		if (!access(n->path, X_OK))
			return 0;
	}
	return err_set(e, -ENOENT,
		       "--net: the policy of a TAP needs the program nft (Debian: apt-get install "
		       "nftables)");
}

/* ---- which TAP ---- */

/* As nft reads it within quotes, and as the name of a table, each in its own way. */
static int name_device(struct nft *n, const char *device, struct err *e)
{
	char *out = n->table + sprintf(n->table, "insula_");

	snprintf(n->device, sizeof(n->device), "%s", device);
	for (const char *p = n->device; *p; p++) {
		bool plain = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') ||
			     (*p >= 'a' && *p <= 'z');

		if (!plain && !strchr("_.-:@+", *p))
			return err_set(e, -EINVAL,
				       "--net: tap %s; expected letters, digits and . - _ : @ + in "
				       "the name of a TAP with a policy",
				       n->device);
		if (plain)
			*out++ = *p;
		else
			out += sprintf(out, "_%02x", (unsigned char)*p);
	}
	*out = 0;
	return 0;
}

static bool same_file(int a, const char *path)
{
	struct stat x, y;

	return !fstat(a, &x) && !stat(path, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int find_device(struct nft *n, int tap, const char *macvtap, struct err *e)
{
	struct ifreq r = {0};

	n->egress = macvtap;
	if (macvtap)
		return name_device(n, macvtap, e);
	if (ioctl(tap, TUNGETIFF, &r))
		return err_sys(e, -errno, "--net: name of the TAP");
	r.ifr_name[IFNAMSIZ - 1] = 0;
	fd_close(&n->netns);
	n->netns = ioctl(tap, TUNGETDEVNETNS);
	if (n->netns < 0)
		return err_set(
			e, -errno,
			"--net: tap %s: its policy needs root, or CAP_NET_ADMIN where it is: "
			"%s",
			r.ifr_name, strerror(errno));
	fcntl(n->netns, F_SETFD, FD_CLOEXEC);
	if (same_file(n->netns, "/proc/self/ns/net"))
		fd_close(&n->netns);
	return name_device(n, r.ifr_name, e);
}

/* ---- a transaction ---- */

/* Between fork() and exec(). */
static void become_nft(const struct nft *n, int in, int log, pid_t parent)
{
	char *const argv[] = {"nft", "-f", "-", NULL}, *const env[] = {NULL};
	sigset_t none;

	sigemptyset(&none);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (getppid() != parent || dup2(in, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(127);
	if (n->netns >= 0 && setns(n->netns, CLONE_NEWNET)) {
		dprintf(2, "network namespace of the TAP: %s\n", strerror(errno));
		_exit(126);
	}
	if (syscall(SYS_close_range, 3, ~0u, 0))
		_exit(127);
	execve(n->path, argv, env);
	_exit(127);
}

/* All of it as a file. */
static int script_file(const struct nft *n, bool whole, const struct net_policy *p)
{
	int fd = (int)syscall(SYS_memfd_create, "nft", MFD_CLOEXEC), copy;
	FILE *f;
	bool bad;

	copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	f = copy < 0 ? NULL : fdopen(copy, "w");
	if (!f) {
		fd_close(&copy);
		fd_close(&fd);
		return -ENOMEM;
	}
	if (whole)
		nft_compile(f, n, p);
	if (p->flags & POLICY_ON)
		nft_compile_addresses(f, n, p, clock_ns());
	bad = ferror(f);
	if (fclose(f) || bad || lseek(fd, 0, SEEK_SET)) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static int nft_spawn(struct nft *n, bool whole, const struct net_policy *p, int log, pid_t *pid)
{
	int in = script_file(n, whole, p);
	pid_t parent = getpid();

	if (in < 0)
		return in;
	*pid = fork();
	if (*pid == 0)
		become_nft(n, in, log, parent);
	close(in);
	return *pid < 0 ? -errno : 0;
}

/* A transaction in the loop: nft_over(). */
static int nft_go(struct nft *n, bool whole, struct err *e)
{
	int log[2], rc;
	pid_t pid = -1;

	if (pipe2(log, O_CLOEXEC | O_NONBLOCK))
		return err_sys(e, -errno, "nft: pipe");
	rc = nft_spawn(n, whole, &n->policy, log[1], &pid);
	close(log[1]);
	if (rc) {
		close(log[0]);
		return err_sys(e, rc, "nft");
	}
	n->whole = whole;
	n->next_ns = clock_ns() + NFT_GAP_NS;
	rc = child_adopt(&n->child, "nft", pid, log[0], e);
	n->child.talkative = true;
	return rc;
}

/* Its first line, when it has ended or the time is over. */
static void nft_hear(int log, pid_t pid, char *text, size_t size)
{
	uint64_t end = clock_ns() + NFT_WAIT_MS * 1000000ull;
	size_t len = 0;

	for (;;) {
		struct pollfd p = {.fd = log, .events = POLLIN};
		uint64_t now = clock_ns();
		char buf[512];
		ssize_t got;

		if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) <= 0) {
			if (clock_ns() < end)
				continue;
			kill(pid, SIGKILL);
			break;
		}
		got = read(log, buf, sizeof(buf));
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			break;
		for (ssize_t i = 0; i < got && len + 1 < size; i++)
			text[len++] = buf[i];
	}
	text[len] = 0;
	text[strcspn(text, "\n")] = 0;
	err_clean(text);
}

/* One that is waited for. */
static int nft_wait(struct nft *n, const struct net_policy *p, struct err *e)
{
	int log[2], rc, status = -1;
	char text[160] = "";
	pid_t pid = -1;

	if (pipe2(log, O_CLOEXEC | O_NONBLOCK))
		return err_sys(e, -errno, "nft: pipe");
	rc = nft_spawn(n, true, p, log[1], &pid);
	close(log[1]);
	if (rc) {
		close(log[0]);
		return err_sys(e, rc, "nft");
	}
	nft_hear(log[0], pid, text, sizeof(text));
	close(log[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return 0;
	return err_set(e, -EPERM, "--net: tap %s: its policy: nft: %s", n->device,
		       text[0] ? text : "it has failed");
}

/* ---- what is done with them ---- */

int nft_begin(struct nft *n, int tap, const char *macvtap, const struct net_policy *p,
	      struct err *e)
{
	int rc = nft_find(n, e);

	if (!rc)
		rc = find_device(n, tap, macvtap, e);
	n->policy = *p;
	n->nat = 0;
	if (!rc)
		rc = nft_keep_start(n, e);
	if (!rc)
		rc = nft_wait(n, p, e);
	n->made = !rc;
	return rc;
}

static bool nft_busy(const struct nft *n)
{
	return n->child.state != CHILD_NONE;
}

int nft_change(struct nft *n, int tap, const char *macvtap, const struct net_policy *p,
	       struct err *e)
{
	int rc = 0;

	if (n->want_whole || (nft_busy(n) && n->whole))
		return err_set(e, -EBUSY, "another policy is on its way");
	if (!n->made && !(rc = nft_find(n, e)))
		rc = find_device(n, tap, macvtap, e);
	if (!rc)
		rc = nft_keep_start(n, e);
	if (rc)
		return rc;
	if (memcmp(n->policy.name, p->name, sizeof(p->name)) != 0)
		n->nat = 0;
	n->policy = *p;
	n->made = true;
	if (nft_busy(n))
		n->want_whole = true;
	else
		rc = nft_go(n, true, e);
	return rc;
}

void nft_address(struct nft *n, const struct msg_net_name *m)
{
	uint64_t now = clock_ns(), until = now + m->seconds * 1000000000ull;
	unsigned at = 0;

	for (unsigned i = 0; i < n->nat; i++) {
		if (n->at[i].name == m->name && !memcmp(&n->at[i].to, &m->to, sizeof(m->to))) {
			/* What still lasts for long is in its set. */
			if (n->at[i].until_ns < until)
				n->at[i].until_ns = until;
			return;
		}
		if (n->at[i].until_ns < n->at[at].until_ns)
			at = i;
	}
	if (n->nat < NFT_ADDRESSES)
		at = n->nat++;
	n->at[at].name = m->name;
	n->at[at].to = m->to;
	n->at[at].until_ns = until;
	n->want_addresses = true;
}

/* The next address that ends. */
static uint64_t next_end(const struct nft *n)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < n->nat; i++) {
		if (!first || n->at[i].until_ns < first)
			first = n->at[i].until_ns;
	}
	return first;
}

uint64_t nft_due(const struct nft *n)
{
	if (!n->made || nft_busy(n))
		return 0;
	if (n->want_whole || (n->want_addresses && (n->policy.flags & POLICY_ON)))
		return n->next_ns ? n->next_ns : 1; /* at once */
	return n->policy.flags & POLICY_ON ? next_end(n) : 0;
}

static void forget_ended(struct nft *n, uint64_t now)
{
	for (unsigned i = 0; i < n->nat;) {
		if (n->at[i].until_ns > now)
			i++;
		else
			n->at[i] = n->at[--n->nat];
	}
}

void nft_tend(struct nft *n)
{
	bool whole = n->want_whole;
	struct err e;

	forget_ended(n, clock_ns());
	n->want_whole = n->want_addresses = false;
	if (!nft_go(n, whole, &e))
		return;
	log_warn("%s", e.text);
	n->want_addresses = true;
	n->want_whole = whole;
	n->next_ns = clock_ns() + 1000000000ull;
}

bool nft_over(struct nft *n, const struct child_end *end)
{
	if (!n->whole && end->status != 0)
		log_error("%s: nft %s: %s", n->device, end->how, n->child.last);
	return n->whole;
}

void nft_end(struct nft *n)
{
	static const struct net_policy none;
	struct err e;

	child_free(&n->child);
	if (n->made && nft_wait(n, &none, &e))
		log_warn("%s", e.text);
	else
		keeper_dismiss(&n->keeper);
	(void)keeper_end(&n->keeper, 0); /* what is left it tries again, when the TAP is closed */
	n->made = false;
	fd_close(&n->netns);
}
