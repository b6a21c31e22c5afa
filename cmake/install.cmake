# What `cmake --install` puts where. The product finds everything relative to bin/paritybit, so the whole may stand anywhere and
# may be moved.
include(GNUInstallDirs)
set(doc share/doc/paritybit)

# Manual pages, written by the table of commands.
add_executable(paritybit-man-pages ${PROJECT_SOURCE_DIR}/src/cli/man_pages_main.cc)
target_link_libraries(paritybit-man-pages PRIVATE pb_cli)
set_target_properties(paritybit-man-pages PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tools)
set(man_dir ${PROJECT_BINARY_DIR}/share/man/man1)
string(TIMESTAMP PB_DATE "%Y-%m-%d" UTC)  # or $SOURCE_DATE_EPOCH
add_custom_command(
  OUTPUT ${PROJECT_BINARY_DIR}/share/man/stamp
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${man_dir}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${man_dir}
  COMMAND paritybit-man-pages ${man_dir} ${PB_DATE}
  COMMAND ${CMAKE_COMMAND} -E touch ${PROJECT_BINARY_DIR}/share/man/stamp
  DEPENDS paritybit-man-pages
  COMMENT "Writing the manual pages"
  VERBATIM)
# The licence, and those of the packages that are bundled into the report's page.
add_custom_command(
  OUTPUT ${PROJECT_BINARY_DIR}/${doc}/copyright
  COMMAND ${CMAKE_COMMAND} -DLICENSE=${PROJECT_SOURCE_DIR}/LICENSE -DPACKAGES=${PROJECT_BINARY_DIR}/web/node_modules
          -DOUT=${PROJECT_BINARY_DIR}/${doc}/copyright -P ${PROJECT_SOURCE_DIR}/cmake/copyright.cmake
  DEPENDS ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/cmake/copyright.cmake ${PROJECT_BINARY_DIR}/web/packages.stamp
  COMMENT "Writing the licences"
  VERBATIM)
add_custom_target(manual ALL DEPENDS ${PROJECT_BINARY_DIR}/share/man/stamp ${PROJECT_BINARY_DIR}/${doc}/copyright)
add_dependencies(manual pb_page)

install(TARGETS paritybit RUNTIME DESTINATION bin)
install(TARGETS paritybit-host RUNTIME DESTINATION lib/paritybit)
install(TARGETS pb_plugin_native pb_plugin_oracle pb_plugin_replay pb_plugin_mutant LIBRARY DESTINATION lib/paritybit)
install(DIRECTORY ${PB_SHARE_DIR}/ DESTINATION share/paritybit)
install(DIRECTORY python DESTINATION share/paritybit PATTERN tests EXCLUDE PATTERN __pycache__ EXCLUDE)
install(DIRECTORY ${man_dir} DESTINATION share/man)
install(FILES cmake/completion/paritybit DESTINATION share/bash-completion/completions)
# Debian's zsh looks into vendor-completions, others into site-functions.
set(PB_ZSH_COMPLETION share/zsh/site-functions CACHE STRING "Folder of zsh's completion functions, below the prefix")
install(FILES cmake/completion/_paritybit DESTINATION ${PB_ZSH_COMPLETION})
install(FILES cmake/completion/paritybit.fish DESTINATION share/fish/vendor_completions.d)
install(FILES README.md ARCHITECTURE.md CONTRIBUTING.md ${PROJECT_BINARY_DIR}/${doc}/copyright DESTINATION ${doc})
install(DIRECTORY docs examples DESTINATION ${doc})
install(FILES models/README.md DESTINATION ${doc}/models)
install(FILES bench/README.md DESTINATION ${doc}/bench)
install(FILES python/README.md DESTINATION ${doc}/python)
