# SPDX-License-Identifier: BSD-2-Clause
# Bare-metal payloads: tests/guests/NAME.c + crt0.S -> $(BUILD)/guests/NAME.elf, and NAME-linux.elf without the PVH note, which
# a loader enters by the 64-bit Linux boot protocol. Included by the Makefile; sets PAYLOADS.
#
# General registers only: not every KVM that these run on has SSE for its guests, and there is no exception handler. No red zone
# for the same reason. Linked at 1 MiB, so the small code model and absolute addresses hold.

# One compiler whatever builds the rest: what is tested is the VMM.
PAYLOAD_CC := gcc
PAYLOAD_CFLAGS := -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=small -mno-red-zone -mgeneral-regs-only \
	-mno-sse -mno-mmx -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Werror -Iinclude -Itests/guests
PAYLOAD_LDFLAGS := -nostdlib -static -Wl,-T,tests/guests/payload.ld -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
	-Wl,-z,noexecstack

PAYLOAD_NAMES := $(patsubst tests/guests/%.c,%,$(wildcard tests/guests/*.c))
PAYLOAD_BOTH  := hello board mem
PAYLOADS := $(PAYLOAD_NAMES:%=$(BUILD)/guests/%.elf) $(PAYLOAD_BOTH:%=$(BUILD)/guests/%-linux.elf)
PAYLOAD_DEPS := $(wildcard tests/guests/*.h) include/insula/board.h tests/guests/payload.ld tests/guests/payloads.mk

$(BUILD)/guests/crt0.o: tests/guests/crt0.S $(PAYLOAD_DEPS)
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(PAYLOAD_CC) $(PAYLOAD_CFLAGS) -c -o $@ $<
$(BUILD)/guests/crt0-linux.o: tests/guests/crt0.S $(PAYLOAD_DEPS)
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(PAYLOAD_CC) $(PAYLOAD_CFLAGS) -DPAYLOAD_NO_PVH -c -o $@ $<
$(BUILD)/guests/obj/%.o: tests/guests/%.c $(PAYLOAD_DEPS)
	@mkdir -p $(@D)
	$(call say,GUEST)
	$(Q)$(PAYLOAD_CC) $(PAYLOAD_CFLAGS) -c -o $@ $<
$(PAYLOAD_NAMES:%=$(BUILD)/guests/%.elf): $(BUILD)/guests/%.elf: $(BUILD)/guests/crt0.o $(BUILD)/guests/obj/%.o
	$(call say,LINK)
	$(Q)$(PAYLOAD_CC) $(PAYLOAD_LDFLAGS) -o $@ $^
$(PAYLOAD_BOTH:%=$(BUILD)/guests/%-linux.elf): $(BUILD)/guests/%-linux.elf: $(BUILD)/guests/crt0-linux.o \
		$(BUILD)/guests/obj/%.o
	$(call say,LINK)
	$(Q)$(PAYLOAD_CC) $(PAYLOAD_LDFLAGS) -o $@ $^
