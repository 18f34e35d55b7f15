/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: a machine that others are made of.
 *
 * It has booted, and the drivers of its network cards and live shares are loaded, but no device has
 * got its driver: the bus does not look for one (drivers_autoprobe). So it can be saved without what
 * is behind them, and each machine that goes on from there may have others. With the first
 * GP_RESUMED the devices get their drivers, the shares are mounted, and all is as after a boot.
 */
#include <stddef.h>

#include "guest.h"

/* Set once, before the host is served; NULL: this is no template. */
static const struct config *template;

void template_waits(const struct config *c)
{
	template = c;
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
