# A Debian package of what is installed: `cpack -G DEB` in the build folder.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME paritybit)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The paritybit authors <paritybit@users.noreply.github.com>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "cross-engine parity checks for LLM inference")
set(CPACK_PACKAGE_DESCRIPTION
    "Proves that one LLM inference engine computes what another computes, and when
it does not, names the first token, layer and operation where they part, whose
fault it is, and why. Home ground: BitNet b1.58 and Llama-family GGUF models;
the reference is llama.cpp, which `paritybit setup-cpp-auto` sets up.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# What set-up fetches a reference and a model with, and compiles the adapter with (paritybit preflight).
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "g++, git, npm, python3-pip")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "cmake, ninja-build, bash-completion")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian.cmake)
include(CPack)
