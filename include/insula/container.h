/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A container of a guest, as data: what insula-oci (host) makes of an OCI configuration, and what
 * insula-container (guest) executes. The host knows JSON, libseccomp and cgroup names of both
 * versions; the guest knows system calls, and parses nothing but this.
 *
 * Where. The host and the guest share one directory per VM through virtio-fs, CT_SHARE in the
 * guest. A container has the directory CT_SHARE/ID of it:
 *
 *   config        the container and its first process: records
 *   seccomp       the filter of the first process: an array of struct sock_filter
 *   rootfs/       bind mount of the bundle's root (host side)
 *   m/N           bind mounts of the host's sources of volumes
 *   exec-N        one more process: records of a process only; its filter is exec-N.seccomp
 *   status        written by the guest: one line, "started PID" or "failed STATUS TEXT"
 *   exec-N.status the same of that process
 *
 * and CT_SHARE/sandbox has what is the machine's: network, host name, sysctls.
 *
 * Everything in it is written by the host before the guest is told to read it, but for the status
 * files, which the guest writes under another name and renames. The host trusts nothing of what it
 * reads there: the guest can write all of the share.
 *
 * Records. `key=value`, each ended by a NUL: a value may hold anything that a path or an argument
 * may. The order counts: a key with a dot belongs to the last one without it (mount.type= to the
 * last mount=). Numbers are decimal, but for mode (octal) and capabilities (hexadecimal). An
 * unknown key is an error, a file begins with version=CT_VERSION, and both sides are of one
 * release: the guest's program comes out of the host's initrd.
 *
 * Of a container:
 *   id=ID                      as its directory
 *   rootfs=PATH                of the guest
 *   readonly=1                 the root is mounted read-only
 *   propagation=FLAGS          rootfsPropagation, as mount(2) takes it (MS_SLAVE | MS_REC ...)
 *   hostname= domainname=
 *   ns=TYPE                    a new namespace: mount pid uts ipc cgroup user. Without a record the
 *                              machine's own, which all containers of a pod share; never net
 *   ns=TYPE:ID                 that of the first process of another container of this VM
 *   uidmap=INSIDE OUTSIDE SIZE, gidmap=    with ns=user
 *   mount=DESTINATION          in the root; in order. .type= .source= (a path of the guest for a
 *                              bind) .flags=N (mount(2); with MS_BIND: flags of the second call)
 *                              .clear=N (flags that a bind loses) .prop=N (MS_PRIVATE ... ; 0)
 *                              .data=TEXT .copyup=1 (tmpcopyup)
 *   device=PATH                .type=c|b|p .major= .minor= .mode= .uid= .gid=
 *   pci=ADDRESS                a function of the guest, 0000:00:01.0, .mode= .uid= .gid=: the
 *                              nodes that its driver has made are made in the container, so, and
 *                              allowed. A disk of it is waited for
 *   devrule=allow|deny TYPE MAJOR MINOR ACCESS    in order; TYPE a|b|c, -1 is any number
 *   masked=PATH, ro_path=PATH
 *   sysctl=KEY=VALUE
 *   cgroup=FILE=VALUE          of cgroup v2, in the container's group of the guest: memory.max ...
 *   hook=PATH                  startContainer: in the container, before the process.
 *                              .arg= .env= .timeout=SECONDS .input=TEXT for its standard input
 *                              (the state of the container, as the specification has it)
 *
 * Of a process (a container has one, too):
 *   arg= env= cwd= uid= gid= addgid= umask=     (decimal, too)
 *   terminal=1                 its streams are a terminal
 *   cap.bounding= cap.effective= cap.permitted= cap.inheritable= cap.ambient=   64 bits each
 *   rlimit=NUMBER SOFT HARD    RLIMIT_*
 *   nnp=1                      no_new_privs
 *   oom=N                      oom_score_adj
 *   seccomp=NAME               a file of the same directory. .flags=N as seccomp(2) takes them
 *
 * Of the sandbox:
 *   hostname= sysctl=
 *   nic=MAC                    .name=eth0 .mtu=N .addr=ADDRESS/LEN (v4 or v6, any number)
 *   route=DESTINATION|default  .via=GATEWAY .dev=NAME .src= .metric= .scope=link .onlink=1; in
 *                              order
 *   neigh=ADDRESS              .dev= .mac=
 *
 * Programs that the host starts in the guest, by its ordinary protocol (docs/guest-protocol.md):
 *   CT_PROGRAM sandbox         set up the machine; once, before any container
 *   CT_PROGRAM run ID          make the container and run its process on the streams that this has;
 *                              ends as the process does (128 + N for a signal). Signals that it
 *                              gets it passes on to the process, which has a session of its own;
 *                              all but SIGKILL and SIGSTOP. If it is killed, the container is
 *                              killed
 *   CT_PROGRAM exec ID NAME    the same for CT_SHARE/ID/NAME in the namespaces of a container
 *   CT_PROGRAM kill ID SIGNAL [all]        to its first process, or to all of its group
 *   CT_PROGRAM pause|resume ID
 *   CT_PROGRAM ps ID           {"pids": [...]}, of the guest
 *   CT_PROGRAM stats ID        one JSON object of numbers, -1: none ("max", or not known):
 *                              memory memory_max memory_swap memory_inactive_file (bytes),
 *                              cpu_usec cpu_user_usec cpu_system_usec, cpu_periods cpu_throttled
 *                              cpu_throttled_usec, pids pids_max, oom oom_kill (times)
 *   CT_PROGRAM update ID NAME  cgroup= records of CT_SHARE/ID/NAME
 *   CT_PROGRAM delete ID       kill what is left, remove its group
 *                              Of these, what fails is one line on standard error and status 125;
 *                              "container ID does not exist", "container ID is not running"
 *   CT_PROGRAM connect PORT    its streams become a connection to that TCP port of the loopback
 *   CT_PROGRAM names ADDRESS   a name server at port 53, UDP and TCP, of that loopback address. The
 *                              host answers: both directions of its streams are messages of DNS,
 *                              each behind a struct ct_names_head
 */
#ifndef INSULA_CONTAINER_H
#define INSULA_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#define CT_VERSION "1"
#define CT_SHARE "/run/insula/share"
#define CT_PROGRAM "/insula/container"
#define CT_ID_MAX 128u         /* letters, digits, _ + - . ; not . and .. */
#define CT_FILE_MAX (4u << 20) /* bytes of a file of records */
#define CT_FILTER_MAX 4096u    /* instructions (BPF_MAXINSNS) */
#define CT_STATUS_MAX 512u     /* bytes of a status line */

enum ct_names_kind {
	CT_NAMES_UDP = 1, /* a question, or the answer; of no bytes: there is none */
	CT_NAMES_TCP,
	CT_NAMES_READY /* from the guest, once, first, and of no bytes: it listens */
};
struct ct_names_head {
	uint32_t ticket; /* the guest's; an answer has that of its question */
	uint16_t kind;   /* enum ct_names_kind */
	uint16_t len;    /* bytes of the message */
};
/* A message of DNS over TCP begins with its length (RFC 1035, 4.2.2): how many bytes it has with
 * that, as far as the first `have` of them tell. */
static inline size_t ct_names_whole(const uint8_t *p, size_t have)
{
	return have < 2 ? 2 : 2 + ((size_t)p[0] << 8 | p[1]);
}

#endif
