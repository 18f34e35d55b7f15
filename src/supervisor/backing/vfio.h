/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI functions of the host that the guest gets (VFIO), as the supervisor holds them.
 *
 * It finds the function's IOMMU group and checks all of it, opens the group and the container,
 * which is one for all functions of the VM, reads what the function is, and makes from it what the
 * guest sees: a description (insula/device.h) of BARs that are mapped, registers that exit, and
 * capabilities from a list. The container and the device stay open here: what is mapped for DMA,
 * and the interrupts, do not depend on any other process. A device that nobody has open any more is
 * reset by the kernel.
 *
 * With bind, the function is taken away from its driver first. Giving it back is the business of a
 * process of its own (vfio_keep.c), which outlives the supervisor: whatever is killed, it happens.
 * With pf=, the function is a virtual one of that (SR-IOV), which may have to be made first, and
 * goes in the same way (vfio_virtual.c).
 *
 * The kernel has two interfaces: that of groups and a container, which every one with VFIO has, and
 * from Linux 6.6 on, if it was built so, a node of each function and iommufd (vfio_node.c). The
 * newer one is taken if we may use it. A function without an IOMMU is refused; there is no way to
 * say that it should be used all the same. Linux, Documentation/driver-api/vfio.rst and
 * Documentation/userspace-api/iommufd.rst. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_VFIO_H
#define SUPERVISOR_VFIO_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <insula/device.h>
#include <insula/err.h>

#include "devices/vfio/vfio_start.h"
#include "keeper.h"
#include "spec/config.h"

struct device;
struct vm;

/* Where the BARs go, each at a multiple of its size: below 4 GiB, or behind the memory. */
struct vfio_room {
	uint64_t low, high; /* the next free place */
	uint64_t end;       /* what the processor can address */
};

#define VFIO_KEEP_WRITES 3
#define VFIO_PATH 96 /* bytes of a path below a function of sysfs */

/* What is put back: this text goes into this file of sysfs, in this order. */
struct vfio_keeper {
	struct keeper process;
	struct {
		char path[VFIO_PATH], text[16];
	} write[VFIO_KEEP_WRITES];
	unsigned nwrites;
	int held;   /* borrowed, or -1: stays open until that is done; */
	bool alone; /* and is a lock that is shared: first wait until nobody else has it */
};

/* A function's own node. */
#define VFIO_NODES "/dev/vfio/devices/"
struct vfio_node {
	char path[48];
	char device[16]; /* "major:minor"; "": there is none */
};

struct vfio_back {
	const struct vfio_config *conf; /* borrowed, or `own` */
	int group, device;              /* owned, or -1; no group by the node */
	int *container;                 /* borrowed; the VM's; by the node: its iommufd */
	enum vfio_by by;                /* of vfio_way(); and what came of it: */
	bool by_node;
	struct vfio_node node;
	uint32_t ioas; /* by the node: the address space of all of the VM's */
	unsigned groupno;
	bool first;  /* its helper gives guest memory to the container */
	bool mapped; /* it has */
	uint64_t mem;
	struct vfio_keeper keeper; /* gives it back, if we have bound it */
	/* Of a virtual function: what it is, as if it had been given by its own address; a lock of
	 * it; one of those who use a virtual function of that one; and who lets them vanish that we
	 * have made. */
	struct vfio_config own;
	int claim, share; /* owned, or -1 */
	struct vfio_keeper maker;
	/* What the guest sees: windows, vectors and pci count, without slots and places. */
	struct device_desc seen;
	unsigned wide; /* bit i: BAR i is one of 64 bits, and may be anywhere */
	struct msg_start_vfio start;
};

/* Look at one, and no more. `mem`: bytes of guest memory, which the device may reach. A line for
 * people. */
int vfio_check(const struct vfio_config *c, uint64_t mem, struct err *e);
/* Look at the one behind the first `n` of all, and take it: *container is opened with the first.
 * `by`: of vfio_way(). A line for people; on error nothing stays. */
int vfio_open(struct vfio_back *all, unsigned n, const struct vfio_config *c, enum vfio_by by,
	      int *container, uint64_t mem, struct err *e);
/* Close what is open, and give it back. No-op after an error. Everybody else who has the device
 * open has ended. */
void vfio_close(struct vfio_back *b);
/* For memory that ends at this gpa. */
void vfio_room_set(struct vfio_room *room, uint64_t end_of_memory);
/* Give each of its BARs a place; bits of `wide` as above. -EINVAL: there is no room. */
int vfio_place(struct device_pci *f, unsigned wide, const char *address, struct vfio_room *room,
	       struct err *e);
/* Put it into the description of device_vfio (dev_vfio.c), with places for its BARs (`room` NULL:
 * the guest finds them), and let its interrupts signal the device's vectors. */
int vfio_fill(struct vfio_back *b, struct device *d, struct vfio_room *room, struct err *e);

/* ---- vfio_plug.c: one that comes while the VM runs ---- */
struct vfio_later {
	struct vfio_back back;
	int container;        /* owned: its own; or -1 */
	struct keeper closes; /* what may take its time */
};

/* -EINVAL and a line for people: there is something in the VM that cannot be beside it; else as
 * vfio_open(). */
int vfio_plug_open(struct vfio_later *v, const struct vm *vm, const struct vfio_config *c,
		   struct err *e);
/* -EINVAL: there is no room for its BARs behind a port. */
int vfio_plug_fits(const struct device_pci *f, const char *address, struct err *e);
/* It is about to be pulled out: it writes to the guest's memory no more. */
void vfio_plug_stop(const struct vfio_later *v);
/* Its helper is gone, and insula-vmm has been told that it is: let it go. False: somebody has not
 * done so yet. Does not block; asked until it is true. */
bool vfio_plug_quiet(struct vfio_later *v, struct device *d);
/* What is left; all of it, and then it waits, if nobody has asked. */
void vfio_plug_close(struct vfio_later *v);

/* ---- vfio_sysfs.c; `sys` is "/sys", but for tests ---- */
struct vfio_found {
	unsigned group;
	char driver[32]; /* "": none */
	bool ready;      /* that is vfio-pci, or one like it */
};
/* -EINVAL and a line for people: there is no such function, it has no IOMMU, or its group has
 * others that the host uses. With `bind` its own driver does not matter, unless it is in use. */
int vfio_look(const char *sys, const struct vfio_config *c, struct vfio_found *f, struct err *e);

/* Of one whose virtual functions are meant. -EINVAL and a line for people: it makes none, or not so
 * many. *now: how many there are. */
int vfio_look_pf(const char *sys, const struct vfio_config *c, unsigned *now, struct err *e);
/* The nth virtual function of it; false: there is none. Of *f, the driver and `ready`. */
bool vfio_virtual(const char *sys, const char *pf, unsigned n, char address[CONFIG_VFIO_LEN + 1],
		  struct vfio_found *f);
/* The function as modules.alias has it, "pci:v00008086d...": by it the guest's driver is found. Of
 * a virtual one that is yet to be made, what its maker says of it. "": there is no such function.
 */
#define VFIO_MODALIAS 80
void vfio_modalias(const char *sys, const struct vfio_config *c, char out[VFIO_MODALIAS]);
/* One line of a file; "": there is none. */
void vfio_line(const char *path, char *out, size_t size);

/* ---- vfio_keep.c ---- */
/* Take it away from its driver, and start its keeper. */
int vfio_bind(struct vfio_back *b, const struct vfio_found *f, struct err *e);
/* Start one, and let it do what it is there for; wait for that a while. `address` is for people. */
int vfio_keeper_start(struct vfio_keeper *k, const char *address, struct err *e);
void vfio_keeper_end(struct vfio_keeper *k, const char *address);
/* One more write for it. */
void vfio_keep(struct vfio_keeper *k, const char *path, const char *text);
/* "/sys/bus/pci/devices/ADDRESS/FILE" */
void vfio_path(char path[VFIO_PATH], const char *address, const char *file);
int vfio_write(const char *path, const char *text);

/* ---- vfio_node.c ---- */
/* False: the function has none. */
bool vfio_node(const char *sys, const char *address, struct vfio_node *n);
/* -EINVAL and a line for people: by= asks for what this kernel has not. */
int vfio_check_by(const struct vfio_config *c, struct err *e);
/* Of all functions of a VM: *by, how those are used of which somebody has said it, by a setting or
 * a descriptor; the others follow. -EINVAL and a line for people: they differ. */
int vfio_way(const char *sys, const struct vfio_config *c, unsigned n, enum vfio_by *by,
	     struct err *e);
/* Set b->by_node, as it is for those before it. It is on vfio-pci by now. */
int vfio_choose(struct vfio_back *b, const struct vfio_back *all, struct err *e);
/* Open b->device. -EBUSY: somebody has it. What is open on error is vfio_let_go()'s. */
int vfio_open_node(struct vfio_back *b, const struct vfio_back *all, struct err *e);
/* We have closed it, and it was alone in its address space: so has everybody else, and the kernel
 * is done with it. */
bool vfio_node_is_let_go(const struct vfio_back *b);

/* ---- vfio_who.c ---- */
/* Another process that has this character device ("major:minor") open: " (process 12, qemu)"; "":
 * none that we can see. */
#define VFIO_WHO 64
void vfio_who(const char *device, char out[VFIO_WHO]);
/* A function of its group that another process has open by its node: "0000:01:00.1 (process
 * ...)". */
void vfio_who_is_beside(const struct vfio_back *b, char out[VFIO_WHO]);

/* ---- vfio.c, for vfio_virtual.c and vfio_node.c ---- */
#define VFIO_NO_REMAPPING \
	" does not remap interrupts; expected that it does: a device could forge them"
/* Is it the descriptor of this character device ("major:minor")? */
bool vfio_fd_is(int fd, const char *device);
/* Take the function b->conf, behind others; and let it go. */
int vfio_take(struct vfio_back *b, const struct vfio_back *all, struct err *e);
void vfio_let_go(struct vfio_back *b);

/* ---- vfio_virtual.c ---- */
/* Take a virtual function of c->address. On error, what stays is vfio_close()'s. */
int vfio_take_virtual(struct vfio_back *b, const struct vfio_back *all, const struct vfio_config *c,
		      struct err *e);
/* The function is let go; let the others vanish, too, if they are ours. */
void vfio_end_virtual(struct vfio_back *b);

/* ---- vfio_see.c: of an open device ---- */
/* Fill in b->seen and b->start. */
int vfio_see(struct vfio_back *b, struct err *e);

#endif
