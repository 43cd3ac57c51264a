# facenet.spdx.json: what our binaries and headers are made of, as SPDX 2.3.
set(entries)
function(sbom_entry name version licence copyright home relation)
  if(NOT version)
    set(version unknown)
  endif()
  string(APPEND entries ",
    {
      \"SPDXID\": \"SPDXRef-${name}\",
      \"name\": \"${name}\",
      \"versionInfo\": \"${version}\",
      \"downloadLocation\": \"${home}\",
      \"filesAnalyzed\": false,
      \"licenseConcluded\": \"${licence}\",
      \"licenseDeclared\": \"${licence}\",
      \"copyrightText\": \"${copyright}\",
      \"externalRefs\": [{
        \"referenceCategory\": \"PACKAGE-MANAGER\",
        \"referenceType\": \"purl\",
        \"referenceLocator\": \"pkg:generic/${name}@${version}\"
      }]
    }")
  set(entries "${entries}" PARENT_SCOPE)
  string(APPEND relations ",
    {
      \"spdxElementId\": \"SPDXRef-facenet\",
      \"relationshipType\": \"${relation}\",
      \"relatedSpdxElement\": \"SPDXRef-${name}\"
    }")
  set(relations "${relations}" PARENT_SCOPE)
endfunction()

# Header-only parts are compiled in: CONTAINS. What the system's loader brings: DYNAMIC_LINK.
set(version ${xsimd_VERSION})
if(FACENET_XSIMD_BUNDLED)
  file(STRINGS ${FACENET_XSIMD_BUNDLED}/xsimd/config/xsimd_config.hpp lines REGEX "define XSIMD_VERSION_(MAJOR|MINOR|PATCH)")
  string(REGEX REPLACE "[^0-9;]" "" version "${lines}")
  string(REPLACE ";" "." version "${version}")
endif()
sbom_entry(xsimd "${version}" BSD-3-Clause "Johan Mabille, Sylvain Corlay, Wolf Vollprecht, Martin Renou, QuantStack, Serge Guelton"
           https://github.com/xtensor-stack/xsimd CONTAINS)
if(TARGET facenet_command)
  set(version)
  foreach(file stb/stb_image.h stb_image.h)
    if(NOT version AND EXISTS ${FACENET_STB_INCLUDE_DIR}/${file})
      file(STRINGS ${FACENET_STB_INCLUDE_DIR}/${file} version REGEX "^/\\* stb_image - v" LIMIT_COUNT 1)
      string(REGEX REPLACE ".*v([0-9.]+).*" "\\1" version "${version}")
    endif()
  endforeach()
  sbom_entry(stb-image "${version}" "MIT OR Unlicense" "2017 Sean Barrett" https://github.com/nothings/stb CONTAINS)
  find_package(CLI11 QUIET)
  sbom_entry(CLI11 "${CLI11_VERSION}" BSD-3-Clause "2017-2021 University of Cincinnati, developed by Henry Schreiner"
             https://github.com/CLIUtils/CLI11 CONTAINS)
  find_package(nlohmann_json QUIET)
  sbom_entry(nlohmann-json "${nlohmann_json_VERSION}" MIT "2013-2022 Niels Lohmann" https://github.com/nlohmann/json CONTAINS)
  get_target_property(linked facenet_command LINK_LIBRARIES)
  if("SQLite::SQLite3" IN_LIST linked)
    find_package(SQLite3 QUIET)
    sbom_entry(sqlite "${SQLite3_VERSION}" blessing "NONE" https://www.sqlite.org DYNAMIC_LINK)
  endif()
  if(FACENET_SERVE)
    find_package(Boost QUIET)
    sbom_entry(Boost "${Boost_VERSION_STRING}" BSL-1.0 "2003-2020 Christopher Kohlhoff, 2016-2019 Vinnie Falco and others"
               https://www.boost.org CONTAINS)
    find_package(OpenSSL QUIET)
    sbom_entry(OpenSSL "${OPENSSL_VERSION}" Apache-2.0 "1998-2022 The OpenSSL Project Authors" https://www.openssl.org
               DYNAMIC_LINK)
  endif()
  # cmake/PictureFormats.cmake: those that were found and are not left out.
  macro(sbom_format option name licence copyright home)
    if(FACENET_FORMATS AND FACENET_LIB_SECCOMP_FOUND AND FACENET_LIB_${option}_FOUND AND (FACENET_${option} OR "${option}" STREQUAL "SECCOMP"))
      set(version ${FACENET_LIB_${option}_VERSION}${FACENET_LIB_${option}_libwebp_VERSION})
      sbom_entry(${name} "${version}" "${licence}" "${copyright}" ${home} DYNAMIC_LINK)
    endif()
  endmacro()
  sbom_format(SECCOMP libseccomp LGPL-2.1-only "Cisco Systems, Red Hat and others" https://github.com/seccomp/libseccomp)
  sbom_format(JPEG libjpeg-turbo "IJG AND BSD-3-Clause AND Zlib" "D. R. Commander and others" https://libjpeg-turbo.org)
  sbom_format(PNG libpng libpng-2.0 "The PNG Reference Library Authors" http://www.libpng.org)
  sbom_format(WEBP libwebp BSD-3-Clause "Google Inc." https://developers.google.com/speed/webp)
  sbom_format(HEIF libheif LGPL-3.0-or-later "Dirk Farin, struktur AG" https://github.com/strukturag/libheif)
  sbom_format(TIFF libtiff libtiff "Sam Leffler, Silicon Graphics, Inc." https://libtiff.gitlab.io/libtiff)
  sbom_format(JXL libjxl BSD-3-Clause "the JPEG XL Project Authors" https://github.com/libjxl/libjxl)
  sbom_format(RAW LibRaw "LGPL-2.1-only OR CDDL-1.0" "LibRaw LLC" https://www.libraw.org)
  sbom_format(LCMS lcms2 MIT "Marti Maria Saguer" https://www.littlecms.com)
  if(FACENET_FORMATS AND FACENET_LIB_SECCOMP_FOUND AND FACENET_GIF)
    find_package(GIF 5.1 QUIET)
  endif()
  if(GIF_FOUND)
    sbom_entry(giflib "${GIF_VERSION}" MIT "Eric S. Raymond, Gershon Elber and others" https://giflib.sourceforge.net DYNAMIC_LINK)
  endif()
  if("EXPAT::EXPAT" IN_LIST linked)
    find_package(EXPAT QUIET)
    sbom_entry(Expat "${EXPAT_VERSION_STRING}" MIT "1998-2022 The Expat maintainers" https://libexpat.github.io
               DYNAMIC_LINK)
  endif()
  if("CURL::libcurl" IN_LIST linked)
    find_package(CURL QUIET)
    sbom_entry(curl "${CURL_VERSION_STRING}" curl "NONE" https://curl.se DYNAMIC_LINK)
  endif()
endif()
if(FACENET_OPENMP AND OpenMP_CXX_FOUND)
  sbom_entry(OpenMP-runtime "${CMAKE_CXX_COMPILER_VERSION}" "GPL-3.0-or-later WITH GCC-exception-3.1"
             "Free Software Foundation, Inc." https://gcc.gnu.org DYNAMIC_LINK)
endif()

string(TIMESTAMP created UTC)   # of SOURCE_DATE_EPOCH where that is set
string(UUID unique NAMESPACE 6ba7b811-9dad-11d1-80b4-00c04fd430c8 NAME "${PROJECT_VERSION} ${created} ${entries}" TYPE SHA1)
file(WRITE ${PROJECT_BINARY_DIR}/facenet.spdx.json "{
  \"spdxVersion\": \"SPDX-2.3\",
  \"dataLicense\": \"CC0-1.0\",
  \"SPDXID\": \"SPDXRef-DOCUMENT\",
  \"name\": \"facenet-${PROJECT_VERSION}\",
  \"documentNamespace\": \"https://spdx.org/spdxdocs/facenet-${PROJECT_VERSION}-${unique}\",
  \"creationInfo\": {\"created\": \"${created}\", \"creators\": [\"Organization: The facenet authors\", \"Tool: CMake-${CMAKE_VERSION}\"]},
  \"packages\": [
    {
      \"SPDXID\": \"SPDXRef-facenet\",
      \"name\": \"facenet\",
      \"versionInfo\": \"${PROJECT_VERSION}\",
      \"downloadLocation\": \"NOASSERTION\",
      \"filesAnalyzed\": false,
      \"licenseConcluded\": \"MIT\",
      \"licenseDeclared\": \"MIT\",
      \"copyrightText\": \"2026 The facenet authors\",
      \"primaryPackagePurpose\": \"APPLICATION\"
    }${entries}
  ],
  \"relationships\": [
    {
      \"spdxElementId\": \"SPDXRef-DOCUMENT\",
      \"relationshipType\": \"DESCRIBES\",
      \"relatedSpdxElement\": \"SPDXRef-facenet\"
    }${relations}
  ]
}
")
