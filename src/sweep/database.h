// The cells of a sweep as an SQLite database: made of the cells alone, so that it may be deleted.
#ifndef PARITYBIT_SWEEP_DATABASE_H_
#define PARITYBIT_SWEEP_DATABASE_H_

#include <filesystem>
#include <span>

#include "base/result.h"
#include "sweep/plan.h"
#include "sweep/result.h"

namespace pb::sweep {

inline constexpr const char* kDatabaseFile = "sweep.sqlite";

// Tables cells, reasons and positions (docs/sweep.md); written whole, in the place of what was
// there. `results` are those of `cells`, in their order.
Status WriteDatabase(const Folder& folder, std::span<const Cell> cells, std::span<const CellResult> results);

}  // namespace pb::sweep

#endif  // PARITYBIT_SWEEP_DATABASE_H_
