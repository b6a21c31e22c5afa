// Manual pages, written from the table of commands and the flags that they declare: what --help shows.
#ifndef PARITYBIT_CLI_MAN_H_
#define PARITYBIT_CLI_MAN_H_

#include <map>
#include <string>

namespace pb::cli {

// Name of each page without its section, "paritybit-crossval", and its text for man(7).
std::map<std::string, std::string> ManualPages(const std::string& date);

}  // namespace pb::cli

#endif  // PARITYBIT_CLI_MAN_H_
