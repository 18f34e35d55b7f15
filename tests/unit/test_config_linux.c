/* SPDX-License-Identifier: BSD-2-Clause */
/* Disks of Linux with their two locks, the paths of what belongs to Insula, and the memory that a
 * kernel needs. */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "supervisor/backing/boot.h"
#include "spec/config.h"
#include "supervisor/backing/disk.h"
#include "supervisor/backing/paths.h"

static struct err e;
static char dir[64];

static struct disk d, d2;
static char path[128];

static void make_dir(void)
{
	memset(&e, 0, sizeof(e));
	strcpy(dir, "/tmp/insula-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	d.fd = d2.fd = -1;
	snprintf(path, sizeof(path), "%s/disk", dir);
}

static void remove_dir(void)
{
	disk_close(&d);
	disk_close(&d2);
	unlink(path);
	rmdir(path);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void make_image(off_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static struct disk_config writable = {.path = path}, read_only = {.path = path, .ro = true};

static void open_refused(const struct disk_config *conf, int code, const char *part)
{
	ck_assert_int_eq(disk_open(&d, conf, false, &e), code);
	ck_assert_int_eq(d.fd, -1);
	ck_assert_msg(!strncmp(e.text, "disk /tmp/", 10) && strstr(e.text, part), "'%s' lacks '%s'",
		      e.text, part);
}

/* max_sectors_kb of the device that a file lies on, asked in another way; 0: it has none. */
static uint32_t device_max_kb(int fd)
{
	char cmd[200];
	struct stat st;
	unsigned kb = 0;
	FILE *f;

	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(cmd, sizeof(cmd),
		 "cd $(readlink -f /sys/dev/block/%u:%u) 2>/dev/null &&"
		 "cat queue/max_sectors_kb 2>/dev/null || cat ../queue/max_sectors_kb 2>/dev/null",
		 major(st.st_dev), minor(st.st_dev));
	f = popen(cmd, "r");
	if (fscanf(f, "%u", &kb) != 1)
		kb = 0;
	pclose(f);
	return kb;
}

START_TEST(disk_good)
{
	struct disk_config conf = {.path = path, .serial = "12345678901234567890"};

	make_image(3 * 512);
	ck_assert_int_eq(disk_open(&d, &conf, false, &e), 0);
	ck_assert_uint_eq(d.start.capacity, 3 * 512);
	ck_assert_uint_eq(d.start.logical, 512);
	ck_assert_uint_ge(d.start.physical, d.start.logical);
	ck_assert_uint_eq(d.start.flags, 0);
	ck_assert_uint_gt(d.start.discard_align, 0);
	ck_assert_uint_eq(d.start.max_io, 1024 * device_max_kb(d.fd));
	ck_assert_int_eq(memcmp(d.start.serial, conf.serial, 20), 0);
	ck_assert_int_eq(fcntl(d.fd, F_GETFD), FD_CLOEXEC);
	disk_close(&d);
	ck_assert_int_eq(disk_open(&d, &read_only, false, &e), 0);
	ck_assert_uint_eq(d.start.flags, BLK_RO);
	ck_assert_uint_eq(d.start.discard_align, 0);
	ck_assert_int_eq(fcntl(d.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
}
END_TEST

START_TEST(disk_bad_files)
{
	open_refused(&writable, -ENOENT, "No such file");
	make_image(0);
	open_refused(&writable, -EINVAL, "empty; expected at least 512 bytes");
	open_refused(&read_only, -EINVAL, "empty; expected at least 512 bytes");
	make_image(511);
	open_refused(&writable, -EINVAL, "511 bytes; expected a multiple of 512");
	make_image(1025);
	open_refused(&read_only, -EINVAL, "1025 bytes; expected a multiple of 512");
	unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	open_refused(&writable, -EISDIR, "Is a directory");
	open_refused(&read_only, -EINVAL, "neither a file nor a block device");
	rmdir(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0); /* nobody on its other side: must not hang */
	open_refused(&read_only, -EINVAL, "neither a file nor a block device");
	open_refused(&writable, -EINVAL, "neither a file nor a block device");
	unlink(path);
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	open_refused(&writable, -EINVAL, "neither a file nor a block device");
	unlink(path);
	ck_assert_int_eq(symlink(path, path), 0);
	open_refused(&writable, -ELOOP, "symbolic links");
}
END_TEST

START_TEST(disk_sharing)
{
	make_image(512);
	ck_assert_int_eq(disk_open(&d2, &writable, false, &e), 0);
	open_refused(&writable, -EBUSY, "locked by another VM");
	open_refused(&read_only, -EBUSY, "locked by another VM that writes to it");
	disk_close(&d2);
	ck_assert_int_eq(disk_open(&d2, &read_only, false, &e), 0);
	open_refused(&writable, -EBUSY, "locked by another VM");
	ck_assert_int_eq(disk_open(&d, &read_only, false, &e), 0); /* readers share */
	ck_assert_int_ne(d.lock_byte, d2.lock_byte);
	disk_close(&d);
	disk_close(&d2);
	ck_assert_int_eq(disk_open(&d, &writable, false, &e), 0); /* and nothing stays locked */
}
END_TEST

/* What the next helper gets; the second one gets the supervisor's descriptor as well. */
static int hand_out(bool again)
{
	struct msg_start_blk m = {0};
	int fds[DISK_FDS] = {-1, -1}, once[DISK_ONCE] = {-1, -1};
	unsigned n = 0;

	ck_assert_msg(disk_hand_out(&d, again, &m, fds, &n, once, &e) == 0, "%s", e.text);
	ck_assert_int_eq(once[0], fds[0]);
	ck_assert_int_eq(once[1], -1);
	ck_assert_uint_eq(n, again ? 2 : 1);
	ck_assert_uint_eq(m.flags, again ? BLK_OTHER : 0);
	ck_assert(m.engine == BLK_ENGINE_URING || m.engine == BLK_ENGINE_THREADS);
	if (again)
		ck_assert_int_eq(fds[1], d.fd);
	return fds[0];
}

/* The generation lock lives as long as any reference to the helper's descriptor, in whatever
 * process. */
static void generation(const struct disk_config *conf)
{
	int hold[2], fd, status;
	char byte;
	pid_t pid;

	make_image(4096);
	ck_assert_int_eq(disk_open(&d, conf, false, &e), 0);
	ck_assert_int_eq(disk_quiet(&d), 1);
	fd = hand_out(false);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, conf->ro ? O_RDONLY : O_RDWR);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(disk_quiet(&d), 0);
	ck_assert_int_eq(pipe(hold), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) { /* a helper that has it too */
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	fd_close(&fd);
	ck_assert_int_eq(disk_quiet(&d), 0);
	close(hold[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(disk_quiet(&d), 1);
	/* The next generation, and the one after a kill. */
	fd = hand_out(true);
	pid = fork();
	if (!pid) {
		pause();
		_exit(1);
	}
	fd_close(&fd);
	ck_assert_int_eq(disk_quiet(&d), 0);
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(disk_quiet(&d), 1);
}

START_TEST(generation_writable)
{
	generation(&writable);
}
END_TEST

START_TEST(generation_read_only)
{
	generation(&read_only);
}
END_TEST

/* Two VMs that read one image do not see each other's generations; the path may be given to another
 * file. */
START_TEST(generations_are_apart)
{
	struct stat a, b;
	int fd;

	make_image(512);
	ck_assert_int_eq(
		disk_open(&d, &read_only, false, &e) | disk_open(&d2, &read_only, false, &e), 0);
	ck_assert_int_eq(unlink(path), 0);
	make_image(1024);
	fd = hand_out(false);
	ck_assert_int_ge(fd, 0);
	ck_assert(!fstat(fd, &a) && !fstat(d.fd, &b) && a.st_ino == b.st_ino && a.st_size == 512);
	ck_assert_int_eq(disk_quiet(&d), 0);
	ck_assert_int_eq(disk_quiet(&d2), 1);
	fd_close(&fd);
}
END_TEST

/* ---- paths ---- */

START_TEST(path_lookup)
{
	struct paths p;
	char exe[PATH_MAX], found[PATH_MAX], boot[160], file[200];
	static const char *const names[] = {"vmlinuz-6.1.0-9", "vmlinuz-6.1.0-56",
					    "vmlinuz-5.10.0-99", "initrd.img-9.9"};
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	ck_assert_int_gt(n, 0);
	exe[n] = 0;
	ck_assert_int_eq(paths_find(&p, &e), 0);
	*strrchr(exe, '/') = 0;
	*strrchr(exe, '/') = 0;
	ck_assert(!strncmp(p.libexec, exe, strlen(exe)) &&
		  !strcmp(p.libexec + strlen(exe), "/libexec/insula"));
	ck_assert_ptr_nonnull(strstr(p.guest, "/guest"));
	ck_assert(p.cache[0] == '/');

	snprintf(p.guest, sizeof(p.guest), "%s", dir);
	snprintf(boot, sizeof(boot), "%s/boot", dir);
	ck_assert_int_eq(mkdir(boot, 0700), 0);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(file, sizeof(file), "%s/%s", boot, names[i]);
		close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
	ck_assert_int_eq(paths_default_kernel(&p, found, sizeof(found), &e), 0);
	snprintf(file, sizeof(file), "%s/vmlinuz-6.1.0-56", boot); /* by version, not by letters */
	ck_assert_str_eq(found, file);
	ck_assert_int_eq(paths_default_kernel(&p, found, 8, &e), -ENAMETOOLONG);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(file, sizeof(file), "%s/%s", boot, names[i]);
		unlink(file);
	}
	/* insula-get-kernel's for this user: after that of the build tree. */
	snprintf(file, sizeof(file), "%s/vmlinuz-6.1.0-56", boot);
	close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	snprintf(p.own, sizeof(p.own), "%s", dir);
	snprintf(p.guest, sizeof(p.guest), "%s/none", dir);
	ck_assert_int_eq(paths_default_kernel(&p, found, sizeof(found), &e), 0);
	ck_assert_str_eq(found, file);
	unlink(file);
	rmdir(boot);
	/* None unpacked: the system's, the host's own, or a line that says where was looked, and
	 * what fetches one. */
	if (paths_default_kernel(&p, found, sizeof(found), &e))
		ck_assert(strstr(e.text, "--kernel: not given") && strstr(e.text, dir) &&
			  strstr(e.text, "/boot/vmlinuz-") && strstr(e.text, "insula-get-kernel"));
	else
		ck_assert(!strncmp(found, PATHS_SYSTEM_KERNEL "/boot/vmlinuz-",
				   strlen(PATHS_SYSTEM_KERNEL) + 14) ||
			  !strncmp(found, "/boot/vmlinuz-", 14));
}
END_TEST

/* ---- memory ---- */

#define MIB (1ull << 20)

static int kernel_file(const void *head, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	ck_assert_int_eq(ftruncate(fd, 8192), 0);
	ck_assert_int_eq(pwrite(fd, head, len, 0), (ssize_t)len);
	return fd;
}

static int bzimage(uint16_t version, uint32_t init_size)
{
	uint8_t head[0x300] = {0};

	memcpy(head + 0x202, "HdrS", 4);
	memcpy(head + 0x206, &version, 2);
	memcpy(head + 0x260, &init_size, 4);
	return kernel_file(head, sizeof(head));
}

/* Of two segments, one of which is not loaded. */
static int elf(uint64_t paddr, uint64_t memsz, uint16_t phnum)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph[3];
	} x = {.eh = {.e_phoff = sizeof(Elf64_Ehdr),
		      .e_phentsize = sizeof(Elf64_Phdr),
		      .e_phnum = phnum},
	       .ph = {{.p_type = PT_LOAD, .p_paddr = 16 * MIB, .p_memsz = 4 * MIB},
		      {.p_type = PT_NOTE, .p_paddr = 0, .p_memsz = 4096 * MIB},
		      {.p_type = PT_LOAD, .p_paddr = paddr, .p_memsz = memsz}}};

	memcpy(x.eh.e_ident, ELFMAG, SELFMAG);
	return kernel_file(&x, sizeof(x));
}

static int enough(int kernel, uint64_t mib, unsigned cpus)
{
	int rc = boot_check_memory(kernel, mib * MIB, cpus, &e);

	close(kernel);
	return rc;
}

START_TEST(memory_for_a_kernel)
{
	ck_assert_int_eq(enough(bzimage(0x20f, 0x3378000), 64, 1), -EINVAL);
	ck_assert_str_eq(e.text, "--mem 64M is too small for this kernel; use at least 80M");
	ck_assert_int_eq(enough(bzimage(0x20f, 0x3378000), 72, 1), -EINVAL);
	ck_assert_int_eq(enough(bzimage(0x20f, 0x3378000), 76, 1), 0);
	ck_assert_int_eq(enough(bzimage(0x20f, 0x3378000), 80, 4), 0);
	ck_assert_int_eq(enough(bzimage(0x20f, 0x3378000), 80, 32), -EINVAL);
	ck_assert_int_eq(enough(elf(40 * MIB, 8 * MIB, 3), 40, 1), -EINVAL);
	ck_assert_int_eq(enough(elf(40 * MIB, 8 * MIB, 3), 48, 1), 0);
	ck_assert_int_eq(enough(elf(40 * MIB, 8 * MIB, 2), 16, 1), 0); /* 4 MiB */
}
END_TEST

/* What says nothing, or contradicts itself, is the loader's business. */
START_TEST(memory_for_nonsense)
{
	uint8_t byte = 0x7f;

	ck_assert_int_eq(enough(kernel_file(&byte, 1), 16, 1), 0);
	ck_assert_int_eq(enough(bzimage(0x209, 0x3378000), 16, 1), 0); /* has no such field */
	ck_assert_int_eq(enough(bzimage(0x20f, 0), 16, 1), 0);
	ck_assert_int_eq(enough(elf(UINT64_MAX - 5, 6 * MIB, 3), 16, 1), 0);
	ck_assert_int_eq(enough(elf(UINT64_MAX - MIB, MIB, 3), 16, 1), 0);
	ck_assert_int_eq(enough(elf(40 * MIB, 8 * MIB, 65535), 16, 1), 0);
	ck_assert_int_eq(enough(memfd_create("empty", MFD_CLOEXEC), 16, 1), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config_linux");
	TCase *tc = tcase_create("config_linux");
	SRunner *sr;
	int failures;

	tcase_add_checked_fixture(tc, make_dir, remove_dir);
	tcase_add_test(tc, disk_good);
	tcase_add_test(tc, disk_bad_files);
	tcase_add_test(tc, disk_sharing);
	tcase_add_test(tc, generation_writable);
	tcase_add_test(tc, generation_read_only);
	tcase_add_test(tc, generations_are_apart);
	tcase_add_test(tc, path_lookup);
	tcase_add_test(tc, memory_for_a_kernel);
	tcase_add_test(tc, memory_for_nonsense);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
