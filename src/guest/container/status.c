/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: what the host is told (status files in the share), and what this program's
 * commands know about each other (state files in CT_STATE, which no container can reach).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "container.h"

int share_path(char out[CT_PATH_MAX], const char *id, const char *file, struct err *e)
{
	if (!id_valid(id))
		return err_set(e, -EINVAL, "container \"%.60s\": expected letters, digits, _ + - .",
			       id);
	if (!id_valid(file))
		return err_set(e, -EINVAL, "file \"%.60s\": expected letters, digits, _ + - .",
			       file);
	snprintf(out, CT_PATH_MAX, CT_SHARE "/%s/%s", id, file);
	return 0;
}

/* One line and its end, under another name first. */
static int replace_file(const char *path, const char *line)
{
	char now[CT_PATH_MAX + 8], text[CT_STATUS_MAX];
	int fd, r = 0, n = snprintf(text, sizeof text, "%s\n", line);

	snprintf(now, sizeof now, "%s.new", path);
	unlink(now);
	fd = open(now, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	n = n < (int)sizeof text ? n : (int)sizeof text - 1;
	if (write(fd, text, (size_t)n) != n)
		r = errno ? -errno : -EIO;
	if (close(fd) < 0 && !r)
		r = -errno;
	if (!r && rename(now, path) < 0)
		r = -errno;
	if (r)
		unlink(now);
	return r;
}

int status_write(const char *id, const char *file, const char *line, struct err *e)
{
	char path[CT_PATH_MAX];
	int r = share_path(path, id, file, e);

	if (r)
		return r;
	r = replace_file(path, line);
	return r ? err_sys(e, r, "write %s", path) : 0;
}

/* ---- state ---- */

static void state_path(char out[CT_PATH_MAX], const char *id)
{
	snprintf(out, CT_PATH_MAX, CT_STATE "/%s", id);
}

/* When a process was born, in clock ticks since boot: field 22 of its stat. */
static int birth(pid_t pid, uint64_t *out)
{
	char path[64], text[1024], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	p = strrchr(text, ')'); /* the name may hold blanks and brackets */
	for (unsigned field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return -ESRCH;
	*out = strtoull(p + 1, NULL, 10);
	return 0;
}

int state_write(const char *id, pid_t pid, struct err *e)
{
	char path[CT_PATH_MAX], line[64];
	uint64_t born;
	int r = birth(pid, &born);

	mkdir("/run/insula", 0755);
	mkdir(CT_STATE, 0700);
	state_path(path, id);
	snprintf(line, sizeof line, "%d %llu", pid, (unsigned long long)born);
	if (!r)
		r = replace_file(path, line);
	return r ? err_sys(e, r, "write %s", path) : 0;
}

void state_remove(const char *id)
{
	char path[CT_PATH_MAX];

	state_path(path, id);
	unlink(path);
}

static int state_read(const char *id, pid_t *pid, uint64_t *born)
{
	char path[CT_PATH_MAX];
	struct buffer b;
	int64_t v[2];
	int r;

	state_path(path, id);
	r = file_read(path, 64, &b, NULL);
	if (r)
		return r;
	b.data[strcspn(b.data, "\n")] = '\0';
	r = num_list(b.data, v, 2, false, INT64_MAX);
	free(b.data);
	if (r || v[0] < 1 || v[0] > INT32_MAX)
		return -EINVAL;
	*pid = (pid_t)v[0];
	*born = (uint64_t)v[1];
	return 0;
}

int state_open(const char *id, int *pidfd, pid_t *pid, struct err *e)
{
	uint64_t born = 0, now = 0;
	struct pollfd p;
	long fd;

	if (!id_valid(id))
		return err_set(e, -EINVAL, "container \"%.60s\": expected letters, digits, _ + - .",
			       id);
	if (state_read(id, pid, &born))
		return err_set(e, -ESRCH, "container %s is not running", id);
	fd = syscall(SYS_pidfd_open, *pid, 0u);
	p = (struct pollfd){.fd = (int)fd, .events = POLLIN};
	/* The descriptor first: then it is that process whose birth is read, if it still runs. */
	if (fd < 0 || birth(*pid, &now) || now != born || poll(&p, 1, 0) != 0) {
		if (fd >= 0)
			close((int)fd);
		return err_set(e, -ESRCH, "container %s is not running", id);
	}
	*pidfd = (int)fd;
	return 0;
}
