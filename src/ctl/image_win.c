/* SPDX-License-Identifier: BSD-2-Clause */
/* "image": there are no images on Windows yet. See ctl.h. */
#include "ctl.h"

int ctl_image(struct ctl *c, int argc, char **argv)
{
	(void)c;
	(void)argc;
	(void)argv;
	print_message("", "image: not on Windows yet");
	return CTL_BAD_INPUT;
}
