/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The protocol between insula-exec on the host and insula-init in the guest: frames on one stream
 * (vsock port GP_PORT of the guest) per command or request. docs/guest-protocol.md explains it;
 * this header is the wire format and the codec that both sides share (src/base/guestproto.c).
 *
 * A frame is a header of GP_HDR_LEN bytes, then `len` bytes of body; all fields little endian, no
 * pointers. Either side closes the stream at the first frame that its peer may not send, or whose
 * length is not what the type's table says. Nothing here allocates, and nothing keeps a pointer.
 * One thread per object.
 *
 * Data is under credit, per stream of a command and not per connection: a stream that nobody reads
 * stops itself and neither the others nor a signal behind it.
 *
 * The command outlives the connection (insula-vsock may die): each side counts the bytes of the
 * whole frames that it has received, keeps what it has sent until the peer has acknowledged it, and
 * sends the rest again on the next connection. HELLO, ACK and HANGUP belong to one connection: they
 * are not counted, not kept, and go ahead of what waits.
 */
#ifndef INSULA_GUESTPROTO_H
#define INSULA_GUESTPROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GP_PORT 1u           /* vsock port that insula-init listens on */
#define GP_MAGIC 0x31504749u /* "IGP1" */
#define GP_VERSION 1u
#define GP_HDR_LEN 8u
#define GP_DATA_MAX 32768u    /* bytes of one GP_STDIN, GP_STDOUT or GP_STDERR frame */
#define GP_START_MAX 262144u  /* body of GP_START: the arguments and the environment */
#define GP_RESUMED_MAX 4096u  /* body of GP_RESUMED */
#define GP_ARGS_MAX 1024u     /* arguments, and as many variables */
#define GP_WINDOW_IN 65536u   /* credit at the start: standard input */
#define GP_WINDOW_OUT 262144u /* the same: standard output and standard error each */
#define GP_REPLAY 131072u     /* bytes that a side may have sent and not seen acknowledged */
#define GP_ACK_EVERY 32768u   /* a side acknowledges at the latest after so many */
#define GP_TEXT_LEN 192u

enum gp_side { GP_HOST, GP_GUEST };
enum gp_stream { GP_STREAM_IN, GP_STREAM_OUT, GP_STREAM_ERR };

enum gp_type {
	GP_HELLO = 1, /* struct gp_hello: the first frame of both sides */
	GP_START,     /* struct gp_start and its strings: run this command here */
	GP_POWEROFF,  /* struct gp_poweroff: end the machine in order */
	GP_PING,      /* empty; answered by GP_PONG */
	GP_STDIN,     /* bytes */
	GP_STDIN_END, /* empty */
	GP_SIGNAL,    /* struct gp_signal; answered by GP_SIGNALED */
	GP_RESIZE,    /* struct gp_size */
	GP_CREDIT,    /* struct gp_credit: so much more may be sent (both sides) */
	GP_CLOSE,     /* struct gp_close: nobody reads this stream any more (both sides) */
	GP_ACK,       /* struct gp_ack: received so far (both sides) */
	GP_HANGUP,    /* empty: the command is given up, no other connection will come */
	GP_RESUMED, /* struct gp_resumed and its strings: the machine goes on; answered by GP_EXIT */

	GP_PONG = 64, /* empty; one may answer several */
	GP_STARTED,   /* struct gp_started */
	GP_STDOUT,    /* bytes */
	GP_STDERR,    /* bytes */
	GP_SIGNALED,  /* empty: the signals so far have been sent */
	GP_EXIT,      /* struct gp_exit: the last frame; all output came before it */
};

struct gp_hdr {
	uint32_t len; /* bytes of body */
	uint16_t type;
	uint16_t zero;
};
_Static_assert(sizeof(struct gp_hdr) == GP_HDR_LEN, "wire size");

enum gp_hello_flags { GP_HELLO_GONE = 1 /* guest: no such command (any more); the last frame */ };
struct gp_hello {
	uint32_t magic;
	uint32_t version; /* the sender's; both must be the same */
	uint32_t id;    /* the command's, not 0; of one VM each has its own; the guest repeats it */
	uint32_t flags; /* enum gp_hello_flags */
	uint64_t received;
};

struct gp_ack {
	uint64_t received; /* bytes of whole frames, headers included, since the command began */
};

enum gp_start_flags {
	GP_START_TTY = 1,   /* a terminal of rows x cols; no stream of its own for errors */
	GP_START_STDIN = 2, /* there is an input; else it is empty */
	GP_START_USER = 8,  /* one string more, the last: USER[:GROUP], of which at least one is a
			     * name that the guest looks up; uid and gid do not count */
	GP_START_ONLY = 4,  /* the machine's one task: when it ends, kill every other process and
			     * write back and unmount the disks, then send GP_EXIT */
};
#define GP_NO_GID UINT32_MAX /* the group of that user */
/* Followed by 1 + argc + envc strings, each with its NUL: directory, arguments, NAME=VALUE; and
 * with GP_START_USER the user. */
struct gp_start {
	uint32_t flags; /* enum gp_start_flags */
	uint32_t uid, gid;
	uint16_t rows, cols;
	uint32_t argc, envc;
};

enum gp_poweroff_how { GP_END_POWEROFF = 1, GP_END_STATUS };
struct gp_poweroff {
	uint32_t how;    /* enum gp_poweroff_how */
	uint32_t status; /* GP_END_STATUS: 0-255, for the board's exit register */
	/* An init of the root's own is asked first, and has so long; 0, or a frame that ends before
	 * this: it is not asked. */
	uint32_t init_ms;
};

#define GP_CARDS_MAX 8u
#define GP_SEED_LEN 64u
enum gp_resumed_flags { GP_RESUMED_CLOCK = 1 /* set the clock */ };
/* The machine has been paused, or goes on from the memory of another one. Followed by
 * GP_RESUMED_NAMES + ncards strings, each with its NUL and without control characters: the VM's
 * name; the host name and the machine-id that the guest has from now on (empty: as they are); for
 * each network card "OLD,RECORD": the MAC address that the guest's driver knows it by, and a record
 * of src/guest/net.c, which begins with the one that it has from now on. */
struct gp_resumed {
	uint32_t flags;  /* enum gp_resumed_flags */
	uint32_t ncards; /* at most GP_CARDS_MAX */
	/* Nanoseconds since 1970 by the host's clock: insula-exec writes them when the frame goes
	 * out. */
	uint64_t clock_ns;
	uint8_t seed[GP_SEED_LEN]; /* random numbers of the host */
};
enum gp_resumed_names { GP_NAME_VM, GP_NAME_HOST, GP_NAME_MACHINE_ID, GP_RESUMED_NAMES };

struct gp_signal {
	uint32_t signo; /* Linux's number, 1-64; to the whole process group */
};

struct gp_size {
	uint16_t rows, cols;
};

struct gp_credit {
	uint32_t stream; /* enum gp_stream */
	uint32_t bytes;  /* at least 1; all credit together never exceeds the window */
};

struct gp_close {
	uint32_t stream; /* the host: output or error; the guest: input */
};

struct gp_started {
	uint32_t pid;
};

enum gp_exit_kind {
	GP_EXIT_CODE = 1, /* value: 0-255 */
	GP_EXIT_SIGNAL,   /* value: the signal */
	GP_EXIT_REFUSED,  /* it never ran; value: 125, 126 or 127; the text says why */
};
enum gp_exit_flags { GP_EXIT_OOM = 1 /* the guest ran out of memory and killed something */ };
struct gp_exit {
	uint32_t kind; /* enum gp_exit_kind */
	uint32_t value;
	uint32_t flags; /* enum gp_exit_flags */
	uint32_t zero;
	char text[GP_TEXT_LEN]; /* terminated */
};

/* May `from` send a frame with this header? 0 or -EPROTO. */
int gp_check(const struct gp_hdr *h, enum gp_side from);

/* ---- receiving: exactly one frame at a time, so that nothing is left over ---- */

struct gp_in {
	struct gp_hdr hdr;
	uint8_t *body; /* the caller's */
	uint32_t room, have;
	uint64_t received, acked; /* counted bytes; and those that the peer has been told of */
};

/* `body` has `room` bytes and is the caller's; a longer frame is -EPROTO. */
void gp_in_init(struct gp_in *in, void *body, uint32_t room);
/* Another connection: half a frame is forgotten, it will come again. */
void gp_in_restart(struct gp_in *in);
/* Where the next bytes of the stream belong, and how many (never 0). */
size_t gp_in_want(struct gp_in *in, uint8_t **at);
/* `n` bytes (at most what was wanted) have arrived there. 1: hdr and body are a whole, checked
 * frame, valid until the next gp_in_want(); 0: not yet; -EPROTO. */
int gp_in_got(struct gp_in *in, size_t n, enum gp_side from);

/* ---- sending: a ring of what has been sent and not acknowledged, and what is still to be sent.
 * Positions are counted bytes since the command began: acked <= sent <= head. ---- */

#define GP_OUT_SMALL 1024u /* data leaves so much room for the small frames */
#define GP_OUT_OWN 64u
struct gp_out {
	uint64_t acked, sent, head;
	uint32_t left;          /* of the frame that has been sent in part */
	uint32_t own_at, own_n; /* the connection's own frames: bytes [own_at, own_n) wait */
	uint8_t own[GP_OUT_OWN];
	uint8_t ring[GP_REPLAY];
};

/* `start`: counted bytes that the caller has sent, or will send first, by itself. */
void gp_out_init(struct gp_out *o, uint64_t start);
/* Append a frame: 0, or -ENOSPC when there is no room now. */
int gp_put(struct gp_out *o, enum gp_type type, const void *body, uint32_t len);
/* The same for HELLO, ACK and HANGUP. */
int gp_put_own(struct gp_out *o, enum gp_type type, const void *body, uint32_t len);
/* How long a data frame may be now; 0: something waits to be sent, or to be acknowledged. Then
 * where to put its body; gp_put_data() makes a frame of the first `len` bytes. */
uint32_t gp_data_max(const struct gp_out *o);
uint8_t *gp_data_at(struct gp_out *o);
void gp_put_data(struct gp_out *o, enum gp_type type, uint32_t len);
/* Is there room for any of the small frames? */
bool gp_out_ready(const struct gp_out *o);
/* Does anything wait to be sent? */
bool gp_out_waits(const struct gp_out *o);
/* The next bytes for the connection, at most one frame; 0: nothing waits. Then how many of them
 * have gone. */
size_t gp_out_piece(struct gp_out *o, const uint8_t **at);
void gp_out_sent(struct gp_out *o, size_t n);
/* The peer has received so much. -EPROTO: more than was sent, or less than it said before. */
int gp_out_acked(struct gp_out *o, uint64_t received);
/* Another connection, whose peer has received so much: the rest is sent again. -EPROTO as above. */
int gp_out_restart(struct gp_out *o, uint64_t received);
/* Forget the connection's own frames: it has ended. */
void gp_out_drop(struct gp_out *o);

/* Acknowledge what `in` has received if so much is due (GP_ACK_EVERY; 1: whatever there is). */
void gp_acknowledge(struct gp_in *in, struct gp_out *o, uint32_t due);

/* ---- GP_START ---- */

/* Check a whole body: the counts, the flags, the strings. 0 or -EPROTO. */
int gp_start_check(const uint8_t *body, size_t len, struct gp_start *out);
/* Point into a body that gp_start_check() has accepted. argv and env have room for GP_ARGS_MAX + 1
 * and end with NULL. *user is NULL without GP_START_USER. */
void gp_start_strings(uint8_t *body, char **cwd, char **user, char **argv, char **env);
/* Build a body; `user`: NULL or empty, or what GP_START_USER means, which it sets. Its length or
 * -E2BIG (too many or too long for `size`), -EINVAL (no argument). */
int gp_start_build(uint8_t *body, size_t size, const struct gp_start *s, const char *cwd,
		   const char *user, char *const *argv, char *const *env);

/* ---- GP_RESUMED ---- */

/* Empty, or 1 to 64 letters, digits, dots, hyphens and underscores, the first no dot nor hyphen. */
#define GP_HOST_NAME_FORM                                                                         \
	"1 to 64 letters, digits, dots, hyphens and underscores, the first a letter, a digit or " \
	"an "                                                                                     \
	"underscore"
bool gp_host_name_ok(const char *s);
/* Empty, or 32 digits 0-9a-f. */
bool gp_machine_id_ok(const char *s);
/* "MAC,MAC", and perhaps more behind a comma, printable. */
bool gp_card_ok(const char *s);
/* Check a whole body, the strings as well. 0 or -EPROTO. */
int gp_resumed_check(const uint8_t *body, size_t len, struct gp_resumed *out);
/* Point into a body that gp_resumed_check() has accepted: GP_RESUMED_NAMES + GP_CARDS_MAX places;
 * what there is not is NULL. */
void gp_resumed_strings(uint8_t *body, char *s[GP_RESUMED_NAMES + GP_CARDS_MAX]);
/* Build a body; `s`: GP_RESUMED_NAMES + r->ncards strings. Its length, -E2BIG (too long for `size`)
 * or -EINVAL (gp_resumed_check() would not accept it). */
int gp_resumed_build(uint8_t *body, size_t size, const struct gp_resumed *r, const char *const *s);

#endif
