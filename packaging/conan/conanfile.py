"""Conan recipe: `conan create packaging/conan`, with -o facenet/*:dispatch=True for the library, tools=True for the command."""

import pathlib

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Facenet(ConanFile):
    name = "facenet"
    version = "0.1.0"
    description = "Header-only FaceNet inference engine: face detection and face embeddings on the CPU"
    license = "MIT"
    topics = ("face-recognition", "simd", "inference", "header-only")
    settings = "os", "arch", "compiler", "build_type"
    options = {"dispatch": [True, False], "tools": [True, False], "image": [True, False]}
    default_options = {"dispatch": False, "tools": False, "image": True}

    def export_sources(self):
        root = pathlib.Path(self.recipe_folder).parents[1]
        patterns = ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "src/*", "tools/*", "bench/*.hpp", "packaging/copyright", "packaging/*.1",
                    "weights/README.md")
        for pattern in patterns:
            copy(self, pattern, root, self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def package_id(self):
        if not self.info.options.dispatch and not self.info.options.tools:
            self.info.clear()

    def requirements(self):
        self.requires("xsimd/[>=11.2]", transitive_headers=True)
        if self.options.image or self.options.tools:
            self.requires("stb/[>=cci.20230920 || >=2.27]", transitive_headers=True)
        if self.options.tools:
            self.requires("cli11/[>=2.1 <3]")
            self.requires("nlohmann_json/[>=3.11 <4]")
            self.requires("sqlite3/[>=3.37 <4]")

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for switch in ("C", "TESTS", "BENCH", "EXAMPLES"):
            toolchain.cache_variables[f"FACENET_BUILD_{switch}"] = False
        toolchain.cache_variables["FACENET_BUILD_TOOLS"] = bool(self.options.tools)
        toolchain.cache_variables["FACENET_DISPATCH"] = bool(self.options.dispatch)
        toolchain.cache_variables["FACENET_OPENMP"] = False
        toolchain.cache_variables["FACENET_BUNDLE_XSIMD"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, str(pathlib.Path(self.package_folder) / "licenses"))

    def package_info(self):
        # Conan's own description of the targets; those that CMake installed know nothing of Conan's dependencies.
        self.cpp_info.set_property("cmake_file_name", "facenet")
        core = self.cpp_info.components["facenet"]
        core.set_property("cmake_target_name", "facenet::facenet")
        core.set_property("pkg_config_name", "facenet")
        core.requires = ["xsimd::xsimd"]
        core.bindirs = core.libdirs = []
        if self.settings.os in ("Linux", "FreeBSD"):
            core.system_libs = ["pthread"]
        if self.options.image or self.options.tools:
            image = self.cpp_info.components["image"]
            image.set_property("cmake_target_name", "facenet::image")
            image.requires = ["facenet", "stb::stb"]
            image.bindirs = image.libdirs = []
        if self.options.tools:
            self.cpp_info.components["command"].requires = ["cli11::cli11", "nlohmann_json::nlohmann_json", "sqlite3::sqlite3"]
        if self.options.dispatch:
            dispatch = self.cpp_info.components["dispatch"]
            dispatch.set_property("cmake_target_name", "facenet::dispatch")
            dispatch.set_property("pkg_config_name", "facenet-dispatch")
            dispatch.libs = ["facenet-dispatch"]
            dispatch.requires = ["facenet"]
