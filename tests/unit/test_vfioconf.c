/* SPDX-License-Identifier: BSD-2-Clause */
/* --vfio: what is taken and refused, and what the supervisor makes of a sysfs that is made here. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "supervisor/backing/vfio.h"

static struct vm_config c;
static struct err e;
static char sys[64];
static struct vfio_found found;

static void setup(void)
{
	log_setup("test_vfioconf", LOG_LVL_ERROR);
	config_init(&c);
	strcpy(sys, "/tmp/insula-test-vfio-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(sys));
}

static void teardown(void)
{
	char rm[128];

	config_free(&c);
	snprintf(rm, sizeof(rm), "rm -rf %s", sys);
	ck_assert_int_eq(system(rm), 0);
}

static int set(const char *v)
{
	e.text[0] = 0;
	return config_set(&c, "--vfio", "vfio", v, &e);
}

/* ---- texts ---- */

START_TEST(texts)
{
	ck_assert_int_eq(set("0000:01:00.0"), 0);
	ck_assert_str_eq(c.vfio[0].address, "0000:01:00.0");
	ck_assert(!c.vfio[0].bind);
	ck_assert_int_eq(set("AB:1f.7,bind"), 0);
	ck_assert_str_eq(c.vfio[1].address, "0000:ab:1f.7");
	ck_assert(c.vfio[1].bind);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert(config_has_pci(&c));
	ck_assert_uint_eq(config_pci_devices(&c, false), 2);
	ck_assert_int_eq(config_set(&c, "--balloon", "balloon", "on", &e), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "--balloon: expected off with --vfio"));
	c.balloon.on = false;
	c.mem_max = 8ull << 30;
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "--mem: max; expected none with --vfio"));
	c.mem_max = 0;
	for (unsigned i = 2; i < CONFIG_MAX_VFIOS; i++) {
		char text[16];

		snprintf(text, sizeof(text), "02:00.%u", i);
		ck_assert_int_eq(set(text), 0);
	}
	ck_assert_int_eq(set("03:00.0"), -EINVAL);
	ck_assert_str_eq(e.text, "--vfio: more than 8 functions");
	c.nvfios = 2;
	ck_assert_int_eq(set("01:00.0"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "given twice; expected each once"));
}
END_TEST

START_TEST(handed_in)
{
	ck_assert_int_eq(set("01:00.0"), 0);
	ck_assert_int_eq(c.vfio[0].fd, -1);
	ck_assert_int_eq(set("02:00.0,fd=17"), 0);
	ck_assert_str_eq(c.vfio[1].address, "0000:02:00.0");
	ck_assert_int_eq(c.vfio[1].fd, 17);
	ck_assert(!c.vfio[1].bind && !c.vfio[1].pf);
	/* The descriptor of another function's group may be the same one. */
	ck_assert_int_eq(set("02:00.1,fd=17"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
}
END_TEST

START_TEST(by_which_interface)
{
	ck_assert_int_eq(set("01:00.0"), 0);
	ck_assert_int_eq(c.vfio[0].by, VFIO_BY_ANY);
	ck_assert_int_eq(set("02:00.0,by=group"), 0);
	ck_assert_str_eq(c.vfio[1].address, "0000:02:00.0");
	ck_assert(c.vfio[1].by == VFIO_BY_GROUP && !c.vfio[1].bind);
	ck_assert_int_eq(set("03:00.0,bind,by=node"), 0);
	ck_assert(c.vfio[2].by == VFIO_BY_NODE && c.vfio[2].bind);
	ck_assert_int_eq(set("pf=0000:04:00.0,vf=auto,vfs=65535,by=node"), 0);
	ck_assert(c.vfio[3].by == VFIO_BY_NODE && c.vfio[3].pf);
	ck_assert_uint_eq(c.vfio[3].vfs, 65535);
}
END_TEST

/* Two virtual functions of one may be meant; not the function itself beside. */
START_TEST(virtual_ones)
{
	ck_assert_int_eq(set("pf=01:00.0,vf=auto"), 0);
	ck_assert_str_eq(c.vfio[0].address, "0000:01:00.0");
	ck_assert(c.vfio[0].pf && !c.vfio[0].bind);
	ck_assert_uint_eq(c.vfio[0].vfs, 1);
	ck_assert_int_eq(set("pf=0000:01:00.0,vf=auto,vfs=65535"), 0);
	ck_assert_uint_eq(c.vfio[1].vfs, 65535);
	ck_assert_int_eq(config_check(&c, &e), 0);
	ck_assert_int_eq(set("01:00.0"), 0);
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "given twice"));
}
END_TEST

START_TEST(refused_texts)
{
	static const char *const bad[] = {
		"", ",bind", "01:00", "0000:01:00.0,", "01:00.0,bin", "01:00.8", "01:20.0",
		"0000:01:00.00", "00000:01:00.0", "g0:00.0", "01:00.0 ", "01-00.0", "01:00.0,bind,",
		"01:00.0,bind=true", "0000:01:00,0", "../../etc.", "0000/01/00.0",
		/* with more behind them */
		"01:00.0,fd=", "01:00.0,fd=2", "01:00.0,fd=x", "01:00.0,fd=9,bind",
		"01:00.0,bind,fd=9", "01:00.0,fd=9,by=group", "01:00.0,by=node,bind",
		"01:00.0,by=", "01:00.0,by=node,by=node", ",by=node", "01:00.0by=node",
		/* as long as the longest, and longer */
		"pf=0000:04:00.0,vf=auto,vfs=65535,by=node,by=group,by=group,by=g",
		"01:00.0                                                         ,by=node",
		"01:00.0,vf=auto", "pf=01:00.0", "pf=,vf=auto", "pf=01:00.0,vf=", "pf=01:00.0,vf=1",
		"pf=01:00.0,vf=auto,", "pf=01:00.0,bind", "pf=01:00.0,vf=auto,bind",
		"pf=01:00.0,vf=auto,vfs=0", "pf=01:00.0,vf=auto,vfs=65536",
		"pf=01:00.0,vf=auto,vfs=", "pf=pf=01:00.0,vf=auto"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_msg(set(bad[i]) == -EINVAL, "'%s' is taken", bad[i]);
		ck_assert_msg(!strncmp(e.text, "--vfio: ", 8), "%s", e.text);
		ck_assert_ptr_nonnull(strstr(e.text, "expected the address of a PCI function"));
		ck_assert_uint_eq(c.nvfios, 0);
	}
}
END_TEST

START_TEST(json)
{
	static const char good[] = "{\"vfios\": [\"0000:01:00.0\", \"02:00.0,bind\"]}";
	static const char bad[] = "{\"vfios\": \"0000:01:00.0\"}";

	ck_assert_int_eq(config_json(&c, NULL, good, strlen(good), &e), 0);
	ck_assert_uint_eq(c.nvfios, 2);
	ck_assert(c.vfio[1].bind);
	ck_assert_int_eq(config_json(&c, NULL, bad, strlen(bad), &e), -EINVAL);
}
END_TEST

/* ---- sysfs ---- */

static void make(const char *fmt, ...)
{
	char path[512], whole[640];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	snprintf(whole, sizeof(whole), "mkdir -p %s/%s", sys, path);
	ck_assert_int_eq(system(whole), 0);
}

static void link_to(const char *to, const char *fmt, const char *address)
{
	char path[512], from[384];

	snprintf(from, sizeof(from), fmt, address);
	snprintf(path, sizeof(path), "%s/%s", sys, from);
	unlink(path);
	ck_assert_int_eq(symlink(to, path), 0);
}

/* A function in this group, with this driver; NULL: none. */
static void function(const char *address, unsigned group, const char *driver)
{
	char to[128];

	make("bus/pci/devices/%s", address);
	make("kernel/iommu_groups/%u/devices/%s", group, address);
	snprintf(to, sizeof(to), "../../../../kernel/iommu_groups/%u", group);
	link_to(to, "bus/pci/devices/%s/iommu_group", address);
	if (!driver)
		return;
	make("bus/pci/drivers/%s", driver);
	snprintf(to, sizeof(to), "../../../../bus/pci/drivers/%s", driver);
	link_to(to, "bus/pci/devices/%s/driver", address);
}

static int look(const char *text)
{
	c.nvfios = 0;
	ck_assert_int_eq(set(text), 0);
	return vfio_look(sys, &c.vfio[0], &found, &e);
}

static void refused(const char *text, const char *words)
{
	ck_assert_msg(look(text) == -EINVAL, "%s is taken", text);
	ck_assert_msg(strstr(e.text, words), "expected \"%s\", got \"%s\"", words, e.text);
	ck_assert_ptr_null(strchr(e.text, '\n'));
}

static void say(const char *address, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/%s", sys, address, name);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "%s\n", text);
	fclose(f);
}

/* By what the guest's kernel finds its driver. */
START_TEST(what_drives_it)
{
	char alias[VFIO_MODALIAS];

	function("0000:01:00.0", 7, "vfio-pci");
	c.nvfios = 0;
	ck_assert_int_eq(set("01:00.0"), 0);
	vfio_modalias(sys, &c.vfio[0], alias);
	ck_assert_str_eq(alias, "");
	say("0000:01:00.0", "modalias", "pci:v00008086d00001572sv00008086sd00000001bc02sc00i00");
	vfio_modalias(sys, &c.vfio[0], alias);
	ck_assert_str_eq(alias, "pci:v00008086d00001572sv00008086sd00000001bc02sc00i00");
	c.nvfios = 0;
	ck_assert_int_eq(set("pf=01:00.0,vf=auto"), 0);
	say("0000:01:00.0", "vendor", "0x8086");
	say("0000:01:00.0", "class", "0x020000");
	say("0000:01:00.0", "sriov_vf_device", "154c");
	vfio_modalias(sys, &c.vfio[0], alias);
	ck_assert_str_eq(alias, "pci:v00008086d0000154Csv00000000sd00000000bc02sc00i00");
}
END_TEST

START_TEST(what_is_ready)
{
	function("0000:01:00.0", 7, "vfio-pci");
	ck_assert_msg(look("01:00.0") == 0, "%s", e.text);
	ck_assert(found.ready);
	ck_assert_uint_eq(found.group, 7);
	function("0000:00:01.0", 7, "pcieport");
	function("0000:01:00.1", 7, NULL);
	function("0000:01:00.2", 7, "pci-stub");
	function("0000:01:00.3", 7, "mlx5_vfio_pci");
	ck_assert_msg(look("01:00.0,bind") == 0, "%s", e.text);
	ck_assert(found.ready);
	ck_assert(look("01:00.3") == 0 && found.ready);
}
END_TEST

START_TEST(what_is_refused)
{
	refused("01:00.0", "--vfio 0000:01:00.0: there is no such PCI function");
	make("bus/pci/devices/0000:01:00.0");
	refused("01:00.0", "it is behind no IOMMU; expected one that is on");
	function("0000:01:00.0", 7, "nvme");
	refused("01:00.0",
		"the host uses it, driver nvme; expected vfio-pci: bind it before, or say "
		"--vfio 0000:01:00.0,bind");
	refused("01:00.0,bind", "the driver vfio-pci is not there; expected it: modprobe vfio-pci");
	make("bus/pci/drivers/vfio-pci");
	ck_assert_msg(look("01:00.0,bind") == 0, "%s", e.text);
	ck_assert(!found.ready);
	ck_assert_str_eq(found.driver, "nvme");
	function("0000:01:00.1", 7, "snd_hda_intel");
	function("0000:01:00.2", 7, "xhci_hcd");
	refused("01:00.0,bind", "IOMMU group 7 has others that the host uses: ");
	ck_assert_ptr_nonnull(strstr(e.text, "0000:01:00.1 (snd_hda_intel)"));
	ck_assert_ptr_nonnull(strstr(e.text, "0000:01:00.2 (xhci_hcd)"));
	function("0000:02:00.0", 8, NULL);
	refused("02:00.0", "no driver; expected vfio-pci");
}
END_TEST

/* A mode of VFIO that protects nothing is no IOMMU. */
START_TEST(never_without_one)
{
	char path[128];
	FILE *f;

	function("0000:01:00.0", 0, "vfio-pci");
	snprintf(path, sizeof(path), "%s/kernel/iommu_groups/0/name", sys);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("vfio-noiommu\n", f);
	fclose(f);
	refused("01:00.0", "behind no IOMMU (vfio-noiommu)");
	refused("01:00.0,bind", "behind no IOMMU (vfio-noiommu)");
}
END_TEST

START_TEST(what_is_in_use)
{
	char path[128];
	FILE *f;

	function("0000:03:00.0", 9, "e1000e");
	make("bus/pci/drivers/vfio-pci");
	make("bus/pci/devices/0000:03:00.0/net/lan0");
	make("class/net");
	link_to("../../bus/pci/devices/0000:03:00.0/net/lan0", "class/net/%s", "lan0");
	snprintf(path, sizeof(path), "%s/class/net/lan0/flags", sys);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("0x1003\n", f);
	fclose(f);
	refused("03:00.0,bind", "--vfio 0000:03:00.0: bind: in use: network card lan0");
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("0x1002\n", f);
	fclose(f);
	ck_assert_msg(look("03:00.0,bind") == 0, "%s", e.text);
}
END_TEST

/* ---- SR-IOV ---- */

static int look_pf(const char *text, unsigned *now)
{
	c.nvfios = 0;
	ck_assert_int_eq(set(text), 0);
	return vfio_look_pf(sys, &c.vfio[0], now, &e);
}

static void pf_refused(const char *text, const char *words)
{
	unsigned now;

	ck_assert_msg(look_pf(text, &now) == -EINVAL, "%s is taken", text);
	ck_assert_msg(strstr(e.text, words), "expected \"%s\", got \"%s\"", words, e.text);
	ck_assert_ptr_null(strchr(e.text, '\n'));
}

START_TEST(makes_virtual_ones)
{
	unsigned now = 9;

	pf_refused("pf=04:00.0,vf=auto", "--vfio pf=0000:04:00.0: there is no such PCI function");
	function("0000:04:00.0", 3, NULL);
	pf_refused("pf=04:00.0,vf=auto", "it has no virtual functions; expected one with SR-IOV");
	say("0000:04:00.0", "sriov_totalvfs", "0");
	pf_refused("pf=04:00.0,vf=auto", "it has no virtual functions");
	say("0000:04:00.0", "sriov_totalvfs", "7");
	say("0000:04:00.0", "sriov_numvfs", "0");
	pf_refused("pf=04:00.0,vf=auto", "no driver; expected its own driver");
	function("0000:04:00.0", 3, "vfio-pci");
	pf_refused("pf=04:00.0,vf=auto", "it is on vfio-pci; expected its own driver");
	function("0000:04:00.0", 3, "igb"); /* vfio-pci is there since before */
	pf_refused("pf=04:00.0,vf=auto,vfs=8", "vfs '8'; expected 1 to 7");
	ck_assert_msg(look_pf("pf=04:00.0,vf=auto,vfs=7", &now) == 0, "%s", e.text);
	ck_assert_uint_eq(now, 0);
	/* They are there: how many are wanted does not matter any more. */
	say("0000:04:00.0", "sriov_numvfs", "2");
	ck_assert_msg(look_pf("pf=04:00.0,vf=auto,vfs=8", &now) == 0, "%s", e.text);
	ck_assert_uint_eq(now, 2);
}
END_TEST

START_TEST(needs_the_driver)
{
	function("0000:04:00.0", 3, "igb");
	say("0000:04:00.0", "sriov_totalvfs", "7");
	say("0000:04:00.0", "sriov_numvfs", "2");
	pf_refused("pf=04:00.0,vf=auto", "the driver vfio-pci is not there");
}
END_TEST

START_TEST(names_virtual_ones)
{
	char address[CONFIG_VFIO_LEN + 1];

	function("0000:04:00.0", 3, "igb");
	function("0000:04:10.0", 4, "igbvf");
	function("0000:04:10.2", 5, "vfio-pci");
	function("0000:04:10.4", 6, NULL);
	link_to("../0000:04:10.0", "bus/pci/devices/%s/virtfn0", "0000:04:00.0");
	link_to("../0000:04:10.2", "bus/pci/devices/%s/virtfn1", "0000:04:00.0");
	link_to("../0000:04:10.4", "bus/pci/devices/%s/virtfn2", "0000:04:00.0");
	ck_assert(vfio_virtual(sys, "0000:04:00.0", 0, address, &found));
	ck_assert_str_eq(address, "0000:04:10.0");
	ck_assert_str_eq(found.driver, "igbvf");
	ck_assert(!found.ready);
	ck_assert(vfio_virtual(sys, "0000:04:00.0", 1, address, &found) && found.ready);
	ck_assert(vfio_virtual(sys, "0000:04:00.0", 2, address, &found) && !found.driver[0]);
	ck_assert(!found.ready);
	ck_assert(!vfio_virtual(sys, "0000:04:00.0", 3, address, &found));
}
END_TEST

/* ---- what is put back ---- */

#define PATIENCE_MS 30000

static char lock[96], number[96];

/* Somebody who shares the lock. */
static int sharer(void)
{
	int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(flock(fd, LOCK_SH), 0);
	return fd;
}

static char number_is(void)
{
	char text[8];

	vfio_line(number, text, sizeof(text));
	return text[0];
}

static void number_becomes(char want)
{
	for (unsigned i = 0; i < PATIENCE_MS / 10 && number_is() != want; i++)
		usleep(10000);
	ck_assert_int_eq(number_is(), want);
}

static void keeper_files(void)
{
	FILE *f;

	snprintf(lock, sizeof(lock), "%s/lock", sys);
	snprintf(number, sizeof(number), "%s/number", sys);
	f = fopen(number, "w");
	ck_assert_ptr_nonnull(f);
	fputs("2\n", f);
	fclose(f);
}

/* Whoever ends first is not kept waiting by the others; the last one lets it happen. */
START_TEST(put_back_when_alone)
{
	struct vfio_keeper k = {.alone = true};
	int other;

	keeper_files();
	k.held = sharer();
	other = sharer();
	vfio_keep(&k, number, "0");
	ck_assert_int_eq(vfio_keeper_start(&k, "x", &e), 0);
	vfio_keeper_end(&k, "x");
	close(k.held);
	ck_assert_int_eq(number_is(), '2');
	close(other);
	number_becomes('0');
}
END_TEST

START_TEST(put_back_at_once)
{
	struct vfio_keeper k = {.alone = true};

	keeper_files();
	k.held = sharer();
	vfio_keep(&k, number, "1");
	vfio_keep(&k, number, "0");
	ck_assert_int_eq(vfio_keeper_start(&k, "x", &e), 0);
	ck_assert_int_eq(number_is(), '2');
	vfio_keeper_end(&k, "x");
	ck_assert_int_eq(number_is(), '0');
	close(k.held);
}
END_TEST

/* Between two drivers there is none to be unbound from. */
START_TEST(put_back_without_a_driver)
{
	struct vfio_keeper k = {0};
	char unbind[2 * PATH_MAX];

	keeper_files();
	snprintf(unbind, sizeof(unbind), "%s/driver/unbind", sys);
	vfio_keep(&k, unbind, "x");
	vfio_keep(&k, number, "0");
	k.held = sharer();
	ck_assert_int_eq(vfio_keeper_start(&k, "x", &e), 0);
	vfio_keeper_end(&k, "x");
	ck_assert_int_eq(number_is(), '0');
	close(k.held);
}
END_TEST

/* Its keeper has been killed: then it is done here. */
START_TEST(put_back_instead)
{
	struct vfio_keeper k = {.alone = true};

	keeper_files();
	k.held = sharer();
	vfio_keep(&k, number, "0");
	ck_assert_int_eq(vfio_keeper_start(&k, "x", &e), 0);
	ck_assert_int_eq(kill(k.process.pid, SIGKILL), 0);
	vfio_keeper_end(&k, "x");
	ck_assert_int_eq(number_is(), '0');
	close(k.held);
}
END_TEST

/* Two supervisors are killed, one after the other. */
START_TEST(put_back_by_nobody_left)
{
	pid_t pid[2];
	int status;

	keeper_files();
	for (unsigned i = 0; i < 2; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			struct vfio_keeper k = {.alone = true};

			k.held = sharer();
			vfio_keep(&k, number, "0");
			if (i == 0 && vfio_keeper_start(&k, "x", &e))
				_exit(1);
			raise(SIGSTOP);
			_exit(1);
		}
		ck_assert_int_eq(waitpid(pid[i], &status, WUNTRACED), pid[i]);
		ck_assert(WIFSTOPPED(status));
	}
	ck_assert_int_eq(kill(pid[0], SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid[0], &status, 0), pid[0]);
	ck_assert_int_eq(number_is(), '2');
	ck_assert_int_eq(kill(pid[1], SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid[1], &status, 0), pid[1]);
	number_becomes('0');
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfioconf");
	TCase *tc = tcase_create("vfioconf");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, texts);
	tcase_add_test(tc, handed_in);
	tcase_add_test(tc, by_which_interface);
	tcase_add_test(tc, virtual_ones);
	tcase_add_test(tc, refused_texts);
	tcase_add_test(tc, json);
	tcase_add_test(tc, what_is_ready);
	tcase_add_test(tc, what_drives_it);
	tcase_add_test(tc, what_is_refused);
	tcase_add_test(tc, never_without_one);
	tcase_add_test(tc, what_is_in_use);
	tcase_add_test(tc, makes_virtual_ones);
	tcase_add_test(tc, needs_the_driver);
	tcase_add_test(tc, names_virtual_ones);
	tcase_add_test(tc, put_back_when_alone);
	tcase_add_test(tc, put_back_at_once);
	tcase_add_test(tc, put_back_without_a_driver);
	tcase_add_test(tc, put_back_instead);
	tcase_add_test(tc, put_back_by_nobody_left);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
