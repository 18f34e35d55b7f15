/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices that come and go: the real policy (plug.c, vm_children.c, recover.c) and real disks, with
 * processes that are none (fakechild.h).
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/devpage.h>
#include <insula/log.h>

#include "fakevm.h"
#include "spec/json.h"
#include "supervisor/plug_state.h"
#include "supervisor/recover.h"

#define PLACES 2u
#define FIRST 1u /* among the devices */

static char disk[2][32];
static struct err e;

/* What was answered last, and how often. */
static struct {
	unsigned n, place;
	int rc;
	struct err e;
} answer;

static void done(void *ctx, struct vm *v, unsigned place, int rc, const struct err *why)
{
	ck_assert_ptr_eq(ctx, &answer);
	ck_assert_ptr_eq(v, &vm);
	answer.n++;
	answer.place = place;
	answer.rc = rc;
	if (rc)
		answer.e = *why;
}

static void answered(unsigned n, int rc, const char *words)
{
	ck_assert_uint_eq(answer.n, n);
	ck_assert_int_eq(answer.rc, rc);
	if (rc)
		ck_assert_msg(strstr(answer.e.text, words) != NULL, "%s", answer.e.text);
}

static void make_disk(char path[32])
{
	int fd;

	strcpy(path, "/tmp/test_plug.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	close(fd);
}

static void begin(unsigned places)
{
	memset(&answer, 0, sizeof(answer));
	fakevm_make("test_plug");
	conf.hotplug = places;
	ck_assert_int_eq(plug_open(&vm, &e), 0);
	fakevm_start();
	says(&vm.vmm, MSG_READY, NULL, 0);
	says(&rng->child, MSG_READY, NULL, 0);
	ck_assert(vm.running); /* nobody waits for what is not there */
}

static void setup(void)
{
	make_disk(disk[0]);
	make_disk(disk[1]);
	begin(PLACES);
}

static void teardown(void)
{
	for (unsigned i = FIRST; i < vm.ndevices; i++)
		device_free(&vm.device[i]);
	plug_close(&vm);
	config_free(&conf);
	unlink(disk[0]);
	unlink(disk[1]);
}

static int add_json(const char *text, const char *name)
{
	json_object *o = json_tokener_parse(text);
	unsigned place = 99;
	int rc = plug_add(&vm, o, name, done, &answer, &place, &e);

	json_object_put(o);
	return rc ? rc : (int)place;
}

static int add(unsigned i, const char *name)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"disk\": {\"path\": \"%s\"}}", disk[i]);
	return add_json(text, name);
}

static int take_away(const char *name, bool force)
{
	unsigned place = 99;
	int rc = plug_remove(&vm, name, force, 1000, done, &answer, &place, &e);

	return rc ? rc : (int)place;
}

static struct device *at(unsigned place)
{
	return &vm.device[FIRST + place];
}

static struct child *helper(unsigned place)
{
	return &at(place)->child;
}

static void vmm_says(enum msg_type t, unsigned place, int error)
{
	struct msg_plugged m = {.index = FIRST + place, .error = error, .text = "no room"};

	says(&vm.vmm, t, &m, sizeof(m));
}

/* The last one: of the device, and whether at once. */
static void unplug_was_sent(unsigned place, bool now)
{
	const struct fake *f = fake_of(&vm.vmm);
	struct msg_unplug m;

	ck_assert_uint_gt(f->nsent, 0);
	ck_assert_int_eq(f->sent[f->nsent - 1], MSG_UNPLUG);
	memcpy(&m, f->body[f->nsent - 1], sizeof(m));
	ck_assert_uint_eq(m.index, FIRST + place);
	ck_assert_uint_eq(m.now, now);
}

/* The deadline of what is under way has passed. */
static void overdue(unsigned place)
{
	ck_assert_uint_ne(vm.plug[place].limit_ns, 0);
	ck_assert_uint_ne(plug_due(&vm), 0);
	vm.plug[place].limit_ns = 1;
	plug_overdue(&vm);
}

static bool is_locked(unsigned i)
{
	int fd = open(disk[i], O_RDWR | O_CLOEXEC);
	bool locked = flock(fd, LOCK_EX | LOCK_NB) != 0;

	close(fd);
	return locked;
}

static void is_free(unsigned place)
{
	ck_assert(device_is_empty(at(place)));
	ck_assert_int_eq(vm.plug[place].state, PLUG_EMPTY);
	ck_assert_ptr_null(vm.plug[place].conf);
	ck_assert_uint_eq(at(place)->desc.nslots, 1);
	for (unsigned i = 1; i < DEVICE_MAX_SLOTS; i++)
		ck_assert_int_eq(at(place)->slot[i], -1);
	ck_assert_int_ge(at(place)->slot[0], 0);
}

static void add_all(unsigned i, const char *name)
{
	int place = add(i, name);

	ck_assert_msg(place >= 0, "%s", e.text);
	says(helper((unsigned)place), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, (unsigned)place, 0);
	ck_assert_int_eq(answer.rc, 0);
	ck_assert(plug_is_there(&vm.plug[place]));
}

static void helper_stops(unsigned place)
{
	struct msg_stats s = {{0}};

	ck_assert_uint_eq(sent(helper(place), MSG_STOP), 1);
	says(helper(place), MSG_STOPPED, &s, sizeof(s));
	ck_assert_int_eq(vm.plug[place].state, PLUG_STOPS); /* until there is no process */
	child_died(helper(place));
}

/* ---- an add ---- */

START_TEST(comes)
{
	const struct device_desc *d = &at(0)->desc;
	json_object *list;

	ck_assert(device_is_empty(at(0)) && device_is_empty(at(1)));
	ck_assert_uint_eq(d->pci.number, BOARD_PORT_NUMBER(0, PLACES));
	ck_assert_int_eq(add(0, NULL), 0);
	ck_assert(plug_is_adding(&vm) && !strcmp(plug_present(&vm), "disk1"));
	ck_assert(is_locked(0));
	ck_assert_uint_eq(sent(helper(0), MSG_START), 1);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_PLUG), 0); /* first there must be somebody */
	says(helper(0), MSG_READY, NULL, 0);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_PLUG), 1);
	ck_assert_uint_eq(fake_of(&vm.vmm)->nfds, d->nslots);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_DEV_UP), 0);
	ck_assert_uint_eq(answer.n, 0);
	vmm_says(MSG_PLUGGED, 0, 0);
	answered(1, 0, NULL);
	ck_assert(!plug_is_adding(&vm));
	ck_assert(plug_is_there(&vm.plug[0]));
	ck_assert_uint_eq(plug_due(&vm), 0);
	ck_assert_int_eq(d->version, DEVICE_VERSION_PCI);
	ck_assert_uint_eq(d->index, FIRST);
	ck_assert_uint_eq(d->pci.number, BOARD_PORT_NUMBER(0, PLACES));
	ck_assert_uint_eq(d->pci.bar_at[4], 0);
	ck_assert_str_eq(d->name, "disk1");
	ck_assert_str_eq(vm.plug[0].back.disk.start.serial, "disk1");
	list = plug_list(&vm);
	ck_assert_str_eq(
		j_text(list),
		"{\"devices\":[{\"device\":\"rng\",\"kind\":\"rng\",\"place\":\"mmio\","
		"\"removable\":false,\"state\":\"ok\",\"restarts\":0},{\"device\":\"disk1\","
		"\"kind\":\"disk\",\"place\":\"01:00.0\",\"removable\":true,\"slot\":1,"
		"\"state\":\"ok\",\"restarts\":0}],\"slots\":2,\"free\":1}");
	json_object_put(list);
	/* Another one, and no third. */
	add_all(1, NULL);
	ck_assert_str_eq(at(1)->desc.name, "disk2");
	ck_assert_int_eq(add(1, NULL), -ENOSPC);
	ck_assert_str_eq(e.text, "hotplug: 2; all slots are in use, by disk1, disk2; expected a "
				 "free one");
	ck_assert(!vm.ended);
}
END_TEST

static void refused(int rc, int want, const char *words)
{
	ck_assert_int_eq(rc, want);
	ck_assert_msg(strstr(e.text, words) != NULL, "%s", e.text);
	ck_assert_ptr_null(strchr(e.text, '\n'));
	ck_assert_uint_eq(answer.n, 0);
	for (unsigned i = 0; i < vm.nplugs; i++)
		is_free(i);
	ck_assert_uint_eq(plug_due(&vm), 0);
}

START_TEST(refusals)
{
	refused(add(0, ""), -EINVAL, "device: ''; expected 1 to 15 letters");
	refused(add(0, "sixteen-letters."), -EINVAL, "device: 'sixteen-letters.'");
	refused(add(0, "a b"), -EINVAL, "device: 'a b'");
	refused(add(0, "-a"), -EINVAL, "device: '-a'");
	refused(add(0, "rng"), -EEXIST, "device: 'rng'; expected a name that no other device");
	refused(add(0, "slot2"), -EEXIST, "device: 'slot2'");
	refused(add_json("{}", NULL), -EINVAL, "expected one of disk, net, share, device, vfio");
	refused(add_json("{\"disk\": \"/x\", \"net\": \"user\"}", NULL), -EINVAL,
		"expected one of");
	refused(add_json("{\"disks\": [\"/x\"]}", NULL), -EINVAL,
		"a device: 'disks'; expected one of");
	refused(add_json("[]", NULL), -EINVAL, "expected one of");
	refused(add_json("{\"rng\": \"on\"}", NULL), -EINVAL, "'rng'; expected one of");
	refused(add_json("{\"vsock\": \"/nowhere/at/all\"}", NULL), -ENOENT, "/nowhere/at");
	refused(add_json("{\"console\": \"file=/nowhere/at/all\"}", NULL), -ENOENT,
		"/nowhere/at/all");
	refused(add_json("{\"console\": \"stderr\"}", NULL), -EINVAL,
		"console; expected pty or file=FILE");
	refused(add_json("{\"vfio\": \"ffff:ff:1f.7\"}", NULL), -EINVAL,
		"vfio ffff:ff:1f.7: there is no such PCI function");
	conf.balloon.on = true;
	refused(add_json("{\"vfio\": \"ffff:ff:1f.7\"}", NULL), -EINVAL,
		"vfio ffff:ff:1f.7: this VM has a balloon; expected one without");
	conf.balloon.on = false;
	conf.mem_max = conf.mem * 2;
	refused(add_json("{\"vfio\": \"ffff:ff:1f.7\"}", NULL), -EINVAL,
		"this VM may get more memory (max of mem); expected one that may not");
	conf.mem_max = 0;
	refused(add_json("{\"disk\": {\"pth\": \"/x\"}}", NULL), -EINVAL, "unknown key 'pth'");
	refused(add_json("{\"disk\": {}}", NULL), -EINVAL, "disk: '");
	refused(add_json("{\"disk\": 3}", NULL), -EINVAL, "disk: wrong type");
	refused(add_json("{\"disk\": \"/dev/no,bus=mmio\"}", NULL), -EINVAL,
		"disk.bus: 'mmio'; expected pci");
	refused(add_json("{\"disk\": \"/nowhere/at/all\"}", NULL), -ENOENT,
		"disk /nowhere/at/all: No such file");
	refused(add_json("{\"disk\": \"/tmp\"}", NULL), -EISDIR, "disk /tmp");
	refused(add_json("{\"net\": \"tap=nosuchtap0\"}", NULL), -ENODEV, "tap nosuchtap0");
	refused(add_json("{\"net\": \"tap=t,ip=10.0.0.2/24\"}", NULL), -EINVAL,
		"net.ip: '10.0.0.2/24'; expected none");
	refused(add_json("{\"net\": \"fd=3\"}", NULL), -EINVAL, "net.fd; expected tap=NAME");
	refused(add_json("{\"share\": \"/tmp:/x,packed\"}", NULL), -EINVAL,
		"share: 'packed'; expected a live one");
	refused(add_json("{\"share\": \"/nowhere/at/all:/x\"}", NULL), -ENOENT, "/nowhere/at/all");
	refused(add_json("{\"device\": \"vhost-user,type=blk,socket=/nowhere/s\"}", NULL), -ENOENT,
		"socket /nowhere/s");
	refused(take_away("disk1", false), -ENXIO, "device: 'disk1'; expected one that");
	refused(take_away("slot1", false), -ENXIO, "device: 'slot1'");
	refused(take_away("rng", true), -EINVAL,
		"'rng' is there from the start; expected one that was added");
	vm.running = false;
	refused(add(0, NULL), -EBUSY, "the guest does not run");
	vm.running = true;
	vm.ended = true;
	refused(add(0, NULL), -EBUSY, "the guest does not run");
	vm.ended = false;
	ck_assert(!vm.ended);
}
END_TEST

/* Its end is a terminal of the host, which the list names, and which goes with it. */
START_TEST(a_console)
{
	json_object *list;
	const char *tty;
	char text[128], name[64];
	int fd;

	ck_assert_msg(add_json("{\"console\": \"pty\"}", NULL) == 0, "%s", e.text);
	ck_assert_ptr_eq(at(0)->class, &device_vcon);
	says(helper(0), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, 0, 0);
	answered(1, 0, NULL);
	list = plug_json(&vm, 0);
	ck_assert_str_eq(j_get_str(list, "device", ""), "console1");
	ck_assert_str_eq(j_get_str(list, "kind", ""), "console");
	tty = j_get_str(list, "tty", "");
	snprintf(name, sizeof(name), "%s", tty);
	json_object_put(list);
	fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s", name);
	ck_assert_int_eq(isatty(fd), 1);
	ck_assert_int_eq(write(fd, "x", 1), 1);
	ck_assert_int_eq(read(vm.plug[0].back.terminal.in, text, 1), 1);
	/* A second one beside it is a file, which a console of the start could be, too. */
	snprintf(text, sizeof(text), "{\"console\": \"file=%s\"}", disk[1]);
	ck_assert_int_eq(add_json(text, "log"), 1);
	ck_assert_uint_eq(vm.plug[1].back.terminal.limit, CONSOLE_LIMIT);
	says(helper(1), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, 1, 0);
	list = plug_json(&vm, 1);
	ck_assert_str_eq(j_get_str(list, "tty", "none"), "none");
	json_object_put(list);
	ck_assert_int_eq(take_away("console1", false), 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	is_free(0);
	ck_assert_int_le((int)read(fd, text, 1), 0); /* it hangs up */
	close(fd);
}
END_TEST

/* One, and no second. */
START_TEST(a_vsock_device)
{
	char dir[] = "/tmp/test_plug.XXXXXX", text[128], path[64];

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/v", dir);
	snprintf(text, sizeof(text), "{\"vsock\": \"%s,cid=9\"}", path);
	ck_assert_msg(add_json(text, NULL) == 0, "%s", e.text);
	ck_assert_ptr_eq(vm_vsock(&vm), at(0));
	ck_assert_uint_eq(vm.plug[0].back.vsock.cid, 9);
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(add_json(text, NULL), -EEXIST); /* it is only coming */
	ck_assert_msg(strstr(e.text, "vsock: this VM has vsock1; expected one without"), "%s",
		      e.text);
	says(helper(0), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, 0, 0);
	answered(1, 0, NULL);
	is_free(1);
	ck_assert_int_eq(take_away("vsock1", true), 0);
	unplug_was_sent(0, true);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	is_free(0);
	ck_assert_ptr_null(vm_vsock(&vm));
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(without_places)
{
	teardown();
	make_disk(disk[0]);
	begin(0);
	refused(add(0, NULL), -EOPNOTSUPP, "hotplug: 0, this VM has no slots");
	ck_assert_ptr_null(plug_present(&vm));
}
END_TEST

START_TEST(disks_that_are_held)
{
	int other = open(disk[1], O_RDWR | O_CLOEXEC);
	char text[128];

	ck_assert_int_eq(flock(other, LOCK_EX | LOCK_NB), 0);
	refused(add(1, NULL), -EBUSY, "locked by another VM");
	close(other);
	add_all(0, "mine");
	ck_assert_int_eq(add(0, NULL), -EBUSY);
	ck_assert_msg(strstr(e.text, ": this VM has it as mine; expected one that is free"), "%s",
		      e.text);
	is_free(1);
	ck_assert_int_eq(add(1, "mine"), -EEXIST);
	is_free(1);
	/* One that is only read may be read twice. */
	snprintf(text, sizeof(text), "{\"disk\": {\"path\": \"%s\", \"ro\": true}}", disk[1]);
	ck_assert_int_eq(add_json(text, "one"), 1);
	says(helper(1), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, 1, 0);
	ck_assert(plug_is_there(&vm.plug[1]));
}
END_TEST

/* ---- an add that fails ---- */

START_TEST(helper_dies_while_it_starts)
{
	ck_assert_int_eq(add(0, NULL), 0);
	child_died(helper(0));
	answered(1, -EIO, "disk1: insula-blk exited with status 1 before it was ready");
	is_free(0);
	ck_assert(!is_locked(0));
	ck_assert_uint_eq(sent(&vm.vmm, MSG_PLUG), 0);
	ck_assert(!vm.ended);
	add_all(0, NULL);
	answered(2, 0, NULL);
}
END_TEST

START_TEST(helper_says_why)
{
	struct msg_failed f = {.step = "backing", .code = -EIO, .text = "no luck"};

	ck_assert_int_eq(add(0, NULL), 0);
	says(helper(0), MSG_FAILED, &f, sizeof(f));
	ck_assert_uint_eq(answer.n, 0);
	child_died(helper(0));
	answered(1, -EIO, "disk1: backing: no luck");
	is_free(0);
	ck_assert_int_eq(add(0, NULL), 0);
	f.bad_input = 1;
	says(helper(0), MSG_FAILED, &f, sizeof(f));
	child_died(helper(0));
	answered(2, -EINVAL, "disk1: no luck");
	fake_of(helper(0))->unfit = true;
	ck_assert_int_eq(add(0, NULL), 0);
	says(helper(0), MSG_READY, NULL, 0);
	ck_assert(fake_of(helper(0))->shot);
	child_died(helper(0));
	answered(3, -EIO, "not in its jail");
	is_free(0);
	ck_assert(!vm.ended);
}
END_TEST

START_TEST(helper_is_not_ready)
{
	ck_assert_int_eq(add(0, NULL), 0);
	overdue(0);
	ck_assert(fake_of(helper(0))->shot);
	ck_assert_uint_eq(answer.n, 0);
	child_died(helper(0));
	answered(1, -ETIMEDOUT, "insula-blk was not ready in time");
	is_free(0);
}
END_TEST

START_TEST(helper_dies_before_the_guest_has_it)
{
	ck_assert_int_eq(add(0, NULL), 0);
	says(helper(0), MSG_READY, NULL, 0);
	child_died(helper(0));
	unplug_was_sent(0, true);
	vmm_says(MSG_PLUGGED, 0, 0); /* it had been on its way */
	ck_assert_uint_eq(answer.n, 0);
	ck_assert(plug_is_adding(&vm));
	vmm_says(MSG_UNPLUGGED, 0, 0);
	answered(1, -EIO, "before the guest had it");
	is_free(0);
	ck_assert(!is_locked(0));
	vm_restart_due(&vm);
	ck_assert_uint_eq(fake_of(helper(0))->spawned, 1);
}
END_TEST

START_TEST(vmm_refuses)
{
	ck_assert_int_eq(add(0, NULL), 0);
	says(helper(0), MSG_READY, NULL, 0);
	vmm_says(MSG_PLUGGED, 0, -EBUSY);
	ck_assert_uint_eq(answer.n, 0);
	helper_stops(0);
	answered(1, -EIO, "disk1: insula-vmm: no room");
	is_free(0);
	ck_assert(!is_locked(0) && !vm.ended);
}
END_TEST

START_TEST(vmm_does_not_answer)
{
	ck_assert_int_eq(add(0, NULL), 0);
	says(helper(0), MSG_READY, NULL, 0);
	overdue(0);
	unplug_was_sent(0, true);
	overdue(0);
	answered(1, -ETIMEDOUT, "insula-vmm did not answer in time");
	/* The place is lost, but nothing else. */
	ck_assert_uint_eq(plug_due(&vm), 0);
	ck_assert_int_eq(add(1, NULL), 1);
	ck_assert_int_eq(take_away("disk1", false), -EBUSY);
	/* Until it answers after all. */
	vmm_says(MSG_PLUGGED, 0, 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	is_free(0);
	ck_assert_uint_eq(answer.n, 1);
	ck_assert(!vm.ended);
}
END_TEST

START_TEST(vm_ends_meanwhile)
{
	ck_assert_int_eq(add(0, NULL), 0);
	if (_i)
		says(helper(0), MSG_READY, NULL, 0);
	vm_end(&vm, 0, "%s", "");
	plug_overdue(&vm);
	child_died(helper(0));
	ck_assert_uint_eq(answer.n, 0); /* whoever asked hears that the VM has ended */
	ck_assert(!device_is_empty(at(0)));
}
END_TEST

/* ---- a removal ---- */

START_TEST(goes)
{
	uint32_t magic = 0;

	add_all(0, NULL);
	ck_assert_int_eq(take_away("disk1", false), 0);
	unplug_was_sent(0, false);
	ck_assert_int_eq(take_away("disk1", false), -EBUSY);
	ck_assert_uint_eq(answer.n, 1);
	ck_assert_ptr_nonnull(plug_present(&vm));
	vmm_says(MSG_UNPLUGGED, 0, 0);
	ck_assert_uint_eq(answer.n, 1);
	vmm_says(MSG_UNPLUGGED, 0, 0); /* an echo */
	ck_assert(is_locked(0));
	helper_stops(0);
	answered(2, 0, NULL);
	is_free(0);
	ck_assert(!is_locked(0));
	ck_assert_ptr_null(plug_present(&vm));
	/* What the last one had there is gone when the next one comes. */
	ck_assert_int_eq(pwrite(at(0)->slot[0], "xxxx", 4, DP_STATE_OFF + 77), 4);
	ck_assert_int_eq(pwrite(at(0)->slot[0], "xxxx", 4, DP_CTRL_OFF), 4);
	add_all(0, NULL);
	ck_assert_int_eq(pread(at(0)->slot[0], &magic, 4, DP_STATE_OFF + 77), 4);
	ck_assert_uint_eq(magic, 0);
	ck_assert_int_eq(pread(at(0)->slot[0], &magic, 4, DP_CTRL_OFF), 4);
	ck_assert_uint_eq(magic, DP_MAGIC);
	ck_assert_uint_eq(at(0)->restart.total, 0);
}
END_TEST

START_TEST(guest_keeps_it)
{
	add_all(0, NULL);
	ck_assert_int_eq(take_away("disk1", false), 0);
	overdue(0);
	answered(2, -ETIMEDOUT, "disk1: the guest did not give it up in time, and keeps it");
	ck_assert(plug_is_there(&vm.plug[0]) && is_locked(0));
	ck_assert_uint_eq(plug_due(&vm), 0);
	if (_i) { /* and gives it up after all */
		vmm_says(MSG_UNPLUGGED, 0, 0);
		helper_stops(0);
		ck_assert_uint_eq(answer.n, 2);
	} else { /* once more, in vain, and then by force */
		ck_assert_int_eq(take_away("disk1", false), 0);
		ck_assert_int_eq(take_away("disk1", true), 0);
		unplug_was_sent(0, true);
		answered(3, -EBUSY, "disk1: another request takes it away at once");
		ck_assert_int_eq(take_away("disk1", true), -EBUSY);
		vmm_says(MSG_UNPLUGGED, 0, 0);
		helper_stops(0);
		answered(4, 0, NULL);
	}
	is_free(0);
	ck_assert(!is_locked(0));
}
END_TEST

START_TEST(vmm_does_not_let_it_go)
{
	add_all(0, NULL);
	ck_assert_int_eq(take_away("disk1", true), 0);
	if (_i) {
		vmm_says(MSG_UNPLUGGED, 0, -EIO);
		answered(2, -EIO, "disk1: insula-vmm: no room");
		ck_assert_int_eq(vm.plug[0].state, PLUG_THERE);
		return;
	}
	overdue(0);
	answered(2, -ETIMEDOUT, "insula-vmm does not answer");
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	is_free(0);
}
END_TEST

START_TEST(helper_does_not_stop)
{
	add_all(0, NULL);
	ck_assert_int_eq(take_away("disk1", true), 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	ck_assert(!fake_of(helper(0))->shot);
	overdue(0);
	ck_assert(fake_of(helper(0))->shot);
	ck_assert_uint_eq(answer.n, 1);
	child_died(helper(0));
	answered(2, 0, NULL);
	is_free(0);
}
END_TEST

/* What a dead helper had under way in the kernel keeps a lock: disk.h. */
START_TEST(not_before_it_is_quiet)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	int late = open(disk[0], O_RDWR | O_CLOEXEC);

	add_all(0, NULL);
	l.l_start = vm.plug[0].back.disk.lock_byte;
	ck_assert_int_eq(fcntl(late, F_OFD_SETLK, &l), 0);
	ck_assert_int_eq(take_away("disk1", true), 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	ck_assert_int_eq(vm.plug[0].state, PLUG_QUIETS);
	ck_assert_uint_eq(answer.n, 1);
	overdue(0);
	ck_assert(is_locked(0));
	ck_assert_int_eq(add(0, "other"), -EBUSY);
	close(late);
	overdue(0);
	answered(2, 0, NULL);
	is_free(0);
	ck_assert(!is_locked(0));
}
END_TEST

/* ---- deaths ---- */

START_TEST(helper_is_replaced)
{
	add_all(0, NULL);
	if (_i)
		ck_assert_int_eq(take_away("disk1", false), 0);
	child_died(helper(0));
	ck_assert_uint_eq(at(0)->restart.total, 1);
	vm_restart_due(&vm);
	ck_assert_uint_eq(fake_of(helper(0))->spawned, 2);
	says(helper(0), MSG_READY, NULL, 0);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_DEV_UP), 1);
	ck_assert_uint_eq(sent(&vm.vmm, MSG_PLUG), 1);
	ck_assert_uint_eq(answer.n, 1);
	if (!_i)
		ck_assert_int_eq(take_away("disk1", false), 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	helper_stops(0);
	answered(2, 0, NULL);
	is_free(0);
}
END_TEST

START_TEST(goes_without_a_helper)
{
	add_all(0, NULL);
	child_died(helper(0));
	if (_i) {
		vm_restart_due(&vm); /* one is starting */
		ck_assert_int_eq(helper(0)->state, CHILD_STARTING);
	}
	ck_assert_int_eq(take_away("disk1", false), 0);
	vmm_says(MSG_UNPLUGGED, 0, 0);
	if (_i) {
		ck_assert(fake_of(helper(0))->shot);
		child_died(helper(0));
	}
	answered(2, 0, NULL);
	is_free(0);
	vm_restart_due(&vm);
	ck_assert_uint_eq(vm_restart_next(&vm), 0);
	ck_assert(!is_locked(0));
}
END_TEST

START_TEST(vmm_speaks_of_nothing)
{
	vmm_says(_i ? MSG_UNPLUGGED : MSG_PLUGGED, 0, 0); /* a place, with nothing in it */
	ck_assert(!fake_of(&vm.vmm)->shot);
	is_free(0);
	vmm_says(_i ? MSG_UNPLUGGED : MSG_PLUGGED, PLACES, 0);
	ck_assert(fake_of(&vm.vmm)->shot);
}
END_TEST

START_TEST(restarted_by_hand)
{
	ck_assert_int_eq(vm_device_restart(&vm, "slot1", &e), -ENOENT);
	ck_assert_int_eq(add(0, NULL), 0);
	ck_assert_int_eq(vm_device_restart(&vm, "disk1", &e), -EBUSY);
	says(helper(0), MSG_READY, NULL, 0);
	ck_assert_int_eq(vm_device_restart(&vm, "disk1", &e), -EBUSY);
	vmm_says(MSG_PLUGGED, 0, 0);
	ck_assert_int_eq(vm_device_restart(&vm, "disk1", &e), 0);
	ck_assert(fake_of(helper(0))->shot);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plug");
	TCase *tc = tcase_create("plug");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, comes);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, a_console);
	tcase_add_test(tc, a_vsock_device);
	tcase_add_test(tc, without_places);
	tcase_add_test(tc, disks_that_are_held);
	tcase_add_test(tc, helper_dies_while_it_starts);
	tcase_add_test(tc, helper_says_why);
	tcase_add_test(tc, helper_is_not_ready);
	tcase_add_test(tc, helper_dies_before_the_guest_has_it);
	tcase_add_test(tc, vmm_refuses);
	tcase_add_test(tc, vmm_does_not_answer);
	tcase_add_loop_test(tc, vm_ends_meanwhile, 0, 2);
	tcase_add_test(tc, goes);
	tcase_add_loop_test(tc, guest_keeps_it, 0, 2);
	tcase_add_loop_test(tc, vmm_does_not_let_it_go, 0, 2);
	tcase_add_test(tc, helper_does_not_stop);
	tcase_add_test(tc, not_before_it_is_quiet);
	tcase_add_loop_test(tc, helper_is_replaced, 0, 2);
	tcase_add_loop_test(tc, goes_without_a_helper, 0, 2);
	tcase_add_loop_test(tc, vmm_speaks_of_nothing, 0, 2);
	tcase_add_test(tc, restarted_by_hand);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
