/*
 * The board: every address, port and interrupt line of the machine, in one place.
 *
 * x86-64, legacy-free: no PIC, no PIT, no CMOS RTC, no i8042, no VGA. LAPIC in the hypervisor, one
 * IOAPIC in user space, edge-triggered lines only. If a device of the VM is on PCI there is a bus,
 * whose configuration space is in memory alone (no ports 0xcf8 and 0xcfc). What is there of a PC
 * are its three ways to be reset: each ends the VM as a reboot. ACPI 6.5: 4.8.3.7 (sleep and reset
 * registers), 5.2.9 (FADT, hardware-reduced).
 */
#ifndef INSULA_BOARD_H
#define INSULA_BOARD_H

#include <stdint.h>

#define BOARD_PAGE 4096u

/* ---- guest physical memory ---- */
#define BOARD_LOW_RAM_END 0xc0000000ull /* RAM below the hole ends here at the latest (3 GiB) */
#define BOARD_HIGH_RAM 0x100000000ull   /* RAM beyond 3 GiB continues here (4 GiB) */
/* Memory that the guest gets later (virtio-mem) begins at a multiple of it, and ends at a multiple
 * of BOARD_MEM_BLOCK, or of it if there are BOARD_LARGE_MEM at the start: Linux's own blocks. */
#define BOARD_ADDED_ALIGN (2ull << 30)
#define BOARD_MEM_BLOCK (128ull << 20)
#define BOARD_LARGE_MEM (64ull << 30)
#define BOARD_VIRTIO_MMIO 0xd0000000ull /* device i: one 4 KiB window at + i * 4 KiB */
/* BARs of 32 bits. The board puts the one of function i to + i * BOARD_PCI_BAR_SIZE; a guest may
 * move it within the window. */
#define BOARD_PCI_MMIO 0xd8000000ull
#define BOARD_PCI_MMIO_END 0xe0000000ull
#define BOARD_PCI_BAR_SIZE 0x4000ull
/* The memory window that the board gives the port of place i: + i * BOARD_PCI_PORT_SIZE. */
#define BOARD_PCI_PORT_MMIO 0xdc000000ull
#define BOARD_PCI_PORT_SIZE 0x200000ull
/* Configuration space (ECAM): of a bus 1 MiB, 4 KiB for each function, function 0 of device d at
 * + d * 32 KiB. Bus 0; and, for each place, bus 1 + i, of which only 00.0 can be there. */
#define BOARD_PCI_ECAM 0xe0000000ull
#define BOARD_PCI_ECAM_SIZE 0x100000ull
#define BOARD_IOAPIC 0xfec00000ull /* one 4 KiB window */
#define BOARD_LAPIC 0xfee00000ull  /* in the hypervisor; HV_X86_LAPIC */
/* and above it HV_X86_INTEL_PAGES, where nothing is mapped (hv_x86.h) */

/* What the loader puts below 1 MiB (all reserved or reclaimable in the e820 map). */
#define BOARD_GDT 0x500ull
#define BOARD_PVH_INFO 0x6000ull
#define BOARD_BOOT_PARAMS 0x7000ull /* struct boot_params, 4 KiB */
#define BOARD_BOOT_STACK 0x8ff0ull
#define BOARD_PAGE_TABLES 0x9000ull /* PML4, PDPT, 4 PD: 24 KiB up to 0xf000 */
#define BOARD_CMDLINE 0x20000ull    /* up to BOARD_CMDLINE_MAX bytes with the NUL */
#define BOARD_CMDLINE_MAX 0x10000ull
/* 16 bytes, the generation identifier: in a page of its own that is reserved for good, which the
 * ACPI area is not. Not at its start: kernels look every 2 KiB for what begins like a PC's ROM. */
#define BOARD_GENID 0xdf010ull
/* The VMClock (src/vmm/x86/genid.h): a page of its own, which guests give to their programs. */
#define BOARD_VMCLOCK 0xde000ull
#define BOARD_VMCLOCK_SIZE 0x1000ull
#define BOARD_ACPI 0xe0000ull /* RSDP first, then the other tables; 128 KiB */
#define BOARD_ACPI_SIZE 0x20000ull
/* F000:FFF0, where a PC's firmware starts, up to the end of the ACPI area: the code there writes to
 * the reset register. */
#define BOARD_RESET_CODE 0xffff0ull
#define BOARD_KERNEL 0x100000ull /* lowest address that a kernel image may use (1 MiB) */

/* ---- ports ---- */
#define BOARD_KBC 0x64 /* 8 bit, the i8042's command port, which takes one command */
#define BOARD_KBC_RESET 0xfe
/* Reads this: ready for a command, so that nobody waits before the reset; and its output full for
 * ever, from which a driver's probe sees that there is no controller. */
#define BOARD_KBC_STATUS 0xfd
#define BOARD_RST_CNT 0xcf9 /* 8 bit, a PC's reset control: bit 2 resets, bits 1 to 3 read back */
#define BOARD_RST_CPU 0x04
#define BOARD_RST_BITS 0x0e
#define BOARD_COM1 0x3f8          /* 16550, 8 ports */
#define BOARD_REGS 0x600          /* the board's own registers, 16 ports: */
#define BOARD_REG_SLEEP_CTL 0x600 /* 8 bit, ACPI SLEEP_CONTROL_REG: bit 5 SLP_EN, 2-4 SLP_TYP */
#define BOARD_REG_SLEEP_STS 0x601 /* 8 bit, ACPI SLEEP_STATUS_REG: reads 0, writes ignored */
#define BOARD_REG_RESET 0x602     /* 8 bit, ACPI RESET_REG: BOARD_RESET_VALUE ends the VM: reboot */
#define BOARD_REG_EVENT 0x603     /* 8 bit, from insula-init: BOARD_EVENT_* */
#define BOARD_REG_EXIT 0x604      /* 32 bit: a write ends the VM at once with this status (0-255) */
#define BOARD_REG_PVPANIC 0x608   /* 8 bit, QEMU pvpanic: read BOARD_PVPANIC_EVENTS, write events */
#define BOARD_REGS_LEN 16
/* 16 ports, 32 bits each, in a VM whose processors come and go and in no other: */
#define BOARD_CPUS 0x610
#define BOARD_CPUS_PRESENT 0x610 /* read: bit i: processor i is there */
#define BOARD_CPUS_NEWS 0x614    /* read, which clears it: bit i: processor i has come */
#define BOARD_CPUS_NEWS_GENID 1  /* which is never processor 0: the generation identifier is new */
#define BOARD_CPUS_ASKED 0x618   /* read, which clears it: bit i: give processor i back */
#define BOARD_CPUS_EJECT 0x61c   /* write: processor i is given back; reads 0 */
#define BOARD_CPUS_LEN 16

#define BOARD_SLEEP_TYP_S5 5
#define BOARD_RESET_VALUE 1
#define BOARD_EVENT_INIT_STARTED 1 /* PID 1 of Insula's own initrd runs */
#define BOARD_EVENT_AGENT_READY 2  /* it listens on its vsock port (insula/guestproto.h) */
#define BOARD_PVPANIC_PANICKED 1
#define BOARD_PVPANIC_CRASH_LOADED 2
#define BOARD_PVPANIC_EVENTS 3

/* ---- interrupt lines (GSI = IOAPIC pin) ---- */
/* ACPI's Generic Event Device: the generation identifier is new, or there is something to read in
 * BOARD_CPUS_NEWS or BOARD_CPUS_ASKED. */
#define BOARD_GSI_EVENTS 3
#define BOARD_GSI_COM1 4
#define BOARD_GSI_VIRTIO 5 /* device i: 5 + i */

#define BOARD_MAX_VIRTIO 50
#define BOARD_MAX_PCI 31 /* devices 1 to 31 of bus 0 */
/* Places for devices that come and go while the VM runs. Each is a root port: the last of n places
 * is device 31, and others of bus 0 have the numbers below the first. */
#define BOARD_MAX_PLACES 8
#define BOARD_PORT_NUMBER(i, n) (32 - (n) + (i))
#define BOARD_MAX_CPUS 32
#define BOARD_MIN_MEM (16ull << 20)
#define BOARD_MAX_MEM (1ull << 40)

/* Pins of the IOAPIC for a board with this many virtio devices: no more than it needs, because a
 * kernel writes each of them several times while it boots. */
#define BOARD_IOAPIC_PINS(nvirtio) \
	(BOARD_GSI_VIRTIO + (nvirtio) < 8 ? 8 : BOARD_GSI_VIRTIO + (nvirtio))

#endif
