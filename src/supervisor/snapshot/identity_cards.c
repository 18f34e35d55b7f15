/* SPDX-License-Identifier: BSD-2-Clause */
/* The network cards of a restored guest. See identity.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "devices/net/net_page.h"
#include "spec/json.h"
#include "identity.h"
#include "supervisor/backing/nic.h"
#include "supervisor/vm.h"

_Static_assert(IDENTITY_CARD == NIC_MAC_TEXT + NIC_RECORD, "its card");

/* The address that the guest's driver knows; false: there was no driver yet, and one that comes
 * will see what the device offers then. */
static bool card_known(const struct device *d, uint8_t mac[6])
{
	struct port_state port;
	struct net_state st;
	int page = d->slot[d->desc.page_slot];

	if (read_full(page, &port, sizeof(port), DP_STATE_OFF) ||
	    read_full(page, &st, sizeof(st), NET_STATE_OFF))
		return false;
	memcpy(mac, st.mac, sizeof(st.mac));
	return port.magic == PORT_STATE_MAGIC && port.tag == NET_TAG && st.valid;
}

/* What the configuration of the snapshot says of cards, in `then`. One that cannot be read says
 * nothing: all is new. */
static void cards_then(struct vm_config *then, json_object *config)
{
	json_object *o = json_object_new_object(), *nets = j_get(config, "nets");
	struct err e;

	config_init(then);
	if (nets) {
		j_obj(o, "nets", json_object_get(nets));
		if (config_json(then, "", j_text(o), strlen(j_text(o)), &e))
			config_drop_nets(then);
	}
	json_object_put(o);
}

/* Does the card get other addresses than it had? Their MAC addresses do not count. */
static bool readdressed(const struct net_config *now, const struct net_config *then)
{
	static const uint8_t none[6];
	char a[NIC_RECORD], b[NIC_RECORD];

	nic_record(now, none, a);
	nic_record(then, none, b);
	return strcmp(a, b) != 0;
}

/* Said for this start, another machine's, or as it was. */
static void choose_mac(const struct vm_config *c, const struct net_config *n, const uint8_t old[6],
		       uint8_t mac[6])
{
	if (n->has_mac && (c->given & config_bit("net")))
		memcpy(mac, n->mac, 6);
	else if (c->new_identity && !nic_is_parents(n)) /* `mac` is its already */
		nic_random(mac);
	else if (!c->new_identity)
		memcpy(mac, old, 6);
}

_Static_assert(CONFIG_MAX_NETS <= GP_CARDS_MAX, "each card has a place in the request");

/* `all`: what its record says beside the address. */
static void tell_card(struct identity *w, const struct net_config *n, const uint8_t old[6],
		      const uint8_t mac[6], bool all)
{
	char old_text[NIC_MAC_TEXT], record[NIC_RECORD];

	nic_mac_text(old, old_text);
	nic_record(n, mac, record);
	if (!all)
		record[NIC_MAC_TEXT - 1] = 0;
	if (!all && !memcmp(old, mac, 6))
		return;
	snprintf(w->card[w->ncards++], IDENTITY_CARD, "%s,%s", old_text, record);
}

/* `template`: one that no driver has had gets its driver now, and is set up as at a boot. */
static void choose_card(struct identity *w, const struct vm_config *c, struct device *d,
			const struct net_config *then, bool template)
{
	struct nic *nic = d->back.nic;
	uint8_t old[6], *mac = nic->start.mac;
	bool known = card_known(d, old);

	if (!known)
		memcpy(old, mac, 6);
	choose_mac(c, nic->conf, old, mac);
	if (known)
		tell_card(w, nic->conf, old, mac, readdressed(nic->conf, then));
	else if (template)
		tell_card(w, nic->conf, mac, mac, true);
}

int identity_choose_cards(struct identity *w, struct vm *vm, json_object *config, struct err *e)
{
	struct vm_config *then = calloc(1, sizeof(*then));
	bool template = j_get_bool(config, "template", false);

	if (!then)
		return err_set(e, -ENOMEM, "out of memory");
	cards_then(then, config);
	for (unsigned i = 0, nth = 0; i < vm->ndevices; i++) {
		if (vm->device[i].class == &device_net)
			choose_card(w, vm->conf, &vm->device[i], &then->net[nth++], template);
	}
	config_free(then);
	free(then);
	return 0;
}
