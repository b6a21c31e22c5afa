// The page that a report becomes: one HTML file that needs nothing else. What is shown, and how,
// stands in web/, which is bundled when this is built; here the data is put in.
#ifndef PARITYBIT_PAGE_PAGE_H_
#define PARITYBIT_PAGE_PAGE_H_

#include <string>
#include <string_view>

namespace pb::page {

// `title`: of the document, any text. `json`: what web/src/data.ts describes. Neither can become
// markup: the title is escaped, and the data is compressed and spelt in base64.
std::string Render(std::string_view title, std::string_view json);

}  // namespace pb::page

#endif  // PARITYBIT_PAGE_PAGE_H_
