# SPDX-License-Identifier: GPL-2.0-or-later
# xlb: `make demo` and `make test` need nothing but git and make on Debian or
# Ubuntu, as root; `make deps` installs what they use.

B := build
CC := gcc
CLANG := clang
BPFTOOL := $(firstword $(wildcard /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
PKGS := libbpf libvirt libvirt-qemu yaml-0.1 sqlite3 libmnl jansson nettle \
	libarchive libgit2 libxml-2.0 libsystemd libcurl
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX ?= /usr
DESTDIR ?=
# The others are for the tests and the demo, and need the source.
INSTALLED_EXAMPLES := minimal full queries gitops

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wformat=2 -Wvla -Wundef -Wswitch-enum -Wimplicit-fallthrough \
	-Wconversion -Wnull-dereference -Werror
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE \
	-fstack-clash-protection -fcf-protection
CPPFLAGS := -D_GNU_SOURCE -I. -Ireconciler -I$(B)
CFLAGS := -std=gnu17 -O2 -g $(WARN) $(HARDEN)
LDFLAGS := -pie -Wl,-z,relro,-z,now
# Packages appear only after `make deps`, so ask late.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -linotifytools -lm -lpthread

# `make SANITIZE=1 ...` builds everything of user space under ASan and UBSan.
ifeq ($(SANITIZE),1)
B := build/sanitize
CPPFLAGS := -D_GNU_SOURCE -I. -Ireconciler -I$(B)
# gcc's flow warnings are wrong about instrumented code.
CFLAGS := -std=gnu17 -O1 -g $(WARN) -Wno-error \
	-fsanitize=address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
LDFLAGS := -fsanitize=address,undefined
endif

# One short line a step; `make V=1` shows the commands.
ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s %s\n' $(1) $(2)
endif

ARCH := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
BPF_EXTRA ?=
BPF_CFLAGS := -std=gnu17 -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror \
	$(BPF_EXTRA) -D__TARGET_ARCH_$(ARCH) -I. -Ibpf \
	-idirafter /usr/include/$(shell uname -m)-linux-gnu

BPF_OBJ := $(patsubst bpf/%.bpf.c,$(B)/bpf/%.bpf.o,$(wildcard bpf/*.bpf.c))
SKEL := $(BPF_OBJ:.bpf.o=.skel.h)
BENCH_SKEL := $(patsubst tests/bench/%.bpf.c,$(B)/bench/%.skel.h,$(wildcard tests/bench/*.bpf.c))
LIB_SRC := $(filter-out reconciler/main.c %.bpf.c,$(wildcard reconciler/*.c \
	reconciler/*/*.c state/*.c bpf/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o) $(B)/state/history_sql.o
TOOL_BIN := $(patsubst tools/%.c,$(B)/xlb-%,$(wildcard tools/*.c))
TEST_SRC := $(wildcard tests/unit/*_test.c tests/bpf/*_test.c tests/vm/*_test.c \
	tests/net/*_test.c tests/crash/*_test.c)
TEST_LIB_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
TEST_BIN := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC))
# The product once more, with everything that acts on the outside wrapped.
TEST_TOOL := $(B)/tests/crash/xlb-reconcile $(B)/tests/bpf/packet_lab $(B)/tests/net/holder $(B)/tests/net/flood \
	$(B)/tests/unit/judge
SCHEMA_BIN := $(B)/schemas/generate
FUZZ_BIN := $(patsubst tests/fuzz/%_fuzz.c,$(B)/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
BENCH_OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out %_bench.c %.bpf.c,$(wildcard tests/bench/*.c)))
BENCH_BIN := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*_bench.c))

.PHONY: all deps test demo bench soak sanitize fuzz install deb deb-test clean lint
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/xlb-reconcile $(TOOL_BIN)

deps:
	@tools/deps.sh

# The demo and the tests install what is missing, then start again so that
# every variable above sees it.
test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) build-all
	@tests/run.py

demo: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all guest
	@examples/demo/demo.py

bench:
	@tools/deps.sh bench
	@$(MAKE) --no-print-directory -j$$(nproc) all bench-bin guest
	@tests/bench/run.py

soak: deps
	@$(MAKE) --no-print-directory -j$$(nproc) build-all
	@tests/run.py --soak

# Everything of user space once more, under ASan, LSan and UBSan.
sanitize: deps
	@$(MAKE) --no-print-directory -j$$(nproc) build-all
	@$(MAKE) --no-print-directory -j$$(nproc) SANITIZE=1 all tests-bin
	@ln -sfn ../guest build/sanitize/guest
	@ln -sfn ../../tests/image build/sanitize/tests/image
	@ln -sfn ../../tests/kernel build/sanitize/tests/kernel
	@for group in unit golden bpf net vm crash; do \
		XLB_BUILD=build/sanitize tests/run.py --soak --only $$group/ || exit 1; \
	done

fuzz: deps
	@$(MAKE) --no-print-directory -j$$(nproc) build-all
	@tests/run.py --fuzz

.PHONY: build-all sanitized sanitized-bin guest image debs tests-bin fuzz-bin bench-bin
build-all: all tests-bin fuzz-bin bench-bin image debs sanitized-bin
tests-bin: $(TEST_BIN) $(TEST_TOOL) $(SCHEMA_BIN)
sanitized: $(filter $(B)/tests/unit/% $(B)/tests/crash/%,$(TEST_BIN))
sanitized-bin:
	@$(MAKE) --no-print-directory SANITIZE=1 sanitized
bench-bin: $(BENCH_BIN)
fuzz-bin: $(FUZZ_BIN)
guest:
	@examples/guest/build.sh $(abspath $(B))/guest

# Made here, because the tests run where no package can be fetched.
image: guest
	@tests/lib/image.sh $(abspath $(B))/tests/image/web.qcow2 $(abspath $(B))/guest
	@tests/lib/kernel.sh $(abspath $(B))/tests/kernel/6.12 6.12

debs: $(B)/xlb-reconcile
	@[ "$(SANITIZE)" = 1 ] || tests/lib/debs.sh $(abspath $(B))/tests/debs $(abspath $(B))

lint:
	@tests/lint.sh

# Editors' view of services.yaml, from the parser's tables.
.PHONY: schema
schema: $(SCHEMA_BIN)
	$(call say,GEN,schemas/services.schema.json)
	$(Q)$< >$(B)/schemas/services.schema.json
	$(Q)mv $(B)/schemas/services.schema.json schemas/services.schema.json

$(SCHEMA_BIN): $(B)/schemas/generate.o $(B)/libxlb.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/xlb-reconcile: $(B)/reconciler/main.o $(B)/libxlb.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# Compiled again when the version is another one, and only then.
$(B)/reconciler/main.o: CPPFLAGS += -DXLB_VERSION='"$(VERSION)"'
$(B)/reconciler/main.o: $(B)/version
$(B)/version: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
.PHONY: FORCE

$(B)/libxlb.a: $(LIB_OBJ)
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(B)/xlb-%: tools/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d -o $@ $< -lpthread -lm

$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	@mkdir -p $(@D)
	$(call say,CLANG,$@)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<

# These are the others, and more.
$(B)/bpf/%_trace.bpf.o: bpf/%.bpf.c

# Without what a debugger wants, which is half of it: the daemon holds them.
$(B)/bpf/%.skel.h: $(B)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen object $(B)/bpf/$*.small.o $<
	$(Q)$(BPFTOOL) gen skeleton $(B)/bpf/$*.small.o name $*_bpf > $@

# The benches' own programs wrap those of bpf/.
$(B)/bench/%.bpf.o: tests/bench/%.bpf.c $(wildcard bpf/*.h tests/bench/*.h)
	@mkdir -p $(@D)
	$(call say,CLANG,$@)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c -o $@ $<

$(B)/bench/%.skel.h: $(B)/bench/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

# schemas/history.sql is embedded: one copy, read by people and by the store.
$(B)/state/history_sql.c: schemas/history.sql
	@mkdir -p $(@D)
	@{ echo 'extern const char history_sql[];'; echo 'const char history_sql[] ='; \
	  sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&\\n"/' $<; echo ';'; } > $@

$(B)/state/history_sql.o: $(B)/state/history_sql.c
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-overlength-strings -c -o $@ $<

$(B)/%.o: %.c | $(SKEL)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/crash/xlb-reconcile: $(B)/reconciler/main.o $(B)/tests/crash/seam.o $(B)/libxlb.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $$(nm $(B)/tests/crash/seam.o | sed -n 's/.* T __wrap_/-Wl,--wrap=/p') \
		-o $@ $^ $(LIBS)

# The kernel's code puns types and reads words where they lie in a packet.
$(B)/bpf/replay.o: CFLAGS += -fno-strict-aliasing -fno-sanitize=alignment

# It includes what runs in the kernel, which reads words where they lie.
$(B)/tests/unit/tracking_check_test: CFLAGS += -fno-sanitize=alignment

$(B)/tests/libtest.a: $(TEST_LIB_OBJ)
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

# gcc doesn't know that cmocka's assert_non_null() returns only on success.
$(B)/tests/%: tests/%.c $(B)/tests/libtest.a $(B)/libxlb.a | $(SKEL)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -Wno-null-dereference $(LDFLAGS) -MMD -MP -MF $@.d -o $@ $< \
		$(B)/tests/libtest.a $(B)/libxlb.a $(LIBS) -lcmocka

$(B)/bench/%: tests/bench/%.c $(BENCH_OBJ) $(B)/tests/libtest.a $(B)/libxlb.a $(BENCH_SKEL) | $(SKEL)
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -MF $@.d -o $@ $< \
		$(BENCH_OBJ) $(B)/tests/libtest.a $(B)/libxlb.a $(LIBS)

# libFuzzer wants what it drives instrumented too, so each target is compiled
# from the sources of its FUZZ_SRC.
FUZZ_CFLAGS := -std=gnu17 -O1 -g -fno-omit-frame-pointer \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ_SRC_desired := $(wildcard reconciler/desired/*.[ch] reconciler/base/*.[ch])
FUZZ_LIBS_desired := -lyaml -lnettle
FUZZ_SRC_packet := $(wildcard reconciler/base/*.[ch]) reconciler/tables/vip_table.c \
	tests/lib/bpf_lab.c tests/lib/packet_make.c tests/lib/packet_view.c \
	tests/lib/bpf_lab.h tests/lib/packet_make.h tests/lib/packet_view.h bpf/xlb.h
FUZZ_LIBS_packet := -lbpf
FUZZ_SRC_saved_plan := $(wildcard reconciler/base/*.[ch] reconciler/plan/*.h) \
	reconciler/plan/saved.c reconciler/plan/id.c
FUZZ_LIBS_saved_plan := -ljansson -lnettle
FUZZ_SRC_control := $(wildcard reconciler/base/*.[ch]) reconciler/reconcile.h \
	reconciler/cli/request.c reconciler/cli/options.c

.SECONDEXPANSION:
$(FUZZ_BIN): $(B)/fuzz/%: tests/fuzz/%_fuzz.c $$(FUZZ_SRC_$$*) | $(BPF_OBJ)
	@mkdir -p $(@D)
	$(call say,CLANG,$@)
	$(Q)$(CLANG) $(CPPFLAGS) $(PKG_CFLAGS) $(FUZZ_CFLAGS) -o $@ $(filter %.c,$^) \
		$(FUZZ_LIBS_$*) -lm

# Where distributions put them; DESTDIR goes in front of all.
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/xlb
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
put = install -D -m 644

install: $(B)/xlb-reconcile
	$(call say,INSTALL,$(DESTDIR)$(PREFIX)/sbin/xlb-reconcile)
	$(Q)install -D -m 755 $< $(DESTDIR)$(PREFIX)/sbin/xlb-reconcile
	$(Q)$(put) packaging/systemd/xlb-reconcile.service $(DESTDIR)$(UNITDIR)/xlb-reconcile.service
	$(Q)$(put) packaging/man/xlb-reconcile.8 $(DESTDIR)$(MANDIR)/man8/xlb-reconcile.8
	$(Q)$(put) packaging/man/xlb-services.yaml.5 $(DESTDIR)$(MANDIR)/man5/xlb-services.yaml.5
	$(Q)$(put) packaging/completion/xlb-reconcile.bash $(DESTDIR)$(BASHDIR)/xlb-reconcile
	$(Q)$(put) packaging/completion/_xlb-reconcile $(DESTDIR)$(ZSHDIR)/_xlb-reconcile
	$(Q)install -d $(DESTDIR)$(PREFIX)/share/xlb
	$(Q)install -m 644 $(wildcard schemas/*.json schemas/*.sql) $(DESTDIR)$(PREFIX)/share/xlb
	$(Q)$(put) README.md $(DESTDIR)$(DOCDIR)/README.md
	$(Q)for d in $(INSTALLED_EXAMPLES); do \
		(cd examples && find $$d -type f | while read -r f; do \
			mode=644; [ ! -x $$f ] || mode=755; \
			install -D -m $$mode $$f $(abspath $(DESTDIR)/$(DOCDIR))/examples/$$f || exit 1; \
		done) || exit 1; done
	$(Q)find $(DESTDIR)$(DOCDIR)/examples -name '*.yaml' -exec sed -i \
		'1s,\$$schema=[./]*/schemas/,$$schema=$(PREFIX)/share/xlb/,' {} +

# A Debian package in build/deb; deb-test tries it in a clean system.
deb: deps
	@packaging/deb.sh $(B)/deb

deb-test: deb
	@packaging/deb-test.sh $(B)/deb

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
