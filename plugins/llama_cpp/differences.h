// What some releases of llama.cpp do not have, told apart by what their headers declare and never
// by a number: a function that the headers lack is one of these templates, since overload
// resolution takes a function of the headers first.
#ifndef PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_
#define PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_

namespace pb_missing {

// The library's own version; null: it does not tell.
template <typename = void>
const char* llama_version() {
  return nullptr;
}

}  // namespace pb_missing

using namespace pb_missing;  // NOLINT: beside the functions of the headers, or they would be hidden

#endif  // PARITYBIT_PLUGINS_LLAMA_CPP_DIFFERENCES_H_
