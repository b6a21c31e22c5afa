# Writes OUT, which tells the commit that is built, where it says something else by now. Without git or a repository: nothing.
execute_process(COMMAND git rev-parse HEAD WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
                ERROR_QUIET RESULT_VARIABLE failed)
execute_process(COMMAND git status --porcelain --untracked-files=no WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE changes ERROR_QUIET)
if(failed)
  set(commit "")
elseif(NOT changes STREQUAL "")
  set(commit "${commit}+changes")
endif()
# The last commit of some paths, "+changes" behind it where their files differ.
function(last_commit out)
  execute_process(COMMAND git log -1 --format=%H -- ${ARGN} WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE last
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  execute_process(COMMAND git status --porcelain -- ${ARGN} WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE differs ERROR_QUIET)
  if(NOT last STREQUAL "" AND NOT differs STREQUAL "")
    set(last "${last}+changes")
  endif()
  set(${out} "${last}" PARENT_SCOPE)
endfunction()
# What is looked for in a wrong op, and the defects that a generator draws (paritybit self-check --generated).
last_commit(variations src/diagnose src/oracle)
last_commit(defects plugins/mutant/fault.h plugins/mutant/fault.cc plugins/mutant/fault_product.cc plugins/mutant/fault_values.cc
            plugins/mutant/draw.h plugins/mutant/draw.cc plugins/mutant/truth.cc)
string(CONCAT text "// The commit that was built.\n#include \"cli/commit.h\"\n\nnamespace pb::cli {\n\n"
       "const char* Commit() { return \"${commit}\"; }\n"
       "const char* CommitOfVariations() { return \"${variations}\"; }\n"
       "const char* CommitOfDefects() { return \"${defects}\"; }\n\n}  // namespace pb::cli\n")
set(before "")
if(EXISTS ${OUT})
  file(READ ${OUT} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${OUT} "${text}")
endif()
