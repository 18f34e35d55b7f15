# SPDX-License-Identifier: BSD-2-Clause
# The programs for Windows, cross-built; included by the Makefile, which has WIN_CC and WIN_FLAGS.
#
#   windows/bin/       insula-run.exe and the programs that it starts
#   windows/test-bin/  the same with INSULA_TEST_UNCONTAINED (src/jail/contain.h), for the tests under wine: never to be given to anybody. Only
#                      the objects of files that look at it are its own (WIN_UNCONTAINED); tests/rooms looks for others
#   windows/libs/      json-c and libuv, from Debian's sources (tools/windows-libs)
#   windows/uapi/      the kernel's headers of the virtio structures and boot protocols, and nothing else of Linux's

# What of a room builds here: not *_linux.c, not main.c and *_main.c, and not what has no counterpart yet.
win_room     = $(filter-out %_linux.c %/main.c %_main.c,$(wildcard src/$(1)/*.c))
WIN_BASE    := $(call win_room,base) $(wildcard src/os/win/*.c)
WIN_DEVICES := $(filter-out src/devices/balloon/% src/devices/mem/% src/devices/net/% src/devices/vfio/% src/devices/vhost/% src/devices/module/%,$(call win_room,devices) $(call win_room,devices/*))
WIN_VMM     := $(call win_room,vmm) $(call win_room,vmm/x86) $(src_whp) $(src_x86)
WIN_JAIL    := src/jail/check_win.c src/jail/seal_win.c
WIN_SPEC    := $(filter-out %/config_net.c %/netpolicy.c %/config_device.c $(wildcard src/spec/manifest*.c),$(call win_room,spec))
WIN_RUN     := $(wildcard src/supervisor/*_win.c src/supervisor/*/*_win.c) src/devices/console/uart_describe.c src/devices/virtio/virtio_describe.c $(addprefix src/supervisor/,child.c loop.c plug.c recover.c restart.c run.c vm.c vm_children.c vm_common.c vm_run.c backing/boot_memory.c backing/cmdline.c command/command.c command/exec.c control/control.c control/control_limits.c control/control_machine.c control/control_setup.c control/ctlexec.c control/ctlrenew.c control/ctlresize.c $(addprefix snapshot/,held.c held_file.c identity.c pager.c pages.c restore.c save.c save_describe.c save_refuse.c snapdir.c standing.c) control/result.c control/scrollback.c control/stats.c control/usage.c control/vmlog.c backing/added.c backing/balloon.c backing/balloon_idle.c backing/metadata_tree.c device/dev_balloon.c device/dev_blk.c device/dev_mem.c device/dev_rng.c device/dev_uart.c device/dev_vsock.c device/device.c) \
	$(WIN_SPEC) src/image/config.c src/image/cpio.c src/jail/check_win.c src/jail/spawn_win.c \
	tools/insula-run_win.c
WIN_DAEMON  := $(call win_room,daemon) src/daemon/main.c $(WIN_SPEC)
WIN_CTL     := $(call win_room,ctl) $(WIN_SPEC) tools/insulactl.c
WIN_PAGER   := src/pager/ram.c src/pager/pager_win.c
WIN_HELPERS := insula-console insula-rng insula-blk insula-vsock insula-exec insula-pager
WIN_EXES    := insulad insulactl insula-run insula-vmm $(WIN_HELPERS)
WIN_UV       = $(WIN_DEBIAN)/lib/libuv.a -lws2_32 -liphlpapi -lpsapi -luserenv -luser32
WIN_LIBS    := -lz -lbcrypt -lsynchronization -ladvapi32 -lpthread

WIN_UAPI := $(BUILD)/windows/uapi/.done
$(WIN_UAPI): | deps-windows
	@mkdir -p $(@D)
	@ln -sfn /usr/include/linux $(@D)/linux
	@ln -sfn /usr/include/asm-generic $(@D)/asm-generic
	@ln -sfn /usr/include/video $(@D)/video
	@ln -sfn /usr/include/$(shell gcc -dumpmachine)/asm $(@D)/asm
	@touch $@
# Once: it takes half a minute and the network.
WIN_DEBIAN := $(BUILD)/windows/libs
$(WIN_DEBIAN)/versions: | deps-windows
	@mkdir -p $(@D)
	@tools/windows-libs $(@D)
WIN_PROG_FLAGS = $(WIN_FLAGS) -DINSULA_VERSION='"$(VERSION)"' -Iinclude/win -isystem $(BUILD)/windows/uapi -isystem $(WIN_DEBIAN)/include -DUNICODE -D_UNICODE

# No other file says INSULA_TEST_UNCONTAINED.
WIN_UNCONTAINED := src/jail/check_win.c

# win_objects DIRECTORY FLAGS: how they are compiled
define win_objects
$(BUILD)/windows/$(1)/obj/%.o: %.c Makefile tools/windows.mk | $(WIN_UAPI) $(WIN_DEBIAN)/versions
	@mkdir -p $$(@D)
	$$(call say,WINCC)
	$$(Q)$$(WIN_CC) $$(WIN_PROG_FLAGS) $(2) -MMD -MP -c -o $$@ $$<
endef
$(eval $(call win_objects,bin,))
$(eval $(call win_objects,test-bin,-DINSULA_TEST_UNCONTAINED))
# win_program_objs DIRECTORY FILES: the objects of its programs. What libinsula-hv.a has is compiled once, as that has it.
win_objs         = $(patsubst %.c,$(BUILD)/windows/obj/%.o,$(1))
win_own          = $(if $(filter test-bin,$(1)),$(WIN_UNCONTAINED) tests/%)
win_program_objs = $(call win_objs,$(filter $(WIN_SRC),$(2))) \
	$(patsubst %.c,$(BUILD)/windows/bin/obj/%.o,$(filter-out $(WIN_SRC) $(win_own),$(2))) \
	$(patsubst %.c,$(BUILD)/windows/test-bin/obj/%.o,$(if $(win_own),$(filter $(win_own),$(2))))

# win_build DIRECTORY: all programs into windows/DIRECTORY
define win_build
$(BUILD)/windows/$(1)/insulad.exe: win_json = $(WIN_UV) $(WIN_DEBIAN)/lib/libjson-c.a
$(BUILD)/windows/$(1)/insulad.exe: $(call win_program_objs,$(1),$(WIN_DAEMON) $(WIN_BASE))
$(BUILD)/windows/$(1)/insulactl.exe: win_json = $(WIN_DEBIAN)/lib/libjson-c.a
$(BUILD)/windows/$(1)/insulactl.exe: $(call win_program_objs,$(1),$(WIN_CTL) $(WIN_BASE))
$(BUILD)/windows/$(1)/insula-run.exe: win_json = $(WIN_DEBIAN)/lib/libjson-c.a
$(BUILD)/windows/$(1)/insula-run.exe: $(call win_program_objs,$(1),$(WIN_RUN) $(WIN_BASE))
$(BUILD)/windows/$(1)/insula-vmm.exe: $(call win_program_objs,$(1),src/vmm/main.c $(WIN_VMM) $(WIN_JAIL) $(WIN_BASE))
$(foreach h,$(WIN_HELPERS),$(eval $(BUILD)/windows/$(1)/$(h).exe: \
	$(call win_program_objs,$(1),$(wildcard src/devices/$(h:insula-%=%)/$(h:insula-%=%)_main.c src/$(h:insula-%=%)/$(h:insula-%=%)_main.c) \
	$(if $(filter %-exec,$(h)),$(call win_room,exec)) $(if $(filter %-pager,$(h)),$(WIN_PAGER)) $(WIN_DEVICES) $(WIN_JAIL) $(WIN_BASE))))
$(foreach x,$(WIN_EXES),$(BUILD)/windows/$(1)/$(x).exe):
	@mkdir -p $$(@D)
	$$(call say,WINLD)
	$$(Q)$$(WIN_CC) -static -Wl,--dynamicbase,--high-entropy-va,--nxcompat -o $$@ $$(filter %.o,$$^) $$(win_json) $(WIN_LIBS)
endef
$(eval $(call win_build,bin))
$(eval $(call win_build,test-bin))

# Their unit test and the child that it makes, of the same objects as test-bin.
$(BUILD)/windows/test-bin/obj/tests/unit/%.o: WIN_PROG_FLAGS += -O0 -Itests/unit/win -Itests/unit -D__USE_MINGW_ANSI_STDIO=1
$(BUILD)/windows/test-bin/test_win.exe: $(call win_program_objs,test-bin,tests/unit/win/test_win.c \
	src/jail/check_win.c src/jail/spawn_win.c $(WIN_BASE))
$(BUILD)/windows/test-bin/contained.exe: $(call win_program_objs,test-bin,tests/unit/win/contained_main.c \
	$(WIN_JAIL) $(WIN_BASE))
$(BUILD)/windows/test-bin/pipecat.exe: $(BUILD)/windows/test-bin/obj/tests/windows/pipecat.o
$(BUILD)/windows/test-bin/pipepeer.exe: $(BUILD)/windows/test-bin/obj/tests/windows/pipepeer.o
$(BUILD)/windows/test-bin/deny.exe: $(BUILD)/windows/test-bin/obj/tests/windows/deny.o
$(foreach x,test_win contained pipecat pipepeer deny,$(BUILD)/windows/test-bin/$(x).exe):
	$(call say,WINLD)
	$(Q)$(WIN_CC) -static -o $@ $(filter %.o,$^) $(WIN_LIBS)

.PHONY: windows windows-programs windows-test-programs windows-guest
windows: windows-programs windows-hv
windows-programs: $(foreach x,$(WIN_EXES),$(BUILD)/windows/bin/$(x).exe)
# What insula-run.exe boots by itself, beside it.
windows-guest: guest programs
	@tools/windows-guest $(BUILD) $(BUILD)/windows/bin/guest
windows-test-programs: $(foreach x,$(WIN_EXES) test_win contained pipecat pipepeer deny,$(BUILD)/windows/test-bin/$(x).exe)

-include $(shell find $(BUILD)/windows/bin $(BUILD)/windows/test-bin -name '*.d' 2>/dev/null)
