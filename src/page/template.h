// The bundled page, cut where a title and the data belong. Made of web/ by web/build.mjs.
#ifndef PARITYBIT_PAGE_TEMPLATE_H_
#define PARITYBIT_PAGE_TEMPLATE_H_

#include <string_view>

namespace pb::page {

extern const std::string_view kBeforeTitle, kBeforeData, kAfterData;

}  // namespace pb::page

#endif  // PARITYBIT_PAGE_TEMPLATE_H_
