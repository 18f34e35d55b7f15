/* SPDX-License-Identifier: BSD-2-Clause */
/* A directory with all that is in it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

void tree_remove(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		fd_close(&fd);
		return;
	}
	while ((de = readdir(d))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (unlinkat(fd, de->d_name, 0) && (errno == EISDIR || errno == EPERM))
			tree_remove(fd, de->d_name);
	}
	closedir(d);
	unlinkat(dir, name, AT_REMOVEDIR);
}
