/* SPDX-License-Identifier: BSD-2-Clause */
/* How a guest's end is told. See ending.h. */
#include <stdio.h>

#include "ending.h"

/* Power-off or reboot: fine on its own, but a command has not told how it ended then. */
static void quietly(const struct msg_vm_exit *x, bool own_initrd, bool command, const char *how,
		    struct ending *end)
{
	if (own_initrd && !x->init_started) {
		end->status = RUN_GUEST_PANIC;
		snprintf(end->why, sizeof(end->why),
			 "the guest %s before init ran: the kernel could not start (-v shows its "
			 "messages)",
			 how);
	} else if (command) {
		end->status = RUN_NO_STATUS;
		snprintf(end->why, sizeof(end->why), "the guest %s before the command ended", how);
	}
}

static void crashed(const struct msg_vm_exit *x, struct ending *end)
{
	char bytes[3 * sizeof(x->insn) + 1] = "", rip[32] = "";

	for (unsigned i = 0; i < x->ninsn && i < sizeof(x->insn); i++)
		snprintf(bytes + 3 * i, 4, " %02x", x->insn[i]);
	if (x->reason == VM_EXIT_TRIPLE_FAULT) {
		end->status = RUN_GUEST_CRASH;
		if (x->rip)
			snprintf(rip, sizeof(rip), ", rip %#llx", (unsigned long long)x->rip);
		snprintf(end->why, sizeof(end->why), "the guest crashed: triple fault, %.100s%s",
			 x->text, rip);
	} else {
		end->status = RUN_FAILED;
		snprintf(end->why, sizeof(end->why),
			 "the guest cannot go on: %.120s, rip %#llx%s%s", x->text,
			 (unsigned long long)x->rip, bytes[0] ? ", bytes" : "", bytes);
	}
}

void ending_of(const struct msg_vm_exit *x, bool own_initrd, bool command, struct ending *end)
{
	switch ((enum vm_exit_reason)x->reason) {
	case VM_EXIT_POWEROFF:
		quietly(x, own_initrd, command, "powered off", end);
		break;
	case VM_EXIT_REBOOT:
		quietly(x, own_initrd, command, "rebooted", end);
		break;
	case VM_EXIT_STATUS:
		end->status = (int)x->status & 0xff;
		break;
	case VM_EXIT_PANIC:
		end->status = RUN_GUEST_PANIC;
		snprintf(end->why, sizeof(end->why), "the guest kernel panicked");
		break;
	case VM_EXIT_TRIPLE_FAULT:
	case VM_EXIT_ERROR:
		crashed(x, end);
		break;
	case VM_EXIT_STOPPED:
		break; /* whoever asked for it has set the status */
	default:
		end->status = RUN_FAILED;
		snprintf(end->why, sizeof(end->why), "insula-vmm reported an unknown end (%u)",
			 x->reason);
	}
}
