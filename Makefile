# qstream: see 'make help'.
CC ?= gcc
prefix ?= /usr/local
BUILD ?= build

CFLAGS ?= -O2 -g
WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
QCFLAGS = -std=c17 -D_GNU_SOURCE -I. -ffp-contract=off -fno-strict-aliasing -pthread -MMD -MP $(WARNINGS) $(CFLAGS)
LIBRARIES = -ljansson -lcrypto -lpcre2-8 -lz -lm -pthread

COMMON = $(sort $(wildcard common/*.c))
QUANTIZE = $(filter-out qstream/main.c,$(sort $(wildcard qstream/*.c)))
OBJECTS = $(patsubst %.c,$(BUILD)/obj/%.o,$(COMMON) $(QUANTIZE))

# Files named after an instruction set are built for it and called only where it exists.
$(BUILD)/obj/%_avx2.o: QCFLAGS += $(if $(X86),-O3 -mavx2 -mfma -mbmi2 -mf16c)
$(BUILD)/obj/%_avx512.o: QCFLAGS += $(if $(X86),-O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx2 -mfma -mbmi2 -mf16c)
$(BUILD)/obj/%_portable.o $(BUILD)/obj/%_neon.o $(BUILD)/obj/qstream/convert.o: QCFLAGS += -O3
X86 := $(findstring x86_64,$(shell $(CC) -dumpmachine))

.PHONY: all
all: $(BUILD)/qstream

$(BUILD)/qstream: $(BUILD)/obj/qstream/main.o $(OBJECTS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBRARIES)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(QCFLAGS) -c -o $@ $<

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
