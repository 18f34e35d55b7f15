/* SPDX-License-Identifier: BSD-2-Clause */
/* Disks that a program of the host serves. See served.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "served.h"

#define SERVED_CONFIG_LEN 60 /* of a disk, up to what write-zeroes needs: virtio 1.1, 5.2.4 */
#define SERVED_START_NS 10000000000ull /* what its server has at the start, as with others */
#define SERVED_END_NS 5000000000ull    /* to write what it keeps in mind of its image */
#define SERVED_NOFILE 32 /* a doorbell and an interrupt for each queue, memory, its own */

/*
 * The calls of a dynamic program that serves files from threads, besides those whose arguments
 * confine.c looks at: clone() for threads, the name of a thread, execveat() of what it was started
 * with. It gets no other; among what is missing is what makes a socket or connects one, a name in
 * a directory, a mount, a namespace, a key, and io_uring, and every ioctl(). tests/jail-tables
 * reads this.
 */
static const uint16_t served_calls[] = {
	/* its start */
	SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_openat, SYS_open,
	SYS_read, SYS_close, SYS_fstat, SYS_newfstatat, SYS_stat, SYS_lstat, SYS_access,
	SYS_faccessat, SYS_faccessat2, SYS_readlink, SYS_readlinkat, SYS_getcwd, SYS_statfs,
	SYS_fstatfs, SYS_arch_prctl, SYS_set_tid_address, SYS_set_robust_list, SYS_rseq,
	SYS_prlimit64, SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_getdents64, SYS_statx,
	/* threads */
	SYS_futex, SYS_exit, SYS_exit_group, SYS_sched_yield, SYS_sched_getaffinity, SYS_gettid,
	SYS_getpid, SYS_tgkill, SYS_membarrier,
	/* signals */
	SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_signalfd4,
	SYS_restart_syscall,
	/* who it is */
	SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
	/* time */
	SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday,
	SYS_timerfd_create, SYS_timerfd_settime,
	/* events */
	SYS_eventfd2, SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait,
	SYS_epoll_pwait, SYS_poll, SYS_ppoll, SYS_pipe2, SYS_fcntl, SYS_dup, SYS_dup3, SYS_write,
	SYS_writev, SYS_readv,
	/* its socket */
	SYS_accept, SYS_accept4, SYS_listen, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto,
	SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_shutdown,
	/* its files */
	SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_lseek,
	SYS_fsync, SYS_fdatasync, SYS_fallocate, SYS_ftruncate, SYS_flock, SYS_copy_file_range,
	SYS_sync_file_range,
	/* the account of its requests, which insula-vhost asks it for */
	SYS_memfd_create};

/* ---- files ---- */

/* On NFS a lock of the whole file would be in the way of those of the program. */
static bool locks_are_ours(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || fs.f_type != NFS_SUPER_MAGIC;
}

static int lock_file(const struct confine_file *f, struct err *e)
{
	if (!locks_are_ours(f->fd) || !flock(f->fd, (f->write ? LOCK_EX : LOCK_SH) | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return err_set(e, -EBUSY, "%s: locked by another VM%s, or given twice", f->path,
			       f->write ? "" : " that writes to it");
	return err_sys(e, -errno, "%s: lock", f->path);
}

static int open_one(struct served *s, const struct manifest_setting *m,
		    const struct manifest_values *v, const char *path, struct err *e)
{
	struct confine_file *f = &s->file[s->nfiles];
	struct stat st;
	int rc = 0;

	*f = (struct confine_file){.path = path, .write = m->write && !v->ro};
	snprintf(f->name, sizeof(f->name), "%s", m->key);
	snprintf(f->at, sizeof(f->at), "%s", m->at);
	/* O_NONBLOCK: a FIFO that somebody named must not hang us. */
	f->fd = open(path, (f->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0)
		return err_sys(e, -errno, "%s %s", m->key, path);
	s->nfiles++;
	if (fstat(f->fd, &st) || !S_ISREG(st.st_mode))
		rc = err_set(e, -EINVAL, "%s %s; expected a regular file", m->key, path);
	if (!rc)
		rc = lock_file(f, e);
	return rc ? rc : manifest_refuses(&s->module->manifest, v, m->key, f->fd, e);
}

static int open_files(struct served *s, const struct manifest_values *v, struct err *e)
{
	const struct manifest *m = &s->module->manifest;
	int rc = manifest_refuses(m, v, NULL, -1, e);

	for (unsigned i = 0; i <= m->nsettings && !rc; i++) {
		const struct manifest_setting *one = i ? &m->setting[i - 1] : &m->target;
		const char *path = manifest_value(v, one->key);

		if (path && one->type == MANIFEST_FILE)
			rc = open_one(s, one, v, path, e);
	}
	return rc;
}

/* ---- the program ---- */

static void served_broken(void *served)
{
	struct served *s = served;

	child_shoot(&s->program);
}

/* What its connect() is made of. */
static int open_library(struct served *s, struct err *e)
{
	struct confine_file *f = &s->file[s->nfiles];

	snprintf(s->library, sizeof(s->library), "%s/" CONFINE_CONNECT, s->module->dir);
	*f = (struct confine_file){.name = CONFINE_CONNECT, .path = s->library, .exec = true};
	f->fd = manifest_open_beside(s->module->dir, CONFINE_CONNECT, e);
	if (f->fd < 0)
		return f->fd;
	s->nfiles++;
	return 0;
}

/* Its host of the URI, by one address: the next one, when it has ended. */
static int next_host(struct served *s, char hosts[SERVED_HOSTS], struct err *e)
{
	const struct module_back *b = s->module;

	memcpy(hosts, s->hosts, sizeof(s->hosts));
	if (!b->manifest.nschemes)
		return 0;
	if (s->back.peers > 1)
		s->module->turn++;
	return served_add_host(hosts, &b->to.at[b->turn % b->to.n], b->uri.host, e);
}

static int spawn_confined(struct served *s, int listener, const struct confine_network *net,
			  struct err *e)
{
	const struct manifest *m = &s->module->manifest;
	const struct confine_plan plan = {
		.name = s->module->name,
		.exec_fd = s->module->exec_fd,
		.argv = s->argv,
		.listener = listener,
		.dir = -1,
		.file = s->file,
		.nfiles = s->nfiles,
		.network = net,
		/* Root opens what belongs to others; a user is root there, and needs none. */
		.keep = geteuid() ? 0 : 1ull << CAP_DAC_OVERRIDE,
		.calls = served_calls,
		.ncalls = ARRAY_LEN(served_calls),
		.nproc = 1 + m->threads,
		.nofile = SERVED_NOFILE + 2 * s->back.nqueues + m->descriptors,
#ifndef INSULA_SANITIZE
		.as = m->memory + s->memory,
#endif
	};
	enum confine_ids ids;

	return confine_spawn(&plan, &s->program, &ids, e);
}

static int served_spawn(void *served, int listener, struct err *e)
{
	struct served *s = served;
	char hosts[SERVED_HOSTS];
	struct confine_network net = {.hosts = hosts, .ends = !s->module->manifest.reconnects};
	int rc;

	s->back.peers++;
	log_info("%s: %s", s->module->name, s->module->says);
	fd_close(&s->module->first); /* it has been tried */
	if (!s->has_network)
		return spawn_confined(s, listener, NULL, e);
	if (s->back.peers == 1)
		s->back.ready_by_ns = clock_ns() + SERVED_START_NS;
	rc = next_host(s, hosts, e);
	if (!rc)
		rc = asks_begin(&s->asks, s->program.loop, &net.ask, &net.answer, e);
	if (rc)
		return rc;
	rc = spawn_confined(s, listener, &net, e);
	fd_close(&net.ask);
	fd_close(&net.answer);
	return rc;
}

static int served_connect(struct vhost_back *b, struct err *e)
{
	return confine_replace(b->peer, served_spawn, b->ctx, e);
}

/* ---- for module.c ---- */

static struct manifest_values served_values(const struct served *s)
{
	return (struct manifest_values){.text = s->module->text,
					.len = s->module->text_len,
					.ro = s->module->conf->ro,
					.queues = s->back.nqueues};
}

int served_open(struct served **out, struct module_back *b, enum module_when when, struct err *e)
{
	struct served *s = calloc(1, sizeof(*s));
	struct manifest_values v;
	int rc;

	*out = NULL;
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->module = b;
	s->has_network = manifest_has_network(&b->manifest);
	asks_init(&s->asks, b->says, served_broken, s);
	s->back = (struct vhost_back){.device_id = VIRTIO_ID_BLOCK,
				      .nqueues = 1,
				      .config_len = SERVED_CONFIG_LEN,
				      .always_flushes = true,
				      .keeps_account = b->manifest.keeps_account,
				      .where = b->name,
				      .connect = served_connect,
				      .ctx = s,
				      .peer = &s->program};
	vhost_init(&s->back);
	child_none(&s->program);
	v = served_values(s);
	rc = b->conf->serial[0] ? err_set(e, -EINVAL, "serial; expected none with this module") : 0;
	if (!rc && (b->conf->rate || b->conf->iops))
		rc = err_set(e, -EINVAL, "rate or iops; expected none with this module");
	if (!rc)
		rc = open_files(s, &v, e);
	if (!rc && s->has_network)
		rc = open_library(s, e);
	if (!rc && s->has_network)
		rc = served_reach(s, &v, when, e);
	if (!rc)
		rc = manifest_argv(&b->manifest, &v, s->argv, s->room, sizeof(s->room), e);
	if (rc)
		served_close(s);
	else
		*out = s;
	return rc;
}

int served_size(struct served *s, unsigned nqueues, uint64_t memory, struct err *e)
{
	struct manifest_values v;

	s->memory = memory;
	s->back.nqueues = nqueues;
	v = served_values(s);
	return manifest_argv(&s->module->manifest, &v, s->argv, s->room, sizeof(s->room), e);
}

/* What it keeps in mind of its image it writes when it is told to end. */
static void end_in_order(struct child *c)
{
	if (child_ended(c))
		return;
	kill(c->os.jail.pid, SIGTERM);
	if (!child_os_wait(c))
		log_warn("%s does not end: killed", c->name);
}

bool served_quiet(struct served *s)
{
	struct child *c = &s->program;

	if (child_ended(c))
		return true;
	if (!s->end_ns) {
		s->end_ns = clock_ns() + SERVED_END_NS;
		kill(c->os.jail.pid, SIGTERM);
	} else if (clock_ns() >= s->end_ns) {
		log_warn("%s does not end: killed", c->name);
		child_shoot(c);
	}
	return false;
}

void served_close(struct served *s)
{
	if (!s)
		return;
	end_in_order(&s->program);
	asks_end(&s->asks);
	child_free(&s->program);
	vhost_close(&s->back);
	for (unsigned i = 0; i < s->nfiles; i++)
		fd_close(&s->file[i].fd);
	free(s);
}
