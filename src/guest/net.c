/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: brings up the network cards that the configuration names, by their MAC address.
 *
 * A record of /insula/config is "MAC", "MAC,dhcp" or "MAC,ip=ADDRESS/LENGTH[,gw=ADDRESS]
 * [,dns=ADDRESS]". DHCP is the initrd's busybox; its script (src/image/initrd.c) only writes down
 * what was granted, in the same words, so that there is one way to set an address.
 *
 * The network is no reason not to run: what fails is one line on the console, and the boot goes on.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

#define CLASS "/sys/class/net"
#define LEASE "/run/insula-lease"
#define RESOLV "/run/insula-resolv.conf"
#define WAIT_MS 2000

static void complain(const char *name, const char *what)
{
	dprintf(STDERR_FILENO, NAME ": %s: %s\n", name, what);
}

static bool read_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(out, (int)size, f);

	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = '\0';
	return ok;
}

/* ---- which interface ---- */

static bool find_once(const char *mac, char name[IFNAMSIZ])
{
	DIR *d = opendir(CLASS);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		char path[300], got[32];

		snprintf(path, sizeof path, CLASS "/%s/address", e->d_name);
		found = e->d_name[0] != '.' && strlen(e->d_name) < IFNAMSIZ &&
			read_line(path, got, sizeof got) && strcasecmp(got, mac) == 0;
		if (found)
			strcpy(name, e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

static void a_millisecond(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* The driver usually finds its cards before finit_module() returns; it does not promise to. */
static bool find_card(const char *mac, char name[IFNAMSIZ])
{
	for (unsigned i = 0; !find_once(mac, name); i++) {
		if (i == WAIT_MS)
			return false;
		a_millisecond();
	}
	return true;
}

/* A frame that is sent before the link is there is lost, and DHCP waits a second for the answer. */
static void wait_carrier(const char *name)
{
	char path[300], got[8];

	snprintf(path, sizeof path, CLASS "/%s/carrier", name);
	for (unsigned i = 0; i < WAIT_MS; i++) {
		if (read_line(path, got, sizeof got) && got[0] == '1')
			return;
		a_millisecond();
	}
}

/* ---- addresses ---- */

static struct ifreq request(const char *name)
{
	struct ifreq r = {0};

	strncpy(r.ifr_name, name, IFNAMSIZ - 1);
	return r;
}

static struct sockaddr read_address(in_addr_t a)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {a}};
	struct sockaddr out;

	memcpy(&out, &in, sizeof out);
	return out;
}

static bool bring_up(int fd, const char *name)
{
	struct ifreq r = request(name);

	r.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &r) == 0;
}

static bool set_ip(int fd, const char *name, char *value)
{
	struct ifreq r = request(name);
	char *slash = strchr(value, '/');
	int bits = slash ? atoi(slash + 1) : 32;
	in_addr_t a;

	if (slash)
		*slash = '\0';
	if (inet_pton(AF_INET, value, &a) != 1 || bits < 1 || bits > 32)
		return false;
	r.ifr_addr = read_address(a);
	if (ioctl(fd, SIOCSIFADDR, &r) < 0)
		return false;
	r.ifr_netmask = read_address(htonl(~0u << (32 - bits)));
	return ioctl(fd, SIOCSIFNETMASK, &r) == 0;
}

static bool set_gw(int fd, const char *name, char *value)
{
	struct rtentry rt = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = (char *)name};
	in_addr_t a;

	if (inet_pton(AF_INET, value, &a) != 1)
		return false;
	rt.rt_dst = rt.rt_genmask = read_address(0);
	rt.rt_gateway = read_address(a);
	if (ioctl(fd, SIOCADDRT, &rt) == 0 || errno == EEXIST)
		return true;
	/* Not in the card's own network: say first that it is there (passt gives a host's /32). */
	struct rtentry link = {.rt_flags = RTF_UP | RTF_HOST, .rt_dev = (char *)name};

	link.rt_dst = read_address(a);
	link.rt_genmask = read_address(~0u);
	return ioctl(fd, SIOCADDRT, &link) == 0 && ioctl(fd, SIOCADDRT, &rt) == 0;
}

static bool set_mtu(int fd, const char *name, char *value)
{
	struct ifreq r = request(name);

	r.ifr_mtu = atoi(value);
	ioctl(fd, SIOCSIFMTU, &r); /* what the card cannot do stays as it is */
	return true;
}

static bool add_dns(int fd, const char *name, char *value)
{
	FILE *f = fopen(RESOLV, "ae");

	(void)fd;
	(void)name;
	if (!f)
		return false;
	fprintf(f, "nameserver %s\n", value);
	return fclose(f) == 0;
}

static const struct {
	const char *key;
	bool (*set)(int fd, const char *name, char *value);
} settings[] = {{"ip", set_ip}, {"gw", set_gw}, {"dns", add_dns}, {"mtu", set_mtu}};

static void apply(int fd, const char *name, char *item)
{
	char *value = strchr(item, '='), text[96];

	for (size_t i = 0; value && i < sizeof settings / sizeof settings[0]; i++) {
		if (strlen(settings[i].key) != (size_t)(value - item) ||
		    strncmp(settings[i].key, item, (size_t)(value - item)) != 0)
			continue;
		snprintf(text, sizeof text, "%.60s: %s", item, strerror(errno));
		if (!settings[i].set(fd, name, value + 1)) {
			snprintf(text, sizeof text, "%.60s: %s", item, strerror(errno));
			complain(name, text);
		}
		return;
	}
	complain(name, item);
}

/* ---- DHCP ---- */

static bool net_ask(const char *name)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execl("/bin/busybox", "udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "1", "-O", "mtu",
		      "-i", name, "-s", "/insula/udhcpc", (char *)NULL);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void dhcp(int fd, const char *name)
{
	char line[160];
	FILE *f;

	wait_carrier(name);
	if (!net_ask(name) || !(f = fopen(LEASE, "re"))) {
		complain(name, "no answer to DHCP: it has no address");
		return;
	}
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		apply(fd, name, line);
	}
	fclose(f);
	unlink(LEASE);
}

static void one_card(int fd, char *record)
{
	char name[IFNAMSIZ], *rest = record, *mac = strsep(&rest, ","), *item;

	if (!find_card(mac, name)) {
		complain(mac, "no such card (has this kernel virtio_net?)");
		return;
	}
	if (!bring_up(fd, name)) {
		complain(name, strerror(errno));
		return;
	}
	while ((item = strsep(&rest, ","))) {
		if (strcmp(item, "dhcp") == 0)
			dhcp(fd, name);
		else
			apply(fd, name, item);
	}
}

void net_up(const struct config *c)
{
	int fd;

	if (!c->nets[0])
		return;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		complain("network", strerror(errno));
		return;
	}
	for (char **r = c->nets; *r; r++)
		one_card(fd, *r);
	close(fd);
}

/* ---- names ---- */

/* False: it cannot be made, or opened, with these flags. */
static bool copy_file(const char *from, const char *to, int flags)
{
	char buf[512];
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	ssize_t n;

	out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
	while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof buf)) > 0) {
		if (write(out, buf, (size_t)n) != n)
			break;
	}
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return out >= 0;
}

void net_resolv(const struct config *c)
{
	if (access(RESOLV, R_OK) < 0)
		return;
	/* Above the file that is there, so that an image that is written to stays as it is. */
	if (mount(RESOLV, "/etc/resolv.conf", NULL, MS_BIND, NULL) == 0)
		return;
	if (c->root != ROOT_RW)
		unlink("/etc/resolv.conf"); /* a link that leads nowhere */
	mkdir("/etc", 0755);
	copy_file(RESOLV, "/etc/resolv.conf", O_EXCL);
}

/* ---- another machine's network ---- */

bool net_mac(const char *text, uint8_t b[6])
{
	return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &b[0], &b[1], &b[2], &b[3], &b[4],
		      &b[5]) == 6;
}

static bool set_mac(int fd, const char *name, const char *mac)
{
	struct ifreq r = request(name);

	r.ifr_hwaddr.sa_family = 1; /* ARPHRD_ETHER */
	return net_mac(mac, (uint8_t *)r.ifr_hwaddr.sa_data) && ioctl(fd, SIOCSIFHWADDR, &r) == 0;
}

/* Its routes go, and the addresses that IPv6 has made of the MAC address. */
static bool take_down(int fd, const char *name)
{
	struct ifreq r = request(name);

	if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		return false;
	r.ifr_flags = (short)(r.ifr_flags & ~IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, &r) == 0;
}

/* "OLD,NEW[,...]". If nothing but the MAC address is new, the card stays up, and keeps its routes
 * and all addresses but those that IPv6 has made of the old one. If nothing is, it is set up as at
 * the boot. */
static void renew_card(int fd, char *card)
{
	char name[IFNAMSIZ], mac[18], *rest = card, *old = strsep(&rest, ",");
	bool more;

	snprintf(mac, sizeof mac, "%s", rest);
	more = strlen(rest) > 17 || strcasecmp(old, mac) == 0;
	if (!find_once(old, name)) {
		complain(old, "no card has this address");
		return;
	}
	if (more && !take_down(fd, name))
		complain(name, strerror(errno));
	if (strcasecmp(old, mac) != 0 && !set_mac(fd, name, mac))
		complain(name, strerror(errno));
	else if (more)
		one_card(fd, rest);
	else
		net6_renew(name, old, mac);
}

/* Other name servers than before, in the place of those: RESOLV has them. */
static void renew_resolv(void)
{
	struct stat ours, st;

	if (stat(RESOLV, &ours) < 0 || (lstat("/etc/resolv.conf", &st) == 0 &&
					st.st_dev == ours.st_dev && st.st_ino == ours.st_ino))
		return;
	if (!copy_file(RESOLV, "/etc/resolv.conf", O_TRUNC | O_NOFOLLOW))
		complain("/etc/resolv.conf",
			 errno == ELOOP ? "a link: left alone" : strerror(errno));
}

/* What complain() said goes to the console as well. */
static void note_complaints(int from, char why[GP_TEXT_LEN])
{
	static const char prefix[] = NAME ": ";
	FILE *f = fdopen(from, "r");
	char line[256];

	while (f && fgets(line, sizeof line, f)) {
		bool named = strncmp(line, prefix, sizeof prefix - 1) == 0;

		line[strcspn(line, "\n")] = '\0';
		dprintf(STDERR_FILENO, "%s\n", line);
		note(why, "%s", line + (named ? sizeof prefix - 1 : 0));
	}
	if (f)
		fclose(f);
}

static void renew_cards(int fd, char *const *cards, unsigned n)
{
	bool names = false;

	for (unsigned i = 0; i < n && cards[i]; i++)
		names |= strstr(cards[i], ",dns=") || strstr(cards[i], ",dhcp");
	if (names && truncate(RESOLV, 0) < 0 && errno != ENOENT)
		complain(RESOLV, strerror(errno));
	for (unsigned i = 0; i < n && cards[i]; i++)
		renew_card(fd, cards[i]);
	if (names)
		renew_resolv();
}

void net_renew(char *const *cards, unsigned n, char why[GP_TEXT_LEN])
{
	int p[2], console, fd;

	if (!n || !cards[0])
		return;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	console = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || console < 0 || pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0) {
		note(why, "network: %s", strerror(errno));
		return;
	}
	dup2(p[1], STDERR_FILENO);
	close(p[1]);
	renew_cards(fd, cards, n);
	dup2(console, STDERR_FILENO);
	close(console);
	close(fd);
	note_complaints(p[0], why);
}
