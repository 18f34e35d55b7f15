/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's command line. See cmdline.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmdline.h"

/* panic=-1: a panic resets at once, after pvpanic has reported it. pci=off: there is no PCI, and
 * looking for it costs thousands of exits. The rest saves probing that the board makes pointless:
 * at most one UART, a TSC that is what it says.
 * reboot=acpi: on a hardware-reduced machine Linux prefers EFI's reset, even without EFI, and ends
 * in a triple fault. cryptomgr.notests: distribution kernels test every cipher at every boot, a
 * tenth of it; upstream's default is not to. */
#define CMDLINE_UART "console=ttyS0 8250.nr_uarts=1"
#define CMDLINE_VIRTIO "console=hvc0 8250.nr_uarts=0"
#define CMDLINE_BASE " panic=-1 pci=off tsc=reliable cryptomgr.notests reboot=acpi"
/* Nothing less than a panic: without PCI the kernel complains at the level of an error, which
 * "quiet" would show. */
#define QUIET " loglevel=3"

int cmdline_make(char out[MSG_CMDLINE_MAX], const struct vm_config *c, bool verbose, struct err *e)
{
	int n = snprintf(out, MSG_CMDLINE_MAX, "%s%s%s%s%s",
			 c->console_virtio ? CMDLINE_VIRTIO : CMDLINE_UART, CMDLINE_BASE,
			 verbose ? "" : QUIET, c->append ? " " : "", c->append ? c->append : "");

	if (n < 0 || n >= MSG_CMDLINE_MAX)
		return err_set(e, -E2BIG, "--append: %zu bytes; expected at most %zu",
			       c->append ? strlen(c->append) : 0,
			       (size_t)MSG_CMDLINE_MAX - sizeof(CMDLINE_UART CMDLINE_BASE) -
				       sizeof(QUIET " "));
	return 0;
}
