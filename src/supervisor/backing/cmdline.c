/* SPDX-License-Identifier: BSD-2-Clause */
/* The kernel's command line. See cmdline.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmdline.h"

/* panic=-1: a panic resets at once, after pvpanic has reported it. The rest saves probing that the
 * board makes pointless: at most one UART, a TSC that is what it says.
 * reboot=acpi: on a hardware-reduced machine Linux prefers EFI's reset, even without EFI, and ends
 * in a triple fault. cryptomgr.notests: distribution kernels test every cipher at every boot, a
 * tenth of it; upstream's default is not to. */
#define CMDLINE_UART "console=ttyS0 8250.nr_uarts=1"
#define CMDLINE_VIRTIO "console=hvc0 8250.nr_uarts=0"
#define CMDLINE_BASE " panic=-1 tsc=reliable cryptomgr.notests reboot=acpi"
/* Without a device on PCI there is no PCI, and looking for it costs thousands of exits.
 *
 * With one there is configuration space in memory alone, which the ACPI tables tell of. noearly:
 * before Linux has read these it looks for devices with quirks by the ports 0xcf8 and 0xcfc, which
 * are not there: 220 of the 764 exits of a boot (Debian's 6.1, an AMD processor; --metrics, exits).
 * It also leaves out the first of two attempts to use the memory, which fails without those ports;
 * the second one has the tables. What is left is the question whether the ports are there, some ten
 * accesses once: the options that leave it out (pci=conf1, pci=conf2) say that they are, and
 * pci=nommconf forbids the memory. There is no port of PCI Express: pcie_ports= saves nothing. */
#define CMDLINE_NO_PCI " pci=off"
#define CMDLINE_PCI " pci=noearly"
/* Memory that the guest gets while it runs is used at once (Debian's kernels leave it offline), and
 * for what can be moved: so that it can be given back. */
#define CMDLINE_MEM " memhp_default_state=online_movable"
/* Nothing less than a panic: without PCI the kernel complains at the level of an error, which
 * "quiet" would show. */
#define QUIET " loglevel=3"

int cmdline_make(char out[MSG_CMDLINE_MAX], const struct vm_config *c, bool verbose, struct err *e)
{
	int n = snprintf(out, MSG_CMDLINE_MAX, "%s%s%s%s%s%s%s",
			 c->console_virtio ? CMDLINE_VIRTIO : CMDLINE_UART, CMDLINE_BASE,
			 config_has_pci(c) ? CMDLINE_PCI : CMDLINE_NO_PCI,
			 c->mem_max ? CMDLINE_MEM : "", verbose ? "" : QUIET, c->append ? " " : "",
			 c->append ? c->append : "");

	if (n < 0 || n >= MSG_CMDLINE_MAX)
		return err_set(e, -E2BIG, "--append: %zu bytes; expected at most %zu",
			       c->append ? strlen(c->append) : 0,
			       (size_t)MSG_CMDLINE_MAX -
				       sizeof(CMDLINE_UART CMDLINE_BASE CMDLINE_PCI CMDLINE_MEM) -
				       sizeof(QUIET " "));
	return 0;
}
