// The page of a run: its JSON report, and what only a picture needs, put into one HTML file.
#ifndef PARITYBIT_REPORT_PAGE_REPORT_H_
#define PARITYBIT_REPORT_PAGE_REPORT_H_

#include <string>

#include "report/summary.h"

namespace pb::report {

std::string RenderPage(const Summary& summary);

}  // namespace pb::report

#endif  // PARITYBIT_REPORT_PAGE_REPORT_H_
