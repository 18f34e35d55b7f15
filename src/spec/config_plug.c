/* SPDX-License-Identifier: BSD-2-Clause */
/* What is said of a device that comes while the VM runs. See config.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "config_take.h"

/* In the order of its words. */
const char *const config_plug_kinds[] = {"disk", "net",   "share",   "device",
					 "vfio", "vsock", "console", NULL};
#define PLUG_FORM "one of disk, net, share, device, vfio, vsock and console"

static int plug_refuse(struct vm_config *c, const char *field, const char *value,
		       const char *expected, struct err *e)
{
	struct mistake *m = &c->mistake;

	*m = (struct mistake){.has_value = value};
	snprintf(m->field, sizeof(m->field), "%s", field);
	snprintf(m->value, sizeof(m->value), "%s", value ? value : "");
	snprintf(m->expected, sizeof(m->expected), "%s", expected);
	err_clean(m->value);
	return err_set(e, -EINVAL, "%s%s%.60s%s; expected %s", field[0] ? field : "a device",
		       value ? ": '" : "", m->value, value ? "'" : "", expected);
}

/* The bus of the one that there is. */
static enum config_bus plug_bus(const struct vm_config *c)
{
	return c->ndisks     ? c->disk[0].bus
	       : c->nnets    ? c->net[0].bus
	       : c->nshares  ? c->share[0].bus
	       : c->nvhosts  ? c->vhost[0].bus
	       : c->vsock.on ? c->vsock.bus
			     : CONFIG_BUS_UNSAID;
}

/* What a device from the start may have, and one that comes later may not. */
static int plug_check(struct vm_config *c, const char *kind, struct err *e)
{
	const struct net_config *n = &c->net[0];
	char field[32];

	snprintf(field, sizeof(field), "%s.bus", kind);
	if (plug_bus(c) == CONFIG_BUS_MMIO)
		return plug_refuse(c, field, "mmio", "pci: devices come on the PCI bus alone", e);
	if (c->nnets && (n->ip[0] || (n->dhcp && n->kind != NET_ON_USER)))
		return plug_refuse(c, "net.ip", n->ip[0] ? n->ip : "dhcp",
				   "none: the guest configures a card that comes later itself", e);
	if (c->nnets && n->metadata)
		return plug_refuse(c, "net.metadata", NULL,
				   "none: the metadata service is there from the start", e);
	if (c->nnets && n->kind == NET_ON_FD)
		return plug_refuse(c, "net.fd", NULL, NET_NO_FD, e);
	if (c->nvfios && c->vfio[0].fd >= 0)
		return plug_refuse(c, "vfio.fd", NULL,
				   "none: a descriptor cannot be handed to a VM that runs", e);
	if (!strcmp(kind, "console") &&
	    (!c->console_given || (c->console != CONSOLE_PTY && c->console != CONSOLE_FILE)))
		return plug_refuse(c, "console", NULL,
				   "pty or file=FILE[,limit=SIZE]: other ends are those of the "
				   "console from the start",
				   e);
	if (c->nshares && c->share[0].packed)
		return plug_refuse(c, "share", "packed", "a live one, or a disk", e);
	return 0;
}

int config_plug(struct vm_config *c, struct json_object *device, const char **kind, struct err *e)
{
	const struct setting *s = NULL;
	struct json_object *value = NULL;
	int rc;

	if (!json_object_is_type(device, json_type_object) ||
	    json_object_object_length(device) != 1)
		return plug_refuse(c, "", NULL, PLUG_FORM, e);
	json_object_object_foreach(device, key, v)
	{
		for (size_t i = 0; config_plug_kinds[i]; i++) {
			if (!strcmp(config_plug_kinds[i], key))
				s = setting_find(key);
		}
		if (!s)
			return plug_refuse(c, "", key, PLUG_FORM, e);
		value = v;
	}
	if (!s) /* it had one member */
		return -EINVAL;
	*kind = s->name;
	rc = config_json_one(c, s, value, e);
	return rc ? rc : plug_check(c, s->name, e);
}
