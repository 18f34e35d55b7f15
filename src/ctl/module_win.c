/* SPDX-License-Identifier: BSD-2-Clause */
/* "module": there are no storage modules on Windows yet. See ctl.h. */
#include "ctl.h"

int ctl_module(struct ctl *c, int argc, char **argv)
{
	(void)c;
	(void)argc;
	(void)argv;
	print_message("", "module: not on Windows yet");
	return CTL_BAD_INPUT;
}
