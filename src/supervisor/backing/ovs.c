/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card as a port of a bridge of Open vSwitch: a TAP of our own, which is there as long as one of
 * the VM's processes has it open, and a row of Open vSwitch's database that says so. The rows are
 * made by ovs-vsctl. See attach.h.
 *
 * The TAP comes first, then the keeper, then the port. So a port with our mark and no TAP is one of
 * a VM that is gone. That is looked at when ovs-vswitchd has taken our own TAP: it has the same
 * interfaces as we have then.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <image/spawn.h>
#include <insula/base.h>
#include <insula/log.h>

#include "attach.h"

#define OVS_PREFIX "ins"
#define OVS_SECONDS "5"
#define OVS_TIMEOUT "--timeout=5"
#define OVS_STALE_MAX 64
#define OVS_WORDS 320
#define OVS_TEXT 1024
#define OVS_SAID (256u << 10) /* 20,000 names of ports */

/* ---- ovs-vsctl ---- */

/* Only those directories into which nobody else can put a program. */
static bool ovs_dir_is_safe(const char *dir)
{
	struct stat st;

	return dir[0] == '/' && !stat(dir, &st) && (st.st_uid == 0 || st.st_uid == geteuid()) &&
	       !(st.st_mode & 022);
}

static int ovs_find(char *path, size_t size, const char *bridge, struct err *e)
{
	const char *set = getenv("PATH"), *p;
	char dirs[4096];

	snprintf(dirs, sizeof(dirs), "%s:/usr/local/bin:/usr/bin:/bin", set ? set : "");
	for (p = dirs; *p;) {
		size_t len = strcspn(p, ":");

		if ((size_t)snprintf(path, size, "%.*s", (int)len, p) < size &&
		    ovs_dir_is_safe(path) &&
		    (size_t)snprintf(path, size, "%.*s/ovs-vsctl", (int)len, p) < size &&
		    !access(path, X_OK))
			return 0;
		p += len + (p[len] == ':');
	}
	return err_set(e, -ENOENT,
		       "--net: ovs %s: needs the program ovs-vsctl (Debian: apt-get install "
		       "openvswitch-switch)",
		       bridge);
}

struct ovs_words {
	const char *v[OVS_WORDS];
	unsigned n;
	char text[OVS_TEXT], tag[16];
	size_t used;
};

static void ovs_add(struct ovs_words *w, const char *word)
{
	if (w->n + 1 < OVS_WORDS)
		w->v[w->n++] = word;
	w->v[w->n] = NULL;
}

/* KEY="VALUE": the quotes are for ovs-vsctl, to which : and , mean something. */
static void ovs_add_id(struct ovs_words *w, const char *key, const char *value)
{
	size_t room = sizeof(w->text) - w->used;
	int n = snprintf(w->text + w->used, room, "external-ids:%s=\"%s\"", key, value);

	if (n < 0 || (size_t)n >= room)
		return;
	ovs_add(w, w->text + w->used);
	w->used += (size_t)n + 1;
}

static void ovs_begin(struct ovs_words *w, const struct attach *a)
{
	w->n = 0;
	w->used = 0;
	ovs_add(w, a->tool);
	ovs_add(w, OVS_TIMEOUT);
	ovs_add(w, "--bare");
}

static int ovs_failed(const struct attach *a, const struct err *why, int code, struct err *e)
{
	const char *bridge = a->conf->name;

	if (strstr(why->text, "no bridge named"))
		return err_set(e, -ENODEV,
			       "--net: ovs %s: no such bridge; make one with: ovs-vsctl add-br %s",
			       bridge, bridge);
	if (strstr(why->text, "signal 14"))
		return err_set(e, -ETIMEDOUT,
			       "--net: ovs %s: no answer in " OVS_SECONDS
			       " s; expected ovs-vswitchd and ovsdb-server that run",
			       bridge);
	return err_set(e, code, "--net: ovs %s: %s", bridge, why->text);
}

static struct spawn ovs_program(const struct ovs_words *w, int out)
{
	return (struct spawn){.argv = w->v,
			      .package = "openvswitch-switch",
			      .in = -1,
			      .out = out,
			      .extra = -1,
			      .own_env = true};
}

/* What it says goes to `out`, which holds `size` bytes; NULL: nowhere. */
static int ovs_run(const struct attach *a, const struct ovs_words *w, char *out, size_t size,
		   struct err *e)
{
	struct spawn s = ovs_program(w, out ? memfd_create("stdout", MFD_CLOEXEC) : -1);
	struct err why = {0};
	ssize_t n = 0;
	int rc;

	if (out && s.out < 0)
		return err_sys(e, -errno, "--net: memfd");
	rc = spawn_run(&s, &why);
	if (rc)
		rc = ovs_failed(a, &why, rc, e);
	else if (out)
		n = pread(s.out, out, size - 1, 0);
	if (out)
		out[n > 0 ? n : 0] = 0;
	fd_close(&s.out);
	return rc;
}

/* The first line of what is left of *text. */
static char *ovs_line(char **text)
{
	char *line = strsep(text, "\n");

	return line ? line : "";
}

/* ---- the port ---- */

static int ovs_look(const struct attach *a, struct err *e)
{
	struct ovs_words w;

	ovs_begin(&w, a);
	ovs_add(&w, "br-to-parent"); /* is it there? */
	ovs_add(&w, a->conf->name);
	return ovs_run(a, &w, NULL, 0, e);
}

static void ovs_add_mac(struct ovs_words *w, const struct attach *a)
{
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", a->mac[0], a->mac[1], a->mac[2],
		 a->mac[3], a->mac[4], a->mac[5]);
	ovs_add_id(w, "attached-mac", mac);
}

static void ovs_say_port(struct ovs_words *w, const struct attach *a)
{
	ovs_begin(w, a);
	ovs_add(w, "add-port");
	ovs_add(w, a->conf->name);
	ovs_add(w, a->ifname);
	snprintf(w->tag, sizeof(w->tag), "tag=%u", a->conf->vlan);
	if (a->conf->vlan)
		ovs_add(w, w->tag);
	ovs_add(w, "--");
	ovs_add(w, "set");
	ovs_add(w, "Interface");
	ovs_add(w, a->ifname);
	ovs_add(w, "type=system");
	ovs_add_id(w, "insula", "tap");
	ovs_add_mac(w, a);
	if (a->conf->iface_id[0])
		ovs_add_id(w, "iface-id", a->conf->iface_id);
	if (a->vm_name && a->vm_name[0])
		ovs_add_id(w, "vm-id", a->vm_name);
	/* And for ovs_learn(): the bridge, or the one that a VLAN's bridge is part of, and all that
	 * ovs-vswitchd serves itself. */
	ovs_add(w, "--");
	ovs_add(w, "br-to-parent");
	ovs_add(w, a->conf->name);
	ovs_add(w, "--");
	ovs_add(w, "--columns=name");
	ovs_add(w, "find");
	ovs_add(w, "Bridge");
	ovs_add(w, "datapath_type=netdev");
}

/* ovs-vswitchd reads frames from a packet socket, without what the TAP says of them: a checksum
 * that is still to be made would never be. */
static void ovs_learn(struct attach *a, char *said)
{
	const char *bridge = ovs_line(&said);

	while (said && !a->whole_frames)
		a->whole_frames = strcmp(ovs_line(&said), bridge) == 0;
}

static int ovs_add_port(struct attach *a, struct err *e)
{
	struct ovs_words w;
	char *said = malloc(OVS_SAID);
	int rc;

	if (!said)
		return err_set(e, -ENOMEM, "out of memory");
	ovs_say_port(&w, a);
	rc = ovs_run(a, &w, said, OVS_SAID, e);
	if (!rc)
		ovs_learn(a, said);
	free(said);
	return rc;
}

/* Those of VMs that are gone. One that cannot be removed does not keep this VM from starting. */
static void ovs_remove_stale(const struct attach *a, char *names)
{
	struct ovs_words w;
	char *save = NULL;
	unsigned n = 0;
	struct err e;

	ovs_begin(&w, a);
	ovs_add(&w, "--no-wait");
	for (char *name = strtok_r(names, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		if (!attach_is_name(name, OVS_PREFIX) || if_nametoindex(name) ||
		    n++ >= OVS_STALE_MAX)
			continue;
		log_info("--net: ovs: port %s of a VM that is gone is removed", name);
		ovs_add(&w, "--");
		ovs_add(&w, "--if-exists");
		ovs_add(&w, "del-port");
		ovs_add(&w, name);
	}
	if (n && ovs_run(a, &w, NULL, 0, &e))
		log_warn("%s", e.text);
}

/* The number that ovs-vswitchd has given it by now, or why there is none; then the names of all
 * ports with our mark. */
static int ovs_judge(const struct attach *a, char *said, struct err *e)
{
	const char *number = ovs_line(&said), *why = ovs_line(&said);

	if (number[0] < '1' || number[0] > '9')
		return err_set(e, -ENODEV,
			       "--net: ovs %s: ovs-vswitchd does not take the TAP %s: %s; expected "
			       "one that runs in the same network namespace",
			       a->conf->name, a->ifname, why);
	if (said)
		ovs_remove_stale(a, said);
	return 0;
}

static void ovs_ask_port(struct ovs_words *w, const struct attach *a)
{
	ovs_begin(w, a);
	ovs_add(w, "get");
	ovs_add(w, "Interface");
	ovs_add(w, a->ifname);
	ovs_add(w, "ofport");
	ovs_add(w, "error");
}

static int ovs_check_port(const struct attach *a, struct err *e)
{
	struct ovs_words w;
	char *said = malloc(OVS_SAID);
	int rc;

	if (!said)
		return err_set(e, -ENOMEM, "out of memory");
	ovs_ask_port(&w, a);
	ovs_add(&w, "--");
	ovs_add(&w, "--columns=name");
	ovs_add(&w, "find");
	ovs_add(&w, "Interface");
	ovs_add(&w, "external_ids:insula=tap");
	rc = ovs_run(a, &w, said, OVS_SAID, e);
	if (!rc)
		rc = ovs_judge(a, said, e);
	free(said);
	return rc;
}

/* ---- the same, step by step ---- */

static int ovs_step(struct attach *a, const struct ovs_words *w, enum attach_step step,
		    struct err *e)
{
	struct spawn s = ovs_program(w, -1);

	fd_close(&a->said);
	a->said = s.out = memfd_create("stdout", MFD_CLOEXEC);
	if (a->said < 0)
		return err_sys(e, -errno, "--net: memfd");
	a->step = step;
	return spawn_begin(&s, &a->spawned, e);
}

static int ovs_said(struct attach *a, char **said, struct err *e)
{
	ssize_t n;

	*said = malloc(OVS_SAID);
	if (!*said)
		return err_set(e, -ENOMEM, "out of memory");
	n = pread(a->said, *said, OVS_SAID - 1, 0);
	(*said)[n > 0 ? n : 0] = 0;
	fd_close(&a->said);
	return 0;
}

int ovs_ready(struct attach *a, struct err *e)
{
	struct ovs_words w;
	struct err why = {0};
	char *said;
	int rc;

	if (a->step == ATTACH_DONE)
		return 1;
	rc = spawn_look(&a->spawned, &why);
	if (rc == -EAGAIN)
		return 0;
	if (rc)
		return ovs_failed(a, &why, rc, e);
	rc = ovs_said(a, &said, e);
	if (!rc && a->step == ATTACH_LOOKS) {
		a->step = ATTACH_DONE;
		rc = ovs_judge(a, said, e);
		rc = rc ? rc : 1;
	} else if (!rc) {
		ovs_learn(a, said);
		ovs_ask_port(&w, a);
		rc = ovs_step(a, &w, ATTACH_LOOKS, e);
	}
	free(said);
	return rc;
}

int ovs_address(const struct attach *a, struct err *e)
{
	struct ovs_words w;

	ovs_begin(&w, a);
	ovs_add(&w, "set");
	ovs_add(&w, "Interface");
	ovs_add(&w, a->ifname);
	ovs_add_mac(&w, a);
	return ovs_run(a, &w, NULL, 0, e);
}

/* It does not wait for ovs-vswitchd, which may be what has died. */
#define OVS_REMOVE(a)                                                                              \
	{                                                                                          \
		(a)->tool, "--no-wait", OVS_TIMEOUT, "--", "--if-exists", "del-port", (a)->ifname, \
			NULL                                                                       \
	}

int ovs_remove(const void *attach)
{
	const struct attach *a = attach;
	const char *const words[] = OVS_REMOVE(a);
	struct spawn s = {.argv = words,
			  .package = "openvswitch-switch",
			  .in = -1,
			  .out = -1,
			  .extra = -1,
			  .own_env = true};
	struct err e;

	return spawn_run(&s, &e);
}

/* The keeper becomes that. */
static int ovs_keep(const void *attach)
{
	const struct attach *a = attach;
	const char *const words[] = OVS_REMOVE(a);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL); /* its --timeout is an alarm */
	execve(a->tool, (char *const *)(uintptr_t)words, environ);
	return -errno;
}

/* ---- the TAP ---- */

static int ovs_make_queue(struct attach *a, struct err *e)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), rc;

	if (fd < 0)
		return err_sys(e, -errno, "--net: /dev/net/tun%s",
			       errno == ENOENT ? " (is the module tun loaded?)" : "");
	rc = attach_queue(fd, a->ifname, a->conf->queues, *a->nqueues ? 0 : IFF_TUN_EXCL);
	if (!rc) {
		a->queue[(*a->nqueues)++] = fd;
		return 0;
	}
	close(fd);
	if (rc == -EPERM)
		return err_set(e, rc, "--net: ovs %s: no permission to make a TAP; expected root",
			       a->conf->name);
	return err_sys(e, rc, "--net: ovs %s: TAP %s", a->conf->name, a->ifname);
}

static int ovs_set_mtu(const struct attach *a, struct err *e)
{
	struct ifreq r = {.ifr_mtu = (int)a->conf->mtu};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", a->ifname);
	if (fd < 0 || ioctl(fd, SIOCSIFMTU, &r))
		rc = err_sys(e, -errno, "--net: ovs %s: mtu %u", a->conf->name, a->conf->mtu);
	fd_close(&fd);
	return rc;
}

static int ovs_make_tap(struct attach *a, struct err *e)
{
	int rc = 0;

	attach_name(a->ifname, OVS_PREFIX);
	while (*a->nqueues < a->conf->queues && !rc)
		rc = ovs_make_queue(a, e);
	if (!rc && a->conf->mtu)
		rc = ovs_set_mtu(a, e);
	if (rc)
		return rc;
	/* Without ARP: the host's own stack sees the frames too if the bridge is one of
	 * ovs-vswitchd itself (datapath_type=netdev). */
	rc = attach_up(a->ifname, IFF_NOARP);
	return rc ? err_sys(e, rc, "--net: ovs %s: TAP %s", a->conf->name, a->ifname) : 0;
}

int ovs_open(struct attach *a, enum attach_when when, struct err *e)
{
	struct ovs_words w;
	char what[48];
	int rc = ovs_find(a->tool, sizeof(a->tool), a->conf->name, e);

	if (!rc && when != ATTACH_LATER)
		rc = ovs_look(a, e);
	if (rc || when == ATTACH_CHECK)
		return rc;
	rc = ovs_make_tap(a, e);
	snprintf(what, sizeof(what), "--net: ovs %s", a->conf->name);
	if (!rc)
		rc = keeper_start(&a->keeper, ovs_keep, a, what, e);
	if (!rc && when == ATTACH_LATER) {
		ovs_say_port(&w, a);
		return ovs_step(a, &w, ATTACH_ADDS, e);
	}
	if (!rc)
		rc = ovs_add_port(a, e);
	return rc ? rc : ovs_check_port(a, e);
}
