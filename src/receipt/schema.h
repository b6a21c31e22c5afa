// JSON Schema 2020-12, as much of it as docs/receipt.schema.json uses.
#ifndef PARITYBIT_RECEIPT_SCHEMA_H_
#define PARITYBIT_RECEIPT_SCHEMA_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pb::receipt {

// The schema of receipts, as it was built in.
std::string_view SchemaText();

// Where a value is not what a schema allows: "/engines/0/plugin_sha256: ..." (RFC 6901), in order of
// the document, at most `most`. kUnsupported: the schema has a keyword that is not understood, so
// that nothing passes for want of a check.
Result<std::vector<std::string>> Violations(const nlohmann::json& schema, const nlohmann::json& value,
                                            size_t most = 8);
// The same by the schema of receipts.
std::vector<std::string> ReceiptViolations(const nlohmann::json& receipt);

}  // namespace pb::receipt

#endif  // PARITYBIT_RECEIPT_SCHEMA_H_
