# A room is one folder under src/, one static library, and one test binary. It may include only the rooms its row in
# ARCHITECTURE.md names; the same row is linked here, and tests/layers_test.py compares includes, this file and the table.

# All tests labelled unit: what the sanitizer builds need.
add_custom_target(unit_tests)

# For code in which a run spends no time worth measuring: compiled in two thirds of the time that -O3 takes.
set(PB_COLD_OPTIONS $<$<CONFIG:Release>:-O1>)

# What every test links: GoogleTest, and where the source and build trees are (tests/paths.h).
if(PB_TESTS)
  configure_file(${PROJECT_SOURCE_DIR}/tests/paths.cc.in ${PROJECT_BINARY_DIR}/tests/paths.cc @ONLY)
  add_library(pb_testing STATIC ${PROJECT_BINARY_DIR}/tests/paths.cc)
  target_include_directories(pb_testing PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(pb_testing PUBLIC GTest::gtest)
  target_compile_options(pb_testing PUBLIC ${PB_COLD_OPTIONS})
endif()

# pb_room(NAME [COLD] ROOMS base formats ... LIBS fmt::fmt ...)
# Sources: every .cc in the folder but the tests; tests: *_test.cc, labelled with the room's name and LABELS. COLD: a run spends
# no time there (PB_COLD_OPTIONS).
function(pb_room name)
  cmake_parse_arguments(R "COLD" "" "ROOMS;LIBS;TEST_LIBS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  if(tests)
    list(REMOVE_ITEM sources ${tests})
  endif()
  list(FILTER sources EXCLUDE REGEX "_(main|bench|fuzz)\\.cc$")
  list(TRANSFORM R_ROOMS PREPEND pb_ OUTPUT_VARIABLE deps)
  if(sources)
    add_library(pb_${name} STATIC ${sources})
    target_include_directories(pb_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(pb_${name} PUBLIC ${deps} ${R_LIBS})
    if(R_COLD)
      target_compile_options(pb_${name} PRIVATE ${PB_COLD_OPTIONS})
    endif()
  else()
    add_library(pb_${name} INTERFACE)
    target_include_directories(pb_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(pb_${name} INTERFACE ${deps} ${R_LIBS})
  endif()
  if(PB_TESTS AND tests)
    add_executable(pb_${name}_test ${tests})
    target_link_libraries(pb_${name}_test PRIVATE pb_${name} ${R_TEST_LIBS} pb_testing GTest::gtest_main)
    # Not by the room's name alone, which tests of whole commands have.
    add_test(NAME ${name}_unit COMMAND pb_${name}_test)
    add_dependencies(unit_tests pb_${name}_test)
    set_tests_properties(${name}_unit PROPERTIES LABELS "unit;${R_LABELS}" TIMEOUT 900)
  endif()
endfunction()

# pb_plugin(NAME SOURCES ... ROOMS ...): an engine behind the C ABI, lib/paritybit/NAME.so, exporting pb_engine_get alone.
function(pb_plugin name)
  cmake_parse_arguments(P "" "" "SOURCES;ROOMS;LIBS" ${ARGN})
  list(TRANSFORM P_ROOMS PREPEND pb_ OUTPUT_VARIABLE deps)
  add_library(pb_plugin_${name} MODULE ${P_SOURCES})
  target_include_directories(pb_plugin_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(pb_plugin_${name} PRIVATE ${deps} ${P_LIBS})
  target_link_options(pb_plugin_${name} PRIVATE -Wl,--exclude-libs,ALL)
  set_target_properties(pb_plugin_${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
                                                     LIBRARY_OUTPUT_DIRECTORY ${PB_PLUGIN_DIR})
endfunction()
