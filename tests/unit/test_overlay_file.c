/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The file of a copy-on-write disk as the supervisor opens it: made, found again, refused; what a
 * helper takes from it; and what a disk with an overlay hands out.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include <devices/blk/blk.h>
#include <supervisor/backing/disk.h>
#include <supervisor/backing/overlay.h>
#include <supervisor/backing/overlay_head.h>

#define BASE_SIZE (1000u * 4096u + 512u)

static char dir[] = "/tmp/insula-test-overlay-XXXXXX";
static char base[PATH_MAX], over[PATH_MAX], other[PATH_MAX];
static struct disk d;
static struct disk_config conf;
static struct err e;

static void make_base(const char *path, off_t size, uint8_t first)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	ck_assert_int_eq(pwrite(fd, &first, 1, 0), 1);
	close(fd);
}

static void setup(void)
{
	strcpy(dir, "/tmp/insula-test-overlay-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(base, sizeof(base), "%s/base", dir);
	snprintf(over, sizeof(over), "%s/over", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	make_base(base, BASE_SIZE, 1);
	conf = (struct disk_config){.path = base, .overlay = over};
}

static void teardown(void)
{
	unlink(base);
	unlink(over);
	unlink(other);
	ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left */
}

static void opens(void)
{
	ck_assert_msg(disk_open(&d, &conf, false, &e) == 0, "%s", e.text);
}

static void refused(const char *why)
{
	ck_assert_int_lt(disk_open(&d, &conf, false, &e), 0);
	ck_assert_msg(strstr(e.text, why), "'%s' does not say '%s'", e.text, why);
	ck_assert_int_eq(d.fd, -1);
	ck_assert_int_eq(d.over, -1);
	ck_assert_int_eq(d.memory, -1);
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : (uint64_t)st.st_size;
}

static void put(const char *path, uint64_t off, const void *p, size_t n)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, p, n, (off_t)off), (ssize_t)n);
	close(fd);
}

START_TEST(made_and_found_again)
{
	struct overlay_layout at = overlay_layout(BASE_SIZE);
	struct stat st;

	for (unsigned i = 0; i < 3; i++) {
		opens();
		ck_assert_uint_eq(d.start.capacity, BASE_SIZE);
		ck_assert_uint_eq(d.start.flags, BLK_OVERLAY);
		disk_close(&d);
	}
	ck_assert_int_eq(stat(over, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, at.size);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_int_lt(st.st_blocks * 512, 65536);
	/* An empty file that is there is as good, and keeps its mode. */
	unlink(over);
	make_base(over, 0, 0);
	ck_assert_int_eq(truncate(over, 0), 0);
	opens();
	disk_close(&d);
	ck_assert_uint_eq(size_of(over), at.size);
}
END_TEST

/* As -n does. */
START_TEST(checked_only)
{
	ck_assert_int_eq(disk_open(&d, &conf, true, &e), 0);
	disk_close(&d);
	ck_assert_int_ne(access(over, F_OK), 0);
	conf.overlay = "/nonexistent/over";
	ck_assert_int_eq(disk_open(&d, &conf, true, &e), -ENOENT);
	ck_assert_ptr_nonnull(strstr(e.text, "overlay /nonexistent/over"));
	conf.overlay = over;
	make_base(over, 0, 0);
	ck_assert_int_eq(truncate(over, 0), 0);
	ck_assert_int_eq(disk_open(&d, &conf, true, &e), 0);
	disk_close(&d);
	ck_assert_uint_eq(size_of(over), 0);
	conf.overlay = "discard";
	conf.thrown_away = true;
	ck_assert_int_eq(disk_open(&d, &conf, true, &e), 0);
	disk_close(&d);
}
END_TEST

START_TEST(locked)
{
	struct disk_config second = conf, writer = {.path = base},
			   reader = {.path = base, .ro = true};
	struct disk d2;

	opens();
	/* The overlay is this VM's alone; the base is everybody's who reads. */
	ck_assert_int_eq(disk_open(&d2, &second, false, &e), -EBUSY);
	ck_assert_ptr_nonnull(strstr(e.text, "locked by another VM"));
	ck_assert_int_eq(disk_open(&d2, &writer, false, &e), -EBUSY);
	ck_assert_int_eq(disk_open(&d2, &reader, false, &e), 0);
	disk_close(&d2);
	second.overlay = other;
	ck_assert_int_eq(disk_open(&d2, &second, false, &e), 0);
	disk_close(&d2);
	disk_close(&d);
	ck_assert_int_eq(disk_open(&d, &writer, false, &e), 0);
	refused("locked by another VM that writes to it");
}
END_TEST

/* A refusal changes nothing. */
START_TEST(something_else)
{
	static const char text[] = "something that somebody needs";
	char zeros[512] = {0};
	struct stat st;

	make_base(over, 4096, 'x');
	refused("something else; expected an overlay");
	ck_assert_uint_eq(size_of(over), 4096);
	unlink(over);
	make_base(over, 0, 's');
	put(over, 0, text, sizeof(text));
	refused("something else");
	ck_assert_uint_eq(size_of(over), sizeof(text));
	/* Zeros beyond what the head takes can be a disk. */
	ck_assert_int_eq(truncate(over, 0), 0);
	ck_assert_int_eq(truncate(over, 1 << 20), 0);
	refused("something else");
	/* What a machine that has crashed may have left of a new one. */
	ck_assert_int_eq(truncate(over, 0), 0);
	put(over, 0, zeros, sizeof(zeros));
	opens();
	disk_close(&d);
	conf.overlay = dir;
	refused("overlay ");
	conf.overlay = "/dev/null";
	refused("not a file");
	conf.overlay = base;
	refused("the disk itself");
	ck_assert_int_eq(stat(base, &st), 0);
	ck_assert_int_eq(st.st_size, BASE_SIZE);
}
END_TEST

static struct overlay_head head(void)
{
	struct overlay_head h;
	int fd = open(over, O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(pread(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	return h;
}

static void put_head(struct overlay_head h)
{
	h.head_sum = overlay_sum(OVERLAY_SUM_BEGIN, &h, offsetof(struct overlay_head, head_sum));
	put(over, 0, &h, sizeof(h));
}

/* With a sum that is right: what somebody wrote who knows how. */
START_TEST(hostile_heads)
{
	struct overlay_head good, h;

	opens();
	disk_close(&d);
	good = head();
	for (size_t i = 0; i < offsetof(struct overlay_head, head_sum); i++) {
		h = good;
		((uint8_t *)&h)[i] ^= 0x80;
		put_head(h);
		refused("overlay ");
	}
	for (size_t i = 0; i < sizeof(h); i++) {
		h = good;
		((uint8_t *)&h)[i] ^= 1;
		put(over, 0, &h, sizeof(h));
		refused("overlay ");
	}
	h = good;
	h.version = 2;
	put_head(h);
	refused("version 2; expected 1");
	h = good;
	h.base_size = 0;
	put_head(h);
	refused("damaged");
	h.base_size = UINT64_MAX;
	put_head(h);
	refused("damaged");
	h = good;
	h.base_size += 512;
	put_head(h);
	refused("made for a disk of 4097024 bytes");
	h = good;
	h.data_off += 4096;
	put_head(h);
	refused("blocks of 4096 bytes");
	put_head(good);
	opens();
	disk_close(&d);
	/* Cut, or longer. */
	ck_assert_int_eq(truncate(over, (off_t)size_of(over) - 1), 0);
	refused("bytes; expected");
	ck_assert_int_eq(truncate(over, OVERLAY_HEAD), 0);
	opens();
	disk_close(&d);
	ck_assert_uint_eq(size_of(over), overlay_layout(BASE_SIZE).size);
}
END_TEST

static void set_time(const char *path, const struct timespec *t)
{
	const struct timespec both[2] = {*t, *t};

	ck_assert_int_eq(utimensat(AT_FDCWD, path, both, 0), 0);
}

START_TEST(another_base)
{
	struct timespec t = {.tv_sec = 1000000000, .tv_nsec = 5};
	struct stat st;

	set_time(base, &t);
	opens();
	disk_close(&d);
	/* Of another size; the same size and time, and other contents; the same contents at another
	 * time. */
	make_base(other, BASE_SIZE - 512, 1);
	set_time(other, &t);
	conf.path = other;
	refused("made for a disk of 4096512 bytes");
	make_base(other, BASE_SIZE, 2);
	set_time(other, &t);
	refused("the contents differ");
	make_base(other, BASE_SIZE, 1);
	refused("was written since the overlay was made");
	ck_assert_msg(strstr(e.text, "touch -d @1000000000.000000005 "), "%s", e.text);
	set_time(other, &t);
	opens(); /* a copy: another inode is no matter */
	disk_close(&d);
	/* Something that no sample shows: only the time does. */
	conf.path = base;
	put(base, 500 * 4096 + 100, "x", 1);
	refused("was written since");
	ck_assert_int_eq(stat(base, &st), 0);
	ck_assert_int_ne(st.st_mtim.tv_sec, t.tv_sec);
}
END_TEST

START_TEST(samples)
{
	static const uint64_t sizes[] = {512,       4096,    4608,       65536,
					 81 * 4096, 1 << 20, 1ull << 40, OVERLAY_MOST};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (unsigned k = 0; k < OVERLAY_SAMPLES; k++) {
			ck_assert_uint_lt(overlay_sample(sizes[i], k), sizes[i]);
			ck_assert_uint_eq(overlay_sample(sizes[i], k) % OVERLAY_SAMPLE, 0);
		}
		ck_assert_uint_eq(overlay_sample(sizes[i], 0), 0);
		ck_assert_uint_ge(overlay_sample(sizes[i], OVERLAY_SAMPLES - 1) +
					  2 * OVERLAY_SAMPLE,
				  sizes[i]);
	}
}
END_TEST

START_TEST(layouts)
{
	static const uint64_t sizes[] = {
		512, 4096, 4097ull * 512, 1ull << 27, 1ull << 28, (1ull << 40) + 512, OVERLAY_MOST};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct overlay_layout a = overlay_layout(sizes[i]);

		ck_assert_uint_ge(a.blocks * OVERLAY_BLOCK, sizes[i]);
		ck_assert_uint_ge(a.index_len * 8, a.blocks);
		ck_assert_uint_ge(a.data_off, a.index_off + a.index_len);
		ck_assert_uint_eq(a.data_off % OVERLAY_ALIGN, 0);
		ck_assert_uint_ge(a.size, a.data_off + sizes[i]);
		ck_assert_uint_ge(a.live_off, a.flags_off + a.pages);
		ck_assert_uint_eq(a.memory, a.live_off + a.index_len);
		ck_assert_uint_lt(a.size, INT64_MAX);
	}
}
END_TEST

START_TEST(thrown_away)
{
	char link[64], target[PATH_MAX] = "";
	struct stat st;

	conf.overlay = "discard";
	conf.thrown_away = true;
	ck_assert_int_eq(setenv("TMPDIR", dir, 1), 0);
	opens();
	ck_assert_uint_eq(d.start.flags, BLK_OVERLAY | BLK_THROWN_AWAY);
	ck_assert_int_eq(fstat(d.over, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", d.over);
	ck_assert_int_gt(readlink(link, target, sizeof(target) - 1), 0);
	ck_assert_msg(!strncmp(target, dir, strlen(dir)), "%s", target);
	disk_close(&d);
	ck_assert_int_eq(setenv("TMPDIR", "/nonexistent", 1), 0);
	refused("overlay discard: a file in /nonexistent");
	unsetenv("TMPDIR");
	opens();
	disk_close(&d);
}
END_TEST

static bool read_only(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

/* Each helper has descriptions of its own, of the overlay and of the base, and as long as one of
 * them is there nobody follows. */
START_TEST(handed_out)
{
	struct msg_start_blk m;
	int fds[DISK_FDS], once[DISK_ONCE];
	unsigned n;

	opens();
	for (unsigned again = 0; again < 2; again++) {
		m = d.start;
		once[0] = once[1] = -1;
		ck_assert_int_eq(disk_hand_out(&d, again, &m, fds, &n, once, &e), 0);
		ck_assert_uint_eq(n, 3 + again);
		ck_assert_int_eq(!!(m.flags & BLK_OTHER), (int)again);
		ck_assert(!read_only(fds[0]) && read_only(fds[n - 2]));
		ck_assert_int_eq(fds[0], once[0]);
		ck_assert_int_eq(fds[n - 2], once[1]);
		ck_assert_int_eq(fds[n - 1], d.memory);
		ck_assert_int_eq(disk_quiet(&d), 0);
		close(once[again]);
		ck_assert_int_eq(disk_quiet(&d), 0);
		close(once[!again]);
		ck_assert_int_eq(disk_quiet(&d), 1);
	}
	disk_close(&d);
}
END_TEST

/* ---- the index, as a helper takes it ---- */

static void take_index(struct blk_overlay *o)
{
	opens();
	ck_assert_msg(blk_overlay_open(o, BASE_SIZE, false, dup(d.over), dup(d.fd), dup(d.memory),
				       &e) == 0,
		      "%s", e.text);
}

static void put_back(struct blk_overlay *o)
{
	close(o->fd); /* a copy, which holds the lock */
	close(o->base_fd);
	disk_close(&d);
}

START_TEST(any_index_is_good)
{
	struct overlay_layout at = overlay_layout(BASE_SIZE);
	struct blk_overlay o;
	uint8_t *index = malloc(at.index_len);
	bool over_there;

	opens();
	disk_close(&d);
	memset(index, 0xff, at.index_len); /* bits behind the end, too */
	put(over, at.index_off, index, at.index_len);
	take_index(&o);
	ck_assert(blk_overlay_has(&o, 0, BASE_SIZE));
	ck_assert(!o.dirty);
	put_back(&o);
	memset(index, 0, at.index_len);
	index[0] = 0x05;
	put(over, at.index_off, index, at.index_len);
	take_index(&o);
	ck_assert_uint_eq(blk_overlay_run(&o, 0, BASE_SIZE, &over_there), 4096);
	ck_assert(over_there);
	ck_assert_uint_eq(blk_overlay_run(&o, 4096, BASE_SIZE - 4096, &over_there), 4096);
	ck_assert(!over_there);
	/* The next helper does not look at the file: what is in memory is newer. */
	put(over, at.index_off, "\xff", 1);
	close(o.fd);
	close(o.base_fd);
	ck_assert_int_eq(
		blk_overlay_open(&o, BASE_SIZE, false, dup(d.over), dup(d.fd), dup(d.memory), &e),
		0);
	ck_assert(!blk_overlay_has(&o, 4096, 4096));
	put_back(&o);
	/* Cut under us. */
	opens();
	ck_assert_int_eq(truncate(over, OVERLAY_HEAD + 100), 0);
	ck_assert_int_lt(
		blk_overlay_open(&o, BASE_SIZE, false, dup(d.over), dup(d.fd), dup(d.memory), &e),
		0);
	disk_close(&d);
	free(index);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("overlay_file");
	TCase *c = tcase_create("file");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, made_and_found_again);
	tcase_add_test(c, checked_only);
	tcase_add_test(c, locked);
	tcase_add_test(c, something_else);
	tcase_add_test(c, hostile_heads);
	tcase_add_test(c, another_base);
	tcase_add_test(c, samples);
	tcase_add_test(c, layouts);
	tcase_add_test(c, thrown_away);
	tcase_add_test(c, handed_out);
	tcase_add_test(c, any_index_is_good);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
