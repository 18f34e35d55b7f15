/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files that take the values of settings: what a value is taken for, and how one is
 * refused. config.h is for everybody else.
 *
 * A refusal is said twice, from the same parts: as a line in struct err for people, and as data in
 * the configuration's struct mistake for programs. Nobody reads the data out of the line.
 */
#ifndef SPEC_CONFIG_TAKE_H
#define SPEC_CONFIG_TAKE_H

#include "config.h"
#include "settings.h"

struct json_object;
struct reading; /* JSON */

struct taking {
	struct vm_config *c;
	const struct setting *s;
	const struct setting_item *item; /* NULL: the whole setting */
	const char *where;          /* names the setting in the line: "--cpus"; of JSON: NULL, */
	const struct reading *read; /* and this says where it stands */
	int index;                  /* in an array of JSON; -1: in none */
	struct err *e;
};

/* "WHERE: ITEM 'VALUE'; expected ...". -EINVAL. */
int take_wrong(const struct taking *t, const char *value, const char *expected, ...)
	INSULA_PRINTF(3, 4);
/* "WHERE: " and other words; the data are `value` and `expected`, each NULL: none. -EINVAL. */
int take_refuse(const struct taking *t, const char *value, const char *expected, const char *fmt,
		...) INSULA_PRINTF(4, 5);
int take_no_memory(const struct taking *t);

/* "FILE:LINE:COLUMN: KEY", "json: KEY" or "KEY": what names this in a message; `member`: of the
 * object there, NULL: none. In config_json.c. */
#define WHERE_MAX 192
const char *where_is(const struct reading *r, const char *member, char out[WHERE_MAX]);

/* One of a setting that may come several times, from JSON; it is called by the setting's name. */
int config_json_one(struct vm_config *c, const struct setting *s, struct json_object *v,
		    struct err *e);

/* The value of t->s: what config_set() does. */
int config_take(const struct taking *t, const char *value);

/* A number, or a size, in the range of the item or else the setting; false: it is none. */
bool take_number(const struct taking *t, const char *text, unsigned *out);
bool take_size(const struct taking *t, const char *text, uint64_t *out);

/* Replace a text; a path must not be empty. */
int take_text(const struct taking *t, char **slot, const char *v);
int take_path(const struct taking *t, char **slot, const char *v);

/* So many `what` a second, in the range of the item. */
int take_rate(const struct taking *t, const char *v, const char *what, uint64_t *out);
/* A size in the range of the setting, of whole pages; `like`: an example, for the line. */
int take_pages(const struct taking *t, const char *v, const char *like, uint64_t *out);
/* "pci" or "mmio". */
int take_bus(const struct taking *t, const char *v, enum config_bus *bus);
/* "on" or "off". */
int take_switch(const struct taking *t, const char *v, bool *on);
/* The address of a network card. */
int take_mac(const struct taking *t, const char *v, uint8_t mac[6]);

/* ---- settings of items (config_items.c) ---- */

/* From the text of a flag. */
int items_text(const struct taking *t, const char *text);
/* Item by item; t->item is the item. After items_begin() either items_end(), which takes what it is
 * and drops it if that is no good, or items_drop(). `whole` is for the line. */
int items_begin(const struct taking *t);
int items_set(const struct taking *t, const char *value);
int items_end(const struct taking *t, const char *whole);
void items_drop(const struct taking *t);

/* How one such setting is taken: the disk, the card. */
struct items {
	const char *name, *form; /* of the setting; of its text, for the line */
	int (*begin)(const struct taking *t);
	int (*end)(const struct taking *t, const char *whole);
	void (*drop)(struct vm_config *c);
	const struct item_setter {
		const char *key;
		int (*set)(const struct taking *t, const char *v);
	} * set;
	size_t n;
};
/* config_net.c and config_device.c on Linux, settings_win.c */
extern const struct items items_net, items_device;

#endif
