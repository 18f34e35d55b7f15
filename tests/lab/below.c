/* SPDX-License-Identifier: BSD-2-Clause */
/* For 27-container.sh, in a privileged container: unmounts its root and lists what lies below it. Static, because nothing else is left then. */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(void)
{
	int ns = open("/proc/self/ns/mnt", O_RDONLY);
	struct dirent *e;
	DIR *d;

	if (ns < 0 || umount2("/", MNT_DETACH) < 0 || setns(ns, CLONE_NEWNS) < 0) {
		perror("below");
		return 1;
	}
	d = opendir("/");
	if (!d) {
		perror("below: /");
		return 1;
	}
	printf("below:");
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			printf(" %s", e->d_name);
	printf(".\n");
	for (unsigned i = 0; i < 3; i++) {
		static const char *const gone[] = {"/run/insula", "/insula", "/bin/busybox"};

		if (open(gone[i], O_PATH) >= 0)
			printf("there is %s\n", gone[i]);
	}
	return 0;
}
