// Calls the decode of a loaded plugin.
#include "plugins/oracle/decoder.h"

#include "abi/engine.h"
#include "host/plugin.h"

namespace pb::oracle {
namespace {

class PluginDecoder : public LentDecoder {
 public:
  PluginDecoder(const pb_engine_api& api, pb_engine* engine, std::filesystem::path plugin)
      : api_(api), engine_(engine), plugin_(std::move(plugin)) {}
  ~PluginDecoder() override { api_.destroy(engine_); }
  PluginDecoder(const PluginDecoder&) = delete;
  PluginDecoder& operator=(const PluginDecoder&) = delete;

  Status Decode(uint32_t type_id, std::span<const std::byte> blocks, std::span<float> values) const override {
    return host::TakeError(api_,
                           api_.decode(engine_, static_cast<int32_t>(type_id), blocks.data(), blocks.size(),
                                       static_cast<int64_t>(values.size()), values.data()));
  }
  std::string lender() const override { return plugin_.string(); }
  std::filesystem::path plugin() const override { return plugin_; }

 private:
  pb_engine_api api_;
  pb_engine* engine_;
  std::filesystem::path plugin_;
};

}  // namespace

Result<std::shared_ptr<const LentDecoder>> LoadDecoder(const std::filesystem::path& plugin) {
  PB_ASSIGN(const pb_engine_api api, host::LoadPlugin(plugin.string()));
  if (!(api.capabilities & PB_CAP_DECODE))
    return MakeError(Code::kUnsupported, "weights.decoder: {} lends no decoder", plugin.string());
  pb_engine* engine = nullptr;
  PB_TRY(host::TakeError(api, api.create(nullptr, 0, &engine)));
  return std::shared_ptr<const LentDecoder>(std::make_shared<PluginDecoder>(api, engine, plugin));
}

}  // namespace pb::oracle
