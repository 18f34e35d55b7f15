/* SPDX-License-Identifier: BSD-2-Clause */
/* What the settings are on Windows: there is neither a network nor vhost-user. See settings.h. */
#include "config_take.h"

const enum setting_system settings_here = ON_WINDOWS;

static int no_net_begin(const struct taking *t)
{
	return take_refuse(t, NULL, NULL, "there is no network on Windows yet");
}

static int no_device_begin(const struct taking *t)
{
	return take_refuse(t, NULL, NULL, "there is no vhost-user on Windows");
}

const struct items items_net = {.name = "net", .begin = no_net_begin};
const struct items items_device = {.name = "device", .begin = no_device_begin};
