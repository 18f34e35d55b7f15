/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of settings. See settings.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "config.h"
#include "settings.h"

#define ITEMS_MAX 16

#define ITEMS(list) .item = (list), .nitems = ARRAY_LEN(list)
#define GiB(n) ((uint64_t)(n) << 30)

/* Of everything that is one virtio device. */
#define BUS_ITEM                                                                        \
	{                                                                               \
		.key = "bus", .choice = " pci mmio ", .value = "pci|mmio",              \
		.help = "where the guest finds it, if not where bus, the setting, says" \
	}

static const struct setting_item disk_items[] = {
	{.key = "path",
	 .type = SETTING_PATH,
	 .value = "FILE",
	 .help = "a raw image, or a block device"},
	{.key = "ro", .type = SETTING_FLAG, .help = "the guest may not write"},
	{.key = "direct", .type = SETTING_FLAG, .help = "without the page cache of the host"},
	{.key = "serial",
	 .min = 1,
	 .max = DISK_SERIAL_LEN,
	 .value = "S",
	 .help = "its serial number"},
	{.key = "engine", .choice = " auto threads ", .value = "threads", .help = "no io_uring"},
	{.key = "overlay",
	 .type = SETTING_PATH,
	 .word = "discard",
	 .value = "FILE|discard",
	 .help = "what takes the writes, and leaves the disk as it is: a file, which is made if it "
		 "is not there, or discard: one without a name, which is gone at the end"},
	BUS_ITEM,
};
static const struct setting_item vsock_items[] = {
	{.key = "path", .type = SETTING_PATH, .value = "FILE", .help = "the socket of the host"},
	{.key = "cid",
	 .type = SETTING_NUMBER,
	 .min = 3,
	 .max = 4294967294,
	 .value = "N",
	 .help = "the address of the guest"},
	BUS_ITEM,
};
static const struct setting_item balloon_items[] = {
	{.key = "on", .type = SETTING_FLAG, .help = "the guest has a balloon"},
	{.key = "off", .type = SETTING_FLAG, .help = "it has none"},
	{.key = "target",
	 .type = SETTING_SIZE,
	 .min = CONFIG_MIN_TARGET,
	 .max = BOARD_MAX_MEM,
	 .value = "SIZE",
	 .help = "the memory that the guest is left with; the rest is in the balloon"},
	{.key = "reports",
	 .choice = " on off ",
	 .value = "off",
	 .help = "the guest does not report free pages"},
	{.key = "idle",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = 86400,
	 .value = "SECONDS",
	 .help = "a guest that has rested for so long gives its page cache back, too"},
	{.key = "stats",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = 86400,
	 .value = "SECONDS",
	 .help = "how often it is asked for statistics"},
	BUS_ITEM,
};
static const struct setting_item net_items[] = {
	{.key = "tap", .min = 1, .max = 15, .value = "NAME", .help = "a TAP of the host"},
	{.key = "fd",
	 .type = SETTING_NUMBER,
	 .min = 3,
	 .max = 1 << 20,
	 .value = "N",
	 .help = "open descriptors of a TAP"},
	{.key = "user", .type = SETTING_FLAG, .help = "passt: a network without privileges"},
	{.key = "socket",
	 .type = SETTING_PATH,
	 .min = 1,
	 .max = 107,
	 .value = "PATH",
	 .help = "the socket of a switch"},
	{.key = "mac", .value = "M", .help = "the address of the card"},
	{.key = "queues",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = CONFIG_MAX_PAIRS,
	 .value = "N",
	 .help = "pairs of queues"},
	{.key = "mtu",
	 .type = SETTING_NUMBER,
	 .min = 68,
	 .max = 65535,
	 .value = "N",
	 .help = "the largest frame"},
	{.key = "rate",
	 .type = SETTING_SIZE,
	 .min = 1024,
	 .max = GiB(1024),
	 .value = "BYTES",
	 .help = "a second, in each direction"},
	{.key = "pps",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = GiB(1024),
	 .value = "N",
	 .help = "frames a second, in each direction"},
	{.key = "fwd",
	 .type = SETTING_TEXTS,
	 .value = "[tcp:|udp:][ADDR:]HOST:GUEST",
	 .help = "a port of the host that leads to the guest"},
	{.key = "ip", .value = "ADDR/LEN", .help = "the address that the guest takes, or dhcp"},
	{.key = "gw", .value = "ADDR", .help = "its default route"},
	{.key = "dns", .value = "ADDR", .help = "its name server"},
	BUS_ITEM,
};

static const struct setting_item device_items[] = {
	{.key = "vhost-user", .type = SETTING_FLAG, .help = "another program serves it"},
	{.key = "type", .value = "fs|blk|net|N", .help = "what it is: N as virtio numbers devices"},
	{.key = "socket",
	 .type = SETTING_PATH,
	 .min = 1,
	 .max = 107,
	 .value = "PATH",
	 .help = "the socket of that program"},
	{.key = "server", .type = SETTING_FLAG, .help = "listen there; the program connects"},
	{.key = "tag",
	 .min = 1,
	 .max = CONFIG_TAG_LEN,
	 .value = "TAG",
	 .help = "of a file system: its name in the guest"},
	{.key = "queues",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = 16,
	 .value = "N",
	 .help = "for requests"},
	{.key = "mac", .value = "M", .help = "of a network card: its address"},
	{.key = "config",
	 .type = SETTING_NUMBER,
	 .min = 0,
	 .max = 256,
	 .value = "BYTES",
	 .help = "of its configuration, for what is neither fs, blk nor net"},
	BUS_ITEM,
};

/* In the order of --help. */
const struct setting settings[SETTINGS] = {
	{.name = "kernel",
	 .path = "",
	 .type = SETTING_PATH,
	 .on = ON_BOTH,
	 .value = "FILE[,packed]",
	 .help = "bzImage or ELF (default: the one that insula-get-kernel fetched, else "
		 "/boot/vmlinuz-$(uname -r)); a bzImage is unpacked once and cached, packed boots "
		 "it as "
		 "it is (slower; the kernel then chooses a random address)",
	 .value_windows = "FILE",
	 .help_windows = "bzImage or ELF (default: guest\\vmlinuz beside this program)"},
	{.name = "initrd",
	 .path = "",
	 .type = SETTING_PATH,
	 .on = ON_BOTH,
	 .value = "FILE",
	 .help = "used as it is (default: Insula's own, with a static busybox)",
	 .help_windows = "used as it is (default: Insula's own, insula-initrd beside the kernel)"},
	{.name = "append",
	 .on = ON_BOTH,
	 .value = "STRING",
	 .help = "added to the kernel command line"},
	{.name = "cpus",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = BOARD_MAX_CPUS,
	 .on = ON_BOTH,
	 .value = "N",
	 .help = "vCPUs, 1 to 32 (default 1)"},
	{.name = "mem",
	 .type = SETTING_SIZE,
	 .min = BOARD_MIN_MEM,
	 .max = BOARD_MAX_MEM,
	 .on = ON_BOTH,
	 .value = "SIZE[,hugepages]",
	 .help = "memory such as 512M or 2G (default 256M); hugepages: all of it from the start, "
		 "in "
		 "huge pages (Linux 6.1 or newer)",
	 .value_windows = "SIZE",
	 .help_windows = "memory such as 512M or 2G (default 256M)"},
	{.name = "disk",
	 .many = "disks",
	 .path = "path=",
	 .items = true,
	 .bare = " ro direct ",
	 .on = ON_BOTH,
	 .value = "[path=]FILE[,ro][,direct][,serial=S][,engine=threads][,overlay=FILE|discard]"
		  "[,bus=pci|mmio]",
	 .help = "a raw image or block device; repeat for /dev/vdb ...; overlay: writes go to that "
		 "file, or are discarded at the end, and the image stays as it is",
	 .value_windows = "[path=]FILE[,ro][,direct][,serial=S][,engine=threads]",
	 .help_windows = "a raw image; repeat for /dev/vdb ...",
	 ITEMS(disk_items)},
	{.name = "rootfs",
	 .path = "",
	 .type = SETTING_PATH,
	 .on = ON_BOTH,
	 .value = "DIR|IMAGE[,rw]",
	 .help = "root file system: a directory (packed once, cached) or a raw image; read-only "
		 "below, "
		 "memory above, unless rw (images only)",
	 .value_windows = "IMAGE[,rw]",
	 .help_windows = "root file system: a raw image; read-only below, memory above, unless rw"},
	{.name = "rootfs-size",
	 .type = SETTING_SIZE,
	 .min = CONFIG_MIN_UPPER,
	 .max = GiB(16384),
	 .on = ON_LINUX,
	 .value = "SIZE",
	 .help = "what the guest writes to the root of --image or --rootfs goes to a disk of that "
		 "size, which is made for the run and thrown away (default: to its memory)"},
	{.name = "image",
	 .paths = " oci: oci-archive: docker-archive: dir: ",
	 .on = ON_LINUX,
	 .value = "REF",
	 .help = "run a container image: oci:DIR[:TAG], oci-archive:FILE[:TAG], "
		 "docker-archive:FILE[:NAME], or what skopeo speaks (docker://..., "
		 "containers-storage:...); a name alone is docker://NAME. Its layers are packed "
		 "once and cached",
	 .words = "oci: oci-archive: docker-archive: docker:// docker-daemon: "
		  "containers-storage: dir:"},
	{.name = "pull",
	 .on = ON_LINUX,
	 .value = "always|missing|never",
	 .words = "always missing never",
	 .help = "when an image of a registry is asked for again (default missing: if it is not "
		 "cached)"},
	{.name = "entrypoint",
	 .on = ON_LINUX,
	 .value = "PROGRAM",
	 .help = "in the place of the image's entry point, and without its command; empty: none"},
	{.name = "share",
	 .many = "shares",
	 .path = "",
	 .on = ON_LINUX,
	 .value = "DIR:GUESTDIR[:ro][,packed][,cache=none|auto|always][,bus=pci|mmio]",
	 .help = "a directory of the host in the guest, live (virtio-fs, by the host's virtiofsd); "
		 "packed: a copy, made once and cached, which the guest can only read"},
	{.name = "console",
	 .path = "file=",
	 .before = "virtio,",
	 .on = ON_BOTH,
	 .value = "virtio|[virtio,]stdio|stderr|pty|none|file=FILE[,limit=SIZE]",
	 .words = "stdio stderr pty none file= virtio virtio,",
	 .help = "the console (default: with a command stderr, else stdio, where Ctrl-A x ends "
		 "the VM and Ctrl-A h helps): a serial port, or virtio-console, which is faster",
	 .value_windows = "virtio|[virtio,]stdio|stderr|none|file=FILE[,limit=SIZE]"},
	{.name = "net",
	 .many = "nets",
	 .path = "socket=",
	 .items = true,
	 .on = ON_LINUX,
	 .value = "tap=NAME|fd=N|user|socket=PATH[,mac=M][,queues=N][,mtu=N][,rate=BYTES][,pps=N]"
		  "[,fwd=[tcp:|udp:][ADDR:]HOST:GUEST][,ip=ADDR/LEN[,gw=A][,dns=A]]"
		  "[,bus=pci|mmio]",
	 .help = "a network card: a TAP, passt, or a switch's socket; repeat for eth1 ...",
	 ITEMS(net_items)},
	{.name = "device",
	 .many = "devices",
	 .path = "socket=",
	 .items = true,
	 .on = ON_LINUX,
	 .value = "vhost-user,type=fs|blk|net|N,socket=PATH[,server][,tag=TAG][,queues=N][,mac=M]"
		  "[,config=BYTES][,bus=pci|mmio]",
	 .words = "vhost-user,type=",
	 .help = "a device that another program serves: a vhost-user back end, which gets all of "
		 "the "
		 "guest's memory",
	 ITEMS(device_items)},
	{.name = "rng",
	 .min = 1024,
	 .max = GiB(1),
	 .unit = "bytes a second",
	 .on = ON_BOTH,
	 .value = "on|off|rate=BYTES",
	 .words = "on off rate=",
	 .help = "virtio-rng (default on, 1M bytes a second at most)"},
	{.name = "vsock",
	 .path = "path=",
	 .items = true,
	 .bare = " ",
	 .on = ON_BOTH,
	 .value = "[path=]FILE[,cid=N][,bus=pci|mmio]",
	 .help = "virtio-vsock: a socket for the host's clients (\"CONNECT <port>\"); the guest "
		 "reaches FILE_<port>",
	 .value_windows = "path=\\\\.\\pipe\\NAME[,cid=N]",
	 .help_windows = "vsock streams through named pipes: clients say CONNECT PORT at NAME; the "
			 "guest's port N of the host is NAME_N",
	 ITEMS(vsock_items)},
	{.name = "balloon",
	 .items = true,
	 .on = ON_LINUX,
	 .value = "off|on[,target=SIZE][,idle=SECONDS][,reports=off][,stats=SECONDS]"
		  "[,bus=pci|mmio]",
	 .words = "on off target=",
	 .help = "virtio-balloon (default off): memory that the guest does not use goes back to "
		 "the "
		 "host, and insulactl balloon takes more",
	 ITEMS(balloon_items)},
	{.name = "bus",
	 .on = ON_BOTH,
	 .value = "pci|mmio",
	 .words = "pci mmio",
	 .help = "where the guest finds its virtio devices: on a PCI bus, or at addresses of "
		 "their own (default mmio); bus= of a single device wins"},
	{.name = "metrics",
	 .path = "",
	 .type = SETTING_PATH,
	 .on = ON_BOTH,
	 .value = "FILE",
	 .help = "write counters as JSON at the end"},
	{.name = "restore",
	 .path = "",
	 .type = SETTING_PATH,
	 .on = ON_LINUX,
	 .value = "DIR",
	 .help = "go on from a snapshot (insulactl snapshot) instead of booting; disks, cards, "
		 "shares, vsock and console are those of the snapshot unless they are said here"},
	{.name = "identity",
	 .on = ON_LINUX,
	 .value = "new|kept",
	 .words = "new kept",
	 .help = "with --restore: new: the guest becomes a machine of its own, with another host "
		 "name, machine-id and MAC addresses; kept (default): it is the machine that was "
		 "saved"},
	{.name = "hostname",
	 .on = ON_BOTH,
	 .value = "NAME",
	 .help = "the guest's host name, with Insula's own initrd (default: insula; with "
		 "--identity new the VM's name)"},
	{.name = "paused",
	 .type = SETTING_FLAG,
	 .on = ON_LINUX,
	 .help = "with --restore, in a VM of insulad: it stands ready, and insulactl resume lets "
		 "it go on"},
	{.name = "timeout",
	 .type = SETTING_NUMBER,
	 .min = 1,
	 .max = 31536000,
	 .unit = "seconds",
	 .on = ON_BOTH,
	 .value = "SECONDS",
	 .help = "end the VM after that time, with status 124"},
	{.name = "interactive",
	 .letter = 'i',
	 .type = SETTING_FLAG,
	 .on = ON_BOTH,
	 .help = "pass standard input on, also from a terminal (default: not from one)"},
	{.name = "tty",
	 .letter = 't',
	 .type = SETTING_FLAG,
	 .on = ON_BOTH,
	 .help = "give the command a terminal; with -i yours becomes its keyboard, and Ctrl-] "
		 "three "
		 "times within a second ends the VM"},
	{.name = "env",
	 .many = "env",
	 .letter = 'e',
	 .on = ON_BOTH,
	 .value = "NAME=VALUE",
	 .help = "a variable for the command; -e NAME takes yours"},
	{.name = "cwd",
	 .letter = 'w',
	 .on = ON_BOTH,
	 .value = "DIR",
	 .help = "its directory (default /)"},
	{.name = "user",
	 .letter = 'u',
	 .on = ON_BOTH,
	 .value = "USER[:GROUP]",
	 .help = "its user, a number or a name that the guest knows (default 0)"},
};

const struct setting *setting_find(const char *name)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!strcmp(settings[i].name, name))
			return &settings[i];
	}
	return NULL;
}

const struct setting *setting_of_key(const char *key)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!strcmp(setting_key(&settings[i]), key))
			return &settings[i];
	}
	return NULL;
}

const char *setting_key(const struct setting *s)
{
	return s->many ? s->many : s->name;
}

const struct setting_item *setting_item_find(const struct setting *s, const char *key, size_t len)
{
	for (size_t i = 0; i < s->nitems; i++) {
		if (strlen(s->item[i].key) == len && !strncmp(s->item[i].key, key, len))
			return &s->item[i];
	}
	return NULL;
}

const char *setting_item_meant(const struct setting *s, const char *key)
{
	const char *known[ITEMS_MAX];

	for (size_t i = 0; i < s->nitems && i < ITEMS_MAX; i++)
		known[i] = s->item[i].key;
	return strlen(key) > 2 ? nearest(key, known, s->nitems < ITEMS_MAX ? s->nitems : ITEMS_MAX)
			       : NULL;
}

void setting_item_keys(const struct setting *s, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < s->nitems && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", s->item[i].key);
}

/* ---- flags ---- */

size_t settings_longopts(struct option *out)
{
	size_t n = 0;

	for (int i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			out[n++] = (struct option){
				settings[i].name,
				settings[i].type == SETTING_FLAG ? no_argument : required_argument,
				NULL, SETTING_FLAG_BASE + i};
	}
	return n;
}

void settings_letters(char *out)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		if (!settings[i].letter)
			continue;
		*out++ = settings[i].letter;
		if (settings[i].type != SETTING_FLAG)
			*out++ = ':';
	}
	*out = 0;
}

const struct setting *setting_of_flag(int flag)
{
	if (flag >= SETTING_FLAG_BASE && flag < SETTING_FLAG_BASE + SETTINGS)
		return &settings[flag - SETTING_FLAG_BASE];
	for (size_t i = 0; i < SETTINGS; i++) {
		if (settings[i].letter && settings[i].letter == flag)
			return &settings[i];
	}
	return NULL;
}

/* ---- paths ---- */

/* The item after this one; "" at the end. */
static const char *next_item(const char *p)
{
	while (*p && (*p != ',' || p[1] == ','))
		p += *p == ',' ? 2 : 1;
	return *p ? p + 1 : p;
}

bool setting_is_bare(const struct setting *s, const char *text)
{
	size_t n = strcspn(text, ",");
	const char *equals = memchr(text, '=', n), *slash = memchr(text, '/', n), *at;

	if (!s->bare || !n || (equals && (!slash || equals < slash)))
		return false;
	for (at = s->bare; (at = strchr(at, ' ')); at++) {
		if (!strncmp(at + 1, text, n) && at[1 + n] == ' ')
			return false;
	}
	return true;
}

/* What follows the word of `words` that the text begins with; NULL: it begins with none. */
static const char *behind_word(const char *words, const char *text)
{
	while (*(words += strspn(words, " "))) {
		size_t n = strcspn(words, " ");

		if (!strncmp(text, words, n))
			return text + n;
		words += n;
	}
	return NULL;
}

/* Where the path begins, of a setting without items; NULL: there is none. */
static const char *find_path(const struct setting *s, const char *text)
{
	size_t n = s->path ? strlen(s->path) : 0, before = s->before ? strlen(s->before) : 0;

	if (before && !strncmp(text, s->before, before))
		text += before;
	if (s->paths)
		return behind_word(s->paths, text);
	return s->path && !strncmp(text, s->path, n) ? text + n : NULL;
}

/* Is the item's value this word? */
static bool is_word(const char *value, const char *word)
{
	size_t n = word ? strlen(word) : 0;

	return word && !strncmp(value, word, n) &&
	       (!value[n] || (value[n] == ',' && value[n + 1] != ','));
}

/* The path that an item has; NULL: it has none. */
static const char *path_of_item(const struct setting *s, const char *text)
{
	size_t key = strcspn(text, "=,");
	const struct setting_item *i = setting_item_find(s, text, key);
	const char *value = text + key + 1;

	if (!i || i->type != SETTING_PATH || text[key] != '=')
		return NULL;
	return is_word(value, i->word) ? NULL : value;
}

/* The path in the item that begins at `at`, if it is relative; NULL: there is none. */
static const char *relative_path(const struct setting *s, const char *text, const char *at)
{
	const char *path;

	if (!s->items)
		path = find_path(s, text);
	else if (at == text && setting_is_bare(s, text))
		path = text;
	else
		path = path_of_item(s, at);
	return path && path_is_relative(path) ? path : NULL;
}

/* Where the item that begins there ends, its comma included. */
static const char *end_of_item(const struct setting *s, const char *at)
{
	return s->items ? next_item(at) : at + strlen(at);
}

static size_t relative_paths(const struct setting *s, const char *text)
{
	size_t n = 0;

	for (const char *at = text; *at; at = end_of_item(s, at))
		n += relative_path(s, text, at) != NULL;
	return n;
}

bool setting_is_relative(const struct setting *s, const char *text)
{
	return relative_paths(s, text) != 0;
}

/* The directory and a slash, as they are written in the setting. */
static char *put_directory(const struct setting *s, char *p, const char *cwd)
{
	for (const char *c = cwd; *c; c++) {
		if (s->items && *c == ',')
			*p++ = ',';
		*p++ = *c;
	}
	*p++ = '/';
	return p;
}

char *setting_absolute(const struct setting *s, const char *text, const char *cwd)
{
	char *out = malloc(strlen(text) + relative_paths(s, text) * (2 * strlen(cwd) + 1) + 1);
	char *p = out;

	if (!out)
		return NULL;
	for (const char *at = text, *end; *at; at = end) {
		const char *path = relative_path(s, text, at);
		size_t head = path ? (size_t)(path - at) : 0;

		end = end_of_item(s, at);
		memcpy(p, at, head);
		p += head;
		if (path)
			p = put_directory(s, p, cwd);
		memcpy(p, at + head, (size_t)(end - at) - head);
		p += (size_t)(end - at) - head;
	}
	*p = 0;
	return out;
}

/* ---- environment ---- */

int setting_env(const char *text, char **out)
{
	const char *value = strchr(text, '=') ? "" : getenv(text);

	*out = NULL;
	if (!value)
		return 0;
	if (asprintf(out, "%s%s%s", text, strchr(text, '=') ? "" : "=", value) < 0) {
		*out = NULL;
		return -ENOMEM;
	}
	return 1;
}
