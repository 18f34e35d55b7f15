/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init's own parts, in the order in which a boot uses them. One process, one thread, and no
 * state outside of struct config: what fails ends the VM through die(), so most functions return
 * nothing.
 */
#ifndef INSULA_GUEST_H
#define INSULA_GUEST_H

#include <stdbool.h>
#include <stddef.h>

#define NAME "insula-init"

#include "agent.h" /* exit statuses */

/* ---- board.c: the board's registers (insula/board.h) ---- */

void board_started(void);
/* The agent listens. */
void board_agent_ready(void);
/* End the VM with this status. Powers off where the register does nothing. */
_Noreturn void board_exit(int status);
_Noreturn void board_poweroff(void);
/* What a program asks PID 1 for by a signal, as busybox's init takes them: SIGTERM reboot, SIGUSR2
 * power off, SIGUSR1 halt. A halted machine would stay on, and nobody could end it: it powers off.
 */
_Noreturn void board_leave(int signo);
/* One line on the console, then board_exit(STATUS_INTERNAL). */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* The same with ": strerror(errno)". */
void die_errno(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- config.c: /insula/config (docs/man/insula-initrd.1 has the format) ---- */

#define LAYERS_MAX 32

enum root_mode { ROOT_INITRD, ROOT_RO, ROOT_RW };

struct config {
	char **argv; /* NULL-terminated; argv[0] is NULL without a command */
	char **env;  /* NULL-terminated, complete */
	char **nets; /* NULL-terminated: one record per network card, see net.c */
	const char *cwd;
	const char *hostname;
	enum root_mode root;
	unsigned layers; /* ROOT_RO: so many disks, the lowest first; 0: one */
	bool upper;      /* a disk takes what is written to the root, and not memory */
	const char *dir; /* to be made in the root; NULL: none */
	/* Serve the host instead, or in a process of its own beside the shell or the root's init.
	 */
	enum { AGENT_NONE, AGENT_ALONE, AGENT_BESIDE } agent;
	bool template; /* cards and live shares wait: template.c */
	char **share;  /* where to mount the read-only disks of the host; NULL-terminated */
	char **fs;     /* live shares, "ro,TAG,DIR" or "rw,TAG,DIR", those on the PCI bus
		       * "ro,pci,TAG,DIR"; NULL-terminated */
};

/* The strings point into memory that is never freed. Without the file: no command, root in the
 * initrd. */
void config_read(struct config *c);

/* ---- modules.c ---- */

/* Load the modules of a group of /insula/modules in their order. Returns their number: 0 means
 * built in or not there. */
unsigned modules_load(const char *group);
/* The same for what a device of the board needs, if the ACPI tables describe one. */
void modules_load_for(const char *hid, const char *group);
/* The group "virtio-pci" if there is a device on a PCI bus. */
void modules_load_pci(void);
/* What a disk, a card or a share needs that comes later, if there is a place for one: a bridge. */
void modules_load_later(void);
/* The group "virtio-ID" for each virtio device that a bus has; twice does no harm. `template`:
 * those of cards and live shares last, and they take no device before modules_go_on(). */
void modules_load_virtio(bool template);
/* Devices that wait get their drivers. False: none does (any more). */
bool modules_go_on(void);

/* ---- net.c ---- */

/* Bring up the cards that the configuration names. Before the root disk is entered: it runs the
 * initrd's busybox. */
void net_up(const struct config *c);
/* /etc/resolv.conf of the final root, if name servers are known. */
void net_resolv(const struct config *c);
/* In the final root, for GP_RESUMED: give cards that run another MAC address and what their records
 * say, at most `n` strings as gp_card_ok() has them, up to NULL; they are changed. What a record
 * does not name stays as it is, but routes, which go with the address. note()s what fails. */
void net_renew(char *const *cards, unsigned n, char why[GP_TEXT_LEN]);
bool net_mac(const char *text, uint8_t b[6]); /* "52:54:00:12:34:56" */

/* ---- net6.c ---- */

/* A card that is up has got another MAC address: so do the addresses that IPv6 made of it. */
void net6_renew(const char *card, const char *old_mac, const char *new_mac);

/* ---- mounts.c ---- */

/* What every Linux program expects: /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup; /tmp if
 * the root is the initrd. */
void mounts_early(bool initrd_root);
/* Everything into a tmpfs, and that is the root: for containers, see leave.c. */
void mounts_leave_initramfs(void);
/* Find, mount and enter the root disk. */
void mounts_switch_root(const struct config *c);
/* Load what mounts_shares() needs: after the change of the root, the modules are out of reach. */
void mounts_prepare_shares(void);
/* Mount the nth share disk at share[n], which is made if it is missing. */
void mounts_shares(char *const share[]);
/* Make a directory and those above it, as far as they are missing. */
void mounts_make_path(const char *path);
/* Write everything back; unmount or make read-only every file system on a disk. */
void mounts_finish(void);

/* ---- fs.c: live shares ---- */

/* Mount them all. */
void fs_mount(char *const fs[]);
/* From a process of its own, mount those again whose server the host has replaced. No-op without
 * live shares. */
void fs_watch(char *const fs[]);

/* ---- cpus.c ---- */

/* From a process of its own, use the processors that come. No-op if none can. */
void cpus_watch(void);

/* ---- template.c ---- */

/* Before the host is served, if it is a template; `c` is kept. */
void template_waits(const struct config *c);
/* For GP_RESUMED, the first time: its cards get their drivers; before net_renew(). */
bool template_goes_on(void);
/* Then its live shares are mounted. */
void template_shares(void);

/* ---- leave.c ---- */

/* Mount a tmpfs there and move all of the initramfs into it. */
void leave_initramfs(const char *tmpfs);

/* ---- resumed.c: agent_ops.resumed and agent_ops.renew ---- */

void resumed_now(const struct gp_resumed *r, char why[GP_TEXT_LEN]);
void resumed_rest(char *const *strings, char why[GP_TEXT_LEN]);

/* ---- task.c ---- */

/* If the kernel found no console when it started this process, because its driver is a module that
 * has been loaded since: make it descriptors 0, 1 and 2 now. */
void tty_late(void);
/* Open the console as the controlling terminal and as descriptors 0, 1 and 2. */
void tty_setup(bool cooked_output);
/* Run it, reap everything until it ends, kill the rest. Returns its exit status as a shell would,
 * or, negative, the signal by which PID 1 was asked to end the machine: board_leave(). */
int task_run(char *const argv[], const struct config *c);

#endif
