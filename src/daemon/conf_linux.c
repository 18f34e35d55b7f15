/* SPDX-License-Identifier: BSD-2-Clause */
/* Where insulad's things are. See conf.h. */
#include <string.h>

#include <insula/base.h>

#include "conf.h"

const char *const conf_missing[] = {NULL};
const char conf_socket_words[] = "an absolute path";

const char *conf_default_file(void)
{
	return "/etc/insula/insulad.json";
}

void conf_init_paths(struct conf *c)
{
	strcpy(c->socket, "/run/insula/insulad.sock");
	strcpy(c->state_dir, "/var/lib/insula");
}

bool conf_is_socket(const char *text)
{
	return path_is_absolute(text);
}
