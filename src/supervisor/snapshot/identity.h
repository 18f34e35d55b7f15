/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who a restored guest is: the machine that was saved, or with --identity new another one, with a
 * host name, a machine-id and MAC addresses of its own.
 *
 * The guest hears of it in one request to insula-init (exec_resumed()), with the host's time and
 * random numbers. It is told of a network card only what is new: another MAC address, or addresses
 * that the configuration did not give the card before.
 *
 * Thread: the supervisor's.
 */
#ifndef SUPERVISOR_IDENTITY_H
#define SUPERVISOR_IDENTITY_H

#include <json-c/json.h>

#include <insula/guestproto.h>

#include "supervisor/command/exec.h"

#define IDENTITY_CARD 146 /* a MAC address, a comma, and what nic_record() says */
struct vm;
struct vm_config;
struct identity {
	const char *vm;        /* what insulad calls it; NULL: nothing; borrowed */
	const char *host_name; /* NULL: as it was */
	char name[65];         /* that one, if it was chosen */
	char machine_id[33];   /* "": as it was */
	unsigned ncards;
	char card[GP_CARDS_MAX][IDENTITY_CARD];
};

/* Its cards. `config`: the snapshot's. The device pages are those of the snapshot, and no helper
 * runs. Cards that shall have another address are offered to the driver with that one from their
 * next reset on. */
int identity_choose(struct identity *w, struct vm *vm, json_object *config, struct err *e);
/* identity_cards.c's part of that. */
int identity_choose_cards(struct identity *w, struct vm *vm, json_object *config, struct err *e);
/* And its names, before it is told: insulad calls the VM `name`, which lasts that long; or NULL. */
void identity_name(struct identity *w, const struct vm_config *c, const char *name);
/* Tell the guest; see exec_resumed(). */
int identity_tell(struct vm *vm, const struct identity *w, exec_done *done, uint32_t *id,
		  struct err *e);
/* The guest has no agent: log what it will not hear of. */
void identity_not_told(const struct vm *vm, const struct identity *w);

#endif
