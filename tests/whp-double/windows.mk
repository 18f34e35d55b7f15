# SPDX-License-Identifier: BSD-2-Clause
# Tests of the Windows side, cross-built for wine; included by the Makefile, which has WIN_CC and WIN_FLAGS.
#
#   windows/double/winhvplatform.dll  WinHvPlatform.dll on KVM (kvm.h). Linux's headers come after Windows', for linux/kvm.h alone.
#   windows/tests/*.exe               unit tests, with tests/unit/win/check.h in the place of Check

WIN_TEST_FLAGS := $(WIN_FLAGS) -Itests/unit/win -Itests/unit -D__USE_MINGW_ANSI_STDIO=1
WIN_LINUX      := -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu
WIN_WHP        := $(patsubst tests/unit/%.c,$(BUILD)/windows/tests/%.exe,$(wildcard tests/unit/test_whp*.c))
WIN_TESTS      := $(WIN_WHP) $(addprefix $(BUILD)/windows/tests/,test_x86.exe test_hv.exe hvrun.exe)
HVRUN_SRC      := $(addprefix tests/whp-double/,hvrun.c hvrun_board.c hvrun_load.c) $(addprefix src/vmm/,line.c x86/acpi.c x86/aml.c x86/dsdt.c x86/ioapic.c)
win_test_objs   = $(patsubst %.c,$(BUILD)/windows/testobj/%.o,$(1))

windows-tests: $(BUILD)/tests/hvrun $(BUILD)/windows/double/winhvplatform.dll $(WIN_TESTS) $(BUILD)/windows/hello.exe

$(BUILD)/windows/testobj/tests/whp-double/kvm%.o: tests/whp-double/kvm%.c Makefile tests/whp-double/windows.mk | deps-windows
	@mkdir -p $(@D)
	$(call say,WINCC)
	$(Q)$(WIN_CC) $(WIN_TEST_FLAGS) $(WIN_LINUX) -MMD -MP -c -o $@ $<
$(BUILD)/windows/testobj/%.o: %.c Makefile tests/whp-double/windows.mk | deps-windows
	@mkdir -p $(@D)
	$(call say,WINCC)
	$(Q)$(WIN_CC) $(WIN_TEST_FLAGS) -MMD -MP -c -o $@ $<
# What a unit test does itself needs no speed; without it needs a stack such as Linux's.
$(BUILD)/windows/testobj/tests/unit/%.o: WIN_TEST_FLAGS += -O0
$(BUILD)/windows/double/winhvplatform.dll: $(call win_test_objs,$(wildcard tests/whp-double/kvm*.c)) $(call win_objs,$(src_x86)) \
		tests/whp-double/WinHvPlatform.def
	@mkdir -p $(@D)
	$(call say,WINLD)
	$(Q)$(WIN_CC) -shared -static-libgcc -o $@ $^

$(BUILD)/windows/tests/%.exe:
	@mkdir -p $(@D)
	$(call say,WINLD)
	$(Q)$(WIN_CC) -static -Wl,--stack,0x800000 -o $@ $(filter %.o,$^) $(filter %.a,$^) -lpthread
$(BUILD)/windows/tests/test_x86.exe: $(call win_test_objs,tests/unit/test_x86.c) $(BUILD)/windows/libinsula-hv.a
$(WIN_WHP): $(BUILD)/windows/tests/%.exe: $(BUILD)/windows/testobj/tests/unit/%.o $(call win_test_objs,tests/whp-double/double.c) $(BUILD)/windows/libinsula-hv.a
$(BUILD)/windows/tests/test_hv.exe: $(call win_test_objs,tests/unit/win/test_hv.c) $(BUILD)/windows/libinsula-hv.a
$(BUILD)/windows/tests/hvrun.exe: $(call win_test_objs,$(HVRUN_SRC) tests/whp-double/hvrun_win.c) $(BUILD)/windows/libinsula-hv.a

# Unit tests of what both systems build, with the rooms of tools/windows.mk. guestproto.c: no program for Windows has it yet.
WIN_UNIT     := acpi base config devpage_helper genid guestproto ioapic load loop pci pci_place remote restart rng uart virtio virtio_pci virtqueue vm vsock
WIN_UNIT_SRC := $(sort $(filter-out %/main.c tools/%,$(WIN_BASE) $(WIN_DEVICES) $(WIN_VMM) $(WIN_JAIL) $(WIN_RUN) $(WIN_DAEMON) src/base/guestproto.c))
WIN_UNIT_EXE := $(patsubst %,$(BUILD)/windows/tests/test_%.exe,$(WIN_UNIT))
windows-tests: $(WIN_UNIT_EXE)
$(BUILD)/windows/test-bin/librooms.a: $(call win_program_objs,test-bin,$(WIN_UNIT_SRC))
	@rm -f $@
	$(call say,WINAR)
	$(Q)x86_64-w64-mingw32-ar rcsD $@ $^
$(WIN_UNIT_EXE): $(BUILD)/windows/tests/%.exe: $(BUILD)/windows/test-bin/obj/tests/unit/%.o $(BUILD)/windows/test-bin/librooms.a
	@mkdir -p $(@D)
	$(call say,WINLD)
	$(Q)$(WIN_CC) -static -Wl,--stack,0x800000 -o $@ $^ $(WIN_UV) $(WIN_DEBIAN)/lib/libjson-c.a $(WIN_LIBS)

# The same VMM on KVM, to compare with.
$(BUILD)/tests/hvrun: $(call objs,$(HVRUN_SRC) tests/whp-double/hvrun_linux.c) $(BUILD)/lib/libinsula-hv.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^

-include $(shell find $(BUILD)/windows/testobj -name '*.d' 2>/dev/null)
