/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings that are items between commas: disks, cards, the vsock device, devices of others. The
 * items come from the text of a flag, where ",," stands for a comma, or as the members of an object
 * of JSON; both are handed to the same function, item by item. See config_take.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "config_take.h"

char *config_next_item(char **rest)
{
	char *start = *rest, *in = start, *out = start;

	if (!start)
		return NULL;
	while (*in && (*in != ',' || in[1] == ',')) {
		if (*in == ',')
			in++;
		*out++ = *in++;
	}
	*rest = *in ? in + 1 : NULL;
	*out = 0;
	return start;
}

/* ---- disks ---- */

static struct disk_config *this_disk(const struct taking *t)
{
	return &t->c->disk[t->c->ndisks];
}

static int disk_begin(const struct taking *t)
{
	if (t->c->ndisks == CONFIG_MAX_DISKS)
		return take_refuse(t, NULL, NULL, "more than %d disks", CONFIG_MAX_DISKS);
	memset(this_disk(t), 0, sizeof(struct disk_config));
	return 0;
}

static int disk_path(const struct taking *t, const char *v)
{
	return take_path(t, &this_disk(t)->path, v);
}

static int disk_ro(const struct taking *t, const char *v)
{
	(void)v;
	this_disk(t)->ro = true;
	return 0;
}

static int disk_direct(const struct taking *t, const char *v)
{
	(void)v;
	this_disk(t)->direct = true;
	return 0;
}

static int disk_serial(const struct taking *t, const char *v)
{
	if (strlen(v) < t->item->min || strlen(v) > t->item->max)
		return take_wrong(t, v, "%u to %u characters", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	snprintf(this_disk(t)->serial, sizeof(this_disk(t)->serial), "%s", v);
	return 0;
}

static int disk_engine(const struct taking *t, const char *v)
{
	this_disk(t)->threads = !strcmp(v, "threads");
	if (!this_disk(t)->threads && strcmp(v, "auto") != 0)
		return take_wrong(t, v, "auto or threads");
	return 0;
}

static int disk_overlay(const struct taking *t, const char *v)
{
	this_disk(t)->thrown_away = !strcmp(v, "discard");
	return take_path(t, &this_disk(t)->overlay, v);
}

static int disk_options(const struct taking *t, const char *v)
{
	return take_text(t, &this_disk(t)->options, v);
}

int take_rate(const struct taking *t, const char *v, const char *what, uint64_t *out)
{
	char least[24], most[24];

	if (take_size(t, v, out))
		return 0;
	return take_wrong(t, v, "%s a second, %s to %s", what, size_text(t->item->min, least),
			  size_text(t->item->max, most));
}

static int disk_rate(const struct taking *t, const char *v)
{
	return take_rate(t, v, "bytes", &this_disk(t)->rate);
}

static int disk_iops(const struct taking *t, const char *v)
{
	return take_rate(t, v, "requests", &this_disk(t)->iops);
}

int take_bus(const struct taking *t, const char *v, enum config_bus *bus)
{
	*bus = !strcmp(v, "pci")    ? CONFIG_BUS_PCI
	       : !strcmp(v, "mmio") ? CONFIG_BUS_MMIO
				    : CONFIG_BUS_UNSAID;
	return *bus ? 0 : take_wrong(t, v, "pci or mmio");
}

int take_switch(const struct taking *t, const char *v, bool *on)
{
	*on = !strcmp(v, "on");
	return *on || !strcmp(v, "off") ? 0 : take_wrong(t, v, "on or off");
}

static int disk_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &this_disk(t)->bus);
}

#define DISK_FORM                                                                      \
	"[path=]FILE[,ro][,direct][,serial=S][,engine=threads][,overlay=FILE|discard]" \
	"[,rate=BYTES][,iops=N][,bus=pci|mmio]"

static int disk_end(const struct taking *t, const char *whole)
{
	if (!this_disk(t)->path)
		return take_wrong(t, whole, "%s", DISK_FORM);
	if (this_disk(t)->overlay && this_disk(t)->ro)
		return take_refuse(t, whole, "overlay without ro",
				   "'%.60s': overlay and ro; expected one of them", whole);
	if (this_disk(t)->options && !config_module(this_disk(t)->path))
		return take_refuse(t, whole, "options with MODULE:TARGET",
				   "'%.60s': options; expected with MODULE:TARGET only", whole);
	if (config_module(this_disk(t)->path) &&
	    (this_disk(t)->direct || this_disk(t)->threads || this_disk(t)->overlay))
		return take_refuse(t, whole, "MODULE:TARGET without direct, engine and overlay",
				   "'%.60s': direct, engine or overlay; expected with files only",
				   whole);
	t->c->ndisks++;
	return 0;
}

static void disk_drop(struct vm_config *c)
{
	free(c->disk[c->ndisks].path);
	c->disk[c->ndisks].path = NULL;
	free(c->disk[c->ndisks].overlay);
	c->disk[c->ndisks].overlay = NULL;
	free(c->disk[c->ndisks].options);
	c->disk[c->ndisks].options = NULL;
}

static const struct item_setter disk_setters[] = {
	{"path", disk_path},       {"ro", disk_ro},         {"direct", disk_direct},
	{"serial", disk_serial},   {"engine", disk_engine}, {"overlay", disk_overlay},
	{"options", disk_options}, {"rate", disk_rate},     {"iops", disk_iops},
	{"bus", disk_bus}};

/* ---- vsock ---- */

static int vsock_begin(const struct taking *t)
{
	free(t->c->vsock.path);
	t->c->vsock = (struct vsock_config){.on = true};
	return 0;
}

static int vsock_path(const struct taking *t, const char *v)
{
	return take_path(t, &t->c->vsock.path, v);
}

static int vsock_cid(const struct taking *t, const char *v)
{
	unsigned cid;

	if (!take_number(t, v, &cid))
		return take_wrong(t, v, "a number from %u to %u", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	t->c->vsock.cid = cid;
	return 0;
}

static int vsock_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &t->c->vsock.bus);
}

static int vsock_vhost(const struct taking *t, const char *v)
{
	int rc = take_switch(t, v, &t->c->vsock.vhost);

	if (!rc && t->c->vsock.vhost && settings_here == ON_WINDOWS)
		return take_refuse(t, v, "off", "vhost: on; expected off on Windows");
	return rc;
}

#define VSOCK_FORM "[path=]FILE[,cid=N][,bus=pci|mmio], or vhost=on,cid=N[,bus=pci|mmio]"

static int check_vhost_vsock(const struct taking *t, const struct vsock_config *v)
{
	if (v->path)
		return take_refuse(t, NULL, "off with a path",
				   "vhost: on, with a path; expected one of them: with vhost=on "
				   "programs of the host use AF_VSOCK");
	if (!v->cid)
		return take_refuse(t, NULL, "with cid",
				   "vhost: on, without cid; expected cid=N that no other machine "
				   "of this host has");
	return 0;
}

static int vsock_end(const struct taking *t, const char *whole)
{
	struct vsock_config *v = &t->c->vsock;

	if (v->vhost)
		return check_vhost_vsock(t, v);
	if (!v->cid)
		v->cid = VSOCK_DEFAULT_CID;
	return v->path ? 0 : take_wrong(t, whole, "%s", VSOCK_FORM);
}

static void vsock_drop(struct vm_config *c)
{
	(void)c;
}

static const struct item_setter vsock_setters[] = {
	{"path", vsock_path}, {"cid", vsock_cid}, {"vhost", vsock_vhost}, {"bus", vsock_bus}};

/* ---- cloud-init's disk ---- */

const char *const config_seed_names[CONFIG_SEED_FILES] = {"meta-data", "network-config",
							  "user-data", "vendor-data"};

static int seed_begin(const struct taking *t)
{
	for (unsigned i = 0; i < CONFIG_SEED_FILES; i++)
		free(t->c->seed.file[i]);
	t->c->seed = (struct seed_config){.on = true};
	return 0;
}

static int seed_file(const struct taking *t, const char *v)
{
	unsigned i = 0;

	while (strcmp(config_seed_names[i], t->item->key) != 0)
		i++;
	return take_path(t, &t->c->seed.file[i], v);
}

static int seed_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &t->c->seed.bus);
}

#define SEED_FORM                                                                  \
	"user-data=FILE[,meta-data=FILE][,network-config=FILE][,vendor-data=FILE]" \
	"[,bus=pci|mmio]"

static int seed_end(const struct taking *t, const char *whole)
{
	const struct seed_config *s = &t->c->seed;

	return s->file[0] || s->file[2] ? 0 : take_wrong(t, whole, "%s", SEED_FORM);
}

static void seed_drop(struct vm_config *c)
{
	(void)c;
}

static const struct item_setter seed_setters[] = {{"meta-data", seed_file},
						  {"network-config", seed_file},
						  {"user-data", seed_file},
						  {"vendor-data", seed_file},
						  {"bus", seed_bus}};

/* ---- the balloon ---- */

static struct balloon_config *this_balloon(const struct taking *t)
{
	return &t->c->balloon;
}

static int balloon_begin(const struct taking *t)
{
	t->c->balloon = (struct balloon_config){0};
	return 0;
}

static int balloon_on(const struct taking *t, const char *v)
{
	(void)v;
	this_balloon(t)->on = true;
	return 0;
}

static int balloon_off(const struct taking *t, const char *v)
{
	(void)v;
	this_balloon(t)->off = true;
	return 0;
}

static int balloon_target(const struct taking *t, const char *v)
{
	char least[24], most[24];

	this_balloon(t)->on = true;
	if (take_size(t, v, &this_balloon(t)->target))
		return 0;
	return take_wrong(t, v, "a size from %s to %s", size_text(t->item->min, least),
			  size_text(t->item->max, most));
}

static int balloon_reports(const struct taking *t, const char *v)
{
	bool on;
	int rc;

	this_balloon(t)->on = true;
	rc = take_switch(t, v, &on);
	this_balloon(t)->no_reports = !on;
	return rc;
}

static int balloon_seconds(const struct taking *t, const char *v, unsigned *out)
{
	this_balloon(t)->on = true;
	if (take_number(t, v, out))
		return 0;
	return take_wrong(t, v, "a number of seconds from %u to %u", (unsigned)t->item->min,
			  (unsigned)t->item->max);
}

static int balloon_idle(const struct taking *t, const char *v)
{
	return balloon_seconds(t, v, &this_balloon(t)->idle);
}

static int balloon_stats(const struct taking *t, const char *v)
{
	return balloon_seconds(t, v, &this_balloon(t)->stats);
}

static int balloon_bus(const struct taking *t, const char *v)
{
	this_balloon(t)->on = true;
	return take_bus(t, v, &this_balloon(t)->bus);
}

#define BALLOON_FORM \
	"off|on[,target=SIZE][,idle=SECONDS][,reports=off][,stats=SECONDS][,bus=pci|mmio]"

static int balloon_end(const struct taking *t, const char *whole)
{
	const struct balloon_config *b = this_balloon(t);

	return b->on != b->off ? 0 : take_wrong(t, whole, "%s", BALLOON_FORM);
}

static void balloon_drop(struct vm_config *c)
{
	c->balloon = (struct balloon_config){0};
}

static const struct item_setter balloon_setters[] = {
	{"on", balloon_on},           {"off", balloon_off},   {"target", balloon_target},
	{"reports", balloon_reports}, {"idle", balloon_idle}, {"stats", balloon_stats},
	{"bus", balloon_bus}};

/* ---- all of them ---- */

static const struct items items_balloon = {"balloon",
					   BALLOON_FORM,
					   balloon_begin,
					   balloon_end,
					   balloon_drop,
					   balloon_setters,
					   ARRAY_LEN(balloon_setters)};

static const struct items items_disk = {
	"disk", DISK_FORM, disk_begin, disk_end, disk_drop, disk_setters, ARRAY_LEN(disk_setters)};
static const struct items items_vsock = {"vsock",
					 VSOCK_FORM,
					 vsock_begin,
					 vsock_end,
					 vsock_drop,
					 vsock_setters,
					 ARRAY_LEN(vsock_setters)};

static const struct items items_seed = {
	"cloud-init",           SEED_FORM, seed_begin, seed_end, seed_drop, seed_setters,
	ARRAY_LEN(seed_setters)};

static const struct items *items_of(const struct taking *t)
{
	static const struct items *const all[] = {&items_disk,   &items_net,     &items_vsock,
						  &items_device, &items_balloon, &items_seed};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (!strcmp(all[i]->name, t->s->name))
			return all[i];
	}
	panic("setting %s: nothing takes its items", t->s->name);
}

int items_begin(const struct taking *t)
{
	t->c->given |= 1ull << (t->s - settings);
	return items_of(t)->begin(t);
}

int items_set(const struct taking *t, const char *value)
{
	const struct items *all = items_of(t);

	for (size_t i = 0; i < all->n; i++) {
		if (!strcmp(all->set[i].key, t->item->key))
			return all->set[i].set(t, value);
	}
	panic("setting %s: nothing takes %s", t->s->name, t->item->key);
}

int items_end(const struct taking *t, const char *whole)
{
	int rc = items_of(t)->end(t, whole);

	if (rc)
		items_drop(t);
	return rc;
}

void items_drop(const struct taking *t)
{
	items_of(t)->drop(t->c);
}

static int unknown_item(const struct taking *t, const char *text)
{
	const char *form = items_of(t)->form, *meant, *equals;
	char key[32];

	snprintf(key, sizeof(key), "%.*s", (int)strcspn(text, "="), text);
	meant = setting_item_meant(t->s, key);
	if (!meant)
		return take_wrong(t, text, "%s", form);
	equals = setting_item_find(t->s, meant, strlen(meant))->type == SETTING_FLAG ? "" : "=";
	return take_refuse(t, text, form, "'%.60s'; did you mean '%s%s'?; expected %s", text, meant,
			   equals, form);
}

/* Of a module's disk: what is none of our items is one of its own. In `options` a colon of a value
 * is written twice. */
static int module_item(const struct taking *t, const char *text)
{
	char **options = &this_disk(t)->options, *all, *to;
	size_t had = *options ? strlen(*options) : 0;

	all = to = malloc(had + 2 * strlen(text) + 2);
	if (!all)
		return take_no_memory(t);
	if (had) {
		memcpy(all, *options, had);
		to += had;
		*to++ = ':';
	}
	for (const char *p = text; *p; p++) {
		*to++ = *p;
		if (*p == ':')
			*to++ = ':';
	}
	*to = 0;
	free(*options);
	*options = all;
	return 0;
}

static bool is_module_item(const struct taking *t, const char *text)
{
	return !strcmp(t->s->name, "disk") && this_disk(t)->path &&
	       config_module(this_disk(t)->path) && strchr(text, '=');
}

static int one_item(const struct taking *t, const char *text)
{
	size_t len = strcspn(text, "=");
	struct taking one = *t;

	one.item = setting_item_find(t->s, text, len);
	if (!one.item && is_module_item(t, text))
		return module_item(t, text);
	if (!one.item || (one.item->type == SETTING_FLAG) != (text[len] != '='))
		return unknown_item(t, text);
	return items_set(&one, text[len] ? text + len + 1 : "");
}

static int bare_path(const struct taking *t, char **rest)
{
	struct taking one = *t;

	one.item = setting_item_find(t->s, "path", 4);
	return items_set(&one, config_next_item(rest));
}

int items_text(const struct taking *t, const char *text)
{
	char *copy = strdup(text), *rest = copy, *item;
	int rc;

	if (!copy)
		return take_no_memory(t);
	rc = items_begin(t);
	if (rc)
		goto out;
	if (setting_is_bare(t->s, text))
		rc = bare_path(t, &rest);
	while (!rc && (item = config_next_item(&rest)))
		rc = one_item(t, item);
	if (rc)
		items_drop(t);
	else
		rc = items_end(t, text);
out:
	free(copy);
	return rc;
}
