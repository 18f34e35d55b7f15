/* SPDX-License-Identifier: BSD-2-Clause */
/* --vfio: a function that is used by its node and iommufd. The kernel is a double here: files, and
 * ioctl() in the place of the C library's. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "devices/vfio/vfio_uapi.h"
#include "supervisor/backing/vfio.h"

static struct err e;
static char sys[64];

/* `command` has the directory in it. */
static void make(const char *command)
{
	char whole[256];
	const char *at = strstr(command, "%s");

	snprintf(whole, sizeof(whole), "%.*s%s%s", (int)(at - command), command, sys, at + 2);
	ck_assert_int_eq(system(whole), 0);
}

static void setup(void)
{
	log_setup("test_vfionode", LOG_LVL_ERROR);
	strcpy(sys, "/tmp/insula-test-node-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(sys));
}

static void teardown(void)
{
	make("rm -rf %s");
}

/* A function's own node: not that of a kernel without nodes, which has the folder. */
START_TEST(has_a_node)
{
	struct vfio_node n;

	ck_assert(!vfio_node(sys, "0000:01:00.0", &n));
	make("mkdir -p %s/bus/pci/devices/0000:01:00.0/vfio-dev/vfio12");
	ck_assert(!vfio_node(sys, "0000:01:00.0", &n));
	make("echo 510:12 >%s/bus/pci/devices/0000:01:00.0/vfio-dev/vfio12/dev");
	ck_assert(vfio_node(sys, "0000:01:00.0", &n));
	ck_assert_str_eq(n.path, "/dev/vfio/devices/vfio12");
	ck_assert_str_eq(n.device, "510:12");
	ck_assert(!vfio_node(sys, "0000:01:00.1", &n));
	ck_assert_str_eq(n.path, "");
}
END_TEST

/* A node, a file as well: what it was bound and attached to, and the error of that; 0: none. */
static int node = -1, bound_to, bind_error;
static uint32_t attached_to;

static int node_ioctl(unsigned long request, void *arg)
{
	if (request == VFIO_NODE_BIND && !bind_error) {
		ck_assert_uint_eq(((struct vfio_node_bind *)arg)->argsz, 16);
		bound_to = ((struct vfio_node_bind *)arg)->iommufd;
		return 0;
	}
	if (request == VFIO_NODE_ATTACH && bound_to >= 0) {
		ck_assert_uint_eq(((struct vfio_node_attach *)arg)->argsz, 12);
		attached_to = ((struct vfio_node_attach *)arg)->ioas;
		return 0;
	}
	errno = request == VFIO_NODE_BIND ? bind_error : EINVAL;
	return -1;
}

/* What an iommufd says to the end of the address space 77; 0: it ends. */
#define IOMMUFD 1234
static int destroy_error;

static int iommufd_ioctl(unsigned long request, const void *arg)
{
	const struct iofd_destroy *end = arg;

	ck_assert_uint_eq(request, IOFD_DESTROY);
	ck_assert_uint_eq(end->size, 8);
	ck_assert_uint_eq(end->object, 77);
	errno = destroy_error;
	return destroy_error ? -1 : 0;
}

/* The group of the function can be opened, or not. */
#define GROUP "/dev/vfio/700007"
static int group_error;

int open(const char *path, int flags, ...)
{
	if (strcmp(path, GROUP) != 0)
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
	errno = group_error;
	return group_error ? -1 : (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", flags, 0);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd == IOMMUFD)
		return iommufd_ioctl(request, arg);
	return fd == node && node >= 0 ? node_ioctl(request, arg)
				       : (int)syscall(SYS_ioctl, fd, request, arg);
}

/* The second function of a VM, whose descriptor was handed in. */
static int open_node(int error)
{
	static struct vfio_config conf;
	static int iommufd = IOMMUFD;
	struct vfio_back all[2] = {{.ioas = 77, .by_node = true},
				   {.conf = &conf,
				    .device = -1,
				    .container = &iommufd,
				    .groupno = 700007,
				    .by_node = true,
				    .node = {.path = "NODE"}}};

	conf = (struct vfio_config){.address = "0000:01:00.0", .fd = node};
	bound_to = -1;
	attached_to = 0;
	bind_error = error;
	e.text[0] = 0;
	return vfio_open_node(&all[1], all, &e);
}

START_TEST(node_is_bound)
{
	char lock[64];
	int other;

	node = memfd_create("node", MFD_CLOEXEC);
	ck_assert_int_ge(node, 0);
	ck_assert_msg(open_node(0) == 0, "%s", e.text);
	ck_assert_int_eq(bound_to, 1234);
	ck_assert_uint_eq(attached_to, 77);
	/* Of the host's, or bound before. */
	ck_assert_int_eq(open_node(EINVAL), -EBUSY);
	ck_assert_int_eq(open_node(EBUSY), -EBUSY);
	ck_assert_ptr_nonnull(strstr(e.text, "--vfio 0000:01:00.0: NODE: another VM or program has "
					     "it, or a VM before had this descriptor"));
	/* Who has it is known from the lock, before anything is bound. */
	ck_assert_int_eq(flock(node, LOCK_UN), 0);
	snprintf(lock, sizeof(lock), "/proc/self/fd/%d", node);
	other = open(lock, O_RDWR | O_CLOEXEC);
	ck_assert(other >= 0 && !flock(other, LOCK_EX | LOCK_NB));
	ck_assert_int_eq(open_node(0), -EBUSY);
	ck_assert_int_eq(bound_to, -1);
	close(other);
	ck_assert_msg(open_node(0) == 0, "%s", e.text);
	close(node);
	node = -1;
}
END_TEST

/* One error of the kernel for two things: somebody has another function of the group, which nobody
 * can open then; or interrupts could be forged. */
START_TEST(group_is_in_use)
{
	node = memfd_create("node", MFD_CLOEXEC);
	ck_assert_int_ge(node, 0);
	group_error = EBUSY;
	ck_assert_int_eq(open_node(EPERM), -EBUSY);
	ck_assert_str_eq(e.text,
			 "--vfio 0000:01:00.0: in use: another VM or program has a function "
			 "of its IOMMU group 700007");
	group_error = 0;
	ck_assert_int_eq(open_node(EPERM), -EPERM);
	ck_assert_ptr_nonnull(strstr(e.text, "--vfio 0000:01:00.0: the IOMMU does not remap "));
	ck_assert_uint_eq(attached_to, 0);
	group_error = ENOENT; /* a kernel without groups */
	ck_assert_int_eq(open_node(EPERM), -EPERM);
	ck_assert_ptr_nonnull(strstr(e.text, "another program has its group by a node, or the "
					     "IOMMU does not remap"));
	close(node);
	node = -1;
}
END_TEST

/* Another process that has a device open: here a terminal of its own. */
START_TEST(who_has_it)
{
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), ready[2];
	char who[VFIO_WHO], want[VFIO_WHO], device[32], c;
	struct stat st;
	pid_t pid;

	ck_assert(terminal >= 0 && !grantpt(terminal) && !unlockpt(terminal) && !pipe(ready));
	ck_assert_int_eq(stat(ptsname(terminal), &st), 0);
	snprintf(device, sizeof(device), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	vfio_who(device, who);
	ck_assert_str_eq(who, "");
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int fd = open(ptsname(terminal), O_RDWR | O_NOCTTY);

		prctl(PR_SET_NAME, "somebody");
		_exit(fd < 0 || write(ready[1], "", 1) != 1 || pause());
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	vfio_who(device, who);
	snprintf(want, sizeof(want), " (process %d, somebody)", (int)pid);
	ck_assert_str_eq(who, want);
	vfio_who("", who);
	ck_assert_str_eq(who, "");
	ck_assert(!kill(pid, SIGKILL) && waitpid(pid, NULL, 0) == pid);
	vfio_who(device, who);
	ck_assert_str_eq(who, "");
	close(ready[0]);
	close(ready[1]);
	close(terminal);
}
END_TEST

/* The kernel is done with the device when its address space can be destroyed. The lock of the node
 * does not count: it is gone before. */
START_TEST(node_is_let_go)
{
	int iommufd = IOMMUFD;
	struct vfio_back b = {.by_node = true, .container = &iommufd, .ioas = 77};

	destroy_error = EBUSY;
	ck_assert(!vfio_node_is_let_go(&b));
	destroy_error = 0;
	ck_assert(vfio_node_is_let_go(&b));
	destroy_error = ENOENT;
	ck_assert(vfio_node_is_let_go(&b));
}
END_TEST

/* How the functions of a VM are used, as `way`: what each of the two says, without a descriptor. */
static int way(enum vfio_by first, enum vfio_by second, int fd, enum vfio_by *by)
{
	const struct vfio_config two[2] = {{.address = "0000:01:00.0", .fd = fd, .by = first},
					   {.address = "0000:02:00.0", .fd = -1, .by = second}};

	e.text[0] = 0;
	return vfio_way(sys, two, 2, by, &e);
}

/* All functions of a VM are used by the same interface; whoever says nothing follows, also one that
 * is first. */
START_TEST(same_for_all)
{
	enum vfio_by by;

	ck_assert_int_eq(way(VFIO_BY_NODE, VFIO_BY_GROUP, -1, &by), -EINVAL);
	ck_assert_str_eq(e.text,
			 "--vfio 0000:02:00.0: it would be used by its group, and "
			 "0000:01:00.0 by its node; expected the same of all functions of a "
			 "VM: by=node or by=group");
	ck_assert_int_eq(way(VFIO_BY_GROUP, VFIO_BY_NODE, -1, &by), -EINVAL);
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_NODE, -1, &by), 0);
	ck_assert_int_eq(by, VFIO_BY_NODE);
	ck_assert_int_eq(way(VFIO_BY_GROUP, VFIO_BY_ANY, -1, &by), 0);
	ck_assert_int_eq(by, VFIO_BY_GROUP);
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_ANY, -1, &by), 0);
	ck_assert_int_eq(by, VFIO_BY_ANY);
}
END_TEST

/* A descriptor says it by what it is. */
START_TEST(same_as_handed_in)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	enum vfio_by by;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_ANY, fd, &by), 0);
	ck_assert_int_eq(by, VFIO_BY_GROUP);
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_NODE, fd, &by), -EINVAL);
	make("mkdir -p %s/bus/pci/devices/0000:01:00.0/vfio-dev/vfio12");
	make("echo 1:3 >%s/bus/pci/devices/0000:01:00.0/vfio-dev/vfio12/dev");
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_NODE, fd, &by), 0);
	ck_assert_int_eq(by, VFIO_BY_NODE);
	ck_assert_int_eq(way(VFIO_BY_ANY, VFIO_BY_GROUP, fd, &by), -EINVAL);
	close(fd);
}
END_TEST

START_TEST(chosen)
{
	static const struct vfio_config none = {.address = "ffff:1f:1f.7", .fd = -1};
	struct vfio_back all[2] = {{.conf = &none}, {.conf = &none, .by = VFIO_BY_NODE}};

	ck_assert_int_eq(vfio_choose(&all[1], all, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "the kernel makes no node /dev/vfio/devices/vfioN"));
	all[1].by = VFIO_BY_ANY;
	ck_assert_int_eq(vfio_choose(&all[1], all, &e), 0);
	ck_assert(!all[1].by_node);
	ck_assert_int_eq(vfio_choose(all, all, &e), 0);
	ck_assert(!all[0].by_node); /* there is none */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfionode");
	TCase *tc = tcase_create("vfionode");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, has_a_node);
	tcase_add_test(tc, node_is_bound);
	tcase_add_test(tc, group_is_in_use);
	tcase_add_test(tc, who_has_it);
	tcase_add_test(tc, node_is_let_go);
	tcase_add_test(tc, same_for_all);
	tcase_add_test(tc, same_as_handed_in);
	tcase_add_test(tc, chosen);
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
