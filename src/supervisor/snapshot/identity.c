/* SPDX-License-Identifier: BSD-2-Clause */
/* Who a restored guest is. See identity.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "identity.h"
#include "supervisor/vm.h"

/* ---- names ---- */

/* Of version 4 and the usual variant, as systemd makes its own. */
static void choose_machine_id(char id[33])
{
	static const char variant[] = "89ab";

	random_hex(id, 32);
	id[12] = '4';
	id[16] = variant[(unsigned char)id[16] % 4];
}

void identity_name(struct identity *w, const struct vm_config *c, const char *name)
{
	w->vm = name;
	w->host_name = c->hostname;
	if (!c->new_identity)
		return;
	choose_machine_id(w->machine_id);
	if (w->host_name)
		return;
	if (name && name[0] && gp_host_name_ok(name))
		snprintf(w->name, sizeof(w->name), "%s", name);
	else
		snprintf(w->name, sizeof(w->name), "insula-%.8s", w->machine_id);
	w->host_name = w->name;
}

int identity_choose(struct identity *w, struct vm *vm, json_object *config, struct err *e)
{
	*w = (struct identity){0};
	return identity_choose_cards(w, vm, config, e);
}

/* ---- the guest ---- */

int identity_tell(struct vm *vm, const struct identity *w, exec_done *done, uint32_t *id,
		  struct err *e)
{
	const char *card[GP_CARDS_MAX];
	const struct resumed what = {.vm = w->vm,
				     .clock = true,
				     .host_name = w->host_name,
				     .machine_id = w->machine_id,
				     .ncards = w->ncards,
				     .card = card};

	for (unsigned i = 0; i < w->ncards; i++) {
		card[i] = w->card[i];
		log_info("restore: network card %s", card[i]);
	}
	if (w->host_name)
		log_info("restore: host name %s", w->host_name);
	if (w->machine_id[0])
		log_info("restore: machine-id %s", w->machine_id);
	return exec_resumed(vm, &what, done, id, e);
}

void identity_not_told(const struct vm *vm, const struct identity *w)
{
	if (vm->conf->new_identity)
		log_warn("restore: the guest has no agent: it keeps its host name, machine-id and "
			 "addresses, and its random numbers are new only if its kernel sees to it");
	for (unsigned i = 0; i < w->ncards && !vm->conf->new_identity; i++)
		log_warn("restore: the guest has no agent that could tell it: network card %s",
			 w->card[i]);
}
