# shellcheck shell=bash disable=SC2154
export LC_ALL=C.UTF-8   # printf wants its own decimal point in the numbers that it is given
# Sourced by demo.sh and test.sh: steps that say what they do and how long it took, and failures of one sentence.
# The caller sets `program` (its name in messages) and works in the project's root.

die() { printf '%s: %s\n' "$program" "$*" >&2; exit 2; }

seconds_since() {
  local microseconds=$(( ${EPOCHREALTIME//[!0-9]/} - ${1//[!0-9]/} ))
  printf '%d.%06d' $((microseconds / 1000000)) $((microseconds % 1000000))
}

# attempt NAME COMMAND... : runs the command, its output in build/NAME.log; prints the time; returns its status.
attempt() {
  local name=$1 began=$EPOCHREALTIME status=0
  shift
  log=build/${name//[^A-Za-z0-9]/-}.log
  mkdir -p build
  printf '%-44s' "$program: $name" >&2
  set +e   # not under `||`: bash would then ignore `set -e` inside the command
  ( set -e; "$@" ) >"$log" 2>&1 </dev/null
  status=$?
  set -e
  printf '%6.1f s%s\n' "$(seconds_since "$began")" "$( ((status == 0)) || echo "  (status $status)")" >&2
  return "$status"
}

# step NAME REMEDY COMMAND... : the same; a failure shows the end of the log and ends the script with the remedy.
step() {
  local name=$1 remedy=$2
  shift 2
  attempt "$name" "$@" && return 0
  tail -n 25 "$log" >&2
  die "'$name' failed; the whole output is in $log; $remedy."
}

# build PRESET [-DNAME=VALUE]... [TARGET...] : configures and builds a CMake preset.
build() {
  local preset=$1 variables=()
  shift
  while [[ ${1-} == -D* ]]; do variables+=("$1"); shift; done
  # A variable that a preset no longer sets would stay in the cache.
  [[ ! CMakePresets.json -nt build/$preset/CMakeCache.txt ]] || rm -f "build/$preset/CMakeCache.txt"
  cmake --preset "$preset" "${variables[@]}"
  cmake --build --preset "$preset" -j "$(nproc)" ${@:+--target "$@"}
}
