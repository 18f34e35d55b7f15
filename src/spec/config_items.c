/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings that are items between commas: disks, cards, the vsock device, devices of others. The items come from the
 * text of a flag, where ",," stands for a comma, or as the members of an object of JSON; both are
 * handed to the same function, item by item. See config_take.h.
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

int take_bus(const struct taking *t, const char *v, enum config_bus *bus)
{
	*bus = !strcmp(v, "pci")    ? CONFIG_BUS_PCI
	       : !strcmp(v, "mmio") ? CONFIG_BUS_MMIO
				    : CONFIG_BUS_UNSAID;
	return *bus ? 0 : take_wrong(t, v, "pci or mmio");
}

static int disk_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &this_disk(t)->bus);
}

#define DISK_FORM                                                                      \
	"[path=]FILE[,ro][,direct][,serial=S][,engine=threads][,overlay=FILE|discard]" \
	"[,bus=pci|mmio]"

static int disk_end(const struct taking *t, const char *whole)
{
	if (!this_disk(t)->path)
		return take_wrong(t, whole, "%s", DISK_FORM);
	if (this_disk(t)->overlay && this_disk(t)->ro)
		return take_refuse(t, whole, "overlay without ro",
				   "'%.60s': overlay and ro; expected one of them", whole);
	t->c->ndisks++;
	return 0;
}

static void disk_drop(struct vm_config *c)
{
	free(c->disk[c->ndisks].path);
	c->disk[c->ndisks].path = NULL;
	free(c->disk[c->ndisks].overlay);
	c->disk[c->ndisks].overlay = NULL;
}

static const struct item_setter disk_setters[] = {
	{"path", disk_path},     {"ro", disk_ro},         {"direct", disk_direct},
	{"serial", disk_serial}, {"engine", disk_engine}, {"overlay", disk_overlay},
	{"bus", disk_bus}};

/* ---- vsock ---- */

static int vsock_begin(const struct taking *t)
{
	free(t->c->vsock.path);
	t->c->vsock = (struct vsock_config){.on = true, .cid = VSOCK_DEFAULT_CID};
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

#define VSOCK_FORM "[path=]FILE[,cid=N][,bus=pci|mmio]"

static int vsock_end(const struct taking *t, const char *whole)
{
	return t->c->vsock.path ? 0 : take_wrong(t, whole, "%s", VSOCK_FORM);
}

static void vsock_drop(struct vm_config *c)
{
	(void)c;
}

static const struct item_setter vsock_setters[] = {
	{"path", vsock_path}, {"cid", vsock_cid}, {"bus", vsock_bus}};

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
	this_balloon(t)->on = true;
	this_balloon(t)->no_reports = !strcmp(v, "off");
	if (!this_balloon(t)->no_reports && strcmp(v, "on") != 0)
		return take_wrong(t, v, "on or off");
	return 0;
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

static const struct items *items_of(const struct taking *t)
{
	static const struct items *const all[] = {&items_disk, &items_net, &items_vsock,
						  &items_device, &items_balloon};

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

static int one_item(const struct taking *t, const char *text)
{
	size_t len = strcspn(text, "=");
	struct taking one = *t;

	one.item = setting_item_find(t->s, text, len);
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
