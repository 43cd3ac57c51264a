#!/usr/bin/env bash
# Builds and runs the tests: the quick suite, with --all everything that fits 55 minutes on two cores, with --long all there is.
set -euo pipefail

readonly program=test   # steps.sh puts it in front of messages
unset CDPATH            # with it cd may go elsewhere
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/steps.sh
source "$tools/steps.sh"
readonly GOLDEN=build/golden
readonly BROKEN="the last lines above name the cause"
readonly FUZZ_COMPILER=clang++-14
long=0   # whether --long
# Tests in which several threads touch one thing; the rest would only be slow under the thread sanitizer.
readonly TSAN_TESTS='test_(parallel|gallery)'

usage() {
  cat <<'TEXT'
Usage: tools/test.sh [--all | --long] [--only STAGE]...

The quick suite: sets up what is missing (tools/bootstrap.sh), builds the command and the tests for this CPU (target
`quick` of the release preset), makes test weights and golden files (build/golden, made again when the tools that make
them change), checks layout and scripts (tools/lint.sh), runs ctest and pytest. On two quiet cores at most 8 minutes from nothing (after downloads), 4 when built.
At the end a table shows each stage's time beside its budget; a stage that did not run counts as failed. Nothing in
weights/, the environment or the current folder changes the result.

Options:
  --all    55 minutes; also: all programs of the release preset; each layer's instructions against the recorded ones; address and undefined-behaviour sanitizers over
           the headers' tests (on the one file of tools/amalgamate.py); the thread sanitizer over the tests with
           threads; kernels and plan for other CPUs (NEON, WebAssembly, old x86-64), kernels and weight files for other
           machines (32-bit ARM, RISC-V, big-endian s390x, i386), in emulators; the JavaScript package in Node, in
           Chromium and under wasmtime; builds without exceptions, threads, files, malloc or SIMD, and for musl, Windows
           and macOS (build/constrained_builds.md); packages and their consumers; 10 seconds of fuzzing for each target
  --long   hours: --all, and the command with sanitizers; whole networks and every kernel on every machine in
           emulators; the tests marked `long`; five minutes of fuzzing for each target
  --only STAGE   of --all or --long this stage alone, as the table at the end calls it; again for more
  --help   this text

Exit status: 0 all passed, 1 a test failed or a stage was skipped, 2 something could not be set up or built.

Examples:
  tools/test.sh
  tools/bootstrap.sh --tensorflow && tools/test.sh --all                importers beside TensorFlow too, skipped otherwise
  ctest --preset release -R plan                                        one test again
  .venv/bin/python -m pytest tests/python/test_command.py -k verify     the same in Python
TEXT
}

failures=()
summaries=()

# Seconds on two quiet cores, after downloads.
declare -Ar BUDGETS=(["lint"]=15 ["build release"]=200 ["golden files"]=40 ["ctest, release"]=60 ["pytest, release"]=150)
readonly QUICK_BUDGET=480 ALL_BUDGET=3300
readonly QUICK_STAGES=("lint" "build release" "golden files" "ctest, release" "pytest, release")
readonly ALL_STAGES=("${QUICK_STAGES[@]}" "clang-tidy" "build asan" "ctest, asan" "pytest, asan" "ctest, tsan" "emulators" "web package"
                     "pytest, packages" "constrained builds" "build noexcept" "fuzz targets")
stages=()                      # those that should run
only=()                        # --only's
declare -A seconds results     # of those that did

# is_wanted STAGE : whether --only names it, or there is no --only.
is_wanted() {
  local name
  ((${#only[@]})) || return 0
  for name in "${only[@]}"; do [[ $name != "$1" ]] || return 0; done
  return 1
}

# stage NAME COMMAND... : runs the command and notes how long it took; `lacks` and a failed runner note a worse result.
stage() {
  local name=$1 began=$EPOCHREALTIME before=${#failures[@]}
  shift
  is_wanted "$name" || return 0
  results[$name]=stopped
  "$@"
  seconds[$name]=$(seconds_since "$began")
  results[$name]=ok
  ((${#failures[@]} == before)) || results[$name]=FAILED
}

# One line a stage, with those that should have run and did not, which are failures too.
print_table() {
  local name budget note
  printf '\n%s: %-32s%9s%9s  %s\n' "$program" stage seconds budget result
  for name in "${stages[@]}"; do
    budget=${BUDGETS[$name]:-} note=${results[$name]:-NOT RUN}
    [[ -z $budget || -z ${seconds[$name]:-} ]] || ((${seconds[$name]%.*} < budget)) || note+=", over its budget"
    printf '%s: %-32s%9.9s%9s  %s\n' "$program" "$name" "$([[ -z ${seconds[$name]:-} ]] || printf '%.0f' "${seconds[$name]}")" \
      "$budget" "$note"
    [[ ${results[$name]:-} ]] || failures+=("$name: not run")
  done
}

# Nothing of the caller's reaches what is built and tested, but where programs are and what makes builds faster.
clean_environment() {
  local name
  for name in $(compgen -e); do
    case $name in
      PATH | HOME | USER | LOGNAME | SHELL | TERM | PWD | SHLVL | LC_ALL | BASHOPTS | SHELLOPTS | FACENET_LONG | FACENET_RECIPE) ;;
      FUZZ_SECONDS | CCACHE_* | CMAKE_C_COMPILER_LAUNCHER | CMAKE_CXX_COMPILER_LAUNCHER) ;;
      *) unset "$name" ;;
    esac
  done
  umask 022
}

# runner NAME LAST-LINES COMMAND... : runs tests with their output shown, keeps the runner's closing lines.
runner() {
  local name=$1 lines=$2 began=$EPOCHREALTIME output status=0
  shift 2
  output=build/${name//[^A-Za-z0-9]/-}.log
  printf '\n%s: %s\n' "$program" "$name" >&2
  { "$@" 2>&1 || status=$?; echo "$status" >build/runner.status; } | tee "$output"
  read -r status <build/runner.status
  summaries+=("$name, $(printf '%.0f s' "$(seconds_since "$began")")" "$(grep -E "$lines" "$output" | tail -n 4 || true)")
  ((status == 0)) || failures+=("$name")
}

readonly CTEST_LINES='tests passed|tests failed|Total Test time'
readonly DOCTEST_LINES='test cases:'
readonly PYTEST_LINES='(passed|failed|error|skipped).* in [0-9.]+s'

run_ctest() {  # PRESET [ARGUMENT...]
  local preset=$1
  shift
  runner "ctest, $preset" "$CTEST_LINES" ctest --preset "$preset" --no-tests=error -j "$(nproc)" "$@"
}
run_pytest() {  # NAME [ARGUMENT...]
  local name=$1
  shift
  FACENET_COMPLETE=1 runner "$name" "$PYTEST_LINES" .venv/bin/python -X utf8 -m pytest -ra --numprocesses "$(nproc)" \
    --dist loadfile "$@"
}

# What the golden files depend on: the tools, and the pictures they are made of.
golden_key() {
  {
    cat tools/*.py tools/facenet_tools/*.py tools/requirements.txt tools/constraints.txt tests/python/make_golden_files.py
    sha256sum "${golden_pictures[@]}"
  } | sha256sum
}

make_golden() {
  local made=$GOLDEN.new
  rm -rf "$made"
  .venv/bin/python tests/python/make_golden_files.py "$made" "${golden_pictures[@]}"
  golden_key >"$made/key"
  rm -rf "$GOLDEN"
  mv "$made" "$GOLDEN"
}

golden_files() {
  golden_pictures=(.deps/samples/*.png .deps/samples/*.jpg)
  if [[ -d ../shared/photos ]]; then
    golden_pictures+=(../shared/photos/*.jpg)
  else
    echo "test: ../shared/photos is not there: the tests on its photographs are skipped" >&2
  fi
  local picture
  for picture in "${!golden_pictures[@]}"; do [[ -f ${golden_pictures[picture]} ]] || unset "golden_pictures[$picture]"; done
  golden_pictures=("${golden_pictures[@]}")
  ((${#golden_pictures[@]})) || die "there are no pictures in .deps/samples; run tools/bootstrap.sh and try again."
  if [[ -f $GOLDEN/key && $(<"$GOLDEN/key") == "$(golden_key)" ]]; then
    echo "test: weights and golden files are there" >&2
    return 0
  fi
  step "make weights and golden files" "$BROKEN" make_golden
}

# lint [--all | --tidy] : what no program shows (tools/lint.sh).
lint() { runner "lint${1:+ $1}" '^lint: ' tools/lint.sh "$@"; }

quick() {
  stage "lint" lint
  stage "build release" step "build release" "$BROKEN" build release quick
  stage "golden files" golden_files
  stage "ctest, release" run_ctest release --label-exclude extra
  stage "pytest, release" run_pytest "pytest, release" --ignore tests/python/test_packages.py tests/python -m "not slow and not long"
}

# The same with everything that the quick suite leaves out.
whole() {
  stage "lint" lint --all
  stage "build release" step "build release" "$BROKEN" build release
  stage "golden files" golden_files
  stage "ctest, release" run_ctest release
  local marked="not long"
  ((long)) && marked=""
  stage "pytest, release" run_pytest "pytest, release" --ignore tests/python/test_packages.py tests/python -m "$marked"
}

# The headers' and the pictures' tests again, on programs with sanitizers inside; with --long the command's too.
sanitizers() {
  local targets programs=(headers) ctest=(--label-exclude command) pytest=(tests/python/test_image.py)
  ((long)) && programs=() ctest=() pytest+=(tests/python/test_{command,gallery,gallery_file,serve,rest,watch}.py)
  stage "build asan" step "build asan" "$BROKEN" build asan "${programs[@]}"
  stage "ctest, asan" run_ctest asan "${ctest[@]}"
  FACENET_BUILD=build/asan stage "pytest, asan" run_pytest "pytest, asan" "${pytest[@]}" -m "not slow"

  mapfile -t targets < <(find tests -name 'test_*.cpp' -printf '%f\n' | sed 's/\.cpp$//' | grep -xE "$TSAN_TESTS")
  if ((${#targets[@]})); then stage "ctest, tsan" thread_sanitizer "${targets[@]}"; fi
}

thread_sanitizer() {  # TEST...
  step "build tsan" "$BROKEN" build tsan "$@"
  run_ctest tsan -R "^($(IFS='|'; echo "$*"))\$"
}

# The package preset, of which tests/python/test_packages.py makes, installs and uses packages. Its command takes two to
# three minutes to compile for each ISA: without --long, for those that this CPU runs, or QEMU.
packages() {
  local isas=""
  ((long)) || isas="sse4;avx2;$(widest_isa)"
  step "build package" "$BROKEN" build package "-DFACENET_DISPATCH_ISAS=${isas%;}"
  run_pytest "pytest, packages" tests/python/test_packages.py
  ((long)) || return 0   # the same tests as of the C library of the release preset
  FACENET_BUILD=build/package run_pytest "pytest, packaged C library" tests/python/test_c_library.py
}

widest_isa() {  # of those past AVX2, as cmake/FacenetIsa.cmake calls it
  case " $(grep -m1 ^flags /proc/cpuinfo) " in
    *" avx512_vnni "*) echo avx512vnni ;;
    *" avx512vl "*) echo avx512 ;;
    *" avx_vnni "*) echo avxvnni ;;
  esac
}

# What each machine runs, on CPUs that this one is not: kernels, whole networks in integers (2 pictures of one of width 1/8,
# FACENET_TEST_SLOW), every operator from a file's bytes to the result against the oracle (selftest). With --long the rest:
# a machine's whole plans take 80 s of CPU to compile and over 150 to run.
emulated_tests() {  # ISA
  case $1 in
    neon) echo "simd kernels choose integer quantisation weights selftest" ;;
    wasm) echo "simd kernels choose integer quantisation" ;;
    dotprod | i8mm) echo "integer" ;;
    armv7 | i386) echo "weights selftest" ;;
    riscv64 | s390x) echo "integer quantisation weights selftest" ;;   # once for each byte order
    sse2) echo "simd kernels integer" ;;
    sse4) echo "simd kernels integer" ;;
    avx2) echo "integer" ;;
  esac
  ((long)) || return 0
  case $1 in
    neon | wasm) echo plan ;;
    dotprod | i8mm) echo quantisation ;;
    armv7 | i386) echo "simd kernels integer" ;;
    riscv64 | s390x) echo "simd kernels" ;;
    sse2) echo "plan quantisation" ;;
    avx2) echo "simd kernels quantisation" ;;
  esac
}

# tests_of "TEST..." PREFIX SUFFIX RUNNER... : runs each PREFIX<test>SUFFIX, two at a time, all of them though one fails.
tests_of() {
  local tests prefix=$2 suffix=$3
  read -ra tests <<<"$1"
  shift 3
  printf '%s\n' "${tests[@]}" | FACENET_TEST_SLOW=1 xargs -P "$(nproc)" -I{} "$@" "$prefix{}$suffix" --no-colors=true
}

build_for() {  # "TEST..." FOLDER SUFFIX COMPILER...
  local tests folder=$2 suffix=$3
  read -ra tests <<<"$1"
  shift 3
  mkdir -p "$folder/include"
  ln -sfn /usr/include/doctest "$folder/include/doctest"   # of /usr/include this alone is for every machine
  local compile=("$@" -std=c++17 -O2 -DNDEBUG -ffp-contract=off -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion
    -Wshadow -Wno-psabi -Wno-unused-command-line-argument -Werror -Iinclude -isystem .deps/include -isystem "$folder/include")
  "${compile[@]}" -c tests/doctest_main.cpp -o "$folder/doctest_main.o" &&   # Emscripten: -s… is the linker's
    printf '%s\n' "${tests[@]}" | xargs -P "$(nproc)" -I{} "${compile[@]}" "tests/test_{}.cpp" "$folder/doctest_main.o" \
      -o "$folder/{}$suffix"
}

# The integer tests for WASI. Linked without -O: else clang runs Debian's wasm-opt, which knows no relaxed SIMD.
build_relaxed() {  # FOLDER
  local folder=$1 unit compile=(clang++-19 --target=wasm32-wasi -std=c++17 -msimd128 -mrelaxed-simd -mnontrapping-fptoint
    -fno-exceptions -DNDEBUG -ffp-contract=off -D__EMSCRIPTEN__ -D_WASI_EMULATED_SIGNAL
    -DDOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS -DDOCTEST_CONFIG_NO_POSIX_SIGNALS
    -Iinclude -isystem .deps/include -isystem "$1/include")
  mkdir -p "$folder/include"
  ln -sfn /usr/include/doctest "$folder/include/doctest"
  for unit in doctest_main test_integer; do "${compile[@]}" -O2 -c "tests/$unit.cpp" -o "$folder/$unit.o" || return; done
  "${compile[@]}" "$folder"/{doctest_main,test_integer}.o -lwasi-emulated-signal -Wl,-z,stack-size=1048576 \
    -o "$folder/integer.wasm"
}

# skip NAME REASON : what --all should have run, and cannot. That is a failure: bootstrap.sh --all has just set everything up.
skip() {
  summaries+=("$1" "skipped: $2")
  failures+=("$1: skipped")
}

# lacks NAME PROGRAM... : whether a program is not installed; then NAME was skipped.
lacks() {
  local name=$1 tool
  shift
  for tool in "$@"; do
    command -v "$tool" >/dev/null && continue
    skip "$name" "$tool is not installed (tools/bootstrap.sh --all)"
    return 0
  done
  return 1
}

# emulated NAME COMPILER "TEST..." PREFIX SUFFIX RUNNER... : runs them, and adds a row to the table of constrained builds.
emulated() {
  local name=$1 compiler=$2 what=$3 before=${#failures[@]} row
  shift 3
  row=build/constrained_builds/emulated-${name//[^A-Za-z0-9]/-}.json
  mkdir -p build/constrained_builds
  rm -f "$row"
  runner "$name, emulated" "$DOCTEST_LINES" tests_of "$what" "$@"
  ((${#failures[@]} > before)) ||
    printf '{"configuration": "%s", "built": "%s c++17", "ran": "%s, emulated"}\n' "$name" "$compiler" "${what// /, }" >"$row"
}

emulators() {
  local work=build/emulated isa cpu what triple flags
  # NEON; and what integer kernels have besides: sdot, and usdot.
  while read -r isa cpu flags <&3; do
    lacks "$isa, emulated" aarch64-linux-gnu-g++ qemu-aarch64 && continue
    what=$(emulated_tests "$isa" | xargs)
    # shellcheck disable=SC2086 # flags are words
    step "build for $isa" "$BROKEN" build_for "$what" "$work/$isa" "" aarch64-linux-gnu-g++ -pthread $flags
    emulated "$isa" aarch64-linux-gnu-g++ "$what" "$work/$isa/" "" qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$cpu"
  done 3<<<"neon max
dotprod cortex-a76 -march=armv8.2-a+dotprod
i8mm max -march=armv8.2-a+dotprod+i8mm"
  # Without SIMD of ours: 32-bit ARM, RISC-V, and big-endian s390x; SSE2 with 32-bit pointers, and serial:
  # QEMU 7.2 hangs when an i386 program starts a thread.
  while read -r isa cpu triple flags <&3; do
    lacks "$isa, emulated" "$triple-g++" "qemu-$cpu" && continue
    what=$(emulated_tests "$isa" | xargs)
    # shellcheck disable=SC2086 # flags are words
    step "build for $isa" "$BROKEN" build_for "$what" "$work/$isa" "" "$triple-g++" -pthread $flags
    emulated "$isa" "$triple-g++" "$what" "$work/$isa/" "" "qemu-$cpu" -L "/usr/$triple"
  done 3<<<"armv7 arm arm-linux-gnueabihf
riscv64 riscv64 riscv64-linux-gnu
s390x s390x s390x-linux-gnu
i386 i386 i686-linux-gnu -msse2 -mfpmath=sse -DFACENET_PARALLEL_SERIAL"
  if ! lacks "WebAssembly in Node" em++ node; then
    what=$(emulated_tests wasm | xargs)
    # Debian's Emscripten looks for its modules where Debian's Node does; without the option newer Nodes fetch() files.
    NODE_PATH=/usr/share/nodejs step "build for WebAssembly" "$BROKEN" \
      build_for "$what" "$work/wasm" .js em++ -msimd128 -sALLOW_MEMORY_GROWTH=1 -sTOTAL_STACK=1MB
    runner "WebAssembly in Node" "$DOCTEST_LINES" tests_of "$what" "$work/wasm/" .js node --no-experimental-fetch
  fi
  # Relaxed SIMD's dots of bytes are not the same in any two engines, so the integer kernels ask: one more that answers.
  if ! lacks "relaxed SIMD under wasmtime" clang++-19; then
    step "build for relaxed SIMD" "$BROKEN" build_relaxed "$work/relaxed"
    runner "relaxed SIMD under wasmtime" "$DOCTEST_LINES" .venv/bin/python tests/web/run_wasi.py "$work/relaxed/integer.wasm"
  fi
  if [[ $(uname -m) == x86_64 ]] && ! lacks "old x86-64, emulated" qemu-x86_64; then
    # SSE on the first CPUs that had it, so that an instruction too new for them shows. AVX2 without the plan: where
    # denormals are flushed, QEMU 7.2 flushes subnormal halves too, which a CPU's VCVTPH2PS does not.
    while read -r isa cpu <&3; do
      emulated "$isa on $cpu" g++ "$(emulated_tests "$isa" | xargs)" build/release/tests/test_ "_$isa" qemu-x86_64 -cpu "$cpu"
    done 3<<<"sse2 core2duo
sse4 Nehalem
avx2 max"
  fi
}

# The JavaScript package and its page: every build in Node and in Chromium, the WASI build under wasmtime.
readonly NODE_LINES='^# (pass|fail) [0-9]'
web() {
  local preset name="web package"
  if lacks "$name" em++ node clang++-19 chromium; then return 0; fi
  if [[ ! -d build/web/node_modules/playwright-core ]]; then
    skip "$name" "build/web/node_modules is not there (tools/bootstrap.sh --all, with npm)"
    return 0
  fi
  for preset in wasm wasm-threads wasm-scalar wasi wasi-relaxed wasi-threads wasi-relaxed-threads; do
    step "build $preset" "$BROKEN" build "$preset"
  done
  step "what the web tests compare with" "$BROKEN" \
    .venv/bin/python tests/web/make_fixtures.py build/web/fixtures
  runner "web package in Node" "$NODE_LINES" node --test --test-reporter=tap tests/web/node.test.mjs
  runner "web package, wrong arguments" "$NODE_LINES" node --test --test-reporter=tap tests/web/arguments.test.mjs
  runner "web package in other projects" "$NODE_LINES" node --test --test-reporter=tap tests/web/projects.test.mjs
  runner "web package in Chromium" "$NODE_LINES" node --test --test-reporter=tap tests/web/chromium.test.mjs
  run_pytest "web module under wasmtime" tests/web
}

# Every place the engine is meant for, each built, run and compared, with a table.
constrained() {
  runner "constrained builds" '^(skipped|constrained builds):' .venv/bin/python tools/constrained_builds.py
}

# A target's own line `// with: …` names other units and libraries that it is made of.
build_fuzzer() {  # NAME
  local with
  mapfile -t with < <(sed -n 's,^// with: ,,p' "tests/fuzz/$1.cpp")
  # shellcheck disable=SC2068 # words and patterns
  "$FUZZ_COMPILER" -std=c++17 -O1 -g1 -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -Iinclude -Itools -Isrc -isystem .deps/include "tests/fuzz/$1.cpp" ${with[@]} -o "build/fuzz/$1"
}
export -f build_fuzzer

build_fuzzers() {  # NAME...
  printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} env FUZZ_COMPILER="$FUZZ_COMPILER" bash -euo pipefail -c 'build_fuzzer {}'
}

# A short run from the seeds, where tests/python has a maker for them.
fuzz_one() {  # NAME
  local work=build/fuzz/$1.work maker=tests/python/make_${1#fuzz_}_corpus.py
  mkdir -p "$work/corpus" "$work/found"
  {
    [[ ! -f $maker ]] || .venv/bin/python "$maker" "$work/corpus"
    "build/fuzz/$1" -max_total_time="$FUZZ_SECONDS" -max_len=8192 -timeout=20 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="$work/found/" "$work/corpus"
  } 2>&1 | sed -u "s/^/$1: /"
}
export -f fuzz_one

fuzz() {
  local names
  command -v "$FUZZ_COMPILER" >/dev/null || die "$FUZZ_COMPILER is not installed; run tools/bootstrap.sh --all."
  mapfile -t names < <(find tests/fuzz -name 'fuzz_*.cpp' -printf '%f\n' | sed 's/\.cpp$//' | sort)
  mkdir -p build/fuzz
  step "build fuzz targets" "$BROKEN" build_fuzzers "${names[@]}"
  runner "fuzz targets" '^fuzz_[a-z]*: stat::number_of_executed' xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz_one {}' \
    < <(printf '%s\n' "${names[@]}")
}

main() {
  local all=0 began=$EPOCHREALTIME i name
  while (($#)); do
    case $1 in
      --all) all=1 ;;
      --long) all=1 long=1 ;;
      --only) only+=("${2-}"); all=1; shift $(($# > 1)) ;;
      -h | --help) usage; exit 0 ;;
      *) die "unknown option '$1'; see tools/test.sh --help." ;;
    esac
    shift
  done
  cd "$tools/.."
  mkdir -p build
  FUZZ_SECONDS=$((long ? 300 : 10))
  export FUZZ_SECONDS
  ((long)) && export FACENET_LONG=1

  for name in "${only[@]}"; do
    printf '%s\n' "${ALL_STAGES[@]}" | grep -qxF -- "$name" ||
      die "there is no stage '$name'; stages are: $(printf '%s; ' "${ALL_STAGES[@]}")"
  done
  if ((all)); then
    for name in "${ALL_STAGES[@]}"; do is_wanted "$name" && stages+=("$name"); done
    ((${#only[@]})) || echo "test: --all takes up to $((ALL_BUDGET / 60)) minutes on two quiet cores, after downloads" >&2
    tools/bootstrap.sh --all || exit 2
  else
    stages=("${QUICK_STAGES[@]}")
    echo "test: the quick suite takes up to $((QUICK_BUDGET / 60)) minutes on two quiet cores, after downloads: build" \
      "${BUDGETS[build release]} s, golden files ${BUDGETS[golden files]}, ctest ${BUDGETS[ctest, release]}, pytest" \
      "${BUDGETS[pytest, release]}; far less where they are built" >&2
    tools/bootstrap.sh || exit 2
  fi
  clean_environment
  trap 'print_table >&2' EXIT   # whatever ends it
  if ((all)); then
    whole
    stage "clang-tidy" lint --tidy
    sanitizers
    stage "emulators" emulators
    stage "web package" web
    stage "pytest, packages" packages
    stage "constrained builds" constrained
    stage "build noexcept" step "build noexcept" "$BROKEN" build noexcept example_faces
    stage "fuzz targets" fuzz
  else
    quick
  fi
  trap - EXIT

  print_table
  printf '\n%s: the runners say\n' "$program"
  for ((i = 0; i < ${#summaries[@]}; i += 2)); do
    printf '\n%s\n%s\n' "${summaries[i]}" "${summaries[i + 1]}"
  done
  printf '\n%s: %.0f s in all; ' "$program" "$(seconds_since "$began")"
  if ((${#failures[@]})); then
    printf 'FAILED: %s\n' "$(IFS=';'; echo "${failures[*]}")"
    exit 1
  fi
  printf 'everything passed\n'
}

main "$@"
