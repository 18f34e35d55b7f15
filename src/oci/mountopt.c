/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of mount options. See mountopt.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/mount.h>

#include <insula/base.h>

#include "field.h"
#include "mountopt.h"

#define ATIME_FLAGS (MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

struct option_flag {
	const char *name;
	unsigned long set, clear;
};

static const struct option_flag option_flags[] = {
	{"async", 0, MS_SYNCHRONOUS},
	{"atime", 0, MS_NOATIME},
	{"bind", MS_BIND, 0},
	{"defaults", 0, 0},
	{"dev", 0, MS_NODEV},
	{"diratime", 0, MS_NODIRATIME},
	{"dirsync", MS_DIRSYNC, 0},
	{"exec", 0, MS_NOEXEC},
	{"iversion", MS_I_VERSION, 0},
	{"lazytime", MS_LAZYTIME, 0},
	{"loud", 0, MS_SILENT},
	{"mand", MS_MANDLOCK, 0},
	{"noatime", MS_NOATIME, MS_RELATIME | MS_STRICTATIME},
	{"nodev", MS_NODEV, 0},
	{"nodiratime", MS_NODIRATIME, 0},
	{"noexec", MS_NOEXEC, 0},
	{"noiversion", 0, MS_I_VERSION},
	{"nolazytime", 0, MS_LAZYTIME},
	{"nomand", 0, MS_MANDLOCK},
	{"norelatime", 0, MS_RELATIME},
	{"nostrictatime", 0, MS_STRICTATIME},
	{"nosuid", MS_NOSUID, 0},
	{"nosymfollow", MS_NOSYMFOLLOW, 0},
	{"rbind", MS_BIND | MS_REC, 0},
	{"relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME},
	{"remount", MS_REMOUNT, 0},
	{"ro", MS_RDONLY, 0},
	{"rw", 0, MS_RDONLY},
	{"silent", MS_SILENT, 0},
	{"strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME},
	{"suid", 0, MS_NOSUID},
	{"symfollow", 0, MS_NOSYMFOLLOW},
	{"sync", MS_SYNCHRONOUS, 0},
};

static const struct {
	const char *name;
	unsigned long flags;
} option_propagation[] = {
	{"private", MS_PRIVATE},       {"rprivate", MS_PRIVATE | MS_REC},
	{"shared", MS_SHARED},         {"rshared", MS_SHARED | MS_REC},
	{"slave", MS_SLAVE},           {"rslave", MS_SLAVE | MS_REC},
	{"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC},
};

/* mount_setattr(2), with AT_RECURSIVE. The times are a field of three values: 0 is relatime. */
static const struct {
	const char *name;
	uint64_t set, clear;
	unsigned long flags, clear_flags; /* the same for the mount itself */
} option_recursive[] = {
	{"rro", MOUNT_ATTR_RDONLY, 0, MS_RDONLY, 0},
	{"rrw", 0, MOUNT_ATTR_RDONLY, 0, MS_RDONLY},
	{"rnosuid", MOUNT_ATTR_NOSUID, 0, MS_NOSUID, 0},
	{"rsuid", 0, MOUNT_ATTR_NOSUID, 0, MS_NOSUID},
	{"rnodev", MOUNT_ATTR_NODEV, 0, MS_NODEV, 0},
	{"rdev", 0, MOUNT_ATTR_NODEV, 0, MS_NODEV},
	{"rnoexec", MOUNT_ATTR_NOEXEC, 0, MS_NOEXEC, 0},
	{"rexec", 0, MOUNT_ATTR_NOEXEC, 0, MS_NOEXEC},
	{"rnodiratime", MOUNT_ATTR_NODIRATIME, 0, MS_NODIRATIME, 0},
	{"rdiratime", 0, MOUNT_ATTR_NODIRATIME, 0, MS_NODIRATIME},
	{"rrelatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME, MS_RELATIME, ATIME_FLAGS},
	{"rnorelatime", 0, MOUNT_ATTR__ATIME, 0, MS_RELATIME},
	{"rnoatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, MS_NOATIME, ATIME_FLAGS},
	{"ratime", 0, MOUNT_ATTR__ATIME, 0, MS_NOATIME},
	{"rstrictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, MS_STRICTATIME, ATIME_FLAGS},
	{"rnostrictatime", 0, MOUNT_ATTR__ATIME, 0, MS_STRICTATIME},
	{"rnosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0, MS_NOSYMFOLLOW, 0},
	{"rsymfollow", 0, MOUNT_ATTR_NOSYMFOLLOW, 0, MS_NOSYMFOLLOW},
};

unsigned long mountopt_propagation(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(option_propagation); i++) {
		if (!strcmp(option_propagation[i].name, word))
			return option_propagation[i].flags;
	}
	return 0;
}

/* A later option overrides an earlier one. */
static void mountopt_change(struct mountopt *o, unsigned long set, unsigned long clear)
{
	o->flags = (o->flags & ~clear) | set;
	o->clear = (o->clear & ~set) | clear;
}

static bool mountopt_flag(struct mountopt *o, const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(option_flags); i++) {
		if (strcmp(option_flags[i].name, word) != 0)
			continue;
		mountopt_change(o, option_flags[i].set, option_flags[i].clear);
		return true;
	}
	return false;
}

static bool mountopt_recursive(struct mountopt *o, const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(option_recursive); i++) {
		if (strcmp(option_recursive[i].name, word) != 0)
			continue;
		o->attr = (o->attr & ~option_recursive[i].clear) | option_recursive[i].set;
		o->attr_clear =
			(o->attr_clear & ~option_recursive[i].set) | option_recursive[i].clear;
		mountopt_change(o, option_recursive[i].flags, option_recursive[i].clear_flags);
		return true;
	}
	return false;
}

static int mountopt_data(struct mountopt *o, const char *word, struct err *e)
{
	size_t have = o->data ? strlen(o->data) : 0, more = strlen(word);
	char *data = realloc(o->data, have + more + 2);

	if (!data)
		return err_set(e, -ENOMEM, "out of memory");
	o->data = data;
	if (have)
		data[have++] = ',';
	memcpy(data + have, word, more + 1);
	return 0;
}

static int mountopt_word(struct mountopt *o, const char *word, const char *where, struct err *e)
{
	unsigned long prop = mountopt_propagation(word);

	if (prop) {
		o->prop = prop;
		return 0;
	}
	if (mountopt_flag(o, word) || mountopt_recursive(o, word))
		return 0;
	if (!strcmp(word, "tmpcopyup")) {
		o->copyup = true;
		return 0;
	}
	if (!strcmp(word, "idmap") || !strcmp(word, "ridmap"))
		return err_set(e, -EOPNOTSUPP,
			       "%s.options: %s: a mount with mapped ids is not possible in a VM",
			       where, word);
	return word[0] ? mountopt_data(o, word, e) : 0;
}

int mountopt_parse(struct mountopt *o, json_object *options, const char *type, const char *where,
		   struct err *e)
{
	char at[FIELD_WHERE_MAX];
	const char *word;
	int rc = 0;

	*o = (struct mountopt){0};
	field_in(at, where, "options");
	if (!strcmp(type, "bind") || !strcmp(type, "rbind"))
		mountopt_flag(o, type);
	for (size_t i = 0; i < field_count(options) && !rc; i++) {
		rc = field_text_at(options, at, i, &word, e);
		if (!rc)
			rc = mountopt_word(o, word, where, e);
	}
	if (rc)
		mountopt_free(o);
	return rc;
}

void mountopt_free(struct mountopt *o)
{
	free(o->data);
	o->data = NULL;
}
