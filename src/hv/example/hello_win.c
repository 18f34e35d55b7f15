/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hello.c on Windows: the same six instructions, memory from VirtualAlloc(), no device to open.
 *
 *     x86_64-w64-mingw32-gcc -Iinclude hello_win.c libinsula-hv.a -o hello.exe
 *
 * It needs the Windows feature HypervisorPlatform. Status 0: the message was printed.
 */
#include <windows.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

static int hello_run(struct hv_vcpu *cpu, struct err *e)
{
	struct hv_exit x;
	int r;

	while ((r = hv_vcpu_run(cpu, &x)) == 0) {
		if (x.kind == HV_EXIT_NONE)
			continue;
		if (x.kind == HV_EXIT_ERROR)
			return err_set(e, -EPROTO, "%s", x.u.error.text);
		if (x.kind != HV_EXIT_PIO || !x.u.pio.out || x.u.pio.port != PORT)
			return err_set(e, -EPROTO, "unexpected exit %d", x.kind);
		if (*(char *)x.u.pio.data == 0)
			return 0;
		putchar(*(char *)x.u.pio.data);
		r = hv_vcpu_complete(cpu, &x);
		if (r < 0)
			break;
	}
	return err_sys(e, r, "run");
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
	char *page = VirtualAlloc(NULL, PAGE, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);

	if (!page)
		return 1;
	memcpy(page, code, sizeof(code));
	memcpy(page + 0x100, MESSAGE, sizeof(MESSAGE));
	if (hv_vm_create(&vm, &params, &e) == 0 &&
	    hv_mem_map(vm, 0, 0, page, PAGE, HV_MEM_RW, &e) == 0 &&
	    hv_vcpu_create(vm, 0, &cpu, &e) == 0 && set_start(cpu, &e) == 0)
		hello_run(cpu, &e);
	if (e.code)
		fprintf(stderr, "hello: %s\n", e.text);
	hv_vcpu_destroy(cpu);
	hv_vm_destroy(vm);
	VirtualFree(page, 0, MEM_RELEASE);
	return e.code ? 1 : 0;
}
