/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: a machine that others are made of.
 *
 * It has booted, and the drivers of its network cards and live shares are loaded, but no device has
 * got its driver: the bus does not look for one (drivers_autoprobe). So it can be saved without
 * what is behind them, and each machine that goes on from there may have others. With the first
 * GP_RESUMED the devices get their drivers, the shares are mounted, and all is as after a boot.
 */
#include <stddef.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define CLEAN_MAX (64u << 20)
#define CLEAN_STEP (1u << 20)
#define CLEAN_LEAVE (24u << 20)

/* Set once, before the host is served; NULL: this is no template. */
static const struct config *template;

/* What the kernel gave back last (the archive that it unpacked, the initramfs) it gives out first,
 * and it gives out zeros: they take no room in a snapshot and no time in a restore. Not all of the
 * memory, which the host would have to have then. */
static void clean_memory(void)
{
	struct sysinfo s;
	pid_t pid = fork();

	for (unsigned n = 0; pid == 0; n += CLEAN_STEP) {
		if (n == CLEAN_MAX || sysinfo(&s) < 0 || s.freeram * s.mem_unit < CLEAN_LEAVE ||
		    mmap(NULL, CLEAN_STEP, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) == MAP_FAILED)
			_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

void template_waits(const struct config *c)
{
	template = c;
	clean_memory();
}

bool template_goes_on(void)
{
	return template && modules_go_on();
}

void template_shares(void)
{
	fs_mount(template->fs);
	fs_watch(template->fs);
}
