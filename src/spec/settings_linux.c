/* SPDX-License-Identifier: BSD-2-Clause */
/* What the settings are on Linux: all of them. See settings.h. */
#include "settings.h"

const enum setting_system settings_here = ON_LINUX;
