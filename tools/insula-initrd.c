/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-initrd: writes the initrd that insula-run would build for a kernel. A thin command line
 * over src/image.
 *
 * Exit status: 0, 2 for a wrong command line, 125 for a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/image.h>

#define STATUS_USAGE 2
#define STATUS_FAILED 125

static const char usage[] =
	"usage: insula-initrd --kernel FILE -o OUT [--modules DIR] [--root-disk] [--pci]\n"
	"                     [--mem] [--init FILE] [--busybox FILE]\n"
	"  --kernel FILE   bzImage or ELF vmlinux that the initrd is for\n"
	"  -o OUT          where to write it\n"
	"  --modules DIR   the kernel's module tree\n"
	"                  (default: next to the kernel, then /lib/modules)\n"
	"  --root-disk     also what a root disk needs: overlay and the file systems\n"
	"  --pci           also what devices on the PCI bus need (insula-run --bus pci)\n"
	"  --mem           also what memory that is resized needs (--mem SIZE,max=)\n"
	"  --init FILE     insula-init (default: the installed one)\n"
	"  --busybox FILE  a static busybox (default: /bin/busybox)\n"
	"  --help  --version\n";

struct settings {
	struct image_initrd_params p;
	const char *out;
};

/* 0: go on; otherwise the exit status + 1. */
static int parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{"kernel", required_argument, NULL, 'k'},
		{"modules", required_argument, NULL, 'm'},
		{"init", required_argument, NULL, 'i'},
		{"busybox", required_argument, NULL, 'b'},
		{"output", required_argument, NULL, 'o'},
		{"root-disk", no_argument, NULL, 'r'},
		{"pci", no_argument, NULL, 'p'},
		{"mem", no_argument, NULL, 'M'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		switch (c) {
		case 'k':
			s->p.kernel = optarg;
			break;
		case 'm':
			s->p.modules = optarg;
			break;
		case 'i':
			s->p.init = optarg;
			break;
		case 'b':
			s->p.busybox = optarg;
			break;
		case 'o':
			s->out = optarg;
			break;
		case 'r':
			s->p.root_disk = true;
			break;
		case 'p':
			s->p.pci = true;
			break;
		case 'M':
			s->p.mem = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'V':
			puts("insula-initrd " INSULA_VERSION);
			return 1;
		default:
			fputs(usage, stderr);
			return STATUS_USAGE + 1;
		}
	}
	if (!s->p.kernel || !s->out || optind != argc) {
		fputs(usage, stderr);
		return STATUS_USAGE + 1;
	}
	return 0;
}

/* PREFIX/bin/insula-initrd has PREFIX/libexec/insula/insula-init and insula-container. */
static int default_path(char out[IMAGE_PATH_MAX], const char *name, struct err *e)
{
	char self[IMAGE_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return err_sys(e, -errno, "/proc/self/exe");
	self[n] = '\0';
	if (snprintf(out, IMAGE_PATH_MAX, "%s/../libexec/insula/%s", dirname(self), name) >=
	    IMAGE_PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "the path of %s is too long", name);
	return 0;
}

static int copy_all(int in, int out)
{
	struct stat st;
	off_t off = 0;

	if (fstat(in, &st))
		return -errno;
	while (off < st.st_size) {
		ssize_t n = sendfile(out, in, &off, (size_t)(st.st_size - off));

		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	return 0;
}

/* Under a temporary name first: an interrupted run must not leave half an initrd, or spoil the file
 * that was there. */
static int write_out(int in, const char *path, struct err *e)
{
	char tmp[IMAGE_PATH_MAX];
	int fd, r;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path) >= (int)sizeof(tmp))
		return err_set(e, -ENAMETOOLONG, "%s: the path is too long", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	r = copy_all(in, fd);
	if (!r && fchmod(fd, 0644))
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	if (!r && rename(tmp, path))
		r = -errno;
	if (r) {
		unlink(tmp);
		return err_sys(e, r, "%s", path);
	}
	return 0;
}

int main(int argc, char **argv)
{
	char init[IMAGE_PATH_MAX], container[IMAGE_PATH_MAX], cache[IMAGE_PATH_MAX];
	struct settings s = {.p = {.cache_dir = cache}};
	struct err e = {0};
	int fd = -1, r = parse(argc, argv, &s);

	if (r)
		return r - 1;
	r = image_cache_dir(cache, &e);
	if (!r && !s.p.init) {
		r = default_path(init, "insula-init", &e);
		s.p.init = init;
	}
	if (!r)
		r = default_path(container, "insula-container", &e);
	s.p.container = container;
	if (!r)
		r = image_initrd(&s.p, &fd, &e);
	if (!r)
		r = write_out(fd, s.out, &e);
	fd_close(&fd);
	if (r)
		fprintf(stderr, "insula-initrd: %s\n", e.text);
	return r ? STATUS_FAILED : 0;
}
