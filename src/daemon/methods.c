/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of methods, from which requests are dispatched and checked, rpc.discover and
 * docs/control-api.md are made, and tests check the answers. What they do is in methods.h's files.
 */
#include <string.h>

#include <insula/base.h>

#include "methods.h"

/* clang-format off */

/* ---- schemas: members of an object, and objects of them ---- */

#define MEMBER(name, schema)      "\"" name "\":{" schema "}"
#define ABOUT(words)              ",\"description\":\"" words "\""
#define RANGE(min, max)           ",\"minimum\":" min ",\"maximum\":" max
#define WORDS(name, words)        MEMBER(name, "\"type\":\"string\"" ABOUT(words))
#define NAMED(name, max, words) \
	MEMBER(name, "\"type\":\"string\",\"minLength\":1,\"maxLength\":" max ABOUT(words))
#define ONE_OF(name, values)      MEMBER(name, "\"type\":\"string\",\"enum\":[" values "]")
#define NUMBER(name, min, max, words) \
	MEMBER(name, "\"type\":\"integer\"" RANGE(min, max) ABOUT(words))
#define COUNT(name, words)        MEMBER(name, "\"type\":\"integer\",\"minimum\":0" ABOUT(words))
#define FLAG(name, words)         MEMBER(name, "\"type\":\"boolean\"" ABOUT(words))
#define THING(name)               MEMBER(name, "\"type\":\"object\"")
#define THINGS(name)              MEMBER(name, "\"type\":\"array\",\"items\":{\"type\":\"object\"}")
#define OBJECT_ABOUT(name, words) MEMBER(name, "\"type\":\"object\"" ABOUT(words))
#define LIST_ABOUT(name, words) \
	MEMBER(name, "\"type\":\"array\",\"items\":{\"type\":\"object\"}" ABOUT(words))
#define STRINGS(name, max, words) \
	MEMBER(name, "\"type\":\"array\",\"maxItems\":" max \
		     ",\"items\":{\"type\":\"string\"}" ABOUT(words))

#define MUST(name)                "\"" name "\""
#define OBJECT(required, members) \
	"{\"type\":\"object\",\"additionalProperties\":false," \
	"\"required\":[" required "],\"properties\":{" members "}}"
/* Answers may grow. */
#define ANSWER(required, members) \
	"{\"type\":\"object\",\"required\":[" required "],\"properties\":{" members "}}"
#define NOTHING                   OBJECT("", "")
#define DONE                      ANSWER("", "")

/* ---- members that several have ---- */

#define ID      NAMED("id", "63", "id or name of the VM")
#define OF_ID   OBJECT(MUST("id"), ID)
#define NAME    NAMED("name", "63", "letters, digits, dots, dashes and underscores; without, one " \
				    "is made")
#define CONFIG  OBJECT_ABOUT("config", "what insula-run --json takes; paths are absolute")
#define PLUG_CONFIG \
	MEMBER("config", "\"type\":\"object\",\"properties\":{" MEMBER("disk", "") "," \
			 MEMBER("net", "") "," MEMBER("share", "") "," MEMBER("device", "") "," \
			 MEMBER("vfio", "") "," MEMBER("vsock", "") "," \
			 MEMBER("console", "") "}" \
			 ABOUT("one member, disk, net, share, device, vfio, vsock or console: " \
			       "what is an element of disks, nets, shares, devices or vfios in a " \
			       "VM's configuration, or its vsock or console"))
#define WAIT    FLAG("wait", "answer when the VM has ended, with its result; else when the guest " \
			     "runs")
#define DEVICE  NAMED("device", "31", "as vm.info names it: vda, com1 ...")
#define EXEC    NUMBER("exec", "1", "4294967295", "the command, as vm.exec has named it")
#define SIZE    NUMBER("rows", "1", "65535", "of the terminal") "," \
		NUMBER("cols", "1", "65535", "")
#define TIMEOUT NUMBER("timeout_ms", "1", "86400000", "default: none")
#define STREAMS(max) \
	STRINGS("streams", max, "Windows, instead of descriptors: names of pipes that this " \
				"client has made, of one instance each")

/* ---- answers that several give ---- */

#define STATES "\"created\",\"starting\",\"running\",\"paused\",\"stopping\",\"ended\",\"broken\""
#define MACHINE_MEMBERS \
	WORDS("id", "never used again") "," \
	WORDS("name", "") "," \
	COUNT("uid", "whose it is") "," \
	ONE_OF("state", STATES) "," \
	FLAG("transient", "deleted when it ends") "," \
	WORDS("pool", "it stands in this pool, until vm.run takes it") "," \
	COUNT("cpus", "") "," \
	COUNT("mem", "bytes") "," \
	COUNT("created_ms", "since 1970") "," \
	COUNT("started_ms", "") "," \
	COUNT("ended_ms", "") "," \
	COUNT("pid", "of its supervisor") "," \
	COUNT("restarts", "of its device processes") "," \
	WORDS("reason", "how it ended") "," \
	COUNT("status", "that insula-run would have") "," \
	FLAG("existed", "vm.create: it was there before") "," \
	WORDS("error", "of a broken one: why its record cannot be read")
#define OWNER_SID WORDS("sid", "Windows: whose it is; uid is then a number of this daemon's own")
#define MACHINE_REQUIRED \
	MUST("id") "," MUST("name") "," MUST("uid") "," MUST("state") "," MUST("cpus") "," \
	MUST("mem")
#define MACHINE ANSWER(MACHINE_REQUIRED, MACHINE_MEMBERS "," OWNER_SID)
#define RESULT ANSWER(MUST("id") "," MUST("name"), \
	WORDS("id", "") "," \
	WORDS("name", "") "," \
	WORDS("reason", "how it ended") "," \
	COUNT("status", "that insula-run would have") "," \
	WORDS("message", "one line for people, if there is something to say") "," \
	THINGS("devices") "," \
	MEMBER("stop", "\"type\":\"string\",\"enum\":[\"clean\",\"forced\"]" \
	       ABOUT("after vm.stop: the guest has ended by itself, or was stopped")))
#define BALLOON_MEMBERS \
	COUNT("target", "bytes that the guest is to be left with") "," \
	COUNT("actual", "bytes that it has: what its driver last said") "," \
	COUNT("age_ms", "how old actual and stats are; missing: the guest has never said " \
			"anything") "," \
	OBJECT_ABOUT("stats", "the guest's own words: free_bytes, available_bytes, cache_bytes, " \
			      "total_bytes, swap_in_bytes, swap_out_bytes, major_faults, " \
			      "minor_faults, and what its kernel says besides")
/* Of what can be resized; missing: this VM's cannot. */
#define RESIZED \
	OBJECT_ABOUT("memory", "bytes: requested, actual (what the guest has), max") "," \
	OBJECT_ABOUT("processors", "requested, actual (what the guest has), max, and text if " \
				   "these two differ")
#define PLUGGED ANSWER(MUST("device") "," MUST("kind") "," MUST("place"), \
	WORDS("device", "its name") "," \
	WORDS("kind", "disk, net, share, device (vhost-user), vfio, console, rng, vsock, " \
		      "balloon or mem") "," \
	WORDS("place", "on the PCI bus, as lspci has it: 00:03.0; else mmio or ports") "," \
	FLAG("removable", "it was added while the VM runs") "," \
	COUNT("slot", "that it is in: /sys/bus/pci/slots of the guest; missing: in none") "," \
	WORDS("state", "ok, restarting, failed; adding, removing") "," \
	COUNT("restarts", "of its process") "," \
	WORDS("tty", "of a console that was added as pty: the terminal of the host"))
#define TREE \
	OBJECT_ABOUT("metadata", "at most 51200 bytes of JSON, 12 objects deep, names without " \
				 "slashes")
#define METADATA ANSWER(MUST("metadata"), OBJECT_ABOUT("metadata", "all of it, as it is now"))
#define OF_POOL OBJECT(MUST("name"), NAMED("name", "63", "name or id of the pool"))
#define POOL_MEMBERS \
	WORDS("id", "") "," \
	WORDS("name", "") "," \
	COUNT("uid", "whose it is") "," \
	OWNER_SID "," \
	COUNT("count", "how many shall stand") "," \
	COUNT("standing", "how many do") "," \
	COUNT("starting", "how many are about to") "," \
	COUNT("cpus", "of each") "," \
	COUNT("mem", "of each, bytes") "," \
	COUNT("created_ms", "since 1970") "," \
	COUNT("taken", "how many vm.run has taken, since insulad began") "," \
	COUNT("missed", "how often vm.run found none") "," \
	COUNT("failures", "starts that failed, and VMs that ended while they stood") "," \
	WORDS("why", "the last of these; missing: it has been full since") "," \
	COUNT("next_try_ms", "until then it is not filled, because of that")
#define POOL_REQUIRED \
	MUST("id") "," MUST("name") "," MUST("uid") "," MUST("count") "," MUST("standing") "," \
	MUST("starting")
#define POOL ANSWER(POOL_REQUIRED, POOL_MEMBERS)
/* With "wait" the answer is the result, without it is the VM: both have these. */
#define STARTED ANSWER(MUST("id") "," MUST("name"), MACHINE_MEMBERS "," OWNER_SID)

/* ---- the methods ---- */

const struct method methods[] = {
	{"daemon.info", "What this daemon is, and what the client may use.",
	 method_daemon_info, NOTHING,
	 ANSWER(MUST("version") "," MUST("pid") "," MUST("uid") "," MUST("cgroup"),
		WORDS("version", "") ","
		COUNT("pid", "") ","
		COUNT("uptime_ms", "") ","
		COUNT("uid", "the client's") ","
		FLAG("cgroup", "VMs have control groups") ","
		COUNT("host_memory", "bytes") ","
		COUNT("overcommit_percent", "") ","
		OBJECT_ABOUT("limits", "of this user; root has none")), false},
	{"daemon.metrics", "Counters of the daemon.", method_daemon_metrics, NOTHING,
	 ANSWER(MUST("requests") "," MUST("vms"),
		COUNT("requests", "") ","
		OBJECT_ABOUT("vms", "by state")), false},
	{"vm.create",
	 "Make a VM, and start nothing. The same name and configuration again is the same VM.",
	 method_vm_create, OBJECT(MUST("config"), NAME "," CONFIG), MACHINE, false},
	{"vm.start",
	 "Start a VM that is created or has ended. A stream socket that comes with the request "
	 "(SCM_RIGHTS) is attached to the console from the first byte on. With a second one, which "
	 "gets the errors of the configuration's command, all that the command writes arrives: it "
	 "waits until that is read, and so does the end of the VM.",
	 method_vm_start, OBJECT(MUST("id"), ID "," WAIT "," STREAMS("1")), STARTED, true},
	{"vm.run",
	 "Create, start, and delete at the end. Stream sockets as with vm.start. With a pool, one "
	 "of its VMs goes on instead, or one is started as the pool says if none stands; the "
	 "configuration may have a timeout then, and no more.",
	 method_vm_run,
	 OBJECT("",
		NAME "," CONFIG ","
		NAMED("pool", "63", "of this user; without, config is required") "," WAIT ","
		FLAG("keep", "it is not deleted when it has ended") ","
		STREAMS("1")),
	 STARTED, true},
	{"pool.create",
	 "Keep VMs that have been restored from a snapshot and stand: vm.run takes one. Answered at "
	 "once; pool.info says when they are ready, or why not. The pool is filled again, and lives "
	 "on when insulad or the host is restarted.",
	 method_pool_create,
	 OBJECT(MUST("name") "," MUST("config"),
		NAMED("name", "63", "letters, digits, dots, dashes and underscores") "," CONFIG ","
		NUMBER("count", "1", "256", "how many stand; default 1")),
	 POOL, false},
	{"pool.list", "All pools of the client; root sees everybody's.", method_pool_list, NOTHING,
	 ANSWER(MUST("pools"), "\"pools\":{\"type\":\"array\",\"items\":" POOL "}"), false},
	{"pool.info", "One pool, with its configuration.", method_pool_info, OF_POOL,
	 ANSWER(POOL_REQUIRED, POOL_MEMBERS "," CONFIG), false},
	{"pool.remove",
	 "Forget a pool, and end the VMs that stand in it. Answered when they have ended; those that "
	 "were taken run on.",
	 method_pool_remove, OF_POOL, DONE, false},
	{"vm.list", "All VMs of the client; root sees everybody's.", method_vm_list, NOTHING,
	 ANSWER(MUST("vms"), "\"vms\":{\"type\":\"array\",\"items\":" MACHINE "}"), false},
	{"vm.info", "One VM, with its configuration and processes.", method_vm_info, OF_ID,
	 ANSWER(MACHINE_REQUIRED "," MUST("config"),
		MACHINE_MEMBERS ","
		OWNER_SID ","
		CONFIG ","
		FLAG("adopted", "started by an earlier daemon") ","
		FLAG("cgroup", "it has a control group") ","
		OBJECT_ABOUT("result", "vm.wait's, when it has ended") ","
		FLAG("answers", "its supervisor does") ","
		WORDS("supervisor_version", "its supervisor's release, older than the daemon's "
					    "after an upgrade; missing: it does not say") ","
		THINGS("processes") ","
		LIST_ABOUT("devices", "name, state (ok, restarting, failed), restarts, "
				      "next_try_ms while it waits; limits that it has: rate, and "
				      "pps of a card or iops of a disk") ","
		OBJECT_ABOUT("balloon", "as vm.balloon answers it; missing: the VM has none") ","
		RESIZED),
	 false},
	{"vm.pause", "Take the processors out of the guest. Answered when none is in it.",
	 method_vm_pause, OF_ID, MACHINE, false},
	{"vm.resume",
	 "Let them go on. With set_clock the guest is told so, also one that was not paused: it "
	 "gets the host's time and new random numbers, and runs its hooks; the event \\\"renewed\\\" "
	 "says when it has, and what failed.",
	 method_vm_resume,
	 OBJECT(MUST("id"), ID ","
		FLAG("set_clock", "for a guest that boots Insula's own initrd")),
	 MACHINE, false},
	{"vm.snapshot",
	 "Write the VM, as it is at one moment, into a new directory, from which insula-run "
	 "--restore or a configuration with \\\"restore\\\" goes on. Disks and shares are not part "
	 "of it. Answered when all of it is on the disk.",
	 method_vm_snapshot,
	 OBJECT(MUST("id") "," MUST("path"), ID ","
		WORDS("path", "absolute, of a directory that is not there yet; made with the "
			      "rights of the VM's owner") ","
		ONE_OF("kind", "\"full\",\"diff\"") ","
		WORDS("base", "diff: the snapshot that it builds on, whose memory is needed as long "
			      "as this one; default: the last one of this VM") ","
		FLAG("keep_running", "the VM goes on, as before; default true. false: it ends")),
	 ANSWER(MACHINE_REQUIRED,
		MACHINE_MEMBERS "," OWNER_SID ","
		COUNT("paused_us", "how long the guest stood still; 0: it was paused before") ","
		FLAG("live", "whether its memory was copied while it went on")), false},
	{"vm.clone",
	 "Make VMs that go on from where this one is now, and let it go on. They have its memory, "
	 "read when they touch it; disks, cards and shares are the same unless config says "
	 "otherwise. Each is a machine of its own: its guest is told the VM's name as its host "
	 "name, and gets random numbers, a machine-id and MAC addresses of its own; with "
	 "\\\"identity\\\": \\\"kept\\\" in config it keeps the names and addresses. Answered when all "
	 "of them run; if one cannot, none does.",
	 method_vm_clone,
	 OBJECT(MUST("id"), ID ","
		NUMBER("count", "1", "256", "how many; default 1") ","
		WORDS("name", "of the clone; of several NAME-1, NAME-2 ...") ","
		WORDS("place", "absolute: a directory of the host for the memory until the clones "
			       "run, which the owner can write to; default /var/tmp") ","
		CONFIG),
	 ANSWER(MUST("vms"),
		"\"vms\":{\"type\":\"array\",\"items\":" MACHINE "},"
		COUNT("paused_us", "how long this VM's guest stood still; 0: it was paused before")),
	 false},
	{"vm.stop",
	 "End a VM in order. A guest that boots Insula's own initrd is asked to power off, and "
	 "asks an init of the root's own; one that does not by the deadline, or cannot be asked, "
	 "is stopped. Devices write out what they have. Answered at the end; \\\"stop\\\" says "
	 "which it was.",
	 method_vm_stop,
	 OBJECT(MUST("id"), ID ","
		NUMBER("deadline_ms", "0", "3600000",
		       "for the guest to power off; default 10000, 0: it is not asked")),
	 RESULT, false},
	{"vm.kill", "End a VM at once. Answered at the end.", method_vm_kill, OF_ID, RESULT, false},
	{"vm.wait", "Answered when the VM has ended, with its result.", method_vm_wait,
	 OBJECT(MUST("id"), ID "," TIMEOUT), RESULT, false},
	{"vm.delete", "Forget a VM that does not run.", method_vm_delete, OF_ID, DONE, false},
	{"vm.console",
	 "Attach to the console. The answer brings a descriptor (SCM_RIGHTS): a stream socket, "
	 "output out, input in; closing it detaches. Windows: it brings the name of a pipe "
	 "that this client alone can open, within ten seconds.",
	 method_vm_console,
	 OBJECT(MUST("id"), ID "," NUMBER("scrollback", "0", "65536", "bytes of earlier output")),
	 ANSWER("", WORDS("pipe", "Windows: its name")), false},
	{"vm.exec",
	 "Run a command in a VM that boots Insula's own initrd. Two or three descriptors come with "
	 "the request (SCM_RIGHTS): output and errors, or input, output and errors. Answered when "
	 "it is on its way; vm.exec.wait and the event \\\"exec-ended\\\" tell its end, by when "
	 "all output is written.",
	 method_vm_exec,
	 OBJECT(MUST("id") "," MUST("command"),
		ID ","
		STRINGS("command", "1024", "the program and its arguments") ","
		STRINGS("env", "1000", "NAME=VALUE") ","
		WORDS("cwd", "an absolute path") ","
		WORDS("user", "USER[:GROUP], numbers or names that the guest knows; default 0") ","
		FLAG("tty", "on a terminal; errors come with the output") ","
		SIZE ","
		FLAG("queue", "a guest that still boots is waited for; without, the request is "
			      "refused: not-ready") ","
		NUMBER("queue_seconds", "1", "3600",
		       "with queue: for so long at most; default 60") ","
		STREAMS("3")),
	 ANSWER(MUST("exec"), EXEC), true},
	{"vm.exec.signal",
	 "Send a signal to the process group of a command. 9 also ends one that has not begun.",
	 method_vm_exec_signal,
	 OBJECT(MUST("id") "," MUST("exec") "," MUST("signal"),
		ID "," EXEC "," NUMBER("signal", "1", "64", "Linux's number")),
	 DONE, false},
	{"vm.exec.resize", "The terminal of a command has another size.", method_vm_exec_resize,
	 OBJECT(MUST("id") "," MUST("exec") "," MUST("rows") "," MUST("cols"),
		ID "," EXEC "," SIZE),
	 DONE, false},
	{"vm.exec.wait",
	 "Answered when a command has ended. The VM remembers the last 128 of its commands, also "
	 "when insulad is restarted.",
	 method_vm_exec_wait, OBJECT(MUST("id") "," MUST("exec"), ID "," EXEC "," TIMEOUT),
	 ANSWER(MUST("exec") "," MUST("status") "," MUST("reason"),
		EXEC ","
		NUMBER("status", "0", "255", "128 + the signal that ended it; 125 to 127: it could "
					     "not be run, or is lost") ","
		ONE_OF("reason", "\"exited\",\"signaled\",\"refused\",\"lost\",\"output-lost\"") ","
		WORDS("text", "why, if there is more to say")), false},
	{"vm.logs",
	 "What the console and the command of a VM said, and its supervisor and their children, as "
	 "far as log_max goes: also when it has ended, and the end of the run before. With "
	 "\\\"follow\\\" lines come as notifications \\\"log\\\" {id, request, lines, next, "
	 "missed}, and the answer, with the last ones, when the VM has ended.",
	 method_vm_logs,
	 OBJECT(MUST("id"),
		ID ","
		WORDS("after", "\\\"next\\\" of an earlier answer: go on there; without, at the "
			       "beginning") ","
		NUMBER("tail", "0", "1000000000", "begin with so many of the last lines") ","
		COUNT("since_ms", "only lines that are not older, since 1970") ","
		NUMBER("limit", "1", "524288", "of one answer, in bytes of JSON, about; default "
					       "65536") ","
		FLAG("follow", "")),
	 ANSWER(MUST("lines") "," MUST("next") "," MUST("more") "," MUST("end"),
		LIST_ABOUT("lines", "time_ms, stream (console, stdout, stderr or insula), text; "
				    "partial: it has no line end yet") ","
		WORDS("next", "where the next answer goes on") ","
		FLAG("missed", "lines are gone that were to come here") ","
		FLAG("more", "the limit was reached: ask again") ","
		FLAG("end", "the VM has ended, and this is all")), false},
	{"vm.metrics", "Counters: live ones while it runs, all of them once it has ended.",
	 method_vm_metrics, OF_ID,
	 ANSWER("",
		COUNT("run_ns", "") ","
		COUNT("cpu_ns", "of all its processes") ","
		COUNT("rss_bytes", "of all its processes") ","
		COUNT("restarts", "") ","
		LIST_ABOUT("devices", "name, restarts, helper: what its process has counted")),
	 false},
	{"vm.stats",
	 "What a VM that runs uses. Counters grow: the difference of two answers is the rate. "
	 "Those of disks and networks are as old as the vm.stats or vm.metrics before.",
	 method_vm_stats, OF_ID,
	 ANSWER(MUST("id") "," MUST("name") "," MUST("state") "," MUST("time_ns") ","
		MUST("cpu_ns") "," MUST("mem_bytes") "," MUST("mem_max"),
		WORDS("id", "") ","
		WORDS("name", "") ","
		ONE_OF("state", STATES) ","
		COUNT("time_ns", "of a clock that never stops") ","
		COUNT("cpus", "of the guest") ","
		FLAG("cgroup", "processor, memory and pids are its control group's; else the sum "
			       "over its processes") ","
		COUNT("cpu_ns", "processor time") ","
		COUNT("mem_bytes", "without the page cache that can be dropped at once") ","
		COUNT("mem_max", "bytes: of the control group, else of the guest") ","
		COUNT("pids", "threads; missing without a control group") ","
		COUNT("disk_read_bytes", "by the guest; missing: it has no disk") ","
		COUNT("disk_written_bytes", "") ","
		COUNT("net_rx_bytes", "to the guest; missing: it has no network") ","
		COUNT("net_tx_bytes", "")), false},
	{"vm.balloon",
	 "How much of its memory a guest has, and what it does with it; with \\\"target\\\" how much "
	 "it shall have from now on. The guest gives the rest back as fast as it can, if it can, "
	 "and takes it again when it runs out of memory. Answered with new statistics, or after a "
	 "second without.",
	 method_vm_balloon,
	 OBJECT(MUST("id"),
		ID ","
		NUMBER("target", "16777216", "1099511627776",
		       "bytes, at most the memory of the guest, which ends it")),
	 ANSWER(MUST("target") "," MUST("actual") "," MUST("stats"), BALLOON_MEMBERS), false},
	{"vm.resize",
	 "Give a guest more while it runs, or take it back, within what its configuration has as "
	 "max. Answered when the guest has done it, or at the deadline, with what it has by then; "
	 "it goes on towards what was requested. One at a time.",
	 method_vm_resize,
	 OBJECT(MUST("id"),
		ID ","
		NUMBER("mem", "16777216", "1099511627776", "bytes") ","
		NUMBER("cpus", "1", "32", "of the guest") ","
		NUMBER("timeout_ms", "1", "3600000", "default 30000")),
	 ANSWER(MACHINE_REQUIRED, MACHINE_MEMBERS "," OWNER_SID "," RESIZED), false},
	{"vm.metadata.get",
	 "What a VM that runs tells its guest at http://169.254.169.254.", method_vm_metadata_get,
	 OF_ID, METADATA, false},
	{"vm.metadata.set",
	 "Tell it this instead: the guest's next request sees it. It is kept as long as the VM runs, "
	 "and in its snapshots.",
	 method_vm_metadata_set, OBJECT(MUST("id") "," MUST("metadata"), ID "," TREE), METADATA,
	 false},
	{"vm.metadata.patch",
	 "Change what it is told by a merge patch (RFC 7396): null takes a member away.",
	 method_vm_metadata_patch, OBJECT(MUST("id") "," MUST("metadata"), ID "," TREE), METADATA,
	 false},
	{"vm.net.policy",
	 "What the guest may send by a card from now on, in the place of what was said before, "
	 "here or in the configuration: nothing but what allow and serve name. Their words are "
	 "those of net's items. Answered when it is in force. It lasts until the VM ends. "
	 "A card with vhost=on is refused. docs/network-policy.md.",
	 method_vm_net_policy,
	 OBJECT(MUST("id") "," MUST("device"),
		ID "," DEVICE ","
		STRINGS("allow", "64", "[tcp:|udp:|icmp:]DEST[:PORT[-PORT]]") ","
		STRINGS("serve", "16", "tcp:PORT[-PORT] or udp:PORT[-PORT]") ","
		STRINGS("from", "8", "ADDRESS[/LENGTH]; without, as the configuration has it") ","
		FLAG("off", "alone: the guest may send what it likes")),
	 DONE, false},
	{"vm.limits",
	 "How much a card carries in each direction from now on, or how much a disk reads and writes. "
	 "What is not said stays. It lasts until the VM ends. A disk that another program serves "
	 "(vhost-user, qsd) has no limits, nor has a card with vhost=on.",
	 method_vm_limits,
	 OBJECT(MUST("id") "," MUST("device"),
		ID "," DEVICE ","
		NUMBER("rate", "0", "1099511627776", "bytes a second; 0: no limit") ","
		NUMBER("pps", "0", "1099511627776", "of a card: frames a second; 0: no limit") ","
		NUMBER("iops", "0", "1099511627776", "of a disk: requests a second; 0: no limit")),
	 DONE, false},
	{"vm.device.restart",
	 "Restart the process of a device, now: also one that has failed, or that waits "
	 "for its next try.",
	 method_vm_device_restart, OBJECT(MUST("id") "," MUST("device"), ID "," DEVICE),
	 DONE, false},
	{"vm.device.add",
	 "Give a VM that runs a device more, in a slot that its configuration has (hotplug). The "
	 "paths in it are opened with the rights of the VM's owner. Answered when the guest has "
	 "been told; its driver still has to look. A disk without a serial number has its name as "
	 "one; a share is mounted by its name.",
	 method_vm_device_add,
	 OBJECT(MUST("id") "," MUST("config"),
		ID ","
		PLUG_CONFIG ","
		NAMED("device", "15", "letters, digits, dots, dashes and underscores; without, it "
				      "is the kind and the slot: disk1")),
	 PLUGGED, false},
	{"vm.device.remove",
	 "Take back a device that was added. The guest is asked to give it up, and has timeout_ms; "
	 "it keeps one that it does not give up. Answered when its process has written out "
	 "everything and the device is closed: its files may be used by others.",
	 method_vm_device_remove,
	 OBJECT(MUST("id") "," MUST("device"),
		ID "," DEVICE ","
		FLAG("force", "the guest is not asked, as if a card was pulled out; what it had "
			      "not flushed to a disk may be lost") ","
		NUMBER("timeout_ms", "0", "3600000", "default 30000")),
	 DONE, false},
	{"vm.device.list", "The devices of a VM that runs, and how many slots are free.",
	 method_vm_device_list, OF_ID,
	 ANSWER(MUST("devices") "," MUST("slots") "," MUST("free"),
		"\"devices\":{\"type\":\"array\",\"items\":" PLUGGED "},"
		COUNT("slots", "for devices that come later: the configuration's hotplug") ","
		COUNT("free", "of these")), false},
	{"events.subscribe",
	 "From now on this connection gets notifications \\\"event\\\": {seq, time_ms, event, id, "
	 "name, data}. A reader too slow gets \\\"events.dropped\\\" and no more.",
	 method_events_subscribe, OBJECT("", ID),
	 ANSWER(MUST("next_seq"), COUNT("next_seq", "of the first one to come")), false},
	{"events.unsubscribe", "No more of them.", method_events_unsubscribe, NOTHING, DONE, false},
	{"rpc.discover", "This table as an OpenRPC document.", method_rpc_discover, NOTHING,
	 ANSWER(MUST("openrpc") "," MUST("info") "," MUST("methods"),
		WORDS("openrpc", "") ","
		THING("info") ","
		MEMBER("methods", "\"type\":\"array\"")), false},
};
/* clang-format on */
const size_t nmethods = ARRAY_LEN(methods);

const struct method *method_find(const char *name, size_t *index)
{
	for (size_t i = 0; i < nmethods; i++) {
		if (!strcmp(methods[i].name, name)) {
			*index = i;
			return &methods[i];
		}
	}
	return NULL;
}

const char *method_meant(const char *name)
{
	const char *known[ARRAY_LEN(methods)];

	for (size_t i = 0; i < nmethods; i++)
		known[i] = methods[i].name;
	return nearest(name, known, nmethods);
}
