/* SPDX-License-Identifier: BSD-2-Clause */
/* The setting of a device that another program serves (vhost-user). See config_take.h. */
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_ids.h>

#include <insula/base.h>

#include "config_take.h"

#define DEVICE_FORM                                                                      \
	"vhost-user,type=fs|blk|net|N,socket=PATH[,server][,tag=TAG][,queues=N][,mac=M]" \
	"[,config=BYTES][,bus=pci|mmio]"
#define CONFIG_UNSAID UINT32_MAX

static const struct {
	const char *name;
	uint32_t id;
	unsigned config_len, more_queues; /* besides those that queues= counts */
} vhost_types[] = {
	{"fs", VIRTIO_ID_FS, 0, 1},
	{"blk", VIRTIO_ID_BLOCK, 60, 0}, /* up to what write-zeroes needs: virtio 1.1, 5.2.4 */
	{"net", VIRTIO_ID_NET, 0, 1},
};

static struct vhost_config *this_vhost(const struct taking *t)
{
	return &t->c->vhost[t->c->nvhosts];
}

static int vhost_begin(const struct taking *t)
{
	if (t->c->nvhosts == CONFIG_MAX_VHOSTS)
		return take_refuse(t, NULL, NULL, "more than %d devices", CONFIG_MAX_VHOSTS);
	*this_vhost(t) = (struct vhost_config){.config_len = CONFIG_UNSAID};
	return 0;
}

static void vhost_drop(struct vm_config *c)
{
	free(c->vhost[c->nvhosts].socket);
	c->vhost[c->nvhosts].socket = NULL;
}

/* ---- one function per item ---- */

static int vhost_is_one(const struct taking *t, const char *v)
{
	(void)v;
	this_vhost(t)->given = true;
	return 0;
}

static int vhost_type(const struct taking *t, const char *v)
{
	uint64_t n;

	for (size_t i = 0; i < ARRAY_LEN(vhost_types); i++) {
		if (!strcmp(v, vhost_types[i].name)) {
			this_vhost(t)->device_id = vhost_types[i].id;
			return 0;
		}
	}
	if (!parse_size(v, &n) || v[strspn(v, "0123456789")] || n < 1 || n > CONFIG_VHOST_MAX_ID)
		return take_wrong(t, v,
				  "fs, blk, net, or the number of a virtio device from 1 to %u",
				  CONFIG_VHOST_MAX_ID);
	this_vhost(t)->device_id = (uint32_t)n;
	return 0;
}

static int vhost_socket_path(const struct taking *t, const char *v)
{
	if (strlen(v) < t->item->min || strlen(v) > t->item->max)
		return take_wrong(t, v, "%u to %u characters", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	return take_text(t, &this_vhost(t)->socket, v);
}

static int vhost_server(const struct taking *t, const char *v)
{
	(void)v;
	this_vhost(t)->server = true;
	return 0;
}

static int vhost_tag(const struct taking *t, const char *v)
{
	if (strlen(v) < t->item->min || strlen(v) > t->item->max)
		return take_wrong(t, v, "%u to %u characters", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	strcpy(this_vhost(t)->tag, v);
	return 0;
}

static int vhost_queues(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &this_vhost(t)->nqueues))
		return take_wrong(t, v, "a number from %u to %u", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	return 0;
}

static int vhost_mac(const struct taking *t, const char *v)
{
	return take_mac(t, v, this_vhost(t)->mac);
}

static int vhost_config_len(const struct taking *t, const char *v)
{
	if (!take_number(t, v, &this_vhost(t)->config_len))
		return take_wrong(t, v, "bytes from %u to %u", (unsigned)t->item->min,
				  (unsigned)t->item->max);
	return 0;
}

static int vhost_bus(const struct taking *t, const char *v)
{
	return take_bus(t, v, &this_vhost(t)->bus);
}

static const struct item_setter vhost_setters[] = {
	{"vhost-user", vhost_is_one}, {"type", vhost_type},         {"socket", vhost_socket_path},
	{"server", vhost_server},     {"tag", vhost_tag},           {"queues", vhost_queues},
	{"mac", vhost_mac},           {"config", vhost_config_len}, {"bus", vhost_bus},
};

/* ---- the whole ---- */

/* Items that want another one. */
static int vhost_check(const struct taking *t)
{
	const struct vhost_config *v = this_vhost(t);
	static const uint8_t no_mac[6];

	if (v->tag[0] && v->device_id != VIRTIO_ID_FS)
		return take_refuse(t, v->tag, "with type=fs", "tag: expected with type=fs only");
	if (memcmp(v->mac, no_mac, sizeof(no_mac)) && v->device_id != VIRTIO_ID_NET)
		return take_refuse(t, NULL, "with type=net", "mac: expected with type=net only");
	if (v->nqueues > 1 && v->device_id == VIRTIO_ID_NET)
		return take_refuse(t, NULL, "1", "queues=%u; expected 1 with type=net", v->nqueues);
	return 0;
}

/* What was not said. */
static void vhost_fill(struct vhost_config *v)
{
	unsigned config_len = 0, more = 0;

	for (size_t i = 0; i < ARRAY_LEN(vhost_types); i++) {
		if (vhost_types[i].id == v->device_id) {
			config_len = vhost_types[i].config_len;
			more = vhost_types[i].more_queues;
		}
	}
	if (v->config_len == CONFIG_UNSAID)
		v->config_len = config_len;
	v->nqueues = (v->nqueues ? v->nqueues : 1) + more;
}

static int vhost_end(const struct taking *t, const char *whole)
{
	struct vhost_config *v = this_vhost(t);
	int rc;

	if (!v->given || !v->device_id || !v->socket)
		return take_wrong(t, whole, "%s", DEVICE_FORM);
	rc = vhost_check(t);
	if (rc)
		return rc;
	vhost_fill(v);
	t->c->nvhosts++;
	return 0;
}

const struct items items_device = {"device",
				   DEVICE_FORM,
				   vhost_begin,
				   vhost_end,
				   vhost_drop,
				   vhost_setters,
				   ARRAY_LEN(vhost_setters)};
