# qstream: see 'make help'.
CC = gcc
prefix ?= /usr/local
zshdir ?= $(prefix)/share/zsh/site-functions
BUILD ?= build
CFLAGS ?= -O2 -g
# What spends its time in loops over weights.
KERNEL_FLAGS ?= -O3
Q := $(if $(V),,@)

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Werror
# No contraction and no fast math: the same figures on every machine.
QCFLAGS = -std=c17 -D_GNU_SOURCE -I. -ffp-contract=off -fno-strict-aliasing -pthread -MMD -MP $(WARNINGS) $(CPPFLAGS) $(CFLAGS)
# Matrix products of many rows: oneDNN, loaded when it is needed, where it has kernels of its own; OpenBLAS elsewhere.
ifeq ($(findstring x86_64,$(shell $(CC) -dumpmachine)),)
PRODUCTS = -lopenblas
endif
LIBRARIES = -ljansson -lcrypto -lpcre2-8 $(PRODUCTS) -lz -lm -ldl -pthread

COMMON = $(sort $(wildcard common/*.c common/hub/*.c))
COMMANDS = $(sort qstream/main.c $(wildcard qstream/command_*.c))
QUANTIZE = $(filter-out $(COMMANDS),$(sort $(wildcard qstream/*.c)))
INSPECT = $(sort $(wildcard inspect/*.c))
VERIFY = $(sort $(wildcard verify/*.c))
CALIBRATE = $(sort $(wildcard calibrate/*.c report/*.c))
INFER = $(sort $(wildcard infer/*.c infer/*/*.c))
PAGES = $(patsubst %.html,$(BUILD)/obj/%_html.o,$(sort $(wildcard */page.html infer/*/page.html)))
OBJECTS = $(patsubst %.c,$(BUILD)/obj/%.o,$(COMMON) $(QUANTIZE) $(INSPECT) $(VERIFY) $(INFER) $(CALIBRATE)) $(PAGES)
UNIT_TESTS = $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
SOURCES = $(shell git ls-files '*.[ch]' '*.inc' '*.cu' '*.cuh' '*.cc' 2>/dev/null)

.PHONY: all
all: $(BUILD)/qstream ## build build/qstream

LIBRARY = $(BUILD)/libqstream.a

$(BUILD)/qstream: $(patsubst %.c,$(BUILD)/obj/%.o,$(COMMANDS)) $(LIBRARY)
	$(Q)echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBRARIES)

# All but the commands: what links it takes only what it needs.
$(LIBRARY): $(OBJECTS)
	$(Q)echo "  AR $@"
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

# Files named after an instruction set are compiled for it and called only where the machine has it.
ifneq ($(findstring x86_64,$(shell $(CC) -dumpmachine)),)
AVX2 = -mavx2 -mfma -mbmi2 -mf16c
$(BUILD)/obj/%_avx2.o: QCFLAGS += $(KERNEL_FLAGS) $(AVX2)
$(BUILD)/obj/%_avx512.o: QCFLAGS += $(KERNEL_FLAGS) $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi
$(BUILD)/obj/infer/cpu/rows_avx512.o: QCFLAGS += -mprefer-vector-width=512
endif
$(BUILD)/obj/%_portable.o $(BUILD)/obj/%_neon.o $(BUILD)/obj/qstream/convert.o $(BUILD)/obj/inspect/scan_values.o $(addprefix $(BUILD)/obj/verify/,matrix.o value_measure.o compare.o mxfp4_block.o figures.o): QCFLAGS += $(KERNEL_FLAGS)

# Nothing here asks for floating-point exceptions or errno: loops with conditions can be vectorized.
$(BUILD)/obj/infer/cpu/rows_%.o $(BUILD)/obj/calibrate/columns_%.o: QCFLAGS += -fno-math-errno -fno-trapping-math

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC $<"
	$(Q)$(CC) $(QCFLAGS) -c -o $@ $<

# The pages of the reports lie in the program: FOLDER/page.html is the array FOLDER_page_html of its bytes, each / an _. Its
# lines @common/page.css@ and @common/page.js@ are what all pages share.
SHARED = common/page.css common/page.js
INCLUDE = $(foreach file,$(SHARED),-e '\,^@$(file)@$$,{' -e 'r $(file)' -e 'd' -e '}')
$(PAGES:.o=.c): $(BUILD)/obj/%/page_html.c: %/page.html $(SHARED) Makefile
	@mkdir -p $(@D)
	$(Q)echo "  GEN $@"
	$(Q){ echo 'extern const unsigned char $(subst /,_,$*)_page_html[]; extern const unsigned long $(subst /,_,$*)_page_html_size;'; \
	echo 'const unsigned char $(subst /,_,$*)_page_html[] = {'; sed $(INCLUDE) $< | od -A n -v -t u1 | sed 's/[0-9][0-9]*/&,/g'; echo '};'; \
	echo 'const unsigned long $(subst /,_,$*)_page_html_size = sizeof $(subst /,_,$*)_page_html;'; } >$@.new
	$(Q)mv $@.new $@

$(PAGES): %.o: %.c
	$(Q)echo "  CC $<"
	$(Q)$(CC) $(QCFLAGS) -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(Q)echo "  LD $@"
	$(Q)$(CC) $(QCFLAGS) $(LDFLAGS) -o $@ $< $(LIBRARY) -lcmocka $(LIBRARIES)

# With the sanitizers, and counters for libFuzzer: what the suites named asan and the fuzzing run.
SANITIZE = -O1 -gline-tables-only -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
FUZZERS = $(patsubst tests/fuzz/fuzz_%.c,build/asan/fuzz_%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: asan
asan: ## build with clang and its sanitizers, build/asan
	$(MAKE) BUILD=build/asan CC=clang CFLAGS="$(SANITIZE)" KERNEL_FLAGS= all unit $(FUZZERS)

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.c $(LIBRARY)
	$(Q)echo "  LD $@"
	$(Q)$(CC) $(QCFLAGS) -fsanitize=fuzzer -o $@ $(filter %.c,$^) $(LIBRARY) $(LIBRARIES)

# What tests/hub drives.
$(BUILD)/unit/hub_client: tests/hub/client.c $(LIBRARY)
	@mkdir -p $(@D)
	$(Q)echo "  LD $@"
	$(Q)$(CC) $(QCFLAGS) $(LDFLAGS) -o $@ $< $(LIBRARY) $(LIBRARIES)

# The tests of the CUDA plug-in, through its table: of the emulated one (tests/cuda/run_cuda.sh) or of the real one on a GPU.
PLUGIN_TESTS = $(patsubst %.c,$(BUILD)/obj/%.o,$(sort $(wildcard tests/cuda/test_plugin*.c)))
$(BUILD)/cuda-test/test_plugin_tsan: LDFLAGS += -fsanitize=thread # for a plug-in that was compiled with it
$(BUILD)/cuda-test/test_plugin $(BUILD)/cuda-test/test_plugin_tsan: $(PLUGIN_TESTS) $(LIBRARY)
	@mkdir -p $(@D)
	$(Q)echo "  LD $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBRARIES)

-include $(shell find $(BUILD)/obj $(BUILD)/unit -name '*.d' 2>/dev/null)

# The CUDA plug-in as C++ under the execution model of tests/cuda/model, beside a link to the program. With sanitizers:
# MODEL_FLAGS, and MODEL for another folder. The model itself goes without ThreadSanitizer, which is to see kernels only.
CXX = g++
MODEL ?= $(BUILD)/cuda-model
MODEL_FLAGS ?= -O2 -g
MODEL_CXXFLAGS = -std=c++17 -fPIC -I. -Itests/cuda/model -ffp-contract=off -fno-strict-aliasing -pthread -MMD -MP -Wall -Wextra
MODEL_SOURCES = $(filter-out %/self_test.cc,$(sort $(wildcard tests/cuda/model/*.cc)))
MODEL_KERNELS = $(sort $(wildcard infer/cuda/*.cu))
MODEL_OBJECTS = $(patsubst %,$(MODEL)/obj/%.o,$(MODEL_SOURCES) $(MODEL_KERNELS))
MODEL_OWN_FLAGS = $(if $(findstring -fsanitize=thread,$(MODEL_FLAGS)),-DMODEL_TSAN) $(filter-out -fsanitize=thread -O1 -O0,$(MODEL_FLAGS)) \
	-O3 $(if $(findstring clang,$(CXX)),,-fno-tree-loop-distribute-patterns)

.PHONY: cuda-model
cuda-model: $(MODEL)/libqstream_cuda.so $(MODEL)/qstream ## build the CUDA plug-in for tests on the CPU, build/cuda-model

$(MODEL)/libqstream_cuda.so: $(MODEL_OBJECTS)
	$(Q)echo "  LD $@"
	$(Q)$(CXX) $(MODEL_FLAGS) $(LDFLAGS) -shared -pthread -o $@ $^ -ldl

$(MODEL)/qstream: $(BUILD)/qstream
	@mkdir -p $(@D)
	$(Q)ln -f $< $@

$(MODEL)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(Q)echo "  CXX $<"
	$(Q)$(CXX) $(MODEL_CXXFLAGS) $(MODEL_OWN_FLAGS) -c -o $@ $<

$(MODEL)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(Q)echo "  CXX $<"
	$(Q)$(CXX) $(MODEL_CXXFLAGS) -Wno-unknown-pragmas $(MODEL_FLAGS) -x c++ -c -o $@ $<

-include $(shell find $(MODEL)/obj -name '*.d' 2>/dev/null)

# ---- the CUDA plug-in ----

# Machine code for each generation of cards (that of 8.0 and 10.0 runs on 8.6 and 10.3 too), and PTX, which drivers compile
# for the others. PTX of 10.0: all cards below it have machine code here, so that older PTX would reach no more of them,
# and what lies between and comes later (11.0, 13.x) gets the newest instructions that are not of one card only.
ARCHS ?= 80 89 90 100 120 121
PTX ?= $(if $(filter 100,$(ARCHS)),100,$(lastword $(ARCHS)))
NVCC ?= $(or $(addsuffix /bin/nvcc,$(shell tests/cuda/toolkit.sh find)),nvcc)
NVCCFLAGS ?= -O3 -lineinfo
CUDA_HOME = $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC))))
# By its file name: PyPI's packages lack the link without a version.
CUBLASLT = $(firstword $(wildcard $(foreach lib,lib64 lib targets/*/lib,$(CUDA_HOME)/$(lib)/libcublasLt.so $(CUDA_HOME)/$(lib)/libcublasLt.so.*)))
# Without cuBLAS's own header, to compile only: our declarations of it.
CUBLASLT_HEADER = $(wildcard $(CUDA_HOME)/include/cublasLt.h $(CUDA_HOME)/targets/*/include/cublasLt.h)
GENCODE = $(foreach arch,$(ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) -gencode arch=compute_$(PTX),code=compute_$(PTX)
CUDA_OBJECTS = $(patsubst infer/cuda/%.cu,$(BUILD)/obj/cuda/%.o,$(sort $(wildcard infer/cuda/*.cu)))

.PHONY: cuda
cuda: $(BUILD)/libqstream_cuda.so ## build build/libqstream_cuda.so with nvcc; ARCHS="90" for one kind of card

# Where it was built, the toolkit's cuBLASLt is found without LD_LIBRARY_PATH.
$(BUILD)/libqstream_cuda.so: $(CUDA_OBJECTS)
	$(Q)echo "  LD $@"
	$(Q)$(NVCC) -shared -cudart static -Xlinker -z,defs,--as-needed,--exclude-libs,ALL \
	$(if $(CUBLASLT),-Xlinker -rpath$(comma)$(dir $(CUBLASLT))) -o $@ $^ $(or $(CUBLASLT),-lcublasLt)
comma = ,

$(BUILD)/obj/cuda/%.o: infer/cuda/%.cu $(BUILD)/obj/cuda/flags
	$(Q)echo "  NVCC $<"
	$(Q)$(NVCC) -std=c++17 -I. $(if $(CUBLASLT_HEADER),,-Itests/cuda/cublaslt) $(GENCODE) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-format-truncation $(NVCCFLAGS) -MMD -MP -c -o $@ $<

# Changes when other cards are asked for, or another compiler.
$(BUILD)/obj/cuda/flags: cuda-flags
	@mkdir -p $(@D)
	@echo '$(NVCC) $(GENCODE) $(NVCCFLAGS)' | cmp -s - $@ || echo '$(NVCC) $(GENCODE) $(NVCCFLAGS)' >$@
.PHONY: cuda-flags
cuda-flags:

.PHONY: unit
unit: $(UNIT_TESTS) $(BUILD)/unit/hub_client ## build the unit tests, build/unit/test_*

.PHONY: demo
demo: ## install what is missing; quantize, audit, verify and measure the sample model
	./setup build
	$(MAKE) all
	tests/demo.sh

.PHONY: test
test: ## install what is missing and run the tests
	./setup test
	tests/run.sh

.PHONY: test-full
test-full: ## the same, in more places: more kills, faults, layouts, sanitizers (an hour on two cores)
	./setup test
	tests/run.sh --full

.PHONY: test-clients
test-clients: all ## compare with vLLM's and transformers' own code (brings torch: 9 GB under build/readers)
	./setup test
	tests/readers/run_readers.sh

.PHONY: test-cuda-full
test-cuda-full: all cuda-model ## run all of the sample model on the CUDA plug-in under the execution model (15 minutes)
	./setup test
	tests/cuda/run_engine.sh --full

.PHONY: fuzz
fuzz: ## fuzz the parsers: 45 s each, or SECONDS=N
	tests/fuzz/run.sh $(SECONDS)

.PHONY: bench
bench: all ## measure speed against this machine's own limits
	tests/bench/bench.sh
	tests/bench/infer.py
	tests/bench/calibrate.py

.PHONY: format
format: ## lay out the sources with clang-format
	clang-format -i $(SOURCES)

.PHONY: lint
lint: ## clang-format, cppcheck, clang-tidy
	tests/lint.sh

.PHONY: install
install: all ## install to $(DESTDIR)$(prefix)
	install -D -m 755 $(BUILD)/qstream $(DESTDIR)$(prefix)/bin/qstream
	if [ -e $(BUILD)/libqstream_cuda.so ]; then \
	    install -D -m 755 $(BUILD)/libqstream_cuda.so $(DESTDIR)$(prefix)/lib/qstream/libqstream_cuda.so; fi
	install -d $(DESTDIR)$(prefix)/share/qstream/configs
	install -m 644 configs/*.json $(DESTDIR)$(prefix)/share/qstream/configs
	install -d $(DESTDIR)$(prefix)/share/doc/qstream/examples
	install -m 755 cluster/quantize.slurm $(DESTDIR)$(prefix)/share/doc/qstream/examples
	install -m 644 cluster/quantize-job.yaml $(DESTDIR)$(prefix)/share/doc/qstream/examples
	install -D -m 644 docs/qstream.1 $(DESTDIR)$(prefix)/share/man/man1/qstream.1
	install -D -m 644 completions/qstream.bash $(DESTDIR)$(prefix)/share/bash-completion/completions/qstream
	install -D -m 644 completions/_qstream $(DESTDIR)$(zshdir)/_qstream

# From a copy of the sources: dpkg-buildpackage leaves its files beside the folder that it builds in.
DEB = $(abspath build/deb)
.PHONY: deb
deb: ## build a Debian package, build/qstream_*.deb
	./setup deb
	rm -rf $(DEB)
	mkdir -p $(DEB)/qstream
	tar -c --exclude=./build --exclude=./.git . | tar -x -C $(DEB)/qstream
	cd $(DEB)/qstream && env -u MAKEFLAGS -u BUILD dpkg-buildpackage -b -us -uc -j$(shell nproc)
	rm -f build/qstream*.deb build/qstream_*.changes build/qstream_*.buildinfo
	mv $(DEB)/*.deb $(DEB)/*.changes $(DEB)/*.buildinfo build
	rm -rf $(DEB)

.PHONY: clean
clean: ## remove what was compiled; models and tools stay
	rm -rf build/debian build/deb build/qstream*.deb build/qstream_*.changes build/qstream_*.buildinfo $(BUILD)/obj $(BUILD)/unit $(BUILD)/qstream $(BUILD)/asan $(BUILD)/clang $(BUILD)/arm64 $(BUILD)/fuzz $(BUILD)/cuda-model*

.PHONY: help
help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22
