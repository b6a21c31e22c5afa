# Writes OUT, which tells the commit that is built, where it says something else by now. Without git or a repository: nothing.
execute_process(COMMAND git rev-parse HEAD WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
                ERROR_QUIET RESULT_VARIABLE failed)
execute_process(COMMAND git status --porcelain --untracked-files=no WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE changes ERROR_QUIET)
if(failed)
  set(commit "")
elseif(NOT changes STREQUAL "")
  set(commit "${commit}+changes")
endif()
string(CONCAT text "// The commit that was built.\n#include \"cli/commit.h\"\n\nnamespace pb::cli {\n\n"
       "const char* Commit() { return \"${commit}\"; }\n\n}  // namespace pb::cli\n")
set(before "")
if(EXISTS ${OUT})
  file(READ ${OUT} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${OUT} "${text}")
endif()
