/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration of one VM: what insula-run's flags and its JSON object say, before anything is
 * opened.
 *
 * One table of settings (settings.h) serves both: a JSON value is handed to the same function as
 * the text of a flag, so that both accept and refuse the same things with the same words.
 */
#ifndef SPEC_CONFIG_H
#define SPEC_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/board.h>
#include <insula/err.h>
#include <insula/netpolicy.h>

#define CONFIG_MODULE_MAX 24
#define CONFIG_MAX_DISKS 31 /* the other windows are for the root disk and the other devices */
#define DISK_SERIAL_LEN 20  /* virtio 1.2, 5.2.6: VIRTIO_BLK_ID_BYTES */
#define CONFIG_MAX_ARGS 1024
#define CONFIG_MAX_ENV 1000 /* GP_ARGS_MAX less a few of our own */
#define CONFIG_MAX_SHARES 8
#define CONFIG_USER_MAX 66 /* NAME:GROUP */

#define CONFIG_MAX_LAYERS 10           /* of an image, each a disk; the others are merged */
#define CONFIG_MIN_UPPER (16ull << 20) /* of --rootfs-size: less is no ext4 that can be used */
#define CONFIG_IMAGE_MAX 1024          /* bytes of a reference, with the NUL */

#define CONFIG_MIN_TARGET (16ull << 20) /* of --balloon: less is no guest that goes on */

#define CONFIG_RNG_RATE (1ull << 20) /* unless it is said */

/* CONSOLE_STREAM: a descriptor that the supervisor itself holds; cannot be configured. */
#define CONSOLE_LIMIT (64ull << 20) /* of the console's file, unless it is said */
#define CONSOLE_LIMIT_MOST (1024ull << 40)

enum console_kind {
	CONSOLE_STDIO,
	CONSOLE_PTY,
	CONSOLE_NONE,
	CONSOLE_STDERR,
	CONSOLE_FILE,
	CONSOLE_STREAM
};

/* Where the guest finds a virtio device. UNSAID: where vm_config.bus says, and of that: MMIO. */
enum config_bus { CONFIG_BUS_UNSAID, CONFIG_BUS_MMIO, CONFIG_BUS_PCI };

struct disk_config {
	char *path;
	char *overlay;    /* takes what is written, over `path`: a file, or "discard"; NULL: none */
	bool thrown_away; /* the latter: a file without a name */
	char *options;    /* of a module: "KEY=VALUE:..."; NULL: none */
	bool ro, direct;
	bool threads;        /* no io_uring for it */
	uint64_t rate, iops; /* bytes and requests a second; 0: as many as there are */
	char serial[DISK_SERIAL_LEN + 1];
	enum config_bus bus;
};

#define CONFIG_SEED_FILES 4
extern const char *const config_seed_names[CONFIG_SEED_FILES]; /* in the order of the alphabet */
/* A disk for cloud-init. */
struct seed_config {
	bool on;
	char *file[CONFIG_SEED_FILES]; /* paths; NULL: not given */
	enum config_bus bus;
};

struct vsock_config {
	bool on;      /* the guest has a vsock device: --vsock; see also vm_has_agent() */
	char *path;   /* of the host's socket; NULL: none */
	uint32_t cid; /* of the guest; 0 while it is taken and was not said */
	bool vhost;   /* the kernel's vhost-vsock has the streams; no path then, and no agent */
	enum config_bus bus;
};

/* How long the guest believes what it knows of a live share. AUTO: data while a file is open,
 * attributes for a second. NONE: nothing. ALWAYS: everything, for a day: nobody else changes it. */
enum share_cache { SHARE_CACHE_AUTO, SHARE_CACHE_NONE, SHARE_CACHE_ALWAYS };

struct share_config {
	char *dir, *guest; /* a directory of the host; an absolute path in the guest */
	bool ro;
	bool packed; /* a copy on a disk, always ro; else it is live: virtio-fs */
	enum share_cache cache;
	enum config_bus bus;
};

#define CONFIG_MAX_NETS 8
#define CONFIG_MAX_PAIRS 8 /* of queues of a card */
#define CONFIG_MAX_FORWARDS 16

#define CONFIG_PORT_ID_MAX 255
/* In the place of descriptors, where there are none. */
#define NET_NO_FD "tap=NAME, user, socket=PATH, ovs=BRIDGE or macvtap=PARENT"

/* Where there is a TAP. */
#define NET_WITH_VHOST "tap=NAME, fd=N, ovs=BRIDGE or macvtap=PARENT"

enum net_kind_config {
	NET_ON_NOTHING,
	NET_ON_TAP,
	NET_ON_FD,
	NET_ON_USER,
	NET_ON_SOCKET,
	NET_ON_OVS,
	NET_ON_MACVTAP,
};

/* Which others on the same parent it reaches: those in bridge mode too; none; what a switch outside
 * sends back. */
enum macvtap_mode { MACVTAP_BRIDGE, MACVTAP_PRIVATE, MACVTAP_VEPA, MACVTAP_PASSTHRU };

/* When an image of a registry is asked for though it is cached: as docker has it. */
enum pull_policy { PULL_MISSING, PULL_ALWAYS, PULL_NEVER };

struct net_forward {
	bool udp;
	char address[16]; /* of the host, IPv4 */
	uint16_t host, guest;
};

struct net_config {
	enum net_kind_config kind;
	char *name; /* of the TAP, the bridge or the parent, or the socket's path; NULL: none */
	char iface_id[CONFIG_PORT_ID_MAX + 1]; /* of a port of Open vSwitch; "": none */
	unsigned vlan;                         /* of such a port; 0: none */
	enum macvtap_mode mode;
	bool has_mode;
	int fd[CONFIG_MAX_PAIRS];
	unsigned nfds;
	bool has_mac;
	uint8_t mac[6];
	unsigned queues; /* pairs */
	unsigned mtu;    /* 0: not given */
	uint64_t rate, pps;
	struct net_forward forward[CONFIG_MAX_FORWARDS];
	unsigned nforwards;
	bool dhcp;   /* what insula-init does: ask; or else set these, where not empty */
	char ip[20]; /* with the length of the prefix */
	char gw[16], dns[16];
	bool vhost;               /* the kernel's vhost-net serves its queues */
	bool metadata;            /* 169.254.169.254 is insula-metadata's */
	struct net_policy policy; /* what it may send; without its MAC address */
	enum config_bus bus;
};

/* Memory that goes back to the host: virtio-balloon. */
struct balloon_config {
	bool on, off;    /* off: it was said */
	bool no_reports; /* free pages are not reported */
	uint64_t target; /* bytes that the guest is left with; 0: all of its memory */
	unsigned idle;   /* seconds of rest after which the page cache goes, too; 0: it stays */
	unsigned stats;  /* seconds from one question for statistics to the next; 0: nobody asks
			    but when somebody wants to know */
	enum config_bus bus;
};

#define CONFIG_MIN_SGX (1ull << 20)
#define CONFIG_MAX_HOTPLUG 8

#define CONFIG_MAX_VHOSTS 8
#define CONFIG_VHOST_MAX_ID 63u /* that an ordinary device has: virtio 1.2, 5 */
#define CONFIG_TAG_LEN 36       /* virtio 1.2, 5.11.4 */

/* A device that another program serves: vhost-user. */
struct vhost_config {
	bool given;
	uint32_t device_id; /* virtio 1.2, 5 */
	char *socket;
	bool server;                  /* we listen there; else the back end does */
	char tag[CONFIG_TAG_LEN + 1]; /* of a file system; "": not given */
	unsigned nqueues;             /* all of them */
	unsigned config_len;          /* bytes of configuration that the back end is asked for */
	uint8_t mac[6];               /* of a network card; all zero: not given */
	enum config_bus bus;
};

#define CONFIG_MAX_VFIOS 8
#define CONFIG_VFIO_LEN 12 /* "0000:01:00.0" */

/* By which of the kernel's interfaces a function is used. */
enum vfio_by {
	VFIO_BY_ANY,   /* by its group, unless the kernel has none */
	VFIO_BY_GROUP, /* /dev/vfio/GROUP and /dev/vfio/vfio */
	VFIO_BY_NODE,  /* /dev/vfio/devices/vfioN and /dev/iommu */
};

/* A PCI function of the host that the guest gets. */
struct vfio_config {
	char address[CONFIG_VFIO_LEN + 1]; /* as sysfs names it */
	bool bind; /* take it away from its driver, and give it back at the end */
	int fd;    /* of its group or its node, handed in by whoever starts us; -1: we open it */
	enum vfio_by by; /* with fd: VFIO_BY_ANY */
	/* Not this function, but a virtual one of it (SR-IOV) that is free, and if it has none at
	 * all, `vfs` of them are made. */
	bool pf;
	unsigned vfs;
};

/* The last refusal of a configuration, as data; the line for people is in struct err. */
#define CONFIG_FIELD_MAX 96
struct mistake {
	char field[CONFIG_FIELD_MAX]; /* config_field(); "": it is about no setting in particular */
	bool has_value;               /* there is a value that was refused: */
	char value[128];              /* shortened */
	char expected[256];           /* "": it cannot be said in words of this kind */
};

struct restore;
struct vm_config {
	struct mistake mistake; /* if config_set(), config_json() or config_check() refused */
	char *metadata;         /* a file: the tree of the metadata service; NULL: not given */
	bool metadata_open;     /* it asks for no token */
	char *kernel, *initrd, *append, *rootfs, *metrics, *console_file; /* NULL: not given */
	uint64_t given;    /* bit i: settings[i] was said */
	char *json;        /* what insulad was told, and gave us; NULL: it was not insulad */
	bool template;     /* cards and live shares are left alone until the guest goes on */
	char *restore;     /* the directory of a snapshot; NULL: the guest boots */
	bool paused;       /* of that: it stands ready, and does not run */
	bool new_identity; /* the guest is another machine than the one that was saved */
	char *hostname; /* of the guest; NULL: its own, or with new_identity one that is chosen */
	char *vm_name;  /* what insulad calls the VM; NULL: nothing; cannot be configured */
	struct restore *restoring; /* by restore_take(), which see; cannot be configured */
	bool rootfs_rw, kernel_packed;
	uint64_t rootfs_size; /* of the disk that takes what is written to the root; 0: memory */
	char *image;          /* TRANSPORT:... as skopeo takes it; NULL: none */
	char *entrypoint;     /* NULL: the image's own; "": none */
	enum pull_policy pull;
	bool has_pull;
	/* What the image is made of, the lowest layer first, in the place of rootfs; set by
	 * whoever has unpacked it (supervisor/backing/image.h), with command, env, cwd and user.
	 * Cannot be configured. */
	unsigned nlayers;
	char *layer[CONFIG_MAX_LAYERS];
	bool rng_off;
	uint64_t rng_rate;   /* bytes a second */
	unsigned cpus;       /* when it boots */
	unsigned cpus_max;   /* and those that may come; 0: the number stays */
	uint64_t mem;        /* bytes */
	uint64_t mem_max;    /* that it can be resized to; 0: it cannot */
	bool mem_huge;       /* all of it in huge pages, from the start */
	uint64_t sgx;        /* bytes of memory for enclaves; 0: the guest has no SGX */
	enum config_bus bus; /* of what does not say its own */
	unsigned hotplug;    /* places for devices that come later, on the PCI bus */
	unsigned ndisks;
	struct disk_config disk[CONFIG_MAX_DISKS];
	struct vsock_config vsock;
	struct seed_config seed;
	struct balloon_config balloon;
	unsigned nnets;
	struct net_config net[CONFIG_MAX_NETS];
	unsigned nvhosts;
	struct vhost_config vhost[CONFIG_MAX_VHOSTS];
	unsigned nvfios;
	struct vfio_config vfio[CONFIG_MAX_VFIOS];
	bool console_virtio; /* it is virtio-console, not a 16550 */
	bool console_given;
	enum console_kind console;   /* if given; see config_console() */
	int console_in, console_out; /* CONSOLE_STREAM; borrowed */
	uint64_t console_limit;      /* CONSOLE_FILE: how long the file may get */
	/* The command's streams, both outputs as one; borrowed; 0: the standard ones. Cannot be
	 * configured, as those of the console. */
	int command_in, command_out, command_err;
	unsigned timeout; /* seconds, 0: none */
	char **command;   /* NULL-terminated; NULL: none */
	unsigned ncommand;
	/* of the command: */
	char *env[CONFIG_MAX_ENV + 1]; /* NAME=VALUE; NULL behind the last */
	unsigned nenv;
	char *cwd; /* NULL: / */
	uint32_t uid, gid;
	char user[CONFIG_USER_MAX + 1]; /* with a name in it, which the guest looks up: as given;
					   uid and gid do not count then */
	bool has_user, has_gid, tty, interactive;
	bool serve;       /* Insula's own initrd serves the host's commands even without a command:
		       insulad's VMs; cannot be configured */
	bool serve_alone; /* and does nothing else: insula-oci's */
	unsigned nshares;
	struct share_config share[CONFIG_MAX_SHARES];
};

void config_init(struct vm_config *c); /* the defaults */
void config_free(struct vm_config *c);
void config_drop_disks(struct vm_config *c);
/* How long the name of the module is in "nbd:nbd://host/export": 2 to CONFIG_MODULE_MAX small
 * letters, digits and dashes, then a colon. 0: it is a path. On Windows all are. */
size_t config_module(const char *path);
/* Of memory, what it is given or can be resized to. */
uint64_t config_most_mem(const struct vm_config *c);
/* What a device that comes later may be: names of settings; NULL ends them. */
extern const char *const config_plug_kinds[];
/* May functions of the host come while it runs? */
bool config_may_assign(const struct vm_config *c);
void config_drop_nets(struct vm_config *c);
/* A policy for that card becomes whole: by what else the card says. NULL: it is; else what is
 * missing, a static text. */
const char *config_policy(const struct net_config *n, struct net_policy *p);
void config_drop_vhosts(struct vm_config *c);

/* Apply one setting ("cpus", "disk" ...) from text. `where` names it in messages ("--cpus").
 * -EINVAL with a line for people. */
int config_set(struct vm_config *c, const char *where, const char *name, const char *value,
	       struct err *e);
/* Of vm_config.given. */
uint64_t config_bit(const char *name);
/* Replace the command. */
int config_set_command(struct vm_config *c, char *const *argv, unsigned n, struct err *e);

/* Apply a JSON object of `len` bytes (at most CONFIG_JSON_MAX). Unknown keys and wrong types are
 * errors. `name`: of the file that a person wrote, for line and column in messages; NULL: messages
 * begin with "json: "; "": with the setting. */
#define CONFIG_JSON_MAX (1u << 20)
int config_json(struct vm_config *c, const char *name, const char *text, size_t len, struct err *e);

/* A device that comes while the VM runs: `device` is an object of one member, one of
 * config_plug_kinds, with the value that the setting has, or an element of its array. It becomes the
 * only one that `c`, which is new, has; *kind is the setting's name. -EINVAL with a line; the field
 * of the mistake begins with the setting. */
struct json_object;
int config_plug(struct vm_config *c, struct json_object *device, const char **kind, struct err *e);

/* Where the console goes: standard input and output, or with a command, whose they are then,
 * standard error. */
enum console_kind config_console(const struct vm_config *c);
/* How many vCPUs it has, with those that may come. */
unsigned config_vcpus(const struct vm_config *c);
/* Of the shares, those that are live. */
unsigned config_live_shares(const struct vm_config *c);
/* Is a virtio device that says this a function of the PCI bus? */
bool config_is_pci(const struct vm_config *c, enum config_bus own);
/* How many are. `vsock`: there is a vsock device, which a command needs as well. */
unsigned config_pci_devices(const struct vm_config *c, bool vsock);
/* How many there may be: each place for one that comes later takes one. */
unsigned config_most_pci(const struct vm_config *c);
/* Is there a PCI bus? A guest without an agent may be told so although only its vsock device would
 * be. */
bool config_has_pci(const struct vm_config *c);
/* Cut the next item off at a comma, in place; ",," stands for a comma in the text. NULL: the end.
 */
char *config_next_item(char **rest);

/* "docker://NAME" of a name without a transport, else a copy; the caller's. NULL: it is no
 * reference, and *why says what was expected (a static string), or there is no memory (NULL). */
char *image_reference(const char *text, const char **why);
/* Variables that -e wins over: in front of the others. */
int config_add_defaults(struct vm_config *c, char *const *env, unsigned n, struct err *e);

/* What only the whole can tell: a command with a foreign initrd, and the like. */
int config_check(struct vm_config *c, struct err *e);

/* "cpus", "disks[1].serial": how a member of the configuration is named to programs. `index` is -1
 * in no array, `member` NULL for all of it. */
void config_field(char out[CONFIG_FIELD_MAX], const char *key, int index, const char *member);

/* "64M" -> bytes. Suffixes K, M, G, KB, KiB and so on in either case (powers of 1024). False if it
 * is not a size or does not fit 64 bits. */
bool parse_size(const char *text, uint64_t *out);
/* Digits alone. */
bool parse_number(const char *text, uint64_t min, uint64_t max, unsigned *out);
/* The other way: "1K", "16M", "1024G", with the largest unit that it is a multiple of. */
const char *size_text(uint64_t n, char out[24]);

#endif
