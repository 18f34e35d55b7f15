/*
 * A device, as data: what the core (insula-vmm) has to know of one, without knowing a register.
 *
 * The supervisor makes a description for each device of the VM and sends it to the core with
 * MSG_DEVICE. The core executes it: it answers accesses to the windows, binds the doorbells and the
 * vectors, and looks at nothing else. What the registers mean is between the guest's driver and the
 * helper; the masks below are all that the core is told of them.
 *
 *   window    a range of addresses that belongs to the device. How it is served:
 *               DEVICE_EXITS   every access exits. Reads are answered from the shadow registers of
 *                              the page (devpage.h), but for those in `call_reads`. Writes in
 *                              `posted` are posted, the others are calls
 *               DEVICE_SHADOW  the same, and the shadow registers are a read-only memory slot of
 *                              the guest: its reads do not exit
 *               DEVICE_DIRECT  memory of a descriptor is the guest's, as it is: registers of a
 *                              device of the host. The core maps it once and closes the descriptor
 *               DEVICE_CALLS   every access exits and is a call, in a BAR. In configuration space
 *                              writes alone, which the core has executed before; one that finds no
 *                              helper waits in the ring for the next one
 *   doorbell  a write that only signals an event: to this address, of this size, with this value.
 *             The hypervisor does it without an exit. A write that exits all the same (of another
 *             size) does it too
 *   vector    an event that, when it is signalled, interrupts the guest: by a pin of the board's
 *             interrupt controller, or, of a PCI function, by the message in an entry of its
 *             MSI-X table
 *
 *   slots     the descriptors that came with the description, in one order. Everything above names
 *             its descriptor by its place in it
 *
 * Masks, of EXITS and SHADOW: bit i stands for the register at i << shift of the window, so a
 * window has 64 of them. An access beyond is in no mask: reads are answered from the shadow
 * registers, writes are calls.
 *
 * The description comes from the supervisor, which is trusted. It is checked all the same, once, by
 * device_check(), before anything of it is used.
 */
#ifndef INSULA_DEVICE_H
#define INSULA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#define DEVICE_VERSION 1
#define DEVICE_VERSION_PCI 2 /* the same, and it is a function of the PCI bus: `pci` counts */
/* No device, but a place where one of PCI can come and go while the VM runs (MSG_PLUG): behind the
 * root port with pci.number. It has a device page and nothing else. */
#define DEVICE_VERSION_PLACE 3
#define DEVICE_MAX_WINDOWS 14 /* six BARs in two parts each, and two in configuration space */
#define DEVICE_MAX_DOORBELLS 24
#define DEVICE_MAX_VECTORS 24
#define DEVICE_MAX_SLOTS 64       /* what a message can carry */
#define DEVICE_NO_SLOT UINT32_MAX /* where a slot is not needed */
#define DEVICE_MAX_STATE (64u << 20)
#define DEV_NAME_LEN 16

enum device_space {
	DEVICE_PIO = 1,
	DEVICE_MMIO,
	DEVICE_CONFIG,  /* of the function itself; whole registers of four bytes */
	DEVICE_BAR = 8, /* + n: BAR n of the function; an address is an offset in it, wherever
			 * the guest has put the BAR */
};
#define DEVICE_BARS 6

enum device_serve { DEVICE_EXITS = 1, DEVICE_SHADOW, DEVICE_DIRECT, DEVICE_CALLS };

struct device_window {
	uint64_t base; /* port, gpa, or offset in the BAR */
	uint64_t len;
	uint32_t space; /* enum device_space */
	uint32_t serve; /* enum device_serve */
	/* EXITS, SHADOW: where its registers begin in the page. It is also what the helper is told:
	 * a register is known by its place there. Sum with `len` at most DP_SHADOW_SIZE. Where two
	 * windows have one place it is one register at two addresses; one of them is SHADOW. CALLS:
	 * what the helper is told, anything. */
	uint32_t at;
	uint32_t shift;      /* of the masks: 0 registers of a byte, 2 of four bytes; at most 3 */
	uint64_t posted;     /* writes that no readable register depends on */
	uint64_t call_reads; /* reads with a side effect. Not in a SHADOW window */
	uint64_t dropped;    /* writes that mean nothing if they ring no doorbell */
	uint64_t unheard;    /* calls that nobody misses while there is no helper */
	uint64_t offset;     /* DIRECT: in the descriptor */
	uint32_t slot;       /* DIRECT: which descriptor; else DEVICE_NO_SLOT */
	uint32_t pad;
};
_Static_assert(sizeof(struct device_window) == 80, "wire size");

struct device_doorbell {
	uint64_t addr;
	uint64_t value; /* what is written, if `match` */
	uint32_t space; /* enum device_space */
	uint32_t size;  /* 1, 2, 4 or 8; 0: any, of memory and without `match` */
	uint32_t match; /* 0: any value rings; 1: only `value` */
	uint32_t slot;  /* the event */
};
_Static_assert(sizeof(struct device_doorbell) == 32, "wire size");

enum device_vector_kind { DEVICE_PIN = 1, DEVICE_MSI };

struct device_vector {
	uint32_t kind;   /* enum device_vector_kind */
	uint32_t number; /* PIN: of the interrupt controller; MSI: entry, its place in `vector` */
	uint32_t slot;   /* the event that interrupts */
	/* A level-triggered pin: the event that says that the guest has acknowledged; the core's
	 * pins are edges, so it takes DEVICE_NO_SLOT alone. */
	uint32_t ack_slot;
};
_Static_assert(sizeof(struct device_vector) == 16, "wire size");

/*
 * A PCI function: what its configuration space says (PCI Express Base 5.0, 7.5.1; 7.7.2 for MSI-X).
 * The core makes the space from it and serves it: identity, six BARs that can be sized and moved,
 * the capabilities below, and MSI-X with one entry for each vector, or MSI with one message
 * (7.7.1). There is no interrupt pin, no ROM and no extended capability, so 256 bytes are all that
 * there is.
 */
#define DEVICE_MAX_CAPS 128
#define DEVICE_CAPS_AT 0x4c /* of configuration space: where the first of them lies */
#define DEVICE_CAP_POWER 1  /* how each of them begins: power management (7.5.2) */
#define DEVICE_CAP_VENDOR 9
#define DEVICE_CAP_EXPRESS 0x10 /* 7.5.3 */
#define DEVICE_MAX_CAN 4
#define DEVICE_WIDE 0x100000000ull
struct device_pci {
	/* Of the device on bus 0: 1..31; its function is 0. In a place: of the port, which is one
	 * of the last BOARD_MAX_PLACES; a function that is plugged has the number of its port. */
	uint32_t number;
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_revision; /* the register at 0x08: class, subclass, interface, revision */
	/* Memory, not prefetchable: a power of two from a page on; 0: there is none. */
	uint64_t bar_size[DEVICE_BARS];
	/* gpa, where it begins; of one that is plugged: 0. From DEVICE_WIDE on it is one of 64
	 * bits: it takes the register of the next one as well, which is none then. */
	uint64_t bar_at[DEVICE_BARS];
	/* The MSI-X table and, behind it, the pending bits: in pages of that BAR without a
	 * window. */
	uint32_t msix_bar, msix_table, msix_pba;
	uint32_t msi; /* 1: it has MSI instead, and one vector; there is no table then: all 0 */
	/* The descriptor by which the hypervisor knows the device of the host (hv_vm_assign());
	 * 0: there is none, it is the page's. */
	uint32_t host_slot;
	/* Capabilities, one after the other: DEVICE_CAP_*, then its length, where the core puts the
	 * link to the next one; then the rest of it, which does not change, but for these bits of
	 * words of `caps`: the guest writes them, and reads what it has written. */
	uint32_t caps_len;
	uint8_t caps[DEVICE_MAX_CAPS];
	struct {
		uint32_t at, bits; /* `at`: in `caps` */
	} can[DEVICE_MAX_CAN];
};
_Static_assert(sizeof(struct device_pci) == 136 + DEVICE_MAX_CAPS + 8 * DEVICE_MAX_CAN,
	       "wire size");

struct device_desc {
	uint32_t version;        /* DEVICE_VERSION, DEVICE_VERSION_PCI, DEVICE_VERSION_PLACE */
	uint32_t index;          /* 0..: the number in MSG_DEV_* */
	char name[DEV_NAME_LEN]; /* "vda", "com1" */
	char hid[12];            /* _HID of its ACPI device; empty: the tables do not name it */
	uint32_t uid;            /* _UID; 0..255 */

	uint32_t nslots, nwindows, ndoorbells, nvectors;
	uint32_t page_slot;   /* its device page */
	uint32_t call_slot;   /* wakes the helper */
	uint32_t answer_slot; /* wakes the core, on a system without futexes (word_events()) */
	uint32_t state_size;  /* bytes of the page behind DP_STATE_OFF, a multiple of 4096 */
	/* A read that changes nothing, of 1, 2, 4 or 8 bytes: what is left pending for the next
	 * helper when there is none (MSG_DEV_DOWN). A place in the page. */
	uint32_t probe_at, probe_size;

	struct device_window window[DEVICE_MAX_WINDOWS];
	struct device_doorbell doorbell[DEVICE_MAX_DOORBELLS];
	struct device_vector vector[DEVICE_MAX_VECTORS];
	struct device_pci pci; /* DEVICE_VERSION_PCI; of a place: the number alone */
};
_Static_assert(sizeof(struct device_desc) ==
		       80 + DEVICE_MAX_WINDOWS * 80 + DEVICE_MAX_DOORBELLS * 32 +
			       DEVICE_MAX_VECTORS * 16 + sizeof(struct device_pci),
	       "wire size");

/* It is a function of the PCI bus: `pci` counts. */
static inline bool device_is_pci(const struct device_desc *d)
{
	return d->version == DEVICE_VERSION_PCI;
}

/* A place, with nothing in it. */
static inline bool device_is_place(const struct device_desc *d)
{
	return d->version == DEVICE_VERSION_PLACE;
}

/* Can it be executed, with `nfds` descriptors? 0; or a negative errno and a line that names the
 * device, the part, its value and what was expected: -EPROTO for another version, -EINVAL for what
 * contradicts itself (windows that overlap, a doorbell outside of the windows, a slot that is not
 * there ...), -EOPNOTSUPP for what the core cannot do yet. Whether it overlaps another device is
 * seen when it is put on the bus. */
int device_check(const struct device_desc *d, unsigned nfds, struct err *e);

/* Make [*from, *to) wide enough for its BARs of 64 bits; in the beginning UINT64_MAX and 0. */
static inline void device_wide_range(const struct device_desc *d, uint64_t *from, uint64_t *to)
{
	for (unsigned i = 0; i < DEVICE_BARS && device_is_pci(d); i++) {
		uint64_t at = d->pci.bar_at[i], end = at + d->pci.bar_size[i];

		if (at < DEVICE_WIDE)
			continue;
		*from = *from < at ? *from : at;
		*to = *to > end ? *to : end;
	}
}

/* The body of MSG_DEVICE: the head, what is used of each array, and `pci` if it counts, one after
 * the other. All devices of a VM are sent before their receiver reads, into what the system
 * buffers. Returns the bytes of it. */
size_t device_pack(const struct device_desc *d, uint8_t body[sizeof(struct device_desc)]);
/* -EPROTO: its length is not what its counts say. What is not used is 0. */
int device_unpack(struct device_desc *d, const void *body, size_t len);

/* [a, a + alen) and [b, b + blen) have a byte in common; no sum overflows. */
static inline int device_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

#endif
