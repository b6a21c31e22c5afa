// The decoder of another engine's plugin, for weights of types that nothing here decodes.
#ifndef PARITYBIT_PLUGINS_ORACLE_DECODER_H_
#define PARITYBIT_PLUGINS_ORACLE_DECODER_H_

#include <filesystem>
#include <memory>

#include "base/result.h"
#include "formats/block.h"

namespace pb::oracle {

// Loads the plugin into this process, for good, and creates its engine. kUnsupported: it lends no
// decoder.
Result<std::shared_ptr<const LentDecoder>> LoadDecoder(const std::filesystem::path& plugin);

}  // namespace pb::oracle

#endif  // PARITYBIT_PLUGINS_ORACLE_DECODER_H_
