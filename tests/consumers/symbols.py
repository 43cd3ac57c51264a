"""What an object file of the library's may not ask the linker for."""

from __future__ import annotations

import pathlib
import re
import subprocess

# With glibc's fortified names (__printf_chk) and what assert() calls. snprintf, fopen and fread are fine. So is
# std::terminate with the pool: std::thread's destructor names it for a thread that nobody joined.
PRINTS_OR_ENDS = (r"abort|_?exit|_Exit|quick_exit|__assert_fail|(?:__)?v?f?d?printf(?:_chk)?|puts|fputs|putchar|putc|fputc"
                  r"|fwrite|perror|stdout|stderr|_ZNSt8ios_base4Init.*|_ZSt[34](?:cout|cerr|clog|cin).*")
ALLOCATES = r"_Zn[wa][jm].*|_ZSt17__throw_bad_alloc.*"           # operator new; the library takes malloc and checks
THROWS = r"__cxa_(?:throw|allocate_exception|rethrow).*|__gxx_personality.*|_ZTVN10__cxxabiv.*"
THREADS = r"pthread_.*|_ZNSt6thread.*|GOMP_.*|omp_.*|_ZNSt18condition_variable.*"
FILES = (r"f?open(?:64)?|fdopen|fclose|fread|fseek(?:o64)?|ftell|fgets|setvbuf|(?:__)?(?:v?s?n?printf|s?scanf)(?:_chk)?|__isoc\w+"
         r"|read|write|close|f?stat(?:64)?|fcntl(?:64)?")


def forbidden(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join((PRINTS_OR_ENDS, *patterns))})(?:@.*)?")


def undefined(unit: pathlib.Path, nm: str = "nm") -> set[str]:
    listing = subprocess.run([nm, "-u", unit], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listing.splitlines() if line.strip()}
