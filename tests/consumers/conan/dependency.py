"""A recipe for a header-only library whose headers lie in $HEADERS: stands in for the one that Conan would download."""

import os

from conan import ConanFile
from conan.tools.files import copy


class Headers(ConanFile):
    package_type = "header-library"
    no_copy_source = True

    def package(self):
        copy(self, os.environ["PATTERN"], os.environ["HEADERS"], self.package_folder + "/include")

    def package_info(self):
        if self.name == "xsimd":   # as its own CMake files name it
            self.cpp_info.set_property("cmake_target_name", "xsimd")
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
