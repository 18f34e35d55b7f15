/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest user of libinsula-hv: one page of memory, one vCPU, six instructions of 16-bit code
 * that print through a port.
 *
 *     gcc hello.c $(pkg-config --cflags --libs insula-hv) && ./a.out
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <insula/hv.h>

#define PAGE 4096
#define PORT 0xe9
#define MESSAGE "Hello from a virtual machine.\n"

static const unsigned char code[] = {
	0xbe, 0x00, 0x01, /*    mov $0x100, %si    */
	0xac,             /* 1: lodsb              */
	0xe6, PORT,       /*    outb %al, $PORT    */
	0x84, 0xc0,       /*    test %al, %al      */
	0x75, 0xf9,       /*    jnz 1b             */
	0xf4,             /*    hlt                */
};

/* Print what the guest writes, up to the zero that ends it. */
static int hello_run(struct hv_vcpu *cpu, struct err *e)
{
	for (;;) {
		struct hv_exit x;
		int r = hv_vcpu_run(cpu, &x);

		if (r < 0)
			return err_sys(e, r, "run");
		if (x.kind == HV_EXIT_NONE)
			continue;
		if (x.kind != HV_EXIT_PIO || !x.u.pio.out || x.u.pio.port != PORT)
			return err_set(e, -EPROTO, "unexpected exit %d", x.kind);
		if (*(char *)x.u.pio.data == 0)
			return 0;
		putchar(*(char *)x.u.pio.data);
		hv_vcpu_complete(cpu, &x);
	}
}

/* Real mode, every segment at 0, the code at 0. */
static int set_start(struct hv_vcpu *cpu, struct err *e)
{
	struct hv_regs regs;
	int r = hv_vcpu_get_regs(cpu, &regs, e);

	if (r < 0)
		return r;
	regs.cs.base = regs.cs.selector = 0;
	regs.ds.base = regs.ds.selector = 0;
	regs.rip = 0;
	regs.rflags = 2;
	return hv_vcpu_set_regs(cpu, &regs, e);
}

int main(void)
{
	struct hv_vm_params params = {.ncpus = 1, .nlines = 1};
	struct hv_vm *vm = NULL;
	struct hv_vcpu *cpu = NULL;
	struct err e = {0};
	int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (dev < 0 || page == MAP_FAILED) {
		perror(dev < 0 ? "/dev/kvm" : "memory");
		return 1;
	}
	memcpy(page, code, sizeof(code));
	memcpy(page + 0x100, MESSAGE, sizeof(MESSAGE));
	params.dev = dev;
	if (hv_vm_create(&vm, &params, &e) == 0 &&
	    hv_mem_map(vm, 0, 0, page, PAGE, HV_MEM_RW, &e) == 0 &&
	    hv_vcpu_create(vm, 0, &cpu, &e) == 0 && set_start(cpu, &e) == 0)
		hello_run(cpu, &e);
	if (e.code)
		fprintf(stderr, "hello: %s\n", e.text);
	hv_vcpu_destroy(cpu);
	hv_vm_destroy(vm);
	munmap(page, PAGE);
	close(dev);
	return e.code ? 1 : 0;
}
