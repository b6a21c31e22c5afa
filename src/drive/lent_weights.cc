// Asks engines for decoders, and tells whose is used.
#include "drive/lent_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <mutex>

#include "drive/engine_spec.h"
#include "trace/facts.h"

namespace pb::drive {
namespace {

// An engine that is asked for nothing else. One call at a time.
class EngineDecoder : public LentDecoder {
 public:
  EngineDecoder(std::unique_ptr<host::Engine> engine, std::filesystem::path plugin)
      : engine_(std::move(engine)), plugin_(std::move(plugin)) {
    const trace::EngineFacts facts = trace::ReadEngineFacts(engine_->description());
    lender_ = facts.version.empty() ? facts.name : facts.name + " " + facts.version;
  }

  Status Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) const override {
    const std::lock_guard lock(mutex_);
    return engine_->Decode(type_id, blocks, values);
  }
  std::string lender() const override { return lender_; }
  std::filesystem::path plugin() const override { return plugin_; }

 private:
  mutable std::mutex mutex_;
  std::unique_ptr<host::Engine> engine_;
  std::filesystem::path plugin_;
  std::string lender_;
};

bool NeedsDecoder(const GgufFile& file) {
  for (const GgufTensor& t : file.tensors())
    if (!FindBlockFormat(t.type_id)) return true;
  return false;
}

}  // namespace

Result<std::shared_ptr<const Model>> OpenModel(const std::filesystem::path& path, ModelOptions options,
                                               std::span<const std::filesystem::path> lenders,
                                               const host::Limits& limits) {
  auto model = Model::Open(path, options);
  if (model.ok() || model.error().code != Code::kUnsupported) return model;
  const auto file = GgufFile::Open(path);
  if (!file.ok() || !NeedsDecoder(*file)) return model;
  for (const std::filesystem::path& plugin : lenders) {
    auto engine = host::Engine::Start(plugin, {}, limits);
    if (!engine.ok() || !((*engine)->capabilities() & PB_CAP_DECODE)) continue;
    options.decoder = std::make_shared<EngineDecoder>(std::move(engine).value(), plugin);
    auto lent = Model::Open(path, options);
    if (lent.ok()) return lent;
    model = std::move(lent);
  }
  return model;
}

void PutDecoder(const Model& model, host::Settings* settings) {
  if (model.lent()) PutSetting(*settings, "weights.decoder", model.lent()->plugin().string());
}

std::string LentText(const Model& model) {
  if (!model.lent()) return "";
  return fmt::format(
      "weights of {} are decoded by the code of {} for the arbiter as well: whether the file's numbers are "
      "read right is not checked, and neither the model file nor its weights are blamed",
      fmt::join(model.lent_types(), ", "), model.lent()->lender());
}

}  // namespace pb::drive
