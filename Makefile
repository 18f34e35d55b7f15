# Insula. `make help` lists the targets. Two commands do everything on a fresh Debian 12: make demo, make check.

VERSION := 0.1.0
BUILD   ?= build
# One spelling of it, or the dependencies that one of tests/check and make has written are not the other's.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
MUSL_CC ?= musl-gcc
# SAN=1: ASan + UBSan with clang, dynamic. For tests only; `make install` refuses it. Fuzzers are made of the same objects, so these count
# where they go; without libFuzzer nobody reads that.
SAN     ?=
SAN_CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
SAN_DEFS   := -DINSULA_SANITIZE

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Werror
STD     := -std=gnu11 -D_GNU_SOURCE -DINSULA_VERSION='"$(VERSION)"' -Iinclude -Isrc
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fno-common
# clang 14 knows the flag but wants another one with it that later versions refuse.
ifeq ($(shell $(CC) -Werror -ftrivial-auto-var-init=zero -E -x c /dev/null >/dev/null 2>&1 && echo yes),yes)
HARDEN  += -ftrivial-auto-var-init=zero
endif
CFLAGS  ?= -O2 -g
ifneq ($(SAN),)
CC      := clang
CFLAGS  := $(SAN_CFLAGS)
STD     += $(SAN_DEFS)
HARDEN  :=
STATIC  :=
else
STATIC  := -static-pie
endif
ALL_CFLAGS = $(CFLAGS) $(STD) $(WARN) $(HARDEN) -fPIE -pthread
LDFLAGS   ?=
ALL_LDFLAGS = $(LDFLAGS) -pthread -Wl,-z,relro,-z,now -Wl,-z,noexecstack

# V=1 shows the commands.
ifeq ($(V),)
Q := @
say = @printf '  %-6s %s\n' "$(1)" "$(patsubst $(BUILD)/%,%,$@)"
endif

# ---- rooms: one library each; main.c and *_main.c belong to a program alone
ROOMS := base hv x86 whp vmm devices exec layer metadata pager jail image spec supervisor guest container daemon ctl oci
src_base       := $(wildcard src/base/*.c) $(wildcard src/os/linux/*.c)
src_hv         := $(wildcard src/hv/kvm/*.c) $(wildcard src/hv/kvm/x86/*.c) $(wildcard src/hv/*.c)
# The Windows backend; all but *_win.c also builds here, for the tests. x86: its instruction emulator.
src_x86        := $(wildcard src/hv/whp/x86*.c)
src_whp        := $(filter-out $(src_x86),$(wildcard src/hv/whp/*.c)) $(wildcard src/hv/*.c)
src_vmm        := $(wildcard src/vmm/*.c) $(wildcard src/vmm/x86/*.c)
src_devices    := $(wildcard src/devices/*.c src/devices/*/*.c)
src_exec       := $(wildcard src/exec/*.c)
src_layer      := $(wildcard src/layer/*.c)
src_metadata   := $(wildcard src/metadata/*.c)
src_pager      := $(wildcard src/pager/*.c)
src_jail       := $(wildcard src/jail/*.c)
src_image      := $(wildcard src/image/*.c)
src_spec       := $(wildcard src/spec/*.c)
src_supervisor := $(wildcard src/supervisor/*.c src/supervisor/*/*.c)
src_daemon     := $(wildcard src/daemon/*.c)
src_ctl        := $(wildcard src/ctl/*.c)
src_oci        := $(wildcard src/oci/*.c)
# Of the guest's side the part that needs no guest, for the tests.
src_guest      := $(wildcard src/guest/agent*.c) src/guest/env.c
src_container  := $(wildcard src/guest/container/*.c)
lib_of   = $(filter-out %/main.c %_main.c %_win.c,$(src_$(1)))
objs     = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib      = $(BUILD)/lib/lib$(1).a
HELPERS  := insula-balloon insula-blk insula-console insula-exec insula-layer insula-mem insula-metadata insula-net insula-pager insula-rng insula-vfio insula-vhost insula-vsock
BIN      := $(addprefix $(BUILD)/bin/,insula-run insula-initrd insula-get-kernel insulad insulactl)
LIBEXEC  := $(addprefix $(BUILD)/libexec/insula/,insula-vmm $(HELPERS) insula-init insula-container busybox)

BIN      += $(BUILD)/bin/insula-oci

# Storage modules, each with its manifest. One whose library is missing here is left out (Debian: libnbd-dev, libiscsi-dev).
MODULE_DIR := $(BUILD)/libexec/insula/modules
module_with = $(if $(shell pkg-config --exists $(2) 2>/dev/null && echo yes),$(MODULE_DIR)/$(1) $(MODULE_DIR)/$(1).json)
MODULES    := $(call module_with,nbd,libnbd) $(call module_with,iscsi,libiscsi)
# The program of these is the host's; connect.so is loaded into one that has a network.
SERVED     := qsd curl ssh rbd
MODULES    += $(SERVED:%=$(MODULE_DIR)/%.json)
MODULES    += $(MODULE_DIR)/connect.so
MODULE_PROGRAMS := $(filter-out %.json %.so,$(MODULES))

COMPLETIONS := $(foreach s,bash zsh fish,$(foreach p,insula-run insulactl insulad,$(BUILD)/completion/$(s)/$(p)))
.PHONY: all help demo check check-fast bench lab guest fmt fmt-check lint loc install deb clean deps-% \
	programs tests fuzzers payloads san windows-hv windows-tests check-windows
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

# The programs are built by a make of their own, which must not run beside another goal's.
ifneq ($(filter all,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif
all: deps-build
	@$(MAKE) --no-print-directory programs

help:
	@printf '%s\n' \
	'make            build everything into $(BUILD)/' \
	'make demo       install what is needed, build, boot a Linux microVM and run a command in it' \
	'make check      install what is needed, run all tests' \
	'make check-fast the tests that need no lab' \
	'make check-windows the tests of the Windows side, under wine' \
	'make bench      the tables of docs/performance.md' \
	'make lab CMD=.. run a command in the lab (a machine with AMD-V, emulated)' \
	'make guest      fetch and unpack the Debian cloud kernel into $(BUILD)/guest' \
	'make install    DESTDIR= PREFIX=/usr/local STRIP=strip' \
	'make deb        a Debian package, $(BUILD)/insula_$(VERSION)_amd64.deb' \
	'make windows    the programs for Windows, with mingw-w64 (docs/windows.md); windows-guest: what they boot; windows-hv: the hypervisor library alone' \
	'make fmt lint loc clean'

# ---- what has to be installed: done by root on Debian, otherwise said in one line
deps-%:
	@tests/deps $*

programs: $(BIN) $(LIBEXEC) $(MODULES) $(BUILD)/lib/libinsula-hv.a $(BUILD)/lib/libinsula-module.a $(COMPLETIONS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# What a unit test does itself needs no speed: one of them took 18 s to compile with -O2.
$(BUILD)/obj/tests/unit/%.o: ALL_CFLAGS += -O0 -U_FORTIFY_SOURCE

define room_lib
$(call lib,$(1)): $(call objs,$(call lib_of,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcsD $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_lib,$(r))))

# It stands alone: of src/base it takes errors and records of state.
HV_OBJS := $(call objs,$(src_hv) $(addprefix src/,base/err.c base/state.c os/linux/errtext.c))
$(BUILD)/lib/libinsula-hv.a: $(HV_OBJS)
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcsD $@ $^

# A storage module is the device of insula-blk with another engine: all of that, but for what only file-backed disks need.
MODULE_OBJS := $(filter-out %/blk_uring_linux.o %/blk_open.o,$(call objs,$(call lib_of,devices) $(call lib_of,jail) $(call lib_of,base)))
$(BUILD)/lib/libinsula-module.a: $(MODULE_OBJS)
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcsD $@ $^

# The parent's side of the jail uses libcap-ng, the child's side libseccomp.
JAIL_LIBS := -lseccomp
SPAWN_LIBS := -lcap-ng

$(BUILD)/libexec/insula/insula-vmm: $(call objs,src/vmm/main.c) $(call lib,vmm) $(call lib,hv) $(call lib,jail) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $^ $(JAIL_LIBS)
# One program a device: src/devices/NAME/NAME_main.c; and insula-exec. Only the disk needs a library of its own.
HELPER_LIBS_insula-blk := -luring
# gzip and zstd are unpacked in the jail.
HELPER_LIBS_insula-layer := -lz -lzstd
HELPER_LIBS_insula-pager := -lz
$(foreach h,$(HELPERS:insula-%=%),$(eval $(BUILD)/libexec/insula/insula-$(h): \
	$(call objs,$(wildcard src/devices/$(h)/$(h)_main.c src/$(h)/$(h)_main.c))))
$(BUILD)/libexec/insula/insula-exec: $(call lib,exec)
$(BUILD)/libexec/insula/insula-layer: $(call lib,layer)
$(BUILD)/libexec/insula/insula-metadata: $(call lib,metadata)
$(BUILD)/libexec/insula/insula-pager: $(call lib,pager)
$(addprefix $(BUILD)/libexec/insula/,$(HELPERS)): $(call lib,devices) $(call lib,jail) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		$(HELPER_LIBS_$(@F)) $(JAIL_LIBS)
# Modules are dynamic: the libraries that they bring are, and the loader has done its work before jail_enter() takes the files away.
comma := ,
MODULE_LIBS_nbd := -lnbd
MODULE_LIBS_iscsi := -liscsi
$(foreach m,nbd iscsi,$(eval $(MODULE_DIR)/$(m): $(call objs,$(wildcard src/modules/*.c src/modules/$(m)/*.c))))
# What handed.c defines in the C library's place, for those libraries too that no module is linked with itself.
MODULE_LDFLAGS := $(patsubst %,-Wl$(comma)--export-dynamic-symbol=%,socket connect setsockopt getsockname getaddrinfo freeaddrinfo recv readv sendmsg access fopen gnutls_handshake_set_timeout)
$(MODULE_DIR)/%: $(BUILD)/lib/libinsula-module.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -pie -o $@ $(filter %.o,$^) $(filter %.a,$^) $(MODULE_LDFLAGS) $(MODULE_LIBS_$(@F)) $(JAIL_LIBS)
$(MODULE_DIR)/%.json: src/modules/%
	@mkdir -p $(@D)
	@install -m 644 $</$(@F) $@
$(foreach m,nbd iscsi,$(eval $(MODULE_DIR)/$(m).json: src/modules/$(m)/$(m).json))
$(foreach m,$(SERVED),$(eval $(MODULE_DIR)/$(m).json: src/modules/$(m)/$(m).json))
# Into a program that is no sanitizer's.
$(MODULE_DIR)/connect.so: src/modules/connect/connect.c src/devices/module/module_connect.h
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(filter-out -fsanitize% -DINSULA_SANITIZE,$(ALL_CFLAGS)) -fPIC -shared -fvisibility=hidden -o $@ $<
# Of the devices' room the supervisor has their descriptions, and nothing that works.
DESCRIBE := $(call objs,$(wildcard src/devices/*/*_describe.c))
$(BUILD)/bin/insula-run: $(call objs,tools/insula-run.c) $(call lib,supervisor) $(DESCRIBE) $(call lib,spec) $(call lib,image) $(call lib,jail) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	@# libcap-ng's capng_change_id(), which nobody calls, makes ld warn about name services in a static program.
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $^ -ljson-c $(SPAWN_LIBS) 2>$@.log; rc=$$?; \
		grep -vE 'in function .capng_change_id|in statically linked applications' $@.log >&2; rm -f $@.log; exit $$rc
$(BUILD)/bin/insulactl: $(call objs,tools/insulactl.c) $(call lib,ctl) $(call lib,spec) $(call lib,image) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -pie -o $@ $^ -ljson-c
# For the build: completions, and parts of manual pages.
$(BUILD)/tools/insula-spec: $(call objs,tools/insula-spec.c) $(call lib,ctl) $(call lib,daemon) $(call lib,spec) $(call lib,image) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -pie -o $@ $^ -luv -ljson-c
$(COMPLETIONS): $(BUILD)/tools/insula-spec
	@mkdir -p $(@D)
	@$< complete $(notdir $(@D)) $(@F) >$@
# The daemon serves nobody's guest: it is an ordinary dynamic program.
$(BUILD)/bin/insulad: $(call objs,src/daemon/main.c) $(call lib,daemon) $(call lib,spec) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -pie -o $@ $^ -luv -ljson-c
# So is the OCI runtime: what it reads of a guest is a line of text.
$(BUILD)/bin/insula-oci: $(call objs,src/oci/main.c) $(call lib,oci) $(call lib,spec) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -pie -o $@ $^ -ljson-c -lseccomp
$(BUILD)/bin/insula-initrd: $(call objs,tools/insula-initrd.c) $(call lib,image) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $^

$(BUILD)/bin/insula-get-kernel: tools/insula-get-kernel Makefile
	@mkdir -p $(@D)
	@sed 's|@VERSION@|$(VERSION)|' $< >$@ && chmod 755 $@

# ---- the guest side: musl, static, no sanitizer
GUEST_SRC := $(wildcard src/guest/*.c) src/base/guestproto.c
$(BUILD)/libexec/insula/insula-init: $(GUEST_SRC) $(wildcard src/guest/*.h) include/insula/board.h include/insula/container.h include/insula/guestproto.h Makefile
	@mkdir -p $(@D)
	$(call say,MUSL)
	$(Q)$(MUSL_CC) -std=gnu11 -D_GNU_SOURCE -Os -g0 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -Iinclude \
		-static -s -o $@ $(GUEST_SRC)
# musl's name for the text of an errno is the standard one, and needs no locale there.
CONTAINER_SRC := $(src_container) src/base/err.c src/os/linux/errtext.c
$(BUILD)/libexec/insula/insula-container: $(CONTAINER_SRC) $(wildcard src/guest/container/*.h) include/insula/container.h include/insula/err.h Makefile
	@mkdir -p $(@D)
	$(call say,MUSL)
	$(Q)$(MUSL_CC) -std=gnu11 -D_GNU_SOURCE -Dstrerrordesc_np=strerror -Os -g0 -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror \
		-Iinclude -Isrc -static -s -o $@ $(CONTAINER_SRC)
$(BUILD)/libexec/insula/busybox: /bin/busybox
	@mkdir -p $(@D)
	@ln -sfn $< $@
/bin/busybox: ;

guest: deps-guest
	@tests/lab/fetch-guest $(BUILD)/guest

# ---- for Windows, cross-built (docs/windows.md)
WIN_CC    ?= x86_64-w64-mingw32-gcc
WIN_FLAGS := -O2 -g -std=gnu11 -D_GNU_SOURCE -DWIN32_LEAN_AND_MEAN -D_WIN32_WINNT=0x0A00 -Iinclude -Isrc $(WARN)
WIN_SRC   := $(src_whp) $(src_x86) $(addprefix src/,base/err.c base/state.c os/win/errtext.c)
# Not by a second make: with other goals beside it, two would write the same objects.
windows-hv: $(BUILD)/windows/hello.exe
$(BUILD)/windows/obj/%.o: %.c Makefile | deps-windows
	@mkdir -p $(@D)
	$(call say,WINCC)
	$(Q)$(WIN_CC) $(WIN_FLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/windows/libinsula-hv.a: $(patsubst %.c,$(BUILD)/windows/obj/%.o,$(WIN_SRC))
	@rm -f $@
	$(call say,WINAR)
	$(Q)x86_64-w64-mingw32-ar rcsD $@ $^
$(BUILD)/windows/hello.exe: $(BUILD)/windows/obj/src/hv/example/hello_win.o $(BUILD)/windows/libinsula-hv.a
	$(call say,WINLD)
	$(Q)$(WIN_CC) -o $@ $^

include tools/windows.mk
include tests/whp-double/windows.mk

# ---- tests
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))
include tests/unit/rooms.mk
tests: $(UNIT) $(BUILD)/tests/jail_child $(BUILD)/tests/vsockpeer $(BUILD)/tests/below $(BUILD)/tests/oci_net $(BUILD)/tests/layer_mute $(BUILD)/tests/served_bad payloads

# Runs in guests: no loader, no libraries, no sanitizer.
$(BUILD)/tests/vsockpeer $(BUILD)/tests/below: $(BUILD)/tests/%: tests/lab/%.c Makefile
	@mkdir -p $(@D)
	$(call say,STATIC)
	$(Q)gcc -O2 -g $(STD) $(WARN) -static -o $@ $<

$(BUILD)/tests/jail_child: $(call objs,tests/unit/jail_child_main.c) $(call lib,jail) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $^ $(JAIL_LIBS)
$(BUILD)/tests/layer_mute: $(call objs,tests/unit/layer_mute_main.c) $(call lib,devices) $(call lib,jail) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(STATIC) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(JAIL_LIBS)
# Runs in the jail of a program of the host: no sanitizer.
$(BUILD)/tests/served_bad: tests/unit/served_bad_main.c src/devices/module/module_connect.h Makefile
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)gcc -O2 -g $(STD) $(WARN) -o $@ $<
$(BUILD)/tests/oci_net: $(call objs,tests/unit/oci_net_main.c) $(call lib,oci) $(call lib,spec) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -ljson-c -lseccomp
$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		-lcheck -lsubunit -lrt -lm -luring -luv -ljson-c -lz -lzstd $(JAIL_LIBS) $(SPAWN_LIBS)

define unit_rooms
$(BUILD)/tests/$(1): $(foreach r,$(or $(rooms_$(1)),$(error tests/unit/rooms.mk: no row for $(1))),$(call lib,$(r)))
endef
$(foreach t,$(filter-out test_whp%,$(patsubst tests/unit/%.c,%,$(UNIT_SRC))),$(eval $(call unit_rooms,$(t))))

# The Windows backend with the scripted double in the place of Windows and of KVM.
DOUBLE := $(call objs,tests/whp-double/double.c tests/whp-double/os_linux.c)
$(filter $(BUILD)/tests/test_whp%,$(UNIT)): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(DOUBLE) $(call lib,whp) $(call lib,x86) $(call lib,base)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		-lcheck -lsubunit -lrt -lm

FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS  := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
FUZZ_LIB_SRC := $(foreach r,base x86 vmm devices exec layer metadata pager image spec supervisor daemon ctl oci,$(call lib_of,$(r)))
fuzzers: $(FUZZERS)
# The rooms as SAN=1 BUILD=$(BUILD)/san has them.
$(BUILD)/san/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,FUZZ)
	$(Q)clang $(SAN_CFLAGS) $(STD) $(SAN_DEFS) $(WARN) -fPIE -pthread -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/librooms.a: $(patsubst %.c,$(BUILD)/san/obj/%.o,$(FUZZ_LIB_SRC) $(call lib_of,jail) $(src_hv))
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcsD $@ $^
# The guest's program shares no names with the host's rooms.
$(BUILD)/fuzz/fuzz_container: $(patsubst %,$(BUILD)/san/obj/src/guest/container/%.o,records keys devices functions)
$(BUILD)/fuzz/%: $(BUILD)/san/obj/tests/fuzz/%.o $(BUILD)/fuzz/librooms.a
	$(call say,LINK)
	$(Q)clang -fsanitize=fuzzer,address,undefined -pthread -o $@ $(filter %.o,$^) $(filter %.a,$^) -luring -luv -ljson-c -lz -lzstd $(JAIL_LIBS) $(SPAWN_LIBS)

-include tests/guests/payloads.mk
payloads: $(PAYLOADS)

san:
	@$(MAKE) --no-print-directory SAN=1 BUILD=$(BUILD)/san programs tests

demo: all guest
	@tests/lab/demo $(BUILD)

check check-windows: deps-guest deps-lab deps-windows deps-wine
check check-fast check-windows: deps-build deps-check deps-deb
	@tests/check $@ $(BUILD)

bench: all guest deps-lab deps-bench
	@tests/bench/bench $(BUILD)

lab: deps-lab guest
	@tests/lab/lab $(LABFLAGS) '$(subst ','\'',$(CMD))'

# ---- care
C_FILES := $(shell find include src tools tests -name '*.[ch]' 2>/dev/null)
fmt:
	@clang-format -i $(C_FILES)
fmt-check:
	@clang-format --dry-run -Werror $(C_FILES)
lint:
	@tests/lint $(BUILD)
loc:
	@tests/loc

# The copies are stripped; those in $(BUILD) keep their symbols, for a debugger. `make install STRIP=`: the copies do too.
STRIP ?= strip
install: programs
	@test -z "$(SAN)" || { echo "make install: not from a sanitizer build"; exit 2; }
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/insula $(DESTDIR)$(PREFIX)/lib/pkgconfig \
		$(DESTDIR)$(PREFIX)/include/insula $(addprefix $(DESTDIR)$(PREFIX)/share/man/man,1 5 8) \
		$(addprefix $(DESTDIR)$(PREFIX)/share/doc/insula/docs/,examples pictures) $(DESTDIR)$(PREFIX)/lib/systemd/system \
		$(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/vendor-completions fish/vendor_completions.d)
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(LIBEXEC) $(DESTDIR)$(PREFIX)/libexec/insula
	$(if $(STRIP),$(STRIP) $(addprefix $(DESTDIR)$(PREFIX)/,$(patsubst $(BUILD)/%,%,$(filter-out %/insula-get-kernel,$(BIN)) \
		$(filter-out %/busybox,$(LIBEXEC)))))
	install -m 644 $(BUILD)/lib/libinsula-hv.a $(DESTDIR)$(PREFIX)/lib
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' src/hv/insula-hv.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/insula-hv.pc
	install -d $(DESTDIR)$(PREFIX)/libexec/insula/modules
	$(if $(MODULE_PROGRAMS),install -m 755 $(MODULE_PROGRAMS) $(DESTDIR)$(PREFIX)/libexec/insula/modules)
	install -m 644 $(filter %.json %.so,$(MODULES)) $(DESTDIR)$(PREFIX)/libexec/insula/modules
	$(if $(STRIP),$(if $(MODULE_PROGRAMS),$(STRIP) $(addprefix $(DESTDIR)$(PREFIX)/,$(patsubst $(BUILD)/%,%,$(MODULE_PROGRAMS)))))
	install -m 644 $(BUILD)/lib/libinsula-module.a $(DESTDIR)$(PREFIX)/lib
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@VERSION@|$(VERSION)|g' src/devices/module/insula-module.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/insula-module.pc
	install -m 644 $(addprefix include/insula/,module.h uri.h hv.h hv_x86.h state.h err.h) $(DESTDIR)$(PREFIX)/include/insula
	install -m 644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 docs/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	sed -e 's|@PREFIX@|$(PREFIX)|g' tools/dist/insulad.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/insulad.service
	install -m 644 tools/dist/insulad.socket $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 $(BUILD)/completion/bash/* $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for p in insula-run insulactl insulad; do \
		install -m 644 $(BUILD)/completion/zsh/$$p $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_$$p && \
		install -m 644 $(BUILD)/completion/fish/$$p $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$p.fish || exit; \
	done
	install -m 644 README.md LICENSE src/hv/example/hello.c $(DESTDIR)$(PREFIX)/share/doc/insula
	install -m 644 docs/*.md $(DESTDIR)$(PREFIX)/share/doc/insula/docs
	install -m 644 docs/examples/*.py docs/examples/*.c docs/examples/*.json $(DESTDIR)$(PREFIX)/share/doc/insula/docs/examples
	install -m 644 docs/pictures/*.svg $(DESTDIR)$(PREFIX)/share/doc/insula/docs/pictures

# A Debian package in $(BUILD): tools/dist/deb says what is in it.
deb: deps-deb
	@$(MAKE) --no-print-directory all
	@tools/dist/deb $(BUILD) $(VERSION)

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj $(BUILD)/san/obj $(BUILD)/windows/obj -name '*.d' 2>/dev/null)
