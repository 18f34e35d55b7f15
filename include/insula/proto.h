/*
 * The channel between the supervisor and each of its children: one AF_UNIX SOCK_SEQPACKET pair per
 * child.
 *
 * Every message is one packet: struct msg_hdr, then `len` bytes of the body that belongs to its
 * type, with up to MSG_MAX_FDS descriptors. All fields are little endian, fixed width, without
 * pointers. The receiver checks version, type, exact length and exact number of descriptors
 * (msg_recv() closes what it did not expect). A child sees the end of the channel when the
 * supervisor is gone, and exits.
 *
 *   supervisor                              child
 *     spawn (jail.h) ----------------------> main(): jail_enter()
 *     MSG_DEVICE (to the vmm, n times) ---->
 *     MSG_START_VMM, MSG_START ------------> set up, jail_seal()
 *     <------------------------------------- MSG_READY (or MSG_FAILED, then exit 1). From now on a
 *                                            helper may answer registers
 *     verify /proc/PID, MSG_GO ------------> the vmm runs the guest
 *     <------------------------------------- MSG_VM_EXIT, MSG_DEV_STUCK, MSG_QUIT ...
 *     MSG_STOP ----------------------------> a helper finishes what is in flight
 *     <------------------------------------- MSG_STOPPED, then exit 0
 */
#ifndef INSULA_PROTO_H
#define INSULA_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include <insula/device.h>
#include <insula/err.h>
#include <insula/start.h>

#define MSG_VERSION 1
#define MSG_MAX_BODY 8192
#define MSG_MAX_FDS START_MAX_SLOTS
#define MSG_CHANNEL_FD 3 /* the child's end after exec */

enum msg_type {
	MSG_START_VMM = 1, /* struct msg_start_vmm */
	MSG_DEVICE,        /* device_pack(); descriptors: its slots */
	MSG_START,         /* to a helper: struct start_head, then its device's own body */
	MSG_GO = 5,        /* empty */
	MSG_STOP,          /* empty */
	MSG_DEV_UP,        /* struct msg_dev: its helper is back (to the vmm) */
	MSG_COUNT,         /* empty: say MSG_COUNTED (to a helper; one at a time) */
	MSG_NET_PEER =
		10,     /* empty; a descriptor: the next stream (to a net helper that has none) */
	MSG_VHOST_PEER, /* empty; a descriptor: the next connection (to a vhost helper that has
			 * none) */
	MSG_VSOCK_CONNECTED = 33, /* struct msg_vsock_connected: the answer (to a vsock helper) */
	MSG_VSOCK_STREAM,         /* struct msg_vsock_stream (to a vsock helper) */
	MSG_VSOCK_CLIENT, /* empty; a descriptor: a stream on which a client will say CONNECT (to
			      * a vsock helper that cannot accept: Windows) */
	MSG_BALLOON,      /* struct msg_balloon (to a balloon helper; one at a time) */
	MSG_BALLOON_ASK,  /* empty: say MSG_BALLOON_STATE, with new statistics (to a balloon helper)
			  */
	MSG_MEM,          /* struct msg_mem (to a mem helper; one at a time) */
	MSG_START_EXEC = 40, /* struct msg_start_exec */
	MSG_EXEC_SIGNAL,     /* struct msg_exec_signal (to an insula-exec) */
	MSG_EXEC_RESIZE,     /* struct msg_exec_size (to an insula-exec) */
	MSG_EXEC_STREAM, /* empty; a descriptor: the next stream to the guest, or none: there will
			  * be no other (to an insula-exec that said MSG_EXEC_BROKEN) */
	MSG_PAUSE = 48,  /* empty: take the vCPUs out of the guest (to the vmm) */
	MSG_RESUME,      /* empty: let them go on (to the vmm) */
	MSG_DEV_DOWN,    /* struct msg_dev: it has no helper, do not wait for one until it is there
			    (to the vmm) */
	MSG_SAVE,        /* empty; a descriptor: write all that the vmm holds into it (to a vmm that
			    has said MSG_PAUSED), or what the back end holds (to a vhost helper;
			    MSG_QUIET follows) */
	MSG_QUIET,       /* struct msg_quiet: touch neither guest memory nor what is behind the
			    device until MSG_RESUME (to a helper) */
	MSG_PLUG, /* device_pack() of a device on PCI, with the index of a place with nothing in it;
		     * descriptors: its slots, but the page is the place's, which was all zeros when
		     * the helper started that has said MSG_READY (to the vmm) */
	MSG_UNPLUG,      /* struct msg_unplug (to the vmm) */
	MSG_CPUS,        /* struct msg_cpus: so many processors the guest is to have (to a vmm with
			    VMM_CPUS) */
	MSG_READY = 64,  /* empty */
	MSG_FAILED,      /* struct msg_failed */
	MSG_VM_EXIT,     /* struct msg_vm_exit (from the vmm) */
	MSG_DEV_STUCK,   /* struct msg_dev: its helper missed a deadline or broke the protocol (from
			    the vmm) */
	MSG_DEV_IS_DOWN, /* struct msg_dev: MSG_DEV_DOWN was heard (from the vmm) */
	MSG_QUIT,        /* empty: the user typed the escape (from a console) */
	MSG_STOPPED,     /* struct msg_stats */
	MSG_COUNTED,     /* struct msg_stats: as far as it has counted (from a helper) */
	MSG_VSOCK_CONNECT = 96, /* struct msg_vsock_connect: the guest wants a stream (from a vsock
				   helper) */
	MSG_NET_LOST,           /* empty: its stream has ended (from a net helper) */
	MSG_VHOST_LOST,         /* empty: its connection has ended (from a vhost helper) */
	MSG_VHOST_INFLIGHT,     /* struct vhost_inflight; a descriptor: what the next helper needs
				 * besides the device page; size 0, no descriptor: nothing (from a
				 * vhost helper) */
	MSG_BALLOON_STATE,      /* struct msg_balloon_state (from a balloon helper) */
	MSG_BALLOON_TAKEN,      /* empty: the answer to MSG_BALLOON (from a balloon helper) */
	MSG_MEM_TAKEN,          /* empty: the answer to MSG_MEM (from a mem helper) */
	MSG_MEM_STATE,          /* struct msg_mem_state (from a mem helper) */
	MSG_VM_EVENT = 104,     /* struct msg_vm_event (from the vmm) */
	MSG_EXEC_STARTED,  /* empty: the command runs (from an insula-exec, like the next three) */
	MSG_EXEC_SIGNALED, /* empty: the guest has taken the signals so far */
	MSG_EXEC_EXIT,     /* struct msg_exec_exit: it has ended, all output is written */
	MSG_EXEC_BROKEN,   /* empty: the stream has ended before the command did */
	MSG_PAUSED = 112,  /* struct msg_paused (from the vmm) */
	MSG_SAVED,         /* struct msg_saved (from the vmm; from a vhost helper, before
			    * MSG_IS_QUIET) */
	MSG_FAULTS,        /* struct msg_faults; a descriptor: of userfaultfd, for a piece of guest
			    * memory (from who maps it, before MSG_READY) */
	MSG_IS_QUIET,  /* struct msg_quiet, the same: nothing is in flight, the device page is up
			    * to date (from a helper) */
	MSG_PLUGGED,   /* struct msg_plugged: the answer to MSG_PLUG. 0: the guest has been told; an
		       * error: nothing has changed (from the vmm) */
	MSG_UNPLUGGED, /* struct msg_plugged: the answer to MSG_UNPLUG. 0: it is off the bus, and
			* nothing of it is in use; an error: it is still there (from the vmm) */
	MSG_CPUS_ARE,  /* struct msg_cpus: so many it has: at the beginning and when it changes
			    (from such a vmm) */
	MSG_START_LAYER = 144, /* to and from insula-layer: insula/layer.h */
	MSG_LAYER,
	MSG_LAYER_END,
	MSG_LAYER_DONE = 160,
	MSG_LAYER_WRITTEN,
	MSG_START_PAGER = 176, /* to and from insula-pager: insula/pager.h */
	MSG_PAGER_GO,
	MSG_PAGER_SYNC,
	MSG_PAGER_FAULTS,
	MSG_PAGER_FILL,
	MSG_PAGER_DONE = 192,
	MSG_PAGER_FROZEN,
	MSG_MODULE_PEER =
		208,     /* struct msg_module_lane; a descriptor: the lane's next connection (to
				* a storage module) */
	MSG_MODULE_NEED, /* struct msg_module_lane: that lane has no connection (from one) */
	MSG_START_METADATA = 224, /* to insula-metadata: insula/metadata.h */
	MSG_METADATA_TREE,
	MSG_NET_POLICY = 232, /* struct net_policy: from now on (to a net helper) */
	MSG_LIMIT, /* struct msg_limit: from now on (to a net or blk helper, or a storage module) */
	MSG_NET_DENIED, /* struct msg_net_denied (from a net helper) */
	MSG_NET_NAME,   /* struct msg_net_name (from a net helper) */
};

struct msg_hdr {
	uint32_t version;
	uint32_t type;
	uint32_t len; /* bytes of body */
	uint32_t nfds;
};

#define VIRTIO_MAX_QUEUES 17 /* of a network device with 8 pairs and its control queue */
#define BLK_MAX_QUEUES 8
#define NET_MAX_PAIRS 8

#define MSG_CMDLINE_MAX 4096
#define VMM_MAX_INITRDS 2
/* Descriptors: the hypervisor (Linux: /dev/kvm), guest memory, a kernel, and up to VMM_MAX_INITRDS
 * initrd parts, which are loaded one after the other, each padded to 4 bytes, as the kernel's
 * initramfs format allows. */
enum vmm_flags {
	VMM_HUGEPAGES = 1, /* all of guest memory, from the start */
	/* Instead of kernel and initrd a START_STATE: what MSG_SAVE has written. Guest memory and
	 * the device pages have their contents by MSG_GO. */
	VMM_RESTORE = 2,
	VMM_PAUSED = 4,   /* from MSG_GO on, as after MSG_PAUSE: MSG_PAUSED follows */
	VMM_CPUS = 8,     /* its processors come and go: MSG_CPUS */
	VMM_ASSIGNS = 16, /* into its places devices of the host may come, too */
};
struct msg_start_vmm {
	struct start_head head; /* START_TAG_VMM; its memory map is all of the guest's */
	uint32_t ncpus;
	uint32_t ncpus_in; /* that the guest has when it boots; the others may come with VMM_CPUS */
	uint32_t ndevices; /* MSG_DEVICE messages that came before */
	uint32_t flags;    /* enum vmm_flags */
	/* Memory for enclaves: the first bytes of START_EPC, above 4 GiB, where the map has
	 * nothing; size 0: no SGX. Its other members are 0. */
	struct mem_region epc;
	uint8_t genid[16]; /* the VM's generation identifier: random, new with each start */
	uint64_t clock[2]; /* of its VMClock, likewise: disruption marker, generation counter */
	char cmdline[MSG_CMDLINE_MAX];
};

#define VSOCK_MIN_CID 3u /* 0 to 2 are the hypervisor, local and the host; virtio 1.2, 5.10.4 */
#define VSOCK_MAX_CID 0xfffffffeu
#define VSOCK_DEFAULT_CID 3u
#define VSOCK_MAX_CONNS 4096u
#define VSOCK_MAX_ASKED 32u /* MSG_VSOCK_CONNECT without an answer */
/* At most VSOCK_MAX_ASKED at a time. */
struct msg_vsock_connect {
	uint32_t id; /* comes back in the answer */
	uint32_t port;
};

/* Descriptors: the connected stream, not blocking, if error is 0. */
struct msg_vsock_connected {
	uint32_t id;
	int32_t error; /* 0 or a negative errno */
};

/* Connect this stream (the one descriptor, not blocking) to a port on which the guest listens. When
 * the guest refuses, or does not answer in time, the descriptor is closed. */
struct msg_vsock_stream {
	uint32_t port;
	uint32_t pad;
};

struct msg_dev {
	uint32_t index;
};

/* What is in a place is to go: 0: when the guest lets it, which is asked by the slot's button; 1:
 * at once. There is one answer when it is gone, however often it was asked for: if the guest was
 * asked that may be at any time, whether somebody still waits or not. If nothing is in the place it
 * comes at once. */
struct msg_unplug {
	uint32_t index; /* of the place */
	uint32_t now;   /* 0 or 1 */
};

struct msg_plugged {
	uint32_t index; /* of the place */
	int32_t error;  /* 0, or a negative errno: text */
	char text[112];
};

struct msg_vm_event {
	uint32_t event; /* BOARD_EVENT_*, each at most once: 8 bits from the guest */
};

enum exec_flags {
	EXEC_STDIN = 1,    /* there is an input */
	EXEC_ESCAPE = 2,   /* Ctrl-] three times within a second ends the VM */
	EXEC_POWEROFF = 4, /* no command: the description is the body of a GP_POWEROFF frame */
	EXEC_RESUMED = 8,  /* no command: the body of a GP_RESUMED frame; insula-exec sets its
			    * clock_ns */
};
/* Descriptors: the stream to the guest, the body of its GP_START frame (a sealed memfd), output,
 * errors, then input if EXEC_STDIN. The last three are the user's: others have them open too. */
struct msg_start_exec {
	uint32_t flags; /* enum exec_flags */
	uint32_t log_level;
	uint32_t start_len; /* bytes of the GP_START body */
	uint32_t id;        /* of the command, not 0; each of a VM has its own */
};

struct msg_exec_signal {
	uint32_t signo;
};

struct msg_exec_size {
	uint16_t rows, cols;
};

enum exec_end {
	EXEC_CODE = 1, /* value: 0-255 */
	EXEC_SIGNALED, /* value: the signal */
	EXEC_REFUSED,  /* could not be started; value: 125, 126 or 127; text: why */
	EXEC_LOST,     /* the stream ended or broke the protocol; text: how */
};
enum exec_exit_flags {
	EXEC_OOM = 1,         /* the guest says that it ran out of memory */
	EXEC_OUTPUT_LOST = 2, /* a descriptor of the user's refused output; text: which and why */
};
#define EXEC_TEXT_LEN 192
struct msg_exec_exit {
	uint32_t end; /* enum exec_end */
	uint32_t value;
	uint32_t flags; /* enum exec_exit_flags */
	char text[EXEC_TEXT_LEN];
};

/* Until commit a0ac791 a supervisor opened insula-exec by its path at each command: VMs of that
 * release start the insula-exec that is installed now. So its messages stay as they are; what is
 * new gets a type of its own. docs/protocol.md, "Releases side by side". */
_Static_assert(MSG_VERSION == 1 && MSG_START_EXEC == 40 && sizeof(struct msg_start_exec) == 16 &&
		       sizeof(struct msg_exec_signal) == 4 && sizeof(struct msg_exec_size) == 4 &&
		       MSG_EXEC_STARTED == 105 && sizeof(struct msg_exec_exit) == 204,
	       "older supervisors speak with this insula-exec");

/* The answer to MSG_PAUSE, when no vCPU is in the guest any more, and to MSG_RESUME. */
struct msg_paused {
	uint32_t paused; /* 1: no vCPU is in the guest, 0: they go on */
};

/* 1 to the ncpus of MSG_START_VMM. */
struct msg_cpus {
	uint32_t n;
};

/* Which order to be quiet it is: an answer may come late. */
struct msg_quiet {
	uint32_t no;
};

/* A piece of guest memory, and where the sender has it. */
struct msg_faults {
	uint64_t offset; /* in the memory's descriptor */
	uint64_t addr;   /* where the sender has it */
	uint64_t len;
};

/* What the descriptor of MSG_SAVE has room for: 68 KiB a vCPU, and 4 MiB for all else. */
#define VMM_SAVE_ROOM(ncpus) ((uint64_t)(ncpus)*69632u + (4u << 20))

/* The answer to MSG_SAVE. */
struct msg_saved {
	int32_t error; /* 0, or a negative errno: text */
	uint32_t no;   /* from a vhost helper: that of MSG_QUIET */
	uint64_t len;  /* bytes written */
	char text[112];
};

struct msg_failed {
	char step[32];      /* name of the step: "root", "seccomp", "kernel", "memory" ... */
	int32_t code;       /* negative errno */
	uint32_t bad_input; /* 1: the user's input is to blame, not Insula or the machine */
	char text[252];
};

enum vm_exit_reason {
	VM_EXIT_POWEROFF = 1,
	VM_EXIT_REBOOT,
	VM_EXIT_STATUS, /* BOARD_REG_EXIT: status */
	VM_EXIT_PANIC,  /* the guest kernel said so through pvpanic */
	VM_EXIT_TRIPLE_FAULT,
	VM_EXIT_ERROR,   /* the hypervisor cannot go on: text, rip, insn */
	VM_EXIT_STOPPED, /* MSG_STOP */
};

#define VM_MAX_DEVICES 59 /* the console, BOARD_MAX_VIRTIO others, BOARD_MAX_PLACES places */
struct vm_dev_metrics {
	char name[DEV_NAME_LEN];
	uint64_t shadow_reads; /* user-space exits answered from the shadow page */
	uint64_t posted;       /* writes posted */
	uint64_t calls;        /* synchronous calls */
	uint64_t call_ns_max;
	uint64_t timeouts;
	uint64_t doorbells; /* doorbell writes that exited all the same */
};
struct msg_vm_exit {
	uint32_t reason;       /* enum vm_exit_reason */
	uint32_t status;       /* VM_EXIT_STATUS: 0-255 */
	uint32_t init_started; /* BOARD_EVENT_INIT_STARTED was seen */
	uint32_t ndevices;
	uint64_t rip;
	uint8_t insn[15];
	uint8_t ninsn;
	char text[128];
	uint64_t first_run_ns;  /* CLOCK_MONOTONIC just before the boot CPU's first run */
	uint64_t exits[16];     /* by enum hv_exit_kind */
	uint64_t unclaimed;     /* accesses that no device took */
	uint64_t ioapic, board; /* exits handled in the core itself */
	struct vm_dev_metrics dev[VM_MAX_DEVICES];
};
_Static_assert(sizeof(struct msg_vm_exit) <= MSG_MAX_BODY, "fits one message");
_Static_assert(sizeof(struct msg_start_vmm) <= MSG_MAX_BODY, "fits one message");

/* MSG_LIMIT, and of start messages; 0: none. */
#define LIMIT_MOST (1ull << 40)
struct msg_limit {
	uint64_t rate; /* bytes a second: of a card in each direction, of a disk read and written */
	uint64_t ops;  /* frames or requests a second, in the same way */
};

#define STATS_ROOM 20
struct msg_stats { /* counters of a helper; meaning by program, see docs/protocol.md */
	uint64_t n[STATS_ROOM];
};

/* ---- functions (src/base/msg.c); blocking unless the socket is not; any one thread per socket
 * ---- */

/* Send one message. 0 or a negative errno (-EPIPE: the peer is gone). Descriptors stay the
 * caller's. */
int msg_send(int sock, enum msg_type type, const void *body, size_t len, const int *fds,
	     unsigned nfds);

/* Receive one message of at most `size` body bytes into `body`. On success *type, *len,
 * fds[0..*nfds) are set and the caller owns the descriptors (close-on-exec). -EPIPE at the end of
 * the channel, -EPROTO for a malformed message (nothing is kept open). fds has room for
 * MSG_MAX_FDS. */
int msg_recv(int sock, enum msg_type *type, void *body, size_t size, size_t *len, int *fds,
	     unsigned *nfds);

/* Receive, and insist on this type, exact length and exact number of descriptors (max MSG_MAX_FDS);
 * else -EPROTO, or, if the peer sent MSG_FAILED, its code with the text "step: text" in e. */
int msg_expect(int sock, enum msg_type type, void *body, size_t len, int *fds, unsigned nfds,
	       struct err *e);

/* Send MSG_FAILED. */
void msg_fail(int sock, const char *step, int code, const char *text, int bad_input);

#endif
