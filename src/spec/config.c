/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration of one VM: its life, and what only the whole can tell. See config.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/proto.h>

#include "config.h"
#include "settings.h"

#define DEFAULT_MEM (256ull << 20)

void config_init(struct vm_config *c)
{
	*c = (struct vm_config){.cpus = 1,
				.mem = DEFAULT_MEM,
				.console = CONSOLE_STDIO,
				.rng_rate = CONFIG_RNG_RATE,
				.vsock = {.cid = VSOCK_DEFAULT_CID}};
}

static void free_command(struct vm_config *c)
{
	for (unsigned i = 0; i < c->ncommand; i++)
		free(c->command[i]);
	free(c->command);
	c->command = NULL;
	c->ncommand = 0;
}

uint64_t config_most_mem(const struct vm_config *c)
{
	return c->mem_max ? c->mem_max : c->mem;
}

size_t config_module(const char *path)
{
#ifdef _WIN32
	(void)path;
	return 0;
#else
	size_t n = strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return n >= 2 && n <= CONFIG_MODULE_MAX && path[n] == ':' && *path != '-' ? n : 0;
#endif
}

void config_drop_disks(struct vm_config *c)
{
	for (unsigned i = 0; i < c->ndisks; i++) {
		free(c->disk[i].path);
		free(c->disk[i].overlay);
		free(c->disk[i].options);
	}
	c->ndisks = 0;
}

void config_drop_nets(struct vm_config *c)
{
	for (unsigned i = 0; i < c->nnets; i++)
		free(c->net[i].name);
	c->nnets = 0;
}

void config_drop_vhosts(struct vm_config *c)
{
	for (unsigned i = 0; i < c->nvhosts; i++)
		free(c->vhost[i].socket);
	c->nvhosts = 0;
}

void config_free(struct vm_config *c)
{
	char *one[] = {c->kernel,       c->initrd,     c->append,   c->rootfs,  c->metrics,
		       c->console_file, c->vsock.path, c->cwd,      c->image,   c->entrypoint,
		       c->restore,      c->json,       c->hostname, c->vm_name, c->metadata};

	for (unsigned i = 0; i < sizeof(one) / sizeof(one[0]); i++)
		free(one[i]);
	for (unsigned i = 0; i < CONFIG_SEED_FILES; i++)
		free(c->seed.file[i]);
	for (unsigned i = 0; i < c->nenv; i++)
		free(c->env[i]);
	for (unsigned i = 0; i < c->nlayers; i++)
		free(c->layer[i]);
	for (unsigned i = 0; i < c->nshares; i++) {
		free(c->share[i].dir);
		free(c->share[i].guest);
	}
	config_drop_disks(c);
	config_drop_nets(c);
	config_drop_vhosts(c);
	free_command(c);
	config_init(c);
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

enum console_kind config_console(const struct vm_config *c)
{
	return c->console_given         ? c->console
	       : c->command || c->image ? CONSOLE_STDERR
					: CONSOLE_STDIO;
}

unsigned config_vcpus(const struct vm_config *c)
{
	return c->cpus_max ? c->cpus_max : c->cpus;
}

unsigned config_live_shares(const struct vm_config *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->nshares; i++)
		n += !c->share[i].packed;
	return n;
}

bool config_is_pci(const struct vm_config *c, enum config_bus own)
{
	return (own ? own : c->bus) == CONFIG_BUS_PCI;
}

unsigned config_pci_devices(const struct vm_config *c, bool vsock)
{
	unsigned n = vsock && config_is_pci(c, c->vsock.bus);

	/* The console, entropy and what the root is made of have no bus of their own. */
	if (c->bus == CONFIG_BUS_PCI) {
		n += c->nlayers;
		n += c->console_virtio;
		n += !c->rng_off;
		n += c->rootfs != NULL;
		n += c->rootfs_size != 0;
		n += c->mem_max != 0;
	}
	n += c->balloon.on && config_is_pci(c, c->balloon.bus);
	n += c->seed.on && config_is_pci(c, c->seed.bus);
	for (unsigned i = 0; i < c->ndisks; i++)
		n += config_is_pci(c, c->disk[i].bus);
	for (unsigned i = 0; i < c->nnets; i++)
		n += config_is_pci(c, c->net[i].bus);
	for (unsigned i = 0; i < c->nshares; i++)
		n += config_is_pci(c, c->share[i].bus);
	for (unsigned i = 0; i < c->nvhosts; i++)
		n += config_is_pci(c, c->vhost[i].bus);
	return n + c->nvfios;
}

unsigned config_most_pci(const struct vm_config *c)
{
	return BOARD_MAX_PCI - c->hotplug;
}

bool config_has_pci(const struct vm_config *c)
{
	return c->hotplug || config_pci_devices(c, c->vsock.on || c->command || c->serve) > 0;
}

static int config_refuse(struct vm_config *c, const char *field, const char *expected,
			 struct err *e, const char *words)
{
	c->mistake = (struct mistake){0};
	snprintf(c->mistake.field, sizeof(c->mistake.field), "%s", field);
	snprintf(c->mistake.expected, sizeof(c->mistake.expected), "%s", expected);
	return err_set(e, -EINVAL, "%s", words);
}

int config_set_command(struct vm_config *c, char *const *argv, unsigned n, struct err *e)
{
	char words[64];

	if (n > CONFIG_MAX_ARGS) {
		snprintf(words, sizeof(words), "command: %u arguments; expected at most %d", n,
			 CONFIG_MAX_ARGS);
		return config_refuse(c, "command", "at most 1024 arguments", e, words);
	}
	free_command(c);
	if (!n)
		return 0;
	c->command = calloc(n + 1, sizeof(char *));
	if (!c->command)
		return out_of_memory(e);
	for (; c->ncommand < n; c->ncommand++) {
		c->command[c->ncommand] = strdup(argv[c->ncommand]);
		if (!c->command[c->ncommand])
			return out_of_memory(e);
	}
	return 0;
}

/* What belongs to a command and was given without one. */
static const struct setting *commands_own(const struct vm_config *c)
{
	return setting_find(c->tty           ? "tty"
			    : c->interactive ? "interactive"
			    : c->nenv        ? "env"
			    : c->cwd         ? "cwd"
			    : c->has_user    ? "user"
					     : "");
}

static int check_initrd(struct vm_config *c, struct err *e)
{
	static const char field[] = "initrd";

	if (c->initrd && c->command)
		return config_refuse(
			c, field, "none with a command", e,
			"--initrd: a command is run by Insula's own initrd; leave out one of "
			"the two");
	if (c->initrd && c->rootfs)
		return config_refuse(
			c, field, "none with rootfs", e,
			"--initrd: --rootfs is mounted by Insula's own initrd; leave out one "
			"of the two, or use --disk");
	if (c->initrd && c->nshares)
		return config_refuse(
			c, field, "none with shares", e,
			"--initrd: --share is mounted by Insula's own initrd; leave out one of "
			"the two, or use --disk");
	if (c->initrd && c->hostname)
		return config_refuse(
			c, field, "none with hostname", e,
			"--initrd: --hostname is set by Insula's own initrd; leave out one of the "
			"two");
	return 0;
}

/* What waits for its cards and shares is Insula's own initrd, and a command would not. */
static int check_template(struct vm_config *c, struct err *e)
{
	static const char field[] = "template";

	if (c->template && c->initrd)
		return config_refuse(c, field, "none with initrd", e,
				     "--template: expected none with --initrd: Insula's own initrd "
				     "does it");
	if (c->template && c->sgx)
		return config_refuse(c, field, "none with sgx", e,
				     "--template: expected none with --sgx: memory for enclaves "
				     "cannot be part of a snapshot");
	if (c->template && (c->command || c->image))
		return config_refuse(c, field, "none with a command or an image", e,
				     "--template: expected none with a command or an image: it "
				     "would run without its cards and shares");
	return 0;
}

static int check_image(struct vm_config *c, struct err *e)
{
	const char *own = c->entrypoint ? "entrypoint" : c->has_pull ? "pull" : NULL;
	char words[64];

	if (c->image && (c->rootfs || c->initrd))
		return config_refuse(c, "image", "none with rootfs or initrd", e,
				     "--image: is the root file system, which Insula's own initrd "
				     "mounts; leave out --rootfs and --initrd");
	if (!c->image && own) {
		snprintf(words, sizeof(words), "--%s: no image; expected --image REF", own);
		return config_refuse(c, own, "an image", e, words);
	}
	if (c->rootfs_size && ((!c->image && !c->rootfs) || c->rootfs_rw))
		return config_refuse(c, "rootfs-size", "an image, or a rootfs that is not rw", e,
				     "--rootfs-size: no root that takes it; expected --image, or "
				     "--rootfs without rw");
	return 0;
}

static int check_balloon(struct vm_config *c, struct err *e)
{
	char words[128], expected[64], target[24], mem[24];

	if (c->balloon.target <= c->mem)
		return 0;
	snprintf(expected, sizeof(expected), "at most %s, the guest's memory",
		 size_text(c->mem, mem));
	snprintf(words, sizeof(words), "--balloon: target '%s'; expected %s",
		 size_text(c->balloon.target, target), expected);
	return config_refuse(c, "balloon.target", expected, e, words);
}

bool config_may_assign(const struct vm_config *c)
{
	return c->hotplug && !c->balloon.on && !c->mem_max;
}

/* A device of the host writes to memory by itself: all of it is there from the start, and stays. */
static int check_vfio(struct vm_config *c, struct err *e)
{
	if (c->nvfios && c->balloon.on)
		return config_refuse(c, "balloon", "off with vfio", e,
				     "--balloon: expected off with --vfio: a device of the host "
				     "may write to all of the guest's memory");
	if (c->nvfios && c->mem_max)
		return config_refuse(c, "mem", "no max with vfio", e,
				     "--mem: max; expected none with --vfio: a device of the host "
				     "reaches the memory of the beginning alone");
	for (unsigned i = 0; i < c->nvfios; i++) {
		for (unsigned k = 0; k < i; k++) {
			if (!strcmp(c->vfio[i].address, c->vfio[k].address) &&
			    !(c->vfio[i].pf && c->vfio[k].pf))
				return config_refuse(c, "vfios", "each function once", e,
						     "--vfio: a function is given twice; expected "
						     "each once");
		}
	}
	return 0;
}

static int check_vhost(struct vm_config *c, struct err *e)
{
	for (unsigned i = 0; i < c->nnets; i++) {
		if (c->net[i].vhost && c->restore)
			return config_refuse(c, "nets", "vhost=off with restore", e,
					     "--net: vhost=on with --restore; expected vhost=off");
	}
	if (!c->vsock.vhost)
		return 0;
	if (c->restore)
		return config_refuse(c, "vsock", "vhost=off with restore", e,
				     "--vsock: vhost=on with --restore; expected vhost=off");
	/* The agent takes orders of the host: here that is every program of it. */
	if (c->command || c->image)
		return config_refuse(
			c, "vsock", "vhost=off with a command or an image", e,
			"--vsock: vhost=on with a command or an image; expected vhost=off: every "
			"program of the host could run commands in the guest, too");
	return 0;
}

/* Those that are sure; whether insulad's VM has a vsock device, too, vm.c knows. */
static int check_pci_places(struct vm_config *c, struct err *e)
{
	unsigned n = config_pci_devices(c, c->vsock.on || c->command || c->image);
	char words[160], expected[96];

	if (n <= config_most_pci(c))
		return 0;
	snprintf(expected, sizeof(expected), "at most %u%s, and bus=mmio for the others",
		 config_most_pci(c), c->hotplug ? " beside the places of --hotplug" : "");
	snprintf(words, sizeof(words), "--bus: %u devices on the PCI bus; expected %s", n,
		 expected);
	return config_refuse(c, "bus", expected, e, words);
}

int config_check(struct vm_config *c, struct err *e)
{
	/* An image has a command of its own, or is refused when that is known. */
	const struct setting *own = c->command || c->image ? NULL : commands_own(c);
	int rc = check_initrd(c, e);
	char words[80];

	if (!rc)
		rc = check_image(c, e);
	if (!rc)
		rc = check_template(c, e);
	if (!rc)
		rc = check_balloon(c, e);
	if (!rc)
		rc = check_vfio(c, e);
	if (!rc)
		rc = check_vhost(c, e);
	if (!rc)
		rc = check_pci_places(c, e);
	if (!rc && c->new_identity && !c->restore)
		rc = config_refuse(c, "identity", "a snapshot, restore", e,
				   "--identity: no snapshot; expected --restore DIR");
	if (!rc && c->paused && !c->restore)
		rc = config_refuse(c, "paused", "none without restore", e,
				   "--paused: nothing to go on from; expected --restore DIR");
	if (rc)
		return rc;
	if (own) {
		snprintf(words, sizeof(words),
			 "-%c: no command; expected one at the end of the line", own->letter);
		return config_refuse(c, own->name, "a command", e, words);
	}
	if ((c->command || c->image) && c->console_given && c->console == CONSOLE_STDIO)
		return config_refuse(
			c, "console", "stderr, pty, none or file=FILE", e,
			"--console: stdio; with a command, standard input and output are the "
			"command's; expected stderr, pty, none or file=FILE");
	if (c->command && !c->command[0][0])
		return config_refuse(c, "command", "a program's name", e,
				     "command: empty; expected a program's name");
	return 0;
}
